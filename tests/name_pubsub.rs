//! Daemons that follow names over gossipsub, and what their operators see of it.

use harness::{Repo, wait_until};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// The empty file, within its CID.
const ONE: &str = "/ipfs/bafkqaaa";
/// Another one.
const TWO: &str = "/ipfs/bafkqablimvwgy3y";

fn following() -> Repo {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "names.pubsub", "true"]);
    repo
}

fn publish(repo: &Repo, path: &str) -> String {
    repo.ok(["name", "publish", "-Q", "--resolve=false", path])
}

#[test]
fn a_daemon_hears_at_once_of_what_a_name_that_it_was_asked_for_points_at_now() {
    let (publisher, follower) = (following(), following());
    let (publishing, daemon) = (publisher.daemon(), follower.daemon());
    follower.ok(["swarm", "connect", &publishing.swarm()]);
    let name = publish(&publisher, ONE);
    let subs = [format!("/ipns/{name}")];
    assert_eq!(publisher.ok(["name", "pubsub", "subs"]), subs[0]);
    assert_eq!(follower.ok(["name", "resolve", &name]), ONE);
    assert_eq!(follower.ok(["name", "pubsub", "state"]), "enabled");
    let listed = daemon.call("name/pubsub/subs", "");
    assert_eq!(listed, serde_json::json!({ "Strings": subs }));
    publish(&publisher, TWO);
    // Nobody is asked again within five minutes: it is told.
    wait_until("the new record", || {
        follower.ok(["name", "resolve", &name]) == TWO
    });
    let query = format!("arg=/ipns/{name}");
    for canceled in [true, false] {
        let answer = daemon.call("name/pubsub/cancel", &query);
        assert_eq!(answer, serde_json::json!({ "Canceled": canceled }));
    }
    assert_eq!(
        follower.ok(["name", "pubsub", "cancel", &name]),
        "no subscription"
    );
    assert_eq!(follower.ok(["name", "pubsub", "subs"]), "");
    daemon.stop();
    publishing.stop();
}

#[test]
fn where_it_is_off_the_operator_is_told_what_switches_it_on() {
    let repo = Repo::new(CAIRN);
    let ask = || {
        assert_eq!(repo.ok(["name", "pubsub", "state"]), "disabled");
        let name = "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r";
        for command in [&["subs"][..], &["cancel", name]] {
            let told = repo
                .run([&["name", "pubsub"][..], command].concat())
                .failure(1);
            assert!(told.contains("names.pubsub"), "{told}");
        }
    };
    ask();
    let daemon = repo.daemon();
    ask();
    let state = daemon.call("name/pubsub/state", "");
    assert_eq!(state, serde_json::json!({ "Enabled": false }));
    daemon.stop();
}
