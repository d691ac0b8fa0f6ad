//! What we want of others, and whom we ask: decisions without network, task or clock.
//!
//! One table holds every want, whoever waits for it, so that two sessions that want one block make
//! one request. A want is placed like this:
//!
//! 1. Somebody is known to hold parts of the same work (a *holder*) and has room in its window: ask
//!    it for the block at once. Proven peers first, then those that said HAVE, then whoever is
//!    least busy: so several holders share the work as fast as each can.
//! 2. All holders are full: the want waits in its session's queue; sessions take turns.
//! 3. There is no holder: ask everybody connected who has it (want-have), a bounded number of wants
//!    at a time. HAVE makes a holder.
//! 4. Nobody has it, or nobody answered for a second: look for providers.
//!
//! While holders are busy, others are asked now and then whether they have it too, and who has nothing to
//! do takes over from who has much (`client/late.rs`).
//!
//! DONT_HAVE, silence, a disconnection and a wrong block all bring a want back to 1 without that
//! peer; who sends again after a silence is counted on again, and who does not is left alone for a while, longer each
//! time, as long as others that deliver have the same. A want that takes long is asked of a
//! second peer before the first has failed, soon if that never delivered anything, and later if many
//! want the same of it (`client/late.rs`).
//!
//! Several peers that fetch the same at once share what they have (`client/crowd.rs`).
//!
//! Whoever drives this calls the verbs as things happen, then [`Client::settle`], then does the
//! [`Action`]s and sends the want lists of [`Client::changed`].

mod crowd;
mod late;
mod placing;
mod sources;

use super::key::Key;
use super::ledger::Ledger;
use super::message::{Entry, PresenceKind, WantKind};
use super::recent::Recent;
pub(super) use super::session::Tried;
use super::session::{Said, Session, SessionId};
use super::wantlist::WantList;
use crate::explain::{Ask, Step};
use crate::http::Standing;
use cairn_store::Cid;
use cairn_store::block::BLOCK_BYTES_MAX;
use crowd::Number;
#[cfg(test)]
pub(super) use late::CROWD_PATIENCE;
use libp2p::PeerId;
#[cfg(test)]
pub(super) use placing::BROADCASTS_MAX;
pub(super) use sources::Refusal;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
mod model;
#[cfg(test)]
mod slow;

/// Every want, session and peer.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Our own place among those who fetch the same.
    me: Number,
    peers: HashMap<PeerId, Peer>,
    sessions: HashMap<SessionId, Session>,
    wants: HashMap<Key, Want>,
    /// Sessions with a queue, whose turn it is at the front.
    hungry: VecDeque<SessionId>,
    /// Whether somebody may have more room than when sessions were last served.
    has_freed_room: bool,
    changed: BTreeSet<PeerId>,
    actions: VecDeque<Action>,
    /// What happened to wants that somebody watches. Taken out after every turn.
    told: VecDeque<(Key, Step)>,
    /// Wants that are over, and who was first to have them.
    recent: Recent<RECENT_MAX, Option<SessionId>>,
    efforts: Efforts,
}

/// What was done about peers, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Efforts {
    /// Blocks asked of one more peer because the first was late.
    pub(super) hedges: u64,
    /// Questions to peers not known to have anything.
    pub(super) explorations: u64,
    /// Peers that were found to fetch the same as a session.
    pub(super) companions: u64,
}

#[derive(Debug)]
struct Peer {
    ledger: Ledger,
    list: WantList,
    /// Blocks asked for: the keys of all wants that have this peer as asked for the block.
    in_flight: HashMap<Key, InFlight>,
    /// When it last sent something of use.
    progress_at: Instant,
    /// When all that is wanted of it was last said to it again.
    repeated_at: Instant,
    /// When bytes last came at a rate worth waiting for, of use or not, or it began to owe some.
    heard_at: Instant,
    /// Bytes that came since, too slowly so far.
    trickled: u64,
    /// The longest that it was silent for lately between bytes of what is wanted of it.
    gap: Duration,
    /// When its last block came, or it began to owe some.
    block_at: Instant,
    /// Bytes that came since.
    blockless: u64,
    /// When its last block came.
    delivered_at: Option<Instant>,
    /// Whether that was not long before the last tick.
    delivers: bool,
    /// The least that it took to say that it has something.
    quickest_have: Option<Duration>,
    /// It owes blocks and none has come for longer than they take: it is asked for no more.
    suspect: bool,
    /// Until when it is not asked for more after a silence, if others that deliver have the same.
    alone_until: Option<Instant>,
    /// Whether that was so at the last tick.
    was_left_alone: bool,
    speaks: Speaks,
    /// Set if it is a source: asked over HTTP for one block at a time.
    source: Option<Standing>,
}

/// A block that a peer was asked for.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    at: Instant,
    /// Blocks it was asked for before.
    ahead: u32,
}

/// What a peer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Want-have, HAVE and DONT_HAVE.
    Presences,
    /// Wants for blocks, answered with a block or never.
    Blocks,
    /// Wants for blocks, answered with a block or that it is not there, and forgotten then.
    Requests,
    /// No Bitswap, or none with us any more.
    Nothing,
}

#[derive(Debug)]
struct Want {
    cid: Cid,
    sessions: Vec<SessionId>,
    asked: HashMap<PeerId, WantKind>,
    haves: Vec<PeerId>,
    absent: HashSet<PeerId>,
    /// Of those told, whose last word is that they do not have it.
    lacking: BTreeSet<PeerId>,
    /// Whose list has it, and since when; if it was asked for the block, since then.
    told: BTreeMap<PeerId, (WantKind, Instant)>,
    /// Sources that were asked for it.
    gateways: BTreeSet<PeerId>,
    created: Instant,
    /// When somebody was last asked for it, in any way.
    asked_at: Instant,
    broadcast: bool,
    queued: bool,
    /// How many had joined of those who fetch the same when they were told of it.
    companions_told: u64,
    hedges: u32,
    /// When it may be asked of somebody else at the earliest.
    hedge_at: Instant,
    /// Of what is told at the end; `asked` is counted then.
    said: Said,
    /// Whether somebody wants to hear what happens to it.
    watched: bool,
}

/// Who is connected, but for sources.
#[derive(Debug, Clone, Copy)]
struct Company {
    /// Speak Bitswap.
    connected: usize,
    /// Do not.
    mute: usize,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Find peers that have this.
    Search { session: SessionId, cid: Cid },
    /// Nobody has it in time: tell whoever waits.
    GiveUp {
        session: SessionId,
        cid: Cid,
        tried: Tried,
    },
    /// The peer misbehaves.
    Disconnect(PeerId),
}

/// What a verified block was to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Wanted, under this name.
    Wanted(Cid),
    /// Wanted not long ago.
    Duplicate,
    /// Never wanted.
    Wrong,
}

impl Client {
    /// What was done since this was last asked.
    pub(super) fn take_efforts(&mut self) -> Efforts {
        std::mem::take(&mut self.efforts)
    }

    /// A peer is here.
    pub(super) fn connected(&mut self, peer: PeerId, now: Instant) {
        if self.peers.contains_key(&peer) {
            return;
        }
        self.peers.insert(peer, Peer::new(now));
        for session in self.sessions.values_mut() {
            session.arrived(&peer);
        }
        let open: Vec<Key> = self
            .wants
            .iter()
            .filter(|(_, want)| !want.is_asked_for())
            .map(|(key, _)| key.clone())
            .take(BROADCAST_TO_NEW_MAX)
            .collect();
        for key in open {
            if self.holds_for(&peer, &key) {
                self.enqueue(&key);
            } else if self.wants.get(&key).is_some_and(|want| want.broadcast) {
                self.ask(&key, peer, WantKind::Have, now);
            }
        }
    }

    /// A peer is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.tell_of(peer, |peer| Step::Gone { peer });
        self.release(peer, Release::Forget);
        for session in self.sessions.values_mut() {
            session.gone(peer);
        }
        self.peers.remove(peer);
        self.changed.remove(peer);
    }

    /// What a peer understands, found out by speaking with it.
    pub(super) fn speaks(&mut self, peer: &PeerId, speaks: Speaks, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        if state.speaks == speaks || state.ledger.is_hopeless() {
            return;
        }
        let was = std::mem::replace(&mut state.speaks, speaks);
        match speaks {
            Speaks::Nothing => self.release(peer, Release::Forget),
            Speaks::Blocks => {
                // Our want-haves reached it as wants for the blocks.
                if state.in_flight.is_empty() {
                    state.begins_to_owe(now);
                }
                for (key, want) in &mut self.wants {
                    if let Some(kind) = want.asked.get_mut(peer) {
                        *kind = WantKind::Block;
                        state.asked_for(key, now);
                    }
                }
            }
            Speaks::Presences | Speaks::Requests => {}
        }
        if was == Speaks::Nothing {
            self.place_what_it_has(peer);
        }
    }

    /// A piece of work begins.
    pub(super) fn open(&mut self, session: SessionId, idle: Duration, now: Instant) {
        self.sessions
            .entry(session)
            .or_insert_with(|| Session::new(idle, now));
    }

    /// A piece of work is over.
    pub(super) fn close(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get(&session) else {
            return;
        };
        for key in state.wants.clone() {
            self.unwant(session, &key);
        }
        self.sessions.remove(&session);
    }

    /// A session waits for a block. What it gave up not long ago it does not wait for again.
    pub(super) fn want(&mut self, session: SessionId, cid: Cid, now: Instant) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        let key = Key::content(&cid);
        if let Some(tried) = state.gave_up(&key, now) {
            self.actions.push_back(Action::GiveUp {
                session,
                cid,
                tried: tried.clone(),
            });
            return;
        }
        if state.wants.is_empty() {
            state.wakes(now);
        }
        state.wants.insert(key.clone());
        if let Some(want) = self.wants.get_mut(&key) {
            if !want.sessions.contains(&session) {
                want.sessions.push(session);
                for peer in &want.haves {
                    state.holds(*peer);
                }
            }
            // Whoever asks now may know that it is there by now: what was answered before is old.
            let age = now.saturating_duration_since(want.asked_at);
            if !want.queued && !want.is_asked_for() && age >= ASK_ANEW {
                want.absent.clear();
                want.asked_at = now;
                self.enqueue(&key);
            }
            return;
        }
        let want = Want {
            cid,
            sessions: vec![session],
            asked: HashMap::new(),
            haves: Vec::new(),
            absent: HashSet::new(),
            lacking: BTreeSet::new(),
            told: BTreeMap::new(),
            gateways: BTreeSet::new(),
            created: now,
            asked_at: now,
            broadcast: false,
            queued: true,
            companions_told: 0,
            hedges: 0,
            hedge_at: now,
            said: Said::default(),
            watched: false,
        };
        self.wants.insert(key.clone(), want);
        state.queue.push_back(key);
        self.is_hungry(session);
    }

    /// A session does not wait for it any more.
    pub(super) fn unwant(&mut self, session: SessionId, key: &Key) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.wants_no_more(key);
        }
        let Some(want) = self.wants.get_mut(key) else {
            return;
        };
        want.sessions.retain(|other| *other != session);
        match want.sessions.first() {
            None => drop(self.remove(key)),
            // Its queue was that of the session which left.
            Some(_) if want.queued => {
                want.queued = false;
                self.enqueue(key);
            }
            Some(_) => {}
        }
    }

    /// A peer says whether it has something.
    pub(super) fn presence(&mut self, peer: &PeerId, cid: &Cid, kind: PresenceKind, now: Instant) {
        let key = Key::content(cid);
        let (Some(want), Some(state)) = (self.wants.get_mut(&key), self.peers.get_mut(peer)) else {
            if kind == PresenceKind::Have {
                self.late_have(peer, &key);
            }
            return;
        };
        // Whoever owes blocks is not waited for any longer because of words.
        if state.in_flight.is_empty() {
            state.progress_at = now;
        }
        match kind {
            PresenceKind::Have => {
                want.said.haves += 1;
                want.hedge_at = now;
                if let Some((WantKind::Have, asked_at)) = want.told.get(peer) {
                    let took = now.saturating_duration_since(*asked_at);
                    let quickest = state.quickest_have.get_or_insert(took);
                    *quickest = took.min(*quickest);
                }
                if want.watched {
                    let step = Step::Said {
                        peer: *peer,
                        has: true,
                    };
                    self.told.push_back((key.clone(), step));
                }
                want.absent.remove(peer);
                want.lacking.remove(peer);
                if !want.haves.contains(peer) {
                    want.haves.push(*peer);
                }
                for session in &want.sessions {
                    if let Some(session) = self.sessions.get_mut(session) {
                        session.holds(*peer);
                        session.heard(peer, now);
                        session.is_restless = true;
                    }
                }
                if !want.is_asked_for() {
                    self.enqueue(&key);
                }
            }
            PresenceKind::DontHave => {
                want.said.dont_haves += 1;
                if want.told.contains_key(peer) {
                    want.lacking.insert(*peer);
                }
                if want.watched {
                    let step = Step::Said {
                        peer: *peer,
                        has: false,
                    };
                    self.told.push_back((key.clone(), step));
                }
                state.list.answered(&key);
                state.in_flight.remove(&key);
                self.has_freed_room = true;
                self.only_tell(peer, &key);
                self.lacks(peer, &key, now);
            }
        }
    }

    /// Somebody else was faster, but whoever has this has more of the same work: else of many who
    /// have everything only the quickest would ever be asked.
    fn late_have(&mut self, peer: &PeerId, key: &Key) {
        let asked = |peer: &Peer| peer.list.knows(key);
        let first = self.recent.get(key).copied().flatten();
        if let Some(session) = first.and_then(|id| self.sessions.get_mut(&id))
            && self.peers.get(peer).is_some_and(asked)
        {
            session.holds(*peer);
        }
    }

    /// A peer sent a block, which hashes to `cid`.
    pub(super) fn block(&mut self, peer: &PeerId, cid: &Cid, bytes: u64, now: Instant) -> Received {
        let key = Key::content(cid);
        let Some(want) = self.wants.get(&key) else {
            return self.useless(peer, &key, bytes);
        };
        let asked_for = want.cid;
        if let Some(state) = self.peers.get_mut(peer) {
            let delay = match state.in_flight.get(&key) {
                Some(asked) => now.saturating_duration_since(asked.at),
                None => state.ledger.delay(),
            };
            let pause = now.saturating_duration_since(state.block_at);
            if want.watched {
                let asked_at = want.told.get(peer);
                let took = asked_at.map(|(_, at)| now.saturating_duration_since(*at));
                let step = Step::Received {
                    peer: *peer,
                    bytes,
                    took,
                };
                self.told.push_back((key.clone(), step));
            }
            state.ledger.delivered(bytes, delay, pause);
            state.progress_at = now;
            state.delivered_at = Some(now);
            state.block_came(now);
            state.list.answered(&key);
            self.suspect(peer, false);
        }
        for session in self.remove(&key) {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.wants_no_more(&key);
                session.delivered(*peer);
                session.progressed(now);
            }
        }
        Received::Wanted(asked_for)
    }

    /// A want was found in the store.
    pub(super) fn found(&mut self, key: &Key, now: Instant) {
        for session in self.remove(key) {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.wants_no_more(key);
                session.progressed(now);
            }
        }
    }

    /// Bytes that cannot be a block, or not one of ours to take.
    pub(super) fn nonsense(&mut self, peer: &PeerId) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        if state.ledger.is_hopeless() {
            return; // Judged already; it may go on for a while before it is disconnected.
        }
        state.ledger.wrong();
        self.tell_of(peer, |peer| Step::Wrong { peer });
        self.release(peer, Release::Distrust);
        self.judge(peer);
    }

    /// Blocks came though we waited for nothing from this peer.
    pub(super) fn unwanted(&mut self, peer: &PeerId, bytes: u64) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.ledger.unwanted(bytes);
        }
        self.judge(peer);
    }

    /// What a peer sent waits here, so it is not to blame that nothing comes.
    pub(super) fn excuse(&mut self, peer: &PeerId, now: Instant) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.block_came(now);
            state.heard(now);
            // Its words do not wait, so they say nothing about its blocks.
            state.quickest_have = None;
        }
        self.suspect(peer, false);
        self.progress(peer, now);
    }

    /// Bytes came from a peer. They count once they come at a rate worth waiting for, over the time since
    /// they last did.
    pub(super) fn flows(&mut self, peer: &PeerId, bytes: u64, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        state.trickled = state.trickled.saturating_add(bytes);
        state.blockless = state.blockless.saturating_add(bytes);
        let silence = now.saturating_duration_since(state.heard_at);
        let least = silence.as_micros() * u128::from(SLOWEST_BYTES_A_SECOND) / MICROS_A_SECOND;
        if u128::from(state.trickled) < least.max(FLOWING_BYTES_MIN) {
            return;
        }
        if state.list.len() > 0 {
            state.gap = silence.max(state.gap / 8 * 7);
        }
        state.heard(now);
        self.take_back(peer, now);
        self.progress(peer, now);
    }

    /// Who was given up for its silence and sends after all is waited for again: it was never told that what
    /// it was asked for is not wanted any more, and need not be told that it is.
    fn take_back(&mut self, peer: &PeerId, now: Instant) {
        let Some(state) = self.peers.get(peer) else {
            return;
        };
        let is_asked_again = state.ledger.is_believed()
            && state.in_flight.is_empty()
            && state.speaks != Speaks::Nothing
            && state.source.is_none();
        if !is_asked_again {
            return;
        }
        let is_alone = |key: &&Key| {
            self.wants
                .get(*key)
                .is_some_and(|want| !want.is_asked_for())
        };
        let owed = state.list.owed().filter(is_alone);
        let owed: Vec<Key> = owed.take(state.window()).cloned().collect();
        for key in owed {
            self.ask(&key, *peer, WantKind::Block, now);
            if let Some(want) = self.wants.get_mut(&key) {
                want.absent.remove(peer);
                want.queued = false;
            }
        }
    }

    /// What a peer sends is worth waiting for.
    fn progress(&mut self, peer: &PeerId, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        if !state.ledger.is_believed() {
            return; // It has sent much before that came to nothing.
        }
        state.progress_at = now;
        for key in state.in_flight.keys() {
            for session in self.wants.get(key).map_or(&[][..], |want| &want.sessions) {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.flows(now);
                }
            }
        }
    }

    /// A search found somebody who says it has parts of this session's work. It may be connected
    /// or become so.
    pub(super) fn provider(&mut self, session: SessionId, peer: PeerId) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        state.sought.providers += 1;
        state.may_find_what_was_given_up();
        self.holds_some(session, peer);
    }

    /// Whoever has parts of this session's work is asked for what it waits for.
    fn holds_some(&mut self, session: SessionId, peer: PeerId) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        state.holds(peer);
        if self.peers.contains_key(&peer) {
            for key in state.wants.clone() {
                if self
                    .wants
                    .get(&key)
                    .is_some_and(|want| !want.is_asked_for())
                {
                    self.enqueue(&key);
                }
            }
        }
    }

    /// A dial to a provider is over.
    pub(super) fn dialled(&mut self, session: SessionId, outcome: &Result<(), Arc<str>>) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.dialled(outcome);
        }
    }

    /// From now on it is told what happens to a want. Gives how it stands: whom it was asked of before.
    pub(super) fn watch(&mut self, key: &Key) -> Vec<Step> {
        let connected = self.peers().len();
        let Some(want) = self.wants.get_mut(key) else {
            return Vec::new();
        };
        want.watched = true;
        let asked = want.asked.iter().map(|(peer, kind)| Step::Asked {
            peer: *peer,
            what: asking(*kind),
        });
        let said = want.haves.iter().map(|peer| Step::Said {
            peer: *peer,
            has: true,
        });
        let begun = Step::Begun { connected };
        std::iter::once(begun).chain(asked).chain(said).collect()
    }

    /// What happened to wants that are watched.
    pub(super) fn told(&mut self) -> Option<(Key, Step)> {
        self.told.pop_front()
    }

    /// Tells of a peer that was asked for blocks that are watched.
    fn tell_of(&mut self, peer: &PeerId, step: impl Fn(PeerId) -> Step) {
        let in_flight = self.peers.get(peer).map(|state| state.in_flight.keys());
        for key in in_flight.into_iter().flatten() {
            if self.wants.get(key).is_some_and(|want| want.watched) {
                self.told.push_back((key.clone(), step(*peer)));
            }
        }
    }

    /// What is to be done.
    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Peers whose want list changed since the last call.
    pub(super) fn changed(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.changed)
    }

    /// What a peer is to be told of our wants.
    pub(super) fn entries(&mut self, peer: &PeerId, max: usize) -> Vec<Entry> {
        self.peers
            .get_mut(peer)
            .map_or_else(Vec::new, |state| state.list.take(max))
    }

    /// Whether there may be something for [`Client::entries`].
    pub(super) fn has_entries(&self, peer: &PeerId) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|state| state.list.has_changes())
    }

    /// How much a peer knows that we want of it.
    pub(super) fn wanted_of(&self, peer: &PeerId) -> usize {
        self.peers.get(peer).map_or(0, |state| state.list.len())
    }

    /// What is wanted.
    pub(super) fn wantlist(&self) -> Vec<Cid> {
        self.wants.values().map(|want| want.cid).collect()
    }

    /// Peers that speak Bitswap, as far as we know.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.peers
            .iter()
            .filter(|(_, state)| state.speaks != Speaks::Nothing && state.source.is_none())
            .map(|(peer, _)| *peer)
            .collect()
    }

    /// How many connected peers speak Bitswap, and how many do not.
    fn company(&self) -> Company {
        let all = self.peers.values().filter(|peer| peer.source.is_none());
        let (all, connected) = (all.count(), self.peers().len());
        Company {
            connected,
            mute: all - connected,
        }
    }

    fn is_asked_for(&self, key: &Key) -> bool {
        self.wants.get(key).is_some_and(Want::is_asked_for)
    }

    /// A peer does not have it, or acts as if.
    fn lacks(&mut self, peer: &PeerId, key: &Key, now: Instant) {
        let Some(want) = self.wants.get_mut(key) else {
            return;
        };
        want.asked.remove(peer);
        want.haves.retain(|other| other != peer);
        want.absent.insert(*peer);
        for session in &want.sessions {
            if let Some(session) = self.sessions.get_mut(session) {
                session.lacks(peer);
            }
        }
        if want.is_asked_for() {
            return;
        }
        self.enqueue(key);
        self.maybe_exhausted(key, now);
    }

    /// These lines did not reach a peer.
    pub(super) fn lost(&mut self, peer: &PeerId, lines: &[Entry]) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.list.lost(lines);
            self.changed.insert(*peer);
        }
    }

    /// Takes from a peer all that it was asked for. Those wants are placed anew.
    fn release(&mut self, id: &PeerId, how: Release) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        let asked_for = std::mem::take(&mut peer.in_flight);
        self.has_freed_room = true;
        let mut orphans = Vec::new();
        for key in asked_for.into_keys() {
            let Some(want) = self.wants.get_mut(&key) else {
                continue;
            };
            if want.asked.remove(id).is_some() {
                // Its list keeps the want: if it answers after all, so much the better.
                want.absent.insert(*id);
                want.haves.retain(|other| other != id);
                if !want.is_asked_for() {
                    orphans.push(key);
                }
            }
        }
        if how == Release::Forget {
            for want in self.wants.values_mut() {
                want.asked.remove(id);
                want.absent.remove(id);
                want.haves.retain(|other| other != id);
            }
        }
        if how == Release::Distrust {
            for session in self.sessions.values_mut() {
                session.holders.remove(id);
            }
        }
        for key in orphans {
            self.enqueue(&key);
        }
    }

    /// Takes a want out of every list; whoever was asked is told.
    fn remove(&mut self, key: &Key) -> Vec<SessionId> {
        let Some(want) = self.wants.remove(key) else {
            return Vec::new();
        };
        for id in want.told.into_keys() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.list.cancel(key);
                self.has_freed_room |= peer.in_flight.remove(key).is_some();
                self.changed.insert(id);
            }
        }
        self.recent.add(key.clone(), want.sessions.first().copied());
        want.sessions
    }

    fn useless(&mut self, peer: &PeerId, key: &Key, bytes: u64) -> Received {
        // It may answer late, after many others did: then its own list remembers the question.
        let asked = |peer: &Peer| peer.list.knows(key);
        let received = if self.recent.has(key) || self.peers.get(peer).is_some_and(asked) {
            Received::Duplicate
        } else {
            Received::Wrong
        };
        if received == Received::Wrong {
            self.nonsense(peer);
        }
        self.unwanted(peer, bytes);
        received
    }

    fn judge(&mut self, peer: &PeerId) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        if state.ledger.is_hopeless() && state.speaks != Speaks::Nothing {
            state.speaks = Speaks::Nothing;
            self.release(peer, Release::Forget);
            self.actions.push_back(Action::Disconnect(*peer));
        }
    }
}

const fn asking(kind: WantKind) -> Ask {
    match kind {
        WantKind::Have => Ask::Have,
        WantKind::Block => Ask::Block,
    }
}

/// How a peer loses what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// It is gone: nothing of it is known any more.
    Forget,
    /// It failed: it counts as not having what it was asked for.
    Distrust,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            ledger: Ledger::default(),
            list: WantList::default(),
            in_flight: HashMap::new(),
            progress_at: now,
            repeated_at: now,
            trickled: 0,
            heard_at: now,
            gap: Duration::ZERO,
            block_at: now,
            delivered_at: None,
            delivers: false,
            blockless: 0,
            quickest_have: None,
            suspect: false,
            alone_until: None,
            was_left_alone: false,
            speaks: Speaks::Presences,
            source: None,
        }
    }

    /// It owed nothing, and does now.
    fn begins_to_owe(&mut self, now: Instant) {
        self.progress_at = now;
        self.heard(now);
        self.block_came(now);
    }

    /// What comes from now on is measured anew.
    fn heard(&mut self, now: Instant) {
        (self.heard_at, self.trickled) = (now, 0);
    }

    /// It owes nothing from before.
    fn block_came(&mut self, now: Instant) {
        (self.block_at, self.blockless) = (now, 0);
    }

    fn asked_for(&mut self, key: &Key, at: Instant) {
        let ahead = u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX);
        let asked = InFlight { at, ahead };
        self.in_flight.entry(key.clone()).or_insert(asked);
    }
}

impl Want {
    /// Whether somebody was asked for the block itself.
    fn is_asked_for(&self) -> bool {
        self.asked.values().any(|kind| *kind == WantKind::Block)
    }
}

/// How often [`Client::tick`] wants to be called.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Bytes that come at this rate are waited for: a block of 1 MiB takes 17 minutes then.
pub(super) const SLOWEST_BYTES_A_SECOND: u64 = 1 << 10;
/// Longest that no block comes from a peer that owes some, whatever else it sends, before it has failed and its bytes
/// count for nothing; and that a piece of work is kept alive by bytes: the time of the largest block at that rate.
pub(super) const OWED_LONGEST: Duration =
    Duration::from_secs(BLOCK_BYTES_MAX as u64 / SLOWEST_BYTES_A_SECOND);
/// Less than that is no flow, however soon it came.
const FLOWING_BYTES_MIN: u128 = 1 << 10;
const MICROS_A_SECOND: u128 = 1_000_000;
/// Open questions that a new peer is asked.
const BROADCAST_TO_NEW_MAX: usize = 256;
/// How old an answer must be not to count for somebody who asks for the same later. Helia does not
/// send a block that it said it lacks once it is there, unless it is asked again.
const ASK_ANEW: Duration = Duration::from_secs(1);
/// Wants of late, whoever was asked.
const RECENT_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::super::message::Change;
    use super::super::seeds;
    use super::*;
    use cairn_store::cid::{Multihash, RAW};

    fn asks(client: &mut Client, peer: &PeerId, now: Instant) -> usize {
        client.settle(now);
        let lines = client.entries(peer, 10).into_iter();
        lines.filter(|line| line.change != Change::Cancel).count()
    }

    #[test]
    fn who_asks_later_does_not_take_an_old_answer_for_a_new_one() {
        let start = Instant::now();
        let peer = PeerId::random();
        let cid = Cid::new_v1(RAW, Multihash::wrap(0x12, &[7; 32]).unwrap());
        let (first, soon, late) = (SessionId(1), SessionId(2), SessionId(3));
        let mut client = Client::default();
        client.connected(peer, start);
        for session in [first, soon, late] {
            client.open(session, Duration::from_secs(60), start);
        }
        client.want(first, cid, start);
        assert_eq!(asks(&mut client, &peer, start), 1);
        client.presence(&peer, &cid, PresenceKind::DontHave, start);
        assert_eq!(asks(&mut client, &peer, start), 0);
        client.want(soon, cid, start + ASK_ANEW / 2);
        assert_eq!(asks(&mut client, &peer, start + ASK_ANEW / 2), 0);
        let now = start + ASK_ANEW;
        client.want(late, cid, now);
        // First the old want is cancelled, in a message of its own.
        let twice = asks(&mut client, &peer, now) + asks(&mut client, &peer, now);
        assert_eq!(twice, 1);
    }

    #[test]
    fn what_is_given_up_is_not_looked_for_in_the_same_breath() {
        let start = Instant::now();
        // Nobody is connected, so it searches a tick after it is asked and every ten seconds from then: just when
        // the fourth search is due.
        let idle = TICK + Duration::from_secs(30);
        let cid = Cid::new_v1(RAW, Multihash::wrap(0x12, &[7; 32]).unwrap());
        let mut client = Client::default();
        client.open(SessionId(1), idle, start);
        client.want(SessionId(1), cid, start);
        let (mut now, mut searches) = (start, 0);
        let tried = 'over: loop {
            client.tick(now);
            client.settle(now);
            while let Some(action) = client.poll() {
                match action {
                    Action::Search { .. } => searches += 1,
                    Action::GiveUp { tried, .. } => break 'over tried,
                    _ => {}
                }
            }
            now += TICK;
        };
        assert_eq!((now - start, searches), (idle, 3));
        assert_eq!(tried.sought.searches, searches);
        assert!(client.poll().is_none(), "nobody waits any more");
    }

    #[test]
    fn somebody_may_have_it_until_each_who_was_asked_has_said_no() {
        let start = Instant::now();
        let cid = Cid::new_v1(RAW, Multihash::wrap(0x12, &[7; 32]).unwrap());
        let (first, second) = (PeerId::random(), PeerId::random());
        let mut client = Client::default();
        client.open(SessionId(1), Duration::from_secs(60), start);
        for peer in [first, second] {
            client.connected(peer, start);
        }
        client.want(SessionId(1), cid, start);
        for peer in [first, second] {
            assert_eq!(asks(&mut client, &peer, start), 1);
        }
        let is_anywhere = |client: &Client| {
            let (_, tried, _) = client.waits_for(SessionId(1)).unwrap();
            tried.found_somebody()
        };
        use PresenceKind::{DontHave, Have};
        for (peer, says, is_left) in [
            (first, DontHave, true),
            // Once more is not once for the other.
            (first, DontHave, true),
            (second, Have, true),
            (second, DontHave, false),
            (first, Have, true),
        ] {
            client.presence(&peer, &cid, says, start);
            assert_eq!(is_anywhere(&client), is_left, "{peer} {says:?}");
        }
    }

    #[test]
    fn what_a_session_waited_for_in_vain_it_does_not_wait_for_again_at_once() {
        let start = Instant::now();
        let idle = Duration::from_secs(30);
        let cid = Cid::new_v1(RAW, Multihash::wrap(0x12, &[7; 32]).unwrap());
        let (ours, other) = (SessionId(1), SessionId(2));
        let mut client = Client::default();
        for session in [ours, other] {
            client.open(session, idle, start);
        }
        let given_up = |client: &mut Client, now: Instant| -> Vec<SessionId> {
            client.tick(now);
            client.settle(now);
            let over = |action| match action {
                Action::GiveUp { session, .. } => Some(session),
                _ => None,
            };
            std::iter::from_fn(|| client.poll())
                .filter_map(over)
                .collect()
        };
        client.want(ours, cid, start);
        assert_eq!(given_up(&mut client, start + idle - TICK), []);
        assert_eq!(given_up(&mut client, start + idle), [ours]);
        // Another has not waited yet.
        client.want(other, cid, start + idle);
        client.want(ours, cid, start + idle);
        assert_eq!(given_up(&mut client, start + idle), [ours]);
        assert_eq!(client.wantlist(), [cid]);
        assert_eq!(given_up(&mut client, start + idle * 2), [other]);
        // By now somebody may have it.
        client.want(ours, cid, start + idle * 2);
        assert_eq!(given_up(&mut client, start + idle * 2), []);
        assert_eq!(client.wantlist(), [cid]);
        // So may somebody of whom it is known to have others, who is here only now; no stranger.
        let late = start + idle * 3;
        assert_eq!(given_up(&mut client, late), [ours]);
        client.connected(seeds::peer(1), late);
        client.want(ours, cid, late);
        assert_eq!(given_up(&mut client, late), [ours]);
        client.provider(ours, seeds::peer(2));
        client.connected(seeds::peer(2), late);
        client.want(ours, cid, late);
        assert_eq!(given_up(&mut client, late), []);
        assert_eq!(client.wantlist(), [cid]);
        // And so may a provider that was found, here already or not.
        let later = late + idle;
        assert_eq!(given_up(&mut client, later), [ours]);
        client.want(ours, cid, later);
        assert_eq!(given_up(&mut client, later), [ours]);
        client.provider(ours, seeds::peer(1));
        client.want(ours, cid, later);
        assert_eq!(given_up(&mut client, later), []);
    }
}
