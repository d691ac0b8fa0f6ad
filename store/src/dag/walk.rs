//! Every block below a root, depth first, within a budget.

use super::Budget;
use crate::block::Block;
use crate::cid::Cid;
use crate::source::BlockSource;
use crate::unixfs::read::ReadError;
use futures::Stream;

/// How to walk.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a block that is linked twice comes twice.
    pub repeats: Repeats,
    /// Deepest level below the root that is visited; `None` for all.
    pub max_depth: Option<usize>,
    /// Limits.
    pub budget: Budget,
    /// What a missing block does.
    pub missing: Missing,
    /// How many blocks may be asked for ahead of the one handed out.
    pub read_ahead: usize,
}

/// Whether a block that is linked twice comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Each block once, at its first place.
    Skip,
    /// As often as it is linked.
    Keep,
}

/// What a missing block does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The walk ends with an error.
    Stop,
    /// The walk tells it and goes on.
    Tell,
}

/// One step of a walk.
#[derive(Debug, Clone)]
pub enum Visit {
    /// A block, `depth` levels below the root.
    Block {
        /// The block.
        block: Block,
        /// Its level; the root's is 0.
        depth: usize,
    },
    /// A block that is not there (only with [`Missing::Tell`]).
    Missing {
        /// Its name.
        cid: Cid,
        /// Why, as the source put it.
        why: String,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repeats: Repeats::Skip,
            max_depth: None,
            budget: Budget::OPERATOR,
            missing: Missing::Stop,
            read_ahead: 32,
        }
    }
}

/// Streams the DAG below `root`, the root first, links in stored order (preorder).
pub fn walk<S: BlockSource + Clone + 'static>(
    _source: S,
    _root: Cid,
    _options: Options,
) -> impl Stream<Item = Result<Visit, ReadError>> + Send + 'static {
    if true {
        todo!()
    }
    futures::stream::empty()
}
