//! Imports of small repositories: what is taken, what is named, and what becomes of pins and the tree beside others.

use super::*;
use crate::block::{Block, Prefix};
use crate::cid::{self, Cid, DAG_CBOR, DAG_PB, HashKind, RAW, Version};
use crate::config::Config;
use crate::dag::pb::{self, PbLink, PbNode};
use crate::dag::{json, value};
use crate::files::{Files, FilesPath, Flush, Parents};
use crate::journal::record::Record;
use crate::pin::{Pin, PinMode};
use crate::sink::{BlockSink, Placed};
use crate::source::BlockSource;
use crate::store::{Committed, Keep, Store};
use crate::unixfs::Profile;
use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A Kubo repository without a database.
struct Kubo(tempfile::TempDir);

impl Kubo {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spec =
            r#"{"Datastore": {"Spec": {"mountpoint": "/", "type": "flatfs", "path": "blocks"}}}"#;
        fs::write(folder.path().join("config"), spec).unwrap();
        fs::write(folder.path().join("version"), "18").unwrap();
        fs::create_dir(folder.path().join("blocks")).unwrap();
        let sharding = "/repo/flatfs/shard/v1/next-to-last/2\n";
        fs::write(folder.path().join("blocks/SHARDING"), sharding).unwrap();
        Self(folder)
    }

    fn path(&self, cid: &Cid) -> PathBuf {
        let name = BASE32_NOPAD.encode(&cid.hash().to_bytes());
        let shard = &name[name.len() - 3..name.len() - 1];
        let folder = self.0.path().join("blocks").join(shard);
        fs::create_dir_all(&folder).unwrap();
        folder.join(format!("{name}.data"))
    }

    fn put(&self, block: &Block) -> Cid {
        fs::write(self.path(block.cid()), block.data()).unwrap();
        *block.cid()
    }

    fn source(&self) -> Arc<Source> {
        Arc::new(Source::open(self.0.path()).unwrap())
    }
}

fn block(codec: u64, data: impl Into<Bytes>) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, data.into()).unwrap()
}

fn leaf(text: &str) -> Block {
    block(RAW, text.as_bytes().to_vec())
}

fn node(links: &[Cid]) -> Block {
    let links = links.iter().map(|cid| PbLink {
        cid: *cid,
        name: None,
        tsize: None,
    });
    let node = PbNode {
        links: links.collect(),
        data: None,
    };
    block(DAG_PB, pb::encode(&node))
}

fn pin(cid: Cid, mode: PinMode, name: &str) -> KuboPin {
    KuboPin {
        mode,
        cid,
        name: name.to_owned(),
        has_metadata: false,
    }
}

fn recursive(pins: &[Cid]) -> Records {
    Records {
        pins: pins
            .iter()
            .map(|cid| pin(*cid, PinMode::Recursive, ""))
            .collect(),
        ..Records::default()
    }
}

fn opened(folder: &Path) -> Store {
    Store::open(folder, &Config::default(), &mut |_| {}).unwrap()
}

/// What an import came to, what was not taken and why, and what became of pins.
struct Seen {
    imported: Imported,
    skipped: BTreeMap<PathBuf, String>,
    pins: Vec<(Cid, PinFate)>,
}

async fn import(store: &Store, kubo: &Kubo, records: &Records) -> Seen {
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let told = Arc::clone(&events);
    let importing = store.import_kubo(kubo.source(), records.clone(), None, move |event| {
        told.lock().unwrap().push(event);
        ControlFlow::Continue(())
    });
    let imported = importing.await.unwrap();
    let (mut skipped, mut pins) = (BTreeMap::new(), Vec::new());
    for event in events.lock().unwrap().drain(..) {
        match event {
            Event::Skipped { path, why } => drop(skipped.insert(path, why)),
            Event::Pin(pin, fate) => pins.push((pin.cid, fate)),
            Event::Files(..) | Event::Progress(_) => {}
        }
    }
    Seen {
        imported,
        skipped,
        pins,
    }
}

#[tokio::test]
async fn what_is_good_is_taken_and_everything_else_is_named() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let good: Vec<Cid> = HashKind::ALL
        .into_iter()
        .filter(|hash| *hash != HashKind::Identity)
        .map(|hash| {
            let prefix = Prefix {
                version: Version::V1,
                codec: RAW,
                hash,
            };
            kubo.put(&Block::new(prefix, Bytes::from_static(b"of each hash")).unwrap())
        })
        .chain([kubo.put(&leaf(""))])
        .collect();
    let blocks = kubo.0.path().join("blocks");
    let mut bad = BTreeMap::new();
    let mut spoil = |path: PathBuf, says: &'static str| {
        assert_eq!(bad.insert(path, says), None);
    };
    let path = kubo.path(leaf("flipped").cid());
    fs::write(&path, "Flipped").unwrap();
    spoil(path, "do not hash");
    let path = kubo.path(leaf("emptied").cid());
    fs::write(&path, "").unwrap();
    spoil(path, "empty");
    let path = kubo.path(leaf("large").cid());
    fs::write(&path, vec![0; (2 << 20) + 1]).unwrap();
    spoil(path, "larger");
    let path = kubo.path(leaf("folder").cid());
    fs::create_dir(&path).unwrap();
    spoil(path, "a folder");
    let path = kubo.path(leaf("link").cid());
    std::os::unix::fs::symlink(kubo.path(&good[0]), &path).unwrap();
    spoil(path, "symlink");
    let path = kubo.path(leaf("pipe").cid());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    spoil(path, "not a file");
    fs::create_dir(blocks.join(".temp")).unwrap();
    for (name, says) in [
        (".temp/temp-1", "not finished"),
        ("put-1", "not finished"),
        ("notes.txt", "not a name"),
    ] {
        fs::write(blocks.join(name), "x").unwrap();
        spoil(blocks.join(name), says);
    }
    for name in ["_README", "diskUsage.cache"] {
        fs::write(blocks.join(name), "{}").unwrap();
    }

    let store = opened(folder.path());
    let first = import(&store, &kubo, &Records::default()).await;
    assert_eq!(
        first.skipped.keys().collect::<Vec<_>>(),
        bad.keys().collect::<Vec<_>>()
    );
    for (path, why) in &first.skipped {
        assert!(why.contains(bad[path]), "{}: {why}", path.display());
    }
    let progress = first.imported.progress;
    assert_eq!(progress.skipped, bad.len() as u64);
    assert_eq!((progress.new, progress.there), (good.len() as u64, 0));
    assert_eq!(progress.folders, progress.folders_total);
    // As it would be after a kill.
    drop(store);
    let store = opened(folder.path());
    for cid in &good {
        assert!(store.block(cid).await.unwrap().is_some(), "{cid}");
    }
    let (bytes, blocks) = (store.stat().disk_bytes, store.stat().blocks);
    assert_eq!(blocks, good.len() as u64);
    let again = import(&store, &kubo, &Records::default()).await;
    assert_eq!(again.skipped, first.skipped);
    assert_eq!(
        (again.imported.progress.new, again.imported.progress.there),
        (0, good.len() as u64)
    );
    assert_eq!(store.stat().disk_bytes, bytes);
}

#[tokio::test]
async fn pins_are_made_of_what_is_whole_and_others_say_what_is_missing() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let (one, two, lost) = (leaf("one"), leaf("two"), leaf("lost"));
    let [one, two] = [&one, &two].map(|leaf| kubo.put(leaf));
    let shared = kubo.put(&node(&[one, two]));
    let whole = kubo.put(&node(&[shared, one]));
    let broken_below = kubo.put(&node(&[*lost.cid()]));
    let broken = kubo.put(&node(&[shared, broken_below]));
    let text = format!(r#"{{"to":{{"/":"{shared}"}}}}"#);
    let cbor = value::encode(&json::decode(text.as_bytes()).unwrap(), DAG_CBOR).unwrap();
    let cbor = kubo.put(&block(DAG_CBOR, cbor));
    let alone = node(&[*lost.cid(), *leaf("too").cid()]);
    let alone = kubo.put(&alone);
    let mut records = recursive(&[whole, broken, broken_below, cbor]);
    records.pins.push(pin(alone, PinMode::Direct, "alone"));
    records.pins.push(pin(*lost.cid(), PinMode::Direct, ""));

    let store = opened(folder.path());
    let seen = import(&store, &kubo, &records).await;
    let fates: BTreeMap<Cid, PinFate> = seen.pins.into_iter().collect();
    for cid in [whole, cbor, alone] {
        assert_eq!(fates[&cid], PinFate::Made);
    }
    for cid in [broken, broken_below, *lost.cid()] {
        let PinFate::Broken(why) = &fates[&cid] else {
            panic!("{cid} was made")
        };
        assert!(why.contains(&lost.cid().to_string()), "{why}");
    }
    assert_eq!((seen.imported.pins_made, seen.imported.pins_broken), (3, 3));
    let mut pinned: Vec<(Cid, PinMode)> = store
        .pins()
        .into_iter()
        .map(|pin| (pin.cid, pin.mode))
        .collect();
    pinned.sort_unstable();
    let mut all = vec![
        (whole, PinMode::Recursive),
        (cbor, PinMode::Recursive),
        (alone, PinMode::Direct),
    ];
    all.sort_unstable();
    assert_eq!(pinned, all);
    // What a collection leaves is what they reach.
    store.gc(|_| {}).await.unwrap();
    for cid in [whole, shared, one, two, cbor, alone] {
        assert!(store.has(&cid).await.unwrap());
    }
    assert!(!store.has(&broken).await.unwrap());

    // The missing block came from elsewhere, only cached.
    store.put(vec![lost.clone()], Keep::Cached).await.unwrap();
    let seen = import(&store, &kubo, &records).await;
    assert_eq!((seen.imported.pins_made, seen.imported.pins_there), (3, 3));
    let standing = store.standing(lost.cid()).await.unwrap().unwrap();
    assert_eq!(standing.keep, Keep::Kept);
    let seen = import(&store, &kubo, &records).await;
    assert_eq!((seen.imported.pins_made, seen.imported.pins_there), (0, 6));
}

#[tokio::test]
async fn a_pin_that_is_here_keeps_its_name_and_reaches_no_less() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let [one, two, three] =
        ["one", "two", "three"].map(|text| kubo.put(&node(&[kubo.put(&leaf(text))])));
    let store = opened(folder.path());
    for cid in [one, two, three] {
        import(&store, &kubo, &Records::default()).await;
        let (mode, name) = match cid {
            _ if cid == one => (PinMode::Recursive, Some("mine".to_owned())),
            _ if cid == two => (PinMode::Direct, None),
            _ => (PinMode::Recursive, None),
        };
        store
            .pin_add(store.clone(), cid, mode, name, |_| {})
            .await
            .unwrap();
    }
    let v0 = Cid::new_v0(*two.hash()).unwrap();
    let records = Records {
        pins: vec![
            pin(one, PinMode::Recursive, "theirs"),
            pin(two, PinMode::Recursive, ""),
            pin(v0, PinMode::Recursive, "old version"),
            pin(three, PinMode::Direct, &"é".repeat(200)),
        ],
        ..Records::default()
    };
    let seen = import(&store, &kubo, &records).await;
    assert_eq!(seen.imported.pins_broken, 0);
    let here = |cid: &Cid| {
        let pin: Pin = store.pin(cid).unwrap();
        (pin.mode, pin.name.unwrap_or_default())
    };
    assert_eq!(here(&one), (PinMode::Recursive, "mine".to_owned()));
    assert_eq!(here(&two), (PinMode::Recursive, "old version".to_owned()));
    assert_eq!(here(&three), (PinMode::Recursive, "é".repeat(127)));
    let again = import(&store, &kubo, &records).await;
    assert_eq!(
        (again.imported.pins_made, again.imported.pins_there),
        (0, 4)
    );
}

#[tokio::test]
async fn what_was_broken_off_goes_on_where_it_was() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let leaves: Vec<Cid> = (0..2000)
        .map(|at| kubo.put(&leaf(&at.to_string())))
        .collect();
    let root = kubo.put(&node(&leaves));
    let records = recursive(&[root]);
    let store = opened(folder.path());
    let importing = store.import_kubo(kubo.source(), records.clone(), None, |event| match event {
        Event::Progress(progress) if progress.new > 100 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let imported = importing.await.unwrap();
    let before = imported.progress.new;
    assert!(
        imported.was_broken_off && (100..2001).contains(&before),
        "{before}"
    );
    assert_eq!(store.pins(), []);
    drop(store);
    let store = opened(folder.path());
    assert_eq!(store.stat().blocks, before);
    let seen = import(&store, &kubo, &records).await;
    let progress = seen.imported.progress;
    assert_eq!((progress.there, progress.new), (before, 2001 - before));
    assert_eq!(seen.pins, [(root, PinFate::Made)]);
}

#[tokio::test]
async fn the_file_tree_comes_along_unless_there_is_one() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let [root, other] = ["a", "b"].map(|text| kubo.put(&node(&[kubo.put(&leaf(text))])));
    let lost = kubo.put(&node(&[*leaf("lost").cid()]));
    let empty = cid::parse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn").unwrap();
    let store = opened(folder.path());
    for (cid, fate, here) in [
        (None, FilesFate::None, None),
        (Some(empty), FilesFate::None, None),
        (Some(root), FilesFate::Taken, Some(root)),
        (Some(root), FilesFate::There, Some(root)),
        (Some(other), FilesFate::Beside, Some(root)),
        (Some(empty), FilesFate::None, Some(root)),
    ] {
        let records = Records {
            files_root: cid,
            ..Records::default()
        };
        let seen = import(&store, &kubo, &records).await;
        assert_eq!(seen.imported.files, Some(fate));
        assert_eq!(store.files_root(), here);
    }
    assert_eq!(store.pin(&other).unwrap().name.as_deref(), Some(FILES_PIN));
    let records = Records {
        files_root: Some(lost),
        ..Records::default()
    };
    let seen = import(&store, &kubo, &records).await;
    assert!(matches!(seen.imported.files, Some(FilesFate::Broken(_))));
    // Whatever else goes, what the tree reaches stays.
    store.gc(|_| {}).await.unwrap();
    assert!(store.has(leaf("a").cid()).await.unwrap());
}

#[tokio::test]
async fn blocks_with_links_lie_among_their_kind() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let data = kubo.put(&leaf("data"));
    let links = kubo.put(&node(&[data]));
    let store = opened(folder.path());
    import(&store, &kubo, &Records::default()).await;
    let listed: Arc<Mutex<Vec<Cid>>> = Arc::default();
    let out = Arc::clone(&listed);
    let list = store.list(move |cid| {
        out.lock().unwrap().push(cid);
        ControlFlow::Continue(())
    });
    list.await.unwrap();
    let mut listed = listed.lock().unwrap().clone();
    listed.sort_unstable();
    let mut all = vec![data, links];
    all.sort_unstable();
    assert_eq!(listed, all);
}

#[tokio::test]
async fn a_pin_that_is_changed_meanwhile_is_looked_at_again() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let [made, gone] = ["made", "gone"].map(|text| kubo.put(&node(&[kubo.put(&leaf(text))])));
    let theirs = Records {
        pins: vec![
            pin(made, PinMode::Recursive, "theirs"),
            pin(gone, PinMode::Recursive, "theirs"),
        ],
        ..Records::default()
    };
    let store = opened(folder.path());
    import(&store, &kubo, &Records::default()).await;
    let mine = |cid, mode| Pin::new(cid, mode, Some("mine".to_owned())).unwrap();
    let before = mine(gone, PinMode::Direct);
    store
        .inner
        .commit(vec![Record::Pinned(before.clone())])
        .unwrap();
    let inner = store.inner.clone();
    let mut changes = Some(vec![
        Record::Pinned(mine(made, PinMode::Recursive)),
        Record::Unpinned(before.key()),
    ]);
    let fates: Arc<Mutex<Vec<PinFate>>> = Arc::default();
    let told = Arc::clone(&fates);
    let importing = store.import_kubo(kubo.source(), theirs, None, move |event| {
        match event {
            // Both were walked, and are not committed yet.
            Event::Progress(progress) if progress.pins == 2 => {
                changes
                    .take()
                    .map_or(Ok(()), |changes| inner.commit(changes))
                    .unwrap();
            }
            Event::Pin(_, fate) => told.lock().unwrap().push(fate),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    importing.await.unwrap();
    let here = |cid| {
        let pin = store.pin(&cid).unwrap();
        (pin.mode, pin.name.unwrap_or_default())
    };
    assert_eq!(here(made), (PinMode::Recursive, "mine".to_owned()));
    assert_eq!(here(gone), (PinMode::Recursive, "theirs".to_owned()));
    let mut fates = fates.lock().unwrap().clone();
    fates.sort_by_key(|fate| *fate == PinFate::Made);
    assert_eq!(fates, [PinFate::There, PinFate::Made]);
}

#[tokio::test]
async fn what_waits_in_the_file_tree_is_a_tree_that_stays() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let root = kubo.put(&node(&[kubo.put(&leaf("a"))]));
    let store = opened(folder.path());
    let files = Files::new(store.clone(), Profile::v1_2025()).unwrap();
    let mine = FilesPath::parse("/mine").unwrap();
    let make = files.make_folder(&store, &mine, Parents::There, None, Flush::Later);
    make.await.unwrap();
    assert_eq!(store.files_root(), None);
    let records = Records {
        files_root: Some(root),
        ..Records::default()
    };
    let files = Some(files);
    let importing = store.import_kubo(kubo.source(), records, files, |_| ControlFlow::Continue(()));
    assert_eq!(importing.await.unwrap().files, Some(FilesFate::Beside));
    assert!(store.files_root().is_some_and(|here| here != root));
}

#[test]
fn a_tree_takes_the_place_of_the_one_that_was_looked_at_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path());
    let [one, two] = ["one", "two"].map(|text| *leaf(text).cid());
    let replace = |before, root| {
        let inner = &store.inner;
        inner
            .commit_files_root_after(before, root, inner.losses())
            .unwrap()
    };
    assert_eq!(replace(Some(one), two), Committed::Overtaken);
    assert_eq!(replace(None, one), Committed::Yes);
    assert_eq!(replace(None, two), Committed::Overtaken);
    assert_eq!(store.files_root(), Some(one));
    assert_eq!(replace(Some(one), two), Committed::Yes);
    assert_eq!(store.files_root(), Some(two));
}

#[tokio::test]
async fn what_lies_in_a_file_of_the_users_is_stored_all_the_same() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let leaf = leaf("in a file");
    let path = folder.path().join("file");
    fs::write(&path, leaf.data()).unwrap();
    let store = opened(&folder.path().join("store"));
    let mut writer = store.writer(Keep::Kept);
    let placed = Placed {
        block: leaf.clone(),
        path: path.clone().into(),
        offset: 0,
    };
    writer.put_placed(vec![placed]).unwrap();
    writer.commit().unwrap();
    kubo.put(&leaf);
    let first = import(&store, &kubo, &Records::default()).await;
    assert_eq!(
        (first.imported.progress.new, first.imported.progress.there),
        (1, 0)
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(store.block(leaf.cid()).await.unwrap(), Some(leaf));
    let again = import(&store, &kubo, &Records::default()).await;
    assert_eq!(
        (again.imported.progress.new, again.imported.progress.there),
        (0, 1)
    );
}

#[tokio::test]
async fn what_is_missing_is_named_once_however_often_it_is_linked_to() {
    let (kubo, folder) = (Kubo::new(), tempfile::tempdir().unwrap());
    let lost = *leaf("lost").cid();
    let other = kubo.put(&leaf("here"));
    let root = kubo.put(&node(&[kubo.put(&node(&[lost, other])), lost]));
    let store = opened(folder.path());
    let seen = import(&store, &kubo, &recursive(&[root])).await;
    let PinFate::Broken(why) = &seen.pins[0].1 else {
        panic!("{:?}", seen.pins)
    };
    assert_eq!(why.matches(&lost.to_string()).count(), 1, "{why}");
}
