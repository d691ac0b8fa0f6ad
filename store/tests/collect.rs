//! Pins and garbage collection: what is reached stays, the rest goes and gives its space back.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::gc::{GcError, GcEvent, GcReport};
use cairn_store::pin::{PinError, PinMode, PinWish};
use cairn_store::sink::BlockSink;
use cairn_store::store::{Keep, OpenEvent};
use cairn_store::{BlockSource, Store};
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const RAW: Prefix = Prefix {
    version: Version::V1,
    codec: cid::RAW,
    hash: HashKind::Sha2_256,
};

fn leaf(seed: usize) -> Block {
    let mut bytes = format!("leaf {seed} ").into_bytes();
    bytes.resize(2000, 7);
    Block::new(RAW, Bytes::from(bytes)).unwrap()
}

fn node(children: &[&Block]) -> Block {
    let links = children
        .iter()
        .map(|child| PbLink {
            cid: *child.cid(),
            name: Some(String::new()),
            tsize: Some(1),
        })
        .collect();
    let prefix = Prefix {
        codec: cid::DAG_PB,
        ..RAW
    };
    Block::new(prefix, pb::encode(&PbNode { links, data: None })).unwrap()
}

/// A root over `count` leaves, leaves first.
fn tree(seeds: std::ops::Range<usize>) -> Vec<Block> {
    let leaves: Vec<Block> = seeds.map(leaf).collect();
    let root = node(&leaves.iter().collect::<Vec<_>>());
    leaves.into_iter().chain([root]).collect()
}

fn root_of(tree: &[Block]) -> Cid {
    *tree.last().unwrap().cid()
}

fn open(root: &Path) -> Store {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let mut notices = Vec::new();
    let store = Store::open(root, &config, &mut |event| {
        if let OpenEvent::Notice(text) = event {
            notices.push(text);
        }
    });
    assert_eq!(notices, Vec::<String>::new());
    store.unwrap()
}

async fn pin(store: &Store, cid: Cid, mode: PinMode) -> Result<(), PinError> {
    store.pin_add(store.clone(), cid, mode, None, |_| {}).await
}

async fn gc(store: &Store) -> (GcReport, Vec<Cid>) {
    let removed = Arc::new(Mutex::new(Vec::new()));
    let into = removed.clone();
    let report = store
        .gc(move |event| {
            if let GcEvent::Removed(cid) = event {
                into.lock().unwrap().push(cid);
            }
        })
        .await
        .unwrap();
    let removed = removed.lock().unwrap().clone();
    (report, removed)
}

async fn present(store: &Store, tree: &[Block]) -> usize {
    let mut count = 0;
    for block in tree {
        if let Some(found) = store.block(block.cid()).await.unwrap() {
            assert_eq!(found, *block);
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn gc_keeps_what_pins_reach_removes_the_rest_and_gives_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, direct, gone) = (tree(0..100), tree(50..150), tree(200..900));
    for tree in [&kept, &direct, &gone] {
        store.put(tree.to_vec(), Keep::Kept).await.unwrap();
    }
    pin(&store, root_of(&kept), PinMode::Recursive)
        .await
        .unwrap();
    pin(&store, root_of(&direct), PinMode::Direct)
        .await
        .unwrap();
    let before = store.stat();
    let (report, removed) = gc(&store).await;
    assert_eq!(
        removed.len(),
        50 + 701,
        "50 leaves only of `direct`, and all of `gone`"
    );
    assert_eq!(report.blocks, removed.len() as u64);
    let check = |store: Store| {
        let (kept, direct, gone) = (kept.clone(), direct.clone(), gone.clone());
        async move {
            assert_eq!(present(&store, &kept).await, 101);
            assert_eq!(present(&store, &direct).await, 50 + 1);
            assert_eq!(present(&store, &gone).await, 0);
            assert_eq!(store.stat().blocks, 102);
        }
    };
    check(store.clone()).await;
    assert!(report.freed > 1_000_000, "{report:?}");
    assert!(store.stat().disk_bytes < before.disk_bytes / 2);
    let stat = store.stat();
    drop(store);
    let store = open(folder.path());
    check(store.clone()).await;
    assert_eq!(store.stat(), stat);
    drop(store);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    check(open(folder.path())).await;
}

#[tokio::test]
async fn gc_leaves_alone_what_a_running_import_found_present() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let tree = tree(0..20);
    store.put(tree.clone(), Keep::Kept).await.unwrap();
    let mut writer = store.writer(Keep::Kept);
    writer.put(tree.clone()).unwrap(); // All of it was there already.
    assert_eq!(gc(&store).await.1, []);
    writer
        .commit_and_pin(&[root_of(&tree)], Some("mine"))
        .unwrap();
    drop(writer);
    assert_eq!(gc(&store).await.1, []);
    assert_eq!(present(&store, &tree).await, 21);
    store.pin_remove(&root_of(&tree), None).await.unwrap();
    assert_eq!(gc(&store).await.1.len(), 21);
}

#[tokio::test]
async fn gc_deletes_nothing_when_a_pinned_dag_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (pinned, other) = (tree(0..3), tree(10..20));
    store.put(pinned.clone(), Keep::Kept).await.unwrap();
    store.put(other.clone(), Keep::Kept).await.unwrap();
    pin(&store, root_of(&pinned), PinMode::Recursive)
        .await
        .unwrap();
    let path = folder.path().join("blocks/node-000001.car");
    let bytes = std::fs::read(&path).unwrap();
    let needle = pinned.last().unwrap().data();
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff], at as u64 + 5).unwrap();
    // What was read before the damage may be in memory still.
    store.close().await.unwrap();
    drop(store);
    let store = open(folder.path());
    let error = store.gc(|_| {}).await.unwrap_err();
    let GcError::Unreadable { root, source } = &error else {
        panic!("{error}");
    };
    assert_eq!(*root, root_of(&pinned));
    // What can be mended by fetching it is told as that.
    let text = source.to_string();
    assert!(text.contains("damaged"), "{text}");
    assert_eq!(present(&store, &other).await, 11);
    store.put(pinned.clone(), Keep::Kept).await.unwrap();
    store.gc(|_| {}).await.unwrap();
    assert_eq!(present(&store, &pinned).await, pinned.len());
    assert_eq!(present(&store, &other).await, 0);
}

#[tokio::test]
async fn gc_and_writers_at_the_same_time_lose_nothing_that_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let writing = store.clone();
    let writer = std::thread::spawn(move || {
        let mut roots = Vec::new();
        for round in 0..60 {
            // Overlaps with earlier rounds, most of which are garbage by now.
            let tree = tree(round * 5..round * 5 + 30);
            let mut writer = writing.writer(Keep::Kept);
            writer.put(tree.clone()).unwrap();
            if round % 3 == 0 {
                writer.commit_and_pin(&[root_of(&tree)], None).unwrap();
                roots.push(tree);
            } else {
                writer.commit().unwrap();
            }
        }
        roots
    });
    let mut runs = 0;
    while !writer.is_finished() || runs < 3 {
        gc(&store).await;
        runs += 1;
    }
    let pinned = writer.join().unwrap();
    for tree in &pinned {
        assert_eq!(present(&store, tree).await, tree.len());
    }
    drop(store);
    let store = open(folder.path());
    for tree in &pinned {
        assert_eq!(present(&store, tree).await, tree.len());
    }
}

#[tokio::test]
async fn a_pin_is_made_only_when_all_of_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let tree = tree(0..5);
    store.put(tree[1..].to_vec(), Keep::Kept).await.unwrap();
    let missing = pin(&store, root_of(&tree), PinMode::Recursive)
        .await
        .unwrap_err();
    assert!(
        missing.to_string().contains(&tree[0].cid().to_string()),
        "{missing}"
    );
    assert_eq!(store.pins(), []);
    // From another source, what is missing is taken over.
    let elsewhere: Arc<HashMap<Cid, Block>> = Arc::new(
        tree.iter()
            .map(|block| (*block.cid(), block.clone()))
            .collect(),
    );
    store
        .pin_add(
            elsewhere,
            root_of(&tree),
            PinMode::Recursive,
            Some("five".to_owned()),
            |_| {},
        )
        .await
        .unwrap();
    assert_eq!(present(&store, &tree).await, 6);
    drop(store);
    let store = open(folder.path());
    assert_eq!(
        store.pin(&root_of(&tree)).unwrap().name.as_deref(),
        Some("five")
    );
}

#[tokio::test]
async fn pins_change_their_name_and_their_reach() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let tree = tree(0..5);
    let root = root_of(&tree);
    store.put(tree.clone(), Keep::Kept).await.unwrap();
    pin(&store, root, PinMode::Direct).await.unwrap();
    pin(&store, root, PinMode::Recursive).await.unwrap();
    assert_eq!(store.pin(&root).unwrap().mode, PinMode::Recursive);
    let back = pin(&store, root, PinMode::Direct).await;
    assert!(matches!(
        back,
        Err(PinError::OtherMode {
            mode: PinMode::Recursive,
            ..
        })
    ));
    let named = Some("a name".to_owned());
    store
        .pin_add(
            store.clone(),
            root,
            PinMode::Recursive,
            named.clone(),
            |_| {},
        )
        .await
        .unwrap();
    assert_eq!(store.pin(&root).unwrap().name, named);
    pin(&store, root, PinMode::Recursive).await.unwrap();
    assert_eq!(
        store.pin(&root).unwrap().name,
        named,
        "pinned again without a name, it keeps it"
    );
    let long = Some("x".repeat(256));
    let refused = store
        .pin_add(store.clone(), root, PinMode::Recursive, long, |_| {})
        .await;
    assert!(matches!(refused, Err(PinError::NameTooLong { bytes: 256 })));
    let wrong = store.pin_remove(&root, Some(PinMode::Direct)).await;
    assert!(matches!(wrong, Err(PinError::OtherMode { .. })));
    store
        .pin_remove(&root, Some(PinMode::Recursive))
        .await
        .unwrap();
    let again = store.pin_remove(&root, None).await.unwrap_err();
    assert_eq!(again.to_string(), "not pinned or pinned indirectly");
}

/// Roots over one folder and leaves of their own, so that some sort before it and some after.
fn roots_over(folder: &Block) -> Vec<Vec<Block>> {
    (0..8)
        .map(|at| {
            let own = leaf(1000 + at);
            let root = node(&[&own, folder]);
            vec![own, root]
        })
        .collect()
}

#[tokio::test]
async fn a_direct_pin_hides_nothing_from_a_recursive_one_above_it() {
    let inner = tree(0..5);
    let folder_block = inner.last().unwrap().clone();
    for above in roots_over(&folder_block) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.put(inner.clone(), Keep::Kept).await.unwrap();
        store.put(above.clone(), Keep::Kept).await.unwrap();
        pin(&store, *folder_block.cid(), PinMode::Direct)
            .await
            .unwrap();
        pin(&store, root_of(&above), PinMode::Recursive)
            .await
            .unwrap();
        assert_eq!(gc(&store).await.1, []);
        assert_eq!(present(&store, &inner).await, 6);
    }
}

#[tokio::test]
async fn a_block_deleted_before_a_kill_can_be_put_again_after_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, deleted) = (tree(0..3), tree(100..300));
    let store = open(folder.path());
    store.put(kept.clone(), Keep::Kept).await.unwrap();
    store.put(deleted.clone(), Keep::Kept).await.unwrap();
    pin(&store, root_of(&kept), PinMode::Recursive)
        .await
        .unwrap();
    store.close().await.unwrap(); // sled knows all of them now.
    drop(store);
    let store = open(folder.path());
    let cids: Vec<Cid> = deleted.iter().map(|block| *block.cid()).collect();
    assert_eq!(store.delete(cids.clone()).await.unwrap(), cids);
    drop(store); // As after a kill: sled was not told.
    let store = open(folder.path());
    assert_eq!(store.stat().blocks, 4);
    assert!(gc(&store).await.0.freed > 100_000);
    assert_eq!(present(&store, &deleted).await, 0);
    store.put(deleted.clone(), Keep::Kept).await.unwrap();
    assert_eq!(present(&store, &deleted).await, 201);
    drop(store);
    let store = open(folder.path());
    assert_eq!(
        present(&store, &deleted).await + present(&store, &kept).await,
        205
    );
    assert_eq!(store.stat().blocks, 205);
    assert_eq!(store.delete(cids.clone()).await.unwrap(), cids);
}

#[tokio::test]
async fn a_segment_with_damage_is_not_compacted_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (kept, gone) = (tree(0..3), tree(100..300));
    store.put(kept.clone(), Keep::Kept).await.unwrap();
    store.put(gone, Keep::Kept).await.unwrap();
    pin(&store, root_of(&kept), PinMode::Recursive)
        .await
        .unwrap();
    let path = folder.path().join("blocks/leaf-000001.car");
    let bytes = std::fs::read(&path).unwrap();
    let named = kept[1].cid().to_bytes();
    let at = bytes
        .windows(named.len())
        .position(|window| window == named)
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff, 0xff], at as u64).unwrap();
    gc(&store).await;
    assert!(
        path.exists(),
        "what cannot be read may be put right by hand"
    );
    assert_eq!(present(&store, &kept[..1]).await, 1);
}

#[tokio::test]
async fn what_is_held_or_newly_pinned_is_not_deleted_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let tree = tree(0..3);
    store.put(tree.clone(), Keep::Kept).await.unwrap();
    let mut writer = store.writer(Keep::Kept);
    writer.put(tree.clone()).unwrap();
    assert_eq!(store.delete(vec![*tree[0].cid()]).await.unwrap(), []);
    let seen = store.pins_version();
    writer.commit_and_pin(&[root_of(&tree)], None).unwrap();
    drop(writer);
    let late = store
        .delete_unpinned(vec![*tree[0].cid()], seen)
        .await
        .unwrap();
    assert_eq!(late, None, "pins have changed: look again");
    assert_eq!(present(&store, &tree).await, 4);
}

#[tokio::test]
async fn gc_refuses_while_the_journal_is_known_to_have_lost_records() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let trees = [tree(0..3), tree(10..13), tree(20..23)];
    for tree in &trees {
        store.put(tree.clone(), Keep::Kept).await.unwrap();
        pin(&store, root_of(tree), PinMode::Recursive)
            .await
            .unwrap();
    }
    drop(store);
    let path = folder.path().join("journal/journal.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = trees[1].last().unwrap().cid().to_bytes();
    let at = bytes
        .windows(second.len())
        .position(|window| window == second)
        .unwrap();
    bytes[at + 5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let store = Store::open(folder.path(), &config, &mut |_| {}).unwrap();
    assert_eq!(store.pins().len(), 2);
    let refused = store.gc(|_| {}).await.unwrap_err();
    assert!(matches!(&refused, GcError::Journal { damage } if damage.contains("journal.damaged")));
    for tree in &trees {
        assert_eq!(present(&store, tree).await, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_and_fetches_at_the_same_time_lose_nothing_that_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        segment_size: ByteSize(64 << 10),
        cache_max: ByteSize(64 << 10),
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let store = Store::open(folder.path(), &config, &mut |_| {}).unwrap();
    let trees: Vec<Vec<Block>> = (0..40).map(|at| tree(at * 5..at * 5 + 30)).collect();
    let everything = trees.iter().flatten();
    let peers: Arc<HashMap<Cid, Block>> = Arc::new(
        everything
            .map(|block| (*block.cid(), block.clone()))
            .collect(),
    );
    let over = AtomicBool::new(false);
    let fetch = async {
        for (at, tree) in trees.iter().enumerate() {
            // Some of it is here from earlier rounds, and garbage by now.
            for block in tree {
                let fetched = store.put(vec![block.clone()], Keep::Cached).await;
                fetched.unwrap();
            }
            if at % 2 == 0 {
                let recursive = PinMode::Recursive;
                let pin = store.pin_add(peers.clone(), root_of(tree), recursive, None, |_| {});
                pin.await.unwrap();
            }
            for earlier in trees.iter().take(at + 1).step_by(2) {
                assert_eq!(present(&store, earlier).await, earlier.len());
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    let collect = async {
        let mut runs = 0;
        while !over.load(Ordering::Relaxed) || runs < 3 {
            gc(&store).await;
            store.evict().await.unwrap();
            runs += 1;
        }
    };
    tokio::join!(fetch, collect);
    let stays: HashMap<Cid, &Block> = trees
        .iter()
        .step_by(2)
        .flatten()
        .map(|block| (*block.cid(), block))
        .collect();
    gc(&store).await;
    assert_eq!(store.stat().blocks, stays.len() as u64);
    drop(store);
    let store = Store::open(folder.path(), &config, &mut |_| {}).unwrap();
    for tree in trees.iter().step_by(2) {
        assert_eq!(present(&store, tree).await, tree.len());
    }
}

#[tokio::test]
async fn many_collections_leave_few_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut kept = Vec::new();
    let mut most = 0;
    for round in 0..60 {
        let (stays, goes) = (
            tree(round * 20..round * 20 + 10),
            tree(round * 20 + 10..round * 20 + 15),
        );
        store.put(stays.clone(), Keep::Kept).await.unwrap();
        store.put(goes, Keep::Kept).await.unwrap();
        pin(&store, root_of(&stays), PinMode::Recursive)
            .await
            .unwrap();
        gc(&store).await;
        kept.extend(stays);
        let segments = std::fs::read_dir(folder.path().join("blocks")).unwrap();
        let cars = segments.filter(|file| {
            let name = file.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".car")
        });
        most = most.max(cars.count());
    }
    assert!(most <= 2 * 10, "{most} files of two streams");
    assert_eq!(present(&store, &kept).await, kept.len());
    assert_eq!(store.stat().blocks, kept.len() as u64);
}

#[tokio::test]
async fn a_limit_that_is_lowered_leaves_what_fits_it() {
    const BLOCKS: u8 = 64;
    const BYTES: usize = 256 << 10;
    let folder = tempfile::tempdir().unwrap();
    let open = |cache_max| {
        let config = Config {
            cache_max: ByteSize(cache_max),
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        Store::open(folder.path(), &config, &mut |_| {}).unwrap()
    };
    let cached = |number| Block::new(RAW, vec![number; BYTES].into()).unwrap();
    let store = open(1 << 30);
    for number in 0..BLOCKS {
        store.put(vec![cached(number)], Keep::Cached).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    // All of it lies in one file, and the limit is a quarter of that.
    let limit = u64::from(BLOCKS / 4) * BYTES as u64;
    let store = open(limit);
    let before = store.stat();
    assert_eq!(before.blocks, u64::from(BLOCKS));
    let evicted = store.evict().await.unwrap();
    let after = store.stat();
    assert_eq!(evicted.blocks, before.blocks - after.blocks);
    assert!(after.cache_bytes <= limit, "{after:?}");
    assert!(after.blocks >= u64::from(BLOCKS / 8) - 1, "{after:?}");
    let mut left = 0;
    for number in 0..BLOCKS {
        let block = cached(number);
        let is_here = store.block(block.cid()).await.unwrap() == Some(block);
        left += u64::from(is_here);
        // What came last.
        let is_young = u64::from(BLOCKS - number) <= after.blocks;
        assert_eq!(is_here, is_young, "{number}: {after:?}");
    }
    assert_eq!(left, after.blocks);
}

async fn set_files(store: &Store, root: Cid) {
    let wish = PinWish::new(root, PinMode::Recursive);
    let whole = store.pin_fetch(store.clone(), &wish, |_| {}).await.unwrap();
    store.set_files_root(root, whole).await.unwrap();
}

#[tokio::test]
async fn what_the_file_tree_reaches_stays_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let trees = [tree(0..3), tree(10..13)];
    for tree in &trees {
        store.put(tree.clone(), Keep::Cached).await.unwrap();
    }
    assert_eq!(store.files_root(), None);
    let before = store.pins_version();
    set_files(&store, root_of(&trees[0])).await;
    assert_ne!(
        store.pins_version(),
        before,
        "whoever looks at pins looks again"
    );
    let standing = store.standing(trees[0][0].cid()).await.unwrap().unwrap();
    assert_eq!(standing.keep, Keep::Kept);
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.files_root(), Some(root_of(&trees[0])));
    store.gc(|_| {}).await.unwrap();
    assert_eq!(present(&store, &trees[0]).await, 4);
    assert_eq!(present(&store, &trees[1]).await, 0);
    store.put(trees[1].clone(), Keep::Kept).await.unwrap();
    set_files(&store, root_of(&trees[1])).await;
    store.gc(|_| {}).await.unwrap();
    assert_eq!(present(&store, &trees[0]).await, 0);
    assert_eq!(present(&store, &trees[1]).await, 4);
}

#[tokio::test]
async fn gc_deletes_nothing_while_something_in_the_file_tree_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (files, garbage) = (tree(0..3), tree(10..13));
    for tree in [&files, &garbage] {
        store.put(tree.clone(), Keep::Kept).await.unwrap();
    }
    let root = root_of(&files);
    set_files(&store, root).await;
    store.delete(vec![*files[1].cid()]).await.unwrap();
    let refused = store.gc(|_| {}).await.unwrap_err();
    assert!(
        matches!(&refused, GcError::Files { root: named, .. } if *named == root),
        "{refused}"
    );
    assert_eq!(present(&store, &garbage).await, 4);
}
