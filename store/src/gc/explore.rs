//! Collections against everything else that a store does, in many orders.
//!
//! The whole store runs on a disk in memory, with an explorer's locks ([`crate::sync`]): at every lock
//! that is taken or given back, the explorer says which thread goes on. A seed decides what the store
//! holds, what its threads do and in which order they get on: for even seeds any order at random, for odd
//! ones by priorities that change at a few moments (probabilistic concurrency testing), which finds what
//! needs one thread to stand still for long.
//!
//! One thread collects, evicts and rebuilds the index; the others add, fetch, pin, unpin, delete, let the file
//! tree be another, and look after every step at what they were promised: all that a pin of theirs or the file
//! tree reaches, or that they hold, is there and can be read. When all are done the pins are whole, the counts are right, the same is true after a power cut,
//! and one more collection leaves just what pins and the file tree reach.
//!
//! `CAIRN_SEEDS` says how many seeds are run, `CAIRN_FIRST_SEED` with which to begin.

use crate::block::{Block, Prefix};
use crate::cid::{self, Cid, HashKind, Version};
use crate::config::{ByteSize, Config, Reserve};
use crate::dag::pb::{self, PbLink, PbNode};
use crate::disk::simulated::SimulatedDisk;
use crate::gc::GcEvent;
use crate::index::Image;
use crate::pin::{PinError, PinMode, PinWish};
use crate::simulation::seeds;
use crate::sink::BlockSink;
use crate::source::BlockSource;
use crate::store::{Ground, Keep, Store, Writer};
use crate::sync::explored::exploring;
use crate::unixfs::read::ReadError;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// All blocks there are: leaves, folders over leaves that overlap, roots over folders that overlap.
#[derive(Debug)]
struct Universe {
    blocks: HashMap<Cid, Block>,
    /// Every root's blocks, the lowest first; the root comes last.
    trees: Vec<Vec<Block>>,
}

impl Universe {
    fn new() -> Self {
        let raw = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        let leaf = |number: usize| {
            let mut bytes = vec![0; [0, 40, 900, 1500][number % 4]];
            StdRng::seed_from_u64(number as u64).fill_bytes(&mut bytes);
            bytes.extend_from_slice(&number.to_le_bytes());
            Block::new(raw, Bytes::from(bytes)).unwrap()
        };
        let node = |number: usize, below: &[&Block]| {
            let links = below.iter().map(|block| PbLink {
                cid: *block.cid(),
                name: Some(String::new()),
                tsize: Some(1),
            });
            let node = PbNode {
                links: links.collect(),
                data: Some(Bytes::from(number.to_string())),
            };
            let prefix = Prefix {
                codec: cid::DAG_PB,
                ..raw
            };
            Block::new(prefix, pb::encode(&node)).unwrap()
        };
        let leaves: Vec<Block> = (0..LEAVES).map(leaf).collect();
        let below = |folder: usize| [&leaves[folder % LEAVES], &leaves[(folder + 1) % LEAVES]];
        let folders: Vec<Block> = (0..FOLDERS).map(|at| node(at, &below(at))).collect();
        let tree = |root: usize| {
            let (one, other) = (root % FOLDERS, (root + 1) % FOLDERS);
            let top = node(100 + root, &[&folders[one], &folders[other]]);
            let mut tree: Vec<Block> = Vec::new();
            for leaf in below(one).into_iter().chain(below(other)) {
                if !tree.contains(leaf) {
                    tree.push(leaf.clone());
                }
            }
            tree.extend([folders[one].clone(), folders[other].clone(), top]);
            tree
        };
        let trees: Vec<Vec<Block>> = (0..ROOTS).map(tree).collect();
        let all = trees.iter().flatten();
        Self {
            blocks: all.map(|block| (*block.cid(), block.clone())).collect(),
            trees,
        }
    }

    fn root(&self, tree: usize) -> Cid {
        *self.trees[tree].last().unwrap().cid()
    }

    /// What a pin on this tree's root reaches.
    fn reached(&self, tree: usize, mode: PinMode) -> &[Block] {
        let all = &self.trees[tree];
        match mode {
            PinMode::Recursive => all,
            PinMode::Direct => &all[all.len() - 1..],
        }
    }
}

/// How a tree lies there before the threads start.
#[derive(Debug, Clone, Copy)]
enum Before {
    Absent,
    Garbage,
    Cached,
    Pinned(PinMode),
}

/// What a thread does with one of its trees.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An add: block by block or all at once, and perhaps a pin with the last commit.
    Add {
        at_once: usize,
        pinned: bool,
    },
    /// Blocks come from peers, and nobody asks to keep them.
    Fetch {
        at_once: usize,
    },
    /// A pin of what is here, garbage perhaps.
    PinHere(PinMode),
    /// A pin of what peers send.
    PinFetched,
    Unpin,
    /// The file tree becomes another: of what is added now, or of what is here, garbage perhaps.
    Root {
        added: bool,
    },
    /// Whatever no pin reaches, by name.
    Delete,
    /// The memory table goes into the index.
    Checkpoint,
    Collect,
    Evict,
    /// The index is made anew.
    Rebuild,
}

/// What a seed stands for.
#[derive(Debug)]
struct Plan {
    before: Vec<Before>,
    /// Whether the index below the memory table knows what lies there before.
    merged: bool,
    segment_size: u64,
    /// Every thread's steps with the tree that each is about; nobody else changes that tree's pin.
    threads: Vec<Vec<(Step, usize)>>,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let before = (0..ROOTS).map(|_| {
            *[
                Before::Absent,
                Before::Garbage,
                Before::Garbage,
                Before::Cached,
                Before::Pinned(PinMode::Recursive),
                Before::Pinned(PinMode::Direct),
            ]
            .choose(&mut random)
            .unwrap()
        });
        let before = before.collect();
        let collector = (0..random.random_range(1..4)).map(|_| {
            let steps = [
                Step::Collect,
                Step::Collect,
                Step::Evict,
                Step::Rebuild,
                Step::Checkpoint,
            ];
            (*steps.choose(&mut random).unwrap(), 0)
        });
        let mut threads: Vec<Vec<(Step, usize)>> = vec![collector.collect()];
        for worker in 0..random.random_range(1..=WORKERS) {
            let own = worker * ROOTS / WORKERS..(worker + 1) * ROOTS / WORKERS;
            let steps = (0..random.random_range(1..4)).map(|_| {
                let at_once = random.random_range(1..6);
                // Only one of them changes the file tree.
                let steps = if worker == 0 { 20 } else { 16 };
                let step = match random.random_range(0..steps) {
                    0..=3 => Step::Add {
                        at_once,
                        pinned: random.random_bool(0.7),
                    },
                    4 | 5 => Step::Fetch { at_once },
                    6..=8 => Step::PinHere(PinMode::Recursive),
                    9 => Step::PinHere(PinMode::Direct),
                    10 | 11 => Step::PinFetched,
                    12 | 13 => Step::Unpin,
                    14 => Step::Delete,
                    15 => Step::Checkpoint,
                    _ => Step::Root {
                        added: random.random_bool(0.5),
                    },
                };
                (step, random.random_range(own.clone()))
            });
            threads.push(steps.collect());
        }
        Self {
            before,
            merged: random.random_bool(0.5),
            segment_size: *[4 << 10, 16 << 10].choose(&mut random).unwrap(),
            threads,
        }
    }
}

/// Pins by tree.
type Pins = BTreeMap<usize, PinMode>;

/// One thread and what it was promised.
struct Worker {
    universe: Arc<Universe>,
    store: Store,
    pins: Pins,
    /// The tree that it made the file tree.
    files: Option<usize>,
    told: bool,
}

impl Worker {
    fn run(mut self, steps: &[(Step, usize)]) -> (Pins, Option<usize>) {
        for (step, tree) in steps {
            self.tell(&(step, tree));
            self.step(*step, *tree);
            for (tree, mode) in &self.pins {
                self.look(self.universe.reached(*tree, *mode), "pinned");
            }
            if let Some(tree) = self.files {
                self.look(&self.universe.trees[tree], "in the file tree");
            }
        }
        (self.pins, self.files)
    }

    /// Tells what happens when one seed is replayed.
    fn tell(&self, what: &dyn std::fmt::Debug) {
        if self.told {
            println!("{:?} {what:?}", shuttle::current::me());
        }
    }

    fn step(&mut self, step: Step, tree: usize) {
        let root = self.universe.root(tree);
        match step {
            Step::Add { at_once, pinned } => {
                let mut writer = self.put(tree, Keep::Kept, at_once);
                writer.commit().unwrap();
                self.look(&self.universe.trees[tree], "committed and held");
                if pinned {
                    writer.commit_and_pin(&[root], None).unwrap();
                    self.pins.insert(tree, PinMode::Recursive);
                }
            }
            Step::Fetch { at_once } => drop(self.put(tree, Keep::Cached, at_once)),
            Step::PinHere(mode) => {
                let source = self.store.clone();
                let pinned = block_on(self.store.pin_add(source, root, mode, None, |_| {}));
                let before = self.pins.get(&tree).copied();
                match (pinned, before) {
                    (Ok(()), _) => drop(self.pins.insert(tree, mode)),
                    (Err(PinError::OtherMode { .. }), Some(PinMode::Recursive)) => {}
                    (Err(PinError::Read(ReadError::NotFound(_)) | PinError::Absent(_)), None) => {}
                    (Err(PinError::Absent(_)), Some(PinMode::Direct)) => {}
                    // A direct pin says nothing of what lies below.
                    (Err(PinError::Read(ReadError::NotFound(gone))), Some(PinMode::Direct)) => {
                        assert_ne!(gone, root, "pinned, and gone");
                    }
                    (Err(error), _) => panic!("pinning what is here: {error}"),
                }
            }
            Step::PinFetched => {
                let peers: HashMap<Cid, Block> = self.universe.blocks.clone();
                let recursive = PinMode::Recursive;
                let pin = self
                    .store
                    .pin_add(Arc::new(peers), root, recursive, None, |_| {});
                block_on(pin).unwrap();
                self.pins.insert(tree, recursive);
            }
            Step::Unpin => {
                let was = self.pins.remove(&tree);
                let unpinned = block_on(self.store.pin_remove(&root, None));
                assert_eq!(unpinned.is_ok(), was.is_some(), "{unpinned:?}");
            }
            Step::Root { added } => {
                let writer = added.then(|| self.put(tree, Keep::Kept, 4));
                let wish = PinWish::new(root, PinMode::Recursive);
                let fetch = self.store.pin_fetch(self.store.clone(), &wish, |_| {});
                match block_on(fetch) {
                    Ok(whole) => {
                        block_on(self.store.set_files_root(root, whole)).unwrap();
                        self.files = Some(tree);
                    }
                    Err(PinError::Read(ReadError::NotFound(_)) | PinError::Absent(_)) if !added => {
                        assert_ne!(self.files, Some(tree), "in the file tree, and gone");
                    }
                    Err(error) => panic!("a root of what is here: {error}"),
                }
                drop(writer);
            }
            Step::Delete => self.delete(tree),
            Step::Checkpoint => self.store.inner.checkpoint().unwrap(),
            Step::Collect => drop(block_on(self.store.gc(self.teller())).unwrap()),
            Step::Evict => drop(block_on(self.store.evict()).unwrap()),
            Step::Rebuild => block_on(self.store.rebuild_index(|_| {})).unwrap(),
        }
    }

    fn teller(&self) -> impl FnMut(GcEvent) + Send + 'static {
        let told = self.told;
        move |event| {
            if told {
                println!("{:?} {event:?}", shuttle::current::me());
            }
        }
    }

    fn put(&self, tree: usize, keep: Keep, at_once: usize) -> Writer {
        let mut writer = self.store.writer(keep);
        let tree = &self.universe.trees[tree];
        let mut put = 0;
        for blocks in tree.chunks(at_once) {
            writer.put(blocks.to_vec()).unwrap();
            put += blocks.len();
            self.look(&tree[..put], "held");
        }
        writer
    }

    /// Deletes those of a tree's blocks that no pin reaches.
    fn delete(&self, tree: usize) {
        let version = self.store.pins_version();
        let pins = self.store.pins();
        let files = self
            .store
            .files_root()
            .map(|root| (root, PinMode::Recursive));
        let pins = pins.iter().map(|pin| (pin.cid, pin.mode));
        let pinned = reached(&self.universe, pins.chain(files));
        let all = self.universe.trees[tree].iter().map(|block| *block.cid());
        let free = all.filter(|cid| !pinned.contains(cid)).collect();
        block_on(self.store.delete_unpinned(free, version)).unwrap();
    }

    fn look(&self, blocks: &[Block], why: &str) {
        for block in blocks {
            let found = block_on(self.store.block(block.cid()));
            let found = found.unwrap_or_else(|error| panic!("{why}, and unreadable: {error}"));
            assert!(found.is_some(), "{why}, and gone: {}", block.cid());
            assert_eq!(found.as_ref(), Some(block), "{why}, and another");
        }
    }
}

/// What pins reach.
fn reached(universe: &Universe, pins: impl Iterator<Item = (Cid, PinMode)>) -> BTreeSet<Cid> {
    let blocks = pins.flat_map(|(root, mode)| {
        let tree = (0..ROOTS)
            .find(|tree| universe.root(*tree) == root)
            .unwrap();
        universe.reached(tree, mode)
    });
    blocks.map(|block| *block.cid()).collect()
}

fn open(disk: &SimulatedDisk, image: &Arc<Image>, plan: &Plan) -> Store {
    let config = Config {
        segment_size: ByteSize(plan.segment_size),
        cache_max: ByteSize(2 << 10),
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let ground = Ground::simulated(disk, image);
    Store::open_on(ground, &config, &mut |_| {}).unwrap()
}

/// Lets a plan's threads run, in the order that the explorer chooses, and looks at what is left.
fn run(universe: &Arc<Universe>, plan: &Plan, seed: u64) {
    let disk = SimulatedDisk::default();
    let image = Arc::new(Image::with_secret([7; 32]));
    let store = open(&disk, &image, plan);
    let mut pins = Pins::new();
    for (tree, before) in plan.before.iter().enumerate() {
        let blocks = universe.trees[tree].clone();
        match before {
            Before::Absent => {}
            Before::Garbage => block_on(store.put(blocks, Keep::Kept)).unwrap(),
            Before::Cached => block_on(store.put(blocks, Keep::Cached)).unwrap(),
            Before::Pinned(mode) => {
                block_on(store.put(blocks, Keep::Kept)).unwrap();
                let pin = store.pin_add(store.clone(), universe.root(tree), *mode, None, |_| {});
                block_on(pin).unwrap();
                pins.insert(tree, *mode);
            }
        }
    }
    if plan.merged {
        store.inner.checkpoint().unwrap();
    }
    let workers = plan.threads.iter().enumerate().map(|(thread, steps)| {
        let owns = |tree: &usize| steps.iter().any(|(_, about)| about == tree);
        let own = pins.extract_if(.., |tree, _| thread != COLLECTOR && owns(tree));
        let worker = Worker {
            universe: universe.clone(),
            store: store.clone(),
            pins: own.collect(),
            files: None,
            told: seeds(SEEDS).count() == 1,
        };
        let steps = steps.clone();
        shuttle::thread::spawn(move || worker.run(&steps))
    });
    let workers: Vec<_> = workers.collect();
    let mut files = None;
    for worker in workers {
        let (its, root) = worker.join().unwrap();
        pins.extend(its);
        files = files.or(root);
    }
    check(universe, &store, &pins, files);
    drop(store);
    let after = disk.after_power_cut(&mut StdRng::seed_from_u64(seed));
    let store = open(&after, &Arc::new(image.copied()), plan);
    check(universe, &store, &pins, files);
    block_on(store.gc(|_| {})).unwrap();
    let left = check(universe, &store, &pins, files);
    let root = files.map(|tree| (tree, PinMode::Recursive));
    let named = pins.into_iter().chain(root);
    let named = named.map(|(tree, mode)| (universe.root(tree), mode));
    assert_eq!(left, reached(universe, named), "what a collection leaves");
}

/// Compares the store with what must be there; answers what is.
fn check(universe: &Universe, store: &Store, pins: &Pins, files: Option<usize>) -> BTreeSet<Cid> {
    let mut present = BTreeSet::new();
    let mut bytes = 0;
    for (cid, block) in &universe.blocks {
        if let Some(found) = block_on(store.block(cid)).unwrap() {
            assert_eq!(found, *block);
            present.insert(*cid);
            bytes += block.data().len() as u64;
        }
    }
    let named: BTreeSet<_> = pins
        .iter()
        .map(|(tree, mode)| (universe.root(*tree), *mode))
        .collect();
    let found: BTreeSet<_> = store.pins().iter().map(|pin| (pin.cid, pin.mode)).collect();
    assert_eq!(found, named, "pins");
    let root = files.map(|tree| universe.root(tree));
    assert_eq!(store.files_root(), root, "the file tree's root");
    let root = root.map(|root| (root, PinMode::Recursive));
    let reached = reached(universe, named.into_iter().chain(root));
    let lost: Vec<_> = reached.difference(&present).collect();
    assert!(
        lost.is_empty(),
        "pinned or in the file tree, and gone: {lost:?}"
    );
    let stat = store.stat();
    assert_eq!(
        (stat.blocks, stat.bytes),
        (present.len() as u64, bytes),
        "counts"
    );
    present
}

fn explore(universe: &Arc<Universe>, seed: u64) -> usize {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK;
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    let plan = Plan::new(seed);
    let universe = universe.clone();
    let work = move || run(&universe, &plan, seed);
    exploring(|| {
        if seed.is_multiple_of(2) {
            let any = RandomScheduler::new_from_seed(seed, SCHEDULES);
            shuttle::Runner::new(any, config).run(work)
        } else {
            let by_priority = PctScheduler::new_from_seed(seed, CHANGES, SCHEDULES);
            shuttle::Runner::new(by_priority, config).run(work)
        }
    })
}

#[test]
fn nothing_that_is_pinned_or_held_is_collected_in_any_order_of_threads() {
    let universe = Arc::new(Universe::new());
    let next = AtomicU64::new(seeds(SEEDS).start);
    let schedules = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds(SEEDS).contains(&seed) {
                        return;
                    }
                    if seeds(SEEDS).count() == 1 {
                        println!("{:?}", Plan::new(seed));
                    }
                    let explored = std::panic::catch_unwind(|| explore(&universe, seed));
                    match explored {
                        Ok(some) => drop(schedules.fetch_add(some, Ordering::Relaxed)),
                        Err(panic) => {
                            println!("replay with CAIRN_FIRST_SEED={seed} CAIRN_SEEDS=1");
                            next.store(seeds(SEEDS).end, Ordering::Relaxed);
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    let seeds = seeds(SEEDS).end - seeds(SEEDS).start;
    println!("{seeds} seeds, {} schedules", schedules.into_inner());
}

/// Seeds in every run of the tests.
const SEEDS: u64 = 500;
/// Orders tried for each of them.
const SCHEDULES: usize = 4;
/// Most changes of priority in one order, and one.
const CHANGES: usize = 4;
/// Bytes of a thread's stack.
const STACK: usize = 1 << 20;
const LEAVES: usize = 8;
const FOLDERS: usize = 8;
const ROOTS: usize = 6;
const WORKERS: usize = 3;
/// The thread whose steps are about no tree.
const COLLECTOR: usize = 0;
