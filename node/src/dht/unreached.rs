//! Whom nobody reached a moment ago: lookups go on without them instead of waiting for the same dial again.
//!
//! A peer rests for a while after each attempt in vain, longer every time, and is asked at once again when it
//! connects or answers. Others go on naming it for as long as they do not know.

use libp2p::PeerId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Peers that rest.
#[derive(Debug, Default)]
pub(super) struct Unreached(HashMap<PeerId, Rest>);

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    /// How long it was the last time.
    length: Duration,
}

impl Unreached {
    /// A peer was not reached.
    pub(super) fn missed(&mut self, peer: PeerId, now: Instant) {
        // Requests that were under way at the same time are one attempt.
        if self.rests(&peer, now) {
            return;
        }
        let before = self.0.get(&peer).map(|rest| rest.length);
        let length = before.map_or(REST_FIRST, |length| (length * 2).min(REST_MAX));
        if self.0.len() >= PEERS_MAX && before.is_none() {
            self.0.retain(|_, rest| rest.until > now);
            if self.0.len() >= PEERS_MAX {
                return; // It is dialled again, as if it was new.
            }
        }
        let until = now + length;
        self.0.insert(peer, Rest { until, length });
    }

    /// A peer is there.
    pub(super) fn reached(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Whether it is not to be dialled now.
    pub(super) fn rests(&self, peer: &PeerId, now: Instant) -> bool {
        self.0.get(peer).is_some_and(|rest| now < rest.until)
    }
}

/// How long a peer rests after the first attempt, ...
const REST_FIRST: Duration = Duration::from_secs(60);
/// ... and at most.
const REST_MAX: Duration = Duration::from_secs(600);
/// Peers that are remembered.
const PEERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_missed_again_rests_for_longer() {
        let (mut unreached, start) = (Unreached::default(), Instant::now());
        let peer = PeerId::random();
        assert!(!unreached.rests(&peer, start));
        unreached.missed(peer, start);
        // Several that wait for the same dial.
        unreached.missed(peer, start);
        let mut now = start + REST_FIRST;
        assert!(unreached.rests(&peer, now - Duration::from_millis(1)));
        assert!(!unreached.rests(&peer, now));
        unreached.missed(peer, now);
        assert!(unreached.rests(&peer, now + REST_FIRST));
        assert!(!unreached.rests(&peer, now + REST_FIRST * 2));
        for _ in 0..9 {
            now += REST_MAX;
            unreached.missed(peer, now);
        }
        assert!(!unreached.rests(&peer, now + REST_MAX));
        unreached.missed(peer, now + REST_MAX);
        unreached.reached(&peer);
        assert!(!unreached.rests(&peer, now + REST_MAX));
    }

    #[test]
    fn no_more_peers_are_remembered_than_there_may_be() {
        let (mut unreached, now) = (Unreached::default(), Instant::now());
        let first = PeerId::random();
        unreached.missed(first, now);
        for _ in 1..PEERS_MAX + 5 {
            unreached.missed(PeerId::random(), now);
        }
        assert_eq!(unreached.0.len(), PEERS_MAX);
        assert!(unreached.rests(&first, now));
        // Those whose rest is over make room.
        unreached.missed(PeerId::random(), now + REST_FIRST);
        assert_eq!(unreached.0.len(), 1);
    }
}
