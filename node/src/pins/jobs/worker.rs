//! Works at the queue: each job fetches, pins what is whole, and waits when others are slow.

use super::super::expire::seconds;
use super::note::Job;
use super::queue::Turn;
use super::{Meter, PinJobs, Running, WAITING_HELD_MAX};
use crate::tasks::Tasks;
use cairn_store::pin::{Expiry, Holding, PinError, PinProgress};
use cairn_store::source::SourceError;
use cairn_store::unixfs::read::ReadError;
use futures::FutureExt;
use futures::future::Either;
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is pinned, or is nobody's wish any more.
    Over,
    /// Something changed meanwhile.
    Again,
    /// Perhaps another time.
    Wait(String),
    /// Never.
    Failed(String),
}

/// What one attempt needs.
struct Attempt {
    turn: Turn,
    stop: CancellationToken,
    meter: Arc<Meter>,
    holding: Holding,
}

/// Somebody works at the jobs for as long as this lives.
struct Works(PinJobs);

impl Drop for Works {
    fn drop(&mut self) {
        self.0.0.runs.store(false, Ordering::Relaxed);
    }
}

impl PinJobs {
    /// Starts to; without it jobs wait.
    pub fn run(&self, tasks: &Tasks) {
        let (this, family) = (self.clone(), tasks.clone());
        self.0.runs.store(true, Ordering::Relaxed);
        tasks.spawn("make pins", async move {
            let works = Works(this);
            let work = works.0.work(&family);
            let _: Option<()> = family.stopping().run_until_cancelled(work).await;
        });
    }

    async fn work(&self, tasks: &Tasks) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some(attempt) = self.begin() {
                under_way.push(async move {
                    let trying = AssertUnwindSafe(self.turn(&attempt)).catch_unwind();
                    let ended = trying.await.unwrap_or_else(|panic| {
                        let why = tasks.outlived("make a pin", panic.as_ref());
                        Ended::Failed(format!("{BROKE}: {why}"))
                    });
                    self.ended(&attempt.turn, ended).await;
                });
            }
            let next = match self.queue().next_due() {
                Some(due) => Either::Left(sleep_until(due)),
                None => Either::Right(pending()),
            };
            tokio::select! {
                Some(()) = under_way.next() => {}
                () = next => {}
                () = self.0.woken.notified() => {}
            }
        }
    }

    fn begin(&self) -> Option<Attempt> {
        let turn = self.queue().begin(Instant::now())?;
        let mut running = self.running();
        let one = running.entry(turn.key.clone()).or_insert_with(Running::new);
        one.turn = turn.turn;
        one.stop = CancellationToken::new();
        // Another attempt begins at the root, over what the last one fetched.
        one.meter.at(PinProgress::default());
        let holding = one
            .holding
            .get_or_insert_with(|| self.store().pin_holding());
        Some(Attempt {
            holding: holding.clone(),
            stop: one.stop.clone(),
            meter: Arc::clone(&one.meter),
            turn,
        })
    }

    /// One attempt, unless the job is cancelled meanwhile.
    async fn turn(&self, attempt: &Attempt) -> Ended {
        let Some(job) = self.noted(&attempt.turn.key) else {
            return Ended::Over;
        };
        let trying = self.attempt(attempt, &job);
        match attempt.stop.run_until_cancelled(trying).await {
            None => Ended::Over,
            Some(Ok(ended)) => ended,
            Some(Err(error)) => {
                // What was put before the disk refused may be lost: the next attempt looks at all of it again.
                if matches!(error, PinError::Put(_)) {
                    self.with_running(&attempt.turn, |one| one.holding = None);
                }
                told(&error)
            }
        }
    }

    async fn attempt(&self, attempt: &Attempt, job: &Job) -> Result<Ended, PinError> {
        if self.is_over(job) {
            return Ok(Ended::Failed(
                "its time was over before all of it came".to_owned(),
            ));
        }
        // Of a pin that stands, what is missing is fetched; nobody sends what is here.
        let stands = self.0.follows.stands(&job.wish)?;
        let session = self.0.follows.0.exchange.session(None);
        self.with_running(&attempt.turn, |one| one.session = Some(session.clone()));
        if !stands {
            let prefetched = session.prefetch(&job.wish.cid).await;
            prefetched.map_err(ReadError::from)?;
        }
        let (meter, holding) = (&attempt.meter, &attempt.holding);
        let on_progress = |now: PinProgress| meter.at(now);
        let store = self.store();
        let fetching = store.pin_fetch_holding(session, &job.wish, holding, on_progress);
        let whole = fetching.await?;
        // From here on nobody takes it back or changes it.
        let lock = self.0.noting.clone().lock_owned().await;
        let Some(now) = self.noted(&attempt.turn.key) else {
            return Ok(Ended::Over);
        };
        if !now.needs_the_same(job) {
            return Ok(Ended::Again);
        }
        let (wish, gone) = (now.wish.clone(), now.is_over());
        let making = self.0.follows.make(wish, Some(whole), Some(gone), lock);
        let made = making.await?;
        if made {
            self.0.follows.announce(&now.wish.cid);
        }
        Ok(if made { Ended::Over } else { Ended::Again })
    }

    /// Whether a pin would be over as soon as it is made; by a clock that cannot be right, none is.
    fn is_over(&self, job: &Job) -> bool {
        let Expiry::At(at) = job.wish.expiry else {
            return false;
        };
        let now = self.0.follows.now();
        now.is_ok_and(|now| at <= seconds(now))
    }

    /// Does this to what is known of a job, unless its turn is another one by now.
    fn with_running<T>(&self, turn: &Turn, change: impl FnOnce(&mut Running) -> T) -> Option<T> {
        let mut running = self.running();
        let one = running.get_mut(&turn.key);
        one.filter(|one| one.turn == turn.turn).map(change)
    }

    async fn ended(&self, turn: &Turn, ended: Ended) {
        let blocks = self.with_running(turn, |one| {
            one.session = None;
            one.meter.read().blocks
        });
        let blocks = blocks.unwrap_or(0);
        match ended {
            Ended::Over => self.forget(turn),
            Ended::Again => self.queue().again(turn),
            Ended::Wait(why) => {
                tracing::info!(why, "a pin waits");
                self.hold_over_wait(turn, blocks);
                self.queue().wait(turn, why, blocks, Instant::now());
            }
            Ended::Failed(why) => self.failed(turn, why).await,
        }
    }

    /// What a job fetched stays while it waits, if there is any and not too many wait so.
    fn hold_over_wait(&self, turn: &Turn, blocks: u64) {
        let running = self.running();
        let held = running.values().filter(|one| one.holding.is_some());
        let is_full = held.count() > WAITING_HELD_MAX;
        drop(running);
        if blocks == 0 || is_full {
            self.with_running(turn, |one| one.holding = None);
        }
    }

    /// A job came to nothing, which is noted: after a restart it is not tried again by itself.
    async fn failed(&self, turn: &Turn, why: String) {
        let lock = Arc::new(self.0.noting.clone().lock_owned().await);
        let Some(job) = self.noted(&turn.key) else {
            return self.forget(turn);
        };
        if job.number != turn.number {
            return self.queue().again(turn);
        }
        tracing::warn!(cid = %job.wish.cid, why, "a pin that was to be made failed");
        let failed = Job {
            failed: Some(why.clone()),
            ..job
        };
        let note = vec![(turn.key.clone(), Some(failed.write()))];
        let (its_turn, its_end) = (turn.clone(), why.clone());
        let noting = self.change(note, Arc::clone(&lock), move |this| {
            this.give_up(&its_turn, its_end);
        });
        if let Err(error) = noting.await {
            tracing::warn!(%error, "that a pin failed is not kept: it is tried again after a restart");
            self.give_up(turn, why);
        }
    }

    fn give_up(&self, turn: &Turn, why: String) {
        self.queue().fail(turn, why);
        // What came stays only as long as somebody may want it.
        let mut running = self.running();
        if (running.get(&turn.key)).is_some_and(|one| one.turn == turn.turn) {
            running.remove(&turn.key);
        }
    }

    /// A job is over.
    fn forget(&self, turn: &Turn) {
        let mut queue = self.queue();
        if self.noted(&turn.key).is_some() {
            // It was changed or asked for again meanwhile.
            queue.again(turn);
        } else if queue.end(turn) {
            self.running().remove(&turn.key);
        }
    }
}

/// What comes of an error: others may have it later, or never.
fn told(error: &PinError) -> Ended {
    let text = error.to_string();
    match error {
        PinError::Put(_) | PinError::Absent(_) | PinError::Broken { .. } | PinError::NotPinned => {
            Ended::Wait(text)
        }
        PinError::Read(ReadError::NotFound(_)) => Ended::Wait(text),
        PinError::Read(ReadError::Source(
            SourceError::Disk { .. }
            | SourceError::Damaged { .. }
            | SourceError::Elsewhere { .. }
            | SourceError::Unkept { .. }
            | SourceError::TooSlow { .. }
            | SourceError::Stopping { .. },
        )) => Ended::Wait(text),
        _ => Ended::Failed(text),
    }
}

/// Why a job failed in which something panicked.
const BROKE: &str =
    "pinning it broke down, which is a bug in cairn; `cairn pin retry` has it tried again";
