//! The whole store on a simulated disk: random work, power cuts, failing and lying disks, and a model
//! of what must be there afterwards.
//!
//! A seed decides everything. One run does some work, now and then with a fault under way; the power
//! goes, the disk becomes what it may become, the index is as it was, absent, older, or half merged; the
//! store opens again and is compared with the model; then more of the same. What was acknowledged must
//! be there, what was deleted must not, what was under way may be either, but whole. One run in five does not
//! wait for the disk: a power cut may take what was acknowledged since it was last written out, and nothing
//! older, whatever was moved or made anew meanwhile. Some leaves lie in a file of the user's too, which never changes:
//! added in place they are read from there, until they are put as blocks.
//!
//! `CAIRN_SEEDS` says how many seeds are run, `CAIRN_FIRST_SEED` with which to begin.

use crate::block::{Block, Prefix};
use crate::cid::{self, Cid, HashKind, Version};
use crate::config::{ByteSize, Config, Durability, Reserve};
use crate::dag::pb::{self, PbLink, PbNode};
use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::gc::Collection;
use crate::index::Image;
use crate::journal::record::Record;
use crate::sink::{BlockSink, Placed, PutError};
use crate::store::{Ground, Keep, OpenEvent, Store};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

/// What the model knows of a block or a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It must be there.
    There,
    /// It must not be there.
    Absent,
    /// It is visible now, but nobody promised to keep it.
    Visible,
    /// It is not visible now, but nobody promised that it stays away.
    Hidden,
    /// Something was under way.
    Unknown,
}

/// All blocks that a run may touch: leaves, and nodes over some of them.
struct Universe {
    leaves: Vec<Block>,
    nodes: Vec<(Block, Vec<usize>)>,
    /// Where the first [`IN_FILE`] leaves lie one behind the other.
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Universe {
    fn new() -> Self {
        let raw = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        let leaf = |number: usize| {
            let mut random = StdRng::seed_from_u64(number as u64);
            let length = [0, 1, 37, 300, 600, 2000, 5000][number % 7];
            let mut bytes = vec![0; length];
            random.fill_bytes(&mut bytes);
            bytes.extend_from_slice(&number.to_le_bytes());
            Block::new(raw, Bytes::from(bytes)).unwrap()
        };
        let leaves: Vec<Block> = (0..LEAVES).map(leaf).collect();
        let node = |number: usize| {
            let below: Vec<usize> = (0..5).map(|at| (number * 3 + at) % LEAVES).collect();
            let links = below.iter().map(|leaf| PbLink {
                cid: *leaves[*leaf].cid(),
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
            (Block::new(prefix, pb::encode(&node)).unwrap(), below)
        };
        let nodes = (0..NODES).map(node).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let bytes = leaves.iter().take(IN_FILE).flat_map(|leaf| leaf.data());
        std::fs::write(&file, bytes.copied().collect::<Vec<u8>>()).unwrap();
        Self {
            leaves,
            nodes,
            file,
            _folder: folder,
        }
    }

    /// A leaf as it lies in the file.
    fn placed(&self, leaf: usize) -> Placed {
        let before = self.leaves.iter().take(leaf);
        Placed {
            block: self.leaves[leaf].clone(),
            path: self.file.as_path().into(),
            offset: before.map(|leaf| leaf.data().len() as u64).sum(),
        }
    }

    fn block(&self, number: usize) -> &Block {
        self.leaves
            .get(number)
            .unwrap_or_else(|| &self.nodes[number - LEAVES].0)
    }

    /// The numbers of a node and what lies below it.
    fn tree(&self, node: usize) -> Vec<usize> {
        let below = self.nodes[node].1.iter().copied();
        below.chain([LEAVES + node]).collect()
    }
}

/// One run.
struct Run<'a> {
    universe: &'a Universe,
    seed: u64,
    random: StdRng,
    disk: SimulatedDisk,
    image: Arc<Image>,
    /// What the index was some time ago.
    older: Vec<Image>,
    store: Option<Store>,
    blocks: Vec<Known>,
    /// Pins on nodes, by number: recursive.
    pins: Vec<Known>,
    /// From the number that was last acknowledged in the note to the one that was last tried.
    numbers: std::ops::Range<u64>,
    /// Blocks and pins that were changed since everything was last made durable.
    loose: BTreeSet<usize>,
    loose_pins: BTreeSet<usize>,
    /// Pins that may have come through a power cut without all that they reach.
    perhaps_with_holes: BTreeSet<usize>,
    notices: Vec<String>,
    /// Whether one operation may fail now.
    failing: bool,
    /// Whether the disk has ever lied.
    lied: bool,
    config: Config,
    cuts: usize,
    /// Whether to print what happens: when one seed is replayed.
    told: bool,
}

impl<'a> Run<'a> {
    fn new(universe: &'a Universe, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let config = Config {
            segment_size: ByteSize([4 << 10, 16 << 10, 1 << 20][random.random_range(0..3)]),
            cache_max: ByteSize([8 << 10, 32 << 10][random.random_range(0..2)]),
            reserve: Reserve::Bytes(ByteSize(0)),
            durability: match random.random_bool(0.2) {
                true => Durability::Relaxed,
                false => Durability::Full,
            },
            ..Config::default()
        };
        let mut run = Self {
            universe,
            seed,
            random,
            disk: SimulatedDisk::default(),
            image: Arc::new(Image::with_secret([1; 32])),
            older: Vec::new(),
            store: None,
            blocks: vec![Known::Absent; LEAVES + NODES],
            pins: vec![Known::Absent; NODES],
            numbers: 0..0,
            loose: BTreeSet::new(),
            loose_pins: BTreeSet::new(),
            perhaps_with_holes: BTreeSet::new(),
            notices: Vec::new(),
            failing: false,
            lied: false,
            config,
            cuts: 0,
            told: seeds(SEEDS).count() == 1,
        };
        run.open();
        run
    }

    fn open(&mut self) {
        let ground = Ground::simulated(&self.disk, &self.image);
        let notices = &mut self.notices;
        let opened = Store::open_on(ground, &self.config, &mut |event| {
            if let OpenEvent::Notice(text) = event {
                notices.push(text);
            }
        });
        self.store = match opened {
            Ok(store) => Some(store),
            // The power may go again while opening.
            Err(_) if self.disk.is_off() => None,
            // So may one operation fail, and then the next try must do.
            Err(_) if self.failing => None,
            Err(error) => panic!("seed {}: it does not open: {error}", self.seed),
        };
        if self.store.is_none() && self.failing && !self.disk.is_off() {
            self.failing = false;
            self.disk.set_faults(Faults::default());
            self.open();
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>5}  {}", self.disk.operations(), what());
        }
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    /// Some work, then the power goes, and the store opens again.
    fn round(&mut self) {
        self.break_something();
        for _ in 0..self.random.random_range(1..12) {
            self.work();
            if self.disk.is_off() {
                break;
            }
            if self.random.random_bool(0.3) {
                self.older.push(self.image.copied());
            }
        }
        if self.random.random_bool(0.15) && !self.disk.is_off() {
            self.stop();
        }
        if self.random.random_bool(0.2) && !self.disk.is_off() {
            self.check(When::Working);
            return;
        }
        self.cut_power();
        if self.random.random_bool(0.2) {
            // Again, in the middle of recovering.
            let soon = self.random.random_range(0..10);
            self.disk.set_faults(Faults {
                power_off: Some(soon),
                ..Faults::default()
            });
            self.open();
            if self.disk.is_off() {
                self.cut_power();
            }
            self.disk.set_faults(Faults::default());
        }
        self.store = None;
        self.open();
        self.check(When::Opened);
    }

    fn break_something(&mut self) {
        let soon = self.random.random_range(0..60);
        let faults = match self.random.random_range(0..10) {
            0..=4 => Faults {
                power_off: Some(soon),
                ..Faults::default()
            },
            5 => Faults {
                fails: Some((soon, ErrorKind::StorageFull)),
                ..Faults::default()
            },
            6 => Faults {
                fails: Some((soon, ErrorKind::Other)),
                ..Faults::default()
            },
            // Rarely, and then the run promises less for the rest of its time.
            7 if self.random.random_bool(0.3) => {
                self.lied = true;
                Faults {
                    lies: Some(soon),
                    ..Faults::default()
                }
            }
            _ => Faults::default(),
        };
        self.tell(|| format!("{faults:?}"));
        self.failing = faults.fails.is_some();
        self.disk.set_faults(faults);
    }

    /// The store is stopped properly.
    fn stop(&mut self) {
        if let Some(store) = self.store.take() {
            let done = store.inner.close();
            self.tell(|| format!("stopping: {done:?}"));
            self.make_firm(done.is_ok());
        }
        self.tell(|| "stopped".to_owned());
        self.open();
    }

    fn cut_power(&mut self) {
        self.cuts += 1;
        self.store = None;
        self.failing = false;
        self.disk = self.disk.after_power_cut(&mut self.random);
        let kind = self.random.random_range(0..5);
        self.tell(|| format!("power cut; index {kind}, of {}", self.older.len()));
        let image = match kind {
            0 => Image::with_secret(self.random.random()),
            1 if !self.older.is_empty() => {
                let at = self.random.random_range(0..self.older.len());
                self.older[at].copied()
            }
            2 if !self.older.is_empty() => {
                let at = self.random.random_range(0..self.older.len());
                let random = &mut self.random;
                Image::half_merged(&self.older[at], &self.image, || random.random_bool(0.5))
            }
            _ => self.image.copied(),
        };
        self.image = Arc::new(image);
        self.older.clear();
        if self.is_relaxed() {
            for number in std::mem::take(&mut self.loose) {
                self.blocks[number] = Known::Unknown;
            }
            for node in std::mem::take(&mut self.loose_pins) {
                self.pins[node] = Known::Unknown;
                self.perhaps_with_holes.insert(node);
            }
        }
        for known in self.blocks.iter_mut().chain(&mut self.pins) {
            *known = match *known {
                Known::Visible | Known::Hidden => Known::Unknown,
                other => other,
            };
        }
    }

    fn is_relaxed(&self) -> bool {
        self.config.durability == Durability::Relaxed
    }

    /// Everything that was acknowledged has reached the disk now, or an error says that it may not have.
    fn make_firm(&mut self, done: bool) {
        if done {
            self.loose.clear();
            self.loose_pins.clear();
        } else {
            self.doubt_visible();
        }
    }

    /// One piece of work, and what it means for the model.
    fn work(&mut self) {
        match self.random.random_range(0..26) {
            24 | 25 => self.put_in_place(),
            0..=5 => self.put(Keep::Kept),
            6..=8 => self.put(Keep::Cached),
            9..=11 => self.pin(),
            12 | 13 => self.unpin(),
            14 | 15 => self.delete(),
            16 => self.collect(),
            17 => self.evict(),
            18 => {
                let done = self.store().inner.checkpoint();
                self.tell(|| format!("checkpoint: {done:?}"));
                self.make_firm(done.is_ok());
            }
            19 => {
                let done = self.store().inner.rebuild_alone(&mut |_| {});
                self.tell(|| format!("rebuild: {done:?}"));
                if done.is_err() {
                    self.doubt_visible();
                }
            }
            20 => self.verify(),
            21 => {
                // As the background does.
                let done = self.store().inner.commit_to_disk(Vec::new());
                self.tell(|| format!("write out: {done:?}"));
                self.make_firm(done.is_ok());
            }
            22 => self.note(),
            _ => self.read_something(),
        }
    }

    /// Nothing here is ever damaged in a way that the disk's promises allow.
    fn verify(&mut self) {
        let mut bad = Vec::new();
        let done = self.store().inner.verify(&mut |_| {}, |one| bad.push(one));
        self.tell(|| format!("verify: {done:?}, {bad:?}"));
        let may_be = self.lied || self.is_relaxed() || self.disk.is_off();
        assert!(may_be || bad.is_empty(), "seed {}: {bad:?}", self.seed);
    }

    fn some_blocks(&mut self) -> BTreeSet<usize> {
        let count = self.random.random_range(1..8);
        let all = LEAVES + NODES;
        (0..count)
            .map(|_| self.random.random_range(0..all))
            .collect()
    }

    fn put(&mut self, keep: Keep) {
        let numbers = self.some_blocks();
        let blocks = numbers.iter().map(|at| self.universe.block(*at).clone());
        let mut writer = self.store().writer(keep);
        let mut done = writer.put(blocks.collect());
        if keep == Keep::Kept && done.is_ok() {
            done = writer.commit();
        }
        self.tell(|| format!("put {numbers:?} {keep:?}: {done:?}"));
        self.took(numbers, keep, &done);
    }

    fn put_in_place(&mut self) {
        let numbers = self.some_blocks();
        let numbers: BTreeSet<usize> = numbers.into_iter().map(|at| at % IN_FILE).collect();
        let placed = numbers.iter().map(|leaf| self.universe.placed(*leaf));
        let mut writer = self.store().writer(Keep::Kept);
        let mut done = writer.put_placed(placed.collect());
        if done.is_ok() {
            done = writer.commit();
        }
        self.tell(|| format!("put {numbers:?} in place: {done:?}"));
        self.took(numbers, Keep::Kept, &done);
    }

    /// What is on the disk already and is put again stays, whatever takes its place.
    fn loosen(&mut self, numbers: impl IntoIterator<Item = usize>) {
        let there = |number: &usize| self.blocks[*number] == Known::There;
        let loose: Vec<usize> = numbers.into_iter().filter(|one| !there(one)).collect();
        self.loose.extend(loose);
    }

    fn took(&mut self, numbers: BTreeSet<usize>, keep: Keep, done: &Result<(), PutError>) {
        self.loosen(numbers.iter().copied());
        for number in numbers {
            let known = &mut self.blocks[number];
            *known = match (done, keep, *known) {
                (Ok(()), Keep::Kept, _) | (_, _, Known::There) => Known::There,
                (Ok(()), Keep::Cached, _) => Known::Visible,
                (Err(_), ..) => Known::Unknown,
            };
        }
        if done.is_err() {
            self.doubt_visible();
        }
    }

    /// A failed commit gives up what nobody was promised.
    fn doubt_visible(&mut self) {
        for known in &mut self.blocks {
            if *known == Known::Visible {
                *known = Known::Unknown;
            }
        }
    }

    fn pin(&mut self) {
        let node = self.random.random_range(0..NODES);
        let tree = self.universe.tree(node);
        let blocks = tree.iter().map(|at| self.universe.block(*at).clone());
        let root = *self.universe.nodes[node].0.cid();
        let mut writer = self.store().writer(Keep::Kept);
        let put = writer.put(blocks.collect());
        let pinned = put.is_ok() && writer.commit_and_pin(&[root], None).is_ok();
        self.tell(|| format!("pin {node} over {tree:?}: {pinned}"));
        self.loosen(tree.iter().copied());
        self.loose_pins.insert(node);
        if pinned {
            self.pins[node] = Known::There;
            self.perhaps_with_holes.remove(&node);
            for number in tree {
                self.blocks[number] = Known::There;
            }
            return;
        }
        if self.pins[node] != Known::There {
            self.pins[node] = Known::Unknown;
        }
        for number in tree {
            if self.blocks[number] != Known::There {
                self.blocks[number] = Known::Unknown;
            }
        }
        self.doubt_visible();
    }

    fn unpin(&mut self) {
        let node = self.random.random_range(0..NODES);
        let store = self.store();
        let root = self.universe.nodes[node].0.cid();
        let Some(pin) = store.pin(root) else { return };
        let done = store.inner.commit(vec![Record::Unpinned(pin.key())]);
        self.tell(|| format!("unpin {node}: {done:?}"));
        self.loose_pins.insert(node);
        self.pins[node] = if done.is_ok() {
            Known::Absent
        } else {
            self.doubt_visible();
            Known::Unknown
        };
    }

    /// Counts on, in a note.
    fn note(&mut self) {
        self.numbers.end += 1;
        let value = Bytes::copy_from_slice(&self.numbers.end.to_le_bytes());
        let noted = Record::Noted {
            about: 7,
            key: b"number".to_vec(),
            value: Some(value),
        };
        let done = self.store().inner.commit_to_disk(vec![noted]);
        self.tell(|| format!("note {}: {done:?}", self.numbers.end));
        self.make_firm(done.is_ok());
        if done.is_ok() {
            self.numbers.start = self.numbers.end;
        }
    }

    /// The number in the note is one that was acknowledged, or tried since.
    fn check_note(&mut self, store: &Store, when: When) {
        let notes = store.inner.read_notes();
        let note = notes.get(&(7, b"number".to_vec()));
        let number = note.map_or(0, |note| u64::from_le_bytes(note[..].try_into().unwrap()));
        let is_right = (self.numbers.start..=self.numbers.end).contains(&number);
        assert!(
            is_right || self.lied,
            "{number} is noted, not one of {:?}, seed {}",
            self.numbers,
            self.seed
        );
        if when == When::Opened {
            self.numbers.start = number;
        }
    }

    /// Deletes blocks that no pin reaches, as far as anybody knows.
    fn delete(&mut self) {
        let pinned = self.maybe_pinned();
        let numbers: Vec<usize> = self.some_blocks().difference(&pinned).copied().collect();
        let cids: Vec<Cid> = numbers
            .iter()
            .map(|at| *self.universe.block(*at).cid())
            .collect();
        let done = self.store().inner.delete_for_tests(&cids);
        self.tell(|| format!("delete {numbers:?}: {done:?}"));
        self.loose.extend(&numbers);
        if done.is_err() {
            self.doubt_visible();
        }
        for number in numbers {
            self.blocks[number] = if done.is_ok() {
                Known::Absent
            } else {
                Known::Unknown
            };
        }
    }

    fn maybe_pinned(&self) -> BTreeSet<usize> {
        self.pinned(&[Known::There, Known::Unknown, Known::Visible, Known::Hidden])
    }

    /// Blocks below pins of which this is known.
    fn pinned(&self, how: &[Known]) -> BTreeSet<usize> {
        (0..NODES)
            .filter(|node| how.contains(&self.pins[*node]))
            .flat_map(|node| self.universe.tree(node))
            .collect()
    }

    fn collect(&mut self) {
        let done = Collection::new(self.store().inner, |_| {}).run();
        self.tell(|| format!("collect: {done:?}"));
        if done.is_ok() {
            self.make_firm(true);
        }
        let pinned = self.pinned(&[Known::There]);
        let perhaps = self.maybe_pinned();
        for number in 0..self.blocks.len() {
            if pinned.contains(&number) {
                continue;
            }
            let known = &mut self.blocks[number];
            *known = match (*known, &done) {
                (Known::Absent, _) => Known::Absent,
                (_, Ok(_)) if !perhaps.contains(&number) => Known::Hidden,
                _ => Known::Unknown,
            };
        }
        if done.is_err() {
            self.doubt_visible();
        }
    }

    fn evict(&mut self) {
        let done = self.store().inner.evict();
        self.tell(|| format!("evict: {done:?}"));
        self.doubt_visible();
    }

    fn read_something(&mut self) {
        let number = self.random.random_range(0..self.blocks.len());
        let block = self.universe.block(number);
        if let Ok(Some(found)) = self.store().inner.block(block.cid()) {
            assert_eq!(&found, block, "seed {}", self.seed);
        }
    }

    /// Compares the store with the model.
    fn check(&mut self, when: When) {
        let Some(store) = self.store.clone() else {
            return;
        };
        if self.disk.is_off() {
            return;
        }
        let faults_are_over = Faults::default();
        self.disk.set_faults(faults_are_over);
        let mut present = BTreeMap::new();
        for number in 0..self.blocks.len() {
            let block = self.universe.block(number);
            let found = store.inner.block(block.cid());
            let context = || {
                format!(
                    "seed {}, block {number} after {} cuts, notices {:?}",
                    self.seed, self.cuts, self.notices
                )
            };
            match (found, self.blocks[number]) {
                (Ok(Some(found)), known) => {
                    assert_eq!(&found, block, "wrong bytes: {}", context());
                    let wrong = matches!(known, Known::Absent | Known::Hidden);
                    assert!(!wrong || self.lied, "came back: {}", context());
                    // What lies elsewhere counts as what is kept of it.
                    let lies = store.inner.reference_by(block.cid()).unwrap();
                    let kept = lies.and_then(|lies| lies.encode(block.cid()));
                    let kept = kept.as_ref().unwrap_or_else(|| found.data());
                    present.insert(number, kept.len() as u64);
                }
                (Ok(None), known) => {
                    let wrong = matches!(known, Known::There | Known::Visible);
                    assert!(!wrong || self.lied, "lost: {}", context());
                }
                (Err(error), known) => {
                    let torn = self.is_relaxed() && known != Known::There;
                    assert!(self.lied || torn, "{error}: {}", context());
                }
            }
        }
        if !self.lied {
            let stat = store.stat();
            let seen = (present.len() as u64, present.values().sum::<u64>());
            // A section that is torn in its CID counts as nobody's block until it is verified.
            let is_right = (stat.blocks, stat.bytes) == seen
                || self.is_relaxed() && (stat.blocks, stat.bytes) >= seen;
            assert!(is_right, "{stat:?}, not {seen:?}, seed {}", self.seed);
        }
        for node in 0..NODES {
            let root = self.universe.nodes[node].0.cid();
            let pinned = store.pin(root).is_some();
            let known = self.pins[node];
            if !self.lied {
                assert!(
                    known != Known::There || pinned,
                    "pin lost, seed {}",
                    self.seed
                );
                assert!(
                    known != Known::Absent || !pinned,
                    "pin back, seed {}",
                    self.seed
                );
                let tree = self.universe.tree(node);
                let whole = tree.iter().all(|number| present.contains_key(number));
                let may_be = self.perhaps_with_holes.contains(&node);
                assert!(
                    !pinned || whole || may_be,
                    "a pin with a hole, seed {}",
                    self.seed
                );
            }
            self.pins[node] = match (when, pinned) {
                (When::Opened, true) => Known::There,
                (When::Opened, false) => Known::Absent,
                // What failed may yet turn out to have reached the disk.
                (When::Working, _) if known != Known::Unknown => known,
                (When::Working, true) => Known::Visible,
                (When::Working, false) => Known::Hidden,
            };
        }
        self.check_note(&store, when);
        for number in 0..self.blocks.len() {
            let known = &mut self.blocks[number];
            // What stands there after opening was made durable by it, or was before; what is visible
            // while the store runs is still no promise.
            if *known == Known::Unknown || self.lied {
                *known = if present.contains_key(&number) {
                    Known::Visible
                } else {
                    Known::Hidden
                };
            }
        }
        let mut bad = Vec::new();
        store.inner.verify(&mut |_| {}, |found| bad.push(found));
        let may_be = self.lied || self.is_relaxed();
        assert!(may_be || bad.is_empty(), "seed {}: {bad:?}", self.seed);
    }
}

/// When the store is compared with the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Right after it was opened: what stands there now stays.
    Opened,
    /// While it works.
    Working,
}

impl crate::store::Inner {
    fn delete_for_tests(&self, cids: &[Cid]) -> Result<(), PutError> {
        self.delete(cids, None).map(drop)
    }
}

/// The seeds that are run, `usual` of them if nobody says how many.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test runs is the caller's choice"
    )]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("CAIRN_FIRST_SEED").unwrap_or(1);
    first..first + number("CAIRN_SEEDS").unwrap_or(usual)
}

#[test]
fn nothing_acknowledged_is_lost_on_any_disk() {
    let universe = Universe::new();
    let seeds = seeds(SEEDS);
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let cuts = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::Relaxed;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, order);
                    if seed >= seeds.end {
                        return;
                    }
                    let ran = std::panic::catch_unwind(|| {
                        let mut run = Run::new(&universe, seed);
                        for _ in 0..ROUNDS {
                            run.round();
                        }
                        run.cuts
                    });
                    match ran {
                        Ok(some) => drop(cuts.fetch_add(some, order)),
                        Err(panic) => {
                            println!("replay with CAIRN_FIRST_SEED={seed} CAIRN_SEEDS=1");
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    let cuts = cuts.into_inner();
    println!("{} seeds, {cuts} power cuts", seeds.end - seeds.start);
    assert!(cuts > 0, "nothing was tried");
}

/// Seeds in every run of the tests.
const SEEDS: u64 = 1_000;
/// Rounds of work in a run, most of them ended by a power cut.
const ROUNDS: usize = 6;
const LEAVES: usize = 40;
/// Leaves that lie in the user's file.
const IN_FILE: usize = 15;
const NODES: usize = 10;
