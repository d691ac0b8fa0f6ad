//! What the swarm sees of the keeper: it refuses, closes and dials as the engines say.

use super::manager::Came;
use super::{Hurry, Keeper, Serves, State, Stay};
use crate::network;
use libp2p::connection_limits::Exceeded;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::swarm::behaviour::{
    ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure,
};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

type Order = ToSwarm<Infallible, Stay>;

/// The part of the swarm that keeps connections.
#[derive(Debug)]
pub(crate) struct Behaviour {
    keeper: Keeper,
    /// When the engines are to be asked again.
    timer: Option<Pin<Box<Sleep>>>,
    /// Dials to be begun. No longer than the list of peers to stay connected to.
    dials: VecDeque<(PeerId, Vec<Multiaddr>)>,
}

impl Behaviour {
    pub(crate) const fn new(keeper: Keeper) -> Self {
        Self {
            keeper,
            timer: None,
            dials: VecDeque::new(),
        }
    }

    /// Whether a peer said that it answers queries of the DHT.
    pub(crate) fn serves(&self, peer: &PeerId, is_server: bool) {
        let serves = match is_server {
            true => Serves::Dht,
            false => Serves::Nothing,
        };
        self.keeper.serves(peer, serves);
    }

    /// A connection was refused since there are as many as may be.
    pub(crate) fn limited(&self, end: Endpoint, exceeded: &Exceeded) {
        self.keeper.limited(end, exceeded);
    }

    /// Stays with a peer while what this gives lives.
    pub(crate) fn hold(&self, peer: PeerId) -> Hurry {
        self.keeper.hurry(peer)
    }

    fn handler(&self, peer: &PeerId) -> Handler {
        let stay = match self.keeper.state().peering.has(peer) {
            true => Stay::Yes,
            false => Stay::No,
        };
        Handler { stay }
    }

    fn next_order(&mut self, state: &mut State) -> Option<Order> {
        if let Some((peer_id, connection)) = state.closing.pop_front() {
            return Some(ToSwarm::CloseConnection {
                peer_id,
                connection,
            });
        }
        if let Some((peer_id, id, event)) = state.staying.pop_front() {
            let handler = NotifyHandler::One(id);
            return Some(ToSwarm::NotifyHandler {
                peer_id,
                handler,
                event,
            });
        }
        let (peer, addresses) = self.dials.pop_front()?;
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        Some(ToSwarm::Dial { opts })
    }

    /// Asks the engines; gives when to ask again.
    fn look(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        state.has_changed = false;
        self.dials.extend(state.peering.dial(now));
        let mut goes = state.manager.trim(now);
        goes.extend(state.manager.make_room(now));
        if !goes.is_empty() {
            let connections: usize = goes.iter().map(|peer| state.of(peer).len()).sum();
            let more = u64::try_from(connections).unwrap_or(u64::MAX);
            self.keeper.0.trimmed.fetch_add(more, Ordering::Relaxed);
            tracing::debug!(
                connections,
                peers = goes.len(),
                "too many connections, some closed"
            );
        }
        let all = goes.into_iter().map(|peer| (peer, CloseConnection::All));
        state.closing.extend(all);
        let due = [state.manager.due(now), state.peering.due()];
        due.into_iter().flatten().min()
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.keeper.admit(Endpoint::Listener, id, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let anywhere = Multiaddr::empty();
        self.keeper.admit(Endpoint::Dialer, id, &anywhere)?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let (mut state, now) = (self.keeper.state(), Instant::now());
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let came = match endpoint.is_dialer() {
                    true => Came::Out,
                    false => Came::In,
                };
                let remote = endpoint.get_remote_address().clone();
                let from = network::host(&remote).filter(|_| !endpoint.is_relayed());
                let came = (came, from);
                state.manager.connected(peer_id, connection_id, came, now);
                state.peering.connected(&peer_id);
                state.connections.insert(connection_id, (peer_id, remote));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                remaining_established,
                ..
            }) => {
                state.manager.closed(peer_id, connection_id);
                state.crowd.gone(connection_id);
                state.connections.remove(&connection_id);
                if remaining_established == 0 {
                    state.peering.disconnected(&peer_id, now);
                }
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                ..
            }) => state.peering.failed(&peer, now),
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                state.crowd.gone(connection_id);
                // Nothing else depends on it.
                return;
            }
            _ => return,
        }
        state.has_changed = true;
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
        let keeper = self.keeper.clone();
        keeper.0.waker.register(context.waker());
        loop {
            let mut state = keeper.state();
            if let Some(order) = self.next_order(&mut state) {
                return Poll::Ready(order);
            }
            let is_due = match &mut self.timer {
                Some(timer) => timer.as_mut().poll(context).is_ready(),
                None => false,
            };
            if !is_due && !state.has_changed {
                return Poll::Pending;
            }
            let due = self.look(&mut state, Instant::now());
            self.timer = due.map(|due| Box::pin(sleep_until(due)));
        }
    }
}

/// The keeper's part of one connection: it speaks nothing, and may keep the connection when nobody uses it.
#[derive(Debug)]
pub(crate) struct Handler {
    stay: Stay,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Stay;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.stay == Stay::Yes
    }

    fn on_behaviour_event(&mut self, stay: Stay) {
        self.stay = stay;
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade, (), ()>,
    ) {
    }
}
