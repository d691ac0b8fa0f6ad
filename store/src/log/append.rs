//! The two active segments, and when they are sealed.
//!
//! One [`Appender`] stands behind a lock in the store. It only appends: making things durable is
//! the commit's business, which asks [`Appender::touched`] for what there is to sync.

use super::segment::Segment;
use super::{Place, SegmentId, Stream};
use crate::block::Block;
use crate::car::write;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where new sections go.
#[derive(Debug)]
pub(crate) struct Appender {
    folder: PathBuf,
    /// Length at which a segment is sealed.
    segment_bytes: u64,
    /// The segment being written, by stream; none until the first block.
    active: BTreeMap<Stream, Arc<Segment>>,
    /// Highest number ever used, by stream.
    last: BTreeMap<Stream, u32>,
    /// Segments with bytes that no commit has taken yet.
    touched: BTreeMap<SegmentId, Arc<Segment>>,
    /// Whether a file was made that the folder may not hold durably yet.
    created: bool,
}

/// What a commit has to sync.
#[derive(Debug)]
pub(crate) struct Touched {
    /// The segments and how long they were when the commit took them.
    pub(crate) segments: Vec<(Arc<Segment>, u64)>,
    /// Whether the folder must be synced as well.
    pub(crate) folder: bool,
}

impl Appender {
    /// Goes on with `active` segments; numbers up to `last` are used up.
    pub(crate) fn new(
        folder: &Path,
        segment_bytes: u64,
        active: BTreeMap<Stream, Arc<Segment>>,
        last: BTreeMap<Stream, u32>,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            // Offsets have 32 bits; a segment may exceed its limit by one section.
            segment_bytes: segment_bytes.min(SEGMENT_BYTES_MAX),
            active,
            last,
            touched: BTreeMap::new(),
            created: false,
        }
    }

    /// Appends blocks of one stream, all into one segment, and tells where they lie and whether
    /// that segment is new. After an error none of them counts.
    pub(crate) fn append(
        &mut self,
        stream: Stream,
        blocks: &[&Block],
        cached: bool,
    ) -> io::Result<(Vec<Place>, Arc<Segment>)> {
        let segment = self.with_room(stream)?;
        let mut at = segment.length();
        let prefixes: Vec<Bytes> = blocks
            .iter()
            .map(|block| write::section_prefix(block))
            .collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * blocks.len());
        let mut places = Vec::with_capacity(blocks.len());
        for (block, prefix) in blocks.iter().zip(&prefixes) {
            let too_long = |_| io::Error::other("segment is full");
            places.push(Place {
                segment: segment.id,
                offset: u32::try_from(at).map_err(too_long)?,
                length: u32::try_from(block.data().len()).map_err(too_long)?,
                cached,
            });
            at += (prefix.len() + block.data().len()) as u64;
            parts.push(prefix);
            parts.push(block.data());
        }
        segment.append(&parts)?;
        self.touched.insert(segment.id, segment.clone());
        Ok((places, segment))
    }

    /// What was appended since the last call.
    pub(crate) fn touched(&mut self) -> Touched {
        let segments = std::mem::take(&mut self.touched)
            .into_values()
            .map(|segment| {
                let length = segment.length();
                (segment, length)
            })
            .collect();
        Touched {
            segments,
            folder: std::mem::take(&mut self.created),
        }
    }

    /// Seals a segment that could not be synced: what it holds beyond its last commit is lost.
    pub(crate) fn seal(&mut self, id: SegmentId) {
        self.rotate(id);
        self.touched.remove(&id);
    }

    /// Lets the next block of its stream go to a new segment.
    pub(crate) fn rotate(&mut self, id: SegmentId) {
        if self
            .active
            .get(&id.stream)
            .is_some_and(|active| active.id == id)
        {
            self.active.remove(&id.stream);
        }
    }

    fn with_room(&mut self, stream: Stream) -> io::Result<Arc<Segment>> {
        if let Some(active) = self.active.get(&stream)
            && active.length() < self.segment_bytes
        {
            return Ok(active.clone());
        }
        let number = self.last.get(&stream).copied().unwrap_or(0) + 1;
        // Used up even if making it fails half-way: the next try must not find its remains.
        self.last.insert(stream, number);
        let segment = Arc::new(Segment::create(&self.folder, SegmentId { stream, number })?);
        self.created = true;
        self.active.insert(stream, segment.clone());
        Ok(segment)
    }
}

/// Most bytes of blocks handed to [`Appender::append`] at once.
pub(crate) const APPEND_BYTES_MAX: usize = 64 << 20;
/// Longest segment that may still take a batch without its offsets leaving 32 bits.
const SEGMENT_BYTES_MAX: u64 = (u32::MAX as u64) - 2 * (APPEND_BYTES_MAX as u64);
