//! Damage to each kind of file: the store opens or says in one line which file it cannot use, no
//! byte comes out that did not go in, and what was not damaged is there.
//!
//! A store is filled once and its files are kept in memory. Each case is one damage: a bit flipped,
//! a page of 4 KiB zeroed, a file cut, emptied or removed. It is written out, opened, verified,
//! read whole, written to and opened again. The seed is printed by a case that fails; there are
//! `CAIRN_DAMAGES` flips of each kind, or a number that takes seconds.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]
#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
#![expect(clippy::print_stdout, reason = "how much was tried is told")]

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::gc::GcError;
use cairn_store::pin::{Pin, PinMode};
use cairn_store::store::{Keep, OpenError, OpenEvent};
use cairn_store::verify::BadBlock;
use cairn_store::{BlockSource, Store};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

static GOOD: LazyLock<Good> = LazyLock::new(Good::make);

/// A store without damage.
struct Good {
    files: BTreeMap<PathBuf, Vec<u8>>,
    blocks: Vec<Placed>,
    pins: Vec<Pin>,
    /// Deleted by name, and collected.
    gone: Vec<Cid>,
    /// How long the journal was when sled last learned how far it went, and the pins of then.
    journal_known: usize,
    pinned_then: Vec<Pin>,
}

/// A block and where it lies.
struct Placed {
    block: Block,
    file: PathBuf,
    section: Range<usize>,
    payload: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Zero { page: usize },
    Cut { to: usize },
    Removed,
}

struct Case {
    file: PathBuf,
    damage: Damage,
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:?}", self.file.display(), self.damage)
    }
}

impl Damage {
    /// The damaged bytes, if it changed any.
    fn apply(self, bytes: &mut Vec<u8>) -> Range<usize> {
        let length = bytes.len();
        match self {
            Self::Flip { at, bit } => {
                bytes[at] ^= 1 << bit;
                at..at + 1
            }
            Self::Zero { page } => {
                let range = page * PAGE..length.min((page + 1) * PAGE);
                bytes[range.clone()].fill(0);
                range
            }
            Self::Cut { to } => {
                bytes.truncate(to);
                to..length
            }
            Self::Removed => 0..length,
        }
    }
}

fn prefix(codec: u64) -> Prefix {
    Prefix {
        version: Version::V1,
        codec,
        hash: HashKind::Sha2_256,
    }
}

/// A block of bytes that say nothing.
fn leaf(number: usize, length: usize) -> Block {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(number as u64).fill_bytes(&mut bytes);
    Block::new(prefix(cid::RAW), Bytes::from(bytes)).unwrap()
}

/// Leaves and a node above them, the node last.
fn tree(numbers: Range<usize>) -> Vec<Block> {
    let mut blocks: Vec<Block> = numbers
        .map(|number| leaf(number, 500 + 300 * (number % 20)))
        .collect();
    let links = blocks
        .iter()
        .map(|child| PbLink {
            cid: *child.cid(),
            name: Some(String::new()),
            tsize: Some(1),
        })
        .collect();
    let node = PbNode { links, data: None };
    blocks.push(Block::new(prefix(cid::DAG_PB), pb::encode(&node)).unwrap());
    blocks
}

fn config() -> Config {
    Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        segment_size: ByteSize(64 << 10),
        ..Config::default()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

impl Good {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let runtime = runtime();
        let open = || Store::open(root, &config(), &mut |_| {}).unwrap();
        let put = |store: &Store, blocks: &[Block]| {
            runtime
                .block_on(store.put(blocks.to_vec(), Keep::Kept))
                .unwrap();
        };
        let pin = |store: &Store, cid: Cid, mode| {
            let name = Some(format!("pin of {cid}"));
            let pin = store.pin_add(store.clone(), cid, mode, name, |_| {});
            runtime.block_on(pin).unwrap();
        };
        let mut live = Vec::new();
        let store = open();
        // A collection with compaction, so that numbers are used up and segments retired.
        let garbage = tree(0..60);
        put(&store, &garbage);
        let pinned = [tree(100..110), tree(120..135), tree(140..145)];
        for tree in &pinned {
            put(&store, tree);
            pin(&store, *tree.last().unwrap().cid(), PinMode::Recursive);
            live.extend(tree.iter().cloned());
        }
        runtime.block_on(store.gc(|_| {})).unwrap();
        let (unpinned, deleted) = (tree(200..240), tree(300..306));
        put(&store, &unpinned);
        put(&store, &deleted);
        put(&store, &[leaf(400, 200_000)]);
        // What came from peers; some of it was pinned later.
        let (passing, taken) = (tree(600..615), tree(620..625));
        for blocks in [&passing, &taken] {
            let put = store.put(blocks.clone(), Keep::Cached);
            runtime.block_on(put).unwrap();
        }
        pin(&store, *taken.last().unwrap().cid(), PinMode::Recursive);
        live.extend(passing.into_iter().chain(taken));
        let names = deleted.iter().map(|block| *block.cid()).collect();
        let names: Vec<Cid> = runtime.block_on(store.delete(names)).unwrap();
        pin(&store, *unpinned[3].cid(), PinMode::Direct);
        live.extend(unpinned);
        live.push(leaf(400, 200_000));
        runtime.block_on(store.close()).unwrap();
        let pinned_then = store.pins();
        drop(store);
        let journal_known = known_to_sled(&fs::read(root.join(JOURNAL)).unwrap());

        // What sled was not told before the end.
        let store = open();
        let late = tree(500..512);
        put(&store, &late);
        pin(&store, *late.last().unwrap().cid(), PinMode::Recursive);
        live.extend(late);
        let pins = store.pins();
        drop(store);

        let mut files = BTreeMap::new();
        read_folder(root, Path::new(""), &mut files);
        let blocks = live.iter().map(|block| place(block, &files)).collect();
        let gone = garbage.iter().map(|block| *block.cid()).chain(names);
        Self {
            blocks,
            pins,
            gone: gone.collect(),
            files,
            journal_known,
            pinned_then,
        }
    }

    /// Writes the files out, one of them damaged, and tells which bytes of it were.
    fn write(&self, case: &Case, root: &Path) -> Range<usize> {
        for folder in ["blocks", "journal", "index/blobs"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let mut damaged = 0..0;
        for (name, bytes) in &self.files {
            if *name != case.file {
                fs::write(root.join(name), bytes).unwrap();
                continue;
            }
            let mut bytes = bytes.clone();
            damaged = case.damage.apply(&mut bytes);
            if !matches!(case.damage, Damage::Removed) {
                fs::write(root.join(name), bytes).unwrap();
            }
        }
        damaged
    }

    /// The files whose names begin and end like this.
    fn like(&self, begin: &str, end: &str) -> Vec<&PathBuf> {
        let like: Vec<_> = self
            .files
            .keys()
            .filter(|name| {
                let name = name.to_str().unwrap();
                name.starts_with(begin) && name.ends_with(end)
            })
            .collect();
        assert!(
            !like.is_empty(),
            "no {begin}*{end} in {:?}",
            self.files.keys()
        );
        like
    }
}

fn read_folder(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let name = below.join(entry.unwrap().file_name());
        let path = root.join(&name);
        if path.is_dir() {
            read_folder(root, &name, files);
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
}

fn place(block: &Block, files: &BTreeMap<PathBuf, Vec<u8>>) -> Placed {
    let named = [&block.cid().to_bytes()[..], block.data()].concat();
    let mut found = files.iter().filter_map(|(file, bytes)| {
        let at = bytes
            .windows(named.len())
            .position(|window| window == named)?;
        Some((file.clone(), at))
    });
    let (file, at) = found.next().unwrap();
    assert_eq!(found.next(), None, "{} is there twice", block.cid());
    let mut buffer = Vec::new();
    let mut length = named.len();
    while length > 0 {
        buffer.push(length);
        length >>= 7;
    }
    let end = at + named.len();
    Placed {
        block: block.clone(),
        file,
        section: at - buffer.len()..end,
        payload: end - block.data().len()..end,
    }
}

/// What may have happened to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Blocks lie in it.
    Segment,
    /// It can be made again from the others.
    Derived,
    /// Pins and deletions lie in it.
    Journal,
    /// Without it nobody knows how to read the rest.
    Version,
}

/// Every damage of a kind: as many flips as asked for, lengths and pages all over the files.
fn cases(names: &[&PathBuf], flips: usize, seed: u64) -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(seed);
    let total: usize = names.iter().map(|name| GOOD.files[*name].len()).sum();
    let mut cases = Vec::new();
    let mut case = |name: &PathBuf, damage| {
        cases.push(Case {
            file: name.clone(),
            damage,
        });
    };
    let mut made = 0;
    while made < flips {
        let mut at = random.random_range(0..total);
        for name in names {
            let bytes = &GOOD.files[*name];
            if at < bytes.len() {
                let page = bytes[at / PAGE * PAGE..].iter().take(PAGE);
                // Most of sled's file was never written.
                if page.copied().any(|byte| byte != 0) {
                    let bit = random.random_range(0..8);
                    case(name, Damage::Flip { at, bit });
                    made += 1;
                }
                break;
            }
            at -= bytes.len();
        }
    }
    for _ in 0..flips / 2 {
        let name = names[random.random_range(0..names.len())];
        let length = GOOD.files[name].len();
        let to = match random.random_range(0..4) {
            0 => random.random_range(0..length.clamp(1, 64)),
            1 => length - random.random_range(0..length.clamp(1, 64)),
            _ => random.random_range(0..length.max(1)),
        };
        case(name, Damage::Cut { to: to.min(length) });
        let page = random.random_range(0..length.div_ceil(PAGE).max(1));
        if page * PAGE < length {
            case(name, Damage::Zero { page });
        }
    }
    for name in names.iter().take(FILES_REMOVED) {
        case(name, Damage::Removed);
        case(name, Damage::Cut { to: 0 });
    }
    cases
}

/// Tries many damages and fails with all that went wrong.
fn try_all(kind: Kind, names: &[&PathBuf]) {
    try_those(kind, names, |_| true);
}

/// Tries the damages that are `wanted`.
fn try_those(kind: Kind, names: &[&PathBuf], wanted: impl Fn(Damage) -> bool) {
    let seed = number("CAIRN_SEED").unwrap_or_else(rand::random);
    let flips = number("CAIRN_DAMAGES").map_or(DAMAGES, |asked| usize::try_from(asked).unwrap());
    let total: usize = names.iter().map(|name| GOOD.files[*name].len()).sum();
    // No more than there are bits.
    let mut cases = cases(names, flips.min(8 * total), seed);
    cases.retain(|case| wanted(case.damage));
    let count = cases.len();
    let mut wrong = Vec::new();
    for case in cases {
        let text = case.to_string();
        let (sender, receiver) = channel();
        // On a thread of its own, so that one that hangs is seen.
        let thread = std::thread::spawn(move || {
            let result = try_one(kind, &case);
            let _ = sender.send(result);
        });
        match receiver.recv_timeout(HANG) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => wrong.push(format!("{text}: {why}")),
            Err(RecvTimeoutError::Timeout) => wrong.push(format!("{text}: hangs")),
            Err(RecvTimeoutError::Disconnected) => {
                let panic = thread.join().unwrap_err();
                let why = panic.downcast_ref::<String>();
                wrong.push(format!("{text}: panics: {why:?}"));
            }
        }
    }
    println!(
        "{count} damages of {kind:?}, {} handled wrongly",
        wrong.len()
    );
    assert!(
        wrong.is_empty(),
        "CAIRN_SEED={seed}: {} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// In memory where that can be had: thousands of stores are made.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn try_one(kind: Kind, case: &Case) -> Result<(), String> {
    let folder = folder();
    let root = folder.path();
    let damaged = GOOD.write(case, root);
    let mut notices = Vec::new();
    let opened = Store::open(root, &config(), &mut |event| {
        if let OpenEvent::Notice(text) = event {
            notices.push(text);
        }
    });
    let store = match opened {
        Ok(store) => store,
        Err(error) => return clear_refusal(kind, case, &error),
    };
    let runtime = runtime();
    let seen = Seen {
        kind,
        case,
        damaged,
        notices,
        runtime: &runtime,
    };
    let bad = seen.verify(&store)?;
    let lost = seen.check_blocks(&store)?;
    seen.check_bad(&bad, lost)?;
    seen.check_pins(&store)?;
    seen.check_collection(&store)?;
    seen.check_writing(&store)?;
    runtime
        .block_on(store.close())
        .map_err(|error| format!("does not close: {error}"))?;
    drop(store);
    let again = Store::open(root, &config(), &mut |_| {});
    let again = again.map_err(|error| format!("does not open again: {error}"))?;
    seen.check_written(&again)
}

/// Only what the rest hangs on may be refused, with one line that names it.
fn clear_refusal(kind: Kind, case: &Case, error: &OpenError) -> Result<(), String> {
    let text = error.to_string();
    if kind != Kind::Version {
        return Err(format!("does not open: {text}"));
    }
    let name = case.file.file_name().unwrap().to_str().unwrap();
    // A flip may make it the version of a program to come.
    let named = text.contains(name) || matches!(error, OpenError::Newer { .. });
    if text.contains('\n') || !named {
        return Err(format!("refused without naming the file: {text}"));
    }
    Ok(())
}

/// A store that opened in spite of a damage.
struct Seen<'a> {
    kind: Kind,
    case: &'a Case,
    damaged: Range<usize>,
    notices: Vec<String>,
    runtime: &'a Runtime,
}

impl Seen<'_> {
    fn is_hit(&self, file: &Path, range: &Range<usize>) -> bool {
        *file == self.case.file && range.start < self.damaged.end && self.damaged.start < range.end
    }

    fn verify(&self, store: &Store) -> Result<Vec<BadBlock>, String> {
        let bad = Arc::new(Mutex::new(Vec::new()));
        let into = bad.clone();
        let verify = store.verify(|_| {}, move |bad| into.lock().unwrap().push(bad));
        let verified = self.runtime.block_on(verify);
        verified.map_err(|error| format!("verify failed: {error}"))?;
        let bad = bad.lock().unwrap().clone();
        Ok(bad)
    }

    /// Every block is right or missed, and missed only if it was hit. Answers how many are missed: no hash
    /// covers the codec in a CID, so a flip there costs nothing.
    fn check_blocks(&self, store: &Store) -> Result<usize, String> {
        let mut lost = 0;
        for placed in &GOOD.blocks {
            let cid = placed.block.cid();
            let length = placed.block.data().len() as u64;
            let whole = self.runtime.block_on(store.block(cid));
            if let Ok(Some(found)) = &whole
                && *found != placed.block
            {
                return Err(format!("wrong bytes for {cid}"));
            }
            let range = length / 3..length / 2;
            let part = self.runtime.block_on(store.range(cid, range.clone()));
            if let Ok(Some(found)) = &part
                && *found != cairn_store::source::cut(placed.block.data(), &range)
            {
                return Err(format!("wrong bytes in a range of {cid}"));
            }
            if self.is_hit(&placed.file, &placed.section) {
                lost += usize::from(!matches!(whole, Ok(Some(_))));
                if matches!(whole, Ok(Some(_))) && self.is_hit(&placed.file, &placed.payload) {
                    let undone = matches!(self.case.damage, Damage::Zero { .. });
                    assert!(!undone, "random bytes hold no zeroed page");
                    return Err(format!("{cid} was damaged and yet read"));
                }
                continue;
            }
            if !matches!(whole, Ok(Some(_))) || !matches!(part, Ok(Some(_))) {
                let notices = &self.notices;
                return Err(format!(
                    "{cid} in {} at {:?} was not damaged: {whole:?}, told: {notices:?}",
                    placed.file.display(),
                    placed.section
                ));
            }
        }
        if self.kind == Kind::Journal {
            return Ok(lost); // Deletions may be lost with it.
        }
        for cid in &GOOD.gone {
            let found = self.runtime.block_on(store.block(cid));
            if !matches!(found, Ok(None)) {
                return Err(format!("{cid} was deleted: {found:?}"));
            }
        }
        Ok(lost)
    }

    /// What is damaged is told, by its name if only its bytes are.
    fn check_bad(&self, bad: &[BadBlock], lost: usize) -> Result<(), String> {
        let named: HashSet<Cid> = bad.iter().filter_map(|bad| bad.cid).collect();
        for placed in &GOOD.blocks {
            if !self.is_hit(&placed.file, &placed.section) {
                if named.contains(placed.block.cid()) {
                    return Err(format!("{} was blamed", placed.block.cid()));
                }
                continue;
            }
            let in_payload = self.damaged.start >= placed.payload.start
                && self.damaged.end <= placed.payload.end;
            let there = !matches!(self.case.damage, Damage::Cut { .. } | Damage::Removed);
            if in_payload && there && !named.contains(placed.block.cid()) {
                return Err(format!("{} was not found: {bad:?}", placed.block.cid()));
            }
        }
        if lost > 0 && bad.is_empty() && self.notices.is_empty() {
            return Err("nobody was told".to_owned());
        }
        Ok(())
    }

    fn check_pins(&self, store: &Store) -> Result<(), String> {
        let pins = store.pins();
        let same = if self.kind == Kind::Journal {
            pins.iter().all(|pin| GOOD.pins.contains(pin))
        } else {
            pins == GOOD.pins
        };
        if !same {
            return Err(format!("pins are {pins:?}, told: {:?}", self.notices));
        }
        Ok(())
    }

    /// Nothing that was pinned is collected, whatever of the pins is still known.
    fn check_collection(&self, store: &Store) -> Result<(), String> {
        let pinned: Vec<&Placed> = GOOD
            .blocks
            .iter()
            .filter(|placed| !self.is_hit(&placed.file, &placed.section))
            .filter(|placed| is_pinned(placed.block.cid(), self.known_pins()))
            .collect();
        let collected = self.runtime.block_on(store.gc(|_| {}));
        let all_hold = store.pins() == GOOD.pins;
        match collected {
            Ok(_) => {}
            Err(GcError::Journal { .. }) if self.kind == Kind::Journal => {}
            Err(GcError::Unreadable { .. }) if self.kind == Kind::Segment => {}
            Err(error) => return Err(format!("gc failed: {error}, pins hold: {all_hold}")),
        }
        for placed in pinned {
            let found = self.runtime.block_on(store.block(placed.block.cid()));
            if !matches!(found, Ok(Some(_))) {
                return Err(format!("{} was collected: {found:?}", placed.block.cid()));
            }
        }
        Ok(())
    }

    /// The pins that must not be forgotten in silence. An end of the journal that sled was never
    /// told of cannot be told from one that was never written.
    fn known_pins(&self) -> &'static [Pin] {
        let end = self.kind == Kind::Journal && self.damaged.start >= GOOD.journal_known;
        if end { &GOOD.pinned_then } else { &GOOD.pins }
    }

    /// What was lost can be put again, and so can something new.
    fn check_writing(&self, store: &Store) -> Result<(), String> {
        let blocks: Vec<Block> = GOOD
            .blocks
            .iter()
            .map(|placed| placed.block.clone())
            .collect();
        let new = leaf(9999, 3000);
        let put = self
            .runtime
            .block_on(store.put([blocks, vec![new]].concat(), Keep::Kept));
        put.map_err(|error| format!("cannot be written to: {error}"))?;
        self.check_written(store)
    }

    fn check_written(&self, store: &Store) -> Result<(), String> {
        let new = leaf(9999, 3000);
        let blocks = GOOD.blocks.iter().map(|placed| &placed.block);
        for block in blocks.chain([&new]) {
            let found = self.runtime.block_on(store.block(block.cid()));
            if !matches!(&found, Ok(Some(found)) if found == block) {
                return Err(format!("{} was put again: {found:?}", block.cid()));
            }
        }
        Ok(())
    }
}

/// Up to where sled has seen the journal of a store that was closed: what it says after its last checkpoint
/// is about that checkpoint.
fn known_to_sled(journal: &[u8]) -> usize {
    const MAGIC: [u8; 4] = 0x7a11_c0de_u32.to_le_bytes();
    const ABOUT_CHECKPOINTS: [u8; 2] = [8, 9];
    let mut end = journal.len();
    let starts = (0..journal.len()).rev();
    for at in starts.filter(|at| journal[*at..].starts_with(&MAGIC)) {
        if !ABOUT_CHECKPOINTS.contains(&journal[at + 20]) {
            break;
        }
        end = at;
    }
    end
}

/// Whether one of the pins reaches a block of the store without damage.
fn is_pinned(cid: &Cid, pins: &[Pin]) -> bool {
    pins.iter().any(|pin| {
        let node = GOOD
            .blocks
            .iter()
            .find(|placed| placed.block.cid() == &pin.cid)
            .unwrap();
        let below = || cairn_store::dag::links(&node.block).unwrap();
        pin.cid == *cid
            || (pin.mode == PinMode::Recursive && below().iter().any(|link| link.cid == *cid))
    })
}

#[test]
fn damaged_leaf_segments_cost_only_the_blocks_that_were_hit() {
    try_all(Kind::Segment, &GOOD.like("blocks/leaf-", ".car"));
}

#[test]
fn damaged_node_segments_cost_only_the_blocks_that_were_hit() {
    try_all(Kind::Segment, &GOOD.like("blocks/node-", ".car"));
}

#[test]
fn damaged_segments_of_the_cache_cost_only_the_blocks_that_were_hit() {
    try_all(Kind::Segment, &GOOD.like("blocks/cache-", ".car"));
}

#[test]
fn damaged_checksums_cost_nothing() {
    try_all(Kind::Derived, &GOOD.like("blocks/", ".crc"));
}

#[test]
fn a_damaged_journal_costs_no_block_and_lets_nothing_be_collected() {
    try_those(
        Kind::Journal,
        &GOOD.like(JOURNAL, ""),
        |damage| match damage {
            Damage::Flip { .. } | Damage::Zero { .. } | Damage::Removed => true,
            // An end that sled was never told of cannot be told from one that was never written.
            Damage::Cut { to } => to < GOOD.journal_known,
        },
    );
}

#[test]
fn without_a_journal_damage_still_costs_only_the_blocks_that_were_hit() {
    for (place, at) in [("header", 3), ("payload", 0), ("name", 0)] {
        let folder = folder();
        let no_journal = Case {
            file: PathBuf::from(JOURNAL),
            damage: Damage::Removed,
        };
        GOOD.write(&no_journal, folder.path());
        let first = |placed: &&Placed| placed.file == *GOOD.like("blocks/leaf-", ".car")[0];
        let first = GOOD.blocks.iter().filter(first);
        let hit = first.min_by_key(|placed| placed.section.start).unwrap();
        let at = match place {
            "header" => at,
            "payload" => hit.payload.start + 7,
            _ => hit.section.start + 20,
        };
        let path = folder.path().join(&hit.file);
        let mut bytes = GOOD.files[&hit.file].clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let store = Store::open(folder.path(), &config(), &mut |_| {}).unwrap();
        let runtime = runtime();
        for placed in &GOOD.blocks {
            let found = runtime.block_on(store.block(placed.block.cid()));
            let is_there = matches!(found, Ok(Some(_)));
            let is_hit = place != "header" && placed.block == hit.block;
            assert_eq!(is_there, !is_hit, "{place}: {}", placed.block.cid());
        }
        let collected = runtime.block_on(store.gc(|_| {}));
        assert!(matches!(collected, Err(GcError::Journal { .. })));
    }
}

#[test]
fn a_damaged_index_costs_nothing() {
    try_all(Kind::Derived, &GOOD.like("index/db", ""));
}

#[test]
fn a_damaged_configuration_or_snapshot_of_the_index_costs_nothing() {
    let mut names = GOOD.like("index/conf", "");
    names.extend(GOOD.like("index/snap.", ""));
    try_all(Kind::Derived, &names);
}

#[test]
fn a_damaged_version_is_refused_by_name() {
    try_all(Kind::Version, &GOOD.like("version", ""));
}

#[test]
fn a_damaged_lock_file_locks_nobody_out() {
    try_all(Kind::Derived, &GOOD.like("repo.lock", ""));
}

/// What the index's own files leave behind when they are killed, and what marks it as unusable.
#[test]
fn leftovers_of_the_index_cost_nothing() {
    let snapshot = GOOD.like("index/snap.", "")[0];
    let partial = &GOOD.files[snapshot][..GOOD.files[snapshot].len() / 2];
    let leftovers: [(&str, &[u8]); 9] = [
        ("index/snap.FFFFFFFFFFFFFFFF.generating", b""),
        ("index/snap.FFFFFFFFFFFFFFFF.generating", partial),
        ("index/snap.0000000000000001.in___motion", partial),
        ("index/snap.FFFFFFFFFFFFFFFF", b""),
        ("index/snap.FFFFFFFFFFFFFFFF", partial),
        ("index.opening", b"x"),
        ("index.opening", b"xx"),
        ("index.opening", b"not what was written \xff\x00"),
        ("index.broken", b""),
    ];
    for (name, bytes) in leftovers {
        let folder = folder();
        let nothing = Case {
            file: PathBuf::new(),
            damage: Damage::Removed,
        };
        GOOD.write(&nothing, folder.path());
        fs::write(folder.path().join(name), bytes).unwrap();
        let store = Store::open(folder.path(), &config(), &mut |_| {}).unwrap();
        let runtime = runtime();
        let seen = Seen {
            kind: Kind::Derived,
            case: &nothing,
            damaged: 0..0,
            notices: Vec::new(),
            runtime: &runtime,
        };
        let checked = seen
            .verify(&store)
            .and_then(|bad| seen.check_bad(&bad, seen.check_blocks(&store)?))
            .and_then(|()| seen.check_pins(&store))
            .and_then(|()| seen.check_collection(&store))
            .and_then(|()| seen.check_writing(&store));
        assert_eq!(checked, Ok(()), "{name} with {} bytes", bytes.len());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a test is asked to do is no configuration"
)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

const JOURNAL: &str = "journal/journal.log";
const PAGE: usize = 4096;
/// Flips of each kind in every run of the tests, and half as many cuts and pages.
const DAMAGES: usize = 120;
/// Files of a kind that are removed, and emptied.
const FILES_REMOVED: usize = 4;
/// No case takes this long.
const HANG: Duration = Duration::from_secs(120);
