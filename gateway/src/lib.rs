//! Blocks over HTTP, read-only (but for records of names, where the operator lets others have them kept).
//!
//! The story of a request: `server` accepts a connection and reads a head; `handler` gives it a
//! place among the running requests and a time limit; `host` tells what its name makes of it; `request` understands it, with `format` for
//! what was asked for; `response` follows the path through the DAG and answers in one of its
//! forms, with `archive`, `redirects`, `range`, `media`, `headers` and `encode` for the details, and what `budget` lets one request cost; `error` says whatever went
//! wrong. `trustless` is for gateways that give
//! nothing else. `names` follows `/ipns/…`, and `routing` answers who has what. Blocks come from `content`, which is all that this crate knows of stores and peers.
//!
//! Nothing is answered as whole that is not: a `body` that cannot be finished breaks its
//! connection.

mod access;
pub mod archive;
mod body;
mod budget;
pub mod config;
mod content;
mod encode;
mod error;
mod format;
mod handler;
mod headers;
mod host;
mod media;
mod metrics;
mod names;
mod page;
mod range;
mod redirects;
mod request;
mod response;
mod routing;
pub mod server;
#[cfg(test)]
mod tests;
mod trustless;

pub use config::Config;
pub use server::Gateway;
