//! What a want is filed under: few bytes, cheap to clone, ordered so that all names of one content
//! lie side by side.
//!
//! A `Cid` here has room for a digest of 128 bytes and is copied whole; tables of thousands of
//! wants, filled by strangers, hold a [`Key`] instead.

use cairn_store::Cid;
use cairn_store::cid::{Multihash, Version};
use std::fmt;
use std::sync::Arc;

/// Bytes of a multihash, or of a multihash followed by version and codec.
///
/// A multihash tells its own length, so a key that starts with one is either it or a name of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(Arc<[u8]>);

impl Key {
    /// The content, whatever its codec and version: how we file what we want.
    pub(super) fn content(cid: &Cid) -> Self {
        Self(cid.hash().to_bytes().into())
    }

    /// The exact CID: how we file what others want, since the answer must bear that name.
    pub(super) fn name(cid: &Cid) -> Self {
        let hash = cid.hash();
        let mut bytes = Vec::with_capacity(hash.encoded_len() + NAME_BYTES);
        // Writing to memory does not fail.
        drop(hash.write(&mut bytes));
        bytes.push(u8::from(cid.version() != Version::V0));
        bytes.extend(cid.codec().to_be_bytes());
        Self(bytes.into())
    }

    /// Whether this is a name of `content`.
    pub(super) fn names(&self, content: &Key) -> bool {
        self.0.starts_with(&content.0)
    }

    /// The CID back from a name; `None` for a key made by [`Key::content`].
    pub(super) fn cid(&self) -> Option<Cid> {
        let (front, codec) = self.0.split_last_chunk::<8>()?;
        let (version, hash) = front.split_last()?;
        let hash = Multihash::from_bytes(hash).ok()?;
        let version = if *version == 0 {
            Version::V0
        } else {
            Version::V1
        };
        Cid::new(version, u64::from_be_bytes(*codec), hash).ok()
    }
}

impl Key {
    /// Its last bytes as a number: the end of a hash if this is [`Key::content`].
    pub(super) fn tail(&self) -> u64 {
        tail(&self.0)
    }
}

/// The last bytes as a number.
pub(super) fn tail(bytes: &[u8]) -> u64 {
    let last = bytes.iter().rev().take(size_of::<u64>());
    last.fold(0, |sum, byte| (sum << u8::BITS) | u64::from(*byte))
}

/// What a name has behind its multihash: version and codec.
const NAME_BYTES: usize = 1 + size_of::<u64>();

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(12) {
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::cid;

    #[test]
    fn a_name_gives_its_cid_back_and_lies_under_its_content() {
        let v0 = cid::parse("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG").unwrap();
        for cid in [v0, cid::to_v1(&v0), Cid::new_v1(cid::RAW, *v0.hash())] {
            assert_eq!(Key::name(&cid).cid(), Some(cid));
            assert!(Key::name(&cid).names(&Key::content(&v0)));
        }
        let other = cid::parse("bafkqaaa").unwrap();
        assert!(!Key::name(&other).names(&Key::content(&v0)));
        assert_eq!(Key::content(&v0).cid(), None);
    }
}
