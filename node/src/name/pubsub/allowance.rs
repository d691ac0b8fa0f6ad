//! So many at once, and so many more with time: a bucket without a clock of its own.

use std::time::{Duration, Instant};

/// What is left to spend.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    left: u32,
    most: u32,
    /// How long until there is one more.
    every: Duration,
    filled_at: Instant,
}

impl Allowance {
    pub(super) fn new(most: u32, every: Duration, now: Instant) -> Self {
        Self {
            left: most,
            most,
            every,
            filled_at: now,
        }
    }

    /// Whether there was one left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled_at);
        let more = passed.as_nanos() / self.every.as_nanos().max(1);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more >= self.most - self.left {
            (self.left, self.filled_at) = (self.most, now);
        } else {
            self.left += more;
            self.filled_at += self.every * more;
        }
        let has_one = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_and_no_more_than_that() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut allowance = Allowance::new(2, second, start);
        let mut spend = |at: Duration| (0..9).filter(|_| allowance.take(start + at)).count();
        assert_eq!(spend(Duration::ZERO), 2);
        assert_eq!(spend(second / 2), 0);
        assert_eq!(spend(second), 1);
        assert_eq!(spend(second * 3 / 2), 0);
        assert_eq!(spend(second * 100), 2);
    }
}
