//! From foreign bytes to blocks, away from the tasks that read streams.
//!
//! A few jobs share one queue. Each takes what has come meanwhile, since many blocks are hashed
//! much faster together than one after the other, and hands the worker blocks under the names they
//! really have. Whether anybody wanted them is for the worker to say.

use super::message::Payload;
use super::streams::{Room, Unverified};
use super::worker::Input;
use bytes::Bytes;
use cairn_store::Block;
use cairn_store::block::Prefix;
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};

/// Blocks of one message, named.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) peer: PeerId,
    pub(super) blocks: Vec<Block>,
    /// Payloads that cannot be hashed.
    pub(super) nonsense: usize,
    pub(super) room: Room,
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

async fn next_batch(queue: &Mutex<mpsc::Receiver<Unverified>>) -> Option<Vec<Unverified>> {
    let mut queue = queue.lock().await;
    let mut batch = vec![queue.recv().await?];
    let mut blocks = 0;
    while blocks < BATCH_BLOCKS_MAX && batch.len() < BATCH_MESSAGES_MAX {
        let Ok(more) = queue.try_recv() else {
            break;
        };
        blocks += more.blocks.len();
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
        for Payload { prefix, data } in message.blocks {
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
            nonsense: 0,
            room: message.room,
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
/// What is hashed sooner than a thread is found for it.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Messages waiting to be hashed.
pub(super) const QUEUE_MAX: usize = 256;
