//! From a CID to checked bytes.

use super::Inner;
use crate::block::Block;
use crate::cid::Cid;
use crate::index::Key;
use crate::log::scan::{Damage, Found, Scan, Step, read_unchecked};
use crate::log::section::{self, Header, PREFIX_MAX};
use crate::log::segment::{PAGE_BYTES, ReadError, Segment};
use crate::log::{Place, Position, SegmentId};
use crate::source::SourceError;
use bytes::Bytes;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// What a walk over the log meets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Walked {
    /// A section that counts.
    Section(Found),
    /// Bytes that hold no readable section.
    Gap(Damage),
}

impl Inner {
    /// Where the block is, if it counts.
    pub(crate) fn place(&self, cid: &Cid, key: &Key) -> Result<Option<Place>, SourceError> {
        let mut last = None;
        for _ in 0..LOOKUPS {
            let place = self.index.place(key).map_err(|error| disk(cid, &error))?;
            let Some(found) = place else { return Ok(None) };
            if self.segment(found.segment).is_some() {
                return Ok(self.counting(key, place));
            }
            if last == Some(found.position()) {
                break;
            }
            // Either a compaction moved it between the two looks, or what sled says is stale.
            last = Some(found.position());
        }
        // A segment goes only after its living blocks were moved: what still points into it was
        // dead. A segment that got lost is noticed when the store opens, and the index rebuilt.
        Ok(None)
    }

    /// `place`, unless it is dead or known to be damaged.
    pub(crate) fn counting(&self, key: &Key, place: Option<Place>) -> Option<Place> {
        let place = place.filter(|place| !self.is_dead(place))?;
        let damaged = self.damaged.read().unwrap_or_else(PoisonError::into_inner);
        (damaged.is_empty() || !damaged.contains_key(key)).then_some(place)
    }

    /// Takes a damaged section out of the index: the block is absent until it is put again.
    pub(crate) fn mark_damaged(&self, key: Key, position: Position) {
        let _nobody_appends = self.lock_appender();
        let place = self.index.place(&key).ok().flatten();
        let Some(place) = place.filter(|place| place.position() == position) else {
            return;
        };
        self.metrics.damaged.inc();
        self.index.remove([key]);
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(place.length.into(), Ordering::Relaxed);
        self.damaged
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, place);
    }

    pub(crate) fn is_dead(&self, place: &Place) -> bool {
        self.is_dead_at(&place.position())
    }

    fn is_dead_at(&self, position: &Position) -> bool {
        let dead = self.dead.read().unwrap_or_else(PoisonError::into_inner);
        !dead.is_empty() && dead.contains(position)
    }

    /// The block, whole.
    pub(crate) fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        let Some((segment, place)) = self.find(cid)? else {
            return Ok(None);
        };
        let length = PREFIX_MAX as u64 + u64::from(place.length);
        let offset = u64::from(place.offset);
        let checked = segment.read(offset, length.min(segment.length().saturating_sub(offset)));
        match checked {
            Ok(bytes) => {
                let Some(header) = header_of(&bytes, cid, &place) else {
                    return self.block_by_hash(cid, &segment, &place).map(Some);
                };
                self.metrics.read(header.length.into());
                Ok(Some(Block::trusted(
                    *cid,
                    part_of(&bytes, data_range(&header)),
                )))
            }
            Err(ReadError::Unchecked) => self.block_by_hash(cid, &segment, &place).map(Some),
            Err(ReadError::Disk(error)) => Err(disk(cid, &error)),
        }
    }

    /// A part of the block, reading only the pages it lies in.
    pub(crate) fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        let whole = |block: Block| crate::source::cut(block.data(), &range);
        let Some((segment, place)) = self.find(cid)? else {
            return Ok(None);
        };
        let (start, end) = (range.start, range.end.min(place.length.into()));
        if start >= end {
            return Ok(Some(Bytes::new()));
        }
        let offset = u64::from(place.offset);
        let head = (PREFIX_MAX as u64).min(segment.length().saturating_sub(offset));
        let read = segment.read(offset, head).and_then(|bytes| {
            let header = header_of(&bytes, cid, &place).ok_or(ReadError::Unchecked)?;
            let bytes = segment.read(offset + u64::from(header.prefix) + start, end - start)?;
            Ok(part_of(&bytes, 0..bytes.len()))
        });
        match read {
            Ok(bytes) => {
                self.metrics.read(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(ReadError::Unchecked) => self
                .block_by_hash(cid, &segment, &place)
                .map(|block| Some(whole(block))),
            Err(ReadError::Disk(error)) => Err(disk(cid, &error)),
        }
    }

    /// Calls `each` with every section that is not dead and that no other place stands for, damaged
    /// ones included, segment by segment, and with what could not be read as sections.
    pub(crate) fn each_section(
        &self,
        mut each: impl FnMut(&Segment, Walked) -> Result<ControlFlow<()>, SourceError>,
    ) -> Result<(), SourceError> {
        let segments: Vec<Arc<Segment>> = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            segments.values().cloned().collect()
        };
        for segment in segments {
            let mut scan = Scan::new(&segment, 0);
            while let Some(step) = scan.next().map_err(|error| disk(&nothing(), &error))? {
                let walked = match step {
                    Step::Found(found) => {
                        let cid = found.header.cid;
                        let key = self.index.key(cid.hash());
                        let place = self.index.place(&key).map_err(|error| disk(&cid, &error))?;
                        let here = Position {
                            segment: segment.id,
                            offset: found.offset,
                        };
                        let named = place.is_none_or(|place| place.position() == here);
                        if !named || self.is_dead_at(&here) {
                            continue;
                        }
                        Walked::Section(found)
                    }
                    Step::Retracted(_) => continue,
                    Step::Damage(damage) => Walked::Gap(damage),
                };
                if each(&segment, walked)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn find(&self, cid: &Cid) -> Result<Option<(Arc<Segment>, Place)>, SourceError> {
        let key = self.index.key(cid.hash());
        // Again, because a compaction may move the block between the two steps.
        for _ in 0..LOOKUPS {
            let Some(place) = self.place(cid, &key)? else {
                return Ok(None);
            };
            if let Some(segment) = self.segment(place.segment) {
                return Ok(Some((segment, place)));
            }
        }
        Err(disk(cid, &"it was being moved all the time; try again"))
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// The block by its multihash alone, where checksums cannot help.
    fn block_by_hash(
        &self,
        cid: &Cid,
        segment: &Segment,
        place: &Place,
    ) -> Result<Block, SourceError> {
        let head = segment
            .read_unchecked(place.offset.into(), PREFIX_MAX as u64)
            .map_err(|error| disk(cid, &error))?;
        let block = match header_of(&head, cid, place) {
            None => None,
            Some(header) => read_unchecked(
                segment,
                &Found {
                    offset: place.offset,
                    header,
                },
            )
            .map_err(|error| disk(cid, &error))?,
        };
        if let Some(block) = block.and_then(|block| block.renamed(*cid)) {
            self.metrics.read(place.length.into());
            return Ok(block);
        }
        self.mark_damaged(self.index.key(cid.hash()), place.position());
        tracing::error!(%cid, segment = %place.segment, offset = place.offset, "damaged block");
        Err(disk(
            cid,
            &"its bytes on disk are damaged; fetch or add it again",
        ))
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
    if part.len() * COPIED_BELOW < PAGE_BYTES {
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
const LOOKUPS: usize = 4;
/// A part smaller than a page by this factor is copied out of it.
const COPIED_BELOW: usize = 4;
