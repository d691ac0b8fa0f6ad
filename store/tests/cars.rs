//! Segments are CAR files: whoever reads them all with a CAR reader has every block of the store.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]
#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::car::read::{CarReader, for_each_batch};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::pb::{self, PbNode};
use cairn_store::pin::PinMode;
use cairn_store::sink::{BlockSink, PutError};
use cairn_store::store::Keep;
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::import::{Importer, Metadata};
use cairn_store::{BlockSource, Store};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

fn open(root: &Path) -> Store {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        segment_size: ByteSize(64 << 10),
        cache_max: CACHE_MAX,
        ..Config::default()
    };
    Store::open(root, &config, &mut |_| {}).unwrap()
}

/// A folder of files of no, few and many chunks; its root.
fn import(sink: impl BlockSink, number: usize) -> Cid {
    let profile = Profile {
        chunker: "size-4096".parse().unwrap(),
        ..Profile::v1_2025()
    };
    let mut importer = Importer::new(profile, sink, |_| {});
    importer.enter("folder", Metadata::default()).unwrap();
    for (at, length) in [0, 1, 4096, 4097, 60_000].into_iter().enumerate() {
        let content: Vec<u8> = (0..length)
            .map(|byte| (byte / 4096 * 7 + byte + number).to_le_bytes()[at % 2])
            .chain(number.to_le_bytes())
            .collect();
        let name = format!("file-{at}");
        importer
            .file(&name, &mut &content[..], Metadata::default())
            .unwrap();
    }
    importer.leave().unwrap();
    importer.finish().unwrap().first().unwrap().cid
}

fn block(codec: u64, hash: HashKind, data: Vec<u8>) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec,
        hash,
    };
    Block::new(prefix, Bytes::from(data)).unwrap()
}

/// What peers may have sent: with and without room for links.
fn sent(number: usize) -> Block {
    let data = format!("sent {number} ").repeat(200).into_bytes();
    if number.is_multiple_of(2) {
        return block(cid::RAW, HashKind::Sha2_256, data);
    }
    let node = PbNode {
        links: Vec::new(),
        data: Some(Bytes::from(data)),
    };
    block(cid::DAG_PB, HashKind::Sha2_256, pb::encode(&node).to_vec())
}

/// The blocks of every segment, by multihash, as our own reader takes them; and the segments.
fn in_segments(root: &Path) -> (HashMap<Vec<u8>, Bytes>, BTreeSet<String>) {
    let mut blocks = HashMap::new();
    let mut segments = BTreeSet::new();
    for entry in fs::read_dir(root.join("blocks")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.ends_with(".car") {
            continue;
        }
        let mut car = CarReader::new(File::open(entry.path()).unwrap()).unwrap();
        assert_eq!(car.roots(), [cid::parse("bafkqaaa").unwrap()], "{name}");
        for_each_batch(&mut car, |batch| {
            for block in batch {
                let (cid, data) = block.into_parts();
                blocks.insert(cid.hash().to_bytes(), data);
            }
            Ok::<(), PutError>(())
        })
        .unwrap();
        assert_eq!(car.position(), entry.metadata().unwrap().len(), "{name}");
        segments.insert(name);
    }
    (blocks, segments)
}

async fn listed(store: &Store) -> Vec<Cid> {
    let listed = Arc::new(Mutex::new(Vec::new()));
    let into = listed.clone();
    let each = move |cid| {
        into.lock().unwrap().push(cid);
        ControlFlow::Continue(())
    };
    store.list(each).await.unwrap();
    let listed = listed.lock().unwrap().clone();
    assert_eq!(listed.len() as u64, store.stat().blocks);
    listed
}

/// Fails unless the segments hold each block that the store lists, with its bytes; the segments.
async fn check(store: &Store, root: &Path) -> BTreeSet<String> {
    let listed = listed(store).await;
    assert!(listed.len() > 50, "{} blocks", listed.len());
    let (blocks, segments) = in_segments(root);
    for cid in listed {
        let data = blocks.get(&cid.hash().to_bytes());
        let block = data.map(|data| Block::verify(cid, data.clone()).unwrap());
        assert!(block.is_some(), "{cid} is in no segment");
        assert_eq!(block, store.block(&cid).await.unwrap());
    }
    segments
}

fn of_stream<'a>(segments: &'a BTreeSet<String>, stream: &str) -> Vec<&'a String> {
    let names = segments.iter();
    names.filter(|name| name.starts_with(stream)).collect()
}

#[tokio::test]
async fn every_block_is_in_the_segments_also_after_eviction_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let store = open(root);
    let mut pinned = Vec::new();
    for number in 0..24 {
        let mut writer = store.writer(Keep::Kept);
        let cid = import(&mut writer, number);
        writer.commit_and_pin(&[cid], None).unwrap();
        pinned.push(cid);
    }
    // Other codecs and hashes lie among what came from peers, and become kept there.
    for (codec, hash) in [
        (cid::DAG_CBOR, HashKind::Sha2_256),
        (cid::RAW, HashKind::Blake3),
        (cid::RAW, HashKind::Sha2_512),
    ] {
        let block = block(codec, hash, vec![0xa0]);
        store.put(vec![block.clone()], Keep::Cached).await.unwrap();
        store
            .pin_add(store.clone(), *block.cid(), PinMode::Direct, None, |_| {})
            .await
            .unwrap();
    }
    for number in 0..SENT {
        store.put(vec![sent(number)], Keep::Cached).await.unwrap();
    }
    let full = check(&store, root).await;
    for (stream, least) in [("leaf-", 4), ("node-", 1), ("cache-", 4)] {
        assert!(of_stream(&full, stream).len() >= least, "{full:?}");
    }

    let evicted = store.evict().await.unwrap();
    assert!(evicted.blocks > 0, "{evicted:?}");
    let before = check(&store, root).await;
    let oldest = |segments| of_stream(segments, "cache-").first().copied().cloned();
    assert!(oldest(&full) < oldest(&before), "{before:?}");

    for cid in pinned.iter().step_by(2).chain(&pinned[12..]) {
        // Some twice: then it is gone already.
        let _ = store.pin_remove(cid, None).await;
    }
    let report = store.gc(|_| {}).await.unwrap();
    assert!(report.blocks > 100 && report.freed > 100_000, "{report:?}");
    let compacted = check(&store, root).await;
    assert!(before.difference(&compacted).count() > 4, "{compacted:?}");

    let sends = (SENT..SENT + 20).map(sent).collect();
    store.put(sends, Keep::Cached).await.unwrap();
    let after = check(&store, root).await;
    assert!(!of_stream(&after, "cache-").is_empty(), "{after:?}");
    store.close().await.unwrap();
    drop(store);
    fs::remove_dir_all(root.join("index")).unwrap();
    let store = open(root);
    assert_eq!(check(&store, root).await, after);
}

const CACHE_MAX: ByteSize = ByteSize(256 << 10);
/// More than the cache may hold.
const SENT: usize = 240;
