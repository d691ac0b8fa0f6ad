//! Writing on another thread: while blocks are written, the next ones are read and hashed.

use crate::block::Block;
use crate::sink::{BlockSink, Placed, PutError};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A sink that hands its blocks to the thread that writes. At most one batch waits: the one that
/// is being handed over.
#[derive(Debug)]
pub struct Handoff {
    batches: SyncSender<Batch>,
    failure: Failure,
}

/// What is handed over at once.
#[derive(Debug)]
enum Batch {
    Blocks(Vec<Block>),
    Placed(Vec<Placed>),
}

type Failure = Arc<Mutex<Option<PutError>>>;

impl BlockSink for Handoff {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        self.hand_over(Batch::Blocks(blocks))
    }

    fn put_placed(&mut self, placed: Vec<Placed>) -> Result<(), PutError> {
        self.hand_over(Batch::Placed(placed))
    }
}

impl Handoff {
    fn hand_over(&self, batch: Batch) -> Result<(), PutError> {
        self.batches.send(batch).map_err(|_| {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.clone().unwrap_or(PutError::Closing)
        })
    }
}

/// Runs `work` with a sink whose blocks another thread puts into `sink`. Once a put has failed,
/// `work` gets the error from its next put. The second answer is the sink's: even if `work` ended
/// well, its last blocks may have failed.
pub fn overlapped<S: BlockSink + Send, R>(
    mut sink: S,
    work: impl FnOnce(Handoff) -> R,
) -> (R, Result<(), PutError>) {
    let failure = Failure::default();
    let (batches, queue) = sync_channel(0);
    let handoff = Handoff {
        batches,
        failure: Arc::clone(&failure),
    };
    let result = std::thread::scope(|scope| {
        scope.spawn(|| drain(queue, &mut sink, &failure));
        work(handoff)
    });
    let failure = failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    (result, failure.map_or(Ok(()), Err))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the queue closes when this ends, and that is how the other side learns of it"
)]
fn drain<S: BlockSink>(queue: Receiver<Batch>, sink: &mut S, failure: &Failure) {
    for batch in &queue {
        let put = match batch {
            Batch::Blocks(blocks) => sink.put(blocks),
            Batch::Placed(placed) => sink.put_placed(placed),
        };
        if let Err(error) = put {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::Cid;
    use std::collections::HashMap;

    fn batch(text: &'static str) -> Vec<Block> {
        let prefix = crate::unixfs::Profile::v1_2025().node_prefix();
        vec![Block::new(prefix, text.into()).unwrap()]
    }

    #[test]
    fn everything_put_has_arrived_at_the_end() {
        let mut blocks: HashMap<Cid, Block> = HashMap::new();
        let (result, written) = overlapped(&mut blocks, |mut sink| {
            sink.put(batch("one"))?;
            sink.put(batch("two"))
        });
        assert!(result.is_ok() && written.is_ok());
        assert_eq!(blocks.len(), 2);
    }

    struct Full;

    impl BlockSink for Full {
        fn put(&mut self, _blocks: Vec<Block>) -> Result<(), PutError> {
            Err(PutError::Full("0 bytes left".into()))
        }
    }

    #[test]
    fn a_failed_put_is_told_to_both_sides() {
        let (result, written) = overlapped(Full, |mut sink| {
            // The first hand-over may succeed: it is the writing that fails.
            let first = sink.put(batch("one"));
            first.and_then(|()| sink.put(batch("two")))
        });
        assert!(matches!(result, Err(PutError::Full(_))));
        assert!(matches!(written, Err(PutError::Full(_))));
    }
}
