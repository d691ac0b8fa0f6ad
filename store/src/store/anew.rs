//! Blocks as they lie on the disk now: whoever asks whether they are whole must not be told from memory.

use super::{Store, blocking};
use crate::block::Block;
use crate::cid::Cid;
use crate::source::{BlockSource, SourceError};

/// A store of which nothing is read from memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Anew(Store);

impl Store {
    /// The same blocks, each read from the disk.
    pub fn anew(&self) -> Anew {
        Anew(self.clone())
    }
}

impl BlockSource for Anew {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        let (inner, cid) = (self.0.inner.clone(), *cid);
        blocking(move || inner.block_on_disk(&cid))
            .await
            .unwrap_or(Err(SourceError::Stopping { cid }))
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        self.0.size(cid).await
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.0.admits(cid)
    }
}
