//! Sources: peers that are asked for one block at a time and never say what they have.
//!
//! What they are asked for is bounded by their window from the first block on, since they cannot be
//! asked for less. So where a want is broadcast, one source at most is asked for the block itself;
//! while all are busy, the want waits in its queue.

use super::placing::Choice;
use super::{BROADCAST_TO_NEW_MAX, Client, Peer, Release, Speaks};
use crate::bitswap::key::Key;
use crate::bitswap::message::WantKind;
use crate::bitswap::session::SessionId;
use crate::bitswap::wantlist::WantList;
use crate::explain::Step;
use crate::http::{REQUESTS_MAX, Standing};
use cairn_store::Cid;
use libp2p::PeerId;
use std::time::Instant;

/// How a source refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bitswap) enum Refusal {
    /// It does not have the block.
    Absent,
    /// It did not give the block.
    Failed,
}

impl Peer {
    /// How many blocks it may be asked for at once.
    pub(super) fn window(&self) -> usize {
        let window = self.ledger.window();
        match self.source {
            // More would only wait at its driver, where nobody else can have it.
            Some(_) => window.min(2 * REQUESTS_MAX),
            None => window,
        }
    }
}

impl Client {
    /// A source is here.
    pub(in crate::bitswap) fn source(&mut self, id: PeerId, standing: Standing, now: Instant) {
        let fresh = Peer {
            speaks: Speaks::Requests,
            source: Some(standing),
            ..Peer::new(now)
        };
        self.peers.entry(id).or_insert(fresh);
        self.offer(&id);
    }

    /// A source has something of this session's work, or says so.
    pub(in crate::bitswap) fn source_for(&mut self, session: SessionId, source: PeerId) {
        self.holds_some(session, source);
    }

    /// A source does not have a block, or failed to give it. It has forgotten that it was asked.
    pub(in crate::bitswap) fn refused(
        &mut self,
        id: &PeerId,
        cid: &Cid,
        how: Refusal,
        now: Instant,
    ) {
        let key = Key::content(cid);
        let Some(state) = self.peers.get_mut(id) else {
            return;
        };
        state.progress_at = now;
        state.list.forget(&key);
        state.in_flight.remove(&key);
        match how {
            Refusal::Failed => state.ledger.failed(),
            Refusal::Absent => {
                state.block_came(now);
                self.suspect(id, false);
            }
        }
        let Some(want) = self.wants.get_mut(&key) else {
            return;
        };
        want.told.remove(id);
        if want.watched {
            let peer = *id;
            let step = match how {
                Refusal::Absent => Step::Said { peer, has: false },
                Refusal::Failed => Step::Failed { peer },
            };
            self.told.push_back((key.clone(), step));
        }
        match how {
            Refusal::Absent => self.lacks(id, &key, now),
            Refusal::Failed => {
                want.asked.remove(id);
                want.absent.insert(*id);
                if !want.is_asked_for() {
                    self.enqueue(&key);
                    self.maybe_exhausted(&key, now);
                }
            }
        }
    }

    /// A source is to be left alone. It has forgotten all that it was asked for.
    pub(in crate::bitswap) fn rests(&mut self, id: &PeerId) {
        let Some(state) = self.peers.get_mut(id) else {
            return;
        };
        state.speaks = Speaks::Nothing;
        state.ledger.failed();
        state.list = WantList::default();
        self.tell_of(id, |peer| Step::Failed { peer });
        for want in self.wants.values_mut() {
            want.told.remove(id);
        }
        self.release(id, Release::Forget);
    }

    /// A source may be asked again.
    pub(in crate::bitswap) fn ready(&mut self, id: &PeerId) {
        let Some(state) = self.peers.get_mut(id) else {
            return;
        };
        if !state.ledger.is_hopeless() {
            state.speaks = Speaks::Requests;
            state.suspect = false;
            self.offer(id);
        }
    }

    /// The source that gave the most of this session's work, if no peer is known to have any of it.
    pub(in crate::bitswap) fn only_source(&self, session: SessionId) -> Option<PeerId> {
        let holders = &self.sessions.get(&session)?.holders;
        let known = |id: &PeerId| self.peers.get(id);
        let is_peer = |id: &PeerId| known(id).is_some_and(|peer| peer.source.is_none());
        if holders.keys().any(is_peer) {
            return None;
        }
        holders
            .iter()
            .filter(|(_, holder)| holder.delivered > 0)
            .filter(|(id, _)| known(id).is_some_and(|peer| peer.speaks == Speaks::Requests))
            .max_by_key(|(_, holder)| holder.delivered)
            .map(|(id, _)| *id)
    }

    /// How many sources may be asked now.
    pub(in crate::bitswap) fn sources(&self) -> usize {
        let ready = |peer: &&Peer| peer.speaks == Speaks::Requests;
        self.peers.values().filter(ready).count()
    }

    /// Has wants placed anew that nobody was asked for and this source may be.
    pub(super) fn offer(&mut self, id: &PeerId) {
        let to_all = self
            .peers
            .get(id)
            .is_some_and(|peer| peer.source == Some(Standing::Configured));
        let open: Vec<Key> = self
            .wants
            .iter()
            .filter(|(_, want)| !want.is_asked_for() && !want.queued)
            .map(|(key, _)| key.clone())
            .filter(|key| to_all || self.holds_for(id, key))
            .take(BROADCAST_TO_NEW_MAX)
            .collect();
        for key in open {
            self.enqueue(&key);
        }
    }

    /// The best source to ask for a block that nobody is known to have.
    pub(super) fn choose_source(&self, key: &Key) -> Choice {
        let Some(want) = self.wants.get(key) else {
            return Choice::Nobody;
        };
        let mut best: Option<((bool, bool, usize), PeerId)> = None;
        let mut busy = false;
        for (id, peer) in &self.peers {
            if peer.source != Some(Standing::Configured)
                || peer.speaks != Speaks::Requests
                || peer.suspect
                || want.absent.contains(id)
                || want.asked.get(id) == Some(&WantKind::Block)
            {
                continue;
            }
            let (used, window) = (peer.in_flight.len(), peer.window());
            if used >= window {
                busy = true;
                continue;
            }
            let rank = (
                !peer.ledger.is_proven(),
                peer.ledger.has_failed(),
                used.saturating_mul(1000) / window.max(1),
            );
            if best.is_none_or(|(other, _)| rank < other) {
                best = Some((rank, *id));
            }
        }
        match best {
            Some((_, source)) => Choice::Ask(source),
            None if busy => Choice::Wait,
            None => Choice::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::late::{HEDGE_PROVEN, REPEAT};
    use super::super::{Action, Received, TICK};
    use super::*;
    use crate::bitswap::message::{Change, PresenceKind};
    use cairn_store::cid;
    use cairn_store::cid::Multihash;
    use std::collections::HashSet;
    use std::time::Duration;

    const SESSION: SessionId = SessionId(1);
    const IDLE: Duration = Duration::from_secs(60);

    struct Bench {
        client: Client,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let mut client = Client::default();
            client.open(SESSION, IDLE, now);
            Self { client, now }
        }

        fn source(&mut self, standing: Standing) -> PeerId {
            let id = PeerId::random();
            self.client.source(id, standing, self.now);
            id
        }

        fn want(&mut self, numbers: std::ops::Range<u8>) {
            for number in numbers {
                self.client.want(SESSION, name(number), self.now);
            }
            self.client.settle(self.now);
        }

        /// What a peer is told to be wanted, since the last time.
        fn asked(&mut self, id: &PeerId) -> Vec<(Cid, WantKind)> {
            let lines = self.client.entries(id, 1000);
            lines
                .into_iter()
                .filter_map(|line| match line.change {
                    Change::Want { kind, .. } => Some((line.cid, kind)),
                    Change::Cancel => None,
                })
                .collect()
        }

        fn delivers(&mut self, id: &PeerId, cid: &Cid) {
            let received = self.client.block(id, cid, 1000, self.now);
            assert_eq!(received, Received::Wanted(*cid));
            self.client.settle(self.now);
        }

        fn refuses(&mut self, id: &PeerId, cid: &Cid, how: Refusal) {
            self.client.refused(id, cid, how, self.now);
            self.client.settle(self.now);
        }

        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += TICK;
                self.client.tick(self.now);
                self.client.settle(self.now);
            }
        }

        fn searches(&mut self) -> usize {
            std::iter::from_fn(|| self.client.poll())
                .filter(|action| matches!(action, Action::Search { .. }))
                .count()
        }
    }

    fn name(number: u8) -> Cid {
        let hash = Multihash::wrap(0x12, &[number; 32]).unwrap();
        Cid::new_v1(cid::RAW, hash)
    }

    #[test]
    fn one_source_is_asked_for_the_block_while_peers_are_asked_who_has_it() {
        let mut bench = Bench::new();
        let sources = [(); 3].map(|()| bench.source(Standing::Configured));
        let peer = PeerId::random();
        bench.client.connected(peer, bench.now);
        bench.want(0..1);
        let asked = sources.map(|source| bench.asked(&source));
        let all: Vec<_> = asked.concat();
        assert_eq!(all, [(name(0), WantKind::Block)]);
        assert_eq!(bench.asked(&peer), [(name(0), WantKind::Have)]);
        assert_eq!(bench.client.peers(), [peer], "a source is no peer");
        assert_eq!(bench.client.sources(), 3);
    }

    #[test]
    fn the_window_of_a_source_holds_from_the_first_block_on() {
        let mut bench = Bench::new();
        let source = bench.source(Standing::Configured);
        bench.want(0..100);
        let first = bench.asked(&source);
        assert_eq!(first.len(), 2);
        let mut most = 0;
        let mut came = HashSet::new();
        let mut under_way: Vec<Cid> = first.into_iter().map(|(cid, _)| cid).collect();
        while let Some(cid) = under_way.pop() {
            bench.delivers(&source, &cid);
            assert!(came.insert(cid));
            under_way.extend(bench.asked(&source).into_iter().map(|(cid, _)| cid));
            most = most.max(under_way.len());
        }
        assert_eq!((came.len(), most), (100, 2 * REQUESTS_MAX));
    }

    #[test]
    fn what_one_source_lacks_is_asked_of_the_next_and_then_searched_for() {
        for how in [Refusal::Absent, Refusal::Failed] {
            let mut bench = Bench::new();
            let sources = [(); 2].map(|()| bench.source(Standing::Configured));
            bench.want(0..1);
            let mut asked = 0;
            for _ in 0..2 {
                for source in sources {
                    if !bench.asked(&source).is_empty() {
                        asked += 1;
                        bench.refuses(&source, &name(0), how);
                    }
                }
            }
            assert_eq!(asked, 2);
            assert_eq!(bench.searches(), 0);
            bench.pass(TICK);
            assert_eq!(bench.searches(), 1, "nobody is left to be asked");
            // Later, when nobody had it, all are asked again, one at a time.
            bench.pass(REPEAT);
            let again: usize = sources
                .map(|source| bench.asked(&source).len())
                .iter()
                .sum();
            assert_eq!(again, 1);
        }
    }

    #[test]
    fn while_a_source_is_busy_a_peer_that_has_it_is_asked() {
        let mut bench = Bench::new();
        let source = bench.source(Standing::Configured);
        let peer = PeerId::random();
        bench.client.connected(peer, bench.now);
        bench.want(0..4);
        let (over_http, had) = (bench.asked(&source), bench.asked(&peer));
        assert_eq!((over_http.len(), had.len()), (2, 4));
        let waiting: Vec<Cid> = had
            .iter()
            .map(|(cid, _)| *cid)
            .filter(|cid| over_http.iter().all(|(asked, _)| asked != cid))
            .collect();
        for cid in &waiting {
            let now = bench.now;
            bench.client.presence(&peer, cid, PresenceKind::Have, now);
        }
        bench.client.settle(bench.now);
        let mut asked: Vec<Cid> = bench.asked(&peer).into_iter().map(|(cid, _)| cid).collect();
        let mut waiting = waiting;
        asked.sort();
        waiting.sort();
        assert_eq!(asked, waiting);
        assert!(bench.asked(&source).is_empty());
    }

    #[test]
    fn a_source_that_rests_is_not_asked_and_asked_anew_when_it_is_ready() {
        let mut bench = Bench::new();
        let source = bench.source(Standing::Configured);
        bench.want(0..2);
        assert_eq!(bench.asked(&source).len(), 2);
        bench.client.rests(&source);
        bench.client.settle(bench.now);
        assert!(bench.asked(&source).is_empty());
        assert_eq!(bench.client.sources(), 0);
        bench.pass(TICK);
        assert_eq!(bench.searches(), 1);
        bench.client.ready(&source);
        bench.client.settle(bench.now);
        let again = bench.asked(&source);
        assert_eq!(again.len(), 1, "whoever failed has to prove itself");
        bench.delivers(&source, &again[0].0);
        assert_eq!(bench.asked(&source).len(), 1);
    }

    #[test]
    fn a_source_that_is_late_is_asked_for_no_more_until_it_answers() {
        for standing in [Standing::Configured, Standing::Announced] {
            for is_there in [true, false] {
                let mut bench = Bench::new();
                let source = bench.source(standing);
                bench.client.provider(SESSION, source);
                bench.want(0..1);
                assert_eq!(bench.asked(&source).len(), 1);
                bench.delivers(&source, &name(0));
                bench.want(1..2);
                assert_eq!(bench.asked(&source), [(name(1), WantKind::Block)]);
                bench.pass(HEDGE_PROVEN + 2 * TICK);
                bench.want(2..3);
                assert!(bench.asked(&source).is_empty(), "it owes one");
                match is_there {
                    true => bench.delivers(&source, &name(1)),
                    false => bench.refuses(&source, &name(1), Refusal::Absent),
                }
                assert_eq!(bench.asked(&source), [(name(2), WantKind::Block)]);
            }
        }
    }

    #[test]
    fn an_announced_source_is_asked_for_the_work_it_was_found_for_only() {
        let mut bench = Bench::new();
        let other = SessionId(2);
        bench.client.open(other, IDLE, bench.now);
        bench.client.want(other, name(200), bench.now);
        bench.want(0..1);
        let source = bench.source(Standing::Announced);
        bench.client.settle(bench.now);
        assert!(bench.asked(&source).is_empty());
        bench.client.provider(SESSION, source);
        bench.client.settle(bench.now);
        assert_eq!(bench.asked(&source), [(name(0), WantKind::Block)]);
        bench.delivers(&source, &name(0));
        bench.want(1..2);
        assert_eq!(bench.asked(&source), [(name(1), WantKind::Block)]);
    }

    #[test]
    fn a_source_has_a_dag_alone_until_a_peer_says_that_it_has_some_too() {
        let mut bench = Bench::new();
        let source = bench.source(Standing::Configured);
        let peer = PeerId::random();
        bench.client.connected(peer, bench.now);
        assert_eq!(bench.client.only_source(SESSION), None);
        bench.want(0..1);
        bench.delivers(&source, &name(0));
        assert_eq!(bench.client.only_source(SESSION), Some(source));
        bench.want(1..2);
        let now = bench.now;
        bench
            .client
            .presence(&peer, &name(1), PresenceKind::Have, now);
        assert_eq!(bench.client.only_source(SESSION), None);
    }

    #[test]
    fn wrong_blocks_and_silence_send_its_wants_elsewhere() {
        let mut bench = Bench::new();
        let liar = bench.source(Standing::Configured);
        bench.want(0..1);
        assert_eq!(bench.asked(&liar).len(), 1);
        let honest = bench.source(Standing::Configured);
        let received = bench.client.block(&liar, &name(99), 1000, bench.now);
        assert_eq!(received, Received::Wrong);
        bench.client.settle(bench.now);
        assert_eq!(bench.asked(&honest).len(), 1);
        // Says nothing: the other is asked, whatever it did before.
        bench.client.ready(&liar);
        bench.pass(Duration::from_secs(3));
        bench.refuses(&honest, &name(0), Refusal::Absent);
        bench.pass(REPEAT);
        assert_eq!(bench.asked(&liar).len(), 1);
    }
}
