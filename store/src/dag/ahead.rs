//! Work under way ahead of whoever wants it, in any order, found again by key.
//!
//! Readers of DAGs start fetches for what they will want next and take them when it is its turn.
//! Nothing is spawned: the work advances while somebody waits in [`Ahead::take`].

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::HashMap;
use std::hash::Hash;

/// Fetches under way and fetches done but not yet taken.
pub(crate) struct Ahead<K, T> {
    running: FuturesUnordered<BoxFuture<'static, (K, T)>>,
    done: HashMap<K, Option<T>>,
}

impl<K: Hash + Eq + Copy + Send + 'static, T: Send + 'static> Ahead<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            running: FuturesUnordered::new(),
            done: HashMap::new(),
        }
    }

    /// How many are under way or waiting to be taken.
    pub(crate) fn len(&self) -> usize {
        self.done.len()
    }

    pub(crate) fn has(&self, key: &K) -> bool {
        self.done.contains_key(key)
    }

    /// Starts `work` unless the same key is under way.
    pub(crate) fn start(&mut self, key: K, work: impl Future<Output = T> + Send + 'static) {
        if self.done.contains_key(&key) {
            return;
        }
        self.done.insert(key, None);
        self.running
            .push(Box::pin(async move { (key, work.await) }));
    }

    /// Waits for whatever is done next; `None` if nothing is under way.
    pub(crate) async fn next(&mut self) -> Option<(K, T)> {
        let (finished, result) = self.running.next().await?;
        self.done.remove(&finished);
        Some((finished, result))
    }

    /// Waits for `key`; `None` if it was never started.
    pub(crate) async fn take(&mut self, key: &K) -> Option<T> {
        loop {
            if self.done.get(key)?.is_some() {
                return self.done.remove(key)?;
            }
            let (finished, result) = self.running.next().await?;
            self.done.insert(finished, Some(result));
        }
    }
}
