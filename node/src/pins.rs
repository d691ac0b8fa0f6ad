//! Pins that follow names: when a name moves, what it leads to now is fetched and pinned, and the old pin goes after a
//! while.
//!
//! ```text
//! a name ─► where it leads ─► pinned, whole ─► noted on disk ─► … the grace time … ─► the old pin removed
//! ```
//!
//! In this order, so that at any moment, a crash included, one version of it is here as a whole. Only a pin that was
//! made here is removed here: not one that stood before, in whatever mode, nor one that somebody asked for meanwhile, which
//! is why all commands pin through [`jobs::PinJobs`].
//!
//! `note.rs` is what the journal has of each, `ledger.rs` all that changes it, `worker.rs` goes after them. `expire.rs` removes
//! pins whose time is over; [`jobs`] makes pins in the background.

mod expire;
pub mod jobs;
mod ledger;
mod note;
#[cfg(test)]
mod tests;
mod worker;

pub use expire::Over;

use crate::clock::{self, WrongClock};
use crate::exchange::{Exchange, Session};
use crate::name::follow::{Depth, FollowError};
use crate::name::path::{NamePath, Root};
use crate::name::resolve::How;
use crate::name::resolver::{NameError, Resolver};
use crate::routing::Routing;
use cairn_store::cid::Cid;
use cairn_store::dag::path::{self, ResolveError};
use cairn_store::notes::{About, NOTE_KEY_BYTES_MAX};
use cairn_store::pin::{PIN_NAME_BYTES_MAX, PinError, PinMode, PinProgress, PinWish, Whole};
use cairn_store::sink::PutError;
use cairn_store::source::SourceError;
use ledger::{Lead, Settled, TRIES_MAX, Terms};
use note::Noted;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A handle on what is followed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Follows(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    exchange: Exchange,
    resolver: Resolver,
    /// Who is told that there is something new; nobody without a network.
    routing: Option<Routing>,
    turns: Mutex<BTreeMap<String, Turn>>,
    /// Held by whoever changes a note, or decides about a pin because of one.
    noting: Arc<tokio::sync::Mutex<()>>,
    /// Whether it was told that there are notes that cannot be read.
    told: AtomicBool,
    woken: Notify,
    clock: fn() -> SystemTime,
}

/// When one is looked at again.
#[derive(Debug, Clone)]
struct Turn {
    due: Instant,
    is_under_way: bool,
    failures: u32,
    /// Why the last turn came to nothing.
    error: Option<String>,
}

/// How a name is to be followed.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What its pins are called; without it, like the path.
    pub pin_name: Option<String>,
    /// For how long what the name led to before stays.
    pub grace: Duration,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            pin_name: None,
            grace: GRACE,
        }
    }
}

/// A name that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The path, from a name.
    pub path: String,
    /// What it led to last, which is pinned.
    pub cid: Cid,
    /// What the pins are called.
    pub pin_name: String,
    /// For how long what it led to before stays.
    pub grace: Duration,
    /// What it led to before and is still pinned for that, and until when.
    pub before: Vec<(Cid, SystemTime)>,
    /// Why it was not looked at or not pinned the last time.
    pub error: Option<String>,
    /// In how long it is looked at again; `None` where that is nobody's work, without a daemon.
    pub next: Option<Duration>,
}

/// Why a name is not followed, or cannot be gone after just now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowPinError {
    /// It never changes.
    #[error(
        "{0} is content, which never changes, so there is nothing to follow; leave --follow out"
    )]
    Content(String),
    /// Longer than can be noted.
    #[error("a path that is followed has at most {NOTE_KEY_BYTES_MAX} bytes, this one has {0}")]
    Long(usize),
    /// Too long for the name of its pins.
    #[error(
        "a pin's name has at most {PIN_NAME_BYTES_MAX} bytes, this one has {0}; give a shorter one with --name"
    )]
    LongName(usize),
    /// What is old would stay for ever.
    #[error("what a name led to before stays for a year at most; give a shorter --grace")]
    Grace,
    /// The clock is wrong.
    #[error(transparent)]
    Clock(#[from] WrongClock),
    /// Somebody serves an older record than the one that was followed.
    #[error(
        "only record {found} of {path} was found, and {known} led to what is pinned; it is followed anyway if that is asked for anew"
    )]
    Older {
        /// The path.
        path: String,
        /// The number of the record that was found.
        found: u64,
        /// The number of the one before.
        known: u64,
    },
    /// It takes too long.
    #[error(
        "{path} leads to something new, not all of which came in {minutes} minutes; what came stays until the next garbage collection, and the rest is asked for later"
    )]
    Slow {
        /// The path.
        path: String,
        /// How long it was tried.
        minutes: u64,
    },
    /// It is not followed.
    #[error("{0} is not followed; `cairn pin followed` lists what is")]
    Unknown(String),
    /// There are enough.
    #[error("{FOLLOWED_MAX} names are followed already, and that is the most")]
    TooMany,
    /// Where it leads cannot be told.
    #[error(transparent)]
    Name(#[from] FollowError<NameError>),
    /// The path below it does not resolve.
    #[error("{0}")]
    Path(#[from] ResolveError),
    /// It does not end at a block.
    #[error("{0} leads into a block and not to one, so there is nothing to pin")]
    Inside(String),
    /// What it leads to is not pinned.
    #[error("{cid}, which {path} leads to, is not pinned: {source}")]
    Pin {
        /// The path.
        path: String,
        /// Where it leads.
        cid: Cid,
        /// Why.
        source: PinError,
    },
    /// Nothing can be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The journal did not take it.
    #[error("that it is followed cannot be kept: {0}")]
    Note(PutError),
    /// The journal did not take that pins have expired.
    #[error("expired pins cannot be removed: {0}")]
    Expire(PutError),
}

impl Follows {
    /// What the store of `exchange` has noted, gone after with `resolver`.
    pub fn new(exchange: Exchange, resolver: Resolver, routing: Option<Routing>) -> Self {
        Self::with(exchange, resolver, routing, SystemTime::now)
    }

    fn with(
        exchange: Exchange,
        resolver: Resolver,
        routing: Option<Routing>,
        clock: fn() -> SystemTime,
    ) -> Self {
        Self(Arc::new(Inner {
            exchange,
            resolver,
            routing,
            turns: Mutex::default(),
            noting: Arc::default(),
            told: AtomicBool::new(false),
            woken: Notify::new(),
            clock,
        }))
    }

    /// Pins what a path leads to, over `session`, and follows it from now on. Of one that is followed already the grace
    /// time is set anew, and what it leads to, if pinned for this, named anew. All is on disk when this returns.
    pub async fn add(
        &self,
        path: &NamePath,
        wish: Wish,
        session: &Session,
        how: How,
        mut on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Cid, FollowPinError> {
        let text = path.to_string();
        if matches!(path.root, Root::Content(_)) {
            return Err(FollowPinError::Content(text));
        }
        if text.len() > NOTE_KEY_BYTES_MAX {
            return Err(FollowPinError::Long(text.len()));
        }
        let terms = Terms {
            pin_name: wish.pin_name.unwrap_or_else(|| text.clone()),
            grace: wish.grace,
        };
        if terms.pin_name.len() > PIN_NAME_BYTES_MAX {
            return Err(FollowPinError::LongName(terms.pin_name.len()));
        }
        if terms.grace > GRACE_MAX {
            return Err(FollowPinError::Grace);
        }
        let all = self.notes();
        if all.len() >= FOLLOWED_MAX && !all.iter().any(|(known, _)| *known == text) {
            return Err(FollowPinError::TooMany);
        }
        let lead = self.target(path, session, how).await?;
        let settled = self.have(&text, &lead, session, Some(&terms), &mut on_progress);
        settled.await?;
        self.schedule(&text, FIRST_AFTER);
        Ok(lead.cid)
    }

    /// Follows a path no longer. What it leads to stays pinned; what it led to before goes when its time is over.
    pub async fn end(&self, path: &NamePath) -> Result<Cid, FollowPinError> {
        let text = path.to_string();
        let Some(cid) = self.part(&text).await? else {
            return Err(FollowPinError::Unknown(text));
        };
        self.schedule(&text, Duration::ZERO);
        Ok(cid)
    }

    /// What is followed, by path.
    pub fn list(&self) -> Vec<Followed> {
        let turns = self.turns();
        let now = Instant::now();
        let followed = self.notes().into_iter().filter(|(_, noted)| !noted.is_over);
        followed
            .map(|(path, noted)| {
                let turn = turns.get(&path);
                let before = noted.before.iter();
                let before = before.map(|old| (old.held.cid, noted.until(old)));
                Followed {
                    cid: noted.now.cid,
                    before: before.collect(),
                    error: turn.and_then(|turn| turn.error.clone()),
                    next: turn.map(|turn| turn.due.saturating_duration_since(now)),
                    pin_name: noted.pin_name,
                    grace: noted.grace,
                    path,
                }
            })
            .collect()
    }

    /// One of these that a followed path leads to, and the path: it would be pinned again.
    pub fn holds(&self, cids: &[Cid]) -> Option<(Cid, String)> {
        let key = |cid: &Cid| (cid.codec(), *cid.hash());
        let wanted: HashSet<_> = cids.iter().map(key).collect();
        let mut all = self.notes().into_iter();
        let (path, noted) =
            all.find(|(_, noted)| !noted.is_over && wanted.contains(&key(&noted.now.cid)))?;
        Some((noted.now.cid, path))
    }

    async fn target(
        &self,
        path: &NamePath,
        session: &Session,
        how: How,
    ) -> Result<Lead, FollowPinError> {
        let resolver = &self.0.resolver;
        let led = resolver.follow(path.clone(), Depth::default(), how).await?;
        let sequence = match &path.root {
            Root::Key(key) if resolver.dns().fixed(&path.root).is_none() => {
                let record = resolver.names().current(key);
                record.map(|record| record.sequence())
            }
            _ => None,
        };
        let Some(content) = led.path.content() else {
            return Err(FollowPinError::Inside(led.path.to_string()));
        };
        let resolved = path::resolve(session, &content.root, &content.segments).await?;
        match resolved.remainder.is_empty() {
            true => Ok(Lead {
                cid: resolved.cid,
                ttl: led.ttl,
                sequence,
            }),
            false => Err(FollowPinError::Inside(led.path.to_string())),
        }
    }

    /// Fetches what a path leads to unless it is pinned, and has it pinned and noted.
    async fn have(
        &self,
        path: &str,
        lead: &Lead,
        session: &Session,
        terms: Option<&Terms>,
        on_progress: &mut (impl FnMut(PinProgress) + Send),
    ) -> Result<Settled, FollowPinError> {
        for _ in 0..TRIES_MAX {
            let whole = self.fetch(path, &lead.cid, session, on_progress).await?;
            let is_new = whole.is_some();
            let settled = self.settle(path, lead, whole, terms).await?;
            if settled == Settled::Overtaken {
                continue;
            }
            if is_new {
                self.announce(&lead.cid);
            }
            return Ok(settled);
        }
        Err(FollowPinError::pin(path, lead.cid, PinError::NotPinned))
    }

    async fn fetch(
        &self,
        path: &str,
        cid: &Cid,
        session: &Session,
        on_progress: &mut (impl FnMut(PinProgress) + Send),
    ) -> Result<Option<Whole>, FollowPinError> {
        let store = self.0.exchange.store();
        let pin = store.pin(cid);
        if pin.is_some_and(|pin| pin.mode == PinMode::Recursive) {
            return Ok(None);
        }
        session.prefetch(cid).await?;
        let wish = PinWish::new(*cid, PinMode::Recursive);
        let fetched = store.pin_fetch(session.clone(), &wish, on_progress).await;
        let whole = fetched.map_err(|source| FollowPinError::pin(path, *cid, source))?;
        Ok(Some(whole))
    }

    /// Tells the network, if there is one, that this is here.
    fn announce(&self, cid: &Cid) {
        if let Some(routing) = &self.0.routing {
            routing.announce(*cid);
        }
    }

    /// What time it is, if the clock can be right.
    fn now(&self) -> Result<SystemTime, FollowPinError> {
        Ok(clock::checked((self.0.clock)())?)
    }

    fn noted(&self, path: &str) -> Option<Noted> {
        let store = self.0.exchange.store();
        Noted::read(&store.note(About::Followed, path.as_bytes())?)
    }

    fn notes(&self) -> Vec<(String, Noted)> {
        let notes = self.0.exchange.store().notes(About::Followed);
        let read = notes.into_iter().filter_map(|(path, note)| {
            let path = String::from_utf8_lossy(&path).into_owned();
            let noted = Noted::read(&note);
            if noted.is_none() && !self.0.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    path,
                    "what is noted of a followed name cannot be read, so it is not followed; perhaps a newer version wrote it"
                );
            }
            Some((path, noted?))
        });
        read.collect()
    }

    fn turns(&self) -> MutexGuard<'_, BTreeMap<String, Turn>> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FollowPinError {
    fn pin(path: &str, cid: Cid, source: PinError) -> Self {
        Self::Pin {
            path: path.to_owned(),
            cid,
            source,
        }
    }
}

/// Whether these are one pin.
fn is_same(one: &Cid, other: &Cid) -> bool {
    one.codec() == other.codec() && one.hash() == other.hash()
}

/// For how long what a name led to before stays, unless somebody says otherwise.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Longest that can be asked for: a year.
pub const GRACE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Most names that are followed. Each is resolved as often as its owner asks for.
pub const FOLLOWED_MAX: usize = 1000;
/// How long after it was pinned a name is looked at for the first time.
const FIRST_AFTER: Duration = Duration::from_secs(60);
