//! How many bytes went over all connections, and how fast.
//!
//! Every muxer is wrapped in [`Counted`], which counts what its streams read and write into one
//! [`Meter`]. The rate is an average that forgets with time; it is worked out when somebody asks,
//! so that counting costs one addition.

use super::Bandwidth;
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Bytes in and out.
#[derive(Debug)]
pub(crate) struct Meter {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    floods: AtomicU64,
    refused: AtomicU64,
    held: AtomicU64,
    seen: Mutex<Seen>,
    /// Of each peer, while there are connections to it.
    pulses: Mutex<HashMap<PeerId, Weak<Pulse>>>,
}

/// Bytes that came from a peer, and that were handed over to go to it.
#[derive(Debug, Default)]
struct Pulse {
    came: AtomicU64,
    went: AtomicU64,
}

/// The same, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    came: u64,
    went: u64,
}

impl Heard {
    /// Whether the peer was there since: something came, or it took more than what lies in buffers on the way.
    pub(super) fn is_alive_since(self, before: Self) -> bool {
        self.came != before.came || self.went.saturating_sub(before.went) >= TAKEN_MIN
    }
}

/// What was known at the last look.
#[derive(Debug)]
struct Seen {
    at: Instant,
    bandwidth: Bandwidth,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            floods: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            held: AtomicU64::new(0),
            seen: Mutex::new(Seen {
                at: now,
                bandwidth: Bandwidth::default(),
            }),
            pulses: Mutex::default(),
        })
    }

    /// Bytes received and sent since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (
            self.bytes_in.load(Ordering::Relaxed),
            self.bytes_out.load(Ordering::Relaxed),
        )
    }

    /// Totals and rates at `now`.
    pub(crate) fn read(&self, now: Instant) -> Bandwidth {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(seen.at).as_secs_f64();
        let (total_in, total_out) = self.totals();
        let before = seen.bandwidth;
        if passed > 0.0 {
            // How much of the old average is still true after that time.
            let kept = (-passed / MEMORY.as_secs_f64()).exp();
            let rate = |old: f64, total: u64, total_before: u64| {
                let lately = to_f64(total.saturating_sub(total_before)) / passed;
                old * kept + lately * (1.0 - kept)
            };
            seen.bandwidth.rate_in = rate(before.rate_in, total_in, before.total_in);
            seen.bandwidth.rate_out = rate(before.rate_out, total_out, before.total_out);
            seen.bandwidth.total_in = total_in;
            seen.bandwidth.total_out = total_out;
            seen.at = now;
        }
        Bandwidth {
            total_in,
            total_out,
            ..seen.bandwidth
        }
    }

    /// A connection ended because its peer opened streams too fast.
    pub(super) fn flooded(&self) {
        self.floods.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did.
    pub(crate) fn floods(&self) -> u64 {
        self.floods.load(Ordering::Relaxed)
    }

    /// A stream that a peer opened was refused: too many are open, or wait to be taken.
    pub(super) fn refused_stream(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub(crate) fn refused_streams(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A connection has opened so many streams that more have to wait.
    pub(super) fn held_streams(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub(crate) fn holds(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How many bytes came from a peer and went to it over the connections that are up, and those they followed upon.
    pub(super) fn heard(&self, peer: &PeerId) -> Heard {
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let pulse = pulses.get(peer).and_then(Weak::upgrade);
        pulse.map_or_else(Heard::default, |pulse| Heard {
            came: pulse.came.load(Ordering::Relaxed),
            went: pulse.went.load(Ordering::Relaxed),
        })
    }

    /// Where the bytes from a peer are counted.
    fn pulse(&self, peer: PeerId) -> Arc<Pulse> {
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pulse) = pulses.get(&peer).and_then(Weak::upgrade) {
            return pulse;
        }
        if pulses.len() == pulses.capacity() {
            pulses.retain(|_, pulse| pulse.strong_count() > 0);
        }
        let pulse = Arc::new(Pulse::default());
        pulses.insert(peer, Arc::downgrade(&pulse));
        pulse
    }

    fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Exact up to 2^53 bytes, near enough above.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people; there is no lossless way from u64 to f64"
)]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// A muxer or stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted<T> {
    inner: T,
    meter: Arc<Meter>,
    /// The peer's.
    pulse: Arc<Pulse>,
}

impl<T> Counted<T> {
    pub(super) fn new(inner: T, peer: PeerId, meter: Arc<Meter>) -> Self {
        let pulse = meter.pulse(peer);
        Self {
            inner,
            meter,
            pulse,
        }
    }

    fn wrap<S>(&self, stream: S) -> Counted<S> {
        Counted {
            inner: stream,
            meter: Arc::clone(&self.meter),
            pulse: Arc::clone(&self.pulse),
        }
    }

    fn received(&self, bytes: usize) {
        self.meter.received(bytes);
        self.pulse.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.meter.sent(bytes);
        self.pulse.went.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<M> StreamMuxer for Counted<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = Counted<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.wrap(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.wrap(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, out))?;
        self.received(read);
        Poll::Ready(Ok(read))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read_vectored(cx, out))?;
        self.received(read);
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bytes))?;
        self.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Who takes so much between two pings is there: a request now and then lies in buffers for hours.
const TAKEN_MIN: u64 = 64 << 10;
/// After this time without traffic a rate has fallen to about a third.
const MEMORY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_read_as_its_rate_and_fades_when_it_ends() {
        let start = Instant::now();
        let meter = Meter::new(start);
        let mut now = start;
        for _ in 0..60 {
            meter.received(1000);
            meter.sent(10);
            now += Duration::from_secs(1);
            meter.read(now);
        }
        let steady = meter.read(now);
        assert_eq!((steady.total_in, steady.total_out), (60_000, 600));
        assert!((steady.rate_in - 1000.0).abs() < 1.0, "{steady:?}");
        assert!((steady.rate_out - 10.0).abs() < 0.01, "{steady:?}");
        let faded = meter.read(now + 10 * MEMORY);
        assert!(faded.rate_in < 0.1, "{faded:?}");
        assert_eq!(faded.total_in, 60_000);
    }

    #[test]
    fn what_a_peer_sends_is_counted_while_there_is_a_connection_to_it() {
        let meter = Meter::new(Instant::now());
        let [one, other] = [PeerId::random(), PeerId::random()];
        let counted = |peer| Counted::new((), peer, Arc::clone(&meter));
        let first = counted(one);
        let stream = first.wrap(());
        stream.received(7);
        counted(one).received(5);
        let last = counted(other);
        last.received(1);
        let came = |peer| meter.heard(peer).came;
        assert_eq!((came(&one), came(&other)), (12, 1));
        drop((first, stream));
        assert_eq!((came(&one), came(&other)), (0, 1));
        // The dead do not stay in memory.
        for _ in 0..1000 {
            drop(counted(PeerId::random()));
        }
        assert!(meter.pulses.lock().unwrap().len() < 100);
    }

    #[test]
    fn who_takes_much_or_says_anything_is_there() {
        let meter = Meter::new(Instant::now());
        let peer = PeerId::random();
        let connection = Counted::new((), peer, Arc::clone(&meter));
        let before = meter.heard(&peer);
        connection.sent(usize::try_from(TAKEN_MIN).unwrap() - 1);
        assert!(!meter.heard(&peer).is_alive_since(before));
        connection.sent(1);
        let taken = meter.heard(&peer);
        assert!(taken.is_alive_since(before) && !taken.is_alive_since(taken));
        connection.received(1);
        assert!(meter.heard(&peer).is_alive_since(taken));
    }

    #[test]
    fn looking_twice_at_once_changes_nothing() {
        let start = Instant::now();
        let meter = Meter::new(start);
        meter.received(500);
        let now = start + Duration::from_secs(1);
        assert_eq!(meter.read(now), meter.read(now));
        meter.received(1);
        assert_eq!(meter.read(now).total_in, 501, "totals are never behind");
    }
}
