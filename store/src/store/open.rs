//! What opening trusts, cuts, adopts and rebuilds.
//!
//! The journal says how far each segment counts: what lies beyond is cut. Retired segments that are
//! still there are removed; segments that the journal does not know are adopted as far as their
//! blocks hash to their CIDs. The index is derived: when it is missing, unusable or does not fit
//! the log, it is built anew; else only what was appended since its checkpoint is scanned.

use super::commit::Syncer;
use super::metrics::Metrics;
use super::{Inner, Pins, Store};
use crate::config::Config;
use crate::index::{Checkpoint, Index, IndexError};
use crate::journal::record::Record;
use crate::journal::{Journal, Replay, Sync};
use crate::log::append::Appender;
use crate::log::scan::{Found, Scan, Step, read_unchecked};
use crate::log::segment::{self, Segment};
use crate::log::{Place, Position, SegmentId, Stream, section};
use crate::{durable, format};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// Why a repository's store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the repository at {path} is in use by another process (it holds {path}/repo.lock); stop \
         it, or talk to it through its RPC"
    )]
    Locked {
        /// The repository.
        path: String,
    },
    /// The disk refused.
    #[error("cannot open the repository: {what}: {source}")]
    Disk {
        /// What was tried, and on which file.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Written by a newer program.
    #[error(
        "the repository at {path} has format {found}, this program reads up to {known}; use a \
         newer cairn"
    )]
    Newer {
        /// The repository.
        path: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// What opening does that takes long enough to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenEvent {
    /// The index is being rebuilt from the log; bytes done of bytes in all.
    Rebuilding {
        /// Bytes of the log read.
        done: u64,
        /// Bytes of the log.
        total: u64,
    },
    /// Something was set aside, cut or skipped; a sentence for the operator.
    Notice(String),
}

impl Store {
    /// Opens the store in the repository folder `root`, made if it is not there. `root/repo.lock`
    /// is held until the last clone is gone.
    pub fn open(
        root: &Path,
        config: &Config,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<Self, OpenError> {
        raise_file_limit();
        fs::create_dir_all(root).map_err(disk(root))?;
        let lock = lock(root)?;
        format::check(root)?;
        let blocks_folder = root.join("blocks");
        fs::create_dir_all(&blocks_folder).map_err(disk(&blocks_folder))?;

        let journal_folder = root.join("journal");
        let (mut journal, replay) =
            Journal::open(&journal_folder).map_err(disk(&journal_folder))?;
        replay
            .notices
            .iter()
            .cloned()
            .map(OpenEvent::Notice)
            .for_each(&mut *on_event);
        let log = open_log(&blocks_folder, &mut journal, &replay, on_event)
            .map_err(disk(&blocks_folder))?;

        let index_folder = root.join("index");
        let mut notice = |text| on_event(OpenEvent::Notice(text));
        let (index, checkpoint) = Index::open(&index_folder, config.index_cache.0, &mut notice)
            .map_err(disk(&index_folder))?;

        let state = journal.state();
        let by_key = state.pins.clone();
        let inner = Arc::new(Inner {
            config: config.clone(),
            index,
            appender: Mutex::new(log.appender(&blocks_folder, config.segment_size.0)),
            segments: RwLock::new(log.segments),
            blocks_folder,
            pins: RwLock::new(Pins { by_key, changes: 0 }),
            dead: RwLock::new(state.dead.clone()),
            journal: Mutex::new(journal),
            damaged: RwLock::default(),
            holds: Mutex::default(),
            sweeping: RwLock::default(),
            blocks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            unsynced: AtomicU64::new(0),
            unmerged: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            superseded: Mutex::default(),
            journal_damage: replay.damage.clone(),
            commits: super::commit::Group::default(),
            collecting: Arc::default(),
            metrics: Metrics::new().map_err(|error| disk(root)(io::Error::other(error)))?,
            closed: false.into(),
            syncer: Mutex::default(),
            _lock: lock,
        });
        let index_disk = |error: IndexError| disk(&index_folder)(io::Error::other(error));
        let usable = checkpoint.filter(|checkpoint| log.complete && inner.fits(checkpoint));
        match usable {
            Some(checkpoint) => inner
                .catch_up(&checkpoint, &replay, on_event)
                .map_err(index_disk)?,
            None => inner.rebuild(on_event).map_err(index_disk)?,
        }
        let syncer = Syncer::start(&inner).map_err(disk(root))?;
        if let Ok(mut slot) = inner.syncer.lock() {
            *slot = Some(syncer);
        }
        Ok(Self { inner })
    }
}

/// The log's files, opened.
struct Log {
    segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// Highest number ever used, by stream.
    last: BTreeMap<Stream, u32>,
    /// Whether every journalled segment is there as long as it should be.
    complete: bool,
}

impl Log {
    fn appender(&self, folder: &Path, segment_bytes: u64) -> Appender {
        let mut active = BTreeMap::new();
        for (stream, number) in &self.last {
            let id = SegmentId {
                stream: *stream,
                number: *number,
            };
            if let Some(segment) = self.segments.get(&id)
                && segment.may_grow()
            {
                active.insert(*stream, segment.clone());
            }
        }
        Appender::new(folder, segment_bytes, active, self.last.clone())
    }
}

fn open_log(
    folder: &Path,
    journal: &mut Journal,
    replay: &Replay,
    on_event: &mut dyn FnMut(OpenEvent),
) -> io::Result<Log> {
    let mut notice = |text: String| on_event(OpenEvent::Notice(text));
    let state = journal.state();
    let mut log = Log {
        segments: BTreeMap::new(),
        last: BTreeMap::new(),
        complete: true,
    };
    let mut unknown = Vec::new();
    let mut grown = Vec::new();
    let mut lost: BTreeMap<SegmentId, u32> = state.lengths.clone();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(SegmentId::from_file_name) else {
            continue;
        };
        if state.retired.contains(&id) {
            remove_segment(folder, id)?;
        } else if let Some(length) = lost.remove(&id) {
            let found = fs::metadata(segment::path(folder, id))?.len();
            let length = u64::from(length);
            if replay.damaged && found > length {
                // The record that said how far it counts may be the one that was lost.
                grown.push((id, length));
                continue;
            }
            if found < length {
                log.complete = false;
                notice(format!(
                    "segment {id}: {length} bytes were acknowledged, {found} are there; the disk \
                     lost what it had promised to keep"
                ));
            }
            let opened = Segment::open(folder, id, length.min(found))?;
            log.segments.insert(id, Arc::new(opened));
        } else {
            unknown.push(id);
        }
    }
    for id in lost.into_keys() {
        log.complete = false;
        notice(format!("segment {id} is missing; its blocks are gone"));
    }
    let unknown: Vec<(SegmentId, u64)> =
        unknown.into_iter().map(|id| (id, 0)).chain(grown).collect();
    let used = log
        .segments
        .keys()
        .chain(&state.retired)
        .chain(state.lengths.keys())
        .chain(unknown.iter().map(|(id, _)| id));
    for id in used {
        let last = log.last.entry(id.stream).or_insert(0);
        *last = id.number.max(*last);
    }
    let mut adopted = Vec::new();
    for (id, known) in unknown {
        if let Some(segment) = adopt(folder, id, known)? {
            let length = segment.length();
            if length > section::file_header().len() as u64 {
                notice(format!(
                    "segment {id} was not in the journal; {length} bytes were adopted"
                ));
            }
            adopted.push((id, u32::try_from(length).unwrap_or(u32::MAX)));
            log.segments.insert(id, Arc::new(segment));
        }
    }
    if !adopted.is_empty() {
        log.complete = false;
        journal.append(vec![Record::Committed(adopted)], Sync::Wait)?;
    }
    Ok(log)
}

/// A segment that the journal knows up to `known`, and beyond that as far as its blocks hash to their
/// CIDs. One without even a header is set aside.
fn adopt(folder: &Path, id: SegmentId, known: u64) -> io::Result<Option<Segment>> {
    let path = segment::path(folder, id);
    let header = section::file_header();
    let whole = Segment::open(folder, id, fs::metadata(&path)?.len())?;
    if whole.read_unchecked(0, header.len() as u64)? != header {
        let kept = path.with_extension("foreign");
        fs::rename(&path, &kept)?;
        return Ok(None);
    }
    let mut end = known.max(header.len() as u64);
    let mut scan = Scan::new(&whole, known);
    while let Some(Step::Found(found)) = scan.next()? {
        if read_unchecked(&whole, &found)?.is_none() {
            break;
        }
        end = scan.position();
    }
    drop(scan);
    let _ = fs::remove_file(segment::sidecar_path(folder, id)); // It may be of another length.
    Segment::open(folder, id, end).map(Some)
}

/// Removes a segment's files.
pub(crate) fn remove_segment(folder: &Path, id: SegmentId) -> io::Result<()> {
    fs::remove_file(segment::path(folder, id))?;
    match fs::remove_file(segment::sidecar_path(folder, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => durable::sync_folder(folder),
    }
}

impl Inner {
    /// Whether the index can have been made from this log.
    fn fits(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint
            .ends
            .iter()
            .all(|(id, end)| match self.segment(*id) {
                Some(segment) => segment.length() >= u64::from(*end),
                None => self.lock_journal().state().retired.contains(id),
            })
    }

    /// Brings the index from its checkpoint to the end of the log.
    fn catch_up(
        &self,
        checkpoint: &Checkpoint,
        replay: &Replay,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        self.blocks.store(checkpoint.blocks, Ordering::Relaxed);
        self.bytes.store(checkpoint.bytes, Ordering::Relaxed);
        let later = replay
            .deletions
            .iter()
            .filter(|(number, _)| *number > checkpoint.journal);
        for position in later.flat_map(|(_, positions)| positions) {
            self.unindex_deleted(position)?;
        }
        for (id, segment) in self.open_segments() {
            match known_from(checkpoint, id) {
                None => {}
                Some(from) => self.index_segment(&segment, from.into(), on_event)?,
            }
        }
        Ok(())
    }

    /// Makes the index anew from the whole log.
    fn rebuild(&self, on_event: &mut dyn FnMut(OpenEvent)) -> Result<(), IndexError> {
        self.index.clear()?;
        let segments = self.open_segments();
        let total: u64 = segments.iter().map(|(_, segment)| segment.length()).sum();
        let mut done = 0;
        for (_, segment) in segments {
            if total > REBUILD_TOLD {
                on_event(OpenEvent::Rebuilding { done, total });
            }
            self.index_segment(&segment, 0, on_event)?;
            done += segment.length();
        }
        if total > REBUILD_TOLD {
            on_event(OpenEvent::Rebuilding { done, total });
        }
        self.checkpoint()
            .map_err(|error| {
                on_event(OpenEvent::Notice(format!(
                    "the new index could not be written: {error}"
                )));
            })
            .or(Ok(()))
    }

    fn open_segments(&self) -> Vec<(SegmentId, Arc<Segment>)> {
        let segments = self
            .segments
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        segments
            .iter()
            .map(|(id, segment)| (*id, segment.clone()))
            .collect()
    }

    fn index_segment(
        &self,
        segment: &Segment,
        from: u64,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<(), IndexError> {
        let mut scan = Scan::new(segment, from);
        loop {
            match scan.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Step::Found(found))) => self.index_section(segment.id, &found)?,
                Ok(Some(Step::Retracted(found))) => self.unindex_section(segment.id, &found)?,
                Ok(Some(Step::Damage(damage))) => on_event(OpenEvent::Notice(format!(
                    "segment {}: bytes {} to {} hold no readable block",
                    segment.id, damage.from, damage.to
                ))),
                Err(error) => {
                    on_event(OpenEvent::Notice(format!(
                        "segment {} cannot be read beyond byte {}: {error}",
                        segment.id,
                        scan.position()
                    )));
                    return Ok(());
                }
            }
        }
    }

    fn index_section(&self, segment: SegmentId, found: &Found) -> Result<(), IndexError> {
        let place = place_of(segment, found);
        if self.is_dead(&place) {
            return Ok(());
        }
        let key = self.index.key(found.header.cid.hash());
        match self.index.place(&key)?.filter(|old| !self.is_dead(old)) {
            Some(old) if old.position() == place.position() => return Ok(()),
            Some(_) => {}
            None => {
                self.blocks.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(place.length.into(), Ordering::Relaxed);
            }
        }
        self.index.insert([(key, place)]);
        if self.index.waiting() >= super::commit::MERGE_AT
            && let Some(frozen) = self.index.freeze()
        {
            // Without a position: a kill before the end starts from the last one again.
            self.index.merge(&frozen, None)?;
        }
        Ok(())
    }

    /// Takes a deletion that the index may have missed out of it.
    fn unindex_deleted(&self, position: &Position) -> Result<(), IndexError> {
        let Some(segment) = self.segment(position.segment) else {
            return Ok(());
        };
        let head = segment.read_unchecked(position.offset.into(), section::PREFIX_MAX as u64);
        let Some(header) = head.ok().and_then(|head| section::header(&head)) else {
            return Ok(());
        };
        self.unindex_section(
            position.segment,
            &Found {
                offset: position.offset,
                header,
            },
        )
    }

    fn unindex_section(&self, segment: SegmentId, found: &Found) -> Result<(), IndexError> {
        let place = place_of(segment, found);
        let key = self.index.key(found.header.cid.hash());
        if self
            .index
            .place(&key)?
            .is_some_and(|known| known.position() == place.position())
        {
            self.index.remove([key]);
            self.uncount(place.length.into());
        }
        Ok(())
    }

    fn uncount(&self, bytes: u64) {
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// From where the checkpoint's index does not know a segment; `None` if it knows it whole.
fn known_from(checkpoint: &Checkpoint, id: SegmentId) -> Option<u32> {
    if let Some(end) = checkpoint.ends.get(&id) {
        return Some(*end);
    }
    let later = checkpoint
        .ends
        .keys()
        .any(|end| end.stream == id.stream && end.number > id.number);
    (!later).then_some(0)
}

fn place_of(segment: SegmentId, found: &Found) -> Place {
    // After a rebuild all blocks are kept; only a full mark takes that away.
    Place {
        segment,
        offset: found.offset,
        length: found.header.length,
        cached: false,
    }
}

/// Each segment keeps two files open: asks for as many as the system lets us have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused, it stays as it is; opening says which file did not open.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        );
    }
}

/// Takes the lock; the second process is told at once.
fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("repo.lock");
    let open = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = open.map_err(disk(&path))?;
    match file.try_lock() {
        Ok(()) => {
            // For whoever looks; the lock itself is the operating system's and dies with us.
            let _ = file.set_len(0);
            let _ = writeln!(file, "{}", std::process::id());
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            path: root.display().to_string(),
        }),
        Err(TryLockError::Error(source)) => Err(disk(&path)(source)),
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> OpenError + Clone {
    let what = path.display().to_string();
    move |source| OpenError::Disk { what, source }
}

/// Logs smaller than this are indexed before anybody wonders.
const REBUILD_TOLD: u64 = 256 << 20;
