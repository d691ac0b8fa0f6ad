//! A plan, applied: every folder that changes is written once, from the lowest up to the root.
//!
//! A plain folder is written anew; of a HAMT only the shards that change are ([`super::shard`]). What comes out is
//! what writing all entries anew would give ([`directory::write`]), as long as what was there came out so.

use super::FilesError;
use super::plan::{Becomes, Link, Naming, Plan};
use super::shard::{self, Entries};
use super::view::View;
use crate::block::Block;
use crate::cid::{Cid, HashKind};
use crate::dag::Budget;
use crate::source::BlockSource;
use crate::unixfs::Profile;
use crate::unixfs::directory::{self, Outbox, Row};
use crate::unixfs::hamt::Shard;
use crate::unixfs::import::Metadata;
use crate::unixfs::read::{self, Directory, Node};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use quick_cache::sync::Cache;
use std::collections::BTreeMap;

/// How large HAMTs are at least, as the profile measures them: asked for before one may be plain again.
pub(super) type Weights = Cache<Cid, usize>;

/// One plan being applied.
pub(super) struct Editor<'a, S> {
    pub(super) view: &'a View<S>,
    pub(super) profile: &'a Profile,
    pub(super) weights: &'a Weights,
    /// What was written.
    pub(super) out: Vec<Block>,
}

impl<S: BlockSource + Clone + 'static> Editor<'_, S> {
    /// The folder at `path` after the plan, and before it `base`, or nothing.
    pub(super) fn folder<'b>(
        &'b mut self,
        path: String,
        base: Option<Link>,
        plan: Plan,
        above: Naming,
    ) -> BoxFuture<'b, Result<Link, FilesError>> {
        async move {
            let folder = match base {
                Some(link) => Some(open(self.view, &path, &link.cid).await?),
                None => None,
            };
            let here = base.map_or(above, |base| Naming::of(&base.cid, above));
            let naming = plan.naming.unwrap_or(here);
            // Each name is a way down; of many, it is quicker to look at all that is there.
            let known = match &folder {
                Some(folder) if plan.below.len() > LOOKED_UP_MAX => {
                    Some(all(self.view, folder).await?)
                }
                _ => None,
            };
            let mut edits = Vec::new();
            for (name, plan) in plan.below {
                if plan.is_idle() && plan.becomes == Becomes::Same {
                    continue;
                }
                let old = match (&known, &folder) {
                    (Some(known), _) => known.get(&name).copied(),
                    (None, Some(folder)) => {
                        let found = folder.find(self.view, &name).await?;
                        found.map(|entry| Link {
                            cid: entry.cid,
                            tsize: entry.tsize,
                        })
                    }
                    (None, None) => None,
                };
                let path = format!("{path}/{name}");
                let new = self.entry(path, old, plan, naming).await?;
                if new != old {
                    edits.push(Edit { name, old, new });
                }
            }
            let is_same = edits.is_empty() && plan.metadata.is_none() && naming == here;
            match (base, folder) {
                (Some(base), Some(_)) if is_same => Ok(base),
                (Some(_), Some(folder)) => {
                    let metadata = plan.metadata.unwrap_or_else(|| Metadata {
                        mode: folder.mode(),
                        mtime: folder.mtime(),
                    });
                    let profile = self.profile_of(naming);
                    if naming == here && folder.shard().is_some() {
                        self.sharded(&profile, &folder, metadata, edits).await
                    } else {
                        let rows = all(self.view, &folder).await?;
                        self.whole(&profile, metadata, rows, edits)
                    }
                }
                _ => {
                    let metadata = plan.metadata.unwrap_or_default();
                    self.whole(&self.profile_of(naming), metadata, BTreeMap::new(), edits)
                }
            }
        }
        .boxed()
    }

    /// What is at a path after the plan, and before it `old`.
    async fn entry(
        &mut self,
        path: String,
        old: Option<Link>,
        plan: Plan,
        above: Naming,
    ) -> Result<Option<Link>, FilesError> {
        let is_leaf = plan.below.values().all(Plan::is_idle)
            && plan.metadata.is_none()
            && plan.naming.is_none();
        let base = match plan.becomes {
            Becomes::Same => old,
            Becomes::Gone if is_leaf => return Ok(None),
            Becomes::Link(link) if is_leaf => return Ok(Some(link)),
            Becomes::Link(link) => Some(link),
            Becomes::Folder => old,
            Becomes::Gone if plan.only_removes() => return Ok(None),
            Becomes::Gone | Becomes::Empty => None,
        };
        // What is to go where there is nothing is gone already.
        if matches!(plan.becomes, Becomes::Same | Becomes::Link(_)) && plan.only_removes() {
            let is_folder = match base {
                Some(link) => matches!(read::open(self.view, &link.cid).await?, Node::Directory(_)),
                None => false,
            };
            if !is_folder {
                return Ok(base);
            }
        }
        self.folder(path, base, plan, above).await.map(Some)
    }

    fn profile_of(&self, naming: Naming) -> Profile {
        Profile {
            version: naming.version,
            hash: naming.hash,
            ..self.profile.clone()
        }
    }

    /// Writes a folder anew.
    fn whole(
        &mut self,
        profile: &Profile,
        metadata: Metadata,
        mut rows: BTreeMap<String, Link>,
        edits: Vec<Edit>,
    ) -> Result<Link, FilesError> {
        for edit in edits {
            match edit.new {
                Some(link) => rows.insert(edit.name, link),
                None => rows.remove(&edit.name),
            };
        }
        let cids: Vec<Vec<u8>> = rows.values().map(|link| link.cid.to_bytes()).collect();
        let rows: Vec<Row<'_>> = rows
            .iter()
            .zip(&cids)
            .map(|((name, link), cid)| Row {
                name,
                cid,
                tsize: link.tsize,
            })
            .collect();
        let mut sink = Collected(&mut self.out);
        let mut out = Outbox::new(&mut sink);
        let written = directory::write(profile, metadata, &rows, &mut out)?;
        out.flush()?;
        let weight = directory::weight_beside(profile, metadata)
            + rows.iter().map(|row| row.weight(profile)).sum::<usize>();
        if weight > profile.hamt_threshold {
            self.weights.insert(written.cid, weight);
        }
        Ok(Link {
            cid: written.cid,
            tsize: written.tsize,
        })
    }

    /// Writes those shards of a folder that change, or a plain folder if it is small enough now.
    async fn sharded(
        &mut self,
        profile: &Profile,
        folder: &Directory,
        metadata: Metadata,
        edits: Vec<Edit>,
    ) -> Result<Link, FilesError> {
        let Some(root) = folder.shard() else {
            let rows = all(self.view, folder).await?;
            return self.whole(profile, metadata, rows, edits);
        };
        let weight = |edit: &Edit, link: Option<Link>| {
            link.map_or(0, |link| weight_of(profile, &edit.name, &link))
        };
        let goes: usize = edits.iter().map(|edit| weight(edit, edit.old)).sum();
        let comes: usize = edits.iter().map(|edit| weight(edit, edit.new)).sum();
        let mut known = self.weights.get(folder.cid());
        let enough = |known: usize| known.saturating_sub(goes) + comes > profile.hamt_threshold;
        if goes > 0 && !known.is_some_and(enough) {
            // Seen once, it is enough for many changes to come.
            let stop = 2 * profile.hamt_threshold + goes;
            let beside = directory::weight_beside(profile, metadata);
            let seen = beside + measure(self.view, root, profile, stop).await?;
            if !enough(seen) {
                let rows = all(self.view, folder).await?;
                return self.whole(profile, metadata, rows, edits);
            }
            known = Some(seen);
        }
        let entries: Entries = edits
            .into_iter()
            .map(|edit| (edit.name, edit.new))
            .collect();
        let written =
            shard::root(self.view, profile, root, metadata, entries, &mut self.out).await?;
        if let Some(known) = known {
            let weight = known.saturating_sub(goes) + comes;
            self.weights.insert(written.cid, weight);
        }
        Ok(written)
    }
}

/// A name that leads elsewhere from now on.
struct Edit {
    name: String,
    old: Option<Link>,
    new: Option<Link>,
}

/// Blocks that are collected.
struct Collected<'a>(&'a mut Vec<Block>);

impl crate::sink::BlockSink for Collected<'_> {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), crate::sink::PutError> {
        self.0.extend(blocks);
        Ok(())
    }
}

impl Naming {
    /// How what has this CID is named; what cannot be written so is named as what is above it.
    pub(super) fn of(cid: &Cid, above: Self) -> Self {
        match HashKind::from_code(cid.hash().code()) {
            Some(hash) if hash.digest_bytes().is_some() => Self {
                version: cid.version(),
                hash,
            },
            _ => above,
        }
    }
}

/// Opens what must be a folder.
pub(super) async fn open<S: BlockSource>(
    view: &View<S>,
    path: &str,
    cid: &Cid,
) -> Result<Directory, FilesError> {
    match read::open(view, cid).await? {
        Node::Directory(folder) => Ok(folder),
        Node::File(_) | Node::Symlink(_) => Err(FilesError::NotFolder {
            path: path.to_owned(),
        }),
    }
}

/// All entries of a folder; of those that have one name the first.
async fn all<S: BlockSource + Clone + 'static>(
    view: &View<S>,
    folder: &Directory,
) -> Result<BTreeMap<String, Link>, FilesError> {
    let budget = Budget {
        entries: ENTRIES_MAX,
        ..Budget::OPERATOR
    };
    let mut rows = BTreeMap::new();
    let mut entries = std::pin::pin!(folder.entries(view.clone(), budget));
    while let Some(entry) = entries.try_next().await? {
        rows.entry(entry.name).or_insert(Link {
            cid: entry.cid,
            tsize: entry.tsize,
        });
    }
    Ok(rows)
}

fn weight_of(profile: &Profile, name: &str, link: &Link) -> usize {
    let cid = link.cid.to_bytes();
    let row = Row {
        name,
        cid: &cid,
        tsize: link.tsize,
    };
    row.weight(profile)
}

/// How much the entries of a HAMT weigh, level by level; no more is read once it is more than `stop`.
async fn measure<S: BlockSource>(
    view: &View<S>,
    root: &Shard,
    profile: &Profile,
    stop: usize,
) -> Result<usize, FilesError> {
    let mut seen = 0_usize;
    let mut left = std::collections::VecDeque::new();
    let mut look = |shard: &Shard, left: &mut std::collections::VecDeque<Cid>| {
        for slot in &shard.slots {
            let link = Link {
                cid: slot.cid,
                tsize: slot.tsize,
            };
            match &slot.name {
                Some(name) => seen += weight_of(profile, name, &link),
                None => left.push_back(slot.cid),
            }
        }
        seen
    };
    let mut total = look(root, &mut left);
    let mut shards = 0_u64;
    while total <= stop
        && let Some(cid) = left.pop_front()
    {
        // Shards that hold nothing are no way to make this long.
        shards += 1;
        if shards > ENTRIES_MAX {
            break;
        }
        let (shard, _) = read::folder::read_shard(view, cid, root.fanout).await?;
        total = look(&shard, &mut left);
    }
    Ok(total)
}

/// Most names that are looked up one by one.
const LOOKED_UP_MAX: usize = 256;
/// Most entries of a folder that is written anew.
const ENTRIES_MAX: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::{self, Version};
    use crate::unixfs::HamtMeasure;
    use crate::unixfs::directory::Builder;
    use crate::unixfs::read::Entry;
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use std::collections::HashMap;
    use std::sync::Arc;

    #[test]
    fn a_large_folder_that_was_changed_is_what_writing_it_anew_gives() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for seed in 0..12 {
            runtime.block_on(change_and_compare(seed));
        }
    }

    async fn change_and_compare(seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let profile = Profile {
            fanout: *[8, 16, 256].choose(&mut random).unwrap(),
            hamt_threshold: *[0, 4_000, 12_000].choose(&mut random).unwrap(),
            hamt_measure: *[HamtMeasure::Links, HamtMeasure::Block]
                .choose(&mut random)
                .unwrap(),
            ..Profile::v1_2025()
        };
        let weights = Weights::new(4);
        let naming = Naming {
            version: Version::V1,
            hash: HashKind::Sha2_256,
        };
        let child = cid::parse("bafkqaaa").unwrap();
        let mut blocks: HashMap<Cid, Block> = HashMap::new();
        let mut anew = Builder::default();
        let mut folder = None;
        let (mut sharded, mut plain) = (0, 0);
        for round in 0..24 {
            let mut plan = Plan::default();
            // It grows at first and shrinks in the end.
            let grows = if round < 12 { 0.8 } else { 0.1 };
            let few = *[1, 3, 100].choose(&mut random).unwrap();
            for _ in 0..if round % 3 == 0 { few } else { 500 } {
                let name = format!("entry {}", random.random_range(0..1500));
                let path = crate::files::FilesPath::parse(&format!("/{name}")).unwrap();
                if random.random_bool(grows) {
                    let tsize = *[0, 200, 1 << 40].choose(&mut random).unwrap();
                    plan.put(&path, Link { cid: child, tsize });
                    let cid = child;
                    anew.insert(Entry { name, cid, tsize });
                } else {
                    plan.remove(&path);
                    anew.remove(&name);
                }
            }
            let view = View::over(Arc::new(blocks.clone()));
            let mut editor = Editor {
                view: &view,
                profile: &profile,
                weights: &weights,
                out: Vec::new(),
            };
            let changed = editor.folder(String::new(), folder, plan, naming).await;
            let changed = changed.unwrap();
            let out = std::mem::take(&mut editor.out);
            blocks.extend(out.into_iter().map(|block| (*block.cid(), block)));
            let mut whole: HashMap<Cid, Block> = HashMap::new();
            let written = anew.write(&profile, &mut whole).unwrap();
            assert_eq!(
                (changed.cid, changed.tsize),
                (written.cid, written.tsize),
                "seed {seed}, round {round}, {} entries",
                anew.len()
            );
            match whole.len() {
                1 => plain += 1,
                _ => sharded += 1,
            }
            folder = Some(changed);
        }
        let has_both = profile.hamt_threshold == 0 || (sharded > 0 && plain > 0);
        assert!(
            has_both,
            "seed {seed} crosses the threshold: {sharded}, {plain}"
        );
    }

    /// Counts what is asked of it.
    #[derive(Clone)]
    struct Counting(Arc<HashMap<Cid, Block>>, Arc<std::sync::atomic::AtomicU64>);

    impl BlockSource for Counting {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, crate::SourceError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.block(cid).await
        }

        fn admits(&self, cid: &Cid) -> Result<(), crate::SourceError> {
            self.0.admits(cid)
        }
    }

    #[test]
    fn of_a_large_folder_only_the_way_to_what_changes_is_read_and_written() {
        let profile = Profile::v1_2025();
        let child = cid::parse("bafkqaaa").unwrap();
        let mut builder = Builder::default();
        for at in 0..20_000 {
            builder.insert(Entry {
                name: format!("entry {at}"),
                cid: child,
                tsize: 0,
            });
        }
        let mut blocks: HashMap<Cid, Block> = HashMap::new();
        let written = builder.write(&profile, &mut blocks).unwrap();
        let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let view = View::over(Counting(Arc::new(blocks), Arc::clone(&count)));
        let weights = Weights::new(4);
        let naming = Naming {
            version: Version::V1,
            hash: HashKind::Sha2_256,
        };
        let mut folder = Link {
            cid: written.cid,
            tsize: written.tsize,
        };
        let mut overlay = crate::files::view::Overlay::new();
        for at in 0..20 {
            let mut plan = Plan::default();
            let parse = |text: String| crate::files::FilesPath::parse(&text).unwrap();
            plan.remove(&parse(format!("/entry {at}")));
            let tsize = 7;
            plan.put(&parse(format!("/moved {at}")), Link { cid: child, tsize });
            let view = View {
                overlay: Arc::new(overlay.clone()),
                source: view.source.clone(),
            };
            let before = count.load(std::sync::atomic::Ordering::Relaxed);
            let mut editor = Editor {
                view: &view,
                profile: &profile,
                weights: &weights,
                out: Vec::new(),
            };
            let changed = editor.folder(String::new(), Some(folder), plan, naming);
            folder = futures::executor::block_on(changed).unwrap();
            let out = std::mem::take(&mut editor.out);
            assert!(out.len() <= 8, "{} blocks were written", out.len());
            overlay.extend(out.into_iter().map(|block| (*block.cid(), block)));
            let read = count.load(std::sync::atomic::Ordering::Relaxed) - before;
            // The first time it is found out that it stays large.
            assert!(at == 0 || read <= 16, "{read} blocks were read");
        }
    }
}
