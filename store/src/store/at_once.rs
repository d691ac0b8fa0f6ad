//! Answers without changing threads, where the answer is in memory: for a small block the change costs
//! more than the look.
//!
//! Nothing here waits for the disk but for a page of the index that sled does not hold, and nobody's lock
//! but the memory table's: when a look has taken long, the next ones are left to the threads that may wait.
//! Whatever is not plain (moved, dead or damaged meanwhile, not in the page cache) is theirs too.

use super::Inner;
use super::read::{Found, HASHED_UP_TO};
use crate::block::Block;
use crate::cid::Cid;
use crate::index::Key;
use crate::log::Place;
use crate::sync::is_explored;
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

    fn plain_block(&self, cid: &Cid) -> Option<Option<Block>> {
        let key = self.index.key(cid.hash());
        let Some(place) = self.plain_place(&key)? else {
            return Some(None);
        };
        if place.length > HASHED_UP_TO {
            return None;
        }
        let found = Found {
            segment: self.segment(place.segment)?,
            place,
            by_hash: true,
        };
        let block = found.block_of(cid, |segment, offset, length| {
            segment.read_cached(offset, length)
        })?;
        if place.cached {
            self.recency.mark(&key);
        }
        self.metrics.read(block.data().len() as u64);
        Some(Some(block))
    }
}

/// A look that took longer waited for something.
const LONG: Duration = Duration::from_micros(500);
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
