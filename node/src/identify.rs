//! Who has more to say than libp2p's identify reads.
//!
//! That one reads a single message of up to 4 KiB, and fails at more. Well-connected peers have more to say: others
//! allow 8 KiB, and several messages that belong together. Whoever could not be identified is asked once more, by this: up to
//! [`MESSAGES_MAX`] messages of 8 KiB, of which lists are joined and the last of everything else counts. What is believed is
//! what its connection proves: a message with another key is none.

use crate::negotiation::{Connections, Negotiate};
use crate::protobuf::{FieldError, Fields, Value};
use crate::public_key::{self, KeyError};
use crate::reach::autonat::message::{self, MessageError};
use futures::future::BoxFuture;
use futures::{AsyncRead, FutureExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identify::{Info, PROTOCOL_NAME};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

static ASKED: [StreamProtocol; 1] = [PROTOCOL_NAME];

/// What a peer said of itself.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) info: Info,
}

/// Ask now.
#[derive(Debug)]
pub(crate) struct Ask;

/// The part of the swarm that asks once more.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    connections: Connections,
    out: VecDeque<ToSwarm<Identified, Ask>>,
}

impl Behaviour {
    /// Asks a connected peer who it is.
    pub(crate) fn ask(&mut self, peer: PeerId) {
        if let Some(connection) = self.connections.to(peer).first() {
            self.out.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(*connection),
                event: Ask,
            });
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Identified;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) if !endpoint.is_relayed() => self.connections.add(peer_id, connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.connections.remove(peer_id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        info: THandlerOutEvent<Self>,
    ) {
        if info.public_key.to_peer_id() == peer {
            self.out.push_back(ToSwarm::GenerateEvent(Identified {
                peer,
                connection,
                info: *info,
            }));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Identified, THandlerInEvent<Self>>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One end of one connection. It answers nothing: libp2p's does.
#[derive(Default)]
pub(crate) struct Handler {
    wanted: bool,
    /// At most one question is under way.
    reading: Option<BoxFuture<'static, Result<Info, IdentifyError>>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Ask;
    type ToBehaviour = Box<Info>;
    type InboundProtocol = Negotiate<StreamProtocol>;
    type OutboundProtocol = Negotiate<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate<StreamProtocol>> {
        SubstreamProtocol::new(Negotiate(&[]), ())
    }

    fn on_behaviour_event(&mut self, Ask: Ask) {
        self.wanted = self.reading.is_none();
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Box<Info>>> {
        if std::mem::take(&mut self.wanted) {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Negotiate(&ASKED), ()).with_timeout(PATIENCE),
            });
        }
        if let Some(reading) = &mut self.reading
            && let Poll::Ready(read) = reading.poll_unpin(context)
        {
            self.reading = None;
            match read {
                Ok(info) => {
                    let info = Box::new(info);
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(info));
                }
                Err(error) => tracing::debug!(%error, "a peer could not be identified"),
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
            protocol: (_, mut stream),
            ..
        }) = event
        {
            let reading = async move {
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                tokio::time::timeout(PATIENCE, read(&mut stream))
                    .await
                    .map_err(late)?
            };
            self.reading = Some(reading.boxed());
        }
    }
}

/// Why a peer could not be identified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentifyError {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads all that the other end has to say.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Info, IdentifyError> {
    let mut said = Said::default();
    for part in 0..MESSAGES_MAX {
        match message::read(stream).await {
            Ok(bytes) => said.take(&bytes)?,
            // The end, which comes instead of the next message.
            Err(MessageError::Io(error))
                if part > 0 && error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    said.info()
}

/// What was said so far.
#[derive(Default)]
struct Said {
    key: Vec<u8>,
    protocol_version: String,
    agent_version: String,
    listen_addrs: Vec<Multiaddr>,
    protocols: Vec<StreamProtocol>,
    observed: Option<Multiaddr>,
}

impl Said {
    fn take(&mut self, bytes: &[u8]) -> Result<(), IdentifyError> {
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            let Value::Bytes(bytes) = value else {
                continue;
            };
            let text = || String::from_utf8_lossy(bytes).into_owned();
            match number {
                1 => self.key = bytes.to_vec(),
                // What is no address that we know is none to us.
                2 if self.listen_addrs.len() < LIST_MAX => {
                    self.listen_addrs
                        .extend(Multiaddr::try_from(bytes.to_vec()).ok());
                }
                3 if self.protocols.len() < LIST_MAX => {
                    self.protocols
                        .extend(StreamProtocol::try_from_owned(text()).ok());
                }
                4 => self.observed = Multiaddr::try_from(bytes.to_vec()).ok(),
                5 => self.protocol_version = text(),
                6 => self.agent_version = text(),
                _ => {}
            }
        }
        Ok(())
    }

    fn info(self) -> Result<Info, IdentifyError> {
        Ok(Info {
            public_key: public_key::read(&self.key)?,
            protocol_version: self.protocol_version,
            agent_version: self.agent_version,
            listen_addrs: self.listen_addrs,
            protocols: self.protocols,
            observed_addr: self.observed.unwrap_or_else(Multiaddr::empty),
            signed_peer_record: None,
        })
    }
}

/// Messages of one answer; others send and take as many.
const MESSAGES_MAX: usize = 10;
/// Addresses taken of one answer, and protocols.
const LIST_MAX: usize = 1000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::put_bytes;
    use crate::tasks::Tasks;
    use bytes::BytesMut;
    use futures::StreamExt;
    use libp2p::identity::Keypair;
    use libp2p::swarm::{Swarm, SwarmEvent};
    use libp2p::{SwarmBuilder, noise, tcp, yamux};
    use proptest::prelude::*;

    fn framed(parts: &[BytesMut]) -> Vec<u8> {
        let mut out = futures::io::Cursor::new(Vec::new());
        for part in parts {
            futures::executor::block_on(message::write(&mut out, part)).unwrap();
        }
        out.into_inner()
    }

    fn read_all(bytes: &[u8]) -> Result<Info, IdentifyError> {
        futures::executor::block_on(read(&mut &bytes[..]))
    }

    fn addresses(from: u16, count: u16) -> BytesMut {
        let mut part = BytesMut::new();
        for port in from..from + count {
            let address: Multiaddr = format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
            put_bytes(&mut part, 2, &address.to_vec());
        }
        part
    }

    #[test]
    fn parts_are_joined_and_more_than_four_kibibytes_are_read() {
        let key = Keypair::generate_ed25519().public();
        let mut first = addresses(1, 600);
        put_bytes(&mut first, 1, &key.encode_protobuf());
        put_bytes(&mut first, 6, b"first");
        put_bytes(&mut first, 3, b"/one/1");
        assert!(first.len() > 4096);
        let mut second = addresses(601, 2);
        put_bytes(&mut second, 6, b"second");
        put_bytes(&mut second, 3, b"/two/1");
        let info = read_all(&framed(&[first, second])).unwrap();
        assert_eq!(info.public_key, key);
        assert_eq!(info.listen_addrs.len(), 602);
        assert_eq!(info.agent_version, "second");
        assert_eq!(info.protocols, ["/one/1", "/two/1"]);
    }

    #[test]
    fn an_answer_without_an_end_is_cut_off_and_one_that_is_too_long_refused() {
        let mut part = BytesMut::new();
        let key = Keypair::generate_ed25519().public();
        put_bytes(&mut part, 1, &key.encode_protobuf());
        let endless = vec![part; MESSAGES_MAX * 3];
        assert!(read_all(&framed(&endless)).is_ok());
        let mut long = BytesMut::new();
        put_bytes(&mut long, 6, &vec![b'a'; 9 << 10]);
        assert!(read_all(&framed(&[long])).is_err());
        assert!(read_all(&[]).is_err());
    }

    #[test]
    fn a_flood_of_addresses_is_held_in_part() {
        let key = Keypair::generate_ed25519().public();
        let mut parts: Vec<BytesMut> = (0..8).map(|at| addresses(at * 700 + 1, 700)).collect();
        put_bytes(&mut parts[0], 1, &key.encode_protobuf());
        let info = read_all(&framed(&parts)).unwrap();
        assert_eq!(info.listen_addrs.len(), LIST_MAX);
    }

    #[test]
    fn a_message_of_a_mebibyte_1800_protocols_and_a_key_that_is_too_long_are_no_identity() {
        let key = Keypair::generate_ed25519().public();
        // Its length is enough: nothing of it is read.
        let mut large = unsigned_varint::encode::usize(1 << 20, &mut Default::default()).to_vec();
        large.push(0);
        let refused = read_all(&large).unwrap_err();
        assert!(
            matches!(refused, IdentifyError::Message(MessageError::Long)),
            "{refused}"
        );
        let mut parts = vec![BytesMut::new(); 4];
        put_bytes(&mut parts[0], 1, &key.encode_protobuf());
        for at in 0..1800 {
            put_bytes(&mut parts[at % 4], 3, format!("/{at:04}/1").as_bytes());
        }
        let info = read_all(&framed(&parts)).unwrap();
        assert_eq!(info.protocols.len(), LIST_MAX);
        let mut part = BytesMut::new();
        put_bytes(&mut part, 1, &public_key::tests::rsa_of(8200));
        let refused = read_all(&framed(&[part])).unwrap_err();
        assert!(matches!(refused, IdentifyError::Key(_)), "{refused}");
    }

    fn swarm<B: NetworkBehaviour>(keys: Keypair, behaviour: B) -> Swarm<B> {
        let built = SwarmBuilder::with_existing_identity(keys).with_tokio();
        let built = built.with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        );
        let built = built.unwrap().with_behaviour(|_| behaviour).unwrap();
        built
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build()
    }

    /// Whom we hear of when we ask somebody with `keys` who says `parts`, if we hear of anybody.
    async fn asked(keys: Keypair, parts: Vec<BytesMut>, believed: &str) -> Option<Identified> {
        let mut talker = swarm(keys, libp2p_stream::Behaviour::new());
        let mut arrived = talker
            .behaviour()
            .new_control()
            .accept(PROTOCOL_NAME)
            .unwrap();
        let said = framed(&parts);
        talker
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
            .unwrap();
        let at = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = talker.select_next_some().await {
                break address;
            }
        };
        let peer = *talker.local_peer_id();
        let tasks = Tasks::new();
        tasks.spawn("talker", async move {
            loop {
                talker.select_next_some().await;
            }
        });
        let (told, heard) = tokio::sync::oneshot::channel();
        tasks.spawn("talk", async move {
            let (_, mut stream) = arrived.next().await.unwrap();
            futures::AsyncWriteExt::write_all(&mut stream, &said)
                .await
                .unwrap();
            futures::AsyncWriteExt::close(&mut stream).await.unwrap();
            let mut rest = Vec::new();
            // The other end has read it all when it closes too.
            let _ = futures::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
            told.send(()).unwrap();
        });
        let mut asker = swarm(Keypair::generate_ed25519(), Behaviour::default());
        asker.dial(at).unwrap();
        let mut heard = heard.fuse();
        let identified = loop {
            tokio::select! {
                biased;
                event = asker.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { .. } => asker.behaviour_mut().ask(peer),
                    SwarmEvent::Behaviour(identified) => break Some(identified),
                    _ => {}
                },
                _ = &mut heard, if believed == "not" => break None,
            }
        };
        tasks.abort();
        identified
    }

    #[tokio::test]
    async fn a_peer_says_who_it_is_at_length_and_not_with_the_key_of_another() {
        let (keys, others) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        for (key, believed) in [(keys.public(), "yes"), (others.public(), "not")] {
            let mut part = addresses(1, 500);
            put_bytes(&mut part, 1, &key.encode_protobuf());
            let parts = vec![part, addresses(501, 500)];
            let identified = asked(keys.clone(), parts, believed).await;
            assert_eq!(identified.is_some(), believed == "yes");
            let told = identified.map(|identified| identified.info.listen_addrs.len());
            assert!(told.is_none_or(|told| told == 1000));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_all(&bytes);
        }
    }
}
