//! What peers sent and nobody asked to keep goes when it takes more than `storage.cache_max`.
//!
//! It lies in segments of its own, in the order it came. When they have outgrown the limit the oldest
//! is emptied: what has become kept is copied to where kept blocks lie; what somebody holds, and what was
//! read lately, is copied to the young end, at most half of it; the rest goes, and the file with it (where the limit was
//! lowered far below a file, what came last and fits it stays too). So
//! what an eviction costs depends on what it evicts, not on what is stored, and no mark is needed: what a
//! pin reaches became kept before the pin was made.

use crate::compact::{Compaction, Fate, Look};
use crate::index::Key;
use crate::log::files::Access;
use crate::log::{Place, SegmentId, Stream};
use crate::sink::PutError;
use crate::store::{Inner, Store, blocking};
use std::cell::Cell;
use std::sync::PoisonError;

/// What an eviction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Blocks evicted.
    pub blocks: u64,
    /// Bytes given back to the file system.
    pub bytes: u64,
}

/// What of a segment that is emptied may be copied to the young end.
struct Room {
    /// Bytes of what was read lately.
    lately: u64,
    /// All from here to the end, which came last.
    from: u64,
    /// Bytes by now.
    spared: Cell<u64>,
}

impl Store {
    /// Evicts cached blocks until they take no more than their limit. Does nothing if they do not.
    pub async fn evict(&self) -> Result<Evicted, PutError> {
        if !self.inner.cache_is_full() {
            return Ok(Evicted::default());
        }
        let alone = self.inner.collecting.clone().lock_owned().await;
        let inner = self.inner.clone();
        blocking(move || {
            let evicted = inner.evict();
            drop(alone);
            evicted
        })
        .await
        .unwrap_or(Err(PutError::Closing))
    }

    /// Done when the cache has outgrown its limit since the last call.
    pub async fn cache_full(&self) {
        self.inner.wakes.notified().await;
    }
}

impl Inner {
    /// Whether cached blocks take more than their limit.
    pub(crate) fn cache_is_full(&self) -> bool {
        // With records lost, what has become kept may be among them.
        self.files.access == Access::ReadWrite
            && self.journal_damage.is_none()
            && self.cache_bytes() > self.config.cache_max.0
    }

    fn cache_bytes(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let cached = segments.iter().filter(|(id, _)| id.stream == Stream::Cache);
        cached.map(|(_, segment)| segment.length()).sum()
    }

    pub(crate) fn evict(&self) -> Result<Evicted, PutError> {
        let mut evicted = Evicted::default();
        // Each is looked at once: what is copied to the young end has had its chance.
        for id in self.cached_segments() {
            if !self.cache_is_full() {
                break;
            }
            let before = self.cache_bytes();
            let length = self.segment(id).map_or(0, |segment| segment.length());
            let room = Room {
                lately: length / 2,
                from: length - self.room_beside(before.saturating_sub(length), length),
                spared: Cell::new(0),
            };
            let fate = |key: &Key, place: &Place| self.fate(key, place, &room);
            // One at a time: only the keys of the last one looked into are watched.
            let compacted = Compaction::new(self).run(&[id], Look::IntoSegments, fate)?;
            evicted.blocks += compacted.gone;
            evicted.bytes += before.saturating_sub(self.cache_bytes());
        }
        self.metrics.evicted.inc_by(evicted.blocks);
        Ok(evicted)
    }

    /// How much of a segment may stay, read lately or not, because the limit has been lowered far below what a
    /// segment was made for: else all that is cached would go with one file.
    fn room_beside(&self, others: u64, length: u64) -> u64 {
        if length <= self.config.cache_segment_size().saturating_mul(2) {
            return 0; // It goes whole: that is quick, and little is lost.
        }
        let room = self.config.cache_max.0.saturating_sub(others) / 2;
        room.min(length)
    }

    fn fate(&self, key: &Key, place: &Place, room: &Room) -> Fate {
        if !place.cached || self.is_held(key) {
            return Fate::Stays;
        }
        if u64::from(place.offset) >= room.from && !place.damaged {
            return Fate::Stays;
        }
        let with_it = room.spared.get() + u64::from(place.length);
        let fits = with_it <= room.lately && self.was_read_lately(key);
        if fits && !place.damaged {
            room.spared.set(with_it);
            return Fate::Stays;
        }
        Fate::Goes
    }

    /// The segments of the cache, the oldest first.
    fn cached_segments(&self) -> Vec<SegmentId> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let cached = segments.keys().filter(|id| id.stream == Stream::Cache);
        cached.copied().collect()
    }
}
