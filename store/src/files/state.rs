//! The present tree, and how another takes its place.

use super::draft::Draft;
use super::edit::{self, Editor, Weights};
use super::plan::{Link, Naming, Plan};
use super::view::{Overlay, View};
use super::{FilesError, FilesPath};
use crate::block::Block;
use crate::cid::Cid;
use crate::dag;
use crate::pin::Whole;
use crate::sink::PutError;
use crate::source::BlockSource;
use crate::store::{Committed, Hold, Keep, Store, blocking};
use crate::sync::PlainMutex;
use crate::unixfs::Profile;
use crate::unixfs::directory::{self, Outbox};
use crate::unixfs::import::Metadata;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The file tree of a store. Cheap to clone; all clones are one tree. There should be one for each store: what
/// another one has not flushed is not seen.
#[derive(Clone)]
pub struct Files {
    pub(super) shared: Arc<Shared>,
}

/// When a change is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before the answer: it is durable then.
    Now,
    /// With a later one. Everybody sees it at once, and a crash may lose it.
    Later,
}

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) profile: Profile,
    /// Whoever has it changes the tree.
    pending: Arc<Mutex<Pending>>,
    /// The tree as everybody sees it.
    seen: PlainMutex<Snapshot>,
    /// Files that are being written, so that two who write one do so one after the other.
    writing: PlainMutex<HashMap<FilesPath, Weak<Mutex<()>>>>,
    weights: Weights,
}

/// What waits for the next flush, beside the blocks.
#[derive(Default)]
pub(super) struct Pending {
    operations: usize,
    /// How many of them are in the draft alone.
    drafted: usize,
    /// What is in the store already, for the tree.
    hold: Option<Arc<Hold>>,
    wholes: Vec<Whole>,
    /// A file that grows. Its last state is not in the tree yet, but for everybody but the next who writes it it is
    /// put there first.
    pub(super) draft: Option<(FilesPath, Draft)>,
}

/// A tree.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) root: Cid,
    overlay: Arc<Overlay>,
    overlay_bytes: usize,
    /// The root in the journal that it comes from.
    base: Option<Cid>,
    /// Whether a draft is newer.
    drafted: bool,
    /// The store's count of losses when the first block was put that is only for this tree: it is whole as long as
    /// that stays.
    losses: Option<u64>,
}

impl fmt::Debug for Files {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Files {
    /// The file tree of `store`; new files and folders are made as `profile` says.
    pub fn new(store: Store, profile: Profile) -> Result<Self, FilesError> {
        let seen = Snapshot::of(&store, &profile)?;
        let shared = Shared {
            store,
            profile,
            pending: Arc::default(),
            seen: PlainMutex::new(seen),
            writing: PlainMutex::default(),
            weights: Weights::new(WEIGHTS_MAX),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The profile that new files and folders are made by.
    pub fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// The tree as it is now.
    pub(super) async fn present<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
    ) -> Result<(Cid, View<S>), FilesError> {
        let seen = self.shared.seen();
        let is_past =
            seen.drafted || seen.base != self.shared.noted()? || seen.has_lost(&self.shared.store);
        let snapshot = match is_past {
            true => self.begin(source).await?.snapshot,
            false => seen,
        };
        Ok((snapshot.root, snapshot.view(source)))
    }

    /// Whether everybody sees what is in the journal.
    pub(super) fn is_flushed(&self) -> Result<bool, FilesError> {
        let seen = self.shared.seen();
        Ok(!seen.drafted && self.shared.is_untouched(&seen)?)
    }

    /// Begins a change; nobody else changes the tree until it is over.
    pub(super) async fn begin<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
    ) -> Result<Work<S>, FilesError> {
        let mut work = self.begin_drafted(source).await?;
        work.settle().await?;
        Ok(work)
    }

    /// The same, with a file that grows left as it is.
    pub(super) async fn begin_drafted<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
    ) -> Result<Work<S>, FilesError> {
        let mut pending = Arc::clone(&self.shared.pending).lock_owned().await;
        let mut snapshot = self.shared.seen();
        let gone = if snapshot.base != self.shared.noted()? {
            Some(REPLACED.into())
        } else if snapshot.has_lost(&self.shared.store) {
            let why = PutError::Disk("something written before was given up".to_owned());
            Some(why.to_string().into())
        } else {
            None
        };
        if let Some(why) = gone {
            let operations = std::mem::take(&mut *pending).operations;
            snapshot = Snapshot::of(&self.shared.store, &self.shared.profile)?;
            self.shared.show(snapshot.clone());
            if operations > 0 {
                return Err(FilesError::Lost { why, operations });
            }
        }
        Ok(Work {
            view: snapshot.view(source),
            shared: Arc::clone(&self.shared),
            pending,
            snapshot,
        })
    }

    /// Waits until nobody else writes this file.
    pub(super) async fn alone(&self, path: &FilesPath) -> OwnedMutexGuard<()> {
        let turn = {
            let mut writing = self
                .shared
                .writing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            writing.retain(|_, turn| turn.strong_count() > 0);
            let known = writing.get(path).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                writing.insert(path.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Makes all changes durable; gives the root.
    pub async fn flush_all(&self) -> Result<Cid, FilesError> {
        let source = self.shared.store.clone();
        let work = self.begin(&source).await?;
        work.done(Flush::Now).await
    }
}

impl Shared {
    fn seen(&self) -> Snapshot {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    fn show(&self, snapshot: Snapshot) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    fn noted(&self) -> Result<Option<Cid>, FilesError> {
        Ok(self.store.inner.files_root()?)
    }

    /// Writes what the tree has that is not in the store, and its root, in one commit.
    fn commit(
        &self,
        mut pending: OwnedMutexGuard<Pending>,
        snapshot: Snapshot,
    ) -> Result<Cid, FilesError> {
        let root = snapshot.root;
        if self.is_untouched(&snapshot)? {
            *pending = Pending::default();
            self.show(Snapshot::of(&self.store, &self.profile)?);
            return Ok(root);
        }
        let inner = &self.store.inner;
        let hold = pending.hold.take().unwrap_or_else(|| inner.hold());
        let losses = snapshot.losses.unwrap_or(hold.losses);
        let made = inner
            .put(&snapshot.reached(), Keep::Kept, &hold)
            .and_then(|()| inner.commit_files_root_after(snapshot.base, root, losses));
        let operations = pending.operations;
        *pending = Pending::default();
        if let Ok(Committed::Yes) = made {
            self.show(Snapshot {
                root,
                overlay: Arc::default(),
                overlay_bytes: 0,
                base: Some(root),
                drafted: false,
                losses: None,
            });
            return Ok(root);
        }
        // What was put for it may be gone, so the tree is the last that is whole.
        self.show(Snapshot::of(&self.store, &self.profile)?);
        Err(match (made, operations) {
            (Ok(_), 0) => FilesError::Changed {
                path: FilesPath::default().to_string(),
            },
            (Err(why), 0) => why.into(),
            (made, operations) => FilesError::Lost {
                why: made.map_or_else(|why| why.to_string().into(), |_| REPLACED.into()),
                operations,
            },
        })
    }

    /// Whether a tree is the one in the journal that it comes from.
    fn is_untouched(&self, snapshot: &Snapshot) -> Result<bool, FilesError> {
        Ok(match snapshot.base {
            Some(base) => base == snapshot.root,
            None => snapshot.root == Snapshot::of(&self.store, &self.profile)?.root,
        })
    }
}

impl Snapshot {
    /// The tree in the journal.
    fn of(store: &Store, profile: &Profile) -> Result<Self, FilesError> {
        let base = store.inner.files_root()?;
        let mut overlay = Overlay::new();
        let root = match base {
            Some(root) => root,
            None => {
                let mut out = Outbox::new(&mut overlay);
                let written = directory::write(profile, Metadata::default(), &[], &mut out)?;
                out.flush()?;
                written.cid
            }
        };
        Ok(Self {
            root,
            overlay_bytes: overlay.values().map(|block| block.data().len()).sum(),
            overlay: Arc::new(overlay),
            base,
            drafted: false,
            losses: None,
        })
    }

    fn view<S: Clone>(&self, source: &S) -> View<S> {
        View {
            overlay: Arc::clone(&self.overlay),
            source: source.clone(),
        }
    }

    /// Whether something that was put for it has been given up.
    fn has_lost(&self, store: &Store) -> bool {
        self.losses
            .is_some_and(|losses| losses != store.inner.losses())
    }

    fn depends_on(&mut self, losses: u64) {
        self.losses = Some(self.losses.map_or(losses, |before| before.min(losses)));
    }

    /// The blocks in memory that the root reaches.
    fn reached(&self) -> Vec<Block> {
        self.reached_from(self.root)
    }

    fn reached_from(&self, top: Cid) -> Vec<Block> {
        let mut seen = HashSet::new();
        let mut reached = Vec::new();
        let mut todo = vec![top];
        while let Some(cid) = todo.pop() {
            let Some(block) = self.overlay.get(&cid) else {
                continue;
            };
            if seen.insert(cid) {
                // All of them were made here.
                let links = dag::links(block).unwrap_or_default();
                todo.extend(links.into_iter().map(|link| link.cid));
                reached.push(block.clone());
            }
        }
        reached
    }
}

/// A change under way.
pub(super) struct Work<S> {
    shared: Arc<Shared>,
    pub(super) pending: OwnedMutexGuard<Pending>,
    pub(super) snapshot: Snapshot,
    pub(super) view: View<S>,
}

impl<S: BlockSource + Clone + 'static> Work<S> {
    pub(super) fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// How new things at the root are named.
    pub(super) fn naming(&self) -> Naming {
        let profile = &self.shared.profile;
        let naming = Naming {
            version: profile.version,
            hash: profile.hash,
        };
        Naming::of(&self.snapshot.root, naming)
    }

    /// What is at a path, and how new things beside it are named.
    pub(super) async fn find(
        &self,
        path: &FilesPath,
    ) -> Result<(Option<Link>, Naming), FilesError> {
        find(&self.view, &self.snapshot.root, path, self.naming()).await
    }

    /// Puts a file that grows into the tree. It goes on waiting if nobody waits for the end, or if that fails in a way
    /// that may pass; else it is lost, so that it does not keep everybody from the tree.
    pub(super) async fn settle(&mut self) -> Result<(), FilesError> {
        let Some((path, draft)) = &mut self.pending.draft else {
            return Ok(());
        };
        let path = path.clone();
        let finished = draft.finish(&self.view).await;
        let settled = match finished {
            Ok((link, blocks)) => {
                self.add(blocks);
                let mut plan = Plan::default();
                plan.put(&path, link);
                self.apply(plan).await
            }
            Err(why) => Err(why),
        };
        if let Err(why) = settled {
            return Err(match why.may_pass() {
                true => FilesError::Unsettled {
                    path: path.to_string(),
                    why: Box::new(why),
                },
                false => self.lose_draft(&path, why),
            });
        }
        self.pending.draft = None;
        self.pending.drafted = 0;
        self.snapshot.drafted = false;
        self.shared.show(self.snapshot.clone());
        Ok(())
    }

    /// Gives up what was written to a file and waits; gives what is to be told of it. This change ends with that.
    pub(super) fn lose_draft(&mut self, path: &FilesPath, why: FilesError) -> FilesError {
        self.pending.draft = None;
        let operations = std::mem::take(&mut self.pending.drafted);
        self.pending.operations = self.pending.operations.saturating_sub(operations);
        let mut seen = self.shared.seen();
        seen.drafted = false;
        self.shared.show(seen);
        let unsettled = FilesError::Unsettled {
            path: path.to_string(),
            why: Box::new(why),
        };
        FilesError::Lost {
            why: unsettled.to_string().into(),
            operations,
        }
    }

    /// Puts all of what has this CID into the store, so that others can be told of it before it is flushed.
    pub(super) async fn put_below(&mut self, top: Cid) -> Result<(), FilesError> {
        let blocks = self.snapshot.reached_from(top);
        if blocks.is_empty() || self.shared.is_untouched(&self.snapshot)? {
            return Ok(());
        }
        let cids: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
        self.put(blocks).await?;
        // They are held till the next flush, and whatever they reach is in the store as well.
        let overlay = Arc::make_mut(&mut self.snapshot.overlay);
        for cid in cids {
            if let Some(block) = overlay.remove(&cid) {
                self.snapshot.overlay_bytes -= block.data().len();
            }
        }
        self.view.overlay = Arc::clone(&self.snapshot.overlay);
        self.shared.show(self.snapshot.clone());
        Ok(())
    }

    /// Takes blocks into memory.
    pub(super) fn add(&mut self, blocks: Vec<Block>) {
        if blocks.is_empty() {
            return;
        }
        let overlay = Arc::make_mut(&mut self.snapshot.overlay);
        for block in blocks {
            let bytes = block.data().len();
            if overlay.insert(*block.cid(), block).is_none() {
                self.snapshot.overlay_bytes += bytes;
            }
        }
        self.view.overlay = Arc::clone(&self.snapshot.overlay);
    }

    /// Changes the tree, for nobody to see yet.
    pub(super) async fn apply(&mut self, plan: Plan) -> Result<(), FilesError> {
        let root = Link {
            cid: self.snapshot.root,
            tsize: 0,
        };
        let naming = self.naming();
        let shared = Arc::clone(&self.shared);
        let mut editor = Editor {
            view: &self.view,
            profile: &shared.profile,
            weights: &shared.weights,
            out: Vec::new(),
        };
        let changed = editor
            .folder(String::new(), Some(root), plan, naming)
            .await?;
        let blocks = editor.out;
        self.add(blocks);
        self.snapshot.root = changed.cid;
        Ok(())
    }

    /// Puts blocks of a file into the store at once, because they are many; nobody collects them till the next flush.
    pub(super) async fn put(&mut self, blocks: Vec<Block>) -> Result<(), FilesError> {
        let inner = &self.shared.store.inner;
        if blocks.is_empty() {
            return Ok(());
        }
        let hold = self.pending.hold.get_or_insert_with(|| inner.hold());
        let (hold, losses) = (Arc::clone(hold), hold.losses);
        put(&self.shared.store, hold, blocks).await?;
        self.snapshot.depends_on(losses);
        // Also if this change comes to nothing: a draft may have them already.
        let mut seen = self.shared.seen();
        seen.depends_on(losses);
        self.shared.show(seen);
        Ok(())
    }

    /// Nobody collects this till the next flush.
    pub(super) fn keep(&mut self, wholes: impl IntoIterator<Item = Whole>) {
        for whole in wholes {
            self.snapshot.depends_on(whole.losses());
            self.pending.wholes.push(whole);
        }
    }

    /// What is changed is what everybody sees from now on; gives the root. If it is flushed that happens even if
    /// nobody waits for it any more.
    pub(super) async fn done(mut self, flush: Flush) -> Result<Cid, FilesError> {
        if flush == Flush::Later && !self.is_full() {
            let Self {
                shared, snapshot, ..
            } = self;
            let root = snapshot.root;
            shared.show(snapshot);
            return Ok(root);
        }
        let Self {
            shared,
            pending,
            snapshot,
            ..
        } = self;
        let commit = move || shared.commit(pending, snapshot);
        let done = blocking(commit).await;
        done.unwrap_or_else(|| Err(PutError::Closing.into()))
    }

    /// A file grows on, unless enough waits.
    pub(super) async fn done_drafted(
        mut self,
        path: FilesPath,
        draft: Draft,
    ) -> Result<(), FilesError> {
        let bytes = draft.bytes();
        self.pending.draft = Some((path, draft));
        self.pending.drafted += 1;
        self.snapshot.drafted = true;
        self.snapshot.overlay_bytes += bytes;
        let is_full = self.is_full();
        self.snapshot.overlay_bytes -= bytes;
        self.shared.show(self.snapshot.clone());
        if is_full {
            self.settle().await?;
            return self.done(Flush::Now).await.map(drop);
        }
        Ok(())
    }

    /// Counts a change that is not flushed, and tells whether that is enough.
    fn is_full(&mut self) -> bool {
        self.pending.operations += 1;
        self.pending.operations >= OPERATIONS_MAX || self.snapshot.overlay_bytes >= BYTES_MAX
    }
}

/// Puts blocks that `hold` holds from then on.
pub(super) async fn put(
    store: &Store,
    hold: Arc<Hold>,
    blocks: Vec<Block>,
) -> Result<(), FilesError> {
    if blocks.is_empty() {
        return Ok(());
    }
    let inner = Arc::clone(&store.inner);
    let put = blocking(move || inner.put_unless_in_place(&blocks, &hold)).await;
    Ok(put.unwrap_or(Err(PutError::Closing))?)
}

/// What is at a path below a root, and how new things beside it are named.
pub(super) async fn find<S: BlockSource>(
    view: &View<S>,
    root: &Cid,
    path: &FilesPath,
    naming: Naming,
) -> Result<(Option<Link>, Naming), FilesError> {
    let mut found = Link {
        cid: *root,
        tsize: 0,
    };
    let mut naming = Naming::of(root, naming);
    let mut so_far = FilesPath::default();
    for name in path.names() {
        let folder = edit::open(view, &so_far.to_string(), &found.cid).await?;
        naming = Naming::of(&found.cid, naming);
        let Some(entry) = folder.find(view, name).await? else {
            return Ok((None, naming));
        };
        so_far = so_far.join(name)?;
        found = Link {
            cid: entry.cid,
            tsize: entry.tsize,
        };
    }
    Ok((Some(found), naming))
}

/// Most changes that wait to be flushed: as many as Kubo takes, which then refuses more.
pub const OPERATIONS_MAX: usize = 256;
/// Most bytes that wait to be flushed.
pub const BYTES_MAX: usize = 64 << 20;
/// Why changes that were made from one tree are not in another.
const REPLACED: &str = "the file tree was replaced by another one meanwhile";
/// HAMTs of which it is remembered how large they are at least.
const WEIGHTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::files::Parents;

    fn path(text: &str) -> FilesPath {
        FilesPath::parse(text).unwrap()
    }

    fn opened(folder: &std::path::Path) -> (Store, [Files; 2]) {
        let store = Store::open(folder, &Config::default(), &mut |_| {}).unwrap();
        let files = || Files::new(store.clone(), Profile::v1_2025()).unwrap();
        let both = [files(), files()];
        (store, both)
    }

    async fn make(files: &Files, store: &Store, text: &str, flush: Flush) {
        let path = path(text);
        let made = files.make_folder(store, &path, Parents::There, None, flush);
        made.await.unwrap();
    }

    #[tokio::test]
    async fn a_tree_that_others_replaced_meanwhile_is_not_replaced_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [one, other]) = opened(folder.path());
        make(&one, &store, "/first", Flush::Now).await;
        let mut work = one.begin(&store).await.unwrap();
        let mut plan = Plan::default();
        plan.make_folder(&path("/mine"));
        work.apply(plan).await.unwrap();
        make(&other, &store, "/theirs", Flush::Now).await;
        let theirs = store.files_root();
        let refused = work.done(Flush::Now).await.unwrap_err();
        assert!(matches!(refused, FilesError::Changed { .. }), "{refused}");
        assert_eq!(store.files_root(), theirs);
        // The next change is one of what is there now.
        make(&one, &store, "/mine", Flush::Now).await;
        for text in ["/first", "/theirs", "/mine"] {
            one.stat(&store, &path(text)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn changes_that_a_replaced_tree_takes_along_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [one, other]) = opened(folder.path());
        make(&one, &store, "/waiting", Flush::Later).await;
        make(&other, &store, "/theirs", Flush::Now).await;
        let told = one.stat(&store, &path("/waiting")).await.unwrap_err();
        assert!(
            matches!(told, FilesError::Lost { operations: 1, .. }),
            "{told}"
        );
        one.stat(&store, &path("/theirs")).await.unwrap();
        let mut work = one.begin(&store).await.unwrap();
        let mut plan = Plan::default();
        plan.make_folder(&path("/mine"));
        work.apply(plan).await.unwrap();
        work.done(Flush::Later).await.unwrap();
        let work = one.begin(&store).await.unwrap();
        make(&other, &store, "/more", Flush::Now).await;
        let told = work.done(Flush::Now).await.unwrap_err();
        assert!(
            matches!(told, FilesError::Lost { operations: 1, .. }),
            "{told}"
        );
        one.stat(&store, &path("/more")).await.unwrap();
    }

    #[tokio::test]
    async fn the_empty_tree_is_named_and_put_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [files, _]) = opened(folder.path());
        let mut blocks = Overlay::new();
        let mut out = Outbox::new(&mut blocks);
        let profile = Profile::v1_2025();
        let empty = directory::write(&profile, Metadata::default(), &[], &mut out).unwrap();
        out.flush().unwrap();
        let blocks = blocks.into_values().collect();
        store.put(blocks, Keep::Kept).await.unwrap();
        let mut work = files.begin(&store).await.unwrap();
        let link = Link {
            cid: empty.cid,
            tsize: empty.tsize,
        };
        let mut plan = Plan::default();
        plan.put(&path("/a"), link);
        work.apply(plan).await.unwrap();
        work.done(Flush::Later).await.unwrap();
        files.open_put(&store, &path("/")).await.unwrap();
        files.open_put(&store, &path("/a")).await.unwrap();
        let root = files.flush_all().await.unwrap();
        assert_eq!(store.files_root(), Some(root));
    }

    #[tokio::test]
    async fn what_is_named_before_it_is_flushed_is_in_the_store_and_no_more_durable_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [files, _]) = opened(folder.path());
        make(&files, &store, "/flushed", Flush::Now).await;
        let durable = store.files_root();
        make(&files, &store, "/a", Flush::Later).await;
        make(&files, &store, "/a/b", Flush::Later).await;
        for text in ["/a/b", "/a", "/"] {
            let opened = files.open_put(&store, &path(text)).await.unwrap();
            let cid = crate::files::Stat::of(&opened.node).cid;
            store.gc(|_| {}).await.unwrap();
            assert!(store.block(&cid).await.unwrap().is_some(), "{text}");
        }
        assert_eq!(store.files_root(), durable);
        let root = files.flush_all().await.unwrap();
        assert_eq!(store.files_root(), Some(root));
        store.gc(|_| {}).await.unwrap();
        files.stat(&store, &path("/a/b")).await.unwrap();
        files.stat(&store, &path("/flushed")).await.unwrap();
    }
}
