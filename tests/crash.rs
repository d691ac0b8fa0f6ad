//! Killed at any moment, the repository opens again and holds what was acknowledged.

use harness::{Repo, tree};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

#[test]
fn an_add_that_is_killed_leaves_a_repository_that_opens_and_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    tree::make(&source, 11, 150);
    let repo = Repo::new(CAIRN);
    let first = repo
        .run_with(["add", "-Q"], b"acknowledged")
        .success()
        .text();
    // Killed after so many lines of progress; the last round runs to its end.
    for lines in [1, 5, 20, 60, 120] {
        let mut child = repo
            .command(["add", "-r", source.to_str().unwrap()])
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..lines {
            output.next().unwrap().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(repo.ok(["cat", &first]), "acknowledged");
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "recursive"]),
            format!("{first} recursive")
        );
        assert!(repo.ok(["repo", "verify"]).contains("all blocks validated"));
    }
    let root = repo.ok(["add", "-r", "-Q", source.to_str().unwrap()]);
    let out = folder.path().join("out");
    repo.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert_eq!(tree::read(&out), tree::read(&source));
}

#[test]
fn what_a_killed_daemon_acknowledged_is_there() {
    let repo = Repo::new(CAIRN);
    let mut acknowledged = Vec::new();
    for round in 0..4u64 {
        let daemon = repo.daemon();
        for at in 0..10 {
            let content = tree::bytes(round * 100 + at, 30_000);
            let cid = repo.run_with(["add", "-Q"], &content).success().text();
            acknowledged.push((cid, content));
        }
        daemon.kill();
    }
    let pins = repo.ok(["pin", "ls", "-q", "-t", "recursive"]);
    for (cid, content) in acknowledged {
        assert!(pins.contains(&cid));
        assert_eq!(repo.run(["cat", &cid]).success().stdout, content);
    }
}

#[test]
fn without_its_index_the_repository_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    tree::make(&source, 12, 60);
    let repo = Repo::new(CAIRN);
    let root = repo.ok(["add", "-r", "-Q", source.to_str().unwrap()]);
    let gone = repo
        .run_with(["block", "put"], b"soon gone")
        .success()
        .text();
    repo.ok(["block", "rm", &gone]);
    // All but what other programs change as well.
    let stat = || {
        let text = repo.ok(["repo", "stat"]);
        let lines = text.lines().filter(|line| !line.starts_with("DiskFree"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = stat();
    fs::remove_dir_all(repo.path().join("index")).unwrap();
    assert_eq!(stat(), before);
    assert_eq!(repo.run(["block", "get", "--offline", &gone]).code, Some(1));
    let out = folder.path().join("out");
    repo.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert_eq!(tree::read(&out), tree::read(&source));
}

#[test]
fn what_a_killed_daemon_had_fetched_for_nobody_in_particular_is_there() {
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let add = |content: &[u8]| giver.run_with(["add", "-Q"], content).success().text();
    let content = tree::bytes(21, 3_000_000);
    let (pinned, read) = (add(b"kept"), add(&content));
    let giving = giver.daemon();
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    // So that the journal knows the segment to which the blocks of the next fetch go.
    taker.ok(["pin", "add", &pinned]);
    assert_eq!(taker.run(["cat", &read]).success().stdout, content);
    let begun = Instant::now();
    while !would_be_there(&taker, &read) {
        assert!(
            begun.elapsed() < COMMITTED_WITHIN,
            "nobody commits what was fetched"
        );
    }
    taking.kill();
    giving.kill();
    assert_eq!(taker.run(["cat", &read]).success().stdout, content);
}

/// Whether a kill at this moment would leave all of `cid`: what is in the files now, opened elsewhere.
fn would_be_there(repo: &Repo, cid: &str) -> bool {
    let elsewhere = Repo::empty(CAIRN);
    copy(repo.path(), elsewhere.path());
    elsewhere.run(["cat", cid]).code == Some(0)
}

/// What counts of a repository, without its index.
fn copy(from: &Path, to: &Path) {
    let copied = |name: &str| fs::copy(from.join(name), to.join(name)).unwrap();
    copied("version");
    copied("config.toml");
    for folder in ["journal", "blocks"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for entry in fs::read_dir(from.join(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            copied(&format!("{folder}/{}", name.to_str().unwrap()));
        }
    }
}

/// The longest that a fetched block may be unknown to the journal, with much patience for a busy machine.
const COMMITTED_WITHIN: Duration = Duration::from_secs(60);
