//! Between the swarm and the measuring tasks: negotiates and hands streams over. Pings go the same way
//! (`ping.rs`), over a protocol that somebody else answers, questions for records (`name/pubsub/fetch.rs`), and requests
//! for the gateway (`web.rs`).

use crate::negotiation::{self, Connections, Negotiate, OpenError, is_relayed};
use crate::network::host;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
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
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// What it is called.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

/// What one [`Behaviour`] speaks.
pub(crate) type Spoken = &'static [StreamProtocol; 1];

static SPOKEN: [StreamProtocol; 1] = [PROTOCOL];

/// Where an opened stream goes.
pub(crate) type Opener = negotiation::Opener<StreamProtocol>;

/// Open a stream to a peer.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) peer: PeerId,
    /// Where its connection leads; `None` for any.
    pub(crate) way: Option<Multiaddr>,
    pub(crate) reply: Opener,
}

/// A stream that a peer has opened.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: PeerId,
    /// The other end of its connection, if that is an IP address.
    pub(crate) from: Option<IpAddr>,
    pub(crate) stream: Stream,
}

/// The other end of a [`Behaviour`].
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) arrived: mpsc::Receiver<Arrival>,
    pub(crate) orders: mpsc::Sender<Order>,
}

/// Whether peers may measure with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    Yes,
    No,
}

/// Makes both ends.
pub(crate) fn pair(answers: Answers) -> (Behaviour, Wire) {
    pair_of(&SPOKEN, answers)
}

/// The same for another protocol.
pub(crate) fn pair_of(spoken: Spoken, answers: Answers) -> (Behaviour, Wire) {
    let (arrivals, arrived) = mpsc::channel(ARRIVED_MAX);
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let behaviour = Behaviour {
        spoken,
        answers,
        connections: Connections::default(),
        ways: HashMap::new(),
        arrivals,
        orders: ordered,
    };
    (behaviour, Wire { arrived, orders })
}

/// The part of the swarm that speaks it.
#[derive(Debug)]
pub(crate) struct Behaviour {
    spoken: Spoken,
    answers: Answers,
    connections: Connections,
    /// Where each of them leads, as [`Order::way`] has it.
    ways: HashMap<ConnectionId, Multiaddr>,
    arrivals: mpsc::Sender<Arrival>,
    orders: mpsc::Receiver<Order>,
}

impl Behaviour {
    fn connection(&self, order: &Order) -> Option<ConnectionId> {
        let mut all = self.connections.to(order.peer).iter().copied();
        match &order.way {
            Some(way) => all.find(|id| self.ways.get(id) == Some(way)),
            None => all.next(),
        }
    }

    /// Over a relay nothing is answered: it would be the relay that pays.
    fn handler(&self, peer: PeerId, address: &Multiaddr, remote: &Multiaddr) -> Handler {
        Handler {
            peer,
            from: host(remote),
            spoken: self.spoken,
            answers: if is_relayed(address) {
                Answers::No
            } else {
                self.answers
            },
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
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, local, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, address, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) if !endpoint.is_relayed() => {
                let mut way = endpoint.get_remote_address().clone();
                // Another's name would be part of the way.
                if way.iter().last() == Some(Protocol::P2p(peer_id)) {
                    way.pop();
                }
                self.ways.insert(connection_id, way);
                self.connections.add(peer_id, connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.ways.remove(&connection_id);
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
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(context) {
            let connection = self.connection(&order);
            let Order { peer, reply, .. } = order;
            match connection {
                Some(connection) => {
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id: peer,
                        handler: NotifyHandler::One(connection),
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
    from: Option<IpAddr>,
    spoken: Spoken,
    answers: Answers,
    arrivals: mpsc::Sender<Arrival>,
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
            Answers::Yes => self.spoken.as_slice(),
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
                protocol: SubstreamProtocol::new(Negotiate(self.spoken), reply)
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
                let (peer, from) = (self.peer, self.from);
                let handed = self.arrivals.try_send(Arrival { peer, from, stream });
                if handed.is_err() {
                    tracing::debug!(peer = %self.peer, "stream refused: too many wait");
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

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::ConnectedPoint;
    use tokio::sync::oneshot;

    #[test]
    fn a_stream_is_opened_on_the_connection_that_leads_there() {
        let (mut behaviour, wire) = pair(Answers::Yes);
        let peer = PeerId::random();
        let ways = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"];
        let ways = ways.map(|way| way.parse::<Multiaddr>().unwrap());
        let ids = [7, 8].map(ConnectionId::new_unchecked);
        for (id, way) in ids.into_iter().zip(&ways) {
            let endpoint = ConnectedPoint::Dialer {
                address: way.clone().with(Protocol::P2p(peer)),
                role_override: Endpoint::Dialer,
                port_use: PortUse::New,
            };
            behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        let mut opened_on = |way: Option<&Multiaddr>| {
            let (reply, mut answer) = oneshot::channel();
            let way = way.cloned();
            wire.orders.try_send(Order { peer, way, reply }).unwrap();
            let mut context = Context::from_waker(std::task::Waker::noop());
            match behaviour.poll(&mut context) {
                Poll::Ready(ToSwarm::NotifyHandler {
                    handler: NotifyHandler::One(id),
                    ..
                }) => Some(id),
                _ => {
                    assert!(matches!(
                        answer.try_recv(),
                        Ok(Err(OpenError::NotConnected))
                    ));
                    None
                }
            }
        };
        for (id, way) in ids.into_iter().zip(&ways) {
            assert_eq!(opened_on(Some(way)), Some(id));
        }
        assert_eq!(opened_on(None), Some(ids[0]));
        let elsewhere = "/ip4/127.0.0.1/tcp/2".parse().unwrap();
        assert_eq!(opened_on(Some(&elsewhere)), None);
    }
}
