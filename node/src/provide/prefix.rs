//! A region of the key space: all places that begin with the same bits.

use crate::dht::regions::BITS_MAX;

/// The bits that a region's places begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Prefix {
    /// They and zeros.
    start: u64,
    bits: u32,
}

impl Prefix {
    /// The region of so many bits that a place lies in, of which these are the first.
    pub(crate) fn of(start: u64, bits: u32) -> Self {
        let bits = bits.min(BITS_MAX);
        Self {
            start: start & mask(bits),
            bits,
        }
    }

    /// All regions of so many bits, in order.
    pub(crate) fn all(bits: u32) -> impl Iterator<Item = Self> {
        let bits = bits.min(BITS_MAX);
        (0..1u64 << bits).map(move |number| {
            let start = number.checked_shl(u64::BITS - bits).unwrap_or(0);
            Self { start, bits }
        })
    }

    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// The first 64 bits of its first place.
    pub(crate) fn first(&self) -> u64 {
        self.start
    }

    /// The first 64 bits of its last place.
    pub(crate) fn last(&self) -> u64 {
        self.start | !mask(self.bits)
    }

    /// Whether one is part of the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// When in a cycle its turn is, as a part of 2^64. All regions of so many bits are evenly apart, those that lie beside
    /// each other far; and of a region's halves one has the time of the whole.
    pub(crate) fn phase(&self) -> u64 {
        self.start.wrapping_mul(SPREAD)
    }
}

fn mask(bits: u32) -> u64 {
    u64::MAX.checked_shl(u64::BITS - bits).unwrap_or(0)
}

/// An odd number: so its multiples by the first numbers modulo a power of two are each of them once. The golden ratio of 2^64.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_turns_of_a_cycle_are_evenly_apart_and_neighbours_far() {
        for bits in 0..=12 {
            let phases: Vec<u64> = Prefix::all(bits).map(|prefix| prefix.phase()).collect();
            let step = (u64::MAX >> bits).wrapping_add(1);
            let each: BTreeSet<u64> = phases.iter().copied().collect();
            assert_eq!(each.len(), 1 << bits);
            assert!(each.iter().all(|phase| step == 0 || phase % step == 0));
            if bits >= 6 {
                let near = phases.windows(2).filter(|two| {
                    let apart = two[0].wrapping_sub(two[1]);
                    apart.min(apart.wrapping_neg()) < step * 4
                });
                assert_eq!(near.count(), 0, "{bits} bits");
            }
        }
    }

    #[test]
    fn a_region_holds_what_begins_as_it_does() {
        let whole = Prefix::of(u64::MAX, 0);
        assert_eq!((whole.first(), whole.last()), (0, u64::MAX));
        let upper = Prefix::of(u64::MAX, 1);
        assert_eq!((upper.first(), upper.last()), (1 << 63, u64::MAX));
        let (low, high) = (Prefix::of(0, 3), Prefix::of(u64::MAX, 3));
        assert!(!low.overlaps(&high) && !low.overlaps(&upper) && high.overlaps(&upper));
        assert!(whole.overlaps(&low) && low.overlaps(&whole));
        assert_eq!(Prefix::all(3).last(), Some(high));
        assert_eq!(Prefix::all(0).collect::<Vec<_>>(), [whole]);
    }
}
