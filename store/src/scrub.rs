//! Re-hash what is on disk; name what lies.
//!
//! [`Store::verify`] does it all at once, as fast as the disk and all processors allow. [`Store::scrub`]
//! does a piece, remembers where it was, and begins again when it is through: whoever calls it decides
//! how much of the disk's time it takes. A damaged section is marked: its block is as if absent until it
//! is fetched or added again, which writes it anew.

use crate::block::Block;
use crate::cid::Cid;
use crate::hash::BATCH;
use crate::index::Key;
use crate::log::files::Access;
use crate::log::scan::{Damage, Scan, Step};
use crate::log::segment::Segment;
use crate::log::{Place, Position, SegmentId};
use crate::source::SourceError;
use crate::store::{Inner, Store, blocking, disk, nothing};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a verification found out about one block, or about bytes that hold none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The block; `None` where damage hides which it was.
    pub cid: Option<Cid>,
    /// What is wrong, and where.
    pub why: String,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Blocks hashed.
    pub blocks: u64,
    /// Bytes of the log read.
    pub bytes: u64,
    /// Bytes there are to read.
    pub total: u64,
}

/// How the background's round over all blocks stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubState {
    /// When this round began, in seconds since 1970; 0 if none has.
    pub started: u64,
    /// When the last whole round ended; 0 if none has.
    pub finished: u64,
    /// Bytes of the log read in this round.
    pub bytes: u64,
    /// Damaged blocks found in this round.
    pub bad: u64,
    /// Where it goes on.
    at: Option<Position>,
}

impl Store {
    /// Re-hashes every block. Tells each bad one, and now and then how far it is; answers how many
    /// blocks there were.
    pub async fn verify(
        &self,
        mut on_progress: impl FnMut(VerifyProgress) + Send + 'static,
        on_bad: impl FnMut(BadBlock) + Send + 'static,
    ) -> Result<u64, SourceError> {
        let inner = self.inner.clone();
        blocking(move || inner.verify(&mut on_progress, on_bad))
            .await
            .unwrap_or_else(|| Err(SourceError::Stopping { cid: nothing() }))
    }

    /// Re-hashes about `bytes` more bytes of the log, from where the last call stopped, and tells each
    /// bad block. Answers how many bytes were read: 0 if there is nothing to read.
    pub async fn scrub(
        &self,
        bytes: u64,
        mut on_bad: impl FnMut(BadBlock) + Send + 'static,
    ) -> Result<u64, SourceError> {
        let inner = self.inner.clone();
        blocking(move || inner.scrub(bytes, &mut on_bad))
            .await
            .unwrap_or_else(|| Err(SourceError::Stopping { cid: nothing() }))
    }

    /// How the background's round stands.
    pub fn scrub_state(&self) -> ScrubState {
        *self.inner.lock_scrub()
    }
}

/// Sections that are hashed together.
type Batch = Vec<(Position, Cid, Bytes)>;

/// Where the scan hands over what is to be hashed.
struct Lanes {
    batch: Batch,
    out: SyncSender<Batch>,
}

impl Lanes {
    fn push(&mut self, section: (Position, Cid, Bytes)) {
        self.batch.push(section);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            // Refused only if every hasher has died, which its panic tells.
            let _ = self.out.send(std::mem::take(&mut self.batch));
        }
    }
}

impl Inner {
    pub(crate) fn verify(
        &self,
        on_progress: &mut dyn FnMut(VerifyProgress),
        on_bad: impl FnMut(BadBlock) + Send,
    ) -> Result<u64, SourceError> {
        let segments = self.all_segments();
        let total = segments.iter().map(|segment| segment.length()).sum();
        let on_bad = Mutex::new(on_bad);
        let found = AtomicU64::new(0);
        let tell = |bad| {
            found.fetch_add(1, Ordering::Relaxed);
            (lock(&on_bad))(bad);
        };
        let hashed = AtomicU64::new(0);
        let (out, waiting) = sync_channel::<Batch>(BATCHES_WAITING_MAX);
        let waiting = Mutex::new(waiting);
        let hashers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..hashers {
                scope.spawn(|| {
                    while let Some(batch) = next(&waiting) {
                        hashed.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        for bad in self.check(batch) {
                            tell(bad);
                        }
                    }
                });
            }
            let mut lanes = Lanes {
                batch: Vec::with_capacity(BATCH),
                out,
            };
            let mut bytes = 0;
            for segment in &segments {
                self.scan_for(
                    segment,
                    0,
                    u64::MAX,
                    &mut |section| lanes.push(section),
                    &tell,
                )?;
                bytes += segment.length();
                on_progress(VerifyProgress {
                    blocks: hashed.load(Ordering::Relaxed),
                    bytes,
                    total,
                });
            }
            lanes.flush();
            drop(lanes);
            Ok::<(), SourceError>(())
        })?;
        if found.load(Ordering::Relaxed) == 0 && self.files.access == Access::ReadWrite {
            for segment in &segments {
                if let Err(error) = segment.complete_sums() {
                    tracing::warn!(segment = %segment.id, %error, "checksums were not made anew");
                }
            }
        }
        let blocks = hashed.load(Ordering::Relaxed);
        on_progress(VerifyProgress {
            blocks,
            bytes: total,
            total,
        });
        Ok(blocks)
    }

    pub(crate) fn scrub(
        &self,
        bytes: u64,
        on_bad: &mut (dyn FnMut(BadBlock) + Send),
    ) -> Result<u64, SourceError> {
        let mut state = *self.lock_scrub();
        if state.started == 0 {
            state = ScrubState {
                started: now(),
                finished: state.finished,
                ..ScrubState::default()
            };
        }
        let segment = self.all_segments().into_iter().find(|segment| {
            let after = |at: Position| {
                segment.id > at.segment
                    || segment.id == at.segment && u64::from(at.offset) < segment.length()
            };
            state.at.is_none_or(after)
        });
        let Some(segment) = segment else {
            // Through: the next call begins again.
            let nothing_there = state.at.is_none();
            state = ScrubState {
                started: 0,
                at: None,
                finished: if nothing_there { state.finished } else { now() },
                ..state
            };
            self.remember(state);
            return Ok(0);
        };
        let from = state
            .at
            .filter(|at| at.segment == segment.id)
            .map_or(0, |at| u64::from(at.offset));
        let mut batch = Vec::with_capacity(BATCH);
        let bad = Mutex::new(Vec::new());
        let mut hash = |section| {
            batch.push(section);
            if batch.len() >= BATCH {
                let found = self.check(std::mem::take(&mut batch));
                lock(&bad).extend(found);
            }
        };
        let to = self.scan_for(&segment, from, bytes, &mut hash, &|gap| {
            lock(&bad).push(gap);
        })?;
        let found = self.check(batch);
        lock(&bad).extend(found);
        for bad in bad.into_inner().unwrap_or_else(PoisonError::into_inner) {
            state.bad += 1;
            on_bad(bad);
        }
        let read = to.saturating_sub(from);
        state.bytes += read;
        state.at = Some(Position {
            segment: segment.id,
            offset: u32::try_from(to).unwrap_or(u32::MAX),
        });
        self.metrics.scrubbed.inc_by(read);
        self.remember(state);
        Ok(read)
    }

    /// Hands every section of a segment from `from` on to `hash`, until `bytes` were read, and tells
    /// what blocks are hidden by damage. Answers where it stopped.
    fn scan_for(
        &self,
        segment: &Segment,
        from: u64,
        bytes: u64,
        hash: &mut dyn FnMut((Position, Cid, Bytes)),
        tell: &dyn Fn(BadBlock),
    ) -> Result<u64, SourceError> {
        let mut scan = Scan::with_data(segment, from);
        let stop = from.saturating_add(bytes);
        let failed = |error: &std::io::Error| {
            // A collection may have taken the file away meanwhile.
            let gone = self.segment(segment.id).is_none();
            if gone {
                Ok(segment.length())
            } else {
                Err(disk(&nothing(), error))
            }
        };
        while scan.position() < stop {
            let step = match scan.next() {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(segment.length()),
                Err(error) => return failed(&error),
            };
            match step {
                Step::Found(found) => {
                    let position = Position {
                        segment: segment.id,
                        offset: found.offset,
                    };
                    match scan.data(&found) {
                        Ok(data) => hash((position, found.header.cid, data)),
                        Err(error) => return failed(&error),
                    }
                }
                Step::Retracted(_) => {}
                Step::Damage(gap) => self.hidden(segment.id, gap).into_iter().for_each(tell),
            }
        }
        Ok(scan.position())
    }

    /// Marks the blocks that the index says lie where nothing can be read, and names them as far as
    /// can be.
    fn hidden(&self, segment: SegmentId, gap: Damage) -> Vec<BadBlock> {
        let inside = |place: &Place| {
            place.segment == segment && (gap.from..gap.to).contains(&u64::from(place.offset))
        };
        let mut hidden: Vec<(Key, Place)> = Vec::new();
        let looked = self.index.each(0, |entries| {
            let counts = |(_, place): &&(Key, Place)| inside(place) && !self.is_dead(place);
            hidden.extend(entries.iter().filter(counts));
            ControlFlow::Continue(())
        });
        if let Err(error) = looked {
            tracing::error!(%error, "the index cannot say what damage hides");
        }
        let bad = hidden.into_iter().map(|(key, place)| {
            self.mark_damaged(key, place.position());
            BadBlock {
                cid: None,
                why: format!(
                    "segment {segment}: bytes {} to {} hold no readable block, but one lay at {}",
                    gap.from, gap.to, place.offset
                ),
            }
        });
        bad.collect()
    }

    /// Hashes a batch; answers what of it is bad and counts.
    fn check(&self, batch: Batch) -> Vec<BadBlock> {
        let places: Vec<(Position, Cid)> = batch
            .iter()
            .map(|(position, cid, _)| (*position, *cid))
            .collect();
        let blocks = batch
            .into_iter()
            .map(|(_, cid, data)| (cid, data))
            .collect();
        let mut bad = Vec::new();
        for ((position, cid), verified) in places.into_iter().zip(Block::verify_many(blocks)) {
            let Err(error) = verified else { continue };
            let key = self.index.key(cid.hash());
            let named = self.index.place(&key).ok().flatten();
            if named.is_none_or(|named| named.position() != position || self.is_dead(&named)) {
                // It is dead, or its CID is what was damaged: then another block lies here.
                let from = u64::from(position.offset);
                bad.extend(self.hidden(position.segment, Damage { from, to: from + 1 }));
                continue;
            }
            // Reads of it fail from now on, and putting it again writes it again.
            self.mark_damaged(key, position);
            bad.push(BadBlock {
                cid: Some(cid),
                why: format!(
                    "{error}; segment {}, byte {}",
                    position.segment, position.offset
                ),
            });
        }
        bad
    }

    fn all_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().cloned().collect()
    }

    pub(crate) fn lock_scrub(&self) -> std::sync::MutexGuard<'_, ScrubState> {
        lock(&self.scrub)
    }

    fn remember(&self, state: ScrubState) {
        *self.lock_scrub() = state;
        // Derived: lost, the round begins again.
        if let Err(error) = self.index.set_note(NOTE, state.to_text().as_bytes()) {
            tracing::warn!(%error, "the state of the scrub was not kept");
        }
    }

    /// What was remembered before the last stop.
    pub(crate) fn remembered_scrub(&self) -> ScrubState {
        let text = self.index.note(NOTE);
        let text = text.and_then(|text| String::from_utf8(text).ok());
        text.and_then(|text| ScrubState::from_text(&text))
            .unwrap_or_default()
    }
}

impl ScrubState {
    fn to_text(self) -> String {
        let at = self
            .at
            .map_or((0, 0), |at| (at.segment.packed(), at.offset));
        format!(
            "{} {} {} {} {} {}",
            self.started, self.finished, self.bytes, self.bad, at.0, at.1
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (started, finished, bytes, bad) = (next()?, next()?, next()?, next()?);
        let segment = u32::try_from(next()?).ok()?;
        let offset = u32::try_from(next()?).ok()?;
        let at = (segment != 0).then(|| Position {
            segment: SegmentId::unpacked(segment),
            offset,
        });
        Some(Self {
            started,
            finished,
            bytes,
            bad,
            at,
        })
    }
}

fn next(waiting: &Mutex<Receiver<Batch>>) -> Option<Batch> {
    lock(waiting).recv().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs().max(1))
}

/// Batches that wait to be hashed.
const BATCHES_WAITING_MAX: usize = 4;
/// Under which name the index keeps the state.
const NOTE: &str = "scrub";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;

    #[test]
    fn the_state_reads_back() {
        let segment = SegmentId {
            stream: Stream::Cache,
            number: 9,
        };
        for at in [None, Some(Position { segment, offset: 7 })] {
            let state = ScrubState {
                started: 1,
                finished: 2,
                bytes: 3,
                bad: 4,
                at,
            };
            assert_eq!(ScrubState::from_text(&state.to_text()), Some(state));
        }
        assert_eq!(ScrubState::from_text("1 2 x"), None);
    }
}
