//! Between the swarm and the measuring tasks: negotiates and hands streams over.

use crate::negotiation::{self, Connections, Negotiate, OpenError};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// What it is called.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

static SPOKEN: [StreamProtocol; 1] = [PROTOCOL];

/// Where an opened stream goes.
pub(crate) type Opener = negotiation::Opener<StreamProtocol>;

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
        connections: Connections::default(),
        arrivals,
        orders: ordered,
    };
    (behaviour, Wire { arrived, orders })
}

/// The part of the swarm that speaks it.
#[derive(Debug)]
pub(crate) struct Behaviour {
    answers: Answers,
    connections: Connections,
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
            }) => self.connections.add(peer_id, connection_id),
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
            match self.connections.to(peer).first() {
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
    type InboundProtocol = Negotiate<StreamProtocol>;
    type OutboundProtocol = Negotiate<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opener;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate<StreamProtocol>> {
        let spoken = match self.answers {
            Answers::Yes => &SPOKEN[..],
            Answers::No => &[],
        };
        SubstreamProtocol::new(Negotiate(spoken), ())
    }

    fn on_behaviour_event(&mut self, reply: Opener) {
        if self.open.len() < OPENS_PENDING_MAX {
            self.open.push_back(reply);
        } else {
            drop(reply.send(Err(OpenError::busy())));
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opener, Infallible>> {
        match self.open.pop_front() {
            Some(reply) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Negotiate(&SPOKEN), reply)
                    .with_timeout(OPEN_TIMEOUT),
            }),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opener>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (_, stream),
                ..
            }) => {
                let handed = self.arrivals.try_send((self.peer, stream));
                if handed.is_err() {
                    tracing::debug!(peer = %self.peer, "measurement refused: too many wait");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => drop(info.send(Ok(protocol))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                drop(info.send(Err(error.into())));
            }
            _ => {}
        }
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
