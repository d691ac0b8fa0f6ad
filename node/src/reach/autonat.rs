//! AutoNAT v2: peers try our addresses, and we try theirs. What follows from it is decided elsewhere.
//!
//! Both ends are our own: which address is tried, by whom and how often is [`super::state`]'s business, and what
//! a stranger may have us dial is limited here. A peer that says it has reached us is believed only if
//! somebody really came and said the number that it was given, over the same kind of transport. We try nothing inside our own network, no names
//! and no relays, a few addresses a minute ([`DIALS_A_MINUTE`]), and have whoever asks for another host than its own pay
//! in bytes first.

mod handler;
pub(crate) mod message;
mod talk;

use super::state::Outcome;
use crate::negotiation::{Connections, is_relayed};
use crate::network::Network;
use handler::{Handler, Open};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use rand::Rng;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use talk::{Tried, Wish};
use tokio::sync::oneshot;

/// The protocol of who is asked.
pub(crate) const ASKED: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
/// The protocol of who has come.
pub(crate) const CAME: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

static ASK: [StreamProtocol; 1] = [ASKED];
static SAY: [StreamProtocol; 1] = [CAME];
static BOTH: [StreamProtocol; 2] = [CAME, ASKED];

/// What it tells: how a probe ended.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) address: Multiaddr,
    pub(crate) server: PeerId,
    pub(crate) outcome: Outcome,
}

/// What a connection tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// The peer that was asked says how it went.
    Ended { nonce: u64, outcome: Outcome },
    /// Somebody came to this address of ours and said this number. Whether we know it.
    Came {
        nonce: u64,
        local: Multiaddr,
        known: oneshot::Sender<bool>,
    },
    /// The peer wants an address tried.
    Wish(Wish),
    /// We have said what we came for.
    Said,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    network: Network,
    serves: AtomicBool,
    dials: Mutex<VecDeque<(Instant, PeerId)>>,
}

impl Shared {
    fn spoken(&self) -> &'static [StreamProtocol] {
        if self.serves.load(Ordering::Relaxed) {
            &BOTH
        } else {
            &SAY
        }
    }

    /// Whether one more address is tried for `peer` now; counts it if so.
    fn may_dial(&self, peer: PeerId) -> bool {
        let now = Instant::now();
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        while dials.front().is_some_and(|(at, _)| now >= *at + MINUTE) {
            dials.pop_front();
        }
        let of_peer = dials.iter().filter(|(_, other)| *other == peer).count();
        let may = dials.len() < DIALS_A_MINUTE && of_peer < DIALS_A_MINUTE_PER_PEER;
        if may {
            dials.push_back((now, peer));
        }
        may
    }

    /// What a dial elsewhere costs who wants it, in bytes.
    #[expect(clippy::unused_self, reason = "it is the shared terms that say so")]
    fn price(&self) -> usize {
        rand::rng().random_range(PRICE_BYTES)
    }
}

/// The part of the swarm that speaks it.
#[derive(Debug)]
pub(crate) struct Behaviour {
    shared: Arc<Shared>,
    /// Direct connections only.
    connections: Connections,
    /// What others are trying for us.
    asked: HashMap<u64, Asked>,
    /// What we are trying for others. Bounded by the dials a minute.
    trying: HashMap<ConnectionId, Wish>,
    out: VecDeque<ToSwarm<Probed, Open>>,
}

#[derive(Debug)]
struct Asked {
    address: Multiaddr,
    server: PeerId,
    connection: ConnectionId,
    came: bool,
}

impl Behaviour {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            shared: Arc::new(Shared {
                network,
                serves: AtomicBool::new(true),
                dials: Mutex::default(),
            }),
            connections: Connections::default(),
            asked: HashMap::new(),
            trying: HashMap::new(),
            out: VecDeque::new(),
        }
    }

    /// Whether we try addresses for others from now on. Who cannot be reached may be behind what keeps
    /// it from reaching others.
    pub(crate) fn serve(&self, serves: bool) {
        self.shared.serves.store(serves, Ordering::Relaxed);
    }

    /// Has `server` try `address`; how it ended comes as an event.
    pub(crate) fn probe(&mut self, server: PeerId, address: Multiaddr) {
        let connection = self.connections.to(server).first();
        let (Some(connection), true) = (connection, self.asked.len() < ASKED_MAX) else {
            let outcome = Outcome::Unanswered;
            self.out.push_back(ToSwarm::GenerateEvent(Probed {
                address,
                server,
                outcome,
            }));
            return;
        };
        let nonce = rand::rng().random();
        let connection = *connection;
        self.asked.insert(
            nonce,
            Asked {
                address: address.clone(),
                server,
                connection,
                came: false,
            },
        );
        self.out.push_back(ToSwarm::NotifyHandler {
            peer_id: server,
            handler: NotifyHandler::One(connection),
            event: Open::Ask { address, nonce },
        });
    }

    fn ended(&mut self, nonce: u64, outcome: Outcome) {
        let Some(asked) = self.asked.remove(&nonce) else {
            return;
        };
        let outcome = match outcome {
            // It says so, but nobody was seen.
            Outcome::Reached if !asked.came => Outcome::Unanswered,
            other => other,
        };
        self.out.push_back(ToSwarm::GenerateEvent(Probed {
            address: asked.address,
            server: asked.server,
            outcome,
        }));
    }

    fn try_for(&mut self, wish: Wish) {
        let dial = DialOpts::peer_id(wish.peer)
            .addresses(vec![wish.address.clone()])
            .condition(PeerCondition::Always)
            // Our own port may have a way in already.
            .allocate_new_port()
            .build();
        self.trying.insert(dial.connection_id(), wish);
        self.out.push_back(ToSwarm::Dial { opts: dial });
    }
}

/// Whether two addresses are of the same transport, so that coming to one may be coming to the other.
fn are_alike(one: &Multiaddr, other: &Multiaddr) -> bool {
    let is_datagram =
        |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Udp(_)));
    is_datagram(one) == is_datagram(other)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Probed;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let shared = Arc::clone(&self.shared);
        Ok(Handler::new(peer, shared, Some(local), remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let mut handler = Handler::new(peer, Arc::clone(&self.shared), None, address);
        if let Some(wish) = self.trying.remove(&connection) {
            handler.open(Open::Say(wish));
        }
        Ok(handler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let address = match endpoint {
                    libp2p::core::ConnectedPoint::Dialer { address, .. } => address,
                    libp2p::core::ConnectedPoint::Listener { local_addr, .. } => local_addr,
                };
                if !is_relayed(address) {
                    self.connections.add(peer_id, connection_id);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.connections.remove(peer_id, connection_id);
                let over: Vec<u64> = self
                    .asked
                    .iter()
                    .filter(|(_, asked)| asked.connection == connection_id)
                    .map(|(nonce, _)| *nonce)
                    .collect();
                for nonce in over {
                    self.ended(nonce, Outcome::Unanswered);
                }
            }
            FromSwarm::DialFailure(DialFailure {
                connection_id,
                error,
                ..
            }) => {
                if let Some(wish) = self.trying.remove(&connection_id) {
                    let tried = match error {
                        DialError::Transport(_) | DialError::WrongPeerId { .. } => Tried::Failed,
                        // Our own doing.
                        _ => Tried::Not,
                    };
                    let _ = wish.done.send(tried);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Told::Ended { nonce, outcome } => self.ended(nonce, outcome),
            Told::Came {
                nonce,
                local,
                known,
            } => {
                let asked = self.asked.get_mut(&nonce);
                let asked = asked.filter(|asked| are_alike(&asked.address, &local));
                let is_known = asked.is_some();
                if let Some(asked) = asked {
                    asked.came = true;
                }
                let _ = known.send(is_known);
            }
            Told::Wish(wish) => self.try_for(wish),
            // It was made for this and nothing else.
            Told::Said => self.out.push_back(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Probed, THandlerInEvent<Self>>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Questions of ours under way; the engine has fewer.
const ASKED_MAX: usize = 16;
/// Addresses tried for others in a minute.
const DIALS_A_MINUTE: usize = 60;
/// The same for one peer.
const DIALS_A_MINUTE_PER_PEER: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);
/// What a dial to another host costs who wants it: more than a dial is worth to an attacker.
const PRICE_BYTES: std::ops::RangeInclusive<usize> = 30_000..=100_000;

#[cfg(test)]
mod tests;
