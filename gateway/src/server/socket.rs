//! A connection, or a peer's stream, that does not wait for ever for its reader, and that is reset, not closed, when
//! what it carried broke off.
//!
//! An HTTP/1.0 client takes the end of a connection for the end of the body: only a reset tells it
//! that something is missing.

use crate::body::Broken;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::compat::Compat;

/// Something of which the other end can be told that it broke off.
pub(crate) trait Cut {
    /// Dropped from now on, it is reset.
    fn cut(&mut self);
}

impl Cut for TcpStream {
    fn cut(&mut self) {
        // A failure leaves an orderly end, which HTTP/1.1 clients still see through.
        let _ = self.set_zero_linger();
    }
}

/// A stream of libp2p.
impl<S> Cut for Compat<S> {
    // That is what becomes of one that is dropped before it is shut down. Over QUIC it ends in order all the same, which
    // is why nothing but HTTP/1.1 is spoken there.
    fn cut(&mut self) {}
}

/// A guarded connection.
#[derive(Debug)]
pub(crate) struct Socket<S: Cut> {
    stream: S,
    write_timeout: Duration,
    /// Runs while the reader takes nothing; made when that first happens.
    stalled: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
    broken: Broken,
}

impl<S: Cut> Socket<S> {
    pub(super) fn new(stream: S, write_timeout: Duration, broken: Broken) -> Self {
        Self {
            stream,
            write_timeout,
            stalled: None,
            is_stalled: false,
            broken,
        }
    }

    /// Lets a write wait, but not for longer than its limit.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.is_stalled = false;
            return wrote;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
        if !self.is_stalled {
            self.is_stalled = true;
            stalled.as_mut().reset(Instant::now() + self.write_timeout);
        }
        ready!(stalled.as_mut().poll(context));
        self.broken.set();
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of the answer",
        )))
    }
}

impl<S: Cut> Drop for Socket<S> {
    fn drop(&mut self) {
        if self.broken.is_set() {
            self.stream.cut();
        }
    }
}

impl<S: AsyncRead + Cut + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Cut + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.is_set() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
