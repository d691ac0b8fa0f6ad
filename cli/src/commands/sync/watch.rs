//! Syncing again whenever something changes, until interrupted.
//!
//! The system tells of changes in a folder (inotify and its like); whether the path in the file tree has another root is looked up
//! again and again. What changed is found out by looking through all of it, so nothing is missed when events are lost.

use super::listing::{Way, root_of};
use super::{Failure, Job, Shell};
use crate::output;
use cairn_store::cid::Cid;
use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout_at};

/// Syncs now, and then whenever there may be something to do.
pub(super) async fn watch(shell: &mut Shell, job: &mut Job) -> Result<(), Failure> {
    if job.arguments.pull {
        return watch_tree(shell, job).await;
    }
    // Before the first sync, so that no change falls in between.
    let mut changes = Changes::of(&job.folder)?;
    job.once(shell).await?;
    let mut retry = Retry::default();
    loop {
        let synced = if changes.is_of(&job.folder) {
            match retry.at {
                Some(at) => match timeout_at(at, changes.next()).await {
                    Ok(changed) => changed?,
                    Err(_) => shell.find_again()?,
                },
                None => changes.next().await?,
            }
            job.once(shell).await
        } else {
            // Another folder has come in its place, which nothing was told of.
            if let Some(at) = retry.at {
                sleep_until(at).await;
            }
            match Changes::of(&job.folder) {
                Ok(new) => {
                    changes = new;
                    job.once(shell).await
                }
                Err(failure) => Err(failure),
            }
        };
        retry.heed(synced)?;
    }
}

async fn watch_tree(shell: &mut Shell, job: &mut Job) -> Result<(), Failure> {
    let mut done: Option<Cid> = root_of(shell, &job.path, Way::Pull).await?;
    job.once(shell).await?;
    let mut ticks = tokio::time::interval(LOOK_TIME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry = Retry::default();
    let mut tried = None;
    loop {
        ticks.tick().await;
        let is_due = retry.at.is_some_and(|at| at <= Instant::now());
        if is_due {
            shell.find_again()?;
        }
        let now = match root_of(shell, &job.path, Way::Pull).await {
            Ok(now) => now,
            // Told each time that it is due, not each time that it is looked.
            Err(_) if retry.at.is_some() && !is_due => continue,
            Err(failure) => {
                retry.heed(Err(failure))?;
                continue;
            }
        };
        if now == done {
            retry = Retry::default();
            continue;
        }
        // What failed is not tried before its time, unless there is something else by now.
        if retry.at.is_some() && !is_due && tried == Some(now) {
            continue;
        }
        tried = Some(now);
        let synced = job.once(shell).await;
        if synced.is_ok() {
            done = now;
        }
        retry.heed(synced)?;
    }
}

/// When what failed is tried again. What is wrong now may be right later: half-written files, a daemon that starts
/// again.
#[derive(Debug, Default)]
struct Retry {
    /// The next time, unless something changes before.
    at: Option<Instant>,
    waits: Duration,
}

impl Retry {
    /// Tells of a failure, and has it tried again.
    fn heed(&mut self, synced: Result<(), Failure>) -> Result<(), Failure> {
        match synced {
            Err(failure @ Failure::ReaderGone) => return Err(failure),
            Err(failure) => {
                self.waits = (self.waits * 2).clamp(RETRY_TIME_MIN, RETRY_TIME_MAX);
                self.at = Some(Instant::now() + self.waits);
                let seconds = self.waits.as_secs();
                output::warning(&format!("{failure} (tried again in {seconds} s)"));
            }
            Ok(()) => *self = Self::default(),
        }
        Ok(())
    }
}

/// That something in a folder changed, told by the system.
struct Changes {
    told: mpsc::Receiver<()>,
    folder: String,
    /// Which folder it is, whatever it is called by now: its device and inode.
    identity: Option<(u64, u64)>,
    /// Tells as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Changes {
    fn of(folder: &Path) -> Result<Self, Failure> {
        let name = folder.display().to_string();
        let why = |error: &notify::Error| {
            let more = match error.kind {
                ErrorKind::MaxFilesWatch => {
                    "; the system allows too few watches (sysctl fs.inotify.max_user_watches): raise that, or sync without --watch"
                }
                _ => "",
            };
            format!("{error}{more}")
        };
        let refused = |error: notify::Error| {
            let folder = folder.display();
            Failure::runtime(format!("{folder} cannot be watched: {}", why(&error)))
        };
        // Before the watch, so that a folder that comes in between is noticed.
        let identity = identity(folder);
        // One is enough: who finds it full is told of by the one that waits.
        let (teller, told) = mpsc::channel(1);
        let mut is_warned = false;
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            match event {
                Ok(event) if changes_nothing(event.kind) => return,
                // From here on what changes in new folders may not be told.
                Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) && !is_warned => {
                    is_warned = true;
                    let why = why(&error);
                    output::warning(&format!("not all of {name} is watched any more: {why}"));
                }
                // An error may hide a change.
                Ok(_) | Err(_) => {}
            }
            let _ = teller.try_send(());
        })
        .map_err(refused)?;
        watcher
            .watch(folder, RecursiveMode::Recursive)
            .map_err(refused)?;
        Ok(Self {
            told,
            folder: folder.display().to_string(),
            identity,
            _watcher: watcher,
        })
    }

    /// Whether the folder at that place is the one that is watched, if there is any.
    fn is_of(&self, folder: &Path) -> bool {
        identity(folder).is_none_or(|now| Some(now) == self.identity)
    }

    /// Done when something changed and then nothing for a moment, or for long enough.
    async fn next(&mut self) -> Result<(), Failure> {
        let folder = &self.folder;
        let gone = || Failure::runtime(format!("{folder} cannot be watched any more"));
        self.told.recv().await.ok_or_else(gone)?;
        let latest = Instant::now() + RESTLESS_TIME_MAX;
        loop {
            let quiet = latest.min(Instant::now() + QUIET_TIME);
            match timeout_at(quiet, self.told.recv()).await {
                Ok(Some(())) => {}
                Ok(None) => return Err(gone()),
                Err(_) => return Ok(()),
            }
        }
    }
}

/// Reading changes nothing. That a file which was written is closed may be all that is told of what is written to mapped
/// memory.
fn changes_nothing(kind: EventKind) -> bool {
    let is_written = matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
    );
    kind.is_access() && !is_written
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(folder).ok()?;
    Some((found.dev(), found.ino()))
}

/// For how long nothing must change before a sync begins.
const QUIET_TIME: Duration = Duration::from_millis(300);
/// When a sync begins although things go on changing.
const RESTLESS_TIME_MAX: Duration = Duration::from_secs(10);
/// How often the root of the path is looked up.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// After how long what failed is tried again; twice as long each time that it fails again, up to the second one.
const RETRY_TIME_MIN: Duration = Duration::from_secs(1);
const RETRY_TIME_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_ever_later_up_to_a_bound_and_anew_after_a_success() {
        let mut retry = Retry::default();
        let mut waits = Vec::new();
        let mut fail = |retry: &mut Retry| {
            retry.heed(Err(Failure::runtime("of a test"))).unwrap();
            waits.push((retry.at.unwrap() - Instant::now()).as_secs());
        };
        for _ in 0..11 {
            fail(&mut retry);
        }
        retry.heed(Ok(())).unwrap();
        assert_eq!(retry.at, None);
        fail(&mut retry);
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 1]);
        let gone = retry.heed(Err(Failure::ReaderGone));
        assert!(matches!(gone, Err(Failure::ReaderGone)));
    }
}
