//! Keeps cached blocks below `storage.cache_max`: evicts whenever the store says that they have outgrown
//! it, and once at the start, since the limit may be a new one.

use super::Job;
use crate::event::Event;
use cairn_store::Store;
use std::time::Duration;
use tokio::sync::broadcast;

/// The job.
pub(crate) struct Evict {
    store: Store,
    events: broadcast::Sender<Event>,
    /// How often in a row the store asked and there was nothing to evict.
    in_vain: u32,
    /// How long to leave the store alone before the next look.
    rest: Option<Duration>,
}

impl Evict {
    pub(crate) fn new(store: Store, events: broadcast::Sender<Event>) -> Self {
        Self {
            store,
            events,
            in_vain: 0,
            rest: None,
        }
    }
}

impl Job for Evict {
    const NAME: &'static str = "evict";

    async fn work(&mut self) {
        self.rest = match self.store.evict().await {
            Ok(evicted) if evicted.blocks > 0 || evicted.bytes > 0 => {
                self.in_vain = 0;
                tracing::debug!(blocks = evicted.blocks, bytes = evicted.bytes, "evicted");
                // Nobody has to listen.
                let _ = self.events.send(Event::Evicted {
                    blocks: evicted.blocks,
                });
                None
            }
            // Once, it was asked while the last eviction was under way. Again, somebody holds all of it,
            // and every further block would ask in vain.
            Ok(_) => (self.in_vain > 1).then_some(HELD_REST),
            Err(error) => {
                tracing::error!(%error, "cached blocks were not evicted");
                Some(FAILURE_REST)
            }
        };
    }

    async fn wait(&mut self) {
        match self.rest {
            Some(rest) => tokio::time::sleep(rest).await,
            None => {
                self.store.cache_full().await;
                self.in_vain += 1;
            }
        }
    }
}

/// How long to wait when there was nothing to evict although the cache is full.
const HELD_REST: Duration = Duration::from_secs(10);
/// How long to wait after the disk refused.
const FAILURE_REST: Duration = Duration::from_secs(60);
