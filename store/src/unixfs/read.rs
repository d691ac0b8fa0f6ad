//! From blocks back to files, folders and links.
//!
//! A node is opened by reading its root block; [`mod@file`] streams a file's bytes, [`folder`] lists a
//! folder or finds a name in it. What they read came from strangers: sizes must add up, shards must
//! hold the names that hash to them, and every loop has a bound.

pub mod file;
pub mod folder;

pub use file::File;
pub use folder::{Directory, Entry};

use super::Mtime;
use super::format::{Message, Type};
use crate::block::Block;
use crate::cid::{self, Cid};
use crate::dag::{Bound, pb};
use crate::source::{BlockSource, SourceError};

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
        /// Which one of the budget's, if it is not one of the reader's own.
        bound: Option<Bound>,
        /// Which limit, with its figure.
        limit: String,
    },
}

impl ReadError {
    /// The limit of a budget that was reached, if that is why.
    pub const fn bound(&self) -> Option<Bound> {
        match self {
            Self::OverBudget { bound, .. } => *bound,
            Self::Source(SourceError::OverBudget { bound, .. }) => Some(*bound),
            _ => None,
        }
    }

    /// Whether a block is not to be had, though others of the same DAG may be.
    pub const fn is_absence(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Source(error) => !error.is_of_every_block(),
            _ => false,
        }
    }
}

/// Opens the node at `cid`.
pub async fn open<S: BlockSource>(source: &S, cid: &Cid) -> Result<Node, ReadError> {
    match cid.codec() {
        cid::RAW | cid::DAG_PB => {}
        other => return Err(not_unixfs(cid, crate::dag::codec_text(other))),
    }
    match fetch(source, cid).await? {
        Some(block) => node(&block),
        None => Err(ReadError::NotFound(*cid)),
    }
}

/// What a block is, if it is UnixFS.
pub fn node(block: &Block) -> Result<Node, ReadError> {
    let cid = block.cid();
    match cid.codec() {
        cid::RAW => return Ok(Node::File(File::raw(block))),
        cid::DAG_PB => {}
        other => return Err(not_unixfs(cid, crate::dag::codec_text(other))),
    }
    let failed = |why| malformed(cid, why);
    let node = pb::skim(block.data()).map_err(failed)?;
    let Some(Ok(message)) = node.data.as_ref().map(Message::decode) else {
        node.whole().map_err(failed)?;
        return Err(not_unixfs(cid, "dag-pb without UnixFS data".to_owned()));
    };
    match message.kind {
        Type::File | Type::Raw => File::tree(block, node, message).map(Node::File),
        Type::Directory => {
            let node = node.whole().map_err(failed)?;
            Ok(Node::Directory(Directory::plain(block, node, &message)))
        }
        Type::HamtShard => {
            let node = node.whole().map_err(failed)?;
            Directory::sharded(block, node, &message).map(Node::Directory)
        }
        Type::Symlink => {
            let target = message.data.as_deref().unwrap_or_default();
            let target = std::str::from_utf8(target)
                .map_err(|_| malformed(cid, "a symlink whose target is not UTF-8".to_owned()))?;
            Ok(Node::Symlink(Symlink {
                cid: *cid,
                target: target.to_owned(),
                mtime: message.mtime,
            }))
        }
        Type::Metadata => Err(malformed(
            cid,
            "UnixFS metadata, which has no content".to_owned(),
        )),
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

/// The block, also when its CID carries it.
pub(crate) async fn fetch<S: BlockSource>(
    source: &S,
    cid: &Cid,
) -> Result<Option<Block>, SourceError> {
    match Block::from_identity(cid) {
        Some(block) => Ok(Some(block)),
        None => source.block(cid).await,
    }
}

/// Cumulative size of a node: its block and what its links claim.
pub(crate) fn cumulative(block: &Block, node: &pb::PbNode) -> u64 {
    node.links
        .iter()
        .filter_map(|link| link.tsize)
        .fold(block.data().len() as u64, u64::saturating_add)
}

fn malformed(cid: &Cid, why: String) -> ReadError {
    ReadError::Malformed { cid: *cid, why }
}

fn not_unixfs(cid: &Cid, codec: String) -> ReadError {
    ReadError::NotUnixfs { cid: *cid, codec }
}

fn over_budget(cid: &Cid, bound: Option<Bound>, limit: String) -> ReadError {
    let cid = *cid;
    ReadError::OverBudget { cid, bound, limit }
}
