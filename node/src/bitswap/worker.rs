//! The task that owns all of Bitswap's state and drives its two halves.
//!
//! Everything that happens comes in as an [`Input`], a command or a notice from the swarm; the
//! client and the engine decide; what follows is done by tasks that report back as inputs. The
//! worker itself never waits for anybody but its queues, so nothing can wait for it in a circle:
//! what it sends it only tries to send, into queues that its own bounds keep from filling.
//!
//! A block's way in: reader, verifier, here (is it wanted? nobody else need send it), the store
//! (batches, one at a time, so that they grow with the disk's latency), here again, its waiters.

mod cars;
mod giving;
mod sources;
mod telling;

use super::accounts::{Accounts, Weight};
use super::behaviour::{KeepAlive, Notice, Order, Wire};
use super::client::{Action, Client, Received, Speaks, TICK, Tried};
use super::engine::{Engine, Envelope, OUTSTANDING_BYTES_ALL};
use super::http::{CarNews, Http, News};
use super::key::Key;
use super::message::{Message, Payload, Scope, Version};
use super::metrics::Metrics;
use super::policy::Policy;
use super::session::SessionId;
use super::streams::Hearing;
use super::streams::{self, Cargo, Intake, Outgoing, Room, Sinks, Waiting};
use super::verify::{self, Verified};
use super::{Blocks, Command, Fetched, Network, Stat, Work};
use crate::event::Event;
use crate::explain::{Step, Teller};
use crate::routing::Provider;
use crate::tasks::Tasks;
use crate::throttle::{Throttle, Way};
use cairn_store::{Block, Cid, SourceError};
use futures::{StreamExt, future, stream};
use giving::{LOOKUPS_MAX, PACKINGS_MAX};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
#[cfg(test)]
pub(super) use sources::ANNOUNCED_MAX;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

/// What tasks report.
#[derive(Debug)]
pub(super) enum Input {
    /// The words of a message; its blocks go another way.
    Message {
        peer: PeerId,
        message: Message,
        /// Given up when the words were heard.
        hearing: Hearing,
    },
    /// A stream held something else than messages.
    BadMessage(PeerId),
    /// A message was begun and not ended.
    Abandoned,
    /// Blocks came from a peer of whom nothing was wanted.
    Unwanted { peer: PeerId, bytes: u64 },
    /// Blocks were hashed.
    Verified(Vec<Verified>),
    /// Blocks were stored, or not.
    Stored {
        blocks: Vec<Block>,
        outcome: Result<(), String>,
    },
    /// A message has left, or never will.
    Written {
        peer: PeerId,
        stay: u64,
        cargo: Cargo,
        outgoing: Outgoing,
        sent: bool,
    },
    /// A stream was negotiated, or cannot be (`None`).
    Speaks {
        peer: PeerId,
        stay: u64,
        version: Option<Version>,
    },
    /// The store said what it has of a peer's wants.
    LookedUp {
        peer: PeerId,
        found: Vec<(Cid, Option<u64>)>,
    },
    /// An envelope's blocks were read.
    Packed {
        envelope: Envelope,
        stay: u64,
        blocks: Vec<Payload>,
        missing: Vec<Cid>,
    },
    /// Blocks that we want turned out to be in the store.
    Here(Vec<Block>),
    /// A search found a provider.
    Found {
        session: SessionId,
        provider: Provider,
    },
    /// A dial to a provider is over.
    Dialled {
        session: SessionId,
        peer: PeerId,
        outcome: Result<(), Arc<str>>,
    },
    /// What came of asking for a whole DAG.
    Car {
        session: SessionId,
        source: PeerId,
        news: CarNews,
    },
    /// What a gateway's driver tells.
    Http { peer: PeerId, stay: u64, news: News },
}

/// What happened next.
#[derive(Debug)]
enum Turn {
    Input(Input),
    Command(Command),
    Notice(Notice),
    Tick,
    Stop,
}

/// Everything.
pub(super) struct Worker<B, N> {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) wire: Wire,
    pub(super) sinks: Sinks,
    pub(super) throttle: Throttle,
    pub(super) blocks: B,
    pub(super) network: N,
    pub(super) http: Http,
    pub(super) tasks: Tasks,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) metrics: Metrics,
    pub(super) state: State,
}

/// What the worker remembers.
#[derive(Default)]
pub(super) struct State {
    client: Client,
    engine: Engine,
    accounts: Accounts,
    peers: HashMap<PeerId, Peer>,
    /// Peers that may have something to be told.
    talkative: BTreeSet<PeerId>,
    works: HashMap<SessionId, Weak<Work>>,
    waiters: HashMap<Key, Vec<Waiter>>,
    /// Who wants to hear what happens to a want.
    watchers: HashMap<Key, Vec<Watcher>>,
    /// Came, and on the way into the store.
    storing: HashSet<Key>,
    to_store: Vec<(Block, Arc<(Room, Waiting)>)>,
    is_storing: bool,
    orders: VecDeque<Order>,
    /// Whether so much is on its way to all that others get less.
    crowded: Arc<AtomicBool>,
    dials: VecDeque<(SessionId, Provider)>,
    dialling: usize,
    lookups: usize,
    packings: usize,
    next_stay: u64,
    recheck: VecDeque<PeerId>,
    /// What we want and has to be looked for in the store, and what comes after that.
    to_look_for: VecDeque<Cid>,
    is_looking: bool,
    recheck_own: VecDeque<Key>,
    cars: cars::Cars,
    /// Whose time is over, but for a last look into the store.
    leaving: Vec<(Vec<Waiter>, Tried)>,
    rechecked_at: Option<Instant>,
}

impl State {
    /// That of the node which others know as `me`. Serves what `policy` lets it.
    pub(super) fn of(me: &PeerId, policy: Arc<dyn Policy>) -> Self {
        Self {
            client: Client::default().known_as(me),
            engine: Engine::new(policy),
            ..Self::default()
        }
    }

    /// A peer's share of what we send follows what it gave.
    fn weigh(&mut self, id: PeerId, weight: Weight) {
        self.engine.weigh(id, weight);
        if let Some(peer) = self.peers.get(&id) {
            peer.intake.gate.favour(weight.percent());
            peer.intake.credit.favour(weight.percent());
        }
    }
}

struct Peer {
    /// Tells this stay from an earlier one of the same peer.
    stay: u64,
    /// Where the other end of each is, as far as known.
    connections: HashMap<ConnectionId, Option<IpAddr>>,
    intake: Arc<Intake>,
    bytes_seen: u64,
    /// How often it was held back by our own limits.
    held_seen: u64,
    words: Option<mpsc::Sender<Outgoing>>,
    words_under_way: usize,
    blocks: Option<mpsc::Sender<Outgoing>>,
    keep_alive: KeepAlive,
    /// Set if it is a gateway.
    source: Option<sources::Source>,
}

struct Watcher {
    session: SessionId,
    teller: Teller,
}

struct Waiter {
    session: SessionId,
    cid: Cid,
    since: Instant,
    reply: oneshot::Sender<Fetched>,
}

impl<B: Blocks, N: Network> Worker<B, N> {
    /// Runs until the tasks are asked to stop.
    pub(super) async fn run(mut self, unverified: mpsc::Receiver<streams::Unverified>) {
        let queue = Arc::new(Mutex::new(unverified));
        for _ in 0..verify::jobs() {
            let job = verify::run(Arc::clone(&queue), self.sinks.inputs.clone());
            self.spawn("bitswap verify", job);
        }
        self.add_configured_sources(Instant::now());
        let stopping = self.tasks.stopping();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let turn = self.turn(&stopping, &mut tick).await;
            let now = Instant::now();
            match turn {
                Turn::Stop => return,
                Turn::Tick => self.on_tick(now),
                Turn::Input(input) => self.on_input(input, now),
                Turn::Command(command) => self.on_command(command, now),
                Turn::Notice(notice) => self.on_notice(notice, now),
            }
            // What else is there already is decided upon together; one of each in turn.
            for _ in 0..ROUNDS_TOGETHER {
                let (command, notice, input) = (
                    self.commands.try_recv(),
                    self.wire.notices.try_recv(),
                    self.inputs.try_recv(),
                );
                if command.is_err() && notice.is_err() && input.is_err() {
                    break;
                }
                if let Ok(command) = command {
                    self.on_command(command, now);
                }
                if let Ok(notice) = notice {
                    self.on_notice(notice, now);
                }
                if let Ok(input) = input {
                    self.on_input(input, now);
                }
            }
            self.act(now);
        }
    }

    /// What happened next. Strangers come last: however much they say, time goes on, callers are
    /// heard, and a peer that is gone is known to be.
    async fn turn(&mut self, stopping: &CancellationToken, tick: &mut Interval) -> Turn {
        tokio::select! {
            biased;
            () = stopping.cancelled() => Turn::Stop,
            _ = tick.tick() => Turn::Tick,
            command = self.commands.recv() => command.map_or(Turn::Stop, Turn::Command),
            notice = self.wire.notices.recv() => notice.map_or(Turn::Stop, Turn::Notice),
            Some(input) = self.inputs.recv() => Turn::Input(input),
        }
    }

    fn on_command(&mut self, command: Command, now: Instant) {
        let state = &mut self.state;
        match command {
            Command::Stat(reply) => drop(reply.send(self.stat())),
            Command::Account(peer, reply) => drop(reply.send(state.accounts.of(&peer))),
            Command::WantsOf(peer, reply) => drop(reply.send(state.engine.wantlist(&peer))),
            Command::WaitsFor(session, reply) => {
                drop(reply.send(state.waits_for(session, &self.network)));
            }
            Command::Prefetch { work, root } => self.prefetch(&work, root, now),
            Command::Fetch {
                work,
                cid,
                reply,
                teller,
            } => {
                let session = work.id;
                let key = Key::content(&cid);
                state.works.entry(session).or_insert_with(|| {
                    state.client.open(session, work.idle, now);
                    Arc::downgrade(&work)
                });
                // Whatever is on its way into the store need not be asked for.
                if !state.storing.contains(&key) {
                    if !state.cars.hold(session, cid, now) {
                        state.client.want(session, cid, now);
                    }
                    // It may have been stored since whoever asks looked.
                    if !state.waiters.contains_key(&key) {
                        state.to_look_for.push_back(cid);
                    }
                }
                if let Some(teller) = teller.filter(|_| state.watchers.len() < WATCHED_MAX) {
                    let others = state.waiters.get(&key).map_or(0, Vec::len);
                    if others > 0 {
                        teller.tell(Step::Shared { others });
                    }
                    // What happened before is the others'.
                    state.tell();
                    let watcher = Watcher { session, teller };
                    state.watchers.entry(key.clone()).or_default().push(watcher);
                    state.tell_standing(session, &key);
                }
                state.waiters.entry(key).or_default().push(Waiter {
                    session,
                    cid,
                    since: now,
                    reply,
                });
            }
        }
    }

    fn on_notice(&mut self, notice: Notice, now: Instant) {
        let state = &mut self.state;
        match notice {
            Notice::Connected(id, connection, remote) => {
                let (next_stay, throttle) = (&mut state.next_stay, &self.throttle);
                let peer = state.peers.entry(id).or_insert_with(|| {
                    *next_stay += 1;
                    Peer::new(*next_stay, Intake::new(id, throttle.gate()))
                });
                peer.connections.insert(connection, remote);
                peer.tell_gate();
                // The new connection does not know yet whether it must stay.
                peer.keep_alive = KeepAlive::No;
                state.client.connected(id, now);
                state.engine.connected(id);
                let weight = state.accounts.arrived(id);
                state.weigh(id, weight);
                state.talkative.insert(id);
            }
            Notice::Disconnected(id, connection) => {
                let Some(peer) = state.peers.get_mut(&id) else {
                    return;
                };
                peer.connections.remove(&connection);
                peer.tell_gate();
                if peer.connections.is_empty() {
                    state.accounts.left(&id);
                    state.peers.remove(&id);
                    state.client.disconnected(&id);
                    state.engine.disconnected(&id);
                }
            }
            Notice::Stream(id, version, stream) => {
                let Some(peer) = state.peers.get(&id) else {
                    return;
                };
                if !peer.intake.admit() {
                    self.metrics.streams_refused.inc();
                    tracing::debug!(peer = %id, "stream refused: too many are open");
                    return;
                }
                tracing::trace!(peer = %id, ?version, "inbound stream");
                let reader = streams::read(stream, Arc::clone(&peer.intake), self.sinks.clone());
                self.spawn("bitswap reader", reader);
            }
        }
    }

    fn on_input(&mut self, input: Input, now: Instant) {
        let state = &mut self.state;
        match input {
            Input::Message {
                peer,
                message,
                hearing: _heard,
            } => {
                self.metrics.messages_in.inc();
                state.accounts.heard(&peer);
                self.metrics.skipped.inc_by(message.skipped as u64);
                self.metrics.wants_in.inc_by(message.wants.len() as u64);
                if message.scope == Scope::Whole || !message.wants.is_empty() {
                    state.engine.wants(peer, message.scope, &message.wants);
                }
                state.client.wanted_too(&peer, &message.wants, now);
                for presence in &message.presences {
                    state
                        .client
                        .presence(&peer, &presence.cid, presence.kind, now);
                }
            }
            Input::BadMessage(peer) => {
                self.metrics.bad_messages.inc();
                state.client.nonsense(&peer);
            }
            Input::Abandoned => self.metrics.abandoned_messages.inc(),
            Input::Unwanted { peer, bytes } => {
                self.metrics.unwanted_bytes.inc_by(bytes);
                state.client.unwanted(&peer, bytes);
            }
            Input::Verified(messages) => {
                for message in messages {
                    self.on_verified(message, now);
                }
            }
            Input::Stored { blocks, outcome } => self.on_stored(&blocks, &outcome, now),
            Input::Written {
                peer,
                stay,
                cargo,
                outgoing,
                sent,
            } => self.on_written(peer, stay, cargo, &outgoing, sent),
            Input::Speaks {
                peer,
                stay,
                version,
            } => {
                let speaks = match version {
                    Some(version) if version.has_presences() => Speaks::Presences,
                    Some(_) => Speaks::Blocks,
                    None => Speaks::Nothing,
                };
                if state.peers.get(&peer).is_some_and(|peer| peer.stay == stay) {
                    state.client.speaks(&peer, speaks, now);
                }
            }
            Input::LookedUp { peer, found } => {
                state.lookups -= 1;
                state.engine.looked_up(peer, &found);
                state.talkative.insert(peer);
            }
            Input::Packed {
                envelope,
                stay,
                blocks,
                missing,
            } => {
                state.packings -= 1;
                self.on_packed(&envelope, stay, blocks, &missing);
            }
            Input::Here(blocks) => self.on_here(&blocks, now),
            Input::Found { session, provider } => {
                state.tell_work(session, || Step::Found {
                    peer: provider.peer,
                    addresses: provider.addresses.clone(),
                    connected: state.peers.contains_key(&provider.peer),
                });
                let Some(provider) = self.take_sources(session, provider, now) else {
                    return;
                };
                let state = &mut self.state;
                state.client.provider(session, provider.peer);
                if !state.peers.contains_key(&provider.peer)
                    && state.dials.len() < DIALS_WAITING_MAX
                {
                    state.dials.push_back((session, provider));
                }
            }
            Input::Dialled {
                session,
                peer,
                outcome,
            } => {
                state.dialling -= 1;
                state.client.dialled(session, &outcome);
                state.tell_work(session, || Step::Dialled { peer, outcome });
            }
            Input::Car {
                session,
                source,
                news,
            } => self.on_car(session, source, news, now),
            Input::Http { peer, stay, news } => self.on_news(peer, stay, news, now),
        }
    }

    fn on_verified(&mut self, message: Verified, now: Instant) {
        let state = &mut self.state;
        let peer = message.peer;
        let room = Arc::new((message.room, message.waiting));
        for _ in 0..message.nonsense {
            self.metrics.wrong_blocks.inc();
            state.client.nonsense(&peer);
        }
        for (cid, bytes) in message.too_large {
            self.metrics.too_large_blocks.inc();
            // Its hash is right, so nobody has a smaller one: whoever waits need not wait on.
            if let Received::Wanted(_) = state.client.block(&peer, &cid, bytes, now) {
                let key = Key::content(&cid);
                state.tell_last(&key, || Step::TooLarge { bytes });
                let waiters = state.waiters.remove(&key);
                for waiter in waiters.unwrap_or_default() {
                    waiter.refuses(bytes);
                }
            }
        }
        for block in message.blocks {
            let bytes = block.data().len() as u64;
            self.metrics.blocks_in.inc();
            self.metrics.bytes_in.inc_by(bytes);
            let received = state.client.block(&peer, block.cid(), bytes, now);
            let wanted = matches!(received, Received::Wanted(_));
            let useful = if wanted { bytes } else { 0 };
            let weight = state.accounts.received(&peer, bytes, useful);
            if let Some(keeper) = &self.wire.keeper {
                keeper.gave(&peer, useful);
            }
            state.weigh(peer, weight);
            match received {
                Received::Wanted(cid) => {
                    if let Some(peer) = state.peers.get(&peer) {
                        peer.intake.trust();
                    }
                    if let Some(block) = block.renamed(cid) {
                        state.storing.insert(Key::content(&cid));
                        state.to_store.push((block, Arc::clone(&room)));
                    }
                }
                Received::Duplicate => {
                    self.metrics.duplicate_blocks.inc();
                    self.metrics.duplicate_bytes.inc_by(bytes);
                }
                Received::Wrong => {
                    self.metrics.wrong_blocks.inc();
                    tracing::debug!(%peer, cid = %block.cid(), "a block that nobody wanted");
                }
            }
        }
    }

    fn on_stored(&mut self, blocks: &[Block], outcome: &Result<(), String>, now: Instant) {
        let state = &mut self.state;
        state.is_storing = false;
        if let Err(error) = outcome {
            tracing::error!(%error, "fetched blocks could not be stored");
        }
        for block in blocks {
            let key = Key::content(block.cid());
            state.storing.remove(&key);
            state.tell_last(&key, || match outcome {
                Ok(()) => Step::Stored,
                Err(why) => Step::NotStored { why: why.clone() },
            });
            for waiter in state.waiters.remove(&key).unwrap_or_default() {
                let took = now.saturating_duration_since(waiter.since);
                self.metrics.fetch_seconds.observe(took.as_secs_f64());
                match outcome {
                    Ok(()) => waiter.gets(block),
                    Err(why) => waiter.fails(why),
                }
            }
        }
        if outcome.is_ok() {
            let arrived: Vec<_> = blocks
                .iter()
                .map(|block| (*block.cid(), block.data().len() as u64))
                .collect();
            state.engine.arrived(&arrived);
            for (cid, _) in arrived {
                // Nobody need listen.
                drop(self.events.send(Event::Fetched(cid)));
            }
        }
    }

    /// What is in the store already is handed over, and wanted no more.
    fn on_here(&mut self, blocks: &[Block], now: Instant) {
        let state = &mut self.state;
        state.is_looking = false;
        for block in blocks {
            let key = Key::content(block.cid());
            state.client.found(&key, now);
            state.tell_last(&key, || Step::Here);
            for waiter in state.waiters.remove(&key).unwrap_or_default() {
                waiter.gets(block);
            }
        }
        let arrived: Vec<_> = blocks
            .iter()
            .map(|block| (*block.cid(), block.data().len() as u64))
            .collect();
        state.engine.arrived(&arrived);
    }

    fn on_tick(&mut self, now: Instant) {
        let state = &mut self.state;
        for (id, peer) in &mut state.peers {
            let bytes = peer.intake.bytes.load(Ordering::Relaxed);
            let held = peer.intake.gate.held_since(Way::In, &mut peer.held_seen);
            // What it sent is not taken yet: silence is our own doing.
            if held || peer.intake.is_waiting() {
                state.client.excuse(id, now);
            } else if bytes > peer.bytes_seen {
                state.client.flows(id, bytes - peer.bytes_seen, now);
            }
            peer.bytes_seen = bytes;
        }
        let client = &mut state.client;
        state.waiters.retain(|key, waiters| {
            let gone: Vec<SessionId> = waiters
                .extract_if(.., |waiter| waiter.reply.is_closed())
                .map(|waiter| waiter.session)
                .collect();
            for session in gone {
                if waiters.iter().all(|waiter| waiter.session != session) {
                    client.unwant(session, key);
                }
            }
            !waiters.is_empty()
        });
        state.works.retain(|session, work| {
            let lives = work.strong_count() > 0;
            if !lives {
                client.close(*session);
            }
            lives
        });
        let stalls = state.client.tick(now);
        self.metrics.stalls.inc_by(stalls as u64);
        self.metrics.count(state.client.take_efforts());
        let state = &mut self.state;
        state.watchers.retain(|_, all| {
            all.retain(|watcher| watcher.teller.is_heard());
            !all.is_empty()
        });
        self.recheck(now);
        self.retire_sources(now);
        self.release_held(now);
        self.metrics
            .wants
            .set(i64::try_from(self.state.waiters.len()).unwrap_or(i64::MAX));
        let peers = self.state.client.peers().len();
        self.metrics
            .peers
            .set(i64::try_from(peers).unwrap_or(i64::MAX));
        let (wants, bytes) = self.state.engine.held();
        let is_crowded = bytes > OUTSTANDING_BYTES_ALL / 4 * 3;
        self.state.crowded.store(is_crowded, Ordering::Relaxed);
        self.metrics
            .wants_kept
            .set(i64::try_from(wants).unwrap_or(i64::MAX));
        self.metrics
            .outstanding
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Blocks that were added here past Bitswap are found by looking again, a few wants at a time:
    /// others' wants and, if they have waited for long enough to be worth it, our own.
    fn recheck(&mut self, now: Instant) {
        let state = &mut self.state;
        if state
            .rechecked_at
            .is_some_and(|at| now.saturating_duration_since(at) < RECHECK_EVERY)
        {
            return;
        }
        state.rechecked_at = Some(now);
        if state.recheck.is_empty() {
            state.recheck = state.peers.keys().copied().collect();
        }
        let mut left = RECHECKED_AT_ONCE;
        while left > 0
            && let Some(peer) = state.recheck.pop_front()
        {
            left -= state.engine.recheck(&peer, left).min(left);
        }
        if !state.to_look_for.is_empty() {
            return;
        }
        if state.recheck_own.is_empty() {
            state.recheck_own = state.waiters.keys().cloned().collect();
        }
        let count = state.recheck_own.len().min(RECHECKED_AT_ONCE);
        for key in state.recheck_own.drain(..count) {
            let old = |waiter: &&Waiter| {
                now.saturating_duration_since(waiter.since) >= RECHECK_EVERY
                    && !state.storing.contains(&key)
            };
            let first = state.waiters.get(&key).and_then(|all| all.first());
            state
                .to_look_for
                .extend(first.filter(old).map(|waiter| waiter.cid));
        }
    }

    /// Does what was decided.
    fn act(&mut self, now: Instant) {
        self.state.client.settle(now);
        self.state.tell();
        while let Some(action) = self.state.client.poll() {
            self.perform(action);
        }
        self.store();
        self.look_for_own();
        self.say_farewell();
        self.dial();
        while self.state.lookups < LOOKUPS_MAX
            && let Some((peer, cids)) = self.state.engine.next_lookup()
        {
            self.look_up(peer, cids);
        }
        while self.state.packings < PACKINGS_MAX
            && let Some(envelope) = self.state.engine.next_envelope()
        {
            self.pack(envelope);
        }
        let mut talkative = std::mem::take(&mut self.state.talkative);
        talkative.append(&mut self.state.client.changed());
        talkative.append(&mut self.state.engine.refused());
        for peer in talkative {
            self.talk(peer);
        }
        while let Some(order) = self.state.orders.pop_front() {
            if let Err(error) = self.wire.orders.try_send(order) {
                if let mpsc::error::TrySendError::Full(order) = error {
                    self.state.orders.push_front(order);
                }
                break;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Search { session, cid } => {
                self.metrics.searches.inc();
                self.state.tell_work(session, || Step::Searching);
                let providers = self.network.providers(cid, PROVIDERS_MAX);
                let inputs = self.sinks.inputs.clone();
                self.spawn("bitswap search", async move {
                    let report = providers.take(PROVIDERS_MAX).for_each(|provider| async {
                        let found = Input::Found { session, provider };
                        drop(inputs.send(found).await);
                    });
                    drop(tokio::time::timeout(SEARCH_TIME_MAX, report).await);
                });
            }
            Action::GiveUp {
                session,
                cid,
                mut tried,
            } => {
                self.state.add_known(&mut tried, &self.network);
                self.metrics.given_up.inc();
                let key = Key::content(&cid);
                self.state.tell_over(session, &key, &tried);
                let Some(waiters) = self.state.waiters.remove(&key) else {
                    return;
                };
                let (over, rest): (Vec<_>, Vec<_>) = waiters
                    .into_iter()
                    .partition(|waiter| waiter.session == session);
                if !rest.is_empty() {
                    self.state.waiters.insert(key, rest);
                }
                self.state.leaving.push((over, tried));
            }
            Action::Disconnect(peer) if self.bar_source(peer) => self.metrics.peers_dropped.inc(),
            Action::Disconnect(peer) => {
                tracing::debug!(%peer, "disconnected: it sends what nobody asked for");
                self.metrics.peers_dropped.inc();
                self.state.orders.push_back(Order::Disconnect(peer));
            }
        }
    }

    fn store(&mut self) {
        if self.state.is_storing || self.state.to_store.is_empty() {
            return;
        }
        self.state.is_storing = true;
        let (blocks, room): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.state.to_store).into_iter().unzip();
        let (store, inputs) = (self.blocks.clone(), self.sinks.inputs.clone());
        self.spawn("bitswap store", async move {
            let outcome = store.put(blocks.clone()).await;
            drop(room);
            drop(inputs.send(Input::Stored { blocks, outcome }).await);
        });
    }

    /// Looks into the store for what we want ourselves; one such task at a time.
    fn look_for_own(&mut self) {
        let state = &mut self.state;
        if state.is_looking || state.to_look_for.is_empty() {
            return;
        }
        state.is_looking = true;
        let count = state.to_look_for.len().min(LOOKED_FOR_AT_ONCE);
        let cids: Vec<Cid> = state.to_look_for.drain(..count).collect();
        let (store, inputs) = (self.blocks.clone(), self.sinks.inputs.clone());
        self.spawn("bitswap look for own", async move {
            let here = stream::iter(cids)
                .map(|cid| find(store.clone(), cid))
                .buffer_unordered(LOOKUPS_TOGETHER)
                .filter_map(future::ready)
                .collect()
                .await;
            drop(inputs.send(Input::Here(here)).await);
        });
    }

    /// Those whose time is over are told so, unless the store has what they wait for after all.
    fn say_farewell(&mut self) {
        let leaving = std::mem::take(&mut self.state.leaving);
        if leaving.is_empty() {
            return;
        }
        let store = self.blocks.clone();
        self.spawn("bitswap last look", async move {
            for (waiters, tried) in leaving {
                for waiter in waiters {
                    match find(store.clone(), waiter.cid).await {
                        Some(block) => waiter.gets(&block),
                        None => waiter.leaves(&tried),
                    }
                }
            }
        });
    }

    fn dial(&mut self) {
        while self.state.dialling < DIALS_MAX
            && let Some((session, provider)) = self.state.dials.pop_front()
        {
            self.state.dialling += 1;
            let (network, inputs) = (self.network.clone(), self.sinks.inputs.clone());
            self.spawn("bitswap dial", async move {
                let peer = provider.peer;
                let reached = tokio::time::timeout(DIAL_TIME_MAX, network.connect(provider)).await;
                let outcome = reached
                    .unwrap_or_else(|_| Err(format!("no answer within {DIAL_TIME_MAX:?}")))
                    .map_err(Arc::from);
                let dialled = Input::Dialled {
                    session,
                    peer,
                    outcome,
                };
                drop(inputs.send(dialled).await);
            });
        }
    }

    /// A task that ends at the latest when all are asked to.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.tasks.stopping();
        self.tasks.spawn(name, async move {
            stopping.run_until_cancelled_owned(task).await;
        });
    }

    fn stat(&self) -> Stat {
        let metrics = &self.metrics;
        let mut peers = self.state.client.peers();
        peers.sort();
        Stat {
            wantlist: self.state.client.wantlist(),
            peers,
            blocks_received: metrics.blocks_in.get(),
            data_received: metrics.bytes_in.get(),
            duplicate_blocks: metrics.duplicate_blocks.get(),
            duplicate_data: metrics.duplicate_bytes.get(),
            messages_received: metrics.messages_in.get(),
            blocks_sent: metrics.blocks_out.get(),
            data_sent: metrics.bytes_out.get(),
        }
    }
}

/// A block that is here; its size is asked first, since that is cheap and the answer mostly no.
async fn find<B: Blocks>(store: B, cid: Cid) -> Option<Block> {
    store.size(&cid).await?;
    store.find(&cid).await
}

impl Waiter {
    fn gets(self, block: &Block) {
        let stopping = SourceError::Stopping { cid: self.cid };
        drop(self.reply.send(block.renamed(self.cid).ok_or(stopping)));
    }

    fn fails(self, why: &str) {
        let (cid, why) = (self.cid, why.into());
        drop(self.reply.send(Err(SourceError::Unkept { cid, why })));
    }

    fn refuses(self, bytes: u64) {
        let cid = self.cid;
        drop(self.reply.send(Err(SourceError::TooLarge { cid, bytes })));
    }

    fn leaves(self, tried: &Tried) {
        let failed = SourceError::TooSlow {
            cid: self.cid,
            tried: tried.to_string().into(),
            is_anywhere: tried.found_somebody(),
        };
        drop(self.reply.send(Err(failed)));
    }
}

impl Peer {
    fn new(stay: u64, intake: Intake) -> Self {
        Self {
            stay,
            connections: HashMap::new(),
            intake: Arc::new(intake),
            bytes_seen: 0,
            held_seen: 0,
            words: None,
            words_under_way: 0,
            blocks: None,
            keep_alive: KeepAlive::No,
            source: None,
        }
    }

    /// Whether limits apply depends on where the peer is.
    fn tell_gate(&self) {
        let remotes = self.connections.values().copied();
        self.intake.gate.reached_at(remotes);
    }
}

/// Wants that are watched at once; of more, nothing is told.
const WATCHED_MAX: usize = 256;
/// Commands, notices and inputs, one of each, handled before anything is done about them.
const ROUNDS_TOGETHER: usize = 256;
const LOOKUPS_TOGETHER: usize = 16;
/// How often absent wants of others are looked up again, and how many at a time.
const RECHECK_EVERY: Duration = Duration::from_secs(1);
const RECHECKED_AT_ONCE: usize = 1024;
/// Own wants that are looked for in the store by one task.
const LOOKED_FOR_AT_ONCE: usize = 1024;
/// Providers asked for in one search.
const PROVIDERS_MAX: usize = 10;
const SEARCH_TIME_MAX: Duration = Duration::from_secs(60);
const DIALS_MAX: usize = 32;
const DIALS_WAITING_MAX: usize = 1024;
const DIAL_TIME_MAX: Duration = Duration::from_secs(30);
/// Reports waiting for the worker.
pub(super) const INPUTS_MAX: usize = 1024;
/// Commands waiting for the worker.
pub(super) const COMMANDS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::http::Gateways;
    use super::*;
    use bytes::Bytes;
    use futures::stream::BoxStream;

    /// Neither store nor network.
    #[derive(Clone)]
    struct Nothing;

    impl Blocks for Nothing {
        async fn get(&self, _: &Cid) -> Option<Bytes> {
            None
        }
        async fn size(&self, _: &Cid) -> Option<u64> {
            None
        }
        async fn find(&self, _: &Cid) -> Option<Block> {
            None
        }
        async fn put(&self, _: Vec<Block>) -> Result<(), String> {
            Ok(())
        }
    }

    impl Network for Nothing {
        fn providers(&self, _: Cid, _: usize) -> BoxStream<'static, Provider> {
            stream::empty().boxed()
        }
        async fn connect(&self, _: Provider) -> Result<(), String> {
            Err("there is none".to_owned())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_and_callers_are_heard_before_strangers() {
        let (notices, noticed) = mpsc::channel(1);
        let wire = Wire {
            notices: noticed,
            orders: mpsc::channel(1).0,
            keeper: None,
        };
        let (commands, asked) = mpsc::channel(COMMANDS_MAX);
        let (inputs, happened) = mpsc::channel(INPUTS_MAX);
        let (unverified, _queue) = mpsc::channel(verify::QUEUE_MAX);
        let mut worker = Worker {
            inputs: happened,
            commands: asked,
            wire,
            sinks: Sinks::new(inputs.clone(), unverified, streams::Holds::unseen()),
            throttle: Throttle::new(crate::Limits::default(), &prometheus::Registry::new())
                .unwrap(),
            blocks: Nothing,
            network: Nothing,
            http: Http::new(
                Gateways::new(crate::network::Network::Local, Vec::new()),
                &prometheus::Registry::new(),
            )
            .unwrap(),
            tasks: Tasks::new(),
            events: broadcast::channel(1).0,
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            state: State::default(),
        };
        let stranger = PeerId::random();
        while inputs.try_send(Input::BadMessage(stranger)).is_ok() {}
        let connected = Notice::Connected(stranger, ConnectionId::new_unchecked(1), None);
        notices.send(connected).await.unwrap();
        let (reply, _answer) = oneshot::channel();
        commands.send(Command::Stat(reply)).await.unwrap();
        let stopping = CancellationToken::new();
        let mut tick = tokio::time::interval(TICK);
        let mut turns = Vec::new();
        for _ in 0..4 {
            turns.push(worker.turn(&stopping, &mut tick).await);
        }
        assert!(
            matches!(
                turns[..],
                [
                    Turn::Tick,
                    Turn::Command(_),
                    Turn::Notice(_),
                    Turn::Input(_)
                ]
            ),
            "{turns:?}"
        );
        tokio::time::advance(TICK).await;
        assert!(matches!(
            worker.turn(&stopping, &mut tick).await,
            Turn::Tick
        ));
        stopping.cancel();
        assert!(matches!(
            worker.turn(&stopping, &mut tick).await,
            Turn::Stop
        ));
    }
}
