//! One segment: a file, its checksums ([`super::sums`]), reading from it.
//!
//! A segment grows as long as it is its stream's active one, with its file open and its checksums in
//! memory. Then it is sealed, and its files are open only while somebody reads.

use super::files::{Files, Opened, Slot};
use super::sums::{self, PAGE_BYTES, Pages, Sums};
use super::{SegmentId, section};
use crate::disk::{DiskFile, Mode, is_lost};
use crate::durable::Access;
use crate::reference::Lost;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    files: Arc<Files>,
    state: RwLock<State>,
    slot: Arc<Slot>,
    /// Set when nothing is appended any more.
    sealed: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Bytes that hold whole sections, the header included.
    length: u64,
    /// What a segment has that grows, or that grew and was not committed since.
    growing: Option<Growing>,
}

#[derive(Debug)]
struct Growing {
    file: Arc<dyn DiskFile>,
    sums_file: Arc<dyn DiskFile>,
    /// Checksums from the first page on.
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
    /// They lie in a file of the user's, and are not there any more.
    Lost(Arc<Lost>),
}

impl Segment {
    /// Makes a new, empty segment: a file with nothing but its header. The folder is not synced.
    pub(crate) fn create(files: &Arc<Files>, id: SegmentId) -> io::Result<Self> {
        let disk = &files.disk;
        let _ = disk.remove(&files.sums_path(id)); // Left by a lost segment.
        let sums_file = disk.open(&files.sums_path(id), Mode::Create(Access::Shared))?;
        sums_file.write(0, &[sums::MAGIC])?;
        let file = disk.open(&files.path(id), Mode::Create(Access::Shared))?;
        let segment = Self {
            id,
            files: files.clone(),
            state: RwLock::new(State {
                length: 0,
                growing: Some(Growing {
                    file,
                    sums_file,
                    sums: Vec::new(),
                    written: 0,
                }),
            }),
            slot: Arc::default(),
            sealed: AtomicBool::new(false),
        };
        segment.append(&[&section::file_header()])?;
        Ok(segment)
    }

    /// A sealed segment of which `length` bytes count. Nothing is opened before somebody reads.
    pub(crate) fn sealed(files: &Arc<Files>, id: SegmentId, length: u64) -> Self {
        Self {
            id,
            files: files.clone(),
            state: RwLock::new(State {
                length,
                growing: None,
            }),
            slot: Arc::default(),
            sealed: AtomicBool::new(true),
        }
    }

    /// Cuts off what lies in the file beyond the length that counts.
    pub(crate) fn cut(&self) -> io::Result<()> {
        let path = self.files.path(self.id);
        // A snapshot may have it too.
        self.files.disk.make_own(&path)?;
        let file = self.files.disk.open(&path, Mode::Write)?;
        file.set_length(self.length())
    }

    /// Lets a sealed segment grow again, if every page has its checksum and the last one is right.
    pub(crate) fn grow(&self) -> io::Result<Growth> {
        let length = self.length();
        if length < section::file_header().len() as u64 {
            return Ok(Growth::Sealed);
        }
        let last = Pages::of(length - 1, length, length).from;
        match self.read(last, length - last) {
            Ok(_) => {}
            Err(ReadError::Unchecked | ReadError::Lost(_)) => return Ok(Growth::Sealed),
            Err(ReadError::Disk(error)) => return Err(error),
        }
        let sums_path = self.files.sums_path(self.id);
        for path in [&self.files.path(self.id), &sums_path] {
            // A snapshot may have it too.
            match self.files.disk.make_own(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.slot.close();
        let opened = self.opened()?;
        let pages = Pages::of(0, length, length).numbers();
        let Some(sums) = opened.sums.read(pages) else {
            return Ok(Growth::Sealed);
        };
        let growing = Growing {
            file: opened.file,
            sums_file: self.files.disk.open(&sums_path, Mode::Write)?,
            written: sums.len(),
            sums,
        };
        self.write_state().growing = Some(growing);
        self.sealed.store(false, Ordering::Release);
        self.slot.close();
        Ok(Growth::Grows)
    }

    /// Nothing is appended from now on.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether nothing is appended any more.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Lets go of what only a growing segment needs, if it was sealed at `length` and its checksums
    /// are written.
    pub(crate) fn settle(&self, length: u64) {
        let mut state = self.write_state();
        let written = state
            .growing
            .as_ref()
            .is_some_and(|growing| growing.written == growing.sums.len());
        if self.sealed.load(Ordering::Acquire) && state.length == length && written {
            state.growing = None;
            drop(state);
            // Opened while it grew, it knows the checksums of then.
            self.slot.close();
        }
    }

    /// Bytes that hold whole sections, the header included.
    pub(crate) fn length(&self) -> u64 {
        self.read_state().length
    }

    /// Appends all the parts. After an error nothing of them counts.
    pub(crate) fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        let (start, file) = {
            let state = self.read_state();
            let growing = state.growing.as_ref();
            let growing = growing.filter(|_| !self.sealed.load(Ordering::Acquire));
            let growing = growing.ok_or_else(|| io::Error::other("the segment is sealed"))?;
            (state.length, growing.file.clone())
        };
        if let Err(error) = file.write(start, parts) {
            // Best effort: the length decides, a tail beyond it is cut when the segment opens.
            let _ = file.set_length(start);
            return Err(error);
        }
        let mut state = self.write_state();
        let State { length, growing } = &mut *state;
        for part in parts {
            if let Some(growing) = growing {
                sums::extend(&mut growing.sums, *length, part);
            }
            *length += part.len() as u64;
        }
        Ok(())
    }

    /// Reads bytes that lie inside the segment and match their checksums.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Bytes, ReadError> {
        let end = offset.saturating_add(length);
        let (pages, file, sums) = {
            let state = self.read_state();
            if end > state.length {
                return Err(ReadError::Unchecked);
            }
            let pages = Pages::of(offset, end, state.length);
            match &state.growing {
                Some(growing) => (pages, growing.file.clone(), growing.of(pages)),
                None => {
                    drop(state);
                    let opened = self.opened().map_err(ReadError::Disk)?;
                    let sums = opened.sums.read(pages.numbers());
                    (pages, opened.file, sums)
                }
            }
        };
        let sums = sums.ok_or(ReadError::Unchecked)?;
        let bytes = match file.read(pages.from, pages.to - pages.from) {
            // Of whole pages more may be lost than of what is wanted.
            Err(error) if is_lost(&error) => return Err(ReadError::Unchecked),
            read => read.map_err(ReadError::Disk)?,
        };
        checked(&bytes, pages, &sums, offset..end).ok_or(ReadError::Unchecked)
    }

    /// [`Self::read`], if that does not wait for the disk.
    pub(crate) fn read_at_once(&self, offset: u64, length: u64) -> Option<Bytes> {
        let end = offset.saturating_add(length);
        let (pages, growing) = {
            // Whoever writes checksums out holds it, and may wait for the disk.
            let state = self.state.try_read().ok()?;
            let pages = (end <= state.length).then(|| Pages::of(offset, end, state.length))?;
            let growing = state.growing.as_ref();
            (
                pages,
                growing.map(|growing| (growing.file.clone(), growing.of(pages))),
            )
        };
        let (file, sums) = match growing {
            Some((file, sums)) => (file, sums?),
            None => {
                let Opened { file, sums } = Files::already_open(&self.slot)?;
                (file, sums.read_cached(pages.numbers())?)
            }
        };
        let bytes = file.read_cached(pages.from, pages.to - pages.from)?;
        checked(&bytes, pages, &sums, offset..end)
    }

    /// Reads bytes as they are, fewer at the segment's end.
    pub(crate) fn read_unchecked(&self, offset: u64, length: u64) -> io::Result<Bytes> {
        let (file, end) = self.file()?;
        file.read(offset, length.min(end.saturating_sub(offset)))
    }

    /// [`Self::read_unchecked`], if that does not wait for the disk.
    pub(crate) fn read_cached(&self, offset: u64, length: u64) -> Option<Bytes> {
        let (end, growing) = {
            // Whoever writes checksums out holds it, and may wait for the disk.
            let state = self.state.try_read().ok()?;
            let file = state.growing.as_ref().map(|growing| growing.file.clone());
            (state.length, file)
        };
        let opened = || Files::already_open(&self.slot).map(|opened| opened.file);
        let file = growing.or_else(opened)?;
        file.read_cached(offset, length.min(end.saturating_sub(offset)))
    }

    /// The file, and how much of it counts.
    fn file(&self) -> io::Result<(Arc<dyn DiskFile>, u64)> {
        let (end, growing) = {
            let state = self.read_state();
            let file = state.growing.as_ref().map(|growing| growing.file.clone());
            (state.length, file)
        };
        match growing {
            Some(file) => Ok((file, end)),
            None => Ok((self.opened()?.file, end)),
        }
    }

    /// [`Self::read_unchecked`], with zeros for what the disk has lost; answers how many sectors.
    pub(crate) fn read_around(&self, offset: u64, length: u64) -> io::Result<(Bytes, u64)> {
        let (file, end) = self.file()?;
        file.read_around(offset, length.min(end.saturating_sub(offset)))
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let growing = {
            let state = self.read_state();
            state.growing.as_ref().map(|growing| growing.file.clone())
        };
        match growing {
            Some(file) => file.sync(),
            // It was settled, so a commit has synced all of it.
            None => Ok(()),
        }
    }

    /// Makes a file durable that was just opened, whatever state it is in.
    pub(crate) fn sync_file(&self) -> io::Result<()> {
        self.opened()?.file.sync()
    }

    /// Writes the new checksums out without waiting for anything.
    pub(crate) fn write_sums(&self) -> io::Result<()> {
        let mut state = self.write_state();
        let Some(growing) = &mut state.growing else {
            return Ok(());
        };
        // The last one written may have been of a page that has grown since.
        let from = growing.written.saturating_sub(1);
        let new = sums::written(growing.sums.get(from..).unwrap_or_default());
        growing.sums_file.write(sums::offset(from), &[&new])?;
        growing.written = growing.sums.len();
        Ok(())
    }

    /// Whether something may still be appended, or was lately.
    pub(crate) fn is_growing(&self) -> bool {
        self.read_state().growing.is_some()
    }

    /// Whether a sealed segment has pages that end within `bytes` and do not match their checksums. What
    /// has no checksum or cannot be read is as it should be.
    pub(crate) fn has_wrong_sums(&self, bytes: Range<u64>) -> bool {
        let (length, is_growing) = {
            let state = self.read_state();
            (state.length, state.growing.is_some())
        };
        let Some(Opened { sums, .. }) = (!is_growing).then(|| self.opened().ok()).flatten() else {
            return false;
        };
        let mut at = Pages::of(bytes.start, bytes.end, length).from;
        while at < bytes.end {
            let Ok(some) = self.read_unchecked(at, SUMMED_AT_ONCE.min(length.saturating_sub(at)))
            else {
                return false;
            };
            if some.is_empty() {
                return false;
            }
            let end = at + some.len() as u64;
            let numbers = Pages::of(at, end, length).numbers();
            let known = sums.read(numbers.start..numbers.end.min(sums.len()));
            for (page, sum) in some.chunks(PAGE_BYTES).zip(known.unwrap_or_default()) {
                let end = at + page.len() as u64;
                let is_whole = page.len() == PAGE_BYTES || end == length;
                let is_asked = end <= bytes.end;
                if is_whole && is_asked && !sums::are_right(&[sum], page) {
                    return true;
                }
                at = end;
            }
            at = end;
        }
        false
    }

    /// Makes the checksums of a sealed segment anew if some are missing. Every section of it was just
    /// found to be whole.
    pub(crate) fn complete_sums(&self) -> io::Result<()> {
        let length = self.length();
        if self.read_state().growing.is_some()
            || self.opened()?.sums.len() == Pages::of(0, length, length).numbers().end
        {
            return Ok(());
        }
        self.renew_sums()
    }

    /// Makes the checksums of a sealed segment anew, right or not. Every section of it was just found to be
    /// whole.
    pub(crate) fn renew_sums(&self) -> io::Result<()> {
        let length = self.length();
        if self.read_state().growing.is_some() {
            return Ok(());
        }
        let mut sums = Vec::new();
        let mut at = 0;
        while at < length {
            let some = self.read_unchecked(at, SUMMED_AT_ONCE)?;
            if some.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sums::extend(&mut sums, at, &some);
            at += some.len() as u64;
        }
        let mut bytes = sums::MAGIC.to_vec();
        bytes.extend(sums::written(&sums));
        let path = self.files.sums_path(self.id);
        crate::durable::write_on(&*self.files.disk, &path, &bytes, Access::Shared)?;
        self.slot.close();
        Ok(())
    }

    fn opened(&self) -> io::Result<Opened> {
        self.files.opened(&self.slot, || {
            let length = self.length();
            let file = self
                .files
                .disk
                .open(&self.files.path(self.id), self.files.mode())?;
            let sums = Sums::open(&*self.files.disk, &self.files.sums_path(self.id), length);
            Ok(Opened { file, sums })
        })
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Growing {
    /// The checksums of some pages, if there are all of them.
    fn of(&self, pages: Pages) -> Option<Vec<u32>> {
        self.sums.get(pages.numbers()).map(Vec::from)
    }
}

/// The wanted part of whole pages, if they are all there and match their checksums.
fn checked(bytes: &Bytes, pages: Pages, sums: &[u32], wanted: Range<u64>) -> Option<Bytes> {
    let is_whole = bytes.len() as u64 == pages.to - pages.from;
    if !is_whole || !sums::are_right(sums, bytes) {
        return None;
    }
    let start = usize::try_from(wanted.start - pages.from).ok()?;
    let end = usize::try_from(wanted.end - pages.from).ok()?;
    Some(bytes.slice(start..end))
}

/// What came of letting a segment grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// It takes appends.
    Grows,
    /// Its checksums are incomplete, so it stays sealed.
    Sealed,
}

/// Bytes read at once to make checksums anew.
const SUMMED_AT_ONCE: u64 = 1 << 20;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::log::Stream;
    use crate::log::files;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    const PAGE: u64 = PAGE_BYTES as u64;
    const ID: SegmentId = SegmentId {
        stream: Stream::Leaf,
        number: 1,
    };

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    fn files(folder: &Path) -> Arc<Files> {
        Files::new(Arc::new(RealDisk), folder, files::Access::ReadWrite)
    }

    fn written(folder: &Path, length: usize) -> Segment {
        let segment = Segment::create(&files(folder), ID).unwrap();
        segment.append(&[&bytes(length)]).unwrap();
        segment.sync().unwrap();
        segment.write_sums().unwrap();
        segment
    }

    #[test]
    fn reads_back_any_range_while_growing_sealed_and_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(&files(folder.path()), ID).unwrap();
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
        segment.seal();
        segment.settle(whole.len() as u64);
        assert!(segment.read_state().growing.is_none());
        assert_eq!(segment.read(0, whole.len() as u64).unwrap(), whole);
        assert!(segment.append(&[b"no"]).is_err());
        let again = Segment::sealed(&files(folder.path()), ID, whole.len() as u64);
        assert_eq!(again.read(0, whole.len() as u64).unwrap(), whole);
        assert_eq!(again.grow().unwrap(), Growth::Grows);
        again.append(&[b"more"]).unwrap();
        assert_eq!(again.read(whole.len() as u64, 4).unwrap(), "more");
    }

    #[test]
    fn a_changed_byte_is_seen_in_its_page_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let segment = written(folder.path(), 4 * PAGE_BYTES);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).open(segment.files.path(ID)).unwrap();
        file.write_all_at(&[0xff], PAGE + 5).unwrap();
        assert!(segment.read(10, 20).is_ok());
        assert!(matches!(
            segment.read(PAGE + 100, 1),
            Err(ReadError::Unchecked)
        ));
        assert!(segment.read(2 * PAGE, PAGE).is_ok());
    }

    #[test]
    fn without_its_sidecar_nothing_counts_as_checked_until_it_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let segment = written(folder.path(), 100_000);
        let length = segment.length();
        std::fs::remove_file(segment.files.sums_path(ID)).unwrap();
        let again = Segment::sealed(&files(folder.path()), ID, length);
        assert_eq!(again.grow().unwrap(), Growth::Sealed);
        assert!(matches!(again.read(0, 10), Err(ReadError::Unchecked)));
        again.complete_sums().unwrap();
        assert!(again.read(0, length).is_ok());
    }

    #[test]
    fn what_lies_beyond_the_length_is_not_read_and_can_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let segment = written(folder.path(), 1000);
        let path = segment.files.path(ID);
        let cut = Segment::sealed(&files(folder.path()), ID, 500);
        assert_eq!(cut.read_unchecked(400, 600).unwrap().len(), 100);
        cut.cut().unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().len(), 500);
        let grown = cut.grow().unwrap();
        assert_eq!(grown, Growth::Sealed, "the checksum was of a longer page");
    }

    #[test]
    fn no_more_files_are_open_than_allowed() {
        const MOST: usize = 4;
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let open = Files::with_open_max(disk, folder.path(), files::Access::ReadWrite, MOST);
        let segments: Vec<Segment> = (1..=3 * MOST as u32)
            .map(|number| {
                let stream = Stream::Leaf;
                let made = Segment::create(&open, SegmentId { stream, number }).unwrap();
                made.write_sums().unwrap();
                Segment::sealed(&open, made.id, made.length())
            })
            .collect();
        for _ in 0..2 {
            for segment in &segments {
                assert!(segment.read(0, 5).is_ok());
                assert!(open.open_count() <= MOST);
            }
        }
        let open = segments.iter().filter(|segment| segment.slot.is_open());
        assert_eq!(open.count(), MOST);
    }
}
