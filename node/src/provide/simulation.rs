//! The real job over many simulated nodes, in simulated time. For tests and benches.
//!
//! Lookups are those of the engine over [`network::Network`]. Telling a peer takes two round trips of 80 ms, for the stream and its end, and one
//! more for every 256 KiB, which is how much a stream may carry before its other end says more. Of a thousand keys one is watched: who of
//! those that are truly nearest to it was told.

use super::strategy::{Gathered, Source};
use super::sweep::{Network, Reach, Sweep};
use super::{Clock, Options, Peers, Provide, ProvideStat, Strategy};
use crate::dht::network;
use crate::dht::place::Place;
use crate::dht::table::Contact;
use crate::event;
use crate::routing::RoutingError;
use crate::routing::queue::Queue;
use cairn_store::Cid;
use cairn_store::cid::{Multihash, RAW};
use libp2p::PeerId;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What came of providing once.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of the job itself.
    pub stat: ProvideStat,
    /// Lookups made.
    pub lookups: u64,
    /// Requests of all lookups.
    pub requests: u64,
    /// Records told.
    pub records: u64,
    /// Streams they went over.
    pub streams: u64,
    /// How long it took, simulated.
    pub took: Duration,
    /// Of those who are truly nearest to a key, how many were told, in percent.
    pub right: f64,
    /// Bytes of memory that stay for the keys.
    pub memory: usize,
}

/// Provides so many keys once, by one of so many nodes. What is remembered lies in `folder`.
pub fn provide(nodes: usize, keys: u64, seed: u64, folder: &Path) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let network = Simulated::new(nodes, seed);
    runtime.block_on(once(network, keys, folder))
}

async fn once(network: Arc<Simulated>, keys: u64, folder: &Path) -> io::Result<Report> {
    let options = Options {
        strategy: Strategy::All,
        interval: CYCLE,
        regions_at_once: crate::Config::default().provide_regions_at_once,
        folder: Some(folder.to_owned()),
    };
    let clock = Clock::simulated(START);
    let provide = Provide::open(&options, PeerId::random(), clock)?;
    let events = event::channel();
    let queue = Arc::new(Queue::new(1));
    let source = Numbers(keys);
    let job = Sweep::new(
        Arc::clone(&network),
        source,
        queue,
        (events.subscribe(), events),
        provide.shared(),
    );
    let began = Instant::now();
    let all = async {
        loop {
            sleep(Duration::from_millis(100)).await;
            let stat = provide.stat().await?;
            if stat.keys > 0 && stat.late == 0 && stat.under_way == 0 {
                return Ok::<_, io::Error>(stat);
            }
        }
    };
    let stat = tokio::select! {
        stat = all => stat?,
        () = job.run() => return Err(io::Error::other("the job ended")),
    };
    let took = began.elapsed();
    let state = provide.shared();
    let memory = state.state().keys.as_ref().map_or(0, |keys| keys.memory());
    Ok(Report {
        stat,
        lookups: network.lookups.load(Ordering::Relaxed),
        requests: network.requests.load(Ordering::Relaxed),
        records: network.records.load(Ordering::Relaxed),
        streams: network.streams.load(Ordering::Relaxed),
        took,
        right: network.right(),
        memory,
    })
}

/// Many nodes, one of which provides.
struct Simulated {
    network: Mutex<network::Network>,
    node: usize,
    nodes: usize,
    lookups: AtomicU64,
    requests: AtomicU64,
    records: AtomicU64,
    streams: AtomicU64,
    /// Who was told of the keys that are watched.
    watched: Mutex<HashMap<Vec<u8>, HashSet<PeerId>>>,
}

impl Simulated {
    fn new(nodes: usize, seed: u64) -> Arc<Self> {
        let mut network = network::Network::new(seed);
        for _ in 1..nodes {
            network.join();
            network.pass(BETWEEN_JOINS);
        }
        let node = network.join();
        network.pass(SETTLING);
        Arc::new(Self {
            network: Mutex::new(network),
            node,
            nodes,
            lookups: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            records: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            watched: Mutex::default(),
        })
    }

    fn right(&self) -> f64 {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut right, mut all) = (0, 0);
        for (key, told) in &*watched {
            let nearest = network.truly_nearest(key, NEAREST);
            right += nearest.iter().filter(|peer| told.contains(peer)).count();
            all += nearest.len();
        }
        right as f64 * 100.0 / all.max(1) as f64
    }
}

impl Network for Arc<Simulated> {
    async fn reach(&self) -> Result<Reach, RoutingError> {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Reach {
            peers: self.nodes,
            size: network.size(self.node),
        })
    }

    async fn region(&self, keys: Vec<Vec<u8>>, bits: u32) -> Result<Peers, RoutingError> {
        let told = {
            let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
            network.sweep(self.node, keys, bits)
        };
        let told = told.ok_or(RoutingError::LookupTooSlow)?;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let requests = told.outcome.requests as u64;
        self.requests.fetch_add(requests, Ordering::Relaxed);
        sleep(told.took).await;
        Ok(Peers([told.outcome.nearest, Vec::new()]))
    }

    async fn tell(&self, to: Contact, keys: Vec<Vec<u8>>) -> bool {
        let bytes = keys
            .iter()
            .map(|key| key.len() + MESSAGE_BYTES)
            .sum::<usize>();
        let trips = 2 + bytes / WINDOW_BYTES;
        sleep(ROUND_TRIP * u32::try_from(trips).unwrap_or(u32::MAX)).await;
        self.records.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.streams.fetch_add(1, Ordering::Relaxed);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if Place::of(&key).start().is_multiple_of(WATCHED) {
                watched.entry(key).or_default().insert(to.peer);
            }
        }
        true
    }
}

/// So many keys that are nobody's.
struct Numbers(u64);

impl Source for Numbers {
    fn version(&self) -> u64 {
        0
    }

    async fn keys(&self, keys: &Gathered) -> io::Result<()> {
        for number in 0..self.0 {
            let mut digest = [0; 32];
            let (bytes, _) = digest.split_at_mut(8);
            bytes.copy_from_slice(&number.to_be_bytes());
            let hash = Multihash::wrap(SHA2_256, &digest).map_err(io::Error::other)?;
            if keys.push(&Cid::new_v1(RAW, hash)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Of so many keys one is watched.
const WATCHED: u64 = 1000;
const SHA2_256: u64 = 0x12;
const CYCLE: Duration = Duration::from_secs(22 * 3600);
const START: Duration = Duration::from_secs(1_800_000_000);
const BETWEEN_JOINS: Duration = Duration::from_millis(20);
const SETTLING: Duration = Duration::from_secs(30);
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// What a stream may carry before its other end says more.
const WINDOW_BYTES: usize = 256 << 10;
/// Of a message beside the key: our peer ID and four addresses.
const MESSAGE_BYTES: usize = 120;
/// Those that keep a record.
const NEAREST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_a_region_tells_all_keys_to_those_nearest_to_each() {
        let folder = tempfile::tempdir().unwrap();
        let report = provide(300, 20_000, 5, folder.path()).unwrap();
        let regions = report.stat.regions as u64;
        assert!((4..=16).contains(&regions), "{report:?}");
        assert!(report.lookups * 10 <= regions * 11, "{report:?}");
        // A few keys look crowded by chance, and more are told of those.
        let records = 20_000 * NEAREST as u64;
        assert!(
            (records..records * 101 / 100).contains(&report.records),
            "{report:?}"
        );
        assert!(report.streams <= 300 * 3, "{report:?}");
        assert!(report.right >= 97.0, "{report:?}");
        assert!(report.memory as u64 <= 16 * 20_000, "{report:?}");
        let hour = 20_000.0 / report.took.as_secs_f64() * 3600.0;
        assert!(hour >= 3e6, "{hour} keys an hour");
    }
}
