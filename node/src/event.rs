//! Facts others may wait for.
//!
//! Whoever wants to know subscribes before acting. The channel is bounded: a listener that does not
//! keep up loses the oldest facts and is told so (`Lagged`), nobody waits for it.

use crate::reach::Reachability;
use cairn_store::Cid;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::broadcast;

/// Something that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A listener is up.
    Listening(Multiaddr),
    /// The first connection to a peer is up.
    Connected(PeerId),
    /// The peer told who it is and what it speaks; we can look things up through it.
    Identified(PeerId),
    /// The last connection to a peer is gone.
    Disconnected(PeerId),
    /// Whether we can be reached, as far as known, is another than before.
    Reach(Reachability),
    /// A block came from a peer and is in the store.
    Fetched(Cid),
    /// A peer told of a newer record of a name that is followed here.
    Renewed(PeerId),
    /// Peers were told that we have this.
    Provided(Cid),
    /// Peers were told of all keys of a region that were to be told.
    ProvidedRegion {
        /// How many.
        keys: u64,
    },
    /// Cached blocks went, to make room.
    Evicted {
        /// How many.
        blocks: u64,
    },
    /// The scrub found the block damaged, and it is whole again.
    Healed(Cid),
    /// The scrub is through with all that is stored.
    Scrubbed,
}

/// A channel for events.
pub(crate) fn channel() -> broadcast::Sender<Event> {
    broadcast::Sender::new(EVENTS_MAX)
}

/// Events a listener may be behind before it loses some.
const EVENTS_MAX: usize = 4096;
