//! What holders of a handle may ask of the swarm's worker.
//!
//! Every command that has an answer carries where to put it; an answer that never comes (the
//! sender was dropped) means that the node is stopping.

use super::{ConnectError, Connected};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

/// One request to the worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// The connections.
    Connected(oneshot::Sender<Vec<Connected>>),
    /// Dial; without addresses, at those that are known.
    Connect {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<(), ConnectError>>,
    },
    /// Have a connection to this very address, whatever others there are.
    Reach {
        peer: PeerId,
        address: Multiaddr,
        reply: oneshot::Sender<Result<(), ConnectError>>,
    },
    /// Wait until a connected peer has answered anything.
    Meet {
        peer: PeerId,
        reply: oneshot::Sender<Result<(), ConnectError>>,
    },
    /// Close every connection to a peer.
    Disconnect {
        peer: PeerId,
        reply: oneshot::Sender<Result<(), ConnectError>>,
    },
    /// Where we listen.
    Listening(oneshot::Sender<Vec<Multiaddr>>),
    /// Addresses of peers.
    Known(oneshot::Sender<Vec<(PeerId, Vec<Multiaddr>)>>),
}

/// Commands that may wait for the worker; whoever asks more waits to ask.
pub(crate) const COMMANDS_MAX: usize = 256;
