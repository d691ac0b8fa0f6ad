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
//! * All of it is made in a folder with another name, synced and renamed, so that there is a whole one or none.

use crate::disk::{Disk, Mode, RealDisk, Shared, Ways};
use crate::durable::{self, Access as FileAccess};
use crate::format;
use crate::journal::{Blocks, Journal, Moment};
use crate::log::SegmentId;
use crate::log::files::{Access, Files};
use crate::log::sums;
use crate::sink::PutError;
use crate::store::{Inner, OpenError, Store, blocking};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

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
}

impl Store {
    /// Makes `folder` a repository as this one is at one instant between call and answer. It must not be there,
    /// or be empty. `more` puts what else belongs to a repository into the folder that it is given, before
    /// that gets its name.
    pub async fn snapshot(
        &self,
        folder: PathBuf,
        more: impl FnOnce(&Path) -> Result<(), SnapshotError> + Send + 'static,
    ) -> Result<Made, SnapshotError> {
        let inner = self.inner.clone();
        blocking(move || {
            if inner.is_closed() {
                return Err(PutError::Closing.into());
            }
            let unfinished = Unfinished::beside(&folder)?;
            let made = inner.write_snapshot(&unfinished.path)?;
            more(&unfinished.path)?;
            unfinished.finish()?;
            Ok(made)
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
    more: impl FnOnce(&Path) -> Result<(), SnapshotError>,
) -> Result<Made, SnapshotError> {
    let _nobody_writes = lock_for_reading(from)?;
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
    let unfinished = Unfinished::beside(folder)?;
    let to = &unfinished.path;
    let writing = Writing {
        files: &files,
        from,
        to,
        reserve: 0,
        made: Made::default(),
    };
    let mut made = writing.log(&moment, |_| false)?;
    made.has_index = copy_index(&from.join(INDEX), &to.join(INDEX))?;
    copy_version(from, to)?;
    more(to)?;
    unfinished.finish()?;
    Ok(made)
}

impl Inner {
    /// Writes what belongs to the store as it is at one instant into an empty folder, durably.
    pub(crate) fn write_snapshot(&self, to: &Path) -> Result<Made, SnapshotError> {
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
        let made = writing.log(&moment, |id| {
            self.segment(id).is_none_or(|segment| !segment.is_sealed())
        })?;
        drop(removing);
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

/// One on its way.
struct Writing<'a> {
    files: &'a Files,
    /// The repository that it is made of.
    from: &'a Path,
    to: &'a Path,
    /// What must stay free.
    reserve: u64,
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

/// A folder that has not got its name yet. It goes if it does not get it.
struct Unfinished {
    path: PathBuf,
    folder: PathBuf,
    /// Held on its journal as long as somebody works on it.
    _lock: File,
}

impl Unfinished {
    /// One that is to be named `folder`. What killed attempts at that name have left goes.
    fn beside(folder: &Path) -> Result<Self, SnapshotError> {
        let taken = || SnapshotError::Taken {
            path: folder.display().to_string(),
        };
        match fs::read_dir(folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(taken());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(taken()),
            Err(error) => return Err(SnapshotError::disk("read", folder)(error)),
        }
        // A link that leads nowhere is a name that is taken, too.
        if fs::symlink_metadata(folder).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(taken());
        }
        let (Some(name), Some(parent)) = (folder.file_name(), parent(folder)) else {
            return Err(taken());
        };
        let begin = format!(".{}.", name.to_string_lossy());
        remove_left_overs(&parent, &begin);
        let path = parent.join(format!("{begin}{:016x}{UNFINISHED}", rand::random::<u64>()));
        fs::DirBuilder::new()
            .mode(0o700) // It may hold keys.
            .create(&path)
            .map_err(SnapshotError::disk("make", &path))?;
        // Not the folder itself, which whoever opens the repository in it locks.
        let journal = path.join(JOURNAL);
        let lock = fs::create_dir(&journal).and_then(|()| {
            let lock = File::open(&journal)?;
            let _ = lock.try_lock(); // Where folders cannot be locked, nobody clears them away.
            Ok(lock)
        });
        match lock {
            Ok(lock) => Ok(Self {
                path,
                folder: folder.to_owned(),
                _lock: lock,
            }),
            Err(error) => {
                let _ = fs::remove_dir_all(&path);
                Err(SnapshotError::disk("make", &journal)(error))
            }
        }
    }

    /// Gives it its name.
    fn finish(self) -> Result<(), SnapshotError> {
        RealDisk
            .sync_folder(&self.path)
            .map_err(SnapshotError::disk("sync", &self.path))?;
        fs::rename(&self.path, &self.folder)
            .map_err(SnapshotError::disk("give its name to", &self.folder))?;
        let parent = parent(&self.folder).unwrap_or_default();
        RealDisk
            .sync_folder(&parent)
            .map_err(SnapshotError::disk("sync", &parent))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // It has its name now, or is of no use.
    }
}

/// The folder that a path is in.
fn parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        parent.to_owned()
    })
}

/// Removes what killed attempts have left: nobody holds their locks.
fn remove_left_overs(parent: &Path, begin: &str) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let random = name
            .strip_prefix(begin)
            .and_then(|rest| rest.strip_suffix(UNFINISHED));
        let is_ours = random.is_some_and(|random| {
            random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if !is_ours {
            continue;
        }
        match File::open(entry.path().join(JOURNAL)) {
            Ok(lock) if lock.try_lock().is_ok() => drop(fs::remove_dir_all(entry.path())),
            // It was hardly begun; if there is more in it, it stays.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::remove_dir(entry.path());
            }
            _ => {}
        }
    }
}

const BLOCKS: &str = "blocks";
const JOURNAL: &str = "journal";
const INDEX: &str = "index";
/// What names end with of folders that are being made.
const UNFINISHED: &str = ".unfinished";

#[cfg(test)]
mod tests;
