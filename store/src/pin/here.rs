//! Many pins at once, on what is here already: read on one thread, and made in one commit.

use super::{NoteChange, PinError, PinMode, PinWish};
use crate::block::Block;
use crate::cid::{self, Cid};
use crate::dag;
use crate::journal::record::Record;
use crate::sink::PutError;
use crate::source::BlockSource;
use crate::store::{Committed, Hold, Inner, Only, Store, blocking};
use std::collections::HashSet;
use std::sync::Arc;

/// Wishes of which some can be met at once; what they need stays here for as long as this lives.
#[derive(Debug)]
pub struct Here {
    wishes: Vec<(PinWish, Found)>,
    hold: Arc<Hold>,
}

/// What stands in the place of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It does already, and all that it reaches is here.
    Pin,
    /// All that it reaches.
    Whole,
    /// That takes longer to find out, or is not here.
    Unknown,
}

impl Here {
    /// Those that can be met at once.
    pub fn met(&self) -> impl Iterator<Item = &PinWish> {
        let met = self
            .wishes
            .iter()
            .filter(|(_, found)| *found != Found::Unknown);
        met.map(|(wish, _)| wish)
    }
}

impl Store {
    /// Looks which of these pins reach only what is here and may be read through `source`, at most [`PINS_AT_ONCE`].
    pub async fn pins_here<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        wishes: Vec<PinWish>,
    ) -> Result<Here, PinError> {
        let (inner, source) = (self.inner.clone(), source.clone());
        let look = move || {
            let hold = inner.hold();
            let mut looking = Looking {
                inner: &inner,
                hold: &hold,
                blocks: Vec::new(),
                bytes: 0,
            };
            let mut found = Vec::with_capacity(wishes.len());
            for (at, wish) in wishes.into_iter().enumerate() {
                let what = match wish.check().is_ok() && at < PINS_AT_ONCE {
                    true => looking.look(&source, &wish)?,
                    false => Found::Unknown,
                };
                found.push((wish, what));
            }
            looking.keep()?;
            let wishes = found;
            Ok(Here { wishes, hold })
        };
        blocking(look)
            .await
            .unwrap_or_else(|| Err(PutError::Closing.into()))
    }

    /// Makes those pins of which everything was here, in one commit together with the notes; gives for each of the wishes
    /// whether its pin stands now. The others are for [`Store::pin_as`]. `along` lives until it is done.
    pub async fn pins_noted(
        &self,
        here: Here,
        notes: Vec<NoteChange>,
        along: impl Send + 'static,
    ) -> Result<Vec<bool>, PinError> {
        let inner = self.inner.clone();
        let commit = move || {
            let Here { wishes, hold } = here;
            let _along = along;
            let mut stands = vec![false; wishes.len()];
            let (mut asked, mut asks) = (Vec::new(), Vec::new());
            let is_noted = !notes.is_empty();
            if is_noted {
                let records = notes.into_iter().map(NoteChange::record).collect();
                asks.push((records, Only::Always));
            }
            for (at, (wish, found)) in wishes.into_iter().enumerate() {
                if found == Found::Unknown {
                    continue;
                }
                let mode = wish.mode;
                let Ok(new) = inner.pin_wished(wish) else {
                    continue;
                };
                let only = match (found, mode) {
                    (Found::Pin, _) => {
                        if inner.pins.read().get(&new.key()).as_ref() == Some(&new) {
                            if let Some(stands) = stands.get_mut(at) {
                                *stands = true;
                            }
                            continue;
                        }
                        Only::With(vec![new.clone()])
                    }
                    (_, PinMode::Recursive) => Only::Always,
                    (_, PinMode::Direct) => Only::Beside(new.clone()),
                };
                asked.push(at);
                asks.push((vec![Record::Pinned(new)], only));
            }
            let mut done = inner.commit_each(hold.losses, asks).into_iter();
            if is_noted {
                done.next().unwrap_or(Err(PutError::Closing))?;
            }
            for (at, done) in asked.into_iter().zip(done) {
                if let Some(stands) = stands.get_mut(at) {
                    *stands = done? == Committed::Yes;
                }
            }
            if is_noted {
                inner.commit_to_disk(Vec::new())?;
            }
            Ok(stands)
        };
        blocking(commit)
            .await
            .unwrap_or_else(|| Err(PutError::Closing.into()))
    }
}

/// What was read and is to be kept.
struct Looking<'a> {
    inner: &'a Inner,
    hold: &'a Hold,
    blocks: Vec<Block>,
    bytes: usize,
}

impl Looking<'_> {
    fn look(&mut self, source: &impl BlockSource, wish: &PinWish) -> Result<Found, PinError> {
        let standing = self.inner.pins.read().standing(&wish.key());
        let here = match standing {
            Some((mode, _)) if mode == wish.mode => Found::Pin,
            Some((PinMode::Recursive, _)) => return Ok(Found::Unknown),
            _ => Found::Whole,
        };
        if wish.max_bytes.is_some() {
            return Ok(Found::Unknown);
        }
        let begun = self.blocks.len();
        let is_here = self.reads(source, wish);
        if !is_here {
            self.blocks.truncate(begun);
        }
        self.bytes = self.blocks.iter().map(|block| block.data().len()).sum();
        if self.blocks.len() >= BLOCKS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.keep()?;
        }
        Ok(if is_here { here } else { Found::Unknown })
    }

    /// Reads what a pin reaches; false unless that is here and not much.
    fn reads(&mut self, source: &impl BlockSource, wish: &PinWish) -> bool {
        let mut seen: HashSet<Cid> = HashSet::new();
        let mut todo = vec![wish.cid];
        while let Some(cid) = todo.pop() {
            if source.admits(&cid).is_err() || cid::check(&cid).is_err() {
                return false;
            }
            let block = match Block::from_identity(&cid) {
                Some(block) => block,
                None => match self.inner.block(&cid) {
                    Ok(Some(block)) => block,
                    _ => return false,
                },
            };
            if seen.len() >= BLOCKS_EACH_MAX {
                return false;
            }
            if wish.mode == PinMode::Recursive && !dag::has_no_links(cid.codec()) {
                let Ok(links) = dag::links(&block) else {
                    return false;
                };
                let links = links.into_iter().map(|link| link.cid);
                todo.extend(links.filter(|cid| seen.insert(*cid)));
            }
            self.blocks.push(block);
        }
        true
    }

    /// Holds the blocks and makes them kept.
    fn keep(&mut self) -> Result<(), PutError> {
        let blocks = std::mem::take(&mut self.blocks);
        self.bytes = 0;
        self.inner.put_unless_in_place(&blocks, self.hold)
    }
}

/// Most pins that are made in one commit.
pub const PINS_AT_ONCE: usize = 1024;
/// Blocks below one of them; what reaches more is walked like what comes from peers.
const BLOCKS_EACH_MAX: usize = 256;
/// Blocks and bytes that are kept in one go.
const BLOCKS_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 8 << 20;
