//! From blocks back to files, folders and links.

use super::Mtime;
use crate::cid::Cid;
use crate::dag::Budget;
use crate::source::{BlockSource, SourceError};
use bytes::Bytes;
use futures::Stream;
use std::ops::Range;

/// What a CID turned out to be.
#[derive(Debug, Clone)]
pub enum Node {
    /// A file (raw blocks included).
    File(File),
    /// A folder.
    Directory(Directory),
    /// A symbolic link.
    Symlink(Symlink),
}

/// Why a read stopped.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A block is not there.
    #[error("block {0} was not found")]
    NotFound(Cid),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A block is not what its place in the DAG says.
    #[error("block {cid} is malformed: {why}")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong.
        why: String,
    },
    /// The block is no UnixFS node (another codec).
    #[error("{cid} is not a UnixFS file or folder: its codec is {codec}")]
    NotUnixfs {
        /// The block.
        cid: Cid,
        /// Name or number of the codec.
        codec: String,
    },
    /// A limit on work was reached.
    #[error("{cid}: {limit}")]
    OverBudget {
        /// Where it was reached.
        cid: Cid,
        /// Which limit, with its figure.
        limit: String,
    },
}

/// Opens the node at `cid`.
pub async fn open<S: BlockSource>(_source: &S, _cid: &Cid) -> Result<Node, ReadError> {
    todo!()
}

/// A file, opened: its root is read, nothing else.
#[derive(Debug, Clone)]
pub struct File {}

impl File {
    /// The root.
    pub fn cid(&self) -> &Cid {
        todo!()
    }
    /// Bytes of content.
    pub fn size(&self) -> u64 {
        todo!()
    }
    /// Permission bits, if kept.
    pub fn mode(&self) -> Option<u32> {
        todo!()
    }
    /// Time of change, if kept.
    pub fn mtime(&self) -> Option<Mtime> {
        todo!()
    }
    /// Streams the bytes of `range` in order, reading ahead, touching only the blocks it needs.
    /// The end is cut to the file's size.
    pub fn read<S: BlockSource + Clone + 'static>(
        &self,
        _source: S,
        _range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
        if true {
            todo!()
        }
        futures::stream::empty()
    }
}

/// A folder, opened.
#[derive(Debug, Clone)]
pub struct Directory {}

/// An entry of a folder, as its link says. Children are never fetched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The child's root.
    pub cid: Cid,
    /// The link's Tsize: cumulative size of the child's DAG, as claimed by whoever made the link.
    pub tsize: u64,
}

impl Directory {
    /// The root.
    pub fn cid(&self) -> &Cid {
        todo!()
    }
    /// Whether it is a HAMT.
    pub fn is_sharded(&self) -> bool {
        todo!()
    }
    /// Permission bits, if kept.
    pub fn mode(&self) -> Option<u32> {
        todo!()
    }
    /// Time of change, if kept.
    pub fn mtime(&self) -> Option<Mtime> {
        todo!()
    }
    /// The entry with this name; in a HAMT only the shards on the way are read.
    pub async fn find<S: BlockSource>(
        &self,
        _source: &S,
        _name: &str,
    ) -> Result<Option<Entry>, ReadError> {
        todo!()
    }
    /// Streams the entries in stored order (a HAMT in hash order), within `budget`.
    pub fn entries<S: BlockSource + Clone + 'static>(
        &self,
        _source: S,
        _budget: Budget,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        if true {
            todo!()
        }
        futures::stream::empty()
    }
}

/// A symbolic link.
#[derive(Debug, Clone)]
pub struct Symlink {
    /// The root.
    pub cid: Cid,
    /// Where it points, as written.
    pub target: String,
    /// Time of change, if kept.
    pub mtime: Option<Mtime>,
}
