//! Pins that follow names: when a name moves, what it leads to now is fetched and pinned, and the old pin goes after a
//! while.
//!
//! ```text
//! a name ─► where it leads ─► pinned, whole ─► noted on disk ─► … the grace time … ─► the old pin removed
//! ```
//!
//! In this order, so that at any moment, a crash included, one version of it is here as a whole. Only a pin that was
//! made here is removed here: not one that stood before, nor one that somebody asked for meanwhile
//! ([`Follows::taken_over`]).
//!
//! `note.rs` is what the journal has of each, `worker.rs` goes after them.

mod note;
#[cfg(test)]
mod tests;
mod worker;

use crate::exchange::{Exchange, Session};
use crate::name::follow::{Depth, FollowError};
use crate::name::path::{NamePath, Root};
use crate::name::resolve::How;
use crate::name::resolver::{NameError, Resolver};
use crate::routing::Routing;
use cairn_store::cid::Cid;
use cairn_store::dag::path::{self, ResolveError};
use cairn_store::notes::{About, NOTE_KEY_BYTES_MAX, NoteError};
use cairn_store::pin::{PinError, PinMode, PinProgress};
use cairn_store::source::SourceError;
use note::{Held, Noted, Old};
use std::collections::BTreeMap;
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
    /// Held by whoever changes a note.
    noting: tokio::sync::Mutex<()>,
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
    Note(#[from] NoteError),
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
            noting: tokio::sync::Mutex::default(),
            woken: Notify::new(),
            clock,
        }))
    }

    /// Pins what a path leads to, over `session`, and follows it from now on. One that is followed already has its pins
    /// named, and its grace time set, anew. Both are on disk when this returns.
    pub async fn add(
        &self,
        path: &NamePath,
        wish: Wish,
        session: &Session,
        how: How,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Cid, FollowPinError> {
        let text = path.to_string();
        if matches!(path.root, Root::Content(_)) {
            return Err(FollowPinError::Content(text));
        }
        if text.len() > NOTE_KEY_BYTES_MAX {
            return Err(FollowPinError::Long(text.len()));
        }
        let all = self.notes();
        if all.len() >= FOLLOWED_MAX && !all.iter().any(|(known, _)| *known == text) {
            return Err(FollowPinError::TooMany);
        }
        let (cid, _) = self.target(path, session, how).await?;
        let name = wish.pin_name.unwrap_or_else(|| text.clone());
        let held = self.pin(&text, cid, &name, session, on_progress).await?;
        let _noting = self.0.noting.lock().await;
        let mut noted = Noted {
            pin_name: name,
            grace: wish.grace,
            ..match self.noted(&text) {
                Some(noted) => noted,
                None => Noted::new(held.clone()),
            }
        };
        noted.moves(held, (self.0.clock)());
        noted.is_over = false;
        self.write(&text, &noted).await?;
        drop(_noting);
        self.schedule(&text, FIRST_AFTER);
        Ok(cid)
    }

    /// Follows a path no longer. What it leads to stays pinned; what it led to before goes when its time is over.
    pub async fn end(&self, path: &NamePath) -> Result<Cid, FollowPinError> {
        let text = path.to_string();
        let _noting = self.0.noting.lock().await;
        let noted = self.noted(&text).filter(|noted| !noted.is_over);
        let Some(mut noted) = noted else {
            return Err(FollowPinError::Unknown(text));
        };
        let cid = noted.now.cid;
        noted.is_over = true;
        match noted.before.is_empty() {
            true => self.forget(&text).await?,
            false => self.write(&text, &noted).await?,
        }
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
                let until = |old: &Old| (old.held.cid, old.since + noted.grace);
                Followed {
                    cid: noted.now.cid,
                    before: noted.before.iter().map(until).collect(),
                    error: turn.and_then(|turn| turn.error.clone()),
                    next: turn.map(|turn| turn.due.saturating_duration_since(now)),
                    pin_name: noted.pin_name,
                    grace: noted.grace,
                    path,
                }
            })
            .collect()
    }

    /// The path because of which this is pinned, if that is why.
    pub fn holds(&self, cid: &Cid) -> Option<String> {
        let holds = |noted: &Noted| noted.now.is_ours && is_same(&noted.now.cid, cid);
        let mut all = self.notes().into_iter();
        let (path, _) = all.find(|(_, noted)| !noted.is_over && holds(noted))?;
        Some(path)
    }

    /// Somebody pinned this for itself: it stays whatever becomes of the name.
    pub async fn taken_over(&self, cid: &Cid) -> Result<(), NoteError> {
        let _noting = self.0.noting.lock().await;
        for (path, mut noted) in self.notes() {
            if noted.release(cid) {
                self.write(&path, &noted).await?;
            }
        }
        Ok(())
    }

    /// Where a path leads, and for how long that need not be asked again.
    async fn target(
        &self,
        path: &NamePath,
        session: &Session,
        how: How,
    ) -> Result<(Cid, Option<Duration>), FollowPinError> {
        let resolver = &self.0.resolver;
        let led = resolver.follow(path.clone(), Depth::default(), how).await?;
        let Some(content) = led.path.content() else {
            return Err(FollowPinError::Inside(led.path.to_string()));
        };
        let resolved = path::resolve(session, &content.root, &content.segments).await?;
        match resolved.remainder.is_empty() {
            true => Ok((resolved.cid, led.ttl)),
            false => Err(FollowPinError::Inside(led.path.to_string())),
        }
    }

    /// Pins what a path leads to, unless it is.
    async fn pin(
        &self,
        path: &str,
        cid: Cid,
        name: &str,
        session: &Session,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<Held, FollowPinError> {
        let store = self.0.exchange.store();
        let before = store.pin(&cid).filter(|pin| pin.mode == PinMode::Recursive);
        if let Some(pin) = before {
            // By us, if it is called so: before a crash, or for another path.
            let is_ours = pin.name.as_deref() == Some(name);
            return Ok(Held { cid, is_ours });
        }
        session.prefetch(&cid).await?;
        let name = Some(name.to_owned());
        let pinned = store.pin_add(session.clone(), cid, PinMode::Recursive, name, on_progress);
        pinned.await.map_err(|source| FollowPinError::Pin {
            path: path.to_owned(),
            cid,
            source,
        })?;
        if let Some(routing) = &self.0.routing {
            routing.announce(cid);
        }
        Ok(Held { cid, is_ours: true })
    }

    fn noted(&self, path: &str) -> Option<Noted> {
        let store = self.0.exchange.store();
        Noted::read(&store.note(About::Followed, path.as_bytes())?)
    }

    fn notes(&self) -> Vec<(String, Noted)> {
        let notes = self.0.exchange.store().notes(About::Followed);
        let read = notes
            .into_iter()
            .filter_map(|(path, note)| Some((String::from_utf8(path).ok()?, Noted::read(&note)?)));
        read.collect()
    }

    async fn write(&self, path: &str, noted: &Noted) -> Result<(), NoteError> {
        let store = self.0.exchange.store();
        let key = path.as_bytes().to_vec();
        store.set_note(About::Followed, key, noted.write()).await
    }

    async fn forget(&self, path: &str) -> Result<(), NoteError> {
        let store = self.0.exchange.store();
        let gone = store.remove_note(About::Followed, path.as_bytes().to_vec());
        gone.await?;
        self.turns().remove(path);
        Ok(())
    }

    fn turns(&self) -> MutexGuard<'_, BTreeMap<String, Turn>> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether these are one pin.
fn is_same(one: &Cid, other: &Cid) -> bool {
    one.codec() == other.codec() && one.hash() == other.hash()
}

/// For how long what a name led to before stays, unless somebody says otherwise.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Most names that are followed. Each is resolved as often as its owner asks for.
pub const FOLLOWED_MAX: usize = 1000;
/// How long after it was pinned a name is looked at for the first time.
const FIRST_AFTER: Duration = Duration::from_secs(60);
