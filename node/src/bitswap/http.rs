//! Blocks from trustless gateways: HTTP as a second way beside libp2p's streams.
//!
//! A gateway is a *source*. To the client it is a peer that is asked for one block at a time, never
//! says what it has, and answers with the block or that it is not there; so its window, delay,
//! stalls and wrong blocks are counted like any peer's, and a session's wants go to peers and
//! gateways alike. Its name among them is a peer ID made from its address.
//!
//! ```text
//!  worker ── messages ──► driver ── GET /ipfs/<cid>?format=raw ──► gateway
//!    ▲ └──── news ◄─────────┘ └── payloads ──► verify ──┐
//!    └──────────────────────────────────────────────────┘
//! ```
//!
//! Which addresses mean a gateway and what may be dialled is decided in `crate::http`. Read
//! `request` for one question and its bounds, `driver` for many; `car` asks for a whole DAG at once.

mod car;
mod driver;
mod metrics;
mod request;
#[cfg(test)]
pub(super) mod tests;

#[cfg(test)]
pub(super) use car::tests as car_tests;
pub(super) use car::{CarFetch, CarNews, End};
pub(super) use driver::Driver;

use crate::http::{self, Endpoint, Fence, Pool, Standing, Times};
use crate::network::Network;
use crate::tasks::Tasks;
use crate::throttle::Gate;
use cairn_store::Cid;
use libp2p::PeerId;
use metrics::Metrics;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashSet;
use std::sync::Arc;

/// What a driver tells the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// A message was read: there is room for another.
    Heard,
    /// The gateway does not have it.
    Absent(Cid),
    /// The gateway did not give it.
    Failed(Cid),
    /// Nothing is asked of the gateway for a while, and nothing that was asked will be answered.
    Rests,
    /// It may be asked again.
    Ready,
}

/// The gateways to begin with and how far any may be away.
#[derive(Debug)]
pub(crate) struct Gateways {
    network: Network,
    configured: Vec<Endpoint>,
    roots: RootCertStore,
    times: Times,
}

impl Gateways {
    /// `configured` are asked for whatever is wanted; those outside `network` are left out.
    pub(crate) fn new(network: Network, configured: Vec<Endpoint>) -> Self {
        Self {
            network,
            configured,
            roots: http::public_roots(),
            times: Times::default(),
        }
    }
}

/// What is the same for all sources.
#[derive(Debug)]
pub(super) struct Http {
    network: Network,
    times: Times,
    tls: Arc<ClientConfig>,
    pub(super) configured: Vec<Endpoint>,
    pub(super) metrics: Metrics,
    /// Those that sent too much of what nobody asked for.
    barred: HashSet<PeerId>,
}

/// Why there is no HTTP.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Http {
    pub(super) fn new(
        gateways: Gateways,
        registry: &prometheus::Registry,
    ) -> Result<Self, HttpError> {
        Ok(Self {
            network: gateways.network,
            times: gateways.times,
            tls: http::tls(gateways.roots)?,
            configured: gateways.configured,
            metrics: Metrics::register(registry)?,
            barred: HashSet::new(),
        })
    }

    /// The way to a gateway, through `gate`; `None` if it may not be asked.
    pub(super) fn pool(
        &self,
        endpoint: Endpoint,
        standing: Standing,
        gate: Arc<Gate>,
        tasks: &Tasks,
    ) -> Option<Pool> {
        let fence = Fence {
            network: self.network,
            standing,
        };
        if self.is_barred(&endpoint.id()?) {
            return None;
        }
        let (tls, tasks) = (Arc::clone(&self.tls), tasks.clone());
        Pool::new(endpoint, fence, self.times, tls, tasks, Some(gate))
    }

    pub(super) fn is_barred(&self, source: &PeerId) -> bool {
        self.barred.contains(source)
    }

    /// Asks a source for nothing any more, however often it is announced.
    pub(super) fn bar(&mut self, source: PeerId) {
        if self.barred.len() >= BARRED_MAX {
            self.barred.clear();
        }
        self.barred.insert(source);
    }
}

/// Barred sources that are remembered. Each had to deliver wrong blocks under an address of its
/// own.
const BARRED_MAX: usize = 4096;
