//! Between the swarm and the measuring tasks: negotiates and hands streams over.

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What it is called.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

/// Where an opened stream goes.
pub(crate) type Opener = oneshot::Sender<Result<Stream, OpenError>>;

/// Why no stream was opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    NotConnected,
    Unsupported,
    Failed(String),
}

/// Open a stream to a peer.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) peer: PeerId,
    pub(super) reply: Opener,
}

/// The other end of a [`Behaviour`].
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) arrived: mpsc::Receiver<(PeerId, Stream)>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// Whether peers may measure with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    Yes,
    No,
}

/// Makes both ends.
pub(crate) fn pair(answers: Answers) -> (Behaviour, Wire) {
    let (arrivals, arrived) = mpsc::channel(ARRIVED_MAX);
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let behaviour = Behaviour {
        answers,
        connections: HashMap::new(),
        arrivals,
        orders: ordered,
    };
    (behaviour, Wire { arrived, orders })
}

/// The part of the swarm that speaks it.
#[derive(Debug)]
pub(crate) struct Behaviour {
    answers: Answers,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    arrivals: mpsc::Sender<(PeerId, Stream)>,
    orders: mpsc::Receiver<Order>,
}

impl Behaviour {
    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            answers: self.answers,
            arrivals: self.arrivals.clone(),
            open: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self
                .connections
                .entry(peer_id)
                .or_default()
                .push(connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                let Some(all) = self.connections.get_mut(&peer_id) else {
                    return;
                };
                all.retain(|other| *other != connection_id);
                if all.is_empty() {
                    self.connections.remove(&peer_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some(Order { peer, reply })) = self.orders.poll_recv(context) {
            match self.connections.get(&peer).and_then(|all| all.first()) {
                Some(connection) => {
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id: peer,
                        handler: NotifyHandler::One(*connection),
                        event: reply,
                    });
                }
                None => drop(reply.send(Err(OpenError::NotConnected))),
            }
        }
        Poll::Pending
    }
}

/// Our part of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    answers: Answers,
    arrivals: mpsc::Sender<(PeerId, Stream)>,
    open: VecDeque<Opener>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Opener;
    type ToBehaviour = Infallible;
    type InboundProtocol = Negotiate;
    type OutboundProtocol = Negotiate;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opener;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate> {
        SubstreamProtocol::new(Negotiate(self.answers), ())
    }

    fn on_behaviour_event(&mut self, reply: Opener) {
        if self.open.len() < OPENS_PENDING_MAX {
            self.open.push_back(reply);
        } else {
            let busy = OpenError::Failed("too many streams are being opened".to_owned());
            drop(reply.send(Err(busy)));
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Negotiate, Opener, Infallible>> {
        match self.open.pop_front() {
            Some(reply) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Negotiate(Answers::Yes), reply)
                    .with_timeout(OPEN_TIMEOUT),
            }),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Negotiate, Negotiate, (), Opener>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                let handed = self.arrivals.try_send((self.peer, stream));
                if handed.is_err() {
                    tracing::debug!(peer = %self.peer, "measurement refused: too many wait");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => drop(info.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout => OpenError::Failed("too slow".to_owned()),
                    StreamUpgradeError::Io(error) => OpenError::Failed(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(info.send(Err(error)));
            }
            _ => {}
        }
    }
}

/// Hands the stream over as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Negotiate(Answers);

impl UpgradeInfo for Negotiate {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        let named = (self.0 == Answers::Yes).then_some(PROTOCOL);
        named.into_iter()
    }
}

impl InboundUpgrade<Stream> for Negotiate {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Negotiate {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

/// Streams of peers that wait to be answered, over all connections; more are refused.
const ARRIVED_MAX: usize = 16;
/// Orders waiting for the swarm.
const ORDERS_MAX: usize = 16;
/// Streams of one connection waiting to be asked for.
const OPENS_PENDING_MAX: usize = 64;
/// How long agreeing on a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
