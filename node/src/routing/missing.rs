//! What was looked for a moment ago and found nowhere: it is not looked for again at once, however many want it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys without providers.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    keys: HashSet<Vec<u8>>,
    /// The oldest first.
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl Missing {
    /// Nobody has it.
    pub(crate) fn add(&self, key: Vec<u8>, now: Instant) {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.forget(now);
        if lately.order.len() < KEYS_MAX && lately.keys.insert(key.clone()) {
            lately.order.push_back((now, key));
        }
    }

    /// Whether that was found out a moment ago.
    pub(crate) fn has(&self, key: &[u8], now: Instant) -> bool {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.forget(now);
        lately.keys.contains(key)
    }
}

impl Lately {
    fn forget(&mut self, now: Instant) {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= BELIEVED;
        while let Some((_, key)) = self.order.pop_front_if(|(at, _)| is_old(at)) {
            self.keys.remove(&key);
        }
    }
}

/// How long it is believed that nobody has something. Longer would hide who has just begun to.
const BELIEVED: Duration = Duration::from_secs(5);
/// Keys remembered; what is beyond is looked for again.
const KEYS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_believed_for_a_moment() {
        let (missing, now) = (Missing::default(), Instant::now());
        missing.add(vec![1], now);
        missing.add(vec![2], now + BELIEVED / 2);
        assert!(missing.has(&[1], now + BELIEVED / 2));
        // Hearing it again does not make it last.
        missing.add(vec![1], now + BELIEVED / 2);
        assert!(!missing.has(&[1], now + BELIEVED));
        assert!(missing.has(&[2], now + BELIEVED));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (missing, now) = (Missing::default(), Instant::now());
        let key = |number: usize| number.to_be_bytes().to_vec();
        (0..=KEYS_MAX).for_each(|number| missing.add(key(number), now));
        assert!(missing.has(&key(0), now));
        assert!(!missing.has(&key(KEYS_MAX), now));
        missing.add(key(KEYS_MAX), now + BELIEVED);
        assert!(missing.has(&key(KEYS_MAX), now + BELIEVED));
    }
}
