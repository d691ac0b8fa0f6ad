//! What this node speaks, composed.
//!
//! The limits come first: a connection they refuse never reaches the protocols behind them.

use super::keeper::{self, Keeper};
use super::limits;
use super::memory::{self, Ceiling};
use crate::bitswap;
use crate::config::Config;
use crate::dht;
use crate::dht::behaviour::Serving;
use crate::network::Realm;
use crate::perf;
use libp2p::connection_limits;
use libp2p::identity::PublicKey;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{identify, ping};
use std::sync::Arc;

/// The protocols of one node. `BehaviourEvent` is made from its fields.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) keeper: keeper::Behaviour,
    pub(super) connections: connection_limits::Behaviour,
    pub(super) memory: memory::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) dht: dht::behaviour::Behaviour,
    pub(super) bitswap: bitswap::Behaviour,
    pub(super) perf: perf::Behaviour,
    /// Pings that somebody asks for; those of `ping` come by themselves.
    pub(super) asked: perf::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        key: PublicKey,
        config: &Config,
        (ceiling, keeper): (Arc<Ceiling>, Keeper),
        dht: dht::behaviour::Behaviour,
        bitswap: bitswap::Behaviour,
        (perf, asked): (perf::Behaviour, perf::Behaviour),
    ) -> Self {
        Self {
            keeper: keeper::Behaviour::new(keeper),
            connections: limits::connections(config),
            memory: memory::Behaviour::new(ceiling),
            identify: identify(key),
            ping: ping::Behaviour::default(),
            dht,
            bitswap,
            perf,
            asked,
        }
    }
}

/// What peers see as our name and version.
pub(crate) const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));

/// The names of all we speak; a DHT client does not advertise the DHT.
pub(super) fn protocols(serving: &Serving, perf: perf::Answers) -> Vec<String> {
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
    if perf == perf::Answers::Yes {
        names.push(perf::PROTOCOL.to_string());
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
