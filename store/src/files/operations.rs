//! What people do to the tree.

use super::draft::Draft;
use super::plan::{Becomes, Link, Naming, Plan};
use super::state::{Work, find};
use super::view::View;
use super::{Change, Files, FilesError, FilesPath, Flush};
use crate::block::Block;
use crate::cid::Cid;
use crate::pin::{PinMode, PinProgress, PinWish, Whole};
use crate::source::BlockSource;
use crate::unixfs::Mtime;
use crate::unixfs::format::{Message, Type};
use crate::unixfs::import::{Metadata, leaf_node};
use crate::unixfs::read::{self, Node, ReadError};

/// Something in the tree, to be read as it was at one moment.
#[derive(Debug)]
pub struct Opened<S> {
    /// What it is.
    pub node: Node,
    /// Where its blocks come from.
    pub view: View<S>,
}

/// What something in the tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its root.
    pub cid: Cid,
    /// What kind of thing it is.
    pub what: What,
    /// Bytes of a file's content; 0 for a folder.
    pub size: u64,
    /// Cumulative size of its DAG.
    pub tsize: u64,
    /// How many links its root has.
    pub links: usize,
    /// Permission bits, if kept.
    pub mode: Option<u32>,
    /// Time of change, if kept.
    pub mtime: Option<Mtime>,
}

/// A kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What is copied.
#[derive(Debug)]
pub enum Copy {
    /// What is at a path of the tree.
    Path(FilesPath),
    /// Content that is here as a whole ([`Files::fetch`]).
    Content {
        /// Its root.
        cid: Cid,
        /// Cumulative size of its DAG.
        tsize: u64,
        /// That it is here.
        whole: Whole,
    },
}

/// What becomes of folders that are missing on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// They are made.
    Made,
    /// They must be there.
    There,
}

/// What becomes of a file that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It goes.
    Files,
    /// It stays, and nothing is done.
    Nothing,
}

/// How much goes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remove {
    /// Anything but a folder.
    File,
    /// Folders with all that is in them.
    Recursive,
    /// The same, and what is not there or cannot be read is no error.
    Forced,
}

impl Stat {
    /// What a node is.
    pub fn of(node: &Node) -> Self {
        match node {
            Node::Directory(folder) => Self {
                cid: *folder.cid(),
                what: What::Folder,
                size: 0,
                tsize: folder.tsize(),
                links: folder.links(),
                mode: folder.mode(),
                mtime: folder.mtime(),
            },
            Node::File(file) => Self {
                cid: *file.cid(),
                what: What::File,
                size: file.size(),
                tsize: file.tsize(),
                links: file.links(),
                mode: file.mode(),
                mtime: file.mtime(),
            },
            Node::Symlink(link) => {
                let bytes = symlink(&link.target, link.mtime).len() as u64;
                Self {
                    cid: link.cid,
                    what: What::Symlink,
                    size: link.target.len() as u64,
                    tsize: bytes,
                    links: 0,
                    mode: None,
                    mtime: link.mtime,
                }
            }
        }
    }
}

fn symlink(target: &str, mtime: Option<Mtime>) -> bytes::Bytes {
    let message = Message {
        data: Some(bytes::Bytes::copy_from_slice(target.as_bytes())),
        ..Message::new(Type::Symlink)
    };
    leaf_node(message, Metadata { mode: None, mtime })
}

impl Files {
    /// Opens what is at `path`, to be read.
    pub async fn open<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
    ) -> Result<Opened<S>, FilesError> {
        let (root, view) = self.present(source).await?;
        let profile = self.profile();
        let naming = Naming {
            version: profile.version,
            hash: profile.hash,
        };
        let (found, _) = find(&view, &root, path, naming).await?;
        let link = found.ok_or(FilesError::NotFound)?;
        let node = read::open(&view, &link.cid).await?;
        Ok(Opened { node, view })
    }

    /// The same, with all of it in the store: for who tells others its CIDs. What is not flushed stays that.
    pub async fn open_put<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
    ) -> Result<Opened<S>, FilesError> {
        if self.is_flushed()? {
            return self.open(source, path).await;
        }
        let mut work = self.begin(source).await?;
        let link = work.find(path).await?.0.ok_or(FilesError::NotFound)?;
        work.put_below(link.cid).await?;
        let node = read::open(&work.view, &link.cid).await?;
        let view = work.view.clone();
        Ok(Opened { node, view })
    }

    /// What is at `path`.
    pub async fn stat<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
    ) -> Result<Stat, FilesError> {
        Ok(Stat::of(&self.open(source, path).await?.node))
    }

    /// Makes sure that all of `cid` is here, so that it can be put into the tree: what is missing is fetched, as for
    /// a pin.
    pub async fn fetch<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        cid: Cid,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Copy, FilesError> {
        let node = read::open(source, &cid)
            .await
            .map_err(|error| match error {
                ReadError::NotUnixfs { .. } | ReadError::Malformed { .. } => {
                    FilesError::NotUnixfs(error.to_string())
                }
                other => other.into(),
            })?;
        let tsize = Stat::of(&node).tsize;
        let wish = PinWish::new(cid, PinMode::Recursive);
        let store = &self.shared.store;
        let whole = store.pin_fetch(source.clone(), &wish, on_progress).await?;
        Ok(Copy::Content { cid, tsize, whole })
    }

    /// Puts something at `to` as well.
    pub async fn copy<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        from: Copy,
        to: &FilesPath,
        parents: Parents,
        overwrite: Overwrite,
        flush: Flush,
    ) -> Result<(), FilesError> {
        let mut work = self.begin(source).await?;
        let (link, whole) = match from {
            Copy::Path(path) => {
                let found = work.find(&path).await?.0;
                (found.ok_or(FilesError::NotFound)?, None)
            }
            Copy::Content { cid, tsize, whole } => (Link { cid, tsize }, Some(whole)),
        };
        work.must_have_parent(to, parents).await?;
        let there = match parents {
            Parents::Made if !work.has_parent(to).await? => None,
            _ => work.find(to).await?.0,
        };
        if let Some(there) = there {
            if overwrite == Overwrite::Nothing {
                return Err(FilesError::Taken);
            }
            if let Node::Directory(_) = read::open(&work.view, &there.cid).await? {
                let path = to.to_string();
                return Err(FilesError::NotFile { path });
            }
        }
        let mut plan = Plan::default();
        plan.put(to, work.whole_link(link).await?);
        work.apply(plan).await?;
        work.keep(whole);
        work.done(flush).await.map(drop)
    }

    /// Moves something to `to`, or into `to` if that is a folder; a file in its place goes.
    pub async fn move_to<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        from: &FilesPath,
        to: &FilesPath,
        flush: Flush,
    ) -> Result<(), FilesError> {
        let mut work = self.begin(source).await?;
        let Some(name) = from.name() else {
            return Err(FilesError::Path("cannot move the root".to_owned()));
        };
        let link = work.find(from).await?.0.ok_or(FilesError::NotFound)?;
        let mut to = to.clone();
        work.must_have_parent(&to, Parents::There).await?;
        if to != *from
            && let Some(there) = work.find(&to).await?.0
            && let Node::Directory(_) = read::open(&work.view, &there.cid).await?
        {
            to = to.join(name)?;
            if to != *from && work.find(&to).await?.0.is_some() {
                return Err(FilesError::Taken);
            }
        }
        if to == *from {
            return work.done(flush).await.map(drop);
        }
        if to.is_within(from) {
            // Below a file nothing is found, so this is a folder.
            return Err(FilesError::IntoItself {
                from: from.to_string(),
                to: to.to_string(),
            });
        }
        let mut plan = Plan::default();
        plan.remove(from);
        plan.put(&to, link);
        work.apply(plan).await?;
        work.done(flush).await.map(drop)
    }

    /// Removes what is at `path`.
    pub async fn remove<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
        how: Remove,
        flush: Flush,
    ) -> Result<(), FilesError> {
        if path.is_root() {
            return Err(FilesError::Root);
        }
        let mut work = self.begin(source).await?;
        let found = match work.find(path).await {
            Ok((found, _)) => found,
            Err(FilesError::NotFolder { .. }) if how == Remove::Forced => None,
            Err(error) => return Err(error),
        };
        let Some(link) = found else {
            return match how {
                // What was not flushed yet is to be, also if nothing comes to it.
                Remove::Forced => work.done(flush).await.map(drop),
                _ => Err(FilesError::NotFound),
            };
        };
        if how == Remove::File
            && let Node::Directory(_) = read::open(&work.view, &link.cid).await?
        {
            return Err(FilesError::IsFolder);
        }
        let mut plan = Plan::default();
        plan.remove(path);
        work.apply(plan).await?;
        work.done(flush).await.map(drop)
    }

    /// Makes a folder, named as `naming` says or as what it is in.
    pub async fn make_folder<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
        parents: Parents,
        naming: Option<Naming>,
        flush: Flush,
    ) -> Result<(), FilesError> {
        let mut work = self.begin(source).await?;
        if path.is_root() && parents == Parents::There {
            let why = "cannot create directory '/': Already exists";
            return Err(FilesError::Path(why.to_owned()));
        }
        work.must_have_parent(path, parents).await?;
        let is_there = work.has_parent(path).await? && work.find(path).await?.0.is_some();
        if is_there && parents == Parents::There {
            return Err(FilesError::Exists);
        }
        let mut plan = Plan::default();
        work.plan_folders(&mut plan, path, naming).await?;
        work.apply(plan).await?;
        work.done(flush).await.map(drop)
    }

    /// Sets permission bits, a time of change, or both.
    pub async fn set_metadata<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
        mode: Option<u32>,
        mtime: Option<Mtime>,
        flush: Flush,
    ) -> Result<(), FilesError> {
        let mut work = self.begin(source).await?;
        let (found, naming) = work.find(path).await?;
        let link = found.ok_or(FilesError::NotFound)?;
        let mut plan = Plan::default();
        match read::open(&work.view, &link.cid).await? {
            Node::Directory(folder) => {
                plan.at(path).metadata = Some(Metadata {
                    mode: mode.or_else(|| folder.mode()),
                    mtime: mtime.or_else(|| folder.mtime()),
                });
            }
            Node::File(file) => {
                let profile = work.profile().clone();
                let mut draft = Draft::open(&work.view, file.cid(), &profile, naming).await?;
                draft.metadata = Metadata {
                    mode: mode.or_else(|| file.mode()),
                    mtime: mtime.or_else(|| file.mtime()),
                };
                let (link, blocks) = draft.finish(&work.view).await?;
                work.add(blocks);
                plan.put(path, link);
            }
            Node::Symlink(link) => {
                if mode.is_some() {
                    return Err(FilesError::Symlink {
                        path: path.to_string(),
                        what: "mode",
                    });
                }
                let naming = Naming::of(&link.cid, naming);
                let prefix = work.prefix(naming);
                let block = Block::new(prefix, symlink(&link.target, mtime.or(link.mtime)))?;
                let tsize = block.data().len() as u64;
                let cid = *block.cid();
                work.add(vec![block]);
                plan.put(path, Link { cid, tsize });
            }
        }
        work.apply(plan).await?;
        work.done(flush).await.map(drop)
    }

    /// Names a folder's blocks otherwise, and what is made in it from now on.
    pub async fn rename_blocks<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
        naming: Naming,
        flush: Flush,
    ) -> Result<(), FilesError> {
        let mut work = self.begin(source).await?;
        let link = work.find(path).await?.0.ok_or(FilesError::NotFound)?;
        let Node::Directory(_) = read::open(&work.view, &link.cid).await? else {
            let path = path.to_string();
            return Err(FilesError::NotFolder { path });
        };
        let mut plan = Plan::default();
        plan.at(path).naming = Some(naming);
        work.apply(plan).await?;
        work.done(flush).await.map(drop)
    }

    /// Makes many changes together: all of them or none. What the changes put is in the store and held by `wholes`,
    /// which are kept until it is durable.
    pub async fn apply<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        changes: impl IntoIterator<Item = Change>,
        wholes: Vec<Whole>,
        flush: Flush,
    ) -> Result<Cid, FilesError> {
        self.apply_to(source, None, changes, wholes, flush)
            .await
            .map(|(root, _)| root)
    }

    /// The same, at once durable, if a path is what the changes were made for: it has this root, or nothing is there. Gives
    /// what it has then.
    pub async fn apply_at<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
        expected: Option<Cid>,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Option<Cid>, FilesError> {
        let at = Some((path, expected));
        let applied = self.apply_to(source, at, changes, Vec::new(), Flush::Now);
        applied.await.map(|(_, there)| there)
    }

    /// Makes the changes, if what is at a path is as expected; gives the root, and what is at the path then.
    async fn apply_to<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        at: Option<(&FilesPath, Option<Cid>)>,
        changes: impl IntoIterator<Item = Change>,
        wholes: Vec<Whole>,
        flush: Flush,
    ) -> Result<(Cid, Option<Cid>), FilesError> {
        let mut work = self.begin(source).await?;
        if let Some((path, expected)) = at {
            let found = work.find(path).await?.0.map(|link| link.cid);
            if found != expected {
                let path = path.to_string();
                return Err(FilesError::Changed { path });
            }
        }
        let mut plan = Plan::default();
        for change in changes {
            plan.take(change);
        }
        if !matches!(plan.becomes, Becomes::Same | Becomes::Folder) {
            return Err(FilesError::Root);
        }
        work.apply(plan).await?;
        work.keep(wholes);
        let there = match at {
            Some((path, _)) => work.find(path).await?.0.map(|link| link.cid),
            None => None,
        };
        Ok((work.done(flush).await?, there))
    }

    /// Makes all that waits durable and gives the root of what is at `path`.
    pub async fn flush<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        path: &FilesPath,
    ) -> Result<Cid, FilesError> {
        let work = self.begin(source).await?;
        let link = work.find(path).await?.0.ok_or(FilesError::NotFound)?;
        work.done(Flush::Now).await?;
        Ok(link.cid)
    }
}

impl<S: BlockSource + Clone + 'static> Work<S> {
    pub(super) fn prefix(&self, naming: Naming) -> crate::block::Prefix {
        crate::block::Prefix {
            version: naming.version,
            codec: crate::cid::DAG_PB,
            hash: naming.hash,
        }
    }

    /// Whether there is a folder for what is to be at `path`.
    pub(super) async fn has_parent(&self, path: &FilesPath) -> Result<bool, FilesError> {
        match path.parent() {
            Some(parent) => Ok(self.find(&parent).await?.0.is_some()),
            None => Ok(true),
        }
    }

    /// There must be a folder for what is to be at `path`, unless folders are made.
    pub(super) async fn must_have_parent(
        &self,
        path: &FilesPath,
        parents: Parents,
    ) -> Result<(), FilesError> {
        if parents == Parents::There && !self.has_parent(path).await? {
            return Err(FilesError::NotFound);
        }
        Ok(())
    }

    /// Has a folder made at `path` and those on the way to it, as far as they are missing.
    pub(super) async fn plan_folders(
        &self,
        plan: &mut Plan,
        path: &FilesPath,
        naming: Option<Naming>,
    ) -> Result<(), FilesError> {
        let mut so_far = FilesPath::default();
        let mut is_there = true;
        for name in path.names() {
            so_far = so_far.join(name)?;
            is_there = is_there && self.find(&so_far).await?.0.is_some();
            plan.make_folder(&so_far);
            if !is_there {
                plan.at(&so_far).naming = naming;
            }
        }
        Ok(())
    }

    /// A link with the size of what it leads to: that of the root is not kept.
    async fn whole_link(&self, link: Link) -> Result<Link, FilesError> {
        if link.cid != self.snapshot.root {
            return Ok(link);
        }
        let tsize = Stat::of(&read::open(&self.view, &link.cid).await?).tsize;
        Ok(Link { tsize, ..link })
    }
}
