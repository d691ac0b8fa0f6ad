//! What is set about bandwidth and serving holds in the real program, at once where it says so.

use harness::{Daemon, Repo, tree};
use std::fs;
use std::process::Child;
use std::time::Instant;
use tempfile::NamedTempFile;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

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
    assert_eq!(giving.metric(CAP), 2000.0);
    // Loopback is exempt until somebody says otherwise.
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(taker.run(["cat", &root]).success().stdout, bytes);
    assert_eq!(giving.metric(OUT), 0.0);

    let told = set(&giver, "limits.exempt", "[]");
    assert!(told.contains("has taken this up"), "{told}");
    let told = set(&giver, "fetch.connections", "77");
    assert!(told.contains("when it is started again"), "{told}");
    taker.ok(["repo", "gc"]);
    fs::write(&file, tree::bytes(6, 6_000_000)).unwrap();
    let other = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    let mut cat = Cat::begin(&taker, &other);
    // At this rate it would take most of an hour.
    while giving.metric(OUT) < 0.2 {
        assert!(!cat.has_ended(), "too fast");
    }
    let told = set(&giver, "limits.download", "1GB");
    assert!(!told.contains("limits.exempt"), "nobody is: {told}");
    let told = set(&giver, "limits.upload", "unlimited");
    assert!(told.contains("has taken this up"), "{told}");
    assert_eq!(giving.metric(CAP), 0.0);
    cat.ends_with(&fs::read(&file).unwrap());
    drop(taking);
}

/// A limit and who it holds back.
struct Limit {
    key: &'static str,
    direction: &'static str,
    scope: &'static str,
}

/// Adds a file of small blocks, so that what came is told finely; its root and its bytes.
fn add_in_small_blocks(repo: &Repo, seed: u64) -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let bytes = tree::bytes(seed, FILE_BYTES);
    fs::write(&file, &bytes).unwrap();
    let root = repo.ok(["add", "-Q", "--chunker=size-4096", file.to_str().unwrap()]);
    (root, bytes)
}

/// Bytes that may have come of one peer or of all, under a limit that holds since `start`.
fn most_since(start: Instant) -> f64 {
    BURST + RATE * start.elapsed().as_secs_f64()
}

/// A fetch under way. What comes goes to a file: a pipe that nobody reads would hold it back like a limit.
struct Cat {
    child: Child,
    came: NamedTempFile,
}

impl Cat {
    fn begin(taker: &Repo, root: &str) -> Self {
        let came = NamedTempFile::new().unwrap();
        let mut command = taker.command(["cat", root]);
        let child = command.stdout(came.reopen().unwrap()).spawn().unwrap();
        Self { child, came }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Lets it run to its end; it must be the file.
    fn ends_with(mut self, bytes: &[u8]) {
        assert!(self.child.wait().unwrap().success());
        assert!(
            fs::read(self.came.path()).unwrap() == bytes,
            "something else came"
        );
    }
}

/// Where somebody fetches under a limit, no more passes than it allows until it is lifted.
fn holds_until_it_is_lifted(limit: &Limit, seed: u64) {
    let Limit {
        key,
        direction,
        scope,
    } = limit;
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (root, bytes) = add_in_small_blocks(&giver, seed);
    let holder = if *direction == "out" { &giver } else { &taker };
    set(holder, "limits.exempt", "[]");
    set(holder, key, RATE_TEXT);
    let (giving, taking) = (giver.daemon(), taker.daemon());
    let (holding, other) = match *direction {
        "out" => (&giving, &taking),
        _ => (&taking, &giving),
    };
    let cap = |scope: &str| {
        let labels = format!("direction=\"{direction}\",scope=\"{scope}\"");
        holding.metric(&format!("cairn_limits_bytes_per_second{{{labels}}}"))
    };
    for known in ["total", "peer"] {
        let rate = if known == *scope { RATE } else { 0.0 };
        assert_eq!(cap(known), rate, "{known}");
    }
    let held = |daemon: &Daemon| {
        let name = "cairn_limits_throttled_seconds_total";
        daemon.metric(&format!("{name}{{direction=\"{direction}\"}}"))
    };
    taker.ok(["swarm", "connect", &giving.swarm()]);
    let start = Instant::now();
    let mut cat = Cat::begin(&taker, &root);
    let came = loop {
        // Looked at before the clock, so no machine is too slow for it.
        let came = taking.metric("cairn_bitswap_block_bytes_received_total");
        let most = most_since(start);
        assert!(came <= most, "{came} bytes came, {most} may have");
        if came >= ENOUGH {
            break came;
        }
        assert!(!cat.has_ended(), "{came} bytes only");
    };
    println!("{key}: {came} bytes of {}", most_since(start));
    assert!(held(holding) > 0.0);
    let told = set(holder, key, "unlimited");
    assert!(told.contains("has taken this up"), "{told}");
    assert_eq!(cap(scope), 0.0);
    cat.ends_with(&bytes);
    assert_eq!(held(other), 0.0, "it is the other's limit");
    // Who is slowed is not taken for silent.
    let twice = "cairn_bitswap_duplicate_blocks_received_total";
    assert_eq!(taking.metric(twice), 0.0);
}

#[test]
fn no_more_comes_than_a_limit_of_downloads_allows_until_it_is_lifted() {
    let (key, direction, scope) = ("limits.download", "in", "total");
    let limit = Limit {
        key,
        direction,
        scope,
    };
    holds_until_it_is_lifted(&limit, 7);
}

#[test]
fn no_more_goes_than_a_limit_of_uploads_allows_until_it_is_lifted() {
    let (key, direction, scope) = ("limits.upload", "out", "total");
    let limit = Limit {
        key,
        direction,
        scope,
    };
    holds_until_it_is_lifted(&limit, 9);
}

/// Bytes that `daemon` has of a peer.
fn came_from(daemon: &Daemon, peer: &str) -> f64 {
    let ledger = daemon.call("bitswap/ledger", &format!("arg={peer}"));
    ledger["Recv"].as_f64().unwrap()
}

fn name(repo: &Repo) -> String {
    repo.ok(["id", "-f", "<id>"])
}

/// Where two fetch at once and a limit of one peer is set on what is between them, each gets no more than it
/// allows, and both together more than one may. `came` tells how much came to each.
fn each_has_a_limit_of_its_own(
    holder: &Repo,
    key: &str,
    cats: [(Cat, Vec<u8>); 2],
    came: impl Fn() -> [f64; 2],
    start: Instant,
) {
    let [(mut first, first_bytes), (mut second, second_bytes)] = cats;
    loop {
        let [one, other] = came();
        let most = most_since(start);
        assert!(
            one <= most && other <= most,
            "{one} and {other} bytes came, {most} of each may have"
        );
        if one.min(other) >= ENOUGH && one + other > most {
            println!("{key}: {one} and {other} bytes, of {most} each");
            break;
        }
        for cat in [&mut first, &mut second] {
            assert!(
                !cat.has_ended(),
                "both share one limit: {one} and {other} bytes, {most} of each may have"
            );
        }
    }
    let told = set(holder, key, "unlimited");
    assert!(told.contains("has taken this up"), "{told}");
    first.ends_with(&first_bytes);
    second.ends_with(&second_bytes);
}

#[test]
fn who_takes_has_a_limit_of_its_own() {
    let key = "limits.upload_per_peer";
    let (giver, takers) = (Repo::new(CAIRN), [Repo::new(CAIRN), Repo::new(CAIRN)]);
    // Not the same, or they would give it to each other if they met.
    let files = [10, 11].map(|seed| add_in_small_blocks(&giver, seed));
    set(&giver, "limits.exempt", "[]");
    set(&giver, key, RATE_TEXT);
    let (giving, giver_name) = (giver.daemon(), name(&giver));
    let taking = takers.each_ref().map(Repo::daemon);
    for taker in &takers {
        taker.ok(["swarm", "connect", &giving.swarm()]);
    }
    let start = Instant::now();
    let mut cats = takers
        .iter()
        .zip(files)
        .map(|(taker, (root, bytes))| (Cat::begin(taker, &root), bytes));
    let cats = [cats.next().unwrap(), cats.next().unwrap()];
    let came = || {
        taking
            .each_ref()
            .map(|taking| came_from(taking, &giver_name))
    };
    each_has_a_limit_of_its_own(&giver, key, cats, came, start);
}

#[test]
fn who_gives_has_a_limit_of_its_own() {
    let key = "limits.download_per_peer";
    let (taker, givers) = (Repo::new(CAIRN), [Repo::new(CAIRN), Repo::new(CAIRN)]);
    let mut seeds = 12..;
    let files = givers
        .each_ref()
        .map(|giver| add_in_small_blocks(giver, seeds.next().unwrap()));
    set(&taker, "limits.exempt", "[]");
    set(&taker, key, RATE_TEXT);
    let (taking, giving) = (taker.daemon(), givers.each_ref().map(Repo::daemon));
    for giving in &giving {
        taker.ok(["swarm", "connect", &giving.swarm()]);
    }
    let start = Instant::now();
    let cats = files.map(|(root, bytes)| (Cat::begin(&taker, &root), bytes));
    let names = givers.each_ref().map(name);
    let came = || names.each_ref().map(|giver| came_from(&taking, giver));
    each_has_a_limit_of_its_own(&taker, key, cats, came, start);
}

/// Bytes a second of the limits that are measured, and as they are written.
const RATE: f64 = 75_000.0;
const RATE_TEXT: &str = "75KB";
/// What may come before a limit holds: a tenth of a second's worth is saved up, and a turn is waited for once
/// it is taken.
const BURST: f64 = RATE / 10.0 + 2048.0;
/// Some seconds' worth, beside which the burst is little: a limit that let a tenth more pass would show.
const ENOUGH: f64 = 2.0 * RATE;
/// So much that it does not end while it is measured.
const FILE_BYTES: usize = 1_000_000;

#[test]
fn the_ledger_tells_what_was_exchanged_and_a_denied_peer_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let bytes = tree::bytes(8, 300_000);
    fs::write(&file, &bytes).unwrap();
    let (giver, taker, denied) = (Repo::new(CAIRN), Repo::new(CAIRN), Repo::new(CAIRN));
    let root = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    set(
        &giver,
        "serve.peers_deny",
        &format!("[\"{}\"]", name(&denied)),
    );
    let kept_back = folder.path().join("kept-back");
    fs::write(&kept_back, tree::bytes(9, 1000)).unwrap();
    let kept_back = giver.ok(["add", "-Q", kept_back.to_str().unwrap()]);
    set(&giver, "serve.content_deny", &format!("[\"{kept_back}\"]"));
    let (giving, _taking, _denying) = (giver.daemon(), taker.daemon(), denied.daemon());
    for repo in [&taker, &denied] {
        repo.ok(["swarm", "connect", &giving.swarm()]);
    }
    // First, or it would find the one that got it.
    denied.run(["cat", "--timeout=1s", &root]).failure(1);
    taker.run(["cat", "--timeout=1s", &kept_back]).failure(1);
    assert_eq!(taker.run(["cat", &root]).success().stdout, bytes);
    let denial = "peers that ask for it are told that it is not here";
    assert!(giver.ok(["explain", &kept_back]).contains(denial));
    assert!(!giver.ok(["explain", &root]).contains(denial));
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
    assert!(wrong.contains("\"nobody\" is no peer ID"), "{wrong}");
    giver.ok(["bitswap", "stat", "--verbose", "--human"]);
}
