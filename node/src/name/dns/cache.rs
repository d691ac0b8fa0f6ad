//! What was found lately, for as long as it may be believed. Time is told to it.

use super::{Link, LookupError};
use crate::name::domain::Domain;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What came of a question: a link, or that there is none.
pub(super) type Outcome = Result<Arc<Link>, LookupError>;

/// Outcomes by domain, [`ENTRIES_MAX`] at most.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<Domain, Entry>);

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    until: Instant,
}

impl Cache {
    /// What is known of `domain`, and for how much longer.
    pub(super) fn get(&self, domain: &Domain, now: Instant) -> Option<(Outcome, Duration)> {
        let entry = self.0.get(domain)?;
        let left = entry.until.saturating_duration_since(now);
        (!left.is_zero()).then(|| (entry.outcome.clone(), left))
    }

    /// Keeps it for so long. Where there is no room, what would be forgotten first makes some.
    pub(super) fn put(&mut self, domain: Domain, outcome: Outcome, ttl: Duration, now: Instant) {
        if ttl.is_zero() {
            self.0.remove(&domain);
            return;
        }
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&domain) {
            self.0.retain(|_, entry| entry.until > now);
        }
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&domain) {
            let first = self.0.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(first) = first.map(|(domain, _)| domain.clone()) {
                self.0.remove(&first);
            }
        }
        let until = now + ttl;
        self.0.insert(domain, Entry { outcome, until });
    }
}

/// Most domains remembered: what a busy gateway serves in an hour, at up to 40 kB each if all are as long as they may
/// be.
const ENTRIES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(at: usize) -> Domain {
        format!("n{at}.example").parse().unwrap()
    }

    fn link() -> Outcome {
        Ok(Arc::new(Link {
            path: "/ipfs/bafkqaaa".parse().unwrap(),
            others: 0,
            ignored: Vec::new(),
        }))
    }

    #[test]
    fn an_outcome_is_known_until_its_time_is_over() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(domain(1), link(), Duration::from_secs(5), now);
        let later = now + Duration::from_secs(3);
        assert_eq!(
            cache.get(&domain(1), later).unwrap().1,
            Duration::from_secs(2)
        );
        assert!(
            cache
                .get(&domain(1), now + Duration::from_secs(5))
                .is_none()
        );
        cache.put(domain(1), link(), Duration::ZERO, now);
        assert!(cache.get(&domain(1), now).is_none());
    }

    #[test]
    fn there_are_never_more_than_fit_and_the_first_to_end_goes() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for at in 0..ENTRIES_MAX + 10 {
            let ttl = Duration::from_secs(1000 + at as u64);
            cache.put(domain(at), link(), ttl, now);
            assert!(cache.0.len() <= ENTRIES_MAX);
        }
        assert!(cache.get(&domain(9), now).is_none());
        assert!(cache.get(&domain(10), now).is_some());
        // What is over makes room before what is not.
        let later = now + Duration::from_secs(1100);
        cache.put(domain(9), link(), Duration::from_secs(1), later);
        assert_eq!(cache.0.len(), ENTRIES_MAX - 90);
    }
}
