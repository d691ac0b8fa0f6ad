//! Blocks over HTTP, read-only. (signatures)

pub mod config;
pub mod server;

pub use config::Config;
pub use server::Gateway;
