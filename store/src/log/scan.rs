//! Walking over a segment's sections without the index, and over damage.
//!
//! A section whose header cannot be read may be damaged itself, or the one before it had its length
//! changed. So at the first unreadable header the scan goes back one section, asks the multihash
//! which of the two lies, and searches byte by byte for the next section that hashes to its CID.

use super::section::{self, Header, PREFIX_MAX};
use super::segment::Segment;
use bytes::Bytes;
use std::io;

/// A section found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) offset: u32,
    pub(crate) header: Header,
}

/// Bytes that hold no readable section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// One step of a scan.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A section.
    Found(Found),
    /// A section told before is damaged after all: forget it.
    Retracted(Found),
    /// A gap.
    Damage(Damage),
}

/// A walk over one segment.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    at: u64,
    end: u64,
    /// Where the file ends, if that turns out to be before `end`.
    there: u64,
    /// The last section told, in case the next header shows that it lied about its length.
    last: Option<Found>,
    /// Where a section was taken back: its header looks right, so it must not be met again.
    retracted: Option<u64>,
    /// Bytes read ahead, and where they begin.
    window: Bytes,
    window_at: u64,
    /// How much is read ahead.
    ahead: u64,
    /// Sectors that the disk could not read back; they are taken for damage.
    lost: u64,
}

impl<'a> Scan<'a> {
    /// Starts at `from`, or behind the file's header if that is later. For the headers alone.
    pub(crate) fn new(segment: &'a Segment, from: u64) -> Self {
        Self::with_ahead(segment, from, HEADERS_AHEAD)
    }

    /// Like [`Scan::new`], for reading the blocks' bytes as well.
    pub(crate) fn with_data(segment: &'a Segment, from: u64) -> Self {
        Self::with_ahead(segment, from, DATA_AHEAD)
    }

    fn with_ahead(segment: &'a Segment, from: u64, ahead: u64) -> Self {
        let header = section::file_header().len() as u64;
        Self {
            segment,
            at: from.max(header),
            end: segment.length(),
            there: u64::MAX,
            last: None,
            retracted: None,
            window: Bytes::new(),
            window_at: 0,
            ahead,
            lost: 0,
        }
    }

    /// Ends at `end`, where a section ends, if that comes before the segment's end.
    pub(crate) fn until(self, end: u64) -> Self {
        Self {
            end: end.min(self.end),
            ..self
        }
    }

    /// Where the next section is expected.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Where a later scan may go on that began at `from`: at the last section told, in case it lies
    /// about its length, unless that is all there was.
    pub(crate) fn resumes_at(&self, from: u64) -> u64 {
        let last = self.last.map(|last| u64::from(last.offset));
        last.filter(|last| *last > from).unwrap_or(self.at)
    }

    /// The rest could not be read at all.
    pub(crate) fn give_up(&mut self) {
        self.lost += 1;
        self.at = self.end;
    }

    /// Whether the disk could not read back some of it: then another time there may be more to find.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// Whether so much is lost that the rest was given up.
    pub(crate) fn has_lost_too_much(&self) -> bool {
        self.lost > LOST_MAX
    }

    /// What is walked over.
    pub(crate) fn segment(&self) -> &'a Segment {
        self.segment
    }

    /// The next step, `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step>> {
        if let Some(from) = self.retracted.take() {
            self.at = self.search(from + 1)?;
            return Ok(Some(Step::Damage(Damage { from, to: self.at })));
        }
        if self.at >= self.end {
            return Ok(None);
        }
        if let Some(found) = self.found_at(self.at)? {
            self.at += u64::from(found.header.section());
            self.last = Some(found);
            return Ok(Some(Step::Found(found)));
        }
        if let Some(last) = self.last.take()
            && !self.verifies(&last)?
        {
            self.retracted = Some(last.offset.into());
            return Ok(Some(Step::Retracted(last)));
        }
        let from = self.at;
        self.at = self.search(from + 1)?;
        Ok(Some(Step::Damage(Damage { from, to: self.at })))
    }

    /// A section that at least fits into the file.
    fn found_at(&mut self, at: u64) -> io::Result<Option<Found>> {
        let bytes = self.peek(at)?;
        let Some(header) = section::header(&bytes) else {
            return Ok(None);
        };
        let Ok(offset) = u32::try_from(at) else {
            return Ok(None);
        };
        let fits = at + u64::from(header.section()) <= self.end;
        Ok(fits.then_some(Found { offset, header }))
    }

    /// The bytes of a section's block, unchecked; from the window if it lies in there whole.
    pub(crate) fn data(&self, found: &Found) -> io::Result<Bytes> {
        let at = u64::from(found.offset) + u64::from(found.header.prefix);
        let length = u64::from(found.header.length);
        let skip = at.checked_sub(self.window_at);
        let skip = skip.and_then(|skip| usize::try_from(skip).ok());
        let range = skip.zip(usize::try_from(length).ok());
        let inside = range.filter(|(skip, length)| skip + length <= self.window.len());
        match inside {
            Some((skip, length)) => Ok(self.window.slice(skip..skip + length)),
            None => Ok(self.segment.read_around(at, length)?.0),
        }
    }

    fn verifies(&self, found: &Found) -> io::Result<bool> {
        let (stream, cid) = (self.segment.id.stream, found.header.cid);
        Ok(section::is_whole(stream, cid, self.data(found)?))
    }

    /// The next place at or after `from` where a section hashes to its CID, or the end.
    fn search(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        while at < self.end.min(self.there) {
            if let Some(found) = self.found_at(at)?
                && self.verifies(&found)?
            {
                return Ok(at);
            }
            at += 1;
        }
        Ok(self.end)
    }

    fn peek(&mut self, at: u64) -> io::Result<Bytes> {
        let want = (PREFIX_MAX as u64).min(self.end - at);
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + want > window_end {
            let (window, lost) = self
                .segment
                .read_around(at, self.ahead.min(self.end - at))?;
            self.lost += lost;
            if window.is_empty() {
                // The file is shorter than it was: nothing more is to be read of it.
                self.there = at;
            }
            if self.lost > LOST_MAX {
                return Err(io::Error::other(
                    "the disk cannot read back too much of it; look after the disk",
                ));
            }
            self.window = window;
            self.window_at = at;
        }
        let skip = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let to = self.window.len().min(skip.saturating_add(PREFIX_MAX));
        Ok(self.window.slice(skip.min(to)..to))
    }
}

/// Sectors that may be lost before a disk is taken for a failing one, and nothing for damage.
const LOST_MAX: u64 = 1024;
/// How much is read ahead for headers: enough for many small sections, little for one large one.
const HEADERS_AHEAD: u64 = 16 << 10;
/// How much is read ahead for whole blocks.
const DATA_AHEAD: u64 = 1 << 20;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use crate::block::{Block, Prefix};
    use crate::cid::{self, HashKind, Version};
    use crate::disk::RealDisk;
    use crate::log::append::Appender;
    use crate::log::files::{Access, Files};
    use crate::log::{SegmentId, Stream};
    use std::collections::BTreeMap;
    use std::os::unix::fs::FileExt;

    fn blocks(lengths: &[usize]) -> Vec<Block> {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        let make = |(at, length): (usize, &usize)| {
            Block::new(prefix, Bytes::from(vec![at as u8 + 1; *length])).unwrap()
        };
        lengths.iter().enumerate().map(make).collect()
    }

    struct Written {
        folder: tempfile::TempDir,
        segment: std::sync::Arc<Segment>,
        offsets: Vec<u32>,
        blocks: Vec<Block>,
    }

    fn written(lengths: &[usize]) -> Written {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(
            std::sync::Arc::new(RealDisk),
            folder.path(),
            Access::ReadWrite,
        );
        let mut appender = Appender::new(files, |_| 1 << 30, BTreeMap::new(), BTreeMap::new());
        let blocks = blocks(lengths);
        let views: Vec<&Block> = blocks.iter().collect();
        let (places, segment) = appender.append(Stream::Leaf, &views).unwrap();
        let offsets = places.iter().map(|place| place.offset).collect();
        Written {
            folder,
            segment,
            offsets,
            blocks,
        }
    }

    impl Written {
        fn damage(&self, at: u64, bytes: &[u8]) {
            let id = SegmentId {
                stream: Stream::Leaf,
                number: 1,
            };
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(self.folder.path().join(format!("{id}.car")))
                .unwrap();
            file.write_all_at(bytes, at).unwrap();
        }

        /// The CIDs that a scan leaves standing, and the gaps.
        fn scan(&self) -> (Vec<cid::Cid>, Vec<Damage>) {
            let mut standing = Vec::new();
            let mut gaps = Vec::new();
            let mut scan = Scan::new(&self.segment, 0);
            while let Some(step) = scan.next().unwrap() {
                match step {
                    Step::Found(found) => standing.push(found.header.cid),
                    Step::Retracted(_) => drop(standing.pop()),
                    Step::Damage(damage) => gaps.push(damage),
                }
            }
            (standing, gaps)
        }

        fn cids_without(&self, lost: &[usize]) -> Vec<cid::Cid> {
            let kept = self
                .blocks
                .iter()
                .enumerate()
                .filter(|(at, _)| !lost.contains(at));
            kept.map(|(_, block)| *block.cid()).collect()
        }
    }

    const LENGTHS: [usize; 6] = [0, 10, 40_000, 1, 300, 70_000];

    #[test]
    fn what_a_file_has_lost_of_its_end_is_one_gap() {
        let written = written(&[30_000, 30_000, 30_000]);
        let length = written.segment.length();
        let mut scan = Scan::new(&written.segment, 0);
        assert!(matches!(scan.next(), Ok(Some(Step::Found(_)))));
        let path = written.folder.path().join("leaf-000001.car");
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(50_000).unwrap();
        let mut gaps = Vec::new();
        let mut steps = 0;
        while let Some(step) = scan.next().unwrap() {
            steps += 1;
            if let Step::Damage(gap) = step {
                gaps.push((gap.from, gap.to));
            }
        }
        assert!(steps <= 4, "{steps}");
        assert_eq!(gaps.last().map(|(_, to)| *to), Some(length), "{gaps:?}");
        let second = u64::from(written.offsets[1]);
        assert!(gaps.iter().any(|(from, _)| *from == second), "{gaps:?}");
    }

    #[test]
    fn finds_every_section_in_order() {
        let written = written(&LENGTHS);
        assert_eq!(written.scan(), (written.cids_without(&[]), Vec::new()));
    }

    #[test]
    fn a_broken_cid_costs_its_own_block() {
        let written = written(&LENGTHS);
        written.damage(u64::from(written.offsets[2]) + 3, &[0xff, 0xff]);
        let (standing, gaps) = written.scan();
        assert_eq!(standing, written.cids_without(&[2]));
        assert_eq!(
            gaps,
            [Damage {
                from: u64::from(written.offsets[2]),
                to: u64::from(written.offsets[3])
            }]
        );
    }

    #[test]
    fn a_wrong_length_costs_its_own_block() {
        let written = written(&LENGTHS);
        // The section of 300 bytes now claims to be a little shorter.
        written.damage(u64::from(written.offsets[4]), &[0xc0]);
        let (standing, _) = written.scan();
        assert_eq!(standing, written.cids_without(&[4]));
    }

    #[test]
    fn damage_up_to_the_end_is_one_gap() {
        let written = written(&LENGTHS);
        let from = u64::from(written.offsets[5]);
        written.damage(from, &[0; 50]);
        let (standing, gaps) = written.scan();
        assert_eq!(standing, written.cids_without(&[5]));
        assert_eq!(
            gaps,
            [Damage {
                from,
                to: written.segment.length()
            }]
        );
    }
}
