//! Pins against a plain map: after every step the store tells the same of them, and a collection leaves what they reach.
//!
//! Steps are drawn at random and shrink when something differs. The program's end without a word and opening anew are
//! among them. `PROPTEST_CASES` says how many sequences are run, `PROPTEST_RNG_SEED` which.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::pb::{self, PbLink, PbNode};

use cairn_store::notes::About;
use cairn_store::pin::{
    Expiry, Metadata, NoteChange, PIN_METADATA_BYTES_MAX, PIN_METADATA_MAX, Pin, PinError, PinMode,
    PinProgress, PinWish,
};
use cairn_store::store::Keep;
use cairn_store::{BlockSource, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

const RAW: Prefix = Prefix {
    version: Version::V1,
    codec: cid::RAW,
    hash: HashKind::Sha2_256,
};

/// Leaves, then nodes over two of them each.
static BLOCKS: LazyLock<Vec<Block>> = LazyLock::new(|| {
    let leaf = |at: usize| Block::new(RAW, Bytes::from(format!("leaf {at}"))).unwrap();
    let mut blocks: Vec<Block> = (0..LEAVES).map(leaf).collect();
    for at in LEAVES..ALL {
        let links = below(at).into_iter().map(|below| PbLink {
            cid: *blocks[below].cid(),
            name: Some(String::new()),
            tsize: Some(blocks[below].data().len() as u64),
        });
        let node = PbNode {
            links: links.collect(),
            data: Some(Bytes::from(at.to_string())),
        };
        let prefix = Prefix {
            codec: cid::DAG_PB,
            ..RAW
        };
        blocks.push(Block::new(prefix, pb::encode(&node)).unwrap());
    }
    blocks
});

fn below(at: usize) -> Vec<usize> {
    match at {
        0..LEAVES => Vec::new(),
        _ => vec![at % LEAVES, (at + 1) % LEAVES],
    }
}

fn reached(at: usize, mode: PinMode) -> BTreeSet<usize> {
    let mut all = BTreeSet::from([at]);
    if mode == PinMode::Recursive {
        all.extend(below(at));
    }
    all
}

fn cid(at: usize) -> Cid {
    *BLOCKS[at].cid()
}

/// What is done.
#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    Pin(Wished),
    /// In one commit, those of which everything is here.
    PinMany(Vec<Wished>),
    Unpin(Vec<usize>),
    Expire(u64),
    Collect,
    Reopen,
    Kill,
}

#[derive(Debug, Clone)]
struct Wished {
    at: usize,
    mode: PinMode,
    name: Option<String>,
    metadata: Metadata,
    expiry: Expiry,
}

impl Wished {
    fn wish(&self) -> PinWish {
        PinWish {
            metadata: self.metadata.clone(),
            expiry: self.expiry,
            ..PinWish::new(cid(self.at), self.mode).named(self.name.clone())
        }
    }
}

/// What the model has of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    mode: PinMode,
    name: Option<String>,
    metadata: Metadata,
    expires: Option<u64>,
}

#[derive(Debug, Default)]
struct Model {
    here: BTreeSet<usize>,
    pins: BTreeMap<usize, Known>,
}

impl Model {
    /// Whether such a pin is made.
    fn pin(&mut self, wished: &Wished) -> bool {
        let old = self.pins.get(&wished.at);
        let is_less =
            old.is_some_and(|old| old.mode == PinMode::Recursive) && wished.mode == PinMode::Direct;
        let stands = old.is_some_and(|old| old.mode == wished.mode);
        let is_here = reached(wished.at, wished.mode).is_subset(&self.here);
        if is_less || !(stands || is_here) {
            return false;
        }
        let mut metadata = old.map(|old| old.metadata.clone()).unwrap_or_default();
        metadata.extend(wished.metadata.clone());
        metadata.retain(|_, value| !value.is_empty());
        let name = wished.name.clone().or_else(|| old?.name.clone());
        let known = Known {
            mode: wished.mode,
            name: name.filter(|name| !name.is_empty()),
            metadata,
            expires: match wished.expiry {
                Expiry::Never => None,
                Expiry::AsItWas => old.and_then(|old| old.expires),
                Expiry::At(at) => Some(at),
            },
        };
        self.pins.insert(wished.at, known);
        true
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop_oneof![2 => Just(PinMode::Recursive), 1 => Just(PinMode::Direct)];
    let name = prop_oneof![
        2 => Just(None),
        2 => (0..3u8).prop_map(|at| Some(format!("name {at}"))),
        1 => Just(Some(String::new())),
    ];
    let value = prop_oneof![2 => Just("value"), 1 => Just("other"), 1 => Just("")];
    let metadata = vec((0..3u8, value), 0..3).prop_map(|pairs| {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(key, value)| (format!("key {key}"), value.to_owned()));
        pairs.collect::<Metadata>()
    });
    let expiry = prop_oneof![
        2 => Just(Expiry::Never),
        1 => Just(Expiry::AsItWas),
        2 => (1..TIMES).prop_map(Expiry::At),
    ];
    let wished = (0..ALL, mode, name, metadata, expiry);
    let wished = wished.prop_map(|(at, mode, name, metadata, expiry)| Wished {
        at,
        mode,
        name,
        metadata,
        expiry,
    });
    let step = prop_oneof![
        4 => (0..ALL).prop_map(Step::Put),
        6 => wished.clone().prop_map(Step::Pin),
        3 => vec(wished, 1..8).prop_map(Step::PinMany),
        2 => vec(0..ALL, 1..3).prop_map(Step::Unpin),
        2 => (0..TIMES).prop_map(Step::Expire),
        1 => Just(Step::Collect),
        1 => Just(Step::Reopen),
        2 => Just(Step::Kill),
    ];
    vec(step, 1..60)
}

struct Run {
    folder: tempfile::TempDir,
    store: Option<Store>,
    model: Model,
    /// When pins were made, as the store told it first.
    created: BTreeMap<usize, u64>,
}

fn open(folder: &Path) -> Store {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    Store::open(folder, &config, &mut |_| {}).unwrap()
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Some(open(folder.path())),
            folder,
            model: Model::default(),
            created: BTreeMap::new(),
        }
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    async fn step(&mut self, step: &Step) {
        let store = self.store();
        match step {
            Step::Put(at) => {
                let blocks = reached(*at, PinMode::Recursive);
                let here = blocks.iter().map(|at| BLOCKS[*at].clone());
                store.put(here.collect(), Keep::Kept).await.unwrap();
                self.model.here.extend(blocks);
            }
            Step::Pin(wished) => {
                let made = store.pin_as(store.clone(), wished.wish(), |_| {}).await;
                assert_eq!(made.is_ok(), self.model.pin(wished), "{made:?}");
            }
            Step::PinMany(wished) => {
                let wishes = wished.iter().map(Wished::wish).collect();
                let here = store.pins_here(&store, wishes).await.unwrap();
                let made = store.pins_noted(here, Vec::new(), ()).await.unwrap();
                self.many(wished, &made);
            }
            Step::Unpin(ats) => {
                let cids: Vec<Cid> = ats.iter().map(|at| cid(*at)).collect();
                let removed = store.pins_remove(&cids, None).await;
                let all = ats.iter().all(|at| self.model.pins.contains_key(at));
                assert_eq!(removed.is_ok(), all, "{removed:?}");
                if all {
                    self.model.pins.retain(|at, _| !ats.contains(at));
                }
            }
            Step::Expire(now) => {
                let keeps = cid(0);
                let stays = move |cid: &Cid| *cid == keeps;
                let removed = store.pins_expire(*now, stays, ()).await.unwrap();
                let before = self.model.pins.len();
                let stays = |at: &usize, pin: &mut Known| {
                    *at == 0 || pin.expires.is_none_or(|expires| expires > *now)
                };
                self.model.pins.retain(stays);
                assert_eq!(removed, (before - self.model.pins.len()) as u64);
            }
            Step::Collect => {
                store.gc(|_| {}).await.unwrap();
                let pins = self.model.pins.iter();
                self.model.here = pins.flat_map(|(at, pin)| reached(*at, pin.mode)).collect();
            }
            Step::Reopen | Step::Kill => {
                if matches!(step, Step::Reopen) {
                    store.close().await.unwrap();
                }
                drop(store);
                self.store = None;
                self.store = Some(open(self.folder.path()));
            }
        }
        self.compare().await;
    }

    /// Those of a batch are looked at before any of it is made: a pin that another of the same batch leaves no room for is
    /// left alone.
    fn many(&mut self, wished: &[Wished], made: &[bool]) {
        let before = self.model.pins.clone();
        for (wished, made) in wished.iter().zip(made) {
            let stood = before
                .get(&wished.at)
                .is_some_and(|old| old.mode == wished.mode);
            let now = self.model.pins.get(&wished.at).map(|now| now.mode);
            // One that only changes what stood finds another in its place.
            let is_overtaken = stood && now != Some(wished.mode);
            let first = wished_over(&before, wished);
            let unchanged = stood && before.get(&wished.at) == first.as_ref();
            if is_overtaken {
                assert_eq!(*made, unchanged, "{wished:?}");
                continue;
            }
            if unchanged {
                assert!(*made);
                continue;
            }
            let fits = reached(wished.at, wished.mode).is_subset(&self.model.here);
            let is_less = before
                .get(&wished.at)
                .is_some_and(|old| old.mode == PinMode::Recursive)
                && wished.mode == PinMode::Direct;
            let beside = now == Some(PinMode::Recursive) && wished.mode == PinMode::Direct;
            let expected = (stood || fits) && !is_less && !beside;
            assert_eq!(*made, expected, "{wished:?}");
            if let Some(first) = first.filter(|_| expected) {
                self.model.pins.insert(wished.at, first);
            }
        }
    }

    async fn compare(&mut self) {
        let store = self.store();
        let pins = store.pins();
        let paged: Vec<Pin> = store.pin_pages().collect();
        assert_eq!(pins, paged);
        assert_eq!(store.stat().pins, pins.len() as u64);
        let mut found = BTreeMap::new();
        for pin in pins {
            let at = (0..ALL).find(|at| cid(*at) == pin.cid).unwrap();
            assert_eq!(store.pin(&pin.cid).as_ref(), Some(&pin));
            let created = pin.created.unwrap();
            assert_eq!(*self.created.entry(at).or_insert(created), created);
            for at in reached(at, pin.mode) {
                assert!(
                    store.has(&cid(at)).await.unwrap(),
                    "a pin points at what is not here"
                );
            }
            let known = Known {
                mode: pin.mode,
                name: pin.name,
                metadata: pin.metadata,
                expires: pin.expires,
            };
            found.insert(at, known);
        }
        self.created.retain(|at, _| found.contains_key(at));
        assert_eq!(found, self.model.pins);
        let expiring = self.model.pins.values().filter_map(|pin| pin.expires);
        assert_eq!(store.next_expiry(), expiring.min());
    }
}

/// What comes of a wish in the place of what stood.
fn wished_over(before: &BTreeMap<usize, Known>, wished: &Wished) -> Option<Known> {
    let mut model = Model {
        here: (0..ALL).collect(),
        pins: before.clone(),
    };
    model.pin(wished).then(|| model.pins[&wished.at].clone())
}

proptest! {
    #[test]
    fn pins_are_what_a_map_would_hold(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in &steps {
                run.step(step).await;
            }
        });
    }
}

fn put_all(store: &Store) -> impl Future<Output = ()> {
    let store = store.clone();
    async move { store.put(BLOCKS.clone(), Keep::Kept).await.unwrap() }
}

#[tokio::test]
async fn metadata_has_bounds_and_needs_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put_all(&store).await;
    let with = |metadata: Metadata| PinWish {
        metadata,
        ..PinWish::new(cid(0), PinMode::Recursive)
    };
    let pin = |wish| store.pin_as(store.clone(), wish, |_| {});
    let no_key = Metadata::from([(String::new(), "value".to_owned())]);
    assert!(matches!(pin(with(no_key)).await, Err(PinError::NoKey)));
    let many = (0..=PIN_METADATA_MAX).map(|at| (at.to_string(), "v".to_owned()));
    let refused = pin(with(many.collect())).await;
    assert!(
        matches!(refused, Err(PinError::Metadata { keys, .. }) if keys == PIN_METADATA_MAX + 1)
    );
    let long = |bytes: usize| Metadata::from([("k".to_owned(), "v".repeat(bytes - 1))]);
    let refused = pin(with(long(PIN_METADATA_BYTES_MAX + 1))).await;
    assert!(
        matches!(refused, Err(PinError::Metadata { bytes, .. }) if bytes == PIN_METADATA_BYTES_MAX + 1)
    );
    assert_eq!(store.pins(), []);
    pin(with(long(PIN_METADATA_BYTES_MAX))).await.unwrap();
    let more = Metadata::from([("l".to_owned(), "v".to_owned())]);
    let refused = pin(with(more)).await;
    assert!(matches!(refused, Err(PinError::Metadata { keys: 2, .. })));
    drop(store);
    let store = open(folder.path());
    assert_eq!(
        store.pin(&cid(0)).unwrap().metadata,
        long(PIN_METADATA_BYTES_MAX)
    );
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_refused_by_what_its_root_says_or_when_it_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put_all(&store).await;
    let (root, leaf) = (&BLOCKS[LEAVES], BLOCKS[0].data().len() as u64);
    let whole = root.data().len() as u64 + 2 * leaf;
    let wish = |cid, max| PinWish {
        max_bytes: Some(max),
        ..PinWish::new(cid, PinMode::Recursive)
    };
    let refused = store.pin_as(store.clone(), wish(*root.cid(), whole - 1), |_| {});
    let refused = refused.await.unwrap_err();
    assert!(
        matches!(refused, PinError::TooLarge { max, bytes, is_claimed: true, .. } if (max, bytes) == (whole - 1, whole)),
        "{refused}"
    );
    // One that says too little.
    let node = PbNode {
        links: (0..3)
            .map(|at| PbLink {
                cid: cid(at),
                name: Some(String::new()),
                tsize: Some(1),
            })
            .collect(),
        data: None,
    };
    let prefix = Prefix {
        codec: cid::DAG_PB,
        ..RAW
    };
    let liar = Block::new(prefix, pb::encode(&node)).unwrap();
    store.put(vec![liar.clone()], Keep::Kept).await.unwrap();
    let says = liar.data().len() as u64 + 3;
    let refused = store.pin_as(store.clone(), wish(*liar.cid(), says), |_| {});
    let refused = refused.await.unwrap_err();
    assert!(
        matches!(refused, PinError::TooLarge { bytes, is_claimed: false, .. } if bytes > says),
        "{refused}"
    );
    assert_eq!(store.pins(), []);
    let mut told = PinProgress::default();
    let pin = store.pin_as(store.clone(), wish(*root.cid(), whole), |now| told = now);
    pin.await.unwrap();
    // One that stands is looked at by whoever asks for that, and said to stand.
    let small = wish(*root.cid(), whole - 1);
    let here = store.pins_here(&store, vec![small.clone()]).await.unwrap();
    assert_eq!(here.met().count(), 0);
    let refused = store.pin_fetch(store.clone(), &small, |_| {}).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("is pinned already and stays so"),
        "{refused}"
    );
    assert_eq!(
        (told.blocks, told.bytes, told.total),
        (3, whole, Some(whole))
    );
}

#[tokio::test]
async fn a_clock_that_went_back_lets_nothing_expire_early() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put_all(&store).await;
    store
        .pin_add(store.clone(), cid(0), PinMode::Recursive, None, |_| {})
        .await
        .unwrap();
    let made = store.pin(&cid(0)).unwrap().created.unwrap();
    let hour = Duration::from_secs(3600);
    let week = 7 * 24 * 3600;
    for now in [made - week, made - 1, made] {
        assert_eq!(store.expiry_after(now, hour), made + 3600);
    }
    // So far back it is that pin's time that is wrong.
    let now = made - week - 1;
    assert_eq!(store.expiry_after(now, hour), now + 3600);
    assert_eq!(store.expiry_after(made + 10, hour), made + 3610);
    assert_eq!(store.expiry_after(made, Duration::from_millis(1)), made + 1);
}

#[tokio::test]
async fn what_was_fetched_towards_a_pin_is_held_over_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let root = LEAVES;
    let (first, second) = (below(root)[0], below(root)[1]);
    let here = vec![BLOCKS[root].clone(), BLOCKS[first].clone()];
    store.put(here, Keep::Cached).await.unwrap();
    let wish = PinWish::new(cid(root), PinMode::Recursive);
    let holding = store.pin_holding();
    let missing = store.pin_fetch_holding(store.clone(), &wish, &holding, |_| {});
    assert!(matches!(missing.await, Err(PinError::Absent(_))));
    assert_eq!(store.gc(|_| {}).await.unwrap().blocks, 0);
    let rest = vec![BLOCKS[second].clone()];
    store.put(rest, Keep::Kept).await.unwrap();
    let whole = store.pin_fetch_holding(store.clone(), &wish, &holding, |_| {});
    let whole = whole.await.unwrap();
    assert!(
        store
            .pin_noted(wish, Some(whole), Vec::new(), ())
            .await
            .unwrap()
    );
    drop(holding);
    assert_eq!(store.gc(|_| {}).await.unwrap().blocks, 0);
    for at in [root, first, second] {
        assert!(store.block(&cid(at)).await.unwrap().is_some());
    }
}

const LEAVES: usize = 6;
const ALL: usize = 10;
const TIMES: u64 = 100;

/// A copy of a folder and all that is in it, as a kill of the program would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test]
async fn a_job_that_ends_in_a_torn_write_leaves_its_note_or_its_pin() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let open = |path: &Path| Store::open(path, &config, &mut |_| {}).unwrap();
    let first = folder.path().join("first");
    let store = open(&first);
    let block = BLOCKS[0].clone();
    let wish = PinWish::new(*block.cid(), PinMode::Recursive);
    store.put(vec![block.clone()], Keep::Kept).await.unwrap();
    let key = wish.key();
    let note = Bytes::from_static(b"a job");
    store
        .set_note(About::PinJob, key.clone(), note)
        .await
        .unwrap();
    let journal = |store: &Path| store.join("journal/journal.log");
    let before = fs::metadata(journal(&first)).unwrap().len();
    let fetch = store.pin_fetch(store.clone(), &wish, |_| {});
    let whole = fetch.await.unwrap();
    let done = NoteChange {
        about: About::PinJob,
        key: key.clone(),
        value: None,
    };
    let made = store.pin_noted(wish, Some(whole), vec![done], ());
    assert!(made.await.unwrap());
    let after = fs::metadata(journal(&first)).unwrap().len();
    let mut seen = BTreeSet::new();
    for length in before..=after {
        let torn = folder.path().join(length.to_string());
        copy(&first, &torn);
        let file = fs::File::options()
            .write(true)
            .open(journal(&torn))
            .unwrap();
        file.set_len(length).unwrap();
        let store = open(&torn);
        let has_note = store.note(About::PinJob, &key).is_some();
        let has_pin = store.pin(block.cid()).is_some();
        assert!(has_note || has_pin, "cut at {length} of {after}");
        seen.insert((has_note, has_pin));
    }
    assert_eq!(
        seen,
        BTreeSet::from([(true, false), (true, true), (false, true)])
    );
}
