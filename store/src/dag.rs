//! The links of a block, for every codec.

pub mod cbor;
pub mod json;
pub mod path;
pub mod pb;
pub mod value;
pub mod walk;

use crate::block::Block;
use crate::cid::Cid;

/// Limits on one piece of work over foreign DAGs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most folder entries handed out.
    pub entries: u64,
    /// Most blocks read.
    pub blocks: u64,
    /// Most bytes of blocks read.
    pub bytes: u64,
    /// Deepest level below the root.
    pub depth: usize,
}

impl Budget {
    /// For an operator's own commands: generous, yet finite.
    pub const OPERATOR: Self = Self {
        entries: 100_000_000,
        blocks: u64::MAX,
        bytes: u64::MAX,
        depth: 4096,
    };
    /// For a request from outside.
    pub const REQUEST: Self = Self {
        entries: 100_000,
        blocks: 100_000,
        bytes: 4 << 30,
        depth: 256,
    };
}

/// A link as its block gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link's name in dag-pb; the path to it in other codecs.
    pub name: String,
    /// Where it points.
    pub cid: Cid,
    /// Tsize in dag-pb.
    pub tsize: Option<u64>,
}

/// Why a block cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {cid} is not valid {codec}: {why}")]
pub struct DecodeError {
    /// The block.
    pub cid: Cid,
    /// Its codec's name.
    pub codec: String,
    /// What is wrong, and where.
    pub why: String,
}

/// The links of a block, in stored order, duplicates included. Codecs without links, and codecs
/// that we do not know, have none.
pub fn links(_block: &Block) -> Result<Vec<Link>, DecodeError> {
    todo!()
}

/// Whether blocks of this codec never have links.
pub const fn has_no_links(codec: u64) -> bool {
    use crate::cid::{CBOR, JSON, LIBP2P_KEY, RAW};
    matches!(codec, RAW | CBOR | JSON | LIBP2P_KEY)
}
