//! The files: found in their folders, read when they change, and swapped all at once.
//!
//! They are looked at every so often and not by notifications of the system: three folders and a few files cost
//! nothing to look at, and it is the same on every file system, for files that are replaced and for folders that come
//! later. A file that changed is read anew as a whole. One that cannot be read, or whose header is wrong, keeps the
//! rules that it had: what was denied must not come free because an editor was halfway through.

use super::parse::{FILE_BYTES_MAX, RULES_MAX};
use super::rules::{Keys, List, ListError, Room};
use super::{Denylist, ListStat};
use crate::tasks::Tasks;
use cairn_store::cid::HashKind;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// All lists, in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Lists {
    loaded: Vec<Arc<Loaded>>,
    functions: Vec<HashKind>,
    /// What is wrong with the folders.
    troubles: Vec<String>,
}

/// One list and the file that it comes from.
#[derive(Debug)]
pub(super) struct Loaded {
    path: PathBuf,
    /// The file's name, to be told.
    pub(super) label: Arc<str>,
    /// What the file was when it was read; `None` if it could not be looked at.
    stamp: Option<Stamp>,
    pub(super) list: Arc<List>,
    /// Why that is not what the file says now.
    error: Option<String>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Lists {
    pub(super) fn functions(&self) -> &[HashKind] {
        &self.functions
    }

    pub(super) fn last_first(&self) -> impl Iterator<Item = &Loaded> {
        self.loaded.iter().rev().map(AsRef::as_ref)
    }

    pub(super) fn stats(&self) -> Vec<ListStat> {
        self.loaded.iter().map(|loaded| loaded.stat()).collect()
    }

    fn of(&self, path: &Path) -> Option<&Arc<Loaded>> {
        self.loaded.iter().find(|loaded| loaded.path == path)
    }
}

impl Denylist {
    /// Looks at the files and reads those that changed; what they say now holds when this returns. Tells whether
    /// anything changed. Blocks.
    pub fn reload(&self) -> bool {
        let shared = &self.shared;
        let _reading = shared
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let Some(after) = read(&shared.folders, &before, &shared.keys) else {
            return false;
        };
        shared.metrics.hold(&after.stats());
        let any = after.loaded.iter().any(|loaded| !loaded.list.is_empty());
        let mut lists = shared.lists.write().unwrap_or_else(PoisonError::into_inner);
        *lists = Arc::new(after);
        drop(lists);
        shared.any.store(any, std::sync::atomic::Ordering::Release);
        true
    }

    /// Goes on looking until the tasks are stopped.
    pub fn watch(&self, tasks: &Tasks) {
        let (this, stopping, family) = (self.clone(), tasks.stopping(), tasks.clone());
        let looking = async move {
            let mut pause = LOOK_INTERVAL;
            while stopping.run_until_cancelled(sleep(pause)).await.is_some() {
                let start = Instant::now();
                let list = this.clone();
                // One that panicked is told of where it did; the next look may go well.
                let _ = family.blocking("denylists", move || list.reload()).await;
                // A large list that changes all the time does not take the machine.
                pause = LOOK_INTERVAL.max(start.elapsed() * RESTS);
            }
        };
        tasks.spawn("denylists", looking);
    }
}

/// What there is now, if that is something else than before.
fn read(folders: &[PathBuf], before: &Lists, keys: &Keys) -> Option<Lists> {
    let mut found = Vec::new();
    let mut troubles = Vec::new();
    for folder in folders {
        match files(folder) {
            Ok(files) => found.extend(files),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                troubles.push(format!("{} cannot be read: {error}", folder.display()));
                // What was there holds on.
                let known = before.loaded.iter().map(|loaded| loaded.path.clone());
                found.extend(known.filter(|path| path.parent() == Some(folder)));
            }
        }
    }
    if found.len() > FILES_MAX {
        troubles.push(format!(
            "there are {} denylists; the first {FILES_MAX} are read",
            found.len()
        ));
        found.truncate(FILES_MAX);
    }
    let found: Vec<(PathBuf, io::Result<Stamp>)> = found
        .into_iter()
        .map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        })
        // Gone since the folder was read, or a link to nothing.
        .filter(|(_, stamp)| !is_absent(stamp))
        .collect();
    let same = |(path, stamp): &(PathBuf, io::Result<Stamp>)| {
        let known = before.of(path)?;
        (known.stamp == stamp.as_ref().ok().copied()).then(|| Arc::clone(known))
    };
    let mut loaded: Vec<Option<Arc<Loaded>>> = found.iter().map(same).collect();
    let is_same = loaded.iter().all(Option::is_some) && loaded.len() == before.loaded.len();
    if is_same && troubles == before.troubles {
        return None;
    }
    for trouble in troubles.iter().filter(|it| !before.troubles.contains(it)) {
        tracing::warn!(trouble, "denylists");
    }
    for gone in &before.loaded {
        if !found.iter().any(|(path, _)| *path == gone.path) {
            tracing::info!(path = %gone.path.display(), "a denylist is gone");
        }
    }
    let mut taken: usize = loaded.iter().flatten().map(|list| list.list.size()).sum();
    for ((path, stamp), loaded) in found.into_iter().zip(&mut loaded) {
        if loaded.is_none() {
            let known = before.of(&path).map(|known| Arc::clone(&known.list));
            let room = Room {
                rules: RULES_MAX.saturating_sub(taken),
                bytes: FILE_BYTES_MAX,
            };
            let new = load(path, stamp, known, keys, room);
            taken += new.list.size();
            let told = before.of(&new.path).and_then(|known| known.error.as_ref());
            if new.error.is_none() || new.error.as_ref() != told {
                new.tell();
            }
            *loaded = Some(Arc::new(new));
        }
    }
    let loaded: Vec<_> = loaded.into_iter().flatten().collect();
    // What fails again as it did is nothing new.
    let is_known = |loaded: &Arc<Loaded>| {
        before.of(&loaded.path).is_some_and(|known| {
            let fails_on = loaded.error.is_some() && loaded.error == known.error;
            Arc::ptr_eq(known, loaded) || (fails_on && Arc::ptr_eq(&known.list, &loaded.list))
        })
    };
    let count = before.loaded.len();
    if loaded.len() == count && troubles == before.troubles && loaded.iter().all(is_known) {
        return None;
    }
    let mut functions: Vec<HashKind> = Vec::new();
    for function in loaded.iter().flat_map(|loaded| loaded.list.functions()) {
        if !functions.contains(function) {
            functions.push(*function);
        }
    }
    Some(Lists {
        loaded,
        functions,
        troubles,
    })
}

fn load(
    path: PathBuf,
    stamp: io::Result<Stamp>,
    known: Option<Arc<List>>,
    keys: &Keys,
    room: Room,
) -> Loaded {
    let list = stamp.and_then(|stamp| Ok((stamp, File::open(&path)?)));
    let list = list.map_err(ListError::Read).map(|(stamp, file)| {
        let list = List::read(BufReader::new(file), keys, room);
        (stamp, list)
    });
    let (kept, list) = match list {
        Ok((stamp, list)) => (Some(stamp), list),
        Err(error) => (None, Err(error)),
    };
    // What could not be read is tried again at the next look, although it has not changed.
    let kept = kept.filter(|_| !matches!(list, Err(ListError::Read(_))));
    let (list, error) = match list {
        Ok(list) => (Arc::new(list), None),
        Err(error) => (known.unwrap_or_default(), Some(error.to_string())),
    };
    let label = path.file_name().unwrap_or_default().to_string_lossy();
    Loaded {
        label: label.as_ref().into(),
        stamp: kept,
        list,
        error,
        path,
    }
}

impl Loaded {
    fn stat(&self) -> ListStat {
        let list = &self.list;
        let faults = list.faults.iter();
        ListStat {
            path: self.path.clone(),
            name: list.name.clone(),
            rules: list.rules,
            skipped: list.skipped,
            faults: faults
                .map(|fault| (fault.line, fault.why.to_string()))
                .collect(),
            error: self.error.clone(),
        }
    }

    /// Nobody else hears of what is wrong with a list.
    fn tell(&self) {
        let (path, list) = (self.path.display(), &self.list);
        if let Some(why) = &self.error {
            let rules = list.rules;
            tracing::error!(%path, why, rules, "a denylist is not read; the rules that it had go on to hold");
            return;
        }
        for fault in &list.faults {
            tracing::warn!(%path, line = fault.line, why = %fault.why, "a line of a denylist is left out");
        }
        let (rules, skipped) = (list.rules, list.skipped);
        tracing::info!(%path, rules, skipped, "a denylist was read");
    }
}

/// The lists of a folder in their order. Hidden files are somebody's work in progress.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let path = entry?.path();
        let is_list = path.extension().is_some_and(|end| end == EXTENSION);
        let name = path.file_name().unwrap_or_default();
        if is_list && !name.as_encoded_bytes().starts_with(b".") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_absent(stamp: &io::Result<Stamp>) -> bool {
    let error = stamp.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    // To open a pipe would wait for somebody who writes to it.
    match metadata.is_file() {
        true => Ok(Stamp::from(&metadata)),
        false => Err(io::Error::other("it is no file")),
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What the name of a list ends in.
const EXTENSION: &str = "deny";
/// How often files are looked at: how long a new line waits at most before it holds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How many times as long as reading took nothing is read.
const RESTS: u32 = 10;
/// Most lists: each is asked about every path and block.
const FILES_MAX: usize = 64;
/// Most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 10_000;
