//! Chunks of one size, each read straight into the memory it stays in.

use crate::buffers::{KEPT_BYTES, Kept};
use bytes::Bytes;
use std::io::{self, ErrorKind, Read};

#[derive(Debug)]
pub(super) struct Fixed {
    size: usize,
}

impl Fixed {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size: size.max(1) as usize,
        }
    }

    pub(super) fn next(&mut self, input: &mut impl Read) -> io::Result<Option<Bytes>> {
        // In less, a chunk would take up to twice what it counts in a batch.
        let kept = (self.size >= KEPT_FROM).then(|| Kept::of(self.size));
        let chunk = match kept.flatten() {
            Some(kept) => kept.fill(|_, rest| read(input, rest))?,
            None => self.read_into_new(input)?,
        };
        if chunk.is_empty() {
            return Ok(None);
        }
        // A short last chunk may wait in a batch for long: it has only what it needs.
        Ok(Some(if chunk.len() < self.size / 2 {
            Bytes::copy_from_slice(&chunk)
        } else {
            chunk
        }))
    }

    fn read_into_new(&self, input: &mut impl Read) -> io::Result<Bytes> {
        let mut chunk = Vec::with_capacity(self.size);
        input.take(self.size as u64).read_to_end(&mut chunk)?;
        Ok(Bytes::from(chunk))
    }
}

fn read(input: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// From how many bytes on a chunk is read into a buffer that is used again.
const KEPT_FROM: usize = KEPT_BYTES / 8 * 7;
