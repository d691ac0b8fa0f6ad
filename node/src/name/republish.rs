//! What was signed here is told again before others forget it, and signed anew before it expires.
//!
//! Others keep a record for two days, but they come and go, so all are told again a few times a day, one after the other
//! and spread over the time, so that many names are no burst. When half of a record's time is over the next one is
//! signed in its place, if its key is here; else the last one is told for as long as it holds, and of names that are
//! kept alive for others the newest that anybody has. How often this happens
//! is measured by a clock that nobody can set.

use super::Names;
use super::publish::Wish;
use crate::jobs::Job;
use crate::keystore::{Key, Keystore, OWN};
use crate::routing::RoutingError;
use cairn_store::notes::About;
use libp2p::PeerId;
use std::collections::BTreeSet;
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
    /// Whose turn was last.
    last: Option<Vec<u8>>,
    due: Instant,
}

impl Republish {
    /// Every name once in so long a time.
    pub(crate) fn new(names: Names, keys: Arc<dyn Keys>, every: Duration) -> Self {
        Self {
            names,
            keys,
            every,
            // Anywhere, or after every restart the same ones would be told first.
            last: Some(PeerId::random().to_bytes()),
            due: Instant::now() + FIRST_AFTER.min(every),
        }
    }

    /// The name whose turn it is, and how many there are.
    fn turn(&self) -> (Option<PeerId>, u32) {
        let store = &self.names.0.store;
        let noted = [About::Published, About::Tended].map(|about| store.notes(about));
        let keys: BTreeSet<Vec<u8>> = noted.into_iter().flatten().map(|(key, _)| key).collect();
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let is_after = |key: &Vec<u8>| self.last.as_ref().is_none_or(|last| key > last);
        let mut keys = keys.iter();
        let next = keys
            .clone()
            .find(|key| is_after(key))
            .or_else(|| keys.next());
        let name = next.and_then(|key| PeerId::from_bytes(key).ok());
        (name, count)
    }

    async fn key_of(&self, name: &PeerId) -> Option<Arc<Key>> {
        let (keys, name) = (Arc::clone(&self.keys), *name);
        let had = tokio::task::spawn_blocking(move || keys.key_of(&name)).await;
        had.ok().flatten()
    }

    async fn renew(&self, name: &PeerId) {
        let Ok(now) = self.names.now() else {
            return;
        };
        let Some(noted) = self.names.noted(name) else {
            return self.renew_kept(name, now).await;
        };
        let key = match noted.is_old(now) {
            true => self.key_of(name).await,
            false => None,
        };
        let told = match key {
            Some(key) => {
                let wish = Wish {
                    value: String::from_utf8_lossy(noted.record.value()).into_owned(),
                    lifetime: noted.lifetime,
                    ttl: noted.record.ttl(),
                    sequence: None,
                    readers: noted.readers,
                };
                match self.names.publish(&key, &wish).await {
                    Ok(published) => published.took,
                    Err(error) => {
                        tracing::warn!(%name, %error, "a name was not signed anew");
                        return;
                    }
                }
            }
            None if noted.record.expires() > now => self.names.tell(name, &noted.record).await,
            None => return,
        };
        log(name, told);
    }

    /// Somebody else's: its newest record is told for as long as it holds.
    async fn renew_kept(&self, name: &PeerId, now: SystemTime) {
        if let Some(record) = self.names.renewed(name).await
            && record.expires() > now
        {
            log(name, self.names.tell(name, &record).await);
        }
    }
}

fn log(name: &PeerId, told: Option<Result<usize, RoutingError>>) {
    match told {
        Some(Ok(count)) => tracing::debug!(%name, count, "a name was told again"),
        Some(Err(error)) => tracing::debug!(%name, %error, "a name was told to nobody"),
        None => {}
    }
}

impl Job for Republish {
    const NAME: &'static str = "republish names";

    async fn work(&mut self) {
        if Instant::now() < self.due {
            return;
        }
        let (name, count) = self.turn();
        if let Some(name) = name {
            self.renew(&name).await;
            self.last = Some(name.to_bytes());
        }
        self.due = Instant::now() + self.every / count.max(1);
    }

    async fn wait(&mut self) {
        sleep_until(self.due).await;
    }
}

/// How long after the start the first one is told: by then there are peers.
const FIRST_AFTER: Duration = Duration::from_secs(60);
