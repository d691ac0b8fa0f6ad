//! Packed entries. A bucket holds the entries whose keys share their first 16 bits, each the rest of
//! the key and a place: a key a block would cost sled four times the disk and several times the memory.

use super::Key;
use super::table::Changes;
use crate::log::Place;

/// A bucket's name: the first bytes of its keys.
pub(crate) type Bucket = [u8; 2];

/// What becomes of removals when they go into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removals {
    /// They stand there, because something below must be hidden.
    Kept,
    /// They are done when the entry is gone.
    Done,
}

/// A key, and what it changed to.
pub(crate) type Changed = (Key, Option<Place>);

/// A place, or that the key was removed, in the bytes that an entry has for it.
pub(super) type Change = [u8; Place::PACKED];

/// Changes, bucket by bucket, in the order of their keys.
pub(super) fn by_bucket(changes: &Changes) -> impl Iterator<Item = (Bucket, Vec<Changed>)> {
    let mut sorted: Vec<(Key, Change)> = changes.iter().map(|(key, to)| (*key, *to)).collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    let mut rest = sorted.into_iter().peekable();
    std::iter::from_fn(move || {
        let (bucket, _) = split(&rest.peek()?.0);
        let mut changed = Vec::new();
        while let Some((key, to)) = rest.next_if(|(key, _)| split(key).0 == bucket) {
            changed.push((key, place_of(&to)));
        }
        Some((bucket, changed))
    })
}

/// What a bucket says: `None` nothing, `Some(None)` that the key was removed.
pub(crate) fn find(entries: &[u8], key: &Key) -> Option<Option<Place>> {
    let (_, rest) = split(key);
    let place = entries
        .chunks_exact(ENTRY)
        .find_map(|entry| entry.strip_prefix(&rest[..]))?;
    Some(place_of(place))
}

/// The entries of a bucket.
pub(crate) fn entries(
    bucket: Bucket,
    bytes: &[u8],
) -> impl Iterator<Item = (Key, Option<Place>)> + '_ {
    bytes.chunks_exact(ENTRY).filter_map(move |entry| {
        let (rest, place) = entry.split_at_checked(REST)?;
        let mut key = Key::default();
        for (to, from) in key.iter_mut().zip(bucket.iter().chain(rest)) {
            *to = *from;
        }
        Some((key, place_of(place)))
    })
}

/// A bucket with the changes in it.
pub(crate) fn merge(old: &[u8], changes: &[Changed], removals: Removals) -> Vec<u8> {
    let mut changed: Vec<([u8; REST], Option<Place>)> = changes
        .iter()
        .map(|(key, place)| (split(key).1, *place))
        .collect();
    changed.sort_by_key(|(rest, _)| *rest);
    // What is told twice counts as it is found: the first time.
    changed.dedup_by_key(|(rest, _)| *rest);
    let mut merged = Vec::with_capacity(old.len() + changed.len() * ENTRY);
    for entry in old.chunks_exact(ENTRY) {
        let is_changed = |rest: &[u8; REST]| {
            let found = changed.binary_search_by(|(changed, _)| changed.cmp(rest));
            found.is_ok()
        };
        if entry.first_chunk().is_some_and(|rest| !is_changed(rest)) {
            merged.extend_from_slice(entry);
        }
    }
    for (rest, place) in changed {
        if place.is_some() || removals == Removals::Kept {
            merged.extend_from_slice(&rest);
            merged.extend_from_slice(&packed(place));
        }
    }
    merged
}

/// A place, or that there is none.
pub(super) fn packed(place: Option<Place>) -> Change {
    place.map_or(REMOVED, |place| place.packed())
}

/// What [`packed`] has packed; no place where it is none.
pub(super) fn place_of(packed: &[u8]) -> Option<Place> {
    Place::unpacked(packed).filter(|_| packed != REMOVED)
}

fn split(key: &Key) -> (Bucket, [u8; REST]) {
    let [a, b, rest @ ..] = *key;
    ([a, b], rest)
}

/// Bytes of a key beyond its bucket's.
const REST: usize = 14;
/// Bytes of an entry.
pub(crate) const ENTRY: usize = REST + Place::PACKED;
/// In the place of a place: the key was removed. No segment has the number 0.
const REMOVED: [u8; Place::PACKED] = [0; Place::PACKED];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{SegmentId, Stream};
    use proptest::prelude::*;

    fn place(offset: u32) -> Place {
        Place {
            segment: SegmentId {
                stream: Stream::Leaf,
                number: 1,
            },
            offset,
            length: 5,
            cached: false,
            damaged: false,
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = find(&bytes, &Key::default());
            let known = entries([0, 0], &bytes).count();
            let merged = merge(&bytes, &[(Key::default(), Some(place(1)))], Removals::Done);
            prop_assert!(merged.len() <= (known + 1) * ENTRY);
            prop_assert_eq!(find(&merged, &Key::default()), Some(Some(place(1))));
        }
    }

    #[test]
    fn a_removal_stands_as_long_as_something_below_must_be_hidden() {
        let key = Key::default();
        let with = merge(&[], &[(key, Some(place(3)))], Removals::Kept);
        let removed = merge(&with, &[(key, None)], Removals::Kept);
        assert_eq!(find(&removed, &key), Some(None));
        assert_eq!(entries([0, 0], &removed).collect::<Vec<_>>(), [(key, None)]);
        assert!(merge(&with, &[(key, None)], Removals::Done).is_empty());
    }
}
