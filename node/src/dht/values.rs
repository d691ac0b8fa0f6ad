//! Values kept under keys for others: public keys and IPNS records, the best of each, within bounds.
//!
//! Nothing is kept that its key does not vouch for. A record stays for 48 hours after it came, however long it
//! says that it holds. Once half of the room is taken, no sender gets more than a share of it, nor do those of one
//! network, and where there is none left what is farthest from us goes first: others are asked for that.

use super::place::Place;
use super::table::Group;
use crate::ipns;
use crate::public_key;
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

/// What a value is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// `/pk/`: the public key of a peer.
    PublicKey(PeerId),
    /// `/ipns/`: the record of a name.
    Name(PeerId),
}

/// Why a value is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotKept {
    #[error("its key is neither that of a public key nor that of an IPNS name")]
    Key,
    #[error("it is not the public key of that peer")]
    PublicKey,
    #[error("{0}")]
    Record(#[from] ipns::RecordError),
    #[error("a newer one is kept")]
    Older,
    #[error("there is no room")]
    Full,
}

impl Key {
    /// `None` for what is no key of a value.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let name = |rest| PeerId::from_bytes(rest).ok();
        if let Some(rest) = key.strip_prefix(PUBLIC_KEY) {
            name(rest).map(Self::PublicKey)
        } else {
            name(key.strip_prefix(ipns::KEY_PREFIX)?).map(Self::Name)
        }
    }

    /// As people write it: `/ipns/` or `/pk/` and a name.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let (kind, name) = text.strip_prefix('/')?.split_once('/')?;
        let name = ipns::name(name)?;
        match kind {
            "ipns" => Some(Self::Name(name)),
            "pk" => Some(Self::PublicKey(name)),
            _ => None,
        }
    }

    /// As peers write it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::PublicKey(peer) => [PUBLIC_KEY, &peer.to_bytes()].concat(),
            Self::Name(name) => ipns::key(&name),
        }
    }

    /// Whether a value may be kept under it.
    pub(crate) fn check(&self, value: &[u8], now: SystemTime) -> Result<(), NotKept> {
        match self {
            Self::PublicKey(peer) => {
                let key = public_key::read(value);
                let is_its = key.is_ok_and(|key| key.to_peer_id() == *peer);
                is_its.then_some(()).ok_or(NotKept::PublicKey)
            }
            Self::Name(name) => {
                ipns::Record::valid(name, value, now)?;
                Ok(())
            }
        }
    }

    /// Whether a valid value is to take the place of another.
    pub(crate) fn is_better(&self, new: &[u8], old: &[u8]) -> bool {
        let Self::Name(name) = self else {
            return false;
        };
        let read = |bytes| ipns::Record::decode(name, bytes).ok();
        match (read(new), read(old)) {
            (Some(new), Some(old)) => new.age(&old).is_gt(),
            (new, _) => new.is_some(),
        }
    }
}

/// All values.
#[derive(Debug)]
pub(crate) struct Values {
    max: usize,
    place: Place,
    kept: HashMap<Vec<u8>, Kept>,
    /// When each came, the first first; the number keeps equal times apart.
    order: BTreeMap<(Instant, u64), Vec<u8>>,
    next: u64,
    /// How many values each sender, and each network, has brought that are kept.
    shares: HashMap<Share, usize>,
    /// How far from us all keys are, by the first bits; the farthest are last.
    far: BTreeSet<(u64, Vec<u8>)>,
    /// Keys whose value came or went since they were last taken.
    changed: HashSet<Vec<u8>>,
}

/// A value that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Vec<u8>,
    /// What is kept now, and when it came. `None` if it went.
    pub(crate) kept: Option<(Vec<u8>, Instant)>,
}

#[derive(Debug)]
struct Kept {
    value: Vec<u8>,
    came: (Instant, u64),
    /// Who brought the first under this key, as far as that is known.
    sender: Option<Sender>,
}

/// Who brings a value, and the network it is in where that matters.
type Sender = (PeerId, Option<Group>);

/// Who has a share of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Share {
    Peer(PeerId),
    Group(Group),
}

fn shares((peer, group): Sender) -> impl Iterator<Item = Share> {
    let group = group.map(Share::Group);
    std::iter::once(Share::Peer(peer)).chain(group)
}

impl Values {
    /// Of a node at this place.
    pub(crate) fn new(max: usize, place: Place) -> Self {
        Self {
            max,
            place,
            shares: HashMap::new(),
            far: BTreeSet::new(),
            kept: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            changed: HashSet::new(),
        }
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Keeps a value that was checked, unless a better one is kept. Without a sender it is our own, or from before the
    /// start; then whoever brings it again is its sender.
    pub(crate) fn keep(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
        sender: Option<Sender>,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), NotKept> {
        self.forget_expired(now);
        let kind = Key::parse(&key).ok_or(NotKept::Key)?;
        if let Some(old) = self.kept.get(&key) {
            // The same again is to be kept for longer.
            let is_valid = || kind.check(&old.value, wall).is_ok();
            if old.value != value && !kind.is_better(&value, &old.value) && is_valid() {
                return Err(NotKept::Older);
            }
            self.order.remove(&old.came);
        } else {
            let has_its_share = sender.is_some_and(|sender| self.has_its_share(sender));
            if has_its_share || self.has_much_to_tell() || !self.has_room(&key) {
                return Err(NotKept::Full);
            }
            let distance = self.place.start_of_distance(&key);
            self.far.insert((distance, key.clone()));
        }
        let came = (now, self.next);
        self.next += 1;
        self.changed.insert(key.clone());
        self.order.insert(came, key.clone());
        let before = self.kept.get(&key).and_then(|old| old.sender);
        if before.is_none() {
            for share in sender.into_iter().flat_map(shares) {
                *self.shares.entry(share).or_default() += 1;
            }
        }
        let sender = before.or(sender);
        let kept = Kept {
            value,
            came,
            sender,
        };
        self.kept.insert(key, kept);
        Ok(())
    }

    /// Whether it gets no more, now that there is little room.
    fn has_its_share(&self, sender: Sender) -> bool {
        let most = self.max.div_ceil(SHARE);
        let has_it = |share| self.shares.get(&share).is_some_and(|count| *count >= most);
        self.kept.len() >= self.max / SHARED_FROM && shares(sender).any(has_it)
    }

    /// Whether more came and went than can be told, as while a disk is slow. What is kept may be renewed still.
    fn has_much_to_tell(&self) -> bool {
        self.changed.len() >= self.max.saturating_mul(CHANGES_PER_VALUE)
    }

    /// Whether there is room for one more key, for which one that is farther may go.
    fn has_room(&mut self, key: &[u8]) -> bool {
        if self.kept.len() < self.max {
            return true;
        }
        let distance = self.place.start_of_distance(key);
        match self.far.last() {
            Some((farthest, far)) if *farthest > distance => {
                let far = far.clone();
                self.drop_value(far);
                true
            }
            _ => false,
        }
    }

    fn drop_value(&mut self, key: Vec<u8>) {
        if let Some(kept) = self.kept.remove(&key) {
            self.order.remove(&kept.came);
            for share in kept.sender.into_iter().flat_map(shares) {
                match self.shares.get_mut(&share) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(self.shares.remove(&share)),
                }
            }
        }
        let distance = self.place.start_of_distance(&key);
        self.far.remove(&(distance, key.clone()));
        self.changed.insert(key);
    }

    /// Takes the values that came or went since the last time.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let change = |key: Vec<u8>| {
            let kept = self.kept.get(&key);
            let kept = kept.map(|kept| (kept.value.clone(), kept.came.0));
            Change { key, kept }
        };
        changed.map(change).collect()
    }

    /// What is kept under a key and still valid.
    pub(crate) fn of(&self, key: &[u8], now: Instant, wall: SystemTime) -> Option<Vec<u8>> {
        let kept = self.kept.get(key)?;
        let is_alive = now.saturating_duration_since(kept.came.0) < LIFE;
        let kind = Key::parse(key).filter(|_| is_alive)?;
        kind.check(&kept.value, wall).ok()?;
        Some(kept.value.clone())
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some(first) = self.order.first_entry()
            && now.saturating_duration_since(first.key().0) >= LIFE
        {
            let key = first.remove();
            self.drop_value(key);
        }
    }
}

const PUBLIC_KEY: &[u8] = b"/pk/";
/// One sender may use up to one in so many of all places, and so may all those of one network, ...
const SHARE: usize = 16;
/// ... once one in so many is taken.
const SHARED_FROM: usize = 2;
/// Changes that may wait to be taken, for each value that there is room for: it came, and another went for it.
const CHANGES_PER_VALUE: usize = 2;
/// How long a value is kept.
pub(crate) const LIFE: Duration = Duration::from_secs(48 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipns::tests::{Says, record};
    use libp2p::identity::Keypair;

    fn named() -> (Keypair, Vec<u8>) {
        let keys = Keypair::generate_ed25519();
        let key = ipns::key(&keys.public().to_peer_id());
        (keys, key)
    }

    fn numbered(keys: &Keypair, sequence: u64) -> Vec<u8> {
        let says = Says {
            sequence,
            ..Says::default()
        };
        record(keys, &says)
    }

    fn check(key: &[u8], value: &[u8]) -> Result<(), NotKept> {
        let kind = Key::parse(key).ok_or(NotKept::Key)?;
        kind.check(value, SystemTime::now())
    }

    #[test]
    fn only_what_a_key_vouches_for_may_be_kept_under_it() {
        let (keys, key) = named();
        let record = numbered(&keys, 1);
        assert_eq!(check(&key, &record), Ok(()));
        assert!(matches!(
            check(&named().1, &record),
            Err(NotKept::Record(_))
        ));
        let peer = keys.public().to_peer_id().to_bytes();
        let public_key = keys.public().encode_protobuf();
        assert_eq!(check(&[PUBLIC_KEY, &peer].concat(), &public_key), Ok(()));
        let other = [PUBLIC_KEY, &PeerId::random().to_bytes()].concat();
        assert_eq!(check(&other, &public_key), Err(NotKept::PublicKey));
        for foreign in [&b"/secrets/x"[..], b"", b"/ipns/", b"/pk/no peer", &peer] {
            assert_eq!(check(foreign, &record), Err(NotKept::Key));
        }
    }

    #[test]
    fn a_key_that_is_longer_than_one_may_be_is_none() {
        for (bits, is_kept) in [(8192, true), (8200, false), (12_000, false)] {
            let bytes = public_key::tests::rsa_of(bits);
            let key = libp2p::identity::PublicKey::try_decode_protobuf(&bytes).unwrap();
            let name = Key::PublicKey(key.to_peer_id()).to_bytes();
            assert_eq!(check(&name, &bytes).is_ok(), is_kept, "{bits}");
        }
    }

    #[test]
    fn the_best_is_kept_for_two_days_after_it_came() {
        let (keys, key) = named();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut values = empty(2);
        let [old, new] = [1, 2].map(|sequence| numbered(&keys, sequence));
        values
            .keep(key.clone(), old.clone(), None, now, wall)
            .unwrap();
        values
            .keep(key.clone(), new.clone(), None, now, wall)
            .unwrap();
        let refused = values.keep(key.clone(), old, None, now, wall);
        assert_eq!(refused, Err(NotKept::Older));
        // The same again begins its time anew.
        let later = now + LIFE / 2;
        let renewed = values.keep(key.clone(), new.clone(), None, later, wall);
        renewed.unwrap();
        assert_eq!(values.of(&key, now + LIFE, wall), Some(new));
        assert_eq!(values.of(&key, later + LIFE, wall), None);
        assert_eq!(values.len(), 1);
        let [change] = &values.take_changes()[..] else {
            panic!("one value");
        };
        assert_eq!(
            (&change.key, change.kept.as_ref().unwrap().1),
            (&key, later)
        );
        values.forget_expired(later + LIFE);
        let gone = Change { key, kept: None };
        assert_eq!(values.take_changes(), [gone]);
    }

    #[test]
    fn room_that_is_full_is_free_again_when_something_expires() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut values = empty(2);
        let [near, far, farther] = by_distance();
        let mut keep = |(keys, key): &(Keypair, Vec<u8>), now| {
            values.keep(key.clone(), numbered(keys, 1), None, now, wall)
        };
        assert_eq!([keep(&near, now), keep(&far, now)], [Ok(()), Ok(())]);
        assert_eq!(keep(&farther, now), Err(NotKept::Full));
        assert_eq!(keep(&farther, now + LIFE), Ok(()));
        assert_eq!(
            (values.len(), values.far.len(), values.order.len()),
            (1, 1, 1)
        );
    }

    fn empty(max: usize) -> Values {
        Values::new(max, Place::of(b"here"))
    }

    /// Names, the nearest to us first.
    fn by_distance<const N: usize>() -> [(Keypair, Vec<u8>); N] {
        let mut names = [(); N].map(|()| named());
        names.sort_by_key(|(_, key)| Place::of(b"here").start_of_distance(key));
        names
    }

    #[test]
    fn what_is_farthest_goes_for_what_is_nearer() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut values = empty(2);
        let [near, far, farther] = by_distance();
        for (keys, key) in [&far, &farther, &near] {
            let value = numbered(keys, 1);
            values.keep(key.clone(), value, None, now, wall).unwrap();
        }
        let kept = [near, far, farther].map(|(_, key)| values.of(&key, now, wall).is_some());
        assert_eq!(kept, [true, true, false]);
        let changes = values.take_changes();
        let gone = changes.iter().filter(|change| change.kept.is_none());
        assert_eq!((changes.len(), gone.count()), (3, 1));
    }

    #[test]
    fn who_renews_a_value_from_before_the_start_has_it_in_its_share() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut values = empty(64);
        let (keys, key) = named();
        let place = Group::of([10, 1, 0, 1].into());
        let (first, second) = (PeerId::random(), PeerId::random());
        for sender in [None, Some((first, Some(place))), Some((second, None))] {
            let value = numbered(&keys, 1);
            values.keep(key.clone(), value, sender, now, wall).unwrap();
        }
        let counted = HashMap::from([(Share::Peer(first), 1), (Share::Group(place), 1)]);
        assert_eq!(values.shares, counted);
        values.forget_expired(now + LIFE);
        assert!(values.shares.is_empty());
    }

    #[test]
    fn while_changes_are_not_taken_only_so_much_may_change() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut values = empty(1);
        let [nearest, near, far] = by_distance();
        let keep = |values: &mut Values, (keys, key): &(Keypair, Vec<u8>)| {
            values.keep(key.clone(), numbered(keys, 1), None, now, wall)
        };
        assert_eq!(keep(&mut values, &far), Ok(()));
        assert_eq!(keep(&mut values, &near), Ok(()));
        assert_eq!(keep(&mut values, &nearest), Err(NotKept::Full));
        assert_eq!(keep(&mut values, &near), Ok(()), "renewed");
        assert_eq!(values.take_changes().len(), 2);
        assert_eq!(keep(&mut values, &nearest), Ok(()));
    }

    #[test]
    fn neither_one_sender_nor_those_of_one_network_take_all_the_room() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut values = empty(64);
        let mut bring = |sender: Sender| {
            let (keys, key) = named();
            let value = numbered(&keys, 1);
            values.keep(key, value, Some(sender), now, wall).is_ok()
        };
        let (greedy, late) = (PeerId::random(), PeerId::random());
        let taken = (0..40).filter(|_| bring((greedy, None))).count();
        assert_eq!(taken, 32, "half of it, where nobody else wants any");
        let taken = (0..20).filter(|_| bring((late, None))).count();
        assert_eq!(taken, 4);
        let [one, other] = [1, 2].map(|number| Group::of([10, number, 0, 1].into()));
        let crowd = (0..20).filter(|_| bring((PeerId::random(), Some(one))));
        assert_eq!(crowd.count(), 4);
        assert!(bring((PeerId::random(), Some(other))) && bring((PeerId::random(), None)));
        values.forget_expired(now + LIFE);
        assert!(values.shares.is_empty() && values.far.is_empty());
    }
}
