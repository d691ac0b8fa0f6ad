//! When a search for a name's record has found enough: a decision without I/O and without a clock.
//!
//! Each answer is a valid record that somebody keeps. Those nearest to a name all keep the newest one unless it has
//! just changed or they came later. So a few that say the same are as good as all of them; and where
//! fewer keep any, a while in which nothing better came is.

use crate::ipns::Record;
use std::time::{Duration, Instant};

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Search {
    best: Option<Record>,
    /// How many said the best one.
    agreeing: usize,
    /// When the best one came.
    since: Option<Instant>,
}

impl Search {
    /// Somebody keeps this one; gives whether it is better than all before.
    pub(super) fn hear(&mut self, record: Record, now: Instant) -> bool {
        let age = self.best.as_ref().map(|best| record.age(best));
        match age {
            Some(std::cmp::Ordering::Less) => false,
            Some(std::cmp::Ordering::Equal) => {
                self.agreeing += 1;
                false
            }
            None | Some(std::cmp::Ordering::Greater) => {
                self.best = Some(record);
                self.agreeing = 1;
                self.since = Some(now);
                true
            }
        }
    }

    /// The best so far.
    pub(super) fn best(&self) -> Option<&Record> {
        self.best.as_ref()
    }

    /// From when on the best is enough, if nothing better comes until then; `None` as long as there is none.
    pub(super) fn enough_at(&self) -> Option<Instant> {
        let since = self.since?;
        match self.agreeing >= AGREEING {
            true => Some(since),
            false => Some(since + QUIET),
        }
    }
}

/// So many that say the same are enough. Two more than the nodes nearest to a name that anybody may make who tries
/// keys for a minute.
const AGREEING: usize = 4;
/// How long fewer are waited for: what a few answers take one after the other.
const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ipns::tests::{Says, record};
    use crate::keystore::{Key, Make};

    pub(in crate::name) fn numbered(keys: &Key, sequence: u64) -> Record {
        let says = Says {
            sequence,
            ..Says::default()
        };
        Record::decode(
            &keys.public().to_peer_id(),
            &record(&keys.keypair().unwrap(), &says),
        )
        .unwrap()
    }

    #[test]
    fn a_few_that_agree_are_enough_and_fewer_after_a_while() {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let numbered = |sequence| numbered(&keys, sequence);
        let (mut search, start) = (Search::default(), Instant::now());
        assert_eq!(search.enough_at(), None);
        assert!(search.hear(numbered(2), start));
        assert!(!search.hear(numbered(1), start), "it is older");
        assert_eq!(search.enough_at(), Some(start + QUIET));
        let later = start + QUIET / 2;
        assert!(search.hear(numbered(3), later));
        for _ in 2..AGREEING {
            assert!(!search.hear(numbered(3), later));
            assert_eq!(search.enough_at(), Some(later + QUIET));
        }
        // What says something older does not count, and takes nothing away.
        assert!(!search.hear(numbered(2), later));
        assert_eq!(search.enough_at(), Some(later + QUIET));
        assert!(!search.hear(numbered(3), later));
        assert_eq!(search.enough_at(), Some(later));
        assert_eq!(search.best().unwrap().sequence(), 3);
    }
}
