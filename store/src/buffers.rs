//! Buffers for reading large blocks, used again: memory that the system has just handed over costs as much as the
//! reading itself, page for page.

use crate::sync::PlainMutex;
use bytes::Bytes;
use std::sync::PoisonError;

/// Buffers that nobody uses just now.
static FREE: PlainMutex<Vec<Vec<u8>>> = PlainMutex::new(Vec::new());

/// A buffer that comes back when nobody has its bytes any more.
pub(crate) struct Kept {
    buffer: Vec<u8>,
    length: usize,
}

impl Kept {
    /// One of so many bytes, if they are so many that it is worth while. What is in it is of whoever had it before.
    pub(crate) fn of(length: usize) -> Option<Self> {
        if !(KEPT_FROM..=KEPT_BYTES).contains(&length) {
            return None;
        }
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = free.unwrap_or_else(|| vec![0; KEPT_BYTES]);
        Some(Self { buffer, length })
    }

    /// Fills it with `read`, which is asked for what is missing until there is no more; what was filled is all that is
    /// seen of it.
    pub(crate) fn fill<E>(
        mut self,
        mut read: impl FnMut(usize, &mut [u8]) -> Result<usize, E>,
    ) -> Result<Bytes, E> {
        let mut filled = 0;
        while let Some(rest) = self.buffer.get_mut(filled..self.length)
            && !rest.is_empty()
        {
            match read(filled, rest)? {
                0 => break,
                more => filled += more,
            }
        }
        self.length = filled.min(self.length);
        Ok(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT_MAX {
            free.push(buffer);
        }
    }
}

/// From how many bytes on buffers are kept: in less, whoever holds a part of it would hold far more than that.
const KEPT_FROM: usize = KEPT_BYTES / 2;
/// Room of a kept buffer: a block of the default size with its header, in whole pages.
pub(crate) const KEPT_BYTES: usize = (1 << 20) + (16 << 10);
/// Most buffers that are kept while nobody uses them.
const KEPT_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn a_buffer_shows_what_was_read_into_it_and_nothing_of_before() {
        let many: Vec<Bytes> = (1..=2 * KEPT_MAX)
            .map(|number| {
                let number = u8::try_from(number).unwrap();
                let kept = Kept::of(KEPT_FROM).unwrap();
                let mut left = KEPT_FROM - usize::from(number);
                let read = kept.fill(|_, rest| {
                    let some = rest.len().min(100_000).min(left);
                    rest[..some].fill(number);
                    left -= some;
                    Ok::<_, Infallible>(some)
                });
                read.unwrap()
            })
            .collect();
        for (bytes, number) in many.iter().zip(1_u8..) {
            assert_eq!(bytes.len(), KEPT_FROM - usize::from(number));
            assert!(bytes.iter().all(|byte| *byte == number));
        }
        let part = many[0].slice(5..9);
        drop(many);
        assert_eq!(part, [1; 4][..]);
        drop(part);
        let free = FREE.lock().unwrap().len();
        assert!((1..=KEPT_MAX).contains(&free), "{free}");
    }

    #[test]
    fn only_large_reads_of_one_block_have_one() {
        assert!(Kept::of(KEPT_FROM - 1).is_none());
        assert!(Kept::of(KEPT_BYTES).is_some());
        assert!(Kept::of(KEPT_BYTES + 1).is_none());
    }
}
