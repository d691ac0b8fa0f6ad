//! A whole DAG from one gateway in one answer: `?format=car&dag-scope=all`.
//!
//! It saves a question a block, where a gateway has everything and nobody else has anything. The
//! answer is not trusted with more than a single block's would be: every block is hashed, and only
//! what the root leads to is taken, link by link; a few foreign bytes are borne, more end it. A
//! thread reads and hashes; what it finds goes into the store and from there to whoever waits. What
//! is missing from the answer is asked for block by block afterwards, from anybody.

use super::metrics::Metrics;
use super::request::{Outcome, target};
use crate::bitswap::key::Key;
use crate::bitswap::session::SessionId;
use crate::bitswap::worker::Input;
use crate::bitswap::{Blocks, Work};
use crate::http::{self, Failure, Pool, Refusal, judge, send};
use bytes::Bytes;
use cairn_store::block::BLOCK_BYTES_MAX;
use cairn_store::car::read::CarReader;
use cairn_store::cid::is_identity;
use cairn_store::dag::links;
use cairn_store::{Block, Cid};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use libp2p::PeerId;
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// A CAR to be fetched.
#[derive(Debug)]
pub(in crate::bitswap) struct CarFetch<B> {
    pub(in crate::bitswap) pool: Arc<Pool>,
    pub(in crate::bitswap) source: PeerId,
    pub(in crate::bitswap) session: SessionId,
    /// Whoever wants it; gone, nobody does.
    pub(in crate::bitswap) work: Weak<Work>,
    pub(in crate::bitswap) root: Block,
    pub(in crate::bitswap) blocks: B,
    pub(in crate::bitswap) inputs: mpsc::Sender<Input>,
    pub(in crate::bitswap) metrics: Metrics,
}

/// What it tells the worker.
#[derive(Debug)]
pub(in crate::bitswap) enum CarNews {
    /// These are in the store now.
    Arrived(Vec<Block>),
    Over(End),
}

/// How a CAR ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bitswap) enum End {
    /// Read to its end, or nobody waits for it any more.
    Done,
    /// The gateway gives no CARs.
    Refused,
    /// It broke off.
    Failed,
    /// It held what is not what it says, or more than is borne of what nobody asked for.
    Wrong,
}

impl<B: Blocks> CarFetch<B> {
    /// Fetches it.
    pub(in crate::bitswap) async fn run(self) {
        let end = self.fetch().await;
        tracing::debug!(gateway = ?self.pool, root = %self.root.cid(), ?end, "CAR");
        self.tell(CarNews::Over(end)).await;
    }

    async fn tell(&self, news: CarNews) -> bool {
        let (session, source) = (self.session, self.source);
        let input = Input::Car {
            session,
            source,
            news,
        };
        self.inputs.send(input).await.is_ok()
    }

    async fn fetch(&self) -> End {
        let first: Vec<Cid> = match links(&self.root) {
            Ok(links) => links.iter().map(|link| link.cid).take(LOOKED_FOR).collect(),
            Err(_) => return End::Done,
        };
        if first.is_empty() {
            return End::Done;
        }
        // Somebody who has parts of it is better off asking for the rest.
        for cid in &first {
            if self.blocks.size(cid).await.is_some() {
                return End::Done;
            }
        }
        let body = match self.ask().await {
            Ok(body) => body,
            Err(refusal) => {
                let outcome = Outcome::from(refusal);
                self.metrics.count(&outcome);
                return match outcome {
                    Outcome::Absent => End::Refused,
                    _ => End::Failed,
                };
            }
        };
        let (pieces, eaten) = mpsc::channel(PIECES_MAX);
        let (found, batches) = mpsc::channel(1);
        let input = Pieces {
            inbox: eaten,
            piece: Bytes::new(),
        };
        let root = self.root.clone();
        let read = move || take(input, &root, &found);
        let reading = self.pool.tasks().blocking("http car", read);
        let (end, fed, ()) = tokio::join!(reading, self.feed(body, pieces), self.keep(batches));
        let end = match (end, fed) {
            (Some(End::Done), Err(_)) | (None, _) => End::Failed,
            (Some(end), _) => end,
        };
        self.metrics.count(&match (end, fed) {
            (End::Done, _) => Outcome::Delivered,
            (_, Err(failure)) => Outcome::Failed(failure),
            _ => Outcome::Failed(Failure::Broken),
        });
        end
    }

    async fn ask(&self) -> Result<Incoming, Refusal> {
        let rest = target(self.root.cid(), "car&dag-scope=all");
        let make = || {
            http::get(self.pool.endpoint(), &rest, ACCEPT)
                .body(http::Body::default())
                .map_err(|_| Failure::Broken)
        };
        let (_, response) = send(&self.pool, make, self.pool.times.head).await?;
        judge(response.status(), response.headers())?;
        Ok(response.into_body())
    }

    /// Hands the body on as it comes, as long as it comes at a pace worth waiting for.
    async fn feed(&self, mut body: Incoming, pieces: mpsc::Sender<Bytes>) -> Result<(), Failure> {
        let idle = self.pool.times.body_idle;
        let (mut waited, mut came) = (Duration::ZERO, 0);
        loop {
            let begun = Instant::now();
            let frame = timeout(idle, body.frame()).await;
            let Some(frame) = frame.map_err(|_| Failure::TooSlow)? else {
                return Ok(());
            };
            let Ok(piece) = frame.map_err(|_| Failure::Broken)?.into_data() else {
                continue;
            };
            self.metrics.bytes.inc_by(piece.len() as u64);
            // Only their time counts, not what the disk and our own limits take.
            waited += begun.elapsed();
            came += piece.len();
            if waited > idle {
                if came < BYTES_A_PAUSE {
                    return Err(Failure::TooSlow);
                }
                (waited, came) = (Duration::ZERO, 0);
            }
            self.pool.pay(piece.len()).await;
            if pieces.send(piece).await.is_err() {
                return Ok(()); // The reader knows why it has had enough.
            }
        }
    }

    /// Puts what was found into the store and tells of it.
    async fn keep(&self, mut batches: mpsc::Receiver<Vec<Block>>) {
        while let Some(batch) = batches.recv().await {
            if self.work.strong_count() == 0 {
                return;
            }
            if let Err(error) = self.blocks.put(batch.clone()).await {
                tracing::error!(%error, "fetched blocks could not be stored");
                return;
            }
            if !self.tell(CarNews::Arrived(batch)).await {
                return;
            }
        }
    }
}

/// Reads a CAR and gives on what the root leads to.
fn take(input: impl Read, root: &Block, found: &mpsc::Sender<Vec<Block>>) -> End {
    let Ok(mut car) = CarReader::new(input) else {
        return End::Failed;
    };
    let mut reached = Reached::default();
    reached.follow(root);
    let ours = Key::content(root.cid());
    let mut foreign = 0;
    loop {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut is_last = false;
        while batch.len() < BATCH_BLOCKS_MAX && bytes < BATCH_BYTES_MAX {
            match car.next() {
                Some(Ok((cid, data))) => {
                    bytes += data.len();
                    batch.push((cid, data));
                }
                // What came before is worth having even if it was cut there.
                Some(Err(_)) | None => {
                    is_last = true;
                    break;
                }
            }
        }
        let mut wanted = Vec::with_capacity(batch.len());
        let mut is_wrong = false;
        for block in Block::verify_many(batch) {
            let Ok(block) = block else {
                is_wrong = true;
                break;
            };
            let key = Key::content(block.cid());
            if is_identity(block.cid()) || key == ours {
                continue; // Others put them in; they are here already.
            }
            if reached.waiting.remove(&key) {
                reached.follow(&block);
                wanted.push(block);
            } else {
                foreign += block.data().len() + SECTION_BYTES;
            }
        }
        if !wanted.is_empty() && found.blocking_send(wanted).is_err() {
            return End::Done;
        }
        if is_wrong || foreign > FOREIGN_BYTES_MAX {
            return End::Wrong;
        }
        if reached.is_full() {
            return End::Failed;
        }
        if is_last {
            return match reached.waiting.is_empty() {
                true => End::Done,
                false => End::Failed,
            };
        }
    }
}

/// What the blocks so far lead to and has not come.
#[derive(Default)]
struct Reached {
    waiting: HashSet<Key>,
    /// What came or was waited for once: a block that several lead to comes once.
    seen: HashSet<Key>,
}

impl Reached {
    fn follow(&mut self, block: &Block) {
        // What cannot be decoded is for whoever walks to complain about.
        for link in links(block).unwrap_or_default() {
            let key = Key::content(&link.cid);
            if !is_identity(&link.cid) && self.seen.insert(key.clone()) {
                self.waiting.insert(key);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.seen.len() > REACHED_MAX
    }
}

/// A body as it comes, to be read by a thread.
struct Pieces {
    inbox: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.inbox.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        let front = self.piece.split_to(count);
        if let Some(into) = into.get_mut(..count) {
            into.copy_from_slice(&front);
        }
        Ok(count)
    }
}

const ACCEPT: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
/// Links of the root that must all be absent from the store for its whole DAG to be asked for.
const LOOKED_FOR: usize = 4;
/// Pieces of a body between the connection and the thread that reads.
const PIECES_MAX: usize = 16;
/// What is hashed and stored together: not more than a slow line brings in about a second.
const BATCH_BLOCKS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of blocks that nothing leads to until a CAR is dropped.
const FOREIGN_BYTES_MAX: usize = 2 * BLOCK_BYTES_MAX;
/// What an empty foreign block counts.
const SECTION_BYTES: usize = 64;
/// Blocks of one CAR. Each costs some 100 bytes while it is read; larger DAGs go on block by block.
const REACHED_MAX: usize = 1 << 20;
/// Bytes that must come within the longest pause.
const BYTES_A_PAUSE: usize = 32 << 10;

#[cfg(test)]
pub(in crate::bitswap) mod tests {
    use super::*;
    use cairn_store::block::Prefix;
    use cairn_store::car::write;
    use cairn_store::cid::{self, HashKind};
    use std::io::Cursor;

    fn block(codec: u64, data: Vec<u8>) -> Block {
        let prefix = Prefix {
            version: cid::Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, data.into()).unwrap()
    }

    /// A block that leads to others.
    pub(in crate::bitswap) fn parent(children: &[Block]) -> Block {
        let count = u16::try_from(children.len()).unwrap().to_be_bytes();
        let mut data = vec![0x99, count[0], count[1]];
        for child in children {
            let cid = child.cid().to_bytes();
            let length = u8::try_from(cid.len() + 1).unwrap();
            data.extend([0xd8, 42, 0x58, length, 0]);
            data.extend(cid);
        }
        block(cid::DAG_CBOR, data)
    }

    pub(in crate::bitswap) fn car<'a>(
        root: &Block,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Vec<u8> {
        let mut out = write::header(&[*root.cid()]).to_vec();
        for block in blocks {
            out.extend(write::section_prefix(block));
            out.extend(block.data());
        }
        out
    }

    fn leaves(count: u8, bytes: usize) -> Vec<Block> {
        let leaf = |number| block(cid::RAW, vec![number; bytes]);
        (0..count).map(leaf).collect()
    }

    fn taken(bytes: Vec<u8>, root: &Block) -> (End, Vec<Block>) {
        let (found, mut batches) = mpsc::channel(1000);
        let end = take(Cursor::new(bytes), root, &found);
        let all = std::iter::from_fn(|| batches.try_recv().ok());
        (end, all.flatten().collect())
    }

    #[test]
    fn what_the_root_leads_to_is_taken_and_the_rest_is_not() {
        let (mine, foreign) = (leaves(150, 100), leaves(200, 50));
        let middle = parent(&mine[100..]);
        let root = parent(&[&mine[..100], std::slice::from_ref(&middle)].concat());
        let mut order: Vec<&Block> = vec![&root, &foreign[0]];
        order.extend(&mine[..100]);
        order.extend([&foreign[1], &middle, &mine[3]]);
        order.extend(&mine[100..]);
        let (end, blocks) = taken(car(&root, order), &root);
        assert_eq!(end, End::Done);
        let mut wanted = mine.clone();
        wanted.insert(100, middle);
        assert_eq!(blocks, wanted);
    }

    #[test]
    fn a_child_before_its_parent_is_foreign_and_the_dag_is_not_whole() {
        let mine = leaves(2, 10);
        let middle = parent(&mine);
        let root = parent(std::slice::from_ref(&middle));
        let order = [&mine[0], &middle, &mine[1]];
        let (end, blocks) = taken(car(&root, order), &root);
        assert_eq!((end, blocks), (End::Failed, vec![middle, mine[1].clone()]));
    }

    #[test]
    fn many_foreign_bytes_end_it() {
        let mine = leaves(3, 10);
        let root = parent(&mine);
        let foreign = leaves(5, 1 << 20);
        let order = mine[..2].iter().chain(&foreign).chain(&mine[2..]);
        let (end, blocks) = taken(car(&root, order), &root);
        assert_eq!((end, blocks), (End::Wrong, mine[..2].to_vec()));
    }

    #[test]
    fn a_block_that_is_not_what_it_says_ends_it_and_what_came_before_is_kept() {
        let mine = leaves(3, 1000);
        let root = parent(&mine);
        let mut bytes = car(&root, &mine);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let (end, blocks) = taken(bytes, &root);
        assert_eq!((end, blocks), (End::Wrong, mine[..2].to_vec()));
    }

    #[test]
    fn a_car_that_is_cut_gives_what_it_had() {
        let mine = leaves(3, 1000);
        let root = parent(&mine);
        let mut bytes = car(&root, &mine);
        bytes.truncate(bytes.len() - 10);
        assert_eq!(taken(bytes, &root), (End::Failed, mine[..2].to_vec()));
        assert_eq!(taken(b"<html>".to_vec(), &root), (End::Failed, vec![]));
    }
}
