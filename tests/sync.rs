//! `sync`: a folder and a path of the file tree, alone and through a daemon.

use cairn_store::Cid;
use harness::http;
use harness::scenario::{json, lines};
use harness::tree::{self, Entry};
use harness::{Daemon, Repo, scenario, seeds, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;
use tempfile::TempDir;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

/// A folder with a few things in it.
fn folder() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("photos");
    fs::create_dir_all(folder.join("2025/may")).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    fs::write(folder.join("2025/may/one"), "1").unwrap();
    fs::write(folder.join("2025/two"), tree::bytes(2, 3_000_000)).unwrap();
    fs::write(folder.join(".hidden"), "3").unwrap();
    symlink("2025/two", folder.join("link")).unwrap();
    (outer, folder)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What the folder is as `add` sees it.
fn added(repo: &Repo, folder: &Path) -> String {
    repo.ok(["add", "-rnQH", text(folder)])
}

fn sync(repo: &Repo, folder: &Path, more: &[&str]) -> String {
    let command = ["sync", text(folder)];
    repo.ok(command.into_iter().chain(more.iter().copied()))
}

#[test]
fn a_path_becomes_what_the_folder_is_and_only_what_changed_is_told() {
    both(|repo| {
        let (_outer, folder) = folder();
        let root = added(repo, &folder);
        assert_eq!(
            sync(repo, &folder, &[]),
            format!("+ .hidden\n+ 2025\n+ empty\n+ link\n{root} /photos")
        );
        assert_eq!(repo.ok(["files", "stat", "--hash", "/photos"]), root);
        assert_eq!(sync(repo, &folder, &[]), format!("{root} /photos"));
        assert_eq!(
            sync(repo, &folder, &["--checksum"]),
            format!("{root} /photos")
        );

        fs::write(folder.join("2025/may/one"), "other").unwrap();
        fs::rename(folder.join("2025/two"), folder.join("two")).unwrap();
        fs::remove_dir(folder.join("empty")).unwrap();
        fs::remove_file(folder.join("link")).unwrap();
        fs::create_dir_all(folder.join("link/deep/er")).unwrap();
        let root = added(repo, &folder);
        let tried = sync(repo, &folder, &["-n"]);
        let told = "- 2025/two\n- empty\n+ 2025/may/one\n+ link\n+ two";
        assert_eq!(tried, told);
        assert_ne!(repo.ok(["files", "stat", "--hash", "/photos"]), root);
        assert_eq!(
            sync(repo, &folder, &["/photos/"]),
            format!("{told}\n{root} /photos")
        );
        assert_eq!(sync(repo, &folder, &["-Q"]), root);

        // What is written in the place of what was, as large and as old.
        let file = fs::File::options()
            .write(true)
            .open(folder.join("2025/may/one"))
            .unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        fs::write(folder.join("2025/may/one"), "OTHER").unwrap();
        file.set_modified(before).unwrap();
        assert_eq!(
            sync(repo, &folder, &["-q"]),
            format!("{} /photos", added(repo, &folder))
        );
        // Everything stays through a collection.
        repo.ok(["repo", "gc"]);
        assert_eq!(
            repo.ok(["cat", &format!("{}/2025/may/one", added(repo, &folder))]),
            "OTHER"
        );
    });
}

#[test]
fn lines_are_json_where_that_is_asked_for() {
    both(|repo| {
        let (_outer, folder) = folder();
        let root = added(repo, &folder);
        sync(repo, &folder, &["/a/b"]);
        fs::remove_file(folder.join("link")).unwrap();
        fs::write(folder.join("new"), "new").unwrap();
        let told = sync(repo, &folder, &["/a/b", "--json"]);
        let told: Vec<_> = lines(&told).into_iter().map(json).collect();
        assert_eq!(
            told[0],
            serde_json::json!({"Change": "removed", "Path": "link"})
        );
        assert_eq!(told[1], serde_json::json!({"Change": "put", "Path": "new"}));
        let now = added(repo, &folder);
        assert_ne!(now, root);
        assert_eq!(told[2], serde_json::json!({"Root": now, "Path": "/a/b"}));
        assert_eq!(told.len(), 3);
    });
}

#[test]
fn what_others_did_to_the_path_is_undone_and_what_is_forgotten_is_found_out() {
    both(|repo| {
        let (_outer, folder) = folder();
        sync(repo, &folder, &[]);
        repo.ok(["files", "rm", "-r", "/photos/2025/may"]);
        repo.ok(["files", "cp", "/photos/link", "/photos/more"]);
        let root = added(repo, &folder);
        assert_eq!(
            sync(repo, &folder, &[]),
            format!("- more\n+ 2025/may\n{root} /photos")
        );
        repo.ok(["files", "rm", "-r", "/photos"]);
        assert_eq!(sync(repo, &folder, &["-Q"]), root);

        for damage in [
            |path: &Path| fs::remove_file(path),
            |path: &Path| fs::write(path, "nonsense"),
        ] {
            let states = fs::read_dir(repo.path().join("sync")).unwrap();
            for state in states {
                damage(&state.unwrap().path()).unwrap();
            }
            assert_eq!(sync(repo, &folder, &[]), format!("{root} /photos"));
        }
    });
}

#[test]
fn a_folder_becomes_what_the_path_is() {
    both(|repo| {
        let (_outer, folder) = folder();
        let other = tempfile::tempdir().unwrap();
        let copy = other.path().join("copy");
        let root = sync(repo, &folder, &["-Q"]);
        let told = sync(repo, &copy, &["/photos", "--pull"]);
        assert_eq!(
            told,
            format!("+ .hidden\n+ 2025\n+ empty\n+ link\n{root} /photos")
        );
        assert_eq!(tree::read(&copy), tree::read(&folder));
        assert_eq!(
            sync(repo, &copy, &["/photos", "--pull"]),
            format!("{root} /photos")
        );

        fs::write(folder.join("2025/may/one"), "other").unwrap();
        fs::remove_dir(folder.join("empty")).unwrap();
        fs::write(folder.join("empty"), "a file").unwrap();
        fs::remove_file(folder.join(".hidden")).unwrap();
        fs::remove_file(folder.join("link")).unwrap();
        fs::create_dir(folder.join("link")).unwrap();
        let root = sync(repo, &folder, &["-Q"]);
        let told = sync(repo, &copy, &["/photos", "--pull"]);
        assert_eq!(
            told,
            format!("- .hidden\n+ 2025/may/one\n+ empty\n+ link\n{root} /photos")
        );
        assert_eq!(tree::read(&copy), tree::read(&folder));
    });
}

#[test]
fn what_was_lost_of_a_folder_comes_back_from_where_it_was_brought_to() {
    both(|repo| {
        let (_outer, folder) = folder();
        sync(repo, &folder, &[]);
        let before = tree::read(&folder);
        fs::remove_dir_all(folder.join("2025")).unwrap();
        fs::remove_file(folder.join("link")).unwrap();
        fs::create_dir(folder.join("link")).unwrap();
        let told = sync(repo, &folder, &["--pull", "-q"]);
        assert!(told.ends_with(" /photos"), "{told}");
        assert_eq!(tree::read(&folder), before);
    });
}

#[test]
fn what_was_changed_in_the_folder_is_not_lost_unless_that_is_said() {
    both(|repo| {
        let (_outer, folder) = folder();
        let other = tempfile::tempdir().unwrap();
        let copy = other.path();
        sync(repo, &folder, &[]);
        fs::write(copy.join("mine"), "mine").unwrap();
        // The same as what comes: no loss.
        fs::write(copy.join(".hidden"), "3").unwrap();
        let pull = ["sync", text(copy), "/photos", "--pull"];
        let refused = repo.run(pull).failure(1);
        assert!(
            refused.contains("nothing was changed: mine changed"),
            "{refused}"
        );
        assert_eq!(tree::read(copy).len(), 2);
        fs::rename(copy.join("mine"), other.path().with_extension("mine")).unwrap();
        repo.ok(pull);
        assert_eq!(tree::read(copy), tree::read(&folder));

        for path in ["2025/may/one", "2025/two"] {
            fs::write(folder.join(path), format!("new {path}")).unwrap();
        }
        fs::write(copy.join("2025/two"), "mine").unwrap();
        sync(repo, &folder, &[]);
        let refused = repo.run(pull).failure(1);
        assert!(
            refused.contains("nothing was changed: 2025/two changed"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(copy.join("2025/may/one")).unwrap(), "1");
        repo.ok(pull.into_iter().chain(["--force"]));
        assert_eq!(tree::read(copy), tree::read(&folder));
        assert!(fs::read_dir(copy).unwrap().all(|entry| {
            !entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".cairn")
        }));
    });
}

#[test]
fn what_is_neither_file_nor_folder_nor_link_is_a_loss_as_well() {
    both(|repo| {
        let (_outer, folder) = folder();
        sync(repo, &folder, &["-Q"]);
        repo.ok(["files", "rm", "-r", "/photos/2025"]);
        let _socket = UnixListener::bind(folder.join("2025/may/socket")).unwrap();
        let refused = repo.run(["sync", text(&folder), "--pull"]).failure(1);
        assert!(refused.contains("2025/may/socket"), "{refused:?}");
        assert!(folder.join("2025/two").exists());
        sync(repo, &folder, &["--pull", "--force"]);
        assert!(!folder.join("2025").exists());
    });
}

#[test]
fn a_name_that_sync_keeps_for_itself_is_not_pulled() {
    let repo = Repo::new(CAIRN);
    let outer = tempfile::tempdir().unwrap();
    let ours = "/photos/a/.cairn-sync-0123456789abcdef";
    repo.ok(["files", "mkdir", "-p", ours]);
    let copy = outer.path().join("copy");
    let refused = repo
        .run(["sync", text(&copy), "/photos", "--pull"])
        .failure(1);
    assert!(refused.contains(ours), "{refused:?}");
    repo.ok(["files", "rm", "-r", ours]);
    sync(&repo, &copy, &["/photos", "--pull"]);
    assert!(copy.join("a").exists());
}

#[test]
fn a_tree_of_any_making_is_pulled_again_and_again() {
    both(|repo| {
        let (_outer, folder) = folder();
        sync(repo, &folder, &["-s", "size-1000", "--preserve-mtime"]);
        let other = tempfile::tempdir().unwrap();
        let copy = other.path().join("copy");
        let pull = ["/photos", "--pull", "-q"];
        let tried = repo.run(["sync", text(&copy), "/photos", "--pull", "-n"]);
        assert!(tried.code == Some(1) && !copy.exists(), "{tried:?}");
        let told = sync(repo, &copy, &pull);
        // At once, when by their times files could have changed without a trace.
        assert_eq!(sync(repo, &copy, &pull), told);
        fs::write(folder.join("2025/may/one"), "other").unwrap();
        sync(repo, &folder, &["-s", "size-1000", "--preserve-mtime"]);
        sync(repo, &copy, &pull);
        assert_eq!(tree::read(&copy), tree::read(&folder));
        fs::write(copy.join("mine"), "mine").unwrap();
        fs::write(folder.join("new"), "new").unwrap();
        sync(repo, &folder, &["-s", "size-1000", "--preserve-mtime"]);
        // What the command would refuse it refuses to plan.
        let tried = repo.run(["sync", text(&copy), "/photos", "--pull", "-n"]);
        let refused = tried.failure(1);
        assert!(
            refused.contains("nothing was changed: mine changed"),
            "{refused}"
        );
    });
}

#[test]
fn what_a_killed_pull_left_is_not_brought_anywhere() {
    both(|repo| {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("left");
        let left = folder.join(".cairn-sync-0123456789abcdef");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("0"), "half").unwrap();
        sync(repo, &folder, &[]);
        assert_eq!(repo.ok(["files", "ls", "/left"]), "");
        fs::write(folder.join("a"), "a").unwrap();
        sync(repo, &folder, &["/other"]);
        assert_eq!(repo.ok(["files", "ls", "/other"]), "a");
    });
}

#[test]
fn what_cannot_be_synced_says_why() {
    both(|repo| {
        let (outer, folder) = folder();
        let refused = |arguments: &[&str], why: &str| {
            let told = repo.run(["sync"].iter().chain(arguments)).failure(1);
            assert!(told.contains(why), "{arguments:?}: {told}");
        };
        refused(
            &[text(&outer.path().join("nothing"))],
            "nothing: No such file",
        );
        refused(&[text(&folder.join(".hidden"))], ".hidden is not a folder");
        refused(&[text(repo.path()), "/x"], "the repository");
        refused(
            &[text(&folder), "/nothing", "--pull"],
            "there is no /nothing in the file tree",
        );
        repo.run_with(["files", "write", "--create", "/file"], b"x")
            .success();
        refused(
            &[text(&folder), "/file"],
            "/file in the file tree is not a folder; name another path, or remove it",
        );
        refused(
            &[text(&folder), "/file", "--pull"],
            "/file in the file tree is not a folder; name the folder that it is in",
        );
        assert_eq!(repo.run(["sync", text(&folder), "no-slash"]).code, Some(2));
        assert_eq!(repo.run(["sync", text(&folder), "/"]).code, Some(2));

        sync(repo, &folder, &[]);
        let lock = fs::read_dir(repo.path().join("sync"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let held: Vec<_> = lock
            .filter(|path| path.extension().is_some_and(|end| end == "lock"))
            .map(|path| fs::File::open(path).unwrap())
            .inspect(|file| file.lock().unwrap())
            .collect();
        refused(&[text(&folder)], "another `cairn sync`");
        drop(held);
        let socket = UnixListener::bind(folder.join("socket")).unwrap();
        let done = repo.run(["sync", text(&folder)]).success();
        assert!(done.stderr.contains("socket is neither"), "{done:?}");
        drop(socket);
    });
}

#[test]
fn a_plan_that_is_none_or_is_for_another_root_changes_nothing() {
    let repo = Repo::new(CAIRN);
    let (_outer, folder) = folder();
    let root = sync(&repo, &folder, &["-Q"]);
    let daemon = repo.daemon();
    let empty = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    let send = |query: &str, parts: &[(&str, &str)]| {
        let mut body = String::new();
        for (name, content) in parts {
            body.push_str(&format!(
                "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n{content}\r\n"
            ));
        }
        body.push_str("--x--\r\n");
        let target = format!("/api/v0/sync/apply?arg=/photos{query}");
        let media = [("Content-Type", "multipart/form-data; boundary=x")];
        let answer = http::request(daemon.rpc(), "POST", &target, &media, body.as_bytes()).unwrap();
        (answer.status, answer.text())
    };
    let plan = r#"{"Put":["a"],"Remove":["2025"]}"#;
    let here = format!("&expect={root}");
    for (query, parts, why) in [
        ("", &[("other", plan)][..], "the plan"),
        ("", &[("plan", "nonsense")], "cannot be understood"),
        (
            &here,
            &[("plan", plan), ("7", "x")],
            "has no place in the plan",
        ),
        ("&expect=nonsense", &[("plan", plan), ("0", "x")], "expect"),
        (
            &format!("&expect={empty}"),
            &[("plan", plan), ("0", "x")],
            "changed",
        ),
        (
            &here,
            &[("plan", r#"{"Put":["../a"],"Remove":[]}"#), ("0", "x")],
            "..",
        ),
    ] {
        let (status, body) = send(query, parts);
        assert!(status >= 400, "{parts:?}: {status} {body}");
        assert!(body.contains(why), "{parts:?}: {body}");
        assert_eq!(repo.ok(["files", "stat", "--hash", "/photos"]), root);
    }
    let (status, body) = send(&format!("&expect={root}"), &[("plan", plan), ("0", "x")]);
    assert_eq!(status, 200, "{body}");
    assert_eq!(repo.ok(["files", "read", "/photos/a"]), "x");
    daemon.stop();
}

#[test]
fn what_waits_in_the_tree_to_be_flushed_is_synced_as_well() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("copy");
    repo.ok(["files", "mkdir", "--flush=false", "/photos"]);
    let write = ["files", "write", "-e", "--flush=false", "/photos/a"];
    repo.run_with(write, b"waits").success();
    sync(&repo, &copy, &["--pull", "/photos"]);
    assert_eq!(fs::read_to_string(copy.join("a")).unwrap(), "waits");
    let write = ["files", "write", "-e", "--flush=false", "/photos/b"];
    repo.run_with(write, b"too").success();
    fs::remove_file(copy.join("a")).unwrap();
    fs::write(copy.join("c"), "c").unwrap();
    let told = sync(&repo, &copy, &["/photos"]);
    assert!(told.starts_with("- a\n- b\n+ c\n"), "{told}");
    daemon.stop();
}

#[test]
fn two_things_of_one_name_are_not_brought_to_a_disk() {
    both(|repo| {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("twice");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "mine").unwrap();
        let mut node = Vec::new();
        for content in ["one", "two"] {
            let added = repo.run_with(["add", "-Q", "--pin=false"], content.as_bytes());
            let cid = Cid::try_from(added.success().text().trim()).unwrap();
            let mut link = vec![0x0a, 36];
            link.extend(cid.to_bytes());
            link.extend([0x12, 1, b'a', 0x18, 3]);
            node.extend([0x12, u8::try_from(link.len()).unwrap()]);
            node.extend(link);
        }
        // A folder.
        node.extend([0x0a, 2, 8, 1]);
        let put = repo.run_with(["block", "put", "--cid-codec=dag-pb"], &node);
        let cid = put.success().text();
        repo.ok(["files", "cp", &format!("/ipfs/{}", cid.trim()), "/twice"]);
        for way in [&["/twice", "--pull", "--force"][..], &["/twice"]] {
            let refused = repo
                .run(["sync", text(&folder)].iter().chain(way))
                .failure(1);
            assert!(refused.contains("are called /twice/a"), "{refused}");
        }
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "mine");
    });
}

#[test]
fn a_folder_that_is_changed_is_nobody_elses() {
    both(|repo| {
        let (outer, folder) = folder();
        sync(repo, &folder, &[]);
        let lock = fs::File::open(&folder).unwrap();
        let busy = |line: &[&str]| {
            let told = repo
                .run(["sync", text(&folder)].iter().chain(line))
                .failure(1);
            assert!(told.contains("another `cairn sync` works on"), "{told}");
        };
        lock.lock().unwrap();
        busy(&["/other"]);
        busy(&["--pull"]);
        lock.unlock().unwrap();
        // Many may read it at once.
        lock.lock_shared().unwrap();
        busy(&["--pull"]);
        sync(repo, &folder, &["/other"]);
        drop(lock);
        sync(repo, &folder, &["--pull"]);
        drop(outer);
    });
}

#[test]
fn an_empty_folder_empties_the_path_only_if_that_is_said() {
    both(|repo| {
        let (_outer, folder) = folder();
        let root = sync(repo, &folder, &["-Q"]);
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        for more in [&[][..], &["-n"], &["--checksum"]] {
            let refused = repo
                .run(["sync", text(&folder)].iter().chain(more))
                .failure(1);
            assert!(refused.contains("holds 7 files and folders"), "{refused}");
        }
        assert_eq!(repo.ok(["files", "stat", "--hash", "/photos"]), root);
        sync(repo, &folder, &["--force"]);
        assert_eq!(repo.ok(["files", "ls", "/photos"]), "");
        sync(repo, &folder, &[]);
    });
}

#[test]
fn times_are_brought_back_to_the_nanosecond_those_of_links_too() {
    both(|repo| {
        let (_outer, folder) = folder();
        let other = tempfile::tempdir().unwrap();
        let copy = other.path().join("copy");
        let file = fs::File::open(folder.join("2025/may/one")).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        file.set_modified(time).unwrap();
        let root = sync(repo, &folder, &["--preserve-mtime", "/photos"]);
        let told = sync(repo, &copy, &["--pull", "--preserve-mtime", "/photos"]);
        assert_eq!(lines(&told).last(), lines(&root).last());
        for path in ["2025/may/one", "2025/two", "link"] {
            let time = |folder: &Path| {
                let found = fs::symlink_metadata(folder.join(path)).unwrap();
                found.modified().unwrap()
            };
            assert_eq!(time(&copy), time(&folder), "{path}");
        }
    });
}

#[test]
fn what_cannot_be_changed_is_named_and_done_by_the_next_run() {
    let repo = Repo::new(CAIRN);
    let (_outer, folder) = folder();
    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("copy");
    sync(&repo, &folder, &[]);
    sync(&repo, &copy, &["--pull", "/photos"]);
    for path in ["2025/may/one", "2025/two", "new"] {
        fs::write(folder.join(path), format!("new {path}")).unwrap();
    }
    sync(&repo, &folder, &[]);
    // A file system that lies in the folder for as long as the program runs.
    let may = copy.join("2025/may");
    let mount = "cp -r \"$0\" \"$0.old\" && mount -t tmpfs none \"$0\" && \
                 cp -rp \"$0.old/.\" \"$0\" && rm -r \"$0.old\" && exec \"$@\"";
    let runner = ["unshare", "--mount", "sh", "-c", mount, text(&may)];
    if !std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs none /mnt"])
        .status()
        .is_ok_and(|status| status.success())
    {
        harness::tell_skipped("`unshare` gives this user no mount namespace in which to mount");
        return;
    }
    let pull = ["sync", text(&copy), "/photos", "--pull", "--force"];
    let failed = repo.under(runner).run(pull);
    assert_eq!(failed.text(), "+ 2025/two\n+ new", "{failed:?}");
    let refused = failed.failure(1);
    assert!(
        refused.contains("2025/may/one: ") && refused.contains("another file system"),
        "{refused}"
    );
    assert_eq!(fs::read_to_string(may.join("one")).unwrap(), "1");
    assert_eq!(fs::read_to_string(copy.join("new")).unwrap(), "new new");
    let told = sync(&repo, &copy, &["/photos", "--pull"]);
    assert!(told.starts_with("+ 2025/may/one\n"), "{told}");
    assert_eq!(tree::read(&copy), tree::read(&folder));
}

#[test]
fn a_root_is_published_whenever_it_is_another_one() {
    both(|repo| {
        let (_outer, folder) = folder();
        repo.ok(["key", "gen", "site"]);
        let refused = repo.run(["sync", text(&folder), "--publish=none"]);
        let refused = refused.failure(1);
        assert!(refused.contains("there is no key \"none\""), "{refused}");
        assert_eq!(repo.ok(["files", "ls"]), "");
        let told = sync(repo, &folder, &["--publish=site"]);
        let root = added(repo, &folder);
        let [.., published, last] = lines(&told)[..] else {
            panic!("{told}");
        };
        assert_eq!(last, format!("{root} /photos"));
        let name = published
            .strip_prefix("published to ")
            .and_then(|rest| rest.split_once(": "));
        let (name, value) = name.unwrap_or_else(|| panic!("{told}"));
        assert_eq!(value, format!("/ipfs/{root}"));
        assert_eq!(repo.ok(["name", "resolve", name]), value);
        let number = |repo: &Repo| {
            let record = repo.run(["name", "get", name]).success().stdout;
            let told = repo.run_with(["name", "inspect", "--json", "-"], &record);
            json(&told.success().text())["Entry"]["Sequence"].clone()
        };
        let first = number(repo);
        // It says that already: by whatever name of the key.
        assert_eq!(
            sync(repo, &folder, &[&format!("--publish={name}")]),
            format!("{root} /photos")
        );
        assert_eq!(number(repo), first);
        fs::write(folder.join("new"), "new").unwrap();
        let told = sync(repo, &folder, &["--publish=site", "-q"]);
        let root = added(repo, &folder);
        assert_eq!(told, format!("{root} /photos"));
        assert_eq!(repo.ok(["name", "resolve", name]), format!("/ipfs/{root}"));
        // What somebody else had it say is said no more.
        repo.ok(["name", "publish", "--key=site", "--allow-offline", value]);
        let told = sync(repo, &folder, &["--publish=site", "--json"]);
        let told: Vec<_> = lines(&told).into_iter().map(json).collect();
        assert_eq!(told[0]["Value"], format!("/ipfs/{root}"));
        assert_eq!(told[1]["Root"], root);
    });
}

#[test]
fn a_watched_folder_is_synced_when_something_changes() {
    both(|repo| {
        let (_outer, folder) = folder();
        let mut watch = Watch::start(repo, &folder);
        let next = told_lines(watch.0.stdout.take().unwrap());
        let first = next();
        fs::create_dir(folder.join("later")).unwrap();
        fs::write(folder.join("later/file"), "later").unwrap();
        let expected = tree::read(&folder);
        // In pieces or at once, as the events come.
        let mut root = next();
        assert_ne!(root, first);
        fs::write(folder.join("later/last"), "the last").unwrap();
        let wanted = loop {
            // Its CID is that of a folder with these three things, whatever comes between.
            if root != first && tree::read(&folder).len() == expected.len() + 1 {
                let now = Repo::new(CAIRN);
                let wanted = added(&now, &folder);
                if root == wanted {
                    break wanted;
                }
            }
            root = next();
        };
        // Who ends it has what was wanted.
        assert_eq!(watch.end(Signal::INT), Some(0));
        assert_eq!(repo.ok(["files", "stat", "--hash", "/photos"]), wanted);
    });
}

/// What a program tells, line by line; a test that would wait for ever fails.
fn told_lines(output: impl Read + Send + 'static) -> impl Fn() -> String {
    let (teller, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            if teller.send(line).is_err() {
                return;
            }
        }
    });
    move || told.recv_timeout(SILENCE_MAX).expect("a line")
}

#[test]
fn a_watch_outlives_failures_and_the_daemon_that_it_asked() {
    let repo = Repo::new(CAIRN);
    let (_outer, folder) = folder();
    let daemon = repo.daemon();
    let mut watch = Watch::start(&repo, &folder);
    let next = told_lines(watch.0.stdout.take().unwrap());
    let warned = told_lines(watch.0.stderr.take().unwrap());
    next();
    daemon.stop();
    fs::write(folder.join("new"), "new").unwrap();
    let told = warned();
    assert!(told.contains("tried again in 1 s"), "{told}");
    // It listens on another port, and nothing changes any more.
    let daemon = repo.daemon();
    let root = next();
    assert_eq!(root, added(&repo, &folder));
    assert_eq!(repo.ok(["files", "stat", "--hash", "/photos"]), root);
    assert_eq!(watch.end(Signal::TERM), Some(0));
    daemon.stop();
}

#[test]
fn a_folder_that_comes_in_the_place_of_the_watched_one_is_watched() {
    let repo = Repo::new(CAIRN);
    let (outer, folder) = folder();
    let mut watch = Watch::start(&repo, &folder);
    let next = told_lines(watch.0.stdout.take().unwrap());
    next();
    let new = outer.path().join("new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("only"), "1").unwrap();
    fs::rename(&folder, outer.path().join("old")).unwrap();
    fs::rename(&new, &folder).unwrap();
    let wanted = added(&Repo::new(CAIRN), &folder);
    while next() != wanted {}
    // Of this nobody is told who watches the old one.
    fs::write(folder.join("second"), "2").unwrap();
    let wanted = added(&Repo::new(CAIRN), &folder);
    while next() != wanted {}
    assert_eq!(watch.end(Signal::INT), Some(0));
}

/// A `sync --watch`, which ends with the test.
struct Watch(Child);

impl Watch {
    fn start(repo: &Repo, folder: &Path) -> Self {
        let mut command = repo.command(["sync", text(folder), "--watch", "-Q"]);
        Self(command.spawn().unwrap())
    }

    /// Ends it; gives its exit code.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let ended = wait_for("the end of sync", || {
            let ended = self.0.try_wait().unwrap();
            ended.ok_or_else(|| "it goes on".to_owned())
        });
        ended.code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes something in a folder.
fn change(folder: &Path, random: &mut StdRng) {
    let entries: BTreeMap<String, Entry> = tree::read(folder);
    let paths: Vec<&String> = entries.keys().collect();
    let place = |path: &str| folder.join(path.trim_start_matches('/'));
    let some = |random: &mut StdRng| {
        (!paths.is_empty()).then(|| paths[random.random_range(0..paths.len())])
    };
    let folders: Vec<&str> = entries
        .iter()
        .filter(|(_, entry)| **entry == Entry::Folder)
        .map(|(path, _)| path.as_str())
        .chain([""])
        .collect();
    let new = |random: &mut StdRng| {
        let above = folders[random.random_range(0..folders.len())];
        place(&format!(
            "{above}/{}",
            ["a", "b", "a-b", "a.b", "c"][random.random_range(0..5)]
        ))
    };
    match random.random_range(0..6) {
        0 => {
            let _ = fs::create_dir(new(random));
        }
        1 | 2 => {
            let length = random.random_range(0..3);
            let _ = fs::write(new(random), tree::bytes(random.random(), length));
        }
        3 => {
            let _ = symlink("anywhere", new(random));
        }
        4 => {
            if let Some(path) = some(random) {
                let _ = fs::rename(place(path), new(random));
            }
        }
        _ => {
            if let Some(path) = some(random) {
                let path = place(path);
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
    }
}

#[test]
fn whatever_changes_path_and_copy_become_what_the_folder_is() {
    for seed in seeds(SEEDS) {
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let repo = Repo::new(CAIRN);
        let outer = tempfile::tempdir().unwrap();
        let (folder, copy) = (outer.path().join("here"), outer.path().join("there"));
        fs::create_dir(&folder).unwrap();
        let mut daemon = None;
        for _ in 0..12 {
            for _ in 0..random.random_range(0..6) {
                change(&folder, &mut random);
            }
            if random.random_range(0..4) == 0 {
                daemon = match daemon.take() {
                    None => Some(repo.daemon()),
                    Some(running) => {
                        Daemon::kill(running);
                        None
                    }
                };
            }
            // It may have become empty.
            let root = sync(&repo, &folder, &["-Q", "/at", "--force"]);
            assert_eq!(root, added(&repo, &folder));
            if random.random_range(0..2) == 0 {
                assert_eq!(sync(&repo, &copy, &["-Q", "--pull", "/at"]), root);
                assert_eq!(tree::read(&copy), tree::read(&folder));
            }
        }
        drop(daemon);
    }
}

/// Longest time that a watch tells nothing: never reached but by what would wait for ever.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// Sequences in every run.
const SEEDS: u64 = 3;
