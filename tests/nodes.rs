//! Two and five real nodes on loopback: what one added, another gets.

use harness::{Repo, tree};
use std::fs;
use std::path::Path;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

fn add_tree(repo: &Repo, folder: &Path, seed: u64, files: usize) -> String {
    tree::make(folder, seed, files);
    repo.ok(["add", "-r", "-Q", folder.to_str().unwrap()])
}

#[test]
fn of_several_peers_each_is_tried_and_told_of() {
    let (repo, other) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (_daemon, there) = (repo.daemon(), other.daemon());
    let stranger = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{stranger}");
    let there = there.swarm();
    let name = there.rsplit('/').next().unwrap();
    let tried = repo.run(["swarm", "connect", &nobody, "garbage", &there]);
    let lines = tried.text();
    let failed = format!("connect {stranger} failure: ");
    assert!(lines.starts_with(&failed), "{lines}");
    assert!(
        lines.contains("invalid peer address \"garbage\""),
        "{lines}"
    );
    assert!(
        lines.ends_with(&format!("connect {name} success")),
        "{lines}"
    );
    let told = tried.failure(1);
    assert!(told.contains("2 of 3 failed"), "{told}");
    let all = repo.run(["swarm", "disconnect", stranger, "garbage"]);
    let told = all.failure(1);
    assert!(
        told.contains(stranger) && told.contains("garbage"),
        "{told}"
    );
    let tried = repo.run(["swarm", "disconnect", stranger, name]);
    assert!(tried.text().contains(&format!("disconnect {name} success")));
    tried.failure(1);
}

#[test]
fn a_folder_added_on_one_node_is_got_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = add_tree(&giver, &source, 1, 120);
    let (giving, taking) = (giver.daemon(), taker.daemon());
    let connected = taker.ok(["swarm", "connect", &giving.swarm()]);
    assert!(
        connected.starts_with("connect ") && connected.ends_with(" success"),
        "{connected}"
    );
    taker.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert_eq!(tree::read(&out), tree::read(&source));
    // Through the gateway as well, from what is now local and from what is not yet.
    let listing = taking.get(&format!("/ipfs/{root}/"), &[("accept", "text/html")]);
    assert_eq!(listing.status, 200);
    let metrics = harness::http::request(giving.rpc(), "GET", "/metrics", &[], b"")
        .unwrap()
        .text();
    let sent = metrics
        .lines()
        .find(|line| line.starts_with("cairn_bitswap_blocks_sent_total"))
        .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(sent.is_some_and(|sent| sent > 100.0), "{sent:?}");
    assert_eq!(giver.ok(["swarm", "peers"]).lines().count(), 1);
    let address = giving.swarm();
    assert!(
        taker
            .ok(["swarm", "disconnect", &address])
            .ends_with("success")
    );
    assert_eq!(taker.ok(["swarm", "peers"]), "");
}

#[test]
fn a_pin_fetches_what_it_reaches_and_survives_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let root = add_tree(&giver, &source, 2, 40);
    let giving = giver.daemon();
    {
        let _taking = taker.daemon();
        taker.ok(["swarm", "connect", &giving.swarm()]);
        assert_eq!(
            taker.ok(["pin", "add", &root]),
            format!("pinned {root} recursively")
        );
    }
    giving.kill();
    let out = folder.path().join("out");
    taker.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert_eq!(tree::read(&out), tree::read(&source));
    assert_eq!(taker.ok(["repo", "gc"]), "", "all of it is pinned");
}

#[test]
fn damaged_blocks_are_healed_by_whoever_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let file = folder.path().join("file");
    fs::write(&file, tree::bytes(9, 200_000)).unwrap();
    let file = file.to_str().unwrap();
    let add = ["add", "-Q", "--chunker=size-1000", file];
    let root = giver.ok(add);
    assert_eq!(taker.ok(add), root);
    let alone = taker
        .run_with(["add", "-Q"], b"nobody else has this")
        .success();
    let lonely = alone.text();
    let giving = giver.daemon();
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    // A bit in each of some blocks, and a page in which whole blocks vanish with their names.
    let segment = taker.path().join("blocks/leaf-000001.car");
    let mut bytes = fs::read(&segment).unwrap();
    for at in [10_000, 20_000, 30_000] {
        bytes[at] ^= 0x40;
    }
    bytes[40_960..45_056].fill(0);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let healed = taker.run(["repo", "verify", "--heal", "--heal-timeout=2s"]);
    assert_eq!(healed.code, Some(1), "{healed:?}");
    let told = healed.text();
    let lines = told.lines().filter(|line| line.ends_with(", healed"));
    assert!(lines.count() >= 7, "{told}");
    assert!(
        told.lines()
            .any(|line| line.contains(&lonely) && line.contains("not healed")),
        "{told}"
    );
    // All but the one that nobody has, and that one can be dropped.
    let dropped = taker.ok(["repo", "verify", "--drop"]);
    assert!(
        dropped.contains(&lonely) && dropped.ends_with("1 blocks corrupt, 1 dropped"),
        "{dropped}"
    );
    drop(taking);
    giving.kill();
    assert_eq!(
        taker.run(["cat", &root]).success().stdout,
        fs::read(file).unwrap()
    );
}

#[test]
fn what_nobody_can_heal_is_dropped_when_both_are_asked_for() {
    let (giver, taker) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let shared = [&b"had by both"[..], b"had by both, without its name here"];
    let lonely = [&b"had by one"[..], b"had by one, without its name here"];
    let add = |repo: &Repo, content: &[u8]| repo.run_with(["add", "-Q"], content).success().text();
    let shared_cids = shared.map(|content| add(&giver, content));
    assert_eq!(shared.map(|content| add(&taker, content)), shared_cids);
    let lonely_cids = lonely.map(|content| add(&taker, content));
    let giving = giver.daemon();
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    let segment = taker.path().join("blocks/leaf-000001.car");
    let mut bytes = fs::read(&segment).unwrap();
    for [named, hidden] in [shared, lonely] {
        let place = |data: &[u8]| bytes.windows(data.len()).position(|part| part == data);
        let (named, hidden) = (place(named).unwrap(), place(hidden).unwrap());
        bytes[named] ^= 1;
        // The last byte of its name.
        bytes[hidden - 1] ^= 1;
    }
    fs::write(&segment, &bytes).unwrap();
    let cure = ["repo", "verify", "--heal", "--drop", "--heal-timeout=2s"];
    let told = taker.ok(cure);
    let has = |line: &str| told.lines().any(|told| told == line);
    let of = |cid: &str| told.lines().find(|line| line.contains(cid)).unwrap_or("");
    assert!(of(&shared_cids[0]).ends_with("), healed"), "{told}");
    assert!(
        has(&format!("block {} was hidden, healed", shared_cids[1])),
        "{told}"
    );
    assert!(of(&lonely_cids[0]).ends_with("), dropped"), "{told}");
    assert!(has("1 hidden blocks dropped"), "{told}");
    assert!(
        has("verify complete, 4 blocks corrupt, 2 healed, 2 dropped"),
        "{told}"
    );
    drop(taking);
    drop(giving);
    for (cid, content) in shared_cids.iter().zip(shared) {
        assert_eq!(taker.run(["cat", cid]).success().stdout, content);
    }
    for cid in &lonely_cids {
        let absent = taker.run(["cat", "--offline", cid]).failure(1);
        assert!(absent.contains("not found"), "{absent}");
    }
    assert!(
        taker
            .ok(["repo", "verify"])
            .ends_with("all blocks validated.")
    );
}

#[test]
fn five_nodes_find_content_through_the_one_they_all_know() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let repos: Vec<Repo> = (0..5).map(|_| Repo::new(CAIRN)).collect();
    let [middle, giver, takers @ ..] = repos.as_slice() else {
        unreachable!()
    };
    let meeting = middle.daemon();
    for repo in [giver].into_iter().chain(takers) {
        repo.ok(["bootstrap", "add", &meeting.swarm()]);
    }
    let _giving = giver.daemon();
    giver.ok(["swarm", "connect", &meeting.swarm()]);
    let root = add_tree(giver, &source, 3, 30);
    giver.ok(["routing", "provide", &root]);
    for (at, taker) in takers.iter().enumerate() {
        let _taking = taker.daemon();
        taker.ok(["swarm", "connect", &meeting.swarm()]);
        let providers = taker.ok(["routing", "findprovs", &root]);
        assert!(!providers.is_empty());
        let out = folder.path().join(format!("out-{at}"));
        taker.ok(["get", "--timeout=60s", &root, "-o", out.to_str().unwrap()]);
        assert_eq!(tree::read(&out), tree::read(&source));
    }
}

#[test]
fn a_peer_is_found_by_name_and_only_valid_values_are_put() {
    let repos: Vec<Repo> = (0..3).map(|_| Repo::new(CAIRN)).collect();
    let [middle, wanted, seeker] = repos.as_slice() else {
        unreachable!()
    };
    let meeting = middle.daemon();
    let sought = wanted.daemon();
    let _seeking = seeker.daemon();
    for repo in [wanted, seeker] {
        repo.ok(["swarm", "connect", &meeting.swarm()]);
    }
    let (address, peer) = sought.swarm().rsplit_once("/p2p/").map_or_else(
        || unreachable!("an address ends in a peer ID"),
        |(address, peer)| (address.to_owned(), peer.to_owned()),
    );
    let found = seeker.ok(["routing", "findpeer", &peer]);
    assert!(found.lines().any(|line| line == address), "{found}");
    let stranger = "12D3KooWSHj3RRbBjD15g6wekV8y3mm57Pobmps2g2WJm6F67Lay";
    let missing = seeker.run(["routing", "findpeer", stranger]).failure(1);
    assert!(
        missing.contains("nobody asked knows its addresses"),
        "{missing}"
    );
    let name = format!("/ipns/{peer}");
    let nothing = seeker.run(["routing", "get", &name]).failure(1);
    assert!(nothing.contains("nobody asked keeps a value"), "{nothing}");
    let foreign = seeker.run(["routing", "get", "/secrets/x"]).failure(1);
    assert!(foreign.contains("write /ipns/NAME"), "{foreign}");
    let garbage = seeker
        .run_with(["routing", "put", &name, "-"], b"garbage")
        .failure(1);
    assert!(garbage.contains("not a value for this key"), "{garbage}");
}

#[test]
fn a_local_node_dials_nobody_outside_this_machine() {
    let repo = Repo::new(CAIRN);
    let _daemon = repo.daemon();
    for outside in [
        "/ip4/192.0.2.1/tcp/4001",
        "/ip4/10.0.0.1/tcp/4001",
        "/dns4/example.org/tcp/4001",
    ] {
        let peer = "12D3KooWSHj3RRbBjD15g6wekV8y3mm57Pobmps2g2WJm6F67Lay";
        let refused = repo
            .run(["swarm", "connect", &format!("{outside}/p2p/{peer}")])
            .failure(1);
        assert!(refused.contains("outside the network"), "{refused}");
    }
}
