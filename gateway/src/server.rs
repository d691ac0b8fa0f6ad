//! Bind, serve, drain. (signatures)

use crate::config::Config;
use cairn_node::Exchange;
use cairn_node::tasks::Tasks;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// A running gateway.
#[derive(Debug)]
#[must_use = "dropping a gateway cuts its connections; call `stop` to drain them"]
pub struct Gateway {}

impl Gateway {
    /// Serves on `listener`; blocks come from `exchange`; metrics go to `registry`.
    pub fn start(
        _listener: TcpListener,
        _exchange: Exchange,
        _config: Config,
        _tasks: &Tasks,
        _registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        todo!()
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        todo!()
    }
    /// Takes no new connections and waits for running requests, at most `grace`.
    pub async fn stop(self, _grace: std::time::Duration) -> bool {
        todo!()
    }
}
