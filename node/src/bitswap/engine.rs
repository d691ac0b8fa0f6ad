//! What others want of us, and what they get next: decisions without disk, network or clock.
//!
//! A peer's want waits for a look into the store (sizes only), then it is answered at once (HAVE,
//! DONT_HAVE), becomes a task (a block to send), or stays until the block arrives. What a [`Policy`]
//! refuses is treated as absent. Tasks leave in envelopes of about 1 MiB.
//!
//! Whose envelope is next is decided by virtual time: a peer's advances by the bytes it is sent,
//! divided by its [`Weight`], and the least goes first. So equal peers get equal bytes, in large
//! blocks or small; who gave us much gets up to four times as much; and who comes new or had nothing
//! to be sent begins at the present: it waits for one envelope of each of the others at most, and
//! saves nothing up. A peer that does not take what was sent to it gets no more beyond its part of
//! what may be under way to all, and holds nobody up.
//!
//! Whoever drives this asks for lookups, envelopes and presences until there are none, and tells
//! of messages, lookups done, envelopes sent and blocks that arrived.

use super::accounts::Weight;
use super::key::Key;
use super::message::{Absence, Change, Entry, Presence, PresenceKind, Scope};
use super::policy::{Policy, ServeAll, Verdict};
use cairn_store::{Cid, cid};
use libp2p::PeerId;
use peer::{Absentees, Peer};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

mod peer;

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod model;

#[cfg(test)]
pub(super) use peer::ENVELOPE_BYTES_TARGET;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use peer::WANTS_PER_PEER_MAX;
pub(super) use peer::{ENVELOPES_OUTSTANDING_MAX, Envelope};
pub(super) use peer::{OUTSTANDING_BYTES_ALL, OUTSTANDING_BYTES_MAX};

/// Every peer's wants.
#[derive(Debug)]
pub(super) struct Engine {
    policy: Arc<dyn Policy>,
    peers: HashMap<PeerId, Peer>,
    /// Wants for what we do not have, by content: `(name, who)`.
    absent: Absentees,
    /// Who `who` is, for as long as it is connected.
    numbers: HashMap<u64, PeerId>,
    next_number: u64,
    /// Peers with tasks and room for them, whose turn it is at the front.
    ready: BTreeMap<Turn, PeerId>,
    /// The virtual time: where whoever had the last turn began it.
    clock: u64,
    next_turn: u64,
    /// What peers with tasks or with envelopes on their way weigh together.
    busy_weight: u64,
    /// Peers that were refused a block which was to be sent already.
    refused: BTreeSet<PeerId>,
    /// Peers with wants to be looked up.
    curious: VecDeque<PeerId>,
}

/// A virtual time, and the order of coming among those of one time.
type Turn = (u64, u64);

impl Default for Engine {
    fn default() -> Self {
        Self::new(Arc::new(ServeAll))
    }
}

impl Engine {
    /// Serves nobody yet, and later what `policy` lets it.
    pub(super) fn new(policy: Arc<dyn Policy>) -> Self {
        Self {
            policy,
            peers: HashMap::new(),
            absent: BTreeSet::new(),
            numbers: HashMap::new(),
            next_number: 0,
            ready: BTreeMap::new(),
            clock: 0,
            next_turn: 0,
            busy_weight: 0,
            refused: BTreeSet::new(),
            curious: VecDeque::new(),
        }
    }

    /// A peer is here.
    pub(super) fn connected(&mut self, peer: PeerId) {
        if self.peers.contains_key(&peer) {
            return;
        }
        self.next_number += 1;
        self.numbers.insert(self.next_number, peer);
        self.peers.insert(peer, Peer::new(self.next_number));
    }

    /// A peer is gone, and all that it wanted.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        if let Some(mut gone) = self.peers.remove(peer) {
            self.numbers.remove(&gone.number);
            gone.clear(&mut self.absent);
            if let Some(turn) = gone.turn {
                self.ready.remove(&turn);
            }
            self.busy_weight -= gone.counted_weight;
            self.refused.remove(peer);
            self.curious.retain(|other| other != peer);
        }
    }

    /// A peer's want list, or a change of it.
    pub(super) fn wants(&mut self, peer: PeerId, scope: Scope, entries: &[Entry]) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if scope == Scope::Whole {
            state.clear(&mut self.absent);
        }
        for entry in entries {
            // Whoever can name an identity CID has its block.
            if cid::is_identity(&entry.cid) {
                continue;
            }
            let name = Key::name(&entry.cid);
            match entry.change {
                Change::Cancel => state.remove(&name, &mut self.absent),
                Change::Want {
                    priority,
                    kind,
                    absence,
                } => state.want(name, priority, kind, absence, &mut self.absent),
            }
        }
        self.offer(peer);
        self.look(peer);
    }

    /// What a peer has earned, from now on.
    pub(super) fn weigh(&mut self, peer: PeerId, weight: Weight) {
        if let Some(state) = self.peers.get_mut(&peer)
            && state.weight != weight
        {
            state.weight = weight;
            self.offer(peer);
        }
    }

    /// The next wants to be looked up in the store. Each peer has one such question open.
    pub(super) fn next_lookup(&mut self) -> Option<(PeerId, Vec<Cid>)> {
        while let Some(peer) = self.curious.pop_front() {
            let Some(state) = self.peers.get_mut(&peer) else {
                continue;
            };
            let count = state.unknown.len().min(LOOKUP_MAX);
            let cids: Vec<Cid> = state
                .unknown
                .drain(..count)
                .filter(|name| state.wants.contains_key(name))
                .filter_map(|name| name.cid())
                .collect();
            state.looking = !cids.is_empty();
            if state.looking {
                return Some((peer, cids));
            }
            self.look(peer);
        }
        None
    }

    /// What the store says about wants: their sizes, or that it has none.
    pub(super) fn looked_up(&mut self, peer: PeerId, found: &[(Cid, Option<u64>)]) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.looking = false;
        for (cid, bytes) in found {
            let bytes = bytes.filter(|_| self.policy.decide(&peer, cid) == Verdict::Serve);
            state.found(cid, bytes, &mut self.absent);
        }
        self.offer(peer);
        self.look(peer);
    }

    /// Blocks are new in the store: whoever waits for them gets them.
    pub(super) fn arrived(&mut self, blocks: &[(Cid, u64)]) {
        for (cid, bytes) in blocks {
            let content = Key::content(cid);
            let waiting: Vec<(Key, u64)> = self
                .absent
                .range((content.clone(), 0)..)
                .take_while(|(name, _)| name.names(&content))
                .cloned()
                .collect();
            for (name, number) in waiting {
                let (Some(cid), Some(peer)) = (name.cid(), self.numbers.get(&number).copied())
                else {
                    continue;
                };
                if self.policy.decide(&peer, &cid) == Verdict::Refuse {
                    continue; // It stays absent.
                }
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.found(&cid, Some(*bytes), &mut self.absent);
                }
                self.offer(peer);
            }
        }
    }

    /// The next blocks to be sent, if anybody may get any.
    pub(super) fn next_envelope(&mut self) -> Option<Envelope> {
        while let Some((turn, peer)) = self.ready.pop_first() {
            let Some(state) = self.peers.get_mut(&peer) else {
                continue;
            };
            state.turn = None;
            if !state.has_room(self.busy_weight) {
                continue; // `sent` brings it back.
            }
            let before = state.presences.len();
            let envelope = state.pack(peer, self.policy.as_ref());
            if state.presences.len() > before {
                self.refused.insert(peer);
            }
            if let Some(envelope) = &envelope {
                (self.clock, _) = turn;
                state.charge(envelope);
            }
            self.offer(peer);
            if envelope.is_some() {
                return envelope;
            }
        }
        None
    }

    /// An envelope has left, or never will.
    pub(super) fn sent(&mut self, peer: PeerId, bytes: u64) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.outstanding = state.outstanding.saturating_sub(bytes);
            self.offer(peer);
        }
    }

    /// A block that was to be sent has gone from the store.
    pub(super) fn missing(&mut self, peer: PeerId, cid: Cid, absence: Absence) {
        if let (Some(state), Absence::Tell) = (self.peers.get_mut(&peer), absence) {
            state.tell(Key::name(&cid), PresenceKind::DontHave);
        }
    }

    /// Peers that have something to be told since envelopes were packed.
    pub(super) fn refused(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.refused)
    }

    /// What a peer wants of us.
    pub(super) fn wantlist(&self, peer: &PeerId) -> Vec<Cid> {
        self.peers.get(peer).map_or_else(Vec::new, |state| {
            state.wants.keys().filter_map(Key::cid).collect()
        })
    }

    /// Presences to be told to a peer, at most `max`.
    pub(super) fn take_presences(&mut self, peer: &PeerId, max: usize) -> Vec<Presence> {
        self.peers.get_mut(peer).map_or_else(Vec::new, |state| {
            let count = state.presences.len().min(max);
            let taken = state.presences.drain(..count);
            taken
                .filter_map(|(name, kind)| {
                    let cid = name.cid()?;
                    Some(Presence { cid, kind })
                })
                .collect()
        })
    }

    /// Whether there is anything for [`Engine::take_presences`].
    pub(super) fn has_presences(&self, peer: &PeerId) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|state| !state.presences.is_empty())
    }

    /// How many wants all peers have here, and how many bytes are under way to them.
    pub(super) fn held(&self) -> (usize, u64) {
        let peers = self.peers.values();
        peers.fold((0, 0), |(wants, bytes), peer| {
            (wants + peer.wants.len(), bytes + peer.outstanding)
        })
    }

    /// How many wants a peer has here.
    #[cfg(test)]
    pub(super) fn wants_of(&self, peer: &PeerId) -> usize {
        self.peers.get(peer).map_or(0, |state| state.wants.len())
    }

    /// The absent wants of the next peers are looked up again, at most `max` in all: blocks that
    /// were added here by other ways than through us are found so.
    pub(super) fn recheck(&mut self, peer: &PeerId, max: usize) -> usize {
        let Some(state) = self.peers.get_mut(peer) else {
            return 0;
        };
        if state.looking || !state.unknown.is_empty() {
            return 0;
        }
        let names: Vec<Key> = state.absences.values().take(max).cloned().collect();
        let count = names.len();
        state.unknown.extend(names);
        self.look(*peer);
        count
    }

    fn look(&mut self, peer: PeerId) {
        if let Some(state) = self.peers.get(&peer)
            && !state.looking
            && !state.unknown.is_empty()
            && !self.curious.contains(&peer)
        {
            self.curious.push_back(peer);
        }
    }

    /// Gives a peer its turn if there is something for it, and counts it as busy or not.
    fn offer(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let is_busy = state.outstanding > 0 || !state.tasks.is_empty();
        let weight = if is_busy { state.weight.percent() } else { 0 };
        self.busy_weight = self.busy_weight - state.counted_weight + weight;
        state.counted_weight = weight;
        if state.turn.is_none() && !state.tasks.is_empty() && state.has_room(self.busy_weight) {
            // Nobody saves up turns in which it had nothing to be sent.
            state.served = state.served.max(self.clock);
            self.next_turn += 1;
            let turn = (state.served, self.next_turn);
            state.turn = Some(turn);
            self.ready.insert(turn, peer);
        }
    }
}

/// Wants of one peer in one look into the store.
const LOOKUP_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::peer::{
        ENVELOPE_BYTES_COUNTED_MIN, HAVE_AS_BLOCK_BYTES_MAX, PRESENCES_PER_PEER_MAX,
    };
    use super::*;
    use crate::bitswap::message::WantKind;
    use cairn_store::cid::{Multihash, RAW};

    fn cid(number: u64) -> Cid {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Cid::new_v1(RAW, Multihash::wrap(0x12, &digest).unwrap())
    }

    pub(super) fn entry(number: u64, kind: WantKind) -> Entry {
        prioritised(number, kind, 1)
    }

    fn prioritised(number: u64, kind: WantKind, priority: i32) -> Entry {
        Entry {
            cid: cid(number),
            change: Change::Want {
                priority,
                kind,
                absence: Absence::Tell,
            },
        }
    }

    pub(super) fn cancel(number: u64) -> Entry {
        Entry {
            cid: cid(number),
            change: Change::Cancel,
        }
    }

    /// Answers every lookup: blocks below `have` are here, `bytes` each.
    pub(super) fn look_up(engine: &mut Engine, have: u64, bytes: u64) {
        while let Some((peer, cids)) = engine.next_lookup() {
            let found: Vec<_> = cids
                .into_iter()
                .map(|asked| {
                    let here = (0..have).any(|number| cid(number) == asked);
                    (asked, here.then_some(bytes))
                })
                .collect();
            engine.looked_up(peer, &found);
        }
    }

    fn connected() -> (Engine, PeerId) {
        let (mut engine, peer) = (Engine::default(), PeerId::random());
        engine.connected(peer);
        (engine, peer)
    }

    fn kinds(presences: &[Presence]) -> Vec<PresenceKind> {
        presences.iter().map(|presence| presence.kind).collect()
    }

    #[test]
    fn answers_want_have_with_have_or_with_a_small_block() {
        let (mut engine, peer) = connected();
        engine.wants(peer, Scope::Change, &[entry(0, WantKind::Have)]);
        look_up(&mut engine, 1, HAVE_AS_BLOCK_BYTES_MAX + 1);
        assert_eq!(engine.next_envelope(), None);
        assert_eq!(
            kinds(&engine.take_presences(&peer, 9)),
            [PresenceKind::Have]
        );
        engine.wants(peer, Scope::Change, &[entry(0, WantKind::Have)]);
        look_up(&mut engine, 1, HAVE_AS_BLOCK_BYTES_MAX);
        assert_eq!(engine.next_envelope().unwrap().blocks.len(), 1);
        assert!(!engine.has_presences(&peer));
    }

    #[test]
    fn says_once_that_a_block_is_absent_and_sends_it_when_it_arrives() {
        let (mut engine, peer) = connected();
        engine.wants(peer, Scope::Change, &[entry(7, WantKind::Block)]);
        look_up(&mut engine, 0, 0);
        assert_eq!(
            kinds(&engine.take_presences(&peer, 9)),
            [PresenceKind::DontHave]
        );
        assert_eq!(engine.recheck(&peer, 100), 1);
        look_up(&mut engine, 0, 0);
        assert!(!engine.has_presences(&peer));
        // The same content under another name.
        let other = Cid::new_v1(cid::DAG_PB, *cid(7).hash());
        engine.arrived(&[(other, 5000)]);
        assert_eq!(
            engine.next_envelope().unwrap().blocks,
            [(cid(7), Absence::Tell)]
        );
        assert!(engine.absent.is_empty());
        assert_eq!(engine.wants_of(&peer), 0);
    }

    #[test]
    fn a_block_added_behind_our_back_is_found_by_looking_again() {
        let (mut engine, peer) = connected();
        engine.wants(peer, Scope::Change, &[entry(3, WantKind::Block)]);
        look_up(&mut engine, 0, 0);
        engine.recheck(&peer, 100);
        look_up(&mut engine, 9, 5000);
        assert_eq!(engine.next_envelope().unwrap().blocks.len(), 1);
    }

    #[test]
    fn envelopes_are_of_the_target_size_and_a_block_of_the_limit_still_goes() {
        let (mut engine, peer) = connected();
        let wants: Vec<_> = (0..10).map(|at| entry(at, WantKind::Block)).collect();
        engine.wants(peer, Scope::Change, &wants);
        look_up(&mut engine, 10, 400_000);
        assert_eq!(engine.next_envelope().unwrap().blocks.len(), 2);
        let (mut engine, peer) = connected();
        engine.wants(peer, Scope::Change, &wants);
        look_up(&mut engine, 10, 2 << 20);
        assert_eq!(engine.next_envelope().unwrap().blocks.len(), 1);
    }

    #[test]
    fn a_peer_that_takes_nothing_gets_no_more_and_holds_nobody_up() {
        let (mut engine, stuck) = connected();
        let other = PeerId::random();
        engine.connected(other);
        let wants: Vec<_> = (0..200).map(|at| entry(at, WantKind::Block)).collect();
        engine.wants(stuck, Scope::Change, &wants);
        engine.wants(other, Scope::Change, &wants);
        look_up(&mut engine, 200, 256 << 10);
        let (mut to_stuck, mut to_other) = (0, 0);
        while let Some(envelope) = engine.next_envelope() {
            if envelope.peer == stuck {
                to_stuck += envelope.bytes;
            } else {
                to_other += envelope.bytes;
                engine.sent(other, envelope.bytes);
            }
        }
        assert_eq!(to_stuck, OUTSTANDING_BYTES_MAX);
        assert_eq!(to_other, 200 * (256 << 10));
        engine.sent(stuck, to_stuck);
        assert_eq!(engine.next_envelope().unwrap().peer, stuck);
    }

    #[test]
    fn small_envelopes_on_their_way_are_no_more_than_a_lane_holds() {
        let (mut engine, peer) = connected();
        let mut packed = 0;
        for at in 0..200 {
            engine.wants(peer, Scope::Change, &[entry(at, WantKind::Block)]);
            look_up(&mut engine, 200, ENVELOPE_BYTES_COUNTED_MIN);
            packed += u64::from(engine.next_envelope().is_some());
        }
        assert_eq!(packed, ENVELOPES_OUTSTANDING_MAX);
    }

    #[test]
    fn little_waits_for_more_while_an_envelope_is_on_its_way() {
        let (mut engine, peer) = connected();
        for at in 0..50 {
            engine.wants(peer, Scope::Change, &[entry(at, WantKind::Block)]);
            look_up(&mut engine, 50, 1000);
            let count = engine
                .next_envelope()
                .map_or(0, |envelope| envelope.blocks.len());
            assert_eq!(count, usize::from(at == 0));
        }
        engine.wants(peer, Scope::Change, &[cancel(49)]);
        engine.sent(peer, ENVELOPE_BYTES_COUNTED_MIN);
        assert_eq!(engine.next_envelope().unwrap().blocks.len(), 48);
        // As much as is worth a message does not wait.
        for at in 50..200 {
            engine.wants(peer, Scope::Change, &[entry(at, WantKind::Block)]);
        }
        look_up(&mut engine, 200, 1000);
        assert_eq!(engine.next_envelope().unwrap().blocks.len(), 150);
        assert_eq!(engine.peers[&peer].queued, 0);
    }

    #[test]
    fn nobody_waits_for_more_than_one_envelope_of_each_other() {
        let mut engine = Engine::default();
        let peers: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
        for (at, peer) in peers.iter().enumerate() {
            engine.connected(*peer);
            // The first is greedy, the last wants one small block.
            let count = if at == 4 { 1 } else { 1000 };
            let wants: Vec<_> = (0..count)
                .map(|at| prioritised(at, WantKind::Block, i32::MAX - 1))
                .collect();
            engine.wants(*peer, Scope::Change, &wants);
            look_up(&mut engine, 1000, 100_000);
        }
        let first: Vec<_> = (0..5)
            .map(|_| engine.next_envelope().unwrap().peer)
            .collect();
        assert_eq!(first, peers);
    }

    #[test]
    fn higher_priority_first_then_in_the_order_of_asking() {
        let (mut engine, peer) = connected();
        let wants = [
            prioritised(0, WantKind::Block, 1),
            prioritised(1, WantKind::Block, 5),
            prioritised(2, WantKind::Block, 5),
        ];
        engine.wants(peer, Scope::Change, &wants);
        look_up(&mut engine, 3, 10);
        let order: Vec<_> = engine.next_envelope().unwrap().blocks;
        assert_eq!(
            order.iter().map(|(cid, _)| *cid).collect::<Vec<_>>(),
            [cid(1), cid(2), cid(0)]
        );
    }

    #[test]
    fn keeps_1024_wants_and_prefers_those_it_can_serve() {
        let (mut engine, peer) = connected();
        let flood: Vec<_> = (0..5000).map(|at| entry(at, WantKind::Block)).collect();
        engine.wants(peer, Scope::Whole, &flood);
        assert_eq!(engine.wants_of(&peer), WANTS_PER_PEER_MAX);
        look_up(&mut engine, 0, 0);
        assert_eq!(engine.absent.len(), WANTS_PER_PEER_MAX);
        engine.wants(peer, Scope::Change, &[entry(9000, WantKind::Block)]);
        assert_eq!(engine.wants_of(&peer), WANTS_PER_PEER_MAX);
        assert_eq!(engine.absent.len(), WANTS_PER_PEER_MAX - 1);
        for at in 0..10_000 {
            engine.wants(
                peer,
                Scope::Change,
                &[entry(at, WantKind::Have), cancel(at)],
            );
        }
        assert!(engine.peers[&peer].unknown.len() <= 2 * WANTS_PER_PEER_MAX);
        assert!(engine.peers[&peer].presences.len() <= PRESENCES_PER_PEER_MAX);
        engine.disconnected(&peer);
        assert!(engine.absent.is_empty() && engine.numbers.is_empty());
    }

    #[test]
    fn cancelled_wants_are_not_served_and_a_full_list_replaces_the_one_before() {
        let (mut engine, peer) = connected();
        let wants: Vec<_> = (0..4).map(|at| entry(at, WantKind::Block)).collect();
        engine.wants(peer, Scope::Change, &wants);
        look_up(&mut engine, 4, 5000);
        engine.wants(peer, Scope::Change, &[cancel(0), cancel(1)]);
        let left = engine.next_envelope().unwrap();
        assert_eq!(left.blocks.len(), 2);
        engine.sent(peer, left.bytes);
        engine.wants(peer, Scope::Change, &wants);
        look_up(&mut engine, 4, 5000);
        engine.wants(peer, Scope::Whole, &wants[3..]);
        look_up(&mut engine, 4, 5000);
        assert_eq!(
            engine.next_envelope().unwrap().blocks,
            [(cid(3), Absence::Tell)]
        );
        assert_eq!(engine.next_envelope(), None);
    }

    #[test]
    fn a_want_that_was_being_looked_up_when_cancelled_is_forgotten() {
        let (mut engine, peer) = connected();
        engine.wants(peer, Scope::Change, &[entry(0, WantKind::Block)]);
        let (_, cids) = engine.next_lookup().unwrap();
        engine.wants(peer, Scope::Change, &[cancel(0)]);
        engine.looked_up(peer, &[(cids[0], Some(9))]);
        assert_eq!(engine.next_envelope(), None);
        assert_eq!(engine.next_lookup(), None);
    }

    /// Refuses what it is told to, and changes its mind.
    #[derive(Debug, Default)]
    struct Moody(std::sync::Mutex<Vec<(PeerId, Cid)>>);

    impl Policy for Moody {
        fn decide(&self, peer: &PeerId, cid: &Cid) -> Verdict {
            match self.0.lock().unwrap().contains(&(*peer, *cid)) {
                true => Verdict::Refuse,
                false => Verdict::Serve,
            }
        }
    }

    #[test]
    fn what_is_refused_is_absent_whenever_it_comes() {
        let policy = Arc::new(Moody::default());
        let mut engine = Engine::new(Arc::clone(&policy) as Arc<dyn Policy>);
        let (denied, other) = (PeerId::random(), PeerId::random());
        policy.0.lock().unwrap().push((denied, cid(0)));
        let dont_have = [PresenceKind::DontHave];
        for kind in [WantKind::Block, WantKind::Have] {
            for peer in [denied, other] {
                engine.connected(peer);
                engine.wants(peer, Scope::Change, &[entry(0, kind)]);
            }
            // It is not here yet.
            look_up(&mut engine, 0, 0);
            for peer in [denied, other] {
                assert_eq!(kinds(&engine.take_presences(&peer, 9)), dont_have);
            }
            engine.arrived(&[(cid(0), 900)]);
            assert_eq!(engine.next_envelope().unwrap().peer, other);
            assert_eq!(engine.next_envelope(), None);
            // It is found by looking again, and stays refused.
            assert_eq!(engine.recheck(&denied, 9), 1);
            look_up(&mut engine, 1, 900);
            assert_eq!(engine.next_envelope(), None);
            assert!(!engine.has_presences(&denied), "said once");
            for peer in [denied, other] {
                engine.disconnected(&peer);
            }
        }
        // It is here already.
        engine.connected(denied);
        let wants = [entry(0, WantKind::Block), entry(1, WantKind::Block)];
        engine.wants(denied, Scope::Change, &wants);
        look_up(&mut engine, 2, 5000);
        assert_eq!(kinds(&engine.take_presences(&denied, 9)), dont_have);
        let sent = engine.next_envelope().unwrap().blocks;
        assert_eq!(sent, [(cid(1), Absence::Tell)]);
    }

    #[test]
    fn what_is_refused_between_the_look_and_the_envelope_does_not_leave() {
        let policy = Arc::new(Moody::default());
        let mut engine = Engine::new(Arc::clone(&policy) as Arc<dyn Policy>);
        let peer = PeerId::random();
        engine.connected(peer);
        engine.wants(peer, Scope::Change, &[entry(0, WantKind::Block)]);
        look_up(&mut engine, 1, 5000);
        policy.0.lock().unwrap().push((peer, cid(0)));
        assert_eq!(engine.next_envelope(), None);
        assert_eq!(engine.refused(), BTreeSet::from([peer]));
        assert_eq!(
            kinds(&engine.take_presences(&peer, 9)),
            [PresenceKind::DontHave]
        );
    }

    #[test]
    fn a_peers_wants_are_told_by_name() {
        let (mut engine, peer) = connected();
        let wants = [entry(3, WantKind::Block), entry(4, WantKind::Have)];
        engine.wants(peer, Scope::Change, &wants);
        assert_eq!(engine.wantlist(&peer), [cid(3), cid(4)]);
        assert!(engine.wantlist(&PeerId::random()).is_empty());
    }
}
