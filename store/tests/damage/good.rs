//! A store without damage, filled once: its files in memory, and what they hold.

use crate::{Case, Damage};
use bytes::Bytes;
use cairn_store::Store;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::pin::{Pin, PinMode};
use cairn_store::store::Keep;
use memchr::memmem;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tokio::runtime::Runtime;

pub(super) static GOOD: LazyLock<Good> = LazyLock::new(Good::make);

/// A store without damage.
pub(super) struct Good {
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
    /// Up to where each file is more than zeros: the ballast is nothing else.
    written: BTreeMap<PathBuf, usize>,
    pub(super) blocks: Vec<Placed>,
    pub(super) pins: Vec<Pin>,
    /// Deleted by name, and collected.
    pub(super) gone: Vec<Cid>,
    /// How long the journal was when sled last learned how far it went, and the pins of then.
    pub(super) journal_known: usize,
    pub(super) pinned_then: Vec<Pin>,
}

/// A block and where it lies.
pub(super) struct Placed {
    pub(super) block: Block,
    pub(super) file: PathBuf,
    pub(super) section: Range<usize>,
    pub(super) payload: Range<usize>,
}

fn prefix(codec: u64) -> Prefix {
    Prefix {
        version: Version::V1,
        codec,
        hash: HashKind::Sha2_256,
    }
}

/// A block of bytes that say nothing.
pub(super) fn leaf(number: usize, length: usize) -> Block {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(number as u64).fill_bytes(&mut bytes);
    Block::new(prefix(cid::RAW), Bytes::from(bytes)).unwrap()
}

/// Leaves and a node above them, the node last.
fn tree(numbers: Range<usize>) -> Vec<Block> {
    let mut blocks: Vec<Block> = numbers
        .map(|number| leaf(number, 500 + 300 * (number % 20)))
        .collect();
    let links = blocks
        .iter()
        .map(|child| PbLink {
            cid: *child.cid(),
            name: Some(String::new()),
            tsize: Some(1),
        })
        .collect();
    let node = PbNode { links, data: None };
    blocks.push(Block::new(prefix(cid::DAG_PB), pb::encode(&node)).unwrap());
    blocks
}

pub(super) fn config() -> Config {
    Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        segment_size: ByteSize(64 << 10),
        ..Config::default()
    }
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

impl Good {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let runtime = runtime();
        let open = || Store::open(root, &config(), &mut |_| {}).unwrap();
        let put = |store: &Store, blocks: &[Block]| {
            runtime
                .block_on(store.put(blocks.to_vec(), Keep::Kept))
                .unwrap();
        };
        let pin = |store: &Store, cid: Cid, mode| {
            let name = Some(format!("pin of {cid}"));
            let pin = store.pin_add(store.clone(), cid, mode, name, |_| {});
            runtime.block_on(pin).unwrap();
        };
        let mut live = Vec::new();
        let store = open();
        // A collection with compaction, so that numbers are used up and segments retired.
        let garbage = tree(0..60);
        put(&store, &garbage);
        let pinned = [tree(100..110), tree(120..135), tree(140..145)];
        for tree in &pinned {
            put(&store, tree);
            pin(&store, *tree.last().unwrap().cid(), PinMode::Recursive);
            live.extend(tree.iter().cloned());
        }
        runtime.block_on(store.gc(|_| {})).unwrap();
        let (unpinned, deleted) = (tree(200..240), tree(300..306));
        put(&store, &unpinned);
        put(&store, &deleted);
        put(&store, &[leaf(400, 200_000)]);
        // What came from peers; some of it was pinned later.
        let (passing, taken) = (tree(600..615), tree(620..625));
        for blocks in [&passing, &taken] {
            let put = store.put(blocks.clone(), Keep::Cached);
            runtime.block_on(put).unwrap();
        }
        pin(&store, *taken.last().unwrap().cid(), PinMode::Recursive);
        live.extend(passing.into_iter().chain(taken));
        let names = deleted.iter().map(|block| *block.cid()).collect();
        let names: Vec<Cid> = runtime.block_on(store.delete(names)).unwrap();
        pin(&store, *unpinned[3].cid(), PinMode::Direct);
        live.extend(unpinned);
        live.push(leaf(400, 200_000));
        runtime.block_on(store.close()).unwrap();
        let pinned_then = store.pins();
        drop(store);
        let journal_known = known_to_sled(&fs::read(root.join(JOURNAL)).unwrap());

        // What sled was not told before the end.
        let store = open();
        let late = tree(500..512);
        put(&store, &late);
        pin(&store, *late.last().unwrap().cid(), PinMode::Recursive);
        live.extend(late);
        let pins = store.pins();
        drop(store);

        let mut files = BTreeMap::new();
        read_folder(root, Path::new(""), &mut files);
        let blocks = live.iter().map(|block| place(block, &files)).collect();
        let gone = garbage.iter().map(|block| *block.cid()).chain(names);
        let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0);
        let written = files.iter().map(|(name, bytes)| {
            let end = end(bytes).map_or(0, |last| last + 1);
            (name.clone(), end)
        });
        Self {
            written: written.collect(),
            blocks,
            pins,
            gone: gone.collect(),
            files,
            journal_known,
            pinned_then,
        }
    }

    /// Writes the files out, one of them damaged, and tells which bytes of it were.
    pub(super) fn write(&self, case: &Case, root: &Path) -> Range<usize> {
        for folder in ["blocks", "journal", "index/blobs"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let mut damaged = 0..0;
        for (name, bytes) in &self.files {
            if *name != case.file {
                let mut file = File::create(root.join(name)).unwrap();
                file.write_all(&bytes[..self.written[name]]).unwrap();
                file.set_len(bytes.len() as u64).unwrap();
                continue;
            }
            let mut bytes = bytes.clone();
            damaged = case.damage.apply(&mut bytes);
            if !matches!(case.damage, Damage::Removed) {
                fs::write(root.join(name), bytes).unwrap();
            }
        }
        damaged
    }

    /// The files whose names begin and end like this.
    pub(super) fn like(&self, begin: &str, end: &str) -> Vec<&PathBuf> {
        let like: Vec<_> = self
            .files
            .keys()
            .filter(|name| {
                let name = name.to_str().unwrap();
                name.starts_with(begin) && name.ends_with(end)
            })
            .collect();
        assert!(
            !like.is_empty(),
            "no {begin}*{end} in {:?}",
            self.files.keys()
        );
        like
    }
}

fn read_folder(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let name = below.join(entry.unwrap().file_name());
        let path = root.join(&name);
        if path.is_dir() {
            read_folder(root, &name, files);
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
}

fn place(block: &Block, files: &BTreeMap<PathBuf, Vec<u8>>) -> Placed {
    let named = [&block.cid().to_bytes()[..], block.data()].concat();
    let mut found = files.iter().flat_map(|(file, bytes)| {
        let places = memmem::find_iter(bytes, &named);
        places.map(move |at| (file.clone(), at))
    });
    let (file, at) = found.next().unwrap();
    assert_eq!(found.next(), None, "{} is there twice", block.cid());
    let mut buffer = Vec::new();
    let mut length = named.len();
    while length > 0 {
        buffer.push(length);
        length >>= 7;
    }
    let end = at + named.len();
    Placed {
        block: block.clone(),
        file,
        section: at - buffer.len()..end,
        payload: end - block.data().len()..end,
    }
}

/// Up to where sled has seen the journal of a store that was closed: what it says after its last checkpoint
/// is about that checkpoint.
fn known_to_sled(journal: &[u8]) -> usize {
    const MAGIC: [u8; 4] = 0x7a11_c0de_u32.to_le_bytes();
    const ABOUT_CHECKPOINTS: [u8; 2] = [8, 9];
    let mut end = journal.len();
    let starts = (0..journal.len()).rev();
    for at in starts.filter(|at| journal[*at..].starts_with(&MAGIC)) {
        if !ABOUT_CHECKPOINTS.contains(&journal[at + 20]) {
            break;
        }
        end = at;
    }
    end
}

pub(super) const JOURNAL: &str = "journal/journal.log";
