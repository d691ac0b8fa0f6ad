//! What a real node tells others of, and remembers that it did.

use harness::{Repo, wait_for};
use serde_json::Value;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Asks until the answer is as it should be.
fn until(repo: &Repo, cid: &str, is_so: impl Fn(&str) -> bool) -> String {
    wait_for("what was provided to be told of", || {
        let told = repo.ok(["provide", "stat", cid]);
        if is_so(&told) { Ok(told) } else { Err(told) }
    })
}

fn field(told: &str, name: &str) -> String {
    let start = format!("{name}: ");
    let line = told.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{name} in {told}"))
        .to_owned()
}

#[test]
fn what_is_added_is_told_at_once_and_known_to_be_after_a_kill() {
    let (giver, keeper, seeker) = (Repo::new(CAIRN), Repo::new(CAIRN), Repo::new(CAIRN));
    let before = giver.run_with(["add", "-Q"], b"before").success().text();
    let giving = giver.daemon();
    let keeping = keeper.daemon();
    let _seeking = seeker.daemon();
    let nothing = giver.ok(["provide", "stat", &before]);
    assert_eq!(field(&nothing, "LastAt"), "never");
    giver.ok(["swarm", "connect", &keeping.swarm()]);
    let name = keeping.swarm();
    let name = name.rsplit('/').next().unwrap();
    let was_told = |told: &str| told.lines().any(|line| line.trim() == name);
    let told = until(&giver, &before, was_told);
    assert_eq!(field(&told, "InSet"), "yes");
    let by_hand = giver.run(["routing", "provide", &before]).success();
    let told = "1 peer was told of";
    assert!(by_hand.stderr.contains(told), "{by_hand:?}");
    let stat = giver.ok(["provide", "stat", &before]);
    assert!(
        field(&stat, "RoutingProvide").ends_with("Z, 1 peer"),
        "{stat}"
    );
    let after = giver.run_with(["add", "-Q"], b"after").success().text();
    until(&giver, &after, was_told);
    let stat = giver.ok(["provide", "stat"]);
    assert_eq!(field(&stat, "Strategy"), "roots");
    assert_eq!(field(&stat, "KeysProvided"), "2");
    // As Kubo's tools read it.
    let json: Value = giving.call("provide/stat", "");
    assert_eq!(json["Sweep"]["operations"]["past"]["keys_provided"], 2);
    assert_eq!(json["FullRT"], false);
    let told = [
        "cairn_provide_keys_told_total",
        "cairn_provide_keys_waiting",
    ];
    assert_eq!(told.map(|name| giving.metric(name)), [2.0, 0.0]);
    // Somebody else finds it through the one who was told.
    seeker.ok(["swarm", "connect", &keeping.swarm()]);
    let giver_name = giving.swarm();
    let giver_name = giver_name.rsplit('/').next().unwrap();
    wait_for("the giver to be found", || {
        let found = seeker.ok(["routing", "findprovs", &after]);
        match found.contains(giver_name) {
            true => Ok(()),
            false => Err(found),
        }
    });
    giving.kill();
    let _giving = giver.daemon();
    // What was gathered is known to have been told; what only was announced is told again, once somebody is there.
    let told = until(&giver, &before, |told| field(told, "LastAt") != "never");
    assert!(was_told(&told), "{told}");
    giver.ok(["swarm", "connect", &keeping.swarm()]);
    until(&giver, &after, was_told);
    let stat = giver.ok(["provide", "stat"]);
    assert_eq!(field(&stat, "KeysProvided"), "1");
}

#[test]
fn providing_needs_a_running_node_and_a_cid() {
    let repo = Repo::new(CAIRN);
    let offline = repo.run(["provide", "stat"]).failure(1);
    assert!(offline.contains("cairn daemon"), "{offline}");
    let _daemon = repo.daemon();
    let absent = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    let stat = repo.ok(["provide", "stat", absent]);
    assert_eq!(field(&stat, "InSet"), "no, the block is not here");
    let added = repo.run_with(["add", "-Q", "--pin=false"], b"unpinned");
    let stat = repo.ok(["provide", "stat", &added.success().text()]);
    assert!(field(&stat, "InSet").contains("\"roots\""), "{stat}");
    let path = repo.run(["provide", "stat", &format!("{absent}/name")]);
    let path = path.failure(1);
    assert!(
        path.contains(&format!("cairn resolve /ipfs/{absent}/name")),
        "{path}"
    );
    let wrong = repo.run(["provide", "stat", "nothing"]).failure(1);
    assert!(wrong.contains("nothing"), "{wrong}");
    let all = repo
        .run(["config", "set", "provide.strategy", "everything"])
        .failure(1);
    assert!(
        all.contains("provide.strategy") && all.contains("\"pinned+mfs\""),
        "{all}"
    );
}
