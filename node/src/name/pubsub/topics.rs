//! Which names are followed, and when which of their records is told again: decisions without I/O and without a clock.
//!
//! There are at most [`TOPICS_MAX`]. A name that is followed when there are as many takes the place of the one that was
//! asked for longest ago; those that are published from here go last. Each coming and going is told to every peer that
//! speaks gossipsub, so new names wait for nothing but are not followed when there are too many of them at once.

use super::allowance::Allowance;
use libp2p::PeerId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The names that are followed.
#[derive(Debug)]
pub(super) struct Topics {
    by_name: HashMap<PeerId, Topic>,
    may_enter: Allowance,
    /// Before this, others are not looked for: too many of these searches are under way.
    may_visit_at: Instant,
    /// The place in the order of asking of who asks next.
    turn: u64,
}

#[derive(Debug)]
struct Topic {
    turn: u64,
    /// Whether it is published from here.
    is_own: bool,
    /// When a record that is no older than ours was last seen on the topic.
    told_at: Option<Instant>,
    /// When ours is told again.
    due: Option<Instant>,
    /// When others who follow it are looked for next.
    visit: Instant,
    /// Who was asked for a record lately.
    asked: Vec<(PeerId, Instant)>,
    may_change: Allowance,
}

/// What becomes of a wish to follow a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// It is followed from now on, and another is not any more.
    New { let_go: Option<PeerId> },
    /// It was before.
    Already,
    /// Too many come at once.
    TooMany,
}

impl Topics {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            by_name: HashMap::new(),
            may_enter: Allowance::new(ENTERED_AT_ONCE, ENTER_EVERY, now),
            may_visit_at: now,
            turn: 0,
        }
    }

    /// Somebody asks for the name, or (`is_own`) publishes it here.
    pub(super) fn follow(&mut self, name: PeerId, is_own: bool, now: Instant) -> Followed {
        let turn = self.turn;
        self.turn += 1;
        if let Some(topic) = self.by_name.get_mut(&name) {
            topic.turn = turn;
            topic.is_own |= is_own;
            return Followed::Already;
        }
        if !self.may_enter.take(now) && !is_own {
            return Followed::TooMany;
        }
        let let_go = match self.by_name.len() < TOPICS_MAX {
            true => None,
            false => self.idle(),
        };
        if let Some(name) = &let_go {
            self.by_name.remove(name);
        }
        let topic = Topic {
            turn,
            is_own,
            told_at: None,
            due: None,
            visit: now,
            asked: Vec::new(),
            may_change: Allowance::new(CHANGES_AT_ONCE, CHANGE_EVERY, now),
        };
        self.by_name.insert(name, topic);
        Followed::New { let_go }
    }

    /// Who was asked for longest ago.
    fn idle(&self) -> Option<PeerId> {
        let all = self.by_name.iter();
        let idle = all.min_by_key(|(_, topic)| (topic.is_own, topic.turn));
        idle.map(|(name, _)| *name)
    }

    /// Whether it was followed.
    pub(super) fn cancel(&mut self, name: &PeerId) -> bool {
        self.by_name.remove(name).is_some()
    }

    pub(super) fn follows(&self, name: &PeerId) -> bool {
        self.by_name.contains_key(name)
    }

    /// All of them, those asked for last first.
    pub(super) fn names(&self) -> Vec<PeerId> {
        let mut all: Vec<_> = self.by_name.iter().collect();
        all.sort_unstable_by_key(|(_, topic)| std::cmp::Reverse(topic.turn));
        all.into_iter().map(|(name, _)| *name).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether one more new record of a name may be passed on just now.
    pub(super) fn may_change(&mut self, name: &PeerId, now: Instant) -> bool {
        let topic = self.by_name.get_mut(name);
        topic.is_some_and(|topic| topic.may_change.take(now))
    }

    /// All who are on the topic have heard of our record, or of a newer one; `spread` is added to the time until it is
    /// told again, so that not all do it at once.
    pub(super) fn told(&mut self, name: &PeerId, spread: Duration, now: Instant) {
        if let Some(topic) = self.by_name.get_mut(name) {
            topic.told_at = Some(now);
            topic.due = Some(now + TELL_EVERY + spread);
        }
    }

    /// There is a record that nobody on the topic was told of: it is told to who comes.
    pub(super) fn untold(&mut self, name: &PeerId) {
        if let Some(topic) = self.by_name.get_mut(name) {
            (topic.told_at, topic.due) = (None, None);
        }
    }

    /// Somebody came on the topic.
    pub(super) fn joined(&mut self, name: &PeerId, now: Instant) {
        if let Some(topic) = self.by_name.get_mut(name) {
            let soon = topic.told_at.map_or(now, |told| now.max(told + TELL_LEAST));
            topic.due = Some(topic.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// When the next record is to be told, or others are to be looked for.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let may_visit = self.may_visit_at;
        let all = self.by_name.values();
        let next = all.map(|topic| {
            let visit = topic.visit.max(may_visit);
            topic.due.map_or(visit, |due| due.min(visit))
        });
        next.min()
    }

    /// A name of which others who follow it are to be looked for now. They are again after hours.
    pub(super) fn take_unvisited(&mut self, now: Instant) -> Option<PeerId> {
        if now < self.may_visit_at {
            return None;
        }
        let mut all = self.by_name.iter_mut();
        let (name, topic) = all.find(|(_, topic)| topic.visit <= now)?;
        topic.visit = now + VISIT_EVERY;
        Some(*name)
    }

    /// There is no room to look for others just now.
    pub(super) fn put_off(&mut self, name: &PeerId, now: Instant) {
        self.may_visit_at = now + VISIT_LATER;
        if let Some(topic) = self.by_name.get_mut(name) {
            topic.visit = now;
        }
    }

    /// A name whose record is to be told now. It is due no more.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<PeerId> {
        let mut all = self.by_name.iter_mut();
        let (name, topic) = all.find(|(_, topic)| topic.due.is_some_and(|due| due <= now))?;
        topic.due = None;
        Some(*name)
    }

    /// Whether a peer that is on the topic is to be asked for its record. It counts as asked then.
    pub(super) fn ask(&mut self, name: &PeerId, peer: PeerId, now: Instant) -> bool {
        let Some(topic) = self.by_name.get_mut(name) else {
            return false;
        };
        topic
            .asked
            .retain(|(_, at)| now.saturating_duration_since(*at) < ASK_AGAIN);
        let was_asked = topic.asked.iter().any(|(asked, _)| *asked == peer);
        let is_asked = !was_asked && topic.asked.len() < ASKED_MAX;
        if is_asked {
            topic.asked.push((peer, now));
        }
        is_asked
    }
}

/// Names followed at once.
pub(super) const TOPICS_MAX: usize = 1024;
/// How many may be new at once: a start that follows all names of a busy node.
const ENTERED_AT_ONCE: u32 = 256;
/// How long until one more may be.
const ENTER_EVERY: Duration = Duration::from_millis(200);
/// How often a record is told again, as Kubo does it.
const TELL_EVERY: Duration = Duration::from_secs(600);
/// How long after it was told those who come have to wait; they ask by themselves as well.
const TELL_LEAST: Duration = Duration::from_secs(60);
/// New records of one name that are passed on at once.
const CHANGES_AT_ONCE: u32 = 16;
/// How long until there may be one more.
const CHANGE_EVERY: Duration = Duration::from_secs(1);
/// How often others who follow a name are looked for, and told that it is followed here: as go-libp2p does it.
const VISIT_EVERY: Duration = Duration::from_secs(3 * 3600);
/// How long until it is tried again where there was no room.
const VISIT_LATER: Duration = Duration::from_secs(5);
/// Peers that are asked for one name's record within [`ASK_AGAIN`].
pub(super) const ASKED_MAX: usize = 8;
/// How long after it was asked a peer is not asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn full(topics: &mut Topics, now: Instant) -> Vec<PeerId> {
        let names: Vec<PeerId> = (0..TOPICS_MAX).map(|_| PeerId::random()).collect();
        for name in &names {
            let long_after = now + ENTER_EVERY * u32::try_from(topics.len()).unwrap();
            assert_eq!(
                topics.follow(*name, false, long_after),
                Followed::New { let_go: None }
            );
        }
        names
    }

    #[test]
    fn the_name_asked_for_longest_ago_makes_room_and_those_of_this_node_stay() {
        let start = Instant::now();
        let mut topics = Topics::new(start);
        let names = full(&mut topics, start);
        let later = start + ENTER_EVERY * 10_000;
        assert_eq!(topics.follow(names[0], false, later), Followed::Already);
        assert_eq!(topics.follow(names[1], true, later), Followed::Already);
        for expected in &names[2..4] {
            let let_go = Some(*expected);
            let new = topics.follow(PeerId::random(), false, later);
            assert_eq!(new, Followed::New { let_go });
        }
        assert_eq!(topics.len(), TOPICS_MAX);
        assert!(topics.follows(&names[0]) && topics.follows(&names[1]));
        // However many come, what is published here stays.
        for turn in 0..2 * TOPICS_MAX {
            let at = later + ENTER_EVERY * u32::try_from(turn).unwrap();
            topics.follow(PeerId::random(), false, at);
        }
        assert_eq!(topics.len(), TOPICS_MAX);
        assert!(!topics.follows(&names[0]) && topics.follows(&names[1]));
    }

    #[test]
    fn too_many_new_names_at_once_are_not_followed_but_those_of_this_node_are() {
        let start = Instant::now();
        let mut topics = Topics::new(start);
        let came = (0..10 * ENTERED_AT_ONCE)
            .filter(|_| topics.follow(PeerId::random(), false, start) != Followed::TooMany);
        assert_eq!(came.count(), ENTERED_AT_ONCE as usize);
        let own = topics.follow(PeerId::random(), true, start);
        assert_eq!(own, Followed::New { let_go: None });
        let next = topics.follow(PeerId::random(), false, start + ENTER_EVERY);
        assert_eq!(next, Followed::New { let_go: None });
    }

    #[test]
    fn a_record_is_told_now_and_then_and_to_who_comes_and_not_to_everybody_who_comes() {
        let start = Instant::now();
        let (mut topics, name) = (Topics::new(start), PeerId::random());
        topics.follow(name, false, start);
        assert_eq!(topics.take_unvisited(start), Some(name));
        assert_eq!(topics.next_due(), Some(start + VISIT_EVERY));
        // Nobody was there when it was published.
        topics.untold(&name);
        topics.joined(&name, start);
        assert_eq!(topics.take_due(start), Some(name));
        assert_eq!(topics.take_due(start), None);
        topics.told(&name, Duration::ZERO, start);
        assert_eq!(topics.next_due(), Some(start + TELL_EVERY));
        topics.joined(&name, start + Duration::from_secs(1));
        topics.joined(&name, start + Duration::from_secs(2));
        assert_eq!(topics.next_due(), Some(start + TELL_LEAST));
        let late = start + TELL_EVERY * 2;
        topics.told(&name, Duration::ZERO, start);
        topics.joined(&name, late);
        assert_eq!(
            topics.next_due(),
            Some(start + TELL_EVERY),
            "it was due before"
        );
        assert!(topics.cancel(&name));
        assert_eq!((topics.next_due(), topics.cancel(&name)), (None, false));
    }

    #[test]
    fn others_who_follow_a_name_are_looked_for_every_few_hours_and_later_if_there_is_no_room() {
        let start = Instant::now();
        let (mut topics, name) = (Topics::new(start), PeerId::random());
        topics.follow(name, false, start);
        assert_eq!(topics.next_due(), Some(start));
        assert_eq!(topics.take_unvisited(start), Some(name));
        topics.put_off(&name, start);
        assert_eq!(topics.take_unvisited(start), None);
        let later = start + VISIT_LATER;
        assert_eq!(topics.next_due(), Some(later));
        assert_eq!(topics.take_unvisited(later), Some(name));
        assert_eq!(topics.take_unvisited(later), None);
        assert_eq!(topics.next_due(), Some(later + VISIT_EVERY));
    }

    #[test]
    fn a_peer_is_asked_once_in_a_while_and_few_are() {
        let start = Instant::now();
        let (mut topics, name) = (Topics::new(start), PeerId::random());
        assert!(
            !topics.ask(&name, PeerId::random(), start),
            "nobody follows it"
        );
        topics.follow(name, false, start);
        let peer = PeerId::random();
        assert!(topics.ask(&name, peer, start));
        assert!(!topics.ask(&name, peer, start + ASK_AGAIN / 2));
        let more = (0..100).filter(|_| topics.ask(&name, PeerId::random(), start));
        assert_eq!(more.count(), ASKED_MAX - 1);
        assert!(topics.ask(&name, peer, start + ASK_AGAIN));
    }

    #[test]
    fn a_name_that_changes_all_the_time_is_passed_on_no_faster_than_it_may() {
        let start = Instant::now();
        let (mut topics, name) = (Topics::new(start), PeerId::random());
        topics.follow(name, false, start);
        let passed = (0..100).filter(|_| topics.may_change(&name, start));
        assert_eq!(passed.count(), CHANGES_AT_ONCE as usize);
        assert!(topics.may_change(&name, start + CHANGE_EVERY));
    }
}
