//! Syncing again whenever something changes, until interrupted.
//!
//! The system tells of changes in a folder (inotify and its like); whether the path in the file tree has another root is looked up
//! again and again. What changed is found out by looking through all of it, so nothing is missed when events are lost.

use super::listing::{Way, root_of};
use super::{Failure, Job, Shell};
use crate::output;
use cairn_store::cid::Cid;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
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
        match retry.at {
            Some(at) => match timeout_at(at, changes.next()).await {
                Ok(changed) => changed?,
                Err(_) => shell.find_again()?,
            },
            None => changes.next().await?,
        }
        retry.heed(job.once(shell).await)?;
    }
}

async fn watch_tree(shell: &mut Shell, job: &mut Job) -> Result<(), Failure> {
    let mut done: Option<Cid> = root_of(shell, &job.path, Way::Pull).await?;
    job.once(shell).await?;
    let mut ticks = tokio::time::interval(LOOK_TIME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry = Retry::default();
    loop {
        match retry.at {
            Some(at) => {
                sleep_until(at).await;
                shell.find_again()?;
            }
            None => drop(ticks.tick().await),
        }
        let look = async {
            let now = root_of(shell, &job.path, Way::Pull).await?;
            if now != done {
                job.once(shell).await?;
                done = now;
            }
            Ok::<(), Failure>(())
        };
        let looked = look.await;
        retry.heed(looked)?;
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
