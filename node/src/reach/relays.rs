//! Relays that lend us a way while nobody can reach us: which are asked, kept and replaced.
//!
//! An engine: no I/O and no clock. It hears of relays (peers that say they are, and the configured ones), asks for
//! reservations, and is told how they went. Renewing a reservation is the protocol's own; here one is
//! replaced when it is lost. A relay that refuses is asked again later, each time much later.
//!
//! Invariants: no more than [`KEPT`] reservations are held or asked for, and none while none is wanted.

use crate::dht::table::Group;
use crate::network;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask this relay, at this address, for a reservation.
    Reserve { relay: PeerId, address: Multiaddr },
    /// Give the reservation back, or stop asking for it.
    Release { relay: PeerId },
}

/// Who chose a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The operator.
    Configured,
    /// It says itself that it is one.
    Found,
}

/// The relays.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    wanted: bool,
    known: BTreeMap<PeerId, Relay>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Relay {
    address: Multiaddr,
    origin: Origin,
    phase: Phase,
    /// Refusals and losses since it last held for long.
    failures: u32,
    /// Not asked before; `None` for at once.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Asking(Instant),
    Held(Instant),
}

impl Relay {
    fn group(&self) -> Option<Group> {
        network::host(&self.address).map(Group::of)
    }

    fn fail(&mut self, now: Instant) {
        // One that held for long is as good as new.
        if let Phase::Held(since) = self.phase
            && now >= since + HELD_LONG
        {
            self.failures = 0;
        }
        self.phase = Phase::Idle;
        let wait = FAILED_WAIT.saturating_mul(1 << self.failures.min(FAILED_DOUBLINGS));
        self.next = Some(now + wait);
        self.failures = self.failures.saturating_add(1);
    }
}

impl Relays {
    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether reservations are wanted from now on.
    pub(crate) fn want(&mut self, wanted: bool, now: Instant) {
        self.wanted = wanted;
        self.tick(now);
    }

    /// A relay that may be asked, and where it is.
    pub(crate) fn found(&mut self, relay: PeerId, address: Multiaddr, origin: Origin) {
        if let Some(known) = self.known.get_mut(&relay) {
            if known.phase == Phase::Idle && known.origin >= origin {
                known.address = address;
            }
            return;
        }
        if self.known.len() < KNOWN_MAX {
            self.known.insert(
                relay,
                Relay {
                    address,
                    origin,
                    phase: Phase::Idle,
                    failures: 0,
                    next: None,
                },
            );
        }
    }

    /// It is gone, or a relay no more. Configured ones stay known: asking dials them.
    pub(crate) fn lost(&mut self, relay: &PeerId, now: Instant) {
        let Some(known) = self.known.get_mut(relay) else {
            return;
        };
        // One that has failed is remembered, lest it come back as good as new.
        if known.phase == Phase::Idle && known.origin == Origin::Found && known.failures == 0 {
            self.known.remove(relay);
        }
        self.tick(now);
    }

    /// The reservation is there; one that is not waited for any more is given back.
    pub(crate) fn held(&mut self, relay: &PeerId, now: Instant) {
        match self.known.get_mut(relay) {
            Some(known) if matches!(known.phase, Phase::Asking(_)) => {
                known.phase = Phase::Held(now);
            }
            Some(known) if matches!(known.phase, Phase::Held(_)) => {}
            _ => self.actions.push_back(Action::Release { relay: *relay }),
        }
    }

    /// It was refused, or is lost.
    pub(crate) fn ended(&mut self, relay: &PeerId, now: Instant) {
        if let Some(known) = self.known.get_mut(relay)
            && known.phase != Phase::Idle
        {
            known.fail(now);
        }
        self.tick(now);
    }

    /// Who holds a reservation for us.
    pub(crate) fn holding(&self) -> impl Iterator<Item = PeerId> {
        self.known
            .iter()
            .filter(|(_, relay)| matches!(relay.phase, Phase::Held(_)))
            .map(|(peer, _)| *peer)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        for (peer, relay) in &mut self.known {
            let is_late =
                matches!(relay.phase, Phase::Asking(since) if now >= since + ASKING_PATIENCE);
            if is_late {
                relay.fail(now);
            } else if self.wanted || relay.phase == Phase::Idle {
                continue;
            } else {
                relay.phase = Phase::Idle;
            }
            self.actions.push_back(Action::Release { relay: *peer });
        }
        self.known.retain(|_, relay| {
            let is_forgotten = relay
                .next
                .is_some_and(|next| now >= next + FAILURE_REMEMBERED)
                && relay.failures > 0;
            relay.origin == Origin::Configured || relay.phase != Phase::Idle || !is_forgotten
        });
        if self.wanted {
            self.fill(now);
        }
    }

    fn fill(&mut self, now: Instant) {
        loop {
            let active = || self.known.values().filter(|one| one.phase != Phase::Idle);
            if active().count() >= KEPT {
                return;
            }
            let groups: BTreeSet<Option<Group>> = active().map(Relay::group).collect();
            let next = self
                .known
                .iter_mut()
                .filter(|(_, relay)| {
                    relay.phase == Phase::Idle && relay.next.is_none_or(|next| now >= next)
                })
                // Relays that fail together are no two.
                .min_by_key(|(_, relay)| {
                    let is_near = groups.contains(&relay.group());
                    (relay.origin, is_near, relay.failures)
                });
            let Some((peer, relay)) = next else {
                return;
            };
            relay.phase = Phase::Asking(now);
            self.actions.push_back(Action::Reserve {
                relay: *peer,
                address: relay.address.clone(),
            });
        }
    }
}

/// Reservations kept at once: one may go while the other is replaced.
const KEPT: usize = 2;
/// Relays remembered.
const KNOWN_MAX: usize = 64;
/// How long a relay may take to answer: it may have to be dialled first.
const ASKING_PATIENCE: Duration = Duration::from_secs(60);
/// After how long a relay that refused is asked again; doubled each time.
const FAILED_WAIT: Duration = Duration::from_secs(30);
/// How often it is doubled: to an hour.
const FAILED_DOUBLINGS: u32 = 7;
/// How long a reservation holds until what was before is forgotten.
const HELD_LONG: Duration = Duration::from_secs(600);
/// How long a relay that failed is remembered after it might be asked again.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(2 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(group: u8) -> Multiaddr {
        format!("/ip4/{group}.1.1.1/tcp/1").parse().unwrap()
    }

    fn drain(relays: &mut Relays) -> Vec<Action> {
        std::iter::from_fn(|| relays.poll()).collect()
    }

    fn reserved(relays: &mut Relays) -> Vec<PeerId> {
        let reserve = |action| match action {
            Action::Reserve { relay, .. } => Some(relay),
            Action::Release { .. } => None,
        };
        drain(relays).into_iter().filter_map(reserve).collect()
    }

    fn with(count: u8) -> (Relays, Vec<PeerId>, Instant) {
        let mut relays = Relays::default();
        let peers: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
        for (peer, group) in peers.iter().zip(1..) {
            relays.found(*peer, address(group), Origin::Found);
        }
        (relays, peers, Instant::now())
    }

    #[test]
    fn nobody_is_asked_while_we_can_be_reached() {
        let (mut relays, _, now) = with(5);
        relays.tick(now);
        assert!(drain(&mut relays).is_empty());
        relays.want(true, now);
        assert_eq!(reserved(&mut relays).len(), KEPT);
    }

    #[test]
    fn what_is_lost_is_replaced_by_another_and_asked_again_later() {
        let (mut relays, _, now) = with(3);
        relays.want(true, now);
        let first = reserved(&mut relays);
        for peer in &first {
            relays.held(peer, now);
        }
        relays.ended(&first[0], now);
        let second = reserved(&mut relays);
        assert_eq!(second.len(), 1);
        assert!(!first.contains(&second[0]));
        relays.ended(&second[0], now);
        assert!(reserved(&mut relays).is_empty());
        relays.tick(now + FAILED_WAIT);
        assert_eq!(reserved(&mut relays).len(), 1);
    }

    #[test]
    fn each_refusal_doubles_the_wait_up_to_an_hour() {
        let (mut relays, peers, mut now) = with(1);
        relays.want(true, now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(reserved(&mut relays), peers);
            relays.ended(&peers[0], now);
            let wait = relays.known[&peers[0]].next.unwrap() - now;
            relays.tick(now + wait - Duration::from_secs(1));
            assert!(drain(&mut relays).is_empty());
            now += wait;
            relays.tick(now);
            waits.push(wait);
        }
        assert!(waits.is_sorted());
        assert_eq!(waits[1], waits[0] * 2);
        assert_eq!(waits[11], FAILED_WAIT * (1 << FAILED_DOUBLINGS));
    }

    #[test]
    fn reservations_are_given_back_once_they_are_not_wanted() {
        let (mut relays, _, now) = with(2);
        relays.want(true, now);
        let held = reserved(&mut relays);
        relays.held(&held[0], now);
        relays.want(false, now);
        let released = drain(&mut relays);
        assert_eq!(released.len(), 2);
        assert!(
            released
                .iter()
                .all(|action| matches!(action, Action::Release { .. }))
        );
        assert_eq!(relays.holding().count(), 0);
    }

    #[test]
    fn configured_relays_come_first_and_others_from_elsewhere() {
        let mut relays = Relays::default();
        let now = Instant::now();
        let [chosen, near, far] = [(); 3].map(|()| PeerId::random());
        relays.found(near, address(1), Origin::Found);
        relays.found(far, address(2), Origin::Found);
        relays.found(chosen, address(1), Origin::Configured);
        relays.want(true, now);
        assert_eq!(reserved(&mut relays), [chosen, far]);
    }

    #[test]
    fn a_relay_that_does_not_answer_is_given_up() {
        let (mut relays, peers, now) = with(1);
        relays.want(true, now);
        assert_eq!(reserved(&mut relays), peers);
        relays.tick(now + ASKING_PATIENCE);
        let relay = peers[0];
        assert_eq!(drain(&mut relays), [Action::Release { relay }]);
        // Its late answer is none.
        relays.held(&relay, now);
        assert_eq!(relays.holding().count(), 0);
        assert_eq!(drain(&mut relays), [Action::Release { relay }]);
    }

    proptest! {
        #[test]
        fn never_more_are_held_or_asked_for_than_are_kept(
            steps in proptest::collection::vec((0..6u8, 0..8usize, 0..100u64), 0..200),
        ) {
            let (mut relays, peers, mut now) = with(8);
            let mut active: BTreeSet<PeerId> = BTreeSet::new();
            let mut wanted = false;
            for (step, peer, seconds) in steps {
                let peer = peers[peer];
                now += Duration::from_secs(seconds);
                match step {
                    0 => { wanted = true; relays.want(true, now); }
                    1 => { wanted = false; relays.want(false, now); }
                    2 => relays.held(&peer, now),
                    3 => { active.remove(&peer); relays.ended(&peer, now); }
                    4 => relays.lost(&peer, now),
                    _ => { relays.found(peer, address(9), Origin::Found); relays.tick(now); }
                }
                for action in drain(&mut relays) {
                    match action {
                        Action::Reserve { relay, .. } => prop_assert!(active.insert(relay)),
                        Action::Release { relay } => { active.remove(&relay); }
                    }
                }
                prop_assert!(active.len() <= KEPT);
                prop_assert!(wanted || active.is_empty());
                prop_assert!(relays.known.len() <= KNOWN_MAX);
            }
        }
    }
}
