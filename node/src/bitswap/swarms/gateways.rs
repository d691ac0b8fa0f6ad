//! Sessions over trustless gateways, with and without peers beside them.

use super::{Gateways, Map, Node, PATIENCE, RAW, Rules, made, throttle};
use crate::bitswap::http::car_tests::{car, parent};
use crate::bitswap::http::tests::{Answer, Gateway};
use crate::bitswap::message::Version;
use crate::bitswap::policy::ServeAll;
use crate::bitswap::worker::ANNOUNCED_MAX;
use crate::explain::{self, Ask, LeftOut, Step};
use crate::http::Endpoint;
use crate::limits::Limits;
use crate::routing::Provider;
use cairn_store::{Block, SourceError};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn node(map: Map, providers: Vec<Provider>, configured: Vec<Endpoint>) -> Node {
    let gateways = Gateways::new(crate::network::Network::Local, configured);
    let rules = Rules {
        throttle: throttle(Limits::default()),
        policy: Arc::new(ServeAll),
    };
    Node::start_beside(map, &Version::ALL, providers, gateways, rules).await
}

async fn client(configured: Vec<Endpoint>) -> Node {
    node(Map::default(), vec![], configured).await
}

/// How often a gateway was asked for a block, of those that it was asked for.
fn most_often(gateway: &Gateway) -> usize {
    let asked: Vec<_> = gateway.asked().iter().map(|asked| asked.cid()).collect();
    let times = |cid| asked.iter().filter(|other| *other == cid).count();
    asked.iter().map(times).max().unwrap_or(0)
}

fn address(gateway: &Gateway) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{}/http", gateway.address.port())
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_alone_gives_everything_once() {
    let blocks = made(300, 20_000, RAW);
    let gateway = Gateway::of(&blocks).await;
    let client = client(vec![gateway.endpoint()]).await;
    client.fetch(&blocks).await;
    let stat = client.bitswap.stat().await;
    assert_eq!(stat.blocks_received, 300);
    assert_eq!(stat.duplicate_blocks, 0);
    assert!(stat.peers.is_empty(), "a gateway is no peer");
    assert_eq!(gateway.asked().len(), 300);
    assert!(gateway.connections.load(Ordering::Relaxed) <= 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_one_half_and_a_gateway_the_other() {
    let blocks = made(200, 20_000, RAW);
    let (first, second) = blocks.split_at(100);
    let peer = Node::start(Map::of(first), &Version::ALL, vec![]).await;
    let gateway = Gateway::of(second).await;
    let client = client(vec![gateway.endpoint()]).await;
    client.connect(&peer).await;
    client.fetch(&blocks).await;
    let stat = client.bitswap.stat().await;
    assert_eq!(stat.blocks_received, 200);
    assert_eq!(stat.duplicate_blocks, 0);
    assert!(most_often(&gateway) <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_are_used_where_both_have_everything() {
    let blocks = made(402, 50_000, RAW);
    let (proof, rest) = blocks.split_at(2);
    let at_the_peer = Map::of(rest);
    at_the_peer.add(&proof[..1]);
    let peer = Node::start(at_the_peer, &Version::ALL, vec![]).await;
    let gateway = Gateway::of(&blocks[1..]).await;
    let client = client(vec![gateway.endpoint()]).await;
    client.connect(&peer).await;
    let work = client.bitswap.work(PATIENCE);
    // Each is known to have something before there is more to do than one can take.
    for block in proof {
        client.bitswap.fetch(&work, block.cid()).await.unwrap();
    }
    let before = gateway.asked().len();
    let fetches = rest
        .iter()
        .map(|block| client.bitswap.fetch(&work, block.cid()));
    for fetched in futures::future::join_all(fetches).await {
        fetched.unwrap();
    }
    let over_http = gateway.asked().len() - before;
    assert!((1..400).contains(&over_http), "{over_http}");
    assert!(client.bitswap.stat().await.blocks_received < 440);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_never_stored_and_another_gateway_is_asked() {
    let blocks = made(60, 5000, RAW);
    let liar = Gateway::start(|question| {
        let wrong = format!("not {}", question.target);
        Answer::block(wrong.as_bytes())
    })
    .await;
    let honest = Gateway::of(&blocks).await;
    let map = Map::default();
    let configured = vec![liar.endpoint(), honest.endpoint()];
    let client = node(map.clone(), vec![], configured).await;
    client.fetch(&blocks).await;
    assert_eq!(map.blocks.lock().unwrap().len(), blocks.len());
    // It is distrusted after each, and left for good after some.
    let asked: HashSet<_> = liar.asked().iter().map(|asked| asked.cid()).collect();
    assert!(asked.len() < blocks.len(), "{}", asked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_lies_about_everything_is_left_for_good() {
    let blocks = made(100, 100, RAW);
    let liar = Gateway::start(|_| Answer::block(b"always the same")).await;
    let client = client(vec![liar.endpoint()]).await;
    let work = client.bitswap.work(Duration::from_secs(2));
    let fetches = blocks
        .iter()
        .map(|block| client.bitswap.fetch(&work, block.cid()));
    for fetched in futures::future::join_all(fetches).await {
        assert!(matches!(fetched, Err(SourceError::TooSlow { .. })));
    }
    let asked = liar.asked().len();
    assert!((1..=40).contains(&asked), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_fail_in_any_way_do_not_keep_a_block_from_coming() {
    let blocks = made(20, 5000, RAW);
    let honest = Gateway::of(&blocks).await;
    let failing: [fn() -> Answer; 5] = [
        || Answer::status("404 Not Found"),
        || Answer::status("500 Internal Server Error"),
        || Answer::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n".to_vec()),
        || Answer::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\nx".to_vec()),
        || Answer::Nothing,
    ];
    let mut all = Vec::new();
    for answer in failing {
        all.push(Gateway::start(move |_| answer()).await);
    }
    let mut configured: Vec<Endpoint> = all.iter().map(Gateway::endpoint).collect();
    configured.push(honest.endpoint());
    // Where the honest one is asked first and is quick, no other need be asked at all.
    for _ in 0..5 {
        let client = client(configured.clone()).await;
        client.fetch(&blocks).await;
        if all.iter().any(|gateway| !gateway.asked().is_empty()) {
            return;
        }
    }
    panic!("none but the honest one was ever asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_gateway_is_asked_for_the_work_it_was_found_for() {
    let blocks = made(30, 10_000, RAW);
    let gateway = Gateway::of(&blocks).await;
    let provider = Provider {
        peer: PeerId::random(),
        addresses: vec![address(&gateway)],
    };
    let client = node(Map::default(), vec![provider], vec![]).await;
    client.fetch(&blocks).await;
    assert_eq!(client.bitswap.stat().await.duplicate_blocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_what_gateways_say() {
    let blocks = made(2, 10_000, RAW);
    let (without, with) = (Gateway::of(&[]).await, Gateway::of(&blocks[..1]).await);
    let client = client(vec![without.endpoint(), with.endpoint()]).await;
    let hear = async |block: &Block| {
        let work = client.bitswap.work(Duration::from_secs(2));
        let (teller, mut listener) = explain::pair();
        let fetch = client.bitswap.fetch_told(&work, block.cid(), Some(teller));
        let listen = async {
            let mut steps = Vec::new();
            while let Some(told) = listener.next().await {
                match told.step {
                    Step::Gateway { url, step } => steps.push((url, *step)),
                    Step::Asked { .. } | Step::Said { .. } => panic!("{told:?}"),
                    _ => {}
                }
            }
            steps
        };
        let (fetched, steps) = tokio::join!(fetch, listen);
        (fetched.is_ok(), steps)
    };
    let asks = |step: &Step| {
        matches!(
            step,
            Step::Asked {
                what: Ask::Block,
                ..
            }
        )
    };
    let lacks = |step: &Step| matches!(step, Step::Said { has: false, .. });
    let gives = |step: &Step| matches!(step, Step::Received { bytes: 10_000, .. });
    let of = |gateway: &Gateway| gateway.endpoint().to_string();
    let (is_here, steps) = hear(&blocks[0]).await;
    assert!(is_here);
    let given = steps.iter().find(|(_, step)| gives(step));
    assert_eq!(given.map(|(url, _)| url.clone()), Some(of(&with)));

    let (is_here, steps) = hear(&blocks[1]).await;
    assert!(!is_here);
    for gateway in [&without, &with] {
        let of_it = || steps.iter().filter(|(url, _)| *url == of(gateway));
        assert!(of_it().any(|(_, step)| asks(step)), "{steps:?}");
        assert!(of_it().any(|(_, step)| lacks(step)), "{steps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_in_vain_is_told_that_gateways_were_asked() {
    let gateway = Gateway::of(&[]).await;
    let blocks = made(1, 10, RAW);
    // One that may not be dialled is left out, whoever names it.
    let outside: Multiaddr = "/ip4/192.0.2.1/tcp/80/http".parse().unwrap();
    let provider = Provider {
        peer: PeerId::random(),
        addresses: vec![outside.clone()],
    };
    let configured = vec![
        gateway.endpoint(),
        Endpoint::from_multiaddr(&outside).unwrap(),
    ];
    let client = node(Map::default(), vec![provider], configured).await;
    let work = client.bitswap.work(Duration::from_millis(1500));
    let late = client.bitswap.fetch(&work, blocks[0].cid()).await;
    let Err(SourceError::TooSlow { tried, .. }) = late else {
        panic!("{late:?}");
    };
    assert!(
        tried.starts_with("no peer is connected; 1 gateway asked in vain; "),
        "{tried}"
    );
}

/// Fetches in vain; the announced gateways that were left out, and why.
async fn left_out(client: &Node, block: &Block) -> Vec<(String, LeftOut)> {
    let work = client.bitswap.work(Duration::from_millis(1500));
    let (teller, mut listener) = explain::pair();
    let fetch = client.bitswap.fetch_told(&work, block.cid(), Some(teller));
    let listen = async {
        let mut left_out = Vec::new();
        while let Some(told) = listener.next().await {
            if let Step::LeftOut { url, why } = told.step {
                left_out.push((url, why));
            }
        }
        left_out
    };
    let (fetched, left_out) = tokio::join!(fetch, listen);
    assert!(fetched.is_err(), "{fetched:?}");
    left_out
}

fn announced(addresses: Vec<Multiaddr>) -> Provider {
    Provider {
        peer: PeerId::random(),
        addresses,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_which_announced_gateway_is_outside() {
    let blocks = made(1, 10, RAW);
    let outside = announced(vec!["/ip4/0.0.0.0/tcp/1/http".parse().unwrap()]);
    let client = node(Map::default(), vec![outside], vec![]).await;
    let left_out = left_out(&client, &blocks[0]).await;
    let expected = ("http://0.0.0.0:1".to_owned(), LeftOut::Outside);
    assert_eq!(left_out.first(), Some(&expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_which_announced_gateways_are_too_many() {
    let blocks = made(2, 10, RAW);
    // Four gateways each; as many providers as two searches find.
    let providers = (0..20).map(|nth| {
        let gateways = (0..4).map(|gateway| {
            let address = format!("/ip4/127.0.{nth}.{}/tcp/1/http", gateway + 1);
            address.parse().unwrap()
        });
        announced(gateways.collect())
    });
    let client = node(Map::default(), providers.collect(), vec![]).await;
    let mut left = left_out(&client, &blocks[0]).await;
    left.extend(left_out(&client, &blocks[1]).await);
    assert!(
        left.iter().all(|(_, why)| *why == LeftOut::TooMany),
        "{left:?}"
    );
    let urls: HashSet<_> = left.iter().map(|(url, _)| url).collect();
    assert_eq!(urls.len(), 4 * 20 - ANNOUNCED_MAX, "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_that_a_barred_gateway_is_left_out_and_it_is_asked_no_more() {
    let blocks = made(101, 100, RAW);
    let liar = Gateway::start(|_| Answer::block(b"always the same")).await;
    let again = announced(vec![address(&liar)]);
    let client = node(Map::default(), vec![again], vec![liar.endpoint()]).await;
    let work = client.bitswap.work(Duration::from_secs(2));
    let (last, others) = blocks.split_last().unwrap();
    let fetches = others
        .iter()
        .map(|block| client.bitswap.fetch(&work, block.cid()));
    for fetched in futures::future::join_all(fetches).await {
        assert!(fetched.is_err(), "{fetched:?}");
    }
    let asked = liar.asked().len();
    let left_out = left_out(&client, last).await;
    let expected = (liar.endpoint().to_string(), LeftOut::Barred);
    assert_eq!(left_out.first(), Some(&expected));
    assert_eq!(
        liar.asked().len(),
        asked,
        "it is asked though it was left out"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_is_dropped_is_asked_for_no_more() {
    let blocks: Vec<Block> = made(40, 10, RAW);
    let gateway = Gateway::start(|_| Answer::Nothing).await;
    let client = client(vec![gateway.endpoint()]).await;
    let watch = async {
        while gateway.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    client.let_go(blocks[0].cid(), watch).await;
}

/// What a gateway does when it is asked for a CAR.
enum Car {
    Gives(Vec<u8>),
    Refuses,
    Drips,
}

/// A gateway with a DAG, block by block and as a CAR; the blocks, the root first.
async fn with_car(give: impl Fn(&Block, &[Block]) -> Car) -> (Gateway, Vec<Block>) {
    let leaves = made(50, 1000, RAW);
    let root = parent(&leaves);
    let answer = give(&root, &leaves);
    let mut blocks = vec![root];
    blocks.extend(leaves);
    let have = blocks.clone();
    let gateway = Gateway::start(move |question| {
        if question.is_car() {
            return match &answer {
                Car::Gives(car) => Answer::block(car),
                Car::Refuses => Answer::status("406 Not Acceptable"),
                Car::Drips => Answer::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
            };
        }
        let found = have.iter().find(|block| *block.cid() == question.cid());
        match found {
            Some(block) => Answer::block(block.data()),
            None => Answer::status("404 Not Found"),
        }
    })
    .await;
    (gateway, blocks)
}

/// Fetches the root and all else as a pin does; how many blocks were asked for one by one, and how
/// many CARs. On one thread everything is wanted before the CAR can come: what is wanted after it is asked for
/// while the store is looked into.
async fn fetch_whole(gateway: &Gateway, blocks: &[Block]) -> (usize, usize) {
    let map = Map::default();
    let client = node(map.clone(), vec![], vec![gateway.endpoint()]).await;
    let work = client.bitswap.work(PATIENCE);
    let root = client.bitswap.fetch(&work, blocks[0].cid()).await.unwrap();
    client.bitswap.prefetch(&work, root).await;
    let rest = blocks[1..]
        .iter()
        .map(|block| client.bitswap.fetch(&work, block.cid()));
    for (fetched, block) in futures::future::join_all(rest)
        .await
        .iter()
        .zip(&blocks[1..])
    {
        assert_eq!(fetched.as_ref().unwrap(), block);
    }
    assert_eq!(map.blocks.lock().unwrap().len(), blocks.len());
    let asked = gateway.asked();
    let cars = asked.iter().filter(|question| question.is_car()).count();
    (asked.len() - cars, cars)
}

#[tokio::test]
async fn a_dag_that_one_gateway_alone_has_comes_in_one_answer() {
    let whole = |root: &Block, leaves: &[Block]| Car::Gives(car(root, leaves));
    let (gateway, blocks) = with_car(whole).await;
    assert_eq!(fetch_whole(&gateway, &blocks).await, (1, 1));
}

#[tokio::test]
async fn what_a_car_lacks_is_asked_for_block_by_block() {
    let half = |root: &Block, leaves: &[Block]| Car::Gives(car(root, &leaves[..25]));
    let (gateway, blocks) = with_car(half).await;
    assert_eq!(fetch_whole(&gateway, &blocks).await, (26, 1));
    let wrong = |root: &Block, leaves: &[Block]| {
        let mut bytes = car(root, leaves);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        Car::Gives(bytes)
    };
    let (gateway, blocks) = with_car(wrong).await;
    let (asked, cars) = fetch_whole(&gateway, &blocks).await;
    assert!(asked >= 2 && cars == 1, "{asked} {cars}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_cars_is_asked_block_by_block() {
    let (gateway, blocks) = with_car(|_, _| Car::Refuses).await;
    assert_eq!(fetch_whole(&gateway, &blocks).await, (51, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wants_do_not_wait_for_a_car_that_gets_nowhere() {
    let (gateway, blocks) = with_car(|_, _| Car::Drips).await;
    assert_eq!(fetch_whole(&gateway, &blocks).await, (51, 1));
}
