//! Addresses known for peers: what they told, what was dialled, within our network and bounds.
//!
//! Only the swarm's worker holds one. The peers that were heard of least recently go first.

use crate::network::Network;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, VecDeque};

/// Who can be found where.
#[derive(Debug)]
pub(super) struct Book {
    network: Network,
    peers: HashMap<PeerId, Page>,
    /// Counts up with every change; the smallest page is the oldest.
    clock: u64,
}

#[derive(Debug, Default)]
struct Page {
    /// Newest first.
    addresses: VecDeque<Multiaddr>,
    touched: u64,
}

impl Book {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            peers: HashMap::new(),
            clock: 0,
        }
    }

    /// Notes an address, without a `/p2p` at its end, if it is one we could dial.
    pub(super) fn learn(&mut self, peer: PeerId, address: &Multiaddr) {
        let Some(address) = clean(peer, address) else {
            return;
        };
        if !self.network.allows(&address) {
            return;
        }
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            self.forget_oldest();
        }
        self.clock += 1;
        let page = self.peers.entry(peer).or_default();
        page.touched = self.clock;
        page.addresses.retain(|known| *known != address);
        page.addresses.push_front(address);
        page.addresses.truncate(ADDRESSES_PER_PEER_MAX);
    }

    /// What is known for one peer, newest first.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers
            .get(peer)
            .map(|page| page.addresses.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Everything, ordered by peer.
    pub(super) fn all(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut all: Vec<_> = self
            .peers
            .keys()
            .map(|peer| (*peer, self.addresses(peer)))
            .collect();
        all.sort_unstable_by_key(|(peer, _)| *peer);
        all
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .peers
            .iter()
            .min_by_key(|(_, page)| page.touched)
            .map(|(peer, _)| *peer);
        if let Some(peer) = oldest {
            self.peers.remove(&peer);
        }
    }
}

/// The address without the peer's own id at its end; `None` if it ends in another's.
pub(super) fn clean(peer: PeerId, address: &Multiaddr) -> Option<Multiaddr> {
    let mut address = address.clone();
    match address.iter().last()? {
        Protocol::P2p(other) if other == peer => {
            address.pop();
        }
        Protocol::P2p(_) => return None,
        _ => {}
    }
    (!address.is_empty()).then_some(address)
}

/// Peers kept.
const PEERS_MAX: usize = 4096;

/// Addresses kept for each.
pub(super) const ADDRESSES_PER_PEER_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: usize) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn keeps_what_lies_inside_without_the_peers_own_name() {
        let mut book = Book::new(Network::Local);
        let (peer, other) = (PeerId::random(), PeerId::random());
        book.learn(peer, &local(1).with(Protocol::P2p(peer)));
        book.learn(peer, &local(2).with(Protocol::P2p(other)));
        book.learn(peer, &"/ip4/192.0.2.1/tcp/3".parse().unwrap());
        book.learn(peer, &Multiaddr::empty().with(Protocol::P2p(peer)));
        assert_eq!(book.all(), [(peer, vec![local(1)])]);
    }

    #[test]
    fn the_newest_addresses_and_peers_stay() {
        let mut book = Book::new(Network::Local);
        let first = PeerId::random();
        for port in 1..=ADDRESSES_PER_PEER_MAX + 3 {
            book.learn(first, &local(port));
        }
        let kept = book.addresses(&first);
        assert_eq!(kept.len(), ADDRESSES_PER_PEER_MAX);
        assert_eq!(kept[0], local(ADDRESSES_PER_PEER_MAX + 3));
        for _ in 0..PEERS_MAX {
            book.learn(PeerId::random(), &local(1));
        }
        assert_eq!(book.all().len(), PEERS_MAX);
        assert!(book.addresses(&first).is_empty());
    }
}
