//! Which blocks were read lately, roughly and in fixed memory: what eviction spares.
//!
//! Two bitmaps, each a bit a hash of a key. Reads mark the young one; when it has taken its share of
//! marks it becomes the old one, and the old one is forgotten. A collision spares a block for a while.

use crate::index::Key;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What was read lately.
#[derive(Debug)]
pub(crate) struct Recency {
    maps: [Box<[AtomicU64]>; 2],
    /// Which of the two is the young one.
    young: AtomicUsize,
    /// Marks that the young one has taken.
    marks: AtomicUsize,
}

impl Default for Recency {
    fn default() -> Self {
        let map = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self {
            maps: [map(), map()],
            young: AtomicUsize::new(0),
            marks: AtomicUsize::new(0),
        }
    }
}

impl Recency {
    /// The block was read.
    pub(crate) fn mark(&self, key: &Key) {
        let young = self.young.load(Ordering::Relaxed) % 2;
        let (word, bit) = position(key);
        let Some(word) = self.maps.get(young).and_then(|map| map.get(word)) else {
            return;
        };
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        if self.marks.fetch_add(1, Ordering::Relaxed) + 1 == MARKS_MAX {
            for word in self.maps.iter().rev().nth(young).into_iter().flatten() {
                word.store(0, Ordering::Relaxed);
            }
            self.marks.store(0, Ordering::Relaxed);
            self.young.store(1 - young, Ordering::Relaxed);
        }
    }

    /// Whether it was read lately, as far as anybody knows.
    pub(crate) fn has(&self, key: &Key) -> bool {
        let (word, bit) = position(key);
        self.maps
            .iter()
            .filter_map(|map| map.get(word))
            .any(|word| word.load(Ordering::Relaxed) & bit != 0)
    }
}

fn position(key: &Key) -> (usize, u64) {
    let hash = u64::from_le_bytes([
        key[2], key[3], key[4], key[5], key[6], key[7], key[8], key[9],
    ]);
    let word = usize::try_from(hash >> 6).unwrap_or(0) % WORDS;
    (word, 1 << (hash & 63))
}

/// Words of a bitmap: 1 MiB each, and little where thousands of stores are opened.
const WORDS: usize = if cfg!(test) { 1 << 10 } else { (1 << 20) / 8 };
/// Marks after which the young bitmap becomes the old one: an eighth of its bits.
const MARKS_MAX: usize = WORDS * 64 / 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        let mut key = Key::default();
        key[2..10].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        key
    }

    #[test]
    fn what_was_read_lately_is_known_and_what_was_read_long_ago_is_not() {
        let recency = Recency::default();
        assert!(!recency.has(&key(1)));
        recency.mark(&key(1));
        assert!(recency.has(&key(1)));
        for number in 2..3 * MARKS_MAX as u64 {
            recency.mark(&key(number));
        }
        assert!(recency.has(&key(3 * MARKS_MAX as u64 - 1)));
        assert!(!recency.has(&key(1)));
    }
}
