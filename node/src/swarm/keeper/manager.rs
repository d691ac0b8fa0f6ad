//! Which peers stay when there are many: water marks, grace, protection, usefulness.
//!
//! An engine without I/O and without a clock: it is told who comes, goes and does what, and says at
//! [`Manager::trim`] and [`Manager::make_room`] whose connections are to be closed.
//!
//! 1. A peer is in `peers` as long as it has a connection.
//! 2. Who is protected is never closed, and who has not been here for the grace only where places for newcomers run out.
//! 3. After a trim outside of a silence, no more than `high` connections may be closed any more: those
//!    of the least useful went until `low` were left, and nothing goes again until the silence is over.
//! 4. Whoever holds many places does not keep others out: a few are kept free, for which those go that are of no use and have
//!    most company from their own network.

use super::crowd::origin;
use crate::dht::table::Group;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Between how many connections the number is kept, and how long a new peer is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waters {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) grace: Duration,
    /// How many there can be: of the places that the protected leave, some are kept free for newcomers.
    pub(super) most: usize,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    In,
    Out,
}

/// Whether a peer is one that others are found through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    Dht,
    Nothing,
}

/// Whether something of a peer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Yes,
    No,
}

/// Everybody who is connected, and who is to stay.
#[derive(Debug)]
pub(super) struct Manager {
    waters: Waters,
    peers: HashMap<PeerId, Peer>,
    /// Who stays whatever happens, connected or not.
    kept: HashSet<PeerId>,
    /// Who stays while somebody works with it, and how many do.
    busy: HashMap<PeerId, usize>,
    quiet_until: Option<Instant>,
}

#[derive(Debug)]
struct Peer {
    connections: HashSet<ConnectionId>,
    since: Instant,
    came: Came,
    from: Option<IpAddr>,
    waits: Waits,
    serves: Serves,
    is_asked_for: bool,
    gave: Lately,
    took: Lately,
    /// Told to go; the news of it is still on its way.
    is_leaving: bool,
}

/// How dear a peer is; the least goes first. What comes first decides.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    is_asked_for: bool,
    gave: u32,
    took: u32,
    serves: bool,
    is_dialled: bool,
    since: Reverse<Instant>,
    /// So that the order never depends on the map's.
    peer: PeerId,
}

/// The same where places run out. What a stranger may claim or have for nothing weighs less than whence it comes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    is_asked_for: bool,
    gave: u32,
    is_dialled: bool,
    of_network: Reverse<usize>,
    of_address: Reverse<usize>,
    connections: Reverse<usize>,
    took: u32,
    serves: bool,
    since: Reverse<Instant>,
    peer: PeerId,
}

impl Manager {
    pub(super) fn new(waters: Waters) -> Self {
        Self {
            waters: Waters {
                low: waters.low.min(waters.high),
                ..waters
            },
            peers: HashMap::new(),
            kept: HashSet::new(),
            busy: HashMap::new(),
            quiet_until: None,
        }
    }

    /// A connection is up.
    pub(super) fn connected(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        (came, from): (Came, Option<IpAddr>),
        now: Instant,
    ) {
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            connections: HashSet::new(),
            since: now,
            came,
            from: from.map(origin),
            waits: Waits::No,
            serves: Serves::Nothing,
            is_asked_for: false,
            gave: Lately::default(),
            took: Lately::default(),
            is_leaving: false,
        });
        entry.connections.insert(id);
        entry.is_leaving = false;
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.connections.remove(&id);
            if entry.connections.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// A peer stays from now on, or no longer.
    pub(super) fn keep(&mut self, peer: PeerId) {
        self.kept.insert(peer);
    }

    /// The same, taken back.
    pub(super) fn let_go(&mut self, peer: &PeerId) {
        self.kept.remove(peer);
    }

    /// Somebody begins to work with a peer, connected or not.
    pub(super) fn begins(&mut self, peer: PeerId) {
        *self.busy.entry(peer).or_default() += 1;
    }

    /// And ends.
    pub(super) fn ends(&mut self, peer: &PeerId) {
        if let Some(count) = self.busy.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(peer);
            }
        }
    }

    /// The operator wanted this peer.
    pub(super) fn asked_for(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.is_asked_for = true;
        }
    }

    /// Whether something of this peer is waited for.
    pub(super) fn waits(&mut self, peer: &PeerId, waits: Waits) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.waits = waits;
        }
    }

    /// Whether others are found through this peer.
    pub(super) fn serves(&mut self, peer: &PeerId, serves: Serves) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.serves = serves;
        }
    }

    /// A peer gave bytes that were wanted.
    pub(super) fn gave(&mut self, peer: &PeerId, bytes: u64, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.gave.add(bytes, now);
        }
    }

    /// A peer was given bytes that it wanted.
    pub(super) fn took(&mut self, peer: &PeerId, bytes: u64, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.took.add(bytes, now);
        }
    }

    /// Whether a peer is never closed.
    pub(super) fn is_protected(&self, peer: &PeerId) -> bool {
        let waits = self.peers.get(peer).is_some_and(|p| p.waits == Waits::Yes);
        waits || self.kept.contains(peer) || self.busy.contains_key(peer)
    }

    /// Whose connections are to be closed now, the least useful first.
    pub(super) fn trim(&mut self, now: Instant) -> Vec<PeerId> {
        if self.quiet_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let mut settled: Vec<(Worth, usize)> = self
            .peers
            .iter()
            .filter(|(id, peer)| self.may_close(id, peer))
            .filter(|(_, peer)| peer.since + self.waters.grace <= now)
            .map(|(id, peer)| (peer.worth(*id, now), peer.connections.len()))
            .collect();
        let mut left: usize = settled.iter().map(|(_, connections)| connections).sum();
        if left <= self.waters.high {
            return Vec::new();
        }
        self.quiet_until = Some(now + SILENCE);
        settled.sort_unstable();
        let mut closing = Vec::new();
        for (worth, connections) in settled {
            if left <= self.waters.low {
                break;
            }
            left -= connections;
            closing.push(worth.peer);
        }
        for peer in &closing {
            if let Some(entry) = self.peers.get_mut(peer) {
                entry.is_leaving = true;
            }
        }
        closing
    }

    /// Whose connections are to be closed now so that others find a place.
    pub(super) fn make_room(&mut self, now: Instant) -> Vec<PeerId> {
        let (mut left, mut firm) = (0, 0);
        for (id, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_leaving) {
            left += peer.connections.len();
            if self.is_protected(id) {
                firm += peer.connections.len();
            }
        }
        let most = self.waters.most;
        let full = most - most.saturating_sub(firm) / SPARE;
        let mut closing = Vec::new();
        while left > full {
            let Some(peer) = self.least(now) else {
                break;
            };
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.is_leaving = true;
                left = left.saturating_sub(entry.connections.len());
            }
            closing.push(peer);
        }
        closing
    }

    /// Who gives up its place first.
    fn least(&self, now: Instant) -> Option<PeerId> {
        let (mut networks, mut addresses) = (HashMap::new(), HashMap::new());
        for peer in self.peers.values().filter(|peer| !peer.is_leaving) {
            let count = peer.connections.len();
            *networks.entry(peer.from.map(Group::of)).or_insert(0) += count;
            *addresses.entry(peer.from).or_insert(0) += count;
        }
        let others = self.peers.iter();
        let others = others.filter(|(id, peer)| self.may_close(id, peer));
        let place = |(id, peer): (&PeerId, &Peer)| {
            let of_network = networks.get(&peer.from.map(Group::of));
            let of_address = addresses.get(&peer.from);
            Place {
                is_asked_for: peer.is_asked_for,
                gave: peer.gave.magnitude(now),
                is_dialled: peer.came == Came::Out,
                of_network: Reverse(of_network.copied().unwrap_or(0)),
                of_address: Reverse(of_address.copied().unwrap_or(0)),
                connections: Reverse(peer.connections.len()),
                took: peer.took.magnitude(now),
                serves: peer.serves == Serves::Dht,
                since: Reverse(peer.since),
                peer: *id,
            }
        };
        others.map(place).min().map(|place| place.peer)
    }

    /// When to look again, if at all before something changes.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let of_peer = |peer: &Peer| peer.connections.len();
        let some = self
            .peers
            .iter()
            .filter(|(id, peer)| self.may_close(id, peer));
        let all: usize = some.map(|(_, peer)| of_peer(peer)).sum();
        let soon = now + LOOK_EVERY;
        (all > self.waters.high).then(|| self.quiet_until.map_or(soon, |until| until.max(soon)))
    }

    fn may_close(&self, id: &PeerId, peer: &Peer) -> bool {
        !peer.is_leaving && !self.is_protected(id)
    }
}

impl Peer {
    fn worth(&self, peer: PeerId, now: Instant) -> Worth {
        Worth {
            is_asked_for: self.is_asked_for,
            gave: self.gave.magnitude(now),
            took: self.took.magnitude(now),
            serves: self.serves == Serves::Dht,
            is_dialled: self.came == Came::Out,
            since: Reverse(self.since),
            peer,
        }
    }
}

/// Bytes, of which half are forgotten every [`HALF_LIFE`].
#[derive(Debug, Default, Clone, Copy)]
struct Lately {
    bytes: u64,
    at: Option<Instant>,
}

impl Lately {
    fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.left(now).saturating_add(bytes);
        self.at = Some(now);
    }

    /// How many digits, in the base of two, are left of them: a little more is not better.
    fn magnitude(&self, now: Instant) -> u32 {
        u64::BITS - self.left(now).leading_zeros()
    }

    fn left(&self, now: Instant) -> u64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now - at);
        let halvings = passed.as_secs() / HALF_LIFE.as_secs();
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        self.bytes.checked_shr(halvings).unwrap_or(0)
    }
}

/// Of so many places one is kept free.
const SPARE: usize = 8;
/// How long nothing is closed after a trim: who comes back at once must not make it begin again.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the grace of enough of them is over, while there are too many.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long what was exchanged counts for half.
const HALF_LIFE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn waters(low: usize, high: usize) -> Waters {
        let grace = GRACE;
        Waters {
            low,
            high,
            grace,
            most: usize::MAX,
        }
    }

    /// Peers, one connection each.
    fn crowd(manager: &mut Manager, count: usize, now: Instant) -> Vec<PeerId> {
        let peers: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
        for (at, peer) in peers.iter().enumerate() {
            let id = ConnectionId::new_unchecked(at);
            manager.connected(*peer, id, (Came::In, None), now);
        }
        peers
    }

    #[test]
    fn above_the_high_water_the_least_useful_go_until_the_low_one_is_reached() {
        let (mut manager, start) = (Manager::new(waters(5, 7)), Instant::now());
        let peers = crowd(&mut manager, 8, start);
        let now = start + GRACE;
        manager.serves(&peers[0], Serves::Dht);
        manager.took(&peers[1], 1, now);
        manager.gave(&peers[2], 1, now);
        manager.asked_for(&peers[3]);
        manager.waits(&peers[4], Waits::Yes);
        assert!(
            manager.trim(now).is_empty(),
            "seven may go, and seven may stay"
        );
        manager.waits(&peers[4], Waits::No);
        manager.gave(&peers[4], 1 << 20, now);
        let gone = manager.trim(now);
        assert_eq!(gone.len(), 3);
        assert!(
            gone.iter().all(|peer| peers[5..].contains(peer)),
            "{gone:?}"
        );
    }

    /// Somebody comes from an address.
    fn comes(manager: &mut Manager, number: usize, ip: [u8; 4], now: Instant) -> PeerId {
        let (peer, id) = (PeerId::random(), ConnectionId::new_unchecked(number));
        manager.connected(peer, id, (Came::In, Some(ip.into())), now);
        peer
    }

    fn with_room_for(most: usize) -> Manager {
        Manager::new(Waters {
            most,
            ..waters(1000, 1000)
        })
    }

    #[test]
    fn who_comes_while_others_hold_all_places_gets_one_of_theirs() {
        let (mut manager, start) = (with_room_for(73), Instant::now());
        // They are there first, from many addresses of one network, and go on coming.
        let mut honest = HashSet::new();
        for number in 0..640 {
            let now = start + Duration::from_millis(number as u64);
            let low = u8::try_from(number % 250).unwrap();
            if number % 20 == 19 {
                honest.insert(comes(&mut manager, number, [20 + low / 2, low, 0, 1], now));
            } else {
                comes(&mut manager, number, [10, 0, low, 1], now);
            }
            for peer in manager.make_room(now) {
                assert!(!honest.contains(&peer), "{number}");
                let id = *manager.peers[&peer].connections.iter().next().unwrap();
                manager.closed(peer, id);
            }
            assert!(manager.peers.len() <= 64);
        }
        assert_eq!(honest.len(), 32);
        assert!(honest.iter().all(|peer| manager.peers.contains_key(peer)));
    }

    #[test]
    fn who_is_of_use_or_was_dialled_keeps_its_place_and_of_equals_the_newest_goes() {
        let (mut manager, start) = (with_room_for(4), Instant::now());
        let all: Vec<PeerId> = (0..8)
            .map(|number| {
                let now = start + Duration::from_secs(number as u64);
                comes(&mut manager, number, [10, 0, 0, 1], now)
            })
            .collect();
        let now = start + GRACE / 2;
        manager.gave(&all[7], 1, now);
        manager.asked_for(&all[6]);
        manager.keep(all[5]);
        // That it serves is what it says.
        manager.serves(&all[4], Serves::Dht);
        assert_eq!(manager.make_room(now), [all[3], all[2], all[1], all[0]]);
        assert!(manager.make_room(now).is_empty());
        let one = comes(&mut manager, 8, [20, 0, 0, 1], now);
        assert_eq!(manager.make_room(now), [all[4]]);
        let id = ConnectionId::new_unchecked(9);
        let dialled = PeerId::random();
        manager.connected(dialled, id, (Came::Out, Some([20, 0, 0, 1].into())), now);
        assert_eq!(manager.make_room(now), [one]);
        for peer in [&all[6], &all[7], &dialled] {
            manager.keep(*peer);
        }
        comes(&mut manager, 10, [30, 0, 0, 1], now);
        manager
            .peers
            .values_mut()
            .for_each(|peer| peer.waits = Waits::Yes);
        assert!(manager.make_room(now).is_empty(), "nobody is to go");
    }

    #[test]
    fn where_most_are_protected_newcomers_have_the_places_that_are_left() {
        let (mut manager, now) = (with_room_for(64), Instant::now());
        for number in 0..56 {
            let peer = comes(&mut manager, number, [10, 0, 0, 1], now);
            manager.keep(peer);
        }
        for number in 56..63 {
            comes(&mut manager, number, [20, 0, 0, 1], now);
            assert!(manager.make_room(now).is_empty(), "{number}");
        }
        comes(&mut manager, 63, [20, 0, 0, 1], now);
        assert_eq!(manager.make_room(now).len(), 1);
    }

    #[test]
    fn who_has_many_connections_has_as_much_company() {
        let (mut manager, now) = (with_room_for(512), Instant::now());
        for peer in 0..56_u8 {
            let name = PeerId::random();
            for connection in 0..8 {
                let id = ConnectionId::new_unchecked(usize::from(peer) * 8 + connection);
                manager.connected(name, id, (Came::In, Some([peer, 0, 0, 1].into())), now);
            }
        }
        let later = now + Duration::from_secs(1);
        let newcomer = comes(&mut manager, 1000, [100, 0, 0, 1], later);
        let gone = manager.make_room(later);
        assert_eq!(gone.len(), 1);
        assert!(!gone.contains(&newcomer));
    }

    #[test]
    fn the_dearer_use_weighs_more() {
        let (mut manager, start) = (Manager::new(waters(0, 0)), Instant::now());
        let peers = crowd(&mut manager, 6, start);
        let now = start + GRACE;
        manager.asked_for(&peers[5]);
        manager.gave(&peers[4], 100, now);
        manager.gave(&peers[3], 10, now);
        manager.took(&peers[2], 1 << 30, now);
        manager.serves(&peers[1], Serves::Dht);
        assert_eq!(manager.trim(now), peers);
    }

    #[test]
    fn of_equals_who_came_last_goes_first() {
        let (mut manager, start) = (Manager::new(waters(1, 1)), Instant::now());
        let older = crowd(&mut manager, 1, start);
        let younger = crowd(&mut manager, 1, start + GRACE);
        assert!(manager.trim(start + GRACE).is_empty());
        assert_eq!(manager.trim(start + 2 * GRACE), younger);
        assert_ne!(older, younger);
    }

    #[test]
    fn nobody_goes_within_the_grace_and_nobody_twice_within_the_silence() {
        let (mut manager, start) = (Manager::new(waters(1, 2)), Instant::now());
        crowd(&mut manager, 4, start);
        assert!(
            manager
                .trim(start + GRACE - Duration::from_millis(1))
                .is_empty()
        );
        assert_eq!(manager.trim(start + GRACE).len(), 3);
        crowd(&mut manager, 4, start + GRACE - SILENCE);
        // Ids of theirs are those of the first again: it is the peers that count.
        let quiet = start + GRACE + SILENCE;
        assert!(manager.trim(quiet - Duration::from_millis(1)).is_empty());
        assert_eq!(manager.trim(quiet).len(), 4);
    }

    #[test]
    fn what_was_exchanged_long_ago_is_forgotten() {
        let (mut lately, start) = (Lately::default(), Instant::now());
        lately.add(1 << 20, start);
        assert_eq!(lately.magnitude(start), 21);
        assert_eq!(lately.magnitude(start + HALF_LIFE), 20);
        assert_eq!(lately.magnitude(start + HALF_LIFE * 64), 0);
        lately.add(u64::MAX, start + HALF_LIFE);
        assert_eq!(lately.magnitude(start + HALF_LIFE), 64);
    }

    #[test]
    fn it_is_looked_again_only_while_there_are_too_many() {
        let (mut manager, start) = (Manager::new(waters(1, 2)), Instant::now());
        let peers = crowd(&mut manager, 2, start);
        assert_eq!(manager.due(start), None);
        crowd(&mut manager, 1, start);
        assert_eq!(manager.due(start), Some(start + LOOK_EVERY));
        manager.keep(peers[0]);
        assert_eq!(manager.due(start), None);
        manager.let_go(&peers[0]);
        manager.trim(start + GRACE);
        crowd(&mut manager, 3, start + GRACE);
        let due = manager.due(start + GRACE);
        assert_eq!(due, Some(start + GRACE + SILENCE));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Connect(u8, bool),
        Close(u8),
        Keep(u8),
        LetGo(u8),
        Work(u8),
        Rest(u8),
        Wait(u8, bool),
        Give(u8, u32),
        Pass(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<u8>(), any::<bool>()).prop_map(|(peer, out)| Step::Connect(peer, out)),
            1 => any::<u8>().prop_map(Step::Close),
            1 => any::<u8>().prop_map(Step::Keep),
            1 => any::<u8>().prop_map(Step::LetGo),
            1 => any::<u8>().prop_map(Step::Work),
            1 => any::<u8>().prop_map(Step::Rest),
            1 => (any::<u8>(), any::<bool>()).prop_map(|(peer, is)| Step::Wait(peer, is)),
            1 => (any::<u8>(), any::<u32>()).prop_map(|(peer, bytes)| Step::Give(peer, bytes)),
            2 => (0..40_000_u16).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn the_water_holds_and_neither_the_protected_nor_the_new_are_closed(
            low in 0..12_usize,
            high in 0..12_usize,
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let names: Vec<PeerId> = (0..256).map(|_| PeerId::random()).collect();
            let mut manager = Manager::new(waters(low, high));
            let (mut now, mut next, mut quiet) = (Instant::now(), 0, None);
            let mut open: HashMap<PeerId, (Instant, Vec<ConnectionId>)> = HashMap::new();
            let (mut kept, mut busy, mut waits) = (HashSet::new(), Vec::new(), HashSet::new());
            for step in steps {
                match step {
                    Step::Connect(peer, out) => {
                        let peer = names[usize::from(peer)];
                        let id = ConnectionId::new_unchecked(next);
                        next += 1;
                        let came = if out { Came::Out } else { Came::In };
                        manager.connected(peer, id, (came, None), now);
                        open.entry(peer).or_insert((now, Vec::new())).1.push(id);
                    }
                    Step::Close(peer) => {
                        let peer = names[usize::from(peer)];
                        if let Some((_, ids)) = open.get_mut(&peer) {
                            manager.closed(peer, ids.pop().unwrap());
                            if ids.is_empty() {
                                open.remove(&peer);
                                waits.remove(&peer);
                            }
                        }
                    }
                    Step::Keep(peer) => {
                        kept.insert(names[usize::from(peer)]);
                        manager.keep(names[usize::from(peer)]);
                    }
                    Step::LetGo(peer) => {
                        kept.remove(&names[usize::from(peer)]);
                        manager.let_go(&names[usize::from(peer)]);
                    }
                    Step::Work(peer) => {
                        busy.push(names[usize::from(peer)]);
                        manager.begins(names[usize::from(peer)]);
                    }
                    Step::Rest(peer) => {
                        let at = busy.iter().position(|one| *one == names[usize::from(peer)]);
                        if let Some(at) = at {
                            manager.ends(&busy.remove(at));
                        }
                    }
                    Step::Wait(peer, is) => {
                        let peer = names[usize::from(peer)];
                        manager.waits(&peer, if is { Waits::Yes } else { Waits::No });
                        if is && open.contains_key(&peer) {
                            waits.insert(peer);
                        } else {
                            waits.remove(&peer);
                        }
                    }
                    Step::Give(peer, bytes) => {
                        manager.gave(&names[usize::from(peer)], u64::from(bytes), now);
                    }
                    Step::Pass(millis) => now += Duration::from_millis(u64::from(millis)),
                }
                let gone = manager.trim(now);
                prop_assert!(gone.is_empty() || quiet.is_none_or(|until| now >= until));
                if !gone.is_empty() {
                    quiet = Some(now + SILENCE);
                }
                let is_safe = |peer: &PeerId| {
                    kept.contains(peer) || busy.contains(peer) || waits.contains(peer)
                };
                for peer in gone {
                    prop_assert!(!is_safe(&peer));
                    let (since, ids) = open.remove(&peer).unwrap();
                    prop_assert!(since + GRACE <= now);
                    for id in ids {
                        manager.closed(peer, id);
                    }
                }
                let settled: usize = open
                    .iter()
                    .filter(|(peer, (since, _))| !is_safe(peer) && *since + GRACE <= now)
                    .map(|(_, (_, ids))| ids.len())
                    .sum();
                if quiet.is_none_or(|until| now >= until) {
                    prop_assert!(settled <= high, "{settled} of {high}");
                }
                if settled > high {
                    prop_assert!(manager.due(now).is_some_and(|due| due > now));
                }
            }
        }
    }
}
