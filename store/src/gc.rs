//! Mark and sweep while others work, then compaction, which gives the space back.
//!
//! What must never be deleted: what a pin or the root of the file tree reaches, what anybody holds, and every section appended
//! after the mark began. The sweep works in batches, alone: no writer is between holding a block and
//! looking for it. In each batch it first asks the holds and then looks whether pins were made
//! meanwhile, which it marks before it asks again: whoever let go of a hold has made its pin before.
//!
//! If anything below a pin cannot be read, nothing is deleted at all. Killed at any moment, a collection
//! leaves what it has deleted deleted and everything else as it was; the next one goes on from there.
//!
//! * [`mark`]: what must stay.
//! * [`sweep`]: what goes.
//! * [`crate::compact`]: how files become shorter.

#[cfg(test)]
mod explore;
mod mark;
mod sweep;

use crate::cid::Cid;
use crate::compact::{Compaction, Fate, Look};
use crate::log::files::Access;
use crate::log::{SegmentId, Stream, section};
use crate::sink::PutError;
use crate::store::{Inner, Store, blocking};
use crate::unixfs::read::ReadError;
use mark::Marks;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// What a garbage collection tells while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcEvent {
    /// So many blocks are known to stay.
    Marked {
        /// Blocks that pins reach.
        blocks: u64,
    },
    /// A block was deleted.
    Removed(Cid),
    /// Space is being given back; files done of files in all.
    Compacting {
        /// Segments done.
        done: u64,
        /// Segments that have something to give.
        total: u64,
    },
}

/// What a garbage collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blocks deleted.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes given back to the file system.
    pub freed: u64,
}

/// Why a garbage collection did not go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// A pinned DAG could not be read whole, so it is not known what must stay.
    #[error(
        "nothing more was removed: {root} is pinned, but {source}; fetch what is missing (`cairn pin add` of the \
         root), add again what it was made of, or unpin it; `cairn pin verify` names every such pin"
    )]
    Unreadable {
        /// The pin.
        root: Cid,
        /// What went wrong below it.
        source: Box<ReadError>,
    },
    /// Something in the file tree could not be read, so it is not known what must stay.
    #[error(
        "nothing more was removed: the file tree has the root {root}, but {source}; fetch it again, or remove what it \
         belongs to with `files rm`"
    )]
    Files {
        /// The root.
        root: Cid,
        /// What went wrong below it.
        source: Box<ReadError>,
    },
    /// The journal has lost records, so pins may be missing.
    #[error("nothing was removed: {damage}")]
    Journal {
        /// What was lost, and what to do.
        damage: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Store {
    /// Deletes every block that no pin and no running work reaches, telling each, and gives their
    /// space back. Only one collection runs at a time; a second call waits for the first.
    pub async fn gc(
        &self,
        on_event: impl FnMut(GcEvent) + Send + 'static,
    ) -> Result<GcReport, GcError> {
        let alone = self.inner.collecting.clone().lock_owned().await;
        let inner = self.inner.clone();
        blocking(move || {
            let report = Collection::new(inner, on_event).run();
            // Goes along: the run ends by itself even if nobody waits for it any more.
            drop(alone);
            report
        })
        .await
        .unwrap_or(Err(GcError::Put(PutError::Closing)))
    }
}

/// One run.
pub(crate) struct Collection<F> {
    inner: Arc<Inner>,
    on_event: F,
    /// How long each segment was when the mark began: what lies beyond is live.
    ends: BTreeMap<SegmentId, u64>,
    marks: Marks,
    report: GcReport,
}

impl<F: FnMut(GcEvent)> Collection<F> {
    pub(crate) fn new(inner: Arc<Inner>, on_event: F) -> Self {
        Self {
            inner,
            on_event,
            ends: BTreeMap::new(),
            marks: Marks::default(),
            report: GcReport::default(),
        }
    }

    pub(crate) fn run(mut self) -> Result<GcReport, GcError> {
        if self.inner.files.access == Access::ReadOnly {
            return Err(PutError::ReadOnly.into());
        }
        if let Some(damage) = &self.inner.journal_damage {
            return Err(GcError::Journal {
                damage: damage.clone(),
            });
        }
        self.inner.make_room_for_collecting();
        {
            let _nobody_appends = self.inner.lock_appender();
            let segments = self
                .inner
                .segments
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            self.ends = segments
                .iter()
                .map(|(id, segment)| (*id, segment.length()))
                .collect();
        }
        self.mark_first()?;
        (self.on_event)(GcEvent::Marked {
            blocks: self.marks.len(),
        });
        self.sweep()?;
        self.compact()?;
        self.inner.checkpoint()?;
        self.inner.make_ballast();
        self.inner.metrics.collections.inc();
        Ok(self.report)
    }

    /// Empties segments of which enough is dead, those first that cost least.
    fn compact(&mut self) -> Result<(), GcError> {
        let inner = self.inner.clone();
        let living = inner.living_bytes().map_err(PutError::from)?;
        let all = self.ends.iter().map(|(id, length)| {
            let (blocks, bytes) = living.get(id).copied().unwrap_or_default();
            Work {
                id: *id,
                length: *length,
                blocks,
                bytes: bytes.min(*length),
            }
        });
        let (mut todo, rest): (Vec<Work>, Vec<Work>) = all.partition(Work::is_worth_it);
        todo.extend(self.many_small(rest));
        todo.sort_unstable_by_key(|work| work.bytes);
        let total = todo.len() as u64;
        let mut done = 0;
        let mut rest = &todo[..];
        while !rest.is_empty() {
            (self.on_event)(GcEvent::Compacting { done, total });
            let free = inner.space().map_or(u64::MAX, |space| space.free);
            let room = free.saturating_sub(ROOM_LEFT).min(ROUND_BYTES_MAX);
            let (round, later) = rest.split_at(round_of(rest, room, inner.files.open_max()));
            rest = later;
            done += round.len() as u64;
            let ids: Vec<SegmentId> = round.iter().map(|work| work.id).collect();
            let copied: u64 = round.iter().map(|work| work.bytes).sum();
            if copied > 0 && free < copied + ROOM_LEFT {
                tracing::warn!(
                    "too little space is free to compact the rest; free some, then collect again"
                );
                return Ok(());
            }
            let compacted =
                Compaction::new(&inner).run(&ids, Look::OverIndex, |_, _| Fate::Stays)?;
            self.report.freed += compacted.removed.saturating_sub(compacted.copied);
        }
        (self.on_event)(GcEvent::Compacting { done, total });
        Ok(())
    }
}

impl<F> Collection<F> {
    /// What is emptied for the sake of fewer files: every collection and every start may leave one
    /// that is short. Those of the cache stay in the order they came in; eviction empties them.
    fn many_small(&self, work: Vec<Work>) -> impl Iterator<Item = Work> {
        let mut small: BTreeMap<Stream, Vec<Work>> = BTreeMap::new();
        let appender = self.inner.lock_appender();
        for work in work {
            let stream = work.id.stream;
            if stream != Stream::Cache && work.length < appender.size(stream) / SMALL_SHARE {
                small.entry(stream).or_default().push(work);
            }
        }
        let many = small.into_values().filter(|works| works.len() > SMALL_MAX);
        many.flatten()
    }
}

/// A segment that may be worth emptying.
struct Work {
    id: SegmentId,
    length: u64,
    /// Blocks that live in it, and their bytes.
    blocks: u64,
    bytes: u64,
}

impl Work {
    fn is_worth_it(&self) -> bool {
        let header = section::file_header().len() as u64;
        let dead = self.length.saturating_sub(self.bytes + header);
        dead > 0 && (self.blocks == 0 || dead * DEAD_SHARE > self.length)
    }
}

/// How many of the first segments are emptied in one round: each ends with a checkpoint. Their copies
/// take no more than `bytes_max`, and no more than `files_max` files that are open till then.
fn round_of(todo: &[Work], bytes_max: u64, files_max: usize) -> usize {
    let mut blocks = 0;
    let mut bytes = 0;
    let fits = todo.iter().take(files_max).take_while(|work| {
        blocks += work.blocks;
        bytes += work.bytes;
        blocks <= ROUND_BLOCKS_MAX && bytes <= bytes_max
    });
    fits.count().max(1)
}

/// A segment is emptied when more than one in so many of its bytes are dead: 5 %.
const DEAD_SHARE: u64 = 20;
/// Most blocks and bytes that are moved between two checkpoints.
const ROUND_BLOCKS_MAX: u64 = 1_000_000;
const ROUND_BYTES_MAX: u64 = 4 << 30;
/// A segment is small that has less than one in so many of the bytes that it may have.
const SMALL_SHARE: u64 = 8;
/// So many small ones of a stream may lie there.
const SMALL_MAX: usize = 8;
/// What stays free while segments are emptied.
const ROOM_LEFT: u64 = 8 << 20;
