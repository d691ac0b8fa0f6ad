//! From a multihash to the place of its block: a memory table over packed buckets in sled.
//!
//! Everything here is derived from the log and may be lost. New places live in a table in memory;
//! now and then the table is frozen, merged into sled and forgotten, and the position in the log up
//! to which sled knows everything is written after it. A bucket is one sled value holding the
//! entries whose keys share their first 16 bits: a key a block would cost sled four times the disk
//! and several times the memory.
//!
//! Keys are 16 bytes of a hash keyed with a secret of this index, so that nobody can grind blocks
//! into one bucket. Whoever reads a block compares the whole multihash with the section's.

use crate::cid::Multihash;
use crate::log::{Place, SegmentId};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What a block is found by.
pub(crate) type Key = [u8; 16];

/// The index, open.
#[derive(Debug)]
pub(crate) struct Index {
    _db: sled::Db,
    buckets: sled::Tree,
    meta: sled::Tree,
    secret: [u8; 32],
    table: RwLock<Table>,
    /// Held while a frozen table is merged: one at a time.
    merging: Mutex<()>,
    /// Made when sled fails, so that the next opening does not trust it.
    broken_marker: PathBuf,
}

/// Places that sled does not know yet. `None` says that a place in sled no longer counts.
#[derive(Debug, Default)]
struct Table {
    fresh: HashMap<Key, Option<Place>>,
    frozen: Option<Arc<HashMap<Key, Option<Place>>>>,
}

/// What a merge is about to move into sled.
#[derive(Debug)]
pub(crate) struct Frozen(Arc<HashMap<Key, Option<Place>>>);

/// How far sled knows the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Where each segment that was active then ended. Earlier numbers are known whole.
    pub(crate) ends: BTreeMap<SegmentId, u32>,
    /// Blocks present then.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The journal's last record then.
    pub(crate) journal: u64,
}

/// sled failed. Nothing is lost: the next opening builds the index anew.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the index failed ({0}); restart to have it rebuilt from the blocks")]
pub(crate) struct IndexError(String);

impl Index {
    /// Opens the index in `folder`; whatever is there and cannot be used is set aside, with a
    /// sentence for the operator. `None` as checkpoint: it knows nothing.
    pub(crate) fn open(
        folder: &Path,
        cache_bytes: u64,
        on_notice: &mut dyn FnMut(String),
    ) -> io::Result<(Self, Option<Checkpoint>)> {
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
    ) -> Result<(Self, Option<Checkpoint>), IndexError> {
        remove_unfinished_snapshots(folder);
        guarded(|| {
            let config = sled::Config::default()
                .path(folder)
                .cache_capacity(cache_bytes)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None);
            let mut tries = 0;
            let db = loop {
                match config.open() {
                    // sled's own lock outlives its handle until its threads have let go, and
                    // nothing tells when. The repository's lock says that it can only be ours.
                    Err(sled::Error::Io(error))
                        if error.kind() == io::ErrorKind::Other && tries < LOCK_TRIES =>
                    {
                        tries += 1;
                        std::thread::sleep(LOCK_PAUSE);
                    }
                    opened => break opened?,
                }
            };
            let buckets = db.open_tree("buckets")?;
            let meta = db.open_tree("meta")?;
            let known = meta
                .get(SECRET)?
                .and_then(|secret| <[u8; 32]>::try_from(&secret[..]).ok())
                .zip(
                    meta.get(CHECKPOINT)?
                        .and_then(|bytes| Checkpoint::from_bytes(&bytes)),
                );
            let (secret, checkpoint) = match known {
                Some((secret, checkpoint)) => (secret, Some(checkpoint)),
                None => {
                    // Without either, what is in the buckets cannot be told from garbage.
                    buckets.clear()?;
                    let secret: [u8; 32] = rand::random();
                    meta.insert(SECRET, &secret[..])?;
                    (secret, None)
                }
            };
            let index = Self {
                _db: db,
                buckets,
                meta,
                secret,
                table: RwLock::default(),
                merging: Mutex::default(),
                broken_marker: broken.to_owned(),
            };
            Ok((index, checkpoint))
        })
    }

    /// Forgets everything, before a rebuild.
    pub(crate) fn clear(&self) -> Result<(), IndexError> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *table = Table::default();
        self.run(|| {
            self.meta.remove(CHECKPOINT)?;
            self.buckets.clear()
        })
    }

    /// What a block with this multihash is found by.
    pub(crate) fn key(&self, multihash: &Multihash) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&multihash.code().to_le_bytes());
        hasher.update(multihash.digest());
        let mut key = Key::default();
        hasher.finalize_xof().fill(&mut key);
        key
    }

    /// Where the block is, if it is anywhere.
    pub(crate) fn place(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        if let Some(known) = self.recent(key) {
            return Ok(known);
        }
        let (bucket, rest) = split(key);
        let entries = self.run(|| self.buckets.get(bucket))?;
        let found = entries.and_then(|entries| {
            entries
                .chunks_exact(ENTRY)
                .find_map(|entry| entry.strip_prefix(&rest[..]))
                .and_then(Place::unpacked)
        });
        if found.is_none() {
            // A merge may have ended between the two looks, but then sled was asked after it.
            return Ok(self.recent(key).flatten());
        }
        Ok(found)
    }

    /// What the memory table says: `None` nothing, `Some(None)` surely absent.
    pub(crate) fn recent(&self, key: &Key) -> Option<Option<Place>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let frozen = || table.frozen.as_ref().and_then(|frozen| frozen.get(key));
        table.fresh.get(key).or_else(frozen).copied()
    }

    /// Lets `place` count from now on.
    pub(crate) fn insert(&self, entries: impl IntoIterator<Item = (Key, Place)>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table
            .fresh
            .extend(entries.into_iter().map(|(key, place)| (key, Some(place))));
    }

    /// The block is gone.
    pub(crate) fn remove(&self, keys: impl IntoIterator<Item = Key>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.fresh.extend(keys.into_iter().map(|key| (key, None)));
    }

    /// Forgets places in the memory table that turned out never to have reached the disk.
    pub(crate) fn forget(&self, lost: impl Fn(&Place) -> bool) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Table { fresh, frozen } = &mut *table;
        if let Some(frozen) = frozen.take() {
            for (key, place) in frozen.iter() {
                fresh.entry(*key).or_insert(*place);
            }
        }
        for place in fresh.values_mut() {
            if place.as_ref().is_some_and(&lost) {
                *place = None;
            }
        }
    }

    /// Entries waiting to be merged.
    pub(crate) fn waiting(&self) -> usize {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .fresh
            .len()
    }

    /// Sets the memory table's content apart for a merge. `None` if a merge is under way.
    pub(crate) fn freeze(&self) -> Option<Frozen> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.frozen.is_some() {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut table.fresh));
        table.frozen = Some(Arc::clone(&frozen));
        Some(Frozen(frozen))
    }

    /// Merges what was frozen into sled and then writes `checkpoint`: all of it must be durable in
    /// the log by now. Without a checkpoint sled is not yet to be trusted.
    pub(crate) fn merge(
        &self,
        Frozen(frozen): &Frozen,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), IndexError> {
        let _one_at_a_time = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_bucket: BTreeMap<[u8; 2], Vec<(&Key, &Option<Place>)>> = BTreeMap::new();
        for entry in frozen.iter() {
            by_bucket.entry(split(entry.0).0).or_default().push(entry);
        }
        self.run(|| {
            for (bucket, changes) in by_bucket {
                let old = self.buckets.get(bucket)?.unwrap_or_default();
                let merged = merge_bucket(&old, &changes);
                if merged.is_empty() {
                    self.buckets.remove(bucket)?;
                } else {
                    self.buckets.insert(bucket, merged)?;
                }
            }
            self.buckets.flush()?;
            if let Some(checkpoint) = checkpoint {
                self.meta.insert(CHECKPOINT, checkpoint.to_bytes())?;
            }
            self.meta.flush().map(drop)
        })?;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table
            .frozen
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, frozen))
        {
            table.frozen = None;
        }
        Ok(())
    }

    /// Every entry that sled knows, bucket by bucket. Merge first to miss nothing.
    pub(crate) fn merged(&self) -> impl Iterator<Item = Result<Vec<(Key, Place)>, IndexError>> {
        let mut buckets = self.buckets.iter();
        std::iter::from_fn(move || {
            let next = self.run(|| buckets.next().transpose());
            match next {
                Err(error) => Some(Err(error)),
                Ok(None) => None,
                Ok(Some((bucket, entries))) => Some(Ok(entries
                    .chunks_exact(ENTRY)
                    .filter_map(|entry| {
                        let (rest, place) = entry.split_at_checked(REST)?;
                        let mut key = Key::default();
                        for (to, from) in key.iter_mut().zip(bucket.iter().chain(rest)) {
                            *to = *from;
                        }
                        Some((key, Place::unpacked(place)?))
                    })
                    .collect())),
            }
        })
    }

    fn run<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
        guarded(work).inspect_err(|_| {
            // Without the marker the next opening would find out by itself, only later.
            let _ = fs::write(&self.broken_marker, b"");
        })
    }
}

impl Checkpoint {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.blocks, self.bytes, self.journal] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for (segment, end) in &self.ends {
            bytes.extend_from_slice(&segment.packed().to_be_bytes());
            bytes.extend_from_slice(&end.to_be_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut cursor = bytes;
        let mut number = || -> Option<u64> {
            let (first, rest) = cursor.split_first_chunk()?;
            cursor = rest;
            Some(u64::from_be_bytes(*first))
        };
        let (blocks, bytes, journal) = (number()?, number()?, number()?);
        let mut ends = BTreeMap::new();
        while let Some(pair) = number() {
            let segment = u32::try_from(pair >> 32).ok()?;
            let end = u32::try_from(pair & u64::from(u32::MAX)).ok()?;
            ends.insert(SegmentId::unpacked(segment), end);
        }
        cursor.is_empty().then_some(Self {
            ends,
            blocks,
            bytes,
            journal,
        })
    }
}

fn merge_bucket(old: &[u8], changes: &[(&Key, &Option<Place>)]) -> Vec<u8> {
    let changed: HashMap<&[u8], Option<Place>> = changes
        .iter()
        .map(|(key, place)| {
            (
                key.last_chunk::<REST>().map_or(&[][..], |rest| rest),
                **place,
            )
        })
        .collect();
    let mut merged: Vec<u8> = old
        .chunks_exact(ENTRY)
        .filter(|entry| {
            entry
                .get(..REST)
                .is_some_and(|rest| !changed.contains_key(rest))
        })
        .flatten()
        .copied()
        .collect();
    for (rest, place) in changed {
        if let Some(place) = place {
            merged.extend_from_slice(rest);
            merged.extend_from_slice(&place.packed());
        }
    }
    merged
}

fn split(key: &Key) -> ([u8; 2], [u8; REST]) {
    let [a, b, rest @ ..] = *key;
    ([a, b], rest)
}

/// Runs sled, which panics on some damaged files.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(IndexError(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(IndexError(text.unwrap_or_else(|| "panic".to_owned())))
        }
    }
}

/// A kill between making and renaming a snapshot leaves a file that sled takes for a damaged one.
fn remove_unfinished_snapshots(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let _ = fs::remove_file(entry.path());
        }
    }
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

/// Bytes of a key beyond its bucket's.
const REST: usize = 14;
/// Bytes of an entry.
const ENTRY: usize = REST + Place::PACKED;
const SECRET: &[u8] = b"secret";
const CHECKPOINT: &[u8] = b"checkpoint";
/// How often, and how far apart, sled is tried while an earlier handle of this process lets go.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Openings that did not finish before the index is no longer trusted.
const TRIES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;

    fn place(number: u32, offset: u32) -> Place {
        let segment = SegmentId {
            stream: Stream::Leaf,
            number,
        };
        Place {
            segment,
            offset,
            length: 5,
            cached: false,
        }
    }

    fn key(index: &Index, at: u32) -> Key {
        index.key(&Multihash::wrap(0x12, &at.to_be_bytes()).unwrap())
    }

    fn open(folder: &Path) -> (Index, Option<Checkpoint>, Vec<String>) {
        let mut notices = Vec::new();
        let (index, checkpoint) = Index::open(&folder.join("index"), 1 << 20, &mut |notice| {
            notices.push(notice);
        })
        .unwrap();
        (index, checkpoint, notices)
    }

    fn checkpoint() -> Checkpoint {
        let segment = SegmentId {
            stream: Stream::Node,
            number: 3,
        };
        Checkpoint {
            ends: BTreeMap::from([(segment, 77)]),
            blocks: 1,
            bytes: 2,
            journal: 3,
        }
    }

    fn merge(index: &Index) {
        let frozen = index.freeze().unwrap();
        index.merge(&frozen, Some(&checkpoint())).unwrap();
    }

    #[test]
    fn finds_places_before_during_and_after_a_merge_and_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (index, none, _) = open(folder.path());
        assert_eq!(none, None);
        let wanted: Vec<_> = (0..2000)
            .map(|at| (key(&index, at), place(1, at)))
            .collect();
        index.insert(wanted.clone());
        let all = |index: &Index| {
            for (key, place) in &wanted {
                assert_eq!(index.place(key).unwrap(), Some(*place));
            }
        };
        all(&index);
        let frozen = index.freeze().unwrap();
        assert!(index.freeze().is_none());
        all(&index);
        index.merge(&frozen, Some(&checkpoint())).unwrap();
        assert_eq!(index.waiting(), 0);
        all(&index);
        assert_eq!(
            index
                .merged()
                .map(|bucket| bucket.unwrap().len())
                .sum::<usize>(),
            2000
        );
        drop(index);
        let (index, known, _) = open(folder.path());
        assert_eq!(known, Some(checkpoint()));
        all(&index);
        assert_eq!(index.place(&key(&index, 9999)).unwrap(), None);
    }

    #[test]
    fn a_later_place_wins_and_a_removal_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (index, ..) = open(folder.path());
        let (moved, gone) = (key(&index, 1), key(&index, 2));
        index.insert([(moved, place(1, 1)), (gone, place(1, 2))]);
        merge(&index);
        index.insert([(moved, place(2, 1))]);
        index.remove([gone]);
        for merged in [false, true] {
            assert_eq!(
                index.place(&moved).unwrap(),
                Some(place(2, 1)),
                "merged: {merged}"
            );
            assert_eq!(index.place(&gone).unwrap(), None, "merged: {merged}");
            merge(&index);
        }
    }

    #[test]
    fn an_unfinished_snapshot_does_not_keep_it_from_opening() {
        let folder = tempfile::tempdir().unwrap();
        let (index, ..) = open(folder.path());
        index.insert([(key(&index, 1), place(1, 1))]);
        merge(&index);
        drop(index);
        fs::write(
            folder.path().join("index/snap.00000000FFFFFFFF.generating"),
            b"",
        )
        .unwrap();
        let (_, known, notices) = open(folder.path());
        assert_eq!(known, Some(checkpoint()));
        assert_eq!(notices, Vec::<String>::new());
    }

    #[test]
    fn what_sled_cannot_open_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (index, ..) = open(folder.path());
        merge(&index);
        drop(index);
        fs::write(
            folder.path().join("index/conf"),
            b"not a sled configuration",
        )
        .unwrap();
        let (_, known, notices) = open(folder.path());
        assert_eq!(known, None);
        assert_eq!(notices.len(), 1);
        assert!(folder.path().join("index.set-aside").exists());
    }

    #[test]
    fn two_openings_that_did_not_finish_set_it_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (index, ..) = open(folder.path());
        merge(&index);
        drop(index);
        fs::write(folder.path().join("index.opening"), b"xx").unwrap();
        let (_, known, notices) = open(folder.path());
        assert_eq!((known, notices.len()), (None, 1));
    }
}
