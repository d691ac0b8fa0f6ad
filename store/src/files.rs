//! The file tree that people change by path (Kubo calls it MFS).
//!
//! Its root stands in the journal. Whatever the root reaches is here, kept and safe from collections, as below a
//! recursive pin. A tree that was never changed has no root: it is the empty folder, and nothing is written for it.
//!
//! [`Files`] changes it. One change at a time makes a new tree beside the present one, in memory, sharing all that
//! stays; then its blocks are written, and the root with them, in one commit: a change is there as a whole or not at
//! all. Who reads has the tree as it was when the reading began. A change that is not flushed is the tree that
//! everybody sees from then on, its blocks still in memory; the next flush writes what of them is still reached.
//! After so many such changes, or so many bytes, they are flushed without being asked.
//!
//! * `path`: paths. `plan`: changes that are made together. `error`: what can be wrong.
//! * `edit`: a plan, applied folder by folder; `shard`: one folder that is a HAMT.
//! * `draft`: a file that is being written. It waits beside the tree until others want to see it.
//! * `view`: blocks in memory over a source of all others.
//! * `state`: the present tree, and how another takes its place.
//! * `operations`: what people do; `write`: what they do to files.

mod draft;
mod edit;
mod error;
#[cfg(test)]
mod model;
mod operations;
mod path;
mod plan;
mod shard;
mod state;
mod view;
mod write;

pub use error::FilesError;
pub use operations::{Copy, Opened, Overwrite, Parents, Remove, Stat, What};
pub use path::{DEPTH_MAX, FilesPath, NAME_BYTES_MAX};
pub use plan::{Change, Naming};
pub use state::{BYTES_MAX, Files, Flush, OPERATIONS_MAX};
pub use view::View;
pub use write::{WRITE_AT_ONCE_MAX, WriteOptions};

use crate::cid::Cid;
use crate::journal::record::Record;
use crate::notes::About;
use crate::pin::Whole;
use crate::sink::PutError;
use crate::store::{Committed, Inner, Only, Store, blocking};
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
        let commit = move || inner.commit_to_disk_since(whole.losses(), vec![noted(&root)]);
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

    /// Makes everything put so far durable and changes the root, in one commit, if it is still the one that the new one
    /// was made from; tells whether it was. The caller holds what is below the root since `losses` was counted.
    pub(crate) fn commit_files_root_after(
        &self,
        base: Option<Cid>,
        root: Cid,
        losses: u64,
    ) -> Result<Committed, PutError> {
        let at = (About::Files as u8, ROOT.to_vec());
        let only = Only::Noted(at, base.as_ref().map(note));
        self.commit_to_disk_only(losses, vec![noted(&root)], only)
    }
}

fn noted(root: &Cid) -> Record {
    Record::Noted {
        about: About::Files as u8,
        key: ROOT.to_vec(),
        value: Some(note(root)),
    }
}

/// What the journal has as the root is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the root of the file tree is noted in a way that this program does not know; use the program that wrote it"
)]
pub struct UnknownRoot;

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
