//! `config`: shown, set, edited and refused.

use harness::{Mounts, Repo, scenario};
use std::fs;
use std::path::Path;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

#[test]
fn configuration_is_shown_set_and_guarded() {
    both(|repo| {
        assert_eq!(repo.ok(["config", "get", "network"]), "local");
        repo.ok(["config", "set", "network", "lan"]);
        assert_eq!(repo.ok(["config", "get", "network"]), "lan");
        repo.ok(["config", "set", "network", "local"]);
        repo.ok(["config", "set", "storage.max", "20GB"]);
        assert_eq!(repo.ok(["config", "get", "storage.max"]), "20GB");
        assert!(repo.ok(["config", "show"]).contains("20GB"));
        let typo = repo.run(["config", "set", "storage.mx", "1GB"]).failure(1);
        assert!(
            typo.contains("storage.max"),
            "names the nearest key: {typo}"
        );
        let wrong = repo.run(["config", "set", "network", "moon"]).failure(1);
        assert!(wrong.contains("moon"), "{wrong}");
        assert_eq!(
            repo.ok(["config", "get", "network"]),
            "local",
            "a refused value changes nothing"
        );
        let size = ["config", "set", "storage.segment_size", "1"];
        let told = repo.run(size).failure(1);
        let names = "Error: storage.segment_size: must be a number of bytes";
        assert!(told.starts_with(names), "{told}");
        for limit in ["upload", "download_per_peer", "memory"] {
            let key = format!("limits.{limit}");
            for (wrong, was) in [("0", "0"), ("0MB", "\"0MB\""), ("1.5MB", "\"1.5MB\"")] {
                let told = repo.run(["config", "set", &key, wrong]).failure(1);
                let is_named = told.starts_with(&format!("Error: {key}: must be a whole number"));
                let no_limit = format!("or \"unlimited\" for no limit, was {was}");
                assert!(is_named && told.ends_with(&no_limit), "{told}");
            }
            assert_eq!(repo.ok(["config", "get", &key]), "unlimited");
        }
        let peer = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWSHj3RRbBjD15g6wekV8y3mm57Pobmps2g2WJm6F67Lay";
        assert_eq!(repo.ok(["bootstrap", "list"]), "");
        assert_eq!(repo.ok(["bootstrap", "add", peer]), format!("added {peer}"));
        assert_eq!(repo.ok(["bootstrap", "list"]), peer);
        assert_eq!(
            repo.ok(["bootstrap", "rm", peer]),
            format!("removed {peer}")
        );
        assert_eq!(repo.ok(["bootstrap", "list"]), "");
    });
}

#[test]
fn no_change_of_the_configuration_is_lost_among_many_at_once() {
    both(|repo| {
        let keys = [
            "fetch.connections",
            "gateway.requests_max",
            "gateway.connections_max",
            "gateway.read_ahead_max",
            "gateway.ranges_max",
            "gateway.listing_entries_max",
            "gateway.archive_entries_max",
            "gateway.archive_bytes_max",
        ];
        for round in 1..4 {
            let value = round.to_string();
            let changes: Vec<_> = keys
                .iter()
                .map(|key| {
                    repo.command(["config", "set", key, &value])
                        .spawn()
                        .unwrap()
                })
                .collect();
            for change in changes {
                let output = change.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
            for key in keys {
                assert_eq!(repo.ok(["config", "get", key]), value, "{key}");
            }
        }
    });
}

#[test]
fn a_wrong_value_in_the_file_is_told_with_its_file_and_key() {
    let repo = Repo::new(CAIRN);
    let path = repo.path().join("config.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, key) in [
        (
            "scrub_share = 2",
            "scrub_share = 200",
            "storage.scrub_share",
        ),
        ("\nlevel = \"warn\"", "\nlevel = \"a=loud\"", "log.level"),
        ("\nupload = \"unlimited\"", "\nupload = 0", "limits.upload"),
    ] {
        assert!(good.contains(from), "{good}");
        fs::write(&path, good.replace(from, to)).unwrap();
        let told = repo.refused_daemon().failure(1);
        let names = format!("Error: {}: {key}: must be ", path.display());
        assert!(told.starts_with(&names), "{told}");
    }
}

#[test]
fn config_edit_takes_what_is_valid_and_leaves_no_copy() {
    let repo = Repo::new(CAIRN);
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(repo.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = listing();
    let edit = |editor: &str| {
        let mut command = repo.command(["config", "edit"]);
        command.env("EDITOR", editor).output().unwrap()
    };
    let edited = edit("sed -i 's/^network = .*/network = \"lan\"/'");
    assert!(edited.status.success(), "{edited:?}");
    assert_eq!(repo.ok(["config", "network"]), "lan");
    assert_eq!(listing(), before);
    assert!(!edit("false").status.success());
    assert_eq!(listing(), before);

    // Somebody else is not overruled, and no work is lost.
    let config = repo.path().join("config.toml");
    let meanwhile = format!("sed -i 's/\"lan\"/\"local\"/' {}; true", config.display());
    let edited = edit(&meanwhile);
    assert_eq!(edited.status.code(), Some(1), "{edited:?}");
    assert_eq!(repo.ok(["config", "network"]), "local");
    let kept = repo.path().join("config.edited.toml");
    assert!(fs::read_to_string(&kept).unwrap().contains("\"lan\""));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn config_edit_keeps_the_text_that_a_full_disk_has_no_room_for() {
    let Some(mut mounts) = Mounts::new() else {
        return;
    };
    mounts.run("mount -t tmpfs -o size=1m none /mnt");
    let repo = Repo::new(CAIRN).at(&mounts.path(Path::new("/mnt")));
    let config = repo.path().join("config.toml");
    let made = Repo::new(CAIRN);
    fs::copy(made.path().join("config.toml"), &config).unwrap();
    let before = fs::read(&config).unwrap();
    let fill = format!(
        "sed -i '1i # mine' \"$1\"; cat /dev/zero >{}/rest 2>/dev/null; true",
        repo.path().display()
    );
    let mut command = repo.command(["config", "edit"]);
    let edited = command.env("EDITOR", fill).output().unwrap();
    assert_eq!(edited.status.code(), Some(1), "{edited:?}");
    let told = String::from_utf8(edited.stderr).unwrap();
    let kept = repo.path().join("config.edited.toml");
    assert!(
        told.contains("cannot write") && told.contains(kept.to_str().unwrap()),
        "{told}"
    );
    let kept = fs::read(&kept).unwrap();
    assert_eq!(kept.strip_prefix(b"# mine\n"), Some(&before[..]));
    assert_eq!(fs::read(&config).unwrap(), before);
}

#[test]
fn what_a_change_keeps_away_is_told() {
    let repo = Repo::new(CAIRN);
    let set = |key: &str, value: &str| repo.run(["config", "set", key, value]).success().stderr;
    // Nothing is asked of them: no daemon runs.
    let gateways = r#"["http://127.0.0.1:1", "http://10.0.0.1:1"]"#;
    let told = set("fetch.gateways", gateways);
    let outside =
        "warning: the gateway http://10.0.0.1:1 is not asked: it is outside the network `local`";
    assert!(told.starts_with(outside), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert_eq!(set("network", "lan"), "");
    assert!(set("network", "local").starts_with(outside));
    assert_eq!(set("fetch.gateways", "[]"), "");
    let peer = "/ip4/10.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    for key in ["bootstrap", "swarm.peering"] {
        let told = set(key, &format!("[\"{peer}\"]"));
        assert!(
            told.contains(&format!("{peer} in `{key}` is not dialled")),
            "{told}"
        );
        assert_eq!(set(key, "[]"), "");
    }
    // What the daemon would not start with is refused at once, and named.
    let refused = |key: &str, value: &str| repo.run(["config", "set", key, value]).failure(1);
    let told = refused("addresses.swarm", r#"["/ip4/0.0.0.0/tcp/4001"]"#);
    assert!(told.contains("outside the network `local`"), "{told}");
    let told = refused("connections.high", "10");
    assert!(told.contains("`connections.low` is 64"), "{told}");
    let told = set("routing.endpoints", r#"["https://router.example"]"#);
    let outside = "warning: the router https://router.example is not asked: it is outside";
    assert!(told.starts_with(outside), "{told}");
    assert_eq!(set("routing.endpoints", "[]"), "");
    assert_eq!(set("limits.memory", "16MiB"), "");
    let daemon = repo.daemon();
    assert!(!set("limits.memory", "1TB").contains("warning"));
    // The program alone has more.
    let told = set("limits.memory", "16MiB");
    let over = "makes no new connections while it is over `limits.memory` = \"16MiB\"";
    assert!(told.contains("warning: ") && told.contains(over), "{told}");
    let asked = ["explain", "--timeout=2s", scenario::HELLO_V1];
    let told = repo.run(asked).text();
    let verdict = told.lines().last().unwrap();
    assert!(
        verdict.contains("not found: nobody could be asked: ") && verdict.contains(over),
        "{told}"
    );
    drop(daemon);
}
