//! What does an honest peer keep of its speed while others attack the node it fetches from?
//!
//! A file of 256 MiB, read from one node on loopback; meanwhile eight peers, in a process of its own that
//! gets what time the others leave, do one wrong thing without end: `wants`, `probes`, `cancels`:
//! floods of a thousand lines a message about blocks that nobody has; `streams`: opened and reset;
//! `blocks`: 1 MiB each that nobody asked for; `drops`: messages begun and then sent byte by byte;
//! `readers`: who ask for 64 MiB each and read one byte a second; `malformed`: what is no message, and a new
//! connection whenever one is lost. `silent` is about the other end: eight peers who say to the peer that fetches that
//! they have everything, and send nothing.
//! Beside each the same fetch in peace, and while the same peers attack somebody else on this machine: a
//! process that reads what comes and does nothing about it, which gets what time the others leave as
//! well. The first ratio is what an honest peer sees; the second leaves out what the attackers burn
//! by running here. But what the node holds back they cannot burn, which the sink lets them. So the time of the processors
//! is told too: the node's own for one fetch, in peace and under attack, and the attackers'.
//! What the node counted is told, and how much memory it had.
//!
//! `crowd` is about connections: 20,000 are opened from one address, on some of which nothing is said and on others half a
//! handshake, while an honest peer at another address connects again and again. Told is how long it takes, in peace and
//! meanwhile, how much memory the node had, and how many it refused.
//!
//! Needs 1 GiB of disk.

use std::path::Path;
use workloads::attacker::{Attack, Attackers, BAIT_BLOCKS, Sink, bait};
use workloads::crowd::{self, Crowd, Stands};
use workloads::disk::{Folder, remove};
use workloads::options::{Options, size};
use workloads::peer::{self, Counts, Peer, Way};
use workloads::process::open_files;
use workloads::row::median;
use workloads::waits::percentile;

fn main() {
    if peer::play() {
        return;
    }
    let mut rows = Attack::ALL.map(Attack::name).to_vec();
    rows.push(CROWD);
    let options = Options::read(
        &rows,
        &[
            size("bytes", 256 << 20, 16 << 20),
            size("attackers", 8, 2),
            size("connections", 20_000, 500),
        ],
    );
    let folder = Folder::new(&options);
    if options.wants(CROWD) {
        stand_in_a_crowd(&folder.join("crowded"), options.number("connections"));
    }
    if !Attack::ALL
        .iter()
        .any(|attack| options.wants(attack.name()))
    {
        return;
    }
    let file = folder.join("file");
    workloads::file(&file, 8, options.number("bytes"));
    let root = peer::filled(&folder.join("giver"), &file, 1 << 20);
    let taker = folder.join("taker");
    peer::filled_with_blocks(&folder.join("giver"), &bait(), BAIT_BLOCKS);
    for attack in Attack::ALL {
        if !options.wants(attack.name()) {
            continue;
        }
        let [mut peace, mut beside, mut attacked] = [(); 3].map(|()| Vec::new());
        let mut giver = Peer::here(&folder.join("giver"));
        for _ in 0..options.rounds() {
            let mut fetch = |victim: Victim| {
                let start =
                    |address: &str| Attackers::start(attack, address, options.number("attackers"));
                fetch(&mut giver, &taker, &root, attack, |giver, taker| {
                    Some(start(match victim {
                        Victim::Nobody => return None,
                        Victim::Else(sink) => sink.address(),
                        Victim::Node if attack.is_on_who_fetches() => taker.address(),
                        Victim::Node => giver.address(),
                    }))
                })
            };
            peace.push(fetch(Victim::Nobody));
            let sink = Sink::start();
            beside.push(fetch(Victim::Else(&sink)));
            drop(sink);
            attacked.push(fetch(Victim::Node));
        }
        let middle = |all: &[Took], of: fn(&Took) -> f64| {
            let figures: Vec<f64> = all.iter().map(of).collect();
            median(&figures)
        };
        let seconds = |all: &[Took]| middle(all, |took| took.seconds);
        let working = |all: &[Took]| middle(all, |took| took.node);
        let rate = |all: &[Took]| options.number("bytes") as f64 / 1e6 / seconds(all);
        let most = attacked.iter().map(|took| took.peak).max();
        println!(
            "{}: {:.0} MB/s in peace, {:.0} MB/s beside it, {:.0} MB/s under attack: {:.2} of peace, {:.2} of beside; {} MiB at most",
            attack.name(),
            rate(&peace),
            rate(&beside),
            rate(&attacked),
            rate(&attacked) / rate(&peace),
            rate(&attacked) / rate(&beside),
            most.unwrap_or(0) >> 20
        );
        println!(
            "  processor seconds of the node: {:.2} in peace, {:.2} under attack; of the attackers: {:.2} on somebody else, {:.2} on it",
            working(&peace),
            working(&attacked),
            middle(&beside, |took| took.attackers),
            middle(&attacked, |took| took.attackers)
        );
        let counts = attacked.last().map(|took| told(&took.counts));
        println!("  it counted {}", counts.unwrap_or_default());
    }
}

/// An honest peer connects to a node to which so many others connect.
fn stand_in_a_crowd(folder: &Path, count: u64) {
    // What the node may open, it has from us.
    open_files(count + crowd::FILES_MORE);
    let mut node = Peer::without_exempt(folder);
    let address = node.address().parse().expect("an address");
    let runtime = peer::runtime();
    let connect = || runtime.block_on(crowd::connect(&address));
    let peace: Vec<Option<f64>> = (0..CONNECTS_MIN).map(|_| connect()).collect();
    let before = node.resident();
    let mut crowd = Crowd::start(node.address(), count);
    let (mut beside, mut stands): (Vec<Option<f64>>, Option<Stands>) = (Vec::new(), None);
    while beside.len() < CONNECTS_MAX && (stands.is_none() || beside.len() < CONNECTS_MIN) {
        beside.push(connect());
        stands = stands.or_else(|| crowd.stands());
    }
    let told = |all: &[Option<f64>]| {
        let millis = || all.iter().flatten().map(|seconds| seconds * 1e3);
        format!(
            "{} of {} connect, p50 {:.1} ms, p99 {:.1} ms",
            millis().count(),
            all.len(),
            percentile(millis(), 0.5),
            percentile(millis(), 0.99)
        )
    };
    println!(
        "{CROWD}: {} in peace; {} beside {count} connections from one address",
        told(&peace),
        told(&beside)
    );
    let stands = stands.map_or_else(
        || "they were not all opened in time".to_owned(),
        |Stands { opened, failed }| format!("{opened} were opened and {failed} were not"),
    );
    println!(
        "  {stands}; it refused {}; {} MiB before, {} MiB at most",
        node.refused(),
        before >> 20,
        node.peak() >> 20
    );
    drop(crowd);
    drop(node);
    remove(folder);
}

/// Whom the attackers attack.
enum Victim<'a> {
    Nobody,
    Else(&'a Sink),
    Node,
}

/// What one fetch took: time, and of the processors meanwhile; and how the node fared that is
/// attacked, or would be.
struct Took {
    seconds: f64,
    node: f64,
    attackers: f64,
    peak: u64,
    counts: Counts,
}

/// An honest peer fetches.
fn fetch(
    giver: &mut Peer,
    taker: &Path,
    root: &cairn_store::Cid,
    attack: Attack,
    start: impl Fn(&Peer, &Peer) -> Option<Attackers>,
) -> Took {
    let mut honest = Peer::here(taker);
    let attackers = start(giver, &honest);
    honest.connect(giver.address());
    let used = |giver: &Peer, honest: &Peer| {
        let node = match attack.is_on_who_fetches() {
            true => honest,
            false => giver,
        };
        let attackers = attackers.as_ref();
        let attackers = attackers.map_or(0.0, Attackers::processor_seconds);
        (node.processor_seconds(), attackers)
    };
    let before = used(giver, &honest);
    let seconds = honest.seconds(Way::Read, root);
    let after = used(giver, &honest);
    let node = match attack.is_on_who_fetches() {
        true => &mut honest,
        false => giver,
    };
    let took = Took {
        seconds,
        node: after.0 - before.0,
        attackers: after.1 - before.1,
        peak: node.peak(),
        counts: node.counts(),
    };
    drop(honest);
    remove(taker);
    took
}

/// What of the counters speaks of an attack.
fn told(counts: &Counts) -> String {
    let speak = [
        "messages_received_total",
        "wants_received_total",
        "wants_sent_total",
        "hedges_total",
        "too_large_blocks_received_total",
        "skipped_entries_received_total",
        "wrong_blocks_received_total",
        "unwanted_bytes_received_total",
        "bad_messages_received_total",
        "abandoned_messages_received_total",
        "streams_refused_total",
        "lines_over_limit_total",
        "peers_held_total",
        "peers_held_seconds_total",
        "stalls_total",
        "peers_dropped_total",
    ];
    let told = counts
        .iter()
        .filter(|(name, count)| speak.contains(&name.as_str()) && **count > 0.0)
        .map(|(name, count)| format!("{name} {count:.0}"));
    told.collect::<Vec<_>>().join(", ")
}

const CROWD: &str = "crowd";
/// How often the honest peer connects at least, and at most.
const CONNECTS_MIN: usize = 200;
const CONNECTS_MAX: usize = 20_000;
