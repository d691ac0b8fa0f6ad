//! Store first, then peers; where a foreign block becomes ours. (signatures)

use bytes::Bytes;
use cairn_store::{Block, BlockSource, Cid, SourceError, Store};
use std::ops::Range;
use std::time::Duration;

/// The store and, when online, the peers behind it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exchange {
    store: Store,
}

impl Exchange {
    /// The store alone: what is not there is `None` at once.
    pub fn offline(store: Store) -> Self {
        Self { store }
    }
    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// Whether there is a network behind it.
    pub fn is_online(&self) -> bool {
        todo!()
    }
    /// The same store without its network.
    pub fn local(&self) -> Self {
        Self::offline(self.store.clone())
    }
    /// One piece of work (a request, a pin, a `get`): its blocks come from peers that had the
    /// others. Ends with its last clone; wants that nobody waits for any more are cancelled.
    /// It gives up with `TooSlow` after `idle` without any progress (`None`: as configured).
    pub fn session(&self, _idle: Option<Duration>) -> Session {
        todo!()
    }
}

/// One piece of work. Cheap to clone. Blocks fetched are in the store (cached) when handed over.
#[derive(Debug, Clone)]
pub struct Session {}

impl BlockSource for Session {
    async fn block(&self, _cid: &Cid) -> Result<Option<Block>, SourceError> {
        todo!()
    }
    async fn range(&self, _cid: &Cid, _range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        todo!()
    }
    async fn size(&self, _cid: &Cid) -> Result<Option<u64>, SourceError> {
        todo!()
    }
}
