//! From files and folders to blocks, in one pass and bounded memory.
//!
//! Whoever imports feeds an [`Importer`] with a tree in walking order: `enter` a folder, give it
//! `file`s and `symlink`s and folders of its own, `leave` it. Small files are collected and hashed
//! together, so their CIDs come out a little later, in order, through `on_event`.

use super::{Mtime, Profile};
use crate::cid::Cid;
use crate::sink::{BlockSink, PutError};
use std::io::Read;

/// Mode and time of an entry, kept only when asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Unix permission bits.
    pub mode: Option<u32>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
}

/// What an import tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// So many more bytes of `path` were read.
    Read {
        /// The entry's path, as entered: names joined by `/`, without a leading one.
        path: String,
        /// Bytes of the entry read so far.
        bytes: u64,
    },
    /// An entry is complete. Children come before their folder.
    Added(Added),
}

/// A complete entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The entry's path, as in [`Event::Read`].
    pub path: String,
    /// Its root.
    pub cid: Cid,
    /// Cumulative size of its DAG in bytes.
    pub size: u64,
    /// What it was.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder, plain or HAMT.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Why an import stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// An entry could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The entry.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The blocks could not be kept.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A name that UnixFS cannot hold: empty, `.`, `..`, or with `/` or NUL.
    #[error("{name:?} cannot be a name in a folder")]
    Name {
        /// The name.
        name: String,
    },
    /// Two entries of one folder have one name.
    #[error("two entries are named {path}")]
    Twice {
        /// The path that came twice.
        path: String,
    },
    /// Folders nested deeper than [`DEPTH_MAX`].
    #[error("{path} lies deeper than {DEPTH_MAX} folders")]
    TooDeep {
        /// The folder.
        path: String,
    },
    /// A block could not be made (a chunk or a symlink that is too large for one).
    #[error(transparent)]
    Block(#[from] crate::block::BlockError),
}

/// Deepest nesting of folders.
pub const DEPTH_MAX: usize = 1024;

/// One import, from its first entry to its root.
pub struct Importer<S, F> {
    _profile: Profile,
    _sink: S,
    _on_event: F,
}

impl<S, F> std::fmt::Debug for Importer<S, F> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Importer").finish_non_exhaustive()
    }
}

impl<S: BlockSink, F: FnMut(Event)> Importer<S, F> {
    /// Blocks go to `sink`, progress and results to `on_event`.
    pub fn new(_profile: Profile, _sink: S, _on_event: F) -> Self {
        todo!()
    }

    /// Opens a folder inside the current one (or at the top).
    pub fn enter(&mut self, _name: &str, _metadata: Metadata) -> Result<(), ImportError> {
        todo!()
    }

    /// Closes the current folder.
    pub fn leave(&mut self) -> Result<(), ImportError> {
        todo!()
    }

    /// Reads a file to its end.
    pub fn file(
        &mut self,
        _name: &str,
        _content: &mut dyn Read,
        _metadata: Metadata,
    ) -> Result<(), ImportError> {
        todo!()
    }

    /// Adds a symbolic link.
    pub fn symlink(
        &mut self,
        _name: &str,
        _target: &str,
        _metadata: Metadata,
    ) -> Result<(), ImportError> {
        todo!()
    }

    /// Writes out what is still collected and gives the top-level entries, in the order given.
    pub fn finish(self) -> Result<Vec<Added>, ImportError> {
        todo!()
    }
}
