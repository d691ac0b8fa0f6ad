//! The worker's answers to those who hold a handle.

use super::{Answer, Connection, Direction, Worker};
use crate::metrics::{Ended, Query};
use crate::routing::RoutingError;
use crate::swarm::command::{Command, Find, Provide};
use crate::swarm::failure::failed;
use crate::swarm::lookups::Company;
use crate::swarm::{ConnectError, Connected, book, mux};
use libp2p::core::Endpoint;
use libp2p::kad::RecordKey;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;

impl Worker {
    pub(super) fn on_command(&mut self, command: Command) {
        // A caller that stopped waiting needs no answer, so failures to reply are nobody's.
        match command {
            Command::Connected(reply) => drop(reply.send(self.connected())),
            Command::Connect {
                peer,
                addresses,
                reply,
            } => self.connect(peer, addresses, reply),
            Command::Reach {
                peer,
                address,
                reply,
            } => self.reach(peer, address, reply),
            Command::Disconnect { peer, reply } => self.disconnect(peer, reply),
            Command::Listening(reply) => {
                drop(reply.send(self.swarm.listeners().cloned().collect()));
            }
            Command::Known(reply) => drop(reply.send(self.book.all())),
            lookup @ (Command::Find(_) | Command::Provide(_)) if self.is_meeting() => {
                self.parked.push(lookup);
            }
            Command::Find(find) => self.find(find),
            Command::Provide(provide) => self.provide(provide),
        }
    }

    /// Whether there is nobody to ask yet, but somebody may be who has just connected.
    fn is_meeting(&mut self) -> bool {
        self.company() == Company::Alone && self.peers.values().any(|peer| !peer.is_met)
    }

    /// Begins lookups that waited for somebody to be met.
    pub(super) fn unpark(&mut self) {
        if !self.parked.is_empty() && !self.is_meeting() {
            for command in std::mem::take(&mut self.parked) {
                self.on_command(command);
            }
        }
    }

    fn connected(&self) -> Vec<Connected> {
        let mut rows: Vec<_> = self
            .connections
            .values()
            .map(|connection| {
                let peer = self.peers.get(&connection.peer);
                Connected {
                    peer: connection.peer,
                    address: connection.address.clone(),
                    outbound: connection.direction == Direction::Outbound,
                    latency: connection.latency,
                    agent: peer.and_then(|peer| peer.agent.clone()),
                    protocols: peer.map(|peer| peer.protocols.clone()).unwrap_or_default(),
                    muxer: muxer_of(&connection.address).to_owned(),
                }
            })
            .collect();
        rows.sort_unstable_by(|a, b| (a.peer, &a.address).cmp(&(b.peer, &b.address)));
        rows
    }

    fn connect(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: Answer) {
        if self.peers.contains_key(&peer) {
            drop(reply.send(Ok(())));
            return;
        }
        let addresses = if addresses.is_empty() {
            self.addresses_of(&peer)
        } else {
            addresses
        };
        if addresses.is_empty() {
            drop(reply.send(Err(ConnectError::NoAddress(peer))));
            return;
        }
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Disconnected)
            .addresses(addresses)
            .build();
        let id = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                self.dials.insert(id, (peer, reply));
            }
            // It came up a moment ago and the news is still on its way to us.
            Err(DialError::DialPeerConditionFalse(_)) => drop(reply.send(Ok(()))),
            Err(error) => {
                self.metrics.dials_failed.inc();
                drop(reply.send(Err(failed(peer, &error))));
            }
        }
    }

    fn reach(&mut self, peer: PeerId, address: Multiaddr, reply: Answer) {
        let leads_there =
            |connection: &Connection| connection.peer == peer && connection.address == address;
        if self.connections.values().any(leads_there) {
            drop(reply.send(Ok(())));
            return;
        }
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![address])
            // From the port that we listen on there may be a connection already, the other way round.
            .allocate_new_port()
            .build();
        let id = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                self.ways.insert(id, (peer, reply));
            }
            Err(error) => {
                self.metrics.dials_failed.inc();
                drop(reply.send(Err(failed(peer, &error))));
            }
        }
    }

    fn disconnect(&mut self, peer: PeerId, reply: Answer) {
        if self.swarm.disconnect_peer_id(peer).is_ok() && self.peers.contains_key(&peer) {
            self.closing.entry(peer).or_default().push(reply);
        } else {
            drop(reply.send(Err(ConnectError::NotConnected(peer))));
        }
    }

    fn find(&mut self, find: Find) {
        let company = self.company();
        let key = RecordKey::from(find.cid.hash().to_bytes());
        let query = self.swarm.behaviour_mut().kad.get_providers(key);
        self.lookups.find(query, find, company);
    }

    fn provide(&mut self, provide: Provide) {
        let company = self.company();
        let key = RecordKey::from(provide.cid.hash().to_bytes());
        let query = self.swarm.behaviour_mut().kad.start_providing(key);
        match (query, company) {
            (Ok(query), Company::Peers) => self.lookups.provide(query, provide),
            // Noted here, for whoever asks us; but there is nobody to tell.
            (Ok(_), Company::Alone) => {
                self.metrics.query_ended(Query::Provide, Ended::Nobody);
                drop(provide.reply.send(Err(RoutingError::NoPeers)));
            }
            (Err(error), _) => {
                tracing::debug!(cid = %provide.cid, %error, "no provider record of our own");
                drop(provide.reply.send(Err(RoutingError::NotTaken(provide.cid))));
            }
        }
    }

    fn company(&mut self) -> Company {
        let table = self.swarm.behaviour_mut().kad.kbuckets().next();
        if table.is_some() {
            Company::Peers
        } else {
            Company::Alone
        }
    }

    /// Where a peer may be: what it told us, and what running lookups heard of it.
    pub(super) fn addresses_of(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        if peer == self.swarm.local_peer_id() {
            return self.swarm.listeners().cloned().collect();
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        // What the swarm asks before a dial; it only reads.
        let heard = kad
            .handle_pending_outbound_connection(
                ConnectionId::new_unchecked(0),
                Some(*peer),
                &[],
                Endpoint::Dialer,
            )
            .unwrap_or_default();
        let noted = kad.store_mut().addresses(peer);
        let mut seen = HashSet::new();
        self.book
            .addresses(peer)
            .into_iter()
            .chain(noted)
            .chain(heard)
            .filter_map(|address| book::clean(*peer, &address))
            .filter(|address| self.network.allows(address) && seen.insert(address.clone()))
            .take(book::ADDRESSES_PER_PEER_MAX)
            .collect()
    }
}

fn muxer_of(address: &Multiaddr) -> &'static str {
    if address.iter().any(|part| part == Protocol::QuicV1) {
        "quic"
    } else {
        mux::PROTOCOL
    }
}
