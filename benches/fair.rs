//! Does everybody get the same? Many peers fetch one file from one node at once, all on loopback in
//! this process. When half of all has come, what each was sent is compared: Jain's index is 1 if all got the
//! same, and 1/n if one got all. `free`: no limit; `capped`: through one limit of uploads.
//!
//! Needs `bytes` for each peer and once more on disk.

use cairn_node::{Config, Event, Limits, Node};
use cairn_store::config::{ByteSize, Reserve};
use cairn_store::store::Keep;
use cairn_store::unixfs::import::{Importer, Metadata};
use cairn_store::unixfs::{Profile, read};
use cairn_store::{Cid, Store};
use futures::future::{join, join_all};
use futures::stream::{self, BoxStream, select_all};
use futures::{StreamExt, TryStreamExt};
use libp2p::identity::Keypair;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{self, error::RecvError};
use workloads::disk::Folder;
use workloads::options::{Options, size};
use workloads::row::{median, thousands};

fn main() {
    let options = Options::read(
        &["free", "capped"],
        &[
            size("peers", 64, 8),
            size("bytes", 8 << 20, 4 << 20),
            size("cap", 64_000_000, 16_000_000),
        ],
    );
    let (peers, bytes) = (options.number("peers"), options.number("bytes"));
    let cap = options.number("cap");
    let folder = Folder::new(&options);
    let path = folder.join("file");
    workloads::file(&path, 5, bytes);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (giving, root) = filled(&folder.join("giver"), &path);
    let capped = Limits {
        upload: ByteSize(cap).to_string().parse().expect("a rate"),
        exempt: Vec::new(),
        ..Limits::default()
    };
    let mut taken = 0;
    for (row, limits) in [("free", Limits::default()), ("capped", capped)] {
        if !options.wants(row) {
            continue;
        }
        let (mut indexes, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds() {
            let mut takers = Vec::new();
            for _ in 0..peers {
                taken += 1;
                takers.push(open(&folder.join(format!("taker-{taken}"))));
            }
            let fair = runtime.block_on(share(giving.clone(), takers, root, bytes, &limits));
            indexes.push(fair.index);
            rates.push(fair.bytes_a_second / 1e6);
        }
        println!(
            "fair {row}: {peers} peers, {} MiB each: Jain's index {:.4} ({:.4} at least), {} MB/s",
            bytes >> 20,
            median(&indexes),
            indexes.iter().copied().fold(1.0, f64::min),
            thousands(median(&rates)),
        );
    }
}

/// What came of one round.
struct Fair {
    index: f64,
    bytes_a_second: f64,
}

fn open(folder: &Path) -> Store {
    let config = cairn_store::config::Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..cairn_store::config::Config::default()
    };
    Store::open(folder, &config, &mut |_| {}).expect("open")
}

fn filled(folder: &Path, path: &Path) -> (Store, Cid) {
    let store = open(folder);
    let mut writer = store.writer(Keep::Kept);
    let mut importer = Importer::new(Profile::v0_2015(), &mut writer, |_| {});
    let mut file = std::fs::File::open(path).expect("open");
    importer
        .file("file", &mut file, Metadata::default())
        .expect("import");
    let added = importer.finish().expect("import");
    writer.commit().expect("commit");
    (store, added.first().expect("one root").cid)
}

async fn node(store: Store, config: Config) -> Node {
    let registry = prometheus::Registry::new();
    Node::start(store, Keypair::generate_ed25519(), config, &registry)
        .await
        .expect("start")
}

async fn share(giving: Store, takers: Vec<Store>, root: Cid, bytes: u64, limits: &Limits) -> Fair {
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
        limits: limits.clone(),
        ..Config::default()
    };
    let giver = node(giving, config).await;
    let address = giver.peers().listening().await;
    let address = address.first().cloned().expect("listening");
    let address = address.with_p2p(giver.peer_id()).expect("address");
    let mut taking = Vec::new();
    for store in takers {
        let taker = node(store, Config::default()).await;
        let connected = taker.peers().connect(address.clone()).await;
        connected.expect("connect");
        taking.push(taker);
    }
    let start = Instant::now();
    let half = bytes.div_ceil(CHUNK_BYTES) * taking.len() as u64 / 2;
    let mut come = select_all(taking.iter().map(|taker| blocks_of(taker.events())));
    let compared = async {
        for _ in 0..half {
            come.next().await.expect("a block");
        }
        let mut got = Vec::new();
        for taker in &taking {
            let account = giver.account(taker.peer_id()).await;
            got.push(account.map_or(0.0, |account| account.bytes_sent as f64));
        }
        jain(&got)
    };
    let all = join_all(taking.iter().map(|taker| fetch(taker, root, bytes)));
    let (_, index) = join(all, compared).await;
    let bytes_a_second = (bytes * taking.len() as u64) as f64 / start.elapsed().as_secs_f64();
    for taker in taking {
        taker.stop(Duration::from_secs(10)).await;
    }
    giver.stop(Duration::from_secs(10)).await;
    Fair {
        index,
        bytes_a_second,
    }
}

/// What came to a node, one after the other.
fn blocks_of(events: broadcast::Receiver<Event>) -> BoxStream<'static, Cid> {
    let next = |mut events: broadcast::Receiver<Event>| async {
        loop {
            match events.recv().await {
                Ok(Event::Fetched(cid)) => return Some((cid, events)),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => panic!("{lost} events were not counted"),
                Err(RecvError::Closed) => return None,
            }
        }
    };
    stream::unfold(events, next).boxed()
}

async fn fetch(taker: &Node, root: Cid, expected: u64) {
    let session = taker.exchange().session(Some(Duration::from_secs(300)));
    let read::Node::File(file) = read::open(&session, &root).await.expect("open") else {
        panic!("not a file")
    };
    let mut bytes = 0;
    let mut stream = std::pin::pin!(file.read(session.clone(), 0..u64::MAX));
    while let Some(part) = stream.try_next().await.expect("read") {
        bytes += part.len() as u64;
    }
    assert_eq!(bytes, expected);
}

fn jain(got: &[f64]) -> f64 {
    let sum: f64 = got.iter().sum();
    let squares: f64 = got.iter().map(|bytes| bytes * bytes).sum();
    sum * sum / (got.len() as f64 * squares)
}

/// What the file is cut into.
const CHUNK_BYTES: u64 = 256 << 10;
