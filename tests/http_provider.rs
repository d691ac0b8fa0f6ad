//! Nodes that get blocks from another's gateway over HTTP, with no peer or with peers beside it.

use harness::{Daemon, Repo, tree};
use std::fs;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A repository that asks the gateways of these daemons.
fn taker(givers: &[&Daemon]) -> Repo {
    let repo = Repo::new(CAIRN);
    let gateways: Vec<String> = givers
        .iter()
        .map(|giver| format!("\"http://{}\"", giver.gateway()))
        .collect();
    let gateways = format!("[{}]", gateways.join(", "));
    repo.ok(["config", "set", "fetch.gateways", &gateways]);
    repo
}

#[test]
fn a_gateway_alone_is_enough_for_cat_and_get_and_pin() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    tree::make(&source, 5, 60);
    let file = folder.path().join("file");
    fs::write(&file, tree::bytes(6, 3_000_000)).unwrap();
    let giver = Repo::new(CAIRN);
    let root = giver.ok(["add", "-r", "-Q", source.to_str().unwrap()]);
    let cid = giver.ok(["add", "-Q", file.to_str().unwrap()]);
    let giving = giver.daemon();
    let taker = taker(&[&giving]);
    let taking = taker.daemon();
    assert_eq!(
        taker.run(["cat", &cid]).success().stdout,
        fs::read(&file).unwrap()
    );
    taker.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert_eq!(tree::read(&out), tree::read(&source));
    taker.ok(["pin", "add", &root]);
    assert_eq!(taker.ok(["swarm", "peers"]), "", "nobody is connected");
    let delivered = r#"cairn_http_fetch_requests_total{outcome="delivered"}"#;
    assert!(taking.metric(delivered) >= 3.0);
    assert!(taking.metric("cairn_bitswap_blocks_received_total") > 60.0);
    assert!(taking.metric("cairn_http_fetch_bytes_total") > 3_000_000.0);
    assert_eq!(taking.metric("cairn_http_fetch_sources"), 1.0);
    // What is pinned is whole, without anybody to ask.
    giving.kill();
    let again = folder.path().join("again");
    taker.ok(["get", &root, "-o", again.to_str().unwrap()]);
    assert_eq!(tree::read(&again), tree::read(&source));
}

#[test]
fn what_a_gateway_does_not_have_comes_from_a_peer_and_the_rest_from_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let (half, whole) = (folder.path().join("half"), folder.path().join("whole"));
    tree::make(&half, 7, 30);
    tree::make(&whole.join("left"), 7, 30);
    tree::make(&whole.join("right"), 8, 30);
    let (first, second) = (Repo::new(CAIRN), Repo::new(CAIRN));
    first.ok(["add", "-r", "-Q", half.to_str().unwrap()]);
    let root = second.ok(["add", "-r", "-Q", whole.to_str().unwrap()]);
    // The peer keeps the root and one folder of it.
    let right = second.ok(["resolve", &format!("/ipfs/{root}/right")]);
    second.ok(["pin", "add", &right]);
    second.ok(["pin", "rm", &root]);
    second.ok(["pin", "add", "--recursive=false", &root]);
    assert_ne!(second.ok(["repo", "gc"]), "");
    let (over_http, peer) = (first.daemon(), second.daemon());
    let taker = taker(&[&over_http]);
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &peer.swarm()]);
    let out = folder.path().join("out");
    taker.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert_eq!(tree::read(&out), tree::read(&whole));
    for outcome in ["delivered", "absent"] {
        let name = format!("cairn_http_fetch_requests_total{{outcome=\"{outcome}\"}}");
        assert!(taking.metric(&name) > 0.0, "{outcome}");
    }
}

#[test]
fn two_nodes_that_are_each_others_gateway_find_nothing_in_time() {
    let (one, other) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let missing = one
        .run_with(["add", "-Q", "--only-hash"], b"nobody has this")
        .success()
        .text();
    let first = one.daemon();
    let gateways = format!("[\"http://{}\"]", first.gateway());
    other.ok(["config", "set", "fetch.gateways", &gateways]);
    other.ok(["config", "set", "fetch.timeout", "1s"]);
    let second = other.daemon();
    let address = first.gateway().to_string();
    drop(first);
    // The first again where it was, and with the second as its gateway.
    let (ip, port) = address.rsplit_once(':').unwrap();
    one.ok([
        "config",
        "set",
        "addresses.gateway",
        &format!("/ip4/{ip}/tcp/{port}"),
    ]);
    let gateways = format!("[\"http://{}\"]", second.gateway());
    one.ok(["config", "set", "fetch.gateways", &gateways]);
    one.ok(["config", "set", "fetch.timeout", "1s"]);
    let _first = one.daemon();
    for repo in [&one, &other] {
        let told = repo.run(["cat", &missing]).failure(1);
        assert!(told.contains("1 gateway asked in vain"), "{told}");
    }
}

#[test]
fn a_gateway_that_cannot_be_reached_is_told_apart_from_one_that_has_it_not() {
    let giver = Repo::new(CAIRN);
    let missing = giver.run_with(["add", "-Q", "--only-hash"], b"nobody has this");
    let missing = missing.success().text();
    let giving = giver.daemon();
    // Nobody is behind it once the socket is gone.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let taker = Repo::new(CAIRN);
    taker.ok(["config", "set", "fetch.timeout", "1s"]);
    let ask = |gateways: &str| {
        taker.ok(["config", "set", "fetch.gateways", gateways]);
        let taking = taker.daemon();
        let explained = taker.run(["explain", &missing]).text();
        let told = taker.run(["cat", &missing]).failure(1);
        drop(taking);
        (explained, told)
    };
    let unreached = format!("{closed} cannot be reached: Connection refused");
    let open = format!("http://{}", giving.gateway());

    let (explained, told) = ask(&format!("[\"{closed}\"]"));
    assert!(explained.contains(&unreached), "{explained}");
    assert!(
        explained.contains("not found: no gateway that was asked can be reached"),
        "{explained}"
    );
    assert!(explained.contains("`fetch.gateways`"), "{explained}");
    assert!(
        !explained.contains("nobody that was asked has it"),
        "{explained}"
    );
    assert!(told.contains(&unreached), "{told}");

    let (explained, told) = ask(&format!("[\"{closed}\", \"{open}\"]"));
    assert!(explained.contains(&unreached), "{explained}");
    assert!(
        explained.contains(&format!("{open} does not have it")),
        "{explained}"
    );
    assert!(told.contains(&unreached), "{told}");
    assert!(!told.contains(&format!("{open} cannot")), "{told}");

    let (explained, told) = ask(&format!("[\"{open}\"]"));
    assert!(!explained.contains("cannot be reached"), "{explained}");
    assert!(!told.contains("cannot be reached"), "{told}");
}

#[test]
fn a_gateway_outside_the_network_is_left_out_and_nothing_else_changes() {
    let repo = Repo::new(CAIRN);
    let outside = "[\"/dns4/gateway.invalid/tcp/443/tls/http\", \"http://192.0.2.1\"]";
    repo.ok(["config", "set", "fetch.gateways", outside]);
    let daemon = repo.daemon();
    assert_eq!(daemon.metric("cairn_http_fetch_sources"), 0.0);
    let wrong = repo.run(["config", "set", "fetch.gateways", "[\"nowhere\"]"]);
    assert!(
        wrong
            .failure(1)
            .contains("fetch.gateways: must be a list of gateways")
    );
}
