//! `pin`: alone and through a daemon.

use harness::scenario::{EMPTY_FOLDER_V1, HELLO_V1, damage, hello, json, lines};
use harness::{Repo, scenario};
use std::fs;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

#[test]
fn pins_are_listed_moved_verified_and_removed() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        let file = hello(&path);
        let root = repo.ok(["add", "-r", "-Q", "--pin=false", path.to_str().unwrap()]);
        assert_eq!(
            repo.ok(["pin", "add", &root]),
            format!("pinned {root} recursively")
        );
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "recursive"]),
            format!("{root} recursive")
        );
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "indirect"]),
            format!("{HELLO_V1} indirect")
        );
        assert_eq!(lines(&repo.ok(["pin", "ls", "-q", "--stream"])).len(), 2);
        let through = repo.ok(["pin", "ls", HELLO_V1]);
        assert_eq!(through, format!("{HELLO_V1} indirect through {root}"));
        let missing = repo.run(["pin", "ls", EMPTY_FOLDER_V1]).failure(1);
        assert!(missing.ends_with("not pinned"), "{missing}");
        let indirect = repo.run(["pin", "rm", HELLO_V1]).failure(1);
        assert!(indirect.contains("indirect"), "{indirect}");
        let line = ["pin", "rm", &root, HELLO_V1, EMPTY_FOLDER_V1];
        let none = repo.run(line).failure(1);
        let each = [HELLO_V1, EMPTY_FOLDER_V1]
            .map(|cid| format!("{cid} is not pinned or pinned indirectly"));
        let told = format!(
            "nothing was unpinned: {}; the other one stays as it is",
            each.join("; ")
        );
        assert!(none.ends_with(&told), "{none}");
        assert_eq!(repo.ok(["pin", "ls", "-q", "-t", "recursive"]), root);
        assert_eq!(
            repo.ok(["pin", "verify", "--verbose"]),
            format!("{root} ok")
        );

        fs::write(&file, "hello again").unwrap();
        let second = repo.ok(["add", "-r", "-Q", "--pin=false", path.to_str().unwrap()]);
        assert_eq!(
            repo.ok(["pin", "update", &root, &second]),
            format!("updated {root} to {second}")
        );
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "recursive"]),
            format!("{second} recursive")
        );
        assert_eq!(
            repo.ok(["pin", "rm", &second]),
            format!("unpinned {second}")
        );
        let again = repo.run(["pin", "rm", &second]).failure(1);
        assert!(
            again.ends_with("not pinned or pinned indirectly"),
            "{again}"
        );
        assert_eq!(
            repo.ok(["pin", "add", "-r=false", &root]),
            format!("pinned {root} directly")
        );
        assert_eq!(repo.ok(["pin", "ls"]), format!("{root} direct"));
    });
}

#[test]
fn pin_verify_names_a_pin_that_is_not_whole_and_ends_with_one() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let root = repo.ok(["add", "-Q", "-w", &hello(folder.path())]);
        repo.run_with(["add", "-Q"], b"whole").success();
        assert_eq!(repo.ok(["pin", "verify"]), "");
        damage(repo, b"hello world");
        for arguments in [
            &["pin", "verify"][..],
            &["pin", "verify", "--quiet"],
            &["pin", "verify", "--verbose"],
            &["pin", "verify", "--json"],
        ] {
            let done = repo.run(arguments);
            assert!(done.text().contains(&root), "{arguments:?}: {done:?}");
            let told = done.failure(1);
            let last = told.lines().last().unwrap_or_default();
            let names = format!("Error: pinned, but not whole: {root};");
            assert!(last.starts_with(&names), "{arguments:?}: {told}");
        }
        let line = json(&repo.run(["pin", "verify", "--json"]).text());
        assert_eq!(line["Cid"], root, "{line}");
        assert_eq!(line["Ok"], false, "{line}");
        assert_eq!(line["BadNodes"][0]["Cid"], HELLO_V1, "{line}");
    });
}

#[test]
fn pin_verify_looks_at_the_one_block_of_a_direct_pin() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let root = repo.ok(["add", "-Q", "-w", "--pin=false", &hello(folder.path())]);
        let second = repo.run_with(["add", "-Q", "--pin=false"], b"hello again");
        let second = second.success().text();
        repo.ok(["pin", "add", "-r=false", &root, &second]);
        damage(repo, b"hello world");
        // What lies below it is not pinned.
        let told = repo.ok(["pin", "verify", "--verbose"]);
        for pin in [&root, &second] {
            let whole = format!("{pin} ok");
            assert!(lines(&told).contains(&whole.as_str()), "{told}");
        }
        damage(repo, b"hello again");
        let done = repo.run(["pin", "verify"]);
        let broken = format!("{second} broken\n  {second}: ");
        assert!(done.text().starts_with(&broken), "{done:?}");
        let told = done.failure(1);
        assert!(told.contains("pinned, but not whole"), "{told}");
        let way = "`cairn pin add --recursive=false <CID>` of a direct pin";
        assert!(told.contains(way), "{told}");
    });
}

#[test]
fn what_reaches_a_block_is_told_when_it_is_met_and_not_at_the_end_of_the_dag() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        hello(&path);
        fs::write(path.join("later.txt"), "read later").unwrap();
        let root = repo.ok(["add", "-r", "-Q", path.to_str().unwrap()]);
        damage(repo, b"read later");
        let through = format!("{HELLO_V1} indirect through {root}");
        assert_eq!(repo.ok(["pin", "ls", HELLO_V1]), through);
        // Who is not met before the damage may be behind it.
        let unknown = repo.run(["pin", "ls", EMPTY_FOLDER_V1]).failure(1);
        assert!(unknown.contains("damaged on disk"), "{unknown}");
    });
}

#[test]
fn a_pin_that_fails_names_those_before_it_and_one_named_twice_goes_once() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "--pin=false", &hello(folder.path())]);
        let refused = repo
            .run(["pin", "add", "--offline", HELLO_V1, EMPTY_FOLDER_V1])
            .failure(1);
        assert!(
            refused.contains("not found") || refused.contains("missing"),
            "{refused}"
        );
        if repo.ok(["pin", "ls"]).contains(HELLO_V1) {
            let before = format!("pinned before: {HELLO_V1}");
            assert!(refused.contains(&before), "{refused}");
        }
        repo.ok(["pin", "add", HELLO_V1]);
        repo.ok(["pin", "rm", HELLO_V1, HELLO_V1]);
        assert_eq!(repo.ok(["pin", "ls"]), "");
    });
}

#[test]
fn a_pin_has_metadata_and_a_time_and_is_found_by_them() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "--pin=false", &hello(folder.path())]);
        let empty = repo.run_with(["add", "-Q"], b"").success().text();
        let pin = |more: &[&str]| {
            let line = ["pin", "add", HELLO_V1].iter().chain(more);
            repo.ok(line)
        };
        pin(&[
            "--name",
            "a name",
            "--meta",
            "owner=me",
            "--meta",
            "kind=text",
            "--expire-in",
            "1h",
        ]);
        let listed = |more: &[&str]| {
            let line = ["pin", "ls", "-t", "recursive"].iter().chain(more);
            repo.ok(line)
        };
        let alone = format!("{HELLO_V1} recursive");
        assert_eq!(listed(&["--meta", "owner=me"]), alone);
        assert_eq!(
            listed(&["--meta", "owner=me", "--meta", "kind=text"]),
            alone
        );
        assert_eq!(listed(&["--meta", "owner=you"]), "");
        assert_eq!(listed(&["--expires-before", "2h"]), alone);
        assert_eq!(listed(&["--expires-before", "30m"]), "");
        assert_eq!(
            listed(&["--status", "pinned", "--name", "a n"]),
            format!("{alone} pinned a name")
        );
        let long = listed(&["-l", "--meta", "kind=text"]);
        assert!(
            long.starts_with(&format!("{alone} a name created=20")),
            "{long}"
        );
        assert!(long.ends_with("Z kind=text owner=me"), "{long}");
        assert!(listed(&["-l", "--name", ""]).contains(&format!("{empty} recursive created=20")));
        // What is plain has Kubo's shape and nothing beside.
        let line = format!("{{\"Cid\":\"{HELLO_V1}\",\"Type\":\"recursive\"}}");
        assert_eq!(listed(&["--json", "--stream", "--meta", "kind=text"]), line);
        let keys = json(&listed(&["--json", "--meta", "kind=text"]));
        assert_eq!(keys["Keys"][HELLO_V1]["Name"], "");
        assert_eq!(keys["Keys"][HELLO_V1].as_object().unwrap().len(), 2);
        // A key goes, another changes, and without a time it stays for good.
        pin(&["--meta", "owner=", "--meta", "kind=words"]);
        let long = listed(&["-l", "--meta", "kind=words"]);
        assert!(long.ends_with(" expires=never kind=words"), "{long}");
        let refused = repo
            .run(["pin", "add", "--meta", "plain", HELLO_V1])
            .failure(1);
        assert!(refused.contains("key=value"), "{refused}");
    });
}

#[test]
fn an_expired_pin_is_removed_before_a_collection_and_its_blocks_with_that() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "--pin=false", &hello(folder.path())]);
        repo.ok(["pin", "add", "--expire-in", "30d", HELLO_V1]);
        let within = |time| repo.ok(["pin", "ls", "-q", "--expires-before", time]);
        assert_eq!(within("4w"), "");
        assert_eq!(within("5w"), HELLO_V1);
        assert_eq!(repo.ok(["repo", "gc"]), "");
        repo.ok(["pin", "add", "--expire-in", "1ms", HELLO_V1]);
        let removed = harness::wait_for("its time", || {
            let removed = repo.ok(["repo", "gc"]);
            match removed.is_empty() {
                true => Err(repo.ok(["pin", "ls", "-l"])),
                false => Ok(removed),
            }
        });
        assert_eq!(removed, format!("removed {HELLO_V1}"));
        assert_eq!(repo.ok(["pin", "ls"]), "");
        for (time, why) in [
            ("0", "expire-in must be longer"),
            ("366000d", "1000 years"),
            ("-1h", "not a duration"),
        ] {
            let line = ["pin", "add", "--expire-in", time, HELLO_V1];
            let refused = repo.run(line);
            assert!(refused.stderr.contains(why), "{refused:?}");
            assert_ne!(refused.code, Some(0), "{refused:?}");
        }
    });
}

#[test]
fn what_is_larger_than_max_size_is_not_pinned_and_both_figures_are_told() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        hello(&path);
        let root = repo.ok(["add", "-r", "-Q", "--pin=false", path.to_str().unwrap()]);
        let told = repo
            .run(["pin", "add", "--max-size", "20B", &root])
            .failure(1);
        assert!(told.contains("20 bytes at most"), "{told}");
        assert!(told.contains("its first block says that it has"), "{told}");
        assert_eq!(repo.ok(["pin", "ls"]), "");
        repo.ok(["pin", "add", "--max-size", "1kB", &root]);
        assert_eq!(repo.ok(["pin", "ls", "-q", "-t", "recursive"]), root);
        let line = ["pin", "add", "--name", "small", "--max-size", "20B", &root];
        let told = repo.run(line).failure(1);
        let stays = format!(
            "{root} is pinned already and stays so, as it was: it may have 20 bytes at most"
        );
        assert!(told.contains(&stays), "{told}");
        assert_eq!(repo.ok(["pin", "ls", "--name", "small"]), "");
    });
}

#[test]
fn many_present_roots_are_pinned_and_unpinned_in_one_request() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        for at in 0..1500 {
            fs::write(path.join(at.to_string()), at.to_string()).unwrap();
        }
        let root = repo.ok(["add", "-r", "-Q", "--pin=false", path.to_str().unwrap()]);
        let below = repo.ok(["refs", &root]);
        let mut cids: Vec<&str> = lines(&below);
        assert_eq!(cids.len(), 1500);
        let pinned = repo.ok(["pin", "add", "--name", "many"].iter().chain(&cids));
        let expected = cids.iter().map(|cid| format!("pinned {cid} recursively\n"));
        assert_eq!(pinned, expected.collect::<String>().trim_end());
        cids.sort_unstable();
        let listed = repo.ok(["pin", "ls", "-q", "--name", "many"]);
        let mut listed = lines(&listed);
        listed.sort_unstable();
        assert_eq!(listed, cids);
        let keys = json(&repo.ok(["pin", "ls", "--json"]));
        assert_eq!(keys["Keys"].as_object().unwrap().len(), 1500);
        repo.ok(["pin", "rm"].iter().chain(&cids));
        assert_eq!(repo.ok(["pin", "ls"]), "");
    });
}

#[test]
fn an_expired_pin_is_told_as_that_until_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::new(CAIRN);
    repo.ok(["add", "--pin=false", &hello(folder.path())]);
    let empty = repo.run_with(["add", "-Q"], b"").success().text();
    repo.ok(["pin", "add", "--expire-in", "1ms", HELLO_V1]);
    let expired = format!("{HELLO_V1} recursive expired");
    // Nobody removes it without a daemon and a collection.
    harness::wait_until("its time", || repo.ok(["pin", "ls", HELLO_V1]) == expired);
    let listed = |line: &[&str]| {
        let told = repo.ok(["pin", "ls"].iter().chain(line));
        let mut told: Vec<String> = lines(&told).iter().map(ToString::to_string).collect();
        told.sort();
        told
    };
    let sorted = |mut wanted: Vec<String>| {
        wanted.sort();
        wanted
    };
    let whole = format!("{empty} recursive");
    assert_eq!(listed(&[]), sorted(vec![whole.clone(), expired.clone()]));
    assert_eq!(
        listed(&["--status", "expired"]),
        std::slice::from_ref(&expired)
    );
    let pinned = format!("{whole} pinned");
    assert_eq!(
        listed(&["--status", "pinned,failed"]),
        std::slice::from_ref(&pinned)
    );
    let both = sorted(vec![pinned, expired]);
    assert_eq!(listed(&["--status", "pinned", "--status", "expired"]), both);
    assert_eq!(listed(&["--status", "all"]), both);
    let wrong = repo
        .run(["pin", "ls", "--status", "pinned,lost"])
        .failure(1);
    assert!(wrong.contains("invalid status 'lost'"), "{wrong}");
    assert_eq!(repo.ok(["repo", "gc"]), format!("removed {HELLO_V1}"));
    assert_eq!(listed(&[]), [whole]);
}

#[test]
fn a_pin_that_is_not_whole_any_more_is_made_whole_by_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let path = hello(folder.path());
    let add = |repo: &Repo| repo.ok(["add", "-Q", "-w", &path]);
    // Or the daemon may heal it by itself before it is asked to.
    taker.ok(["config", "set", "storage.scrub_share", "0"]);
    let root = add(&giver);
    assert_eq!(add(&taker), root);
    damage(&taker, b"hello world");
    let missing = taker.run(["pin", "add", &root]).failure(1);
    assert!(missing.contains(HELLO_V1), "{missing}");
    let (giving, _daemon) = (giver.daemon(), taker.daemon());
    taker.run(["pin", "verify"]).failure(1);
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(
        taker.ok(["pin", "add", "--name", "whole", &root]),
        format!("pinned {root} recursively")
    );
    assert_eq!(
        taker.ok(["pin", "verify", "--verbose"]),
        format!("{root} ok")
    );
    assert_eq!(
        taker.ok(["pin", "ls", "--name", "whole"]),
        format!("{root} recursive whole")
    );
}
