//! `limits.memory` in the real program: over it there are no new peers, and whoever asks is told why.

use harness::{Daemon, Repo};
use std::fs::File;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Less than the program itself has.
const TOO_LITTLE: &str = "16MiB";

#[test]
fn over_the_limit_a_fetch_says_why_it_finds_nobody_and_without_one_it_works() {
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let cid = giver.run_with(["add", "-Q"], b"held").success().text();
    let giving = giver.daemon();
    let told = taker.ok(["config", "get", "limits.memory"]);
    assert_eq!(told, "unlimited");
    taker.ok(["config", "set", "limits.memory", TOO_LITTLE]);
    taker.ok(["config", "set", "fetch.timeout", "2s"]);
    let log = taker.path().join("log");
    let file = File::create(&log).unwrap();
    let taking = Daemon::start_logging(taker.command(["daemon"]), taker.path(), file);

    let why = "it is over `limits.memory` = \"16MiB\"";
    let told = taker.run(["swarm", "connect", &giving.swarm()]).failure(1);
    assert!(told.contains(why), "{told}");
    assert!(told.contains("cairn config set limits.memory"), "{told}");
    let told = taker.run(["cat", &cid]).failure(1);
    assert!(told.contains(why), "{told}");
    let told = taker.run(["explain", &cid]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.text().contains(why), "{told:?}");
    // The other way round as well.
    giver.run(["swarm", "connect", &taking.swarm()]).failure(1);
    for way in ["in", "out"] {
        let name = format!("cairn_limits_memory_refused_total{{direction=\"{way}\"}}");
        assert!(taking.metric(&name) >= 1.0, "{way}");
    }
    assert!(
        taking.metric("process_resident_memory_bytes") > taking.metric("cairn_limits_memory_bytes")
    );

    let told = taker.run(["config", "set", "limits.memory", "unlimited"]);
    let told = told.success().stderr;
    assert!(told.contains("has taken this up"), "{told}");
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(taker.ok(["cat", &cid]), "held");
    // Once, however many were refused.
    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(why)).collect();
    let [line] = lines[..] else {
        panic!("{log}");
    };
    assert!(
        line.contains("connections refused") && line.contains("WARN"),
        "{line}"
    );
}

#[test]
fn a_limit_above_what_there_is_keeps_nobody_away() {
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let cid = giver.run_with(["add", "-Q"], b"held").success().text();
    for repo in [&giver, &taker] {
        repo.ok(["config", "set", "limits.memory", "4GB"]);
    }
    let (giving, taking) = (giver.daemon(), taker.daemon());
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(taker.ok(["cat", &cid]), "held");
    // It holds where it is asked for too.
    taker.ok(["swarm", "disconnect", &giving.swarm()]);
    let told = taker.run(["config", "set", "limits.memory", TOO_LITTLE]);
    let told = told.success().stderr;
    assert!(told.contains("has taken this up"), "{told}");
    taker.run(["swarm", "connect", &giving.swarm()]).failure(1);
    drop(taking);
}
