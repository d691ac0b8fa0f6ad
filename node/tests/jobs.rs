//! What a node does by itself to keep its store in order, over real stores.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails the test, as the test itself would"
)]

use bytes::Bytes;
use cairn_node::{Config, Event, Keypair, Node};
use cairn_store::block::Prefix;
use cairn_store::cid::{HashKind, RAW, Version};
use cairn_store::config::{self, ByteSize, Percent, Reserve};
use cairn_store::store::Keep;
use cairn_store::{Block, BlockSource, Store};
use futures::{StreamExt, stream};
use libp2p::multiaddr::Protocol;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn open(folder: &Path, cache_max: usize) -> Store {
    let config = config::Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        cache_max: ByteSize(cache_max as u64),
        ..config::Config::default()
    };
    Store::open(folder, &config, &mut |_| {}).unwrap()
}

async fn start(store: &Store) -> Node {
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        scrub_share: Percent(100),
        ..Config::default()
    };
    let registry = prometheus::Registry::new();
    let keys = Keypair::generate_ed25519();
    Node::start(store.clone(), keys, config, &registry)
        .await
        .unwrap()
}

async fn connect(from: &Node, to: &Node) {
    let mut address = to.peers().listening().await.remove(0);
    address.push(Protocol::P2p(to.peer_id()));
    from.peers().connect(address).await.unwrap();
}

async fn stop(node: Node, store: Store) {
    assert!(node.stop(WATCHDOG).await);
    store.close().await.unwrap();
}

async fn next(events: &mut Receiver<Event>) -> Event {
    let event = timeout(WATCHDOG, events.recv()).await;
    event.expect("an event in time").unwrap()
}

fn made(count: u8, bytes: usize) -> Vec<Block> {
    let prefix = Prefix {
        version: Version::V1,
        codec: RAW,
        hash: HashKind::Sha2_256,
    };
    let data = (0..count).map(|at| Bytes::from(vec![at; bytes]));
    Block::new_many(prefix, data.collect()).unwrap()
}

/// What a registry shows whose names begin so.
fn figures(registry: &prometheus::Registry, begin: &str) -> BTreeMap<String, u64> {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
    let text = text.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(begin));
    let pairs = lines.map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fetched_goes_when_the_cache_is_full_and_what_was_kept_stays() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache_max = 4 * MIB;
    let (store, other) = (open(here.path(), cache_max), open(there.path(), cache_max));
    let fetched = made(16, MIB);
    other.put(fetched.clone(), Keep::Kept).await.unwrap();
    let kept = made(20, MIB + 1);
    store.put(kept.clone(), Keep::Kept).await.unwrap();
    let (node, giver) = (start(&store).await, start(&other).await);
    let mut events = node.events();
    connect(&node, &giver).await;
    let session = node.exchange().session(None);
    let all = stream::iter(&fetched).then(|block| session.block(block.cid()));
    let got: Vec<_> = timeout(WATCHDOG, all.collect()).await.expect("in time");
    for (got, block) in got.into_iter().zip(&fetched) {
        assert_eq!(got.unwrap().as_ref(), Some(block));
    }
    while store.stat().cache_bytes > cache_max as u64 {
        while !matches!(next(&mut events).await, Event::Evicted { blocks: 1.. }) {}
    }
    assert!(store.stat().blocks < 36, "{:?}", store.stat());
    for block in &kept {
        assert_eq!(
            store.block(block.cid()).await.unwrap().as_ref(),
            Some(block)
        );
    }
    drop(session);
    stop(node, store).await;
    stop(giver, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_limit_of_the_cache_holds_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 64 * MIB);
    store.put(made(16, MIB), Keep::Cached).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(folder.path(), 4 * MIB);
    let node = start(&store).await;
    let mut events = node.events();
    while store.stat().cache_bytes > 4 * MIB as u64 {
        while !matches!(next(&mut events).await, Event::Evicted { .. }) {}
    }
    stop(node, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_finds_what_is_damaged_and_has_a_peer_heal_it() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, other) = (open(here.path(), MIB), open(there.path(), MIB));
    let blocks = made(40, 300_000);
    other.put(blocks.clone(), Keep::Kept).await.unwrap();
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    let path = here.path().join("blocks/leaf-000001.car");
    let mut bytes = fs::read(&path).unwrap();
    for at in [5, 30] {
        *bytes.get_mut(at * 300_100 + 150_000).unwrap() ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    let registry = prometheus::Registry::new();
    store.register(&registry).unwrap();
    let giver = start(&other).await;
    let node = start(&store).await;
    let mut events = node.events();
    connect(&node, &giver).await;
    let mut healed = 0;
    loop {
        match next(&mut events).await {
            Event::Healed(_) => healed += 1,
            Event::Scrubbed => break,
            _ => {}
        }
    }
    assert_eq!(healed, 2);
    let state = store.scrub_state();
    assert!(state.finished > 0 && state.bad == 2, "{state:?}");
    assert!(state.bytes > 40 * 300_000, "{state:?}");
    let mut shown = figures(&registry, "cairn_scrub_");
    let read = shown.remove("cairn_scrub_bytes_total").unwrap();
    // What a piece ends in is read again with the next.
    assert!((state.bytes..2 * state.bytes).contains(&read), "{read}");
    let rest = [
        ("cairn_scrub_started_timestamp_seconds", state.started),
        ("cairn_scrub_finished_timestamp_seconds", state.finished),
        ("cairn_scrub_damaged_blocks", state.bad),
    ];
    let rest = rest.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(shown, rest.into());
    stop(giver, other).await;
    stop(node, store).await;
    let store = open(here.path(), MIB);
    for block in &blocks {
        assert_eq!(
            store.block(block.cid()).await.unwrap().as_ref(),
            Some(block)
        );
    }
    assert_eq!(store.stat().cache_bytes, 0, "kept as before");
    // The state outlives the program.
    assert_eq!(store.scrub_state(), state);
}
