//! `Node::start` and `Node::stop`: the wiring, top-down, on one page.
//!
//! ```text
//! jobs ──► routing ──┐
//! exchange ─► bitswap ─► swarm ─► sockets
//! ```
//!
//! Each part has its own family of tasks, so that stopping can go from the left to the right:
//! whoever uses a part goes before it.

use crate::bitswap::policy::{Every, Policy};
use crate::bitswap::{Account, Bitswap, Gateways, HttpError, Reach, Rules, Stat};
use crate::config::Config;
use crate::event::{self, Event};
use crate::exchange::Exchange;
use crate::jobs;
use crate::limits::Limits;
use crate::metrics;
use crate::name::Names;
use crate::name::dns::Dns;
use crate::name::pubsub::Pubsub;
use crate::name::resolver::Resolver;
use crate::perf::{Perf, PerfError, Run};
use crate::pins::Follows;
use crate::pins::jobs::PinJobs;
use crate::provide::{self, Provide};
use crate::routing::routers::{Routers, RoutersError};
use crate::routing::{Directory, Routing};
use crate::swarm::{self, Online, Peers};
use crate::tasks::Tasks;
use crate::throttle::Throttle;
use crate::web::Visitors;
use cairn_store::{Cid, Store};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A running node.
#[must_use = "dropping a node aborts its tasks; call `stop` to end them in order"]
pub struct Node {
    peers: Peers,
    routing: Routing,
    directory: Directory,
    resolver: Resolver,
    follows: Follows,
    pin_jobs: PinJobs,
    exchange: Exchange,
    bitswap: Bitswap,
    perf: Perf,
    provide: Provide,
    throttle: Throttle,
    /// Until somebody takes them.
    visitors: Mutex<Option<Visitors>>,
    events: broadcast::Sender<Event>,
    libp2p_metrics: Arc<prometheus_client::registry::Registry>,
    families: Families,
}

/// The tasks of each part.
struct Families {
    jobs: Tasks,
    bitswap: Tasks,
    swarm: Tasks,
}

impl Families {
    fn new() -> Self {
        let jobs = Tasks::new();
        Self {
            bitswap: jobs.family(),
            swarm: jobs.family(),
            jobs,
        }
    }

    /// In the order of stopping.
    fn all(&self) -> [&Tasks; 3] {
        [&self.jobs, &self.bitswap, &self.swarm]
    }
}

impl Drop for Families {
    fn drop(&mut self) {
        for family in self.all() {
            family.abort();
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Node")
            .field("peer", &self.peer_id())
            .finish_non_exhaustive()
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        why: String,
    },
    /// An address lies outside the configured network.
    #[error(
        "{address} is outside the network `{network}` this node is limited to; change `network` or `addresses.swarm`"
    )]
    Outside {
        /// The address.
        address: Multiaddr,
        /// The network's name.
        network: &'static str,
    },
    /// QUIC cannot be kept private.
    #[error(
        "{0} is a QUIC address, and with swarm.key there is no QUIC: it has its own encryption, which knows no such key; \
         leave it out of `addresses.swarm`, or remove swarm.key"
    )]
    PrivateQuic(Multiaddr),
    /// A private network's node was to begin with the public network's peers.
    #[error(
        "swarm.key makes this node's network private, and {0} in `bootstrap` belongs to the public one; \
         `cairn bootstrap rm {0}` takes it out"
    )]
    PrivateBootstrap(Multiaddr),
    /// Closing connections would never end.
    #[error(
        "`connections.low` is {low} and `connections.high` is {high}: above `high` connections some are closed until \
         `low` are left, so `low` may be no more than `high`; set the one that is in the way first"
    )]
    Crossed {
        /// How many are left.
        low: u32,
        /// Above how many some are closed.
        high: u32,
    },
    /// Nobody could ever be connected to.
    #[error(
        "`fetch.connections` is 0, which leaves no connection to anybody; `cairn daemon --offline` runs without peers"
    )]
    Alone,
    /// The transports could not be built from the key.
    #[error("cannot set up the transports: {0}")]
    Transport(String),
    /// Its settings do not fit together.
    #[error("cannot set up IPNS over gossipsub: {0}; `names.pubsub = false` starts without it")]
    Pubsub(String),
    /// What is provided cannot be remembered, not even in memory.
    #[error("cannot set up providing: {0}")]
    Provide(String),
    /// The metrics clash.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<RoutersError> for StartError {
    fn from(error: RoutersError) -> Self {
        match error {
            RoutersError::Metrics(error) => Self::Metrics(error),
            RoutersError::Tls(error) => Self::Transport(error.to_string()),
        }
    }
}

impl Node {
    /// Starts everything; returns when every listener is up. The metrics go to `registry`, which
    /// must not have had a node's before. What was started is gone again if this fails.
    pub async fn start(
        store: Store,
        keys: Keypair,
        config: Config,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let families = Families::new();
        let events = event::channel();
        // Before anything can happen, so that the job misses no peer.
        let heard = events.subscribe();

        let Online {
            peers,
            routing,
            wire,
            perf,
            pubsub,
            web,
            foreign,
        } = swarm::start(&keys, &config, &families.swarm, &events, registry).await?;
        let providing = provide::Options::of(&config);
        let routers = Routers::new(config.network, config.routers, &families.swarm, registry)?;
        let routing = routing.beside(routers);
        let dns = Dns::new(config.dns, config.network);
        dns.register(registry)?;
        let denylist = config.denylist;
        let denied: Arc<dyn Policy> = Arc::new(denylist.clone());
        let serve: Arc<dyn Policy> = Arc::new(Every(vec![config.serve, denied]));
        let directory = Directory::new(
            (routing.clone(), peers.clone()),
            store.clone(),
            config.network,
            Arc::clone(&serve),
        )
        .denying(denylist.clone());
        let throttle = Throttle::new(config.limits.clone(), registry)?;
        let visitors = web.zip(config.web).map(|(wire, manners)| {
            let policy = Arc::clone(&serve);
            Visitors::new(wire, manners, throttle.clone(), policy, registry)
        });
        let rules = Rules {
            throttle: throttle.clone(),
            policy: Arc::clone(&serve),
        };
        let reach = Reach {
            me: keys.public().to_peer_id(),
            network: (routing.clone(), peers.clone()),
            gateways: Gateways::new(config.network, config.gateways),
        };
        let bitswap = Bitswap::start(
            wire,
            store.clone(),
            reach,
            rules,
            &families.bitswap,
            events.clone(),
            registry,
        )
        .map_err(|error| match error {
            HttpError::Metrics(error) => StartError::Metrics(error),
            HttpError::Tls(error) => StartError::Transport(error.to_string()),
        })?;
        let perf = Perf::start(perf, &families.bitswap, registry)?;
        let exchange = Exchange::online(store.clone(), bitswap.clone(), config.fetch_idle)
            .denying(denylist.clone());

        let names = Names::new(
            store.clone(),
            Some(routing.clone()),
            config.names,
            &families.jobs,
        );
        if let Some(wires) = pubsub {
            let network = (routing.clone(), peers.clone());
            Pubsub::start(wires, &names, network, &events, &families.jobs, registry)?;
        }
        names.register(registry)?;
        let resolver = Resolver::new(names, dns).denying(denylist);
        let told = Some(routing.clone());
        let follows = Follows::new(exchange.clone(), resolver.clone(), told);
        let pin_jobs = PinJobs::new(follows.clone(), config.pins_at_once);
        if !store.is_read_only() {
            follows.run(&families.jobs);
            follows.keep_expiring(&families.jobs);
            pin_jobs.run(&families.jobs);
        }
        let provide = provide::start(
            (store, serve),
            routing.clone(),
            (heard, events.clone()),
            providing,
            &families.jobs,
            peers.local(),
        )
        .map_err(|error| StartError::Provide(error.to_string()))?;
        provide.register(registry)?;
        jobs::keep_in_order(&exchange, config.scrub_share, &families.jobs, &events);

        Ok(Self {
            peers,
            routing,
            directory,
            resolver,
            follows,
            pin_jobs,
            exchange,
            bitswap,
            perf,
            provide,
            throttle,
            visitors: Mutex::new(visitors.transpose()?),
            events,
            libp2p_metrics: foreign,
            families,
        })
    }

    /// Our name.
    pub fn peer_id(&self) -> PeerId {
        self.peers.local()
    }

    /// Blocks: the store first, then peers.
    pub fn exchange(&self) -> Exchange {
        self.exchange.clone()
    }

    /// Connections.
    pub fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Providers.
    pub fn routing(&self) -> Routing {
        self.routing.clone()
    }

    /// Where names lead.
    pub fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }

    /// Pins that follow names.
    pub fn follows(&self) -> Follows {
        self.follows.clone()
    }

    /// Pins that are made in the background.
    pub fn pin_jobs(&self) -> PinJobs {
        self.pin_jobs.clone()
    }

    /// Providers and peers, for others.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// What is provided, and how that goes.
    pub fn provide(&self) -> Provide {
        self.provide.clone()
    }

    /// What Bitswap did.
    pub async fn bitswap(&self) -> Stat {
        self.bitswap.stat().await
    }

    /// Measures the way to a connected peer: sends it so many bytes, then has it send so many, over
    /// one stream of `/perf/1.0.0`. Nothing of it touches the store.
    pub async fn perf(&self, peer: PeerId, upload: u64, download: u64) -> Result<Run, PerfError> {
        self.perf.run(peer, upload, download).await
    }

    /// Peers that come with requests, for the one who answers them; `None` if they may not, or another has taken them.
    pub fn visitors(&self) -> Option<Visitors> {
        let visitors = self.visitors.lock();
        visitors.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What was exchanged with a peer, if anything is remembered.
    pub async fn account(&self, peer: PeerId) -> Option<Account> {
        self.bitswap.account(peer).await
    }

    /// What a peer wants of us.
    pub async fn wants_of(&self, peer: PeerId) -> Vec<Cid> {
        self.bitswap.wants_of(peer).await
    }

    /// Other limits from now on. Tells why no connection is made under them just now, if none is.
    pub fn set_limits(&self, limits: Limits) -> Option<String> {
        self.peers.set_limits(&limits);
        self.throttle.set(limits);
        self.peers.refuses()
    }

    /// The same, for whoever measures longer than it may hold the node.
    pub fn measuring(&self) -> Perf {
        self.perf.clone()
    }

    /// Facts from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Cancelled when a part broke that the node cannot go on without: the daemon should end.
    pub fn broken(&self) -> CancellationToken {
        self.families.swarm.alarm()
    }

    /// libp2p's own metrics in text format 0.0.4, without `# EOF`.
    pub fn libp2p_metrics(&self) -> String {
        metrics::encode(&self.libp2p_metrics)
    }

    /// Stops in the reverse order of starting; false if it took longer than `grace`.
    pub async fn stop(self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        let mut in_time = true;
        for family in self.families.all() {
            let left = deadline.saturating_duration_since(Instant::now());
            in_time &= family.stop(left).await;
        }
        in_time
    }
}
