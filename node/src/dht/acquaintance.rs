//! What the swarm's worker tells the DHT's of peers and of this node's addresses: only the last word on each
//! counts, so nothing is lost however long nobody listens, and nothing grows beyond the peers there are.

use super::table::Group;
use crate::network::Realm;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What is known of a connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is connected, and has not yet said what it speaks.
    Connected,
    /// It said so.
    Met(Met),
    /// It was asked, and did not.
    Silent,
    /// It is not connected any more.
    Gone,
}

/// What a peer said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Met {
    /// Where it answers requests.
    pub(crate) serves: Vec<Realm>,
    /// Where it listens.
    pub(crate) addresses: Vec<Multiaddr>,
    /// The network that its connection comes from, where that matters.
    pub(crate) group: Option<Group>,
}

/// What was told and not yet taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) peers: HashMap<PeerId, Standing>,
    /// Where this node can be reached.
    pub(super) addresses: Option<Vec<Multiaddr>>,
}

/// Both ends. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acquaintance(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    news: Mutex<News>,
    told: Notify,
}

impl Acquaintance {
    /// A peer's standing has changed.
    pub(crate) fn tell(&self, peer: PeerId, standing: Standing) {
        self.news().peers.insert(peer, standing);
        self.0.told.notify_one();
    }

    /// This node can be reached here now.
    pub(crate) fn tell_addresses(&self, addresses: Vec<Multiaddr>) {
        self.news().addresses = Some(addresses);
        self.0.told.notify_one();
    }

    /// Done when something was told since the last call.
    pub(super) async fn told(&self) {
        self.0.told.notified().await;
    }

    /// Takes what was told.
    pub(super) fn take(&self) -> News {
        std::mem::take(&mut *self.news())
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.0.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_last_word_on_a_peer_is_kept_until_it_is_taken() {
        let acquaintance = Acquaintance::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        acquaintance.tell(one, Standing::Connected);
        acquaintance.tell(other, Standing::Connected);
        acquaintance.tell(one, Standing::Gone);
        acquaintance.tell_addresses(Vec::new());
        acquaintance.told().await;
        let news = acquaintance.take();
        assert_eq!(news.peers.len(), 2);
        assert_eq!(news.peers[&one], Standing::Gone);
        assert_eq!(news.addresses, Some(Vec::new()));
        assert_eq!(acquaintance.take(), News::default());
    }
}
