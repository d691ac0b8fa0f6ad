//! The DHT: who is near a key, and who provides what. Decisions without network, task or clock.
//!
//! Peers and keys lie in one space (`place.rs`); everybody knows many peers near itself and a few everywhere
//! (`table.rs`); so whoever is asked for a place can name some that are nearer, and a lookup (`lookup.rs`)
//! comes to the nearest in a few steps. The nearest twenty keep the records of a key (`providers.rs`), or more where
//! somebody crowds it (`crowding.rs`). Public keys and IPNS records are kept as well (`values.rs`).
//!
//! `worker.rs` drives this, over the streams that `behaviour.rs` hands it. Whoever drives it calls the verbs as things happen and then takes the [`Action`]s. Every [`Action::Ask`]
//! is answered with [`Dht::answered`] or [`Dht::failed`], in any order and at any time; what comes too late
//! still counts for the table.

pub(crate) mod acquaintance;
pub(crate) mod behaviour;
mod crowding;
mod lookup;
pub mod message;
#[cfg(any(test, feature = "bench"))]
pub mod network;
pub(crate) mod own;
pub mod place;
pub(crate) mod providers;
pub mod regions;
pub(crate) mod shelf;
mod streams;
pub mod table;
mod unreached;
pub(crate) mod values;
pub(crate) mod worker;

use crate::network::{Network, Realm};
use crowding::{Members, SPREAD_BITS, Size};
use libp2p::{Multiaddr, PeerId};
use lookup::{Lookup, Want};
use place::Place;
use providers::{Change, Provider, Providers};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};
use table::{BUCKET_PEERS, Contact, Group, Table};

/// One node's part in the DHT.
#[derive(Debug, Clone)]
pub struct Dht {
    local: PeerId,
    place: Place,
    addresses: Vec<Multiaddr>,
    table: Table,
    providers: Providers,
    /// When this node last looked for itself.
    bootstrapped_at: Option<Instant>,
    lookups: BTreeMap<LookupId, Running>,
    /// Lookups of keys that somebody crowds.
    widened: BTreeMap<LookupId, Widened>,
    size: Size,
    next: u64,
    actions: VecDeque<Action>,
    /// Questions, which may have to wait.
    asks: VecDeque<Action>,
    random: StdRng,
}

/// A lookup's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

#[derive(Debug, Clone)]
struct Running {
    goal: Goal,
    key: Vec<u8>,
    /// Other keys of the region that is looked over.
    spread: Vec<Vec<u8>>,
    lookup: Lookup,
    /// Requests of lookups before that were for the same.
    requests_before: usize,
    /// Providers that were told.
    found: HashSet<PeerId>,
    /// Requests one after the other that led to the first of them.
    hops: Option<u32>,
    /// What was said of the peer that it looks for, if it looks for one.
    heard_of: Option<Contact>,
    /// Whether that peer answered.
    is_met: bool,
}

/// A lookup that goes on in all of a key's region.
#[derive(Debug, Clone)]
struct Widened {
    running: Running,
    members: Members,
    /// Lookups of places in the region that are not over.
    open: usize,
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Nearest,
    Peer(PeerId),
    Values,
    Providers {
        limit: usize,
    },
    Provide,
    Refresh,
    /// All who keep records of a region's keys: those that share so many bits.
    Sweep {
        bits: u32,
    },
    /// All in the region of a key that another lookup is about.
    Region {
        of: LookupId,
    },
}

/// What is asked of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Those nearest to a key.
    Nearest(Vec<u8>),
    /// Who provides what a key names, and those nearest to it.
    Providers(Vec<u8>),
    /// The value kept under a key, and those nearest to it.
    Value(Vec<u8>),
    /// Take note that the asking peer provides what a key names. Not answered.
    Provides(Vec<u8>, Vec<Multiaddr>),
}

/// What a peer answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Peers nearer to the key.
    pub nearer: Vec<Contact>,
    /// Who provides what it names.
    pub providers: Vec<Contact>,
    /// The value kept under it, found to be valid.
    pub value: Option<Vec<u8>>,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer, and tell what it answered.
    Ask {
        /// For whom.
        lookup: LookupId,
        /// Whom.
        contact: Contact,
        /// What.
        request: Request,
    },
    /// Tell a peer; there is no answer.
    Tell {
        /// For whom.
        lookup: LookupId,
        /// Whom.
        contact: Contact,
        /// What.
        request: Request,
    },
    /// A lookup found somebody who provides what it looks for.
    Found {
        /// Which.
        lookup: LookupId,
        /// Who.
        provider: Contact,
    },
    /// A lookup found a value.
    Value {
        /// Which.
        lookup: LookupId,
        /// What.
        value: Vec<u8>,
    },
    /// A lookup is over.
    Done {
        /// Which.
        lookup: LookupId,
        /// What came of it.
        outcome: Outcome,
    },
}

/// What came of a lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The nearest that answered, the nearest first.
    pub nearest: Vec<Contact>,
    /// Providers found.
    pub providers: usize,
    /// Requests made.
    pub requests: usize,
    /// Requests one after the other that led to the first provider, or, if there is none, to all of the nearest.
    pub hops: u32,
    /// Where the peer is that was looked for, as others say if it did not answer itself.
    pub peer: Option<Contact>,
}

impl Dht {
    /// Of a node that knows nobody. `seed` decides what it does at random.
    pub fn new(
        local: PeerId,
        network: Network,
        realm: Realm,
        records_max: usize,
        seed: u64,
    ) -> Self {
        let place = Place::of_peer(&local);
        Self {
            local,
            place,
            addresses: Vec::new(),
            table: Table::new(place),
            providers: Providers::new(local, network, realm, records_max),
            bootstrapped_at: None,
            lookups: BTreeMap::new(),
            widened: BTreeMap::new(),
            size: Size::default(),
            next: 0,
            actions: VecDeque::new(),
            asks: VecDeque::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Where this node says that it can be reached.
    pub fn set_addresses(&mut self, addresses: Vec<Multiaddr>) {
        self.addresses = addresses;
    }

    /// A peer is known to answer requests. `group` is the network it is in, where that matters.
    pub fn serves(&mut self, contact: Contact, group: Option<Group>, now: Instant) {
        self.table.says(contact, group, now);
    }

    /// A peer answers no requests any more.
    pub fn serves_no_more(&mut self, peer: &PeerId) {
        self.table.forget(peer);
    }

    /// How many peers are known that answer requests.
    pub fn peers(&self) -> usize {
        self.table.len()
    }

    /// Looks for the peers nearest to a key.
    pub fn find_nearest(&mut self, key: Vec<u8>, now: Instant) -> LookupId {
        self.start(key, Goal::Nearest, now)
    }

    /// Looks for those who provide what a key names, until `limit` are found.
    pub fn find_providers(&mut self, key: Vec<u8>, limit: usize, now: Instant) -> LookupId {
        let known: Vec<Contact> = self
            .providers
            .of(&key, now)
            .map(|(peer, addresses)| Contact::new(peer, addresses))
            .collect();
        // What is known here comes first, even where there is nobody to ask.
        let id = self.insert(key, Goal::Providers { limit }, now);
        self.found(id, known, 0);
        self.settle(now);
        id
    }

    /// Looks for a peer.
    pub fn find_peer(&mut self, peer: PeerId, now: Instant) -> LookupId {
        self.start(peer.to_bytes(), Goal::Peer(peer), now)
    }

    /// Looks for values kept under a key, whichever there are.
    pub fn find_values(&mut self, key: Vec<u8>, now: Instant) -> LookupId {
        self.start(key, Goal::Values, now)
    }

    /// Whom this node knows that answers requests, if it is this peer.
    pub fn contact(&self, peer: &PeerId) -> Option<Contact> {
        let place = Place::of_peer(peer);
        let nearest = self.table.nearest_or_doubtful(&place, 1);
        nearest.into_iter().find(|contact| contact.peer == *peer)
    }

    /// Where a provider said that it is.
    pub fn addresses_of_provider(&self, peer: &PeerId, now: Instant) -> Vec<Multiaddr> {
        self.providers.addresses(peer, now)
    }

    /// All whom this node knows that answer requests.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.table.all()
    }

    /// Takes the records of others that came or went since the last time.
    pub(crate) fn take_changes(&mut self, now: Instant) -> Vec<Change> {
        self.providers.take_changes(now)
    }

    /// Keeps a record again that was kept before, as long as was left of it.
    pub(crate) fn restore(&mut self, change: Change, now: Instant) {
        if let Some((addresses, expires)) = change.kept {
            let provider = Provider {
                peer: change.provider,
                addresses,
                group: None,
            };
            // There may be less room than there was.
            let _ = (self.providers).add_until(&change.key, provider, expires, now);
        }
    }

    /// How many provider records of others are kept.
    pub fn records(&self) -> usize {
        self.providers.held()
    }

    /// Tells the peers nearest to a key that this node provides what it names.
    pub fn provide(&mut self, key: Vec<u8>, now: Instant) -> LookupId {
        let ours = Provider {
            peer: self.local,
            addresses: Vec::new(),
            group: None,
        };
        // Others can be told even if there is no room for a note of it here.
        let _ = self.providers.add(&key, ours, now);
        self.start(key, Goal::Provide, now)
    }

    /// Nobody waits for a lookup any more.
    pub fn cancel(&mut self, id: LookupId) {
        self.lookups.remove(&id);
        if self.widened.remove(&id).is_some() {
            self.lookups
                .retain(|_, running| running.goal != Goal::Region { of: id });
        }
    }

    /// Looks for the peers nearest to this node: the first thing to do once somebody is known.
    pub fn bootstrap(&mut self, now: Instant) -> LookupId {
        self.bootstrapped_at = Some(now);
        self.start(self.local.to_bytes(), Goal::Refresh, now)
    }

    fn start(&mut self, key: Vec<u8>, goal: Goal, now: Instant) -> LookupId {
        let id = self.insert(key, goal, now);
        self.settle(now);
        id
    }

    fn insert(&mut self, key: Vec<u8>, goal: Goal, now: Instant) -> LookupId {
        let id = LookupId(self.next);
        self.next += 1;
        let target = Place::of(&key);
        let want = match goal {
            Goal::Providers { .. } | Goal::Values => Want::Records,
            Goal::Sweep { bits } => self.sweeps(bits),
            Goal::Nearest | Goal::Peer(_) | Goal::Provide | Goal::Refresh | Goal::Region { .. } => {
                Want::Nearest
            }
        };
        let first = self.table.nearest_or_doubtful(&target, BUCKET_PEERS);
        let running = Running {
            goal,
            key,
            spread: Vec::new(),
            lookup: Lookup::new(self.place, target, want, first, now),
            requests_before: 0,
            found: HashSet::new(),
            hops: None,
            heard_of: None,
            is_met: false,
        };
        self.lookups.insert(id, running);
        id
    }

    /// A peer answered. `group` is the network it is in, where that matters.
    pub fn answered(
        &mut self,
        id: LookupId,
        contact: Contact,
        group: Option<Group>,
        answer: Answer,
        now: Instant,
    ) {
        let peer = contact.peer;
        self.table.answers(contact, group, now);
        self.hear(id, peer, answer, now);
    }

    /// The same by one whose network matters and is not known yet: it gets no place for that.
    pub fn answered_by_stranger(
        &mut self,
        id: LookupId,
        contact: Contact,
        answer: Answer,
        now: Instant,
    ) {
        let peer = contact.peer;
        if self.table.has(&contact) {
            self.table.answers(contact, None, now);
        }
        self.hear(id, peer, answer, now);
    }

    fn hear(&mut self, id: LookupId, peer: PeerId, answer: Answer, now: Instant) {
        let Some(running) = self.lookups.get_mut(&id) else {
            return;
        };
        let local = self.local;
        let named = answer.nearer.into_iter();
        let named: Vec<Contact> = named.filter(|contact| contact.peer != local).collect();
        if let Goal::Peer(wanted) = running.goal {
            let is_it =
                |contact: &&Contact| contact.peer == wanted && !contact.addresses.is_empty();
            running.is_met |= peer == wanted;
            running.heard_of =
                (running.heard_of.take()).or_else(|| named.iter().find(is_it).cloned());
        }
        let is_for_values = running.goal == Goal::Values;
        if let Some(hops) = running.lookup.answered(&peer, named) {
            if let Some(value) = answer.value.filter(|_| is_for_values) {
                self.actions.push_back(Action::Value { lookup: id, value });
            }
            self.found(id, answer.providers, hops);
        }
        self.settle(now);
    }

    /// A peer did not answer.
    pub fn failed(&mut self, id: LookupId, peer: &PeerId, now: Instant) {
        self.table.failed(peer);
        if let Some(running) = self.lookups.get_mut(&id) {
            running.lookup.failed(peer);
        }
        self.settle(now);
    }

    /// A peer could not be asked, for no fault of its own.
    pub fn not_asked(&mut self, id: LookupId, peer: &PeerId, now: Instant) {
        if let Some(running) = self.lookups.get_mut(&id) {
            running.lookup.failed(peer);
        }
        self.settle(now);
    }

    fn found(&mut self, id: LookupId, providers: Vec<Contact>, hops: u32) {
        let Some(running) = self.lookups.get_mut(&id) else {
            return;
        };
        let Goal::Providers { limit } = running.goal else {
            return;
        };
        for provider in providers.into_iter().take(ANSWER_PROVIDERS_MAX) {
            if running.found.len() < limit && running.found.insert(provider.peer) {
                running.hops.get_or_insert(hops);
                self.actions.push_back(Action::Found {
                    lookup: id,
                    provider,
                });
            }
        }
    }

    /// Goes on with what waits for time to pass. To be called every [`TICK`].
    pub fn tick(&mut self, now: Instant) {
        let refreshes = |running: &Running| running.goal == Goal::Refresh;
        if !self.lookups.values().any(refreshes) {
            self.refresh(now);
        }
        self.settle(now);
    }

    /// Whether nothing is looked for just now.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.lookups.is_empty() && self.widened.is_empty()
    }

    /// Looks over one part of the table that is due.
    fn refresh(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REFRESH;
        if self.bootstrapped_at.is_none_or(is_due) && self.table.len() > 0 {
            self.bootstrap(now);
        } else if let Some(shared) = self.table.stale(REFRESH, now)
            && shared <= REFRESH_BITS_MAX
        {
            let key = self.key_at(shared);
            self.start(key, Goal::Refresh, now);
        }
    }

    /// A multihash whose place shares exactly so many bits with ours.
    fn key_at(&mut self, shared: u32) -> Vec<u8> {
        let other = self.place.with_bits(shared, 1, 1);
        let towards = match other == self.place {
            true => self.place.with_bits(shared, 1, 0),
            false => other,
        };
        self.key_near(&towards, shared + 1)
    }

    /// A multihash whose place shares that many bits with another, or more. Found by trying, which is why they
    /// are few.
    fn key_near(&mut self, towards: &Place, shared: u32) -> Vec<u8> {
        // As SHA2-256 writes it: some implementations take nothing else for a key.
        let (start, rest): ([u8; 24], u64) = self.random.random();
        let key = |number: u64| [&[0x12, 32][..], &start, &number.to_be_bytes()].concat();
        let shares = |key: &Vec<u8>| Place::of(key).shared_bits(towards) >= shared;
        let mut keys = (0..=u64::MAX).map(|at| key(rest.wrapping_add(at)));
        keys.find(shares).unwrap_or_default()
    }

    fn settle(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (id, running) in &mut self.lookups {
            let is_enough = match running.goal {
                Goal::Providers { limit } => running.found.len() >= limit,
                Goal::Peer(_) => running.is_met,
                _ => false,
            };
            if is_enough || running.lookup.is_done(now) {
                over.push(*id);
                continue;
            }
            while let Some(contact) = running.lookup.next(now) {
                let key = running.key_for(&contact.place).clone();
                let request = match running.goal {
                    Goal::Providers { .. } => Request::Providers(key),
                    Goal::Values => Request::Value(key),
                    _ => Request::Nearest(key),
                };
                self.asks.push_back(Action::Ask {
                    lookup: *id,
                    contact,
                    request,
                });
            }
        }
        for id in over {
            self.over(id, now);
        }
    }

    /// A lookup is over, or goes on elsewhere.
    fn over(&mut self, id: LookupId, now: Instant) {
        let Some(running) = self.lookups.remove(&id) else {
            return;
        };
        let place = Place::of(&running.key);
        match running.goal {
            Goal::Refresh => self.size.seen(&place, &running.lookup.nearest()),
            Goal::Region { of } => return self.region_over(of, &running, now),
            Goal::Nearest | Goal::Peer(_) | Goal::Values | Goal::Sweep { .. } => {}
            Goal::Providers { .. } if !running.found.is_empty() => {}
            // What was widened before is not again.
            Goal::Providers { .. } | Goal::Provide if running.requests_before > 0 => {}
            Goal::Providers { .. } | Goal::Provide => {
                if let Some(size) = self.size.guess()
                    && crowding::is_crowded(&place, &running.lookup, size)
                {
                    return self.widen(id, running, size, now);
                }
            }
        }
        let nearest = running.lookup.nearest();
        self.end(id, &running, nearest);
    }

    /// Looks for all in the region of a key.
    fn widen(&mut self, id: LookupId, running: Running, size: f64, now: Instant) {
        let place = Place::of(&running.key);
        let bits = crowding::region(size).zeros();
        if bits + SPREAD_BITS > SPREAD_BITS_MAX {
            let nearest = running.lookup.nearest();
            return self.end(id, &running, nearest);
        }
        let widened = Widened {
            running,
            members: Members::default(),
            open: 1 << SPREAD_BITS,
        };
        self.widened.insert(id, widened);
        for value in 0..1 << SPREAD_BITS {
            let towards = place.with_bits(bits, SPREAD_BITS, value);
            let key = self.key_near(&towards, bits + SPREAD_BITS);
            self.start(key, Goal::Region { of: id }, now);
        }
    }

    fn region_over(&mut self, of: LookupId, region: &Running, now: Instant) {
        let within = self.size.guess().map(crowding::region);
        let (Some(widened), Some(within)) = (self.widened.get_mut(&of), within) else {
            return;
        };
        let place = Place::of(&widened.running.key);
        let members = region.lookup.answered_near(&place, within);
        widened.members.add(&place, members);
        widened.running.requests_before += region.lookup.requests();
        widened.open -= 1;
        if widened.open > 0 {
            return;
        }
        let Some(Widened {
            mut running,
            members,
            ..
        }) = self.widened.remove(&of)
        else {
            return;
        };
        let members = members.with(&place, running.lookup.nearest());
        if running.goal == Goal::Provide {
            return self.end(of, &running, members);
        }
        running.requests_before += running.lookup.requests();
        running.lookup = Lookup::new(self.place, place, Want::Each, members, now);
        self.lookups.insert(of, running);
        self.settle(now);
    }

    /// Tells what came of a lookup, and those who are to keep a record of it.
    fn end(&mut self, id: LookupId, running: &Running, nearest: Vec<Contact>) {
        if running.goal == Goal::Provide {
            for contact in &nearest {
                self.actions.push_back(Action::Tell {
                    lookup: id,
                    contact: contact.clone(),
                    request: Request::Provides(running.key.clone(), self.addresses.clone()),
                });
            }
        }
        let peer = match running.goal {
            Goal::Peer(wanted) => {
                let mut met = nearest.iter().filter(|contact| contact.peer == wanted);
                met.next().cloned().or_else(|| running.heard_of.clone())
            }
            _ => None,
        };
        let outcome = Outcome {
            peer,
            nearest,
            providers: running.found.len(),
            requests: running.requests_before + running.lookup.requests(),
            hops: running.hops.unwrap_or_else(|| running.lookup.hops()),
        };
        self.actions.push_back(Action::Done {
            lookup: id,
            outcome,
        });
    }

    /// A peer asks this node. `None` where nothing is answered.
    pub fn asked(&mut self, from: &PeerId, request: Request, now: Instant) -> Option<Answer> {
        self.asked_from(from, None, request, now)
    }

    /// The same by one that is in this network, where that matters.
    pub fn asked_from(
        &mut self,
        from: &PeerId,
        group: Option<Group>,
        request: Request,
        now: Instant,
    ) -> Option<Answer> {
        match request {
            // Values are kept outside.
            Request::Nearest(key) | Request::Value(key) => Some(Answer {
                nearer: self.nearer(from, &key),
                ..Answer::default()
            }),
            Request::Providers(key) => {
                let known = self.providers.of(&key, now).take(ANSWER_PROVIDERS_MAX);
                let providers = known.map(|(peer, addresses)| Contact::new(peer, addresses));
                Some(Answer {
                    providers: providers.collect(),
                    nearer: self.nearer(from, &key),
                    value: None,
                })
            }
            Request::Provides(key, addresses) => {
                // Whoever is told that there is no room could do nothing about it.
                let provider = Provider {
                    peer: *from,
                    addresses,
                    group,
                };
                let _ = self.providers.add(&key, provider, now);
                None
            }
        }
    }

    fn nearer(&self, from: &PeerId, key: &[u8]) -> Vec<Contact> {
        self.table.nearest_but(&Place::of(key), BUCKET_PEERS, from)
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Action> {
        self.poll_but_asks().or_else(|| {
            // Nobody waits any more for what a lookup that is over would ask.
            let lookups = &self.lookups;
            let is_over = |action: &Action| match action {
                Action::Ask { lookup, .. } => !lookups.contains_key(lookup),
                _ => false,
            };
            while self.asks.front().is_some_and(is_over) {
                self.asks.pop_front();
            }
            self.asks.pop_front()
        })
    }

    /// The same, where nobody more can be asked just now.
    pub fn poll_but_asks(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

/// How often [`Dht::tick`] wants to be called.
pub const TICK: Duration = Duration::from_millis(500);
/// How often each part of the table is looked over.
const REFRESH: Duration = Duration::from_secs(600);
/// Parts of the table that are nearer to us are not: a key in them takes too long to find by trying.
const REFRESH_BITS_MAX: u32 = 15;
/// The same for places in the region of a key: half a million tries.
const SPREAD_BITS_MAX: u32 = 19;
/// Providers told in one answer, or taken from one.
const ANSWER_PROVIDERS_MAX: usize = 32;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::ops::RangeInclusive;

    fn knowing(peers: RangeInclusive<u64>) -> (Dht, Instant) {
        let (local, now) = (contact(0).peer, Instant::now());
        let mut dht = Dht::new(local, Network::Public, Realm::Wan, 10, 1);
        contacts(peers)
            .into_iter()
            .for_each(|peer| dht.serves(peer, None, now));
        (dht, now)
    }

    #[test]
    fn who_waits_for_nothing_any_more_asks_nobody() {
        let (mut dht, now) = knowing(1..=20);
        let [gone, goes_on] = [1, 2].map(|key| dht.find_nearest(vec![key], now));
        dht.cancel(gone);
        let asks = std::iter::from_fn(|| dht.poll());
        let of: HashSet<LookupId> = asks
            .map(|action| match action {
                Action::Ask { lookup, .. } => lookup,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(of, HashSet::from([goes_on]));
    }

    #[test]
    fn who_cannot_be_asked_for_want_of_room_here_keeps_its_place() {
        let (mut dht, now) = knowing(1..=1);
        let lookup = dht.find_nearest(vec![1], now);
        assert!(dht.poll_but_asks().is_none());
        let Some(Action::Ask { contact, .. }) = dht.poll() else {
            panic!("somebody is asked");
        };
        dht.not_asked(lookup, &contact.peer, now);
        assert_eq!(dht.contacts().count(), 1);
        assert!(matches!(dht.poll(), Some(Action::Done { .. })));
        let lookup = dht.find_nearest(vec![1], now);
        dht.failed(lookup, &contact.peer, now);
        assert_eq!(dht.contacts().count(), 0, "doubtful");
    }

    #[test]
    fn who_answers_from_a_network_that_is_not_known_gets_no_place() {
        let (mut dht, now) = knowing(1..=1);
        let lookup = dht.find_nearest(vec![1], now);
        for peer in [1, 2] {
            dht.answered_by_stranger(lookup, contact(peer), Answer::default(), now);
        }
        assert_eq!(dht.contacts().cloned().collect::<Vec<_>>(), [contact(1)]);
    }

    /// A peer that has the same name in every run.
    pub(crate) fn contact(number: u64) -> Contact {
        let mut name = vec![0, 12, 8, 1, 18, 8];
        name.extend(number.to_be_bytes());
        Contact::new(PeerId::from_bytes(&name).unwrap(), Vec::new())
    }

    pub(crate) fn contacts(numbers: RangeInclusive<u64>) -> Vec<Contact> {
        numbers.map(contact).collect()
    }

    /// One that shares exactly so many bits with a place.
    pub(crate) fn near(place: &Place, bits: u32) -> Contact {
        let mut all = (1_000_000..).map(contact);
        all.find(|contact| contact.place.shared_bits(place) == bits)
            .unwrap()
    }
}
