//! The same handshake with the records of rustls: what our own records are measured beside.

use super::{Tls, TlsError, peer_of};
use futures::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use std::sync::Arc;

impl Tls {
    /// Lets a peer that dialled us prove who it is.
    pub(in crate::swarm) async fn accept_stream<S>(
        &self,
        socket: S,
    ) -> Result<(PeerId, TlsStream<S>), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let stream = acceptor.accept(socket).await?;
        Ok((peer_of(stream.get_ref().1)?, stream.into()))
    }

    /// Lets a peer that we dialled prove who it is.
    pub(in crate::swarm) async fn connect_stream<S>(
        &self,
        socket: S,
    ) -> Result<(PeerId, TlsStream<S>), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Never sent: an address is no server name.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let stream = connector.connect(nobody, socket).await?;
        Ok((peer_of(stream.get_ref().1)?, stream.into()))
    }
}
