//! Where new blocks go: the seam between import and whatever keeps its blocks.

use crate::block::Block;
use crate::cid::Cid;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// Something that takes new blocks. Import runs on a thread of its own, so this may block.
pub trait BlockSink {
    /// Takes the blocks, in order. Taken is not yet durable: whoever started the import commits.
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError>;
}

/// Why a block was not kept.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// No room: the disk is full, or nearly so.
    #[error("no space left in the repository: {0}; free some space or run `cairn repo gc`")]
    Full(String),
    /// The disk refused.
    #[error("cannot write to the repository: {0}")]
    Disk(String),
    /// The repository cannot be written.
    #[error(
        "the repository was opened for reading alone, because its folder cannot be written; change \
         its permissions or mount it writable, then start again"
    )]
    ReadOnly,
    /// The store is closing.
    #[error("the repository is closing")]
    Closing,
}

/// A sink that forgets: for naming content without keeping it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Nowhere;

impl BlockSink for Nowhere {
    fn put(&mut self, _blocks: Vec<Block>) -> Result<(), PutError> {
        Ok(())
    }
}

impl<H: BuildHasher> BlockSink for HashMap<Cid, Block, H> {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        self.extend(blocks.into_iter().map(|block| (*block.cid(), block)));
        Ok(())
    }
}

impl<S: BlockSink + ?Sized> BlockSink for &mut S {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        (**self).put(blocks)
    }
}
