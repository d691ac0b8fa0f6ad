//! What the journal has of a name that is followed, as JSON.

use super::{GRACE_MAX, is_same};
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
    /// The number of the record that led there, where the path begins with a key's name.
    pub(super) sequence: Option<u64>,
}

/// What is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) cid: Cid,
    /// Whether it is pinned for names alone, and so is let go with the last of them. The same in all notes.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
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
            sequence: None,
        }
    }

    /// The name leads there now, perhaps as before.
    pub(super) fn moves(&mut self, to: Held, at: SystemTime) {
        // It may have gone back to what waited to be let go.
        self.before.retain(|old| !is_same(&old.held.cid, &to.cid));
        let is_new = !is_same(&to.cid, &self.now.cid);
        let held = std::mem::replace(&mut self.now, to);
        if is_new {
            self.before.push(Old { held, since: at });
        }
    }

    /// The oldest whose time is over, or that there is no room for.
    pub(super) fn due(&self, now: SystemTime) -> Option<&Old> {
        let oldest = self.before.first()?;
        let is_over = now >= self.until(oldest);
        (is_over || self.before.len() > BEFORE_MAX).then_some(oldest)
    }

    /// Until when an old one stays.
    pub(super) fn until(&self, old: &Old) -> SystemTime {
        old.since.checked_add(self.grace).unwrap_or(old.since)
    }

    /// Everything that is held because of this.
    pub(super) fn held(&self) -> impl Iterator<Item = &Held> {
        self.before.iter().map(|old| &old.held).chain([&self.now])
    }

    pub(super) fn held_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        let before = self.before.iter_mut().map(|old| &mut old.held);
        before.chain([&mut self.now])
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
            sequence: self.sequence,
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
            grace: Duration::from_secs(written.grace_seconds).min(GRACE_MAX),
            sequence: written.sequence,
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
