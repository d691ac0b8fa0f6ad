//! What the provider knows: the set, the schedule, and what was told.
//!
//! The set is two lists: the sorted keys of the last gathering ([`Keys`]), and those that came since or are still to be told before
//! their region's time ([`State::fresh`]). A gathering replaces the first and leaves in the second what is new in it.

use super::Peers;
use super::keys::{Key, Keys};
use super::prefix::Prefix;
use super::schedule::{Moment, Progress, Schedule, Turn, Which};
use super::told::Told;
use crate::dht::place::Place;
use crate::dht::regions;
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// All of it.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) folder: Option<PathBuf>,
    /// `None` before the first gathering.
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) fresh: BTreeMap<Key, Fresh>,
    pub(super) schedule: Schedule,
    pub(super) told: Told,
    pub(super) size: Option<f64>,
    /// Keys told in all since the start.
    pub(super) provided: u64,
    /// How long turns took, of the last ones: all together and how many.
    pub(super) took: (Duration, u32),
    /// The last tellings of new keys, the latest at the end.
    pub(super) tellings: VecDeque<Telling>,
    /// The last keys that were told because somebody asked for it, the latest at the end.
    by_hand: VecDeque<(Key, ByHand)>,
    /// When the keys were gathered last.
    pub(super) gathered_at: Option<Moment>,
}

/// A key that is newer than the last gathering, or than its region's last turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    pub(super) added_at: Moment,
    pub(super) told_at: Option<Moment>,
}

impl Fresh {
    /// Whether it is to be told, or a gathering may still find it.
    fn is_new(&self, gathered_at: Moment, now: Moment) -> bool {
        self.told_at.is_none() || (gathered_at < self.added_at && self.added_at <= now)
    }
}

/// New keys of a region were told.
#[derive(Debug)]
pub(super) struct Telling {
    at: Moment,
    prefix: Prefix,
    /// Whom, without their addresses.
    peers: Peers,
}

/// What a lookup was for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// All who keep records of a region's keys.
    Region,
    /// Those who keep the record of one.
    Key,
}

/// A key was told because somebody asked for it, whether or not it is provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByHand {
    /// When, since the beginning of Unix time.
    pub at: Duration,
    /// How many peers were told.
    pub peers: usize,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyStat {
    /// Whether it is provided at all.
    pub is_provided: bool,
    /// When peers were told of it last, since the beginning of Unix time.
    pub told_at: Option<Duration>,
    /// Which; `None` if that is not remembered.
    pub told: Option<Vec<PeerId>>,
    /// When they are told again.
    pub next_at: Option<Duration>,
    /// The first bits of where it lies, which its region has in common.
    pub region: String,
    /// When it was told last because somebody asked for it, as far as that is remembered.
    pub by_hand: Option<ByHand>,
}

impl State {
    /// What a folder knows; what does not read there is made anew.
    pub(super) fn open(
        folder: Option<PathBuf>,
        local: PeerId,
        interval: Duration,
        at_once: usize,
    ) -> io::Result<Self> {
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder)?;
        }
        let keys = folder.as_deref().map(Keys::open).and_then(Result::ok);
        Ok(Self {
            keys: keys.map(Arc::new),
            fresh: BTreeMap::new(),
            schedule: Schedule::new(interval, at_once),
            told: Told::open(folder.as_deref(), local)?,
            size: None,
            provided: 0,
            took: (Duration::ZERO, 0),
            tellings: VecDeque::new(),
            by_hand: VecDeque::new(),
            gathered_at: None,
            folder,
        })
    }

    /// Begins where it was: reads all keys once. Such as do not read are gathered anew.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        let bits = self.told.bits().unwrap_or(0);
        let restored = self.set_bits(bits);
        if restored.is_err() && self.keys.take().is_some() {
            return self.set_bits(bits);
        }
        restored
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Regions are of so many bits from now on, and have the keys that they have.
    pub(super) fn set_bits(&mut self, bits: u32) -> io::Result<()> {
        self.told.set_bits(bits)?;
        let mut counts: BTreeMap<Prefix, u64> = BTreeMap::new();
        if let Some(keys) = &self.keys {
            for key in keys.all() {
                *counts.entry(Prefix::of(key?.start, bits)).or_default() += 1;
            }
        }
        for key in self.fresh.keys() {
            *counts.entry(Prefix::of(key.start, bits)).or_default() += 1;
        }
        let told = &self.told;
        self.schedule
            .set(bits, &counts, |prefix| told.told_at(prefix));
        for (key, fresh) in &self.fresh {
            if fresh.told_at.is_none() {
                self.schedule.wants(Prefix::of(key.start, bits));
            }
        }
        Ok(())
    }

    /// A key is to be told now. What the set has already waits for its time, unless its region was never told.
    pub(super) fn add(&mut self, key: Key, now: Moment) -> io::Result<()> {
        if self.fresh.contains_key(&key) {
            return Ok(());
        }
        if self.fresh.len() >= FRESH_MAX {
            self.fresh.retain(|_, fresh| fresh.told_at.is_none());
        }
        if self.fresh.len() >= FRESH_MAX {
            return Ok(());
        }
        if let Some(keys) = &self.keys
            && keys.has(&key)?
        {
            return Ok(());
        }
        self.schedule.add(self.schedule.region_of(key.start));
        let fresh = Fresh {
            added_at: now,
            told_at: None,
        };
        self.fresh.insert(key, fresh);
        Ok(())
    }

    /// The keys were gathered anew from `began` on; `new` are not among those before. Those for which there is no room
    /// make all of their region due.
    pub(super) fn gathered(&mut self, keys: Keys, new: Vec<Key>, began: Moment) -> io::Result<()> {
        let mut fresh = std::mem::take(&mut self.fresh);
        let mut unfinished: BTreeSet<Prefix> = BTreeSet::new();
        for key in new {
            if fresh.len() < FRESH_MAX {
                fresh.entry(key).or_insert(Fresh {
                    added_at: began,
                    told_at: None,
                });
            } else {
                let prefix = self.schedule.region_of(key.start);
                self.told.forget(prefix)?;
            }
        }
        for (key, fresh) in &fresh {
            if fresh.told_at.is_none() {
                unfinished.insert(self.schedule.region_of(key.start));
            }
        }
        // After a restart nothing tells them from others, so all of their region is told then.
        for prefix in unfinished {
            self.told.mark(prefix)?;
        }
        self.fresh = fresh;
        self.keys = Some(Arc::new(keys));
        self.gathered_at = Some(began);
        self.set_bits(self.schedule.bits())
    }

    /// The next keys of a turn after one of them, and whether there may be more.
    pub(super) fn keys_of(&self, turn: Turn, after: Option<&Key>) -> io::Result<Vec<Key>> {
        let first = after
            .map_or(0, |after| after.start)
            .max(turn.prefix.first());
        let fresh = self.fresh.range(range(first, turn.prefix.last()));
        let fresh = fresh.filter(|(key, _)| after.is_none_or(|after| *key > after));
        let untold = fresh.filter(|(_, fresh)| fresh.told_at.is_none());
        let mut keys: Vec<Key> = untold
            .map(|(key, _)| key.clone())
            .take(KEYS_AT_ONCE)
            .collect();
        if turn.which == Which::All
            && let Some(all) = &self.keys
        {
            let more = all.of(&turn.prefix, after).take(KEYS_AT_ONCE);
            keys.extend(more.collect::<io::Result<Vec<Key>>>()?);
            keys.sort_unstable();
            keys.dedup();
            keys.truncate(KEYS_AT_ONCE);
        }
        Ok(keys)
    }

    /// Keys all over a region, to look it over with.
    pub(super) fn sample(&self, turn: Turn, first: &[Key]) -> io::Result<Vec<Vec<u8>>> {
        let step = first.len().div_ceil(regions::SPREAD_MAX).max(1);
        let mut sample: Vec<Vec<u8>> = first
            .iter()
            .step_by(step)
            .map(|key| key.hash.to_vec())
            .collect();
        if first.len() >= KEYS_AT_ONCE
            && let Some(keys) = &self.keys
        {
            sample.clear();
            let bits = turn.prefix.bits() + regions::SPREAD_MAX.ilog2();
            let step = 1u64 << (u64::BITS - bits);
            for part in 0..regions::SPREAD_MAX as u64 {
                let start = turn.prefix.first() + part * step;
                let from = Key {
                    start,
                    hash: Box::default(),
                };
                if let Some(key) = keys.of(&turn.prefix, Some(&from)).next() {
                    sample.push(key?.hash.into_vec());
                }
            }
        }
        Ok(sample)
    }

    /// The peers of a region, if they were found lately.
    pub(super) fn recent_peers(&self, prefix: &Prefix, now: Moment) -> Option<Peers> {
        let is_recent = |at: Moment| at <= now && now - at < RECENT;
        if self.told.looked_at(prefix).is_some_and(is_recent) {
            return self
                .told
                .found(prefix)
                .ok()
                .filter(|peers| !peers.is_empty());
        }
        None
    }

    /// A turn that began then is over: so many keys were told, new ones all up to `last`. `looked` has its peers, if they were
    /// looked for.
    pub(super) fn told(
        &mut self,
        turn: Turn,
        (began, now): (Moment, Moment),
        count: u64,
        looked: Option<(Peers, Part)>,
    ) -> io::Result<()> {
        let turn = match self.whole(turn) {
            Ok(turn) => turn,
            Err(error) => {
                self.schedule.failed(turn, now);
                return Err(error);
            }
        };
        let of_region = self
            .fresh
            .range_mut(range(turn.prefix.first(), turn.prefix.last()));
        // What came later than now came while the clock was ahead, so it was there when the turn began.
        let was_there = |fresh: &Fresh| fresh.added_at <= began || fresh.added_at > now;
        let (mut is_news, mut is_left) = (false, false);
        for (_, fresh) in of_region {
            match was_there(fresh) {
                true => {
                    is_news |= fresh.told_at.is_none();
                    fresh.told_at.get_or_insert(now);
                }
                false => is_left |= fresh.told_at.is_none(),
            }
        }
        if turn.which == Which::All {
            // They are as old as the others now.
            let of_region = range(turn.prefix.first(), turn.prefix.last());
            let gathered_at = self.gathered_at.unwrap_or_default();
            self.fresh
                .retain(|key, fresh| fresh.is_new(gathered_at, now) || !of_region.contains(key));
        }
        self.provided += count;
        let (sum, turns) = self.took;
        self.took = match turns {
            TURNS_MAX => (sum / 2 + now.saturating_sub(began), turns / 2 + 1),
            _ => (sum + now.saturating_sub(began), turns + 1),
        };
        self.schedule.told(turn, count, now);
        let (peers, looked_at) = match looked {
            Some((found, Part::Region)) => (found, Some(now)),
            Some((found, Part::Key)) => (found, None),
            None => (self.told.found(&turn.prefix)?, None),
        };
        if count > 0 && is_news {
            self.remember(now, turn.prefix, &peers);
        }
        match turn.which {
            Which::All => self.told.note(turn.prefix, Some(now), looked_at, peers),
            Which::New => {
                if looked_at.is_some() {
                    self.told.note_found(turn.prefix, now, peers)?;
                }
                match is_left {
                    true => Ok(()),
                    false => self.told.unmark(turn.prefix),
                }
            }
        }
    }

    /// Keeps whom new keys were told, and forgets that of others if there is no room.
    fn remember(&mut self, at: Moment, prefix: Prefix, peers: &Peers) {
        if self.tellings.len() >= TELLINGS_MAX {
            self.tellings.pop_front();
        }
        let peers = peers.without_addresses();
        self.tellings.push_back(Telling { at, prefix, peers });
    }

    /// A turn for new keys of a region that has no others is one for all of them.
    fn whole(&self, turn: Turn) -> io::Result<Turn> {
        let of_region = range(turn.prefix.first(), turn.prefix.last());
        let mut new = self.fresh.range(of_region);
        let mut others = self.keys.as_ref().map(|keys| keys.of(&turn.prefix, None));
        let other = others.as_mut().and_then(Iterator::next).transpose()?;
        let has_others = other.is_some() || new.any(|(_, fresh)| fresh.told_at.is_some());
        let which = match has_others {
            true => turn.which,
            false => Which::All,
        };
        Ok(Turn { which, ..turn })
    }

    /// How far it is.
    pub(super) fn progress(&self, now: Moment) -> Progress {
        self.schedule.progress(now)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> u64 {
        self.keys.as_ref().map_or(0, |keys| keys.len())
    }

    /// Keys that are to be told before their time.
    pub(super) fn untold(&self) -> usize {
        self.fresh
            .values()
            .filter(|fresh| fresh.told_at.is_none())
            .count()
    }

    /// Whether a key came since the last gathering, or is still to be told before its time.
    pub(super) fn is_fresh(&self, key: &Key) -> bool {
        self.fresh.contains_key(key)
    }

    fn is_gathered(&self, key: &Key) -> io::Result<bool> {
        match &self.keys {
            Some(keys) => keys.has(key),
            None => Ok(false),
        }
    }

    /// What is known of one key.
    pub(super) fn stat(&self, hash: &[u8], now: Moment) -> io::Result<KeyStat> {
        let key = Key::new(hash);
        let prefix = self.schedule.region_of(key.start);
        let fresh = self.fresh.get(&key).copied();
        let is_gathered = self.is_gathered(&key)?;
        let of_region = self.schedule.told_at(&prefix);
        // What all of a region was told says nothing of a key that was not among them.
        let told_at = match fresh {
            Some(fresh) => fresh.told_at,
            None => of_region.filter(|_| is_gathered),
        };
        let told = match (told_at, fresh) {
            (None, _) => Some(Vec::new()),
            (Some(at), Some(_)) => self.told_then(at, &key),
            (Some(_), None) => Some(self.keepers(&self.told.peers(&prefix)?, hash)),
        };
        let gathered_at = self.gathered_at.unwrap_or_default();
        let is_new = |fresh: Fresh| fresh.is_new(gathered_at, now);
        let is_provided = is_gathered || fresh.is_some_and(is_new);
        let next_at = match fresh {
            Some(Fresh { told_at: None, .. }) => Some(now),
            _ => self.schedule.due_of(&prefix, now),
        };
        let bits = prefix.bits() as usize;
        Ok(KeyStat {
            is_provided,
            told_at,
            told,
            next_at: next_at.filter(|_| is_provided).map(|at| at.max(now)),
            region: format!("{:064b}", prefix.first())
                .chars()
                .take(bits)
                .collect(),
            by_hand: self.by_hand(&key),
        })
    }

    fn by_hand(&self, key: &Key) -> Option<ByHand> {
        let told = self.by_hand.iter().rev();
        told.map(|(told, how)| (told == key, *how))
            .find_map(|(is_it, how)| is_it.then_some(how))
    }

    /// So many peers were told of a key because somebody asked for it.
    pub(super) fn told_by_hand(&mut self, key: Key, at: Moment, peers: usize) {
        if self.by_hand.len() >= BY_HAND_MAX {
            self.by_hand.pop_front();
        }
        self.by_hand.push_back((key, ByHand { at, peers }));
    }

    /// Whom a new key was told then, if that is remembered.
    fn told_then(&self, at: Moment, key: &Key) -> Option<Vec<PeerId>> {
        let has = |telling: &&Telling| {
            telling.at == at && range(telling.prefix.first(), telling.prefix.last()).contains(key)
        };
        let telling = self.tellings.iter().rev().find(has)?;
        Some(self.keepers(&telling.peers, &key.hash))
    }

    fn keepers(&self, peers: &Peers, hash: &[u8]) -> Vec<PeerId> {
        let place = Place::of(hash);
        let keepers = peers.keepers(&place, self.size);
        keepers.map(|(_, contact)| contact.peer).collect()
    }
}

/// All keys whose places begin with these bits.
fn range(first: u64, last: u64) -> RangeInclusive<Key> {
    let key = |start, hash: &[u8]| Key {
        start,
        hash: hash.into(),
    };
    key(first, &[])..=key(last, &[0xff; crate::dht::message::KEY_BYTES_MAX])
}

/// Keys that are newer than the last gathering, or wait to be told: about 120 bytes each.
const FRESH_MAX: usize = 32 << 10;
/// Keys that are read and told at once.
pub(super) const KEYS_AT_ONCE: usize = 8 << 10;
/// How long a region's peers count as known.
const RECENT: Duration = Duration::from_secs(3600);
/// Turns that the time of one is told by.
const TURNS_MAX: u32 = 64;
/// Tellings of new keys of which it is remembered who was told: at most 30 kB each.
const TELLINGS_MAX: usize = 64;
/// Keys told by hand that are remembered: about 100 bytes each.
const BY_HAND_MAX: usize = 256;
