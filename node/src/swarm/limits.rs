//! How many connections there may be.

use crate::config::Config;
use libp2p::connection_limits::{self, ConnectionLimits};

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
