//! Re-hash what is on disk a piece at a time.
//!
//! [`Store::scrub`] does a piece, remembers where it was, and begins again when it is through: whoever
//! calls it decides how much of the disk's time it takes. What is damaged is marked and told as
//! [`Store::verify`] does it.

use crate::hash::BATCH;
use crate::log::scan::Scan;
use crate::log::{Position, SegmentId};
use crate::source::SourceError;
use crate::store::{Inner, Store, blocking, nothing};
use crate::verify::{BadBlock, KnownBad, Walk, Walked, lock};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

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
            .ok_or_else(|| SourceError::Stopping { cid: nothing() })
    }

    /// How the background's round stands.
    pub fn scrub_state(&self) -> ScrubState {
        *self.inner.lock_scrub()
    }
}

impl Inner {
    pub(crate) fn scrub(&self, bytes: u64, on_bad: &mut (dyn FnMut(BadBlock) + Send)) -> u64 {
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
            return 0;
        };
        let from = state
            .at
            .filter(|at| at.segment == segment.id)
            .map_or(0, |at| u64::from(at.offset));
        let walk = Walk::new(KnownBad::Unknown);
        let mut batch = Vec::with_capacity(BATCH);
        let bad = Mutex::new(Vec::new());
        let mut hash = |section| {
            batch.push(section);
            if batch.len() >= BATCH {
                let found = self.check(std::mem::take(&mut batch), &walk);
                lock(&bad).extend(found);
            }
        };
        let mut scan = Scan::with_data(&segment, from);
        let walked = self.scan_for(&mut scan, bytes, &walk, &mut hash, &|gap| {
            lock(&bad).push(gap);
        });
        let walked = walked.unwrap_or_else(|error| {
            // The round goes on behind it, and comes back to it the next time.
            tracing::error!(segment = %segment.id, %error, "a segment cannot be read to its end");
            Walked::All
        });
        let (to, read) = match walked {
            Walked::Some => (scan.resumes_at(from), scan.position() - from),
            Walked::All => (segment.length(), segment.length().saturating_sub(from)),
        };
        let found = self.check(batch, &walk);
        lock(&bad).extend(found);
        for bad in bad.into_inner().unwrap_or_else(PoisonError::into_inner) {
            state.bad += 1;
            on_bad(bad);
        }
        state.bytes += to.saturating_sub(from);
        state.at = Some(Position {
            segment: segment.id,
            offset: u32::try_from(to).unwrap_or(u32::MAX),
        });
        self.metrics.scrubbed.inc_by(read);
        self.remember(state);
        read
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

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs().max(1))
}

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
