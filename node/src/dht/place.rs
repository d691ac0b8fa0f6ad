//! Where peers and keys lie: the SHA-256 of their bytes, and how near two of them are (their XOR).

use aws_lc_rs::digest::{SHA256, digest};
use libp2p::PeerId;
use std::fmt;

/// A point of the key space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Words);

/// How far two places are from each other. Smaller is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance(Words);

/// 256 bits, the first ones first.
type Words = [u64; 4];

impl Place {
    /// Of a key as it is sent: a multihash, a peer ID, `/ipns/…`.
    pub fn of(key: &[u8]) -> Self {
        let hash = digest(&SHA256, key);
        let (words, _) = hash.as_ref().as_chunks();
        let mut place = [0; 4];
        for (to, from) in place.iter_mut().zip(words) {
            *to = u64::from_be_bytes(*from);
        }
        Self(place)
    }

    /// Of a peer.
    pub fn of_peer(peer: &PeerId) -> Self {
        Self::of(&peer.to_bytes())
    }

    /// Its first 64 bits.
    pub fn start(&self) -> u64 {
        let [first, ..] = self.0;
        first
    }

    /// How far it is from another.
    pub fn distance(&self, other: &Self) -> Distance {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Distance([a ^ e, b ^ f, c ^ g, d ^ h])
    }

    /// The first 64 bits of how far a key is.
    pub(super) fn start_of_distance(&self, key: &[u8]) -> u64 {
        self.start() ^ Self::of(key).start()
    }

    /// The same place with other bits: `count` of them from the one numbered `from`, the last of `value`. Only the
    /// first 64 are ever others.
    pub fn with_bits(&self, from: u32, count: u32, value: u64) -> Self {
        let Some(shift) = u64::BITS.checked_sub(from + count) else {
            return *self;
        };
        let mask = ((1 << count) - 1) << shift;
        let [first, rest @ ..] = self.0;
        let first = first & !mask | value << shift & mask;
        let [a, b, c] = rest;
        Self([first, a, b, c])
    }

    /// How many bits at the front are the same: 256 for the same place.
    pub fn shared_bits(&self, other: &Self) -> u32 {
        self.distance(other).zeros()
    }
}

impl Distance {
    /// As a part of the whole space.
    pub fn part(&self) -> f64 {
        let [first, ..] = self.0;
        // What is behind the first 64 bits makes no difference to a number of 53.
        (first as f64 + 1.0) / (u64::MAX as f64 + 1.0)
    }

    /// That part of the whole space.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part between 0 and 1 of what fits is no less than 0 and fits"
    )]
    pub fn of_part(part: f64) -> Self {
        let first = (part.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self([first, u64::MAX, u64::MAX, u64::MAX])
    }

    /// Zero bits at the front.
    pub fn zeros(&self) -> u32 {
        let mut zeros = 0;
        for word in self.0 {
            zeros += word.leading_zeros();
            if word != 0 {
                break;
            }
        }
        zeros
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, ..] = self.0;
        write!(out, "{:08x}…", first >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_hash_of_what_is_sent() {
        // Of the empty text, as FIPS 180-4's examples have it.
        let empty = Place::of(b"");
        assert_eq!(format!("{empty:?}"), "e3b0c442…");
        let peer = PeerId::random();
        assert_eq!(Place::of_peer(&peer), Place::of(&peer.to_bytes()));
    }

    #[test]
    fn bits_are_set_where_they_are_meant() {
        let zero = Place([0; 4]);
        assert_eq!(zero.with_bits(0, 3, 0b101), Place([0b101 << 61, 0, 0, 0]));
        assert_eq!(zero.with_bits(61, 3, 0b1110), Place([0b110, 0, 0, 0]));
        let ones = Place([u64::MAX; 4]);
        let changed = ones.with_bits(4, 4, 0);
        assert_eq!(changed, Place([!(0xf << 56), u64::MAX, u64::MAX, u64::MAX]));
        assert_eq!(zero.with_bits(62, 3, 7), zero);
    }

    #[test]
    fn distances_are_parts_of_the_space() {
        let far = Place([0; 4]).distance(&Place([1 << 63, 0, 0, 0]));
        assert!((far.part() - 0.5).abs() < 1e-9);
        for part in [1.0, 0.3, 1e-6] {
            assert!((Distance::of_part(part).part() - part).abs() < 1e-9);
        }
    }

    #[test]
    fn what_differs_later_is_nearer() {
        let place = |first: u8, last: u8| Place([u64::from(first) << 56, 0, 0, u64::from(last)]);
        let zero = place(0, 0);
        assert_eq!(zero.shared_bits(&zero), 256);
        assert_eq!(zero.shared_bits(&place(0x80, 0)), 0);
        assert_eq!(zero.shared_bits(&place(1, 0xff)), 7);
        assert_eq!(zero.shared_bits(&place(0, 1)), 255);
        assert!(zero.distance(&place(0, 0xff)) < zero.distance(&place(1, 0)));
        assert_eq!(
            place(3, 0).distance(&place(1, 0)),
            place(1, 0).distance(&place(3, 0))
        );
    }
}
