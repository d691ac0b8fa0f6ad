//! Files of Kubo's, read so that nothing that lies in their place holds us up or fills the memory: no pipe is waited
//! for, no device is asked, and of what is longer than it can be nothing is taken.

use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{pread, retry_on_intr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a symlink is gone along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Whoever set the repository up may have put it elsewhere.
    Followed,
    /// Kubo makes none here.
    Refused,
}

/// Opens a file, if it is one; answers how long it is.
pub(super) fn open(path: &Path, links: Links) -> io::Result<(File, u64)> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    flags.set(OFlags::NOFOLLOW, links == Links::Refused);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    // Asked of the open file, so that nobody can swap it in between.
    let about = file.metadata()?;
    match about.is_file() {
        true => Ok((file, about.len())),
        false => Err(io::Error::other("it is no file")),
    }
}

/// Reads all of a file that has no more than `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, length) = open(path, Links::Followed)?;
    if length > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    read_open(&file, length)
}

/// The first `length` bytes of an open file: all of it, unless somebody writes to it.
pub(super) fn read_open(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = bytes.len() as u64;
        let read = retry_on_intr(|| pread(file, spare_capacity(&mut bytes), at))?;
        if read == 0 {
            break;
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, mknodat};
    use std::fs;

    #[test]
    fn only_files_are_read_and_no_more_of_them_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let sparse = File::create(path("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();

        assert_eq!(read(&path("file"), 5).unwrap(), b"12345");
        assert_eq!(read(&path("link"), 5).unwrap(), b"12345");
        assert!(open(&path("link"), Links::Refused).is_err());
        let why = |name: &str, most| read(&path(name), most).unwrap_err().to_string();
        assert_eq!(why("file", 4), "it has more than 4 bytes");
        assert_eq!(why("sparse", 1 << 20), "it has more than 1048576 bytes");
        for no_file in [path("pipe"), folder.path().into(), "/dev/zero".into()] {
            let error = read(&no_file, 5).unwrap_err();
            assert_eq!(error.to_string(), "it is no file", "{}", no_file.display());
        }
    }
}
