//! How long does it take to open a repository of 0, 1,000,000 and 10,000,000 blocks, after a clean
//! stop and after `kill -9`, and how much memory is resident right after it?
//!
//! Every opening happens in a process of its own, and is timed twice: from before the process is
//! started (`exec to open`), and the opening alone. The killed ones are copies of the clean one to
//! which a child put `tail` more blocks, acknowledged, and then went on putting until it was killed.
//! Each opening is followed by reading the first and the last acknowledged block.
//!
//! Beside it: sled alone with as many flat keys of 16 bytes and values of 12 (made once, up to
//! `limit` seconds; it is said where it stopped), and the index folder alone, opened by sled.
//!
//! Needs, for 10,000,000 blocks of 100 bytes, 9 GB of disk. `keep=1` leaves what was filled in
//! `bench-open-kept` and takes it again the next time: remove it when the format has changed.

use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::store::Keep;
use cairn_store::{BlockSource, Store};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use workloads::Numbered;
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, Figures, Running, clock, figures, seconds, tell};
use workloads::row::{Measured, median, thousands};

fn main() {
    match process::part() {
        None => bench(),
        Some((part, given)) => match part.as_str() {
            "open" => opened(&given),
            "fill" => filling(&given),
            "put-until-killed" => put_until_killed(&given),
            "fill-sled" => fill_sled(&given),
            "open-sled" => opened_sled(&given),
            _ => panic!("no part {part}"),
        },
    }
}

fn bench() {
    let options = Options::read(
        &["0", "1M", "10M"],
        &[
            size("blocks-1M", 1_000_000, 10_000),
            size("blocks-10M", 10_000_000, 30_000),
            size("block", 100, 100),
            size("tail", 450_000, 5_000),
            size("limit", 240, 20),
            size("keep", 0, 0),
        ],
    );
    let folder = Folder::new(&options);
    for (row, blocks) in [
        ("0", 0),
        ("1M", options.number("blocks-1M")),
        ("10M", options.number("blocks-10M")),
    ] {
        if options.wants(row) {
            Opening::new(&options, &folder, blocks).measure();
        }
    }
}

/// One size of repository.
struct Opening<'a> {
    options: &'a Options,
    folder: &'a Folder,
    blocks: u64,
    block: u64,
    template: PathBuf,
    sled: PathBuf,
}

impl<'a> Opening<'a> {
    fn new(options: &'a Options, folder: &'a Folder, blocks: u64) -> Self {
        let mut kept = folder.path().to_owned();
        if options.number("keep") > 0 {
            kept = options.folder().join("bench-open-kept");
            std::fs::create_dir_all(&kept).expect("folder");
        }
        let block = options.number("block");
        Self {
            options,
            folder,
            blocks,
            block,
            template: kept.join(format!("{blocks}x{block}")),
            sled: kept.join(format!("sled-{blocks}")),
        }
    }

    fn measure(&self) {
        let work = |how| format!("open {} blocks, {how}", thousands(self.blocks as f64));
        if !self.template.exists() {
            let filled = seconds(|| {
                figures(
                    "fill",
                    &[&self.template.display(), &self.blocks, &self.block],
                );
            });
            println!(
                "{} blocks put in {filled:.1} s",
                thousands(self.blocks as f64)
            );
        }
        if !self.sled.exists() {
            figures(
                "fill-sled",
                &[
                    &self.sled.display(),
                    &self.blocks,
                    &self.options.number("limit"),
                ],
            );
        }
        let (mut clean, mut cold, mut killed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sled, mut index) = (Vec::new(), Vec::new());
        let copy = self.folder.join("copy");
        for _ in 0..self.options.rounds() {
            clean.push(self.open(&self.template, self.blocks));
            sled.push(figures("open-sled", &[&self.sled.display(), &clock()]));
            index.push(figures(
                "open-sled",
                &[&self.template.join("index").display(), &clock()],
            ));
            disk::evict(&self.template);
            cold.push(self.open(&self.template, self.blocks));
            killed.push(self.kill(&copy));
        }
        disk::remove(&copy);
        print(
            &work("after a clean stop"),
            &[
                ("ours", &clean),
                ("ours, nothing of it in the page cache", &cold),
                ("flat sled alone", &sled),
                ("sled on our index folder alone", &index),
            ],
        );
        if let Some(entries) = sled.first().and_then(|round| round.get("entries")) {
            println!("  flat sled held {} entries", thousands(*entries));
        }
        print(
            &work("after kill -9"),
            &[("ours", &killed), ("flat sled alone, clean", &sled)],
        );
    }

    fn open(&self, repository: &Path, last: u64) -> Figures {
        let given: [&dyn std::fmt::Display; 4] =
            [&repository.display(), &self.block, &last, &clock()];
        figures("open", &given)
    }

    /// A copy to which blocks are put, which is killed meanwhile and opened.
    fn kill(&self, copy: &Path) -> Figures {
        disk::copy(&self.template, copy);
        let tail = self.options.number("tail");
        let given: [&dyn std::fmt::Display; 4] =
            [&copy.display(), &self.blocks, &self.block, &tail];
        let mut child = Running::start(&mut process::child("put-until-killed", &given));
        child.wait_for("enough");
        let told = child.kill();
        let mut last = told.lines().filter_map(|line| {
            line.strip_prefix("acknowledged ")
                .and_then(|number| number.parse().ok())
        });
        self.open(copy, last.next_back().unwrap_or(self.blocks + tail))
    }
}

fn print(work: &str, contestants: &[(&str, &Vec<Figures>)]) {
    let all = |rounds: &[Figures], name: &str| -> Vec<f64> {
        let figure = |round: &Figures| round.get(name).copied().unwrap_or(f64::NAN);
        rounds.iter().map(figure).collect()
    };
    for (figure, how) in [("exec", "exec to open"), ("open", "opening alone")] {
        let named = contestants
            .iter()
            .map(|(name, rounds)| ((*name).to_owned(), all(rounds, figure)));
        Measured::new(format!("{work}, {how}"), 1.0, "openings", named.collect()).print();
    }
    for (name, rounds) in contestants {
        println!(
            "  {name}: {:.1} MiB resident after opening, {:.1} MiB at most",
            median(&all(rounds, "resident")) / f64::from(1 << 20),
            median(&all(rounds, "peak")) / f64::from(1 << 20)
        );
    }
}

/// In a child: tells how long opening took, and what it left in memory.
fn tell_opened(started: &str, open: f64) {
    let started: u64 = started.parse().expect("a time");
    tell("exec", (clock() - started) as f64 / 1e9);
    tell("open", open);
    tell("resident", process::resident() as f64);
    tell("peak", process::peak() as f64);
}

fn store(folder: &str) -> Store {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    Store::open(Path::new(folder), &config, &mut |event| {
        println!("{event:?}");
    })
    .expect("open")
}

fn opened(given: &[String]) {
    let [folder, block, last, started] = given else {
        panic!("four arguments")
    };
    let begun = Instant::now();
    let store = store(folder);
    tell_opened(started, begun.elapsed().as_secs_f64());
    let (block, last): (usize, u64) = (
        block.parse().expect("bytes"),
        last.parse().expect("a number"),
    );
    tell("blocks", store.stat().blocks as f64);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        if last > 0 {
            for number in [0, last - 1] {
                let block = Numbered::new(SEED, block)
                    .blocks(number..number + 1)
                    .remove(0);
                let found = store.block(block.cid()).await.expect("read");
                assert_eq!(found, Some(block), "what was acknowledged is here");
            }
        }
        store.close().await.expect("close");
    });
}

fn filling(given: &[String]) {
    let [folder, blocks, block] = given else {
        panic!("three arguments")
    };
    let store = store(folder);
    let blocks: u64 = blocks.parse().expect("a number");
    let numbered = Numbered::new(SEED, block.parse().expect("bytes"));
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut at = 0;
    while at < blocks {
        let end = (at + BATCH).min(blocks);
        let put = store.put(numbered.blocks(at..end), Keep::Kept);
        runtime.block_on(put).expect("put");
        at = end;
    }
    runtime.block_on(store.close()).expect("close");
}

/// Puts `tail` blocks, says so, and goes on in small steps, saying what was acknowledged.
fn put_until_killed(given: &[String]) {
    let [folder, from, block, tail] = given else {
        panic!("four arguments")
    };
    let store = store(folder);
    let numbered = Numbered::new(SEED, block.parse().expect("bytes"));
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let from: u64 = from.parse().expect("a number");
    let enough = from + tail.parse::<u64>().expect("a number");
    let (mut at, mut step) = (from, BATCH);
    for steps in 0u64.. {
        let end = if at < enough {
            (at + step).min(enough)
        } else {
            at + step
        };
        let put = store.put(numbered.blocks(at..end), Keep::Kept);
        runtime.block_on(put).expect("put");
        at = end;
        if at == enough {
            step = 10;
            println!("enough");
        }
        println!("acknowledged {at}");
        std::io::stdout().flush().expect("output");
        assert!(steps < 1_000_000, "nobody killed it");
    }
}

fn sled_config(folder: &str) -> sled::Config {
    sled::Config::default()
        .path(folder)
        .cache_capacity(32 << 20)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None)
}

fn fill_sled(given: &[String]) {
    let [folder, entries, limit] = given else {
        panic!("three arguments")
    };
    let entries: u64 = entries.parse().expect("a number");
    let limit = Duration::from_secs(limit.parse().expect("seconds"));
    let db = sled_config(folder).open().expect("sled");
    let begun = Instant::now();
    let mut at = 0;
    while at < entries && begun.elapsed() < limit {
        let end = (at + BATCH).min(entries);
        let mut keys: Vec<_> = (at..end).map(workloads::spread).collect();
        keys.sort_unstable();
        for key in keys {
            db.insert(key, &[7; 12]).expect("insert");
        }
        at = end;
    }
    db.insert(ENTRIES, &at.to_be_bytes()).expect("insert");
    db.flush().expect("flush");
}

fn opened_sled(given: &[String]) {
    let [folder, started] = given else {
        panic!("two arguments")
    };
    let begun = Instant::now();
    let db = sled_config(folder).open().expect("sled");
    tell_opened(started, begun.elapsed().as_secs_f64());
    if let Some(entries) = db.get(ENTRIES).expect("get") {
        let entries = entries[..].try_into().map(u64::from_be_bytes);
        tell("entries", entries.expect("eight bytes") as f64);
    }
}

const SEED: u64 = 6;
const BATCH: u64 = 10_000;
const ENTRIES: &[u8] = b"entries";
