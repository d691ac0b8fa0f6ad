//! One piece of work and what it has learnt: who has its blocks, what it still waits for, when it
//! last got anywhere. The choices that need all peers are made in `client/`.

use super::client::OWED_LONGEST;
use super::key::Key;
use super::recent::Recent;
use crate::explain::{ADVICE, counted};
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
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
    /// Who fetches the same (`client/crowd.rs`), and when each last said that it has something, or joined.
    pub(super) companions: BTreeMap<PeerId, Instant>,
    /// How many joined so far.
    pub(super) joined: u64,
    /// Wants that nobody was asked for yet, because whoever might have them is busy.
    pub(super) queue: VecDeque<Key>,
    pub(super) wants: HashSet<Key>,
    /// Those of which everybody was asked.
    pub(super) broadcasts: HashSet<Key>,
    /// Whether something changed since it was last seen what can be placed.
    pub(super) is_restless: bool,
    pub(super) progress_at: Instant,
    /// When the last block came, or it began to wait.
    block_at: Instant,
    /// When providers are looked for next.
    pub(super) search_at: Instant,
    pub(super) searched_at: Option<Instant>,
    /// When others are asked next whether they have parts of it too, and how long it is from then to
    /// the next time.
    explore_at: Instant,
    explore_pause: Duration,
    pub(super) sought: Sought,
    /// What it waited for in vain, when that was over, and what was tried.
    given_up: Recent<GIVEN_UP_MAX, (Instant, Tried)>,
}

/// How one peer served one session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Holder {
    pub(super) delivered: u64,
    /// DONT_HAVEs since it last had something.
    pub(super) lacking: u32,
}

/// Where a session looked for peers since it last had all it wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sought {
    pub(super) searches: usize,
    pub(super) providers: usize,
    pub(super) dials: usize,
    pub(super) failed: usize,
    /// Why the last dial that failed did.
    pub(super) last_failure: Option<Arc<str>>,
    /// Blocks that came meanwhile.
    pub(super) came: u64,
}

/// What was said about one want.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Peers asked, in any way.
    pub(super) asked: usize,
    /// Peers that were asked or said that they have it, and whose last word is not that they lack it.
    pub(super) may_have: usize,
    pub(super) want_haves: u32,
    pub(super) want_blocks: u32,
    pub(super) haves: u32,
    pub(super) dont_haves: u32,
}

/// What was tried, to be told to whoever waited in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tried {
    /// Connected peers that speak Bitswap.
    pub(super) connected: usize,
    /// Connected peers that do not.
    pub(super) mute: usize,
    pub(super) said: Said,
    pub(super) sought: Sought,
    /// Trustless gateways asked over HTTP.
    pub(super) gateways: BTreeSet<PeerId>,
    /// Those that cannot be reached, and why: whoever speaks to them knows.
    pub(super) unreached: Vec<(String, Arc<str>)>,
    /// Why this node connects to nobody, if it does not.
    pub(super) alone: Option<String>,
}

impl Session {
    pub(super) fn new(idle: Duration, now: Instant) -> Self {
        Self {
            idle,
            holders: HashMap::new(),
            companions: BTreeMap::new(),
            joined: 0,
            queue: VecDeque::new(),
            wants: HashSet::new(),
            broadcasts: HashSet::new(),
            is_restless: true,
            progress_at: now,
            block_at: now,
            search_at: now + SEARCH_DELAY,
            searched_at: None,
            explore_at: now,
            explore_pause: EXPLORE_FIRST,
            sought: Sought::default(),
            given_up: Recent::default(),
        }
    }

    /// It waited for this in vain.
    pub(super) fn gives_up(&mut self, key: Key, tried: Tried, now: Instant) {
        self.given_up.add(key, (now, tried));
    }

    /// What was tried for this, if it was waited for in vain not long ago. Whoever reads one block after the
    /// other comes to each that is missing in its turn; they were waited for together, if they were asked for
    /// together, and not again one after the other.
    pub(super) fn gave_up(&self, key: &Key, now: Instant) -> Option<&Tried> {
        let (at, tried) = self.given_up.get(key)?;
        (now.saturating_duration_since(*at) < self.idle).then_some(tried)
    }

    /// A peer is here. If it has parts of this, what was given up may be with it.
    pub(super) fn arrived(&mut self, peer: &PeerId) {
        if self.holders.contains_key(peer) {
            self.may_find_what_was_given_up();
        }
    }

    /// Somebody was found who may have what was given up.
    pub(super) fn may_find_what_was_given_up(&mut self) {
        self.given_up = Recent::default();
    }

    /// It waits again after it had all it wanted: its clocks start anew.
    pub(super) fn wakes(&mut self, now: Instant) {
        (self.progress_at, self.block_at) = (now, now);
        self.search_at = now + SEARCH_DELAY;
        self.sought = Sought::default();
    }

    /// It came, or is not waited for any longer.
    pub(super) fn wants_no_more(&mut self, key: &Key) {
        self.wants.remove(key);
        self.broadcasts.remove(key);
    }

    /// Something it waits for came.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.block_at = now;
        self.flows(now);
    }

    /// Something it waits for seems to be coming. That is believed for as long as the largest block takes, whoever
    /// says so.
    pub(super) fn flows(&mut self, now: Instant) {
        if now.saturating_duration_since(self.block_at) > OWED_LONGEST {
            return;
        }
        self.progress_at = now;
        self.search_at = self.search_at.max(now + SEARCH_DELAY);
    }

    /// This peer has something of it. Of a companion that says little about the rest.
    pub(super) fn holds(&mut self, peer: PeerId) {
        self.holder(peer);
    }

    /// This peer sent a block of it.
    pub(super) fn delivered(&mut self, peer: PeerId) {
        if let Some(holder) = self.holder(peer) {
            holder.delivered += 1;
        }
        self.sought.came += 1;
    }

    fn holder(&mut self, peer: PeerId) -> Option<&mut Holder> {
        let is_full = self.holders.len() >= HOLDERS_MAX && !self.holders.contains_key(&peer);
        if is_full || self.companions.contains_key(&peer) {
            return None;
        }
        let holder = self.holders.entry(peer).or_default();
        holder.lacking = 0;
        Some(holder)
    }

    /// This peer fetches the same; true if that is news.
    pub(super) fn joins(&mut self, peer: PeerId, now: Instant) -> bool {
        let is_full = self.companions.len() >= COMPANIONS_MAX;
        if is_full || self.companions.contains_key(&peer) {
            return false;
        }
        self.companions.insert(peer, now);
        self.joined += 1;
        self.holders.remove(&peer);
        true
    }

    /// A peer says that it has something; if it fetches the same it goes on doing so.
    pub(super) fn heard(&mut self, peer: &PeerId, now: Instant) {
        if let Some(heard_at) = self.companions.get_mut(peer) {
            *heard_at = now;
        }
    }

    /// A peer is gone. It is remembered only if it sent something: words cost nothing.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.companions.remove(peer);
        if self
            .holders
            .get(peer)
            .is_some_and(|holder| holder.delivered == 0)
        {
            self.holders.remove(peer);
        }
    }

    /// This peer lacks something; after many it is asked like a stranger.
    pub(super) fn lacks(&mut self, peer: &PeerId) {
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
        self.sought.searches += 1;
        true
    }

    /// Whether it is time to ask others while all who are known are busy.
    pub(super) fn explores(&self, now: Instant) -> bool {
        !self.wants.is_empty() && now >= self.explore_at
    }

    /// They were asked.
    pub(super) fn explored(&mut self, now: Instant) {
        self.explore_at = now + self.explore_pause;
        self.explore_pause = (self.explore_pause * 2).min(EXPLORE_MAX);
    }

    /// A dial to one of its providers is over.
    pub(super) fn dialled(&mut self, outcome: &Result<(), Arc<str>>) {
        self.sought.dials += 1;
        if let Err(why) = outcome {
            self.sought.failed += 1;
            self.sought.last_failure = Some(Arc::clone(why));
        }
    }

    /// Nobody connected is left to be asked: no need to wait before looking for others.
    pub(super) fn exhausted(&mut self, now: Instant) {
        self.search_at = self.search_at.min(now);
    }
}

impl Tried {
    /// Whether there is anybody who may have it: who said so, is told of as a provider, sent others of the same
    /// work, or has not answered.
    pub(super) fn found_somebody(&self) -> bool {
        self.said.may_have > 0 || self.sought.providers > 0 || self.sought.came > 0
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connected,
            mute,
            said,
            sought,
            gateways,
            unreached,
            alone,
        } = self;
        match (*connected, mute, said.asked) {
            (0, 0, 0) => write!(out, "no peer is connected")?,
            (0, _, 0) => write!(out, "no connected peer speaks Bitswap")?,
            (connected, _, asked) => {
                match asked <= connected {
                    true => write!(
                        out,
                        "asked {asked} of {connected} connected peers that speak Bitswap"
                    )?,
                    // Some have gone since.
                    false => write!(out, "asked {}", counted(asked, "peer", "peers"))?,
                }
                write!(
                    out,
                    " ({} want-have, {} want-block); answers: {} HAVE, {} DONT_HAVE, no block",
                    said.want_haves, said.want_blocks, said.haves, said.dont_haves
                )?;
                if asked > connected {
                    write!(
                        out,
                        "; {} connected by now",
                        counted(connected, "is", "are")
                    )?;
                }
            }
        }
        if let Some(why) = alone {
            write!(out, "; {why}")?;
        }
        if !gateways.is_empty() {
            let gateways = counted(gateways.len(), "gateway", "gateways");
            write!(out, "; {gateways} asked in vain")?;
        }
        for (url, why) in unreached {
            write!(out, "; gateway {url} cannot be reached: {}", shown(why))?;
        }
        write!(
            out,
            "; {} for providers found {}",
            counted(sought.searches, "search", "searches"),
            sought.providers
        )?;
        if sought.dials > 0 {
            let dials = counted(sought.dials, "dial", "dials");
            write!(out, "; {dials}, {} failed", sought.failed)?;
        }
        if let Some(why) = &sought.last_failure {
            write!(out, ", the last: {}", shown(why))?;
        }
        if sought.came > 0 {
            let came = counted(sought.came, "other block", "other blocks");
            write!(out, "; {came} of the same work came")?;
        }
        if connected + mute == 0 && alone.is_none() && gateways.is_empty() {
            write!(
                out,
                "; `cairn swarm connect` connects to who has it{ADVICE}"
            )?;
        }
        Ok(())
    }
}

fn shown(why: &str) -> String {
    why.chars().take(FAILURE_CHARS_MAX).collect()
}

/// How long connected peers have for themselves before providers are looked for.
pub(super) const SEARCH_DELAY: Duration = Duration::from_secs(1);
/// Time between two searches of one session.
const SEARCH_AGAIN: Duration = Duration::from_secs(10);
/// Peers of which a session remembers that they have parts of it.
const HOLDERS_MAX: usize = 1024;
/// Blocks that a session remembers it waited for in vain: what two walks ask for at once.
const GIVEN_UP_MAX: usize = 1024;
/// Companions of one session.
const COMPANIONS_MAX: usize = 32;
/// Time from the first question to those who are not known to have anything to the second.
const EXPLORE_FIRST: Duration = Duration::from_millis(500);
/// Time between two of them at most.
const EXPLORE_MAX: Duration = Duration::from_secs(8);
/// DONT_HAVEs in a row until a peer is a stranger again.
const LACKING_MAX: u32 = 16;
/// Characters of a failure that are told: it names every address that was tried.
const FAILURE_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_is_remembered_if_it_sent_something_and_so_many_are() {
        let now = Instant::now();
        let mut session = Session::new(Duration::from_secs(1), now);
        let (talker, sender) = (PeerId::random(), PeerId::random());
        session.holds(talker);
        session.delivered(sender);
        for peer in [talker, sender] {
            session.gone(&peer);
        }
        assert!(session.holders.keys().eq([&sender]));
        for _ in 0..2 * HOLDERS_MAX {
            session.delivered(PeerId::random());
        }
        assert_eq!(session.holders.len(), HOLDERS_MAX);
        session.joins(sender, now);
        session.gone(&sender);
        assert!(session.companions.is_empty() && !session.holders.contains_key(&sender));
    }

    #[test]
    fn what_was_tried_is_told_in_bounded_words() {
        let mut tried = Tried::default();
        assert_eq!(
            tried.to_string(),
            "no peer is connected; 0 searches for providers found 0; `cairn swarm connect` connects to who has it, \
             `cairn explain` tells how it is looked for"
        );
        tried.mute = 1;
        assert_eq!(
            tried.to_string(),
            "no connected peer speaks Bitswap; 0 searches for providers found 0"
        );
        tried = Tried {
            connected: 3,
            mute: 1,
            said: Said {
                asked: 2,
                may_have: 1,
                want_haves: 2,
                want_blocks: 1,
                haves: 1,
                dont_haves: 1,
            },
            sought: Sought {
                searches: 1,
                providers: 2,
                dials: 2,
                failed: 1,
                last_failure: Some("nobody there. ".repeat(1000).into()),
                came: 1,
            },
            gateways: BTreeSet::from([PeerId::random()]),
            unreached: vec![("http://127.0.0.1:1".to_owned(), "refused".into())],
            alone: Some("alone".to_owned()),
        };
        let told = Tried {
            connected: 1,
            ..tried.clone()
        };
        let told = told.to_string();
        assert!(
            told.starts_with("asked 2 peers (2 want-have, 1 want-block); answers: 1 HAVE")
                && told.contains("no block; 1 is connected by now; alone"),
            "{told}"
        );
        let told = tried.to_string();
        assert!(
            told.starts_with(
                "asked 2 of 3 connected peers that speak Bitswap (2 want-have, 1 want-block); \
                 answers: 1 HAVE, 1 DONT_HAVE, no block; alone; 1 gateway asked in vain; gateway \
                 http://127.0.0.1:1 cannot be reached: refused; 1 search for providers found 2; \
                 2 dials, 1 failed, the last: nobody there. nobody"
            ),
            "{told}"
        );
        assert!(
            told.ends_with("; 1 other block of the same work came"),
            "{told}"
        );
        assert!(told.len() < 700, "{}", told.len());
    }
}
