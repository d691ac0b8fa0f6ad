//! The tree as it is at one moment: what is not written yet, over a source of everything else.

use crate::block::Block;
use crate::cid::Cid;
use crate::source::{BlockSource, SourceError};
use std::collections::HashMap;
use std::sync::Arc;

/// Blocks that are not in the store yet.
pub(super) type Overlay = HashMap<Cid, Block>;

/// The blocks of the tree at one moment.
#[derive(Debug, Clone)]
pub struct View<S> {
    pub(super) overlay: Arc<Overlay>,
    pub(super) source: S,
}

impl<S> View<S> {
    /// All blocks of a source.
    pub fn over(source: S) -> Self {
        let overlay = Arc::default();
        Self { overlay, source }
    }

    /// The same blocks in memory, over another source.
    pub fn with_source<T>(self, source: T) -> View<T> {
        let overlay = self.overlay;
        View { overlay, source }
    }
}

impl<S: BlockSource> BlockSource for View<S> {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        match self.overlay.get(cid) {
            Some(block) => Ok(Some(block.clone())),
            None => self.source.block(cid).await,
        }
    }

    async fn range(
        &self,
        cid: &Cid,
        range: std::ops::Range<u64>,
    ) -> Result<Option<bytes::Bytes>, SourceError> {
        match self.overlay.get(cid) {
            Some(block) => Ok(Some(crate::source::cut(block.data(), &range))),
            None => self.source.range(cid, range).await,
        }
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        match self.overlay.get(cid) {
            Some(block) => Ok(Some(block.data().len() as u64)),
            None => self.source.size(cid).await,
        }
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.source.admits(cid)
    }
}
