//! What one request may cost: how many blocks and bytes are read for it, and how deep below what it asks for.
//!
//! Blocks and bytes are counted where everything is read through, whatever is made of them; levels by whoever follows
//! links. Time has its own limits, in `handler` and `body`.

use crate::config::Config;
use bytes::Bytes;
use cairn_store::config::ByteSize;
use cairn_store::dag::{Bound, Budget};
use cairn_store::unixfs::read::ReadError;
use cairn_store::{Block, BlockSource, Cid, SourceError};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A limit that the operator set and an answer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// That of every request.
    Request(Bound),
    /// That of an archive.
    Archive(Bound),
}

impl Limit {
    /// What an archive came to, if it is one of these.
    pub(crate) fn of_archive(error: &ReadError) -> Option<Self> {
        match error {
            ReadError::OverBudget { bound, .. } => bound.map(Self::Archive),
            _ => None,
        }
    }

    /// Where the operator set it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Request(Bound::Depth(_)) | Self::Archive(Bound::Depth(_)) => "gateway.depth_max",
            Self::Request(Bound::Entries(_)) => "gateway.listing_entries_max",
            Self::Request(Bound::Bytes(_)) => "gateway.request_bytes_max",
            Self::Request(Bound::Blocks(_)) => "gateway.request_blocks_max",
            Self::Archive(Bound::Bytes(_)) => "gateway.archive_bytes_max",
            Self::Archive(Bound::Entries(_) | Bound::Blocks(_)) => "gateway.archive_entries_max",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Request(bound) | Self::Archive(bound)) = self;
        let of = match self {
            Self::Request(_) => "request",
            Self::Archive(_) => "archive",
        };
        out.write_str("it takes more than ")?;
        match bound {
            Bound::Entries(most) => write!(out, "{most} entries"),
            Bound::Blocks(most) => write!(out, "{most} blocks"),
            Bound::Bytes(most) => write!(out, "{} of content", ByteSize(*most)),
            Bound::Depth(most) => write!(out, "{most} levels"),
        }?;
        write!(
            out,
            ", which is the limit of this gateway for one {of} (`{}`)",
            self.key()
        )
    }
}

/// For what goes into an archive.
pub(crate) fn of_archive(config: &Config) -> Budget {
    let entries = u64::from(config.archive_entries_max.get());
    Budget {
        entries,
        blocks: entries,
        bytes: config.archive_bytes_max.bytes().unwrap_or(u64::MAX),
        depth: depth(config),
    }
}

/// For a folder's page; one entry more than it shows tells that there are more.
pub(crate) fn of_listing(config: &Config) -> Budget {
    Budget {
        entries: u64::from(config.listing_entries_max.get()).saturating_add(1),
        blocks: u64::from(config.request_blocks_max.get()),
        bytes: u64::MAX,
        depth: depth(config),
    }
}

fn depth(config: &Config) -> usize {
    usize::try_from(config.depth_max.get()).unwrap_or(usize::MAX)
}

/// Refuses content that is known to be larger than a request may read.
pub(crate) fn fits(bytes: u64, config: &Config) -> Result<(), Limit> {
    match config.request_bytes_max.bytes() {
        Some(most) if bytes > most => Err(Limit::Request(Bound::Bytes(most))),
        _ => Ok(()),
    }
}

/// A source that gives one request no more than its budget. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Metered<S> {
    source: S,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Meter {
    blocks: AtomicU64,
    bytes: AtomicU64,
    blocks_max: u64,
    bytes_max: Option<u64>,
}

impl<S> Metered<S> {
    pub(crate) fn new(source: S, config: &Config) -> Self {
        let meter = Meter {
            blocks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            blocks_max: u64::from(config.request_blocks_max.get()),
            bytes_max: config.request_bytes_max.bytes(),
        };
        Self {
            source,
            meter: Arc::new(meter),
        }
    }
}

impl Meter {
    /// Counts a block that is about to be read.
    fn begin(&self, cid: &Cid) -> Result<(), SourceError> {
        let over = |bound| Err(SourceError::OverBudget { cid: *cid, bound });
        if self.blocks.fetch_add(1, Ordering::Relaxed) >= self.blocks_max {
            return over(Bound::Blocks(self.blocks_max));
        }
        let read = self.bytes.load(Ordering::Relaxed);
        match self.bytes_max {
            Some(most) if read > with_nodes(most) => over(Bound::Bytes(most)),
            _ => Ok(()),
        }
    }

    fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// So many bytes of content come with blocks that hold them together, some of which are read more than once.
const fn with_nodes(content: u64) -> u64 {
    content
        .saturating_add(content / 4)
        .saturating_add(NODES_BYTES)
}

impl<S: BlockSource> BlockSource for Metered<S> {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.meter.begin(cid)?;
        let block = self.source.block(cid).await?;
        if let Some(block) = &block {
            self.meter.read(block.data().len());
        }
        Ok(block)
    }

    async fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        self.meter.begin(cid)?;
        let bytes = self.source.range(cid, range).await?;
        if let Some(bytes) = &bytes {
            self.meter.read(bytes.len());
        }
        Ok(bytes)
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        self.source.size(cid).await
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.source.admits(cid)
    }
}

/// Room for the nodes of what is small: two of the largest.
const NODES_BYTES: u64 = 4 << 20;
