//! From blocks to sections.
//!
//! Whoever puts a block first *holds* its key, then looks whether the block is here already, then
//! appends it if not. A sweep asks the holds and deletes while no writer is between holding and
//! looking: so a block that a writer found present is never deleted under its hands.

use super::MERGE_AT;
use super::{Inner, Keep};
use crate::block::Block;
use crate::cid;
use crate::cid::Cid;
use crate::filestore::unfit;
use crate::index::Key;
use crate::journal::record::Record;
use crate::journal::{DEAD_PER_RECORD, Sync};
use crate::log::append::APPEND_BYTES_MAX;
use crate::log::files::Access;
use crate::log::{Place, Position, Stream};
use crate::pin::{PinError, PinMode, PinWish, Whole};
use crate::sink::{BlockSink, Placed, PutError};
use crate::sync::Mutex;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Keys that garbage collection leaves alone as long as this lives.
#[derive(Debug)]
pub(crate) struct Hold {
    keys: Mutex<HashSet<Key>>,
    /// The store's count of losses when this was made: what is held is whole as long as it stays.
    pub(crate) losses: u64,
}

impl Hold {
    pub(crate) fn add(&self, keys: impl IntoIterator<Item = Key>) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(keys);
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(key)
    }
}

/// A sink into the store. It blocks: use it on a thread of its own.
#[derive(Debug)]
pub struct Writer {
    inner: Arc<Inner>,
    keep: Keep,
    hold: Arc<Hold>,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, keep: Keep) -> Self {
        let hold = inner.hold();
        Self { inner, keep, hold }
    }

    /// All that was put, held on: for what takes it into the file tree.
    pub fn into_whole(self) -> Whole {
        Whole::of(self.hold)
    }

    /// Makes all that was put durable.
    pub fn commit(&mut self) -> Result<(), PutError> {
        self.inner.commit_since(self.hold.losses, Vec::new())
    }

    /// Makes all that was put durable, and pins `roots` in the same commit: all of them or none.
    /// Everything below them must have been put through this writer.
    pub fn commit_and_pin(&mut self, roots: &[Cid], name: Option<&str>) -> Result<(), PinError> {
        let pin = |root: &Cid| {
            let wish = PinWish::new(*root, PinMode::Recursive).named(name.map(str::to_owned));
            Ok(Record::Pinned(self.inner.pin_wished(wish)?))
        };
        let pins: Vec<Record> = roots.iter().map(pin).collect::<Result<_, PinError>>()?;
        Ok(self.inner.commit_since(self.hold.losses, pins)?)
    }
}

impl BlockSink for Writer {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        self.inner.put(&blocks, self.keep, &self.hold)
    }

    fn put_placed(&mut self, placed: Vec<Placed>) -> Result<(), PutError> {
        self.inner.put_placed(&placed, &self.hold)
    }
}

impl Inner {
    /// A new, empty hold.
    pub(crate) fn hold(&self) -> Arc<Hold> {
        let hold = Arc::new(Hold {
            keys: Mutex::default(),
            losses: self.losses(),
        });
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| hold.strong_count() > 0);
        holds.push(Arc::downgrade(&hold));
        hold
    }

    /// Whether anybody holds the key.
    pub(crate) fn is_held(&self, key: &Key) -> bool {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .any(|hold| hold.has(key))
    }

    /// Takes blocks: visible when this returns, durable with the next commit.
    pub(crate) fn put(&self, blocks: &[Block], keep: Keep, hold: &Hold) -> Result<(), PutError> {
        self.put_over(blocks, keep, hold, References::Replaced)
    }

    /// Keeps blocks that were just read from here or put here; those that lie in the user's files stay there.
    pub(crate) fn put_unless_in_place(
        &self,
        blocks: &[Block],
        hold: &Hold,
    ) -> Result<(), PutError> {
        self.put_over(blocks, Keep::Kept, hold, References::Left)
    }

    fn put_over(
        &self,
        blocks: &[Block],
        keep: Keep,
        hold: &Hold,
        references: References,
    ) -> Result<(), PutError> {
        if self.is_closed() {
            return Err(PutError::Closing);
        }
        if self.files.access == Access::ReadOnly {
            return Err(PutError::ReadOnly);
        }
        let named: Vec<(Key, &Block)> = blocks
            .iter()
            .filter(|block| !cid::is_identity(block.cid()))
            .map(|block| (self.index.key(block.cid().hash()), block))
            .collect();
        let no_sweep = self.sweeping.read().unwrap_or_else(PoisonError::into_inner);
        hold.add(named.iter().map(|(key, _)| *key));
        let merges = self.index.merges();
        let mut new = Vec::with_capacity(named.len());
        for (key, block) in named {
            let found = self
                .raw_place(&key)
                .map_err(|error| PutError::Disk(error.to_string()))?;
            match found {
                None => new.push(New {
                    key,
                    block,
                    stream: stream_of(block, keep),
                    replaces: None,
                }),
                // What takes the place of a kept block is kept, whoever sent it.
                Some(place)
                    if place.is_reference() && !place.damaged && references == References::Left => {
                }
                Some(place) if place.damaged || place.is_reference() => new.push(New {
                    key,
                    block,
                    stream: stream_of(block, if place.cached { keep } else { Keep::Kept }),
                    replaces: Some(place),
                }),
                Some(place) if place.cached && keep == Keep::Kept => self.promote(&key)?,
                Some(_) => {}
            }
        }
        drop(no_sweep);
        self.put_new(&new, merges)
    }

    /// Takes blocks that lie in the user's files: not their bytes, but where they are. What is here as a block stays
    /// one.
    fn put_placed(&self, placed: &[Placed], hold: &Hold) -> Result<(), PutError> {
        if self.is_closed() {
            return Err(PutError::Closing);
        }
        if self.files.access == Access::ReadOnly {
            return Err(PutError::ReadOnly);
        }
        let sections: Vec<(Key, Block)> = placed
            .iter()
            .filter(|placed| !cid::is_identity(placed.block.cid()))
            .map(|placed| {
                let cid = *placed.block.cid();
                let reference = placed.reference();
                let kept = reference.encode(&cid).ok_or_else(|| unfit(&reference))?;
                Ok((self.index.key(cid.hash()), Block::trusted(cid, kept)))
            })
            .collect::<Result<_, PutError>>()?;
        let no_sweep = self.sweeping.read().unwrap_or_else(PoisonError::into_inner);
        hold.add(sections.iter().map(|(key, _)| *key));
        let merges = self.index.merges();
        let mut new = Vec::with_capacity(sections.len());
        for (key, section) in &sections {
            let found = self
                .raw_place(key)
                .map_err(|error| PutError::Disk(error.to_string()))?;
            let section = |replaces| New {
                key: *key,
                block: section,
                stream: Stream::File,
                replaces,
            };
            match found {
                None => new.push(section(None)),
                Some(place) if place.damaged => new.push(section(Some(place))),
                Some(place) if place.cached => self.promote(key)?,
                Some(place) if place.is_reference() && !self.holds(&place, section(None).block) => {
                    new.push(section(Some(place)));
                }
                Some(_) => {}
            }
        }
        drop(no_sweep);
        self.put_new(&new, merges)
    }

    /// Whether the section at a place has these bytes.
    fn holds(&self, place: &Place, block: &Block) -> bool {
        let prefix = crate::car::write::section_prefix(block);
        let length = (prefix.len() + block.data().len()) as u64;
        let segment = self.segment(place.segment);
        let there =
            segment.and_then(|segment| segment.read_unchecked(place.offset.into(), length).ok());
        there.is_some_and(|there| there.strip_prefix(&prefix[..]) == Some(&block.data()[..]))
    }

    fn put_new(&self, new: &[New<'_>], merges: u64) -> Result<(), PutError> {
        if new.is_empty() {
            return Ok(());
        }
        let bytes: usize = new.iter().map(|new| new.block.data().len()).sum();
        self.check_space(bytes as u64)?;
        for stream in Stream::ALL {
            let mut batch = Vec::new();
            let mut batch_bytes = 0;
            for new in new.iter().filter(|new| new.stream == stream) {
                if batch_bytes + new.block.data().len() > APPEND_BYTES_MAX {
                    self.append(stream, &std::mem::take(&mut batch), merges)?;
                    batch_bytes = 0;
                }
                batch_bytes += new.block.data().len();
                batch.push(new);
            }
            self.append(stream, &batch, merges)?;
        }
        Ok(())
    }

    /// Lets a cached block be kept from now on; durable with the next commit.
    pub(crate) fn promote(&self, key: &Key) -> Result<(), PutError> {
        // Compaction re-points under the same lock: the place must be the one of this moment.
        let _nobody_appends = self.lock_appender();
        let now = self.index.place(key)?;
        if let Some(now) = now.filter(|now| now.cached) {
            let kept = Place {
                cached: false,
                ..now
            };
            self.index.insert([(*key, kept)]);
            self.promoted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(now.position());
        }
        Ok(())
    }

    /// Appends what is still new. `merges` is from before the blocks were looked up.
    fn append(&self, stream: Stream, batch: &[&New<'_>], merges: u64) -> Result<(), PutError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut appender = self.lock_appender();
        // Again, now that nobody else can append: another writer may have been faster, and one
        // batch may hold a block twice. What was put since the first look is in the memory table,
        // unless that was merged meanwhile.
        let mut seen = HashSet::new();
        let mut still = Vec::with_capacity(batch.len());
        for new in batch {
            if !seen.insert(new.key) {
                continue;
            }
            let now = self.index.changed(&new.key, merges)?.flatten();
            match self.counting(now) {
                None => still.push((*new, new.replaces)),
                // A block takes the place of any reference, a reference of the one it was compared with.
                Some(now)
                    if now.is_reference()
                        && (stream != Stream::File || new.replaces == Some(now)) =>
                {
                    still.push((*new, Some(now)));
                }
                Some(now) if now.cached && stream != Stream::Cache => {
                    // Somebody's cached copy was faster than ours to keep.
                    let kept = Place {
                        cached: false,
                        ..now
                    };
                    self.index.insert([(new.key, kept)]);
                    self.promoted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(now.position());
                }
                Some(_) => {}
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        let blocks: Vec<&Block> = still.iter().map(|(new, _)| new.block).collect();
        let (places, segment) = appender
            .append(stream, &blocks)
            .map_err(|error| self.write_failed("blocks", &error))?;
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(segment.id)
            .or_insert(segment);
        let appended: u64 = blocks.iter().map(|block| block.data().len() as u64).sum();
        self.counts.add(blocks.len() as u64, appended);
        self.unmerged.fetch_add(appended, Ordering::Relaxed);
        let unsynced = self.unsynced.fetch_add(appended, Ordering::Relaxed) + appended;
        let replaced: Vec<(Key, Place)> = still
            .iter()
            .filter_map(|(new, old)| Some((new.key, old.filter(|old| !self.is_dead(old))?)))
            .collect();
        for (_, old) in replaced.iter().filter(|(_, old)| !old.damaged) {
            self.uncount(old.length.into());
        }
        self.superseded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(replaced);
        self.index
            .insert(still.iter().map(|(new, _)| new.key).zip(places));
        if stream == Stream::Cache && self.cache_is_full() {
            self.wakes.notify_one();
        }
        if unsynced >= SYNC_EVERY || self.index.waiting() >= MERGE_AT {
            // The disk works while the next blocks are hashed, and dirty memory stays bounded.
            self.unsynced.store(0, Ordering::Relaxed);
            self.kick_syncer();
        }
        Ok(())
    }

    /// Deletes blocks, whatever reaches them, but for those that somebody holds. With a version of
    /// the pins, only as long as that is the present one; else `None`.
    pub(crate) fn delete(
        &self,
        cids: &[Cid],
        pins: Option<u64>,
    ) -> Result<Option<Vec<Cid>>, PutError> {
        let mut deleted = Vec::new();
        for cids in cids.chunks(DEAD_PER_RECORD) {
            // A deletion names places, so what it names must be beyond recovery's scissors first.
            self.commit(Vec::new())?;
            let _no_writer_looks = self
                .sweeping
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let _nobody_appends = self.lock_appender();
            // After the holds: whoever let go of one has made its pin before.
            let keys = cids.iter().map(|cid| (self.index.key(cid.hash()), cid));
            let free: Vec<_> = keys.filter(|(key, _)| !self.is_held(key)).collect();
            if pins.is_some_and(|pins| pins != self.pins.read().changes()) {
                return Ok(None);
            }
            let mut dead = Vec::new();
            let mut seen = HashSet::new();
            for (key, cid) in free {
                let place = self.raw_place(&key)?;
                if let Some(place) = place.filter(|place| self.is_committed(place))
                    && seen.insert(key)
                {
                    dead.push((key, place));
                    deleted.push(*cid);
                }
            }
            if !dead.is_empty() {
                self.bury(&dead, Sync::Leave)?;
            }
        }
        // Also if nothing was here: a collection may have deleted it, and waited for nobody.
        self.sync_journal()?;
        Ok(Some(deleted))
    }

    /// Whether the section lies within what the journal counts.
    pub(crate) fn is_committed(&self, place: &Place) -> bool {
        self.is_committed_at(&place.position())
    }

    pub(crate) fn is_committed_at(&self, position: &Position) -> bool {
        let journal = self.lock_journal();
        let length = journal.state().lengths.get(&position.segment);
        length.is_some_and(|length| position.offset < *length)
    }

    /// Lets committed sections no longer count. The caller holds the appender's lock.
    pub(crate) fn bury(&self, dead: &[(Key, Place)], sync: Sync) -> Result<(), PutError> {
        let positions: Vec<_> = dead.iter().map(|(_, place)| place.position()).collect();
        let record = || vec![Record::Deleted(positions.clone())];
        let append = |record| {
            self.lock_journal()
                .append(record, sync)
                .map_err(|error| self.write_failed("journal", &error))
        };
        match append(record()) {
            // Giving things up must be possible with nothing free.
            Err(PutError::Full(_)) if self.release_ballast() => append(record())?,
            appended => appended?,
        }
        self.index.remove(dead.iter().map(|(key, _)| *key));
        for (_, place) in dead.iter().filter(|(_, place)| !place.damaged) {
            self.uncount(place.length.into());
        }
        Ok(())
    }
}

/// What becomes of a reference to a block that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum References {
    /// The block takes its place.
    Replaced,
    /// It stays, and the block is dropped.
    Left,
}

/// A block that is to be written.
struct New<'a> {
    key: Key,
    block: &'a Block,
    stream: Stream,
    /// The damaged section or the reference whose place it takes.
    replaces: Option<Place>,
}

fn stream_of(block: &Block, keep: Keep) -> Stream {
    match keep {
        Keep::Kept => Stream::of_codec(block.cid().codec()),
        Keep::Cached => Stream::Cache,
    }
}

/// Bytes after which the disk is asked to start writing.
const SYNC_EVERY: u64 = 64 << 20;
