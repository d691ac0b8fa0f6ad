//! Answers without changing threads, where the answer is in memory: for a small block, or part of one, the change
//! costs more than the look.
//!
//! Nothing here waits for the disk but for a page of the index that sled does not hold, and nobody's lock
//! but the memory table's: when a look has taken long, the next ones are left to the threads that may wait.
//! Whatever is not plain (moved, dead or damaged meanwhile, not in the page cache) is theirs too.

use super::Inner;
use super::read::Found;
use crate::block::Block;
use crate::cid::Cid;
use crate::index::Key;
use crate::log::Place;
use crate::source::cut;
use crate::sync::is_explored;
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Whether looks at once are worth while.
#[derive(Debug, Default)]
pub(super) struct Haste {
    /// How many looks are left to threads that may wait.
    waiting: AtomicU32,
}

impl Haste {
    /// Looks, unless it took long lately.
    fn look<T>(&self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting > 0 {
            // Two at once may count as one: it is a guess anyway.
            self.waiting.store(waiting - 1, Ordering::Relaxed);
            return None;
        }
        let begun = Instant::now();
        let seen = look();
        if begun.elapsed() > LONG {
            self.waiting.store(LEFT_TO_OTHERS, Ordering::Relaxed);
        }
        seen
    }
}

impl Inner {
    /// Where the block is, or that it is nowhere; `None` if that takes a closer look.
    pub(crate) fn place_at_once(&self, key: &Key) -> Option<Option<Place>> {
        if is_explored() {
            return None; // Its schedule must not hang on the time.
        }
        self.haste.look(|| self.plain_place(key))
    }

    fn plain_place(&self, key: &Key) -> Option<Option<Place>> {
        let Some(place) = self.index.place(key).ok()? else {
            return Some(None);
        };
        let is_there = self.segment(place.segment).is_some();
        let is_plain = is_there && !place.damaged && !self.is_dead(&place);
        is_plain.then_some(Some(place))
    }

    /// The block, or that it is not here; `None` if that takes a closer look.
    pub(crate) fn block_at_once(&self, cid: &Cid) -> Option<Option<Block>> {
        if is_explored() {
            return None;
        }
        self.haste.look(|| self.plain_block(cid))
    }

    /// A part of the block, or that it is not here; `None` if that takes a closer look.
    pub(crate) fn range_at_once(&self, cid: &Cid, range: &Range<u64>) -> Option<Option<Bytes>> {
        if is_explored() {
            return None;
        }
        self.haste.look(|| self.plain_range(cid, range))
    }

    fn plain_block(&self, cid: &Cid) -> Option<Option<Block>> {
        let Some(found) = self.plain_found(cid)? else {
            return Some(None);
        };
        let hot = self.hot.get(cid, &found.key, &found.place);
        let block = match hot {
            Some(block) => block,
            None if u64::from(found.place.length) > AT_ONCE_MAX => return None,
            None => {
                let block = match found.is_hashed() {
                    true => found.block_of(cid, |segment, offset, length| {
                        segment.read_cached(offset, length)
                    })?,
                    false => found.block_by_sums_at_once(cid)?,
                };
                self.hot.keep(&block, &found.key, &found.place);
                block
            }
        };
        self.was_read(&found, block.data().len());
        Some(Some(block))
    }

    fn plain_range(&self, cid: &Cid, range: &Range<u64>) -> Option<Option<Bytes>> {
        let Some(found) = self.plain_found(cid)? else {
            return Some(None);
        };
        let hot = self.hot.get(cid, &found.key, &found.place);
        let bytes = match hot {
            Some(block) => cut(block.data(), range),
            None if found.is_hashed() => return None,
            None if range.end.saturating_sub(range.start) > AT_ONCE_MAX => return None,
            None => found.range_by_sums_at_once(cid, range)?,
        };
        self.was_read(&found, bytes.len());
        Some(Some(bytes))
    }

    fn plain_found(&self, cid: &Cid) -> Option<Option<Found>> {
        let key = self.index.key(cid.hash());
        let Some(place) = self.plain_place(&key)? else {
            return Some(None);
        };
        if place.is_reference() {
            return None; // Opening a file of the user's may take long.
        }
        let segment = self.segment(place.segment)?;
        Some(Some(Found {
            key,
            segment,
            place,
            by_hash: false,
        }))
    }

    fn was_read(&self, found: &Found, bytes: usize) {
        if found.place.cached {
            self.recency.mark(&found.key);
        }
        self.metrics.read(bytes as u64);
    }
}

/// A look that took longer waited for something.
const LONG: Duration = Duration::from_micros(500);
/// Most bytes that are read without changing threads.
const AT_ONCE_MAX: u64 = 128 << 10;
/// How many looks are left to threads that may wait after one that took long: so one of so many is slow
/// at most.
const LEFT_TO_OTHERS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_look_that_took_long_the_next_are_left_to_others() {
        let haste = Haste::default();
        assert_eq!(haste.look(|| Some(1)), Some(1));
        haste.look(|| {
            let begun = Instant::now();
            while begun.elapsed() <= LONG {}
            Some(())
        });
        for _ in 0..LEFT_TO_OTHERS {
            assert_eq!(haste.look(|| Some(2)), None);
        }
        assert_eq!(haste.look(|| Some(3)), Some(3));
    }
}
