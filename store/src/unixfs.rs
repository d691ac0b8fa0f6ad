//! What UnixFS is: files, folders and links as DAGs.

pub mod directory;
pub mod format;
pub(crate) mod hamt;
pub mod import;
pub mod read;

use crate::chunk::Chunker;
use crate::cid::{HashKind, Version};

/// How content becomes blocks: same profile, same bytes, same CID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// CID version of every block.
    pub version: Version,
    /// Hash of every block.
    pub hash: HashKind,
    /// Whether leaves are raw blocks (else dag-pb files).
    pub raw_leaves: bool,
    /// How files are cut.
    pub chunker: Chunker,
    /// Shape of the file's tree.
    pub layout: Layout,
    /// Most children of a file's node.
    pub width: usize,
    /// Most buckets of a HAMT node.
    pub fanout: usize,
    /// Size above which a folder becomes a HAMT.
    pub hamt_threshold: usize,
    /// How a folder's size is measured against the threshold.
    pub hamt_measure: HamtMeasure,
}

/// Shape of a file's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Every leaf at the same depth.
    Balanced,
    /// Early leaves near the root, for streams.
    Trickle,
}

/// How a folder's size is measured against the HAMT threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HamtMeasure {
    /// Bytes of the names and CIDs of its links.
    Links,
    /// Bytes of the whole serialized block.
    Block,
}

impl Profile {
    /// `unixfs-v1-2025` of IPIP-499, the default.
    pub fn v1_2025() -> Self {
        Self {
            version: Version::V1,
            hash: HashKind::Sha2_256,
            raw_leaves: true,
            chunker: Chunker::Size(1 << 20),
            layout: Layout::Balanced,
            width: 1024,
            fanout: 256,
            hamt_threshold: 256 << 10,
            hamt_measure: HamtMeasure::Block,
        }
    }

    /// `unixfs-v0-2015` of IPIP-499.
    pub fn v0_2015() -> Self {
        Self {
            version: Version::V0,
            raw_leaves: false,
            chunker: Chunker::Size(256 << 10),
            width: 174,
            hamt_measure: HamtMeasure::Links,
            ..Self::v1_2025()
        }
    }

    /// A profile by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "unixfs-v1-2025" => Some(Self::v1_2025()),
            "unixfs-v0-2015" => Some(Self::v0_2015()),
            _ => None,
        }
    }
}

/// A file's time of change, as UnixFS keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}
