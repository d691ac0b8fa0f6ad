//! The peers to begin with: dialled whenever there is nobody, less and less often while nobody answers. Those met
//! before this start come first, so that nobody's server is needed, then those configured. Those who were there last are
//! dialled in every round: a network that is back has them again.

use crate::config::Config;
use crate::dht::table::Contact;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use rand::seq::SliceRandom;
use std::time::Duration;
use tokio::time::Instant;

/// Whom to dial when there is nobody, and when.
pub(super) struct Bootstrap {
    peers: Vec<(PeerId, Vec<Multiaddr>)>,
    met_before: Vec<(PeerId, Vec<Multiaddr>)>,
    /// How many of them were dialled in this round.
    dialled: usize,
    /// Those who were there last, the last first.
    lost: Vec<(PeerId, Vec<Multiaddr>)>,
    next: Instant,
    back_off: Duration,
}

impl Bootstrap {
    pub(super) fn new(config: &Config, met_before: Vec<Contact>) -> Self {
        let mut peers: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
        for given in config.bootstrap.iter().take(BOOTSTRAP_PEERS_MAX) {
            let mut address = given.clone();
            let Some(Protocol::P2p(peer)) = address.pop() else {
                tracing::warn!(address = %given, "bootstrap address without /p2p, left out");
                continue;
            };
            if !config.network.allows(&address) {
                tracing::warn!(
                    address = %given,
                    network = %config.network,
                    "bootstrap address outside the network, left out"
                );
                continue;
            }
            match peers.iter_mut().find(|(known, _)| *known == peer) {
                Some((_, addresses)) => addresses.push(address),
                None => peers.push((peer, vec![address])),
            }
        }
        let mut met_before: Vec<_> = met_before
            .into_iter()
            .map(|contact| (contact.peer, contact.addresses))
            .collect();
        // Not always the same, who may all be somebody's.
        met_before.shuffle(&mut rand::rng());
        Self {
            peers,
            met_before,
            lost: Vec::new(),
            dialled: 0,
            next: Instant::now(),
            back_off: BACK_OFF_FIRST,
        }
    }

    /// Whether there is anybody to begin with.
    pub(super) const fn knows_nobody(&self) -> bool {
        self.peers.is_empty() && self.met_before.is_empty() && self.lost.is_empty()
    }

    /// Done when it is time to dial. May be dropped at any point.
    pub(super) async fn due(&self) {
        if self.knows_nobody() {
            std::future::pending::<()>().await;
        } else {
            tokio::time::sleep_until(self.next).await;
        }
    }

    /// Whom to dial now; the next time comes later each time.
    pub(super) fn begin(&mut self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.next = Instant::now() + self.back_off;
        let left = self.met_before.iter().skip(self.dialled);
        let some: Vec<_> = left.take(MET_BEFORE_AT_ONCE).cloned().collect();
        self.dialled += some.len();
        if !some.is_empty() {
            return some;
        }
        // The next round begins with them again: nobody may have been reachable at all.
        self.dialled = 0;
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        self.peers.clone()
    }

    /// A peer is gone by no wish of the operator, and may be there again.
    pub(super) fn left(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.dismissed(&peer);
        if !addresses.is_empty() {
            self.lost.insert(0, (peer, addresses));
            self.lost.truncate(LOST_MAX);
        }
    }

    /// The operator does not want it any more.
    pub(super) fn dismissed(&mut self, peer: &PeerId) {
        self.lost.retain(|(known, _)| known != peer);
    }

    /// Whom to dial in every round.
    pub(super) fn lost(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.lost.clone()
    }

    pub(super) fn connected(&mut self) {
        self.back_off = BACK_OFF_FIRST;
    }

    pub(super) fn disconnected(&mut self) {
        self.next = Instant::now() + self.back_off;
    }
}

/// Peers met before this start that are dialled at once.
const MET_BEFORE_AT_ONCE: usize = 10;

/// Those who were there last that are dialled in every round.
const LOST_MAX: usize = 10;

/// Bootstrap addresses used.
const BOOTSTRAP_PEERS_MAX: usize = 64;

/// The wait after the first dial that led nowhere, doubled each time.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);

/// The longest such wait: what a network that is back after a night may take.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, peer: PeerId) -> Multiaddr {
        text.parse::<Multiaddr>().unwrap().with(Protocol::P2p(peer))
    }

    fn with(bootstrap: Vec<Multiaddr>) -> Bootstrap {
        let config = Config {
            bootstrap,
            ..Config::default()
        };
        Bootstrap::new(&config, Vec::new())
    }

    #[test]
    fn those_met_before_come_first_and_again_in_the_next_round() {
        let configured = PeerId::random();
        let config = Config {
            bootstrap: vec![address("/ip4/127.0.0.1/tcp/1", configured)],
            ..Config::default()
        };
        let met: Vec<Contact> = (0..MET_BEFORE_AT_ONCE + 2)
            .map(|_| {
                Contact::new(
                    PeerId::random(),
                    vec!["/ip4/127.0.0.1/tcp/2".parse().unwrap()],
                )
            })
            .collect();
        let mut bootstrap = Bootstrap::new(&config, met);
        let mut rounds: Vec<_> = (0..5).map(|_| bootstrap.begin()).collect();
        let sizes: Vec<usize> = rounds.iter().map(Vec::len).collect();
        assert_eq!(sizes, [MET_BEFORE_AT_ONCE, 2, 1, MET_BEFORE_AT_ONCE, 2]);
        assert_eq!(rounds.remove(2)[0].0, configured);
    }

    #[test]
    fn those_who_were_there_last_are_dialled_beside_the_others_in_every_round() {
        let mut bootstrap = with(vec![address("/ip4/127.0.0.1/tcp/1", PeerId::random())]);
        let peers: Vec<PeerId> = (0..=LOST_MAX).map(|_| PeerId::random()).collect();
        let place: Vec<Multiaddr> = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
        for peer in &peers {
            bootstrap.left(*peer, place.clone());
        }
        bootstrap.left(PeerId::random(), Vec::new());
        bootstrap.left(peers[5], place.clone());
        bootstrap.dismissed(&peers[7]);
        for _ in 0..3 {
            let lost = bootstrap.lost();
            let lost: Vec<PeerId> = lost.into_iter().map(|(peer, _)| peer).collect();
            assert_eq!(lost.len(), LOST_MAX - 1);
            assert_eq!(lost[..2], [peers[5], peers[LOST_MAX]]);
            assert!(!lost.contains(&peers[0]) && !lost.contains(&peers[7]));
            assert_eq!(bootstrap.begin().len(), 1, "none of the others has to wait");
        }
        let mut alone = with(Vec::new());
        assert!(alone.knows_nobody());
        alone.left(peers[0], place);
        assert!(!alone.knows_nobody());
    }

    #[test]
    fn only_named_peers_within_the_network_are_dialled() {
        let peer = PeerId::random();
        let mut bootstrap = with(vec![
            address("/ip4/127.0.0.1/tcp/1", peer),
            address("/ip4/127.0.0.1/tcp/2", peer),
            address("/ip4/192.0.2.1/tcp/3", peer),
            address("/dnsaddr/example.com", peer),
            "/ip4/127.0.0.1/tcp/4".parse().unwrap(),
            Multiaddr::empty(),
        ]);
        let near = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"];
        let near = near.map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(bootstrap.begin(), [(peer, near)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_grow_until_somebody_is_there() {
        let mut bootstrap = with(vec![address("/ip4/127.0.0.1/tcp/1", PeerId::random())]);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let before = Instant::now();
            bootstrap.due().await;
            waits.push(before.elapsed());
            bootstrap.begin();
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1] >= BACK_OFF_FIRST && waits.is_sorted());
        let longest = waits[11];
        assert!(longest >= BACK_OFF_MAX && longest < 2 * BACK_OFF_MAX);
        bootstrap.connected();
        bootstrap.disconnected();
        let before = Instant::now();
        bootstrap.due().await;
        assert!(before.elapsed() < 2 * BACK_OFF_FIRST);
    }
}
