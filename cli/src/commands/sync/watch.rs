//! Syncing again whenever something changes, until interrupted.
//!
//! The system tells of changes in a folder (inotify and its like); whether the path in the file tree has another root is looked up
//! again and again. What changed is found out by looking through all of it, so nothing is missed when events are lost.

use super::listing::root_of;
use super::{Failure, Job, Shell};
use crate::output;
use cairn_store::cid::Cid;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Syncs now, and then whenever there may be something to do.
pub(super) async fn watch(shell: &mut Shell, job: &mut Job) -> Result<(), Failure> {
    if job.arguments.pull {
        return watch_tree(shell, job).await;
    }
    // Before the first sync, so that no change falls in between.
    let mut changes = Changes::of(&job.folder)?;
    job.once(shell).await?;
    loop {
        changes.next().await?;
        go_on(job.once(shell).await)?;
    }
}

async fn watch_tree(shell: &mut Shell, job: &mut Job) -> Result<(), Failure> {
    let mut done: Option<Cid> = root_of(shell, &job.path).await?;
    job.once(shell).await?;
    let mut ticks = tokio::time::interval(LOOK_TIME);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = match root_of(shell, &job.path).await {
            Ok(now) => now,
            Err(failure) => {
                go_on(Err(failure))?;
                continue;
            }
        };
        if now != done {
            go_on(job.once(shell).await)?;
            done = now;
        }
    }
}

/// What is wrong now may be right after the next change: half-written files, a daemon that starts again.
fn go_on(synced: Result<(), Failure>) -> Result<(), Failure> {
    match synced {
        Err(failure @ Failure::ReaderGone) => Err(failure),
        Err(failure) => {
            output::warning(&failure.to_string());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// That something in a folder changed, told by the system.
struct Changes {
    told: mpsc::Receiver<()>,
    folder: String,
    /// Tells as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Changes {
    fn of(folder: &Path) -> Result<Self, Failure> {
        let refused = |error: notify::Error| {
            let more = match error.kind {
                notify::ErrorKind::MaxFilesWatch => {
                    "; the system allows too few watches (sysctl fs.inotify.max_user_watches): raise that, or sync without --watch"
                }
                _ => "",
            };
            Failure::runtime(format!(
                "{} cannot be watched: {error}{more}",
                folder.display()
            ))
        };
        // One is enough: who finds it full is told of by the one that waits.
        let (teller, told) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading changes nothing; an error may hide a change.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
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
            _watcher: watcher,
        })
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

/// For how long nothing must change before a sync begins.
const QUIET_TIME: Duration = Duration::from_millis(300);
/// When a sync begins although things go on changing.
const RESTLESS_TIME_MAX: Duration = Duration::from_secs(10);
/// How often the root of the path is looked up.
const LOOK_TIME: Duration = Duration::from_secs(1);
