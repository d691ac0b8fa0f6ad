//! The latest of many keys: tells what comes late from what was never asked for.

use super::key::Key;
use std::collections::{HashSet, VecDeque};

/// The last `MAX` keys.
#[derive(Debug, Default)]
pub(super) struct Recent<const MAX: usize> {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
}

impl<const MAX: usize> Recent<MAX> {
    /// Remembers a key, and forgets the oldest if there are too many.
    pub(super) fn add(&mut self, key: Key) {
        if self.keys.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    /// Whether a key is among them.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }
}
