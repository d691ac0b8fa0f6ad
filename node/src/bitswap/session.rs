//! One piece of work and what it has learnt: who has its blocks, what it still waits for, when it
//! last got anywhere. The choices that need all peers are made in `client.rs`.

use super::key::Key;
use libp2p::PeerId;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// A session's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// What one session knows.
#[derive(Debug)]
pub(super) struct Session {
    /// Without any progress for so long, its wants are given up.
    pub(super) idle: Duration,
    /// Who has something of this: told so, or delivered.
    pub(super) holders: HashMap<PeerId, Holder>,
    /// Wants that nobody was asked for yet, because whoever might have them is busy.
    pub(super) queue: VecDeque<Key>,
    pub(super) wants: HashSet<Key>,
    pub(super) progress_at: Instant,
    /// When providers are looked for next.
    pub(super) search_at: Instant,
    pub(super) searched_at: Option<Instant>,
    pub(super) tried: Tried,
    /// Whom the text below has counted.
    pub(super) asked: BTreeSet<PeerId>,
}

/// How one peer served one session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Holder {
    pub(super) delivered: u64,
    /// DONT_HAVEs since it last had something.
    pub(super) lacking: u32,
}

/// What was tried, to be told to whoever waited in vain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) connected: usize,
    pub(super) asked: usize,
    pub(super) absent: usize,
    pub(super) searches: usize,
    pub(super) providers: usize,
    pub(super) unreachable: usize,
}

impl Session {
    pub(super) fn new(idle: Duration, now: Instant) -> Self {
        Self {
            idle,
            holders: HashMap::new(),
            queue: VecDeque::new(),
            wants: HashSet::new(),
            progress_at: now,
            search_at: now + SEARCH_DELAY,
            searched_at: None,
            tried: Tried::default(),
            asked: BTreeSet::new(),
        }
    }

    /// It waits again after it had all it wanted: its clocks start anew.
    pub(super) fn wakes(&mut self, now: Instant) {
        self.progress_at = now;
        self.search_at = now + SEARCH_DELAY;
        self.tried = Tried::default();
        self.asked.clear();
    }

    /// Something it waits for came, or is coming.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.progress_at = now;
        self.search_at = self.search_at.max(now + SEARCH_DELAY);
    }

    /// This peer has something of it.
    pub(super) fn holds(&mut self, peer: PeerId) -> &mut Holder {
        let holder = self.holders.entry(peer).or_default();
        holder.lacking = 0;
        holder
    }

    /// This peer lacks something; after many it is asked like a stranger.
    pub(super) fn lacks(&mut self, peer: &PeerId) {
        self.tried.absent += 1;
        if let Some(holder) = self.holders.get_mut(peer) {
            holder.lacking += 1;
            if holder.lacking >= LACKING_MAX {
                self.holders.remove(peer);
            }
        }
    }

    /// Whether it is time to look for providers; notes that it is done.
    pub(super) fn searches(&mut self, now: Instant) -> bool {
        let again = self.searched_at.is_none_or(|at| now >= at + SEARCH_AGAIN);
        if self.wants.is_empty() || now < self.search_at || !again {
            return false;
        }
        self.searched_at = Some(now);
        self.tried.searches += 1;
        true
    }

    /// Nobody connected is left to be asked: no need to wait before looking for others.
    pub(super) fn exhausted(&mut self, now: Instant) {
        self.search_at = self.search_at.min(now);
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connected,
            asked,
            absent,
            searches,
            providers,
            unreachable,
        } = self;
        write!(
            out,
            "{connected} connected peers speak Bitswap, {asked} were asked, {absent} answers said \
             that it is not there; {searches} searches for providers found {providers}, of whom \
             {unreachable} could not be reached"
        )
    }
}

/// How long connected peers have for themselves before providers are looked for.
pub(super) const SEARCH_DELAY: Duration = Duration::from_secs(1);
/// Time between two searches of one session.
const SEARCH_AGAIN: Duration = Duration::from_secs(10);
/// DONT_HAVEs in a row until a peer is a stranger again.
const LACKING_MAX: u32 = 16;
