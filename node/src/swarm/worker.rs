//! The one task that owns the swarm.
//!
//! A turn of its loop takes one thing (a wish to stop, a command, something the swarm says, a timer)
//! and deals with it without waiting for anything. Commands come before news from the network:
//! local work first, new remote work last.
//!
//! Invariants: `connections` has exactly the established connections, bounded by the configured
//! limits; a peer is in `peers` while it has at least one. Every answer owed to a command is in
//! `dials`, `ways`, `closing` or `meeting` until it is given; dropping it says "stopping".
//!
//! `asked.rs` answers commands, `heard.rs` takes the swarm's news, `reaching.rs` what of it is about being reachable.

mod asked;
mod heard;
mod reaching;

use super::ConnectError;
use super::behaviour::{Behaviour, BehaviourEvent};
use super::book::Book;
use super::bootstrap::Bootstrap;
use super::command::Command;
use super::failure::refused;
use super::meter::{Heard, Meter};
use crate::config::Config;
use crate::dht::acquaintance::Acquaintance;
use crate::event::Event;
use crate::metrics::{Foreign, Metrics};
use crate::network::Network;
use crate::node::StartError;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use reaching::{Reaching, Way};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Answer = oneshot::Sender<Result<(), ConnectError>>;

/// The swarm and what is known about peers.
pub(super) struct Worker {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Command>,
    told: Told,
    network: Network,
    metrics: Metrics,
    foreign: Foreign,
    connections: HashMap<ConnectionId, Connection>,
    peers: HashMap<PeerId, Peer>,
    book: Book,
    dials: HashMap<ConnectionId, (PeerId, Answer)>,
    /// Dials that another connection to the same peer does not answer.
    ways: HashMap<ConnectionId, (PeerId, Answer)>,
    closing: HashMap<PeerId, Vec<Answer>>,
    /// Who waits for a first answer of a peer.
    meeting: HashMap<PeerId, Vec<Answer>>,
    bootstrap: Bootstrap,
    reaching: Reaching,
}

/// Who hears of what happens, and where it is seen what peers send.
pub(super) struct Told {
    pub(super) events: broadcast::Sender<Event>,
    pub(super) acquaintance: Acquaintance,
    pub(super) meter: Arc<Meter>,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// The peer did.
    Inbound,
    /// We did.
    Outbound,
}

struct Connection {
    peer: PeerId,
    address: Multiaddr,
    direction: Direction,
    way: Way,
    latency: Option<Duration>,
    /// What had come from the peer when a ping was answered last, or one that was not was borne.
    heard: Heard,
}

#[derive(Default)]
struct Peer {
    connections: usize,
    /// Whether it has answered anything yet.
    answers: bool,
    agent: Option<String>,
    protocols: Vec<String>,
    /// Whether it answers DHT requests.
    serves: bool,
}

/// One thing to deal with.
enum Turn {
    Stop,
    Command(Option<Command>),
    Swarm(Box<SwarmEvent<BehaviourEvent>>),
    Bootstrap,
    Reach,
}

impl Worker {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        inbox: mpsc::Receiver<Command>,
        told: Told,
        bootstrap: Bootstrap,
        config: &Config,
        metrics: Metrics,
        foreign: Foreign,
    ) -> Self {
        Self {
            swarm,
            inbox,
            told,
            network: config.network,
            metrics,
            foreign,
            connections: HashMap::new(),
            peers: HashMap::new(),
            book: Book::new(config.network),
            dials: HashMap::new(),
            ways: HashMap::new(),
            closing: HashMap::new(),
            meeting: HashMap::new(),
            bootstrap,
            reaching: Reaching::new(config),
        }
    }

    /// Opens the listeners and waits until each has an address.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), StartError> {
        let mut opening: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in addresses {
            let id = self
                .swarm
                .listen_on(address.clone())
                .map_err(|error| refused(address, &error))?;
            opening.insert(id, address.clone());
        }
        while !opening.is_empty() {
            let event = self.swarm.select_next_some().await;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    opening.remove(listener_id);
                }
                SwarmEvent::ListenerClosed {
                    listener_id,
                    reason: Err(error),
                    ..
                } => {
                    if let Some(address) = opening.remove(listener_id) {
                        return Err(refused(&address, error));
                    }
                }
                _ => {}
            }
            self.on_swarm(event);
        }
        Ok(())
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let turn = self.next_turn(&stop).await;
            let began = Instant::now();
            match turn {
                // Without commands nobody is left who could use the swarm.
                Turn::Stop | Turn::Command(None) => break,
                Turn::Command(Some(command)) => self.on_command(command),
                Turn::Swarm(event) => self.on_swarm(*event),
                Turn::Bootstrap => self.on_bootstrap(),
                Turn::Reach => self.on_reach_due(),
            }
            self.metrics.turned(began.elapsed());
        }
        // It takes the swarm along, which is large.
        Box::pin(self.say_goodbye()).await;
    }

    async fn next_turn(&mut self, stop: &CancellationToken) -> Turn {
        let alone = self.connections.is_empty();
        tokio::select! {
            biased;
            () = stop.cancelled() => Turn::Stop,
            command = self.inbox.recv() => Turn::Command(command),
            () = self.bootstrap.due(), if alone => Turn::Bootstrap,
            () = self.reaching.due() => Turn::Reach,
            event = self.swarm.select_next_some() => Turn::Swarm(Box::new(event)),
        }
    }

    /// Closes connections so that peers see an end, not a silence.
    async fn say_goodbye(mut self) {
        self.inbox.close();
        self.dials.clear();
        self.ways.clear();
        self.meeting.clear();
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while !self.connections.is_empty() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm(event);
            }
        };
        // Whoever does not answer by then finds out by itself.
        let _ = tokio::time::timeout(GOODBYE, closed).await;
    }

    fn on_bootstrap(&mut self) {
        let dial =
            |peer| DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing);
        let lost = self.bootstrap.lost().into_iter();
        // They have lost us as well and dial too: from the listening ports that would be one connection.
        let lost = lost
            .map(|(peer, addresses)| (peer, dial(peer).addresses(addresses).allocate_new_port()));
        let others = self.bootstrap.begin().into_iter();
        let others = others.map(|(peer, addresses)| (peer, dial(peer).addresses(addresses)));
        for (peer, dial) in lost.chain(others).collect::<Vec<_>>() {
            if let Err(error) = self.swarm.dial(dial.build()) {
                tracing::debug!(%peer, %error, "bootstrap peer not dialled");
            }
        }
    }

    fn gauge(&self, direction: Direction) -> &prometheus::IntGauge {
        match direction {
            Direction::Outbound => &self.metrics.connections_out,
            Direction::Inbound => &self.metrics.connections_in,
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.told.events.send(event);
    }
}

/// How long peers get to hear that we leave.
const GOODBYE: Duration = Duration::from_secs(2);
