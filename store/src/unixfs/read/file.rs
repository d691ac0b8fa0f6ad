//! A file's bytes, in order, by range.
//!
//! The pieces still to come stand in a queue, in file order. Those near its front are asked for
//! ahead, within bounds on count and bytes. A node that arrives is replaced by those of its
//! children that the range needs; children outside of it are never asked for.

use super::{ReadError, fetch, malformed, over_budget};
use crate::block::{BLOCK_BYTES_MAX, Block};
use crate::cid::{self, Cid};
use crate::dag::ahead::Ahead;
use crate::dag::pb::{self, Skimmed};
use crate::source::{BlockSource, cut};
use crate::unixfs::Mtime;
use crate::unixfs::format::{Message, Type};
use bytes::Bytes;
use futures::Stream;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A file, opened: its root is read, nothing else.
#[derive(Debug, Clone)]
pub struct File {
    cid: Cid,
    mode: Option<u32>,
    mtime: Option<Mtime>,
    /// Bytes of the root's block.
    block_bytes: u64,
    root: Arc<Part>,
}

/// A file's node: its own bytes, then those of its children, which are looked into when they are needed: a node may
/// have thousands, of which a range needs two.
#[derive(Debug)]
struct Part {
    data: Bytes,
    /// `None` for a raw block.
    node: Option<Skimmed>,
    /// Bytes of the file below each link.
    sizes: Vec<u64>,
    size: u64,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    cid: Cid,
    size: u64,
}

impl File {
    pub(super) fn raw(block: &Block) -> Self {
        Self {
            cid: *block.cid(),
            mode: None,
            mtime: None,
            block_bytes: block.data().len() as u64,
            root: Arc::new(Part::raw(block)),
        }
    }

    pub(super) fn tree(block: &Block, node: Skimmed, message: Message) -> Result<Self, ReadError> {
        let Message { mode, mtime, .. } = message;
        let root = Part::tree(node, message).map_err(|why| malformed(block.cid(), why))?;
        Ok(Self {
            cid: *block.cid(),
            mode,
            mtime,
            block_bytes: block.data().len() as u64,
            root: Arc::new(root),
        })
    }

    /// The root.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// Bytes of content.
    pub fn size(&self) -> u64 {
        self.root.size
    }

    /// All bytes, if the root has them.
    pub fn here(&self) -> Option<&Bytes> {
        self.root.sizes.is_empty().then_some(&self.root.data)
    }

    /// Cumulative size of the DAG in bytes, as its links claim.
    pub fn tsize(&self) -> u64 {
        let links = (0..self.links()).filter_map(|at| self.root.node.as_ref()?.link(at).ok());
        let sizes = links.filter_map(|link| link.tsize);
        sizes.fold(self.block_bytes, u64::saturating_add)
    }

    /// How many links the root has.
    pub fn links(&self) -> usize {
        self.root.sizes.len()
    }

    /// Permission bits, if kept.
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// Time of change, if kept.
    pub fn mtime(&self) -> Option<Mtime> {
        self.mtime
    }

    /// Streams the bytes of `range` in order, reading ahead, touching only the blocks it needs.
    /// The end is cut to the file's size.
    pub fn read<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
        let mut reading = Reading {
            source,
            range: range.start..range.end.min(self.size()),
            queue: VecDeque::new(),
            ahead: Ahead::new(),
            ahead_bytes: 0,
            depth: AHEAD_START,
            asked: 0,
            next_id: 0,
        };
        let first = reading.expand(&self.cid, &self.root, 0, 0);
        futures::stream::unfold(Some((reading, first)), |state| async move {
            let (mut reading, first) = state?;
            let next = match first {
                Ok(()) => reading.next().await,
                Err(error) => Err(error),
            };
            match next {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((reading, Ok(()))))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl Part {
    fn raw(block: &Block) -> Self {
        Self {
            data: block.data().clone(),
            node: None,
            sizes: Vec::new(),
            size: block.data().len() as u64,
        }
    }

    fn tree(node: Skimmed, message: Message) -> Result<Self, String> {
        if !matches!(message.kind, Type::File | Type::Raw) {
            return Err("a part of a file that is no file".to_owned());
        }
        let (sizes, links) = (message.block_sizes.len(), node.links());
        if sizes != links {
            return Err(format!("{sizes} block sizes for {links} links"));
        }
        let data = message.data.unwrap_or_default();
        let size = message
            .block_sizes
            .iter()
            .try_fold(data.len() as u64, |sum, size| sum.checked_add(*size))
            .ok_or("block sizes beyond 64 bits")?;
        if let Some(said) = message.file_size.filter(|said| *said != size) {
            return Err(format!("a file size of {said} where its parts have {size}"));
        }
        Ok(Self {
            data,
            node: Some(node),
            sizes: message.block_sizes,
            size,
        })
    }

    fn link(&self, at: usize) -> Result<Cid, String> {
        let node = self.node.as_ref().ok_or("a raw block has no links")?;
        Ok(node.link(at)?.cid)
    }

    /// The part that a block below the root is; it must have the size that its parent says.
    fn child(block: &Block, size: u64) -> Result<Self, ReadError> {
        let failed = |why| malformed(block.cid(), why);
        let part = match block.cid().codec() {
            cid::RAW => Self::raw(block),
            cid::DAG_PB => {
                let node = pb::skim(block.data()).map_err(failed)?;
                let data = node.data.clone().unwrap_or_default();
                let message = Message::decode(&data).map_err(failed)?;
                Self::tree(node, message).map_err(failed)?
            }
            other => {
                let codec = crate::dag::codec_text(other);
                return Err(failed(format!("a part of a file whose codec is {codec}")));
            }
        };
        if part.size == size {
            Ok(part)
        } else {
            let found = part.size;
            Err(failed(format!(
                "{found} bytes where its parent says {size}"
            )))
        }
    }
}

/// Bytes of the file that still have to come.
struct Piece {
    id: u64,
    /// Where it begins in the file.
    at: u64,
    what: What,
    depth: usize,
}

enum What {
    Bytes(Bytes),
    Child(Child),
}

enum Fetched {
    /// What the range needs of a leaf.
    Bytes(Bytes),
    Part(Part),
}

struct Reading<S> {
    source: S,
    range: Range<u64>,
    queue: VecDeque<Piece>,
    ahead: Ahead<u64, Result<Fetched, ReadError>>,
    ahead_bytes: u64,
    /// How many pieces are asked for ahead: more, the longer they take to come.
    depth: usize,
    /// How many pieces at the front of the queue were asked for, at least.
    asked: usize,
    next_id: u64,
}

impl<S: BlockSource + Clone + 'static> Reading<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            self.read_ahead();
            let Some(piece) = self.queue.pop_front() else {
                return Ok(None);
            };
            self.asked = self.asked.saturating_sub(1);
            let child = match piece.what {
                What::Bytes(bytes) => return Ok(Some(bytes)),
                What::Child(child) => child,
            };
            let asked = Instant::now();
            let fetched = self.ahead.take(&piece.id).await;
            if asked.elapsed() > NEAR {
                self.depth = (self.depth * 2).min(AHEAD_MAX);
            }
            self.ahead_bytes = self.ahead_bytes.saturating_sub(self.cost(piece.at, &child));
            match fetched.unwrap_or(Err(ReadError::NotFound(child.cid)))? {
                Fetched::Bytes(bytes) => return Ok(Some(bytes)),
                Fetched::Part(part) => {
                    self.expand(&child.cid, &part, piece.at, piece.depth + 1)?;
                }
            }
        }
    }

    /// Puts what the range needs of `part` at the front of the queue.
    fn expand(&mut self, cid: &Cid, part: &Part, at: u64, depth: usize) -> Result<(), ReadError> {
        if depth > DEPTH_MAX {
            return Err(over_budget(
                cid,
                None,
                format!("a file of more than {DEPTH_MAX} levels"),
            ));
        }
        let mut pieces = Vec::new();
        let own = self.needed(at, part.data.len() as u64);
        if !own.is_empty() {
            let bytes = cut(&part.data, &own);
            pieces.push((at, What::Bytes(bytes)));
        }
        let mut at = at + part.data.len() as u64;
        for (number, size) in part.sizes.iter().enumerate() {
            // A child without bytes is never needed, so hostile trees of nothing end here.
            if !self.needed(at, *size).is_empty() {
                let child = part.link(number).map_err(|why| malformed(cid, why))?;
                let child = Child {
                    cid: child,
                    size: *size,
                };
                pieces.push((at, What::Child(child)));
            }
            at += size;
        }
        if self.queue.len() + pieces.len() > PIECES_MAX {
            return Err(over_budget(
                cid,
                None,
                format!("more than {PIECES_MAX} parts of a file wait"),
            ));
        }
        self.asked = 0;
        for (at, what) in pieces.into_iter().rev() {
            self.next_id += 1;
            self.queue.push_front(Piece {
                id: self.next_id,
                at,
                what,
                depth,
            });
        }
        Ok(())
    }

    /// The part of `at..at + size` that the range needs, counted from `at`.
    fn needed(&self, at: u64, size: u64) -> Range<u64> {
        let start = self.range.start.saturating_sub(at).min(size);
        let end = self.range.end.saturating_sub(at).min(size);
        start..end.max(start)
    }

    fn cost(&self, at: u64, child: &Child) -> u64 {
        let needed = self.needed(at, child.size);
        match child.cid.codec() {
            cid::RAW => needed.end - needed.start,
            _ => child.size.min(BLOCK_BYTES_MAX as u64),
        }
    }

    fn read_ahead(&mut self) {
        let mut wanted = Vec::new();
        let pieces = self.queue.iter().take(self.depth).enumerate();
        for (place, piece) in pieces.skip(self.asked) {
            let child = match &piece.what {
                What::Child(child) if !self.ahead.has(&piece.id) => child,
                _ => {
                    self.asked = place + 1;
                    continue;
                }
            };
            let cost = self.cost(piece.at, child);
            // Whatever the bound says, the first piece must come.
            let full = self.ahead.len() + wanted.len() >= self.depth
                || self.ahead_bytes + cost > AHEAD_BYTES_MAX;
            if full && place > 0 {
                break;
            }
            self.ahead_bytes += cost;
            self.asked = place + 1;
            wanted.push((piece.id, *child, self.needed(piece.at, child.size)));
        }
        for (id, child, needed) in wanted {
            let source = self.source.clone();
            self.ahead
                .start(id, async move { read_child(&source, child, needed).await });
        }
    }
}

async fn read_child<S: BlockSource>(
    source: &S,
    child: Child,
    needed: Range<u64>,
) -> Result<Fetched, ReadError> {
    let Child { cid, size } = child;
    let partial = needed.start > 0 || needed.end < size;
    if cid.codec() == cid::RAW && partial && !cid::is_identity(&cid) {
        let length = needed.end - needed.start;
        let bytes = source.range(&cid, needed).await?;
        let bytes = bytes.ok_or(ReadError::NotFound(cid))?;
        let whole = source.size(&cid).await?.unwrap_or(size);
        if whole != size || bytes.len() as u64 != length {
            let why = format!("{whole} bytes where its parent says {size}");
            return Err(malformed(&cid, why));
        }
        return Ok(Fetched::Bytes(bytes));
    }
    let block = fetch(source, &cid).await?.ok_or(ReadError::NotFound(cid))?;
    let part = Part::child(&block, size)?;
    Ok(if part.sizes.is_empty() {
        Fetched::Bytes(cut(&part.data, &needed))
    } else {
        Fetched::Part(part)
    })
}

/// Blocks asked for ahead of the reader: at first, and at most, when they come from afar.
const AHEAD_START: usize = 16;
const AHEAD_MAX: usize = 1024;
/// Whoever waits longer than this for a block does not get it from this machine.
const NEAR: Duration = Duration::from_millis(2);
/// Most bytes asked for ahead of the reader.
const AHEAD_BYTES_MAX: u64 = 32 << 20;
/// Deepest level of a file's tree; at width 2 this is more than any file.
const DEPTH_MAX: usize = 64;
/// Most parts that wait at once: the children of one node on every level of the way down.
const PIECES_MAX: usize = 1 << 17;
