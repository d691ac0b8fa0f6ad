//! A folder's entries, by name and all of them.
//!
//! Children are never fetched; in a HAMT, shards are. A name found in a shard must hash to that
//! shard's place, so that one shard linked many times is an error, not a folder without end.

use super::{ReadError, cumulative, fetch, malformed, over_budget};
use crate::block::Block;
use crate::cid::Cid;
use crate::dag::ahead::Ahead;
use crate::dag::pb::{self, PbLink, PbNode};
use crate::dag::{Bound, Budget};
use crate::source::BlockSource;
use crate::unixfs::Mtime;
use crate::unixfs::format::Message;
use crate::unixfs::hamt::{self, Shard, Slot};
use futures::Stream;
use std::sync::Arc;

/// A folder, opened.
#[derive(Debug, Clone)]
pub struct Directory {
    cid: Cid,
    mode: Option<u32>,
    mtime: Option<Mtime>,
    tsize: u64,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Plain(Arc<PbNode>),
    Sharded(Arc<Shard>),
}

/// An entry of a folder, as its link says. Children are never fetched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The child's root.
    pub cid: Cid,
    /// The link's Tsize: cumulative size of the child's DAG, as claimed by whoever made the link.
    pub tsize: u64,
}

impl From<&PbLink> for Entry {
    fn from(link: &PbLink) -> Self {
        Self {
            name: link.name.clone().unwrap_or_default(),
            cid: link.cid,
            tsize: link.tsize.unwrap_or(0),
        }
    }
}

impl Directory {
    pub(super) fn plain(block: &Block, node: PbNode, message: &Message) -> Self {
        Self {
            cid: *block.cid(),
            mode: message.mode,
            mtime: message.mtime,
            tsize: cumulative(block, &node),
            shape: Shape::Plain(Arc::new(node)),
        }
    }

    pub(super) fn sharded(
        block: &Block,
        node: PbNode,
        message: &Message,
    ) -> Result<Self, ReadError> {
        let tsize = cumulative(block, &node);
        let shard = Shard::read(node, message).map_err(|why| malformed(block.cid(), why))?;
        Ok(Self {
            cid: *block.cid(),
            mode: message.mode,
            mtime: message.mtime,
            tsize,
            shape: Shape::Sharded(Arc::new(shard)),
        })
    }

    /// The root.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The root shard, if it is a HAMT.
    pub(crate) fn shard(&self) -> Option<&Shard> {
        match &self.shape {
            Shape::Plain(_) => None,
            Shape::Sharded(shard) => Some(shard),
        }
    }

    /// Whether it is a HAMT.
    pub fn is_sharded(&self) -> bool {
        matches!(self.shape, Shape::Sharded(_))
    }

    /// Cumulative size of the DAG in bytes, as its links claim.
    pub fn tsize(&self) -> u64 {
        self.tsize
    }

    /// How many links the root has: the entries of a plain folder, the used buckets of a HAMT.
    pub fn links(&self) -> usize {
        match &self.shape {
            Shape::Plain(node) => node.links.len(),
            Shape::Sharded(shard) => shard.slots.len(),
        }
    }

    /// Permission bits, if kept.
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// Time of change, if kept.
    pub fn mtime(&self) -> Option<Mtime> {
        self.mtime
    }

    /// The entry with this name; in a HAMT only the shards on the way are read.
    pub async fn find<S: BlockSource>(
        &self,
        source: &S,
        name: &str,
    ) -> Result<Option<Entry>, ReadError> {
        let (_, entry) = self.find_with_shards(source, name).await?;
        Ok(entry)
    }

    /// The entry with this name, and the shards below the root that were read on the way to it.
    pub async fn find_with_shards<S: BlockSource>(
        &self,
        source: &S,
        name: &str,
    ) -> Result<(Vec<Cid>, Option<Entry>), ReadError> {
        let mut shard = match &self.shape {
            Shape::Plain(node) => return Ok((Vec::new(), node.link(name).map(Entry::from))),
            Shape::Sharded(shard) => Arc::clone(shard),
        };
        let hash = hamt::hash_name(name);
        let mut shards = Vec::new();
        for level in 0..shard.fanout.levels() {
            let slot = shard
                .fanout
                .bucket(hash, level)
                .and_then(|bucket| shard.slot(bucket));
            let Some(slot) = slot else { break };
            match &slot.name {
                Some(found) if found == name => {
                    let entry = entry(slot, found);
                    return Ok((shards, Some(entry)));
                }
                Some(_) => break,
                None => {
                    let cid = slot.cid;
                    shards.push(cid);
                    let (below, _) = read_shard(source, cid, shard.fanout).await?;
                    shard = Arc::new(below);
                }
            }
        }
        Ok((shards, None))
    }

    /// Streams the entries in stored order (a HAMT in hash order), within `budget`.
    pub fn entries<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        budget: Budget,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        let listing = Listing {
            source,
            budget,
            cid: self.cid,
            entries: 0,
            shards: 0,
            bytes: 0,
            next_frame: 1,
            ahead: Ahead::new(),
            shape: self.shape.clone(),
            at: 0,
            frames: match &self.shape {
                Shape::Plain(_) => Vec::new(),
                Shape::Sharded(shard) => vec![Frame {
                    id: 0,
                    shard: Arc::clone(shard),
                    at: 0,
                    bucket: 0,
                }],
            },
        };
        futures::stream::unfold(Some(listing), |listing| async move {
            let mut listing = listing?;
            match listing.next().await {
                Ok(Some(entry)) => Some((Ok(entry), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

fn entry(slot: &Slot, name: &str) -> Entry {
    Entry {
        name: name.to_owned(),
        cid: slot.cid,
        tsize: slot.tsize,
    }
}

/// A shard below the root, and how many bytes its block has.
pub(crate) async fn read_shard<S: BlockSource>(
    source: &S,
    cid: Cid,
    fanout: hamt::Fanout,
) -> Result<(Shard, u64), ReadError> {
    let failed = |why| malformed(&cid, why);
    let block = fetch(source, &cid).await?.ok_or(ReadError::NotFound(cid))?;
    let node = pb::decode(block.data()).map_err(failed)?;
    let data = node.data.clone().unwrap_or_default();
    let message = Message::decode(&data).map_err(failed)?;
    let shard = Shard::read(node, &message).map_err(failed)?;
    if shard.fanout != fanout {
        return Err(failed(
            "a shard with another fanout than its parent".to_owned(),
        ));
    }
    Ok((shard, block.data().len() as u64))
}

/// A shard on the way down, and how far it was listed.
struct Frame {
    id: u64,
    shard: Arc<Shard>,
    at: usize,
    /// Its bucket in its parent.
    bucket: usize,
}

struct Listing<S> {
    source: S,
    budget: Budget,
    cid: Cid,
    entries: u64,
    shards: u64,
    bytes: u64,
    next_frame: u64,
    /// Shards asked for, by the frame and the place in it that link them.
    ahead: Ahead<(u64, usize), Result<(Shard, u64), ReadError>>,
    shape: Shape,
    /// How far a plain folder was listed.
    at: usize,
    frames: Vec<Frame>,
}

impl<S: BlockSource + Clone + 'static> Listing<S> {
    async fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        let next = match &self.shape {
            Shape::Plain(node) => {
                let link = node.links.get(self.at);
                self.at += 1;
                link.map(Entry::from)
            }
            Shape::Sharded(_) => self.next_sharded().await?,
        };
        if next.is_some() {
            if self.entries >= self.budget.entries {
                return Err(self.over(Bound::Entries, "entries", self.budget.entries));
            }
            self.entries += 1;
        }
        Ok(next)
    }

    async fn next_sharded(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            self.read_ahead();
            let Some(frame) = self.frames.last_mut() else {
                return Ok(None);
            };
            let place = frame.at;
            let Some(slot) = frame.shard.slots.get(place) else {
                self.frames.pop();
                continue;
            };
            frame.at += 1;
            match &slot.name {
                Some(name) => {
                    let entry = entry(slot, name);
                    let bucket = slot.bucket;
                    self.in_its_place(&entry.name, bucket)?;
                    return Ok(Some(entry));
                }
                None => {
                    let key = (frame.id, place);
                    let (cid, bucket) = (slot.cid, slot.bucket);
                    self.descend(key, cid, bucket).await?;
                }
            }
        }
    }

    async fn descend(
        &mut self,
        key: (u64, usize),
        cid: Cid,
        bucket: usize,
    ) -> Result<(), ReadError> {
        let depth = self.frames.len();
        if depth > self.budget.depth {
            return Err(self.over(Bound::Depth, "levels", self.budget.depth as u64));
        }
        // Shards without entries would cost nothing in entries, so they count as such.
        let most = self.budget.blocks.min(self.budget.entries);
        if self.shards >= most {
            let bound = match most < self.budget.blocks {
                true => Bound::Entries,
                false => Bound::Blocks,
            };
            return Err(self.over(bound, "shards", most));
        }
        if self.bytes >= self.budget.bytes {
            return Err(self.over(Bound::Bytes, "bytes", self.budget.bytes));
        }
        let Some(fetched) = self.ahead.take(&key).await else {
            return Err(ReadError::NotFound(cid));
        };
        let (shard, bytes) = fetched?;
        if depth >= shard.fanout.levels() {
            let why = "a shard deeper than its hash has bits".to_owned();
            return Err(malformed(&cid, why));
        }
        self.shards += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.frames.push(Frame {
            id: self.next_frame,
            shard: Arc::new(shard),
            at: 0,
            bucket,
        });
        self.next_frame += 1;
        Ok(())
    }

    /// Asks for the next shards below the deepest one that is open.
    fn read_ahead(&mut self) {
        let Some(frame) = self.frames.last() else {
            return;
        };
        let shards = frame.shard.slots.iter().enumerate().skip(frame.at);
        for (place, slot) in shards.take(AHEAD_MAX) {
            let key = (frame.id, place);
            if slot.name.is_some() || self.ahead.has(&key) {
                continue;
            }
            if self.ahead.len() >= AHEAD_MAX && place > frame.at {
                break;
            }
            let (source, cid, fanout) = (self.source.clone(), slot.cid, frame.shard.fanout);
            self.ahead
                .start(key, async move { read_shard(&source, cid, fanout).await });
        }
    }

    fn in_its_place(&self, name: &str, bucket: usize) -> Result<(), ReadError> {
        let hash = hamt::hash_name(name);
        let buckets = self.frames.iter().skip(1).map(|frame| frame.bucket);
        let buckets = buckets.chain(std::iter::once(bucket));
        for (level, (bucket, frame)) in buckets.zip(&self.frames).enumerate() {
            if frame.shard.fanout.bucket(hash, level) != Some(bucket) {
                let why = format!("{name:?} is in a shard where its hash does not lead");
                return Err(malformed(&self.cid, why));
            }
        }
        Ok(())
    }

    fn over(&self, bound: fn(u64) -> Bound, what: &str, most: u64) -> ReadError {
        let limit = format!("a folder of more than {most} {what}");
        over_budget(&self.cid, Some(bound(most)), limit)
    }
}

/// Most shards asked for ahead of the reader.
const AHEAD_MAX: usize = 16;
