//! What is imported reads back, and has the shape and the name that its profile gives it.

use super::*;
use crate::dag::Budget;
use crate::unixfs::read::{self, Node, ReadError};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

type Blocks = HashMap<Cid, Block>;

const PLAIN: Metadata = Metadata {
    mode: None,
    mtime: None,
};

/// Many levels and many folders that turn into HAMTs, from little data.
fn tiny(raw_leaves: bool, layout: Layout) -> Profile {
    Profile {
        raw_leaves,
        layout,
        chunker: Chunker::Size(7),
        width: 3,
        fanout: 8,
        hamt_threshold: 300,
        ..Profile::v1_2025()
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Tree {
    File(Vec<u8>),
    Link(String),
    Folder(BTreeMap<String, Tree>),
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Tree::File),
        1 => "[a-z/.]{1,20}".prop_map(Tree::Link),
    ];
    leaf.prop_recursive(4, 60, 12, |inner| {
        let name = "[^/\0.][^/\0]{0,6}";
        prop::collection::btree_map(name, inner, 0..12).prop_map(Tree::Folder)
    })
}

fn add<S: BlockSink, F: FnMut(Event)>(importer: &mut Importer<S, F>, name: &str, tree: &Tree) {
    match tree {
        Tree::File(data) => importer.file(name, &mut &data[..], PLAIN).unwrap(),
        Tree::Link(target) => importer.symlink(name, target, PLAIN).unwrap(),
        Tree::Folder(entries) => {
            importer.enter(name, PLAIN).unwrap();
            // In any order: a folder sorts its names itself.
            for (name, tree) in entries.iter().rev() {
                add(importer, name, tree);
            }
            importer.leave().unwrap();
        }
    }
}

fn import(profile: &Profile, tree: &Tree) -> (Arc<Blocks>, Added) {
    let mut blocks = Blocks::new();
    let mut importer = Importer::new(profile.clone(), &mut blocks, |_| {});
    add(&mut importer, "root", tree);
    let added = importer.finish().unwrap().remove(0);
    (Arc::new(blocks), added)
}

async fn export(blocks: &Arc<Blocks>, cid: &Cid) -> Tree {
    match read::open(blocks, cid).await.unwrap() {
        Node::File(file) => {
            let parts: Vec<Bytes> = file
                .read(Arc::clone(blocks), 0..u64::MAX)
                .try_collect()
                .await
                .unwrap();
            assert_eq!(file.size(), parts.concat().len() as u64);
            Tree::File(parts.concat())
        }
        Node::Symlink(link) => Tree::Link(link.target),
        Node::Directory(directory) => {
            let mut entries = BTreeMap::new();
            let mut listed = Box::pin(directory.entries(Arc::clone(blocks), Budget::REQUEST));
            while let Some(entry) = listed.next().await {
                let entry = entry.unwrap();
                let tree = Box::pin(export(blocks, &entry.cid)).await;
                assert!(entries.insert(entry.name, tree).is_none());
            }
            Tree::Folder(entries)
        }
    }
}

fn content(blocks: &Arc<Blocks>, cid: &Cid, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
    futures::executor::block_on(async {
        let Node::File(file) = read::open(blocks, cid).await? else {
            panic!("no file");
        };
        let parts: Vec<Bytes> = file.read(Arc::clone(blocks), range).try_collect().await?;
        Ok(parts.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_goes_in_comes_out(tree in any_tree(), raw_leaves: bool, trickle: bool) {
        let layout = if trickle { Layout::Trickle } else { Layout::Balanced };
        let (blocks, added) = import(&tiny(raw_leaves, layout), &tree);
        prop_assert_eq!(futures::executor::block_on(export(&blocks, &added.cid)), tree);
    }

    #[test]
    fn any_range_is_that_part_of_the_file(
        data in prop::collection::vec(any::<u8>(), 0..400),
        start in 0..450_u64,
        length in 0..450_u64,
        raw_leaves: bool,
        trickle: bool,
    ) {
        let layout = if trickle { Layout::Trickle } else { Layout::Balanced };
        let (blocks, added) = import(&tiny(raw_leaves, layout), &Tree::File(data.clone()));
        let cut = |at: u64| usize::try_from(at).unwrap().min(data.len());
        let wanted = &data[cut(start)..cut(start + length)];
        prop_assert_eq!(content(&blocks, &added.cid, start..start + length).unwrap(), wanted);
    }
}

#[test]
fn a_range_needs_no_block_outside_of_it() {
    let data: Vec<u8> = (0..=255).collect();
    let (blocks, added) = import(&tiny(true, Layout::Balanced), &Tree::File(data.clone()));
    let last = |blocks: &Blocks| {
        let tail = data.chunks(7).last().unwrap();
        let prefix = Prefix {
            codec: cid::RAW,
            ..Profile::v1_2025().node_prefix()
        };
        let leaf = Block::new(prefix, Bytes::copy_from_slice(tail)).unwrap();
        assert!(blocks.contains_key(leaf.cid()));
        *leaf.cid()
    };
    let missing = last(&blocks);
    let mut some = Blocks::clone(&blocks);
    some.remove(&missing);
    let some = Arc::new(some);
    assert_eq!(content(&some, &added.cid, 10..200).unwrap(), &data[10..200]);
    let error = content(&some, &added.cid, 0..256).unwrap_err();
    assert!(matches!(error, ReadError::NotFound(cid) if cid == missing));
}

#[test]
fn events_come_in_order_children_before_folders() {
    let mut seen = Vec::new();
    let mut importer = Importer::new(Profile::v1_2025(), crate::sink::Nowhere, |event| {
        if let Event::Added(added) = event {
            seen.push(added.path);
        }
    });
    importer.enter("d", PLAIN).unwrap();
    importer.file("small", &mut &b"x"[..], PLAIN).unwrap();
    importer
        .file("large", &mut io::repeat(1).take(3 << 20), PLAIN)
        .unwrap();
    importer.enter("e", PLAIN).unwrap();
    importer.symlink("link", "small", PLAIN).unwrap();
    importer.leave().unwrap();
    importer.leave().unwrap();
    importer
        .file("", &mut &b"from standard input"[..], PLAIN)
        .unwrap();
    let top = importer.finish().unwrap();
    assert_eq!(seen, ["d/small", "d/large", "d/e/link", "d/e", "d", ""]);
    let names: Vec<_> = top.iter().map(|added| added.path.as_str()).collect();
    assert_eq!(names, ["d", ""]);
}

#[test]
fn every_byte_read_is_told() {
    let mut last = HashMap::new();
    let mut importer = Importer::new(Profile::v1_2025(), crate::sink::Nowhere, |event| {
        if let Event::Read { path, bytes } = event {
            last.insert(path, bytes);
        }
    });
    importer
        .file("a", &mut io::repeat(1).take(40 << 20), PLAIN)
        .unwrap();
    importer
        .file("b", &mut io::repeat(1).take(70_000), PLAIN)
        .unwrap();
    importer.file("c", &mut io::empty(), PLAIN).unwrap();
    importer.finish().unwrap();
    assert_eq!((last["a"], last["b"], last["c"]), (40 << 20, 70_000, 0));
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _out: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk broke"))
    }
}

#[test]
fn a_file_that_breaks_is_named_and_left_out() {
    for before in [0, 100, 5 << 20] {
        let mut blocks = Blocks::new();
        let mut importer = Importer::new(Profile::v1_2025(), &mut blocks, |_| {});
        importer.enter("d", PLAIN).unwrap();
        importer.file("good", &mut &b"good"[..], PLAIN).unwrap();
        let mut content = io::repeat(1).take(before).chain(Broken);
        let error = importer.file("bad", &mut content, PLAIN).unwrap_err();
        assert_eq!(error.to_string(), "cannot read d/bad: the disk broke");
        importer.leave().unwrap();
        let added = importer.finish().unwrap().remove(0);
        let good = Tree::Folder([("good".into(), Tree::File(b"good".into()))].into());
        assert_eq!(added, {
            let (_, mut wanted) = import(&Profile::v1_2025(), &good);
            wanted.path = "d".into();
            wanted
        });
    }
}

#[test]
fn names_that_a_folder_cannot_hold_are_refused() {
    let mut importer = Importer::new(Profile::v1_2025(), crate::sink::Nowhere, |_| {});
    importer.enter("d", PLAIN).unwrap();
    for name in ["", ".", "..", "a/b", "a\0b"] {
        let refused = importer.file(name, &mut io::empty(), PLAIN);
        assert!(matches!(refused, Err(ImportError::Name { .. })), "{name:?}");
        assert!(matches!(
            importer.enter(name, PLAIN),
            Err(ImportError::Name { .. })
        ));
    }
    importer.symlink("same", "x", PLAIN).unwrap();
    importer.symlink("same", "y", PLAIN).unwrap();
    let error = importer.finish().unwrap_err();
    assert_eq!(error.to_string(), "two entries are named d/same");
}

#[test]
fn folders_have_a_deepest_level() {
    let mut importer = Importer::new(Profile::v1_2025(), crate::sink::Nowhere, |_| {});
    for _ in 0..DEPTH_MAX {
        importer.enter("d", PLAIN).unwrap();
    }
    assert!(matches!(
        importer.enter("d", PLAIN),
        Err(ImportError::TooDeep { .. })
    ));
    for _ in 0..DEPTH_MAX {
        importer.leave().unwrap();
    }
    assert!(matches!(importer.leave(), Err(ImportError::NotEntered)));
    assert_eq!(importer.finish().unwrap().len(), 1);
}

/// The largest batch that was put, and how many blocks there were.
#[derive(Default)]
struct Measure {
    most: usize,
    blocks: usize,
}

impl BlockSink for Measure {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        let bytes = blocks.iter().map(|block| block.data().len()).sum();
        self.most = self.most.max(bytes);
        self.blocks += blocks.len();
        Ok(())
    }
}

#[test]
fn what_waits_is_bounded() {
    let mut sink = Measure::default();
    let mut importer = Importer::new(Profile::v1_2025(), &mut sink, |_| {});
    importer.enter("d", PLAIN).unwrap();
    for at in 0..60 {
        let name = at.to_string();
        importer
            .file(&name, &mut io::repeat(1).take(1 << 20), PLAIN)
            .unwrap();
        assert!(importer.small.bytes < SMALL_BYTES_MAX);
    }
    importer
        .file("large", &mut io::repeat(1).take(50 << 20), PLAIN)
        .unwrap();
    for at in 0..5000 {
        importer
            .file(&format!("n{at}"), &mut io::empty(), PLAIN)
            .unwrap();
        assert!(importer.ops.len() < OPS_MAX);
    }
    importer.finish().unwrap();
    assert!(sink.most <= SMALL_BYTES_MAX + (1 << 20), "{}", sink.most);
    assert!(sink.blocks > 5000);
}

#[test]
fn mode_and_time_read_back() {
    let metadata = Metadata {
        mode: Some(0o640),
        mtime: Some(Mtime {
            seconds: -7,
            nanoseconds: 8,
        }),
    };
    for size in [0, 5, 70_000, 3 << 20] {
        let mut blocks = Blocks::new();
        let mut importer = Importer::new(Profile::v1_2025(), &mut blocks, |_| {});
        importer.enter("d", metadata).unwrap();
        importer
            .file("f", &mut io::repeat(1).take(size), metadata)
            .unwrap();
        importer.symlink("s", "f", metadata).unwrap();
        let root = importer.finish().unwrap().remove(0).cid;
        futures::executor::block_on(async {
            let Node::Directory(folder) = read::open(&blocks, &root).await.unwrap() else {
                panic!("no folder");
            };
            assert_eq!(
                (folder.mode(), folder.mtime()),
                (metadata.mode, metadata.mtime)
            );
            let file = folder.find(&blocks, "f").await.unwrap().unwrap();
            let Node::File(opened) = read::open(&blocks, &file.cid).await.unwrap() else {
                panic!("no file");
            };
            assert_eq!(
                (opened.mode(), opened.mtime()),
                (metadata.mode, metadata.mtime)
            );
            assert_eq!((opened.size(), opened.tsize()), (size, file.tsize));
            let link = folder.find(&blocks, "s").await.unwrap().unwrap();
            let Node::Symlink(link) = read::open(&blocks, &link.cid).await.unwrap() else {
                panic!("no link");
            };
            assert_eq!((link.mtime, link.target.as_str()), (metadata.mtime, "f"));
        });
    }
}

/// A file node over children that may be anything.
fn file_node(blocks: &mut Blocks, children: &[(Cid, u64)], size: Option<u64>) -> Cid {
    let message = Message {
        file_size: size,
        block_sizes: children.iter().map(|(_, size)| *size).collect(),
        ..Message::new(Type::File)
    };
    let node = pb::PbNode {
        links: children
            .iter()
            .map(|(cid, _)| pb::PbLink {
                cid: *cid,
                name: Some(String::new()),
                tsize: Some(1),
            })
            .collect(),
        data: Some(message.encode().into()),
    };
    let block = Block::new(Profile::v1_2025().node_prefix(), pb::encode(&node)).unwrap();
    let cid = *block.cid();
    blocks.insert(cid, block);
    cid
}

fn leaf(blocks: &mut Blocks, data: &'static str) -> Cid {
    let prefix = Prefix {
        codec: cid::RAW,
        ..Profile::v1_2025().node_prefix()
    };
    let block = Block::new(prefix, data.into()).unwrap();
    let cid = *block.cid();
    blocks.insert(cid, block);
    cid
}

#[test]
fn sizes_that_lie_are_malformed() {
    let mut blocks = Blocks::new();
    let five = leaf(&mut blocks, "12345");
    let honest = file_node(&mut blocks, &[(five, 5), (five, 5)], Some(10));
    let short = file_node(&mut blocks, &[(five, 6)], Some(6));
    let long = file_node(&mut blocks, &[(five, 4)], Some(4));
    let inner = file_node(&mut blocks, &[(honest, 11)], None);
    let huge = file_node(&mut blocks, &[(five, u64::MAX), (five, 5)], None);
    let sum = file_node(&mut blocks, &[(five, 5)], Some(6));
    let blocks = Arc::new(blocks);
    assert_eq!(content(&blocks, &honest, 3..7).unwrap(), b"4512");
    for (cid, why) in [
        (short, "a leaf that is too short"),
        (long, "a leaf that is too long"),
        (inner, "a node of another size"),
        (huge, "more than 64 bits"),
        (sum, "a sum that is wrong"),
    ] {
        for range in [0..u64::MAX, 1..3] {
            let error = content(&blocks, &cid, range).unwrap_err();
            assert!(
                matches!(error, ReadError::Malformed { .. }),
                "{why}: {error}"
            );
        }
    }
}

#[test]
fn a_tree_without_bytes_and_one_without_end_stop() {
    let mut blocks = Blocks::new();
    let mut nothing = file_node(&mut blocks, &[], Some(0));
    for _ in 0..32 {
        nothing = file_node(&mut blocks, &[(nothing, 0); 256], Some(0));
    }
    let mut deep = leaf(&mut blocks, "x");
    for _ in 0..100 {
        deep = file_node(&mut blocks, &[(deep, 1)], Some(1));
    }
    let mut wide = leaf(&mut blocks, "x");
    let mut size = 1_u64;
    for _ in 0..7 {
        wide = file_node(&mut blocks, &[(wide, size); 256], None);
        size *= 256;
    }
    let blocks = Arc::new(blocks);
    assert_eq!(content(&blocks, &nothing, 0..u64::MAX).unwrap(), b"");
    let error = content(&blocks, &deep, 0..1).unwrap_err();
    assert!(matches!(error, ReadError::OverBudget { .. }), "{error}");
    let middle = size / 2;
    assert_eq!(
        content(&blocks, &wide, middle..middle + 1000).unwrap(),
        [b'x'; 1000]
    );
}

#[test]
fn what_is_no_unixfs_says_what_it_is() {
    let mut blocks = Blocks::new();
    let open = |blocks: &Blocks, cid: &Cid| {
        let opened = futures::executor::block_on(read::open(blocks, cid));
        opened.unwrap_err().to_string()
    };
    let codec = |codec, data: &'static str| {
        let prefix = Prefix {
            codec,
            ..Profile::v1_2025().node_prefix()
        };
        Block::new(prefix, data.into()).unwrap()
    };
    for (block, says) in [
        (codec(cid::DAG_CBOR, "\u{0}"), "its codec is dag-cbor"),
        (codec(cid::DAG_PB, ""), "without UnixFS data"),
        (codec(cid::DAG_PB, "\n\u{2}\u{8}\u{3}"), "metadata"),
        (codec(cid::DAG_PB, "nonsense"), "malformed"),
    ] {
        blocks.insert(*block.cid(), block.clone());
        let error = open(&blocks, block.cid());
        assert!(error.contains(says), "{error}");
    }
    let missing = codec(cid::RAW, "missing");
    assert!(open(&blocks, missing.cid()).contains("not found"));
}
