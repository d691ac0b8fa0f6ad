//! The whole store against a map: after every step both hold the same.
//!
//! Steps are drawn at random and shrink when something differs, so that a failure names few of them. What
//! the store may decide by itself (which cached blocks go, which of them a crash takes) the model takes
//! over from what is there, once it has seen that nothing went which had to stay. A crash here is the end of
//! the program without a word; sled's folder is then as it was, gone, an older one, or holds what a kill
//! in the middle of a snapshot leaves.
//!
//! `PROPTEST_CASES` says four times how many sequences are run, `PROPTEST_RNG_SEED` which.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Durability, Reserve};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::gc::{GcError, GcEvent};
use cairn_store::pin::{PinError, PinMode};
use cairn_store::store::Keep;
use cairn_store::{BlockSource, Store};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

const RAW: Prefix = Prefix {
    version: Version::V1,
    codec: cid::RAW,
    hash: HashKind::Sha2_256,
};

/// The blocks there may be: leaves, nodes over leaves, roots over nodes, by number.
static BLOCKS: LazyLock<Vec<Block>> = LazyLock::new(|| {
    let mut blocks: Vec<Block> = Vec::new();
    for number in 0..LEAVES {
        let length = [0, 1, 200, 900, 1500, 5000][number % 6];
        let mut bytes = vec![7; length];
        bytes.extend_from_slice(&number.to_le_bytes());
        blocks.push(Block::new(RAW, Bytes::from(bytes)).unwrap());
    }
    for number in LEAVES..ALL {
        let link = |below: &usize| PbLink {
            cid: *blocks[*below].cid(),
            name: Some(String::new()),
            tsize: Some(1),
        };
        let node = PbNode {
            links: children(number).iter().map(link).collect(),
            data: Some(Bytes::from(number.to_string())),
        };
        let prefix = Prefix {
            codec: cid::DAG_PB,
            ..RAW
        };
        blocks.push(Block::new(prefix, pb::encode(&node)).unwrap());
    }
    blocks
});

/// What a block links to.
fn children(number: usize) -> Vec<usize> {
    match number {
        0..LEAVES => Vec::new(),
        LEAVES..ROOTS => (0..3).map(|at| (number * 2 + at) % LEAVES).collect(),
        _ => vec![LEAVES + number % NODES, LEAVES + (number + 1) % NODES],
    }
}

fn cid(number: usize) -> Cid {
    *BLOCKS[number].cid()
}

fn number(cid: &Cid) -> usize {
    BLOCKS.iter().position(|block| block.cid() == cid).unwrap()
}

/// What a pin on a block reaches.
fn reached(root: usize, mode: PinMode) -> BTreeSet<usize> {
    let mut all = BTreeSet::from([root]);
    if mode == PinMode::Recursive {
        for child in children(root) {
            all.extend(reached(child, mode));
        }
    }
    all
}

/// What is done to the store.
#[derive(Debug, Clone)]
enum Step {
    Put(BTreeSet<usize>, Keep),
    PutAbove(usize, Keep),
    Delete(BTreeSet<usize>),
    Pin(usize, PinMode),
    Unpin(usize),
    Collect,
    Evict,
    Verify,
    Rebuild,
    Reopen,
    Crash(Index),
}

/// How a crash leaves sled's folder.
#[derive(Debug, Clone, Copy)]
enum Index {
    Intact,
    Gone,
    Older,
    /// With a snapshot that was being written: so many bytes of it.
    Generating(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keep = || prop_oneof![2 => Just(Keep::Kept), 1 => Just(Keep::Cached)];
    let mode = prop_oneof![3 => Just(PinMode::Recursive), 1 => Just(PinMode::Direct)];
    let some = || btree_set(0..ALL, 1..5);
    let index = prop_oneof![
        Just(Index::Intact),
        Just(Index::Gone),
        Just(Index::Older),
        (0..200usize).prop_map(Index::Generating),
    ];
    let step = prop_oneof![
        4 => (some(), keep()).prop_map(|(blocks, keep)| Step::Put(blocks, keep)),
        4 => (LEAVES..ALL, keep()).prop_map(|(root, keep)| Step::PutAbove(root, keep)),
        2 => some().prop_map(Step::Delete),
        4 => (0..ALL, mode).prop_map(|(root, mode)| Step::Pin(root, mode)),
        2 => (0..ALL).prop_map(Step::Unpin),
        2 => Just(Step::Collect),
        2 => Just(Step::Evict),
        1 => Just(Step::Verify),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Reopen),
        2 => index.prop_map(Step::Crash),
    ];
    vec(step, 1..STEPS)
}

/// What the model knows of a block that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Put to stay, or reached by a pin.
    Kept,
    /// Came from a peer; may be evicted. What was not committed since may also go in a crash.
    Cached,
}

#[derive(Debug, Default)]
struct Model {
    blocks: BTreeMap<usize, Known>,
    pins: BTreeMap<usize, PinMode>,
}

impl Model {
    fn reached(&self) -> BTreeSet<usize> {
        let all = self.pins.iter().map(|(root, mode)| reached(*root, *mode));
        all.flatten().collect()
    }

    fn has(&self, number: usize) -> bool {
        self.blocks.contains_key(&number)
    }

    fn put(&mut self, numbers: &BTreeSet<usize>, keep: Keep) {
        for number in numbers {
            let known = self.blocks.entry(*number).or_insert(Known::Cached);
            if keep == Keep::Kept {
                *known = Known::Kept;
            }
        }
    }

    fn cached(&self) -> BTreeSet<usize> {
        let cached = self
            .blocks
            .iter()
            .filter(|(_, known)| **known == Known::Cached);
        cached.map(|(number, _)| *number).collect()
    }
}

/// A store, what it should hold, and where it lies.
struct Run {
    folder: tempfile::TempDir,
    config: Config,
    store: Option<Store>,
    model: Model,
}

impl Run {
    fn new(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            durability,
            segment_size: ByteSize(8 << 10),
            cache_max: ByteSize(12 << 10),
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        let store = Some(Store::open(folder.path(), &config, &mut |_| {}).unwrap());
        Self {
            folder,
            config,
            store,
            model: Model::default(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Does one step to both and compares them.
    async fn step(&mut self, step: &Step) {
        // What may have gone by itself.
        let mut doubted = BTreeSet::new();
        match step {
            Step::Put(numbers, keep) => self.put(numbers.clone(), *keep).await,
            Step::PutAbove(root, keep) => {
                self.put(reached(*root, PinMode::Recursive), *keep).await;
            }
            Step::Delete(numbers) => {
                let cids = numbers.iter().map(|number| cid(*number)).collect();
                let deleted = self.store().delete(cids).await.unwrap();
                let deleted: Vec<usize> = deleted.iter().map(number).collect();
                let here = numbers.iter().filter(|number| self.model.has(**number));
                assert_eq!(deleted, here.copied().collect::<Vec<_>>());
                self.model
                    .blocks
                    .retain(|number, _| !numbers.contains(number));
            }
            Step::Pin(root, mode) => self.pin(*root, *mode).await,
            Step::Unpin(root) => {
                let unpinned = self.store().pin_remove(&cid(*root), None).await;
                match self.model.pins.remove(root) {
                    Some(_) => unpinned.unwrap(),
                    None => assert!(matches!(unpinned, Err(PinError::NotPinned))),
                }
            }
            Step::Collect => self.collect().await,
            Step::Evict => doubted = self.evict().await,
            Step::Verify => {
                let bad = Arc::new(Mutex::new(Vec::new()));
                let into = bad.clone();
                let verified = self
                    .store()
                    .verify(|_| {}, move |found| into.lock().unwrap().push(found))
                    .await;
                // Deleted ones that still lie there are hashed too.
                assert!(verified.unwrap() >= self.model.blocks.len() as u64);
                assert_eq!(*bad.lock().unwrap(), []);
            }
            Step::Rebuild => self.store().rebuild_index(|_| {}).await.unwrap(),
            Step::Reopen => {
                self.store().close().await.unwrap();
                self.store = None;
                self.remember_index();
                self.open();
            }
            Step::Crash(index) => {
                self.store = None;
                self.leave_index(*index);
                self.open();
                doubted = self.model.cached();
            }
        }
        self.compare(&doubted).await;
    }

    fn open(&mut self) {
        let opened = Store::open(self.folder.path(), &self.config, &mut |_| {});
        self.store = Some(opened.unwrap());
    }

    async fn put(&mut self, numbers: BTreeSet<usize>, keep: Keep) {
        let blocks = numbers.iter().map(|number| BLOCKS[*number].clone());
        self.store().put(blocks.collect(), keep).await.unwrap();
        self.model.put(&numbers, keep);
    }

    async fn pin(&mut self, root: usize, mode: PinMode) {
        let store = self.store();
        let pinned = store
            .pin_add(store.clone(), cid(root), mode, None, |_| {})
            .await;
        let needed = reached(root, mode);
        let whole = needed.iter().all(|number| self.model.has(*number));
        match (self.model.pins.get(&root), mode) {
            (Some(PinMode::Recursive), PinMode::Direct) => {
                assert!(matches!(pinned, Err(PinError::OtherMode { .. })));
            }
            // As it was; nobody looks whether it is whole.
            (Some(old), _) if *old == mode => pinned.unwrap(),
            _ if whole => {
                pinned.unwrap();
                self.model.put(&needed, Keep::Kept);
                self.model.pins.insert(root, mode);
            }
            _ => assert!(
                matches!(pinned, Err(PinError::Read(_) | PinError::Absent(_))),
                "{pinned:?}"
            ),
        }
    }

    async fn collect(&mut self) {
        let removed = Arc::new(Mutex::new(BTreeSet::new()));
        let into = removed.clone();
        let collected = self
            .store()
            .gc(move |event| {
                if let GcEvent::Removed(cid) = event {
                    into.lock().unwrap().insert(number(&cid));
                }
            })
            .await;
        let reached = self.model.reached();
        if !reached.iter().all(|number| self.model.has(*number)) {
            assert!(
                matches!(collected, Err(GcError::Unreadable { .. })),
                "{collected:?}"
            );
            return;
        }
        let mut garbage = BTreeMap::new();
        for (number, known) in std::mem::take(&mut self.model.blocks) {
            if reached.contains(&number) {
                self.model.blocks.insert(number, known);
            } else {
                garbage.insert(number, BLOCKS[number].data().len() as u64);
            }
        }
        let report = collected.unwrap();
        assert!(removed.lock().unwrap().iter().eq(garbage.keys()));
        let counted = (report.blocks, report.bytes);
        assert_eq!(counted, (garbage.len() as u64, garbage.values().sum()));
    }

    /// Evicts; answers which blocks may have gone.
    async fn evict(&mut self) -> BTreeSet<usize> {
        let before = self.store().stat();
        let evicted = self.store().evict().await.unwrap();
        let after = self.store().stat();
        assert_eq!(evicted.blocks, before.blocks - after.blocks);
        if before.cache_bytes <= self.config.cache_max.0 {
            assert_eq!(after, before, "there was room");
        }
        self.model.cached()
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    fn older(&self) -> PathBuf {
        self.folder.path().join("older")
    }

    /// Keeps a copy of sled's folder for a later crash.
    fn remember_index(&self) {
        let _ = fs::remove_dir_all(self.older()); // There need not be one.
        copy(&self.index(), &self.older());
    }

    fn leave_index(&self, how: Index) {
        match how {
            Index::Intact => self.remember_index(),
            Index::Gone => fs::remove_dir_all(self.index()).unwrap(),
            Index::Older if self.older().exists() => {
                fs::remove_dir_all(self.index()).unwrap();
                copy(&self.older(), &self.index());
            }
            Index::Older => {}
            Index::Generating(length) => {
                let name = "snap.00000000FFFFFFFF.generating";
                fs::write(self.index().join(name), vec![0x5a; length]).unwrap();
            }
        }
    }

    /// Compares all that the store tells of itself with the model.
    async fn compare(&mut self, doubted: &BTreeSet<usize>) {
        let listed = Arc::new(Mutex::new(Vec::new()));
        let into = listed.clone();
        let store = self.store().clone();
        let each = move |cid: Cid| {
            into.lock().unwrap().push(number(&cid));
            ControlFlow::Continue(())
        };
        store.list(each).await.unwrap();
        let listed = listed.lock().unwrap().clone();
        let seen: BTreeSet<usize> = listed.iter().copied().collect();
        assert_eq!(seen.len(), listed.len(), "listed twice");
        let gone = |number: &usize| doubted.contains(number) && !seen.contains(number);
        self.model.blocks.retain(|number, _| !gone(number));
        assert!(
            seen.iter().eq(self.model.blocks.keys()),
            "{seen:?}, not {:?}",
            self.model
        );
        let mut bytes = 0;
        for (number, block) in BLOCKS.iter().enumerate() {
            let expected = self.model.has(number).then_some(block);
            let length = expected.map(|block| block.data().len() as u64);
            let cid = block.cid();
            assert_eq!(store.block(cid).await.unwrap().as_ref(), expected);
            assert_eq!(store.size(cid).await.unwrap(), length);
            assert_eq!(store.has(cid).await.unwrap(), expected.is_some());
            bytes += length.unwrap_or(0);
        }
        let pins: BTreeMap<usize, PinMode> = store
            .pins()
            .iter()
            .map(|pin| (number(&pin.cid), pin.mode))
            .collect();
        assert_eq!(pins, self.model.pins);
        let stat = store.stat();
        let counted = (stat.blocks, stat.bytes, stat.pins);
        assert_eq!(counted, (seen.len() as u64, bytes, pins.len() as u64));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_store_holds_what_a_map_would_hold_after_every_step() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // Most of them without waiting for the disk, which is no part of what is compared.
    let durability = prop_oneof![1 => Just(Durability::Full), 9 => Just(Durability::Relaxed)];
    let usual = ProptestConfig::default();
    let config = ProptestConfig {
        // Each makes and syncs files.
        cases: usual.cases.div_ceil(4),
        failure_persistence: None,
        ..usual
    };
    proptest!(config, |(durability in durability, steps in steps())| {
        runtime.block_on(async {
            let mut run = Run::new(durability);
            for step in &steps {
                run.step(step).await;
            }
        });
    });
}

const LEAVES: usize = 10;
const NODES: usize = 4;
/// The number of the first root.
const ROOTS: usize = LEAVES + NODES;
const ALL: usize = ROOTS + 2;
/// Most steps in a sequence, and one.
const STEPS: usize = 25;
