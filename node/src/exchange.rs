//! Store first, then peers: where a foreign block becomes ours.
//!
//! An [`Exchange`] is the store with or without a network behind it; a [`Session`] of it is what
//! readers read from. Bytes from peers were checked and stored before they are handed over here. A block
//! that is damaged on disk counts as absent where peers can be asked: what comes from them takes its place. What a
//! [`Denylist`] names is neither read nor asked for.

use crate::bitswap::{Bitswap, Work};
use crate::denylist::{Denial, Denylist};
use crate::explain::Teller;
use bytes::Bytes;
use cairn_store::dag::path::ContentPath;
use cairn_store::{Block, BlockSource, Cid, SourceError, Store, cid, source};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The store and, when online, the peers behind it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exchange {
    store: Store,
    peers: Option<Online>,
    denylist: Denylist,
}

#[derive(Debug, Clone)]
struct Online {
    bitswap: Bitswap,
    fetch_idle: Duration,
}

impl Exchange {
    /// The store alone: what is not there is `None` at once.
    pub fn offline(store: Store) -> Self {
        Self {
            store,
            peers: None,
            denylist: Denylist::default(),
        }
    }

    /// The store, and peers for what is not there; a fetch gives up `fetch_idle` after its last
    /// progress, unless its session says otherwise.
    pub(crate) fn online(store: Store, bitswap: Bitswap, fetch_idle: Duration) -> Self {
        let peers = Some(Online {
            bitswap,
            fetch_idle,
        });
        Self {
            peers,
            ..Self::offline(store)
        }
    }

    /// The same, without what a denylist names.
    #[must_use]
    pub fn denying(self, denylist: Denylist) -> Self {
        Self { denylist, ..self }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether there is a network behind it.
    pub fn is_online(&self) -> bool {
        self.peers.is_some()
    }

    /// The same store without its network.
    pub fn local(&self) -> Self {
        Self::offline(self.store.clone()).denying(self.denylist.clone())
    }

    /// One piece of work (a request, a pin, a `get`): its blocks come from peers that had the
    /// others. Ends with its last clone; wants that nobody waits for any more are cancelled.
    /// It gives up with `TooSlow` after `idle` without any progress (`None`: as configured); asked
    /// again for the same within `idle` it does so at once, unless somebody came who may have it.
    pub fn session(&self, idle: Option<Duration>) -> Session {
        let peers = self.peers.as_ref().map(|online| {
            let work = online.bitswap.work(idle.unwrap_or(online.fetch_idle));
            (online.bitswap.clone(), work)
        });
        Session {
            store: self.store.clone(),
            peers,
            denylist: self.denylist.clone(),
        }
    }
}

/// One piece of work. Cheap to clone. Blocks fetched are in the store (cached) when handed over, unless
/// that cannot be written.
#[derive(Debug, Clone)]
pub struct Session {
    store: Store,
    peers: Option<(Bitswap, Arc<Work>)>,
    denylist: Denylist,
}

impl Session {
    /// Asks peers for a block that is not in the store, telling what happens meanwhile. `None`
    /// without a network.
    pub async fn fetch_told(
        &self,
        cid: &Cid,
        teller: Teller,
    ) -> Result<Option<Block>, SourceError> {
        self.takes(cid)?;
        match &self.peers {
            Some((bitswap, work)) => bitswap.fetch_told(work, cid, Some(teller)).await.map(Some),
            None => Ok(None),
        }
    }

    /// To be called before all of a DAG is read: where one gateway alone has it, it is asked for the
    /// whole in one request. Fetches the root and waits for no more; nothing else changes for the
    /// reader.
    pub async fn prefetch(&self, root: &Cid) -> Result<(), SourceError> {
        let Some((bitswap, work)) = &self.peers else {
            return Ok(());
        };
        if self.denylist.has_rules() {
            // The whole may have something in it that is not wanted; one by one they are asked about.
            return Ok(());
        }
        if let Some(root) = self.block(root).await? {
            bitswap.prefetch(work, root).await;
        }
        Ok(())
    }

    /// What is waited for just now, and what was tried for it, in words; `None` if nothing is.
    pub async fn waits_for(&self) -> Option<String> {
        let (bitswap, work) = self.peers.as_ref()?;
        bitswap.waits_for(work).await
    }

    /// Whether a path may be followed here.
    pub fn admits_path(&self, path: &ContentPath) -> Result<(), Denial> {
        self.denylist.check_path(&path.clone().into())
    }

    /// Whether a CID is one that is read here.
    fn takes(&self, cid: &Cid) -> Result<(), SourceError> {
        cid::check(cid)?;
        Ok(self.denylist.check_block(cid)?)
    }

    /// What the store has; else, if peers can be asked, what they have.
    async fn or_fetch<T>(
        &self,
        cid: &Cid,
        stored: Result<Option<T>, SourceError>,
        from_block: impl FnOnce(Block) -> T,
    ) -> Result<Option<T>, SourceError> {
        let Some((bitswap, work)) = &self.peers else {
            return stored;
        };
        // What became of the user's file is what to tell, and the way there is not for everybody who asked: whoever
        // tells it on decides that by the error's kind.
        let elsewhere = match &stored {
            Err(error @ SourceError::Elsewhere { .. }) => Some(error.clone()),
            _ => None,
        };
        let damaged = matches!(stored, Err(SourceError::Damaged { .. }));
        if !damaged
            && elsewhere.is_none()
            && let Some(found) = stored?
        {
            return Ok(Some(found));
        }
        let fetched = bitswap
            .fetch(work, cid)
            .await
            .map_err(|error| match (error, elsewhere) {
                // Or an operator would look for the fault with the peers.
                (SourceError::TooSlow { .. }, Some(elsewhere)) => elsewhere,
                (
                    SourceError::TooSlow {
                        cid,
                        tried,
                        is_anywhere,
                    },
                    None,
                ) if damaged => SourceError::TooSlow {
                    cid,
                    tried: format!("it is damaged on disk, and {tried}").into(),
                    is_anywhere,
                },
                (error, _) => error,
            });
        Ok(Some(from_block(fetched?)))
    }
}

impl BlockSource for Session {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.takes(cid)?;
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        let stored = self.store.block(cid).await;
        self.or_fetch(cid, stored, |block| block).await
    }

    async fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        self.takes(cid)?;
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(source::cut(block.data(), &range)));
        }
        let stored = self.store.range(cid, range.clone()).await;
        let cut = |block: Block| source::cut(block.data(), &range);
        self.or_fetch(cid, stored, cut).await
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        self.takes(cid)?;
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block.data().len() as u64));
        }
        let stored = self.store.size(cid).await;
        let size = |block: Block| block.data().len() as u64;
        self.or_fetch(cid, stored, size).await
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.takes(cid)
    }
}
