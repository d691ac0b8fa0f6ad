//! A HAMT, changed: only the shards on the way to what changes are read and written.
//!
//! What comes out is what writing all entries anew gives: a bucket with one entry holds the entry, one with more a
//! shard, however it came to be so.

use super::FilesError;
use super::plan::Link;
use super::view::View;
use crate::block::Block;
use crate::source::BlockSource;
use crate::unixfs::Profile;
use crate::unixfs::directory::{self, Bucket, DirectoryError};
use crate::unixfs::hamt::{self, Fanout, Shard};
use crate::unixfs::import::Metadata;
use crate::unixfs::read::folder::read_shard;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;

/// Names and what they lead to from now on.
pub(super) type Entries = BTreeMap<String, Option<Link>>;

/// What a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Entry(String, Link),
    Shard(Link),
}

struct Work<'a, S> {
    view: &'a View<S>,
    profile: &'a Profile,
    fanout: Fanout,
    out: &'a mut Vec<Block>,
}

/// The folder whose root shard is `root`, changed.
pub(super) async fn root<S: BlockSource>(
    view: &View<S>,
    profile: &Profile,
    root: &Shard,
    metadata: Metadata,
    entries: Entries,
    out: &mut Vec<Block>,
) -> Result<Link, FilesError> {
    let mut work = Work {
        view,
        profile,
        fanout: root.fanout,
        out,
    };
    let buckets = work.change(held(root), 0, hashed(entries)).await?;
    work.write(buckets, metadata)
}

/// A name with its hash, and what it leads to from now on.
type Named = (u64, String, Option<Link>);

fn hashed(entries: Entries) -> Vec<Named> {
    let mut hashed: Vec<Named> = entries
        .into_iter()
        .map(|(name, link)| (hamt::hash_name(&name), name, link))
        .collect();
    // In the order of their hashes, the names of each bucket stand together on every level.
    hashed.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    hashed
}

fn held(shard: &Shard) -> BTreeMap<usize, Held> {
    let slots = shard.slots.iter().map(|slot| {
        let link = Link {
            cid: slot.cid,
            tsize: slot.tsize,
        };
        let held = match &slot.name {
            Some(name) => Held::Entry(name.clone(), link),
            None => Held::Shard(link),
        };
        (slot.bucket, held)
    });
    slots.collect()
}

impl<S: BlockSource> Work<'_, S> {
    async fn change(
        &mut self,
        mut buckets: BTreeMap<usize, Held>,
        level: usize,
        entries: Vec<Named>,
    ) -> Result<BTreeMap<usize, Held>, FilesError> {
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let Some(place) = self.fanout.bucket(first.0, level) else {
                return Err(DirectoryError::Collision { name: first.1 }.into());
            };
            let mut here = vec![first];
            let fanout = self.fanout;
            let is_here = |next: &Named| fanout.bucket(next.0, level) == Some(place);
            while let Some(next) = entries.next_if(is_here) {
                here.push(next);
            }
            let new = match buckets.remove(&place) {
                Some(Held::Shard(link)) => self.below(link, level + 1, here).await?,
                Some(Held::Entry(name, link)) => {
                    if !here.iter().any(|(_, other, _)| *other == name) {
                        here.push((hamt::hash_name(&name), name, Some(link)));
                    }
                    self.fresh(level, here).await?
                }
                None => self.fresh(level, here).await?,
            };
            if let Some(new) = new {
                buckets.insert(place, new);
            }
        }
        Ok(buckets)
    }

    /// A bucket of just these.
    fn fresh<'b>(
        &'b mut self,
        level: usize,
        entries: Vec<Named>,
    ) -> BoxFuture<'b, Result<Option<Held>, FilesError>> {
        async move {
            let mut entries: Vec<Named> = entries
                .into_iter()
                .filter(|(_, _, link)| link.is_some())
                .collect();
            if entries.len() > 1 {
                entries.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
                let buckets = self.change(BTreeMap::new(), level + 1, entries).await?;
                return self.close(buckets).map(Some);
            }
            let one = entries.pop();
            Ok(one.and_then(|(_, name, link)| Some(Held::Entry(name, link?))))
        }
        .boxed()
    }

    /// A bucket that holds a shard, changed.
    fn below<'b>(
        &'b mut self,
        link: Link,
        level: usize,
        entries: Vec<Named>,
    ) -> BoxFuture<'b, Result<Option<Held>, FilesError>> {
        async move {
            if level >= self.fanout.levels() {
                let name = entries.into_iter().next().map(|(_, name, _)| name);
                let name = name.unwrap_or_default();
                return Err(DirectoryError::Collision { name }.into());
            }
            let (shard, _) = read_shard(self.view, link.cid, self.fanout).await?;
            let buckets = self.change(held(&shard), level, entries).await?;
            let is_alone = buckets.len() == 1;
            match buckets.first_key_value() {
                None => Ok(None),
                Some((_, Held::Entry(name, link))) if is_alone => {
                    Ok(Some(Held::Entry(name.clone(), *link)))
                }
                Some(_) => self.close(buckets).map(Some),
            }
        }
        .boxed()
    }

    fn close(&mut self, buckets: BTreeMap<usize, Held>) -> Result<Held, FilesError> {
        self.write(buckets, Metadata::default()).map(Held::Shard)
    }

    fn write(
        &mut self,
        buckets: BTreeMap<usize, Held>,
        metadata: Metadata,
    ) -> Result<Link, FilesError> {
        let cids: Vec<Vec<u8>> = buckets
            .values()
            .map(|held| match held {
                Held::Entry(_, link) | Held::Shard(link) => link.cid.to_bytes(),
            })
            .collect();
        let all = buckets.iter().zip(&cids).map(|((place, held), cid)| {
            let (name, tsize) = match held {
                Held::Entry(name, link) => (name.as_str(), link.tsize),
                Held::Shard(link) => ("", link.tsize),
            };
            Bucket {
                place: *place,
                name,
                cid,
                tsize,
            }
        });
        let (block, written) = directory::shard(self.profile, self.fanout, metadata, all)?;
        self.out.push(block);
        Ok(Link {
            cid: written.cid,
            tsize: written.tsize,
        })
    }
}
