//! When a router that failed may be asked again. Keeps no clock.

use crate::http::{BUSY, PAUSE_MAX, PAUSE_MIN, pause_after};
use std::time::Duration;
use tokio::time::Instant;

/// What is known of its failures.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// In a row.
    failures: u32,
    /// When the last of them was noted.
    noted_at: Option<Instant>,
    until: Option<Instant>,
}

impl Rest {
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// For how long it is left alone yet.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// It failed to answer what it was asked then; gives how long it is left alone, if this was news.
    pub(super) fn failed(&mut self, asked_at: Instant, now: Instant) -> Option<Duration> {
        self.rests(pause_after(self.failures), asked_at, now)
    }

    /// It wants to be left alone, for so long if it says so.
    pub(super) fn busy(&mut self, wait: Option<Duration>, asked_at: Instant, now: Instant) {
        let wait = wait.unwrap_or(BUSY).clamp(PAUSE_MIN, PAUSE_MAX);
        self.rests(wait, asked_at, now);
    }

    fn rests(&mut self, pause: Duration, asked_at: Instant, now: Instant) -> Option<Duration> {
        // Many questions that were under way together fail together: that is one failure.
        if self.noted_at.is_some_and(|noted| asked_at <= noted) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.noted_at = Some(now);
        self.until = Some(now + pause);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_failure_doubles_the_rest_up_to_the_most_and_an_answer_ends_it() {
        let (mut rest, mut now) = (Rest::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(rest.may_ask(now));
            let pause = rest.failed(now, now + SECOND).unwrap();
            assert!(!rest.may_ask(now + SECOND + pause - SECOND / 2));
            now += SECOND + pause;
            pauses.push(pause);
        }
        assert_eq!(pauses[..3], [SECOND, 2 * SECOND, 4 * SECOND]);
        assert_eq!(pauses[11], PAUSE_MAX);
        rest.answered();
        assert_eq!(rest.failed(now, now), Some(SECOND));
    }

    #[test]
    fn questions_that_fail_together_are_one_failure() {
        let (mut rest, now) = (Rest::default(), Instant::now());
        assert!(rest.failed(now, now + SECOND).is_some());
        assert_eq!(rest.failed(now, now + SECOND), None);
        assert_eq!(rest.failed(now + SECOND / 2, now + 5 * SECOND), None);
        assert!(rest.may_ask(now + 2 * SECOND));
    }

    #[test]
    fn a_busy_router_rests_as_long_as_it_says_but_not_for_ever() {
        let now = Instant::now();
        for (said, held) in [
            (None, BUSY),
            (Some(7 * SECOND), 7 * SECOND),
            (Some(Duration::MAX), PAUSE_MAX),
            (Some(Duration::ZERO), PAUSE_MIN),
        ] {
            let mut rest = Rest::default();
            rest.busy(said, now, now);
            assert!(!rest.may_ask(now + held - Duration::from_millis(1)));
            assert!(rest.may_ask(now + held));
        }
    }
}
