//! The file layer under log and journal: everything that decides about durability goes through it.
//!
//! [`RealDisk`] is the operating system. Tests put a simulated disk in its place, which forgets what
//! was not synced, tears what was, and refuses when it is told to. sled goes past this layer: what it
//! holds is derived, and may be lost or old at any moment.

#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "fuzz targets break nothing"))]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "only tests and fuzz targets have it: its panic is a finding"
)]
pub(crate) mod simulated;

use crate::buffers::Kept;
use crate::durable::Access;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
#[cfg(target_os = "linux")]
use std::io::IoSliceMut;
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Files in folders.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Opens or makes a file.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a folder.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// How long a file is.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// Gives a file another name, in place of whatever had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder if it is not there.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// How much room there is.
    fn space(&self, folder: &Path) -> io::Result<Space>;

    /// Makes the file `to` of the first `length` bytes of `from`, or of all there is if that is less, and makes
    /// its bytes durable. The folder is not synced.
    fn share(&self, from: &Path, to: &Path, length: u64, _ways: Ways) -> io::Result<Shared> {
        let file = self.open(from, Mode::Read)?;
        copy(self, &file, length, to)?;
        Ok(Shared::Copied)
    }

    /// Gives a file that has other names as well its own bytes, before it is changed.
    fn make_own(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool {
        self.length(path).is_ok()
    }
}

/// How a file may come to have another's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ways {
    /// As another name of it, too: neither is ever written again.
    Any,
    /// Only so that either may be written afterwards.
    Apart,
}

/// How it came to have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    /// Its blocks on the disk are the other's until one is written.
    Cloned,
    /// It is another name of the same file.
    Linked,
    /// Its bytes were written again.
    Copied,
}

/// Writes the first `length` bytes of an open file as a new one, durably.
pub(crate) fn copy<D: Disk + ?Sized>(
    disk: &D,
    from: &Arc<dyn DiskFile>,
    length: u64,
    to: &Path,
) -> io::Result<()> {
    let file = disk.open(to, Mode::Create(Access::Shared))?;
    let mut at = 0;
    while at < length {
        let some = from.read(at, COPIED_AT_ONCE.min(length - at))?;
        if some.is_empty() {
            break;
        }
        file.write(at, &[&some])?;
        at += some.len() as u64;
    }
    file.sync()
}

/// An open file. Reading and writing may happen on many threads at once.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Reads once, into the buffer's spare room; 0 at the end of the file.
    fn read_some(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize>;
    /// Reads once into a part of a buffer; 0 at the end of the file.
    fn read_into(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Reads exactly `length` bytes, if they are in memory.
    fn read_cached(&self, _offset: u64, _length: u64) -> Option<Bytes> {
        None
    }
    /// Writes once; tells how many bytes it took.
    fn write_some(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Makes the file's bytes and its length durable.
    fn sync(&self) -> io::Result<()>;
    /// Sets the length.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Takes this many bytes of the disk for the file.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// How long it is.
    fn length(&self) -> io::Result<u64>;
    /// Whether nobody can open it any more: no folder names it.
    fn is_nameless(&self) -> bool;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For reading alone.
    Read,
    /// For reading and writing.
    Write,
    /// Made now; it must not be there yet.
    Create(Access),
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// What may still be written.
    pub(crate) free: u64,
    /// What there is in all.
    pub(crate) total: u64,
}

impl dyn DiskFile {
    /// Reads `length` bytes, fewer at the file's end.
    pub(crate) fn read(&self, offset: u64, length: u64) -> io::Result<Bytes> {
        let length = usize::try_from(length).unwrap_or(0);
        if let Some(kept) = Kept::of(length) {
            return kept.fill(|at, rest| self.read_into(offset + at as u64, rest));
        }
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            match self.read_some(offset + bytes.len() as u64, &mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    }

    /// Reads `length` bytes, with zeros for those sectors that the disk has lost; answers how many those
    /// were.
    pub(crate) fn read_around(&self, offset: u64, length: u64) -> io::Result<(Bytes, u64)> {
        match self.read(offset, length) {
            Err(error) if is_lost(&error) => {}
            read => return read.map(|bytes| (bytes, 0)),
        }
        let end = offset.saturating_add(length).min(self.length()?);
        let mut bytes =
            Vec::with_capacity(usize::try_from(end.saturating_sub(offset)).unwrap_or(0));
        let mut lost = 0;
        let mut at = offset;
        while at < end {
            let to = ((at / SECTOR + 1) * SECTOR).min(end);
            match self.read(at, to - at) {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(error) if is_lost(&error) => lost += 1,
                Err(error) => return Err(error),
            }
            at = to;
            bytes.resize(usize::try_from(at - offset).unwrap_or(bytes.len()), 0);
        }
        Ok((Bytes::from(bytes), lost))
    }

    /// Writes all the parts, one after the other.
    pub(crate) fn write(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut at = offset;
        for group in parts.chunks(PARTS_AT_ONCE) {
            let mut slices: Vec<IoSlice<'_>> = group
                .iter()
                .filter(|part| !part.is_empty())
                .map(|part| IoSlice::new(part))
                .collect();
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let wrote = match self.write_some(at, left) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(wrote) => wrote,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                at += wrote as u64;
                IoSlice::advance_slices(&mut left, wrote);
            }
        }
        Ok(())
    }
}

/// Whether the disk says that it cannot read back what it was given.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            Mode::Read => {}
            Mode::Write => {
                options.write(true);
            }
            Mode::Create(access) => {
                options.write(true).create_new(true).mode(access.mode());
            }
        }
        Ok(Arc::new(options.open(path)?))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // What is no text is no name of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn share(&self, from: &Path, to: &Path, length: u64, ways: Ways) -> io::Result<Shared> {
        let source = File::open(from)?;
        let mut options = OpenOptions::new();
        let new = options.write(true).create_new(true);
        let mut file = new.mode(Access::Shared.mode()).open(to)?;
        if clones(&file, &source) {
            if source.metadata()?.len() > length {
                file.set_len(length)?;
            }
            file.sync_all()?;
            return Ok(Shared::Cloned);
        }
        if ways == Ways::Any {
            drop(file);
            fs::remove_file(to)?;
            // Another file system, too many names, a system that lets nobody: then it is copied.
            if fs::hard_link(from, to).is_ok() {
                // Its last bytes may have been acknowledged before they reached the disk.
                source.sync_data()?;
                return Ok(Shared::Linked);
            }
            file = new.open(to)?;
        }
        io::copy(&mut source.take(length), &mut file)?;
        file.sync_all()?;
        Ok(Shared::Copied)
    }

    fn make_own(&self, path: &Path) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if metadata.nlink() <= 1 {
            return Ok(());
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".own.tmp");
        let beside = Path::new(&beside);
        let _ = fs::remove_file(beside); // A kill may have left one.
        let made = self.share(path, beside, metadata.len(), Ways::Apart);
        let made = made.and_then(|_| fs::rename(beside, path));
        if made.is_err() {
            let _ = fs::remove_file(beside);
        }
        made?;
        self.sync_folder(path.parent().unwrap_or(path))
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Space {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }
}

/// Lets an empty file have another's blocks on the disk, if the file system can do that.
#[cfg(all(
    target_os = "linux",
    not(any(target_arch = "sparc", target_arch = "sparc64"))
))]
fn clones(file: &File, source: &File) -> bool {
    rustix::fs::ioctl_ficlone(file, source).is_ok()
}

#[cfg(not(all(
    target_os = "linux",
    not(any(target_arch = "sparc", target_arch = "sparc64"))
)))]
fn clones(_: &File, _: &File) -> bool {
    false
}

impl DiskFile for File {
    fn read_some(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::pread(self, spare_capacity(into), offset)?)
    }

    fn read_into(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::io::pread(self, &mut *into, offset)
        })?)
    }

    #[cfg(target_os = "linux")]
    fn read_cached(&self, offset: u64, length: u64) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        let read = rustix::io::preadv2(self, into, offset, flags).ok()?;
        (read == bytes.len()).then(|| Bytes::from(bytes))
    }

    fn write_some(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, offset)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::empty();
        Ok(rustix::fs::fallocate(self, flags, 0, length)?)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_nameless(&self) -> bool {
        self.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

/// Bytes read and written at once when a file is copied.
const COPIED_AT_ONCE: u64 = 1 << 20;
/// What a disk loses at once, at least.
const SECTOR: u64 = 4096;
/// How many parts one system call takes.
const PARTS_AT_ONCE: usize = 1024;
