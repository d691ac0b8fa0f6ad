//! The checksums of a segment's pages, in a file beside it.
//!
//! Beside `leaf-000001.car` lies `leaf-000001.crc`: a CRC32C for each page of 4 KiB of the segment (the last one for
//! what there is of it), so that a range reads and checks little more than what is wanted of it. The file only makes
//! things faster: a page without a checksum, or with a wrong one, sends the reader to the multihash of the whole block,
//! which alone decides what is damaged.

use crate::disk::{Disk, DiskFile, Mode};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Checksums that are read when they are needed: those of all open segments would fill the memory.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    /// `None` if there are none that can be used.
    file: Option<Arc<dyn DiskFile>>,
    pages: usize,
}

impl Sums {
    /// Those of a segment of `length` bytes; what cannot be read is as good as absent.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, length: u64) -> Self {
        let absent = Self {
            file: None,
            pages: 0,
        };
        let open = || -> io::Result<Self> {
            let file = disk.open(path, Mode::Read)?;
            let bytes = file.length()?.saturating_sub(MAGIC.len() as u64);
            let pages = index(bytes / SUM).min(Pages::of(0, length, length).numbers().end);
            let is_known = file.read(0, MAGIC.len() as u64)? == MAGIC;
            Ok(Self {
                file: is_known.then_some(file),
                pages: if is_known { pages } else { 0 },
            })
        };
        open().unwrap_or(absent)
    }

    /// How many pages have one.
    pub(crate) fn len(&self) -> usize {
        self.pages
    }

    /// Those of some pages, if there are all of them.
    pub(crate) fn read(&self, pages: Range<usize>) -> Option<Vec<u32>> {
        let (file, from, length) = self.within(&pages)?;
        parse(&file.read(from, length).ok()?, &pages)
    }

    /// [`Self::read`], if that does not wait for the disk.
    pub(crate) fn read_cached(&self, pages: Range<usize>) -> Option<Vec<u32>> {
        let (file, from, length) = self.within(&pages)?;
        parse(&file.read_cached(from, length)?, &pages)
    }

    fn within(&self, pages: &Range<usize>) -> Option<(&Arc<dyn DiskFile>, u64, u64)> {
        let file = self.file.as_ref().filter(|_| pages.end <= self.pages)?;
        let length = SUM * pages.len() as u64;
        Some((file, offset(pages.start), length))
    }
}

/// The whole pages of a segment around some of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Where they begin.
    pub(crate) from: u64,
    /// Where they end.
    pub(crate) to: u64,
}

impl Pages {
    /// Those from `start` to `end` of a segment of `length` bytes.
    pub(crate) fn of(start: u64, end: u64, length: u64) -> Self {
        let to = end.div_ceil(PAGE).saturating_mul(PAGE).min(length);
        Self {
            from: start / PAGE * PAGE,
            to,
        }
    }

    /// Their numbers.
    pub(crate) fn numbers(self) -> Range<usize> {
        index(self.from / PAGE)..index(self.to.div_ceil(PAGE))
    }
}

/// Whether bytes that begin with a page are what the checksums are of.
pub(crate) fn are_right(sums: &[u32], bytes: &[u8]) -> bool {
    let pages = bytes.chunks(PAGE_BYTES);
    pages.len() == sums.len()
        && pages
            .zip(sums)
            .all(|(page, sum)| crc32c::crc32c(page) == *sum)
}

/// Takes `part`, which lies at `at`, into the checksums.
pub(crate) fn extend(sums: &mut Vec<u32>, mut at: u64, mut part: &[u8]) {
    while !part.is_empty() {
        let filled = usize::try_from(at % PAGE).unwrap_or(0);
        let take = part.len().min(PAGE_BYTES - filled);
        let (now, later) = part.split_at(take);
        match sums.last_mut() {
            Some(sum) if filled > 0 => *sum = crc32c::crc32c_append(*sum, now),
            _ => sums.push(crc32c::crc32c(now)),
        }
        at += take as u64;
        part = later;
    }
}

/// Checksums as they lie in the file, from `offset` of the first of them on.
pub(crate) fn written(sums: &[u32]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

/// The file's bytes for the first `length` bytes of a segment, as far as they are known: `known` are a longer
/// segment's, whose page may go on where this one ends with `last`.
pub(crate) fn of_beginning(known: &[u8], length: u64, last: &[u8]) -> Vec<u8> {
    let whole = usize::try_from(offset(index(length / PAGE))).unwrap_or(usize::MAX);
    if !known.starts_with(MAGIC) {
        return MAGIC.to_vec();
    }
    match known.get(..whole) {
        Some(whole) if !last.is_empty() => {
            let last = written(&[crc32c::crc32c(last)]);
            [whole, &last].concat()
        }
        Some(whole) => whole.to_vec(),
        // What was not written out yet is asked of the blocks' hashes, and so is the page that was the last.
        None => {
            let pages = (known.len() - MAGIC.len()) / 4;
            let whole = usize::try_from(offset(pages.saturating_sub(1))).unwrap_or(usize::MAX);
            known.get(..whole).unwrap_or(MAGIC).to_vec()
        }
    }
}

/// Where the checksum of a page lies in the file.
pub(crate) fn offset(page: usize) -> u64 {
    MAGIC.len() as u64 + SUM * page as u64
}

fn parse(bytes: &Bytes, pages: &Range<usize>) -> Option<Vec<u32>> {
    let (sums, _) = bytes.as_chunks();
    let sums: Vec<u32> = sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
    (sums.len() == pages.len()).then_some(sums)
}

fn index(page: u64) -> usize {
    usize::try_from(page).unwrap_or(usize::MAX)
}

/// Bytes under one checksum: as many as a disk loses at once.
const PAGE: u64 = PAGE_BYTES as u64;
pub(crate) const PAGE_BYTES: usize = 4 << 10;
/// Bytes of one checksum.
const SUM: u64 = 4;
/// First bytes of the file. It had another name when pages had 64 KiB; such a file is as good as none.
pub(crate) const MAGIC: &[u8] = b"cairncr4";
