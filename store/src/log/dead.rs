//! Which sections no longer count, whatever the index says. The journal is the truth about them;
//! readers ask here, on every read.

use super::{Position, SegmentId};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Dead sections, by segment. A collection adds a million to one segment's: their set must not stop
/// everybody to grow, as a hash table does.
#[derive(Debug, Default)]
pub(crate) struct Dead {
    by_segment: RwLock<BTreeMap<SegmentId, RoaringBitmap>>,
    /// Those that died since somebody began to listen.
    heard: Mutex<Option<Vec<Position>>>,
}

/// Listens to deaths until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener<'a>(&'a Dead);

impl Listener<'_> {
    /// Those that died since the last call.
    pub(crate) fn take(&self) -> Vec<Position> {
        let mut heard = self.0.heard();
        heard.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        *self.0.heard() = None;
    }
}

impl Dead {
    /// Lets sections no longer count.
    pub(crate) fn extend(&self, positions: impl IntoIterator<Item = Position>) {
        let mut dead = self.write();
        let mut heard = self.heard();
        for position in positions {
            if let Some(heard) = &mut *heard {
                heard.push(position);
            }
            dead.entry(position.segment)
                .or_default()
                .insert(position.offset);
        }
    }

    /// Begins to listen. Only one listens at a time.
    pub(crate) fn listen(&self) -> Listener<'_> {
        *self.heard() = Some(Vec::new());
        Listener(self)
    }

    /// Whether the section is dead.
    pub(crate) fn has(&self, position: &Position) -> bool {
        let dead = self.read();
        dead.get(&position.segment)
            .is_some_and(|offsets| offsets.contains(position.offset))
    }

    /// Forgets a segment: it is gone.
    pub(crate) fn forget(&self, segment: SegmentId) {
        let forgotten = self.write().remove(&segment);
        drop(forgotten); // With the lock gone: there may be many.
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.read().values().map(RoaringBitmap::len).sum()
    }

    /// All of them, in order.
    pub(crate) fn positions(&self) -> Vec<Position> {
        let dead = self.read();
        let positions = dead.iter().flat_map(|(segment, offsets)| {
            offsets.iter().map(|offset| Position {
                segment: *segment,
                offset,
            })
        });
        positions.collect()
    }

    fn heard(&self) -> MutexGuard<'_, Option<Vec<Position>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<SegmentId, RoaringBitmap>> {
        self.by_segment
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<SegmentId, RoaringBitmap>> {
        self.by_segment
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
