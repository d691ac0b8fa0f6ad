//! What the operator chose: `config.toml` and the environment. Nothing else reads either.
//!
//! The file is strict: an unknown key is an error that names the nearest known one, so that a
//! misspelt limit is never silently no limit. [`Config::default`] is what holds where the file is
//! silent, [`TEMPLATE`] the file that `init` writes, and [`edit`] how single keys are changed
//! without losing the operator's comments.

pub mod address;
pub mod connections;
pub mod duration;
pub mod edit;
mod keys;
pub mod keystore;
pub mod names;
pub mod serve;
pub mod view;

use crate::logging;
use crate::rpc::guard::Guard;
use address::{ListenAddress, OptionalAddress};
use cairn_node::keystore::{Secret, SecretError};
use cairn_node::name::dns;
use cairn_node::private::{Need, SwarmKey};
use cairn_node::provide::Strategy;
use cairn_node::web::Manners;
use cairn_node::{Endpoint, Limits, Multiaddr, Network, PeerId, reach};
use connections::{Connections, PeerAddress, Swarm};
use duration::Interval;
use keystore::KeystoreSection;
use names::NamesSection;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serve::Serve;
use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The whole of `config.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How far this node reaches: `local`, `lan` or `public`.
    pub network: Network,
    /// Whom to ask first, each with `/p2p/<peer id>`.
    pub bootstrap: Vec<PeerAddress>,
    /// Where it listens.
    pub addresses: Addresses,
    /// How blocks are kept.
    pub storage: cairn_store::config::Config,
    /// How blocks are served over HTTP.
    pub gateway: cairn_gateway::Config,
    /// Who may command this node.
    pub rpc: Rpc,
    /// How blocks are fetched.
    pub fetch: Fetch,
    /// How it is found out who has them.
    pub routing: Routing,
    /// How it is found out where domains lead.
    pub dns: Dns,
    /// How names of keys are published and looked for.
    pub names: NamesSection,
    /// How many connections there are.
    pub connections: Connections,
    /// Whom with, and whom not.
    pub swarm: Swarm,
    /// What others are told is here.
    pub provide: Provide,
    /// What others may find out about this node.
    pub diag: Diag,
    /// How this node may make itself reachable.
    pub reach: reach::Settings,
    /// How much is sent and received.
    pub limits: Limits,
    /// Who is given blocks.
    pub serve: Serve,
    /// What is not wanted here.
    pub denylists: Denylists,
    /// Which files may be added in place through the RPC.
    pub filestore: Filestore,
    /// What keys are sealed with.
    pub keystore: KeystoreSection,
    /// What is logged.
    pub log: Log,
}

/// The `[addresses]` section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Addresses {
    /// Where peers reach this node. Without it, what fits `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swarm: Option<Vec<Multiaddr>>,
    /// Where commands are taken.
    pub rpc: RpcAddress,
    /// Where files are served; empty for not at all.
    pub gateway: GatewayAddress,
    /// Where metrics are served; empty for the RPC's listener.
    pub metrics: OptionalAddress,
}

/// Where commands are taken; port 5001 unless chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RpcAddress(pub ListenAddress);

impl Default for RpcAddress {
    fn default() -> Self {
        Self(ListenAddress::loopback(RPC_PORT))
    }
}

/// Where files are served; port 8080 unless chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayAddress(pub OptionalAddress);

impl Default for GatewayAddress {
    fn default() -> Self {
        Self(OptionalAddress(Some(ListenAddress::loopback(GATEWAY_PORT))))
    }
}

/// The `[rpc]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rpc {
    /// A secret that every request must bring as `Authorization: Bearer <token>`; empty for none,
    /// which is allowed on loopback only.
    pub token: String,
    /// Web origins that may send requests besides this machine's own, as `https://example.org`.
    pub origins: Vec<String>,
    /// Names under which the RPC may be reached besides `localhost` and plain addresses.
    pub hosts: Vec<String>,
}

/// The `[fetch]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// How long a fetch waits without any progress before it gives up.
    #[serde(deserialize_with = "some_patience")]
    pub timeout: Interval,
    /// Most connections to peers in all.
    pub connections: NonZeroU32,
    /// How many queued pins are fetched at once.
    pub pins_at_once: NonZeroU32,
    /// Trustless gateways that are asked besides peers.
    pub gateways: Vec<Endpoint>,
}

/// Without any, nothing would ever be fetched.
fn some_patience<'de, D: Deserializer<'de>>(from: D) -> Result<Interval, D::Error> {
    let interval = Interval::deserialize(from)?;
    match interval.0 >= PATIENCE_MIN {
        true => Ok(interval),
        false => Err(D::Error::custom("too short")),
    }
}

/// The least time that a fetch may wait.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

impl Default for Fetch {
    fn default() -> Self {
        Self {
            timeout: Interval(Duration::from_secs(30)),
            connections: const { NonZeroU32::new(512).unwrap() },
            pins_at_once: const { NonZeroU32::new(4).unwrap() },
            gateways: Vec::new(),
        }
    }
}

/// The `[routing]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    /// Services that are asked over HTTP who has what, besides the DHT.
    pub endpoints: Vec<Endpoint>,
}

/// The `[dns]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Who is asked, by what names end in.
    pub resolvers: dns::Resolvers,
    /// For how long an answer is believed at most.
    #[serde(deserialize_with = "a_memory")]
    pub max_cache_ttl: Interval,
}

fn a_memory<'de, D: Deserializer<'de>>(from: D) -> Result<Interval, D::Error> {
    let interval = Interval::deserialize(from)?;
    match interval.0 <= dns::TTL_MAX {
        true => Ok(interval),
        false => Err(D::Error::custom("too long")),
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            resolvers: dns::Resolvers::default(),
            max_cache_ttl: Interval(dns::MAX_CACHE_TTL),
        }
    }
}

impl Dns {
    /// The same for who looks up, with names that are `fixed`.
    pub fn settings(&self, fixed: &dns::Fixed) -> dns::Settings {
        dns::Settings {
            resolvers: self.resolvers.clone(),
            max_cache_ttl: self.max_cache_ttl.0,
            fixed: fixed.clone(),
        }
    }
}

/// The `[provide]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provide {
    /// Which blocks.
    pub strategy: Strategy,
    /// How often each is told again.
    #[serde(deserialize_with = "a_cycle")]
    pub interval: Interval,
}

/// Others forget what they were told after 48 hours.
fn a_cycle<'de, D: Deserializer<'de>>(from: D) -> Result<Interval, D::Error> {
    let interval = Interval::deserialize(from)?;
    match (CYCLE_MIN..=CYCLE_MAX).contains(&interval.0) {
        true => Ok(interval),
        false => Err(D::Error::custom("too short or too long")),
    }
}

/// The least and the most time between telling of a block and telling again.
const CYCLE_MIN: Duration = Duration::from_secs(60);
const CYCLE_MAX: Duration = Duration::from_secs(47 * 3600);

impl Default for Provide {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            interval: Interval(Duration::from_secs(22 * 3600)),
        }
    }
}

/// The `[filestore]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filestore {
    /// Folders whose files may be added in place through the RPC.
    pub roots: Vec<Root>,
}

/// A folder, absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Root(String);

impl Root {
    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

impl TryFrom<String> for Root {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match std::path::Path::new(&text).is_absolute() {
            true => Ok(Self(text)),
            false => Err(format!("{text:?} is no absolute path of a folder")),
        }
    }
}

impl From<Root> for String {
    fn from(root: Root) -> Self {
        root.0
    }
}

/// The `[denylists]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Denylists {
    /// Whether the lists that all IPFS programs of this machine and user share hold here too.
    pub system: bool,
}

impl Default for Denylists {
    fn default() -> Self {
        Self { system: true }
    }
}

/// The `[diag]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diag {
    /// Whether peers may measure the way to this node. Without it, what fits `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perf: Option<bool>,
}

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `cairn_node=debug,info`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "warn".to_owned(),
        }
    }
}

/// Why a configuration is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key that means nothing.
    #[error("{key}: unknown configuration key; {}", nearest.as_ref().map_or_else(|| "docs/configuration.md lists all".to_owned(), |known| format!("did you mean `{known}`?")))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value that its key cannot have.
    #[error("{key}: must be {must}, was {was}")]
    Value {
        /// The key.
        key: String,
        /// What is allowed.
        must: &'static str,
        /// What stood there.
        was: String,
    },
    /// A text that is no TOML.
    #[error("invalid configuration{place}: {why}")]
    Invalid {
        /// ` (line 3)`, or empty.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Values that do not go together, or not with the network.
    #[error("{0}")]
    Unfit(String),
    /// A key that can be read but not changed this way.
    #[error("`{key}` is a section; set one of its keys instead, as in `{example}`")]
    Section {
        /// The section.
        key: String,
        /// One of its keys.
        example: String,
    },
}

impl ConfigError {
    /// A level that the log does not know: told when it begins, which understands more than one word.
    pub fn of_level(level: &str) -> Self {
        keys::wrong("log.level", &toml::Value::String(level.to_owned()))
    }
}

impl Config {
    /// Reads a file's text. Whether a node would start with it is not asked: much is done without one.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid = |error: &toml::de::Error| ConfigError::Invalid {
            place: error
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| format!(" (line {})", before.matches('\n').count() + 1))
                .unwrap_or_default(),
            why: error.message().replace('\n', ", "),
        };
        let table: toml::Table = toml::from_str(text).map_err(|error| invalid(&error))?;
        toml::from_str(text).map_err(|error| match view::first_unknown(&table) {
            Some(key) => view::unknown(&key),
            None => keys::first_wrong(&table).unwrap_or_else(|| invalid(&error)),
        })
    }

    /// Whether a daemon would start with it, and do what it says; `private` is the key of its private network.
    pub fn check(&self, private: Option<SwarmKey>) -> Result<(), ConfigError> {
        let unfit = |why: String| ConfigError::Unfit(why);
        if logging::check(&self.log.level).is_err() {
            return Err(ConfigError::of_level(&self.log.level));
        }
        Guard::new(self.addresses.rpc.0.0, &self.rpc).map_err(|open| unfit(open.to_string()))?;
        for relay in &self.reach.relays {
            let text = relay.to_string();
            let name = text.rsplit_once("/p2p/").map(|(_, name)| name.parse());
            if !matches!(name, Some(Ok::<PeerId, _>(_))) {
                return Err(unfit(format!(
                    "reach.relays: {relay} does not end in /p2p/<peer id>, and anybody there would do without; \
                     `cairn id` at the relay prints it"
                )));
            }
        }
        let checked = self.node(private).check();
        checked.map_err(|error| unfit(error.to_string()))
    }

    /// Whether it may take the place of what the text `before` means: a node would start with it, or would not
    /// have started before either, which is put right one key after another. Then this gives what is still
    /// wrong.
    pub fn replace(
        &self,
        before: &str,
        private: Option<SwarmKey>,
    ) -> Result<Option<ConfigError>, ConfigError> {
        let Err(error) = self.check(private) else {
            return Ok(None);
        };
        match Self::parse(before).and_then(|before| before.check(private)) {
            Ok(()) => Err(error),
            Err(_) => Ok(Some(error)),
        }
    }

    /// Where peers reach this node.
    pub fn swarm_addresses(&self) -> Vec<Multiaddr> {
        if let Some(chosen) = &self.addresses.swarm {
            return chosen.clone();
        }
        let hosts: &[&str] = match self.network {
            Network::Local => &["/ip4/127.0.0.1"],
            Network::Lan | Network::Public => &["/ip4/0.0.0.0", "/ip6/::"],
        };
        hosts
            .iter()
            .flat_map(|host| {
                [
                    format!("{host}/tcp/{SWARM_PORT}"),
                    format!("{host}/udp/{SWARM_PORT}/quic-v1"),
                ]
            })
            .filter_map(|address| address.parse().ok())
            .collect()
    }

    /// The services that are not asked because `network` does not reach them, each in a sentence.
    pub fn services_outside(&self) -> Vec<String> {
        let name = self.network.name();
        let outside = |(_, service): &(&str, &Endpoint)| !service.is_within(self.network);
        let gateways = self.fetch.gateways.iter().map(|at| ("gateway", at));
        let routers = self.routing.endpoints.iter().map(|at| ("router", at));
        let tell = |(kind, service)| {
            format!(
                "the {kind} {service} is not asked: it is outside the network `{name}`, which `cairn config \
                 set network` changes"
            )
        };
        let services = gateways.chain(routers).filter(outside).map(tell);
        // Whoever left the system's resolver where it was named nobody.
        let resolvers = self.dns.resolvers.iter().filter(|(_, server)| {
            **server != dns::Server::System && !server.is_within(self.network)
        });
        let resolvers = resolvers.map(|(suffix, server)| {
            format!(
                "the resolver {server} for \"{suffix}\" in `dns.resolvers` is not asked: it is outside the network \
                 `{name}`, which `cairn config set network` changes"
            )
        });
        services.chain(resolvers).collect()
    }

    /// The peers and addresses that are not dialled because `network` does not reach them, each in a sentence.
    pub fn peers_outside(&self) -> Vec<String> {
        let bootstrap = self.bootstrap.iter().map(|peer| ("bootstrap", peer));
        let peering = self
            .swarm
            .peering
            .iter()
            .map(|peer| ("swarm.peering", peer));
        let outside = |(_, peer): &(&str, &PeerAddress)| !self.network.allows(&peer.0);
        let name = self.network.name();
        let tell = |(key, peer): (&str, &PeerAddress)| {
            format!(
                "{} in `{key}` is not dialled: it is outside the network `{name}`, which `cairn config set \
                 network` changes",
                peer.0
            )
        };
        bootstrap.chain(peering).filter(outside).map(tell).collect()
    }

    /// What the node's wiring needs to know. In a private network, whose key is `private`, it does not listen
    /// for QUIC unless it was told to, which it then refuses.
    pub fn node(&self, private: Option<SwarmKey>) -> cairn_node::Config {
        let mut config = cairn_node::Config {
            network: self.network,
            listen: self.swarm_addresses(),
            bootstrap: self.bootstrap.iter().map(|peer| peer.0.clone()).collect(),
            private,
            fetch_idle: self.fetch.timeout.0,
            connections_max: self.fetch.connections.get(),
            // As many as a processor can count.
            pins_at_once: self
                .fetch
                .pins_at_once
                .try_into()
                .unwrap_or(NonZeroUsize::MAX),
            gateways: self.fetch.gateways.clone(),
            routers: self.routing.endpoints.clone(),
            dns: self.dns.settings(&dns::Fixed::default()),
            names: self.names.options(),
            scrub_share: self.storage.scrub_share,
            provide_strategy: self.provide.strategy,
            provide_interval: self.provide.interval.0,
            perf: self.diag.perf,
            web: self.gateway.libp2p.then(Manners::default),
            reach: self.reach.clone(),
            limits: self.limits.clone(),
            serve: Arc::new(self.serve.policy()),
            peering: self
                .swarm
                .peering
                .iter()
                .map(|peer| peer.0.clone())
                .collect(),
            filters: self.swarm.filters.clone(),
            ..cairn_node::Config::default()
        };
        if private.is_some() && self.addresses.swarm.is_none() {
            let is_quic = |address: &Multiaddr| address.to_string().contains("/quic");
            config.listen.retain(|address| !is_quic(address));
        }
        self.connections.put_into(&mut config);
        config
    }
}

/// What the environment says. Read once, at the start.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `CAIRN_PATH`, or `~/.cairn`.
    pub repository: PathBuf,
    /// `CAIRN_LOG`.
    pub log: Option<String>,
    /// `VISUAL` or `EDITOR`.
    pub editor: Option<String>,
    /// `LIBP2P_FORCE_PNET`: whether there must be a `swarm.key`.
    pub swarm_key: Need,
    /// `CAIRN_PASSPHRASE`: what keys are sealed with.
    pub passphrase: Option<Secret>,
    /// `IPFS_NS_MAP`: names of which nobody is asked where they lead.
    pub fixed: dns::Fixed,
    /// The folders of denylists that all IPFS programs of this machine and user share.
    pub denylists: Vec<PathBuf>,
}

/// Why the environment is not used.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// What keys are sealed with.
    #[error(transparent)]
    Passphrase(#[from] SecretError),
    /// Where names lead.
    #[error("IPFS_NS_MAP in the environment: {0}")]
    Map(#[from] dns::NoMap),
}

impl Environment {
    /// Reads the environment.
    pub fn read() -> Result<Self, EnvironmentError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let repository = variable("CAIRN_PATH").map_or_else(
            || {
                let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
                home.join(".cairn")
            },
            PathBuf::from,
        );
        let passphrase = variable(PASSPHRASE).map(OsString::into_vec);
        let passphrase = passphrase.map(|bytes| Secret::passphrase(bytes, "$CAIRN_PASSPHRASE"));
        let fixed = text("IPFS_NS_MAP").unwrap_or_default();
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".config"));
        let settings = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        // The variable is to be ignored where it begins nowhere.
        let settings = settings.filter(|path| path.is_absolute()).or_else(home);
        let denylists = settings.map(|folder| folder.join(DENYLISTS));
        Ok(Self {
            repository,
            log: text("CAIRN_LOG"),
            editor: text("VISUAL").or_else(|| text("EDITOR")),
            swarm_key: match text("LIBP2P_FORCE_PNET").as_deref() {
                Some("1") => Need::Must,
                _ => Need::May,
            },
            passphrase: passphrase.transpose()?,
            fixed: fixed.parse::<dns::Fixed>()?,
            denylists: [SYSTEM_DENYLISTS.into()]
                .into_iter()
                .chain(denylists)
                .collect(),
        })
    }
}

/// Where the machine's denylists are, and below a user's settings theirs.
const SYSTEM_DENYLISTS: &str = "/etc/ipfs/denylists";
const DENYLISTS: &str = "ipfs/denylists";
/// The variable with the passphrase that keys are sealed with.
const PASSPHRASE: &str = "CAIRN_PASSPHRASE";

/// The file that `init` writes: the defaults, each with what it costs.
pub const TEMPLATE: &str = r#"# The configuration of this cairn repository. A running daemon reads it at its start.
# `cairn config show` prints what holds; an unknown key is an error.

# How far this node reaches. "local": this machine only, loopback. "lan": private addresses too.
# "public": everything; announces what is pinned to the whole network.
network = "local"

# Peers to ask first, each as "/ip4/…/tcp/4001/p2p/<peer id>". No third party's is built in.
bootstrap = []

[addresses]
# Where peers reach this node. Without it: port 4001, TCP and QUIC, on what fits `network`.
# swarm = ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"]

# Where commands are taken. Whoever reaches it controls the node: outside loopback it needs
# `rpc.token`. Port 0 takes a free one; the file `api` tells which.
rpc = "/ip4/127.0.0.1/tcp/5001"

# Where files are served, read-only; "" for not at all.
gateway = "/ip4/127.0.0.1/tcp/8080"

# Where metrics are served, to whoever reaches it; "" for /metrics on the RPC's listener, which asks for
# `rpc.token` if there is one.
metrics = ""

[rpc]
# A secret that every request must bring as `Authorization: Bearer <token>`; "" for none.
token = ""

# Web origins that may send requests besides this machine's own, as "https://example.org".
origins = []

# Names under which the RPC may be reached besides localhost and plain addresses.
hosts = []

[fetch]
# How long a fetch waits without any progress before it gives up.
timeout = "30s"

# Most connections to peers at any moment; `connections.high` is what there are in the long run. Each
# costs a socket and some 100 KiB.
connections = 512

# How many pins of `pin add --background` are fetched at once. More get less each; one that waits for slow
# peers takes no place.
pins_at_once = 4

# Trustless gateways that are asked over HTTP besides peers, as "http://127.0.0.1:8080" or
# "/dns4/gateway.example/tcp/443/tls/http". What they send is verified like everything else; each
# learns what is fetched here. Each costs up to 16 sockets. No third party's is built in.
gateways = []

[routing]
# Services that are asked over HTTP who has what, besides the DHT, as "http://127.0.0.1:8080": another
# node's gateway, or a router. Each learns what is looked up here; what it says is tried, not believed.
# Each costs up to 16 sockets. No third party's is built in.
endpoints = []

[connections]
# Above `high` connections the least useful are closed until `low` are left: those of peers that gave and
# took least, are no servers of the DHT and came last. Those in use and those of `swarm.peering` stay and
# do not count. Each costs a socket and some 100 KiB; fewer are likelier not to have what is wanted.
low = 64
high = 96

# How long a new peer is left alone before it is told apart by its use.
grace = "20s"

# Most connections taken from one IPv4 address, or one /56 of IPv6. More lets one machine take more of
# the room; too few keep those out who share an address. None in `limits.exempt`.
per_address = 16

# Most addresses dialled in a second, and at once. Each takes an entry in the table of a home's router
# for minutes; fewer make finding things slower. Those that somebody waits for go first. None in `limits.exempt`.
dials_per_second = 32
dials_at_once = 64

[swarm]
# Peers to stay connected to, each as "/ip4/192.0.2.1/tcp/4001/p2p/<peer id>".
peering = []

# Where nobody is dialled or taken from, as "/ip4/192.168.0.0/ipcidr/16".
filters = []

[dns]
# Who is asked where domains lead (DNSLink), by what they end in: "system", whoever /etc/resolv.conf names;
# "udp://127.0.0.1:53", "tcp://…" or "https://…/dns-query" (DoH); "" for nobody. Each learns which names are looked
# up here. "system" and servers with a name are asked in "public" only, others where `network` reaches them.
resolvers = { "." = "system" }

# For how long an answer is believed at most, however long it says to hold; "0s" asks every time. Longer asks
# less often and sees changes later.
max_cache_ttl = "1h"

[names]
# For how long a record holds that is published here. It is signed anew when half of that is over, if its key
# is here; a node that is away for longer has a name that nobody resolves any more.
lifetime = "48h"

# How often others are told of it again; they forget after 48 hours, and some are gone before.
republish_interval = "4h"

# For how long a record of others is believed to be the newest at most, however long its owner says. After that
# it is still the answer, at once, and others are asked behind it.
max_cache_ttl = "1h"

# Follow names over gossipsub: whoever has asked for one here hears of its new records at once, from others who follow
# it, and those published here are told the same way (Kubo: Ipns.UsePubsub). Peers see which names are followed.
pubsub = false

[provide]
# Which blocks others are told are here, so that they find them. "roots": the roots of pins; who has
# found a root asks the same node for the rest. "pinned": every block below a pin. "mfs": every block of the
# file tree (`cairn files`); "pinned+mfs": both. "all": every block that is here, cached ones too. Each costs
# some 4 KB of traffic every interval.
strategy = "roots"

# How often each is told again, spread evenly over that time. Others forget after 48 hours, and some of
# them are gone before.
interval = "22h"

[diag]
# Whether peers may measure the way to this node with `cairn diag perf`, which makes it send bytes for
# nothing. Without it: yes in "local" and "lan", no in "public".
# perf = true

[reach]
# Whether relays may lend this node a way while nobody can reach it ("public" only). They see who connects
# to it, not what is said.
relay_client = true

# Whether this node lends others a way, once it knows that it can be reached: up to 128 KiB and two minutes each, 64 at once.
relay_server = true

# Whether a connection over a relay is turned into a direct one. The other end learns this node's address.
hole_punching = true

# Whether the router is asked (UPnP) to hand this node's ports on, which opens them to everybody. Without it: yes
# in "public", no in "lan". Never in "local".
# upnp = true

# Whether peers nearby are found by multicast (mDNS), which tells the whole local network of this node. Without it: yes in "lan" and
# "public". Never in "local".
# mdns = true

# Relays that are asked before all others, each as "/ip4/…/tcp/4001/p2p/<peer id>".
relays = []

# Addresses that peers are told instead of those that are found out.
announce = []

# Addresses that peers are not told: networks like "10.0.0.0/8", or addresses.
no_announce = []

[limits]
# Bytes a second to and from all peers together, as "5MB"; "unlimited" for no limit. What is slower
# than others can send makes them wait. What is served over HTTP does not count. Changed with
# `cairn config set`, these hold at once.
upload = "unlimited"
download = "unlimited"

# The same for one peer.
upload_per_peer = "unlimited"
download_per_peer = "unlimited"

# Networks whose peers are neither held back nor counted: this machine and private addresses.
exempt = [
    "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
    "100.64.0.0/10", "fc00::/7", "fe80::/10",
]

# Memory of the daemon, as "2GB", above which it makes and takes no new connections to peers until it has
# less again; those that are open stay. "unlimited" for no limit. Too low, and it has no peers.
memory = "unlimited"

[serve]
# Peer IDs that are given blocks; none for everybody.
peers_allow = []

# Peer IDs that are not, whatever the other list says. They are told that nothing is here.
peers_deny = []

# CIDs of blocks that are given to no peer, whatever their codec and version. A folder or a large file is many
# blocks: this is about the one that is named. Who asks is told that it is not here. The gateway serves it all the same.
content_deny = []

[denylists]
# Whether the lists in /etc/ipfs/denylists and $XDG_CONFIG_HOME/ipfs/denylists (~/.config/ipfs/denylists), which
# other IPFS programs here use too, hold for this node. Those in denylists/ beside this file always do. What they name
# is neither fetched nor served, over HTTP and to peers. About 45 bytes of memory a rule. With a list that cannot be
# read the daemon does not start.
system = true

[filestore]
# Folders whose files may be added in place (`add --nocopy`) by whoever may use the RPC, and so by `cairn add` while a
# daemon runs. None: only without a daemon, by whoever may read the files. Blocks of such files are read from them, now
# and whenever they are asked for, and given to whoever asks like any others.
roots = []

[keystore]
# What private keys are sealed with on the disk: a file with at least 32 random bytes, or one with a passphrase (or
# $CAIRN_PASSPHRASE); "" for neither, and they lie there in the clear, for this user alone. Paths begin at the
# repository, where neither helps against who takes all of it. New keys are sealed from now on, older ones by `cairn key
# seal`. Lost, it takes the keys with it. A passphrase costs 64 MiB and a fraction of a second where a key is used.
key_file = ""
passphrase_file = ""

[gateway]
# Whether whoever reaches the gateway may ask it who has what and who is where, at /routing/v1. Up to 32
# lookups in the DHT at once are made for others.
routing = true

# Whether they may have records of names kept as well, in the DHT and here. Up to 8 at once are told to others.
routing_put = false

# Whether only what clients can check is answered: blocks, CARs and records of names.
trustless_only = false
# Whether a host that has a DNSLink is served what that leads to. A question in DNS for each name that the
# gateway is called by, where `network` lets it be asked.
dnslink = true

# Whether peers may ask the gateway too, over libp2p (/http/1.1), for blocks, CARs and records of names that are here
# already. Up to 64 streams are answered at once, 8 of one peer.
libp2p = false

# The names that the gateway is known by, each with the paths it serves ("/ipfs", "/ipns", "/routing/v1"),
# whether each root gets a host of its own (subdomains), as "<cid>.ipfs.localhost", and whether domains are one label there
# without TLS too (inline_dnslink). A * stands for one label. Other names and addresses serve all by path.
hosts = { localhost = { paths = ["/ipfs", "/ipns", "/routing/v1"], subdomains = true, inline_dnslink = true } }

# Whose word counts for the host that a request was sent to (X-Forwarded-Host, X-Forwarded-Proto): proxies in front of
# this gateway.
trusted_proxies = [
    "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
    "100.64.0.0/10", "fc00::/7", "fe80::/10",
]

# Most requests worked on at once; more are answered with 429.
requests_max = 1024

# Most open connections; more wait. Each costs a file descriptor and up to 64 KiB. Together they get a
# fourth of the open files that the system allows, and no more.
connections_max = 4096

# How long a client may take to send a request's head, and how long an idle connection is kept.
header_timeout = "10s"

# How long a client may take nothing of an answer before it is cut off.
write_timeout = "60s"

# How long to look for a block without any progress before answering 504.
retrieval_timeout = "30s"

# How long the first byte of an answer may take in all.
head_timeout = "120s"

# Most answers that read several blocks ahead of their client at once; up to 32 MiB each.
read_ahead_max = 16

# Most ranges in one request; a request with more gets the whole content.
ranges_max = 16

# Most entries shown in a folder's page. Up to 10,000 are sorted; of more, all come as they are stored.
listing_entries_max = 1000000

# Most entries in a TAR, most shards of its folders, and most blocks in a CAR; about 40 bytes of memory each. 5,000,000
# blocks of 256 KiB are 1 TiB.
archive_entries_max = 5000000

# Most bytes in one TAR or CAR, as "64GiB"; "unlimited" for no limit.
archive_bytes_max = "unlimited"

# Most blocks read for one request, which may so long keep the disk, the network and a core busy.
request_blocks_max = 16777216

# Most bytes of content read for one request, as "64GiB"; "unlimited" for no limit. A file or a range that is larger is
# refused; of anything else so much is sent.
request_bytes_max = "unlimited"

# Deepest level below what was asked for that a CAR, a TAR or a folder's page follows.
depth_max = 1024

[log]
# error, warn, info, debug or trace; or directives such as "cairn_node=debug,info".
level = "warn"

[storage]
# "full": what was acknowledged survives a power cut; each acknowledgement waits for the disk, some
# milliseconds that large adds do not notice and many small ones do. "relaxed": none waits. A power
# cut may take what was acknowledged in the last seconds, nothing older; the death of the program
# alone takes nothing.
durability = "full"

# Length of one file of the log. Smaller ones give space back sooner and cost open files.
segment_size = "1GiB"

# Free space on the disk below which nothing is written any more: "auto", or a size such as "5GiB".
# "auto" is 1 GiB or 2 % of the disk, whichever is more. Less holds more and leaves less to others.
reserve = "auto"

# Most space for blocks that peers sent and nobody asked to keep; beyond it they are evicted, roughly
# those first that were not read for longest. More costs disk, less costs fetching again.
cache_max = "10GB"

# Share of its time, in percent from 0 to 100, for which the daemon reads and re-hashes what is stored
# to find rot; when it is through it rests for a week. 0 never looks. More finds rot sooner and takes
# more of the disk and a processor: at 2 % a disk of 500 MB/s is read at 10 MB/s, a terabyte in 28 hours.
scrub_share = 2

# Largest wanted size of the repository, as `repo stat` tells it.
max = "10GB"

# Memory for blocks of up to 128 KiB that are read again and again, which a busy gateway serves from there; 0 keeps
# none. It is taken as blocks are read.
hot_blocks = "128MiB"

# Memory for the index's own cache.
index_cache = "32MiB"
"#;

const SWARM_PORT: u16 = 4001;
const RPC_PORT: u16 = 5001;
const GATEWAY_PORT: u16 = 8080;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_what_holds_without_it() {
        assert_eq!(Config::parse(TEMPLATE).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_a_daemon_would_not_start_with_is_refused_with_the_reason() {
        let check = |text: &str| Config::parse(text).unwrap().check(None);
        let open = "[addresses]\nrpc = \"/ip4/0.0.0.0/tcp/5001\"\n";
        let told = check(open).unwrap_err().to_string();
        assert!(told.contains("`rpc.token`"), "{told}");
        check(&format!("{open}[rpc]\ntoken = \"secret\"\n")).unwrap();
        let relay = |end: &str| format!("[reach]\nrelays = [\"/ip4/192.0.2.1/tcp/1{end}\"]\n");
        let told = check(&relay("")).unwrap_err().to_string();
        assert!(told.contains("does not end in /p2p/"), "{told}");
        check(&relay(
            "/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5",
        ))
        .unwrap();
    }

    #[test]
    fn a_misspelt_key_is_named_with_the_nearest_known_one() {
        let error = Config::parse("[addresses]\ngatway = \"/ip4/127.0.0.1/tcp/1\"\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "addresses.gatway: unknown configuration key; did you mean `addresses.gateway`?"
        );
        let error = Config::parse("netwerk = \"lan\"\n").unwrap_err();
        assert!(error.to_string().contains("`network`"), "{error}");
        let error = Config::parse("[storrage]\nmax = 1\n").unwrap_err();
        assert!(error.to_string().contains("`storage`"), "{error}");
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_with_its_line_in_one_line() {
        let error = Config::parse("bootstrap = []\nnetwork = \n").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 2"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn what_no_node_starts_with_is_read_and_put_right_step_by_step() {
        let crossed = "[connections]\nlow = 9\nhigh = 8\n";
        let broken = Config::parse(crossed).unwrap();
        assert!(broken.check(None).is_err());
        assert!(broken.replace("", None).is_err());
        let left = broken.replace(crossed, None).unwrap().unwrap();
        assert!(left.to_string().starts_with("`connections.low`"), "{left}");
        let good = Config::default();
        assert_eq!(good.replace(crossed, None), Ok(None));
        assert_eq!(good.replace("", None), Ok(None));
        // What does not even parse is no excuse for less.
        assert_eq!(good.replace("low = ", None), Ok(None));
        for level in ["loud", "inof", "cairn_node", "info,loud", "cairn_node=loud"] {
            let text = format!("log.level = {level:?}\n");
            let error = Config::parse(&text)
                .unwrap()
                .check(None)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("log.level") && error.contains(level),
                "{error}"
            );
        }
        for level in [
            "off",
            "INFO",
            "cairn_node=debug, info",
            "gateway::access=info,warn",
        ] {
            let text = format!("log.level = {level:?}\n");
            assert_eq!(Config::parse(&text).unwrap().check(None), Ok(()), "{level}");
        }
    }

    #[test]
    fn a_local_node_listens_on_loopback_only() {
        for address in Config::default().swarm_addresses() {
            assert!(
                address.to_string().starts_with("/ip4/127.0.0.1/"),
                "{address}"
            );
        }
        let lan = Config::parse("network = \"lan\"").unwrap();
        assert_eq!(lan.swarm_addresses().len(), 4);
    }

    #[test]
    fn an_empty_gateway_address_means_no_gateway() {
        let config = Config::parse("[addresses]\ngateway = \"\"\n").unwrap();
        assert_eq!(config.addresses.gateway.0.0, None);
        assert!(Config::parse("[addresses]\nrpc = \"\"\n").is_err());
    }
}
