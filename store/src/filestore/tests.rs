//! Blocks in the user's files: found and kept like others, never wrong, and gone only when the file is.

use super::*;
use crate::block::Prefix;
use crate::cid::{self, HashKind, Version};
use crate::config::{ByteSize, Config, Durability, Reserve};
use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::index::Image;
use crate::reference::Why;
use crate::sink::{BlockSink, Placed};
use crate::source::BlockSource;
use crate::store::{Ground, Keep, OpenEvent};
use crate::unixfs::Profile;
use crate::unixfs::import::{Importer, Metadata};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fs;
use std::io;
use std::path::PathBuf;

fn config() -> Config {
    Config {
        reserve: Reserve::Bytes(ByteSize(0)),
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// A file of blocks that all differ.
struct InFile {
    path: PathBuf,
    blocks: Vec<Block>,
}

impl InFile {
    fn new(path: PathBuf, count: u8) -> Self {
        let blocks: Vec<Block> = (0..count).map(|at| block(&[at; SIZE])).collect();
        let file = Self { path, blocks };
        file.write();
        file
    }

    fn write(&self) {
        let bytes: Vec<u8> = self
            .blocks
            .iter()
            .flat_map(|block| block.data().to_vec())
            .collect();
        fs::write(&self.path, bytes).unwrap();
    }

    fn placed(&self) -> Vec<Placed> {
        let at = |(number, block): (u64, &Block)| Placed {
            block: block.clone(),
            path: self.path.clone().into(),
            offset: number * SIZE as u64,
        };
        (0..).zip(&self.blocks).map(at).collect()
    }

    fn add(&self, store: &Store) {
        let mut writer = store.writer(Keep::Kept);
        writer.put_placed(self.placed()).unwrap();
        writer.commit().unwrap();
    }
}

fn block(bytes: &[u8]) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, Bytes::copy_from_slice(bytes)).unwrap()
}

fn lost(store: &Store, cid: &Cid) -> Why {
    match runtime().block_on(store.block(cid)) {
        Err(SourceError::Elsewhere { lost, .. }) => lost.why.clone(),
        other => panic!("{other:?}"),
    }
}

fn listed(store: &Store) -> Vec<Cid> {
    let all: Arc<std::sync::Mutex<Vec<Cid>>> = Arc::default();
    let into = all.clone();
    let each = move |found: InPlace| {
        into.lock().unwrap().push(found.cid);
        ControlFlow::Continue(())
    };
    runtime().block_on(store.references(each)).unwrap();
    let all = all.lock().unwrap();
    all.clone()
}

#[test]
fn what_lies_in_a_file_is_here_and_takes_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = InFile::new(folder.path().join("file"), 50);
    let path = folder.path().join("store");
    let store = open(&path);
    file.add(&store);
    let check = |store: &Store| {
        let runtime = runtime();
        for (number, block) in (0..).zip(&file.blocks) {
            let cid = block.cid();
            assert_eq!(
                runtime.block_on(store.block(cid)).unwrap().as_ref(),
                Some(block)
            );
            assert_eq!(
                runtime.block_on(store.size(cid)).unwrap(),
                Some(SIZE as u64)
            );
            let part = runtime.block_on(store.range(cid, 10..20)).unwrap().unwrap();
            assert_eq!(part, block.data()[10..20]);
            let found = runtime.block_on(store.reference(cid)).unwrap().unwrap();
            assert_eq!(*found.reference.path, *file.path);
            assert_eq!(found.reference.offset, number * SIZE as u64);
            let standing = runtime.block_on(store.standing(cid)).unwrap().unwrap();
            assert_eq!(standing.bytes, SIZE as u64);
        }
        let cids: Vec<Cid> = file.blocks.iter().map(|block| *block.cid()).collect();
        assert_eq!(listed(store), cids);
        let stat = store.stat();
        assert_eq!(stat.blocks, 50);
        assert!(stat.disk_bytes < 50 * 200, "{stat:?}");
        assert_eq!(
            runtime
                .block_on(store.verify(|_| {}, |bad| panic!("{bad:?}")))
                .unwrap(),
            50
        );
    };
    check(&store);
    // Once more is the same; twice in one batch, too.
    file.add(&store);
    check(&store);
    store.inner.close().unwrap();
    drop(store);
    check(&open(&path));
    fs::remove_dir_all(path.join("index")).unwrap();
    check(&open(&path));
}

#[test]
fn a_file_that_changes_takes_its_own_blocks_along_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (
        InFile::new(folder.path().join("one"), 20),
        InFile {
            path: folder.path().join("other"),
            blocks: (100..110).map(|at| block(&[at; SIZE])).collect(),
        },
    );
    other.write();
    let store = open(&folder.path().join("store"));
    one.add(&store);
    other.add(&store);
    let here = |block: &Block| {
        let found = store.inner.block_on_disk(block.cid()).unwrap();
        assert_eq!(found.as_ref(), Some(block));
    };
    let mut bytes = fs::read(&one.path).unwrap();
    bytes[3 * SIZE + 7] ^= 1;
    bytes.truncate(18 * SIZE + 5);
    fs::write(&one.path, &bytes).unwrap();
    assert_eq!(lost(&store, one.blocks[3].cid()), Why::Changed);
    let short = Why::TooShort {
        bytes: (18 * SIZE + 5) as u64,
    };
    assert_eq!(lost(&store, one.blocks[18].cid()), short);
    assert_eq!(lost(&store, one.blocks[19].cid()), short);
    let told = runtime()
        .block_on(store.block(one.blocks[3].cid()))
        .unwrap_err()
        .to_string();
    let offset = format!("one from byte {} on", 3 * SIZE);
    assert!(told.contains(&offset) && told.contains("changed"), "{told}");
    for at in (0..18).filter(|at| *at != 3) {
        here(&one.blocks[at]);
    }
    other.blocks.iter().for_each(here);
    fs::remove_file(&one.path).unwrap();
    assert_eq!(lost(&store, one.blocks[0].cid()), Why::Gone);
    other.blocks.iter().for_each(here);
    // It was never noted as damaged: the file comes back, and so do they.
    one.write();
    one.blocks.iter().for_each(here);
}

#[test]
fn a_block_takes_the_place_of_a_reference_and_never_the_other_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = InFile::new(folder.path().join("file"), 10);
    let path = folder.path().join("store");
    let store = open(&path);
    file.add(&store);
    store.inner.checkpoint().unwrap();
    let (kept, cached) = (file.blocks[2].clone(), file.blocks[5].clone());
    let runtime = runtime();
    fs::remove_file(&file.path).unwrap();
    runtime
        .block_on(store.put(vec![kept.clone()], Keep::Kept))
        .unwrap();
    // As a fetch does that has healed it: what was kept stays kept.
    runtime
        .block_on(store.put(vec![cached.clone()], Keep::Cached))
        .unwrap();
    let check = |store: &Store| {
        for block in [&kept, &cached] {
            assert_eq!(
                runtime.block_on(store.block(block.cid())).unwrap().as_ref(),
                Some(block)
            );
            let standing = runtime
                .block_on(store.standing(block.cid()))
                .unwrap()
                .unwrap();
            assert_eq!(standing.keep, Keep::Kept);
            assert_eq!(
                runtime.block_on(store.reference(block.cid())).unwrap(),
                None
            );
        }
        assert_eq!(store.stat().blocks, 10);
        assert_eq!(listed(store).len(), 8);
    };
    check(&store);
    file.write();
    file.add(&store);
    check(&store);
    store.inner.close().unwrap();
    drop(store);
    check(&open(&path));
    fs::remove_dir_all(path.join("index")).unwrap();
    let store = open(&path);
    check(&store);
    // A file that has moved and is added again is found where it is.
    let moved = InFile::new(folder.path().join("moved"), 10);
    fs::remove_file(&file.path).unwrap();
    moved.add(&store);
    check(&store);
    for block in &file.blocks {
        assert_eq!(
            store.inner.block_on_disk(block.cid()).unwrap().as_ref(),
            Some(block)
        );
    }
}

#[test]
fn pins_keep_references_and_a_collection_takes_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    let import = |name: &str, seed: u8| {
        let path = folder.path().join(name);
        let bytes: Vec<u8> = (0..1_500_000_u32)
            .map(|at| seed ^ u8::try_from((at / 1000) % 251).unwrap())
            .collect();
        fs::write(&path, &bytes).unwrap();
        let mut writer = store.writer(Keep::Kept);
        let profile = Profile {
            chunker: crate::chunk::Chunker::Size(10_000),
            ..Profile::v1_2025()
        };
        let mut importer = Importer::new(profile, &mut writer, |_| {});
        importer.enter("folder", Metadata::default()).unwrap();
        for (part, length) in [("large", 1_500_000), ("small", 9_000), ("empty", 0)] {
            let part_path = folder.path().join(format!("{name}-{part}"));
            fs::write(&part_path, &bytes[..length]).unwrap();
            let mut file = fs::File::open(&part_path).unwrap();
            importer
                .file_in_place(part, &mut file, Metadata::default(), &part_path)
                .unwrap();
        }
        let root = importer.finish().unwrap()[0].cid;
        (writer, root)
    };
    let (mut writer, pinned) = import("pinned", 1);
    writer.commit_and_pin(&[pinned], None).unwrap();
    drop(writer);
    let (mut writer, garbage) = import("garbage", 2);
    writer.commit().unwrap();
    drop(writer);
    let references = listed(&store).len();
    assert!(references > 300, "{references}");
    let runtime = runtime();
    // What is pinned from here again stays where it is.
    let again = store.pin_add(
        store.clone(),
        pinned,
        crate::pin::PinMode::Recursive,
        None,
        |_| {},
    );
    runtime.block_on(again).unwrap();
    assert_eq!(listed(&store).len(), references);
    let collected = runtime.block_on(store.gc(|_| {})).unwrap();
    assert!(collected.blocks > 150, "{collected:?}");
    assert!(!runtime.block_on(store.has(&garbage)).unwrap());
    assert!(listed(&store).len() > 100 && listed(&store).len() < references / 2 + 10);
    let walked =
        crate::dag::walk::walk(store.clone(), pinned, crate::dag::walk::Options::default());
    let all: Vec<_> = runtime.block_on(futures::StreamExt::collect(walked));
    assert!(all.iter().all(Result::is_ok) && all.len() > 150);
}

#[test]
fn killed_or_without_power_at_any_moment_what_was_acknowledged_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = InFile::new(folder.path().join("file"), 12);
    let on = |disk: &SimulatedDisk, image: &Arc<Image>| {
        Store::open_on(Ground::simulated(disk, image), &config(), &mut |_| {})
    };
    let add = |store: &Store, numbers: std::ops::Range<usize>| -> Result<(), PutError> {
        let mut writer = store.writer(Keep::Kept);
        writer.put_placed(file.placed()[numbers].to_vec())?;
        writer.commit()
    };
    let steps = {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let store = on(&disk, &image).unwrap();
        let before = disk.operations();
        (0..12)
            .step_by(3)
            .for_each(|at| add(&store, at..at + 3).unwrap());
        store.inner.checkpoint().unwrap();
        disk.operations() - before
    };
    for step in 0..=steps {
        let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
        let store = on(&disk, &image).unwrap();
        disk.set_faults(Faults {
            power_off: Some(step),
            ..Faults::default()
        });
        let mut acknowledged = 0;
        for at in (0..12).step_by(3) {
            if add(&store, at..at + 3).is_err() {
                break;
            }
            acknowledged = at + 3;
        }
        let _ = store.inner.checkpoint();
        drop(store);
        for seed in 0..3 {
            let after = disk.after_power_cut(&mut StdRng::seed_from_u64(seed));
            let store = on(&after, &Arc::new(image.copied())).unwrap();
            for (number, block) in file.blocks.iter().enumerate() {
                let found = store.inner.block_on_disk(block.cid()).unwrap();
                assert!(found.is_none() || found.as_ref() == Some(block));
                assert!(
                    found.is_some() || number >= acknowledged,
                    "step {step}, block {number}"
                );
            }
        }
    }
}

#[test]
fn a_block_that_takes_a_references_place_is_on_the_disk_before_that_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    let file = InFile::new(folder.path().join("file"), 12);
    let config = Config {
        durability: Durability::Relaxed,
        ..config()
    };
    let on = |disk: &SimulatedDisk, image: &Arc<Image>| {
        Store::open_on(Ground::simulated(disk, image), &config, &mut |_| {}).unwrap()
    };
    let (disk, image) = (SimulatedDisk::default(), Arc::new(Image::new()));
    let store = on(&disk, &image);
    file.add(&store);
    store.inner.commit_to_disk(Vec::new()).unwrap();
    let mut writer = store.writer(Keep::Kept);
    writer.put(file.blocks.clone()).unwrap();
    writer.commit().unwrap();
    drop((writer, store));
    for seed in 0..50 {
        let after = disk.after_power_cut(&mut StdRng::seed_from_u64(seed));
        let store = on(&after, &Arc::new(image.copied()));
        for (number, block) in file.blocks.iter().enumerate() {
            let found = store.inner.block_on_disk(block.cid());
            let found = found.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(found.as_ref(), Some(block), "seed {seed}, block {number}");
        }
    }
}

#[test]
fn what_is_lost_is_forgotten_only_as_long_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = InFile::new(folder.path().join("file"), 6);
    let path = folder.path().join("store");
    let store = open(&path);
    file.add(&store);
    let runtime = runtime();
    let found = |at: usize| {
        let found = store.reference(file.blocks[at].cid());
        runtime.block_on(found).unwrap().unwrap()
    };
    let forget = |found: InPlace| runtime.block_on(store.forget_lost(vec![found])).unwrap();
    let lost: Vec<InPlace> = (0..6).map(found).collect();
    assert_eq!(forget(lost[0].clone()), [Forgotten::Whole]);
    fs::remove_file(&file.path).unwrap();
    // Fetched or put meanwhile, it is here.
    let put = store.put(vec![file.blocks[1].clone()], Keep::Kept);
    runtime.block_on(put).unwrap();
    assert_eq!(forget(lost[1].clone()), [Forgotten::Replaced]);
    // So it is where it was added from meanwhile.
    let moved = InFile {
        path: folder.path().join("moved"),
        blocks: file.blocks[2..3].to_vec(),
    };
    moved.write();
    moved.add(&store);
    assert_eq!(forget(lost[2].clone()), [Forgotten::Replaced]);
    let mut writer = store.writer(Keep::Kept);
    writer.put_placed(vec![file.placed()[3].clone()]).unwrap();
    assert_eq!(forget(lost[3].clone()), [Forgotten::Held]);
    drop(writer);
    // In another file's words it is not this one.
    let other = InPlace::new(lost[4].cid, moved.path.as_path().into(), 0, 5000);
    assert_eq!(forget(other), [Forgotten::Replaced]);
    let both = store.forget_lost(vec![lost[5].clone(), lost[5].clone()]);
    let both = runtime.block_on(both).unwrap();
    assert_eq!(both, [Forgotten::Yes, Forgotten::Replaced]);
    let check = |store: &Store| {
        let has = |at: usize| runtime.block_on(store.has(file.blocks[at].cid())).unwrap();
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(has),
            [true, true, true, true, true, false]
        );
        assert_eq!(store.stat().blocks, 5);
    };
    check(&store);
    store.inner.close().unwrap();
    drop(store);
    let store = open(&path);
    check(&store);
    // Put back and added again, it is there again.
    file.write();
    file.add(&store);
    let again = store.inner.block_on_disk(file.blocks[5].cid()).unwrap();
    assert_eq!(again.as_ref(), Some(&file.blocks[5]));
}

#[test]
fn damage_of_a_reference_is_found_and_no_other_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = InFile::new(folder.path().join("file"), 10);
    let path = folder.path().join("store");
    let store = open(&path);
    file.add(&store);
    store.inner.close().unwrap();
    drop(store);
    let segment = path.join("blocks/file-000001.refs");
    let mut bytes = fs::read(&segment).unwrap();
    let name = file.path.as_os_str().as_encoded_bytes();
    let at = bytes
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    bytes[at + name.len() - 1] = b'f';
    fs::write(&segment, &bytes).unwrap();
    fs::write(folder.path().join("filf"), b"not to be read").unwrap();
    let store = Store::open(&path, &config(), &mut |_| {}).unwrap();
    let damaged = store.inner.block_on_disk(file.blocks[0].cid());
    assert!(
        matches!(damaged, Err(SourceError::Damaged { .. })),
        "{damaged:?}"
    );
    for block in &file.blocks[1..] {
        assert_eq!(
            store.inner.block_on_disk(block.cid()).unwrap().as_ref(),
            Some(block)
        );
    }
    // Added again, it is whole.
    file.add(&store);
    for block in &file.blocks {
        assert_eq!(
            store.inner.block_on_disk(block.cid()).unwrap().as_ref(),
            Some(block)
        );
    }
    assert_eq!(store.stat().blocks, 10);
}

#[test]
fn holes_are_zeros() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sparse");
    let file = fs::File::create(&path)?;
    file.set_len(5 << 20)?;
    let store = open(&folder.path().join("store"));
    let import = |in_place: bool| {
        let mut writer = store.writer(Keep::Kept);
        let mut importer = Importer::new(Profile::v1_2025(), &mut writer, |_| {});
        let mut content = fs::File::open(&path).unwrap();
        let metadata = Metadata::default();
        if in_place {
            importer
                .file_in_place("f", &mut content, metadata, &path)
                .unwrap();
        } else {
            importer.file("f", &mut content, metadata).unwrap();
        }
        let root = importer.finish().unwrap()[0].cid;
        writer.commit().unwrap();
        root
    };
    let root = import(true);
    assert_eq!(listed(&store).len(), 1, "all chunks are one block");
    let zeros = block(&vec![0; 1 << 20]);
    assert_eq!(store.inner.block_on_disk(zeros.cid()).unwrap(), Some(zeros));
    assert_eq!(import(false), root);
    assert_eq!(
        listed(&store),
        [],
        "what is here as a block is no reference"
    );
    Ok(())
}

const SIZE: usize = 5000;
