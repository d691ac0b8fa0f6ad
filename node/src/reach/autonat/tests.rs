//! Ours against ours, against libp2p's own, and against one that lies; over loopback.

use super::message::{Dial, Message, Status, read, write};
use super::*;
use crate::tasks::Tasks;
use futures::StreamExt;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{SwarmBuilder, autonat, identify, noise, tcp, yamux};

fn swarm<B: NetworkBehaviour>(make: impl FnOnce(&libp2p::identity::Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| make(key))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(MINUTE))
        .build()
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// Runs `server` beside; `asker` connects to it and has it try what `tried` makes of where it listens.
async fn probe<B>(mut server: Swarm<B>, tried: impl FnOnce(&Multiaddr) -> Multiaddr) -> Outcome
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: Send,
{
    let tasks = Tasks::new();
    let (at, peer) = (listen(&mut server).await, *server.local_peer_id());
    tasks.spawn("server", async move {
        loop {
            server.select_next_some().await;
        }
    });
    let mut asker = swarm(|_| Behaviour::new(Network::Local));
    let here = listen(&mut asker).await;
    let dial = DialOpts::peer_id(peer).addresses(vec![at]).build();
    asker.dial(dial).unwrap();
    let address = tried(&here);
    let outcome = loop {
        match asker.select_next_some().await {
            SwarmEvent::ConnectionEstablished { endpoint, .. } if endpoint.is_dialer() => {
                asker.behaviour_mut().probe(peer, address.clone());
            }
            SwarmEvent::Behaviour(probed) => {
                assert_eq!((&probed.address, probed.server), (&address, peer));
                break probed.outcome;
            }
            _ => {}
        }
    };
    assert!(asker.behaviour().asked.is_empty());
    tasks.abort();
    outcome
}

fn nowhere(_: &Multiaddr) -> Multiaddr {
    // A port that was free a moment ago and belongs to nobody.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

#[tokio::test]
async fn an_address_is_tried_and_found_or_not() {
    let ours = || swarm(|_| Behaviour::new(Network::Local));
    assert_eq!(probe(ours(), Multiaddr::clone).await, Outcome::Reached);
    assert_eq!(probe(ours(), nowhere).await, Outcome::Refuted);
}

#[tokio::test]
async fn who_asks_for_another_host_pays_and_is_served() {
    let elsewhere = |here: &Multiaddr| {
        here.replace(0, |_| Some(Protocol::Ip4([127, 0, 0, 2].into())))
            .unwrap()
    };
    let ours = || swarm(|_| Behaviour::new(Network::Local));
    // Nobody listens there; what counts is that the answer comes after the bytes.
    assert_eq!(probe(ours(), elsewhere).await, Outcome::Refuted);
}

#[tokio::test]
async fn what_lies_inside_is_not_tried_and_says_nothing() {
    let ours = swarm(|_| Behaviour::new(Network::Public));
    assert_eq!(probe(ours, Multiaddr::clone).await, Outcome::Unanswered);
}

#[tokio::test]
async fn libp2ps_server_tries_our_addresses() {
    let theirs = || swarm(|_| autonat::v2::server::Behaviour::default());
    assert_eq!(probe(theirs(), Multiaddr::clone).await, Outcome::Reached);
    assert_eq!(probe(theirs(), nowhere).await, Outcome::Refuted);
}

#[tokio::test]
async fn who_only_says_that_it_came_is_not_believed() {
    let liar = swarm(|_| libp2p_stream::Behaviour::new());
    let mut arrived = liar.behaviour().new_control().accept(ASKED).unwrap();
    let tasks = Tasks::new();
    tasks.spawn("liar", async move {
        while let Some((_, mut stream)) = arrived.next().await {
            read(&mut stream).await.unwrap();
            let lie = Message::Response {
                status: Status::Done,
                at: 0,
                dial: Dial::Done,
            };
            write(&mut stream, &lie.encode()).await.unwrap();
        }
    });
    assert_eq!(probe(liar, Multiaddr::clone).await, Outcome::Unanswered);
    tasks.abort();
}

#[derive(NetworkBehaviour)]
struct Theirs {
    autonat: autonat::v2::client::Behaviour,
    identify: identify::Behaviour,
}

#[derive(NetworkBehaviour)]
struct Ours {
    autonat: Behaviour,
    identify: identify::Behaviour,
}

#[tokio::test]
async fn we_try_the_addresses_of_libp2ps_client() {
    let identity = |key: &libp2p::identity::Keypair| {
        identify::Behaviour::new(identify::Config::new("test".to_owned(), key.public()))
    };
    let mut server = swarm(|key| Ours {
        autonat: Behaviour::new(Network::Local),
        identify: identity(key),
    });
    let tasks = Tasks::new();
    let (at, peer) = (listen(&mut server).await, *server.local_peer_id());
    tasks.spawn("server", async move {
        loop {
            server.select_next_some().await;
        }
    });
    let mut asker = swarm(|key| Theirs {
        autonat: autonat::v2::client::Behaviour::default(),
        identify: identity(key),
    });
    let here = listen(&mut asker).await;
    let dial = DialOpts::peer_id(peer).addresses(vec![at]).build();
    asker.dial(dial).unwrap();
    loop {
        if let SwarmEvent::Behaviour(TheirsEvent::Autonat(event)) = asker.select_next_some().await {
            assert!(event.result.is_ok(), "{event:?}");
            assert_eq!(event.tested_addr, here);
            break;
        }
    }
    tasks.abort();
}

#[tokio::test]
async fn a_connection_that_was_made_for_who_does_not_listen_is_closed() {
    let mut server = swarm(|_| Behaviour::new(Network::Local));
    let tasks = Tasks::new();
    let (at, peer) = (listen(&mut server).await, *server.local_peer_id());
    tasks.spawn("server", async move {
        loop {
            server.select_next_some().await;
        }
    });
    // It asks for a dial and does not speak what is said after it.
    let mut deaf = swarm(|_| libp2p_stream::Behaviour::new());
    let here = listen(&mut deaf).await;
    let dial = DialOpts::peer_id(peer).addresses(vec![at]).build();
    deaf.dial(dial).unwrap();
    let mut control = deaf.behaviour().new_control();
    let mut ask = Some(async move {
        let mut stream = control.open_stream(peer, ASKED).await.unwrap();
        let request = Message::Request {
            addresses: vec![Some(here)],
            nonce: 7,
        };
        write(&mut stream, &request.encode()).await.unwrap();
        read(&mut stream).await.unwrap();
    });
    let closed = async {
        loop {
            match deaf.select_next_some().await {
                SwarmEvent::ConnectionEstablished { endpoint, .. } if endpoint.is_dialer() => {
                    tasks.spawn("ask", ask.take().unwrap());
                }
                SwarmEvent::ConnectionClosed { endpoint, .. } if endpoint.is_listener() => break,
                _ => {}
            }
        }
    };
    let in_time = tokio::time::timeout(MINUTE / 2, closed).await;
    in_time.expect("the connection to end");
    tasks.abort();
}

#[test]
fn a_stranger_has_few_addresses_tried_a_minute_and_all_together_not_many() {
    let behaviour = Behaviour::new(Network::Public);
    let granted = |peer: PeerId| {
        let asked = 0..DIALS_A_MINUTE;
        asked.filter(|_| behaviour.shared.may_dial(peer)).count()
    };
    assert_eq!(granted(PeerId::random()), DIALS_A_MINUTE_PER_PEER);
    let all: usize = (0..20).map(|_| granted(PeerId::random())).sum();
    assert_eq!(all, DIALS_A_MINUTE - DIALS_A_MINUTE_PER_PEER);
}
