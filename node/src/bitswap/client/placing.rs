//! Whom a want is asked of, and when: sessions take turns, and each want goes to the best who has
//! room for it.

use super::{Client, Peer, Speaks, Want, asking};
use crate::bitswap::key::Key;
use crate::bitswap::ledger::WANTS_AT_PEER_MAX;
use crate::bitswap::message::WantKind;
use crate::bitswap::session::SessionId;
use crate::explain::Step;
use crate::http::Standing;
use libp2p::PeerId;
use std::collections::VecDeque;
use std::time::Instant;

pub(super) enum Choice {
    Ask(PeerId),
    Wait,
    Nobody,
}

/// What speaks against asking one: that it sends nothing lately where others did not either, has not delivered,
/// failed, or may not have it, and how busy it is.
type Rank = (bool, bool, bool, bool, usize);

/// Whether one who would be the last to finish is left alone, as others do it sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Balance {
    Kept,
    /// Whoever was asked sends nothing: of those who are all equally busy, some must do it, and more than they
    /// would be asked for else.
    Ignored,
}

/// Those who share a session's work.
#[derive(Debug)]
struct Others {
    waiting: usize,
    in_flight: usize,
    blocks_a_second: f64,
    /// Seconds that the quickest takes for a block, and the next.
    quickest: f64,
    second: f64,
}

impl Default for Others {
    fn default() -> Self {
        Self {
            waiting: 0,
            in_flight: 0,
            blocks_a_second: 0.0,
            quickest: f64::INFINITY,
            second: f64::INFINITY,
        }
    }
}

impl Others {
    /// Whether this one of them would be the last to finish if it were asked for one block more,
    /// though the others could do all that waits sooner.
    fn are_sooner_than(&self, peer: &Peer) -> bool {
        let Some(pace) = peer.known_pace() else {
            return false;
        };
        let own_blocks = peer.in_flight.len();
        let blocks = self.waiting + self.in_flight.saturating_sub(own_blocks);
        let rate = self.blocks_a_second - pace.recip();
        let quickest = if pace <= self.quickest {
            self.second
        } else {
            self.quickest
        };
        let count = |blocks: usize| f64::from(u32::try_from(blocks).unwrap_or(u32::MAX));
        // Each block is one peer's, so the last takes one of them its whole time.
        rate > 0.0
            && quickest.is_finite()
            && pace * count(own_blocks + 1) > count(blocks) / rate + quickest
    }
}

impl Client {
    /// Places what waits in queues, sessions taking turns, as far as peers have room.
    pub(in crate::bitswap) fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.has_freed_room) {
            for id in &self.hungry {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.is_restless = true;
                }
            }
        }
        let mut waiting = VecDeque::new();
        while let Some(id) = self.hungry.pop_front() {
            if self.place_one(id, now) {
                self.hungry.push_back(id);
            } else if self
                .sessions
                .get(&id)
                .is_some_and(|session| !session.queue.is_empty())
            {
                waiting.push_back(id);
            }
        }
        self.hungry = waiting;
    }

    pub(super) fn place_one(&mut self, id: SessionId, now: Instant) -> bool {
        if self.is_crowd(id) {
            return self.place_in_crowd(id, now);
        }
        let mut passed = Vec::new();
        let mut placed = false;
        while let Some(key) = self
            .sessions
            .get_mut(&id)
            .and_then(|session| session.queue.pop_front())
        {
            match self.wants.get_mut(&key) {
                Some(want) if want.queued => {}
                _ => continue, // It came, or was given up.
            }
            let choice = self.choose(&key, Balance::Kept);
            let done = match choice {
                Choice::Ask(peer) => {
                    self.ask(&key, peer, WantKind::Block, now);
                    true
                }
                Choice::Wait => false,
                Choice::Nobody => self.broadcast(id, &key, now),
            };
            if done {
                if let Some(want) = self.wants.get_mut(&key) {
                    want.queued = false;
                }
                placed = true;
                break;
            }
            passed.push(key);
            if passed.len() >= QUEUE_LOOKED_AT_MAX {
                break;
            }
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            for key in passed.into_iter().rev() {
                session.queue.push_front(key);
            }
        }
        placed
    }

    /// How fast those who may have a block, and can be asked, go on with what its session waits for.
    fn others(&self, want: &Want) -> Others {
        let mut others = Others::default();
        let first = want.sessions.first().and_then(|id| self.sessions.get(id));
        let Some(session) = first else {
            return others;
        };
        others.waiting = session.queue.len() + 1;
        for id in session.holders.keys() {
            if let Some(peer) = self.peers.get(id)
                && let Some(pace) = peer.known_pace()
                && !want.absent.contains(id)
                && !want.asked.contains_key(id)
            {
                others.in_flight += peer.in_flight.len();
                others.blocks_a_second += pace.recip();
                if pace < others.quickest {
                    others.second = std::mem::replace(&mut others.quickest, pace);
                } else {
                    others.second = others.second.min(pace);
                }
            }
        }
        others
    }

    /// The best peer to ask for a block.
    pub(super) fn choose(&self, key: &Key, balance: Balance) -> Choice {
        let Some(want) = self.wants.get(key) else {
            return Choice::Nobody;
        };
        let holders = want
            .sessions
            .iter()
            .filter_map(|session| self.sessions.get(session))
            .flat_map(|session| session.holders.keys());
        let mut best: Option<(Rank, PeerId)> = None;
        let mut best_left_alone: Option<(Rank, PeerId)> = None;
        let (mut busy, mut busy_trusted) = (false, false);
        let others = self.others(want);
        for id in want.haves.iter().chain(holders) {
            let Some(peer) = self.peers.get(id) else {
                continue;
            };
            if peer.speaks == Speaks::Nothing
                || want.absent.contains(id)
                || want.asked.get(id) == Some(&WantKind::Block)
            {
                continue;
            }
            if peer.suspect {
                continue;
            }
            let (used, window) = (peer.in_flight.len(), peer.window());
            let is_full = match balance {
                Balance::Kept => used >= window || others.are_sooner_than(peer),
                Balance::Ignored if peer.source.is_some() => used >= window,
                Balance::Ignored => used >= (window * OVERFULL).min(WANTS_AT_PEER_MAX),
            };
            if is_full {
                busy = true;
                busy_trusted |= peer.is_trusted();
                continue;
            }
            let load = used.saturating_mul(1000) / window.max(1);
            let ledger = &peer.ledger;
            let stranger = !want.haves.contains(id);
            // Or whoever has everything would be asked for what its companions have.
            let helps = !stranger && !ledger.has_failed() && self.is_companion(id, &want.sessions);
            let rank = (
                balance == Balance::Ignored && !peer.delivers,
                !ledger.is_proven() && !helps,
                ledger.has_failed(),
                stranger,
                load,
            );
            let best = if peer.was_left_alone && ledger.has_failed() {
                &mut best_left_alone
            } else {
                &mut best
            };
            if best.is_none_or(|(other, _)| rank < other) {
                *best = Some((rank, *id));
            }
        }
        match (best, best_left_alone) {
            (Some((_, peer)), _) => Choice::Ask(peer),
            (None, Some((_, peer))) if !busy_trusted => Choice::Ask(peer),
            _ if busy => Choice::Wait,
            _ => Choice::Nobody,
        }
    }

    pub(super) fn ask(&mut self, key: &Key, id: PeerId, kind: WantKind, now: Instant) {
        let (Some(want), Some(peer)) = (self.wants.get_mut(key), self.peers.get_mut(&id)) else {
            return;
        };
        let kind = match peer.speaks {
            Speaks::Presences => kind,
            Speaks::Blocks | Speaks::Requests => WantKind::Block,
            Speaks::Nothing => return,
        };
        want.asked.insert(id, kind);
        let told = want.told.entry(id).or_insert((kind, now));
        if (told.0, kind) == (WantKind::Have, WantKind::Block) {
            *told = (kind, now);
        }
        want.asked_at = now;
        match (peer.source, kind) {
            (Some(_), _) => drop(want.gateways.insert(id)),
            (None, WantKind::Have) => want.said.want_haves += 1,
            (None, WantKind::Block) => want.said.want_blocks += 1,
        }
        if want.watched {
            let what = asking(kind);
            self.told
                .push_back((key.clone(), Step::Asked { peer: id, what }));
        }
        if peer.source.is_some() {
            // It may have forgotten what it was told; hearing it twice costs nothing.
            peer.list.forget(key);
        }
        peer.list.want(key, want.cid, kind);
        if kind == WantKind::Block {
            if peer.in_flight.is_empty() {
                peer.begins_to_owe(now);
            }
            peer.asked_for(key, now);
        }
        self.changed.insert(id);
    }

    /// Asks everybody who has it, and a source for the block; false if the session has enough of
    /// such questions open, or all sources are busy.
    pub(super) fn broadcast(&mut self, session: SessionId, key: &Key, now: Instant) -> bool {
        let Some(want) = self.wants.get_mut(key) else {
            return true;
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            if session.broadcasts.len() >= BROADCASTS_MAX && !want.broadcast {
                return false;
            }
            // It may stand in the queue of a session that does not want it any more.
            if session.wants.contains(key) {
                session.broadcasts.insert(key.clone());
            }
        }
        want.broadcast = true;
        let speaking = || {
            self.peers.iter().filter(|(_, peer)| {
                peer.speaks != Speaks::Nothing && peer.source != Some(Standing::Announced)
            })
        };
        // Where there is only one there is nothing to be compared.
        let kind = match speaking().nth(1) {
            Some(_) => WantKind::Have,
            None => WantKind::Block,
        };
        let strangers: Vec<PeerId> = speaking()
            .filter(|(_, peer)| peer.source.is_none())
            .map(|(peer, _)| *peer)
            .filter(|peer| !want.absent.contains(peer) && !want.asked.contains_key(peer))
            .collect();
        for peer in strangers {
            self.ask(key, peer, kind, now);
        }
        if !self.is_asked_for(key) {
            match self.choose_source(key) {
                Choice::Ask(source) => self.ask(key, source, WantKind::Block, now),
                Choice::Wait => return false,
                Choice::Nobody => {}
            }
        }
        self.maybe_exhausted(key, now);
        true
    }

    pub(super) fn maybe_exhausted(&mut self, key: &Key, now: Instant) {
        let Some(want) = self.wants.get(key) else {
            return;
        };
        if want.broadcast && want.asked.is_empty() {
            for session in &want.sessions {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.exhausted(now);
                }
            }
        }
    }

    /// A peer may be asked for blocks again: what it has waits no longer.
    pub(super) fn place_what_it_has(&mut self, id: &PeerId) {
        if self.peers.get(id).is_some_and(|peer| peer.source.is_some()) {
            return self.offer(id); // It never says what it has.
        }
        let waiting: Vec<Key> = self
            .wants
            .iter()
            .filter(|(_, want)| !want.queued && !want.is_asked_for() && want.haves.contains(id))
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.enqueue(&key);
        }
    }

    pub(super) fn holds_for(&self, peer: &PeerId, key: &Key) -> bool {
        self.wants.get(key).is_some_and(|want| {
            want.sessions
                .iter()
                .filter_map(|session| self.sessions.get(session))
                .any(|session| session.holders.contains_key(peer))
        })
    }

    /// Puts a want (back) into its session's queue, before those that were never asked for.
    pub(super) fn enqueue(&mut self, key: &Key) {
        let Some(want) = self.wants.get_mut(key).filter(|want| !want.queued) else {
            return;
        };
        let Some(id) = want.sessions.first().copied() else {
            return;
        };
        want.queued = true;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.queue.push_front(key.clone());
        }
        self.is_hungry(id);
    }

    pub(super) fn is_hungry(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.is_restless = true;
        }
        if !self.hungry.contains(&session) {
            self.hungry.push_back(session);
        }
    }
}

/// Questions to everybody that one session may have open.
pub(in crate::bitswap) const BROADCASTS_MAX: usize = 32;
/// What a peer may be asked for, in multiples of its window, when others do not do what they were asked for.
pub(super) const OVERFULL: usize = 2;
/// How far a queue is searched for a want that can be placed.
const QUEUE_LOOKED_AT_MAX: usize = 32;
