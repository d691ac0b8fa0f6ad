//! The handshake: rustls says what to send and takes what came, we move the bytes.
//!
//! rustls keeps no buffer here, so whatever the peer sent right behind its last handshake message
//! is still ours when the handshake is over: sealed in the buffer, or, where rustls has opened it
//! already, as plain bytes.

use super::record::{self, Keys};
use super::{Tls, TlsError, peer_of};
use crate::swarm::records::{Incoming, Opener, Outgoing, Sealer, Secured};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rustls::Error;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use std::io;
use std::ops::Deref;
use std::sync::Arc;

impl Tls {
    /// Lets a peer that dialled us prove who it is.
    pub(in crate::swarm) async fn accept<S>(
        &self,
        socket: &mut S,
        incoming: Incoming,
    ) -> Result<Secured, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.server));
        let connection = connection.map_err(TlsError::Settings)?;
        shake(connection, socket, incoming).await
    }

    /// Lets a peer that we dialled prove who it is.
    pub(in crate::swarm) async fn connect<S>(
        &self,
        socket: &mut S,
        incoming: Incoming,
    ) -> Result<Secured, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Never sent: an address is no server name.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.client), nobody);
        let connection = connection.map_err(TlsError::Settings)?;
        shake(connection, socket, incoming).await
    }
}

/// Either side of a handshake.
trait Side: Deref<Target = UnbufferedConnectionCommon<<Self as Side>::Data>> {
    type Data;
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn finish(self) -> Result<(rustls::ExtractedSecrets, Keys), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn finish(self) -> Result<(rustls::ExtractedSecrets, Keys), Error> {
        let (secrets, keys) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keys::Client(keys)))
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn finish(self) -> Result<(rustls::ExtractedSecrets, Keys), Error> {
        let (secrets, keys) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keys::Server(keys)))
    }
}

/// What is to be done next.
enum Next {
    Again,
    Send,
    Receive,
    Done,
    Failed(Error),
}

async fn shake<C, S>(
    mut connection: C,
    socket: &mut S,
    mut incoming: Incoming,
) -> Result<Secured, TlsError>
where
    C: Side,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut out, mut plain) = (Outgoing::default(), Vec::new());
    loop {
        let (next, taken) = step(&mut connection, &mut incoming, &mut out, &mut plain);
        incoming.done(taken);
        match next {
            Next::Again => {}
            Next::Send => send(socket, &mut out).await?,
            Next::Done if !connection.is_handshaking() => break,
            // A server may send before it knows whom to; we do not.
            Next::Done | Next::Receive => {
                let count = socket.read(incoming.room()).await?;
                if count == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                incoming.took(count);
            }
            Next::Failed(error) => {
                // So that the peer learns why, if it listens.
                step(&mut connection, &mut incoming, &mut out, &mut plain);
                drop(send(socket, &mut out).await);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
            }
        }
    }
    send(socket, &mut out).await?;
    let peer = peer_of(&connection)?;
    let (secrets, keys) = connection.finish().map_err(TlsError::Settings)?;
    let (sealer, opener) = record::start(secrets, keys)?;
    Ok(Secured {
        peer,
        sealer: Sealer::Tls(sealer),
        opener: Opener::Tls(opener),
        incoming,
        plain,
    })
}

/// One step, and how many of the received bytes it has taken.
fn step<C: Side>(
    connection: &mut C,
    incoming: &mut Incoming,
    out: &mut Outgoing,
    plain: &mut Vec<u8>,
) -> (Next, usize) {
    let UnbufferedStatus { mut discard, state } = connection.process(incoming.bytes());
    let next = match state {
        Err(error) => Next::Failed(error),
        Ok(ConnectionState::EncodeTlsData(mut message)) => encode(&mut message, out),
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            sent.done();
            Next::Send
        }
        Ok(ConnectionState::BlockedHandshake) => Next::Receive,
        Ok(ConnectionState::ReadTraffic(mut data)) => {
            let mut next = Next::Again;
            while let Some(record) = data.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    Err(error) => next = Next::Failed(error),
                }
            }
            next
        }
        Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
        Ok(_) => Next::Failed(Error::HandshakeNotComplete),
    };
    (next, discard)
}

fn encode<D>(message: &mut rustls::unbuffered::EncodeTlsData<'_, D>, out: &mut Outgoing) -> Next {
    let needed = match message.encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Next::Again,
    };
    match message.encode(out.room(needed)) {
        Ok(count) => {
            out.took(count);
            Next::Again
        }
        Err(error) => Next::Failed(Error::General(error.to_string())),
    }
}

async fn send<S: AsyncWrite + Unpin>(socket: &mut S, out: &mut Outgoing) -> io::Result<()> {
    socket.write_all(out.bytes()).await?;
    out.wrote(out.len());
    socket.flush().await
}
