//! A socket that is read in large pieces.
//!
//! Noise reads 8 KiB at a time and rustls 4 KiB; straight from a socket that is a system call
//! each. Here one call fills a buffer that many small reads then empty. Writes pass through: they
//! are large already.

use futures::{AsyncRead, AsyncWrite, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// `inner` with bytes read ahead.
///
/// Invariant: `start <= end <= buffer.len()`, and `buffer[start..end]` came from `inner` and was
/// not handed out yet. The buffer is allocated by the first read.
#[derive(Debug)]
pub(super) struct Buffered<S> {
    inner: S,
    buffer: Box<[u8]>,
    capacity: usize,
    start: usize,
    end: usize,
}

impl<S> Buffered<S> {
    pub(super) fn new(inner: S, capacity: usize) -> Self {
        Self {
            inner,
            buffer: Box::default(),
            capacity,
            start: 0,
            end: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Buffered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.start == this.end {
            if out.len() >= this.capacity {
                return Pin::new(&mut this.inner).poll_read(cx, out);
            }
            if this.buffer.is_empty() {
                // Zeroed by the kernel: pages that are never filled are never touched.
                this.buffer = vec![0; this.capacity].into_boxed_slice();
            }
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.buffer))?;
            (this.start, this.end) = (0, read);
        }
        let ahead = this.buffer.get(this.start..this.end).unwrap_or_default();
        let taken = ahead.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..taken), ahead.get(..taken)) {
            to.copy_from_slice(from);
        }
        this.start += taken;
        Poll::Ready(Ok(taken))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Buffered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::{AsyncReadExt, Cursor};
    use proptest::prelude::*;

    /// Counts the reads that reach it.
    struct Counted(Cursor<Vec<u8>>, usize);

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_read(cx, out)
        }
    }

    #[test]
    fn many_small_reads_are_one_large_one() {
        let mut buffered = Buffered::new(Counted(Cursor::new(vec![7; 1000]), 0), 4096);
        for _ in 0..100 {
            let mut out = [0; 10];
            block_on(buffered.read_exact(&mut out)).unwrap();
            assert_eq!(out, [7; 10]);
        }
        assert_eq!(buffered.inner.1, 1);
        assert_eq!(block_on(buffered.read(&mut [0; 1])).unwrap(), 0, "the end");
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
            capacity in 1usize..100,
            reads in proptest::collection::vec(1usize..200, 1..20),
        ) {
            let mut buffered = Buffered::new(Cursor::new(bytes.clone()), capacity);
            let mut seen = Vec::new();
            for wanted in reads.iter().cycle() {
                let mut out = vec![0; *wanted];
                let read = block_on(buffered.read(&mut out)).unwrap();
                if read == 0 {
                    break;
                }
                seen.extend_from_slice(&out[..read]);
            }
            prop_assert_eq!(seen, bytes);
        }
    }
}
