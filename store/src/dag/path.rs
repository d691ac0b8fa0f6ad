//! From a root and a path to a CID: through folders, HAMTs, dag-cbor and dag-json.

use crate::cid::{Cid, CidError};
use crate::source::{BlockSource, SourceError};

/// A content path, parsed: `/ipfs/<cid>/a/b`, `ipfs://<cid>/a/b` or `<cid>/a/b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPath {
    /// The root.
    pub root: Cid,
    /// The names below it; `.` and `..` are resolved.
    pub segments: Vec<String>,
}

/// Why a text is no content path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePathError {
    /// The root is no CID.
    #[error("invalid path {path:?}: {source}")]
    Root {
        /// The whole path.
        path: String,
        /// What is wrong with its root.
        source: CidError,
    },
    /// `..` above the root, NUL, or no root at all.
    #[error("invalid path {path:?}: {why}")]
    Form {
        /// The whole path.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A mutable name where only content is understood.
    #[error("invalid path {path:?}: names under /ipns cannot be resolved here")]
    Name {
        /// The whole path.
        path: String,
    },
}

impl std::str::FromStr for ContentPath {
    type Err = ParsePathError;
    fn from_str(_text: &str) -> Result<Self, ParsePathError> {
        todo!()
    }
}

/// Where a path led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The last block on the way.
    pub cid: Cid,
    /// The names left inside that block (dag-cbor and dag-json; empty elsewhere).
    pub remainder: Vec<String>,
    /// One CID for each segment, the root first, the terminus last; shards are left out.
    pub roots: Vec<Cid>,
    /// Every block on the way in order, shards included; the terminus last.
    pub blocks: Vec<Cid>,
}

/// Why a path led nowhere.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such link.
    #[error("no link named {name:?} under {under}")]
    NoLink {
        /// The missing name.
        name: String,
        /// The node that lacks it.
        under: Cid,
    },
    /// A block on the way is not there.
    #[error("block {0} was not found")]
    NotFound(Cid),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A block on the way cannot be decoded.
    #[error("block {cid} is malformed: {why}")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong.
        why: String,
    },
    /// More segments or shards than allowed.
    #[error("the path is longer than {SEGMENTS_MAX} names")]
    TooLong,
}

/// Most names in a path.
pub const SEGMENTS_MAX: usize = 1024;

/// Follows `segments` from `root`. The root block itself is only read if there are segments.
pub async fn resolve<S: BlockSource>(
    _source: &S,
    _root: &Cid,
    _segments: &[String],
) -> Result<Resolved, ResolveError> {
    todo!()
}
