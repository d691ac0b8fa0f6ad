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

#[path = "damage/good.rs"]
mod good;
#[path = "damage/seen.rs"]
mod seen;

use cairn_store::gc::GcError;
use cairn_store::store::{OpenError, OpenEvent};
use cairn_store::{BlockSource, Store};
use good::{GOOD, JOURNAL, Placed, config, runtime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use seen::Seen;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use tempfile::TempDir;

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

const PAGE: usize = 4096;
/// Flips of each kind in every run of the tests, and half as many cuts and pages: others in each run.
const DAMAGES: usize = 120;
/// Files of a kind that are removed, and emptied.
const FILES_REMOVED: usize = 4;
/// No case takes this long.
const HANG: Duration = Duration::from_secs(120);
