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

    /// How far it is from another.
    pub fn distance(&self, other: &Self) -> Distance {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Distance([a ^ e, b ^ f, c ^ g, d ^ h])
    }

    /// How many bits at the front are the same: 256 for the same place.
    pub fn shared_bits(&self, other: &Self) -> u32 {
        self.distance(other).zeros()
    }
}

impl Distance {
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
