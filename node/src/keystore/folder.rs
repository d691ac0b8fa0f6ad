//! The folder of the keys on the disk: names of files, permissions, and files that exist whole or not at all.
//!
//! A key's file is called `key_` and the base32 of its name in lower case, as Kubo's, so that names are told apart on
//! disks that do not tell letters apart. It is written beside its place, synced, linked or renamed there, and the folder is
//! synced. Whoever changes something holds a lock, under which what was left behind by others is removed.

use super::error::KeystoreError;
use super::file::FILE_BYTES_MAX;
use super::{KEYS_MAX, NAME_BYTES_MAX};
use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use zeroize::Zeroizing;

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Whoever has it is the only one to change keys.
#[must_use = "others may write as soon as it is dropped"]
pub(super) struct Guard {
    _file: File,
}

/// What is done with a key that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays.
    Never,
    /// It goes.
    Force,
}

impl Folder {
    /// The folder at `path`, which may not exist yet. It is closed to others if it is open to them.
    pub(super) fn at(path: PathBuf) -> Result<Self, KeystoreError> {
        let folder = Self { path };
        match fs::symlink_metadata(&folder.path) {
            Ok(about) => {
                let mode = about.permissions().mode() & 0o777;
                if about.is_dir() && mode & OTHERS != 0 {
                    let fit = fs::Permissions::from_mode(FOLDER_MODE);
                    let closed = fs::set_permissions(&folder.path, fit);
                    // Who may write there may put keys of their own in place of ours.
                    if closed.is_err() && mode & OTHERS_WRITE != 0 {
                        return Err(KeystoreError::TooOpen {
                            path: folder.path,
                            mode,
                            fit: FOLDER_MODE,
                        });
                    }
                }
                Ok(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(folder),
            Err(error) => Err(disk("look at", &folder.path, error)),
        }
    }

    /// Where a key lies.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf, KeystoreError> {
        Ok(self.path.join(file_name(name)?))
    }

    /// The names of all keys, in their order.
    pub(super) fn names(&self) -> Result<Vec<String>, KeystoreError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(disk("list", &self.path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| disk("list", &self.path, error))?;
            names.extend(entry.file_name().to_str().and_then(name_of));
            if names.len() > KEYS_MAX {
                break;
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Lets nobody else change keys while the guard lives. Makes the folder if there is none.
    pub(super) fn lock(&self) -> Result<Guard, KeystoreError> {
        let made = DirBuilder::new().mode(FOLDER_MODE).create(&self.path);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(disk("make", &self.path, error));
            }
            Ok(()) => {
                let parent = self.path.parent().unwrap_or_else(|| Path::new("."));
                sync_folder(parent).map_err(|error| disk("sync", parent, error))?;
            }
            Err(_) => {}
        }
        // The file stays: were it removed, two could hold a lock each, on two files of one name.
        let path = self.path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        let options = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE);
        let file = options
            .open(&path)
            .map_err(|error| disk("open", &path, error))?;
        for look in 0.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if look < LOCK_LOOKS => {
                    std::thread::sleep(LOCK_LOOK_TIME);
                }
                Err(TryLockError::WouldBlock) => {
                    let path = self.path.clone();
                    return Err(KeystoreError::Busy { path });
                }
                Err(TryLockError::Error(error)) => return Err(disk("lock", &path, error)),
            }
        }
        sweep(&self.path);
        Ok(Guard { _file: file })
    }

    /// Writes a file that is not there yet; an error of the kind `AlreadyExists` if it is.
    pub(super) fn create(&self, _alone: &Guard, path: &Path, bytes: &[u8]) -> io::Result<()> {
        create(&self.path, path, bytes)
    }

    /// Writes a file in place of one that is there.
    pub(super) fn replace(&self, _alone: &Guard, path: &Path, bytes: &[u8]) -> io::Result<()> {
        replace(&self.path, path, bytes)
    }

    /// Gives a file another name, under which there is none unless it may go.
    pub(super) fn rename(
        &self,
        _alone: &Guard,
        (from, to): (&Path, &Path),
        overwrite: Overwrite,
    ) -> io::Result<()> {
        match overwrite {
            Overwrite::Force => fs::rename(from, to)?,
            Overwrite::Never => match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                // Not every filesystem can; we are alone all the same.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    if fs::symlink_metadata(to).is_ok() {
                        return Err(io::ErrorKind::AlreadyExists.into());
                    }
                    fs::rename(from, to)?;
                }
                Err(error) => return Err(error.into()),
            },
        }
        sync_folder(&self.path)
    }

    /// Removes a file.
    pub(super) fn remove(&self, _alone: &Guard, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_folder(&self.path)
    }
}

/// Writes a file that is not there yet, whole or not at all, for its owner alone.
pub(crate) fn create(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = Temporary::with(folder, bytes)?;
    // A link fails where a rename would replace.
    fs::hard_link(&temporary.path, path)?;
    drop(temporary);
    sync_folder(folder)
}

/// Writes a file in place of one that is there: one of both is always there, and whole.
pub(crate) fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = Temporary::with(folder, bytes)?;
    fs::rename(&temporary.path, path)?;
    sync_folder(folder)
}

/// Removes what was left behind by who was killed while it wrote a key. Whoever calls it is the only one to write.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(NEW)) {
            // It holds a key: the next one tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Reads a file that only its owner may read.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    // Not waiting for who writes into a pipe.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(NONBLOCK).open(path);
    let file = file.map_err(|error| disk("read", path, error))?;
    // Asked of the open file, so that nobody can swap it in between.
    let about = file.metadata().map_err(|error| disk("read", path, error))?;
    if !about.is_file() {
        let why = "it is no file".to_owned();
        let path = path.to_owned();
        return Err(KeystoreError::Unusable { path, why });
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(KeystoreError::TooOpen {
            path: path.to_owned(),
            mode,
            fit: FILE_MODE,
        });
    }
    // Room for all of it: what grows is copied, and only the last copy is wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    let most = FILE_BYTES_MAX as u64 + 1;
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|error| disk("read", path, error))?;
    Ok(bytes)
}

/// The names live in the folder; without this they may be lost.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file that is gone when nobody holds this any more, unless it was renamed away.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// One with these bytes, which have reached the disk.
    fn with(folder: &Path, bytes: &[u8]) -> io::Result<Self> {
        let path = folder.join(format!("{NEW}{:016x}", rand::random::<u64>()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(FILE_MODE);
        let mut file = options.open(&path)?;
        let temporary = Self { path };
        file.write_all(bytes)?;
        // Before the real name, or that may point at missing bytes after a power cut.
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays behind is a hidden file only its owner can read.
        let _ = fs::remove_file(&self.path);
    }
}

/// The file of the key with this name.
fn file_name(name: &str) -> Result<String, KeystoreError> {
    let wrong = |why| KeystoreError::Name {
        name: name.to_owned(),
        why,
    };
    if name.is_empty() {
        return Err(wrong("it is empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(wrong("it is too long"));
    }
    if name.contains('/') {
        return Err(wrong("it has a slash in it"));
    }
    if name.chars().any(char::is_control) {
        return Err(wrong("it has a control character in it"));
    }
    Ok(format!("{PREFIX}{}", BASE32.encode(name.as_bytes())))
}

/// The name of the key in this file, if it is one's and could have no other.
fn name_of(file: &str) -> Option<String> {
    let encoded = file.strip_prefix(PREFIX)?;
    let name = BASE32.decode(encoded.as_bytes()).ok()?;
    let name = String::from_utf8(name).ok()?;
    file_name(&name)
        .is_ok_and(|right| right == file)
        .then_some(name)
}

pub(super) fn disk(what: &'static str, path: &Path, source: io::Error) -> KeystoreError {
    KeystoreError::Disk {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Base32 in lower case.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The letters are right, so it always is one.
    specification.encoding().unwrap_or(BASE32_NOPAD)
});
/// What files with keys begin with.
const PREFIX: &str = "key_";
/// What files begin with that are not finished.
const NEW: &str = ".new_key.";
/// What is locked by who changes keys.
pub(super) const LOCK_FILE: &str = ".lock";
/// Permissions: for the owner alone.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
/// Opening waits for nobody.
pub(super) const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();
/// How often, and after what time, it is looked whether somebody else has finished: ten seconds.
const LOCK_LOOKS: u32 = 500;
const LOCK_LOOK_TIME: Duration = Duration::from_millis(20);
