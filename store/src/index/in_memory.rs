//! An index without a disk: for repositories that cannot be written, for the time after sled failed,
//! and for tests, where it stands for what sled made durable.

use super::buckets::{self, Bucket, Removals};
use super::table::Frozen;
use super::{Checkpoint, Key};
use crate::log::Place;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buckets in memory.
#[derive(Debug)]
pub(crate) struct Image {
    content: Mutex<Content>,
}

#[derive(Debug, Clone)]
struct Content {
    secret: [u8; 32],
    buckets: BTreeMap<Bucket, Vec<u8>>,
    checkpoint: Option<Checkpoint>,
    /// How often it was emptied.
    emptied: u64,
    /// How often a rebuild has put others in the buckets' place.
    sides: u64,
}

impl Image {
    /// An image that knows nothing.
    pub(crate) fn new() -> Self {
        Self::with_secret(rand::random())
    }

    pub(crate) fn with_secret(secret: [u8; 32]) -> Self {
        Self {
            content: Mutex::new(Content {
                secret,
                buckets: BTreeMap::new(),
                checkpoint: None,
                emptied: 0,
                sides: 0,
            }),
        }
    }

    /// The image as it is now, for good.
    #[cfg(test)]
    pub(crate) fn copied(&self) -> Self {
        Self {
            content: Mutex::new(self.lock().clone()),
        }
    }

    /// What a crash in the middle of a merge may leave: some buckets as they are now, the others and
    /// the checkpoint as they were.
    #[cfg(test)]
    pub(crate) fn half_merged(before: &Self, now: &Self, mut merged: impl FnMut() -> bool) -> Self {
        let mut content = before.lock().clone();
        let now = now.lock();
        if content.sides != now.sides {
            // Changing sides is one write, and nothing was merged on the new side yet.
            let content = if merged() { now.clone() } else { content };
            return Self {
                content: Mutex::new(content),
            };
        }
        if content.emptied != now.emptied {
            // The first thing that emptying makes durable is that there is no checkpoint.
            content.checkpoint = None;
        }
        if content.secret == now.secret {
            for (name, entries) in &now.buckets {
                if merged() {
                    content.buckets.insert(*name, entries.clone());
                }
            }
        }
        drop(now);
        if let Some(checkpoint) = &mut content.checkpoint {
            checkpoint.merging = true;
        }
        Self {
            content: Mutex::new(content),
        }
    }

    pub(super) fn meta(&self) -> ([u8; 32], Option<Checkpoint>) {
        let content = self.lock();
        (content.secret, content.checkpoint.clone())
    }

    pub(super) fn clear(&self) {
        let mut content = self.lock();
        content.buckets.clear();
        content.checkpoint = None;
        content.emptied += 1;
    }

    pub(super) fn place(&self, key: &Key) -> Option<Place> {
        let [a, b, ..] = *key;
        buckets::find(self.lock().buckets.get(&[a, b])?, key).flatten()
    }

    pub(super) fn merge(&self, changes: &Frozen, checkpoint: Option<&Checkpoint>) {
        let mut content = self.lock();
        for (bucket, changes) in changes.parts().flat_map(buckets::by_bucket) {
            let entries = content.buckets.entry(bucket).or_default();
            *entries = buckets::merge(entries, &changes, Removals::Done);
        }
        if let Some(checkpoint) = checkpoint {
            content.checkpoint = Some(checkpoint.clone());
        }
    }

    /// Goes on with what another image holds.
    pub(super) fn take_over(&self, other: &Self, checkpoint: Option<&Checkpoint>) {
        let buckets = std::mem::take(&mut other.lock().buckets);
        let mut content = self.lock();
        content.buckets = buckets;
        content.checkpoint = checkpoint.cloned();
        content.sides += 1;
    }

    /// Takes one entry in, while the image is made.
    pub(crate) fn set(&self, key: Key, place: Option<Place>) {
        let [a, b, ..] = key;
        let mut content = self.lock();
        let entries = content.buckets.entry([a, b]).or_default();
        *entries = buckets::merge(entries, &[(key, place)], Removals::Done);
    }

    /// The first bucket from `number` on, and its entries.
    pub(super) fn next_bucket(&self, number: u16) -> Option<(u16, Vec<(Key, Place)>)> {
        let content = self.lock();
        let (name, bytes) = content.buckets.range(number.to_be_bytes()..).next()?;
        let places = buckets::entries(*name, bytes);
        let places = places.filter_map(|(key, place)| Some((key, place?)));
        Some((u16::from_be_bytes(*name), places.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
