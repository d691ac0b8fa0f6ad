//! One list's file: what it was when it was read, and whether it has come to rest since.
//!
//! A file may be looked at while somebody writes to it, and half a list must not be taken for the whole: what it denied
//! would come free. So of a file that is known only what was added at its end holds at once, line by line, as the format
//! wants it; whatever else became of it holds when it has stayed the same for [`REST`], and what it said before holds
//! until then. That goes for a file that is gone, too, since there are editors that write a new one in its place.

use super::ListStat;
use super::lines::line_at;
use super::rules::{Keys, List, ListError, Room, Tail};
use crate::clock;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One list and the file that it comes from.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    /// The file's name, to be told to everybody.
    pub(super) label: Arc<str>,
    pub(super) list: Arc<List>,
    /// What was read of the file, and when, if it could be.
    read: Option<Reading>,
    /// What the file was when it was looked into last, unless that is to be done again at the next look.
    stamp: Option<Stamp>,
    /// How much of it could be taken.
    room: Room,
    /// Why the list is not what the file says now.
    pub(super) error: Option<String>,
    unrest: Option<Unrest>,
}

/// What was read of a file.
#[derive(Debug, Clone)]
struct Reading {
    at: SystemTime,
    bytes: u64,
    digest: Digest,
}

/// A change that is waited for to be over.
#[derive(Debug, Clone, Copy)]
struct Unrest {
    /// What the file was at the last look; `None` if there was none.
    stamp: Option<Stamp>,
    /// Since when it is that.
    since: Instant,
    /// Since when it is not what was read.
    began: Instant,
    told: bool,
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

/// What a look at a file came to.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing is new.
    Same,
    /// There is something to tell.
    Now(Box<Loaded>),
    /// There is no such file.
    Gone,
}

impl Look {
    fn now(loaded: Loaded) -> Self {
        Self::Now(Box::new(loaded))
    }
}

/// A file as it was read.
struct Found {
    stamp: Stamp,
    reading: Reading,
    /// What its first bytes are, up to the mark.
    begins: Option<Digest>,
    list: List,
}

impl Found {
    /// Whether it begins with all that was read of it before; the mark was at the end of that.
    fn begins_with(&self, before: &Reading) -> bool {
        let begins = self.begins.as_ref().map(AsRef::as_ref);
        begins == Some(before.digest.as_ref())
    }
}

/// How a file is looked into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looker<'a> {
    pub(super) keys: &'a Keys,
    pub(super) now: Instant,
}

impl Looker<'_> {
    /// Looks at a file of which this is known.
    pub(super) fn look(self, path: &Path, known: Option<&Loaded>, room: Room) -> Look {
        let stamp = stamp(path);
        let Some(known) = known else {
            return match stamp {
                Ok(None) => Look::Gone,
                Ok(Some(_)) => Look::now(self.first(path, room)),
                Err(error) => Look::now(Loaded::unread(path, room, &ListError::Read(error))),
            };
        };
        let stamp = match stamp {
            Ok(stamp) => stamp,
            Err(error) => return known.failing(None, &ListError::Read(error)),
        };
        if stamp.is_some() && stamp == known.stamp {
            let suits = room.suits(&known.list, known.room);
            return match (suits, known.unrest) {
                (true, None) => Look::Same,
                (true, Some(_)) => Look::now(known.at_rest()),
                (false, _) => self.anew(known, room),
            };
        }
        let unrest = known.unrest(stamp, self.now);
        let has_rested = self.now.saturating_duration_since(unrest.since) >= REST;
        match (stamp, has_rested) {
            (None, true) => Look::Gone,
            (None, false) => known.waiting(unrest),
            (Some(_), true) => self.anew(known, room),
            (Some(_), false) => self.grown(known, room, unrest),
        }
    }

    /// A file that nothing is known of: better what there is than nothing.
    fn first(self, path: &Path, room: Room) -> Loaded {
        match self.read(path, room, Tail::Taken, 0) {
            Ok(found) => {
                let mut loaded = Loaded::new(path, room);
                loaded.take(found);
                loaded
            }
            Err((stamp, error)) => {
                let mut loaded = Loaded::unread(path, room, &error);
                loaded.stamp = stamp;
                loaded
            }
        }
    }

    /// One that has changed and come to rest.
    fn anew(self, known: &Loaded, room: Room) -> Look {
        match self.read(&known.path, room, Tail::Taken, 0) {
            Ok(found) if stamp(&known.path).ok().flatten() != Some(found.stamp) => {
                // Not so much at rest after all.
                known.waiting(Unrest::begin(Some(found.stamp), self.now))
            }
            Ok(found) => {
                let mut loaded = Loaded::new(&known.path, room);
                loaded.take(found);
                Look::now(loaded)
            }
            Err((stamp, error)) => known.failing(stamp, &error),
        }
    }

    /// One that is changing: what was added at its end is taken, and nothing else.
    fn grown(self, known: &Loaded, room: Room, unrest: Unrest) -> Look {
        let before = known.read.as_ref().filter(|_| known.error.is_none());
        let Some(before) = before else {
            return known.waiting(unrest);
        };
        match self.read(&known.path, room, Tail::Left, before.bytes) {
            // What is wrong with it is told when it is at rest.
            Ok(found) if !found.begins_with(before) => known.waiting(unrest),
            Ok(found) => {
                let mut loaded = Loaded::new(&known.path, room);
                let is_open = found.list.is_open;
                loaded.take(found);
                if is_open {
                    // The last line is there as soon as it has an end, or nothing more comes.
                    (loaded.stamp, loaded.unrest) = (None, Some(unrest));
                }
                Look::now(loaded)
            }
            Err(_) => known.waiting(unrest),
        }
    }

    /// What a file says, and what it was then; and what its first bytes are, up to `mark`.
    fn read(
        self,
        path: &Path,
        room: Room,
        tail: Tail,
        mark: u64,
    ) -> Result<Found, (Option<Stamp>, ListError)> {
        // Before it is read: what comes later is a change.
        let (file, stamp) = open(path).map_err(|error| (None, error.into()))?;
        let mut source = BufReader::with_capacity(BUFFER_BYTES, Digesting::new(file, mark));
        match List::read(&mut source, self.keys, room, tail) {
            Ok(list) => {
                let (reading, begins) = source.into_inner().end();
                Ok(Found {
                    stamp,
                    reading,
                    begins,
                    list,
                })
            }
            // It may be read the next time, although it is the same.
            Err(error @ ListError::Read(_)) => Err((None, error)),
            Err(error @ ListError::Header(_)) => Err((Some(stamp), error)),
        }
    }
}

impl Loaded {
    fn new(path: &Path, room: Room) -> Self {
        let label = path.file_name().unwrap_or_default().to_string_lossy();
        Self {
            label: label.as_ref().into(),
            path: path.to_owned(),
            list: Arc::default(),
            read: None,
            stamp: None,
            room,
            error: None,
            unrest: None,
        }
    }

    fn unread(path: &Path, room: Room, error: &ListError) -> Self {
        Self {
            error: Some(error.to_string()),
            ..Self::new(path, room)
        }
    }

    fn take(&mut self, found: Found) {
        self.stamp = Some(found.stamp);
        self.read = Some(found.reading);
        self.list = Arc::new(found.list);
    }

    /// The same, with nothing that is waited for.
    fn at_rest(&self) -> Self {
        Self {
            unrest: None,
            ..self.clone()
        }
    }

    /// The same rules, because what the file says now cannot be had.
    fn failing(&self, stamp: Option<Stamp>, error: &ListError) -> Look {
        let error = Some(error.to_string());
        if error == self.error && stamp == self.stamp && self.unrest.is_none() {
            return Look::Same;
        }
        Look::now(Self {
            stamp,
            error,
            ..self.at_rest()
        })
    }

    /// The same rules, until the file is at rest.
    fn waiting(&self, unrest: Unrest) -> Look {
        let unrest = Some(unrest);
        Look::now(Self {
            unrest,
            ..self.clone()
        })
    }

    fn unrest(&self, stamp: Option<Stamp>, now: Instant) -> Unrest {
        match self.unrest {
            Some(before) if before.stamp == stamp => before,
            Some(before) => Unrest {
                stamp,
                since: now,
                ..before
            },
            None => Unrest::begin(stamp, now),
        }
    }

    /// Whether the file is not what was read of it, and waited for.
    pub(super) const fn is_settling(&self) -> bool {
        self.unrest.is_some()
    }

    /// Why nothing of it holds, if that is so.
    pub(super) fn lacking(&self) -> Option<String> {
        let path = self.path.display();
        match &self.error {
            Some(why) if self.read.is_none() => Some(format!("{path}: {why}")),
            None if self.list.rules == 0 && self.list.beyond > 0 => Some(format!(
                "{path}: the lists that override it leave no room for it"
            )),
            // A page that says that the list was not found, for one.
            None if self.list.rules == 0 && self.list.skipped > 0 => {
                Some(format!("{path}: none of its lines is a rule"))
            }
            _ => None,
        }
    }

    /// A line of the file as it was read; `None` if it has changed since.
    pub(super) fn line(&self, number: u32) -> Option<String> {
        let (file, stamp) = open(&self.path).ok()?;
        if self.stamp != Some(stamp) {
            return None;
        }
        let line = line_at(BufReader::new(file), number).ok()??;
        let line = String::from_utf8_lossy(&line);
        Some(line.trim().chars().take(LINE_SHOWN_CHARS).collect())
    }

    pub(super) fn stat(&self) -> ListStat {
        let list = &self.list;
        let faults = list.faults.iter();
        ListStat {
            path: self.path.clone(),
            name: list.name.clone(),
            rules: list.rules,
            skipped: list.skipped,
            beyond: list.beyond,
            faults: faults
                .map(|fault| (fault.line, fault.why.to_string()))
                .collect(),
            read_at: self.read.as_ref().map(|reading| reading.at),
            is_settling: self.is_settling(),
            error: self.error.clone(),
        }
    }

    /// Says in the log what has become of a list: nobody else hears of what is wrong with it.
    pub(super) fn tell(&mut self, before: Option<&Self>, now: Instant) {
        let (path, list) = (self.path.display(), &self.list);
        let (rules, skipped, beyond) = (list.rules, list.skipped, list.beyond);
        if let Some(why) = &self.error {
            if before.is_some_and(|before| before.error.as_ref() == Some(why)) {
                return;
            }
            match &self.read {
                Some(_) => {
                    tracing::error!(%path, why, rules, "a denylist is not read; the rules that it had go on to hold");
                }
                None => {
                    tracing::error!(%path, why, "a denylist is not read, and nothing of it holds");
                }
            }
            return;
        }
        if let Some(unrest) = &mut self.unrest
            && !unrest.told
            && now.saturating_duration_since(unrest.began) >= UNREST_TOLD_AFTER
        {
            unrest.told = true;
            tracing::warn!(%path, rules, "a denylist changes all the time, and not only at its end, so what it says now \
                does not hold yet; write it beside its place and rename it");
        }
        if before.is_some_and(|before| Arc::ptr_eq(&before.list, list)) {
            return;
        }
        for fault in &list.faults {
            tracing::warn!(%path, line = fault.line, why = %fault.why, "a line of a denylist is left out");
        }
        if beyond > 0 {
            tracing::error!(%path, lines = beyond, "there is no room for all of a denylist: these lines do not hold");
        }
        tracing::info!(%path, rules, skipped, "a denylist was read");
        let had = before.map_or(0, |before| before.list.rules);
        if rules.saturating_mul(2) < had {
            tracing::warn!(%path, rules, had, "a denylist has shrunk by more than half; what it denied before is free");
        }
    }
}

impl Unrest {
    const fn begin(stamp: Option<Stamp>, now: Instant) -> Self {
        Self {
            stamp,
            since: now,
            began: now,
            told: false,
        }
    }
}

/// A file whose bytes are digested on their way: all that are read, and those up to a mark.
struct Digesting {
    file: File,
    context: Context,
    bytes: u64,
    mark: u64,
    /// Once so many were read.
    at_mark: Option<Digest>,
}

impl Digesting {
    fn new(file: File, mark: u64) -> Self {
        let context = Context::new(&SHA256);
        Self {
            file,
            at_mark: (mark == 0).then(|| context.clone().finish()),
            context,
            bytes: 0,
            mark,
        }
    }

    fn end(self) -> (Reading, Option<Digest>) {
        let reading = Reading {
            at: clock::wall(),
            bytes: self.bytes,
            digest: self.context.finish(),
        };
        (reading, self.at_mark)
    }
}

impl Read for Digesting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.mark.saturating_sub(self.bytes);
        let most = match usize::try_from(left) {
            Ok(left) if left > 0 => into.len().min(left),
            _ => into.len(),
        };
        let into = into.get_mut(..most).unwrap_or_default();
        let read = self.file.read(into)?;
        self.context.update(into.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        if self.bytes == self.mark {
            self.at_mark = Some(self.context.clone().finish());
        }
        Ok(read)
    }
}

fn open(path: &Path) -> io::Result<(File, Stamp)> {
    // To open a pipe would wait for somebody who writes to it.
    stamp(path)?.ok_or(io::ErrorKind::NotFound)?;
    let file = File::open(path)?;
    let stamp = Stamp::from(&file.metadata()?);
    Ok((file, stamp))
}

/// What a file is; `None` if there is none.
fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(Stamp::from(&metadata))),
        Ok(_) => Err(io::Error::other("it is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Whoever made a link wants what it leads to.
            match fs::symlink_metadata(path) {
                Ok(_) => Err(io::Error::other("it is a link to nothing")),
                Err(_) => Ok(None),
            }
        }
        Err(error) => Err(error),
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

/// How long a file that changed must have stayed the same.
pub(super) const REST: Duration = Duration::from_secs(2);
/// After how long it is told that it does not.
const UNREST_TOLD_AFTER: Duration = Duration::from_secs(60);
/// How much of a line is shown.
const LINE_SHOWN_CHARS: usize = 300;
/// How much of a file is read at once.
const BUFFER_BYTES: usize = 64 << 10;
