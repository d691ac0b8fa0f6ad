//! What is noted, taken in hand: everything that changes a note, or decides about a pin because of one, happens here.
//!
//! One at a time: who has the [`Ledger`] has the lock, and the lock goes along with the commit that ends it, which is made
//! even if nobody waits for it any more. Whose a pin is, is said by the notes alone: nobody's but the names', where they
//! say so, and that is written in the same commit as the pin and before it.

use super::note::{Held, Noted};
use super::{FOLLOWED_MAX, FollowPinError, Follows, is_same};
use cairn_store::Cid;
use cairn_store::notes::About;
use cairn_store::pin::{Expiry, NoteChange, PinError, PinMode, PinProgress, PinWish, Whole};
use cairn_store::source::BlockSource;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// All notes, by path, and the right to change them.
struct Ledger {
    written: BTreeMap<String, Noted>,
    notes: BTreeMap<String, Noted>,
    lock: OwnedMutexGuard<()>,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub(super) cid: Cid,
    /// For how long that need not be asked again.
    pub(super) ttl: Option<Duration>,
    /// The number of the record that says so, where the path begins with a key's name.
    pub(super) sequence: Option<u64>,
}

/// How a name is followed from now on.
pub(super) struct Terms {
    pub(super) pin_name: String,
    pub(super) grace: Duration,
}

/// What came of noting where a name leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is pinned and noted.
    Pinned,
    /// The pin that was counted on is gone: nothing was done.
    Overtaken,
    /// It is followed no longer: nothing was done.
    Over,
}

impl Lead {
    /// Whoever serves an older record does not bring back what it led to.
    pub(super) fn is_no_older(&self, path: &str, noted: &Noted) -> Result<(), FollowPinError> {
        match (self.sequence, noted.sequence) {
            (Some(found), Some(known)) if found < known => Err(FollowPinError::Older {
                path: path.to_owned(),
                found,
                known,
            }),
            _ => Ok(()),
        }
    }
}

impl Ledger {
    /// Whether what is pinned there is pinned for names alone.
    fn is_ours(&self, cid: &Cid) -> bool {
        let mut all = self.notes.values().flat_map(Noted::held);
        all.any(|held| held.is_ours && is_same(&held.cid, cid))
    }

    fn holds(&self, cid: &Cid) -> bool {
        let mut all = self.notes.values().flat_map(Noted::held);
        all.any(|held| is_same(&held.cid, cid))
    }

    /// From now on it is, or is not.
    fn own(&mut self, cid: &Cid, is_ours: bool) {
        for held in self.notes.values_mut().flat_map(Noted::held_mut) {
            if is_same(&held.cid, cid) {
                held.is_ours = is_ours;
            }
        }
    }

    /// What is to be written, and the lock, which goes along with that.
    fn changes(self) -> (Vec<NoteChange>, OwnedMutexGuard<()>) {
        let change = |path: &String, value| NoteChange {
            about: About::Followed,
            key: path.clone().into_bytes(),
            value,
        };
        let gone = self.written.keys();
        let gone = gone.filter(|path| !self.notes.contains_key(*path));
        let new = self.notes.iter();
        let new = new.filter(|(path, noted)| self.written.get(*path) != Some(noted));
        let new = new.map(|(path, noted)| change(path, Some(noted.write())));
        let changes = new.chain(gone.map(|path| change(path, None))).collect();
        (changes, self.lock)
    }
}

impl Follows {
    async fn ledger(&self) -> Ledger {
        let lock = self.0.noting.clone().lock_owned().await;
        let written: BTreeMap<String, Noted> = self.notes().into_iter().collect();
        Ledger {
            notes: written.clone(),
            written,
            lock,
        }
    }

    /// Changes the pin that stands as somebody asked for; false if none does.
    pub(super) async fn change(&self, wish: &PinWish) -> Result<bool, PinError> {
        wish.check()?;
        Ok(self.stands(wish)? && self.make(wish.clone(), None, None, ()).await?)
    }

    /// Pins what somebody asked for: it stays whatever becomes of the names that lead to it. Of a pin that stands what is
    /// missing is fetched, and it is changed only if all of it is here.
    pub(super) async fn pin_whole<S: BlockSource + Clone + 'static>(
        &self,
        source: S,
        wish: PinWish,
        on_progress: impl FnMut(PinProgress) + Send,
    ) -> Result<(), PinError> {
        self.stands(&wish)?;
        let store = self.0.exchange.store();
        let whole = store.pin_fetch(source, &wish, on_progress).await?;
        match self.make(wish, Some(whole), None, ()).await? {
            true => Ok(()),
            false => Err(PinError::NotPinned),
        }
    }

    /// [`Follows::pin_whole`] of many at once, at most [`PINS_AT_ONCE`](cairn_store::pin::PINS_AT_ONCE): makes those that reach
    /// little and only what is here, in one commit; tells which.
    pub async fn pin_here<S: BlockSource + Clone + 'static>(
        &self,
        source: &S,
        wishes: Vec<PinWish>,
    ) -> Result<Vec<bool>, PinError> {
        let store = self.0.exchange.store();
        let here = store.pins_here(source, wishes).await?;
        let mut ledger = self.ledger().await;
        if !ledger.notes.is_empty() {
            for wish in here.met() {
                ledger.own(&wish.cid, false);
            }
        }
        let (changes, lock) = ledger.changes();
        store.pins_noted(here, changes, lock).await
    }

    /// What followed names lead to, and the lock on that.
    pub(super) async fn followed(&self) -> (Vec<Cid>, OwnedMutexGuard<()>) {
        let ledger = self.ledger().await;
        let followed = ledger.notes.values().filter(|noted| !noted.is_over);
        (followed.map(|noted| noted.now.cid).collect(), ledger.lock)
    }

    /// Whether there is such a pin already, unless there is one that reaches further.
    pub(super) fn stands(&self, wish: &PinWish) -> Result<bool, PinError> {
        let pin = self.0.exchange.store().pin(&wish.cid);
        match (pin.map(|pin| pin.mode), wish.mode) {
            (Some(PinMode::Recursive), PinMode::Direct) => Err(PinError::OtherMode {
                cid: wish.cid,
                mode: PinMode::Recursive,
            }),
            (mode, wished) => Ok(mode == Some(wished)),
        }
    }

    /// Pins what is `whole`, or changes what stands, for whoever asked for it; another note may change along.
    pub(super) async fn make(
        &self,
        wish: PinWish,
        whole: Option<Whole>,
        beside: Option<NoteChange>,
        along: impl Send + 'static,
    ) -> Result<bool, PinError> {
        let mut ledger = self.ledger().await;
        ledger.own(&wish.cid, false);
        let (mut changes, lock) = ledger.changes();
        changes.extend(beside);
        let store = self.0.exchange.store();
        store.pin_noted(wish, whole, changes, (lock, along)).await
    }

    /// Notes where a path leads, and pins that. What is not `whole` must be pinned already.
    pub(super) async fn settle(
        &self,
        path: &str,
        lead: &Lead,
        whole: Option<Whole>,
        terms: Option<&Terms>,
    ) -> Result<Settled, FollowPinError> {
        let now = self.now()?;
        let mut ledger = self.ledger().await;
        let (cid, store) = (lead.cid, self.0.exchange.store());
        let stands = store.pin(&cid).is_some();
        let is_ours = !stands || ledger.is_ours(&cid);
        let held = Held { cid, is_ours };
        let known = ledger.notes.get(path).cloned();
        let mut noted = match (known, terms) {
            (Some(noted), None) if noted.is_over => return Ok(Settled::Over),
            (None, None) => return Ok(Settled::Over),
            (None, Some(_)) if ledger.notes.len() >= FOLLOWED_MAX => {
                return Err(FollowPinError::TooMany);
            }
            (None, Some(_)) => Noted::new(held.clone()),
            (Some(noted), _) => noted,
        };
        match terms {
            None => lead.is_no_older(path, &noted)?,
            Some(terms) => {
                noted.pin_name.clone_from(&terms.pin_name);
                noted.grace = terms.grace;
                noted.is_over = false;
            }
        }
        noted.moves(held, now);
        noted.sequence = lead.sequence;
        let is_named = !stands || (is_ours && terms.is_some());
        let name = is_named.then(|| noted.pin_name.clone());
        ledger.notes.insert(path.to_owned(), noted);
        ledger.own(&cid, is_ours);
        let wish = PinWish {
            expiry: Expiry::AsItWas,
            ..PinWish::new(cid, PinMode::Recursive).named(name)
        };
        let (changes, lock) = ledger.changes();
        let pinned = store.pin_noted(wish, whole, changes, lock).await;
        match pinned.map_err(|source| FollowPinError::pin(path, cid, source))? {
            true => Ok(Settled::Pinned),
            false => Ok(Settled::Overtaken),
        }
    }

    /// Notes that a path is followed no longer; gives what it leads to, which is nobody's but the operator's then.
    pub(super) async fn part(&self, path: &str) -> Result<Option<Cid>, FollowPinError> {
        let mut ledger = self.ledger().await;
        let noted = ledger.notes.get_mut(path);
        let Some(noted) = noted.filter(|noted| !noted.is_over) else {
            return Ok(None);
        };
        noted.is_over = true;
        let cid = noted.now.cid;
        let is_all = noted.before.is_empty();
        ledger.own(&cid, false);
        if is_all {
            ledger.notes.remove(path);
        }
        let (changes, lock) = ledger.changes();
        let noting = self.0.exchange.store().unpin_noted(None, changes, lock);
        noting.await.map_err(FollowPinError::Note)?;
        Ok(Some(cid))
    }

    /// Removes old pins whose time is over; gives how many are left.
    pub(super) async fn let_go(&self, path: &str) -> Result<usize, FollowPinError> {
        let store = self.0.exchange.store();
        while let Some(noted) = self.noted(path) {
            if !self.is_due(&noted) {
                return Ok(noted.before.len());
            }
            let mut ledger = self.ledger().await;
            let noted = ledger.notes.get(path).cloned();
            let Some(mut noted) = noted.filter(|noted| self.is_due(noted)) else {
                continue;
            };
            let cid = noted.before.remove(0).held.cid;
            let is_ours = ledger.is_ours(&cid);
            match noted.is_over && noted.before.is_empty() {
                true => ledger.notes.remove(path),
                false => ledger.notes.insert(path.to_owned(), noted),
            };
            let goes = is_ours && !ledger.holds(&cid);
            let pin = store
                .pin(&cid)
                .filter(|pin| goes && pin.mode == PinMode::Recursive);
            if pin.is_some() {
                tracing::info!(path, %cid, "what a followed name led to before is let go");
            }
            let (changes, lock) = ledger.changes();
            let gone = store.unpin_noted(pin, changes, lock).await;
            gone.map_err(|error| FollowPinError::pin(path, cid, error.into()))?;
        }
        Ok(0)
    }

    /// Whether something old is to go: not before what came in its place is here.
    pub(super) fn is_due(&self, noted: &Noted) -> bool {
        let pin = self.0.exchange.store().pin(&noted.now.cid);
        let is_whole = pin.is_some_and(|pin| pin.mode == PinMode::Recursive);
        let now = self.now();
        (is_whole || noted.is_over) && now.is_ok_and(|now| noted.due(now).is_some())
    }
}

/// How often it is tried anew when a pin that was counted on is removed at that moment.
pub(super) const TRIES_MAX: usize = 8;
