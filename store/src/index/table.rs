//! What was not merged yet: places that the buckets do not know, and removals they have not seen.

use super::Key;
use super::buckets::{self, Change};
use crate::log::Place;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Something by key.
pub(super) type ByKey<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

/// Changes by key, packed as in a bucket: hundreds of thousands wait here.
pub(super) type Changes = ByKey<Change>;

/// The memory table.
#[derive(Debug, Default)]
pub(super) struct Table {
    fresh: Changes,
    frozen: Option<Arc<Changes>>,
    /// Keys that somebody needs to know about when they change.
    watched: HashSet<Key, BuildHasherDefault<KeyHasher>>,
}

/// What a merge is about to move into the buckets.
#[derive(Debug)]
pub(crate) struct Frozen(Arc<Changes>);

impl Frozen {
    pub(super) fn entries(&self) -> &Changes {
        &self.0
    }

    /// What changes, and to what.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&Key, Option<Place>)> {
        self.0
            .iter()
            .map(|(key, change)| (key, buckets::place_of(change)))
    }
}

impl Table {
    pub(super) fn get(&self, key: &Key) -> Option<Option<Place>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(key));
        let change = self.fresh.get(key).or_else(frozen)?;
        Some(buckets::place_of(change))
    }

    pub(super) fn set(&mut self, key: Key, place: Option<Place>) {
        if !self.watched.is_empty() {
            self.watched.remove(&key);
        }
        self.fresh.insert(key, buckets::packed(place));
    }

    pub(super) fn watch(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.watched = keys.into_iter().collect();
    }

    pub(super) fn is_watched(&self, key: &Key) -> bool {
        self.watched.contains(key)
    }

    pub(super) fn forget(&mut self, mut lost: impl FnMut(&Place) -> bool) {
        if let Some(frozen) = self.frozen.take() {
            for (key, place) in frozen.iter() {
                self.fresh.entry(*key).or_insert(*place);
            }
        }
        for place in self.fresh.values_mut() {
            if buckets::place_of(place).as_ref().is_some_and(&mut lost) {
                *place = buckets::packed(None);
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.fresh.len()
    }

    /// Whether this is what is frozen now.
    pub(super) fn holds(&self, Frozen(changes): &Frozen) -> bool {
        let now = self.frozen.as_ref();
        now.is_some_and(|now| Arc::ptr_eq(now, changes))
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    pub(super) fn freeze(&mut self) -> Option<Frozen> {
        if self.frozen.is_some() {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut self.fresh));
        self.frozen = Some(Arc::clone(&frozen));
        Some(Frozen(frozen))
    }

    /// What was frozen has been merged.
    pub(super) fn thawed(&mut self, merged: &Frozen) {
        if self.holds(merged) {
            self.frozen = None;
        }
    }

    /// Every place in here that counts.
    pub(super) fn places(&self) -> Vec<(Key, Place)> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.iter());
        let older = frozen.filter(|(key, _)| !self.fresh.contains_key(*key));
        self.fresh
            .iter()
            .chain(older)
            .filter_map(|(key, change)| Some((*key, buckets::place_of(change)?)))
            .collect()
    }
}

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
