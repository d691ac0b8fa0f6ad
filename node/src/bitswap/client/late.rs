//! What is done about wants that take long: who was asked fails or is asked for no more, somebody
//! else is asked too, what may have been lost is said again, and in the end it is given up.

use super::placing::{Balance, Choice};
use super::{
    Action, Client, Company, InFlight, OWED_LONGEST, Peer, Release, Said, Speaks, Tried, Want,
};
use crate::bitswap::engine::OUTSTANDING_BYTES_MAX;
use crate::bitswap::key::Key;
use crate::bitswap::message::WantKind;
use crate::bitswap::session::{Session, SessionId};
use crate::explain::Step;
use cairn_store::Cid;
use cairn_store::block::BLOCK_BYTES_MAX;
use libp2p::PeerId;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

impl Client {
    /// Time went by. To be called every [`super::TICK`] while anything is wanted. Says how many peers have
    /// failed for sending nothing of use.
    pub(in crate::bitswap) fn tick(&mut self, now: Instant) -> usize {
        let since = |at: Instant| now.saturating_duration_since(at);
        let stalled: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.in_flight.is_empty())
            .filter(|(id, peer)| {
                let silence = since(peer.progress_at);
                let is_silent = silence > STALL && silence > self.silence_of(id, peer, now);
                is_silent || peer.owes_in_vain(now)
            })
            .map(|(peer, _)| *peer)
            .collect();
        let count = stalled.len();
        for peer in stalled {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.ledger.failed();
                state.alone_until = Some(now + state.ledger.rest());
                if state.owes_in_vain(now) {
                    state.ledger.disbelieve();
                }
            }
            self.tell_of(&peer, |peer| Step::Silent { peer });
            self.release(&peer, Release::Distrust);
        }
        let owes = |peer: &Peer| !peer.in_flight.is_empty();
        let suspects: Vec<(PeerId, bool)> = self
            .peers
            .iter()
            .map(|(id, peer)| (*id, owes(peer) && since(peer.block_at) > peer.patience()))
            .collect();
        for (peer, suspect) in suspects {
            self.suspect(&peer, suspect);
        }
        for peer in self.peers.values_mut() {
            peer.was_left_alone = peer.alone_until.is_some_and(|at| now < at);
            peer.delivers = peer
                .delivered_at
                .is_some_and(|at| since(at) <= HEDGE_PROVEN);
        }
        // Time alone makes places: who was suspect may not be, who was in the order may be quiet.
        self.has_freed_room = true;
        self.hedge(now);
        self.explore(now);
        self.relieve(now);
        self.repeat(now);
        self.look_beyond(now);
        self.expire(now);
        count
    }

    /// Who owes blocks for long is waited for as long as bytes come, but others are looked for meanwhile.
    fn look_beyond(&mut self, now: Instant) {
        for peer in self.peers.values() {
            let owed_for = now.saturating_duration_since(peer.block_at);
            if peer.in_flight.is_empty() || owed_for <= OWED_MAX {
                continue;
            }
            let owed = peer.in_flight.keys().filter_map(|key| self.wants.get(key));
            for session in owed.flat_map(|want| &want.sessions) {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.exhausted(now);
                }
            }
        }
    }

    /// How long a peer that owes blocks may be silent.
    fn silence_of(&self, id: &PeerId, peer: &Peer, now: Instant) -> Duration {
        // Slow ones send in lumps: nothing of an encrypted record is there before its end.
        let lump = (peer.gap * 2).min(GAP_MAX);
        let mut owed = peer.in_flight.keys().filter_map(|key| self.wants.get(key));
        if peer.ledger.is_proven() && owed.any(|want| self.serves_crowd(id, &want.sessions, now)) {
            CROWD_PATIENCE.max(lump)
        } else {
            STALL.max(lump)
        }
    }

    /// Whether a peer is not to be asked for now. What only it has waits until it is.
    pub(super) fn suspect(&mut self, id: &PeerId, suspect: bool) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        let was = std::mem::replace(&mut peer.suspect, suspect);
        if was && !suspect {
            self.place_what_it_has(id);
        }
    }

    pub(super) fn hedge(&mut self, now: Instant) {
        let mut late = Vec::new();
        let mut tardy = Vec::new();
        for (key, want) in &self.wants {
            if now < want.hedge_at {
                continue;
            }
            let mut patience = None;
            for (id, kind) in &want.asked {
                let Some(peer) = self.peers.get(id).filter(|_| *kind == WantKind::Block) else {
                    continue;
                };
                let own = if self.is_companion(id, &want.sessions) {
                    let patience = peer.patience_as_companion(key, now);
                    let is_late = now.saturating_duration_since(peer.block_at) > patience;
                    if is_late && !peer.is_trusted() {
                        tardy.push(*id);
                    }
                    patience
                } else if peer.ledger.is_proven() && self.serves_crowd(id, &want.sessions, now) {
                    peer.patience().max(CROWD_PATIENCE)
                } else if peer.is_trusted() {
                    peer.patience_for(key)
                } else {
                    peer.patience_as_stranger()
                };
                patience = Some(patience.map_or(own, |other: Duration| other.max(own)));
            }
            if let Some(patience) = patience
                && now.saturating_duration_since(want.asked_at) > patience
            {
                let late_by = now.saturating_duration_since(want.asked_at + patience);
                let worth = if late_by > STALL {
                    Worth::Any
                } else {
                    Worth::of(patience)
                };
                late.push((want.asked_at, key, patience, worth));
            }
        }
        // Those that wait for longest, and no more of them than can be asked about at once.
        late.sort_by_key(|(asked_at, ..)| *asked_at);
        late.truncate(HEDGES_A_TICK_MAX);
        let late: Vec<(Key, Duration, Worth)> = late
            .into_iter()
            .map(|(_, key, patience, worth)| (key.clone(), patience, worth))
            .collect();
        // It is asked for no more by those who count on it, until it has sent something.
        for id in tardy {
            if let Some(peer) = self.peers.get_mut(&id)
                && !peer.ledger.has_failed()
            {
                peer.ledger.failed();
            }
        }
        for (key, patience, worth) in late {
            let is_late_again = self.wants.get(&key).is_some_and(|want| want.hedges > 0);
            let more = match self.wants.get_mut(&key) {
                // The more liars, the more are asked: 1, 2, 4, 8 at a time; from 2 on of those who could have sent
                // something many times over.
                Some(want) if patience <= HEDGE_UNPROVEN => {
                    let before = want.hedges;
                    want.hedges += 1;
                    let doublings = if patience < HEDGE_UNPROVEN {
                        before + 1
                    } else {
                        before
                    };
                    1 << doublings.min(HEDGE_DOUBLINGS_MAX)
                }
                Some(want) => {
                    want.hedges += 1;
                    1
                }
                None => continue,
            };
            // Those who have delivered will do so again, and then it would have been done twice.
            let balance = if patience <= HEDGE_UNPROVEN {
                Balance::Ignored
            } else {
                Balance::Kept
            };
            for _ in 0..more {
                let mut choice = self.choose(&key, balance);
                if is_late_again && matches!(choice, Choice::Wait) {
                    // Unless a second of them is late already.
                    choice = self.choose(&key, Balance::Ignored);
                }
                let choice = match choice {
                    Choice::Nobody => {
                        self.ask_around(&key, now);
                        self.choose_source(&key)
                    }
                    known => known,
                };
                match choice {
                    Choice::Ask(peer) if self.may_hedge(&peer, worth) => {
                        self.efforts.hedges += 1;
                        self.ask(&key, peer, WantKind::Block, now);
                        // One who delivers is enough.
                        if self.peers.get(&peer).is_some_and(Peer::is_trusted) {
                            break;
                        }
                    }
                    Choice::Nobody => {
                        // It leaves its place to others until somebody says to have it.
                        if let Some(want) = self.wants.get_mut(&key) {
                            want.hedge_at = now + HEDGE_AGAIN;
                        }
                        break;
                    }
                    _ => break,
                }
            }
        }
    }

    /// Whoever was asked is late, and nobody else is known to have it: others may.
    fn ask_around(&mut self, key: &Key, now: Instant) {
        let first = self.wants.get(key).and_then(|want| want.sessions.first());
        if let Some(session) = first.copied() {
            self.broadcast(session, key, now);
        }
    }

    /// Work is doubled only where it costs little, on peers with nothing much to do, unless whoever
    /// was asked is not to be trusted.
    fn may_hedge(&self, peer: &PeerId, worth: Worth) -> bool {
        self.peers.get(peer).is_some_and(|peer| {
            worth == Worth::Any
                || (peer.ledger.is_proven() && peer.in_flight.len() * 4 <= peer.ledger.window())
        })
    }

    /// Work waits because all who are known to have parts of it are busy: others who are here may have
    /// it too. They are asked for the last that waits, more and more seldom.
    fn explore(&mut self, now: Instant) {
        let mut questions = Vec::new();
        let due = self.sessions.iter();
        let due = due.filter(|(_, session)| session.explores(now));
        let due: Vec<SessionId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(key) = self.last_that_waits(id) else {
                continue;
            };
            let (Some(session), Some(want)) = (self.sessions.get_mut(&id), self.wants.get(&key))
            else {
                continue;
            };
            session.explored(now);
            let strangers = self.peers.iter().filter_map(|(id, peer)| {
                let is_known = session.holders.contains_key(id)
                    || session.companions.contains_key(id)
                    || want.asked.contains_key(id)
                    || want.absent.contains(id);
                let may_be_asked = peer.speaks == Speaks::Presences
                    && peer.source.is_none()
                    && !peer.ledger.has_failed();
                (!is_known && may_be_asked).then(|| (key.clone(), *id))
            });
            questions.extend(strangers.take(EXPLORED_PEERS_MAX));
        }
        self.efforts.explorations += questions.len() as u64;
        for (key, peer) in questions {
            self.ask(&key, peer, WantKind::Have, now);
        }
    }

    /// What a session will get last: of what nobody was asked for, or of what the busiest peer was.
    fn last_that_waits(&self, id: SessionId) -> Option<Key> {
        let session = self.sessions.get(&id)?;
        let waits = |key: &&Key| self.wants.get(*key).is_some_and(|want| want.queued);
        let queued = session.queue.iter().rev().find(waits).cloned();
        queued.or_else(|| self.last_of(id, &self.busiest(id)?).into_iter().next())
    }

    /// Everything is asked for, and some have much of it to send: others who have it and nothing to
    /// do are asked for what comes last.
    fn relieve(&mut self, now: Instant) {
        let waits = |session: &Session| {
            let queued = |key| self.wants.get(key).is_some_and(|want: &Want| want.queued);
            session.queue.iter().any(queued)
        };
        let placed: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| !session.wants.is_empty() && !waits(session))
            .map(|(id, _)| *id)
            .collect();
        for id in placed {
            let Some(busy) = self.busiest(id) else {
                continue;
            };
            let left = self.peers.get(&busy).map(Peer::time_left);
            let idle = self.idle_holders(id, left.unwrap_or_default() / 2);
            if idle.is_empty() {
                continue;
            }
            let keys = self.last_of(id, &busy);
            // Whoever helps gets no more than its share of it.
            let most = keys.len().div_ceil(2);
            let helpers = idle.iter().flat_map(|(peer, window)| {
                let each = (*window).min(most.div_ceil(idle.len()));
                std::iter::repeat_n(*peer, each)
            });
            for (key, peer) in keys.into_iter().take(most).zip(helpers) {
                self.pass_on(&key, &busy, peer, now);
            }
        }
    }

    /// Who could be asked and owes nothing, and how much of it each can send within some time.
    fn idle_holders(&self, id: SessionId, within: Duration) -> Vec<(PeerId, usize)> {
        let holders = self.sessions.get(&id).map(|session| session.holders.keys());
        let idle = holders.into_iter().flatten().filter_map(|id| {
            let peer = self.peers.get(id)?;
            let can = peer.speaks != Speaks::Nothing && !peer.suspect && !peer.ledger.has_failed();
            let pace = peer.ledger.pace().as_micros();
            let blocks = within.as_micros().checked_div(pace).unwrap_or(u128::MAX);
            let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
            (can && peer.in_flight.is_empty()).then(|| (*id, peer.window().min(blocks)))
        });
        idle.collect()
    }

    /// The holder that has to send for longest.
    fn busiest(&self, id: SessionId) -> Option<PeerId> {
        let holders = self.sessions.get(&id)?.holders.keys();
        let left = holders.filter_map(|id| Some((self.peers.get(id)?.time_left(), *id)));
        left.max().map(|(_, id)| id)
    }

    /// What a peer sends last of a session's work, the very last first; only what it has certainly not
    /// begun to send.
    fn last_of(&self, id: SessionId, peer: &PeerId) -> Vec<Key> {
        let (Some(session), Some(peer)) = (self.sessions.get(&id), self.peers.get(peer)) else {
            return Vec::new();
        };
        let begun_bytes = OUTSTANDING_BYTES_MAX.div_ceil(peer.ledger.block_bytes());
        let begun_time = RELIEF_AFTER.as_micros() / peer.ledger.pace().as_micros().max(1);
        let begun = u128::from(begun_bytes).max(begun_time);
        let begun = usize::try_from(begun).unwrap_or(usize::MAX);
        if peer.in_flight.len() <= begun {
            return Vec::new();
        }
        let mut asked: Vec<(&Key, &InFlight)> = peer.in_flight.iter().collect();
        asked.sort_unstable_by_key(|(_, asked)| (asked.at, asked.ahead));
        let last = asked.into_iter().skip(begun).rev().map(|(key, _)| key);
        last.filter(|key| session.wants.contains(*key))
            .cloned()
            .collect()
    }

    fn pass_on(&mut self, key: &Key, from: &PeerId, to: PeerId, now: Instant) {
        let (Some(want), Some(busy)) = (self.wants.get_mut(key), self.peers.get_mut(from)) else {
            return;
        };
        if want.absent.contains(&to) || want.asked.get(&to) == Some(&WantKind::Block) {
            return;
        }
        want.asked.remove(from);
        busy.in_flight.remove(key);
        self.has_freed_room = true;
        busy.list.cancel(key);
        self.changed.insert(*from);
        self.ask(key, to, WantKind::Block, now);
    }

    /// Says again what seems to have been lost, and asks again those who had it not.
    fn repeat(&mut self, now: Instant) {
        let old = |at: Instant| now.saturating_duration_since(at) >= REPEAT;
        let stale: Vec<Key> = self
            .wants
            .iter()
            .filter(|(_, want)| !want.is_asked_for() && !want.queued && old(want.asked_at))
            .map(|(key, _)| key.clone())
            .collect();
        if stale.is_empty() {
            return;
        }
        for (id, peer) in &mut self.peers {
            if peer.list.len() > 0 && old(peer.progress_at) && old(peer.repeated_at) {
                peer.repeated_at = now;
                peer.list.repeat();
                self.changed.insert(*id);
            }
        }
        for key in stale {
            if let Some(want) = self.wants.get_mut(&key) {
                want.absent.clear();
                want.asked_at = now;
            }
            self.enqueue(&key);
        }
    }

    fn expire(&mut self, now: Instant) {
        let company = self.company();
        let (mut over, mut searches) = (Vec::new(), Vec::new());
        // They are asked for nothing more only because what they were asked for takes so long. (Who is not suspect
        // is asked for more as soon as it has sent a block.)
        let send_other_blocks = self.peers.iter().filter(|(id, peer)| {
            let silence = now.saturating_duration_since(peer.progress_at);
            peer.suspect && peer.ledger.is_believed() && silence <= self.silence_of(id, peer, now)
        });
        let sending: HashSet<PeerId> = send_other_blocks.map(|(id, _)| *id).collect();
        for (id, session) in &mut self.sessions {
            let waits_its_turn = |want: &Want| {
                !want.is_asked_for() && want.haves.iter().any(|id| sending.contains(id))
            };
            let is_idle = now.saturating_duration_since(session.progress_at) >= session.idle;
            let mut wants = session.wants.iter().filter_map(|key| self.wants.get(key));
            if is_idle && wants.any(waits_its_turn) {
                session.flows(now);
            }
            let mut oldest: Option<&Want> = None;
            for key in &session.wants {
                let Some(want) = self.wants.get(key) else {
                    continue;
                };
                if now.saturating_duration_since(want.created.max(session.progress_at))
                    >= session.idle
                {
                    let tried = Tried::of(want, session, company);
                    over.push((*id, key.clone(), want.cid, tried));
                } else if oldest.is_none_or(|oldest| want.created < oldest.created) {
                    oldest = Some(want);
                }
            }
            // Nothing is looked for that is given up in the same breath.
            if let Some(want) = oldest
                && session.searches(now)
            {
                searches.push(Action::Search {
                    session: *id,
                    cid: want.cid,
                });
            }
        }
        for (session, key, cid, tried) in over {
            self.unwant(session, &key);
            if let Some(state) = self.sessions.get_mut(&session) {
                state.gives_up(key, tried.clone(), now);
            }
            self.actions.push_back(Action::GiveUp {
                session,
                cid,
                tried,
            });
        }
        // After them: who was given up is not told of it, and its story does not count it.
        self.actions.extend(searches);
    }

    /// What this piece of work waits for: the first of it, what was tried for that, and how much more.
    pub(in crate::bitswap) fn waits_for(&self, session: SessionId) -> Option<(Cid, Tried, usize)> {
        let session = self.sessions.get(&session)?;
        let wants = session.wants.iter().filter_map(|key| self.wants.get(key));
        let oldest = wants.min_by_key(|want| want.created)?;
        let tried = Tried::of(oldest, session, self.company());
        Some((oldest.cid, tried, session.wants.len() - 1))
    }
}

impl Tried {
    fn of(want: &Want, session: &Session, Company { connected, mute }: Company) -> Self {
        let is_peer = |id: &&PeerId| !want.gateways.contains(*id);
        let peers = want.told.keys().filter(is_peer);
        let known: BTreeSet<&PeerId> = peers.clone().chain(&want.haves).collect();
        let may_have = known.into_iter().filter(|id| !want.lacking.contains(*id));
        Self {
            connected,
            mute,
            said: Said {
                asked: peers.count(),
                may_have: may_have.count(),
                ..want.said
            },
            sought: session.sought.clone(),
            gateways: want.gateways.clone(),
            unreached: Vec::new(),
            alone: None,
        }
    }
}

/// Who may be asked for what somebody else was asked for already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// Those who have delivered and have little to do.
    Idle,
    /// Anybody: whoever was asked never delivered, or has been waited for as long as any.
    Any,
}

impl Worth {
    fn of(patience: Duration) -> Self {
        if patience <= HEDGE_UNPROVEN {
            Self::Any
        } else {
            Self::Idle
        }
    }
}

impl Peer {
    /// Whether what it sends will never be a block: it took longer than the largest, or more came than all that
    /// it owes can be.
    fn owes_in_vain(&self, now: Instant) -> bool {
        let owed_for = now.saturating_duration_since(self.block_at);
        let blocks = self.in_flight.len().saturating_add(BLOCKS_UNDER_WAY) as u64;
        let most = blocks.saturating_mul(BLOCK_BYTES_MAX as u64);
        owed_for > OWED_LONGEST || (owed_for > OWED_MAX && self.blockless > most)
    }

    /// How long it will send what it was asked for.
    fn time_left(&self) -> Duration {
        let blocks = u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX);
        self.ledger.pace().saturating_mul(blocks)
    }

    /// Seconds from one of its blocks to the next, if it can be counted upon.
    pub(super) fn known_pace(&self) -> Option<f64> {
        let pace = self.ledger.pace().as_secs_f64();
        (self.is_trusted() && self.speaks != Speaks::Nothing && pace > 0.0).then_some(pace)
    }

    /// Whether it does what it is asked for, as far as is known.
    pub(super) fn is_trusted(&self) -> bool {
        self.ledger.is_proven() && !self.suspect
    }

    /// How long it is waited for if it has delivered before.
    pub(super) fn patience(&self) -> Duration {
        HEDGE_PROVEN.max(self.ledger.delay() * HEDGE_DELAYS)
    }

    /// Whether it has delivered enough to be waited for long: a block or two buy no long wait for many.
    fn has_earned_patience(&self) -> bool {
        let blocks = self.ledger.block_bytes().saturating_mul(PATIENCE_BLOCKS);
        self.ledger.wanted_bytes() >= blocks
    }

    /// How long it is waited for if it never delivered anything: who says at once that it has a block can
    /// begin to send it about as soon.
    fn patience_as_stranger(&self) -> Duration {
        match self.quickest_have {
            Some(delay) if self.blockless == 0 && self.ledger.wanted_bytes() == 0 => {
                (delay * HEDGE_HAVES).clamp(HEDGE_UNPROVEN_MIN, HEDGE_UNPROVEN)
            }
            _ => HEDGE_UNPROVEN,
        }
    }

    /// How long it is waited for if it fetches the same as we do.
    fn patience_as_companion(&self, key: &Key, now: Instant) -> Duration {
        if self.ledger.is_proven() {
            let least = if self.has_earned_patience() {
                CROWD_PATIENCE
            } else {
                HEDGE_PROVEN
            };
            return self.patience().max(least);
        }
        let own = if self.ledger.has_failed() {
            HEDGE_UNPROVEN
        } else {
            HEDGE_PROVEN
        };
        let asked_at = self.in_flight.get(key).map(|asked| asked.at);
        let flows = self.ledger.is_believed()
            && asked_at.is_some_and(|asked_at| asked_at < self.progress_at)
            && now.saturating_duration_since(self.progress_at) <= HEDGE_PROVEN;
        if flows { own.max(HEDGE_FLOWING) } else { own }
    }

    /// How long it is waited for if it goes on delivering: it sends one block after the other.
    pub(super) fn patience_for(&self, key: &Key) -> Duration {
        let ahead = self.in_flight.get(key).map_or(0, |asked| asked.ahead);
        let queue = self.ledger.pace().saturating_mul(ahead * HEDGE_PACES);
        self.patience().max(queue.min(HEDGE_QUEUE_MAX))
    }
}

/// A peer that sends nothing of use for so long, though it was asked, has failed, unless it serves a crowd.
pub(super) const STALL: Duration = Duration::from_secs(2);
/// Longest silence of one that sends in lumps: twice the time of 16 KiB at the slowest rate.
pub(super) const GAP_MAX: Duration = Duration::from_secs(32);
/// Blocks that a peer may still be sending though they are asked of others by now.
const BLOCKS_UNDER_WAY: usize = 8;
/// When no block has come for so long from a peer that owes some, others are looked for beside it.
pub(super) const OWED_MAX: Duration = Duration::from_secs(30);
/// How long a peer that never delivered anything is waited for alone.
const HEDGE_UNPROVEN: Duration = Duration::from_millis(250);
/// That time in multiples of what its quickest HAVE took while nothing comes from it at all, and the least.
const HEDGE_HAVES: u32 = 16;
const HEDGE_UNPROVEN_MIN: Duration = Duration::from_millis(50);
/// The least time that a peer which did deliver is waited for alone.
pub(super) const HEDGE_PROVEN: Duration = Duration::from_secs(1);
/// That time in multiples of what its blocks take.
const HEDGE_DELAYS: u32 = 4;
/// What comes after others is waited for so many times as long as those take.
const HEDGE_PACES: u32 = 2;
/// But not longer than that.
const HEDGE_QUEUE_MAX: Duration = Duration::from_secs(8);
/// How long one that has delivered is waited for alone, silent or not, if it serves a crowd: flows that share a full
/// link lose much and some rest for seconds, and what they bring in the end would have come twice.
pub(in crate::bitswap) const CROWD_PATIENCE: Duration = Duration::from_secs(10);
/// So many blocks a companion has delivered by then: it costs to be waited for, and an honest one has soon.
const PATIENCE_BLOCKS: u64 = 3;
/// How long a companion that never delivered is waited for alone while bytes come from it.
const HEDGE_FLOWING: Duration = Duration::from_secs(4);
/// Late wants that are looked at in a tick, those that wait for longest first.
const HEDGES_A_TICK_MAX: usize = 64;
/// When a late want is looked at again that nobody else has.
const HEDGE_AGAIN: Duration = Duration::from_secs(1);
const HEDGE_DOUBLINGS_MAX: u32 = 3;
/// After so long without an answer everything is said again.
pub(super) const REPEAT: Duration = Duration::from_secs(10);
/// Strangers that one session asks at once.
const EXPLORED_PEERS_MAX: usize = 32;
/// What a peer sends within so long is not taken from it: it may be on its way before it hears.
const RELIEF_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitswap::client::crowd::tests::{name, want};
    use crate::bitswap::client::{Received, TICK};
    use crate::bitswap::message::{Change, PresenceKind};

    const SESSION: SessionId = SessionId(1);
    const BYTES: u64 = 1 << 20;

    struct Bench {
        client: Client,
        now: Instant,
    }

    impl Bench {
        /// Two peers, the first of which has delivered and owes a block that the other has too.
        fn new(is_crowd: bool) -> (Self, [PeerId; 2]) {
            let now = Instant::now();
            let mut bench = Self {
                client: Client::default(),
                now,
            };
            bench.client.open(SESSION, Duration::from_secs(60), now);
            let peers = [(); 2].map(|()| PeerId::random());
            let [first, second] = peers;
            bench.client.connected(first, now);
            bench.client.want(SESSION, name(0), now);
            bench.client.settle(now);
            assert_eq!(bench.asked(&first), [name(0)]);
            bench.client.connected(second, now);
            if is_crowd {
                let line = want(name(0), WantKind::Block);
                bench.client.wanted_too(&second, &[line], now);
            }
            let received = bench.client.block(&first, &name(0), BYTES, now);
            assert_eq!(received, Received::Wanted(name(0)));
            bench.client.want(SESSION, name(1), now);
            bench.client.settle(now);
            assert_eq!(bench.asked(&first), [name(1)]);
            let has = PresenceKind::Have;
            bench.client.presence(&second, &name(1), has, now);
            (bench, peers)
        }

        /// Blocks that a peer is asked for, since the last time.
        fn asked(&mut self, id: &PeerId) -> Vec<Cid> {
            let lines = self.client.entries(id, 1000).into_iter();
            let blocks = lines.filter_map(|line| match line.change {
                Change::Want { kind, .. } => (kind == WantKind::Block).then_some(line.cid),
                Change::Cancel => None,
            });
            blocks.collect()
        }

        /// How long the second peer is not asked for what the first owes.
        fn waits(&mut self, second: &PeerId) -> Duration {
            let start = self.now;
            while self.asked(second).is_empty() {
                assert!(self.now < start + REPEAT * 6, "never asked");
                self.now += TICK;
                self.client.tick(self.now);
                self.client.settle(self.now);
            }
            self.now - start
        }
    }

    #[test]
    fn who_serves_a_crowd_is_given_more_time() {
        let (mut alone, [_, second]) = Bench::new(false);
        let waited = alone.waits(&second);
        assert!(waited <= STALL + 2 * TICK, "{waited:?}");
        let (mut crowd, [first, second]) = Bench::new(true);
        let waited = crowd.waits(&second);
        let most = CROWD_PATIENCE + 2 * TICK;
        assert!((CROWD_PATIENCE..=most).contains(&waited), "{waited:?}");
        // It is left alone then, and what it sends in the end is not held against it.
        let late = crowd.client.block(&first, &name(1), BYTES, crowd.now);
        assert_eq!(late, Received::Wanted(name(1)));
        let ledger = &crowd.client.peers.get(&first).unwrap().ledger;
        assert!(ledger.is_proven() && !ledger.has_failed());
    }

    #[test]
    fn who_only_said_once_that_it_wants_the_same_makes_no_crowd() {
        let (mut crowd, [first, second]) = Bench::new(true);
        crowd.now += CROWD_PATIENCE;
        let (now, sessions) = (crowd.now, [SESSION]);
        assert!(!crowd.client.serves_crowd(&first, &sessions, now));
        crowd
            .client
            .peers
            .get_mut(&second)
            .unwrap()
            .ledger
            .delivered(BYTES, TICK, TICK);
        assert!(crowd.client.serves_crowd(&first, &sessions, now));
    }

    #[test]
    fn what_waits_for_longest_is_asked_of_somebody_else_first() {
        const MANY: u8 = 192;
        assert!(usize::from(MANY) > HEDGES_A_TICK_MAX);
        let mut bench = Bench {
            client: Client::default(),
            now: Instant::now(),
        };
        let [first, second] = [(); 2].map(|()| PeerId::random());
        bench
            .client
            .open(SESSION, Duration::from_secs(60), bench.now);
        bench.client.connected(first, bench.now);
        bench.client.connected(second, bench.now);
        for id in [first, second] {
            let ledger = &mut bench.client.peers.get_mut(&id).unwrap().ledger;
            // Small blocks, so that it has room for all.
            (0..64).for_each(|_| ledger.delivered(1000, TICK, TICK));
        }
        for number in 0..MANY {
            bench.client.want(SESSION, name(number), bench.now);
            bench.client.settle(bench.now);
            let has = PresenceKind::Have;
            bench.client.presence(&first, &name(number), has, bench.now);
            bench.client.settle(bench.now);
            assert_eq!(bench.asked(&first), [name(number)]);
            bench.now += Duration::from_micros(1);
        }
        for number in 0..MANY {
            let has = PresenceKind::Have;
            bench
                .client
                .presence(&second, &name(number), has, bench.now);
        }
        bench.client.settle(bench.now);
        bench.asked(&second);
        bench.now += HEDGE_PROVEN + Duration::from_millis(1);
        bench.client.hedge(bench.now);
        let asked = bench.asked(&second);
        let oldest: Vec<Cid> = (0..MANY).map(name).take(asked.len()).collect();
        assert!(!asked.is_empty());
        assert_eq!(asked, oldest);
    }

    #[test]
    fn who_failed_is_left_alone_for_a_while_if_somebody_that_delivers_has_the_same() {
        let start = Instant::now();
        let mut client = Client::default();
        let [liar, honest] = [(); 2].map(|()| PeerId::random());
        client.open(SESSION, Duration::from_secs(600), start);
        for peer in [liar, honest] {
            client.connected(peer, start);
        }
        // The first block is asked of the liar, which sends nothing.
        let mut now = start;
        client.want(SESSION, name(0), now);
        client.settle(now);
        client.presence(&liar, &name(0), PresenceKind::Have, now);
        client.settle(now);
        while client.tick(now) == 0 {
            now += TICK;
            assert!(now < start + STALL * 2, "it is not written off");
        }
        let least = client.peers[&liar].ledger.rest();
        client.presence(&honest, &name(0), PresenceKind::Have, now);
        client.settle(now);
        client.block(&honest, &name(0), 1 << 20, now);
        // More than the other has room for.
        for number in 1..=100 {
            client.want(SESSION, name(number), now);
            client.provider(SESSION, liar);
        }
        client.settle(now);
        let failed_at = now;
        let owes = |client: &Client, peer| client.peers[&peer].in_flight.len();
        assert!(
            owes(&client, honest) < 100 && owes(&client, honest) >= client.peers[&honest].window()
        );
        while owes(&client, liar) == 0 {
            assert!(now < failed_at + least * 2, "it is left alone for ever");
            now += TICK;
            if (now - failed_at)
                .as_millis()
                .is_multiple_of((TICK * 2).as_millis())
            {
                let owed = client.peers[&honest].in_flight.iter();
                let (first, _) = owed
                    .min_by_key(|(_, asked)| (asked.at, asked.ahead))
                    .unwrap();
                let came = client.wants[first].cid;
                client.block(&honest, &came, 1 << 20, now);
            }
            client.tick(now);
            client.settle(now);
        }
        let rest = now - failed_at;
        assert!(rest >= least - TICK && rest <= least + TICK, "{rest:?}");
    }

    /// How long somebody else is not asked for a block that a stranger said to have `after` it was asked, of which it
    /// sends so many bytes at once, or as many as wait here to be taken.
    fn stranger_is_waited_for(after: Duration, bytes: Option<u64>) -> Duration {
        let mut bench = Bench {
            client: Client::default(),
            now: Instant::now(),
        };
        let [first, second] = [(); 2].map(|()| PeerId::random());
        bench
            .client
            .open(SESSION, Duration::from_secs(60), bench.now);
        for peer in [first, second] {
            bench.client.connected(peer, bench.now);
        }
        bench.client.want(SESSION, name(1), bench.now);
        bench.client.settle(bench.now);
        bench.now += after;
        for peer in [first, second] {
            let has = PresenceKind::Have;
            bench.client.presence(&peer, &name(1), has, bench.now);
            bench.client.settle(bench.now);
        }
        bench.asked(&first);
        assert!(!bench.client.peers[&first].in_flight.is_empty());
        assert!(bench.client.peers[&second].in_flight.is_empty());
        match bytes {
            Some(bytes) => bench.client.flows(&first, bytes, bench.now),
            None => bench.client.excuse(&first, bench.now),
        }
        let start = bench.now;
        while bench.client.peers[&second].in_flight.is_empty() {
            assert!(bench.now < start + STALL, "nobody else is asked");
            bench.now += Duration::from_millis(1);
            bench.client.hedge(bench.now);
        }
        bench.now - start
    }

    #[test]
    fn a_stranger_that_is_quick_with_words_alone_is_not_waited_for_long() {
        let step = Duration::from_millis(1);
        for (after, bytes, waited) in [
            (step, Some(0), HEDGE_UNPROVEN_MIN),
            (step * 10, Some(0), step * 160),
            (step * 100, Some(0), HEDGE_UNPROVEN),
            (step, Some(1), HEDGE_UNPROVEN),
            (step, None, HEDGE_UNPROVEN),
        ] {
            let told = format!("{after:?}, {bytes:?} bytes");
            assert_eq!(
                stranger_is_waited_for(after, bytes),
                waited + step,
                "{told}"
            );
        }
    }

    #[test]
    fn who_has_failed_is_given_no_more_time_in_a_crowd() {
        let (mut crowd, [first, second]) = Bench::new(true);
        crowd.client.peers.get_mut(&first).unwrap().ledger.failed();
        let waited = crowd.waits(&second);
        assert!(waited <= HEDGE_UNPROVEN + 2 * TICK, "{waited:?}");
        let start = crowd.now - waited;
        while crowd.client.tick(crowd.now) == 0 {
            crowd.now += TICK;
        }
        let silent = crowd.now - start;
        assert!(silent <= STALL + 2 * TICK, "{silent:?}");
    }
}
