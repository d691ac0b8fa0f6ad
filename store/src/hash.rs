//! Many blocks at once: the only place that picks an implementation of a hash.
//!
//! One SHA-256 cannot be vectorised, sixteen can: where the processor has no SHA instructions, a
//! batch of independent messages runs lane by lane at several times the speed of one after the
//! other. So whoever has many blocks hands them over together.

use crate::cid::{CidError, HashKind, Multihash};
use sha3::digest::{ExtendableOutput, Update, XofReader};
use sha3::{
    Digest, Keccak224, Keccak256, Keccak384, Keccak512, Sha3_224, Sha3_256, Sha3_384, Sha3_512,
    Shake256,
};

/// Hashes one message.
pub fn digest(hash: HashKind, data: &[u8]) -> Result<Multihash, CidError> {
    let legacy_sha1 = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    match hash {
        HashKind::Sha2_256 => wrap(hash, sha2_256(data).as_ref()),
        HashKind::Sha2_512 => wrap(
            hash,
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, data).as_ref(),
        ),
        HashKind::Blake3 => wrap(hash, blake3::hash(data).as_bytes()),
        HashKind::Blake2b(bytes) => wrap(
            hash,
            blake2b_simd::Params::new()
                .hash_length(bytes.into())
                .hash(data)
                .as_bytes(),
        ),
        HashKind::Blake2s(bytes) => wrap(
            hash,
            blake2s_simd::Params::new()
                .hash_length(bytes.into())
                .hash(data)
                .as_bytes(),
        ),
        HashKind::Identity => wrap(hash, data),
        HashKind::Sha1 => wrap(hash, aws_lc_rs::digest::digest(legacy_sha1, data).as_ref()),
        HashKind::DoubleSha2_256 => wrap(hash, sha2_256(sha2_256(data).as_ref()).as_ref()),
        HashKind::Sha3_224 => wrap(hash, &Sha3_224::digest(data)),
        HashKind::Sha3_256 => wrap(hash, &Sha3_256::digest(data)),
        HashKind::Sha3_384 => wrap(hash, &Sha3_384::digest(data)),
        HashKind::Sha3_512 => wrap(hash, &Sha3_512::digest(data)),
        HashKind::Shake256 => wrap(hash, &shake_256(data)),
        HashKind::Keccak224 => wrap(hash, &Keccak224::digest(data)),
        HashKind::Keccak256 => wrap(hash, &Keccak256::digest(data)),
        HashKind::Keccak384 => wrap(hash, &Keccak384::digest(data)),
        HashKind::Keccak512 => wrap(hash, &Keccak512::digest(data)),
    }
}

/// Whether `asked`, the hash inside a CID, is that of `data`, whose whole digest is `whole`. It may be cut, and BLAKE3's
/// may go on.
pub(crate) fn is_of(asked: &Multihash, whole: &Multihash, data: &[u8]) -> bool {
    let digest = asked.digest();
    if asked.code() != whole.code() {
        return false;
    }
    if asked.code() == HashKind::Blake3.code() && digest.len() > whole.digest().len() {
        let mut longer = vec![0; digest.len()];
        blake3::Hasher::new()
            .update(data)
            .finalize_xof()
            .fill(&mut longer);
        return longer == digest;
    }
    let is_identity = asked.code() == HashKind::Identity.code();
    whole.digest().starts_with(digest) && (!is_identity || asked == whole)
}

fn shake_256(data: &[u8]) -> [u8; 64] {
    let mut hasher = Shake256::default();
    hasher.update(data);
    let mut out = [0; 64];
    hasher.finalize_xof().read(&mut out);
    out
}

/// Hashes many messages, in order. Batches of [`BATCH`] messages of like length are fastest.
pub fn digest_many(hash: HashKind, messages: &[&[u8]]) -> Result<Vec<Multihash>, CidError> {
    if hash != HashKind::Sha2_256 || messages.len() < LANES_WORTH_FILLING {
        return messages
            .iter()
            .map(|message| digest(hash, message))
            .collect();
    }
    let mut digests = vec![[0; 32]; messages.len()];
    tape_sha256::hash_many(messages, &mut digests);
    digests.iter().map(|digest| wrap(hash, digest)).collect()
}

fn sha2_256(data: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data)
}

fn wrap(hash: HashKind, digest: &[u8]) -> Result<Multihash, CidError> {
    Multihash::wrap(hash.code(), digest).map_err(|_| CidError::DigestLength {
        hash,
        bytes: digest.len(),
    })
}

/// How many messages fill every lane of the widest kernel.
pub const BATCH: usize = 16;

/// Below this many messages the lanes stay so empty that one after the other is faster.
const LANES_WORTH_FILLING: usize = 4;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    /// Lengths around every padding boundary, and several blocks long.
    const LENGTHS: [usize; 14] = [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000];

    fn message(length: usize, seed: usize) -> Vec<u8> {
        (0..length)
            .map(|at| ((at * 31 + seed * 7) % 251) as u8)
            .collect()
    }

    #[test]
    fn every_batch_width_agrees_with_the_reference() {
        for width in 0..=2 * BATCH + 1 {
            for length in LENGTHS {
                let messages: Vec<_> = (0..width)
                    .map(|seed| message(length + seed % 3, seed))
                    .collect();
                let views: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
                let ours = digest_many(HashKind::Sha2_256, &views).unwrap();
                for (view, ours) in views.iter().zip(ours) {
                    assert_eq!(ours.digest(), sha2::Sha256::digest(view).as_slice());
                    assert_eq!(ours.code(), 0x12);
                }
            }
        }
    }

    #[test]
    fn lanes_of_very_different_lengths_agree_with_the_reference() {
        let messages: Vec<_> = LENGTHS
            .iter()
            .map(|length| message(length * 17, 1))
            .collect();
        let views: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        for (view, ours) in views
            .iter()
            .zip(digest_many(HashKind::Sha2_256, &views).unwrap())
        {
            assert_eq!(ours.digest(), sha2::Sha256::digest(view).as_slice());
        }
    }

    #[test]
    fn known_answers_of_the_other_hashes() {
        let hex = |hash| data_encoding::HEXLOWER.encode(digest(hash, b"abc").unwrap().digest());
        assert_eq!(
            hex(HashKind::Sha2_512),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
        assert_eq!(
            hex(HashKind::Blake3),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
        assert_eq!(
            hex(HashKind::Blake2b(32)),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
        );
        assert_eq!(hex(HashKind::Identity), "616263");
    }

    /// Made with Python's hashlib, but for Keccak: Keccak's authors' and Ethereum's known answers for the empty message.
    #[test]
    fn known_answers_of_what_other_nodes_may_use() {
        let hex = |hash, data: &[u8]| {
            data_encoding::HEXLOWER.encode(digest(hash, data).unwrap().digest())
        };
        for (hash, answer) in [
            (HashKind::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                HashKind::DoubleSha2_256,
                "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358",
            ),
            (
                HashKind::Sha3_224,
                "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
            ),
            (
                HashKind::Sha3_256,
                "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
            ),
            (
                HashKind::Sha3_384,
                "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
            ),
            (
                HashKind::Sha3_512,
                "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
            ),
            (
                HashKind::Shake256,
                "483366601360a8771c6863080cc4114d8db44530f8f1e1ee4f94ea37e78b5739d5a15bef186a5386c75744c0527e1faa9f8726e462a12a4feb06bd8801e751e4",
            ),
            (
                HashKind::Blake2b(20),
                "384264f676f39536840523f284921cdc68b6846b",
            ),
            (
                HashKind::Blake2b(33),
                "f7bb660ec10c1b537a53ff432791f8a34c09e9ecfca84288bba1ee39afec290d63",
            ),
            (
                HashKind::Blake2b(64),
                "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
            ),
            (
                HashKind::Blake2s(20),
                "5ae3b99be29b01834c3b508521ede60438f8de17",
            ),
            (
                HashKind::Blake2s(31),
                "6ffb901930ebaf1d3cabe0b60c20de3bc9dd26269325629f1671304fe6bb26",
            ),
            (
                HashKind::Blake2s(32),
                "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
            ),
        ] {
            assert_eq!(hex(hash, b"abc"), answer, "{hash}");
        }
        for (hash, answer) in [
            (
                HashKind::Keccak224,
                "f71837502ba8e10837bdd8d365adb85591895602fc552b48b7390abd",
            ),
            (
                HashKind::Keccak256,
                "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
            ),
            (
                HashKind::Keccak384,
                "2c23146a63a29acf99e73b88f8c24eaa7dc60aa771780ccc006afbfa8fe2479b\
                 2dd2b21362337441ac12b515911957ff",
            ),
            (
                HashKind::Keccak512,
                "0eab42de4c3ceb9235fc91acffe746b29c29a8c366b7c60e4e67c466f36a4304\
                 c00fa9caf9d87976ba469bcbe06713b435f091ef2769fb160cdab33d3670680e",
            ),
        ] {
            assert_eq!(hex(hash, b""), answer, "{hash}");
        }
    }

    #[test]
    fn a_digest_may_be_cut_and_that_of_blake3_may_go_on() {
        let of = |hash: HashKind, asked: &[u8]| {
            let asked = Multihash::wrap(hash.code(), asked).unwrap();
            is_of(&asked, &digest(hash, b"abc").unwrap(), b"abc")
        };
        let whole = digest(HashKind::Sha2_256, b"abc").unwrap();
        assert!(of(HashKind::Sha2_256, &whole.digest()[..20]));
        assert!(!of(HashKind::Sha2_256, &whole.digest()[1..21]));
        assert!(!of(HashKind::Sha2_512, &whole.digest()[..20]));
        let mut long = [0; 100];
        let mut blake3 = blake3::Hasher::new().update(b"abc").finalize_xof();
        blake3.fill(&mut long);
        for bytes in [20, 32, 33, 100] {
            assert!(of(HashKind::Blake3, &long[..bytes]), "{bytes}");
        }
        long[99] ^= 1;
        assert!(!of(HashKind::Blake3, &long));
        assert!(of(HashKind::Identity, b"abc"));
        assert!(!of(HashKind::Identity, b"ab"));
    }

    #[test]
    fn an_identity_of_too_many_bytes_is_refused() {
        assert!(digest(HashKind::Identity, &[0; 129]).is_err());
    }
}
