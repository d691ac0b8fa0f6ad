//! The store: the facade over log, index, journal and pins; where async meets the disk.
//! (signatures; being written)

use crate::block::Block;
use crate::cid::Cid;
use crate::config::Config;
use crate::pin::{Pin, PinError, PinMode, PinProgress};
use crate::sink::{BlockSink, PutError};
use crate::source::{BlockSource, SourceError};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

/// Blocks and pins in a folder. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Store {}

/// Whether a block may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until a garbage collection finds that nothing reaches it: added, imported, pinned.
    Kept,
    /// Fetched from a peer, may go whenever space is needed.
    Cached,
}

/// Why a repository's store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the repository at {path} is in use by another process (lock file {path}/repo.lock); stop it, or talk to it through its RPC"
    )]
    Locked {
        /// The repository.
        path: String,
    },
    /// The disk refused.
    #[error("cannot open the repository: {what}: {source}")]
    Disk {
        /// What was tried, and on which file.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Written by a newer program.
    #[error(
        "the repository at {path} has format {found}, this program reads up to {known}; use a newer cairn"
    )]
    Newer {
        /// The repository.
        path: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// What opening does that takes long enough to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenEvent {
    /// The index is being rebuilt from the log; bytes done of bytes in all.
    Rebuilding {
        /// Bytes of the log read.
        done: u64,
        /// Bytes of the log.
        total: u64,
    },
    /// Something was set aside, cut or skipped; a sentence for the operator.
    Notice(String),
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
    /// Pins.
    pub pins: u64,
}

/// What a garbage collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blocks deleted.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a garbage collection deleted nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// A pinned DAG could not be read whole, so it is not known what must stay.
    #[error("nothing was removed: {root} is pinned, but {source}; fetch it again, or unpin it")]
    Unreadable {
        /// The pin.
        root: Cid,
        /// What went wrong below it.
        source: crate::unixfs::read::ReadError,
    },
    /// The disk refused.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// What a verification found out about one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The block.
    pub cid: Cid,
    /// What is wrong with it.
    pub why: String,
}

impl Store {
    /// Opens the store in the repository folder `root`, made if it is not there. `root/repo.lock`
    /// is held until the last clone is gone.
    pub fn open(
        _root: &Path,
        _config: &Config,
        _on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<Self, OpenError> {
        todo!()
    }
    /// A sink for an import. What it took is held against garbage collection until it is dropped.
    pub fn writer(&self, _keep: Keep) -> Writer {
        todo!()
    }
    /// Puts blocks; durable when this returns.
    pub async fn put(&self, _blocks: Vec<Block>, _keep: Keep) -> Result<(), PutError> {
        todo!()
    }
    /// Whether the block is here.
    pub async fn has(&self, _cid: &Cid) -> Result<bool, SourceError> {
        todo!()
    }
    /// Deletes blocks, whatever reaches them; answers which of them were here.
    pub async fn delete(&self, _cids: Vec<Cid>) -> Result<Vec<Cid>, PutError> {
        todo!()
    }
    /// Calls `each` with every block's CID, in log order, on a thread of its own, until it says stop.
    pub async fn list(
        &self,
        _each: impl FnMut(Cid) -> std::ops::ControlFlow<()> + Send + 'static,
    ) -> Result<(), SourceError> {
        todo!()
    }
    /// Sizes.
    pub fn stat(&self) -> Stat {
        todo!()
    }
    /// The pins, ordered by CID.
    pub fn pins(&self) -> Vec<Pin> {
        todo!()
    }
    /// The pin on exactly this CID, by multihash.
    pub fn pin(&self, _cid: &Cid) -> Option<Pin> {
        todo!()
    }
    /// Reads the whole DAG from `source` (its blocks must end up in this store: this store, or an
    /// exchange over it), keeps it and pins it. Durable when this returns.
    pub async fn pin_add<S: BlockSource + Clone + 'static>(
        &self,
        _source: S,
        _cid: Cid,
        _mode: PinMode,
        _name: Option<String>,
        _on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        todo!()
    }
    /// Unpins.
    pub async fn pin_remove(&self, _cid: &Cid, _mode: Option<PinMode>) -> Result<(), PinError> {
        todo!()
    }
    /// Deletes every block that no pin and no running work reaches, telling each.
    pub async fn gc(
        &self,
        _on_removed: impl FnMut(Cid) + Send + 'static,
    ) -> Result<GcReport, GcError> {
        todo!()
    }
    /// Re-hashes every block, telling the bad ones and, now and then, how many were read.
    pub async fn verify(
        &self,
        _on_progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Vec<BadBlock>, SourceError> {
        todo!()
    }
    /// The metrics of the store, to be registered once.
    pub fn register(&self, _registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        todo!()
    }
    /// Writes everything out and closes; later calls on clones fail.
    pub async fn close(&self) -> Result<(), PutError> {
        todo!()
    }
}

impl BlockSource for Store {
    async fn block(&self, _cid: &Cid) -> Result<Option<Block>, SourceError> {
        todo!()
    }
    async fn range(&self, _cid: &Cid, _range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        todo!()
    }
    async fn size(&self, _cid: &Cid) -> Result<Option<u64>, SourceError> {
        todo!()
    }
}

/// A sink into the store. It blocks: use it on a thread of its own.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Makes all that was put durable.
    pub fn commit(&mut self) -> Result<(), PutError> {
        todo!()
    }
    /// Makes all that was put durable, and pins `cid` in the same commit. Everything below it
    /// must have been put through this writer or be in the store.
    pub fn commit_and_pin(&mut self, _cid: Cid, _name: Option<String>) -> Result<(), PinError> {
        todo!()
    }
}

impl BlockSink for Writer {
    fn put(&mut self, _blocks: Vec<Block>) -> Result<(), PutError> {
        todo!()
    }
}
