//! The layers of a connection one at a time, for the bench that asks what each of them gives.
//!
//! In the node the multiplexer works on the records themselves. Here a stock multiplexer can be put on
//! our records, as a stream of bytes, and ours on any stream of bytes. Each stands where
//! libp2p's own upgrade would.

use super::connect::{KeyError, Upgrade};
use super::meter::Meter;
use super::mux::{self, Muxer, Parts, Settings, Side};
use super::noise::Noise;
use super::records::{Incoming, Opener, Outgoing, Sealer, Secured, Step};
use super::tls::Tls;
use crate::config::{Config, Security};
use futures::{AsyncRead, AsyncWrite, FutureExt, ready};
use futures_rustls::TlsStream;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::{Keypair, PeerId};
use libp2p::tcp;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::io;
use std::iter;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// All of them over TCP, as the node has them, but without its counters, rates and fences.
///
/// # Errors
///
/// The key can be used by neither security protocol.
pub fn all(
    keys: &Keypair,
    config: &Config,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Box<dyn std::error::Error + Send + Sync>> {
    let upgrade = Upgrade::new(keys, config, &Meter::new(Instant::now()))?;
    let sockets = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    Ok(sockets
        .and_then(move |socket, point| upgrade.run(socket, point))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

/// Security alone: a handshake and the records behind it.
#[derive(Clone)]
pub struct Secure {
    tls: Tls,
    noise: Noise,
    security: Security,
    read_bytes: usize,
}

impl Secure {
    /// With our records, read as the configuration says.
    ///
    /// # Errors
    ///
    /// The key cannot be used.
    pub fn new(
        keys: &Keypair,
        security: Security,
        config: &Config,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            tls: Tls::new(keys).map_err(KeyError::from)?,
            noise: Noise::new(keys).map_err(KeyError::from)?,
            security,
            read_bytes: config.read_buffer_bytes,
        })
    }

    async fn run<S>(self, mut socket: S, side: Side) -> io::Result<(PeerId, Records<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let incoming = Incoming::new(self.read_bytes);
        let secured = match (self.security, side) {
            (Security::Tls, Side::Dialer) => other(self.tls.connect(&mut socket, incoming).await),
            (Security::Tls, Side::Listener) => other(self.tls.accept(&mut socket, incoming).await),
            (Security::Noise, Side::Dialer) => {
                other(self.noise.connect(&mut socket, incoming).await)
            }
            (Security::Noise, Side::Listener) => {
                other(self.noise.accept(&mut socket, incoming).await)
            }
        }?;
        Ok((secured.peer, Records::new(socket, secured)))
    }
}

fn other<T>(done: Result<T, impl std::error::Error + Send + Sync + 'static>) -> io::Result<T> {
    done.map_err(io::Error::other)
}

impl UpgradeInfo for Secure {
    type Info = Security;
    type InfoIter = iter::Once<Security>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(self.security)
    }
}

impl<S> InboundConnectionUpgrade<S> for Secure
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, Records<S>);
    type Error = io::Error;
    type Future = Doing<Self::Output, io::Error>;

    fn upgrade_inbound(self, socket: S, _: Security) -> Self::Future {
        self.run(socket, Side::Listener).boxed()
    }
}

impl<S> OutboundConnectionUpgrade<S> for Secure
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, Records<S>);
    type Error = io::Error;
    type Future = Doing<Self::Output, io::Error>;

    fn upgrade_outbound(self, socket: S, _: Security) -> Self::Future {
        self.run(socket, Side::Dialer).boxed()
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Secure").finish_non_exhaustive()
    }
}

/// TLS with our ciphers, the fastest first, and the records of rustls.
#[derive(Clone)]
pub struct Preferring(Tls);

impl Preferring {
    /// For a key.
    ///
    /// # Errors
    ///
    /// The key cannot be used.
    pub fn new(keys: &Keypair) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(Tls::new(keys)?))
    }

    async fn run<S>(self, socket: S, side: Side) -> io::Result<(PeerId, TlsStream<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        other(match side {
            Side::Dialer => self.0.connect_stream(socket).await,
            Side::Listener => self.0.accept_stream(socket).await,
        })
    }
}

impl UpgradeInfo for Preferring {
    type Info = Security;
    type InfoIter = iter::Once<Security>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(Security::Tls)
    }
}

impl<S> InboundConnectionUpgrade<S> for Preferring
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, TlsStream<S>);
    type Error = io::Error;
    type Future = Doing<Self::Output, io::Error>;

    fn upgrade_inbound(self, socket: S, _: Security) -> Self::Future {
        self.run(socket, Side::Listener).boxed()
    }
}

impl<S> OutboundConnectionUpgrade<S> for Preferring
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, TlsStream<S>);
    type Error = io::Error;
    type Future = Doing<Self::Output, io::Error>;

    fn upgrade_outbound(self, socket: S, _: Security) -> Self::Future {
        self.run(socket, Side::Dialer).boxed()
    }
}

impl fmt::Debug for Preferring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Preferring").finish_non_exhaustive()
    }
}

/// Our multiplexer above any stream of bytes.
#[derive(Debug, Clone)]
pub struct Multiplex {
    settings: Settings,
    read_bytes: usize,
}

impl Multiplex {
    /// With the windows and the reads of the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            settings: Settings::new(config, &Meter::new(Instant::now())),
            read_bytes: config.read_buffer_bytes,
        }
    }

    fn start<S>(&self, socket: S, side: Side) -> io::Result<StreamMuxerBox>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let parts = Parts {
            socket,
            side,
            sealer: Sealer::Plain,
            opener: Opener::Plain,
            incoming: Incoming::new(self.read_bytes),
            plain: Vec::new(),
            greeting: Vec::new(),
        };
        Muxer::start(parts, &self.settings).map(StreamMuxerBox::new)
    }
}

impl UpgradeInfo for Multiplex {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(mux::PROTOCOL)
    }
}

impl<S> InboundConnectionUpgrade<S> for Multiplex
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = StreamMuxerBox;
    type Error = io::Error;
    type Future = Ready<io::Result<StreamMuxerBox>>;

    fn upgrade_inbound(self, socket: S, _: Self::Info) -> Self::Future {
        ready(self.start(socket, Side::Listener))
    }
}

impl<S> OutboundConnectionUpgrade<S> for Multiplex
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = StreamMuxerBox;
    type Error = io::Error;
    type Future = Ready<io::Result<StreamMuxerBox>>;

    fn upgrade_outbound(self, socket: S, _: Self::Info) -> Self::Future {
        ready(self.start(socket, Side::Dialer))
    }
}

/// Our records as a stream of bytes: opened where they lie and copied from there to whoever reads,
/// sealed from what is written to what the socket takes.
pub struct Records<S> {
    socket: S,
    sealer: Sealer,
    opener: Opener,
    incoming: Incoming,
    /// Opened already by the handshake.
    plain: Vec<u8>,
    /// The first record: what of it was not read, and how long it is in all.
    opened: Range<usize>,
    taken: usize,
    out: Outgoing,
}

impl<S> Records<S> {
    fn new(socket: S, secured: Secured) -> Self {
        Self {
            socket,
            sealer: secured.sealer,
            opener: secured.opener,
            incoming: secured.incoming,
            plain: secured.plain,
            opened: 0..0,
            taken: 0,
            out: Outgoing::default(),
        }
    }
}

impl<S: AsyncWrite + Unpin> Records<S> {
    /// Writes what is sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, self.out.bytes()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.wrote(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Records<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if !this.plain.is_empty() {
                let count = copy(&this.plain, out);
                this.plain.drain(..count);
                return Poll::Ready(Ok(count));
            }
            let rest = this.incoming.bytes().get(this.opened.clone());
            let rest = rest.unwrap_or_default();
            if !rest.is_empty() {
                let count = copy(rest, out);
                this.opened.start += count;
                return Poll::Ready(Ok(count));
            }
            this.incoming.done(std::mem::take(&mut this.taken));
            match this.opener.open(this.incoming.bytes())? {
                Step::Record { taken, plain } => (this.taken, this.opened) = (taken, plain),
                Step::End => return Poll::Ready(Ok(0)),
                Step::Incomplete => {
                    this.opened = 0..0;
                    let room = this.incoming.room();
                    let count = ready!(Pin::new(&mut this.socket).poll_read(cx, room))?;
                    if count == 0 {
                        return Poll::Ready(Ok(0));
                    }
                    this.incoming.took(count);
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.out.len() >= SEALED_BYTES_MAX {
            ready!(this.poll_out(cx))?;
        }
        let count = bytes.len().min(this.sealer.frame_body());
        let bytes = bytes.get(..count).unwrap_or_default();
        this.sealer.seal(&[], bytes, &mut this.out)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

impl<S> fmt::Debug for Records<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Records").finish_non_exhaustive()
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    if let (Some(to), Some(from)) = (to.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

/// What a handshake becomes.
pub type Doing<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
/// Sealed before the socket has to take it.
const SEALED_BYTES_MAX: usize = 256 << 10;
