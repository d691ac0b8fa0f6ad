//! The node's key: loaded, created once, never printed, never made anew in silence. (signatures)

use libp2p::identity::Keypair;
use std::path::Path;

/// Why the key was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is not there.
    #[error(
        "{path} is missing; without it this node has no name. Restore it from a backup, or run `cairn init` in an empty folder"
    )]
    Missing {
        /// The file.
        path: String,
    },
    /// The file is there but holds no key.
    #[error("{path} holds no usable key: {why}. Restore it from a backup")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The file is readable by others.
    #[error("{path} can be read by other users (mode {mode:o}); run `chmod 600 {path}`")]
    TooOpen {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// The disk refused.
    #[error("cannot use {path}: {source}")]
    Disk {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Makes a new ed25519 key in `repository/identity.key`, mode 0600. Fails if there is one.
pub fn create(_repository: &Path) -> Result<Keypair, IdentityError> {
    todo!()
}

/// Loads `repository/identity.key`.
pub fn load(_repository: &Path) -> Result<Keypair, IdentityError> {
    todo!()
}
