//! Blocks fetched beside the one who reads them.
//!
//! Whoever writes a tree reads one small file after the other, so every file would cost a way to a
//! peer and back. [`fetch_beside`] walks the same DAG, asks for its blocks in the same order with many
//! under way, and drops them: they are in the store when the reader comes. Both run in one future, so
//! who stops reading stops both; and the walk is at most `AHEAD_BYTES_MAX` ahead.
//!
//! The walk takes blocks as they come, so one that nobody has does not keep it from those behind:
//! while the reader stands at one, all that are missing are found and waited for together.
//! Then it may be further ahead (`AHEAD_BYTES_STANDING_MAX`), but never by more than half of the cache.

use bytes::Bytes;
use cairn_store::cid::{self, Cid};
use cairn_store::dag::walk::{Missing, Options, Order as WalkOrder, walk};
use cairn_store::{Block, BlockSource, SourceError};
use futures::StreamExt;
use futures::future::{Either, select};
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How far the reader is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The most that the walk may ever be ahead.
    most: u64,
    /// Since when the reader waits for blocks; `None` while it hands bytes on.
    waits_since: Mutex<Option<Instant>>,
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
    /// Of a reader whose blocks are only cached, and evicted beyond so many bytes. Half of them are for it, or
    /// what is fetched ahead would push out what it has not read yet.
    pub fn within(cache_bytes_max: u64) -> Self {
        Self(Arc::new(Shared {
            most: cache_bytes_max / 2,
            waits_since: Mutex::new(Some(Instant::now())),
            used: AtomicU64::default(),
            fetched: AtomicU64::default(),
            leaves: AtomicU64::default(),
            leaf_bytes: AtomicU64::default(),
            under_way: AtomicU64::default(),
            moved: Notify::default(),
            has_room: Notify::default(),
        }))
    }

    /// The reader hands on so many bytes more, which may take long.
    pub async fn handing_on<T>(&self, bytes: usize, work: impl Future<Output = T>) -> T {
        self.set_waits_since(None);
        let done = work.await;
        self.set_waits_since(Some(Instant::now()));
        self.passed(bytes as u64);
        done
    }

    /// So many bytes are not ahead of the reader any more: it handed them on, or leaves out what they belong
    /// to.
    pub fn passed(&self, bytes: u64) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.0.moved.notify_one();
        self.0.has_room.notify_one();
    }

    /// The most that may ever be fetched before it is read.
    pub fn ahead_most(&self) -> u64 {
        self.0.most
    }

    fn set_waits_since(&self, since: Option<Instant>) {
        *self
            .0
            .waits_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// When the reader will have stood for so long that a block seems to be missing.
    fn stands_at(&self) -> Option<Instant> {
        let since = *self
            .0
            .waits_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(since? + STANDS_AFTER)
    }

    /// How far the walk may be ahead now.
    fn ahead_max(&self) -> u64 {
        let most = match self.stands_at() {
            Some(at) if at <= Instant::now() => AHEAD_BYTES_STANDING_MAX,
            _ => AHEAD_BYTES_MAX,
        };
        most.min(self.0.most)
    }

    fn ahead(&self) -> u64 {
        let fetched = self.0.fetched.load(Ordering::Relaxed);
        fetched.saturating_sub(self.0.used.load(Ordering::Relaxed))
    }

    /// Waits until one more leaf may be asked for: few at once while they are large.
    async fn ask(&self) -> UnderWay {
        while !self.may_ask() {
            self.until_standing(self.0.has_room.notified()).await;
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
        let has_room = self.ahead().saturating_add(coming) < self.ahead_max();
        let is_little = under_way < BLOCKS_SURE || coming < AHEAD_BYTES_MAX;
        under_way == 0 || is_little && has_room
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
        while self.ahead() > self.ahead_max() {
            self.until_standing(self.0.moved.notified()).await;
        }
    }

    /// Waits for an event, or until the reader stands: then more may be ahead of it.
    async fn until_standing(&self, event: impl Future<Output = ()>) {
        match self.stands_at().filter(|at| *at > Instant::now()) {
            Some(at) => drop(timeout_at(at, event).await),
            None => event.await,
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
        order: WalkOrder::Arrival,
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

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.source.admits(cid)
    }
}

/// Blocks without links that may be asked for at once however large they are.
const BLOCKS_SURE: u64 = 64;
/// What one is taken for before the first came.
const LEAF_BYTES_GUESS: u64 = 1 << 20;
/// Most blocks that are asked for at once.
const BLOCKS_UNDER_WAY: usize = 512;
/// How many bytes the walk may be ahead of the reader, and how many may be under way.
const AHEAD_BYTES_MAX: u64 = 64 << 20;
/// How many it may be ahead of a reader that stands at a missing block. They are on disk, as a tenth of the
/// cache as it is by default; and what else is missing among them costs no time of its own.
const AHEAD_BYTES_STANDING_MAX: u64 = 1 << 30;
/// A reader that waits for blocks and got none for so long stands.
const STANDS_AFTER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::block::Prefix;
    use cairn_store::cid::{HashKind, Version};
    use cairn_store::dag::pb::{self, PbLink, PbNode};
    use std::collections::{HashMap, HashSet};

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
        /// Bytes that leaves are said to have.
        leaf_bytes: u64,
        asked: Arc<Mutex<HashSet<Cid>>>,
        changed: Arc<Notify>,
    }

    impl Watched {
        async fn ask(&self, cid: &Cid) {
            self.asked.lock().unwrap().insert(*cid);
            self.changed.notify_one();
            tokio::task::yield_now().await;
            if !self.blocks.contains_key(cid) {
                // Nobody has it.
                std::future::pending::<()>().await;
            }
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }

        /// Waits until so many blocks were asked for.
        async fn asks(&self, count: usize) {
            while self.asked() < count {
                self.changed.notified().await;
            }
        }
    }

    impl BlockSource for Watched {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            self.ask(cid).await;
            self.blocks.block(cid).await
        }

        async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
            self.ask(cid).await;
            Ok(Some(self.leaf_bytes))
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            self.blocks.admits(cid)
        }
    }

    fn leaf(name: u32) -> Block {
        block(cid::RAW, name.to_be_bytes().to_vec().into())
    }

    fn node(blocks: &mut HashMap<Cid, Block>, children: &[Cid]) -> Cid {
        let link = |cid: &Cid| PbLink {
            cid: *cid,
            name: None,
            tsize: None,
        };
        let links = children.iter().map(link).collect();
        let node = block(cid::DAG_PB, pb::encode(&PbNode { links, data: None }));
        let name = *node.cid();
        blocks.insert(name, node);
        name
    }

    /// A folder of raw blocks of so many bytes.
    fn folder(leaves: u32, leaf_bytes: u64) -> (Watched, Cid) {
        let leaves = (0..leaves).map(leaf);
        let mut blocks: HashMap<Cid, Block> = leaves.map(|leaf| (*leaf.cid(), leaf)).collect();
        let names: Vec<Cid> = blocks.keys().copied().collect();
        let root = node(&mut blocks, &names);
        let source = Watched {
            blocks: Arc::new(blocks),
            leaf_bytes,
            ..Watched::default()
        };
        (source, root)
    }

    /// With a cache that is never too small.
    fn plenty() -> Pace {
        Pace::within(u64::MAX)
    }

    /// What was asked for when nothing happens any more but that simulated time goes by.
    async fn asked_in_the_end(watched: Watched) -> usize {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        watched.asked()
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_fetched_before_the_reader_asks_for_it() {
        let (source, root) = folder(1000, 10);
        let watched = source.clone();
        // A reader that reads nothing until all is there: it would wait for ever by itself.
        let work = watched.asks(1001);
        fetch_beside(source, root, &plenty(), work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_read_slowly_is_not_left_far_behind() {
        let (source, root) = folder(200, 1 << 20);
        let pace = plenty();
        let work = pace.handing_on(0, asked_in_the_end(source.clone()));
        let asked = fetch_beside(source, root, &pace, work).await;
        // What may be ahead, what was under way, and the root.
        assert!((64..=64 + 1 + 64 + 1).contains(&asked), "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_for_a_block_is_left_behind_a_way_and_no_further() {
        let (source, root) = folder(2000, 1 << 20);
        let work = asked_in_the_end(source.clone());
        let asked = fetch_beside(source, root, &plenty(), work).await;
        let most = 1024 + 2;
        assert!((1024..=most).contains(&asked), "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_never_outruns_half_of_the_cache() {
        for (cache, ahead) in [(256, 128), (100, 50), (0, 0)] {
            let (source, root) = folder(2000, 1 << 20);
            let work = asked_in_the_end(source.clone());
            let pace = Pace::within(cache << 20);
            let asked = fetch_beside(source, root, &pace, work).await;
            // The folder itself, and the leaf that crosses the line.
            let most = ahead + 2;
            assert!((ahead.max(1)..=most).contains(&asked), "{asked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_that_waits_for_room_has_more_as_soon_as_the_reader_stands() {
        let (pace, start) = (plenty(), Instant::now());
        // The reader waits from here on. No more may be under way unless they are small and not too far ahead.
        let mut under_way = Vec::new();
        while under_way.len() < usize::try_from(BLOCKS_SURE).unwrap() {
            under_way.push(pace.ask().await);
        }
        pace.fetched_leaf(1000);
        pace.fetched(AHEAD_BYTES_MAX);
        assert!(!pace.may_ask());
        // Nothing comes that could make room, and the reader takes nothing.
        let asked = timeout_at(start + Duration::from_secs(3600), pace.ask()).await;
        assert!(asked.is_ok(), "it sleeps for ever");
        // The clock's own step is a millisecond.
        let took = start.elapsed();
        assert!(took >= STANDS_AFTER && took <= STANDS_AFTER + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_behind_a_missing_block_is_asked_for_beside_it() {
        let mut blocks = HashMap::new();
        let mut roots = vec![*leaf(0).cid()];
        for file in 1..100 {
            let leaves = (0..100).map(|at| leaf(file * 100 + at));
            let leaves: Vec<Block> = leaves.collect();
            let names: Vec<Cid> = leaves.iter().map(|leaf| *leaf.cid()).collect();
            roots.push(node(&mut blocks, &names));
            // One of each file, and the first of the folder, are missing.
            let here = leaves.into_iter().skip(1);
            blocks.extend(here.map(|leaf| (*leaf.cid(), leaf)));
        }
        let root = node(&mut blocks, &roots);
        let source = Watched {
            blocks: Arc::new(blocks),
            leaf_bytes: 10,
            ..Watched::default()
        };
        let work = asked_in_the_end(source.clone());
        let asked = fetch_beside(source, root, &plenty(), work).await;
        // The folder, what it leads to, and what that leads to.
        assert_eq!(asked, 1 + 100 + 99 * 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_not_ahead_of_the_reader() {
        let (source, root) = folder(200, 1 << 20);
        let pace = plenty();
        let work = async {
            let handing_on = pace.handing_on(0, asked_in_the_end(source.clone()));
            let before = handing_on.await;
            pace.passed(64 << 20);
            let after = pace.handing_on(0, asked_in_the_end(source.clone())).await;
            after - before
        };
        let more = fetch_beside(source.clone(), root, &pace, work).await;
        assert!((32..=64 + 64).contains(&more), "{more}");
    }
}
