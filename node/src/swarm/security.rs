//! Who is at the other end: TLS where the peer has it, Noise where it does not.
//!
//! Both are offered, TLS first: it may use AES, where Noise is bound to ChaCha20 (`tls.rs`).

use super::tls::{Tls, TlsError, TlsKeyError};
use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt};
use futures_rustls::TlsStream;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::{Keypair, PeerId};
use libp2p::noise;
use std::array;

/// The choice of security protocols.
#[derive(Clone)]
pub(super) struct Security {
    tls: Tls,
    noise: noise::Config,
}

/// A connection that is encrypted and whose other end is known.
pub(super) type Secured<C> = Either<TlsStream<C>, noise::Output<C>>;

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecurityError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("no TLS for this key: {0}")]
    Tls(#[from] TlsKeyError),
    #[error("no Noise for this key: {0}")]
    Noise(#[from] noise::Error),
}

/// One of the protocols offered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offer {
    Tls,
    Noise,
}

impl Offer {
    /// What peers call it.
    const fn name(self) -> &'static str {
        match self {
            Self::Tls => "/tls/1.0.0",
            Self::Noise => "/noise",
        }
    }
}

impl AsRef<str> for Offer {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

impl Security {
    pub(super) fn new(keys: &Keypair) -> Result<Self, KeyError> {
        Ok(Self {
            tls: Tls::new(keys)?,
            noise: noise::Config::new(keys)?,
        })
    }
}

impl UpgradeInfo for Security {
    type Info = Offer;
    type InfoIter = array::IntoIter<Offer, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        // In the order of preference.
        [Offer::Tls, Offer::Noise].into_iter()
    }
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = SecurityError;
    type Future = BoxFuture<'static, Result<Self::Output, SecurityError>>;

    fn upgrade_inbound(self, socket: C, offer: Offer) -> Self::Future {
        match offer {
            Offer::Tls => self
                .tls
                .accept(socket)
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .err_into()
                .boxed(),
            Offer::Noise => self
                .noise
                .upgrade_inbound(socket, offer.name())
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .err_into()
                .boxed(),
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = SecurityError;
    type Future = BoxFuture<'static, Result<Self::Output, SecurityError>>;

    fn upgrade_outbound(self, socket: C, offer: Offer) -> Self::Future {
        match offer {
            Offer::Tls => self
                .tls
                .connect(socket)
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .err_into()
                .boxed(),
            Offer::Noise => self
                .noise
                .upgrade_outbound(socket, offer.name())
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .err_into()
                .boxed(),
        }
    }
}
