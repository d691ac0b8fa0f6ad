//! Files that exist whole or not at all.

use crate::disk::{Disk, Mode, RealDisk};
use std::io;
use std::path::{Path, PathBuf};

/// Writes `bytes` as the file `path`, readable by its owner alone if `access` says so: after a
/// crash there is the old file or the new one, never a part of either.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    write_on(&RealDisk, path, bytes, access)
}

/// [`write()`], on any disk.
pub(crate) fn write_on(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    access: Access,
) -> io::Result<()> {
    let temporary = Temporary::beside(disk, path);
    let file = disk.open(&temporary.path, Mode::Create(access))?;
    file.write(0, &[bytes])?;
    file.sync()?; // Before the rename, or the new name may point at missing bytes.
    disk.rename(&temporary.path, path)?;
    disk.sync_folder(folder_of(path))
}

/// Whether a file's name is one that [`write()`] left behind when it was killed.
pub(crate) fn is_left_over(name: &str) -> bool {
    name.ends_with(SUFFIX)
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
    pub(crate) const fn mode(self) -> u32 {
        match self {
            Self::Shared => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// A name that is removed again unless it was renamed away.
struct Temporary<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl<'a> Temporary<'a> {
    fn beside(disk: &'a dyn Disk, path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:016x}{SUFFIX}", rand::random::<u64>()));
        Self {
            disk,
            path: PathBuf::from(name),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = self.disk.remove(&self.path); // Gone already when the rename was made.
    }
}

/// What temporary names end with.
const SUFFIX: &str = ".tmp";

/// The folder that a path is in; of a bare name that is the one we are in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
