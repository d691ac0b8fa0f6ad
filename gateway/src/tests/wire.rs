//! Over real connections on loopback: what a client sees on the wire.

use super::support::Site;
use crate::server::Gateway;
use cairn_node::tasks::Tasks;
use cairn_store::dag::pb;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const GRACE: Duration = Duration::from_secs(60);

pub(super) struct Running {
    gateway: Gateway,
    registry: prometheus::Registry,
}

pub(super) async fn serve(site: Site) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let registry = prometheus::Registry::new();
    let config = site.config.clone();
    let others = (
        None,
        Arc::new(site.names.clone()) as Arc<dyn crate::names::Names>,
    );
    let content = Arc::new(site);
    let tasks = Tasks::new();
    let gateway = Gateway::start_with(listener, content, others, config, &tasks, &registry);
    let gateway = gateway.unwrap();
    Running { gateway, registry }
}

impl Running {
    pub(super) fn address(&self) -> std::net::SocketAddr {
        self.gateway.address().unwrap()
    }

    pub(super) async fn stop(self, grace: Duration) -> bool {
        self.gateway.stop(grace).await
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Everything that comes back until the connection ends, and how it ended.
    pub(super) async fn say(&self, text: &str) -> (String, Result<(), ErrorKind>) {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        text.lines().any(|known| known == line)
    }
}

pub(super) async fn read_to_end(stream: &mut TcpStream) -> (String, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (text, ended.map(drop).map_err(|error| error.kind()))
}

/// Reads up to and with the end of a head.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let running = serve(site).await;
    let mut stream = running.connect().await;
    let get = format!("GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\nRange: bytes=2-4\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(
        head.starts_with("HTTP/1.1 206 ") && head.contains("content-range: bytes 2-4/10\r\n"),
        "{head}"
    );
    let mut body = [0; 3];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"234");
    let head = format!("HEAD /ipfs/{cid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (text, ended) = read_to_end(&mut stream).await;
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.contains("content-length: 10\r\n"),
        "{text}"
    );
    assert!(text.ends_with("\r\n\r\n"), "{text}");
    assert_eq!(ended, Ok(()));
    assert!(running.metric("cairn_gateway_requests_total{format=\"file\",status=\"2xx\"} 2"));
    assert!(running.metric("cairn_gateway_sent_bytes_total 3"));
    assert!(running.gateway.stop(GRACE).await);
}

#[tokio::test]
async fn what_fails_is_counted_as_what_was_asked_for() {
    let running = serve(Site::new()).await;
    for path in ["/routing/v1/providers/nothing", "/nothing"] {
        let (text, _) = running
            .say(&format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(text.starts_with("HTTP/1.1 4"), "{text}");
    }
    for kind in ["routing", "other"] {
        let line = format!("cairn_gateway_requests_total{{format=\"{kind}\",status=\"4xx\"}} 1");
        assert!(running.metric(&line), "{line}");
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_short_is_a_broken_connection() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..8_u8).map(|at| vec![at; 100_000]).collect();
    let last = site.raw(chunks[7].clone());
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    site.lose(&last);
    let names: Vec<String> = (0..10_500).map(|at| format!("{at}.txt")).collect();
    let folder = site.hamt(&names);
    let node = pb::decode(&site.here[&folder].data().clone()).unwrap();
    site.lose(&node.links.last().unwrap().cid);
    let running = serve(site).await;
    let asked = [
        (format!("{file}"), ""),
        (format!("{file}"), "Range: bytes=300000-"),
        (format!("{file}"), "Range: bytes=0-499999,790000-799999"),
        (format!("{file}?format=car"), ""),
        (format!("{file}?format=car&entity-bytes=0:*"), ""),
        (format!("{file}?format=tar"), ""),
        (format!("{folder}/"), ""),
        (format!("{folder}?format=car&dag-scope=entity"), ""),
        (format!("{folder}?format=tar"), ""),
    ];
    for version in ["1.1", "1.0"] {
        for (path, header) in &asked {
            let head = format!("GET /ipfs/{path} HTTP/{version}\r\nHost: x\r\n{header}");
            let end = if header.is_empty() {
                "\r\n"
            } else {
                "\r\n\r\n"
            };
            let (text, ended) = running.say(&format!("{head}{end}")).await;
            assert_eq!(ended, Err(ErrorKind::ConnectionReset), "{head}");
            assert!(!text.ends_with("0\r\n\r\n"), "{head}");
        }
    }
    let broken = 2 * asked.len();
    assert!(running.metric(&format!("cairn_gateway_broken_total {broken}")));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let mut site = Site::new();
    site.config.header_timeout = "50ms".parse().unwrap();
    let running = serve(site).await;
    let (text, _) = running.say("GET /ipfs/x HTTP/1.1\r\nHost:").await;
    assert!(
        text.is_empty() || text.starts_with("HTTP/1.1 408"),
        "{text}"
    );
    let (text, _) = running.say("").await;
    assert!(
        text.is_empty() || text.starts_with("HTTP/1.1 408"),
        "{text}"
    );
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let mut site = Site::new();
    site.config.write_timeout = "50ms".parse().unwrap();
    let chunk = vec![7; 1 << 20];
    let chunks: Vec<&[u8]> = std::iter::repeat_n(chunk.as_slice(), 64).collect();
    let file = site.file(&chunks);
    let running = serve(site).await;
    let mut stream = running.connect().await;
    let get = format!("GET /ipfs/{file} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    // Ends only because the gateway gives up: nothing is read meanwhile.
    assert!(running.gateway.stop(GRACE).await);
    let (text, ended) = read_to_end(&mut stream).await;
    assert!(ended.is_err() || text.len() < 64 << 20);
}

#[tokio::test]
async fn nonsense_is_refused_and_bodies_end_the_connection() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    let running = serve(site).await;
    let (text, _) = running.say("NONSENSE\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    let long = "a".repeat(100_000);
    let (text, _) = running
        .say(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    // The body holds a second request; only the first may be answered.
    let hidden = format!("GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n");
    let smuggled = format!(
        "GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let (text, _) = running.say(&smuggled).await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(
        text.contains("connection: close") && text.contains("hello"),
        "{text}"
    );
}

#[tokio::test]
async fn stopping_waits_for_what_runs_and_takes_nothing_new() {
    let mut site = Site::new();
    let chunk = vec![7; 1 << 20];
    let chunks: Vec<&[u8]> = std::iter::repeat_n(chunk.as_slice(), 32).collect();
    let file = site.file(&chunks);
    let running = serve(site).await;
    let address = running.address();
    let mut stream = running.connect().await;
    let get = format!("GET /ipfs/{file} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.contains("content-length: 33554432\r\n"), "{head}");
    let read = async {
        let mut body = vec![0; 32 << 20];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    };
    let (drained, ()) = tokio::join!(running.gateway.stop(GRACE), read);
    assert!(drained);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn dropping_cuts_what_runs() {
    let mut site = Site::new();
    site.missing = super::support::Missing::Hangs;
    let cid = site.raw("lost");
    site.lose(&cid);
    let running = serve(site).await;
    let mut stream = running.connect().await;
    let get = format!("GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    drop(running);
    let (text, _) = read_to_end(&mut stream).await;
    assert_eq!(text, "");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let mut site = Site::new();
    site.config.connections_max = 1.try_into().unwrap();
    let running = serve(site).await;
    let mut first = running.connect().await;
    first
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut first).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut second = running.connect().await;
    second
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(running.metric("cairn_gateway_connections 1"));
    drop(first);
    let (text, ended) = read_to_end(&mut second).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && ended.is_ok(), "{text}");
}

#[tokio::test]
async fn no_length_is_told_where_none_is_known() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    let folder = site.folder(&[("hello", cid)]);
    let running = serve(site).await;
    for (path, header, status) in [
        (format!("/ipfs/{cid}?format=car"), "X: y".to_owned(), "200"),
        (
            format!("/ipfs/{folder}?format=tar"),
            "X: y".to_owned(),
            "200",
        ),
        (format!("/ipfs/{folder}/"), "X: y".to_owned(), "200"),
        (
            format!("/ipfs/{cid}"),
            format!("If-None-Match: \"{cid}\""),
            "304",
        ),
    ] {
        let head =
            format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n");
        let (text, _) = running.say(&head).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(
            !text.contains("content-length") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }
}
