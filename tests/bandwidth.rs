//! What is set about bandwidth and serving holds in the real program, at once where it says so.

use harness::{Daemon, Repo, http, tree};
use std::fs;
use std::io::Read;
use std::time::Instant;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

fn metric(daemon: &Daemon, name: &str) -> f64 {
    let page = http::request(daemon.rpc(), "GET", "/metrics", &[], b"")
        .unwrap()
        .text();
    let line = page.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} in {page}"))
}

fn set(repo: &Repo, key: &str, value: &str) -> String {
    repo.run(["config", "set", key, value]).success().stderr
}

const OUT: &str = "cairn_limits_throttled_seconds_total{direction=\"out\"}";
const CAP: &str = "cairn_limits_bytes_per_second{direction=\"out\",scope=\"total\"}";

#[test]
fn a_limit_holds_at_once_and_so_does_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let bytes = tree::bytes(5, 6_000_000);
    fs::write(&file, &bytes).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    let told = set(&giver, "limits.upload", "2KB");
    assert!(!told.contains("daemon"), "none yet: {told}");
    assert!(told.contains("limits.exempt '[]'"), "{told}");
    let (giving, taking) = (giver.daemon(), taker.daemon());
    assert_eq!(metric(&giving, CAP), 2000.0);
    // Loopback is exempt until somebody says otherwise.
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(taker.run(["cat", &root]).success().stdout, bytes);
    assert_eq!(metric(&giving, OUT), 0.0);

    let told = set(&giver, "limits.exempt", "[]");
    assert!(told.contains("has taken this up"), "{told}");
    let told = set(&giver, "fetch.connections", "77");
    assert!(told.contains("when it is started again"), "{told}");
    taker.ok(["repo", "gc"]);
    fs::write(&file, tree::bytes(6, 6_000_000)).unwrap();
    let other = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    let mut cat = taker.command(["cat", &other]).spawn().unwrap();
    // At this rate it would take most of an hour.
    while metric(&giving, OUT) < 0.2 {
        assert!(cat.try_wait().unwrap().is_none(), "too fast");
    }
    let told = set(&giver, "limits.download", "1GB");
    assert!(!told.contains("limits.exempt"), "nobody is: {told}");
    let told = set(&giver, "limits.upload", "unlimited");
    assert!(told.contains("has taken this up"), "{told}");
    assert_eq!(metric(&giving, CAP), 0.0);
    let mut got = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert!(cat.wait().unwrap().success());
    assert_eq!(got, fs::read(&file).unwrap());
    drop(taking);
}

/// A limit and who it holds back.
struct Limit {
    key: &'static str,
    direction: &'static str,
    scope: &'static str,
}

/// Where somebody fetches under a limit, hardly anything passes until it is lifted.
fn holds_until_it_is_lifted(limit: &Limit, seed: u64) {
    let Limit {
        key,
        direction,
        scope,
    } = limit;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let bytes = tree::bytes(seed, 6_000_000);
    fs::write(&file, &bytes).unwrap();
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    let holder = if *direction == "out" { &giver } else { &taker };
    set(holder, "limits.exempt", "[]");
    set(holder, key, "2KB");
    let (giving, taking) = (giver.daemon(), taker.daemon());
    let (holding, other) = match *direction {
        "out" => (&giving, &taking),
        _ => (&taking, &giving),
    };
    let cap = |scope: &str| {
        let labels = format!("direction=\"{direction}\",scope=\"{scope}\"");
        metric(
            holding,
            &format!("cairn_limits_bytes_per_second{{{labels}}}"),
        )
    };
    for known in ["total", "peer"] {
        let rate = if known == *scope { 2000.0 } else { 0.0 };
        assert_eq!(cap(known), rate, "{known}");
    }
    let held = |daemon: &Daemon| {
        let name = "cairn_limits_throttled_seconds_total";
        metric(daemon, &format!("{name}{{direction=\"{direction}\"}}"))
    };
    taker.ok(["swarm", "connect", &giving.swarm()]);
    let start = Instant::now();
    let mut cat = taker.command(["cat", &root]).spawn().unwrap();
    // At this rate it would take most of an hour.
    while held(holding) < 0.2 {
        assert!(cat.try_wait().unwrap().is_none(), "too fast");
    }
    // Looked at before the clock, so no machine is too slow for it.
    let came = metric(&taking, "cairn_bitswap_block_bytes_received_total");
    let most = BEFOREHAND + 2000.0 * start.elapsed().as_secs_f64();
    assert!(came <= most, "{came} bytes came, {most} may have");
    let told = set(holder, key, "unlimited");
    assert!(told.contains("has taken this up"), "{told}");
    assert_eq!(cap(scope), 0.0);
    let mut got = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(got == bytes, "something else came");
    assert_eq!(held(other), 0.0, "it is the other's limit");
    // Who is slowed is not taken for silent.
    let twice = "cairn_bitswap_duplicate_blocks_received_total";
    assert_eq!(metric(&taking, twice), 0.0);
}

#[test]
fn a_limit_of_downloads_holds_until_it_is_lifted_and_breaks_nothing() {
    let (direction, scope) = ("in", "total");
    let key = "limits.download";
    holds_until_it_is_lifted(
        &Limit {
            key,
            direction,
            scope,
        },
        7,
    );
}

#[test]
fn limits_of_one_peer_hold_until_they_are_lifted() {
    let scope = "peer";
    for (seed, key, direction) in [
        (9, "limits.upload_per_peer", "out"),
        (10, "limits.download_per_peer", "in"),
    ] {
        holds_until_it_is_lifted(
            &Limit {
                key,
                direction,
                scope,
            },
            seed,
        );
    }
}

/// What may pass before a limit holds: the root of the file, and a piece that is read before it is paid for.
const BEFOREHAND: f64 = 100_000.0;

#[test]
fn the_ledger_tells_what_was_exchanged_and_a_denied_peer_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let bytes = tree::bytes(8, 300_000);
    fs::write(&file, &bytes).unwrap();
    let (giver, taker, denied) = (Repo::new(CAIRN), Repo::new(CAIRN), Repo::new(CAIRN));
    let name = |repo: &Repo| repo.ok(["id", "-f", "<id>"]);
    let root = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    set(
        &giver,
        "serve.peers_deny",
        &format!("[\"{}\"]", name(&denied)),
    );
    let (giving, _taking, _denying) = (giver.daemon(), taker.daemon(), denied.daemon());
    for repo in [&taker, &denied] {
        repo.ok(["swarm", "connect", &giving.swarm()]);
    }
    // First, or it would find the one that got it.
    denied.run(["cat", "--timeout=1s", &root]).failure(1);
    assert_eq!(taker.run(["cat", &root]).success().stdout, bytes);
    let (giver_name, taker_name) = (name(&giver), name(&taker));
    let ledger = taker.ok(["bitswap", "ledger", &giver_name]);
    assert!(ledger.starts_with(&format!("Ledger for {giver_name}\nDebt ratio:\t0.000000\n")));
    assert!(
        ledger.contains("Bytes sent:\t0\nBytes received:\t300000"),
        "{ledger}"
    );
    let known = taker.run(["bitswap", "ledger", &giver_name]).success();
    assert_eq!(known.stderr, "");
    let unknown = giver.run(["bitswap", "ledger", &name(&denied)]).success();
    assert!(
        unknown.stderr.contains("No block was exchanged"),
        "{unknown:?}"
    );
    let nothing = giver.ok(["bitswap", "ledger", &name(&denied)]);
    assert!(
        nothing.contains("Exchanges:\t0\nBytes sent:\t0"),
        "{nothing}"
    );
    let answer = giving
        .post("bitswap/ledger", &format!("arg={taker_name}"))
        .text();
    for field in [
        "\"Peer\":",
        "\"Value\":",
        "\"Sent\":300000",
        "\"Recv\":0",
        "\"Exchanged\":",
    ] {
        assert!(answer.contains(field), "{answer}");
    }
    // What it wants of us is gone when it has it; ours is the list without a name.
    assert_eq!(giver.ok(["bitswap", "wantlist", "--peer", &taker_name]), "");
    let wrong = giver
        .run(["bitswap", "wantlist", "-p", "nobody"])
        .failure(1);
    assert!(wrong.contains("invalid peer ID"), "{wrong}");
    giver.ok(["bitswap", "stat", "--verbose", "--human"]);
}
