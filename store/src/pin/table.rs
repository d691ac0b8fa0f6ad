//! All pins, packed: one table that the journal writes and everybody else reads.
//!
//! There may be millions of them, so each is a key (codec and multihash, which its CID can be told from) and a few
//! numbers; only what has a name, metadata or an expiry has more. Whoever lists them takes a page at a time and holds
//! the lock no longer than that.

use super::{Metadata, Pin, PinMode};
use crate::cid::{self, Cid, Version};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::PoisonError;

/// The pins, shared by the journal and the store.
#[derive(Default)]
pub(crate) struct Pins(RwLock<Table>);

/// What the lock is around.
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_key: BTreeMap<Key, Held>,
    /// When which of them expires, in seconds since 1970.
    expiring: BTreeSet<(u64, Key)>,
    changes: u64,
    /// The latest second in which one of them was made.
    latest: u64,
    /// How many bytes their records take, about.
    bytes: u64,
}

/// What a pin is found by. One of 32 bytes of digest lies in the tree itself: who goes through all of them does not wait
/// for memory at each.
type Key = SmallVec<[u8; KEY_BYTES]>;

/// A pin without its key.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// In seconds since 1970; 0 if it is not known.
    created: u64,
    more: Option<Box<More>>,
    mode: PinMode,
    /// As the CID was given, which matters to nobody but who reads it.
    is_v0: bool,
}

/// What few pins have.
#[derive(Debug, Default, PartialEq, Eq)]
struct More {
    name: Option<Box<str>>,
    metadata: Metadata,
    expires: Option<u64>,
}

impl std::fmt::Debug for Pins {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let table = self.read();
        out.debug_struct("Pins")
            .field("count", &table.len())
            .field("changes", &table.changes)
            .finish_non_exhaustive()
    }
}

impl Pins {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// A pin takes the place of the one before.
    pub(crate) fn insert(&mut self, pin: Pin) {
        self.changes += 1;
        let key = Key::from_slice(&pin.key());
        self.latest = self.latest.max(pin.created.unwrap_or(0));
        if let Some(at) = pin.expires {
            self.expiring.insert((at, key.clone()));
        }
        let held = Held::of(pin);
        let (bytes, expires) = (held.bytes(&key), held.expires());
        let before = self.by_key.insert(key.clone(), held);
        if let Some(before) = before {
            self.forget(&key, &before, expires);
        }
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.changes += 1;
        if let Some(before) = self.by_key.remove(key) {
            self.forget(key, &before, None);
        }
    }

    /// A pin is no longer as it was; when it `expires` stays known.
    fn forget(&mut self, key: &[u8], before: &Held, expires: Option<u64>) {
        self.bytes -= before.bytes(key);
        if let Some(at) = before.expires()
            && Some(at) != expires
        {
            self.expiring.remove(&(at, Key::from_slice(key)));
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Pin> {
        let (key, held) = self.by_key.get_key_value(key)?;
        held.pin(key)
    }

    /// How it is pinned, and until when.
    pub(crate) fn standing(&self, key: &[u8]) -> Option<(PinMode, Option<u64>)> {
        let held = self.by_key.get(key)?;
        Some((held.mode, held.expires()))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Something changed that counts like a pin.
    pub(crate) const fn changed(&mut self) {
        self.changes += 1;
    }

    /// Counts the changes of pins.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// How many bytes the records of the pins take at least.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The latest second in which a pin was made, by the clock of that time.
    pub(crate) const fn latest(&self) -> u64 {
        self.latest
    }

    /// Keys and modes, in the order of the keys.
    pub(crate) fn modes(&self) -> impl Iterator<Item = (&[u8], PinMode)> {
        self.by_key.iter().map(|(key, held)| (&**key, held.mode))
    }

    /// The pins in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Pin> {
        self.by_key.iter().filter_map(|(key, held)| held.pin(key))
    }

    /// The next so many pins behind a key.
    pub(crate) fn page(&self, after: Option<&[u8]>, count: usize) -> Vec<Pin> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.by_key.range::<[u8], _>((from, Bound::Unbounded));
        let pins = range.filter_map(|(key, held)| held.pin(key));
        pins.take(count).collect()
    }

    /// Up to so many pins that expire at `now` or before, the first first.
    pub(crate) fn expired(&self, now: u64, skip: usize, count: usize) -> Vec<Pin> {
        let expired = self.expiring.iter().take_while(|(at, _)| *at <= now);
        let pins = expired.filter_map(|(_, key)| self.get(key));
        pins.skip(skip).take(count).collect()
    }

    /// When the next one expires.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiring.first().map(|(at, _)| *at)
    }
}

impl Held {
    fn of(pin: Pin) -> Self {
        let more = More {
            name: pin.name.map(String::into_boxed_str),
            metadata: pin.metadata,
            expires: pin.expires,
        };
        Self {
            created: pin.created.unwrap_or(0),
            more: (more != More::default()).then(|| Box::new(more)),
            mode: pin.mode,
            is_v0: pin.cid.version() == Version::V0,
        }
    }

    fn pin(&self, key: &[u8]) -> Option<Pin> {
        let more = self.more.as_deref();
        Some(Pin {
            cid: cid_of(key, self.is_v0)?,
            mode: self.mode,
            name: more.and_then(|more| more.name.as_deref().map(str::to_owned)),
            metadata: more.map(|more| more.metadata.clone()).unwrap_or_default(),
            created: Some(self.created).filter(|at| *at > 0),
            expires: self.expires(),
        })
    }

    fn expires(&self) -> Option<u64> {
        self.more.as_ref()?.expires
    }

    fn bytes(&self, key: &[u8]) -> u64 {
        let more = self.more.as_deref().map_or(0, |more| {
            let name = more.name.as_ref().map_or(0, |name| name.len());
            let metadata = more
                .metadata
                .iter()
                .map(|(key, value)| key.len() + value.len());
            name + metadata.sum::<usize>()
        });
        (RECORD_BYTES + key.len() + more) as u64
    }
}

/// The CID that a pin is found by.
pub(crate) fn cid_of(key: &[u8], is_v0: bool) -> Option<Cid> {
    let mut rest = key;
    let cid = cid::read(&mut rest).ok().filter(|_| rest.is_empty())?;
    match is_v0 {
        true => Cid::new_v0(*cid.hash()).ok(),
        false => Some(cid),
    }
}

/// What a pin is found by: codec and multihash, whatever the CID's version.
pub(super) fn key(cid: &Cid) -> Vec<u8> {
    cid::to_v1(cid).to_bytes()
}

/// Codec and multihash of most, and some.
const KEY_BYTES: usize = 40;
/// What a pin's record takes at least beside its CID and its texts.
const RECORD_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(at: u8, name: Option<&str>, expires: Option<u64>) -> Pin {
        let digest = cid::Multihash::wrap(0x12, &[at; 32]).unwrap();
        Pin {
            name: name.map(str::to_owned),
            created: Some(1_800_000_000 + u64::from(at)),
            expires,
            ..Pin::new(Cid::new_v1(cid::RAW, digest), PinMode::Recursive, None).unwrap()
        }
    }

    #[test]
    fn pins_come_back_as_they_were_in_pages_of_any_size() {
        let mut table = Table::default();
        let mut all: Vec<Pin> = (0..20).map(|at| pin(at, Some("name"), None)).collect();
        let v0 = Cid::new_v0(cid::Multihash::wrap(0x12, &[7; 32]).unwrap()).unwrap();
        let mut metadata = Metadata::new();
        metadata.insert("owner".to_owned(), "somebody".to_owned());
        all.push(Pin {
            metadata,
            expires: Some(5),
            ..Pin::new(v0, PinMode::Direct, None).unwrap()
        });
        for pin in all.iter().rev() {
            table.insert(pin.clone());
        }
        all.sort_by_key(Pin::key);
        for count in [1, 7, 100] {
            let mut paged: Vec<Pin> = Vec::new();
            loop {
                let after = paged.last().map(Pin::key);
                let page = table.page(after.as_deref(), count);
                if page.is_empty() {
                    break;
                }
                paged.extend(page);
            }
            assert_eq!(paged, all);
        }
        assert_eq!(table.get(&key(&v0)).unwrap().cid, v0);
    }

    #[test]
    fn what_expires_is_known_in_its_order_and_forgotten_with_its_pin() {
        let mut table = Table::default();
        for (at, expires) in [(1, Some(30)), (2, None), (3, Some(10)), (4, Some(20))] {
            table.insert(pin(at, None, expires));
        }
        let expired = |table: &Table, now| {
            let pins = table.expired(now, 0, 10);
            pins.into_iter()
                .map(|pin| pin.expires.unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(table.next_expiry(), Some(10));
        assert_eq!(expired(&table, 9), [0; 0]);
        assert_eq!(expired(&table, 20), [10, 20]);
        assert_eq!(table.expired(100, 1, 1), [pin(4, None, Some(20))]);
        table.insert(pin(3, None, None));
        table.insert(pin(4, Some("named"), Some(20)));
        assert_eq!(expired(&table, 100), [20, 30]);
        table.remove(&pin(1, None, None).key());
        table.insert(pin(4, None, Some(40)));
        assert_eq!(expired(&table, 100), [40]);
        for at in [2, 3, 4] {
            table.remove(&pin(at, None, None).key());
        }
        assert_eq!(
            (table.len(), table.bytes(), table.next_expiry()),
            (0, 0, None)
        );
    }
}
