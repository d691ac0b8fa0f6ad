//! Notes: small things that others keep beside the pins, in the journal; a value under a key of some kind.
//!
//! The store does not look into them. What is acknowledged is on the disk, whatever `storage.durability` says: who
//! numbers what it signs must never begin anew. A note is there as a whole or not at all.

use crate::journal::record::Record;
use crate::pin::NoteChange;
use crate::sink::PutError;
use crate::store::{Inner, Store, blocking};
use crate::sync::RwLockReadGuard;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// What a note is about. The number is what the journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum About {
    /// The newest IPNS record that this node signed for a name; its key is the name's multihash.
    Published = 1,
    /// Somebody else's IPNS record that this node keeps alive; its key is the name's multihash.
    Tended = 2,
    /// A name that a pin follows.
    Followed = 3,
    /// The root of the file tree ([`crate::files`]): GC marks it like a recursive pin.
    Files = 4,
    /// A pin that waits to be made; its key is the pin's.
    PinJob = 5,
}

/// Why a note was not kept.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// It is longer than a note may be.
    #[error(
        "a note has at most {NOTE_BYTES_MAX} bytes under at most {NOTE_KEY_BYTES_MAX}, this one has {bytes} under {key}"
    )]
    TooLong {
        /// The length of the value.
        bytes: usize,
        /// The length of the key.
        key: usize,
    },
    /// There are too many.
    #[error("{NOTES_MAX} notes of this kind are kept already, and that is the most")]
    TooMany,
    /// The journal could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// All notes, by kind and key.
pub(crate) type Notes = BTreeMap<(u8, Vec<u8>), Bytes>;

impl Store {
    /// What is noted under a key.
    pub fn note(&self, about: About, key: &[u8]) -> Option<Bytes> {
        let place = (about as u8, key.to_vec());
        self.inner.read_notes().get(&place).cloned()
    }

    /// Everything noted about something, by key.
    pub fn notes(&self, about: About) -> Vec<(Vec<u8>, Bytes)> {
        let notes = self.inner.read_notes();
        let of_kind = notes.range((about as u8, Vec::new())..);
        of_kind
            .take_while(|((kind, _), _)| *kind == about as u8)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Notes a value in the place of the one before. On the disk when this returns.
    pub async fn set_note(
        &self,
        about: About,
        key: Vec<u8>,
        value: Bytes,
    ) -> Result<(), NoteError> {
        must_fit(&key, &value)?;
        self.must_have_room(&[NoteChange {
            about,
            key: key.clone(),
            value: Some(value.clone()),
        }])?;
        Ok(self.write_note(about, key, Some(value)).await?)
    }

    /// Fails if there would be too many of a kind, and more than there are. Those that come at once may be a few more.
    fn must_have_room(&self, changes: &[NoteChange]) -> Result<(), NoteError> {
        // The last of those with one key is what becomes of it.
        let becomes: BTreeMap<(About, &[u8]), bool> = changes
            .iter()
            .map(|change| ((change.about, &change.key[..]), change.value.is_some()))
            .collect();
        let mut kinds: BTreeMap<About, (usize, usize)> = BTreeMap::new();
        for ((about, key), stays) in becomes {
            let (new, gone) = kinds.entry(about).or_default();
            match (self.note(about, key).is_some(), stays) {
                (false, true) => *new += 1,
                (true, false) => *gone += 1,
                _ => {}
            }
        }
        let has_room = |(about, (new, gone)): (About, (usize, usize))| {
            new <= gone || self.inner.count_notes(about) + new - gone <= NOTES_MAX
        };
        match kinds.into_iter().all(has_room) {
            true => Ok(()),
            false => Err(NoteError::TooMany),
        }
    }

    /// Changes notes in one commit, and does `then` once that is on the disk: both even if nobody waits for it any more.
    pub async fn change_notes(
        &self,
        changes: Vec<NoteChange>,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), NoteError> {
        for change in &changes {
            if let Some(value) = &change.value {
                must_fit(&change.key, value)?;
            }
        }
        self.must_have_room(&changes)?;
        let inner = self.inner.clone();
        let records = changes.into_iter().map(NoteChange::record).collect();
        let commit = move || inner.commit_to_disk(records).inspect(|()| then());
        Ok(blocking(commit).await.unwrap_or(Err(PutError::Closing))?)
    }

    /// Forgets what is noted under a key. Durable when this returns.
    pub async fn remove_note(&self, about: About, key: Vec<u8>) -> Result<(), NoteError> {
        Ok(self.write_note(about, key, None).await?)
    }

    async fn write_note(
        &self,
        about: About,
        key: Vec<u8>,
        value: Option<Bytes>,
    ) -> Result<(), PutError> {
        let inner = self.inner.clone();
        let about = about as u8;
        let noted = Record::Noted { about, key, value };
        blocking(move || inner.commit_to_disk(vec![noted]))
            .await
            .unwrap_or(Err(PutError::Closing))
    }
}

impl Inner {
    pub(crate) fn read_notes(&self) -> RwLockReadGuard<'_, Notes> {
        self.notes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_notes(&self, about: About) -> usize {
        let kind = about as u8;
        self.read_notes()
            .range((kind, Vec::new())..(kind + 1, Vec::new()))
            .count()
    }
}

fn must_fit(key: &[u8], value: &[u8]) -> Result<(), NoteError> {
    if value.len() > NOTE_BYTES_MAX || key.len() > NOTE_KEY_BYTES_MAX {
        return Err(NoteError::TooLong {
            bytes: value.len(),
            key: key.len(),
        });
    }
    Ok(())
}

/// Most bytes of a note: an IPNS record has at most 10 KiB.
pub const NOTE_BYTES_MAX: usize = 16 << 10;
/// Most bytes of a note's key: a multihash or a path has fewer.
pub const NOTE_KEY_BYTES_MAX: usize = 512;
/// Most notes of one kind. All of them are in memory, and written again with the journal.
pub const NOTES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn opened(folder: &std::path::Path) -> Store {
        Store::open(folder, &Config::default(), &mut |_| {}).unwrap()
    }

    #[tokio::test]
    async fn what_is_done_along_with_a_change_of_notes_is_done_when_nobody_waits_for_it_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let change = |key: &[u8], value| NoteChange {
            about: About::Published,
            key: key.to_vec(),
            value,
        };
        let long = Bytes::from(vec![0; NOTE_BYTES_MAX + 1]);
        let refused = store.change_notes(vec![change(b"one", Some(long))], || unreachable!());
        assert!(matches!(refused.await, Err(NoteError::TooLong { .. })));
        let both = vec![
            change(b"one", Some("first".into())),
            change(b"two", Some("second".into())),
        ];
        let (done, noted) = std::sync::mpsc::channel();
        let seen = store.clone();
        let changing = store.change_notes(both, move || {
            done.send(seen.notes(About::Published).len()).unwrap();
        });
        // It is begun, and whoever waited for it goes.
        drop(futures::FutureExt::now_or_never(changing));
        let noted = tokio::task::spawn_blocking(move || noted.recv());
        assert_eq!(noted.await.unwrap(), Ok(2));
    }

    #[tokio::test]
    async fn what_is_noted_stands_after_reopening_each_kind_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let set = |about, key: &'static [u8], value: &'static [u8]| {
            store.set_note(about, key.to_vec(), Bytes::from_static(value))
        };
        set(About::Published, b"one", b"first").await.unwrap();
        set(About::Published, b"one", b"second").await.unwrap();
        set(About::Published, b"two", b"").await.unwrap();
        set(About::Followed, b"one", b"another").await.unwrap();
        set(About::Published, b"gone", b"soon").await.unwrap();
        let gone = store.remove_note(About::Published, b"gone".to_vec());
        gone.await.unwrap();
        let says = |store: &Store| {
            assert_eq!(store.note(About::Published, b"one").unwrap(), "second");
            assert_eq!(store.note(About::Followed, b"one").unwrap(), "another");
            assert_eq!(store.note(About::Tended, b"one"), None);
            assert_eq!(store.note(About::Published, b"gone"), None);
            let published = store.notes(About::Published);
            let keys: Vec<_> = published.iter().map(|(key, _)| &key[..]).collect();
            assert_eq!(keys, [b"one", b"two"]);
            assert_eq!(store.notes(About::Tended), []);
        };
        says(&store);
        // Killed, as it were.
        drop(store);
        says(&opened(folder.path()));
    }

    #[tokio::test]
    async fn changes_that_come_together_count_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let set = |number: usize| NoteChange {
            about: About::Followed,
            key: number.to_le_bytes().to_vec(),
            value: Some(Bytes::new()),
        };
        let remove = |number| NoteChange {
            value: None,
            ..set(number)
        };
        let change = |changes: Vec<NoteChange>| store.change_notes(changes, || {});
        let count = || store.notes(About::Followed).len();
        let refused = change((0..=NOTES_MAX).map(set).collect()).await;
        assert!(matches!(refused, Err(NoteError::TooMany)), "{refused:?}");
        assert_eq!(count(), 0);
        change((0..NOTES_MAX).map(set).collect()).await.unwrap();
        // What is there, or takes the place of another, is none more.
        change(vec![set(0), set(1)]).await.unwrap();
        change(vec![set(NOTES_MAX), remove(0)]).await.unwrap();
        let refused = change(vec![set(0), set(0), set(1)]).await;
        assert!(matches!(refused, Err(NoteError::TooMany)), "{refused:?}");
        assert_eq!(count(), NOTES_MAX);
    }

    #[tokio::test]
    async fn a_note_that_is_too_long_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let most = Bytes::from(vec![7; NOTE_BYTES_MAX]);
        let key = vec![1; NOTE_KEY_BYTES_MAX];
        let set =
            |key: &[u8], value: &Bytes| store.set_note(About::Tended, key.to_vec(), value.clone());
        set(&key, &most).await.unwrap();
        let longer = Bytes::from(vec![8; NOTE_BYTES_MAX + 1]);
        let longer_key = vec![1; NOTE_KEY_BYTES_MAX + 1];
        for refused in [set(&key, &longer).await, set(&longer_key, &most).await] {
            assert!(matches!(refused, Err(NoteError::TooLong { .. })));
        }
        assert_eq!(store.notes(About::Tended), [(key, most)]);
    }
}
