//! The one task that runs the DHT's engines, one for each DHT that this node takes part in.
//!
//! A turn of its loop takes one thing (a wish to stop, what the swarm told, an answer, a peer's question, a
//! command, the passing of time), hands it to an engine and does what the engine then wants done. It waits for
//! nothing: whatever touches a stream is a task of its own.
//!
//! `jobs.rs` is for whom lookups are, `requests.rs` what is asked of peers, `served.rs` what they ask.
//!
//! Invariants: a connected peer is in `unmet` until it says who it is, in `met` once it has, and in neither if it was
//! asked and did not; every lookup in `lookups` belongs to a
//! job in `jobs`, which has it among its own. What is counted of tasks is counted by what they hold, so one that ends in
//! any way is counted no more.

mod jobs;
mod memory;
mod requests;
mod served;

use super::Dht;
use super::acquaintance::{Acquaintance, Met, News, Standing};
use super::behaviour::{Order, Wire};
use super::message::Message;
use super::own::Own;
use super::place::Place;
use super::shelf::{Pending, Shelf};
use super::streams::Room;
use super::table::{Contact, Group};
use super::unreached::Unreached;
use super::values::Values;
use super::{LookupId, TICK};
use crate::config::Config;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::network::{self, Network, Realm};
use crate::routing::command::Command;
use crate::swarm::Peers;
use crate::tasks::Tasks;
use jobs::{Job, JobId};
use libp2p::{Multiaddr, PeerId};
use memory::Memory;
use requests::Answered;
use served::Asked;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What the worker is made of.
pub(crate) struct Parts {
    pub(crate) peers: Peers,
    pub(crate) wire: Wire,
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) acquaintance: Acquaintance,
    pub(crate) own: Own,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) remembered: Option<Remembered>,
}

/// What was kept before this start, and where it is kept.
pub(crate) struct Remembered {
    pub(crate) shelf: Shelf,
    pub(crate) records: Pending,
}

/// The engines and whom they work for.
pub(crate) struct Worker {
    parts: Parts,
    local: PeerId,
    network: Network,
    realms: Vec<(Realm, Dht)>,
    values: Values,
    /// Where this node can be reached.
    addresses: Vec<Multiaddr>,
    unmet: HashSet<PeerId>,
    met: HashMap<PeerId, Met>,
    unreached: Unreached,
    jobs: HashMap<JobId, Job>,
    lookups: HashMap<(usize, LookupId), JobId>,
    next_job: u64,
    /// Lookups that begin when it is known what those just connected speak, or at their own time.
    parked: Vec<(Instant, Command)>,
    lookup_timeout: Duration,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    asking: Count,
    questions: (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
    /// Streams of each peer that are being answered.
    served: HashMap<PeerId, Count>,
    serving: Count,
    room: Room,
    ticks: Interval,
    memory: Memory,
}

/// How many hold one of these.
#[derive(Debug, Default)]
struct Count(Arc<()>);

/// Counted as long as it lives.
#[derive(Debug)]
struct Counted(#[expect(dead_code, reason = "it is held")] Arc<()>);

impl Count {
    fn one_more(&self) -> Counted {
        Counted(Arc::clone(&self.0))
    }

    fn number(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// One thing to deal with.
enum Turn {
    Stop,
    News(News),
    Answered(Answered),
    Asked(Asked),
    Arrived(Option<super::behaviour::Arrival>),
    Command(Option<Command>),
    Written,
    Tick,
}

impl Worker {
    pub(crate) fn new(mut parts: Parts, config: &Config) -> Self {
        let (local, network) = (parts.peers.local(), config.network);
        let realms = network.realms().iter().map(|realm| {
            let seed = rand::random();
            let records = config.provider_records_max;
            (*realm, Dht::new(local, network, *realm, records, seed))
        });
        let (memory, records) = Memory::new(parts.remembered.take());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut this = Self {
            local,
            network,
            realms: realms.collect(),
            values: Values::new(config.value_records_max, Place::of_peer(&local)),
            addresses: Vec::new(),
            unmet: HashSet::new(),
            met: HashMap::new(),
            unreached: Unreached::default(),
            jobs: HashMap::new(),
            lookups: HashMap::new(),
            next_job: 0,
            parked: Vec::new(),
            lookup_timeout: config.lookup_timeout,
            answers: mpsc::channel(WAITING_MAX),
            asking: Count::default(),
            questions: mpsc::channel(WAITING_MAX),
            served: HashMap::new(),
            serving: Count::default(),
            room: Room::new(),
            ticks,
            memory,
            parts,
        };
        this.remember(records);
        this
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.next_turn(&stop).await {
                // Without commands nobody is left who could use the DHT.
                Turn::Stop | Turn::Command(None) | Turn::Arrived(None) => break,
                Turn::News(news) => self.on_news(news),
                Turn::Answered(answered) => self.on_answered(answered),
                Turn::Asked(asked) => {
                    self.on_asked(asked);
                    self.measure();
                }
                Turn::Arrived(Some(arrival)) => self.on_arrival(arrival),
                Turn::Command(Some(command)) => self.on_command(command),
                Turn::Written => self.memory.written(),
                Turn::Tick => self.on_tick(),
            }
            self.act();
        }
        self.parts.inbox.close();
        self.say_stopping();
        self.write_the_last().await;
    }

    async fn next_turn(&mut self, stop: &CancellationToken) -> Turn {
        tokio::select! {
            biased;
            () = stop.cancelled() => Turn::Stop,
            () = self.parts.acquaintance.told() => Turn::News(self.parts.acquaintance.take()),
            () = self.memory.is_written() => Turn::Written,
            Some(answered) = self.answers.1.recv() => Turn::Answered(answered),
            _ = self.ticks.tick() => Turn::Tick,
            command = self.parts.inbox.recv() => Turn::Command(command),
            Some(asked) = self.questions.1.recv() => Turn::Asked(asked),
            arrival = self.parts.wire.arrived.recv() => Turn::Arrived(arrival),
        }
    }

    fn on_news(&mut self, news: News) {
        if let Some(addresses) = news.addresses {
            for (realm, dht) in &mut self.realms {
                let fits = |address: &&Multiaddr| self.network.fits(*realm, address);
                dht.set_addresses(addresses.iter().filter(fits).cloned().collect());
            }
            self.addresses = addresses;
        }
        for (peer, standing) in news.peers {
            self.unmet.remove(&peer);
            // It may have gone and come again since: only the last word is told.
            if !matches!(standing, Standing::Met(_)) {
                self.met.remove(&peer);
            }
            if !matches!(standing, Standing::Gone) {
                self.unreached.reached(&peer);
            }
            match standing {
                Standing::Connected => {
                    self.unmet.insert(peer);
                }
                Standing::Met(met) => self.on_met(peer, met),
                Standing::Silent | Standing::Gone => {}
            }
        }
        self.unpark();
    }

    fn on_met(&mut self, peer: PeerId, met: Met) {
        let now = Instant::now();
        // Who came by a name is in the network that it says.
        let said = met.addresses.iter().find_map(network::host).map(Group::of);
        let group = met.group.or(said);
        for (realm, dht) in &mut self.realms {
            let group = group.filter(|_| self.network == Network::Public && *realm == Realm::Wan);
            let fits = |address: &&Multiaddr| self.network.fits(*realm, address);
            let addresses: Vec<Multiaddr> = met.addresses.iter().filter(fits).cloned().collect();
            if !met.serves.contains(realm) || addresses.is_empty() {
                dht.serves_no_more(&peer);
                continue;
            }
            let is_first = dht.peers() == 0;
            dht.serves(Contact::new(peer, addresses), group, now);
            // The first peer knows others; later ones are looked through in time.
            if is_first && dht.peers() > 0 {
                dht.bootstrap(now);
            }
        }
        if self.met.is_empty() {
            self.unreached.forget();
        }
        self.met.insert(peer, met);
    }

    /// Whether there is nobody to ask yet, but somebody may be who has just connected.
    fn is_meeting(&self) -> bool {
        self.is_alone() && !self.unmet.is_empty()
    }

    fn is_alone(&self) -> bool {
        self.realms.iter().all(|(_, dht)| dht.peers() == 0)
    }

    /// Begins lookups that waited for somebody to be met.
    fn unpark(&mut self) {
        if !self.parked.is_empty() && !self.is_meeting() {
            for (_, command) in std::mem::take(&mut self.parked) {
                self.start(command);
            }
        }
    }

    /// Begins those that waited long enough: whoever is being met may never say a word.
    fn unpark_late(&mut self, now: Instant) {
        let longest = PARKED_LONGEST.min(self.lookup_timeout);
        let is_late =
            |(at, _): &mut (Instant, Command)| now.saturating_duration_since(*at) >= longest;
        let late: Vec<_> = self.parked.extract_if(.., is_late).collect();
        for (_, command) in late {
            self.start(command);
        }
    }

    fn on_command(&mut self, command: Command) {
        // Whoever asks may know of somebody who came a moment ago.
        let news = self.parts.acquaintance.take();
        self.on_news(news);
        if self.is_meeting() && self.parked.len() < PARKED_MAX {
            self.parked.push((Instant::now(), command));
        } else {
            self.start(command);
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for (_, dht) in &mut self.realms {
            dht.tick(now);
        }
        self.unpark_late(now);
        self.end_late_jobs(now);
        self.served.retain(|_, count| count.number() > 0);
        self.measure();
        self.write_if_due(now);
    }

    fn measure(&self) {
        let sum = |count: fn(&Dht) -> usize| self.realms.iter().map(|(_, dht)| count(dht)).sum();
        let metrics = &self.parts.metrics;
        let levels: [(_, usize); 3] = [
            (&metrics.records, sum(Dht::records)),
            (&metrics.dht_values, self.values.len()),
            (&metrics.dht_peers, sum(Dht::peers)),
        ];
        for (gauge, level) in levels {
            gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        }
    }

    /// Where a peer may be, as far as is known here.
    fn addresses_of(&self, realm: usize, contact: &Contact) -> Vec<Multiaddr> {
        if contact.peer == self.local {
            return self.addresses.clone();
        }
        let known = self.realms.get(realm).map(|(_, dht)| {
            let in_table = dht.contact(&contact.peer).into_iter();
            let in_table = in_table.flat_map(|contact| contact.addresses);
            let as_provider = dht.addresses_of_provider(&contact.peer, Instant::now());
            as_provider.into_iter().chain(in_table)
        });
        let met = self.met.get(&contact.peer);
        let met = met.into_iter().flat_map(|met| met.addresses.clone());
        let mut seen = HashSet::new();
        let told = contact.addresses.iter().cloned();
        told.chain(known.into_iter().flatten())
            .chain(met)
            .filter(|address| self.network.allows(address) && seen.insert(address.clone()))
            .take(ADDRESSES_MAX)
            .collect()
    }

    fn orders(&self) -> mpsc::Sender<Order> {
        self.parts.wire.orders.clone()
    }
}

/// Answers, or questions, that may wait to be dealt with; whoever has more waits.
const WAITING_MAX: usize = 256;
/// Lookups that may wait for somebody to be met, and how long: about as long as peers take to say who they are.
const PARKED_MAX: usize = 1024;
const PARKED_LONGEST: Duration = Duration::from_secs(10);
/// Addresses of one peer that are handed on.
const ADDRESSES_MAX: usize = 16;
