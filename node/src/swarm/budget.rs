//! How many dials begin in a second and how many are under way: what keeps a home's router alive.
//!
//! Each dial takes an entry of the router's table for minutes, whether anybody answers or not. So who
//! dials gets in line for a [`Pass`]: those that somebody waits for (the operator, peering) before all
//! others. Who stands first waits for the clock or for a dial to end; who stands behind waits for those
//! before. [`Line`] decides, without a clock of its own; [`Budget`] lets tasks wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How urgent a dial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Somebody waits for it.
    Urgent,
    /// Whatever else.
    Plain,
}

/// What there is to spend.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Line>);

/// The right to a dial, for as long as it is under way.
#[derive(Debug)]
pub(super) struct Pass(Arc<Budget>);

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{LINE_MAX} dials wait for their turn already; `connections.dials_per_second` and `connections.dials_at_once` set how many there are"
)]
pub(super) struct Full;

impl Budget {
    /// So many dials a second, and under way at once.
    pub(super) fn new(a_second: u32, at_once: u32, now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line::new(a_second, at_once, now))))
    }

    /// Waits for the right to dial. May be dropped at any point.
    pub(super) async fn pass(self: &Arc<Self>, class: Class) -> Result<Pass, Full> {
        let place = Place::take(self, class)?;
        loop {
            let step = self.line().step(class, place.number, Instant::now());
            match step {
                Step::Go => return Ok(Pass(Arc::clone(self))),
                Step::Behind => place.turn.notified().await,
                Step::At(time) => {
                    tokio::select! {
                        () = sleep_until(time) => {}
                        () = place.turn.notified() => {}
                    }
                }
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.under_way = line.under_way.saturating_sub(1);
        line.call();
    }
}

/// A place in the line; given up when dropped.
struct Place<'a> {
    budget: &'a Budget,
    class: Class,
    number: u64,
    turn: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn take(budget: &'a Budget, class: Class) -> Result<Self, Full> {
        let turn = Arc::new(Notify::new());
        let number = budget.line().join(class, Arc::clone(&turn))?;
        Ok(Self {
            budget,
            class,
            number,
            turn,
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.budget.line();
        line.leave(self.class, self.number);
        line.call();
    }
}

/// Who waits, and what there is.
#[derive(Debug)]
struct Line {
    a_second: f64,
    at_once: usize,
    /// Dials that may begin at once.
    ready: f64,
    counted_at: Instant,
    under_way: usize,
    urgent: VecDeque<(u64, Arc<Notify>)>,
    plain: VecDeque<(u64, Arc<Notify>)>,
    next: u64,
}

/// What somebody in the line may do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Dial. It left the line.
    Go,
    /// Ask again then, or when called.
    At(Instant),
    /// Ask again when called.
    Behind,
}

impl Line {
    fn new(a_second: u32, at_once: u32, now: Instant) -> Self {
        let a_second = f64::from(a_second.max(1));
        Self {
            a_second,
            at_once: usize::try_from(at_once.max(1)).unwrap_or(usize::MAX),
            ready: a_second * BURST_SECONDS,
            counted_at: now,
            under_way: 0,
            urgent: VecDeque::new(),
            plain: VecDeque::new(),
            next: 0,
        }
    }

    fn join(&mut self, class: Class, turn: Arc<Notify>) -> Result<u64, Full> {
        if self.urgent.len() + self.plain.len() >= LINE_MAX {
            return Err(Full);
        }
        let number = self.next;
        self.next += 1;
        self.of(class).push_back((number, turn));
        Ok(number)
    }

    fn step(&mut self, class: Class, number: u64, now: Instant) -> Step {
        let passed = now.saturating_duration_since(self.counted_at);
        self.ready += passed.as_secs_f64() * self.a_second;
        self.ready = self.ready.min(self.a_second * BURST_SECONDS);
        self.counted_at = self.counted_at.max(now);
        if self.first().map(|(first, _)| *first) != Some(number) {
            return Step::Behind;
        }
        // Dials into the void must not keep those from dialling that somebody waits for.
        let most = match class {
            Class::Urgent => self.at_once.saturating_add(URGENT_MORE),
            Class::Plain => self.at_once,
        };
        if self.under_way >= most {
            return Step::Behind;
        }
        if self.ready < 1.0 {
            let missing = Duration::from_secs_f64((1.0 - self.ready) / self.a_second);
            // A timer may be early by less than it can tell.
            return Step::At(now + missing.max(TICK));
        }
        self.ready -= 1.0;
        self.under_way += 1;
        self.leave(class, number);
        Step::Go
    }

    fn leave(&mut self, class: Class, number: u64) {
        self.of(class).retain(|(other, _)| *other != number);
    }

    /// Tells whoever is first now.
    fn call(&self) {
        if let Some((_, turn)) = self.first() {
            turn.notify_one();
        }
    }

    fn first(&self) -> Option<&(u64, Arc<Notify>)> {
        self.urgent.front().or_else(|| self.plain.front())
    }

    fn of(&mut self, class: Class) -> &mut VecDeque<(u64, Arc<Notify>)> {
        match class {
            Class::Urgent => &mut self.urgent,
            Class::Plain => &mut self.plain,
        }
    }
}

/// How many seconds' worth of dials may begin at once after a rest.
const BURST_SECONDS: f64 = 2.0;
/// Urgent dials under way beyond all others.
const URGENT_MORE: usize = 16;
/// Dials that wait; what comes then fails at once.
const LINE_MAX: usize = 1024;
/// The shortest wait.
const TICK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt;
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_dials_begin_than_there_may() {
        let start = Instant::now();
        let budget = Budget::new(10, 1000, start);
        let mut times = Vec::new();
        for _ in 0..60 {
            drop(budget.pass(Class::Plain).await.unwrap());
            times.push(start.elapsed());
        }
        assert_eq!(times[19], Duration::ZERO, "two seconds' worth at once");
        assert!(times[20] > Duration::ZERO);
        assert!(times[59] >= Duration::from_millis(3990), "{:?}", times[59]);
        assert!(times[59] < Duration::from_millis(4500), "{:?}", times[59]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_goes_first_and_needs_none_to_end() {
        let budget = Budget::new(1000, 1, Instant::now());
        let first = budget.pass(Class::Plain).await.unwrap();
        let mut plain = Box::pin(budget.pass(Class::Plain));
        assert!((&mut plain).now_or_never().is_none());
        let mut urgent = Vec::new();
        for _ in 0..=URGENT_MORE {
            urgent.extend(budget.pass(Class::Urgent).now_or_never());
        }
        assert_eq!(urgent.len(), URGENT_MORE);
        drop(first);
        assert!(
            (&mut plain).now_or_never().is_none(),
            "others are under way"
        );
        drop(urgent);
        assert!(plain.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_keeps_nobody_waiting() {
        let budget = Budget::new(1, 1, Instant::now());
        let first = budget.pass(Class::Plain).await.unwrap();
        let mut gives_up = Box::pin(budget.pass(Class::Plain));
        let mut waits = Box::pin(budget.pass(Class::Plain));
        assert!((&mut gives_up).now_or_never().is_none());
        assert!((&mut waits).now_or_never().is_none());
        drop(first);
        drop(gives_up);
        assert!(waits.await.is_ok());
        let line = budget.line();
        assert!(line.urgent.is_empty() && line.plain.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_has_an_end() {
        let budget = Budget::new(1, 1, Instant::now());
        let _first = budget.pass(Class::Plain).await.unwrap();
        let mut line: Vec<_> = (0..LINE_MAX)
            .map(|_| Box::pin(budget.pass(Class::Plain)))
            .collect();
        for waiting in &mut line {
            assert!(waiting.now_or_never().is_none());
        }
        assert_eq!(budget.pass(Class::Urgent).await.unwrap_err(), Full);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold_and_nobody_is_forgotten(
            a_second in 1..50_u32,
            at_once in 1..8_u32,
            steps in proptest::collection::vec((0..5_u8, 0..500_u64), 1..400),
        ) {
            let start = Instant::now();
            let (mut line, mut now) = (Line::new(a_second, at_once, start), start);
            let mut waiting: Vec<(Class, u64)> = Vec::new();
            let (mut begun, mut under_way) = (0_u32, 0_usize);
            for (what, millis) in steps {
                match what {
                    0 | 1 => {
                        let class = if what == 0 { Class::Plain } else { Class::Urgent };
                        let number = line.join(class, Arc::new(Notify::new())).unwrap();
                        waiting.push((class, number));
                    }
                    2 if under_way > 0 => {
                        under_way -= 1;
                        line.under_way -= 1;
                    }
                    3 if !waiting.is_empty() => {
                        let at = usize::try_from(millis).unwrap() % waiting.len();
                        let (class, number) = waiting.remove(at);
                        line.leave(class, number);
                    }
                    _ => now += Duration::from_millis(millis),
                }
                let mut went = true;
                while went {
                    let steps = waiting.iter().map(|(class, number)| line.step(*class, *number, now));
                    let steps: Vec<Step> = steps.collect();
                    let first = line.first().map(|(number, _)| *number);
                    went = steps.contains(&Step::Go);
                    let gone = steps.iter().filter(|step| **step == Step::Go).count();
                    begun += u32::try_from(gone).unwrap();
                    under_way += gone;
                    let mut each = steps.iter();
                    waiting.retain(|_| each.next() != Some(&Step::Go));
                    // Only the first may wait for the clock, and then it must.
                    for ((_, number), step) in waiting.iter().zip(steps.iter().filter(|s| **s != Step::Go)) {
                        prop_assert!(matches!(step, Step::Behind) || Some(*number) == first || went);
                    }
                }
                let most = f64::from(a_second) * ((now - start).as_secs_f64() + BURST_SECONDS);
                prop_assert!(f64::from(begun) <= most + 1e-6);
                prop_assert!(under_way <= usize::try_from(at_once).unwrap() + URGENT_MORE);
                prop_assert_eq!(line.under_way, under_way);
            }
        }
    }
}
