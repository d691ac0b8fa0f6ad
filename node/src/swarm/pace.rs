//! How fast a peer may open streams: beyond that its connection ends.
//!
//! A stream that is opened and reset at once costs its sender a few bytes, and us a negotiation,
//! whatever the number of those that are open at the same time. The fastest honest peers open one
//! for every message.

use super::meter::Meter;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A muxer whose other end opens streams no faster than [`STREAMS_A_SECOND`] in the long run.
#[derive(Debug)]
pub(super) struct Paced<M> {
    inner: M,
    bucket: Bucket,
    meter: Arc<Meter>,
}

impl<M> Paced<M> {
    pub(super) fn new(inner: M, meter: Arc<Meter>) -> Self {
        Self {
            inner,
            bucket: Bucket::new(Instant::now()),
            meter,
        }
    }
}

impl<M> StreamMuxer for Paced<M>
where
    M: StreamMuxer + Unpin,
    M::Error: Error + Send + Sync + 'static,
{
    type Substream = M::Substream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<M::Substream>> {
        let stream =
            ready!(Pin::new(&mut self.inner).poll_inbound(cx)).map_err(io::Error::other)?;
        if self.bucket.takes(Instant::now()) {
            return Poll::Ready(Ok(stream));
        }
        self.meter.flooded();
        let why = format!("the peer opens more than {STREAMS_A_SECOND} streams a second");
        Poll::Ready(Err(io::Error::other(why)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<M::Substream>> {
        Pin::new(&mut self.inner)
            .poll_outbound(cx)
            .map_err(io::Error::other)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner)
            .poll_close(cx)
            .map_err(io::Error::other)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx).map_err(io::Error::other)
    }
}

/// Streams that may be opened now, and when that was.
#[derive(Debug)]
struct Bucket {
    left: u32,
    filled_at: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            left: STREAMS_AT_ONCE,
            filled_at: now,
        }
    }

    fn takes(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled_at);
        let more = passed.as_micros() * u128::from(STREAMS_A_SECOND) / SECOND.as_micros();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(STREAMS_AT_ONCE);
            self.filled_at = now;
        }
        let before = self.left;
        self.left = before.saturating_sub(1);
        before > 0
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Streams that one connection may open in the long run. A peer with one message a stream and 1 KiB
/// a message fills 10 MB/s with it.
const STREAMS_A_SECOND: u32 = 10_000;
/// How many of them at once.
const STREAMS_AT_ONCE: u32 = 2 * STREAMS_A_SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose other end opens streams as fast as they are taken.
    struct Storm;

    impl StreamMuxer for Storm {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Ready(Ok(futures::io::Cursor::new(Vec::new())))
        }
        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_storm_of_streams_ends_its_connection_and_is_counted() {
        let meter = Meter::new(Instant::now());
        let mut paced = Paced::new(Storm, Arc::clone(&meter));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut taken: u32 = 0;
        while let Poll::Ready(Ok(_)) = Pin::new(&mut paced).poll_inbound(&mut context) {
            taken += 1;
            assert!(taken < 100 * STREAMS_AT_ONCE, "no end of streams");
        }
        assert!(taken >= STREAMS_AT_ONCE);
        assert_eq!(meter.floods(), 1);
    }

    #[test]
    fn so_many_at_once_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let mut takes = |now| (0..100_000).take_while(|_| bucket.takes(now)).count();
        assert_eq!(takes(start), STREAMS_AT_ONCE as usize);
        assert_eq!(takes(start), 0);
        assert_eq!(takes(start + SECOND / 2), STREAMS_A_SECOND as usize / 2);
        assert_eq!(takes(start + SECOND * 60), STREAMS_AT_ONCE as usize);
    }

    #[test]
    fn a_peer_at_the_rate_that_is_allowed_is_never_refused() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        for at in 0..10 * STREAMS_A_SECOND {
            assert!(bucket.takes(start + SECOND / STREAMS_A_SECOND * at), "{at}");
        }
    }
}
