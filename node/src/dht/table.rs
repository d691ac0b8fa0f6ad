//! Whom we know: peers that answer DHT requests, by how near they are to us.
//!
//! Bucket `n` has those that share exactly `n` bits with us: half of all are in bucket 0, a fourth in
//! bucket 1. Each holds [`BUCKET_PEERS`]; who is left over waits beside it to take a place that becomes
//! free. Whoever did not answer is doubtful: named to nobody and asked last, but not forgotten, or a minute
//! without a network would cost the whole table. It goes when somebody waits for its place, or does not answer
//! again and again.
//!
//! Peers of one network (an IPv4 /16, an IPv6 /32) get few places, so that whoever has many addresses in one
//! has not many places in the table.
//!
//! Invariants: a peer is in one bucket once, in its places or beside them; nobody beside a bucket that has
//! room; `groups` counts those in places.

use super::place::{Distance, Place};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The routing table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    local: Place,
    buckets: Vec<Bucket>,
    groups: HashMap<Group, usize>,
    len: usize,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    peers: Vec<Entry>,
    /// The last that came is at the end.
    spares: VecDeque<Entry>,
    refreshed_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Entry {
    contact: Contact,
    group: Option<Group>,
    /// When it last answered.
    answered_at: Instant,
    /// How often it did not since.
    failures: u32,
}

/// A peer and where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub peer: PeerId,
    /// Where it lies.
    pub place: Place,
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
}

impl Contact {
    /// A peer at so many addresses.
    pub fn new(peer: PeerId, mut addresses: Vec<Multiaddr>) -> Self {
        addresses.truncate(ADDRESSES_MAX);
        Self {
            place: Place::of_peer(&peer),
            peer,
            addresses,
        }
    }
}

/// The network that a peer's address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(IpAddr);

impl Group {
    /// Of an address.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                IpAddr::from([a, b, 0, 0])
            }
            IpAddr::V6(ip) => {
                let [a, b, ..] = ip.segments();
                IpAddr::from([a, b, 0, 0, 0, 0, 0, 0])
            }
        })
    }
}

impl Table {
    pub(super) fn new(local: Place) -> Self {
        Self {
            local,
            buckets: Vec::new(),
            groups: HashMap::new(),
            len: 0,
        }
    }

    /// How many are in places.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A peer said itself where it listens, and is known to answer. What was thought of it before counts no more.
    pub(super) fn says(&mut self, contact: Contact, group: Option<Group>, now: Instant) {
        if self
            .entry(&contact)
            .is_some_and(|known| known.group != group)
        {
            self.forget(&contact.peer);
        }
        if let Some(known) = self.entry(&contact) {
            known.contact.addresses.clone_from(&contact.addresses);
        }
        self.answers(contact, group, now);
    }

    fn entry(&mut self, contact: &Contact) -> Option<&mut Entry> {
        let index = self.index_of(&contact.place)?;
        let bucket = self.buckets.get_mut(index)?;
        let mut known = bucket.peers.iter_mut().chain(&mut bucket.spares);
        known.find(|entry| entry.contact.peer == contact.peer)
    }

    /// Whether a peer is in a place or beside one.
    pub(super) fn has(&mut self, contact: &Contact) -> bool {
        self.entry(contact).is_some()
    }

    /// A peer answered. Where it listens, as whoever named it says, counts only if it is new. `group` is `None` where
    /// networks do not matter.
    pub(super) fn answers(&mut self, contact: Contact, group: Option<Group>, now: Instant) {
        let Some(index) = self.index_of(&contact.place) else {
            return; // Ourselves.
        };
        if self.buckets.len() <= index {
            self.buckets.resize_with(index + 1, Bucket::default);
        }
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        let peer = contact.peer;
        let known = bucket.peers.iter_mut().chain(&mut bucket.spares);
        if let Some(entry) = known.into_iter().find(|entry| entry.contact.peer == peer) {
            (entry.answered_at, entry.failures) = (now, 0);
            return;
        }
        if bucket.spares.len() >= SPARES_MAX {
            bucket.spares.pop_front();
        }
        bucket.spares.push_back(Entry {
            contact,
            group,
            answered_at: now,
            failures: 0,
        });
        self.fill(index);
    }

    /// A peer did not answer.
    pub(super) fn failed(&mut self, peer: &PeerId) {
        let place = Place::of_peer(peer);
        let Some(index) = self.index_of(&place) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        bucket.spares.retain(|spare| spare.contact.peer != *peer);
        if let Some(entry) = bucket.peers.iter_mut().find(|e| e.contact.peer == *peer) {
            entry.failures += 1;
            if entry.failures >= FAILURES_MAX {
                self.forget(peer);
            } else {
                self.fill(index);
            }
        }
    }

    /// A peer does not take part any more.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        let Some(index) = self.index_of(&Place::of_peer(peer)) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        bucket.spares.retain(|spare| spare.contact.peer != *peer);
        if let Some(at) = bucket.peers.iter().position(|e| e.contact.peer == *peer) {
            let gone = bucket.peers.swap_remove(at);
            self.len -= 1;
            count_off(&mut self.groups, gone.group);
            self.fill(index);
        }
    }

    /// All in places that answered when they were last asked.
    pub(super) fn all(&self) -> impl Iterator<Item = &Contact> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.peers);
        let sure = entries.filter(|entry| entry.failures == 0);
        sure.map(|entry| &entry.contact)
    }

    /// Those nearest to a place that answered when they were last asked, the nearest first.
    pub(super) fn nearest(&self, to: &Place, count: usize) -> Vec<Contact> {
        self.pick(to, count, |entry| entry.failures == 0)
    }

    /// The same without one of them.
    pub(super) fn nearest_but(&self, to: &Place, count: usize, peer: &PeerId) -> Vec<Contact> {
        self.pick(to, count, |entry| {
            entry.failures == 0 && entry.contact.peer != *peer
        })
    }

    /// The same, the doubtful after the others if those are not enough.
    pub(super) fn nearest_or_doubtful(&self, to: &Place, count: usize) -> Vec<Contact> {
        let mut contacts = self.nearest(to, count);
        let more = count - contacts.len();
        contacts.extend(self.pick(to, more, |entry| entry.failures > 0));
        contacts
    }

    fn pick(&self, to: &Place, count: usize, is_meant: impl Fn(&Entry) -> bool) -> Vec<Contact> {
        let shared = self.local.shared_bits(to) as usize;
        let mut picked: Vec<(Distance, &Contact)> = Vec::new();
        // Who shares more bits with it than we do, then who shares as many, then those in between, each
        // bucket further away than the one before.
        let nearest = shared..shared + 1;
        let as_near = shared + 1..self.buckets.len().max(shared + 1);
        let further = (0..shared).rev().map(|index| index..index + 1);
        for range in [nearest, as_near].into_iter().chain(further) {
            if picked.len() >= count {
                break;
            }
            let from = picked.len();
            let buckets = range.filter_map(|index| self.buckets.get(index));
            let entries = buckets.flat_map(|bucket| &bucket.peers);
            picked.extend(entries.filter(|entry| is_meant(entry)).map(|entry| {
                let distance = entry.contact.place.distance(to);
                (distance, &entry.contact)
            }));
            if let Some(new) = picked.get_mut(from..) {
                new.sort_by_key(|(distance, _)| *distance);
            }
        }
        picked.truncate(count);
        picked
            .into_iter()
            .map(|(_, contact)| contact.clone())
            .collect()
    }

    /// The bucket that was not looked over for longest, if that is `every` or more, and the bits that a place in it
    /// shares with us. It counts as looked over now; one that is full of peers which answered since need not be.
    /// The last ones, which together have no more than a bucket may, are left out: whoever looks for itself finds all
    /// who are in them.
    pub(super) fn stale(&mut self, every: Duration, now: Instant) -> Option<u32> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < every;
        let is_due = |bucket: &Bucket| {
            let answered = |entry: &Entry| entry.failures == 0 && is_recent(entry.answered_at);
            let is_full = bucket.peers.len() >= BUCKET_PEERS;
            let is_sure = is_full && bucket.peers.iter().all(answered);
            !is_sure && !bucket.refreshed_at.is_some_and(is_recent)
        };
        let mut near = 0;
        let is_far = |bucket: &Bucket| {
            near += bucket.peers.len();
            near > BUCKET_PEERS
        };
        let last = self.buckets.iter().rposition(is_far)?;
        let due = self.buckets.iter_mut().take(last + 1).enumerate();
        let due = due.filter(|(_, bucket)| is_due(bucket));
        let (index, bucket) = due.min_by_key(|(_, bucket)| bucket.refreshed_at)?;
        bucket.refreshed_at = Some(now);
        u32::try_from(index).ok()
    }

    fn index_of(&self, place: &Place) -> Option<usize> {
        let shared = self.local.shared_bits(place);
        (shared < PLACE_BITS).then_some(shared as usize)
    }

    /// Gives places of a bucket that are free, or whose holders are doubtful, to who waits beside it.
    fn fill(&mut self, index: usize) {
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        loop {
            let is_full = bucket.peers.len() >= BUCKET_PEERS;
            let doubtful = bucket.peers.iter().enumerate();
            let doubtful = doubtful.filter(|(_, entry)| entry.failures > 0);
            let longest = doubtful.min_by_key(|(_, entry)| entry.answered_at);
            let gone = longest.map(|(at, _)| at).filter(|_| is_full);
            if is_full && gone.is_none() {
                return;
            }
            // The last that came is the likeliest to be there.
            let Some(spare) = bucket.spares.pop_back() else {
                return;
            };
            let gone_group = gone.and_then(|at| bucket.peers.get(at)?.group);
            if let Some(group) = spare.group {
                let leaves = usize::from(gone_group == Some(group));
                let of_group = |entry: &&Entry| entry.group == Some(group);
                let here = bucket.peers.iter().filter(of_group).count();
                let all = self.groups.get(&group).copied().unwrap_or(0);
                if here - leaves >= GROUP_IN_BUCKET_MAX || all - leaves >= GROUP_MAX {
                    tracing::debug!(peer = %spare.contact.peer, ?group, "left out of the DHT's table: enough are of its network");
                    continue; // It does not even wait: others of its network would wait with it.
                }
                *self.groups.entry(group).or_default() += 1;
            }
            match gone.and_then(|at| bucket.peers.get_mut(at)) {
                Some(place) => {
                    *place = spare;
                    count_off(&mut self.groups, gone_group);
                }
                None => {
                    bucket.peers.push(spare);
                    self.len += 1;
                }
            }
        }
    }
}

fn count_off(groups: &mut HashMap<Group, usize>, group: Option<Group>) {
    if let Some(group) = group
        && let Some(count) = groups.get_mut(&group)
    {
        *count -= 1;
        if *count == 0 {
            groups.remove(&group);
        }
    }
}

/// Bits of a place.
const PLACE_BITS: u32 = 256;
/// Peers of one bucket: `k` of the Kademlia that IPFS speaks.
pub(super) const BUCKET_PEERS: usize = 20;
/// Peers that wait beside a bucket.
const SPARES_MAX: usize = BUCKET_PEERS;
/// Addresses of a peer that are kept and handed on.
pub(super) const ADDRESSES_MAX: usize = 16;
/// How often in a row somebody does not answer until it is forgotten, whoever waits for its place.
const FAILURES_MAX: u32 = 3;
/// Peers of one network in a bucket, and in the table, as in Kubo.
const GROUP_IN_BUCKET_MAX: usize = 2;
const GROUP_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::tests::{contact, near};

    fn table() -> (Table, Place) {
        let local = contact(0).place;
        (Table::new(local), local)
    }

    #[test]
    fn only_a_peer_itself_says_where_it_is() {
        let (mut table, _) = table();
        let now = Instant::now();
        let at = |port: u16| {
            let address = format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
            Contact::new(contact(1).peer, vec![address])
        };
        table.says(at(1), None, now);
        table.answers(at(2), None, now);
        assert_eq!(table.nearest(&at(1).place, 1), [at(1)]);
        table.says(at(3), None, now);
        assert_eq!(table.nearest(&at(1).place, 1), [at(3)]);
        let group = Group::of([192, 0, 2, 1].into());
        table.says(at(3), Some(group), now);
        assert_eq!(table.groups.get(&group), Some(&1));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_bucket_holds_twenty_and_the_next_waits_until_one_fails() {
        let (mut table, local) = table();
        let now = Instant::now();
        let far: Vec<Contact> = (1..1000)
            .map(contact)
            .filter(|contact| contact.place.shared_bits(&local) == 0)
            .take(BUCKET_PEERS + 2)
            .collect();
        for contact in &far {
            table.answers(contact.clone(), None, now);
        }
        assert_eq!(table.len(), BUCKET_PEERS);
        let known = |table: &Table| table.nearest_or_doubtful(&far[0].place, 100);
        let (first, spare, last) = (&far[0], &far[BUCKET_PEERS], &far[BUCKET_PEERS + 1]);
        assert!(!known(&table).contains(spare) && !known(&table).contains(last));
        table.failed(&first.peer);
        // The last that was heard of takes the place.
        assert!(known(&table).contains(last) && !known(&table).contains(first));
        table.forget(&last.peer);
        assert!(known(&table).contains(spare));
        assert_eq!(table.len(), BUCKET_PEERS);
    }

    #[test]
    fn who_does_not_answer_is_doubtful_then_gone_and_sure_again_once_it_does() {
        let (mut table, local) = table();
        let now = Instant::now();
        let [one, other] = [contact(1), contact(2)];
        table.answers(one.clone(), None, now);
        table.answers(other.clone(), None, now);
        table.failed(&one.peer);
        assert_eq!(table.nearest(&local, 9), std::slice::from_ref(&other));
        let both = table.nearest_or_doubtful(&local, 9);
        assert_eq!(both, [other.clone(), one.clone()]);
        assert_eq!(table.len(), 2);
        table.answers(one.clone(), None, now);
        assert_eq!(table.nearest(&local, 9).len(), 2);
        for _ in 0..FAILURES_MAX {
            table.failed(&one.peer);
        }
        assert_eq!(table.nearest_or_doubtful(&local, 9), [other]);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_nearest_are_those_of_all_that_are_known() {
        let (mut table, local) = table();
        let now = Instant::now();
        let all: Vec<Contact> = (1..200).map(contact).collect();
        for contact in &all {
            table.answers(contact.clone(), None, now);
        }
        let mut known = table.nearest(&local, usize::MAX);
        assert_eq!(known.len(), table.len());
        for target in (500..600)
            .map(|number| contact(number).place)
            .chain([local])
        {
            known.sort_by_key(|contact| contact.place.distance(&target));
            assert_eq!(table.nearest(&target, 20), known[..20]);
        }
    }

    #[test]
    fn peers_of_one_network_get_few_places() {
        let (mut table, local) = table();
        let now = Instant::now();
        let group = |a, b| Some(Group::of(IpAddr::from([a, b, 1, 1])));
        let far = (1..1000).map(contact);
        let far: Vec<Contact> = far
            .filter(|contact| contact.place.shared_bits(&local) == 0)
            .take(10)
            .collect();
        for contact in &far {
            table.answers(contact.clone(), group(10, 1), now);
        }
        assert_eq!(table.len(), GROUP_IN_BUCKET_MAX);
        for bits in 1..6 {
            table.answers(near(&local, bits), group(10, 1), now);
        }
        assert_eq!(table.len(), GROUP_MAX);
        // Another network's have room, and so has this one once somebody of it is gone.
        table.answers(far[5].clone(), group(10, 2), now);
        assert_eq!(table.len(), GROUP_MAX + 1);
        table.forget(&far[0].peer);
        table.answers(far[7].clone(), group(10, 1), now);
        assert_eq!(table.len(), GROUP_MAX + 1);
        let v6 = |text: &str| Group::of(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8:ffff::2"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db9::1"));
    }

    #[test]
    fn each_bucket_is_due_once_in_its_time_but_for_the_nearest() {
        let (mut table, local) = table();
        let (now, every) = (Instant::now(), Duration::from_secs(600));
        for number in 1..=400 {
            table.answers(contact(number), None, now);
        }
        let far = |bits: u32| table.nearest(&local, 20)[19].place.shared_bits(&local) == bits;
        let last = (0..9).find(|bits| far(*bits)).unwrap();
        let due = |table: &mut Table, now| -> Vec<u32> {
            let mut due: Vec<u32> = std::iter::from_fn(|| table.stale(every, now)).collect();
            due.sort_unstable();
            due
        };
        // The first are full of peers that have just answered.
        let first = due(&mut table, now);
        assert!(
            first.iter().all(|bits| *bits > 0 && *bits <= last),
            "{first:?}, {last}"
        );
        assert!(due(&mut table, now + every - Duration::from_secs(1)).is_empty());
        assert_eq!(due(&mut table, now + every), (0..=last).collect::<Vec<_>>());
        assert!(due(&mut table, now + every).is_empty());
    }

    #[test]
    fn we_are_not_among_those_we_know() {
        let (mut table, _) = table();
        table.answers(contact(0), None, Instant::now());
        assert_eq!(table.len(), 0);
    }
}
