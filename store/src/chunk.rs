//! From a file to chunks: the chunkers and their parameters as text (`size-262144`,
//! `rabin-16384-65536-131072`, `buzhash`).

mod buzhash;
mod fixed;
mod rabin;

use bytes::Bytes;
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// A chunker and its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Chunks of one size.
    Size(u32),
    /// Content-defined chunks by a Rabin fingerprint: smallest, average and largest size.
    Rabin {
        /// Smallest chunk.
        min: u32,
        /// Average chunk; the power of two below it counts.
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

impl Chunker {
    /// What an empty or missing choice means.
    pub const DEFAULT: Self = Self::Size(AVERAGE_DEFAULT);

    /// Cuts what `input` yields; an empty input has no chunks.
    pub fn chunks<R: Read>(self, input: R) -> Chunks<R> {
        Chunks {
            input,
            cutter: match self {
                Self::Size(size) => Cutter::Fixed(fixed::Fixed::new(size)),
                Self::Rabin { min, average, max } => {
                    Cutter::Rabin(Box::new(rabin::Rabin::new(min, average, max)))
                }
                Self::Buzhash => Cutter::Buzhash(buzhash::Buzhash::default()),
            },
            is_done: false,
        }
    }

    fn rabin(min: u32, average: u32, max: u32) -> Result<Self, String> {
        if min < RABIN_MIN {
            Err(format!(
                "the smallest chunk must have {RABIN_MIN} bytes or more"
            ))
        } else if min >= average || average >= max {
            Err("smallest, average and largest chunk must rise".to_owned())
        } else if max > CHUNK_BYTES_MAX {
            Err(too_large())
        } else {
            Ok(Self::Rabin { min, average, max })
        }
    }
}

impl FromStr for Chunker {
    type Err = ChunkerError;

    fn from_str(text: &str) -> Result<Self, ChunkerError> {
        let number = |text: &str| {
            let number = text.parse::<u32>();
            number.map_err(|_| format!("{text:?} is not a number of bytes"))
        };
        let labelled = |text: &str, label: &str| match text.split_once(':') {
            Some((found, rest)) if found == label => number(rest),
            Some(_) => Err(format!("{text:?} stands where {label} is due")),
            None => number(text),
        };
        let parts: Vec<&str> = text.split('-').collect();
        let read = match parts.as_slice() {
            ["" | "default"] => Ok(Self::DEFAULT),
            ["size", size] => number(size).and_then(|size| match size {
                0 => Err("the size must be greater than 0".to_owned()),
                1..=CHUNK_BYTES_MAX => Ok(Self::Size(size)),
                _ => Err(too_large()),
            }),
            ["buzhash", ..] => Ok(Self::Buzhash),
            ["rabin"] => Self::rabin(
                AVERAGE_DEFAULT / 3,
                AVERAGE_DEFAULT,
                AVERAGE_DEFAULT + AVERAGE_DEFAULT / 2,
            ),
            ["rabin", average] => number(average).and_then(|average| {
                Self::rabin(average / 3, average, average.saturating_add(average / 2))
            }),
            ["rabin", min, average, max] => labelled(min, "min")
                .and_then(|min| Self::rabin(min, labelled(average, "avg")?, labelled(max, "max")?)),
            _ => Err("write size-N, rabin, rabin-AVG, rabin-MIN-AVG-MAX or buzhash".to_owned()),
        };
        read.map_err(|why| ChunkerError {
            text: text.chars().take(TEXT_SHOWN).collect(),
            why,
        })
    }
}

impl fmt::Display for Chunker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(out, "size-{size}"),
            Self::Rabin { min, average, max } => write!(out, "rabin-{min}-{average}-{max}"),
            Self::Buzhash => out.write_str("buzhash"),
        }
    }
}

/// The chunks of one input. After an error it ends.
#[derive(Debug)]
pub struct Chunks<R> {
    input: R,
    cutter: Cutter,
    is_done: bool,
}

#[derive(Debug)]
enum Cutter {
    Fixed(fixed::Fixed),
    Rabin(Box<rabin::Rabin>),
    Buzhash(buzhash::Buzhash),
}

impl<R: Read> Iterator for Chunks<R> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = match &mut self.cutter {
            Cutter::Fixed(fixed) => fixed.next(&mut self.input),
            Cutter::Rabin(rabin) => rabin.next(&mut self.input),
            Cutter::Buzhash(buzhash) => buzhash.next(&mut self.input),
        };
        self.is_done = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// Bytes read and not yet cut, for chunkers that must see them first.
#[derive(Debug, Default)]
struct Buffer {
    data: Vec<u8>,
    at_end: bool,
}

impl Buffer {
    /// Reads until `most` bytes are here, or the input ends.
    fn fill(&mut self, input: &mut impl Read, most: usize) -> io::Result<()> {
        if self.at_end || self.data.len() >= most {
            return Ok(());
        }
        let missing = most - self.data.len();
        self.data.reserve_exact(missing);
        let read = input.take(missing as u64).read_to_end(&mut self.data)?;
        self.at_end = read < missing;
        Ok(())
    }

    fn cut(&mut self, length: usize) -> Bytes {
        let chunk = Bytes::copy_from_slice(self.data.get(..length).unwrap_or(&self.data));
        self.data.drain(..chunk.len());
        chunk
    }
}

fn too_large() -> String {
    format!("chunks may not have more than {CHUNK_BYTES_MAX} bytes")
}

/// Largest chunk: what a block holds, less what a dag-pb leaf adds to it.
pub const CHUNK_BYTES_MAX: u32 = (2 << 20) - 256;
/// Average chunk of chunkers that are given none.
const AVERAGE_DEFAULT: u32 = 256 << 10;
/// The window of the Rabin fingerprint, and so the smallest chunk it can cut.
const RABIN_MIN: u32 = 16;
/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 120;

#[cfg(test)]
mod tests;
