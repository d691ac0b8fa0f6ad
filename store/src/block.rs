//! A block: bytes that were checked against their CID.
//!
//! Foreign bytes become a [`Block`] only through [`Block::verify`] or by being hashed here, so
//! whoever holds one need not check it again. The store, which checked its blocks on the way in,
//! reads them back by checksum.

use crate::cid::{self, Cid, CidError, HashKind, Multihash};
use crate::hash;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Largest block that is stored, sent or taken: what every peer must support.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// Bytes and the CID they hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

/// How a new block is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// CID version 0 or 1. Version 0 is written only for dag-pb under SHA2-256, else 1.
    pub version: cid::Version,
    /// What the bytes are.
    pub codec: u64,
    /// How they are hashed.
    pub hash: HashKind,
}

/// Why bytes are no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes hash to something else.
    #[error("the bytes given for {cid} do not hash to it")]
    Mismatch {
        /// What was asked for.
        cid: Cid,
    },
    /// More bytes than a block may have.
    #[error("a block of {bytes} bytes is larger than the limit of {BLOCK_BYTES_MAX}")]
    TooLarge {
        /// The length found.
        bytes: usize,
    },
    /// The CID itself is not used here.
    #[error(transparent)]
    Cid(#[from] CidError),
}

impl Block {
    /// Takes foreign bytes as the block `cid`, if they are.
    pub fn verify(cid: Cid, data: Bytes) -> Result<Self, BlockError> {
        let hash = admit(&cid, &data)?;
        settle(cid, hash::digest(hash, &data)?, data)
    }

    /// Takes many foreign blocks, hashed in batches; answers in the order asked.
    pub fn verify_many(blocks: Vec<(Cid, Bytes)>) -> Vec<Result<Self, BlockError>> {
        let mut digests: Vec<Option<Result<Multihash, BlockError>>> = vec![None; blocks.len()];
        let mut by_hash: BTreeMap<u64, (HashKind, Vec<usize>)> = BTreeMap::new();
        for (at, ((cid, data), slot)) in blocks.iter().zip(digests.iter_mut()).enumerate() {
            match admit(cid, data) {
                Ok(hash) => by_hash
                    .entry(hash.code())
                    .or_insert((hash, Vec::new()))
                    .1
                    .push(at),
                Err(error) => *slot = Some(Err(error)),
            }
        }
        for (hash, places) in by_hash.into_values() {
            let data: Vec<&[u8]> = places
                .iter()
                .filter_map(|at| blocks.get(*at))
                .map(|(_, data)| &data[..])
                .collect();
            let hashed = match hash::digest_many(hash, &data) {
                Ok(hashed) => hashed.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(BlockError::from(error)); places.len()],
            };
            for (at, digest) in places.into_iter().zip(hashed) {
                if let Some(slot) = digests.get_mut(at) {
                    *slot = Some(digest);
                }
            }
        }
        let mismatch = |cid| Err(BlockError::Mismatch { cid });
        blocks
            .into_iter()
            .zip(digests)
            .map(|((cid, data), digest)| match digest {
                Some(Ok(digest)) => settle(cid, digest, data),
                Some(Err(error)) => Err(error),
                None => mismatch(cid),
            })
            .collect()
    }

    /// Names new bytes.
    pub fn new(prefix: Prefix, data: Bytes) -> Result<Self, BlockError> {
        within_limit(&data)?;
        let digest = hash::digest(prefix.hash, &data)?;
        Ok(Self {
            cid: prefix.name(digest),
            data,
        })
    }

    /// Names many new blocks, hashed as one batch.
    pub fn new_many(prefix: Prefix, data: Vec<Bytes>) -> Result<Vec<Self>, BlockError> {
        for bytes in &data {
            within_limit(bytes)?;
        }
        let views: Vec<&[u8]> = data.iter().map(|bytes| &bytes[..]).collect();
        let digests = hash::digest_many(prefix.hash, &views)?;
        Ok(data
            .into_iter()
            .zip(digests)
            .map(|(data, digest)| Self {
                cid: prefix.name(digest),
                data,
            })
            .collect())
    }

    /// The block that an identity CID carries in itself; `None` for every other CID.
    pub fn from_identity(cid: &Cid) -> Option<Self> {
        cid::is_identity(cid).then(|| Self {
            cid: *cid,
            data: Bytes::copy_from_slice(cid.hash().digest()),
        })
    }

    /// The same bytes under another CID of the same multihash (another codec or version).
    pub fn renamed(&self, cid: Cid) -> Option<Self> {
        (cid.hash() == self.cid.hash()).then(|| Self {
            cid,
            data: self.data.clone(),
        })
    }

    /// What the store wrote and read back whole.
    pub(crate) fn trusted(cid: Cid, data: Bytes) -> Self {
        Self { cid, data }
    }

    /// The name.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Name and bytes, taken apart.
    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.data)
    }
}

impl Prefix {
    /// What bytes are called, however many they are: to say which block is too large.
    pub fn name_of(self, data: &[u8]) -> Result<Cid, CidError> {
        Ok(self.name(hash::digest(self.hash, data)?))
    }

    fn name(self, digest: Multihash) -> Cid {
        let plain = self.codec == cid::DAG_PB && self.hash == HashKind::Sha2_256;
        match Cid::new_v0(digest) {
            Ok(v0) if plain && self.version == cid::Version::V0 => v0,
            _ => Cid::new_v1(self.codec, digest),
        }
    }
}

fn admit(cid: &Cid, data: &Bytes) -> Result<HashKind, BlockError> {
    within_limit(data)?;
    cid::check(cid)?;
    let code = cid.hash().code();
    HashKind::from_code(code).ok_or_else(|| CidError::UnknownHash(code).into())
}

fn settle(cid: Cid, digest: Multihash, data: Bytes) -> Result<Block, BlockError> {
    if hash::is_of(cid.hash(), &digest, &data) {
        Ok(Block { cid, data })
    } else {
        Err(BlockError::Mismatch { cid })
    }
}

fn within_limit(data: &Bytes) -> Result<(), BlockError> {
    if data.len() > BLOCK_BYTES_MAX {
        return Err(BlockError::TooLarge { bytes: data.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: Prefix = Prefix {
        version: cid::Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };

    #[test]
    fn refuses_bytes_that_do_not_hash_to_their_cid() {
        let block = Block::new(RAW, Bytes::from_static(b"right")).unwrap();
        let wrong = Block::verify(*block.cid(), Bytes::from_static(b"wrong"));
        assert_eq!(wrong, Err(BlockError::Mismatch { cid: *block.cid() }));
    }

    #[test]
    fn a_batch_names_the_one_that_lies() {
        let honest: Vec<_> = (0..20u8)
            .map(|at| Block::new(RAW, Bytes::from(vec![at; 100])).unwrap())
            .collect();
        let mut asked: Vec<_> = honest.iter().cloned().map(Block::into_parts).collect();
        asked[7].1 = Bytes::from_static(b"not seven");
        let answers = Block::verify_many(asked);
        for (at, (answer, block)) in answers.iter().zip(&honest).enumerate() {
            if at == 7 {
                assert_eq!(*answer, Err(BlockError::Mismatch { cid: *block.cid() }));
            } else {
                assert_eq!(answer.as_ref(), Ok(block));
            }
        }
    }

    #[test]
    fn a_block_of_the_limit_passes_and_one_byte_more_does_not() {
        assert!(Block::new(RAW, Bytes::from(vec![0; BLOCK_BYTES_MAX])).is_ok());
        assert_eq!(
            Block::new(RAW, Bytes::from(vec![0; BLOCK_BYTES_MAX + 1])),
            Err(BlockError::TooLarge {
                bytes: BLOCK_BYTES_MAX + 1
            })
        );
    }

    #[test]
    fn version_0_is_only_for_dag_pb_under_sha2_256() {
        let v0 = Prefix {
            version: cid::Version::V0,
            codec: cid::DAG_PB,
            ..RAW
        };
        let data = || Bytes::from_static(b"x");
        assert_eq!(
            Block::new(v0, data()).unwrap().cid().version(),
            cid::Version::V0
        );
        for other in [
            Prefix {
                codec: cid::RAW,
                ..v0
            },
            Prefix {
                hash: HashKind::Blake3,
                ..v0
            },
            Prefix {
                version: cid::Version::V1,
                ..v0
            },
        ] {
            assert_eq!(
                Block::new(other, data()).unwrap().cid().version(),
                cid::Version::V1
            );
        }
    }

    #[test]
    fn identity_carries_its_own_block() {
        let cid = cid::parse("bafkqaaa").unwrap();
        assert_eq!(Block::from_identity(&cid).unwrap().data(), &Bytes::new());
        assert_eq!(
            Block::from_identity(Block::new(RAW, Bytes::new()).unwrap().cid()),
            None
        );
    }
}
