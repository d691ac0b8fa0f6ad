//! Every limit and timeout of the network. (signatures)

use crate::network::Network;
use libp2p::Multiaddr;
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
    /// Most connections in all.
    pub connections_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::Local,
            listen: Vec::new(),
            bootstrap: Vec::new(),
            fetch_idle: Duration::from_secs(30),
            connections_max: 512,
        }
    }
}
