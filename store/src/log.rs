//! The append-only log of segments: the truth about which blocks there are.
//!
//! A segment is a CARv1 file, `leaf-000001.car`, `node-000001.car` or `cache-000001.car`: a header
//! with one root (the empty identity CID) and then sections, each `varint | CID | bytes`. Kept blocks
//! without links go to the leaf stream, kept blocks with links to the node stream, so that walks read
//! dense files; what peers sent and nobody asked to keep goes to the cache stream, so that the oldest
//! of it goes file by file. A sealed segment is never written again.
//!
//! * [`section`]: one section's bytes.
//! * [`segment`]: one file, reading from it; [`sums`]: its checksums; [`files`]: how many are open at once.
//! * [`append`]: the active segments, and rotation.
//! * [`scan`]: walking over sections, and over damage, when the index is not to be asked.
//! * [`dead`]: which sections no longer count.

pub(crate) mod append;
pub(crate) mod dead;
pub(crate) mod files;
pub(crate) mod scan;
pub(crate) mod section;
pub(crate) mod segment;
pub(crate) mod sums;

use std::fmt;

/// Which of the streams of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// Blocks without links.
    Leaf,
    /// Blocks with links.
    Node,
    /// Blocks of either kind that came from peers and may be evicted.
    Cache,
    /// Where blocks lie in the user's files.
    File,
}

impl Stream {
    pub(crate) const ALL: [Self; 4] = [Self::Leaf, Self::Node, Self::Cache, Self::File];

    /// Where kept blocks of this codec go.
    pub(crate) fn of_codec(codec: u64) -> Self {
        use crate::cid::{CBOR, JSON, RAW};
        match codec {
            RAW | JSON | CBOR => Self::Leaf,
            _ => Self::Node,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Node => "node",
            Self::Cache => "cache",
            Self::File => "file",
        }
    }

    /// How names of its segments end. What has no blocks in it is no CAR.
    const fn ending(self) -> &'static str {
        match self {
            Self::Leaf | Self::Node | Self::Cache => "car",
            Self::File => "refs",
        }
    }
}

/// A segment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    pub(crate) stream: Stream,
    pub(crate) number: u32,
}

impl SegmentId {
    /// Stream and number in 32 bits.
    pub(crate) const fn packed(self) -> u32 {
        match self.stream {
            Stream::Leaf => self.number,
            Stream::Node => self.number | NODE_BIT,
            Stream::Cache => self.number | CACHE_BIT,
            Stream::File => self.number | NODE_BIT | CACHE_BIT,
        }
    }

    pub(crate) const fn unpacked(packed: u32) -> Self {
        let stream = match (packed & NODE_BIT != 0, packed & CACHE_BIT != 0) {
            (true, true) => Stream::File,
            (true, false) => Stream::Node,
            (false, true) => Stream::Cache,
            (false, false) => Stream::Leaf,
        };
        Self {
            stream,
            number: packed & !(NODE_BIT | CACHE_BIT),
        }
    }

    /// The name of its file.
    pub(crate) fn file_name(self) -> String {
        format!("{self}.{}", self.stream.ending())
    }

    /// The id in a file's name, if it is a segment's.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let (stream, rest) = name.split_once('-')?;
        let stream = Stream::ALL
            .into_iter()
            .find(|known| known.name() == stream)?;
        let number = rest.strip_suffix(stream.ending())?.strip_suffix('.')?;
        let number = number.parse().ok()?;
        (number != 0 && number < CACHE_BIT).then_some(Self { stream, number })
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{:06}", self.stream.name(), self.number)
    }
}

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    /// Of the section's first byte.
    pub(crate) offset: u32,
    /// Bytes of the block.
    pub(crate) length: u32,
    /// Whether it came from a peer and may be evicted.
    pub(crate) cached: bool,
    /// Whether it turned out to be damaged: then it is as if absent, but what takes its place is
    /// kept if it was.
    pub(crate) damaged: bool,
}

impl Place {
    /// Bytes of a packed place.
    pub(crate) const PACKED: usize = 12;

    /// Segment and offset: what a deletion names.
    pub(crate) const fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.offset,
        }
    }

    pub(crate) fn packed(&self) -> [u8; Self::PACKED] {
        let mut packed = [0; Self::PACKED];
        let flags = u32::from(self.cached) | (u32::from(self.damaged) << 1);
        let length_and_flags = (self.length << 8) | flags;
        let words = [self.offset, self.segment.packed(), length_and_flags];
        for (bytes, word) in packed.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        packed
    }

    pub(crate) fn unpacked(packed: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_be_bytes(packed.get(at..at + 4)?.try_into().ok()?))
        };
        let length_and_flags = word(8)?;
        Some(Self {
            offset: word(0)?,
            segment: SegmentId::unpacked(word(4)?),
            length: length_and_flags >> 8,
            cached: length_and_flags & 1 != 0,
            damaged: length_and_flags & 2 != 0,
        })
    }
}

impl Place {
    /// Whether what lies there is where the block is, and not the block.
    pub(crate) fn is_reference(&self) -> bool {
        self.segment.stream == Stream::File
    }
}

/// A section's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u32,
}

const NODE_BIT: u32 = 1 << 31;
const CACHE_BIT: u32 = 1 << 30;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_packing() {
        for stream in Stream::ALL {
            for (cached, damaged) in [(false, false), (true, false), (false, true)] {
                let place = Place {
                    segment: SegmentId { stream, number: 77 },
                    offset: u32::MAX - 1,
                    length: crate::block::BLOCK_BYTES_MAX as u32,
                    cached,
                    damaged,
                };
                assert_eq!(Place::unpacked(&place.packed()), Some(place));
            }
        }
        assert_eq!(Place::unpacked(&[0; 11]), None);
    }

    #[test]
    fn file_names_read_back() {
        for stream in Stream::ALL {
            let id = SegmentId { stream, number: 12 };
            assert_eq!(SegmentId::from_file_name(&id.file_name()), Some(id));
        }
        for other in [
            "leaf-000000.car",
            "leaf-1.crc",
            "tree-000001.car",
            "leaf-x.car",
            "leaf.car",
            "leaf-000001.refs",
            "file-000001.car",
        ] {
            assert_eq!(SegmentId::from_file_name(other), None, "{other}");
        }
    }
}
