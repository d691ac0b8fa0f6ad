//! Being reachable: finding out whether we are, and being so all the same where a router stands before us.
//!
//! What decides has no I/O and no clock: `state.rs` knows where we can be reached and is the only one that
//! says so, `relays.rs` keeps relays that lend us a way while we cannot. `autonat.rs` asks peers to try an
//! address and tries theirs; `kept.rs` holds back what other behaviours would confirm unasked, `told.rs` decides
//! which of our addresses peers hear of. The swarm's worker joins them (`swarm/worker/reaching.rs`).
//!
//! A reservation at a relay and a router's promise to hand a port on are no proof of anything: neither
//! makes us a server of the DHT or a relay. Only peers that came to an address by themselves do, and they are asked again.

pub(crate) mod autonat;
pub(crate) mod kept;
pub(crate) mod relays;
mod settings;
pub(crate) mod state;
pub(crate) mod told;

use libp2p::{Multiaddr, PeerId};
pub use settings::{AddressRule, AddressRuleError, Settings};
pub use state::{Reachability, Standing};

/// What is known of our reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether we can be reached at all.
    pub reachability: Reachability,
    /// Every address that is looked at.
    pub addresses: Vec<(Multiaddr, Standing)>,
    /// What peers are told.
    pub told: Vec<Multiaddr>,
    /// Who lends us a way.
    pub relays: Vec<PeerId>,
}
