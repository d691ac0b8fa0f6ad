//! Nodes on loopback: the swarm part alone, started as `Node::start` does, without a store.
//!
//! Nothing here waits for time to pass, only for events; [`WATCHDOG`] turns a test that would wait
//! for ever into one that fails.

mod dht;
mod hostile;
mod keeping;
mod routers;
mod strangers;

use super::*;
use crate::event;
use crate::routing::{Provider, RoutingError};
use cairn_store::Cid;
use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{SwarmBuilder, identify, noise, ping, tcp, tls, yamux};
use libp2p_stream::IncomingStreams;
use std::collections::HashSet;
use std::future::Future;
use tokio::io::DuplexStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

const WATCHDOG: Duration = Duration::from_secs(60);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const WEB: &str = "/ip4/127.0.0.1/tcp/0/ws";

pub(in crate::swarm) type Pipe = Compat<DuplexStream>;

/// Both ends of a connection without a network.
pub(in crate::swarm) fn pipe() -> (Pipe, Pipe) {
    let (left, right) = tokio::io::duplex(64 << 10);
    (left.compat(), right.compat())
}

struct TestNode {
    peers: Peers,
    routing: Routing,
    tasks: Tasks,
    events: broadcast::Receiver<Event>,
    registry: prometheus::Registry,
    foreign: Arc<prometheus_client::registry::Registry>,
}

fn config(listen: &[&str]) -> Config {
    Config {
        listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
        ..Config::default()
    }
}

impl TestNode {
    async fn start(listen: &[&str]) -> Self {
        Self::with(&Keypair::generate_ed25519(), config(listen))
            .await
            .unwrap()
    }

    async fn with(keys: &Keypair, config: Config) -> Result<Self, StartError> {
        let (tasks, sender) = (Tasks::new(), event::channel());
        let events = sender.subscribe();
        let registry = prometheus::Registry::new();
        let online = start(keys, &config, &tasks, &sender, &registry).await?;
        Ok(Self {
            peers: online.peers,
            routing: online.routing,
            foreign: online.foreign,
            tasks,
            events,
            registry,
        })
    }

    fn id(&self) -> PeerId {
        self.peers.local()
    }

    /// Every address, with our name at the end.
    async fn addresses(&self) -> Vec<Multiaddr> {
        let listening = self.peers.listening().await;
        let named = |address: Multiaddr| address.with(Protocol::P2p(self.id()));
        listening.into_iter().map(named).collect()
    }

    async fn address(&self) -> Multiaddr {
        self.addresses().await.remove(0)
    }

    async fn until(&mut self, what: impl Fn(&Event) -> bool) {
        let seen = async {
            loop {
                match self.events.recv().await {
                    Ok(event) if what(&event) => return,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => panic!("the node ended"),
                }
            }
        };
        timeout(WATCHDOG, seen).await.expect("an event in time");
    }

    /// Connects and waits until it is known who that is.
    async fn meet(&mut self, address: Multiaddr) -> PeerId {
        let peer = self.peers.connect(address).await.unwrap();
        self.until(|event| matches!(event, Event::Identified(who) if *who == peer))
            .await;
        peer
    }

    /// Connects and waits until both can look things up through one another.
    async fn join(&mut self, other: &mut Self) {
        let us = self.id();
        self.meet(other.address().await).await;
        other
            .until(|event| matches!(event, Event::Identified(peer) if *peer == us))
            .await;
    }

    async fn find(&self, cid: Cid) -> Vec<Result<Provider, RoutingError>> {
        let found = self.routing.find_providers(cid, 20).collect();
        timeout(WATCHDOG, found).await.expect("an end in time")
    }

    /// Looks until `provider` is found: a record is on its way when it counts as told.
    async fn find_one(&self, cid: Cid, provider: PeerId) -> Provider {
        let look = async {
            loop {
                for found in self.find(cid).await.into_iter().flatten() {
                    if found.peer == provider {
                        return found;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(WATCHDOG, look).await.expect("a provider in time")
    }

    async fn stop(self) {
        assert!(self.tasks.stop(WATCHDOG).await);
        assert_eq!(self.tasks.panics(), 0);
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let sum = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        family.unwrap().get_metric().iter().map(sum).sum()
    }

    /// Those of a family of which some label is this.
    fn labelled(&self, name: &str, value: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let has = |metric: &&prometheus::proto::Metric| {
            metric
                .get_label()
                .iter()
                .any(|label| label.value() == value)
        };
        let of = |metric: &prometheus::proto::Metric| metric.get_counter().get_value();
        family
            .unwrap()
            .get_metric()
            .iter()
            .filter(has)
            .map(of)
            .sum()
    }
}

fn cid(byte: u8) -> Cid {
    let digest = cairn_store::cid::Multihash::wrap(0x12, &[byte; 32]).unwrap();
    Cid::new_v1(cairn_store::cid::RAW, digest)
}

async fn both_know_each_other_over(listen: &str, muxer: &str) {
    let mut listener = TestNode::start(&[listen]).await;
    let mut dialer = TestNode::start(&[]).await;
    dialer.join(&mut listener).await;
    let [out] = &dialer.peers.connected().await[..] else {
        panic!("one connection");
    };
    assert_eq!((out.peer, out.outbound), (listener.id(), true));
    assert_eq!(out.address, listener.peers.listening().await[0]);
    assert_eq!(out.agent.as_deref(), Some(Peers::agent()));
    assert_eq!(out.muxer, muxer);
    let spoken = listener.peers.protocols();
    assert!(spoken.contains(&"/ipfs/lan/kad/1.0.0".to_owned()));
    let without_bitswap = |name: &&String| !name.starts_with("/ipfs/bitswap");
    assert_eq!(
        out.protocols
            .iter()
            .filter(without_bitswap)
            .collect::<Vec<_>>(),
        spoken.iter().filter(without_bitswap).collect::<Vec<_>>()
    );
    let [arrived] = &listener.peers.connected().await[..] else {
        panic!("one connection");
    };
    assert_eq!((arrived.peer, arrived.outbound), (dialer.id(), false));
    let traffic = dialer.peers.bandwidth();
    assert!(traffic.total_in > 0 && traffic.total_out > 0);
    assert_eq!(listener.metric("cairn_peers"), 1.0);
    assert_eq!(listener.metric("cairn_connections"), 1.0);
    assert!(dialer.metric("cairn_bandwidth_bytes_total") > 0.0);
    dialer.stop().await;
    listener.stop().await;
}

#[tokio::test]
async fn two_nodes_connect_over_tcp() {
    both_know_each_other_over(TCP, "/yamux/1.0.0").await;
}

#[tokio::test]
async fn two_nodes_connect_over_quic() {
    both_know_each_other_over(QUIC, "quic").await;
}

#[tokio::test]
async fn two_nodes_connect_over_a_web_socket() {
    both_know_each_other_over(WEB, "/yamux/1.0.0").await;
}

#[tokio::test]
async fn a_peer_reached_by_several_addresses_is_reached_by_tcp() {
    let listener = TestNode::start(&[QUIC, TCP]).await;
    let dialer = TestNode::start(&[]).await;
    let all = listener.peers.listening().await;
    assert_eq!(all.len(), 2);
    dialer.peers.dial(listener.id(), all).await.unwrap();
    let connected = dialer.peers.connected().await;
    assert_eq!(connected[0].muxer, "/yamux/1.0.0");
}

#[derive(NetworkBehaviour)]
struct Plain {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

impl Plain {
    fn new(keys: &Keypair) -> Self {
        let identify = identify::Config::new("test/1".to_owned(), keys.public());
        Self {
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
        }
    }
}

/// Runs a swarm of libp2p's own making and answers with its address.
async fn run_plain(mut swarm: Swarm<Plain>, tasks: &Tasks) -> Multiaddr {
    swarm.listen_on(TCP.parse().unwrap()).unwrap();
    let peer = *swarm.local_peer_id();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let stop = tasks.stopping();
    tasks.spawn("plain", async move {
        let drive = async {
            loop {
                swarm.select_next_some().await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(drive).await;
    });
    address.with(Protocol::P2p(peer))
}

fn noise_only() -> Swarm<Plain> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(Plain::new)
        .unwrap()
        .build()
}

fn tls_only() -> Swarm<Plain> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            tls::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(Plain::new)
        .unwrap()
        .build()
}

/// Calls a node and speaks nothing but by hand. Gives the streams on which it is asked who it is.
async fn call_by_hand(node: &TestNode, keys: &Keypair, tasks: &Tasks) -> IncomingStreams {
    let mut swarm = SwarmBuilder::with_existing_identity(keys.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(WATCHDOG))
        .build();
    let mut control = swarm.behaviour().new_control();
    let questions = control.accept(identify::PROTOCOL_NAME).unwrap();
    swarm.dial(node.address().await).unwrap();
    tasks.spawn("by hand", async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    questions
}

async fn is_understood_both_ways(make: fn() -> Swarm<Plain>) {
    let mut node = TestNode::start(&[TCP]).await;
    let tasks = Tasks::new();
    let called = run_plain(make(), &tasks).await;
    node.meet(called).await;
    let mut caller = make();
    let peer = *caller.local_peer_id();
    caller.dial(node.address().await).unwrap();
    run_plain(caller, &tasks).await;
    node.until(|event| matches!(event, Event::Identified(who) if *who == peer))
        .await;
    assert!(tasks.stop(WATCHDOG).await);
    node.stop().await;
}

#[tokio::test]
async fn a_peer_that_knows_only_noise_is_understood() {
    is_understood_both_ways(noise_only).await;
}

#[tokio::test]
async fn a_peer_that_knows_only_tls_is_understood() {
    is_understood_both_ways(tls_only).await;
}

#[tokio::test]
async fn a_provider_is_found_through_the_only_common_contact() {
    let mut contact = TestNode::start(&[TCP]).await;
    let mut provider = TestNode::start(&[TCP]).await;
    let mut seeker = TestNode::start(&[TCP]).await;
    provider.join(&mut contact).await;
    provider.routing.provide(cid(1)).await.unwrap();
    provider
        .until(|event| matches!(event, Event::Provided(what) if *what == cid(1)))
        .await;
    seeker.join(&mut contact).await;
    let found = seeker.find_one(cid(1), provider.id()).await;
    assert_eq!(found.addresses, provider.peers.listening().await);
    // The same bytes under another name are the same record.
    let renamed = Cid::new_v1(cairn_store::cid::DAG_PB, *cid(1).hash());
    seeker.find_one(renamed, provider.id()).await;
    seeker
        .peers
        .dial(found.peer, found.addresses)
        .await
        .unwrap();
    assert_eq!(contact.metric("cairn_dht_records"), 1.0);
    assert!(seeker.metric("cairn_dht_queries_total") >= 1.0);
    for node in [seeker, provider, contact] {
        node.stop().await;
    }
}

#[tokio::test]
async fn of_five_nodes_each_finds_what_each_other_provides() {
    let mut nodes = Vec::new();
    for _ in 0..5 {
        nodes.push(TestNode::start(&[TCP]).await);
    }
    let (hub, spokes) = nodes.split_first_mut().unwrap();
    for spoke in spokes.iter_mut() {
        spoke.join(hub).await;
    }
    for (at, node) in (0..).zip(&nodes) {
        node.routing.provide(cid(at)).await.unwrap();
    }
    for seeker in &nodes {
        for (at, provider) in (0..).zip(&nodes) {
            let found = seeker.find_one(cid(at), provider.id()).await;
            assert_eq!(found.addresses, provider.peers.listening().await);
        }
    }
    let nobody = nodes[1].find(cid(99)).await;
    assert!(nobody.is_empty(), "{nobody:?}");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_lookup_ends_at_its_limit() {
    let mut hub = TestNode::start(&[TCP]).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut node = TestNode::start(&[TCP]).await;
        node.join(&mut hub).await;
        node.routing.provide(cid(1)).await.unwrap();
        hub.find_one(cid(1), node.id()).await;
        others.push(node);
    }
    let all: HashSet<_> = hub.find(cid(1)).await.into_iter().flatten().collect_ids();
    assert_eq!(all.len(), 3);
    let two: Vec<_> = hub.routing.find_providers(cid(1), 2).collect().await;
    assert_eq!(two.len(), 2);
    let none: Vec<_> = hub.routing.find_providers(cid(1), 0).collect().await;
    assert_eq!(none.len(), 0);
}

trait CollectIds {
    fn collect_ids(self) -> HashSet<PeerId>;
}

impl<I: Iterator<Item = Provider>> CollectIds for I {
    fn collect_ids(self) -> HashSet<PeerId> {
        self.map(|provider| provider.peer).collect()
    }
}

#[tokio::test]
async fn who_has_just_connected_may_be_asked_and_told_at_once() {
    let contact = TestNode::start(&[TCP]).await;
    let address = contact.address().await;
    let [provider, seeker] = [TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await];
    // Nobody waits for what the other speaks.
    provider.peers.connect(address.clone()).await.unwrap();
    provider.routing.provide(cid(1)).await.unwrap();
    seeker.peers.connect(address).await.unwrap();
    let found = seeker.find(cid(2)).await;
    assert!(found.is_empty(), "{found:?}");
    for node in [seeker, provider, contact] {
        node.stop().await;
    }
}

#[tokio::test]
async fn alone_there_is_nobody_to_ask_or_tell() {
    let node = TestNode::start(&[TCP]).await;
    let told = node.routing.provide(cid(1)).await;
    assert!(matches!(told, Err(RoutingError::NoPeers)), "{told:?}");
    let found = node.find(cid(2)).await;
    assert!(
        matches!(found[..], [Err(RoutingError::NoPeers)]),
        "{found:?}"
    );
    let own = node.find(cid(1)).await;
    assert!(
        matches!(&own[..], [Ok(provider)] if provider.peer == node.id()),
        "{own:?}"
    );
}

#[tokio::test]
async fn a_closed_connection_is_gone_on_both_sides() {
    let mut listener = TestNode::start(&[TCP]).await;
    let mut dialer = TestNode::start(&[]).await;
    dialer.join(&mut listener).await;
    let address = listener.address().await;
    let (us, them) = (dialer.id(), listener.id());
    assert_eq!(
        dialer.peers.disconnect(address.clone()).await.unwrap(),
        them
    );
    assert!(dialer.peers.connected().await.is_empty());
    listener
        .until(|event| matches!(event, Event::Disconnected(peer) if *peer == us))
        .await;
    let again = dialer.peers.disconnect(address).await;
    assert!(matches!(again, Err(ConnectError::NotConnected(_))));
    // By name alone: the address is known.
    let name = Multiaddr::empty().with(Protocol::P2p(them));
    dialer.peers.connect(name).await.unwrap();
    assert_eq!(dialer.peers.connected().await.len(), 1);
}

#[tokio::test]
async fn no_dial_leaves_the_network() {
    let node = TestNode::start(&[TCP]).await;
    let peer = PeerId::random();
    for outside in [
        "/ip4/192.0.2.1/tcp/4001",
        "/ip4/192.168.0.1/udp/4001/quic-v1",
        "/ip4/0.0.0.0/tcp/4001",
        "/dns4/localhost/tcp/4001",
        "/ip4/127.0.0.1/tcp/1/ip4/192.0.2.1/tcp/4001",
    ] {
        let address: Multiaddr = outside.parse().unwrap();
        let refused = node
            .peers
            .connect(address.clone().with(Protocol::P2p(peer)))
            .await;
        assert!(
            matches!(
                refused,
                Err(ConnectError::Outside {
                    network: "local",
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    // Not even the fence saw them, behind which nothing outside reaches a socket.
    assert_eq!(node.metric("cairn_outside_refused_total"), 0.0);
    assert_eq!(node.metric("cairn_dials_failed_total"), 0.0);
}

#[tokio::test]
async fn addresses_outside_that_a_peer_tells_are_forgotten_and_never_dialled() {
    let mut node = TestNode::start(&[TCP]).await;
    let tasks = Tasks::new();
    let mut liar = noise_only();
    let outside: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
    liar.add_external_address(outside);
    let called = run_plain(liar, &tasks).await;
    let peer = node.meet(called.clone()).await;
    let known = node.peers.known().await;
    let [(who, addresses)] = &known[..] else {
        panic!("one peer: {known:?}");
    };
    assert_eq!(*who, peer);
    let near = book::clean(peer, &called).unwrap();
    assert_eq!(addresses, &[near], "the listener's alone");
    assert_eq!(node.metric("cairn_outside_refused_total"), 0.0);
}

#[tokio::test]
async fn a_listener_outside_the_network_is_refused() {
    for outside in [
        "/ip4/0.0.0.0/tcp/0",
        "/ip4/192.168.0.1/tcp/0",
        "/dns/x/tcp/0",
    ] {
        let refused = TestNode::with(&Keypair::generate_ed25519(), config(&[outside])).await;
        assert!(
            matches!(
                refused,
                Err(StartError::Outside {
                    network: "local",
                    ..
                })
            ),
            "{outside}"
        );
    }
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let first = TestNode::start(&[TCP, QUIC, WEB]).await;
    for taken in first.peers.listening().await {
        let second =
            TestNode::with(&Keypair::generate_ed25519(), config(&[&taken.to_string()])).await;
        let Err(StartError::Listen { address, why }) = second else {
            panic!("{taken} was taken");
        };
        assert_eq!(address, taken);
        assert!(why.contains("in use"), "{why}");
    }
}

#[tokio::test]
async fn what_the_transports_cannot_listen_on_is_named() {
    let odd = "/ip4/127.0.0.1/udp/0";
    let refused = TestNode::with(&Keypair::generate_ed25519(), config(&[odd])).await;
    assert!(matches!(refused, Err(StartError::Listen { .. })));
}

#[tokio::test]
async fn a_stopping_node_says_goodbye_and_answers_nobody_any_more() {
    let mut stays = TestNode::start(&[TCP]).await;
    let mut leaves = TestNode::start(&[TCP]).await;
    leaves.join(&mut stays).await;
    let (who, peers, routing) = (leaves.id(), leaves.peers.clone(), leaves.routing.clone());
    let address = stays.address().await;
    leaves.stop().await;
    stays
        .until(|event| matches!(event, Event::Disconnected(peer) if *peer == who))
        .await;
    assert!(peers.connected().await.is_empty());
    let dialled = peers.connect(address).await;
    assert!(matches!(dialled, Err(ConnectError::Stopping)));
    let told = routing.provide(cid(1)).await;
    assert!(matches!(told, Err(RoutingError::Stopping)));
    let found: Vec<_> = routing.find_providers(cid(1), 1).collect().await;
    assert!(matches!(found[..], [Err(RoutingError::Stopping)]));
}

#[tokio::test]
async fn over_the_limit_of_memory_nobody_is_dialled_or_let_in_and_who_is_there_stays() {
    let little = Memory::new(16 << 20).unwrap();
    let (mut friend, stranger) = (TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await);
    let mut full = TestNode::start(&[TCP, QUIC]).await;
    full.join(&mut friend).await;
    assert_eq!(full.metric("cairn_limits_memory_bytes"), 0.0);
    assert_eq!(full.peers.refuses(), None);

    full.peers.set_memory(little);
    assert_eq!(
        full.metric("cairn_limits_memory_bytes"),
        f64::from(16 << 20)
    );
    let refused = full.peers.connect(stranger.address().await).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("over `limits.memory` = \"16MiB\""), "{told}");
    assert!(told.contains(&full.peers.refuses().unwrap()), "{told}");
    assert_eq!(full.metric("cairn_limits_memory_refused_total"), 1.0);
    for address in full.addresses().await {
        let is_stream = address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        let refused = stranger.peers.connect(address).await.unwrap_err();
        let told = refused.to_string();
        // Over QUIC it is told in the handshake itself.
        let why = match is_stream {
            true => "closed the connection before it was up: it may take no new ones for now",
            false => "aborted by peer: ",
        };
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(full.metric("cairn_limits_memory_refused_total"), 3.0);
    assert!(stranger.peers.connected().await.is_empty());
    // Who was connected before still is, and speaks.
    assert_eq!(full.peers.connected().await.len(), 1);
    assert_eq!(friend.peers.connected().await.len(), 1);

    full.peers.set_memory(Memory::UNLIMITED);
    full.peers.connect(stranger.address().await).await.unwrap();
    assert_eq!(full.metric("cairn_limits_memory_refused_total"), 3.0);
    assert_eq!(full.peers.connected().await.len(), 2);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let first = TestNode::start(&[TCP]).await;
    let second = TestNode::start(&[TCP]).await;
    let few = Config {
        connections_max: 1,
        ..config(&[TCP])
    };
    let node = TestNode::with(&Keypair::generate_ed25519(), few)
        .await
        .unwrap();
    node.peers.connect(first.address().await).await.unwrap();
    let refused = node.peers.connect(second.address().await).await;
    let Err(ConnectError::Dial { why, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("limit"), "{why}");
    assert_eq!(node.peers.connected().await.len(), 1);
}

#[tokio::test]
async fn somebody_else_at_the_address_is_not_taken_for_the_one_meant() {
    let other = TestNode::start(&[TCP]).await;
    let node = TestNode::start(&[]).await;
    let meant = PeerId::random();
    let mut address = other.address().await;
    address.pop();
    let refused = node.peers.connect(address.with(Protocol::P2p(meant))).await;
    let Err(ConnectError::Dial { peer, why }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(peer, meant);
    assert!(why.contains(&other.id().to_string()), "{why}");
    let nameless = node.peers.connect(TCP.parse().unwrap()).await;
    assert!(matches!(nameless, Err(ConnectError::NoPeerId(_))));
    let unknown = Multiaddr::empty().with(Protocol::P2p(meant));
    let unknown = node.peers.connect(unknown).await;
    assert!(matches!(unknown, Err(ConnectError::NoAddress(_))));
}

#[tokio::test]
async fn a_bootstrap_peer_is_dialled_and_dialled_again_when_it_comes_back() {
    let keys = Keypair::generate_ed25519();
    let hub = TestNode::with(&keys, config(&[TCP])).await.unwrap();
    let (address, peer) = (hub.address().await, hub.id());
    let told = Config {
        bootstrap: vec![
            "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
            "/ip4/192.0.2.1/tcp/1"
                .parse::<Multiaddr>()
                .unwrap()
                .with(Protocol::P2p(peer)),
            address,
        ],
        ..config(&[])
    };
    let mut node = TestNode::with(&Keypair::generate_ed25519(), told)
        .await
        .unwrap();
    let up = |event: &Event| matches!(event, Event::Connected(who) if *who == peer);
    node.until(up).await;
    let port = hub.peers.listening().await[0].to_string();
    hub.stop().await;
    node.until(|event| matches!(event, Event::Disconnected(_)))
        .await;
    let _back = TestNode::with(&keys, config(&[&port])).await.unwrap();
    node.until(up).await;
    assert_eq!(node.metric("cairn_outside_refused_total"), 0.0);
}

#[tokio::test]
async fn live_metrics_of_the_library_are_of_the_old_format() {
    let mut listener = TestNode::start(&[TCP]).await;
    let mut dialer = TestNode::start(&[TCP]).await;
    dialer.join(&mut listener).await;
    let page = metrics::encode(&dialer.foreign);
    assert!(
        page.contains("swarm_connections_established_total{"),
        "{page}"
    );
    assert!(page.contains("identify_received_total 1"), "{page}");
    for line in page.lines() {
        assert!(!line.contains("EOF"));
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let kind = declared.split(' ').next_back().unwrap();
            let kinds = ["counter", "gauge", "histogram", "untyped"];
            assert!(kinds.contains(&kind), "{line}");
        }
    }
}

#[test]
fn handles_and_starting_can_move_between_threads() {
    fn sendable<T: Send + 'static>(_: fn() -> T) {}
    fn sendable_future<F: Future + Send>(_: impl Fn() -> F) {}
    sendable_future(|| async {
        let keys = Keypair::generate_ed25519();
        TestNode::with(&keys, Config::default()).await.is_ok()
    });
    sendable::<Peers>(|| unreachable!("only its type is looked at"));
    sendable::<Routing>(|| unreachable!("only its type is looked at"));
}
