//! Keys that names are published under, each under a name of its owner's.
//!
//! [`Keystore`] keeps them in `keystore/` of the repository, a file a key (`folder.rs`): the public key in the clear, the private one
//! plain, or sealed where there is a [`Secret`] (`seal.rs`, `file.rs`). [`Key`] is one in memory (`key.rs`), and `forms.rs` is how keys are
//! brought in and given away. What holds:
//!
//! * A file exists whole or not at all, and only its owner can read it; one that others can read is not used.
//! * No key is ever replaced but by [`Keystore::rename`] where that was asked for, and by [`Keystore::seal`] with itself.
//! * Whatever lies on the disk, a key that is loaded is the one whose public half its file shows.
//! * Listing needs no secret, nothing shows a private key, and buffers with one are wiped.
//!
//! `self` is the node's own key. It is [`crate::identity`]'s: listed first, and neither removed, renamed nor overwritten.
//! Everything here blocks, making RSA keys and using passphrases for long.

mod error;
pub(crate) mod file;
pub(crate) mod folder;
mod forms;
mod key;
mod seal;
#[cfg(test)]
mod tests;

pub use error::KeystoreError;
pub use file::Damage;
pub use folder::Overwrite;
pub use forms::Form;
pub use key::{Key, KeyError, Kind, Make, RsaBits};
pub use seal::{Secret, SecretError, SecretKind};

use crate::{identity, ipns, public_key};
use file::Parsed;
use folder::{Folder, Guard, disk};
use libp2p::PeerId;
use libp2p::identity::PublicKey;
use seal::{Locksmith, OpenError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The keys of a repository.
#[derive(Debug)]
pub struct Keystore {
    repository: PathBuf,
    folder: Folder,
    locksmith: Locksmith,
}

/// A key, as far as no secret is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What its owner calls it.
    pub name: String,
    /// The name that it signs for.
    pub id: PeerId,
    /// What kind it is.
    pub kind: Kind,
}

/// A key that has another name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The key.
    pub key: Named,
    /// Whether another one had that name, which is gone.
    pub replaced: bool,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// It was written anew.
    Anew,
    /// It was so already.
    Already,
}

impl Keystore {
    /// The keys of a repository, sealed with `secret` if there is one. There may be none yet.
    pub fn open(repository: &Path, secret: Option<Secret>) -> Result<Self, KeystoreError> {
        Ok(Self {
            repository: repository.to_owned(),
            folder: Folder::at(repository.join(FOLDER))?,
            locksmith: Locksmith::new(secret, None),
        })
    }

    /// The same, which also opens what `old` has sealed.
    pub fn open_with_old(
        repository: &Path,
        secret: Option<Secret>,
        old: Option<Secret>,
    ) -> Result<Self, KeystoreError> {
        Ok(Self {
            locksmith: Locksmith::new(secret, old),
            ..Self::open(repository, None)?
        })
    }

    /// All keys: the node's own, then the others by name. Those that cannot be used are told in the log and left out.
    pub fn list(&self) -> Result<Vec<Named>, KeystoreError> {
        let mut all = vec![self.own()?];
        for name in self.folder.names()? {
            match self.look(&name) {
                Ok(key) => all.push(key),
                // Somebody has just removed it.
                Err(KeystoreError::NotFound(_)) => {}
                Err(error) => tracing::warn!(%error, "a key is left out"),
            }
        }
        Ok(all)
    }

    /// The key with this name, or with this ID in any form.
    pub fn find(&self, name_or_id: &str) -> Result<Named, KeystoreError> {
        let error = match self.named(name_or_id) {
            Err(error @ (KeystoreError::NotFound(_) | KeystoreError::Name { .. })) => error,
            found => return found,
        };
        let Some(id) = ipns::name(name_or_id) else {
            return Err(error);
        };
        let found = self.list()?.into_iter().find(|key| key.id == id);
        found.ok_or_else(|| KeystoreError::NotFound(name_or_id.to_owned()))
    }

    /// The key with this name.
    pub fn named(&self, name: &str) -> Result<Named, KeystoreError> {
        match name {
            OWN => self.own(),
            name => self.look(name),
        }
    }

    /// The public half of the key with this name.
    pub fn public(&self, name: &str) -> Result<PublicKey, KeystoreError> {
        let (path, bytes) = if name == OWN {
            let (path, bytes) = self.own_file()?;
            if !bytes.starts_with(file::MAGIC) {
                return Ok(own_plain(&path, &bytes)?.public().clone());
            }
            (path, bytes)
        } else {
            let path = self.folder.file(name)?;
            let bytes = self.read(name, &path)?;
            (path, bytes)
        };
        Ok(parsed(&path, &bytes)?.public)
    }

    /// Whether a key could be `import`ed or `create`d under this name; it is asked again then.
    pub fn vacant(&self, name: &str, what: &'static str) -> Result<(), KeystoreError> {
        let path = self.free(name, what)?;
        match path.try_exists() {
            Ok(true) => Err(KeystoreError::Exists(name.to_owned())),
            _ => Ok(()),
        }
    }

    /// Makes a key.
    pub fn generate(&self, name: &str, make: Make) -> Result<Named, KeystoreError> {
        // Before the work.
        self.vacant(name, "create")?;
        self.import(name, &Key::generate(make)?)
    }

    /// Takes a key in.
    pub fn import(&self, name: &str, key: &Key) -> Result<Named, KeystoreError> {
        let path = self.free(name, "import")?;
        self.add(name, &path, key)
    }

    /// Opens a key.
    pub fn load(&self, name: &str) -> Result<Key, KeystoreError> {
        if name == OWN {
            let (path, bytes) = self.own_file()?;
            return match bytes.starts_with(file::MAGIC) {
                true => open_file(&self.locksmith, &path, &bytes),
                false => own_plain(&path, &bytes),
            };
        }
        let path = self.folder.file(name)?;
        let bytes = self.read(name, &path)?;
        open_file(&self.locksmith, &path, &bytes)
    }

    /// Removes a key for good.
    pub fn remove(&self, name: &str) -> Result<Named, KeystoreError> {
        let path = self.free(name, "remove")?;
        let alone = self.folder.lock()?;
        let key = self.look(name)?;
        let removed = self.folder.remove(&alone, &path);
        removed.map_err(|error| disk("remove", &path, error))?;
        Ok(key)
    }

    /// Gives a key another name.
    pub fn rename(
        &self,
        from: &str,
        to: &str,
        overwrite: Overwrite,
    ) -> Result<Renamed, KeystoreError> {
        let paths = (self.free(from, "rename")?, self.free(to, "overwrite")?);
        let alone = self.folder.lock()?;
        let key = Named {
            name: to.to_owned(),
            ..self.look(from)?
        };
        let there = paths.1.symlink_metadata().is_ok();
        let replaced = there && from != to;
        if from == to {
            return Ok(Renamed { key, replaced });
        }
        let renamed = self.folder.rename(&alone, (&paths.0, &paths.1), overwrite);
        match renamed {
            Ok(()) => Ok(Renamed { key, replaced }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeystoreError::Exists(to.to_owned()))
            }
            Err(error) => Err(disk("rename", &paths.0, error)),
        }
    }

    /// Writes every key anew that is not sealed with the secret yet, the node's own too, one after the other; tells `on_key` of
    /// each. A secret that opens none of those that are sealed seals none. Broken off at any moment, each key is there as it was or as it shall be, and doing it again does the rest.
    pub fn seal(
        &self,
        mut on_key: impl FnMut(&str, Result<Sealed, KeystoreError>),
    ) -> Result<(), KeystoreError> {
        let alone = self.folder.lock()?;
        self.opens_others()?;
        folder::sweep(&self.repository);
        let salt = self.salt();
        on_key(OWN, self.seal_own(salt));
        for name in self.folder.names()? {
            on_key(&name, self.seal_one(&alone, &name, salt));
        }
        Ok(())
    }

    /// Lets another key be the node's own, sealed if there is a secret; the one before is set aside, where this says.
    /// `None` if it is the same one. What was set aside before is never replaced: then nothing happens.
    pub fn replace_own(&self, key: &Key) -> Result<Option<PathBuf>, KeystoreError> {
        let _alone = self.folder.lock()?;
        let (path, before) = self.own_file()?;
        if self.own()?.id == key.id() {
            return Ok(None);
        }
        self.opens_others()?;
        let after = match self.locksmith.kind() {
            Some(_) => written(&self.locksmith, &path, key, self.salt())?,
            None => Zeroizing::new(key.protobuf().to_vec()),
        };
        let aside = self.free_aside(&before)?;
        match fs::hard_link(&path, &aside) {
            Ok(()) => {}
            // Killed in between, it is there already, and the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(disk("set the identity aside as", &aside, error)),
        }
        let replaced = folder::replace(&self.repository, &path, &after);
        replaced.map_err(|error| disk("write", &path, error))?;
        Ok(Some(aside))
    }

    /// Whether [`Self::replace_own`] would let the key be the node's own, so far as can be known without doing it.
    pub fn check_replace_own(&self, key: &Key) -> Result<(), KeystoreError> {
        let _alone = self.folder.lock()?;
        let (_, before) = self.own_file()?;
        if self.own()?.id == key.id() {
            return Ok(());
        }
        self.opens_others()?;
        self.free_aside(&before).map(drop)
    }

    /// Where the node's own key is set aside, if nothing else lies there.
    fn free_aside(&self, own: &[u8]) -> Result<PathBuf, KeystoreError> {
        let aside = self.repository.join(SET_ASIDE);
        let is_free = match fs::symlink_metadata(&aside) {
            Ok(_) => folder::read(&aside).is_ok_and(|there| *there == *own),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        match is_free {
            true => Ok(aside),
            false => {
                let error = io::ErrorKind::AlreadyExists.into();
                Err(disk("set the identity aside as", &aside, error))
            }
        }
    }

    /// What new keys are sealed with.
    pub fn seals_with(&self) -> Option<SecretKind> {
        self.locksmith.kind()
    }

    fn seal_one(
        &self,
        alone: &Guard,
        name: &str,
        salt: Option<[u8; file::PASSPHRASE_SALT_BYTES]>,
    ) -> Result<Sealed, KeystoreError> {
        let path = self.folder.file(name)?;
        let before = self.read(name, &path)?;
        let Some(after) = resealed(&self.locksmith, &path, &before, salt)? else {
            return Ok(Sealed::Already);
        };
        let replaced = self.folder.replace(alone, &path, &after);
        replaced.map_err(|error| disk("write", &path, error))?;
        Ok(Sealed::Anew)
    }

    fn seal_own(
        &self,
        salt: Option<[u8; file::PASSPHRASE_SALT_BYTES]>,
    ) -> Result<Sealed, KeystoreError> {
        let (path, before) = self.own_file()?;
        let after = if before.starts_with(file::MAGIC) {
            resealed(&self.locksmith, &path, &before, salt)?
        } else if self.locksmith.kind().is_none() {
            None
        } else {
            Some(written(
                &self.locksmith,
                &path,
                &own_plain(&path, &before)?,
                salt,
            )?)
        };
        let Some(after) = after else {
            return Ok(Sealed::Already);
        };
        let replaced = folder::replace(&self.repository, &path, &after);
        replaced.map_err(|error| disk("write", &path, error))?;
        Ok(Sealed::Anew)
    }

    /// The node's own key, as far as no secret is needed.
    fn own(&self) -> Result<Named, KeystoreError> {
        let public = self.public(OWN)?;
        Ok(Named {
            name: OWN.to_owned(),
            id: public.to_peer_id(),
            kind: Kind::of(&public),
        })
    }

    fn own_file(&self) -> Result<(PathBuf, Zeroizing<Vec<u8>>), KeystoreError> {
        let bytes = identity::read(&self.repository)?;
        Ok((self.repository.join(identity::FILE_NAME), bytes))
    }

    /// What a key's file shows without a secret.
    fn look(&self, name: &str) -> Result<Named, KeystoreError> {
        let path = self.folder.file(name)?;
        let bytes = self.read(name, &path)?;
        let parsed = parsed(&path, &bytes)?;
        Ok(Named {
            name: name.to_owned(),
            id: parsed.public.to_peer_id(),
            kind: parsed.kind(),
        })
    }

    /// Where a key lies or may lie that is not the node's own.
    fn free(&self, name: &str, what: &'static str) -> Result<PathBuf, KeystoreError> {
        match name {
            OWN => Err(KeystoreError::Own { what }),
            name => self.folder.file(name),
        }
    }

    fn read(&self, name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        folder::read(path).map_err(|error| match error {
            KeystoreError::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                KeystoreError::NotFound(name.to_owned())
            }
            error => error,
        })
    }

    fn add(&self, name: &str, path: &Path, key: &Key) -> Result<Named, KeystoreError> {
        let alone = self.folder.lock()?;
        if self.folder.names()?.len() >= KEYS_MAX {
            return Err(KeystoreError::Full);
        }
        self.opens_others()?;
        let file = written(&self.locksmith, path, key, self.salt())?;
        match self.folder.create(&alone, path, &file) {
            Ok(()) => Ok(Named {
                name: name.to_owned(),
                id: key.id(),
                kind: key.kind(),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeystoreError::Exists(name.to_owned()))
            }
            Err(error) => Err(disk("write", path, error)),
        }
    }

    /// A secret that does not open a key that is sealed already may be a slip of the pen: nothing is sealed with it.
    fn opens_others(&self) -> Result<(), KeystoreError> {
        if self.locksmith.kind().is_none() {
            return Ok(());
        }
        let mut wrong = None;
        let mut tried = 0;
        for name in self.folder.names()? {
            let path = self.folder.file(&name)?;
            let Ok(bytes) = folder::read(&path) else {
                continue;
            };
            if file::parse(&bytes).map_or(true, |parsed| parsed.lock == file::Lock::Plain) {
                continue;
            }
            // One that does not open may be damaged.
            match open_file(&self.locksmith, &path, &bytes) {
                Ok(_) => return Ok(()),
                // Of the other kind: secrets are being changed.
                Err(KeystoreError::Locked { .. }) => continue,
                Err(error) => wrong = wrong.or(Some(error)),
            }
            tried += 1;
            if tried == TRIED_MAX {
                break;
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The salt that the passphrase has in the first key that is sealed with one.
    fn salt(&self) -> Option<[u8; file::PASSPHRASE_SALT_BYTES]> {
        if self.locksmith.kind() != Some(SecretKind::Passphrase) {
            return None;
        }
        let names = self.folder.names().ok()?;
        let mut files = names.iter().filter_map(|name| {
            let path = self.folder.file(name).ok()?;
            let bytes = folder::read(&path).ok()?;
            self.locksmith.salt(&file::parse(&bytes).ok()?)
        });
        files.next().or_else(|| Some(rand::random()))
    }
}

/// The public key of a name that holds it, as those of Ed25519 and secp256k1 do.
pub fn public_key_in(name: &PeerId) -> Option<PublicKey> {
    let hash: &libp2p::multihash::Multihash<64> = name.as_ref();
    let is_whole = hash.code() == IDENTITY;
    public_key::read(hash.digest()).ok().filter(|_| is_whole)
}

/// What `bytes`, the content of `path`, shows without a secret.
fn parsed<'a>(path: &Path, bytes: &'a [u8]) -> Result<Parsed<'a>, KeystoreError> {
    file::parse(bytes).map_err(|why| KeystoreError::Damaged {
        path: path.to_owned(),
        why,
    })
}

/// The key in `bytes`, the content of `path`.
fn open_file(locksmith: &Locksmith, path: &Path, bytes: &[u8]) -> Result<Key, KeystoreError> {
    let path = path.to_owned();
    let file = parsed(&path, bytes)?;
    locksmith.open(&file).map_err(|error| match error {
        OpenError::Missing(kind) => KeystoreError::Locked { path, kind },
        OpenError::Wrong(kind) => KeystoreError::WrongSecret { path, kind },
        OpenError::Failed => KeystoreError::Failed { path },
        OpenError::Key(error) => KeystoreError::Unusable {
            path,
            why: error.to_string(),
        },
        OpenError::Other => KeystoreError::Unusable {
            path,
            why: "its private key is another one than its public key says".to_owned(),
        },
    })
}

/// What takes the place of a file, if it is not sealed as it shall be.
fn resealed(
    locksmith: &Locksmith,
    path: &Path,
    before: &[u8],
    salt: Option<[u8; file::PASSPHRASE_SALT_BYTES]>,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError> {
    if locksmith.is_sealed(&parsed(path, before)?) {
        return Ok(None);
    }
    let key = open_file(locksmith, path, before)?;
    written(locksmith, path, &key, salt).map(Some)
}

/// The file of a key, which is known to open again: it may take the place of another one.
fn written(
    locksmith: &Locksmith,
    path: &Path,
    key: &Key,
    salt: Option<[u8; file::PASSPHRASE_SALT_BYTES]>,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let failed = || KeystoreError::Failed {
        path: path.to_owned(),
    };
    let file = locksmith.file(key, salt).ok_or_else(failed)?;
    match open_file(locksmith, path, &file) {
        Ok(again) if again.protobuf() == key.protobuf() => Ok(file),
        _ => Err(failed()),
    }
}

/// The node's own key as `init` writes it.
fn own_plain(path: &Path, bytes: &[u8]) -> Result<Key, KeystoreError> {
    Key::from_protobuf(bytes).map_err(|error| KeystoreError::Unusable {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

/// The hash that is no hash.
const IDENTITY: u64 = 0;
/// The folder's name in the repository.
const FOLDER: &str = "keystore";
/// What the node's own key is called.
pub const OWN: &str = "self";
/// Where the node's own key goes when another one takes its place.
const SET_ASIDE: &str = "identity.key.before";
/// Most keys.
pub const KEYS_MAX: usize = 10_000;
/// Longest name of a key.
pub const NAME_BYTES_MAX: usize = 128;
/// Sealed keys that a secret is tried on before something is sealed with it: each costs what a passphrase costs.
const TRIED_MAX: usize = 3;
