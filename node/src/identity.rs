//! The node's key: loaded, created once, never printed, never made anew in silence.
//!
//! `identity.key` holds the private key in libp2p's protobuf encoding, mode 0600. It is written to
//! a temporary name, synced, and linked to its real name only if that is free, so it exists whole
//! or not at all and an existing key is never replaced. [`crate::keystore`] can seal it; then it is
//! loaded there, with what opens it.

use crate::keystore::file;
use libp2p::identity::{KeyType, Keypair};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The key's name in the repository.
pub const FILE_NAME: &str = "identity.key";

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
    /// The file is sealed.
    #[error("{path} is sealed, and opens with the secret of the keystore only")]
    Sealed {
        /// The file.
        path: String,
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
        source: io::Error,
    },
}

/// Makes a new ed25519 key in `repository/identity.key`, mode 0600. Fails if there is one.
pub fn create(repository: &Path) -> Result<Keypair, IdentityError> {
    let keys = Keypair::generate_ed25519();
    let path = repository.join(FILE_NAME);
    let encoded = keys
        .to_protobuf_encoding()
        .map_err(|error| damaged(&path, error.to_string()))?;
    write_new(repository, &path, &encoded).map_err(|source| disk(&path, source))?;
    Ok(keys)
}

/// Loads `repository/identity.key`, which is not sealed.
pub fn load(repository: &Path) -> Result<Keypair, IdentityError> {
    let path = repository.join(FILE_NAME);
    let encoded = read(repository)?;
    if encoded.starts_with(file::MAGIC) {
        return Err(IdentityError::Sealed { path: shown(&path) });
    }
    let keys = Keypair::from_protobuf_encoding(&encoded)
        .map_err(|error| damaged(&path, error.to_string()))?;
    // Whoever changes the file keeps it whole: what follows the key would be lost on a rewrite.
    match keys.to_protobuf_encoding() {
        Ok(again) if again == *encoded || keys.key_type() == KeyType::RSA => Ok(keys),
        _ => Err(damaged(&path, "more than a key".to_owned())),
    }
}

/// What is in `repository/identity.key`, which only its owner can read.
pub(crate) fn read(repository: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let path = repository.join(FILE_NAME);
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: shown(&path) },
        _ => disk(&path, error),
    })?;
    // Asked of the open file, so that nobody can swap it in between.
    let about = file.metadata().map_err(|source| disk(&path, source))?;
    if !about.is_file() {
        return Err(damaged(&path, "not a file".to_owned()));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooOpen {
            path: shown(&path),
            mode,
        });
    }
    // Room for all of it: what grows is copied, and only the last copy is wiped.
    let mut encoded = Zeroizing::new(Vec::with_capacity(KEY_BYTES_ROOM));
    file.take(KEY_BYTES_MAX + 1)
        .read_to_end(&mut encoded)
        .map_err(|source| disk(&path, source))?;
    if encoded.len() as u64 > KEY_BYTES_MAX {
        return Err(damaged(&path, "longer than any key".to_owned()));
    }
    if encoded.is_empty() {
        return Err(damaged(&path, "empty".to_owned()));
    }
    Ok(encoded)
}

/// The public half in libp2p's protobuf encoding, as `id` prints it in base64.
pub fn public_key_protobuf(keys: &Keypair) -> Vec<u8> {
    keys.public().encode_protobuf()
}

fn write_new(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = Temporary::create(folder)?;
    let mut file = &temporary.file;
    file.write_all(bytes)?;
    // Before the new name, or that may point at missing bytes after a power cut.
    file.sync_all()?;
    // A link fails where a rename would replace.
    fs::hard_link(&temporary.path, path)?;
    drop(temporary);
    // The names live in the folder; without this they may be lost.
    File::open(folder)?.sync_all()
}

/// A file that is gone when nobody holds this any more.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!(".{FILE_NAME}.{:016x}", rand::random::<u64>()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays behind is a hidden file only its owner can read.
        let _ = fs::remove_file(&self.path);
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn damaged(path: &Path, why: String) -> IdentityError {
    IdentityError::Damaged {
        path: shown(path),
        why,
    }
}

fn disk(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Disk {
        path: shown(path),
        source,
    }
}

/// An RSA key of 8192 bits has about 4.7 kB; nothing that is a key is longer than this.
const KEY_BYTES_MAX: u64 = 16 << 10;
/// Those, and the one that is one too many.
const KEY_BYTES_ROOM: usize = (16 << 10) + 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_created_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let made = create(folder.path()).unwrap();
        let found = load(folder.path()).unwrap();
        assert_eq!(made.public(), found.public());
        assert_eq!(mode(&folder.path().join(FILE_NAME)), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(
            public_key_protobuf(&found)[..4],
            [8, 1, 18, 32],
            "type ed25519, 32 bytes"
        );
    }

    #[test]
    fn an_existing_key_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let made = create(folder.path()).unwrap();
        let again = create(folder.path()).unwrap_err();
        assert!(matches!(
            again,
            IdentityError::Disk { source, .. } if source.kind() == io::ErrorKind::AlreadyExists
        ));
        assert_eq!(load(folder.path()).unwrap().public(), made.public());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_key_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            load(folder.path()),
            Err(IdentityError::Missing { .. })
        ));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        for open in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            assert!(matches!(
                load(folder.path()),
                Err(IdentityError::TooOpen { mode, .. }) if mode == open
            ));
        }
    }

    #[test]
    fn damage_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let mut longer = whole.clone();
        longer.extend(vec![0; usize::try_from(KEY_BYTES_MAX).unwrap()]);
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        for bytes in [&[][..], &whole[..10], b"not a key", &flipped, &longer] {
            fs::write(&path, bytes).unwrap();
            let refused = load(folder.path());
            assert!(
                matches!(refused, Err(IdentityError::Damaged { .. })),
                "{refused:?}"
            );
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn no_error_shows_the_key() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut bytes = fs::read(&path).unwrap();
        let secret: String = bytes[4..36]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        bytes.truncate(40);
        fs::write(&path, &bytes).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..8]));
    }
}
