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

#[cfg(test)]
mod tests {
    use super::super::seeds;
    use super::super::streams::{Holds, Intake, Sinks, take_room};
    use super::*;
    use crate::Limits;
    use crate::throttle::Throttle;
    use cairn_store::cid::{HashKind, RAW, Version};
    use rand::Rng;
    use std::collections::VecDeque;
    use tokio::runtime::Builder;
    use tokio::time::sleep;

    const LARGE: usize = GATHERED_BLOCK_BYTES_MIN;

    struct Bench {
        intake: Intake,
        sinks: Sinks,
        sender: mpsc::Sender<Unverified>,
        queue: Mutex<mpsc::Receiver<Unverified>>,
    }

    impl Bench {
        fn new() -> Self {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            let (inputs, _) = mpsc::channel(1);
            let throttle = Throttle::new(Limits::default(), &prometheus::Registry::new());
            Self {
                intake: Intake::new(seeds::peer(1), throttle.unwrap().gate()),
                sinks: Sinks::new(inputs, sender.clone(), Holds::unseen()),
                sender,
                queue: Mutex::new(queue),
            }
        }

        /// One message comes, and so many blocks are wanted after it.
        async fn comes(&self, blocks: usize, bytes: usize, expected: usize) {
            let prefix = Prefix {
                version: Version::V1,
                codec: RAW,
                hash: HashKind::Sha2_256,
            };
            let data = Bytes::from(vec![0; bytes]);
            let unverified = Unverified {
                peer: seeds::peer(1),
                blocks: vec![Payload { prefix, data }; blocks],
                expected,
                room: take_room(0, &self.intake, &self.sinks).await.unwrap(),
                waiting: self.intake.waits(),
            };
            self.sender.try_send(unverified).unwrap();
        }

        /// Blocks of each message that is hashed together, and how long that was waited for.
        async fn batch(&self) -> (Vec<usize>, Duration) {
            let start = Instant::now();
            let batch = next_batch(&self.queue).await.unwrap();
            let blocks = batch.iter().map(|message| message.blocks.len());
            (blocks.collect(), start.elapsed())
        }

        /// What is hashed together if one message comes now and others later, each so long after the one
        /// before.
        async fn gathers(
            &self,
            bytes: usize,
            expected: usize,
            pause: Duration,
        ) -> (usize, Duration) {
            self.comes(1, bytes, expected).await;
            let others = async {
                for later in 1..=expected {
                    sleep(pause).await;
                    self.comes(1, bytes, expected - later).await;
                }
            };
            let ((blocks, waited), ()) = tokio::join!(self.batch(), others);
            (blocks.len(), waited)
        }
    }

    #[test]
    fn what_is_hashed_together_is_all_that_came_up_to_a_bound() {
        seeds::each(64, |mut random| {
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let bench = Bench::new();
                let most = if random.random() { 2 } else { BATCH_BLOCKS_MAX };
                let mut left = VecDeque::new();
                for _ in 0..random.random_range(1..QUEUE_MAX) {
                    let blocks = random.random_range(0..=most);
                    bench.comes(blocks, 1, 0).await;
                    left.push_back(blocks);
                }
                while !left.is_empty() {
                    let (batch, _) = bench.batch().await;
                    let come: Vec<usize> = left.drain(..batch.len()).collect();
                    assert_eq!(batch, come);
                    let blocks: usize = batch.iter().sum();
                    let last = batch.last().unwrap();
                    assert!(batch.len() <= BATCH_MESSAGES_MAX && blocks - last < BATCH_BLOCKS_MAX);
                    let is_full = batch.len() == BATCH_MESSAGES_MAX || blocks >= BATCH_BLOCKS_MAX;
                    assert!(is_full || left.is_empty(), "{batch:?}");
                }
            });
        });
    }

    #[tokio::test(start_paused = true)]
    async fn large_blocks_on_their_way_are_waited_for_until_the_lanes_are_full() {
        let pause = Duration::from_millis(1);
        let gathered = Bench::new().gathers(LARGE, LANES_FULL * 2, pause).await;
        let others = u32::try_from(LANES_FULL - 1).unwrap();
        assert_eq!(gathered, (LANES_FULL, pause * others));
        // The last of them fill the lanes just so.
        let gathered = Bench::new().gathers(LARGE, LANES_FULL - 1, pause).await;
        assert_eq!(gathered, (LANES_FULL, pause * others));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_small_blocks_nor_for_too_few() {
        let pause = Duration::from_millis(1);
        for (bytes, expected) in [(LARGE - 1, LANES_FULL * 2), (LARGE, LANES_FULL - 2)] {
            let gathered = Bench::new().gathers(bytes, expected, pause).await;
            assert_eq!(gathered, (1, Duration::ZERO), "{bytes} {expected}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_that_come_slowly_are_waited_for_once_and_not_each_anew() {
        let pause = GATHER_TIME_MAX * 2 / 5;
        let gathered = Bench::new().gathers(LARGE, LANES_FULL, pause).await;
        assert_eq!(gathered, (3, GATHER_TIME_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_is_hashed_when_nothing_more_can_come() {
        let bench = Bench::new();
        bench.comes(1, LARGE, LANES_FULL).await;
        bench.queue.lock().await.close();
        assert_eq!(bench.batch().await, (vec![1], Duration::ZERO));
        assert!(next_batch(&bench.queue).await.is_none());
    }
}
