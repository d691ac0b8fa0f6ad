//! Who the real program is connected to: peering, filters, private networks, and crowds from one address.

use harness::{Daemon, Repo, wait_until};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);

fn peers(repo: &Repo) -> usize {
    repo.ok(["swarm", "peers"]).lines().count()
}

/// The peer ID at the end of an address.
fn name(address: &str) -> &str {
    address.rsplit_once("/p2p/").unwrap().1
}

/// Where a swarm's address is, and its port.
fn socket(address: &str) -> SocketAddr {
    let parts: Vec<&str> = address.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

#[test]
fn a_peered_daemon_is_found_again_after_it_was_killed() {
    let (here, there) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let first = there.daemon();
    let address = first.swarm();
    let port = socket(&address).port();
    // From now on it has this port.
    let fixed = format!("[\"/ip4/127.0.0.1/tcp/{port}\"]");
    there.ok(["config", "set", "addresses.swarm", &fixed]);
    let list = format!("[\"{address}\"]");
    here.ok(["config", "set", "swarm.peering", &list]);
    let daemon = here.daemon();
    wait_until("the peer in the configuration", || peers(&here) == 1);
    let listed = here.ok(["swarm", "peering", "ls"]);
    let (transport, id) = address.rsplit_once("/p2p/").unwrap();
    assert_eq!(listed, format!("{id}\n\t{transport}"));
    first.kill();
    wait_until("its end", || daemon.metric("cairn_peering_away") == 1.0);
    let second = there.daemon();
    wait_until("it to be found again", || peers(&here) == 1);

    // Changed while it runs.
    assert_eq!(
        here.ok(["swarm", "peering", "rm", id]),
        format!("remove {id} success")
    );
    assert_eq!(here.ok(["swarm", "peering", "ls"]), "");
    let added = here.ok(["swarm", "peering", "add", &address]);
    assert_eq!(added, format!("add {id} success"));
    // By its name alone, at the addresses that are known for it.
    here.ok(["swarm", "peering", "rm", id]);
    let added = here.ok(["swarm", "peering", "add", id]);
    assert_eq!(added, format!("add {id} success"));
    let listed = here.ok(["swarm", "peering", "ls"]);
    assert!(listed.contains(transport), "{listed}");
    here.ok(["swarm", "peering", "rm", id]);
    here.ok(["swarm", "peering", "add", &address]);
    let stranger = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    let told = here.run(["swarm", "peering", "add", stranger]).failure(1);
    assert!(told.contains("no address known"), "{told}");
    let told = here
        .run(["swarm", "peering", "add", "/ip4/192.0.2.1/tcp/1"])
        .failure(1);
    assert!(told.contains("/p2p/"), "{told}");
    let outside = format!("/ip4/192.0.2.1/tcp/1/p2p/{id}");
    let told = here.run(["swarm", "peering", "add", &outside]).failure(1);
    assert!(told.contains("outside the network"), "{told}");
    here.run(["swarm", "peering", "rm", "nobody"]).failure(1);
    let listed = daemon.call("swarm/peering/ls", "");
    assert_eq!(listed["Peers"][0]["ID"], id);
    assert_eq!(listed["Peers"][0]["Addrs"][0], transport);
    drop(second);
}

#[test]
fn filters_hold_at_once_and_are_written_down() {
    let (here, there) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (daemon, other) = (here.daemon(), there.daemon());
    here.ok(["swarm", "connect", &other.swarm()]);
    let range = "/ip4/127.0.0.0/ipcidr/8";
    assert_eq!(here.ok(["swarm", "filters", "add", "127.0.0.0/8"]), range);
    wait_until("the connection to be closed", || peers(&here) == 0);
    assert_eq!(here.ok(["swarm", "filters"]), range);
    assert_eq!(
        here.ok(["config", "get", "swarm.filters"]),
        format!("[\"{range}\"]")
    );
    assert_eq!(here.ok(["swarm", "filters", "ls"]), range);
    let told = here.run(["swarm", "connect", &other.swarm()]).failure(1);
    let why = format!("{range}, which is in `swarm.filters`");
    assert!(told.contains(&why), "{told}");
    there.run(["swarm", "connect", &daemon.swarm()]).failure(1);
    let refused = "cairn_connections_refused_total{direction=\"in\",reason=\"filter\"}";
    assert!(daemon.metric(refused) >= 1.0);
    assert_eq!(here.ok(["swarm", "filters", "rm", "all"]), range);
    assert_eq!(here.ok(["swarm", "filters"]), "");
    here.ok(["swarm", "connect", &other.swarm()]);
    let told = here
        .run(["swarm", "filters", "add", "127.0.0.1"])
        .failure(1);
    assert!(told.contains("/ipcidr/16"), "{told}");
    // By way of the configuration as well.
    let set = here.run(["config", "set", "swarm.filters", "[\"10.0.0.0/8\"]"]);
    assert!(set.success().stderr.contains("has taken this up"));
    assert_eq!(here.ok(["swarm", "filters"]), "/ip4/10.0.0.0/ipcidr/8");
}

#[test]
fn a_ping_is_answered_as_often_as_it_is_sent() {
    let (here, there) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (daemon, other) = (here.daemon(), there.daemon());
    let address = other.swarm();
    let id = name(&address);
    let told = here.ok(["ping", "-n", "2", &address]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 4, "{told}");
    assert_eq!(lines[0], format!("PING {id}."));
    for line in &lines[1..3] {
        assert!(
            line.starts_with("Pong received: time=") && line.ends_with(" ms"),
            "{line}"
        );
    }
    assert!(lines[3].starts_with("Average latency: "), "{told}");
    let answer = daemon.post("ping", &format!("arg={id}&count=1"));
    let text = answer.text();
    let values: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(values.len(), 3, "{text}");
    assert!(
        values[1]["Success"] == true && values[1]["Time"].as_u64().unwrap() > 0,
        "{text}"
    );
    assert_eq!(values[1]["Text"], "");
    let own = daemon.swarm();
    let told = here.run(["ping", "-n", "1", &own]).failure(1);
    assert!(told.contains("this node itself"), "{told}");
    here.run(["ping", "-n", "0", id]).failure(1);
    drop(other);
    here.run(["ping", "-n", "1", &address]).failure(1);
}

#[test]
fn health_is_told_part_by_part_and_by_the_exit_code() {
    let repo = Repo::new(CAIRN);
    let alone = repo.run(["diag", "healthy"]);
    assert_eq!(alone.code, Some(1));
    assert!(alone.text().starts_with("daemon: not well, "), "{alone:?}");
    assert!(alone.text().contains("store: ok, "), "{alone:?}");
    let daemon = repo.daemon();
    let told = repo.ok(["diag", "healthy"]);
    for part in ["daemon", "store", "disk", "swarm", "peers"] {
        assert!(told.contains(&format!("{part}: ok, ")), "{told}");
    }
    // Somebody is named, and nobody is there.
    let absent = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    repo.ok(["swarm", "peering", "add", absent]);
    let lonely = repo.run(["diag", "healthy"]);
    assert_eq!(lonely.code, Some(1));
    assert!(
        lonely
            .text()
            .contains("peers: not well, connected to nobody"),
        "{lonely:?}"
    );
    let full = repo.run(["config", "set", "limits.memory", "16MiB"]);
    full.success();
    let told = repo.run(["diag", "healthy", "--json"]);
    assert_eq!(told.code, Some(1));
    let swarm = told.text();
    let swarm = swarm
        .lines()
        .find(|line| line.contains("\"swarm\""))
        .unwrap();
    let swarm: Value = serde_json::from_str(swarm).unwrap();
    assert_eq!(swarm["Healthy"], false);
    assert!(
        swarm["Text"].as_str().unwrap().contains("limits.memory"),
        "{swarm}"
    );
    drop(daemon);
}

#[test]
fn what_is_known_of_connections_is_listed_as_asked() {
    let (here, there) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (daemon, other) = (here.daemon(), there.daemon());
    here.ok(["swarm", "connect", &other.swarm()]);
    here.ok(["ping", "-n", "1", name(&other.swarm())]);
    wait_until("all to be known", || {
        let told = here.ok(["swarm", "peers", "-v"]);
        told.contains("agent: cairn/") && !told.contains("n/a")
    });
    let told = here.ok(["swarm", "peers", "-v"]);
    assert!(
        told.lines().next().unwrap().ends_with(" outbound"),
        "{told}"
    );
    assert!(told.contains("  /ipfs/bitswap/1.2.0"), "{told}");
    assert!(
        there
            .ok(["swarm", "peers", "--direction"])
            .ends_with(" inbound")
    );
    let plain = daemon.call("swarm/peers", "");
    assert!(plain["Peers"][0].get("Identify").is_none(), "{plain}");
    let full = daemon.call("swarm/peers", "verbose=true");
    let row = &full["Peers"][0];
    assert_eq!(
        (row["Direction"].as_u64(), row["Muxer"].as_str()),
        (Some(2), Some("/yamux/1.0.0"))
    );
    assert_eq!(row["Identify"]["ID"], name(&other.swarm()));
}

#[test]
fn a_daemon_without_room_for_more_says_so_and_so_does_whoever_comes() {
    let (full, first, second) = (Repo::new(CAIRN), Repo::new(CAIRN), Repo::new(CAIRN));
    full.ok(["config", "set", "fetch.connections", "1"]);
    let log = full.path().join("log");
    let file = File::create(&log).unwrap();
    let daemon = Daemon::start_logging(full.command(["daemon"]), full.path(), file);
    let _others = (first.daemon(), second.daemon());
    first.ok(["swarm", "connect", &daemon.swarm()]);
    for _ in 0..REFUSED {
        let told = second.run(["swarm", "connect", &daemon.swarm()]).failure(1);
        assert!(told.contains("as soon as it was up"), "{told}");
    }
    let refused = "cairn_connections_refused_total{direction=\"in\",reason=\"limit\"}";
    assert!(daemon.metric(refused) >= REFUSED as f64);
    let log = fs::read_to_string(&log).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("`fetch.connections`"));
    // One a minute, however many minutes this takes.
    assert!((1..REFUSED).contains(&lines.count()), "{log}");
}

/// Gives a repository the key of a private network.
fn lock_in(repo: &Repo, digit: &str) {
    let path = repo.path().join("swarm.key");
    let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digit.repeat(64));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_private_network_is_for_those_who_have_its_key() {
    let (giver, taker, stranger) = (Repo::new(CAIRN), Repo::new(CAIRN), Repo::new(CAIRN));
    let open = Repo::new(CAIRN);
    lock_in(&giver, "a");
    lock_in(&taker, "a");
    lock_in(&stranger, "b");
    let cid = giver.run_with(["add", "-Q"], b"among us").success().text();
    let giving = giver.daemon();
    let fingerprint = |daemon: &Daemon| {
        let lines = daemon.lines.iter();
        let mut marks = lines.filter(|line| line.starts_with("Swarm key fingerprint: "));
        marks.next().cloned()
    };
    let taking = taker.daemon();
    taker.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(taker.ok(["cat", &cid]), "among us");
    let outside = [stranger.daemon(), open.daemon()];
    for repo in [&stranger, &open] {
        let told = repo.run(["swarm", "connect", &giving.swarm()]).failure(1);
        assert!(told.contains("swarm.key"), "{told}");
    }
    for daemon in &outside {
        let told = giver.run(["swarm", "connect", &daemon.swarm()]).failure(1);
        assert!(told.contains("swarm.key"), "{told}");
        let told = giver.run(["ping", "-n", "1", &daemon.swarm()]).failure(1);
        assert!(told.contains("swarm.key"), "{told}");
    }
    assert_eq!(peers(&giver), 1);
    assert!(fingerprint(&giving).is_some() && fingerprint(&giving) == fingerprint(&taking));
    assert_ne!(fingerprint(&giving), fingerprint(&outside[0]));
    assert_eq!(fingerprint(&outside[1]), None);
}

#[test]
fn a_key_is_made_as_the_documentation_says() {
    let text = include_str!("../docs/configuration.md");
    let mut lines = text.lines();
    let make = lines.find(|line| line.contains("/key/swarm/psk/1.0.0/\\n"));
    let repo = Repo::new(CAIRN);
    let make = make.unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", make]).env("CAIRN_PATH", repo.path());
    assert!(shell.status().unwrap().success(), "{make}");
    let daemon = repo.daemon();
    let has_key = |line: &String| line.starts_with("Swarm key fingerprint: ");
    assert!(daemon.lines.iter().any(has_key), "{:?}", daemon.lines);
}

#[test]
fn what_is_asked_of_ourselves_and_of_others_is_answered_or_refused_by_name() {
    let (here, there) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (daemon, other) = (here.daemon(), there.daemon());
    let own = here.ok(["id", "-f", "<id>"]);
    let found = here.ok(["routing", "findpeer", &own]);
    let (transport, _) = daemon
        .swarm()
        .rsplit_once("/p2p/")
        .map(|(at, id)| (at.to_owned(), id.to_owned()))
        .unwrap();
    assert_eq!(found, transport);
    // A name of a short key is that key.
    let id = there.ok(["id", "-f", "<id>"]);
    let told = here.run(["id", &id]).failure(1);
    assert!(told.contains("cairn swarm connect"), "{told}");
    here.ok(["swarm", "connect", &other.swarm()]);
    let key = there.ok(["id", "-f", "<pubkey>"]);
    assert_eq!(here.ok(["id", "-f", "<pubkey>", &id]), key);
    for (command, query) in [
        ("stats/bw", format!("peer={id}")),
        ("stats/bw", "proto=/ipfs/bitswap/1.2.0".to_owned()),
        ("swarm/peers", "streams=true".to_owned()),
        ("routing/provide", format!("arg={id}&recursive=true")),
    ] {
        let answer = daemon.post(command, &query);
        assert_eq!(answer.status, 400, "{command}: {}", answer.text());
        assert!(
            answer.text().contains("there is no option"),
            "{}",
            answer.text()
        );
    }
    daemon.call("swarm/peers", "streams=false");
    let told = here.run(["bootstrap", "add", "default"]).failure(1);
    assert!(told.contains("no default list"), "{told}");
}

#[test]
fn a_key_that_cannot_be_used_stops_the_daemon_with_what_to_do() {
    let repo = Repo::new(CAIRN);
    let path = repo.path().join("swarm.key");
    // QUIC is only there if it was asked for.
    let quic = "[\"/ip4/127.0.0.1/udp/0/quic-v1\"]";
    repo.ok(["config", "set", "addresses.swarm", quic]);
    lock_in(&repo, "a");
    let told = repo.refused_daemon().failure(1);
    assert!(
        told.contains("QUIC") && told.contains("addresses.swarm"),
        "{told}"
    );
    let tcp = "[\"/ip4/127.0.0.1/tcp/0\"]";
    repo.ok(["config", "set", "addresses.swarm", tcp]);
    // With the key in place, it is refused where it is said.
    let told = repo
        .run(["config", "set", "addresses.swarm", quic])
        .failure(1);
    assert!(told.contains("QUIC"), "{told}");
    let public =
        "/dnsaddr/bootstrap.libp2p.io/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    let told = repo.run(["bootstrap", "add", public]).failure(1);
    assert!(told.contains("swarm.key"), "{told}");
    fs::remove_file(&path).unwrap();
    repo.ok(["bootstrap", "add", public]);
    lock_in(&repo, "a");
    let told = repo.refused_daemon().failure(1);
    assert!(told.contains("cairn bootstrap rm"), "{told}");
    repo.ok(["bootstrap", "rm", public]);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let told = repo.refused_daemon().failure(1);
    assert!(told.contains("chmod 600"), "{told}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "a secret").unwrap();
    let told = repo.refused_daemon().failure(1);
    assert!(told.contains("/key/swarm/psk/1.0.0/"), "{told}");
    assert!(!told.contains("a secret"), "{told}");
    fs::remove_file(&path).unwrap();
    let forced = repo.under(["env", "LIBP2P_FORCE_PNET=1"]);
    let told = forced.refused_daemon().failure(1);
    assert!(told.contains("LIBP2P_FORCE_PNET"), "{told}");
    lock_in(&repo, "a");
    drop(forced.daemon());
}

/// How often somebody comes where there is no room.
const REFUSED: usize = 3;
/// Connections that the crowd makes.
const CROWD: usize = 2000;

/// A connection from an address of its own: all of 127.0.0.0/8 is this machine.
async fn call(at: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(at).await.unwrap()
}

#[test]
fn a_crowd_from_one_address_takes_its_share_and_others_connect_and_fetch() {
    let (victim, honest) = (Repo::new(CAIRN), Repo::new(CAIRN));
    victim.ok(["config", "set", "limits.exempt", "[]"]);
    victim.ok(["config", "set", "connections.per_address", "4"]);
    let cid = victim
        .run_with(["add", "-Q"], b"still here")
        .success()
        .text();
    let log = victim.path().join("log");
    let file = File::create(&log).unwrap();
    let daemon = Daemon::start_logging(victim.command(["daemon"]), victim.path(), file);
    // From a port of its own: one of so many calls may have come from the port where it would listen.
    honest.ok(["config", "set", "addresses.swarm", "[]"]);
    let _helper = honest.daemon();
    let at = socket(&daemon.swarm());
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.process()))
            .unwrap()
            .count()
    };
    let before = open();
    let runtime = Runtime::new().unwrap();
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| runtime.block_on(call(at))).collect();
    let refused = "cairn_connections_refused_total{direction=\"in\",reason=\"address\"}";
    wait_until("all but a few to be refused", || {
        daemon.metric(refused) >= (CROWD - 64) as f64
    });
    // A few were let in, say nothing, and are given up in time; then others of them are.
    assert!(open() <= before + 64, "{} files", open());
    honest.ok(["swarm", "connect", &daemon.swarm()]);
    assert_eq!(honest.ok(["cat", &cid]), "still here");
    let log = fs::read_to_string(&log).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("`connections.per_address`"));
    assert!((1..CROWD / 2).contains(&lines.count()), "{log}");
    // Who was refused has been told by an end.
    let mut last = crowd.pop().unwrap();
    let mut rest = Vec::new();
    let ended = runtime.block_on(async { timeout(WATCHDOG, last.read_to_end(&mut rest)).await });
    assert!(ended.is_ok(), "it is kept");
    assert_eq!(peers(&victim), 1);
}
