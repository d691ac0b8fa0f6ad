//! Moving in from Kubo: what lies in its repository is read, checked and taken over; nothing there is written.
//!
//! * `file`: how its files are opened and read, whatever lies in their place.
//! * `source`: the folder itself, its lock, and from its configuration where blocks and records lie.
//! * `flatfs`: the files that blocks lie in, and what else lies among them.
//! * `leveldb`, `records`: pins, the file tree's root and names, in a LevelDB that we read ourselves.
//! * `codec`: what a block is, which its file does not tell.
//! * `import`: several threads read and hash, one writes; `whole`: pins, once everything below them is here.
//!
//! An import that was broken off at any moment goes on when it is done again: what is in the index is not read again.
//! So there is no note of how far it got that could be wrong. Keys and the identity are not the store's business.

mod codec;
mod file;
mod flatfs;
mod import;
pub(crate) mod leveldb;
pub(crate) mod records;
mod source;
#[cfg(test)]
mod tests;
mod whole;

pub use import::{Event, FILES_PIN, Imported, Progress};
pub use records::{KuboPin, Records};
pub use source::{KuboError, Source};
pub use whole::{FilesFate, PinFate};
