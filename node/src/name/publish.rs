//! Signing what a name points at, and telling others.
//!
//! A number belongs to one record for ever: it is above every number that is known, and the journal has the record
//! before anybody else gets it. After a crash in between, the next one is numbered above it or, if the journal has
//! not got it, nobody has seen it.

use super::{Names, WrongClock, newest};
use crate::ipns::{self, Draft, Readers, Record, SignError};
use crate::keystore::Key;
use crate::routing::RoutingError;
use bytes::Bytes;
use cairn_store::notes::{About, NoteError};
use libp2p::PeerId;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// What a name is to point at, and for how long.
#[derive(Debug, Clone)]
pub struct Wish {
    /// A path below `/ipfs/` or `/ipns/`.
    pub value: String,
    /// For how long the record is to hold; it is signed anew before that for as long as its key is here.
    pub lifetime: Duration,
    /// For how long nobody need look for a newer one.
    pub ttl: Duration,
    /// Its number; without one it is the next.
    pub sequence: Option<u64>,
    /// Who is to be able to read it.
    pub readers: Readers,
}

/// What became of it.
#[derive(Debug)]
pub struct Published {
    /// What was signed. It is on disk.
    pub record: Record,
    /// How many peers took it; `None` without a network.
    pub took: Option<Result<usize, RoutingError>>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It does not point at anything.
    #[error(
        "{0:?} is no path that a name can point at; write /ipfs/CID or /ipns/NAME, with a path below it if need be"
    )]
    Value(String),
    /// Its number was used before.
    #[error(
        "the number {given} is not above {known}, which the newest record known of this name has"
    )]
    Sequence {
        /// What was asked for.
        given: u64,
        /// What is known.
        known: u64,
    },
    /// There are no numbers left.
    #[error(
        "the newest record of this name has the highest number that there is, so none can follow it"
    )]
    Last,
    /// The record cannot be made.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The journal did not take it.
    #[error("the record cannot be kept, so it was not published: {0}")]
    Note(#[from] NoteError),
    /// When it would expire cannot be told.
    #[error(transparent)]
    Clock(#[from] WrongClock),
}

/// What the journal has of a name.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    pub(super) record: Record,
    /// For how long it was to hold, and the next is to.
    pub(super) lifetime: Duration,
    /// Who is to be able to read it, and the next.
    pub(super) readers: Readers,
}

impl Names {
    /// Signs a record that says what is wished, and tells those nearest to the name. Once this returns without an
    /// error the record is on disk and its number used, whoever took it.
    pub async fn publish(&self, key: &Key, wish: &Wish) -> Result<Published, PublishError> {
        let record = self.sign(key, wish).await?;
        let name = key.id();
        let took = self.tell(&name, &record).await;
        Ok(Published { record, took })
    }

    /// Tells those nearest to a name of its record, and those who follow it. `None` without a network.
    pub async fn tell(
        &self,
        name: &PeerId,
        record: &Record,
    ) -> Option<Result<usize, RoutingError>> {
        let network = self.0.network.clone()?;
        if let Some(pubsub) = self.pubsub() {
            pubsub.publish(*name, record.clone()).await;
        }
        let kept = network.keep(ipns::key(name), record.bytes().to_vec()).await;
        self.0.metrics.told(&kept);
        Some(kept)
    }

    async fn sign(&self, key: &Key, wish: &Wish) -> Result<Record, PublishError> {
        if !is_path(&wish.value) {
            return Err(PublishError::Value(wish.value.clone()));
        }
        let name = key.id();
        let _signing = self.0.signing.lock().await;
        let now = self.now()?;
        let sequence = self.next_number(&name, wish.sequence).await?;
        let draft = Draft {
            value: wish.value.as_bytes(),
            sequence,
            expires: now.checked_add(wish.lifetime).ok_or(SignError::Lifetime)?,
            ttl: wish.ttl,
            readers: wish.readers,
        };
        let noted = Noted {
            record: Record::sign(key, &draft)?,
            lifetime: wish.lifetime,
            readers: wish.readers,
        };
        let note = self
            .0
            .store
            .set_note(About::Published, name.to_bytes(), noted.write());
        note.await?;
        Ok(noted.record)
    }

    /// A number that no record of the name has.
    async fn next_number(&self, name: &PeerId, given: Option<u64>) -> Result<u64, PublishError> {
        let mut known = self.known(name);
        if self.noted(name).is_none() {
            // The key may come from elsewhere, and with it records that others keep.
            let search = self.search_to_the_end(name);
            let found = timeout(OTHERS_KEEP, search).await.ok().flatten();
            known = newest(known, found);
        }
        let known = known.map(|record| record.sequence());
        match (known, given) {
            (Some(known), Some(given)) if given <= known => {
                Err(PublishError::Sequence { given, known })
            }
            (_, Some(given)) => Ok(given),
            (Some(known), None) => known.checked_add(1).ok_or(PublishError::Last),
            (None, None) => Ok(0),
        }
    }
}

impl Noted {
    pub(super) fn write(&self) -> Bytes {
        let mut out = vec![NOTE_VERSION, u8::from(self.readers == Readers::V2)];
        out.extend_from_slice(&self.lifetime.as_secs().to_le_bytes());
        out.extend_from_slice(self.record.bytes());
        out.into()
    }

    pub(super) fn read(name: &PeerId, note: &[u8]) -> Option<Self> {
        let ([version, is_v2], rest) = note.split_first_chunk()?;
        let (lifetime, record) = rest.split_first_chunk()?;
        (*version == NOTE_VERSION).then_some(())?;
        let readers = match is_v2 {
            0 => Readers::All,
            _ => Readers::V2,
        };
        Some(Self {
            readers,
            record: Record::decode(name, record).ok()?,
            lifetime: Duration::from_secs(u64::from_le_bytes(*lifetime)),
        })
    }

    /// Whether it is time for the next one: half of its time is over, or all of it, as after a while without power.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        let left = self.record.expires().duration_since(now);
        left.unwrap_or_default() < self.lifetime / 2
    }
}

/// Whether a name may point there.
fn is_path(value: &str) -> bool {
    let below = ["/ipfs/", "/ipns/"];
    let rest = below.iter().find_map(|root| value.strip_prefix(root));
    let first = rest.and_then(|rest| rest.split('/').next());
    let is_plain = !value.chars().any(char::is_control);
    is_plain && value.len() <= VALUE_BYTES_MAX && first.is_some_and(|first| !first.is_empty())
}

/// How long others are asked for records of a name that was never published from here.
const OTHERS_KEEP: Duration = Duration::from_secs(20);
/// Longest path: a record has room for it twice.
const VALUE_BYTES_MAX: usize = 4096;
/// The first byte of a note.
const NOTE_VERSION: u8 = 1;
