//! The part of the swarm that speaks gossipsub: does what the worker asks for, and tells it the news of its topics.
//!
//! Never waits: news that the worker has no room for are left, and their messages ignored. A connection carries
//! gossipsub if it leads over no relay and there is a place for the peer; the inner behaviour hears of no other. A
//! peer that says more than it may is not heard beyond that, and one whose messages were called invalid not at all.

use super::allowance::Allowance;
use super::gossip::{self, Gossip, IGNORED_BELOW, Ours};
use crate::negotiation::is_relayed;
use either::Either;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError, TopicHash};
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::{AddressChange, ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What the worker may ask for.
#[derive(Debug)]
pub(super) enum Act {
    /// Go on a topic.
    Enter(String),
    /// Leave it.
    Leave(String),
    /// Who of those connected is on it, some at most.
    Who {
        topic: String,
        reply: oneshot::Sender<Vec<PeerId>>,
    },
    /// Tell all who are on it; false if nobody was told.
    Publish {
        topic: String,
        data: Vec<u8>,
        reply: oneshot::Sender<bool>,
    },
    /// What a message is worth; each must be said once.
    Judge {
        id: MessageId,
        from: PeerId,
        verdict: MessageAcceptance,
    },
}

/// What happens on our topics.
#[derive(Debug)]
pub(super) enum News {
    /// A message that somebody signed; not passed on before it is judged.
    Message {
        id: MessageId,
        from: PeerId,
        topic: TopicHash,
        data: Vec<u8>,
    },
    /// A peer came on a topic.
    Joined { peer: PeerId, topic: TopicHash },
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) acts: mpsc::Sender<Act>,
    pub(super) news: mpsc::Receiver<News>,
}

/// Makes both ends.
pub(super) fn pair(keys: &Keypair) -> Result<(Behaviour, Wire), String> {
    let (acts, asked) = mpsc::channel(ACTS_MAX);
    let (told, news) = mpsc::channel(NEWS_MAX);
    let ours = Ours::default();
    let behaviour = Behaviour {
        gossip: Box::new(gossip::build(keys, &ours)?),
        ours,
        peers: HashMap::new(),
        without: HashSet::new(),
        asked,
        told,
    };
    Ok((behaviour, Wire { acts, news }))
}

/// Gossipsub, bounded.
pub(crate) struct Behaviour {
    /// It is large, and where it is off only this much smaller.
    gossip: Box<Gossip>,
    ours: Ours,
    /// Those with a connection that carries it.
    peers: HashMap<PeerId, Peer>,
    /// Those of them that do not speak it, and take no place.
    without: HashSet<PeerId>,
    asked: mpsc::Receiver<Act>,
    told: mpsc::Sender<News>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Behaviour")
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Peer {
    connections: Vec<ConnectionId>,
    may_say: Allowance,
    /// How many of its messages were called invalid.
    invalid: u32,
}

impl Behaviour {
    /// Whether a new connection to a peer is to carry it.
    fn has_place(&self, peer: PeerId, address: &Multiaddr) -> bool {
        let taken = self.peers.len().saturating_sub(self.without.len());
        !is_relayed(address) && (taken < PEERS_MAX || self.peers.contains_key(&peer))
    }

    fn add(&mut self, peer: PeerId, connection: ConnectionId) {
        let new = || Peer {
            connections: Vec::new(),
            may_say: Allowance::new(RPCS_AT_ONCE, RPC_EVERY, Instant::now()),
            invalid: 0,
        };
        let peer = self.peers.entry(peer).or_insert_with(new);
        peer.connections.push(connection);
    }

    /// How many other connections of the peer carry it, if this one does.
    fn others(&self, peer: &PeerId, connection: ConnectionId) -> Option<usize> {
        let all = &self.peers.get(peer)?.connections;
        all.contains(&connection).then(|| all.len() - 1)
    }

    fn remove(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.connections.retain(|other| *other != connection);
            if known.connections.is_empty() {
                self.peers.remove(&peer);
                self.without.remove(&peer);
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Enter(topic) => {
                let topic = IdentTopic::new(topic);
                self.ours.add(&topic);
                if let Err(error) = self.gossip.subscribe(&topic) {
                    tracing::debug!(%topic, %error, "not on the topic");
                }
            }
            Act::Leave(topic) => {
                let topic = IdentTopic::new(topic);
                self.ours.remove(&topic);
                self.gossip.unsubscribe(&topic);
            }
            Act::Who { topic, reply } => {
                let topic = TopicHash::from_raw(topic);
                let all = self.gossip.all_peers();
                let on_it = all.filter(|(_, topics)| topics.contains(&&topic));
                // Whoever asked may be gone.
                drop(reply.send(on_it.map(|(peer, _)| *peer).take(NAMED_MAX).collect()));
            }
            Act::Publish { topic, data, reply } => {
                let told = self.gossip.publish(TopicHash::from_raw(topic), data);
                if let Err(error) = &told
                    && !matches!(error, PublishError::NoPeersSubscribedToTopic)
                {
                    tracing::debug!(%error, "not published");
                }
                // Likewise.
                let _ = reply.send(told.is_ok());
            }
            Act::Judge { id, from, verdict } => self.judge(&id, &from, verdict),
        }
    }

    fn judge(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        if matches!(verdict, MessageAcceptance::Reject)
            && let Some(peer) = self.peers.get_mut(from)
        {
            peer.invalid = peer.invalid.saturating_add(1);
            let score = SCORE_PER_INVALID * f64::from(peer.invalid);
            self.gossip.set_application_score(from, score);
        }
        self.gossip
            .report_message_validation_result(id, from, verdict);
    }

    fn hear(&mut self, event: gossipsub::Event) {
        let news = match event {
            gossipsub::Event::Message {
                propagation_source: from,
                message_id: id,
                message,
            } => News::Message {
                id,
                from,
                topic: message.topic,
                data: message.data,
            },
            gossipsub::Event::Subscribed { peer_id, topic } if self.ours.has(&topic) => {
                News::Joined {
                    peer: peer_id,
                    topic,
                }
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                if self.peers.contains_key(&peer_id) {
                    self.without.insert(peer_id);
                }
                return;
            }
            _ => return,
        };
        if let Err(left) = self.told.try_send(news)
            && let News::Message { id, from, .. } = left.into_inner()
        {
            self.judge(&id, &from, MessageAcceptance::Ignore);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Either<THandler<Gossip>, dummy::ConnectionHandler>;
    /// None ever comes: the worker gets the news.
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.has_place(peer, local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let handler = self
            .gossip
            .handle_established_inbound_connection(connection, peer, local, remote)?;
        self.add(peer, connection);
        Ok(Either::Left(handler))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.has_place(peer, address) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let handler = self
            .gossip
            .handle_established_outbound_connection(connection, peer, address, role, port)?;
        self.add(peer, connection);
        Ok(Either::Left(handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                if let Some(others) = self.others(&new.peer_id, new.connection_id) {
                    let new = ConnectionEstablished {
                        other_established: others,
                        ..new
                    };
                    self.gossip
                        .on_swarm_event(FromSwarm::ConnectionEstablished(new));
                }
            }
            FromSwarm::ConnectionClosed(old) => {
                if let Some(others) = self.others(&old.peer_id, old.connection_id) {
                    self.remove(old.peer_id, old.connection_id);
                    let old = ConnectionClosed {
                        remaining_established: others,
                        ..old
                    };
                    self.gossip.on_swarm_event(FromSwarm::ConnectionClosed(old));
                }
            }
            FromSwarm::AddressChange(AddressChange {
                peer_id,
                connection_id,
                ..
            }) if self.others(&peer_id, connection_id).is_some() => {
                self.gossip.on_swarm_event(event);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            Either::Left(event) => event,
            Either::Right(never) => match never {},
        };
        let may_say = self.peers.get_mut(&peer).map(|known| &mut known.may_say);
        if may_say.is_some_and(|may_say| may_say.take(Instant::now())) {
            self.gossip
                .on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match self.gossip.poll(context) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    self.hear(event);
                    continue;
                }
                Poll::Ready(other) => return Poll::Ready(other.map_in(Either::Left)),
                Poll::Pending => {}
            }
            match self.asked.poll_recv(context) {
                Poll::Ready(Some(act)) => self.act(act),
                // Without the worker nobody is left to ask for anything.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What a message that was called invalid costs its sender: three, and nothing more is heard of it.
const SCORE_PER_INVALID: f64 = IGNORED_BELOW / 2.5;
/// Peers that may have a place, over all: up to a quarter of a MiB of topics each.
const PEERS_MAX: usize = 256;
/// What the worker may have asked for that is not done.
const ACTS_MAX: usize = 64;
/// News that may wait for the worker, up to 10 KiB each.
const NEWS_MAX: usize = 256;
/// Peers named as being on a topic.
const NAMED_MAX: usize = 64;
/// What a peer may say at once: one that enters as many topics as it may, one after the other, is heard.
const RPCS_AT_ONCE: u32 = 2048;
/// How long until it may say one more.
const RPC_EVERY: Duration = Duration::from_millis(50);
