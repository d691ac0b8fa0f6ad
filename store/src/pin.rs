//! What must stay: pins, which the journal holds.
//!
//! A pin is only made once everything it reaches is in the store, kept and held, so it never points
//! at absent blocks. One that expires stands until somebody removes it ([`Store::pins_expire`]): reading asks no clock.
//!
//! * this file: what a pin is, what is wished of one, and looking at them.
//! * [`table`]: all of them, packed.
//! * `make.rs`: making, changing and removing them; `here.rs`: making many of what is here.
//! * `expire.rs`: those whose time is over.

mod expire;
mod here;
mod make;
pub(crate) mod table;

pub use here::{Here, PINS_AT_ONCE};

use crate::cid::Cid;
use crate::dag::absent::Absent;
use crate::journal::record::Record;
use crate::notes::About;
use crate::sink::PutError;
use crate::store::{Hold, Inner, Store};
use crate::unixfs::read::ReadError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use table::key;

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

/// What the operator says of a pin beside its name.
pub type Metadata = BTreeMap<String, String>;

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// What is pinned.
    pub cid: Cid,
    /// How far it reaches.
    pub mode: PinMode,
    /// The operator's name for it.
    pub name: Option<String>,
    /// What else the operator says of it.
    pub metadata: Metadata,
    /// When it was made, in seconds since 1970; not known of old ones.
    pub created: Option<u64>,
    /// From which second since 1970 on it may be removed.
    pub expires: Option<u64>,
}

/// What a pin is to be. Of one that stands already, what is not said stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinWish {
    /// What is to be pinned.
    pub cid: Cid,
    /// How far it reaches.
    pub mode: PinMode,
    /// Its name; an empty one takes the name away.
    pub name: Option<String>,
    /// What is to be said of it beside; an empty value takes a key away.
    pub metadata: Metadata,
    /// Until when it stays.
    pub expiry: Expiry,
    /// Most bytes that it may reach.
    pub max_bytes: Option<u64>,
}

/// Until when a pin stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// Until somebody removes it.
    #[default]
    Never,
    /// As it was; a new one until somebody removes it.
    AsItWas,
    /// Until this second since 1970.
    At(u64),
}

/// A DAG that is here as a whole, and stays for as long as this lives.
#[derive(Debug)]
pub struct Whole(Arc<Hold>);

impl Whole {
    /// What is held.
    pub(crate) fn of(hold: Arc<Hold>) -> Self {
        Self(hold)
    }

    /// What the store had lost when the first of it came.
    pub(crate) fn losses(&self) -> u64 {
        self.0.losses
    }
}

/// What was fetched towards a pin, which stays for as long as this lives.
#[derive(Debug, Clone)]
pub struct Holding(Arc<Hold>);

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
    pub(crate) fn record(self) -> Record {
        Record::Noted {
            about: self.about as u8,
            key: self.key,
            value: self.value,
        }
    }
}

/// Longest pin name in bytes.
pub const PIN_NAME_BYTES_MAX: usize = 255;
/// Most keys of a pin's metadata.
pub const PIN_METADATA_MAX: usize = 64;
/// Most bytes of a pin's metadata, keys and values together.
pub const PIN_METADATA_BYTES_MAX: usize = 4096;

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
    /// The pin stands, and not all that it reaches could be had.
    #[error(
        "{cid} is pinned, but not whole: not found: {absent}; the same command again fetches the rest"
    )]
    Broken {
        /// What is pinned.
        cid: Cid,
        /// What is missing of it.
        absent: Absent,
    },
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
    /// Too much metadata.
    #[error(
        "a pin has at most {PIN_METADATA_MAX} keys of metadata with at most {PIN_METADATA_BYTES_MAX} bytes, values included; \
         this one would have {keys} with {bytes}"
    )]
    Metadata {
        /// How many keys there would be.
        keys: usize,
        /// Of how many bytes, with their values.
        bytes: usize,
    },
    /// Metadata without a key.
    #[error("metadata needs a key: write it like key=value")]
    NoKey,
    /// It is larger than it may be.
    #[error(
        "{cid} {}: it may have {max} bytes at most, and {}",
        if *stands { "is pinned already and stays so, as it was" } else { "was not pinned" },
        larger(*bytes, *is_claimed)
    )]
    TooLarge {
        /// What was to be pinned.
        cid: Cid,
        /// How large it may be.
        max: u64,
        /// How large it is, so far as is known.
        bytes: u64,
        /// Whether that is what its first block says; else so many were seen.
        is_claimed: bool,
        /// Whether such a pin stands.
        stands: bool,
    },
}

fn larger(bytes: u64, is_claimed: bool) -> String {
    match is_claimed {
        true => format!("its first block says that it has {bytes}"),
        false => format!(
            "{bytes} had come when that was noticed; what no pin reaches goes with the next garbage collection"
        ),
    }
}

/// How a walk towards a pin goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinProgress {
    /// Blocks seen.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many bytes there are in all, if the first block tells. Somebody else wrote it, and what is linked twice counts
    /// twice.
    pub total: Option<u64>,
}

impl Pin {
    /// A pin of which nothing else is known, if its name is one.
    pub fn new(cid: Cid, mode: PinMode, name: Option<String>) -> Result<Self, PinError> {
        let name = name.filter(|name| !name.is_empty());
        let bytes = name.as_ref().map_or(0, String::len);
        if bytes > PIN_NAME_BYTES_MAX {
            return Err(PinError::NameTooLong { bytes });
        }
        Ok(Self {
            cid,
            mode,
            name,
            metadata: Metadata::new(),
            created: None,
            expires: None,
        })
    }

    /// What the pin is found by: codec and multihash, whatever the CID's version.
    pub fn key(&self) -> Vec<u8> {
        key(&self.cid)
    }
}

impl PinWish {
    /// A pin that stays, and of which no more is said.
    pub const fn new(cid: Cid, mode: PinMode) -> Self {
        Self {
            cid,
            mode,
            name: None,
            metadata: Metadata::new(),
            expiry: Expiry::Never,
            max_bytes: None,
        }
    }

    /// The same with this name, if it is one.
    #[must_use]
    pub fn named(self, name: Option<String>) -> Self {
        Self { name, ..self }
    }

    /// What the pin is found by.
    pub fn key(&self) -> Vec<u8> {
        key(&self.cid)
    }

    /// Whether there can be such a pin.
    pub fn check(&self) -> Result<(), PinError> {
        self.clone().over(None, 0).map(drop)
    }

    /// The pin that comes of it in the place of the one that stands, if one does, at a second since 1970.
    pub(crate) fn over(self, old: Option<Pin>, now: u64) -> Result<Pin, PinError> {
        let is_new = old.is_none();
        let (old_name, mut metadata, created, expires) = match old {
            Some(old) => (old.name, old.metadata, old.created, old.expires),
            None => (None, Metadata::new(), None, None),
        };
        for (key, value) in self.metadata {
            if key.is_empty() {
                return Err(PinError::NoKey);
            }
            match value.is_empty() {
                true => metadata.remove(&key),
                false => metadata.insert(key, value),
            };
        }
        let bytes = metadata.iter().map(|(key, value)| key.len() + value.len());
        let (keys, bytes) = (metadata.len(), bytes.sum());
        if keys > PIN_METADATA_MAX || bytes > PIN_METADATA_BYTES_MAX {
            return Err(PinError::Metadata { keys, bytes });
        }
        Ok(Pin {
            metadata,
            created: if is_new {
                Some(now).filter(|at| *at > 0)
            } else {
                created
            },
            expires: match self.expiry {
                Expiry::Never => None,
                Expiry::AsItWas => expires,
                Expiry::At(at) => Some(at),
            },
            ..Pin::new(self.cid, self.mode, self.name.or(old_name))?
        })
    }
}

impl Store {
    /// The pins, ordered by CID. There may be millions: whoever goes through all of them takes [`Store::pin_pages`].
    pub fn pins(&self) -> Vec<Pin> {
        self.inner.pins.read().iter().collect()
    }

    /// The pins, ordered by CID. Nothing is locked from one to the next, so those that come or go meanwhile may be among
    /// them or not.
    pub fn pin_pages(&self) -> impl Iterator<Item = Pin> + Send + use<> {
        let inner = self.inner.clone();
        let mut after: Option<Vec<u8>> = None;
        std::iter::from_fn(move || {
            let page = inner.pins.read().page(after.as_deref(), PAGE_PINS);
            after = Some(page.last()?.key());
            Some(page)
        })
        .flatten()
    }

    /// The pin on exactly this CID, by codec and multihash.
    pub fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.inner.pins.read().get(&key(cid))
    }

    /// The pins on this block, whatever codec it is pinned by.
    pub fn pins_on(&self, cid: &Cid) -> Vec<Pin> {
        let hash = cid.hash();
        self.pin_pages()
            .filter(|pin| pin.cid.hash() == hash)
            .collect()
    }
}

impl Inner {
    /// The pin that comes of a wish now.
    pub(crate) fn pin_wished(&self, wish: PinWish) -> Result<Pin, PinError> {
        let (old, latest) = {
            let pins = self.pins.read();
            (pins.get(&wish.key()), pins.latest())
        };
        wish.over(old, no_earlier(seconds(), latest))
    }
}

/// The time by a clock that says `now`. It is no earlier than the newest pin: a clock may go back. Where that pin is very
/// far ahead, it is the one that was made by a wrong clock, and what comes after it is not made to follow.
const fn no_earlier(now: u64, latest: u64) -> u64 {
    if latest > now && latest - now <= CLOCK_BACK_SECONDS_MAX {
        latest
    } else {
        now
    }
}

/// Seconds since 1970; 0 by a clock that is before that.
fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

const fn adverb(mode: PinMode) -> &'static str {
    match mode {
        PinMode::Recursive => "recursively",
        PinMode::Direct => "directly",
    }
}

/// So far a clock goes back and is not believed: a week, for a machine that was off and starts where it stopped.
const CLOCK_BACK_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Pins copied at a time by whoever goes through all of them.
const PAGE_PINS: usize = 1024;
