//! What several tests of whole nodes need.

use libp2p::swarm::Swarm;
use libp2p::{SwarmBuilder, tcp, tls, yamux};
use std::time::Duration;

/// A swarm without anything of ours, to speak a protocol by hand; it keeps a connection that nobody uses for
/// so long.
pub(crate) fn stock(idle: Duration) -> Swarm<libp2p_stream::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            tls::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(idle))
        .build()
}
