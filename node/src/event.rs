//! Facts others may wait for. (signatures)

use cairn_store::Cid;
use libp2p::{Multiaddr, PeerId};

/// Something that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A listener is up.
    Listening(Multiaddr),
    /// The first connection to a peer is up.
    Connected(PeerId),
    /// The peer told who it is and what it speaks.
    Identified(PeerId),
    /// The last connection to a peer is gone.
    Disconnected(PeerId),
    /// A block came from a peer and is in the store.
    Fetched(Cid),
    /// Peers were told that we have this.
    Provided(Cid),
}
