//! From foreign bytes to blocks, away from the tasks that read streams.
//!
//! A few jobs share one queue. Each takes what has come meanwhile, since many blocks are hashed
//! much faster together than one after the other, and hands the worker blocks under the names they
//! really have. Whether anybody wanted them is for the worker to say.

use super::message::Payload;
use super::streams::{Room, Unverified, Waiting};
use super::worker::Input;
use bytes::Bytes;
use cairn_store::block::{BLOCK_BYTES_MAX, Prefix};
use cairn_store::{Block, Cid};
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};

/// Blocks of one message, named.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) peer: PeerId,
    pub(super) blocks: Vec<Block>,
    /// What was more than a block may be, and how many bytes.
    pub(super) too_large: Vec<(Cid, u64)>,
    /// Payloads that cannot be hashed.
    pub(super) nonsense: usize,
    pub(super) room: Room,
    pub(super) waiting: Waiting,
}

/// How many jobs hash at once.
pub(super) fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(JOBS_MAX))
}

/// Hashes until there is nothing more to come.
pub(super) async fn run(
    queue: Arc<Mutex<mpsc::Receiver<Unverified>>>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        let Some(batch) = next_batch(&queue).await else {
            return;
        };
        let bytes: usize = batch
            .iter()
            .flat_map(|message| &message.blocks)
            .map(|block| block.data.len())
            .sum();
        let verified = if bytes <= INLINE_BYTES_MAX {
            name(batch)
        } else {
            match tokio::task::spawn_blocking(move || name(batch)).await {
                Ok(verified) => verified,
                Err(error) => {
                    tracing::error!(%error, "hashing failed");
                    continue;
                }
            }
        };
        if inputs.send(Input::Verified(verified)).await.is_err() {
            return;
        }
    }
}

/// What is hashed together: all that has come and, while a whole batch is on its way, what comes within
/// a moment, since half-empty lanes take as long as full ones.
async fn next_batch(queue: &Mutex<mpsc::Receiver<Unverified>>) -> Option<Vec<Unverified>> {
    let mut queue = queue.lock().await;
    let first = queue.recv().await?;
    let (mut blocks, mut expected) = (first.blocks.len(), first.expected);
    let bytes: usize = first.blocks.iter().map(|block| block.data.len()).sum();
    let is_worth_it = bytes >= blocks * GATHERED_BLOCK_BYTES_MIN;
    let mut batch = vec![first];
    let until = Instant::now() + GATHER_TIME_MAX;
    while blocks < BATCH_BLOCKS_MAX && batch.len() < BATCH_MESSAGES_MAX {
        let more = match queue.try_recv() {
            Ok(more) => more,
            Err(_) if is_worth_it && blocks < LANES_FULL && blocks + expected >= LANES_FULL => {
                match timeout_at(until, queue.recv()).await {
                    Ok(Some(more)) => more,
                    Ok(None) | Err(_) => break,
                }
            }
            Err(_) => break,
        };
        blocks += more.blocks.len();
        expected = more.expected;
        batch.push(more);
    }
    Some(batch)
}

/// Payloads that are hashed together, and the message each came in.
struct Kind {
    prefix: Prefix,
    places: Vec<usize>,
    data: Vec<Bytes>,
}

/// Names the blocks of many messages, hashing those of one kind together.
fn name(batch: Vec<Unverified>) -> Vec<Verified> {
    let mut kinds: HashMap<_, Kind> = HashMap::new();
    let mut messages = Vec::with_capacity(batch.len());
    for (at, message) in batch.into_iter().enumerate() {
        let mut too_large = Vec::new();
        let mut nonsense = 0;
        for Payload { prefix, data } in message.blocks {
            if data.len() > BLOCK_BYTES_MAX {
                match prefix.name_of(&data) {
                    Ok(cid) => too_large.push((cid, data.len() as u64)),
                    Err(_) => nonsense += 1,
                }
                continue;
            }
            let kind = (
                prefix.version == cairn_store::cid::Version::V0,
                prefix.codec,
                prefix.hash.code(),
            );
            let kind = kinds.entry(kind).or_insert_with(|| Kind {
                prefix,
                places: Vec::new(),
                data: Vec::new(),
            });
            kind.places.push(at);
            kind.data.push(data);
        }
        messages.push(Verified {
            peer: message.peer,
            blocks: Vec::new(),
            too_large,
            nonsense,
            room: message.room,
            waiting: message.waiting,
        });
    }
    for Kind {
        prefix,
        places,
        data,
    } in kinds.into_values()
    {
        match Block::new_many(prefix, data) {
            Ok(blocks) => {
                for (at, block) in places.into_iter().zip(blocks) {
                    if let Some(message) = messages.get_mut(at) {
                        message.blocks.push(block);
                    }
                }
            }
            Err(_) => {
                for at in places {
                    if let Some(message) = messages.get_mut(at) {
                        message.nonsense += 1;
                    }
                }
            }
        }
    }
    messages
}

/// More jobs would only compete with those who decrypt.
const JOBS_MAX: usize = 4;
/// Blocks hashed together: enough to fill the lanes several times.
const BATCH_BLOCKS_MAX: usize = 64;
const BATCH_MESSAGES_MAX: usize = 64;
/// Blocks that fill the lanes of the widest kernel once.
const LANES_FULL: usize = 16;
/// Smaller blocks are hashed sooner than others come.
const GATHERED_BLOCK_BYTES_MIN: usize = 64 << 10;
/// How long a batch that is on its way is waited for: what 16 MiB take at some 600 MB/s.
const GATHER_TIME_MAX: Duration = Duration::from_millis(25);
/// What is hashed sooner than a thread is found for it.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Messages waiting to be hashed.
pub(super) const QUEUE_MAX: usize = 256;
