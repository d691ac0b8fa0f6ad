//! Walks that do not follow every link: the blocks of a part of a file, and the shards of a HAMT.

use super::{Blocks, fetch};
use crate::body::Break;
use crate::budget::Limit;
use cairn_store::dag::walk::Repeats;
use cairn_store::dag::{Bound, Budget, pb};
use cairn_store::unixfs::format::Message;
use cairn_store::unixfs::read::ReadError;
use cairn_store::{Block, BlockSource, Cid, cid};
use futures::{StreamExt, stream};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// Which links are followed.
#[derive(Debug, Clone)]
pub(super) enum Follow {
    /// Those to bytes of this part of a file.
    Part(Range<u64>),
    /// Those to other shards of the same folder.
    Shards,
}

/// Streams the blocks, the root first, depth first, links in stored order.
pub(super) fn follow<S: BlockSource + Clone + 'static>(
    source: S,
    root: Cid,
    links: Follow,
    repeats: Repeats,
    budget: Budget,
) -> Blocks {
    let walk = Walk {
        source,
        links,
        open: vec![Place {
            cid: root,
            start: 0,
            depth: 0,
        }],
        sent: (repeats == Repeats::Skip).then(Sent::default),
        budget,
        left: budget,
    };
    stream::try_unfold(walk, |mut walk| async move {
        let block = walk.next().await?;
        Ok(block.map(|block| (block, walk)))
    })
    .boxed()
}

struct Walk<S> {
    source: S,
    links: Follow,
    /// Still to be visited, the next one last.
    open: Vec<Place>,
    sent: Option<Sent>,
    budget: Budget,
    /// What is left of it.
    left: Budget,
}

/// The blocks that were sent, by 16 bytes of keyed hashes each: nobody can make two of them the same.
#[derive(Default)]
struct Sent {
    keys: [RandomState; 2],
    hashes: HashSet<[u64; 2]>,
}

impl Sent {
    fn has(&self, cid: &Cid) -> bool {
        self.hashes.contains(&self.hash(cid))
    }

    fn add(&mut self, cid: &Cid) {
        let hash = self.hash(cid);
        self.hashes.insert(hash);
    }

    fn hash(&self, cid: &Cid) -> [u64; 2] {
        self.keys.each_ref().map(|key| key.hash_one(cid))
    }
}

struct Place {
    cid: Cid,
    /// Where its bytes begin in the file.
    start: u64,
    depth: usize,
}

impl<S: BlockSource> Walk<S> {
    async fn next(&mut self) -> Result<Option<Block>, Break> {
        while let Some(place) = self.open.pop() {
            let over = |bound| Break::Over(Limit::Archive(bound));
            let left = self.left.blocks.checked_sub(1);
            self.left.blocks = left.ok_or_else(|| over(Bound::Blocks(self.budget.blocks)))?;
            if self.left.blocks.is_multiple_of(VISITS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            let is_new = self.sent.as_ref().is_none_or(|sent| !sent.has(&place.cid));
            // A shard's children depend on nothing but the shard; a file's on where it stands.
            if !is_new && matches!(self.links, Follow::Shards) {
                continue;
            }
            let block = fetch(&self.source, &place.cid).await?;
            let children = self.children(&block, &place)?;
            if place.depth >= self.budget.depth && !children.is_empty() {
                return Err(over(Bound::Depth(self.budget.depth as u64)));
            }
            if self.open.len().saturating_add(children.len()) > OPEN_MAX {
                let why = format!("more than {OPEN_MAX} links wait to be followed");
                return Err(Break::Limit(format!("{}: {why}", place.cid)));
            }
            self.open.extend(children.into_iter().rev());
            if is_new {
                let left = self.left.bytes.checked_sub(block.data().len() as u64);
                self.left.bytes = left.ok_or_else(|| over(Bound::Bytes(self.budget.bytes)))?;
                if let Some(sent) = &mut self.sent {
                    sent.add(&place.cid);
                }
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn children(&self, block: &Block, place: &Place) -> Result<Vec<Place>, Break> {
        if block.cid().codec() != cid::DAG_PB {
            return Ok(Vec::new());
        }
        let malformed = |why: String| ReadError::Malformed {
            cid: *block.cid(),
            why,
        };
        let node = pb::decode(block.data()).map_err(malformed)?;
        let message = Message::decode(&node.data.unwrap_or_default()).map_err(malformed)?;
        let depth = place.depth + 1;
        match &self.links {
            Follow::Shards => {
                let largest = message.fanout.unwrap_or(1).saturating_sub(1);
                let prefix = format!("{largest:X}").len();
                Ok(node
                    .links
                    .into_iter()
                    .filter(|link| link.name.as_ref().is_some_and(|name| name.len() == prefix))
                    .map(|link| Place {
                        cid: link.cid,
                        start: 0,
                        depth,
                    })
                    .collect())
            }
            Follow::Part(wanted) => {
                if message.block_sizes.len() != node.links.len() {
                    return Err(malformed("it has not one size for each link".to_owned()).into());
                }
                let inline = message.data.as_ref().map_or(0, |data| data.len() as u64);
                let mut start = place.start.saturating_add(inline);
                let mut children = Vec::new();
                for (link, size) in node.links.into_iter().zip(message.block_sizes) {
                    let end = start.saturating_add(size);
                    if start < wanted.end && end > wanted.start && size > 0 {
                        children.push(Place {
                            cid: link.cid,
                            start,
                            depth,
                        });
                    }
                    start = end;
                }
                Ok(children)
            }
        }
    }
}

/// Most places that wait to be visited.
const OPEN_MAX: usize = 100_000;
/// A walk over cached blocks lets others run after so many.
const VISITS_PER_TURN: u64 = 64;
