//! How long operations waited, as percentiles.
//!
//! Operations fall due at fixed times, whether or not the ones before are done, and each waits from
//! when it was due: one long stop counts for all who would have come meanwhile.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// When operations were due and when they were done.
#[derive(Debug, Default, Clone)]
pub struct Waits(Vec<(Instant, Instant)>);

/// Tells those who work at a pace when to end.
#[derive(Debug, Default)]
pub struct End(Mutex<Option<Instant>>);

impl End {
    /// What is due from now on is not done any more.
    pub fn now(&self) {
        *self.0.lock().expect("lock") = Some(Instant::now());
    }

    fn is_before(&self, due: Instant) -> bool {
        self.0.lock().expect("lock").is_some_and(|end| end <= due)
    }
}

impl Waits {
    /// Does `operation` with 0, 1, 2 and so on, one every `pace`, until the end.
    pub fn at_pace(pace: Duration, end: &End, mut operation: impl FnMut(u64)) -> Self {
        let mut waits = Self::default();
        let mut due = Instant::now();
        for number in 0.. {
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            if end.is_before(due) {
                break;
            }
            // Waking late is the machine's doing, not the operation's.
            let begun = if waits.0.last().is_none_or(|(_, done)| *done < due) {
                Instant::now()
            } else {
                due
            };
            operation(number);
            waits.0.push((begun, Instant::now()));
            due += pace;
        }
        waits
    }

    /// Those that were under way at some time between the two.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let during = |(due, done): &&(Instant, Instant)| *done >= from && *due <= to;
        Self(self.0.iter().filter(during).copied().collect())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that a share of them did not exceed.
    pub fn percentile(&self, share: f64) -> f64 {
        let waits = self.0.iter();
        percentile(
            waits.map(|(due, done)| (*done - *due).as_secs_f64() * 1e3),
            share,
        )
    }
}

/// What a share of some figures do not exceed; no number if there are none.
pub fn percentile(figures: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut all: Vec<f64> = figures.collect();
    all.sort_unstable_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let at = (share * all.len() as f64).ceil() as usize;
    all.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_under_way() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let waits: Vec<_> = (0..100).map(|n| (at(10 * n), at(11 * n))).collect();
        let waits = Waits(waits);
        assert_eq!(waits.percentile(0.5).round(), 49.0);
        assert_eq!(waits.percentile(1.0).round(), 99.0);
        assert_eq!(waits.between(at(0), at(15)).count(), 2);
    }

    #[test]
    fn percentiles_are_among_the_figures_in_any_order() {
        let of = |figures: &[f64], share| percentile(figures.iter().copied(), share);
        let figures: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let told = [0.0, 0.5, 0.99, 1.0].map(|share| of(&figures, share));
        assert_eq!(told, [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(of(&[3.0], 0.5), 3.0);
        assert!(of(&[], 0.5).is_nan());
    }
}
