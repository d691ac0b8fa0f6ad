//! The engine against a plain picture of what it promises, under random events.
//!
//! The picture keeps each peer's open questions and nothing else: no queue, no order, no turns. So
//! it holds for any order in which peers are served, as long as everybody is served at last. The
//! driver does what the worker does (lookups and envelopes are answered later, by a store that has
//! changed meanwhile) and is wrong on purpose where peers may be.

use super::peer::{
    ENVELOPE_BLOCKS_MAX, ENVELOPE_BYTES_TARGET, HAVE_AS_BLOCK_BYTES_MAX, PRESENCES_PER_PEER_MAX,
    State,
};
use super::*;
use crate::bitswap::message::WantKind;
use crate::bitswap::seeds;
use cairn_store::cid::{DAG_PB, RAW};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a peer waits for under one name.
#[derive(Debug, Clone, Copy)]
struct Asked {
    kind: WantKind,
    absence: Absence,
}

/// One stay of one peer, as the peer sees it.
#[derive(Debug, Default)]
struct Stay {
    number: u64,
    asked: BTreeMap<Cid, Asked>,
    /// How often HAVE, and how often DONT_HAVE, may still be said of a name.
    haves: BTreeMap<Cid, usize>,
    absences: BTreeMap<Cid, usize>,
    outstanding: u64,
    sent: usize,
}

/// What is under way outside of the engine.
#[derive(Debug)]
enum UnderWay {
    Lookup(PeerId, Vec<Cid>),
    /// The store was asked; the answer has not arrived.
    Answer(PeerId, Vec<(Cid, Option<u64>)>),
    Pack(u64, Envelope),
    /// A message is being written.
    Write(u64, PeerId, u64),
}

struct World {
    random: StdRng,
    engine: Engine,
    stays: BTreeMap<PeerId, Stay>,
    next_stay: u64,
    /// Contents that are here.
    store: BTreeSet<u64>,
    contents: u64,
    under_way: VecDeque<UnderWay>,
    /// Peers that ask for more than is kept are promised less.
    floods: bool,
}

/// Some are told at once where only HAVE is asked for, some fill a message alone.
fn size(content: u64) -> u64 {
    match content % 5 {
        0 => 0,
        1 => HAVE_AS_BLOCK_BYTES_MAX,
        2 => HAVE_AS_BLOCK_BYTES_MAX + 1,
        3 => 256 << 10,
        _ => 2 << 20,
    }
}

fn content(cid: &Cid) -> u64 {
    let (number, _) = cid.hash().digest().split_first_chunk().unwrap();
    u64::from_be_bytes(*number)
}

impl World {
    fn new(mut random: StdRng, floods: bool) -> Self {
        let contents = match floods {
            true => 4 * WANTS_PER_PEER_MAX as u64,
            false => random.random_range(1..60),
        };
        let mut world = Self {
            engine: Engine::default(),
            stays: BTreeMap::new(),
            next_stay: 0,
            store: BTreeSet::new(),
            contents,
            under_way: VecDeque::new(),
            floods,
            random,
        };
        for content in 0..contents {
            if world.random.random_ratio(1, 3) {
                world.store.insert(content);
            }
        }
        world
    }

    fn any_cid(&mut self) -> Cid {
        let codec = if self.random.random_ratio(1, 4) {
            DAG_PB
        } else {
            RAW
        };
        seeds::cid(self.random.random_range(0..self.contents), codec)
    }

    fn any_peer(&mut self) -> PeerId {
        seeds::peer(self.random.random_range(0..PEERS))
    }

    fn step(&mut self) {
        match self.random.random_range(0..20) {
            0 => self.connect(),
            1 if self.random.random_ratio(1, 4) => {
                let peer = self.any_peer();
                self.disconnect(&peer);
            }
            2..=8 => self.ask(),
            9 => self.arrive(),
            10 => {
                let content = self.random.random_range(0..self.contents);
                self.store.remove(&content);
            }
            11 => self.look_again(),
            12 => {
                // What nobody asked for, and what came of nobody's envelope.
                let peer = self.any_peer();
                self.engine.looked_up(peer, &[]);
                self.engine.sent(seeds::peer(PEERS + 1), 1 << 30);
            }
            _ => self.go_on(),
        }
        self.take_work();
        self.listen();
        self.check();
    }

    fn connect(&mut self) {
        let peer = self.any_peer();
        self.engine.connected(peer);
        if !self.stays.contains_key(&peer) {
            self.next_stay += 1;
            let stay = Stay {
                number: self.next_stay,
                ..Stay::default()
            };
            self.stays.insert(peer, stay);
        }
    }

    fn disconnect(&mut self, peer: &PeerId) {
        self.engine.disconnected(peer);
        self.stays.remove(peer);
    }

    fn ask(&mut self) {
        let peer = self.any_peer();
        let most = if self.floods { 3000 } else { 8 };
        let count = self.random.random_range(0..=most);
        let scope = match self.random.random_ratio(1, 10) {
            true => Scope::Whole,
            false => Scope::Change,
        };
        let entries: Vec<Entry> = (0..count)
            .map(|_| Entry {
                cid: self.any_cid(),
                change: self.any_change(),
            })
            .collect();
        self.engine.wants(peer, scope, &entries);
        let Some(stay) = self.stays.get_mut(&peer) else {
            return;
        };
        if scope == Scope::Whole {
            stay.asked.clear();
        }
        for Entry { cid, change } in entries {
            match change {
                Change::Cancel => drop(stay.asked.remove(&cid)),
                Change::Want { kind, absence, .. } => {
                    if kind == WantKind::Have {
                        *stay.haves.entry(cid).or_default() += 1;
                    }
                    if absence == Absence::Tell {
                        *stay.absences.entry(cid).or_default() += 1;
                    }
                    let known = stay.asked.get(&cid).map(|asked| asked.kind);
                    // A want for the block stands.
                    if (known, kind) != (Some(WantKind::Block), WantKind::Have) {
                        stay.asked.insert(cid, Asked { kind, absence });
                    }
                }
            }
        }
    }

    fn any_change(&mut self) -> Change {
        if self.random.random_ratio(1, 5) {
            return Change::Cancel;
        }
        Change::Want {
            priority: self.random.random_range(-2..3),
            kind: match self.random.random() {
                true => WantKind::Have,
                false => WantKind::Block,
            },
            absence: match self.random.random() {
                true => Absence::Tell,
                false => Absence::Silent,
            },
        }
    }

    fn arrive(&mut self) {
        let cid = self.any_cid();
        self.store.insert(content(&cid));
        self.engine.arrived(&[(cid, size(content(&cid)))]);
    }

    fn look_again(&mut self) {
        let peer = self.any_peer();
        let most = self.random.random_range(0..300);
        assert!(self.engine.recheck(&peer, most) <= most);
    }

    /// Something that is under way goes on, whichever it is.
    fn go_on(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.under_way.len());
        match self.under_way.remove(at).unwrap() {
            UnderWay::Lookup(peer, cids) => {
                let found = cids
                    .into_iter()
                    .map(|cid| (cid, self.here(&cid)))
                    .collect::<Vec<_>>();
                self.under_way.push_back(UnderWay::Answer(peer, found));
            }
            UnderWay::Answer(peer, found) => self.engine.looked_up(peer, &found),
            UnderWay::Pack(number, envelope) => self.pack(number, &envelope),
            UnderWay::Write(number, peer, bytes) => {
                if let Some(stay) = self.stay(number, &peer) {
                    stay.outstanding -= bytes;
                    self.engine.sent(peer, bytes);
                }
            }
        }
    }

    fn here(&self, cid: &Cid) -> Option<u64> {
        let content = content(cid);
        self.store.contains(&content).then(|| size(content))
    }

    fn stay(&mut self, number: u64, peer: &PeerId) -> Option<&mut Stay> {
        self.stays
            .get_mut(peer)
            .filter(|stay| stay.number == number)
    }

    fn pack(&mut self, number: u64, envelope: &Envelope) {
        let gone: Vec<_> = envelope
            .blocks
            .iter()
            .filter(|(cid, _)| self.here(cid).is_none())
            .copied()
            .collect();
        let stays = self.stays.get_mut(&envelope.peer);
        let Some(stay) = stays.filter(|stay| stay.number == number) else {
            return;
        };
        for (cid, absence) in &gone {
            *stay.absences.entry(*cid).or_default() += usize::from(*absence == Absence::Tell);
            self.engine.missing(envelope.peer, *cid, *absence);
        }
        let write = UnderWay::Write(number, envelope.peer, envelope.bytes);
        self.under_way.push_back(write);
    }

    /// Takes what the engine wants to be done, now and then.
    fn take_work(&mut self) {
        while self.random.random_ratio(2, 3)
            && let Some((peer, cids)) = self.engine.next_lookup()
        {
            assert!(self.stays.contains_key(&peer), "a lookup for one who left");
            assert!(cids.len() <= LOOKUP_MAX);
            self.under_way.push_back(UnderWay::Lookup(peer, cids));
        }
        while self.random.random_ratio(2, 3)
            && let Some(envelope) = self.engine.next_envelope()
        {
            self.take(envelope);
        }
    }

    fn take(&mut self, envelope: Envelope) {
        let peer = envelope.peer;
        let stay = self.stays.get_mut(&peer).expect("blocks for one who left");
        assert!(!envelope.blocks.is_empty() && envelope.blocks.len() <= ENVELOPE_BLOCKS_MAX);
        let bytes: u64 = envelope
            .blocks
            .iter()
            .map(|(cid, _)| size(content(cid)))
            .sum();
        assert!(bytes <= ENVELOPE_BYTES_TARGET || envelope.blocks.len() == 1);
        assert!(envelope.bytes >= bytes, "less is counted than is sent");
        let most = stay.outstanding + bytes.min(ENVELOPE_BYTES_TARGET);
        assert!(stay.outstanding == 0 || most <= OUTSTANDING_BYTES_MAX);
        for (cid, absence) in &envelope.blocks {
            let asked = stay.asked.remove(cid);
            let Some(asked) = asked else {
                panic!("{cid} was not asked for, or is sent twice");
            };
            // Beyond its limit the engine may know the later question only.
            assert!(self.floods || asked.absence == *absence);
            let small = size(content(cid)) <= HAVE_AS_BLOCK_BYTES_MAX;
            assert!(asked.kind == WantKind::Block || small, "HAVE was enough");
            stay.sent += 1;
        }
        stay.outstanding += envelope.bytes;
        let pack = UnderWay::Pack(stay.number, envelope);
        self.under_way.push_back(pack);
    }

    /// Takes the answers that are no blocks: at once, so that it is known which question each is
    /// to, unless there are floods of them.
    fn listen(&mut self) {
        if self.floods {
            let (peer, most) = (self.any_peer(), self.random.random_range(0..100));
            self.hear(peer, most);
        } else {
            for number in 0..PEERS {
                self.hear(seeds::peer(number), usize::MAX);
            }
        }
    }

    fn hear(&mut self, peer: PeerId, most: usize) {
        let said = self.engine.take_presences(&peer, most);
        assert!(said.len() <= most);
        let Some(stay) = self.stays.get_mut(&peer) else {
            assert!(said.is_empty(), "an answer to one who left");
            return;
        };
        for Presence { cid, kind } in said {
            let left = match kind {
                PresenceKind::Have => &mut stay.haves,
                PresenceKind::DontHave => &mut stay.absences,
            };
            let left = left.entry(cid).or_default();
            assert!(*left > 0, "{kind:?} that nobody asked for");
            *left -= 1;
            if kind == PresenceKind::Have
                && stay
                    .asked
                    .get(&cid)
                    .is_some_and(|asked| asked.kind == WantKind::Have)
            {
                stay.asked.remove(&cid);
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.engine.peers.len(), self.stays.len());
        for (peer, stay) in &self.stays {
            let state = &self.engine.peers[peer];
            assert!(state.wants.len() <= WANTS_PER_PEER_MAX);
            assert!(state.unknown.len() <= 2 * WANTS_PER_PEER_MAX);
            assert!(state.presences.len() <= PRESENCES_PER_PEER_MAX);
            assert_eq!(state.outstanding, stay.outstanding);
            let count = |is: fn(&State) -> bool| {
                let states = state.wants.values().map(|want| want.state);
                states.filter(is).count()
            };
            let queued = count(|state| matches!(state, State::Queued { .. }));
            let absent = count(|state| *state == State::Absent);
            assert_eq!((state.tasks.len(), state.absences.len()), (queued, absent));
            let mut kept = state.wants.keys().map(|name| name.cid().unwrap());
            assert!(self.floods || kept.all(|cid| stay.asked.contains_key(&cid)));
        }
        let absent: usize = self.engine.peers.values().map(|at| at.absences.len()).sum();
        assert_eq!(self.engine.absent.len(), absent);
        assert_eq!(self.engine.numbers.len(), self.stays.len());
    }

    /// Everything is taken until there is nothing more, with a look at what was added by other
    /// ways in between.
    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_TO_REST {
            let peers: Vec<PeerId> = self.stays.keys().copied().collect();
            for peer in peers {
                self.engine.recheck(&peer, usize::MAX);
            }
            let mut turns = 0;
            loop {
                turns += 1;
                assert!(turns < TURNS_MAX, "there is no end of work");
                self.go_on();
                if let Some((peer, cids)) = self.engine.next_lookup() {
                    self.under_way.push_back(UnderWay::Lookup(peer, cids));
                } else if let Some(envelope) = self.engine.next_envelope() {
                    self.take(envelope);
                } else if self.under_way.is_empty() {
                    break;
                }
            }
        }
        for number in 0..PEERS {
            self.hear(seeds::peer(number), usize::MAX);
        }
        self.check();
        for (peer, stay) in &self.stays {
            assert_eq!(stay.outstanding, 0);
            for (cid, asked) in &stay.asked {
                let kept = self.engine.peers[peer].wants.contains_key(&Key::name(cid));
                // Beyond its limit it may have been forgotten; what is kept is served.
                if !self.floods || kept {
                    assert!(self.here(cid).is_none(), "{cid} is here: {asked:?}");
                }
            }
        }
    }

    fn all_leave(&mut self) {
        for number in 0..PEERS {
            self.disconnect(&seeds::peer(number));
        }
        let engine = &self.engine;
        assert!(engine.peers.is_empty() && engine.absent.is_empty());
        assert!(engine.numbers.is_empty() && engine.ready.is_empty());
        assert!(engine.curious.is_empty());
        assert_eq!(engine.held(), (0, 0));
        while !self.under_way.is_empty() {
            self.go_on();
        }
        assert_eq!(self.engine.next_lookup(), None);
        assert_eq!(self.engine.next_envelope(), None);
    }
}

#[test]
fn whatever_happens_the_engine_keeps_its_promises() {
    seeds::each(SEEDS, |random| {
        let mut world = World::new(random, false);
        for _ in 0..STEPS {
            world.step();
        }
        world.come_to_rest();
        world.all_leave();
    });
}

#[test]
fn floods_of_wants_and_cancels_are_kept_within_bounds_and_leave_nothing() {
    seeds::each(FLOODS, |random| {
        let mut world = World::new(random, true);
        for _ in 0..STEPS {
            world.step();
        }
        world.come_to_rest();
        world.all_leave();
    });
}

#[test]
fn the_model_tries_what_it_is_there_for() {
    let (mut sent, mut outstanding) = (0, 0);
    for seed in 0..20 {
        let mut world = World::new(StdRng::seed_from_u64(seed), false);
        for _ in 0..STEPS {
            world.step();
            outstanding += world
                .stays
                .values()
                .filter(|stay| stay.outstanding + ENVELOPE_BYTES_TARGET > OUTSTANDING_BYTES_MAX)
                .count();
        }
        sent += world.stays.values().map(|stay| stay.sent).sum::<usize>();
    }
    assert!(sent > 100 && outstanding > 10, "{sent} {outstanding}");
}

const PEERS: u8 = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 300;
/// Each costs as much as a hundred others.
const FLOODS: u64 = 2;
/// An answer that was under way may have missed an arrival; the next look finds it.
const ROUNDS_TO_REST: usize = 3;
const TURNS_MAX: usize = 1_000_000;
