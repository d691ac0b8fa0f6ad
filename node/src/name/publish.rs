//! Signing what a name points at, and telling others.
//!
//! A number belongs to one record for ever: it is above every number that is known, and the journal has the record
//! before anybody else gets it. After a crash in between, the next one is numbered above it or, if the journal has
//! not got it, nobody has seen it.

use super::Names;
use super::cache::Since;
use crate::clock::WrongClock;
use crate::ipns::{self, Draft, Readers, Record, RecordError, SignError};
use crate::keystore::Key;
use crate::routing::RoutingError;
use bytes::Bytes;
use cairn_store::notes::{About, NOTES_MAX, NoteError};
use cairn_store::sink::PutError;
use libp2p::PeerId;
use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
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
    /// Whether it is signed although nobody is there to be asked what numbers this name has had elsewhere.
    pub may_be_alone: bool,
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
    /// It would have expired before anybody could have it.
    #[error("a record holds for {LIFETIME_MIN:?} at least; give it a longer lifetime")]
    Short,
    /// Which numbers others know of is not known.
    #[error(
        "whether this name has records elsewhere could not be found out ({0}), and none of its numbers may be used \
         twice; try again once peers are connected, give a number above all of them with --sequence, or, if it has none, \
         --allow-offline"
    )]
    Unsure(RoutingError),
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

/// Why a record was not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It is none of this name's.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The journal did not take it.
    #[error(transparent)]
    Note(#[from] NoteError),
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
        let was_told = took.as_ref().is_some_and(Result::is_ok);
        self.0.fresh.publish(name, was_told);
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
        if wish.lifetime < LIFETIME_MIN {
            return Err(PublishError::Short);
        }
        let name = key.id();
        let signing = Arc::clone(&self.0.signing).lock_owned().await;
        let now = self.now()?;
        let sequence = self.next_number(&name, wish).await?;
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
        let record = noted.record.clone();
        let (this, note) = (self.clone(), noted.write());
        let (done, noted) = oneshot::channel();
        // To its end, even if nobody waits for it any more: the next number is taken when this one is on disk.
        self.0.tasks.spawn("note a record", async move {
            let store = &this.0.store;
            let set = store
                .set_note(About::Published, name.to_bytes(), note)
                .await;
            // What was kept alive for its owner is its owner's again.
            if set.is_ok() && store.note(About::Tended, &name.to_bytes()).is_some() {
                let gone = store.remove_note(About::Tended, name.to_bytes()).await;
                if let Err(error) = gone {
                    tracing::warn!(%name, %error, "a name of our own is kept alive as well");
                }
            }
            drop(signing);
            // Whoever asked may be gone.
            let _: Result<(), _> = done.send(set);
        });
        noted
            .await
            .map_err(|_| NoteError::Put(PutError::Closing))??;
        let now = tokio::time::Instant::now().into_std();
        self.cache().keep(name, record.clone(), Since::Asked(now));
        Ok(record)
    }

    /// A number that no record of the name has.
    async fn next_number(&self, name: &PeerId, wish: &Wish) -> Result<u64, PublishError> {
        let (given, may_be_alone) = (wish.sequence, wish.may_be_alone);
        if given.is_none() || self.noted(name).is_none() {
            let looked = self.look_for_numbers(name).await;
            let is_alone = matches!(looked, Err(RoutingError::NoPeers));
            if let (Err(error), None, None) = (looked, given, self.known(name))
                && !(is_alone && may_be_alone)
            {
                return Err(PublishError::Unsure(error));
            }
        }
        let known = self.known(name).map(|record| record.sequence());
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

impl Names {
    /// Takes over the newest record that another program has signed with a key which is here now, so that the next
    /// one that is signed here is numbered above it. Whether it was newer than what is known; then it is on disk.
    pub async fn adopt(&self, name: &PeerId, bytes: &[u8]) -> Result<bool, AdoptError> {
        let record = Record::decode(name, bytes)?;
        let _signing = self.0.signing.lock().await;
        let noted = self.noted(name);
        if noted.is_some_and(|noted| record.age(&noted.record).is_le()) {
            return Ok(false);
        }
        let noted = Noted {
            record,
            lifetime: ADOPTED_LIFETIME,
            readers: Readers::All,
        };
        let store = &self.0.store;
        let set = store.set_note(About::Published, name.to_bytes(), noted.write());
        set.await?;
        Ok(true)
    }

    /// Finds out what numbers others know of, once: the key may come from elsewhere, or sign there too, or what the
    /// journal says may have come from an old copy. Where it was published from here the first few answers do.
    async fn look_for_numbers(&self, name: &PeerId) -> Result<(), RoutingError> {
        if self.looked_for().contains(name) {
            return Ok(());
        }
        let is_noted = self.noted(name).is_some();
        let search = self.search_until(name, is_noted);
        match timeout(OTHERS_KEEP, search).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(RoutingError::LookupTooSlow),
        }
        let mut looked_for = self.looked_for();
        // They are looked for again then.
        if looked_for.len() >= NOTES_MAX {
            looked_for.clear();
        }
        looked_for.insert(*name);
        Ok(())
    }

    fn looked_for(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        let looked_for = self.0.looked_for.lock();
        looked_for.unwrap_or_else(PoisonError::into_inner)
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

    /// Whether it is time for one after `record`: half of its time is over, or all of it, as after a while without power.
    pub(super) fn is_old(&self, record: &Record, now: SystemTime) -> bool {
        let left = record.expires().duration_since(now);
        left.unwrap_or_default() < self.lifetime.max(LIFETIME_MIN) / 2
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

/// For how long records that follow an adopted one hold, as both programs have it unless told otherwise.
const ADOPTED_LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// For how long a record holds at least.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// How long others are asked for records of a name that was never published from here.
const OTHERS_KEEP: Duration = Duration::from_secs(20);
/// Longest path: a record has room for it twice.
const VALUE_BYTES_MAX: usize = 4096;
/// The first byte of a note.
const NOTE_VERSION: u8 = 1;
