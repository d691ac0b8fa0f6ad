//! Re-hashes what is stored, a piece at a time, and has peers heal what is bad.
//!
//! After each piece it rests for as long as keeps it within its share of the time; after a round over
//! everything for a week. What nobody could heal is tried again after a while; more of that than can be
//! remembered is met again in the next round.

use super::Job;
use crate::event::Event;
use crate::exchange::Exchange;
use cairn_store::config::Percent;
use cairn_store::sink::PutError;
use cairn_store::store::Keep;
use cairn_store::verify::BadBlock;
use cairn_store::{BlockSource, Cid, SourceError};
use futures::{StreamExt, stream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;
use tokio::time::Instant;

/// The job.
pub(crate) struct Scrub<L> {
    log: L,
    events: broadcast::Sender<Event>,
    share: Percent,
    /// When the next piece is due.
    next: Instant,
    /// What nobody could heal, and when to try again.
    sick: Vec<Cid>,
    heal_at: Option<Instant>,
}

/// The store and the peers, as far as the scrub needs them.
pub(crate) trait Log: Send + Sync + 'static {
    /// Re-hashes about `bytes` more; answers how many were read, none at the end of a round, and what
    /// is bad.
    fn scrub(
        &self,
        bytes: u64,
    ) -> impl Future<Output = Result<(u64, Vec<BadBlock>), SourceError>> + Send;
    /// How long ago the last round ended; `None` if none has as far as the clock knows, or if one is
    /// under way.
    fn rested(&self) -> Option<Duration>;
    /// Whether bad blocks can be had from elsewhere.
    fn can_heal(&self) -> bool;
    /// Gets bad blocks from elsewhere; answers what became of each.
    fn heal(&self, bad: Vec<Cid>) -> impl Future<Output = Vec<(Cid, Result<(), String>)>> + Send;
}

impl<L: Log> Scrub<L> {
    /// The job, unless its share is nothing.
    pub(crate) fn new(log: L, events: broadcast::Sender<Event>, share: Percent) -> Option<Self> {
        if share.0 == 0 {
            return None;
        }
        let rest = log
            .rested()
            .map_or(Duration::ZERO, |rested| ROUND_REST.saturating_sub(rested));
        Some(Self {
            log,
            events,
            share,
            next: Instant::now() + rest,
            sick: Vec::new(),
            heal_at: None,
        })
    }

    /// Does a piece; answers how long to rest.
    async fn scrub(&mut self) -> Duration {
        let began = Instant::now();
        let piece = self.log.scrub(PIECE_BYTES).await;
        let worked = began.elapsed();
        match piece {
            Ok((0, _)) => match self.log.rested() {
                Some(rested) => {
                    let _ = self.events.send(Event::Scrubbed); // Nobody has to listen.
                    ROUND_REST.saturating_sub(rested)
                }
                // There is nothing yet.
                None => EMPTY_REST,
            },
            Ok((_, bad)) => {
                tell(&bad);
                self.heal(bad.into_iter().filter_map(|bad| bad.cid).collect())
                    .await;
                rest_after(worked, self.share)
            }
            Err(error) => {
                tracing::error!(%error, "the scrub cannot read on");
                FAILURE_REST
            }
        }
    }

    async fn heal(&mut self, bad: Vec<Cid>) {
        if bad.is_empty() || !self.log.can_heal() {
            return;
        }
        for (cid, healed) in self.log.heal(bad).await {
            match healed {
                Ok(()) => {
                    tracing::warn!(%cid, "a damaged block was fetched again");
                    let _ = self.events.send(Event::Healed(cid)); // Nobody has to listen.
                }
                Err(error) => {
                    tracing::error!(%cid, %error, "a damaged block was not fetched again");
                    if self.sick.len() < SICK_MAX {
                        self.sick.push(cid);
                        self.heal_at
                            .get_or_insert_with(|| Instant::now() + HEAL_AGAIN_AFTER);
                    }
                }
            }
        }
    }
}

impl<L: Log> Job for Scrub<L> {
    const NAME: &'static str = "scrub";

    async fn work(&mut self) {
        let now = Instant::now();
        if self.heal_at.is_some_and(|at| now >= at) {
            self.heal_at = None;
            let sick = std::mem::take(&mut self.sick);
            self.heal(sick).await;
        }
        if now >= self.next {
            let rest = self.scrub().await;
            self.next = Instant::now() + rest;
        }
    }

    async fn wait(&mut self) {
        let next = self.heal_at.map_or(self.next, |at| at.min(self.next));
        tokio::time::sleep_until(next).await;
    }
}

/// How long to rest after work of this length, so that it takes no more than its share of the time.
fn rest_after(worked: Duration, share: Percent) -> Duration {
    let share = u32::from(share.0).clamp(1, 100);
    worked.saturating_mul(100 - share) / share
}

/// How long ago the last round ended, both told since 1970. An end that lies far ahead was told by a clock
/// that was wrong: who waited for that time would not work for years, however often it is started anew.
fn rested_at(now: Duration, ended: Duration) -> Option<Duration> {
    (ended <= now + ROUND_REST).then(|| now.saturating_sub(ended))
}

/// Names what is bad, the first of it at least.
fn tell(bad: &[BadBlock]) {
    for BadBlock { cid, why, .. } in bad.iter().take(TOLD_MAX) {
        match cid {
            Some(cid) => tracing::error!(%cid, why, "damaged block"),
            None => tracing::error!(
                why,
                "damaged block without a name; `cairn repo verify --heal` looks for it"
            ),
        }
    }
    if let Some(more) = bad.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
        tracing::error!(more, "damaged blocks; `cairn repo verify` names them");
    }
}

impl Log for Exchange {
    async fn scrub(&self, bytes: u64) -> Result<(u64, Vec<BadBlock>), SourceError> {
        let bad = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&bad);
        let lock = |bad: &Mutex<Vec<_>>, block: BadBlock| {
            bad.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(block);
        };
        let on_bad = move |block| lock(&found, block);
        let read = self.store().scrub(bytes, on_bad).await?;
        let bad = std::mem::take(&mut *bad.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((read, bad))
    }

    fn rested(&self) -> Option<Duration> {
        let state = self.store().scrub_state();
        if state.started != 0 || state.finished == 0 {
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        rested_at(now.unwrap_or_default(), Duration::from_secs(state.finished))
    }

    fn can_heal(&self) -> bool {
        self.is_online() && !self.store().is_read_only()
    }

    async fn heal(&self, bad: Vec<Cid>) -> Vec<(Cid, Result<(), String>)> {
        let session = &self.session(None);
        let fetch = |cid| async move {
            let fetched = session.block(&cid).await;
            let whole = fetched.map_err(|error| error.to_string());
            (cid, whole.map(|_| ()))
        };
        let fetched: Vec<_> = stream::iter(bad)
            .map(fetch)
            .buffer_unordered(HEALS_AT_ONCE)
            .collect()
            .await;
        // What comes from peers is durable with somebody's commit: this one.
        let durable = self.store().put(Vec::new(), Keep::Kept).await;
        let or_not = |durable: &Result<(), PutError>| match durable {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        fetched
            .into_iter()
            .map(|(cid, healed)| (cid, healed.and_then(|()| or_not(&durable))))
            .collect()
    }
}

/// Bytes re-hashed in one go: a disk is not kept busy for longer than that.
const PIECE_BYTES: u64 = 4 << 20;
/// From the end of a round to the beginning of the next.
const ROUND_REST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long to wait when there was nothing to read.
const EMPTY_REST: Duration = Duration::from_secs(3600);
/// How long to wait after the disk refused.
const FAILURE_REST: Duration = Duration::from_secs(3600);
/// How long to wait before peers are asked again for what none had.
const HEAL_AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// Bad blocks that peers are asked for at once.
const HEALS_AT_ONCE: usize = 8;
/// How many blocks are remembered to be asked for again.
const SICK_MAX: usize = 4096;
/// How many bad blocks of a piece are named in the log.
const TOLD_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Tasks;
    use cairn_store::cid::{Multihash, RAW};
    use cairn_store::verify::Section;
    use tokio::sync::mpsc;

    /// A log of `pieces` pieces, each of which takes `PIECE_TIME`, with one bad block in the first.
    struct Paper {
        pieces: u64,
        at: Mutex<u64>,
        finished: Mutex<Option<Instant>>,
        told: mpsc::UnboundedSender<Told>,
        /// How often nobody has the bad block.
        ill: Mutex<u32>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Told {
        Piece(Instant),
        Through(Instant),
        Heal(Instant),
    }

    const PIECE_TIME: Duration = Duration::from_millis(100);

    fn bad() -> Cid {
        Cid::new_v1(RAW, Multihash::wrap(0x12, &[7; 32]).unwrap())
    }

    impl Log for Paper {
        async fn scrub(&self, bytes: u64) -> Result<(u64, Vec<BadBlock>), SourceError> {
            let at = {
                let mut at = self.at.lock().unwrap();
                *at = (*at + 1) % (self.pieces + 1);
                *at
            };
            if at == 0 {
                *self.finished.lock().unwrap() = (self.pieces > 0).then(Instant::now);
                let _ = self.told.send(Told::Through(Instant::now()));
                return Ok((0, Vec::new()));
            }
            *self.finished.lock().unwrap() = None;
            let _ = self.told.send(Told::Piece(Instant::now()));
            tokio::time::sleep(PIECE_TIME).await;
            let found = BadBlock {
                cid: Some(bad()),
                why: String::new(),
                section: Section::default(),
            };
            Ok((bytes, (at == 1).then_some(found).into_iter().collect()))
        }

        fn rested(&self) -> Option<Duration> {
            self.finished.lock().unwrap().map(|at| at.elapsed())
        }

        fn can_heal(&self) -> bool {
            true
        }

        async fn heal(&self, bad: Vec<Cid>) -> Vec<(Cid, Result<(), String>)> {
            let _ = self.told.send(Told::Heal(Instant::now()));
            let mut ill = self.ill.lock().unwrap();
            let healed = if *ill == 0 {
                Ok(())
            } else {
                *ill -= 1;
                Err("nobody has it".to_owned())
            };
            bad.into_iter().map(|cid| (cid, healed.clone())).collect()
        }
    }

    struct Bench {
        told: mpsc::UnboundedReceiver<Told>,
        events: broadcast::Receiver<Event>,
        _tasks: Tasks,
    }

    impl Bench {
        fn start(pieces: u64, share: u8, ill: u32, rested: Option<Duration>) -> Self {
            #[expect(clippy::disallowed_methods, reason = "a test says little")]
            let (told, heard) = mpsc::unbounded_channel();
            let log = Paper {
                pieces,
                at: Mutex::default(),
                finished: Mutex::new(rested.map(|rested| Instant::now() - rested)),
                told,
                ill: Mutex::new(ill),
            };
            let (events, listener) = broadcast::channel(100);
            let tasks = Tasks::new();
            if let Some(job) = Scrub::new(log, events, Percent(share)) {
                crate::jobs::run(job, &tasks);
            }
            Self {
                told: heard,
                events: listener,
                _tasks: tasks,
            }
        }

        async fn next(&mut self) -> Option<Told> {
            self.told.recv().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_takes_its_share_of_the_time_and_the_next_begins_a_week_later() {
        let start = Instant::now();
        let mut bench = Bench::start(3, 2, 0, None);
        let cycle = PIECE_TIME * 50; // 2 % of it is work.
        for round in 0..2 {
            let start = start + (ROUND_REST + 3 * cycle) * round;
            assert_eq!(bench.next().await, Some(Told::Piece(start)));
            let healed = Told::Heal(start + PIECE_TIME);
            assert_eq!(bench.next().await, Some(healed));
            assert_eq!(bench.next().await, Some(Told::Piece(start + cycle)));
            assert_eq!(bench.next().await, Some(Told::Piece(start + 2 * cycle)));
            assert_eq!(bench.next().await, Some(Told::Through(start + 3 * cycle)));
            assert!(matches!(bench.events.recv().await, Ok(Event::Healed(cid)) if cid == bad()));
            assert!(matches!(bench.events.recv().await, Ok(Event::Scrubbed)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_does_not_shorten_the_rest_between_two_rounds() {
        let rested = Duration::from_secs(24 * 3600);
        let due = Instant::now() + ROUND_REST - rested;
        let mut bench = Bench::start(1, 100, 0, Some(rested));
        assert_eq!(bench.next().await, Some(Told::Piece(due)));
    }

    #[test]
    fn a_round_that_ended_far_ahead_of_the_clock_does_not_count() {
        let now = 1000 * ROUND_REST;
        let second = Duration::from_secs(1);
        assert_eq!(rested_at(now, now - second), Some(second));
        // Clocks are set right by a little now and then.
        assert_eq!(rested_at(now, now + second), Some(Duration::ZERO));
        assert_eq!(rested_at(now, now + ROUND_REST + second), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_is_asked_for_again_while_the_round_goes_on() {
        let mut bench = Bench::start(1, 100, 2, None);
        let start = Instant::now();
        assert_eq!(bench.next().await, Some(Told::Piece(start)));
        let first = start + PIECE_TIME;
        assert_eq!(bench.next().await, Some(Told::Heal(first)));
        assert_eq!(bench.next().await, Some(Told::Through(first)));
        for at in [first + HEAL_AGAIN_AFTER, first + 2 * HEAL_AGAIN_AFTER] {
            assert_eq!(bench.next().await, Some(Told::Heal(at)));
        }
        let next_round = bench.next().await;
        assert_eq!(next_round, Some(Told::Piece(first + ROUND_REST)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_store_is_looked_at_again_soon_and_a_share_of_nothing_never_works() {
        let mut empty = Bench::start(0, 2, 0, None);
        let start = Instant::now();
        assert_eq!(empty.next().await, Some(Told::Through(start)));
        assert_eq!(empty.next().await, Some(Told::Through(start + EMPTY_REST)));
        assert_eq!(Bench::start(3, 0, 0, None).next().await, None);
    }
}
