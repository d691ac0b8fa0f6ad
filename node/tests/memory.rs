//! What is allocated for peers comes back when they are gone. Every allocation of the process is counted, so
//! this is a program with one test.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test, as the test itself would"
)]

mod common;

use cairn_node::{Config, Keypair, Node, PeerId};
use cairn_store::{Store, config};
use common::stock;
use futures::{AsyncWriteExt, StreamExt};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::StreamProtocol;
use peak_alloc::PeakAlloc;
use prometheus::Registry;
use std::time::Duration;
use tokio::time::timeout;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(120);
const BITSWAP: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");
const WANTS: usize = 1_000_000;
/// Who want them, one after the other.
const PEERS: usize = 40;
const WANTS_A_MESSAGE: usize = 1000;
/// As many of a peer are kept.
const WANTS_KEPT: f64 = 1024.0;
/// As many of a peer are heard at least before it goes: what it may say for nothing. The rest waits in its
/// streams for seconds.
const WANTS_HEARD: f64 = 4096.0;
/// What may be left of all peers together: accounts, and whatever of a node grows once. The wants that are
/// kept of one peer take more than 100 KiB.
const LEFT_BYTES_MAX: usize = 1 << 20;

fn figure(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metric = family.unwrap().get_metric().first().unwrap();
    // It is one or the other.
    metric.get_gauge().get_value() + metric.get_counter().get_value()
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    timeout(WATCHDOG, wait).await.unwrap();
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = unsigned_varint::encode::usize_buffer();
    let length = unsigned_varint::encode::usize(bytes.len(), &mut buffer);
    [&[number << 3 | 2], length, bytes].concat()
}

/// A message that wants blocks which nobody has, and no answer.
fn wants(first: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for number in first..first + WANTS_A_MESSAGE {
        // CIDv1, raw, SHA2-256, 32 bytes.
        let mut cid = vec![1, 0x55, 0x12, 32];
        cid.extend((number as u64).to_be_bytes());
        cid.resize(36, 0);
        let entry = [field(1, &cid), vec![2 << 3, 1]].concat();
        list.extend(field(1, &entry));
    }
    let message = field(1, &list);
    let mut buffer = unsigned_varint::encode::usize_buffer();
    [
        unsigned_varint::encode::usize(message.len(), &mut buffer),
        &message,
    ]
    .concat()
}

/// A peer comes, wants much, and goes; gives what was allocated when all was kept that is.
async fn floods(peer: PeerId, address: &Multiaddr, registry: &Registry) -> usize {
    let kept = || figure(registry, "cairn_bitswap_wants_kept");
    let heard = || figure(registry, "cairn_bitswap_wants_received_total");
    let heard_before = heard();
    let mut swarm = stock(WATCHDOG);
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address.clone()).unwrap();
    let flood = async {
        let mut streams = Vec::new();
        for first in (0..WANTS / PEERS).step_by(WANTS_A_MESSAGE) {
            // Until it is connected there is none.
            let opened = timeout(WATCHDOG, async {
                loop {
                    if let Ok(stream) = control.open_stream(peer, BITSWAP).await {
                        break stream;
                    }
                    tokio::task::yield_now().await;
                }
            });
            let mut stream = opened.await.unwrap();
            stream.write_all(&wants(first)).await.unwrap();
            stream.close().await.unwrap();
            streams.push(stream);
        }
        until(|| kept() == WANTS_KEPT && heard() - heard_before >= WANTS_HEARD).await;
        ALLOCATED.current_usage()
    };
    let turn = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    let most = tokio::select! {
        () = turn => 0,
        most = flood => most,
    };
    drop((swarm, control));
    until(|| kept() == 0.0 && figure(registry, "cairn_peers") == 0.0).await;
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_heard_of_a_million_wants_comes_back_when_who_wanted_them_is_gone() {
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
    let registry = Registry::new();
    let node = Node::start(store, Keypair::generate_ed25519(), config, &registry).await;
    let node = node.unwrap();
    let address = node.peers().listening().await.remove(0);
    let address = address.with(Protocol::P2p(node.peer_id()));

    let before = ALLOCATED.current_usage();
    let mut most = 0;
    for _ in 0..PEERS {
        most = most.max(floods(node.peer_id(), &address, &registry).await);
    }
    // A sixth of them at least: what waits in streams that are cut off is never heard.
    let heard = figure(&registry, "cairn_bitswap_wants_received_total");
    assert!(heard >= PEERS as f64 * WANTS_HEARD, "{heard}");
    // Or the count would see nothing of what is kept.
    assert!(most > before + (100 << 10), "{before} {most}");
    // What waits in streams that were cut off goes last.
    let back = || ALLOCATED.current_usage() <= before + LEFT_BYTES_MAX;
    let came_back = timeout(WATCHDOG, async {
        while !back() {
            tokio::task::yield_now().await;
        }
    });
    let came_back = came_back.await.is_ok();
    let after = ALLOCATED.current_usage();
    println!("{heard} wants heard; {before} bytes before, {most} at most, {after} after");
    assert!(came_back, "{before} bytes before, {after} after");
}
