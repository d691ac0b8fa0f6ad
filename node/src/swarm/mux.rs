//! Yamux over sealed records: many streams over one connection, with every window bounded.
//!
//! ```text
//!  stream tasks ── seal a frame ──► state.out ──┐
//!       ▲                                       ├─ driver ──► socket
//!       └── state: bytes by stream ◄─ open ─────┘
//! ```
//!
//! The multiplexer and the records below it are one piece, because the way between them is where
//! the time goes: a frame is sealed by whoever writes it, from the bytes it was given to the buffer that the
//! socket takes; what is received is opened in place, and only then copied, to the stream it
//! belongs to. Frames are as large as their records; those of others may have any length that
//! their stream's window allows, since nothing here waits for a whole one.
//!
//! [`Muxer`] is the driver, `state.rs` what it shares with its streams, `window.rs` how much may
//! come and who pays for it, `stream.rs` what protocols hold.

mod chunks;
mod frame;
mod state;
mod stream;
mod window;

#[cfg(test)]
mod tests;

pub(super) use state::Side;
pub(super) use stream::Stream;
pub use window::WINDOW_BYTES_MAX;

use super::meter::Meter;
use super::records::{Incoming, Opener, Outgoing, Sealer, Step, invalid};
use crate::config::Config;
use frame::{FIN, HEAD_BYTES, Head, Kind};
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use state::{State, Target};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use window::{Budget, Shares};

/// What every connection is made with. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    streams_max: usize,
    growth_bytes: usize,
    shares: Arc<Shares>,
    meter: Arc<Meter>,
}

impl Settings {
    pub(super) fn new(config: &Config, meter: &Arc<Meter>) -> Self {
        Self {
            meter: Arc::clone(meter),
            streams_max: config.streams_per_connection_max.max(1),
            growth_bytes: config.window_growth_bytes,
            shares: Shares::new(
                config.window_growth_total_bytes,
                config.unread_total_bytes_max,
                config.streams_total_max,
            ),
        }
    }
}

/// What the driver and the streams of one connection share.
pub(super) struct Shared {
    state: Mutex<State>,
    start: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the connection began.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The records of a connection, and what has come of it already.
pub(super) struct Parts<S> {
    pub(super) socket: S,
    pub(super) side: Side,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) incoming: Incoming,
    /// Opened already; comes before the rest.
    pub(super) plain: Vec<u8>,
    /// What the dialler says first, and what must be said back before any frame.
    pub(super) greeting: Vec<u8>,
}

/// One connection that carries many streams: moves bytes between its socket and its streams while
/// it is polled.
pub(super) struct Muxer<S> {
    socket: S,
    opener: Opener,
    incoming: Incoming,
    parser: Parser,
    /// Being written.
    sending: Outgoing,
    is_flushed: bool,
    /// How long the peer is waited for at the end.
    closing: Option<Pin<Box<Sleep>>>,
    shared: Arc<Shared>,
    /// Whom to wake once nothing is locked any more.
    wakes: Vec<Waker>,
}

/// Where in the flow of frames we are.
struct Parser {
    /// What the peer must still say before its first frame.
    greeting: Vec<u8>,
    greeted: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
    body: Option<Body>,
}

/// A frame's body that is on its way.
#[derive(Debug, Clone, Copy)]
struct Body {
    target: Target,
    left: usize,
    /// The stream ends with it.
    ends: bool,
}

impl<S> Muxer<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn start(parts: Parts<S>, settings: &Settings) -> io::Result<Self> {
        let budget = Budget::new(Arc::clone(&settings.shares), settings.growth_bytes);
        let meter = Arc::clone(&settings.meter);
        let mut state = State::new(
            parts.side,
            parts.sealer,
            settings.streams_max,
            (budget, meter),
        );
        if !parts.greeting.is_empty() {
            state.greet(&parts.greeting)?;
        }
        let mut muxer = Self {
            socket: parts.socket,
            opener: parts.opener,
            incoming: parts.incoming,
            parser: Parser {
                greeting: parts.greeting,
                greeted: 0,
                head: [0; HEAD_BYTES],
                filled: 0,
                body: None,
            },
            sending: Outgoing::default(),
            is_flushed: true,
            closing: None,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                start: Instant::now(),
            }),
            wakes: Vec::new(),
        };
        let now = muxer.shared.now();
        let mut state = muxer.shared.lock();
        muxer
            .parser
            .take(&parts.plain, &mut state, now, &mut muxer.wakes)?;
        drop(state);
        Ok(muxer)
    }

    fn stream(&self, id: u32) -> Stream {
        Stream::new(Arc::clone(&self.shared), id)
    }

    /// Moves what can be moved. Ends only with the connection.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        for _ in 0..TURNS_MAX {
            let moved = self.send(cx).and_then(|sent| Ok(self.receive(cx)? | sent));
            match moved {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(self.end(error, cx)),
            }
        }
        // There is more to do, but others have their turn in between.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The connection is over; the peer is told why if the socket takes it at once.
    fn end(&mut self, error: io::Error, cx: &mut Context<'_>) -> io::Error {
        self.shared.lock().fail(&error);
        drop(self.send(cx));
        error
    }

    /// Writes what is sealed; answers whether there was anything to be moved.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            if self.sending.is_empty() {
                let mut state = self.shared.lock();
                state.drives(cx);
                if state.out.is_empty() {
                    drop(state);
                    return self.flush(cx).map(|()| moved);
                }
                std::mem::swap(&mut state.out, &mut self.sending);
                state.made_room();
            }
            match Pin::new(&mut self.socket).poll_write(cx, self.sending.bytes()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.sending.wrote(count);
                    self.is_flushed = false;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(moved),
            }
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.is_flushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(()),
            }
            self.is_flushed = true;
        }
        Ok(())
    }

    /// Reads once and hands on what came; answers whether anything did.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut state = self.shared.lock();
        if !state.may_receive() {
            // Whoever reads makes room, also while the socket takes nothing of ours.
            state.drives(cx);
            return Ok(false);
        }
        drop(state);
        let count = match Pin::new(&mut self.socket).poll_read(cx, self.incoming.room()) {
            Poll::Ready(count) => count?,
            Poll::Pending => return Ok(false),
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.incoming.took(count);
        let opened = self.open_all();
        for waker in self.wakes.drain(..) {
            waker.wake();
        }
        opened.map(|()| true)
    }

    /// Opens every whole record that is there.
    fn open_all(&mut self) -> io::Result<()> {
        let now = self.shared.now();
        self.shared.lock().measure(now)?;
        loop {
            match self.opener.open(self.incoming.bytes())? {
                Step::Incomplete => return Ok(()),
                Step::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Step::Record { taken, plain } => {
                    let bytes = self.incoming.bytes().get(plain).unwrap_or_default();
                    let mut state = self.shared.lock();
                    self.parser.take(bytes, &mut state, now, &mut self.wakes)?;
                    drop(state);
                    self.incoming.done(taken);
                }
            }
        }
    }
}

impl Parser {
    /// Plain bytes, in order.
    fn take(
        &mut self,
        mut bytes: &[u8],
        state: &mut State,
        now: Duration,
        wakes: &mut Vec<Waker>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let expected = self.greeting.get(self.greeted..).unwrap_or_default();
            if !expected.is_empty() {
                let count = bytes.len().min(expected.len());
                let (said, rest) = bytes.split_at(count);
                if !expected.starts_with(said) {
                    return Err(invalid("the peer does not speak Yamux"));
                }
                self.greeted += count;
                bytes = rest;
                continue;
            }
            if let Some(body) = &mut self.body {
                let count = bytes.len().min(body.left);
                let (now, rest) = bytes.split_at(count);
                body.left -= count;
                if let Target::Stream(id) = body.target {
                    state.on_body(id, now, wakes);
                    if body.left == 0 && body.ends {
                        state.on_end(id, wakes);
                    }
                }
                if body.left == 0 {
                    self.body = None;
                }
                bytes = rest;
                continue;
            }
            let missing = self.head.get_mut(self.filled..).unwrap_or_default();
            let count = bytes.len().min(missing.len());
            let (part, rest) = bytes.split_at(count);
            if let Some(to) = missing.get_mut(..count) {
                to.copy_from_slice(part);
            }
            self.filled += count;
            bytes = rest;
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                let head = Head::decode(self.head)?;
                let target = state.on_head(head, now, wakes)?;
                if head.kind == Kind::Data && head.length > 0 {
                    self.body = Some(Body {
                        target,
                        left: usize::try_from(head.length).map_err(invalid)?,
                        ends: head.has(FIN),
                    });
                }
            }
        }
        Ok(())
    }
}

impl<S> StreamMuxer for Muxer<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let id = ready!(self.shared.lock().poll_accept(cx))?;
        Poll::Ready(Ok(self.stream(id)))
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let id = ready!(self.shared.lock().poll_open(cx))?;
        Poll::Ready(Ok(self.stream(id)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().close()?;
        self.send(cx)?;
        if self.sending.is_empty()
            && self.is_flushed
            && let Poll::Ready(closed) = Pin::new(&mut self.socket).poll_close(cx)
        {
            return Poll::Ready(closed);
        }
        // Whoever reads nothing is not kept for it.
        let wait = || Box::pin(tokio::time::sleep(CLOSE_MAX));
        let closing = self.closing.get_or_insert_with(wait);
        closing.as_mut().poll(cx).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.drive(cx).map(Err)
    }
}

impl<S> Drop for Muxer<S> {
    fn drop(&mut self) {
        let gone = io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is closed");
        self.shared.lock().fail(&gone);
    }
}

impl<S> fmt::Debug for Muxer<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Muxer").finish_non_exhaustive()
    }
}

/// What peers call this protocol.
pub(super) const PROTOCOL: &str = "/yamux/1.0.0";
/// The longest that a peer may take to hear the end of a connection.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Reads and writes of one connection before others have their turn.
const TURNS_MAX: usize = 16;
