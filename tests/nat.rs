//! Real routers: network namespaces with veth pairs and iptables, made and removed by each test. Root
//! only; skipped with one line otherwise. Nothing leaves the namespaces: there is no way out of them.

use harness::nets::{Host, Nat, Nets};
use harness::{Daemon, Repo, wait_for, wait_until};
use std::fs;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A node in the whole network, on a host of it.
struct Node {
    repo: Repo,
    _daemon: Daemon,
    peer: String,
    host: Host,
}

impl Node {
    fn start(host: &Host, bootstrap: &[&Node]) -> Self {
        Self::start_with(host, bootstrap, &[])
    }

    fn start_with(host: &Host, bootstrap: &[&Node], settings: &[(&str, &str)]) -> Self {
        let repo = Repo::new(CAIRN).under(host.runner());
        let swarm = r#"["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]"#;
        let known: Vec<String> = bootstrap
            .iter()
            .map(|node| format!("{:?}", node.at()))
            .collect();
        let known = format!("[{}]", known.join(", "));
        for (key, value) in [
            ("network", "public"),
            ("addresses.swarm", swarm),
            ("bootstrap", &known),
            ("fetch.timeout", "15s"),
        ]
        .iter()
        .chain(settings)
        {
            repo.run(["config", "set", key, value]).success();
        }
        let daemon = repo.daemon();
        let peer = repo.ok(["id", "-f", "<id>"]);
        Self {
            repo,
            _daemon: daemon,
            peer,
            host: host.clone(),
        }
    }

    /// Its address over TCP.
    fn at(&self) -> String {
        format!("/ip4/{}/tcp/4001/p2p/{}", self.host.address, self.peer)
    }

    /// Its address over a relay.
    fn through(&self, relay: &Node) -> String {
        format!("{}/p2p-circuit/p2p/{}", relay.at(), self.peer)
    }

    fn connect(&self, address: &str) {
        self.repo.ok(["swarm", "connect", address]);
    }

    fn reach(&self) -> String {
        self.repo.ok(["swarm", "addrs", "autonat"])
    }

    /// The addresses at the other ends of its connections to `other`.
    fn ways_to(&self, other: &Node) -> Vec<String> {
        let peers = self.repo.ok(["swarm", "peers"]);
        let to_other = format!("/p2p/{}", other.peer);
        peers
            .lines()
            .filter_map(|line| line.trim().strip_suffix(&to_other))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until it knows that it can be reached, or not.
    fn wait_until(&self, reachability: &str) {
        let line = format!("Reachability: {reachability}");
        self.wait_for_reach(reachability, |reach| reach.lines().any(|told| told == line));
    }

    fn wait_for_relay(&self, relay: &Node) {
        self.wait_for_reach("a relay", |reach| {
            reach.contains("Relays:") && reach.contains(&relay.peer)
        });
    }

    fn wait_for_reach(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        wait_for(what, || {
            let reach = self.reach();
            if is_so(&reach) { Ok(()) } else { Err(reach) }
        });
    }

    fn speaks(&self) -> String {
        self.repo.ok(["id", "-f", "<protocols>"])
    }
}

/// A file of `bytes` bytes that nobody has, added to `node`. Gives its CID.
fn add(node: &Node, bytes: usize) -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    })
    .take(bytes / 8)
    .flatten()
    .collect();
    fs::write(&path, &content).unwrap();
    let cid = node.repo.ok(["add", "-Q", path.to_str().unwrap()]);
    (cid, content)
}

/// A relay that knows it is one, and another peer in the open that tries addresses.
fn in_the_open(nets: &mut Nets) -> (Node, Node) {
    let hosts = [
        nets.host("relay", "203.0.113.1"),
        nets.host("peer", "198.51.100.1"),
    ];
    let relay = Node::start(&hosts[0], &[]);
    let peer = Node::start(&hosts[1], &[&relay]);
    for node in [&relay, &peer] {
        node.wait_until("Public");
    }
    (relay, peer)
}

/// What must not become of a node that a relay stands in for.
fn is_no_server(node: &Node) {
    let speaks = node.speaks();
    assert!(!speaks.contains("/ipfs/kad/"), "{speaks}");
    assert!(
        !speaks.contains("/libp2p/circuit/relay/0.2.0/hop"),
        "{speaks}"
    );
    assert!(
        speaks.contains("/libp2p/circuit/relay/0.2.0/stop"),
        "{speaks}"
    );
}

#[test]
fn behind_routers_that_keep_ports_a_way_is_lent_and_then_opened_and_a_file_comes_over_it() {
    let Some(mut nets) = Nets::new() else { return };
    let (_, giver) = nets.home("giver", "192.0.2.11", Nat::PortRestricted);
    let (_, taker) = nets.home("taker", "192.0.2.12", Nat::PortRestricted);
    let (relay, peer) = in_the_open(&mut nets);
    for speaks in [relay.speaks(), peer.speaks()] {
        assert!(speaks.contains("/ipfs/kad/1.0.0"), "{speaks}");
        assert!(
            speaks.contains("/libp2p/circuit/relay/0.2.0/hop"),
            "{speaks}"
        );
    }
    let giver = Node::start(&giver, &[&relay, &peer]);
    let taker = Node::start(&taker, &[&relay, &peer]);
    for home in [&giver, &taker] {
        home.wait_until("Private");
        home.wait_for_relay(&relay);
        is_no_server(home);
    }
    let told = giver.repo.ok(["id", "-f", "<addrs>"]);
    assert!(told.contains(&giver.through(&relay)), "{told}");

    let (cid, content) = add(&giver, 50 << 20);
    taker.connect(&giver.through(&relay));
    wait_for("a direct way", || {
        let ways = taker.ways_to(&giver);
        match ways.iter().any(|way| !way.contains("p2p-circuit")) {
            true => Ok(()),
            false => Err(format!("{ways:?}")),
        }
    });
    let got = taker.repo.run(["cat", &cid]).success();
    assert!(got.stdout == content, "{} bytes", got.stdout.len());
}

#[test]
fn behind_routers_that_change_ports_no_way_opens_and_nothing_is_fetched_over_the_relay() {
    let Some(mut nets) = Nets::new() else { return };
    let (_, giver) = nets.home("giver", "192.0.2.11", Nat::Symmetric);
    let (_, taker) = nets.home("taker", "192.0.2.12", Nat::Symmetric);
    let (relay, peer) = in_the_open(&mut nets);
    let giver = Node::start(&giver, &[&relay, &peer]);
    let taker = Node::start(&taker, &[&relay, &peer]);
    giver.wait_until("Private");
    giver.wait_for_relay(&relay);
    let (cid, _) = add(&giver, 1 << 20);
    taker.connect(&giver.through(&relay));
    assert!(!taker.ways_to(&giver).is_empty());
    let refused = taker.repo.run(["cat", &cid]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stdout.is_empty());
    // Not over the relay, and not round it.
    let ways = taker.ways_to(&giver);
    assert!(
        ways.iter().all(|way| way.contains("p2p-circuit")),
        "{ways:?}"
    );
}

#[test]
fn behind_a_router_that_lets_everybody_in_a_node_is_found_to_be_reachable() {
    let Some(mut nets) = Nets::new() else { return };
    let (router, home) = nets.home("home", "192.0.2.11", Nat::FullCone);
    let (relay, peer) = in_the_open(&mut nets);
    let home = Node::start(&home, &[&relay, &peer]);
    home.wait_until("Public");
    let reach = home.reach();
    assert!(!reach.contains("Relays:"), "{reach}");
    let outside = format!("/ip4/{}/tcp/4001", router.address);
    assert!(reach.contains(&outside), "{reach}");
    let (cid, content) = add(&home, 1 << 20);
    peer.connect(&format!("{outside}/p2p/{}", home.peer));
    assert!(peer.repo.run(["cat", &cid]).success().stdout == content);
    let speaks = home.speaks();
    assert!(speaks.contains("/ipfs/kad/1.0.0"), "{speaks}");
}

#[test]
fn a_router_is_asked_for_a_port_and_peers_find_that_it_leads_to_us() {
    let Some(mut nets) = Nets::new() else { return };
    if std::process::Command::new("miniupnpd")
        .arg("--version")
        .output()
        .is_err()
    {
        return harness::tell_skipped("no `miniupnpd`");
    }
    // A router says that it has no way out if its own address is one for documentation.
    let (router, home) = nets.home("home", "5.5.5.11", Nat::PortRestricted);
    nets.run(
        &router.name,
        "iptables-legacy -t nat -N MINIUPNPD && iptables-legacy -t nat -N MINIUPNPD-POSTROUTING && \
         iptables-legacy -N MINIUPNPD && iptables-legacy -I FORWARD -i wan -j MINIUPNPD && \
         iptables-legacy -t nat -A PREROUTING -i wan -j MINIUPNPD",
    );
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("miniupnpd.conf");
    fs::write(
        &settings,
        "ext_ifname=wan\nlistening_ip=lan\nenable_upnp=yes\nsecure_mode=yes\n\
         uuid=00000000-0000-0000-0000-000000000001\n\
         allow 1024-65535 10.0.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
    )
    .unwrap();
    let process = folder.path().join("miniupnpd.pid");
    let [settings, process] = [&settings, &process].map(|path| path.to_str().unwrap());
    nets.start(
        &router.name,
        &["miniupnpd", "-d", "-f", settings, "-P", process],
    );
    let (relay, peer) = in_the_open(&mut nets);
    let home = Node::start(&home, &[&relay, &peer]);
    home.wait_until("Public");
    let outside = format!("/ip4/{}/tcp/4001", router.address);
    assert!(home.reach().contains(&outside), "{}", home.reach());
    peer.connect(&format!("{outside}/p2p/{}", home.peer));
}

#[test]
fn neighbours_find_each_other_in_lan_and_nothing_leaves_the_machine_in_local() {
    let Some(mut nets) = Nets::new() else { return };
    let hosts = ["one", "other"].map(|name| nets.namespace(name));
    nets.cable((&hosts[0], "lan"), (&hosts[1], "lan"));
    for (host, address) in hosts.iter().zip(["10.0.0.1", "10.0.0.2"]) {
        nets.run(host, &format!("ip addr add {address}/24 dev lan"));
        nets.run(host, "ip route add default dev lan");
    }
    let hosts = hosts.map(|name| Host {
        name,
        address: String::new(),
    });
    let start = |host: &Host, network: &str| {
        let repo = Repo::new(CAIRN).under(host.runner());
        repo.run(["config", "set", "network", network]).success();
        if network == "lan" {
            let swarm = r#"["/ip4/0.0.0.0/tcp/4001"]"#;
            repo.run(["config", "set", "addresses.swarm", swarm])
                .success();
        } else {
            // As much as may be wanted.
            for key in ["reach.mdns", "reach.upnp"] {
                repo.run(["config", "set", key, "true"]).success();
            }
        }
        let daemon = repo.daemon();
        (repo, daemon)
    };

    let before = nets.packets_out(&hosts[0].name, "lan");
    let (giver, _giving) = start(&hosts[0], "local");
    let (taker, _taking) = start(&hosts[0], "local");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "near").unwrap();
    let cid = giver.ok(["add", "-Q", path.to_str().unwrap()]);
    let address = giver.ok(["id", "-f", "<addrs>"]);
    taker.ok(["swarm", "connect", address.lines().next().unwrap()]);
    assert_eq!(taker.ok(["cat", &cid]), "near");
    // Somebody who is outside, somebody whom nobody knows, and a name.
    let stranger = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    for outside in ["/ip4/10.0.0.2/tcp/4001", "/dns4/example.com/tcp/4001"] {
        let refused = taker.run(["swarm", "connect", &format!("{outside}/p2p/{stranger}")]);
        assert_ne!(refused.code, Some(0), "{refused:?}");
    }
    let unknown = taker.run(["name", "resolve", "example.com"]).failure(1);
    assert!(unknown.contains("outside the network `local`"), "{unknown}");
    assert_eq!(nets.packets_out(&hosts[0].name, "lan"), before);

    let (one, _one) = start(&hosts[0], "lan");
    let (other, _other) = start(&hosts[1], "lan");
    let other_peer = other.ok(["id", "-f", "<id>"]);
    wait_until("a neighbour", || {
        one.ok(["swarm", "peers"]).contains(&other_peer)
    });
    // Both dial at once: between the same two ports it would be one TCP connection that nobody answers.
    nets.run(
        &hosts[0].name,
        "! ss -Htn sport = :4001 and dport = :4001 | grep .",
    );
    // Names are published and found there as well.
    let cid = one.ok(["add", "-Q", path.to_str().unwrap()]);
    wait_until("a neighbour that takes a record", || {
        one.run(["name", "publish", &cid]).code == Some(0)
    });
    let name = one.ok(["name", "publish", "-Q", &cid]);
    let resolved = other.ok(["name", "resolve", &name]);
    assert_eq!(resolved, format!("/ipfs/{cid}"));
    // The same count sees it when something does leave.
    assert!(nets.packets_out(&hosts[0].name, "lan") > before);
}
