//! One store, one swarm, and the traffic between them.
//!
//! A fetch, from call to block: a [`Session`] of the [`Exchange`] asks the store, then Bitswap,
//! which asks the peers it is connected to and, through [`routing`], finds others who have the
//! block; the swarm dials them and carries the streams; what comes back is verified, stored and
//! handed over.
//!
//! [`Node`] wires the parts together and stops them in order; [`Config`] holds their limits;
//! [`network`] says how far any of it may reach.

pub mod bitswap;
pub mod clock;
pub mod config;
pub mod denylist;
pub mod dht;
pub mod event;
pub mod exchange;
pub mod explain;
mod http;
mod identify;
pub mod identity;
pub mod ipns;
mod jobs;
pub mod keystore;
pub mod kubo;
pub mod limits;
mod metrics;
pub mod name;
mod negotiation;
pub mod network;
pub mod node;
pub mod perf;
pub mod ping;
pub mod pins;
mod places;
pub mod private;
mod protobuf;
pub mod provide;
mod public_key;
pub mod reach;
pub mod routing;
pub mod swarm;
pub mod tasks;
mod throttle;
pub mod web;

#[cfg(feature = "fuzzing")]
pub use bitswap::fuzzing;
pub use config::{Config, Security};
pub use event::Event;
pub use exchange::{Exchange, Session};
pub use http::{Endpoint, NoEndpoint};
pub use jobs::keep_in_order_offline;
pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
pub use limits::Limits;
pub use network::Network;
pub use node::Node;
