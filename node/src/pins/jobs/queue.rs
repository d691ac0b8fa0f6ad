//! Whose turn it is, without a clock, a disk and a network: the jobs, in what state each is, and when it is looked at again.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What a job is found by: the key of its pin.
pub(super) type Key = Vec<u8>;

/// All jobs.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: BTreeMap<Key, Entry>,
    running: usize,
    at_once: usize,
    turns: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Those of higher priority first, then those that came first.
    pub(super) order: (Reverse<i32>, u64),
    pub(super) phase: Phase,
    /// Attempts in a row that got no further.
    failures: u32,
    /// Most blocks that an attempt has seen.
    furthest: u64,
}

/// A job's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) key: Key,
    /// Each turn has its own.
    pub(super) turn: u64,
    /// The job's number when it began. One that is changed meanwhile has another: what comes of the turn is not its.
    pub(super) number: u64,
}

/// What a job does just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Queued,
    /// In this turn.
    Running(u64),
    /// Somebody is slow or gone, or the disk is full.
    Waiting {
        until: Instant,
        why: String,
    },
    Failed {
        why: String,
    },
}

impl Queue {
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            jobs: BTreeMap::new(),
            running: 0,
            at_once,
            turns: 0,
        }
    }

    /// Puts a job in its place; one that runs goes on.
    pub(super) fn add(&mut self, key: Key, priority: i32, number: u64, phase: Phase) {
        let order = (Reverse(priority), number);
        match self.jobs.get_mut(&key) {
            Some(entry) => {
                (entry.order, entry.failures, entry.furthest) = (order, 0, 0);
                if !entry.runs() {
                    entry.phase = phase;
                }
            }
            None => {
                let entry = Entry {
                    order,
                    phase,
                    failures: 0,
                    furthest: 0,
                };
                self.jobs.insert(key, entry);
            }
        }
    }

    /// Takes a job out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.jobs.remove(key)?;
        self.running -= usize::from(entry.runs());
        Some(entry)
    }

    /// Takes out a job that has this turn; false if it has not.
    pub(super) fn end(&mut self, turn: &Turn) -> bool {
        let has_it = |entry: &Entry| entry.phase == Phase::Running(turn.turn);
        self.get(&turn.key).is_some_and(has_it) && self.remove(&turn.key).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.jobs.get(key)
    }

    /// All of them in the order in which they have their turns.
    pub(super) fn ordered(&self) -> Vec<(Key, Entry)> {
        let all = self.jobs.iter();
        let mut all: Vec<_> = all
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        all.sort_by_key(|(_, entry)| entry.order);
        all
    }

    /// The next one to run, if there is one and room for it.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Turn> {
        if self.running >= self.at_once {
            return None;
        }
        let due = |entry: &Entry| match entry.phase {
            Phase::Queued => true,
            Phase::Waiting { until, .. } => until <= now,
            Phase::Running(_) | Phase::Failed { .. } => false,
        };
        let ready = self.jobs.iter_mut().filter(|(_, entry)| due(entry));
        let (key, entry) = ready.min_by_key(|(_, entry)| entry.order)?;
        self.turns += 1;
        entry.phase = Phase::Running(self.turns);
        self.running += 1;
        Some(Turn {
            key: key.clone(),
            turn: self.turns,
            number: entry.order.1,
        })
    }

    /// When one that waits is due, if there is room for it.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.jobs.values().filter_map(|entry| match entry.phase {
            Phase::Waiting { until, .. } => Some(until),
            _ => None,
        });
        waiting.min().filter(|_| self.running < self.at_once)
    }

    /// One is to begin anew at once.
    pub(super) fn again(&mut self, turn: &Turn) {
        self.leave(turn, |_| Phase::Queued);
    }

    /// One came this far and is tried again after a while: later and later as long as it gets no further.
    pub(super) fn wait(&mut self, turn: &Turn, why: String, blocks: u64, now: Instant) {
        self.leave(turn, |entry| {
            if blocks > entry.furthest {
                (entry.furthest, entry.failures) = (blocks, 0);
            }
            let pause = WAIT_FIRST * 2_u32.saturating_pow(entry.failures.min(DOUBLED_MAX));
            entry.failures = entry.failures.saturating_add(1);
            let until = now + pause.min(WAIT_LONGEST);
            Phase::Waiting { until, why }
        });
    }

    /// One cannot be done.
    pub(super) fn fail(&mut self, turn: &Turn, why: String) {
        self.leave(turn, |_| Phase::Failed { why });
    }

    /// Has one that waits or failed tried again at once; false if there is none, or it has not got to wait.
    pub(super) fn retry(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.jobs.get_mut(key) else {
            return false;
        };
        let waits = matches!(entry.phase, Phase::Waiting { .. } | Phase::Failed { .. });
        if waits {
            (entry.phase, entry.failures) = (Phase::Queued, 0);
        }
        waits
    }

    /// A turn is over; what came of it is told of the job that had it, not of one that was asked for meanwhile.
    fn leave(&mut self, turn: &Turn, into: impl FnOnce(&mut Entry) -> Phase) {
        let running = self.jobs.get_mut(&turn.key);
        let Some(entry) = running.filter(|entry| entry.phase == Phase::Running(turn.turn)) else {
            return;
        };
        entry.phase = match entry.order.1 == turn.number {
            true => into(entry),
            false => Phase::Queued,
        };
        self.running -= 1;
    }
}

impl Entry {
    const fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }
}

/// How long a job waits after its first attempt in vain.
const WAIT_FIRST: Duration = Duration::from_secs(10);
/// And at most.
const WAIT_LONGEST: Duration = Duration::from_secs(3600);
/// How often the time doubles: by then it is longer than the longest.
const DOUBLED_MAX: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(at_once: usize, jobs: &[(u8, i32)]) -> Queue {
        let mut queue = Queue::new(at_once);
        for (number, (key, priority)) in (0..).zip(jobs) {
            queue.add(vec![*key], *priority, number, Phase::Queued);
        }
        queue
    }

    fn begun(queue: &mut Queue, now: Instant) -> Vec<u8> {
        let begun = std::iter::from_fn(|| queue.begin(now));
        begun.flat_map(|turn| turn.key).collect()
    }

    fn begin(queue: &mut Queue, now: Instant, key: u8) -> Turn {
        let turn = queue.begin(now).unwrap();
        assert_eq!(turn.key, [key]);
        turn
    }

    #[test]
    fn a_bounded_number_runs_those_of_higher_priority_first_then_in_their_order() {
        let now = Instant::now();
        let mut queue = queue(2, &[(1, 0), (2, 5), (3, 5), (4, -1)]);
        let two = begin(&mut queue, now, 2);
        assert_eq!(begun(&mut queue, now), [3]);
        queue.remove(&[3]);
        assert_eq!(begun(&mut queue, now), [1]);
        queue.fail(&two, "no".to_owned());
        assert_eq!(begun(&mut queue, now), [4]);
        assert_eq!(begun(&mut queue, now), [0; 0]);
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn who_waits_holds_no_place_and_comes_back_later_and_later() {
        let mut now = Instant::now();
        let mut queue = queue(1, &[(1, 9), (2, 0)]);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let one = begin(&mut queue, now, 1);
            queue.wait(&one, "slow".to_owned(), 7, now);
            let due = queue.next_due().unwrap();
            pauses.push((due - now).as_secs());
            let two = begin(&mut queue, now, 2);
            assert_eq!(queue.next_due(), None, "there is no room");
            queue.again(&two);
            now = due;
        }
        assert_eq!(
            pauses,
            [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
        );
        // It got further.
        let one = begin(&mut queue, now, 1);
        queue.wait(&one, "slow".to_owned(), 8, now);
        assert_eq!(queue.next_due(), Some(now + WAIT_FIRST));
    }

    #[test]
    fn retrying_takes_those_that_wait_or_failed() {
        let now = Instant::now();
        let mut queue = queue(3, &[(1, 0), (2, 0), (3, 0)]);
        assert!(!queue.retry(&[1]), "it is its turn anyway");
        let [one, two] = [1, 2].map(|key| begin(&mut queue, now, key));
        begin(&mut queue, now, 3);
        queue.wait(&one, "slow".to_owned(), 0, now);
        queue.fail(&two, "denied".to_owned());
        assert_eq!(begun(&mut queue, now), [0; 0]);
        assert!(queue.retry(&[1]) && queue.retry(&[2]));
        assert!(!queue.retry(&[3]) && !queue.retry(&[4]));
        assert_eq!(begun(&mut queue, now), [1, 2]);
    }

    #[test]
    fn what_was_taken_out_while_it_ran_stays_out() {
        let now = Instant::now();
        let mut queue = queue(1, &[(1, 0), (2, 0)]);
        let one = begin(&mut queue, now, 1);
        let late = |queue: &mut Queue| {
            queue.wait(&one, "late".to_owned(), 0, now);
            queue.fail(&one, "late".to_owned());
            queue.again(&one);
            assert!(!queue.end(&one));
        };
        assert!(queue.remove(&[1]).is_some() && queue.remove(&[1]).is_none());
        late(&mut queue);
        assert_eq!(begun(&mut queue, now), [2]);
        assert_eq!(queue.len(), 1);
        // Nor does it say anything of one that is asked for after it and has its turn by now.
        queue.remove(&[2]);
        queue.add(vec![1], 0, 5, Phase::Queued);
        let other = begin(&mut queue, now, 1);
        late(&mut queue);
        assert_eq!(queue.get(&[1]).unwrap().phase, Phase::Running(other.turn));
        assert!(queue.end(&other));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_comes_of_a_turn_is_not_told_of_a_job_that_was_changed_meanwhile() {
        let now = Instant::now();
        let mut queue = queue(1, &[(1, 0)]);
        let turn = begin(&mut queue, now, 1);
        queue.add(vec![1], 0, 10, Phase::Queued);
        queue.wait(&turn, "slow".to_owned(), 3, now);
        assert_eq!(queue.get(&[1]).unwrap().phase, Phase::Queued);
        let turn = begin(&mut queue, now, 1);
        queue.add(vec![1], 0, 11, Phase::Queued);
        queue.fail(&turn, "no".to_owned());
        assert_eq!(queue.get(&[1]).unwrap().phase, Phase::Queued);
        let turn = begin(&mut queue, now, 1);
        queue.fail(&turn, "no".to_owned());
        let why = "no".to_owned();
        assert_eq!(queue.get(&[1]).unwrap().phase, Phase::Failed { why });
    }

    #[test]
    fn one_that_is_added_again_takes_its_new_place_and_goes_on_if_it_runs() {
        let now = Instant::now();
        let mut queue = queue(1, &[(1, 0), (2, 0)]);
        let one = begin(&mut queue, now, 1);
        queue.add(vec![1], 3, 9, Phase::Queued);
        assert_eq!(queue.get(&[1]).unwrap().phase, Phase::Running(one.turn));
        queue.add(vec![2], 7, 10, Phase::Queued);
        let order: Vec<Key> = queue.ordered().into_iter().map(|(key, _)| key).collect();
        assert_eq!(order, [[2], [1]]);
    }
}
