//! Why something was not done with a key, and what to do about it.

use super::file::Damage;
use super::folder::LOCK_FILE;
use super::key::{KeyError, Kind};
use super::seal::SecretKind;
use super::{KEYS_MAX, NAME_BYTES_MAX};
use crate::identity::IdentityError;
use std::io;
use std::path::PathBuf;

/// Why something was not done with a key. Names files, and nothing that is in them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// A name that no key can have.
    #[error(
        "{name:?} cannot be the name of a key: {why}; a name has 1 to {NAME_BYTES_MAX} bytes, none of them a slash or a \
         control character"
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The node's own key is not the keystore's to change. Others look for these words.
    #[error("cannot {what} key with name 'self': it is this node's identity")]
    Own {
        /// What was wanted.
        what: &'static str,
    },
    /// There is no such key. Others look for these words.
    #[error("no key named {0} was found; `cairn key ls` lists those that there are")]
    NotFound(String),
    /// There is one already. Others look for these words.
    #[error(
        "key with name '{0}' already exists; remove or rename it first, or choose another name"
    )]
    Exists(String),
    /// There are too many.
    #[error("there are {KEYS_MAX} keys, and no more are kept; remove some first")]
    Full,
    /// The bytes are no key.
    #[error("this is no key that can be used: {0}")]
    Key(#[from] KeyError),
    /// A kind that not every program knows.
    #[error(
        "a key of the kind {} is not allowed to be imported: not every program resolves its names; \
         --allow-any-key-type imports it all the same", .0.name()
    )]
    Unusual(Kind),
    /// A file that holds no key.
    #[error("{path} holds no usable key: {why}. Restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Damage,
    },
    /// A whole file whose key does not work.
    #[error("{path} holds no usable key: {why}. Restore it from a backup")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Others may read or change it.
    #[error(
        "{path} can be read or changed by other users (mode {mode:o}); run `chmod {fit:o} {path}`, and make a new key \
         if somebody may have done so"
    )]
    TooOpen {
        /// The file, or the folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Those that it should have.
        fit: u32,
    },
    /// It is sealed, and nothing that opens it was given.
    #[error("{path} is sealed with {kind}, and none was given; {}", give(*.kind))]
    Locked {
        /// The file.
        path: PathBuf,
        /// With what.
        kind: SecretKind,
    },
    /// It is sealed with another secret.
    #[error("{path} is sealed with {kind}, and not with the one that was given; {}", give(*.kind))]
    WrongSecret {
        /// The file.
        path: PathBuf,
        /// With what.
        kind: SecretKind,
    },
    /// There is nothing to seal with.
    #[error(
        "there is nothing to seal keys with; put a passphrase into $CAIRN_PASSPHRASE or into a file that \
         `keystore.passphrase_file` names, or 32 random bytes into one that `keystore.key_file` names"
    )]
    NoSecret,
    /// Another process changes the keys.
    #[error(
        "another process is changing the keys (it holds {path}/{LOCK_FILE}); try again when that has ended"
    )]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Memory or a library was lacking.
    #[error("sealing or opening {path} failed, for want of memory perhaps; try again")]
    Failed {
        /// The file.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node's own key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// How a secret is given.
const fn give(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Passphrase => {
            "give the passphrase in $CAIRN_PASSPHRASE, or in a file that `keystore.passphrase_file` names"
        }
        SecretKind::KeyFile => "name the key file with `keystore.key_file`",
    }
}
