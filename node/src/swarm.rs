//! Who we are connected to. (signatures)

use libp2p::{Multiaddr, PeerId};
use std::time::Duration;

/// A connected peer.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Who.
    pub peer: PeerId,
    /// The address at the other end, without `/p2p`.
    pub address: Multiaddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// Last measured round trip.
    pub latency: Option<Duration>,
    /// What the peer calls itself.
    pub agent: Option<String>,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// Muxer or transport, as `/yamux/1.0.0` or `quic`.
    pub muxer: String,
}

/// Bytes over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bandwidth {
    /// Bytes received since the start.
    pub total_in: u64,
    /// Bytes sent since the start.
    pub total_out: u64,
    /// Bytes received a second, lately.
    pub rate_in: f64,
    /// Bytes sent a second, lately.
    pub rate_out: f64,
}

/// Why a connection was not made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The network of this node does not reach there.
    #[error(
        "{address} is outside the network `{network}` this node is limited to; `cairn config set network` changes it"
    )]
    Outside {
        /// The address.
        address: Multiaddr,
        /// The network's name.
        network: &'static str,
    },
    /// No address is known.
    #[error("no address known for peer {0}")]
    NoAddress(PeerId),
    /// The address has no `/p2p/<peer id>`.
    #[error("{0} does not end in /p2p/<peer id>")]
    NoPeerId(Multiaddr),
    /// Nobody there, or not who was expected.
    #[error("failure to dial {peer}: {why}")]
    Dial {
        /// Who.
        peer: PeerId,
        /// What the transports said.
        why: String,
    },
    /// Not connected.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A handle on the swarm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {}

impl Peers {
    /// Connected peers, one row a connection.
    pub async fn connected(&self) -> Vec<Connected> {
        todo!()
    }
    /// Dials; `address` ends in `/p2p/<peer id>`. Done when connected.
    pub async fn connect(&self, _address: Multiaddr) -> Result<PeerId, ConnectError> {
        todo!()
    }
    /// Closes every connection to the peer at the end of `address`.
    pub async fn disconnect(&self, _address: Multiaddr) -> Result<PeerId, ConnectError> {
        todo!()
    }
    /// Where we listen, without `/p2p`.
    pub async fn listening(&self) -> Vec<Multiaddr> {
        todo!()
    }
    /// Addresses known for peers, connected or not.
    pub async fn known(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        todo!()
    }
    /// What we speak.
    pub async fn protocols(&self) -> Vec<String> {
        todo!()
    }
    /// Bytes in and out.
    pub fn bandwidth(&self) -> Bandwidth {
        todo!()
    }
}
