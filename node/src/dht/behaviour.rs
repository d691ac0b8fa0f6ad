//! Between the swarm and the DHT's tasks: negotiates and hands streams over.
//!
//! Peers may open streams only in the DHTs that this node serves; it opens streams in all it takes part in.
//! In the network `public` only who is near speaks the DHT of those nearby. Relayed connections, which others lend with a limit, get a handler that speaks nothing.

use super::table::Group;
use crate::negotiation::{self, Connections, Negotiate, OpenError, is_relayed};
use crate::network::{self, Network, Realm};
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// Where an opened stream goes.
pub(crate) type Opener = negotiation::Opener<StreamProtocol>;

/// Open a stream to a peer.
#[derive(Debug)]
pub(crate) struct Order {
    pub(super) peer: PeerId,
    pub(super) realm: Realm,
    pub(super) reply: Opener,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) peer: PeerId,
    pub(super) realm: Realm,
    /// The network that its connection comes from, where that matters.
    pub(super) group: Option<Group>,
    pub(super) stream: Stream,
}

/// The other end of a [`Behaviour`].
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) arrived: mpsc::Receiver<Arrival>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// In which DHTs peers may ask this node. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Serving(Arc<[AtomicBool; 2]>);

impl Serving {
    fn of(&self, realm: Realm) -> &AtomicBool {
        let [wan, lan] = &*self.0;
        match realm {
            Realm::Wan => wan,
            Realm::Lan => lan,
        }
    }

    /// Whether peers may ask.
    pub(crate) fn serves(&self, realm: Realm) -> bool {
        self.of(realm).load(Ordering::Relaxed)
    }

    /// Says whether they may from now on; true if that is news.
    fn set(&self, realm: Realm, serves: bool) -> bool {
        self.of(realm).swap(serves, Ordering::Relaxed) != serves
    }
}

/// Makes both ends; peers may ask in these DHTs.
pub(crate) fn pair(network: Network, serves: &[Realm]) -> (Behaviour, Wire) {
    let (arrivals, arrived) = mpsc::channel(ARRIVED_MAX);
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let serving = Serving::default();
    for realm in serves {
        serving.set(*realm, true);
    }
    let behaviour = Behaviour {
        network,
        serving,
        connections: Connections::default(),
        told: VecDeque::new(),
        arrivals,
        orders: ordered,
    };
    (behaviour, Wire { arrived, orders })
}

/// The part of the swarm that speaks it.
#[derive(Debug)]
pub(crate) struct Behaviour {
    network: Network,
    serving: Serving,
    connections: Connections,
    /// Connections whose handlers are to look again what is served. No more than there are.
    told: VecDeque<(PeerId, ConnectionId)>,
    arrivals: mpsc::Sender<Arrival>,
    orders: mpsc::Receiver<Order>,
}

impl Behaviour {
    /// In which DHTs peers may ask this node.
    pub(crate) fn serving(&self) -> Serving {
        self.serving.clone()
    }

    /// Says whether peers may ask this node from now on.
    pub(crate) fn serve(&mut self, realm: Realm, serves: bool) {
        if self.serving.set(realm, serves) {
            self.told = self.connections.all().collect();
        }
    }

    fn handler(&self, peer: PeerId, local: Option<&Multiaddr>, remote: &Multiaddr) -> Handler {
        // One that came over a relay is listened for at the relay's address.
        let is_relayed = is_relayed(local.unwrap_or(remote));
        let is_near = self.network != Network::Public || network::is_near(remote);
        let group = network::host(remote).map(Group::of);
        Handler {
            peer,
            group: group.filter(|_| self.network == Network::Public),
            spoken: (!is_relayed).then(|| self.serving.clone()),
            is_near,
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
        Ok(self.handler(peer, Some(local), remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, None, remote))
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
        if let Some((peer_id, connection)) = self.told.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event: None,
            });
        }
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(context) {
            match self.connections.to(order.peer).first() {
                Some(connection) => {
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id: order.peer,
                        handler: NotifyHandler::One(*connection),
                        event: Some(order),
                    });
                }
                None => drop(order.reply.send(Err(OpenError::NotConnected))),
            }
        }
        Poll::Pending
    }
}

/// Our part of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    /// The network that the other end is in, where that matters.
    group: Option<Group>,
    /// What is served; `None` where nothing is spoken.
    spoken: Option<Serving>,
    /// Whether the other end is of those nearby, as far as that matters.
    is_near: bool,
    arrivals: mpsc::Sender<Arrival>,
    open: VecDeque<Order>,
}

impl Handler {
    fn speaks(&self, realm: Realm) -> bool {
        self.spoken.is_some() && (self.is_near || realm == Realm::Wan)
    }
}

impl ConnectionHandler for Handler {
    /// Nothing to open: only that what is served has changed, which is looked at after every message.
    type FromBehaviour = Option<Order>;
    type ToBehaviour = Infallible;
    type InboundProtocol = Negotiate<StreamProtocol>;
    type OutboundProtocol = Negotiate<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opener;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate<StreamProtocol>> {
        let serves = |realm| {
            let serving = self.spoken.as_ref();
            self.speaks(realm) && serving.is_some_and(|serving| serving.serves(realm))
        };
        let spoken: &'static [StreamProtocol] = match (serves(Realm::Wan), serves(Realm::Lan)) {
            (true, true) => &BOTH,
            (true, false) => &WAN,
            (false, true) => &LAN,
            (false, false) => &[],
        };
        SubstreamProtocol::new(Negotiate(spoken), ())
    }

    fn on_behaviour_event(&mut self, order: Option<Order>) {
        let Some(order) = order else {
            return;
        };
        if !self.speaks(order.realm) {
            drop(order.reply.send(Err(OpenError::Unsupported)));
        } else if self.open.len() < OPENS_PENDING_MAX {
            self.open.push_back(order);
        } else {
            drop(order.reply.send(Err(OpenError::busy())));
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opener, Infallible>> {
        match self.open.pop_front() {
            Some(Order { realm, reply, .. }) => {
                let spoken = match realm {
                    Realm::Wan => &WAN,
                    Realm::Lan => &LAN,
                };
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(Negotiate(spoken), reply)
                        .with_timeout(OPEN_TIMEOUT),
                })
            }
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opener>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (name, stream),
                ..
            }) => {
                let realm = match name == Realm::Wan.protocol() {
                    true => Realm::Wan,
                    false => Realm::Lan,
                };
                let arrival = Arrival {
                    peer: self.peer,
                    realm,
                    group: self.group,
                    stream,
                };
                if self.arrivals.try_send(arrival).is_err() {
                    tracing::debug!(peer = %self.peer, "DHT stream refused: too many wait");
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

static WAN: [StreamProtocol; 1] = [Realm::Wan.protocol()];
static LAN: [StreamProtocol; 1] = [Realm::Lan.protocol()];
static BOTH: [StreamProtocol; 2] = [Realm::Wan.protocol(), Realm::Lan.protocol()];

/// Streams of peers that wait to be taken, over all connections; more are refused.
const ARRIVED_MAX: usize = 256;
/// Orders waiting for the swarm.
const ORDERS_MAX: usize = 256;
/// Streams of one connection waiting to be asked for.
const OPENS_PENDING_MAX: usize = 64;
/// How long agreeing on a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_public_only_who_is_near_speaks_the_dht_of_those_nearby() {
        let speaks = |network, remote: &str| {
            let (behaviour, _wire) = pair(network, &[Realm::Lan, Realm::Wan]);
            let handler = behaviour.handler(PeerId::random(), None, &remote.parse().unwrap());
            let spoken = handler.listen_protocol().upgrade().0.len();
            let both = [Realm::Wan, Realm::Lan].map(|realm| handler.speaks(realm));
            assert_eq!(spoken, both.iter().filter(|speaks| **speaks).count());
            both
        };
        let global = "/ip4/192.0.2.1/tcp/1";
        assert_eq!(speaks(Network::Public, global), [true, false]);
        assert_eq!(
            speaks(Network::Public, "/ip4/192.168.0.1/tcp/1"),
            [true, true]
        );
        assert_eq!(speaks(Network::Lan, "/ip4/127.0.0.1/tcp/1"), [true, true]);
        let relay = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let relayed = format!("{global}/p2p/{relay}/p2p-circuit");
        assert_eq!(speaks(Network::Public, &relayed), [false, false]);
    }

    #[test]
    fn the_network_that_a_connection_comes_from_is_known_before_anything_is_said() {
        let group = |network, remote: &str| {
            let (behaviour, _wire) = pair(network, &[Realm::Wan]);
            let remote = remote.parse().unwrap();
            behaviour.handler(PeerId::random(), None, &remote).group
        };
        let global = "/ip4/192.0.2.1/tcp/1";
        let its = Group::of([192, 0, 3, 4].into());
        assert_eq!(group(Network::Public, global), Some(its));
        assert_eq!(group(Network::Public, "/dns4/example.com/tcp/1"), None);
        assert_eq!(group(Network::Lan, global), None);
    }

    #[test]
    fn what_is_served_changes_for_all_at_once() {
        let (mut behaviour, _wire) = pair(Network::Public, &[Realm::Lan]);
        let remote = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let handler = behaviour.handler(PeerId::random(), None, &remote);
        let count = || handler.listen_protocol().upgrade().0.len();
        assert_eq!(count(), 0);
        behaviour.serve(Realm::Wan, true);
        assert_eq!(count(), 1);
        behaviour.serve(Realm::Wan, false);
        assert_eq!(count(), 0);
    }
}
