//! The DHT over real streams: among nodes of this kind, with stock peers of libp2p both ways, and with peers that
//! keep to nothing.

use super::*;
use crate::dht::message::{Kind, Message, Record};
use crate::dht::table::Contact;
use crate::ipns;
use crate::network::Realm;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::kad::{self, QueryId, QueryResult, RecordKey, store::MemoryStore};

#[derive(NetworkBehaviour)]
struct Stock {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    stream: libp2p_stream::Behaviour,
}

/// A peer of libp2p's own making, which listens and serves.
async fn stock() -> (Swarm<Stock>, Multiaddr) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            tls::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|keys: &Keypair| {
            let (local, public) = (keys.public().to_peer_id(), keys.public());
            let settings = kad::Config::new(Realm::Lan.protocol());
            let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), settings);
            kad.set_mode(Some(kad::Mode::Server));
            Stock {
                identify: identify::Behaviour::new(identify::Config::new("test/1".into(), public)),
                kad,
                stream: libp2p_stream::Behaviour::new(),
            }
        })
        .unwrap()
        .build();
    swarm.listen_on(TCP.parse().unwrap()).unwrap();
    let peer = *swarm.local_peer_id();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            swarm.add_external_address(address.clone());
            return (swarm, address.with(Protocol::P2p(peer)));
        }
    }
}

/// Lets the swarm run beside something, until that is done.
async fn beside<T>(swarm: &mut Swarm<Stock>, work: impl Future<Output = T>) -> T {
    let run = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    let both = async {
        tokio::select! {
            done = work => done,
            never = run => never,
        }
    };
    timeout(WATCHDOG, both).await.expect("an end in time")
}

/// The two know each other as servers.
async fn acquainted() -> (TestNode, Swarm<Stock>) {
    let mut node = TestNode::start(&[TCP]).await;
    let (mut swarm, address) = stock().await;
    beside(&mut swarm, node.meet(address)).await;
    for address in node.peers.listening().await {
        swarm.behaviour_mut().kad.add_address(&node.id(), address);
    }
    (node, swarm)
}

/// The results of a query of the stock peer, once it is over.
async fn results_of(swarm: &mut Swarm<Stock>, query: QueryId) -> Vec<QueryResult> {
    let run = async {
        let mut all = Vec::new();
        loop {
            if let SwarmEvent::Behaviour(StockEvent::Kad(event)) = swarm.select_next_some().await
                && let kad::Event::OutboundQueryProgressed {
                    id, result, step, ..
                } = event
                && id == query
            {
                all.push(result);
                if step.last {
                    return all;
                }
            }
        }
    };
    timeout(WATCHDOG, run).await.expect("an end in time")
}

fn key_of(cid: &Cid) -> RecordKey {
    RecordKey::from(cid.hash().to_bytes())
}

#[tokio::test]
async fn a_stock_peer_finds_what_this_node_provides_and_the_other_way() {
    let (node, mut swarm) = acquainted().await;
    let stock = *swarm.local_peer_id();
    beside(&mut swarm, node.routing.provide(cid(1)))
        .await
        .unwrap();
    let found = swarm.behaviour_mut().kad.get_providers(key_of(&cid(1)));
    let found = results_of(&mut swarm, found).await;
    let is_us = |result: &QueryResult| {
        matches!(result, QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. }))
            if providers.contains(&node.id()))
    };
    assert!(found.iter().any(is_us), "{found:?}");

    let kad = &mut swarm.behaviour_mut().kad;
    let provided = kad.start_providing(key_of(&cid(2))).unwrap();
    results_of(&mut swarm, provided).await;
    let provider = beside(&mut swarm, node.find_one(cid(2), stock)).await;
    assert_eq!(
        provider.addresses,
        swarm.listeners().cloned().collect::<Vec<_>>()
    );
    node.stop().await;
}

#[tokio::test]
async fn who_asks_this_node_itself_hears_what_it_provides() {
    let (node, mut swarm) = acquainted().await;
    let provided = cid(5).hash().to_bytes();
    node.routing.own().ask(move |hash| {
        let is_ours = hash == provided;
        async move { is_ours }
    });
    for (wanted, is_named) in [(cid(5), true), (cid(6), false)] {
        let found = swarm.behaviour_mut().kad.get_providers(key_of(&wanted));
        let found = results_of(&mut swarm, found).await;
        let is_us = |result: &QueryResult| {
            matches!(result, QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. }))
                if providers.contains(&node.id()))
        };
        assert_eq!(found.iter().any(is_us), is_named, "{wanted}: {found:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_this_node_provides_is_said_even_where_it_has_no_address_to_say() {
    let mut node = TestNode::start(&[]).await;
    let (mut swarm, address) = stock().await;
    beside(&mut swarm, node.meet(address)).await;
    node.routing.own().ask(|_| async { true });
    let question = Message::new(Kind::GetProviders, cid(5).hash().to_bytes());
    let heard = say(&mut swarm, node.id(), &framed(&question)).await;
    let (length, rest) = unsigned_varint::decode::usize(&heard).unwrap();
    let answer = Message::decode(&rest[..length]).unwrap();
    assert_eq!(answer.providers, [Contact::new(node.id(), Vec::new())]);
    node.stop().await;
}

/// A record of a name, and what it is kept under.
fn named(keys: &Keypair, sequence: u64) -> (Vec<u8>, Vec<u8>) {
    let says = ipns::tests::Says {
        sequence,
        ..ipns::tests::Says::default()
    };
    let key = ipns::key(&keys.public().to_peer_id());
    (key, ipns::tests::record(keys, &says))
}

#[tokio::test]
async fn a_stock_peer_may_put_a_valid_record_and_gets_it_back_and_nothing_else() {
    let (node, mut swarm) = acquainted().await;
    let keys = Keypair::generate_ed25519();
    let (key, value) = named(&keys, 7);
    let mut put = async |key: &[u8], value: &[u8]| {
        let record = kad::Record::new(key.to_vec(), value.to_vec());
        let kad = &mut swarm.behaviour_mut().kad;
        let put = kad.put_record(record, kad::Quorum::One).unwrap();
        let results = results_of(&mut swarm, put).await;
        matches!(results[..], [QueryResult::PutRecord(Ok(_))])
    };
    assert!(put(&key, &value).await);
    assert!(!put(b"/secrets/x", &value).await, "a foreign key");
    let (other, _) = named(&Keypair::generate_ed25519(), 1);
    assert!(!put(&other, &value).await, "another's key");
    let (_, older) = named(&keys, 6);
    assert!(!put(&key, &older).await, "an older one");
    assert_eq!(node.metric("cairn_dht_values"), 1.0);
    // Its own copy would answer first.
    let kad = &mut swarm.behaviour_mut().kad;
    kad.remove_record(&RecordKey::new(&key));
    let got = kad.get_record(RecordKey::new(&key));
    let got = results_of(&mut swarm, got).await;
    let is_it = |result: &QueryResult| {
        matches!(result, QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found)))
            if found.record.value == value)
    };
    assert!(got.iter().any(is_it), "{got:?}");
    node.stop().await;
}

#[tokio::test]
async fn the_best_of_all_values_is_found_and_what_is_none_is_not_sent() {
    let mut hub = TestNode::start(&[TCP]).await;
    let [mut one, mut other] = [TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await];
    let keys = Keypair::generate_ed25519();
    let [(key, first), (_, second)] = [1, 2].map(|sequence| named(&keys, sequence));
    one.join(&mut hub).await;
    assert_eq!(one.routing.value(key.clone()).await.unwrap(), None);
    assert_eq!(
        one.routing.keep(key.clone(), first.clone()).await.unwrap(),
        1
    );
    assert_eq!(
        hub.routing.value(key.clone()).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        hub.routing.keep(key.clone(), second.clone()).await.unwrap(),
        1
    );
    other.join(&mut hub).await;
    let found = other.routing.value(key.clone()).await.unwrap();
    assert_eq!(found, Some(second));
    let refused = other.routing.keep(key.clone(), first).await;
    assert!(
        matches!(refused, Err(RoutingError::NewerValueKept)),
        "{refused:?}"
    );
    let garbage = other.routing.keep(key, vec![1]).await;
    assert!(
        matches!(garbage, Err(RoutingError::InvalidValue(_))),
        "{garbage:?}"
    );
    let foreign = other.routing.value(b"/foo/x".to_vec()).await;
    assert!(
        matches!(foreign, Err(RoutingError::InvalidValue(_))),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn a_peer_is_found_by_its_name_through_those_who_know_it() {
    let mut hub = TestNode::start(&[TCP]).await;
    let mut wanted = TestNode::start(&[TCP]).await;
    let mut seeker = TestNode::start(&[TCP]).await;
    wanted.join(&mut hub).await;
    seeker.join(&mut hub).await;
    let found = seeker.routing.find_peer(wanted.id()).await.unwrap();
    assert_eq!(found.peer, wanted.id());
    assert_eq!(found.addresses, wanted.peers.listening().await);
    let nobody = PeerId::random();
    let missing = seeker.routing.find_peer(nobody).await;
    assert!(matches!(missing, Err(RoutingError::PeerNotFound(peer)) if peer == nobody));
    let nearest = seeker
        .routing
        .nearest(cid(1).hash().to_bytes())
        .await
        .unwrap();
    let nearest: HashSet<PeerId> = nearest.iter().map(|peer| peer.peer).collect();
    assert_eq!(nearest, HashSet::from([hub.id(), wanted.id()]));
}

#[tokio::test]
async fn what_nobody_has_is_not_looked_for_twice_in_a_moment_unless_somebody_asks_for_just_that() {
    let mut hub = TestNode::start(&[TCP]).await;
    let mut node = TestNode::start(&[TCP]).await;
    node.join(&mut hub).await;
    let search = async || node.routing.search(cid(1), 5).collect::<Vec<_>>().await;
    let asked = || hub.metric("cairn_dht_asked_total");
    assert!(search().await.is_empty());
    let once = asked();
    assert!(search().await.is_empty());
    assert_eq!(asked(), once);
    hub.routing.provide(cid(1)).await.unwrap();
    assert_eq!(node.find(cid(1)).await.len(), 1);
    assert!(asked() > once);
}

#[tokio::test]
async fn after_a_restart_records_are_there_and_the_peers_from_before_are_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keypair::generate_ed25519();
    let remembering = Config {
        memory: Some(folder.path().join("dht")),
        ..config(&[TCP])
    };
    let mut hub = TestNode::start(&[TCP]).await;
    let node = TestNode::with(&keys, remembering.clone()).await;
    let mut node = node.unwrap();
    hub.join(&mut node).await;
    hub.routing.provide(cid(1)).await.unwrap();
    let (key, value) = named(&keys, 3);
    hub.routing.keep(key.clone(), value.clone()).await.unwrap();
    node.find_one(cid(1), hub.id()).await;
    node.stop().await;
    hub.until(|event| matches!(event, Event::Disconnected(_)))
        .await;

    // Without bootstrap addresses: it knows somebody from before.
    let mut again = TestNode::with(&keys, remembering).await.unwrap();
    let them = hub.id();
    again
        .until(|event| matches!(event, Event::Connected(who) if *who == them))
        .await;
    hub.until(|event| matches!(event, Event::Identified(_)))
        .await;
    assert_eq!(again.metric("cairn_dht_records"), 1.0);
    assert_eq!(again.routing.value(key).await.unwrap(), Some(value));
    let found = again.find_one(cid(1), them).await;
    assert_eq!(found.addresses, hub.peers.listening().await);
    again.stop().await;
    hub.stop().await;
}

/// Says all of this on one stream and reads whatever comes until the other end closes it.
async fn say(swarm: &mut Swarm<Stock>, to: PeerId, bytes: &[u8]) -> Vec<u8> {
    let mut control = swarm.behaviour().stream.new_control();
    let talk = async {
        let protocol = Realm::Lan.protocol();
        let mut stream = control.open_stream(to, protocol).await.unwrap();
        let mut heard = Vec::new();
        // It may be refused before all is written, and reset.
        let _ = stream.write_all(bytes).await;
        let _ = stream.close().await;
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    beside(swarm, talk).await
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.encode();
    let mut length = unsigned_varint::encode::usize_buffer();
    let length = unsigned_varint::encode::usize(bytes.len(), &mut length);
    [length, &bytes].concat()
}

#[tokio::test]
async fn nobody_provides_for_others_and_a_flood_takes_half_of_the_room_at_most() {
    let small = Config {
        provider_records_max: 100,
        ..config(&[TCP])
    };
    let keys = Keypair::generate_ed25519();
    let mut node = TestNode::with(&keys, small).await.unwrap();
    let (mut swarm, address) = stock().await;
    let peer = beside(&mut swarm, node.meet(address)).await;
    let provides = |provider: PeerId, at: u32| Message {
        providers: vec![Contact::new(provider, Vec::new())],
        ..Message::new(Kind::AddProvider, at.to_be_bytes().to_vec())
    };
    let foreign = provides(PeerId::random(), 1);
    assert!(
        say(&mut swarm, node.id(), &framed(&foreign))
            .await
            .is_empty()
    );
    let flood: Vec<u8> = (0..3000)
        .flat_map(|at| framed(&provides(peer, at)))
        .collect();
    assert!(say(&mut swarm, node.id(), &flood).await.is_empty());
    // Half of all: of the rest it gets nothing.
    assert_eq!(node.metric("cairn_dht_records"), 50.0);
    assert_eq!(node.metric("cairn_dht_asked_total"), 3001.0);
    node.stop().await;
}

#[tokio::test]
async fn garbage_ends_its_stream_and_nothing_else() {
    let (node, mut swarm) = acquainted().await;
    let us = node.id();
    let record = Record {
        key: b"/pk/x".to_vec(),
        value: vec![0; 1 << 20],
        received: String::new(),
    };
    let foreign_value = Message {
        record: Some(record),
        ..Message::new(Kind::PutValue, b"/pk/x".to_vec())
    };
    for garbage in [
        vec![0xff; 64],
        // A message of 4 MiB and one byte is announced.
        vec![0x81, 0x80, 0x80, 0x02, 1, 2, 3],
        vec![2, 0x08, 77],
        vec![0x90, 0x4e, 1],
        framed(&foreign_value),
    ] {
        let heard = say(&mut swarm, us, &garbage).await;
        assert!(heard.is_empty(), "{heard:?}");
    }
    let ping = framed(&Message::new(Kind::Ping, Vec::new()));
    assert_eq!(say(&mut swarm, us, &ping).await, ping);
    node.stop().await;
}

#[tokio::test]
async fn who_names_ten_thousand_peers_costs_one_request_and_no_more() {
    let mut node = TestNode::start(&[TCP]).await;
    let (mut swarm, address) = stock().await;
    // It answers by itself, as the library would not.
    swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Client));
    let mut control = swarm.behaviour().stream.new_control();
    let mut asked = control.accept(Realm::Lan.protocol()).unwrap();
    let dead: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let many = (0..10_000).map(|_| Contact::new(PeerId::random(), vec![dead.clone()]));
    let answer = framed(&Message {
        nearer: many.collect(),
        ..Message::new(Kind::GetProviders, Vec::new())
    });
    let answering = async {
        while let Some((_, mut stream)) = asked.next().await {
            // Whoever asked may have gone.
            let _ = stream.write_all(&answer).await;
            let _ = stream.close().await;
        }
    };
    let looking = async {
        node.meet(address).await;
        node.find(cid(1)).await
    };
    let both = async {
        tokio::select! {
            found = looking => found,
            () = answering => panic!("nobody answers any more"),
        }
    };
    let found = beside(&mut swarm, both).await;
    assert!(found.is_empty(), "{found:?}");
    // Whom one names is asked as far as a bucket goes, and nobody whom those could have named.
    let requests = node.metric("cairn_dht_requests_total");
    assert!((1.0..100.0).contains(&requests), "{requests}");
    node.stop().await;
}

#[tokio::test]
async fn who_was_not_reached_a_moment_ago_is_not_dialled_by_the_next_lookup() {
    let (node, mut swarm) = acquainted().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = port.local_addr().unwrap();
    drop(port);
    let gone = format!("/ip4/127.0.0.1/tcp/{}", place.port());
    let kad = &mut swarm.behaviour_mut().kad;
    kad.add_address(&PeerId::random(), gone.parse().unwrap());
    beside(&mut swarm, node.find(cid(3))).await;
    let failed = node.labelled("cairn_dht_requests_total", "failed");
    assert_eq!(failed, 1.0, "it was named and dialled");
    let port = std::net::TcpListener::bind(place).unwrap();
    port.set_nonblocking(true).unwrap();
    beside(&mut swarm, node.find(cid(4))).await;
    let came = port.accept();
    assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    node.stop().await;
}

/// Connected, and asked who it is, it never answers; so nobody knows whether it is to be asked.
#[tokio::test]
async fn a_lookup_does_not_wait_for_ever_for_somebody_to_say_who_it_is() {
    let hasty = Config {
        lookup_timeout: Duration::from_secs(1),
        ..config(&[TCP])
    };
    let keys = Keypair::generate_ed25519();
    let mut node = TestNode::with(&keys, hasty).await.unwrap();
    let (silent, tasks) = (Keypair::generate_ed25519(), Tasks::new());
    let silent_peer = silent.public().to_peer_id();
    let mut asked = call_by_hand(&node, &silent, &tasks).await;
    node.until(|event| matches!(event, Event::Connected(_)))
        .await;
    let _held = timeout(WATCHDOG, asked.next()).await.expect("a question");
    let called = format!("/p2p/{silent_peer}").parse().unwrap();
    let (found, called) = futures::join!(node.find(cid(1)), node.peers.call(called));
    // It is connected, and that it says nothing is told.
    let silent = Called {
        peer: silent_peer,
        answers: false,
    };
    assert_eq!(called.unwrap(), silent);
    let alone = |found: &Result<Provider, RoutingError>| {
        matches!(found, Err(RoutingError::NoPeers | RoutingError::TooSlow(_)))
    };
    assert!(matches!(&found[..], [one] if alone(one)), "{found:?}");
    tasks.abort();
    node.stop().await;
}
