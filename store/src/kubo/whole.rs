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
use crate::store::{Committed, Hold, Inner, Only};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
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
        // What is linked to twice is missing once.
        let mut missing = HashSet::new();
        let mut lacks = |absent: &mut Absent, cid: Cid, why: &dyn fmt::Display| {
            if missing.insert(cid) {
                absent.take(cid, why);
            }
        };
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
                lacks(&mut absent, cid, &ABSENT);
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
                        lacks(&mut absent, cid, &error);
                        continue;
                    }
                },
            };
            let links = block.map(|block| dag::links(&block));
            match links {
                Some(Ok(links)) => todo.extend(links.into_iter().map(|link| link.cid)),
                Some(Err(error)) => {
                    lacks(&mut absent, cid, &error.why);
                    continue;
                }
                None => {
                    lacks(&mut absent, cid, &ABSENT);
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

/// Makes pins, many in one commit. One that was made, changed or removed here while it was walked is looked at again.
pub(super) struct Pins<'a> {
    inner: &'a Inner,
    losses: u64,
    /// What is to be committed, by the pins' keys.
    waiting: BTreeMap<Vec<u8>, Waiting>,
}

struct Waiting {
    kubo: KuboPin,
    /// What stood here when it was looked at.
    before: Option<Pin>,
    new: Pin,
    /// How often it was looked at.
    tries: u32,
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
        if self.waiting.contains_key(&key_of(pin)) {
            self.commit(whole, tell)?;
        }
        if let Some(fate) = self.look(pin, whole, 1)? {
            tell(pin, fate);
        }
        if self.waiting.len() >= PINS_PER_COMMIT {
            self.commit(whole, tell)?;
        }
        Ok(())
    }

    /// Lets a pin wait for the next commit, or says what becomes of it without one.
    fn look(
        &mut self,
        pin: &KuboPin,
        whole: &mut Whole<'_>,
        tries: u32,
    ) -> Result<Option<PinFate>, PutError> {
        let key = key_of(pin);
        let before = self.inner.pins.read().get(&key);
        let here = before.as_ref();
        let mode = here.map_or(pin.mode, |here| here.mode.min(pin.mode));
        let name = match here.and_then(|here| here.name.clone()) {
            Some(name) => Some(name),
            None => Some(cut(&pin.name)).filter(|name| !name.is_empty()),
        };
        if here.is_some_and(|here| here.mode == mode && here.name == name && here.expires.is_none())
        {
            return Ok(Some(PinFate::There));
        }
        if here.is_none_or(|here| here.mode != mode)
            && let Some(missing) = whole.look(&pin.cid, mode)?
        {
            return Ok(Some(PinFate::Broken(missing)));
        }
        // Kubo's stay until somebody removes them.
        let wish = PinWish::new(pin.cid, mode).named(name);
        let Ok(new) = self.inner.pin_wished(wish) else {
            return Ok(Some(PinFate::Broken("its name is none".to_owned())));
        };
        let waiting = Waiting {
            kubo: pin.clone(),
            before,
            new,
            tries,
        };
        self.waiting.insert(key, waiting);
        Ok(None)
    }

    /// Makes those that wait durable, and only then tells of them.
    pub(super) fn commit(
        &mut self,
        whole: &mut Whole<'_>,
        tell: &mut dyn FnMut(&KuboPin, PinFate),
    ) -> Result<(), PutError> {
        while !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            let asks = waiting.iter().map(|(key, pin)| {
                let record = Record::Pinned(pin.new.clone());
                (vec![record], Only::Still(key.clone(), pin.before.clone()))
            });
            let done = self.inner.commit_each(self.losses, asks.collect());
            for (pin, done) in waiting.into_values().zip(done) {
                let fate = match done? {
                    Committed::Yes => Some(PinFate::Made),
                    Committed::Overtaken if pin.tries >= TRIES_MAX => {
                        Some(PinFate::Broken(RESTLESS.to_owned()))
                    }
                    Committed::Overtaken => self.look(&pin.kubo, whole, pin.tries + 1)?,
                };
                if let Some(fate) = fate {
                    tell(&pin.kubo, fate);
                }
            }
        }
        Ok(())
    }
}

fn key_of(pin: &KuboPin) -> Vec<u8> {
    PinWish::new(pin.cid, pin.mode).key()
}

/// As much of a name as a pin may have.
fn cut(name: &str) -> String {
    let end = name.floor_char_boundary(PIN_NAME_BYTES_MAX);
    name.get(..end).unwrap_or_default().to_owned()
}

/// Why a block is missing that Kubo has not.
const ABSENT: &str = "it is not in the repository";
/// Pins in one commit.
const PINS_PER_COMMIT: usize = 1024;
/// How often a pin, or the file tree, is looked at that somebody changes meanwhile.
pub(super) const TRIES_MAX: u32 = 8;
/// What is said of one that is changed each time.
pub(super) const RESTLESS: &str =
    "somebody changed it here each time that it was looked at; import again";
/// Missing blocks of one pin after which no more are looked for.
const ABSENT_MAX: u64 = 10_000;
