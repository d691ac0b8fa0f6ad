//! What opening trusts, cuts, adopts and rebuilds.
//!
//! The journal says how far each segment counts: what lies beyond is cut. Retired segments that are
//! still there are removed, if what was copied out of them is there; segments that the journal does not
//! know are adopted as far as their blocks hash to their CIDs. The index is derived: when it is missing,
//! unusable, older than the journal knows it, or does not fit the log, it is built anew; else only what
//! happened since its checkpoint is looked at ([`super::reindex`]).
//!
//! A repository that cannot be written is opened for reading: nothing is cut, removed or adopted on the
//! disk, and the index is built in memory.

use super::checkpoint::Syncer;
use super::metrics::Metrics;
use super::rebuild::Partial;
use super::recency::Recency;
use super::reindex::CaughtUp;
use super::{Inner, Store};
use crate::config::Config;
use crate::disk::{Disk, RealDisk};
use crate::format;
use crate::index::{Image, Index, IndexError, Location};
use crate::journal::record::Record;
use crate::journal::{Blocks, Journal, Replay, Sync};
use crate::log::append::Appender;
use crate::log::files::{Access, Files};
use crate::log::scan::{Scan, Step};
use crate::log::segment::{Growth, Segment};
use crate::log::{SegmentId, Stream, section};
use crate::sink::PutError;
use crate::sync::{Mutex, PlainMutex, RwLock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Why a repository's store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the repository at {path} is in use by another process (it holds {path}/repo.lock, which \
         goes with it and need not be removed); stop it, or talk to it through its RPC"
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

/// What a store stands on.
pub(crate) struct Ground {
    pub(crate) root: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) access: Access,
    pub(crate) index: Location,
    /// Held as long as the store is: the one writer.
    pub(crate) lock: Vec<File>,
    pub(crate) background: Background,
}

#[cfg(test)]
impl Ground {
    /// A store that can be written, on a simulated disk, with its index in memory.
    pub(crate) fn simulated(
        disk: &crate::disk::simulated::SimulatedDisk,
        image: &Arc<Image>,
    ) -> Self {
        Self {
            root: PathBuf::from("/repository"),
            disk: Arc::new(disk.clone()),
            access: Access::ReadWrite,
            index: Location::Memory(image.clone()),
            lock: Vec::new(),
            background: Background::None,
        }
    }
}

/// Whether the store writes out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Background {
    /// On a thread of its own.
    Thread,
    /// Only when it is asked, so that tests decide what happens when.
    #[cfg(test)]
    None,
}

impl Store {
    /// Opens the store in the repository folder `root`, made if it is not there. `root/repo.lock`
    /// is held until the last clone is gone. If the folder cannot be written, the store is opened for
    /// reading alone ([`Store::is_read_only`]).
    pub fn open(
        root: &Path,
        config: &Config,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<Self, OpenError> {
        raise_file_limit();
        let (lock, access) = enter(root)?;
        if access == Access::ReadOnly {
            on_event(OpenEvent::Notice(format!(
                "{} cannot be written; it is opened for reading alone, with an index in memory",
                root.display()
            )));
        }
        format::check(root, access)?;
        let index = match access {
            Access::ReadWrite => Location::Folder(root.join("index")),
            Access::ReadOnly => Location::Memory(Arc::new(Image::new())),
        };
        let ground = Ground {
            root: root.to_owned(),
            disk: Arc::new(RealDisk),
            access,
            index,
            lock,
            background: Background::Thread,
        };
        Self::open_on(ground, config, on_event)
    }

    /// Opens a store on any ground.
    pub(crate) fn open_on(
        ground: Ground,
        config: &Config,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<Self, OpenError> {
        let Ground {
            root,
            disk: system,
            access,
            index: location,
            lock,
            background,
        } = ground;
        let blocks_folder = root.join("blocks");
        if access == Access::ReadWrite {
            system
                .make_folder(&blocks_folder)
                .map_err(disk(&blocks_folder))?;
        }
        let files = Files::new(system.clone(), &blocks_folder, access);
        let names = segment_names(&files).map_err(disk(&blocks_folder))?;
        let journal_folder = root.join("journal");
        let blocks = if names.is_empty() {
            Blocks::None
        } else {
            Blocks::Some
        };
        let mut notice = |text| on_event(OpenEvent::Notice(text));
        let is_full = access == Access::ReadWrite
            && matches!(location, Location::Folder(_))
            && system
                .space(&blocks_folder)
                .is_ok_and(|space| space.free < INDEX_OPENING_ROOM);
        let location = if is_full {
            notice(format!(
                "the disk with {} is full; the index is built in memory",
                root.display()
            ));
            Location::Memory(Arc::new(Image::new()))
        } else {
            location
        };
        // First: it knows how far the journal must go.
        let opened = Index::open(&location, config.index_cache.0, &mut notice).or_else(|error| {
            notice(format!(
                "{} cannot be used ({error}); the index is in memory until the next start",
                root.join("index").display()
            ));
            let memory = Location::Memory(Arc::new(Image::new()));
            Index::open(&memory, config.index_cache.0, &mut |_| {})
        });
        let (index, checkpoint) = opened.map_err(disk(&root.join("index")))?;
        let known = checkpoint.as_ref().map_or(0, |known| known.journal);
        let (mut journal, mut replay) =
            Journal::open(system.clone(), &journal_folder, access, blocks, known)
                .map_err(disk(&journal_folder))?;
        std::mem::take(&mut replay.notices)
            .into_iter()
            .map(OpenEvent::Notice)
            .for_each(&mut *on_event);
        let log = open_log(&files, names, &mut journal, &replay, on_event)
            .map_err(disk(&blocks_folder))?;

        let state = journal.state();
        let pins = state.pins.clone();
        let notes = state.notes.clone();
        let dead = state.dead.clone();
        let appender = log.appender(&files, &state.lengths, config);
        let appender = appender.map_err(disk(&blocks_folder))?;
        let inner = Arc::new(Inner {
            config: config.clone(),
            root: root.clone(),
            index,
            turn: Mutex::default(),
            appender: Mutex::new(appender),
            segments: RwLock::new(log.segments),
            files,
            pins,
            notes: RwLock::new(notes),
            dead,
            journal: Mutex::new(journal),
            holds: Mutex::default(),
            sweeping: RwLock::default(),
            counts: super::Counts::default(),
            unsynced: AtomicU64::new(0),
            unmerged: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            superseded: Mutex::default(),
            disowned: Mutex::default(),
            promoted: Mutex::default(),
            abandoned: Mutex::default(),
            left_unsynced: Mutex::default(),
            recency: Recency::default(),
            haste: super::at_once::Haste::default(),
            hot: super::hot::Hot::new(config.hot_blocks.0),
            scrub: PlainMutex::default(),
            recovering: Mutex::default(),
            reindexed: Mutex::default(),
            journal_damage: replay.damage.clone(),
            commits: super::commit::Group::default(),
            collecting: Arc::default(),
            removing: Mutex::default(),
            wakes: tokio::sync::Notify::new(),
            metrics: Metrics::new().map_err(|error| disk(&root)(io::Error::other(error)))?,
            closed: false.into(),
            syncer: Mutex::default(),
            _lock: lock,
        });
        let index_folder = root.join("index");
        let index_disk = |error: IndexError| disk(&index_folder)(io::Error::other(error));
        let usable = checkpoint
            .filter(|checkpoint| log.complete && !replay.behind && inner.fits(checkpoint));
        if access == Access::ReadWrite {
            inner.leave_uncovered(usable.as_ref());
        }
        let caught_up = match usable {
            Some(checkpoint) => inner
                .catch_up(&checkpoint, &log.adopted, on_event)
                .unwrap_or_else(|error| {
                    on_event(OpenEvent::Notice(format!("{error}; it is built anew")));
                    CaughtUp::No
                }),
            None => CaughtUp::No,
        };
        if caught_up == CaughtUp::No {
            let emptied = inner.index.clear().map_err(PutError::from);
            let built = emptied.and_then(|()| inner.rebuild(Partial::Taken, on_event));
            if let Err(error) = built {
                on_event(OpenEvent::Notice(format!(
                    "the index could not be built on the disk ({error}); it is in memory until the \
                     next start"
                )));
                inner.go_on_in_memory(&error).map_err(&index_disk)?;
                inner.recount().map_err(&index_disk)?;
            }
        }
        *inner.lock_scrub() = inner.remembered_scrub();
        if access == Access::ReadWrite {
            inner.make_ballast();
        }
        if background == Background::Thread && access == Access::ReadWrite {
            let syncer = Syncer::start(&inner).map_err(disk(&root))?;
            if let Ok(mut slot) = inner.syncer.lock() {
                *slot = Some(syncer);
            }
        }
        Ok(Self { inner })
    }
}

/// The log's files, opened.
struct Log {
    segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// Highest number ever used, by stream.
    last: BTreeMap<Stream, u32>,
    /// Segments that the journal knew nothing of, or less than there is.
    adopted: Vec<SegmentId>,
    /// Whether every journalled segment is there as long as it should be.
    complete: bool,
}

impl Log {
    /// Lets the last segment of each stream grow, if it may. One that has lost its end may not: between there
    /// and its journalled length a new block would count before it is whole, or lie where one has died.
    fn appender(
        &self,
        files: &Arc<Files>,
        lengths: &BTreeMap<SegmentId, u32>,
        config: &Config,
    ) -> io::Result<Appender> {
        let mut active = BTreeMap::new();
        if files.access == Access::ReadWrite {
            for (stream, number) in &self.last {
                let id = SegmentId {
                    stream: *stream,
                    number: *number,
                };
                let counted = u64::from(lengths.get(&id).copied().unwrap_or(0));
                if let Some(segment) = self.segments.get(&id)
                    && segment.length() >= counted
                    && segment.grow()? == Growth::Grows
                {
                    active.insert(*stream, segment.clone());
                }
            }
        }
        let size = |stream| match stream {
            Stream::Leaf | Stream::Node | Stream::File => config.segment_size.0,
            Stream::Cache => config.cache_segment_size(),
        };
        Ok(Appender::new(
            files.clone(),
            size,
            active,
            self.last.clone(),
        ))
    }

    fn add(&mut self, segment: Segment) {
        self.segments.insert(segment.id, Arc::new(segment));
    }
}

fn segment_names(files: &Files) -> io::Result<Vec<SegmentId>> {
    let names = match files.disk.names(&files.folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    let ids = names.iter().map(|name| SegmentId::from_file_name(name));
    Ok(ids.flatten().collect())
}

fn open_log(
    files: &Arc<Files>,
    names: Vec<SegmentId>,
    journal: &mut Journal,
    replay: &Replay,
    on_event: &mut dyn FnMut(OpenEvent),
) -> io::Result<Log> {
    let mut notice = |text: String| on_event(OpenEvent::Notice(text));
    // As long as the operator has not looked at it: a kill right after the journal was mended must not let
    // the next opening cut anything.
    let tail = match replay.damage {
        Some(_) => Tail::Acknowledged,
        None => Tail::MayBeTorn,
    };
    let mut log = Log {
        segments: BTreeMap::new(),
        last: journal.state().used.clone(),
        adopted: Vec::new(),
        complete: true,
    };
    let lengths = journal.state().lengths.clone();
    for id in names.iter().chain(lengths.keys()) {
        let last = log.last.entry(id.stream).or_insert(0);
        *last = id.number.max(*last);
    }
    let mut lost = lengths.clone();
    let mut unknown = Vec::new();
    let mut removed = Vec::new();
    for id in names {
        let found = files.disk.length(&files.path(id))?;
        if journal.state().retired.contains_key(&id) {
            if copies_are_there(files, journal.state(), id, COPIES_DEEP_MAX) {
                removed.push(id);
            } else {
                notice(format!(
                    "segment {id} was given up, but the disk lost what was copied out of it; it counts again"
                ));
                log.complete = false;
                unknown.push((id, 0, Tail::Acknowledged));
            }
        } else if let Some(length) = lost.remove(&id) {
            let length = u64::from(length);
            if tail == Tail::Acknowledged && found > length {
                // The record that said how far it counts may be one of those that were lost.
                unknown.push((id, length, tail));
                continue;
            }
            if found < length {
                log.complete = false;
                notice(format!(
                    "segment {id}: {length} bytes were acknowledged, {found} are there; the disk \
                     lost what it had promised to keep"
                ));
            }
            let segment = Segment::sealed(files, id, length.min(found));
            if found > length && files.access == Access::ReadWrite {
                segment.cut()?;
                // Or what was cut off might lie between later blocks one day, if nobody waits for those.
                segment.sync_file()?;
            }
            log.add(segment);
        } else {
            unknown.push((id, 0, tail));
        }
    }
    for id in lost.into_keys() {
        log.complete = false;
        notice(format!(
            "segment {id} is missing and its blocks with it; restore its files and start again, or \
             run `cairn repo verify --heal --drop` to fetch what peers have and forget the rest"
        ));
    }
    remove_retired(files, journal, removed)?;
    let mut adopted = Vec::new();
    for (id, known, tail) in unknown {
        let segment = match adopt(files, id, known, tail, &mut notice)? {
            Adopted::Segment(segment) => segment,
            Adopted::Nothing => continue,
            Adopted::Foreign => {
                notice(format!(
                    "{} is no segment of ours; it was set aside",
                    files.path(id).display()
                ));
                continue;
            }
        };
        let length = segment.length();
        if length > known.max(section::file_header().len() as u64) {
            notice(format!(
                "segment {id} was not in the journal up to its end; {length} bytes were adopted"
            ));
        }
        adopted.push((id, u32::try_from(length).unwrap_or(u32::MAX)));
        log.adopted.push(id);
        log.add(segment);
    }
    if !adopted.is_empty() && files.access == Access::ReadWrite {
        for (id, _) in &adopted {
            if let Some(segment) = log.segments.get(id) {
                segment.sync_file()?;
            }
        }
        files.disk.sync_folder(&files.folder)?;
        journal.append(vec![Record::Committed(adopted)], Sync::Wait)?;
    }
    Ok(log)
}

/// Whether everything that was copied out of a retired segment is where it was copied to, or was
/// copied on from there.
fn copies_are_there(
    files: &Files,
    state: &crate::journal::State,
    id: SegmentId,
    deep: usize,
) -> bool {
    let copies = state.retired.get(&id).map_or(&[][..], Vec::as_slice);
    copies.iter().all(|(to, length)| {
        if state.lengths.contains_key(to) {
            let found = files.disk.length(&files.path(*to)).unwrap_or(0);
            return found >= u64::from(*length);
        }
        // Not known any more: it was retired in its turn.
        !state.retired.contains_key(to) || deep > 0 && copies_are_there(files, state, *to, deep - 1)
    })
}

fn remove_retired(files: &Files, journal: &mut Journal, retired: Vec<SegmentId>) -> io::Result<()> {
    if files.access == Access::ReadOnly {
        return Ok(());
    }
    for id in &retired {
        remove_segment(files, *id)?;
    }
    if !retired.is_empty() {
        files.disk.sync_folder(&files.folder)?;
    }
    let gone: Vec<SegmentId> = journal.state().retired.keys().copied().collect();
    for id in gone {
        if retired.contains(&id) || !files.disk.exists(&files.path(id)) {
            journal.removed(id);
        }
    }
    Ok(())
}

/// What a segment turned out to be that the journal does not know, or not up to its end.
enum Adopted {
    /// It counts.
    Segment(Segment),
    /// Whoever made it did not come as far as the end of its header.
    Nothing,
    /// Somebody else's file.
    Foreign,
}

/// What lies behind the end that the journal knows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// What was being written when the power went: what follows a hole was promised to nobody.
    MayBeTorn,
    /// Acknowledged blocks, of which the journal has lost the record: a hole costs what lies in it.
    Acknowledged,
}

/// A segment that the journal knows up to `known`, and beyond that as far as its blocks hash to their
/// CIDs. One with another header and nothing that is ours is set aside, one with a part of our header goes.
fn adopt(
    files: &Arc<Files>,
    id: SegmentId,
    known: u64,
    tail: Tail,
    notice: &mut dyn FnMut(String),
) -> io::Result<Adopted> {
    let path = files.path(id);
    let header = section::file_header();
    let whole = Segment::sealed(files, id, files.disk.length(&path)?);
    let begin = whole.read_unchecked(0, header.len() as u64)?;
    let is_ours = begin == header;
    if header.starts_with(&begin) && !is_ours {
        if files.access == Access::ReadWrite {
            remove_segment(files, id)?;
        }
        return Ok(Adopted::Nothing);
    }
    let mut end = known.max(header.len() as u64);
    if is_ours || tail == Tail::Acknowledged {
        end = end.max(end_of_blocks(&whole, known, tail, notice));
    }
    if !is_ours && end == header.len() as u64 {
        if files.access == Access::ReadWrite {
            files.disk.rename(&path, &path.with_extension("foreign"))?;
        }
        return Ok(Adopted::Foreign);
    }
    let adopted = Segment::sealed(files, id, end);
    if files.access == Access::ReadWrite {
        let _ = files.disk.remove(&files.sums_path(id)); // It may be of another length.
        adopted.cut()?;
    }
    Ok(Adopted::Segment(adopted))
}

/// Where the last block ends that hashes to its CID, from `known` on.
fn end_of_blocks(segment: &Segment, known: u64, tail: Tail, notice: &mut dyn FnMut(String)) -> u64 {
    let mut end = known;
    let mut scan = Scan::with_data(segment, known);
    loop {
        let is_whole = match scan.next() {
            Ok(Some(Step::Found(found))) => scan
                .data(&found)
                .map(|data| section::is_whole(segment.id.stream, found.header.cid, data)),
            Ok(Some(_)) if tail == Tail::Acknowledged => continue,
            Ok(_) => return end,
            Err(error) => Err(error),
        };
        match is_whole {
            Ok(true) => end = scan.position(),
            Ok(false) if tail == Tail::Acknowledged => {}
            Ok(false) => return end,
            Err(error) => {
                notice(format!(
                    "segment {} cannot be read beyond byte {}: {error}",
                    segment.id,
                    scan.position()
                ));
                // Nothing of it is cut: another time there may be more to read.
                return match tail {
                    Tail::Acknowledged => segment.length(),
                    Tail::MayBeTorn => end,
                };
            }
        }
    }
}

/// Removes a segment's files. The folder is not synced.
pub(crate) fn remove_segment(files: &Files, id: SegmentId) -> io::Result<()> {
    for path in [files.path(id), files.sums_path(id)] {
        match files.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Each segment that is read keeps a file open: asks for as many as the system lets us have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused, it stays as it is; fewer segments are open at once then.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        );
    }
}

/// Makes the folder if it is not there, and takes the lock; the second process is told at once.
fn enter(root: &Path) -> Result<(Vec<File>, Access), OpenError> {
    let path = root.join("repo.lock");
    let locked = fs::create_dir_all(root).and_then(|()| {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
    });
    match locked {
        Ok(mut file) => {
            lock(root, file.try_lock())?;
            // The folder as well: nobody deletes it by mistake while we are in it.
            let folder = File::open(root).map_err(disk(root))?;
            lock(root, if_known(folder.try_lock()))?;
            // For whoever looks; the lock itself is the operating system's and dies with us.
            let _ = file.set_len(0);
            let _ = writeln!(file, "{}", std::process::id());
            Ok((vec![file, folder], Access::ReadWrite))
        }
        Err(error) if cannot_be_written(&error) && root.join("version").exists() => {
            let file = match File::open(&path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(disk(&path)(error)),
            };
            let folder = File::open(root).map_err(disk(root))?;
            lock(root, if_known(folder.try_lock_shared()))?;
            if let Some(file) = &file {
                lock(root, file.try_lock_shared())?;
            }
            let files = file.into_iter().chain([folder]);
            Ok((files.collect(), Access::ReadOnly))
        }
        Err(error) => Err(disk(&path)(error)),
    }
}

fn lock(root: &Path, taken: Result<(), TryLockError>) -> Result<(), OpenError> {
    match taken {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            path: root.display().to_string(),
        }),
        Err(TryLockError::Error(source)) => Err(disk(&root.join("repo.lock"))(source)),
    }
}

/// Some file systems lock no folders; there `repo.lock` must do.
fn if_known(taken: Result<(), TryLockError>) -> Result<(), TryLockError> {
    match taken {
        Err(TryLockError::Error(_)) => Ok(()),
        taken => taken,
    }
}

fn cannot_be_written(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> OpenError + Clone {
    let what = path.display().to_string();
    move |source| OpenError::Disk { what, source }
}

/// What must be free for the index to be opened on the disk.
const INDEX_OPENING_ROOM: u64 = 4 << 20;
/// How often what was copied may have been copied on while the segment it came from still lies there.
const COPIES_DEEP_MAX: usize = 64;
