//! Files that exist whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes `bytes` as the file `path`, readable by its owner alone if `access` says so: after a
/// crash there is the old file or the new one, never a part of either.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let temporary = Temporary::beside(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_all()?; // Before the rename, or the new name may point at missing bytes.
    fs::rename(&temporary.0, path)?;
    sync_folder(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Makes renames, creations and removals in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever the umask lets.
    Shared,
    /// The owner alone.
    Owner,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Shared => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// A name that is removed again unless it was renamed away.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
        Self(PathBuf::from(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // Gone already when the rename was made.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_a_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"old", Access::Shared).unwrap();
        write(&path, b"new", Access::Owner).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
