//! Where blocks come from: the one seam between content and network.
//!
//! Readers of files, paths, DAGs and CARs know only [`BlockSource`]. The store implements it
//! (offline), so does the exchange (online), and a plain map does for tests.

use crate::block::{BLOCK_BYTES_MAX, Block};
use crate::cid::Cid;
use crate::dag::Bound;
use crate::reference::Lost;
use bytes::Bytes;
use std::collections::HashMap;
use std::future::Future;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

/// Something that has blocks, or can get them.
pub trait BlockSource: Send + Sync {
    /// The block named `cid`, or `None` if this source is sure that it has none.
    fn block(&self, cid: &Cid) -> impl Future<Output = Result<Option<Block>, SourceError>> + Send;

    /// A part of the block's bytes; the end is cut to the block's length. A source that can
    /// check less than a whole block reads only what the range needs.
    fn range(
        &self,
        cid: &Cid,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Option<Bytes>, SourceError>> + Send {
        async move {
            Ok(self
                .block(cid)
                .await?
                .map(|block| cut(block.data(), &range)))
        }
    }

    /// How many bytes the block has, without reading them where that can be helped.
    fn size(&self, cid: &Cid) -> impl Future<Output = Result<Option<u64>, SourceError>> + Send {
        async move {
            Ok(self
                .block(cid)
                .await?
                .map(|block| block.data().len() as u64))
        }
    }

    /// Whether the block may be had here at all, which is asked of nobody and nothing. Whoever stands before another
    /// source asks that one.
    fn admits(&self, cid: &Cid) -> Result<(), SourceError>;
}

/// Why a source could not say whether it has a block, or could not hand it over.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The disk failed or holds damaged bytes.
    #[error("block {cid} cannot be read: {why}")]
    Disk {
        /// The block asked for.
        cid: Cid,
        /// What the disk or the checksum said.
        why: Arc<str>,
    },
    /// Its bytes on disk are damaged: it is as good as absent, and whoever can fetch it should.
    #[error("block {cid} is damaged on disk; fetch or add it again")]
    Damaged {
        /// The block asked for.
        cid: Cid,
    },
    /// It was added in place, and is not there any more: whoever can fetch it should.
    #[error(
        "block {cid} was added in place and cannot be had from there: {lost}; put the file back as it was, or \
         add it again"
    )]
    Elsewhere {
        /// The block asked for.
        cid: Cid,
        /// Where it was, and what happened.
        lost: Arc<Lost>,
    },
    /// It came, but the repository took it not: nor would it take the next one.
    #[error("block {cid} was fetched, but cannot be kept: {why}")]
    Unkept {
        /// The block asked for.
        cid: Cid,
        /// What the store said.
        why: Arc<str>,
    },
    /// Nobody answered in time.
    #[error("block {cid} was not found in time: {tried}")]
    TooSlow {
        /// The block asked for.
        cid: Cid,
        /// What was tried: providers found, dials, wants sent.
        tried: Arc<str>,
        /// Whether anybody was found who may have it.
        is_anywhere: bool,
    },
    /// A peer has it, and it is larger than a block may be.
    #[error(
        "block {cid} has {bytes} bytes, which is more than the limit of {BLOCK_BYTES_MAX}; \
         have its content added anew in smaller chunks"
    )]
    TooLarge {
        /// The block asked for.
        cid: Cid,
        /// How large it is.
        bytes: u64,
    },
    /// The operator does not want it here.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Whoever asks has had as much as it may for one piece of work.
    #[error("block {cid} is one more than may be read for one request")]
    OverBudget {
        /// The block asked for.
        cid: Cid,
        /// Which limit was reached.
        bound: Bound,
    },
    /// The CID is not used here.
    #[error(transparent)]
    Cid(#[from] crate::cid::CidError),
    /// The program is stopping.
    #[error("stopping: block {cid} is no longer waited for")]
    Stopping {
        /// The block asked for.
        cid: Cid,
    },
}

/// What is denied, and by what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
// The first words are Kubo's, which its clients know.
#[error("{what} is blocked and cannot be provided: {by} denies it")]
pub struct Denial {
    /// The path or the CID that is denied.
    pub what: Arc<str>,
    /// Which rule does, in words.
    pub by: Arc<str>,
    /// Why.
    pub grounds: Grounds,
}

/// Why something is denied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grounds {
    /// The operator does not want it.
    #[default]
    Policy,
    /// The law does not.
    Legal,
}

impl SourceError {
    /// Whether it would be the same for every block, so that whoever goes on past missing ones need not.
    pub const fn is_of_every_block(&self) -> bool {
        matches!(
            self,
            Self::Unkept { .. } | Self::OverBudget { .. } | Self::Stopping { .. }
        )
    }
}

/// The bytes of `data` inside `range`, cut to what there is.
pub fn cut(data: &Bytes, range: &Range<u64>) -> Bytes {
    let length = data.len() as u64;
    let at = |position: u64| usize::try_from(position.min(length)).unwrap_or(data.len());
    let (start, end) = (at(range.start), at(range.end));
    data.slice(start..end.max(start))
}

impl<S: BlockSource> BlockSource for &S {
    fn block(&self, cid: &Cid) -> impl Future<Output = Result<Option<Block>, SourceError>> + Send {
        (**self).block(cid)
    }

    fn range(
        &self,
        cid: &Cid,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Option<Bytes>, SourceError>> + Send {
        (**self).range(cid, range)
    }

    fn size(&self, cid: &Cid) -> impl Future<Output = Result<Option<u64>, SourceError>> + Send {
        (**self).size(cid)
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        (**self).admits(cid)
    }
}

impl<S: BlockSource> BlockSource for Arc<S> {
    fn block(&self, cid: &Cid) -> impl Future<Output = Result<Option<Block>, SourceError>> + Send {
        (**self).block(cid)
    }

    fn range(
        &self,
        cid: &Cid,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Option<Bytes>, SourceError>> + Send {
        (**self).range(cid, range)
    }

    fn size(&self, cid: &Cid) -> impl Future<Output = Result<Option<u64>, SourceError>> + Send {
        (**self).size(cid)
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        (**self).admits(cid)
    }
}

impl<H: BuildHasher + Send + Sync> BlockSource for HashMap<Cid, Block, H> {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        Ok(Block::from_identity(cid).or_else(|| self.get(cid).cloned()))
    }

    /// All that there is.
    fn admits(&self, _: &Cid) -> Result<(), SourceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source with nothing that may be had.
    struct Denying;

    impl BlockSource for Denying {
        async fn block(&self, _: &Cid) -> Result<Option<Block>, SourceError> {
            Ok(None)
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            Err(SourceError::Stopping { cid: *cid })
        }
    }

    #[test]
    fn what_may_not_be_had_may_not_be_had_through_a_handle_either() {
        fn admits(source: impl BlockSource) -> bool {
            source.admits(&Cid::default()).is_ok()
        }
        assert!(!admits(Denying) && !admits(&Denying) && !admits(Arc::new(Denying)));
        assert!(admits(Arc::new(HashMap::<Cid, Block>::new())));
    }

    #[test]
    fn a_cut_never_leaves_the_bytes() {
        let data = Bytes::from_static(b"0123456789");
        assert_eq!(cut(&data, &(2..4)), "23");
        assert_eq!(cut(&data, &(8..u64::MAX)), "89");
        assert_eq!(cut(&data, &(10..20)), "");
        #[expect(clippy::reversed_empty_ranges, reason = "a caller may get it wrong")]
        let backwards = 5..2;
        assert_eq!(cut(&data, &backwards), "");
    }
}
