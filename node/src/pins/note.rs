//! What the journal has of a name that is followed, as JSON.

use super::is_same;
use bytes::Bytes;
use cairn_store::cid::{self, Cid};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    /// What its pins are called.
    pub(super) pin_name: String,
    pub(super) grace: Duration,
    /// What it led to last.
    pub(super) now: Held,
    /// What it led to before, the oldest first.
    pub(super) before: Vec<Old>,
    /// Whether it is followed no longer, and only waits for what is left of it to go.
    pub(super) is_over: bool,
}

/// What is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) cid: Cid,
    /// Whether it is pinned for this alone, and so is let go with it.
    pub(super) is_ours: bool,
}

/// What was pinned, and since when the name leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) held: Held,
    pub(super) since: SystemTime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u8,
    name: String,
    grace_seconds: u64,
    now: WrittenHeld,
    before: Vec<WrittenOld>,
    is_over: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeld {
    cid: String,
    is_ours: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOld {
    held: WrittenHeld,
    /// In seconds since 1970.
    since: u64,
}

impl Noted {
    pub(super) const fn new(now: Held) -> Self {
        Self {
            pin_name: String::new(),
            grace: Duration::ZERO,
            now,
            before: Vec::new(),
            is_over: false,
        }
    }

    /// The name leads elsewhere.
    pub(super) fn moves(&mut self, to: Held, at: SystemTime) {
        if is_same(&to.cid, &self.now.cid) {
            return;
        }
        // It may have gone back: then what waited to be let go is what counts.
        let back = self
            .before
            .iter()
            .position(|old| is_same(&old.held.cid, &to.cid));
        let to = match back {
            Some(at) => self.before.remove(at).held,
            None => to,
        };
        let held = std::mem::replace(&mut self.now, to);
        self.before.push(Old { held, since: at });
    }

    /// The oldest whose time is over, or that there is no room for.
    pub(super) fn due(&self, now: SystemTime) -> Option<&Old> {
        let oldest = self.before.first()?;
        let is_over = now >= oldest.since + self.grace;
        (is_over || self.before.len() > BEFORE_MAX).then_some(oldest)
    }

    /// What is pinned here is somebody else's from now on; gives whether that changes anything.
    pub(super) fn release(&mut self, cid: &Cid) -> bool {
        let all = self.before.iter_mut().map(|old| &mut old.held);
        let mut changed = false;
        for held in all.chain([&mut self.now]) {
            changed |= is_same(&held.cid, cid) && std::mem::replace(&mut held.is_ours, false);
        }
        changed
    }

    pub(super) fn write(&self) -> Bytes {
        let held = |held: &Held| WrittenHeld {
            cid: held.cid.to_string(),
            is_ours: held.is_ours,
        };
        let written = Written {
            version: VERSION,
            name: self.pin_name.clone(),
            grace_seconds: self.grace.as_secs(),
            now: held(&self.now),
            before: self
                .before
                .iter()
                .map(|old| WrittenOld {
                    held: held(&old.held),
                    since: seconds(old.since),
                })
                .collect(),
            is_over: self.is_over,
        };
        // Texts, numbers and lists of them always are.
        serde_json::to_vec(&written).unwrap_or_default().into()
    }

    pub(super) fn read(note: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(note).ok()?;
        (written.version == VERSION).then_some(())?;
        let held = |held: WrittenHeld| {
            Some(Held {
                cid: cid::parse(&held.cid).ok()?,
                is_ours: held.is_ours,
            })
        };
        let before = written.before.into_iter().map(|old| {
            let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(old.since))?;
            Some(Old {
                held: held(old.held)?,
                since,
            })
        });
        Some(Self {
            pin_name: written.name,
            grace: Duration::from_secs(written.grace_seconds),
            before: before.collect::<Option<_>>()?,
            now: held(written.now)?,
            is_over: written.is_over,
        })
    }
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

const VERSION: u8 = 1;
/// Versions that wait to be let go; of a name that moves more often the oldest goes before its time.
pub(super) const BEFORE_MAX: usize = 16;
