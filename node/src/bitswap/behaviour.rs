//! Between the swarm and our tasks: negotiates, hands streams over, opens streams on order.
//!
//! A [`Handler`] lives in its connection's task, the [`Behaviour`] in the swarm's; the worker and
//! the stream tasks hold the [`Wire`]. Payload never passes here: a negotiated stream goes straight
//! from the handler into the wire's channel. The handler tells of its connection itself, through
//! the same channel and before any of its streams; the behaviour tells of its end after the handler
//! is gone. So whoever listens never hears of a stream whose connection it does not know, nor of
//! one after its end. Relayed connections, which others lend us with a limit, get a handler that
//! speaks nothing.

use super::message::Version;
use crate::negotiation::{self, Connections, Negotiate, OpenError, is_relayed};
use crate::network;
use crate::swarm::keeper::Keeper;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, Stream, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// What the network tells.
#[derive(Debug)]
pub(super) enum Notice {
    /// A direct connection is up, and where its other end is, as far as known.
    Connected(PeerId, ConnectionId, Option<IpAddr>),
    /// The other end opened a stream.
    Stream(PeerId, Version, Stream),
    /// A connection is gone.
    Disconnected(PeerId, ConnectionId),
}

/// What the network is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Open a stream to a peer and hand it over.
    Open(PeerId, Opener),
    /// Whether the connections to this peer are in use though no stream is open.
    KeepAlive(PeerId, KeepAlive),
    /// Close every connection to this peer.
    Disconnect(PeerId),
}

/// Whether an idle connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// We wait for an answer.
    Yes,
    /// As far as we are concerned it may go.
    No,
}

/// Where an opened stream goes.
pub(crate) type Opener = negotiation::Opener<Version>;

/// The other end of a [`Behaviour`].
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) notices: mpsc::Receiver<Notice>,
    pub(super) orders: mpsc::Sender<Order>,
    /// Who is told what peers are worth.
    pub(crate) keeper: Option<Keeper>,
}

/// Makes both ends.
pub(super) fn pair(versions: &'static [Version]) -> (Behaviour, Wire) {
    let (notices, noticed) = mpsc::channel(NOTICES_MAX);
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let behaviour = Behaviour {
        versions,
        connections: Connections::default(),
        notices: PollSender::new(notices),
        gone: VecDeque::new(),
        orders: ordered,
        out: VecDeque::new(),
    };
    let wire = Wire {
        notices: noticed,
        orders,
        keeper: None,
    };
    (behaviour, wire)
}

/// The part of the swarm that speaks Bitswap.
#[derive(Debug)]
pub(crate) struct Behaviour {
    versions: &'static [Version],
    /// Direct connections only.
    connections: Connections,
    notices: PollSender<Notice>,
    /// Ends of connections not yet told. No longer than there were connections at once.
    gone: VecDeque<Notice>,
    orders: mpsc::Receiver<Order>,
    /// One order may concern every connection of a peer.
    out: VecDeque<ToSwarm<Infallible, HandlerOrder>>,
}

impl Behaviour {
    fn handler(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        reach: Reach,
        remote: &Multiaddr,
    ) -> Handler {
        let notices = match reach {
            Reach::Direct => self.notices.clone(),
            Reach::Relayed => {
                let mut closed = self.notices.clone();
                closed.close();
                closed
            }
        };
        let mut pending = VecDeque::new();
        if reach == Reach::Direct {
            pending.push_back(Notice::Connected(peer, connection, network::host(remote)));
        }
        Handler {
            peer,
            versions: match reach {
                Reach::Direct => self.versions,
                Reach::Relayed => &[],
            },
            pending,
            notices,
            open: VecDeque::new(),
            keep_alive: KeepAlive::No,
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open(peer, reply) => match self.connections.to(peer).first() {
                Some(connection) => self.notify(peer, *connection, HandlerOrder::Open(reply)),
                None => drop(reply.send(Err(OpenError::NotConnected))),
            },
            Order::KeepAlive(peer, keep_alive) => {
                for connection in self.connections.to(peer).to_vec() {
                    self.notify(peer, connection, HandlerOrder::KeepAlive(keep_alive));
                }
            }
            Order::Disconnect(peer_id) => self.out.push_back(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::All,
            }),
        }
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, event: HandlerOrder) {
        self.out.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event,
        });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, connection, Reach::of(local), remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, connection, Reach::of(address), address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) if !endpoint.is_relayed() => {
                self.connections.add(peer_id, connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                let was_direct = self.connections.remove(peer_id, connection_id);
                if was_direct {
                    self.gone
                        .push_back(Notice::Disconnected(peer_id, connection_id));
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
        tell(&mut self.notices, &mut self.gone, context);
        loop {
            if let Some(out) = self.out.pop_front() {
                return Poll::Ready(out);
            }
            match self.orders.poll_recv(context) {
                Poll::Ready(Some(order)) => self.obey(order),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Whether a connection is ours alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Direct,
    Relayed,
}

impl Reach {
    fn of(address: &Multiaddr) -> Self {
        if is_relayed(address) {
            Self::Relayed
        } else {
            Self::Direct
        }
    }
}

/// What a handler is told to do.
#[derive(Debug)]
pub(crate) enum HandlerOrder {
    Open(Opener),
    KeepAlive(KeepAlive),
}

/// Our part of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    versions: &'static [Version],
    pending: VecDeque<Notice>,
    notices: PollSender<Notice>,
    open: VecDeque<Opener>,
    keep_alive: KeepAlive,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = HandlerOrder;
    type ToBehaviour = Infallible;
    type InboundProtocol = Negotiate<Version>;
    type OutboundProtocol = Negotiate<Version>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opener;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate<Version>> {
        SubstreamProtocol::new(Negotiate(self.versions), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive == KeepAlive::Yes
    }

    fn on_behaviour_event(&mut self, order: HandlerOrder) {
        match order {
            HandlerOrder::Open(reply) if self.open.len() < OPENS_PENDING_MAX => {
                self.open.push_back(reply);
            }
            HandlerOrder::Open(reply) => {
                drop(reply.send(Err(OpenError::busy())));
            }
            HandlerOrder::KeepAlive(keep_alive) => self.keep_alive = keep_alive,
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opener, Infallible>> {
        tell(&mut self.notices, &mut self.pending, context);
        match self.open.pop_front() {
            Some(reply) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Negotiate(self.versions), reply)
                    .with_timeout(super::streams::OPEN_TIMEOUT),
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
                protocol: (version, mut stream),
                ..
            }) => {
                // Others leave their streams open for ever; that alone must not hold a connection.
                stream.ignore_for_keep_alive();
                if self.pending.len() < STREAMS_PENDING_MAX {
                    self.pending
                        .push_back(Notice::Stream(self.peer, version, stream));
                } else {
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

/// Sends what waits, as far as there is room; wakes the task when there is more.
fn tell(to: &mut PollSender<Notice>, pending: &mut VecDeque<Notice>, context: &mut Context<'_>) {
    while !pending.is_empty() {
        match to.poll_reserve(context) {
            Poll::Ready(Ok(())) => {
                if let Some(notice) = pending.pop_front() {
                    drop(to.send_item(notice));
                }
            }
            // Nobody listens any more.
            Poll::Ready(Err(_)) => pending.clear(),
            Poll::Pending => return,
        }
    }
}

/// Notices waiting for the worker, over all connections.
const NOTICES_MAX: usize = 1024;
/// Orders waiting for the swarm.
const ORDERS_MAX: usize = 1024;
/// Inbound streams of one connection waiting for room among the notices.
const STREAMS_PENDING_MAX: usize = 64;
/// Outbound streams of one connection waiting to be asked for.
const OPENS_PENDING_MAX: usize = 16;
