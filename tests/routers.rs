//! Nodes that learn who has what over HTTP: from another's gateway, beside services that mean ill or say nothing.

use harness::{Daemon, Repo};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A repository that asks these.
fn asker(routers: &[SocketAddr]) -> Repo {
    let repo = Repo::new(CAIRN);
    let routers: Vec<String> = routers
        .iter()
        .map(|at| format!("\"http://{at}\""))
        .collect();
    let routers = format!("[{}]", routers.join(", "));
    repo.ok(["config", "set", "routing.endpoints", &routers]);
    repo
}

/// Somebody who has something, and its name.
fn giver(content: &[u8]) -> (Repo, Daemon, String) {
    let repo = Repo::new(CAIRN);
    let cid = repo.run_with(["add", "-Q"], content).success().text();
    let daemon = repo.daemon();
    (repo, daemon, cid)
}

/// A service that reads a request and then does as it likes with the connection.
fn service(
    answer: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines
                    .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
                    .for_each(drop);
                // The node may hang up at any time.
                let _ = answer(stream);
            });
        }
    });
    address
}

fn says(text: impl Into<String>) -> impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send {
    let text = text.into();
    move |mut stream| stream.write_all(text.as_bytes())
}

fn questions(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric(&format!(
        "cairn_routers_questions_total{{outcome=\"{outcome}\"}}"
    ))
}

#[test]
fn a_router_is_enough_to_find_and_fetch() {
    let (_repo, giving, cid) = giver(b"found over HTTP");
    let asker = asker(&[giving.gateway()]);
    let asking = asker.daemon();
    assert_eq!(asker.ok(["swarm", "peers"]), "", "nobody is connected");
    let peer = giving.swarm();
    let peer = peer.rsplit('/').next().unwrap();
    assert_eq!(asker.ok(["routing", "findprovs", &cid]), peer);
    assert_eq!(asker.ok(["cat", &cid]), "found over HTTP");
    assert!(questions(&asking, "answered") >= 2.0);
    assert!(asker.ok(["swarm", "peers"]).ends_with(peer));
}

#[test]
fn what_nobody_has_is_not_found_and_that_is_no_error() {
    let (_repo, giving, _) = giver(b"something else");
    let missing = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    let answers = [
        giving.gateway(),
        service(says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")),
    ];
    for (at, outcome) in answers.into_iter().zip(["empty", "absent"]) {
        let asker = asker(&[at]);
        let asking = asker.daemon();
        drop(asker.run(["routing", "findprovs", missing]));
        assert_eq!(questions(&asking, outcome), 1.0, "{outcome}");
        assert_eq!(questions(&asking, "rests"), 0.0);
    }
}

#[test]
fn a_router_that_is_not_there_is_named_wherever_it_is_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let asker = asker(&[dead]);
    let _asking = asker.daemon();
    let named = format!("http://{dead}: no connection to it is made");
    let absent = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    let health = asker.run(["diag", "healthy"]).text();
    let unasked = format!("http://{dead}: never asked");
    assert!(health.contains(&unasked), "{health}");
    let told = asker.run(["routing", "findprovs", absent]).failure(1);
    assert!(told.contains(&named), "{told}");
    let health = asker.run(["diag", "healthy"]);
    assert_eq!(health.code, Some(1));
    let line = format!("routers: not well, {named}");
    assert!(health.text().contains(&line), "{health:?}");
    let explained = asker.run(["explain", absent]);
    assert!(explained.text().contains(&named), "{explained:?}");
}

/// As many providers as it likes, none of which is there.
fn liar() -> SocketAddr {
    service(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n")?;
        for _ in 0..2000 {
            let (peer, at) = (libp2p::PeerId::random(), "/ip4/127.0.0.1/tcp/1");
            let line = format!(r#"{{"Schema":"peer","ID":"{peer}","Addrs":["{at}"]}}"#);
            stream.write_all(line.as_bytes())?;
            stream.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// A gigabyte without an end of a line or a list.
fn flood(kind: &'static str) -> SocketAddr {
    service(move |mut stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let piece = vec![b'['; 1 << 20];
        (0..1024).try_for_each(|_| stream.write_all(&piece))
    })
}

#[test]
fn routers_that_hang_and_lie_keep_nobody_from_what_another_knows() {
    let (_repo, giving, cid) = giver(b"found beside liars");
    let hangs = service(|stream| {
        // Until the node hangs up.
        BufReader::new(stream).lines().for_each(drop);
        Ok(())
    });
    let asker = asker(&[hangs, liar(), giving.gateway()]);
    let _asking = asker.daemon();
    assert_eq!(asker.ok(["cat", &cid]), "found beside liars");
}

#[test]
fn routers_that_flood_and_fail_are_given_up_and_what_another_knows_is_found() {
    let (_repo, giving, cid) = giver(b"found beside floods");
    let routers = [
        liar(),
        flood("application/x-ndjson"),
        flood("application/json"),
        service(says(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
        )),
        service(says("what?")),
        giving.gateway(),
    ];
    let asker = asker(&routers);
    let asking = asker.daemon();
    let found = asker.ok(["routing", "findprovs", "-n", "1000", &cid]);
    let peer = giving.swarm();
    assert!(found.contains(peer.rsplit('/').next().unwrap()), "{found}");
    for (outcome, count) in [
        ("answered", 2.0),
        ("too_large", 2.0),
        ("redirect", 1.0),
        ("broken", 1.0),
    ] {
        assert_eq!(questions(&asking, outcome), count, "{outcome}");
    }
    // They rest, and nobody waits for them.
    assert_eq!(asker.ok(["cat", &cid]), "found beside floods");
    assert!(asking.metric("process_resident_memory_bytes") < 256e6);
}

#[test]
fn two_nodes_that_are_each_others_router_do_not_ask_for_ever() {
    let first = keeper();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = held.local_addr().unwrap();
    let second = asker(&[at]);
    second.ok(["config", "set", "gateway.routing_put", "true"]);
    let asking = second.daemon();
    let endpoints = format!("[\"http://{}\"]", asking.gateway());
    first.ok(["config", "set", "routing.endpoints", &endpoints]);
    let address = format!("/ip4/127.0.0.1/tcp/{}", at.port());
    first.ok(["config", "set", "addresses.gateway", &address]);
    drop(held);
    let answering = first.daemon();
    let missing = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    drop(second.run(["routing", "findprovs", missing]));
    assert_eq!(questions(&asking, "empty"), 1.0);
    assert_eq!(questions(&answering, "empty"), 0.0);
    // Nor do they hand each other the same record for ever.
    second.ok(["name", "publish", "-Q", "/ipfs/bafkqaaa"]);
    assert_eq!(questions(&asking, "taken"), 1.0);
    assert_eq!(questions(&answering, "taken"), 0.0);
    assert_eq!(questions(&answering, "newer"), 0.0);
}

/// Somebody who has others' records of names kept.
fn keeper() -> Repo {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "gateway.routing_put", "true"]);
    repo
}

const RECORD: &str = "application/vnd.ipfs.ipns-record";

#[test]
fn a_name_that_was_published_through_a_router_resolves_through_it_while_its_owner_is_away() {
    let keeper = keeper();
    let keeping = keeper.daemon();
    let routers = [keeping.gateway()];
    let (owner, reader) = (asker(&routers), asker(&routers));
    let publishing = owner.daemon();
    let publish = |path: &str| owner.ok(["name", "publish", "-Q", path]);
    let name = publish("/ipfs/bafkqaaa");
    let record = owner.run(["name", "get", &name]).success().stdout;
    publishing.kill();
    let _reading = reader.daemon();
    let resolve = || reader.ok(["name", "resolve", "--nocache", &name]);
    assert_eq!(resolve(), "/ipfs/bafkqaaa");
    let path = format!("/routing/v1/ipns/{name}");
    let told = keeping.get(&path, &[("accept", RECORD)]);
    assert_eq!(told.body, record, "the bytes that its owner signed");
    let publishing = owner.daemon();
    publish("/ipfs/bafkqabtimvwgy3yk");
    assert_eq!(resolve(), "/ipfs/bafkqabtimvwgy3yk");
    // Nobody met anybody.
    for repo in [&keeper, &owner, &reader] {
        assert_eq!(repo.ok(["swarm", "peers"]), "");
    }
    assert_eq!(questions(&publishing, "taken"), 1.0);
    // The older one does not come back.
    let kind = [("content-type", RECORD)];
    assert_eq!(keeping.put(&path, &kind, &record).status, 409);
    assert_eq!(resolve(), "/ipfs/bafkqabtimvwgy3yk");
    // What is kept outlives a restart of the one who keeps it.
    keeper.ok(["config", "set", "addresses.gateway", &multiaddr(routers[0])]);
    assert!(keeping.stop().0.success());
    let keeping = keeper.daemon();
    assert_eq!(keeping.gateway(), routers[0]);
    assert_eq!(resolve(), "/ipfs/bafkqabtimvwgy3yk");
}

fn multiaddr(at: SocketAddr) -> String {
    format!("/ip4/{}/tcp/{}", at.ip(), at.port())
}

#[test]
fn a_router_that_keeps_no_records_is_named_and_one_that_lies_about_them_is_not_believed() {
    let plain = Repo::new(CAIRN);
    let plain_daemon = plain.daemon();
    let owner = asker(&[plain_daemon.gateway()]);
    let publishing = owner.daemon();
    for _ in 0..2 {
        let told = owner.run(["name", "publish", "/ipfs/bafkqaaa"]).failure(1);
        assert!(told.contains("nobody took it"), "{told}");
    }
    assert_eq!(questions(&publishing, "unsupported"), 1.0, "asked once");
    let name = owner.ok(["key", "ls", "-l"]);
    let name = name.split(' ').next().unwrap();
    let record = owner.run(["name", "get", name]).success().stdout;
    // One gives the record of another name, one a flood, one what never ends, and one the right one.
    let answer = |body: &[u8]| {
        let head = format!("content-type: {RECORD}\r\ncontent-length: {}", body.len());
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
        let all = [head.as_bytes(), body].concat();
        move |mut stream: TcpStream| stream.write_all(&all)
    };
    let other = owner.ok(["key", "gen", "other"]);
    drop(owner.run(["name", "publish", "--key=other", "/ipfs/bafkqaaa"]));
    let others = owner.run(["name", "get", &other]).success().stdout;
    let hangs = service(|stream| {
        BufReader::new(stream).lines().for_each(drop);
        Ok(())
    });
    let routers = [
        service(answer(&others)),
        flood(RECORD),
        hangs,
        service(answer(&record)),
    ];
    let reader = asker(&routers);
    let reading = reader.daemon();
    assert_eq!(reader.ok(["name", "resolve", name]), "/ipfs/bafkqaaa");
    drop(reading);
    let reader = asker(&routers[..2]);
    let reading = reader.daemon();
    reader.run(["name", "resolve", name]).failure(1);
    assert_eq!(questions(&reading, "invalid"), 1.0);
    assert_eq!(questions(&reading, "too_large"), 1.0);
    assert_eq!(questions(&reading, "answered"), 0.0);
}

#[test]
fn the_gateway_tells_who_has_what_and_where_this_node_is() {
    let (repo, giving, cid) = giver(b"here");
    let peer = giving.swarm();
    let peer = peer.rsplit('/').next().unwrap();
    for path in [format!("providers/{cid}"), format!("peers/{peer}")] {
        let answer = giving.get(&format!("/routing/v1/{path}"), &[]);
        assert_eq!(answer.status, 200);
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let list = told.get("Providers").or_else(|| told.get("Peers")).unwrap();
        assert_eq!(list[0]["ID"], peer);
        assert_eq!(list[0]["Protocols"][0], "transport-bitswap");
        let address = list[0]["Addrs"][0].as_str().unwrap();
        assert!(address.starts_with("/ip4/127.0.0.1/tcp/"), "{address}");
    }
    drop(giving);
    // What a stranger would not be given is not said to be here.
    repo.ok([
        "config",
        "set",
        "serve.content_deny",
        &format!("[\"{cid}\"]"),
    ]);
    let giving = repo.daemon();
    let answer = giving.get(&format!("/routing/v1/providers/{cid}"), &[]);
    assert_eq!(answer.text(), r#"{"Providers":[]}"#);
    drop(giving);
    repo.ok(["config", "set", "gateway.routing", "false"]);
    let giving = repo.daemon();
    assert_eq!(
        giving
            .get(&format!("/routing/v1/providers/{cid}"), &[])
            .status,
        404
    );
}
