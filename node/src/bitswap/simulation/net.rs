//! Nodes of a client and an engine each, links that carry so much, a clock that jumps to the next thing
//! that happens.

use crate::bitswap::client::{Action, Client, Received, Speaks, TICK, Tried};
use crate::bitswap::engine::Engine;
use crate::bitswap::key::Key;
use crate::bitswap::message::{Message, Payload, Presence, PresenceKind, prefix_of};
use crate::bitswap::session::SessionId;
use bytes::Bytes;
use cairn_store::block::Prefix;
use cairn_store::cid::{HashKind, RAW, Version};
use cairn_store::{Block, Cid};
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

pub(super) const IDLE: Duration = Duration::from_secs(30);
/// What came within a tick where bytes flow.
const FLOWING_BYTES: u64 = 64 << 10;
pub(super) const LATENCY: Duration = Duration::from_millis(20);
/// A gigabit.
pub(super) const FAST: u64 = 125_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
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

pub(super) struct Node {
    pub(super) id: PeerId,
    pub(super) client: Client,
    pub(super) engine: Engine,
    pub(super) known: BTreeSet<PeerId>,
    pub(super) store: HashMap<Key, (Cid, Bytes)>,
    pub(super) manner: Manner,
    pub(super) uplink: Uplink,
    /// How much longer than [`LATENCY`] it is away.
    pub(super) lag: Duration,
    pub(super) served: usize,
    pub(super) wants_heard: usize,
    pub(super) duplicates: usize,
    pub(super) actions: Vec<Action>,
}

/// What one node sends: a piece to each in turn, as one link with many connections does.
pub(super) struct Uplink {
    pub(super) bytes_a_second: u64,
    pub(super) queues: BTreeMap<usize, VecDeque<Sending>>,
    pub(super) is_sending: bool,
    /// Who got the last piece.
    pub(super) turn: usize,
    /// When each got its last.
    pub(super) sent_at: BTreeMap<usize, Instant>,
}

pub(super) struct Sending {
    pub(super) message: Message,
    pub(super) counted: u64,
    pub(super) left: u64,
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
    pub(super) fn next(&self) -> Option<usize> {
        let mut later = self.queues.range(self.turn + 1..);
        let next = later.next().or_else(|| self.queues.first_key_value());
        next.map(|(to, _)| *to)
    }

    pub(super) fn next_piece(&self) -> Option<u64> {
        Some(self.queues[&self.next()?].front()?.left.min(PIECE_BYTES))
    }

    /// To whom it was, and what is sent whole now.
    pub(super) fn sent_piece(&mut self, now: Instant) -> Option<(usize, Option<Sending>)> {
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

pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) mail: BTreeMap<(Instant, u64), (usize, usize, Message, u64)>,
    /// When whose uplink has sent a piece.
    pub(super) pieces: BTreeSet<(Instant, usize)>,
    /// What each byte of a block counts as: work of gigabytes need not have them.
    pub(super) weight: u64,
    pub(super) next: u64,
    pub(super) now: Instant,
    pub(super) tick_at: Instant,
    pub(super) start: Instant,
    /// Who dropped its connection, and when it comes back.
    pub(super) dropped: Vec<(Instant, usize)>,
}

/// Blocks that a turncoat sends.
pub(super) const TURNCOAT_SERVES: usize = 2;
/// How long a dropper stays away.
pub(super) const DROPPED: Duration = Duration::from_millis(500);
/// What a link sends to one before it is another's turn.
pub(super) const PIECE_BYTES: u64 = 64 << 10;
pub(super) const ME: usize = 0;
pub(super) const WORK: SessionId = SessionId(1);

impl Net {
    /// Node 0 fetches from the others; all are connected to it.
    pub(super) fn new(others: usize) -> Self {
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

    pub(super) fn connect(&mut self, other: usize) {
        self.introduce(ME, other);
    }

    pub(super) fn introduce(&mut self, one: usize, other: usize) {
        let (mine, theirs) = (self.nodes[one].id, self.nodes[other].id);
        self.nodes[one].known.insert(theirs);
        self.nodes[other].known.insert(mine);
        self.nodes[one].client.connected(theirs, self.now);
        self.nodes[one].engine.connected(theirs);
        self.nodes[other].client.connected(mine, self.now);
        self.nodes[other].engine.connected(mine);
        if self.nodes[other].manner == Manner::Old {
            self.nodes[one]
                .client
                .speaks(&theirs, Speaks::Blocks, self.now);
        }
    }

    pub(super) fn disconnect(&mut self, other: usize) {
        let (mine, theirs) = (self.nodes[ME].id, self.nodes[other].id);
        self.nodes[ME].client.disconnected(&theirs);
        self.nodes[ME].engine.disconnected(&theirs);
        self.nodes[other].engine.disconnected(&mine);
        self.mail
            .retain(|_, (from, to, ..)| *from != other && *to != other);
        self.nodes[other].uplink.queues.clear();
        self.nodes[ME].uplink.queues.remove(&other);
    }

    /// What it has sent is lost, and it sends no more.
    pub(super) fn fall_silent(&mut self, node: usize) {
        self.nodes[node].manner = Manner::Liar;
        self.mail.retain(|_, (from, ..)| *from != node);
        self.nodes[node].uplink.queues.clear();
    }

    pub(super) fn give(&mut self, other: usize, blocks: &[(Cid, Bytes)]) {
        for (cid, data) in blocks {
            self.nodes[other]
                .store
                .insert(Key::content(cid), (*cid, data.clone()));
        }
    }

    pub(super) fn want(&mut self, blocks: &[(Cid, Bytes)]) {
        for (cid, _) in blocks {
            self.nodes[ME].client.want(WORK, *cid, self.now);
        }
    }

    /// Words do not wait behind blocks.
    pub(super) fn post(&mut self, from: usize, to: usize, message: Message, counted: u64) {
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

    pub(super) fn arrives(&mut self, from: usize, to: usize, message: Message, counted: u64) {
        let latency = LATENCY + self.nodes[from].lag + self.nodes[to].lag;
        self.next += 1;
        self.mail.insert(
            (self.now + latency, self.next),
            (from, to, message, counted),
        );
    }

    pub(super) fn send_piece(&mut self, from: usize) {
        let uplink = &mut self.nodes[from].uplink;
        let next = uplink.next_piece();
        uplink.is_sending = next.is_some();
        if let Some(bytes) = next {
            let takes = Duration::from_nanos(bytes * 1_000_000_000 / uplink.bytes_a_second);
            self.pieces.insert((self.now + takes, from));
        }
    }

    pub(super) fn piece_is_sent(&mut self, from: usize) {
        if let Some((to, sent)) = self.nodes[from].uplink.sent_piece(self.now)
            && let Some(Sending {
                message, counted, ..
            }) = sent
        {
            self.arrives(from, to, message, counted);
        }
        self.send_piece(from);
    }

    pub(super) fn index(&self, id: &PeerId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).unwrap()
    }

    /// Lets every node do what it can do now.
    pub(super) fn settle(&mut self) {
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

    pub(super) fn deliver(&mut self, from: usize, to: usize, message: &Message, counted: u64) {
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
    pub(super) fn flow(&mut self) {
        for from in 0..self.nodes.len() {
            let sender = self.nodes[from].id;
            let uplink = &self.nodes[from].uplink;
            let lately = |at: &Instant| self.now.saturating_duration_since(*at) <= TICK;
            let flowing = uplink.sent_at.iter().filter(|(_, at)| lately(at));
            let receivers: Vec<usize> = flowing.map(|(to, _)| *to).collect();
            for to in receivers {
                self.nodes[to]
                    .client
                    .flows(&sender, FLOWING_BYTES, self.now);
            }
        }
    }

    /// Sends pieces until something comes or a tick is due, and says when.
    pub(super) fn next_event(&mut self) -> Instant {
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
    pub(super) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
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

    pub(super) fn come_back(&mut self) {
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
    pub(super) fn promise_again(&mut self) {
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
            self.nodes[ME].client.flows(&id, FLOWING_BYTES, self.now);
        }
    }

    pub(super) fn has_all(&self, blocks: &[(Cid, Bytes)]) -> bool {
        blocks
            .iter()
            .all(|(cid, _)| self.nodes[ME].store.contains_key(&Key::content(cid)))
    }

    pub(super) fn fetch(&mut self, blocks: &[(Cid, Bytes)]) -> Duration {
        let start = self.now;
        self.want(blocks);
        assert!(self.run_until(IDLE, |net| net.has_all(blocks)));
        self.now - start
    }

    pub(super) fn searches(&self) -> usize {
        let searches = |action: &&Action| matches!(action, Action::Search { .. });
        self.nodes[ME].actions.iter().filter(searches).count()
    }

    pub(super) fn given_up(&self) -> Vec<Tried> {
        let tried = |action: &Action| match action {
            Action::GiveUp { tried, .. } => Some(tried.clone()),
            _ => None,
        };
        self.nodes[ME].actions.iter().filter_map(tried).collect()
    }
}

pub(super) fn blocks(count: usize, bytes: usize) -> Vec<(Cid, Bytes)> {
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
