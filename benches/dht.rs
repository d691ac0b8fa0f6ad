//! Does a lookup find what somebody provides, in how few steps, and for how many requests?
//!
//! The real routing code of many nodes over a network and a clock that are made up: a message takes 5 to 120 ms, who is
//! gone is noticed after 5 s. All join one after the other, each by one that it knows. `static`: nobody leaves.
//! `dead`: a fifth is gone when the lookups begin, unnoticed. `churn`: of every hundred nodes thirty leave
//! within an hour without a word and as many join, while keys are looked for that were provided at its beginning.
//!
//! `withheld`, `misled`, `silent`: 20, 45, then 100 sybils join for each key that lie nearer to it than anybody and know of no provider;
//! then it is provided and looked for. The first answer as they should else, the second name only their like, the third never
//! answer.
//!
//! `poisoned`: somebody is made to know `liars` of four networks, as many as there are honest nodes, and looks for keys.
//! `eclipse`: the same, who starts anew with ten of those it knew.
//!
//! `provide`: one of them provides a million keys once, with the job that a daemon runs; telling a peer takes two round trips of
//! 80 ms and one for every 256 KiB. Lookups against the regions of the key space, keys an hour of simulated time, who of those that are
//! truly nearest was told, and the memory that stays.
//!
//! `plots=PATH` draws after each row what came out so far: how many lookups are over after how long, how many requests they took, and what is
//! found among sybils.
//!
//! All rows but the last begin with the same nodes; but in `churn` they look over their tables no more while they are measured, which takes
//! minutes of simulated time at most. Needs about 200 KiB of memory a node.

use cairn_node::dht::network::{Manner, Network, Told};
use cairn_node::provide;
use std::time::{Duration, Instant};
use workloads::disk::Folder;
use workloads::options::{Options, size};
use workloads::plot::{Curve, Plot};
use workloads::waits::percentile;

fn main() {
    let options = Options::read(
        &ROWS,
        &[
            size("nodes", 10_000, 500),
            size("lookups", 1000, 100),
            size("crowded", 100, 10),
            size("liars", 10_000, 500),
            size("keys", 1_000_000, 20_000),
        ],
    );
    let (nodes, lookups) = (options.number("nodes"), options.number("lookups"));
    let mut plots = Plots::default();
    let mut settled = None;
    for row in ROWS {
        if !options.wants(row) {
            continue;
        }
        let began = Instant::now();
        if row == "provide" {
            provide_once(&options);
        } else {
            let network = settled.get_or_insert_with(|| joined(nodes)).clone();
            let runs = match row {
                "withheld" => crowds(&network, &options, Manner::Withholds),
                "misled" => crowds(&network, &options, Manner::Misleads),
                "silent" => crowds(&network, &options, Manner::Silent),
                _ => vec![(0, run(row, network, &options, lookups))],
            };
            for (sybils, run) in runs {
                report(row, sybils, &run);
                plots.add(row, sybils, &run.told);
            }
            if let Some(folder) = options.plots() {
                plots
                    .draw(folder, nodes)
                    .expect("a folder that can be written to");
            }
        }
        println!(
            "  {:.0} s of this machine's time",
            began.elapsed().as_secs_f64()
        );
    }
}

/// What came of a row's lookups.
struct Run {
    told: Vec<Told>,
    /// Nodes that were up at its end.
    up: usize,
    false_answers: u64,
}

fn run(row: &str, mut network: Network, options: &Options, lookups: u64) -> Run {
    if row != "churn" {
        network.rest();
    }
    let told = match row {
        "churn" => with_churn(&mut network, options.number("nodes"), lookups),
        "poisoned" => poisoned(&mut network, options, Start::None),
        "eclipse" => poisoned(&mut network, options, Start::Anew),
        _ => {
            let keys = provided(&mut network, lookups);
            if row == "dead" {
                for _ in 0..options.number("nodes") / 5 {
                    let node = network.any();
                    network.leave(node);
                }
            }
            found(&mut network, keys)
        }
    };
    Run {
        told,
        up: network.up().len(),
        false_answers: network.false_answers(),
    }
}

/// The same keys' lookups among more and more sybils.
fn crowds(network: &Network, options: &Options, manner: Manner) -> Vec<(usize, Run)> {
    let counts = match options.is_quick() {
        true => SYBILS.get(..1).unwrap_or_default(),
        false => &SYBILS,
    };
    let crowd = |sybils: &usize| {
        let mut network = network.clone();
        let told = crowded(&mut network, options, *sybils, manner);
        let run = Run {
            told,
            up: network.up().len(),
            false_answers: network.false_answers(),
        };
        (*sybils, run)
    };
    counts.iter().map(crowd).collect()
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
    let began = Instant::now();
    let mut network = Network::new(7);
    for _ in 0..nodes {
        network.join();
        network.pass(BETWEEN_JOINS);
    }
    network.pass(SETTLING);
    println!(
        "dht: {nodes} nodes joined by {} requests each, {:.0} s of this machine's time",
        network.requests() / nodes,
        began.elapsed().as_secs_f64()
    );
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
fn crowded(network: &mut Network, options: &Options, sybils: usize, manner: Manner) -> Vec<Told> {
    let keys = options.number("crowded");
    network.rest();
    let find = |_| {
        let (provider, seeker, key) = (network.any(), network.any(), network.key());
        let crowd = network.crowd(&key, sybils, manner);
        network.pass(BEFORE_USE);
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
fn poisoned(network: &mut Network, options: &Options, start: Start) -> Vec<Told> {
    let keys = provided(network, options.number("lookups"));
    let victim = network.any();
    network.poison(victim, options.count("liars"), LIARS_NETWORKS);
    if start == Start::Anew {
        network.restart(victim, KNOWN_BEFORE);
        network.pass(BEFORE_USE);
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

fn report(row: &str, sybils: usize, run: &Run) {
    let told = &run.told;
    let of = |figure: fn(&Told) -> u64| {
        let at = |share| percentile(told.iter().map(|told| figure(told) as f64), share);
        format!("{} ({} of 99 %, {} of all)", at(0.5), at(0.99), at(1.0))
    };
    let among = match sybils {
        0 => String::new(),
        _ => format!(", {sybils} sybils a key"),
    };
    println!("dht {row}: {} lookups{among}", told.len());
    println!(
        "  {} nodes up at the end, {} answers were false",
        run.up, run.false_answers
    );
    let found = told.iter().filter(|told| is_found(told)).count();
    println!("  found {found}, {:.1} %", part(told));
    println!("  hops, median: {}", of(hops));
    println!("  requests: {}", of(requests));
    println!("  milliseconds: {}", of(millis));
}

fn is_found(told: &Told) -> bool {
    told.outcome.providers > 0
}

/// Of a hundred lookups, those that found somebody.
fn part(told: &[Told]) -> f64 {
    let found = told.iter().filter(|told| is_found(told)).count();
    found as f64 / told.len() as f64 * 100.0
}

fn hops(told: &Told) -> u64 {
    u64::from(told.outcome.hops)
}

fn requests(told: &Told) -> u64 {
    told.outcome.requests as u64
}

fn millis(told: &Told) -> u64 {
    u64::try_from(told.took.as_millis()).unwrap_or(u64::MAX)
}

/// What is drawn after each row, so that a run that is broken off leaves what it measured.
#[derive(Default)]
struct Plots {
    times: Vec<Curve>,
    requests: Vec<Curve>,
    /// What is found, by how many sybils there are.
    sybils: Vec<Curve>,
}

impl Plots {
    fn add(&mut self, row: &'static str, sybils: usize, told: &[Told]) {
        if sybils == 0 {
            self.times
                .push(Curve::shares(row, told.iter().map(millis).collect()));
            self.requests
                .push(Curve::shares(row, told.iter().map(requests).collect()));
            return;
        }
        let point = (sybils as f64, part(told));
        match self.sybils.last_mut().filter(|curve| curve.name == row) {
            Some(curve) => curve.points.push(point),
            None => self.sybils.push(Curve {
                name: row,
                points: vec![point],
            }),
        }
    }

    fn draw(&self, folder: &std::path::Path, nodes: u64) -> std::io::Result<()> {
        let title = |what: &str| format!("{what}, {nodes} nodes");
        let plots = [
            (
                "dht-time.svg",
                title("Lookups that are over (%)"),
                "milliseconds",
                &self.times,
            ),
            (
                "dht-requests.svg",
                title("Lookups that are over (%)"),
                "requests",
                &self.requests,
            ),
            (
                "dht-sybils.svg",
                title("Keys that are found (%)"),
                "sybils nearer to the key than anybody else",
                &self.sybils,
            ),
        ];
        for (file, title, across, curves) in plots {
            let plot = Plot {
                title: &title,
                across,
                curves,
            };
            if let Some(svg) = plot.svg() {
                std::fs::write(folder.join(file), svg)?;
            }
        }
        Ok(())
    }
}

const ROWS: [&str; 9] = [
    "static", "dead", "churn", "withheld", "misled", "silent", "poisoned", "eclipse", "provide",
];
/// Sybils that join for one key.
const SYBILS: [usize; 3] = [20, 45, 100];
/// From so many networks the liars come that somebody is told of.
const LIARS_NETWORKS: u16 = 4;
/// Peers that a node dials first at its start.
const KNOWN_BEFORE: usize = 10;
const BETWEEN_JOINS: Duration = Duration::from_millis(20);
/// Everybody guesses how many there are when it looks over its table, which it does within ten minutes.
const SETTLING: Duration = Duration::from_secs(900);
/// From a start, or the joining of sybils, to the lookup that is measured.
const BEFORE_USE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
