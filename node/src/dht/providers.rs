//! Who provides what, as far as we were told: in memory, within bounds.
//!
//! Keys are multihashes. Records are forgotten 48 hours after they came; what a provider said about its
//! addresses is kept once for all its records. Whoever takes the changes can keep a copy elsewhere.
//!
//! Invariants: `held` is the number of records of others in `keys`; a provider is in `providers` exactly while it
//! has a record, with its number; every record in `keys` has an entry in `expiry` at its time of expiry or
//! earlier.

use crate::network::{Network, Realm};
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, HashMap, HashSet};
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
    network: Network,
    realm: Realm,
    records_max: usize,
    keys: HashMap<Key, Vec<Entry>>,
    providers: HashMap<PeerId, Known>,
    /// When to look at which record, the earliest first; the number keeps equal times apart.
    expiry: BTreeMap<(Instant, u64), (Key, PeerId)>,
    noted: u64,
    held: usize,
    own: usize,
    /// Records of others that came or went since they were last taken.
    changed: HashSet<(Key, PeerId)>,
}

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
}

#[derive(Debug, Clone, Default)]
struct Known {
    addresses: Vec<Multiaddr>,
    records: usize,
}

impl Providers {
    pub(crate) fn new(local: PeerId, network: Network, realm: Realm, records_max: usize) -> Self {
        Self {
            local,
            network,
            realm,
            records_max,
            keys: HashMap::new(),
            providers: HashMap::new(),
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

    /// The addresses a provider gave, within our network.
    pub(crate) fn addresses(&self, provider: &PeerId) -> Vec<Multiaddr> {
        self.providers
            .get(provider)
            .map(|known| known.addresses.clone())
            .unwrap_or_default()
    }

    /// `provider` says that it has what `key` names, and where it is.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        provider: PeerId,
        addresses: Vec<Multiaddr>,
        now: Instant,
    ) -> Result<(), NotKept> {
        self.add_until(key, provider, addresses, now + RECORD_LIFE, now)
    }

    /// The same, with another end.
    pub(crate) fn add_until(
        &mut self,
        key: &[u8],
        provider: PeerId,
        addresses: Vec<Multiaddr>,
        expires: Instant,
        now: Instant,
    ) -> Result<(), NotKept> {
        self.forget_expired(now);
        if !Self::is_key(key) {
            return Err(NotKept::Key);
        }
        let key = Key::copy_from_slice(key);
        let ours = provider == self.local;
        let entries = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
        let renewed = entries.iter().any(|e| e.provider == provider);
        if !renewed {
            let of_provider = self
                .providers
                .get(&provider)
                .map_or(0, |known| known.records);
            let full = if ours {
                self.own >= OWN_RECORDS_MAX
            } else {
                self.held >= self.records_max
                    || of_provider >= self.records_max.div_ceil(PROVIDER_SHARE)
                    || entries.len() >= PROVIDERS_PER_KEY_MAX
            };
            if full {
                return Err(NotKept::Full);
            }
        }
        let entries = self.keys.entry(key.clone()).or_default();
        match entries.iter_mut().find(|e| e.provider == provider) {
            Some(entry) => entry.expires = expires,
            None => {
                entries.push(Entry { provider, expires });
                let known = self.providers.entry(provider).or_default();
                known.records += 1;
                if ours {
                    self.own += 1;
                } else {
                    self.held += 1;
                }
            }
        }
        if !ours {
            self.changed.insert((key.clone(), provider));
        }
        // A renewed record keeps its old place in line; it is looked at then and put back.
        if !renewed {
            self.look_at(expires, key, provider);
        }
        if !ours && let Some(known) = self.providers.get_mut(&provider) {
            let mut addresses: Vec<_> = addresses
                .into_iter()
                .filter(|address| self.network.fits(self.realm, address))
                .take(ADDRESSES_PER_PROVIDER_MAX)
                .collect();
            addresses.dedup();
            known.addresses = addresses;
        }
        Ok(())
    }

    /// Takes the records of others that came or went since the last time.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let change = |(key, provider): (Key, PeerId)| {
            let entries = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
            let entry = entries.iter().find(|entry| entry.provider == provider);
            let kept = entry.map(|entry| (self.addresses(&provider), entry.expires));
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
            .map(|entry| (entry.provider, self.addresses(&entry.provider)))
    }

    fn forget_expired(&mut self, now: Instant) {
        // A few at a time, so that no call takes long.
        for _ in 0..FORGOTTEN_AT_ONCE {
            let due = self.expiry.first_entry().filter(|e| e.key().0 <= now);
            let Some((key, provider)) = due.map(|entry| entry.remove()) else {
                return;
            };
            let alive_until = self
                .keys
                .get(&key)
                .and_then(|entries| entries.iter().find(|entry| entry.provider == provider))
                .map(|entry| entry.expires);
            match alive_until {
                Some(expires) if expires > now => self.look_at(expires, key, provider),
                Some(_) => self.remove(&key, &provider),
                None => {}
            }
        }
    }

    fn look_at(&mut self, when: Instant, key: Key, provider: PeerId) {
        self.noted += 1;
        self.expiry.insert((when, self.noted), (key, provider));
    }

    pub(crate) fn remove(&mut self, key: &[u8], provider: &PeerId) {
        let Some(entries) = self.keys.get_mut(key) else {
            return;
        };
        let before = entries.len();
        entries.retain(|entry| entry.provider != *provider);
        let removed = entries.len() < before;
        if entries.is_empty() {
            self.keys.remove(key);
        }
        if !removed {
            return;
        }
        if *provider == self.local {
            self.own -= 1;
        } else {
            self.held -= 1;
            self.changed.insert((Key::copy_from_slice(key), *provider));
        }
        if let Some(known) = self.providers.get_mut(provider) {
            known.records -= 1;
            if known.records == 0 {
                self.providers.remove(provider);
            }
        }
    }
}

/// How long a record is believed.
pub(crate) const RECORD_LIFE: Duration = Duration::from_secs(48 * 3600);

/// Longest key of a record, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 80;

/// Providers kept for one key.
const PROVIDERS_PER_KEY_MAX: usize = 32;

/// Addresses kept for one provider.
const ADDRESSES_PER_PROVIDER_MAX: usize = 16;

/// One provider may use up to one in so many of all records.
const PROVIDER_SHARE: usize = 2;

/// Records of our own that are noted here. More can be provided, but are not answered from here.
const OWN_RECORDS_MAX: usize = 1 << 20;

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
        let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        records.add(&key.to_be_bytes(), provider, vec![address], now)
    }

    fn of(records: &Providers, key: u32, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        records.of(&key.to_be_bytes(), now).collect()
    }

    #[test]
    fn what_came_and_went_is_told_once() {
        let (mut records, local) = records(10);
        let (now, other) = (Instant::now(), PeerId::random());
        add(&mut records, 1, other, now).unwrap();
        add(&mut records, 2, local, now).unwrap();
        let key = Key::copy_from_slice(&1u32.to_be_bytes());
        let [came] = &records.take_changes()[..] else {
            panic!("one record of another");
        };
        let kept = came.kept.as_ref().unwrap();
        assert_eq!((&came.key, came.provider), (&key, other));
        assert_eq!((kept.0.len(), kept.1), (1, now + RECORD_LIFE));
        assert_eq!(records.take_changes(), []);
        add(&mut records, 3, other, now + RECORD_LIFE).unwrap();
        let mut changes = records.take_changes();
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
        assert!(records.expiry.len() >= all.len());
    }

    #[test]
    fn a_record_is_believed_for_48_hours_from_its_last_renewal() {
        let (mut records, _) = records(10);
        let (peer, start) = (PeerId::random(), Instant::now());
        add(&mut records, 1, peer, start).unwrap();
        add(&mut records, 1, peer, start + RECORD_LIFE / 2).unwrap();
        let found = of(&records, 1, start + RECORD_LIFE);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.len(), 1);
        assert!(of(&records, 1, start + RECORD_LIFE * 3 / 2).is_empty());
        check(&records);
    }

    #[test]
    fn an_expired_record_makes_room() {
        let (mut records, _) = records(2);
        let start = Instant::now();
        for key in 0..2 {
            add(&mut records, key, PeerId::random(), start).unwrap();
        }
        let late = PeerId::random();
        assert_eq!(add(&mut records, 9, late, start), Err(NotKept::Full));
        add(&mut records, 9, late, start + RECORD_LIFE).unwrap();
        assert_eq!(records.held(), 1);
        check(&records);
    }

    #[test]
    fn one_provider_cannot_take_all_the_room() {
        let (mut records, _) = records(100);
        let (greedy, now) = (PeerId::random(), Instant::now());
        let taken = (0..100)
            .filter(|key| add(&mut records, *key, greedy, now).is_ok())
            .count();
        assert_eq!(taken, 50);
        add(&mut records, 1, PeerId::random(), now).unwrap();
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
        assert_eq!(records.add(&long, peer, Vec::new(), now), Err(NotKept::Key));
        let near: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let far = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        records
            .add(&[1], peer, vec![near.clone(), far], now)
            .unwrap();
        assert_eq!(records.addresses(&peer), [near]);
    }

    proptest! {
        #[test]
        fn counts_and_order_hold_whatever_happens(
            steps in proptest::collection::vec((0u32..6, 0usize..4, 0u64..30, any::<bool>()), 1..80)
        ) {
            let (mut records, local) = records(8);
            let peers = [local, PeerId::random(), PeerId::random(), PeerId::random()];
            let mut now = Instant::now();
            for (key, peer, hours, removes) in steps {
                now += Duration::from_secs(hours * 3600);
                if removes {
                    records.remove(&key.to_be_bytes(), &peers[peer]);
                } else {
                    let _ = add(&mut records, key, peers[peer], now);
                }
                prop_assert!(records.held() <= 8);
                check(&records);
            }
        }
    }
}
