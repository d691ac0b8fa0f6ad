//! What was signed here is told again before others forget it, and signed anew before it expires.
//!
//! Others keep a record for two days, but they come and go, so all are told again a few times a day, one after the other
//! and spread over the time, so that many names are no burst; a name whose records hold for less, more often; one that
//! nobody took, soon. When half of a record's time is over the next one is signed in its place, if its key is here; else
//! the last one is told for as long as it holds, and of names that are kept alive for others the newest that anybody has.
//! Where a newer record is known that the same key signed elsewhere, that one counts: its value goes on, not an older one
//! with a higher number. How often anything happens is measured by a clock that nobody can set.

use super::Names;
use super::publish::{Noted, Wish};
use crate::jobs::Job;
use crate::keystore::{Key, Keystore, OWN};
use crate::routing::RoutingError;
use cairn_store::notes::{About, NOTES_MAX};
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Where keys are.
pub trait Keys: fmt::Debug + Send + Sync + 'static {
    /// The key of a name, if it is here and can be had. Blocks.
    fn key_of(&self, name: &PeerId) -> Option<Arc<Key>>;
}

impl Keys for Keystore {
    fn key_of(&self, name: &PeerId) -> Option<Arc<Key>> {
        let opened = match self.named(OWN) {
            Ok(own) if own.id == *name => self.load(OWN),
            _ => {
                let keys = self.list().unwrap_or_default();
                self.load(&keys.into_iter().find(|key| key.id == *name)?.name)
            }
        };
        match opened {
            Ok(key) => Some(Arc::new(key)),
            Err(error) => {
                tracing::warn!(%name, %error, "the key of a name cannot be had");
                None
            }
        }
    }
}

/// What was published since the job looked last, and whether anybody took it.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    names: Mutex<BTreeMap<PeerId, bool>>,
    woken: Notify,
}

impl Fresh {
    pub(super) fn publish(&self, name: PeerId, was_told: bool) {
        let mut names = self.names();
        // Without a job nobody takes them out, and there are no more than can be noted.
        if names.len() < NOTES_MAX {
            names.insert(name, was_told);
        }
        self.woken.notify_one();
    }

    fn take(&self) -> BTreeMap<PeerId, bool> {
        std::mem::take(&mut *self.names())
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<PeerId, bool>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The job.
#[derive(Debug)]
pub(crate) struct Republish {
    names: Names,
    keys: Arc<dyn Keys>,
    every: Duration,
    turns: BTreeMap<Vec<u8>, Turn>,
    begun: bool,
}

/// When a name is told again.
#[derive(Debug, Clone, Copy)]
struct Turn {
    due: Instant,
    failures: u32,
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Somebody took it, or there is nothing to tell.
    Done,
    /// Nobody did.
    Failed,
}

impl Republish {
    /// Every name once in so long a time.
    pub(crate) fn new(names: Names, keys: Arc<dyn Keys>, every: Duration) -> Self {
        Self {
            names,
            keys,
            every,
            turns: BTreeMap::new(),
            begun: false,
        }
    }

    /// Gives every name a turn that has none, and takes it from those that are gone. At the start those whose record is
    /// old come first, and the others are spread, beginning anywhere, or after every restart the same would come first.
    fn count(&mut self) {
        let store = &self.names.0.store;
        let noted = [About::Published, About::Tended].map(|about| store.notes(about));
        let names: BTreeSet<Vec<u8>> = noted.into_iter().flatten().map(|(key, _)| key).collect();
        self.turns.retain(|name, _| names.contains(name));
        for (name, was_told) in self.names.0.fresh.take() {
            let name = name.to_bytes();
            let after = match was_told {
                true => self.interval(&name),
                false => AGAIN_AFTER.min(self.interval(&name)),
            };
            let due = Instant::now() + after;
            self.turns.insert(name, Turn { due, failures: 0 });
        }
        let first = Instant::now();
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX).max(1);
        let offset = rand::random_range(0..count);
        let mut due = Vec::new();
        for (at, name) in (0_u32..).zip(names) {
            if self.turns.contains_key(&name) {
                continue;
            }
            let place = (at + offset) % count;
            let after = match (self.begun, self.is_old(&name)) {
                // Somebody else's, which was found just now.
                (true, _) => self.interval(&name),
                (false, true) => OLD_AFTER,
                (false, false) => {
                    FIRST_AFTER + (self.every / count * place).min(self.interval(&name))
                }
            };
            due.push((name, first + after));
        }
        for (name, due) in due {
            let turn = Turn { due, failures: 0 };
            self.turns.insert(name, turn);
        }
        self.begun = true;
    }

    /// Whether it is some name's turn.
    #[cfg(test)]
    pub(super) fn is_due(&self) -> bool {
        self.turns.values().any(|turn| turn.due <= Instant::now())
    }

    fn noted(&self, name: &[u8]) -> Option<Noted> {
        self.names.noted(&PeerId::from_bytes(name).ok()?)
    }

    fn is_old(&self, name: &[u8]) -> bool {
        let (noted, now) = (self.noted(name), self.names.now());
        matches!((noted, now), (Some(noted), Ok(now)) if noted.is_old(&noted.record, now))
    }

    /// How long after it was told a name is told again: thrice in the life of its records, if they are short-lived.
    fn interval(&self, name: &[u8]) -> Duration {
        match self.noted(name) {
            Some(noted) => self.every.min((noted.lifetime / 3).max(INTERVAL_MIN)),
            None => self.every,
        }
    }

    async fn key_of(&self, name: &PeerId) -> Option<Arc<Key>> {
        let (keys, name) = (Arc::clone(&self.keys), *name);
        let had = tokio::task::spawn_blocking(move || keys.key_of(&name)).await;
        had.ok().flatten()
    }

    async fn renew(&self, name: &PeerId) -> Outcome {
        let Ok(now) = self.names.now() else {
            return Outcome::Failed;
        };
        let noted = self.names.noted(name);
        let is_kept = self.names.kept_record(name).is_some();
        let Some(noted) = noted.filter(|_| !is_kept) else {
            return self.renew_kept(name, now).await;
        };
        let latest = || {
            let known = self.names.known(name);
            known.unwrap_or_else(|| noted.record.clone())
        };
        // The same key may sign elsewhere: what it said there last is what is signed anew.
        if noted.is_old(&latest(), now)
            && let Err(error) = self.names.search_until(name, false).await
        {
            tracing::debug!(%name, %error, "a name is not signed anew before others were asked");
            return Outcome::Failed;
        }
        let latest = latest();
        let key = match noted.is_old(&latest, now) {
            true => self.key_of(name).await,
            false => None,
        };
        let told = match key {
            Some(key) => {
                let wish = Wish {
                    value: String::from_utf8_lossy(latest.value()).into_owned(),
                    lifetime: noted.lifetime,
                    ttl: latest.ttl(),
                    sequence: None,
                    readers: noted.readers,
                    may_be_alone: false,
                };
                let published = self.names.publish(&key, &wish).await;
                // When it is told again is told by this turn.
                self.names.0.fresh.names().remove(name);
                match published {
                    Ok(published) => published.took,
                    Err(error) => {
                        tracing::warn!(%name, %error, "a name was not signed anew");
                        return Outcome::Failed;
                    }
                }
            }
            None if latest.expires() > now => self.names.tell(name, &latest).await,
            None => return Outcome::Done,
        };
        if let Some(Err(RoutingError::NewerValueKept)) = told {
            // Signed elsewhere: it is known from now on, and told at the next turn.
            let asked = self.names.search_until(name, false).await;
            tracing::debug!(%name, ?asked, "others keep a newer record of a name that is published here");
            return Outcome::Done;
        }
        outcome(name, told)
    }

    /// Somebody else's: its newest record is told for as long as it holds.
    async fn renew_kept(&self, name: &PeerId, now: SystemTime) -> Outcome {
        match self.names.renewed(name).await {
            Some(record) if record.expires() > now => {
                outcome(name, self.names.tell(name, &record).await)
            }
            _ => Outcome::Done,
        }
    }
}

fn outcome(name: &PeerId, told: Option<Result<usize, RoutingError>>) -> Outcome {
    match told {
        Some(Ok(count)) => tracing::debug!(%name, count, "a name was told again"),
        Some(Err(error)) => {
            tracing::debug!(%name, %error, "a name was told to nobody");
            return Outcome::Failed;
        }
        None => {}
    }
    Outcome::Done
}

impl Job for Republish {
    const NAME: &'static str = "republish names";

    async fn work(&mut self) {
        self.count();
        let now = Instant::now();
        let next = self.turns.iter().min_by_key(|(_, turn)| turn.due);
        let Some((name, turn)) = next.filter(|(_, turn)| turn.due <= now) else {
            return;
        };
        let (name, failures) = (name.clone(), turn.failures);
        let came = match PeerId::from_bytes(&name) {
            Ok(name) => self.renew(&name).await,
            Err(_) => Outcome::Done,
        };
        let interval = self.interval(&name);
        let (after, failures) = match came {
            Outcome::Done => (interval, 0),
            Outcome::Failed => {
                let doubled = AGAIN_AFTER * 2_u32.saturating_pow(failures.min(DOUBLED_MAX));
                (doubled.min(interval), failures.saturating_add(1))
            }
        };
        let due = Instant::now() + after;
        self.turns.insert(name, Turn { due, failures });
    }

    async fn wait(&mut self) {
        let next = self.turns.values().map(|turn| turn.due).min();
        let count = Instant::now() + COUNTED_EVERY;
        let due = sleep_until(next.map_or(count, |next| next.min(count)));
        tokio::select! {
            () = due => {}
            () = self.names.0.fresh.woken.notified() => {}
        }
    }
}

/// How long after the start the first one is told: by then there are peers.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// The same for those whose record is old: nobody may resolve them any more.
const OLD_AFTER: Duration = Duration::from_secs(10);
/// However short-lived its records are, a name is not told more often.
const INTERVAL_MIN: Duration = Duration::from_secs(20);
/// How long after nobody took a record it is told again for the first time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How often that time doubles, at most: by then it is longer than the longest interval.
const DOUBLED_MAX: u32 = 11;
/// How often it is looked which names there are.
const COUNTED_EVERY: Duration = Duration::from_secs(60);
