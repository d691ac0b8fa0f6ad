//! Nodes of ours, each in a process of its own, told what to do line by line.

use crate::attacker;
use crate::crowd;
use crate::liar;
use crate::net::Host;
use crate::process::{self, Talking, child};
use crate::relay;
use crate::stock;
use crate::{Numbered, net, torrent};
use cairn_node::{Config, Event, Keypair, Multiaddr, Network, Node, Security, Session};
use cairn_store::chunk::Chunker;
use cairn_store::config::{ByteSize, Reserve};
use cairn_store::pin::PinMode;
use cairn_store::store::Keep;
use cairn_store::unixfs::import::{Importer, Metadata};
use cairn_store::unixfs::{Profile, read};
use cairn_store::{BlockSource, Cid, Store};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::AsyncBufReadExt;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;

/// A node.
#[derive(Debug)]
pub struct Peer {
    process: Talking,
    address: String,
}

/// What a node counted, by the names of its metrics without `cairn_bitswap_`.
pub type Counts = BTreeMap<String, f64>;

impl Peer {
    /// A node over the repository in `folder`, here on loopback.
    pub fn here(folder: &Path) -> Self {
        Self::secured(folder, "tls,noise")
    }

    /// The same, offering only `security` (`tls`, `noise`, or both with a comma).
    pub fn secured(folder: &Path, security: &str) -> Self {
        let ip = Ipv4Addr::LOCALHOST;
        let given: [&dyn Display; 4] = [&folder.display(), &ip, &Network::Local, &security];
        Self::start(&mut child(NODE, &given))
    }

    /// The same, with no address that limits leave out.
    pub fn without_exempt(folder: &Path) -> Self {
        let (ip, security) = (Ipv4Addr::LOCALHOST, "tls,noise");
        let given: [&dyn Display; 5] = [
            &folder.display(),
            &ip,
            &Network::Local,
            &security,
            &NO_EXEMPT,
        ];
        Self::start(&mut child(NODE, &given))
    }

    /// A node over the repository in `folder`, on a host.
    pub fn at(host: &Host, folder: &Path) -> Self {
        let given: [&dyn Display; 3] = [&folder.display(), &host.ip(), &Network::Lan];
        Self::start(&mut host.at(&child(NODE, &given)))
    }

    /// Not one of ours: it says that it has everything, and sends blocks of this size that are
    /// something else.
    pub fn liar(host: &Host, block_bytes: u64) -> Self {
        let given: [&dyn Display; 2] = [&host.ip(), &block_bytes];
        Self::start(&mut host.at(&child(liar::PART, &given)))
    }

    fn start(command: &mut Command) -> Self {
        let mut process = Talking::start("a node", command);
        let address = process.hear("ready", SOON);
        Self { process, address }
    }

    /// Where it can be dialled.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects to an address.
    pub fn connect(&mut self, address: &str) {
        self.process.tell(format_args!("connect {address}"));
        self.process.hear("connected", SOON);
    }

    /// Starts to fetch what is below `cid`; [`Peer::took`] waits for the end.
    pub fn begin(&mut self, way: Way, cid: &Cid) {
        self.process.tell(format_args!("{} {cid}", way.name()));
    }

    /// Starts to pin what is below `cid`; [`Peer::is_half_way`] and [`Peer::took`] wait.
    pub fn begin_pin(&mut self, cid: &Cid, bytes: u64) {
        self.process.tell(format_args!("pin {cid} {bytes}"));
    }

    /// Waits until half of the bytes of a pin are here.
    pub fn is_half_way(&mut self) {
        self.process.hear("half", LONG);
    }

    /// Seconds that what was begun took.
    pub fn took(&mut self) -> f64 {
        let seconds = self.process.hear("took", LONG);
        seconds.parse().expect("seconds")
    }

    /// Fetches what is below `cid`; seconds.
    pub fn seconds(&mut self, way: Way, cid: &Cid) -> f64 {
        self.begin(way, cid);
        self.took()
    }

    /// Fetches blocks of [`Numbered`] by name, many at once; seconds.
    pub fn seconds_for_blocks(&mut self, seed: u64, bytes: usize, count: u64) -> f64 {
        self.process
            .tell(format_args!("blocks {seed} {bytes} {count}"));
        self.took()
    }

    /// Seconds that raw streams from a connected peer take, so many at once, for so many bytes in all.
    pub fn seconds_raw(&mut self, address: &str, bytes: u64, streams: u64) -> f64 {
        self.process
            .tell(format_args!("raw {address} {bytes} {streams}"));
        self.took()
    }

    /// What it counted so far.
    pub fn counts(&mut self) -> Counts {
        self.process.tell("counts");
        let line = self.process.hear("counts", SOON);
        let count = |pair: &str| {
            let (name, figure) = pair.split_once('=')?;
            Some((name.to_owned(), figure.parse().ok()?))
        };
        line.split(' ').filter_map(count).collect()
    }

    /// Connections that it has refused.
    pub fn refused(&mut self) -> u64 {
        self.process.tell("refused");
        let line = self.process.hear("refused", SOON);
        line.parse().expect("a number")
    }

    /// The memory that it has resident.
    pub fn resident(&self) -> u64 {
        process::memory_of(self.process.id(), "VmRSS:")
    }

    /// Seconds of processor time that it has used.
    pub fn processor_seconds(&self) -> f64 {
        process::processor_seconds(self.process.id())
    }

    /// The most memory that it had resident.
    pub fn peak(&self) -> u64 {
        process::memory_of(self.process.id(), "VmHWM:")
    }
}

/// How a DAG is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As `cat` does: the file's bytes in order.
    Read,
    /// As `pin add` does: every block, kept, durable at the end.
    Pin,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pin => "pin",
        }
    }
}

/// Opens a repository that keeps nothing of the disk free.
pub fn open(folder: &Path) -> Store {
    let config = cairn_store::config::Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..cairn_store::config::Config::default()
    };
    Store::open(folder, &config, &mut |_| {}).expect("open")
}

/// Makes a repository that holds a file, cut into chunks of `chunk` bytes; its root.
pub fn filled(folder: &Path, file: &Path, chunk: u32) -> Cid {
    let store = open(folder);
    let mut writer = store.writer(Keep::Kept);
    let profile = Profile {
        chunker: Chunker::Size(chunk),
        ..Profile::v1_2025()
    };
    let mut importer = Importer::new(profile, &mut writer, |_| {});
    let mut file = std::fs::File::open(file).expect("open");
    importer
        .file("file", &mut file, Metadata::default())
        .expect("import");
    let added = importer.finish().expect("import");
    writer.commit().expect("commit");
    // Somebody else opens it next.
    runtime().block_on(store.close()).expect("close");
    added.first().expect("one root").cid
}

/// Makes a repository that holds blocks of [`Numbered`].
pub fn filled_with_blocks(folder: &Path, blocks: &Numbered, count: u64) {
    let store = open(folder);
    let runtime = runtime();
    for from in (0..count).step_by(BLOCKS_AT_ONCE) {
        let to = count.min(from + BLOCKS_AT_ONCE as u64);
        let put = store.put(blocks.blocks(from..to), Keep::Kept);
        runtime.block_on(put).expect("put");
    }
}

/// In a child: plays its part, if this module or one it knows has that. True if it did.
pub fn play() -> bool {
    let Some((part, given)) = process::part() else {
        return false;
    };
    match part.as_str() {
        net::HOLDER => net::hold(),
        NODE => runtime().block_on(node(&given)),
        NODES => runtime().block_on(nodes(&given)),
        relay::PART => runtime().block_on(relay::relay(&given)),
        attacker::PART => runtime().block_on(attacker::attack(&given)),
        crowd::PART => runtime().block_on(crowd::stand(&given)),
        attacker::SINK => runtime().block_on(attacker::sink()),
        liar::PART => runtime().block_on(liar::lie(&given)),
        stock::GIVER => runtime().block_on(stock::give(&given)),
        stock::TAKER => runtime().block_on(stock::take(&given)),
        torrent::TRACKER => torrent::track(&given),
        net::POURER => net::pour(&given),
        net::DRINKER => net::drink(&given),
        other => panic!("no part is called {other}"),
    }
    true
}

/// A runtime with a thread for each processor.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("runtime")
}

/// How a node is started: at a free port of an address.
fn config(ip: &str, network: Network) -> Config {
    Config {
        network,
        listen: vec![format!("/ip4/{ip}/tcp/0").parse().expect("address")],
        ..Config::default()
    }
}

/// Starts a node on loopback.
pub async fn local(store: Store) -> Node {
    let config = config("127.0.0.1", Network::Local);
    start(store, config, &prometheus::Registry::new()).await
}

async fn start(store: Store, config: Config, metrics: &prometheus::Registry) -> Node {
    Node::start(store, Keypair::generate_ed25519(), config, metrics)
        .await
        .expect("start")
}

/// Where a node can be dialled.
pub async fn address(node: &Node) -> Multiaddr {
    let listening = node.peers().listening().await;
    let address = listening.first().cloned().expect("listening");
    address.with_p2p(node.peer_id()).expect("address")
}

/// The part of a child that is a node: over which folder, at which address, in which network, and,
/// if that matters, what secures its connections.
async fn node(given: &[String]) {
    let [folder, ip, network, security @ ..] = given else {
        panic!("a folder, an address and a network: {given:?}");
    };
    let store = open(Path::new(folder));
    let metrics = prometheus::Registry::new();
    let mut config = config(ip, network.parse().expect("a network"));
    if let Some(offers) = security.first() {
        let offer = |name| match name {
            "tls" => Security::Tls,
            "noise" => Security::Noise,
            other => panic!("what is {other}?"),
        };
        config.security = offers.split(',').map(offer).collect();
    }
    if security.get(1).is_some_and(|word| word == NO_EXEMPT) {
        config.limits.exempt.clear();
    }
    let node = start(store.clone(), config, &metrics).await;
    println!("ready {}", address(&node).await);
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("stdin") {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["connect", address] => {
                let address = address.parse().expect("an address");
                node.peers().connect(address).await.expect("connect");
                println!("connected");
            }
            ["read", cid] => {
                let cid = cid.parse().expect("a CID");
                println!("took {}", seconds_to_read(&node, &cid).await);
            }
            ["pin", cid, rest @ ..] => {
                let half = rest
                    .first()
                    .map(|bytes| bytes.parse::<u64>().expect("bytes") / 2);
                let start = Instant::now();
                pin(&node, &store, cid.parse().expect("a CID"), half).await;
                println!("took {}", start.elapsed().as_secs_f64());
            }
            ["blocks", seed, bytes, count] => {
                let [seed, bytes, count] =
                    [seed, bytes, count].map(|number| number.parse::<u64>().expect("a number"));
                let bytes = usize::try_from(bytes).expect("a size");
                let blocks = Numbered::new(seed, bytes).blocks(0..count);
                let cids: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
                drop(blocks);
                let start = Instant::now();
                fetch_blocks(&node.exchange().session(None), cids).await;
                println!("took {}", start.elapsed().as_secs_f64());
            }
            ["raw", address, bytes, streams] => {
                let peer = stock::peer(&address.parse().expect("an address"));
                let [bytes, streams] =
                    [bytes, streams].map(|number| number.parse::<u64>().expect("a number"));
                let start = Instant::now();
                let runs = (0..streams).map(|_| node.perf(peer, 0, bytes / streams));
                for run in futures::future::join_all(runs).await {
                    run.expect("a raw stream");
                }
                println!("took {}", start.elapsed().as_secs_f64());
            }
            ["refused"] => println!("refused {}", refused(&metrics)),
            ["counts"] => println!("counts {}", counts(&metrics)),
            other => panic!("what is {other:?}?"),
        }
    }
}

/// Seconds that a node takes to read a file in order.
pub async fn seconds_to_read(node: &Node, cid: &Cid) -> f64 {
    let start = Instant::now();
    read_file(&node.exchange().session(None), cid, 0..u64::MAX).await;
    start.elapsed().as_secs_f64()
}

async fn read_file(session: &Session, cid: &Cid, range: Range<u64>) -> u64 {
    let read::Node::File(file) = read::open(session, cid).await.expect("open") else {
        panic!("not a file")
    };
    let mut bytes = 0;
    let expected = range.end.min(file.size()).saturating_sub(range.start);
    let mut stream = std::pin::pin!(file.read(session.clone(), range));
    while let Some(part) = stream.try_next().await.expect("read") {
        bytes += part.len() as u64;
    }
    assert_eq!(bytes, expected);
    bytes
}

async fn pin(node: &Node, store: &Store, cid: Cid, half: Option<u64>) {
    let session = node.exchange().session(None);
    let mut left = half;
    let progress = |progress: cairn_store::pin::PinProgress| {
        if left.is_some_and(|half| progress.bytes >= half) {
            println!("half");
            left = None;
        }
    };
    store
        .pin_add(session, cid, PinMode::Recursive, None, progress)
        .await
        .expect("pin");
}

async fn fetch_blocks(session: &Session, cids: Vec<Cid>) {
    let mut fetched = stream::iter(cids)
        .map(|cid| async move { session.block(&cid).await })
        .buffer_unordered(BLOCKS_UNDER_WAY);
    while let Some(block) = fetched.next().await {
        assert!(block.expect("fetch").is_some());
    }
}

fn refused(metrics: &prometheus::Registry) -> f64 {
    let families = metrics.gather();
    let refused = families
        .iter()
        .filter(|family| family.name() == "cairn_connections_refused_total");
    let counted = refused.flat_map(|family| family.get_metric());
    counted.map(|one| one.get_counter().get_value()).sum()
}

fn counts(metrics: &prometheus::Registry) -> String {
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&metrics.gather())
        .expect("text");
    let counted = text.lines().filter_map(|line| {
        let (name, figure) = line.strip_prefix("cairn_bitswap_")?.split_once(' ')?;
        Some(format!("{name}={figure}"))
    });
    counted.collect::<Vec<_>>().join(" ")
}

/// Whether nodes that fetch from the same peer have connections to each other too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circle {
    /// They have one to that peer, and room for no other.
    Strangers,
    /// They find each other as nodes do.
    Acquainted,
}

impl Circle {
    const fn name(self) -> &'static str {
        match self {
            Self::Strangers => "strangers",
            Self::Acquainted => "acquainted",
        }
    }

    fn named(name: &str) -> Self {
        let all = [Self::Strangers, Self::Acquainted];
        let named = all.into_iter().find(|circle| circle.name() == name);
        named.unwrap_or_else(|| panic!("no such circle: {name}"))
    }

    /// The configuration of one of them.
    fn config(self) -> Config {
        let config = config("127.0.0.1", Network::Local);
        match self {
            Self::Strangers => Config {
                connections_max: 1,
                ..config
            },
            Self::Acquainted => config,
        }
    }
}

/// Seconds that `count` nodes in one process take to fetch a file from one peer, each another part
/// of it.
pub fn seconds_of_many(folder: &Path, count: u64, circle: Circle, address: &str, cid: &Cid) -> f64 {
    let given: [&dyn Display; 5] = [&folder.display(), &count, &circle.name(), &address, cid];
    let mut process = Talking::start("many nodes", &mut child(NODES, &given));
    let seconds = process.hear("took", LONG);
    seconds.parse().expect("seconds")
}

/// The part of a child that is many nodes: in which folder, how many, who has which file.
async fn nodes(given: &[String]) {
    let [folder, count, circle, address, cid] = given else {
        panic!("a folder, a number, a circle, an address and a CID: {given:?}");
    };
    let circle = Circle::named(circle);
    let count: u64 = count.parse().expect("a number");
    let address: Multiaddr = address.parse().expect("an address");
    let cid: Cid = cid.parse().expect("a CID");
    let mut nodes = Vec::new();
    for number in 0..count {
        let store = open(&Path::new(folder).join(number.to_string()));
        let node = start(store, circle.config(), &prometheus::Registry::new()).await;
        node.peers()
            .connect(address.clone())
            .await
            .expect("connect");
        nodes.push(node);
    }
    settle(&nodes).await;
    let first = nodes
        .first()
        .expect("one at least")
        .exchange()
        .session(None);
    // The root's links are fetched once more by each, which is little.
    let read::Node::File(file) = read::open(&first, &cid).await.expect("open") else {
        panic!("not a file")
    };
    let part = file.size().div_ceil(count);
    let start = Instant::now();
    let all = (0..).zip(&nodes).map(|(number, node)| {
        let session = node.exchange().session(None);
        async move { read_file(&session, &cid, part * number..part * (number + 1)).await }
    });
    let bytes: u64 = futures::future::join_all(all).await.iter().sum();
    println!("took {}", start.elapsed().as_secs_f64());
    assert_eq!(bytes, file.size());
}

/// Waits until nodes that hear of each other have made their connections: those are not what is
/// measured.
async fn settle(nodes: &[Node]) {
    let mut all: Vec<_> = nodes.iter().map(Node::events).collect();
    loop {
        let next = all.iter_mut().map(|events| Box::pin(connected(events)));
        let next = futures::future::select_all(next);
        if timeout(SETTLED_AFTER, next).await.is_err() {
            return;
        }
    }
}

async fn connected(events: &mut broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Connected(_)) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => panic!("a node ended"),
        }
    }
}

const NODE: &str = "node";
const NO_EXEMPT: &str = "no-exempt";
const NODES: &str = "nodes";
/// For what should take no time.
const SOON: Duration = Duration::from_secs(60);
/// For a fetch: the longest that any row may take at its full size.
const LONG: Duration = Duration::from_secs(900);
/// Without a new connection for so long, there will be none.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Blocks asked for by name at once.
const BLOCKS_UNDER_WAY: usize = 1024;
const BLOCKS_AT_ONCE: usize = 4096;
