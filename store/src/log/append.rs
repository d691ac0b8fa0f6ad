//! The active segments, one a stream, and when they are sealed.
//!
//! One [`Appender`] stands behind a lock in the store. It only appends: making things durable is
//! the commit's business, which asks [`Appender::touched`] for what there is to sync.

use super::files::Files;
use super::segment::Segment;
use super::{Place, SegmentId, Stream};
use crate::block::Block;
use crate::car::write;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Where new sections go.
#[derive(Debug)]
pub(crate) struct Appender {
    files: Arc<Files>,
    /// Length at which a segment is sealed, by stream.
    sizes: BTreeMap<Stream, u64>,
    /// The segment being written, by stream; none until the first block.
    active: BTreeMap<Stream, Arc<Segment>>,
    /// Where compaction copies to: segments that grow beside the active ones.
    targets: BTreeMap<SegmentId, Arc<Segment>>,
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
        files: Arc<Files>,
        size_of: impl Fn(Stream) -> u64,
        active: BTreeMap<Stream, Arc<Segment>>,
        last: BTreeMap<Stream, u32>,
    ) -> Self {
        // Offsets have 32 bits; a segment may exceed its limit by one batch.
        let size = |stream| (stream, size_of(stream).min(SEGMENT_BYTES_MAX));
        Self {
            files,
            sizes: Stream::ALL.into_iter().map(size).collect(),
            active,
            targets: BTreeMap::new(),
            last,
            touched: BTreeMap::new(),
            created: false,
        }
    }

    /// Appends blocks to one stream, all into one segment, and tells where they lie and which segment
    /// it was. After an error none of them counts.
    pub(crate) fn append(
        &mut self,
        stream: Stream,
        blocks: &[&Block],
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
                cached: stream == Stream::Cache,
                damaged: false,
            });
            at += (prefix.len() + block.data().len()) as u64;
            parts.push(prefix);
            parts.push(block.data());
        }
        // Before it may fail: a commit must say how far the segment counts, or what a failed append has
        // left behind its end would be adopted one day.
        self.touched.insert(segment.id, segment.clone());
        segment.append(&parts)?;
        Ok((places, segment))
    }

    /// Whether anything was appended that no commit has taken yet.
    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
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

    /// The folder could not be synced: the next commit must try again.
    pub(crate) fn folder_is_unsynced(&mut self) {
        self.created = true;
    }

    /// Seals a segment that could not be synced: what it holds beyond its last commit is lost.
    pub(crate) fn give_up(&mut self, id: SegmentId) {
        self.rotate(id);
        self.touched.remove(&id);
    }

    /// Lets the next block of its stream go to a new segment.
    pub(crate) fn rotate(&mut self, id: SegmentId) {
        let active = self.active.get(&id.stream);
        if active.is_some_and(|active| active.id == id)
            && let Some(sealed) = self.active.remove(&id.stream)
        {
            sealed.seal();
        }
    }

    /// A new segment that only compaction writes to. It is empty and not yet durable.
    pub(crate) fn target(&mut self, stream: Stream) -> io::Result<Arc<Segment>> {
        let segment = self.create(stream)?;
        self.targets.insert(segment.id, segment.clone());
        Ok(segment)
    }

    /// A target grows no more.
    pub(crate) fn finish_target(&mut self, id: SegmentId) {
        if let Some(target) = self.targets.remove(&id) {
            target.seal();
        }
    }

    /// Length at which segments of a stream are sealed.
    pub(crate) fn size(&self, stream: Stream) -> u64 {
        self.sizes
            .get(&stream)
            .copied()
            .unwrap_or(SEGMENT_BYTES_MAX)
    }

    /// The segments that grow, and how far the index knows them: what compaction copied is pointed
    /// at later.
    pub(crate) fn growing(&self) -> impl Iterator<Item = (SegmentId, u64)> {
        let active = self.active.values();
        let active = active.map(|segment| (segment.id, segment.length()));
        active.chain(self.targets.keys().map(|id| (*id, 0)))
    }

    fn with_room(&mut self, stream: Stream) -> io::Result<Arc<Segment>> {
        if let Some(active) = self.active.get(&stream) {
            if active.length() < self.size(stream) {
                return Ok(active.clone());
            }
            let id = active.id;
            self.rotate(id);
        }
        let segment = self.create(stream)?;
        self.active.insert(stream, segment.clone());
        Ok(segment)
    }

    fn create(&mut self, stream: Stream) -> io::Result<Arc<Segment>> {
        let number = self.last.get(&stream).copied().unwrap_or(0) + 1;
        // Used up even if making it fails half-way: the next try must not find its remains.
        self.last.insert(stream, number);
        let segment = Arc::new(Segment::create(&self.files, SegmentId { stream, number })?);
        self.created = true;
        Ok(segment)
    }
}

/// Most bytes of blocks handed to [`Appender::append`] at once.
pub(crate) const APPEND_BYTES_MAX: usize = 64 << 20;
/// Longest segment that may still take a batch without its offsets leaving 32 bits.
const SEGMENT_BYTES_MAX: u64 = (u32::MAX as u64) - 2 * (APPEND_BYTES_MAX as u64);
