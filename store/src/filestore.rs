//! What of the store lies in the user's files.
//!
//! Such blocks are sections of a stream of their own (`file-000001.refs`), whose content is a
//! [`Reference`] where others have the block's bytes. So they are found, held, pinned, collected, committed and copied
//! into snapshots like all others; only reading them ([`crate::reference`]) is different. If a block is put as such,
//! that takes the reference's place: what is here is better than what lies elsewhere.

use crate::block::Block;
use crate::cid::Cid;
use crate::journal::Sync;
use crate::log::Stream;
use crate::log::scan::{Scan, Step};
use crate::reference::{Lost, Reference};
use crate::sink::PutError;
use crate::source::SourceError;
use crate::store::{Inner, Store, blocking, disk_error, nothing};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// A block that lies in a file of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    /// Its CID.
    pub cid: Cid,
    /// Where it lies.
    pub reference: Reference,
}

/// What came of forgetting where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is forgotten: the block is absent.
    Yes,
    /// The file has the block after all.
    Whole,
    /// The block does not lie there any more: it is here, or elsewhere, or was deleted.
    Replaced,
    /// Somebody works with the block, or with its file, at this moment.
    Held,
}

impl Store {
    /// Forgets blocks that lie in files of the user's and cannot be read from there: each only if it still lies in
    /// that very place and the file, read again, still does not have it.
    pub async fn forget_lost(&self, lost: Vec<InPlace>) -> Result<Vec<Forgotten>, PutError> {
        let inner = self.inner.clone();
        blocking(move || inner.forget_lost(&lost))
            .await
            .unwrap_or(Err(PutError::Closing))
    }

    /// Where the block lies, if it is in a file of the user's.
    pub async fn reference(&self, cid: &Cid) -> Result<Option<InPlace>, SourceError> {
        let (inner, cid) = (self.inner.clone(), *cid);
        blocking(move || inner.reference_of(&cid))
            .await
            .unwrap_or(Err(SourceError::Stopping { cid }))
    }

    /// Calls `each` with every block that lies in a file of the user's, in the order they were added in, until it
    /// says stop.
    pub async fn references(
        &self,
        mut each: impl FnMut(InPlace) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(), SourceError> {
        let inner = self.inner.clone();
        blocking(move || inner.each_reference(&mut each))
            .await
            .unwrap_or_else(|| Err(SourceError::Stopping { cid: nothing() }))
    }
}

impl InPlace {
    /// A block of `length` bytes in the file at `path`, from `offset` on.
    pub const fn new(cid: Cid, path: Arc<Path>, offset: u64, length: u32) -> Self {
        let reference = Reference {
            path,
            offset,
            length,
        };
        Self { cid, reference }
    }

    /// Reads the block from the file, and hashes it. Blocks.
    pub fn read(&self) -> Result<Block, Lost> {
        self.reference.read(&self.cid)
    }
}

impl Inner {
    fn reference_of(&self, cid: &Cid) -> Result<Option<InPlace>, SourceError> {
        let key = self.index.key(cid.hash());
        let Some(place) = self.place(cid, &key)? else {
            return Ok(None);
        };
        if place.segment.stream != Stream::File {
            return Ok(None);
        }
        let reference = self.reference_by(cid)?;
        Ok(reference.map(|reference| InPlace {
            cid: *cid,
            reference,
        }))
    }

    fn forget_lost(&self, lost: &[InPlace]) -> Result<Vec<Forgotten>, PutError> {
        // A deletion names places, so what it names must be beyond recovery's scissors first.
        self.commit(Vec::new())?;
        let fates = lost.iter().map(|one| self.forget_one(one));
        let fates = fates.collect::<Result<_, PutError>>()?;
        self.sync_journal()?;
        Ok(fates)
    }

    fn forget_one(&self, lost: &InPlace) -> Result<Forgotten, PutError> {
        let key = self.index.key(lost.cid.hash());
        let place = self
            .raw_place(&key)?
            .filter(|place| place.is_reference() && !place.damaged);
        // Before the locks: it may note damage, which takes one. What stands at a place never changes.
        let known = self.reference_by(&lost.cid).ok().flatten();
        let Some(place) = place.filter(|_| known.as_ref() == Some(&lost.reference)) else {
            return Ok(Forgotten::Replaced);
        };
        // So is the reading, which may take long.
        let before = Stamp::of(&lost.reference.path);
        if lost.read().is_ok() {
            return Ok(Forgotten::Whole);
        }
        let _no_writer_looks = self
            .sweeping
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let _nobody_appends = self.lock_appender();
        if self.is_held(&key) {
            return Ok(Forgotten::Held);
        }
        let now = self.raw_place(&key)?;
        if now != Some(place) || !self.is_committed(&place) {
            return Ok(Forgotten::Replaced);
        }
        // Whoever puts the file back and adds it again is told that the block is here, and nothing is written.
        if Stamp::of(&lost.reference.path) != before {
            return Ok(Forgotten::Held);
        }
        self.bury(&[(key, place)], Sync::Leave)?;
        Ok(Forgotten::Yes)
    }

    fn each_reference(
        &self,
        each: &mut dyn FnMut(InPlace) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let failed = |error: std::io::Error| disk_error(&nothing(), &error);
        let mut visited = BTreeSet::new();
        loop {
            // What is moved meanwhile goes to a higher number.
            let next = self.all_segments().into_iter().find(|segment| {
                segment.id.stream == Stream::File && !visited.contains(&segment.id)
            });
            let Some(segment) = next else { return Ok(()) };
            visited.insert(segment.id);
            let mut scan = Scan::with_data(&segment, 0);
            while let Some(step) = scan.next().map_err(failed)? {
                let Step::Found(found) = step else { continue };
                let cid = found.header.cid;
                let key = self.index.key(cid.hash());
                let place = self.place(&cid, &key)?;
                let is_here = place.is_some_and(|place| {
                    place.segment == segment.id && place.offset == found.offset
                });
                if !is_here {
                    continue;
                }
                let data = scan.data(&found).map_err(failed)?;
                if let Some(reference) = Reference::decode(&cid, &data)
                    && each(InPlace { cid, reference }).is_break()
                {
                    return Ok(());
                }
            }
        }
    }
}

/// What tells a file from what it was before.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    id: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of what has this name, or why it has none.
    fn of(path: &Path) -> Result<Self, ErrorKind> {
        let about = std::fs::symlink_metadata(path).map_err(|error| error.kind())?;
        Ok(Self {
            id: (about.dev(), about.ino()),
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

/// What cannot be added in place.
pub(crate) fn unfit(reference: &Reference) -> PutError {
    PutError::Disk(format!(
        "{} cannot be added in place: its path is too long or not absolute",
        reference.path.display()
    ))
}

#[cfg(test)]
mod tests;
