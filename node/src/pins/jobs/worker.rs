//! Works at the queue: each job fetches, pins what is whole, and waits when others are slow.

use super::note::Job;
use super::queue::{Key, Phase};
use super::{Meter, PinJobs, Running, WAITING_HELD_MAX, is_over};
use crate::exchange::Session;
use crate::tasks::Tasks;
use cairn_store::notes::About;
use cairn_store::pin::{Holding, PinError, PinProgress};
use cairn_store::source::SourceError;
use cairn_store::unixfs::read::ReadError;
use futures::future::Either;
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, sleep_until};

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

impl PinJobs {
    /// Starts to; without it jobs wait.
    pub fn run(&self, tasks: &Tasks) {
        let (this, stop) = (self.clone(), tasks.stopping());
        self.0.runs.store(true, Ordering::Relaxed);
        tasks.spawn("make pins", async move {
            let _: Option<()> = stop.run_until_cancelled(this.work()).await;
            this.0.runs.store(false, Ordering::Relaxed);
        });
    }

    async fn work(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some(key) = self.begin() {
                under_way.push(async move {
                    let ended = self.turn(&key).await;
                    self.ended(&key, ended).await;
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

    fn begin(&self) -> Option<Key> {
        let key = self.queue().begin(Instant::now())?;
        let mut running = self.running();
        let one = running.entry(key.clone()).or_insert_with(Running::new);
        // Another attempt begins at the root, over what the last one fetched.
        one.meter.at(PinProgress::default());
        let _: &mut Holding = one
            .holding
            .get_or_insert_with(|| self.store().pin_holding());
        drop(running);
        Some(key)
    }

    /// One attempt, unless the job is cancelled meanwhile.
    pub(super) async fn turn(&self, key: &Key) -> Ended {
        let (stop, meter, holding) = match self.running().get(key) {
            Some(running) => (
                running.stop.clone(),
                Arc::clone(&running.meter),
                running.holding.clone(),
            ),
            None => return Ended::Over,
        };
        let holding = holding.unwrap_or_else(|| self.store().pin_holding());
        let Some(job) = self.noted(key) else {
            return Ended::Over;
        };
        let attempt = self.attempt(key, &job, &meter, &holding);
        match stop.run_until_cancelled(attempt).await {
            None => Ended::Over,
            Some(Ok(ended)) => ended,
            Some(Err(error)) => {
                // What was put before the disk refused may be lost: the next attempt looks at all of it again.
                if matches!(error, PinError::Put(_))
                    && let Some(running) = self.running().get_mut(key)
                {
                    running.holding = None;
                }
                told(&error)
            }
        }
    }

    async fn attempt(
        &self,
        key: &Key,
        job: &Job,
        meter: &Meter,
        holding: &Holding,
    ) -> Result<Ended, PinError> {
        if is_over(&job.wish) {
            return Ok(Ended::Failed(
                "its time was over before all of it came".to_owned(),
            ));
        }
        let whole = match self.0.follows.stands(&job.wish)? {
            true => None,
            false => {
                let session = self.0.follows.0.exchange.session(None);
                self.watch(key, session.clone());
                let prefetched = session.prefetch(&job.wish.cid).await;
                prefetched.map_err(ReadError::from)?;
                let on_progress = |now: PinProgress| meter.at(now);
                let store = self.store();
                let fetching = store.pin_fetch_holding(session, &job.wish, holding, on_progress);
                Some(fetching.await?)
            }
        };
        // From here on nobody takes it back or changes it.
        let lock = self.0.noting.clone().lock_owned().await;
        let Some(now) = self.noted(key) else {
            return Ok(Ended::Over);
        };
        if !now.needs_the_same(job) {
            return Ok(Ended::Again);
        }
        let (wish, is_new, gone) = (now.wish.clone(), whole.is_some(), now.is_over());
        let made = self.0.follows.make(wish, whole, Some(gone), lock).await?;
        if made && is_new {
            self.0.follows.announce(&now.wish.cid);
        }
        Ok(if made { Ended::Over } else { Ended::Again })
    }

    fn watch(&self, key: &Key, session: Session) {
        if let Some(running) = self.running().get_mut(key) {
            running.session = Some(session);
        }
    }

    async fn ended(&self, key: &Key, ended: Ended) {
        let blocks = {
            let mut running = self.running();
            let one = running.get_mut(key);
            one.map_or(0, |one| {
                one.session = None;
                one.meter.read().blocks
            })
        };
        match ended {
            Ended::Over => self.forget(key),
            Ended::Again => self.queue().again(key),
            Ended::Wait(why) => {
                tracing::info!(why, "a pin waits");
                self.hold_over_wait(key, blocks);
                self.queue().wait(key, why, blocks, Instant::now());
            }
            Ended::Failed(why) => self.failed(key, why).await,
        }
    }

    /// What a job fetched stays while it waits, if there is any and not too many wait so.
    fn hold_over_wait(&self, key: &Key, blocks: u64) {
        let mut running = self.running();
        let held = running.values().filter(|one| one.holding.is_some());
        let is_full = held.count() > WAITING_HELD_MAX;
        if let Some(one) = running.get_mut(key).filter(|_| blocks == 0 || is_full) {
            one.holding = None;
        }
    }

    /// A job came to nothing, which is noted: after a restart it is not tried again by itself.
    async fn failed(&self, key: &Key, why: String) {
        let _lock = self.0.noting.clone().lock_owned().await;
        let Some(job) = self.noted(key) else {
            return self.forget(key);
        };
        tracing::warn!(cid = %job.wish.cid, why, "a pin that was to be made failed");
        let failed = Job {
            failed: Some(why.clone()),
            ..job
        };
        let noted = self
            .store()
            .set_note(About::PinJob, key.clone(), failed.write());
        if let Err(error) = noted.await {
            tracing::warn!(%error, "that a pin failed is not kept: it is tried again after a restart");
        }
        self.queue().fail(key, why);
        // What came stays only as long as somebody may want it.
        self.running().remove(key);
    }

    /// A job is over.
    fn forget(&self, key: &Key) {
        let mut queue = self.queue();
        // Unless it was asked for again meanwhile.
        if self.noted(key).is_some() {
            if queue
                .get(key)
                .is_some_and(|one| one.phase == Phase::Running)
            {
                queue.again(key);
            }
            return;
        }
        queue.remove(key);
        self.running().remove(key);
    }
}

/// What comes of an error: others may have it later, or never.
fn told(error: &PinError) -> Ended {
    let text = error.to_string();
    match error {
        PinError::Put(_) | PinError::Absent(_) | PinError::NotPinned => Ended::Wait(text),
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
