//! Fetching between whole nodes on loopback: real stores, real transports, real routing.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails the test, as the test itself would"
)]

use bytes::Bytes;
use cairn_node::{Config, Keypair, Node};
use cairn_store::block::{BLOCK_BYTES_MAX, Prefix};
use cairn_store::cid::{self, HashKind};
use cairn_store::store::Keep;
use cairn_store::{Block, BlockSource, SourceError, Store, config};
use futures::{StreamExt, stream};
use libp2p::multiaddr::Protocol;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);
/// What a session gives up after, where that is what is tested.
const SHORT: Duration = Duration::from_millis(300);

struct TestNode {
    node: Node,
    store: Store,
    _folder: TempDir,
}

impl TestNode {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let small = config::Config {
            reserve: config::Reserve::Bytes(config::ByteSize(0)),
            ..config::Config::default()
        };
        let store = Store::open(folder.path(), &small, &mut |_| {}).unwrap();
        let config = Config {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            ..Config::default()
        };
        let keys = Keypair::generate_ed25519();
        let node = Node::start(store.clone(), keys, config, &prometheus::Registry::new())
            .await
            .unwrap();
        Self {
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

    async fn keep(&self, blocks: &[Block]) {
        self.store.put(blocks.to_vec(), Keep::Kept).await.unwrap();
    }

    async fn fetch(&self, blocks: &[Block]) {
        let session = self.node.exchange().session(None);
        let all = stream::iter(blocks)
            .map(|block| session.block(block.cid()))
            .buffered(32)
            .collect::<Vec<_>>();
        let fetched = timeout(WATCHDOG, all).await.expect("blocks in time");
        for (fetched, block) in fetched.into_iter().zip(blocks) {
            assert_eq!(fetched.unwrap().as_ref(), Some(block));
        }
    }

    async fn stop(self) {
        assert!(self.node.stop(WATCHDOG).await);
        self.store.close().await.unwrap();
    }
}

fn made(count: u8, bytes: usize) -> Vec<Block> {
    let prefix = Prefix {
        version: cid::Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let data = (0..count).map(|at| Bytes::from(vec![at; bytes]));
    Block::new_many(prefix, data.collect()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_every_size_are_fetched_and_stay() {
    let (server, client) = (TestNode::start().await, TestNode::start().await);
    let mut blocks = made(100, 256 << 10);
    blocks.extend(made(100, 10));
    blocks.extend(made(4, BLOCK_BYTES_MAX));
    blocks.extend(made(1, 0));
    server.keep(&blocks).await;
    client.connect(&server).await;
    client.fetch(&blocks).await;
    let local = client.node.exchange().local();
    assert!(!local.is_online());
    for block in &blocks {
        let kept = local.session(None).block(block.cid()).await.unwrap();
        assert_eq!(kept.as_ref(), Some(block));
    }
    let stat = client.node.bitswap().await;
    assert_eq!(stat.blocks_received, blocks.len() as u64);
    assert_eq!((stat.duplicate_blocks, stat.wantlist), (0, vec![]));
    server.stop().await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_block_far_away_is_cut_here() {
    let (server, client) = (TestNode::start().await, TestNode::start().await);
    let blocks = made(3, 100_000);
    server.keep(&blocks).await;
    client.connect(&server).await;
    let session = client.node.exchange().session(None);
    let cid = blocks[2].cid();
    for _ in 0..2 {
        let part = session.range(cid, 99_990..200_000).await.unwrap();
        assert_eq!(part.as_deref(), Some(&[2; 10][..]));
    }
    assert_eq!(session.size(cid).await.unwrap(), Some(100_000));
    assert_eq!(client.node.bitswap().await.blocks_received, 1);
    server.stop().await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_nobody_told_us_of_is_found_and_asked() {
    let (server, contact) = (TestNode::start().await, TestNode::start().await);
    let client = TestNode::start().await;
    let blocks = made(20, 50_000);
    server.keep(&blocks).await;
    server.connect(&contact).await;
    let provide = async {
        while server
            .node
            .routing()
            .provide(*blocks[0].cid())
            .await
            .is_err()
        {}
    };
    timeout(WATCHDOG, provide).await.expect("a record in time");
    client.connect(&contact).await;
    client.fetch(&blocks).await;
    for node in [client, server, contact] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_is_given_up_with_what_was_tried() {
    let (other, client) = (TestNode::start().await, TestNode::start().await);
    client.connect(&other).await;
    let absent = *made(1, 10)[0].cid();
    let exchange = client.node.exchange();
    assert!(matches!(
        exchange.local().session(None).block(&absent).await,
        Ok(None)
    ));
    let late = exchange.session(Some(SHORT)).block(&absent).await;
    assert!(
        matches!(&late, Err(SourceError::TooSlow { tried, .. }) if tried.contains("1 connected")),
        "{late:?}"
    );
    let identity = cid::parse("bafkqaaa").unwrap();
    let empty = exchange.session(None).block(&identity).await.unwrap();
    assert_eq!(empty.unwrap().data(), &Bytes::new());
    assert!(client.node.stop(WATCHDOG).await);
    let stopped = exchange.session(None).block(&absent).await;
    assert!(
        matches!(stopped, Err(SourceError::Stopping { .. })),
        "{stopped:?}"
    );
    other.stop().await;
}
