//! Peers that we stay connected to: who, where, and when to dial again.
//!
//! An engine without I/O and without a clock. A peer that goes is dialled again soon, one that does
//! not answer less and less often; each wait is a little shorter or longer than the last one's
//! double, so that many who lost the same peer do not all come back at once.

use libp2p::{Multiaddr, PeerId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The list.
#[derive(Debug)]
pub(super) struct Peering {
    peers: BTreeMap<PeerId, Entry>,
    dice: StdRng,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    state: State,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connected,
    Dialling,
    Waiting(Instant),
}

/// Why a peer is not taken into the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {PEERS_MAX} peers on the list already; `cairn swarm peering rm` takes one away")]
pub struct ListFull;

/// Whether a peer is connected just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Connected,
    Away,
}

impl Peering {
    /// An empty list; `seed` for the waits.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            dice: StdRng::seed_from_u64(seed),
        }
    }

    /// A peer to stay connected to. If it is on the list, it has these addresses from now on.
    pub(super) fn add(
        &mut self,
        peer: PeerId,
        mut addresses: Vec<Multiaddr>,
        is: Is,
        now: Instant,
    ) -> Result<(), ListFull> {
        addresses.truncate(ADDRESSES_MAX);
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            return Err(ListFull);
        }
        let state = match is {
            Is::Connected => State::Connected,
            Is::Away => State::Waiting(now),
        };
        let entry = Entry {
            addresses,
            state,
            failures: 0,
        };
        self.peers.insert(peer, entry);
        Ok(())
    }

    /// No longer; whether it was on the list.
    pub(super) fn remove(&mut self, peer: &PeerId) -> bool {
        self.peers.remove(peer).is_some()
    }

    /// Whether it is on the list.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Who is on it, and where.
    pub(super) fn list(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let each = self.peers.iter();
        each.map(|(peer, entry)| (*peer, entry.addresses.clone()))
            .collect()
    }

    /// How many of them are not connected.
    pub(super) fn away(&self) -> usize {
        let states = self.peers.values().map(|entry| entry.state);
        states.filter(|state| *state != State::Connected).count()
    }

    /// A peer is connected.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            (entry.state, entry.failures) = (State::Connected, 0);
        }
    }

    /// Its last connection is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        self.wait(peer, State::Connected, now);
    }

    /// A dial led nowhere.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(peer)
            && entry.state == State::Dialling
        {
            entry.failures = entry.failures.saturating_add(1);
        }
        self.wait(peer, State::Dialling, now);
    }

    /// Whom to dial now. Each counts as being dialled until it is told what came of it.
    pub(super) fn dial(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let is_due = |entry: &Entry| matches!(entry.state, State::Waiting(at) if at <= now);
        let due = self.peers.iter_mut().filter(|(_, entry)| is_due(entry));
        due.map(|(peer, entry)| {
            entry.state = State::Dialling;
            (*peer, entry.addresses.clone())
        })
        .collect()
    }

    /// When somebody is to be dialled next.
    pub(super) fn due(&self) -> Option<Instant> {
        let times = self.peers.values().filter_map(|entry| match entry.state {
            State::Waiting(at) => Some(at),
            State::Connected | State::Dialling => None,
        });
        times.min()
    }

    fn wait(&mut self, peer: &PeerId, from: State, now: Instant) {
        let Some(entry) = self.peers.get_mut(peer).filter(|entry| entry.state == from) else {
            return;
        };
        let doubled = BACK_OFF_FIRST * (1 << entry.failures.min(DOUBLINGS_MAX));
        let share = self.dice.random_range(JITTER);
        entry.state = State::Waiting(now + doubled.min(BACK_OFF_MAX).mul_f64(share));
    }
}

/// The wait for a peer that went, about; doubled with each dial that leads nowhere.
const BACK_OFF_FIRST: Duration = Duration::from_secs(2);
/// More doublings than the longest wait needs.
const DOUBLINGS_MAX: u32 = 16;
/// The longest wait, about.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);
/// By what each wait is multiplied.
const JITTER: std::ops::Range<f64> = 0.75..1.25;
/// Peers on the list; each takes a connection that nothing closes.
const PEERS_MAX: usize = 1024;
/// Addresses of each.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_to_a_bound_and_begin_again_once_connected() {
        let (mut peering, peer, mut now) = (Peering::new(1), PeerId::random(), Instant::now());
        peering.add(peer, Vec::new(), Is::Away, now).unwrap();
        let mut waits = Vec::new();
        for _ in 0..20 {
            assert_eq!(peering.dial(now), [(peer, Vec::new())]);
            assert!(peering.dial(now).is_empty(), "once is enough");
            assert_eq!(peering.due(), None);
            peering.failed(&peer, now);
            peering.failed(&peer, now);
            let due = peering.due().unwrap();
            assert!(peering.dial(due - Duration::from_millis(1)).is_empty());
            waits.push(due - now);
            now = due;
        }
        assert!(waits[..8].is_sorted(), "{waits:?}");
        assert!(waits[0] >= BACK_OFF_FIRST && waits[0] < BACK_OFF_FIRST * 3);
        let longest = BACK_OFF_MAX.mul_f64(JITTER.end);
        assert!(waits.iter().all(|wait| *wait <= longest), "{waits:?}");
        assert!(waits[15..].iter().all(|wait| *wait >= BACK_OFF_MAX / 2));
        peering.dial(now);
        peering.connected(&peer);
        assert_eq!((peering.due(), peering.away()), (None, 0));
        peering.disconnected(&peer, now);
        assert!(peering.due().unwrap() - now <= BACK_OFF_FIRST.mul_f64(JITTER.end));
    }

    #[test]
    fn who_lost_the_same_peer_does_not_come_back_at_once() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let wait = |seed| {
            let mut peering = Peering::new(seed);
            peering.add(peer, Vec::new(), Is::Connected, now).unwrap();
            peering.disconnected(&peer, now);
            peering.due().unwrap() - now
        };
        let waits: std::collections::HashSet<_> = (0..100).map(wait).collect();
        assert!(waits.len() > 90);
    }

    #[test]
    fn what_happens_to_others_or_at_other_times_changes_nothing() {
        let (mut peering, peer, now) = (Peering::new(1), PeerId::random(), Instant::now());
        peering.add(peer, Vec::new(), Is::Connected, now).unwrap();
        peering.failed(&peer, now);
        peering.failed(&PeerId::random(), now);
        peering.disconnected(&PeerId::random(), now);
        peering.connected(&PeerId::random());
        assert_eq!((peering.due(), peering.list().len()), (None, 1));
        assert!(peering.remove(&peer) && !peering.remove(&peer));
        peering.disconnected(&peer, now);
        assert_eq!(peering.due(), None);
    }

    #[test]
    fn the_list_is_bounded_and_takes_new_addresses() {
        let (mut peering, now) = (Peering::new(1), Instant::now());
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let peers: Vec<PeerId> = (0..PEERS_MAX).map(|_| PeerId::random()).collect();
        for peer in &peers {
            peering.add(*peer, Vec::new(), Is::Away, now).unwrap();
        }
        let more = peering.add(PeerId::random(), Vec::new(), Is::Away, now);
        assert_eq!(more, Err(ListFull));
        let many = vec![address; 2 * ADDRESSES_MAX];
        peering.add(peers[0], many, Is::Away, now).unwrap();
        let list = peering.list();
        let (_, addresses) = list.iter().find(|(peer, _)| *peer == peers[0]).unwrap();
        assert_eq!((list.len(), addresses.len()), (PEERS_MAX, ADDRESSES_MAX));
    }
}
