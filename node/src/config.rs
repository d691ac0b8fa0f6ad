//! Every limit and timeout of the network, with its unit, its default and its price.
//!
//! `cli` makes a [`Config`] from `config.toml`; whoever builds one by hand ends it with
//! `..Config::default()`, because fields are added. Numbers that no operator needs to turn are
//! constants at the foot of the file that uses them.

use crate::bitswap::policy::{Policy, ServeAll};
use crate::denylist::Denylist;
use crate::http::Endpoint;
use crate::limits::Limits;
use crate::name::{self, dns};
use crate::network::Network;
use crate::node::StartError;
use crate::perf::Answers;
use crate::pins::jobs::PINS_FETCHED_AT_ONCE;
use crate::private::SwarmKey;
use crate::provide::Strategy;
use crate::reach;
use crate::swarm::Filter;
use crate::web::Manners;
use cairn_store::config::Percent;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the wiring needs to know; `cli` makes it from `config.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// How far this node reaches.
    pub network: Network,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Whom to ask first, each with `/p2p/<peer id>`.
    pub bootstrap: Vec<Multiaddr>,
    /// How long a fetch waits without any progress before it gives up.
    pub fetch_idle: Duration,
    /// How many pins are fetched in the background at once.
    pub pins_at_once: NonZeroUsize,
    /// Trustless gateways that are asked for whatever is wanted. Each learns what that is.
    pub gateways: Vec<Endpoint>,
    /// Services that are asked who has what, beside the DHT. Each learns what is looked up.
    pub routers: Vec<Endpoint>,
    /// Who is asked where domains lead. Each learns which.
    pub dns: dns::Settings,
    /// How names of keys are looked for.
    pub names: name::Options,
    /// Most connections in all. Each costs a socket, a task and up to `read_buffer_bytes` and
    /// `window_growth_bytes` of memory when busy.
    pub connections_max: u32,
    /// Most connections to one peer. More than one spreads encryption over cores; every one
    /// counts against `connections_max`.
    pub connections_per_peer_max: u32,
    /// Most connections that are being made, each way. Handshakes cost processor time before we
    /// know who it is.
    pub connections_pending_max: u32,
    /// Above how many connections the least useful are closed, and until how many are left. Those that are in
    /// use, of peers to stay connected to, or younger than `connection_grace` do not count. Fewer cost less, more
    /// are likelier to have what is wanted.
    pub connections_high: u32,
    /// See above; no more than that.
    pub connections_low: u32,
    /// How long a new peer is left alone: what it is good for shows with time.
    pub connection_grace: Duration,
    /// Most connections that are taken from one IPv4 address, or one /56 of IPv6; `Limits::exempt` has none.
    /// Too few keep those out who share an address.
    pub connections_per_address_max: u32,
    /// How many addresses are dialled in a second; two seconds' worth may come at once. Each takes an entry in
    /// the router's table for minutes; `Limits::exempt` has none.
    pub dials_per_second_max: u32,
    /// How many dials are under way at once.
    pub dials_at_once_max: u32,
    /// Whom to stay connected to, each with `/p2p/<peer id>`.
    pub peering: Vec<Multiaddr>,
    /// Where nobody is dialled or taken from.
    pub filters: Vec<Filter>,
    /// The secret of a private network. With it there is no QUIC, and who has another or none is not understood.
    pub private: Option<SwarmKey>,
    /// How long making a connection may take, from the first packet to the muxer.
    pub handshake_timeout: Duration,
    /// How long after the answer to a ping the next one is sent over a connection.
    pub ping_interval: Duration,
    /// How long a ping's answer may take. After two that did not come in time, and nothing else either, the
    /// connection is closed.
    pub ping_timeout: Duration,
    /// How long a connection that nobody uses stays open. Shorter frees sockets, longer saves
    /// handshakes.
    pub connection_idle: Duration,
    /// Most streams open at once on one connection. Each is sure of 256 KiB of receive window; one
    /// more is refused. Others open a stream a message, so a low number cuts honest peers off.
    pub streams_per_connection_max: usize,
    /// By how many bytes the receive windows of one connection may grow, all streams together,
    /// beyond the 256 KiB each is sure of. A stream carries at most its window per round trip, so
    /// too little slows long distances.
    pub window_growth_bytes: usize,
    /// The same for all connections together.
    pub window_growth_total_bytes: usize,
    /// Bytes received and not yet read, over all connections; beyond it, connections with more
    /// than 256 KiB of them are not read from.
    pub unread_total_bytes_max: usize,
    /// Most streams that peers may have open over all connections; beyond it, a peer is sure of 16.
    pub streams_total_max: usize,
    /// What is offered to secure a connection, the preferred first.
    pub security: Vec<Security>,
    /// Bytes read ahead from a TCP socket. Fewer system calls against memory per connection,
    /// touched only as far as data comes.
    pub read_buffer_bytes: usize,
    /// Bytes one QUIC connection may receive before they are read; a stream gets a quarter.
    pub quic_window_bytes: u32,
    /// How long a lookup in the DHT may take.
    pub lookup_timeout: Duration,
    /// Most provider records kept for others. About 200 bytes each.
    pub provider_records_max: usize,
    /// Most values (IPNS records and public keys) kept for others. Up to 10 KiB each.
    pub value_records_max: usize,
    /// The folder for what is remembered of the DHT: records kept for others, and peers to begin with at the next
    /// start. `None`: nothing is.
    pub memory: Option<PathBuf>,
    /// Which blocks others are told of. Each costs a message to twenty peers, about 4 KB, every `provide_interval`.
    pub provide_strategy: Strategy,
    /// How often each is told again. Others forget a record after 48 hours, and some of them leave before.
    pub provide_interval: Duration,
    /// How many regions of the key space are told at the same time. Each asks dozens of peers, and sends to eight
    /// at once.
    pub provide_regions_at_once: usize,
    /// The folder for what was told when and to whom, so that a restart goes on from there; `None` for in memory.
    pub provide_folder: Option<PathBuf>,
    /// How many new CIDs may wait to be provided; more are left to their time in the cycle.
    pub announce_queue_max: usize,
    /// Which share of its time the scrub may work, in percent; 0 for never. It reads the disk and
    /// hashes while it does.
    pub scrub_share: Percent,
    /// Whether peers may measure the way to us (`/perf/1.0.0`). It makes this node send bytes for
    /// nothing, so `None` means: in `local` and `lan`.
    pub perf: Option<bool>,
    /// Whether peers may come with requests for the gateway (`/http/1.1`), and how many; who answers them takes
    /// `Node::visitors`.
    pub web: Option<Manners>,
    /// How this node may make itself reachable.
    pub reach: reach::Settings,
    /// How much is sent and received, and how much memory there may be before no more peers are taken;
    /// `Node::set_limits` changes it.
    pub limits: Limits,
    /// Who is served what.
    pub serve: Arc<dyn Policy>,
    /// What is neither fetched nor served, and whose names are not followed.
    pub denylist: Denylist,
}

impl Config {
    /// Whether peers may measure the way to us.
    pub fn answers_perf(&self) -> bool {
        self.perf.unwrap_or(self.network != Network::Public)
    }

    pub(crate) fn perf(&self) -> Answers {
        if self.answers_perf() {
            Answers::Yes
        } else {
            Answers::No
        }
    }
}

impl Config {
    /// Whether the settings fit together, as far as that can be said without opening anything: what a start
    /// would refuse is refused where it is set as well.
    pub fn check(&self) -> Result<(), StartError> {
        if self.private.is_some() {
            if let Some(address) = self.listen.iter().find(|one| is_quic(one)) {
                return Err(StartError::PrivateQuic(address.clone()));
            }
            if let Some(address) = self.bootstrap.iter().find(|one| is_of_public(one)) {
                return Err(StartError::PrivateBootstrap(address.clone()));
            }
        }
        let mut listen = self.listen.iter();
        if let Some(address) = listen.find(|one| !self.network.may_listen(one)) {
            return Err(StartError::Outside {
                address: address.clone(),
                network: self.network.name(),
            });
        }
        let (low, high) = (self.connections_low, self.connections_high);
        if low > high {
            return Err(StartError::Crossed { low, high });
        }
        if self.connections_max == 0 {
            return Err(StartError::Alone);
        }
        Ok(())
    }
}

/// Whether it is dialled and listened at over QUIC.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| matches!(part, Protocol::Quic | Protocol::QuicV1))
}

/// Whether an address is one of the public network's own bootstrap peers.
fn is_of_public(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Dnsaddr(name) | Protocol::Dns(name) | Protocol::Dns4(name) => {
            name.ends_with(PUBLIC_BOOTSTRAP)
        }
        _ => false,
    })
}

/// The name below which the public network's bootstrap peers are found.
const PUBLIC_BOOTSTRAP: &str = "bootstrap.libp2p.io";

/// How a connection is encrypted and its other end known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS 1.3, with AES where the processor has it.
    Tls,
    /// Noise, which always uses ChaCha20.
    Noise,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::Local,
            listen: Vec::new(),
            bootstrap: Vec::new(),
            fetch_idle: Duration::from_secs(30),
            pins_at_once: PINS_FETCHED_AT_ONCE,
            gateways: Vec::new(),
            routers: Vec::new(),
            dns: dns::Settings::default(),
            names: name::Options::default(),
            connections_max: 512,
            connections_per_peer_max: 8,
            connections_pending_max: 128,
            connections_high: 96,
            connections_low: 64,
            connection_grace: Duration::from_secs(20),
            connections_per_address_max: 16,
            dials_per_second_max: 32,
            dials_at_once_max: 64,
            peering: Vec::new(),
            filters: Vec::new(),
            private: None,
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(20),
            connection_idle: Duration::from_secs(600),
            streams_per_connection_max: 1024,
            window_growth_bytes: 32 << 20,
            window_growth_total_bytes: 256 << 20,
            unread_total_bytes_max: 256 << 20,
            streams_total_max: 16 << 10,
            security: vec![Security::Tls, Security::Noise],
            read_buffer_bytes: 256 << 10,
            quic_window_bytes: 16 << 20,
            lookup_timeout: Duration::from_secs(60),
            provider_records_max: 128 << 10,
            value_records_max: 4 << 10,
            memory: None,
            provide_strategy: Strategy::default(),
            provide_interval: Duration::from_secs(22 * 3600),
            provide_regions_at_once: 4,
            provide_folder: None,
            announce_queue_max: 64 << 10,
            scrub_share: cairn_store::config::Config::default().scrub_share,
            perf: None,
            web: None,
            reach: reach::Settings::default(),
            limits: Limits::default(),
            serve: Arc::new(ServeAll),
            denylist: Denylist::default(),
        }
    }
}
