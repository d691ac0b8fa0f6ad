//! The daemon and `serve`: begun, asked, guarded and ended.

use harness::scenario::{HELLO_V1, hello, json};
use harness::{Daemon, Repo, scenario};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

#[test]
fn a_node_tells_who_it_is_and_what_it_does() {
    both(|repo| {
        let id = json(&repo.ok(["id"]));
        assert!(id["ID"].as_str().unwrap().starts_with("12D3KooW"), "{id}");
        assert!(
            id["AgentVersion"].as_str().unwrap().starts_with("cairn/"),
            "{id}"
        );
        assert!(repo.ok(["version"]).starts_with("cairn version "));
        assert!(repo.ok(["version", "-n"]).starts_with("0."));
        let format = repo.ok(["repo", "version", "-q"]);
        assert!(format.starts_with("fs-repo@"), "{format}");
        assert_eq!(
            repo.ok(["repo", "version"]),
            format!("cairn repo version {format}")
        );
        assert_eq!(repo.ok(["cid", "base32", HELLO_V1]), HELLO_V1);
        assert_eq!(
            repo.ok(["cid", "format", "-f", "%P", HELLO_V1]),
            "cidv1-raw-sha2-256-32"
        );
    });
    let repo = Repo::new(CAIRN);
    let offline = repo.run(["swarm", "peers"]).failure(1);
    assert!(offline.contains("online mode"), "{offline}");
    let daemon = repo.daemon();
    assert_eq!(repo.ok(["swarm", "peers"]), "");
    assert!(
        repo.ok(["swarm", "addrs", "listen"])
            .contains("/ip4/127.0.0.1/tcp/")
    );
    assert_eq!(repo.ok(["swarm", "addrs"]), "");
    assert_eq!(repo.ok(["bitswap", "wantlist"]), "");
    assert!(repo.ok(["stats", "bw"]).contains("TotalIn"));
    assert!(repo.ok(["bitswap", "stat"]).contains("bitswap status"));
    repo.ok(["log", "level", "all", "debug"]);
    repo.ok(["log", "level", "all", "warn"]);
    let nobody = repo.run(["routing", "findprovs", HELLO_V1]);
    assert_eq!(nobody.text(), "");
    drop(daemon);
}

#[test]
fn shutdown_ends_the_daemon_in_order() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    assert!(repo.path().join("api").exists());
    repo.ok(["shutdown"]);
    let (status, _) = Daemon::stop(daemon);
    assert!(status.success(), "{status:?}");
    assert!(!repo.path().join("api").exists());
    let none = repo.run(["shutdown"]).failure(1);
    assert!(none.contains("daemon"), "{none}");
}

#[test]
fn a_daemon_that_hangs_is_named_within_the_time_that_was_given() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    daemon.pause();
    let told = repo.run(["id", "--timeout", "100ms"]).failure(1);
    let named = format!("process {}) does not answer", daemon.process());
    assert!(told.contains(&named), "{told}");
    assert!(told.contains("--timeout"), "{told}");
    // Whose process it is, is known of a repository's own daemon alone.
    let api = fs::read_to_string(repo.path().join("api")).unwrap();
    let told = repo
        .run(["--api", api.trim(), "version", "--timeout", "100ms"])
        .failure(1);
    let named = format!("the daemon at {} does not answer", daemon.rpc());
    assert!(told.contains(&named), "{told}");
    daemon.resume();
    repo.ok(["id", "--timeout", "60s"]);
}

#[test]
fn a_stale_api_file_does_not_keep_commands_from_the_repository() {
    let repo = Repo::new(CAIRN);
    repo.daemon().kill();
    assert!(repo.path().join("api").exists(), "left behind by the kill");
    assert_eq!(
        repo.run_with(["add", "-Q"], b"hello world")
            .success()
            .text(),
        HELLO_V1
    );
}

#[test]
fn serve_makes_nothing_of_what_it_cannot_finish() {
    let folder = tempfile::tempdir().unwrap();
    let path = hello(folder.path());
    let nothing = folder.path().join("nothing");
    let new = Repo::empty(CAIRN);
    let refused = new
        .run(["serve", &path, nothing.to_str().unwrap()])
        .failure(1);
    assert!(refused.contains(nothing.to_str().unwrap()), "{refused}");
    assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0);

    let repo = Repo::new(CAIRN);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    repo.ok(["config", "set", "addresses.gateway", &address]);
    let refused = repo.run(["serve", &path]).failure(1);
    assert!(refused.contains(&port), "{refused}");
    assert_eq!(repo.ok(["pin", "ls"]), "");

    // What cannot be read stops the daemon again.
    repo.ok(["config", "set", "addresses.gateway", "/ip4/127.0.0.1/tcp/0"]);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = repo.run(["serve", socket.to_str().unwrap()]).failure(1);
    assert!(refused.contains("neither a file"), "{refused}");
    assert!(!repo.path().join("api").exists());
}

#[test]
fn serve_beside_a_daemon_of_its_repository_is_told_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = hello(folder.path());
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    // The same ports, as they are by default.
    for (key, port) in [
        ("addresses.rpc", daemon.rpc().port()),
        ("addresses.gateway", daemon.gateway().port()),
    ] {
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        repo.ok(["config", "set", key, &address]);
    }
    let told = repo.run(["serve", &path]).failure(1);
    assert!(
        told.starts_with("Error: a daemon is running already: the repository at "),
        "{told}"
    );
    let holder = format!("in use by process {} ", daemon.process());
    let at = format!(
        "takes commands at /ip4/127.0.0.1/tcp/{};",
        daemon.rpc().port()
    );
    for part in [&holder, &at, "`cairn add`", "`cairn shutdown` ends it"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(repo.ok(["add", "-Q", &path]), HELLO_V1);
}

#[test]
fn the_token_goes_to_the_repositorys_own_daemon_alone() {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "rpc.token", "secret"]);
    // Somebody else has the address now where a killed daemon listened.
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!(
        "/ip4/127.0.0.1/tcp/{}",
        stranger.local_addr().unwrap().port()
    );
    fs::write(repo.path().join("api"), &address).unwrap();
    repo.ok(["id"]);
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.accept().is_err(), "the stranger was asked");

    // Asked on purpose, it learns nothing.
    stranger.set_nonblocking(false).unwrap();
    let listening = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    });
    repo.run(["--api", &address, "id"]).failure(1);
    let head = listening.join().unwrap();
    assert!(head.starts_with("POST /api/v0/id"), "{head}");
    assert!(!head.contains("secret"), "{head}");

    let daemon = repo.daemon();
    let own = fs::read_to_string(repo.path().join("api")).unwrap();
    repo.ok(["--api", own.trim(), "id"]);
    drop(daemon);
}

#[test]
fn serve_does_everything_in_one_command() {
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let path = hello(folder.path());
    let served = Daemon::start(repo.command(["serve", &path]), repo.path());
    let gateway = served.gateway();
    let url = format!("http://{gateway}/ipfs/{HELLO_V1}");
    assert!(
        served.lines.iter().any(|line| line.contains(&url)),
        "{:#?}",
        served.lines
    );
    assert!(served.lines.last().unwrap().contains("Daemon is ready"));
    assert_eq!(
        served.get(&format!("/ipfs/{HELLO_V1}"), &[]).text(),
        "hello world"
    );
    assert_eq!(repo.ok(["pin", "ls"]), format!("{HELLO_V1} recursive"));
}

#[test]
fn two_processes_and_busy_ports_are_named() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let second = repo.run(["daemon"]).failure(1);
    assert!(second.contains("repo.lock"), "{second}");

    let other = Repo::new(CAIRN);
    let busy = format!("/ip4/127.0.0.1/tcp/{}", daemon.rpc().port());
    other.ok(["config", "set", "addresses.rpc", &busy]);
    let refused = other.run(["daemon"]).failure(1);
    assert!(
        refused.contains(&daemon.rpc().port().to_string()),
        "{refused}"
    );
    other.ok(["config", "set", "addresses.rpc", "/ip4/127.0.0.1/tcp/0"]);
    let address = daemon.swarm();
    let (address, _) = address.split_once("/p2p/").unwrap();
    other.ok([
        "config",
        "set",
        "addresses.swarm",
        &format!("[\"{address}\"]"),
    ]);
    let refused = other.run(["daemon"]).failure(1);
    for what in [address, "in use", "stop what uses it", "addresses.swarm"] {
        assert!(refused.contains(what), "{what}: {refused}");
    }
    let open = "/ip4/0.0.0.0/tcp/0";
    let open = other.run(["config", "set", "addresses.rpc", open]);
    let open = open.failure(1);
    assert!(open.contains("`rpc.token`"), "{open}");
}

#[test]
fn the_rpc_is_for_operators_only() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let rpc = daemon.rpc();
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        harness::http::request(rpc, method, target, headers, b"").unwrap()
    };
    assert_eq!(ask("GET", "/api/v0/version", &[]).status, 405);
    assert_eq!(ask("POST", "/api/v0/version", &[]).status, 200);
    assert_eq!(ask("POST", "/api/v0/no/such/command", &[]).status, 404);
    let origin = [("origin", "http://evil.example")];
    assert_eq!(ask("POST", "/api/v0/version", &origin).status, 403);
    assert_eq!(
        ask("POST", "/api/v0/version", &[("origin", "null")]).status,
        403
    );
    assert_eq!(
        ask(
            "POST",
            "/api/v0/version",
            &[("referer", "http://evil.example/x")]
        )
        .status,
        403
    );
    assert_eq!(
        ask("POST", "/api/v0/version", &[("host", "evil.example")]).status,
        403
    );
    let wrong = daemon.post("cat", "arg=nonsense");
    assert_eq!(wrong.status, 500);
    let error: Value = serde_json::from_slice(&wrong.body).unwrap();
    assert_eq!(error["Type"], "error");
    assert!(
        error["Message"].as_str().unwrap().contains("nonsense"),
        "{error}"
    );
    let metrics = ask("GET", "/metrics", &[]);
    assert_eq!(metrics.status, 200);
    for name in [
        "cairn_store_blocks",
        "cairn_store_commit_seconds",
        "cairn_bitswap",
        "cairn_gateway",
        "cairn_pins",
        "process_",
    ] {
        assert!(
            metrics.text().contains(name),
            "{name} is missing from the metrics"
        );
    }
    assert!(!metrics.text().contains("# EOF"));
    drop(daemon);

    repo.ok(["config", "set", "rpc.token", "secret"]);
    let daemon = repo.daemon();
    let ask = |headers: &[(&str, &str)]| {
        harness::http::request(daemon.rpc(), "POST", "/api/v0/id", headers, b"")
            .unwrap()
            .status
    };
    assert!([401, 403].contains(&ask(&[])));
    assert!([401, 403].contains(&ask(&[("authorization", "Bearer wrong")])));
    assert_eq!(ask(&[("authorization", "Bearer secret")]), 200);
    assert!(
        json(&repo.ok(["id"]))["ID"].is_string(),
        "the program reads its own token"
    );
}

#[test]
fn metrics_ask_for_the_token_beside_the_rpc_and_not_on_an_address_of_their_own() {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "rpc.token", "secret"]);
    let status = |at: SocketAddr, headers: &[(&str, &str)]| {
        let answer = harness::http::request(at, "GET", "/metrics", headers, b"");
        answer.unwrap().status
    };
    let bearer = [("authorization", "Bearer secret")];
    let daemon = repo.daemon();
    assert_eq!(status(daemon.rpc(), &[]), 401);
    assert_eq!(status(daemon.rpc(), &bearer), 200);
    drop(daemon);
    repo.ok(["config", "set", "addresses.metrics", "/ip4/127.0.0.1/tcp/0"]);
    let daemon = repo.daemon();
    assert_eq!(status(daemon.rpc(), &[]), 401);
    let mut lines = daemon.lines.iter();
    let url = lines.find_map(|line| line.strip_prefix("Metrics at http://"));
    let own = url.and_then(|url| url.strip_suffix("/metrics"));
    assert_eq!(status(own.unwrap().parse().unwrap(), &[]), 200);
}
