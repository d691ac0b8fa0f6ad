//! What the index missed, from the log: what opening catches up with, and what to do when sled fails.

use super::{Counts, Inner};
use crate::index::{Checkpoint, Index, IndexError, Key};
use crate::journal::Change;
use crate::log::files::Access;
use crate::log::scan::{Found, Scan, Step};
use crate::log::segment::Segment;
use crate::log::{Place, Position, SegmentId};
use crate::store::OpenEvent;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

/// Whether the index could be brought to the log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtUp {
    Yes,
    No,
}

/// Whether a segment was looked through again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reindexed {
    /// Now, or before.
    Yes,
    /// A collection, an eviction or a rebuild is under way.
    NotNow,
}

/// Where sections are entered.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The index that is asked, or one that is made beside it.
    pub(super) index: &'a Index,
    pub(super) counts: &'a Counts,
    pub(super) merging: Merging,
}

/// What is done when much has been entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merging {
    /// It is merged: all that lies in the memory table is committed.
    Now,
    /// It waits for a checkpoint.
    Later,
}

/// Whether what lies in the cache stream may be evicted.
pub(super) enum Cached {
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
                let gone = || *end == 0 || !state.lengths.contains_key(id);
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
        self.counts.set(checkpoint.blocks, checkpoint.bytes);
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
                let mut scan = Scan::new(&segment, from.into());
                self.index_rest(self.target(), &mut scan, &cached, on_event)?;
                if scan.has_lost() {
                    return Ok(CaughtUp::No);
                }
            }
        }
        if checkpoint.merging {
            self.recount()?;
        }
        Ok(CaughtUp::Yes)
    }

    /// Counts what the index holds: some of it was there already when it was caught up.
    pub(super) fn recount(&self) -> Result<(), IndexError> {
        let (mut blocks, mut bytes) = (0, 0);
        self.index.each(0, |entries| {
            let places = entries.iter().map(|(_, place)| Some(*place));
            for place in places.filter_map(|place| self.counting(place)) {
                blocks += 1;
                bytes += u64::from(place.length);
            }
            ControlFlow::Continue(())
        })?;
        self.counts.set(blocks, bytes);
        Ok(())
    }

    /// Goes on without sled after it failed: builds an index in memory from the log. Lookups that
    /// come meanwhile wait.
    pub(super) fn go_on_in_memory(&self, why: &dyn std::fmt::Display) -> Result<(), IndexError> {
        let _one = self
            .recovering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.index.is_on_disk() {
            // Somebody was faster. What was to be merged below lies over the new index now.
            self.index.forget(|_| false);
            return Ok(());
        }
        tracing::error!(%why, "going on with an index in memory, built from the blocks; a restart \
            makes a new one on the disk");
        // A merge that failed leaves what it was about to merge.
        self.index.forget(|_| false);
        let image = self.index.empty_image();
        for (id, segment) in self.open_segments() {
            // What is not committed is in the memory table, unless it was given up.
            let mut scan = Scan::new(&segment, 0).until(self.committed(&segment));
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

    /// The index named a place where another block lies: looks through that segment again, once. Not while
    /// something is being moved: what was found in a segment that has gone since must not be entered.
    pub(super) fn reindex(&self, segment: &Segment) -> Result<Reindexed, IndexError> {
        // Held to the end: another reader waits for this look rather than taking it for a collection.
        let mut done = self
            .reindexed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if done.contains(&segment.id) || self.segment(segment.id).is_none() {
            return Ok(Reindexed::Yes);
        }
        let Ok(_nothing_is_moved) = self.collecting.try_lock() else {
            return Ok(Reindexed::NotNow);
        };
        done.insert(segment.id);
        tracing::error!(segment = %segment.id, "the index and the log disagree; reading it again");
        // What is not committed is in the memory table, unless it was given up.
        let mut scan = Scan::new(segment, 0).until(self.committed(segment));
        let target = Target {
            merging: Merging::Later,
            ..self.target()
        };
        self.index_rest(target, &mut scan, &Cached::None, &mut |event| {
            if let OpenEvent::Notice(text) = event {
                tracing::error!("{text}");
            }
        })?;
        Ok(Reindexed::Yes)
    }

    fn target(&self) -> Target<'_> {
        Target {
            index: &self.index,
            counts: &self.counts,
            merging: Merging::Now,
        }
    }

    /// How far a segment counts. Whoever may not write the journal adopts without telling it.
    pub(crate) fn committed(&self, segment: &Segment) -> u64 {
        let length = segment.length();
        if self.files.access == Access::ReadOnly {
            return length;
        }
        let journal = self.lock_journal();
        let committed = journal.state().lengths.get(&segment.id);
        committed.map_or(0, |committed| length.min((*committed).into()))
    }

    pub(super) fn open_segments(&self) -> Vec<(SegmentId, Arc<Segment>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments
            .iter()
            .map(|(id, segment)| (*id, segment.clone()))
            .collect()
    }

    /// Enters what a scan still finds. What the disk cannot read any more is told and left out.
    pub(super) fn index_rest(
        &self,
        target: Target<'_>,
        scan: &mut Scan<'_>,
        cached: &Cached,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        let id = scan.segment().id;
        let named = |found: &Found| target.index.key(found.header.cid.hash());
        let mut found_last = Vec::new();
        loop {
            match scan.next() {
                Ok(None) => return self.index_sections(target, &mut found_last),
                Ok(Some(Step::Found(found))) => {
                    found_last.push((named(&found), place_of(id, &found, cached)));
                    if found_last.len() >= SORTED_TOGETHER {
                        self.index_sections(target, &mut found_last)?;
                    }
                }
                Ok(Some(Step::Retracted(found))) => {
                    self.index_sections(target, &mut found_last)?;
                    unindex(target, named(&found), &place_of(id, &found, cached))?;
                }
                Ok(Some(Step::Damage(damage))) => on_event(OpenEvent::Notice(format!(
                    "segment {id}: bytes {} to {} hold no readable block",
                    damage.from, damage.to
                ))),
                Err(error) => {
                    scan.give_up();
                    on_event(OpenEvent::Notice(format!(
                        "segment {id} cannot be read beyond byte {}: {error}",
                        scan.position()
                    )));
                    return self.index_sections(target, &mut found_last);
                }
            }
        }
    }

    /// Enters sections in the order of their keys, so that buckets that lie together are read together.
    /// Those of one block stay in the order in which they lie.
    fn index_sections(
        &self,
        target: Target<'_>,
        sections: &mut Vec<(Key, Place)>,
    ) -> Result<(), IndexError> {
        sections.sort_by_key(|(key, _)| *key);
        sections
            .drain(..)
            .try_for_each(|(key, place)| self.index_section(target, key, place))
    }

    fn index_section(&self, target: Target<'_>, key: Key, place: Place) -> Result<(), IndexError> {
        if self.is_dead(&place) {
            return Ok(());
        }
        let Target { index, counts, .. } = target;
        let is_made = !std::ptr::eq(index, &raw const self.index);
        let old = match index.place(&key)? {
            Some(old) if self.is_dead(&old) => {
                if is_made {
                    // It died after it was entered, and nobody has taken it out yet.
                    counts.subtract(1, old.length.into());
                }
                None
            }
            old => old,
        };
        match old {
            Some(old) if old.position() == place.position() => return Ok(()),
            Some(old) if !old.damaged && !old.cached && place.cached => {
                // A copy that was made in vain, of what had to stay.
                self.disown(&place);
                return Ok(());
            }
            Some(old) if !old.damaged && !old.is_reference() && place.is_reference() => {
                // What is here is better than what lies elsewhere.
                self.disown(&place);
                return Ok(());
            }
            Some(old) if is_made && self.is_read_at(&key, &old) => {
                self.disown(&place);
                return Ok(());
            }
            Some(old) if !old.damaged && !self.hashes(&key, &place) => {
                // What a power cut has left of it.
                self.disown(&place);
                return Ok(());
            }
            Some(old) => {
                // Only one section of a block may count, or deleting it would not delete it; and one must.
                self.disown(&old);
                self.own(&place);
                // A reference has another length than the block that it stands for.
                if !old.damaged {
                    counts.subtract(1, old.length.into());
                }
                counts.add(1, place.length.into());
            }
            None => counts.add(1, place.length.into()),
        }
        index.insert([(key, place)]);
        if target.merging == Merging::Now
            && index.waiting() >= super::MERGE_AT
            && let Some(frozen) = index.freeze()
        {
            // Without a position: a kill before the end starts from the last one again.
            index.merge(&frozen, None).inspect_err(|_| {
                index.forget(|_| false); // Thaws, so that nobody waits for it.
            })?;
        }
        Ok(())
    }

    /// Whether readers find the block there while an index is made beside theirs.
    fn is_read_at(&self, key: &Key, place: &Place) -> bool {
        let read = self.index.place(key).ok().flatten();
        read.is_some_and(|read| read.position() == place.position())
    }

    /// Lets the next commit say that a section is dead, if its segment is still there.
    fn disown(&self, place: &Place) {
        if self.segment(place.segment).is_some() {
            self.disowned
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(place.position());
        }
    }

    /// Takes that back: it is the section that counts after all.
    fn own(&self, place: &Place) {
        self.disowned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&place.position());
    }

    /// Takes a deletion that the index may have missed out of it.
    fn unindex_deleted(&self, position: &Position) -> Result<(), IndexError> {
        if let Some((key, found)) = self.section_at(position) {
            let place = place_of(position.segment, &found, &Cached::None);
            unindex(self.target(), key, &place)?;
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
}

/// Takes a section out, if it is the one that counts there.
pub(super) fn unindex(target: Target<'_>, key: Key, place: &Place) -> Result<(), IndexError> {
    let known = target.index.place(&key)?;
    if let Some(known) = known.filter(|known| known.position() == place.position()) {
        target.index.remove([key]);
        if !known.damaged {
            target.counts.subtract(1, place.length.into());
        }
    }
    Ok(())
}

/// From where the checkpoint's index does not know a segment; `None` if it knows it whole.
pub(super) fn known_from(checkpoint: &Checkpoint, id: SegmentId) -> Option<u32> {
    if let Some(end) = checkpoint.ends.get(&id) {
        return Some(*end);
    }
    let last = checkpoint.last.get(&id.stream).copied().unwrap_or(0);
    (id.number > last).then_some(0)
}

pub(super) fn place_of(segment: SegmentId, found: &Found, cached: &Cached) -> Place {
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

/// Sections that are entered together: the more, the fewer buckets are read twice.
const SORTED_TOGETHER: usize = 128 << 10;
