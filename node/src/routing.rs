//! Who has what. (signatures)

use cairn_store::Cid;
use futures::Stream;
use libp2p::{Multiaddr, PeerId};

/// A peer that says it has something.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub addresses: Vec<Multiaddr>,
}

/// Why nothing was found out or told.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// There is nobody to ask.
    #[error("no peers in the routing table; connect to one first (`cairn swarm connect`)")]
    NoPeers,
    /// Nobody answered in time.
    #[error("the lookup for {0} did not finish in time")]
    TooSlow(Cid),
    /// Nobody took the record.
    #[error("no peer took the provider record for {0}")]
    NotTaken(Cid),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A handle on routing. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routing {}

impl Routing {
    /// Streams providers as they are found, at most `limit`.
    pub fn find_providers(
        &self,
        _cid: Cid,
        _limit: usize,
    ) -> impl Stream<Item = Result<Provider, RoutingError>> + Send + 'static {
        if true {
            todo!()
        }
        futures::stream::empty()
    }
    /// Tells the peers nearest to `cid` that we have it.
    pub async fn provide(&self, _cid: Cid) -> Result<(), RoutingError> {
        todo!()
    }
}
