//! Pins, made once everything below them is here.
//!
//! Leaves are looked up, and only blocks that may have links are read: the import has just written all of them. What is
//! whole below one pin is not walked again below another.

use super::records::KuboPin;
use crate::block::Block;
use crate::cid::{self, Cid};
use crate::dag::{self, absent::Absent};
use crate::index::Key;
use crate::journal::record::Record;
use crate::pin::{PIN_NAME_BYTES_MAX, Pin, PinMode, PinWish};
use crate::sink::PutError;
use crate::store::{Hold, Inner};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What became of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinFate {
    /// It is made.
    Made,
    /// It was there already.
    There,
    /// What it reaches is not here as a whole: what is missing.
    Broken(String),
}

/// What became of the file tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesFate {
    /// It is the file tree here.
    Taken,
    /// It was already.
    There,
    /// Kubo had none, or an empty one.
    None,
    /// There is another one here, which stays; Kubo's is pinned.
    Beside,
    /// It is not here as a whole: what is missing.
    Broken(String),
}

/// Finds out what is whole, and keeps it.
pub(super) struct Whole<'a> {
    inner: &'a Inner,
    hold: &'a Arc<Hold>,
    /// Codecs and multihashes below which everything is here.
    walked: HashSet<Key>,
}

impl<'a> Whole<'a> {
    pub(super) fn new(inner: &'a Inner, hold: &'a Arc<Hold>) -> Self {
        Self {
            inner,
            hold,
            walked: HashSet::new(),
        }
    }

    /// Holds and keeps everything that `root` reaches; what is missing of it, if anything is.
    pub(super) fn look(&mut self, root: &Cid, mode: PinMode) -> Result<Option<String>, PutError> {
        let mut absent = Absent::default();
        let mut walked = Vec::new();
        let mut todo = vec![*root];
        while let Some(cid) = todo.pop() {
            if absent.is_hopeless() || absent.count() >= ABSENT_MAX {
                break;
            }
            let is_leaf = mode == PinMode::Direct || dag::has_no_links(cid.codec());
            let key = self.key(&cid);
            if !is_leaf && self.walked.contains(&key) {
                continue;
            }
            if !cid::is_identity(&cid) && !self.is_kept(&cid)? {
                absent.take(cid, "it is not in the repository");
                continue;
            }
            absent.came();
            if is_leaf {
                continue;
            }
            let block = match Block::from_identity(&cid) {
                Some(block) => Some(block),
                None => match self.inner.block(&cid) {
                    Ok(block) => block,
                    Err(error) => {
                        absent.take(cid, error);
                        continue;
                    }
                },
            };
            let links = block.map(|block| dag::links(&block));
            match links {
                Some(Ok(links)) => todo.extend(links.into_iter().map(|link| link.cid)),
                Some(Err(error)) => {
                    absent.take(cid, error.why);
                    continue;
                }
                None => {
                    absent.take(cid, "it is not in the repository");
                    continue;
                }
            }
            self.walked.insert(key);
            walked.push(key);
        }
        if absent.is_empty() {
            return Ok(None);
        }
        // Something is missing below some of them.
        for key in walked {
            self.walked.remove(&key);
        }
        Ok(Some(absent.to_string()))
    }

    fn is_kept(&self, cid: &Cid) -> Result<bool, PutError> {
        Ok(self.inner.keep_present(cid.hash(), self.hold)?.is_some())
    }

    /// Links are read along the referring CID's codec, so a multihash may be walked once for each.
    fn key(&self, cid: &Cid) -> Key {
        let mut key = self.inner.index.key(cid.hash());
        for (byte, codec) in key.iter_mut().zip(cid.codec().to_le_bytes()) {
            *byte ^= codec;
        }
        key
    }
}

/// Makes pins, many in one commit.
pub(super) struct Pins<'a> {
    inner: &'a Inner,
    losses: u64,
    /// What is to be committed, by the pins' keys.
    waiting: BTreeMap<Vec<u8>, (KuboPin, Pin)>,
}

impl<'a> Pins<'a> {
    pub(super) fn new(inner: &'a Inner, losses: u64) -> Self {
        Self {
            inner,
            losses,
            waiting: BTreeMap::new(),
        }
    }

    /// Makes a pin with the next commit, if it is whole and not here already. One that is here already
    /// keeps its name.
    pub(super) fn take(
        &mut self,
        pin: &KuboPin,
        whole: &mut Whole<'_>,
        tell: &mut dyn FnMut(&KuboPin, PinFate),
    ) -> Result<(), PutError> {
        // Kubo has one for each version of a CID, and here they are one.
        let key = cid::to_v1(&pin.cid).to_bytes();
        if self.waiting.contains_key(&key) {
            self.commit(tell)?;
        }
        let here = self.inner.pins.read().get(&key);
        let mode = here
            .as_ref()
            .map_or(pin.mode, |here| here.mode.min(pin.mode));
        let name = match here.as_ref().and_then(|here| here.name.clone()) {
            Some(name) => Some(name),
            None => Some(cut(&pin.name)).filter(|name| !name.is_empty()),
        };
        if here
            .as_ref()
            .is_some_and(|here| here.mode == mode && here.name == name && here.expires.is_none())
        {
            tell(pin, PinFate::There);
            return Ok(());
        }
        if here.as_ref().is_none_or(|here| here.mode != mode)
            && let Some(missing) = whole.look(&pin.cid, mode)?
        {
            tell(pin, PinFate::Broken(missing));
            return Ok(());
        }
        // Kubo's stay until somebody removes them.
        let wish = PinWish::new(pin.cid, mode).named(name);
        let Ok(new) = self.inner.pin_wished(wish) else {
            tell(pin, PinFate::Broken("its name is none".to_owned()));
            return Ok(());
        };
        self.waiting.insert(key, (pin.clone(), new));
        if self.waiting.len() >= PINS_PER_COMMIT {
            self.commit(tell)?;
        }
        Ok(())
    }

    /// Makes those that wait durable, and only then tells of them.
    pub(super) fn commit(
        &mut self,
        tell: &mut dyn FnMut(&KuboPin, PinFate),
    ) -> Result<(), PutError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        let records = waiting.values().map(|(_, pin)| Record::Pinned(pin.clone()));
        self.inner.commit_since(self.losses, records.collect())?;
        for (pin, _) in waiting.into_values() {
            tell(&pin, PinFate::Made);
        }
        Ok(())
    }
}

/// As much of a name as a pin may have.
fn cut(name: &str) -> String {
    let end = name.floor_char_boundary(PIN_NAME_BYTES_MAX);
    name.get(..end).unwrap_or_default().to_owned()
}

/// Pins in one commit.
const PINS_PER_COMMIT: usize = 1024;
/// Missing blocks of one pin after which no more are looked for.
const ABSENT_MAX: u64 = 10_000;
