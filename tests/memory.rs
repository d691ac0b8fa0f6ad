//! `limits.memory` in the real program: over it there are no new peers, and whoever asks is told why.

#[path = "../node/tests/common/mod.rs"]
mod common;

use cairn_node::tasks::Tasks;
use common::stock;
use futures::{AsyncWriteExt, StreamExt};
use harness::{Daemon, Repo};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{StreamProtocol, SwarmEvent};
use std::fs::File;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::timeout;

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

/// Turns a test that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);
const BITSWAP: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");
/// Attackers that come, one after the other.
const CROWD: usize = 16;
/// What each of them lets pile up: on each stream the beginning of a message that never ends, no more than a
/// stream's window holds.
const STREAMS: usize = 64;
const STREAM_BYTES: usize = 200 << 10;
/// How much more than it had before the node may have until it takes no more peers: what two or three attackers
/// bring, and a sixth of what all would.
const LEEWAY: u64 = 32 << 20;
/// What may come on top: what those bring who came until it was seen that there is too much, and what it takes
/// to receive all that.
const SLACK: u64 = 64 << 20;

/// The most memory that a process ever had, as the system tells.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    peak.unwrap().trim().parse::<u64>().unwrap() << 10
}

/// Connects and lets pile up what a peer may, which stays until `crowd` ends; false if it is refused.
async fn attacks(address: &Multiaddr, crowd: &Tasks) -> bool {
    let Some(Protocol::P2p(victim)) = address.iter().last() else {
        panic!("no name in {address}");
    };
    let mut swarm = stock(WATCHDOG);
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address.clone()).unwrap();
    let pour = async {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = control.open_stream(victim, BITSWAP).await.ok()?;
            // A message of 4 MiB less one byte.
            let length = [0xff, 0xff, 0xff, 0x01];
            stream.write_all(&length).await.ok()?;
            stream.write_all(&[b'x'; STREAM_BYTES]).await.ok()?;
            stream.flush().await.ok()?;
            streams.push(stream);
        }
        Some(streams)
    };
    let turn = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionClosed { .. }
                | SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    let poured = tokio::select! {
        () = turn => None,
        poured = pour => poured,
    };
    let Some(streams) = poured else {
        return false;
    };
    let stopping = crowd.stopping();
    crowd.spawn("attacker", async move {
        let hold = async {
            loop {
                swarm.select_next_some().await;
            }
        };
        let _: Option<()> = stopping.run_until_cancelled_owned(hold).await;
        drop(streams);
    });
    true
}

#[test]
fn while_a_crowd_lets_much_pile_up_memory_stays_near_the_limit_and_a_neighbour_is_served() {
    let (giver, neighbour) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let [before, after] = ["before", "after"].map(|text| {
        let done = giver.run_with(["add", "-Q"], text.as_bytes());
        done.success().text()
    });
    let (giving, taking) = (giver.daemon(), neighbour.daemon());
    neighbour.ok(["swarm", "connect", &giving.swarm()]);
    assert_eq!(neighbour.ok(["cat", &before]), "before");
    let most = peak(&giving) + LEEWAY;
    giver.ok(["config", "set", "limits.memory", &most.to_string()]);

    let address = giving.swarm().parse().unwrap();
    let (runtime, crowd) = (Runtime::new().unwrap(), Tasks::new());
    let all_come = async {
        let mut came = 0;
        for _ in 0..CROWD {
            came += usize::from(attacks(&address, &crowd).await);
        }
        came
    };
    // A timer needs the runtime when it is made.
    let came = runtime.block_on(async { timeout(WATCHDOG, all_come).await });
    let came = came.expect("attackers that are let in or not, in time");
    let had = peak(&giving);
    println!("{came} of {CROWD} attackers came; {had} bytes of {most}");
    let refused = giving.metric("cairn_limits_memory_refused_total{direction=\"in\"}");
    assert!(refused > 0.0 && came < CROWD, "{came} came");
    assert!(had > most, "it was never over its limit: {had} of {most}");
    assert!(had <= most + SLACK, "{had} bytes, the limit is {most}");
    // They are all still there.
    assert_eq!(neighbour.ok(["cat", &after]), "after");
    crowd.stopping().cancel();
    drop(taking);
}
