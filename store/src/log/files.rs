//! The segments' folder, and how many of its files are open at once.
//!
//! Sealed segments are opened when somebody reads them, and the one that was not used for longest is
//! closed when there are too many. So a repository of any size works with few file descriptors. The
//! file of a sealed segment's checksums is opened and closed with it.

use super::SegmentId;
use super::sums::Sums;
use crate::disk::{Disk, DiskFile, Mode};
use rustix::process::{Resource, getrlimit};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Where segments lie.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    /// Whether anything may be changed.
    pub(crate) access: Access,
    /// Sealed segments that are open, in the order they were opened or last found in use.
    open: Mutex<VecDeque<Weak<Slot>>>,
    open_max: usize,
}

/// Whether files may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// They may.
    ReadWrite,
    /// They are as they are.
    ReadOnly,
}

/// A sealed segment's open file, or the place for it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    opened: Mutex<Option<Opened>>,
    used: AtomicBool,
}

/// An open file and the one of its checksums.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) sums: Sums,
}

impl Files {
    /// The files in `folder`.
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: &Path, access: Access) -> Arc<Self> {
        // Two files each; what is left goes to sockets, the index and the journal.
        let open_max = eighth_of_open_files().clamp(OPEN_MIN, OPEN_MAX);
        Self::with_open_max(disk, folder, access, open_max)
    }

    pub(crate) fn with_open_max(
        disk: Arc<dyn Disk>,
        folder: &Path,
        access: Access,
        open_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            disk,
            folder: folder.to_owned(),
            access,
            open: Mutex::default(),
            open_max,
        })
    }

    /// The segment's file.
    pub(crate) fn path(&self, id: SegmentId) -> PathBuf {
        self.folder.join(id.file_name())
    }

    /// The file of its checksums.
    pub(crate) fn sums_path(&self, id: SegmentId) -> PathBuf {
        self.folder.join(format!("{id}.crc"))
    }

    /// How many sealed segments are open at most.
    pub(crate) fn open_max(&self) -> usize {
        self.open_max
    }

    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.open.lock().unwrap().len()
    }

    /// How existing files are opened.
    pub(crate) fn mode(&self) -> Mode {
        match self.access {
            Access::ReadWrite => Mode::Write,
            Access::ReadOnly => Mode::Read,
        }
    }

    /// What is in `slot`, opened by `open` if nothing is.
    pub(crate) fn opened(
        &self,
        slot: &Arc<Slot>,
        open: impl FnOnce() -> io::Result<Opened>,
    ) -> io::Result<Opened> {
        slot.used.store(true, Ordering::Relaxed);
        let mut opened = slot.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.as_ref() {
            return Ok(opened.clone());
        }
        let new = open()?;
        *opened = Some(new.clone());
        drop(opened);
        self.make_room(slot);
        Ok(new)
    }

    /// What is in `slot`, if it is open already and nobody is about to change that.
    pub(crate) fn already_open(slot: &Slot) -> Option<Opened> {
        let opened = slot.opened.try_lock().ok()?.clone();
        slot.used.store(true, Ordering::Relaxed);
        opened
    }

    /// Notes `slot` as open, and closes what nobody used lately as long as there are too many.
    fn make_room(&self, slot: &Arc<Slot>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(slot));
        // Twice round at most: the first clears the marks.
        for _ in 0..2 * open.len() {
            if open.len() <= self.open_max {
                return;
            }
            let Some(oldest) = open.pop_front() else {
                return;
            };
            let Some(oldest) = oldest.upgrade() else {
                continue;
            };
            if oldest.used.swap(false, Ordering::Relaxed) && !Arc::ptr_eq(&oldest, slot) {
                open.push_back(Arc::downgrade(&oldest));
            } else if Arc::ptr_eq(&oldest, slot) {
                open.push_back(Arc::downgrade(slot));
            } else {
                oldest.close();
            }
        }
    }
}

impl Slot {
    /// Forgets the open file; whoever reads from it at the moment goes on.
    pub(crate) fn close(&self) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.opened.lock().unwrap().is_some()
    }
}

/// An eighth of the files that this process may have open.
pub(crate) fn eighth_of_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 8;
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Fewest and most sealed segments open at once; their files are a fourth of what the system allows between them.
const OPEN_MIN: usize = 8;
const OPEN_MAX: usize = 512;
