//! What is acknowledged before it has reached the disk: with relaxed durability all of it for a while, and
//! after a kill what the process before had not come to.

use super::Inner;
use super::reindex::known_from;
use crate::index::Checkpoint;
use crate::journal::Sync;
use crate::log::SegmentId;
use crate::log::append::Touched;
use crate::log::segment::Segment;
use crate::sink::PutError;
use crate::sync::MutexGuard;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// What commits left to the operating system.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    segments: BTreeMap<SegmentId, Arc<Segment>>,
    folder: bool,
    journal: bool,
    /// Why the last try to sync it failed.
    failed: Option<PutError>,
}

impl Unsynced {
    /// Records that were appended and not synced.
    pub(super) fn leave_journal(&mut self) {
        self.journal = true;
    }

    fn is_empty(&self) -> bool {
        !self.folder && !self.journal && self.segments.is_empty()
    }

    /// An error if the last try to sync it has failed.
    pub(super) fn is_on_its_way(&self) -> Result<(), PutError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn put_back(&mut self, left: Self, why: PutError) {
        self.failed = Some(why);
        self.segments.extend(left.segments);
        self.folder |= left.folder;
        self.journal |= left.journal;
    }

    pub(super) fn leave(&mut self, touched: &Touched) {
        let segments = touched.segments.iter();
        self.segments
            .extend(segments.map(|(segment, _)| (segment.id, segment.clone())));
        self.folder |= touched.folder;
        self.leave_journal();
    }
}

impl Inner {
    /// Syncs what was touched, and what earlier commits left. Whether that fails with the latter is for who `replaces`
    /// older things, because they may have gone there.
    pub(super) fn sync_blocks(&self, touched: &Touched, replaces: bool) -> Result<(), PutError> {
        let left = std::mem::take(&mut *self.lock_unsynced());
        let synced = self.sync_touched(touched);
        let left_synced = self.sync_left(touched, &left);
        if let Err(error) = &left_synced {
            // It was acknowledged long ago: no reason to refuse what only adds to it, and nothing better to do than
            // to try again.
            tracing::error!(%error, "what was acknowledged before is not on the disk yet");
        }
        // What is touched as well is on the disk only if that went well.
        let failed = left_synced.as_ref().and(synced.as_ref()).err();
        if let Some(why) = failed
            && !left.is_empty()
        {
            self.lock_unsynced().put_back(left, why.clone());
        }
        match replaces {
            true => synced.and(left_synced),
            false => synced,
        }
    }

    fn sync_touched(&self, touched: &Touched) -> Result<(), PutError> {
        for (segment, _) in &touched.segments {
            segment
                .sync()
                .map_err(|error| self.write_failed(&format!("segment {}", segment.id), &error))?;
        }
        if touched.folder {
            self.files
                .disk
                .sync_folder(&self.files.folder)
                .inspect_err(|_| self.lock_appender().folder_is_unsynced())
                .map_err(|error| self.write_failed("blocks", &error))?;
        }
        Ok(())
    }

    fn sync_left(&self, touched: &Touched, left: &Unsynced) -> Result<(), PutError> {
        for segment in left.segments.values() {
            let is_done = touched.segments.iter().any(|(one, _)| one.id == segment.id);
            // One that has gone meanwhile was emptied, and what was copied out of it is durable.
            if !is_done && self.segment(segment.id).is_some() {
                segment.sync_file().map_err(|error| {
                    self.write_failed(&format!("segment {}", segment.id), &error)
                })?;
            }
        }
        if left.folder && !touched.folder {
            self.files
                .disk
                .sync_folder(&self.files.folder)
                .map_err(|error| self.write_failed("blocks", &error))?;
        }
        Ok(())
    }

    pub(super) fn lock_unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.left_unsynced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes records durable that were only appended, as the configuration has it.
    pub(crate) fn sync_journal(&self) -> Result<(), PutError> {
        match self.configured_sync() {
            Sync::Leave => {
                self.lock_unsynced().leave_journal();
                Ok(())
            }
            Sync::Wait => self
                .lock_journal()
                .sync()
                .map_err(|error| self.write_failed("journal", &error)),
        }
    }

    /// Whether commits have left something to the operating system.
    pub(super) fn has_left_something(&self) -> bool {
        !self.lock_unsynced().is_empty()
    }

    /// What the checkpoint does not cover may have been left by a process that was killed: the next one to
    /// write things out sees to it.
    pub(super) fn leave_uncovered(&self, checkpoint: Option<&Checkpoint>) {
        let segments = self.open_segments().into_iter();
        let uncovered = segments.filter(|(id, segment)| match checkpoint {
            Some(known) => {
                known_from(known, *id).is_some_and(|from| u64::from(from) < segment.length())
            }
            None => true,
        });
        let mut left = self.lock_unsynced();
        left.segments.extend(uncovered);
        left.folder |= !left.segments.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use crate::block::{Block, Prefix};
    use crate::cid::{self, HashKind, Version};
    use crate::config::{ByteSize, Config, Durability, Reserve};
    use crate::disk::simulated::{Faults, SimulatedDisk};
    use crate::index::Image;
    use crate::sink::BlockSink;
    use crate::store::{Ground, Keep, Store};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::io::ErrorKind;
    use std::sync::Arc;

    fn on(disk: &SimulatedDisk, image: &Arc<Image>, durability: Durability) -> Store {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            durability,
            ..Config::default()
        };
        let ground = Ground::simulated(disk, image);
        Store::open_on(ground, &config, &mut |_| {}).unwrap()
    }

    fn block() -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, bytes::Bytes::from_static(b"one")).unwrap()
    }

    fn put(store: &Store) {
        let mut writer = store.writer(Keep::Kept);
        writer.put(vec![block()]).unwrap();
        writer.commit().unwrap();
    }

    #[test]
    fn what_cannot_be_written_out_refuses_those_alone_who_must_have_it_written_out() {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        on(&disk, &image, Durability::Full).inner.close().unwrap();
        put(&on(&disk, &image, Durability::Relaxed));
        // As after a kill: the next process takes over what is left.
        let store = on(&disk, &image, Durability::Full);
        let fails = || {
            disk.set_faults(Faults {
                fails: Some((1, ErrorKind::Other)),
                ..Faults::default()
            });
        };
        assert!(store.inner.has_left_something());
        fails();
        assert!(store.inner.commit(Vec::new()).is_ok());
        fails();
        assert!(store.inner.commit_to_disk(Vec::new()).is_err());
        assert!(store.inner.has_left_something());
        assert!(store.inner.commit_to_disk(Vec::new()).is_ok());
        assert!(!store.inner.has_left_something());
    }

    #[test]
    fn what_was_left_stays_that_when_what_came_behind_it_cannot_be_written_out() {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let store = on(&disk, &image, Durability::Relaxed);
        put(&store);
        let mut writer = store.writer(Keep::Kept);
        let behind = block().data().slice(1..);
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        writer
            .put(vec![Block::new(prefix, behind).unwrap()])
            .unwrap();
        disk.set_faults(Faults {
            fails: Some((1, ErrorKind::Other)),
            ..Faults::default()
        });
        assert!(store.inner.commit_to_disk(Vec::new()).is_err());
        assert!(store.inner.has_left_something());
        assert!(store.inner.commit_to_disk(Vec::new()).is_ok());
        assert!(!store.inner.has_left_something());
    }

    #[test]
    fn what_was_written_out_survives_a_power_cut_and_a_clean_stop_writes_out_all() {
        for stopped in [false, true] {
            let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
            let store = on(&disk, &image, Durability::Relaxed);
            put(&store);
            assert!(store.inner.has_left_something());
            if stopped {
                store.inner.close().unwrap();
            } else {
                store.inner.commit_to_disk(Vec::new()).unwrap();
            }
            drop(store);
            let mut random = StdRng::seed_from_u64(1);
            let after = disk.after_power_cut(&mut random);
            let store = on(&after, &Arc::new(image.copied()), Durability::Relaxed);
            let found = store.inner.block(block().cid()).unwrap();
            assert_eq!(found, Some(block()), "stopped: {stopped}");
        }
    }
}
