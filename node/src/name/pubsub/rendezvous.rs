//! Where those who follow a name meet: provider records in the DHT, of a CID that is made of the topic.
//!
//! As go-libp2p-pubsub looks for peers, and with it Kubo. Whoever follows a name tells the DHT so and connects to a few
//! of those who did before; what they say comes over gossipsub then, as of everybody who is connected.

use crate::routing::Routing;
use crate::swarm::Peers;
use crate::tasks::Tasks;
use cairn_store::Cid;
use cairn_store::cid::{HashKind, RAW};
use cairn_store::hash::digest;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The way to others who follow a name.
#[derive(Debug)]
pub(super) struct Rendezvous {
    routing: Routing,
    peers: Peers,
    places: Arc<Semaphore>,
    tasks: Tasks,
}

impl Rendezvous {
    pub(super) fn new((routing, peers): (Routing, Peers), tasks: &Tasks) -> Self {
        Self {
            routing,
            peers,
            places: Arc::new(Semaphore::new(VISITS_MAX)),
            tasks: tasks.clone(),
        }
    }

    /// Connects to some who are on a topic, and has others find us there; false if too much of that is under way.
    pub(super) fn visit(&self, topic: &str) -> bool {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return false;
        };
        let Some(cid) = cid(topic) else {
            return true;
        };
        let (routing, peers) = (self.routing.clone(), self.peers.clone());
        let stopping = self.tasks.stopping();
        self.tasks.spawn("those who follow a name", async move {
            let visit = async {
                // First of all: of two who come at once the later then finds the other.
                if let Err(error) = routing.provide(cid).await {
                    tracing::debug!(%error, "nobody was told that a name is followed here");
                }
                let mut found = std::pin::pin!(routing.find_providers(cid, MET_MAX));
                while let Some(found) = found.next().await {
                    let Ok(provider) = found else {
                        continue;
                    };
                    if provider.peer != peers.local() {
                        let dialled = peers.dial(provider.peer, provider.addresses);
                        if let Ok(Err(error)) = timeout(DIAL_TIME_MAX, dialled).await {
                            tracing::debug!(peer = %provider.peer, %error, "follows a name and is out of reach");
                        }
                    }
                }
            };
            let visit = timeout(VISIT_TIME_MAX, visit);
            // Whatever was not done in time is done the next time.
            let _ = stopping.run_until_cancelled(visit).await;
            drop(place);
        });
        true
    }
}

/// What those on a topic provide.
pub(super) fn cid(topic: &str) -> Option<Cid> {
    let hash = digest(HashKind::Sha2_256, [SPACE, topic].concat().as_bytes());
    Some(Cid::new_v1(RAW, hash.ok()?))
}

/// What go-libp2p-pubsub puts before a topic.
const SPACE: &str = "floodsub:";
/// Names for which peers are looked for at once.
const VISITS_MAX: usize = 4;
/// Peers that are connected to for one name.
const MET_MAX: usize = 8;
/// How long one of them is waited for.
const DIAL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long all of it may take.
const VISIT_TIME_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_topic_is_gos() {
        // printf floodsub:/record/AA | sha256sum
        let digest = "77d6ce83a534ddac73671d00100b3be5863adb856f9062b26b136a1124dc5b04";
        let cid = cid("/record/AA").unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(cid.hash().digest()), digest);
        assert_eq!((cid.codec(), cid.hash().code()), (RAW, 0x12));
    }
}
