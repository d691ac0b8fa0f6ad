//! Those who watch a want hear what happens to it.

use super::State;
use crate::bitswap::Network;
use crate::bitswap::client::Tried;
use crate::bitswap::key::Key;
use crate::bitswap::session::SessionId;
use crate::explain::Step;
use cairn_store::SourceError;

impl State {
    /// Tells what the client did to wants that are watched.
    pub(super) fn tell(&mut self) {
        while let Some((key, step)) = self.client.told() {
            let step = self.of_gateway(step);
            for watcher in self.watchers.get(&key).into_iter().flatten() {
                watcher.teller.tell(step.clone());
            }
        }
    }

    /// Tells those of one piece of work who watch a want how it stands: they have just begun to watch it, or the
    /// work to ask for it.
    pub(super) fn tell_standing(&mut self, session: SessionId, key: &Key) {
        for step in self.client.watch(key) {
            let step = self.of_gateway(step);
            for watcher in self.watchers.get(key).into_iter().flatten() {
                if watcher.session == session {
                    watcher.teller.tell(step.clone());
                }
            }
        }
    }

    /// Tells all who watch a want of this piece of work.
    pub(super) fn tell_work(&self, session: SessionId, step: impl FnOnce() -> Step) {
        if self.watchers.is_empty() {
            return;
        }
        let step = step();
        for watcher in self.watchers.values().flatten() {
            if watcher.session == session {
                watcher.teller.tell(step.clone());
            }
        }
    }

    /// Tells how it ended to all who watch a want.
    pub(super) fn tell_last(&mut self, key: &Key, step: impl FnOnce() -> Step) {
        if self.watchers.is_empty() {
            return;
        }
        // What happened before comes before.
        self.tell();
        if let Some(watchers) = self.watchers.remove(key) {
            let step = step();
            for watcher in watchers {
                watcher.teller.tell(step.clone());
            }
        }
    }

    /// What a piece of work waits for, in words.
    pub(super) fn waits_for(&self, session: SessionId, network: &impl Network) -> Option<String> {
        let (cid, mut tried, more) = self.client.waits_for(session)?;
        self.add_known(&mut tried, network);
        let more = match more {
            0 => String::new(),
            more => format!(" ({more} more blocks are waited for)"),
        };
        let failed = SourceError::TooSlow {
            cid,
            tried: tried.to_string().into(),
            is_anywhere: tried.found_somebody(),
        };
        Some(format!("{failed}{more}"))
    }

    /// Adds what the client does not know of what was tried.
    pub(super) fn add_known(&self, tried: &mut Tried, network: &impl Network) {
        tried.unreached = self.unreached(&tried.gateways);
        tried.alone = network.refuses();
    }

    /// Tells those who watch a want for this piece of work that it is over.
    pub(super) fn tell_over(&mut self, session: SessionId, key: &Key, tried: &Tried) {
        let Some(watchers) = self.watchers.get_mut(key) else {
            return;
        };
        let tried = tried.to_string();
        for watcher in watchers.extract_if(.., |watcher| watcher.session == session) {
            watcher.teller.tell(Step::GivenUp {
                tried: tried.clone(),
            });
        }
        if watchers.is_empty() {
            self.watchers.remove(key);
        }
    }
}
