//! Other people's records, kept alive: told again like those that are published here, so that a name outlives its
//! owner's node for as long as its record holds.
//!
//! Nothing is signed here, so nothing lasts longer than its owner signed it for. A newer record takes the place of the
//! one that is kept, whenever there is one.

use super::resolve::{How, ResolveError};
use super::{Names, newest};
use crate::ipns::Record;
use crate::routing::RoutingError;
use bytes::Bytes;
use cairn_store::notes::{About, NoteError};
use libp2p::PeerId;

/// Why a name is not kept alive.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// Its owner is here.
    #[error("this name is published from here, so it is told of again anyway")]
    Own,
    /// It was not kept.
    #[error("this name is not kept alive here; `cairn name kept` lists those that are")]
    NotKept,
    /// There is nothing to keep.
    #[error("{0}")]
    Resolve(Box<ResolveError>),
    /// The journal did not take it.
    #[error("the record cannot be kept: {0}")]
    Note(#[from] NoteError),
}

impl Names {
    /// Finds the newest record of a name, and tells others of it from now on. It is on disk when this returns.
    pub async fn keep_alive(&self, name: &PeerId) -> Result<Record, KeepError> {
        let now = self.now().map_err(ResolveError::from);
        let now = now.map_err(|error| KeepError::Resolve(Box::new(error)))?;
        let own = self.noted(name).map(|noted| noted.record);
        // One that has expired is told of no more, as its key is not here.
        if own.is_some_and(|own| own.expires() > now) {
            return Err(KeepError::Own);
        }
        let record = self.resolve(name, How::Anew).await;
        let record = record.map_err(|error| KeepError::Resolve(Box::new(error)))?;
        let _keeping = self.0.keeping.lock().await;
        self.note_kept(name, &record).await?;
        Ok(record)
    }

    /// Tells nobody of it any more.
    pub async fn let_go(&self, name: &PeerId) -> Result<(), KeepError> {
        let _keeping = self.0.keeping.lock().await;
        if self.kept_record(name).is_none() {
            return Err(KeepError::NotKept);
        }
        let gone = self.0.store.remove_note(About::Tended, name.to_bytes());
        Ok(gone.await?)
    }

    /// The names that are kept alive, and the newest record of each that is known.
    pub fn kept(&self) -> Vec<(PeerId, Record)> {
        let notes = self.0.store.notes(About::Tended);
        let read = notes.into_iter().filter_map(|(key, note)| {
            let name = PeerId::from_bytes(&key).ok()?;
            Some((name, read(&name, &note)?))
        });
        read.collect()
    }

    /// The record of a name that is kept alive.
    pub(super) fn kept_record(&self, name: &PeerId) -> Option<Record> {
        let note = self.0.store.note(About::Tended, &name.to_bytes())?;
        read(name, &note)
    }

    /// What to tell others of a name that is kept alive, which is the newest that anybody has.
    pub(super) async fn renewed(&self, name: &PeerId) -> Option<Record> {
        let kept = self.kept_record(name)?;
        if self.is_denied(name) {
            return None;
        }
        // What it finds is known then.
        let _: Result<(), RoutingError> = self.search_until(name, false).await;
        let _keeping = self.0.keeping.lock().await;
        // It may have been let go meanwhile.
        self.kept_record(name)?;
        let best = newest(Some(kept.clone()), self.known(name))?;
        if best.age(&kept).is_gt()
            && let Err(error) = self.note_kept(name, &best).await
        {
            tracing::warn!(%name, %error, "a newer record of a name is not kept");
        }
        Some(best)
    }

    async fn note_kept(&self, name: &PeerId, record: &Record) -> Result<(), NoteError> {
        let note: Bytes = [&[NOTE_VERSION], record.bytes()].concat().into();
        let noted = self.0.store.set_note(About::Tended, name.to_bytes(), note);
        noted.await
    }
}

fn read(name: &PeerId, note: &[u8]) -> Option<Record> {
    let (version, record) = note.split_first()?;
    (*version == NOTE_VERSION).then_some(())?;
    Record::decode(name, record).ok()
}

/// The first byte of a note.
const NOTE_VERSION: u8 = 1;
