//! Content-defined chunks by a Rabin fingerprint: the remainder of the last 16 bytes, read as a
//! polynomial, by an irreducible one of degree 53. The parameters are those of
//! github.com/whyrusleeping/chunker as boxo uses it: they are part of what a chunk is.

use super::Buffer;
use bytes::Bytes;
use std::io::{self, Read};

#[derive(Debug)]
pub(super) struct Rabin {
    buffer: Buffer,
    min: usize,
    max: usize,
    /// A chunk ends where these bits of the fingerprint are zero.
    mask: u64,
    tables: Tables,
}

/// What leaves with a byte, and what its degree overflows to.
#[derive(Debug)]
struct Tables {
    leave: [u64; 256],
    reduce: [u64; 256],
}

impl Rabin {
    pub(super) fn new(min: u32, average: u32, max: u32) -> Self {
        Self {
            buffer: Buffer::default(),
            min: min.max(super::RABIN_MIN) as usize,
            max: max.max(1) as usize,
            mask: (1 << average.max(1).ilog2()) - 1,
            tables: Tables::new(),
        }
    }

    pub(super) fn next(&mut self, input: &mut impl Read) -> io::Result<Option<Bytes>> {
        self.buffer.fill(input, self.max)?;
        if self.buffer.data.is_empty() {
            return Ok(None);
        }
        let end = self.end(&self.buffer.data);
        Ok(Some(self.buffer.cut(end)))
    }

    /// Where the first chunk of `data` ends.
    fn end(&self, data: &[u8]) -> usize {
        // The fingerprint begins anew with each chunk: with a single 1 in its window, which the
        // first 16 bytes push out, so only the window before the smallest end counts.
        let start = self.min - WINDOW;
        let mut window = [0_u8; WINDOW];
        window[0] = 1;
        let mut digest = 1;
        for (at, byte) in data.iter().enumerate().skip(start) {
            let place = (at - start + 1) % WINDOW;
            let Some(slot) = window.get_mut(place) else {
                break;
            };
            digest ^= Tables::at(&self.tables.leave, u64::from(*slot));
            *slot = *byte;
            digest = self.tables.push(digest, *byte);
            let length = at + 1;
            if length >= self.min && (digest & self.mask == 0 || length >= self.max) {
                return length;
            }
        }
        data.len()
    }
}

impl Tables {
    fn new() -> Self {
        let mut tables = Self {
            leave: [0; 256],
            reduce: [0; 256],
        };
        for (byte, (leave, reduce)) in
            (0_u64..).zip(tables.leave.iter_mut().zip(&mut tables.reduce))
        {
            let overflow = byte << DEGREE;
            // Both the rest and the overflow itself, so that one exclusive or removes the latter.
            *reduce = remainder(overflow) | overflow;
            *leave = (1..WINDOW).fold(remainder(byte), |digest, _| remainder(digest << 8));
        }
        tables
    }

    fn push(&self, digest: u64, byte: u8) -> u64 {
        let overflow = digest >> (DEGREE - 8);
        (digest << 8 | u64::from(byte)) ^ Self::at(&self.reduce, overflow)
    }

    fn at(table: &[u64; 256], at: u64) -> u64 {
        usize::try_from(at)
            .ok()
            .and_then(|at| table.get(at))
            .copied()
            .unwrap_or_default()
    }
}

/// The remainder of a polynomial over GF(2) by [`POLYNOMIAL`].
fn remainder(mut value: u64) -> u64 {
    while let Some(degree) = value.checked_ilog2().filter(|degree| *degree >= DEGREE) {
        value ^= POLYNOMIAL << (degree - DEGREE);
    }
    value
}

const POLYNOMIAL: u64 = 17_437_180_132_763_653;
const DEGREE: u32 = POLYNOMIAL.ilog2();
const WINDOW: usize = 16;
