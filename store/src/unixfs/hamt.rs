//! The shape of a HAMT folder: which name belongs into which bucket, and how a shard says so.
//!
//! A name's hash is the first word of MurmurHash3 x64 128, written big-endian. Each level of the
//! tree takes as many of its bits, from the first on, as number a bucket. A shard lists its used
//! buckets as a bitfield and in the names of its links: a prefix in upper-case hexadecimal, then
//! the entry's name, or nothing where the link leads to a shard one level down.

use super::format::{Message, Type};
use crate::dag::pb::PbNode;

/// The multicodec code of the hash, as shards have it.
pub(crate) const HASH_TYPE: u64 = 0x22;
/// More buckets than this are a way to make others allocate.
pub(crate) const FANOUT_MAX: usize = 1024;

/// How many buckets, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fanout {
    buckets: usize,
}

impl Fanout {
    /// A power of two between 8 and [`FANOUT_MAX`].
    pub(crate) fn new(buckets: usize) -> Option<Self> {
        let fits = buckets.is_power_of_two() && (8..=FANOUT_MAX).contains(&buckets);
        fits.then_some(Self { buckets })
    }

    pub(crate) fn buckets(self) -> usize {
        self.buckets
    }

    /// How many bits of the hash a level takes.
    fn bits(self) -> u32 {
        self.buckets.trailing_zeros()
    }

    /// How many levels the hash lasts for.
    pub(crate) fn levels(self) -> usize {
        (u64::BITS / self.bits()) as usize
    }

    /// The bucket of `hash` at `level`, the root's being 0; `None` where the hash is used up.
    pub(crate) fn bucket(self, hash: u64, level: usize) -> Option<usize> {
        if level >= self.levels() {
            return None;
        }
        let taken = u32::try_from(level + 1).ok()? * self.bits();
        let bits = hash >> (u64::BITS - taken);
        usize::try_from(bits & (self.buckets as u64 - 1)).ok()
    }

    /// How many letters the prefix of a link's name has.
    pub(crate) fn prefix_len(self) -> usize {
        let digits = |number: usize| number.ilog(16) as usize + 1;
        digits(self.buckets - 1)
    }

    pub(crate) fn prefix(self, bucket: usize) -> String {
        format!("{bucket:0width$X}", width = self.prefix_len())
    }

    /// The bitfield of these buckets: an integer, big-endian, without leading zeros.
    pub(crate) fn bitfield(self, used: impl Iterator<Item = usize>) -> Vec<u8> {
        let mut bits = vec![0_u8; self.buckets / 8];
        let last = bits.len() - 1;
        for bucket in used {
            if let Some(byte) = last.checked_sub(bucket / 8).and_then(|at| bits.get_mut(at)) {
                *byte |= 1 << (bucket % 8);
            }
        }
        let zeros = bits.iter().take_while(|byte| **byte == 0).count();
        bits.split_off(zeros)
    }
}

/// A shard as it was read, checked: every link has its bucket.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) fanout: Fanout,
    /// The links by rising bucket.
    pub(crate) slots: Vec<Slot>,
}

/// A used bucket.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) bucket: usize,
    /// The entry's name; `None` where the link leads to a shard.
    pub(crate) name: Option<String>,
    pub(crate) cid: crate::cid::Cid,
    pub(crate) tsize: u64,
}

impl Shard {
    /// Reads a shard out of its node and message.
    pub(crate) fn read(node: PbNode, message: &Message) -> Result<Self, String> {
        if message.kind != Type::HamtShard {
            return Err("a part of a HAMT that is no shard".to_owned());
        }
        match message.hash_type {
            Some(HASH_TYPE) => {}
            other => return Err(format!("a shard with the unknown hash {other:?}")),
        }
        let fanout = message
            .fanout
            .and_then(|fanout| usize::try_from(fanout).ok())
            .and_then(Fanout::new)
            .ok_or_else(|| {
                let found = message.fanout.unwrap_or_default();
                format!("a shard with a fanout of {found}; a power of two from 8 to 1024 is needed")
            })?;
        let bits = message.data.as_deref().unwrap_or_default();
        let buckets = used(fanout, bits)?;
        if buckets.len() != node.links.len() {
            let (said, found) = (buckets.len(), node.links.len());
            return Err(format!(
                "a shard whose bitfield has {said} buckets for {found} links"
            ));
        }
        let mut slots = Vec::with_capacity(buckets.len());
        for (bucket, link) in buckets.into_iter().zip(node.links) {
            let label = link.name.unwrap_or_default();
            let name = label
                .strip_prefix(&fanout.prefix(bucket))
                .ok_or_else(|| format!("a shard whose bucket {bucket} is labelled {label:?}"))?;
            slots.push(Slot {
                bucket,
                name: (!name.is_empty()).then(|| name.to_owned()),
                cid: link.cid,
                tsize: link.tsize.unwrap_or(0),
            });
        }
        Ok(Self { fanout, slots })
    }

    pub(crate) fn slot(&self, bucket: usize) -> Option<&Slot> {
        let at = self.slots.binary_search_by_key(&bucket, |slot| slot.bucket);
        self.slots.get(at.ok()?)
    }
}

/// The buckets whose bits are set, rising.
fn used(fanout: Fanout, bits: &[u8]) -> Result<Vec<usize>, String> {
    let mut used = Vec::new();
    for (place, byte) in bits.iter().rev().enumerate() {
        for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
            let bucket = place * 8 + bit;
            if bucket >= fanout.buckets() {
                return Err("a shard whose bitfield is wider than its fanout".to_owned());
            }
            used.push(bucket);
        }
    }
    Ok(used)
}

/// The first word of MurmurHash3 x64 128 with seed 0.
pub(crate) fn hash_name(name: &str) -> u64 {
    let data = name.as_bytes();
    let (mut one, mut two) = (0_u64, 0_u64);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        let (low, high) = block.split_at(8);
        one ^= stir_one(word(low));
        one = one.rotate_left(27).wrapping_add(two);
        one = one.wrapping_mul(5).wrapping_add(0x52dc_e729);
        two ^= stir_two(word(high));
        two = two.rotate_left(31).wrapping_add(one);
        two = two.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    let (low, high) = tail.split_at(tail.len().min(8));
    // A word of zero stirs to zero.
    two ^= stir_two(word(high));
    one ^= stir_one(word(low));
    let length = data.len() as u64;
    one ^= length;
    two ^= length;
    one = one.wrapping_add(two);
    two = two.wrapping_add(one);
    finish(one).wrapping_add(finish(two))
}

fn stir_one(word: u64) -> u64 {
    word.wrapping_mul(ONE).rotate_left(31).wrapping_mul(TWO)
}

fn stir_two(word: u64) -> u64 {
    word.wrapping_mul(TWO).rotate_left(33).wrapping_mul(ONE)
}

fn finish(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

/// Up to eight bytes as a little-endian number.
fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .enumerate()
        .fold(0, |word, (at, byte)| word | u64::from(*byte) << (8 * at))
}

const ONE: u64 = 0x87c3_7b91_1142_53d5;
const TWO: u64 = 0x4cf5_ad43_2745_937f;

#[cfg(test)]
mod tests {
    use super::*;

    /// First words as github.com/spaolacci/murmur3 v1.1.0 gives them.
    #[test]
    fn murmur_known_answers() {
        assert_eq!(hash_name(""), 0);
        assert_eq!(hash_name("hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(hash_name("hello, world"), 0x342f_ac62_3a5e_bc8e);
        assert_eq!(
            hash_name("19 Jan 2038 at 3:14:07 AM"),
            0xb89e_5988_b737_affc
        );
        assert_eq!(
            hash_name("The quick brown fox jumps over the lazy dog."),
            0xcd99_481f_9ee9_02c9
        );
    }

    #[test]
    fn buckets_take_bits_from_the_first_on() {
        let hash = 0x0123_4567_89ab_cdef;
        let bytes = Fanout::new(256).unwrap();
        assert_eq!(bytes.bucket(hash, 0), Some(0x01));
        assert_eq!(bytes.bucket(hash, 7), Some(0xef));
        assert_eq!(bytes.bucket(hash, 8), None);
        let octal = Fanout::new(8).unwrap();
        assert_eq!(octal.bucket(hash, 2), Some(0b010));
        assert_eq!(octal.bucket(hash, 20), Some(0b111));
        assert_eq!(octal.bucket(hash, 21), None);
    }

    #[test]
    fn prefixes_have_one_width() {
        for (fanout, bucket, prefix) in
            [(8, 7, "7"), (16, 10, "A"), (256, 5, "05"), (1024, 5, "005")]
        {
            assert_eq!(Fanout::new(fanout).unwrap().prefix(bucket), prefix);
        }
    }

    #[test]
    fn a_bitfield_reads_back_without_its_zeros() {
        let fanout = Fanout::new(256).unwrap();
        for buckets in [vec![0], vec![3, 8, 255], vec![], vec![15]] {
            let bits = fanout.bitfield(buckets.iter().copied());
            assert_ne!(bits.first(), Some(&0));
            assert_eq!(used(fanout, &bits), Ok(buckets));
        }
        assert_eq!(fanout.bitfield([8].into_iter()), [1, 0]);
    }

    #[test]
    fn odd_fanouts_are_refused() {
        for fanout in [0, 1, 2, 3, 4, 12, 255, 2048, 1 << 31] {
            assert_eq!(Fanout::new(fanout), None, "{fanout}");
        }
    }
}
