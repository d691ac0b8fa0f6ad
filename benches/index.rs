//! What does the index of 10 and 50 million blocks cost: bytes written, disk, lookups and misses in
//! a second, memory? No blocks are written: keys and places alone, the same for all.
//!
//! Everybody has 32 MiB of cache and makes what it holds durable every 500,000 entries, which is
//! when ours merges. Filling is done once, up to `limit` seconds each: it is said where one was
//! stopped, and its lookups are among what it holds. Lookups and misses take turns, each round in a
//! process that opens what was filled.
//!
//! Beside ours: sled with a key an entry, redb.
//!
//! Needs 12 GB of disk for 50,000,000 entries.

use cairn_store::bench_index::{BenchIndex, MERGE_AT};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::path::Path;
use std::time::{Duration, Instant};
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, Figures, figures, tell};
use workloads::row::{median, thousands};
use workloads::spread;

fn main() {
    match process::part() {
        None => bench(),
        Some((part, given)) => match (part.as_str(), given.as_slice()) {
            ("fill", [who, folder, entries, limit]) => {
                fill(who, Path::new(folder), number(entries), number(limit));
            }
            ("look", [who, folder, entries, lookups, seed]) => {
                look(
                    who,
                    Path::new(folder),
                    number(entries),
                    number(lookups),
                    number(seed),
                );
            }
            _ => panic!("no part {part}"),
        },
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn bench() {
    let options = Options::read(
        &["10M", "50M"],
        &[
            size("entries-10M", 10_000_000, 100_000),
            size("entries-50M", 50_000_000, 200_000),
            size("lookups", 200_000, 10_000),
            size("limit", 300, 20),
        ],
    );
    let folder = Folder::new(&options);
    for row in ["10M", "50M"] {
        if options.wants(row) {
            measure(&options, &folder, options.number(&format!("entries-{row}")));
        }
    }
}

const WHO: [&str; 3] = ["ours", "sled", "redb"];

fn measure(options: &Options, folder: &Folder, entries: u64) {
    println!("index of {} entries", thousands(entries as f64));
    let mut held = Vec::new();
    for who in WHO {
        let path = folder.join(who);
        let limit = options.number("limit");
        let filled = figures("fill", &[&who, &path.display(), &entries, &limit]);
        let figure = |name: &str| filled.get(name).copied().unwrap_or(f64::NAN);
        let has = figure("entries");
        let stopped = if has < entries as f64 {
            " (stopped by the limit)"
        } else {
            ""
        };
        println!(
            "  {who:<5} filled {:>12} entries{stopped} in {:>6.1} s: {:>9} entries/s, slowest merge {:.2} s, \
             {:>7} MB written ({:.0} bytes an entry), {:>6} MB on disk ({:.1} bytes an entry), {:.0} MiB memory at most",
            thousands(has),
            figure("seconds"),
            thousands(has / figure("seconds")),
            figure("slowest"),
            thousands(figure("written") / 1e6),
            figure("written") / has,
            thousands(disk::used(&path) as f64 / 1e6),
            disk::used(&path) as f64 / has,
            figure("peak") / f64::from(1 << 20),
        );
        held.push((who, path, has, Vec::<Figures>::new()));
    }
    for round in 0..options.rounds() {
        for (who, path, has, rounds) in &mut held {
            rounds.push(figures(
                "look",
                &[
                    who,
                    &path.display(),
                    has,
                    &options.number("lookups"),
                    &round,
                ],
            ));
        }
    }
    for (who, path, _, rounds) in held {
        let middle = |name: &str| {
            let figure = |round: &Figures| round.get(name).copied().unwrap_or(f64::NAN);
            median(&rounds.iter().map(figure).collect::<Vec<_>>())
        };
        let mebibytes = |name| middle(name) / f64::from(1 << 20);
        println!(
            "  {who:<5} open {:.3} s, {:>9} lookups/s, {:>9} misses/s, memory {:.0} MiB after open, {:.0} MiB after reads, {:.0} MiB at most ({} rounds)",
            middle("open"),
            thousands(middle("lookups")),
            thousands(middle("misses")),
            mebibytes("opened"),
            mebibytes("read"),
            mebibytes("peak"),
            rounds.len(),
        );
        disk::remove(&path);
    }
}

/// A contestant: entries in, entries found.
trait Index {
    /// Puts entries and makes them durable.
    fn put(&self, entries: &[([u8; 16], u64)]);
    /// The number under a key.
    fn get(&self, key: &[u8; 16]) -> Option<u64>;
}

fn open(who: &str, folder: &Path) -> Box<dyn Index> {
    match who {
        "ours" => Box::new(BenchIndex::open(folder, CACHE).expect("index")),
        "sled" => Box::new(
            sled::Config::default()
                .path(folder)
                .cache_capacity(CACHE)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None)
                .open()
                .expect("sled"),
        ),
        _ => {
            std::fs::create_dir_all(folder).expect("folder");
            let cache = usize::try_from(CACHE).expect("small");
            let mut builder = redb::Builder::new();
            let db = builder.set_cache_size(cache).create(folder.join("redb"));
            Box::new(db.expect("redb"))
        }
    }
}

impl Index for BenchIndex {
    fn put(&self, entries: &[([u8; 16], u64)]) {
        // As the store does: a batch at a time, then all of it at once.
        for some in entries.chunks(1000) {
            self.insert(some.iter().copied());
        }
        self.merge().expect("merge");
    }

    fn get(&self, key: &[u8; 16]) -> Option<u64> {
        self.lookup(key).expect("lookup")
    }
}

/// Places take twelve bytes in ours, so they do in the others.
fn place(number: u64) -> [u8; 12] {
    let mut place = [0; 12];
    let (first, _) = place.split_at_mut(8);
    first.copy_from_slice(&number.to_be_bytes());
    place
}

fn placed(place: &[u8]) -> u64 {
    let (first, _) = place.split_at(8);
    u64::from_be_bytes(first.try_into().expect("eight bytes"))
}

fn sorted(entries: &[([u8; 16], u64)]) -> Vec<([u8; 16], u64)> {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable();
    sorted
}

impl Index for sled::Db {
    fn put(&self, entries: &[([u8; 16], u64)]) {
        for (key, number) in sorted(entries) {
            self.insert(key, &place(number)).expect("insert");
        }
        self.flush().expect("flush");
    }

    fn get(&self, key: &[u8; 16]) -> Option<u64> {
        sled::Tree::get(self, key)
            .expect("get")
            .map(|found| placed(&found))
    }
}

impl Index for Database {
    fn put(&self, entries: &[([u8; 16], u64)]) {
        let transaction = self.begin_write().expect("transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("table");
            for (key, number) in sorted(entries) {
                table.insert(&key, &place(number)).expect("insert");
            }
        }
        transaction.commit().expect("commit");
    }

    fn get(&self, key: &[u8; 16]) -> Option<u64> {
        let transaction = self.begin_read().expect("transaction");
        let table = transaction.open_table(TABLE).expect("table");
        let found = table.get(key).expect("get");
        found.map(|found| placed(found.value()))
    }
}

/// In a child: fills, and tells what that cost.
fn fill(who: &str, folder: &Path, entries: u64, limit: u64) {
    let index = open(who, folder);
    let limit = Duration::from_secs(limit);
    let written = process::written();
    let mut spent = Duration::ZERO;
    let mut slowest = Duration::ZERO;
    let mut at = 0;
    while at < entries && spent < limit {
        let end = (at + MERGE_AT as u64).min(entries);
        let some: Vec<_> = (at..end).map(|number| (spread(number), number)).collect();
        let begun = Instant::now();
        index.put(&some);
        spent += begun.elapsed();
        slowest = slowest.max(begun.elapsed());
        at = end;
    }
    let begun = Instant::now();
    drop(index);
    spent += begun.elapsed();
    tell("seconds", spent.as_secs_f64());
    tell("slowest", slowest.as_secs_f64());
    tell("entries", at as f64);
    tell("written", (process::written() - written) as f64);
    tell("peak", process::peak() as f64);
}

/// In a child: looks up what is there and what is not.
fn look(who: &str, folder: &Path, entries: u64, lookups: u64, seed: u64) {
    let begun = Instant::now();
    let index = open(who, folder);
    tell("open", begun.elapsed().as_secs_f64());
    tell("opened", process::resident() as f64);
    let mut random = StdRng::seed_from_u64(seed);
    let begun = Instant::now();
    for _ in 0..lookups {
        let number = random.random_range(0..entries);
        assert_eq!(index.get(&spread(number)), Some(number));
    }
    tell("lookups", lookups as f64 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    for number in 0..lookups {
        assert_eq!(
            index.get(&spread(u64::MAX / 2 + seed * lookups + number)),
            None
        );
    }
    tell("misses", lookups as f64 / begun.elapsed().as_secs_f64());
    tell("read", process::resident() as f64);
    tell("peak", process::peak() as f64);
}

const TABLE: TableDefinition<'_, &[u8; 16], &[u8; 12]> = TableDefinition::new("places");
const CACHE: u64 = 32 << 20;
