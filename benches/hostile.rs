//! What does an honest peer keep of its speed while others attack the node it fetches from?
//!
//! A file of 256 MiB, read from one node on loopback; meanwhile eight peers, in a process of its own that
//! gets what time the others leave, do one wrong thing without end: `wants`, `probes`, `cancels`:
//! floods of a thousand lines a message about blocks that nobody has; `streams`: opened and reset;
//! `blocks`: 1 MiB each that nobody asked for; `drops`: messages begun and then sent byte by byte.
//! Beside each the same fetch in peace. What the node counted of it is told, and how much memory it
//! had.
//!
//! Needs 1 GiB of disk.

use std::path::Path;
use workloads::attacker::{Attack, Attackers};
use workloads::disk::{Folder, remove};
use workloads::options::{Options, size};
use workloads::peer::{self, Counts, Peer, Way};
use workloads::row::median;

fn main() {
    if peer::play() {
        return;
    }
    let rows = Attack::ALL.map(Attack::name);
    let options = Options::read(
        &rows,
        &[size("bytes", 256 << 20, 16 << 20), size("attackers", 8, 2)],
    );
    let folder = Folder::new(&options);
    let file = folder.join("file");
    workloads::file(&file, 8, options.number("bytes"));
    let root = peer::filled(&folder.join("giver"), &file, 1 << 20);
    let taker = folder.join("taker");
    for attack in Attack::ALL {
        if !options.wants(attack.name()) {
            continue;
        }
        let (mut peace, mut attacked) = (Vec::new(), Vec::new());
        let mut giver = Peer::here(&folder.join("giver"));
        for _ in 0..options.rounds() {
            peace.push(seconds(&giver, &taker, &root));
            let attackers = Attackers::start(attack, giver.address(), options.number("attackers"));
            attacked.push(seconds(&giver, &taker, &root));
            drop(attackers);
        }
        let megabytes = options.number("bytes") as f64 / 1e6;
        let (calm, hurt) = (median(&peace), median(&attacked));
        println!(
            "{}: {:.0} MB/s in peace, {:.0} MB/s under attack: {:.2} of it; {} MiB at most",
            attack.name(),
            megabytes / calm,
            megabytes / hurt,
            calm / hurt,
            giver.peak() >> 20
        );
        println!("  it counted {}", told(&giver.counts()));
    }
}

/// How long an honest peer takes.
fn seconds(giver: &Peer, taker: &Path, root: &cairn_store::Cid) -> f64 {
    let mut honest = Peer::here(taker);
    honest.connect(giver.address());
    let seconds = honest.seconds(Way::Read, root);
    drop(honest);
    remove(taker);
    seconds
}

/// What of the counters speaks of an attack.
fn told(counts: &Counts) -> String {
    let speak = [
        "wants_received_total",
        "skipped_entries_received_total",
        "wrong_blocks_received_total",
        "unwanted_bytes_received_total",
        "bad_messages_received_total",
        "abandoned_messages_received_total",
        "streams_refused_total",
        "stalls_total",
        "peers_dropped_total",
    ];
    let told = counts
        .iter()
        .filter(|(name, count)| speak.contains(&name.as_str()) && **count > 0.0)
        .map(|(name, count)| format!("{name} {count:.0}"));
    told.collect::<Vec<_>>().join(", ")
}
