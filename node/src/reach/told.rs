//! Which of our addresses peers hear of: libp2p's identify, told only what it may tell.
//!
//! Where we listen, where peers have reached us and where relays stand in for us, without loopback in `public`, nor in `lan` where
//! there is anything else, and without what the operator keeps back; or, if the operator says what to tell, just that. A change is pushed
//! to connected peers.

use super::settings::{AddressRule, Settings};
use crate::negotiation::is_relayed;
use crate::network::{self, Network};
use libp2p::core::Endpoint;
use libp2p::core::transport::{ListenerId, PortUse};
use libp2p::identify;
use libp2p::swarm::behaviour::{
    ExpiredListenAddr, ExternalAddrConfirmed, ExternalAddrExpired, NewListenAddr,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeSet;
use std::task::{Context, Poll};

/// Identify, and what it tells of our addresses.
pub(crate) struct Told {
    inner: identify::Behaviour,
    network: Network,
    announce: BTreeSet<Multiaddr>,
    no_announce: Vec<AddressRule>,
    listening: BTreeSet<Multiaddr>,
    confirmed: BTreeSet<Multiaddr>,
    told: BTreeSet<Multiaddr>,
    /// To identify, all that it tells comes from one listener.
    listener: ListenerId,
}

impl Told {
    pub(crate) fn new(inner: identify::Behaviour, network: Network, settings: &Settings) -> Self {
        let mut told = Self {
            inner,
            network,
            announce: settings.announce.iter().cloned().collect(),
            no_announce: settings.no_announce.clone(),
            listening: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            told: BTreeSet::new(),
            listener: ListenerId::next(),
        };
        told.refresh();
        told
    }

    /// What peers hear.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Multiaddr> {
        self.told.iter()
    }

    fn wanted(&self) -> BTreeSet<Multiaddr> {
        if !self.announce.is_empty() {
            return self.announce.clone();
        }
        let all = self.listening.union(&self.confirmed);
        let mut wanted: BTreeSet<Multiaddr> = all
            .filter(|address| self.may_tell(address))
            .cloned()
            .collect();
        // Who is elsewhere would dial itself there; who is here finds us at the others as well.
        if self.network == Network::Lan && !wanted.iter().all(is_loopback) {
            wanted.retain(|address| !is_loopback(address));
        }
        wanted
    }

    fn may_tell(&self, address: &Multiaddr) -> bool {
        let is_elsewhere = self.network == Network::Public && is_loopback(address);
        !is_elsewhere && !self.no_announce.iter().any(|rule| rule.matches(address))
    }

    fn refresh(&mut self) {
        let wanted = self.wanted();
        let listener_id = self.listener;
        for addr in self.told.difference(&wanted) {
            self.inner
                .on_swarm_event(FromSwarm::ExpiredListenAddr(ExpiredListenAddr {
                    listener_id,
                    addr,
                }));
        }
        for addr in wanted.difference(&self.told) {
            self.inner
                .on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
                    listener_id,
                    addr,
                }));
        }
        self.told = wanted;
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    !is_relayed(address) && network::host(address).is_some_and(|ip| ip.is_loopback())
}

impl NetworkBehaviour for Told {
    type ConnectionHandler = <identify::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(NewListenAddr { addr, .. }) => {
                self.listening.insert(addr.clone());
            }
            FromSwarm::ExpiredListenAddr(ExpiredListenAddr { addr, .. }) => {
                self.listening.remove(addr);
            }
            FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr }) => {
                self.confirmed.insert(addr.clone());
            }
            FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }) => {
                self.confirmed.remove(addr);
            }
            other => return self.inner.on_swarm_event(other),
        }
        self.refresh();
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    fn told(network: Network, settings: &Settings) -> Told {
        let key = Keypair::generate_ed25519().public();
        let config = identify::Config::new("test".to_owned(), key);
        let mut told = Told::new(identify::Behaviour::new(config), network, settings);
        let listener_id = ListenerId::next();
        for text in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"] {
            let addr = &text.parse().unwrap();
            told.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
                listener_id,
                addr,
            }));
        }
        let addr = &"/ip4/192.0.2.1/tcp/1".parse().unwrap();
        told.on_swarm_event(FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed {
            addr,
        }));
        told
    }

    fn texts(told: &Told) -> Vec<String> {
        told.told().map(ToString::to_string).collect()
    }

    #[test]
    fn peers_hear_where_we_listen_and_were_reached_but_not_of_loopback() {
        let told = told(Network::Public, &Settings::default());
        assert_eq!(
            texts(&told),
            ["/ip4/10.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1"]
        );
    }

    #[test]
    fn in_a_lan_loopback_is_told_only_where_there_is_nothing_else() {
        let mut told = told(Network::Lan, &Settings::default());
        let listener_id = ListenerId::next();
        for text in ["/ip4/10.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1"] {
            assert!(texts(&told).contains(&text.to_owned()), "{text}");
            assert_eq!(
                told.told().filter(|address| is_loopback(address)).count(),
                0
            );
            let addr = &text.parse().unwrap();
            told.on_swarm_event(FromSwarm::ExpiredListenAddr(ExpiredListenAddr {
                listener_id,
                addr,
            }));
            told.on_swarm_event(FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }));
        }
        assert_eq!(texts(&told), ["/ip4/127.0.0.1/tcp/1"]);
    }

    #[test]
    fn loopback_is_told_where_it_is_the_network() {
        let told = told(Network::Local, &Settings::default());
        assert!(texts(&told).contains(&"/ip4/127.0.0.1/tcp/1".to_owned()));
    }

    #[test]
    fn the_operator_keeps_addresses_back() {
        let no_announce = vec!["10.0.0.0/8".parse().unwrap()];
        let settings = Settings {
            no_announce,
            ..Settings::default()
        };
        let told = told(Network::Public, &settings);
        assert_eq!(texts(&told), ["/ip4/192.0.2.1/tcp/1"]);
    }

    #[test]
    fn what_the_operator_says_to_tell_is_all_that_is_told() {
        let settings = Settings {
            announce: vec!["/dns4/example.com/tcp/4001".parse().unwrap()],
            ..Settings::default()
        };
        let told = told(Network::Public, &settings);
        assert_eq!(texts(&told), ["/dns4/example.com/tcp/4001"]);
    }

    #[test]
    fn what_is_withdrawn_is_told_no_more() {
        let mut told = told(Network::Public, &Settings::default());
        let addr = &"/ip4/192.0.2.1/tcp/1".parse().unwrap();
        told.on_swarm_event(FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }));
        assert_eq!(texts(&told), ["/ip4/10.0.0.1/tcp/1"]);
    }
}
