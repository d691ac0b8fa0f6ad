//! What the worker knows is written down some time behind, and taken up again at the next start.

use super::{Remembered, Worker};
use crate::dht::shelf::{Moment, Pending, Shelf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// When what was written last, and where.
pub(super) struct Memory {
    shelf: Option<Shelf>,
    is_writing: bool,
    done: (mpsc::Sender<()>, mpsc::Receiver<()>),
    written_at: Instant,
    peers_written_at: Instant,
}

impl Memory {
    /// Gives what was kept before too.
    pub(super) fn new(remembered: Option<Remembered>) -> (Self, Pending) {
        let (shelf, records) = match remembered {
            Some(Remembered { shelf, records }) => (Some(shelf), records),
            None => (None, Pending::default()),
        };
        let now = Instant::now();
        let memory = Self {
            shelf,
            is_writing: false,
            done: mpsc::channel(1),
            written_at: now,
            peers_written_at: now,
        };
        (memory, records)
    }

    /// Done when what was being written is.
    pub(super) async fn is_written(&mut self) {
        if self.done.1.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn written(&mut self) {
        self.is_writing = false;
    }
}

impl Worker {
    /// Takes up what was kept before.
    pub(super) fn remember(&mut self, records: Pending) {
        let now = Instant::now();
        for (realm, change) in records.providers {
            if let Some((_, dht)) = self.realms.iter_mut().find(|(at, _)| *at == realm) {
                dht.restore(change, now);
            }
        }
        for change in records.values {
            if let Some((value, came)) = change.kept {
                // There may be less room than there was.
                let wall = crate::clock::wall();
                let _ = self.values.keep(change.key, value, None, came, wall);
            }
        }
        // It is written already.
        self.changes();
        self.measure();
    }

    fn changes(&mut self) -> Pending {
        let mut providers = Vec::new();
        for (realm, dht) in &mut self.realms {
            let changes = dht.take_changes(Instant::now()).into_iter();
            providers.extend(changes.map(|change| (*realm, change)));
        }
        Pending {
            providers,
            values: self.values.take_changes(),
            peers: None,
        }
    }

    pub(super) fn write_if_due(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.memory.is_writing || since(self.memory.written_at) < WRITE_EVERY {
            return;
        }
        self.memory.written_at = now;
        let mut pending = self.changes();
        if since(self.memory.peers_written_at) >= PEERS_EVERY {
            self.memory.peers_written_at = now;
            // Whoever is alone knows better from before.
            pending.peers = Some(self.peers_to_keep()).filter(|peers| !peers.is_empty());
        }
        let Some(shelf) = self
            .memory
            .shelf
            .clone()
            .filter(|_| pending != Pending::default())
        else {
            return;
        };
        self.memory.is_writing = true;
        let (tasks, done) = (self.parts.tasks.clone(), self.memory.done.0.clone());
        self.parts.tasks.spawn("dht memory", async move {
            write(&tasks, shelf, pending).await;
            // Nobody is left to hear it when the node stops.
            let _ = done.send(()).await;
        });
    }

    /// At the end, everything that is not yet.
    pub(super) async fn write_the_last(&mut self) {
        let mut pending = self.changes();
        pending.peers = Some(self.peers_to_keep()).filter(|peers| !peers.is_empty());
        if let Some(shelf) = self.memory.shelf.take() {
            write(&self.parts.tasks, shelf, pending).await;
        }
    }

    fn peers_to_keep(&self) -> Vec<(crate::network::Realm, super::Contact)> {
        let all = self.realms.iter().flat_map(|(realm, dht)| {
            let contacts = dht
                .contacts()
                .filter(|contact| !contact.addresses.is_empty());
            contacts.map(|contact| (*realm, contact.clone()))
        });
        all.take(PEERS_MAX).collect()
    }
}

async fn write(tasks: &crate::tasks::Tasks, shelf: Shelf, pending: Pending) {
    let write = move || shelf.write(pending, Moment::here());
    if let Some(Err(error)) = tasks.blocking("dht memory", write).await {
        // What was not written is told again by others within a day.
        tracing::warn!(%error, "records of the DHT could not be written; is the disk full?");
    }
}

/// How often what came and went is written.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How often the peers are.
const PEERS_EVERY: Duration = Duration::from_secs(60);
/// Peers kept for the next start.
const PEERS_MAX: usize = 1000;
