//! Making, changing and removing pins.

use super::{Holding, NoteChange, Pin, PinError, PinMode, PinProgress, PinWish, Whole};
use crate::block::Block;
use crate::cid::{self, Cid};
use crate::dag::absent::Absent;
use crate::dag::pb;
use crate::dag::walk::{self, Missing, Order, Visit, walk};
use crate::journal::record::Record;
use crate::notes::About;
use crate::sink::PutError;
use crate::source::BlockSource;
use crate::store::{Committed, Hold, Only, Store, blocking};
use crate::unixfs::format::Message;
use crate::unixfs::read::{self, ReadError};
use futures::StreamExt;
use std::pin::pin;
use std::sync::Arc;

impl Store {
    /// Reads the whole DAG from `source` (this store, or an exchange over it), keeps it and pins
    /// it for good. Durable when this returns. What is missing does not keep the rest from being fetched,
    /// so the next attempt has less to do; only then nothing is pinned.
    pub async fn pin_add<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        cid: Cid,
        mode: PinMode,
        name: Option<String>,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        let wish = PinWish::new(cid, mode).named(name);
        self.pin_as(source, wish, on_progress).await
    }

    /// [`Store::pin_add`] with all that may be wished.
    pub async fn pin_as<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: PinWish,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        wish.check()?;
        if let Some(old) = self.pin(&wish.cid) {
            if old.mode == PinMode::Recursive && wish.mode == PinMode::Direct {
                return Err(PinError::OtherMode {
                    cid: wish.cid,
                    mode: old.mode,
                });
            }
            // All below it is here for as long as it stands; once it is gone, a collection may be faster.
            if self.stands(&wish) && self.pin_noted(wish.clone(), None, Vec::new(), ()).await? {
                return Ok(());
            }
        }
        let whole = self.pin_fetch(source, &wish, on_progress).await?;
        let pinned = self.pin_noted(wish, Some(whole), Vec::new(), ());
        pinned.await.map(drop)
    }

    /// Holds what is fetched towards a pin, over several attempts.
    pub fn pin_holding(&self) -> Holding {
        Holding(self.inner.hold())
    }

    /// The first half of [`Store::pin_as`]: reads the whole DAG and keeps it, and pins nothing yet.
    pub async fn pin_fetch<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: &PinWish,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Whole, PinError> {
        let holding = self.pin_holding();
        self.pin_fetch_holding(source, wish, &holding, on_progress)
            .await
    }

    /// [`Store::pin_fetch`], holding what came even if it comes to nothing.
    pub async fn pin_fetch_holding<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: &PinWish,
        holding: &Holding,
        mut on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Whole, PinError> {
        let (cid, hold) = (wish.cid, holding.0.clone());
        wish.check()?;
        // Only of one that stands from the beginning is what the walk misses missing: of one that others make meanwhile,
        // it may have come behind the walk.
        let stood = self.stands(wish);
        let max_depth = (wish.mode == PinMode::Direct).then_some(0);
        let options = walk::Options {
            max_depth,
            missing: Missing::Tell,
            read_ahead: BLOCKS_AHEAD,
            order: Order::Arrival,
            ..walk::Options::default()
        };
        // Without its first block there is nothing to go on with, and why it is missing is the error.
        let root = read::fetch(&source, &cid).await.map_err(ReadError::from)?;
        let root = root.ok_or(ReadError::NotFound(cid))?;
        let mut progress = PinProgress {
            total: told_size(&root, wish.mode),
            ..PinProgress::default()
        };
        let too_large = |bytes, is_claimed| match wish.max_bytes {
            Some(max) if bytes > max => Err(PinError::TooLarge {
                cid,
                max,
                bytes,
                is_claimed,
                stands: self.stands(wish),
            }),
            _ => Ok(()),
        };
        too_large(progress.total.unwrap_or(0), true)?;
        on_progress(progress);
        let mut absent = Absent::default();
        let visits = walk(source, cid, options).ready_chunks(VISITS_AT_ONCE);
        let mut visits = pin!(visits);
        while let Some(batch) = visits.next().await {
            let mut blocks = Vec::with_capacity(batch.len());
            for visit in batch {
                match visit? {
                    Visit::Block { block, .. } => {
                        absent.came();
                        blocks.push(block);
                    }
                    Visit::Missing { cid, why } => absent.take(cid, why),
                }
            }
            progress.blocks += blocks.len() as u64;
            progress.bytes += blocks
                .iter()
                .map(|block| block.data().len() as u64)
                .sum::<u64>();
            too_large(progress.bytes, false)?;
            self.keep(blocks, hold.clone()).await?;
            on_progress(progress);
            if absent.is_hopeless() {
                break;
            }
        }
        match (absent.is_empty(), stood && self.stands(wish)) {
            (true, _) => Ok(Whole(hold)),
            (false, false) => Err(PinError::Absent(absent)),
            (false, true) => Err(PinError::Broken { cid, absent }),
        }
    }

    /// Whether there is such a pin already.
    fn stands(&self, wish: &PinWish) -> bool {
        let standing = self.inner.pins.read().standing(&wish.key());
        standing.is_some_and(|(mode, _)| mode == wish.mode)
    }

    /// The second half: pins what is `whole`; without that, only changes what is said of a pin that stands with this mode,
    /// or gives false if none does. The notes are changed in the same commit,
    /// before the pin if it is cut short, a job's behind it. On the disk when this returns; it happens even if nobody waits for it any more,
    /// and `along` lives until then.
    pub async fn pin_noted(
        &self,
        wish: PinWish,
        whole: Option<Whole>,
        notes: Vec<NoteChange>,
        along: impl Send + 'static,
    ) -> Result<bool, PinError> {
        let (cid, mode) = (wish.cid, wish.mode);
        let new = self.inner.pin_wished(wish)?;
        if notes.is_empty() && whole.is_none() && self.pin(&cid).as_ref() == Some(&new) {
            return Ok(true);
        }
        let only = match (&whole, mode) {
            (None, _) => Only::With(vec![new.clone()]),
            (Some(_), PinMode::Recursive) => Only::Always,
            (Some(_), PinMode::Direct) => Only::Beside(new.clone()),
        };
        let inner = self.inner.clone();
        let is_noted = !notes.is_empty();
        // Cut short, a job is to be found without its pin, or with it, and never gone without it.
        let (jobs, notes): (Vec<_>, Vec<_>) = notes
            .into_iter()
            .partition(|note| note.about == About::PinJob);
        let mut records: Vec<Record> = notes.into_iter().map(NoteChange::record).collect();
        records.push(Record::Pinned(new));
        records.extend(jobs.into_iter().map(NoteChange::record));
        // The hold goes along: it must outlive the commit even if nobody waits for it any more.
        let commit = move || {
            let (_along, whole) = (along, whole);
            let losses = whole
                .as_ref()
                .map_or_else(|| inner.losses(), |it| it.0.losses);
            let committed = inner.commit_only(losses, records, only)?;
            if is_noted {
                inner.commit_to_disk(Vec::new())?;
            }
            Ok(committed)
        };
        match blocking(commit).await.unwrap_or(Err(PutError::Closing))? {
            Committed::Yes => Ok(true),
            Committed::Overtaken if mode == PinMode::Direct && self.pin(&cid).is_some() => {
                Err(PinError::OtherMode {
                    cid,
                    mode: PinMode::Recursive,
                })
            }
            Committed::Overtaken => Ok(false),
        }
    }

    /// Removes a pin, if there is one to remove and it stands, and changes notes once it is gone. Happens even if nobody
    /// waits for it any more, and `along` lives until then. Durable when this returns.
    pub async fn unpin_noted(
        &self,
        pin: Option<Pin>,
        notes: Vec<NoteChange>,
        along: impl Send + 'static,
    ) -> Result<(), PutError> {
        let inner = self.inner.clone();
        let commit = move || {
            let _along = along;
            if let Some(pin) = pin {
                let gone = vec![Record::Unpinned(pin.key())];
                // Overtaken: somebody else did it already.
                let _: Committed =
                    inner.commit_only(inner.losses(), gone, Only::With(vec![pin]))?;
            }
            match notes.is_empty() {
                true => Ok(()),
                false => inner.commit_to_disk(notes.into_iter().map(NoteChange::record).collect()),
            }
        };
        blocking(commit).await.unwrap_or(Err(PutError::Closing))
    }

    /// Unpins. With a mode, only a pin of that mode.
    pub async fn pin_remove(&self, cid: &Cid, mode: Option<PinMode>) -> Result<(), PinError> {
        self.pins_remove(&[*cid], mode).await
    }

    /// [`Store::pin_remove`] of many: all of them in one commit, or none.
    pub async fn pins_remove(&self, cids: &[Cid], mode: Option<PinMode>) -> Result<(), PinError> {
        let pins = self.pins_removable(cids, mode)?;
        let inner = self.inner.clone();
        let commit = move || {
            let records = pins.iter().map(|pin| Record::Unpinned(pin.key())).collect();
            let only = match mode {
                Some(_) => Only::With(pins),
                None => Only::Always,
            };
            inner.commit_only(inner.losses(), records, only)
        };
        match blocking(commit).await.unwrap_or(Err(PutError::Closing))? {
            Committed::Yes => Ok(()),
            Committed::Overtaken => Err(PinError::NotPinned),
        }
    }

    /// The pins on these, or why they could not be removed, with this mode if with one.
    pub fn pins_removable(
        &self,
        cids: &[Cid],
        mode: Option<PinMode>,
    ) -> Result<Vec<Pin>, PinError> {
        let pins = cids.iter().map(|cid| {
            let pin = self.pin(cid).ok_or(PinError::NotPinned)?;
            if mode.is_some_and(|mode| mode != pin.mode) {
                return Err(PinError::OtherMode {
                    cid: *cid,
                    mode: pin.mode,
                });
            }
            Ok(pin)
        });
        pins.collect()
    }

    /// Holds the blocks and makes them kept; those that are not here yet are put.
    async fn keep(&self, blocks: Vec<Block>, hold: Arc<Hold>) -> Result<(), PinError> {
        let inner = self.inner.clone();
        let kept = blocking(move || inner.put_unless_in_place(&blocks, &hold)).await;
        Ok(kept.unwrap_or(Err(PutError::Closing))?)
    }
}

/// How many bytes a pin on this block reaches, if the block tells.
fn told_size(root: &Block, mode: PinMode) -> Option<u64> {
    let own = root.data().len() as u64;
    if mode == PinMode::Direct || crate::dag::has_no_links(root.cid().codec()) {
        return Some(own);
    }
    if root.cid().codec() != cid::DAG_PB {
        return None;
    }
    let node = pb::decode(root.data()).ok()?;
    if node
        .links
        .iter()
        .all(|link| link.tsize.is_some_and(|size| size > 0))
    {
        return Some(read::cumulative(root, &node));
    }
    Message::decode(&node.data?).ok()?.file_size
}

/// Blocks asked for ahead: small ones come from peers as fast as many are under way.
const BLOCKS_AHEAD: usize = 512;
/// Blocks kept in one go while a DAG is walked.
const VISITS_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{HashKind, RAW, Version};
    use crate::config::Config;
    use crate::pin::Expiry;
    use crate::source::SourceError;
    use crate::store::Keep;

    fn leaf(text: &'static str) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec: RAW,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, text.into()).unwrap()
    }

    /// A node over leaves.
    fn above(leaves: &[&Block]) -> Block {
        let link = |leaf: &&Block| pb::PbLink {
            cid: *leaf.cid(),
            name: Some(String::new()),
            tsize: Some(leaf.data().len() as u64),
        };
        let links = leaves.iter().map(link).collect();
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::DAG_PB,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, pb::encode(&pb::PbNode { links, data: None })).unwrap()
    }

    fn opened(folder: &std::path::Path) -> Store {
        Store::open(folder, &Config::default(), &mut |_| {}).unwrap()
    }

    async fn put(store: &Store, block: &Block) {
        store.put(vec![block.clone()], Keep::Kept).await.unwrap();
    }

    /// A pin in the journal, whatever is here.
    fn stands(store: &Store, pin: Pin) {
        let pinned = vec![Record::Pinned(pin)];
        let inner = &store.inner;
        inner.commit_since(inner.losses(), pinned).unwrap();
    }

    #[tokio::test]
    async fn a_pin_that_stands_and_is_not_whole_is_told_as_that_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let (one, other) = (leaf("one"), leaf("other"));
        let root = above(&[&one, &other]);
        for block in [&root, &one] {
            put(&store, block).await;
        }
        let wish = PinWish::new(*root.cid(), PinMode::Recursive);
        stands(&store, Pin::new(*root.cid(), wish.mode, None).unwrap());
        let here = async || {
            let here = store.pins_here(&store, vec![wish.clone()]).await.unwrap();
            store.pins_noted(here, Vec::new(), ()).await.unwrap()
        };
        assert_eq!(here().await, [false]);
        let broken = store.pin_fetch(store.clone(), &wish, |_| {}).await;
        let broken = broken.unwrap_err();
        assert!(
            matches!(&broken, PinError::Broken { cid, absent } if cid == root.cid() && absent.count() == 1),
            "{broken}"
        );
        assert!(broken.to_string().contains(&other.cid().to_string()));
        put(&store, &other).await;
        assert_eq!(here().await, [true]);
        store.pin_fetch(store.clone(), &wish, |_| {}).await.unwrap();
    }

    /// A store in which others make a pin once somebody has missed a block.
    #[derive(Debug, Clone)]
    struct PinnedLate(Store, Pin);

    impl BlockSource for PinnedLate {
        async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
            let found = self.0.block(cid).await;
            if matches!(found, Ok(None)) {
                stands(&self.0, self.1.clone());
            }
            found
        }

        fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
            self.0.admits(cid)
        }
    }

    #[tokio::test]
    async fn a_pin_that_others_make_meanwhile_is_not_told_as_broken() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let root = above(&[&leaf("late")]);
        put(&store, &root).await;
        let wish = PinWish::new(*root.cid(), PinMode::Recursive);
        let pin = Pin::new(*root.cid(), wish.mode, None).unwrap();
        let source = PinnedLate(store.clone(), pin);
        let absent = store.pin_fetch(source, &wish, |_| {}).await.unwrap_err();
        assert!(matches!(absent, PinError::Absent(_)), "{absent}");
        assert!(store.pin(root.cid()).is_some());
    }

    #[tokio::test]
    async fn a_pin_from_a_far_future_does_not_take_the_others_along() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let (one, other) = (leaf("one"), leaf("other"));
        let far = 7_000_000_000;
        let wrong = Pin {
            created: Some(far),
            ..Pin::new(*one.cid(), PinMode::Direct, None).unwrap()
        };
        stands(&store, wrong);
        for block in [&one, &other] {
            put(&store, block).await;
        }
        let wish = PinWish {
            expiry: Expiry::At(store.expiry_after(1_800_000_000, std::time::Duration::ZERO)),
            ..PinWish::new(*other.cid(), PinMode::Direct)
        };
        store.pin_as(store.clone(), wish, |_| {}).await.unwrap();
        let pin = store.pin(other.cid()).unwrap();
        assert!(pin.created.unwrap() < far, "{pin:?}");
        assert_eq!(pin.expires, Some(1_800_000_000));
        assert_eq!(store.pin(one.cid()).unwrap().created, Some(far));
    }
}
