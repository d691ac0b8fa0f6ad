//! What an operator does not want is neither served, followed, fetched nor given to peers, from the line on that says so.

use harness::{Daemon, Repo, tree, wait_until};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// The node's own list.
fn list(repo: &Repo) -> PathBuf {
    repo.path().join("denylists/own.deny")
}

fn write(repo: &Repo, text: &str) {
    fs::write(list(repo), text).unwrap();
    // Looks at the files.
    repo.ok(["denylist", "ls"]);
}

/// A folder with files, each of one block.
struct Tree {
    root: String,
    files: Vec<String>,
}

fn add(repo: &Repo, seed: u64) -> Tree {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let file = folder.path().join(format!("file{number}"));
        fs::write(file, tree::bytes(seed + number, 1000)).unwrap();
    }
    let root = repo.ok(["add", "-r", "-Q", folder.path().to_str().unwrap()]);
    let file = |number| repo.ok(["resolve", &format!("/ipfs/{root}/file{number}")]);
    let cid = |path: String| path.trim_start_matches("/ipfs/").to_owned();
    Tree {
        files: (0..3).map(file).map(cid).collect(),
        root,
    }
}

fn status(daemon: &Daemon, path: &str) -> u16 {
    daemon.get(path, &[]).status
}

#[test]
fn the_gateway_tells_what_is_gone_and_what_the_law_forbids() {
    let repo = Repo::new(CAIRN);
    let Tree { root, files } = add(&repo, 1);
    fs::write(
        list(&repo),
        format!(
            "name: a list\n---\n/ipfs/{}\n/ipfs/{root}/file1 status:451\n/ipns/denied.example\n",
            files[0]
        ),
    )
    .unwrap();
    let daemon = repo.daemon();
    assert_eq!(status(&daemon, &format!("/ipfs/{root}/")), 200);
    assert_eq!(status(&daemon, &format!("/ipfs/{root}/file2")), 200);
    let gone = daemon.get(&format!("/ipfs/{}", files[0]), &[]);
    assert_eq!(gone.status, 410);
    let text = gone.text();
    assert!(
        text.contains(&files[0]) && text.contains("line 3 of the denylist own.deny"),
        "{text}"
    );
    // The same block under the name that a folder gives it, in every form, and without asking others.
    let below = format!("/ipfs/{root}/file0");
    assert_eq!(status(&daemon, &below), 410);
    assert_eq!(status(&daemon, &format!("{below}?format=raw")), 410);
    let tag = format!("\"{}\"", files[0]);
    assert_eq!(daemon.get(&below, &[("if-none-match", &tag)]).status, 410);
    assert_eq!(
        daemon
            .get(&below, &[("cache-control", "only-if-cached")])
            .status,
        410
    );
    assert_eq!(status(&daemon, &format!("/ipfs/{root}/file1")), 451);
    // A path is denied as it is asked for, and not what it leads to.
    assert_eq!(status(&daemon, &format!("/ipfs/{}", files[1])), 200);
    assert_eq!(status(&daemon, "/ipns/denied.example"), 410);
    let told = repo.ok(["denylist", "check", &format!("/ipfs/{root}/file1")]);
    let own = list(&repo).display().to_string();
    let expected = format!(
        "/ipfs/{root}/file1 is denied by line 4 of {own}, /ipfs/{root}/file1 status:451; the gateway answers 451"
    );
    assert_eq!(told, expected);
    // As it stands in the address bar of somebody who complains.
    let url = format!("https://{root}.ipfs.dweb.example/file1?download=true");
    assert_eq!(repo.ok(["denylist", "check", &url]), expected);
    let told = repo.ok(["denylist", "check", &root]);
    assert_eq!(
        told,
        format!(
            "/ipfs/{root} is not denied: no rule names it or what it lies in (what lies on the way to it is not looked up)"
        )
    );
    let told = repo.ok(["denylist", "check", "denied.example/below"]);
    let start = "/ipns/denied.example/below is denied with /ipns/denied.example by line 5 of ";
    assert!(told.starts_with(start), "{told}");
    let listed = repo.ok(["denylist", "ls"]);
    let start = format!("{own} (a list): rules 3, lines left out 0, read 20");
    assert!(listed.starts_with(&start), "{listed}");
    // The page of the root has no path that is denied; that of the name, and of what the law forbids, is one.
    assert_eq!(
        daemon.metric("cairn_denylist_refused_total{at=\"path\"}"),
        3.0
    );
    assert_eq!(daemon.metric("cairn_denylist_rules"), 3.0);
}

#[test]
fn lines_that_do_not_hold_are_listed_with_their_reasons_and_told_to_who_scrapes() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    write(&repo, "/ipfs/nothing\n/ipns/denied.example\n/other/thing\n");
    let listed = repo.ok(["denylist", "ls"]);
    let mut lines = listed.lines();
    assert!(
        lines.next().unwrap().contains("rules 1, lines left out 2"),
        "{listed}"
    );
    assert!(lines.next().unwrap().starts_with("  line 1: "), "{listed}");
    let last = "  line 3: it begins with none of /ipfs/, /ipld/, /ipns/ and //";
    assert_eq!(lines.next(), Some(last));
    assert_eq!(daemon.metric("cairn_denylist_lines_skipped"), 2.0);
    write(&repo, "version: 2\n---\n");
    let listed = repo.ok(["denylist", "ls"]);
    assert!(
        listed.contains("the rules it had hold: it is of the version \"2\""),
        "{listed}"
    );
    assert_eq!(status(&daemon, "/ipns/denied.example"), 410);
    assert_eq!(daemon.metric("cairn_denylist_lists_failed"), 1.0);
}

#[test]
fn a_daemon_does_not_serve_without_a_list_that_it_cannot_read() {
    let repo = Repo::new(CAIRN);
    for broken in [
        &b"version: 2\n---\n"[..],
        b"name: \xff\n---\n",
        b"a: [\n---\n",
        b"<html><title>404 Not Found</title></html>\n",
    ] {
        fs::write(list(&repo), broken).unwrap();
        let told = repo.refused_daemon().failure(1);
        let own = list(&repo).display().to_string();
        assert!(told.contains(&own) && told.contains("Mend them"), "{told}");
    }
    fs::remove_file(list(&repo)).unwrap();
    std::os::unix::fs::symlink("nowhere", list(&repo)).unwrap();
    let told = repo.refused_daemon().failure(1);
    assert!(told.contains("it is a link to nothing"), "{told}");
    // What is wrong is listed all the same, and other commands go on.
    let listed = repo.ok(["denylist", "ls"]);
    assert!(
        listed.contains("never read\n  nothing of it holds: "),
        "{listed}"
    );
    fs::remove_file(list(&repo)).unwrap();
    drop(repo.daemon());
}

#[test]
fn commands_refuse_what_is_denied_and_it_can_still_be_unpinned_and_removed() {
    let repo = Repo::new(CAIRN);
    let Tree { root, files } = add(&repo, 10);
    let denied = &files[0];
    fs::write(list(&repo), format!("/ipfs/{denied}\n/ipfs/{root}/file1\n")).unwrap();
    for with_daemon in [false, true] {
        let _daemon = with_daemon.then(|| repo.daemon());
        let below = format!("/ipfs/{root}/file0");
        for command in [
            &["cat", denied][..],
            &["cat", &below],
            &["get", &below],
            &["ls", &below],
            &["resolve", &below],
            &["block", "get", denied],
            &["dag", "get", denied],
            &["dag", "export", denied],
            &["refs", denied],
            &["pin", "add", denied],
            &["explain", denied],
            &["--offline", "cat", denied],
            &["cat", &format!("/ipfs/{root}/file1")],
        ] {
            let told = repo.run(command).failure(1);
            assert!(
                told.contains("is blocked and cannot be provided"),
                "{command:?}: {told}"
            );
            assert!(
                told.contains("of the denylist own.deny"),
                "{command:?}: {told}"
            );
        }
        repo.ok(["cat", &files[1]]);
        repo.ok(["pin", "verify"]);
    }
    repo.ok(["pin", "rm", &root]);
    repo.ok(["block", "rm", denied]);
}

#[test]
fn peers_are_not_given_what_is_denied_and_a_line_holds_without_a_restart() {
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let Tree { files, .. } = add(&giver, 20);
    let (giving, _taking) = (giver.daemon(), taker.daemon());
    taker.ok(["swarm", "connect", &giving.swarm()]);
    taker.ok(["cat", &files[2]]);
    write(&giver, &format!("/ipfs/{}\n", files[0]));
    let told = taker.run(["cat", "--timeout=1s", &files[0]]).failure(1);
    assert!(!told.contains("is blocked"), "nobody learns why: {told}");
    assert!(giving.metric("cairn_denylist_refused_total{at=\"serve\"}") >= 1.0);
    for command in ["provide", "findprovs"] {
        let told = giver.run(["routing", command, &files[0]]).failure(1);
        assert!(
            told.contains("of the denylist own.deny"),
            "{command}: {told}"
        );
    }
    assert_eq!(status(&giving, &format!("/ipfs/{}", files[1])), 200);

    // Appended as anybody would; the node looks by itself.
    let mut own = OpenOptions::new().append(true).open(list(&giver)).unwrap();
    writeln!(own, "/ipfs/{}", files[1]).unwrap();
    let path = format!("/ipfs/{}", files[1]);
    wait_until("the new line holds", || status(&giving, &path) == 410);
    assert_eq!(status(&giving, &format!("/ipfs/{}", files[0])), 410);
    fs::remove_file(list(&giver)).unwrap();
    wait_until("the list is forgotten", || status(&giving, &path) == 200);
    taker.ok(["cat", &files[1]]);
    taker.ok(["cat", &files[0]]);
}

#[test]
fn names_are_not_followed_and_neither_is_what_they_lead_to() {
    let repo = Repo::new(CAIRN);
    let Tree { root, files } = add(&repo, 50);
    repo.ok(["key", "gen", "other"]);
    let publish = |key: &str, path: &str| {
        let key = format!("--key={key}");
        repo.ok(["name", "publish", "-Q", "--allow-offline", &key, path])
    };
    let denied = publish("self", &format!("/ipfs/{root}"));
    let leads = publish("other", &format!("/ipfs/{root}"));
    write(&repo, &format!("/ipns/{denied}\n/ipfs/{root}/file1\n"));
    let daemon = repo.daemon();
    let (denied, leads) = (format!("/ipns/{denied}"), format!("/ipns/{leads}"));
    assert_eq!(status(&daemon, &denied), 410);
    assert_eq!(
        status(&daemon, &format!("{denied}?format=ipns-record")),
        410
    );
    // A name that is denied is not looked up, whatever is asked for below it.
    assert_eq!(status(&daemon, &format!("{denied}/file0")), 410);
    assert_eq!(status(&daemon, &format!("{leads}/file0")), 200);
    assert_eq!(status(&daemon, &format!("{leads}/file1")), 410);
    for command in [
        &["resolve", &denied][..],
        &["name", "resolve", &denied],
        &["name", "resolve", "-s", &denied],
        &["name", "get", &denied],
        &["name", "keep", &denied],
        &["routing", "get", &denied],
        &["cat", &format!("{leads}/file1")],
    ] {
        let told = repo.run(command).failure(1);
        assert!(
            told.contains("of the denylist own.deny"),
            "{command:?}: {told}"
        );
    }
    write(&repo, &format!("/ipns/{}/*\n", &denied[6..]));
    assert_eq!(status(&daemon, &format!("{denied}/file0")), 410);
    repo.ok(["cat", &files[0]]);
}

#[test]
fn the_record_of_a_denied_name_is_taken_from_nobody() {
    let (owner, repo) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let sign = [
        "name",
        "publish",
        "-Q",
        "--allow-offline",
        "--resolve=false",
    ];
    let name = owner.ok(sign.into_iter().chain(["/ipfs/bafkqaaa"]));
    let record = owner.run(["name", "get", &name]).success().stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &record).unwrap();
    repo.ok(["config", "set", "gateway.routing_put", "true"]);
    write(&repo, &format!("/ipns/{name}\n"));
    let daemon = repo.daemon();
    let put = || {
        let kind = ("content-type", "application/vnd.ipfs.ipns-record");
        daemon.put(&format!("/routing/v1/ipns/{name}"), &[kind], &record)
    };
    let refused = put();
    assert_eq!(refused.status, 410, "{}", refused.text());
    let path = format!("/ipns/{name}");
    for command in ["name", "routing"] {
        let file = file.path().to_str().unwrap();
        let told = repo.run([command, "put", &path, file]).failure(1);
        assert!(
            told.contains("of the denylist own.deny"),
            "{command}: {told}"
        );
    }
    write(&repo, "");
    assert_eq!(put().status, 200);
    repo.ok(["name", "get", &name]);
}

#[test]
fn what_is_denied_is_asked_of_no_peer() {
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let Tree { root, files } = add(&giver, 30);
    let (giving, taking) = (giver.daemon(), taker.daemon());
    taker.ok(["swarm", "connect", &giving.swarm()]);
    write(&taker, &format!("/ipfs/{}\n", files[0]));
    let told = taker.run(["cat", &files[0]]).failure(1);
    assert!(told.contains("is blocked and cannot be provided"), "{told}");
    assert_eq!(taking.metric("cairn_bitswap_wants_sent_total"), 0.0);
    let told = taker.run(["pin", "add", &root]).failure(1);
    assert!(told.contains(&files[0]), "{told}");
    assert_eq!(status(&taking, &format!("/ipfs/{root}/file0")), 410);
    let have = taker.ok(["refs", "local"]);
    assert!(!have.contains(&files[0]), "{have}");
    // It is there for who may.
    write(
        &taker,
        &format!("/ipfs/{}\n!/ipfs/{}\n", files[0], files[0]),
    );
    taker.ok(["pin", "add", &root]);
}

#[test]
fn shared_lists_hold_unless_the_configuration_leaves_them_out() {
    let repo = Repo::new(CAIRN);
    let Tree { files, .. } = add(&repo, 40);
    let settings = tempfile::tempdir().unwrap();
    let shared = settings.path().join("ipfs/denylists");
    fs::create_dir_all(&shared).unwrap();
    fs::write(
        shared.join("z.deny"),
        format!("/ipfs/{}\n/ipfs/{}\n", files[0], files[1]),
    )
    .unwrap();
    repo.ok(["config", "set", "denylists.system", "true"]);
    // The node's own come last.
    write(&repo, &format!("!/ipfs/{}\n", files[1]));
    let cat = |cid: &str| {
        let mut command = repo.command(["cat", cid]);
        let done = command
            .env("XDG_CONFIG_HOME", settings.path())
            .output()
            .unwrap();
        done.status.success()
    };
    assert!(!cat(&files[0]) && cat(&files[1]) && cat(&files[2]));
    repo.ok(["config", "set", "denylists.system", "false"]);
    assert!(cat(&files[0]));
}
