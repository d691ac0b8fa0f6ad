//! Who we are connected to: the swarm, behind a handle.
//!
//! [`Peers`] is the handle, `command.rs` what it may ask, `worker.rs` the one task that owns the
//! libp2p swarm and everything known about peers. The worker only routes: no disk, no hashing, no
//! payload passes through it, because while it is busy every TCP connection waits.
//!
//! Reading order: `start`, `worker.rs`, `behaviour.rs` (what is spoken), `transport.rs` (how
//! bytes get there), `connect.rs` (from a socket to streams: `tls.rs`, `noise.rs`, `records.rs`, `mux.rs`),
//! `fence.rs` (and where bytes do not get), `keeper.rs` (who stays).

mod behaviour;
mod book;
mod bootstrap;
mod budget;
pub(crate) mod command;
mod connect;
mod failure;
mod fence;
mod filters;
pub(crate) mod gate;
pub(crate) mod keeper;
#[cfg(feature = "bench")]
pub mod layers;
mod limits;
mod memory;
pub(crate) mod meter;
mod mux;
mod noise;
mod pace;
mod ports;
mod records;
mod tls;
mod transport;
mod worker;

#[cfg(test)]
mod tests;

use crate::bitswap;
use crate::config::Config;
use crate::dht;
use crate::dht::acquaintance::Acquaintance;
use crate::dht::behaviour::Serving;
use crate::dht::shelf::{Moment, Shelf};
use crate::dht::worker::Remembered;
use crate::event::Event;
use crate::limits::{Limits, Memory};
use crate::metrics::{self, Foreign, Metrics};
use crate::name::pubsub;
use crate::network::Network;
use crate::node::StartError;
use crate::perf;
use crate::ping::{self, PingError, Pinging, Pings};
use crate::reach;
use crate::routing::queue::Queue;
use crate::routing::{self, Routing};
use crate::tasks::Tasks;
use crate::web;
use behaviour::{Behaviour, Spoken};
use bootstrap::Bootstrap;
use command::{COMMANDS_MAX, Command};
pub use filters::{Filter, FilterError};
use gate::Gate;
use keeper::Keeper;
pub use keeper::{ListFull, PeeringError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{self, Swarm};
use libp2p::{Multiaddr, PeerId};
pub(crate) use memory::Ceiling;
use meter::Meter;
pub use mux::WINDOW_BYTES_MAX as STREAM_WINDOW_BYTES_MAX;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;
use worker::Worker;

/// A connected peer.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Who.
    pub peer: PeerId,
    /// The address at the other end, without `/p2p`.
    pub address: Multiaddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// Last measured round trip.
    pub latency: Option<Duration>,
    /// What the peer calls itself.
    pub agent: Option<String>,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// Muxer or transport, as `/yamux/1.0.0` or `quic`.
    pub muxer: String,
}

/// Bytes over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bandwidth {
    /// Bytes received since the start.
    pub total_in: u64,
    /// Bytes sent since the start.
    pub total_out: u64,
    /// Bytes received a second, lately.
    pub rate_in: f64,
    /// Bytes sent a second, lately.
    pub rate_out: f64,
}

/// Why a connection was not made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The network of this node does not reach there.
    #[error(
        "{address} is outside the network `{network}` this node is limited to{}; `cairn config set network` changes it",
        failure::of_names(address)
    )]
    Outside {
        /// The address.
        address: Multiaddr,
        /// The network's name.
        network: &'static str,
    },
    /// No address is known.
    #[error(
        "no address known for peer {0}; give one that ends in it, as /ip4/192.0.2.1/tcp/4001/p2p/{0}"
    )]
    NoAddress(PeerId),
    /// The address has no `/p2p/<peer id>`.
    #[error(
        "{0} does not end in /p2p/<peer id>: without it anybody there would do; `cairn id` at the other end prints it"
    )]
    NoPeerId(Multiaddr),
    /// Ourselves.
    #[error("{0} is this node itself; name another peer")]
    Itself(PeerId),
    /// Nobody there, or not who was expected.
    #[error("failure to dial {peer}: {why}")]
    Dial {
        /// Who.
        peer: PeerId,
        /// What the transports said.
        why: String,
    },
    /// The connection came up, and the peer closed it.
    #[error(
        "{0} closed the connection as soon as it was up: it may have no room for more (`fetch.connections`, \
         `limits.memory`), not want this node, or be stopping; its log may say which"
    )]
    ClosedAtOnce(PeerId),
    /// Not connected.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A peer that we are connected to because somebody asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// Who.
    pub peer: PeerId,
    /// Whether it has answered anything so far; one that has not may hang, or be far away.
    pub answers: bool,
}

/// A handle on the swarm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    commands: mpsc::Sender<Command>,
    local: PeerId,
    network: Network,
    serving: Serving,
    perf: perf::Answers,
    pubsub: bool,
    web: bool,
    settings: reach::Settings,
    reach: watch::Receiver<reach::Status>,
    meter: Arc<Meter>,
    ceiling: Arc<Ceiling>,
    keeper: Keeper,
    pings: Pings,
}

impl Peers {
    /// Connected peers, one row a connection.
    pub async fn connected(&self) -> Vec<Connected> {
        self.ask(Command::Connected).await.unwrap_or_default()
    }

    /// Dials; `address` ends in `/p2p/<peer id>`. Done when the peer has answered something over the
    /// connection, or a while after that is up; at once if it was. With nothing before the peer id, the
    /// addresses known for that peer are tried.
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, ConnectError> {
        Ok(self.call(address).await?.peer)
    }

    /// The same, and whether the peer has answered.
    pub async fn call(&self, address: Multiaddr) -> Result<Called, ConnectError> {
        let (peer, address) = split(address)?;
        let addresses = address.into_iter().collect();
        let _hurry = self.keeper.hurry(peer);
        self.dial(peer, addresses).await?;
        let answers = self.meet(peer).await?;
        self.keeper.asked_for(&peer);
        Ok(Called { peer, answers })
    }

    /// Waits until a peer that we are connected to has answered anything: one that has no room for us, or
    /// does not want us, lets the connection come up and closes it then. False for one that answers nothing, but
    /// keeps the connection, whatever it does.
    async fn meet(&self, peer: PeerId) -> Result<bool, ConnectError> {
        let met = self.ask(|reply| Command::Meet { peer, reply });
        match timeout(MEETING_TIME_MAX, met).await {
            Ok(met) => met.unwrap_or(Err(ConnectError::Stopping)).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Dials a peer at any of `addresses`, or, if there are none, at those known for it. Done when
    /// connected; at once if we were.
    pub async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), ConnectError> {
        self.check(peer)?;
        let given = addresses.first().cloned();
        let inside: Vec<_> = addresses
            .into_iter()
            .filter(|address| self.network.allows(address))
            .take(ADDRESSES_PER_DIAL_MAX)
            .collect();
        if let (Some(address), true) = (given, inside.is_empty()) {
            return Err(ConnectError::Outside {
                address,
                network: self.network.name(),
            });
        }
        self.ask(|reply| Command::Connect {
            peer,
            addresses: inside,
            reply,
        })
        .await
        .unwrap_or(Err(ConnectError::Stopping))
    }

    /// The way to the peer at the end of `address`: the connection to that very address, made if there is
    /// none. With nothing before the peer id, any connection. Gives where it leads.
    pub async fn way(&self, address: Multiaddr) -> Result<(PeerId, Multiaddr), ConnectError> {
        let (peer, address) = split(address)?;
        let _hurry = self.keeper.hurry(peer);
        let Some(address) = address else {
            self.dial(peer, Vec::new()).await?;
            let rows = self.connected().await;
            let way = rows.into_iter().find(|row| row.peer == peer);
            let way = way.ok_or(ConnectError::NotConnected(peer))?;
            return Ok((peer, way.address));
        };
        self.check(peer)?;
        if !self.network.allows(&address) {
            let network = self.network.name();
            return Err(ConnectError::Outside { address, network });
        }
        self.ask(|reply| Command::Reach {
            peer,
            address: address.clone(),
            reply,
        })
        .await
        .unwrap_or(Err(ConnectError::Stopping))?;
        Ok((peer, address))
    }

    /// Refuses what cannot be dialled.
    fn check(&self, peer: PeerId) -> Result<(), ConnectError> {
        if peer == self.local {
            return Err(ConnectError::Itself(peer));
        }
        Ok(())
    }

    /// A stream of pings to the peer at the end of `address`, which is dialled if it is not connected. While
    /// it is open the peer is not let go.
    pub async fn ping(&self, address: Multiaddr) -> Result<Pinging, PingError> {
        let (peer, _) = split(address.clone())?;
        let hurry = self.keeper.hurry(peer);
        let (peer, way) = self.way(address).await?;
        self.pings.open(peer, way, hurry).await
    }

    /// Closes every connection to the peer at the end of `address`. Done when they are closed.
    pub async fn disconnect(&self, address: Multiaddr) -> Result<PeerId, ConnectError> {
        let (peer, _) = split(address)?;
        self.ask(|reply| Command::Disconnect { peer, reply })
            .await
            .unwrap_or(Err(ConnectError::Stopping))?;
        Ok(peer)
    }

    /// Where we listen, without `/p2p`.
    pub async fn listening(&self) -> Vec<Multiaddr> {
        self.ask(Command::Listening).await.unwrap_or_default()
    }

    /// Addresses known for peers, connected or not.
    pub async fn known(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.ask(Command::Known).await.unwrap_or_default()
    }

    /// What we speak.
    pub fn protocols(&self) -> Vec<String> {
        let is = self.reach.borrow().reachability;
        let more = (self.perf, self.pubsub, self.web);
        behaviour::protocols(&self.serving, self.network, (&self.settings, is), more)
    }

    /// Whether and where we can be reached, as far as known.
    pub fn reach(&self) -> reach::Status {
        self.reach.borrow().clone()
    }

    /// Bytes in and out.
    pub fn bandwidth(&self) -> Bandwidth {
        self.meter.read(Instant::now())
    }

    /// Why no connection is made just now, if none is.
    pub fn refuses(&self) -> Option<String> {
        self.ceiling.check().err().map(|over| over.to_string())
    }

    /// Other limits from now on.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.set_memory(limits.memory);
        self.keeper.set_limits(limits);
    }

    /// Another limit of memory from now on.
    pub(crate) fn set_memory(&self, memory: Memory) {
        self.ceiling.set(memory);
    }

    /// Our own name.
    pub fn local(&self) -> PeerId {
        self.local
    }

    /// The name and version we tell peers.
    pub const fn agent() -> &'static str {
        behaviour::AGENT
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Peer and, if there is one, address.
fn split(mut address: Multiaddr) -> Result<(PeerId, Option<Multiaddr>), ConnectError> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            Ok((peer, (!address.is_empty()).then_some(address)))
        }
        _ => Err(ConnectError::NoPeerId(address)),
    }
}

/// What a started swarm is handed on as.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) peers: Peers,
    pub(crate) routing: Routing,
    pub(crate) wire: bitswap::Wire,
    pub(crate) perf: perf::Wire,
    /// Where it is switched on.
    pub(crate) pubsub: Option<pubsub::Wires>,
    /// Likewise.
    pub(crate) web: Option<perf::Wire>,
    pub(crate) foreign: Arc<prometheus_client::registry::Registry>,
}

/// Starts the swarm; returns when every listener is up. Its tasks belong to `tasks`.
pub(crate) async fn start(
    keys: &Keypair,
    config: &Config,
    tasks: &Tasks,
    events: &broadcast::Sender<Event>,
    registry: &prometheus::Registry,
) -> Result<Online, StartError> {
    check(config)?;
    // Two providers are compiled in; whoever asks rustls for *the* one must not find none.
    // An error means that it was chosen before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let (meter, gate) = (Meter::new(Instant::now()), Arc::new(Gate::new(config)));
    let keeper = Keeper::new(config, &gate);
    let ceiling = Arc::new(Ceiling::new(config.limits.memory));
    let metrics = Metrics::register(registry)?;
    metrics::register_sources(registry, tasks, &meter, &gate)?;
    metrics::register_keeper(registry, &keeper, &gate)?;
    metrics::register_memory(registry, &ceiling)?;
    let foreign = Foreign::new();
    let foreign_registry = foreign.registry();

    let (transport, relays) =
        transport::build(keys, config, &meter, &gate).map_err(StartError::Transport)?;
    let (bitswap, mut wire) = bitswap::behaviour();
    wire.keeper = Some(keeper.clone());
    let local = keys.public().to_peer_id();
    let remembered = remembered(config, tasks).await;
    let (perf, perf_wire) = perf::pair(config.perf());
    let (dht, dht_wire) = dht::behaviour::pair(config.network, &behaviour::SERVED);
    let serving = dht.serving();
    let (asked, pings) = ping::pair();
    let pubsub = config.names.pubsub.then(|| pubsub::pair(keys));
    let pubsub = pubsub.transpose().map_err(StartError::Pubsub)?;
    let (gossip, pubsub) = pubsub.unzip();
    let (web, web_wire) = config.web.map(|_| web::pair()).unzip();
    let doors = (Arc::clone(&ceiling), keeper.clone());
    let spoken = Spoken {
        dht,
        bitswap,
        perf,
        asked,
        relays,
        pubsub: gossip,
        web,
    };
    let behaviour = Behaviour::new(keys.public(), config, doors, spoken);
    let swarm = Swarm::new(transport, behaviour, local, settings(config, tasks));

    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let told = worker::Told {
        events: events.clone(),
        acquaintance: Acquaintance::default(),
        meter: Arc::clone(&meter),
    };
    let acquaintance = told.acquaintance.clone();
    let met_before = remembered
        .iter()
        .flat_map(|kept| kept.records.peers.clone());
    let met_before = met_before.flatten().map(|(_, contact)| contact).collect();
    let bootstrap = Bootstrap::new(config, met_before);
    if config.network == Network::Public && config.peering.is_empty() && bootstrap.knows_nobody() {
        tracing::warn!("this node knows nobody in the public network; {HOW_TO_MEET}");
    }
    let mut worker = Worker::new(
        swarm,
        inbox,
        told,
        bootstrap,
        config,
        metrics.clone(),
        foreign,
    );
    let reach = worker.reachability();
    worker.listen(&config.listen).await?;
    tasks.spawn_critical("swarm", worker.run(tasks.stopping()));

    let peers = Peers {
        commands,
        local,
        network: config.network,
        serving,
        perf: config.perf(),
        pubsub: pubsub.is_some(),
        web: web_wire.is_some(),
        settings: config.reach.clone(),
        reach,
        meter,
        ceiling,
        keeper,
        pings,
    };
    let (lookups, inbox) = mpsc::channel(routing::command::COMMANDS_MAX);
    let own = dht::own::Own::nothing();
    let parts = dht::worker::Parts {
        peers: peers.clone(),
        wire: dht_wire,
        inbox,
        acquaintance,
        own: own.clone(),
        events: events.clone(),
        metrics,
        tasks: tasks.clone(),
        remembered,
    };
    let worker = dht::worker::Worker::new(parts, config);
    tasks.spawn_critical("dht", worker.run(tasks.stopping()));

    let announcements = Arc::new(Queue::new(config.announce_queue_max));
    Ok(Online {
        peers,
        routing: Routing::new(lookups, announcements, own),
        wire,
        perf: perf_wire,
        pubsub,
        web: web_wire,
        foreign: foreign_registry,
    })
}

/// What was known of the DHT when this node ran last. Without it a node begins as a new one does.
async fn remembered(config: &Config, tasks: &Tasks) -> Option<Remembered> {
    let folder = config.memory.clone()?;
    let open = move || {
        let shelf = Shelf::open(&folder)?;
        let records = shelf.load(Moment::here())?;
        Ok::<_, std::io::Error>(Remembered { shelf, records })
    };
    let opened = tasks.blocking("dht memory", open).await?;
    let warn = |error: &std::io::Error| {
        tracing::warn!(%error, "the records of the DHT cannot be kept; free some disk space or look at `peers` in the repository, and start again");
    };
    opened.inspect_err(warn).ok()
}

/// Refuses what cannot work before anything is opened.
fn check(config: &Config) -> Result<(), StartError> {
    config.check()?;
    for address in &config.listen {
        transport::check_free(address).map_err(|error| StartError::Listen {
            address: address.clone(),
            why: error.to_string(),
        })?;
    }
    Ok(())
}

fn settings(config: &Config, tasks: &Tasks) -> swarm::Config {
    let tasks = tasks.clone();
    let settings = swarm::Config::with_executor(move |task| tasks.spawn("connection", task))
        .with_idle_connection_timeout(config.connection_idle)
        .with_notify_handler_buffer_size(HANDLER_EVENTS)
        .with_per_connection_event_buffer_size(CONNECTION_EVENTS)
        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX)
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    match config.network {
        // The fence lets TCP go first there; the library would prefer QUIC.
        Network::Local | Network::Lan => settings,
        Network::Public => settings.with_smart_dial(),
    }
}

/// Addresses tried in one dial.
const ADDRESSES_PER_DIAL_MAX: usize = 16;

/// What to do where nobody is known: no third party's peers are built in.
pub const HOW_TO_MEET: &str = "name peers to begin with (`cairn bootstrap add /ip4/…/tcp/4001/p2p/<peer ID>`, then \
                               start it again), or connect to one (`cairn swarm connect`)";

/// How long a peer has for its first answer, which `connect` waits for.
pub const MEETING_TIME_MAX: Duration = Duration::from_secs(5);

/// Messages that may wait on their way into a connection's task.
const HANDLER_EVENTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

/// Messages that may wait on their way out of it; when they are more, its streams stand still.
const CONNECTION_EVENTS: usize = 128;

/// Inbound streams of one connection that may be agreeing on a protocol.
const NEGOTIATING_STREAMS_MAX: usize = 512;
