//! How many connections there may be, and how much memory before there are no more.

use crate::config::Config;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::memory_connection_limits;
use libp2p::swarm::behaviour::toggle::Toggle;

/// Refuses connections beyond the configured numbers.
pub(super) fn connections(config: &Config) -> connection_limits::Behaviour {
    connection_limits::Behaviour::new(
        ConnectionLimits::default()
            .with_max_pending_incoming(Some(config.connections_pending_max))
            .with_max_pending_outgoing(Some(config.connections_pending_max))
            .with_max_established_per_peer(Some(config.connections_per_peer_max))
            .with_max_established(Some(config.connections_max)),
    )
}

/// Refuses connections while this process uses more memory than configured.
pub(super) fn memory(config: &Config) -> Toggle<memory_connection_limits::Behaviour> {
    config
        .memory_bytes_max
        .map(memory_connection_limits::Behaviour::with_max_bytes)
        .into()
}
