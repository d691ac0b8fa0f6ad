//! Who provides what, as far as we were told: in memory, within bounds.
//!
//! Keys are multihashes. Records are forgotten 48 hours after they came; what a provider said about its
//! addresses is kept once for all its records, and believed for 24. Whoever takes the changes can keep a copy elsewhere.
//!
//! Once half of the room is taken, no provider gets more than a share of it, nor do those of one network, and where
//! there is none left what is farthest from us goes first: others are asked for that.
//!
//! Invariants: `held` is the number of records of others in `keys`; a provider is in `providers` exactly while it
//! has a record, with its number; every record in `keys` has one entry in `expiry`, at its time of expiry or
//! earlier, and nothing else has; `groups` has how many records those of each network have; `far` has the keys of which
//! others have records; `changed` has at most [`CHANGES_PER_RECORD`] times the room, and what is kept besides.

use super::place::Place;
use super::table::Group;
use crate::network::{Network, Realm};
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// What names a content: a multihash.
pub(crate) type Key = Bytes;

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// Its key is none.
    Key,
    /// There is no room.
    Full,
}

/// Who provides what, as far as we were told.
#[derive(Debug, Clone)]
pub(crate) struct Providers {
    local: PeerId,
    place: Place,
    network: Network,
    realm: Realm,
    records_max: usize,
    keys: HashMap<Key, Vec<Entry>>,
    providers: HashMap<PeerId, Known>,
    groups: HashMap<Group, usize>,
    /// How far from us keys are of which others have records, by the first bits; the farthest are last.
    far: BTreeSet<(u64, Key)>,
    /// When to look at which record, the earliest first; the number keeps equal times apart.
    expiry: BTreeMap<Look, (Key, PeerId)>,
    noted: u64,
    held: usize,
    own: usize,
    /// Records of others that came or went since they were last taken.
    changed: HashSet<(Key, PeerId)>,
}

/// When a record is looked at, and a number that no other has.
type Look = (Instant, u64);

/// A record of another peer that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) provider: PeerId,
    /// What is kept now: where the provider is, and until when. `None` if it went.
    pub(crate) kept: Option<(Vec<Multiaddr>, Instant)>,
}

#[derive(Debug, Clone)]
struct Entry {
    provider: PeerId,
    expires: Instant,
    /// Its place in `expiry`.
    look: Look,
}

#[derive(Debug, Clone, Default)]
struct Known {
    addresses: Vec<Multiaddr>,
    /// How long they are believed.
    until: Option<Instant>,
    records: usize,
    /// The network it is in, where that matters.
    group: Option<Group>,
}

/// Who says that it has something.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
    /// The network it is in, where that matters.
    pub(crate) group: Option<Group>,
}

impl Providers {
    pub(crate) fn new(local: PeerId, network: Network, realm: Realm, records_max: usize) -> Self {
        Self {
            place: Place::of_peer(&local),
            local,
            network,
            realm,
            records_max,
            keys: HashMap::new(),
            providers: HashMap::new(),
            groups: HashMap::new(),
            far: BTreeSet::new(),
            expiry: BTreeMap::new(),
            noted: 0,
            held: 0,
            own: 0,
            changed: HashSet::new(),
        }
    }

    /// How many records of others are kept.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether the key is one that a record may have.
    pub(crate) fn is_key(key: &[u8]) -> bool {
        (1..=KEY_BYTES_MAX).contains(&key.len())
    }

    /// The addresses a provider gave lately, within our network.
    pub(crate) fn addresses(&self, provider: &PeerId, now: Instant) -> Vec<Multiaddr> {
        self.providers
            .get(provider)
            .filter(|known| known.until.is_some_and(|until| now < until))
            .map(|known| known.addresses.clone())
            .unwrap_or_default()
    }

    /// `provider` says that it has what `key` names, and where it is.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        provider: Provider,
        now: Instant,
    ) -> Result<(), NotKept> {
        self.add_until(key, provider, now + RECORD_LIFE, now)
    }

    /// The same, with another end. What it said of its addresses is as old as the record.
    pub(crate) fn add_until(
        &mut self,
        key: &[u8],
        provider: Provider,
        expires: Instant,
        now: Instant,
    ) -> Result<(), NotKept> {
        self.forget_expired(now);
        if !Self::is_key(key) {
            return Err(NotKept::Key);
        }
        let Provider {
            peer: provider,
            addresses,
            group,
        } = provider;
        let key = Key::copy_from_slice(key);
        let ours = provider == self.local;
        let entries = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
        let renewed = entries.iter().any(|e| e.provider == provider);
        if !renewed {
            let full = match ours {
                true => self.own >= OWN_RECORDS_MAX,
                false => {
                    entries.len() >= PROVIDERS_PER_KEY_MAX
                        || self.has_much_to_tell()
                        || self.has_its_share(&provider, group)
                        || (self.held >= self.records_max && !self.make_room_for(&key))
                }
            };
            if full {
                return Err(NotKept::Full);
            }
        }
        self.is_in(provider, group);
        let entries = self
            .keys
            .get_mut(&key)
            .map_or(&mut [][..], Vec::as_mut_slice);
        match entries.iter_mut().find(|e| e.provider == provider) {
            // A renewed record keeps its old place in line; it is looked at then and put back.
            Some(entry) => entry.expires = expires,
            None => {
                let look = self.look_at(expires, key.clone(), provider);
                self.keys.entry(key.clone()).or_default().push(Entry {
                    provider,
                    expires,
                    look,
                });
                let known = self.providers.entry(provider).or_default();
                known.records += 1;
                if ours {
                    self.own += 1;
                } else {
                    self.held += 1;
                    if let Some(group) = known.group {
                        *self.groups.entry(group).or_default() += 1;
                    }
                    self.far
                        .insert((self.place.start_of_distance(&key), key.clone()));
                }
            }
        }
        if !ours {
            self.changed.insert((key, provider));
        }
        // Of a long life, only its beginning; and never earlier than what is known.
        let until = expires.checked_sub(RECORD_LIFE.saturating_sub(ADDRESS_LIFE));
        if !ours
            && let Some(known) = self.providers.get_mut(&provider)
            && known.until <= until
        {
            let mut addresses: Vec<_> = addresses
                .into_iter()
                .filter(|address| self.network.fits(self.realm, address))
                .take(ADDRESSES_PER_PROVIDER_MAX)
                .collect();
            addresses.dedup();
            (known.addresses, known.until) = (addresses, until);
        }
        Ok(())
    }

    /// Whether it gets no more. In a small network one may provide most of what there is, so shares are for when there is
    /// little room.
    fn has_its_share(&self, provider: &PeerId, group: Option<Group>) -> bool {
        if self.held < self.records_max / SHARED_FROM {
            return false;
        }
        let most = self.records_max.div_ceil(SHARE);
        let of_group = group.and_then(|group| self.groups.get(&group));
        let known = self.providers.get(provider);
        known.is_some_and(|known| known.records >= most) || of_group.is_some_and(|of| *of >= most)
    }

    /// Whether more came and went than can be told, as while a disk is slow. What is kept may be renewed still.
    fn has_much_to_tell(&self) -> bool {
        self.changed.len() >= self.records_max.saturating_mul(CHANGES_PER_RECORD)
    }

    /// Drops a record of a key that is farther from us than this one, if there is any.
    fn make_room_for(&mut self, key: &Key) -> bool {
        let distance = self.place.start_of_distance(key);
        let Some((farthest, far)) = self.far.last().cloned() else {
            return false;
        };
        let entries = self.keys.get(&far).map_or(&[][..], Vec::as_slice);
        let newest = entries.iter().rfind(|entry| entry.provider != self.local);
        match newest.map(|entry| entry.provider) {
            Some(provider) if farthest > distance => {
                self.remove(&far, &provider);
                true
            }
            _ => false,
        }
    }

    /// A provider is in this network now, with all its records. Where that is not known it is where it was.
    fn is_in(&mut self, provider: PeerId, group: Option<Group>) {
        if provider == self.local || group.is_none() {
            return;
        }
        let known = self.providers.entry(provider).or_default();
        let (before, records) = (known.group, known.records);
        if before == group {
            return;
        }
        known.group = group;
        if let Some(group) = before {
            self.leaves(group, records);
        }
        if let Some(group) = group.filter(|_| records > 0) {
            *self.groups.entry(group).or_default() += records;
        }
    }

    fn leaves(&mut self, group: Group, records: usize) {
        if let Some(count) = self.groups.get_mut(&group) {
            *count = count.saturating_sub(records);
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// Takes the records of others that came or went since the last time.
    pub(crate) fn take_changes(&mut self, now: Instant) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let change = |(key, provider): (Key, PeerId)| {
            let entries = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
            let entry = entries.iter().find(|entry| entry.provider == provider);
            let kept = entry.map(|entry| (self.addresses(&provider, now), entry.expires));
            Change {
                key,
                provider,
                kept,
            }
        };
        changed.map(change).collect()
    }

    /// Who provides what `key` names, and where they are.
    pub(crate) fn of(
        &self,
        key: &[u8],
        now: Instant,
    ) -> impl Iterator<Item = (PeerId, Vec<Multiaddr>)> {
        let entries = self.keys.get(key).into_iter().flatten();
        entries
            .filter(move |entry| entry.expires > now)
            .map(move |entry| (entry.provider, self.addresses(&entry.provider, now)))
    }

    fn forget_expired(&mut self, now: Instant) {
        // A few at a time, so that no call takes long.
        for _ in 0..FORGOTTEN_AT_ONCE {
            let due = self.expiry.first_entry().filter(|e| e.key().0 <= now);
            let Some((key, provider)) = due.map(|entry| entry.remove()) else {
                return;
            };
            let entries = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
            let entry = entries.iter().find(|entry| entry.provider == provider);
            match entry.map(|entry| entry.expires) {
                Some(expires) if expires > now => {
                    let look = self.look_at(expires, key.clone(), provider);
                    let entries = self.keys.get_mut(&key).into_iter().flatten();
                    for entry in entries.filter(|entry| entry.provider == provider) {
                        entry.look = look;
                    }
                }
                _ => self.remove(&key, &provider),
            }
        }
    }

    /// Gives its place in line.
    fn look_at(&mut self, when: Instant, key: Key, provider: PeerId) -> Look {
        self.noted += 1;
        let look = (when, self.noted);
        self.expiry.insert(look, (key, provider));
        look
    }

    pub(crate) fn remove(&mut self, key: &[u8], provider: &PeerId) {
        let Some(entries) = self.keys.get_mut(key) else {
            return;
        };
        let at = entries.iter().position(|entry| entry.provider == *provider);
        let removed = at.map(|at| entries.remove(at));
        let is_ours = |entry: &Entry| entry.provider == self.local;
        if entries.iter().all(is_ours) {
            let key = Key::copy_from_slice(key);
            self.far.remove(&(self.place.start_of_distance(&key), key));
        }
        if entries.is_empty() {
            self.keys.remove(key);
        }
        let Some(removed) = removed else {
            return;
        };
        self.expiry.remove(&removed.look);
        if *provider == self.local {
            self.own -= 1;
        } else {
            self.held -= 1;
            self.changed.insert((Key::copy_from_slice(key), *provider));
        }
        let mut group = None;
        if let Some(known) = self.providers.get_mut(provider) {
            known.records -= 1;
            group = known.group;
            if known.records == 0 {
                self.providers.remove(provider);
            }
        }
        if let Some(group) = group {
            self.leaves(group, 1);
        }
    }
}

/// How long a record is believed.
pub(crate) const RECORD_LIFE: Duration = Duration::from_secs(48 * 3600);

/// How long what a provider said of its addresses is.
pub(crate) const ADDRESS_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Longest key of a record, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 80;

/// Providers kept for one key.
const PROVIDERS_PER_KEY_MAX: usize = 32;

/// Addresses kept for one provider.
const ADDRESSES_PER_PROVIDER_MAX: usize = 16;

/// One provider may use up to one in so many of all records, and so may all those of one network, ...
const SHARE: usize = 16;

/// ... once one in so many is kept.
const SHARED_FROM: usize = 2;

/// Records of our own that are noted here. More can be provided, but are not answered from here.
const OWN_RECORDS_MAX: usize = 1 << 20;

/// Changes that may wait to be taken, for each record that there is room for: it came, and another went for it.
const CHANGES_PER_RECORD: usize = 2;

/// Expired records dropped in one call.
const FORGOTTEN_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(max: usize) -> (Providers, PeerId) {
        let local = PeerId::random();
        (
            Providers::new(local, Network::Local, Realm::Lan, max),
            local,
        )
    }

    fn add(
        records: &mut Providers,
        key: u32,
        provider: PeerId,
        now: Instant,
    ) -> Result<(), NotKept> {
        add_in(records, key, provider, None, now)
    }

    fn add_in(
        records: &mut Providers,
        key: u32,
        peer: PeerId,
        group: Option<Group>,
        now: Instant,
    ) -> Result<(), NotKept> {
        let addresses = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
        let provider = Provider {
            peer,
            addresses,
            group,
        };
        records.add(&key.to_be_bytes(), provider, now)
    }

    fn group(number: u8) -> Group {
        Group::of([10, number, 0, 1].into())
    }

    fn of(records: &Providers, key: u32, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        records.of(&key.to_be_bytes(), now).collect()
    }

    #[test]
    fn what_came_and_went_is_told_once() {
        let (mut records, local) = records(100);
        let (now, other) = (Instant::now(), PeerId::random());
        add(&mut records, 1, other, now).unwrap();
        add(&mut records, 2, local, now).unwrap();
        let key = Key::copy_from_slice(&1u32.to_be_bytes());
        let [came] = &records.take_changes(now)[..] else {
            panic!("one record of another");
        };
        let kept = came.kept.as_ref().unwrap();
        assert_eq!((&came.key, came.provider), (&key, other));
        assert_eq!((kept.0.len(), kept.1), (1, now + RECORD_LIFE));
        assert_eq!(records.take_changes(now), []);
        add(&mut records, 3, other, now + RECORD_LIFE).unwrap();
        let mut changes = records.take_changes(now);
        changes.sort_unstable_by_key(|change| change.key.clone());
        let is_kept: Vec<bool> = changes.iter().map(|change| change.kept.is_some()).collect();
        assert_eq!(is_kept, [false, true]);
    }

    fn check(records: &Providers) {
        let all: Vec<_> = records.keys.values().flatten().collect();
        let own = all.iter().filter(|e| e.provider == records.local).count();
        assert_eq!(records.own, own);
        assert_eq!(records.held, all.len() - own);
        let counted: usize = records.providers.values().map(|known| known.records).sum();
        assert_eq!(counted, all.len());
        assert!(records.keys.values().all(|entries| !entries.is_empty()));
        assert_eq!(records.expiry.len(), all.len());
        assert!(
            all.iter()
                .all(|e| records.expiry.contains_key(&e.look) && e.look.0 <= e.expires)
        );
        let most = records.records_max * CHANGES_PER_RECORD + records.held;
        assert!(records.changed.len() <= most);
        let of_others = |entries: &&Vec<Entry>| entries.iter().any(|e| e.provider != records.local);
        let keys = records.keys.values().filter(of_others).count();
        assert_eq!(records.far.len(), keys);
        let mut groups: HashMap<Group, usize> = HashMap::new();
        for known in records.providers.values() {
            if let Some(group) = known.group {
                *groups.entry(group).or_default() += known.records;
            }
        }
        assert_eq!(records.groups, groups);
    }

    #[test]
    fn a_record_is_believed_for_48_hours_from_its_last_renewal() {
        let (mut records, _) = records(10);
        let (peer, start) = (PeerId::random(), Instant::now());
        add(&mut records, 1, peer, start).unwrap();
        add(&mut records, 1, peer, start + RECORD_LIFE / 2).unwrap();
        let found = of(&records, 1, start + RECORD_LIFE);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.len(), 0, "its addresses only for 24");
        let found = of(&records, 1, start + RECORD_LIFE - Duration::from_secs(1));
        assert_eq!(found[0].1.len(), 1);
        assert!(of(&records, 1, start + RECORD_LIFE * 3 / 2).is_empty());
        check(&records);
    }

    #[test]
    fn an_expired_record_makes_room() {
        let (mut records, _) = records(2);
        let (start, keys) = (Instant::now(), by_distance(&records));
        for key in &keys[..2] {
            add(&mut records, *key, PeerId::random(), start).unwrap();
        }
        let late = PeerId::random();
        let far = keys[99];
        assert_eq!(add(&mut records, far, late, start), Err(NotKept::Full));
        add(&mut records, far, late, start + RECORD_LIFE).unwrap();
        assert_eq!(records.held(), 1);
        check(&records);
    }

    #[test]
    fn one_provider_gets_half_of_all_the_room_and_another_then_its_share() {
        let (mut records, _) = records(160);
        let (greedy, late, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut taken = |peer| {
            (0..160)
                .filter(|key| add(&mut records, *key, peer, now).is_ok())
                .count()
        };
        assert_eq!(taken(greedy), 80);
        assert_eq!(taken(late), 10);
        assert_eq!(taken(greedy), 80, "what it has is renewed");
        add(&mut records, 1, PeerId::random(), now).unwrap();
        check(&records);
    }

    #[test]
    fn many_providers_of_one_network_cannot_take_all_the_room_either() {
        let (mut records, _) = records(160);
        let now = Instant::now();
        let mut taken = |key: u32, at: Option<Group>| {
            add_in(&mut records, key, PeerId::random(), at, now).is_ok()
        };
        let mut of_one = |at| (0..160).filter(|key| taken(*key, Some(group(at)))).count();
        assert_eq!([of_one(1), of_one(4)], [80, 10]);
        assert!(taken(1, Some(group(2))) && taken(1, None));
        // Whoever moves there takes its records with it.
        let (moves, place) = (PeerId::random(), Some(group(3)));
        for key in 0..5 {
            add_in(&mut records, key, moves, Some(group(2)), now).unwrap();
        }
        add_in(&mut records, 0, moves, place, now).unwrap();
        // Where it is not known who it is, it has not moved.
        add_in(&mut records, 0, moves, None, now).unwrap();
        check(&records);
        assert_eq!(records.groups[&group(3)], 5);
        assert_eq!(records.groups[&group(2)], 1);
    }

    #[test]
    fn what_was_dropped_for_something_nearer_leaves_nothing_behind() {
        let (mut records, _) = records(2);
        let (now, keys) = (Instant::now(), by_distance(&records));
        let mut told = 0;
        for key in keys.iter().rev() {
            add(&mut records, *key, PeerId::random(), now).unwrap();
            check(&records);
            told += records.take_changes(now).len();
        }
        assert_eq!(records.expiry.len(), 2);
        assert_eq!(told, 100 + 98);
        // Renewed and looked at again, each still has one place in line.
        for (at, hours) in [(0, 30), (0, 60), (0, 90)] {
            let later = now + Duration::from_secs(hours * 3600);
            let provider = of(&records, keys[at], later)[0].0;
            add(&mut records, keys[at], provider, later).unwrap();
            check(&records);
        }
        assert_eq!(records.held(), 1);
    }

    #[test]
    fn while_changes_are_not_taken_only_so_much_may_change() {
        let (mut records, _) = records(2);
        let (now, keys) = (Instant::now(), by_distance(&records));
        let mut peers = Vec::new();
        for key in keys[4..8].iter().rev() {
            peers.push(PeerId::random());
            add(&mut records, *key, peers[peers.len() - 1], now).unwrap();
        }
        let refused = add(&mut records, keys[0], PeerId::random(), now);
        assert_eq!(refused, Err(NotKept::Full));
        assert_eq!(add(&mut records, keys[4], peers[3], now), Ok(()), "renewed");
        records.take_changes(now);
        add(&mut records, keys[0], PeerId::random(), now).unwrap();
        check(&records);
    }

    /// A hundred keys, the nearest to us first.
    fn by_distance(records: &Providers) -> Vec<u32> {
        let mut keys: Vec<u32> = (0..100).collect();
        keys.sort_by_key(|key| records.place.start_of_distance(&key.to_be_bytes()));
        keys
    }

    #[test]
    fn where_there_is_no_room_what_is_farthest_goes_for_what_is_nearer() {
        let (mut records, local) = records(2);
        let (now, keys) = (Instant::now(), by_distance(&records));
        let (near, between, far) = (keys[0], keys[50], keys[99]);
        for key in [far, between] {
            add(&mut records, key, PeerId::random(), now).unwrap();
        }
        add(&mut records, far, local, now).unwrap();
        add(&mut records, near, PeerId::random(), now).unwrap();
        assert_eq!(of(&records, near, now).len(), 1);
        assert_eq!(of(&records, between, now).len(), 1);
        assert_eq!(of(&records, far, now), [(local, Vec::new())]);
        assert_eq!(records.held(), 2);
        let refused = add(&mut records, keys[98], PeerId::random(), now);
        assert_eq!(refused, Err(NotKept::Full));
        check(&records);
    }

    #[test]
    fn our_own_records_do_not_use_up_the_room_of_others() {
        let (mut records, local) = records(1);
        let now = Instant::now();
        for key in 0..10 {
            add(&mut records, key, local, now).unwrap();
        }
        add(&mut records, 0, PeerId::random(), now).unwrap();
        assert_eq!(records.held(), 1);
        assert_eq!(of(&records, 0, now).len(), 2);
        check(&records);
    }

    #[test]
    fn keys_too_long_and_addresses_outside_are_left_out() {
        let (mut records, _) = records(10);
        let (peer, now) = (PeerId::random(), Instant::now());
        let long = vec![0; KEY_BYTES_MAX + 1];
        let says = |addresses| Provider {
            peer,
            addresses,
            group: None,
        };
        let refused = records.add(&long, says(Vec::new()), now);
        assert_eq!(refused, Err(NotKept::Key));
        let near: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let far = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let both = says(vec![near.clone(), far]);
        records.add(&[1], both, now).unwrap();
        assert_eq!(records.addresses(&peer, now), [near]);
    }

    #[test]
    fn addresses_are_as_old_as_the_record_that_they_were_read_with() {
        let (mut records, _) = records(100);
        let hour = Duration::from_secs(3600);
        let (peer, now) = (PeerId::random(), Instant::now() + RECORD_LIFE);
        let mut read = |key: u8, hours: u32| {
            let says = Provider {
                peer,
                addresses: vec![format!("/ip4/127.0.0.1/tcp/{key}").parse().unwrap()],
                group: None,
            };
            records
                .add_until(&[key], says, now + hour * hours, now)
                .unwrap();
            records
                .addresses(&peer, now)
                .pop()
                .map(|address| address.to_string())
        };
        assert_eq!(read(1, 23), None, "said 25 hours ago");
        let newer = Some("/ip4/127.0.0.1/tcp/2".to_owned());
        assert_eq!(read(2, 40), newer);
        assert_eq!(read(3, 30), newer, "it said that before");
        check(&records);
    }

    proptest! {
        #[test]
        fn counts_and_order_hold_whatever_happens(
            steps in proptest::collection::vec((0u32..6, 0usize..4, 0u64..30, any::<bool>(), 0u8..3), 1..80)
        ) {
            let (mut records, local) = records(8);
            let peers = [local, PeerId::random(), PeerId::random(), PeerId::random()];
            let mut now = Instant::now();
            for (key, peer, hours, removes, at) in steps {
                now += Duration::from_secs(hours * 3600);
                if removes {
                    records.remove(&key.to_be_bytes(), &peers[peer]);
                } else {
                    let at = at.checked_sub(1).map(group);
                    let _ = add_in(&mut records, key, peers[peer], at, now);
                }
                if hours % 2 == 0 {
                    records.take_changes(now);
                }
                prop_assert!(records.held() <= 8);
                check(&records);
            }
        }
    }
}
