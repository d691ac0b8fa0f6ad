//! Secrets, and what is sealed with them.
//!
//! A passphrase becomes a key with Argon2id, a key file is one already. From that key HKDF-SHA-256 makes one for each file
//! with the salt that is in it, and ChaCha20-Poly1305 seals the private key with it, once. What stands before the private key
//! in the file is authenticated too. A key of a passphrase is remembered, because it costs a fraction of a second.

use super::file::{self, Cost, Lock, PASSPHRASE_SALT_BYTES, Parsed};
use super::key::{Key, KeyError};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// What keys are sealed with. No text shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    kind: SecretKind,
    bytes: Zeroizing<Vec<u8>>,
    #[cfg(test)]
    cost: Cost,
}

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// Words that somebody remembers.
    Passphrase,
    /// Random bytes in a file.
    KeyFile,
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({:?})", self.kind)
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Passphrase => "a passphrase",
            Self::KeyFile => "a key file",
        })
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{path}, which keys are sealed with, cannot be read: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "{path}, which keys are sealed with, can be read or changed by other users (mode {mode:o}); run `chmod 600 {path}`"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no secret.
    #[error("{from} is no secret to seal keys with: {why}")]
    Unfit {
        /// The file, or what else.
        from: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Secret {
    /// A passphrase, whose origin `from` errors name.
    pub fn passphrase(bytes: Vec<u8>, from: &str) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        let unfit = |why| SecretError::Unfit {
            from: from.to_owned(),
            why,
        };
        if bytes.is_empty() {
            return Err(unfit("it is empty"));
        }
        if bytes.len() > PASSPHRASE_BYTES_MAX {
            return Err(unfit("a passphrase has at most 1024 bytes"));
        }
        Ok(Self::new(SecretKind::Passphrase, bytes))
    }

    /// The passphrase in a file, without the end of its line.
    pub fn from_passphrase_file(path: &Path) -> Result<Self, SecretError> {
        let mut bytes = read(path)?;
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        Self::passphrase(bytes.to_vec(), &path.display().to_string())
    }

    /// The random bytes in a file.
    pub fn from_key_file(path: &Path) -> Result<Self, SecretError> {
        let bytes = read(path)?;
        if bytes.len() < KEY_FILE_BYTES_MIN {
            return Err(SecretError::Unfit {
                from: path.display().to_string(),
                why: "a key file has at least 32 bytes, which nobody can guess (`head -c 32 /dev/urandom` prints some)",
            });
        }
        Ok(Self::new(SecretKind::KeyFile, bytes))
    }

    fn new(kind: SecretKind, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            kind,
            bytes,
            #[cfg(test)]
            cost: COST,
        }
    }

    /// What it is.
    pub const fn kind(&self) -> SecretKind {
        self.kind
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have secrets that cost less")]
    const fn cost(&self) -> Cost {
        COST
    }

    #[cfg(test)]
    const fn cost(&self) -> Cost {
        self.cost
    }

    /// The same at the least cost.
    #[cfg(test)]
    pub(crate) fn cheap(mut self) -> Self {
        self.cost = Cost {
            kibibytes: 8,
            passes: 1,
        };
        self
    }
}

/// Reads a small file that only its owner may read.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let disk = |source| SecretError::Disk {
        path: path.to_owned(),
        source,
    };
    let unfit = |why| SecretError::Unfit {
        from: path.display().to_string(),
        why,
    };
    // Not waiting for who writes into a pipe.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(super::folder::NONBLOCK);
    let file = file.open(path).map_err(disk)?;
    let about = file.metadata().map_err(disk)?;
    if !about.is_file() {
        return Err(unfit("it is no file"));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    let most = SECRET_BYTES_MAX as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(disk)?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(unfit("it is longer than 4096 bytes"));
    }
    Ok(bytes)
}

/// The secrets that keys are sealed with, and what they opened before.
#[derive(Debug, Default)]
pub(super) struct Locksmith {
    /// What seals, if anything does.
    secret: Option<Secret>,
    /// What opens too: what sealed before.
    old: Option<Secret>,
    derived: Mutex<Vec<Derived>>,
}

/// The key that a passphrase became.
struct Derived {
    is_old: bool,
    cost: Cost,
    salt: [u8; PASSPHRASE_SALT_BYTES],
    key: Master,
}

impl fmt::Debug for Derived {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Derived")
    }
}

type Master = Zeroizing<Vec<u8>>;

/// Why a private key did not come out of its file.
#[derive(Debug)]
pub(super) enum OpenError {
    /// It is sealed with what was not given.
    Missing(SecretKind),
    /// What was given is another one.
    Wrong(SecretKind),
    /// It is open, and no key.
    Key(KeyError),
    /// It is open, and another one than the file says.
    Other,
    /// It could not be tried.
    Failed,
}

impl Locksmith {
    pub(super) fn new(secret: Option<Secret>, old: Option<Secret>) -> Self {
        Self {
            secret,
            old,
            derived: Mutex::default(),
        }
    }

    /// How many keys were made of passphrases.
    #[cfg(test)]
    pub(super) fn paid(&self) -> usize {
        self.derived.lock().unwrap().len()
    }

    /// What seals.
    pub(super) fn kind(&self) -> Option<SecretKind> {
        self.secret.as_ref().map(Secret::kind)
    }

    /// The private key of a file.
    pub(super) fn open(&self, file: &Parsed<'_>) -> Result<Key, OpenError> {
        let key = match &file.lock {
            Lock::Plain => Key::from_protobuf(file.body),
            lock => Key::from_protobuf(&self.opened(file, lock)?),
        };
        let key = key.map_err(OpenError::Key)?;
        match *key.public() == file.public {
            true => Ok(key),
            false => Err(OpenError::Other),
        }
    }

    fn opened(&self, file: &Parsed<'_>, lock: &Lock) -> Result<Master, OpenError> {
        let kind = match lock {
            Lock::KeyFile { .. } => SecretKind::KeyFile,
            Lock::Passphrase { .. } | Lock::Plain => SecretKind::Passphrase,
        };
        let mut error = OpenError::Missing(kind);
        for (secret, is_old) in [(&self.secret, false), (&self.old, true)] {
            let Some(secret) = secret.as_ref().filter(|secret| secret.kind == kind) else {
                continue;
            };
            let key = self.key(secret, is_old, lock).ok_or(OpenError::Failed)?;
            let mut body = Zeroizing::new(file.body.to_vec());
            let opened = key.open_in_place(nonce(), Aad::from(file.head), &mut body);
            if let Ok(length) = opened.map(|opened| opened.len()) {
                body.truncate(length);
                return Ok(body);
            }
            error = OpenError::Wrong(kind);
        }
        Err(error)
    }

    /// Whether a file is sealed as a new one would be.
    pub(super) fn is_sealed(&self, file: &Parsed<'_>) -> bool {
        let Some(secret) = &self.secret else {
            return file.lock == Lock::Plain;
        };
        let fits = match file.lock {
            Lock::Plain => false,
            Lock::Passphrase { cost, .. } => {
                cost == secret.cost() && secret.kind == SecretKind::Passphrase
            }
            Lock::KeyFile { .. } => secret.kind == SecretKind::KeyFile,
        };
        let alone = |key: &LessSafeKey| {
            let mut body = Zeroizing::new(file.body.to_vec());
            let opened = key.open_in_place(nonce(), Aad::from(file.head), &mut body);
            opened.is_ok()
        };
        fits && self
            .key(secret, false, &file.lock)
            .is_some_and(|key| alone(&key))
    }

    /// A key's file, sealed if there is what seals. `salt` is the one of the passphrase in other files.
    pub(super) fn file(
        &self,
        key: &Key,
        salt: Option<[u8; PASSPHRASE_SALT_BYTES]>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let plain = key.protobuf();
        let Some(secret) = &self.secret else {
            let head = file::head(key.public(), &Lock::Plain, plain.len())?;
            return Some(file::whole(&head, plain));
        };
        let own = rand::random();
        let lock = match secret.kind {
            SecretKind::KeyFile => Lock::KeyFile { own },
            SecretKind::Passphrase => Lock::Passphrase {
                cost: secret.cost(),
                salt: salt.unwrap_or_else(rand::random),
                own,
            },
        };
        let length = plain.len() + CHACHA20_POLY1305.tag_len();
        let head = file::head(key.public(), &lock, length)?;
        // Room for the tag, or what is plain still would stay behind when it grows.
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        body.extend(plain);
        let sealer = self.key(secret, false, &lock)?;
        let tag = sealer.seal_in_place_separate_tag(nonce(), Aad::from(&head), &mut body);
        body.extend(tag.ok()?.as_ref());
        Some(file::whole(&head, &body))
    }

    /// The salt with which the passphrase that seals is paid for already, or would be in `file`.
    pub(super) fn salt(&self, file: &Parsed<'_>) -> Option<[u8; PASSPHRASE_SALT_BYTES]> {
        let secret = self.secret.as_ref()?;
        match file.lock {
            // Never at a lower cost, whoever wrote that file.
            Lock::Passphrase { cost, salt, .. } if cost == secret.cost() => Some(salt),
            _ => None,
        }
    }

    /// The key of one file.
    fn key(&self, secret: &Secret, is_old: bool, lock: &Lock) -> Option<LessSafeKey> {
        let (master, own) = match lock {
            Lock::Plain => return None,
            Lock::KeyFile { own } => (secret.bytes.clone(), own),
            Lock::Passphrase { cost, salt, own } => {
                (self.master(secret, is_old, *cost, salt)?, own)
            }
        };
        let extracted = Salt::new(HKDF_SHA256, own).extract(&master);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let expanded = extracted.expand(&[PURPOSE], HKDF_SHA256).ok()?;
        expanded.fill(key.as_mut_slice()).ok()?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).ok()?;
        Some(LessSafeKey::new(key))
    }

    /// The key that a passphrase becomes.
    fn master(
        &self,
        secret: &Secret,
        is_old: bool,
        cost: Cost,
        salt: &[u8; PASSPHRASE_SALT_BYTES],
    ) -> Option<Master> {
        // Held meanwhile: others wait for this one instead of doing the same.
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = derived.iter();
        if let Some(known) =
            known.find(|known| known.is_old == is_old && known.cost == cost && known.salt == *salt)
        {
            return Some(known.key.clone());
        }
        let params = Params::new(cost.kibibytes, cost.passes, LANES, Some(KEY_BYTES)).ok()?;
        let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&secret.bytes, salt, &mut key)
            .ok()?;
        if derived.len() == DERIVED_MAX {
            derived.remove(0);
        }
        derived.push(Derived {
            is_old,
            cost,
            salt: *salt,
            key: key.clone(),
        });
        Some(key)
    }
}

/// Every key seals one text only.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// What a new passphrase costs, as RFC 9106 recommends where memory is scarce: 64 MiB, three times.
const COST: Cost = Cost {
    kibibytes: 64 << 10,
    passes: 3,
};
/// Argon2 works in one thread.
const LANES: u32 = 1;
/// What keys of files are made for.
const PURPOSE: &[u8] = b"cairn keystore 1";
const KEY_BYTES: usize = 32;
/// Longest passphrase.
const PASSPHRASE_BYTES_MAX: usize = 1024;
/// Shortest key file: as many as can be guessed by nobody, if they are random.
const KEY_FILE_BYTES_MIN: usize = 32;
/// Longest file with a secret.
const SECRET_BYTES_MAX: usize = 4096;
/// Most keys of passphrases that are remembered: the secret's and the old one's, and some of before.
const DERIVED_MAX: usize = 4;
