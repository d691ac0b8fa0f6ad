//! From a socket to streams: agree on a security protocol, prove who we are, agree on Yamux.
//!
//! TLS is offered first: it may use AES, where Noise is bound to ChaCha20 (`tls.rs`). The records
//! of either are handed to the multiplexer, which is why the last step is done by hand here: who
//! dialled says what it will speak together with its first frames, instead of waiting for an answer to
//! which there is no other.

use super::meter::Meter;
use super::mux::{self, Muxer, Parts, Settings, Side};
use super::noise::{Noise, NoiseError, NoiseKeyError};
use super::records::{Incoming, Outgoing, Secured, Step};
use super::tls::{Tls, TlsError, TlsKeyError};
use crate::config::{Config, Security};
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::ConnectedPoint;
use libp2p::core::Endpoint;
use libp2p::identity::{Keypair, PeerId};
use multistream_select::{
    Negotiated, NegotiationError, ProtocolError, Version, dialer_select_proto,
    listener_select_proto,
};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// All that it takes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Upgrade {
    tls: Tls,
    noise: Noise,
    offers: Arc<[Security]>,
    /// Whether it is within a private network.
    is_private: bool,
    read_bytes: usize,
    settings: Settings,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("no security protocol that both sides speak: {0}")]
    Security(NegotiationError),
    #[error("no multiplexer that both sides speak: {0}")]
    Muxer(NegotiationError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Noise(#[from] NoiseError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(
        "the other end closed the connection before it was up: it may take no new ones for now (it has as \
         many, or as much memory, as it may), refuse this node, be in a private network (it has a swarm.key and this \
         node has none), or be no libp2p node"
    )]
    Closed,
    #[error(
        "the other end does not speak this private network's protocol: it may have another swarm.key or none, or \
         take no new connections for now; `cairn daemon` prints the fingerprint of a node's key as it starts"
    )]
    OtherKey,
    #[error(
        "the other end does not speak libp2p: it may be in a private network (it has a swarm.key and this node has \
         none), or be something else"
    )]
    Garbled,
}

impl UpgradeError {
    /// The same, as it looks to who dialled: a node that has no room closes without a word, and one with another
    /// key sends noise, which would read like a fault of the protocol.
    fn of_dialer(self, is_private: bool) -> Self {
        let seen = match &self {
            // The last protocol that is offered is taken for agreed, so nothing but an end fails here.
            Self::Security(NegotiationError::Failed) => Some(Self::Closed),
            Self::Security(NegotiationError::ProtocolError(ProtocolError::IoError(error)))
            | Self::Tls(TlsError::Handshake(error))
            | Self::Noise(NoiseError::Io(error))
            | Self::Io(error) => match error.kind() {
                kind if ENDS.contains(&kind) => Some(Self::Closed),
                io::ErrorKind::InvalidData if is_of_negotiation(error) => Some(Self::Garbled),
                _ => None,
            },
            Self::Security(NegotiationError::ProtocolError(_)) => Some(Self::Garbled),
            _ => None,
        };
        match seen {
            Some(_) if is_private => Self::OtherKey,
            Some(seen) => seen,
            None => self,
        }
    }
}

/// Whether what came is nothing of how protocols are agreed upon. That is told without a word, or by one of two texts.
fn is_of_negotiation(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_none_or(|inner| NO_LENGTH.contains(&inner.to_string().as_str()))
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("no TLS for this key: {0}")]
    Tls(#[from] TlsKeyError),
    #[error("no Noise for this key: {0}")]
    Noise(#[from] NoiseKeyError),
}

impl AsRef<str> for Security {
    fn as_ref(&self) -> &str {
        match self {
            Self::Tls => "/tls/1.0.0",
            Self::Noise => "/noise",
        }
    }
}

impl Upgrade {
    pub(super) fn new(
        keys: &Keypair,
        config: &Config,
        meter: &Arc<Meter>,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            tls: Tls::new(keys)?,
            noise: Noise::new(keys)?,
            offers: config.security.clone().into(),
            is_private: config.private.is_some(),
            read_bytes: config.read_buffer_bytes,
            settings: Settings::new(config, meter),
        })
    }

    /// Secures and multiplexes a fresh connection.
    pub(super) async fn run<S>(
        self,
        socket: S,
        point: ConnectedPoint,
    ) -> Result<(PeerId, Muxer<Negotiated<S>>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (dialled, is_private) = (point.is_dialer(), self.is_private);
        let up = self.bring_up(socket, point).await;
        up.map_err(|error| match dialled {
            true => error.of_dialer(is_private),
            false => error,
        })
    }

    async fn bring_up<S>(
        self,
        socket: S,
        point: ConnectedPoint,
    ) -> Result<(PeerId, Muxer<Negotiated<S>>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        // Where both dial at once, one of them takes the listener's part.
        let side = match point {
            ConnectedPoint::Dialer {
                role_override: Endpoint::Dialer,
                ..
            } => Side::Dialer,
            _ => Side::Listener,
        };
        let offers = self.offers.iter().copied();
        let agreed = match side {
            Side::Dialer => dialer_select_proto(socket, offers, Version::V1Lazy).await,
            Side::Listener => listener_select_proto(socket, offers).await,
        };
        let (security, mut socket) = agreed.map_err(UpgradeError::Security)?;
        let incoming = Incoming::new(self.read_bytes);
        let mut secured = match (security, side) {
            (Security::Tls, Side::Dialer) => self.tls.connect(&mut socket, incoming).await?,
            (Security::Tls, Side::Listener) => self.tls.accept(&mut socket, incoming).await?,
            (Security::Noise, Side::Dialer) => self.noise.connect(&mut socket, incoming).await?,
            (Security::Noise, Side::Listener) => self.noise.accept(&mut socket, incoming).await?,
        };
        let mut greeting = Vec::new();
        match side {
            Side::Dialer => {
                for line in [MULTISTREAM, mux::PROTOCOL] {
                    greeting.extend(u8::try_from(line.len() + 1));
                    greeting.extend_from_slice(line.as_bytes());
                    greeting.push(b'\n');
                }
            }
            Side::Listener => {
                let channel = Channel {
                    socket: &mut socket,
                    secured: &mut secured,
                    read: 0,
                    out: Outgoing::default(),
                };
                let (_, mut agreed) = listener_select_proto(channel, [mux::PROTOCOL])
                    .await
                    .map_err(UpgradeError::Muxer)?;
                futures::AsyncWriteExt::flush(&mut agreed).await?;
            }
        }
        let peer = secured.peer;
        let parts = Parts {
            socket,
            side,
            sealer: secured.sealer,
            opener: secured.opener,
            incoming: secured.incoming,
            plain: secured.plain,
            greeting,
        };
        Ok((peer, Muxer::start(parts, &self.settings)?))
    }
}

/// A secured connection as a plain one, for as long as the multiplexer is being agreed upon. What
/// is not read through it stays in `secured`.
struct Channel<'a, S> {
    socket: &'a mut S,
    secured: &'a mut Secured,
    /// How much of `secured.plain` has been read.
    read: usize,
    out: Outgoing,
}

impl<S: AsyncRead + Unpin> AsyncRead for Channel<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let ready = this.secured.plain.get(this.read..).unwrap_or_default();
            if !ready.is_empty() {
                let count = ready.len().min(out.len());
                if let (Some(to), Some(from)) = (out.get_mut(..count), ready.get(..count)) {
                    to.copy_from_slice(from);
                }
                this.read += count;
                return Poll::Ready(Ok(count));
            }
            match this.secured.opener.open(this.secured.incoming.bytes())? {
                Step::Record { taken, plain } => {
                    let bytes = this.secured.incoming.bytes().get(plain);
                    this.secured.plain.clear();
                    this.read = 0;
                    this.secured
                        .plain
                        .extend_from_slice(bytes.unwrap_or_default());
                    this.secured.incoming.done(taken);
                }
                Step::End => return Poll::Ready(Ok(0)),
                Step::Incomplete => {
                    let room = this.secured.incoming.room();
                    let count = ready!(Pin::new(&mut *this.socket).poll_read(cx, room))?;
                    if count == 0 {
                        return Poll::Ready(Ok(0));
                    }
                    this.secured.incoming.took(count);
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Channel<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_out(cx))?;
        let count = bytes.len().min(NEGOTIATION_BYTES_AT_ONCE);
        let bytes = bytes.get(..count).unwrap_or_default();
        this.secured.sealer.seal(bytes, &[], &mut this.out)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut *self.socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> Channel<'_, S> {
    /// Writes what is sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let count = ready!(Pin::new(&mut *self.socket).poll_write(cx, self.out.bytes()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.wrote(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Channel<'_, S> {
    fn drop(&mut self) {
        self.secured
            .plain
            .drain(..self.read.min(self.secured.plain.len()));
    }
}

/// What is said of a length that no line of a negotiation has, or that is none.
const NO_LENGTH: [&str; 2] = ["Maximum frame length exceeded", "invalid length prefix"];
/// How a connection looks that the other end has closed.
const ENDS: [io::ErrorKind; 4] = [
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::ConnectionAborted,
    io::ErrorKind::BrokenPipe,
];
/// The version of the protocol by which protocols are agreed upon.
const MULTISTREAM: &str = "/multistream/1.0.0";
/// More than any line of a negotiation.
const NEGOTIATION_BYTES_AT_ONCE: usize = 1024;
