//! What this node speaks, composed.
//!
//! The limits come first: a connection they refuse never reaches the protocols behind them.

use super::limits;
use super::memory::{self, Ceiling};
use crate::bitswap;
use crate::config::Config;
use crate::network::Network;
use crate::perf;
use crate::routing::records::{RECORD_LIFE, Records};
use libp2p::connection_limits;
use libp2p::identity::{PeerId, PublicKey};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{identify, kad, ping};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// The protocols of one node. `BehaviourEvent` is made from its fields.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) connections: connection_limits::Behaviour,
    pub(super) memory: memory::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<Records>,
    pub(super) bitswap: bitswap::Behaviour,
    pub(super) perf: perf::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        key: PublicKey,
        config: &Config,
        ceiling: Arc<Ceiling>,
        bitswap: bitswap::Behaviour,
        perf: perf::Behaviour,
    ) -> Self {
        let local = key.to_peer_id();
        Self {
            connections: limits::connections(config),
            memory: memory::Behaviour::new(ceiling),
            identify: identify(key),
            ping: ping::Behaviour::default(),
            kad: kademlia(local, config),
            bitswap,
            perf,
        }
    }
}

/// What peers see as our name and version.
pub(crate) const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));

/// The names of all we speak; a DHT client does not advertise the DHT.
pub(super) fn protocols(network: Network, perf: perf::Answers) -> Vec<String> {
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
    if mode(network) == kad::Mode::Server {
        names.push(network.kademlia().to_string());
    }
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

fn kademlia(local: PeerId, config: &Config) -> kad::Behaviour<Records> {
    let mut settings = kad::Config::new(config.network.kademlia());
    settings
        .set_query_timeout(config.lookup_timeout)
        .set_replication_factor(kad::K_VALUE)
        .set_parallelism(PARALLEL_REQUESTS)
        .set_max_packet_size(MESSAGE_BYTES_MAX)
        // Nothing gets into the table or the store but through the worker.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_caching(kad::Caching::Disabled)
        .set_provider_record_ttl(Some(RECORD_LIFE))
        // Telling again is our own job's work.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(Some(TABLE_REFRESH));
    let records = Records::new(local, config.network, config.provider_records_max);
    let mut kad = kad::Behaviour::with_config(local, records, settings);
    // Left alone it would serve as soon as any external address is confirmed.
    kad.set_mode(Some(mode(config.network)));
    kad
}

/// In small networks everybody serves. In `public` only who can be reached may, which nothing
/// finds out yet.
fn mode(network: Network) -> kad::Mode {
    match network {
        Network::Local | Network::Lan => kad::Mode::Server,
        Network::Public => kad::Mode::Client,
    }
}

/// What Kubo says too.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";

/// Requests one lookup has under way.
const PARALLEL_REQUESTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

/// Longest DHT message taken. Peers with many addresses send over 40 kB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How often the routing table is looked over.
const TABLE_REFRESH: Duration = Duration::from_secs(600);
