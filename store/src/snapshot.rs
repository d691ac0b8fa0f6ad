//! A folder that is a repository as this one was at one instant, made while it works; and one made from that.
//!
//! The instant is one look at the journal, under its lock: whatever was acknowledged before stands in it, whole
//! commits and nothing else, so the journal up to there with segments as long as it says is a repository, as
//! after a kill at that moment. What is appended later lies behind, in the journal and in the segments.
//!
//! * Segments that nothing is written to any more, here or there, are cloned (reflink), else linked, else
//!   copied; the others are cloned or copied as far as they counted. None is removed meanwhile.
//! * The index is what its last checkpoint left, in a database of its own: nothing is merged while that is
//!   copied, and an opening catches up from there.
//! * All of it is made in a folder with another name, synced and renamed, so that there is a whole one or none. Whoever
//!   gives up waiting for it stops it between two segments.

mod unfinished;

use crate::disk::{Disk, Mode, RealDisk, Shared, Ways};
use crate::durable::{self, Access as FileAccess};
use crate::format;
use crate::index::IndexError;
use crate::journal::{Blocks, Journal, Moment};
use crate::log::files::{Access, Files};
use crate::log::sums;
use crate::log::{Place, SegmentId, Stream};
use crate::sink::PutError;
use crate::store::{Inner, OpenError, Store, blocking};
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
pub use unfinished::lies_in;
use unfinished::{Unfinished, must_be_outside};

/// What was made, and of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Files of blocks.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of those whose place on the disk is shared until one is written (reflink).
    pub cloned: u64,
    /// Bytes of those that are other names of the same files.
    pub linked: u64,
    /// Bytes that were written again.
    pub copied: u64,
    /// Whether the index came along. Else it is built at the first opening, by reading all of the blocks.
    pub has_index: bool,
    /// Blocks that lie in files of the user's: of those it has where they lie, not their bytes.
    pub in_place: u64,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The folder is not empty.
    #[error(
        "{path} is there already and is not an empty folder; name one that is not there yet, or empty it"
    )]
    Taken {
        /// The folder.
        path: String,
    },
    /// It would lie in the folder that it is made of, and be taken along by whatever copies or removes that.
    #[error("{path} lies in {root}, which it is to be made of; name a folder elsewhere")]
    Inside {
        /// The folder.
        path: String,
        /// What it is made of.
        root: String,
    },
    /// Nobody waits for it any more.
    #[error("{path} was not made: it was stopped, and nothing was left behind")]
    Stopped {
        /// The folder.
        path: String,
    },
    /// No room.
    #[error(
        "no space left at {path}: {why}; nothing was left behind; free some, or choose a folder on the file \
         system that the blocks are on, where links take none"
    )]
    Full {
        /// The folder.
        path: String,
        /// How much is missing.
        why: String,
    },
    /// The disk refused.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no repository.
    #[error("{path} is no snapshot: it has no {name}")]
    NotOne {
        /// The folder.
        path: String,
        /// What is missing.
        name: &'static str,
    },
    /// Some of it is not what the journal says.
    #[error(
        "the snapshot at {path} is not whole: {why}; nothing was made of it. A snapshot is a repository \
         itself: with a copy of it as CAIRN_PATH, `cairn repo verify` tells what is left of it"
    )]
    Damaged {
        /// The folder.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// It is in use, or newer than we are.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store could not write what must come first, or is going away.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl SnapshotError {
    /// What a refusal of the disk means.
    pub fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                why: source.to_string(),
            },
            _ => Self::Disk { what, path, source },
        }
    }

    /// The same of the name that a folder was to get, for nobody knows the one that it had meanwhile.
    fn renamed(mut self, unfinished: &Path, folder: &Path) -> Self {
        let (from, to) = (
            unfinished.display().to_string(),
            folder.display().to_string(),
        );
        let rename = |text: &mut String| *text = text.replace(&from, &to);
        match &mut self {
            Self::Full { path, why } | Self::Damaged { path, why } => {
                rename(path);
                rename(why);
            }
            Self::Disk { path, .. } => rename(path),
            _ => {}
        }
        self
    }
}

/// Asks whoever makes a snapshot, or restores one, to stop and leave nothing behind.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

/// Asks for it when it is dropped.
#[derive(Debug)]
#[must_use = "it asks to stop at once otherwise"]
pub struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Stop {
    /// Something that asks for it when it is dropped.
    pub fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self, folder: &Path) -> Result<(), SnapshotError> {
        match self.is_asked() {
            false => Ok(()),
            true => Err(SnapshotError::Stopped {
                path: folder.display().to_string(),
            }),
        }
    }
}

impl Store {
    /// Makes `folder` a repository as this one is at one instant between call and answer. It must not be there,
    /// or be empty. `more` puts what else belongs to a repository into the folder that it is given, before
    /// that gets its name, and tells what the operator should know. Dropped, it stops and leaves nothing behind.
    pub async fn snapshot(
        &self,
        folder: PathBuf,
        more: impl FnOnce(&Path) -> Result<Vec<String>, SnapshotError> + Send + 'static,
    ) -> Result<Made, SnapshotError> {
        let inner = self.inner.clone();
        let stop = Stop::default();
        let _stops = stop.on_drop();
        blocking(move || {
            if inner.is_closed() {
                return Err(PutError::Closing.into());
            }
            must_be_outside(&folder, &inner.root)?;
            Unfinished::beside(&folder)?.make(&stop, |to| {
                let mut made = inner.write_snapshot(to, &stop)?;
                made.notices.extend(more(to)?);
                Ok(made)
            })
        })
        .await
        .unwrap_or(Err(SnapshotError::Put(PutError::Closing)))
    }
}

/// Makes `folder` a repository of what is in the snapshot `from`, as [`Store::snapshot`] makes one of a store. `more`
/// is given the folder it is made in.
pub fn restore(
    from: &Path,
    folder: &Path,
    stop: &Stop,
    more: impl FnOnce(&Path) -> Result<Vec<String>, SnapshotError>,
) -> Result<Made, SnapshotError> {
    let _nobody_writes = lock_for_reading(from)?;
    must_be_outside(folder, from)?;
    format::check(from, Access::ReadOnly)?;
    let damaged = |why: String| SnapshotError::Damaged {
        path: from.display().to_string(),
        why,
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let journal_folder = from.join(JOURNAL);
    let opened = Journal::open(
        disk.clone(),
        &journal_folder,
        Access::ReadOnly,
        Blocks::Some,
        0,
    );
    let (journal, replay) = opened.map_err(SnapshotError::disk("read", &journal_folder))?;
    if replay.damaged {
        return Err(damaged(replay.notices.join("; ")));
    }
    let files = Files::new(disk, &from.join(BLOCKS), Access::ReadOnly);
    let moment = journal.moment();
    let lacks = lacks(&files, &moment);
    if let Some((id, why)) = lacks.first() {
        let others = match lacks.len() {
            1 => String::new(),
            count => format!(" (and {} more like it)", count - 1),
        };
        return Err(damaged(format!("segment {id} {why}{others}")));
    }
    Unfinished::beside(folder)?.make(stop, |to| {
        let writing = Writing {
            files: &files,
            from,
            to,
            reserve: 0,
            stop,
            made: Made::default(),
        };
        let mut made = writing.log(&moment, |_| false)?;
        made.has_index = copy_index(&from.join(INDEX), &to.join(INDEX))?;
        copy_version(from, to)?;
        made.notices.extend(more(to)?);
        Ok(made)
    })
}

impl Inner {
    /// Writes what belongs to the store as it is at one instant into an empty folder, durably.
    pub(crate) fn write_snapshot(&self, to: &Path, stop: &Stop) -> Result<Made, SnapshotError> {
        let from = self.root.as_path();
        let space = self.space().ok();
        let mut writing = Writing {
            files: &self.files,
            from,
            to,
            reserve: match space {
                Some(space) if is_same_disk(from, to) => self.config.reserve.of(space.total).0,
                _ => 0,
            },
            stop,
            made: Made::default(),
        };
        let removing = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        let still = self.index.hold_still();
        let moment = self.lock_journal().moment();
        let index = to.join(INDEX);
        writing.made.has_index = still.copy_to(&index).unwrap_or_else(|error| {
            writing.made.notices.push(format!(
                "the index was left out and is built at the first opening: {error}"
            ));
            let _ = fs::remove_dir_all(&index);
            false
        });
        drop(still);
        for (id, why) in lacks(&self.files, &moment) {
            writing.made.notices.push(format!(
                "segment {id} {why} in the repository, and so in the snapshot"
            ));
        }
        let mut made = writing.log(&moment, |id| {
            self.segment(id).is_none_or(|segment| !segment.is_sealed())
        })?;
        drop(removing);
        match self.in_place(&moment, stop) {
            Ok(count) => made.in_place = count,
            Err(error) => made.notices.push(format!(
                "how many blocks lie in files of yours could not be counted: {error}"
            )),
        }
        stop.check(to)?;
        let version = to.join(format::FILE);
        let text = format!("{}\n", format::FORMAT);
        durable::write_on(
            &*self.files.disk,
            &version,
            text.as_bytes(),
            FileAccess::Shared,
        )
        .map_err(SnapshotError::disk("write", &version))?;
        Ok(made)
    }
}

impl Inner {
    /// How many blocks lie in files of the user's, as far as it came before it was to stop.
    fn in_place(&self, moment: &Moment, stop: &Stop) -> Result<u64, IndexError> {
        let mut count = 0;
        if !moment.lengths.keys().any(|id| id.stream == Stream::File) {
            return Ok(count);
        }
        let each = self.index.each(0, |entries| {
            let lies = |(_, place): &&(_, Place)| {
                place.is_reference() && self.counting(Some(*place)).is_some()
            };
            count += entries.iter().filter(lies).count() as u64;
            match stop.is_asked() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        each.map(|_| count)
    }
}

/// One on its way.
struct Writing<'a> {
    files: &'a Files,
    /// The repository that it is made of.
    from: &'a Path,
    to: &'a Path,
    /// What must stay free.
    reserve: u64,
    stop: &'a Stop,
    made: Made,
}

impl Writing<'_> {
    /// Writes journal and segments.
    fn log(
        mut self,
        moment: &Moment,
        is_growing: impl Fn(SegmentId) -> bool,
    ) -> Result<Made, SnapshotError> {
        let disk = &*self.files.disk;
        let (journal, blocks) = (self.to.join(JOURNAL), self.to.join(BLOCKS));
        for folder in [&journal, &blocks] {
            disk.make_folder(folder)
                .map_err(SnapshotError::disk("make", folder))?;
        }
        moment
            .write(disk, &self.from.join(JOURNAL), &journal)
            .map_err(SnapshotError::disk("write", &journal))?;
        for (id, length) in &moment.lengths {
            self.stop.check(self.to)?;
            let length = u64::from(*length);
            // Gone or shorter, it was told.
            let Ok(found) = disk.length(&self.files.path(*id)) else {
                continue;
            };
            let is_settled = found == length && !moment.may_grow(*id) && !is_growing(*id);
            let ways = if is_settled { Ways::Any } else { Ways::Apart };
            self.segment(&blocks, *id, length.min(found), ways)?;
        }
        disk.sync_folder(&blocks)
            .map_err(SnapshotError::disk("sync", &blocks))?;
        Ok(self.made)
    }

    fn segment(
        &mut self,
        blocks: &Path,
        id: SegmentId,
        length: u64,
        ways: Ways,
    ) -> Result<(), SnapshotError> {
        let disk = &*self.files.disk;
        let (from, from_sums) = (self.files.path(id), self.files.sums_path(id));
        let name = |path: &Path| blocks.join(path.file_name().unwrap_or_default());
        let (to, to_sums) = (name(&from), name(&from_sums));
        if self.made.copied > 0 {
            // The next one will not be shared either, then.
            self.check_room(length)?;
        }
        let shared = disk
            .share(&from, &to, length, ways)
            .map_err(SnapshotError::disk("write", &to))?;
        self.made.segments += 1;
        self.made.bytes += length;
        match shared {
            Shared::Cloned => self.made.cloned += length,
            Shared::Linked => self.made.linked += length,
            Shared::Copied => self.made.copied += length,
        }
        let written = match ways {
            Ways::Any => disk.share(&from_sums, &to_sums, u64::MAX, ways).map(drop),
            Ways::Apart => write_beginning(disk, &from_sums, &to_sums, &to, length),
        };
        match written {
            // They are derived: without them reads ask the multihash.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map_err(SnapshotError::disk("write", &to_sums)),
        }
    }

    fn check_room(&self, bytes: u64) -> Result<(), SnapshotError> {
        let Ok(space) = self.files.disk.space(self.to) else {
            return Ok(());
        };
        if space.free >= bytes.saturating_add(self.reserve) {
            return Ok(());
        }
        let reserve = match self.reserve {
            0 => String::new(),
            reserve => format!(" and storage.reserve keeps {reserve}"),
        };
        Err(SnapshotError::Full {
            path: self.to.display().to_string(),
            why: format!(
                "{} bytes are free{reserve}, {bytes} more are to be copied",
                space.free
            ),
        })
    }
}

/// Checksums of the first `length` bytes of a segment that gets longer, as it lies at `copy`.
fn write_beginning(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    copy: &Path,
    length: u64,
) -> io::Result<()> {
    let known = disk.open(from, Mode::Read)?;
    let known = known.read(0, known.length()?)?;
    let begins = length - length % sums::PAGE_BYTES as u64;
    let last = disk.open(copy, Mode::Read)?.read(begins, length - begins)?;
    let bytes = sums::of_beginning(&known, length, &last);
    let file = disk.open(to, Mode::Create(FileAccess::Shared))?;
    file.write(0, &[&bytes])?;
    file.sync()
}

/// Segments that are not as long as the journal says, and what they are instead.
fn lacks(files: &Files, moment: &Moment) -> Vec<(SegmentId, String)> {
    let lack = |(id, length): (&SegmentId, &u32)| match files.disk.length(&files.path(*id)) {
        Ok(found) if found < u64::from(*length) => {
            Some((*id, format!("has {found} bytes of {length}")))
        }
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some((*id, "is missing".to_owned()))
        }
        Err(error) => Some((*id, format!("cannot be looked at ({error})"))),
    };
    moment.lengths.iter().filter_map(lack).collect()
}

/// Copies the files of an index that nobody has open.
fn copy_index(from: &Path, to: &Path) -> Result<bool, SnapshotError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(SnapshotError::disk("read", from))?,
    };
    fs::create_dir(to).map_err(SnapshotError::disk("make", to))?;
    for entry in entries {
        let entry = entry.map_err(SnapshotError::disk("read", from))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_index(&path, &copy)?;
            continue;
        }
        RealDisk
            .share(&path, &copy, u64::MAX, Ways::Apart)
            .map_err(SnapshotError::disk("copy", &path))?;
    }
    RealDisk
        .sync_folder(to)
        .map_err(SnapshotError::disk("sync", to))?;
    Ok(true)
}

fn copy_version(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    let (from, to) = (from.join(format::FILE), to.join(format::FILE));
    let text = fs::read(&from).map_err(SnapshotError::disk("read", &from))?;
    durable::write(&to, &text, FileAccess::Shared).map_err(SnapshotError::disk("write", &to))
}

/// Keeps everybody else from writing into a repository while it is read. One that cannot be locked, as on some
/// file systems, is taken as it is.
fn lock_for_reading(folder: &Path) -> Result<Vec<File>, SnapshotError> {
    for name in [format::FILE, JOURNAL] {
        if !folder.join(name).exists() {
            let path = folder.display().to_string();
            return Err(SnapshotError::NotOne { path, name });
        }
    }
    let mut locks = Vec::new();
    for path in [folder.to_owned(), folder.join("repo.lock")] {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            let path = folder.display().to_string();
            return Err(OpenError::Locked { path }.into());
        }
        locks.push(file);
    }
    Ok(locks)
}

fn is_same_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(one).is_some_and(|one| Some(one) == device(other))
}

const BLOCKS: &str = "blocks";
const JOURNAL: &str = "journal";
const INDEX: &str = "index";

#[cfg(test)]
mod tests;
