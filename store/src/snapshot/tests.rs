//! What a snapshot shares, what it keeps apart, and what it holds whatever happens while it is made.

use super::*;
use crate::block::{Block, Prefix};
use crate::cid::{self, HashKind, Version};
use crate::config::{ByteSize, Config, Reserve};
use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::index::Image;
use crate::sink::BlockSink;
use crate::store::{Ground, Keep, OpenEvent};
use std::os::unix::fs::PermissionsExt;

/// Segments of so little that there are many.
fn config() -> Config {
    Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        segment_size: ByteSize(64 << 10),
        ..Config::default()
    }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, &config(), &mut |event| {
        if let OpenEvent::Notice(text) = event {
            panic!("{text}");
        }
    })
    .unwrap()
}

fn block(number: u32) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let bytes = number.to_le_bytes().repeat(2500);
    Block::new(prefix, bytes.into()).unwrap()
}

fn put(store: &Store, numbers: impl IntoIterator<Item = u32>) {
    let mut writer = store.writer(Keep::Kept);
    for number in numbers {
        let block = block(number);
        let cid = *block.cid();
        writer.put(vec![block]).unwrap();
        writer.commit_and_pin(&[cid], None).unwrap();
    }
}

fn has_all(store: &Store, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let block = block(number);
        let found = store.inner.block(block.cid()).unwrap();
        assert_eq!(found.as_ref(), Some(&block), "block {number}");
        assert!(store.pin(block.cid()).is_some(), "pin of block {number}");
    }
}

fn close(store: Store) {
    store.inner.close().unwrap();
}

fn snapshot(store: &Store, folder: &Path) -> Result<Made, SnapshotError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(store.snapshot(folder.to_owned(), |_| Ok(Vec::new())))
}

fn restore_to(from: &Path, to: &Path) -> Result<Made, SnapshotError> {
    restore(from, to, &Stop::default(), |_| Ok(Vec::new()))
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_is_a_repository_of_what_was_there_and_goes_its_own_way() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("one"), folder.path().join("two"));
    let store = open(&path);
    put(&store, 0..40);
    store.inner.checkpoint().unwrap();
    put(&store, 40..45);
    let made = snapshot(&store, &copy).unwrap();
    assert!(made.has_index && made.notices.is_empty(), "{made:?}");
    assert!(made.segments > 5, "{made:?}");
    assert_eq!(made.cloned + made.linked + made.copied, made.bytes);
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(names(&copy), ["blocks", "index", "journal", "version"]);
    assert_eq!(
        names(folder.path()),
        ["one", "two"],
        "nothing is left beside"
    );
    put(&store, 45..60);
    let second = open(&copy);
    has_all(&second, 0..45);
    assert_eq!(second.stat().blocks, 45);
    assert_eq!(second.pins().len(), 45);
    put(&second, 100..130);
    has_all(&store, 0..60);
    assert_eq!(store.inner.block(block(100).cid()).unwrap(), None);
    close(second);
    close(store);
    has_all(&open(&path), 0..60);
    let second = open(&copy);
    has_all(&second, (0..45).chain(100..130));
}

#[test]
fn without_reflinks_sealed_segments_are_links_and_those_that_may_grow_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    put(&store, 0..40);
    let first = folder.path().join("first");
    let made = snapshot(&store, &first).unwrap();
    if made.cloned > 0 {
        return; // This file system can do better.
    }
    assert!(made.linked > made.copied && made.copied > 0, "{made:?}");
    let second = folder.path().join("second");
    snapshot(&store, &second).unwrap();
    let third = folder.path().join("third");
    let from_snapshot = open(&first);
    snapshot(&from_snapshot, &third).unwrap();
    close(from_snapshot);
    let segments = names(&path.join("blocks"));
    let last = segments.iter().filter(|name| name.ends_with(".car")).max();
    for name in &segments {
        let of = |root: &Path| inode(&root.join("blocks").join(name));
        let inodes = [of(&path), of(&first), of(&second), of(&third)];
        let stem = last.unwrap().strip_suffix("car").unwrap();
        let shared = inodes.iter().all(|inode| *inode == inodes[0]);
        assert_eq!(shared, !name.starts_with(stem), "{name}: {inodes:?}");
        if !shared {
            let mut apart = inodes.to_vec();
            apart.sort_unstable();
            apart.dedup();
            assert_eq!(apart.len(), 4, "{name}");
        }
    }
}

#[test]
fn what_is_emptied_and_removed_stays_in_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("one"), folder.path().join("two"));
    let store = open(&path);
    put(&store, 0..40);
    snapshot(&store, &copy).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for number in 0..30 {
        runtime
            .block_on(store.pin_remove(block(number).cid(), None))
            .unwrap();
    }
    let freed = runtime.block_on(store.gc(|_| {})).unwrap().freed;
    assert!(freed > 0);
    assert_eq!(store.stat().blocks, 10);
    close(store);
    let second = open(&copy);
    has_all(&second, 0..40);
    assert_eq!(
        runtime
            .block_on(second.verify(|_| {}, |bad| panic!("{bad:?}")))
            .unwrap(),
        40
    );
}

#[test]
fn a_linked_segment_gets_its_own_bytes_before_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    put(&store, 0..3);
    close(store);
    // As somebody's backup of hard links would have it.
    let segment = path.join("blocks/leaf-000001.car");
    let sums = path.join("blocks/leaf-000001.crc");
    let (kept, kept_sums) = (folder.path().join("car"), folder.path().join("crc"));
    fs::hard_link(&segment, &kept).unwrap();
    fs::hard_link(&sums, &kept_sums).unwrap();
    let before = (fs::read(&kept).unwrap(), fs::read(&kept_sums).unwrap());
    let store = open(&path);
    put(&store, 3..5);
    close(store);
    assert_eq!(
        (fs::read(&kept).unwrap(), fs::read(&kept_sums).unwrap()),
        before
    );
    assert!(fs::read(&segment).unwrap().len() > before.0.len());
    has_all(&open(&path), 0..5);
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    put(&store, 0..3);
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("file"), b"mine").unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"mine").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for path in [&taken, &file, &link] {
        let refused = snapshot(&store, path).unwrap_err();
        assert!(matches!(refused, SnapshotError::Taken { .. }), "{refused}");
    }
    let nowhere = snapshot(&store, &folder.path().join("no/such")).unwrap_err();
    assert!(nowhere.to_string().contains("no/"), "{nowhere}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    snapshot(&store, &empty).unwrap();
    has_all(&open(&empty), 0..3);
    assert_eq!(
        names(folder.path()),
        ["empty", "file", "link", "store", "taken"]
    );
}

#[test]
fn what_a_killed_attempt_has_left_goes_with_the_next_and_what_runs_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    put(&store, 0..3);
    let copy = folder.path().join("copy");
    let killed = folder.path().join(".copy.0123456789abcdef.unfinished");
    fs::create_dir_all(killed.join("journal")).unwrap();
    let mine = folder.path().join(".copy.mine.unfinished");
    fs::create_dir(&mine).unwrap();
    let running = Unfinished::beside(&copy).unwrap();
    assert!(!killed.exists());
    snapshot(&store, &copy).unwrap();
    assert!(running.path.exists() && mine.exists());
    let refused = running.finish().unwrap_err();
    assert!(refused.to_string().contains("copy"), "{refused}");
    assert_eq!(
        names(folder.path()),
        [".copy.mine.unfinished", "copy", "store"]
    );
    has_all(&open(&copy), 0..3);
}

#[test]
fn a_snapshot_is_restored_and_a_broken_one_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = open(&at("store"));
    put(&store, 0..40);
    store.inner.checkpoint().unwrap();
    snapshot(&store, &at("snapshot")).unwrap();
    let made = restore_to(&at("snapshot"), &at("restored")).unwrap();
    assert!(made.has_index && made.segments > 5, "{made:?}");
    if made.cloned == 0 {
        let segment = |root: &str, name: &str| inode(&at(root).join("blocks").join(name));
        let last = names(&at("snapshot").join("blocks"));
        let last = last.iter().rfind(|name| name.ends_with(".car")).unwrap();
        assert_ne!(segment("snapshot", last), segment("restored", last));
        let first = "leaf-000001.car";
        assert_eq!(segment("snapshot", first), segment("restored", first));
    }
    let restored = open(&at("restored"));
    has_all(&restored, 0..40);
    put(&restored, 50..60);
    let refused = restore_to(&at("restored"), &at("another")).unwrap_err();
    assert!(
        matches!(refused, SnapshotError::Open(OpenError::Locked { .. })),
        "{refused}"
    );
    close(restored);
    let refused = restore_to(&at("snapshot"), &at("restored")).unwrap_err();
    assert!(matches!(refused, SnapshotError::Taken { .. }), "{refused}");
    let refused = restore_to(folder.path(), &at("another")).unwrap_err();
    assert!(matches!(refused, SnapshotError::NotOne { .. }), "{refused}");
    // Its own file: links to it are another repository's.
    let segment = at("snapshot").join("blocks/leaf-000002.car");
    let bytes = fs::read(&segment).unwrap();
    fs::remove_file(&segment).unwrap();
    let refused = restore_to(&at("snapshot"), &at("another")).unwrap_err();
    assert!(
        refused.to_string().contains("leaf-000002 is missing"),
        "{refused}"
    );
    fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    let refused = restore_to(&at("snapshot"), &at("another")).unwrap_err();
    assert!(
        refused.to_string().contains("leaf-000002 has "),
        "{refused}"
    );
    fs::write(&segment, &bytes).unwrap();
    let journal = at("snapshot").join("journal/journal.log");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[60] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let refused = restore_to(&at("snapshot"), &at("another")).unwrap_err();
    assert!(
        matches!(refused, SnapshotError::Damaged { .. }),
        "{refused}"
    );
    assert!(!at("another").exists());
    has_all(&store, 0..40);
}

#[test]
fn whoever_gives_up_waiting_stops_it_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = open(&at("store"));
    put(&store, 0..20);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let making = store.snapshot(at("copy"), move |_| {
            begun.send(()).unwrap();
            goes_on.recv().unwrap();
            Ok(Vec::new())
        });
        tokio::select! {
            made = making => panic!("{made:?}"),
            begun = has_begun => begun.unwrap(),
        }
    });
    go_on.send(()).unwrap();
    drop(runtime); // It waits for what still runs.
    assert_eq!(names(folder.path()), ["store"]);
    snapshot(&store, &at("copy")).unwrap();
    // Between two segments, too.
    let stop = Stop::default();
    drop(stop.on_drop());
    let stopped = restore(&at("copy"), &at("again"), &stop, |_| panic!("not stopped"));
    let told = stopped.unwrap_err().to_string();
    assert!(told.contains("again was not made"), "{told}");
    assert_eq!(names(folder.path()), ["copy", "store"]);
}

#[test]
fn what_goes_wrong_is_told_of_the_name_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = open(&at("store"));
    put(&store, 0..3);
    snapshot(&store, &at("copy")).unwrap();
    let failed = restore(&at("copy"), &at("again"), &Stop::default(), |to| {
        let file = to.join("none");
        fs::read(&file)
            .map(|_| Vec::new())
            .map_err(SnapshotError::disk("read", &file))
    });
    let told = failed.unwrap_err().to_string();
    let named = format!("cannot read {}", at("again/none").display());
    assert!(told.starts_with(&named), "{told}");
}

#[test]
fn a_folder_within_what_it_is_made_of_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = open(&at("store"));
    put(&store, 0..3);
    std::os::unix::fs::symlink("store", at("link")).unwrap();
    for name in [
        "store/copy",
        "store/none/copy",
        "link/copy",
        "store/../link/copy",
    ] {
        let refused = snapshot(&store, &at(name)).unwrap_err();
        assert!(matches!(refused, SnapshotError::Inside { .. }), "{refused}");
    }
    snapshot(&store, &at("store-copy")).unwrap();
    let refused = restore_to(&at("store-copy"), &at("store-copy/again")).unwrap_err();
    assert!(matches!(refused, SnapshotError::Inside { .. }), "{refused}");
}

#[test]
fn a_disk_that_fills_up_or_fails_leaves_the_repository_as_it_was() {
    let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
    let open = |disk: &SimulatedDisk, root: &str| {
        let ground = Ground {
            root: root.into(),
            ..Ground::simulated(disk, &Arc::new(Image::new()))
        };
        Store::open_on(ground, &config(), &mut |_| {}).unwrap()
    };
    let ground = Ground::simulated(&disk, &image);
    let store = Store::open_on(ground, &config(), &mut |_| {}).unwrap();
    put(&store, 0..30);
    let before = disk.operations();
    store
        .inner
        .write_snapshot(Path::new("/whole"), &Stop::default())
        .unwrap();
    let steps = disk.operations() - before;
    for at in 1..=steps {
        disk.set_faults(Faults {
            fails: Some((at, io::ErrorKind::StorageFull)),
            ..Faults::default()
        });
        let folder = format!("/full-{at}");
        let failed = store
            .inner
            .write_snapshot(Path::new(&folder), &Stop::default());
        // Making the folder again is no error; all else is told.
        assert!(failed.is_err(), "operation {at} of {steps}: {failed:?}");
    }
    disk.set_faults(Faults::default());
    put(&store, 30..40);
    has_all(&store, 0..40);
    has_all(&open(&disk, "/whole"), 0..30);
    // What was synced on the way survives the power.
    let mut random = rand::SeedableRng::seed_from_u64(1);
    let after = disk.after_power_cut(&mut random);
    has_all(&open(&after, "/whole"), 0..30);
}
