//! Damage to the files of a repository, met by the real program: it works or says in one line
//! which file it cannot use. What the store makes of damage is tried in `store/tests/damage.rs`.

use harness::{Done, Repo, tree};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");
const KEY: &str = "identity.key";
const CONFIG: &str = "config.toml";

/// Damaged forms of a file, `None` where it is removed.
fn damaged(good: &[u8], seed: u64, flips: usize) -> Vec<Option<Vec<u8>>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut forms = vec![None, Some(Vec::new()), Some(vec![0; good.len()])];
    for _ in 0..flips {
        let mut flipped = good.to_vec();
        flipped[random.random_range(0..good.len())] ^= 1 << random.random_range(0..8);
        forms.push(Some(flipped));
    }
    for _ in 0..flips / 4 {
        forms.push(Some(good[..random.random_range(0..good.len())].to_vec()));
    }
    forms.push(Some([good, good].concat()));
    forms
}

fn write(path: &Path, form: Option<&[u8]>) {
    match form {
        None => fs::remove_file(path).unwrap(),
        Some(bytes) => {
            fs::write(path, bytes).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// One line that names the file.
#[track_caller]
fn names(done: Done, file: &str) {
    let told = done.failure(1);
    assert!(!told.contains('\n') && told.contains(file), "{told}");
}

#[test]
fn a_node_whose_key_is_damaged_or_gone_gets_no_new_one() {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], b"kept").success().text();
    let name = repo.ok(["id", "-f", "<id>"]);
    let path = repo.path().join(KEY);
    let good = fs::read(&path).unwrap();
    for (at, form) in damaged(&good, 21, 12).into_iter().enumerate() {
        write(&path, form.as_deref());
        names(repo.run(["id"]), KEY);
        if at < 5 {
            names(repo.refused_daemon(), KEY);
        }
        repo.run(["init"]).failure(1);
        assert_eq!(repo.ok(["cat", &cid]), "kept", "blocks need no key");
        assert_eq!(fs::read(&path).ok(), form, "nobody wrote to it");
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(repo.ok(["id", "-f", "<id>"]), name);
    }
}

#[test]
fn a_folder_with_blocks_gets_no_new_key_when_its_configuration_is_gone_too() {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], b"kept").success().text();
    let (key, config) = (repo.path().join(KEY), repo.path().join(CONFIG));
    let good = fs::read(&key).unwrap();
    fs::remove_file(&config).unwrap();
    fs::remove_file(&key).unwrap();
    names(repo.run(["init"]), KEY);
    assert!(!key.exists() && !config.exists());
    // With its key back, only the configuration is made anew.
    write(&key, Some(&good));
    repo.ok(["init"]);
    assert_eq!(fs::read(&key).unwrap(), good);
    assert_eq!(repo.ok(["cat", &cid]), "kept");
    assert!(repo.ok(["pin", "ls"]).contains(&cid));
}

#[test]
fn a_damaged_configuration_is_refused_by_name_or_does_no_harm() {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], b"kept").success().text();
    let path = repo.path().join(CONFIG);
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for form in damaged(&good, 22, 60) {
        write(&path, form.as_deref());
        let done = repo.run(["cat", "--offline", &cid]);
        match (&form, done.code) {
            (None, _) => names(done, repo.path().to_str().unwrap()),
            (Some(_), Some(0)) => assert_eq!(done.text(), "kept"),
            (Some(_), _) => {
                refused += 1;
                let told = done.failure(1);
                assert!(
                    told.contains(CONFIG) && told.lines().count() <= LINES_MAX,
                    "{told}"
                );
            }
        }
        assert_eq!(fs::read(&path).ok(), form, "nobody wrote to it");
        fs::write(&path, &good).unwrap();
    }
    assert!(refused > 5, "{refused} were seen");
}

#[test]
fn what_tells_where_a_daemon_listens_may_hold_anything() {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], b"kept").success().text();
    let forms: [&[u8]; 6] = [
        b"",
        b"\xff\x00\xff",
        b"/ip4/127.0.0.1/tcp/1",
        b"/ip4/127.0.0.1/tcp/99999",
        b"/dns4/example.invalid/tcp/80",
        &[b'/'; 100_000],
    ];
    for form in forms {
        for file in ["api", "gateway"] {
            fs::write(repo.path().join(file), form).unwrap();
        }
        assert_eq!(repo.ok(["cat", &cid]), "kept");
    }
    let daemon = repo.daemon();
    let api = repo.path().join("api");
    let good = fs::read(&api).unwrap();
    fs::write(&api, forms[1]).unwrap();
    names(repo.run(["cat", &cid]), "repo.lock");
    fs::remove_file(&api).unwrap();
    names(repo.run(["cat", &cid]), "repo.lock");
    fs::write(&api, good).unwrap();
    assert_eq!(repo.ok(["cat", &cid]), "kept");
    assert!(daemon.stop().0.success());
}

#[test]
fn a_version_that_is_damaged_or_of_the_future_is_refused() {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], b"kept").success().text();
    let path = repo.path().join("version");
    let good = fs::read(&path).unwrap();
    for form in [&b""[..], b"banana", b"\xff\xfe", &[0; 4096]] {
        fs::write(&path, form).unwrap();
        names(repo.run(["cat", &cid]), "version");
        assert_eq!(fs::read(&path).unwrap(), form);
    }
    fs::write(&path, "4000000000\n").unwrap();
    names(repo.run(["cat", &cid]), "4000000000");
    fs::write(&path, good).unwrap();
    assert_eq!(repo.ok(["cat", &cid]), "kept");
}

#[test]
fn folders_that_are_gone_cost_nothing_but_what_was_in_them() {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], b"kept").success().text();
    for folder in ["index", "keystore", "denylists", "peers"] {
        let _ = fs::remove_dir_all(repo.path().join(folder));
        assert_eq!(repo.ok(["cat", &cid]), "kept", "without {folder}");
    }
    let daemon = repo.daemon();
    assert_eq!(daemon.get(&format!("/ipfs/{cid}"), &[]).text(), "kept");
    assert!(daemon.stop().0.success());
}

#[test]
fn a_flipped_byte_is_found_by_verify_and_never_read() {
    let repo = Repo::new(CAIRN);
    let seeds = 0..8u64;
    let contents: Vec<Vec<u8>> = seeds.map(|seed| tree::bytes(seed, 30_000)).collect();
    let cids: Vec<String> = contents
        .iter()
        .map(|content| repo.run_with(["add", "-Q"], content).success().text())
        .collect();
    let path = repo.path().join("blocks/leaf-000001.car");
    for (hit, content) in contents.iter().enumerate() {
        let mut bytes = fs::read(&path).unwrap();
        let start = bytes
            .windows(content.len())
            .position(|window| window == content)
            .unwrap();
        bytes[start + 1000 + 3000 * hit] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let verified = repo.run(["repo", "verify"]);
        assert_eq!(verified.code, Some(1), "{verified:?}");
        let told = format!("{}{}", verified.text(), verified.stderr);
        for (at, cid) in cids.iter().enumerate() {
            assert_eq!(told.contains(cid), at == hit, "{told}");
            let done = repo.run(["cat", "--offline", cid]);
            if at == hit {
                assert_eq!(done.stdout, b"");
                let told = done.failure(1);
                assert!(told.lines().last().unwrap().contains(cid), "{told}");
            } else {
                assert_eq!(done.success().stdout, contents[at]);
            }
        }
        // Added again, it is whole again.
        repo.run_with(["add", "-Q"], content).success();
        assert_eq!(repo.run(["cat", &cids[hit]]).success().stdout, *content);
        repo.ok(["repo", "verify"]);
    }
}

/// A configuration error shows the place, which takes some lines.
const LINES_MAX: usize = 8;
