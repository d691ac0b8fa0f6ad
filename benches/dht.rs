//! Does a lookup find what somebody provides, in how few steps, and for how many requests?
//!
//! The real routing code of many nodes over a network and a clock that are made up: a message takes 5 to 120 ms, who is
//! gone is noticed after 5 s. All join one after the other, each by one that it knows. `static`: nobody leaves.
//! `dead`: a fifth is gone when the lookups begin, unnoticed. `churn`: of every hundred nodes thirty leave
//! within an hour without a word and as many join, while keys are looked for that were provided at its beginning.
//!
//! `withheld`, `misled`, `silent`: `sybils` (45) join for each key that lie nearer to it than anybody and know of no provider;
//! then it is provided and looked for. The first answer as they should else, the second name only their like, the third never
//! answer.
//!
//! `poisoned`: somebody is made to know as many liars of four networks as there are honest nodes, and looks for keys.
//! `eclipse`: the same, who starts anew with ten of those it knew.
//!
//! `provide`: one of them provides a million keys once, with the job that a daemon runs; telling a peer takes two round trips of
//! 80 ms and one for every 256 KiB. Lookups against the regions of the key space, keys an hour of simulated time, who of those that are
//! truly nearest was told, and the memory that stays.
//!
//! Needs about 100 KiB of memory a node.

use cairn_node::dht::network::{Manner, Network, Told};
use cairn_node::provide;
use std::time::{Duration, Instant};
use workloads::disk::Folder;
use workloads::options::{Options, size};

fn main() {
    let options = Options::read(
        &ROWS,
        &[
            size("nodes", 10_000, 500),
            size("lookups", 1000, 100),
            size("crowded", 100, 10),
            size("sybils", 45, 20),
            size("keys", 1_000_000, 20_000),
        ],
    );
    let (nodes, lookups) = (options.number("nodes"), options.number("lookups"));
    for row in ROWS {
        if !options.wants(row) {
            continue;
        }
        let began = Instant::now();
        if row == "provide" {
            provide_once(&options);
            println!(
                "  {:.0} s of this machine's time",
                began.elapsed().as_secs_f64()
            );
            continue;
        }
        let mut network = joined(nodes);
        let joining = network.requests();
        let told = match row {
            "churn" => with_churn(&mut network, nodes, lookups),
            "withheld" => crowded(&mut network, &options, Manner::Withholds),
            "misled" => crowded(&mut network, &options, Manner::Misleads),
            "silent" => crowded(&mut network, &options, Manner::Silent),
            "poisoned" => poisoned(&mut network, lookups, Start::None),
            "eclipse" => poisoned(&mut network, lookups, Start::Anew),
            _ => {
                let keys = provided(&mut network, lookups);
                if row == "dead" {
                    for _ in 0..nodes / 5 {
                        let node = network.any();
                        network.leave(node);
                    }
                }
                found(&mut network, keys)
            }
        };
        println!("dht {row}: {nodes} nodes, {} lookups", told.len());
        println!("  {} requests a node to join", joining / nodes);
        report(&told);
        println!("  {} answers were false", network.false_answers());
        println!(
            "  {:.0} s of this machine's time",
            began.elapsed().as_secs_f64()
        );
    }
}

fn provide_once(options: &Options) {
    let (nodes, keys) = (options.number("nodes"), options.number("keys"));
    let folder = Folder::new(options);
    let count = usize::try_from(nodes).expect("fewer");
    let told = provide::simulation::provide(count, keys, 7, folder.path()).expect("it ends");
    let regions = told.stat.regions;
    println!("dht provide: {nodes} nodes, {keys} keys");
    println!(
        "  {} lookups for {regions} regions, {} requests, {} streams for {} records",
        told.lookups, told.requests, told.streams, told.records
    );
    println!("  told {:.1} % of those who are truly nearest", told.right);
    println!(
        "  {:.0} s simulated, {:.1} million keys an hour",
        told.took.as_secs_f64(),
        keys as f64 / told.took.as_secs_f64() * 3600.0 / 1e6
    );
    println!(
        "  {:.2} bytes of memory a key",
        told.memory as f64 / keys as f64
    );
}

/// So many nodes that have found their places.
fn joined(nodes: u64) -> Network {
    let mut network = Network::new(7);
    for _ in 0..nodes {
        network.join();
        network.pass(BETWEEN_JOINS);
    }
    network.pass(SETTLING);
    network
}

/// Keys, each provided by somebody.
fn provided(network: &mut Network, count: u64) -> Vec<Vec<u8>> {
    let provide = |_| {
        let (node, key) = (network.any(), network.key());
        network.provide(node, key.clone()).expect("a lookup ends");
        key
    };
    (0..count).map(provide).collect()
}

fn found(network: &mut Network, keys: Vec<Vec<u8>>) -> Vec<Told> {
    let find = |key| {
        let node = network.any();
        network.find(node, key).expect("a lookup ends")
    };
    keys.into_iter().map(find).collect()
}

/// Keys that others crowd, one after the other.
fn crowded(network: &mut Network, options: &Options, manner: Manner) -> Vec<Told> {
    let keys = options.number("crowded");
    let sybils = usize::try_from(options.number("sybils")).expect("few");
    // Everybody guesses how many there are when it looks over its table.
    network.pass(HOUR / 4);
    let find = |_| {
        let (provider, seeker, key) = (network.any(), network.any(), network.key());
        let crowd = network.crowd(&key, sybils, manner);
        network.pass(SETTLING / 4);
        network
            .provide(provider, key.clone())
            .expect("a lookup ends");
        let told = network.find(seeker, key).expect("a lookup ends");
        crowd.into_iter().for_each(|node| network.leave(node));
        told
    };
    (0..keys).map(find).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    None,
    Anew,
}

/// By somebody who was told of many liars.
fn poisoned(network: &mut Network, lookups: u64, start: Start) -> Vec<Told> {
    let keys = provided(network, lookups);
    let (victim, honest) = (network.any(), network.up().len());
    network.poison(victim, honest, LIARS_NETWORKS);
    if start == Start::Anew {
        network.restart(victim, KNOWN_BEFORE);
        network.pass(SETTLING);
    }
    let find = |key| network.find(victim, key).expect("a lookup ends");
    keys.into_iter().map(find).collect()
}

/// An hour in which thirty of a hundred leave and as many join.
fn with_churn(network: &mut Network, nodes: u64, lookups: u64) -> Vec<Told> {
    let changes = nodes * 3 / 10;
    let keys = provided(network, lookups);
    let mut keys = keys.into_iter();
    let mut told = Vec::new();
    for at in 0..changes {
        let gone = network.any();
        network.leave(gone);
        network.join();
        network.pass(HOUR / u32::try_from(changes).expect("fewer"));
        while (told.len() as u64) * changes < lookups * (at + 1)
            && let Some(key) = keys.next()
        {
            let node = network.any();
            told.push(network.find(node, key).expect("a lookup ends"));
        }
    }
    told
}

fn report(told: &[Told]) {
    let of = |figure: fn(&Told) -> u64| {
        let mut all: Vec<u64> = told.iter().map(figure).collect();
        all.sort_unstable();
        let at = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)];
        format!("{} ({} of 99 %, {} of all)", at(50), at(99), at(100))
    };
    let found = told
        .iter()
        .filter(|told| told.outcome.providers > 0)
        .count();
    let part = found as f64 / told.len() as f64 * 100.0;
    println!("  found {found}, {part:.1} %");
    println!(
        "  hops, median: {}",
        of(|told| u64::from(told.outcome.hops))
    );
    println!("  requests: {}", of(|told| told.outcome.requests as u64));
    let millis = of(|told| u64::try_from(told.took.as_millis()).unwrap_or(u64::MAX));
    println!("  milliseconds: {millis}");
}

const ROWS: [&str; 9] = [
    "static", "dead", "churn", "withheld", "misled", "silent", "poisoned", "eclipse", "provide",
];
/// From so many networks the liars come that somebody is told of.
const LIARS_NETWORKS: u16 = 4;
/// Peers that a node dials first at its start.
const KNOWN_BEFORE: usize = 10;
const BETWEEN_JOINS: Duration = Duration::from_millis(20);
const SETTLING: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
