//! `Node::start` and `Node::stop`: the wiring, top-down, on one page. (signatures)

use crate::bitswap::Stat;
use crate::config::Config;
use crate::event::Event;
use crate::exchange::Exchange;
use crate::routing::Routing;
use crate::swarm::Peers;
use cairn_store::Store;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::time::Duration;
use tokio::sync::broadcast;

/// A running node.
#[derive(Debug)]
#[must_use = "dropping a node aborts its tasks; call `stop` to end them in order"]
pub struct Node {}

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
    /// The transports could not be built from the key.
    #[error("cannot set up the transports: {0}")]
    Transport(String),
    /// The metrics clash.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Node {
    /// Starts everything; returns when every listener is up. The metrics go to `registry`.
    pub async fn start(
        _store: Store,
        _keys: Keypair,
        _config: Config,
        _registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        todo!()
    }
    /// Our name.
    pub fn peer_id(&self) -> PeerId {
        todo!()
    }
    /// Blocks: the store first, then peers.
    pub fn exchange(&self) -> Exchange {
        todo!()
    }
    /// Connections.
    pub fn peers(&self) -> Peers {
        todo!()
    }
    /// Providers.
    pub fn routing(&self) -> Routing {
        todo!()
    }
    /// What Bitswap did.
    pub async fn bitswap(&self) -> Stat {
        todo!()
    }
    /// Facts from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        todo!()
    }
    /// libp2p's own metrics in text format 0.0.4, without `# EOF`.
    pub fn libp2p_metrics(&self) -> String {
        todo!()
    }
    /// Stops in the reverse order of starting; false if it took longer than `grace`.
    pub async fn stop(self, _grace: Duration) -> bool {
        todo!()
    }
}
