//! The victim of the kill test: opens a store and works on it with many threads until it is killed.
//!
//!     store-torture open FOLDER CONFIG
//!     store-torture work FOLDER CONFIG SEED RUN THREADS ROUNDS
//!
//! `open` opens the store and closes it. `work` opens it, lets `THREADS` threads each do `ROUNDS`
//! pieces of work on the world of `SEED`, drawn by `RUN`, and closes it. `CONFIG` is written as
//! `durability,segment size`. Standard output gets one line, in one call of `write`, before and
//! after each piece: see `harness::torture`.

use cairn_store::config::{ByteSize, Config, Durability, Reserve};
use cairn_store::gc::GcEvent;
use cairn_store::pin::{PinError, PinMode};
use cairn_store::store::{Keep, OpenEvent, Writer};
use cairn_store::unixfs::read::ReadError;
use cairn_store::{BlockSource, Store};
use harness::torture::{
    BLOCKS, Line, Outcome, PIECES, Pinned, TREES, Work, World, name_of, snapshot_of,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::{Handle, Runtime};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let teller = Teller::new();
    match arguments.as_slice() {
        ["open", folder, config] => {
            let (runtime, store) = open(folder, config, &teller);
            close(&runtime, &store, &teller);
        }
        ["work", folder, config, seed, run, threads, rounds] => {
            let (runtime, store) = open(folder, config, &teller);
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let plan = Plan {
                world: World::new(number(seed)),
                run: number(run),
                rounds: number(rounds),
            };
            let threads = number(threads);
            let handle = runtime.handle();
            work(plan, threads, Path::new(folder), &store, handle, &teller);
            close(&runtime, &store, &teller);
        }
        _ => {
            eprintln!("usage: see the head of tests/bin/store-torture.rs");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Standard output, one call of `write` a line.
#[derive(Debug, Clone)]
struct Teller {
    out: Arc<File>,
    next: Arc<AtomicU64>,
}

impl Teller {
    fn new() -> Self {
        let out = std::io::stdout().as_fd().try_clone_to_owned();
        Self {
            out: Arc::new(File::from(out.expect("standard output"))),
            next: Arc::default(),
        }
    }

    fn tell(&self, line: &Line) {
        let line = format!("{line}\n");
        let wrote = (&*self.out).write(line.as_bytes());
        // Whoever listened has gone: nobody would know what else is done.
        if wrote.ok() != Some(line.len()) {
            std::process::exit(3);
        }
    }

    fn begin(&self, work: &Work) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.tell(&Line::Begin(id, work.clone()));
        id
    }
}

/// How many reads and writes this process has made.
fn calls() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            line.strip_prefix("syscr: ")
                .or(line.strip_prefix("syscw: "))
        })
        .filter_map(|count| count.parse::<u64>().ok())
        .sum()
}

fn open(folder: &str, config: &str, teller: &Teller) -> (Runtime, Store) {
    let (durability, size) = config.split_once(',').expect("durability,size");
    let config = Config {
        durability: match durability {
            "full" => Durability::Full,
            "relaxed" => Durability::Relaxed,
            _ => panic!("no such durability"),
        },
        segment_size: size.parse().expect("a size"),
        reserve: Reserve::Bytes(ByteSize(0)),
        cache_max: CACHE_MAX,
        ..Config::default()
    };
    teller.tell(&Line::Opening(calls()));
    let opened = Store::open(Path::new(folder), &config, &mut |event| {
        if let OpenEvent::Notice(text) = event {
            teller.tell(&Line::Notice(text));
        }
    });
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            teller.tell(&Line::Wrong(format!("the store did not open: {error}")));
            std::process::exit(1);
        }
    };
    teller.tell(&Line::Opened(calls()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    (runtime, store)
}

fn close(runtime: &Runtime, store: &Store, teller: &Teller) {
    teller.tell(&Line::Closing(calls()));
    match runtime.block_on(store.close()) {
        Ok(()) => teller.tell(&Line::Closed(calls())),
        Err(error) => teller.tell(&Line::Wrong(format!("the store did not close: {error}"))),
    }
}

/// What all threads work on.
#[derive(Debug, Clone, Copy)]
struct Plan {
    world: World,
    run: u64,
    rounds: u64,
}

fn work(plan: Plan, threads: u64, folder: &Path, store: &Store, handle: &Handle, teller: &Teller) {
    let collecting = Mutex::new(());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let worker = Worker {
                plan,
                random: StdRng::seed_from_u64(plan.run ^ (thread << 48)),
                store: store.clone(),
                handle: handle.clone(),
                teller: teller.clone(),
                collecting: &collecting,
                folder,
            };
            scope.spawn(move || worker.run());
        }
    });
}

/// One thread.
struct Worker<'a> {
    plan: Plan,
    random: StdRng,
    store: Store,
    handle: Handle,
    teller: Teller,
    /// One collection at a time: while one runs, little is promised to what nobody pinned.
    collecting: &'a Mutex<()>,
    /// Where the store lies.
    folder: &'a Path,
}

impl Worker<'_> {
    fn run(mut self) {
        for _ in 0..self.plan.rounds {
            match self.random.random_range(0..1000) {
                0..180 => self.add(),
                180..260 => self.fetch(),
                260..320 => self.pin_what_is_here(),
                320..360 => self.pin_block(),
                360..540 => self.unpin(),
                540..740 => self.put(Keep::Kept),
                740..860 => self.put(Keep::Cached),
                860..930 => self.delete(),
                930..970 => self.read(),
                970..972 => self.snapshot(),
                972..984 => self.evict(),
                984..996 => self.collect(),
                996..998 => self.scrub(),
                998 => self.verify(),
                _ => self.rebuild(),
            }
        }
    }

    fn tree(&mut self) -> usize {
        self.random.random_range(0..TREES)
    }

    fn blocks(&mut self) -> Vec<usize> {
        let count = self.random.random_range(1..=6);
        let chosen: HashSet<usize> = (0..count)
            .map(|_| self.random.random_range(0..BLOCKS))
            .collect();
        chosen.into_iter().collect()
    }

    fn end(&self, id: u64, result: Result<Outcome, String>) {
        self.teller.tell(&match result {
            Ok(outcome) => Line::Done(id, outcome),
            Err(why) => Line::Failed(id, why),
        });
    }

    fn add(&mut self) {
        let tree = self.tree();
        let id = self.teller.begin(&Work::Add(tree));
        let mut writer: Writer = self.store.writer(Keep::Kept);
        let name = Pinned::Tree(tree).label();
        let imported = self.plan.world.import(tree, &mut writer);
        let added = imported
            .map_err(|error| error.to_string())
            .and_then(|root| {
                let pinned = writer.commit_and_pin(&[root], Some(&name));
                pinned.map_err(|error| error.to_string())
            });
        drop(writer);
        self.end(id, added.map(|()| Outcome::Done));
    }

    fn fetch(&mut self) {
        let tree = self.tree();
        let (root, blocks) = self.plan.world.tree(tree);
        let id = self.teller.begin(&Work::Fetch(tree));
        let name = Some(Pinned::Tree(tree).label());
        let source = Arc::new(blocks);
        let pin = self
            .store
            .pin_add(source, root, PinMode::Recursive, name, |_| {});
        let pinned = self.handle.block_on(pin);
        self.end(id, said(pinned));
    }

    fn pin_what_is_here(&mut self) {
        let tree = self.tree();
        let (root, _) = self.plan.world.tree(tree);
        let id = self.teller.begin(&Work::Pin(tree));
        let name = Some(Pinned::Tree(tree).label());
        let source = self.store.clone();
        let pin = self
            .store
            .pin_add(source, root, PinMode::Recursive, name, |_| {});
        let pinned = self.handle.block_on(pin);
        self.end(id, said(pinned));
    }

    fn pin_block(&mut self) {
        let number = self.random.random_range(0..PIECES);
        let block = self.plan.world.block(number);
        let cid = *block.cid();
        let id = self.teller.begin(&Work::Direct(number));
        let name = Some(Pinned::Block(number).label());
        let source = Arc::new(std::collections::HashMap::from([(cid, block)]));
        let pin = self
            .store
            .pin_add(source, cid, PinMode::Direct, name, |_| {});
        let pinned = self.handle.block_on(pin);
        self.end(id, said(pinned));
    }

    /// Unpins what is pinned; now and then what may be not.
    fn unpin(&mut self) {
        let pins = self.store.pins();
        let known = pins.choose(&mut self.random).filter(|_| {
            // Others unpin the same; that is as it should be.
            self.plan.run.is_multiple_of(2) || pins.len() > 40
        });
        let (pinned, cid) = match known {
            Some(pin) => {
                let name = pin.name.as_deref().unwrap_or_default();
                let pinned: Pinned = name.parse().expect("a name of ours");
                (pinned, pin.cid)
            }
            None => {
                let tree = self.tree();
                (Pinned::Tree(tree), self.plan.world.tree(tree).0)
            }
        };
        let id = self.teller.begin(&Work::Unpin(pinned));
        let unpinned = self.handle.block_on(self.store.pin_remove(&cid, None));
        self.end(id, said(unpinned));
    }

    fn put(&mut self, keep: Keep) {
        let numbers = self.blocks();
        let blocks = numbers
            .iter()
            .map(|number| self.plan.world.block(*number))
            .collect();
        let id = self.teller.begin(&match keep {
            Keep::Kept => Work::Put(numbers),
            Keep::Cached => Work::Cache(numbers),
        });
        let put = self.handle.block_on(self.store.put(blocks, keep));
        let put = put.map_err(|error| error.to_string());
        self.end(id, put.map(|()| Outcome::Done));
    }

    /// Deletes as `block rm` does: what no pin reaches at a moment, if it is still that moment.
    fn delete(&mut self) {
        let numbers = self.blocks();
        let id = self.teller.begin(&Work::Delete(numbers.clone()));
        let version = self.store.pins_version();
        let mut reached = HashSet::new();
        for pin in self.store.pins() {
            let name = pin.name.unwrap_or_default();
            match name.parse().expect("a name of ours") {
                Pinned::Tree(tree) => {
                    reached.extend(self.plan.world.files(tree).into_iter().flatten());
                }
                Pinned::Block(block) => drop(reached.insert(block)),
            }
        }
        let mut deleted = Vec::new();
        for number in numbers {
            if reached.contains(&number) {
                continue;
            }
            let cid = *self.plan.world.block(number).cid();
            let gone = self.store.delete_unpinned(vec![cid], version);
            match self.handle.block_on(gone) {
                Ok(Some(gone)) if gone.is_empty() => {}
                Ok(Some(_)) => deleted.push(number),
                // The pins have changed: whoever wants the rest deleted asks again.
                Ok(None) => break,
                Err(error) => {
                    self.end(id, Err(error.to_string()));
                    return;
                }
            }
        }
        self.end(id, Ok(Outcome::Deleted(deleted)));
    }

    fn read(&mut self) {
        let number = self.random.random_range(0..BLOCKS);
        let block = self.plan.world.block(number);
        let id = self.teller.begin(&Work::Read(number));
        let read = self.handle.block_on(self.store.block(block.cid()));
        let outcome = match read {
            Ok(None) => Ok(Outcome::Absent),
            Ok(Some(found)) if found == block => Ok(Outcome::Present),
            Ok(Some(_)) => Err("other bytes than were put".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        self.end(id, outcome);
    }

    fn collect(&mut self) {
        let Ok(_alone) = self.collecting.try_lock() else {
            return;
        };
        let id = self.teller.begin(&Work::Collect);
        let mut names = Names {
            id,
            teller: self.teller.clone(),
            waiting: Vec::new(),
        };
        let collected = self
            .handle
            .block_on(self.store.gc(move |event| match event {
                GcEvent::Removed(cid) => names.add(name_of(&cid)),
                GcEvent::Marked { .. } | GcEvent::Compacting { .. } => {}
            }));
        let collected = collected.map_err(|error| error.to_string());
        self.end(id, collected.map(|_| Outcome::Done));
    }

    fn evict(&mut self) {
        let id = self.teller.begin(&Work::Evict);
        let evicted = self.handle.block_on(self.store.evict());
        let evicted = evicted.map_err(|error| error.to_string());
        self.end(id, evicted.map(|_| Outcome::Done));
    }

    fn rebuild(&mut self) {
        let id = self.teller.begin(&Work::Rebuild);
        let teller = self.teller.clone();
        let rebuilt = self.handle.block_on(self.store.rebuild_index(move |event| {
            if let OpenEvent::Notice(text) = event {
                teller.tell(&Line::Notice(text));
            }
        }));
        let rebuilt = rebuilt.map_err(|error| error.to_string());
        self.end(id, rebuilt.map(|()| Outcome::Done));
    }

    fn snapshot(&mut self) {
        let number = self.random.random();
        let folder = snapshot_of(self.folder, number);
        let id = self.teller.begin(&Work::Snapshot(number));
        let made = self
            .handle
            .block_on(self.store.snapshot(folder, |_| Ok(Vec::new())));
        let made = match made {
            Ok(made) if made.notices.is_empty() => Ok(Outcome::Done),
            Ok(made) => Err(made.notices.join("; ")),
            Err(error) => Err(error.to_string()),
        };
        self.end(id, made);
    }

    fn scrub(&mut self) {
        let bytes = self.random.random_range(1..SCRUB_BYTES_MAX);
        let id = self.teller.begin(&Work::Scrub);
        let teller = self.teller.clone();
        let scrubbed = self.handle.block_on(self.store.scrub(bytes, move |bad| {
            teller.tell(&Line::Wrong(format!("scrub: {:?}: {}", bad.cid, bad.why)));
        }));
        let scrubbed = scrubbed.map_err(|error| error.to_string());
        self.end(id, scrubbed.map(|_| Outcome::Done));
    }

    fn verify(&mut self) {
        let id = self.teller.begin(&Work::Verify);
        let teller = self.teller.clone();
        let verified = self.handle.block_on(self.store.verify(
            |_| {},
            move |bad| teller.tell(&Line::Wrong(format!("verify: {:?}: {}", bad.cid, bad.why))),
        ));
        let verified = verified.map_err(|error| error.to_string());
        self.end(id, verified.map(|_| Outcome::Done));
    }
}

/// What a collection removed, told some at a time, the last when it is over.
struct Names {
    id: u64,
    teller: Teller,
    waiting: Vec<u64>,
}

impl Names {
    fn add(&mut self, name: u64) {
        self.waiting.push(name);
        if self.waiting.len() == NAMES_A_LINE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let names = std::mem::take(&mut self.waiting);
        self.teller.tell(&Line::Gone(self.id, names));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            self.tell();
        }
    }
}

fn said(result: Result<(), PinError>) -> Result<Outcome, String> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(PinError::Read(ReadError::NotFound(_)) | PinError::Absent(_)) => Ok(Outcome::Missing),
        Err(PinError::NotPinned) => Ok(Outcome::NotPinned),
        Err(error) => Err(error.to_string()),
    }
}

/// Less than what the world has to cache, so that there is always something to evict.
const CACHE_MAX: ByteSize = ByteSize(512 << 10);
const SCRUB_BYTES_MAX: u64 = 1 << 20;
/// So that a line of them is far below what a pipe takes in one piece.
const NAMES_A_LINE: usize = 100;
