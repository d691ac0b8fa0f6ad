//! Pins that are made in the background: each is a job that is noted on disk before anybody is told of it, and stays until
//! it is pinned, or somebody cancels it.
//!
//! ```text
//! queued ─► fetching ─► pinned, and no job any more
//!              │  ▲
//!              ▼  │ after a while, or `retry`
//!            waiting (somebody is slow)       failed (denied, malformed, too large …): until `retry` or `cancel`
//! ```
//!
//! What was fetched is held from the first attempt on, over its waits too unless very many wait. The pin and the end of its job are one commit.
//!
//! * `queue.rs`: whose turn it is, decided without a clock; `note.rs`: what the journal has of each.
//! * `worker.rs`: works at them; only a daemon with a network does.
//! * this file: asking for them, and telling how they are. What others pin in the foreground is told beside.

mod note;
mod queue;
#[cfg(test)]
mod tests;
mod worker;

use super::Follows;
use super::expire::seconds;
use crate::exchange::Session;
use cairn_store::cid::Cid;
use cairn_store::notes::{About, NOTES_MAX, NoteError};
use cairn_store::pin::{Expiry, Holding, PinError, PinMode, PinProgress, PinWish};
use cairn_store::sink::PutError;
use cairn_store::{BlockSource, Store};
use futures::{StreamExt, TryStreamExt};
use note::Job;
use queue::{Key, Phase, Queue};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A handle on the jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PinJobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    follows: Follows,
    queue: Mutex<Queue>,
    /// Those that were begun.
    running: Mutex<BTreeMap<Key, Running>>,
    foreground: Mutex<BTreeMap<u64, (PinWish, Arc<Meter>)>>,
    /// Held by whoever changes a note.
    noting: Arc<tokio::sync::Mutex<()>>,
    woken: Notify,
    /// Whether somebody works at them.
    runs: AtomicBool,
    numbers: AtomicU64,
    jobs_max: usize,
}

/// What is known of a job that was begun.
#[derive(Debug)]
struct Running {
    meter: Arc<Meter>,
    /// What it fetched; not of all that wait.
    holding: Option<Holding>,
    stop: CancellationToken,
    session: Option<Session>,
}

/// How far one is.
#[derive(Debug, Default)]
pub struct Meter {
    blocks: AtomicU64,
    bytes: AtomicU64,
    /// One more than the total, so that 0 says that it is not known.
    total: AtomicU64,
}

/// A job, or a pin that is made in the foreground.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// What is to be pinned, and how.
    pub wish: PinWish,
    /// Those of a higher one have their turns first.
    pub priority: i32,
    /// What it does.
    pub state: JobState,
    /// How far it came.
    pub progress: PinProgress,
    /// Whether somebody waits for it, and would end it by going.
    pub is_foreground: bool,
}

/// What a job does just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It has not had its turn yet; perhaps because nobody works at the queue.
    Queued {
        /// Why it has none, if that is not for others before it.
        why: Option<String>,
    },
    /// It is fetched.
    Fetching {
        /// What it waits for just now.
        why: Option<String>,
    },
    /// It is tried again later.
    Waiting {
        /// What went wrong.
        why: String,
        /// In how long.
        left: Duration,
    },
    /// It is not tried again by itself.
    Failed {
        /// Why.
        why: String,
    },
}

impl JobState {
    /// The state's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Fetching { .. } => "fetching",
            Self::Waiting { .. } => "waiting",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why it is as it is, if there is something to say.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Queued { why } | Self::Fetching { why } => why.as_deref(),
            Self::Waiting { why, .. } | Self::Failed { why } => Some(why),
        }
    }
}

/// Why nothing became of what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// There are too many.
    #[error(
        "{PIN_JOBS_MAX} pins are in the queue already, and that is the most; wait until some are made, or take some out with \
         `cairn pin cancel`"
    )]
    TooMany,
    /// There is no such job.
    #[error("{0} is not in the queue of pins; `cairn pin ls --status all` lists what is")]
    Unknown(Cid),
    /// It is not one that would have to wait.
    #[error("{0} is {1}, so there is nothing to try again")]
    NotWaiting(Cid, &'static str),
    /// There can be no such pin.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The journal did not take it.
    #[error("the queue of pins cannot be changed: {0}")]
    Note(#[from] NoteError),
}

impl From<PutError> for JobError {
    fn from(error: PutError) -> Self {
        Self::Note(NoteError::Put(error))
    }
}

impl PinJobs {
    /// The jobs that are noted in the store of `follows`, of which `at_once` are fetched at a time once they run.
    pub fn new(follows: Follows, at_once: NonZeroUsize) -> Self {
        Self::with(follows, at_once, PIN_JOBS_MAX)
    }

    fn with(follows: Follows, at_once: NonZeroUsize, jobs_max: usize) -> Self {
        let mut queue = Queue::new(at_once.get());
        let mut numbers = 0;
        for (key, note) in follows.0.exchange.store().notes(About::PinJob) {
            let Some(job) = Job::read(&note) else {
                tracing::warn!(
                    "a job of pinning cannot be read, so it is left alone; perhaps a newer version wrote it"
                );
                continue;
            };
            numbers = numbers.max(job.number.saturating_add(1));
            let phase = match job.failed {
                Some(why) => Phase::Failed { why },
                None => Phase::Queued,
            };
            queue.add(key, job.priority, job.number, phase);
        }
        Self(Arc::new(Inner {
            follows,
            queue: Mutex::new(queue),
            running: Mutex::default(),
            foreground: Mutex::default(),
            noting: Arc::default(),
            woken: Notify::new(),
            runs: AtomicBool::new(false),
            numbers: AtomicU64::new(numbers),
            jobs_max,
        }))
    }

    /// Has a pin made in the background. On the disk when this returns. What was queued for the same before is replaced.
    pub async fn add(&self, wish: PinWish, priority: i32) -> Result<(), JobError> {
        self.add_all(vec![wish], priority).await
    }

    /// [`PinJobs::add`] of many, which share commits. If one cannot be queued none is, unless the disk refuses half-way.
    pub async fn add_all(&self, wishes: Vec<PinWish>, priority: i32) -> Result<(), JobError> {
        for wish in &wishes {
            wish.check()?;
            // Or there is one already that reaches further.
            self.0.follows.stands(wish)?;
        }
        let _lock = self.0.noting.clone().lock_owned().await;
        {
            let queue = self.queue();
            let keys: BTreeSet<Key> = wishes.iter().map(PinWish::key).collect();
            let new = keys.iter().filter(|key| queue.get(key).is_none()).count();
            if queue.len() + new > self.0.jobs_max {
                return Err(JobError::TooMany);
            }
        }
        let number = |_: &PinWish| self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let jobs = wishes.into_iter().map(|wish| Job {
            number: number(&wish),
            wish,
            priority,
            failed: None,
        });
        let noting = jobs.map(|job| async move {
            let (key, note) = (job.wish.key(), job.write());
            let noting = self.store().set_note(About::PinJob, key.clone(), note);
            noting.await?;
            self.queue().add(key, priority, job.number, Phase::Queued);
            self.0.woken.notify_one();
            Ok(())
        });
        let noting = futures::stream::iter(noting).buffered(NOTED_AT_ONCE);
        noting.try_collect().await
    }

    /// Takes a job out of the queue. Once this returns its pin is not made any more. What was fetched for it stays until
    /// the next garbage collection.
    pub async fn cancel(&self, cid: &Cid) -> Result<(), JobError> {
        let key = key(cid);
        let _lock = self.0.noting.clone().lock_owned().await;
        if self.noted(&key).is_none() {
            return Err(JobError::Unknown(*cid));
        }
        self.store().remove_note(About::PinJob, key.clone()).await?;
        self.queue().remove(&key);
        if let Some(running) = self.running().remove(&key) {
            running.stop.cancel();
        }
        self.0.woken.notify_one();
        Ok(())
    }

    /// Has a job tried again at once that waits or has failed.
    pub async fn retry(&self, cid: &Cid) -> Result<(), JobError> {
        let key = key(cid);
        let _lock = self.0.noting.clone().lock_owned().await;
        let job = self.noted(&key).ok_or(JobError::Unknown(*cid))?;
        let phase = self.queue().get(&key).map(|entry| entry.phase.clone());
        match phase {
            Some(Phase::Running) => return Err(JobError::NotWaiting(*cid, "being fetched")),
            Some(Phase::Queued) => return Err(JobError::NotWaiting(*cid, "queued already")),
            _ => {}
        }
        if job.failed.is_some() {
            let job = Job {
                failed: None,
                ..job
            };
            let noting = self
                .store()
                .set_note(About::PinJob, key.clone(), job.write());
            noting.await?;
        }
        self.queue().retry(&key);
        self.0.woken.notify_one();
        Ok(())
    }

    /// Whether there is a job for this.
    pub fn has(&self, cid: &Cid) -> bool {
        self.noted(&key(cid)).is_some()
    }

    /// Takes note of a pin that somebody makes and waits for; it is told of as long as the guard lives.
    pub fn foreground(&self, wish: PinWish) -> Foreground {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let meter = Arc::<Meter>::default();
        let mut all = self.watched();
        all.insert(number, (wish, Arc::clone(&meter)));
        drop(all);
        Foreground {
            jobs: self.clone(),
            number,
            meter,
        }
    }

    /// Pins in the foreground, for whoever asks for it; a job for the same is not needed any more then.
    pub async fn pin<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: PinWish,
        mut on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        let shown = self.foreground(wish.clone());
        let told = |now: PinProgress| {
            shown.meter.at(now);
            on_progress(now);
        };
        self.0.follows.pin(source, wish.clone(), told).await?;
        self.is_pinned(&wish).await;
        Ok(())
    }

    /// [`Follows::pin_here`] for whoever asks for it.
    pub async fn pin_here<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        wishes: Vec<PinWish>,
    ) -> Result<Vec<bool>, PinError> {
        let made = self.0.follows.pin_here(source, wishes.clone()).await?;
        if self.queue().len() > 0 {
            for (wish, _) in wishes.iter().zip(&made).filter(|(_, made)| **made) {
                self.is_pinned(wish).await;
            }
        }
        Ok(made)
    }

    /// What was queued for this is done, if it was to reach no further.
    async fn is_pinned(&self, wish: &PinWish) {
        let Some(job) = self.noted(&wish.key()) else {
            return;
        };
        if (wish.mode == PinMode::Recursive || job.wish.mode == wish.mode)
            && let Err(error) = self.cancel(&wish.cid).await
        {
            tracing::debug!(%error, "a job of something that is pinned");
        }
    }

    /// All of them: what is made in the foreground, then the jobs in the order of their turns.
    pub async fn list(&self) -> Vec<JobStatus> {
        let shown = |(wish, meter): &(PinWish, Arc<Meter>)| JobStatus {
            wish: wish.clone(),
            priority: 0,
            state: JobState::Fetching { why: None },
            progress: meter.read(),
            is_foreground: true,
        };
        let mut all: Vec<JobStatus> = self.watched().values().map(shown).collect();
        let now = Instant::now();
        let jobs = self.queue().ordered();
        for (key, entry) in jobs {
            let Some(job) = self.noted(&key) else {
                continue;
            };
            let (progress, session) = match self.running().get(&key) {
                Some(running) => (running.meter.read(), running.session.clone()),
                None => Default::default(),
            };
            let state = match entry.phase {
                Phase::Queued => JobState::Queued {
                    why: (!self.runs()).then(|| NOBODY.to_owned()),
                },
                Phase::Running => JobState::Fetching {
                    why: match session {
                        Some(session) => session.waits_for().await,
                        None => None,
                    },
                },
                Phase::Waiting { until, why } => JobState::Waiting {
                    why,
                    left: until.saturating_duration_since(now),
                },
                Phase::Failed { why } => JobState::Failed { why },
            };
            all.push(JobStatus {
                wish: job.wish,
                priority: job.priority,
                state,
                progress,
                is_foreground: false,
            });
        }
        all
    }

    /// Whether somebody works at the queue.
    pub fn runs(&self) -> bool {
        self.0.runs.load(Ordering::Relaxed)
    }

    /// Pins that follow names, through which all pins are made.
    pub fn follows(&self) -> &Follows {
        &self.0.follows
    }

    fn store(&self) -> &Store {
        self.0.follows.0.exchange.store()
    }

    fn noted(&self, key: &[u8]) -> Option<Job> {
        Job::read(&self.store().note(About::PinJob, key)?)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Key, Running>> {
        let running = self.0.running.lock();
        running.unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, (PinWish, Arc<Meter>)>> {
        let foreground = self.0.foreground.lock();
        foreground.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn new() -> Self {
        Self {
            meter: Arc::default(),
            holding: None,
            stop: CancellationToken::new(),
            session: None,
        }
    }
}

/// A pin that is made in the foreground.
#[derive(Debug)]
#[must_use = "it is told of as long as this lives"]
pub struct Foreground {
    jobs: PinJobs,
    number: u64,
    meter: Arc<Meter>,
}

impl Drop for Foreground {
    fn drop(&mut self) {
        self.jobs.watched().remove(&self.number);
    }
}

impl Meter {
    /// So far it is now.
    pub fn at(&self, now: PinProgress) {
        self.blocks.store(now.blocks, Ordering::Relaxed);
        self.bytes.store(now.bytes, Ordering::Relaxed);
        let total = now.total.map_or(0, |total| total.saturating_add(1));
        self.total.store(total, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn read(&self) -> PinProgress {
        PinProgress {
            blocks: self.blocks.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed).checked_sub(1),
        }
    }
}

fn key(cid: &Cid) -> Key {
    PinWish::new(*cid, PinMode::Recursive).key()
}

/// Whether a pin would be over as soon as it is made.
fn is_over(wish: &PinWish) -> bool {
    matches!(wish.expiry, Expiry::At(at) if at <= seconds(SystemTime::now()))
}

/// Why jobs stay queued.
pub const NOBODY: &str = "no daemon with a network runs; what is queued is fetched when one does";
/// Of so many jobs that wait what they fetched is held; a collection asks each of them for every block.
const WAITING_HELD_MAX: usize = 256;
/// How many are noted at once.
const NOTED_AT_ONCE: usize = 64;
/// Most jobs in the queue, those that failed included.
pub const PIN_JOBS_MAX: usize = NOTES_MAX;
/// How many are fetched at once, unless somebody says otherwise.
pub const PINS_FETCHED_AT_ONCE: NonZeroUsize = const { NonZeroUsize::new(4).unwrap() };
