//! The index from the log: what opening catches up with, and how everything is built anew.

use super::Inner;
use crate::index::{Checkpoint, IndexError, Key};
use crate::journal::Change;
use crate::log::files::Access;
use crate::log::scan::{Found, Scan, Step};
use crate::log::segment::Segment;
use crate::log::{Place, Position, SegmentId, section};
use crate::sink::PutError;
use crate::store::OpenEvent;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Whether the index could be brought to the log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtUp {
    Yes,
    No,
}

/// Whether what lies in the cache stream may be evicted.
enum Cached {
    /// All of it is kept: what was kept on purpose is not known.
    None,
    /// All but these.
    But(HashSet<Position>),
}

impl Inner {
    /// Whether the index can have been made from this log, and is the latest that was.
    pub(super) fn fits(&self, checkpoint: &Checkpoint) -> bool {
        let journal = self.lock_journal();
        let state = journal.state();
        let known =
            state.checkpointed <= checkpoint.journal && checkpoint.journal <= journal.last();
        known
            && checkpoint.ends.iter().all(|(id, end)| {
                let gone = || !state.lengths.contains_key(id);
                let segment = self.segment(*id);
                segment.map_or_else(gone, |segment| segment.length() >= u64::from(*end))
            })
    }

    /// Brings the index from its checkpoint to the end of the log.
    pub(super) fn catch_up(
        &self,
        checkpoint: &Checkpoint,
        adopted: &[SegmentId],
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<CaughtUp, IndexError> {
        self.blocks.store(checkpoint.blocks, Ordering::Relaxed);
        self.bytes.store(checkpoint.bytes, Ordering::Relaxed);
        let changes: Vec<Change> = {
            let journal = self.lock_journal();
            let since = journal.state().since.iter();
            since
                .filter(|(number, _)| *number > checkpoint.journal)
                .map(|(_, change)| change.clone())
                .collect()
        };
        let mut kept = HashSet::new();
        for change in changes {
            match change {
                Change::Deleted(positions) => {
                    for position in positions {
                        if self.segment(position.segment).is_none() {
                            // What it named cannot be known any more, so neither can the counts.
                            return Ok(CaughtUp::No);
                        }
                        self.unindex_deleted(&position)?;
                    }
                }
                Change::Kept(positions) => {
                    for position in &positions {
                        self.index_kept(position)?;
                    }
                    kept.extend(positions);
                }
            }
        }
        let cached = Cached::But(kept);
        for (id, segment) in self.open_segments() {
            let from = if adopted.contains(&id) {
                Some(0)
            } else {
                known_from(checkpoint, id)
            };
            if let Some(from) = from {
                self.index_segment(&segment, from.into(), &cached, on_event)?;
            }
        }
        if checkpoint.merging {
            self.recount()?;
        }
        Ok(CaughtUp::Yes)
    }

    /// Counts what the index holds: some of it was there already when it was caught up.
    fn recount(&self) -> Result<(), IndexError> {
        let (mut blocks, mut bytes) = (0, 0);
        self.index.each(0, |entries| {
            let places = entries.iter().map(|(_, place)| Some(*place));
            for place in places.filter_map(|place| self.counting(place)) {
                blocks += 1;
                bytes += u64::from(place.length);
            }
            ControlFlow::Continue(())
        })?;
        self.blocks.store(blocks, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the index anew for whoever asks for it while the store works.
    pub(super) fn rebuild_alone(
        &self,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), PutError> {
        if self.files.access == Access::ReadOnly {
            return Ok(()); // It was built when the store was opened.
        }
        self.commit(Vec::new())?;
        let _no_writer_looks = self
            .sweeping
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(self.rebuild(on_event)?)
    }

    /// Makes the index anew from the whole log.
    pub(crate) fn rebuild(&self, on_event: &mut dyn FnMut(OpenEvent)) -> Result<(), IndexError> {
        self.index.clear()?;
        self.blocks.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        let segments = self.open_segments();
        let total: u64 = segments.iter().map(|(_, segment)| segment.length()).sum();
        let mut done = 0;
        for (_, segment) in segments {
            if total > REBUILD_TOLD {
                on_event(OpenEvent::Rebuilding { done, total });
            }
            self.index_segment(&segment, 0, &Cached::None, on_event)?;
            done += segment.length();
        }
        if total > REBUILD_TOLD {
            on_event(OpenEvent::Rebuilding { done, total });
        }
        if let Err(error) = self.checkpoint_anew() {
            on_event(OpenEvent::Notice(format!(
                "the new index could not be written: {error}"
            )));
        }
        Ok(())
    }

    /// Goes on without sled after it failed: builds an index in memory from the log. Lookups that
    /// come meanwhile wait.
    pub(super) fn go_on_in_memory(&self, why: &IndexError) -> Result<(), IndexError> {
        let _one = self
            .recovering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.index.is_on_disk() {
            return Ok(());
        }
        tracing::error!(%why, "going on with an index in memory, built from the blocks; a restart \
            makes a new one on the disk");
        // A merge that failed leaves what it was about to merge.
        self.index.forget(|_| false);
        let image = self.index.empty_image();
        for (id, segment) in self.open_segments() {
            let mut scan = Scan::new(&segment, 0);
            loop {
                match scan.next() {
                    Ok(Some(Step::Found(found))) => {
                        let place = place_of(id, &found, &Cached::None);
                        if !self.is_dead(&place) {
                            image.set(self.index.key(found.header.cid.hash()), Some(place));
                        }
                    }
                    Ok(Some(Step::Retracted(found))) => {
                        image.set(self.index.key(found.header.cid.hash()), None);
                    }
                    Ok(Some(Step::Damage(_))) => {}
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(segment = %id, %error, "a segment cannot be read");
                        break;
                    }
                }
            }
        }
        self.index.replace(Arc::new(image));
        Ok(())
    }

    /// The index named a place where another block lies: looks through that segment again, once.
    pub(super) fn reindex(&self, segment: &Segment) -> Result<(), IndexError> {
        let first = self
            .reindexed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(segment.id);
        if !first {
            return Ok(());
        }
        tracing::error!(segment = %segment.id, "the index and the log disagree; reading it again");
        self.index_segment(segment, 0, &Cached::None, &mut |event| {
            if let OpenEvent::Notice(text) = event {
                tracing::error!("{text}");
            }
        })
    }

    fn open_segments(&self) -> Vec<(SegmentId, Arc<Segment>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments
            .iter()
            .map(|(id, segment)| (*id, segment.clone()))
            .collect()
    }

    fn index_segment(
        &self,
        segment: &Segment,
        from: u64,
        cached: &Cached,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        let mut scan = Scan::new(segment, from);
        loop {
            match scan.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Step::Found(found))) => {
                    self.index_section(place_of(segment.id, &found, cached), &found)?;
                }
                Ok(Some(Step::Retracted(found))) => {
                    self.unindex_section(&place_of(segment.id, &found, cached), &found)?;
                }
                Ok(Some(Step::Damage(damage))) => on_event(OpenEvent::Notice(format!(
                    "segment {}: bytes {} to {} hold no readable block",
                    segment.id, damage.from, damage.to
                ))),
                Err(error) => {
                    on_event(OpenEvent::Notice(format!(
                        "segment {} cannot be read beyond byte {}: {error}",
                        segment.id,
                        scan.position()
                    )));
                    return Ok(());
                }
            }
        }
    }

    fn index_section(&self, place: Place, found: &Found) -> Result<(), IndexError> {
        if self.is_dead(&place) {
            return Ok(());
        }
        let key = self.index.key(found.header.cid.hash());
        let old = self.index.place(&key)?.filter(|old| !self.is_dead(old));
        match old {
            Some(old) if old.position() == place.position() => return Ok(()),
            Some(old) if !old.damaged && !old.cached && place.cached => {
                // A copy that was made in vain, of what had to stay.
                self.disown(&place);
                return Ok(());
            }
            Some(old) => {
                // Only one section of a block may count, or deleting it would not delete it.
                self.disown(&old);
                if old.damaged {
                    self.count(place.length.into());
                }
            }
            None => self.count(place.length.into()),
        }
        self.index.insert([(key, place)]);
        if self.index.waiting() >= super::MERGE_AT
            && let Some(frozen) = self.index.freeze()
        {
            // Without a position: a kill before the end starts from the last one again.
            self.index.merge(&frozen, None)?;
        }
        Ok(())
    }

    /// Lets the next commit say that a section is dead, if its segment is still there.
    fn disown(&self, place: &Place) {
        if self.segment(place.segment).is_some() {
            self.disowned
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(place.position());
        }
    }

    /// Takes a deletion that the index may have missed out of it.
    fn unindex_deleted(&self, position: &Position) -> Result<(), IndexError> {
        if let Some((key, found)) = self.section_at(position) {
            let place = place_of(position.segment, &found, &Cached::None);
            self.unindex(key, &place)?;
        }
        Ok(())
    }

    /// Takes a promotion that the index may have missed into it.
    fn index_kept(&self, position: &Position) -> Result<(), IndexError> {
        let Some((key, _)) = self.section_at(position) else {
            return Ok(());
        };
        let known = self.index.place(&key)?;
        if let Some(known) = known.filter(|known| known.position() == *position && known.cached) {
            let kept = Place {
                cached: false,
                ..known
            };
            self.index.insert([(key, kept)]);
        }
        Ok(())
    }

    fn section_at(&self, position: &Position) -> Option<(Key, Found)> {
        let segment = self.segment(position.segment)?;
        let head = segment.read_unchecked(position.offset.into(), section::PREFIX_MAX as u64);
        let header = section::header(&head.ok()?)?;
        let found = Found {
            offset: position.offset,
            header,
        };
        Some((self.index.key(header.cid.hash()), found))
    }

    fn unindex_section(&self, place: &Place, found: &Found) -> Result<(), IndexError> {
        self.unindex(self.index.key(found.header.cid.hash()), place)
    }

    fn unindex(&self, key: Key, place: &Place) -> Result<(), IndexError> {
        let known = self.index.place(&key)?;
        if let Some(known) = known.filter(|known| known.position() == place.position()) {
            self.index.remove([key]);
            if !known.damaged {
                self.uncount(place.length.into());
            }
        }
        Ok(())
    }
}

/// From where the checkpoint's index does not know a segment; `None` if it knows it whole.
fn known_from(checkpoint: &Checkpoint, id: SegmentId) -> Option<u32> {
    if let Some(end) = checkpoint.ends.get(&id) {
        return Some(*end);
    }
    let last = checkpoint.last.get(&id.stream).copied().unwrap_or(0);
    (id.number > last).then_some(0)
}

fn place_of(segment: SegmentId, found: &Found, cached: &Cached) -> Place {
    let mut place = Place {
        segment,
        offset: found.offset,
        length: found.header.length,
        cached: false,
        damaged: false,
    };
    place.cached = match cached {
        Cached::None => false,
        Cached::But(kept) => {
            segment.stream == crate::log::Stream::Cache && !kept.contains(&place.position())
        }
    };
    place
}

/// Logs smaller than this are indexed before anybody wonders.
const REBUILD_TOLD: u64 = 256 << 20;
