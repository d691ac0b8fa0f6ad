//! What the worker makes of the swarm's news: connections, identities, DHT answers.

use super::{Connection, Direction, Worker};
use crate::event::Event;
use crate::metrics::{Ended, Query};
use crate::routing::records::Records;
use crate::swarm::behaviour::BehaviourEvent;
use crate::swarm::book;
use crate::swarm::failure::failed;
use crate::swarm::lookups::Use;
use libp2p::core::ConnectedPoint;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, QueryId};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, ping};
use std::collections::{HashMap, HashSet};

impl Worker {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
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
                let dial = self.dials.remove(&connection_id);
                if let Some((peer, reply)) = dial.or_else(|| self.ways.remove(&connection_id)) {
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
        let direction = if endpoint.is_dialer() {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        let remote = endpoint.get_remote_address();
        let address = book::clean(peer, remote).unwrap_or_else(|| remote.clone());
        if direction == Direction::Outbound {
            // Where it took a call; where it calls from says little.
            self.book.learn(peer, &address);
        }
        self.gauge(direction).inc();
        self.connections.insert(
            id,
            Connection {
                peer,
                address,
                direction,
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
        if let Some((_, reply)) = self.ways.remove(&id) {
            drop(reply.send(Ok(())));
        }
        if first {
            self.metrics.peers.inc();
            self.bootstrap.connected();
            self.tell(Event::Connected(peer));
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.gauge(connection.direction).dec();
        }
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections > 0 {
            return;
        }
        self.peers.remove(&peer);
        self.unpark();
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
                self.is_met(&peer_id);
            }
            BehaviourEvent::Identify(identify::Event::Error { peer_id, .. }) => {
                self.is_met(&peer_id);
            }
            BehaviourEvent::Ping(event) => {
                self.foreign.record(&event);
                self.on_ping(&event);
            }
            BehaviourEvent::Kad(event) => {
                self.foreign.record(&event);
                self.on_kad(event);
            }
            // The limits, Bitswap and the measuring have nothing to say; the rest of identify is about us.
            _ => {}
        }
    }

    fn is_met(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.is_met = true;
        }
        self.unpark();
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
        let kademlia = self.network.kademlia();
        let serves = info.protocols.contains(&kademlia);
        let news = entry.agent.is_none() || (serves && !entry.serves);
        entry.serves = serves;
        entry.agent = Some(info.agent_version.chars().take(AGENT_CHARS_MAX).collect());
        entry.protocols = info
            .protocols
            .iter()
            .take(PROTOCOLS_PER_PEER_MAX)
            .map(ToString::to_string)
            .collect();
        entry.protocols.sort_unstable();
        let addresses: Vec<Multiaddr> = info
            .listen_addrs
            .iter()
            .take(book::ADDRESSES_PER_PEER_MAX)
            .filter_map(|address| book::clean(peer, address))
            .filter(|address| self.network.allows(address))
            .collect();
        for address in &addresses {
            self.book.learn(peer, address);
        }
        if serves {
            self.route_through(peer, addresses);
        } else {
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
        }
        if news {
            self.tell(Event::Identified(peer));
        }
    }

    /// Puts a DHT server into the routing table with what it says now. What it said before goes,
    /// or a peer that keeps changing its mind would make its entry grow for ever.
    fn route_through(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        // What we tell others must mean the same to them.
        addresses.retain(|address| self.network.announces(address));
        let kad = &mut self.swarm.behaviour_mut().kad;
        let before: Vec<Multiaddr> = kad
            .kbucket(peer)
            .iter()
            .flat_map(|bucket| bucket.iter())
            .filter(|entry| *entry.node.key.preimage() == peer)
            .flat_map(|entry| entry.node.value.iter().cloned())
            .filter_map(|address| book::clean(peer, &address))
            .collect();
        for address in &addresses {
            kad.add_address(&peer, address.clone());
        }
        for gone in before.iter().filter(|old| !addresses.contains(old)) {
            kad.remove_address(&peer, gone);
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
        if still == Use::Unwanted {
            self.metrics.query_ended(Query::Find, Ended::Done);
        }
        if still == Use::Unwanted
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id)
        {
            query.finish();
        }
    }
}

/// Characters kept of what a peer calls itself.
const AGENT_CHARS_MAX: usize = 128;

/// Protocols kept of those a peer says it speaks.
const PROTOCOLS_PER_PEER_MAX: usize = 64;

/// Providers taken from one answer.
const PROVIDERS_PER_ANSWER_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::metrics::{Foreign, Metrics};
    use crate::swarm::behaviour::Behaviour;
    use crate::swarm::meter::Meter;
    use crate::swarm::{Ceiling, settings, transport};
    use crate::tasks::Tasks;
    use libp2p::identity::Keypair;
    use libp2p::swarm::Swarm;
    use std::sync::Arc;
    use std::time::Instant;
    use tokio::sync::mpsc;

    /// A worker that does not run.
    fn worker() -> Worker {
        let (config, keys) = (Config::default(), Keypair::generate_ed25519());
        let meter = Meter::new(Instant::now());
        let transport = transport::build(&keys, &config, &meter, &Arc::default()).unwrap();
        let (bitswap, _wire) = crate::bitswap::behaviour();
        let (perf, _wire) = crate::perf::pair(config.perf());
        let ceiling = Arc::new(Ceiling::new(config.limits.memory));
        let swarm = Swarm::new(
            transport,
            Behaviour::new(keys.public(), &config, ceiling, bitswap, perf),
            keys.public().to_peer_id(),
            settings(&config, &Tasks::new()),
        );
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (_, inbox) = mpsc::channel(1);
        let events = crate::event::channel();
        Worker::new(swarm, inbox, events, &config, metrics, Foreign::new())
    }

    fn in_table(worker: &mut Worker, peer: PeerId) -> Vec<Multiaddr> {
        let kad = &mut worker.swarm.behaviour_mut().kad;
        kad.kbucket(peer)
            .iter()
            .flat_map(|bucket| bucket.iter())
            .flat_map(|entry| entry.node.value.iter().cloned())
            .map(|address| book::clean(peer, &address).unwrap())
            .collect()
    }

    fn local(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[tokio::test]
    async fn what_a_peer_said_before_leaves_the_table_when_it_says_something_else() {
        let (mut worker, peer) = (worker(), PeerId::random());
        for port in 1..=100 {
            worker.route_through(peer, vec![local(port), local(port + 1)]);
        }
        let mut known = in_table(&mut worker, peer);
        known.sort_unstable();
        assert_eq!(known, [local(100), local(101)]);
    }

    #[tokio::test]
    async fn addresses_outside_the_network_never_reach_the_table() {
        let (mut worker, peer) = (worker(), PeerId::random());
        let outside = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        worker.route_through(peer, vec![outside]);
        assert!(in_table(&mut worker, peer).is_empty());
    }
}
