//! `/api/v0`, both ends: what answers a command, and what asks.
//!
//! [`api::Api::handle`] is the one implementation of every command. It takes an HTTP request and
//! gives an HTTP response, wherever they come from and go to: a socket ([`server`], behind
//! [`guard`]) or the command line in the same process ([`client`]). One file for each family of
//! commands; each also owns the shapes of its answers, which are Kubo's.
//!
//! On the wire: `POST` only; arguments in the query (or, where they are too long, as a form), repeated `arg`; files as multipart; values as
//! newline-delimited JSON, streams of bytes raw; an error before the first byte of an answer is a
//! status and a JSON body, an error after it a trailer `X-Stream-Error`.

pub mod add;
pub mod ahead;
pub mod api;
pub mod arguments;
pub mod block;
pub mod bootstrap;
pub mod cat;
pub mod cid;
pub mod client;
pub mod config;
pub mod context;
pub mod dag;
mod deadline;
pub mod denylist;
pub mod diag;
mod drain;
pub mod entries;
pub mod error;
pub mod explain;
mod feed;
pub mod files;
pub mod filestore;
pub mod filters;
pub mod follow;
pub mod get;
pub mod guard;
pub mod healthy;
pub mod id;
pub mod key;
pub mod log;
pub mod ls;
mod manner;
pub mod multipart;
pub mod name;
mod patience;
pub mod peering;
pub mod pin;
pub mod ping;
mod places;
pub mod provide;
pub mod refs;
pub mod reply;
pub mod repo;
pub mod resolve;
pub mod routing;
pub mod server;
pub mod stats;
pub mod swarm;
pub mod sync;
pub mod tar;
mod teller;
pub mod upload;
pub mod version;

/// Where the commands live.
pub const PREFIX: &str = "/api/v0/";
/// The media type of arguments in a body: as in a query, for those that an address cannot hold.
pub const FORM: &str = "application/x-www-form-urlencoded";
/// The trailer that tells of an error after the first byte of an answer.
pub const STREAM_ERROR: &str = "x-stream-error";
