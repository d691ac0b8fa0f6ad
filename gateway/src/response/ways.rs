//! Where paths led, remembered: below a root everything stays as it is, so that a path is followed once and not with
//! every request.
//!
//! Nothing is remembered of paths that led nowhere, which anybody may make up, and nothing of how long: what a name
//! leads to is looked up before this. Whoever asks is still asked about every block on the way, since what the operator
//! wants changes.

use cairn_store::dag::path::{self, ResolveError, Resolved};
use cairn_store::{BlockSource, Cid};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use std::fmt;
use std::sync::Arc;

/// Where paths led. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ways {
    /// `None` if nothing is to be remembered.
    known: Option<Arc<Known>>,
}

type Known = Cache<Path, Arc<Resolved>, Bulk>;

/// A path below a root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Path {
    root: Cid,
    segments: Vec<String>,
}

/// The same, of a request.
#[derive(Debug, Hash)]
struct Asked<'a> {
    root: &'a Cid,
    segments: &'a [String],
}

impl Equivalent<Path> for Asked<'_> {
    fn equivalent(&self, path: &Path) -> bool {
        *self.root == path.root && self.segments == path.segments
    }
}

impl Ways {
    pub(crate) fn new() -> Self {
        Self::of(BYTES_MAX)
    }

    /// For those who are not all given the same: what one may follow does not tell of another.
    pub(super) fn none() -> Self {
        Self { known: None }
    }

    fn of(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / BYTES_USUAL).unwrap_or(usize::MAX);
        let known = Cache::with_weighter(items, bytes_max, Bulk);
        Self {
            known: Some(Arc::new(known)),
        }
    }

    /// Follows `segments` from `root`.
    pub(super) async fn follow<S: BlockSource>(
        &self,
        source: &S,
        root: &Cid,
        segments: &[String],
    ) -> Result<Arc<Resolved>, ResolveError> {
        let Some(ways) = self.known.as_ref().filter(|_| !segments.is_empty()) else {
            return path::resolve(source, root, segments).await.map(Arc::new);
        };
        if let Some(known) = ways.get(&Asked { root, segments }) {
            for cid in &known.blocks {
                source.admits(cid)?;
            }
            return Ok(known);
        }
        let found = Arc::new(path::resolve(source, root, segments).await?);
        let path = Path {
            root: *root,
            segments: segments.to_vec(),
        };
        ways.insert(path, Arc::clone(&found));
        Ok(found)
    }
}

impl fmt::Debug for Ways {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.known.as_ref().map_or(0, |known| known.len());
        write!(out, "Ways({paths} paths)")
    }
}

/// What a path takes in memory.
#[derive(Debug, Clone)]
struct Bulk;

impl Weighter<Path, Arc<Resolved>> for Bulk {
    fn weight(&self, path: &Path, way: &Arc<Resolved>) -> u64 {
        let names = path.segments.iter().chain(&way.remainder);
        let names: usize = names.map(|name| size_of::<String>() + name.len()).sum();
        let cids = (way.roots.len() + way.blocks.len() + 2) * size_of::<Cid>();
        (names + cids + size_of::<Resolved>() + size_of::<Path>()) as u64
    }
}

/// Most memory that the paths take.
const BYTES_MAX: u64 = 16 << 20;
/// What a path takes, when room for the table is made.
const BYTES_USUAL: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::block::{Block, Prefix};
    use cairn_store::cid::{self, HashKind, Version};
    use cairn_store::dag::pb::{PbLink, PbNode, encode};
    use cairn_store::source::{Denial, Grounds, SourceError};
    use std::collections::{HashMap, HashSet};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    struct Counted {
        blocks: HashMap<Cid, Block>,
        denied: HashSet<Cid>,
        reads: AtomicUsize,
    }

    impl BlockSource for Counted {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            Ok(self.blocks.get(cid).cloned())
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            match self.denied.contains(cid) {
                false => Ok(()),
                true => Err(SourceError::Denied(Denial {
                    what: cid.to_string().into(),
                    by: "a rule of a test".into(),
                    grounds: Grounds::Legal,
                })),
            }
        }
    }

    impl Counted {
        /// A folder with one entry.
        fn folder(&mut self, name: &str, child: Cid) -> Cid {
            let link = PbLink {
                cid: child,
                name: Some(name.to_owned()),
                tsize: None,
            };
            // A folder, by the UnixFS type alone.
            let data = Some(vec![8, 1].into());
            let prefix = Prefix {
                version: Version::V1,
                codec: cid::DAG_PB,
                hash: HashKind::Sha2_256,
            };
            let links = vec![link];
            let block = Block::new(prefix, encode(&PbNode { links, data })).unwrap();
            let cid = *block.cid();
            self.blocks.insert(cid, block);
            cid
        }

        fn reads(&self) -> usize {
            self.reads.swap(0, Ordering::Relaxed)
        }
    }

    /// `/ipfs/<root>/a/b`, with the folder on the way and what is at its end.
    fn tree() -> (Counted, [Cid; 3], Vec<String>) {
        let mut source = Counted::default();
        let file =
            cid::parse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy").unwrap();
        let below = source.folder("b", file);
        let root = source.folder("a", below);
        (
            source,
            [root, below, file],
            ["a", "b"].map(str::to_owned).into(),
        )
    }

    #[tokio::test]
    async fn a_path_is_followed_once() {
        let (source, [root, below, file], path) = tree();
        let ways = Ways::new();
        let first = ways.follow(&source, &root, &path).await.unwrap();
        assert_eq!(first.roots, [root, below, file]);
        assert_eq!(source.reads(), 2);
        assert_eq!(ways.follow(&source, &root, &path).await.unwrap(), first);
        assert_eq!(source.reads(), 0);
        // The same names below another root are another path.
        let part = path.get(1..).unwrap();
        let other = ways.follow(&source, &below, part).await.unwrap();
        assert_eq!((other.cid, source.reads()), (file, 1));
    }

    #[tokio::test]
    async fn where_nothing_is_remembered_each_block_on_the_way_is_asked_for() {
        let (source, [root, ..], path) = tree();
        let ways = Ways::none();
        for _ in 0..2 {
            ways.follow(&source, &root, &path).await.unwrap();
            assert_eq!(source.reads(), 2);
        }
    }

    #[tokio::test]
    async fn a_path_that_leads_nowhere_is_followed_anew() {
        let (source, [root, ..], _) = tree();
        let ways = Ways::new();
        for _ in 0..2 {
            let wrong = ["a".to_owned(), "c".to_owned()];
            let error = ways.follow(&source, &root, &wrong).await.unwrap_err();
            assert!(matches!(error, ResolveError::NoLink { .. }), "{error}");
            assert_eq!(source.reads(), 2);
        }
    }

    #[tokio::test]
    async fn what_is_denied_later_ends_the_paths_through_it() {
        let (mut source, [root, below, _], path) = tree();
        let ways = Ways::new();
        ways.follow(&source, &root, &path).await.unwrap();
        source.denied.insert(below);
        let error = ways.follow(&source, &root, &path).await.unwrap_err();
        let denied = matches!(error, ResolveError::Source(SourceError::Denied(_)));
        assert!(denied, "{error}");
    }

    #[tokio::test]
    async fn many_paths_take_no_more_memory_than_they_may() {
        const MOST: u64 = 1 << 20;
        let (mut source, [_, _, file], _) = tree();
        let ways = Ways::of(MOST);
        for number in 0..5_000 {
            let name = format!("{number:0200}");
            let root = source.folder(&name, file);
            ways.follow(&source, &root, &[name]).await.unwrap();
            assert!(ways.known.as_ref().unwrap().weight() <= MOST);
        }
        assert!(ways.known.unwrap().len() > 100);
    }
}
