//! The engine in simulated time: peers that see, try and lie.

use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

/// Our router's address.
const OUTSIDE: &str = "/ip4/198.51.100.7/tcp/4001";

struct World {
    state: State,
    now: Instant,
    confirmed: BTreeSet<Multiaddr>,
    became: Vec<Reachability>,
    probes: usize,
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn ip(group: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(group, 1, 1, 1))
}

impl World {
    fn new(network: Network) -> Self {
        Self {
            state: State::new(network),
            now: Instant::now(),
            confirmed: BTreeSet::new(),
            became: Vec::new(),
            probes: 0,
        }
    }

    /// With so many peers that try addresses, each in a group of its own.
    fn with_servers(count: u8) -> Self {
        let mut world = Self::new(Network::Public);
        for group in 1..=count {
            world.state.serves(PeerId::random(), ip(group));
        }
        world
    }

    fn observed(&mut self, text: &str, groups: &[u8]) {
        for group in groups {
            self.state.observed(&address(text), ip(*group), self.now);
        }
        self.perform(&|_, _| Outcome::Unanswered);
    }

    /// Does what is wanted; probes end at once, as `ends` says.
    fn perform(&mut self, ends: &dyn Fn(&Multiaddr, &PeerId) -> Outcome) {
        while let Some(action) = self.state.poll() {
            match action {
                Action::Probe { address, server } => {
                    self.probes += 1;
                    let outcome = ends(&address, &server);
                    self.state.probed(&address, server, outcome, self.now);
                }
                Action::Confirm(address) => assert!(self.confirmed.insert(address)),
                Action::Withdraw(address) => assert!(self.confirmed.remove(&address)),
                Action::Became(what) => {
                    assert_ne!(self.became.last(), Some(&what));
                    self.became.push(what);
                }
            }
        }
        let reachable: BTreeSet<Multiaddr> = self
            .state
            .addresses()
            .filter(|(_, standing)| *standing == Standing::Reachable)
            .map(|(address, _)| address.clone())
            .collect();
        assert_eq!(reachable, self.confirmed);
        let is_public = self.state.reachability() == Reachability::Public;
        assert_eq!(is_public, !reachable.is_empty());
    }

    fn run(&mut self, time: Duration, ends: &dyn Fn(&Multiaddr, &PeerId) -> Outcome) {
        let end = self.now + time;
        while self.now < end {
            self.now += self.state.rest();
            self.state.tick(self.now);
            self.perform(ends);
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn our_own_network_reaches_us_where_we_listen() {
    let mut world = World::new(Network::Local);
    let here = address("/ip4/127.0.0.1/tcp/4001");
    world.state.listens(&here, world.now);
    world.perform(&|_, _| Outcome::Refuted);
    assert_eq!(world.became, [Reachability::Public]);
    world.state.listens_no_more(&here, world.now);
    world.perform(&|_, _| Outcome::Refuted);
    assert_eq!(world.became, [Reachability::Public, Reachability::Unknown]);
    assert_eq!(world.probes, 0);
}

#[test]
fn in_the_whole_network_listening_says_nothing_until_peers_came() {
    let mut world = World::with_servers(3);
    let here = address("/ip4/192.0.2.1/tcp/4001");
    world.state.listens(&here, world.now);
    world.perform(&|_, _| Outcome::Unanswered);
    assert!(world.became.is_empty());
    world.run(MINUTE, &|_, _| Outcome::Reached);
    assert_eq!(world.became, [Reachability::Public]);
    assert!(world.confirmed.contains(&here));
}

#[test]
fn a_mapping_alone_is_no_proof() {
    let mut world = World::with_servers(2);
    world.state.mapped(&address(OUTSIDE), world.now);
    world.perform(&|_, _| Outcome::Unanswered);
    assert!(world.confirmed.is_empty());
    world.run(MINUTE, &|_, _| Outcome::Refuted);
    assert!(world.confirmed.is_empty());
    assert_eq!(world.became, [Reachability::Private]);
}

#[test]
fn a_reservation_at_a_relay_is_no_candidate() {
    let mut world = World::with_servers(2);
    let relay = PeerId::random();
    let circuit = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit");
    world.state.listens(&address(&circuit), world.now);
    world.run(MINUTE, &|_, _| Outcome::Reached);
    assert!(world.confirmed.is_empty() && world.probes == 0);
}

#[test]
fn one_peer_is_not_believed_where_there_are_others() {
    let mut world = World::with_servers(4);
    world.state.mapped(&address(OUTSIDE), world.now);
    let liar = *world.state.servers.keys().next().unwrap();
    world.run(10 * MINUTE, &|_, server| match *server == liar {
        true => Outcome::Reached,
        false => Outcome::Refuted,
    });
    assert!(world.confirmed.is_empty());
    assert_eq!(world.became, [Reachability::Private]);
}

#[test]
fn a_lone_peer_is_asked_twice_and_believed() {
    let mut world = World::with_servers(1);
    world.observed(OUTSIDE, &[1]);
    world.run(MINUTE, &|_, _| Outcome::Reached);
    assert_eq!(world.became, [Reachability::Public]);
    assert_eq!(world.probes, 2);
}

#[test]
fn behind_a_router_that_changes_ports_nothing_is_tried_and_we_are_private() {
    let mut world = World::with_servers(6);
    for group in 1..=6 {
        world.observed(
            &format!("/ip4/198.51.100.7/tcp/{}", 4000 + u32::from(group)),
            &[group],
        );
    }
    // The first was seen before anybody contradicted.
    world.run(2 * MINUTE, &|_, _| Outcome::Reached);
    assert_eq!(world.became, [Reachability::Private]);
    assert_eq!(world.probes, 0);
}

#[test]
fn one_failure_takes_nothing_away_but_several_do() {
    let mut world = World::with_servers(3);
    world.observed(OUTSIDE, &[1, 2]);
    world.run(MINUTE, &|_, _| Outcome::Reached);
    world.run(REPROBE, &|_, _| Outcome::Unanswered);
    for group in 1..=3 {
        world.state.serves(PeerId::random(), ip(group));
    }
    let failed = std::cell::Cell::new(false);
    world.observed(OUTSIDE, &[1, 2]);
    world.run(2 * MINUTE, &|_, _| match failed.replace(true) {
        false => Outcome::Refuted,
        true => Outcome::Reached,
    });
    assert!(failed.get());
    assert_eq!(world.became, [Reachability::Public]);
    world.run(REPROBE / 2, &|_, _| Outcome::Refuted);
    world.observed(OUTSIDE, &[1, 2]);
    world.run(REPROBE / 2 + MINUTE, &|_, _| Outcome::Refuted);
    assert_eq!(world.became, [Reachability::Public, Reachability::Private]);
}

#[test]
fn what_nobody_confirms_any_more_is_withdrawn() {
    let mut world = World::with_servers(3);
    world.observed(OUTSIDE, &[1, 2]);
    world.run(MINUTE, &|_, _| Outcome::Reached);
    let servers: Vec<PeerId> = world.state.servers.keys().copied().collect();
    for server in servers {
        world.state.serves_no_more(&server);
    }
    world.run(ANSWER_HOLDS / 2, &|_, _| Outcome::Reached);
    assert_eq!(world.confirmed.len(), 1);
    world.run(ANSWER_HOLDS, &|_, _| Outcome::Reached);
    assert!(world.confirmed.is_empty());
    assert_eq!(world.state.candidates.len(), 0);
    assert_eq!(world.became, [Reachability::Public, Reachability::Unknown]);
}

#[test]
fn what_is_refuted_is_tried_more_and_more_rarely_and_at_once_when_the_way_changes() {
    let mut world = World::with_servers(3);
    world.observed(OUTSIDE, &[1, 2]);
    world.state.listens(&address(OUTSIDE), world.now);
    world.run(60 * MINUTE, &|_, _| Outcome::Refuted);
    let first = world.probes;
    world.run(60 * MINUTE, &|_, _| Outcome::Refuted);
    assert!(world.probes - first < first, "{first} {}", world.probes);
    assert_eq!(world.became, [Reachability::Private]);
    world.state.mapped(&address(OUTSIDE), world.now);
    world.run(MINUTE, &|_, _| Outcome::Reached);
    assert_eq!(world.became.last(), Some(&Reachability::Public));
}

#[test]
fn a_peer_that_never_answers_is_asked_no_more() {
    let mut world = World::with_servers(1);
    world
        .state
        .listens(&address("/ip4/192.0.2.1/tcp/1"), world.now);
    world.run(10 * MINUTE, &|_, _| Outcome::Unanswered);
    assert_eq!(world.probes, UNANSWERED_MAX as usize);
}

#[derive(Debug, Clone)]
enum Step {
    Listens(u8),
    ListensNoMore(u8),
    Mapped(u8),
    MappedNoMore(u8),
    Observed(u8, u8),
    Serves(u8),
    ServesNoMore(u8),
    /// A peer answers, asked or not.
    Probed(u8, u8, bool),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<u8>().prop_map(Step::Listens),
        any::<u8>().prop_map(Step::ListensNoMore),
        any::<u8>().prop_map(Step::Mapped),
        any::<u8>().prop_map(Step::MappedNoMore),
        any::<(u8, u8)>().prop_map(|(at, by)| Step::Observed(at, by)),
        any::<u8>().prop_map(Step::Serves),
        any::<u8>().prop_map(Step::ServesNoMore),
        any::<(u8, u8, bool)>().prop_map(|(at, by, how)| Step::Probed(at, by, how)),
        (0..3000u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// Whatever happens: what is confirmed was reached by somebody who had been asked, everything is
    /// bounded, and `Confirm` and `Withdraw` take turns (`World::perform` checks it).
    #[test]
    fn nothing_is_confirmed_but_by_those_who_were_asked(steps in steps(), lan: bool) {
        let network = if lan { Network::Lan } else { Network::Public };
        let mut world = World::new(network);
        let peers: Vec<PeerId> = (0..=255).map(|_| PeerId::random()).collect();
        let place = |at: u8| match lan {
            true => address(&format!("/ip4/10.0.0.{}/tcp/1", at % 64)),
            false => address(&format!("/ip4/192.0.2.{}/tcp/1", at % 64)),
        };
        let asked = std::cell::RefCell::new(BTreeSet::new());
        let mut listening = BTreeSet::new();
        for step in steps {
            let now = world.now;
            match step {
                Step::Listens(at) => { listening.insert(place(at)); world.state.listens(&place(at), now); }
                Step::ListensNoMore(at) => { listening.remove(&place(at)); world.state.listens_no_more(&place(at), now); }
                Step::Mapped(at) => world.state.mapped(&place(at), now),
                Step::MappedNoMore(at) => world.state.mapped_no_more(&place(at), now),
                Step::Observed(at, by) => world.state.observed(&place(at), ip(by), now),
                Step::Serves(by) => world.state.serves(peers[usize::from(by)], ip(by)),
                Step::ServesNoMore(by) => world.state.serves_no_more(&peers[usize::from(by)]),
                Step::Probed(at, by, how) => {
                    let outcome = if how { Outcome::Reached } else { Outcome::Refuted };
                    world.state.probed(&place(at), peers[usize::from(by)], outcome, now);
                }
                Step::Wait(seconds) => world.now += Duration::from_secs(u64::from(seconds)),
            }
            if matches!(step, Step::Wait(_)) {
                world.state.tick(world.now);
            }
            world.perform(&|address, server| {
                asked.borrow_mut().insert(address.clone());
                // Some answer, some do not, some not at once.
                match server.to_bytes().last().unwrap() % 4 {
                    0 => Outcome::Unanswered,
                    1 => Outcome::Refuted,
                    _ => Outcome::Reached,
                }
            });
            prop_assert!(world.state.candidates.len() <= CANDIDATES_MAX);
            prop_assert!(world.state.servers.len() <= SERVERS_MAX);
            for candidate in world.state.candidates.values() {
                prop_assert!(candidate.answers.len() <= ANSWERS_MAX);
                prop_assert!(candidate.observers.len() <= OBSERVERS_MAX);
            }
            for confirmed in &world.confirmed {
                match lan {
                    true => prop_assert!(listening.contains(confirmed)),
                    false => prop_assert!(asked.borrow().contains(confirmed)),
                }
            }
        }
    }
}
