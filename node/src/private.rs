//! `swarm.key`: the secret of a private network, in Kubo's file format.
//!
//! Everything that this node says to others is encrypted with it, below what proves who they are. Who does
//! not have it gets nowhere: it cannot even be told from noise.

use libp2p::pnet::{PnetConfig, PreSharedKey};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SwarmKey(PreSharedKey);

impl std::fmt::Debug for SwarmKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SwarmKey({})", self.fingerprint())
    }
}

/// Why a key is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmKeyError {
    /// The file is there and cannot be read.
    #[error(
        "the key of the private network in {path} cannot be read: {error}; let this user read it, or remove it to \
         leave the private network"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others may read it, and so join.
    #[error(
        "the key of the private network in {path} can be read by others on this machine (mode {mode:o}); \
         `chmod 600 {path}` keeps it to its owner"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key.
    #[error(
        "{path} is no key of a private network: {why}; it has three lines, /key/swarm/psk/1.0.0/ and /base16/ and 64 \
         hexadecimal digits"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is none where there must be.
    #[error(
        "LIBP2P_FORCE_PNET=1 asks for a private network and there is no key in {path}; put it there, or unset the \
         variable"
    )]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
}

/// Whether there must be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// There must.
    Must,
    /// There may.
    May,
}

impl SwarmKey {
    /// The key in a repository's folder, if there is one.
    pub fn load(folder: &Path, need: Need) -> Result<Option<Self>, SwarmKeyError> {
        let path = folder.join(FILE);
        let unreadable = |error| SwarmKeyError::Unreadable {
            path: path.clone(),
            error,
        };
        // A link that leads nowhere is a mistake, and none to go on with in the open.
        let is_there = fs::symlink_metadata(&path).is_ok();
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there => {
                return match need {
                    Need::May => Ok(None),
                    Need::Must => Err(SwarmKeyError::Missing { path }),
                };
            }
            Err(error) => return Err(unreadable(error)),
        };
        if !about.is_file() {
            let why = "it is no file";
            return Err(SwarmKeyError::Malformed { path, why });
        }
        let file = File::open(&path).map_err(unreadable)?;
        // Asked of the open file, so that nobody can swap it in between.
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(SwarmKeyError::TooOpen { path, mode });
        }
        let mut bytes = Vec::new();
        let most = FILE_BYTES_MAX + 1;
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        match Self::parse(&bytes) {
            Ok(key) => Ok(Some(key)),
            Err(why) => Err(SwarmKeyError::Malformed { path, why }),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err("it is much too long");
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        if lines.next() != Some(KIND) {
            return Err("its first line is not /key/swarm/psk/1.0.0/");
        }
        match lines.next() {
            Some(ENCODING) => {}
            Some("/base64/" | "/bin/") => {
                return Err("its second line is not /base16/, the only encoding that is read");
            }
            _ => return Err("its second line is not /base16/"),
        }
        let digits = lines.next().unwrap_or_default().as_bytes();
        if lines.next().is_some() {
            return Err("there is more behind its third line");
        }
        let mut key = [0; KEY_BYTES];
        if digits.len() != 2 * KEY_BYTES {
            return Err("its third line has not 64 digits");
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16);
                let value = value.ok_or("a character of its third line is no hexadecimal digit")?;
                *byte = *byte << 4 | u8::try_from(value).unwrap_or_default();
            }
        }
        Ok(Self(PreSharedKey::new(key)))
    }

    /// What may be shown of it, to compare.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint().to_string()
    }

    pub(crate) fn pnet(self) -> PnetConfig {
        PnetConfig::new(self.0)
    }
}

/// The file's name in the repository, as in Kubo's.
const FILE: &str = "swarm.key";
/// What the first two lines say: what kind of key it is, and how it is written.
const KIND: &str = "/key/swarm/psk/1.0.0/";
const ENCODING: &str = "/base16/";
const KEY_BYTES: usize = 32;
/// A key file has some hundred bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// The permissions of group and others.
const OTHERS: u32 = 0o077;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    const DIGITS: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    fn written(text: &[u8], mode: u32) -> Result<Option<SwarmKey>, SwarmKeyError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        SwarmKey::load(folder.path(), Need::Must)
    }

    #[test]
    fn a_key_is_read_as_it_is_written_everywhere() {
        let text = format!("{KIND}\n{ENCODING}\n{DIGITS}\n");
        let key = written(text.as_bytes(), 0o600).unwrap().unwrap();
        let windows = text.replace('\n', "\r\n");
        assert_eq!(written(windows.as_bytes(), 0o400).unwrap(), Some(key));
        let theirs: PreSharedKey = text.parse().unwrap();
        assert_eq!(key.fingerprint(), theirs.fingerprint().to_string());
        assert!(!format!("{key:?}").to_lowercase().contains("445566"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_what_to_do() {
        let good = format!("{KIND}\n{ENCODING}\n{DIGITS}\n");
        for (text, told) in [
            (String::new(), "its first line"),
            (good.replace("psk", "pks"), "its first line"),
            (good.replace("16", "64"), "the only encoding"),
            (good.replace("16", "58"), "its second line"),
            (good.replace("ff", "f"), "64 digits"),
            (good.replace("ff", "fg"), "no hexadecimal digit"),
            (good.replace("ff", "é"), "no hexadecimal digit"),
            (good.clone() + "more", "more behind"),
            (good.repeat(100), "too long"),
        ] {
            let error = written(text.as_bytes(), 0o600).unwrap_err().to_string();
            assert!(error.contains(told), "{text:?}: {error}");
        }
        let error = written(b"\xff\xfe", 0o600).unwrap_err().to_string();
        assert!(error.contains("no text"), "{error}");
        for mode in [0o640, 0o604, 0o666] {
            let error = written(good.as_bytes(), mode).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_none_unless_it_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let load = |need| SwarmKey::load(folder.path(), need);
        assert!(matches!(load(Need::May), Ok(None)));
        let error = load(Need::Must).unwrap_err().to_string();
        assert!(error.contains("LIBP2P_FORCE_PNET"), "{error}");
        symlink("nowhere", folder.path().join(FILE)).unwrap();
        assert!(matches!(
            load(Need::May),
            Err(SwarmKeyError::Unreadable { .. })
        ));
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        assert!(matches!(
            load(Need::May),
            Err(SwarmKeyError::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes: Vec<u8>, digits: String) {
            let _ = SwarmKey::parse(&bytes);
            let _ = SwarmKey::parse(format!("{KIND}\n{ENCODING}\n{digits}").as_bytes());
        }
    }
}
