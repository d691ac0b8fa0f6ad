//! Bitswap between real swarms over TCP on loopback: what the simulation cannot show.

mod gateways;
mod hostile;

use super::message::Version;
use super::policy::{DenyContent, PeerLists, Policy, ServeAll};
use super::{Bitswap, Blocks, Gateways, Network, Reach, Rules, behaviour};
use crate::event::Event;
use crate::explain::{self, Ask, Step};
use crate::limits::Limits;
use crate::routing::Provider;
use crate::tasks::Tasks;
use crate::throttle::Throttle;
use bytes::Bytes;
use cairn_store::block::{BLOCK_BYTES_MAX, Prefix};
use cairn_store::cid::{self, HashKind};
use cairn_store::{Block, Cid, SourceError};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt, stream};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, noise, tcp, yamux};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(60);

/// A store in memory; a forger's gives out other bytes than it was given.
#[derive(Clone, Default)]
struct Map {
    blocks: Arc<Mutex<HashMap<Vec<u8>, Bytes>>>,
    forges: bool,
    /// How often it was asked for a size, and for how many such questions it pretends to be empty.
    looks: Arc<AtomicUsize>,
    blind_for: usize,
}

impl Map {
    fn of(blocks: &[Block]) -> Self {
        let map = Self::default();
        map.add(blocks);
        map
    }

    fn add(&self, blocks: &[Block]) {
        let mut inside = self.blocks.lock().unwrap();
        for block in blocks {
            inside.insert(block.cid().hash().to_bytes(), block.data().clone());
        }
    }

    fn bytes(&self, cid: &Cid) -> Option<Bytes> {
        let inside = self.blocks.lock().unwrap();
        inside.get(&cid.hash().to_bytes()).cloned()
    }
}

impl Blocks for Map {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        match self.forges {
            true => Some(Bytes::from(format!("not {cid}"))),
            false => self.bytes(cid),
        }
    }

    async fn find(&self, cid: &Cid) -> Option<Block> {
        let data = self.bytes(cid)?;
        let prefix = super::message::prefix_of(cid).unwrap();
        Some(Block::new(prefix, data).unwrap())
    }

    async fn size(&self, cid: &Cid) -> Option<u64> {
        if self.looks.fetch_add(1, Ordering::Relaxed) < self.blind_for {
            return None;
        }
        self.bytes(cid).map(|data| data.len() as u64)
    }

    async fn put(&self, blocks: Vec<Block>) -> Result<(), String> {
        self.add(&blocks);
        Ok(())
    }
}

fn throttle(limits: Limits) -> Throttle {
    Throttle::new(limits, &prometheus::Registry::new()).unwrap()
}

/// Dials through the swarm's task; knows the providers it was told of, and tells of others each time if they
/// are more than it may tell of.
#[derive(Clone)]
struct Dialler {
    dials: mpsc::Sender<(Multiaddr, oneshot::Sender<bool>)>,
    providers: Vec<Provider>,
    searches: Arc<AtomicUsize>,
}

impl Network for Dialler {
    fn providers(&self, _: Cid, limit: usize) -> BoxStream<'static, Provider> {
        let turns = self.providers.len().div_ceil(limit).max(1);
        let turn = self.searches.fetch_add(1, Ordering::Relaxed) % turns;
        let told = self.providers.clone().into_iter();
        stream::iter(told.skip(turn * limit).take(limit)).boxed()
    }

    async fn connect(&self, provider: Provider) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let Some(address) = provider.addresses.first().cloned() else {
            return Err("nobody there".to_owned());
        };
        self.dials.send((address, reply)).await.unwrap();
        match answer.await {
            Ok(true) => Ok(()),
            _ => Err("nobody there".to_owned()),
        }
    }
}

struct Node {
    id: PeerId,
    address: Multiaddr,
    bitswap: Bitswap,
    dialler: Dialler,
    events: broadcast::Sender<Event>,
    tasks: Tasks,
    registry: prometheus::Registry,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Node {
    async fn start(map: Map, versions: &'static [Version], providers: Vec<Provider>) -> Self {
        let throttle = throttle(Limits::default());
        let policy = Arc::new(ServeAll);
        Self::start_with(map, versions, providers, Rules { throttle, policy }).await
    }

    async fn start_with(
        map: Map,
        versions: &'static [Version],
        providers: Vec<Provider>,
        rules: Rules,
    ) -> Self {
        let gateways = Gateways::new(crate::network::Network::Local, Vec::new());
        Self::start_beside(map, versions, providers, gateways, rules).await
    }

    async fn start_beside(
        map: Map,
        versions: &'static [Version],
        providers: Vec<Provider>,
        gateways: Gateways,
        rules: Rules,
    ) -> Self {
        let (behaviour, wire) = behaviour::pair(versions);
        let mut swarm = swarm_of(behaviour);
        let id = *swarm.local_peer_id();
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
            .unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let (dials, asked) = mpsc::channel(10);
        let dialler = Dialler {
            dials,
            providers,
            searches: Arc::default(),
        };
        let reach = Reach {
            me: id,
            network: dialler.clone(),
            gateways,
        };
        let tasks = Tasks::new();
        let (events, _) = broadcast::channel(4096);
        let registry = prometheus::Registry::new();
        let bitswap =
            Bitswap::start_with(wire, map, reach, rules, &tasks, events.clone(), &registry)
                .unwrap();
        let stopping = tasks.stopping();
        tasks.spawn("swarm", async move {
            stopping.run_until_cancelled_owned(turn(swarm, asked)).await;
        });
        Self {
            id,
            address,
            bitswap,
            dialler,
            events,
            tasks,
            registry,
        }
    }

    async fn connect(&self, other: &Node) {
        self.dialler.connect(other.provider()).await.unwrap();
    }

    fn provider(&self) -> Provider {
        Provider {
            peer: self.id,
            addresses: vec![self.address.clone()],
        }
    }

    /// Fetches what nobody has, lets go of it after `begun`, and waits until it is wanted no more.
    async fn let_go(&self, cid: &Cid, begun: impl Future<Output = ()>) {
        let work = self.bitswap.work(PATIENCE);
        tokio::select! {
            _ = self.bitswap.fetch(&work, cid) => panic!("nobody has it"),
            () = begun => {}
        }
        let forgotten = async {
            while !self.bitswap.stat().await.wantlist.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let forgotten = tokio::time::timeout(PATIENCE, forgotten).await;
        forgotten.expect("wanted no more in time");
    }

    async fn fetch(&self, blocks: &[Block]) {
        let work = self.bitswap.work(PATIENCE);
        let all: FuturesUnordered<_> = blocks
            .iter()
            .map(|block| self.bitswap.fetch(&work, block.cid()))
            .collect();
        let fetched: Vec<_> = tokio::time::timeout(PATIENCE, all.collect()).await.unwrap();
        let count = fetched
            .into_iter()
            .map(Result::unwrap)
            .filter(|block| blocks.contains(block))
            .count();
        assert_eq!(count, blocks.len());
    }
}

fn swarm_of(behaviour: behaviour::Behaviour) -> Swarm<behaviour::Behaviour> {
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .build()
}

async fn turn(
    mut swarm: Swarm<behaviour::Behaviour>,
    mut dials: mpsc::Receiver<(Multiaddr, oneshot::Sender<bool>)>,
) {
    let mut waiting: Vec<oneshot::Sender<bool>> = Vec::new();
    loop {
        tokio::select! {
            Some((address, reply)) = dials.recv() => {
                swarm.dial(address).unwrap();
                waiting.push(reply);
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { .. } => {
                    for reply in waiting.drain(..) {
                        let _ = reply.send(true);
                    }
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            },
        }
    }
}

fn made(count: usize, bytes: usize, prefix: Prefix) -> Vec<Block> {
    let data = (0..count).map(|at| {
        let mut data = vec![7; bytes];
        data[..8].copy_from_slice(&(at as u64).to_be_bytes());
        Bytes::from(data)
    });
    Block::new_many(prefix, data.collect()).unwrap()
}

const RAW: Prefix = Prefix {
    version: cid::Version::V1,
    codec: cid::RAW,
    hash: HashKind::Sha2_256,
};
const V0: Prefix = Prefix {
    version: cid::Version::V0,
    codec: cid::DAG_PB,
    hash: HashKind::Sha2_256,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_blocks_and_the_largest_ones_arrive() {
    let mut blocks = made(300, 40_000, RAW);
    blocks.extend(made(10, BLOCK_BYTES_MAX, RAW));
    blocks.extend(made(20, 100, V0));
    let server = Node::start(Map::of(&blocks), &Version::ALL, vec![]).await;
    let map = Map::default();
    let client = Node::start(map.clone(), &Version::ALL, vec![]).await;
    let mut events = client.events.subscribe();
    client.connect(&server).await;
    client.fetch(&blocks).await;
    for block in &blocks {
        assert_eq!(map.bytes(block.cid()), Some(block.data().clone()));
        assert!(matches!(events.recv().await, Ok(Event::Fetched(_))));
    }
    let (received, sent) = (client.bitswap.stat().await, server.bitswap.stat().await);
    assert_eq!(received.blocks_received, blocks.len() as u64);
    assert_eq!(received.duplicate_blocks, 0);
    assert_eq!(received.peers, [server.id]);
    assert!(received.wantlist.is_empty());
    assert!(sent.data_sent <= received.data_received);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_over_the_limit_is_refused_by_name_and_its_peer_is_kept() {
    let data = Bytes::from(vec![7; BLOCK_BYTES_MAX + 1]);
    let large = RAW.name_of(&data).unwrap();
    let blocks = made(2, 1000, RAW);
    let map = Map::of(&blocks);
    let hash = large.hash().to_bytes();
    map.blocks.lock().unwrap().insert(hash, data);
    let server = Node::start(map, &Version::ALL, vec![]).await;
    let taken = Map::default();
    let client = Node::start(taken.clone(), &Version::ALL, vec![]).await;
    client.connect(&server).await;
    let work = client.bitswap.work(PATIENCE);
    for _ in 0..2 {
        let (teller, mut listener) = explain::pair();
        let refused = client.bitswap.fetch_told(&work, &large, Some(teller));
        let refused = refused.await;
        // It ends with the reason, and nobody holds on to whoever listens.
        let mut last = None;
        while let Some(told) = listener.next().await {
            last = Some(told.step);
        }
        let bytes = BLOCK_BYTES_MAX as u64 + 1;
        assert!(
            matches!(&last, Some(Step::TooLarge { bytes: told }) if *told == bytes),
            "{last:?}"
        );
        assert!(
            matches!(&refused, Err(SourceError::TooLarge { cid, bytes })
                if *cid == large && *bytes == BLOCK_BYTES_MAX as u64 + 1),
            "{refused:?}"
        );
    }
    client.fetch(&blocks).await;
    assert_eq!(taken.bytes(&large), None);
    assert_eq!(client.bitswap.stat().await.wantlist, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_at_once() {
    let (mine, theirs) = (made(100, 100_000, RAW), made(100, 99_999, RAW));
    let one = Node::start(Map::of(&mine), &Version::ALL, vec![]).await;
    let other = Node::start(Map::of(&theirs), &Version::ALL, vec![]).await;
    one.connect(&other).await;
    tokio::join!(one.fetch(&theirs), other.fetch(&mine));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_older_versions_serve_and_are_served() {
    const OLD: [&[Version]; 3] = [&[Version::V1_1], &[Version::V1_0], &[Version::V0]];
    for versions in OLD {
        let (mine, theirs) = (made(50, 30_000, V0), made(50, 20_000, V0));
        let old = Node::start(Map::of(&mine), versions, vec![]).await;
        let new = Node::start(Map::of(&theirs), &Version::ALL, vec![]).await;
        new.connect(&old).await;
        tokio::join!(new.fetch(&mine), old.fetch(&theirs));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_never_stored_and_the_honest_peer_is_used() {
    let blocks = made(60, 5000, RAW);
    let mut forged = Map::of(&blocks);
    forged.forges = true;
    let forger = Node::start(forged, &Version::ALL, vec![]).await;
    let honest = Node::start(Map::of(&blocks), &Version::ALL, vec![]).await;
    let map = Map::default();
    let client = Node::start(map.clone(), &Version::ALL, vec![]).await;
    client.connect(&forger).await;
    client.connect(&honest).await;
    client.fetch(&blocks).await;
    assert_eq!(map.blocks.lock().unwrap().len(), blocks.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_are_found_dialled_and_asked() {
    let blocks = made(20, 10_000, RAW);
    let server = Node::start(Map::of(&blocks), &Version::ALL, vec![]).await;
    let providers = vec![server.provider()];
    let client = Node::start(Map::default(), &Version::ALL, providers).await;
    client.fetch(&blocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_added_at_a_peer_after_it_was_asked_arrives() {
    let blocks = made(1, 10_000, RAW);
    let map = Map::default();
    let server = Node::start(map.clone(), &Version::ALL, vec![]).await;
    let client = Node::start(Map::default(), &Version::ALL, vec![]).await;
    client.connect(&server).await;
    let fetch = client.fetch(&blocks);
    let add = async {
        while server.bitswap.stat().await.messages_received == 0 {
            tokio::task::yield_now().await;
        }
        map.add(&blocks);
    };
    tokio::join!(fetch, add);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_was_stored_before_the_fetch_was_heard_is_handed_over_at_once() {
    let blocks = made(2, 10_000, RAW);
    let client = Node::start(Map::of(&blocks), &Version::ALL, vec![]).await;
    client.fetch(&blocks).await;
    assert!(client.bitswap.stat().await.wantlist.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_added_here_ends_the_fetch_that_waits_for_it() {
    let blocks = made(1, 10_000, RAW);
    let map = Map::default();
    let client = Node::start(map.clone(), &Version::ALL, vec![]).await;
    let add = async {
        // The first look was in vain before providers are searched for.
        let looks = || map.looks.load(Ordering::Relaxed);
        while looks() == 0 {
            tokio::task::yield_now().await;
        }
        map.add(&blocks);
    };
    tokio::join!(client.fetch(&blocks), add);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_looks_into_the_store_once_more_before_it_gives_up() {
    let blocks = made(1, 10_000, RAW);
    let mut map = Map::of(&blocks);
    // The look at the beginning does not see it, and no other comes within the time.
    map.blind_for = 1;
    let client = Node::start(map.clone(), &Version::ALL, vec![]).await;
    let work = client.bitswap.work(Duration::from_millis(300));
    let fetched = client.bitswap.fetch(&work, blocks[0].cid()).await;
    assert_eq!(fetched.unwrap(), blocks[0]);
    assert_eq!(map.looks.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_is_dropped_wants_nothing_any_more_and_one_that_waits_gives_up() {
    let blocks = made(1, 10, RAW);
    let client = Node::start(Map::default(), &Version::ALL, vec![]).await;
    let work = client.bitswap.work(Duration::from_millis(300));
    let late = client.bitswap.fetch(&work, blocks[0].cid()).await;
    let Err(SourceError::TooSlow { tried, .. }) = late else {
        panic!("{late:?}");
    };
    assert!(tried.contains("1 search for providers found 0"), "{tried}");
    let watch = async {
        while client.bitswap.stat().await.wantlist.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    client.let_go(blocks[0].cid(), watch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_keep_account_of_what_was_exchanged() {
    let blocks = made(30, 40_000, RAW);
    let server = Node::start(Map::of(&blocks), &Version::ALL, vec![]).await;
    let client = Node::start(Map::default(), &Version::ALL, vec![]).await;
    assert_eq!(client.bitswap.account(server.id).await, None);
    client.connect(&server).await;
    client.fetch(&blocks).await;
    let received = client.bitswap.account(server.id).await.unwrap();
    assert_eq!(
        (received.blocks_received, received.bytes_received),
        (30, 1_200_000)
    );
    assert_eq!(received.blocks_sent, 0);
    // What was written is told after it came.
    let sent = loop {
        let sent = server.bitswap.account(client.id).await.unwrap();
        if sent.blocks_sent == 30 {
            break sent;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((sent.bytes_sent, sent.bytes_received), (1_200_000, 0));
    assert!(sent.messages_received > 0 && sent.messages_sent > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_is_never_sent_and_nobody_denied_gets_anything() {
    let blocks = made(4, 10_000, RAW);
    let denied: DenyContent = [*blocks[0].cid().hash()].into_iter().collect();
    let stranger = Node::start(Map::default(), &Version::ALL, vec![]).await;
    let lists = PeerLists {
        deny: [stranger.id].into_iter().collect(),
        ..PeerLists::default()
    };
    let policies: [(Arc<dyn Policy>, usize); 2] = [(Arc::new(denied), 1), (Arc::new(lists), 4)];
    for (policy, refused) in policies {
        let rules = Rules {
            throttle: throttle(Limits::default()),
            policy,
        };
        let server = Node::start_with(Map::of(&blocks), &Version::ALL, vec![], rules).await;
        let other = Node::start(Map::default(), &Version::ALL, vec![]).await;
        let client = if refused == 4 { &stranger } else { &other };
        client.connect(&server).await;
        let work = client.bitswap.work(Duration::from_secs(2));
        let all = blocks
            .iter()
            .map(|block| client.bitswap.fetch(&work, block.cid()));
        let fetched = futures::future::join_all(all).await;
        for (at, fetched) in fetched.into_iter().enumerate() {
            assert_eq!(fetched.is_err(), at < refused, "{at} of {refused}");
        }
        assert_eq!(server.bitswap.stat().await.blocks_sent, 4 - refused as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_how_a_block_is_found_and_how_another_is_not() {
    let blocks = made(2, 10_000, RAW);
    let server = Node::start(Map::of(&blocks[..1]), &Version::ALL, vec![]).await;
    let gone = Provider {
        peer: PeerId::random(),
        addresses: vec![],
    };
    let providers = vec![server.provider(), gone.clone()];
    let client = Node::start(Map::default(), &Version::ALL, providers).await;
    let hear = async |block: &Block| {
        let work = client.bitswap.work(Duration::from_secs(3));
        let (teller, mut listener) = explain::pair();
        let fetch = client.bitswap.fetch_told(&work, block.cid(), Some(teller));
        let fetched = fetch.await;
        let mut steps = Vec::new();
        while let Some(told) = listener.next().await {
            steps.push(told.step);
        }
        assert_eq!(listener.dropped(), 0);
        (fetched, steps)
    };
    let (fetched, steps) = hear(&blocks[0]).await;
    assert_eq!(fetched.unwrap(), blocks[0]);
    let peer = server.id;
    let found = Step::Found {
        peer,
        addresses: server.provider().addresses,
        connected: false,
    };
    let what = Ask::Block;
    // That its dial is over may be told after all else.
    for step in [
        Step::Begun { connected: 0 },
        Step::Searching,
        found,
        Step::Asked { peer, what },
    ] {
        assert!(steps.contains(&step), "{step:?} in {steps:?}");
    }
    let received = steps.iter().any(|step| match step {
        Step::Received {
            peer: from,
            bytes,
            took,
        } => *from == peer && *bytes == 10_000 && took.is_some(),
        _ => false,
    });
    assert!(received, "{steps:?}");
    assert_eq!(steps.last(), Some(&Step::Stored));

    let (fetched, steps) = hear(&blocks[1]).await;
    let Err(SourceError::TooSlow { tried, .. }) = fetched else {
        panic!("{fetched:?}");
    };
    assert_eq!(steps[0], Step::Begun { connected: 1 });
    let has = false;
    assert!(steps.contains(&Step::Said { peer, has }), "{steps:?}");
    let failed = Step::Dialled {
        peer: gone.peer,
        outcome: Err("nobody there".into()),
    };
    assert!(steps.contains(&failed), "{steps:?}");
    let tried = tried.to_string();
    assert!(tried.contains("asked 1 of 1 connected peers"), "{tried}");
    assert!(
        tried.ends_with("1 failed, the last: nobody there"),
        "{tried}"
    );
    assert_eq!(steps.last(), Some(&Step::GivenUp { tried }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_later_is_told_how_it_stands_and_nobody_else_again() {
    let block = &made(1, 10_000, RAW)[0];
    let server = Node::start(Map::default(), &Version::ALL, vec![]).await;
    let client = Node::start(Map::default(), &Version::ALL, vec![]).await;
    client.connect(&server).await;
    let ((teller, mut first), (later_teller, mut later)) = (explain::pair(), explain::pair());
    let works = [(); 2].map(|()| client.bitswap.work(Duration::from_secs(3)));
    let asked_first = client
        .bitswap
        .fetch_told(&works[0], block.cid(), Some(teller));
    let both = async {
        let mut steps = [vec![], vec![]];
        let begun = first.next().await.expect("its beginning").step;
        steps[0].push(begun);
        let asked_later = client
            .bitswap
            .fetch_told(&works[1], block.cid(), Some(later_teller));
        asked_later.await.unwrap_err();
        for (listener, steps) in [&mut first, &mut later].into_iter().zip(&mut steps) {
            while let Some(told) = listener.next().await {
                steps.push(told.step);
            }
        }
        steps
    };
    let (_, [first, later]) = tokio::join!(asked_first, both);
    let is_begun = |step: &&Step| matches!(step, Step::Begun { .. });
    for steps in [&first, &later] {
        assert_eq!(steps.iter().filter(is_begun).count(), 1, "{steps:?}");
    }
    assert_eq!(later[0], Step::Shared { others: 1 });
    assert!(is_begun(&&later[1]), "{later:?}");
}

/// Not a test: says how fast it is. `cargo test --release -- --ignored --nocapture speed`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    for (count, bytes) in [(512, 1 << 20), (2048, 256 << 10), (20_000, 1000)] {
        let blocks = made(count, bytes, RAW);
        let server = Node::start(Map::of(&blocks), &Version::ALL, vec![]).await;
        let client = Node::start(Map::default(), &Version::ALL, vec![]).await;
        client.connect(&server).await;
        let work = client.bitswap.work(PATIENCE);
        let start = std::time::Instant::now();
        stream::iter(&blocks)
            .map(|block| client.bitswap.fetch(&work, block.cid()))
            .buffer_unordered(64)
            .for_each(|fetched| async {
                fetched.unwrap();
            })
            .await;
        let took = start.elapsed().as_secs_f64();
        let total = (count * bytes) as f64 / 1e6;
        println!("{count} blocks of {bytes} bytes: {:.0} MB/s", total / took);
    }
}
