//! The one task that owns the swarm.
//!
//! A turn of its loop takes one thing (a wish to stop, a command, something the swarm says, a timer)
//! and deals with it without waiting for anything. Commands come before news from the network:
//! local work first, new remote work last.
//!
//! Invariants: `connections` has exactly the established connections, bounded by the configured
//! limits; a peer is in `peers` while it has at least one. Every answer owed to a command is in
//! `dials`, `closing` or `lookups` until it is given; dropping it says "stopping".

use super::behaviour::{Behaviour, BehaviourEvent};
use super::book::{self, Book};
use super::bootstrap::Bootstrap;
use super::command::{Command, Find, Provide};
use super::failure::{failed, refused};
use super::lookups::{Company, Lookups, Use};
use super::{ConnectError, Connected, muxer};
use crate::config::Config;
use crate::event::Event;
use crate::metrics::{Ended, Foreign, Metrics, Query};
use crate::network::Network;
use crate::node::StartError;
use crate::routing::RoutingError;
use crate::routing::records::Records;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, QueryId, RecordKey};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, ping};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Answer = oneshot::Sender<Result<(), ConnectError>>;

/// The swarm and what is known about peers.
pub(super) struct Worker {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    network: Network,
    metrics: Metrics,
    foreign: Foreign,
    connections: HashMap<ConnectionId, Connection>,
    peers: HashMap<PeerId, Peer>,
    book: Book,
    dials: HashMap<ConnectionId, (PeerId, Answer)>,
    closing: HashMap<PeerId, Vec<Answer>>,
    lookups: Lookups,
    bootstrap: Bootstrap,
}

struct Connection {
    peer: PeerId,
    address: Multiaddr,
    outbound: bool,
    latency: Option<Duration>,
}

#[derive(Default)]
struct Peer {
    connections: usize,
    agent: Option<String>,
    protocols: Vec<String>,
}

/// One thing to deal with.
enum Turn {
    Stop,
    Command(Option<Command>),
    Swarm(Box<SwarmEvent<BehaviourEvent>>),
    Bootstrap,
}

impl Worker {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        inbox: mpsc::Receiver<Command>,
        events: broadcast::Sender<Event>,
        config: &Config,
        metrics: Metrics,
        foreign: Foreign,
    ) -> Self {
        Self {
            swarm,
            inbox,
            events,
            network: config.network,
            metrics,
            foreign,
            connections: HashMap::new(),
            peers: HashMap::new(),
            book: Book::new(config.network),
            dials: HashMap::new(),
            closing: HashMap::new(),
            lookups: Lookups::default(),
            bootstrap: Bootstrap::new(config),
        }
    }

    /// Opens the listeners and waits until each has an address.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), StartError> {
        let mut opening: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in addresses {
            let id = self
                .swarm
                .listen_on(address.clone())
                .map_err(|error| refused(address, &error))?;
            opening.insert(id, address.clone());
        }
        while !opening.is_empty() {
            let event = self.swarm.select_next_some().await;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    opening.remove(listener_id);
                }
                SwarmEvent::ListenerClosed {
                    listener_id,
                    reason: Err(error),
                    ..
                } => {
                    if let Some(address) = opening.remove(listener_id) {
                        return Err(refused(&address, error));
                    }
                }
                _ => {}
            }
            self.on_swarm(event);
        }
        Ok(())
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let turn = self.next_turn(&stop).await;
            let began = Instant::now();
            match turn {
                // Without commands nobody is left who could use the swarm.
                Turn::Stop | Turn::Command(None) => break,
                Turn::Command(Some(command)) => self.on_command(command),
                Turn::Swarm(event) => self.on_swarm(*event),
                Turn::Bootstrap => self.on_bootstrap(),
            }
            self.metrics.turned(began.elapsed());
        }
        self.say_goodbye().await;
    }

    async fn next_turn(&mut self, stop: &CancellationToken) -> Turn {
        let alone = self.connections.is_empty();
        tokio::select! {
            biased;
            () = stop.cancelled() => Turn::Stop,
            command = self.inbox.recv() => Turn::Command(command),
            () = self.bootstrap.due(), if alone => Turn::Bootstrap,
            event = self.swarm.select_next_some() => Turn::Swarm(Box::new(event)),
        }
    }

    /// Closes connections so that peers see an end, not a silence.
    async fn say_goodbye(mut self) {
        self.inbox.close();
        self.lookups.stop();
        self.dials.clear();
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while !self.connections.is_empty() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm(event);
            }
        };
        // Whoever does not answer by then finds out by itself.
        let _ = tokio::time::timeout(GOODBYE, closed).await;
    }

    // === what holders of a handle ask ===

    fn on_command(&mut self, command: Command) {
        // A caller that stopped waiting needs no answer, so failures to reply are nobody's.
        match command {
            Command::Connected(reply) => drop(reply.send(self.connected())),
            Command::Connect {
                peer,
                addresses,
                reply,
            } => self.connect(peer, addresses, reply),
            Command::Disconnect { peer, reply } => self.disconnect(peer, reply),
            Command::Listening(reply) => {
                drop(reply.send(self.swarm.listeners().cloned().collect()));
            }
            Command::Known(reply) => drop(reply.send(self.book.all())),
            Command::Find(find) => self.find(find),
            Command::Provide(provide) => self.provide(provide),
        }
    }

    fn connected(&self) -> Vec<Connected> {
        let mut rows: Vec<_> = self
            .connections
            .values()
            .map(|connection| {
                let peer = self.peers.get(&connection.peer);
                Connected {
                    peer: connection.peer,
                    address: connection.address.clone(),
                    outbound: connection.outbound,
                    latency: connection.latency,
                    agent: peer.and_then(|peer| peer.agent.clone()),
                    protocols: peer.map(|peer| peer.protocols.clone()).unwrap_or_default(),
                    muxer: muxer_of(&connection.address).to_owned(),
                }
            })
            .collect();
        rows.sort_unstable_by(|a, b| (a.peer, &a.address).cmp(&(b.peer, &b.address)));
        rows
    }

    fn connect(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: Answer) {
        if self.peers.contains_key(&peer) {
            drop(reply.send(Ok(())));
            return;
        }
        let addresses = if addresses.is_empty() {
            self.addresses_of(&peer)
        } else {
            addresses
        };
        if addresses.is_empty() {
            drop(reply.send(Err(ConnectError::NoAddress(peer))));
            return;
        }
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Disconnected)
            .addresses(addresses)
            .build();
        let id = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                self.dials.insert(id, (peer, reply));
            }
            Err(error) => {
                self.metrics.dials_failed.inc();
                drop(reply.send(Err(failed(peer, &error))));
            }
        }
    }

    fn disconnect(&mut self, peer: PeerId, reply: Answer) {
        if self.swarm.disconnect_peer_id(peer).is_ok() && self.peers.contains_key(&peer) {
            self.closing.entry(peer).or_default().push(reply);
        } else {
            drop(reply.send(Err(ConnectError::NotConnected(peer))));
        }
    }

    fn find(&mut self, find: Find) {
        let company = self.company();
        let key = RecordKey::from(find.cid.hash().to_bytes());
        let query = self.swarm.behaviour_mut().kad.get_providers(key);
        self.lookups.find(query, find, company);
    }

    fn provide(&mut self, provide: Provide) {
        let company = self.company();
        let key = RecordKey::from(provide.cid.hash().to_bytes());
        let query = self.swarm.behaviour_mut().kad.start_providing(key);
        match (query, company) {
            (Ok(query), Company::Peers) => self.lookups.provide(query, provide),
            // Noted here, for whoever asks us; but there is nobody to tell.
            (Ok(_), Company::Alone) => {
                self.metrics.query_ended(Query::Provide, Ended::Nobody);
                drop(provide.reply.send(Err(RoutingError::NoPeers)));
            }
            (Err(error), _) => {
                tracing::debug!(cid = %provide.cid, %error, "no provider record of our own");
                drop(provide.reply.send(Err(RoutingError::NotTaken(provide.cid))));
            }
        }
    }

    fn company(&mut self) -> Company {
        let table = self.swarm.behaviour_mut().kad.kbuckets().next();
        if table.is_some() {
            Company::Peers
        } else {
            Company::Alone
        }
    }

    /// Where a peer may be: what it told us, and what running lookups heard of it.
    fn addresses_of(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        if peer == self.swarm.local_peer_id() {
            return self.swarm.listeners().cloned().collect();
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        // What the swarm asks before a dial; it only reads.
        let heard = kad
            .handle_pending_outbound_connection(
                ConnectionId::new_unchecked(0),
                Some(*peer),
                &[],
                Endpoint::Dialer,
            )
            .unwrap_or_default();
        let noted = kad.store_mut().addresses(peer);
        let mut seen = HashSet::new();
        self.book
            .addresses(peer)
            .into_iter()
            .chain(noted)
            .chain(heard)
            .filter_map(|address| book::clean(*peer, &address))
            .filter(|address| self.network.allows(address) && seen.insert(address.clone()))
            .take(book::ADDRESSES_PER_PEER_MAX)
            .collect()
    }

    // === what the swarm says ===

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.foreign.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_established(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.metrics.dials_failed.inc();
                tracing::debug!(peer = ?peer_id, %error, "dial failed");
                if let Some((peer, reply)) = self.dials.remove(&connection_id) {
                    drop(reply.send(Err(failed(peer, &error))));
                }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                self.metrics.arrivals_failed.inc();
                tracing::debug!(%error, "arrival failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                if self.network.announces(&address) {
                    self.swarm.add_external_address(address.clone());
                }
                self.tell(Event::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.swarm.remove_external_address(&address);
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                for address in &addresses {
                    self.swarm.remove_external_address(address);
                }
                if let Err(error) = reason {
                    tracing::error!(?addresses, %error, "a listener is gone");
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                // As when file descriptors run out; the listener tries again by itself.
                tracing::warn!(%error, "cannot accept a connection");
            }
            SwarmEvent::NewExternalAddrOfPeer { peer_id, address } => {
                self.book.learn(peer_id, &address);
            }
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let outbound = endpoint.is_dialer();
        let remote = endpoint.get_remote_address();
        let address = book::clean(peer, remote).unwrap_or_else(|| remote.clone());
        if outbound {
            // Where it took a call; where it calls from says little.
            self.book.learn(peer, &address);
        }
        self.gauge(outbound).inc();
        self.connections.insert(
            id,
            Connection {
                peer,
                address,
                outbound,
                latency: None,
            },
        );
        let entry = self.peers.entry(peer).or_default();
        entry.connections += 1;
        let first = entry.connections == 1;
        let others: Vec<_> = self
            .dials
            .iter()
            .filter(|(_, (dialled, _))| *dialled == peer)
            .map(|(id, _)| *id)
            .collect();
        for id in others {
            if let Some((_, reply)) = self.dials.remove(&id) {
                drop(reply.send(Ok(())));
            }
        }
        if first {
            self.metrics.peers.inc();
            self.bootstrap.connected();
            self.tell(Event::Connected(peer));
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.gauge(connection.outbound).dec();
        }
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections > 0 {
            return;
        }
        self.peers.remove(&peer);
        self.metrics.peers.dec();
        for reply in self.closing.remove(&peer).unwrap_or_default() {
            drop(reply.send(Ok(())));
        }
        if self.peers.is_empty() {
            self.bootstrap.disconnected();
        }
        self.tell(Event::Disconnected(peer));
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Ping(event) => {
                self.foreign.record(&event);
                self.on_ping(&event);
            }
            BehaviourEvent::Kad(event) => {
                self.foreign.record(&event);
                self.on_kad(event);
            }
            // The limits and Bitswap have nothing to say; the rest of identify is about us.
            _ => {}
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        if let (Some(connection), Ok(round_trip)) =
            (self.connections.get_mut(&event.connection), &event.result)
        {
            connection.latency = Some(*round_trip);
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let first = entry.agent.is_none();
        entry.agent = Some(info.agent_version.chars().take(AGENT_CHARS_MAX).collect());
        entry.protocols = info
            .protocols
            .iter()
            .take(PROTOCOLS_PER_PEER_MAX)
            .map(ToString::to_string)
            .collect();
        entry.protocols.sort_unstable();
        let kademlia = self.network.kademlia();
        let serves = info.protocols.contains(&kademlia);
        for address in info
            .listen_addrs
            .iter()
            .take(book::ADDRESSES_PER_PEER_MAX)
            .filter_map(|address| book::clean(peer, address))
            .filter(|address| self.network.allows(address))
        {
            self.book.learn(peer, &address);
            // What we tell others must mean the same to them.
            if serves && self.network.announces(&address) {
                self.swarm.behaviour_mut().kad.add_address(&peer, address);
            }
        }
        if !serves {
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
        }
        if first {
            self.tell(Event::Identified(peer));
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            } => self.on_query(id, result, stats.num_successes(), step.last),
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::AddProvider {
                        record: Some(record),
                    },
            } => {
                // The library made sure that the sender speaks for itself only.
                let records = self.swarm.behaviour_mut().kad.store_mut();
                if Records::is_key(&record.key)
                    && let Err(error) = records.add_provider(record)
                {
                    tracing::debug!(%error, "a provider record was not kept");
                }
                let held = records.held();
                self.metrics
                    .records
                    .set(i64::try_from(held).unwrap_or(i64::MAX));
            }
            kad::Event::RoutingUpdated {
                is_new_peer: true, ..
            } => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                let in_table: usize = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
                // The first peer knows others; later ones are looked through in time.
                if in_table == 1 {
                    // It cannot fail: there is one.
                    let _ = kad.bootstrap();
                }
            }
            _ => {}
        }
    }

    fn on_query(&mut self, id: QueryId, result: kad::QueryResult, successes: u32, last: bool) {
        match result {
            kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders {
                providers,
                ..
            })) => self.on_found(id, providers),
            kad::QueryResult::GetProviders(finished) => {
                let ended = match finished {
                    Ok(_) => Ended::Done,
                    Err(kad::GetProvidersError::Timeout { .. }) => Ended::TooSlow,
                };
                if let Some(ended) = self.lookups.find_ended(id, ended) {
                    self.metrics.query_ended(Query::Find, ended);
                }
            }
            kad::QueryResult::StartProviding(finished) => {
                let ended = match finished {
                    Ok(_) if successes == 0 => Ended::Nobody,
                    Ok(_) => Ended::Done,
                    Err(kad::AddProviderError::Timeout { .. }) => Ended::TooSlow,
                };
                self.metrics.query_ended(Query::Provide, ended);
                if let Some(cid) = self.lookups.provide_ended(id, ended) {
                    self.tell(Event::Provided(cid));
                }
            }
            kad::QueryResult::Bootstrap(finished) if last => {
                let ended = finished.map_or(Ended::TooSlow, |_| Ended::Done);
                self.metrics.query_ended(Query::Refresh, ended);
            }
            _ => {}
        }
    }

    fn on_found(&mut self, id: QueryId, providers: HashSet<PeerId>) {
        let located: HashMap<PeerId, Vec<Multiaddr>> = providers
            .into_iter()
            .take(PROVIDERS_PER_ANSWER_MAX)
            .map(|peer| (peer, self.addresses_of(&peer)))
            .collect();
        let peers: Vec<PeerId> = located.keys().copied().collect();
        let still = self.lookups.found(id, peers, |peer| {
            located.get(peer).cloned().unwrap_or_default()
        });
        if still == Use::Unwanted
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id)
        {
            query.finish();
        }
    }

    // === the peers to begin with ===

    fn on_bootstrap(&mut self) {
        for (peer, addresses) in self.bootstrap.begin() {
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%peer, %error, "bootstrap peer not dialled");
            }
        }
    }

    fn gauge(&self, outbound: bool) -> &prometheus::IntGauge {
        if outbound {
            &self.metrics.connections_out
        } else {
            &self.metrics.connections_in
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

fn muxer_of(address: &Multiaddr) -> &'static str {
    if address.iter().any(|part| part == Protocol::QuicV1) {
        "quic"
    } else {
        muxer::PROTOCOL
    }
}

/// How long peers get to hear that we leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// Characters kept of what a peer calls itself.
const AGENT_CHARS_MAX: usize = 128;

/// Protocols kept of those a peer says it speaks.
const PROTOCOLS_PER_PEER_MAX: usize = 64;

/// Providers taken from one answer.
const PROVIDERS_PER_ANSWER_MAX: usize = 256;
