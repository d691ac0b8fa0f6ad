//! The file tree that people change by path (Kubo calls it MFS): its root, which the journal has.
//!
//! Whatever the root reaches is here, kept and safe from collections, as below a recursive pin. A tree that was
//! never changed has no root: it is the empty folder.

use crate::cid::Cid;
use crate::journal::record::Record;
use crate::notes::About;
use crate::pin::Whole;
use crate::sink::PutError;
use crate::store::{Inner, Store, blocking};
use bytes::Bytes;

impl Store {
    /// The root of the file tree; `None` as long as nothing was ever put there.
    pub fn files_root(&self) -> Option<Cid> {
        self.inner.files_root().ok().flatten()
    }

    /// Lets the file tree be what is below `root`, of which all is here as `whole` says
    /// ([`Store::pin_fetch`]). On the disk when this returns; it happens even if nobody waits for it any more.
    pub async fn set_files_root(&self, root: Cid, whole: Whole) -> Result<(), PutError> {
        let inner = self.inner.clone();
        // Whole goes along: it must outlive the commit.
        let commit = move || inner.commit_files_root(root, whole.losses());
        blocking(commit).await.unwrap_or(Err(PutError::Closing))
    }
}

impl Inner {
    pub(crate) fn files_root(&self) -> Result<Option<Cid>, UnknownRoot> {
        let notes = self.read_notes();
        let noted = notes.get(&(About::Files as u8, ROOT.to_vec()));
        noted
            .map(|value| parse(value).ok_or(UnknownRoot))
            .transpose()
    }

    /// Makes everything put so far durable and changes the root, in one commit. The caller holds what is below the
    /// root since `losses` was counted.
    pub(crate) fn commit_files_root(&self, root: Cid, losses: u64) -> Result<(), PutError> {
        let noted = Record::Noted {
            about: About::Files as u8,
            key: ROOT.to_vec(),
            value: Some(note(&root)),
        };
        self.commit_to_disk_since(losses, vec![noted])
    }
}

/// What the journal has as the root is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the root of the file tree is noted in a way that this program does not know; use the program that wrote it"
)]
pub(crate) struct UnknownRoot;

fn note(root: &Cid) -> Bytes {
    let mut value = vec![VERSION];
    value.extend(root.to_bytes());
    Bytes::from(value)
}

fn parse(value: &[u8]) -> Option<Cid> {
    let (version, cid) = value.split_first()?;
    if *version != VERSION {
        return None;
    }
    let root = Cid::try_from(cid).ok()?;
    (root.to_bytes() == cid).then_some(root)
}

/// What the root is noted under.
const ROOT: &[u8] = b"root";
/// How it is written down.
const VERSION: u8 = 1;
