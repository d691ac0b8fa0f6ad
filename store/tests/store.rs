//! The store as its users see it: what was acknowledged stays, what was deleted stays away, and it
//! always opens.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::gc::GcError;
use cairn_store::sink::{BlockSink, PutError};
use cairn_store::store::{Keep, OpenError, OpenEvent};
use cairn_store::verify::BadBlock;
use cairn_store::{BlockSource, SourceError, Store};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const RAW: Prefix = Prefix {
    version: Version::V1,
    codec: cid::RAW,
    hash: HashKind::Sha2_256,
};

fn block(seed: usize, length: usize) -> Block {
    let mut bytes = format!("block {seed} ").into_bytes();
    bytes.resize(length.max(bytes.len()), (seed % 251) as u8);
    Block::new(RAW, Bytes::from(bytes)).unwrap()
}

/// Lengths with a reason: inside a page, over pages, of many pages, the largest.
fn blocks() -> Vec<Block> {
    let lengths = [20, 1000, 65_536, 200_000, 2 << 20, 50];
    lengths
        .iter()
        .enumerate()
        .map(|(seed, length)| block(seed, *length))
        .collect()
}

fn config() -> Config {
    Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    }
}

fn open_with(root: &Path, config: &Config) -> (Store, Vec<OpenEvent>) {
    let mut events = Vec::new();
    let store = Store::open(root, config, &mut |event| events.push(event)).unwrap();
    (store, events)
}

fn open(root: &Path) -> (Store, Vec<OpenEvent>) {
    open_with(root, &config())
}

fn open_quietly(root: &Path) -> Store {
    let (store, events) = open(root);
    assert_eq!(events, []);
    store
}

async fn holds_all(store: &Store, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(
            store.block(block.cid()).await.unwrap().as_ref(),
            Some(block)
        );
        assert_eq!(
            store.size(block.cid()).await.unwrap(),
            Some(block.data().len() as u64)
        );
    }
}

async fn listed(store: &Store) -> Vec<Cid> {
    let cids = Arc::new(Mutex::new(Vec::new()));
    let into = cids.clone();
    store
        .list(move |cid| {
            into.lock().unwrap().push(cid);
            ControlFlow::Continue(())
        })
        .await
        .unwrap();
    let listed = cids.lock().unwrap();
    listed.clone()
}

fn leaf(root: &Path, number: u32) -> PathBuf {
    root.join(format!("blocks/leaf-{number:06}.car"))
}

/// Where these bytes lie in the first segment of leaves.
fn place_of(root: &Path, needle: &[u8]) -> u64 {
    let bytes = fs::read(leaf(root, 1)).unwrap();
    let mut windows = bytes.windows(needle.len());
    windows.position(|window| window == needle).unwrap() as u64
}

/// Puts other bytes there.
fn overwrite(root: &Path, at: u64, with: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(leaf(root, 1));
    file.unwrap().write_all_at(with, at).unwrap();
}

#[tokio::test]
async fn what_was_put_is_there_at_once_and_after_reopening() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    let store = open_quietly(root.path());
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    holds_all(&store, &blocks).await;
    drop(store); // As after a kill: nothing was closed in order.
    let store = open_quietly(root.path());
    holds_all(&store, &blocks).await;
    store.close().await.unwrap();
    drop(store);
    let store = open_quietly(root.path());
    holds_all(&store, &blocks).await;
    assert_eq!(store.stat().blocks, blocks.len() as u64);
    assert_eq!(
        store.stat().bytes,
        blocks.iter().map(|b| b.data().len() as u64).sum::<u64>()
    );
    assert_eq!(store.block(block(99, 10).cid()).await.unwrap(), None);
}

#[tokio::test]
async fn any_range_of_a_block_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let blocks = blocks();
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    for block in &blocks {
        let length = block.data().len() as u64;
        for (from, to) in [
            (0, length),
            (1, 2),
            (length / 2, length),
            (length - 1, length + 9),
        ] {
            let range = store.range(block.cid(), from..to).await.unwrap().unwrap();
            let wanted = block.data().slice(from as usize..to.min(length) as usize);
            assert_eq!(range, wanted, "{from}..{to} of {length}");
        }
        for beyond in [
            length..length + 5,
            length + 9..u64::MAX,
            u64::MAX - 1..u64::MAX,
        ] {
            let range = store.range(block.cid(), beyond).await.unwrap().unwrap();
            assert_eq!(range, "");
        }
    }
}

#[tokio::test]
async fn one_multihash_is_one_block_whatever_its_cid() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let v0 = Prefix {
        version: Version::V0,
        codec: cid::DAG_PB,
        ..RAW
    };
    let block = Block::new(v0, Bytes::from_static(b"\x0a\x02\x08\x01")).unwrap();
    store
        .put(vec![block.clone(), block.clone()], Keep::Kept)
        .await
        .unwrap();
    store.put(vec![block.clone()], Keep::Kept).await.unwrap();
    let v1 = cid::to_v1(block.cid());
    assert_eq!(
        store.block(&v1).await.unwrap().unwrap().data(),
        block.data()
    );
    assert_eq!(store.stat().blocks, 1);
    assert_eq!(listed(&store).await, [*block.cid()]);
}

#[tokio::test]
async fn identity_blocks_are_there_without_being_stored() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let identity = Prefix {
        hash: HashKind::Identity,
        ..RAW
    };
    let block = Block::new(identity, Bytes::from(vec![7; 128])).unwrap();
    holds_all(&store, std::slice::from_ref(&block)).await;
    store.put(vec![block], Keep::Kept).await.unwrap();
    assert_eq!(store.stat().blocks, 0);
}

#[tokio::test]
async fn without_its_index_everything_is_back_and_the_deleted_stays_away() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    let store = open_quietly(root.path());
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    let gone = store
        .delete(vec![*blocks[1].cid(), *block(99, 10).cid()])
        .await
        .unwrap();
    assert_eq!(gone, [*blocks[1].cid()]);
    assert_eq!(store.block(blocks[1].cid()).await.unwrap(), None);
    let stat = store.stat();
    drop(store);
    for close_first in [false, true] {
        fs::remove_dir_all(root.path().join("index")).unwrap();
        let store = open_quietly(root.path());
        assert_eq!(store.block(blocks[1].cid()).await.unwrap(), None);
        holds_all(&store, &blocks[2..]).await;
        assert_eq!(store.stat(), stat);
        if close_first {
            store.close().await.unwrap();
        }
    }
    // Put again, it is there again, also when the index goes once more.
    let store = open_quietly(root.path());
    store
        .put(vec![blocks[1].clone()], Keep::Kept)
        .await
        .unwrap();
    holds_all(&store, &blocks).await;
    drop(store);
    fs::remove_dir_all(root.path().join("index")).unwrap();
    holds_all(&open_quietly(root.path()), &blocks).await;
}

#[tokio::test]
async fn a_deletion_right_after_a_put_does_not_bury_what_comes_later() {
    let root = tempfile::tempdir().unwrap();
    let first = block(1, 100);
    let store = open_quietly(root.path());
    let mut writer = store.writer(Keep::Kept);
    writer.put(vec![first.clone()]).unwrap();
    drop(writer); // Nothing was committed so far.
    assert_eq!(
        store.delete(vec![*first.cid()]).await.unwrap(),
        [*first.cid()]
    );
    drop(store);
    let store = open_quietly(root.path());
    assert_eq!(store.block(first.cid()).await.unwrap(), None);
    store.put(vec![block(2, 100)], Keep::Kept).await.unwrap();
    drop(store);
    holds_all(&open_quietly(root.path()), &[block(2, 100)]).await;
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_what_was_acknowledged_stays() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    let store = open_quietly(root.path());
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    let length = fs::metadata(leaf(root.path(), 1)).unwrap().len();
    // Put, but never committed; then half of it torn off.
    store.writer(Keep::Kept).put(vec![block(50, 5000)]).unwrap();
    drop(store);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(leaf(root.path(), 1))
        .unwrap();
    file.set_len(length + 2000).unwrap();
    let store = open_quietly(root.path());
    assert_eq!(fs::metadata(leaf(root.path(), 1)).unwrap().len(), length);
    holds_all(&store, &blocks).await;
    assert_eq!(store.block(block(50, 5000).cid()).await.unwrap(), None);
    store
        .put(vec![block(51, 70_000)], Keep::Kept)
        .await
        .unwrap();
    holds_all(&store, &[block(51, 70_000)]).await;
}

#[tokio::test]
async fn damage_costs_one_block_is_never_handed_out_and_can_be_put_right() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    let store = open_quietly(root.path());
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    drop(store);
    let at = place_of(root.path(), blocks[3].data());
    overwrite(root.path(), at + 100_000, &[0xff]);

    let store = open_quietly(root.path());
    let error = store.block(blocks[3].cid()).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::Damaged { cid } if cid == blocks[3].cid()),
        "{error}"
    );
    let others: Vec<Block> = blocks
        .iter()
        .filter(|b| *b != &blocks[3])
        .cloned()
        .collect();
    holds_all(&store, &others).await;
    assert!(!store.has(blocks[3].cid()).await.unwrap());
    // Known in later processes as well: what is put is not taken for what lies there.
    store.close().await.unwrap();
    drop(store);
    let store = open_quietly(root.path());
    assert_eq!(store.stat().blocks, others.len() as u64);
    store
        .put(vec![blocks[3].clone()], Keep::Kept)
        .await
        .unwrap();
    holds_all(&store, &blocks).await;
    assert_eq!(store.stat().blocks, blocks.len() as u64);
    drop(store);
    holds_all(&open_quietly(root.path()), &blocks).await;
    fs::remove_dir_all(root.path().join("index")).unwrap();
    holds_all(&open_quietly(root.path()), &blocks).await;
}

#[tokio::test]
async fn verify_names_what_is_damaged_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let blocks: Vec<Block> = (0..50).map(|seed| block(seed, 3000)).collect();
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    let verify = || async {
        let bad = Arc::new(Mutex::new(Vec::new()));
        let into = bad.clone();
        let seen = store
            .verify(|_| {}, move |one| into.lock().unwrap().push(one.cid))
            .await
            .unwrap();
        let bad = bad.lock().unwrap().clone();
        (seen, bad)
    };
    assert_eq!(verify().await, (50, Vec::new()));
    let at = place_of(root.path(), b"block 17 ");
    overwrite(root.path(), at, b"B");
    assert_eq!(verify().await, (50, vec![Some(*blocks[17].cid())]));
    assert_eq!(
        verify().await,
        (50, vec![Some(*blocks[17].cid())]),
        "and again"
    );
    assert_eq!(store.stat().blocks, 49);
    overwrite(root.path(), at, b"b");
    assert_eq!(verify().await, (50, Vec::new()), "the byte is right again");
    assert_eq!(store.stat().blocks, 50);
    assert_eq!(
        store.block(blocks[17].cid()).await.unwrap().as_ref(),
        Some(&blocks[17])
    );
    overwrite(root.path(), at, b"B");
    // Where even the name is gone, the gap is told.
    let at = place_of(root.path(), &blocks[30].cid().to_bytes());
    overwrite(root.path(), at, &[0xff; 8]);
    let (seen, bad) = verify().await;
    assert_eq!((seen, bad.len()), (49, 2));
    assert!(bad.contains(&None) && bad.contains(&Some(*blocks[17].cid())));
}

#[tokio::test]
async fn a_hard_link_to_a_segment_keeps_its_bytes_when_the_segment_goes() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let blocks: Vec<Block> = (0..50).map(|seed| block(seed, 3000)).collect();
    store.put(blocks, Keep::Kept).await.unwrap();
    let kept = root.path().join("kept.car");
    fs::hard_link(leaf(root.path(), 1), &kept).unwrap();
    let before = fs::read(&kept).unwrap();
    store.gc(|_| {}).await.unwrap();
    assert!(!leaf(root.path(), 1).exists());
    assert_eq!(fs::read(&kept).unwrap(), before);
}

#[tokio::test]
async fn verify_makes_wrong_checksums_anew_and_blames_no_block() {
    let root = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..50).map(|seed| block(seed, 3000)).collect();
    let sealing = Config {
        segment_size: ByteSize(1),
        ..config()
    };
    let (store, _) = open_with(root.path(), &sealing);
    for some in [&blocks[..49], &blocks[49..]] {
        store.put(some.to_vec(), Keep::Kept).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let sums = leaf(root.path(), 1).with_extension("crc");
    let right = fs::read(&sums).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(&sums, &wrong).unwrap();
    let (store, _) = open_with(root.path(), &sealing);
    assert_eq!(verified(&store).await, []);
    assert_eq!(fs::read(&sums).unwrap(), right);
    holds_all(&store, &blocks).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn without_checksums_reads_go_on_by_multihash() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    open_quietly(root.path())
        .put(blocks.clone(), Keep::Kept)
        .await
        .unwrap();
    fs::remove_file(leaf(root.path(), 1).with_extension("crc")).unwrap();
    let store = open_quietly(root.path());
    holds_all(&store, &blocks).await;
    store.put(vec![block(60, 10)], Keep::Kept).await.unwrap();
    assert!(
        leaf(root.path(), 2).exists(),
        "a segment without checksums is not appended to"
    );
    holds_all(&store, &[block(60, 10)]).await;
}

#[tokio::test]
async fn wrong_checksums_alone_damage_nothing() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    open_quietly(root.path())
        .put(blocks.clone(), Keep::Kept)
        .await
        .unwrap();
    let sidecar = leaf(root.path(), 1).with_extension("crc");
    let length = fs::metadata(&sidecar).unwrap().len() as usize;
    let mut wrong = fs::read(&sidecar).unwrap();
    wrong[8..length].fill(0xee);
    fs::write(&sidecar, wrong).unwrap();
    holds_all(&open_quietly(root.path()), &blocks).await;
}

#[tokio::test]
async fn a_lost_journal_costs_pins_and_not_blocks() {
    let root = tempfile::tempdir().unwrap();
    let blocks = blocks();
    open_quietly(root.path())
        .put(blocks.clone(), Keep::Kept)
        .await
        .unwrap();
    fs::remove_dir_all(root.path().join("journal")).unwrap();
    let (store, events) = open(root.path());
    assert!(
        events
            .iter()
            .any(|event| matches!(event, OpenEvent::Notice(text) if text.contains("adopted"))),
        "{events:?}"
    );
    // Pins may have been lost with it.
    let refused = store.gc(|_| {}).await;
    assert!(
        matches!(refused, Err(GcError::Journal { .. })),
        "{refused:?}"
    );
    holds_all(&store, &blocks).await;
}

#[tokio::test]
async fn a_lost_segment_costs_its_own_blocks_and_is_told() {
    let root = tempfile::tempdir().unwrap();
    let small = Config {
        segment_size: ByteSize(10_000),
        ..config()
    };
    let blocks: Vec<Block> = (0..20).map(|seed| block(seed, 3000)).collect();
    let (store, _) = open_with(root.path(), &small);
    for block in &blocks {
        store.put(vec![block.clone()], Keep::Kept).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    assert!(leaf(root.path(), 5).exists());
    fs::remove_file(leaf(root.path(), 2)).unwrap();
    let (store, events) = open_with(root.path(), &small);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, OpenEvent::Notice(text) if text.contains("leaf-000002"))),
        "{events:?}"
    );
    let mut there = 0;
    for block in &blocks {
        if store.block(block.cid()).await.unwrap().as_ref() == Some(block) {
            there += 1;
        }
    }
    assert_eq!(there, 16);
    assert_eq!(store.stat().blocks, 16);
}

#[tokio::test]
async fn the_second_to_open_is_told_who_has_it() {
    let root = tempfile::tempdir().unwrap();
    let first = open_quietly(root.path());
    let second = Store::open(root.path(), &config(), &mut |_| {});
    assert!(
        matches!(&second, Err(OpenError::Locked { path }) if path.contains(root.path().to_str().unwrap()))
    );
    drop(first);
    open_quietly(root.path());
}

#[tokio::test]
async fn writing_stops_before_the_disk_is_full_and_reading_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let first = block(1, 100);
    let store = open_quietly(root.path());
    store.put(vec![first.clone()], Keep::Kept).await.unwrap();
    drop(store);
    let full = Config {
        reserve: Reserve::Bytes(ByteSize(u64::MAX / 2)),
        ..config()
    };
    let (store, _) = open_with(root.path(), &full);
    let refused = store.put(vec![block(2, 100)], Keep::Kept).await;
    assert!(matches!(&refused, Err(PutError::Full(why)) if why.contains("storage.reserve")));
    holds_all(&store, &[first]).await;
}

#[tokio::test]
async fn writers_at_the_same_time_share_segments_and_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    let small = Config {
        segment_size: ByteSize(200_000),
        ..config()
    };
    let (store, _) = open_with(root.path(), &small);
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for round in 0..50 {
                    let mut writer = store.writer(Keep::Kept);
                    // Half of them are everybody's, half are this thread's own.
                    let mine = (0..4)
                        .map(|at| block(round * 10 + at + (at % 2) * 1000 * (thread + 1), 700));
                    writer.put(mine.collect()).unwrap();
                    writer.commit().unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let cids = listed(&store).await;
    assert_eq!(cids.len() as u64, store.stat().blocks);
    let distinct: std::collections::HashSet<_> = cids.iter().map(|cid| *cid.hash()).collect();
    assert_eq!(distinct.len(), cids.len());
    drop(store);
    let (store, events) = open_with(root.path(), &small);
    assert_eq!(events, []);
    assert_eq!(listed(&store).await.len(), cids.len());
}

#[tokio::test]
async fn a_closed_store_refuses_writes_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    store.close().await.unwrap();
    let refused = store.put(vec![block(1, 1)], Keep::Kept).await;
    assert!(matches!(refused, Err(PutError::Closing)));
}

#[tokio::test]
async fn a_segment_that_has_lost_its_end_takes_no_new_blocks() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let blocks: Vec<Block> = (0..40).map(|seed| block(seed, 2000)).collect();
    let [early, late, new] = [&blocks[..10], &blocks[10..20], &blocks[20..]];
    store.put(early.to_vec(), Keep::Kept).await.unwrap();
    let files = [
        leaf(root.path(), 1),
        leaf(root.path(), 1).with_extension("crc"),
    ];
    let before = files.clone().map(|file| fs::read(file).unwrap());
    store.put(late.to_vec(), Keep::Kept).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    // As a disk leaves them that had only promised to keep the rest.
    for (file, bytes) in files.iter().zip(before) {
        fs::write(file, bytes).unwrap();
    }
    let (store, _) = open(root.path());
    assert_eq!(store.stat().blocks, 10);
    store.put(new.to_vec(), Keep::Kept).await.unwrap();
    assert!(leaf(root.path(), 2).exists());
    store.rebuild_index(|_| {}).await.unwrap();
    holds_all(&store, early).await;
    holds_all(&store, new).await;
    store.close().await.unwrap();
    drop(store);
    let (store, _) = open(root.path());
    holds_all(&store, early).await;
    holds_all(&store, new).await;
}

#[tokio::test]
async fn what_is_known_to_be_damaged_is_still_known_when_the_index_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let blocks: Vec<Block> = (0..5).map(|seed| block(seed, 2000)).collect();
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    let at = place_of(root.path(), blocks[3].data());
    overwrite(root.path(), at + 9, &[0xff]);
    let bad = verified(&store).await;
    let bad: Vec<_> = bad.into_iter().map(|one| one.cid).collect();
    assert_eq!(bad, [Some(*blocks[3].cid())]);
    store.rebuild_index(|_| {}).await.unwrap();
    assert_eq!(store.stat().blocks, 4);
    assert!(!store.has(blocks[3].cid()).await.unwrap());
    // So putting it again writes it again.
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    let healed = store.block(blocks[3].cid()).await.unwrap();
    assert_eq!(healed.as_ref(), Some(&blocks[3]));
    assert_eq!(store.stat().blocks, 5);
}

/// Rebuilding is nobody's business but the index's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_index_is_made_anew_everything_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    let old: Vec<Block> = (0..300).map(|seed| block(seed, 2000)).collect();
    store.put(old.clone(), Keep::Kept).await.unwrap();
    let doomed: Vec<Block> = (5000..5400).map(|seed| block(seed, 900)).collect();
    store.put(doomed.clone(), Keep::Kept).await.unwrap();
    let over = AtomicBool::new(false);
    let doom = async {
        for block in &doomed {
            let deleted = store.delete(vec![*block.cid()]).await.unwrap();
            assert_eq!(deleted, [*block.cid()]);
        }
    };
    let rebuild = async {
        for _ in 0..20 {
            store.rebuild_index(|_| {}).await.unwrap();
        }
        over.store(true, Ordering::Relaxed);
    };
    let work = async |from: usize| {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        let mut at = from;
        while !over.load(Ordering::Relaxed) || at == from {
            let two = vec![block(at, 700), block(at + 1, 700)];
            store.put(two.clone(), Keep::Kept).await.unwrap();
            let deleted = store.delete(vec![*two[0].cid()]).await.unwrap();
            assert_eq!(deleted, [*two[0].cid()]);
            assert_eq!(store.block(two[0].cid()).await.unwrap(), None);
            gone.push(two[0].clone());
            kept.push(two[1].clone());
            at += 2;
        }
        (kept, gone)
    };
    let look = async {
        while !over.load(Ordering::Relaxed) {
            holds_all(&store, &old).await;
        }
    };
    let ((), (), one, two, ()) = tokio::join!(rebuild, doom, work(10_000), work(1_000_000), look);
    let mut present = old;
    let mut gone = doomed;
    for (kept, deleted) in [one, two] {
        present.extend(kept);
        gone.extend(deleted);
    }
    let mut store = Some(store);
    for _ in 0..2 {
        let open = store.take().unwrap_or_else(|| open_quietly(root.path()));
        holds_all(&open, &present).await;
        for block in &gone {
            assert_eq!(open.block(block.cid()).await.unwrap(), None);
        }
        assert_eq!(open.stat().blocks, present.len() as u64);
        let bytes: usize = present.iter().map(|block| block.data().len()).sum();
        assert_eq!(open.stat().bytes, bytes as u64);
        open.close().await.unwrap();
    }
}

async fn verified(store: &Store) -> Vec<BadBlock> {
    let bad = Arc::new(Mutex::new(Vec::new()));
    let into = bad.clone();
    let seen = store.verify(|_| {}, move |one| into.lock().unwrap().push(one));
    seen.await.unwrap();
    let bad = bad.lock().unwrap();
    bad.clone()
}

#[tokio::test]
async fn a_segment_that_was_away_for_a_while_counts_again_when_it_is_back() {
    let root = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..20).map(|seed| block(seed, 3000)).collect();
    let store = open_quietly(root.path());
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let path = leaf(root.path(), 1);
    let whole = fs::read(&path).unwrap();
    for there in [None, Some(whole.len() / 2)] {
        fs::remove_file(&path).unwrap();
        if let Some(length) = there {
            fs::write(&path, &whole[..length]).unwrap();
        }
        let (store, events) = open(root.path());
        assert!(!events.is_empty());
        assert!(store.stat().blocks < blocks.len() as u64);
        assert!(
            !verified(&store).await.is_empty(),
            "what is missing is told"
        );
        store.put(vec![block(100, 10)], Keep::Kept).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        // Cut off, it is written to again; only what was away as a whole may come back.
        if there.is_none() {
            fs::write(&path, &whole).unwrap();
            let (store, _) = open(root.path());
            holds_all(&store, &blocks).await;
            assert_eq!(verified(&store).await, []);
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn verify_tells_damage_that_the_index_knows_nothing_of_until_it_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..20).map(|seed| block(seed, 3000)).collect();
    let store = open_quietly(root.path());
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let at = place_of(root.path(), &blocks[7].cid().to_bytes());
    overwrite(root.path(), at, &[0xff; 8]);
    fs::remove_dir_all(root.path().join("index")).unwrap();
    let (store, _) = open(root.path());
    assert_eq!(store.stat().blocks, 19);
    let bad = verified(&store).await;
    assert_eq!(bad.len(), 1);
    assert_eq!(verified(&store).await, bad);
    let sections = bad.iter().map(|bad| bad.section).collect();
    assert_eq!(store.drop_damaged(sections).await.unwrap(), [true]);
    assert_eq!(verified(&store).await, []);
    store.close().await.unwrap();
    drop(store);
    let store = open_quietly(root.path());
    assert_eq!(verified(&store).await, []);
    store.put(blocks.clone(), Keep::Kept).await.unwrap();
    holds_all(&store, &blocks).await;
}

#[tokio::test]
async fn a_lock_file_that_was_removed_lets_nobody_else_in() {
    let root = tempfile::tempdir().unwrap();
    let store = open_quietly(root.path());
    fs::remove_file(root.path().join("repo.lock")).unwrap();
    let second = Store::open(root.path(), &config(), &mut |_| {});
    assert!(
        matches!(second, Err(OpenError::Locked { .. })),
        "{second:?}"
    );
    store.put(blocks(), Keep::Kept).await.unwrap();
    drop(store);
    holds_all(&open_quietly(root.path()), &blocks()).await;
}

#[tokio::test]
async fn an_index_without_a_cache_to_speak_of_opens() {
    let root = tempfile::tempdir().unwrap();
    let config = Config {
        index_cache: ByteSize(0),
        ..config()
    };
    let store = Store::open(root.path(), &config, &mut |event| panic!("{event:?}")).unwrap();
    store.put(blocks(), Keep::Kept).await.unwrap();
    holds_all(&store, &blocks()).await;
}
