//! Content in, blocks kept, content out: no peers, no keys.

#[cfg(feature = "bench")]
pub mod bench_index;
pub mod block;
mod buffers;
pub mod car;
pub mod chunk;
pub mod cid;
mod compact;
pub mod config;
pub mod dag;
pub mod derived;
mod disk;
pub mod durable;
pub mod evict;
pub mod files;
pub mod filestore;
pub mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gc;
pub mod hash;
mod index;
mod journal;
pub mod kubo;
mod log;
pub mod notes;
pub mod pin;
pub mod reference;
pub mod scrub;
#[cfg(test)]
mod simulation;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod store;
mod sync;
pub mod unixfs;
pub mod verify;

pub use block::{Block, BlockError};
pub use cid::Cid;
pub use source::{BlockSource, SourceError};
pub use store::Store;
