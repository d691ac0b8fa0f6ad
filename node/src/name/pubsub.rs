//! IPNS over gossipsub: who follows a name hears of its new records from others who do, as Kubo's `Ipns.UsePubsub`.
//!
//! ```text
//! resolve ─► its topic is entered ─► who is on it is asked for the newest record (`fetch.rs`)
//! publish ─► its topic is entered ─► all who are on it are told; those who come later as well, and all now and then
//! a message ─► no record of the name: rejected; not newer than what is known: ignored; newer: taken in, passed on
//! ```
//!
//! A topic is a name's, so anybody who speaks gossipsub with us sees which names are followed here. Nothing is passed on
//! that is not valid and newer than what was, so what hostile peers say ends where it arrives.
//!
//! Others who follow a name are found through the DHT (`rendezvous.rs`).
//!
//! [`Pubsub`] is the handle. `behaviour.rs` is the part in the swarm, `gossip.rs` its settings, `topics.rs` decides
//! what is followed and when it is told again, `worker.rs` does it. Records are kept where all are (`cache.rs`).

mod allowance;
pub(crate) mod behaviour;
pub(crate) mod fetch;
pub(crate) mod gossip;
mod metrics;
mod rendezvous;
mod topic;
mod topics;
mod worker;

#[cfg(test)]
mod tests;

use super::Names;
use crate::event::Event;
use crate::ipns::Record;
use crate::perf::{self, Answers};
use crate::routing::Routing;
use crate::swarm::Peers;
use crate::tasks::Tasks;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use metrics::Metrics;
use prometheus::Registry;
use rendezvous::Rendezvous;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{broadcast, mpsc, oneshot};
use topics::Topics;
use worker::Worker;

/// A handle on what is followed over gossipsub. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pubsub {
    commands: mpsc::Sender<Command>,
    topics: Shared,
}

/// What the worker may be asked for.
#[derive(Debug)]
enum Command {
    /// Somebody asks for a name. `found` is dropped when it is known what those on its topic know.
    Follow {
        name: PeerId,
        found: Option<oneshot::Sender<()>>,
    },
    /// A record of this node is to be told.
    Publish { name: PeerId, record: Record },
    /// A name is not to be followed any more; whether it was.
    Cancel {
        name: PeerId,
        reply: oneshot::Sender<bool>,
    },
}

/// The names that are followed, for all who look.
#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Topics>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of it the swarm holds.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) gossip: behaviour::Behaviour,
    pub(crate) fetch: perf::Behaviour,
}

/// The other ends.
#[derive(Debug)]
pub(crate) struct Wires {
    gossip: behaviour::Wire,
    fetch: perf::Wire,
}

/// Makes both.
pub(crate) fn pair(keys: &Keypair) -> Result<(Spoken, Wires), String> {
    let (gossip, gossip_wire) = behaviour::pair(keys)?;
    let (fetch, fetch_wire) = fetch::pair(Answers::Yes);
    let wires = Wires {
        gossip: gossip_wire,
        fetch: fetch_wire,
    };
    Ok((Spoken { gossip, fetch }, wires))
}

impl Pubsub {
    /// Starts to follow names, and tells `names` of itself.
    pub(crate) fn start(
        wires: Wires,
        names: &Names,
        network: (Routing, Peers),
        events: &broadcast::Sender<Event>,
        tasks: &Tasks,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::register(registry)?;
        let topics = Shared(Arc::new(Mutex::new(Topics::new(Instant::now()))));
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let this = Self {
            commands,
            topics: topics.clone(),
        };
        names.follow_over(this.clone());
        let Wires { gossip, fetch } = wires;
        let (questions, asking) = (fetch.arrived, fetch.orders);
        worker::answer_questions(questions, names, &topics, &metrics, tasks);
        let known = (names.clone(), topics, events.clone());
        let ways = (asking, Rendezvous::new(network, tasks));
        let worker = Worker::new(gossip, inbox, known, ways, metrics, tasks);
        tasks.spawn("names over gossipsub", worker.run());
        Ok(this)
    }

    /// The names that are followed, those asked for last first.
    pub fn followed(&self) -> Vec<PeerId> {
        self.topics.lock().names()
    }

    /// Ends following a name, until somebody asks for it again; whether it was followed.
    pub async fn cancel(&self, name: PeerId) -> bool {
        let (reply, was_followed) = oneshot::channel();
        let asked = self.commands.send(Command::Cancel { name, reply }).await;
        asked.is_ok() && was_followed.await.unwrap_or(false)
    }

    /// Somebody asks for a name. While more is to be done than can wait, it is left to the next time.
    pub(super) fn follow(&self, name: PeerId) {
        let _ = self
            .commands
            .try_send(Command::Follow { name, found: None });
    }

    /// The same, and waits until it is known whether those on its topic have a record, which has been taken in then.
    pub(super) async fn find(&self, name: PeerId) {
        let (found, is_known) = oneshot::channel();
        let found = Some(found);
        if self
            .commands
            .send(Command::Follow { name, found })
            .await
            .is_ok()
        {
            // It is never sent, only dropped.
            let _ = is_known.await;
        }
    }

    /// Has all who are on a name's topic told of a record of this node.
    pub(super) async fn publish(&self, name: PeerId, record: Record) {
        // Without a worker the node is stopping.
        let _ = self.commands.send(Command::Publish { name, record }).await;
    }
}

/// What may be asked for that is not done yet.
const COMMANDS_MAX: usize = 64;
