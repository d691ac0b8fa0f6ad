//! What goes: whatever was there when the mark began and is neither marked nor held.

use super::{Collection, GcError, GcEvent};
use crate::index::Key;
use crate::journal::{DEAD_PER_RECORD, Sync};
use crate::log::section::{self, Header, PREFIX_MAX};
use crate::log::{Place, Position};
use crate::sink::PutError;
use crate::store::Inner;
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::PoisonError;

impl<F: FnMut(GcEvent)> Collection<F> {
    pub(super) fn sweep(&mut self) -> Result<(), GcError> {
        let inner = self.inner.clone();
        let mut from = Some(0);
        while let Some(bucket) = from {
            let mut candidates: Vec<(Key, Place)> = Vec::new();
            let merges = inner.index.merges();
            let went = inner.index.each(bucket, |entries| {
                let garbage = |(key, place): &&(Key, Place)| {
                    !self.marks.has(key) && self.is_old(place) && !inner.is_dead(place)
                };
                candidates.extend(entries.iter().filter(garbage));
                if candidates.len() >= CANDIDATES_MAX {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            from = went.map_err(PutError::from)?;
            inner.index.watch(candidates.iter().map(|(key, _)| *key));
            // What changed between the look and the watch.
            let mut still = Vec::with_capacity(candidates.len());
            for (key, place) in candidates {
                let now = inner.index.changed(&key, merges).map_err(PutError::from)?;
                if now.is_none_or(|now| now == Some(place)) {
                    still.push((key, place));
                }
            }
            let mut candidates = still;
            candidates.sort_unstable_by_key(|(_, place)| place.position());
            let swept = candidates
                .chunks(DEAD_PER_RECORD)
                .try_for_each(|some| self.sweep_batch(some.to_vec()));
            inner.index.stop_watching();
            swept?;
            if from.is_some() {
                inner.checkpoint()?;
            }
        }
        Ok(())
    }

    /// Whether the section was there when the mark began.
    fn is_old(&self, place: &Place) -> bool {
        let end = self.ends.get(&place.segment);
        end.is_some_and(|end| u64::from(place.offset) < *end)
    }

    fn sweep_batch(&mut self, mut batch: Vec<(Key, Place)>) -> Result<(), GcError> {
        let inner = self.inner.clone();
        let mut alone = inner
            .sweeping
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            batch.retain(|(key, _)| {
                inner.index.is_unchanged(key) && !self.marks.has(key) && !inner.is_held(key)
            });
            // Looked at after the holds: whoever let go of one has made its pin before.
            if self.marks.are_current(&inner) {
                break;
            }
            drop(alone);
            self.mark_new()?;
            alone = inner
                .sweeping
                .write()
                .unwrap_or_else(PoisonError::into_inner);
        }
        if !batch.is_empty() {
            let appender = inner.lock_appender();
            // Nobody waits for it: a deletion that is lost makes garbage again, no more.
            inner.bury(&batch, Sync::Leave)?;
            drop(appender);
        }
        drop(alone);
        let mut headers = Headers::default();
        for (at, (_, place)) in batch.iter().enumerate() {
            self.report.blocks += 1;
            self.report.bytes += u64::from(place.length);
            inner.metrics.collected.inc();
            let next = batch.get(at + 1).map(|(_, next)| next.position());
            if let Some(header) = headers.of(&inner, place.position(), next) {
                (self.on_event)(GcEvent::Removed(header.cid));
            }
        }
        Ok(())
    }
}

/// Reads the headers of sections in the order they lie, many at once where they lie close together.
#[derive(Default)]
struct Headers {
    window: Bytes,
    begin: Option<Position>,
    /// How much is read together the next time.
    ahead: usize,
}

impl Headers {
    /// The header at a position; the next one that will be asked for is at `next`.
    fn of(&mut self, inner: &Inner, at: Position, next: Option<Position>) -> Option<Header> {
        if let Some(header) = self.in_window(at) {
            return Some(header);
        }
        let is_near = |next: &Position| {
            next.segment == at.segment && next.offset.saturating_sub(at.offset) < NEAR
        };
        // More and more, as long as the next one lies near: two that do say nothing of a third.
        self.ahead = match next.filter(is_near) {
            Some(_) => (2 * self.ahead).clamp(READ_FIRST, READ_TOGETHER),
            None => PREFIX_MAX,
        };
        let segment = inner.segment(at.segment)?;
        let read = segment.read_unchecked(at.offset.into(), self.ahead as u64);
        self.window = read.ok()?;
        self.begin = Some(at);
        section::header(&self.window)
    }

    fn in_window(&self, at: Position) -> Option<Header> {
        let begin = self.begin.filter(|begin| begin.segment == at.segment)?;
        let skip = usize::try_from(at.offset.checked_sub(begin.offset)?).ok()?;
        // All that a header may take, so that one cut short is not taken for none.
        let head = self.window.get(skip..skip.checked_add(PREFIX_MAX)?)?;
        section::header(head)
    }
}

/// Sections no further apart are read together.
const NEAR: u32 = 8 << 10;
/// Bytes that are read together, at first and at most.
const READ_FIRST: usize = 16 << 10;
const READ_TOGETHER: usize = 256 << 10;
/// Most blocks that are looked at between two looks over the index.
const CANDIDATES_MAX: usize = 500_000;
