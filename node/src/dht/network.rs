//! Many nodes in one process: the real [`Dht`] of each, over a network and a clock that are made up.
//!
//! Every message takes its way's time; who is gone is noticed after [`SILENCE`]. A seed decides everything.
//! For tests and benches.

use super::table::{Contact, Group};
use super::{Action, Dht, LookupId, Outcome, TICK};
use crate::network::{Network as Reach, Realm};
use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

/// All nodes, and what is on its way between them.
#[derive(Debug, Clone)]
pub struct Network {
    now: Instant,
    nodes: Vec<Node>,
    numbers: HashMap<PeerId, usize>,
    events: BinaryHeap<Due>,
    next: u64,
    /// Whose end is waited for, and what came of it.
    awaited: Option<(usize, LookupId)>,
    done: Option<(Instant, Outcome)>,
    /// Values that it has found so far, and when.
    heard: Vec<(Instant, Vec<u8>)>,
    requests: u64,
    /// Answers that were false, or that did not come although somebody was there.
    false_answers: u64,
    /// Whether those who look for nothing leave their tables as they are.
    rests: bool,
    random: StdRng,
}

#[derive(Debug, Clone)]
struct Node {
    contact: Contact,
    dht: Dht,
    is_up: bool,
    manner: Manner,
    /// What it keeps for others.
    values: HashMap<Vec<u8>, Vec<u8>>,
    /// When it looks at the clock. A tick at another time was meant for before it had something to do.
    ticks_at: Option<Instant>,
}

/// How a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Honest,
    /// Knows of no provider.
    Withholds,
    /// The same, and names none but its like, as if there were no others.
    Misleads,
    /// Takes what it is asked and never answers.
    Silent,
}

/// What happens when. The first is the greatest; the number keeps what is at one time in order.
#[derive(Debug, Clone)]
struct Due {
    at: Instant,
    number: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Due {}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// A message arrives: a request, an answer to one, or that there will be none.
    Asked {
        from: usize,
        to: usize,
        lookup: Option<LookupId>,
        request: super::Request,
    },
    Answered {
        node: usize,
        by: usize,
        lookup: LookupId,
        answer: super::Answer,
    },
    Failed {
        node: usize,
        by: PeerId,
        lookup: LookupId,
    },
    Tick {
        node: usize,
    },
}

/// What came of one lookup.
#[derive(Debug, Clone)]
pub struct Told {
    /// What it came to.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What a search for values came to.
#[derive(Debug)]
pub struct Heard {
    /// Each value, and after how long it came, in order.
    pub values: Vec<(Duration, Vec<u8>)>,
    /// How long all of it took.
    pub took: Duration,
}

impl Network {
    /// Nobody yet.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::now(),
            nodes: Vec::new(),
            numbers: HashMap::new(),
            events: BinaryHeap::new(),
            next: 0,
            awaited: None,
            done: None,
            heard: Vec::new(),
            requests: 0,
            false_answers: 0,
            rests: false,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Nodes that are up.
    pub fn up(&self) -> Vec<usize> {
        let up = self.nodes.iter().enumerate();
        up.filter(|(_, node)| node.is_up)
            .map(|(at, _)| at)
            .collect()
    }

    /// Requests made so far, by anybody.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Answers that were not as they should be, by anybody.
    pub fn false_answers(&self) -> u64 {
        self.false_answers
    }

    /// A random one of those that are up.
    pub fn any(&mut self) -> usize {
        loop {
            let at = self.random.random_range(0..self.nodes.len());
            if self.nodes.get(at).is_some_and(|node| node.is_up) {
                return at;
            }
        }
    }

    /// A random key.
    pub fn key(&mut self) -> Vec<u8> {
        self.random.random::<[u8; 32]>().to_vec()
    }

    /// Somebody joins who knows one of those that are up, and looks for its place. Gives its number.
    pub fn join(&mut self) -> usize {
        let peer = self.name();
        self.join_as(peer, Manner::Honest)
    }

    /// So many join that lie nearer to a key than anybody who is there. Gives their numbers.
    pub fn crowd(&mut self, key: &[u8], count: usize, manner: Manner) -> Vec<usize> {
        let place = super::place::Place::of(key);
        let nearest = self.truly_nearest(key, 1);
        let nearest = nearest.first().map(super::place::Place::of_peer);
        let within = nearest.map(|nearest| nearest.distance(&place));
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let peer = self.name();
            let distance = super::place::Place::of_peer(&peer).distance(&place);
            if within.is_none_or(|within| distance < within) {
                numbers.push(self.join_as(peer, manner));
            }
        }
        numbers
    }

    fn name(&mut self) -> PeerId {
        let mut name = vec![0, 36, 8, 1, 18, 32];
        name.extend(self.random.random::<[u8; 32]>());
        let Ok(peer) = PeerId::from_bytes(&name) else {
            unreachable!("an identity multihash of 36 bytes is a peer ID")
        };
        peer
    }

    fn join_as(&mut self, peer: PeerId, manner: Manner) -> usize {
        let number = self.nodes.len();
        let contact = Contact::new(peer, Vec::new());
        let known = (number > 0).then(|| self.any());
        let mut dht = Dht::new(
            peer,
            Reach::Public,
            Realm::Wan,
            RECORDS_MAX,
            self.random.random(),
        );
        if let Some(known) = known.and_then(|at| self.nodes.get(at)) {
            dht.serves(known.contact.clone(), None, self.now);
        }
        dht.bootstrap(self.now);
        self.numbers.insert(peer, number);
        self.nodes.push(Node {
            contact,
            dht,
            is_up: true,
            manner,
            values: HashMap::new(),
            ticks_at: None,
        });
        self.act(number);
        number
    }

    /// So many join who mislead, from so many networks, and have one node know all of them as if they had answered it.
    /// Gives their numbers.
    pub fn poison(&mut self, victim: usize, count: usize, groups: u16) -> Vec<usize> {
        let mut numbers = Vec::new();
        for at in 0..count {
            let peer = self.name();
            let number = self.join_as(peer, Manner::Misleads);
            numbers.push(number);
            let contact = self.nodes.get(number).map(|node| node.contact.clone());
            let [high, low] = (u16::try_from(at).unwrap_or(u16::MAX) % groups.max(1)).to_be_bytes();
            let group = Group::of([high, low, 0, 1].into());
            if let (Some(contact), Some(victim)) = (contact, self.nodes.get_mut(victim)) {
                victim.dht.serves(contact, Some(group), self.now);
            }
        }
        numbers
    }

    /// A node starts anew and knows at most so many of those whom it knew before. Gives how many.
    pub fn restart(&mut self, node: usize, known: usize) -> usize {
        let Some(old) = self.nodes.get(node) else {
            return 0;
        };
        let mut before: Vec<Contact> = old.dht.contacts().cloned().collect();
        before.shuffle(&mut self.random);
        before.truncate(known);
        let peer = old.contact.peer;
        let mut dht = Dht::new(
            peer,
            Reach::Public,
            Realm::Wan,
            RECORDS_MAX,
            self.random.random(),
        );
        let count = before.len();
        for contact in before {
            dht.serves(contact, None, self.now);
        }
        dht.bootstrap(self.now);
        if let Some(node) = self.nodes.get_mut(node) {
            node.dht = dht;
        }
        self.act(node);
        count
    }

    /// One goes without a word.
    pub fn leave(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.is_up = false;
        }
    }

    /// From now on nobody looks over its table: with thousands of nodes that is most of the work, and tells nothing of what is
    /// looked for within seconds.
    pub fn rest(&mut self) {
        self.rests = true;
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.events.peek().is_some_and(|due| due.at <= end)
            && let Some(due) = self.events.pop()
        {
            self.now = due.at;
            self.happen(due.event);
        }
        self.now = end;
    }

    /// Has a node provide a key; done when those nearest to it were told.
    pub fn provide(&mut self, node: usize, key: Vec<u8>) -> Option<Told> {
        self.run(node, |dht, now| dht.provide(key, now))
    }

    /// Has a node look for providers of a key, until it knows one.
    pub fn find(&mut self, node: usize, key: Vec<u8>) -> Option<Told> {
        self.run(node, |dht, now| dht.find_providers(key, 1, now))
    }

    /// Has those nearest to a key keep a value, unless `is_better` says that what one keeps is. Gives how many took it.
    pub fn keep(
        &mut self,
        node: usize,
        key: &[u8],
        value: &[u8],
        is_better: impl Fn(&[u8], &[u8]) -> bool,
    ) -> usize {
        let told = self.find_nearest(node, key.to_vec());
        let nearest = told.map(|told| told.outcome.nearest).unwrap_or_default();
        let mut took = 0;
        for contact in nearest {
            let at = self.numbers.get(&contact.peer).copied();
            let Some(keeper) = at.and_then(|at| self.nodes.get_mut(at)) else {
                continue;
            };
            let old = keeper.values.get(key);
            if keeper.is_up && old.is_none_or(|old| is_better(value, old)) {
                keeper.values.insert(key.to_vec(), value.to_vec());
                took += 1;
            }
        }
        took
    }

    /// Has a node look for all values kept under a key. Gives what it found, and after how long, in order; and how long
    /// all of it took.
    pub fn find_values(&mut self, node: usize, key: Vec<u8>) -> Option<Heard> {
        let begun = self.now;
        self.heard.clear();
        let told = self.run(node, |dht, now| dht.find_values(key, now))?;
        let heard = std::mem::take(&mut self.heard).into_iter();
        let after = |(at, value): (Instant, Vec<u8>)| (at.saturating_duration_since(begun), value);
        Some(Heard {
            values: heard.map(after).collect(),
            took: told.took,
        })
    }

    /// Has a node look for those nearest to a key.
    pub fn find_nearest(&mut self, node: usize, key: Vec<u8>) -> Option<Told> {
        self.run(node, |dht, now| dht.find_nearest(key, now))
    }

    /// Has a node look for all who keep records of keys that share so many bits.
    pub fn sweep(&mut self, node: usize, keys: Vec<Vec<u8>>, bits: u32) -> Option<Told> {
        self.run(node, |dht, now| dht.sweep(keys, bits, now))
    }

    /// How many nodes there are, as one of them sees it.
    pub fn size(&self, node: usize) -> Option<f64> {
        self.nodes.get(node)?.dht.size()
    }

    /// A node tells a peer that it provides keys. They arrive at once; false if the peer is gone.
    pub fn tell(&mut self, node: usize, peer: &PeerId, keys: &[Vec<u8>]) -> bool {
        let told = self.numbers.get(peer).copied();
        let from = self.nodes.get(node).map(|node| node.contact.peer);
        let told = told.and_then(|at| self.nodes.get_mut(at));
        let (Some(from), Some(told)) = (from, told.filter(|told| told.is_up)) else {
            return false;
        };
        for key in keys {
            self.requests += 1;
            let request = super::Request::Provides(key.clone(), Vec::new());
            told.dht.asked(&from, request, self.now);
        }
        true
    }

    /// Those that are up and nearest to a key, by knowing all.
    pub fn truly_nearest(&self, key: &[u8], count: usize) -> Vec<PeerId> {
        let place = super::place::Place::of(key);
        let up = self.nodes.iter().filter(|node| node.is_up);
        let mut all: Vec<&Contact> = up.map(|node| &node.contact).collect();
        all.sort_by_key(|contact| contact.place.distance(&place));
        all.into_iter()
            .take(count)
            .map(|contact| contact.peer)
            .collect()
    }

    fn run(
        &mut self,
        node: usize,
        start: impl FnOnce(&mut Dht, Instant) -> LookupId,
    ) -> Option<Told> {
        let begun = self.now;
        let id = start(&mut self.nodes.get_mut(node)?.dht, begun);
        self.awaited = Some((node, id));
        self.act(node);
        while self.done.is_none() {
            let due = self.events.pop()?;
            self.now = due.at;
            self.happen(due.event);
        }
        let (ended, outcome) = self.done.take()?;
        // What was sent at the end is on its way still.
        self.pass(WAY_MAX);
        Some(Told {
            outcome,
            took: ended.saturating_duration_since(begun),
        })
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Asked {
                from,
                to,
                lookup,
                request,
            } => {
                let (Some(asking), way) = (self.nodes.get(from), self.way(from, to)) else {
                    return;
                };
                let asking = asking.contact.clone();
                let Some(asked) = self.nodes.get_mut(to).filter(|node| node.is_up) else {
                    return;
                };
                // Whoever asks is met, and found to answer too.
                asked.dht.serves(asking.clone(), None, now);
                let manner = asked.manner;
                if manner == Manner::Silent {
                    self.false_answers += 1;
                    if let Some(lookup) = lookup {
                        let by = self.nodes.get(to).map(|node| node.contact.peer);
                        let failed = by.map(|by| Event::Failed {
                            node: from,
                            by,
                            lookup,
                        });
                        failed
                            .into_iter()
                            .for_each(|failed| self.after(SILENCE, failed));
                    }
                    return;
                }
                let value = match &request {
                    super::Request::Value(key) => asked.values.get(key).cloned(),
                    _ => None,
                };
                let mut answer = asked.dht.asked(&asking.peer, request, now);
                if let Some(answer) = &mut answer {
                    answer.value = value;
                }
                self.act(to);
                if let Some(answer) = &mut answer {
                    self.falsify(answer, manner);
                }
                if let (Some(lookup), Some(answer)) = (lookup, answer) {
                    let answered = Event::Answered {
                        node: from,
                        by: to,
                        lookup,
                        answer,
                    };
                    self.after(way, answered);
                }
            }
            Event::Answered {
                node,
                by,
                lookup,
                answer,
            } => {
                let by = self.nodes.get(by).map(|node| node.contact.clone());
                if let (Some(by), Some(asking)) = (by, self.nodes.get_mut(node)) {
                    asking.dht.answered(lookup, by, None, answer, now);
                    self.act(node);
                }
            }
            Event::Failed { node, by, lookup } => {
                if let Some(asking) = self.nodes.get_mut(node) {
                    asking.dht.failed(lookup, &by, now);
                    self.act(node);
                }
            }
            Event::Tick { node } => {
                let ticking = self.nodes.get_mut(node);
                let is_due = |node: &&mut Node| node.is_up && node.ticks_at == Some(now);
                if let Some(ticking) = ticking.filter(is_due) {
                    ticking.ticks_at = None;
                    ticking.dht.tick(now);
                    self.act(node);
                }
            }
        }
    }

    fn falsify(&mut self, answer: &mut super::Answer, manner: Manner) {
        if manner == Manner::Honest {
            return;
        }
        answer.providers.clear();
        answer.value = None;
        self.false_answers += 1;
        if manner == Manner::Misleads {
            // All of its like that are up: they name each other wherever they lie.
            let like = self.nodes.iter().rev();
            let like = like.filter(|node| node.is_up && node.manner == manner);
            let like = like.map(|node| node.contact.clone());
            answer.nearer = like.take(super::BUCKET_PEERS).collect();
        }
    }

    /// Does what a node wants done.
    fn act(&mut self, number: usize) {
        while let Some(action) = self.nodes.get_mut(number).and_then(|node| node.dht.poll()) {
            match action {
                Action::Ask {
                    lookup,
                    contact,
                    request,
                } => self.send(number, contact.peer, Some(lookup), request),
                Action::Tell {
                    contact, request, ..
                } => {
                    self.send(number, contact.peer, None, request);
                }
                Action::Value { lookup, value } => {
                    if self.awaited == Some((number, lookup)) {
                        self.heard.push((self.now, value));
                    }
                }
                Action::Found { .. } => {}
                Action::Done { lookup, outcome } => {
                    if self.awaited == Some((number, lookup)) {
                        self.done = Some((self.now, outcome));
                    }
                }
            }
        }
        self.have_tick(number);
    }

    /// Has a node look at the clock again: soon while it looks for something, else now and then.
    fn have_tick(&mut self, number: usize) {
        let Some(node) = self.nodes.get_mut(number) else {
            return;
        };
        let at = self.now
            + match node.dht.is_idle() {
                true if self.rests => return,
                true => IDLE_TICK,
                false => TICK,
            };
        if node.ticks_at.is_none_or(|ticks| ticks > at) {
            node.ticks_at = Some(at);
            self.after(at - self.now, Event::Tick { node: number });
        }
    }

    fn send(
        &mut self,
        from: usize,
        peer: PeerId,
        lookup: Option<LookupId>,
        request: super::Request,
    ) {
        self.requests += 1;
        let to = self.numbers.get(&peer).copied();
        let to = to.filter(|at| self.nodes.get(*at).is_some_and(|node| node.is_up));
        match (to, lookup) {
            (Some(to), lookup) => {
                let asked = Event::Asked {
                    from,
                    to,
                    lookup,
                    request,
                };
                self.after(self.way(from, to), asked);
            }
            (None, Some(lookup)) => {
                let failed = Event::Failed {
                    node: from,
                    by: peer,
                    lookup,
                };
                self.after(SILENCE, failed);
            }
            (None, None) => {}
        }
    }

    /// How long a message takes: the same for two nodes at any time, both ways.
    fn way(&self, from: usize, to: usize) -> Duration {
        let (low, high) = (from.min(to) as u64, from.max(to) as u64);
        let mixed =
            (low.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ high).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        WAY_MIN + Duration::from_millis((mixed >> 32) % WAY_SPAN_MILLIS)
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.next += 1;
        self.events.push(Due {
            at: self.now + time,
            number: self.next,
            event,
        });
    }
}

/// Way of a message, one way.
const WAY_MIN: Duration = Duration::from_millis(5);
const WAY_SPAN_MILLIS: u64 = 115;
const WAY_MAX: Duration = Duration::from_millis(120);
/// When somebody who is gone is noticed.
const SILENCE: Duration = Duration::from_secs(5);
/// How often a node that looks for nothing looks at the clock: thousands do nothing most of the time, and the real one's
/// every [`TICK`] would be all that happens.
const IDLE_TICK: Duration = Duration::from_secs(10);
/// Records that one node keeps.
const RECORDS_MAX: usize = 10_000;

#[cfg(test)]
pub(in crate::dht) mod tests {
    use super::*;
    use std::sync::LazyLock;

    /// So many nodes that have found their places.
    fn settled(nodes: usize, seed: u64) -> Network {
        let mut network = Network::new(seed);
        for _ in 0..nodes {
            network.join();
            network.pass(Duration::from_millis(100));
        }
        network.pass(Duration::from_secs(60));
        network
    }

    /// A thousand nodes. All who want them begin with the same.
    fn thousand() -> Network {
        static THOUSAND: LazyLock<Network> = LazyLock::new(|| settled(1000, 1));
        THOUSAND.clone()
    }

    /// Some hundred nodes that guess how many they are, which they do when they look over their tables anew.
    pub(in crate::dht) fn hundreds() -> Network {
        static HUNDREDS: LazyLock<Network> = LazyLock::new(|| {
            let mut network = settled(300, 4);
            network.pass(Duration::from_secs(700));
            network
        });
        HUNDREDS.clone()
    }

    #[test]
    fn what_one_of_a_thousand_provides_any_other_finds() {
        let mut network = thousand();
        let mut hops = Vec::new();
        let mut requests = Vec::new();
        for _ in 0..100 {
            let (provider, seeker) = (network.any(), network.any());
            let key = network.key();
            network.provide(provider, key.clone()).unwrap();
            let told = network.find(seeker, key).unwrap().outcome;
            assert_eq!(told.providers, 1);
            hops.push(told.hops);
            requests.push(told.requests);
        }
        hops.sort_unstable();
        requests.sort_unstable();
        assert!(hops[50] <= 3 && hops[99] <= 5, "{hops:?}");
        assert!(requests[50] <= 30, "{requests:?}");
    }

    #[test]
    fn the_nearest_of_all_are_found() {
        let mut network = thousand();
        for _ in 0..30 {
            let (node, key) = (network.any(), network.key());
            let found = network
                .find_nearest(node, key.clone())
                .unwrap()
                .outcome
                .nearest;
            let mut true_ones = network.truly_nearest(&key, 21);
            // Nobody names the one who asks.
            let own = network.nodes[node].contact.peer;
            true_ones.retain(|peer| *peer != own);
            true_ones.truncate(20);
            let found: Vec<PeerId> = found.into_iter().map(|contact| contact.peer).collect();
            let same = found.iter().filter(|peer| true_ones.contains(peer)).count();
            assert!(same >= 19, "{same} of 20");
        }
    }

    /// Of so many keys, how many are found though 45 who keep them from others lie nearer than anybody else.
    fn found_in_a_crowd(keys: usize, manner: Manner) -> usize {
        let mut network = hundreds();
        let mut found = 0;
        for _ in 0..keys {
            let (provider, seeker, key) = (network.any(), network.any(), network.key());
            let crowd = network.crowd(&key, 45, manner);
            network.pass(Duration::from_secs(20));
            network.provide(provider, key.clone()).unwrap();
            let told = network.find(seeker, key).unwrap();
            found += told.outcome.providers;
            crowd.into_iter().for_each(|node| network.leave(node));
        }
        found
    }

    #[test]
    fn who_crowds_a_key_and_withholds_its_records_hides_nothing() {
        assert_eq!(found_in_a_crowd(4, Manner::Withholds), 4);
    }

    #[test]
    fn who_crowds_a_key_and_misleads_hides_nothing() {
        assert_eq!(found_in_a_crowd(4, Manner::Misleads), 4);
    }

    /// Somebody who knows twice as many liars, of so many networks, as there are honest nodes; and keys that these provide.
    fn poisoned(groups: u16) -> (Network, usize, Vec<Vec<u8>>) {
        let mut network = hundreds();
        let keys = (0..20)
            .map(|_| {
                let (provider, key) = (network.any(), network.key());
                network.provide(provider, key.clone()).unwrap();
                key
            })
            .collect();
        let victim = network.any();
        network.poison(victim, 600, groups);
        let known = network.nodes[victim].dht.contacts();
        let known = known.map(|contact| network.numbers[&contact.peer]);
        let liars = known.filter(|number| network.nodes[*number].manner == Manner::Misleads);
        let places = 1..=usize::from(groups) * 3;
        let liars = liars.count();
        assert!(places.contains(&liars), "{liars} of 600 are known");
        // Their joining is most of the work: done here, it is done once for all who begin with this.
        network.pass(Duration::from_secs(20));
        (network, victim, keys)
    }

    #[test]
    fn liars_of_few_networks_get_few_places_and_hide_nothing() {
        let (poisoned, victim, keys) = poisoned(4);
        for restarts in [false, true] {
            let mut network = poisoned.clone();
            if restarts {
                assert_eq!(network.restart(victim, 10), 10);
                network.pass(Duration::from_secs(60));
            }
            let mut find = |key: &Vec<u8>| network.find(victim, key.clone()).unwrap();
            let found = keys.iter().map(|key| find(key).outcome.providers);
            assert_eq!(found.sum::<usize>(), 20, "restarts: {restarts}");
        }
    }

    #[test]
    fn a_fifth_that_is_gone_hides_nothing() {
        let mut network = thousand();
        let keys: Vec<Vec<u8>> = (0..50)
            .map(|_| {
                let (provider, key) = (network.any(), network.key());
                network.provide(provider, key.clone()).unwrap();
                key
            })
            .collect();
        for _ in 0..200 {
            let node = network.any();
            network.leave(node);
        }
        for key in keys {
            let seeker = network.any();
            let told = network.find(seeker, key).unwrap().outcome;
            assert_eq!(told.providers, 1);
        }
    }
}
