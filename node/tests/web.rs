//! `/http/1.1`: streams of requests, from a stock rust-libp2p swarm to a node whose visitors this test answers itself.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test, as the test itself would"
)]

mod common;

use cairn_node::bitswap::policy::Verdict;
use cairn_node::web::{Manners, Visitor, Visitors};
use cairn_node::{Config, Keypair, Node};
use cairn_store::{Store, config};
use common::stock;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Stream, StreamProtocol};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);
const HTTP: StreamProtocol = StreamProtocol::new("/http/1.1");
const MANNERS: Manners = Manners {
    streams_max: 5,
    streams_per_peer_max: 3,
};

struct TestNode {
    node: Node,
    registry: prometheus::Registry,
    _folder: TempDir,
}

impl TestNode {
    async fn start(web: Option<Manners>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let small = config::Config {
            reserve: config::Reserve::Bytes(config::ByteSize(0)),
            ..config::Config::default()
        };
        let store = Store::open(folder.path(), &small, &mut |_| {}).unwrap();
        let config = Config {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            web,
            ..Config::default()
        };
        let (keys, registry) = (Keypair::generate_ed25519(), prometheus::Registry::new());
        let node = Node::start(store, keys, config, &registry).await.unwrap();
        Self {
            node,
            registry,
            _folder: folder,
        }
    }

    async fn address(&self) -> Multiaddr {
        let listening = self.node.peers().listening().await.remove(0);
        listening.with(Protocol::P2p(self.node.peer_id()))
    }

    fn streams(&self, result: &str) -> f64 {
        let gathered = self.registry.gather();
        let family = gathered
            .iter()
            .find(|family| family.name() == "cairn_web_streams_total");
        let all = family.map(|family| family.get_metric()).unwrap_or_default();
        let mut counted = all.iter().filter(|metric| {
            let mut labels = metric.get_label().iter();
            labels.any(|label| label.value() == result)
        });
        counted.next().unwrap().get_counter().get_value()
    }

    /// Runs `act` with what opens streams for a stranger that is connected.
    async fn with_stranger<T>(&self, act: impl AsyncFnOnce(&mut Stranger) -> T) -> T {
        let mut swarm = stock(WATCHDOG);
        let control = swarm.behaviour().new_control();
        let mut stranger = Stranger {
            control,
            to: self.node.peer_id(),
        };
        swarm.dial(self.address().await).unwrap();
        let turn = async {
            loop {
                swarm.select_next_some().await;
            }
        };
        let acting = timeout(WATCHDOG, act(&mut stranger));
        tokio::select! {
            done = acting => done.unwrap(),
            never = turn => never,
        }
    }
}

struct Stranger {
    control: libp2p_stream::Control,
    to: libp2p::PeerId,
}

impl Stranger {
    /// A stream on which something was said.
    async fn say(&mut self, text: &str) -> Stream {
        let mut stream = loop {
            if let Ok(stream) = self.control.open_stream(self.to, HTTP).await {
                break stream;
            }
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

async fn heard(visitors: &mut Visitors, bytes: usize) -> (Visitor, String) {
    let mut visitor = visitors.next().await.unwrap();
    let mut said = vec![0; bytes];
    visitor.stream.read_exact(&mut said).await.unwrap();
    (visitor, String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_is_heard_and_answered_and_what_is_dropped_is_reset() {
    let host = TestNode::start(Some(MANNERS)).await;
    assert!(host.node.peers().protocols().contains(&HTTP.to_string()));
    let mut visitors = host.node.visitors().unwrap();
    assert!(host.node.visitors().is_none(), "there is one who answers");
    let cid = cairn_store::Cid::default();
    host.with_stranger(async |stranger| {
        let mut stream = stranger.say("hello").await;
        let (visitor, said) = heard(&mut visitors, 5).await;
        assert_eq!(said, "hello");
        let verdict = visitor.policy.decide(&visitor.peer, &cid);
        assert_eq!(verdict, Verdict::Serve);
        let mut answer = visitor.pace.over(visitor.stream);
        answer.write_all(b"world").await.unwrap();
        answer.shutdown().await.unwrap();
        drop(answer);
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "world");

        let mut stream = stranger.say("again").await;
        let (visitor, _) = heard(&mut visitors, 5).await;
        let mut answer = visitor.pace.over(visitor.stream);
        answer.write_all(b"wor").await.unwrap();
        answer.flush().await.unwrap();
        let mut part = [0; 3];
        stream.read_exact(&mut part).await.unwrap();
        drop(answer);
        stream.read_exact(&mut part).await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_so_many_streams_and_all_have_so_many() {
    let host = TestNode::start(Some(MANNERS)).await;
    let mut visitors = host.node.visitors().unwrap();
    host.with_stranger(async |stranger| {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..MANNERS.streams_per_peer_max {
            ours.push(stranger.say("hello").await);
            theirs.push(heard(&mut visitors, 5).await.0);
        }
        let next = refused(stranger, &mut visitors, 1.0, &host).await;
        drop((next, theirs.pop()));
        ours.push(stranger.say("later").await);
        let (visitor, said) = heard(&mut visitors, 5).await;
        assert_eq!(said, "later", "a place that is given back is taken again");
        theirs.push(visitor);
        host.with_stranger(async |other| {
            for _ in MANNERS.streams_per_peer_max..MANNERS.streams_max {
                ours.push(other.say("hello").await);
                theirs.push(heard(&mut visitors, 5).await.0);
            }
            refused(other, &mut visitors, 2.0, &host).await;
        })
        .await;
    })
    .await;
    assert_eq!(host.streams("served"), 6.0);
}

/// Sees a stream reset, which is then the `count`-th.
async fn refused(stranger: &mut Stranger, visitors: &mut Visitors, count: f64, host: &TestNode) {
    let mut stream = stranger.say("hello").await;
    let mut answer = [0; 1];
    tokio::select! {
        read = stream.read_exact(&mut answer) => drop(read.unwrap_err()),
        _ = visitors.next() => panic!("one too many was let in"),
    }
    assert_eq!(host.streams("refused"), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_where_nobody_may() {
    let host = TestNode::start(None).await;
    assert!(host.node.visitors().is_none());
    assert!(!host.node.peers().protocols().contains(&HTTP.to_string()));
    host.with_stranger(async |stranger| {
        let refused = loop {
            match stranger.control.open_stream(stranger.to, HTTP).await {
                Err(libp2p_stream::OpenStreamError::UnsupportedProtocol(refused)) => break refused,
                // Not connected yet.
                Err(_) => {}
                Ok(_) => panic!("it is spoken"),
            }
        };
        assert_eq!(refused, HTTP);
    })
    .await;
}
