//! `repo snapshot` and `repo restore`, alone and beside a daemon. That a snapshot holds what was acknowledged,
//! whatever goes on meanwhile and whenever it is killed, is `kill.rs`'s.

use harness::mounts::Mounts;
use harness::scenario::{HELLO_V1, hello, json};
use harness::{Repo, scenario, tree};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What is in a folder, by name, folders with what is in them.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = files(&entry.path()).into_iter();
            found.extend(below.map(|(file, length)| (format!("{name}/{file}"), length)));
            found.insert(name, 0);
        } else {
            found.insert(name, entry.metadata().unwrap().len());
        }
    }
    found
}

#[test]
fn a_snapshot_holds_everything_and_is_restored_as_it_was() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        repo.ok(["key", "gen", "mine"]);
        fs::write(repo.path().join("denylists/own.deny"), b"# nothing\n").unwrap();
        let keys = repo.ok(["key", "list", "-l"]);
        let copy = folder.path().join("copy");
        let told = repo.ok(["repo", "snapshot", text(&copy)]);
        assert!(
            told.starts_with(&format!("made {} of ", text(&copy))),
            "{told}"
        );
        assert!(told.contains("private keys"), "{told}");
        repo.run_with(["add", "-Q"], b"later").success();
        assert_eq!(mode(&copy), 0o700);
        assert_eq!(mode(&copy.join("keystore")), 0o700);
        for name in ["identity.key", "config.toml", "keystore/key_nvuw4zi"] {
            assert_eq!(mode(&copy.join(name)), 0o600, "{name}");
            let same =
                fs::read(copy.join(name)).unwrap() == fs::read(repo.path().join(name)).unwrap();
            assert!(same, "{name}");
        }
        assert!(copy.join("denylists/own.deny").exists());
        for name in ["repo.lock", "api", "gateway", "peers", "provide", "ballast"] {
            assert!(!copy.join(name).exists(), "{name}");
        }
        let before = files(&copy);
        let restored = repo.at(&folder.path().join("restored"));
        let done = restored.run(["repo", "restore", text(&copy)]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.text().starts_with("restored "), "{done:?}");
        assert!(done.stderr.contains("--new-identity"), "{done:?}");
        assert_eq!(files(&copy), before, "the snapshot is as it was");
        assert_eq!(restored.ok(["cat", HELLO_V1]), "hello world");
        assert_eq!(restored.ok(["key", "list", "-l"]), keys);
        let stat = json(&restored.ok(["repo", "stat", "--json"]));
        assert_eq!(
            (&stat["NumObjects"], &stat["Pins"]),
            (&1.into(), &1.into()),
            "{stat}"
        );
        // A snapshot is a repository, and can be made of a snapshot.
        let direct = repo.at(&copy);
        assert_eq!(direct.ok(["cat", HELLO_V1]), "hello world");
        let again = folder.path().join("again");
        direct.ok(["repo", "snapshot", text(&again)]);
        assert_eq!(repo.at(&again).ok(["cat", HELLO_V1]), "hello world");
    });
}

#[test]
fn with_an_identity_of_its_own_a_restored_repository_is_another_node() {
    let repo = Repo::new(CAIRN);
    repo.run_with(["add", "-Q"], b"hello world").success();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    repo.ok(["repo", "snapshot", text(&copy)]);
    let other = repo.at(&folder.path().join("other"));
    let done = other.run(["repo", "restore", "--new-identity", "--verify", text(&copy)]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    let name = |repo: &Repo| repo.ok(["id", "-f", "<id>"]);
    assert_ne!(name(&other), name(&repo));
    assert!(done.text().contains(&name(&other)), "{done:?}");
    assert_eq!(mode(&other.path().join("identity.key")), 0o600);
    assert_eq!(other.ok(["cat", HELLO_V1]), "hello world");
}

#[test]
fn what_waits_to_be_flushed_and_what_opens_the_keys_is_in_it_and_what_is_not_is_told() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let media = fs::canonicalize(folder.path()).unwrap().join("media");
        fs::create_dir(&media).unwrap();
        fs::write(media.join("file"), b"in place").unwrap();
        repo.ok(["files", "mkdir", "--flush=false", "/waits"]);
        let copy = folder.path().join("copy");
        let told = repo.run(["repo", "snapshot", text(&copy)]);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
        let restored = repo.at(&folder.path().join("restored"));
        let done = restored.run(["repo", "restore", "--json", "--verify", text(&copy)]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let made = json(&done.text());
        assert_eq!(made["Path"], text(restored.path()), "{made}");
        assert_eq!(made["PeerID"], repo.ok(["id", "-f", "<id>"]), "{made}");
        // Without a daemon every command writes out what it did.
        assert_eq!(restored.ok(["files", "ls", "/"]), "waits");
    });
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"in place").unwrap();
    let lies = repo.ok(["add", "-Q", "--nocopy", text(&file)]);
    fs::create_dir(repo.path().join("secrets")).unwrap();
    let secret = repo.path().join("secrets/key");
    fs::write(&secret, [7; 32]).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    repo.ok(["config", "set", "keystore.key_file", "secrets/key"]);
    repo.ok(["key", "gen", "sealed"]);
    let copy = folder.path().join("copy");
    let made = repo.run(["repo", "snapshot", text(&copy)]);
    assert!(made.stderr.contains("1 block lies in files"), "{made:?}");
    assert_eq!(mode(&copy.join("secrets/key")), 0o600);
    let exported = folder.path().join("exported");
    repo.at(&copy)
        .ok(["key", "export", "-o", text(&exported), "sealed"]);
    assert_eq!(repo.at(&copy).ok(["cat", &lies]), "in place");
    let named = format!("{:?}", text(&secret));
    repo.ok(["config", "set", "keystore.key_file", &named]);
    let made = repo.run(["repo", "snapshot", text(&folder.path().join("second"))]);
    assert!(
        made.stderr.contains(text(&secret)) && made.stderr.contains("not copied"),
        "{made:?}"
    );
    assert!(!folder.path().join("second/secrets").exists());
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let repo = Repo::new(CAIRN);
    repo.run_with(["add", "-Q"], b"hello world").success();
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("file"), b"mine").unwrap();
    let refused = repo.run(["repo", "snapshot", text(&taken)]).failure(1);
    assert!(
        refused.contains(text(&taken)) && refused.contains("empty"),
        "{refused}"
    );
    let within = repo.path().join("backup/copy");
    let refused = repo.run(["repo", "snapshot", text(&within)]).failure(1);
    assert!(refused.contains("elsewhere"), "{refused}");
    assert!(!repo.path().join("backup").exists());
    let copy = folder.path().join("copy");
    repo.ok(["repo", "snapshot", text(&copy)]);
    let refused = repo.run(["repo", "restore", text(&copy)]).failure(1);
    assert!(
        refused.contains(text(repo.path())) && refused.contains("--repo-dir"),
        "{refused}"
    );
    let other = repo.at(&folder.path().join("other"));
    let refused = other.run(["repo", "restore", text(&taken)]).failure(1);
    assert!(refused.contains("no snapshot"), "{refused}");
    let refused = other
        .run(["repo", "restore", text(&folder.path().join("none"))])
        .failure(1);
    assert!(refused.contains("no snapshot"), "{refused}");
    assert!(!other.path().exists());
    let daemon = repo.daemon();
    let refused = daemon.post("repo/snapshot", "arg=relative");
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("not absolute"),
        "{}",
        refused.text()
    );
    // What a running daemon has is not restored from.
    let refused = other.run(["repo", "restore", text(repo.path())]).failure(1);
    assert!(refused.contains("in use"), "{refused}");
    let mut left: Vec<_> = files(folder.path()).into_keys().collect();
    left.retain(|name| !name.contains('/'));
    assert_eq!(left, ["copy", "taken"]);
    drop(daemon);
}

#[test]
fn a_snapshot_that_lost_something_is_refused_and_the_loss_named() {
    let repo = Repo::new(CAIRN);
    repo.run_with(["add", "-Q"], b"hello world").success();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    repo.ok(["repo", "snapshot", text(&copy)]);
    let segment = copy.join("blocks/leaf-000001.car");
    let bytes = fs::read(&segment).unwrap();
    let mut rotten = bytes.clone();
    *rotten.last_mut().unwrap() ^= 1;
    let other = repo.at(&folder.path().join("other"));
    fs::write(&segment, &rotten).unwrap();
    // Only who looks at every block sees that.
    let refused = other
        .run(["repo", "restore", "--verify", text(&copy)])
        .failure(1);
    assert!(refused.contains(HELLO_V1), "{refused}");
    assert!(
        refused.contains(text(&copy)) && !refused.contains("unfinished"),
        "{refused}"
    );
    assert!(!other.path().exists());
    fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    let refused = other.run(["repo", "restore", text(&copy)]).failure(1);
    assert!(refused.contains("leaf-000001"), "{refused}");
    fs::write(&segment, &bytes).unwrap();
    other
        .run(["repo", "restore", "--verify", text(&copy)])
        .success();
    assert_eq!(other.ok(["cat", HELLO_V1]), "hello world");
}

#[test]
fn on_another_disk_it_is_copied_and_one_that_is_full_is_left_as_it_was() {
    let Some(mut mounts) = Mounts::new() else {
        return;
    };
    mounts.run("mount -t tmpfs -o size=64m none /mnt");
    let mnt = mounts.path(Path::new("/mnt"));
    both(|repo| {
        repo.ok(["add", "-Q", "--pin=false", &{
            let folder = repo.path().join("big");
            fs::write(&folder, tree::bytes(1, 24 << 20)).unwrap();
            text(&folder).to_owned()
        }]);
        let copy = mnt.join("copy");
        let told = json(&repo.ok(["repo", "snapshot", "--json", text(&copy)]));
        assert_eq!(told["Copied"], told["Bytes"], "{told}");
        assert!(told["Bytes"].as_u64() > Some(24 << 20), "{told}");
        // Its own files: what is written there stays there.
        let inode = |root: &Path| {
            fs::metadata(root.join("blocks/leaf-000001.car"))
                .unwrap()
                .dev()
        };
        assert_ne!(inode(repo.path()), inode(&copy));
        fs::write(mnt.join("filler"), vec![0; 16 << 20]).unwrap();
        let refused = repo
            .run(["repo", "snapshot", text(&mnt.join("more"))])
            .failure(1);
        assert!(
            refused.contains("no space left") && refused.contains("more"),
            "{refused}"
        );
        // The one segment may grow, here and there, so a link will not do.
        let restored = repo.at(&mnt.join("restored"));
        let refused = restored.run(["repo", "restore", text(&copy)]).failure(1);
        assert!(refused.contains("no space left"), "{refused}");
        let mut left: Vec<_> = fs::read_dir(&mnt)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["copy", "filler"]);
        fs::remove_dir_all(&copy).unwrap();
        fs::remove_file(mnt.join("filler")).unwrap();
        repo.run_with(["add", "-Q"], b"goes on").success();
    });
}
