//! `key`: alone and through a daemon, sealed and plain, killed, and that nothing shows a key.

use harness::scenario::{json, lines};
use harness::{Daemon, Repo, http, scenario, wait_until};
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");
const WORDS: &str = "correct horse battery staple";

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

/// The same repository, whose program is given a passphrase.
fn with(repo: &Repo, words: &str) -> Repo {
    repo.under(["env", &format!("CAIRN_PASSPHRASE={words}")])
}

/// The keys of a repository: IDs by name.
fn keys(repo: &Repo) -> HashMap<String, String> {
    let answer = json(&repo.ok(["key", "ls", "--json"]));
    let keys = answer["Keys"].as_array().unwrap().clone();
    let pair = |key: &serde_json::Value| {
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        (text("Name"), text("Id"))
    };
    keys.iter().map(pair).collect()
}

fn file_of(repo: &Repo, encoded: &str) -> PathBuf {
    repo.path().join("keystore").join(format!("key_{encoded}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn keys_are_made_listed_renamed_and_removed() {
    both(|repo| {
        let a = repo.ok(["key", "gen", "a"]);
        assert!(a.starts_with("k51qzi5uqu5d"), "{a}");
        let b = repo.ok(["key", "gen", "--type=secp256k1", "b"]);
        assert!(b.starts_with("kzwfwjn5ji4p"), "{b}");
        let peer = repo.ok(["key", "gen", "c", "--ipns-base", "b58mh"]);
        assert!(peer.starts_with("12D3KooW"), "{peer}");
        assert_eq!(lines(&repo.ok(["key", "list"])), ["self", "a", "b", "c"]);
        let long = repo.ok(["key", "ls", "-l", "--ipns-base=b58mh"]);
        let id = json(&repo.ok(["id", "--json"]))["ID"]
            .as_str()
            .unwrap()
            .to_owned();
        let row = |at: usize| lines(&long)[at].split_whitespace().collect::<Vec<_>>();
        assert_eq!(
            (row(0), row(3)),
            (vec![id.as_str(), "self"], vec![peer.as_str(), "c"])
        );
        assert_eq!(
            repo.ok(["key", "rename", "c", "d"]).split(' ').next(),
            Some("Key")
        );
        let refused = repo.run(["key", "rename", "a", "b"]).failure(1);
        assert!(
            refused.contains("key with name 'b' already exists"),
            "{refused}"
        );
        let forced = repo.ok(["key", "rename", "--force", "a", "b"]);
        assert_eq!(forced, format!("Key {a} renamed to b with overwriting"));
        assert_eq!(repo.ok(["key", "rm", "-l", "b"]), format!("{a} b"));
        assert_eq!(lines(&repo.ok(["key", "ls"])), ["self", "d"]);
        for (line, words) in [
            (vec!["key", "gen", "d"], "key with name 'd' already exists"),
            (
                vec!["key", "gen", "self"],
                "cannot create key with name 'self'",
            ),
            (
                vec!["key", "rm", "self"],
                "cannot remove key with name 'self'",
            ),
            (vec!["key", "rm", "nobody"], "no key named nobody was found"),
            (
                vec!["key", "rename", "self", "e"],
                "cannot rename key with name 'self'",
            ),
            (
                vec!["key", "rename", "-f", "d", "self"],
                "cannot overwrite key with name 'self'",
            ),
            (vec!["key", "gen", "a/b"], "it has a slash in it"),
            (
                vec!["key", "gen", "-t", "dsa", "e"],
                "there are ed25519, rsa and secp256k1",
            ),
            (
                vec!["key", "ls", "--ipns-base", "base99"],
                "unknown multibase",
            ),
        ] {
            let told = repo.run(line).failure(1);
            assert!(told.contains(words), "{told}");
        }
        // None of several goes if one is not there.
        repo.ok(["key", "gen", "e"]);
        repo.run(["key", "rm", "e", "nobody"]).failure(1);
        assert_eq!(lines(&repo.ok(["key", "rm", "e", "d", "e"])), ["e", "d"]);
    });
}

#[test]
fn keys_go_out_and_come_in_again_in_both_forms() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        for (kind, size) in [("ed25519", "256"), ("secp256k1", "-1"), ("rsa", "2048")] {
            let id = repo.ok(["key", "gen", kind, "--type", kind, "--size", size]);
            for form in ["libp2p-protobuf-cleartext", "pem-pkcs8-cleartext"] {
                let path = folder.path().join(format!("{kind}-{form}"));
                let to = format!("--output={}", path.display());
                assert_eq!(repo.ok(["key", "export", kind, &to, "--format", form]), "");
                assert_eq!(
                    fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                    0o600
                );
                let name = format!("{kind}-{form}");
                let import = ["key", "import", &name, text(&path), "-f", form];
                assert_eq!(repo.ok(import), id);
                let again = repo.run(import).failure(1);
                assert!(again.contains("already exists"), "{again}");
                let other = match form {
                    "pem-pkcs8-cleartext" => "libp2p-protobuf-cleartext",
                    _ => "pem-pkcs8-cleartext",
                };
                let wrong = ["key", "import", "x", text(&path), "-f", other];
                let hint = format!("try again with --format={form}");
                let told = repo.run(wrong).failure(1);
                assert!(told.contains(&hint), "{told}");
                // Standard input and output will do as well.
                let piped = repo
                    .run(["key", "export", kind, "-o", "-", "-f", form])
                    .success();
                assert_eq!(piped.stdout, fs::read(&path).unwrap());
                let import = ["key", "import", "piped", "-", "-f", form];
                assert_eq!(repo.run_with(import, &piped.stdout).success().text(), id);
                repo.ok(["key", "rm", "piped"]);
            }
        }
        let own = repo.run(["key", "export", "self"]).failure(1);
        assert!(own.contains("cannot export key with name 'self'"), "{own}");
        let none = repo.run(["key", "export", "nobody"]).failure(1);
        assert!(none.contains("no key named nobody"), "{none}");
    });
}

#[test]
fn openssl_reads_what_was_exported_and_is_read() {
    let openssl = |arguments: &[&str]| {
        let run = std::process::Command::new("openssl")
            .args(arguments)
            .output();
        run.ok().filter(|output| output.status.success())
    };
    if openssl(&["version"]).is_none() {
        harness::tell_skipped("there is no openssl");
        return;
    }
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    for kind in ["ed25519", "secp256k1", "rsa"] {
        repo.ok(["key", "gen", kind, "-t", kind]);
        repo.ok([
            "key",
            "export",
            kind,
            "-f",
            "pem-pkcs8-cleartext",
            "-o",
            text(&path),
        ]);
        let again = openssl(&["pkey", "-in", text(&path)]).expect(kind);
        assert_eq!(again.stdout, fs::read(&path).unwrap(), "{kind}");
    }
    let p256 = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-out",
        text(&path),
    ];
    openssl(&p256).expect("a key");
    let import = [
        "key",
        "import",
        "p",
        "-f",
        "pem-pkcs8-cleartext",
        text(&path),
    ];
    let refused = repo.run(import).failure(1);
    assert!(refused.contains("--allow-any-key-type"), "{refused}");
    repo.ok([&import[..], &["--allow-any-key-type"]].concat());
}

#[test]
fn what_is_signed_is_verified_with_the_key_or_its_name() {
    both(|repo| {
        let id = repo.ok(["key", "gen", "a"]);
        let signature = repo
            .run_with(["key", "sign", "-k", "a"], b"text")
            .success()
            .text();
        assert!(signature.starts_with('u'), "{signature}");
        for key in ["a", &id] {
            let verify = ["key", "verify", "-k", key, "-s", &signature];
            let valid = repo.run_with(verify, b"text").success().text();
            assert_eq!(valid, format!("valid, {id}"));
            let other = repo.run_with(verify, b"texts");
            assert_eq!(
                (other.text(), other.code),
                (format!("invalid, {id}"), Some(1))
            );
        }
        let own = repo.run_with(["key", "verify", "-s", &signature], b"text");
        assert_eq!(own.code, Some(1));
        let none = repo
            .run_with(["key", "verify", "-k", "x", "-s", &signature], b"text")
            .failure(1);
        assert!(none.contains("no key named x"), "{none}");
    });
}

#[test]
fn sealed_keys_need_the_secret_and_listing_does_not() {
    let repo = Repo::new(CAIRN);
    let id = repo.ok(["key", "gen", "plain"]);
    let nothing = repo.run(["key", "seal"]).failure(1);
    assert!(nothing.contains("$CAIRN_PASSPHRASE"), "{nothing}");
    let open = with(&repo, WORDS);
    open.ok(["key", "gen", "sealed"]);
    repo.ok(["key", "export", "plain", "-o", "-"]);
    let locked = repo.run(["key", "export", "sealed", "-o", "-"]).failure(1);
    assert!(
        locked.contains("is sealed with a passphrase, and none was given"),
        "{locked}"
    );

    let before = keys(&repo);
    assert_eq!(
        lines(&open.ok(["key", "seal"])),
        ["sealed self", "sealed plain"]
    );
    assert_eq!(open.ok(["key", "seal"]), "");
    assert_eq!(keys(&repo), before);
    let wrong = with(&repo, "wrong")
        .run(["key", "sign", "-k", "plain"])
        .failure(1);
    assert!(wrong.contains("not with the one that was given"), "{wrong}");
    let refused = repo.refused_daemon().failure(1);
    assert!(
        refused.contains("identity.key is sealed with a passphrase"),
        "{refused}"
    );
    let daemon = open.daemon();
    let running = daemon.call("key/list", "");
    assert_eq!(running["Keys"].as_array().unwrap().len(), 3);
    // Beside it keys are read, and sealed anew by nobody.
    open.ok(["key", "export", "plain", "-o", "-"]);
    let beside = open.run(["key", "seal"]).failure(1);
    assert!(beside.contains("a daemon runs"), "{beside}");
    assert_eq!(daemon.call("key/gen", "arg=more")["Name"], "more");
    drop(daemon);
    repo.run(["key", "export", "more", "-o", "-"]).failure(1);

    // To a key file, whose passphrase is configured still.
    let secret = repo.path().join("secret");
    fs::write(&secret, [7; 40]).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    repo.ok(["config", "set", "keystore.key_file", "secret"]);
    let too_open = open.run(["key", "seal"]).failure(1);
    assert!(too_open.contains("chmod 600"), "{too_open}");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(lines(&open.ok(["key", "seal"])).len(), 4);
    assert_eq!(keys(&repo)["plain"], id);
    let daemon = repo.daemon();
    assert_eq!(
        daemon.call("key/list", "")["Keys"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    drop(daemon);
    // Back to a passphrase, and to none.
    let words = repo.path().join("words");
    fs::write(&words, "new words\n").unwrap();
    fs::set_permissions(&words, Permissions::from_mode(0o600)).unwrap();
    repo.ok(["config", "set", "keystore.key_file", ""]);
    repo.ok(["config", "set", "keystore.passphrase_file", "words"]);
    let failed = repo.run(["key", "seal"]);
    assert_eq!(failed.code, Some(1));
    assert!(
        failed.stderr.contains("name the key file"),
        "{}",
        failed.stderr
    );
    assert_eq!(
        lines(&repo.ok(["key", "seal", "--old-key-file", text(&secret)])).len(),
        4
    );
    assert_eq!(lines(&repo.ok(["key", "seal", "--plain"])).len(), 4);
    repo.ok(["config", "set", "keystore.passphrase_file", ""]);
    repo.ok(["key", "export", "sealed", "-o", "-"]);
    drop(repo.daemon());
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_fix() {
    both(|repo| {
        repo.ok(["key", "gen", "a"]);
        let path = file_of(repo, "me");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let refused = repo.run_with(["key", "sign", "-k", "a"], b"x").failure(1);
        assert!(
            refused.contains(&format!("run `chmod 600 {}`", path.display())),
            "{refused}"
        );
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        repo.run_with(["key", "sign", "-k", "a"], b"x").success();
    });
}

#[test]
fn a_daemon_that_is_killed_keeps_every_key_that_it_told_of() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let rpc = daemon.rpc();
    let told = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let told = &told;
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{thread}-{number}");
                    let target = format!("/api/v0/key/gen?arg={name}");
                    // The last one is cut off.
                    let Ok(answer) = http::request(rpc, "POST", &target, &[], b"") else {
                        break;
                    };
                    if answer.status != 200 {
                        break;
                    }
                    let key: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                    told.lock()
                        .unwrap()
                        .push((name, key["Id"].as_str().unwrap().to_owned()));
                }
            });
        }
        wait_until("forty keys", || told.lock().unwrap().len() >= 40);
        daemon.kill();
    });
    let listed = repo.run(["key", "ls", "--json"]).success();
    assert_eq!(listed.stderr, "", "no file is damaged");
    let found = keys(&repo);
    for (name, id) in told.into_inner().unwrap() {
        assert_eq!(found.get(&name), Some(&id), "{name}");
    }
    for name in found.keys().filter(|name| *name != "self") {
        repo.run_with(["key", "sign", "-k", name], b"x").success();
    }
}

#[test]
fn sealing_that_is_killed_leaves_every_key_whole() {
    let repo = Repo::new(CAIRN);
    let secret = repo.path().join("secret");
    fs::write(&secret, [7; 32]).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let daemon = repo.daemon();
    for number in 0..120 {
        daemon.call("key/gen", &format!("arg=k{number}"));
    }
    daemon.stop();
    let before = keys(&repo);
    repo.ok(["config", "set", "keystore.key_file", "secret"]);
    let sealed = || {
        let files = fs::read_dir(repo.path().join("keystore")).unwrap();
        let is_sealed = |path: &PathBuf| fs::read(path).is_ok_and(|file| file.get(9) == Some(&2));
        files
            .map(|file| file.unwrap().path())
            .filter(is_sealed)
            .count()
    };
    let mut sealing = repo.command(["key", "seal"]).spawn().unwrap();
    wait_until("some keys are sealed", || sealed() >= 10);
    sealing.kill().unwrap();
    sealing.wait().unwrap();
    assert_eq!(keys(&repo), before);
    for name in ["k0", "k60", "k119"] {
        repo.run_with(["key", "sign", "-k", name], b"x").success();
    }
    repo.ok(["key", "seal"]);
    assert_eq!((sealed(), keys(&repo)), (120, before));
    let names = fs::read_dir(repo.path().join("keystore")).unwrap();
    let left = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".new_key");
    assert!(!names.flatten().any(left));
}

/// How a text would show these bytes.
fn shapes(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| {
        let digits = bytes.iter().map(|byte| {
            if upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        });
        digits.collect::<String>()
    };
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
    let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let mut shapes = vec![
        bytes.to_vec(),
        hex(false).into_bytes(),
        hex(true).into_bytes(),
        list.join(", ").into_bytes(),
        list.join(",").into_bytes(),
        escaped.into_bytes(),
    ];
    // Base64 looks different at each of three places in its text.
    for from in 0..3 {
        let whole = base64(&bytes[from..from + (bytes.len() - from) / 3 * 3]);
        shapes.push(whole.into_bytes());
    }
    shapes
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let number = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(LETTERS[(number >> shift & 63) as usize]));
        }
    }
    text
}

#[test]
fn nothing_shows_a_key_or_a_secret() {
    let repo = Repo::new(CAIRN);
    let words = repo.path().join("words");
    fs::write(&words, format!("{WORDS}\n")).unwrap();
    fs::set_permissions(&words, Permissions::from_mode(0o600)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let own = fs::read(repo.path().join("identity.key")).unwrap();
    repo.ok(["config", "set", "keystore.passphrase_file", "words"]);
    repo.ok(["key", "seal"]);
    let log = folder.path().join("log");
    let mut command = repo.command(["daemon"]);
    command.env("CAIRN_LOG", "trace");
    let daemon = Daemon::start_logging(command, repo.path(), fs::File::create(&log).unwrap());
    let mut seen = Vec::new();
    let mut run = |arguments: &[&str]| {
        let done = repo.run(["--log=trace"].iter().chain(arguments));
        seen.extend(done.stdout);
        seen.extend(done.stderr.into_bytes());
    };
    for kind in ["ed25519", "secp256k1", "rsa"] {
        run(&["key", "gen", kind, "-t", kind]);
    }
    run(&["key", "ls", "-l"]);
    run(&["key", "rename", "rsa", "renamed"]);
    let path = folder.path().join("out");
    let mut hidden = vec![own[4..36].to_vec()];
    for name in ["ed25519", "secp256k1", "renamed"] {
        run(&["key", "export", name, "-o", text(&path)]);
        run(&["key", "import", &format!("{name}-again"), text(&path)]);
        let exported = fs::read(&path).unwrap();
        // Behind what is public: of RSA the second half, which holds the primes.
        let secret = match name {
            "renamed" => exported[exported.len() / 2..]
                .chunks(24)
                .next()
                .unwrap()
                .to_vec(),
            _ => exported[4..28].to_vec(),
        };
        hidden.push(secret);
        // Cut off, and refused.
        fs::write(&path, &exported[..exported.len() - 1]).unwrap();
        run(&["key", "import", "cut", text(&path)]);
        // In the wrong place.
        run(&[
            "key",
            "import",
            "wrong",
            text(&path),
            "-f",
            "pem-pkcs8-cleartext",
        ]);
    }
    run(&[
        "key",
        "export",
        "ed25519",
        "-o",
        text(&path),
        "-f",
        "pem-pkcs8-cleartext",
    ]);
    // As the JavaScript client does.
    let escape = |byte: &u8| format!("%{byte:02x}");
    let pem: String = fs::read(&path).unwrap().iter().map(escape).collect();
    daemon.call("key/import", &format!("arg=in-the-query&pem={pem}"));
    run(&["key", "sign", "-k", "ed25519", text(&path)]);
    run(&["key", "rm", "secp256k1"]);
    run(&["config", "show"]);
    run(&["config", "show", "--json"]);
    run(&["id"]);
    // Damaged and too open.
    let file = file_of(&repo, "mvsdenjvge4q");
    let mut whole = fs::read(&file).expect("the key's file");
    *whole.last_mut().unwrap() ^= 1;
    fs::write(&file, &whole).unwrap();
    run(&["key", "sign", "-k", "ed25519", text(&path)]);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    run(&["key", "sign", "-k", "ed25519", text(&path)]);
    let metrics = http::request(daemon.rpc(), "GET", "/metrics", &[], b"").unwrap();
    seen.extend(metrics.body);
    daemon.stop();
    seen.extend(fs::read(&log).unwrap());
    assert!(seen.len() > 10_000, "trace was on");
    assert!(contains(&seen, b"holds no usable key"), "it was damaged");

    let mut shown = vec![WORDS.as_bytes().to_vec()];
    shown.extend(
        hidden
            .iter()
            .flat_map(|secret| shapes(&secret[..24.min(secret.len())])),
    );
    for shape in shown {
        assert!(
            !contains(&seen, &shape),
            "{}",
            String::from_utf8_lossy(&shape)
        );
    }
    // Nor is it on the disk, now that it is sealed.
    for entry in fs::read_dir(repo.path().join("keystore")).unwrap() {
        let file = fs::read(entry.unwrap().path()).unwrap();
        assert!(
            hidden
                .iter()
                .all(|secret| !contains(&file, &secret[..24.min(secret.len())]))
        );
    }
    let identity = fs::read(repo.path().join("identity.key")).unwrap();
    assert!(!contains(&identity, &own[4..36]));
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[test]
fn no_core_is_dumped_of_the_daemon_or_a_command() {
    let limit = |limits: &str| {
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<String> = line
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        words[4].clone()
    };
    let repo = Repo::new(CAIRN);
    let generous = repo.under(["prlimit", "--core=1000000:1000000"]);
    let daemon = generous.daemon();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.process())).unwrap();
    assert_eq!(limit(&limits), "1");
    drop(daemon);
    // What a command starts has its limits.
    let mut command = generous.command(["config", "edit"]);
    command.env("VISUAL", "cat /proc/self/limits >&2; true");
    let told = command.output().unwrap();
    assert_eq!(limit(&String::from_utf8_lossy(&told.stderr)), "1");
    // Where there is less already, it stays.
    let daemon = repo.under(["prlimit", "--core=0:0"]).daemon();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.process())).unwrap();
    assert_eq!(limit(&limits), "0");
}
