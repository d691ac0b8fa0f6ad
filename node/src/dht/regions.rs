//! Regions of the key space: all places that begin with the same bits.
//!
//! Of a region in which twenty nodes lie or more, the twenty nearest to any key are among them: so whoever knows all nodes of a
//! region knows who keeps the records of each of its keys. One lookup finds them ([`Dht::sweep`]). On its way it is like any
//! other; then it asks everybody in the region, each for the key of ours that is nearest to it, and so hears of its
//! neighbours.

use super::lookup::Want;
use super::place::{Distance, Place};
use super::table::{BUCKET_PEERS, Contact};
use super::{Dht, Goal, LookupId, Running, crowding};
use std::collections::BTreeMap;
use std::time::Instant;

impl Dht {
    /// Looks for all who keep records of keys that share so many bits with the first of `keys`. The others, which
    /// should lie all over the region, are what its nodes are asked for. Of a single key only the nearest are looked
    /// for, and no longer than until the others must be further away.
    pub fn sweep(&mut self, keys: Vec<Vec<u8>>, bits: u32, now: Instant) -> LookupId {
        let mut keys = keys.into_iter();
        let first = keys.next().unwrap_or_default();
        let spread: Vec<Vec<u8>> = keys.take(SPREAD_MAX).collect();
        let bits = if spread.is_empty() { ONE_KEY } else { bits };
        let id = self.start(first, Goal::Sweep { bits }, now);
        if let Some(running) = self.lookups.get_mut(&id) {
            running.spread = spread;
        }
        id
    }

    /// How many nodes there seem to be; `None` before enough lookups have told.
    pub fn size(&self) -> Option<f64> {
        self.size.guess()
    }

    pub(super) fn sweeps(&self, bits: u32) -> Want {
        match self.size.guess() {
            Some(size) if bits == ONE_KEY => Want::Soon {
                within: crowding::region(size),
            },
            _ if bits == ONE_KEY => Want::Nearest,
            _ => Want::Region { bits },
        }
    }
}

impl Running {
    /// For which key somebody is asked.
    pub(super) fn key_for(&self, place: &Place) -> &Vec<u8> {
        let Goal::Sweep { bits } = self.goal else {
            return &self.key;
        };
        // On the way there only the target is asked for.
        if Place::of(&self.key).shared_bits(place) + MARGIN_BITS < bits {
            return &self.key;
        }
        let all = self.spread.iter().chain([&self.key]);
        let nearest = all.min_by_key(|key| Place::of(key).distance(place));
        nearest.unwrap_or(&self.key)
    }
}

/// How many bits the places of a region share, so that about [`REGION_PEERS`] of so many nodes lie in it.
pub fn bits_of(size: f64) -> u32 {
    let regions = (size / REGION_PEERS).max(1.0);
    let bits = (0..=BITS_MAX).find(|bits| f64::from(1u32 << bits) > regions);
    bits.map_or(BITS_MAX, |bits: u32| bits.saturating_sub(1))
}

/// Whether regions of so many bits still suit a network of so many nodes: not for every guess is all cut anew.
pub fn fit(size: f64, bits: u32) -> bool {
    let each = size / f64::from(1u32 << bits.min(BITS_MAX));
    let is_small = each < REGION_PEERS / FIT;
    let is_large = each > REGION_PEERS * 2.0 * FIT;
    !(is_small && bits > 0 || is_large && bits < BITS_MAX)
}

/// Which of a region's nodes, by their number, keep the records of a key: the nearest; or more where somebody crowds
/// it, as far as the number of nodes tells.
pub fn keepers(key: &Place, nodes: &[Contact], size: Option<f64>) -> Vec<usize> {
    let all = nodes.iter().enumerate();
    let by_distance: BTreeMap<Distance, usize> = all
        .map(|(at, contact)| (contact.place.distance(key), at))
        .collect();
    let mut count = BUCKET_PEERS;
    if let Some(size) = size
        && crowding::are_crowding(by_distance.keys(), size)
    {
        let within = crowding::region(size);
        let near = by_distance.range(..=within).count();
        count = count.max(near);
    }
    by_distance.into_values().take(count).collect()
}

/// Nodes of a region on average, at least; twice as many at most. Fewer than twenty are seldom among them.
const REGION_PEERS: f64 = 28.0;
/// How much more or less than that may be.
const FIT: f64 = 1.3;
/// Bits that a region's places may share: more regions than these serve no network there is.
pub const BITS_MAX: u32 = 16;
/// Stands for all bits of a single key.
const ONE_KEY: u32 = 256;
/// Whoever shares so many bits less with a region may still keep records of its keys, where few nodes lie in it.
const MARGIN_BITS: u32 = 2;
/// Keys that a region's nodes are asked for.
pub const SPREAD_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::network::tests::hundreds;
    use crate::dht::network::{Manner, Network};
    use crate::dht::tests::contacts;
    use std::collections::HashSet;
    use std::time::Duration;

    /// Some hundred nodes, and the number of one that guesses how many they are.
    fn settled() -> (Network, usize) {
        let mut network = hundreds();
        let node = network.any();
        (network, node)
    }

    /// Keys of one region.
    fn keys_of(network: &mut Network, bits: u32, count: usize) -> Vec<Vec<u8>> {
        let first = network.key();
        let place = Place::of(&first);
        let mut keys = vec![first];
        while keys.len() < count {
            let key = network.key();
            if Place::of(&key).shared_bits(&place) >= bits {
                keys.push(key);
            }
        }
        keys
    }

    #[test]
    fn one_lookup_finds_who_keeps_the_records_of_all_keys_of_a_region() {
        let (mut network, node) = settled();
        let (mut right, mut all, mut requests) = (0, 0, 0);
        for _ in 0..20 {
            let bits = bits_of(network.size(node).unwrap());
            assert!((2..=4).contains(&bits), "{bits}");
            let keys = keys_of(&mut network, bits, 100);
            let outcome = network.sweep(node, keys.clone(), bits).unwrap().outcome;
            requests += outcome.requests;
            for key in keys {
                let kept = keepers(&Place::of(&key), &outcome.nearest, None);
                let kept: HashSet<_> = kept.iter().map(|at| outcome.nearest[*at].peer).collect();
                // Nobody names the one who asks, so it may be missing.
                let nearest = network.truly_nearest(&key, BUCKET_PEERS);
                right += nearest.iter().filter(|peer| kept.contains(peer)).count();
                all += nearest.len();
            }
        }
        assert!(right * 1000 >= all * 990, "{right} of {all}");
        assert!(requests <= 20 * 80, "{requests}");
    }

    #[test]
    fn a_single_key_takes_fewer_requests_than_asking_all_who_keep_it() {
        let (mut network, node) = settled();
        let (mut right, mut requests, mut slow) = (0, 0, 0);
        for _ in 0..50 {
            let key = network.key();
            let outcome = network.sweep(node, vec![key.clone()], 0).unwrap().outcome;
            requests += outcome.requests;
            let nearest = network.truly_nearest(&key, BUCKET_PEERS);
            let found = outcome.nearest.iter();
            right += found.filter(|found| nearest.contains(&found.peer)).count();
            slow += network.find_nearest(node, key).unwrap().outcome.requests;
        }
        assert!(right >= 50 * 17, "{right} of {}", 50 * BUCKET_PEERS);
        assert!(requests * 3 < slow * 2, "{requests} against {slow}");
    }

    #[test]
    fn who_crowds_a_key_is_told_beside_all_who_would_keep_it() {
        let (mut network, node) = settled();
        let bits = 3;
        let keys = keys_of(&mut network, bits, 20);
        let honest = network.truly_nearest(&keys[0], 9);
        network.crowd(&keys[0], 45, Manner::Withholds);
        network.pass(Duration::from_secs(20));
        let size = network.size(node);
        assert!(size.is_some());
        let found = network
            .sweep(node, keys.clone(), bits)
            .unwrap()
            .outcome
            .nearest;
        let kept = keepers(&Place::of(&keys[0]), &found, size);
        let told = |peer| kept.iter().any(|at| found[*at].peer == peer);
        let told = honest.into_iter().filter(|peer| told(*peer)).count();
        assert!(told >= 8, "{told} of 9 honest");
        let usual = keepers(&Place::of(&keys[0]), &contacts(1..=100), size);
        assert_eq!(usual.len(), BUCKET_PEERS);
    }

    #[test]
    fn regions_hold_more_than_twenty_and_not_many_more() {
        assert_eq!(bits_of(0.0), 0);
        assert_eq!(bits_of(50.0), 0);
        for size in [60.0, 1000.0, 10_000.0, 1e6] {
            let each = size / f64::from(1u32 << bits_of(size));
            assert!(
                (REGION_PEERS..=REGION_PEERS * 2.0).contains(&each),
                "{size}"
            );
        }
        assert_eq!(bits_of(1e12), BITS_MAX);
    }
}
