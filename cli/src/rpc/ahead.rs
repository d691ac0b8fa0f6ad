//! Blocks fetched beside the one who reads them.
//!
//! Whoever writes a tree reads one small file after the other, so every file would cost a way to a
//! peer and back. [`fetch_beside`] walks the same DAG in the same order with many blocks under way
//! and drops them: they are in the store when the reader comes. Both run in one future, so who
//! stops reading stops both; and the walk is at most `AHEAD_BYTES_MAX` ahead.

use bytes::Bytes;
use cairn_store::cid::{self, Cid};
use cairn_store::dag::walk::{Missing, Options, walk};
use cairn_store::{Block, BlockSource, SourceError};
use futures::StreamExt;
use futures::future::{Either, select};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// How far the reader is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    used: AtomicU64,
    fetched: AtomicU64,
    /// Of what was fetched: blocks without links.
    leaves: AtomicU64,
    leaf_bytes: AtomicU64,
    /// Such blocks that are asked for now.
    under_way: AtomicU64,
    moved: Notify,
    has_room: Notify,
}

impl Pace {
    /// The reader handed on so many bytes more.
    pub fn used(&self, bytes: usize) {
        self.0.used.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.moved.notify_one();
        self.0.has_room.notify_one();
    }

    fn ahead(&self) -> u64 {
        let fetched = self.0.fetched.load(Ordering::Relaxed);
        fetched.saturating_sub(self.0.used.load(Ordering::Relaxed))
    }

    /// Waits until one more leaf may be asked for: few at once while they are large.
    async fn ask(&self) -> UnderWay {
        while !self.may_ask() {
            self.0.has_room.notified().await;
        }
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        if self.may_ask() {
            self.0.has_room.notify_one();
        }
        UnderWay(self.clone())
    }

    fn may_ask(&self) -> bool {
        let under_way = self.0.under_way.load(Ordering::Relaxed);
        let bytes = self.0.leaf_bytes.load(Ordering::Relaxed);
        let average = bytes.checked_div(self.0.leaves.load(Ordering::Relaxed));
        let coming = under_way.saturating_mul(average.unwrap_or(LEAF_BYTES_GUESS));
        under_way < BLOCKS_SURE || self.ahead().saturating_add(coming) < AHEAD_BYTES_MAX
    }

    fn fetched_leaf(&self, bytes: u64) {
        self.0.leaves.fetch_add(1, Ordering::Relaxed);
        self.0.leaf_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.fetched(bytes);
    }

    fn fetched(&self, bytes: u64) {
        self.0.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits while the walk is too far ahead.
    async fn hold(&self) {
        while self.ahead() > AHEAD_BYTES_MAX {
            self.0.moved.notified().await;
        }
    }
}

/// A leaf that is asked for.
struct UnderWay(Pace);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.0.has_room.notify_one();
    }
}

/// Does `work`, which reads the DAG below `root` and tells `pace` how far it is, while its blocks
/// are fetched ahead of it. What cannot be fetched is for `work` to find out.
pub async fn fetch_beside<S, T>(
    source: S,
    root: Cid,
    pace: &Pace,
    work: impl Future<Output = T>,
) -> T
where
    S: BlockSource + Clone + 'static,
{
    let counted = Counted {
        source,
        pace: pace.clone(),
    };
    let options = Options {
        missing: Missing::Tell,
        read_ahead: BLOCKS_UNDER_WAY,
        ..Options::default()
    };
    let fetching = async move {
        let mut visits = pin!(walk(counted, root, options));
        while let Some(Ok(_)) = visits.next().await {
            pace.hold().await;
        }
    };
    match select(pin!(work), pin!(fetching)).await {
        Either::Left((done, _)) => done,
        Either::Right(((), work)) => work.await,
    }
}

/// A source that counts what passes. Blocks without links are only brought here, not read: what is
/// here already costs a look into the index.
#[derive(Clone)]
struct Counted<S> {
    source: S,
    pace: Pace,
}

impl<S: BlockSource> BlockSource for Counted<S> {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        if cid.codec() == cid::RAW {
            let _under_way = self.pace.ask().await;
            let size = self.source.size(cid).await?;
            self.pace.fetched_leaf(size.unwrap_or(0));
            return Ok(None);
        }
        let block = self.source.block(cid).await?;
        if let Some(block) = &block {
            self.pace.fetched(block.data().len() as u64);
        }
        Ok(block)
    }

    async fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        self.source.range(cid, range).await
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        self.source.size(cid).await
    }
}

/// Blocks without links that may be asked for at once however large they are.
const BLOCKS_SURE: u64 = 64;
/// What one is taken for before the first came.
const LEAF_BYTES_GUESS: u64 = 1 << 20;
/// Most blocks that are asked for at once.
const BLOCKS_UNDER_WAY: usize = 512;
/// How many bytes the walk may be ahead of the reader.
const AHEAD_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::block::Prefix;
    use cairn_store::cid::{HashKind, Version};
    use cairn_store::dag::pb::{self, PbLink, PbNode};
    use std::collections::{HashMap, HashSet};
    use std::sync::Mutex;

    fn block(codec: u64, data: Bytes) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, data).unwrap()
    }

    /// Remembers what it was asked for.
    #[derive(Clone, Default)]
    struct Watched {
        blocks: Arc<HashMap<Cid, Block>>,
        asked: Arc<Mutex<HashSet<Cid>>>,
        changed: Arc<Notify>,
    }

    impl BlockSource for Watched {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            self.asked.lock().unwrap().insert(*cid);
            self.changed.notify_one();
            tokio::task::yield_now().await;
            self.blocks.block(cid).await
        }
    }

    /// A folder of raw blocks of so many bytes.
    fn folder(leaves: u32, bytes: usize) -> (Watched, Cid) {
        let mut blocks = HashMap::new();
        let mut links = Vec::new();
        for at in 0..leaves {
            let mut data = at.to_be_bytes().to_vec();
            data.resize(bytes, 0);
            let leaf = block(cid::RAW, data.into());
            links.push(PbLink {
                cid: *leaf.cid(),
                name: None,
                tsize: None,
            });
            blocks.insert(*leaf.cid(), leaf);
        }
        let root = block(cid::DAG_PB, pb::encode(&PbNode { links, data: None }));
        let name = *root.cid();
        blocks.insert(name, root);
        let source = Watched {
            blocks: Arc::new(blocks),
            ..Watched::default()
        };
        (source, name)
    }

    #[tokio::test]
    async fn everything_is_fetched_before_the_reader_asks_for_it() {
        let (source, root) = folder(1000, 10);
        let watched = source.clone();
        // A reader that reads nothing until all is there: it would wait for ever by itself.
        let work = async {
            while watched.asked.lock().unwrap().len() <= 1000 {
                watched.changed.notified().await;
            }
        };
        fetch_beside(source, root, &Pace::default(), work).await;
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_not_left_far_behind() {
        let (source, root) = folder(200, 1 << 20);
        let watched = source.clone();
        let work = async {
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
            watched.asked.lock().unwrap().len()
        };
        let asked = fetch_beside(source, root, &Pace::default(), work).await;
        // What may be ahead, what was under way, and the root.
        assert!((64..=64 + 1 + 64 + 1).contains(&asked), "{asked}");
    }
}
