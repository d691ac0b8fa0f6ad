//! `repo`: sizes, collections, damage and disks that take nothing more, alone and through a daemon.

use harness::scenario::{EMPTY_FOLDER_V1, HELLO_V1, damage, hello, json, lines};
use harness::{Daemon, Done, Repo, scenario, tree};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

/// The same on repositories that are prepared before anybody opens them.
fn both_with(prepare: impl Fn(&Repo), scenario: impl Fn(&Repo)) {
    scenario::both_with(CAIRN, prepare, scenario);
}

#[test]
fn repo_stat_tells_sizes_pins_and_the_scrub() {
    let settings = |repo: &Repo| {
        repo.ok(["config", "set", "storage.reserve", "3MB"]);
        repo.ok(["config", "set", "storage.cache_max", "5GB"]);
    };
    both_with(settings, |repo| {
        repo.run_with(["add", "-Q"], b"hello world").success();
        let stat = json(&repo.ok(["repo", "stat", "--json"]));
        assert_eq!(stat["NumObjects"], 1, "{stat}");
        assert_eq!(stat["RepoSize"], 11, "{stat}");
        assert_eq!(stat["Pins"], 1, "{stat}");
        assert_eq!(stat["CacheSize"], 0, "{stat}");
        assert_eq!(stat["CacheMax"], 5_000_000_000_u64, "{stat}");
        assert_eq!(stat["Reserve"], 3_000_000, "{stat}");
        assert!(stat["DiskFree"].as_u64() > Some(0), "{stat}");
        assert_eq!(stat["Scrub"]["Share"], 2, "{stat}");
        assert_eq!(stat["Scrub"]["Bad"], 0, "{stat}");
        let segment = fs::metadata(repo.path().join("blocks/leaf-000001.car")).unwrap();
        assert_eq!(stat["DiskSize"], segment.len(), "{stat}");
        let text = repo.ok(["repo", "stat", "--human"]);
        let rows: Vec<_> = text.lines().filter_map(|row| row.split_once(' ')).collect();
        let row = |name| {
            let row = rows.iter().find(|(found, _)| *found == name);
            row.unwrap_or_else(|| panic!("{text}")).1.trim()
        };
        assert_eq!(row("Reserve:"), "3.0 MB");
        assert_eq!(row("CacheMax:"), "5.0 GB");
        assert_eq!(row("Pins:"), "1");
        assert!(row("Scrub:").contains(" round "), "{text}");
        let sizes = repo.ok(["repo", "stat", "--size-only"]);
        assert_eq!(lines(&sizes), ["RepoSize:   11", "StorageMax: 10000000000"]);
    });
}

#[test]
fn repo_stat_tells_what_the_daemon_works_with_and_not_what_the_file_says_since() {
    let repo = Repo::new(CAIRN);
    let settings = [
        (
            "storage.max",
            "StorageMax",
            10_000_000_000_u64,
            20_000_000_000_u64,
        ),
        (
            "storage.cache_max",
            "CacheMax",
            10_000_000_000,
            5_000_000_000,
        ),
        ("storage.reserve", "Reserve", 0, 3_000_000),
    ];
    let daemon = repo.daemon();
    for (key, _, _, new) in settings {
        repo.ok(["config", "set", key, &new.to_string()]);
    }
    repo.ok(["config", "set", "storage.scrub_share", "7"]);
    let stat = json(&repo.ok(["repo", "stat", "--json"]));
    for (_, name, old, _) in settings {
        assert_eq!(stat[name], old, "{stat}");
    }
    assert_eq!(stat["Scrub"]["Share"], 2, "{stat}");
    assert!(daemon.stop().0.success());
    let stat = json(&repo.ok(["repo", "stat", "--json"]));
    for (_, name, _, new) in settings {
        assert_eq!(stat[name], new, "{stat}");
    }
    assert_eq!(stat["Scrub"]["Share"], 7, "{stat}");
}

#[test]
fn gc_removes_what_nothing_reaches_and_tells_it() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        let garbage = repo
            .run_with(["add", "-Q", "--pin=false"], b"rubbish")
            .success()
            .text();
        let before = json(&repo.ok(["repo", "stat", "--json"]));
        assert_eq!(before["NumObjects"], 2, "{before}");
        let removed = repo.run(["repo", "gc"]).success();
        assert_eq!(removed.text(), format!("removed {garbage}"));
        assert_eq!(removed.stderr, "", "no figures for those who do not watch");
        assert_eq!(repo.ok(["cat", HELLO_V1]), "hello world");
        assert!(repo.ok(["repo", "stat"]).contains("NumObjects: 1"));
        assert_eq!(repo.ok(["repo", "gc", "-q"]), "");
        let again = ["add", "-Q", "--pin=false"];
        repo.run_with(again, b"rubbish").success();
        assert_eq!(repo.ok(["repo", "gc", "-q"]), garbage);
        repo.run_with(again, b"rubbish").success();
        assert_eq!(repo.ok(["repo", "gc", "--silent"]), "");
        assert!(repo.ok(["repo", "stat"]).contains("NumObjects: 1"));
        assert!(
            repo.ok(["repo", "verify"])
                .contains("verify complete, all blocks validated.")
        );
    });
}

#[test]
fn gc_takes_a_flag_that_does_nothing_and_does_not_tell_of_it() {
    both(|repo| {
        let rubbish = repo.run_with(["add", "-Q", "--pin=false"], b"rubbish");
        let removed = format!("removed {}", rubbish.success().text());
        assert_eq!(repo.ok(["repo", "gc", "--stream-errors"]), removed);
        let help = repo.ok(["repo", "gc", "--help"]);
        assert!(
            help.contains("--silent") && !help.contains("--stream"),
            "{help}"
        );
    });
}

#[test]
fn gc_tells_how_far_it_is_to_those_who_ask() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    repo.run_with(["add", "-Q"], b"hello world").success();
    repo.run_with(["add", "-Q", "--pin=false"], b"rubbish")
        .success();
    let told = daemon.post("repo/gc", "progress=true").text();
    let told: Vec<Value> = told.lines().map(json).collect();
    assert_eq!(told[0]["Progress"]["Marked"], 1, "{told:?}");
    assert!(told[1]["Key"]["/"].is_string(), "{told:?}");
    let last = &told[told.len() - 1]["Progress"];
    assert_eq!(last["Removed"], 1, "{told:?}");
    assert_eq!(last["Compacted"], last["ToCompact"], "{told:?}");
    assert!(last["Freed"].as_u64() > Some(0), "{told:?}");
    drop(daemon);
}

#[test]
fn repo_verify_names_a_damaged_block_and_drops_it_when_asked() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        damage(repo, b"hello world");
        let failed = repo.run(["repo", "verify"]);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(
            failed
                .text()
                .starts_with(&format!("block {HELLO_V1} was corrupt (")),
            "{failed:?}"
        );
        assert_eq!(
            failed.stderr.trim(),
            "Error: verify complete, 1 blocks corrupt"
        );
        let read = repo.run(["cat", "--timeout=1s", "--offline", HELLO_V1]);
        let read = read.failure(1);
        assert!(
            read.contains(HELLO_V1) && read.contains("damaged on disk"),
            "{read}"
        );
        let dropped = repo.ok(["repo", "verify", "--drop"]);
        let dropped = lines(&dropped);
        assert!(dropped[0].ends_with("), dropped"), "{dropped:?}");
        assert_eq!(dropped[1], "verify complete, 1 blocks corrupt, 1 dropped");
        assert_eq!(
            repo.ok(["repo", "verify"]),
            "verify complete, all blocks validated."
        );
        let absent = repo.run(["cat", "--offline", HELLO_V1]).failure(1);
        assert!(absent.contains("not found"), "{absent}");
        let progress = repo.ok(["repo", "verify", "--json"]);
        let first = json(lines(&progress)[0]);
        assert_eq!(first["Bytes"], first["Total"], "{first}");
        // What was dropped can be added again, and is then as it was.
        repo.ok(["add", "-Q", &hello(folder.path())]);
        assert_eq!(repo.ok(["cat", HELLO_V1]), "hello world");
    });
    let alone = Repo::new(CAIRN);
    let refused = alone.run(["repo", "verify", "--heal"]).failure(1);
    assert!(refused.contains("cairn daemon"), "{refused}");
}

#[test]
fn repo_verify_drops_what_damage_has_taken_the_name_of() {
    both(|repo| {
        repo.run_with(["add", "-Q"], b"hello world").success();
        repo.run_with(["add", "-Q"], b"another").success();
        let digest: [u8; 4] = [0xb9, 0x4d, 0x27, 0xb9]; // Begins the SHA-256 of "hello world".
        damage(repo, &digest);
        let failed = repo.run(["repo", "verify"]);
        assert!(
            failed.text().starts_with("a block was corrupt ("),
            "{failed:?}"
        );
        assert!(failed.failure(1).contains("verify --drop"));
        let dropped = repo.ok(["repo", "verify", "--drop"]);
        assert_eq!(
            lines(&dropped)[1],
            "verify complete, 1 blocks corrupt, 1 dropped"
        );
        assert_eq!(
            repo.ok(["repo", "verify"]),
            "verify complete, all blocks validated."
        );
        let stat = json(&repo.ok(["repo", "stat", "--json"]));
        assert_eq!(stat["NumObjects"], 1, "{stat}");
    });
}

#[test]
fn repo_rebuild_makes_the_index_anew_from_the_blocks() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        damage(repo, b"hello world");
        let read = ["cat", "--offline", HELLO_V1];
        repo.run(read).failure(1);
        // The bytes are whole again, which only the index does not know.
        damage(repo, b"iello world");
        repo.run(read).failure(1);
        assert_eq!(repo.ok(["repo", "rebuild"]), "rebuilt the index of 1 block");
        assert_eq!(repo.ok(read), "hello world");
        let lines = repo.ok(["repo", "rebuild", "--json"]);
        assert_eq!(json(&lines)["Msg"], "rebuilt the index of 1 block");
    });
}

#[test]
fn an_opening_that_rebuilds_the_index_of_much_says_so() {
    let repo = Repo::new(CAIRN);
    // More than is read again without a word; no two chunks are alike.
    let mut much = vec![0; 260 << 20];
    for (at, chunk) in (0u64..).zip(much.chunks_mut(1 << 20)) {
        chunk[..8].copy_from_slice(&at.to_be_bytes());
    }
    let add = ["add", "-Q", "--pin=false", "--chunker=size-1048576"];
    repo.run_with(add, &much).success();
    let quick = repo.run(["repo", "stat"]).success();
    assert_eq!(quick.stderr, "");
    fs::remove_dir_all(repo.path().join("index")).unwrap();
    let told = repo.run(["repo", "stat"]).success().stderr;
    assert!(told.contains("rebuilding the index from 27"), "{told}");
    assert!(told.contains("MB of blocks"), "{told}");
}

#[test]
fn a_full_disk_stops_writing_with_a_clear_line_and_reading_goes_on() {
    let repo = Repo::new(CAIRN);
    repo.run_with(["add", "-Q"], b"hello world").success();
    // More than any disk has: the reserve is reached.
    repo.ok(["config", "set", "storage.reserve", "8000PiB"]);
    let full = repo.run_with(["add", "-Q"], b"something new").failure(1);
    assert!(
        full.contains("no space left") && full.contains("storage.reserve"),
        "{full}"
    );
    assert_eq!(repo.ok(["cat", HELLO_V1]), "hello world");
    assert_eq!(repo.ok(["repo", "gc"]), "");
    repo.ok(["config", "set", "storage.reserve", "0"]);
    repo.run_with(["add", "-Q"], b"something new").success();
}

/// The program over `repo` as if its folder lay on a file system that cannot be written: in a mount
/// namespace of its own, which `unshare` makes.
fn sealed(repo: &Repo, unshare: &[&str], arguments: &[&str]) -> Command {
    let remount = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@""#;
    let plain = repo.command(arguments);
    let mut command = Command::new("unshare");
    command
        .args(unshare)
        .args(["sh", "-c", remount])
        .arg(repo.path())
        .arg(plain.get_program())
        .args(arguments)
        .env("CAIRN_PATH", repo.path())
        .env_remove("CAIRN_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(mut command: Command) -> Done {
    command.output().expect("the program to start").into()
}

#[test]
fn a_repository_that_cannot_be_written_serves_all_that_only_reads() {
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let file = hello(folder.path());
    let root = repo.ok(["add", "-Q", "-w", &file]);
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let tried = sealed(&repo, way, &["version"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        harness::tell_skipped("`unshare` gives this user no mount namespace in which to mount");
        return;
    };
    let path = format!("{root}/hello.txt");
    let only_read = [
        &["cat", &path][..],
        &["ls", &root],
        &["refs", "-r", &root],
        &["refs", "local"],
        &["pin", "ls"],
        &["repo", "stat", "--size-only"],
        &["repo", "verify"],
        &["dag", "export", &root],
        &["add", "-n", "-Q", &file],
    ];
    let answers = only_read.map(|reads| repo.run(reads).success().stdout);
    let before = tree::read(repo.path());
    for (reads, answer) in only_read.into_iter().zip(answers) {
        let read = run(sealed(&repo, way, reads)).success();
        assert_eq!(read.stdout, answer, "{reads:?}");
    }
    let out = folder.path().join("out");
    let get = ["get", &path, "-o", out.to_str().unwrap()];
    run(sealed(&repo, way, &get)).success();
    assert_eq!(fs::read(&out).unwrap(), b"hello world");
    for writes in [
        &["add", "-Q", &file][..],
        &["block", "put", &file],
        &["dag", "import", &file],
        // Before anybody looks for it.
        &["pin", "add", EMPTY_FOLDER_V1],
        &["pin", "rm", &root],
        &["block", "rm", HELLO_V1],
        &["repo", "gc"],
        &["repo", "rebuild"],
        &["repo", "verify", "--drop"],
    ] {
        let refused = run(sealed(&repo, way, writes)).failure(1);
        let last = refused.lines().last().unwrap();
        assert!(
            last.starts_with("Error: the repository was opened for reading alone"),
            "{writes:?}: {refused}"
        );
    }

    let daemon = Daemon::start(sealed(&repo, way, &["daemon"]), repo.path());
    let listening = |what: &str| {
        let line = daemon.lines.iter().find_map(|line| line.strip_prefix(what));
        line.unwrap_or_else(|| panic!("{:?}", daemon.lines))
            .to_owned()
    };
    let gateway = listening("Gateway server listening on /ip4/127.0.0.1/tcp/");
    let gateway = (
        std::net::Ipv4Addr::LOCALHOST,
        gateway.parse::<u16>().unwrap(),
    )
        .into();
    let target = format!("/ipfs/{path}");
    let served = harness::http::request(gateway, "GET", &target, &[], b"").unwrap();
    assert_eq!(served.text(), "hello world");
    let api = listening("RPC API server listening on ");
    let asked = |arguments: &[&str]| repo.run([&["--api", &api], arguments].concat());
    assert_eq!(asked(&["cat", &path]).success().text(), "hello world");
    let refused = asked(&["add", "-Q", &file]).failure(1);
    assert!(refused.contains("opened for reading alone"), "{refused}");
    // What peers have passes through.
    let other = Repo::new(CAIRN);
    let elsewhere = other.run_with(["add", "-Q"], b"elsewhere").success().text();
    let giving = other.daemon();
    asked(&["swarm", "connect", &giving.swarm()]).success();
    for _ in 0..2 {
        assert_eq!(asked(&["cat", &elsewhere]).success().text(), "elsewhere");
    }
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status:?}");
    assert!(tree::read(repo.path()) == before, "something was written");
}
