//! One lookup: who is asked next on the way to a place, and when it is over.
//!
//! Everybody asked names those it knows that are nearer. Whoever is named belongs to the *path* of who named it
//! first; the first ones are dealt out to [`PATHS`] paths. Paths take turns, so somebody who names only friends
//! misleads one of them. A path is over when the [`SURE`] nearest of it that can be reached have answered,
//! the lookup when all are, and, if the nearest themselves are wanted, when those have answered too.
//!
//! Who takes long no longer counts among those under way, so that a few slow ones hold nothing up; and who takes very
//! long is not waited for at the end, though its answer counts as long as the lookup goes on.

use super::place::{Distance, Place};
use super::table::{BUCKET_PEERS, Contact};
use libp2p::PeerId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

/// A walk towards a place.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    local: Place,
    target: Place,
    want: Want,
    begun: Instant,
    paths: Vec<Path>,
    /// Everybody on any path.
    known: HashSet<Distance>,
    asked: HashMap<PeerId, Asked>,
    /// Whose turn it is.
    turn: usize,
    requests: usize,
    /// Whether anybody has answered yet: before that nobody is late.
    is_answered: bool,
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// The nearest peers.
    Nearest,
    /// The same, and all others that share so many bits with the place, so that the nearest to any
    /// other place of that region are among them.
    Region { bits: u32 },
    /// The nearest peers, whether they answer or not, as soon as enough are known that lie so near.
    Soon { within: Distance },
    /// What those near it keep.
    Records,
    /// What each of the first ones keeps. Whom they name is not asked.
    Each,
}

#[derive(Debug, Clone, Default)]
struct Path {
    candidates: BTreeMap<Distance, Candidate>,
    /// How many of them wait to be asked.
    heard: usize,
}

#[derive(Debug, Clone)]
struct Candidate {
    contact: Contact,
    /// Requests one after the other that led to it.
    hops: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Heard,
    Asked,
    /// It has not answered for [`LATE`].
    Late,
    Answered,
    Failed,
}

impl State {
    /// Whether it answered, or may be expected to.
    fn may_answer(self) -> bool {
        !matches!(self, Self::Failed | Self::Late)
    }
}

/// Somebody who has not answered yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    path: usize,
    distance: Distance,
    at: Instant,
}

impl Lookup {
    /// From `first`, the nearest of whom we know.
    pub(super) fn new(
        local: Place,
        target: Place,
        want: Want,
        first: Vec<Contact>,
        now: Instant,
    ) -> Self {
        let paths = first.len().clamp(1, PATHS);
        let mut this = Self {
            local,
            target,
            want,
            begun: now,
            paths: std::iter::repeat_with(Path::default).take(paths).collect(),
            known: HashSet::new(),
            asked: HashMap::new(),
            turn: 0,
            requests: 0,
            is_answered: false,
        };
        for (at, contact) in first.into_iter().enumerate() {
            this.hear(contact, at % paths, 1);
        }
        this
    }

    /// Gives up waiting for who was asked long ago.
    fn mark_late(&mut self, now: Instant) {
        if !self.is_answered {
            return;
        }
        let is_late = |asked: &&Asked| now.saturating_duration_since(asked.at) >= LATE;
        for asked in self.asked.values().filter(is_late) {
            let path = self.paths.get_mut(asked.path);
            if let Some(candidate) = path.and_then(|path| path.candidates.get_mut(&asked.distance))
            {
                candidate.state = State::Late;
            }
        }
    }

    /// Whom to ask now; `None` if that depends on answers, or on time.
    pub(super) fn next(&mut self, now: Instant) -> Option<Contact> {
        self.mark_late(now);
        if self.requests >= REQUESTS_MAX || self.under_way(now) >= PARALLEL {
            return None;
        }
        let next = self.next_of_paths(now).or_else(|| self.next_of_nearest());
        let (path, distance) = next?;
        let on_path = self.paths.get_mut(path)?;
        let candidate = on_path.candidates.get_mut(&distance)?;
        candidate.state = State::Asked;
        on_path.heard -= 1;
        let asked = Asked {
            path,
            distance,
            at: now,
        };
        self.asked.insert(candidate.contact.peer, asked);
        self.requests += 1;
        Some(candidate.contact.clone())
    }

    fn next_of_paths(&mut self, now: Instant) -> Option<(usize, Distance)> {
        let each = PARALLEL.div_ceil(self.paths.len());
        for _ in 0..self.paths.len() {
            let at = self.turn;
            self.turn = (self.turn + 1) % self.paths.len();
            let Some(path) = self.paths.get(at).filter(|path| !path.is_over(self.want)) else {
                continue;
            };
            let under_way = self.quick(now).filter(|asked| asked.path == at).count();
            if under_way < each
                && let Some(distance) = path.nearest_heard()
            {
                return Some((at, distance));
            }
        }
        None
    }

    /// Of the nearest of all, once the paths are over.
    fn next_of_nearest(&self) -> Option<(usize, Distance)> {
        let are_wanted = !matches!(self.want, Want::Records | Want::Each);
        if !are_wanted || !self.are_paths_over() {
            return None;
        }
        let nearest = self.nearest_reachable().into_iter();
        let mut heard = nearest.filter(|(_, _, candidate)| candidate.state == State::Heard);
        heard.next().map(|(path, distance, _)| (path, distance))
    }

    /// A peer answered and named others; gives how many requests led to it. `None` if it was not asked.
    pub(super) fn answered(&mut self, peer: &PeerId, named: Vec<Contact>) -> Option<u32> {
        let (path, hops) = self.over(peer, State::Answered)?;
        self.is_answered = true;
        if self.want != Want::Each {
            for contact in named.into_iter().take(BUCKET_PEERS) {
                self.hear(contact, path, hops + 1);
            }
        }
        Some(hops)
    }

    /// A peer does not answer.
    pub(super) fn failed(&mut self, peer: &PeerId) {
        self.over(peer, State::Failed);
    }

    fn over(&mut self, peer: &PeerId, state: State) -> Option<(usize, u32)> {
        let asked = self.asked.remove(peer)?;
        let path = self.paths.get_mut(asked.path)?;
        let candidate = path.candidates.get_mut(&asked.distance)?;
        candidate.state = state;
        Some((asked.path, candidate.hops))
    }

    /// Whether nobody need be asked, nor waited for, any more.
    pub(super) fn is_done(&mut self, now: Instant) -> bool {
        self.mark_late(now);
        if now.saturating_duration_since(self.begun) >= TIME_MAX {
            return true;
        }
        if self.requests >= REQUESTS_MAX {
            let is_late = |asked: &Asked| now.saturating_duration_since(asked.at) >= LATE;
            return self.asked.is_empty() || self.is_answered && self.asked.values().all(is_late);
        }
        if self.is_soon_enough() {
            return true;
        }
        if !self.are_paths_over() {
            return false;
        }
        let is_over = |candidate: &Candidate| candidate.state == State::Answered;
        let nearest = match self.want {
            Want::Records | Want::Each => return true,
            Want::Nearest | Want::Region { .. } | Want::Soon { .. } => self.nearest_reachable(),
        };
        nearest
            .into_iter()
            .all(|(_, _, candidate)| is_over(candidate))
    }

    /// Whether so many lie so near already that the nearest of all must be among them.
    fn is_soon_enough(&self) -> bool {
        let Want::Soon { within } = self.want else {
            return false;
        };
        let nearest = self.nearest_reachable();
        let answered = nearest.iter();
        let answered = answered.filter(|(_, _, candidate)| candidate.state == State::Answered);
        answered.count() >= SURE
            && nearest.len() >= BUCKET_PEERS
            && nearest.iter().all(|(_, distance, _)| *distance <= within)
    }

    /// The nearest that answered, or that are known, if that is soon enough.
    pub(super) fn nearest(&self) -> Vec<Contact> {
        let nearest = match self.is_soon_enough() {
            true => self.nearest_reachable(),
            false => self.nearest_of(|state| state == State::Answered),
        };
        nearest
            .into_iter()
            .map(|(_, _, candidate)| candidate.contact.clone())
            .collect()
    }

    /// All that answered and are no further from a place than `within`.
    pub(super) fn answered_near(&self, place: &Place, within: Distance) -> Vec<Contact> {
        let all = self.paths.iter().flat_map(|path| path.candidates.values());
        let answered = all.filter(|candidate| candidate.state == State::Answered);
        let near = answered.filter(|candidate| candidate.contact.place.distance(place) <= within);
        near.map(|candidate| candidate.contact.clone()).collect()
    }

    /// Requests made.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// The most requests one after the other that led to any of the nearest.
    pub(super) fn hops(&self) -> u32 {
        let nearest = self
            .nearest_of(|state| state == State::Answered)
            .into_iter();
        nearest
            .map(|(_, _, candidate)| candidate.hops)
            .max()
            .unwrap_or(0)
    }

    fn hear(&mut self, contact: Contact, at: usize, hops: u32) {
        let distance = contact.place.distance(&self.target);
        let Some(path) = self.paths.get_mut(at) else {
            return;
        };
        if contact.place == self.local || !self.known.insert(distance) {
            return;
        }
        if path.heard >= HEARD_MAX {
            let furthest = path.candidates.iter().rev();
            let mut heard = furthest.filter(|(_, candidate)| candidate.state == State::Heard);
            let furthest = heard.next().map(|(furthest, _)| *furthest);
            let Some(furthest) = furthest.filter(|furthest| *furthest > distance) else {
                self.known.remove(&distance);
                return;
            };
            path.candidates.remove(&furthest);
            path.heard -= 1;
            self.known.remove(&furthest);
        }
        let candidate = Candidate {
            contact,
            hops,
            state: State::Heard,
        };
        path.candidates.insert(distance, candidate);
        path.heard += 1;
    }

    fn nearest_reachable(&self) -> Vec<(usize, Distance, &Candidate)> {
        self.nearest_of(State::may_answer)
    }

    /// The nearest of all paths that are in such a state, and all others of the region that is wanted.
    fn nearest_of(&self, is_meant: fn(State) -> bool) -> Vec<(usize, Distance, &Candidate)> {
        let mut nearest: Vec<_> = Vec::new();
        let most = match self.want {
            Want::Region { .. } => REQUESTS_MAX,
            _ => BUCKET_PEERS,
        };
        for (at, path) in self.paths.iter().enumerate() {
            let meant = path.candidates.iter();
            let meant = meant.filter(|(_, candidate)| is_meant(candidate.state));
            let meant = meant.take(most);
            nearest.extend(meant.map(|(distance, candidate)| (at, *distance, candidate)));
        }
        nearest.sort_by_key(|(_, distance, _)| *distance);
        nearest.truncate(self.wanted(&nearest));
        nearest
    }

    /// How many of them are wanted.
    fn wanted(&self, nearest: &[(usize, Distance, &Candidate)]) -> usize {
        let last = nearest.get(BUCKET_PEERS - 1);
        let (Some((_, last, _)), Want::Region { bits }) = (last, self.want) else {
            return BUCKET_PEERS;
        };
        // A region of fewer than a bucket's nodes does not keep all records of its keys.
        let bits = bits.min(last.zeros());
        nearest.partition_point(|(_, distance, _)| distance.zeros() >= bits)
    }

    fn are_paths_over(&self) -> bool {
        self.paths.iter().all(|path| path.is_over(self.want))
    }

    /// Those who were asked not long ago, or at least as many as are more than may be slow.
    fn under_way(&self, now: Instant) -> usize {
        let quick = self.quick(now).count();
        quick.max(self.asked.len().saturating_sub(PARALLEL))
    }

    fn quick(&self, now: Instant) -> impl Iterator<Item = &Asked> {
        let is_quick = move |asked: &&Asked| now.saturating_duration_since(asked.at) < PATIENCE;
        self.asked.values().filter(is_quick)
    }
}

impl Path {
    fn is_over(&self, want: Want) -> bool {
        let sure = match want {
            Want::Nearest | Want::Region { .. } | Want::Soon { .. } | Want::Records => SURE,
            Want::Each => usize::MAX,
        };
        let reachable = self.candidates.values();
        let reachable = reachable.filter(|candidate| candidate.state.may_answer());
        let mut sure = reachable.take(sure);
        sure.all(|candidate| candidate.state == State::Answered)
    }

    fn nearest_heard(&self) -> Option<Distance> {
        if self.heard == 0 {
            return None;
        }
        let all = self.candidates.iter();
        let mut heard = all.filter(|(_, candidate)| candidate.state == State::Heard);
        heard.next().map(|(distance, _)| *distance)
    }
}

/// Requests under way at once: `α`.
const PARALLEL: usize = 10;
/// So many of the nearest must have answered: `β`.
const SURE: usize = 3;
/// Ways that have nobody in common.
const PATHS: usize = 3;
/// Named peers of one path that wait to be asked; the furthest go.
const HEARD_MAX: usize = 128;
/// Requests of one lookup.
const REQUESTS_MAX: usize = 200;
/// Who takes longer no longer holds others up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who takes longer is not waited for: a dial that nobody answers takes far longer.
const LATE: Duration = Duration::from_secs(3);
/// Longest time of one lookup.
const TIME_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::tests::{contact, contacts};

    const LOCAL: u64 = 0;

    fn target() -> Place {
        Place::of(b"target")
    }

    fn lookup(want: Want, first: Vec<Contact>, now: Instant) -> Lookup {
        Lookup::new(contact(LOCAL).place, target(), want, first, now)
    }

    fn by_distance(mut contacts: Vec<Contact>) -> Vec<Contact> {
        contacts.sort_by_key(|contact| contact.place.distance(&target()));
        contacts
    }

    fn all_next(lookup: &mut Lookup, now: Instant) -> Vec<Contact> {
        std::iter::from_fn(|| lookup.next(now)).collect()
    }

    #[test]
    fn ten_are_asked_at_once_and_more_when_those_are_slow() {
        let now = Instant::now();
        let mut lookup = lookup(Want::Nearest, contacts(1..=60), now);
        assert_eq!(all_next(&mut lookup, now).len(), PARALLEL);
        assert_eq!(all_next(&mut lookup, now + PATIENCE / 2).len(), 0);
        assert_eq!(all_next(&mut lookup, now + PATIENCE).len(), PARALLEL);
        assert_eq!(all_next(&mut lookup, now + PATIENCE * 3).len(), 0);
    }

    #[test]
    fn it_ends_with_the_nearest_of_all_who_answer() {
        let now = Instant::now();
        let all = by_distance(contacts(1..=500));
        // The nearest two are not there.
        let gone = &all[..2];
        let mut lookup = lookup(Want::Nearest, all[400..420].to_vec(), now);
        let mut asked = HashSet::new();
        while !lookup.is_done(now) {
            let next = lookup.next(now).unwrap();
            assert!(asked.insert(next.peer), "asked twice");
            if gone.contains(&next) {
                lookup.failed(&next.peer);
                continue;
            }
            // Everybody knows some that are nearer.
            let at = all.iter().position(|other| *other == next).unwrap();
            let named = all[at / 2..at / 2 + BUCKET_PEERS].to_vec();
            assert!(lookup.answered(&next.peer, named).is_some());
        }
        assert_eq!(lookup.nearest(), all[2..2 + BUCKET_PEERS]);
        assert!((5..=9).contains(&lookup.hops()), "{}", lookup.hops());
        assert!(lookup.requests() < 100, "{}", lookup.requests());
        assert_eq!(lookup.next(now), None);
    }

    #[test]
    fn one_who_names_only_friends_misleads_one_path() {
        let now = Instant::now();
        let all = by_distance(contacts(1..=2000));
        // The friends are nearer than all honest ones, and name only each other.
        let (friends, honest) = all.split_at(200);
        let mut first = honest[1500..1500 + PATHS].to_vec();
        let liar = first[0].clone();
        first.sort_by_key(|contact| contact.peer);
        let mut lookup = lookup(Want::Records, first, now);
        let mut honest_asked = Vec::new();
        while !lookup.is_done(now) {
            let Some(next) = lookup.next(now) else {
                panic!("it waits for nobody");
            };
            if next == liar || friends.contains(&next) {
                let named = friends.iter().rev().take(BUCKET_PEERS).cloned();
                lookup.answered(&next.peer, named.collect());
                continue;
            }
            honest_asked.push(next.clone());
            let at = honest.iter().position(|other| *other == next).unwrap();
            let named = honest[at / 2..at / 2 + BUCKET_PEERS].to_vec();
            lookup.answered(&next.peer, named);
        }
        // The nearest of the honest was reached all the same.
        assert!(honest_asked.contains(&honest[0]), "{}", honest_asked.len());
    }

    #[test]
    fn who_takes_very_long_is_not_waited_for_once_somebody_has_answered() {
        for want in [Want::Records, Want::Nearest, Want::Each] {
            let now = Instant::now();
            let mut lookup = lookup(want, contacts(1..=5), now);
            let asked = all_next(&mut lookup, now);
            assert_eq!(asked.len(), 5);
            assert!(!lookup.is_done(now + LATE * 2), "nobody is there yet");
            let (slow, quick) = asked.split_first().unwrap();
            for contact in &quick[1..] {
                lookup.answered(&contact.peer, Vec::new());
            }
            lookup.failed(&quick[0].peer);
            assert!(!lookup.is_done(now + LATE / 2));
            let mut in_time = lookup.clone();
            assert!(lookup.is_done(now + LATE));
            assert_eq!(lookup.nearest(), by_distance(quick[1..].to_vec()));
            // What it says counts for as long as the lookup goes on.
            in_time.mark_late(now + LATE);
            in_time.answered(&slow.peer, contacts(6..=6));
            assert!(in_time.nearest().contains(slow));
            assert_eq!(
                in_time.is_done(now + LATE),
                want == Want::Each,
                "one more is to be asked"
            );
        }
    }

    #[test]
    fn silence_and_endless_answers_end_too() {
        let now = Instant::now();
        let mut silent = lookup(Want::Records, contacts(1..=20), now);
        all_next(&mut silent, now);
        assert!(!silent.is_done(now + TIME_MAX / 2));
        assert!(silent.is_done(now + TIME_MAX));
        assert_eq!(silent.asked.len(), PARALLEL);

        let mut endless = lookup(Want::Nearest, contacts(1..=20), now);
        let mut number = 100;
        while !endless.is_done(now) {
            let next = endless.next(now).unwrap();
            number += 20;
            endless.answered(&next.peer, contacts(number..=number + 19));
            let all: usize = endless.paths.iter().map(|path| path.candidates.len()).sum();
            assert!(all <= REQUESTS_MAX + PATHS * HEARD_MAX);
            assert_eq!(endless.known.len(), all);
        }
        assert!(endless.requests() <= REQUESTS_MAX);
    }

    #[test]
    fn who_was_not_asked_is_not_heard() {
        let now = Instant::now();
        let mut lookup = lookup(Want::Nearest, contacts(1..=2), now);
        assert_eq!(lookup.answered(&contact(7).peer, contacts(8..=9)), None);
        lookup.failed(&contact(1).peer);
        assert_eq!(all_next(&mut lookup, now).len(), 2);
    }
}
