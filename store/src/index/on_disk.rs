//! Two tiers of buckets in sled.
//!
//! A merge goes into the recent tier; when that holds more than a fraction of the main one it is
//! poured into it, bucket by bucket. So the main tier, which is nearly all of the index, is written a
//! few times while it doubles, and not at every merge. The recent tier hides the main one: a crash in
//! the middle of pouring leaves entries in both, which say the same.

use super::buckets::{self, ENTRY, Removals};
use super::table::{ByKey, Frozen};
use super::{Checkpoint, IndexError, Key};
use crate::derived;
use crate::log::Place;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The index in sled.
#[derive(Debug)]
pub(super) struct OnDisk {
    db: sled::Db,
    side: Side,
    main: sled::Tree,
    recent: sled::Tree,
    meta: sled::Tree,
    /// Entries in each tier, about.
    main_count: AtomicU64,
    recent_count: AtomicU64,
    /// Made when sled fails, so that the next opening does not trust it.
    broken_marker: PathBuf,
}

/// Which trees the buckets are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    First,
    Second,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    fn trees(self, db: &sled::Db) -> sled::Result<(sled::Tree, sled::Tree)> {
        let (main, recent) = match self {
            Self::First => ("buckets", "recent"),
            Self::Second => ("buckets 2", "recent 2"),
        };
        Ok((db.open_tree(main)?, db.open_tree(recent)?))
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::First => b"1",
            Self::Second => b"2",
        }
    }

    fn of_name(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"2") => Self::Second,
            _ => Self::First,
        }
    }
}

/// A bucket's number and its entries.
pub(super) type NamedBucket = (u16, Vec<(Key, Place)>);

impl OnDisk {
    /// Opens the index in `folder`; whatever is there and cannot be used is set aside, with a
    /// sentence for the operator. `None` as checkpoint: it knows nothing.
    pub(super) fn open(
        folder: &Path,
        cache_bytes: u64,
        on_notice: &mut dyn FnMut(String),
    ) -> io::Result<(Self, [u8; 32], Option<Checkpoint>)> {
        let broken = folder.with_extension("broken");
        let unfinished = folder.with_extension("opening");
        if folder.exists() {
            if broken.exists() {
                set_aside(folder, "it failed while running", on_notice)?;
            } else if tries(&unfinished) >= TRIES {
                set_aside(folder, "opening it did not finish twice", on_notice)?;
            }
        }
        let _ = fs::remove_file(&broken);
        fs::write(&unfinished, [b'x'].repeat(tries(&unfinished) + 1))?;
        let opened = Self::open_sled(folder, cache_bytes, &broken).or_else(|error| {
            set_aside(folder, &error.0, on_notice)?;
            Self::open_sled(folder, cache_bytes, &broken)
                .map_err(|error| io::Error::other(error.to_string()))
        });
        fs::remove_file(&unfinished)?;
        opened
    }

    /// Opens sled, with the leftovers removed that are known to keep it from opening.
    fn open_sled(
        folder: &Path,
        cache_bytes: u64,
        broken: &Path,
    ) -> Result<(Self, [u8; 32], Option<Checkpoint>), IndexError> {
        derived::guarded(|| {
            let db = derived::open_patiently(folder, cache_bytes)?;
            let meta = db.open_tree("meta")?;
            let side = Side::of_name(meta.get(SIDE)?.as_deref());
            let (main, recent) = side.trees(&db)?;
            let known = meta
                .get(SECRET)?
                .and_then(|secret| <[u8; 32]>::try_from(&secret[..]).ok())
                .zip(
                    meta.get(CHECKPOINT)?
                        .and_then(|bytes| Checkpoint::from_bytes(&bytes)),
                );
            let (secret, checkpoint) = match known {
                Some((secret, mut checkpoint)) => {
                    checkpoint.merging = meta.contains_key(MERGING)?;
                    (secret, Some(checkpoint))
                }
                None => {
                    // Without either, what is in the buckets cannot be told from garbage.
                    main.clear()?;
                    recent.clear()?;
                    let secret: [u8; 32] = rand::random();
                    meta.insert(SECRET, &secret[..])?;
                    (secret, None)
                }
            };
            // What a rebuild that was broken off has left.
            let (half_made, recently) = side.other().trees(&db)?;
            half_made.clear()?;
            recently.clear()?;
            let count = |name: &[u8]| -> sled::Result<AtomicU64> {
                let known = meta.get(name)?;
                let known = known.and_then(|bytes| bytes[..].try_into().ok());
                Ok(AtomicU64::new(known.map_or(0, u64::from_be_bytes)))
            };
            let index = Self {
                main_count: count(MAIN_COUNT)?,
                recent_count: count(RECENT_COUNT)?,
                db,
                side,
                main,
                recent,
                meta,
                broken_marker: broken.to_owned(),
            };
            Ok((index, secret, checkpoint))
        })
        .map_err(IndexError)
    }

    pub(super) fn clear(&self) -> Result<(), IndexError> {
        self.run(|| {
            self.meta.remove(CHECKPOINT)?;
            // First of all, or half of what is emptied would be taken for the whole.
            self.meta.flush()?;
            self.main_count.store(0, Ordering::Relaxed);
            self.recent_count.store(0, Ordering::Relaxed);
            self.main.clear()?;
            self.recent.clear()
        })
    }

    pub(super) fn place(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        let [a, b, ..] = *key;
        for tier in [&self.recent, &self.main] {
            let entries = self.run(|| tier.get([a, b]))?;
            if let Some(said) = entries.and_then(|entries| buckets::find(&entries, key)) {
                return Ok(said);
            }
        }
        Ok(None)
    }

    pub(super) fn merge(
        &self,
        changes: &Frozen,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), IndexError> {
        self.run(|| {
            self.meta.insert(MERGING, b"")?;
            self.meta.flush()?;
            self.take_in(changes)?;
            self.recent.flush()?;
            for (name, count) in [
                (MAIN_COUNT, &self.main_count),
                (RECENT_COUNT, &self.recent_count),
            ] {
                let count = count.load(Ordering::Relaxed);
                self.meta.insert(name, &count.to_be_bytes())?;
            }
            if let Some(checkpoint) = checkpoint {
                self.meta.insert(CHECKPOINT, checkpoint.to_bytes())?;
                self.meta.remove(MERGING)?;
            }
            self.meta.flush().map(drop)
        })
    }

    /// The side that does not count, emptied, to be filled and then let count.
    pub(super) fn aside(&self) -> Result<Self, IndexError> {
        self.run(|| {
            let side = self.side.other();
            let (main, recent) = side.trees(&self.db)?;
            main.clear()?;
            recent.clear()?;
            Ok(Self {
                db: self.db.clone(),
                side,
                main,
                recent,
                meta: self.meta.clone(),
                main_count: AtomicU64::new(0),
                recent_count: AtomicU64::new(0),
                broken_marker: self.broken_marker.clone(),
            })
        })
    }

    /// Takes changes into a side that does not count yet.
    pub(super) fn fill(&self, changes: &Frozen) -> Result<(), IndexError> {
        self.run(|| self.take_in(changes))
    }

    /// Lets this side count from now on, up to `checkpoint`; without one it is not to be trusted after
    /// the next opening.
    pub(super) fn let_count(&self, checkpoint: Option<&Checkpoint>) -> Result<(), IndexError> {
        self.run(|| {
            self.main.flush()?;
            self.recent.flush()?;
            let mut batch = sled::Batch::default();
            batch.insert(SIDE, self.side.name());
            for (name, count) in [
                (MAIN_COUNT, &self.main_count),
                (RECENT_COUNT, &self.recent_count),
            ] {
                batch.insert(name, &count.load(Ordering::Relaxed).to_be_bytes());
            }
            match checkpoint {
                Some(checkpoint) => {
                    batch.insert(CHECKPOINT, checkpoint.to_bytes());
                    batch.remove(MERGING);
                }
                None => batch.remove(CHECKPOINT),
            }
            self.meta.apply_batch(batch)?;
            self.meta.flush().map(drop)
        })
    }

    /// Gives back what a side holds that does not count any more.
    pub(super) fn discard(&self) -> Result<(), IndexError> {
        self.run(|| {
            self.main.clear()?;
            self.recent.clear()
        })
    }

    /// Another database in `folder` with what this one holds, as long as nothing is merged.
    pub(super) fn copy_to(&self, folder: &Path) -> Result<bool, IndexError> {
        let is_known = self.run(|| self.meta.contains_key(CHECKPOINT))?;
        if !is_known {
            return Ok(false);
        }
        let copied = derived::guarded(|| {
            let db = derived::open_patiently(folder, COPY_CACHE)?;
            let (main, recent) = self.side.trees(&db)?;
            let meta = db.open_tree("meta")?;
            for (from, to) in [
                (&self.main, &main),
                (&self.recent, &recent),
                (&self.meta, &meta),
            ] {
                for entry in from {
                    let (name, value) = entry?;
                    to.insert(name, value)?;
                }
            }
            db.flush().map(|_| true)
        });
        copied.map_err(IndexError)
    }

    fn take_in(&self, changes: &Frozen) -> sled::Result<()> {
        let mut added: u64 = 0;
        for (bucket, changes) in changes.parts().flat_map(buckets::by_bucket) {
            let old = self.recent.get(bucket)?.unwrap_or_default();
            let merged = buckets::merge(&old, &changes, Removals::Kept);
            added += (merged.len().saturating_sub(old.len()) / ENTRY) as u64;
            self.recent.insert(bucket, merged)?;
        }
        let recent = self.recent_count.fetch_add(added, Ordering::Relaxed) + added;
        if recent > RECENT_MIN.max(self.main_count.load(Ordering::Relaxed) / RECENT_SHARE) {
            self.pour()?;
        }
        Ok(())
    }

    /// Empties the recent tier into the main one.
    fn pour(&self) -> sled::Result<()> {
        let mut main_count = self.main_count.load(Ordering::Relaxed);
        for entry in &self.recent {
            let (bucket, recent) = entry?;
            let Ok(bucket) = <buckets::Bucket>::try_from(&bucket[..]) else {
                continue;
            };
            let changes: Vec<_> = buckets::entries(bucket, &recent).collect();
            let old = self.main.get(bucket)?.unwrap_or_default();
            let merged = buckets::merge(&old, &changes, Removals::Done);
            main_count += (merged.len() / ENTRY) as u64;
            main_count = main_count.saturating_sub((old.len() / ENTRY) as u64);
            if merged.is_empty() {
                self.main.remove(bucket)?;
            } else {
                self.main.insert(bucket, merged)?;
            }
        }
        // Durable below before it goes above.
        self.main.flush()?;
        self.recent.clear()?;
        self.main_count.store(main_count, Ordering::Relaxed);
        self.recent_count.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The buckets from `number` on, as they are as long as nothing is merged.
    pub(super) fn buckets(&self, number: u16) -> Buckets {
        let tier = |tree: &sled::Tree| Tier {
            rest: tree.range(number.to_be_bytes()..),
            next: None,
        };
        Buckets {
            recent: tier(&self.recent),
            main: tier(&self.main),
            broken_marker: self.broken_marker.clone(),
        }
    }

    pub(super) fn note(&self, name: &str) -> Option<Vec<u8>> {
        let found = self.run(|| self.meta.get(name.as_bytes()));
        found.ok().flatten().map(|text| text.to_vec())
    }

    pub(super) fn set_note(&self, name: &str, text: &[u8]) -> Result<(), IndexError> {
        self.run(|| self.meta.insert(name.as_bytes(), text).map(drop))
    }

    fn run<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
        run(&self.broken_marker, work)
    }
}

/// A walk over both tiers, bucket by bucket.
pub(super) struct Buckets {
    recent: Tier,
    main: Tier,
    broken_marker: PathBuf,
}

/// A walk over one tier.
struct Tier {
    rest: sled::Iter,
    next: Option<(buckets::Bucket, sled::IVec)>,
}

impl Tier {
    /// The name of the next bucket.
    fn peek(&mut self) -> sled::Result<Option<buckets::Bucket>> {
        while self.next.is_none() {
            let Some(entry) = self.rest.next() else {
                return Ok(None);
            };
            let (name, entries) = entry?;
            // Names of another length are none of ours.
            self.next = name[..].try_into().ok().map(|name| (name, entries));
        }
        Ok(self.next.as_ref().map(|(name, _)| *name))
    }

    /// The entries of the next bucket, if it has this name.
    fn take(&mut self, name: buckets::Bucket) -> sled::IVec {
        let here = self.next.take_if(|(next, _)| *next == name);
        here.map(|(_, entries)| entries).unwrap_or_default()
    }
}

impl Buckets {
    /// The next bucket and its entries.
    pub(super) fn next(&mut self) -> Result<Option<NamedBucket>, IndexError> {
        let Self { recent, main, .. } = self;
        let names = run(&self.broken_marker, || Ok([recent.peek()?, main.peek()?]))?;
        let Some(name) = names.into_iter().flatten().min() else {
            return Ok(None);
        };
        let (recent, main) = (recent.take(name), main.take(name));
        let recent: ByKey<Option<Place>> = buckets::entries(name, &recent).collect();
        let places = buckets::entries(name, &main)
            .filter(|(key, _)| recent.is_empty() || !recent.contains_key(key))
            .chain(recent.iter().map(|(key, place)| (*key, *place)))
            .filter_map(|(key, place)| Some((key, place?)));
        Ok(Some((u16::from_be_bytes(name), places.collect())))
    }
}

fn run<T>(broken_marker: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    derived::guarded(work).map_err(IndexError).inspect_err(|_| {
        // Without the marker the next opening would find out by itself, only later.
        let _ = fs::write(broken_marker, b"");
    })
}

fn tries(unfinished: &Path) -> usize {
    fs::read(unfinished).map_or(0, |marks| marks.len())
}

/// Keeps one unusable index beside the new one, for whoever wants to look at it.
fn set_aside(folder: &Path, why: &str, on_notice: &mut dyn FnMut(String)) -> io::Result<()> {
    let aside = folder.with_extension("set-aside");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(folder, &aside)?;
    on_notice(format!(
        "the index could not be used ({why}); it was set aside as {} and is built anew",
        aside.display()
    ));
    Ok(())
}

const SECRET: &[u8] = b"secret";
/// The name is the layout's: what format 1 wrote under `checkpoint` is not read any more.
const CHECKPOINT: &[u8] = b"checkpoint 2";
/// There as long as a merge is under way.
const MERGING: &[u8] = b"merging";
/// Which side counts.
const SIDE: &[u8] = b"side";
const MAIN_COUNT: &[u8] = b"main count";
const RECENT_COUNT: &[u8] = b"recent count";
/// Entries that the recent tier may always hold.
const RECENT_MIN: u64 = 1_000_000;
/// Which fraction of the main tier the recent one may reach.
const RECENT_SHARE: u64 = 8;
/// Memory that a copy may take while it is made.
const COPY_CACHE: u64 = 16 << 20;
/// Openings that did not finish before the index is no longer trusted.
const TRIES: usize = 2;
