//! How fast is a raw stream, over the transport of others and over ours, near and far? And how much
//! of it does a fetch keep over a long way?
//!
//! `layers`: one stream on loopback while each layer of ours takes the place of its stock counterpart, alone and with the
//! others, the same program at both ends and only the connection another; time, and the processors' time of both
//! ends, which says more on a machine that others use. `one`, `four`: so many streams at once between two processes on loopback: rust-libp2p as it comes with Noise
//! and with TLS. `20ms`, `60ms`, `200ms`: a fetch over a round trip so long (a relay in user
//! space), beside a raw stream through the same relay, and what a window of one stream allows.
//!
//! Needs 1 GiB of disk.

use cairn_node::Config;
use cairn_node::swarm::STREAM_WINDOW_BYTES_MAX;
use std::net::SocketAddr;
use std::time::Duration;
use workloads::disk::{Folder, remove};
use workloads::layers::{Layers, Records};
use workloads::options::{Options, size};
use workloads::peer::{self, Peer, Way};
use workloads::relay::Relay;
use workloads::row::{Row, median, thousands};
use workloads::stock::{Giver, Security};

fn main() {
    if peer::play() {
        return;
    }
    let options = Options::read(
        &["layers", "one", "four", "20ms", "60ms", "200ms"],
        &[
            size("bytes", 2 << 30, 128 << 20),
            size("far-bytes", 256 << 20, 16 << 20),
        ],
    );
    if options.wants("layers") {
        for security in [Security::Tls, Security::Noise] {
            layers(&options, security);
        }
    }
    for (row, streams) in [("one", 1), ("four", 4)] {
        if options.wants(row) {
            near(&options, streams);
        }
    }
    for (row, milliseconds) in [("20ms", 20), ("60ms", 60), ("200ms", 200)] {
        if options.wants(row) {
            far(&options, Duration::from_millis(milliseconds));
        }
    }
}

/// What each layer gives.
fn layers(options: &Options, security: Security) {
    let bytes = options.number("bytes");
    let (stock, ours) = (Layers::stock(security), Layers::ours(security));
    let reads = Some(Config::default().read_buffer_bytes);
    let mut all = vec![("all stock", stock)];
    all.push(("stock, reads of 256 KiB", Layers { reads, ..stock }));
    if security == Security::Tls {
        let preferring = Layers {
            records: Records::Preferring,
            ..stock
        };
        all.push(("AES first", preferring));
        let buffered = Layers {
            reads,
            ..preferring
        };
        all.push(("AES first, reads of 256 KiB", buffered));
        let our_mux = Layers {
            our_mux: true,
            ..preferring
        };
        all.push(("AES first, our multiplexer", our_mux));
        let buffered = Layers { reads, ..our_mux };
        all.push(("AES first, our multiplexer, reads of 256 KiB", buffered));
    }
    let our_mux = Layers {
        our_mux: true,
        ..stock
    };
    all.push(("our multiplexer", our_mux));
    let our_records = Layers {
        records: Records::Ours,
        ..stock
    };
    all.push(("our records", our_records));
    let apart = Layers {
        our_mux: true,
        ..our_records
    };
    all.push(("our records and multiplexer, apart", apart));
    all.push(("our records and multiplexer, in one piece", ours));
    for (name, bytes) in [
        ("the same, windows of 256 KiB", 0),
        ("the same, windows of 1 MiB", 768 << 10),
        ("the same, windows of 4 MiB", 3840 << 10),
    ] {
        let growth = Some(bytes);
        all.push((name, Layers { growth, ..ours }));
    }
    for (name, bytes) in [
        ("the same, reads of 64 KiB", 64 << 10),
        ("the same, reads of 1 MiB", 1 << 20),
    ] {
        let reads = Some(bytes);
        all.push((name, Layers { reads, ..ours }));
    }
    let mut contestants: Vec<_> = all
        .into_iter()
        .map(|(name, layers)| (name, Giver::over(layers), Vec::new()))
        .collect();
    for round in 0..options.rounds() {
        let count = contestants.len();
        for turn in 0..count {
            // Each begins once in a while.
            let at = (round * TURNS_APART + turn) % count;
            if let Some((_, giver, costs)) = contestants.get_mut(at) {
                costs.push(giver.costs(bytes, 1));
            }
        }
    }
    println!(
        "{} MiB over one raw stream, {}, layer by layer ({} rounds)",
        bytes >> 20,
        security.name(),
        options.rounds()
    );
    let mut first = None;
    for (name, _, costs) in &contestants {
        let seconds: Vec<f64> = costs.iter().map(|[seconds, _]| *seconds).collect();
        let used: Vec<f64> = costs.iter().map(|[_, used]| *used).collect();
        let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
        let middle = rate(median(&seconds));
        println!(
            "  {name:<46} {:>6} MB/s ({} to {})   {:>5.2} x stock   {:.2} ns of processors a byte",
            thousands(middle),
            thousands(rate(seconds.iter().copied().fold(0.0, f64::max))),
            thousands(rate(seconds.iter().copied().fold(f64::INFINITY, f64::min))),
            middle / *first.get_or_insert(middle),
            1e9 * median(&used) / bytes as f64,
        );
    }
}

fn near(options: &Options, streams: u64) {
    let folder = Folder::new(options);
    let bytes = options.number("bytes");
    let stock = [Security::Noise, Security::Tls].map(Giver::start);
    let [noise, tls] = &stock;
    let ours = |security: &str| {
        for name in ["giver", "taker"] {
            remove(&folder.join(name));
        }
        let giver = Peer::secured(&folder.join("giver"), security);
        let mut taker = Peer::secured(&folder.join("taker"), security);
        taker.connect(giver.address());
        taker.seconds_raw(giver.address(), bytes, streams)
    };
    Row::new(
        format!("{} MiB over {streams} raw streams at once", bytes >> 20),
        bytes as f64 / 1e6,
        "MB",
    )
    .contestant("ours, TLS", || ours("tls"))
    .contestant("ours, Noise", || ours("noise"))
    .contestant("stock libp2p, Noise", || noise.seconds(bytes, streams))
    .contestant("stock libp2p, TLS", || tls.seconds(bytes, streams))
    .run(options.rounds())
    .print();
}

fn far(options: &Options, round_trip: Duration) {
    let folder = Folder::new(options);
    let bytes = options.number("far-bytes");
    let (file, path) = (folder.join("file"), folder.join("giver"));
    workloads::file(&file, 8, bytes);
    let root = peer::filled(&path, &file, 1 << 20);
    let giver = Peer::here(&path);
    let mut relay = Relay::to(socket(giver.address()), round_trip);
    let way = over(giver.address(), relay.address());
    let taker = || {
        remove(&folder.join("taker"));
        let mut taker = Peer::here(&folder.join("taker"));
        taker.connect(&way);
        taker
    };
    let text = format!(
        "fetch {} MiB over {} ms there and back",
        bytes >> 20,
        round_trip.as_millis()
    );
    Row::new(text, bytes as f64 / 1e6, "MB")
        .contestant("ours, read in order", || taker().seconds(Way::Read, &root))
        .contestant("ours, pinned, durable", || taker().seconds(Way::Pin, &root))
        .contestant("one raw stream of ours", || {
            taker().seconds_raw(&way, bytes, 1)
        })
        .run(options.rounds())
        .print();
    let all = options.rounds() as u64 * 3 * bytes;
    assert!(relay.carried() >= all, "it did not all go the long way");
    let grown = WINDOW_BYTES_FIRST + Config::default().window_growth_bytes;
    let window = grown.min(STREAM_WINDOW_BYTES_MAX);
    let most = window as f64 / 1e6 / round_trip.as_secs_f64();
    println!(
        "  a window of {} KiB a round trip carries {} MB/s at most",
        window >> 10,
        thousands(most)
    );
}

/// Where a node listens, as a socket.
fn socket(address: &str) -> SocketAddr {
    let parts: Vec<&str> = address.split('/').collect();
    match parts.as_slice() {
        ["", "ip4", ip, "tcp", port, ..] => format!("{ip}:{port}").parse().expect("a socket"),
        _ => panic!("{address} is not at a port"),
    }
}

/// The same node, reached through `relay`.
fn over(address: &str, relay: SocketAddr) -> String {
    let peer = address.rsplit('/').next().expect("a peer");
    format!("/ip4/{}/tcp/{}/p2p/{peer}", relay.ip(), relay.port())
}

/// What Yamux gives every stream at first.
const WINDOW_BYTES_FIRST: usize = 256 << 10;
/// By how many contestants a round begins later than the one before: no divisor of how many there are, so
/// that each begins once in a while.
const TURNS_APART: usize = 4;
