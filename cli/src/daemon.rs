//! The node, the gateway and the RPC together, for as long as they are wanted.
//!
//! Starting has one visible order: read the configuration, open the store, bind every listener,
//! start the node, then what uses it; the addresses are told last, when they answer. `serve` binds
//! before it makes a repository and adds after the start, so that what fails leaves nothing half-done. Stopping goes
//! the other way round, whoever uses a part before the part, within [`STOP_TIME_MAX`].

use crate::args::{DaemonArgs, Global, ServeArgs};
use crate::commands::{Shell, add, sources};
use crate::config::address::ListenAddress;
use crate::config::{Config, Environment, TEMPLATE};
use crate::exit::Failure;
use crate::output::{self, Printer, escape};
use crate::repository::{Listener, Repository, RepositoryError};
use crate::rpc::add::Line;
use crate::rpc::api::Api;
use crate::rpc::client::Endpoint;
use crate::rpc::context::{Content, Context, Online, tell_opening};
use crate::rpc::entries::{Folders, LocalUpload, Walk};
use crate::rpc::guard::Guard;
use crate::rpc::server::{MetricsPage, Server, Service};
use cairn_gateway::Gateway;
use cairn_gateway::server::Entrances;
use cairn_node::denylist::Denylist;
use cairn_node::keystore::{Keystore, OWN};
use cairn_node::name::Names;
use cairn_node::name::dns::{Dns, Fixed};
use cairn_node::name::resolver::Resolver;
use cairn_node::node::StartError;
use cairn_node::private::{Need, SwarmKey};
use cairn_node::tasks::Tasks;
use cairn_node::{Exchange, Node};
use cairn_store::{Cid, Store};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// `daemon`.
pub async fn run(
    repository: Repository,
    global: &Global,
    arguments: &DaemonArgs,
    environment: Environment,
) -> Result<(), Failure> {
    if arguments.enable_gc {
        output::note("--enable-gc does nothing: garbage goes with `cairn repo gc` only");
    }
    let private = swarm_key(&repository, environment.swarm_key)?;
    let mut printer = Printer::default();
    printer.line("Initializing daemon...")?;
    printer.flush()?;
    if arguments.init && !repository.exists() {
        let name = repository.init()?;
        printer.line(&format!("peer identity: {name}"))?;
    }
    let config = repository.config()?;
    starts(&config, global, private)?;
    let store = open_store(&repository, &config).await?;
    let signals = Signals::listen()?;
    let listeners = Listeners::bind(&config).await?;
    let reach = reach(global, private, environment);
    let daemon = Daemon::start(repository, config, store, listeners, reach).await?;
    daemon.print_addresses(&mut printer).await?;
    printer.line("Daemon is ready")?;
    printer.flush()?;
    daemon.run_until_stopped(signals).await
}

/// `serve`: a repository if there is none, the daemon, and the paths in it.
pub async fn serve(
    repository: Repository,
    global: &Global,
    arguments: ServeArgs,
    environment: Environment,
) -> Result<(), Failure> {
    // What can be found wrong is found wrong before anything is made.
    for path in &arguments.paths {
        fs::symlink_metadata(path)
            .map_err(|error| Failure::runtime(format!("{}: {error}", path.display())))?;
    }
    let private = swarm_key(&repository, environment.swarm_key)?;
    let is_new = !repository.exists();
    let config = if is_new {
        Config::parse(TEMPLATE)?
    } else {
        repository.config()?
    };
    starts(&config, global, private)?;
    let mut printer = Printer::default();
    let (store, listeners) = if is_new {
        let listeners = Listeners::bind(&config).await?;
        let name = repository.init()?;
        let path = repository.path().display().to_string();
        printer.line(&format!("initialized a repository at {}", escape(&path)))?;
        printer.line(&format!("peer identity: {name}"))?;
        printer.flush()?;
        (open_store(&repository, &config).await?, listeners)
    } else {
        // First: a daemon that runs here already has the ports too.
        let store = open_store(&repository, &config).await?;
        (store, Listeners::bind(&config).await?)
    };
    let mut signals = Signals::listen()?;
    let reach = reach(global, private, environment);
    let daemon = Daemon::start(repository, config, store, listeners, reach).await?;
    let adding = daemon.add_all(global, arguments.paths, &mut printer);
    let added = tokio::select! {
        added = adding => added,
        _ = signals.next() => Err(Failure::runtime("interrupted")),
    };
    if let Err(failure) = added {
        Box::pin(daemon.stop()).await?;
        return Err(failure);
    }
    printer.line("Daemon is ready")?;
    printer.flush()?;
    daemon.run_until_stopped(signals).await
}

/// Whether a node would start, before anything is opened for it.
fn starts(config: &Config, global: &Global, private: Option<SwarmKey>) -> Result<(), Failure> {
    if global.offline {
        return Ok(());
    }
    let checked = config.check(private);
    checked.map_err(|error| Failure::runtime(error.to_string()))
}

/// Adds and pins one path in this process; gives the line of its root.
async fn add_path(
    repository: &Repository,
    content: &Content,
    global: &Global,
    path: PathBuf,
) -> Result<Line, Failure> {
    let (store, settings) = (content.store.clone(), content.settings.clone());
    let context = Context::with_store(repository.clone(), store, settings);
    let endpoint = Endpoint::Here(Api::new(Arc::new(context)));
    let shell = Shell::over(endpoint, global.clone(), repository.clone());
    let upload = LocalUpload {
        sources: sources(vec![path.clone()], None),
        walk: Walk {
            folders: Folders::Take,
            ..Walk::default()
        },
        ..LocalUpload::default()
    };
    let total = add::total(&upload).await;
    let progress = output::Progress::bytes(total.filter(|_| output::is_watched()));
    let question = shell.question("add").with("progress", true).upload(upload);
    let mut answer = shell.ask(question).await?;
    let mut meter = add::Meter::default();
    let mut last = None;
    loop {
        let lines: Vec<Line> = answer.values().await?;
        if lines.is_empty() {
            break;
        }
        for line in lines {
            progress.at(meter.read(&line));
            if !line.hash.is_empty() {
                last = Some(line);
            }
        }
    }
    last.ok_or_else(|| Failure::runtime(format!("{} was not added", path.display())))
}

async fn open_store(repository: &Repository, config: &Config) -> Result<Store, Failure> {
    let (opener, config) = (repository.clone(), config.clone());
    let opened =
        tokio::task::spawn_blocking(move || opener.open_store(&config, &mut tell_opening()));
    let store = opened
        .await
        .map_err(|_| Failure::runtime("opening the store broke down; this is a bug in cairn"))?;
    store.map_err(|error| match (error, repository.listener(Listener::Api)) {
        (RepositoryError::InUse { path, holder }, Some(address)) => Failure::runtime(format!(
            "a daemon is running already: the repository at {path} is in use by {holder} (it holds repo.lock \
             there), which takes commands at {address}; `cairn add` and the others go through it, `cairn \
             shutdown` ends it"
        )),
        (error, _) => error.into(),
    })
}

/// The signals that ask a daemon to stop. Heard from the moment this is made, whenever they are
/// looked at.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// How far a daemon reaches.
#[derive(Debug)]
struct Reach {
    /// Whether there is a network at all.
    is_online: bool,
    /// Whether it is a private one.
    private: Option<SwarmKey>,
    /// The names of which nobody is asked.
    fixed: Fixed,
    /// Where there are denylists beside the repository's own.
    denylists: Vec<PathBuf>,
}

fn reach(global: &Global, private: Option<SwarmKey>, environment: Environment) -> Reach {
    Reach {
        is_online: !global.offline,
        private: private.filter(|_| !global.offline),
        fixed: environment.fixed,
        denylists: environment.denylists,
    }
}

fn swarm_key(repository: &Repository, need: Need) -> Result<Option<SwarmKey>, Failure> {
    let key = SwarmKey::load(repository.path(), need);
    key.map_err(|error| Failure::runtime(error.to_string()))
}

/// Everything that runs.
struct Daemon {
    repository: Repository,
    api: Api,
    store: Store,
    node: Option<Arc<Node>>,
    gateway: Option<Gateway>,
    rpc: Server,
    metrics: Option<Server>,
    private: Option<SwarmKey>,
    tasks: Tasks,
    stop: CancellationToken,
}

/// Every listener but the swarm's, bound before anything starts.
struct Listeners {
    rpc: TcpListener,
    guard: Guard,
    gateway: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, Failure> {
        let addresses = &config.addresses;
        // Asked before it is bound: it must never be open to all, not even for a moment.
        let wanted = addresses.rpc.0;
        Guard::new(wanted.0, &config.rpc).map_err(|error| Failure::runtime(error.to_string()))?;
        let rpc = bind("addresses.rpc", wanted).await?;
        let guard = Guard::new(rpc.local_addr()?, &config.rpc)
            .map_err(|error| Failure::runtime(error.to_string()))?;
        let gateway = match addresses.gateway.0.0 {
            Some(address) => Some(bind("addresses.gateway", address).await?),
            None => None,
        };
        let metrics = match addresses.metrics.0 {
            Some(address) => Some(bind("addresses.metrics", address).await?),
            None => None,
        };
        Ok(Self {
            rpc,
            guard,
            gateway,
            metrics,
        })
    }
}

async fn bind(key: &str, address: ListenAddress) -> Result<TcpListener, Failure> {
    TcpListener::bind(address.0).await.map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            let port = address.0.port();
            return Failure::runtime(format!(
                "cannot listen on {address}: port {port} is used by another program; stop it, or choose another port with `cairn config set {key} <address>`"
            ));
        }
        Failure::runtime(format!(
            "cannot listen on {address}: {error}; `cairn config set {key} <address>` changes it"
        ))
    })
}

impl Daemon {
    async fn start(
        repository: Repository,
        config: Config,
        store: Store,
        listeners: Listeners,
        reach: Reach,
    ) -> Result<Self, Failure> {
        let registry = Registry::new();
        let register = |error: prometheus::Error| {
            Failure::runtime(format!("cannot register metrics: {error}"))
        };
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .and_then(|()| store.register(&registry))
            .map_err(register)?;
        let tasks = Tasks::new();
        let stop = CancellationToken::new();
        // Now, whoever has a key to use: that the secret for them is missing is told at the start.
        let keystore = Arc::new(repository.keystore()?);
        // Before anything is served.
        let denylist = read_denylists(&repository, &config, &reach.denylists).await?;
        denylist.register(&registry).map_err(register)?;
        denylist.watch(&tasks);
        let dns = config.dns.settings(&reach.fixed);
        let node = if reach.is_online {
            let mut settings = config.node(reach.private);
            settings.dns = dns.clone();
            settings.denylist = denylist.clone();
            Some(start_node(&repository, &keystore, settings, &store, &registry).await?)
        } else {
            let share = config.storage.scrub_share;
            cairn_node::keep_in_order_offline(store.clone(), share, &tasks);
            None
        };
        let resolver = match &node {
            Some(node) => node.resolver(),
            None => {
                let names = Names::new(store.clone(), None, config.names.options(), &tasks);
                // Nobody is asked for blocks; where names lead is the operator's `--offline` to say.
                Resolver::new(names, Dns::new(dns, config.network)).denying(denylist.clone())
            }
        };
        if node.is_some() {
            let keys = Arc::clone(&keystore);
            resolver
                .names()
                .keep_published(keys, config.names.republish_interval.0);
        }
        let exchange = match &node {
            Some(node) => node.exchange(),
            None => Exchange::offline(store.clone()).denying(denylist.clone()),
        };
        let entrances = Entrances {
            listener: listeners.gateway,
            visitors: node.as_ref().and_then(|node| node.visitors()),
        };
        let gateway = match entrances {
            Entrances {
                listener: None,
                visitors: None,
            } => None,
            entrances => Some(
                Gateway::start(
                    entrances,
                    exchange.clone(),
                    node.as_ref().map(|node| node.directory()),
                    resolver.clone(),
                    within_descriptors(config.gateway.clone()),
                    &tasks,
                    &registry,
                )
                .map_err(register)?,
            ),
        };
        let content = Content {
            store: store.clone(),
            exchange,
            settings: config.storage.clone(),
        };
        let denied = config.serve.denied();
        let online = node.as_ref().map(|node| Online::new(node, denied));
        let context = Context::daemon(repository.clone(), content, online, stop.clone())
            .with_keystore(keystore)
            .with_denylist(denylist)
            .with_roots(config.filestore.roots.clone())
            .with_resolver(resolver);
        let context = match &node {
            Some(node) => context
                .with_follows(node.follows())
                .with_jobs(node.pin_jobs()),
            None => context,
        };
        if node.is_none() && !store.is_read_only() {
            let follows = context.follows().await;
            let follows = follows.map_err(|error| Failure::runtime(error.to_string()))?;
            follows.keep_expiring(&tasks);
        }
        let api = Api::new(Arc::new(context));
        let page = metrics_page(registry, node.as_ref().map(Arc::downgrade));
        let metrics = match listeners.metrics {
            Some(listener) => Some(Server::start(
                listener,
                Service::Metrics(Arc::clone(&page)),
                share_of_descriptors(METRICS_DESCRIPTOR_SHARE).min(METRICS_CONNECTIONS_MAX),
                tasks.family(),
            )?),
            None => None,
        };
        let service = Service::Rpc {
            api: api.clone(),
            guard: listeners.guard,
            metrics: page,
        };
        let rpc = Server::start(
            listeners.rpc,
            service,
            share_of_descriptors(RPC_DESCRIPTOR_SHARE).min(RPC_CONNECTIONS_MAX),
            tasks.family(),
        )?;
        let address = ListenAddress(rpc.address());
        if store.is_read_only() {
            output::note(&format!(
                "commands cannot be told where this daemon listens; they reach it with --api {address}"
            ));
        } else {
            let mut addresses = vec![(Listener::Api, address)];
            let gateway = gateway.as_ref().and_then(Gateway::address);
            addresses.extend(gateway.map(|at| (Listener::Gateway, ListenAddress(at))));
            for (listener, address) in addresses {
                let announced = repository.announce_listener(listener, address);
                if announced.is_err() && store.give_room() {
                    repository.announce_listener(listener, address)?;
                } else {
                    announced?;
                }
            }
        }
        Ok(Self {
            repository,
            api,
            store,
            node,
            gateway,
            rpc,
            metrics,
            private: reach.private,
            tasks,
            stop,
        })
    }

    /// Adds and pins paths, and tells how they are called from now on.
    async fn add_all(
        &self,
        global: &Global,
        paths: Vec<PathBuf>,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let content = self.api.context().content().await?;
        let mut added = Vec::new();
        for path in paths {
            added.push(add_path(&self.repository, content, global, path).await?);
        }
        self.print_addresses(printer).await?;
        let gateway = self.gateway.as_ref().and_then(Gateway::address);
        for line in &added {
            printer.line(&format!("added {} {}", line.hash, escape(&line.name)))?;
            if let Some(address) = gateway {
                printer.line(&format!("  http://{address}/ipfs/{}", line.hash))?;
            }
            if let Ok(cid) = line.hash.parse::<Cid>() {
                self.api.context().announce(&cid);
            }
        }
        Ok(())
    }

    async fn print_addresses(&self, printer: &mut Printer) -> io::Result<()> {
        match &self.node {
            Some(node) => {
                printer.line(&format!("PeerID: {}", node.peer_id()))?;
                if let Some(key) = &self.private {
                    printer
                        .line("Swarm is limited to private network of peers with the swarm key")?;
                    printer.line(&format!("Swarm key fingerprint: {}", key.fingerprint()))?;
                }
                for address in node.peers().listening().await {
                    printer.line(&format!("Swarm listening on {address}"))?;
                }
            }
            None => printer.line("Swarm not listening, running in offline mode.")?,
        }
        let rpc = ListenAddress(self.rpc.address());
        printer.line(&format!("RPC API server listening on {rpc}"))?;
        if let Some(address) = self.gateway.as_ref().and_then(Gateway::address) {
            let address = ListenAddress(address);
            printer.line(&format!("Gateway server listening on {address}"))?;
        }
        let metrics = self.metrics.as_ref().unwrap_or(&self.rpc).address();
        printer.line(&format!("Metrics at http://{metrics}/metrics"))
    }

    /// Runs until a signal or the `shutdown` command, then stops in order. A second signal does
    /// not wait.
    async fn run_until_stopped(self, mut signals: Signals) -> Result<(), Failure> {
        let broken = self.node.as_ref().map(|node| node.broken());
        let node_broken = async {
            match broken {
                Some(broken) => broken.cancelled_owned().await,
                None => std::future::pending().await,
            }
        };
        // Raised by the gateway and the listeners of the RPC and the metrics.
        let alarm = self.tasks.alarm().cancelled_owned();
        let mut failed = false;
        let mut signals_left = 1;
        tokio::select! {
            () = self.stop.cancelled() => signals_left = 2,
            () = node_broken => failed = true,
            () = alarm => failed = true,
            heard = signals.next() => if heard == SignalKind::interrupt() {
                output::note("Received interrupt signal, shutting down...");
                output::note("(Hit ctrl-c again to force-shutdown the daemon.)");
            } else {
                tracing::info!("asked to stop by SIGTERM");
            }
        }
        let stopped = async {
            Box::pin(self.stop()).await?;
            if failed {
                return Err(Failure::runtime(
                    "a part of the node broke down and the daemon stopped; the log tells which",
                ));
            }
            Ok(())
        };
        // After the `shutdown` command the first signal only repeats it.
        let impatient = async {
            for _ in 0..signals_left {
                signals.next().await;
            }
        };
        tokio::select! {
            result = stopped => result,
            () = impatient => Err(Failure::runtime("stopped before everything was closed")),
        }
    }

    async fn stop(self) -> Result<(), Failure> {
        let deadline = Instant::now() + STOP_TIME_MAX;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.repository.withdraw_listener(Listener::Api);
        self.repository.withdraw_listener(Listener::Gateway);
        // No new work.
        let mut in_order = self.rpc.stop(left().min(DRAIN_TIME_MAX)).await;
        if let Some(metrics) = self.metrics {
            in_order &= metrics.stop(left().min(DRAIN_TIME_MAX)).await;
        }
        if let Some(gateway) = self.gateway {
            in_order &= gateway.stop(left().min(DRAIN_TIME_MAX)).await;
        }
        in_order &= self.tasks.stop(left().min(DRAIN_TIME_MAX)).await;
        let flushed = self.api.context().flush_files().await;
        drop(self.api);
        // Peers see a goodbye, not a timeout.
        match self.node.map(Arc::into_inner) {
            Some(Some(node)) => in_order &= node.stop(left().min(DRAIN_TIME_MAX)).await,
            // A request that was cut still asks it something.
            Some(None) => in_order = false,
            None => {}
        }
        // Nobody writes any more.
        let closed = tokio::time::timeout(left(), self.store.close()).await;
        if !in_order {
            tracing::warn!("not everything ended in time and some of it was cut");
        }
        match closed {
            Ok(closed) => {
                closed.map_err(|error| Failure::runtime(error.to_string()))?;
                Ok(flushed?)
            }
            Err(_) => Err(Failure::runtime("the repository was not closed in time")),
        }
    }
}

async fn read_denylists(
    repository: &Repository,
    config: &Config,
    system: &[PathBuf],
) -> Result<Denylist, Failure> {
    let denylist = repository.denylist(config, system);
    let reading = denylist.clone();
    let read = tokio::task::spawn_blocking(move || reading.reload()).await;
    read.map_err(|_| Failure::runtime("reading the denylists broke down; this is a bug in cairn"))?;
    // Nothing is served that a list may deny which its operator relies on.
    let lacking = denylist.lacking();
    if lacking.is_empty() {
        return Ok(denylist);
    }
    Err(Failure::runtime(format!(
        "not started, because what these denylists deny is not known: {}. Mend them, let this user read them, or take \
         them away (a name that does not end in .deny is enough); `denylists.system = false` leaves out those that other \
         programs use too",
        lacking.join("; ")
    )))
}

async fn start_node(
    repository: &Repository,
    keystore: &Arc<Keystore>,
    config: cairn_node::Config,
    store: &Store,
    registry: &Registry,
) -> Result<Arc<Node>, Failure> {
    let opening = Arc::clone(keystore);
    let opened = tokio::task::spawn_blocking(move || opening.load(OWN)).await;
    let own = opened
        .map_err(|_| Failure::runtime("opening the node's key broke down; this is a bug in cairn"))?
        .map_err(|error| Failure::runtime(error.to_string()))?;
    let keys = own.keypair().ok_or_else(|| {
        Failure::runtime("the node's key is an RSA key of more than 4096 bits, with which no connection can be made")
    })?;
    let folder = (!store.is_read_only()).then(|| repository.path().join(PROVIDE_FOLDER));
    let config = cairn_node::Config {
        memory: Some(repository.peers().join("dht")),
        provide_folder: folder,
        ..config
    };
    let started = Box::pin(Node::start(store.clone(), keys, config, registry)).await;
    match started {
        Ok(node) => Ok(Arc::new(node)),
        Err(StartError::Listen { address, why }) => {
            let absent = format!("os error {}", Errno::ADDRNOTAVAIL.raw_os_error());
            let is_absent = why.contains(&absent);
            let what = match is_absent {
                true => "no interface of this machine has it;",
                false => "stop what uses it, or",
            };
            let error = StartError::Listen { address, why };
            Err(Failure::runtime(format!(
                "{error}; {what} choose another address with `cairn config set addresses.swarm \
                 '[\"<address>\"]'` (a port of 0 is any that is free)"
            )))
        }
        Err(error) => Err(Failure::runtime(error.to_string())),
    }
}

/// Takes no more connections than the system has descriptors for: whoever is let in must find some left
/// for what it asks for, and who comes too many waits in the listener's queue.
fn within_descriptors(config: cairn_gateway::Config) -> cairn_gateway::Config {
    let wanted = config.connections_max;
    let connections_max = share_of_descriptors(GATEWAY_DESCRIPTOR_SHARE).min(wanted);
    if connections_max < wanted {
        tracing::warn!(
            %connections_max,
            descriptors = descriptors(),
            "the system allows too few open files for gateway.connections_max"
        );
    }
    cairn_gateway::Config {
        connections_max,
        ..config
    }
}

/// One in so many of the descriptors that the system allows, at least one.
fn share_of_descriptors(share: u64) -> NonZeroU32 {
    let descriptors = u32::try_from(descriptors() / share).unwrap_or(u32::MAX);
    NonZeroU32::new(descriptors).unwrap_or(NonZeroU32::MIN)
}

fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Our metrics and libp2p's, after one another.
fn metrics_page(registry: Registry, node: Option<Weak<Node>>) -> MetricsPage {
    Arc::new(move || {
        let mut page = match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "the metrics could not be written");
                String::new()
            }
        };
        if let Some(node) = node.as_ref().and_then(Weak::upgrade) {
            page.push_str(&node.libp2p_metrics());
        }
        page
    })
}

/// Where it is remembered what was provided; derived, and may be deleted.
const PROVIDE_FOLDER: &str = "provide";
/// Which share of the descriptors each listener's connections may take: a fourth the gateway's, an eighth
/// the commands'. A fourth is the segments', the rest is for the swarm and what commands open.
const GATEWAY_DESCRIPTOR_SHARE: u64 = 4;
const RPC_DESCRIPTOR_SHARE: u64 = 8;
const METRICS_DESCRIPTOR_SHARE: u64 = 32;
/// Most connections of each, however many descriptors there are.
const RPC_CONNECTIONS_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);
const METRICS_CONNECTIONS_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(31);
/// How long stopping may take in all.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// How long one part may take to end its running work.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);
