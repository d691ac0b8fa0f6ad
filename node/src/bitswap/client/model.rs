//! The client against a plain picture of what it promises, under random events.
//!
//! Sessions want blocks; peers say what they like, honest or not, come and go; time passes. The
//! picture keeps who waits for what. What is under way inside is checked after each step by what
//! must hold of it whoever was asked, so that nothing here depends on whom the client prefers.
//! (Its maps have no order, so a seed replays the same events and not always the same choices.)

use super::placing::OVERFULL;
use super::*;
use crate::bitswap::message::{Absence, Change};
use crate::bitswap::seeds;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

struct World {
    random: StdRng,
    client: Client,
    now: Instant,
    here: BTreeSet<PeerId>,
    /// What each peer was told that we want, as it understood it.
    told: BTreeMap<PeerId, BTreeMap<Cid, WantKind>>,
    sessions: BTreeMap<SessionId, BTreeSet<Cid>>,
    /// What was given up once: whoever asks again may be told at once, each time.
    given_up: BTreeSet<(SessionId, Cid)>,
    next_session: u64,
    contents: u64,
    tally: Tally,
}

/// How often what was it good for?
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    received: usize,
    given_up: usize,
    searches: usize,
    disconnects: usize,
}

impl World {
    fn new(mut random: StdRng) -> Self {
        Self {
            client: Client::default(),
            now: Instant::now(),
            here: BTreeSet::new(),
            told: BTreeMap::new(),
            sessions: BTreeMap::new(),
            given_up: BTreeSet::new(),
            next_session: 0,
            contents: random.random_range(1..80),
            tally: Tally::default(),
            random,
        }
    }

    fn any_cid(&mut self) -> Cid {
        seeds::raw(self.random.random_range(0..self.contents))
    }

    fn any_peer(&mut self) -> PeerId {
        seeds::peer(self.random.random_range(0..PEERS))
    }

    fn any_session(&mut self) -> Option<SessionId> {
        let count = self.sessions.len();
        (count > 0).then(|| {
            let at = self.random.random_range(0..count);
            *self.sessions.keys().nth(at).unwrap()
        })
    }

    fn step(&mut self) {
        let (peer, now) = (self.any_peer(), self.now);
        match self.random.random_range(0..30) {
            0 | 1 => self.connect(peer),
            2 if self.random.random_ratio(1, 3) => self.disconnect(&peer),
            3 if self.sessions.len() < SESSIONS_MAX => {
                self.next_session += 1;
                let session = SessionId(self.next_session);
                let idle = Duration::from_secs(self.random.random_range(1..IDLE_MAX.as_secs()));
                self.client.open(session, idle, now);
                self.sessions.insert(session, BTreeSet::new());
            }
            4 => {
                if let Some(session) = self
                    .any_session()
                    .filter(|_| self.random.random_ratio(1, 4))
                {
                    self.client.close(session);
                    self.sessions.remove(&session);
                }
            }
            5..=8 => self.want(),
            9 => self.unwant(),
            10..=14 => self.answer(&peer),
            15 => self.unasked(&peer),
            16 => {
                let said = [Speaks::Presences, Speaks::Blocks, Speaks::Nothing];
                let at = self.random.random_range(0..24);
                if let Some(speaks) = said.get(at) {
                    self.client.speaks(&peer, *speaks, now);
                }
            }
            17 if self.random.random_ratio(1, 4) => self.client.excuse(&peer, now),
            17 => {
                let bytes = self.random.random_range(0..4096);
                self.client.flows(&peer, bytes, now);
            }
            18 => self.lose(&peer),
            19 => {
                if let Some(session) = self.any_session() {
                    self.client.provider(session, peer);
                    let outcome = Err("refused".into());
                    self.client.dialled(session, &outcome);
                }
            }
            20 => {
                let cid = self.any_cid();
                self.client.found(&Key::content(&cid), now);
                self.ends(&cid);
            }
            // Always the same, or nobody would be left.
            21 | 22 => self.client.nonsense(&seeds::peer(0)),
            23 => self.client.unwanted(&peer, 1 << 20),
            24 => {
                let line = Entry {
                    cid: self.any_cid(),
                    change: Change::Want {
                        priority: 1,
                        kind: WantKind::Have,
                        absence: Absence::Tell,
                    },
                };
                self.client.wanted_too(&peer, &[line], now);
            }
            _ => {
                let time = self.random.random_range(0..400);
                self.pass(Duration::from_millis(time));
            }
        }
        self.settle();
        self.check();
    }

    fn connect(&mut self, peer: PeerId) {
        self.client.connected(peer, self.now);
        if self.here.insert(peer) {
            self.told.insert(peer, BTreeMap::new());
        }
    }

    fn disconnect(&mut self, peer: &PeerId) {
        self.client.disconnected(peer);
        self.here.remove(peer);
        self.told.remove(peer);
    }

    fn want(&mut self) {
        let Some(session) = self.any_session() else {
            return;
        };
        for _ in 0..self.random.random_range(1..20) {
            let cid = self.any_cid();
            self.client.want(session, cid, self.now);
            self.sessions.get_mut(&session).unwrap().insert(cid);
        }
    }

    fn unwant(&mut self) {
        let cid = self.any_cid();
        if let Some(session) = self.any_session() {
            self.client.unwant(session, &Key::content(&cid));
            self.sessions.get_mut(&session).unwrap().remove(&cid);
        }
    }

    /// The peer answers something that it was asked, or not what it was asked.
    fn answer(&mut self, peer: &PeerId) {
        let Some(asked) = self.told.get(peer).filter(|asked| !asked.is_empty()) else {
            return;
        };
        let at = self.random.random_range(0..asked.len());
        let (cid, _) = asked
            .iter()
            .nth(at)
            .map(|(cid, kind)| (*cid, *kind))
            .unwrap();
        match self.random.random_range(0..4) {
            0 => {
                let kind = PresenceKind::Have;
                self.client.presence(peer, &cid, kind, self.now);
            }
            1 => {
                let kind = PresenceKind::DontHave;
                self.client.presence(peer, &cid, kind, self.now);
            }
            _ => self.deliver(peer, &cid),
        }
    }

    fn unasked(&mut self, peer: &PeerId) {
        let cid = self.any_cid();
        match self.random.random_range(0..3) {
            0 => {
                let kind = PresenceKind::Have;
                self.client.presence(peer, &cid, kind, self.now);
            }
            1 => self.deliver(peer, &cid),
            _ => {
                let other = seeds::raw(self.contents + 1);
                let bytes = self.random.random_range(0..1 << 20);
                let received = self.client.block(peer, &other, bytes, self.now);
                assert_eq!(received, Received::Wrong);
            }
        }
    }

    fn deliver(&mut self, peer: &PeerId, cid: &Cid) {
        let waited_for = self.sessions.values().any(|wants| wants.contains(cid));
        let bytes = self.random.random_range(0..2 << 20);
        let received = self.client.block(peer, cid, bytes, self.now);
        assert_eq!(
            received == Received::Wanted(*cid),
            waited_for,
            "{received:?}"
        );
        if waited_for {
            self.tally.received += 1;
            self.ends(cid);
        }
    }

    fn ends(&mut self, cid: &Cid) {
        for wants in self.sessions.values_mut() {
            wants.remove(cid);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.tick(self.now);
    }

    /// What was said last to a peer does not reach it, as when its stream is reset.
    fn lose(&mut self, peer: &PeerId) {
        let entries = self.client.entries(peer, 20);
        if !entries.is_empty() {
            self.client.lost(peer, &entries);
        }
    }

    /// Does what the worker does after each event.
    fn settle(&mut self) {
        self.client.settle(self.now);
        while let Some(action) = self.client.poll() {
            match action {
                Action::Search { .. } => self.tally.searches += 1,
                Action::GiveUp { session, cid, .. } => {
                    self.tally.given_up += 1;
                    let wants = self.sessions.get_mut(&session).expect("an open session");
                    let is_again = !self.given_up.insert((session, cid));
                    assert!(wants.remove(&cid) || is_again, "never wanted");
                }
                Action::Disconnect(peer) => {
                    self.tally.disconnects += 1;
                    if self.random.random() {
                        self.disconnect(&peer);
                    }
                }
            }
        }
        for peer in self.client.changed() {
            assert!(self.here.contains(&peer), "words for one who left");
            let most = self.random.random_range(0..50);
            let entries = self.client.entries(&peer, most);
            assert!(entries.len() <= most);
            let told = self.told.get_mut(&peer).unwrap();
            for Entry { cid, change } in entries {
                match change {
                    Change::Cancel => drop(told.remove(&cid)),
                    Change::Want { kind, .. } => drop(told.insert(cid, kind)),
                }
            }
            // What did not fit is said when the lane has room again.
            if self.client.has_entries(&peer) {
                self.client.changed.insert(peer);
            }
        }
    }

    fn check(&self) {
        let client = &self.client;
        assert!(client.peers.keys().eq_unordered(&self.here));
        assert_eq!(client.sessions.len(), self.sessions.len());
        let mut waited_for = BTreeSet::new();
        for (id, wants) in &self.sessions {
            let inside = &client.sessions[id];
            assert_eq!(inside.wants.len(), wants.len());
            assert!(
                wants
                    .iter()
                    .all(|cid| inside.wants.contains(&Key::content(cid)))
            );
            waited_for.extend(wants.iter().copied());
            assert!(inside.broadcasts.is_subset(&inside.wants));
            let mut companions = inside.companions.keys();
            assert!(companions.all(|peer| self.here.contains(peer)));
            assert!(
                inside
                    .holders
                    .keys()
                    .all(|peer| !inside.companions.contains_key(peer))
            );
        }
        assert_eq!(client.wants.len(), waited_for.len());
        for (key, want) in &client.wants {
            assert!(waited_for.contains(&want.cid));
            let has_it = |id: &SessionId| self.sessions[id].contains(&want.cid);
            assert!(!want.sessions.is_empty() && want.sessions.iter().all(has_it));
            for (peer, kind) in &want.asked {
                let peer = client.peers.get(peer).expect("asked of one who left");
                assert_ne!(peer.speaks, Speaks::Nothing, "asked of one who is deaf");
                let in_flight = peer.in_flight.contains_key(key);
                assert_eq!(in_flight, *kind == WantKind::Block);
            }
            if want.queued {
                let queues = want.sessions.iter().map(|id| &client.sessions[id].queue);
                let places = queues.flatten().filter(|other| *other == key).count();
                assert!(places > 0, "waits in no queue");
            } else {
                assert!(want.broadcast || !want.asked.is_empty(), "forgotten");
                let willing = |id: &&PeerId| {
                    let peer = &client.peers[id];
                    peer.speaks != Speaks::Nothing && !peer.suspect && !want.absent.contains(id)
                };
                let holder = want.haves.iter().find(willing);
                assert!(
                    want.is_asked_for() || holder.is_none(),
                    "not asked of a holder"
                );
            }
        }
        for peer in client.peers.values() {
            let wants = peer.in_flight.keys().map(|key| client.wants.get(key));
            let chosen = wants.filter(|want| !want.expect("wanted no more").broadcast);
            assert!(chosen.count() <= IN_FLIGHT_MAX);
            assert!(peer.list.len() <= client.wants.len());
        }
    }

    /// Nobody says anything any more: every want ends all the same. Each peer in turn may be waited for as long as it
    /// was ever silent before it sent something.
    fn fall_silent(&mut self) {
        let silence = IDLE_MAX + late::GAP_MAX * u32::from(PEERS);
        let end = self.now + silence;
        while self.now < end && !self.sessions.values().all(BTreeSet::is_empty) {
            self.pass(TICK);
            self.settle();
            self.check();
        }
        assert!(
            self.sessions.values().all(BTreeSet::is_empty),
            "waits for ever"
        );
        self.is_clean();
    }

    fn is_clean(&mut self) {
        for _ in 0..ROUNDS_TO_TELL {
            self.settle();
        }
        assert!(self.client.wants.is_empty());
        assert!(self.client.wantlist().is_empty());
        for (id, peer) in &self.client.peers {
            assert!(peer.in_flight.is_empty() && peer.list.len() == 0);
            assert!(!peer.list.has_changes(), "not told of the end");
            assert!(self.told[id].is_empty(), "believes that we want something");
        }
    }

    fn all_close(&mut self) {
        for session in std::mem::take(&mut self.sessions).into_keys() {
            self.client.close(session);
        }
        self.settle();
        self.check();
        self.is_clean();
        for number in 0..PEERS {
            self.disconnect(&seeds::peer(number));
        }
        let client = &self.client;
        assert!(client.peers.is_empty() && client.sessions.is_empty());
        assert!(client.wants.is_empty() && client.hungry.is_empty());
        assert!(client.changed.is_empty() && client.actions.is_empty());
    }
}

/// Sameness of what a map has for keys and a set.
trait Unordered {
    fn eq_unordered(self, other: &BTreeSet<PeerId>) -> bool;
}

impl<'a, I: Iterator<Item = &'a PeerId>> Unordered for I {
    fn eq_unordered(self, other: &BTreeSet<PeerId>) -> bool {
        self.copied().collect::<BTreeSet<_>>() == *other
    }
}

#[test]
fn whatever_happens_every_want_ends_and_nothing_is_left_behind() {
    seeds::each(SEEDS, |random| {
        let mut world = World::new(random);
        for _ in 0..STEPS {
            world.step();
        }
        if world.random.random() {
            world.fall_silent();
        }
        world.all_close();
    });
}

#[test]
fn no_peer_is_asked_for_more_at_once_than_twice_its_window() {
    seeds::each(SEEDS, |random| {
        let mut world = World::new(random);
        for _ in 0..STEPS {
            let count = |client: &Client| -> BTreeMap<PeerId, usize> {
                let in_flight = |peer: &Peer| {
                    let wants = peer
                        .in_flight
                        .keys()
                        .filter_map(|key| client.wants.get(key));
                    wants.filter(|want| !want.broadcast).count()
                };
                let peers = client.peers.iter();
                peers.map(|(id, peer)| (*id, in_flight(peer))).collect()
            };
            world.step();
            let before = count(&world.client);
            world.client.settle(world.now);
            let settled = count(&world.client);
            world.client.hedge(world.now);
            let hedged = count(&world.client);
            for (before, after, most) in [(&before, &settled, 1), (&settled, &hedged, OVERFULL)] {
                for (peer, now) in after {
                    let window = world.client.peers[peer].ledger.window() * most;
                    assert!(*now <= before[peer] || *now <= window, "{now} of {window}");
                }
            }
        }
    });
}

#[test]
fn the_model_tries_what_it_is_there_for() {
    let mut all = Tally::default();
    for seed in 0..20 {
        let mut world = World::new(StdRng::seed_from_u64(seed));
        for _ in 0..STEPS {
            world.step();
        }
        all.received += world.tally.received;
        all.given_up += world.tally.given_up;
        all.searches += world.tally.searches;
        all.disconnects += world.tally.disconnects;
    }
    let Tally {
        received,
        given_up,
        searches,
        disconnects,
    } = all;
    let least = received.min(given_up).min(searches).min(disconnects);
    assert!(least >= 5, "{all:?}");
}

const PEERS: u8 = 6;
/// Longest that a piece of work waits without progress.
const IDLE_MAX: Duration = Duration::from_secs(30);
const SESSIONS_MAX: usize = 4;
const STEPS: usize = 600;
const SEEDS: u64 = 40;
/// What [`super::super::ledger::Ledger`] ever allows.
const IN_FLIGHT_MAX: usize = 960;
/// A list is told in pieces.
const ROUNDS_TO_TELL: usize = 200;
