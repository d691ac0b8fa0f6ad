//! Whom nobody reached a moment ago: lookups go on without them instead of waiting for the same dial again.
//!
//! A peer rests for a while after each attempt in vain, longer every time, until it connects or answers. It rests at
//! the addresses that were tried: whoever names an honest peer at wrong ones keeps nobody from it at its own. Others go
//! on naming a peer that has gone for as long as they do not know.

use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Peers that rest.
#[derive(Debug, Default)]
pub(super) struct Unreached(HashMap<PeerId, Rest>);

#[derive(Debug, Clone)]
struct Rest {
    until: Instant,
    /// How long it was the last time.
    length: Duration,
    /// Where it was not reached.
    tried: Vec<Multiaddr>,
}

impl Unreached {
    /// A peer was not reached at any of these.
    pub(super) fn missed(&mut self, peer: PeerId, tried: Vec<Multiaddr>, now: Instant) {
        // Requests that were under way at the same time are one attempt.
        if self.rests(&peer, &tried, now) {
            return;
        }
        let before = self.0.get(&peer);
        let is_over = |rest: &&Rest| rest.until <= now;
        let length = match before.filter(is_over) {
            Some(rest) => (rest.length * 2).min(REST_MAX),
            None => before.map_or(REST_FIRST, |rest| rest.length),
        };
        let mut all = before.map(|rest| rest.tried.clone()).unwrap_or_default();
        if self.0.len() >= PEERS_MAX && all.is_empty() {
            self.0.retain(|_, rest| rest.until > now);
            if self.0.len() >= PEERS_MAX {
                return; // It is dialled again, as if it was new.
            }
        }
        all.retain(|address| !tried.contains(address));
        // The last that were tried stay.
        all.extend(tried);
        all.drain(..all.len().saturating_sub(TRIED_MAX));
        let until = now + length;
        self.0.insert(
            peer,
            Rest {
                until,
                length,
                tried: all,
            },
        );
    }

    /// A peer is there.
    pub(super) fn reached(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// There was nobody, and there is somebody again: whose fault it was is not known.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Whether it is not to be dialled now at these.
    pub(super) fn rests(&self, peer: &PeerId, addresses: &[Multiaddr], now: Instant) -> bool {
        self.0.get(peer).is_some_and(|rest| {
            now < rest.until && addresses.iter().all(|address| rest.tried.contains(address))
        })
    }
}

/// How long a peer rests after the first attempt, ...
const REST_FIRST: Duration = Duration::from_secs(60);
/// ... and at most.
const REST_MAX: Duration = Duration::from_secs(600);
/// Peers that are remembered, ...
const PEERS_MAX: usize = 4096;
/// ... and addresses of each.
const TRIED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: usize) -> Vec<Multiaddr> {
        vec![format!("/ip4/127.0.0.1/tcp/{number}").parse().unwrap()]
    }

    #[test]
    fn a_peer_that_is_missed_again_rests_for_longer() {
        let (mut unreached, start) = (Unreached::default(), Instant::now());
        let (peer, at) = (PeerId::random(), place(1));
        assert!(!unreached.rests(&peer, &at, start));
        unreached.missed(peer, at.clone(), start);
        // Several that wait for the same dial.
        unreached.missed(peer, at.clone(), start);
        let mut now = start + REST_FIRST;
        assert!(unreached.rests(&peer, &at, now - Duration::from_millis(1)));
        assert!(!unreached.rests(&peer, &at, now));
        unreached.missed(peer, at.clone(), now);
        assert!(unreached.rests(&peer, &at, now + REST_FIRST));
        assert!(!unreached.rests(&peer, &at, now + REST_FIRST * 2));
        for _ in 0..9 {
            now += REST_MAX;
            unreached.missed(peer, at.clone(), now);
        }
        assert!(!unreached.rests(&peer, &at, now + REST_MAX));
        unreached.missed(peer, at.clone(), now + REST_MAX);
        unreached.reached(&peer);
        assert!(!unreached.rests(&peer, &at, now + REST_MAX));
    }

    #[test]
    fn who_is_named_at_wrong_addresses_does_not_rest_at_its_own() {
        let (mut unreached, now) = (Unreached::default(), Instant::now());
        let peer = PeerId::random();
        unreached.missed(peer, place(1), now);
        let both = [place(1), place(2)].concat();
        assert!(!unreached.rests(&peer, &place(2), now));
        assert!(!unreached.rests(&peer, &both, now));
        unreached.missed(peer, both.clone(), now);
        assert!(unreached.rests(&peer, &both, now));
        // However many there are, so many are remembered.
        for number in 3..TRIED_MAX + 9 {
            unreached.missed(peer, place(number), now);
        }
        assert!(unreached.rests(&peer, &place(TRIED_MAX + 8), now));
        assert!(!unreached.rests(&peer, &place(1), now));
    }

    #[test]
    fn no_more_peers_are_remembered_than_there_may_be() {
        let (mut unreached, now) = (Unreached::default(), Instant::now());
        let first = PeerId::random();
        unreached.missed(first, place(1), now);
        for _ in 1..PEERS_MAX + 5 {
            unreached.missed(PeerId::random(), place(1), now);
        }
        assert_eq!(unreached.0.len(), PEERS_MAX);
        assert!(unreached.rests(&first, &place(1), now));
        // Those whose rest is over make room.
        unreached.missed(PeerId::random(), place(1), now + REST_FIRST);
        assert_eq!(unreached.0.len(), 1);
        unreached.forget();
        assert!(unreached.0.is_empty());
    }
}
