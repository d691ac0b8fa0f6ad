//! How close to a raw stream does a fetch come? 1 GiB from one peer on loopback, both nodes in this
//! process; the floor is one stream of stock rust-libp2p (TCP, Noise, Yamux) in this process.
//!
//! Needs 2 GiB of disk and 1 GiB more for each round.

use cairn_node::{Config, Node};
use cairn_store::config::{ByteSize, Reserve};
use cairn_store::store::Keep;
use cairn_store::unixfs::import::{Importer, Metadata};
use cairn_store::unixfs::{Profile, read};
use cairn_store::{Cid, Store};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, TryStreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use std::path::Path;
use std::time::{Duration, Instant};
use workloads::disk::Folder;
use workloads::options::{Options, size};
use workloads::row::Row;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/floor");

fn main() {
    let options = Options::read(&["fetch"], &[size("bytes", 1 << 30, 32 << 20)]);
    let bytes = options.number("bytes");
    let folder = Folder::new(&options);
    let path = folder.join("file");
    workloads::file(&path, 4, bytes);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (giving, root) = filled(&folder.join("giver"), &path);
    let mut round = 0;
    Row::new(
        format!("fetch {} MiB from one peer", bytes >> 20),
        bytes as f64 / 1e6,
        "MB",
    )
    .contestant("ours", || {
        round += 1;
        let taking = open(&folder.join(format!("taker-{round}")));
        runtime.block_on(fetch(giving.clone(), taking, root, bytes))
    })
    .contestant("one stream of stock libp2p", || {
        runtime.block_on(floor(bytes))
    })
    .run(options.rounds())
    .print();
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
    let mut importer = Importer::new(Profile::v1_2025(), &mut writer, |_| {});
    let mut file = std::fs::File::open(path).expect("open");
    importer
        .file("file", &mut file, Metadata::default())
        .expect("import");
    let added = importer.finish().expect("import");
    writer.commit().expect("commit");
    (store, added.first().expect("one root").cid)
}

async fn node(store: Store) -> Node {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")];
    let config = Config {
        listen,
        ..Config::default()
    };
    let registry = prometheus::Registry::new();
    Node::start(store, Keypair::generate_ed25519(), config, &registry)
        .await
        .expect("start")
}

async fn fetch(giving: Store, taking: Store, root: Cid, expected: u64) -> f64 {
    let (giver, taker) = (node(giving).await, node(taking).await);
    let address = giver
        .peers()
        .listening()
        .await
        .first()
        .cloned()
        .expect("listening");
    let address = address.with_p2p(giver.peer_id()).expect("address");
    taker.peers().connect(address).await.expect("connect");
    let session = taker.exchange().session(None);
    let start = Instant::now();
    let read::Node::File(file) = read::open(&session, &root).await.expect("open") else {
        panic!("not a file")
    };
    let mut bytes = 0;
    let mut stream = std::pin::pin!(file.read(session.clone(), 0..u64::MAX));
    while let Some(part) = stream.try_next().await.expect("read") {
        bytes += part.len() as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(bytes, expected);
    taker.stop(Duration::from_secs(10)).await;
    giver.stop(Duration::from_secs(10)).await;
    seconds
}

/// One stream, written at one end and read at the other.
async fn floor(expected: u64) -> f64 {
    let swarm = || {
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default().nodelay(true),
                noise::Config::new,
                yamux::Config::default,
            )
            .expect("transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("behaviour")
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(60))
            })
            .build()
    };
    let (mut giver, mut taker) = (swarm(), swarm());
    giver
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("address"))
        .expect("listen");
    let address = loop {
        if let Some(SwarmEvent::NewListenAddr { address, .. }) = giver.next().await {
            break address;
        }
    };
    let peer = *giver.local_peer_id();
    let mut incoming = giver
        .behaviour()
        .new_control()
        .accept(PROTOCOL)
        .expect("accept");
    let mut control = taker.behaviour().new_control();
    taker.dial(address).expect("dial");
    loop {
        if let Some(SwarmEvent::ConnectionEstablished { .. }) = tokio::select! {
            event = taker.next() => event,
            _ = giver.next() => continue,
        } {
            break;
        }
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench has no shutdown to take part in"
    )]
    let tasks = [
        tokio::spawn(async move { while giver.next().await.is_some() {} }),
        tokio::spawn(async move { while taker.next().await.is_some() {} }),
        tokio::spawn(async move {
            let (_, mut stream) = incoming.next().await.expect("stream");
            let chunk = vec![7; 256 << 10];
            for _ in 0..expected / chunk.len() as u64 {
                stream.write_all(&chunk).await.expect("write");
            }
            stream.close().await.expect("close");
        }),
    ];
    let start = Instant::now();
    let mut stream = control.open_stream(peer, PROTOCOL).await.expect("open");
    stream.flush().await.expect("flush");
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer).await.expect("read") {
            0 => break,
            read => bytes += read as u64,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(bytes, expected);
    for task in tasks {
        task.abort();
    }
    seconds
}
