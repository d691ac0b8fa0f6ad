//! How fast a peer may open streams: beyond that they wait.
//!
//! A stream that is opened and reset at once costs its sender a few bytes, and us a negotiation,
//! whatever the number of those that are open at the same time. Streams that wait are bounded by the
//! multiplexer: it refuses more, and ends a connection whose peer goes on all the same. The fastest
//! honest peers open one for every message.

use super::meter::Meter;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// A muxer whose other end opens streams no faster than [`STREAMS_A_SECOND`] in the long run.
#[derive(Debug)]
pub(super) struct Paced<M> {
    inner: M,
    bucket: Bucket,
    /// Until the next may be opened.
    pause: Option<Pin<Box<Sleep>>>,
    meter: Arc<Meter>,
}

impl<M> Paced<M> {
    pub(super) fn new(inner: M, meter: Arc<Meter>) -> Self {
        Self {
            inner,
            bucket: Bucket::new(Instant::now()),
            pause: None,
            meter,
        }
    }

    /// Waits until the peer may open one more stream.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let Some(until) = self.bucket.empty_until(Instant::now()) else {
                return Poll::Ready(());
            };
            self.meter.held_streams();
            self.pause = Some(Box::pin(sleep_until(until)));
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
        ready!(self.poll_pause(cx));
        let stream =
            ready!(Pin::new(&mut self.inner).poll_inbound(cx)).map_err(io::Error::other)?;
        self.bucket.take();
        Poll::Ready(Ok(stream))
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

/// Streams that may be opened now, and since when more come.
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

    /// Until when no stream may be opened, if it is so. Then a few may at once, so that nobody is
    /// woken for each.
    fn empty_until(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.filled_at).as_micros();
        let more = u32::try_from(passed / EVERY.as_micros()).unwrap_or(u32::MAX);
        let room = STREAMS_AT_ONCE - self.left;
        if more >= room {
            (self.left, self.filled_at) = (STREAMS_AT_ONCE, now);
        } else {
            self.left += more;
            self.filled_at += EVERY * more;
        }
        (self.left == 0).then(|| now + EVERY * STREAMS_TOGETHER)
    }

    fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// Streams that one connection may open in the long run. js-libp2p, which opens one for every message,
/// fills 40 MB/s with 160 of them.
const STREAMS_A_SECOND: u32 = 1000;
const EVERY: Duration = Duration::from_micros(1_000_000 / STREAMS_A_SECOND as u64);
/// How many of them at once.
const STREAMS_AT_ONCE: u32 = 2 * STREAMS_A_SECOND;
/// How many come at a time to whoever waits: far fewer than may wait.
const STREAMS_TOGETHER: u32 = 16;

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

    fn taken(paced: &mut Paced<Storm>) -> u32 {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut taken = 0;
        while let Poll::Ready(Ok(_)) = Pin::new(&mut *paced).poll_inbound(&mut context) {
            taken += 1;
            assert!(taken < 100 * STREAMS_AT_ONCE, "no end of streams");
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_then_the_rest_waits_and_that_is_counted() {
        let meter = Meter::new(std::time::Instant::now());
        let mut paced = Paced::new(Storm, Arc::clone(&meter));
        assert_eq!(taken(&mut paced), STREAMS_AT_ONCE);
        assert_eq!((taken(&mut paced), meter.holds()), (0, 1));
        let mut later = 0;
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(10)).await;
            later += taken(&mut paced);
        }
        let expected = STREAMS_A_SECOND - STREAMS_TOGETHER..=STREAMS_A_SECOND;
        assert!(expected.contains(&later), "{later}");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&mut paced), STREAMS_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_it_may_go_on() {
        let mut paced = Paced::new(Storm, Meter::new(std::time::Instant::now()));
        let start = Instant::now();
        for _ in 0..STREAMS_AT_ONCE + STREAMS_A_SECOND {
            let next = std::future::poll_fn(|cx| Pin::new(&mut paced).poll_inbound(cx));
            next.await.unwrap();
        }
        let took = start.elapsed();
        let second = Duration::from_secs(1);
        assert!(
            took > second * 9 / 10 && took < second * 12 / 10,
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_at_the_rate_that_is_allowed_never_waits() {
        let meter = Meter::new(std::time::Instant::now());
        let mut paced = Paced::new(Storm, Arc::clone(&meter));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..10 * STREAMS_A_SECOND {
            let next = Pin::new(&mut paced).poll_inbound(&mut context);
            assert!(next.is_ready());
            tokio::time::advance(EVERY).await;
        }
        assert_eq!(meter.holds(), 0);
    }
}
