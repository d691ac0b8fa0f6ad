//! Where new blocks go: the seam between import and whatever keeps its blocks.

use crate::block::Block;
use crate::cid::Cid;
use crate::reference::{Lost, Reference};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

/// Something that takes new blocks. Import runs on a thread of its own, so this may block.
pub trait BlockSink {
    /// Takes the blocks, in order. Taken is not yet durable: whoever started the import commits.
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError>;

    /// Takes blocks that lie in files, in order. Whoever keeps no references takes them as any others.
    fn put_placed(&mut self, placed: Vec<Placed>) -> Result<(), PutError> {
        self.put(placed.into_iter().map(|placed| placed.block).collect())
    }
}

/// A block that lies in a file.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The block.
    pub block: Block,
    /// The file, absolute.
    pub path: Arc<Path>,
    /// Its first byte there.
    pub offset: u64,
}

impl Placed {
    /// Whether the file has these bytes there. Blocks.
    pub fn compare(&self) -> Result<(), Lost> {
        self.reference().compare(self.block.data())
    }

    pub(crate) fn reference(&self) -> Reference {
        Reference {
            path: self.path.clone(),
            offset: self.offset,
            // Blocks are far smaller than that.
            length: u32::try_from(self.block.data().len()).unwrap_or(u32::MAX),
        }
    }
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
    /// A file that is added in place does not have what was sent as lying there.
    #[error(
        "{0}, or never was what was sent; nothing was pinned: add it again when nobody changes it"
    )]
    NotThere(Lost),
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

    fn put_placed(&mut self, placed: Vec<Placed>) -> Result<(), PutError> {
        (**self).put_placed(placed)
    }
}
