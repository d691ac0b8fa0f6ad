//! How long does a garbage collection take while others add and read, how long do they wait for it,
//! and how much of the disk does it give back? 1,000,000 blocks of 1 KiB, every second one garbage.
//!
//! `busy`: with operations that fall due at a fixed pace, whether or not those before are done: puts
//! of one new block each, durable when they return, and gets of blocks that stay. What each of them
//! waits is measured before the collection and while it runs. `alone`: nothing beside it.
//!
//! Floor: the least that any collector pays who gives all garbage back: read the log, write the
//! bytes that live to a new file, `fdatasync`.
//!
//! Needs 3 GB of disk.

use cairn_store::block::{Block, Prefix};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::sink::BlockSink;
use cairn_store::store::Keep;
use cairn_store::{BlockSource, Cid, Store, cid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, Figures, seconds, tell};
use workloads::row::{Measured, median, thousands};
use workloads::waits::{End, Waits};
use workloads::{Numbered, RAW};

fn main() {
    match process::part() {
        Some((_, given)) => collect(&given),
        None => bench(),
    }
}

fn bench() {
    let options = Options::read(
        &["busy", "alone"],
        &[
            size("blocks", 1_000_000, 20_000),
            size("block", 1024, 1024),
            size("puts-per-second", 200, 200),
            size("gets-per-second", 1000, 1000),
            size("seconds-before", 3, 1),
        ],
    );
    let folder = Folder::new(&options);
    let template = folder.join("template");
    let (blocks, bytes) = (options.number("blocks"), options.count("block"));
    let filled = seconds(|| fill(&template, blocks, bytes));
    println!(
        "{} blocks of {bytes} bytes made in {filled:.1} s, {} MB on disk",
        thousands(blocks as f64),
        thousands(disk::used(&template) as f64 / 1e6)
    );
    for row in ["busy", "alone"] {
        if !options.wants(row) {
            continue;
        }
        let (puts, gets) = match row {
            "busy" => (
                options.number("puts-per-second"),
                options.number("gets-per-second"),
            ),
            _ => (0, 0),
        };
        let given: [&dyn std::fmt::Display; 6] = [
            &folder.join("repository").display().to_string(),
            &blocks,
            &bytes,
            &puts,
            &gets,
            &options.number("seconds-before"),
        ];
        let mut rounds = Vec::new();
        let mut floor = Vec::new();
        for _ in 0..options.rounds() {
            disk::copy(&template, &folder.join("repository"));
            let round = process::figures("collect", &given);
            rounds.push(round);
            floor.push(copy_the_living(&template, &folder.join("living"), bytes));
        }
        print(row, &rounds, floor, blocks, bytes);
    }
}

fn print(row: &str, rounds: &[Figures], floor: Vec<f64>, blocks: u64, bytes: usize) {
    let all = |name: &str| -> Vec<f64> {
        let figure = |round: &Figures| round.get(name).copied().unwrap_or(f64::NAN);
        rounds.iter().map(figure).collect()
    };
    let middle = |name: &str| median(&all(name));
    let worst = |name: &str| all(name).into_iter().fold(0.0, f64::max);
    Measured::new(
        format!(
            "collect half of {} blocks of {bytes} bytes, {row}",
            thousands(blocks as f64)
        ),
        blocks as f64 / 2.0,
        "garbage blocks",
        vec![
            ("ours".to_owned(), all("seconds")),
            (
                "read the log, write what lives, fdatasync".to_owned(),
                floor,
            ),
        ],
    )
    .print();
    println!(
        "  given back {:.1} % of the garbage's bytes, disk used {:.1} % of what lives; peak memory {:.1} MiB",
        middle("back") * 100.0,
        middle("used") * 100.0,
        middle("peak") / f64::from(1 << 20)
    );
    for (operation, name) in [("put", "put and commit"), ("get", "get")] {
        for (phase, when) in [("before", "before"), ("during", "while collecting")] {
            let figure = |which| format!("{operation}-{phase}-{which}");
            if middle(&figure("count")) > 0.0 {
                println!(
                    "  {name:<15} {when:<17} waits {:>8.2} ms (p50) {:>8.2} ms (p99) {:>8.2} ms (max; worst round {:.2}), {:.0} operations",
                    middle(&figure("p50")),
                    middle(&figure("p99")),
                    middle(&figure("max")),
                    worst(&figure("max")),
                    middle(&figure("count")),
                );
            }
        }
    }
}

fn config() -> Config {
    Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, &config(), &mut |event| println!("{event:?}")).expect("open")
}

/// Blocks of which every second one hangs below one pinned root, neighbours on the disk.
fn fill(folder: &Path, blocks: u64, bytes: usize) {
    let store = open(folder);
    let numbered = Numbered::new(SEED, bytes);
    let mut writer = store.writer(Keep::Kept);
    let mut parents = Vec::new();
    let mut at = 0;
    while at < blocks {
        let end = (at + 2 * LINKS).min(blocks);
        let all = numbered.blocks(at..end);
        let children: Vec<Cid> = all.iter().step_by(2).map(|block| *block.cid()).collect();
        let parent = node(&children);
        parents.push(*parent.cid());
        writer.put(all).expect("put");
        writer.put(vec![parent]).expect("put");
        at = end;
    }
    let root = node(&parents);
    let cid = *root.cid();
    writer.put(vec![root]).expect("put");
    writer.commit_and_pin(&[cid], None).expect("pin");
    drop(writer);
    runtime().block_on(store.close()).expect("close");
}

fn node(children: &[Cid]) -> Block {
    let link = |cid: &Cid| PbLink {
        cid: *cid,
        name: Some(String::new()),
        tsize: Some(1),
    };
    let links = children.iter().map(link).collect();
    let prefix = Prefix {
        codec: cid::DAG_PB,
        ..RAW
    };
    Block::new(prefix, pb::encode(&PbNode { links, data: None })).expect("node")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("runtime")
}

/// In a child: opens the store, lets operations run, collects, tells what came of it.
fn collect(given: &[String]) {
    let [folder, blocks, bytes, puts, gets, before] = given else {
        panic!("six arguments")
    };
    let folder = Path::new(folder);
    let number = |text: &str| -> u64 { text.parse().expect("a number") };
    let (blocks, bytes) = (number(blocks), number(bytes));
    let store = open(folder);
    let disk_before = disk::used(&folder.join("blocks"));
    let runtime = runtime();
    let pace = |per_second: &str| match number(per_second) {
        0 => None,
        per_second => Some(Duration::from_secs(1) / u32::try_from(per_second).expect("a pace")),
    };
    let end = End::default();
    let block_bytes = usize::try_from(bytes).expect("a size");
    let (waits, spans, report) = std::thread::scope(|scope| {
        let putting = pace(puts).map(|pace| {
            let fresh = Numbered::new(SEED + 1, block_bytes);
            let (store, runtime, end) = (&store, &runtime, &end);
            scope.spawn(move || {
                Waits::at_pace(pace, end, |number| {
                    let blocks = fresh.blocks(number..number + 1);
                    runtime
                        .block_on(store.put(blocks, Keep::Kept))
                        .expect("put");
                })
            })
        });
        let getting = pace(gets).map(|pace| {
            let old = Numbered::new(SEED, block_bytes);
            let mut random = StdRng::seed_from_u64(SEED);
            let (store, runtime, end) = (&store, &runtime, &end);
            scope.spawn(move || {
                Waits::at_pace(pace, end, |_| {
                    let number = random.random_range(0..blocks / 2) * 2;
                    let block = old.blocks(number..number + 1).remove(0);
                    let found = runtime.block_on(store.block(block.cid())).expect("get");
                    assert_eq!(found.as_ref(), Some(&block), "what is pinned stays");
                })
            })
        });
        let start = Instant::now();
        if putting.is_some() {
            std::thread::sleep(Duration::from_secs(number(before)));
        }
        let began = Instant::now();
        let report = runtime.block_on(store.gc(|_| {})).expect("gc");
        let ended = Instant::now();
        end.now();
        let join = |thread: Option<std::thread::ScopedJoinHandle<'_, Waits>>| {
            thread.map_or_else(Waits::default, |thread| thread.join().expect("operations"))
        };
        let waits = [("put", join(putting)), ("get", join(getting))];
        (waits, (start, began, ended), report)
    });
    let (start, began, ended) = spans;
    tell("seconds", (ended - began).as_secs_f64());
    let [(_, puts), _] = &waits;
    let added = puts.count() as u64;
    // What was put before the collection began is nobody's either.
    let garbage = blocks / 2..=blocks / 2 + added;
    assert!(
        garbage.contains(&report.blocks),
        "all garbage and nothing else went"
    );
    for (operation, waits) in &waits {
        for (phase, waits) in [
            ("before", waits.between(start, began)),
            ("during", waits.between(began, ended)),
        ] {
            let tell = |name: &str, figure| tell(&format!("{operation}-{phase}-{name}"), figure);
            tell("count", waits.count() as f64);
            tell("p50", waits.percentile(0.5));
            tell("p99", waits.percentile(0.99));
            tell("max", waits.percentile(1.0));
        }
    }
    tell("peak", process::peak() as f64);
    runtime.block_on(store.close()).expect("close");
    drop(store);
    let disk_after = disk::used(&folder.join("blocks"));
    let sections = |blocks: u64| (blocks * (bytes + SECTION_PREFIX)) as f64;
    tell(
        "back",
        (disk_before as f64 + sections(added) - disk_after as f64) / sections(report.blocks),
    );
    let living = blocks + added - report.blocks;
    tell("used", disk_after as f64 / sections(living));
}

/// Seconds to read the log and write every second section of it to a new file, durably.
fn copy_the_living(repository: &Path, to: &Path, block_bytes: usize) -> f64 {
    let section = block_bytes + usize::try_from(SECTION_PREFIX).expect("small");
    let seconds = seconds(|| {
        let mut out = File::create(to).expect("create");
        let mut buffer = vec![0; section * 8192];
        let mut living = Vec::with_capacity(buffer.len());
        for entry in fs::read_dir(repository.join("blocks")).expect("blocks") {
            let path = entry.expect("entry").path();
            if path.extension().is_none_or(|extension| extension != "car") {
                continue;
            }
            let mut file = File::open(path).expect("open");
            loop {
                let read = file.read(&mut buffer).expect("read");
                if read == 0 {
                    break;
                }
                let (bytes, _) = buffer.split_at(read);
                living.clear();
                for section in bytes.chunks(section).step_by(2) {
                    living.extend_from_slice(section);
                }
                out.write_all(&living).expect("write");
            }
        }
        out.sync_data().expect("sync");
    });
    disk::remove(to);
    seconds
}

const SEED: u64 = 5;
/// Leaves below one node.
const LINKS: u64 = 1000;
/// Bytes of a section before its block: the length and the CID.
const SECTION_PREFIX: u64 = 38;
