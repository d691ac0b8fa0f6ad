//! Blocks that lie in the user's files: where they lie, and what they are read back as.
//!
//! The log keeps a [`Reference`] in the place of such a block's bytes, in a stream of its own. Whatever is read from a
//! user's file is hashed: who may change the file decides whether there is a block, never what it is.

use crate::block::{BLOCK_BYTES_MAX, Block};
use crate::cid::Cid;
use crate::dag::wire;
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a block lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The file, absolute.
    pub path: Arc<Path>,
    /// The block's first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
}

/// A block that was added in place and cannot be read from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} from byte {offset} on ({length} bytes): {why}", path.display())]
pub struct Lost {
    /// The file.
    pub path: Arc<Path>,
    /// The block's first byte in it.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u32,
    /// What happened.
    pub why: Why,
}

/// What happened to a file since a block of it was added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// There is none by that name.
    Gone,
    /// Its name is something else's now.
    NotAFile(&'static str),
    /// It ends before the block does.
    TooShort {
        /// How long it is.
        bytes: u64,
    },
    /// The bytes there are others.
    Changed,
    /// The system does not give it.
    Unreadable(Arc<str>),
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => write!(out, "the file is gone"),
            Self::NotAFile(kind) => write!(out, "there is {kind} now and no file"),
            Self::TooShort { bytes } => write!(out, "the file has only {bytes} bytes now"),
            Self::Changed => write!(out, "the file has changed there"),
            Self::Unreadable(error) => write!(out, "the file cannot be read: {error}"),
        }
    }
}

impl Reference {
    /// What the log keeps of it; it is only good for `cid`. `None` if it cannot be kept: the path is too long or not
    /// absolute.
    pub(crate) fn encode(&self, cid: &Cid) -> Option<Bytes> {
        let path = self.path.as_os_str().as_bytes();
        if path.len() > PATH_BYTES_MAX || !self.path.is_absolute() {
            return None;
        }
        let mut out = vec![VERSION];
        wire::put_varint(&mut out, self.length.into());
        wire::put_varint(&mut out, self.offset);
        out.extend_from_slice(path);
        out.extend_from_slice(&sum(cid, &out).to_le_bytes());
        Some(Bytes::from(out))
    }

    /// Reads it back; `None` if it is damaged, or another block's.
    pub(crate) fn decode(cid: &Cid, bytes: &[u8]) -> Option<Self> {
        let (kept, checked) = bytes.split_last_chunk()?;
        if sum(cid, kept) != u32::from_le_bytes(*checked) {
            return None;
        }
        let rest = kept.strip_prefix(&[VERSION])?;
        let (length, rest) = unsigned_varint::decode::u32(rest).ok()?;
        let (offset, path) = unsigned_varint::decode::u64(rest).ok()?;
        let is_one = usize::try_from(length).is_ok_and(|length| length <= BLOCK_BYTES_MAX)
            && path.len() <= PATH_BYTES_MAX;
        is_one.then(|| Self {
            path: PathBuf::from(OsStr::from_bytes(path)).into(),
            offset,
            length,
        })
    }

    /// Reads the block, and hashes it.
    pub(crate) fn read(&self, cid: &Cid) -> Result<Block, Lost> {
        let bytes = self.read_unchecked()?;
        Block::verify(*cid, Bytes::from(bytes)).map_err(|_| self.lost(Why::Changed))
    }

    /// Whether the file has these bytes there.
    pub(crate) fn compare(&self, bytes: &[u8]) -> Result<(), Lost> {
        match self.read_unchecked()? == bytes {
            true => Ok(()),
            false => Err(self.lost(Why::Changed)),
        }
    }

    fn read_unchecked(&self) -> Result<Vec<u8>, Lost> {
        let file = open(&self.path).map_err(|why| self.lost(why))?;
        let length = usize::try_from(self.length).unwrap_or(0);
        let mut bytes = vec![0; length];
        if let Err(error) = file.read_exact_at(&mut bytes, self.offset) {
            return Err(self.lost(match error.kind() {
                io::ErrorKind::UnexpectedEof => Why::TooShort {
                    bytes: file.metadata().map_or(0, |metadata| metadata.len()),
                },
                _ => Why::Unreadable(error.to_string().into()),
            }));
        }
        Ok(bytes)
    }

    fn lost(&self, why: Why) -> Lost {
        Lost {
            path: self.path.clone(),
            offset: self.offset,
            length: self.length,
            why,
        }
    }
}

/// Opens a regular file, and nothing that has taken its name: no link is followed, and nothing is waited for.
fn open(path: &Path) -> Result<File, Why> {
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(Why::Gone),
        Err(Errno::LOOP) => return Err(Why::NotAFile("a symbolic link")),
        Err(Errno::NXIO) => return Err(Why::NotAFile("a socket")),
        Err(error) => return Err(Why::Unreadable(io::Error::from(error).to_string().into())),
    };
    let kind = opened
        .metadata()
        .map_err(|error| Why::Unreadable(error.to_string().into()))?
        .file_type();
    if kind.is_file() {
        return Ok(opened);
    }
    Err(Why::NotAFile(if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }))
}

fn sum(cid: &Cid, kept: &[u8]) -> u32 {
    let digest = cid.hash().digest();
    crc32c::crc32c_append(crc32c::crc32c(digest), kept)
}

/// How references are written.
const VERSION: u8 = 1;
/// Longest path: what the system takes in one piece.
const PATH_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{self, HashKind, Version};
    use std::fs;

    fn block(bytes: &[u8]) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, Bytes::copy_from_slice(bytes)).unwrap()
    }

    #[test]
    fn reads_back_and_is_no_other_blocks() {
        let (one, other) = (block(b"one"), block(b"other"));
        for (path, offset, length) in [("/a", 0, 0), ("/a b/\u{e4}", u64::MAX, 2 << 20)] {
            let reference = Reference {
                path: Path::new(path).into(),
                offset,
                length,
            };
            let kept = reference.encode(one.cid()).unwrap();
            assert_eq!(Reference::decode(one.cid(), &kept), Some(reference));
            assert_eq!(Reference::decode(other.cid(), &kept), None);
            for at in 0..kept.len() {
                let mut damaged = kept.to_vec();
                damaged[at] ^= 1;
                assert_eq!(Reference::decode(one.cid(), &damaged), None, "byte {at}");
            }
        }
        let long = Reference {
            path: Path::new(&format!("/{}", "a".repeat(PATH_BYTES_MAX))).into(),
            offset: 0,
            length: 1,
        };
        assert_eq!(long.encode(one.cid()), None);
        assert_eq!(Reference::decode(one.cid(), b""), None);
    }

    #[test]
    fn says_what_became_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let whole = block(b"in the middle");
        let reference = Reference {
            path: path.clone().into(),
            offset: 3,
            length: 13,
        };
        let read = || reference.read(whole.cid());
        let why = || read().unwrap_err().why;
        assert_eq!(why(), Why::Gone);
        fs::write(&path, b"...in the middle of it").unwrap();
        assert_eq!(read(), Ok(whole.clone()));
        fs::write(&path, b"...in the centre of it").unwrap();
        assert_eq!(why(), Why::Changed);
        let told = read().unwrap_err().to_string();
        assert!(told.contains("file from byte 3 on"), "{told}");
        fs::write(&path, b"...in the mid").unwrap();
        assert_eq!(why(), Why::TooShort { bytes: 13 });
        fs::remove_file(&path).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, b"...in the middle of it").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(why(), Why::NotAFile("a symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(why(), Why::NotAFile("a folder"));
        fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(why(), Why::NotAFile("a pipe"));
        fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(why(), Why::NotAFile("a socket"));
    }
}
