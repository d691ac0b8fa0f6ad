//! Bytes that lie in a file, or in memory where there is no folder for them.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where they lie.
#[derive(Debug)]
pub(super) enum Bytes {
    File { file: File, len: u64 },
    Memory(Vec<u8>),
}

impl Bytes {
    /// New ones, in a file of that name in a folder, if there is one.
    pub(super) fn create(folder: Option<&Path>, name: &str) -> io::Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self::Memory(Vec::new()));
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(folder.join(name))?;
        Ok(Self::File { file, len: 0 })
    }

    /// The same in a file that nobody else finds, and that is gone with this.
    pub(super) fn temporary(folder: Option<&Path>, name: &str) -> io::Result<Self> {
        let bytes = Self::create(folder, name)?;
        if let Some(folder) = folder {
            std::fs::remove_file(folder.join(name))?;
        }
        Ok(bytes)
    }

    /// Those that a file holds.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self::File { file, len })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// As many as are there from one on, `most` of them.
    pub(super) fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let count = most.min(left);
        match self {
            Self::File { file, .. } => {
                let mut read = vec![0; count];
                file.read_exact_at(&mut read, at)?;
                Ok(read)
            }
            Self::Memory(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                Ok(bytes.iter().skip(from).take(count).copied().collect())
            }
        }
    }

    /// Makes sure that they are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.sync_data(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Leaves so many.
    pub(super) fn cut(&mut self, to: u64) -> io::Result<()> {
        match self {
            Self::File { file, len } => {
                file.set_len(to)?;
                *len = to;
            }
            Self::Memory(bytes) => bytes.truncate(usize::try_from(to).unwrap_or(usize::MAX)),
        }
        Ok(())
    }
}

/// At the end.
impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { file, len } => {
                let written = file.write_at(bytes, *len)?;
                *len += written as u64;
                Ok(written)
            }
            Self::Memory(all) => all.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
