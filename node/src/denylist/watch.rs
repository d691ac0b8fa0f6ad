//! The folders: lists found in them, looked at again and again, and swapped all at once.
//!
//! They are looked at every so often and not by notifications of the system: three folders and a few files cost
//! nothing to look at, and it is the same on every file system, for files that are replaced and for folders that come
//! later. `file` says what becomes of one that changed.
//!
//! Where there is not room for all, the lists that override others have theirs first, so an operator's own are never
//! left out for what came from elsewhere.

use super::file::{Loaded, Look, Looker, REST};
use super::rules::{Hashings, Room};
use super::{Denylist, ListStat};
use crate::tasks::Tasks;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};

/// All lists, in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Lists {
    loaded: Vec<Arc<Loaded>>,
    hashings: Hashings,
    /// Those that are not read because there are too many.
    left_out: Vec<PathBuf>,
    /// What is wrong with the folders.
    troubles: Vec<String>,
}

impl Lists {
    pub(super) fn hashings(&self) -> &Hashings {
        &self.hashings
    }

    pub(super) fn last_first(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.loaded.iter().rev()
    }

    /// Those that are left out come first: all others override them.
    pub(super) fn stats(&self) -> Vec<ListStat> {
        let left_out = self.left_out.iter().map(|path| ListStat {
            path: path.clone(),
            error: Some(format!(
                "{FILES_MAX} lists are read at most, and so many override it"
            )),
            ..ListStat::default()
        });
        let loaded = self.loaded.iter().map(|loaded| loaded.stat());
        left_out.chain(loaded).collect()
    }

    pub(super) fn troubles(&self) -> &[String] {
        &self.troubles
    }

    /// What is wrong so that nothing of some list holds.
    pub(super) fn lacking(&self) -> Vec<String> {
        let lists = self.loaded.iter().filter_map(|loaded| loaded.lacking());
        self.troubles.iter().cloned().chain(lists).collect()
    }

    pub(super) fn is_settling(&self) -> bool {
        self.loaded.iter().any(|loaded| loaded.is_settling())
    }

    fn of(&self, path: &Path) -> Option<&Arc<Loaded>> {
        self.loaded.iter().find(|loaded| loaded.path == path)
    }
}

impl Denylist {
    /// Looks at the files and reads those that changed. Tells whether there is anything new. Blocks.
    pub fn reload(&self) -> bool {
        self.reload_at(std::time::Instant::now())
    }

    pub(super) fn reload_at(&self, now: std::time::Instant) -> bool {
        let shared = &self.shared;
        let _reading = shared
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let looker = Looker {
            keys: &shared.keys,
            now,
        };
        let Some(after) = look(&shared.folders, &before, looker, shared.room) else {
            return false;
        };
        shared.metrics.hold(&after.stats());
        let any = after.loaded.iter().any(|loaded| !loaded.list.is_empty());
        let mut lists = shared.lists.write().unwrap_or_else(PoisonError::into_inner);
        *lists = Arc::new(after);
        drop(lists);
        shared.any.store(any, Ordering::Release);
        true
    }

    /// The same, and again once what is changing has come to rest, if that is soon. An error if it panicked.
    pub async fn settle(&self) -> Result<(), JoinError> {
        for left in (0..SETTLE_LOOKS_MAX).rev() {
            let list = self.clone();
            tokio::task::spawn_blocking(move || list.reload()).await?;
            if left == 0 || !self.current().is_settling() {
                break;
            }
            sleep(REST).await;
        }
        Ok(())
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
fn look(folders: &[PathBuf], before: &Lists, looker: Looker<'_>, mut room: Room) -> Option<Lists> {
    let (paths, mut troubles) = paths(folders, before);
    let (left_out, paths) = paths.split_at(paths.len().saturating_sub(FILES_MAX));
    if !left_out.is_empty() {
        troubles.push(format!(
            "there are {} denylists, and {FILES_MAX} are read at most: the first {} in their order, which all others \
             override, do not hold",
            left_out.len() + paths.len(),
            left_out.len()
        ));
    }
    let mut loaded = Vec::new();
    for path in paths.iter().rev() {
        let known = before.of(path);
        let now = match looker.look(path, known.map(AsRef::as_ref), room) {
            Look::Same => known.cloned(),
            Look::Now(mut now) => {
                now.tell(known.map(AsRef::as_ref), looker.now);
                Some(Arc::from(now))
            }
            Look::Gone => {
                if let Some(known) = known {
                    let (path, rules) = (path.display(), known.list.rules);
                    tracing::warn!(%path, rules, "a denylist is gone; what it denied is free");
                }
                None
            }
        };
        if let Some(now) = now {
            room = room.without(&now.list);
            loaded.push(now);
        }
    }
    loaded.reverse();
    for trouble in troubles.iter().filter(|it| !before.troubles.contains(it)) {
        tracing::error!(trouble, "denylists");
    }
    let same = |(now, before): (&Arc<Loaded>, &Arc<Loaded>)| Arc::ptr_eq(now, before);
    let is_same = loaded.len() == before.loaded.len()
        && loaded.iter().zip(&before.loaded).all(same)
        && (left_out, &troubles) == (&before.left_out[..], &before.troubles);
    if is_same {
        return None;
    }
    let mut hashings = Hashings::default();
    for loaded in &loaded {
        hashings.join(loaded.list.hashings());
    }
    Some(Lists {
        loaded,
        hashings,
        left_out: left_out.to_vec(),
        troubles,
    })
}

/// Where lists are and where they were at the last look, in their order, and what is wrong with the folders.
fn paths(folders: &[PathBuf], before: &Lists) -> (Vec<PathBuf>, Vec<String>) {
    let mut paths = Vec::new();
    let mut troubles = Vec::new();
    for folder in folders {
        let known = before.loaded.iter().map(|loaded| &loaded.path);
        let known = known.filter(|path| path.parent() == Some(folder));
        let mut here: BTreeSet<PathBuf> = known.cloned().collect();
        match files(folder) {
            Ok((files, Seen::All)) => here.extend(files),
            Ok((files, Seen::Some)) => {
                here.extend(files);
                troubles.push(format!(
                    "{} has more than {ENTRIES_MAX} files, and only so many are looked at: lists may be among the others",
                    folder.display()
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // What was there holds on.
            Err(error) => troubles.push(format!("{} cannot be read: {error}", folder.display())),
        }
        paths.extend(here);
    }
    (paths, troubles)
}

/// How much of a folder was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    All,
    Some,
}

/// The lists of a folder. Hidden files are somebody's work in progress.
fn files(folder: &Path) -> io::Result<(Vec<PathBuf>, Seen)> {
    let mut files = Vec::new();
    let mut entries = fs::read_dir(folder)?;
    for entry in entries.by_ref().take(ENTRIES_MAX) {
        let path = entry?.path();
        let is_list = path.extension().is_some_and(|end| end == EXTENSION);
        let name = path.file_name().unwrap_or_default();
        if is_list && !name.as_encoded_bytes().starts_with(b".") {
            files.push(path);
        }
    }
    let seen = match entries.next() {
        None => Seen::All,
        Some(_) => Seen::Some,
    };
    Ok((files, seen))
}

/// What the name of a list ends in.
const EXTENSION: &str = "deny";
/// How often files are looked at: how long a new line waits at most before it holds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How many times as long as reading took nothing is read.
const RESTS: u32 = 10;
/// Most looks for whoever waits until nothing changes.
const SETTLE_LOOKS_MAX: usize = 3;
/// Most lists: each is asked about every path and block.
const FILES_MAX: usize = 64;
/// Most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 10_000;
