//! What this node speaks, composed.
//!
//! The limits come first: a connection they refuse never reaches the protocols behind them.

use super::keeper::{self, Keeper};
use super::limits;
use super::memory::{self, Ceiling};
use super::transport::ThroughRelays;
use crate::bitswap;
use crate::config::Config;
use crate::dht;
use crate::dht::behaviour::Serving;
use crate::name::pubsub::{self, fetch, gossip};
use crate::network::{Network, Realm};
use crate::perf;
use crate::reach::kept::Kept;
use crate::reach::told::Told;
use crate::reach::{self, Reachability, autonat};
use crate::web;
use libp2p::connection_limits;
use libp2p::identity::{PeerId, PublicKey};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{autonat as libp2p_autonat, dcutr, identify, mdns, ping, relay, upnp};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The protocols of one node. `BehaviourEvent` is made from its fields.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) keeper: keeper::Behaviour,
    pub(super) connections: connection_limits::Behaviour,
    pub(super) memory: memory::Behaviour,
    pub(super) identify: Told,
    pub(super) at_length: crate::identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) dht: dht::behaviour::Behaviour,
    pub(super) bitswap: bitswap::Behaviour,
    pub(super) perf: perf::Behaviour,
    /// Pings that somebody asks for; those of `ping` come by themselves.
    pub(super) asked: perf::Behaviour,
    pub(super) autonat: Toggle<autonat::Behaviour>,
    /// For peers that speak nothing newer; it asks nobody.
    pub(super) old_autonat: Toggle<Kept<libp2p_autonat::v1::Behaviour>>,
    pub(super) relays: Toggle<Kept<relay::client::Behaviour>>,
    pub(super) relay: Toggle<Kept<relay::Behaviour>>,
    pub(super) punch: Toggle<Kept<dcutr::Behaviour>>,
    pub(super) upnp: Toggle<Kept<upnp::tokio::Behaviour>>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) fetch: Toggle<perf::Behaviour>,
    pub(super) web: Toggle<perf::Behaviour>,
    /// The last: what others behind it refused it would go on counting.
    pub(super) gossip: Toggle<pubsub::behaviour::Behaviour>,
}

/// Those of them that somebody else holds another end of.
pub(super) struct Spoken {
    pub(super) dht: dht::behaviour::Behaviour,
    pub(super) bitswap: bitswap::Behaviour,
    pub(super) perf: perf::Behaviour,
    pub(super) asked: perf::Behaviour,
    pub(super) relays: ThroughRelays,
    pub(super) pubsub: Option<pubsub::Spoken>,
    pub(super) web: Option<perf::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(
        key: PublicKey,
        config: &Config,
        (ceiling, keeper): (Arc<Ceiling>, Keeper),
        spoken: Spoken,
    ) -> Self {
        let Spoken {
            dht,
            bitswap,
            perf,
            asked,
            relays,
            pubsub,
            web,
        } = spoken;
        let (gossip, fetch) = pubsub.map(|spoken| (spoken.gossip, spoken.fetch)).unzip();
        let local = key.to_peer_id();
        let (network, reach) = (config.network, &config.reach);
        let in_the_open = network == Network::Public;
        Self {
            keeper: keeper::Behaviour::new(keeper),
            connections: limits::connections(config),
            memory: memory::Behaviour::new(ceiling),
            identify: Told::new(identify(key), network, reach),
            at_length: crate::identify::Behaviour::default(),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(config.ping_interval)
                    .with_timeout(config.ping_timeout),
            ),
            dht,
            bitswap,
            perf,
            asked,
            autonat: in_the_open.then(|| autonat::Behaviour::new(network)).into(),
            old_autonat: in_the_open.then(|| old_autonat(local)).into(),
            relays: relays.map(Kept).into(),
            relay: reach
                .is_relay(network)
                .then(|| relay_for_others(local))
                .into(),
            punch: reach
                .punches(network)
                .then(|| Kept(dcutr::Behaviour::new(local)))
                .into(),
            upnp: reach
                .maps_ports(network)
                .then(|| Kept(upnp::tokio::Behaviour::default()))
                .into(),
            mdns: reach
                .finds_neighbours(network)
                .then(|| neighbours(local))
                .flatten()
                .into(),
            fetch: fetch.into(),
            web: web.into(),
            gossip: gossip.into(),
        }
    }
}

fn old_autonat(local: PeerId) -> Kept<libp2p_autonat::v1::Behaviour> {
    Kept(libp2p_autonat::v1::Behaviour::new(
        local,
        libp2p_autonat::v1::Config {
            // Our own reach is looked into by the newer one.
            use_connected: false,
            throttle_clients_global_max: OLD_DIALS_A_MINUTE,
            throttle_clients_peer_max: OLD_DIALS_A_MINUTE_PER_PEER,
            throttle_clients_period: Duration::from_secs(60),
            ..libp2p_autonat::v1::Config::default()
        },
    ))
}

/// A relay with Kubo's limits, which is none until we know that we can be reached.
fn relay_for_others(local: PeerId) -> Kept<relay::Behaviour> {
    let limits = relay::Config {
        max_reservations: 128,
        max_reservations_per_peer: 2,
        reservation_duration: Duration::from_secs(3600),
        reservation_rate_limiters: Vec::new(),
        max_circuits: 64,
        max_circuits_per_peer: 16,
        max_circuit_duration: Duration::from_secs(120),
        max_circuit_bytes: 128 << 10,
        circuit_src_rate_limiters: Vec::new(),
    };
    let limits = limits
        .reservation_rate_per_peer(RESERVATIONS_PER_PEER, Duration::from_secs(120))
        .reservation_rate_per_ip(RESERVATIONS_PER_IP, Duration::from_secs(300))
        .circuit_src_per_peer(CIRCUITS_PER_PEER, Duration::from_secs(120))
        .circuit_src_per_ip(CIRCUITS_PER_IP, Duration::from_secs(60));
    let mut relay = relay::Behaviour::new(local, limits);
    // Left alone it would serve as soon as any external address is confirmed.
    relay.set_status(Some(relay::Status::Disable));
    Kept(relay)
}

/// Without a way to watch the machine's interfaces a node goes on without neighbours.
fn neighbours(local: PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), local)
        .inspect_err(|error| tracing::warn!(%error, "no peers are looked for by multicast"))
        .ok()
}

/// What peers see as our name and version.
pub(crate) const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));

/// The names of all we speak; a DHT client does not advertise the DHT.
pub(super) fn protocols(
    serving: &Serving,
    network: Network,
    (reach, is): (&reach::Settings, Reachability),
    (perf, pubsub, web): (perf::Answers, bool, bool),
) -> Vec<String> {
    let mut names: Vec<String> = [
        "/ipfs/bitswap",
        "/ipfs/bitswap/1.0.0",
        "/ipfs/bitswap/1.1.0",
        "/ipfs/bitswap/1.2.0",
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
    ]
    .map(str::to_owned)
    .to_vec();
    let served = [Realm::Wan, Realm::Lan].into_iter();
    let served = served.filter(|realm| serving.serves(*realm));
    names.extend(served.map(|realm| realm.protocol().to_string()));
    if network == Network::Public {
        names.push(autonat::CAME.to_string());
        if is != Reachability::Private {
            names.push(autonat::ASKED.to_string());
        }
        names.push(libp2p_autonat::v1::DEFAULT_PROTOCOL_NAME.to_string());
    }
    if reach.uses_relays(network) {
        names.push(relay::STOP_PROTOCOL_NAME.to_string());
    }
    if reach.is_relay(network) && is == Reachability::Public {
        names.push(relay::HOP_PROTOCOL_NAME.to_string());
    }
    if reach.punches(network) {
        names.push(dcutr::PROTOCOL_NAME.to_string());
    }
    if perf == perf::Answers::Yes {
        names.push(perf::PROTOCOL.to_string());
    }
    if pubsub {
        names.extend(gossip::PROTOCOLS.map(str::to_owned));
        names.push(fetch::PROTOCOL.to_string());
    }
    if web {
        names.push(web::PROTOCOL.to_string());
    }
    names.sort_unstable();
    names
}

fn identify(key: PublicKey) -> identify::Behaviour {
    identify::Behaviour::new(
        identify::Config::new(PROTOCOL_VERSION.to_owned(), key)
            .with_agent_version(AGENT.to_owned())
            .with_push_listen_addr_updates(true)
            // It would hand on addresses that nobody checked; ours are in the worker's book.
            .with_cache_size(0),
    )
}

/// What Kubo says too.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";

/// In which DHTs peers may ask this node from the start. In small networks, and in one's surroundings, everybody
/// serves; in that of all only who can be reached may.
pub(super) const SERVED: [Realm; 1] = [Realm::Lan];

/// Dials for peers that speak the old AutoNAT, in a minute.
const OLD_DIALS_A_MINUTE: usize = 30;
/// The same for one peer.
const OLD_DIALS_A_MINUTE_PER_PEER: usize = 3;

/// Reservations that one peer may ask for at once; one more each two minutes.
const RESERVATIONS_PER_PEER: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
/// The same for all peers of one IP address, one more each five minutes: eight that renew every 45 minutes fit.
const RESERVATIONS_PER_IP: NonZeroU32 = NonZeroU32::MIN.saturating_add(7);
/// Circuits that one peer may ask for at once; one more each two minutes.
const CIRCUITS_PER_PEER: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);
/// The same for all peers of one IP address, one more a minute.
const CIRCUITS_PER_IP: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
