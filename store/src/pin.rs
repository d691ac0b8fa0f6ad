//! What must stay: pins, which the journal holds.
//!
//! A pin is only made once everything it reaches is in the store, kept and held, so it never points
//! at absent blocks.

use crate::block::Block;
use crate::cid::{self, Cid};
use crate::dag::absent::Absent;
use crate::dag::walk::{self, Missing, Order, Visit, walk};
use crate::journal::record::Record;
use crate::notes::About;
use crate::sink::PutError;
use crate::source::BlockSource;
use crate::store::{Committed, Hold, Inner, Keep, Only, Store, blocking};
use crate::unixfs::read::{self, ReadError};
use bytes::Bytes;
use futures::StreamExt;
use std::pin::pin;
use std::sync::Arc;

/// How far a pin reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PinMode {
    /// The block and everything below it.
    Recursive,
    /// The block alone.
    Direct,
}

impl PinMode {
    /// As Kubo writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recursive => "recursive",
            Self::Direct => "direct",
        }
    }
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub cid: Cid,
    /// How far it reaches.
    pub mode: PinMode,
    /// The operator's name for it.
    pub name: Option<String>,
}

/// A DAG that is here as a whole, and stays for as long as this lives.
#[derive(Debug)]
pub struct Whole(Arc<Hold>);

impl Whole {
    /// What the store had lost when the first of it came.
    pub(crate) fn losses(&self) -> u64 {
        self.0.losses
    }
}

/// What becomes of a note together with a pin.
#[derive(Debug, Clone)]
pub struct NoteChange {
    /// What the note is about.
    pub about: About,
    /// Its key.
    pub key: Vec<u8>,
    /// What it says from now on; `None` if it is gone.
    pub value: Option<Bytes>,
}

impl NoteChange {
    fn record(self) -> Record {
        Record::Noted {
            about: self.about as u8,
            key: self.key,
            value: self.value,
        }
    }
}

/// Longest pin name in bytes.
pub const PIN_NAME_BYTES_MAX: usize = 255;

/// So many blocks that are missing.
fn below(count: u64) -> String {
    match count {
        1 => "1 block below it was".to_owned(),
        count => format!("{count} blocks below it were"),
    }
}

/// Why a pin was not made or not changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The first block of the DAG could not be had, or one is not what its place says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Blocks below it could not be had; all others are in the store now.
    #[error(
        "{below} not found: {0}; nothing was pinned, but what came stays until the next garbage collection: \
         the same command again fetches the rest", below = below(.0.count())
    )]
    Absent(Absent),
    /// The journal or the blocks could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Not pinned at all, or only through another pin.
    #[error("not pinned or pinned indirectly")]
    NotPinned,
    /// Pinned, but not the way that was asked for.
    #[error("{cid} is pinned {how}", how = adverb(*mode))]
    OtherMode {
        /// What is pinned.
        cid: Cid,
        /// How it is pinned.
        mode: PinMode,
    },
    /// Name too long.
    #[error("a pin's name has at most {PIN_NAME_BYTES_MAX} bytes, this one has {bytes}")]
    NameTooLong {
        /// The length given.
        bytes: usize,
    },
}

/// How a walk towards a pin goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinProgress {
    /// Blocks seen.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Pin {
    /// A pin, if its name is one.
    pub(crate) fn new(cid: Cid, mode: PinMode, name: Option<String>) -> Result<Self, PinError> {
        let name = name.filter(|name| !name.is_empty());
        let bytes = name.as_ref().map_or(0, String::len);
        if bytes > PIN_NAME_BYTES_MAX {
            return Err(PinError::NameTooLong { bytes });
        }
        Ok(Self { cid, mode, name })
    }

    /// What the pin is found by: codec and multihash, whatever the CID's version.
    pub(crate) fn key(&self) -> Vec<u8> {
        key(&self.cid)
    }
}

impl Store {
    /// The pins, ordered by CID.
    pub fn pins(&self) -> Vec<Pin> {
        self.inner.read_pins().by_key.values().cloned().collect()
    }

    /// The pin on exactly this CID, by codec and multihash.
    pub fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.inner.read_pins().by_key.get(&key(cid)).cloned()
    }

    /// Reads the whole DAG from `source` (this store, or an exchange over it), keeps it and pins
    /// it. Durable when this returns. What is missing does not keep the rest from being fetched,
    /// so the next attempt has less to do; only then nothing is pinned.
    pub async fn pin_add<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        cid: Cid,
        mode: PinMode,
        name: Option<String>,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        let pin = Pin::new(cid, mode, name)?;
        if let Some(old) = self.pin(&cid) {
            if old.mode == PinMode::Recursive && mode == PinMode::Direct {
                return Err(PinError::OtherMode {
                    cid,
                    mode: old.mode,
                });
            }
            // All below it is here for as long as it stands; once it is gone, a collection may be faster.
            if old.mode == mode && self.pin_noted(pin.clone(), None, Vec::new(), ()).await? {
                return Ok(());
            }
        }
        let whole = self.pin_fetch(source, &pin, on_progress).await?;
        let pinned = self.pin_noted(pin, Some(whole), Vec::new(), ());
        pinned.await.map(drop)
    }

    /// The first half of [`Store::pin_add`]: reads the whole DAG and keeps it, and pins nothing yet.
    pub async fn pin_fetch<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        pin: &Pin,
        mut on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Whole, PinError> {
        let (cid, hold) = (pin.cid, self.inner.hold());
        Pin::new(cid, pin.mode, pin.name.clone())?;
        let max_depth = (pin.mode == PinMode::Direct).then_some(0);
        let options = walk::Options {
            max_depth,
            missing: Missing::Tell,
            read_ahead: BLOCKS_AHEAD,
            order: Order::Arrival,
            ..walk::Options::default()
        };
        // Without its first block there is nothing to go on with, and why it is missing is the error.
        if read::fetch(&source, &cid)
            .await
            .map_err(ReadError::from)?
            .is_none()
        {
            return Err(ReadError::NotFound(cid).into());
        }
        let mut absent = Absent::default();
        let visits = walk(source, cid, options).ready_chunks(VISITS_AT_ONCE);
        let mut visits = pin!(visits);
        let mut progress = PinProgress::default();
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
            self.keep(blocks, hold.clone()).await?;
            on_progress(progress);
            if absent.is_hopeless() {
                break;
            }
        }
        if !absent.is_empty() {
            return Err(PinError::Absent(absent));
        }
        Ok(Whole(hold))
    }

    /// The second half: pins what is `whole`; without that, only gives a pin that stands with this mode another name,
    /// or gives false if none does. Without a name the one that is there stays. The notes are changed in the same commit,
    /// before the pin if it is cut short. On the disk when this returns; it happens even if nobody waits for it any more,
    /// and `along` lives until then.
    pub async fn pin_noted(
        &self,
        pin: Pin,
        whole: Option<Whole>,
        notes: Vec<NoteChange>,
        along: impl Send + 'static,
    ) -> Result<bool, PinError> {
        let (cid, mode) = (pin.cid, pin.mode);
        let new = Pin::new(cid, mode, self.inner.pin_name(&cid, pin.name))?;
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
        let mut records: Vec<Record> = notes.into_iter().map(NoteChange::record).collect();
        records.push(Record::Pinned(new));
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
        let pins = pins.collect::<Result<Vec<Pin>, PinError>>()?;
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

    /// Holds the blocks and makes them kept; those that are not here yet are put.
    async fn keep(&self, blocks: Vec<Block>, hold: Arc<Hold>) -> Result<(), PinError> {
        let inner = self.inner.clone();
        let kept = blocking(move || inner.put(&blocks, Keep::Kept, &hold)).await;
        Ok(kept.unwrap_or(Err(PutError::Closing))?)
    }
}

impl Inner {
    /// What a pin is to be called: what is asked for, or else what it is called already.
    pub(crate) fn pin_name(&self, cid: &Cid, name: Option<String>) -> Option<String> {
        name.or_else(|| self.read_pins().by_key.get(&key(cid))?.name.clone())
    }
}

fn key(cid: &Cid) -> Vec<u8> {
    cid::to_v1(cid).to_bytes()
}

const fn adverb(mode: PinMode) -> &'static str {
    match mode {
        PinMode::Recursive => "recursively",
        PinMode::Direct => "directly",
    }
}

/// Blocks asked for ahead: small ones come from peers as fast as many are under way.
const BLOCKS_AHEAD: usize = 512;
/// Blocks kept in one go while a DAG is walked.
const VISITS_AT_ONCE: usize = 256;
