//! The import itself: a lister, several who read and hash, one who writes, and one who commits beside that.
//!
//! Nobody waits for the disk but the one who commits. The writer goes on meanwhile, until as much again waits to be
//! committed: so the disk writes all the time, and what it has not written yet has a bound.

use super::codec;
use super::flatfs::{self, Named, Opened, Unopened};
use super::records::{KuboPin, Records};
use super::source::Source;
use super::whole::{FilesFate, PinFate, Pins, RESTLESS, TRIES_MAX, Whole};
use crate::block::{Block, Prefix};
use crate::cid::{self, Cid, DAG_PB, HashKind, Multihash, RAW, Version};
use crate::files::{Files, FilesError};
use crate::log::Place;
use crate::log::files::eighth_of_open_files;
use crate::pin::PinMode;
use crate::sink::PutError;
use crate::store::{Committed, Hold, Inner, Keep, Store, blocking};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;

/// What happens in the course of an import.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something lies among the blocks that is not taken.
    Skipped {
        /// What.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// How far it is.
    Progress(Progress),
    /// A pin, and what became of it.
    Pin(KuboPin, PinFate),
    /// The file tree's root, and what became of it.
    Files(Cid, FilesFate),
}

/// How far an import is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks that were written.
    pub new: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Blocks that were here already.
    pub there: u64,
    /// Their bytes.
    pub there_bytes: u64,
    /// What was not taken.
    pub skipped: u64,
    /// Folders of blocks that are done.
    pub folders: u64,
    /// All of them.
    pub folders_total: u64,
    /// How many bytes Kubo itself thinks there are.
    pub bytes_expected: Option<u64>,
    /// Pins that were looked at.
    pub pins: u64,
    /// All of them.
    pub pins_total: u64,
}

/// What an import came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// The last of its figures.
    pub progress: Progress,
    /// Pins that were made.
    pub pins_made: u64,
    /// Pins that were here already.
    pub pins_there: u64,
    /// Pins whose DAG is not whole.
    pub pins_broken: u64,
    /// What became of the file tree.
    pub files: Option<FilesFate>,
    /// Whether whoever listens broke it off.
    pub was_broken_off: bool,
}

impl Store {
    /// Takes over the blocks of a Kubo repository, then what `records` says of it. What waits to be flushed in `files`,
    /// which is this store's tree, counts as there. Whoever listens can break it off; what was told of is durable when
    /// this returns.
    pub async fn import_kubo(
        &self,
        source: Arc<Source>,
        records: Records,
        files: Option<Files>,
        on_event: impl FnMut(Event) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Imported, PutError> {
        let inner = self.inner.clone();
        let runtime = Handle::current();
        let import = move || {
            let hold = inner.hold();
            let flush = || match &files {
                Some(files) => runtime.block_on(files.flush_all()).map(drop),
                None => Ok(()),
            };
            let mut import = Import {
                inner: &inner,
                hold: &hold,
                flush: &flush,
                imported: Imported::default(),
                on_event,
            };
            import.run(&source, &records)?;
            Ok(import.imported)
        };
        blocking(import).await.unwrap_or(Err(PutError::Closing))
    }
}

impl Inner {
    /// Holds a block and keeps it, if it is here; then where it lies, which may be in a file of the user's.
    pub(super) fn keep_present(
        &self,
        hash: &Multihash,
        hold: &Hold,
    ) -> Result<Option<Place>, PutError> {
        let key = self.index.key(hash);
        let _no_sweep = self.sweeping.read().unwrap_or_else(PoisonError::into_inner);
        hold.add([key]);
        let place = self.raw_place(&key)?;
        let Some(place) = self.counting(place) else {
            return Ok(None);
        };
        if place.cached {
            self.promote(&key)?;
        }
        Ok(Some(place))
    }
}

struct Import<'a, F> {
    inner: &'a Inner,
    /// Nothing that was found or put is collected before the pins are made.
    hold: &'a Arc<Hold>,
    /// Writes what of the file tree waits to be written.
    flush: &'a dyn Fn() -> Result<(), FilesError>,
    imported: Imported,
    on_event: F,
}

/// Files of one folder, and what else lies there.
#[derive(Default)]
struct Job {
    files: Vec<Named>,
    skipped: Vec<(PathBuf, String)>,
    is_last_of_folder: bool,
}

/// What became of some files.
#[derive(Default)]
struct Done {
    blocks: Vec<Block>,
    there: u64,
    there_bytes: u64,
    skipped: Vec<(PathBuf, String)>,
    folders: u64,
}

impl<F: FnMut(Event) -> ControlFlow<()>> Import<'_, F> {
    fn run(&mut self, source: &Source, records: &Records) -> Result<(), PutError> {
        self.blocks(source)?;
        self.inner.commit_since(self.hold.losses, Vec::new())?;
        if !self.imported.was_broken_off {
            self.pins(records)?;
        }
        if !self.imported.was_broken_off {
            self.files(records)?;
        }
        self.progress();
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        if (self.on_event)(event).is_break() {
            self.imported.was_broken_off = true;
        }
    }

    fn progress(&mut self) {
        self.tell(Event::Progress(self.imported.progress));
    }

    fn blocks(&mut self, source: &Source) -> Result<(), PutError> {
        let folder = source.blocks();
        let shards = flatfs::shards(folder).map_err(|error| {
            PutError::Disk(format!("{} cannot be listed: {error}", folder.display()))
        })?;
        self.imported.progress.folders_total = shards.len() as u64;
        self.imported.progress.bytes_expected = flatfs::expected_bytes(folder);
        self.progress();
        let stop = AtomicBool::new(false);
        let (jobs, waiting) = sync_channel::<Job>(JOBS_WAITING_MAX);
        let waiting = Mutex::new(waiting);
        let (out, done) = sync_channel(DONE_WAITING_MAX);
        let (inner, hold) = (self.inner, &**self.hold);
        let mut result = Ok(());
        std::thread::scope(|scope| {
            let (stop, waiting) = (&stop, &waiting);
            scope.spawn(move || list(&shards, &jobs, stop));
            let readers = std::thread::available_parallelism().map_or(1, usize::from) * 2;
            let readers = readers.clamp(READERS_MIN, READERS_MAX);
            let ahead_max = files_ahead(eighth_of_open_files(), readers);
            for _ in 0..readers {
                let out = out.clone();
                scope.spawn(move || {
                    let reader = Reader {
                        inner,
                        hold,
                        stop,
                        ahead_max,
                        out,
                    };
                    while let Some(job) = next(waiting) {
                        if reader.take(job).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(out);
            let (commits, asked) = sync_channel(0);
            let committer = scope.spawn(move || commit(inner, hold.losses, &asked));
            result = self.write(&done, &commits);
            drop(commits);
            // What was lost is why nobody takes commits any more.
            let committed = committer.join().unwrap_or(Err(PutError::Closing));
            result = committed.and_then(|()| std::mem::replace(&mut result, Ok(())));
            // Nobody waits for anything any more.
            stop.store(true, Ordering::Relaxed);
            drop(done);
            while next(waiting).is_some() {}
        });
        result
    }

    /// Writes what was read until all is written, or somebody breaks it off.
    fn write(
        &mut self,
        done: &Receiver<Result<Done, PutError>>,
        commits: &SyncSender<()>,
    ) -> Result<(), PutError> {
        let mut uncommitted = 0;
        while let Ok(done) = done.recv() {
            let done = done?;
            let bytes: u64 = done
                .blocks
                .iter()
                .map(|block| block.data().len() as u64)
                .sum();
            self.inner.put(&done.blocks, Keep::Kept, self.hold)?;
            uncommitted += bytes;
            if uncommitted >= COMMIT_BYTES {
                // Waits until the one before is durable.
                if commits.send(()).is_err() {
                    break;
                }
                uncommitted = 0;
            }
            let progress = &mut self.imported.progress;
            progress.new += done.blocks.len() as u64;
            progress.new_bytes += bytes;
            progress.there += done.there;
            progress.there_bytes += done.there_bytes;
            progress.skipped += done.skipped.len() as u64;
            progress.folders += done.folders;
            for (path, why) in done.skipped {
                self.tell(Event::Skipped { path, why });
            }
            self.progress();
            if self.imported.was_broken_off {
                break;
            }
        }
        Ok(())
    }

    fn pins(&mut self, records: &Records) -> Result<(), PutError> {
        self.imported.progress.pins_total = records.pins.len() as u64;
        let mut whole = Whole::new(self.inner, self.hold);
        let mut pins = Pins::new(self.inner, self.hold.losses);
        for pin in &records.pins {
            pins.take(pin, &mut whole, &mut |pin, fate| self.pin(pin, fate))?;
            self.imported.progress.pins += 1;
            self.progress();
            if self.imported.was_broken_off {
                break;
            }
        }
        pins.commit(&mut whole, &mut |pin, fate| self.pin(pin, fate))
    }

    fn pin(&mut self, pin: &KuboPin, fate: PinFate) {
        *match fate {
            PinFate::Made => &mut self.imported.pins_made,
            PinFate::There => &mut self.imported.pins_there,
            PinFate::Broken(_) => &mut self.imported.pins_broken,
        } += 1;
        self.tell(Event::Pin(pin.clone(), fate));
    }

    /// Kubo's file tree becomes the one here, unless there is another.
    fn files(&mut self, records: &Records) -> Result<(), PutError> {
        let Some(root) = records.files_root else {
            self.imported.files = Some(FilesFate::None);
            return Ok(());
        };
        let mut fate = None;
        for _ in 0..TRIES_MAX {
            fate = self.files_once(root)?;
            if fate.is_some() {
                break;
            }
        }
        let fate = fate.unwrap_or_else(|| FilesFate::Broken(RESTLESS.to_owned()));
        self.imported.files = Some(fate.clone());
        self.tell(Event::Files(root, fate));
        Ok(())
    }

    /// What becomes of the tree; `None` if the one here was changed while that was done.
    fn files_once(&self, root: Cid) -> Result<Option<FilesFate>, PutError> {
        let is_there = || {
            let here = self.inner.files_root()?;
            Ok(here.is_some_and(|here| cid::to_v1(&here) == cid::to_v1(&root)))
        };
        let broken = |error: FilesError| Ok(Some(FilesFate::Broken(error.to_string())));
        match is_there() {
            Ok(true) => return Ok(Some(FilesFate::There)),
            Ok(false) if is_empty_folder(&root) => return Ok(Some(FilesFate::None)),
            Ok(false) => {}
            Err(error) => return broken(error),
        }
        let mut whole = Whole::new(self.inner, self.hold);
        if let Some(missing) = whole.look(&root, PinMode::Recursive)? {
            return Ok(Some(FilesFate::Broken(missing)));
        }
        // Behind the walk, which may take long: what is here is looked at right before it is replaced.
        let here = match (self.flush)().and_then(|()| Ok(self.inner.files_root()?)) {
            Ok(here) => here,
            Err(error) => return broken(error),
        };
        if here.as_ref().is_none_or(is_empty_folder) {
            let done = self
                .inner
                .commit_files_root_after(here, root, self.hold.losses)?;
            return Ok((done == Committed::Yes).then_some(FilesFate::Taken));
        }
        let pin = KuboPin {
            mode: PinMode::Recursive,
            cid: root,
            name: FILES_PIN.to_owned(),
            has_metadata: false,
        };
        let mut pins = Pins::new(self.inner, self.hold.losses);
        let mut fate = FilesFate::Beside;
        let mut tell = |_: &KuboPin, pinned| {
            if let PinFate::Broken(why) = pinned {
                fate = FilesFate::Broken(why);
            }
        };
        pins.take(&pin, &mut whole, &mut tell)?;
        pins.commit(&mut whole, &mut tell)?;
        Ok(Some(fate))
    }
}

fn is_empty_folder(root: &Cid) -> bool {
    let prefix = Prefix {
        version: Version::V1,
        codec: DAG_PB,
        hash: HashKind::Sha2_256,
    };
    let empty = Block::new(prefix, Bytes::from_static(EMPTY_FOLDER));
    empty.is_ok_and(|empty| *empty.cid() == cid::to_v1(root))
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.recv().ok()
}

/// Hands out the files of all folders.
fn list(shards: &[PathBuf], jobs: &SyncSender<Job>, stop: &AtomicBool) {
    for (at, shard) in shards.iter().enumerate() {
        let mut job = Job::default();
        let mut each = |found| {
            match found {
                Ok(named) => job.files.push(named),
                Err(skipped) => job.skipped.push(skipped),
            }
            let is_full = job.files.len() + job.skipped.len() >= FILES_PER_JOB;
            if is_full && jobs.send(std::mem::take(&mut job)).is_err() {
                return ControlFlow::Break(());
            }
            match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let mut listed = flatfs::list(shard, at == 0, &mut each);
        if at == 0 && listed.is_continue() {
            listed = flatfs::list_unfinished(shard, &mut each);
        }
        job.is_last_of_folder = true;
        if listed.is_break() || jobs.send(job).is_err() {
            return;
        }
    }
}

/// Commits what was put, each time that it is asked for.
fn commit(inner: &Inner, losses: u64, asked: &Receiver<()>) -> Result<(), PutError> {
    asked
        .iter()
        .try_for_each(|()| inner.commit_since(losses, Vec::new()))
}

/// Reads and hashes.
struct Reader<'a> {
    inner: &'a Inner,
    hold: &'a Hold,
    stop: &'a AtomicBool,
    /// Most files that it has open.
    ahead_max: usize,
    out: SyncSender<Result<Done, PutError>>,
}

/// What came of opening a file.
enum Next {
    /// It is to be read.
    Open(Named, Opened),
    /// Nothing of it is to be read.
    Done,
    /// As many files are open as the system allows.
    TooMany(Named, io::Error),
}

/// Nobody takes what was read any more.
struct Unwanted;

impl Reader<'_> {
    fn take(&self, job: Job) -> Result<(), Unwanted> {
        let mut done = Done {
            skipped: job.skipped,
            folders: job.is_last_of_folder.into(),
            ..Done::default()
        };
        let mut files = job.files.into_iter();
        let mut again = None;
        let mut ahead: VecDeque<(Named, Opened)> = VecDeque::new();
        let mut read: Vec<(Named, Bytes)> = Vec::new();
        let mut bytes = 0;
        loop {
            while ahead.len() < self.ahead_max
                && let Some(named) = again.take().or_else(|| files.next())
            {
                match self.open(named, &mut done) {
                    Ok(Next::Open(named, opened)) => ahead.push_back((named, opened)),
                    Ok(Next::Done) => {}
                    Ok(Next::TooMany(named, error)) if ahead.is_empty() => {
                        return self.send(Err(too_many(&named, &error)));
                    }
                    // Once one of them has been read there is room for it.
                    Ok(Next::TooMany(named, _)) => {
                        again = Some(named);
                        break;
                    }
                    Err(error) => return self.send(Err(error)),
                }
            }
            let Some((named, opened)) = ahead.pop_front() else {
                break;
            };
            if self.stop.load(Ordering::Relaxed) {
                return Err(Unwanted);
            }
            match opened.read() {
                Ok(data) => {
                    bytes += data.len();
                    read.push((named, data.into()));
                }
                Err(why) => done.skipped.push((named.path, why)),
            }
            if bytes >= READ_BYTES {
                check(std::mem::take(&mut read), &mut done);
                self.send(Ok(std::mem::take(&mut done)))?;
                bytes = 0;
            }
        }
        check(read, &mut done);
        self.send(Ok(done))
    }

    /// Opens a file, if its block is still to be read.
    fn open(&self, named: Named, done: &mut Done) -> Result<Next, PutError> {
        if named.hash.code() == HashKind::Identity.code() {
            // Whoever names it has it.
            done.there += 1;
            return Ok(Next::Done);
        }
        let here = self.inner.keep_present(&named.hash, self.hold)?;
        // What lies in a file of the user's goes when they change it.
        if let Some(place) = here.filter(|place| !place.is_reference()) {
            done.there += 1;
            done.there_bytes += u64::from(place.length);
            return Ok(Next::Done);
        }
        Ok(match flatfs::open(&named.path) {
            Ok(opened) => Next::Open(named, opened),
            Err(Unopened::TooMany(error)) => Next::TooMany(named, error),
            Err(Unopened::Bad(why)) => {
                done.skipped.push((named.path, why));
                Next::Done
            }
        })
    }

    fn send(&self, done: Result<Done, PutError>) -> Result<(), Unwanted> {
        self.out.send(done).map_err(|_| Unwanted)
    }
}

/// Fails the import: a block that may be good must not count as bad.
fn too_many(named: &Named, error: &io::Error) -> PutError {
    PutError::Disk(format!(
        "{} cannot be opened: {error}; raise the limit of open files (`ulimit -n`), or close other programs",
        named.path.display()
    ))
}

/// How many files each reader has open, if all of them may have `open_max`.
fn files_ahead(open_max: usize, readers: usize) -> usize {
    (open_max / readers.max(1)).clamp(1, FILES_AHEAD_MAX)
}

/// Hashes what was read, together.
fn check(read: Vec<(Named, Bytes)>, done: &mut Done) {
    let mut paths = Vec::with_capacity(read.len());
    let mut blocks = Vec::with_capacity(read.len());
    for (named, data) in read {
        paths.push((named.path, data.is_empty()));
        blocks.push((Cid::new_v1(RAW, named.hash), data));
    }
    for ((path, is_empty), verified) in paths.into_iter().zip(Block::verify_many(blocks)) {
        match verified {
            Ok(block) => {
                let cid = Cid::new_v1(codec::of(block.data()), *block.cid().hash());
                done.blocks.push(block.renamed(cid).unwrap_or(block));
            }
            Err(_) if is_empty => {
                done.skipped
                    .push((path, "it is empty, as after a power cut".to_owned()));
            }
            Err(error) => done.skipped.push((path, error.to_string())),
        }
    }
}

/// The node of a folder with nothing in it.
const EMPTY_FOLDER: &[u8] = &[0x0a, 2, 8, 1];
/// What Kubo's file tree is pinned as where there is one already.
pub const FILES_PIN: &str = "file tree of Kubo";
/// Files that are handed over together: several lanes of the hash kernel.
const FILES_PER_JOB: usize = 64;
/// Bytes that one reader has read and not handed over, but for one more block.
const READ_BYTES: usize = 4 << 20;
/// Lists of files that wait to be read.
const JOBS_WAITING_MAX: usize = 32;
/// Read and hashed blocks that wait to be written, in portions of [`READ_BYTES`].
const DONE_WAITING_MAX: usize = 4;
/// A disk that seeks is given something to choose from.
const READERS_MIN: usize = 4;
const READERS_MAX: usize = 16;
/// Most files that one reader has open, and the system reads, while it reads the first of them.
const FILES_AHEAD_MAX: usize = 16;
/// Bytes after which what was written is made durable. As many are written meanwhile, so twice as many are read again
/// after a power cut.
const COMMIT_BYTES: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_what_may_be_open() {
        assert_eq!(files_ahead(128, 16), 8);
        assert_eq!(files_ahead(31, 8), 3);
        assert_eq!(files_ahead(2, 16), 1);
        assert_eq!(files_ahead(usize::MAX, 4), FILES_AHEAD_MAX);
    }
}
