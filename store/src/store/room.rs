//! How much of the disk is left to whom.
//!
//! Blocks are only written as long as `storage.reserve` stays free, so that everything else goes on
//! working: the journal, the index, and whatever else lives on that disk. Should the disk be full all
//! the same, a ballast file is given back, so that a collection has room to work.

use super::{Inner, Store};
use crate::config::Reserve;
use crate::disk::Mode;
use crate::disk::Space;
use crate::durable::Access as FileAccess;
use crate::sink::PutError;
use std::io;
use std::path::PathBuf;

impl Store {
    /// Gives back the room that was kept for the time when there is none; whether there was any. For
    /// small files that must be written all the same.
    pub fn give_room(&self) -> bool {
        self.inner.release_ballast()
    }

    /// What keeps blocks from being written just now, if anything does.
    pub fn check_writable(&self) -> Result<(), PutError> {
        if self.is_read_only() {
            return Err(PutError::ReadOnly);
        }
        self.inner.check_space(0)
    }
}

impl Inner {
    /// Stops writing before the disk is full.
    pub(super) fn check_space(&self, bytes: u64) -> Result<(), PutError> {
        // Who cannot say how full it is will say so when it is.
        let Ok(space) = self.space() else {
            return Ok(());
        };
        let reserve = self.config.reserve.of(space.total);
        if space.free < reserve.0.saturating_add(bytes) {
            return Err(PutError::Full(format!(
                "{} bytes are free at {} and storage.reserve keeps {reserve}",
                space.free,
                self.files.folder.display()
            )));
        }
        Ok(())
    }

    /// What a failed write means to whoever asked for it.
    pub(crate) fn write_failed(&self, what: &str, error: &io::Error) -> PutError {
        let text = format!("{what} in {}: {error}", self.root.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PutError::Full(text),
            io::ErrorKind::ReadOnlyFilesystem => PutError::ReadOnly,
            _ => PutError::Disk(text),
        }
    }

    /// Whether a merge of the index will not run out of room half-way. What is not merged stays in
    /// memory; nothing but a longer opening depends on it.
    pub(super) fn index_has_room(&self) -> bool {
        let waiting = self.index.waiting() as u64;
        let entries = self.counts.blocks().saturating_add(waiting);
        let needed = INDEX_ROOM_MIN.saturating_add(entries.saturating_mul(INDEX_BYTES_AN_ENTRY));
        !self.index.is_on_disk() || self.space().map_or(true, |space| space.free > needed)
    }

    /// Keeps some room for the time when there is none.
    pub(crate) fn make_ballast(&self) {
        let path = self.ballast();
        let disk = &self.files.disk;
        if disk.exists(&path) {
            return;
        }
        let Ok(space) = self.space() else { return };
        let reserve = self.config.reserve.of(space.total).0;
        if space.free < reserve.saturating_add(BALLAST_ROOM) {
            return;
        }
        let made = disk
            .open(&path, Mode::Create(FileAccess::Owner))
            .and_then(|file| file.allocate(BALLAST_BYTES));
        if let Err(error) = made {
            tracing::debug!(%error, "no ballast was made");
            let _ = disk.remove(&path); // Half of one would help nobody.
        }
    }

    /// Gives the ballast back. Whether there was any.
    pub(crate) fn release_ballast(&self) -> bool {
        let released = self.files.disk.remove(&self.ballast()).is_ok();
        if released {
            tracing::warn!("the disk is full; the ballast was given back");
        }
        released
    }

    /// Gives the ballast back if a collection could not work otherwise.
    pub(crate) fn make_room_for_collecting(&self) {
        if self.space().is_ok_and(|space| space.free < BALLAST_BYTES) {
            self.release_ballast();
        }
    }

    pub(crate) fn space(&self) -> io::Result<Space> {
        self.files.disk.space(&self.files.folder)
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

impl Reserve {
    /// The bytes to keep free on a disk of this size.
    pub fn of(self, total: u64) -> crate::config::ByteSize {
        crate::config::ByteSize(match self {
            Self::Auto => (total / RESERVE_SHARE).max(RESERVE_MIN),
            Self::Bytes(bytes) => bytes.0,
        })
    }
}

/// What `auto` keeps free at least, and which share of the disk: 2 %.
const RESERVE_MIN: u64 = 1 << 30;
const RESERVE_SHARE: u64 = 50;
/// Bytes of the ballast file.
const BALLAST_BYTES: u64 = 16 << 20;
/// How much must be free beyond the reserve for a ballast to be made.
const BALLAST_ROOM: u64 = 4 * BALLAST_BYTES;
/// What a merge may need: a part that does not depend on anything, and a part for each entry.
const INDEX_ROOM_MIN: u64 = 24 << 20;
const INDEX_BYTES_AN_ENTRY: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_free_by_itself_is_a_gibibyte_or_a_fiftieth_whichever_is_more() {
        let of = |total| Reserve::Auto.of(total).0;
        assert_eq!(of(0), 1 << 30);
        assert_eq!(of(50 << 30), 1 << 30);
        assert_eq!(of(100 << 30), 2 << 30);
        let given = Reserve::Bytes(crate::config::ByteSize(7));
        assert_eq!(given.of(100 << 30).0, 7);
    }
}
