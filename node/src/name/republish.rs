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
use cairn_store::notes::About;
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
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
        let first = Instant::now() + FIRST_AFTER.min(self.every);
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX).max(1);
        let offset = rand::random_range(0..count);
        let mut due = Vec::new();
        for (at, name) in (0_u32..).zip(names) {
            if self.turns.contains_key(&name) {
                continue;
            }
            let place = (at + offset) % count;
            let after = match (self.begun, self.is_old(&name)) {
                // It was told just now.
                (true, _) => self.interval(&name),
                (false, true) => Duration::ZERO,
                (false, false) => (self.every / count * place).min(self.interval(&name)),
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
        let Some(noted) = self.names.noted(name) else {
            return self.renew_kept(name, now).await;
        };
        // The same key may sign elsewhere.
        let latest = self
            .names
            .known(name)
            .unwrap_or_else(|| noted.record.clone());
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
                };
                match self.names.publish(&key, &wish).await {
                    Ok(published) => published.took,
                    Err(error) => {
                        tracing::warn!(%name, %error, "a name was not signed anew");
                        return Outcome::Failed;
                    }
                }
            }
            None if latest.expires() > now => self.names.tell(name, &latest).await,
            None => return self.renew_kept(name, now).await,
        };
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
        sleep_until(next.map_or(count, |next| next.min(count))).await;
    }
}

/// How long after the start the first one is told: by then there are peers.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// However short-lived its records are, a name is not told more often.
const INTERVAL_MIN: Duration = Duration::from_secs(20);
/// How long after nobody took a record it is told again for the first time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How often that time doubles, at most: by then it is longer than the longest interval.
const DOUBLED_MAX: u32 = 11;
/// How often it is looked which names there are.
const COUNTED_EVERY: Duration = Duration::from_secs(60);
