//! Whole nodes on loopback, from `Node::start` to `Node::stop`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails the test, as the test itself would"
)]

use bytes::Bytes;
use cairn_node::node::StartError;
use cairn_node::{Config, Event, Keypair, Node, PeerId};
use cairn_store::block::Prefix;
use cairn_store::cid::{HashKind, RAW, Version};
use cairn_store::pin::PinMode;
use cairn_store::store::Keep;
use cairn_store::{Block, Cid, Store, config};
use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);

struct TestNode {
    node: Node,
    events: Receiver<Event>,
    store: Store,
    _folder: TempDir,
}

fn open(folder: &TempDir) -> Store {
    let config = config::Config {
        reserve: config::Reserve::Bytes(config::ByteSize(0)),
        ..config::Config::default()
    };
    Store::open(folder.path(), &config, &mut |_| {}).unwrap()
}

fn listening(address: &str) -> Config {
    Config {
        listen: vec![address.parse().unwrap()],
        ..Config::default()
    }
}

async fn try_start(store: Store, config: Config) -> Result<Node, StartError> {
    let registry = prometheus::Registry::new();
    Node::start(store, Keypair::generate_ed25519(), config, &registry).await
}

async fn pin(store: &Store, text: &'static str) -> Cid {
    let prefix = Prefix {
        version: Version::V1,
        codec: RAW,
        hash: HashKind::Sha2_256,
    };
    let block = Block::new(prefix, Bytes::from_static(text.as_bytes())).unwrap();
    let cid = *block.cid();
    store.put(vec![block], Keep::Kept).await.unwrap();
    store
        .pin_add(store.clone(), cid, PinMode::Recursive, None, |_| {})
        .await
        .unwrap();
    cid
}

impl TestNode {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::over(open(&folder), folder).await
    }

    async fn over(store: Store, folder: TempDir) -> Self {
        let node = try_start(store.clone(), listening("/ip4/127.0.0.1/tcp/0"))
            .await
            .unwrap();
        Self {
            events: node.events(),
            node,
            store,
            _folder: folder,
        }
    }

    async fn connect(&self, other: &Self) {
        let mut address = other.node.peers().listening().await.remove(0);
        address.push(Protocol::P2p(other.node.peer_id()));
        self.node.peers().connect(address).await.unwrap();
    }

    async fn until(&mut self, what: impl Fn(&Event) -> bool) {
        let seen = async { while !what(&self.events.recv().await.unwrap()) {} };
        timeout(WATCHDOG, seen).await.expect("an event in time");
    }

    async fn find(&self, cid: Cid, provider: PeerId) {
        let look = async {
            loop {
                let found: Vec<_> = self.node.routing().find_providers(cid, 9).collect().await;
                if found.iter().flatten().any(|found| found.peer == provider) {
                    return;
                }
            }
        };
        timeout(WATCHDOG, look).await.expect("a provider in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pinned_and_what_is_announced_reaches_those_who_look() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let before = pin(&store, "pinned before the start").await;
    let mut keeper = TestNode::over(store, folder).await;
    let contact = TestNode::start().await;
    let mut seeker = TestNode::start().await;
    keeper.connect(&contact).await;
    keeper
        .until(|event| matches!(event, Event::ProvidedRegion { keys: 1 }))
        .await;
    let after = pin(&keeper.store, "pinned while it runs").await;
    keeper.node.routing().announce(after);
    keeper
        .until(|event| matches!(event, Event::ProvidedRegion { keys: 1 }))
        .await;
    seeker.connect(&contact).await;
    let contact_id = contact.node.peer_id();
    seeker
        .until(|event| matches!(event, Event::Identified(peer) if *peer == contact_id))
        .await;
    for cid in [before, after] {
        seeker.find(cid, keeper.node.peer_id()).await;
    }
    for node in [seeker, keeper, contact] {
        assert!(node.node.stop(WATCHDOG).await);
        node.store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_stopped_node_gives_its_port_back() {
    let first = TestNode::start().await;
    let taken = first.node.peers().listening().await.remove(0).to_string();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let second = try_start(store.clone(), listening(&taken)).await;
    assert!(
        matches!(&second, Err(StartError::Listen { address, .. }) if address.to_string() == taken),
        "{second:?}"
    );
    assert!(first.node.stop(WATCHDOG).await);
    let again = try_start(store, listening(&taken)).await.unwrap();
    assert!(again.stop(WATCHDOG).await);
}

#[tokio::test]
async fn a_registry_takes_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let (store, registry) = (open(&folder), prometheus::Registry::new());
    let keys = Keypair::generate_ed25519();
    let config = listening("/ip4/127.0.0.1/tcp/0");
    let node = Node::start(store.clone(), keys.clone(), config.clone(), &registry)
        .await
        .unwrap();
    assert!(node.libp2p_metrics().contains("# TYPE libp2p_"));
    let second = Node::start(store, keys, config, &registry).await;
    assert!(matches!(second, Err(StartError::Metrics(_))), "{second:?}");
    assert!(!node.broken().is_cancelled());
    assert!(node.stop(WATCHDOG).await);
}
