//! The index alone, for benches that fill it with more entries than there is room for blocks.
//!
//! An entry is a key and a number; the number stands in for the place of a block.

use crate::index::{Checkpoint, Index, IndexError, Location};
use crate::log::{Place, SegmentId, Stream};
use std::io;
use std::path::Path;

/// Entries in memory at which the store merges them.
pub const MERGE_AT: usize = crate::store::MERGE_AT;

/// An index without a log.
#[derive(Debug)]
pub struct BenchIndex(Index);

impl BenchIndex {
    /// Opens the index in `folder`; what was merged before is there again.
    pub fn open(folder: &Path, cache_bytes: u64) -> io::Result<Self> {
        let mut refused = Vec::new();
        let (index, _) = Index::open(
            &Location::Folder(folder.to_owned()),
            cache_bytes,
            &mut |notice| refused.push(notice),
        )?;
        if refused.is_empty() {
            Ok(Self(index))
        } else {
            Err(io::Error::other(refused.join("; ")))
        }
    }

    /// Puts entries into memory.
    pub fn insert(&self, entries: impl IntoIterator<Item = ([u8; 16], u64)>) {
        let placed = |(key, number)| (key, place(number));
        self.0.insert(entries.into_iter().map(placed));
    }

    /// Moves what is in memory to the disk, durably; nothing if another merge is under way.
    pub fn merge(&self) -> io::Result<()> {
        match self.0.freeze() {
            Some(frozen) => self
                .0
                .merge(&frozen, Some(&Checkpoint::default()))
                .map(drop)
                .map_err(failed),
            None => Ok(()),
        }
    }

    /// The number under this key.
    pub fn lookup(&self, key: &[u8; 16]) -> io::Result<Option<u64>> {
        Ok(self.0.place(key).map_err(failed)?.map(number))
    }
}

fn failed(error: IndexError) -> io::Error {
    io::Error::other(error)
}

/// As if blocks of 1 KiB lay one after another in segments of 1 GiB.
fn place(number: u64) -> Place {
    let word = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        segment: SegmentId {
            stream: Stream::Leaf,
            number: word(number / PER_SEGMENT + 1),
        },
        offset: word(number % PER_SEGMENT * 1024),
        length: 1024,
        cached: false,
        damaged: false,
    }
}

fn number(place: Place) -> u64 {
    u64::from(place.segment.number - 1) * PER_SEGMENT + u64::from(place.offset / 1024)
}

const PER_SEGMENT: u64 = 1 << 20;
