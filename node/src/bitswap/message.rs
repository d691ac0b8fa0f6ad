//! Bitswap messages: what peers say to each other, in every version of the protocol.
//!
//! What stands here is what is said; `codec.rs` reads and writes it, `wire.rs` knows the fields that
//! it is made of. Nothing is allocated by a length that a stranger wrote, lists end at their limits,
//! and no block is copied.

use crate::protobuf::FieldError;
use bytes::Bytes;
use cairn_store::Cid;
use cairn_store::block::Prefix;
use cairn_store::cid::HashKind;

mod codec;

/// The protocol's versions, newest first, as they are negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HAVE, DONT_HAVE, want-have.
    V1_2,
    /// Blocks with the prefix of their CID.
    V1_1,
    /// Bare blocks, all dag-pb under SHA2-256.
    V1_0,
    /// The same before versions had names.
    V0,
}

impl Version {
    /// What we speak, in the order of preference.
    pub(crate) const ALL: [Self; 4] = [Self::V1_2, Self::V1_1, Self::V1_0, Self::V0];

    /// Whether the other end knows want-have, HAVE and DONT_HAVE.
    pub(crate) fn has_presences(self) -> bool {
        self == Self::V1_2
    }
}

impl AsRef<str> for Version {
    fn as_ref(&self) -> &str {
        match self {
            Self::V1_2 => "/ipfs/bitswap/1.2.0",
            Self::V1_1 => "/ipfs/bitswap/1.1.0",
            Self::V1_0 => "/ipfs/bitswap/1.0.0",
            Self::V0 => "/ipfs/bitswap",
        }
    }
}

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) scope: Scope,
    pub(super) wants: Vec<Entry>,
    pub(super) blocks: Vec<Payload>,
    pub(super) presences: Vec<Presence>,
    /// How many bytes the sender has still queued for us.
    pub(super) pending_bytes: i32,
    /// What was there but cannot be used: CIDs too long or of unknown hashes, blocks too large,
    /// entries beyond a limit.
    pub(super) skipped: usize,
}

/// What a message's wants are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Scope {
    /// What changed since the message before.
    #[default]
    Change,
    /// All there are: what was wanted before is not any more.
    Whole,
}

/// A line of a want list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cid: Cid,
    pub(super) change: Change,
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Want {
        priority: i32,
        kind: WantKind,
        absence: Absence,
    },
    Cancel,
}

/// Whether the block itself is wanted, or to hear who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantKind {
    Block,
    Have,
}

/// What to do where the block is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    Tell,
    Silent,
}

/// A block as sent: its bytes, and the CID but for its digest. The bytes may be more than a block may
/// have: `verify.rs` finds out which block that would be, so that whoever waits for it hears why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) prefix: Prefix,
    pub(super) data: Bytes,
}

/// An answer without a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Presence {
    pub(super) cid: Cid,
    pub(super) kind: PresenceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PresenceKind {
    Have,
    DontHave,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a message of {0} bytes is larger than the limit of {MESSAGE_BYTES_MAX}")]
    TooLarge(u64),
    #[error("the length of a message is no minimal varint")]
    Length,
    #[error(transparent)]
    Fields(#[from] FieldError),
}

impl Message {
    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.scope == Scope::Change
            && self.wants.is_empty()
            && self.blocks.is_empty()
            && self.presences.is_empty()
    }
}

/// How many lines a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) wants: usize,
    pub(super) presences: usize,
}

impl Lines {
    /// How many of them are read.
    pub(super) fn read(self) -> usize {
        self.wants.min(MESSAGE_WANTS_MAX) + self.presences.min(MESSAGE_PRESENCES_MAX)
    }
}

/// The prefix under which a block of this CID is sent; `None` for a hash that is not ours, or that is not whole: which
/// part of it the receiver is to compare has no place in ours.
pub(super) fn prefix_of(cid: &Cid) -> Option<Prefix> {
    let hash = HashKind::from_code(cid.hash().code())?;
    let is_whole = hash.digest_bytes() == Some(cid.hash().digest().len());
    is_whole.then_some(Prefix {
        version: cid.version(),
        codec: cid.codec(),
        hash,
    })
}

/// Longest message taken or sent: what every implementation takes.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Most lines of a want list that are read.
pub(super) const MESSAGE_WANTS_MAX: usize = 4096;
/// Most blocks that are read.
pub(super) const MESSAGE_BLOCKS_MAX: usize = 16_384;
/// Most presences that are read.
pub(super) const MESSAGE_PRESENCES_MAX: usize = 4096;
