//! Pins that are made in the background, by real daemons that are stopped and killed.

use harness::scenario::{EMPTY_FOLDER_V1, HELLO_V1, hello, json};

use harness::{Daemon, Repo, tree, wait_for, wait_until};
use serde_json::Value;
use std::fs;
use std::path::Path;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A repository that gives up a fetch a second after its last progress.
fn hasty() -> Repo {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "fetch.timeout", "1s"]);
    repo
}

fn make_folder(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for at in 0..40 {
        fs::write(folder.join(format!("file-{at:02}")), tree::bytes(at, 1000)).unwrap();
    }
}

fn add(repo: &Repo, folder: &Path) -> String {
    let path = folder.to_str().unwrap();
    repo.ok(["add", "-r", "-Q", "--raw-leaves", "--pin=false", path])
}

/// What `pin ls --status all` says of it, as a value.
fn status(repo: &Repo, root: &str) -> Value {
    let listed = repo.ok(["pin", "ls", "--status", "all", "--stream", "--json"]);
    let mut lines = listed.lines().map(json);
    lines
        .find(|line| line["Cid"] == root)
        .unwrap_or(Value::Null)
}

fn comes_to(repo: &Repo, root: &str, wanted: &str) -> Value {
    wait_for(wanted, || {
        let line = status(repo, root);
        match line["Status"] == wanted {
            true => Ok(line),
            false => Err(line.to_string()),
        }
    })
}

fn blocks_received(daemon: &Daemon) -> f64 {
    daemon.metric("cairn_bitswap_blocks_received_total")
}

#[test]
fn a_queued_pin_survives_a_kill_and_is_made_when_somebody_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let root = add(&giver, &source);
    let daemon = taker.daemon();
    let line = ["pin", "add", "--background", "--name", "kept", &root];
    assert_eq!(taker.ok(line), format!("queued {root}"));
    daemon.kill();
    let daemon = taker.daemon();
    let waiting = comes_to(&taker, &root, "waiting");
    let reason = waiting["Reason"].as_str().unwrap();
    assert!(reason.contains(&root), "{waiting}");
    assert_eq!(waiting["Name"], "kept");
    assert_eq!(taker.ok(["pin", "ls"]), "");
    // What somebody asks for while it waits is refused or changes it, but never a pin without its blocks.
    let giving = giver.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(taker.ok(["pin", "retry", &root]), format!("queued {root}"));
    comes_to(&taker, &root, "pinned");
    assert_eq!(
        taker.ok(["pin", "ls", "-t", "recursive", "--names"]),
        format!("{root} recursive kept")
    );
    for status in ["queued", "fetching", "waiting", "failed"] {
        assert_eq!(taker.ok(["pin", "ls", "--status", status]), "");
    }
    daemon.kill();
    assert_eq!(
        taker.ok(["pin", "verify", "--verbose"]),
        format!("{root} ok")
    );
    let _daemon = taker.daemon();
    assert_eq!(status(&taker, &root)["Status"], "pinned");
}

#[test]
fn after_a_restart_a_job_fetches_only_what_is_not_here() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let root = add(&giver, &source);
    let missing = ["file-03", "file-17", "file-39"].map(|name| {
        let resolved = giver.ok(["resolve", &format!("/ipfs/{root}/{name}")]);
        resolved.trim_start_matches("/ipfs/").to_owned()
    });
    let names = missing.iter().map(String::as_str);
    giver.ok(["block", "rm"].into_iter().chain(names));
    let giving = giver.daemon();
    let daemon = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    taker.ok(["pin", "add", "--background", &root]);
    let waiting = comes_to(&taker, &root, "waiting");
    assert_eq!(waiting["Blocks"], 38, "{waiting}");
    assert!(
        waiting["Total"].as_u64() > waiting["Bytes"].as_u64(),
        "{waiting}"
    );
    for cid in &missing {
        assert!(
            waiting["Reason"].as_str().unwrap().contains(cid.as_str()),
            "{waiting}"
        );
    }
    // What it has is held.
    assert_eq!(taker.ok(["repo", "gc"]), "");
    let (stopped, _) = daemon.stop();
    assert!(stopped.success());
    add(&giver, &source);
    let daemon = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    wait_until("it is pinned", || {
        // It may have begun before they were connected; then it waits.
        taker.run(["pin", "retry", "--all"]).success();
        status(&taker, &root)["Status"] == "pinned"
    });
    assert_eq!(blocks_received(&daemon), 3.0);
}

#[test]
fn without_a_daemon_a_job_waits_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    giver.ok(["add", "--pin=false", &hello(folder.path())]);
    let queued = taker.run(["pin", "add", "--background", "--priority", "7", HELLO_V1]);
    assert!(queued.stderr.contains("no daemon"), "{queued:?}");
    assert_eq!(queued.success().text(), format!("queued {HELLO_V1}"));
    let line = status(&taker, HELLO_V1);
    assert_eq!(
        (&line["Status"], &line["Priority"]),
        (&"queued".into(), &7.into())
    );
    assert!(
        line["Reason"].as_str().unwrap().contains("no daemon"),
        "{line}"
    );
    let listed = taker.ok(["pin", "ls", "--status", "queued"]);
    assert!(
        listed.starts_with(&format!("{HELLO_V1} recursive queued 0 blocks")),
        "{listed}"
    );
    let absent = taker.run(["pin", "ls", HELLO_V1]).failure(1);
    assert!(absent.ends_with("is not pinned"), "{absent}");
    let giving = giver.daemon();
    let _daemon = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    wait_until("it is pinned", || {
        taker.run(["pin", "retry", "--all"]).success();
        status(&taker, HELLO_V1)["Status"] == "pinned"
    });
    // What is pinned has nothing to wait for.
    let again = taker.ok(["pin", "add", "--background", HELLO_V1]);
    assert_eq!(again, format!("pinned {HELLO_V1} recursively"));
}

#[test]
fn a_job_is_cancelled_by_name_or_by_unpinning_and_never_made_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = hello(folder.path());
    for served in [false, true] {
        let repo = hasty();
        let daemon = served.then(|| repo.daemon());
        let unknown = repo.run(["pin", "cancel", HELLO_V1]).failure(1);
        assert!(unknown.contains("not in the queue"), "{unknown}");
        repo.ok(["pin", "add", "--background", HELLO_V1]);
        let none = repo
            .run(["pin", "cancel", HELLO_V1, EMPTY_FOLDER_V1])
            .failure(1);
        let told = format!(
            "nothing was cancelled: {EMPTY_FOLDER_V1} is not in the queue of pins; the other one stays as it is"
        );
        assert!(none.ends_with(&told), "{none}");
        assert_ne!(status(&repo, HELLO_V1), Value::Null);
        for end in ["cancel", "rm"] {
            repo.ok(["pin", "add", "--background", HELLO_V1]);
            assert_eq!(
                repo.ok(["pin", end, HELLO_V1]),
                format!("cancelled {HELLO_V1}, which was in the queue")
            );
            assert_eq!(status(&repo, HELLO_V1), Value::Null);
        }
        let gone = repo.run(["pin", "rm", HELLO_V1]).failure(1);
        assert!(gone.ends_with("not pinned or pinned indirectly"), "{gone}");
        // Queued for the whole, pinned alone: both go.
        repo.ok(["add", "--pin=false", &path]);
        repo.ok(["pin", "add", "-r=false", HELLO_V1]);
        if !served {
            repo.ok(["pin", "add", "--background", HELLO_V1]);
            repo.ok(["pin", "rm", HELLO_V1]);
            assert_eq!(status(&repo, HELLO_V1), Value::Null);
            assert_eq!(repo.ok(["pin", "ls"]), "");
        }
        if let Some(daemon) = daemon {
            daemon.kill();
        }
    }
}

#[test]
fn what_can_never_be_pinned_fails_with_its_reason_until_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let repo = hasty();
    repo.ok(["add", "--pin=false", &hello(folder.path())]);
    let daemon = repo.daemon();
    repo.ok(["pin", "add", "--background", "--max-size", "5B", HELLO_V1]);
    let failed = comes_to(&repo, HELLO_V1, "failed");
    let reason = failed["Reason"].as_str().unwrap();
    assert!(
        reason.contains("5 bytes at most") && reason.contains("11"),
        "{reason}"
    );
    daemon.kill();
    let _daemon = repo.daemon();
    assert_eq!(status(&repo, HELLO_V1)["Reason"], reason);
    repo.ok(["pin", "cancel", HELLO_V1]);
    assert_eq!(status(&repo, HELLO_V1), Value::Null);
}
