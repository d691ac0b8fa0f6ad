//! `/perf/1.0.0` between nodes, and with a stock rust-libp2p swarm that speaks it by hand.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test, as the test itself would"
)]

mod common;

use cairn_node::perf::PerfError;
use cairn_node::{Config, Keypair, Node, PeerId};
use cairn_store::{Store, config};
use common::stock;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{StreamProtocol, SwarmEvent};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);
const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

struct TestNode {
    node: Node,
    registry: prometheus::Registry,
    _folder: TempDir,
}

impl TestNode {
    async fn start(perf: Option<bool>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let small = config::Config {
            reserve: config::Reserve::Bytes(config::ByteSize(0)),
            ..config::Config::default()
        };
        let store = Store::open(folder.path(), &small, &mut |_| {}).unwrap();
        let config = Config {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            perf,
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

    fn answers(&self, result: &str) -> f64 {
        self.registry
            .gather()
            .iter()
            .filter(|family| family.name() == "cairn_perf_answers_total")
            .flat_map(|family| family.get_metric())
            .filter(|metric| {
                metric
                    .get_label()
                    .iter()
                    .any(|label| label.value() == result)
            })
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_over_one_stream_and_over_many() {
    let (server, client) = (TestNode::start(None).await, TestNode::start(None).await);
    let peer = client.node.peers().connect(server.address().await).await;
    let peer = peer.unwrap();
    for (upload, download) in [(0, 0), (3 << 20, 0), (0, 3 << 20), (1_000_003, 700_001)] {
        let run = timeout(WATCHDOG, client.node.perf(peer, upload, download));
        let run = run.await.unwrap().unwrap();
        assert_eq!((run.uploaded, run.downloaded), (upload, download));
        assert_eq!(run.upload.is_zero(), upload == 0);
        assert_eq!(run.download.is_zero(), download == 0);
    }
    let many = (0..8).map(|_| client.node.perf(peer, 1 << 20, 1 << 20));
    let many = timeout(WATCHDOG, futures::future::join_all(many));
    for run in many.await.unwrap() {
        run.unwrap();
    }
    assert_eq!(server.answers("failed"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_be_measured_says_so_by_not_speaking_it() {
    let server = TestNode::start(Some(false)).await;
    let client = TestNode::start(None).await;
    let spoken = server.node.peers().protocols();
    assert!(!spoken.contains(&PERF.to_string()));
    assert!(client.node.peers().protocols().contains(&PERF.to_string()));
    let peer = client.node.peers().connect(server.address().await).await;
    let refused = client.node.perf(peer.unwrap(), 1, 1).await.unwrap_err();
    assert!(matches!(refused, PerfError::Unsupported(_)), "{refused}");
    let stranger = PeerId::random();
    let absent = client.node.perf(stranger, 1, 1).await.unwrap_err();
    assert_eq!(absent, PerfError::NotConnected(stranger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_that_holds_its_streams_leaves_room_for_others() {
    let (server, client) = (TestNode::start(None).await, TestNode::start(None).await);
    let (mut swarm, peer) = (stock(WATCHDOG), server.node.peer_id());
    let mut control = swarm.behaviour().new_control();
    swarm.dial(server.address().await).unwrap();
    let greedy = async {
        let mut held = Vec::new();
        while server.answers("refused") < 8.0 {
            if let Ok(stream) = control.open_stream(peer, PERF).await {
                held.push(stream);
            }
        }
        client
            .node
            .peers()
            .connect(server.address().await)
            .await
            .unwrap();
        let run = client.node.perf(peer, 1 << 20, 1 << 20).await.unwrap();
        assert_eq!(run.downloaded, 1 << 20);
        // Half of all are held to this moment, and no more.
        assert!(held.len() >= 24, "{}", held.len());
        assert_eq!(server.answers("failed"), 0.0);
    };
    let turn = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    let both = async {
        tokio::select! {
            () = turn => {}
            () = greedy => {}
        }
    };
    timeout(WATCHDOG, both).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_peer_is_answered() {
    let server = TestNode::start(None).await;
    let (mut swarm, peer) = (stock(WATCHDOG), server.node.peer_id());
    let mut control = swarm.behaviour().new_control();
    swarm.dial(server.address().await).unwrap();
    let asking = async {
        let mut stream = loop {
            if let Ok(stream) = control.open_stream(peer, PERF).await {
                break stream;
            }
        };
        stream.write_all(&700_001_u64.to_be_bytes()).await.unwrap();
        stream.write_all(&vec![7; 1_000_003]).await.unwrap();
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer.len()
    };
    let asking = timeout(WATCHDOG, asking);
    let answered = tokio::select! {
        answered = asking => answered.unwrap(),
        () = async { loop { swarm.select_next_some().await; } } => 0,
    };
    assert_eq!(answered, 700_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_peer_answers_us() {
    let client = TestNode::start(None).await;
    let mut swarm = stock(WATCHDOG);
    let mut arriving = swarm.behaviour().new_control().accept(PERF).unwrap();
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    };
    let answering = async {
        let (_, mut stream) = arriving.next().await.unwrap();
        let mut wanted = [0; 8];
        stream.read_exact(&mut wanted).await.unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).await.unwrap();
        let wanted = usize::try_from(u64::from_be_bytes(wanted)).unwrap();
        stream.write_all(&vec![7; wanted]).await.unwrap();
        stream.close().await.unwrap();
        sent.len()
    };
    let asking = async {
        let peer = client.node.peers().connect(address).await.unwrap();
        client.node.perf(peer, 1_000_003, 700_001).await.unwrap()
    };
    let both = timeout(WATCHDOG, async { tokio::join!(answering, asking) });
    let (sent, run) = tokio::select! {
        both = both => both.unwrap(),
        () = async { loop { swarm.select_next_some().await; } } => return,
    };
    assert_eq!(sent, 1_000_003);
    assert_eq!((run.uploaded, run.downloaded), (1_000_003, 700_001));
}
