//! Fetching between real nodes when not all goes well: what is missing is told, what came stays,
//! and who falls silent is not waited for.

use harness::scenario::HELLO_V1;
use harness::{Daemon, Repo, program, tree};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A repository that gives up a fetch a second after its last progress.
fn hasty() -> Repo {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "fetch.timeout", "1s"]);
    repo
}

fn blocks_received(daemon: &Daemon) -> f64 {
    daemon.metric("cairn_bitswap_blocks_received_total")
}

/// Two daemons that know each other, and a folder of which one of them has all but some blocks.
struct Gaps {
    taking: Daemon,
    giving: Daemon,
    giver: Repo,
    taker: Repo,
    root: String,
    missing: Vec<String>,
}

impl Gaps {
    fn start(source: &Path) -> Self {
        make_folder(source);
        let (giver, taker) = (Repo::new(CAIRN), hasty());
        let root = add(&giver, source, &["--pin=false"]);
        let missing = some_blocks(&giver, &root);
        let names = missing.iter().map(String::as_str);
        giver.ok(["block", "rm"].into_iter().chain(names));
        let (giving, taking) = connected(&giver, &taker);
        Self {
            taking,
            giving,
            giver,
            taker,
            root,
            missing,
        }
    }
}

/// The daemons of who gives and who takes.
fn connected(giver: &Repo, taker: &Repo) -> (Daemon, Daemon) {
    let (giving, taking) = (giver.daemon(), taker.daemon());
    taker.ok(["swarm", "connect", &giving.swarm()]);
    (giving, taking)
}

/// A folder of files of one block each, and one of three blocks.
fn make_folder(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for at in 0..40 {
        fs::write(folder.join(format!("file-{at:02}")), tree::bytes(at, 1000)).unwrap();
    }
    fs::write(folder.join("large"), tree::bytes(100, 3 << 20)).unwrap();
}

fn add(repo: &Repo, folder: &Path, more: &[&str]) -> String {
    let fixed = ["add", "-r", "-Q", "--chunker=size-1048576", "--raw-leaves"];
    let line = fixed.into_iter().chain(more.iter().copied());
    repo.ok(line.chain([folder.to_str().unwrap()]))
}

/// The blocks of the second part of `large` and of three small files, by name.
fn some_blocks(repo: &Repo, root: &str) -> Vec<String> {
    let parts = repo.ok(["refs", &format!("{root}/large")]);
    let part = parts.lines().nth(1).unwrap().to_owned();
    let small = ["file-03", "file-17", "file-39"].map(|name| {
        let resolved = repo.ok(["resolve", &format!("/ipfs/{root}/{name}")]);
        resolved.trim_start_matches("/ipfs/").to_owned()
    });
    small.into_iter().chain([part]).collect()
}

#[test]
fn a_pin_with_missing_blocks_names_them_and_the_next_attempt_fetches_only_those() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let gaps = Gaps::start(&source);
    let (taker, root) = (&gaps.taker, &gaps.root);
    let told = taker.run(["pin", "add", root]).failure(1);
    assert!(told.contains("4 blocks below it were not found"), "{told}");
    assert!(told.contains("nothing was pinned"), "{told}");
    assert!(told.contains("DONT_HAVE"), "{told}");
    for cid in &gaps.missing {
        assert!(told.contains(cid.as_str()), "{told}");
    }
    assert_eq!(taker.ok(["pin", "ls", "-t", "recursive"]), "");

    // Whoever had them comes back.
    add(&gaps.giver, &source, &[]);
    let before = blocks_received(&gaps.taking);
    assert_eq!(
        taker.ok(["pin", "add", root]),
        format!("pinned {root} recursively")
    );
    assert_eq!(blocks_received(&gaps.taking) - before, 4.0);
}

#[test]
fn a_tree_with_missing_blocks_is_got_without_the_files_they_belong_to() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let gaps = Gaps::start(&source);
    let (taker, root) = (&gaps.taker, &gaps.root);
    let get = ["get", root, "-o", out.to_str().unwrap()];
    let told = taker.run(get).failure(1);
    assert!(told.contains("4 entries were left out"), "{told}");
    let left_out = ["file-03", "file-17", "file-39", "large"];
    for name in left_out {
        assert!(told.contains(&format!("{root}/{name}")), "{told}");
    }
    let mut whole = tree::read(&source);
    whole.retain(|path, _| !left_out.contains(&path.trim_start_matches('/')));
    assert_eq!(whole.len(), 37);
    assert_eq!(tree::read(&out), whole);
    // Nothing half-written beside it either.
    let beside: BTreeSet<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(beside, ["out", "source"].map(Into::into).into());

    add(&gaps.giver, &source, &[]);
    fs::remove_dir_all(&out).unwrap();
    let before = blocks_received(&gaps.taking);
    taker.ok(get);
    assert_eq!(tree::read(&out), tree::read(&source));
    assert_eq!(blocks_received(&gaps.taking) - before, 4.0);
}

#[test]
fn what_is_missing_of_small_and_large_files_is_waited_for_at_the_same_time_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let gaps = Gaps::start(&source);
    let (taker, root) = (&gaps.taker, &gaps.root);
    // Long enough for all that can come to be asked for before the first is given up.
    taker.ok(["config", "set", "fetch.timeout", "5s"]);
    drop(gaps.taking);
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &gaps.giving.swarm()]);
    let missing: BTreeSet<String> = gaps.missing.iter().cloned().collect();
    let mut get = taker.command(["get", root, "-o", out.to_str().unwrap()]);
    get.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut get = get.spawn().unwrap();
    let until = |get: &mut std::process::Child, reached: &dyn Fn(&BTreeSet<String>) -> bool| {
        while !reached(&wanted(&taking)) {
            if get.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::yield_now();
        }
        true
    };
    // Whatever else there is has come: 37 small files, two parts of the large one, its root, the folder.
    assert!(
        until(&mut get, &|wants| *wants == missing
            && blocks_received(&taking) == 41.0),
        "they were never waited for together"
    );
    until(&mut get, &BTreeSet::is_empty);
    assert!(
        !until(&mut get, &|wants| !wants.is_empty()),
        "one is waited for again"
    );
    let told = String::from_utf8(get.wait_with_output().unwrap().stderr).unwrap();
    assert!(told.contains("4 entries were left out"), "{told}");
    assert_eq!(tree::read(&out).len(), 37);
}

#[test]
fn the_missing_blocks_of_one_file_are_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("file"), folder.path().join("out"));
    fs::write(&file, tree::bytes(11, 5 << 20)).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let add = |more: &[&str]| {
        let fixed = ["add", "-Q", "--chunker=size-1048576"];
        let line = fixed.into_iter().chain(more.iter().copied());
        giver.ok(line.chain([file.to_str().unwrap()]))
    };
    let root = add(&["--pin=false"]);
    let parts = giver.ok(["refs", &root]);
    let missing: Vec<&str> = parts.lines().skip(1).step_by(2).collect();
    giver.ok(["block", "rm"].into_iter().chain(missing.iter().copied()));
    let (_giving, taking) = connected(&giver, &taker);
    let get = ["get", &root, "-o", out.to_str().unwrap()];
    let told = taker.run(get).failure(1);
    assert!(
        told.contains("at least 2 of its blocks are missing"),
        "{told}"
    );
    assert!(
        missing.iter().all(|missing| told.contains(missing)),
        "{told}"
    );
    assert!(told.contains("fetches only the rest"), "{told}");
    // Three parts and the root came all the same.
    assert_eq!(blocks_received(&taking), 4.0);
    add(&[]);
    taker.ok(get);
    assert_eq!(blocks_received(&taking), 6.0);
}

#[test]
fn a_file_that_the_cache_cannot_hold_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("file"), folder.path().join("out"));
    let bytes = tree::bytes(12, 64 << 20);
    fs::write(&file, &bytes).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    taker.ok(["config", "set", "storage.cache_max", "4MB"]);
    let root = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    let (_giving, taking) = connected(&giver, &taker);
    taker.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert!(fs::read(&out).unwrap() == bytes);
    // Sixty-four leaves and the root; a few may be evicted between their coming and their turn.
    let came = blocks_received(&taking);
    assert!((65.0..75.0).contains(&came), "{came}");
}

#[test]
fn a_folder_is_listed_without_what_is_missing_of_its_entries() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_folder(&source);
    fs::create_dir(source.join("sub")).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let root = add(&giver, &source, &["--pin=false"]);
    let missing = giver.ok(["resolve", &format!("/ipfs/{root}/sub")]);
    let missing = missing.trim_start_matches("/ipfs/");
    giver.ok(["block", "rm", missing]);
    let (_giving, taking) = connected(&giver, &taker);
    let listed = taker.run(["ls", &root]);
    let lines = String::from_utf8(listed.stdout.clone()).unwrap();
    assert_eq!(lines.lines().count(), 42, "{lines}");
    assert!(lines.contains(&format!("{missing} -       sub")), "{lines}");
    let told = listed.failure(1);
    assert!(told.contains("of 1 entry are unknown"), "{told}");
    assert!(told.contains(&format!("{root}/sub")), "{told}");
    taker.ok(["ls", "--resolve-type=false", "--size=false", &root]);
    let streamed = taker.run(["ls", "--stream", &root]);
    let rows = String::from_utf8(streamed.stdout.clone()).unwrap();
    assert_eq!(rows.lines().count(), 42, "{rows}");
    assert!(streamed.failure(1).contains(&format!("{root}/sub")));

    // A path behind that is not there takes nothing from the one before.
    let both = taker.run(["ls", &root, missing]);
    let lines = String::from_utf8(both.stdout.clone()).unwrap();
    assert_eq!(lines.lines().count(), 43, "{lines}");
    let told = both.failure(1);
    assert!(
        told.contains(&format!("could not find {missing}")) || told.contains("in time"),
        "{told}"
    );
    assert!(told.contains(&format!("{root}/sub")), "{told}");

    // Who asks as Kubo's tools do is told by the status alone.
    let refused = taking.post("ls", &format!("arg={root}"));
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(refused.text().contains("unknown"), "{refused:?}");
}

/// What a daemon wants of its peers.
fn wanted(daemon: &Daemon) -> BTreeSet<String> {
    let list = daemon.call("bitswap/wantlist", "");
    let keys = list["Keys"].as_array().into_iter().flatten();
    keys.map(|key| key["/"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_target_that_is_taken_is_noticed_before_anything_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let root = add(&giver, &source, &[]);
    let (_giving, taking) = connected(&giver, &taker);
    let wants = || taking.metric("cairn_bitswap_wants_sent_total");
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("taken"), "mine").unwrap();
    fs::create_dir_all(at("full/file-00")).unwrap();
    let (file, large) = (format!("{root}/file-00"), format!("{root}/large"));
    for (path, place) in [
        (&root, "taken"),
        (&file, "taken"),
        (&file, "full"),
        (&large, "taken"),
    ] {
        let told = taker.run(["get", path, "-o", &at(place)]).failure(1);
        assert!(told.contains("exists already"), "{path} {place}: {told}");
        assert!(told.contains("-o"), "{path} {place}: {told}");
        assert_eq!(wants(), 0.0, "{path} {place}");
    }
    // What is there of a folder is known from its root alone.
    let refused = taker.run(["get", &root, "-o", &at("full")]);
    assert_eq!(refused.stdout, b"", "it says that it saves");
    let told = refused.failure(1);
    assert!(told.contains("exists already"), "{told}");
    // Free places are none: into a folder, and instead of an empty one.
    taker.ok(["get", &large, "-o", &at("full")]);
    assert_eq!(
        fs::read(at("full/large")).unwrap(),
        tree::bytes(100, 3 << 20)
    );
    fs::create_dir(at("empty")).unwrap();
    taker.ok(["get", &root, "-o", &at("empty")]);
    assert_eq!(
        tree::read(&folder.path().join("empty")),
        tree::read(&source)
    );
    assert_eq!(fs::read_to_string(at("taken")).unwrap(), "mine");
}

#[test]
fn a_get_that_was_cut_off_goes_on_when_it_is_said_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = add(&giver, &source, &["--pin=false"]);
    let held_back = some_blocks(&giver, &root);
    let names = held_back.iter().map(String::as_str);
    giver.ok(["block", "rm"].into_iter().chain(names));
    let (_giving, taking) = connected(&giver, &taker);
    let get = ["get", &root, "-o", out.to_str().unwrap()];
    let mut cut_off = taker.command(get).spawn().unwrap();
    // 40 small files, the three parts of the large one, its root and the folder.
    let all = 45.0;
    while blocks_received(&taking) < all - 4.0 {
        assert!(
            cut_off.try_wait().unwrap().is_none(),
            "it waits for the rest"
        );
        std::thread::yield_now();
    }
    program::end(&cut_off);
    assert!(!cut_off.wait().unwrap().success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    add(&giver, &source, &[]);
    taker.ok(get);
    assert_eq!(tree::read(&out), tree::read(&source));
    assert_eq!(blocks_received(&taking), all);
}

#[test]
fn a_disk_without_room_is_told_as_that_and_not_as_blocks_that_nobody_has() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let root = add(&giver, &source, &[]);
    let large = format!("{root}/large");
    let (giving, taking) = connected(&giver, &taker);
    // The folder and the root of its large file are here, what is below them is not.
    taker.ok(["block", "stat", &root]);
    taker.ok([
        "block",
        "stat",
        &taker.ok(["resolve", &format!("/ipfs/{large}")]),
    ]);
    drop(taking);
    // More than any disk has: there is room for nothing.
    taker.ok(["config", "set", "storage.reserve", "8000PiB"]);
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    let commands: [&[&str]; 5] = [
        &["pin", "add", &root],
        &["get", &root, "-o", out.to_str().unwrap()],
        &["get", &large, "-o", out.to_str().unwrap()],
        &["cat", &large],
        &["dag", "export", &root],
    ];
    for command in commands {
        let told = taker.run(command).failure(1);
        assert!(
            told.contains("no space left in the repository"),
            "{command:?}: {told}"
        );
        assert!(told.contains("storage.reserve"), "{command:?}: {told}");
        assert!(told.contains("cairn repo gc"), "{command:?}: {told}");
        assert!(!told.contains("not found"), "{command:?}: {told}");
    }
    assert!(!out.exists());
    drop(taking);
}

#[test]
fn a_file_that_was_read_in_part_is_fetched_only_for_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let bytes = tree::bytes(7, 20 << 20);
    fs::write(&file, &bytes).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = giver.ok([
        "add",
        "-Q",
        "--chunker=size-1048576",
        file.to_str().unwrap(),
    ]);
    let (_giving, taking) = connected(&giver, &taker);
    let half = 10 << 20;
    let first = taker.run(["cat", "--length", &half.to_string(), &root]);
    assert!(first.success().stdout == bytes[..half]);
    let came = blocks_received(&taking);
    assert!((11.0..21.0).contains(&came), "{came}");
    let rest = taker.run(["cat", "--offset", &half.to_string(), &root]);
    assert!(rest.success().stdout == bytes[half..]);
    // Twenty leaves and the root, each once.
    assert_eq!(blocks_received(&taking), 21.0);
}

#[test]
fn who_falls_silent_is_not_waited_for_longer_than_the_idle_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, tree::bytes(8, 4 << 20)).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    taker.ok(["config", "set", "gateway.retrieval_timeout", "1s"]);
    let root = giver.ok([
        "add",
        "-Q",
        "--chunker=size-1048576",
        file.to_str().unwrap(),
    ]);
    let (giving, taking) = connected(&giver, &taker);
    // One block comes, then nothing more.
    taker.ok(["block", "stat", &root]);
    giving.pause();
    let out = folder.path().join("out");
    let commands: [&[&str]; 4] = [
        &["cat", &root],
        &["get", &root, "-o", out.to_str().unwrap()],
        &["pin", "add", &root],
        &["dag", "export", &root],
    ];
    for command in commands {
        let told = taker.run(command).failure(1);
        assert!(told.contains("not found in time"), "{command:?}: {told}");
        assert!(
            told.contains("asked 1 of 1 connected peers"),
            "{command:?}: {told}"
        );
    }
    let answer = taking.get(&format!("/ipfs/{root}"), &[]);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("asked 1 of 1"), "{}", answer.text());
    // The caller's own word goes before the configured time.
    taker.ok(["config", "set", "fetch.timeout", "1h"]);
    drop(taking);
    let taking = taker.daemon();
    for command in commands {
        let line = ["--timeout=500ms"]
            .into_iter()
            .chain(command.iter().copied());
        taker.run(line).failure(1);
    }
    drop(taking);
}

#[test]
fn blocks_that_their_names_hold_are_never_asked_of_anybody() {
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let held = "bafkqablimvwgy3y";
    let node = format!(r#"{{"a":{{"/":"{held}"}},"b":[{{"/":"bafkqaaa"}}]}}"#);
    let put = giver.run_with(["dag", "put"], node.as_bytes());
    let root = put.success().text();
    let (_giving, taking) = connected(&giver, &taker);
    let wants = || taking.metric("cairn_bitswap_wants_sent_total");
    assert_eq!(taker.ok(["cat", held]), "hello");
    assert_eq!(wants(), 0.0);
    taker.ok(["pin", "add", &root]);
    assert_eq!(blocks_received(&taking), 1.0);
    for command in [
        &["dag", "export", &root][..],
        &["refs", "-r", &root],
        &["cat", &format!("{root}/a")],
        &["block", "get", held],
        &["explain", &format!("{root}/a")],
    ] {
        taker.run(command).success();
    }
    assert_eq!(taker.ok(["bitswap", "wantlist"]), "");
    assert_eq!(blocks_received(&taking), 1.0);
    // The root, and that it is no longer wanted.
    let wants = wants();
    assert!((1.0..=2.0).contains(&wants), "{wants}");
}

#[test]
fn a_block_is_explained_wherever_it_is_or_is_not() {
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let cid = giver.run_with(["add", "-Q"], b"explained").success().text();
    let nowhere = giver.run_with(["add", "-Q", "-n"], b"nobody has this");
    let nowhere = nowhere.success().text();
    // Without a daemon.
    let told = taker.run(["explain", &cid]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.text().contains("not in the store"), "{told:?}");
    assert!(told.text().contains("this is offline"), "{told:?}");

    let giving = giver.daemon();
    let taking = taker.daemon();
    let told = taker.run(["explain", &nowhere]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let text = told.text();
    assert!(text.contains("not found: no peer could be asked"), "{text}");
    assert!(text.contains("cairn swarm connect"), "{text}");

    taker.ok(["swarm", "connect", &giving.swarm()]);
    let peer = giving.call("id", "")["ID"].as_str().unwrap().to_owned();
    let text = taker.ok(["explain", &cid]);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(cid.as_str()));
    let mut at = 0;
    for what in [
        "it is not in the store".to_owned(),
        "asking peers; 1 connected".to_owned(),
        format!("want-block to {peer}"),
        format!("block from {peer} in "),
        "9 bytes, hash ok".to_owned(),
        "written into the store, cached".to_owned(),
        "1 block received".to_owned(),
        format!("found: {peer} sent it"),
    ] {
        let found = text[at..].find(&what);
        at += found.unwrap_or_else(|| panic!("{what:?} in its place in {text}"));
    }
    let text = taker.ok(["explain", &cid]);
    assert!(
        text.contains("it is in the store: 9 bytes, cached"),
        "{text}"
    );
    taker.ok(["pin", "add", &cid]);
    let text = taker.ok(["explain", &cid]);
    assert!(
        text.contains("it is in the store: 9 bytes, kept: it is pinned, with all below it"),
        "{text}"
    );
    taker.ok(["pin", "rm", &cid]);
    taker.ok(["pin", "add", "--recursive=false", &cid]);
    let text = taker.ok(["explain", &cid]);
    assert!(text.contains("it is pinned, it alone"), "{text}");
    taker.ok(["pin", "rm", &cid]);
    let text = taker.ok(["explain", &cid]);
    assert!(text.contains("no pin names it"), "{text}");
    let told = taker.run(["explain", "--json", &nowhere]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let events: Vec<String> = told
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["Event"].as_str().unwrap().to_owned())
        .collect();
    for event in [
        "absent",
        "begun",
        "want-block",
        "dont-have",
        "given-up",
        "verdict",
    ] {
        assert!(
            events.iter().any(|known| known == event),
            "{event}: {events:?}"
        );
    }
    // Somebody else is at it already.
    taker.ok(["config", "set", "fetch.timeout", "1h"]);
    drop(taking);
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    let child = waiting(&taker, &taking, &["cat", &nowhere]);
    let told = taker.run(["--timeout=1s", "explain", &nowhere]).text();
    assert!(
        told.contains("1 other fetch here waits for it already"),
        "{told}"
    );
    program::end(&child);
    child.wait_with_output().unwrap();

    drop(taking);
}

#[test]
fn what_is_not_here_is_told_to_be_asked_of_nobody_while_no_daemon_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), hasty());
    let root = add(&giver, &source, &[]);
    let out = out.to_str().unwrap();
    let large = format!("{root}/large");
    let commands: [&[&str]; 8] = [
        &["pin", "add", &root],
        &["get", &root, "-o", out],
        &["cat", &large],
        &["get", &large, "-o", out],
        &["dag", "export", &root],
        &["ls", &root],
        &["refs", "-r", &root],
        &["block", "get", &root],
    ];
    let tells = |commands: &[&[&str]]| {
        for command in commands {
            let told = taker.run(*command).failure(1);
            assert!(told.contains("not found"), "{command:?}: {told}");
            assert!(told.contains("no daemon runs"), "{command:?}: {told}");
            assert!(told.contains("`cairn daemon`"), "{command:?}: {told}");
        }
    };
    tells(&commands);
    // With some of it here too.
    let (_giving, taking) = connected(&giver, &taker);
    taker.ok(["block", "stat", &root]);
    taker.ok(["ls", &large]);
    drop(taking);
    tells(&commands[..5]);
    // Who chose to be offline knows.
    let told = taker.run(["--offline", "cat", &large]).failure(1);
    assert!(!told.contains("no daemon runs"), "{told}");
    // A daemon that does run asked.
    let taking = taker.daemon();
    let told = taker.run(["pin", "add", &root]).failure(1);
    assert!(!told.contains("no daemon runs"), "{told}");
    drop(taking);
}

/// Begins a command of which the daemon has something to wait for.
fn waiting(taker: &Repo, taking: &Daemon, command: &[&str]) -> std::process::Child {
    let mut command = taker.command(command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while taking.call("bitswap/wantlist", "")["Keys"]
        .as_array()
        .is_none_or(Vec::is_empty)
    {
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_daemon_that_ends_under_a_command_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let nowhere = giver.run_with(["add", "-Q", "-n"], b"nobody has this");
    let nowhere = nowhere.success().text();
    let commands: [&[&str]; 3] = [
        &["pin", "add", &nowhere],
        &["cat", &nowhere],
        &["get", &nowhere, "-o", out.to_str().unwrap()],
    ];
    for command in commands {
        let taking = taker.daemon();
        let child = waiting(&taker, &taking, command);
        taking.kill();
        let done = child.wait_with_output().unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success());
        for what in ["the daemon at ", "ended while it worked", "in the store"] {
            assert!(told.contains(what), "{command:?}: {told}");
        }
    }
    assert!(!out.exists());
}

#[test]
fn whose_time_is_over_is_told_what_was_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    make_folder(&source);
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = add(&giver, &source, &["--pin=false"]);
    let gone = giver.ok(["resolve", &format!("/ipfs/{root}/file-17")]);
    let gone = gone.trim_start_matches("/ipfs/");
    giver.ok(["block", "rm", gone]);
    let (_giving, taking) = connected(&giver, &taker);
    // All else is here before, so that it is this block alone that is waited for.
    let mut child = waiting(&taker, &taking, &["pin", "add", &root]);
    while blocks_received(&taking) < 44.0 {
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        std::thread::yield_now();
    }
    program::end(&child);
    child.wait_with_output().unwrap();
    let file = format!("{root}/file-17");
    let commands: [&[&str]; 5] = [
        &["pin", "add", &root],
        &["get", &root, "-o", out.to_str().unwrap()],
        &["cat", &file],
        &["dag", "export", &root],
        &["block", "get", gone],
    ];
    for command in commands {
        let line = ["--timeout=700ms"].into_iter();
        let told = taker.run(line.chain(command.iter().copied())).failure(1);
        for what in [
            "context deadline exceeded",
            "after 0.7 s",
            gone,
            "asked 1 of 1 connected peers",
        ] {
            assert!(told.contains(what), "{what} {command:?}: {told}");
        }
    }
}

#[test]
fn the_way_to_a_peer_is_measured() {
    let (near, far) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (_near, there) = (near.daemon(), far.daemon());
    let address = there.swarm();
    let text = near.ok(["diag", "perf", &address, "--upload=3MiB", "--download=5MiB"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("upload: 3.1 MB in "), "{text}");
    assert!(lines[1].starts_with("download: 5.2 MB in "), "{text}");
    let line = [
        "diag",
        "perf",
        "--json",
        "--streams=4",
        "--upload=0",
        "--download=1MiB",
    ];
    let text = near.ok(line.into_iter().chain([address.as_str()]));
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["Direction"], "download");
    assert_eq!(
        (&answer["Streams"], &answer["Bytes"]),
        (&4.into(), &(1 << 20).into())
    );
    let nothing = ["diag", "perf", &address, "--upload=0", "--download=0"];
    let told = near.run(nothing).failure(1);
    assert!(told.contains("there is nothing to measure"), "{told}");
    let myself = near.ok(["id", "-f", "<id>"]);
    let told = near.run(["diag", "perf", &myself]).failure(1);
    assert!(
        told.contains(&format!("{myself} is this node itself")),
        "{told}"
    );
    // Who does not want to be measured is not.
    let closed = Repo::new(CAIRN);
    closed.ok(["config", "set", "diag.perf", "false"]);
    let closing = closed.daemon();
    let refused = near.run(["diag", "perf", &closing.swarm()]).failure(1);
    assert!(refused.contains("does not answer /perf/1.0.0"), "{refused}");
    assert!(
        refused.contains("unless `diag.perf = false` there"),
        "{refused}"
    );
}

#[test]
fn the_way_that_is_named_is_measured_whatever_others_there_are() {
    let (near, far) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let both = r#"["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]"#;
    far.ok(["config", "set", "addresses.swarm", both]);
    let (_near, there) = (near.daemon(), far.daemon());
    let peer = far.ok(["id", "-f", "<id>"]);
    let addresses = far.ok(["swarm", "addrs", "local", "--id"]);
    let of = |kind: &str| addresses.lines().find(|line| line.contains(kind)).unwrap();
    let (stream, datagrams) = (of("/tcp/"), of("/quic-v1"));
    near.ok(["swarm", "connect", stream]);
    let measured = |named: &str| {
        let line = ["diag", "perf", "--json", "--upload=1MiB", "--download=0"];
        let text = near.ok(line.into_iter().chain([named]));
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let address = answer["Address"].as_str().unwrap();
        format!("{address}/p2p/{peer}")
    };
    // By name, it is the connection that there is.
    assert_eq!(measured(&peer), stream);
    for way in [stream, datagrams, stream, datagrams] {
        assert_eq!(measured(way), way);
    }
    let there_are = near.ok(["swarm", "peers"]);
    assert_eq!(there_are.lines().count(), 2, "{there_are}");
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}");
    let told = near.run(["diag", "perf", &nobody]).failure(1);
    assert!(told.contains("/ip4/127.0.0.1/tcp/1"), "{told}");
    drop(there);
}

#[test]
fn who_is_connected_to_nobody_is_told_so_and_nothing_is_said_to_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let repo = hasty();
    let daemon = repo.daemon();
    let out = out.to_str().unwrap();
    let commands: [&[&str]; 3] = [
        &["cat", HELLO_V1],
        &["get", HELLO_V1, "-o", out],
        &["get", HELLO_V1, "-a", "-o", out],
    ];
    for command in commands {
        let done = repo.run(command);
        assert_eq!(done.text(), "", "{command:?}");
        let told = done.failure(1);
        for part in [
            HELLO_V1,
            "no peer is connected; ",
            "`cairn swarm connect` connects to who has it",
            "`cairn explain` tells how it is looked for",
        ] {
            assert!(told.contains(part), "{part} {command:?}: {told}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    drop(daemon);
}
