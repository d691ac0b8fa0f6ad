//! Repositories that older programs wrote open, with everything in them: of the first format, which is of this one then,
//! and of format 4 with all that this one knows to keep.

use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::pin::{Pin, PinMode};
use cairn_store::store::{Keep, OpenEvent};
use cairn_store::{BlockSource, Store};
use flate2::read::GzDecoder;
use harness::Repo;
use harness::scenario::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// What the first release left, in a folder of its own.
struct First {
    folder: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl First {
    /// With its index, as it was left.
    fn whole() -> Self {
        let first = Self::without_index();
        let packed = GzDecoder::new(fs::File::open(kept("index.tar.gz")).unwrap());
        tar::Archive::new(packed).unpack(first.root()).unwrap();
        assert!(first.root().join("index/db").exists());
        first
    }

    fn without_index() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for part in ["version", "blocks", "journal"] {
            copy(&kept(part), &folder.path().join(part), &mut files);
        }
        assert!(files.len() > 5);
        Self { folder, files }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Store {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            segment_size: ByteSize(8 << 10),
            ..Config::default()
        };
        let mut notices = Vec::new();
        let store = Store::open(self.root(), &config, &mut |event| {
            if let OpenEvent::Notice(text) = event {
                notices.push(text);
            }
        });
        assert_eq!(notices, Vec::<String>::new(), "nothing was wrong");
        store.unwrap()
    }

    /// Every byte of the log lies where it lay, in the segments that are still there.
    fn segments_are_as_they_were(&self) {
        for (path, before) in &self.files {
            let now = fs::read(path).unwrap();
            if path.extension().is_some_and(|extension| extension == "car") {
                assert_eq!(now.get(..before.len()), Some(&before[..]), "{path:?}");
            }
        }
    }
}

fn kept(part: &str) -> PathBuf {
    fixture("store-v1").join(part)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn copy(from: &Path, to: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    if from.is_file() {
        let bytes = fs::read(from).unwrap();
        fs::write(to, &bytes).unwrap();
        files.insert(to.to_owned(), bytes);
        return;
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()), files);
    }
}

fn lines(part: &str) -> Vec<String> {
    let text = fs::read_to_string(kept(part)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn cids(part: &str) -> BTreeSet<Cid> {
    let cids = lines(part).into_iter().map(|line| cid::parse(&line));
    cids.collect::<Result<_, _>>().unwrap()
}

fn pins() -> BTreeMap<Cid, Pin> {
    let pins = lines("pins.txt").into_iter().map(|line| {
        let mut words = line.splitn(3, ' ');
        let cid = cid::parse(words.next().unwrap()).unwrap();
        let mode = match words.next().unwrap() {
            "recursive" => PinMode::Recursive,
            "direct" => PinMode::Direct,
            mode => panic!("{mode} is no mode"),
        };
        let name = words.next().map(str::to_owned);
        (cid, Pin::new(cid, mode, name).unwrap())
    });
    pins.collect()
}

/// Fails unless exactly these blocks are served, each with the right bytes, and nothing else is here.
async fn holds(store: &Store, blocks: &BTreeSet<Cid>) {
    let mut bytes = 0;
    for cid in blocks {
        let found = store.block(cid).await.unwrap().unwrap();
        bytes += found.data().len() as u64;
        assert_eq!(
            Block::verify(*cid, found.data().clone()).ok(),
            Some(found),
            "{cid}"
        );
    }
    for cid in cids("deleted.txt") {
        assert_eq!(store.block(&cid).await.unwrap(), None, "{cid}");
    }
    let listed = Arc::new(Mutex::new(Vec::new()));
    let into = listed.clone();
    let each = move |cid| {
        into.lock().unwrap().push(cid);
        ControlFlow::Continue(())
    };
    store.list(each).await.unwrap();
    let listed = listed.lock().unwrap().clone();
    assert_eq!(listed.len(), blocks.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), *blocks);
    let stat = store.stat();
    assert_eq!((stat.blocks, stat.bytes), (blocks.len() as u64, bytes));
    let bad = Arc::new(Mutex::new(Vec::new()));
    let into = bad.clone();
    let verified = store.verify(|_| {}, move |bad| into.lock().unwrap().push(bad));
    assert!(verified.await.unwrap() >= stat.blocks);
    assert_eq!(*bad.lock().unwrap(), []);
}

fn is_pinned(store: &Store, pins: &BTreeMap<Cid, Pin>) {
    let found = store.pins().into_iter().map(|pin| {
        // When they were made is known of new ones alone.
        (pin.cid, Pin::new(pin.cid, pin.mode, pin.name).unwrap())
    });
    assert_eq!(found.collect::<BTreeMap<Cid, Pin>>(), *pins);
}

/// Everything is there, now and when it is opened again, and after more was put and collected.
async fn lives_on(first: &First) {
    assert_eq!(
        fs::read_to_string(first.root().join("version")).unwrap(),
        "1\n"
    );
    let (mut blocks, mut pins) = (cids("blocks.txt"), pins());
    assert!(blocks.len() > 40 && pins.len() > 2 && cids("deleted.txt").len() > 1);
    let store = first.open();
    let version = fs::read_to_string(first.root().join("version")).unwrap();
    assert_eq!(version, "4\n");
    holds(&store, &blocks).await;
    is_pinned(&store, &pins);
    first.segments_are_as_they_were();
    // Killed, as it were: what the first opening has written so far is not all.
    drop(store);
    let store = first.open();
    holds(&store, &blocks).await;
    is_pinned(&store, &pins);

    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let new = Block::new(prefix, bytes::Bytes::from_static(b"of the second format")).unwrap();
    let new_cid = *new.cid();
    store.put(vec![new], Keep::Cached).await.unwrap();
    let mode = PinMode::Direct;
    let pin = store.pin_add(store.clone(), new_cid, mode, None, |_| {});
    pin.await.unwrap();
    blocks.insert(new_cid);
    pins.insert(new_cid, Pin::new(new_cid, mode, None).unwrap());
    holds(&store, &blocks).await;
    store.close().await.unwrap();
    drop(store);
    let store = first.open();
    holds(&store, &blocks).await;
    is_pinned(&store, &pins);

    // What nothing reached is garbage here as it was there; what pins reach stays.
    let report = store.gc(|_| {}).await.unwrap();
    blocks = reached(&store, &pins, &blocks).await;
    assert_eq!(
        report.blocks,
        cids("blocks.txt").len() as u64 + 1 - blocks.len() as u64
    );
    assert!(report.blocks > 0 && !blocks.is_empty());
    holds(&store, &blocks).await;
    is_pinned(&store, &pins);
}

/// Which of the blocks the pins reach, found by asking each block for its links.
async fn reached(
    store: &Store,
    pins: &BTreeMap<Cid, Pin>,
    blocks: &BTreeSet<Cid>,
) -> BTreeSet<Cid> {
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<(Cid, PinMode)> = pins.values().map(|pin| (pin.cid, pin.mode)).collect();
    while let Some((cid, mode)) = ahead.pop() {
        assert!(blocks.contains(&cid), "{cid} is pinned, but was not here");
        if !reached.insert(cid) || mode == PinMode::Direct {
            continue;
        }
        let block = store.block(&cid).await.unwrap().unwrap();
        let links = cairn_store::dag::links(&block).unwrap();
        ahead.extend(links.into_iter().map(|link| (link.cid, mode)));
    }
    reached
}

#[tokio::test]
async fn a_repository_of_format_1_opens_with_everything_in_it_and_is_of_this_one_then() {
    lives_on(&First::whole()).await;
}

#[tokio::test]
async fn a_repository_of_format_1_opens_without_its_index() {
    lives_on(&First::without_index()).await;
}

/// Whether the index came along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    There,
    Lost,
}

fn of_format_4(index: Index) {
    let repo = Repo::new(CAIRN);
    for part in ["blocks", "journal", "index"] {
        let _ = fs::remove_dir_all(repo.path().join(part)); // The index may not be there yet.
    }
    let packed = fs::File::open(fixture("store-v4").join("store-v4.tar.gz")).unwrap();
    let mut packed = tar::Archive::new(GzDecoder::new(packed));
    packed.unpack(repo.path()).unwrap();
    let version = fs::read_to_string(repo.path().join("version")).unwrap();
    assert_eq!(version, "4\n");
    if index == Index::Lost {
        fs::remove_dir_all(repo.path().join("index")).unwrap();
    }
    let facts = fs::read_to_string(fixture("store-v4").join("facts")).unwrap();
    let fact = |kind: &str| -> Vec<String> {
        let facts = facts.lines().filter_map(|line| line.split_once(' '));
        let facts = facts.filter(|(of, _)| *of == kind);
        facts.map(|(_, fact)| fact.trim_end().to_owned()).collect()
    };
    let told = |arguments: &[&str]| -> Vec<String> {
        let told = repo.ok(arguments);
        let mut told: Vec<String> = told
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        told.sort();
        told
    };
    let sorted = |mut facts: Vec<String>| {
        assert!(!facts.is_empty());
        facts.sort();
        facts
    };
    // With all that is said of them, when they were made and until when they hold.
    let are_pinned = || {
        for kind in ["recursive", "direct"] {
            let pins = told(&["pin", "ls", "--long", "--names", "--type", kind]);
            assert_eq!(pins, sorted(fact(kind)));
        }
    };
    let look = || {
        assert_eq!(told(&["refs", "local"]), sorted(fact("ref")));
        are_pinned();
        let queued = json(&repo.ok(["pin", "ls", "--status", "queued", "--json"]));
        let job = &queued["Keys"][&fact("queued")[0]];
        assert_eq!(
            (&job["Name"], &job["Priority"]),
            (&"waits".into(), &3.into()),
            "{queued}"
        );
        assert_eq!(told(&["filestore", "ls"]), sorted(fact("place")));
        assert_eq!(told(&["files", "stat", "--hash", "/"]), fact("files"));
        assert_eq!(
            repo.ok(["files", "read", "/docs/deep/note.txt"]),
            "in the file tree"
        );
        for gone in ["deleted", "garbage"] {
            repo.run(["cat", "--offline", &fact(gone)[0]]).failure(1);
        }
        // The files were somebody else's, and all that is here is whole.
        let places = fact("place").len();
        let verified = repo.run(["repo", "verify"]).failure(1);
        let lost = format!(" 0 blocks corrupt; {places} of {places} blocks in files in place");
        assert!(verified.contains(&lost), "{verified}");
    };
    look();
    // Opened once more, and with something new in it.
    repo.run_with(["add", "-Q", "--pin=false"], b"new")
        .success();
    repo.ok(["repo", "gc", "--silent"]);
    let left = told(&["refs", "local"]);
    let stays = |cid: &String| fact("ref").contains(cid) && !fact("note").contains(cid);
    assert!(!left.is_empty() && left.iter().all(stays), "{left:?}");
    are_pinned();
    assert_eq!(
        repo.ok(["files", "read", "/docs/deep/note.txt"]),
        "in the file tree"
    );
}

#[test]
fn a_repository_of_format_4_opens_with_everything_in_it() {
    of_format_4(Index::There);
}

#[test]
fn a_repository_of_format_4_opens_without_its_index() {
    of_format_4(Index::Lost);
}
