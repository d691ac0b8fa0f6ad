//! From a multihash to the place of its block: a memory table over packed buckets in sled.
//!
//! Everything here is derived from the log and may be lost. New places live in a table in memory;
//! now and then the table is frozen, merged below and forgotten, and the position in the log up
//! to which the index knows everything is written after it.
//!
//! * [`buckets`]: packed entries, and how changes go into them.
//! * [`on_disk`]: two tiers of buckets in sled.
//! * [`in_memory`]: the same without a disk, where sled must not or cannot be used.
//! * [`table`]: what was not merged yet.
//!
//! Keys are 16 bytes of a hash keyed with a secret of this index, so that nobody can grind blocks
//! into one bucket. Whoever reads a block compares the whole multihash with the section's.

pub(crate) mod buckets;
mod in_memory;
mod on_disk;
mod table;

use crate::cid::Multihash;
use crate::log::{Place, SegmentId, Stream};
use crate::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
pub(crate) use in_memory::Image;
use on_disk::{NamedBucket, OnDisk};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
pub(crate) use table::Frozen;
use table::Table;

/// What a block is found by.
pub(crate) type Key = [u8; 16];

/// The index, open.
#[derive(Debug)]
pub(crate) struct Index {
    backing: RwLock<Backing>,
    secret: [u8; 32],
    table: Table,
    /// Held while a frozen table is merged, and by whoever needs that nothing is.
    merging: Mutex<()>,
    /// For those who wait until nothing is frozen.
    thawing: Mutex<()>,
    thawed: Condvar,
    /// How often something has been merged.
    merges: AtomicU64,
    role: Role,
    /// Whether it must not be trusted after the next opening.
    partial: AtomicBool,
}

/// What came of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Everything that was frozen is below, and the checkpoint stands.
    All,
    /// It had been thawed, because some of it was given up; nothing was merged.
    Thawed,
}

/// What an index is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Who looks for a block asks this one.
    Asked,
    /// It is being made beside the one that is asked.
    Made,
}

/// What lies below the memory table.
#[derive(Debug)]
enum Backing {
    OnDisk(OnDisk),
    InMemory(Arc<Image>),
}

/// Where an index is.
#[derive(Debug, Clone)]
pub(crate) enum Location {
    /// In sled, in this folder.
    Folder(PathBuf),
    /// Nowhere but in memory.
    Memory(Arc<Image>),
}

/// How far the index knows the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Where each segment that was growing then ended.
    pub(crate) ends: BTreeMap<SegmentId, u32>,
    /// The highest number of each stream then. All others up to it are known whole.
    pub(crate) last: BTreeMap<Stream, u32>,
    /// Blocks present then.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The journal's last record then.
    pub(crate) journal: u64,
    /// Whether a later merge was broken off: then some entries may be newer than the counts.
    pub(crate) merging: bool,
}

/// The index failed. Nothing is lost: it can be built anew from the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the index failed ({0}); restart to have it rebuilt from the blocks")]
pub(crate) struct IndexError(String);

impl IndexError {
    /// It names a segment that is not there.
    pub(crate) fn missing(segment: SegmentId) -> Self {
        Self(format!(
            "it names segment {segment}, which is not there; run `cairn repo rebuild`"
        ))
    }

    /// Every look found another place.
    pub(crate) fn restless() -> Self {
        Self("the block was being moved all the time; try again".to_owned())
    }
}

impl Index {
    /// Opens the index; whatever is there and cannot be used is set aside, with a sentence for the
    /// operator. `None` as checkpoint: it knows nothing.
    pub(crate) fn open(
        location: &Location,
        cache_bytes: u64,
        on_notice: &mut dyn FnMut(String),
    ) -> io::Result<(Self, Option<Checkpoint>)> {
        let (backing, secret, checkpoint) = match location {
            Location::Folder(folder) => {
                let (on_disk, secret, checkpoint) = OnDisk::open(folder, cache_bytes, on_notice)?;
                (Backing::OnDisk(on_disk), secret, checkpoint)
            }
            Location::Memory(image) => {
                let (secret, checkpoint) = image.meta();
                (Backing::InMemory(image.clone()), secret, checkpoint)
            }
        };
        let index = Self {
            backing: RwLock::new(backing),
            secret,
            table: Table::default(),
            merging: Mutex::default(),
            thawing: Mutex::default(),
            thawed: Condvar::default(),
            merges: AtomicU64::new(0),
            role: Role::Asked,
            partial: AtomicBool::new(false),
        };
        Ok((index, checkpoint))
    }

    /// Forgets everything, before a rebuild.
    pub(crate) fn clear(&self) -> Result<(), IndexError> {
        let _nobody_merges = self.lock_merging();
        self.table.clear();
        match &*self.backing() {
            Backing::OnDisk(on_disk) => on_disk.clear(),
            Backing::InMemory(image) => {
                image.clear();
                Ok(())
            }
        }
    }

    /// Goes on with `image` below the memory table: sled failed while running.
    pub(crate) fn replace(&self, image: Arc<Image>) {
        let _nobody_merges = self.lock_merging();
        *self.backing.write().unwrap_or_else(PoisonError::into_inner) = Backing::InMemory(image);
    }

    /// An empty image with this index's secret, to be filled and given to [`Index::replace`].
    pub(crate) fn empty_image(&self) -> Image {
        Image::with_secret(self.secret)
    }

    /// An empty index with the same keys beside this one, in sled if this one is, to be filled and
    /// given to [`Index::adopt`].
    pub(crate) fn aside(&self) -> Result<Self, IndexError> {
        let backing = match &*self.backing() {
            Backing::OnDisk(on_disk) => Backing::OnDisk(on_disk.aside()?),
            Backing::InMemory(_) => Backing::InMemory(Arc::new(self.empty_image())),
        };
        Ok(self.with(backing))
    }

    /// [`Index::aside`] in memory, where the disk has no room.
    pub(crate) fn aside_in_memory(&self) -> Self {
        self.with(Backing::InMemory(Arc::new(self.empty_image())))
    }

    fn with(&self, backing: Backing) -> Self {
        Self {
            backing: RwLock::new(backing),
            secret: self.secret,
            table: Table::default(),
            merging: Mutex::default(),
            thawing: Mutex::default(),
            thawed: Condvar::default(),
            merges: AtomicU64::new(0),
            role: Role::Made,
            partial: AtomicBool::new(false),
        }
    }

    /// Goes on with what `aside` holds and what `frozen` says beyond that. Without a checkpoint it is
    /// not to be trusted after the next opening.
    pub(crate) fn adopt(
        &self,
        aside: &Self,
        frozen: &Frozen,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), IndexError> {
        let _nobody_merges = self.lock_merging();
        if let Some(rest) = aside.freeze() {
            aside.merge(&rest, None)?;
        }
        // If it was thawed meanwhile, it lies over the new index like everything newer.
        let still = self.table.holds(frozen);
        if still {
            aside.merge(frozen, None)?;
        }
        let checkpoint = checkpoint.filter(|_| still);
        let nothing = Backing::InMemory(Arc::new(aside.empty_image()));
        let new = {
            let mut made = aside
                .backing
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *made, nothing)
        };
        if let Backing::OnDisk(on_disk) = &new {
            on_disk.let_count(checkpoint)?;
        }
        self.partial.store(checkpoint.is_none(), Ordering::Release);
        let mut backing = self.backing.write().unwrap_or_else(PoisonError::into_inner);
        let old = match (&mut *backing, new) {
            (Backing::InMemory(image), Backing::InMemory(made)) => {
                image.take_over(&made, checkpoint);
                None
            }
            (now, new) => Some(std::mem::replace(now, new)),
        };
        drop(backing);
        self.merges.fetch_add(1, Ordering::AcqRel);
        self.table.thawed(frozen);
        self.tell_thawed();
        if let Some(Backing::OnDisk(old)) = old
            && self.is_on_disk()
        {
            old.discard()?;
        }
        Ok(())
    }

    /// Lets nothing be merged as long as the answer lives: what is below the memory table stays as it is.
    pub(crate) fn hold_still(&self) -> Still<'_> {
        Still {
            index: self,
            _nobody_merges: self.lock_merging(),
        }
    }

    /// Waits until nothing is frozen: until a merge that somebody has begun is over.
    pub(crate) fn wait_for_thaw(&self) {
        let mut thawing = self.thawing.lock().unwrap_or_else(PoisonError::into_inner);
        while self.table.is_frozen() {
            thawing = self
                .thawed
                .wait(thawing)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tell_thawed(&self) {
        // So that nobody looks before the thaw and waits after this.
        drop(self.thawing.lock());
        self.thawed.notify_all();
    }

    /// Whether sled is used.
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(&*self.backing(), Backing::OnDisk(_))
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
        let found = self.merged(key)?;
        if found.is_none() {
            // A merge may have ended between the two looks, but then it was asked after it.
            return Ok(self.recent(key).flatten());
        }
        Ok(found)
    }

    fn merged(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        match &*self.backing() {
            Backing::OnDisk(on_disk) => on_disk.place(key),
            Backing::InMemory(image) => Ok(image.place(key)),
        }
    }

    /// What the memory table says: `None` nothing, `Some(None)` surely absent.
    pub(crate) fn recent(&self, key: &Key) -> Option<Option<Place>> {
        self.table.get(key)
    }

    /// What became of a key since the number of merges was `merges`; `None` if nothing did.
    pub(crate) fn changed(
        &self,
        key: &Key,
        merges: u64,
    ) -> Result<Option<Option<Place>>, IndexError> {
        match self.recent(key) {
            Some(now) => Ok(Some(now)),
            // Asked after the look into the table.
            None if self.merges() == merges => Ok(None),
            None => self.place(key).map(Some),
        }
    }

    /// A number that stays as long as nothing has left the memory table.
    pub(crate) fn merges(&self) -> u64 {
        self.merges.load(Ordering::Acquire)
    }

    /// Lets `place` count from now on.
    pub(crate) fn insert(&self, entries: impl IntoIterator<Item = (Key, Place)>) {
        for (key, place) in entries {
            self.table.set(key, Some(place));
        }
    }

    /// The block is gone.
    pub(crate) fn remove(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.table.set(key, None);
        }
    }

    /// Begins to watch these keys: from now on a change of one takes it out.
    pub(crate) fn watch(&self, keys: impl IntoIterator<Item = Key>) {
        self.table.watch(keys);
    }

    /// Whether the key is watched and has not changed since.
    pub(crate) fn is_unchanged(&self, key: &Key) -> bool {
        self.table.is_watched(key)
    }

    /// Ends watching.
    pub(crate) fn stop_watching(&self) {
        self.table.watch([]);
    }

    /// Forgets places in the memory table that turned out never to have reached the disk, and thaws
    /// what was frozen.
    pub(crate) fn forget(&self, lost: impl FnMut(&Place) -> bool) {
        self.table.forget(lost);
        self.tell_thawed();
    }

    /// Entries waiting to be merged.
    pub(crate) fn waiting(&self) -> usize {
        self.table.waiting()
    }

    /// Sets the memory table's content apart for a merge. `None` if a merge is under way.
    pub(crate) fn freeze(&self) -> Option<Frozen> {
        self.table.freeze()
    }

    /// Merges what was frozen and then writes `checkpoint`: all of it must be durable in the log by
    /// now. Without a checkpoint the index is not yet to be trusted.
    pub(crate) fn merge(
        &self,
        frozen: &Frozen,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Merged, IndexError> {
        let _one_at_a_time = self.lock_merging();
        if self.role == Role::Asked && !self.table.holds(frozen) {
            return Ok(Merged::Thawed);
        }
        let partial = self.partial.load(Ordering::Acquire);
        let checkpoint = checkpoint.filter(|_| !partial);
        match (&*self.backing(), self.role) {
            (Backing::OnDisk(on_disk), Role::Asked) => {
                on_disk.merge(frozen, checkpoint)?;
            }
            (Backing::OnDisk(on_disk), Role::Made) => on_disk.fill(frozen)?,
            (Backing::InMemory(image), _) => image.merge(frozen, checkpoint),
        }
        // First: whoever misses in the memory table what was thawed sees by the count that it was.
        self.merges.fetch_add(1, Ordering::AcqRel);
        self.table.thawed(frozen);
        self.tell_thawed();
        Ok(Merged::All)
    }

    /// Calls `each` with the entries of one bucket after the other, as they stand when it is called,
    /// beginning with bucket `from`, until it says stop; the last calls are with what is in the memory
    /// table alone. Answers the bucket to go on with, if it was stopped. Nothing is merged meanwhile:
    /// what changes after an entry was told is in the memory table.
    pub(crate) fn each(
        &self,
        from: u16,
        mut each: impl FnMut(&[(Key, Place)]) -> ControlFlow<()>,
    ) -> Result<Option<u16>, IndexError> {
        let _nobody_merges = self.lock_merging();
        let mut overlaid = |mut entries: Vec<(Key, Place)>| {
            entries.retain(|(key, _)| self.table.get(key).is_none());
            each(&entries)
        };
        let mut walk = match &*self.backing() {
            Backing::OnDisk(on_disk) => Walk::OnDisk(Box::new(on_disk.buckets(from))),
            Backing::InMemory(image) => Walk::InMemory(image.clone(), Some(from)),
        };
        while let Some((number, places)) = walk.next()? {
            let from = number.checked_add(1);
            if overlaid(places).is_break() && from.is_some() {
                return Ok(from);
            }
        }
        for recent in self.table.places() {
            let _ = each(&recent);
        }
        Ok(None)
    }

    /// A small text of somebody's that may be lost, by name.
    pub(crate) fn note(&self, name: &str) -> Option<Vec<u8>> {
        match &*self.backing() {
            Backing::OnDisk(on_disk) => on_disk.note(name),
            Backing::InMemory(_) => None,
        }
    }

    /// Keeps such a text.
    pub(crate) fn set_note(&self, name: &str, text: &[u8]) -> Result<(), IndexError> {
        match &*self.backing() {
            Backing::OnDisk(on_disk) => on_disk.set_note(name, text),
            Backing::InMemory(_) => Ok(()),
        }
    }

    fn backing(&self) -> RwLockReadGuard<'_, Backing> {
        self.backing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_merging(&self) -> MutexGuard<'_, ()> {
        self.merging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An index into which nothing is merged.
pub(crate) struct Still<'a> {
    index: &'a Index,
    _nobody_merges: MutexGuard<'a, ()>,
}

impl Still<'_> {
    /// Makes a copy in `folder`, which knows the log as far as the last checkpoint goes; none if there is no
    /// checkpoint, or no sled. Answers whether there is one now.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<bool, IndexError> {
        match &*self.index.backing() {
            Backing::OnDisk(on_disk) => on_disk.copy_to(folder),
            Backing::InMemory(_) => Ok(false),
        }
    }
}

/// A walk over the buckets below the memory table.
enum Walk {
    OnDisk(Box<on_disk::Buckets>),
    /// From which bucket on.
    InMemory(Arc<Image>, Option<u16>),
}

impl Walk {
    fn next(&mut self) -> Result<Option<NamedBucket>, IndexError> {
        match self {
            Self::OnDisk(buckets) => buckets.next(),
            Self::InMemory(image, from) => {
                let next = from.and_then(|number| image.next_bucket(number));
                *from = next.as_ref().and_then(|(number, _)| number.checked_add(1));
                Ok(next)
            }
        }
    }
}

impl Checkpoint {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.blocks, self.bytes, self.journal] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let last = self.last.iter().map(|(stream, number)| {
            let number = *number;
            let stream = *stream;
            (SegmentId { stream, number }, LAST)
        });
        let ends = self.ends.iter().map(|(segment, end)| (*segment, *end));
        for (segment, end) in last.chain(ends) {
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
        let (mut ends, mut last) = (BTreeMap::new(), BTreeMap::new());
        while let Some(pair) = number() {
            let segment = SegmentId::unpacked(u32::try_from(pair >> 32).ok()?);
            match u32::try_from(pair & u64::from(u32::MAX)).ok()? {
                LAST => drop(last.insert(segment.stream, segment.number)),
                end => drop(ends.insert(segment, end)),
            }
        }
        cursor.is_empty().then_some(Self {
            ends,
            last,
            blocks,
            bytes,
            journal,
            merging: false,
        })
    }
}

/// In the place of an end: the segment has the highest number of its stream. No segment is that long.
const LAST: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
            damaged: false,
        }
    }

    fn key(index: &Index, at: u32) -> Key {
        index.key(&Multihash::wrap(0x12, &at.to_be_bytes()).unwrap())
    }

    fn open(folder: &Path) -> (Index, Option<Checkpoint>, Vec<String>) {
        let mut notices = Vec::new();
        let location = Location::Folder(folder.join("index"));
        let (index, checkpoint) = Index::open(&location, 1 << 20, &mut |notice| {
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
            last: BTreeMap::from([(Stream::Node, 3), (Stream::Cache, 9)]),
            blocks: 1,
            bytes: 2,
            journal: 3,
            merging: false,
        }
    }

    fn count(index: &Index) -> usize {
        let mut count = 0;
        let mut add = |entries: &[(Key, Place)]| {
            count += entries.len();
            ControlFlow::Continue(())
        };
        index.each(0, &mut add).unwrap();
        count
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
        assert_eq!(count(&index), 2000);
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
    fn a_watched_key_is_told_from_one_that_changed_since() {
        let folder = tempfile::tempdir().unwrap();
        let (index, ..) = open(folder.path());
        let keys = [key(&index, 1), key(&index, 2), key(&index, 3)];
        index.insert([(keys[0], place(1, 1)), (keys[1], place(1, 2))]);
        index.watch(keys);
        index.insert([(keys[0], place(2, 9))]);
        index.remove([keys[1]]);
        merge(&index);
        assert_eq!(
            keys.map(|key| index.is_unchanged(&key)),
            [false, false, true]
        );
        index.stop_watching();
        assert!(!index.is_unchanged(&keys[2]));
    }

    #[test]
    fn what_is_merged_and_what_is_not_is_told_together_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let (index, ..) = open(folder.path());
        index.insert((0..10).map(|at| (key(&index, at), place(1, at))));
        merge(&index);
        index.remove([key(&index, 0)]);
        index.insert((8..13).map(|at| (key(&index, at), place(2, at))));
        let mut told = Vec::new();
        let mut tell = |entries: &[(Key, Place)]| {
            told.extend_from_slice(entries);
            ControlFlow::Continue(())
        };
        index.each(0, &mut tell).unwrap();
        told.sort_by_key(|(_, place)| place.offset);
        let wanted = (1..13).map(|at| (key(&index, at), place(1 + u32::from(at >= 8), at)));
        assert_eq!(told, wanted.collect::<Vec<_>>());
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
