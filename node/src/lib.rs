//! One store, one swarm, and the traffic between them.

pub mod bitswap;
pub mod config;
pub mod event;
pub mod exchange;
pub mod identity;
pub mod network;
pub mod node;
pub mod routing;
pub mod swarm;
pub mod tasks;

pub use config::Config;
pub use event::Event;
pub use exchange::{Exchange, Session};
pub use libp2p::{Multiaddr, PeerId};
pub use network::Network;
pub use node::Node;
