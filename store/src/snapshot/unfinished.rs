//! The folder that a snapshot is made in, which has another name until it is whole, and where it may be.

use super::{JOURNAL, SnapshotError, Stop};
use crate::disk::{Disk, RealDisk};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A folder that has not got its name yet. It goes if it does not get it.
pub(super) struct Unfinished {
    pub(super) path: PathBuf,
    folder: PathBuf,
    /// Held on its journal as long as somebody works on it.
    _lock: File,
}

impl Unfinished {
    /// One that is to be named `folder`. What killed attempts at that name have left goes.
    pub(super) fn beside(folder: &Path) -> Result<Self, SnapshotError> {
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

    /// Lets `work` fill it, and gives it its name if nobody has asked to stop.
    pub(super) fn make<T>(
        self,
        stop: &Stop,
        work: impl FnOnce(&Path) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let stopped = SnapshotError::Stopped {
            path: self.folder.display().to_string(),
        };
        let made = work(&self.path).map_err(|error| match error {
            SnapshotError::Stopped { .. } => stopped,
            error => error.renamed(&self.path, &self.folder),
        })?;
        stop.check(&self.folder)?;
        self.finish()?;
        Ok(made)
    }

    /// Gives it its name.
    pub(super) fn finish(self) -> Result<(), SnapshotError> {
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

/// Fails if the folder is to be made within `root`.
pub(super) fn must_be_outside(folder: &Path, root: &Path) -> Result<(), SnapshotError> {
    match lies_in(folder, root) {
        false => Ok(()),
        true => Err(SnapshotError::Inside {
            path: folder.display().to_string(),
            root: root.display().to_string(),
        }),
    }
}

/// Whether a path, which need not be there yet, lies below a folder, whatever ways lead to either.
pub fn lies_in(path: &Path, folder: &Path) -> bool {
    // Names may differ between who looks and who mounts; what they are names of does not.
    let known = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let mut above = path.ancestors().map(|path| match path.as_os_str() {
        none if none.is_empty() => Path::new("."),
        _ => path,
    });
    let (Ok(folder), Some(start)) = (known(folder), above.find(|path| path.is_dir())) else {
        return false;
    };
    let mut at = start.to_owned();
    for _ in 0..DEPTH_MAX {
        let up = at.join("..");
        match (known(&at), known(&up)) {
            (Ok(here), _) if here == folder => return true,
            (Ok(here), Ok(above)) if here != above => at = up,
            _ => return false,
        }
    }
    false
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

/// Most folders that are gone up through: more than fit into a path.
const DEPTH_MAX: usize = 4096;
/// What names end with of folders that are being made.
const UNFINISHED: &str = ".unfinished";
