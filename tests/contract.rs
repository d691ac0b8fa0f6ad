//! One contract, every source of blocks: the store, the exchange without and with a network, a map.

use bytes::{Bytes, BytesMut};
use cairn_node::{Config, Exchange, Node, Session};
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Reserve};
use cairn_store::sink::BlockSink;
use cairn_store::store::Keep;
use cairn_store::unixfs::import::{Importer, Metadata};
use cairn_store::unixfs::{Profile, read};
use cairn_store::{BlockSource, SourceError, Store};
use futures::TryStreamExt;
use harness::tree;
use libp2p::identity::Keypair;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// 0: no chunk. 1: one byte. 262,144: one chunk; one more: the first tree. 2,000,000: several.
const SIZES: [usize; 5] = [0, 1, 262_144, 262_145, 2_000_000];

/// What a source is filled with: blocks of every hash, files of every size under both profiles.
struct Content {
    blocks: HashMap<Cid, Block>,
    files: Vec<(Cid, Vec<u8>)>,
    absent: Cid,
}

fn content() -> Content {
    let mut blocks = HashMap::new();
    let mut files = Vec::new();
    for profile in [Profile::v1_2025(), Profile::v0_2015()] {
        for size in SIZES {
            let bytes = tree::bytes(size as u64, size);
            let mut importer = Importer::new(profile.clone(), &mut blocks, |_| {});
            importer
                .file("file", &mut &bytes[..], Metadata::default())
                .unwrap();
            files.push((importer.finish().unwrap().first().unwrap().cid, bytes));
        }
    }
    for hash in HashKind::ALL {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash,
        };
        let block = Block::new(prefix, Bytes::from_static(b"one of each hash")).unwrap();
        BlockSink::put(&mut blocks, vec![block]).unwrap();
    }
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let absent = *Block::new(prefix, Bytes::from_static(b"nobody has this"))
        .unwrap()
        .cid();
    Content {
        blocks,
        files,
        absent,
    }
}

/// What every source does.
async fn keeps_the_contract<S: BlockSource + Clone + 'static>(source: S, content: &Content) {
    for (cid, block) in &content.blocks {
        assert_eq!(source.block(cid).await.unwrap().as_ref(), Some(block));
        let length = block.data().len() as u64;
        assert_eq!(source.size(cid).await.unwrap(), Some(length));
        let range = source
            .range(cid, length / 3..length / 2 + 1)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            range,
            cairn_store::source::cut(block.data(), &(length / 3..length / 2 + 1))
        );
        let beyond = source
            .range(cid, length..length + 10)
            .await
            .unwrap()
            .unwrap();
        assert!(beyond.is_empty());
    }
    let identity = cid::parse("bafkqablimvwgy3y").unwrap();
    assert_eq!(
        source.block(&identity).await.unwrap().unwrap().data(),
        "hello"
    );
    for (root, bytes) in &content.files {
        let read::Node::File(file) = read::open(&source, root).await.unwrap() else {
            panic!("{root} is a file")
        };
        assert_eq!(file.size(), bytes.len() as u64);
        let read: BytesMut = file
            .read(source.clone(), 0..u64::MAX)
            .try_collect()
            .await
            .unwrap();
        assert!(read == bytes[..]);
    }
}

/// A source that knows all it has is sure of what it has not.
async fn is_sure_of_absence<S: BlockSource>(source: S, content: &Content) {
    assert_eq!(source.block(&content.absent).await.unwrap(), None);
    assert_eq!(source.size(&content.absent).await.unwrap(), None);
    assert_eq!(source.range(&content.absent, 0..1).await.unwrap(), None);
}

fn store(folder: &Path) -> Store {
    let config = cairn_store::config::Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..cairn_store::config::Config::default()
    };
    Store::open(folder, &config, &mut |_| {}).unwrap()
}

async fn filled(folder: &Path, content: &Content) -> Store {
    let store = store(folder);
    store
        .put(content.blocks.values().cloned().collect(), Keep::Kept)
        .await
        .unwrap();
    store
}

async fn node(store: Store) -> Node {
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        ..Config::default()
    };
    let registry = prometheus::Registry::new();
    Node::start(store, Keypair::generate_ed25519(), config, &registry)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_map() {
    let content = content();
    let map = Arc::new(content.blocks.clone());
    keeps_the_contract(map.clone(), &content).await;
    is_sure_of_absence(map, &content).await;
}

#[tokio::test]
async fn the_store() {
    let (folder, content) = (tempfile::tempdir().unwrap(), content());
    let store = filled(folder.path(), &content).await;
    keeps_the_contract(store.clone(), &content).await;
    is_sure_of_absence(store, &content).await;
}

#[tokio::test]
async fn the_store_after_reopening() {
    let (folder, content) = (tempfile::tempdir().unwrap(), content());
    filled(folder.path(), &content).await.close().await.unwrap();
    let store = store(folder.path());
    keeps_the_contract(store.clone(), &content).await;
    is_sure_of_absence(store, &content).await;
}

#[tokio::test]
async fn an_exchange_without_a_network() {
    let (folder, content) = (tempfile::tempdir().unwrap(), content());
    let exchange = Exchange::offline(filled(folder.path(), &content).await);
    keeps_the_contract(exchange.session(None), &content).await;
    is_sure_of_absence(exchange.session(None), &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_whose_blocks_are_all_at_a_peer() {
    let content = content();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [full, empty] = &folders;
    let giver = node(filled(full.path(), &content).await).await;
    let taking = store(empty.path());
    let taker = node(taking.clone()).await;
    let address = giver.peers().listening().await.first().cloned().unwrap();
    let address = address.with_p2p(giver.peer_id()).unwrap();
    taker.peers().connect(address).await.unwrap();

    let session: Session = taker.exchange().session(None);
    keeps_the_contract(session.clone(), &content).await;
    for (cid, block) in &content.blocks {
        assert_eq!(
            taking.block(cid).await.unwrap().as_ref(),
            Some(block),
            "fetched is stored"
        );
    }
    // With a network behind it there is no being sure, only a time after which it says what it tried.
    let impatient = taker.exchange().session(Some(Duration::from_millis(300)));
    let error = impatient.block(&content.absent).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::TooSlow { cid, .. } if *cid == content.absent),
        "{error}"
    );
    is_sure_of_absence(taker.exchange().local().session(None), &content).await;

    assert!(taker.stop(Duration::from_secs(10)).await);
    assert!(giver.stop(Duration::from_secs(10)).await);
}
