//! How space is given back: what lives in a segment is copied elsewhere, then the file goes.
//!
//! In this order, so that a crash at any moment costs nothing:
//!
//! 1. The living sections are copied to *targets*, segments that nobody else writes to, synced piece by
//!    piece, so that nobody's commit waits for them. Nothing of them counts yet.
//! 2. Some thousand at a time, the journal says in one record how far the targets count and that the
//!    originals are dead, and the index is pointed at the copies; those of blocks that have changed meanwhile
//!    are dead from the first. There is never more than one section of a block that counts, or a deletion
//!    would not be one.
//! 3. The index brings itself to a checkpoint. A crash from here on leaves an emptied segment for the next
//!    collection.
//! 4. The journal says that the segment is given up and how long the targets must be; the file is
//!    removed, and when its name is gone durably its bytes are freed. Who still reads from it looks again.
//!
//! Readers and writers go on meanwhile; only pointing a few thousand entries elsewhere keeps writers
//! waiting, for less than a millisecond.

use crate::disk::{DiskFile, Mode, is_lost};
use crate::index::{IndexError, Key};
use crate::journal::Sync;
use crate::journal::record::Record;
use crate::log::scan::{Scan, Step};
use crate::log::segment::{ReadError, Segment};
use crate::log::{Place, Position, SegmentId, Stream, section};
use crate::sink::PutError;
use crate::store::{Inner, remove_segment};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

/// What becomes of a living section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is copied to where its kind lies.
    Stays,
    /// It may go: it is cached, and nobody needs it.
    Goes,
}

/// The living sections of one segment.
pub(crate) type Living = Vec<(Key, Place)>;
/// A living section and its bytes.
type Section<'a> = (&'a (Key, Place), Bytes);

/// How it is found out what lives in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// By one look over the index, for as many segments as there are.
    OverIndex,
    /// By what lies in each, for few of them.
    IntoSegments,
}

/// One round over some segments.
#[derive(Debug)]
pub(crate) struct Compaction<'a> {
    inner: &'a Inner,
    /// Where each stream's copies go at the moment.
    targets: BTreeMap<Stream, Arc<Segment>>,
    /// All targets of this round, for the journal.
    used: BTreeMap<SegmentId, Arc<Segment>>,
    /// Bytes copied since the targets were last synced.
    unsynced: u64,
}

/// A section on its way elsewhere.
struct Move {
    key: Key,
    from: Place,
    to: Place,
    /// Where the copy ends.
    end: u32,
}

/// What was copied of a segment.
enum Copied {
    All(Vec<Move>),
    /// Something in it cannot be read, so it stays, and these copies are in vain.
    Some(Vec<Move>),
}

/// A segment whose sections were copied, in the order in which that was done.
struct Emptied {
    segment: Arc<Segment>,
    copied: Copied,
    /// What goes with it.
    go: Living,
}

/// What a round did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Bytes of the files that were removed.
    pub(crate) removed: u64,
    /// Bytes copied out of them.
    pub(crate) copied: u64,
    /// Blocks that went with them.
    pub(crate) gone: u64,
}

impl Inner {
    /// What lives in these segments, in the order it lies there, from one look at the index. From then
    /// on [`crate::index::Index::is_unchanged`] tells which of it has not changed.
    pub(crate) fn living(
        &self,
        segments: &[SegmentId],
    ) -> Result<HashMap<SegmentId, Living>, IndexError> {
        let mut living: HashMap<SegmentId, Living> =
            segments.iter().map(|id| (*id, Vec::new())).collect();
        let merges = self.index.merges();
        self.index.each(0, |entries| {
            for (key, place) in entries {
                if let Some(living) = living.get_mut(&place.segment)
                    && !self.is_dead(place)
                {
                    living.push((*key, *place));
                }
            }
            ControlFlow::Continue(())
        })?;
        let keys = living.values().flatten().map(|(key, _)| *key);
        self.index.watch(keys);
        // What changed between the look and the watch.
        for living in living.values_mut() {
            let mut still = Vec::with_capacity(living.len());
            for (key, place) in living.drain(..) {
                // One that became kept, or was found damaged, lies there all the same.
                let now = self.index.changed(&key, merges)?.unwrap_or(Some(place));
                let here = now.filter(|now| now.position() == place.position());
                still.extend(here.map(|now| (key, now)));
            }
            *living = still;
            living.sort_unstable_by_key(|(_, place)| place.offset);
            // What became kept during the look was told twice.
            living.dedup_by_key(|(_, place)| place.offset);
        }
        Ok(living)
    }

    /// [`Inner::living`] of one segment, from its own sections, so that it costs no look over the
    /// index. `None` if they cannot all be read: something may hide there that the index does not know.
    fn living_in(&self, segment: &Segment) -> Result<Option<Living>, IndexError> {
        let mut sections = Vec::new();
        let mut scan = Scan::new(segment, 0).until(self.committed(segment));
        loop {
            match scan.next() {
                Ok(Some(Step::Found(found))) => {
                    let key = self.index.key(found.header.cid.hash());
                    sections.push((key, found.offset));
                }
                Ok(None) => break,
                Ok(Some(Step::Damage(_) | Step::Retracted(_))) | Err(_) => return Ok(None),
            }
        }
        // First, so that what changes after it was looked up is known to have changed.
        self.index.watch(sections.iter().map(|(key, _)| *key));
        let mut living = Vec::with_capacity(sections.len());
        for (key, offset) in sections {
            let position = Position {
                segment: segment.id,
                offset,
            };
            let place = self.index.place(&key)?;
            if place.is_none() && !self.dead.has(&position) && !self.is_disowned(&position) {
                return Ok(None); // The index does not know all there is.
            }
            let here = |place: &Place| place.segment == segment.id && place.offset == offset;
            let place = place.filter(here).filter(|place| !self.is_dead(place));
            living.extend(place.map(|place| (key, place)));
        }
        Ok(Some(living))
    }

    fn is_disowned(&self, position: &Position) -> bool {
        self.disowned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(position)
    }

    /// How many bytes of each segment live, section prefixes included, about.
    pub(crate) fn living_bytes(&self) -> Result<HashMap<SegmentId, (u64, u64)>, IndexError> {
        let mut living: HashMap<SegmentId, (u64, u64)> = HashMap::new();
        self.index.each(0, |entries| {
            for (_, place) in entries.iter().filter(|(_, place)| !self.is_dead(place)) {
                let (blocks, bytes) = living.entry(place.segment).or_default();
                *blocks += 1;
                *bytes += PREFIX_USUAL + u64::from(place.length);
            }
            ControlFlow::Continue(())
        })?;
        Ok(living)
    }
}

impl<'a> Compaction<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            targets: BTreeMap::new(),
            used: BTreeMap::new(),
            unsynced: 0,
        }
    }

    /// Empties the segments and removes them. Those that hold something unreadable stay.
    pub(crate) fn run(
        mut self,
        segments: &[SegmentId],
        look: Look,
        fate: impl Fn(&Key, &Place) -> Fate,
    ) -> Result<Compacted, PutError> {
        let done = self.empty(segments, look, fate);
        self.inner.index.stop_watching();
        let mut appender = self.inner.lock_appender();
        for id in self.used.keys() {
            appender.finish_target(*id);
        }
        drop(appender);
        for target in self.used.values() {
            target.settle(target.length());
        }
        done
    }

    fn empty(
        &mut self,
        segments: &[SegmentId],
        look: Look,
        fate: impl Fn(&Key, &Place) -> Fate,
    ) -> Result<Compacted, PutError> {
        let inner = self.inner;
        {
            let mut appender = inner.lock_appender();
            for id in segments {
                appender.rotate(*id);
            }
        }
        // So that all of what is copied counts already.
        inner.commit(Vec::new())?;
        let mut living = match look {
            Look::OverIndex => inner.living(segments)?,
            Look::IntoSegments => HashMap::new(),
        };
        let mut compacted = Compacted::default();
        let mut emptied = Vec::new();
        for id in segments {
            let Some(segment) = inner.segment(*id) else {
                continue;
            };
            let living = match look {
                Look::OverIndex => living.remove(id),
                Look::IntoSegments => inner.living_in(&segment)?,
            };
            let Some(living) = living else {
                tracing::warn!(segment = %id, "damage keeps a segment from being emptied");
                continue;
            };
            let (stay, go): (Living, Living) = living
                .into_iter()
                .partition(|(key, place)| fate(key, place) == Fate::Stays);
            if stay.iter().any(|(_, place)| place.damaged) {
                tracing::warn!(segment = %id, "a damaged block keeps its segment from being emptied; heal or drop it with `cairn repo verify`");
                continue;
            }
            let copied = self.copy_all(&segment, &stay)?;
            emptied.push(Emptied {
                segment,
                copied,
                go,
            });
        }
        self.sync_targets()?;
        let mut retired = Vec::with_capacity(emptied.len());
        let mut copies = BTreeMap::new();
        for Emptied {
            segment,
            copied,
            go,
        } in emptied
        {
            let moves = match copied {
                Copied::All(moves) => moves,
                Copied::Some(moves) => {
                    // What follows them in the targets counts only if they do, so they are dead from the first.
                    self.move_all(&moves, |_| Ok(None), &mut copies)?;
                    continue;
                }
            };
            self.move_all(&moves, |moved| self.is_still_there(moved), &mut copies)?;
            let bytes = moves.iter().map(|moved| u64::from(moved.to.length));
            compacted.copied += bytes.sum::<u64>();
            if let Some(gone) = self.let_go(&go)? {
                compacted.gone += gone;
                compacted.removed += segment.length();
                retired.push(segment);
            }
        }
        let copies: Vec<_> = copies.into_iter().collect();
        self.retire(&retired, &copies)?;
        Ok(compacted)
    }

    /// Copies sections to the targets, up to one that cannot be read.
    fn copy_all(&mut self, segment: &Segment, stay: &[(Key, Place)]) -> Result<Copied, PutError> {
        let mut moves = Vec::with_capacity(stay.len());
        for run in runs(stay) {
            let Some(sections) = self.read(segment, run)? else {
                tracing::warn!(segment = %segment.id, "a damaged block keeps its segment from being compacted");
                return Ok(Copied::Some(moves));
            };
            self.write(&sections, &mut moves)?;
        }
        Ok(Copied::All(moves))
    }

    /// The sections of a run, whose places are near each other; `None` if one is damaged.
    fn read<'b>(
        &self,
        segment: &Segment,
        run: &'b [(Key, Place)],
    ) -> Result<Option<Vec<Section<'b>>>, PutError> {
        let failed = |error: std::io::Error| PutError::Disk(format!("{}: {error}", segment.id));
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
            return Ok(Some(Vec::new()));
        };
        let from = u64::from(first.offset);
        let to = u64::from(last.offset) + section::PREFIX_MAX as u64 + u64::from(last.length);
        let length = to.min(segment.length()).saturating_sub(from);
        let (bytes, checked) = match segment.read(from, length) {
            Ok(bytes) => (bytes, true),
            Err(ReadError::Unchecked | ReadError::Lost(_)) => {
                match segment.read_unchecked(from, length) {
                    Ok(bytes) => (bytes, false),
                    Err(error) if is_lost(&error) => return Ok(None),
                    Err(error) => return Err(failed(error)),
                }
            }
            Err(ReadError::Disk(error)) => return Err(failed(error)),
        };
        let mut sections = Vec::with_capacity(run.len());
        for entry in run {
            let (key, place) = entry;
            let skip = usize::try_from(u64::from(place.offset) - from).unwrap_or(usize::MAX);
            let Some(rest) = bytes.get(skip..) else {
                return Ok(None);
            };
            let header = section::header(rest).filter(|header| {
                header.length == place.length && self.inner.index.key(header.cid.hash()) == *key
            });
            let Some(header) = header else {
                return Ok(None);
            };
            let end = skip.saturating_add(usize::try_from(header.section()).unwrap_or(usize::MAX));
            if end > bytes.len() {
                return Ok(None);
            }
            let section = bytes.slice(skip..end);
            if !checked {
                let prefix = usize::try_from(header.prefix).unwrap_or(usize::MAX);
                let data = section.slice(prefix.min(section.len())..);
                if !section::is_whole(segment.id.stream, header.cid, data) {
                    self.inner.mark_damaged(*key, place.position());
                    return Ok(None);
                }
            }
            sections.push((entry, section));
        }
        Ok(Some(sections))
    }

    fn write(&mut self, sections: &[Section<'_>], moves: &mut Vec<Move>) -> Result<(), PutError> {
        let failed = |error: std::io::Error| self.inner.write_failed("compaction", &error);
        let mut streams: BTreeMap<Stream, Vec<&Section<'_>>> = BTreeMap::new();
        for section in sections {
            let ((_, place), bytes) = section;
            streams
                .entry(stream_of(place, bytes))
                .or_default()
                .push(section);
        }
        for (stream, sections) in streams {
            let target = self.target(stream)?;
            let mut at = target.length();
            let mut parts: Vec<&[u8]> = Vec::with_capacity(sections.len());
            for ((key, from), bytes) in sections {
                let too_long = |_| PutError::Disk("segment is full".to_owned());
                let offset = u32::try_from(at).map_err(too_long)?;
                at += bytes.len() as u64;
                moves.push(Move {
                    key: *key,
                    from: *from,
                    to: Place {
                        segment: target.id,
                        offset,
                        ..*from
                    },
                    end: u32::try_from(at).map_err(too_long)?,
                });
                parts.push(bytes);
            }
            let before = target.length();
            target.append(&parts).map_err(failed)?;
            self.unsynced += at - before;
        }
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// Where copies of this stream go.
    fn target(&mut self, stream: Stream) -> Result<Arc<Segment>, PutError> {
        let size = self.inner.lock_appender().size(stream);
        if let Some(target) = self.targets.get(&stream)
            && target.length() < size
        {
            return Ok(target.clone());
        }
        let target = self
            .inner
            .lock_appender()
            .target(stream)
            .map_err(|error| self.inner.write_failed("compaction", &error))?;
        self.inner
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(target.id, target.clone());
        self.targets.insert(stream, target.clone());
        self.used.insert(target.id, target.clone());
        // Known to the journal before there is anything in it, so that a crash leaves nothing to adopt.
        self.sync()?;
        let length = u32::try_from(target.length()).unwrap_or(u32::MAX);
        self.inner
            .commit(vec![Record::Committed(vec![(target.id, length)])])?;
        Ok(target)
    }

    /// Whatever the durability that was asked for: what takes the place of old blocks must not be lost.
    fn sync(&mut self) -> Result<(), PutError> {
        let failed = |error: std::io::Error| self.inner.write_failed("compaction", &error);
        for target in self.targets.values() {
            target.sync().map_err(failed)?;
        }
        let files = &self.inner.files;
        files.disk.sync_folder(&files.folder).map_err(failed)?;
        self.unsynced = 0;
        Ok(())
    }

    /// Makes the copies durable. They do not count yet.
    fn sync_targets(&self) -> Result<(), PutError> {
        for target in self.used.values() {
            target
                .sync()
                .map_err(|error| self.inner.write_failed("compaction", &error))?;
            if let Err(error) = target.write_sums() {
                tracing::warn!(segment = %target.id, %error, "checksums were not written");
            }
        }
        Ok(())
    }

    /// Lets copies count and their originals be dead, but for those of which `still` says that the original
    /// has gone: then the copy is dead. Notes how far the targets count.
    fn move_all(
        &self,
        moves: &[Move],
        still: impl Fn(&Move) -> Result<Option<Place>, IndexError>,
        copies: &mut BTreeMap<SegmentId, u32>,
    ) -> Result<(), PutError> {
        moves
            .chunks(MOVED_AT_ONCE)
            .try_for_each(|some| self.move_some(some, &still, copies))
    }

    /// What the index says of the original now, if it still counts.
    fn is_still_there(&self, moved: &Move) -> Result<Option<Place>, IndexError> {
        let inner = self.inner;
        let now = if inner.index.is_unchanged(&moved.key) {
            Some(moved.from)
        } else {
            inner.index.place(&moved.key)?
        };
        let there = |now: &Place| now.position() == moved.from.position() && !inner.is_dead(now);
        Ok(now.filter(there))
    }

    fn move_some(
        &self,
        moves: &[Move],
        still: impl Fn(&Move) -> Result<Option<Place>, IndexError>,
        copies: &mut BTreeMap<SegmentId, u32>,
    ) -> Result<(), PutError> {
        let inner = self.inner;
        let _nobody_appends = inner.lock_appender();
        let mut entries = Vec::with_capacity(moves.len());
        let mut dead = Vec::with_capacity(moves.len());
        let mut kept = Vec::new();
        let mut lengths = BTreeMap::new();
        for moved in moves {
            lengths.insert(moved.to.segment, moved.end);
            let Some(now) = still(moved)? else {
                dead.push(moved.to.position());
                continue;
            };
            let to = Place {
                cached: now.cached,
                damaged: now.damaged,
                ..moved.to
            };
            if !to.cached && to.segment.stream == Stream::Cache {
                // It was cached when it was copied, and must stay now.
                kept.push(to.position());
            }
            dead.push(moved.from.position());
            entries.push((moved.key, now, to));
        }
        let before: Vec<_> = entries.iter().map(|(key, now, _)| (*key, *now)).collect();
        // First, so that whoever finds an original dead finds the copy when they look again.
        inner
            .index
            .insert(entries.iter().map(|(key, _, to)| (*key, *to)));
        let record = Record::Moved {
            lengths: lengths.iter().map(|(id, end)| (*id, *end)).collect(),
            kept,
            dead,
        };
        inner
            .lock_journal()
            .append(vec![record], Sync::Leave)
            .map_err(|error| {
                inner.index.insert(before);
                inner.write_failed("journal", &error)
            })?;
        copies.extend(lengths);
        Ok(())
    }

    /// Deletes what may go. `None` if somebody needs some of it by now.
    fn let_go(&self, go: &[(Key, Place)]) -> Result<Option<u64>, PutError> {
        let inner = self.inner;
        let mut gone = 0;
        for some in go.chunks(MOVED_AT_ONCE) {
            let _no_writer_looks = inner
                .sweeping
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let _nobody_appends = inner.lock_appender();
            let mut dead = Vec::with_capacity(some.len());
            for (key, place) in some {
                let now = if inner.index.is_unchanged(key) {
                    Some(*place)
                } else {
                    inner.index.place(key)?
                };
                // Kept or held meanwhile, it stays where it is, and so does its segment.
                let there = now.filter(|now| now.position() == place.position());
                match there {
                    Some(now) if !now.cached || inner.is_held(key) => return Ok(None),
                    Some(now) => dead.push((*key, now)),
                    None => {}
                }
            }
            gone += dead.iter().filter(|(_, place)| !place.damaged).count() as u64;
            inner.bury(&dead, Sync::Leave)?;
        }
        Ok(Some(gone))
    }

    /// Removes emptied segments.
    fn retire(
        &self,
        emptied: &[Arc<Segment>],
        copies: &[(SegmentId, u32)],
    ) -> Result<(), PutError> {
        let inner = self.inner;
        if emptied.is_empty() {
            return Ok(());
        }
        inner.checkpoint()?;
        // Somebody else's merge may have taken what points at the copies.
        inner.index.wait_for_thaw();
        let retired = emptied.iter().map(|segment| Record::Retired {
            segment: segment.id,
            copies: copies.to_vec(),
        });
        inner.commit_to_disk(retired.collect())?;
        // A snapshot may be about to take what counted when it began.
        let removing = inner
            .removing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let files = &inner.files;
        let mut nameless = Vec::with_capacity(emptied.len());
        for segment in emptied {
            inner
                .segments
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&segment.id);
            if segment.length() > FREED_AT_ONCE {
                // Not to be had, its bytes are freed all at once.
                nameless.extend(files.disk.open(&files.path(segment.id), Mode::Write));
            }
            remove_segment(files, segment.id)
                .map_err(|error| inner.write_failed("compaction", &error))?;
        }
        files
            .disk
            .sync_folder(&files.folder)
            .map_err(|error| inner.write_failed("compaction", &error))?;
        drop(removing);
        nameless.iter().for_each(|file| free(&**file));
        let mut journal = inner.lock_journal();
        for segment in emptied {
            journal.removed(segment.id);
        }
        Ok(())
    }
}

/// Frees the bytes of a file that has no name any more, piece by piece: a file system keeps everybody's
/// syncs waiting while it frees a large file. Who still reads from it finds it short and looks again.
fn free(file: &dyn DiskFile) {
    if !file.is_nameless() {
        return; // Somebody has made a hard link, to keep it.
    }
    let mut length = file.length().unwrap_or(0);
    while length > 0 {
        length = length.saturating_sub(FREED_AT_ONCE);
        if file.set_length(length).is_err() {
            return; // What is left goes when nobody has it open any more.
        }
    }
}

/// Sections that are read together: near each other, and not too much at once.
fn runs(sections: &[(Key, Place)]) -> impl Iterator<Item = &[(Key, Place)]> {
    let mut rest = sections;
    std::iter::from_fn(move || {
        let (_, first) = rest.first()?;
        let begin = u64::from(first.offset);
        let mut end = begin;
        let near = rest.iter().take_while(|(_, place)| {
            let start = u64::from(place.offset);
            let fits = start <= end + GAP_MAX && start - begin < COPY_BYTES;
            end = start + section::PREFIX_MAX as u64 + u64::from(place.length);
            fits
        });
        let (run, later) = rest.split_at(near.count().max(1));
        rest = later;
        Some(run)
    })
}

/// Where a section goes: references to their like, cached ones to the cache, the others by their codec.
fn stream_of(place: &Place, section: &[u8]) -> Stream {
    match section::header(section) {
        _ if place.is_reference() => Stream::File,
        Some(header) if !place.cached => Stream::of_codec(header.cid.codec()),
        _ if place.cached => Stream::Cache,
        _ => place.segment.stream,
    }
}

/// Bytes read and copied at once.
const COPY_BYTES: u64 = 4 << 20;
/// Dead bytes that are read along rather than skipped.
const GAP_MAX: u64 = 256 << 10;
/// Copied bytes after which the targets are synced, so that other people's syncs are short.
const SYNC_EVERY: u64 = 4 << 20;
/// Bytes of a removed file that are freed at once.
const FREED_AT_ONCE: u64 = 12 << 20;
/// Entries changed while writers wait.
const MOVED_AT_ONCE: usize = 4096;
/// Bytes before a block's own, with the usual CID.
const PREFIX_USUAL: u64 = 38;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, Prefix};
    use crate::cid::{self, HashKind, Version};
    use crate::config::{ByteSize, Config, Reserve};
    use crate::disk::simulated::SimulatedDisk;
    use crate::index::Image;
    use crate::sink::BlockSink;
    use crate::store::{Ground, Keep, Store};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn open(disk: &SimulatedDisk, image: &Arc<Image>) -> Store {
        let ground = Ground::simulated(disk, image);
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        Store::open_on(ground, &config, &mut |_| {}).unwrap()
    }

    fn block(number: u8) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, Bytes::from(vec![number; 1000])).unwrap()
    }

    #[test]
    fn a_checkpoint_between_copying_and_pointing_at_the_copies_loses_nothing() {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let store = open(&disk, &image);
        let blocks: Vec<Block> = (0..5).map(block).collect();
        let mut writer = store.writer(Keep::Kept);
        writer.put(blocks.clone()).unwrap();
        writer.commit().unwrap();
        let inner = store.inner.clone();
        let id = *inner.segments.read().unwrap().keys().next().unwrap();
        inner.lock_appender().rotate(id);
        let stay = inner.living(&[id]).unwrap().remove(&id).unwrap();
        let segment = inner.segment(id).unwrap();
        let mut compaction = Compaction::new(&inner);
        let Copied::All(moves) = compaction.copy_all(&segment, &stay).unwrap() else {
            panic!("nothing is damaged");
        };
        assert_eq!(moves.len(), blocks.len());
        compaction.sync_targets().unwrap();
        inner.checkpoint_anew().unwrap();
        let still = |moved: &Move| compaction.is_still_there(moved);
        compaction
            .move_all(&moves, still, &mut BTreeMap::new())
            .unwrap();
        inner.commit_to_disk(Vec::new()).unwrap();
        drop((writer, store));

        let after = disk.after_power_cut(&mut StdRng::seed_from_u64(1));
        let store = open(&after, &Arc::new(image.copied()));
        for block in &blocks {
            let found = store.inner.block(block.cid()).unwrap();
            assert_eq!(found.as_ref(), Some(block));
        }
    }

    #[test]
    fn what_lives_in_a_segment_is_the_same_by_either_look() {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let store = open(&disk, &image);
        let mut writer = store.writer(Keep::Cached);
        writer.put((0..40).map(block).collect()).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let gone: Vec<_> = (0..40).step_by(3).map(|at| *block(at).cid()).collect();
        let inner = &store.inner;
        inner.delete(&gone, None).unwrap();
        let id = *inner.segments.read().unwrap().keys().next().unwrap();
        let over = inner.living(&[id]).unwrap().remove(&id).unwrap();
        let into = inner
            .living_in(&inner.segment(id).unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(into.len(), 40 - gone.len());
        assert_eq!(over, into);
    }
}
