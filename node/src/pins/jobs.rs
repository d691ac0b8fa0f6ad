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
//! * `status.rs`: telling how they are, and what others pin in the foreground.
//! * this file: asking for them.

mod note;
mod queue;
mod status;
#[cfg(test)]
mod tests;
mod worker;

pub use status::{Foreground, JobState, JobStatus, Meter, NOBODY};

use super::Follows;
use crate::exchange::Session;
use bytes::Bytes;
use cairn_store::cid::Cid;
use cairn_store::notes::{About, NOTES_MAX, NoteError};
use cairn_store::pin::{Holding, NoteChange, PinError, PinMode, PinProgress, PinWish};
use cairn_store::sink::PutError;
use cairn_store::{BlockSource, Store};
use note::Job;
use queue::{Key, Phase, Queue};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
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
    foreground: Mutex<BTreeMap<u64, Pinning>>,
    /// Held by whoever changes a note.
    noting: Arc<tokio::sync::Mutex<()>>,
    woken: Notify,
    /// Whether somebody works at them.
    runs: AtomicBool,
    numbers: AtomicU64,
    jobs_max: usize,
}

/// What somebody pins in the foreground, and how far it is.
type Pinning = (PinWish, Arc<Meter>);

/// What is known of a job that was begun.
#[derive(Debug)]
struct Running {
    /// The turn that it has or had last.
    turn: u64,
    meter: Arc<Meter>,
    /// What it fetched; not of all that wait.
    holding: Option<Holding>,
    stop: CancellationToken,
    session: Option<Session>,
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

    /// [`PinJobs::add`] of many, which share commits. If one cannot be queued none is, unless the disk refuses half-way or
    /// nobody waits any more.
    pub async fn add_all(&self, wishes: Vec<PinWish>, priority: i32) -> Result<(), JobError> {
        for wish in &wishes {
            wish.check()?;
            // Or there is one already that reaches further.
            self.0.follows.stands(wish)?;
        }
        let lock = Arc::new(self.0.noting.clone().lock_owned().await);
        {
            let queue = self.queue();
            let keys: BTreeSet<Key> = wishes.iter().map(PinWish::key).collect();
            let new = keys.iter().filter(|key| queue.get(key).is_none()).count();
            if queue.len() + new > self.0.jobs_max {
                return Err(JobError::TooMany);
            }
        }
        let mut jobs = wishes.into_iter().map(|wish| Job {
            number: self.0.numbers.fetch_add(1, Ordering::Relaxed),
            wish,
            priority,
            failed: None,
        });
        loop {
            let some: Vec<Job> = jobs.by_ref().take(NOTED_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.put(some, Arc::clone(&lock)).await?;
        }
    }

    /// Notes jobs and puts them in the queue.
    async fn put(&self, jobs: Vec<Job>, lock: impl Send + 'static) -> Result<(), NoteError> {
        let notes = jobs.iter().map(|job| (job.wish.key(), Some(job.write())));
        let notes = notes.collect();
        let jobs = jobs.into_iter().map(|job| {
            let before = self.noted(&job.wish.key());
            (job, before)
        });
        let jobs: Vec<(Job, Option<Job>)> = jobs.collect();
        self.change(notes, lock, |this| {
            for (job, before) in jobs {
                let key = job.wish.key();
                let is_other = before.is_some_and(|before| !before.needs_the_same(&job));
                let number = job.number;
                this.queue()
                    .add(key.clone(), job.priority, number, Phase::Queued);
                // What is fetched for the one before is of no use to it.
                if let Some(running) = this.running().get(&key).filter(|_| is_other) {
                    running.stop.cancel();
                }
            }
        })
        .await
    }

    /// Takes a job out of the queue. Once this returns its pin is not made any more. What was fetched for it stays until
    /// the next garbage collection.
    pub async fn cancel(&self, cid: &Cid) -> Result<(), JobError> {
        match self.cancel_if(cid, |_| true).await? {
            true => Ok(()),
            false => Err(JobError::Unknown(*cid)),
        }
    }

    /// [`PinJobs::cancel`] if the job is such a one, which nobody changes meanwhile; false if there is none.
    async fn cancel_if(
        &self,
        cid: &Cid,
        is_one: impl FnOnce(&Job) -> bool + Send,
    ) -> Result<bool, NoteError> {
        let key = key(cid);
        let lock = self.0.noting.clone().lock_owned().await;
        if self.noted(&key).filter(is_one).is_none() {
            return Ok(false);
        }
        let note = vec![(key.clone(), None)];
        let cancelling = self.change(note, lock, move |this| {
            this.queue().remove(&key);
            if let Some(running) = this.running().remove(&key) {
                running.stop.cancel();
            }
        });
        cancelling.await?;
        Ok(true)
    }

    /// Has a job tried again at once that waits or has failed.
    pub async fn retry(&self, cid: &Cid) -> Result<(), JobError> {
        self.retry_all(&[*cid]).await
    }

    /// [`PinJobs::retry`] of many. If one has nothing to wait for none is, unless the disk refuses half-way or nobody waits
    /// any more.
    pub async fn retry_all(&self, cids: &[Cid]) -> Result<(), JobError> {
        let lock = Arc::new(self.0.noting.clone().lock_owned().await);
        let (mut failed, mut waiting) = (Vec::new(), Vec::new());
        for cid in cids {
            let key = key(cid);
            let job = self.noted(&key).ok_or(JobError::Unknown(*cid))?;
            let phase = self.queue().get(&key).map(|entry| entry.phase.clone());
            match phase {
                Some(Phase::Running(_)) => return Err(JobError::NotWaiting(*cid, "being fetched")),
                Some(Phase::Queued) => return Err(JobError::NotWaiting(*cid, "queued already")),
                _ if job.failed.is_none() => waiting.push(key),
                _ => failed.push(Job {
                    failed: None,
                    ..job
                }),
            }
        }
        for some in failed.chunks(NOTED_AT_ONCE) {
            let notes = some.iter().map(|job| (job.wish.key(), Some(job.write())));
            let notes: Vec<(Key, Option<Bytes>)> = notes.collect();
            let keys: Vec<Key> = notes.iter().map(|(key, _)| key.clone()).collect();
            let retrying = self.change(notes, Arc::clone(&lock), move |this| {
                let mut queue = this.queue();
                for key in &keys {
                    queue.retry(key);
                }
            });
            retrying.await?;
        }
        for key in &waiting {
            self.queue().retry(key);
        }
        self.0.woken.notify_one();
        Ok(())
    }

    /// Changes notes and the queue with them: both or neither, even if whoever asked for it has gone meanwhile. A job that
    /// is noted and stands in no queue would be nobody's until the next start.
    async fn change(
        &self,
        notes: Vec<(Key, Option<Bytes>)>,
        lock: impl Send + 'static,
        queue: impl FnOnce(&Self) + Send + 'static,
    ) -> Result<(), NoteError> {
        let changes = notes.into_iter().map(|(key, value)| NoteChange {
            about: About::PinJob,
            key,
            value,
        });
        let this = self.clone();
        let then = move || {
            queue(&this);
            this.0.woken.notify_one();
            drop(lock);
        };
        self.store().change_notes(changes.collect(), then).await
    }

    /// Whether there is a job for this.
    pub fn has(&self, cid: &Cid) -> bool {
        self.noted(&key(cid)).is_some()
    }

    /// Pins in the foreground, for whoever asks for it; a job for the same is not needed any more then.
    pub async fn pin<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: PinWish,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        if self.0.follows.change(&wish).await? {
            self.is_pinned(&wish).await;
            return Ok(());
        }
        self.pin_whole(source, wish, on_progress).await
    }

    /// [`PinJobs::pin`] that fetches what is missing of a pin that stands, too.
    pub async fn pin_whole<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: PinWish,
        mut on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        let shown = self.foreground(wish.clone());
        let told = |now: PinProgress| {
            shown.at(now);
            on_progress(now);
        };
        let pinning = self.0.follows.pin_whole(source, wish.clone(), told);
        pinning.await?;
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

    /// What is queued for this is done, if it is to reach no further.
    async fn is_pinned(&self, wish: &PinWish) {
        if !self.has(&wish.cid) {
            return;
        }
        let mode = wish.mode;
        let is_done = |job: &Job| mode == PinMode::Recursive || job.wish.mode == mode;
        if let Err(error) = self.cancel_if(&wish.cid, is_done).await {
            tracing::debug!(%error, "a job of something that is pinned");
        }
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
}

impl Running {
    fn new() -> Self {
        Self {
            turn: 0,
            meter: Arc::default(),
            holding: None,
            stop: CancellationToken::new(),
            session: None,
        }
    }
}

fn key(cid: &Cid) -> Key {
    PinWish::new(*cid, PinMode::Recursive).key()
}

/// Of so many jobs that wait what they fetched is held; a collection asks each of them for every block.
const WAITING_HELD_MAX: usize = 256;
/// How many are noted at once.
const NOTED_AT_ONCE: usize = 256;
/// Most jobs in the queue, those that failed included.
pub const PIN_JOBS_MAX: usize = NOTES_MAX;
/// How many are fetched at once, unless somebody says otherwise.
pub const PINS_FETCHED_AT_ONCE: NonZeroUsize = const { NonZeroUsize::new(4).unwrap() };
