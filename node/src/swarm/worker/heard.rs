//! What the worker makes of the swarm's news: connections and identities.

use super::{Connection, Direction, Peer, Way, Worker};
use crate::dht::acquaintance::{Met, Standing};
use crate::dht::table::Group;
use crate::event::Event;
use crate::negotiation::is_relayed;
use crate::network::{self, Network, Realm};
use crate::swarm::ConnectError;
use crate::swarm::behaviour::BehaviourEvent;
use crate::swarm::book;
use crate::swarm::failure::failed;
use libp2p::connection_limits::Exceeded;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, ListenError, StreamUpgradeError, SwarmEvent,
};
use libp2p::{Multiaddr, PeerId, identify, ping};
use std::io;

impl Worker {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.foreign.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_established(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.metrics.dials_failed.inc();
                tracing::debug!(peer = ?peer_id, %error, "dial failed");
                if let DialError::Denied { cause } = &error {
                    self.on_denied(Endpoint::Dialer, cause);
                }
                if let Some((peer, reply)) = self.dials.remove(&connection_id) {
                    drop(reply.send(self.not_dialled(peer, &error)));
                } else if let Some((peer, reply)) = self.ways.remove(&connection_id) {
                    drop(reply.send(Err(failed(peer, &error))));
                }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                self.metrics.arrivals_failed.inc();
                tracing::debug!(%error, "arrival failed");
                if let ListenError::Denied { cause } = &error {
                    self.on_denied(Endpoint::Listener, cause);
                }
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                tracing::info!(%address, "listening");
                self.on_listening(listener_id, &address);
                self.tell(Event::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_silent(&address),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                for address in &addresses {
                    self.on_silent(address);
                }
                if self.on_reservation_ended(listener_id, &reason) {
                    // A relay's, which is replaced.
                } else if let Err(error) = reason {
                    tracing::error!(?addresses, %error, "a listener is gone");
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                // As when file descriptors run out; the listener tries again by itself.
                tracing::warn!(%error, "cannot accept a connection");
            }
            SwarmEvent::NewExternalAddrOfPeer { peer_id, address } => {
                self.book.learn(peer_id, &address);
            }
            _ => {}
        }
    }

    /// Others of those who refuse tell by themselves.
    fn on_denied(&self, end: Endpoint, cause: &ConnectionDenied) {
        if let Some(exceeded) = cause.downcast_ref::<Exceeded>() {
            self.swarm.behaviour().keeper.limited(end, exceeded);
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let direction = if endpoint.is_dialer() {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        let remote = endpoint.get_remote_address();
        let address = book::clean(peer, remote).unwrap_or_else(|| remote.clone());
        if direction == Direction::Outbound {
            // Where it took a call; where it calls from says little.
            self.book.learn(peer, &address);
        }
        self.gauge(direction).inc();
        self.connections.insert(
            id,
            Connection {
                peer,
                address,
                direction,
                way: Way::of(endpoint),
                latency: None,
                heard: self.told.meter.heard(&peer),
            },
        );
        let entry = self.peers.entry(peer).or_default();
        entry.connections += 1;
        let first = entry.connections == 1;
        let others: Vec<_> = self
            .dials
            .iter()
            .filter(|(_, (dialled, _))| *dialled == peer)
            .map(|(id, _)| *id)
            .collect();
        for id in others {
            if let Some((_, reply)) = self.dials.remove(&id) {
                drop(reply.send(Ok(())));
            }
        }
        if let Some((_, reply)) = self.ways.remove(&id) {
            drop(reply.send(Ok(())));
        }
        if first {
            self.metrics.peers.inc();
            self.bootstrap.connected();
            self.told.acquaintance.tell(peer, Standing::Connected);
            self.tell(Event::Connected(peer));
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.gauge(connection.direction).dec();
        }
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections > 0 {
            return;
        }
        self.peers.remove(&peer);
        self.told.acquaintance.tell(peer, Standing::Gone);
        self.on_left(&peer);
        self.metrics.peers.dec();
        match self.closing.remove(&peer) {
            Some(wished) => {
                self.bootstrap.dismissed(&peer);
                for reply in wished {
                    drop(reply.send(Ok(())));
                }
            }
            None => self.bootstrap.left(peer, self.book.addresses(&peer)),
        }
        for reply in self.meeting.remove(&peer).unwrap_or_default() {
            drop(reply.send(Err(ConnectError::ClosedAtOnce(peer))));
        }
        if self.peers.is_empty() {
            self.bootstrap.disconnected();
        }
        self.tell(Event::Disconnected(peer));
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match &event {
            BehaviourEvent::Identify(event) => self.foreign.record(event),
            BehaviourEvent::Ping(event) => self.foreign.record(event),
            BehaviourEvent::Relay(event) => self.foreign.record(event),
            BehaviourEvent::Punch(event) => self.foreign.record(event),
            _ => {}
        }
        match event {
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => {
                self.on_seen(peer_id, connection_id, &info);
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::AtLength(identified) => {
                let crate::identify::Identified {
                    peer,
                    connection,
                    info,
                } = identified;
                self.on_seen(peer, connection, &info);
                self.on_identified(peer, info);
            }
            BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. }) => {
                if matches!(error, StreamUpgradeError::NegotiationFailed) {
                    self.on_answered(&peer_id);
                }
                // It may have more to say than that reads.
                self.swarm.behaviour_mut().at_length.ask(peer_id);
                let is_stranger = |peer: &Peer| peer.agent.is_none();
                if self.peers.get(&peer_id).is_some_and(is_stranger) {
                    self.told.acquaintance.tell(peer_id, Standing::Silent);
                }
            }
            BehaviourEvent::Ping(event) => self.on_ping(&event),
            // The limits, the DHT, Bitswap and the measuring have nothing to say; the rest of identify is about us.
            other => self.on_reach(other),
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        let Some(connection) = self.connections.get_mut(&event.connection) else {
            return;
        };
        let heard = self.told.meter.heard(&event.peer);
        match &event.result {
            Ok(round_trip) => {
                connection.latency = Some(*round_trip);
                connection.heard = heard;
                self.on_answered(&event.peer);
            }
            Err(ping::Failure::Unsupported) => self.on_answered(&event.peer),
            // Who says or takes much may come late with its answers.
            Err(_) if heard.is_alive_since(connection.heard) => connection.heard = heard,
            // Who refuses is there.
            Err(error) if !is_silence(error) => {}
            Err(error) => {
                tracing::info!(
                    peer = %event.peer, address = %connection.address, %error,
                    "a peer that answers no ping and sends nothing is let go"
                );
                self.swarm.close_connection(event.connection);
            }
        }
    }

    /// A peer has answered something: it did not take the connection to close it.
    fn on_answered(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.answers = true;
        }
        for reply in self.meeting.remove(peer).unwrap_or_default() {
            drop(reply.send(Ok(())));
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        self.on_answered(&peer);
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let mut own = self.connections.values();
        let is_near = self.network != Network::Public
            || own.any(|one| one.peer == peer && network::is_near(&one.address));
        let realms = self.network.realms().iter().copied();
        let realms = realms.filter(|realm| is_near || *realm == Realm::Wan);
        let serves = realms.filter(|realm| info.protocols.contains(&realm.protocol()));
        let serves: Vec<Realm> = serves.collect();
        let news = entry.agent.is_none() || (!serves.is_empty() && !entry.serves);
        entry.serves = !serves.is_empty();
        let is_server = entry.serves;
        self.swarm.behaviour().keeper.serves(&peer, is_server);
        entry.agent = Some(info.agent_version.chars().take(AGENT_CHARS_MAX).collect());
        entry.protocols = info
            .protocols
            .iter()
            .take(PROTOCOLS_PER_PEER_MAX)
            .map(ToString::to_string)
            .collect();
        entry.protocols.sort_unstable();
        let addresses: Vec<Multiaddr> = info
            .listen_addrs
            .iter()
            .take(book::ADDRESSES_PER_PEER_MAX)
            .filter_map(|address| book::clean(peer, address))
            .filter(|address| self.network.allows(address))
            .collect();
        for address in &addresses {
            self.book.learn(peer, address);
        }
        let met = Met {
            serves,
            addresses,
            group: self.group_of(&peer),
        };
        self.told.acquaintance.tell(peer, Standing::Met(met));
        if news {
            self.tell(Event::Identified(peer));
        }
    }

    /// The network that a peer's connection leads to, where it matters.
    fn group_of(&self, peer: &PeerId) -> Option<Group> {
        if self.network != Network::Public {
            return None;
        }
        let mut own = self
            .connections
            .values()
            .filter(|connection| connection.peer == *peer && !is_relayed(&connection.address));
        own.find_map(|connection| network::host(&connection.address))
            .map(Group::of)
    }
}

/// Whether nothing came, of a ping or of what agrees on one.
fn is_silence(error: &ping::Failure) -> bool {
    match error {
        ping::Failure::Timeout => true,
        ping::Failure::Other { error } => error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut),
        ping::Failure::Unsupported => false,
    }
}

/// Characters kept of what a peer calls itself.
const AGENT_CHARS_MAX: usize = 128;

/// Protocols kept of those a peer says it speaks.
const PROTOCOLS_PER_PEER_MAX: usize = 64;
