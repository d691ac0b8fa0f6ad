//! Which region is told next. Decisions without network, disk or clock.
//!
//! Every region has its time in the cycle ([`Prefix::phase`]), counted from the beginning of Unix time, so nothing
//! need be remembered of a cycle but when each region was told. A region is due at its last time that is no later than a
//! cycle after it was told. So none is ever older than a cycle; what was told all at once at a first start is spread over the next
//! cycle; and after a restart it goes on where it was. Who is late is told as soon as there is room for it, the longest
//! overdue first: [`Schedule::next`] gives only so many turns at once.
//!
//! New keys get a turn of their own, which says nothing about the others of their region. A turn that fails is given again, each
//! time after twice as long.

use super::prefix::Prefix;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Time since the beginning of Unix time.
pub(crate) type Moment = Duration;

/// All regions that have keys.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    at_once: usize,
    bits: u32,
    regions: BTreeMap<Prefix, Region>,
    /// Turns under way.
    under_way: usize,
    /// Keys told in each minute of the last hour.
    told_lately: BTreeMap<u64, u64>,
    failures: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Region {
    /// Keys in the set.
    keys: u64,
    told_at: Option<Moment>,
    /// Whether there are new keys to be told before its time.
    has_new: bool,
    is_under_way: bool,
    /// Failures one after the other, and when to try again.
    failures: u32,
    rest: Rest,
}

/// How long a region is left alone. It is over too when its beginning is to come: the clock was ahead then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rest {
    from: Moment,
    until: Moment,
}

impl Rest {
    /// Its end, as long as it goes on.
    fn end(&self, now: Moment) -> Option<Moment> {
        (self.from <= now && now < self.until).then_some(self.until)
    }
}

/// What is to be told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Whose keys.
    pub(crate) prefix: Prefix,
    /// Which of them.
    pub(crate) which: Which,
}

/// Which keys of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them: its time has come.
    All,
    /// Those that are new.
    New,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Progress {
    /// Regions that have keys.
    pub(crate) regions: usize,
    /// Bits that their places share.
    pub(crate) bits: u32,
    /// Those whose turn in this cycle is over.
    pub(crate) done: usize,
    /// Those that are late.
    pub(crate) late: usize,
    /// Those that have new keys.
    pub(crate) new: usize,
    /// Turns under way.
    pub(crate) under_way: usize,
    /// Regions whose last turn failed.
    pub(crate) failing: usize,
    /// Turns that failed, of all since the start.
    pub(crate) failures: u64,
    /// When a region was told last.
    pub(crate) last: Option<Moment>,
    /// When the next one is.
    pub(crate) next: Option<Moment>,
    /// Keys told in the last hour.
    pub(crate) hour: u64,
}

impl Schedule {
    pub(crate) fn new(interval: Duration, at_once: usize) -> Self {
        Self {
            interval: interval.max(INTERVAL_MIN),
            at_once: at_once.max(1),
            bits: 0,
            regions: BTreeMap::new(),
            under_way: 0,
            told_lately: BTreeMap::new(),
            failures: 0,
        }
    }

    /// How many bits the places of a region share.
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// The region of a place that begins so.
    pub(crate) fn region_of(&self, start: u64) -> Prefix {
        Prefix::of(start, self.bits)
    }

    /// The regions that have keys from now on, of so many bits, how many each has, and when each was told.
    pub(crate) fn set(
        &mut self,
        bits: u32,
        keys: &BTreeMap<Prefix, u64>,
        told_at: impl Fn(&Prefix) -> Option<Moment>,
    ) {
        let before = std::mem::take(&mut self.regions);
        let same = |prefix: &Prefix| before.get(prefix).copied();
        let part = |prefix: &Prefix| {
            let old = before.iter().filter(|(old, _)| old.overlaps(prefix));
            old.fold(Region::default(), |region, (_, old)| Region {
                has_new: region.has_new || old.has_new,
                failures: region.failures.max(old.failures),
                rest: match region.rest.until < old.rest.until {
                    true => old.rest,
                    false => region.rest,
                },
                ..region
            })
        };
        let has_same_bits = self.bits == bits;
        self.bits = bits;
        self.regions = keys
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(prefix, count)| {
                let known = match has_same_bits {
                    true => same(prefix).unwrap_or_default(),
                    false => part(prefix),
                };
                let region = Region {
                    keys: *count,
                    told_at: told_at(prefix),
                    ..known
                };
                (*prefix, region)
            })
            .collect();
    }

    /// A key of a region is new.
    pub(crate) fn add(&mut self, prefix: Prefix) {
        let region = self.regions.entry(prefix).or_default();
        region.keys += 1;
        region.has_new = true;
    }

    /// Some of its keys are still to be told before its time.
    pub(crate) fn wants(&mut self, prefix: Prefix) {
        if let Some(region) = self.regions.get_mut(&prefix) {
            region.has_new = true;
        }
    }

    /// What is to be told now, if there is room for it and anything is.
    pub(crate) fn next(&mut self, now: Moment) -> Option<Turn> {
        if self.under_way >= self.at_once {
            return None;
        }
        let ready = self.regions.iter();
        let ready =
            ready.filter(|(_, region)| !region.is_under_way && region.rest.end(now).is_none());
        let mut due: Option<(Moment, u64, Prefix)> = None;
        let mut new = None;
        for (prefix, region) in ready {
            if region.has_new {
                new = Some(*prefix);
                break;
            }
            let at = self.due(prefix, region, now);
            let order = (at, prefix.phase(), *prefix);
            if at <= now && due.is_none_or(|first| order < first) {
                due = Some(order);
            }
        }
        let turn = match (new, due) {
            (Some(prefix), _) => Turn {
                prefix,
                which: Which::New,
            },
            (None, Some((_, _, prefix))) => Turn {
                prefix,
                which: Which::All,
            },
            (None, None) => return None,
        };
        let region = self.regions.get_mut(&turn.prefix)?;
        region.is_under_way = true;
        // What is new by now is part of the turn.
        region.has_new = false;
        self.under_way += 1;
        Some(turn)
    }

    /// A turn is over: so many keys were told.
    pub(crate) fn told(&mut self, turn: Turn, keys: u64, now: Moment) {
        self.end(turn, |region| {
            (region.failures, region.rest) = (0, Rest::default());
            if turn.which == Which::All {
                region.told_at = Some(now);
            }
        });
        let minute = now.as_secs() / 60;
        *self.told_lately.entry(minute).or_default() += keys;
        let lately = lately(minute);
        self.told_lately.retain(|minute, _| lately.contains(minute));
    }

    /// Too few took it.
    pub(crate) fn failed(&mut self, turn: Turn, now: Moment) {
        self.failures += 1;
        self.end(turn, |region| {
            let rest = RETRY_MIN * 2u32.saturating_pow(region.failures.min(RETRY_DOUBLINGS));
            region.failures = region.failures.saturating_add(1);
            region.rest = Rest {
                from: now,
                until: now + rest.min(RETRY_MAX),
            };
            region.has_new |= turn.which == Which::New;
        });
    }

    /// There was nobody to tell.
    pub(crate) fn put_back(&mut self, turn: Turn) {
        self.end(turn, |region| region.has_new |= turn.which == Which::New);
    }

    fn end(&mut self, turn: Turn, change: impl FnOnce(&mut Region)) {
        self.under_way = self.under_way.saturating_sub(1);
        // It may be of other bits by now.
        if let Some(region) = self.regions.get_mut(&turn.prefix) {
            region.is_under_way = false;
            change(region);
        }
    }

    /// When [`Schedule::next`] may give something that it does not give now, but for turns that end.
    pub(crate) fn wakes(&self, now: Moment) -> Option<Moment> {
        let idle = self.regions.iter();
        let idle = idle.filter(|(_, region)| !region.is_under_way);
        idle.map(|(prefix, region)| match region.has_new {
            true => region.rest.end(now).unwrap_or_default(),
            false => self.due_after_rest(prefix, region, now),
        })
        .min()
    }

    /// When a region is due next.
    pub(crate) fn due_of(&self, prefix: &Prefix, now: Moment) -> Option<Moment> {
        let region = self.regions.get(prefix)?;
        Some(self.due_after_rest(prefix, region, now))
    }

    fn due_after_rest(&self, prefix: &Prefix, region: &Region, now: Moment) -> Moment {
        let due = self.due(prefix, region, now);
        due.max(region.rest.end(now).unwrap_or_default())
    }

    /// When a region was told last.
    pub(crate) fn told_at(&self, prefix: &Prefix) -> Option<Moment> {
        self.regions.get(prefix)?.told_at
    }

    fn due(&self, prefix: &Prefix, region: &Region, now: Moment) -> Moment {
        let told_at = match region.told_at {
            // A clock that was ahead has told us nothing.
            Some(told_at) if told_at <= now => told_at,
            _ => return Moment::ZERO,
        };
        let (limit, interval) = (told_at + self.interval, self.interval.as_nanos());
        let phase = (interval * u128::from(prefix.phase())) >> u64::BITS;
        let Some(since) = limit.as_nanos().checked_sub(phase) else {
            return limit;
        };
        let beyond = u64::try_from(since % interval.max(1)).unwrap_or(0);
        limit.saturating_sub(Duration::from_nanos(beyond))
    }

    /// How far it is.
    pub(crate) fn progress(&self, now: Moment) -> Progress {
        let interval = self.interval.as_nanos().max(1);
        let into = u64::try_from(now.as_nanos() % interval).unwrap_or(0);
        let began = now.saturating_sub(Duration::from_nanos(into));
        let minute = now.as_secs() / 60;
        let mut progress = Progress {
            regions: self.regions.len(),
            bits: self.bits,
            under_way: self.under_way,
            failures: self.failures,
            next: self.wakes(now),
            hour: self
                .told_lately
                .range(lately(minute))
                .map(|(_, keys)| keys)
                .sum(),
            ..Progress::default()
        };
        for (prefix, region) in &self.regions {
            progress.done += usize::from(region.told_at.is_some_and(|at| began <= at && at <= now));
            progress.late += usize::from(self.due(prefix, region, now) <= now);
            progress.new += usize::from(region.has_new);
            progress.failing += usize::from(region.failures > 0);
            progress.last = progress.last.max(region.told_at);
        }
        progress
    }
}

/// The minutes of the hour that ends with one.
fn lately(minute: u64) -> RangeInclusive<u64> {
    minute.saturating_sub(59)..=minute
}

/// Shortest cycle: a shorter one would never rest.
const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// How long a region that failed is left alone: twice as long each time.
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
const RETRY_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const CYCLE: Duration = Duration::from_secs(22 * 3600);
    const START: Moment = Duration::from_secs(1_800_000_000);

    fn schedule(bits: u32, at_once: usize) -> Schedule {
        let mut schedule = Schedule::new(CYCLE, at_once);
        schedule.set(bits, &keys(bits), |_| None);
        schedule
    }

    fn keys(bits: u32) -> BTreeMap<Prefix, u64> {
        Prefix::all(bits).map(|prefix| (prefix, 10)).collect()
    }

    /// Tells all that is to be told at once.
    fn tell_all(schedule: &mut Schedule, now: Moment) -> Vec<Turn> {
        let mut turns = Vec::new();
        while let Some(turn) = schedule.next(now) {
            schedule.told(turn, 10, now);
            turns.push(turn);
        }
        turns
    }

    #[test]
    fn all_is_told_at_first_and_then_spread_evenly_over_each_cycle() {
        let mut schedule = schedule(6, 4);
        assert_eq!(tell_all(&mut schedule, START).len(), 64);
        let mut now = START;
        let mut last: BTreeMap<Prefix, Moment> = BTreeMap::new();
        let mut times = Vec::new();
        while now < START + CYCLE * 4 {
            now = schedule.wakes(now).unwrap();
            let turns = tell_all(&mut schedule, now);
            assert_eq!(turns.len(), 1, "one after the other");
            for turn in turns {
                let before = last.insert(turn.prefix, now);
                assert!(now - before.unwrap_or(START) <= CYCLE);
            }
            times.push(now);
        }
        let step = CYCLE / 64;
        let near = |two: &[Moment]| (two[1] - two[0]).abs_diff(step) < Duration::from_millis(1);
        assert!(times.windows(2).all(near));
    }

    #[test]
    fn no_more_than_allowed_are_under_way_and_the_longest_overdue_come_first() {
        let mut schedule = schedule(3, 2);
        tell_all(&mut schedule, START);
        let late = START + CYCLE * 2;
        let first = schedule.next(late).unwrap();
        let second = schedule.next(late).unwrap();
        assert_eq!(schedule.next(late), None);
        let due = |turn: Turn| schedule.due_of(&turn.prefix, late).unwrap();
        assert!(due(first) < due(second));
        assert_eq!(schedule.progress(late).under_way, 2);
        assert_eq!(schedule.progress(late).late, 8);
        schedule.told(first, 10, late);
        assert_ne!(schedule.next(late).unwrap().prefix, first.prefix);
    }

    #[test]
    fn what_failed_is_tried_again_after_longer_and_longer() {
        let mut schedule = schedule(0, 1);
        let mut now = START;
        let mut rests = Vec::new();
        for _ in 0..9 {
            let turn = schedule.next(now).unwrap();
            schedule.failed(turn, now);
            assert_eq!(schedule.next(now), None);
            let wakes = schedule.wakes(now).unwrap();
            rests.push((wakes - now).as_secs());
            now = wakes;
        }
        assert_eq!(rests, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(schedule.progress(now).failing, 1);
        let turn = schedule.next(now).unwrap();
        schedule.told(turn, 10, now);
        assert_eq!(schedule.progress(now).failing, 0);
        assert_eq!(schedule.progress(now).failures, 9);
    }

    #[test]
    fn new_keys_are_told_before_what_is_late_and_leave_its_time_as_it_is() {
        let mut schedule = schedule(4, 1);
        let prefix = Prefix::of(u64::MAX, 4);
        schedule.add(prefix);
        let turn = schedule.next(START).unwrap();
        let new = Turn {
            prefix,
            which: Which::New,
        };
        assert_eq!(turn, new);
        schedule.told(turn, 1, START);
        assert_eq!(schedule.told_at(&prefix), None);
        assert_eq!(schedule.progress(START).hour, 1);
        // A key that comes while its region has a turn gets another one.
        let turn = schedule.next(START).unwrap();
        assert_eq!(turn.which, Which::All);
        schedule.add(turn.prefix);
        schedule.told(turn, 10, START);
        let next = schedule.next(START).unwrap();
        assert_eq!((next.prefix, next.which), (turn.prefix, Which::New));
        schedule.put_back(next);
        assert_eq!(schedule.next(START), Some(next));
    }

    #[test]
    fn other_bits_forget_nothing_that_is_to_be_done() {
        let mut schedule = schedule(2, 1);
        tell_all(&mut schedule, START);
        schedule.add(Prefix::of(0, 2));
        let now = START + Duration::from_secs(1);
        schedule.set(3, &keys(3), |_| Some(START));
        assert_eq!(schedule.regions.len(), 8);
        let new: Vec<Prefix> = tell_all(&mut schedule, now)
            .into_iter()
            .map(|turn| turn.prefix)
            .collect();
        assert_eq!(new, [Prefix::of(0, 3), Prefix::of(1 << 61, 3)]);
        assert_eq!(schedule.progress(now).late, 0);
    }

    #[test]
    fn what_failed_while_the_clock_was_ahead_is_tried_again_when_it_is_right() {
        let mut schedule = schedule(0, 1);
        let ahead = START + CYCLE * 400;
        let turn = schedule.next(ahead).unwrap();
        schedule.failed(turn, ahead);
        assert_eq!(schedule.next(ahead), None);
        assert!(schedule.wakes(START).unwrap() <= START);
        let again = schedule.next(START).unwrap();
        // It failed once already.
        schedule.failed(again, START);
        let rest = schedule.wakes(START).unwrap() - START;
        assert_eq!(rest, RETRY_MIN * 2);
        assert_eq!(schedule.next(START), None);
        assert_eq!(schedule.next(START + RETRY_MIN * 2), Some(turn));
    }

    #[test]
    fn a_clock_that_went_back_delays_nothing() {
        let mut schedule = Schedule::new(CYCLE, 1);
        schedule.set(0, &keys(0), |_| Some(START + CYCLE * 400));
        assert!(schedule.next(START).is_some());
    }
}
