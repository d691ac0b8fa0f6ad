//! The worker's answers to those who hold a handle.

use super::{Answer, Connection, Direction, Worker};
use crate::swarm::command::Command;
use crate::swarm::failure::failed;
use crate::swarm::{ConnectError, Connected, mux};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};

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

    /// Where a peer may be.
    pub(super) fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        if peer == self.swarm.local_peer_id() {
            return self.swarm.listeners().cloned().collect();
        }
        self.book.addresses(peer)
    }
}

fn muxer_of(address: &Multiaddr) -> &'static str {
    if address.iter().any(|part| part == Protocol::QuicV1) {
        "quic"
    } else {
        mux::PROTOCOL
    }
}
