//! Every block below a root, depth first or as they come, within a budget.
//!
//! The walk keeps a frame for each node it is inside of: the CIDs of the node's children, packed as in
//! it, and how far it got. Depth first that is one a level, so a shard that links itself 256 times over
//! 32 levels costs 32 frames, not 256^32; as they come, all that the bound on pending links allows.
//! Blocks soon needed are asked for ahead; they come out in order all the same, unless none is asked for.
//!
//! What was seen is kept as 16 bytes of a keyed hash of codec and multihash, with a key made for
//! this walk. A full multihash would take 34 to 130 bytes for each block. Nobody can look for two
//! blocks that collide without the key, and by chance it takes 2^64 blocks.

use super::ahead::Ahead;
use super::{Bound, Budget};
use crate::block::Block;
use crate::cid::{Cid, RAW};
use crate::source::{BlockSource, SourceError};
use crate::unixfs::read::{self, ReadError};
use futures::Stream;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// In which order blocks are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Depth first, links as they are stored.
    Links,
    /// Whatever comes first, so that one late block holds no other up. Each comes once
    /// ([`Repeats::Skip`]), at any of its places. They are asked for in the order of the links that
    /// are known by then, so who reads beside in that order finds what it needs.
    Arrival,
}

/// How to walk.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a block that is linked twice comes twice.
    pub repeats: Repeats,
    /// Deepest level below the root that is visited; `None` for all.
    pub max_depth: Option<usize>,
    /// Limits.
    pub budget: Budget,
    /// What a missing block does.
    pub missing: Missing,
    /// How many blocks may be asked for ahead of the one handed out.
    pub read_ahead: usize,
    /// In which order blocks are handed out.
    pub order: Order,
}

/// Whether a block that is linked twice comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Each block once, at its first place.
    Skip,
    /// As often as it is linked.
    Keep,
}

/// What a missing block does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The walk ends with an error.
    Stop,
    /// The walk tells it and goes on, unless the next one would be missing for the same reason.
    Tell,
}

/// One step of a walk.
#[derive(Debug, Clone)]
pub enum Visit {
    /// A block, `depth` levels below the root.
    Block {
        /// The block.
        block: Block,
        /// Its level; the root's is 0.
        depth: usize,
    },
    /// A block that is not there (only with [`Missing::Tell`]).
    Missing {
        /// Its name.
        cid: Cid,
        /// Why, as the source put it.
        why: String,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repeats: Repeats::Skip,
            max_depth: None,
            budget: Budget::OPERATOR,
            missing: Missing::Stop,
            read_ahead: 32,
            order: Order::Links,
        }
    }
}

/// Streams the DAG below `root`, the root first.
pub fn walk<S: BlockSource + Clone + 'static>(
    source: S,
    root: Cid,
    options: Options,
) -> impl Stream<Item = Result<Visit, ReadError>> + Send + 'static {
    let walk = Walk::new(source, root, options);
    futures::stream::unfold(Some(walk), |walk| async move {
        let mut walk = walk?;
        let next = match walk.options.order {
            Order::Links => walk.next().await,
            Order::Arrival => walk.next_to_come().await,
        };
        match next {
            Ok(Some(visit)) => Some((Ok(visit), Some(walk))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// 16 bytes of a keyed hash of codec and multihash.
type Key = [u8; 16];

/// The keys are evenly spread already: their first half is their hash.
#[derive(Default)]
struct First(u64);

impl Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length that comes before the bytes of an array.
    fn write_usize(&mut self, _length: usize) {}
}

/// The children of one node that are still to come.
struct Frame {
    /// Binary CIDs, one after the other.
    cids: Vec<u8>,
    at: usize,
    depth: usize,
    /// That of the next child.
    span: Span,
}

impl Frame {
    fn pop(&mut self) -> Option<(Cid, Span)> {
        let (cid, next) = Self::read(&self.cids, self.at)?;
        self.at = next;
        let after = self.span.after();
        Some((cid, std::mem::replace(&mut self.span, after)))
    }

    fn peek(&self) -> Option<Cid> {
        Some(Self::read(&self.cids, self.at)?.0)
    }

    fn read(cids: &[u8], at: usize) -> Option<(Cid, usize)> {
        let mut rest = cids.get(at..).filter(|rest| !rest.is_empty())?;
        let cid = Cid::read_bytes(&mut rest).ok()?;
        Some((cid, cids.len() - rest.len()))
    }
}

/// Where a node and all below it stand in the order of links. Each child has an equal part of what its
/// parent has; far down, where nothing is left to be parted, the order is not kept.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u128,
    length: u128,
}

impl Span {
    const ALL: Self = Self {
        start: 0,
        length: u128::MAX,
    };

    /// The first of `count` children. The node itself comes before it.
    fn first_of(self, count: usize) -> Self {
        let parts = u128::try_from(count).unwrap_or(u128::MAX).saturating_add(1);
        let length = self.length / parts;
        Self {
            start: self.start.saturating_add(length),
            length,
        }
    }

    fn after(self) -> Self {
        Self {
            start: self.start.saturating_add(self.length),
            ..self
        }
    }
}

type Fetched = Result<Option<Block>, SourceError>;

/// What asking ahead came to.
enum Early {
    Fetched(Fetched),
    /// It came, but too much was held already: the source has it by now.
    Dropped,
}

struct Walk<S> {
    source: S,
    options: Options,
    key: [u8; 32],
    /// What comes first in the order of links is last.
    frames: Vec<Frame>,
    pending_bytes: usize,
    /// What was visited, and on which level.
    seen: HashMap<Key, u32, BuildHasherDefault<First>>,
    ahead: Ahead<Key, Early>,
    /// What is under way if it is handed out as it comes.
    under_way: HashMap<Key, Place, BuildHasherDefault<First>>,
    /// Nodes that came while too many links were pending: they are asked for again, of the source that
    /// has them by then. No more than were under way at once.
    put_off: Vec<Place>,
    /// Bytes of blocks that came and are not handed out yet.
    held: Arc<AtomicU64>,
    blocks: u64,
    bytes: u64,
}

/// A block that is under way, and where it was found.
struct Place {
    cid: Cid,
    depth: usize,
    span: Span,
    turn: Turn,
    /// Pending bytes that are kept for its links.
    reserved: usize,
}

/// What a CID means for the walk.
enum Turn {
    Visit,
    /// It was handed out from a deeper level, whose children were too deep to be.
    Descend,
    Skip,
}

impl<S: BlockSource + Clone + 'static> Walk<S> {
    fn new(source: S, root: Cid, options: Options) -> Self {
        let cids = root.to_bytes();
        Self {
            source,
            options,
            key: rand::random(),
            pending_bytes: cids.len(),
            frames: vec![Frame {
                cids,
                at: 0,
                depth: 0,
                span: Span::ALL,
            }],
            seen: HashMap::default(),
            ahead: Ahead::new(),
            under_way: HashMap::default(),
            put_off: Vec::new(),
            held: Arc::default(),
            blocks: 0,
            bytes: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Visit>, ReadError> {
        while let Some(frame) = self.frames.last_mut() {
            let depth = frame.depth;
            let Some((cid, span)) = frame.pop() else {
                self.pending_bytes -= frame.cids.len();
                self.frames.pop();
                continue;
            };
            let key = self.key_of(&cid);
            let turn = self.turn(key, depth);
            if matches!(turn, Turn::Skip) {
                continue;
            }
            self.within_budget(&cid, depth)?;
            self.blocks += 1;
            self.start(key, cid);
            self.read_ahead();
            let fetched = self.take(&key, &cid).await;
            if let Some(visit) = self.visit(
                fetched,
                Place {
                    cid,
                    depth,
                    span,
                    turn,
                    reserved: 0,
                },
            )? {
                return Ok(Some(visit));
            }
        }
        Ok(None)
    }

    async fn next_to_come(&mut self) -> Result<Option<Visit>, ReadError> {
        loop {
            self.start_what_fits()?;
            let Some((key, early)) = self.ahead.next().await else {
                return Ok(None);
            };
            let Some(place) = self.under_way.remove(&key) else {
                continue;
            };
            let fetched = self.came(Some(early), &place.cid).await;
            if let Some(visit) = self.visit(fetched, place)? {
                return Ok(Some(visit));
            }
        }
    }

    /// What is handed out of a place once its block came, or did not.
    fn visit(&mut self, fetched: Fetched, place: Place) -> Result<Option<Visit>, ReadError> {
        let Place {
            cid,
            depth,
            span,
            turn,
            reserved,
        } = place;
        self.pending_bytes -= reserved;
        let Ok(Some(block)) = fetched else {
            return self.missing(cid, fetched);
        };
        self.bytes = self.bytes.saturating_add(block.data().len() as u64);
        self.descend(&block, depth, span)?;
        Ok(matches!(turn, Turn::Visit).then_some(Visit::Block { block, depth }))
    }

    /// Asks for as many blocks as may be under way; for what was put off once there is room for its links.
    fn start_what_fits(&mut self) -> Result<(), ReadError> {
        while self.ahead.len() < self.breadth().max(1) {
            if let Some(place) = self
                .put_off
                .pop_if(|place| self.pending_bytes + place.reserved <= PENDING_BYTES_MAX / 2)
            {
                let (key, cid) = (self.key_of(&place.cid), place.cid);
                self.pending_bytes += place.reserved;
                self.under_way.insert(key, place);
                self.start(key, cid);
                continue;
            }
            let tight = self.is_tight() && self.is_node_under_way();
            let Some(frame) = self.frames.last_mut() else {
                return Ok(());
            };
            if tight && frame.peek().is_some_and(|cid| cid.codec() != RAW) {
                return Ok(());
            }
            let depth = frame.depth;
            let Some((cid, span)) = frame.pop() else {
                self.pending_bytes -= frame.cids.len();
                self.frames.pop();
                continue;
            };
            let key = self.key_of(&cid);
            let turn = self.turn(key, depth);
            if matches!(turn, Turn::Skip) {
                continue;
            }
            if let Some(place) = self.under_way.get_mut(&key) {
                place.depth = place.depth.min(depth);
                continue;
            }
            self.within_budget(&cid, depth)?;
            self.blocks += 1;
            let reserved = 0;
            self.under_way.insert(
                key,
                Place {
                    cid,
                    depth,
                    span,
                    turn,
                    reserved,
                },
            );
            self.start(key, cid);
        }
        Ok(())
    }

    /// Whether one node with links comes after the other, as deep as there is: many at once may bring
    /// more links than may be pending. Blocks without links bring none.
    fn is_tight(&self) -> bool {
        self.pending_bytes > PENDING_BYTES_MAX / 2 || !self.put_off.is_empty()
    }

    fn is_node_under_way(&self) -> bool {
        let mut places = self.under_way.values();
        places.any(|place| place.cid.codec() != RAW)
    }

    /// Marks a CID as seen and says what to do with it.
    fn turn(&mut self, key: Key, depth: usize) -> Turn {
        if self.options.repeats == Repeats::Keep && self.options.order == Order::Links {
            return Turn::Visit;
        }
        let level = u32::try_from(depth).unwrap_or(u32::MAX);
        match self.seen.get_mut(&key) {
            None => {
                self.seen.insert(key, level);
                Turn::Visit
            }
            Some(seen) if self.options.max_depth.is_some() && level < *seen => {
                *seen = level;
                Turn::Descend
            }
            Some(_) => Turn::Skip,
        }
    }

    fn within_budget(&self, cid: &Cid, depth: usize) -> Result<(), ReadError> {
        let budget = &self.options.budget;
        let (bound, limit) = if self.blocks >= budget.blocks {
            let most = budget.blocks;
            (
                Some(Bound::Blocks(most)),
                format!("more than {most} blocks"),
            )
        } else if self.bytes >= budget.bytes {
            let most = budget.bytes;
            (Some(Bound::Bytes(most)), format!("more than {most} bytes"))
        } else if depth > budget.depth {
            let most = budget.depth as u64;
            (Some(Bound::Depth(most)), format!("more than {most} levels"))
        } else {
            return Ok(());
        };
        let cid = *cid;
        Err(ReadError::OverBudget { cid, bound, limit })
    }

    fn missing(&self, cid: Cid, fetched: Fetched) -> Result<Option<Visit>, ReadError> {
        let why = match (self.options.missing, fetched) {
            (Missing::Stop, Ok(_)) => return Err(ReadError::NotFound(cid)),
            (Missing::Stop, Err(error)) => return Err(error.into()),
            (_, Err(error)) if error.is_of_every_block() => return Err(error.into()),
            (Missing::Tell, Ok(_)) => ReadError::NotFound(cid).to_string(),
            (Missing::Tell, Err(error)) => error.to_string(),
        };
        Ok(Some(Visit::Missing { cid, why }))
    }

    /// Opens a frame for the children of `block`.
    fn descend(&mut self, block: &Block, depth: usize, span: Span) -> Result<(), ReadError> {
        if self.options.max_depth.is_some_and(|most| depth >= most) {
            return Ok(());
        }
        let links = super::links(block).map_err(|error| ReadError::Malformed {
            cid: error.cid,
            why: error.why,
        })?;
        let (mut cids, mut count) = (Vec::new(), 0);
        for link in links {
            let known = self.options.repeats == Repeats::Skip
                && self.options.max_depth.is_none()
                && self.seen.contains_key(&self.key_of(&link.cid));
            if !known {
                cids.extend(link.cid.to_bytes());
                count += 1;
            }
        }
        if cids.is_empty() {
            return Ok(());
        }
        let is_much = self.pending_bytes + cids.len() > PENDING_BYTES_MAX / 2;
        if is_much && self.is_node_under_way() {
            self.put_off.push(Place {
                cid: *block.cid(),
                depth,
                span,
                turn: Turn::Descend,
                reserved: cids.len(),
            });
            return Ok(());
        }
        self.pending_bytes += cids.len();
        if self.pending_bytes > PENDING_BYTES_MAX {
            let limit = format!("more than {PENDING_BYTES_MAX} bytes of links wait to be followed");
            let (cid, bound) = (*block.cid(), None);
            return Err(ReadError::OverBudget { cid, bound, limit });
        }
        // On top, unless it comes late: nothing before it in the order is left.
        let place = self
            .frames
            .partition_point(|frame| frame.span.start >= span.start);
        let frame = Frame {
            cids,
            at: 0,
            depth: depth + 1,
            span: span.first_of(count),
        };
        self.frames.insert(place, frame);
        Ok(())
    }

    /// Asks for what comes next, from the deepest level up. Only once half of the room is free, so
    /// that the same links are not looked at again for every block.
    fn read_ahead(&mut self) {
        let most = self.breadth();
        if self.ahead.len() > most / 2 {
            return;
        }
        let mut wanted = Vec::new();
        let mut looked_at = 0;
        for frame in self.frames.iter().rev() {
            let mut at = frame.at;
            while looked_at < 2 * most && self.ahead.len() + wanted.len() < most {
                let Some((cid, next)) = Frame::read(&frame.cids, at) else {
                    break;
                };
                at = next;
                looked_at += 1;
                let key = self.key_of(&cid);
                let seen = self.options.repeats == Repeats::Skip && self.seen.contains_key(&key);
                if !seen && !self.ahead.has(&key) && !wanted.iter().any(|(other, _)| *other == key)
                {
                    wanted.push((key, cid));
                }
            }
        }
        for (key, cid) in wanted {
            self.start(key, cid);
        }
    }

    fn start(&mut self, key: Key, cid: Cid) {
        if self.ahead.has(&key) {
            return;
        }
        let (source, held) = (self.source.clone(), Arc::clone(&self.held));
        self.ahead.start(key, async move {
            let fetched = read::fetch(&source, &cid).await;
            if let Ok(Some(block)) = &fetched {
                let bytes = block.data().len() as u64;
                if held.fetch_add(bytes, Ordering::Relaxed) > HELD_BYTES_MAX {
                    held.fetch_sub(bytes, Ordering::Relaxed);
                    return Early::Dropped;
                }
            }
            Early::Fetched(fetched)
        });
    }

    async fn take(&mut self, key: &Key, cid: &Cid) -> Fetched {
        let early = self.ahead.take(key).await;
        self.came(early, cid).await
    }

    async fn came(&mut self, early: Option<Early>, cid: &Cid) -> Fetched {
        match early {
            Some(Early::Fetched(fetched)) => {
                if let Ok(Some(block)) = &fetched {
                    let bytes = block.data().len() as u64;
                    self.held.fetch_sub(bytes, Ordering::Relaxed);
                }
                fetched
            }
            Some(Early::Dropped) | None => read::fetch(&self.source, cid).await,
        }
    }

    /// How many blocks to ask for ahead: fewer than wished for if those seen so far were large.
    fn breadth(&self) -> usize {
        let most = self.options.read_ahead.min(READ_AHEAD_MAX);
        let average = self.bytes / self.blocks.max(1);
        let fitting = HELD_BYTES_MAX / average.max(1);
        let fitting = usize::try_from(fitting).unwrap_or(most);
        most.min(fitting.max(READ_AHEAD_SURE))
    }

    fn key_of(&self, cid: &Cid) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&cid.codec().to_le_bytes());
        hasher.update(&cid.hash().code().to_le_bytes());
        hasher.update(cid.hash().digest());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        key
    }
}

/// Most bytes of links that wait to be followed: some two million.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Most blocks asked for ahead, whatever the options say.
const READ_AHEAD_MAX: usize = 512;
/// Most blocks asked for ahead where blocks are large.
const READ_AHEAD_SURE: usize = 64;
/// Bytes of blocks that came and wait to be handed out. What is more is dropped and asked for again,
/// of the source, which has it by then.
const HELD_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{self, HashKind, Version};
    use crate::dag::pb::{self, PbLink, PbNode};
    use futures::StreamExt;
    use std::collections::HashSet;

    type Blocks = HashMap<Cid, Block>;

    fn node(blocks: &mut Blocks, label: &str, children: &[Cid]) -> Cid {
        let node = PbNode {
            links: children
                .iter()
                .map(|cid| PbLink {
                    cid: *cid,
                    name: None,
                    tsize: None,
                })
                .collect(),
            data: Some(label.to_owned().into()),
        };
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::DAG_PB,
            hash: HashKind::Sha2_256,
        };
        let block = Block::new(prefix, pb::encode(&node)).unwrap();
        let cid = *block.cid();
        blocks.insert(cid, block);
        cid
    }

    fn run(blocks: Blocks, root: Cid, options: Options) -> Vec<Result<String, String>> {
        let steps = walk(Arc::new(blocks), root, options).map(|step| match step {
            Ok(Visit::Block { block, depth }) => {
                let label = pb::decode(block.data()).unwrap().data.unwrap();
                Ok(format!("{}{depth}", String::from_utf8_lossy(&label)))
            }
            Ok(Visit::Missing { .. }) => Ok("missing".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        futures::executor::block_on(steps.collect())
    }

    fn labels(steps: Vec<Result<String, String>>) -> String {
        steps
            .into_iter()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// root → (a → (x, y), b → (x, c → y))
    fn diamond() -> (Blocks, Cid, Cid) {
        let mut blocks = Blocks::new();
        let y = node(&mut blocks, "y", &[]);
        let x = node(&mut blocks, "x", &[]);
        let c = node(&mut blocks, "c", &[y]);
        let a = node(&mut blocks, "a", &[x, y]);
        let b = node(&mut blocks, "b", &[x, c]);
        let root = node(&mut blocks, "r", &[a, b, b]);
        (blocks, root, x)
    }

    #[test]
    fn blocks_come_in_preorder_whatever_is_read_ahead() {
        for read_ahead in [0, 1, 3, 32] {
            let (blocks, root, _) = diamond();
            let skip = Options {
                read_ahead,
                ..Options::default()
            };
            assert_eq!(labels(run(blocks.clone(), root, skip)), "r0 a1 x2 y2 b1 c2");
            let keep = Options {
                repeats: Repeats::Keep,
                ..skip
            };
            assert_eq!(
                labels(run(blocks, root, keep)),
                "r0 a1 x2 y2 b1 x2 c2 y3 b1 x2 c2 y3"
            );
        }
    }

    /// A source in which one block comes after all others that were asked for.
    #[derive(Clone)]
    struct Late {
        blocks: Arc<Blocks>,
        late: Cid,
        asked: Arc<AtomicU64>,
    }

    impl BlockSource for Late {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if *cid == self.late {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
            }
            self.blocks.block(cid).await
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            self.blocks.admits(cid)
        }
    }

    #[test]
    fn what_is_too_much_to_be_held_still_comes_in_order() {
        let mut blocks = Blocks::new();
        let large: Vec<Cid> = (0..80)
            .map(|at| node(&mut blocks, &format!("{}{at}", "0".repeat(1 << 20)), &[]))
            .collect();
        let small: Vec<Cid> = (0..300)
            .map(|at| node(&mut blocks, &format!("small {at}"), &[]))
            .collect();
        // Many small ones first, so that many of the large ones are asked for.
        let root = node(&mut blocks, "r", &[small.clone(), large].concat());
        let options = Options {
            read_ahead: READ_AHEAD_MAX,
            ..Options::default()
        };
        let count = blocks.len();
        let source = Late {
            blocks: Arc::new(blocks),
            late: small[0],
            asked: Arc::default(),
        };
        let asked = Arc::clone(&source.asked);
        let label = |visit: Result<Visit, ReadError>| match visit.unwrap() {
            Visit::Block { block, .. } => {
                let label = pb::decode(block.data()).unwrap().data.unwrap();
                let label = String::from_utf8_lossy(&label).into_owned();
                label.trim_start_matches('0').to_owned()
            }
            Visit::Missing { cid, .. } => panic!("{cid} is missing"),
        };
        let visits = walk(source, root, options).map(label);
        let order: Vec<String> = futures::executor::block_on(visits.collect());
        assert!(
            asked.load(Ordering::Relaxed) > count as u64,
            "none was dropped"
        );
        assert_eq!(order.len(), count);
        assert_eq!(order[1], "small 0");
        assert_eq!(order[count - 1], "79");
        assert_eq!(order[301 + 70], "70");
    }

    #[test]
    fn one_late_block_holds_no_other_up_if_they_may_come_in_any_order() {
        let mut blocks = Blocks::new();
        let leaves: Vec<Cid> = (0..500)
            .map(|at| node(&mut blocks, &at.to_string(), &[]))
            .collect();
        let root = node(&mut blocks, "r", &leaves);
        let options = Options {
            read_ahead: 16,
            order: Order::Arrival,
            ..Options::default()
        };
        let source = Late {
            blocks: Arc::new(blocks),
            late: leaves[0],
            asked: Arc::default(),
        };
        let cid = |visit: Result<Visit, ReadError>| match visit.unwrap() {
            Visit::Block { block, .. } => *block.cid(),
            Visit::Missing { cid, .. } => panic!("{cid} is missing"),
        };
        let visits = walk(source, root, options).map(cid);
        let order: Vec<Cid> = futures::executor::block_on(visits.collect());
        assert_eq!((order[0], order[501 - 1]), (root, leaves[0]));
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 501);
    }

    /// A source that notes what it is asked for; what it does not have it waits for in vain.
    #[derive(Clone)]
    struct Noted {
        blocks: Arc<Blocks>,
        asked: Arc<std::sync::Mutex<Vec<Cid>>>,
    }

    impl BlockSource for Noted {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            self.asked.lock().unwrap().push(*cid);
            match self.blocks.block(cid).await {
                Ok(None) => std::future::pending().await,
                found => found,
            }
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            self.blocks.admits(cid)
        }
    }

    /// Takes `count` steps of a walk and tells what was asked for by then.
    fn asked_for(blocks: Blocks, root: Cid, count: usize, options: Options) -> Vec<Cid> {
        let source = Noted {
            blocks: Arc::new(blocks),
            asked: Arc::default(),
        };
        let asked = Arc::clone(&source.asked);
        let visits = walk(source, root, options).take(count).collect::<Vec<_>>();
        assert_eq!(futures::executor::block_on(visits).len(), count);
        std::mem::take(&mut *asked.lock().unwrap())
    }

    #[test]
    fn what_may_come_in_any_order_is_asked_for_in_that_of_the_links() {
        let mut blocks = Blocks::new();
        let mut leaves = Vec::new();
        let mut nodes = Vec::new();
        for at in 0..8 {
            let below: Vec<Cid> = (0..50)
                .map(|leaf| node(&mut blocks, &format!("{at} {leaf}"), &[]))
                .collect();
            nodes.push(node(&mut blocks, &at.to_string(), &below));
            leaves.extend(below);
        }
        // One that is missing changes nothing of that.
        let first = blocks.remove(&nodes[0]).unwrap();
        let root = node(&mut blocks, "r", &nodes);
        let options = Options {
            read_ahead: 12,
            order: Order::Arrival,
            ..Options::default()
        };
        let count = 1 + 7 + 350;
        let mut asked = asked_for(blocks.clone(), root, count, options);
        asked.retain(|cid| leaves.contains(cid));
        assert_eq!(asked, leaves[50..]);
        blocks.insert(*first.cid(), first);
        let mut asked = asked_for(blocks, root, count + 51, options);
        asked.retain(|cid| leaves.contains(cid));
        assert_eq!(asked, leaves);
    }

    #[test]
    fn a_node_that_comes_late_goes_before_what_follows_it() {
        let mut blocks = Blocks::new();
        let below: Vec<Cid> = (0..9)
            .map(|at| node(&mut blocks, &format!("below {at}"), &[]))
            .collect();
        let first = node(&mut blocks, "first", &below);
        let others: Vec<Cid> = (0..3000)
            .map(|at| node(&mut blocks, &at.to_string(), &[]))
            .collect();
        let second = node(&mut blocks, "second", &others);
        let root = node(&mut blocks, "r", &[first, second]);
        let source = Late {
            blocks: Arc::new(blocks),
            late: first,
            asked: Arc::default(),
        };
        let options = Options {
            read_ahead: 2,
            order: Order::Arrival,
            ..Options::default()
        };
        let cid = |visit: Result<Visit, ReadError>| match visit.unwrap() {
            Visit::Block { block, .. } => *block.cid(),
            Visit::Missing { cid, .. } => panic!("{cid} is missing"),
        };
        // The first takes a thousand turns, each of the others one or two.
        let visits = walk(source, root, options).map(cid);
        let order: Vec<Cid> = futures::executor::block_on(visits.collect());
        let came = order.iter().position(|cid| *cid == first).unwrap();
        assert!(came < order.len() - 20, "it came last: {came}");
        let next: HashSet<&Cid> = order[came + 1..].iter().take(12).collect();
        assert!(below.iter().all(|cid| next.contains(cid)));
    }

    #[test]
    fn wide_nodes_that_come_at_once_are_not_more_than_may_be_pending() {
        let mut blocks = Blocks::new();
        // Nobody has them; every one is named by each of the nodes.
        let names: Vec<Cid> = (0..26_000)
            .map(|at| node(&mut Blocks::new(), &at.to_string(), &[]))
            .collect();
        let wide: Vec<Cid> = (0..80)
            .map(|at| node(&mut blocks, &format!("wide {at}"), &names))
            .collect();
        let root = node(&mut blocks, "r", &wide);
        assert!(80 * 26_000 * names[0].to_bytes().len() > PENDING_BYTES_MAX);
        let options = Options {
            read_ahead: READ_AHEAD_MAX,
            missing: Missing::Tell,
            order: Order::Arrival,
            ..Options::default()
        };
        let visits = walk(Arc::new(blocks), root, options);
        let came = visits.filter_map(|visit| {
            let visit = visit.unwrap();
            futures::future::ready(match visit {
                Visit::Block { block, .. } => Some(*block.cid()),
                Visit::Missing { .. } => None,
            })
        });
        let came: HashSet<Cid> = futures::executor::block_on(came.collect());
        assert_eq!(came.len(), 81);
    }

    #[test]
    fn blocks_in_any_order_come_once_each_and_as_deep_as_their_shortest_way_allows() {
        for read_ahead in [0, 1, 3, 32] {
            let (blocks, root, _) = diamond();
            let options = Options {
                read_ahead,
                order: Order::Arrival,
                ..Options::default()
            };
            let mut steps = run(blocks, root, options);
            steps.sort();
            let labels = labels(steps);
            let names: String = labels.chars().filter(char::is_ascii_alphabetic).collect();
            assert_eq!(names, "abcrxy", "{labels}");
        }
        let mut blocks = Blocks::new();
        let below = node(&mut blocks, "below", &[]);
        let x = node(&mut blocks, "x", &[below]);
        let a = node(&mut blocks, "a", &[x]);
        let root = node(&mut blocks, "r", &[a, x]);
        for read_ahead in [0, 32] {
            let two = Options {
                max_depth: Some(2),
                read_ahead,
                order: Order::Arrival,
                ..Options::default()
            };
            let steps = run(blocks.clone(), root, two);
            assert_eq!(steps.len(), 4, "{steps:?}");
            assert!(steps.contains(&Ok("below2".to_owned())), "{steps:?}");
        }
    }

    #[test]
    fn a_first_place_below_an_earlier_sibling_wins() {
        let mut blocks = Blocks::new();
        let x = node(&mut blocks, "x", &[]);
        let a = node(&mut blocks, "a", &[x]);
        let root = node(&mut blocks, "r", &[a, x]);
        assert_eq!(labels(run(blocks, root, Options::default())), "r0 a1 x2");
    }

    #[test]
    fn a_depth_cuts_and_a_shorter_way_still_counts() {
        let (blocks, root, _) = diamond();
        let shallow = Options {
            max_depth: Some(1),
            ..Options::default()
        };
        assert_eq!(labels(run(blocks, root, shallow)), "r0 a1 b1");

        let mut blocks = Blocks::new();
        let below = node(&mut blocks, "below", &[]);
        let x = node(&mut blocks, "x", &[below]);
        let a = node(&mut blocks, "a", &[x]);
        let root = node(&mut blocks, "r", &[a, x]);
        let two = Options {
            max_depth: Some(2),
            ..Options::default()
        };
        assert_eq!(labels(run(blocks, root, two)), "r0 a1 x2 below2");
    }

    #[test]
    fn a_missing_block_stops_or_is_told() {
        let (mut blocks, root, x) = diamond();
        blocks.remove(&x);
        let stop = run(blocks.clone(), root, Options::default());
        assert_eq!(
            *stop.last().unwrap(),
            Err(ReadError::NotFound(x).to_string())
        );
        let tell = Options {
            missing: Missing::Tell,
            ..Options::default()
        };
        assert_eq!(labels(run(blocks, root, tell)), "r0 a1 missing y2 b1 c2");
    }

    #[test]
    fn one_node_linked_256_times_over_32_levels_ends() {
        let mut blocks = Blocks::new();
        let mut cid = node(&mut blocks, "0", &[]);
        for level in 1..=32 {
            cid = node(&mut blocks, &level.to_string(), &[cid; 256]);
        }
        assert_eq!(run(blocks.clone(), cid, Options::default()).len(), 33);
        let keep = Options {
            repeats: Repeats::Keep,
            budget: Budget {
                blocks: 1000,
                ..Budget::REQUEST
            },
            ..Options::default()
        };
        let steps = run(blocks, cid, keep);
        assert_eq!(steps.len(), 1001);
        assert!(
            steps
                .last()
                .unwrap()
                .as_ref()
                .unwrap_err()
                .contains("1000 blocks")
        );
    }

    #[test]
    fn a_long_chain_ends_at_the_depth_of_the_budget() {
        let mut blocks = Blocks::new();
        let mut cid = node(&mut blocks, "end", &[]);
        for level in 0..300 {
            cid = node(&mut blocks, &level.to_string(), &[cid]);
        }
        let options = Options {
            budget: Budget::REQUEST,
            ..Options::default()
        };
        let steps = run(blocks, cid, options);
        assert_eq!(steps.len(), Budget::REQUEST.depth + 2);
        assert!(steps.last().unwrap().is_err());
    }

    #[test]
    fn a_malformed_block_is_an_error_that_names_it() {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::DAG_PB,
            hash: HashKind::Sha2_256,
        };
        let block = Block::new(prefix, "not a node".into()).unwrap();
        let cid = *block.cid();
        let steps = run(Blocks::from([(cid, block)]), cid, Options::default());
        assert!(steps[0].as_ref().unwrap_err().contains(&cid.to_string()));
    }
}
