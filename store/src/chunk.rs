//! From a file to chunks: the chunkers and their parameters as text (`size-262144`,
//! `rabin-16384-65536-131072`, `buzhash`).

use bytes::Bytes;
use std::io::Read;

/// A chunker and its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Chunks of one size.
    Size(u32),
    /// Content-defined chunks by a Rabin fingerprint: smallest, average and largest size.
    Rabin {
        /// Smallest chunk.
        min: u32,
        /// Average chunk, a power of two.
        average: u32,
        /// Largest chunk.
        max: u32,
    },
    /// Content-defined chunks by a cyclic polynomial, with fixed parameters.
    Buzhash,
}

/// Why a chunker's text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized chunker {text:?}: {why}")]
pub struct ChunkerError {
    text: String,
    why: String,
}

impl std::str::FromStr for Chunker {
    type Err = ChunkerError;
    fn from_str(_text: &str) -> Result<Self, ChunkerError> {
        todo!()
    }
}
impl std::fmt::Display for Chunker {
    fn fmt(&self, _out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
impl Chunker {
    /// Cuts what `input` yields; an empty input has no chunks.
    pub fn chunks<R: Read>(self, _input: R) -> Chunks<R> {
        todo!()
    }
}

/// The chunks of one input.
#[derive(Debug)]
pub struct Chunks<R> {
    _input: R,
}
impl<R: Read> Iterator for Chunks<R> {
    type Item = std::io::Result<Bytes>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
