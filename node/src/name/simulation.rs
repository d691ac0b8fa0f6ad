//! Names among a hundred nodes that come and go: is the newest record found, and how long does that take, beside who
//! waits for sixteen answers?

use super::search::{Search, tests::numbered};
use crate::dht::network::{Heard, Network};
use crate::ipns;
use crate::keystore::Key;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use std::time::{Duration, Instant};

/// What many searches came to.
#[derive(Debug, Default)]
struct Report {
    searches: usize,
    /// Those that ended with the newest record.
    right: usize,
    /// How long each took by our rule.
    ours: Vec<Duration>,
    /// How long each would have taken for who waits for sixteen answers, or the end.
    sixteen: Vec<Duration>,
}

impl Report {
    fn percentile(times: &[Duration], percent: usize) -> Duration {
        let mut times = times.to_vec();
        times.sort();
        times[(times.len() - 1) * percent / 100]
    }
}

/// After how long a search is good enough, and with what.
fn enough(name: &PeerId, heard: &[(Duration, Vec<u8>)], end: Duration) -> (Duration, Option<u64>) {
    let (mut search, start) = (Search::default(), Instant::now());
    for (after, value) in heard {
        if let Some(at) = search.enough_at()
            && at <= start + *after
        {
            break;
        }
        let record = ipns::Record::decode(name, value).unwrap();
        search.hear(record, start + *after);
    }
    let took = search.enough_at().map_or(end, |at| (at - start).min(end));
    (took, search.best().map(ipns::Record::sequence))
}

/// The same keys in every run.
fn key(number: u8) -> Key {
    let pair = Keypair::ed25519_from_bytes([number; 32]).unwrap();
    Key::from_protobuf(&pair.to_protobuf_encoding().unwrap()).unwrap()
}

/// Publishes names again and again among nodes of which so many go and come between, and resolves each from anywhere.
fn names_among(nodes: usize, gone: usize, seed: u64) -> Report {
    let mut network = Network::new(seed);
    for _ in 0..nodes {
        network.join();
        network.pass(Duration::from_millis(100));
    }
    network.pass(Duration::from_secs(60));
    let mut report = Report::default();
    let all: Vec<Key> = (1..=20).map(key).collect();
    let is_better = |keys: &Key, new: &[u8], old: &[u8]| {
        let name = keys.public().to_peer_id();
        let read = |bytes| ipns::Record::decode(&name, bytes).unwrap();
        read(new).age(&read(old)).is_gt()
    };
    for sequence in 0..10 {
        for keys in &all {
            let name = keys.public().to_peer_id();
            let record = numbered(keys, sequence);
            let publisher = network.any();
            let better = |new: &[u8], old: &[u8]| is_better(keys, new, old);
            network.keep(publisher, &ipns::key(&name), record.bytes(), better);
        }
        // Some go and others come before it is resolved.
        for _ in 0..gone {
            let leaves = network.any();
            network.leave(leaves);
            network.join();
            network.pass(Duration::from_secs(10));
        }
        for keys in &all {
            for _ in 0..5 {
                let name = keys.public().to_peer_id();
                let seeker = network.any();
                let found = network.find_values(seeker, ipns::key(&name));
                let Heard { values, took: end } = found.unwrap();
                let (took, best) = enough(&name, &values, end);
                report.searches += 1;
                report.right += usize::from(best == Some(sequence));
                report.ours.push(took);
                report
                    .sixteen
                    .push(values.get(15).map_or(end, |(after, _)| *after));
            }
        }
    }
    report
}

#[test]
fn a_name_is_found_as_it_is_now_though_nodes_come_and_go() {
    let report = names_among(100, 15, 1);
    let percentile = |times: &[Duration], percent| Report::percentile(times, percent).as_millis();
    println!(
        "{} of {} right; ours p50 {} ms, p95 {} ms; sixteen answers or the end p50 {} ms, p95 {} ms",
        report.right,
        report.searches,
        percentile(&report.ours, 50),
        percentile(&report.ours, 95),
        percentile(&report.sixteen, 50),
        percentile(&report.sixteen, 95),
    );
    assert_eq!(report.searches, 1000);
    assert!(
        report.right >= 999,
        "{} of {}",
        report.right,
        report.searches
    );
    assert!(Report::percentile(&report.ours, 50) < Report::percentile(&report.sixteen, 50));
}
