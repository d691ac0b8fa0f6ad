//! Many who fetch the same at once: they help each other, or whoever has it sends it to each of
//! them.
//!
//! A *companion* of a session is a peer that wants what the session wants or has just got: it has
//! parts of it soon. Companions are told what waits (want-have), so that they say HAVE as soon as
//! they have it. Who asks the others (the seeds) for which block needs no words: every block has an order
//! in which we and our companions come, made of its hash and our peer IDs (rendezvous hashing), and all of us
//! compute the same. We ask for those in which we come first; the rest comes from whoever does, and
//! is asked of a seed only if that has nothing else to do for us. Who says nothing for long, or
//! fails, has no place in the order. Who has delivered some blocks and falls silent is waited for longer than elsewhere
//! (`CROWD_PATIENCE`).

use super::late::CROWD_PATIENCE;
use super::placing::{Balance, Choice};
use super::{Client, Peer};
use crate::bitswap::key::{Key, tail};
use crate::bitswap::message::{Change, Entry, WantKind};
use crate::bitswap::session::{Session, SessionId};
use libp2p::PeerId;
use std::time::{Duration, Instant};

/// What is best asked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A companion has it and has room.
    OfCompanion,
    /// No companion has it, and so many come before us.
    Turn(usize),
    /// Companions have it and are busy.
    Common,
}

/// What a peer is known by in the order. Others compute ours from what they know of us.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u64);

impl Number {
    fn of(peer: &PeerId) -> Self {
        Self(tail(&peer.to_bytes()))
    }

    /// The higher, the earlier it comes for this block.
    fn score(self, content: u64) -> u64 {
        scatter(self.0 ^ scatter(content))
    }
}

impl Client {
    /// Tells what others call us.
    pub(in crate::bitswap) fn known_as(mut self, me: &PeerId) -> Self {
        self.me = Number::of(me);
        self
    }

    /// A peer says what it wants. Whoever fetches what we do wants it in every message, so a few lines of
    /// each are enough.
    pub(in crate::bitswap) fn wanted_too(&mut self, peer: &PeerId, lines: &[Entry], now: Instant) {
        if self.sessions.is_empty() || !self.peers.contains_key(peer) {
            return;
        }
        let wanted = lines.iter().filter(|line| line.change != Change::Cancel);
        for line in wanted.take(LINES_COMPARED_MAX) {
            self.joins(peer, &Key::content(&line.cid), now);
        }
    }

    fn joins(&mut self, id: &PeerId, key: &Key, now: Instant) {
        let before = self.recent.get(key).copied().flatten();
        let wanting = self.wants.get(key).map_or(&[][..], |want| &want.sessions);
        let mut lacks = Vec::new();
        for session_id in wanting.iter().chain(&before) {
            let Some(session) = self.sessions.get_mut(session_id) else {
                continue;
            };
            if !session.joins(*id, now) {
                continue;
            }
            session.is_restless = true;
            self.efforts.companions += 1;
            if !session.queue.is_empty() && !self.hungry.contains(session_id) {
                self.hungry.push_back(*session_id);
            }
            let is_lacking = |key: &&Key| {
                let want = self.wants.get(*key);
                want.is_some_and(|want| want.absent.contains(id))
            };
            lacks.extend(session.wants.iter().filter(is_lacking).cloned());
        }
        // What it said before that it lacks.
        for key in lacks {
            self.only_tell(id, &key);
        }
    }

    /// Whether a peer fetches the same as one of these sessions.
    pub(super) fn is_companion(&self, peer: &PeerId, sessions: &[SessionId]) -> bool {
        sessions
            .iter()
            .filter_map(|id| self.sessions.get(id))
            .any(|session| session.companions.contains_key(peer))
    }

    /// Whether a peer gives to one of these sessions, and so to those who fetch the same.
    pub(super) fn serves_crowd(&self, peer: &PeerId, sessions: &[SessionId], now: Instant) -> bool {
        let gives = |session: &Session| {
            session.holders.contains_key(peer) || session.companions.contains_key(peer)
        };
        // Whoever only says once that it wants the same makes no crowd for long.
        let counts = |(id, heard_at): (&PeerId, &Instant)| {
            let is_heard = now.saturating_duration_since(*heard_at) < CROWD_PATIENCE;
            let peer = self.peers.get(id);
            peer.is_some_and(|peer| {
                peer.ledger.is_proven() || is_heard && !peer.ledger.has_failed()
            })
        };
        sessions
            .iter()
            .filter_map(|id| self.sessions.get(id))
            .any(|session| gives(session) && session.companions.iter().any(counts))
    }

    /// A companion lacks what it was asked for: from now on it need only say when it has it, or it
    /// would send it after others were asked.
    pub(super) fn only_tell(&mut self, peer: &PeerId, key: &Key) {
        let sessions = self
            .wants
            .get(key)
            .map_or(&[][..], |want| want.sessions.as_slice());
        if self.is_companion(peer, sessions)
            && let Some(state) = self.peers.get_mut(peer)
        {
            state.list.only_have(key);
            self.changed.insert(*peer);
        }
    }

    /// Whether a session is not alone, and its blocks are large enough for words about each.
    pub(super) fn is_crowd(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            let holders = session.holders.keys().filter_map(|id| self.peers.get(id));
            let largest = holders.map(|peer| peer.ledger.block_bytes()).max();
            !session.companions.is_empty()
                && largest.is_none_or(|bytes| bytes >= CROWD_BLOCK_BYTES_MIN)
        })
    }

    /// Places the best of a session's waiting wants, and tells its companions of the rest; true if
    /// there may be more to place.
    pub(super) fn place_in_crowd(&mut self, id: SessionId, now: Instant) -> bool {
        let wants = &self.wants;
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        if !std::mem::take(&mut session.is_restless) {
            return false;
        }
        // What came, or was given up.
        session
            .queue
            .retain(|key| wants.get(key).is_some_and(|want| want.queued));
        let keys: Vec<Key> = session.queue.iter().take(LOOKED_AT_MAX).cloned().collect();
        let mut ranked = self.ranked(id, &keys, now);
        // Of equals the earliest.
        ranked.sort_by_key(|(rank, _)| *rank);
        let mut placed = 0;
        for (rank, key) in ranked {
            if placed < PLACED_TOGETHER && self.place_ranked(id, rank, key, now) {
                placed += 1;
                if let Some(want) = self.wants.get_mut(key) {
                    want.queued = false;
                }
            }
        }
        if placed < PLACED_TOGETHER {
            self.tell_companions(id, &keys, now);
        }
        if placed > 0
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.is_restless = true;
        }
        placed > 0
    }

    /// What there may be somebody for, and how much it matters.
    fn ranked<'keys>(
        &self,
        id: SessionId,
        keys: &'keys [Key],
        now: Instant,
    ) -> Vec<(Rank, &'keys Key)> {
        let Some(session) = self.sessions.get(&id) else {
            return Vec::new();
        };
        let has_companions = |peer: &&PeerId| session.companions.contains_key(*peer);
        let is_here = |peer: &&PeerId| self.peers.contains_key(*peer);
        let mut holders = session.holders.keys().filter(is_here).peekable();
        let others_have_room = holders.peek().is_none() || holders.any(|peer| self.has_room(peer));
        let before_us = self.in_order(id, now);
        let rank = |key: &Key| {
            let haves = self.wants.get(key)?.haves.as_slice();
            let companions = || haves.iter().filter(has_companions);
            // Whoever only says that it has it is not waited for.
            let delivers = |id: &PeerId| self.peers.get(id).is_some_and(Peer::is_trusted);
            let rank = if companions().any(|peer| self.has_room(peer)) {
                Rank::OfCompanion
            } else if companions().any(delivers) {
                Rank::Common
            } else {
                let content = key.tail();
                let ours = self.me.score(content);
                let earlier = |number: &&Number| number.score(content) > ours;
                Rank::Turn(before_us.iter().filter(earlier).count())
            };
            // Somebody who is no holder may have said that it has just this.
            let may_be_placed = others_have_room || !haves.is_empty();
            may_be_placed.then_some(rank)
        };
        keys.iter()
            .filter_map(|key| Some((rank(key)?, key)))
            .collect()
    }

    /// The companions that can be counted upon to ask for what is theirs.
    fn in_order(&self, id: SessionId, now: Instant) -> Vec<Number> {
        let Some(session) = self.sessions.get(&id) else {
            return Vec::new();
        };
        // They wait for the seeds as we do.
        let holders = session.holders.keys().filter_map(|id| self.peers.get(id));
        let patience = holders.map(Peer::patience).max();
        let quiet = QUIET_LEAST.max(patience.unwrap_or_default());
        let counts = |id: &PeerId| {
            let peer = self.peers.get(id);
            peer.is_some_and(|peer| !peer.suspect && !peer.ledger.has_failed())
        };
        session
            .companions
            .iter()
            .filter(|(_, heard_at)| now.saturating_duration_since(**heard_at) < quiet)
            .filter(|(id, _)| counts(id))
            .map(|(id, _)| Number::of(id))
            .collect()
    }

    fn has_room(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| {
            !peer.suspect && !peer.ledger.has_failed() && peer.in_flight.len() < peer.window()
        })
    }

    fn place_ranked(&mut self, id: SessionId, rank: Rank, key: &Key, now: Instant) -> bool {
        let peer = match self.choose(key, Balance::Kept) {
            Choice::Ask(peer) => peer,
            Choice::Wait => return false,
            Choice::Nobody => return self.broadcast(id, key, now),
        };
        // A small part of what it can do keeps us going whoever comes first does nothing.
        let is_idle = |id: &PeerId| {
            let peer = self.peers.get(id);
            peer.is_some_and(|peer| peer.in_flight.len() <= peer.window() / SPARE_PART)
        };
        let is_ours = matches!(rank, Rank::OfCompanion | Rank::Turn(0));
        if !is_ours && !self.is_companion(&peer, &[id]) && !is_idle(&peer) {
            return false;
        }
        self.ask(key, peer, WantKind::Block, now);
        true
    }

    fn tell_companions(&mut self, id: SessionId, keys: &[Key], now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let joined = session.joined;
        let companions: Vec<PeerId> = session.companions.keys().copied().collect();
        for key in keys {
            let Some(want) = self.wants.get_mut(key) else {
                continue;
            };
            if !want.queued || want.companions_told == joined {
                continue;
            }
            want.companions_told = joined;
            for id in &companions {
                let open = self.wants.get(key).is_some_and(|want| {
                    !want.asked.contains_key(id)
                        && !want.absent.contains(id)
                        && !want.haves.contains(id)
                });
                let few = |id| {
                    let peer = self.peers.get(id);
                    peer.is_some_and(|peer| peer.list.len() < TOLD_MAX)
                };
                if open && few(id) {
                    self.ask(key, *id, WantKind::Have, now);
                }
            }
        }
    }
}

/// Every bit of the result depends on every bit of the number (splitmix64).
const fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Lines of a message that are compared with what we want.
const LINES_COMPARED_MAX: usize = 32;
/// Smaller blocks are fetched sooner than they are talked about; up to 1 KiB they would even come from
/// everybody who is asked whether it has them.
const CROWD_BLOCK_BYTES_MIN: u64 = 8 << 10;
/// The part of what a seed may be asked for at once that need not be our turn.
const SPARE_PART: usize = 8;
/// Waiting wants that are looked at for the best one.
const LOOKED_AT_MAX: usize = 256;
/// How many are placed in one go: a look at all that wait is for many of them.
const PLACED_TOGETHER: usize = 16;
/// Wants at a companion until it is told of no more: others cut our list at 1,024.
const TOLD_MAX: usize = 768;
/// A companion that has had nothing to say for so long (or for longer, if a seed is slow) is not
/// waited for.
const QUIET_LEAST: Duration = Duration::from_secs(2);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bitswap::message::{Absence, PresenceKind};
    use cairn_store::Cid;
    use cairn_store::cid::{Multihash, RAW};

    const SESSION: SessionId = SessionId(1);

    pub(in crate::bitswap::client) fn name(number: u8) -> Cid {
        let hash = Multihash::wrap(0x12, &[number; 32]).unwrap();
        Cid::new_v1(RAW, hash)
    }

    pub(in crate::bitswap::client) fn want(cid: Cid, kind: WantKind) -> Entry {
        let change = Change::Want {
            priority: 1,
            kind,
            absence: Absence::Tell,
        };
        Entry { cid, change }
    }

    #[test]
    fn who_turns_out_to_fetch_the_same_is_to_send_nothing_that_it_lacked() {
        for lacks_before in [true, false] {
            let now = Instant::now();
            let peer = PeerId::random();
            let mut client = Client::default();
            client.open(SESSION, Duration::from_secs(60), now);
            client.connected(peer, now);
            client.want(SESSION, name(0), now);
            client.settle(now);
            let lines = client.entries(&peer, 10);
            assert_eq!(kinds(&lines), [WantKind::Block]);
            assert!(client.changed().contains(&peer));
            let joins = want(name(0), WantKind::Have);
            if lacks_before {
                client.presence(&peer, &name(0), PresenceKind::DontHave, now);
                client.wanted_too(&peer, &[joins], now);
            } else {
                client.wanted_too(&peer, &[joins], now);
                client.presence(&peer, &name(0), PresenceKind::DontHave, now);
            }
            assert!(client.changed().contains(&peer));
            // The want is taken back first, in a message of its own.
            let lines = [client.entries(&peer, 10), client.entries(&peer, 10)].concat();
            assert_eq!(kinds(&lines), [WantKind::Have], "{lacks_before}");
        }
    }

    fn kinds(lines: &[Entry]) -> Vec<WantKind> {
        let kinds = lines.iter().filter_map(|line| match line.change {
            Change::Want { kind, .. } => Some(kind),
            Change::Cancel => None,
        });
        kinds.collect()
    }
}
