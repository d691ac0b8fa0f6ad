//! From blocks to sections.
//!
//! Whoever puts a block first *holds* its key, then looks whether the block is here already, then
//! appends it if not. A sweep asks the holds and deletes while no writer is between holding and
//! looking: so a block that a writer found present is never deleted under its hands.

use super::commit::MERGE_AT;
use super::{Inner, Keep};
use crate::block::Block;
use crate::cid;
use crate::cid::Cid;
use crate::index::Key;
use crate::journal::record::Record;
use crate::log::append::APPEND_BYTES_MAX;
use crate::log::{Place, Stream};
use crate::pin::{Pin, PinError, PinMode};
use crate::sink::{BlockSink, PutError};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

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

    /// Makes all that was put durable.
    pub fn commit(&mut self) -> Result<(), PutError> {
        self.inner.commit_since(self.hold.losses, Vec::new())
    }

    /// Makes all that was put durable, and pins `roots` in the same commit: all of them or none.
    /// Everything below them must have been put through this writer.
    pub fn commit_and_pin(&mut self, roots: &[Cid], name: Option<&str>) -> Result<(), PinError> {
        let pin = |root: &Cid| {
            let name = self.inner.pin_name(root, name.map(str::to_owned));
            Ok(Record::Pinned(Pin::new(*root, PinMode::Recursive, name)?))
        };
        let pins: Vec<Record> = roots.iter().map(pin).collect::<Result<_, PinError>>()?;
        Ok(self.inner.commit_since(self.hold.losses, pins)?)
    }
}

impl BlockSink for Writer {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        self.inner.put(&blocks, self.keep, &self.hold)
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
        if self.is_closed() {
            return Err(PutError::Closing);
        }
        let mut new: Vec<(Key, &Block)> = blocks
            .iter()
            .filter(|block| !cid::is_identity(block.cid()))
            .map(|block| (self.index.key(block.cid().hash()), block))
            .collect();
        let no_sweep = self.sweeping.read().unwrap_or_else(PoisonError::into_inner);
        hold.add(new.iter().map(|(key, _)| *key));
        let mut failed = None;
        new.retain(|(key, block)| match self.place(block.cid(), key) {
            Ok(found) => self.is_new(key, found, keep),
            Err(error) => {
                failed = Some(PutError::Disk(error.to_string()));
                false
            }
        });
        drop(no_sweep);
        if let Some(error) = failed {
            return Err(error);
        }
        let bytes: usize = new.iter().map(|(_, block)| block.data().len()).sum();
        if bytes == 0 && new.is_empty() {
            return Ok(());
        }
        self.check_space(bytes as u64)?;
        for stream in Stream::ALL {
            let mut batch = Vec::new();
            let mut batch_bytes = 0;
            for (key, block) in &new {
                if Stream::of_codec(block.cid().codec()) != stream {
                    continue;
                }
                if batch_bytes + block.data().len() > APPEND_BYTES_MAX {
                    self.append(stream, &std::mem::take(&mut batch), keep)?;
                    batch_bytes = 0;
                }
                batch_bytes += block.data().len();
                batch.push((*key, *block));
            }
            self.append(stream, &batch, keep)?;
        }
        Ok(())
    }

    /// Whether a block must be written although the index was asked. One that is here as cached
    /// becomes kept if that is wanted now.
    fn is_new(&self, key: &Key, found: Option<Place>, keep: Keep) -> bool {
        let Some(place) = found else { return true };
        if place.cached && keep == Keep::Kept {
            // Compaction re-points under the same lock: the place must be the one of this moment.
            let _nobody_appends = self.lock_appender();
            if let Ok(Some(now)) = self.index.place(key) {
                self.index.insert([(
                    *key,
                    Place {
                        cached: false,
                        ..now
                    },
                )]);
            }
        }
        false
    }

    fn append(&self, stream: Stream, batch: &[(Key, &Block)], keep: Keep) -> Result<(), PutError> {
        let mut appender = self.lock_appender();
        // Again, now that nobody else can append: another writer may have been faster, and one
        // batch may hold a block twice.
        let mut seen = HashSet::new();
        let batch: Vec<&(Key, &Block)> = batch
            .iter()
            .filter(|(key, _)| {
                let recent = self.index.recent(key).flatten();
                seen.insert(*key) && self.counting(key, recent).is_none()
            })
            .collect();
        if batch.is_empty() {
            return Ok(());
        }
        let blocks: Vec<&Block> = batch.iter().map(|(_, block)| *block).collect();
        let (places, segment) = appender
            .append(stream, &blocks, keep == Keep::Cached)
            .map_err(|error| self.write_failed(&error))?;
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(segment.id)
            .or_insert(segment);
        let appended: u64 = blocks.iter().map(|block| block.data().len() as u64).sum();
        let replaced = self.replaced(&batch);
        let added = blocks.len() as u64;
        self.blocks.fetch_add(added, Ordering::Relaxed);
        self.bytes.fetch_add(appended, Ordering::Relaxed);
        self.unmerged.fetch_add(appended, Ordering::Relaxed);
        let unsynced = self.unsynced.fetch_add(appended, Ordering::Relaxed) + appended;
        self.index.insert(
            batch
                .iter()
                .zip(places)
                .map(|((key, _), place)| (*key, place)),
        );
        self.superseded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(replaced.iter().map(Place::position));
        if unsynced >= SYNC_EVERY || self.index.waiting() >= MERGE_AT {
            // The disk works while the next blocks are hashed, and dirty memory stays bounded.
            self.unsynced.store(0, Ordering::Relaxed);
            self.kick_syncer();
        }
        Ok(())
    }

    /// The damaged sections that the blocks of `batch` take the place of.
    fn replaced(&self, batch: &[&(Key, &Block)]) -> Vec<Place> {
        let mut damaged = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
        if damaged.is_empty() {
            return Vec::new();
        }
        batch
            .iter()
            .filter_map(|(key, _)| damaged.remove(key))
            .collect()
    }

    fn write_failed(&self, error: &std::io::Error) -> PutError {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => PutError::Full(
                format!("writing to {}: {error}", self.blocks_folder.display()),
            ),
            _ => PutError::Disk(format!("{}: {error}", self.blocks_folder.display())),
        }
    }

    /// Stops writing before the disk is full, so that everything else goes on working.
    fn check_space(&self, bytes: u64) -> Result<(), PutError> {
        let Ok(disk) = rustix::fs::statvfs(&self.blocks_folder) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserve = self.config.reserve;
        if free < reserve.0.saturating_add(bytes) {
            return Err(PutError::Full(format!(
                "{free} bytes are free at {} and storage.reserve keeps {reserve}",
                self.blocks_folder.display()
            )));
        }
        Ok(())
    }

    /// Deletes blocks, whatever reaches them, but for those that somebody holds. With a version of
    /// the pins, only as long as that is the present one; else `None`.
    pub(super) fn delete(
        &self,
        cids: &[Cid],
        pins: Option<u64>,
    ) -> Result<Option<Vec<Cid>>, PutError> {
        let mut deleted = Vec::new();
        for cid in cids {
            let key = self.index.key(cid.hash());
            // A deletion names places, so what it names must be beyond recovery's scissors first.
            self.commit(Vec::new())?;
            let _no_writer_looks = self
                .sweeping
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let _nobody_appends = self.lock_appender();
            if self.is_held(&key) {
                continue;
            }
            // After the holds: whoever let go of one has made its pin before.
            if pins.is_some_and(|pins| pins != self.read_pins().changes) {
                return Ok(None);
            }
            let counts = |place: &Place| !self.is_dead(place) && self.is_committed(place);
            if let Some(place) = self.index.place(&key)?.filter(counts) {
                self.bury(&[(key, place)])?;
                self.damaged
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&key);
                deleted.push(*cid);
            }
        }
        Ok(Some(deleted))
    }

    fn is_committed(&self, place: &Place) -> bool {
        let journal = self.lock_journal();
        journal
            .state()
            .lengths
            .get(&place.segment)
            .is_some_and(|length| place.offset < *length)
    }

    /// Lets committed sections no longer count, durably. The caller holds the appender's lock.
    pub(crate) fn bury(&self, dead: &[(Key, Place)]) -> Result<(), PutError> {
        let positions: Vec<_> = dead.iter().map(|(_, place)| place.position()).collect();
        self.lock_journal()
            .append(
                vec![Record::Deleted(positions.clone())],
                self.journal_sync(),
            )
            .map_err(|error| PutError::Disk(format!("journal: {error}")))?;
        self.dead
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(positions);
        self.index.remove(dead.iter().map(|(key, _)| *key));
        let bytes: u64 = dead.iter().map(|(_, place)| u64::from(place.length)).sum();
        self.blocks.fetch_sub(dead.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Bytes after which the disk is asked to start writing.
const SYNC_EVERY: u64 = 64 << 20;
