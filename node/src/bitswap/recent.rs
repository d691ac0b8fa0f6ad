//! The latest of many keys: tells what comes late from what was never asked for.

use super::key::Key;
use std::collections::{HashMap, VecDeque};

/// The last `MAX` keys, each with something about it.
#[derive(Debug)]
pub(super) struct Recent<const MAX: usize, V = ()> {
    keys: HashMap<Key, V>,
    order: VecDeque<Key>,
}

// Derived, it would ask for a default of what is remembered.
impl<const MAX: usize, V> Default for Recent<MAX, V> {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<const MAX: usize, V> Recent<MAX, V> {
    /// Remembers a key, and forgets the oldest if there are too many.
    pub(super) fn add(&mut self, key: Key, about: V) {
        if self.keys.insert(key.clone(), about).is_none() {
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
        self.keys.contains_key(key)
    }

    /// What was remembered about it.
    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.keys.get(key)
    }
}
