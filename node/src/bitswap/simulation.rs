//! Client and engine against each other, in simulated time: many nodes, a queue of messages, a
//! clock that jumps to the next thing that happens. Nothing here waits.

use super::client::{Action, Client, Received, Speaks, TICK, Tried};
use super::engine::Engine;
use super::key::Key;
use super::message::{Message, Payload, Presence, PresenceKind, prefix_of};
use super::session::SessionId;
use bytes::Bytes;
use cairn_store::block::Prefix;
use cairn_store::cid::{HashKind, RAW, Version};
use cairn_store::{Block, Cid};
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

mod sharing;

const IDLE: Duration = Duration::from_secs(30);
const LATENCY: Duration = Duration::from_millis(20);
/// A gigabit.
const FAST: u64 = 125_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Says that it has everything and sends nothing.
    Liar,
    /// Answers every want with bytes that were not asked for.
    Forger,
    /// Knows no presences: sends what it has, says nothing else.
    Old,
    /// Sends a few blocks, then none, and says again and again that it has them.
    Turncoat,
    /// Says that it has everything, leaves when it is to send something, and comes back.
    Dropper,
}

struct Node {
    id: PeerId,
    client: Client,
    engine: Engine,
    known: BTreeSet<PeerId>,
    store: HashMap<Key, (Cid, Bytes)>,
    manner: Manner,
    uplink: Uplink,
    /// How much longer than [`LATENCY`] it is away.
    lag: Duration,
    served: usize,
    wants_heard: usize,
    duplicates: usize,
    actions: Vec<Action>,
}

/// What one node sends: a piece to each in turn, as one link with many connections does.
struct Uplink {
    bytes_a_second: u64,
    queues: BTreeMap<usize, VecDeque<Sending>>,
    is_sending: bool,
    /// Who got the last piece.
    turn: usize,
    /// When each got its last.
    sent_at: BTreeMap<usize, Instant>,
}

struct Sending {
    message: Message,
    counted: u64,
    left: u64,
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            bytes_a_second: FAST,
            queues: BTreeMap::new(),
            is_sending: false,
            turn: 0,
            sent_at: BTreeMap::new(),
        }
    }
}

impl Uplink {
    fn next(&self) -> Option<usize> {
        let mut later = self.queues.range(self.turn + 1..);
        let next = later.next().or_else(|| self.queues.first_key_value());
        next.map(|(to, _)| *to)
    }

    fn next_piece(&self) -> Option<u64> {
        Some(self.queues[&self.next()?].front()?.left.min(PIECE_BYTES))
    }

    /// To whom it was, and what is sent whole now.
    fn sent_piece(&mut self, now: Instant) -> Option<(usize, Option<Sending>)> {
        let to = self.next()?;
        self.turn = to;
        self.sent_at.insert(to, now);
        let queue = self.queues.get_mut(&to)?;
        let first = queue.front_mut()?;
        first.left -= first.left.min(PIECE_BYTES);
        let sent = if first.left == 0 {
            queue.pop_front()
        } else {
            None
        };
        if queue.is_empty() {
            self.queues.remove(&to);
        }
        Some((to, sent))
    }
}

struct Net {
    nodes: Vec<Node>,
    mail: BTreeMap<(Instant, u64), (usize, usize, Message, u64)>,
    /// When whose uplink has sent a piece.
    pieces: BTreeSet<(Instant, usize)>,
    /// What each byte of a block counts as: work of gigabytes need not have them.
    weight: u64,
    next: u64,
    now: Instant,
    tick_at: Instant,
    start: Instant,
    /// Who dropped its connection, and when it comes back.
    dropped: Vec<(Instant, usize)>,
}

/// Blocks that a turncoat sends.
const TURNCOAT_SERVES: usize = 2;
/// How long a dropper stays away.
const DROPPED: Duration = Duration::from_millis(500);
/// What a link sends to one before it is another's turn.
const PIECE_BYTES: u64 = 64 << 10;
const ME: usize = 0;
const WORK: SessionId = SessionId(1);

impl Net {
    /// Node 0 fetches from the others; all are connected to it.
    fn new(others: usize) -> Self {
        let now = Instant::now();
        let nodes: Vec<Node> = (0..=others)
            .map(|_| PeerId::random())
            .map(|id| Node {
                id,
                client: Client::default().known_as(&id),
                engine: Engine::default(),
                known: BTreeSet::new(),
                store: HashMap::new(),
                manner: Manner::Honest,
                uplink: Uplink::default(),
                lag: Duration::ZERO,
                served: 0,
                wants_heard: 0,
                duplicates: 0,
                actions: Vec::new(),
            })
            .collect();
        let mut net = Self {
            nodes,
            mail: BTreeMap::new(),
            pieces: BTreeSet::new(),
            weight: 1,
            next: 0,
            now,
            tick_at: now + TICK,
            start: now,
            dropped: Vec::new(),
        };
        for other in 1..=others {
            net.connect(other);
        }
        net.nodes[ME].client.open(WORK, IDLE, now);
        net
    }

    fn connect(&mut self, other: usize) {
        self.introduce(ME, other);
    }

    fn introduce(&mut self, one: usize, other: usize) {
        let (mine, theirs) = (self.nodes[one].id, self.nodes[other].id);
        self.nodes[one].known.insert(theirs);
        self.nodes[other].known.insert(mine);
        self.nodes[one].client.connected(theirs, self.now);
        self.nodes[one].engine.connected(theirs);
        self.nodes[other].client.connected(mine, self.now);
        self.nodes[other].engine.connected(mine);
        if self.nodes[other].manner == Manner::Old {
            self.nodes[one].client.speaks(&theirs, Speaks::Blocks);
        }
    }

    fn disconnect(&mut self, other: usize) {
        let (mine, theirs) = (self.nodes[ME].id, self.nodes[other].id);
        self.nodes[ME].client.disconnected(&theirs);
        self.nodes[ME].engine.disconnected(&theirs);
        self.nodes[other].engine.disconnected(&mine);
        self.mail
            .retain(|_, (from, to, ..)| *from != other && *to != other);
        self.nodes[other].uplink.queues.clear();
        self.nodes[ME].uplink.queues.remove(&other);
    }

    fn give(&mut self, other: usize, blocks: &[(Cid, Bytes)]) {
        for (cid, data) in blocks {
            self.nodes[other]
                .store
                .insert(Key::content(cid), (*cid, data.clone()));
        }
    }

    fn want(&mut self, blocks: &[(Cid, Bytes)]) {
        for (cid, _) in blocks {
            self.nodes[ME].client.want(WORK, *cid, self.now);
        }
    }

    /// Words do not wait behind blocks.
    fn post(&mut self, from: usize, to: usize, message: Message, counted: u64) {
        let bytes = |block: &Payload| block.data.len() as u64 * self.weight;
        let left: u64 = message.blocks.iter().map(bytes).sum();
        if left == 0 {
            return self.arrives(from, to, message, counted);
        }
        let sending = Sending {
            message,
            counted,
            left,
        };
        let uplink = &mut self.nodes[from].uplink;
        uplink.queues.entry(to).or_default().push_back(sending);
        if !uplink.is_sending {
            self.send_piece(from);
        }
    }

    fn arrives(&mut self, from: usize, to: usize, message: Message, counted: u64) {
        let latency = LATENCY + self.nodes[from].lag + self.nodes[to].lag;
        self.next += 1;
        self.mail.insert(
            (self.now + latency, self.next),
            (from, to, message, counted),
        );
    }

    fn send_piece(&mut self, from: usize) {
        let uplink = &mut self.nodes[from].uplink;
        let next = uplink.next_piece();
        uplink.is_sending = next.is_some();
        if let Some(bytes) = next {
            let takes = Duration::from_nanos(bytes * 1_000_000_000 / uplink.bytes_a_second);
            self.pieces.insert((self.now + takes, from));
        }
    }

    fn piece_is_sent(&mut self, from: usize) {
        if let Some((to, sent)) = self.nodes[from].uplink.sent_piece(self.now)
            && let Some(Sending {
                message, counted, ..
            }) = sent
        {
            self.arrives(from, to, message, counted);
        }
        self.send_piece(from);
    }

    fn index(&self, id: &PeerId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).unwrap()
    }

    /// Lets every node do what it can do now.
    fn settle(&mut self) {
        for at in 0..self.nodes.len() {
            let now = self.now;
            let node = &mut self.nodes[at];
            node.client.settle(now);
            while let Some(action) = node.client.poll() {
                node.actions.push(action);
            }
            let manner = node.manner;
            while let Some((peer, cids)) = node.engine.next_lookup() {
                let found: Vec<_> = cids
                    .into_iter()
                    .map(|cid| {
                        let here = node.store.get(&Key::content(&cid));
                        let size = here.map(|(_, data)| data.len() as u64 * self.weight);
                        match manner {
                            Manner::Liar | Manner::Forger | Manner::Dropper => (cid, Some(5000)),
                            _ => (cid, size),
                        }
                    })
                    .collect();
                node.engine.looked_up(peer, &found);
            }
            let mut out = Vec::new();
            let mut drops = false;
            let mut left = TURNCOAT_SERVES.saturating_sub(node.served);
            while let Some(envelope) = node.engine.next_envelope() {
                let blocks: Vec<Payload> = envelope
                    .blocks
                    .iter()
                    .filter_map(|(cid, _)| {
                        let prefix = prefix_of(cid).unwrap();
                        let data = match manner {
                            Manner::Liar => return None,
                            Manner::Dropper => {
                                drops = true;
                                return None;
                            }
                            Manner::Turncoat if left == 0 => return None,
                            Manner::Forger => Bytes::from(format!("forged {cid}")),
                            _ => node.store[&Key::content(cid)].1.clone(),
                        };
                        left = left.saturating_sub(1);
                        Some(Payload { prefix, data })
                    })
                    .collect();
                node.served += blocks.len();
                if !blocks.is_empty() {
                    let message = Message {
                        blocks,
                        ..Message::default()
                    };
                    out.push((envelope.peer, message, envelope.bytes));
                }
            }
            for peer in self.nodes[at].known.clone() {
                let node = &mut self.nodes[at];
                loop {
                    let mut message = Message {
                        wants: node.client.entries(&peer, 100),
                        presences: node.engine.take_presences(&peer, 100),
                        ..Message::default()
                    };
                    if manner == Manner::Old {
                        message.presences.clear();
                    }
                    if message.is_empty() {
                        break;
                    }
                    out.push((peer, message, 0));
                }
            }
            for (peer, message, counted) in out {
                let to = self.index(&peer);
                self.post(at, to, message, counted);
            }
            if drops {
                self.disconnect(at);
                self.dropped.push((now + DROPPED, at));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: &Message, counted: u64) {
        let (sender, now) = (self.nodes[from].id, self.now);
        let receiver = self.nodes[to].id;
        self.nodes[from].engine.sent(receiver, counted);
        let node = &mut self.nodes[to];
        node.wants_heard += message.wants.len();
        node.engine.wants(sender, message.scope, &message.wants);
        node.client.wanted_too(&sender, &message.wants, now);
        for presence in &message.presences {
            node.client
                .presence(&sender, &presence.cid, presence.kind, now);
        }
        for payload in &message.blocks {
            let block = Block::new(payload.prefix, payload.data.clone()).unwrap();
            let bytes = block.data().len() as u64 * self.weight;
            match node.client.block(&sender, block.cid(), bytes, now) {
                Received::Wanted(cid) => {
                    node.store
                        .insert(Key::content(&cid), (cid, block.data().clone()));
                    node.engine.arrived(&[(cid, bytes)]);
                }
                Received::Duplicate => node.duplicates += 1,
                Received::Wrong => {}
            }
        }
    }

    /// Whoever is being sent something sees the bytes come.
    fn flow(&mut self) {
        for from in 0..self.nodes.len() {
            let sender = self.nodes[from].id;
            let uplink = &self.nodes[from].uplink;
            let lately = |at: &Instant| self.now.saturating_duration_since(*at) <= TICK;
            let flowing = uplink.sent_at.iter().filter(|(_, at)| lately(at));
            let receivers: Vec<usize> = flowing.map(|(to, _)| *to).collect();
            for to in receivers {
                self.nodes[to].client.progress(&sender, self.now);
            }
        }
    }

    /// Sends pieces until something comes or a tick is due, and says when.
    fn next_event(&mut self) -> Instant {
        loop {
            let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
            let next = mail.map_or(self.tick_at, |at| at.min(self.tick_at));
            match self.pieces.first().copied() {
                Some((at, from)) if at <= next => {
                    self.pieces.pop_first();
                    self.now = at;
                    self.piece_is_sent(from);
                }
                _ => return next,
            }
        }
    }

    /// Goes on until `done`, for at most `limit`; true if it came to that.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            self.now = self.next_event();
            if self.now > end {
                return false;
            }
            if self.now >= self.tick_at {
                self.tick_at = self.now + TICK;
                self.flow();
                for node in &mut self.nodes {
                    node.client.tick(self.now);
                }
                self.promise_again();
                self.come_back();
            }
            while let Some(first) = self.mail.first_entry() {
                if first.key().0 > self.now {
                    break;
                }
                let (from, to, message, counted) = first.remove();
                self.deliver(from, to, &message, counted);
            }
        }
    }

    fn come_back(&mut self) {
        let now = self.now;
        let back: Vec<usize> = self
            .dropped
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, node)| node)
            .collect();
        for node in back {
            self.connect(node);
        }
    }

    /// Turncoats say what is of no use, and enough of it to look busy.
    fn promise_again(&mut self) {
        let wanted = self.nodes[ME].client.wantlist();
        for at in 1..self.nodes.len() {
            if self.nodes[at].manner != Manner::Turncoat {
                continue;
            }
            let have = |cid: &Cid| Presence {
                cid: *cid,
                kind: PresenceKind::Have,
            };
            let message = Message {
                presences: wanted.iter().take(20).map(have).collect(),
                ..Message::default()
            };
            self.post(at, ME, message, 0);
            let id = self.nodes[at].id;
            self.nodes[ME].client.progress(&id, self.now);
        }
    }

    fn has_all(&self, blocks: &[(Cid, Bytes)]) -> bool {
        blocks
            .iter()
            .all(|(cid, _)| self.nodes[ME].store.contains_key(&Key::content(cid)))
    }

    fn fetch(&mut self, blocks: &[(Cid, Bytes)]) -> Duration {
        let start = self.now;
        self.want(blocks);
        assert!(self.run_until(IDLE, |net| net.has_all(blocks)));
        self.now - start
    }

    fn searches(&self) -> usize {
        let searches = |action: &&Action| matches!(action, Action::Search { .. });
        self.nodes[ME].actions.iter().filter(searches).count()
    }

    fn given_up(&self) -> Vec<Tried> {
        let tried = |action: &Action| match action {
            Action::GiveUp { tried, .. } => Some(tried.clone()),
            _ => None,
        };
        self.nodes[ME].actions.iter().filter_map(tried).collect()
    }
}

fn blocks(count: usize, bytes: usize) -> Vec<(Cid, Bytes)> {
    let prefix = Prefix {
        version: Version::V1,
        codec: RAW,
        hash: HashKind::Sha2_256,
    };
    (0..count)
        .map(|at| {
            let mut data = vec![0; bytes];
            data[..8].copy_from_slice(&(at as u64).to_be_bytes());
            Block::new(prefix, Bytes::from(data)).unwrap().into_parts()
        })
        .collect()
}

#[test]
fn one_peer_gives_a_block_within_one_round_trip() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 100_000);
    net.give(1, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < LATENCY * 3, "{took:?}");
    assert_eq!(net.nodes[1].served, 1);
}

#[test]
fn of_several_peers_only_those_that_have_it_are_asked_for_the_block() {
    let mut net = Net::new(4);
    let wanted = blocks(1, 100_000);
    net.give(3, &wanted);
    net.give(4, &wanted);
    net.fetch(&wanted);
    let served: usize = net.nodes.iter().map(|node| node.served).sum();
    assert_eq!(served, 1);
    assert_eq!(net.nodes[ME].duplicates, 0);
}

#[test]
fn every_want_is_cancelled_where_it_was_asked() {
    let mut net = Net::new(5);
    let wanted = blocks(40, 50_000);
    net.give(1, &wanted);
    net.give(2, &wanted);
    net.fetch(&wanted);
    net.run_until(Duration::from_secs(1), |net| net.mail.is_empty());
    let me = net.nodes[ME].id;
    for node in &net.nodes[1..] {
        assert_eq!(node.engine.wants_of(&me), 0);
        assert_eq!(net.nodes[ME].client.wanted_of(&node.id), 0);
    }
}

#[test]
fn what_one_peer_lacks_another_gives() {
    let mut net = Net::new(3);
    let wanted = blocks(60, 20_000);
    net.give(1, &wanted[..30]);
    net.give(2, &wanted[30..]);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(net.searches(), 0);
}

#[test]
fn five_peers_share_the_work_without_doing_it_twice() {
    let mut net = Net::new(5);
    let wanted = blocks(400, 256 << 10);
    for other in 1..=5 {
        net.nodes[other].uplink.bytes_a_second = FAST / 5;
        net.give(other, &wanted);
    }
    let took = net.fetch(&wanted);
    for node in &net.nodes[1..] {
        assert!((40..160).contains(&node.served), "{}", node.served);
    }
    assert!(
        net.nodes[ME].duplicates <= 20,
        "{}",
        net.nodes[ME].duplicates
    );
    // 105 MB over five links of 25 MB/s.
    assert!(took < Duration::from_millis(1700), "{took:?}");
}

#[test]
fn one_peer_is_filled_as_fast_as_its_link() {
    let mut net = Net::new(1);
    let wanted = blocks(400, 256 << 10);
    net.give(1, &wanted);
    let took = net.fetch(&wanted);
    // 105 MB at 125 MB/s.
    assert!(took < Duration::from_millis(1300), "{took:?}");
    assert_eq!(net.nodes[1].served, 400);
}

#[test]
fn a_slow_peer_does_not_hold_a_fast_one_up() {
    let mut net = Net::new(2);
    let wanted = blocks(200, 256 << 10);
    net.nodes[1].uplink.bytes_a_second = 100_000;
    net.give(1, &wanted);
    net.give(2, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(net.nodes[1].served < 30, "{}", net.nodes[1].served);
}

#[test]
fn liars_who_say_have_and_stall_cost_little() {
    let mut net = Net::new(12);
    let wanted = blocks(200, 100_000);
    for other in 1..=10 {
        net.nodes[other].manner = Manner::Liar;
    }
    net.give(11, &wanted);
    net.give(12, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// How long a fetch takes among so many honest peers of 4 Mbit/s each, and others.
fn fetch_in_a_crowd(honest: usize, others: usize, manner: Manner) -> Duration {
    let mut net = Net::new(honest + others);
    let wanted = blocks(600, 64 << 10);
    for at in 1..=honest + others {
        net.nodes[at].uplink.bytes_a_second = 500_000;
        // In between, so that the order says nothing.
        if at % 6 != 0 && others > 0 {
            net.nodes[at].manner = manner;
        }
        if matches!(net.nodes[at].manner, Manner::Honest | Manner::Turncoat) {
            net.give(at, &wanted);
        }
    }
    let start = net.now;
    net.want(&wanted);
    let done = net.run_until(IDLE, |net| net.has_all(&wanted));
    let held = net.nodes[ME].store.len();
    assert!(done, "{manner:?}: {held} came");
    net.now - start
}

#[test]
fn a_hundred_liars_among_120_peers_cost_less_than_half_as_much_again() {
    let honest_only = fetch_in_a_crowd(20, 0, Manner::Honest);
    for manner in [
        Manner::Liar,
        Manner::Forger,
        Manner::Turncoat,
        Manner::Dropper,
    ] {
        let took = fetch_in_a_crowd(20, 100, manner);
        assert!(
            took <= honest_only * 3 / 2,
            "{manner:?}: {took:?} of {honest_only:?}"
        );
    }
}

#[test]
fn who_delivered_once_and_only_talks_since_is_not_waited_for() {
    let mut net = Net::new(2);
    let wanted = blocks(20, 5000);
    net.nodes[1].manner = Manner::Turncoat;
    net.give(1, &wanted);
    net.disconnect(2);
    net.want(&wanted);
    let all_sent = |net: &Net| net.nodes[ME].store.len() == TURNCOAT_SERVES;
    assert!(net.run_until(IDLE, all_sent));
    net.run_until(Duration::from_secs(1), |_| false);
    // Everything has been asked of the first by then.
    net.give(2, &wanted);
    net.connect(2);
    assert!(net.run_until(Duration::from_secs(8), |net| net.has_all(&wanted)));
}

#[test]
fn who_talks_and_sends_nothing_does_not_keep_a_want_alive_for_ever() {
    let mut net = Net::new(1);
    let wanted = blocks(5, 5000);
    net.nodes[1].manner = Manner::Turncoat;
    net.give(1, &wanted);
    net.want(&wanted);
    let over = |net: &Net| net.given_up().len() == 5 - TURNCOAT_SERVES;
    assert!(net.run_until(Duration::from_secs(900), over));
}

#[test]
fn one_honest_peer_among_liars_is_found_before_the_first_liar_is_written_off() {
    let mut net = Net::new(12);
    let wanted = blocks(1, 100_000);
    for other in 1..=11 {
        net.nodes[other].manner = Manner::Liar;
    }
    net.give(12, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_peer_that_said_it_lacks_a_block_is_not_asked_for_it_again_at_once() {
    let mut net = Net::new(2);
    let wanted = blocks(10, 5000);
    net.want(&wanted);
    net.run_until(Duration::from_secs(8), |_| false);
    for node in &net.nodes[1..] {
        assert_eq!(node.wants_heard, wanted.len());
    }
}

#[test]
fn forged_blocks_are_not_taken_and_their_sender_is_left() {
    let mut net = Net::new(2);
    let wanted = blocks(100, 5000);
    net.nodes[1].manner = Manner::Forger;
    net.give(2, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(net.nodes[ME].store.len(), 100);
}

#[test]
fn an_answer_that_comes_after_many_others_is_late_and_no_lie() {
    let mut net = Net::new(2);
    let wanted = blocks(20_000, 16);
    for other in 1..=2 {
        net.nodes[other].manner = Manner::Old;
        let peer = net.nodes[other].id;
        net.nodes[ME].client.speaks(&peer, Speaks::Blocks);
    }
    // Both are asked for the first; one answers that and everything else, the other at the end.
    let (quick, late) = (net.nodes[1].id, net.nodes[2].id);
    let client = &mut net.nodes[ME].client;
    for (at, (cid, data)) in wanted.iter().enumerate() {
        client.want(WORK, *cid, net.now);
        client.settle(net.now);
        if at == 0 {
            assert_eq!(client.entries(&late, 10).len(), 1);
        }
        let got = client.block(&quick, cid, data.len() as u64, net.now);
        assert_eq!(got, Received::Wanted(*cid));
        client.entries(&quick, 10);
        client.entries(&late, 10);
    }
    let first = wanted[0].0;
    assert_eq!(
        client.block(&late, &first, 16, net.now),
        Received::Duplicate
    );
    assert_eq!(client.block(&quick, &first, 16, net.now), Received::Wrong);
}

#[test]
fn a_peer_that_forges_on_and_on_is_disconnected() {
    let mut net = Net::new(1);
    net.nodes[1].manner = Manner::Forger;
    net.want(&blocks(32, 5000));
    let forger = net.nodes[1].id;
    let left = |net: &Net| net.nodes[ME].actions.contains(&Action::Disconnect(forger));
    assert!(net.run_until(IDLE, left));
    assert!(net.nodes[ME].client.peers().is_empty());
}

#[test]
fn providers_are_looked_for_after_a_second_or_at_once_if_nobody_is_there() {
    let mut alone = Net::new(0);
    alone.want(&blocks(1, 10));
    assert!(alone.run_until(TICK * 2, |net| net.searches() == 1));
    let mut stalled = Net::new(2);
    stalled.nodes[1].manner = Manner::Old;
    let peer = stalled.nodes[1].id;
    stalled.nodes[ME].client.speaks(&peer, Speaks::Blocks);
    stalled.disconnect(2);
    stalled.want(&blocks(1, 10));
    assert!(!stalled.run_until(Duration::from_millis(900), |net| net.searches() > 0));
    assert!(stalled.run_until(Duration::from_millis(300), |net| net.searches() == 1));
}

#[test]
fn nobody_connected_having_it_is_reason_enough_to_search() {
    let mut net = Net::new(3);
    net.want(&blocks(1, 10));
    assert!(net.run_until(LATENCY * 2 + TICK * 2, |net| net.searches() == 1));
}

#[test]
fn a_provider_that_is_found_and_connects_is_asked() {
    let mut net = Net::new(2);
    let wanted = blocks(50, 20_000);
    net.give(2, &wanted);
    net.disconnect(2);
    net.want(&wanted);
    assert!(net.run_until(IDLE, |net| net.searches() == 1));
    let found = net.nodes[2].id;
    net.nodes[ME].client.provider(WORK, found);
    net.connect(2);
    assert!(net.run_until(Duration::from_secs(1), |net| net.has_all(&wanted)));
}

#[test]
fn gives_up_when_nothing_came_for_long_and_tells_what_was_tried() {
    let mut net = Net::new(2);
    let wanted = blocks(3, 10);
    net.give(1, &wanted[..1]);
    net.want(&wanted);
    let over = |net: &Net| net.given_up().len() == 2;
    assert!(!net.run_until(IDLE - TICK, over));
    assert!(net.run_until(Duration::from_secs(1), over));
    let tried = net.given_up().remove(0);
    assert_eq!((tried.connected, tried.said.asked), (2, 2));
    assert!(tried.said.want_haves >= 2, "{tried:?}");
    assert!(tried.said.dont_haves >= 2, "{tried:?}");
    assert_eq!((tried.said.haves, tried.sought.came), (0, 1), "{tried:?}");
    assert!(tried.sought.searches >= 1, "{tried:?}");
    assert!(net.nodes[ME].client.wantlist().is_empty());
}

#[test]
fn a_fetch_survives_the_disconnection_of_whom_it_asked() {
    let mut net = Net::new(2);
    let wanted = blocks(100, 256 << 10);
    net.give(1, &wanted);
    net.give(2, &wanted);
    net.want(&wanted);
    assert!(net.run_until(IDLE, |net| net.nodes[ME].store.len() > 20));
    net.disconnect(1);
    assert!(net.run_until(Duration::from_secs(2), |net| net.has_all(&wanted)));
}

#[test]
fn peers_without_presences_are_asked_for_blocks_and_not_waited_for() {
    let mut net = Net::new(3);
    let wanted = blocks(100, 20_000);
    for other in 1..=2 {
        net.nodes[other].manner = Manner::Old;
        let peer = net.nodes[other].id;
        net.nodes[ME].client.speaks(&peer, Speaks::Blocks);
    }
    net.give(1, &wanted[..50]);
    net.give(3, &wanted[50..]);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn two_sessions_that_want_one_block_make_one_request() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.give(1, &wanted);
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    net.want(&wanted);
    net.nodes[ME].client.want(other, wanted[0].0, net.now);
    // The same content under another name is the same want.
    let renamed = Cid::new_v1(0x70, *wanted[0].0.hash());
    net.nodes[ME].client.want(other, renamed, net.now);
    assert!(net.run_until(IDLE, |net| net.has_all(&wanted)));
    assert_eq!(net.nodes[1].served, 1);
    assert_eq!(net.nodes[1].wants_heard, 1);
}

#[test]
fn a_want_that_one_session_drops_goes_on_for_the_other() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.give(1, &wanted);
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    net.want(&wanted);
    net.nodes[ME].client.want(other, wanted[0].0, net.now);
    net.nodes[ME].client.close(WORK);
    assert!(net.run_until(IDLE, |net| net.has_all(&wanted)));
}

#[test]
fn a_dropped_want_is_cancelled() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.want(&wanted);
    let me = net.nodes[ME].id;
    assert!(net.run_until(IDLE, |net| net.nodes[1].engine.wants_of(&me) == 1));
    net.nodes[ME].client.close(WORK);
    assert!(net.run_until(IDLE, |net| net.nodes[1].engine.wants_of(&me) == 0));
    assert!(net.nodes[ME].client.wantlist().is_empty());
}

#[test]
fn a_block_that_a_peer_gets_later_is_pushed() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.want(&wanted);
    assert!(!net.run_until(Duration::from_secs(3), |net| net.has_all(&wanted)));
    net.give(1, &wanted);
    net.nodes[1].engine.arrived(&[(wanted[0].0, 5000)]);
    assert!(net.run_until(LATENCY * 2, |net| net.has_all(&wanted)));
}

#[test]
fn sessions_take_turns_at_a_busy_peer() {
    let mut net = Net::new(1);
    let (large, small) = (blocks(1000, 100_000), blocks(5, 64));
    net.nodes[1].uplink.bytes_a_second = 10_000_000;
    net.give(1, &large);
    net.give(1, &small);
    net.want(&large);
    assert!(net.run_until(IDLE, |net| net.nodes[ME].store.len() > 50));
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    for (cid, _) in &small {
        net.nodes[ME].client.want(other, *cid, net.now);
    }
    let start = net.now;
    assert!(net.run_until(IDLE, |net| net.has_all(&small)));
    let waited = net.now - start;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert!(!net.has_all(&large));
}

#[test]
fn presences_about_what_nobody_wants_are_ignored() {
    let mut net = Net::new(1);
    let peer = net.nodes[1].id;
    for (cid, _) in blocks(10, 10) {
        for kind in [PresenceKind::Have, PresenceKind::DontHave] {
            net.nodes[ME].client.presence(&peer, &cid, kind, net.now);
        }
    }
    assert!(!net.nodes[ME].client.has_entries(&peer));
    assert!(net.now == net.start);
}
