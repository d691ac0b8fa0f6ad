//! `files`: the tree that is changed by path, alone and through a daemon, and killed in the middle of its changes.

use harness::scenario::{EMPTY_FOLDER_V1, HELLO_V0, HELLO_V1, json, lines};
use harness::{Repo, http, scenario, tree};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

fn write(repo: &Repo, path: &str, bytes: &[u8], options: &[&str]) {
    let line = ["files", "write", path]
        .into_iter()
        .chain(options.iter().copied());
    repo.run_with(line, bytes).success();
}

fn root(repo: &Repo) -> String {
    repo.ok(["files", "stat", "--hash", "/"]).trim().to_owned()
}

#[test]
fn a_tree_that_nobody_changed_is_an_empty_folder() {
    both(|repo| {
        assert_eq!(root(repo), EMPTY_FOLDER_V1);
        assert_eq!(repo.ok(["files", "ls"]), "");
        assert_eq!(
            json(&repo.ok(["files", "ls", "--json"]))["Entries"],
            serde_json::Value::Null
        );
        assert_eq!(repo.ok(["files", "mkdir", "-p", "/"]), "");
        // Reading writes nothing.
        assert_eq!(json(&repo.ok(["repo", "stat", "--json"]))["NumObjects"], 0);
    });
}

#[test]
fn files_are_written_read_and_told_of_as_kubo_does() {
    both(|repo| {
        write(
            repo,
            "/a/b/hello",
            b"hello world",
            &["--create", "--parents"],
        );
        assert_eq!(repo.ok(["files", "read", "/a/b/hello"]), "hello world");
        assert_eq!(
            repo.ok(["files", "read", "-o", "6", "-n", "3", "/a/b/hello"]),
            "wor"
        );
        // What was written by and by is what adding it gives.
        let stat = repo.ok(["files", "stat", "/a/b/hello"]);
        assert_eq!(
            lines(&stat),
            [
                HELLO_V1,
                "Size: 11",
                "CumulativeSize: 11",
                "ChildBlocks: 0",
                "Type: file",
                "Mode: not set (not set)",
                "Mtime: not set"
            ]
        );
        assert_eq!(
            repo.ok(["files", "ls", "-l", "/a/b"]),
            format!("hello\t{HELLO_V1}\t11")
        );
        assert_eq!(repo.ok(["files", "ls", "/a"]), "b");
        let listed = repo.ok(["files", "ls", "-l", "/"]);
        assert!(
            listed.starts_with("a/\tbafy") && listed.ends_with("\t0"),
            "{listed}"
        );
        let listed = json(&repo.ok(["files", "ls", "--json", "--long", "/a/b"]));
        assert_eq!(
            listed.to_string(),
            format!(r#"{{"Entries":[{{"Name":"hello","Type":0,"Size":11,"Hash":"{HELLO_V1}"}}]}}"#)
        );
        write(repo, "/a/b/hello", b"HE", &[]);
        write(repo, "/a/b/hello", b"!", &["--offset", "11"]);
        write(repo, "/a/b/hello", b"lost", &["--offset=14", "--count=1"]);
        assert_eq!(
            repo.ok(["files", "read", "/a/b/hello"]),
            "HEllo world!\0\0l"
        );
        write(repo, "/a/b/hello", b"new", &["--truncate"]);
        assert_eq!(repo.ok(["files", "read", "/a/b/hello"]), "new");
        repo.ok(["files", "chmod", "0640", "/a/b/hello"]);
        repo.ok(["files", "touch", "--mtime", "1630937926", "/a/b/hello"]);
        let stat = repo.ok([
            "files",
            "stat",
            "--format",
            "<mode> <mode-octal> <mtime>",
            "/a/b/hello",
        ]);
        assert_eq!(stat, "-rw-r----- 0640 6 Sep 2021, 14:18:46 UTC");
        // 1970 and what was before it are times like others; none at all means now.
        for (seconds, text) in [
            ("0", "1 Jan 1970, 00:00:00 UTC 0"),
            ("-1", "31 Dec 1969, 23:59:59 UTC -1"),
        ] {
            repo.ok(["files", "touch", "--mtime", seconds, "/a/b/hello"]);
            let format = "--format=<mtime> <mtime-secs>";
            assert_eq!(repo.ok(["files", "stat", format, "/a/b/hello"]), text);
        }
        repo.ok(["files", "touch", "/a/b/hello"]);
        let now = repo.ok(["files", "stat", "--format=<mtime-secs>", "/a/b/hello"]);
        assert!(now.parse::<u64>().unwrap() > 1_700_000_000, "{now}");
        let local = repo.ok(["files", "stat", "--with-local", "/"]);
        assert!(
            local.contains("Local: ") && local.contains("(100.00%)"),
            "{local}"
        );
    });
}

#[test]
fn a_large_file_that_is_written_is_what_adding_it_gives() {
    both(|repo| {
        let bytes = tree::bytes(5, 5_300_000);
        let added = repo
            .run_with(["add", "-Q", "--pin=false"], &bytes)
            .success()
            .text();
        write(repo, "/large", &bytes, &["--create"]);
        assert_eq!(repo.ok(["files", "stat", "--hash", "/large"]), added);
        // Over several chunks, from the middle of one into the middle of another.
        let mut changed = bytes.clone();
        let patch = tree::bytes(6, 2_500_000);
        changed[1_000_000..3_500_000].copy_from_slice(&patch);
        write(repo, "/large", &patch, &["--offset", "1000000"]);
        let added = repo
            .run_with(["add", "-Q", "--pin=false"], &changed)
            .success()
            .text();
        assert_eq!(repo.ok(["files", "stat", "--hash", "/large"]), added);
        for (option, prefix) in [("--cid-version=0", "Qm"), ("--hash=sha2-512", "bafkrgq")] {
            write(repo, "/named", b"x", &["--create", option]);
            let named = repo.ok(["files", "stat", "--hash", "/named"]);
            assert!(named.starts_with(prefix), "{option}: {named}");
            repo.ok(["files", "rm", "/named"]);
        }
    });
}

#[test]
fn what_is_copied_moved_and_removed() {
    both(|repo| {
        let added = repo
            .run_with(["add", "-Q", "--pin=false"], b"hello world")
            .success()
            .text();
        let content = format!("/ipfs/{}", added.trim());
        repo.ok(["files", "cp", &content, "/one"]);
        repo.ok(["files", "mkdir", "/folder"]);
        repo.ok(["files", "cp", "/one", "/folder/"]);
        repo.ok(["files", "cp", "-p", "/one", "/made/on/the/way"]);
        repo.ok(["files", "mv", "/one", "/folder/two"]);
        assert_eq!(repo.ok(["files", "ls", "/folder"]), "one\ntwo");
        repo.ok(["files", "mv", "/folder", "/made"]);
        assert_eq!(repo.ok(["files", "ls", "/"]), "made");
        assert_eq!(repo.ok(["files", "ls", "/made"]), "folder\non");
        assert_eq!(
            repo.ok(["files", "read", "/made/folder/two"]),
            "hello world"
        );
        repo.ok(["files", "rm", "/made/folder/two"]);
        repo.ok(["files", "rm", "-r", "/made/on", "/made/folder"]);
        repo.ok(["files", "rm", "--force", "/not/there"]);
        assert_eq!(repo.ok(["files", "ls", "/made"]), "");
        // Content in the place of a path.
        assert_eq!(repo.ok(["files", "stat", "--size", &content]), "11");
    });
}

#[test]
fn what_cannot_be_done_is_refused_in_the_words_of_kubo() {
    both(|repo| {
        write(repo, "/file", b"x", &["--create"]);
        repo.ok(["files", "mkdir", "/folder"]);
        let before = root(repo);
        let refused = |line: &[&str], why: &str| {
            let error = repo.run(line.iter().copied()).failure(1);
            assert!(error.contains(why), "{line:?}: {error}");
        };
        for (line, why) in [
            (&["files", "stat", "/gone"][..], "file does not exist"),
            (&["files", "ls", "/gone"], "/gone: file does not exist"),
            (&["files", "read", "/gone"], "/gone: file does not exist"),
            (&["files", "read", "/folder"], "/folder was not a file"),
            (
                &["files", "read", "-o", "5", "/file"],
                "offset was past end of file (5 > 1)",
            ),
            (
                &["files", "mkdir", "/folder"],
                "/folder: file already exists",
            ),
            (&["files", "mkdir", "/a/b"], "/a/b: file does not exist"),
            (
                &["files", "cp", "/ipfs/notacid", "/x"],
                "cp: cannot get node from path /ipfs/notacid: ",
            ),
            (&["files", "stat", "/ipfs/notacid"], "notacid"),
            (
                &["files", "mkdir", "/"],
                "cannot create directory '/': Already exists",
            ),
            (
                &["files", "mkdir", "folder"],
                "paths must start with a leading slash",
            ),
            (
                &["files", "cp", "/gone", "/x"],
                "cp: cannot get node from path /gone: file does not exist",
            ),
            (
                &["files", "cp", "/file", "/folder"],
                "directory already has entry by that name",
            ),
            (&["files", "cp", "/file", "/file/x"], "is not a directory"),
            (&["files", "cp", "/file", "/a/b"], "file does not exist"),
            (
                &["files", "mv", "/gone", "/x"],
                "/gone to /x: file does not exist",
            ),
            (
                &["files", "mv", "/folder", "/folder/x"],
                "cannot move /folder into itself",
            ),
            (&["files", "mv", "/", "/x"], "cannot move the root"),
            (
                &["files", "rm", "/folder"],
                "path is a directory, use -r to remove directories",
            ),
            (&["files", "rm", "/"], "cannot delete root"),
            (&["files", "rm", "/gone"], "file does not exist"),
            (
                &["files", "--flush=false", "rm", "/file"],
                "files rm always flushes for safety",
            ),
            (
                &["files", "chcid", "--cid-version=0", "/file"],
                "can only update directories",
            ),
            (&["files", "chmod", "9", "/file"], "is no mode"),
        ] {
            refused(line, why);
        }
        let error = repo.run_with(["files", "write", "/gone"], b"x").failure(1);
        assert!(error.contains("file does not exist"), "{error}");
        let error = repo
            .run_with(["files", "write", "-e", "/folder"], b"x")
            .failure(1);
        assert!(error.contains("/folder was not a file"), "{error}");
        for line in [&["cp", "/ipfs/notacid", "/x"][..], &["ls", "/ipfs/notacid"]] {
            let error = repo.run(["files"].iter().chain(line)).failure(1);
            assert!(!error.contains("does not exist"), "{error}");
        }
        assert_eq!(root(repo), before);
    });
}

#[test]
fn what_is_in_the_tree_is_collected_by_nobody_and_what_was_removed_is() {
    both(|repo| {
        write(
            repo,
            "/a/keep",
            &tree::bytes(1, 3_000_000),
            &["--create", "--parents"],
        );
        write(repo, "/gone", &tree::bytes(2, 3_000_000), &["--create"]);
        let gone = repo.ok(["files", "stat", "--hash", "/gone"]);
        repo.ok(["repo", "gc", "-q"]);
        let kept = repo.ok(["files", "stat", "--hash", "/a/keep"]);
        let refused = repo.run(["block", "rm", kept.trim()]).failure(1);
        assert!(refused.contains("in the file tree"), "{refused}");
        repo.ok(["files", "rm", "/gone"]);
        let removed = repo.ok(["repo", "gc", "-q"]);
        assert!(
            removed.contains(gone.trim()) && !removed.contains(kept.trim()),
            "{removed}"
        );
        repo.ok(["files", "read", "/a/keep"]);
        repo.ok(["block", "rm", "--force", gone.trim()]);
    });
}

#[test]
fn what_is_not_flushed_is_seen_at_once_and_written_by_the_next_flush_or_a_stop() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    repo.ok(["files", "mkdir", "/flushed"]);
    let durable = root(&repo);
    repo.ok(["files", "mkdir", "--flush=false", "/lost"]);
    write(&repo, "/lost/file", b"lost", &["-e", "--flush=false"]);
    write(&repo, "/lost/file", b"!", &["-o", "4", "--flush=false"]);
    assert_eq!(repo.ok(["files", "read", "/lost/file"]), "lost!");
    assert_ne!(root(&repo), durable);
    daemon.kill();
    assert_eq!(root(&repo), durable);
    let daemon = repo.daemon();
    repo.ok(["files", "mkdir", "--flush=false", "/kept"]);
    let printed = repo.ok(["files", "flush"]);
    daemon.kill();
    assert_eq!(root(&repo), printed.trim());
    let daemon = repo.daemon();
    write(&repo, "/kept/file", b"stopped", &["-e", "--flush=false"]);
    daemon.stop();
    assert_eq!(repo.ok(["files", "read", "/kept/file"]), "stopped");
    // Alone, a command flushes before it ends.
    repo.ok(["files", "mkdir", "--flush=false", "/alone"]);
    assert_eq!(repo.ok(["files", "ls"]), "alone\nflushed\nkept");
}

#[test]
fn what_is_named_before_it_is_flushed_can_be_had_and_collected_by_nobody() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    repo.ok(["files", "mkdir", "/flushed"]);
    let durable = root(&repo);
    repo.ok(["files", "mkdir", "--flush=false", "/a"]);
    write(&repo, "/a/file", b"hello world", &["-e", "--flush=false"]);
    let named = root(&repo);
    repo.ok(["repo", "gc"]);
    assert_eq!(
        repo.ok(["cat", &format!("/ipfs/{named}/a/file")]),
        "hello world"
    );
    write(&repo, "/a/other", b"other", &["-e", "--flush=false"]);
    let listed = repo.ok(["files", "ls", "-l", "/"]);
    let folder = lines(&listed)[0].split('\t').nth(1).unwrap();
    assert_eq!(repo.ok(["cat", &format!("/ipfs/{folder}/other")]), "other");
    // That it was named makes it no more durable.
    daemon.kill();
    assert_eq!(root(&repo), durable);
}

#[test]
fn a_folder_whose_blocks_are_named_otherwise_holds_the_same_and_names_what_is_new_in_it_so() {
    both(|repo| {
        write(repo, "/a/old", b"hello world", &["-e", "-p"]);
        let before = repo.ok(["files", "stat", "--hash", "/a"]);
        repo.ok(["files", "chcid", "--cid-version=0", "/a"]);
        let after = repo.ok(["files", "stat", "--hash", "/a"]);
        assert!(
            before.starts_with("bafy") && after.starts_with("Qm"),
            "{before} {after}"
        );
        write(repo, "/a/new", b"hello world", &["-e"]);
        assert_eq!(
            repo.ok(["files", "ls", "-l", "/a"]),
            format!("new\t{HELLO_V0}\t11\nold\t{HELLO_V1}\t11")
        );
        repo.ok(["files", "chcid", "--hash=blake3", "/a"]);
        let named = repo.ok(["files", "stat", "--hash", "/a"]);
        assert!(named.starts_with("bafyb4i"), "{named}");
        assert_eq!(repo.ok(["files", "read", "/a/new"]), "hello world");
        // What is above it stays as it was.
        assert!(root(repo).starts_with("bafybei"));
    });
}

#[test]
fn only_what_changes_the_tree_offers_to_flush_later() {
    let repo = Repo::new(CAIRN);
    for (command, offers) in [
        ("ls", false),
        ("stat", false),
        ("read", false),
        ("rm", false),
        ("cp", true),
        ("mv", true),
        ("mkdir", true),
        ("write", true),
        ("chcid", true),
        ("chmod", true),
        ("touch", true),
    ] {
        let help = repo.ok(["files", command, "--help"]);
        assert_eq!(help.contains("--flush"), offers, "{command}: {help}");
    }
}

#[test]
fn more_changes_than_may_wait_are_flushed_without_being_asked() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    for at in 0..300 {
        let answer = daemon.post("files/mkdir", &format!("arg=/f{at}&flush=false"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    daemon.kill();
    let left = repo.ok(["files", "ls"]);
    assert_eq!(lines(&left).len(), cairn_store::files::OPERATIONS_MAX);
}

#[test]
fn killed_in_the_middle_of_many_changes_it_has_all_that_were_acknowledged() {
    let repo = Repo::new(CAIRN);
    for round in 0..4 {
        let daemon = repo.daemon();
        let acknowledged: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (worker, done) in acknowledged.iter().enumerate() {
                let (daemon, stop) = (&daemon, &stop);
                scope.spawn(move || {
                    let folder = format!("/round{round}/worker{worker}");
                    let mut at = 0_u64;
                    while !stop.load(Ordering::Acquire) {
                        let query = match at % 3 {
                            0 => ("files/mkdir", format!("arg={folder}/n{at}&parents=true")),
                            1 => (
                                "files/cp",
                                format!("arg={folder}/n{}&arg={folder}/n{at}", at - 1),
                            ),
                            _ => (
                                "files/mv",
                                format!("arg={folder}/n{}&arg={folder}/n{at}", at - 1),
                            ),
                        };
                        let target = format!("/api/v0/{}?{}", query.0, query.1);
                        let answer = http::request(daemon.rpc(), "POST", &target, &[], b"");
                        let Ok(answer) = answer else {
                            return; // It is dead.
                        };
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        at += 1;
                        done.store(at, Ordering::Release);
                    }
                });
            }
            harness::wait_until("some changes", || {
                acknowledged
                    .iter()
                    .all(|done| done.load(Ordering::Acquire) > 9)
            });
            daemon.kill_at_once();
            stop.store(true, Ordering::Release);
        });
        drop(daemon);
        repo.ok(["repo", "verify"]);
        for (worker, done) in acknowledged.iter().enumerate() {
            let done = done.load(Ordering::Acquire);
            let listed = repo.ok(["files", "ls", &format!("/round{round}/worker{worker}")]);
            let is_there = |at: u64| lines(&listed).contains(&format!("n{at}").as_str());
            for at in 0..done {
                // What was copied was moved on by the next change, which may have been under way.
                let moved = at % 3 == 1 && (at + 1 < done || is_there(at + 1));
                assert_eq!(
                    is_there(at),
                    !moved,
                    "round {round}, worker {worker}, {at}: {listed}"
                );
            }
        }
        // All of it can be read: a pin walks it.
        let pinned = repo.run(["pin", "add", &root(&repo)]);
        pinned.success();
    }
}
