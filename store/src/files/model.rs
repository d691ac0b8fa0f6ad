//! The file tree against a tree in memory: random changes, flushed and not, with kills, power cuts and failing disks
//! between them.
//!
//! After every change the root must be what importing the tree in memory gives, so that the tree has the right
//! content and the CIDs that it would have if it had been made at once. After a kill or a power cut it must be what it
//! was at the last flush that was acknowledged, or after a later change; and all that it reaches must be there. Files
//! are small, but so is what they are cut and built by in tests: they have several levels and come in many pieces.
//!
//! `CAIRN_SEEDS` says how many seeds are run, `CAIRN_FIRST_SEED` with which to begin.

use super::{
    Change, Copy, Files, FilesError, FilesPath, Flush, Overwrite, Parents, Remove, WriteOptions,
};
use crate::chunk::Chunker;
use crate::cid::Cid;
use crate::config::{ByteSize, Config, Reserve};
use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::index::Image;
use crate::pin::{PinMode, PinWish};
use crate::simulation::seeds;
use crate::sink::{BlockSink, Nowhere};
use crate::store::{Ground, Keep, Store};
use crate::unixfs::import::{ImportError, Importer, Metadata};
use crate::unixfs::read::Node;
use crate::unixfs::{HamtMeasure, Mtime, Profile};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

/// A tree in memory.
#[derive(Clone, PartialEq)]
enum Tree {
    Folder(BTreeMap<String, Tree>, Metadata),
    File(Vec<u8>, Metadata),
    Link(String, Metadata),
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(entries, metadata) => write!(out, "{entries:?} {metadata:?}"),
            Self::File(bytes, metadata) => write!(out, "{} bytes {metadata:?}", bytes.len()),
            Self::Link(target, metadata) => write!(out, "-> {target} {metadata:?}"),
        }
    }
}

/// That something cannot be done.
#[derive(Debug, PartialEq)]
struct Refused;

type Done = Result<(), Refused>;

impl Tree {
    fn folder() -> Self {
        Self::Folder(BTreeMap::new(), Metadata::default())
    }

    fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(..))
    }

    fn get(&self, names: &[String]) -> Result<Option<&Self>, Refused> {
        let Some((first, rest)) = names.split_first() else {
            return Ok(Some(self));
        };
        match self {
            Self::File(..) | Self::Link(..) => Err(Refused),
            Self::Folder(entries, _) => match entries.get(first) {
                None => Ok(None),
                Some(below) => below.get(rest),
            },
        }
    }

    /// The entries of the folder that is to have what is at `names`.
    fn parent(
        &mut self,
        names: &[String],
        parents: Parents,
    ) -> Result<&mut BTreeMap<String, Self>, Refused> {
        let Self::Folder(entries, _) = self else {
            return Err(Refused);
        };
        match names {
            [] => Err(Refused),
            [_] => Ok(entries),
            [first, rest @ ..] => {
                if parents == Parents::Made {
                    let below = entries.entry(first.clone()).or_insert_with(Self::folder);
                    return below.parent(rest, parents);
                }
                entries.get_mut(first).ok_or(Refused)?.parent(rest, parents)
            }
        }
    }

    fn put(&mut self, path: &FilesPath, tree: Self, parents: Parents) -> Done {
        let name = path.name().ok_or(Refused)?.to_owned();
        self.parent(path.names(), parents)?.insert(name, tree);
        Ok(())
    }

    fn take(&mut self, path: &FilesPath) -> Result<Self, Refused> {
        let name = path.name().ok_or(Refused)?.to_owned();
        let entries = self.parent(path.names(), Parents::There)?;
        entries.remove(&name).ok_or(Refused)
    }

    fn import<S: BlockSink, F: FnMut(crate::unixfs::import::Event)>(
        &self,
        name: &str,
        importer: &mut Importer<S, F>,
    ) -> Result<(), ImportError> {
        match self {
            Self::File(bytes, metadata) => importer.file(name, &mut &bytes[..], *metadata),
            Self::Link(target, metadata) => importer.symlink(name, target, *metadata),
            Self::Folder(entries, metadata) => {
                importer.enter(name, *metadata)?;
                for (name, tree) in entries {
                    tree.import(name, importer)?;
                }
                importer.leave()
            }
        }
    }

    fn add(&self, profile: &Profile, sink: impl BlockSink) -> Result<(Cid, u64), FilesError> {
        let mut importer = Importer::new(profile.clone(), sink, |_| {});
        let added = self.import("root", &mut importer);
        let added = added.and_then(|()| importer.finish());
        let added = added.map_err(|error| match error {
            ImportError::Put(error) => FilesError::Put(error),
            error => panic!("{error}"),
        });
        let added = added?.pop().unwrap();
        Ok((added.cid, added.size))
    }

    fn cid(&self, profile: &Profile) -> Cid {
        self.add(profile, Nowhere).unwrap().0
    }
}

/// A change of the tree.
#[derive(Debug, Clone)]
enum Step {
    MakeFolder(FilesPath, Parents),
    Write {
        path: FilesPath,
        offset: u64,
        data: Vec<u8>,
        pieces: usize,
        create: bool,
        parents: Parents,
        truncate: bool,
    },
    Copy(FilesPath, FilesPath, Parents, Overwrite),
    Add(Tree, FilesPath, Overwrite),
    Move(FilesPath, FilesPath),
    Remove(FilesPath, Remove),
    Metadata(FilesPath, Option<u32>, Option<Mtime>),
    Apply(Vec<(FilesPath, Option<Option<Tree>>)>),
}

impl Step {
    /// What it does to a tree in memory.
    fn change(&self, tree: &mut Tree) -> Done {
        let before = tree.clone();
        let done = self.change_in_place(tree);
        if done.is_err() {
            *tree = before;
        }
        done
    }

    fn change_in_place(&self, tree: &mut Tree) -> Done {
        match self {
            Self::MakeFolder(path, parents) => match tree.get(path.names())? {
                Some(Tree::Folder(..)) if *parents == Parents::Made => Ok(()),
                Some(_) => Err(Refused),
                None => tree.put(path, Tree::folder(), *parents),
            },
            Self::Write {
                path,
                offset,
                data,
                create,
                parents,
                truncate,
                ..
            } => {
                let (mut bytes, metadata) = match tree.get(path.names())? {
                    Some(Tree::File(bytes, metadata)) => (bytes.clone(), *metadata),
                    None if *create => (Vec::new(), Metadata::default()),
                    _ => return Err(Refused),
                };
                if *truncate {
                    bytes.clear();
                }
                let start = usize::try_from(*offset).unwrap();
                if !data.is_empty() {
                    bytes.resize(bytes.len().max(start + data.len()), 0);
                    bytes[start..start + data.len()].copy_from_slice(data);
                }
                tree.put(path, Tree::File(bytes, metadata), *parents)
            }
            Self::Copy(from, to, parents, overwrite) => {
                let from = tree.get(from.names())?.ok_or(Refused)?.clone();
                put_new(tree, to, from, *parents, *overwrite)
            }
            Self::Add(what, to, overwrite) => {
                put_new(tree, to, what.clone(), Parents::There, *overwrite)
            }
            Self::Move(from, to) => {
                tree.get(from.names())?
                    .filter(|_| !from.is_root())
                    .ok_or(Refused)?;
                let mut to = to.clone();
                if to != *from && tree.get(to.names())?.is_some_and(Tree::is_folder) {
                    to = to.join(from.name().unwrap()).unwrap();
                    if to != *from && tree.get(to.names())?.is_some() {
                        return Err(Refused);
                    }
                }
                if to == *from {
                    return Ok(());
                }
                if to.is_within(from) {
                    return Err(Refused);
                }
                let moved = tree.take(from)?;
                tree.put(&to, moved, Parents::There)
            }
            Self::Remove(path, how) => {
                if path.is_root() {
                    return Err(Refused);
                }
                let found = tree.get(path.names());
                match (found, how) {
                    (Err(Refused) | Ok(None), Remove::Forced) => return Ok(()),
                    (Ok(Some(Tree::Folder(..))), Remove::File) => return Err(Refused),
                    _ => {}
                }
                tree.take(path).map(drop)
            }
            Self::Metadata(path, mode, mtime) => {
                let mut found = tree.get(path.names())?.ok_or(Refused)?.clone();
                if matches!(found, Tree::Link(..)) && mode.is_some() {
                    return Err(Refused);
                }
                let (Tree::File(_, metadata) | Tree::Link(_, metadata) | Tree::Folder(_, metadata)) =
                    &mut found;
                metadata.mode = mode.or(metadata.mode);
                metadata.mtime = mtime.or(metadata.mtime);
                if path.is_root() {
                    *tree = found;
                    return Ok(());
                }
                tree.put(path, found, Parents::There)
            }
            Self::Apply(changes) => {
                for (path, change) in changes {
                    match change {
                        None => drop(tree.take(path)),
                        Some(Some(what)) => tree.put(path, what.clone(), Parents::Made)?,
                        Some(None) => match tree.get(path.names())? {
                            Some(Tree::Folder(..)) => {}
                            Some(Tree::File(..) | Tree::Link(..)) => return Err(Refused),
                            None => tree.put(path, Tree::folder(), Parents::Made)?,
                        },
                    }
                }
                Ok(())
            }
        }
    }
}

fn put_new(
    tree: &mut Tree,
    to: &FilesPath,
    what: Tree,
    parents: Parents,
    overwrite: Overwrite,
) -> Done {
    match tree.get(to.names())? {
        Some(Tree::File(..) | Tree::Link(..)) if overwrite == Overwrite::Files => {}
        Some(_) => return Err(Refused),
        None => {}
    }
    tree.put(to, what, parents)
}

struct Run {
    seed: u64,
    random: StdRng,
    profile: Profile,
    disk: SimulatedDisk,
    image: Arc<Image>,
    store: Store,
    files: Files,
    tree: Tree,
    /// What the tree may be after a crash: as it was flushed last, and after each change since.
    perhaps: Vec<Tree>,
    /// The operation of the disk that fails.
    fails_at: Option<u64>,
    told: bool,
    /// The file that was written last: more is likely to come.
    written: FilesPath,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let profile = Profile {
            chunker: Chunker::Size(50),
            width: 3,
            fanout: 8,
            hamt_threshold: *[0, 400, 1200].choose(&mut random).unwrap(),
            hamt_measure: *[HamtMeasure::Links, HamtMeasure::Block]
                .choose(&mut random)
                .unwrap(),
            ..match random.random_bool(0.7) {
                true => Profile::v1_2025(),
                false => Profile::v0_2015(),
            }
        };
        let disk = SimulatedDisk::default();
        let image = Arc::new(Image::with_secret([1; 32]));
        let store = open(&disk, &image).unwrap();
        let files = Files::new(store.clone(), profile.clone()).unwrap();
        Self {
            seed,
            random,
            profile,
            disk,
            image,
            store,
            files,
            tree: Tree::folder(),
            perhaps: vec![Tree::folder()],
            fails_at: None,
            told: seeds(SEEDS).count() == 1,
            written: FilesPath::default(),
        }
    }

    fn path(&mut self) -> FilesPath {
        let mut path = FilesPath::default();
        for _ in 0..self.random.random_range(0..4) {
            let name = match self.random.random_bool(0.7) {
                true => NAMES.choose(&mut self.random).unwrap().to_string(),
                false => format!("entry {}", self.random.random_range(0..30)),
            };
            path = path.join(&name).unwrap();
        }
        path
    }

    /// A path at which there is something, mostly.
    fn known_path(&mut self) -> FilesPath {
        let mut path = FilesPath::default();
        let mut tree = &self.tree;
        if self.random.random_bool(0.1) {
            return self.path();
        }
        while let Tree::Folder(entries, _) = tree
            && let Some(name) = {
                let names: Vec<&String> = entries.keys().collect();
                names.choose(&mut self.random).copied()
            }
            && (path.is_root() || self.random.random_bool(0.6))
        {
            path = path.join(name).unwrap();
            tree = &entries[name];
        }
        path
    }

    fn bytes(&mut self) -> Vec<u8> {
        let most = *[0, 10, 100, 700, 2500].choose(&mut self.random).unwrap();
        let mut bytes = vec![0; self.random.random_range(0..=most)];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn some_tree(&mut self) -> Tree {
        match self.random.random_range(0..10) {
            0 => {
                let target = format!("to {}", self.random.random_range(0..5));
                return Tree::Link(target, Metadata::default());
            }
            1..=5 => return Tree::File(self.bytes(), Metadata::default()),
            _ => {}
        }
        let count = self.random.random_range(0..12);
        let entries = (0..count).map(|_| {
            let name = format!("entry {}", self.random.random_range(0..30));
            (name, Tree::File(self.bytes(), Metadata::default()))
        });
        Tree::Folder(entries.collect(), Metadata::default())
    }

    fn step(&mut self) -> Step {
        let parents = match self.random.random_bool(0.5) {
            true => Parents::Made,
            false => Parents::There,
        };
        let overwrite = match self.random.random_bool(0.5) {
            true => Overwrite::Files,
            false => Overwrite::Nothing,
        };
        match self.random.random_range(0..20) {
            0..=3 => Step::MakeFolder(self.path(), parents),
            4..=8 => Step::Write {
                path: {
                    self.written = match self.random.random_range(0..10) {
                        0..=3 => self.written.clone(),
                        4..=7 => self.known_path(),
                        _ => self.path(),
                    };
                    self.written.clone()
                },
                offset: match self.random.random_bool(0.5) {
                    true => 0,
                    false => self.random.random_range(0..3000),
                },
                data: self.bytes(),
                pieces: self.random.random_range(1..5),
                create: self.random.random_bool(0.8),
                parents,
                truncate: self.random.random_bool(0.2),
            },
            9 | 10 => Step::Copy(self.known_path(), self.path(), parents, overwrite),
            11 | 12 => Step::Add(self.some_tree(), self.path(), overwrite),
            13 | 14 => Step::Move(self.known_path(), self.path()),
            15 | 16 => {
                let how = [Remove::File, Remove::Recursive, Remove::Forced];
                Step::Remove(self.known_path(), *how.choose(&mut self.random).unwrap())
            }
            17 => {
                let mtime = Mtime {
                    seconds: self.random.random_range(-5..5),
                    nanoseconds: self.random.random_range(0..2),
                };
                let mode = self.random.random_bool(0.5).then_some(0o644);
                let mtime = self.random.random_bool(0.5).then_some(mtime);
                Step::Metadata(self.known_path(), mode, mtime)
            }
            _ => {
                let changes = (0..self.random.random_range(1..20)).map(|_| {
                    let change = match self.random.random_range(0..4) {
                        0 => None,
                        1 => Some(None),
                        _ => Some(Some(self.some_tree())),
                    };
                    let path = match self.random.random_bool(0.5) {
                        true => self.path(),
                        false => self.known_path(),
                    };
                    let root = FilesPath::default().join("a").unwrap();
                    (if path.is_root() { root } else { path }, change)
                });
                let all: Vec<(FilesPath, Option<Option<Tree>>)> = changes.collect();
                let mut changes: Vec<(FilesPath, Option<Option<Tree>>)> = Vec::new();
                for (path, change) in all {
                    // They are made together: nothing may be in the way only till a later one.
                    let is_in_the_way = changes.iter().any(|(other, what)| {
                        let is_leaf = matches!(what, Some(Some(Tree::File(..) | Tree::Link(..))));
                        other.is_within(&path) || is_leaf && path.is_within(other)
                    });
                    if !is_in_the_way {
                        changes.push((path, change));
                    }
                }
                Step::Apply(changes)
            }
        }
    }

    /// What a step does to the real one.
    async fn act(&mut self, step: &Step, flush: Flush) -> Result<(), FilesError> {
        let (files, store) = (&self.files, &self.store);
        match step {
            Step::MakeFolder(path, parents) => {
                files.make_folder(store, path, *parents, None, flush).await
            }
            Step::Write {
                path,
                offset,
                data,
                pieces,
                create,
                parents,
                truncate,
            } => {
                let options = WriteOptions {
                    offset: *offset,
                    create: *create,
                    parents: *parents,
                    truncate: *truncate,
                    flush,
                    ..WriteOptions::default()
                };
                let pieces = data.chunks(data.len().div_ceil(*pieces).max(1));
                let pieces = pieces.map(|piece| Ok::<_, String>(Bytes::copy_from_slice(piece)));
                let pieces: Vec<_> = pieces.collect();
                files
                    .write(store, path, options, stream::iter(pieces))
                    .await
            }
            Step::Copy(from, to, parents, overwrite) => {
                let from = Copy::Path(from.clone());
                files
                    .copy(store, from, to, *parents, *overwrite, flush)
                    .await
            }
            Step::Add(tree, to, overwrite) => {
                let keep = match self.random.random_bool(0.5) {
                    true => Keep::Cached,
                    false => Keep::Kept,
                };
                let mut writer = store.writer(keep);
                let (cid, _) = tree.add(&self.profile, &mut writer)?;
                let from = files.fetch(store, cid, |_| {}).await?;
                drop(writer);
                files
                    .copy(store, from, to, Parents::There, *overwrite, flush)
                    .await
            }
            Step::Move(from, to) => files.move_to(store, from, to, flush).await,
            Step::Remove(path, how) => files.remove(store, path, *how, flush).await,
            Step::Metadata(path, mode, mtime) => {
                files.set_metadata(store, path, *mode, *mtime, flush).await
            }
            Step::Apply(changes) => {
                let mut writer = store.writer(Keep::Kept);
                let changes = changes.iter().map(|(path, change)| {
                    let path = path.clone();
                    Ok(match change {
                        None => Change::Remove { path },
                        Some(None) => Change::MakeFolder { path },
                        Some(Some(tree)) => {
                            let (cid, tsize) = tree.add(&self.profile, &mut writer)?;
                            Change::Put { path, cid, tsize }
                        }
                    })
                });
                let changes = changes.collect::<Result<Vec<Change>, FilesError>>()?;
                let wholes = vec![writer.into_whole()];
                files.apply(store, changes, wholes, flush).await.map(drop)
            }
        }
    }

    async fn change(&mut self) {
        let step = self.step();
        let flush = match self.random.random_bool(0.4) {
            true => Flush::Now,
            false => Flush::Later,
        };
        if self.told {
            println!("{step:?} {flush:?}");
        }
        let mut after = self.tree.clone();
        let expected = step.change(&mut after);
        let done = Box::pin(self.act(&step, flush)).await;
        if self.told {
            println!("    {done:?}");
        }
        match (done, expected) {
            (Ok(()), Ok(())) => {
                self.tree = after;
                if flush == Flush::Now {
                    self.perhaps.clear();
                }
                self.perhaps.push(self.tree.clone());
            }
            // What refuses it is as it was; only a disk makes it different.
            (
                Err(
                    FilesError::Put(_)
                    | FilesError::Lost { .. }
                    | FilesError::Unsettled { .. }
                    | FilesError::Fetch(_)
                    | FilesError::Read(_),
                ),
                Ok(()),
            ) if self.disk.is_off() || self.is_failing() => {
                self.perhaps.push(after);
                self.heal().await;
            }
            (
                Err(FilesError::Put(_) | FilesError::Lost { .. } | FilesError::Unsettled { .. }),
                Err(Refused),
            ) if self.disk.is_off() || self.is_failing() => {
                self.heal().await;
            }
            (Err(_), Err(Refused)) => {}
            (done, expected) => {
                panic!("seed {}: {step:?}: {done:?}, not {expected:?}", self.seed)
            }
        }
    }

    fn is_failing(&self) -> bool {
        self.fails_at.is_some_and(|at| self.disk.operations() >= at)
    }

    /// After a failure the tree is what it was at some moment since the last flush.
    async fn heal(&mut self) {
        if self.disk.is_off() {
            return;
        }
        self.disk.set_faults(Faults::default());
        self.find_out().await;
    }

    /// Finds out which of the trees that may be it is.
    async fn find_out(&mut self) {
        let mut present = self.files.present(&self.store).await;
        if let Err(FilesError::Lost { .. }) = present {
            // Told once.
            present = self.files.present(&self.store).await;
        }
        let (root, _) = present.unwrap();
        let found = self
            .perhaps
            .iter()
            .rev()
            .find(|tree| tree.cid(&self.profile) == root);
        let Some(found) = found else {
            panic!("seed {}: {root} was never there", self.seed);
        };
        self.tree = found.clone();
    }

    async fn flush(&mut self) {
        let done = self.files.flush_all().await;
        if self.told {
            println!("flush: {done:?}");
        }
        match done {
            Ok(_) => self.perhaps = vec![self.tree.clone()],
            Err(_) if self.disk.is_off() || self.is_failing() => self.heal().await,
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    async fn collect(&mut self) {
        let done = self.store.gc(|_| {}).await;
        if self.told {
            println!("collect: {done:?}");
        }
        if self.is_failing() || self.disk.is_off() {
            self.heal().await;
        } else {
            done.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
    }

    /// Looks at the tree, as everybody sees it.
    async fn check(&mut self) {
        if self.disk.is_off() {
            return;
        }
        let mut present = self.files.present(&self.store).await;
        if matches!(
            present,
            Err(FilesError::Lost { .. } | FilesError::Unsettled { .. })
        ) && self.is_failing()
        {
            self.heal().await;
            present = self.files.present(&self.store).await;
        }
        let (root, view) = present.unwrap();
        let expected = self.tree.cid(&self.profile);
        assert_eq!(root, expected, "seed {}: {:?}", self.seed, self.tree);
        let path = self.known_path();
        let Ok(Some(found)) = self.tree.get(path.names()) else {
            return;
        };
        let opened = match self.random.random_bool(0.1) {
            true => self.files.open_put(&self.store, &path).await,
            false => self.files.open(&self.store, &path).await,
        };
        if opened.is_err() && (self.disk.is_off() || self.is_failing()) {
            self.heal().await;
            return;
        }
        let opened = opened.unwrap();
        match (opened.node, found) {
            (Node::File(file), Tree::File(bytes, _)) => {
                let read: Vec<Bytes> = file.read(view, 0..u64::MAX).try_collect().await.unwrap();
                assert_eq!(read.concat(), *bytes, "seed {}: {path}", self.seed);
            }
            (Node::Directory(folder), Tree::Folder(entries, _)) => {
                let listed = folder.entries(view, crate::dag::Budget::OPERATOR);
                let names = listed.map(|entry| entry.unwrap().name);
                let mut names: Vec<String> = names.collect().await;
                names.sort();
                assert!(names.iter().eq(entries.keys()), "seed {}", self.seed);
            }
            (Node::Symlink(link), Tree::Link(target, _)) => {
                assert_eq!(link.target, *target, "seed {}: {path}", self.seed);
            }
            (node, _) => panic!("seed {}: {path} is {node:?}", self.seed),
        }
    }

    /// The program or the machine stops at once, and comes back.
    async fn crash(&mut self) {
        if self.disk.is_off() || self.random.random_bool(0.5) {
            if self.told {
                println!("power cut");
            }
            self.disk = self.disk.after_power_cut(&mut self.random);
            self.image = Arc::new(self.image.copied());
        } else if self.told {
            println!("killed");
        }
        self.disk.set_faults(Faults::default());
        self.fails_at = None;
        // What it had in memory goes with it.
        let store = open(&self.disk, &self.image);
        self.store = store.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        self.files = Files::new(self.store.clone(), self.profile.clone()).unwrap();
        self.find_out().await;
        self.perhaps = vec![self.tree.clone()];
        if let Some(root) = self.store.files_root() {
            let wish = PinWish::new(root, PinMode::Recursive);
            let whole = self
                .store
                .pin_fetch(self.store.clone(), &wish, |_| {})
                .await;
            assert!(whole.is_ok(), "seed {}: {whole:?}", self.seed);
        }
    }

    async fn run(mut self) {
        for _ in 0..ROUNDS {
            let soon = self.random.random_range(0..80);
            let faults = match self.random.random_range(0..10) {
                0..=2 => Faults {
                    power_off: Some(soon),
                    ..Faults::default()
                },
                3 => Faults {
                    fails: Some((soon, ErrorKind::StorageFull)),
                    ..Faults::default()
                },
                4 => Faults {
                    fails: Some((soon, ErrorKind::Other)),
                    ..Faults::default()
                },
                _ => Faults::default(),
            };
            self.disk.set_faults(faults);
            let done = self.disk.operations();
            self.fails_at = faults.fails.map(|(at, _)| at + done);
            if self.told {
                println!("{faults:?}");
            }
            for _ in 0..self.random.random_range(1..30) {
                match self.random.random_range(0..30) {
                    0 => self.flush().await,
                    1 => self.collect().await,
                    _ => self.change().await,
                }
                self.check().await;
                if self.disk.is_off() {
                    break;
                }
            }
            self.crash().await;
            self.check().await;
        }
    }
}

fn open(disk: &SimulatedDisk, image: &Arc<Image>) -> Result<Store, crate::store::OpenError> {
    let config = Config {
        segment_size: ByteSize(16 << 10),
        cache_max: ByteSize(16 << 10),
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let ground = Ground::simulated(disk, image);
    Store::open_on(ground, &config, &mut |_| {})
}

#[test]
fn the_tree_is_what_a_tree_in_memory_would_be_and_loses_nothing_that_was_flushed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for seed in seeds(SEEDS) {
        let run = std::panic::catch_unwind(|| runtime.block_on(Run::new(seed).run()));
        if let Err(panic) = run {
            println!("replay with CAIRN_FIRST_SEED={seed} CAIRN_SEEDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Seeds in every run of the tests.
const SEEDS: u64 = 120;
/// Crashes in each of them.
const ROUNDS: usize = 4;
const NAMES: [&str; 5] = ["a", "b", "c", "deep", "a longer name than the others"];
