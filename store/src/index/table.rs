//! What was not merged yet: places that the buckets do not know, and removals they have not seen.
//!
//! In parts, each with a lock of its own: whoever grows one, or tells all that is in it, keeps nobody
//! waiting for long.

use super::Key;
use super::buckets::{self, Change};
use crate::log::Place;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError};

/// Something by key.
pub(super) type ByKey<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

/// Changes by key, packed as in a bucket: hundreds of thousands wait here.
pub(super) type Changes = ByKey<Change>;

/// The memory table.
#[derive(Debug, Default)]
pub(super) struct Table {
    parts: [Lock; PARTS],
}

/// What lies in each part: a bucket's keys are all in the same.
#[derive(Debug, Default)]
struct Part {
    fresh: Changes,
    frozen: Option<Arc<Changes>>,
    /// Keys that somebody needs to know about when they change.
    watched: Watched,
}

type Lock = RwLock<Part>;
type Watched = HashSet<Key, BuildHasherDefault<KeyHasher>>;

/// What a merge is about to move into the buckets, in parts in the order of the buckets.
#[derive(Debug)]
pub(crate) struct Frozen(Vec<Arc<Changes>>);

impl Frozen {
    pub(super) fn parts(&self) -> impl Iterator<Item = &Changes> {
        self.0.iter().map(|part| &**part)
    }

    /// What changes, and to what.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&Key, Option<Place>)> {
        self.parts()
            .flatten()
            .map(|(key, change)| (key, buckets::place_of(change)))
    }
}

impl Table {
    pub(super) fn get(&self, key: &Key) -> Option<Option<Place>> {
        read(self.part(key)).get(key)
    }

    pub(super) fn set(&self, key: Key, place: Option<Place>) {
        let mut part = write(self.part(&key));
        if !part.watched.is_empty() {
            part.watched.remove(&key);
        }
        part.fresh.insert(key, buckets::packed(place));
    }

    /// Watches these keys and no others.
    pub(super) fn watch(&self, keys: impl IntoIterator<Item = Key>) {
        let mut watched: [Watched; PARTS] = Default::default();
        for key in keys {
            if let Some(part) = watched.get_mut(number(&key)) {
                part.insert(key);
            }
        }
        for (part, keys) in self.parts.iter().zip(watched) {
            let before = std::mem::replace(&mut write(part).watched, keys);
            drop(before); // Only now, with the lock gone: there may be many.
        }
    }

    pub(super) fn is_watched(&self, key: &Key) -> bool {
        read(self.part(key)).watched.contains(key)
    }

    pub(super) fn forget(&self, mut lost: impl FnMut(&Place) -> bool) {
        for part in &mut self.write_all() {
            part.thaw();
            for place in part.fresh.values_mut() {
                if buckets::place_of(place).as_ref().is_some_and(&mut lost) {
                    *place = buckets::packed(None);
                }
            }
        }
    }

    pub(super) fn clear(&self) {
        for part in &mut self.write_all() {
            **part = Part::default();
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.parts.iter().map(|part| read(part).fresh.len()).sum()
    }

    /// Whether this is what is frozen now.
    pub(super) fn holds(&self, frozen: &Frozen) -> bool {
        let parts: Vec<_> = self.parts.iter().map(read).collect();
        let mut both = parts.iter().zip(&frozen.0);
        both.all(|(part, frozen)| part.holds(frozen))
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.parts.iter().any(|part| read(part).frozen.is_some())
    }

    /// Sets everything fresh apart. `None` if something is frozen already.
    pub(super) fn freeze(&self) -> Option<Frozen> {
        let mut parts = self.write_all();
        if parts.iter().any(|part| part.frozen.is_some()) {
            return None;
        }
        let frozen = parts.iter_mut().map(|part| {
            let frozen = Arc::new(std::mem::take(&mut part.fresh));
            part.frozen = Some(Arc::clone(&frozen));
            frozen
        });
        Some(Frozen(frozen.collect()))
    }

    /// What was frozen has been merged.
    pub(super) fn thawed(&self, merged: &Frozen) {
        for (part, merged) in self.write_all().iter_mut().zip(&merged.0) {
            if part.holds(merged) {
                part.frozen = None;
            }
        }
    }

    /// Every place in here that counts, part by part.
    pub(super) fn places(&self) -> impl Iterator<Item = Vec<(Key, Place)>> {
        self.parts.iter().map(|part| read(part).places())
    }

    fn part(&self, key: &Key) -> &Lock {
        let [first, ..] = &self.parts;
        self.parts.get(number(key)).unwrap_or(first)
    }

    /// All parts at once, always in the same order.
    fn write_all(&self) -> Vec<RwLockWriteGuard<'_, Part>> {
        self.parts.iter().map(write).collect()
    }
}

impl Part {
    fn get(&self, key: &Key) -> Option<Option<Place>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        let change = self.fresh.get(key).or_else(frozen)?;
        Some(buckets::place_of(change))
    }

    fn holds(&self, frozen: &Arc<Changes>) -> bool {
        let now = self.frozen.as_ref();
        now.is_some_and(|now| Arc::ptr_eq(now, frozen))
    }

    fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            for (key, place) in frozen.iter() {
                self.fresh.entry(*key).or_insert(*place);
            }
        }
    }

    fn places(&self) -> Vec<(Key, Place)> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.iter());
        let older = frozen.filter(|(key, _)| !self.fresh.contains_key(*key));
        self.fresh
            .iter()
            .chain(older)
            .filter_map(|(key, change)| Some((*key, buckets::place_of(change)?)))
            .collect()
    }
}

fn read(part: &Lock) -> RwLockReadGuard<'_, Part> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(part: &Lock) -> RwLockWriteGuard<'_, Part> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

/// The part in which a key is.
fn number(key: &Key) -> usize {
    let [first, ..] = *key;
    usize::from(first) * PARTS / 256
}

/// In how many parts the table is.
const PARTS: usize = 16;

/// Keys are keyed hashes already: their first bytes are as good as any hash of them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The last bytes of the key count, because the first ones are the same all through a bucket.
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_ne_bytes(*last);
        }
    }

    fn write_usize(&mut self, _length: usize) {
        // Arrays announce their length, which is always the same.
    }
}
