//! What is provided, by the store.

use super::keys::{Key, Keys, Sorter};
use crate::bitswap::policy::Policy;
use cairn_store::cid::{self, RAW};
use cairn_store::dag;
use cairn_store::pin::PinMode;
use cairn_store::{BlockSource, Cid, Store};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Which blocks others are told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Every block that is here, cached ones too.
    All,
    /// Every block that a pin reaches.
    Pinned,
    /// Every block that the file tree reaches.
    Mfs,
    /// Every block that a pin or the file tree reaches.
    #[serde(rename = "pinned+mfs")]
    PinnedMfs,
    /// The roots of pins: who has found a root asks the same peer for what is below it.
    #[default]
    Roots,
}

impl Strategy {
    /// What it is called in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Pinned => "pinned",
            Self::Mfs => "mfs",
            Self::PinnedMfs => "pinned+mfs",
            Self::Roots => "roots",
        }
    }
}

/// Where keys come from: the store, or a list in tests.
pub(crate) trait Source: Send + Sync + 'static {
    /// A number that changes when other pins are there, or another file tree.
    fn version(&self) -> u64;

    /// Whether others may be told of it at all.
    fn may_tell(&self, _cid: &Cid) -> bool {
        true
    }

    /// All keys that are provided, in any order, into `keys`.
    fn keys(&self, keys: &Gathered) -> impl Future<Output = io::Result<()>> + Send;
}

/// Keys on their way from a source into order.
#[derive(Debug)]
pub(crate) struct Gathered(Arc<Mutex<Gathering>>);

/// Who may have what.
type Rules = Arc<dyn Policy>;

#[derive(Debug)]
struct Gathering {
    sorter: Sorter,
    /// What these give nobody is left out.
    rules: Option<Rules>,
    failed: Option<io::Error>,
}

impl Gathered {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(Gathering {
            sorter: Sorter::new(folder),
            rules: None,
            failed: None,
        })))
    }

    /// Leaves out from now on what these give nobody.
    fn rule(&self, rules: &Rules) {
        let mut gathering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathering.rules = Some(Arc::clone(rules));
    }

    /// Takes one. What is in its own name is provided to nobody. Says stop when the disk takes no more.
    pub(crate) fn push(&self, cid: &Cid) -> ControlFlow<()> {
        if cid::is_identity(cid) {
            return ControlFlow::Continue(());
        }
        let mut gathering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = gathering.rules.as_ref();
        if rules.is_some_and(|rules| rules.is_for_nobody(cid)) {
            return ControlFlow::Continue(());
        }
        match gathering.sorter.push(&cid.hash().to_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                gathering.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// All of them in order; tells which are not among `before`.
    pub(crate) fn finish(
        self,
        before: Option<&Keys>,
        is_new: impl FnMut(&Key),
    ) -> io::Result<Keys> {
        let gathering =
            Arc::into_inner(self.0).ok_or_else(|| io::Error::other("still gathered"))?;
        let gathering = gathering
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match gathering.failed {
            Some(error) => Err(error),
            None => gathering.sorter.finish(before, is_new),
        }
    }
}

/// What a store has, by a strategy.
#[derive(Debug)]
pub(crate) struct OfStore {
    pub(crate) store: Store,
    pub(crate) strategy: Strategy,
    pub(crate) rules: Rules,
}

impl Source for OfStore {
    fn may_tell(&self, cid: &Cid) -> bool {
        !self.rules.is_for_nobody(cid)
    }

    fn version(&self) -> u64 {
        self.store.pins_version()
    }

    async fn keys(&self, keys: &Gathered) -> io::Result<()> {
        keys.rule(&self.rules);
        match self.strategy {
            Strategy::All => {
                // The thread that lists goes on when nobody waits for it any more.
                let into = Arc::downgrade(&keys.0);
                let each = move |cid| match into.upgrade() {
                    Some(into) => Gathered(into).push(&cid),
                    None => ControlFlow::Break(()),
                };
                let listed = self.store.list(each).await;
                listed.map_err(io::Error::other)?;
            }
            Strategy::Pinned | Strategy::Mfs | Strategy::PinnedMfs => {
                let mut seen = HashSet::new();
                let pins = (self.strategy != Strategy::Mfs).then(|| self.store.pin_pages());
                let files = match self.strategy {
                    Strategy::Pinned => None,
                    _ => self.store.files_root(),
                };
                let pins = pins.into_iter().flatten().map(|pin| (pin.cid, pin.mode));
                let files = files.map(|root| (root, PinMode::Recursive));
                for (root, mode) in pins.chain(files) {
                    let done = match mode {
                        PinMode::Recursive => self.below(root, &mut seen, keys).await,
                        PinMode::Direct => keys.push(&root),
                    };
                    if done.is_break() {
                        break;
                    }
                }
            }
            Strategy::Roots => {
                for pin in self.store.pin_pages() {
                    if keys.push(&pin.cid).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

impl OfStore {
    /// A pin's root and all below it. Raw blocks have no links and are not read; of the others each is read once, and
    /// remembered by 16 bytes of its place, which nobody can make two blocks share.
    async fn below(
        &self,
        root: Cid,
        seen: &mut HashSet<[u8; 16]>,
        keys: &Gathered,
    ) -> ControlFlow<()> {
        let mut left = vec![root];
        while let Some(cid) = left.pop() {
            if !seen.insert(short(&cid)) {
                continue;
            }
            keys.push(&cid)?;
            if cid.codec() == RAW {
                continue;
            }
            let links = match self.store.block(&cid).await {
                Ok(Some(block)) => dag::links(&block).unwrap_or_default(),
                // What is damaged or gone is the scrub's matter, and is told nobody of.
                Ok(None) | Err(_) => continue,
            };
            for link in links {
                if link.cid.codec() == RAW {
                    keys.push(&link.cid)?;
                } else if left.len() < WAITING_MAX {
                    left.push(link.cid);
                } else {
                    tracing::warn!(%root, "too wide to be provided whole: some blocks are left out");
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// 16 bytes of a hash of the codec and the multihash.
fn short(cid: &Cid) -> [u8; 16] {
    let name = [&cid.codec().to_be_bytes()[..], &cid.hash().to_bytes()].concat();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &name);
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Blocks with links that wait to be read: 16 MiB.
const WAITING_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitswap::policy::DenyContent;
    use cairn_store::Block;
    use cairn_store::block::Prefix;
    use cairn_store::cid::{DAG_CBOR, HashKind};
    use cairn_store::config::Config;
    use cairn_store::store::Keep;

    fn raw(text: &str) -> Block {
        block(RAW, text.as_bytes().to_vec())
    }

    fn block(codec: u64, bytes: Vec<u8>) -> Block {
        let prefix = Prefix {
            version: cid::Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, bytes.into()).unwrap()
    }

    /// A list of links.
    fn list(of: &[&Block]) -> Block {
        let mut bytes = vec![0x80 | u8::try_from(of.len()).unwrap()];
        for block in of {
            let name = block.cid().to_bytes();
            bytes.extend([0xd8, 42, 0x58, u8::try_from(name.len()).unwrap() + 1, 0]);
            bytes.extend(name);
        }
        block(DAG_CBOR, bytes)
    }

    async fn provided(store: &Store, strategy: Strategy) -> Vec<Vec<u8>> {
        provided_but(store, strategy, DenyContent::default()).await
    }

    async fn provided_but(store: &Store, strategy: Strategy, denied: DenyContent) -> Vec<Vec<u8>> {
        let source = OfStore {
            store: store.clone(),
            strategy,
            rules: Arc::new(denied),
        };
        let gathered = Gathered::new(None);
        source.keys(&gathered).await.unwrap();
        let keys = gathered.finish(None, |_| {}).unwrap();
        keys.all().map(|key| key.unwrap().hash.to_vec()).collect()
    }

    #[tokio::test]
    async fn each_strategy_gives_its_blocks_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        let (leaf, other, alone) = (raw("leaf"), raw("other"), raw("alone"));
        let inner = list(&[&leaf, &other]);
        let root = list(&[&inner, &leaf, &inner]);
        let blocks = [&leaf, &other, &alone, &inner, &root].map(Clone::clone);
        store.put(blocks.to_vec(), Keep::Kept).await.unwrap();
        store
            .pin_add(store.clone(), *root.cid(), PinMode::Recursive, None, |_| {})
            .await
            .unwrap();
        let names = |blocks: &[&Block]| {
            let mut keys: Vec<Key> = blocks
                .iter()
                .map(|block| Key::new(&block.cid().hash().to_bytes()))
                .collect();
            keys.sort();
            keys.into_iter()
                .map(|key| key.hash.to_vec())
                .collect::<Vec<_>>()
        };
        let all = names(&[&leaf, &other, &alone, &inner, &root]);
        assert_eq!(provided(&store, Strategy::All).await, all);
        let pinned = names(&[&leaf, &other, &inner, &root]);
        assert_eq!(provided(&store, Strategy::Pinned).await, pinned);
        assert_eq!(provided(&store, Strategy::Roots).await, names(&[&root]));
        assert_eq!(provided(&store, Strategy::Mfs).await, names(&[]));
        assert_eq!(provided(&store, Strategy::PinnedMfs).await, pinned);
        let wish = cairn_store::pin::PinWish::new(*alone.cid(), PinMode::Recursive);
        let whole = store.pin_fetch(store.clone(), &wish, |_| {}).await.unwrap();
        let before = store.pins_version();
        store.set_files_root(*alone.cid(), whole).await.unwrap();
        assert_ne!(store.pins_version(), before);
        assert_eq!(provided(&store, Strategy::Mfs).await, names(&[&alone]));
        assert_eq!(provided(&store, Strategy::PinnedMfs).await, all);
        assert_eq!(provided(&store, Strategy::Pinned).await, pinned);
        store
            .pin_add(store.clone(), *alone.cid(), PinMode::Direct, None, |_| {})
            .await
            .unwrap();
        assert_eq!(provided(&store, Strategy::Pinned).await, all);
        // What nobody is given, nobody is told of.
        for strategy in [Strategy::All, Strategy::Pinned] {
            let denied = [*alone.cid().hash()].into_iter().collect();
            assert_eq!(provided_but(&store, strategy, denied).await, pinned);
        }
        let denied = [*root.cid().hash()].into_iter().collect();
        let left = provided_but(&store, Strategy::Roots, denied).await;
        assert_eq!(left, names(&[&alone]));
        store.close().await.unwrap();
    }
}
