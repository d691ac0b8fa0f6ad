//! The index anew from the log, beside the one that is asked, so that nobody waits for it.
//!
//! Most of the log is gone through while readers and writers go on; then what came meanwhile; then,
//! with nobody appending, what came while that was done, which is little. What died meanwhile is taken
//! out again, the memory table is laid over it, and the new index takes the place of the old one in
//! one step. Compaction does not run meanwhile.

use super::reindex::{Cached, Merging, Target, place_of, unindex};
use super::{Counts, Inner, OpenEvent};
use crate::index::{Index, IndexError};
use crate::journal::Sync;
use crate::journal::record::Record;
use crate::log::dead::Listener;
use crate::log::files::Access;
use crate::log::scan::Scan;
use crate::log::{Position, SegmentId};
use crate::sink::PutError;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What is done with an index that lacks what the disk could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partial {
    /// It is better than none.
    Taken,
    /// The old one is better.
    Refused,
}

/// An index on its way.
struct Building<'a> {
    inner: &'a Inner,
    index: Index,
    counts: Counts,
    /// How far each segment has been gone through.
    known: BTreeMap<SegmentId, u64>,
    /// Whether something is missing in it that may be found another time.
    lacks: bool,
    deaths: Listener<'a>,
}

impl Inner {
    /// Makes the index anew for whoever asks for it while the store works.
    pub(crate) fn rebuild_alone(
        &self,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), PutError> {
        if self.files.access == Access::ReadOnly {
            return Ok(()); // It was built when the store was opened.
        }
        if !self.index_has_room() {
            return Err(PutError::Full(format!(
                "there is no room for a second index in {}",
                self.root.display()
            )));
        }
        self.rebuild(Partial::Refused, on_event)
    }

    /// Makes the index anew from the whole log.
    pub(super) fn rebuild(
        &self,
        partial: Partial,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), PutError> {
        let index = if partial == Partial::Refused || self.index_has_room() {
            self.index.aside()?
        } else {
            on_event(OpenEvent::Notice(
                "the disk has no room for an index; it is in memory until the next start"
                    .to_owned(),
            ));
            self.index.aside_in_memory()
        };
        let mut building = Building {
            inner: self,
            index,
            counts: Counts::default(),
            known: BTreeMap::new(),
            lacks: false,
            deaths: self.dead.listen(),
        };
        building.go_through(Told::Yes, on_event)?;
        if partial == Partial::Refused {
            building.refuse_what_lacks()?;
            // Others append: so that little is left to be done while they wait.
            self.checkpoint()?;
            building.go_through(Told::No, on_event)?;
            building.take_over_damage()?;
        }
        building.take_over(partial, on_event)
    }
}

/// Whether progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

impl Building<'_> {
    /// Enters what has been committed since the last time.
    fn go_through(
        &mut self,
        told: Told,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        let ends = self.ends();
        let total: u64 = ends.values().sum();
        let told = told == Told::Yes && total > REBUILD_TOLD;
        let mut done = 0;
        for (id, end) in ends {
            if told {
                on_event(OpenEvent::Rebuilding { done, total });
            }
            self.enter(id, end, on_event)?;
            done += end;
        }
        if told {
            on_event(OpenEvent::Rebuilding { done, total });
        }
        Ok(())
    }

    fn refuse_what_lacks(&self) -> Result<(), PutError> {
        if !self.lacks {
            return Ok(());
        }
        Err(PutError::Disk(
            "the disk could not read all of the blocks; the index stays as it was".to_owned(),
        ))
    }

    /// How far each segment counts now. What is not committed is in the memory table.
    fn ends(&self) -> BTreeMap<SegmentId, u64> {
        let segments = self.inner.open_segments().into_iter();
        let ends = segments.map(|(id, segment)| (id, self.inner.committed(&segment)));
        ends.collect()
    }

    fn target(&self) -> Target<'_> {
        Target {
            index: &self.index,
            counts: &self.counts,
            merging: Merging::Now,
        }
    }

    fn enter(
        &mut self,
        id: SegmentId,
        end: u64,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        let from = self.known.get(&id).copied().unwrap_or(0);
        let Some(segment) = self.inner.segment(id).filter(|_| from < end) else {
            return Ok(());
        };
        let mut scan = Scan::new(&segment, from).until(end);
        self.inner
            .index_rest(self.target(), &mut scan, &Cached::None, on_event)?;
        self.lacks |= scan.has_lost();
        self.known.insert(id, end);
        Ok(())
    }

    /// Enters what is known to be damaged, and still is, as that: its header says nothing of it. What is found
    /// out from now on is in the memory table.
    fn take_over_damage(&self) -> Result<(), IndexError> {
        let mut damaged = Vec::new();
        self.inner.index.each(0, |entries| {
            damaged.extend(entries.iter().filter(|(_, place)| place.damaged));
            ControlFlow::Continue(())
        })?;
        for (key, place) in damaged {
            let entered = self.index.place(&key)?;
            let is_entered = entered.is_some_and(|entered| entered.position() == place.position());
            if is_entered && !self.inner.hashes(&key, &place) {
                self.index.insert([(key, place)]);
                self.counts.subtract(1, place.length.into());
            }
        }
        Ok(())
    }

    /// Takes out what has died after it was entered.
    fn bury(&self, dead: &[Position]) -> Result<(), IndexError> {
        for position in dead {
            if let Some((key, found)) = self.inner.section_at(position) {
                let place = place_of(position.segment, &found, &Cached::None);
                unindex(self.target(), key, &place)?;
            }
        }
        Ok(())
    }

    /// Puts the new index in the place of the old one.
    fn take_over(
        mut self,
        partial: Partial,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), PutError> {
        let inner = self.inner;
        let mut tries = 0;
        let (frozen, checkpoint, losses) = loop {
            let appender = inner.lock_appender();
            if let Some(frozen) = inner.index.freeze() {
                // From here to its end nothing else is merged.
                let finished = self.finish(&frozen, on_event).map_err(PutError::from);
                let finished = finished.and_then(|()| match partial {
                    Partial::Refused => self.refuse_what_lacks(),
                    Partial::Taken => Ok(()),
                });
                if let Err(error) = finished {
                    inner.index.forget(|_| false);
                    return Err(error);
                }
                inner.counts.set(self.counts.blocks(), self.counts.bytes());
                break (frozen, inner.checkpoint_of(&appender), inner.losses());
            }
            drop(appender);
            tries += 1;
            if tries > FREEZE_TRIES {
                return Err(PutError::Disk("the index is busy; try again".to_owned()));
            }
            inner.index.wait_for_thaw();
        };
        if inner.files.access == Access::ReadWrite {
            let durable = inner.commit_to_disk_since(losses, Vec::new());
            match (durable, partial) {
                (Ok(()), _) => {}
                (Err(error), Partial::Refused) => {
                    inner.index.forget(|_| false); // Thaws; `give_up` took out what is lost.
                    return Err(error);
                }
                (Err(error), Partial::Taken) => {
                    on_event(OpenEvent::Notice(format!(
                        "the new index will be built again at the next start: {error}"
                    )));
                    self.lacks = true;
                }
            }
        }
        let trusted = (!self.lacks).then_some(&checkpoint);
        if let Err(error) = inner.index.adopt(&self.index, &frozen, trusted) {
            inner.index.forget(|_| false);
            return Err(error.into());
        }
        if trusted.is_some() && inner.files.access == Access::ReadWrite {
            let known = vec![Record::Checkpointed(checkpoint.journal)];
            inner
                .lock_journal()
                .append(known, Sync::Leave)
                .map_err(|error| inner.write_failed("journal", &error))?;
        }
        Ok(())
    }

    /// The last bit, while nobody appends: what was committed since, what died since, and how many
    /// blocks there are with what is in the memory table.
    fn finish(
        &mut self,
        frozen: &crate::index::Frozen,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        self.go_through(Told::No, on_event)?;
        self.bury(&self.deaths.take())?;
        for (key, now) in frozen.changes() {
            // Whatever has been entered was counted, even if it has died this very moment.
            let entered = self.index.place(key)?;
            if let Some(place) = entered.filter(|place| !place.damaged) {
                self.counts.subtract(1, place.length.into());
            }
            if let Some(place) = self.inner.counting(now) {
                self.counts.add(1, place.length.into());
            }
        }
        Ok(())
    }
}

/// Logs smaller than this are indexed before anybody wonders.
const REBUILD_TOLD: u64 = 256 << 20;
/// How often somebody else's merge is waited for.
const FREEZE_TRIES: usize = 1000;
