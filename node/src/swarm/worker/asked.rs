//! The worker's answers to those who hold a handle.

use super::reaching::Way;
use super::{Answer, Connection, Direction, Worker};
use crate::negotiation::is_relayed;
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
            Command::Meet { peer, reply } => self.meet(peer, reply),
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
        let addresses = if addresses.is_empty() {
            self.addresses_of(&peer)
        } else {
            addresses
        };
        let ways = self.connections.values().filter(|one| one.peer == peer);
        let addresses = match whither(ways.map(|one| one.way), addresses) {
            Some(addresses) if addresses.is_empty() => {
                drop(reply.send(Err(ConnectError::NoAddress(peer))));
                return;
            }
            Some(addresses) => addresses,
            None => {
                drop(reply.send(Ok(())));
                return;
            }
        };
        let is_lent = self.peers.contains_key(&peer);
        let dial = DialOpts::peer_id(peer)
            .condition(match is_lent {
                true => PeerCondition::NotDialing,
                false => PeerCondition::Disconnected,
            })
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
                drop(reply.send(self.not_dialled(peer, &error)));
            }
        }
    }

    /// What is told of a dial that failed: who is connected all the same, by what a relay lends, is so.
    pub(super) fn not_dialled(&self, peer: PeerId, error: &DialError) -> Result<(), ConnectError> {
        match self.peers.contains_key(&peer) {
            true => Ok(()),
            false => Err(failed(peer, error)),
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

    fn meet(&mut self, peer: PeerId, reply: Answer) {
        match self.peers.get(&peer) {
            None => drop(reply.send(Err(ConnectError::ClosedAtOnce(peer)))),
            Some(known) if known.answers => drop(reply.send(Ok(()))),
            Some(_) => {
                let waiting = self.meeting.entry(peer).or_default();
                waiting.retain(|other| !other.is_closed());
                waiting.push(reply);
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

/// Where to dial a peer that is connected in these ways; `None` if nowhere, since it is connected well enough. What a relay
/// lends carries no blocks, so a way of its own is looked for beside it.
fn whither(
    ways: impl Iterator<Item = Way>,
    mut addresses: Vec<Multiaddr>,
) -> Option<Vec<Multiaddr>> {
    let mut is_lent = false;
    for way in ways {
        match way {
            Way::Relayed => is_lent = true,
            Way::Usual | Way::Fresh => return None,
        }
    }
    if is_lent {
        addresses.retain(|address| !is_relayed(address));
    }
    (!is_lent || !addresses.is_empty()).then_some(addresses)
}

fn muxer_of(address: &Multiaddr) -> &'static str {
    if address.iter().any(|part| part == Protocol::QuicV1) {
        "quic"
    } else {
        mux::PROTOCOL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_connected_by_a_relay_alone_is_dialled_where_it_may_be_itself() {
        let own: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let relay = PeerId::random();
        let lent: Multiaddr = format!("/ip4/192.0.2.2/tcp/1/p2p/{relay}/p2p-circuit")
            .parse()
            .unwrap();
        let both = || vec![lent.clone(), own.clone()];
        let to = |ways: &[Way], addresses| whither(ways.iter().copied(), addresses);
        assert_eq!(to(&[], both()), Some(both()));
        assert_eq!(to(&[], Vec::new()), Some(Vec::new()));
        assert_eq!(to(&[Way::Relayed], both()), Some(vec![own.clone()]));
        assert_eq!(to(&[Way::Relayed], vec![lent.clone()]), None);
        assert_eq!(to(&[Way::Relayed, Way::Usual], both()), None);
        assert_eq!(to(&[Way::Fresh], both()), None);
    }
}
