//! Goes after what is followed: each name when its owner lets it change, and later and later while it fails.

use super::ledger::Settled;
use super::note::Noted;
use super::{FollowPinError, Follows, Turn, is_same};
use crate::name::path::NamePath;
use crate::name::resolve::How;
use crate::tasks::Tasks;
use cairn_store::pin::PinMode;
use futures::future::{Either, join};
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::pending;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

impl Follows {
    /// Starts to.
    pub(crate) fn run(&self, tasks: &Tasks) {
        let (this, stop) = (self.clone(), tasks.stopping());
        tasks.spawn("follow names", async move {
            for (path, _) in this.notes() {
                this.schedule(&path, Duration::ZERO);
            }
            let working = join(this.work(), this.sweep());
            let _: Option<((), ())> = stop.run_until_cancelled(working).await;
        });
    }

    async fn work(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(path) = self.begin()
            {
                under_way.push(async move {
                    let ended = self.turn(&path).await;
                    self.ended(&path, ended);
                });
            }
            let next = match self.next_due().filter(|_| under_way.len() < AT_ONCE) {
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

    /// Lets go of everything whose time is over, however long the names that are gone after take.
    async fn sweep(&self) {
        let mut ticks = interval(SWEPT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (path, noted) in self.notes() {
                if self.is_due(&noted)
                    && let Err(error) = self.let_go(&path).await
                {
                    tracing::warn!(path, %error, "an old pin of a followed name was not let go; trying again later");
                }
            }
        }
    }

    /// Has a name looked at after so long.
    pub(super) fn schedule(&self, path: &str, after: Duration) {
        let mut turns = self.turns();
        let is_under_way = turns.get(path).is_some_and(|turn| turn.is_under_way);
        let turn = Turn {
            due: Instant::now() + after,
            is_under_way,
            failures: 0,
            error: None,
        };
        turns.insert(path.to_owned(), turn);
        drop(turns);
        self.0.woken.notify_one();
    }

    /// The one that has been due for longest, if there is any.
    fn begin(&self) -> Option<String> {
        let now = Instant::now();
        let mut turns = self.turns();
        let due = turns
            .iter_mut()
            .filter(|(_, turn)| !turn.is_under_way && turn.due <= now);
        let (path, turn) = due.min_by_key(|(_, turn)| turn.due)?;
        turn.is_under_way = true;
        Some(path.clone())
    }

    fn next_due(&self) -> Option<Instant> {
        let turns = self.turns();
        let waiting = turns.values().filter(|turn| !turn.is_under_way);
        waiting.map(|turn| turn.due).min()
    }

    /// Goes after one; gives after how long it is to be looked at again, if at all.
    pub(super) async fn turn(&self, path: &str) -> Result<Option<Duration>, FollowPinError> {
        // Whatever becomes of the new.
        self.let_go(path).await?;
        let Some(noted) = self.noted(path) else {
            return Ok(None);
        };
        if noted.is_over {
            return Ok(Some(LOOKED_AT_LEAST));
        }
        // Cut off anywhere, it leaves nothing half done.
        let going = timeout(TURN_MAX, self.go_after(path, &noted)).await;
        let slow = |_| FollowPinError::Slow {
            path: path.to_owned(),
            minutes: TURN_MAX.as_secs() / 60,
        };
        let next = going.map_err(slow)??;
        // Of a name that moves all the time the oldest go at once.
        self.let_go(path).await?;
        Ok(Some(next))
    }

    async fn go_after(&self, path: &str, noted: &Noted) -> Result<Duration, FollowPinError> {
        let session = self.0.exchange.session(None);
        // It was written as one.
        let Ok(name) = NamePath::from_str(path) else {
            return Ok(LOOKED_AT_LEAST);
        };
        let lead = self.target(&name, &session, How::Anew).await?;
        lead.is_no_older(path, noted)?;
        let (cid, before) = (lead.cid, noted.now.cid);
        let stands = self.0.exchange.store().pin(&cid);
        let is_known = stands.is_some_and(|pin| pin.mode == PinMode::Recursive)
            && is_same(&cid, &before)
            && lead.sequence == noted.sequence;
        if !is_known {
            let settled = self.have(path, &lead, &session, None, &mut |_| {}).await?;
            if settled == Settled::Pinned && !is_same(&cid, &before) {
                tracing::info!(path, %cid, %before, "a name that is followed has moved");
            }
        }
        let ttl = lead.ttl.unwrap_or(LOOKED_AT_USUALLY);
        Ok(ttl.clamp(LOOKED_AT_MOST, LOOKED_AT_LEAST))
    }

    pub(super) fn ended(&self, path: &str, ended: Result<Option<Duration>, FollowPinError>) {
        let mut turns = self.turns();
        let Some(turn) = turns.get_mut(path) else {
            return;
        };
        turn.is_under_way = false;
        let after = match ended {
            Ok(Some(after)) => {
                (turn.failures, turn.error) = (0, None);
                after
            }
            Ok(None) => {
                turns.remove(path);
                return;
            }
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(path, %error, "a followed name was not gone after; trying again later");
                let doubled = LOOKED_AT_MOST * 2_u32.saturating_pow(turn.failures.min(DOUBLED_MAX));
                turn.failures = turn.failures.saturating_add(1);
                turn.error = Some(error);
                doubled.min(LOOKED_AT_LEAST)
            }
        };
        turn.due = Instant::now() + after;
    }
}

/// Names gone after at once; each may be fetching a DAG.
const AT_ONCE: usize = 4;
/// How long one may take at a time; what did not come by then is asked for in another turn, and others have theirs first.
const TURN_MAX: Duration = Duration::from_secs(15 * 60);
/// How often it is looked which old versions are to go, beside the turns of their names.
const SWEPT_EVERY: Duration = Duration::from_secs(60);
/// A name is not looked at more often than this, whatever its owner says; and this long after a first failure.
const LOOKED_AT_MOST: Duration = Duration::from_secs(60);
/// Nor less often.
const LOOKED_AT_LEAST: Duration = Duration::from_secs(3600);
/// Where its owner says nothing.
const LOOKED_AT_USUALLY: Duration = Duration::from_secs(300);
/// How often the time after a failure doubles: by then it is longer than the longest.
const DOUBLED_MAX: u32 = 6;
