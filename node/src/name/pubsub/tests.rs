//! Nodes on loopback that follow names over gossipsub, and libp2p's own gossipsub beside them.
//!
//! Nothing here is looked for in the DHT once a name is followed: what a node knows of it then came over its topic, or
//! from a peer that was asked for it. Nothing waits for time to pass, only for events.

use super::*;
use crate::config::Config;
use crate::ipns::tests::{Says, record as signed};
use crate::keystore::Key;
use crate::name::publish::Wish;
use crate::name::resolve::How;
use crate::name::{self, Names};
use crate::node::Node;
use cairn_store::Store;
use futures::StreamExt;
use futures::future::{Either, select};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, noise, tcp, yamux};
use std::future::Future;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);

struct TestNode {
    node: Node,
    events: broadcast::Receiver<Event>,
    registry: Registry,
    _folder: TempDir,
}

impl TestNode {
    async fn start() -> Self {
        Self::with(true).await
    }

    async fn with(pubsub: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = cairn_store::config::Config::default();
        let store = Store::open(folder.path(), &store, &mut |_| {}).unwrap();
        let config = Config {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            names: name::Options {
                pubsub,
                ..name::Options::default()
            },
            ..Config::default()
        };
        let registry = Registry::new();
        let node = Node::start(store, Keypair::generate_ed25519(), config, &registry).await;
        let node = node.unwrap();
        Self {
            events: node.events(),
            node,
            registry,
            _folder: folder,
        }
    }

    fn names(&self) -> Names {
        self.node.resolver().names().clone()
    }

    fn pubsub(&self) -> Pubsub {
        self.names().pubsub().unwrap().clone()
    }

    async fn address(&self) -> Multiaddr {
        let listening = self.node.peers().listening().await;
        listening[0]
            .clone()
            .with(Protocol::P2p(self.node.peer_id()))
    }

    async fn until(&mut self, what: impl Fn(&Event) -> bool) {
        let seen = async { while !what(&self.events.recv().await.unwrap()) {} };
        timeout(WATCHDOG, seen).await.expect("an event in time");
    }

    async fn connect(&mut self, other: &Self) {
        let peer = self
            .node
            .peers()
            .connect(other.address().await)
            .await
            .unwrap();
        self.until(|event| matches!(event, Event::Identified(who) if *who == peer))
            .await;
    }

    /// Until its newest record has this number.
    async fn until_known(&mut self, name: &PeerId, sequence: u64) {
        let names = self.names();
        while names
            .known(name)
            .is_none_or(|known| known.sequence() < sequence)
        {
            self.until(|event| matches!(event, Event::Renewed(renewed) if renewed == name))
                .await;
        }
        assert_eq!(names.known(name).unwrap().sequence(), sequence);
    }

    /// Asks for a name that nobody has published; it is followed from then on.
    async fn ask_in_vain(&self, name: &PeerId) {
        let asked = in_time(self.names().resolve(name, How::Usual)).await;
        asked.unwrap_err();
        assert_eq!(self.pubsub().followed(), [*name]);
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let family = family.expect("a metric of that name");
        let all = family.get_metric().iter();
        let of = all.filter(|metric| metric.get_label().iter().any(|one| one.value() == label));
        of.map(|metric| metric.get_counter().get_value()).sum()
    }

    fn messages(&self, became: &str) -> f64 {
        self.metric("cairn_names_pubsub_messages_total", became)
    }

    async fn stop(self) {
        assert!(self.node.stop(WATCHDOG).await);
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(WATCHDOG, what).await.expect("in time")
}

fn wish(value: &str) -> Wish {
    Wish {
        value: value.to_owned(),
        lifetime: Duration::from_secs(48 * 3600),
        ttl: Duration::from_secs(300),
        sequence: None,
        readers: crate::ipns::Readers::All,
        may_be_alone: true,
    }
}

fn key() -> (Key, PeerId) {
    let key = Key::generate(crate::keystore::Make::Ed25519).unwrap();
    let id = key.id();
    (key, id)
}

fn numbered(keys: &Keypair, sequence: u64) -> Vec<u8> {
    let says = Says {
        sequence,
        ..Says::default()
    };
    signed(keys, &says)
}

#[derive(NetworkBehaviour)]
struct Stock {
    gossip: gossipsub::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// A peer with libp2p's own gossipsub, which is on one topic and speaks nothing else.
struct Stranger {
    say: mpsc::Sender<Vec<u8>>,
    heard: mpsc::Receiver<Vec<u8>>,
    streams: libp2p_stream::Control,
    tasks: Tasks,
}

impl Stranger {
    /// Calls a node that follows this name, and is heard by it.
    async fn calls(node: &TestNode, name: &PeerId) -> Self {
        let gossip = |keys: &Keypair| {
            let config = gossipsub::ConfigBuilder::default()
                .max_transmit_size(4 << 20)
                .build()
                .unwrap();
            let author = MessageAuthenticity::Signed(keys.clone());
            Stock {
                gossip: gossipsub::Behaviour::new(author, config).unwrap(),
                streams: libp2p_stream::Behaviour::new(),
            }
        };
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )
            .unwrap()
            .with_behaviour(gossip)
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(WATCHDOG))
            .build();
        let topic = IdentTopic::new(topic::of(name));
        swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
        swarm.dial(node.address().await).unwrap();
        let streams = swarm.behaviour().streams.new_control();
        let joined = async {
            loop {
                if let SwarmEvent::Behaviour(StockEvent::Gossip(gossipsub::Event::Subscribed {
                    ..
                })) = swarm.select_next_some().await
                {
                    return;
                }
            }
        };
        in_time(joined).await;
        let (say, mut said) = mpsc::channel::<Vec<u8>>(16);
        let (tell, heard) = mpsc::channel(16);
        let tasks = Tasks::new();
        tasks.spawn("stranger", async move {
            loop {
                tokio::select! {
                    Some(data) = said.recv() => {
                        let gossip = &mut swarm.behaviour_mut().gossip;
                        gossip.publish(topic.hash(), data).unwrap();
                    }
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::Behaviour(StockEvent::Gossip(
                            gossipsub::Event::Message { message, .. },
                        )) = event
                        {
                            tell.send(message.data).await.unwrap();
                        }
                    }
                }
            }
        });
        Self {
            say,
            heard,
            streams,
            tasks,
        }
    }

    async fn say(&self, data: Vec<u8>) {
        self.say.send(data).await.unwrap();
    }

    async fn hears(&mut self) -> Vec<u8> {
        in_time(self.heard.recv()).await.unwrap()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

#[tokio::test]
async fn who_follows_a_name_hears_of_each_new_record_of_it() {
    let (mut follower, publisher) = (TestNode::start().await, TestNode::start().await);
    let (key, name) = key();
    follower.connect(&publisher).await;
    follower.ask_in_vain(&name).await;
    for sequence in 0..3 {
        let published = in_time(publisher.names().publish(&key, &wish("/ipfs/bafkqaaa"))).await;
        let record = published.unwrap().record;
        follower.until_known(&name, sequence).await;
        assert_eq!(follower.names().known(&name), Some(record));
    }
    assert_eq!(follower.messages("rejected"), 0.0);
    // Those who follow nothing here are told of nothing.
    assert_eq!(publisher.pubsub().followed(), [name]);
    follower.stop().await;
    publisher.stop().await;
}

#[tokio::test]
async fn who_follows_a_name_is_found_through_the_dht() {
    let mut hub = TestNode::with(false).await;
    let mut follower = TestNode::start().await;
    let (_, name) = key();
    let us = follower.node.peer_id();
    follower.connect(&hub).await;
    hub.until(|event| matches!(event, Event::Identified(who) if *who == us))
        .await;
    in_time(follower.pubsub().find(name)).await;
    let place = rendezvous::cid(&topic::of(&name)).unwrap();
    // It is on its way there.
    let look = async {
        loop {
            let found = hub.node.routing().find_providers(place, 1);
            let found: Vec<_> = found.filter_map(|one| async { one.ok() }).collect().await;
            if found.iter().any(|provider| provider.peer == us) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time(look).await;
    for node in [hub, follower] {
        node.stop().await;
    }
}

#[tokio::test]
async fn who_comes_late_asks_those_on_the_topic() {
    let (mut late, publisher) = (TestNode::start().await, TestNode::start().await);
    let (key, name) = key();
    let published = in_time(publisher.names().publish(&key, &wish("/ipfs/bafkqaaa"))).await;
    published.unwrap();
    late.connect(&publisher).await;
    in_time(late.pubsub().find(name)).await;
    late.until_known(&name, 0).await;
    assert_eq!(late.metric("cairn_names_fetches_total", "found"), 1.0);
    assert_eq!(
        publisher.metric("cairn_names_fetch_answers_total", "found"),
        1.0
    );
    late.stop().await;
    publisher.stop().await;
}

#[tokio::test]
async fn who_cannot_ask_is_told_when_it_comes() {
    let publisher = TestNode::start().await;
    let (key, name) = key();
    let published = in_time(publisher.names().publish(&key, &wish("/ipfs/bafkqaaa"))).await;
    let record = published.unwrap().record;
    let mut stranger = Stranger::calls(&publisher, &name).await;
    assert_eq!(stranger.hears().await, record.bytes());
    publisher.stop().await;
}

#[tokio::test]
async fn a_record_is_passed_on_by_who_follows_its_name() {
    let (mut first, mut middle, mut last) = (
        TestNode::start().await,
        TestNode::start().await,
        TestNode::start().await,
    );
    let keys = Keypair::generate_ed25519();
    let name = keys.public().to_peer_id();
    middle.connect(&first).await;
    last.connect(&middle).await;
    for node in [&first, &middle, &last] {
        in_time(node.pubsub().find(name)).await;
    }
    let stranger = Stranger::calls(&first, &name).await;
    stranger.say(numbered(&keys, 1)).await;
    first.until_known(&name, 1).await;
    middle.until_known(&name, 1).await;
    last.until_known(&name, 1).await;
    for node in [first, middle, last] {
        node.stop().await;
    }
}

#[tokio::test]
async fn only_what_is_valid_and_newer_is_taken_in_and_passed_on() {
    let (mut middle, mut last) = (TestNode::start().await, TestNode::start().await);
    let (keys, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let name = keys.public().to_peer_id();
    last.connect(&middle).await;
    for node in [&middle, &last] {
        in_time(node.pubsub().find(name)).await;
    }
    let mut witness = Stranger::calls(&middle, &name).await;
    let stranger = Stranger::calls(&middle, &name).await;
    stranger.say(numbered(&keys, 5)).await;
    middle.until_known(&name, 5).await;
    last.until_known(&name, 5).await;
    let expired = Says {
        sequence: 7,
        validity: "2020-01-01T00:00:00Z",
        also_v1: true,
    };
    let bad = [
        numbered(&keys, 4),
        numbered(&keys, 5),
        signed(&keys, &expired),
        numbered(&other, 8),
        vec![0; crate::ipns::RECORD_BYTES_MAX + 1],
        b"no record".to_vec(),
    ];
    for data in bad {
        stranger.say(data).await;
    }
    stranger.say(numbered(&keys, 9)).await;
    middle.until_known(&name, 9).await;
    last.until_known(&name, 9).await;
    assert_eq!(middle.messages("accepted"), 2.0);
    assert_eq!(middle.messages("ignored"), 3.0);
    assert_eq!(
        middle.messages("rejected"),
        2.0,
        "what is too large is not even looked at"
    );
    assert_eq!(witness.hears().await, numbered(&keys, 5));
    assert_eq!(witness.hears().await, numbered(&keys, 9));
    for became in ["ignored", "rejected"] {
        assert_eq!(last.messages(became), 0.0);
    }
    middle.stop().await;
    last.stop().await;
}

#[tokio::test]
async fn a_message_of_a_mebibyte_ends_its_stream_and_nothing_else() {
    let mut node = TestNode::start().await;
    let keys = Keypair::generate_ed25519();
    let name = keys.public().to_peer_id();
    in_time(node.pubsub().find(name)).await;
    let mut large = Stranger::calls(&node, &name).await;
    let spoken = StreamProtocol::new("/meshsub/1.1.0");
    let stream = in_time(large.streams.open_stream(node.node.peer_id(), spoken)).await;
    let (mut reader, mut writer) = stream.unwrap().split();
    // A message to be passed on, of a length that is told before it and is true.
    let message = [
        &[0x84, 0x80, 0x40, 0x12, 0x80, 0x80, 0x40][..],
        &vec![0; 1 << 20],
    ]
    .concat();
    let mut rest = Vec::new();
    let (end, write) = (reader.read_to_end(&mut rest), writer.write_all(&message));
    // It is not read to its end, so it is not written to its end either.
    let ended = in_time(select(end, write)).await;
    if let Either::Right((written, _)) = ended {
        written.expect_err("all of it was read");
    }
    let honest = Stranger::calls(&node, &name).await;
    honest.say(numbered(&keys, 1)).await;
    node.until_known(&name, 1).await;
    assert_eq!(node.messages("rejected"), 0.0);
    node.stop().await;
}

#[tokio::test]
async fn who_says_what_is_invalid_again_and_again_is_not_heard() {
    let mut node = TestNode::start().await;
    let keys = Keypair::generate_ed25519();
    let name = keys.public().to_peer_id();
    in_time(node.pubsub().find(name)).await;
    let (liar, honest) = (
        Stranger::calls(&node, &name).await,
        Stranger::calls(&node, &name).await,
    );
    for number in 0..50_u8 {
        liar.say(vec![number]).await;
    }
    liar.say(numbered(&keys, 2)).await;
    honest.say(numbered(&keys, 1)).await;
    node.until_known(&name, 1).await;
    assert!(node.messages("rejected") >= 1.0);
    assert!(node.messages("rejected") < 50.0);
    node.stop().await;
}

#[tokio::test]
async fn a_name_that_is_cancelled_is_followed_no_more() {
    let node = TestNode::start().await;
    let (_, name) = key();
    in_time(node.pubsub().find(name)).await;
    assert_eq!(node.pubsub().followed(), [name]);
    assert!(in_time(node.pubsub().cancel(name)).await);
    assert!(node.pubsub().followed().is_empty());
    assert!(!in_time(node.pubsub().cancel(name)).await);
    node.stop().await;
}

#[tokio::test]
async fn peers_are_told_of_gossipsub_where_it_is_on_and_nowhere_else() {
    let is_of_it = |name: &String| name.contains("meshsub") || name.contains("/libp2p/fetch");
    let (mut off, on) = (TestNode::with(false).await, TestNode::start().await);
    off.connect(&on).await;
    let rows = off.node.peers().connected().await;
    let told: Vec<_> = rows[0]
        .protocols
        .iter()
        .filter(|name| is_of_it(name))
        .collect();
    let spoken = on.node.peers().protocols();
    let spoken: Vec<_> = spoken.iter().filter(|name| is_of_it(name)).collect();
    assert_eq!(told, spoken);
    assert_eq!(told.len(), 5);
    let mut on = on;
    let asked = off.node.peer_id();
    while on.node.peers().connected().await[0].protocols.is_empty() {
        on.until(|event| matches!(event, Event::Identified(who) if *who == asked))
            .await;
    }
    let rows = on.node.peers().connected().await;
    assert!(!rows[0].protocols.iter().any(is_of_it));
    assert!(!off.node.peers().protocols().iter().any(is_of_it));
    assert!(off.names().pubsub().is_none());
    let families = off.registry.gather();
    assert!(
        !families
            .iter()
            .any(|family| family.name().contains("pubsub"))
    );
    off.stop().await;
    on.stop().await;
}
