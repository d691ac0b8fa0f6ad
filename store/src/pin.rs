//! What must stay. (signatures; being written)

use crate::cid::Cid;
use crate::sink::PutError;
use crate::unixfs::read::ReadError;

/// How far a pin reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PinMode {
    /// The block and everything below it.
    Recursive,
    /// The block alone.
    Direct,
}

impl PinMode {
    /// As Kubo writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recursive => "recursive",
            Self::Direct => "direct",
        }
    }
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub cid: Cid,
    /// How far it reaches.
    pub mode: PinMode,
    /// The operator's name for it.
    pub name: Option<String>,
}

/// Longest pin name in bytes.
pub const PIN_NAME_BYTES_MAX: usize = 255;

/// Why a pin was not made or not changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// A block of the DAG could not be had.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal or the blocks could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Not pinned at all, or only through another pin.
    #[error("not pinned or pinned indirectly")]
    NotPinned,
    /// Pinned, but not the way that was asked for.
    #[error("{cid} is pinned {mode}", mode = mode.name())]
    OtherMode {
        /// What is pinned.
        cid: Cid,
        /// How it is pinned.
        mode: PinMode,
    },
    /// Name too long.
    #[error("a pin's name has at most {PIN_NAME_BYTES_MAX} bytes, this one has {bytes}")]
    NameTooLong {
        /// The length given.
        bytes: usize,
    },
}

/// How a walk towards a pin goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinProgress {
    /// Blocks seen.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}
