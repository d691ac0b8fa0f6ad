//! The store: the facade over log, index, journal and pins; where async meets the disk.
//!
//! [`Store`] is a cheap handle on one `Inner`. What touches the disk runs on the runtime's
//! blocking threads. Reading order:
//!
//! * `open`: what opening trusts, cuts and adopts; `reindex`: what the index missed; `rebuild`: all of it
//!   from the log.
//! * `write`: from blocks to sections; holds; the [`Writer`] of an import.
//! * `commit`: how callers share one sync, and what an acknowledgement waits for; `unsynced`: what is
//!   acknowledged before it has reached the disk; `checkpoint`: how the index follows.
//! * `read`: from a CID to checked bytes; `recency`: what was read lately.
//! * `room`: how much of the disk is left to whom.
//! * `crate::pin`, `crate::gc`, `crate::evict`, `crate::scrub`: what must stay, what may go, what is
//!   rotten; `crate::compact`: how space is given back.
//!
//! Locks are taken in this order: removing, the index's merging, sweeping, turn, appender, journal, pins, notes, index table. None is held across
//! a wait; the turn is let go as soon as the appender is had.

mod anew;
mod at_once;
mod checkpoint;
mod commit;
mod hot;
mod metrics;
mod open;
mod read;
mod rebuild;
mod recency;
mod reindex;
mod room;
mod unsynced;
mod write;

pub use anew::Anew;
pub(crate) use checkpoint::MERGE_AT;
pub(crate) use commit::{Committed, Only};
#[cfg(test)]
pub(crate) use open::Ground;
pub(crate) use open::remove_segment;
pub use open::{OpenError, OpenEvent};
pub(crate) use read::{disk as disk_error, nothing};
pub(crate) use write::Hold;
pub use write::Writer;

use crate::block::Block;
use crate::cid::Cid;
use crate::config::Config;
use crate::index::{Index, IndexError, Key};
use crate::journal::Journal;
use crate::log::append::Appender;
use crate::log::dead::Dead;
use crate::log::files::{Access, Files};
use crate::log::segment::Segment;
use crate::log::{Place, Position, SegmentId, Stream};
use crate::notes::Notes;
use crate::pin::table::Pins;
use crate::scrub::ScrubState;
use crate::sink::PutError;
use crate::source::{BlockSource, SourceError};
use crate::sync::{Mutex, MutexGuard, PlainMutex, RwLock, is_explored};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

/// Blocks and pins in a folder. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// Whether a block may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until a garbage collection finds that nothing reaches it: added, imported, pinned.
    Kept,
    /// Fetched from a peer, may go whenever space is needed.
    Cached,
}

/// How a block lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its bytes.
    pub bytes: u64,
    /// For how long it is kept.
    pub keep: Keep,
    /// Whether it was found to be damaged: then it counts as absent.
    pub is_damaged: bool,
}

/// Sizes, kept up to date; never computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// Blocks present.
    pub blocks: u64,
    /// Bytes of the blocks present.
    pub bytes: u64,
    /// Bytes of the log's files.
    pub disk_bytes: u64,
    /// Bytes of those that hold what peers sent and nobody asked to keep.
    pub cache_bytes: u64,
    /// What those may grow to.
    pub cache_max: u64,
    /// Pins.
    pub pins: u64,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) root: PathBuf,
    pub(crate) files: Arc<Files>,
    pub(crate) index: Index,
    pub(crate) segments: RwLock<BTreeMap<SegmentId, Arc<Segment>>>,
    /// Whose turn it is to take the appender next.
    turn: Mutex<()>,
    pub(crate) appender: Mutex<Appender>,
    pub(crate) journal: Mutex<Journal>,
    /// The journal's, which changes them.
    pub(crate) pins: Arc<Pins>,
    pub(crate) notes: RwLock<Notes>,
    /// Sections that no longer count although the index may still name them.
    pub(crate) dead: Arc<Dead>,
    pub(crate) holds: Mutex<Vec<Weak<Hold>>>,
    /// Shared while a writer holds keys and looks them up; alone while a sweep asks the holds and
    /// deletes. So a block is either held in time or not found any more.
    pub(crate) sweeping: RwLock<()>,
    pub(crate) counts: Counts,
    /// Bytes appended since the disk was last asked to start writing.
    pub(crate) unsynced: AtomicU64,
    /// Bytes appended since the memory table was last merged.
    pub(crate) unmerged: AtomicU64,
    /// How often something that was put has been given up.
    losses: AtomicU64,
    /// Damaged sections of which a newer copy was appended: the next commit lets them be dead.
    pub(crate) superseded: Mutex<Vec<(Key, Place)>>,
    /// Sections beside which there is another one of the same block: dead with the next commit.
    pub(crate) disowned: Mutex<BTreeSet<Position>>,
    /// Cached sections that became kept: the next commit says so in the journal.
    pub(crate) promoted: Mutex<Vec<Position>>,
    /// Segments that were given up before the journal knew them: the next commit says so.
    abandoned: Mutex<Vec<SegmentId>>,
    /// What is acknowledged without having reached the disk; the background sees to it.
    left_unsynced: Mutex<unsynced::Unsynced>,
    recency: recency::Recency,
    haste: at_once::Haste,
    hot: hot::Hot,
    pub(crate) scrub: PlainMutex<ScrubState>,
    /// Held while an index in memory is built because sled failed.
    recovering: Mutex<()>,
    /// Segments that were looked through again because the index was wrong about them.
    reindexed: Mutex<HashSet<SegmentId>>,
    /// Why garbage collection must not run, if the journal has lost records.
    pub(crate) journal_damage: Option<String>,
    pub(crate) commits: commit::Group,
    pub(crate) collecting: Arc<tokio::sync::Mutex<()>>,
    /// Held while files of segments are removed, and by whoever needs all that the journal names.
    pub(crate) removing: Mutex<()>,
    /// Told when the cache has outgrown its limit.
    pub(crate) wakes: tokio::sync::Notify,
    pub(crate) metrics: metrics::Metrics,
    closed: AtomicBool,
    syncer: Mutex<Option<checkpoint::Syncer>>,
    /// Held as long as the store is: the one writer.
    _lock: Vec<File>,
}

/// How many blocks are present, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    blocks: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Blocks more, of so many bytes in all.
    pub(crate) fn add(&self, blocks: u64, bytes: u64) {
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Blocks less. After a disk has lost what it had promised to keep, they may be more than there
    /// were: then none are left.
    pub(crate) fn subtract(&self, blocks: u64, bytes: u64) {
        for (count, less) in [(&self.blocks, blocks), (&self.bytes, bytes)] {
            let subtract = |now: u64| Some(now.saturating_sub(less));
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        }
    }

    pub(crate) fn set(&self, blocks: u64, bytes: u64) {
        self.blocks.store(blocks, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Store {
    /// A sink for an import. What it took is held against garbage collection until it is dropped.
    pub fn writer(&self, keep: Keep) -> Writer {
        Writer::new(self.inner.clone(), keep)
    }

    /// Puts blocks. Kept ones are durable when this returns. Cached ones are only visible: nobody
    /// was promised them, so nobody waits for the disk; a later commit makes them durable.
    pub async fn put(&self, blocks: Vec<Block>, keep: Keep) -> Result<(), PutError> {
        let mut writer = self.writer(keep);
        blocking(move || {
            crate::sink::BlockSink::put(&mut writer, blocks)?;
            match keep {
                Keep::Kept => writer.commit(),
                Keep::Cached => Ok(()),
            }
        })
        .await
        .unwrap_or(Err(PutError::Closing))
    }

    /// Whether the block is here.
    pub async fn has(&self, cid: &Cid) -> Result<bool, SourceError> {
        Ok(self.size(cid).await?.is_some())
    }

    /// How the block lies here, damaged or not; `None` if it does not.
    pub async fn standing(&self, cid: &Cid) -> Result<Option<Standing>, SourceError> {
        let key = self.inner.index.key(cid.hash());
        let (inner, cid) = (self.inner.clone(), *cid);
        blocking(move || inner.standing(&cid, &key))
            .await
            .unwrap_or(Err(SourceError::Stopping { cid }))
    }

    /// A number that changes with every change of a pin.
    pub fn pins_version(&self) -> u64 {
        self.inner.pins.read().changes()
    }

    /// Deletes blocks, whatever pins reach them; answers which of them were here. What running
    /// work holds stays.
    pub async fn delete(&self, cids: Vec<Cid>) -> Result<Vec<Cid>, PutError> {
        Ok(self.delete_under(cids, None).await?.unwrap_or_default())
    }

    /// Deletes blocks of which the caller knows that no pin reached them at `pins`, a
    /// [`Store::pins_version`]. `None` if pins have changed since: look again.
    pub async fn delete_unpinned(
        &self,
        cids: Vec<Cid>,
        pins: u64,
    ) -> Result<Option<Vec<Cid>>, PutError> {
        self.delete_under(cids, Some(pins)).await
    }

    async fn delete_under(
        &self,
        cids: Vec<Cid>,
        pins: Option<u64>,
    ) -> Result<Option<Vec<Cid>>, PutError> {
        let inner = self.inner.clone();
        blocking(move || inner.delete(&cids, pins))
            .await
            .unwrap_or(Err(PutError::Closing))
    }

    /// Calls `each` with every block's CID, in the order they lie in, until it says stop.
    pub async fn list(
        &self,
        mut each: impl FnMut(Cid) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(), SourceError> {
        let inner = self.inner.clone();
        blocking(move || inner.each_block(|found| Ok(each(found.header.cid))))
            .await
            .unwrap_or_else(|| Err(SourceError::Stopping { cid: nothing() }))
    }

    /// Whether the repository cannot be written: everything that changes it fails.
    pub fn is_read_only(&self) -> bool {
        self.inner.files.access == Access::ReadOnly
    }

    /// Builds the index anew from the blocks, telling how far it is.
    pub async fn rebuild_index(
        &self,
        mut on_event: impl FnMut(OpenEvent) + Send + 'static,
    ) -> Result<(), PutError> {
        let alone = self.inner.collecting.clone().lock_owned().await;
        let inner = self.inner.clone();
        blocking(move || {
            let rebuilt = inner.rebuild_alone(&mut on_event);
            drop(alone);
            rebuilt
        })
        .await
        .unwrap_or(Err(PutError::Closing))
    }

    /// Sizes.
    pub fn stat(&self) -> Stat {
        let segments = self
            .inner
            .segments
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Stat {
            blocks: self.inner.counts.blocks(),
            bytes: self.inner.counts.bytes(),
            disk_bytes: segments.values().map(|segment| segment.length()).sum(),
            cache_bytes: segments
                .iter()
                .filter(|(id, _)| id.stream == Stream::Cache)
                .map(|(_, segment)| segment.length())
                .sum(),
            cache_max: self.inner.config.cache_max.0,
            pins: self.inner.pins.read().len() as u64,
        }
    }

    /// The metrics of the store, to be registered once.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(metrics::Collector::new(&self.inner)))
    }

    /// Writes everything out and closes; later writes on clones fail.
    pub async fn close(&self) -> Result<(), PutError> {
        let inner = self.inner.clone();
        blocking(move || inner.close())
            .await
            .unwrap_or(Err(PutError::Closing))
    }
}

impl BlockSource for Store {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        if let Some(block) = self.inner.block_at_once(cid) {
            let_others().await;
            return Ok(block);
        }
        let (inner, cid) = (self.inner.clone(), *cid);
        blocking(move || inner.block(&cid))
            .await
            .unwrap_or(Err(SourceError::Stopping { cid }))
    }

    async fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(crate::source::cut(block.data(), &range)));
        }
        if let Some(bytes) = self.inner.range_at_once(cid, &range) {
            let_others().await;
            return Ok(bytes);
        }
        let (inner, cid) = (self.inner.clone(), *cid);
        blocking(move || inner.range(&cid, range))
            .await
            .unwrap_or(Err(SourceError::Stopping { cid }))
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block.data().len() as u64));
        }
        let key = self.inner.index.key(cid.hash());
        if let Some(place) = self.inner.place_at_once(&key)
            && !place.is_some_and(|place| place.is_reference())
        {
            let_others().await;
            return Ok(place.map(|place| place.length.into()));
        }
        let (inner, cid) = (self.inner.clone(), *cid);
        blocking(move || inner.size(&cid, &key))
            .await
            .unwrap_or(Err(SourceError::Stopping { cid }))
    }

    /// All that there is: what may leave it is for those to decide who stand before it.
    fn admits(&self, _: &Cid) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Inner {
    pub(crate) fn lock_appender(&self) -> MutexGuard<'_, Appender> {
        // Whoever waits for the appender holds the turn: else one who lets it go and takes it again and
        // again, as compaction does, would keep the others out all the while.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let appender = self.appender.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        appender
    }

    pub(crate) fn lock_journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) -> Result<(), PutError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let syncer = self
            .syncer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(syncer) = syncer {
            syncer.stop();
        }
        if self.files.access == Access::ReadOnly {
            return Ok(());
        }
        self.checkpoint()
    }

    /// A block more.
    pub(crate) fn count(&self, bytes: u64) {
        self.counts.add(1, bytes);
    }

    /// A block less.
    pub(crate) fn uncount(&self, bytes: u64) {
        self.counts.subtract(1, bytes);
    }
}

impl From<IndexError> for PutError {
    fn from(error: IndexError) -> Self {
        Self::Disk(error.to_string())
    }
}

/// Lets other tasks have their turn now and then: who only ever gets answers that are ready would keep
/// them out for good.
async fn let_others() {
    if !is_explored() {
        tokio::task::coop::consume_budget().await;
    }
}

/// Runs what may wait for the disk. `None` if the runtime is going away or the work panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if is_explored() {
        return Some(work()); // There is but one thread, and no runtime.
    }
    tokio::task::spawn_blocking(work)
        .await
        .inspect_err(|error| tracing::error!(%error, "a storage task did not finish"))
        .ok()
}
