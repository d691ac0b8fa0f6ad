//! From a CID to checked bytes.

use super::reindex::Reindexed;
use super::{Inner, Keep, Standing};
use crate::block::Block;
use crate::cid::Cid;
use crate::disk::is_lost;
use crate::index::{IndexError, Key};
use crate::log::scan::{self, Scan, Step};
use crate::log::section::{self, Header, PREFIX_MAX};
use crate::log::segment::{ReadError, Segment};
use crate::log::sums::PAGE_BYTES;
use crate::log::{Place, Position, SegmentId, Stream};
use crate::reference::Reference;
use crate::source::SourceError;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError};

impl Inner {
    /// What the index says, if it counts, damaged or not.
    pub(crate) fn raw_place(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        let mut last = None;
        for _ in 0..LOOKUPS {
            let Some(place) = self.look_up(key)? else {
                return Ok(None);
            };
            let is_there = self.segment(place.segment).is_some();
            let is_dead = self.is_dead(&place);
            if is_there && !is_dead {
                return Ok(Some(place));
            }
            if last == Some(place.position()) {
                // Not moved meanwhile: dead for good, or the index and the log disagree.
                return match is_dead {
                    true => Ok(None),
                    false => Err(IndexError::missing(place.segment)),
                };
            }
            // A compaction may have moved it between the two looks.
            last = Some(place.position());
        }
        Err(IndexError::restless())
    }

    /// How the block lies here, whole or not.
    pub(crate) fn standing(&self, cid: &Cid, key: &Key) -> Result<Option<Standing>, SourceError> {
        let place = self.raw_place(key).map_err(|error| disk(cid, &error))?;
        let Some(place) = place else { return Ok(None) };
        let bytes = match place.damaged {
            true => place.length.into(),
            false => self.bytes_at(cid, &place)?,
        };
        Ok(Some(Standing {
            bytes,
            keep: if place.cached {
                Keep::Cached
            } else {
                Keep::Kept
            },
            is_damaged: place.damaged,
        }))
    }

    /// What the index says; without sled, should that fail.
    fn look_up(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        self.index.place(key).or_else(|error| {
            self.go_on_in_memory(&error)?;
            self.index.place(key)
        })
    }

    /// Where the block is, if it is here whole.
    pub(crate) fn place(&self, cid: &Cid, key: &Key) -> Result<Option<Place>, SourceError> {
        let place = self.raw_place(key).map_err(|error| disk(cid, &error))?;
        Ok(self.counting(place))
    }

    /// `place`, unless it is dead or known to be damaged.
    pub(crate) fn counting(&self, place: Option<Place>) -> Option<Place> {
        place.filter(|place| !place.damaged && !self.is_dead(place))
    }

    /// Notes that a section is damaged: the block is absent until it is put again.
    pub(crate) fn mark_damaged(&self, key: Key, position: Position) {
        let _nobody_appends = self.lock_appender();
        let place = self.index.place(&key).ok().flatten();
        let here = |place: &Place| place.position() == position && !place.damaged;
        let Some(place) = place.filter(here).filter(|place| !self.is_dead(place)) else {
            return;
        };
        self.metrics.damaged.inc();
        let damaged = Place {
            damaged: true,
            ..place
        };
        self.index.insert([(key, damaged)]);
        self.uncount(place.length.into());
    }

    /// Takes such a note back: the section hashes to its CID after all.
    pub(crate) fn mark_whole(&self, key: Key, position: Position) {
        let damaged = |place: &Place| place.damaged && place.position() == position;
        let known = || self.index.place(&key).ok().flatten();
        if !known().is_some_and(|place| damaged(&place)) {
            return;
        }
        let _nobody_appends = self.lock_appender();
        // Somebody may have put it again meanwhile.
        let Some(place) = known().filter(damaged).filter(|place| !self.is_dead(place)) else {
            return;
        };
        let whole = Place {
            damaged: false,
            ..place
        };
        self.index.insert([(key, whole)]);
        self.count(place.length.into());
    }

    /// Whether the block was read lately.
    pub(crate) fn was_read_lately(&self, key: &Key) -> bool {
        self.recency.has(key)
    }

    pub(crate) fn is_dead(&self, place: &Place) -> bool {
        self.dead.has(&place.position())
    }

    /// The block, whole.
    pub(crate) fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.block_by(cid, |found| {
            if found.place.is_reference() {
                // What the user has changed is gone, whatever is in memory.
                return found.block(cid);
            }
            if let Some(block) = self.hot.get(cid, &found.key, &found.place) {
                return Ok(block);
            }
            let block = found.block(cid)?;
            self.hot.keep(&block, &found.key, &found.place);
            Ok(block)
        })
    }

    /// The same, whether or not it is in memory.
    pub(crate) fn block_on_disk(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.block_by(cid, |found| found.block(cid))
    }

    fn block_by(
        &self,
        cid: &Cid,
        read: impl Fn(&Found) -> Result<Block, ReadError>,
    ) -> Result<Option<Block>, SourceError> {
        let block = self.reading(cid, |found| read(found).map(Some));
        block.inspect(|block| {
            if let Some(block) = block {
                self.metrics.read(block.data().len() as u64);
            }
        })
    }

    /// A part of the block, reading only the pages it lies in.
    pub(crate) fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        self.reading(cid, |found| {
            let hot = self.hot.get(cid, &found.key, &found.place);
            if let Some(block) = hot {
                return Ok(Some(crate::source::cut(block.data(), &range)));
            }
            if found.is_hashed() || found.place.is_reference() {
                let block = found.block(cid)?;
                return Ok(Some(crate::source::cut(block.data(), &range)));
            }
            found.range_by_sums(cid, &range).map(Some)
        })
        .inspect(|bytes| {
            if let Some(bytes) = bytes {
                self.metrics.read(bytes.len() as u64);
            }
        })
    }

    /// Finds the block and reads it with `read`; by its hash if the checksums say no, once more if
    /// it was moved meanwhile, and after looking through its segment if the index was wrong.
    fn reading<T>(
        &self,
        cid: &Cid,
        read: impl Fn(&Found) -> Result<Option<T>, ReadError>,
    ) -> Result<Option<T>, SourceError> {
        let key = self.index.key(cid.hash());
        let mut by_hash = false;
        for _ in 0..LOOKUPS {
            let place = self.raw_place(&key).map_err(|error| disk(cid, &error))?;
            let Some(place) = place else { return Ok(None) };
            if place.damaged {
                return Err(SourceError::Damaged { cid: *cid });
            }
            let Some(segment) = self.segment(place.segment) else {
                continue;
            };
            let found = Found {
                key,
                segment,
                place,
                by_hash,
            };
            let error = match read(&found) {
                Ok(done) => {
                    if place.cached {
                        self.recency.mark(&key);
                    }
                    return Ok(done);
                }
                Err(ReadError::Unchecked) if !by_hash => {
                    by_hash = true;
                    continue;
                }
                Err(error) => error,
            };
            let moved = self
                .index
                .place(&key)
                .is_ok_and(|now| now.is_none_or(|now| now.position() != place.position()));
            if moved {
                continue;
            }
            match error {
                ReadError::Disk(error) if is_lost(&error) => {
                    // As good as damaged: somebody may have it whole.
                    self.mark_damaged(key, place.position());
                    tracing::error!(%cid, segment = %place.segment, offset = place.offset, %error, "unreadable block");
                    return Err(SourceError::Damaged { cid: *cid });
                }
                ReadError::Disk(error) => return Err(disk(cid, &error)),
                // Not marked: the file may come back.
                ReadError::Lost(lost) => return Err(SourceError::Elsewhere { cid: *cid, lost }),
                ReadError::Unchecked => {
                    // If the section's header is what it should be, the index is right.
                    let is_named = self
                        .section_at(&place.position())
                        .is_some_and(|(there, at)| {
                            there == key && at.header.length == place.length
                        });
                    if !is_named {
                        let looked = self.reindex(&found.segment);
                        let looked = looked.map_err(|error| disk(cid, &error))?;
                        if looked == Reindexed::NotNow {
                            // Not marked: it may lie elsewhere.
                            return Err(SourceError::Damaged { cid: *cid });
                        }
                    }
                    let now = self.raw_place(&key).map_err(|error| disk(cid, &error))?;
                    if now.is_some_and(|now| now.position() == place.position()) {
                        self.mark_damaged(key, place.position());
                        tracing::error!(%cid, segment = %place.segment, offset = place.offset, "damaged block");
                        return Err(SourceError::Damaged { cid: *cid });
                    }
                }
            }
        }
        Err(disk(cid, &"it was being moved all the time; try again"))
    }

    /// Where the block lies, if that is in a file of the user's.
    pub(crate) fn reference_by(&self, cid: &Cid) -> Result<Option<Reference>, SourceError> {
        let reference = self.reading(cid, |found| match found.place.is_reference() {
            true => found.reference(cid).map(|reference| Some(Some(reference))),
            false => Ok(Some(None)),
        });
        Ok(reference?.flatten())
    }

    /// How many bytes the block at a place has.
    pub(crate) fn bytes_at(&self, cid: &Cid, place: &Place) -> Result<u64, SourceError> {
        if place.is_reference()
            && let Some(reference) = self.reference_by(cid)?
        {
            return Ok(reference.length.into());
        }
        Ok(place.length.into())
    }

    /// How many bytes the block has, if it is here.
    pub(crate) fn size(&self, cid: &Cid, key: &Key) -> Result<Option<u64>, SourceError> {
        let place = self.place(cid, key)?;
        place.map(|place| self.bytes_at(cid, &place)).transpose()
    }

    /// What lies at a position, by its header.
    pub(super) fn section_at(&self, position: &Position) -> Option<(Key, scan::Found)> {
        let segment = self.segment(position.segment)?;
        let head = segment.read_unchecked(position.offset.into(), PREFIX_MAX as u64);
        let header = section::header(&head.ok()?)?;
        let found = scan::Found {
            offset: position.offset,
            header,
        };
        Some((self.index.key(header.cid.hash()), found))
    }

    /// Whether the section at a place hashes to the block that the key is of.
    pub(crate) fn hashes(&self, key: &Key, place: &Place) -> bool {
        let section = self.section_at(&place.position());
        let (Some(segment), Some((there, at))) = (self.segment(place.segment), section) else {
            return false;
        };
        let found = Found {
            key: *key,
            segment,
            place: *place,
            by_hash: true,
        };
        there == *key
            && match place.is_reference() {
                true => found.reference(&at.header.cid).is_ok(),
                false => found.block_by_hash(&at.header.cid).is_ok(),
            }
    }

    /// Calls `each` with every block that is here, segment by segment; with one that is moved meanwhile
    /// perhaps twice.
    pub(crate) fn each_block(
        &self,
        mut each: impl FnMut(&scan::Found) -> Result<ControlFlow<()>, SourceError>,
    ) -> Result<(), SourceError> {
        let mut visited = BTreeSet::new();
        // What is moved meanwhile goes from the cache to the others, or to a higher number: so it is met
        // where it was or where it is.
        let cache_first = |id: SegmentId| (id.stream != Stream::Cache, id);
        let next = |visited: &BTreeSet<SegmentId>| {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            let new = segments.values().filter(|one| !visited.contains(&one.id));
            new.min_by_key(|segment| cache_first(segment.id)).cloned()
        };
        while let Some(segment) = next(&visited) {
            visited.insert(segment.id);
            let mut scan = Scan::new(&segment, 0);
            while let Some(step) = scan.next().map_err(|error| disk(&nothing(), &error))? {
                let Step::Found(found) = step else { continue };
                let key = self.index.key(found.header.cid.hash());
                let place = self.place(&found.header.cid, &key)?;
                let here = place.is_some_and(|place| {
                    place.segment == segment.id && place.offset == found.offset
                });
                if here && each(&found)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }
}

/// A block's place, and how it is to be read.
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) segment: Arc<Segment>,
    pub(super) place: Place,
    /// Whether its checksums have said no.
    pub(super) by_hash: bool,
}

impl Found {
    /// Whether the hash is what it is checked by: hashing so little costs less than reading whole pages for their
    /// checksums.
    pub(super) fn is_hashed(&self) -> bool {
        self.by_hash || self.place.length <= HASHED_UP_TO
    }

    fn block(&self, cid: &Cid) -> Result<Block, ReadError> {
        if self.place.is_reference() {
            let lost = |lost| ReadError::Lost(Arc::new(lost));
            return self.reference(cid)?.read(cid).map_err(lost);
        }
        match self.is_hashed() {
            true => self.block_by_hash(cid),
            false => self.block_by_sums(cid),
        }
    }

    /// Where the block lies, from the section in its place.
    pub(super) fn reference(&self, cid: &Cid) -> Result<Reference, ReadError> {
        let (offset, length) = self.section();
        // It has a checksum of its own.
        let section = self.segment.read_unchecked(offset, length)?;
        let header = header_of(&section, cid, &self.place);
        let data = header.and_then(|header| section.get(data_range(&header)));
        data.and_then(|data| Reference::decode(cid, data))
            .ok_or(ReadError::Unchecked)
    }

    /// The block by its pages' checksums.
    fn block_by_sums(&self, cid: &Cid) -> Result<Block, ReadError> {
        let (offset, length) = self.section();
        let block = self.block_in(cid, self.segment.read(offset, length)?);
        block.ok_or(ReadError::Unchecked)
    }

    /// The same, if that does not wait for the disk.
    pub(super) fn block_by_sums_at_once(&self, cid: &Cid) -> Option<Block> {
        let (offset, length) = self.section();
        self.block_in(cid, self.segment.read_at_once(offset, length)?)
    }

    /// Where its section lies, and at most how many bytes it has.
    fn section(&self) -> (u64, u64) {
        let offset = u64::from(self.place.offset);
        let length = PREFIX_MAX as u64 + u64::from(self.place.length);
        let left = self.segment.length().saturating_sub(offset);
        (offset, length.min(left))
    }

    /// The block, if this is its section.
    fn block_in(&self, cid: &Cid, section: Bytes) -> Option<Block> {
        let header = header_of(&section, cid, &self.place)?;
        Some(Block::trusted(*cid, part_of(&section, data_range(&header))))
    }

    /// A part of the block by its pages' checksums.
    fn range_by_sums(&self, cid: &Cid, range: &Range<u64>) -> Result<Bytes, ReadError> {
        let head = self
            .segment
            .read_unchecked(self.place.offset.into(), PREFIX_MAX as u64)?;
        let (at, length) = self.part(cid, &head, range).ok_or(ReadError::Unchecked)?;
        match length {
            0 => Ok(Bytes::new()),
            length => self
                .segment
                .read(at, length)
                .map(|bytes| part_of(&bytes, 0..bytes.len())),
        }
    }

    /// The same, if that does not wait for the disk.
    pub(super) fn range_by_sums_at_once(&self, cid: &Cid, range: &Range<u64>) -> Option<Bytes> {
        let head = self
            .segment
            .read_cached(self.place.offset.into(), PREFIX_MAX as u64)?;
        match self.part(cid, &head, range)? {
            (_, 0) => Some(Bytes::new()),
            (at, length) => self.segment.read_at_once(at, length),
        }
    }

    /// Where a part of the block lies, and how long it is. The header needs no checksum of its own: that it holds this
    /// multihash says where the block begins.
    fn part(&self, cid: &Cid, head: &[u8], range: &Range<u64>) -> Option<(u64, u64)> {
        let header = header_of(head, cid, &self.place)?;
        // Foreign: it may begin anywhere.
        let length = u64::from(self.place.length);
        let (start, end) = (range.start.min(length), range.end.min(length));
        let at = u64::from(self.place.offset) + u64::from(header.prefix) + start;
        Some((at, end.saturating_sub(start)))
    }

    /// The block by its multihash alone.
    fn block_by_hash(&self, cid: &Cid) -> Result<Block, ReadError> {
        let mut failed = None;
        let block = self.block_of(cid, |segment, offset, length| {
            let read = segment.read_unchecked(offset, length);
            read.map_err(|error| failed = Some(error)).ok()
        });
        match failed {
            Some(error) => Err(ReadError::Disk(error)),
            None => block.ok_or(ReadError::Unchecked),
        }
    }

    /// The block, if it is what `read` reads of the segment from an offset on, so many bytes.
    pub(super) fn block_of(
        &self,
        cid: &Cid,
        read: impl FnOnce(&Segment, u64, u64) -> Option<Bytes>,
    ) -> Option<Block> {
        let Self { segment, place, .. } = self;
        let length = PREFIX_MAX as u64 + u64::from(place.length);
        let bytes = read(segment, place.offset.into(), length)?;
        let header = header_of(&bytes, cid, place)?;
        let data = bytes
            .get(data_range(&header))
            .map(|data| bytes.slice_ref(data))?;
        Block::verify(*cid, data).ok()
    }
}

/// The header at the start of `bytes`, if it is the one that the index meant.
fn header_of(bytes: &[u8], cid: &Cid, place: &Place) -> Option<Header> {
    let header = section::header(bytes)?;
    (header.cid.hash() == cid.hash() && header.length == place.length).then_some(header)
}

/// A part of what was read. Small parts are copied: a view would keep the whole pages alive.
fn part_of(bytes: &Bytes, range: Range<usize>) -> Bytes {
    let part = bytes.slice(range);
    if part.len() < PAGE_BYTES {
        Bytes::copy_from_slice(&part)
    } else {
        part
    }
}

fn data_range(header: &Header) -> Range<usize> {
    // Both are below the largest section, which fits any usize.
    let start = usize::try_from(header.prefix).unwrap_or(usize::MAX);
    start..start.saturating_add(usize::try_from(header.length).unwrap_or(0))
}

pub(crate) fn disk(cid: &Cid, error: &dyn std::fmt::Display) -> SourceError {
    SourceError::Disk {
        cid: *cid,
        why: error.to_string().into(),
    }
}

/// Where no block can be named: the empty identity CID.
pub(crate) fn nothing() -> Cid {
    Cid::new_v1(crate::cid::RAW, crate::cid::Multihash::default())
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// How often a lookup is repeated while blocks are being moved.
const LOOKUPS: usize = 8;
/// Blocks up to this size are checked by their hash when they are read.
pub(super) const HASHED_UP_TO: u32 = 4096;
