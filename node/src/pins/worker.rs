//! Goes after what is followed: each name when its owner lets it change, and later and later while it fails.

use super::note::Noted;
use super::{FollowPinError, Follows, Turn};
use crate::name::resolve::How;
use crate::tasks::Tasks;
use cairn_store::pin::{PinError, PinMode};
use futures::future::Either;
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::pending;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

impl Follows {
    /// Starts to.
    pub(crate) fn run(&self, tasks: &Tasks) {
        let (this, stop) = (self.clone(), tasks.stopping());
        tasks.spawn("follow names", async move {
            for (path, _) in this.notes() {
                this.schedule(&path, Duration::ZERO);
            }
            let _: Option<()> = stop.run_until_cancelled(this.work()).await;
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

    /// Has a name looked at after so long.
    pub(super) fn schedule(&self, path: &str, after: Duration) {
        let turn = Turn {
            due: Instant::now() + after,
            is_under_way: false,
            failures: 0,
            error: None,
        };
        self.turns().insert(path.to_owned(), turn);
        self.0.woken.notify_one();
    }

    /// One that is due, if there is any.
    fn begin(&self) -> Option<String> {
        let now = Instant::now();
        let mut turns = self.turns();
        let due = |turn: &Turn| !turn.is_under_way && turn.due <= now;
        let (path, turn) = turns.iter_mut().find(|(_, turn)| due(turn))?;
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
        let Some(noted) = self.noted(path) else {
            return Ok(None);
        };
        let next = match noted.is_over {
            true => Ok(LOOKED_AT_LEAST),
            false => self.go_after(path, &noted).await,
        };
        // Whether that worked or not.
        let left = self.let_go(path).await?;
        if noted.is_over && left == 0 {
            let _noting = self.0.noting.lock().await;
            if self.noted(path).is_some_and(|noted| noted.is_over) {
                self.forget(path).await?;
            }
            return Ok(None);
        }
        Ok(Some(next?))
    }

    async fn go_after(&self, path: &str, noted: &Noted) -> Result<Duration, FollowPinError> {
        let session = self.0.exchange.session(None);
        // It was written as one.
        let Ok(name) = crate::name::path::NamePath::from_str(path) else {
            return Ok(LOOKED_AT_LEAST);
        };
        let (cid, ttl) = self.target(&name, &session, How::Anew).await?;
        let held = self
            .pin(path, cid, &noted.pin_name, &session, |_| {})
            .await?;
        let _noting = self.0.noting.lock().await;
        // It may have been let go meanwhile; then the new pin stays, as the last one does.
        if let Some(mut noted) = self.noted(path) {
            let before = noted.clone();
            noted.moves(held, (self.0.clock)());
            if noted != before {
                tracing::info!(path, %cid, before = %before.now.cid, "a name that is followed has moved");
                self.write(path, &noted).await?;
            }
        }
        let ttl = ttl.unwrap_or(LOOKED_AT_USUALLY);
        Ok(ttl.clamp(LOOKED_AT_MOST, LOOKED_AT_LEAST))
    }

    /// Removes old pins whose time is over; gives how many are left.
    async fn let_go(&self, path: &str) -> Result<usize, FollowPinError> {
        let _noting = self.0.noting.lock().await;
        let store = self.0.exchange.store();
        while let Some(mut noted) = self.noted(path) {
            let Some(due) = noted.due((self.0.clock)()) else {
                return Ok(noted.before.len());
            };
            let cid = due.held.cid;
            let is_ours = due.held.is_ours;
            if is_ours && !self.is_wanted_elsewhere(path, &noted, &cid) {
                match store.pin_remove(&cid, Some(PinMode::Recursive)).await {
                    Ok(()) => {
                        tracing::info!(path, %cid, "what a followed name led to before is let go");
                    }
                    // Somebody else did it already.
                    Err(PinError::NotPinned | PinError::OtherMode { .. }) => {}
                    Err(source) => {
                        let path = path.to_owned();
                        return Err(FollowPinError::Pin { path, cid, source });
                    }
                }
            }
            noted.before.remove(0);
            self.write(path, &noted).await?;
        }
        Ok(0)
    }

    /// Whether another followed name holds this pin as well, or this one does again.
    fn is_wanted_elsewhere(&self, path: &str, noted: &Noted, cid: &cairn_store::Cid) -> bool {
        let is = |other: &cairn_store::Cid| super::is_same(other, cid);
        let others = self.notes().into_iter().filter(|(other, _)| other != path);
        let holds =
            |other: Noted| is(&other.now.cid) || other.before.iter().any(|old| is(&old.held.cid));
        is(&noted.now.cid)
            || noted.before.iter().skip(1).any(|old| is(&old.held.cid))
            || others.map(|(_, other)| other).any(holds)
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
/// A name is not looked at more often than this, whatever its owner says; and this long after a first failure.
const LOOKED_AT_MOST: Duration = Duration::from_secs(60);
/// Nor less often.
const LOOKED_AT_LEAST: Duration = Duration::from_secs(3600);
/// Where its owner says nothing.
const LOOKED_AT_USUALLY: Duration = Duration::from_secs(300);
/// How often the time after a failure doubles: by then it is longer than the longest.
const DOUBLED_MAX: u32 = 6;
