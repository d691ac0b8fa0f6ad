//! A driver against gateways on loopback (`crate::http::testing`).

use super::driver::Driver;
use super::{Gateways, Http, News};
use crate::bitswap::message::{Absence, Change, Entry, Message, WantKind};
use crate::bitswap::streams::{Holds, Intake, Outgoing, Sinks, Unverified};
use crate::bitswap::transport::BlockTransport;
use crate::bitswap::verify;
use crate::bitswap::worker::Input;
pub(in crate::bitswap) use crate::http::testing::{Answer, Gateway, Question};
use crate::http::testing::{raw, serve};
use crate::http::{Endpoint, Fence, REQUESTS_MAX, Standing, Times};
use crate::limits::{Limits, Rate};
use crate::network::Network;
use crate::tasks::Tasks;
use crate::throttle::Throttle;
use bytes::Bytes;
use cairn_store::block::{BLOCK_BYTES_MAX, Prefix};
use cairn_store::cid::{self, HashKind};
use cairn_store::{Block, Cid};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

fn local() -> Gateways {
    Gateways::new(Network::Local, Vec::new())
}

fn impatient() -> Gateways {
    let times = Times {
        head: Duration::from_millis(300),
        body_idle: Duration::from_millis(300),
        ..Times::default()
    };
    Gateways { times, ..local() }
}

/// A driver, and the worker's ends of it.
struct Bench {
    orders: mpsc::Sender<Outgoing>,
    inputs: mpsc::Receiver<Input>,
    unverified: mpsc::Receiver<Unverified>,
    registry: prometheus::Registry,
    tasks: Tasks,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Bench {
    fn start(endpoint: &Endpoint) -> Self {
        Self::start_with(endpoint, local(), Limits::default())
    }

    fn start_with(endpoint: &Endpoint, gateways: Gateways, limits: Limits) -> Self {
        let (inputs, heard) = mpsc::channel(100);
        let (unverified, blocks) = mpsc::channel(verify::QUEUE_MAX);
        let (tasks, registry) = (Tasks::new(), prometheus::Registry::new());
        let http = Http::new(gateways, &registry).unwrap();
        let throttle = Throttle::new(limits, &registry).unwrap();
        let intake = Arc::new(Intake::new(endpoint.id().unwrap(), throttle.gate()));
        let gate = Arc::clone(&intake.gate);
        let pool = http.pool(endpoint.clone(), Standing::Configured, gate, &tasks);
        intake.wanted.store(1, Ordering::Relaxed);
        let driver = Driver {
            pool: Arc::new(pool.unwrap()),
            stay: 1,
            intake,
            sinks: Sinks::new(inputs, unverified, Holds::unseen()),
            metrics: http.metrics.clone(),
        };
        let (orders, inbox) = mpsc::channel(8);
        tasks.spawn("driver", driver.run(inbox));
        Self {
            orders,
            inputs: heard,
            unverified: blocks,
            registry,
            tasks,
        }
    }

    async fn say(&self, lines: impl IntoIterator<Item = (Cid, Change)>) {
        let wants = lines
            .into_iter()
            .map(|(cid, change)| Entry { cid, change })
            .collect();
        let message = Message {
            wants,
            ..Message::default()
        };
        self.orders
            .send(Outgoing { message, bytes: 0 })
            .await
            .unwrap();
    }

    async fn want(&self, cid: Cid) {
        self.say([(cid, WANT)]).await;
    }

    /// The next news but that a message was read.
    async fn news(&mut self) -> News {
        loop {
            match self.inputs.recv().await.unwrap() {
                Input::Http {
                    news: News::Heard, ..
                } => {}
                Input::Http { news, .. } => return news,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn data(&mut self) -> Bytes {
        let unverified = self.unverified.recv().await.unwrap();
        unverified.blocks[0].data.clone()
    }

    /// For how long it was held back by our own limits.
    fn held(&self) -> f64 {
        let families = self.registry.gather();
        let seconds = families
            .iter()
            .find(|family| family.name() == "cairn_limits_throttled_seconds_total")
            .unwrap();
        let inward = seconds
            .get_metric()
            .iter()
            .find(|metric| metric.get_label()[0].value() == "in");
        inward.unwrap().get_counter().get_value()
    }

    fn count(&self, outcome: &str) -> f64 {
        let families = self.registry.gather();
        let requests = families
            .iter()
            .find(|family| family.name() == "cairn_http_fetch_requests_total")
            .unwrap();
        let counted = requests.get_metric().iter().find(|metric| {
            let labels = metric.get_label();
            labels[0].value() == outcome
        });
        counted.unwrap().get_counter().get_value()
    }
}

const WANT: Change = Change::Want {
    priority: 1,
    kind: WantKind::Block,
    absence: Absence::Tell,
};

fn block(data: &[u8]) -> Block {
    let raw = Prefix {
        version: cid::Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    Block::new(raw, Bytes::copy_from_slice(data)).unwrap()
}

#[tokio::test]
async fn a_body_comes_however_it_is_framed_and_connections_are_used_again() {
    for framed in [
        raw("content-length: 5", b"hello"),
        raw(
            "transfer-encoding: chunked",
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ),
        raw(
            "transfer-encoding: chunked",
            b"5\r\nhello\r\n0\r\nx-a: b\r\n\r\n",
        ),
    ] {
        let gateway = Gateway::start(move |_| Answer::Whole(framed.clone())).await;
        let mut bench = Bench::start(&gateway.endpoint());
        for number in 0..10_u8 {
            bench.want(*block(&[number]).cid()).await;
            assert_eq!(bench.data().await, "hello");
        }
        assert_eq!(gateway.connections.load(Ordering::Relaxed), 1);
        assert_eq!(bench.count("delivered"), 10.0);
        assert!(
            gateway
                .asked()
                .iter()
                .all(|question| question.only_if_cached)
        );
    }
    // Without a length the connection's end is the body's.
    let gateway = Gateway::start(|_| Answer::Cut(raw("x-a: b", b"hello"))).await;
    let mut bench = Bench::start(&gateway.endpoint());
    bench.want(*block(b"hello").cid()).await;
    assert_eq!(bench.data().await, "hello");
}

#[tokio::test]
async fn what_a_gateway_has_not_is_absent_and_the_second_time_it_may_look_for_it() {
    for status in [
        "404 Not Found",
        "410 Gone",
        "412 Precondition Failed",
        "451 Unavailable For Legal Reasons",
    ] {
        let gateway = Gateway::start(move |_| Answer::status(status)).await;
        let mut bench = Bench::start(&gateway.endpoint());
        let cid = *block(b"it").cid();
        for _ in 0..2 {
            bench.want(cid).await;
            assert_eq!(bench.news().await, News::Absent(cid));
        }
        let asked = gateway.asked();
        assert_eq!(asked[0].target, format!("/ipfs/{cid}?format=raw"));
        let only: Vec<bool> = asked
            .iter()
            .map(|question| question.only_if_cached)
            .collect();
        assert_eq!(only, [true, false], "{status}");
        assert_eq!(bench.count("absent"), 2.0);
    }
}

#[tokio::test]
async fn a_cache_that_has_no_copy_is_passed_by_at_once() {
    let gateway = Gateway::start(|question| match question.only_if_cached {
        true => Answer::status("504 Gateway Timeout"),
        false => Answer::block(b"it"),
    })
    .await;
    let mut bench = Bench::start(&gateway.endpoint());
    bench.want(*block(b"it").cid()).await;
    assert_eq!(bench.data().await, "it");
}

#[tokio::test]
async fn what_is_no_block_fails_with_its_kind_and_holds_nothing() {
    let large = BLOCK_BYTES_MAX + 1;
    let chunk = format!("{large:x}\r\n").into_bytes();
    let chunk = [chunk, vec![7; large]].concat();
    type Give = Box<dyn Fn() -> Answer + Send + Sync>;
    let cases: Vec<(&str, Give)> = vec![
        // The announced length is enough to refuse it: not a byte comes.
        (
            "too_large",
            Box::new(move || Answer::Drip(raw(&format!("content-length: {large}"), b""))),
        ),
        (
            "too_large",
            Box::new(move || Answer::Whole(raw("transfer-encoding: chunked", &chunk))),
        ),
        (
            "too_slow",
            Box::new(|| Answer::Drip(raw("content-length: 100000", b""))),
        ),
        ("too_slow", Box::new(|| Answer::Nothing)),
        (
            "broken",
            Box::new(|| Answer::Cut(raw("content-length: 100", b"only this"))),
        ),
        (
            "broken",
            Box::new(|| Answer::Cut(raw("transfer-encoding: chunked", b"5\r\nhel"))),
        ),
        (
            "broken",
            Box::new(|| Answer::Cut(b"SSH-2.0-x\r\n".to_vec())),
        ),
        ("broken", Box::new(|| Answer::Cut(Vec::new()))),
        (
            "status",
            Box::new(|| Answer::status("500 Internal Server Error")),
        ),
        (
            "status",
            Box::new(|| Answer::Whole(raw("content-encoding: gzip\r\ncontent-length: 1", b"x"))),
        ),
    ];
    for (kind, answer) in cases {
        let gateway = Gateway::start(move |_| answer()).await;
        let mut bench = Bench::start_with(&gateway.endpoint(), impatient(), Limits::default());
        let cid = *block(b"it").cid();
        bench.want(cid).await;
        assert_eq!(bench.news().await, News::Failed(cid), "{kind}");
        assert_eq!(bench.count(kind), 1.0, "{kind}");
        assert!(bench.unverified.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_gateway_is_held_back_by_the_limits_but_near_ones_and_not_called_slow_for_it() {
    let data = vec![7; 100_000];
    let gateway = {
        let data = data.clone();
        Gateway::start(move |_| Answer::block(&data)).await
    };
    // What has to come within the longest pause takes longer than that.
    let near = Limits {
        download: Rate::new(64_000).unwrap(),
        ..Limits::default()
    };
    let far = Limits {
        exempt: Vec::new(),
        ..near.clone()
    };
    for (limits, is_held) in [(near, false), (far, true)] {
        let mut bench = Bench::start_with(&gateway.endpoint(), impatient(), limits);
        bench.want(*block(&data).cid()).await;
        assert_eq!(bench.data().await, data);
        assert_eq!(bench.held() > 0.0, is_held);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Gateway::start(|_| Answer::block(b"it")).await;
    let location = format!("302 Found\r\nlocation: http://{}/ipfs/x", other.address);
    let gateway = Gateway::start(move |_| Answer::status(&location)).await;
    let mut bench = Bench::start(&gateway.endpoint());
    let cid = *block(b"it").cid();
    bench.want(cid).await;
    assert_eq!(bench.news().await, News::Failed(cid));
    assert_eq!(bench.news().await, News::Rests);
    assert_eq!(bench.count("redirect"), 1.0);
    assert_eq!(other.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_gateway_that_is_busy_or_gone_is_left_alone_and_asked_again() {
    for status in [
        "429 Too Many Requests\r\nretry-after: 1",
        "503 Service Unavailable\r\nretry-after: 0",
    ] {
        let gateway = Gateway::start(move |_| Answer::status(status)).await;
        let mut bench = Bench::start(&gateway.endpoint());
        let cid = *block(b"it").cid();
        bench.want(cid).await;
        assert_eq!(bench.news().await, News::Rests);
        // Nothing is asked while it rests, and what was said meanwhile is forgotten.
        bench.want(*block(b"another").cid()).await;
        assert_eq!(bench.news().await, News::Ready);
        assert_eq!(gateway.asked().len(), 1);
        bench.want(cid).await;
        assert_eq!(bench.news().await, News::Rests);
        assert_eq!(gateway.asked().len(), 2);
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let mut bench = Bench::start(&format!("http://{address}").parse().unwrap());
    let cid = *block(b"it").cid();
    bench.want(cid).await;
    assert_eq!(bench.news().await, News::Failed(cid));
    assert_eq!(bench.news().await, News::Rests);
    assert_eq!(bench.news().await, News::Ready);
    assert_eq!(bench.count("unreachable"), 1.0);
}

#[tokio::test]
async fn so_many_requests_are_under_way_and_a_cancelled_one_makes_room() {
    let last = *block(b"last").cid();
    let gateway = Gateway::start(move |question| match question.cid() == last {
        true => Answer::block(b"last"),
        false => Answer::Nothing,
    })
    .await;
    let mut bench = Bench::start(&gateway.endpoint());
    let slow: Vec<Cid> = (0..REQUESTS_MAX)
        .map(|number| *block(&number.to_be_bytes()).cid())
        .collect();
    bench.say(slow.iter().map(|cid| (*cid, WANT))).await;
    bench
        .say([(last, WANT), (*block(b"never").cid(), WANT)])
        .await;
    while gateway.asked().len() < slow.len() {
        tokio::task::yield_now().await;
    }
    assert!(
        gateway
            .asked()
            .iter()
            .all(|question| question.cid() != last)
    );
    let cancelled = [slow[3], *block(b"never").cid()];
    bench.say(cancelled.map(|cid| (cid, Change::Cancel))).await;
    assert_eq!(bench.data().await, "last");
    let asked: Vec<Cid> = gateway.asked().iter().map(Question::cid).collect();
    assert!(!asked.contains(&cancelled[1]));
}

#[tokio::test]
async fn only_what_lies_inside_is_dialled() {
    let holds = |network, standing, text: &str| {
        let endpoint: Endpoint = text.parse().unwrap();
        Fence { network, standing }.may_hold(&endpoint)
    };
    let (ours, theirs) = (Standing::Configured, Standing::Announced);
    for (text, local, lan) in [
        ("http://127.0.0.1:1", true, true),
        ("http://[::1]:1", true, true),
        ("http://[::ffff:127.0.0.1]:1", true, true),
        ("http://192.168.1.1:1", false, true),
        ("http://0.0.0.0:1", false, false),
        ("http://192.0.2.1:1", false, false),
        // No name is resolved.
        ("http://gateway.example", false, false),
    ] {
        for standing in [ours, theirs] {
            assert_eq!(holds(Network::Local, standing, text), local, "{text}");
        }
        assert_eq!(holds(Network::Lan, ours, text), lan, "{text}");
    }
    // Strangers send nobody to this machine, nor, in `public`, to those beside it.
    for text in ["http://127.0.0.1:1", "http://[::ffff:127.0.0.1]:1"] {
        assert!(!holds(Network::Lan, theirs, text), "{text}");
    }
    assert!(holds(Network::Lan, theirs, "http://192.168.1.1:1"));
    for text in [
        "http://127.0.0.1:1",
        "http://10.0.0.1:1",
        "http://100.64.0.1:1",
        "http://169.254.169.254:80",
        "http://[::1]:1",
        "http://[::ffff:169.254.169.254]:80",
        "http://[fd00::1]:1",
        "http://[fe80::1]:1",
        "http://[64:ff9b::169.254.169.254]:80",
        "http://[2002:7f00:1::]:1",
    ] {
        assert!(holds(Network::Public, ours, text), "{text}");
        assert!(!holds(Network::Public, theirs, text), "{text}");
    }
    assert!(holds(Network::Public, theirs, "http://192.0.2.1:1"));
    assert!(!holds(Network::Public, ours, "http://0.0.0.0:1"));
    let http = Http::new(local(), &prometheus::Registry::new()).unwrap();
    let outside: Endpoint = "http://192.0.2.1:1".parse().unwrap();
    let throttle = Throttle::new(Limits::default(), &prometheus::Registry::new()).unwrap();
    let gate = Arc::new(throttle.gate());
    assert!(http.pool(outside, ours, gate, &Tasks::new()).is_none());
}

#[tokio::test]
async fn https_is_spoken_with_whom_a_known_root_vouches_for_and_with_nobody_else() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = futures_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn("gateway over TLS", async move {
        let asked = Mutex::default();
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream.compat()).await {
                let answer = |_: &Question| Answer::block(b"it");
                drop(serve(stream.compat(), &answer, &asked).await);
            }
        }
    });
    let endpoint: Endpoint = format!("https://{address}").parse().unwrap();
    let cid = *block(b"it").cid();
    // Mozilla's roots know nothing of it.
    let mut bench = Bench::start(&endpoint);
    bench.want(cid).await;
    assert_eq!(bench.news().await, News::Failed(cid));
    assert_eq!(bench.count("tls"), 1.0);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = Gateways { roots, ..local() };
    let mut bench = Bench::start_with(&endpoint, trusting, Limits::default());
    bench.want(cid).await;
    assert_eq!(bench.data().await, "it");
    tasks.abort();
}
