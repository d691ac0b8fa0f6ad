//! One segment: a file, its checksums, reading from it.
//!
//! Beside `leaf-000001.car` lies `leaf-000001.crc`: a CRC32C for each page of 64 KiB of the segment
//! (the last one for what there is of it), so that a range reads and checks only what it needs. The
//! sidecar only makes things faster: a page without a checksum, or with a wrong one, sends the
//! reader to the multihash of the whole block, which alone decides what is damaged.

use super::{SegmentId, section};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    file: File,
    sidecar: File,
    pages: RwLock<Pages>,
}

/// What is known of the file's bytes.
#[derive(Debug, Default)]
struct Pages {
    /// Bytes that hold whole sections.
    length: u64,
    /// Checksums from the first page on; pages beyond have none.
    sums: Vec<u32>,
    /// How many of them the sidecar holds.
    written: usize,
}

/// Why bytes were not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The disk refused.
    Disk(io::Error),
    /// The checksum is missing or says that they changed: ask the multihash.
    Unchecked,
}

impl Segment {
    /// Makes a new, empty segment: a file with nothing but its header. The folder is not synced.
    pub(crate) fn create(folder: &Path, id: SegmentId) -> io::Result<Self> {
        let open = |path: PathBuf| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
        };
        let _ = std::fs::remove_file(sidecar_path(folder, id)); // Left by a lost segment.
        let sidecar = open(sidecar_path(folder, id))?;
        sidecar.write_all_at(SIDECAR_MAGIC, 0)?;
        let file = open(path(folder, id))?;
        let segment = Self {
            id,
            file,
            sidecar,
            pages: RwLock::default(),
        };
        segment.append(&[&section::file_header()])?;
        Ok(segment)
    }

    /// Opens a segment of which `length` bytes count. What lies beyond is cut off.
    pub(crate) fn open(folder: &Path, id: SegmentId, length: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path(folder, id))?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        let mut sidecar = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(sidecar_path(folder, id))?;
        let sums = read_sums(&mut sidecar, length)?;
        let pages = Pages {
            length,
            written: sums.len(),
            sums,
        };
        Ok(Self {
            id,
            file,
            sidecar,
            pages: RwLock::new(pages),
        })
    }

    /// Bytes that hold whole sections, the header included.
    pub(crate) fn length(&self) -> u64 {
        self.pages
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .length
    }

    /// Whether every page has its checksum and the last one is right, so that appending may go on.
    pub(crate) fn may_grow(&self) -> bool {
        let length = self.length();
        let last = length.saturating_sub(1) / PAGE * PAGE;
        self.read(last, length - last).is_ok()
    }

    /// Appends all the parts. After an error nothing of them counts.
    pub(crate) fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        let start = self.length();
        if let Err(error) = self.write_all(start, parts) {
            // Best effort: the length decides, a tail beyond it is cut when the segment opens.
            let _ = self.file.set_len(start);
            return Err(error);
        }
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        for part in parts {
            pages.extend(part);
        }
        Ok(())
    }

    fn write_all(&self, start: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut at = start;
        for group in parts.chunks(PARTS_AT_ONCE) {
            let mut slices: Vec<IoSlice<'_>> = group
                .iter()
                .filter(|part| !part.is_empty())
                .map(|part| IoSlice::new(part))
                .collect();
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let wrote = rustix::io::pwritev(&self.file, left, at)?;
                if wrote == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                at += wrote as u64;
                IoSlice::advance_slices(&mut left, wrote);
            }
        }
        Ok(())
    }

    /// Reads bytes that lie inside the segment and match their checksums.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Bytes, ReadError> {
        let end = offset.saturating_add(length);
        let (from, to, sums) = {
            let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
            if end > pages.length {
                return Err(ReadError::Unchecked);
            }
            let first = offset / PAGE;
            let to = end.div_ceil(PAGE).saturating_mul(PAGE).min(pages.length);
            let range = page_index(first)..page_index(to.div_ceil(PAGE));
            let sums = pages.sums.get(range).ok_or(ReadError::Unchecked)?.to_vec();
            (first * PAGE, to, sums)
        };
        let bytes = self
            .read_unchecked(from, to - from)
            .map_err(ReadError::Disk)?;
        let whole = bytes.len() as u64 == to - from;
        let right = bytes
            .chunks(PAGE_BYTES)
            .zip(&sums)
            .all(|(page, sum)| crc32c::crc32c(page) == *sum);
        if !whole || !right {
            return Err(ReadError::Unchecked);
        }
        let skip = usize::try_from(offset - from).unwrap_or(0);
        let take = usize::try_from(length).unwrap_or(0);
        Ok(bytes.slice(skip..skip + take))
    }

    /// Reads bytes as they are, fewer at the file's end.
    pub(crate) fn read_unchecked(&self, offset: u64, length: u64) -> io::Result<Bytes> {
        let length = usize::try_from(length).unwrap_or(0);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the new checksums out without waiting for anything.
    pub(crate) fn write_sums(&self) -> io::Result<()> {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        // The last one written may have been of a page that has grown since.
        let from = pages.written.saturating_sub(1);
        let new: Vec<u8> = pages
            .sums
            .iter()
            .skip(from)
            .flat_map(|sum| sum.to_le_bytes())
            .collect();
        self.sidecar
            .write_all_at(&new, SIDECAR_MAGIC.len() as u64 + 4 * from as u64)?;
        pages.written = pages.sums.len();
        Ok(())
    }
}

impl Pages {
    fn extend(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let filled = usize::try_from(self.length % PAGE).unwrap_or(0);
            let take = part.len().min(PAGE_BYTES - filled);
            let (now, later) = part.split_at(take);
            match self.sums.last_mut() {
                Some(sum) if filled > 0 => *sum = crc32c::crc32c_append(*sum, now),
                _ => self.sums.push(crc32c::crc32c(now)),
            }
            self.length += take as u64;
            part = later;
        }
    }
}

/// The segment's file.
pub(crate) fn path(folder: &Path, id: SegmentId) -> PathBuf {
    folder.join(format!("{id}.car"))
}

/// The file of its checksums.
pub(crate) fn sidecar_path(folder: &Path, id: SegmentId) -> PathBuf {
    folder.join(format!("{id}.crc"))
}

fn read_sums(sidecar: &mut File, length: u64) -> io::Result<Vec<u32>> {
    let pages = page_index(length.div_ceil(PAGE));
    let mut bytes = Vec::new();
    let most = (SIDECAR_MAGIC.len() + 4 * pages) as u64;
    sidecar.take(most).read_to_end(&mut bytes)?;
    let Some(sums) = bytes.strip_prefix(SIDECAR_MAGIC) else {
        sidecar.set_len(0)?;
        sidecar.write_all(SIDECAR_MAGIC)?;
        return Ok(Vec::new());
    };
    Ok(sums
        .chunks_exact(4)
        .filter_map(|sum| sum.try_into().ok())
        .map(u32::from_le_bytes)
        .collect())
}

fn page_index(page: u64) -> usize {
    usize::try_from(page).unwrap_or(usize::MAX)
}

/// Bytes under one checksum.
const PAGE: u64 = PAGE_BYTES as u64;
pub(crate) const PAGE_BYTES: usize = 64 << 10;
/// First bytes of a sidecar.
const SIDECAR_MAGIC: &[u8] = b"cairncrc";
/// How many parts one system call takes.
const PARTS_AT_ONCE: usize = 1024;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use crate::log::Stream;

    const ID: SegmentId = SegmentId {
        stream: Stream::Leaf,
        number: 1,
    };

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn reads_back_any_range_while_growing_and_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), ID).unwrap();
        let mut whole = section::file_header();
        for length in [1, 100, PAGE_BYTES, 3 * PAGE_BYTES + 17, 5] {
            let part = bytes(length);
            segment.append(&[&part]).unwrap();
            whole.extend_from_slice(&part);
            let length = whole.len();
            for (from, to) in [
                (0, length),
                (length - 1, length),
                (length / 2, length),
                (3, 9),
            ] {
                let read = segment.read(from as u64, (to - from) as u64).unwrap();
                assert_eq!(read, whole[from..to]);
            }
        }
        segment.sync().unwrap();
        segment.write_sums().unwrap();
        let again = Segment::open(folder.path(), ID, whole.len() as u64).unwrap();
        assert!(again.may_grow());
        assert_eq!(again.read(0, whole.len() as u64).unwrap(), whole);
        again.append(&[b"more"]).unwrap();
        assert_eq!(again.read(whole.len() as u64, 4).unwrap(), "more");
    }

    #[test]
    fn a_changed_byte_is_seen_in_its_page_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), ID).unwrap();
        segment.append(&[&bytes(4 * PAGE_BYTES)]).unwrap();
        segment.file.write_all_at(&[0xff], PAGE + 5).unwrap();
        assert!(segment.read(10, 20).is_ok());
        assert!(matches!(
            segment.read(PAGE + 100, 1),
            Err(ReadError::Unchecked)
        ));
        assert!(segment.read(2 * PAGE, PAGE).is_ok());
    }

    #[test]
    fn without_its_sidecar_nothing_counts_as_checked() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), ID).unwrap();
        segment.append(&[&bytes(1000)]).unwrap();
        segment.sync().unwrap();
        segment.write_sums().unwrap();
        let length = segment.length();
        std::fs::remove_file(sidecar_path(folder.path(), ID)).unwrap();
        let again = Segment::open(folder.path(), ID, length).unwrap();
        assert!(!again.may_grow());
        assert!(matches!(again.read(0, 10), Err(ReadError::Unchecked)));
    }

    #[test]
    fn what_lies_beyond_the_length_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), ID).unwrap();
        segment.append(&[&bytes(1000)]).unwrap();
        segment.sync().unwrap();
        segment.write_sums().unwrap();
        let cut = Segment::open(folder.path(), ID, 500).unwrap();
        assert_eq!(cut.length(), 500);
        assert_eq!(
            std::fs::metadata(path(folder.path(), ID)).unwrap().len(),
            500
        );
        assert!(!cut.may_grow(), "the checksum was of a longer page");
    }
}
