//! Who is at the other end: TLS where the peer has it, Noise where it does not.
//!
//! Both are offered, TLS first: it may use AES, which most processors do in hardware, where Noise
//! is bound to ChaCha20.

use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::{Keypair, PeerId};
use libp2p::{noise, tls};
use std::array;

/// The choice of security protocols.
#[derive(Clone)]
pub(super) struct Security {
    tls: tls::Config,
    noise: noise::Config,
}

/// A connection that is encrypted and whose other end is known.
pub(super) type Secured<C> = Either<tls::TlsStream<C>, noise::Output<C>>;

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecurityError {
    #[error(transparent)]
    Tls(#[from] tls::UpgradeError),
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("no certificate for this key: {0}")]
    Certificate(#[from] tls::certificate::GenError),
    #[error("no noise key for this key: {0}")]
    Noise(#[from] noise::Error),
}

/// One of the protocols offered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offer {
    Tls,
    Noise,
}

impl AsRef<str> for Offer {
    fn as_ref(&self) -> &str {
        offer_name(*self)
    }
}

impl Security {
    pub(super) fn new(keys: &Keypair) -> Result<Self, KeyError> {
        Ok(Self {
            tls: tls::Config::new(keys)?,
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
                .upgrade_inbound(socket, offer_name(offer))
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .err_into()
                .boxed(),
            Offer::Noise => self
                .noise
                .upgrade_inbound(socket, offer_name(offer))
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
                .upgrade_outbound(socket, offer_name(offer))
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .err_into()
                .boxed(),
            Offer::Noise => self
                .noise
                .upgrade_outbound(socket, offer_name(offer))
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .err_into()
                .boxed(),
        }
    }
}

/// What peers call it.
const fn offer_name(offer: Offer) -> &'static str {
    match offer {
        Offer::Tls => "/tls/1.0.0",
        Offer::Noise => "/noise",
    }
}
