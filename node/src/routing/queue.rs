//! What waits to be provided: in order, each once, within bounds.

use cairn_store::Cid;
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A queue that never makes anybody wait to put something in.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Cid>,
    /// The multihashes in `order`: one block is one record, whatever it is called.
    waiting: HashSet<Vec<u8>>,
}

impl Queue {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            max,
        }
    }

    /// Puts `cid` at the end unless it waits already; false if there was no room.
    pub(crate) fn push(&self, cid: Cid) -> bool {
        let mut state = self.lock();
        let key = cid.hash().to_bytes();
        if state.waiting.contains(&key) {
            return true;
        }
        if state.order.len() >= self.max {
            return false;
        }
        state.waiting.insert(key);
        state.order.push_back(cid);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Takes what has waited longest, at most `limit`.
    pub(crate) fn take(&self, limit: usize) -> Vec<Cid> {
        let mut state = self.lock();
        let count = limit.min(state.order.len());
        let taken: Vec<Cid> = state.order.drain(..count).collect();
        for cid in &taken {
            state.waiting.remove(&cid.hash().to_bytes());
        }
        taken
    }

    /// Done when something was put in since the last call.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// There is more than was taken.
    pub(crate) fn more(&self) {
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::cid::{RAW, parse};

    fn cid(text: &str) -> Cid {
        parse(text).unwrap()
    }

    #[test]
    fn each_block_waits_once_and_comes_out_in_order() {
        let queue = Queue::new(2);
        let (first, second) = (cid("bafkqaaa"), cid("bafkqaalb"));
        assert!(queue.push(first));
        assert!(queue.push(second));
        let same_block = Cid::new_v1(RAW + 1, *first.hash());
        assert!(queue.push(same_block), "waits already");
        assert!(!queue.push(cid("bafkqaalc")), "no room");
        assert_eq!(queue.take(1), [first]);
        assert!(queue.push(first), "may wait again");
        assert_eq!(queue.take(9), [second, first]);
        assert!(queue.take(9).is_empty());
    }
}
