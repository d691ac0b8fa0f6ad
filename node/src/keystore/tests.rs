//! Keys in a folder: whole files, one key a name, nothing lost and nothing shown.

use super::*;
use crate::identity::IdentityError;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const ED25519: &[u8] = include_bytes!("fixtures/ed25519.pem");
const RSA: &[u8] = include_bytes!("fixtures/rsa.pem");
const RSA_PKCS1: &[u8] = include_bytes!("fixtures/rsa.pkcs1.der");
const SECP256K1: &[u8] = include_bytes!("fixtures/secp256k1.pem");
const P256: &[u8] = include_bytes!("fixtures/p256.pem");
const P384: &[u8] = include_bytes!("fixtures/p384.pem");

/// Pairs of libp2p's specification of peer IDs: private and public keys.
const SPECIFIED: [(&str, &str); 3] = [
    (
        "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3c\
         acf6010f0e42d474fce27e",
        "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
    ),
    (
        "0802122053DADF1D5A164D6B4ACDB15E24AA4C5B1D3461BDBD42ABEDB0A4404D56CED8FB",
        "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99",
    ),
    (
        "08031279307702010104203E5B1FE9712E6C314942A750BD67485DE3C1EFE85B1BFB520AE8F9AE3DFA4A4CA00A06082A8648CE3D030107A144\
         03420004DE3D300FA36AE0E8F5D530899D83ABAB44ABF3161F162A4BC901D8E6ECDA020E8B6D5F8DA30525E71D6851510C098E5C47C646A597FB\
         4DCEC034E9F77C409E62",
        "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83abab44abf3161f162a4bc901d8\
         e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62",
    ),
];

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .unwrap()
}

/// An empty repository.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    identity::create(folder.path()).unwrap();
    folder
}

fn passphrase(text: &str) -> Secret {
    let secret = Secret::passphrase(text.as_bytes().to_vec(), "the test").unwrap();
    secret.cheap()
}

fn key_file(folder: &Path, byte: u8) -> Secret {
    let path = folder.join(format!("secret-{byte}"));
    fs::write(&path, [byte; 32]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Secret::from_key_file(&path).unwrap()
}

fn plain(repository: &tempfile::TempDir) -> Keystore {
    Keystore::open(repository.path(), None).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The files of keys.
fn files(repository: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository.join(FOLDER)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.ends_with(folder::LOCK_FILE));
    files.sort();
    files
}

/// Every kind of key that is cheap to have.
fn some() -> Vec<Key> {
    let made = [Make::Ed25519, Make::Secp256k1].map(|make| Key::generate(make).unwrap());
    let read = [RSA, P256].map(|pem| Key::read(pem, Form::Pem).unwrap());
    made.into_iter().chain(read).collect()
}

#[test]
fn keys_are_made_listed_found_loaded_renamed_and_removed() {
    let repository = repository();
    let keys = plain(&repository);
    let own = keys.list().unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].name, OWN);
    let b = keys.generate("b", Make::Ed25519).unwrap();
    let a = keys.generate("a", Make::Secp256k1).unwrap();
    assert_eq!(keys.list().unwrap(), [own[0].clone(), a.clone(), b.clone()]);
    for key in [&own[0], &a, &b] {
        let loaded = keys.load(&key.name).unwrap();
        assert_eq!((loaded.id(), loaded.kind()), (key.id, key.kind));
        assert_eq!(keys.find(&key.name).unwrap(), *key);
        assert_eq!(keys.find(&key.id.to_string()).unwrap(), *key);
        let signature = loaded.sign(b"text").unwrap();
        assert!(loaded.public().verify(b"text", &signature));
        assert!(!loaded.public().verify(b"texts", &signature));
    }
    let renamed = keys.rename("b", "c", Overwrite::Never).unwrap();
    assert_eq!((renamed.key.id, renamed.replaced), (b.id, false));
    assert_eq!(keys.remove("a").unwrap(), a);
    let names: Vec<String> = keys
        .list()
        .unwrap()
        .into_iter()
        .map(|key| key.name)
        .collect();
    assert_eq!(names, ["self", "c"]);
    assert!(matches!(keys.load("b"), Err(KeystoreError::NotFound(_))));
    assert!(matches!(keys.find("b"), Err(KeystoreError::NotFound(_))));
    assert!(matches!(keys.find(&b.id.to_string()), Ok(key) if key.name == "c"));
    assert!(matches!(keys.remove("a"), Err(KeystoreError::NotFound(_))));
}

#[test]
fn files_are_for_their_owner_alone_and_nothing_lies_beside_them() {
    let repository = repository();
    // As an older program made it.
    fs::create_dir(repository.path().join(FOLDER)).unwrap();
    fs::set_permissions(
        repository.path().join(FOLDER),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    plain(&repository).generate("a", Make::Ed25519).unwrap();
    assert_eq!(mode(&repository.path().join(FOLDER)), 0o700);
    let files = files(repository.path());
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(mode(&files[0]), 0o600);
}

#[test]
fn a_name_never_takes_the_place_of_another_unless_it_was_forced() {
    let repository = repository();
    let keys = plain(&repository);
    let a = keys.generate("a", Make::Ed25519).unwrap();
    let b = keys.generate("b", Make::Ed25519).unwrap();
    let exists = |error| matches!(error, Err(KeystoreError::Exists(name)) if name == "a");
    assert!(exists(keys.generate("a", Make::Ed25519).map(drop)));
    assert!(exists(keys.import("a", &some()[0]).map(drop)));
    assert!(exists(keys.rename("b", "a", Overwrite::Never).map(drop)));
    assert_eq!(keys.find("a").unwrap().id, a.id);
    assert_eq!(keys.find("b").unwrap().id, b.id);
    // To itself is nothing, however it is asked.
    for overwrite in [Overwrite::Never, Overwrite::Force] {
        let same = keys.rename("a", "a", overwrite).unwrap();
        assert_eq!((same.key.id, same.replaced), (a.id, false));
    }
    let forced = keys.rename("b", "a", Overwrite::Force).unwrap();
    assert_eq!((forced.key.id, forced.replaced), (b.id, true));
    assert_eq!(keys.list().unwrap().len(), 2);
}

#[test]
fn the_nodes_own_key_is_left_alone() {
    let repository = repository();
    let keys = plain(&repository);
    keys.generate("a", Make::Ed25519).unwrap();
    let own = |result| matches!(result, Err(KeystoreError::Own { .. }));
    assert!(own(keys.generate(OWN, Make::Ed25519).map(drop)));
    assert!(own(keys.import(OWN, &some()[0]).map(drop)));
    assert!(own(keys.remove(OWN).map(drop)));
    assert!(own(keys.rename(OWN, "b", Overwrite::Force).map(drop)));
    assert!(own(keys.rename("a", OWN, Overwrite::Force).map(drop)));
    let id = identity::load(repository.path())
        .unwrap()
        .public()
        .to_peer_id();
    assert_eq!(keys.load(OWN).unwrap().id(), id);
}

#[test]
fn names_are_told_apart_by_case_and_odd_ones_are_safe() {
    let repository = repository();
    let keys = plain(&repository);
    let long = "n".repeat(NAME_BYTES_MAX);
    let names = [
        "Key",
        "key",
        "KEY",
        "..",
        ".",
        "key_",
        "ключ – 鍵",
        "a b\u{202e}",
        "-rf",
        &long,
    ];
    for name in names {
        let made = keys.generate(name, Make::Ed25519).unwrap();
        assert_eq!(keys.find(name).unwrap(), made);
    }
    let mut listed: Vec<String> = keys
        .list()
        .unwrap()
        .into_iter()
        .map(|key| key.name)
        .collect();
    listed.retain(|name| name != OWN);
    let mut wanted = names.map(str::to_owned);
    wanted.sort();
    assert_eq!(listed, wanted);
    // They are as different in lower case.
    let lower = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_lowercase();
    let mut names: Vec<String> = files(repository.path()).iter().map(lower).collect();
    names.dedup();
    assert_eq!(names.len(), wanted.len());
    // As Kubo calls the file.
    assert!(repository.path().join("keystore/key_jnsxs").exists());
    let longer = "n".repeat(NAME_BYTES_MAX + 1);
    for name in ["", "a/b", "/", "a\0", "a\nb", "\u{7f}", "\u{85}", &longer] {
        let refused = keys.generate(name, Make::Ed25519);
        assert!(
            matches!(refused, Err(KeystoreError::Name { .. })),
            "{name:?}"
        );
    }
}

#[test]
fn files_that_are_no_keys_are_passed_over() {
    let repository = repository();
    let keys = plain(&repository);
    keys.generate("a", Make::Ed25519).unwrap();
    let folder = repository.path().join(FOLDER);
    let key = fs::read(&files(repository.path())[0]).unwrap();
    // In capitals it would be a second file of one name.
    for name in [
        "README",
        "key_",
        "key_ME",
        "key_!",
        "key_me======",
        "KEY_me",
    ] {
        fs::write(folder.join(name), &key).unwrap();
    }
    assert_eq!(keys.list().unwrap().len(), 2);
}

#[test]
fn what_was_left_behind_by_who_was_killed_goes_with_the_next_change() {
    let repository = repository();
    let keys = plain(&repository);
    keys.generate("a", Make::Ed25519).unwrap();
    let left = repository
        .path()
        .join(FOLDER)
        .join(".new_key.0123456789abcdef");
    fs::write(&left, b"half a key").unwrap();
    let own = repository.path().join(".new_key.0123456789abcdef");
    fs::write(&own, b"half a key").unwrap();
    assert_eq!(keys.list().unwrap().len(), 2);
    keys.generate("b", Make::Ed25519).unwrap();
    assert!(!left.exists());
    keys.seal(|_, result| assert_eq!(result.unwrap(), Sealed::Already))
        .unwrap();
    assert!(!own.exists());
}

#[test]
fn there_are_no_more_keys_than_the_limit() {
    let repository = repository();
    let keys = plain(&repository);
    keys.generate("first", Make::Ed25519).unwrap();
    let key = files(repository.path()).remove(0);
    for number in 1..KEYS_MAX {
        let path = keys.folder.file(&format!("k{number}")).unwrap();
        fs::hard_link(&key, path).unwrap();
    }
    let refused = keys.generate("one more", Make::Ed25519);
    assert!(matches!(refused, Err(KeystoreError::Full)));
    keys.remove("k1").unwrap();
    keys.generate("one more", Make::Ed25519).unwrap();
}

#[test]
fn every_kind_comes_back_from_its_file_plain_and_sealed() {
    let repository = repository();
    let secrets = [
        None,
        Some(passphrase("open sesame")),
        Some(key_file(repository.path(), 7)),
    ];
    for (at, secret) in secrets.into_iter().enumerate() {
        let keys = Keystore::open(repository.path(), secret).unwrap();
        for (kind, key) in some().into_iter().enumerate() {
            let name = format!("{at}-{kind}");
            keys.import(&name, &key).unwrap();
            let loaded = keys.load(&name).unwrap();
            assert_eq!(loaded.protobuf(), key.protobuf());
            let signature = loaded.sign(b"text").unwrap();
            assert!(key.public().verify(b"text", &signature));
            // What is sealed is not there in the clear.
            let file = fs::read(keys.folder.file(&name).unwrap()).unwrap();
            let private = &key.data()[..32];
            let in_clear = file.windows(32).any(|bytes| bytes == private);
            assert_eq!(in_clear, at == 0);
        }
    }
    // Without any secret all of them are listed.
    assert_eq!(
        plain(&repository).list().unwrap().len(),
        1 + 3 * some().len()
    );
}

#[test]
fn a_sealed_key_opens_with_its_secret_only() {
    let repository = repository();
    let path = repository.path();
    let right = passphrase("open sesame");
    let keys = Keystore::open(path, Some(right.clone())).unwrap();
    let a = keys.generate("a", Make::Ed25519).unwrap();
    let file = Keystore::open(path, Some(key_file(path, 1))).unwrap();
    file.generate("b", Make::Ed25519).unwrap();
    let load = |secret, name: &str| Keystore::open(path, secret).unwrap().load(name);

    let missing = load(None, "a").unwrap_err();
    assert!(matches!(
        missing,
        KeystoreError::Locked {
            kind: SecretKind::Passphrase,
            ..
        }
    ));
    assert!(
        missing.to_string().contains("$CAIRN_PASSPHRASE"),
        "{missing}"
    );
    let missing = load(Some(passphrase("x")), "b").unwrap_err();
    assert!(matches!(
        missing,
        KeystoreError::Locked {
            kind: SecretKind::KeyFile,
            ..
        }
    ));
    assert!(
        missing.to_string().contains("keystore.key_file"),
        "{missing}"
    );
    for wrong in ["open sesam", "open sesame ", "Open sesame"] {
        let refused = load(Some(passphrase(wrong)), "a").unwrap_err();
        assert!(
            matches!(refused, KeystoreError::WrongSecret { .. }),
            "{refused}"
        );
        assert!(!format!("{refused} {refused:?}").contains(wrong));
    }
    let wrong = load(Some(key_file(path, 2)), "b").unwrap_err();
    assert!(matches!(wrong, KeystoreError::WrongSecret { .. }));
    assert_eq!(load(Some(right), "a").unwrap().id(), a.id);
}

#[test]
fn a_slip_in_the_passphrase_seals_nothing() {
    let repository = repository();
    let path = repository.path();
    let right = Keystore::open(path, Some(passphrase("open sesame"))).unwrap();
    right.generate("a", Make::Ed25519).unwrap();
    plain(&repository).generate("clear", Make::Ed25519).unwrap();
    let wrong = Keystore::open(path, Some(passphrase("open sesam"))).unwrap();
    let refused = wrong.generate("b", Make::Ed25519).unwrap_err();
    assert!(refused.to_string().contains("key_me"), "{refused}");
    let sealed = wrong.seal(|name, _| panic!("{name}"));
    assert_eq!(sealed.unwrap_err().to_string(), refused.to_string());
    assert!(plain(&repository).load("clear").is_ok());
    right.seal(|_, sealed| assert!(sealed.is_ok())).unwrap();
    assert!(plain(&repository).load("clear").is_err());
    assert!(right.generate("b", Make::Ed25519).is_ok());
}

#[test]
fn a_passphrase_is_paid_for_once_whatever_the_number_of_keys() {
    let repository = repository();
    let open = || Keystore::open(repository.path(), Some(passphrase("words"))).unwrap();
    for name in ["a", "b", "c"] {
        open().generate(name, Make::Ed25519).unwrap();
    }
    let keys = open();
    for name in ["a", "b", "c"] {
        keys.load(name).unwrap();
    }
    keys.generate("d", Make::Ed25519).unwrap();
    assert_eq!(keys.locksmith.paid(), 1);
}

#[test]
fn plain_keys_are_read_while_there_is_a_secret_and_sealed_when_asked() {
    let repository = repository();
    let path = repository.path();
    let made = plain(&repository).generate("a", Make::Ed25519).unwrap();
    let secret = passphrase("words");
    let keys = Keystore::open(path, Some(secret.clone())).unwrap();
    assert_eq!(keys.load("a").unwrap().id(), made.id);
    let own = keys.load(OWN).unwrap().id();
    let seal = |keys: &Keystore| {
        let mut done = Vec::new();
        let mut on_key = |name: &str, result: Result<Sealed, KeystoreError>| {
            done.push((name.to_owned(), result.unwrap()));
        };
        keys.seal(&mut on_key).unwrap();
        done
    };
    let all = |what| [OWN, "a"].map(|name| (name.to_owned(), what)).to_vec();
    assert_eq!(seal(&keys), all(Sealed::Anew));
    assert_eq!(seal(&keys), all(Sealed::Already));
    assert_eq!(keys.locksmith.paid(), 1, "one salt for all");
    for name in [OWN, "a"] {
        let locked = plain(&repository).load(name).unwrap_err();
        assert!(matches!(locked, KeystoreError::Locked { .. }), "{locked}");
    }
    assert!(matches!(
        identity::load(path),
        Err(IdentityError::Sealed { .. })
    ));
    // They are listed all the same.
    assert_eq!(plain(&repository).list().unwrap()[0].id, own);
    assert_eq!(mode(&path.join(identity::FILE_NAME)), 0o600);

    // To another secret, and back to none.
    let other = key_file(path, 3);
    let keys = Keystore::open_with_old(path, Some(other.clone()), Some(secret.clone())).unwrap();
    assert_eq!(seal(&keys), all(Sealed::Anew));
    let keys = Keystore::open(path, Some(other.clone())).unwrap();
    assert_eq!(
        (keys.load(OWN).unwrap().id(), keys.load("a").unwrap().id()),
        (own, made.id)
    );
    let keys = Keystore::open_with_old(path, Some(passphrase("new words")), Some(other)).unwrap();
    assert_eq!(seal(&keys), all(Sealed::Anew));
    let keys = Keystore::open_with_old(path, Some(secret), Some(passphrase("new words"))).unwrap();
    assert_eq!(seal(&keys), all(Sealed::Anew));
    let keys = Keystore::open_with_old(path, None, Some(passphrase("words"))).unwrap();
    assert_eq!(seal(&keys), all(Sealed::Anew));
    let keys = plain(&repository);
    assert_eq!(
        (keys.load(OWN).unwrap().id(), keys.load("a").unwrap().id()),
        (own, made.id)
    );
}

#[test]
fn sealing_goes_past_a_key_that_does_not_open_and_leaves_it() {
    let repository = repository();
    let path = repository.path();
    let keys = Keystore::open(path, Some(passphrase("words"))).unwrap();
    keys.generate("c", Make::Ed25519).unwrap();
    plain(&repository).generate("b", Make::Ed25519).unwrap();
    // From a backup, whose passphrase nobody knows any more.
    let backup = self::repository();
    let sealed = Keystore::open(backup.path(), Some(passphrase("forgotten"))).unwrap();
    sealed.generate("a", Make::Ed25519).unwrap();
    let from = files(backup.path()).remove(0);
    fs::copy(&from, path.join(FOLDER).join(from.file_name().unwrap())).unwrap();
    let before = fs::read(&files(path)[0]).unwrap();
    let mut failed = Vec::new();
    keys.seal(|name, result| {
        if result.is_err() {
            failed.push(name.to_owned());
        }
    })
    .unwrap();
    assert_eq!(failed, ["a"]);
    assert_eq!(fs::read(&files(path)[0]).unwrap(), before);
    assert!(matches!(
        plain(&repository).load("b"),
        Err(KeystoreError::Locked { .. })
    ));
}

#[test]
fn a_file_that_others_can_read_or_change_is_refused_with_the_fix() {
    let repository = repository();
    let keys = plain(&repository);
    keys.generate("a", Make::Ed25519).unwrap();
    let path = files(repository.path()).remove(0);
    for open in [0o640, 0o604, 0o620, 0o602, 0o644, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let refused = keys.load("a").unwrap_err();
        assert!(matches!(refused, KeystoreError::TooOpen { mode, .. } if mode == open));
        let fix = format!("run `chmod 600 {}`", path.display());
        assert!(refused.to_string().contains(&fix), "{refused}");
        // Not even its public half is believed.
        assert_eq!(keys.list().unwrap().len(), 1);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    keys.load("a").unwrap();
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, [9; 32]).unwrap();
    for open in [0o640, 0o604, 0o622] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        for read in [Secret::from_key_file, Secret::from_passphrase_file] {
            let refused = read(&path).unwrap_err();
            assert!(matches!(refused, SecretError::TooOpen { mode, .. } if mode == open));
            let fix = format!("chmod 600 {}", path.display());
            assert!(refused.to_string().contains(&fix), "{refused}");
        }
    }
}

#[test]
fn what_is_no_secret_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let unfit = |result| matches!(result, Err(SecretError::Unfit { .. }));
    write(b"short");
    assert!(unfit(Secret::from_key_file(&path)));
    write(&[1; 4097]);
    assert!(unfit(Secret::from_key_file(&path)));
    for empty in [&b""[..], b"\n", b"\r\n"] {
        write(empty);
        assert!(unfit(Secret::from_passphrase_file(&path)));
    }
    write(&[b'x'; 1025]);
    assert!(unfit(Secret::from_passphrase_file(&path)));
    assert!(unfit(Secret::from_key_file(folder.path())));
    let missing = Secret::from_key_file(&folder.path().join("none"));
    assert!(matches!(missing, Err(SecretError::Disk { .. })));
    // One line's end belongs to the file, no other.
    for (bytes, words) in [
        (&b"words\n"[..], "words"),
        (b"words\r\n", "words"),
        (b"words\n\n", "words\n"),
    ] {
        write(bytes);
        assert!(Secret::from_passphrase_file(&path).unwrap().cheap() == passphrase(words));
    }
}

#[test]
fn a_file_with_a_byte_changed_or_cut_off_is_told_and_left_as_it_is() {
    let repository = repository();
    let sealed = Keystore::open(repository.path(), Some(passphrase("words"))).unwrap();
    plain(&repository).generate("plain", Make::Ed25519).unwrap();
    sealed.generate("sealed", Make::Ed25519).unwrap();
    for name in ["plain", "sealed"] {
        let path = sealed.folder.file(name).unwrap();
        let whole = fs::read(&path).unwrap();
        let refuses = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let refused = sealed.load(name).unwrap_err();
            assert!(
                matches!(refused, KeystoreError::Damaged { .. }),
                "{refused}"
            );
            assert!(refused.to_string().contains("Restore it from a backup"));
            assert_eq!(sealed.list().unwrap().len(), 2, "the other one is there");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        };
        for length in 0..whole.len() {
            refuses(&whole[..length]);
        }
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                refuses(&bytes);
            }
        }
        refuses(&[whole.clone(), vec![0]].concat());
        refuses(&vec![0; file::FILE_BYTES_MAX + 1]);
        fs::write(&path, &whole).unwrap();
        sealed.load(name).unwrap();
    }
}

/// A file whose checksum fits whatever is in it.
fn summed(content: &[u8]) -> Vec<u8> {
    let sum = crc32c::crc32c(content).to_be_bytes();
    [content, &sum].concat()
}

#[test]
fn a_change_that_keeps_the_checksum_gives_no_other_key() {
    let repository = repository();
    let locksmith = Locksmith::new(Some(passphrase("words")), None);
    for key in some() {
        for locksmith in [&Locksmith::default(), &locksmith] {
            let whole = locksmith.file(&key, Some([3; 16])).unwrap();
            let content = &whole[..whole.len() - 4];
            for at in (0..content.len()).filter(|at| content.len() < 300 || at % 7 == 0) {
                let mut bytes = content.to_vec();
                bytes[at] ^= 1;
                let opened = open_file(locksmith, repository.path(), &summed(&bytes));
                if let Ok(opened) = opened {
                    // A sign that two lengths share leaves the key what it is.
                    assert_eq!(opened.protobuf(), key.protobuf(), "{at}");
                }
            }
        }
    }
}

#[test]
fn a_file_of_a_newer_program_says_so() {
    let whole = Locksmith::default().file(&some()[0], None).unwrap();
    let mut content = whole[..whole.len() - 4].to_vec();
    content[file::MAGIC.len()] = 2;
    let refused = file::parse(&summed(&content)).err().unwrap();
    assert_eq!(refused, Damage::Version(2));
}

#[test]
fn no_file_makes_a_passphrase_cost_more_than_the_limit() {
    let whole = Locksmith::new(Some(passphrase("words")), None).file(&some()[0], None);
    let whole = whole.unwrap();
    let content = &whole[..whole.len() - 4];
    // Behind magic, version, sealing and the public key of 36 bytes.
    let at = 8 + 2 + 2 + 36;
    assert_eq!(content[at..at + 8], [0, 0, 0, 8, 0, 0, 0, 1]);
    for (memory, passes) in [
        (u32::MAX, 1),
        ((256 << 10) + 1, 1),
        (8, 17),
        (8, u32::MAX),
        (7, 1),
        (8, 0),
    ] {
        let mut bytes = content.to_vec();
        bytes[at..at + 4].copy_from_slice(&memory.to_be_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&passes.to_be_bytes());
        let refused = file::parse(&summed(&bytes)).err().unwrap();
        assert!(
            matches!(refused, Damage::Cost { .. }),
            "{memory} {passes}: {refused}"
        );
    }
}

#[test]
fn what_is_written_now_costs_what_is_documented() {
    let secret = Secret::passphrase(b"words".to_vec(), "the test").unwrap();
    let whole = Locksmith::new(Some(secret), None)
        .file(&some()[0], None)
        .unwrap();
    let at = 8 + 2 + 2 + 36;
    assert_eq!(whole[at..at + 8], [0, 1, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn the_bytes_of_a_file_are_those_documented() {
    let (private, public) = (unhex(SPECIFIED[0].0), unhex(SPECIFIED[0].1));
    let key = Key::from_protobuf(&private).unwrap();
    let mut wanted = b"cairnkey\x01\x00\x00\x24".to_vec();
    wanted.extend(&public);
    wanted.extend([0, 68]);
    wanted.extend(&private);
    assert_eq!(
        *Locksmith::default().file(&key, None).unwrap(),
        summed(&wanted)
    );
    let sealed = Locksmith::new(Some(passphrase("words")), None);
    let file = sealed.file(&key, Some([5; 16])).unwrap();
    assert_eq!(file[..12], *b"cairnkey\x01\x01\x00\x24");
    assert_eq!(file.len(), 12 + 36 + 8 + 16 + 32 + 2 + 68 + 16 + 4);
}

#[test]
fn keys_of_openssl_are_read_and_written() {
    for (pem, kind, id) in [
        (
            ED25519,
            Kind::Ed25519,
            "12D3KooWDDQshskDca84XTC2j2tX7v1eU3SyMfCDbr6u42SWoDsY",
        ),
        (
            RSA,
            Kind::Rsa,
            "QmTHwUGneJWNMqAcyDY5bGufL7t4pGGhPZKcPV2UWoVjZm",
        ),
        (
            SECP256K1,
            Kind::Secp256k1,
            "16Uiu2HAm2J4WkVt8onTzAGVoaiiyyuNkzxGZnnvezmjcyMqw3Vqu",
        ),
        (
            P256,
            Kind::Ecdsa,
            "QmbCwS7HEXZHyEumHf1nQJ15iQsdqP3ZiKMC4p5BrHWesi",
        ),
    ] {
        let key = Key::read(pem, Form::Pem).unwrap();
        assert_eq!((key.kind(), key.id().to_string().as_str()), (kind, id));
        assert_eq!(*key.written(Form::Pem).unwrap(), pem);
        let protobuf = key.written(Form::Protobuf).unwrap();
        let again = Key::read(&protobuf, Form::Protobuf).unwrap();
        assert_eq!(*again.written(Form::Pem).unwrap(), pem);
        // The other library has the same key.
        let theirs = libp2p::identity::Keypair::from_protobuf_encoding(&protobuf).unwrap();
        assert_eq!(theirs.public(), *key.public());
        let signature = key.sign(b"text").unwrap();
        assert!(theirs.public().verify(b"text", &signature));
        assert_eq!(key.keypair().unwrap().public(), *key.public());
    }
    let rsa = Key::read(RSA, Form::Pem).unwrap();
    assert_eq!(rsa.data(), RSA_PKCS1);
}

#[test]
fn keys_of_the_specification_are_read_and_written() {
    for (private, public) in SPECIFIED {
        let (private, public) = (unhex(private), unhex(public));
        let key = Key::from_protobuf(&private).unwrap();
        assert_eq!(key.public().encode_protobuf(), public);
        assert_eq!(*key.written(Form::Protobuf).unwrap(), private);
    }
    // Long ago the public key stood there twice.
    let (private, public) = (unhex(SPECIFIED[0].0), unhex(SPECIFIED[0].1));
    let mut old = vec![8, 1, 0x12, 96];
    old.extend(&private[4..]);
    old.extend(&public[4..]);
    assert_eq!(Key::from_protobuf(&old).unwrap().protobuf(), private);
    *old.last_mut().unwrap() ^= 1;
    assert_eq!(
        Key::from_protobuf(&old).unwrap_err(),
        KeyError::Damaged("ed25519")
    );
}

#[test]
fn what_is_imported_in_the_wrong_form_says_what_was_found() {
    let told = |bytes: &[u8], form| Key::read(bytes, form).unwrap_err().to_string();
    let protobuf = unhex(SPECIFIED[0].0);
    for (bytes, form, words) in [
        (
            ED25519,
            Form::Protobuf,
            "try again with --format=pem-pkcs8-cleartext",
        ),
        (
            &protobuf,
            Form::Pem,
            "try again with --format=libp2p-protobuf-cleartext",
        ),
        (b"", Form::Pem, "empty"),
        (b"", Form::Protobuf, "empty"),
        (
            b"nonsense",
            Form::Pem,
            "begins with -----BEGIN PRIVATE KEY-----",
        ),
        (
            b"nonsense",
            Form::Protobuf,
            "no key in libp2p's protobuf form",
        ),
        (&[8, 9, 0x12, 0], Form::Protobuf, "of type 9"),
        (&[8, 1, 0x12, 1, 7], Form::Protobuf, "the kind ed25519"),
        (&[8, 0, 0x12, 1, 7], Form::Protobuf, "the kind rsa"),
        (
            P384,
            Form::Pem,
            "of the curve 1.3.132.0.34; secp256k1 and P-256 are known",
        ),
        (
            &[0; key::KEY_BYTES_MAX + 1],
            Form::Protobuf,
            "more than 16384 bytes",
        ),
    ] {
        assert!(told(bytes, form).contains(words), "{}", told(bytes, form));
    }
    let text = std::str::from_utf8(ED25519).unwrap();
    for (label, words) in [
        ("ENCRYPTED PRIVATE KEY", "openssl pkey"),
        ("RSA PRIVATE KEY", "openssl pkcs8"),
        ("PUBLIC KEY", "\"PUBLIC KEY\" instead of \"PRIVATE KEY\""),
    ] {
        let other = told(text.replace("PRIVATE KEY", label).as_bytes(), Form::Pem);
        assert!(other.contains(words), "{other}");
    }
}

#[test]
fn a_key_with_more_behind_it_is_refused() {
    for key in some() {
        let mut bytes = key.protobuf().to_vec();
        bytes.push(0);
        assert!(Key::from_protobuf(&bytes).is_err());
    }
    let longer = [RSA_PKCS1, &[0]].concat();
    assert!(Key::from_pkcs1(&longer).is_err());
    Key::from_pkcs1(RSA_PKCS1).unwrap();
}

#[test]
fn a_short_rsa_key_is_refused() {
    let der = include_bytes!("fixtures/rsa-1024.pkcs1.der");
    let refused = Key::from_pkcs1(der).unwrap_err();
    assert!(
        matches!(refused, KeyError::Bits(1024) | KeyError::Damaged("rsa")),
        "{refused}"
    );
}

#[test]
fn a_damaged_import_is_refused_and_panics_never() {
    let mut bytes = Key::read(RSA, Form::Pem).unwrap().protobuf().to_vec();
    for at in (0..bytes.len()).step_by(13) {
        bytes[at] ^= 1;
        assert!(Key::from_protobuf(&bytes).is_err(), "{at}");
        bytes[at] ^= 1;
    }
    for length in (0..bytes.len()).step_by(17) {
        assert!(Key::from_protobuf(&bytes[..length]).is_err());
    }
}

#[test]
fn an_rsa_key_is_made_and_signs() {
    let repository = repository();
    let keys = plain(&repository);
    let made = keys.generate("r", Make::Rsa(RsaBits::B2048)).unwrap();
    assert_eq!(made.kind, Kind::Rsa);
    let key = keys.load("r").unwrap();
    let signature = key.sign(b"text").unwrap();
    assert!(key.public().verify(b"text", &signature));
    assert_eq!(RsaBits::new(1024), None);
}

#[test]
fn nothing_shows_a_key_or_a_secret() {
    let repository = repository();
    let secret = passphrase("open sesame");
    assert_eq!(format!("{secret:?}"), "Secret(Passphrase)");
    let keys = Keystore::open(repository.path(), Some(secret)).unwrap();
    keys.generate("a", Make::Ed25519).unwrap();
    let key = keys.load("a").unwrap();
    let text = format!("{keys:?} {key:?}");
    let private = data_encoding::HEXLOWER.encode(&key.data()[..32]);
    let list = format!("{:?}", &key.data()[..32]);
    for hidden in ["sesame", &private[..8], list.trim_matches(['[', ']'])] {
        assert!(!text.contains(hidden), "{text}");
    }
}

#[test]
fn two_who_change_keys_wait_for_one_another() {
    let repository = repository();
    let path = repository.path().to_owned();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let path = path.clone();
            std::thread::spawn(move || {
                let keys = Keystore::open(&path, None).unwrap();
                for number in 0..8 {
                    // One of them makes it, the others are told.
                    let made = keys.generate(&format!("all-{number}"), Make::Ed25519);
                    assert!(matches!(made, Ok(_) | Err(KeystoreError::Exists(_))));
                    keys.generate(&format!("{thread}-{number}"), Make::Ed25519)
                        .unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(plain(&repository).list().unwrap().len(), 1 + 8 + 4 * 8);
    assert_eq!(files(&path).len(), 8 + 4 * 8);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), magic: bool) {
        let bytes = if magic { [file::MAGIC, &bytes].concat() } else { bytes };
        let _ = file::parse(&bytes);
        let _ = open_file(&Locksmith::default(), Path::new("x"), &summed(&bytes));
        let _ = Key::from_protobuf(&bytes);
        let _ = Key::read(&bytes, Form::Pem);
    }

    #[test]
    fn every_name_is_its_files_and_no_others(name in "\\PC{0,40}") {
        let repository = tempfile::tempdir().unwrap();
        let folder = Folder::at(repository.path().join(FOLDER)).unwrap();
        if let Ok(path) = folder.file(&name) {
            let alone = folder.lock().unwrap();
            folder.create(&alone, &path, b"x").unwrap();
            prop_assert_eq!(folder.names().unwrap(), [name]);
        }
    }
}
