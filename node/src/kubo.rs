//! Keys and the identity of a Kubo repository. What it published with them is [`crate::name::Names::adopt`]'s.
//!
//! A key comes in under the name that it has there. Nothing here is ever replaced: a name that is taken stays whose it is.

use crate::keystore::{Key, Keystore, KeystoreError, NAME_BYTES_MAX};
use cairn_store::kubo::Source;
use data_encoding::{BASE32_NOPAD, BASE64};
use libp2p::PeerId;
use rustix::fs::OFlags;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// A key of Kubo's, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// What it is called there, or its file if that is no name.
    pub name: String,
    /// The name that it signs for, if it could be read.
    pub id: Option<PeerId>,
    /// What became of it.
    pub fate: KeyFate,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFate {
    /// It is in the keystore now.
    Taken,
    /// It was there already, by this name.
    There,
    /// It was there already, by another name.
    ThereAs(String),
    /// Another key has its name here, which stays.
    NameTaken,
    /// It was not taken, and why.
    Not(String),
}

impl KeyFate {
    /// Whether somebody has to see to it.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::NameTaken | Self::Not(_))
    }
}

/// Why the identity of a Kubo repository is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("the identity in {path}/config cannot be used: {why}")]
pub struct NoIdentity {
    path: String,
    why: String,
}

/// Takes over every key but the node's own, in the order of their files. Blocks.
pub fn take_keys(source: &Source, keystore: &Keystore) -> Result<Vec<FoundKey>, KeystoreError> {
    let mut here: Vec<(PeerId, String)> = keystore
        .list()?
        .into_iter()
        .map(|key| (key.id, key.name))
        .collect();
    let mut found = Vec::new();
    for (name, key) in keys_of(&source.folder().join(FOLDER)) {
        let key = match key {
            Ok(key) => key,
            Err(why) => {
                found.push(FoundKey {
                    name,
                    id: None,
                    fate: KeyFate::Not(why),
                });
                continue;
            }
        };
        let id = key.id();
        let same = here.iter().find(|(known, _)| *known == id);
        let fate = match same {
            Some((_, known)) if *known == name => KeyFate::There,
            Some((_, known)) => KeyFate::ThereAs(known.clone()),
            None => match keystore.import(&name, &key) {
                Ok(_) => KeyFate::Taken,
                Err(KeystoreError::Exists(_) | KeystoreError::Own { .. }) => KeyFate::NameTaken,
                Err(error) => KeyFate::Not(error.to_string()),
            },
        };
        if fate == KeyFate::Taken {
            here.push((id, name.clone()));
        }
        found.push(FoundKey {
            name,
            id: Some(id),
            fate,
        });
    }
    Ok(found)
}

/// Whether it has the folder that Kubo keeps keys in, which Kubo makes as soon as it runs.
pub fn has_keystore(source: &Source) -> bool {
    let about = fs::symlink_metadata(source.folder().join(FOLDER));
    !about.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The key of the node itself.
pub fn identity(source: &Source) -> Result<Key, NoIdentity> {
    let wrong = |why: &str| NoIdentity {
        path: source.folder().display().to_string(),
        why: why.to_owned(),
    };
    let text = |key| {
        let value = source.config().pointer(key).and_then(|it| it.as_str());
        value.ok_or_else(|| wrong("it is not there (Identity.PeerID, Identity.PrivKey)"))
    };
    let (id, private) = (text("/Identity/PeerID")?, text("/Identity/PrivKey")?);
    let decoded = BASE64.decode(private.trim().as_bytes());
    let bytes = Zeroizing::new(decoded.map_err(|_| wrong("the private key is not in base64"))?);
    let key = Key::from_protobuf(&bytes).map_err(|error| wrong(&error.to_string()))?;
    match key.id().to_string() == id {
        true => Ok(key),
        false => Err(wrong(
            "the private key is another one than the peer ID says",
        )),
    }
}

/// The keys in a folder, each by its name. What cannot be read says why, by its name or its file's.
fn keys_of(folder: &Path) -> Vec<(String, Result<Key, String>)> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Nobody has made a key.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let why = format!("it cannot be listed: {error}");
            return vec![(FOLDER.to_owned(), Err(why))];
        }
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    files.sort_unstable();
    let keys = files.into_iter().take(KEYS_MAX).map(|file| {
        let shown = file.to_string_lossy().into_owned();
        match name_of(&shown) {
            Some(name) => (name, read(&folder.join(&file))),
            None => (shown, Err("not a name of a key's file".to_owned())),
        }
    });
    keys.collect()
}

/// The name of the key in this file.
fn name_of(file: &str) -> Option<String> {
    let encoded = file.strip_prefix("key_")?.to_ascii_uppercase();
    let name = BASE32_NOPAD.decode(encoded.as_bytes()).ok()?;
    String::from_utf8(name)
        .ok()
        .filter(|name| name.len() <= NAME_BYTES_MAX)
}

fn read(path: &Path) -> Result<Key, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    // Not waiting for who writes into a pipe.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("it is no file".to_owned());
    }
    // Room for all of it: what grows is copied, and only the last copy is wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err("it is longer than any key".to_owned());
    }
    Key::from_protobuf(&bytes).map_err(|error| error.to_string())
}

/// Where Kubo keeps keys.
const FOLDER: &str = "keystore";
/// Most of them that are looked at.
const KEYS_MAX: usize = 10_000;
/// An RSA key of 8192 bits has about 4.7 kB.
const FILE_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::{Form, Make};

    fn source(config: &str) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let spec = r#""Datastore": {"Spec": {"type": "flatfs", "path": "blocks"}}"#;
        fs::write(path("config"), format!("{{{spec}{config}}}")).unwrap();
        fs::write(path("version"), "18").unwrap();
        fs::create_dir_all(path("blocks")).unwrap();
        fs::create_dir_all(path("keystore")).unwrap();
        fs::write(
            path("blocks/SHARDING"),
            "/repo/flatfs/shard/v1/next-to-last/2",
        )
        .unwrap();
        let source = Source::open(folder.path()).unwrap();
        (folder, source)
    }

    fn put(source: &Source, name: &str, bytes: &[u8]) {
        let file = format!(
            "key_{}",
            BASE32_NOPAD.encode(name.as_bytes()).to_lowercase()
        );
        fs::write(source.folder().join(FOLDER).join(file), bytes).unwrap();
    }

    #[test]
    fn keys_come_along_under_their_names_and_nothing_here_is_replaced() {
        let (_kubo, source) = source("");
        let folder = tempfile::tempdir().unwrap();
        crate::identity::create(folder.path()).unwrap();
        let keystore = Keystore::open(folder.path(), None).unwrap();
        let keys: Vec<Key> = (0..4)
            .map(|_| Key::generate(Make::Ed25519).unwrap())
            .collect();
        let bytes = |key: &Key| key.written(Form::Protobuf).unwrap().to_vec();
        keystore.import("taken", &keys[3]).unwrap();
        keystore.import("mine", &keys[2]).unwrap();
        put(&source, "a site", &bytes(&keys[0]));
        put(&source, "taken", &bytes(&keys[1]));
        put(&source, "theirs", &bytes(&keys[2]));
        put(
            &source,
            "self",
            &bytes(&Key::generate(Make::Secp256k1).unwrap()),
        );
        put(&source, "damaged", &bytes(&keys[0])[..20]);
        fs::write(source.folder().join("keystore/notes"), "x").unwrap();
        let pipe = source.folder().join("keystore/key_obuxazi");
        let mode = 0o600.into();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();

        let fates = || {
            let found = take_keys(&source, &keystore).unwrap();
            let mut fates: Vec<_> = found.into_iter().map(|key| (key.name, key.fate)).collect();
            fates.sort_by(|one, other| one.0.cmp(&other.0));
            fates
        };
        let first = fates();
        let names: Vec<&str> = first.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(
            names,
            [
                "a site", "damaged", "notes", "pipe", "self", "taken", "theirs"
            ]
        );
        assert_eq!(first[0].1, KeyFate::Taken);
        assert!(matches!(first[1].1, KeyFate::Not(_)));
        assert!(matches!(first[2].1, KeyFate::Not(_)));
        assert_eq!(first[3].1, KeyFate::Not("it is no file".to_owned()));
        assert_eq!(first[4].1, KeyFate::NameTaken);
        assert_eq!(first[5].1, KeyFate::NameTaken);
        assert_eq!(first[6].1, KeyFate::ThereAs("mine".to_owned()));
        assert_eq!(keystore.load("a site").unwrap().id(), keys[0].id());
        assert_eq!(keystore.load("taken").unwrap().id(), keys[3].id());
        assert_eq!(fates()[0].1, KeyFate::There);
    }

    #[test]
    fn the_identity_is_the_one_that_its_peer_id_says() {
        let key = Key::generate(Make::Ed25519).unwrap();
        let private = BASE64.encode(&key.written(Form::Protobuf).unwrap());
        let config =
            |id: &str| format!(r#", "Identity": {{"PeerID": "{id}", "PrivKey": "{private}"}}"#);
        let (_kubo, good) = source(&config(&key.id().to_string()));
        assert_eq!(identity(&good).unwrap().id(), key.id());
        let other = Key::generate(Make::Ed25519).unwrap().id().to_string();
        for config in [config(&other), String::new()] {
            let (_kubo, wrong) = source(&config);
            let refused = identity(&wrong).unwrap_err().to_string();
            assert!(!refused.contains(&private[..20]), "{refused}");
        }
    }

    #[test]
    fn another_identity_sets_the_one_before_aside() {
        let folder = tempfile::tempdir().unwrap();
        crate::identity::create(folder.path()).unwrap();
        let keystore = Keystore::open(folder.path(), None).unwrap();
        let before = keystore.load("self").unwrap().id();
        let key = Key::generate(Make::Secp256k1).unwrap();
        let aside = keystore.replace_own(&key).unwrap().unwrap();
        assert_eq!(keystore.load("self").unwrap().id(), key.id());
        let old = Key::from_protobuf(&fs::read(&aside).unwrap()).unwrap();
        assert_eq!(old.id(), before);
        // The same again changes nothing, and what was set aside is not lost to a third.
        assert_eq!(keystore.replace_own(&key).unwrap(), None);
        let third = Key::generate(Make::Ed25519).unwrap();
        assert!(keystore.check_replace_own(&third).is_err());
        assert!(keystore.check_replace_own(&key).is_ok());
        assert!(keystore.replace_own(&third).is_err());
        assert_eq!(keystore.load("self").unwrap().id(), key.id());
    }
}
