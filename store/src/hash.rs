//! Many blocks at once: the only place that picks an implementation of a hash.
//!
//! One SHA-256 cannot be vectorised, sixteen can: where the processor has no SHA instructions, a
//! batch of independent messages runs lane by lane at several times the speed of one after the
//! other. So whoever has many blocks hands them over together.

use crate::cid::{CidError, HashKind, Multihash};

/// Hashes one message.
pub fn digest(hash: HashKind, data: &[u8]) -> Result<Multihash, CidError> {
    match hash {
        HashKind::Sha2_256 => wrap(hash, sha2_256(data).as_ref()),
        HashKind::Sha2_512 => wrap(
            hash,
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, data).as_ref(),
        ),
        HashKind::Blake3 => wrap(hash, blake3::hash(data).as_bytes()),
        HashKind::Blake2b256 => wrap(
            hash,
            blake2b_simd::Params::new()
                .hash_length(32)
                .hash(data)
                .as_bytes(),
        ),
        HashKind::Identity => wrap(hash, data),
    }
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
    use sha2::Digest;

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
            hex(HashKind::Blake2b256),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
        );
        assert_eq!(hex(HashKind::Identity), "616263");
    }

    #[test]
    fn an_identity_of_too_many_bytes_is_refused() {
        assert!(digest(HashKind::Identity, &[0; 129]).is_err());
    }
}
