//! Chunks of one size, each read straight into the memory it stays in.

use bytes::Bytes;
use std::io::{self, Read};

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
        let mut chunk = Vec::with_capacity(self.size);
        input.take(self.size as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        // A short last chunk may wait in a batch for long: it gives back what it does not need.
        if chunk.len() < self.size / 2 {
            chunk.shrink_to_fit();
        }
        Ok(Some(Bytes::from(chunk)))
    }
}
