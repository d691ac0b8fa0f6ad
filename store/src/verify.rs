//! Re-hash what is on disk; name what lies.
//!
//! [`Store::verify`] does it all at once, as fast as the disk and all processors allow; [`crate::scrub`]
//! does it piece by piece with what is here. A damaged section is marked: its block is as if absent until it
//! is fetched or added again, which writes it anew.

use crate::block::{Block, BlockError};
use crate::cid::Cid;
use crate::hash::BATCH;
use crate::index::Key;
use crate::journal::record::Record;
use crate::journal::{DEAD_PER_RECORD, Sync};
use crate::log::files::Access;
use crate::log::scan::{Damage, Scan, Step};
use crate::log::segment::Segment;
use crate::log::{Place, Position, SegmentId, Stream, section};
use crate::sink::PutError;
use crate::source::SourceError;
use crate::store::{Inner, Store, blocking, nothing};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What a verification found out about one block, or about bytes that hold none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The block; `None` where damage hides which it was.
    pub cid: Option<Cid>,
    /// What is wrong, and where.
    pub why: String,
    /// Which section it is, for [`Store::drop_damaged`].
    pub section: Section,
}

/// A section of the log, known by its place where its block's name may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    key: Key,
    position: Position,
}

impl Default for Section {
    /// No section: numbers begin with 1.
    fn default() -> Self {
        Self {
            key: NOBODY,
            position: Position {
                segment: SegmentId {
                    stream: Stream::Leaf,
                    number: 0,
                },
                offset: 0,
            },
        }
    }
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Blocks hashed.
    pub blocks: u64,
    /// Bytes of the log read.
    pub bytes: u64,
    /// Bytes there are to read.
    pub total: u64,
}

impl Store {
    /// Re-hashes every block. Tells each bad one, and now and then how far it is; answers how many
    /// sections were hashed: what was deleted and still lies there is hashed along.
    pub async fn verify(
        &self,
        mut on_progress: impl FnMut(VerifyProgress) + Send + 'static,
        on_bad: impl FnMut(BadBlock) + Send + 'static,
    ) -> Result<u64, SourceError> {
        let inner = self.inner.clone();
        blocking(move || inner.verify(&mut on_progress, on_bad))
            .await
            .ok_or_else(|| SourceError::Stopping { cid: nothing() })
    }

    /// Deletes blocks that a verification found damaged, named or not, so that they are absent instead.
    /// Answers for each whether it went: what has been healed meanwhile stays.
    pub async fn drop_damaged(&self, sections: Vec<Section>) -> Result<Vec<bool>, PutError> {
        let inner = self.inner.clone();
        blocking(move || inner.drop_damaged(&sections))
            .await
            .unwrap_or(Err(PutError::Closing))
    }
}

/// How far a walk over a segment went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// There may be more.
    Some,
    /// To its end.
    All,
}

/// What was known as damaged before, so that what hashes right need not be looked up each time.
pub(crate) enum KnownBad {
    Unknown,
    These(HashSet<Position>),
}

/// What a walk is told before, and what it finds out beside the bad blocks.
pub(crate) struct Walk {
    known: KnownBad,
    /// Segments in which something does not hash to its name, whether it counts or not.
    unsound: Mutex<HashSet<SegmentId>>,
    /// Segments whose checksums are wrong somewhere: they are not synced, so a power cut may do that.
    outdated: Mutex<HashSet<SegmentId>>,
}

impl Walk {
    pub(crate) fn new(known: KnownBad) -> Self {
        Self {
            known,
            unsound: Mutex::default(),
            outdated: Mutex::default(),
        }
    }

    /// Compares bytes that were just read with their checksums.
    fn compare(&self, segment: &Segment, bytes: Range<u64>) {
        if segment.has_wrong_sums(bytes) {
            lock(&self.outdated).insert(segment.id);
        }
    }

    fn is_sound(&self, segment: SegmentId) -> bool {
        !lock(&self.unsound).contains(&segment)
    }

    fn is_outdated(&self, segment: SegmentId) -> bool {
        lock(&self.outdated).contains(&segment)
    }
}

impl KnownBad {
    fn may_have(&self, position: Position) -> bool {
        match self {
            Self::Unknown => true,
            Self::These(bad) => bad.contains(&position),
        }
    }
}

/// Sections that are hashed together.
type Batch = Vec<(Position, Cid, Bytes)>;

/// Where the scan hands over what is to be hashed.
struct Lanes {
    batch: Batch,
    out: SyncSender<Batch>,
}

impl Lanes {
    fn push(&mut self, section: (Position, Cid, Bytes)) {
        self.batch.push(section);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            // Refused only if every hasher has died, which its panic tells.
            let _ = self.out.send(std::mem::take(&mut self.batch));
        }
    }
}

impl Inner {
    pub(crate) fn verify(
        &self,
        on_progress: &mut dyn FnMut(VerifyProgress),
        on_bad: impl FnMut(BadBlock) + Send,
    ) -> u64 {
        let segments = self.all_segments();
        // Others may end up longer than what is read of them.
        let sealed: Vec<bool> = segments.iter().map(|one| !one.is_growing()).collect();
        let walk = Walk::new(self.known_bad());
        let total = segments.iter().map(|segment| segment.length()).sum();
        let on_bad = Mutex::new(on_bad);
        let tell = |bad| (lock(&on_bad))(bad);
        let hashed = AtomicU64::new(0);
        let (out, waiting) = sync_channel::<Batch>(BATCHES_WAITING_MAX);
        // Theirs alone: with the last of them it is gone, and nothing waits to be taken.
        let waiting = Arc::new(Mutex::new(waiting));
        let hashers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let (inner, hashed, walk, tell) = (self, &hashed, &walk, &tell);
            for _ in 0..hashers {
                let waiting = waiting.clone();
                scope.spawn(move || {
                    while let Some(batch) = next(&waiting) {
                        hashed.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        for bad in inner.check(batch, walk) {
                            tell(bad);
                        }
                    }
                });
            }
            drop(waiting);
            let mut lanes = Lanes {
                batch: Vec::with_capacity(BATCH),
                out,
            };
            let mut bytes = 0;
            self.missing().into_iter().for_each(tell);
            for segment in &segments {
                let mut scan = Scan::with_data(segment, 0);
                let mut compared = 0;
                loop {
                    let mut hash = |section| lanes.push(section);
                    let walked = self
                        .scan_for(&mut scan, TOLD_EVERY, walk, &mut hash, tell)
                        .unwrap_or_else(|error| {
                            tell(unreadable(segment.id, scan.position(), &error));
                            lock(&walk.unsound).insert(segment.id);
                            Walked::All
                        });
                    let here = match walked {
                        Walked::Some => scan.position(),
                        Walked::All => segment.length(),
                    };
                    walk.compare(segment, compared..here);
                    compared = here;
                    on_progress(VerifyProgress {
                        blocks: hashed.load(Ordering::Relaxed),
                        bytes: bytes + here,
                        total,
                    });
                    if walked == Walked::All {
                        break;
                    }
                }
                bytes += segment.length();
            }
            lanes.flush();
            drop(lanes);
        });
        if self.files.access == Access::ReadWrite {
            // Checksums over bytes that lie would let them pass for whole where the index is older.
            let sealed = segments.iter().zip(sealed).filter(|(_, sealed)| *sealed);
            let sound = |segment: &&Arc<Segment>| {
                walk.is_sound(segment.id) && self.segment(segment.id).is_some()
            };
            for segment in sealed.map(|(segment, _)| segment).filter(sound) {
                let renewed = if walk.is_outdated(segment.id) {
                    segment.renew_sums()
                } else {
                    segment.complete_sums()
                };
                if let Err(error) = renewed {
                    tracing::warn!(segment = %segment.id, %error, "checksums were not made anew");
                }
            }
        }
        let blocks = hashed.load(Ordering::Relaxed);
        on_progress(VerifyProgress {
            blocks,
            bytes: total,
            total,
        });
        blocks
    }

    /// Hands the next sections of a segment to `hash`, until `bytes` were read, and tells what blocks
    /// are hidden by damage.
    pub(crate) fn scan_for(
        &self,
        scan: &mut Scan<'_>,
        bytes: u64,
        walk: &Walk,
        hash: &mut dyn FnMut((Position, Cid, Bytes)),
        tell: &dyn Fn(BadBlock),
    ) -> io::Result<Walked> {
        let id = scan.segment().id;
        let stop = scan.position().saturating_add(bytes);
        let failed = |error: io::Error| {
            // A collection may have taken the file away meanwhile.
            if self.segment(id).is_none() {
                Ok(Walked::All)
            } else {
                Err(error)
            }
        };
        let mut gaps = Vec::new();
        let told = |gaps: &mut Vec<Damage>| {
            if self.segment(id).is_none() {
                gaps.clear(); // A collection has taken it away meanwhile.
            }
            let hidden = self.hidden(id, gaps);
            gaps.clear();
            hidden.into_iter().for_each(tell);
        };
        while scan.position() < stop {
            if gaps.len() >= GAPS_TOGETHER_MAX {
                told(&mut gaps);
            }
            let step = match scan.next() {
                Ok(Some(step)) => step,
                Ok(None) => {
                    told(&mut gaps);
                    return Ok(Walked::All);
                }
                Err(_) if scan.has_lost_too_much() => {
                    // All the rest is one gap, so that a bad stretch does not hide what comes behind it.
                    let (from, to) = (scan.position(), scan.segment().length());
                    lock(&walk.unsound).insert(id);
                    gaps.push(Damage { from, to });
                    told(&mut gaps);
                    return Ok(Walked::All);
                }
                Err(error) => {
                    told(&mut gaps);
                    return failed(error);
                }
            };
            match step {
                Step::Found(found) => {
                    let position = Position {
                        segment: id,
                        offset: found.offset,
                    };
                    match scan.data(&found) {
                        Ok(data) => hash((position, found.header.cid, data)),
                        Err(error) => {
                            told(&mut gaps);
                            return failed(error);
                        }
                    }
                }
                Step::Retracted(_) => {}
                // A collection has taken it away and is freeing it.
                Step::Damage(_) if self.segment(id).is_none() => return Ok(Walked::All),
                Step::Damage(gap) => {
                    lock(&walk.unsound).insert(id);
                    gaps.push(gap);
                }
            }
        }
        told(&mut gaps);
        Ok(Walked::Some)
    }

    /// Marks the blocks that the index says lie where nothing can be read, and names them as far as
    /// can be; by one look over the index.
    fn hidden(&self, segment: SegmentId, gaps: &[Damage]) -> Vec<BadBlock> {
        if gaps.is_empty() {
            return Vec::new();
        }
        let gap_of = |place: &Place| {
            let at = u64::from(place.offset);
            let inside = |gap: &&Damage| (gap.from..gap.to).contains(&at);
            (place.segment == segment).then(|| gaps.iter().find(inside))?
        };
        let mut hidden: Vec<(Key, Place, Damage)> = Vec::new();
        let looked = self.index.each(0, |entries| {
            let alive = entries.iter().filter(|(_, place)| place.segment == segment);
            let alive = alive.filter(|(_, place)| !self.is_dead(place));
            hidden.extend(alive.filter_map(|(key, place)| Some((*key, *place, *gap_of(place)?))));
            ControlFlow::Continue(())
        });
        if let Err(error) = looked {
            tracing::error!(%error, "the index cannot say what damage hides");
        }
        let mut readable = Vec::new();
        hidden.retain(|(key, place, gap)| {
            let is_whole = self.hashes(key, place);
            if is_whole {
                // It lies behind too much that cannot be read.
                self.mark_whole(*key, place.position());
                readable.push(*gap);
            }
            !is_whole
        });
        let empty = gaps
            .iter()
            .filter(|gap| hidden.iter().all(|(_, _, inside)| inside != *gap))
            .filter(|gap| !readable.contains(gap))
            .filter_map(|gap| self.unknown(segment, *gap));
        let mut bad: Vec<BadBlock> = empty.collect();
        bad.extend(hidden.into_iter().map(|(key, place, gap)| {
            self.mark_damaged(key, place.position());
            BadBlock {
                cid: None,
                why: format!(
                    "segment {segment}: bytes {} to {} hold no readable block, but one lay at {}",
                    gap.from, gap.to, place.offset
                ),
                section: Section {
                    key,
                    position: place.position(),
                },
            }
        }));
        bad
    }

    /// A gap in which the index knows nothing, unless what lay there is known to be dead.
    fn unknown(&self, segment: SegmentId, gap: Damage) -> Option<BadBlock> {
        let position = Position {
            segment,
            offset: u32::try_from(gap.from).ok()?,
        };
        let why = format!(
            "segment {segment}: bytes {} to {} hold no readable block, and what lay there is not known",
            gap.from, gap.to
        );
        (!self.dead.has(&position)).then_some(BadBlock {
            cid: None,
            why,
            section: Section {
                key: NOBODY,
                position,
            },
        })
    }

    /// What was acknowledged and is not there any more: files that are missing or shorter.
    fn missing(&self) -> Vec<BadBlock> {
        let lengths = self.lock_journal().state().lengths.clone();
        // One of which a failed write left no more than the header is nobody's loss.
        let header = section::file_header().len() as u64;
        let gaps = lengths.into_iter().filter_map(|(id, length)| {
            let there = self.segment(id).map_or(0, |segment| segment.length());
            let (from, to) = (there.max(header), u64::from(length));
            (from < to).then(|| self.hidden(id, &[Damage { from, to }]))
        });
        gaps.flatten().collect()
    }

    /// Hashes a batch; answers what of it is bad and counts.
    pub(crate) fn check(&self, batch: Batch, walk: &Walk) -> Vec<BadBlock> {
        let places: Vec<(Position, Cid)> = batch
            .iter()
            .map(|(position, cid, _)| (*position, *cid))
            .collect();
        let mut bad = Vec::new();
        let mut gaps: BTreeMap<SegmentId, Vec<Damage>> = BTreeMap::new();
        for ((position, cid), verified) in places.into_iter().zip(verified(batch)) {
            let key = self.index.key(cid.hash());
            let Err(error) = verified else {
                if walk.known.may_have(position) {
                    self.mark_whole(key, position);
                }
                continue;
            };
            if self.segment(position.segment).is_none() {
                continue; // A collection has taken it away and is freeing it.
            }
            lock(&walk.unsound).insert(position.segment);
            let named = self.index.place(&key).ok().flatten();
            if named.is_none_or(|named| named.position() != position || self.is_dead(&named)) {
                // It is dead, or its CID is what was damaged: then another block lies here.
                if !self.dead.has(&position) {
                    let from = u64::from(position.offset);
                    let gaps = gaps.entry(position.segment).or_default();
                    gaps.push(Damage { from, to: from + 1 });
                }
                continue;
            }
            // Reads of it fail from now on, and putting it again writes it again.
            self.mark_damaged(key, position);
            bad.push(BadBlock {
                cid: Some(cid),
                why: format!(
                    "{error}; segment {}, byte {}",
                    position.segment, position.offset
                ),
                section: Section { key, position },
            });
        }
        gaps.retain(|id, _| self.segment(*id).is_some());
        let hidden = gaps.iter().flat_map(|(id, gaps)| self.hidden(*id, gaps));
        bad.extend(hidden);
        bad
    }

    /// What is marked as damaged, from one look over the index.
    fn known_bad(&self) -> KnownBad {
        let mut bad = HashSet::new();
        let looked = self.index.each(0, |entries| {
            let damaged = entries.iter().filter(|(_, place)| place.damaged);
            bad.extend(damaged.map(|(_, place)| place.position()));
            ControlFlow::Continue(())
        });
        looked.map_or(KnownBad::Unknown, |_| KnownBad::These(bad))
    }

    fn drop_damaged(&self, sections: &[Section]) -> Result<Vec<bool>, PutError> {
        if self.files.access == Access::ReadOnly {
            return Err(PutError::ReadOnly);
        }
        // A deletion names places, so what it names must be beyond recovery's scissors first.
        self.commit(Vec::new())?;
        let mut went = Vec::with_capacity(sections.len());
        for some in sections.chunks(DEAD_PER_RECORD) {
            let _nobody_appends = self.lock_appender();
            let mut dead = Vec::with_capacity(some.len());
            let mut unknown = Vec::new();
            for Section { key, position } in some {
                if *key == NOBODY {
                    // Where no section can be, nothing can go.
                    let goes = position.offset > 0
                        && self.is_committed_at(position)
                        && !self.dead.has(position);
                    went.push(goes);
                    unknown.extend(goes.then_some(*position));
                    continue;
                }
                let place = self.index.place(key)?;
                let place = place.filter(|place| place.damaged && place.position() == *position);
                let goes = place.filter(|place| !self.is_dead(place) && self.is_committed(place));
                went.push(goes.is_some());
                dead.extend(goes.map(|place| (*key, place)));
            }
            if !dead.is_empty() {
                self.bury(&dead, Sync::Leave)?;
            }
            if !unknown.is_empty() {
                self.lock_journal()
                    .append(vec![Record::Deleted(unknown)], Sync::Leave)
                    .map_err(|error| self.write_failed("journal", &error))?;
            }
        }
        self.sync_journal()?;
        Ok(went)
    }

    pub(crate) fn all_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().cloned().collect()
    }
}

/// Whether sections hold what their CIDs name. References do if they are whole: what became of the files is the
/// user's, and told by `filestore verify`.
fn verified(batch: Batch) -> Vec<Result<(), BlockError>> {
    let mut verified = Vec::with_capacity(batch.len());
    let mut blocks = Vec::with_capacity(batch.len());
    for (position, cid, data) in batch {
        if position.segment.stream == Stream::File {
            let is_whole = section::is_whole(Stream::File, cid, data);
            let mismatch = BlockError::Mismatch { cid };
            verified.push(Some(if is_whole { Ok(()) } else { Err(mismatch) }));
        } else {
            verified.push(None);
            blocks.push((cid, data));
        }
    }
    let mut blocks = Block::verify_many(blocks).into_iter();
    let mut next = || blocks.next().map_or(Ok(()), |block| block.map(drop));
    verified
        .into_iter()
        .map(|known| known.unwrap_or_else(&mut next))
        .collect()
}

/// A segment of which the rest cannot be read at all: which blocks that takes is not known, and another time
/// it may be readable.
fn unreadable(segment: SegmentId, at: u64, error: &io::Error) -> BadBlock {
    BadBlock {
        cid: None,
        why: format!("segment {segment} cannot be read beyond byte {at}: {error}"),
        section: Section {
            key: NOBODY,
            position: Position { segment, offset: 0 },
        },
    }
}

fn next(waiting: &Mutex<Receiver<Batch>>) -> Option<Batch> {
    lock(waiting).recv().ok()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key of nobody's block: keys are hashes.
const NOBODY: Key = [0; 16];
/// Bytes after which a verification tells how far it is.
const TOLD_EVERY: u64 = 64 << 20;
/// Gaps that are looked up together.
const GAPS_TOGETHER_MAX: usize = 256;
/// Batches that wait to be hashed.
const BATCHES_WAITING_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Config, Reserve};
    use crate::disk::simulated::SimulatedDisk;
    use crate::index::Image;
    use crate::store::{Ground, OpenEvent};
    use std::path::Path;

    fn block(number: u8, length: usize) -> Block {
        let prefix = crate::block::Prefix {
            version: crate::cid::Version::V1,
            codec: crate::cid::RAW,
            hash: crate::cid::HashKind::Sha2_256,
        };
        Block::new(prefix, Bytes::from(vec![number; length])).unwrap()
    }

    /// Ten blocks of three sectors on a disk that has lost one sector of the fifth: that with its
    /// header, or the next.
    fn spoiled(which: u64) -> (SimulatedDisk, Arc<Image>, Vec<Block>) {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let blocks: Vec<Block> = (0..10).map(|number| block(number, 3 * 4096)).collect();
        let store = open(&disk, &image, &mut Vec::new());
        store_all(&store, &blocks);
        let place = store.inner.place(
            blocks[4].cid(),
            &store.inner.index.key(blocks[4].cid().hash()),
        );
        let place = place.unwrap().unwrap();
        store.inner.close().unwrap();
        let sector = (u64::from(place.offset) / 4096 + which) * 4096;
        let path = store.inner.files.path(place.segment);
        disk.spoil(&path, sector..sector + 4096);
        (disk, image, blocks)
    }

    fn store_all(store: &Store, blocks: &[Block]) {
        let mut writer = store.writer(crate::store::Keep::Kept);
        crate::sink::BlockSink::put(&mut writer, blocks.to_vec()).unwrap();
        writer.commit().unwrap();
    }

    fn open(disk: &SimulatedDisk, image: &Arc<Image>, notices: &mut Vec<OpenEvent>) -> Store {
        let ground = Ground::simulated(disk, image);
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        Store::open_on(ground, &config, &mut |event| notices.push(event)).unwrap()
    }

    #[test]
    fn a_sector_that_cannot_be_read_costs_its_block_and_ends_nothing() {
        let (disk, image, blocks) = spoiled(1);
        let store = open(&disk, &image, &mut Vec::new());
        let mut bad = Vec::new();
        let seen = store.inner.verify(&mut |_| {}, |one| bad.push(one));
        assert_eq!((seen, bad.len()), (10, 1));
        assert_eq!(bad[0].cid, Some(*blocks[4].cid()));

        let mut rounds = 0;
        let mut scrubbed = Vec::new();
        while store.inner.scrub(8192, &mut |one| scrubbed.push(one.cid)) > 0 {
            rounds += 1;
            assert!(rounds < 100, "it goes on behind the lost sector");
        }
        assert!(rounds > 3 && store.scrub_state().finished > 0);
        assert!(scrubbed.iter().all(|cid| *cid == Some(*blocks[4].cid())));
        for (number, block) in blocks.iter().enumerate() {
            let found = store.inner.block(block.cid());
            let damaged = matches!(found, Err(SourceError::Damaged { .. }));
            assert_eq!(damaged, number == 4);
            assert_eq!(
                !damaged,
                found.is_ok_and(|found| found.as_ref() == Some(block))
            );
        }
        store_all(&store, &blocks[4..=4]);
        let healed = store.inner.block(blocks[4].cid()).unwrap();
        assert_eq!(healed.as_ref(), Some(&blocks[4]));
    }

    #[test]
    fn what_lies_readable_behind_too_much_that_cannot_be_read_stays_whole() {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let blocks: Vec<Block> = (0..10).map(|number| block(number, 1 << 20)).collect();
        let store = open(&disk, &image, &mut Vec::new());
        store_all(&store, &blocks);
        let path = store.inner.all_segments()[0].id;
        let path = store.inner.files.path(path);
        // More sectors than a scan goes on behind, and the last blocks lie after them.
        disk.spoil(&path, (1 << 20) + 4096..7 << 20);
        let mut bad = Vec::new();
        store.inner.verify(&mut |_| {}, |one| bad.push(one));
        let sections: Vec<Section> = bad.iter().map(|one| one.section).collect();
        store.inner.drop_damaged(&sections).unwrap();
        for (number, block) in blocks.iter().enumerate() {
            let found = store.inner.block(block.cid());
            let is_there = found.is_ok_and(|found| found.as_ref() == Some(block));
            assert_eq!(is_there, number == 0 || number > 6, "{number}");
        }
    }

    #[test]
    fn reading_what_the_disk_has_lost_lets_it_be_put_again() {
        let (disk, image, blocks) = spoiled(1);
        let store = open(&disk, &image, &mut Vec::new());
        let found = store.inner.block(blocks[4].cid());
        assert!(matches!(found, Err(SourceError::Damaged { .. })));
        let mut writer = store.writer(crate::store::Keep::Cached);
        crate::sink::BlockSink::put(&mut writer, vec![blocks[4].clone()]).unwrap();
        let healed = store.inner.block(blocks[4].cid()).unwrap();
        assert_eq!(healed.as_ref(), Some(&blocks[4]));
    }

    #[test]
    fn an_index_made_from_what_could_be_read_is_made_again_at_the_next_opening() {
        let (disk, _, blocks) = spoiled(0);
        let image = Arc::new(Image::new());
        let mut notices = Vec::new();
        let store = open(&disk, &image, &mut notices);
        let told = |event: &OpenEvent| matches!(event, OpenEvent::Notice(text) if text.contains("hold no readable block"));
        assert!(notices.iter().any(told), "{notices:?}");
        // The sector held the end of one block and the beginning of the next.
        assert_eq!(store.stat().blocks, 8);
        assert_eq!(store.inner.block(blocks[4].cid()).unwrap(), None);
        store.inner.rebuild_alone(&mut |_| {}).unwrap_err();
        assert_eq!(store.stat().blocks, 8);
        store.inner.checkpoint().unwrap();
        store.inner.close().unwrap();
        drop(store);
        disk.mend();
        let store = open(&disk, &image, &mut Vec::new());
        assert_eq!(store.stat().blocks, 10);
        for block in &blocks {
            let found = store.inner.block(block.cid()).unwrap();
            assert_eq!(found.as_ref(), Some(block));
        }
        drop(store);
        // As nothing was lost any more, this index may be trusted.
        disk.spoil(Path::new("/repository/blocks/leaf-000001.car"), 0..1 << 30);
        let store = open(&disk, &image, &mut Vec::new());
        assert_eq!(store.stat().blocks, 10);
    }
}
