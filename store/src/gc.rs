//! Mark and sweep while others work, then compaction, which gives the space back.
//!
//! What must never be deleted: what a pin reaches, what anybody holds, and every section appended
//! after the mark began. The sweep works in batches, alone: no writer is between holding a block and
//! looking for it. In each batch it first asks the holds and then looks whether pins were made
//! meanwhile, which it marks before it asks again: whoever let go of a hold has made its pin before.
//!
//! If anything below a pin cannot be read, nothing is deleted at all.

use crate::block::Block;
use crate::cid::{self, Cid, Multihash};
use crate::dag;
use crate::index::Key;
use crate::journal::DEAD_PER_RECORD;
use crate::journal::record::Record;
use crate::log::append::APPEND_BYTES_MAX;
use crate::log::scan::{Scan, Step, read_unchecked};
use crate::log::section;
use crate::log::segment::Segment;
use crate::log::{Place, SegmentId};
use crate::pin::{Pin, PinMode};
use crate::sink::PutError;
use crate::store::{Inner, MERGE_AT, Store, blocking, remove_segment};
use crate::unixfs::read::ReadError;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

/// What a garbage collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blocks deleted.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes given back to the file system.
    pub freed: u64,
}

/// Why a garbage collection did not go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// A pinned DAG could not be read whole, so it is not known what must stay.
    #[error(
        "nothing more was removed: {root} is pinned, but {source}; fetch it again, or unpin it"
    )]
    Unreadable {
        /// The pin.
        root: Cid,
        /// What went wrong below it.
        source: Box<ReadError>,
    },
    /// The journal has lost records, so pins may be missing.
    #[error("nothing was removed: {damage}")]
    Journal {
        /// What was lost, and what to do.
        damage: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Store {
    /// Deletes every block that no pin and no running work reaches, telling each, and gives their
    /// space back. Only one collection runs at a time; a second call waits for the first.
    pub async fn gc(
        &self,
        on_removed: impl FnMut(Cid) + Send + 'static,
    ) -> Result<GcReport, GcError> {
        let alone = self.inner.collecting.clone().lock_owned().await;
        let inner = self.inner.clone();
        blocking(move || {
            let report = Collection::new(inner, on_removed).run();
            // Goes along: the run ends by itself even if nobody waits for it any more.
            drop(alone);
            report
        })
        .await
        .unwrap_or(Err(GcError::Put(PutError::Closing)))
    }
}

/// One run.
struct Collection<F> {
    inner: Arc<Inner>,
    on_removed: F,
    /// How long each segment was when the mark began: what lies beyond is live.
    ends: BTreeMap<SegmentId, u64>,
    /// Multihashes that must stay, by key.
    live: HashSet<Key>,
    /// Codecs and multihashes walked, by key.
    walked: HashSet<Key>,
    /// Pins marked as what they were, and the count of changes when they were read.
    marked: HashSet<(Vec<u8>, PinMode)>,
    changes: u64,
    report: GcReport,
}

impl<F: FnMut(Cid)> Collection<F> {
    fn new(inner: Arc<Inner>, on_removed: F) -> Self {
        Self {
            inner,
            on_removed,
            ends: BTreeMap::new(),
            live: HashSet::new(),
            walked: HashSet::new(),
            marked: HashSet::new(),
            changes: 0,
            report: GcReport::default(),
        }
    }

    fn run(mut self) -> Result<GcReport, GcError> {
        if let Some(damage) = &self.inner.journal_damage {
            return Err(GcError::Journal {
                damage: damage.clone(),
            });
        }
        {
            let _nobody_appends = self.inner.lock_appender();
            let segments = self
                .inner
                .segments
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            self.ends = segments
                .iter()
                .map(|(id, segment)| (*id, segment.length()))
                .collect();
        }
        self.mark()?;
        // Afterwards sled knows everything that was there when the mark began, all of it durable.
        self.inner.checkpoint()?;
        self.sweep()?;
        self.inner.checkpoint()?;
        self.compact()?;
        self.inner.metrics.collections.inc();
        Ok(self.report)
    }

    /// Marks pins that are not marked yet.
    fn mark(&mut self) -> Result<(), GcError> {
        let (pins, changes) = {
            let pins = self.inner.read_pins();
            let all = pins
                .by_key
                .iter()
                .map(|(key, pin)| ((key.clone(), pin.mode), pin.clone()));
            let new: Vec<_> = all.filter(|(pin, _)| !self.marked.contains(pin)).collect();
            (new, pins.changes)
        };
        for (key, pin) in pins {
            self.mark_pin(&pin).map_err(|source| GcError::Unreadable {
                root: pin.cid,
                source: source.into(),
            })?;
            self.marked.insert(key);
        }
        self.changes = changes;
        Ok(())
    }

    fn mark_pin(&mut self, pin: &Pin) -> Result<(), ReadError> {
        let mut todo = vec![pin.cid];
        while let Some(cid) = todo.pop() {
            let key = self.inner.index.key(cid.hash());
            let is_new = self.live.insert(key);
            let identity = cid::is_identity(&cid);
            if pin.mode == PinMode::Direct || dag::has_no_links(cid.codec()) {
                // Not noted as walked: another pin may reach below what this one only names.
                if is_new && !identity && self.inner.place(&cid, &key)?.is_none() {
                    return Err(ReadError::NotFound(cid));
                }
                continue;
            }
            if !self.walked.insert(self.walk_key(&cid)) {
                continue;
            }
            let block = match Block::from_identity(&cid) {
                Some(block) => block,
                None => self.inner.block(&cid)?.ok_or(ReadError::NotFound(cid))?,
            };
            let links = dag::links(&block).map_err(|error| ReadError::Malformed {
                cid,
                why: error.why,
            })?;
            todo.extend(links.into_iter().map(|link| link.cid));
        }
        Ok(())
    }

    /// Links are read along the referring CID's codec, so a multihash may be walked once for each.
    fn walk_key(&self, cid: &Cid) -> Key {
        let mut named = cid.codec().to_le_bytes().to_vec();
        named.extend_from_slice(&self.inner.index.key(cid.hash()));
        Multihash::wrap(0, &named)
            .map_or_else(|_| Key::default(), |named| self.inner.index.key(&named))
    }

    fn sweep(&mut self) -> Result<(), GcError> {
        let inner = self.inner.clone();
        let mut candidates = Vec::new();
        for bucket in inner.index.merged() {
            let bucket = bucket.map_err(PutError::from)?;
            let old = |place: &Place| {
                self.ends
                    .get(&place.segment)
                    .is_some_and(|end| u64::from(place.offset) < *end)
            };
            candidates.extend(
                bucket
                    .into_iter()
                    .filter(|(key, place)| !self.live.contains(key) && old(place)),
            );
            if candidates.len() >= DEAD_PER_RECORD {
                self.sweep_batch(std::mem::take(&mut candidates))?;
                if inner.index.waiting() >= MERGE_AT {
                    inner.checkpoint()?;
                }
            }
        }
        self.sweep_batch(candidates)
    }

    fn sweep_batch(&mut self, mut candidates: Vec<(Key, Place)>) -> Result<(), GcError> {
        let inner = self.inner.clone();
        let mut alone = inner
            .sweeping
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            self.spare_the_reached(&mut candidates)?;
            // Looked at after the holds: whoever let go of one has made its pin before.
            if inner.read_pins().changes == self.changes {
                break;
            }
            drop(alone);
            self.mark()?;
            alone = inner
                .sweeping
                .write()
                .unwrap_or_else(PoisonError::into_inner);
        }
        let appender = inner.lock_appender();
        for some in candidates.chunks(DEAD_PER_RECORD) {
            inner.bury(some)?;
        }
        drop(appender);
        drop(alone);
        for (_, place) in candidates {
            self.report.blocks += 1;
            self.report.bytes += u64::from(place.length);
            inner.metrics.collected.inc();
            let head = inner.segment(place.segment).and_then(|segment| {
                segment
                    .read_unchecked(place.offset.into(), section::PREFIX_MAX as u64)
                    .ok()
            });
            if let Some(header) = head.and_then(|head| section::header(&head)) {
                (self.on_removed)(header.cid);
            }
        }
        Ok(())
    }

    /// Takes out of `candidates` what is live, held, or no longer where it was.
    fn spare_the_reached(&self, candidates: &mut Vec<(Key, Place)>) -> Result<(), PutError> {
        let mut failed = None;
        candidates.retain(|(key, place)| {
            let still = match self.inner.index.place(key) {
                Ok(now) => now.is_some_and(|now| now.position() == place.position()),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            };
            still
                && !self.inner.is_dead(place)
                && !self.live.contains(key)
                && !self.inner.is_held(key)
        });
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Copies what lives out of segments that are mostly dead, and removes them.
    fn compact(&mut self) -> Result<(), GcError> {
        let mut living: HashMap<SegmentId, u64> = HashMap::new();
        for bucket in self.inner.index.merged() {
            for (_, place) in bucket.map_err(PutError::from)? {
                let section = section::PREFIX_MAX as u64 + u64::from(place.length);
                *living.entry(place.segment).or_default() += section;
            }
        }
        let ends = std::mem::take(&mut self.ends);
        for (id, length) in ends {
            let dead = length.saturating_sub(living.get(&id).copied().unwrap_or(0));
            let worth_it = dead > length / 2 && length > section::file_header().len() as u64;
            if let Some(segment) = self.inner.segment(id).filter(|_| worth_it) {
                self.report.freed += self.inner.compact(&segment)?;
            }
        }
        Ok(())
    }
}

/// A block on its way to another segment.
struct Move {
    key: Key,
    from: Place,
    to: Place,
}

impl Inner {
    /// Moves the living sections of a segment elsewhere and removes it; answers the bytes that
    /// gives back. A segment with an unreadable section stays.
    fn compact(&self, segment: &Segment) -> Result<u64, PutError> {
        let disk = |error: std::io::Error| PutError::Disk(format!("{}: {error}", segment.id));
        self.lock_appender().rotate(segment.id);
        let losses = self.losses();
        self.commit_since(losses, Vec::new())?;
        let mut scan = Scan::new(segment, 0);
        let mut batch: Vec<(Key, Place, Block)> = Vec::new();
        let mut batch_bytes = 0;
        let mut moves = Vec::new();
        while let Some(step) = scan.next().map_err(disk)? {
            let Step::Found(found) = step else {
                tracing::warn!(segment = %segment.id, "damage keeps a segment from being compacted");
                return Ok(0);
            };
            let key = self.index.key(found.header.cid.hash());
            let here = |place: &Place| {
                place.segment == segment.id && place.offset == found.offset && !self.is_dead(place)
            };
            let Some(place) = self.index.place(&key)?.filter(here) else {
                continue;
            };
            let Some(block) = read_unchecked(segment, &found).map_err(disk)? else {
                tracing::warn!(segment = %segment.id, cid = %found.header.cid,
                    "a damaged block keeps its segment from being compacted");
                return Ok(0);
            };
            batch_bytes += block.data().len();
            batch.push((key, place, block));
            if batch_bytes >= COPY_BYTES {
                self.copy(&std::mem::take(&mut batch), &mut moves)?;
                batch_bytes = 0;
            }
        }
        self.copy(&batch, &mut moves)?;
        // Durable before anything points at the copies; pointed at before the originals go.
        self.commit_since(losses, Vec::new())?;
        self.repoint(&moves)?;
        self.commit_since(losses, vec![Record::Retired(segment.id)])?;
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&segment.id);
        self.dead
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|position| position.segment != segment.id);
        remove_segment(&self.blocks_folder, segment.id).map_err(disk)?;
        let moved: u64 = moves.iter().map(|moved| u64::from(moved.to.length)).sum();
        Ok(segment.length().saturating_sub(moved))
    }

    /// Appends copies. Nothing points at them yet.
    fn copy(&self, batch: &[(Key, Place, Block)], moves: &mut Vec<Move>) -> Result<(), PutError> {
        let Some((_, first, _)) = batch.first() else {
            return Ok(());
        };
        let blocks: Vec<&Block> = batch.iter().map(|(_, _, block)| block).collect();
        let (places, segment) = self
            .lock_appender()
            .append(first.segment.stream, &blocks, false)
            .map_err(|error| PutError::Disk(format!("compaction: {error}")))?;
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(segment.id)
            .or_insert(segment);
        let pairs = batch.iter().zip(places);
        moves.extend(pairs.map(|((key, from, _), to)| Move {
            key: *key,
            from: *from,
            to,
        }));
        Ok(())
    }

    /// Lets the copies count, unless their originals were deleted meanwhile: then they are dead.
    fn repoint(&self, moves: &[Move]) -> Result<(), PutError> {
        let mut stillborn = Vec::new();
        let appender = self.lock_appender();
        for moved in moves {
            let now = self
                .index
                .place(&moved.key)?
                .filter(|now| !self.is_dead(now));
            match now.filter(|now| now.position() == moved.from.position()) {
                Some(now) => {
                    self.index.insert([(
                        moved.key,
                        Place {
                            cached: now.cached,
                            ..moved.to
                        },
                    )]);
                }
                None => stillborn.push(moved.to.position()),
            }
        }
        drop(appender);
        for some in stillborn.chunks(DEAD_PER_RECORD) {
            self.commit(vec![Record::Deleted(some.to_vec())])?;
            self.dead
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(some);
        }
        Ok(())
    }
}

/// Bytes copied under one lock.
const COPY_BYTES: usize = APPEND_BYTES_MAX / 8;
