//! TCP dials that leave from the port that we listen at, and from another one where that cannot be.
//!
//! From our own port, peers see where we can be called. But the system refuses it while somebody else has that port
//! at another address of this machine, or while the same two ports are connected already. That is no reason not to
//! reach a peer.

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::core::Multiaddr;
use libp2p::core::transport::{
    DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// `inner`, and what dials in its place where its port is taken.
#[derive(Debug)]
pub(super) struct AnyPort<T> {
    inner: T,
    /// Makes one that listens nowhere, where it is needed.
    other: fn() -> T,
}

impl<T> AnyPort<T> {
    pub(super) fn new(other: fn() -> T) -> Self {
        Self {
            inner: other(),
            other,
        }
    }
}

impl<T> Transport for AnyPort<T>
where
    T: Transport<Error = io::Error> + Unpin + 'static,
    T::Output: 'static,
    T::Dial: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<T::Output>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.inner.dial(address.clone(), options)?;
        let other = self.other;
        Ok(async move {
            let refused = match dial.await {
                Err(error) if options.port_use == PortUse::Reuse && is_taken(&error) => error,
                ended => return ended,
            };
            tracing::debug!(%address, error = %refused, "our port is taken there, dialled from another");
            let options = DialOpts {
                port_use: PortUse::New,
                ..options
            };
            let dial = other().dial(address, options).map_err(|_| refused)?;
            dial.await
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<T::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// Whether it is the port that was refused.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}
