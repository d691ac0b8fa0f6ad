//! Who stays connected, who is let in, and who is understood.

use super::*;
use crate::private::{Need, SwarmKey};
use std::os::unix::fs::OpenOptionsExt;

/// A configuration in which nobody is exempt from anything.
fn strict() -> Config {
    Config {
        limits: Limits {
            exempt: Vec::new(),
            ..Limits::default()
        },
        ..config(&[TCP])
    }
}

async fn node(config: Config) -> TestNode {
    TestNode::with(&Keypair::generate_ed25519(), config)
        .await
        .unwrap()
}

fn is_gone(peer: PeerId) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Disconnected(gone) if *gone == peer)
}

fn is_there(peer: PeerId) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Connected(here) if *here == peer)
}

#[tokio::test]
async fn above_the_high_water_the_least_useful_go_and_the_peered_stay() {
    let mut hub = node(Config {
        connections_low: 1,
        connections_high: 3,
        connection_grace: Duration::ZERO,
        ..config(&[TCP])
    })
    .await;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(TestNode::start(&[TCP]).await);
    }
    let peered = others[0].id();
    hub.peers.keep(others[0].address().await).unwrap();
    hub.until(is_there(peered)).await;
    for other in &others[1..4] {
        other.peers.connect(hub.address().await).await.unwrap();
        hub.until(is_there(other.id())).await;
    }
    // The peered one is the fourth, and does not count.
    assert_eq!(hub.peers.connected().await.len(), 4);
    // It may itself be one of those that are let go at once.
    let _: Result<PeerId, ConnectError> = others[4].peers.connect(hub.address().await).await;
    let mut left: HashSet<PeerId> = others.iter().map(TestNode::id).collect();
    while left.len() > 2 {
        let gone = async {
            loop {
                if let Ok(Event::Disconnected(peer)) = hub.events.recv().await {
                    return peer;
                }
            }
        };
        left.remove(&timeout(WATCHDOG, gone).await.unwrap());
    }
    assert!(left.contains(&peered));
    assert_eq!(hub.peers.connected().await.len(), 2);
    assert_eq!(hub.metric("cairn_connections_trimmed_total"), 3.0);
}

#[tokio::test]
async fn a_peered_node_is_dialled_again_when_it_has_gone() {
    let (mut here, mut there) = (TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await);
    let address = there.address().await;
    assert_eq!(here.peers.keep(address).unwrap(), there.id());
    here.until(is_there(there.id())).await;
    assert_eq!(here.peers.kept()[0].0, there.id());
    assert_eq!(here.metric("cairn_peering_away"), 0.0);
    there.until(is_there(here.id())).await;
    let name = Multiaddr::empty().with(Protocol::P2p(here.id()));
    there.peers.disconnect(name.clone()).await.unwrap();
    here.until(is_gone(there.id())).await;
    here.until(is_there(there.id())).await;
    // Taken from the list it is not.
    assert!(here.peers.let_go(&there.id()) && !here.peers.let_go(&there.id()));
    there.until(is_there(here.id())).await;
    there.peers.disconnect(name).await.unwrap();
    here.until(is_gone(there.id())).await;
    assert!(here.peers.kept().is_empty());
    assert_eq!(here.metric("cairn_peering_away"), 0.0);
}

#[tokio::test]
async fn a_peer_that_comes_up_later_is_found_by_who_wants_to_stay_with_it() {
    let keys = Keypair::generate_ed25519();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let peer = keys.public().to_peer_id();
    let mut here = node(Config {
        peering: vec![format!("{address}/p2p/{peer}").parse().unwrap()],
        ..config(&[TCP])
    })
    .await;
    // Dialled in vain, as what listens there says nothing and then is gone.
    drop(socket.accept().await.unwrap());
    drop(socket);
    assert_eq!(here.metric("cairn_peering_away"), 1.0);
    let there = TestNode::with(&keys, config(&[&address])).await.unwrap();
    here.until(is_there(there.id())).await;
    assert_eq!(here.metric("cairn_peering_away"), 0.0);
}

#[tokio::test]
async fn a_dial_leaves_from_another_port_where_somebody_else_has_ours() {
    // Held at another address of this machine by somebody who shares it with nobody.
    let bind = std::net::TcpListener::bind::<(&str, u16)>;
    let held = std::iter::repeat_with(|| bind(("127.0.0.2", 0)).unwrap());
    let port_of = |holder: &std::net::TcpListener| holder.local_addr().unwrap().port();
    let mut free_here = held
        .take(100)
        .filter(|holder| bind(("127.0.0.1", port_of(holder))).is_ok());
    let holder = free_here.next().unwrap();
    let port = port_of(&holder);
    let here = node(config(&[&format!("/ip4/127.0.0.1/tcp/{port}")])).await;
    let there = TestNode::start(&[TCP, WEB]).await;
    for address in there.addresses().await {
        here.peers.connect(address.clone()).await.unwrap();
        here.peers.disconnect(address).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_closes_a_connection_at_once_is_named_and_counts_it() {
    let full = node(Config {
        connections_max: 1,
        ..config(&[TCP])
    })
    .await;
    let (first, second) = (TestNode::start(&[]).await, TestNode::start(&[]).await);
    first.peers.connect(full.address().await).await.unwrap();
    let told = second.peers.connect(full.address().await).await;
    let told = told.unwrap_err();
    assert!(matches!(told, ConnectError::ClosedAtOnce(peer) if peer == full.id()));
    assert!(told.to_string().contains("`fetch.connections`"), "{told}");
    assert_eq!(
        full.labelled("cairn_connections_refused_total", "limit"),
        1.0
    );
    // Our own limit is named to whoever dials.
    let other = TestNode::start(&[TCP]).await;
    let told = full.peers.connect(other.address().await).await;
    let told = told.unwrap_err().to_string();
    assert!(told.contains("`fetch.connections`"), "{told}");
    assert_eq!(
        full.labelled("cairn_connections_refused_total", "limit"),
        2.0
    );
}

/// A peer that hangs once it knows who has called: its connections stay, and nothing comes from it any more.
/// It ends with the sender.
fn hanging() -> (oneshot::Receiver<Multiaddr>, std::sync::mpsc::Sender<()>) {
    let (tell, address) = oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        // What it began stands still from then on, for lack of anybody who drives it.
        let swarm = runtime.block_on(async {
            let mut swarm = tls_only();
            swarm.listen_on(TCP.parse().unwrap()).unwrap();
            let mut tell = Some(tell);
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { address, .. } => {
                        let address = address.with(Protocol::P2p(*swarm.local_peer_id()));
                        tell.take().unwrap().send(address).unwrap();
                    }
                    SwarmEvent::Behaviour(PlainEvent::Identify(identify::Event::Received {
                        ..
                    })) => return swarm,
                    _ => {}
                }
            }
        });
        let _: Result<(), _> = ended.recv();
        drop((swarm, runtime));
    });
    (address, end)
}

#[tokio::test]
async fn a_peer_that_hangs_is_let_go_when_it_answers_no_ping() {
    let mut here = node(Config {
        ping_interval: Duration::from_millis(10),
        ping_timeout: Duration::from_millis(100),
        ..config(&[])
    })
    .await;
    let (address, _end) = hanging();
    let (peer, address) = split(address.await.unwrap()).unwrap();
    here.peers.dial(peer, vec![address.unwrap()]).await.unwrap();
    here.until(is_gone(peer)).await;
}

#[tokio::test]
async fn whom_we_cannot_dial_we_cannot_stay_connected_to() {
    let here = TestNode::start(&[TCP]).await;
    let peer = PeerId::random();
    let named = |address: &str| {
        address
            .parse::<Multiaddr>()
            .unwrap()
            .with(Protocol::P2p(peer))
    };
    let keep = |address| here.peers.keep(address).unwrap_err().to_string();
    assert!(keep(named("/ip4/192.0.2.1/tcp/1")).contains("outside the network"));
    assert!(keep("/ip4/127.0.0.1/tcp/1".parse().unwrap()).contains("/p2p/"));
    assert!(keep(Multiaddr::empty().with(Protocol::P2p(peer))).contains("no address"));
    assert!(keep(here.address().await).contains("this node itself"));
    assert!(here.peers.kept().is_empty());
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_one_more_when_one_goes() {
    let mut hub = node(Config {
        connections_per_address_max: 2,
        ..strict()
    })
    .await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(TestNode::start(&[TCP]).await);
    }
    let address = hub.address().await;
    for other in &others[..2] {
        other.peers.connect(address.clone()).await.unwrap();
        hub.until(is_there(other.id())).await;
    }
    others[2].peers.connect(address.clone()).await.unwrap_err();
    assert_eq!(hub.peers.connected().await.len(), 2);
    let refused = |reason: &str| hub.labelled("cairn_connections_refused_total", reason);
    assert_eq!(refused("address"), 1.0);
    let gone = others.remove(0);
    let id = gone.id();
    gone.stop().await;
    hub.until(is_gone(id)).await;
    others[1].peers.connect(address).await.unwrap();
    hub.until(is_there(others[1].id())).await;
    assert_eq!(hub.peers.connected().await.len(), 2);
}

#[tokio::test]
async fn filters_close_what_they_cover_and_keep_it_out_both_ways() {
    let (mut here, there) = (TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await);
    here.peers.connect(there.address().await).await.unwrap();
    let elsewhere = "/ip4/127.0.0.2/ipcidr/32".parse().unwrap();
    here.peers.set_filters(vec![elsewhere]);
    assert_eq!(here.peers.connected().await.len(), 1);
    here.peers
        .set_filters(vec!["127.0.0.1/32".parse().unwrap()]);
    here.until(is_gone(there.id())).await;
    here.peers.connect(there.address().await).await.unwrap_err();
    there.peers.connect(here.address().await).await.unwrap_err();
    assert!(here.labelled("cairn_connections_refused_total", "filter") >= 2.0);
    here.peers.set_filters(Vec::new());
    there.peers.connect(here.address().await).await.unwrap();
}

#[tokio::test]
async fn who_is_asked_for_a_ping_answers_and_who_is_not_there_does_not() {
    let (here, mut there) = (TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await);
    let mut pinging = here.peers.ping(there.address().await).await.unwrap();
    assert_eq!(pinging.peer(), there.id());
    for _ in 0..3 {
        pinging.once().await.unwrap();
    }
    // By name, over the connection there is; two at a time.
    let name = Multiaddr::empty().with(Protocol::P2p(there.id()));
    let mut second = here.peers.ping(name.clone()).await.unwrap();
    second.once().await.unwrap();
    // Though the other end answers one stream alone.
    pinging.once().await.unwrap();
    second.once().await.unwrap();
    let address = there.address().await;
    there.until(is_there(here.id())).await;
    there.stop().await;
    assert!(pinging.once().await.is_err());
    assert!(here.peers.ping(address).await.is_err());
}

fn key(digit: char) -> SwarmKey {
    let folder = tempfile::tempdir().unwrap();
    let digits: String = std::iter::repeat_n(digit, 64).collect();
    let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{digits}\n");
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600);
    let mut file = file.open(folder.path().join("swarm.key")).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    SwarmKey::load(folder.path(), Need::Must).unwrap().unwrap()
}

#[tokio::test]
async fn with_the_same_key_nodes_talk_and_with_another_or_none_they_do_not() {
    let private = |digit, listen: &str| Config {
        private: Some(key(digit)),
        handshake_timeout: Duration::from_secs(2),
        ..config(&[listen])
    };
    for listen in [TCP, WEB] {
        let mut inside = node(private('a', listen)).await;
        let mut friend = node(private('a', listen)).await;
        friend.join(&mut inside).await;
        assert_eq!(inside.peers.connected().await.len(), 1);
        let stranger = node(private('b', listen)).await;
        let open = TestNode::start(&[listen]).await;
        // Whichever end has none or another, both are told of the key.
        for outside in [&stranger, &open] {
            for (from, to) in [(outside, &inside), (&inside, outside)] {
                let told = from.peers.connect(to.address().await).await;
                let told = told.unwrap_err().to_string();
                assert!(told.contains("swarm.key"), "{told}");
                let told = from.peers.ping(to.address().await).await;
                let told = told.unwrap_err().to_string();
                assert!(told.contains("swarm.key"), "{told}");
            }
        }
        assert_eq!(inside.peers.connected().await.len(), 1);
    }
}

#[tokio::test]
async fn of_whoever_sends_noise_it_is_said_what_it_may_be() {
    use tokio::io::AsyncWriteExt;
    let here = TestNode::start(&[]).await;
    // A length that is none, one that is too long, a line that is none.
    for noise in [&[0x80, 0][..], &[0xff, 0xff], &[1, 7]] {
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, peer) = (there.local_addr().unwrap().port(), PeerId::random());
        let address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}");
        let answer = async {
            let (mut socket, _) = there.accept().await.unwrap();
            socket.write_all(noise).await.unwrap();
            socket
        };
        let (told, _open) = futures::join!(here.peers.connect(address.parse().unwrap()), answer);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("swarm.key"), "{noise:?}: {told}");
    }
    here.stop().await;
}

#[tokio::test]
async fn a_private_network_has_no_quic_and_does_not_begin_in_the_public_one() {
    let private = Config {
        private: Some(key('a')),
        ..config(&[TCP, QUIC])
    };
    let keys = Keypair::generate_ed25519();
    let error = TestNode::with(&keys, private.clone()).await.err().unwrap();
    assert!(matches!(error, StartError::PrivateQuic(_)), "{error}");
    let peer = PeerId::random();
    let error = TestNode::with(
        &keys,
        Config {
            listen: vec![TCP.parse().unwrap()],
            bootstrap: vec![
                format!("/dnsaddr/bootstrap.libp2p.io/p2p/{peer}")
                    .parse()
                    .unwrap(),
            ],
            ..private.clone()
        },
    )
    .await
    .err()
    .unwrap();
    assert!(matches!(error, StartError::PrivateBootstrap(_)), "{error}");
    // Nor is QUIC dialled.
    let inside = node(Config {
        listen: vec![TCP.parse().unwrap()],
        ..private
    })
    .await;
    let open = TestNode::start(&[QUIC]).await;
    let told = inside.peers.connect(open.address().await).await;
    let told = told.unwrap_err().to_string();
    assert!(told.contains("no QUIC in a private network"), "{told}");
}

#[tokio::test]
async fn a_dial_that_is_not_made_names_the_setting_that_forbids_it() {
    let here = TestNode::start(&[TCP]).await;
    let there = TestNode::start(&[TCP]).await;
    let range: Filter = "127.0.0.0/8".parse().unwrap();
    here.peers.set_filters(vec![range]);
    let told = here.peers.connect(there.address().await).await;
    let told = told.unwrap_err().to_string();
    let why = "it is in /ip4/127.0.0.0/ipcidr/8, which is in `swarm.filters`";
    assert!(told.contains(why), "{told}");
    // Of those that are not filtered some may lie outside, which is said of them.
    here.peers.set_filters(Vec::new());
    let far = "/ip4/192.0.2.1/tcp/1".parse::<Multiaddr>().unwrap();
    let far = far.with(Protocol::P2p(there.id()));
    let told = here.peers.connect(far).await.unwrap_err().to_string();
    assert!(told.contains("outside the network `local`"), "{told}");
}
