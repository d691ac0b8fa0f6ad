//! Blocks that are read again and again stay in memory, checked as they were: reading and hashing them once more would
//! cost more than sending them.
//!
//! What is here is found by its key and by where the index says that it lies: whatever was moved, deleted or put anew
//! is not found here, so that nobody has to be told. Blocks that are read once do not drive out those that are read
//! often.

use crate::block::Block;
use crate::cid::Cid;
use crate::index::Key;
use crate::log::sums::PAGE_BYTES;
use crate::log::{Place, Position};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::fmt;

type Entries = Cache<(Key, Position), Bytes, Bulk>;

/// Blocks in memory.
pub(crate) struct Hot {
    /// `None` if there are to be none.
    entries: Option<Entries>,
}

impl Hot {
    /// At most so many bytes of them.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / BLOCK_BYTES_USUAL).unwrap_or(usize::MAX);
        Self {
            entries: (bytes_max > 0).then(|| Cache::with_weighter(items, bytes_max, Bulk)),
        }
    }

    /// The block that lies there, if it is in memory.
    pub(crate) fn get(&self, cid: &Cid, key: &Key, place: &Place) -> Option<Block> {
        let data = self.entries.as_ref()?.get(&(*key, place.position()))?;
        Some(Block::trusted(*cid, data))
    }

    /// Keeps a block that was just read and checked, if it is worth its room.
    pub(crate) fn keep(&self, block: &Block, key: &Key, place: &Place) {
        if let Some(entries) = &self.entries
            && block.data().len() <= BLOCK_BYTES_MAX
        {
            entries.insert((*key, place.position()), block.data().clone());
        }
    }
}

impl fmt::Debug for Hot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.entries.as_ref().map_or(0, Entries::weight);
        write!(out, "Hot({bytes} bytes)")
    }
}

/// What a block takes: its bytes with the rest of the pages around it, and the entry.
#[derive(Debug, Clone, Copy)]
struct Bulk;

impl Weighter<(Key, Position), Bytes> for Bulk {
    fn weight(&self, _: &(Key, Position), data: &Bytes) -> u64 {
        data.len() as u64 + BESIDE_BYTES
    }
}

/// Larger blocks are read once and sent for a while: they would drive out too many others.
const BLOCK_BYTES_MAX: usize = 128 << 10;
/// What one entry costs beside the block's own bytes: of a large block, what else was in the first and the last page.
const BESIDE_BYTES: u64 = 2 * PAGE_BYTES as u64;
/// How large a block is when the table is made; it grows where they are smaller.
const BLOCK_BYTES_USUAL: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{self, HashKind, Version};
    use crate::log::{SegmentId, Stream};

    fn block(number: u32, bytes: usize) -> (Block, Key, Place) {
        let mut data = vec![0; bytes];
        data[..4].copy_from_slice(&number.to_le_bytes());
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        let block = Block::new(prefix, data.into()).unwrap();
        let mut key = Key::default();
        key[..4].copy_from_slice(&number.to_le_bytes());
        let segment = SegmentId {
            stream: Stream::Leaf,
            number: 1,
        };
        let place = Place {
            segment,
            offset: number,
            length: u32::try_from(bytes).unwrap(),
            cached: false,
            damaged: false,
        };
        (block, key, place)
    }

    #[test]
    fn a_block_is_found_where_it_lies_and_nowhere_else() {
        let hot = Hot::new(1 << 20);
        let (one, key, place) = block(1, 1000);
        assert!(hot.get(one.cid(), &key, &place).is_none());
        hot.keep(&one, &key, &place);
        let found = hot.get(one.cid(), &key, &place).unwrap();
        assert_eq!(found.data(), one.data());
        let moved = Place { offset: 7, ..place };
        assert!(hot.get(one.cid(), &key, &moved).is_none());
        assert!(hot.get(one.cid(), &[9; 16], &place).is_none());
    }

    #[test]
    fn no_more_is_kept_than_was_said_and_nothing_that_is_large() {
        const MOST: u64 = 1 << 20;
        let hot = Hot::new(MOST);
        for number in 0..1000 {
            let (block, key, place) = block(number, 10_000);
            hot.keep(&block, &key, &place);
            assert!(hot.entries.as_ref().unwrap().weight() <= MOST);
        }
        let (large, key, place) = block(5000, BLOCK_BYTES_MAX + 1);
        hot.keep(&large, &key, &place);
        assert!(hot.get(large.cid(), &key, &place).is_none());
        let none = Hot::new(0);
        let (small, key, place) = block(1, 10);
        none.keep(&small, &key, &place);
        assert!(none.get(small.cid(), &key, &place).is_none());
    }

    #[test]
    fn what_is_read_once_does_not_drive_out_what_is_read_often() {
        let hot = Hot::new(1 << 20);
        let often: Vec<_> = (0..10).map(|number| block(number, 1000)).collect();
        for (block, key, place) in &often {
            hot.keep(block, key, place);
        }
        for number in 100..5000 {
            for (block, key, place) in &often {
                hot.get(block.cid(), key, place);
            }
            let (block, key, place) = block(number, 1000);
            hot.keep(&block, &key, &place);
        }
        let still = often
            .iter()
            .filter(|(block, key, place)| hot.get(block.cid(), key, place).is_some());
        assert_eq!(still.count(), often.len());
    }
}
