//! Records that were found: the best of each name, those that were asked for last, within a bound in bytes.

use crate::ipns::Record;
use libp2p::PeerId;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Records by name.
#[derive(Debug, Default)]
pub(super) struct Cache {
    by_name: HashMap<PeerId, Entry>,
    /// Who was asked for when, the longest ago first.
    order: BTreeMap<u64, PeerId>,
    next: u64,
    bytes: usize,
}

/// A record, and since when it is known.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) since: Since,
}

/// How old what is known of a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// The record came then, and whether others have a better one was not asked.
    Came(Instant),
    /// Others had no better one then.
    Asked(Instant),
}

impl Since {
    pub(super) fn age(self) -> Duration {
        let (Self::Came(at) | Self::Asked(at)) = self;
        at.elapsed()
    }
}

#[derive(Debug)]
struct Entry {
    found: Found,
    turn: u64,
}

impl Cache {
    /// What was found of a name.
    pub(super) fn of(&mut self, name: &PeerId) -> Option<Found> {
        let entry = self.by_name.get_mut(name)?;
        self.order.remove(&entry.turn);
        entry.turn = self.next;
        self.order.insert(self.next, *name);
        self.next += 1;
        Some(entry.found.clone())
    }

    /// Keeps a record that is valid, unless a better one is kept; gives whether it is the best now. That one comes again
    /// makes it no younger.
    pub(super) fn keep(&mut self, name: PeerId, record: Record, since: Since) -> bool {
        let before = self.by_name.get(&name);
        if before.is_some_and(|before| before.found.record.age(&record).is_gt()) {
            return false;
        }
        let same = before.filter(|before| before.found.record == record);
        let since = match (since, same) {
            (Since::Came(_), Some(same)) => same.found.since,
            (since, _) => since,
        };
        self.remove(&name);
        self.bytes += cost(&record);
        let turn = self.next;
        self.next += 1;
        self.order.insert(turn, name);
        let found = Found { record, since };
        self.by_name.insert(name, Entry { found, turn });
        while self.bytes > BYTES_MAX
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = *oldest;
            self.remove(&oldest);
        }
        true
    }

    /// Others were asked, and had no better one.
    pub(super) fn confirm(&mut self, name: &PeerId, now: Instant) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.found.since = Since::Asked(now);
        }
    }

    fn remove(&mut self, name: &PeerId) {
        if let Some(entry) = self.by_name.remove(name) {
            self.order.remove(&entry.turn);
            self.bytes -= cost(&entry.found.record);
        }
    }
}

/// What a record takes, about.
fn cost(record: &Record) -> usize {
    record.bytes().len() + record.value().len() + ENTRY_BYTES
}

/// Bytes of all records together: about ten thousand of the usual length.
const BYTES_MAX: usize = 8 << 20;
/// What an entry takes beside its record's bytes.
const ENTRY_BYTES: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::{Key, Make};
    use crate::name::search::tests::numbered;

    #[test]
    fn the_best_record_of_a_name_stays() {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let name = keys.public().to_peer_id();
        let (mut cache, now) = (Cache::default(), Instant::now());
        assert!(cache.keep(name, numbered(&keys, 2), Since::Asked(now)));
        assert!(!cache.keep(name, numbered(&keys, 1), Since::Asked(now)));
        assert_eq!(cache.of(&name).unwrap().record.sequence(), 2);
        assert!(cache.keep(name, numbered(&keys, 3), Since::Asked(now)));
        assert_eq!(cache.of(&name).unwrap().record.sequence(), 3);
        assert!(cache.of(&PeerId::random()).is_none());
    }

    #[test]
    fn those_asked_for_last_stay_when_there_are_too_many() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let keys = Key::generate(Make::Ed25519).unwrap();
        let one = numbered(&keys, 1);
        let most = BYTES_MAX / cost(&one);
        let names: Vec<PeerId> = (0..=most).map(|_| PeerId::random()).collect();
        for name in &names[..most] {
            cache.keep(*name, one.clone(), Since::Asked(now));
        }
        assert!(cache.of(&names[0]).is_some());
        cache.keep(names[most], one, Since::Asked(now));
        assert!(cache.bytes <= BYTES_MAX);
        assert!(cache.of(&names[0]).is_some(), "it was asked for");
        assert!(cache.of(&names[1]).is_none(), "it was not");
        assert!(cache.of(&names[most]).is_some());
        assert_eq!(cache.order.len(), cache.by_name.len());
    }
}
