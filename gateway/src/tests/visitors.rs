//! Peers that ask over streams of libp2p: what they are given, and what they are not.

use super::ipns::named;
use super::support::{Missing, Site};
use crate::metrics::Metrics;
use crate::server::Switches;
use crate::server::visitors::Reception;
use cairn_node::PeerId;
use cairn_node::bitswap::policy::{DenyContent, PeerLists, Policy, ServeAll};
use cairn_node::ipns;
use cairn_node::name::path::Root;
use cairn_node::tasks::Tasks;
use cairn_store::Block;
use cairn_store::car::read::CarReader;
use futures::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;

const GRACE: Duration = Duration::from_secs(60);
const STREAMS_MAX: u32 = 4;

/// A gateway for peers.
struct Host {
    reception: Reception<Arc<Site>>,
    switches: Switches,
    tasks: Tasks,
    registry: prometheus::Registry,
}

/// One stream to it.
struct Call {
    stream: DuplexStream,
    /// Whether the gateway has ended its half in order.
    ended: Arc<AtomicBool>,
}

/// The gateway's end of a stream, which tells a reset from an end.
struct End {
    stream: Compat<DuplexStream>,
    ended: Arc<AtomicBool>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, bytes)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_close(context)
    }
}

impl Host {
    fn of(site: Site) -> Self {
        let (tasks, registry) = (Tasks::new(), prometheus::Registry::new());
        let switches = Switches {
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let metrics = Metrics::register(&registry).unwrap();
        let (config, names) = (site.config.clone(), Arc::new(site.names.clone()));
        let slots = Arc::new(Semaphore::new(1));
        let reception = Reception::new(
            (Arc::new(site), names),
            &config,
            STREAMS_MAX,
            (switches.clone(), metrics, slots),
            &tasks,
        );
        Self {
            reception,
            switches,
            tasks,
            registry,
        }
    }

    fn call(&self) -> Call {
        self.call_as(PeerId::random(), Arc::new(ServeAll))
    }

    fn call_as(&self, peer: PeerId, policy: Arc<dyn Policy>) -> Call {
        let (stream, other) = tokio::io::duplex(64 << 10);
        let ended = Arc::new(AtomicBool::new(false));
        let end = End {
            stream: other.compat(),
            ended: Arc::clone(&ended),
        };
        let guest = self.reception.guest(peer, policy);
        self.tasks.spawn("stream", async move {
            guest.serve(end.compat(), |socket| socket).await;
        });
        Call { stream, ended }
    }

    /// Asks over a stream of its own; gives the status and the whole answer.
    async fn ask(&self, request: &str) -> (u16, String) {
        ask(self.call(), request).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await
    }

    fn metric(&self, line: &str) -> bool {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        text.lines().any(|known| known == line)
    }
}

impl Call {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// A head, and the body of the length that it tells.
    async fn answer(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let told = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; told.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body).await.unwrap();
        (head, body)
    }

    async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }
}

async fn ask(mut call: Call, request: &str) -> (u16, String) {
    call.say(request).await;
    // As go-libp2p does: the end of the request is the end of what it says.
    call.stream.shutdown().await.unwrap();
    let answer = String::from_utf8_lossy(&call.read_to_end().await).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn one_stream_carries_one_request_after_the_other() {
    let mut site = Site::new();
    let (one, two) = (site.raw("one"), site.raw("two"));
    let host = Host::of(site);
    let mut call = host.call();
    for (cid, content) in [(one, "one"), (two, "two"), (one, "one")] {
        call.say(&format!(
            "GET /ipfs/{cid}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
        let (head, body) = call.answer().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("content-type: application/vnd.ipld.raw\r\n"),
            "{head}"
        );
        assert_eq!(body, content.as_bytes());
        Block::verify(cid, body.into()).unwrap();
    }
    call.say(&format!(
        "GET /ipfs/{one}?format=raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let last = String::from_utf8(call.read_to_end().await).unwrap();
    assert!(last.ends_with("\r\n\r\none"), "{last}");
    assert!(call.ended.load(Ordering::Relaxed));
    assert!(host.metric("cairn_gateway_requests_total{format=\"raw\",status=\"2xx\"} 4"));
}

#[tokio::test]
async fn a_car_and_the_record_of_a_name_are_given() {
    let (mut site, name, root) = named();
    let record = site.names.records[&ipns::name(&name).unwrap()]
        .bytes()
        .to_vec();
    let file = site.file(&[b"hello ", b"world"]);
    let host = Host::of(site);
    for (path, blocks) in [
        (format!("/ipfs/{file}"), 3),
        (format!("/ipfs/{root}/sub/file.txt"), 3),
    ] {
        let mut call = host.call();
        let accept = "Accept: application/vnd.ipld.car\r\nConnection: close";
        call.say(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n"
        ))
        .await;
        let answer = call.read_to_end().await;
        let at = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .unwrap();
        let car = unchunked(&answer[at + 4..]);
        let sections = CarReader::new(car.as_slice()).unwrap();
        let checked = sections.map(|section| {
            let (cid, data) = section.unwrap();
            Block::verify(cid, data).unwrap()
        });
        assert_eq!(checked.count(), blocks, "{path}");
    }
    let mut call = host.call();
    call.say(&format!(
        "GET /ipns/{name}?format=ipns-record HTTP/1.1\r\nHost: x\r\n\r\n"
    ))
    .await;
    let (head, body) = call.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, record);
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = std::str::from_utf8(&bytes[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return out;
        }
        out.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 2 + length + 2..];
    }
}

#[tokio::test]
async fn what_cannot_be_checked_and_what_is_asked_of_others_is_refused() {
    let (mut site, name, root) = named();
    let file = site.file(&[b"hello ", b"world"]);
    let host = Host::of(site);
    for (request, status) in [
        (format!("GET /ipfs/{file} HTTP/1.1"), 400),
        (format!("GET /ipfs/{root}/ HTTP/1.1"), 400),
        (
            format!("GET /ipfs/{root}/sub/file.txt?format=raw HTTP/1.1"),
            400,
        ),
        (format!("GET /ipfs/{root}?format=tar HTTP/1.1"), 406),
        (format!("GET /ipfs/{root}?format=dag-json HTTP/1.1"), 406),
        (format!("GET /ipns/{name} HTTP/1.1"), 400),
        (format!("GET /ipns/{name}?format=car HTTP/1.1"), 400),
        ("GET / HTTP/1.1".to_owned(), 404),
        (format!("GET /routing/v1/providers/{file} HTTP/1.1"), 404),
        (format!("PUT /routing/v1/ipns/{name} HTTP/1.1"), 404),
        (format!("POST /ipfs/{file}?format=raw HTTP/1.1"), 405),
        ("CONNECT localhost:80 HTTP/1.1".to_owned(), 405),
        (format!("GET /ipfs/{file}?format=raw HTTP/1.0"), 505),
    ] {
        let (got, answer) = host
            .ask(&format!(
                "{request}\r\nHost: x\r\nAccept: */*, text/html\r\n\r\n"
            ))
            .await;
        assert_eq!(got, status, "{request}: {answer}");
        assert!(
            answer.contains("content-type: text/plain"),
            "{request}: {answer}"
        );
    }
}

#[tokio::test]
async fn nothing_is_looked_for_on_behalf_of_a_peer() {
    let mut site = Site::new();
    let (there, nowhere) = (site.raw("there"), site.raw("nowhere"));
    site.move_elsewhere(&there);
    site.lose(&nowhere);
    // Whoever looks for it elsewhere waits for ever.
    site.missing = Missing::Hangs;
    let host = Host::of(site);
    for cid in [there, nowhere] {
        for form in ["raw", "car"] {
            let (status, answer) = host.get(&format!("/ipfs/{cid}?format={form}")).await;
            assert_eq!(status, 404, "{answer}");
            assert!(
                answer.contains(&format!("block {cid} is not here")),
                "{answer}"
            );
        }
    }
    let name = ipns::text(&PeerId::random());
    let (status, answer) = host.get(&format!("/ipns/{name}?format=ipns-record")).await;
    assert_eq!(status, 404, "{answer}");
}

#[tokio::test]
async fn hosts_count_for_nothing() {
    let (mut site, ..) = named();
    let cid = site.raw("hello");
    let domain = Root::name("site.example").unwrap();
    assert!(site.names.leads.contains_key(&domain));
    let host = Host::of(site);
    for (line, header) in [
        (
            format!("/ipfs/{cid}?format=raw"),
            "Host: site.example".to_owned(),
        ),
        (
            format!("/ipfs/{cid}?format=raw"),
            format!("Host: {cid}.ipfs.localhost"),
        ),
        (
            format!("/ipfs/{cid}?format=raw"),
            "Host: x\r\nX-Forwarded-Host: site.example".to_owned(),
        ),
        (
            format!("/ipfs/{cid}?format=raw"),
            "Host: localhost".to_owned(),
        ),
        (
            format!("http://site.example/ipfs/{cid}?format=raw"),
            "Host: site.example".to_owned(),
        ),
    ] {
        let (status, answer) = host
            .ask(&format!("GET {line} HTTP/1.1\r\n{header}\r\n\r\n"))
            .await;
        assert_eq!(status, 200, "{line} {header}: {answer}");
    }
    let (status, answer) = host
        .ask("GET /sub/file.txt?format=raw HTTP/1.1\r\nHost: site.example\r\n\r\n")
        .await;
    assert_eq!(status, 404, "{answer}");
}

#[tokio::test]
async fn what_is_served_over_this_protocol_is_told() {
    let host = Host::of(Site::new());
    let (status, answer) = host.get("/.well-known/libp2p/protocols").await;
    assert_eq!(status, 200);
    assert!(
        answer.contains("content-type: application/json\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("{\"/ipfs/gateway\":{\"path\":\"/\"}}\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn who_is_not_served_over_bitswap_is_not_served_here() {
    let (mut site, name, _) = named();
    let (denied, other) = (site.raw("denied"), site.raw("other"));
    let host = Host::of(site);
    let key = ipns::name(&name).unwrap();
    let content: DenyContent = [*denied.hash(), *ipns::cid(&key).unwrap().hash()]
        .into_iter()
        .collect();
    let content: Arc<dyn Policy> = Arc::new(content);
    let friend = PeerId::random();
    let lists = PeerLists {
        allow: [friend].into(),
        ..PeerLists::default()
    };
    let lists: Arc<dyn Policy> = Arc::new(lists);
    let stranger = PeerId::random();
    for (path, peer, policy, status) in [
        (format!("/ipfs/{other}?format=raw"), stranger, &content, 200),
        (
            format!("/ipfs/{denied}?format=raw"),
            stranger,
            &content,
            404,
        ),
        (
            format!("/ipfs/{denied}?format=car"),
            stranger,
            &content,
            404,
        ),
        (
            format!("/ipns/{name}?format=ipns-record"),
            stranger,
            &content,
            404,
        ),
        (
            format!("/ipns/{name}?format=ipns-record"),
            friend,
            &lists,
            200,
        ),
        (format!("/ipfs/{denied}?format=raw"), friend, &lists, 200),
        (format!("/ipfs/{denied}?format=raw"), stranger, &lists, 404),
        (
            format!("/ipns/{name}?format=ipns-record"),
            stranger,
            &lists,
            404,
        ),
    ] {
        let call = host.call_as(peer, Arc::clone(policy));
        let (got, answer) = ask(call, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(got, status, "{path}: {answer}");
    }
    // Nor is a validator that the peer knows an answer.
    let call = host.call_as(stranger, Arc::clone(&content));
    let known =
        format!("GET /ipfs/{denied}?format=raw HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n");
    assert_eq!(ask(call, &known).await.0, 404);
}

#[tokio::test]
async fn what_the_operator_denies_is_denied_to_peers() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    site.names.denied.push(format!("/ipfs/{cid}"));
    let host = Host::of(site);
    let (status, answer) = host.get(&format!("/ipfs/{cid}?format=raw")).await;
    assert_eq!(status, 451, "{answer}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end_in_order() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..8_u8).map(|at| vec![at; 100_000]).collect();
    let last = site.raw(chunks[7].clone());
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    site.lose(&last);
    let host = Host::of(site);
    let mut call = host.call();
    call.say(&format!(
        "GET /ipfs/{file}?format=car HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let answer = call.read_to_end().await;
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > 600_000);
    assert!(!answer.ends_with(b"0\r\n\r\n"));
    assert!(!call.ended.load(Ordering::Relaxed));
    assert!(host.metric("cairn_gateway_broken_total 1"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_is_said_ends() {
    let host = Host::of(Site::new());
    for said in ["", "GET /ipfs/x HTTP/1.1\r\nHost:"] {
        let mut call = host.call();
        call.say(said).await;
        assert_eq!(call.read_to_end().await, b"", "{said}");
    }
    assert!(host.tasks.stop(GRACE).await);
}

#[tokio::test]
async fn stopping_waits_for_what_runs() {
    let mut site = Site::new();
    let block = site.raw(vec![7; 1 << 20]);
    let host = Host::of(site);
    let (mut idle, mut call) = (host.call(), host.call());
    call.say(&format!(
        "GET /ipfs/{block}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n"
    ))
    .await;
    let mut first = [0; 1];
    call.stream.read_exact(&mut first).await.unwrap();
    host.switches.stop.cancel();
    assert_eq!(idle.read_to_end().await, b"");
    let rest = call.read_to_end().await;
    assert!(rest.len() > 1 << 20 && call.ended.load(Ordering::Relaxed));
    assert!(host.tasks.stop(GRACE).await);
}

#[tokio::test]
async fn cutting_ends_what_runs() {
    let mut site = Site::new();
    let block = site.raw(vec![7; 1 << 20]);
    let host = Host::of(site);
    let mut call = host.call();
    call.say(&format!(
        "GET /ipfs/{block}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n"
    ))
    .await;
    let mut first = [0; 1];
    call.stream.read_exact(&mut first).await.unwrap();
    host.switches.cut.cancel();
    assert!(call.read_to_end().await.len() < 1 << 20);
    assert!(!call.ended.load(Ordering::Relaxed));
}

#[tokio::test]
async fn peers_have_places_of_their_own() {
    let mut site = Site::new();
    site.config.requests_max = 1.try_into().unwrap();
    let block = site.raw(vec![7; 1 << 20]);
    let host = Host::of(site);
    // As many as may be: each is answered while nobody reads any of the answers.
    let mut calls = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut call = host.call();
        call.say(&format!(
            "GET /ipfs/{block}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
        let mut status = [0; 12];
        call.stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        calls.push(call);
    }
    assert!(host.metric("cairn_gateway_requests_running 4"));
}
