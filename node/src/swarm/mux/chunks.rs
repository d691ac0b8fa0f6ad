//! Bytes that were received and not read yet, in few pieces of memory.

use std::collections::VecDeque;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    pieces: VecDeque<Vec<u8>>,
    /// What of the first piece has been read.
    start: usize,
    length: usize,
}

impl Chunks {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds to the end. The first piece is as large as what is in it; when more comes before it is read,
    /// the next ones have room to spare.
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        if let Some(last) = self.pieces.back_mut() {
            let fits = bytes.len().min(last.capacity() - last.len());
            let (now, later) = bytes.split_at(fits);
            last.extend_from_slice(now);
            bytes = later;
        }
        if bytes.is_empty() {
            return;
        }
        let room = match self.pieces.is_empty() {
            true => bytes.len(),
            false => bytes.len().max(PIECE_BYTES),
        };
        let mut piece = Vec::with_capacity(room);
        piece.extend_from_slice(bytes);
        self.pieces.push_back(piece);
    }

    /// Moves bytes from the front into `out`; answers how many.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let mut taken = 0;
        while let Some(first) = self.pieces.front() {
            let (from, to) = (
                first.get(self.start..).unwrap_or_default(),
                out.get_mut(taken..).unwrap_or_default(),
            );
            let count = from.len().min(to.len());
            if let (Some(to), Some(from)) = (to.get_mut(..count), from.get(..count)) {
                to.copy_from_slice(from);
            }
            taken += count;
            self.start += count;
            if self.start < first.len() {
                break;
            }
            self.pieces.pop_front();
            self.start = 0;
        }
        self.length -= taken;
        taken
    }
}

/// Room in a piece behind another one.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in proptest::collection::vec((any::<bool>(), 0usize..100_000), 0..40)) {
            let (mut chunks, mut model) = (Chunks::default(), VecDeque::new());
            let mut next = 0u8;
            for (puts, count) in steps {
                if puts {
                    let bytes: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    chunks.put(&bytes);
                    model.extend(bytes);
                } else {
                    let mut out = vec![0; count];
                    let taken = chunks.take(&mut out);
                    prop_assert_eq!(taken, count.min(model.len()));
                    let expected: Vec<u8> = model.drain(..taken).collect();
                    prop_assert!(out[..taken] == expected[..]);
                }
                prop_assert_eq!(chunks.is_empty(), model.is_empty());
                prop_assert_eq!(chunks.len(), model.len());
            }
        }
    }
}
