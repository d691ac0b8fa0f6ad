//! Waiting for what the program tells only whoever asks: it is asked again until it is so, or until a test that
//! would wait for ever fails.

use std::time::{Duration, Instant};

/// Looks until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || match is_so() {
        true => Ok(()),
        false => Err(String::new()),
    });
}

/// Looks until there is something; an error is what was seen instead.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    wait_within(WATCHDOG, what, look)
}

#[track_caller]
fn wait_within<T>(most: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(seen) => assert!(began.elapsed() < most, "waited in vain for {what}: {seen}"),
        }
        std::thread::yield_now();
    }
}

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "waited in vain for what never comes: nothing")]
    fn a_wait_for_what_never_comes_ends_and_says_what_that_was() {
        wait_within(Duration::ZERO, "what never comes", || {
            Err::<(), _>("nothing".to_owned())
        });
    }

    #[test]
    fn what_is_there_at_the_third_look_is_given() {
        let mut looks = 0;
        let seen = wait_for("the third look", || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(looks.to_string())
            }
        });
        assert_eq!(seen, 3);
    }
}
