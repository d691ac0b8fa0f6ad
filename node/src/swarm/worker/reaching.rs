//! The worker's part in being reachable: carries news to the engines of `reach`, and out what they decide.

use super::{Direction, Worker};
use crate::config::Config;
use crate::event::Event;
use crate::negotiation::is_relayed;
use crate::network::{self, Network, Realm};
use crate::reach::relays::{self, Origin, Relays};
use crate::reach::state::{self, State};
use crate::reach::{Reachability, Status, autonat};
use crate::swarm::behaviour::BehaviourEvent;
use crate::swarm::book;
use crate::swarm::keeper::Hurry;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::{ListenerId, PortUse};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, identify, mdns, relay, upnp};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::IpAddr;
use tokio::sync::watch;
use tokio::time::Instant;

/// The engines, and what they need to know of the swarm.
pub(super) struct Reaching {
    state: State,
    relays: Relays,
    /// Reservations held or asked for.
    reservations: HashMap<ListenerId, Reservation>,
    uses_relays: bool,
    status: watch::Sender<Status>,
    due: Instant,
}

struct Reservation {
    relay: PeerId,
    /// Its connection is closed for nobody else: it would be our way in.
    _hold: Hurry,
}

/// How a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From our own port or to it: what the other end sees may be where we can be reached.
    Usual,
    /// From a port of its own.
    Fresh,
    /// Over a relay: the other end sees the relay.
    Relayed,
}

impl Way {
    pub(super) fn of(endpoint: &ConnectedPoint) -> Self {
        match endpoint {
            _ if endpoint.is_relayed() => Self::Relayed,
            ConnectedPoint::Dialer {
                port_use: PortUse::New,
                ..
            } => Self::Fresh,
            _ => Self::Usual,
        }
    }
}

impl Reaching {
    pub(super) fn new(config: &Config) -> Self {
        let mut relays = Relays::default();
        let uses_relays = config.reach.uses_relays(config.network);
        for address in &config.reach.relays {
            match address.iter().last() {
                Some(Protocol::P2p(peer)) => {
                    if let Some(address) = book::clean(peer, address) {
                        relays.found(peer, address, Origin::Configured);
                    }
                }
                _ => tracing::warn!(%address, "a relay without /p2p/<peer id> is not asked"),
            }
        }
        // What the operator says is tried like what a router says, and believed no sooner.
        let mut state = State::new(config.network);
        let now = Instant::now();
        for address in &config.reach.announce {
            state.mapped(address, now.into_std());
        }
        Self {
            state,
            relays,
            reservations: HashMap::new(),
            uses_relays,
            status: watch::Sender::default(),
            due: now,
        }
    }

    /// Until the engines want to look at the clock.
    pub(super) async fn due(&self) {
        tokio::time::sleep_until(self.due).await;
    }

    fn status(&self) -> Status {
        let addresses = self.state.addresses();
        Status {
            reachability: self.state.reachability(),
            addresses: addresses
                .map(|(address, standing)| (address.clone(), standing))
                .collect(),
            told: Vec::new(),
            relays: self.relays.holding().collect(),
        }
    }
}

impl Worker {
    /// What is known of our reach, now and later.
    pub(in crate::swarm) fn reachability(&self) -> watch::Receiver<Status> {
        self.reaching.status.subscribe()
    }

    pub(super) fn on_listening(&mut self, listener: ListenerId, address: &Multiaddr) {
        let now = Instant::now().into_std();
        if let Some(Reservation { relay, .. }) = self.reaching.reservations.get(&listener) {
            tracing::info!(%relay, "a relay lends us a way");
            self.reaching.relays.held(relay, now);
        } else {
            self.reaching.state.listens(address, now);
        }
        self.pursue();
    }

    pub(super) fn on_silent(&mut self, address: &Multiaddr) {
        let now = Instant::now().into_std();
        self.reaching.state.listens_no_more(address, now);
        self.pursue();
    }

    /// Whether the listener was a relay's.
    pub(super) fn on_reservation_ended(
        &mut self,
        listener: ListenerId,
        reason: &impl Debug,
    ) -> bool {
        let Some(reservation) = self.reaching.reservations.remove(&listener) else {
            return false;
        };
        let relay = reservation.relay;
        tracing::debug!(%relay, ?reason, "a reservation is over");
        let now = Instant::now().into_std();
        self.reaching.relays.ended(&relay, now);
        self.pursue();
        true
    }

    /// The last connection to a peer is gone.
    pub(super) fn on_left(&mut self, peer: &PeerId) {
        self.reaching.state.serves_no_more(peer);
        let now = Instant::now().into_std();
        self.reaching.relays.lost(peer, now);
        self.pursue();
    }

    /// A peer says what it sees of us and what it can do for us.
    pub(super) fn on_seen(&mut self, peer: PeerId, id: ConnectionId, info: &identify::Info) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if connection.way == Way::Relayed || self.network != Network::Public {
            return;
        }
        let Some(from) = network::host(&connection.address) else {
            return;
        };
        let now = Instant::now().into_std();
        if connection.way == Way::Usual
            && let Some(seen) = book::clean(*self.swarm.local_peer_id(), &info.observed_addr)
        {
            self.reaching.state.observed(&seen, from, now);
        }
        // Whoever is inside sees nothing of what stands before us.
        let is_outside = self.network.announces(&Multiaddr::from(from));
        if is_outside && info.protocols.contains(&autonat::ASKED) {
            self.reaching.state.serves(peer, from);
        } else {
            self.reaching.state.serves_no_more(&peer);
        }
        if info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            let dialled =
                (connection.direction == Direction::Outbound).then(|| connection.address.clone());
            let address = dialled.or_else(|| self.address_of_relay(peer, from, info));
            if let Some(address) = address {
                self.reaching.relays.found(peer, address, Origin::Found);
            }
        } else {
            self.reaching.relays.lost(&peer, now);
        }
        self.pursue();
    }

    /// Where others find a relay that came to us: at the host it came from, if it says so.
    fn address_of_relay(
        &self,
        peer: PeerId,
        from: IpAddr,
        info: &identify::Info,
    ) -> Option<Multiaddr> {
        let addresses = info.listen_addrs.iter().take(book::ADDRESSES_PER_PEER_MAX);
        let usable: Vec<Multiaddr> = addresses
            .filter_map(|address| book::clean(peer, address))
            .filter(|address| !is_relayed(address) && self.network.announces(address))
            .collect();
        let there = usable
            .iter()
            .find(|address| network::host(address) == Some(from));
        there.or_else(|| usable.first()).cloned()
    }

    pub(super) fn on_reach(&mut self, event: BehaviourEvent) {
        let now = Instant::now().into_std();
        match event {
            BehaviourEvent::Autonat(probed) => {
                let autonat::Probed {
                    address,
                    server,
                    outcome,
                } = probed;
                tracing::debug!(%address, %server, ?outcome, "an address of ours was tried");
                self.reaching.state.probed(&address, server, outcome, now);
            }
            BehaviourEvent::Upnp(upnp::Event::NewExternalAddr { external_addr, .. }) => {
                tracing::info!(address = %external_addr, "the router hands on a port");
                self.reaching.state.mapped(&external_addr, now);
            }
            BehaviourEvent::Upnp(upnp::Event::ExpiredExternalAddr { external_addr, .. }) => {
                self.reaching.state.mapped_no_more(&external_addr, now);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_neighbours(found),
            BehaviourEvent::Punch(event) => {
                tracing::debug!(peer = %event.remote_peer_id, result = ?event.result, "a way was punched, or not");
            }
            _ => return,
        }
        self.pursue();
    }

    fn on_neighbours(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let mut peers = HashSet::new();
        for (peer, address) in found {
            if peer != *self.swarm.local_peer_id() && peers.len() < NEIGHBOURS_AT_ONCE {
                self.book.learn(peer, &address);
                peers.insert(peer);
            }
        }
        for peer in peers {
            let addresses = self.addresses_of(&peer);
            if addresses.is_empty() || self.peers.len() >= NEIGHBOURS_ENOUGH {
                continue;
            }
            // It hears of us as we hear of it and dials as we do. From the ports we listen at both dials would be
            // one and the same TCP connection, with no side that listens, and neither would come to anything.
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .allocate_new_port()
                .build();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%peer, %error, "neighbour not dialled");
            }
        }
    }

    /// Time for the engines to look at the clock.
    pub(super) fn on_reach_due(&mut self) {
        let now = Instant::now();
        self.reaching.state.tick(now.into_std());
        self.reaching.relays.tick(now.into_std());
        self.reaching.due = now + self.reaching.state.rest();
        self.pursue();
    }

    /// Does what the engines want.
    fn pursue(&mut self) {
        while let Some(action) = self.reaching.state.poll() {
            match action {
                state::Action::Probe { address, server } => {
                    if let Some(autonat) = self.swarm.behaviour_mut().autonat.as_mut() {
                        autonat.probe(server, address);
                    }
                }
                state::Action::Confirm(address) => {
                    tracing::debug!(%address, "we can be reached");
                    self.swarm.add_external_address(address);
                }
                state::Action::Withdraw(address) => {
                    tracing::debug!(%address, "we can be reached there no more");
                    self.swarm.remove_external_address(&address);
                }
                state::Action::Became(is) => self.on_reachability(is),
            }
        }
        while let Some(action) = self.reaching.relays.poll() {
            match action {
                relays::Action::Reserve { relay, address } => self.reserve(relay, address),
                relays::Action::Release { relay } => self.release(relay),
            }
        }
        // Who has just come may be asked sooner than it seemed.
        let soon = Instant::now() + self.reaching.state.rest();
        self.reaching.due = self.reaching.due.min(soon);
        let mut status = self.reaching.status();
        status.told = self.swarm.behaviour().identify.told().cloned().collect();
        let is_public = status.reachability == Reachability::Public;
        self.metrics.reachable.set(i64::from(is_public));
        let held = i64::try_from(status.relays.len()).unwrap_or(i64::MAX);
        self.metrics.relays.set(held);
        let told = status.told.clone();
        let is_news = self.reaching.status.send_if_modified(|known| {
            let is_news = *known != status;
            *known = status;
            is_news
        });
        if is_news {
            // The DHT tells others what peers are told.
            self.told.acquaintance.tell_addresses(told);
        }
    }

    fn on_reachability(&mut self, is: Reachability) {
        tracing::info!(reachability = ?is, "whether we can be reached");
        let is_public = is == Reachability::Public;
        let in_the_open = self.network == Network::Public;
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dht.serve(Realm::Wan, is_public && in_the_open);
        if let Some(autonat) = behaviour.autonat.as_mut() {
            autonat.serve(is != Reachability::Private);
        }
        if let Some(relay) = behaviour.relay.as_mut() {
            relay.0.set_status(Some(if is_public {
                relay::Status::Enable
            } else {
                relay::Status::Disable
            }));
        }
        let wants = self.reaching.uses_relays && is == Reachability::Private;
        let now = Instant::now().into_std();
        self.reaching.relays.want(wants, now);
        self.tell(Event::Reach(is));
    }

    fn reserve(&mut self, relay: PeerId, address: Multiaddr) {
        let at = address
            .with(Protocol::P2p(relay))
            .with(Protocol::P2pCircuit);
        match self.swarm.listen_on(at) {
            Ok(listener) => {
                let hold = self.swarm.behaviour().keeper.hold(relay);
                let reservation = Reservation { relay, _hold: hold };
                self.reaching.reservations.insert(listener, reservation);
            }
            Err(error) => {
                tracing::debug!(%relay, %error, "a relay cannot be asked");
                let now = Instant::now().into_std();
                self.reaching.relays.ended(&relay, now);
            }
        }
    }

    /// Gives a reservation back with its connection. Taking only the listener away would leave libp2p's client with an
    /// answer under way to a question that it has forgotten, at which it panics. One that is being dialled is left
    /// alone: it fails, or is given back when it is there.
    fn release(&mut self, relay: PeerId) {
        // An error means that it is gone already.
        let _ = self.swarm.disconnect_peer_id(relay);
    }
}

/// Neighbours taken from one answer.
const NEIGHBOURS_AT_ONCE: usize = 16;
/// Connected peers with which no more neighbours are dialled unasked.
const NEIGHBOURS_ENOUGH: usize = 64;
