//! The wall's clock, as far as it can be right: what records say of time is compared with it.

use std::time::{Duration, SystemTime};

/// The clock cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine's clock is from before this program was made, so nobody can tell which names have expired; set the clock"
)]
pub struct WrongClock;

/// A time, unless no clock that is right shows it.
pub fn checked(now: SystemTime) -> Result<SystemTime, WrongClock> {
    (now >= least()).then_some(now).ok_or(WrongClock)
}

/// The time for those who only ask whether something has expired: by a clock that is too early to be right, all that
/// had when there was no such program yet.
pub fn wall() -> SystemTime {
    SystemTime::now().max(least())
}

fn least() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(LEAST)
}

/// No clock that is right shows a time before this, in seconds since 1970: the first of November 2026.
pub(crate) const LEAST: u64 = 1_793_491_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_there_was_such_a_program_is_none() {
        assert_eq!(checked(least()), Ok(least()));
        let before = least() - Duration::from_nanos(1);
        assert_eq!(checked(before), Err(WrongClock));
        assert!(wall() >= least());
    }
}
