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
use std::fs;
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
    folder: TempDir,
}

fn open(folder: &TempDir) -> Store {
    let small = config::Config {
        reserve: config::Reserve::Bytes(config::ByteSize(0)),
        ..config::Config::default()
    };
    Store::open(folder.path(), &small, &mut |_| {}).unwrap()
}

impl TestNode {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
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
            folder,
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

    /// Turns one bit of the block's bytes in its segment.
    fn damage(&self, block: &Block) {
        let path = self.folder.path().join("blocks/leaf-000001.car");
        let mut bytes = fs::read(&path).unwrap();
        let data = block.data();
        let at = bytes.windows(data.len()).position(|window| window == data);
        let at = at.expect("the block in its segment") + data.len() / 2;
        *bytes.get_mut(at).unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }

    async fn stop(self) -> TempDir {
        assert!(self.node.stop(WATCHDOG).await);
        self.store.close().await.unwrap();
        self.folder
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_is_fetched_again_and_stays_what_it_was() {
    let (server, client) = (TestNode::start().await, TestNode::start().await);
    // Small ones are checked by their hash, large ones by the checksums of their pages.
    let blocks = [made(7, 1000), made(7, 300_000)].concat();
    let (small, large, read, asked) = (&blocks[1], &blocks[8], &blocks[3], &blocks[9]);
    server.keep(&blocks).await;
    client.keep(&blocks).await;
    for block in [small, large, read, asked] {
        client.damage(block);
    }
    let local = client.node.exchange().local().session(None);
    for block in [small, large] {
        let damaged = local.block(block.cid()).await;
        assert!(
            matches!(damaged, Err(SourceError::Damaged { cid }) if cid == *block.cid()),
            "{damaged:?}"
        );
    }
    let hasty = client.node.exchange().session(Some(SHORT));
    let late = hasty.block(small.cid()).await;
    assert!(
        matches!(&late, Err(SourceError::TooSlow { tried, .. }) if tried.contains("damaged on disk")),
        "{late:?}"
    );
    client.connect(&server).await;
    client.fetch(&[small.clone(), large.clone()]).await;
    // Damage that nobody has met yet.
    let session = client.node.exchange().session(None);
    let part = session.range(read.cid(), 400..600).await.unwrap();
    assert_eq!(part.as_deref(), Some(&[3; 200][..]));
    assert_eq!(session.size(asked.cid()).await.unwrap(), Some(300_000));
    let part = session.range(asked.cid(), 149_000..151_000).await.unwrap();
    assert_eq!(part.as_deref(), Some(&[2; 2000][..]));
    assert_eq!(client.node.bitswap().await.blocks_received, 4);
    assert_eq!(client.store.stat().cache_bytes, 0, "kept as before");
    assert_eq!(client.store.stat().blocks, 14);
    drop((local, hasty, session));
    server.stop().await;
    let folder = client.stop().await;
    let store = open(&folder);
    for block in &blocks {
        assert_eq!(
            store.block(block.cid()).await.unwrap().as_ref(),
            Some(block)
        );
    }
}
