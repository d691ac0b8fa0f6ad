//! The job against a made-up network, in simulated time.

use super::*;
use crate::dht::tests::contacts;
use crate::provide::{Options, Provide, Strategy};
use crate::tasks::Tasks;
use cairn_store::Cid;
use cairn_store::cid::{Multihash, RAW};
use libp2p::PeerId;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// What happened on the network.
#[derive(Debug, Clone, PartialEq)]
enum Happened {
    Looked { keys: usize, bits: u32 },
    Told { peer: PeerId, keys: Vec<Vec<u8>> },
}

/// A network that everybody knows all of.
struct Net {
    peers: Mutex<Vec<Contact>>,
    size: Mutex<Option<f64>>,
    takes: Mutex<bool>,
    happened: mpsc::Sender<Happened>,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
}

impl Network for Arc<Net> {
    async fn reach(&self) -> Result<Reach, RoutingError> {
        Ok(Reach {
            peers: self.peers.lock().unwrap().len(),
            size: *self.size.lock().unwrap(),
        })
    }

    async fn region(&self, keys: Vec<Vec<u8>>, bits: u32) -> Result<Peers, RoutingError> {
        let peers = self.peers.lock().unwrap().clone();
        if peers.is_empty() {
            return Err(RoutingError::NoPeers);
        }
        let keys = keys.len();
        self.happened
            .send(Happened::Looked { keys, bits })
            .await
            .unwrap();
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        sleep(LOOKUP).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(Peers([peers, Vec::new()]))
    }

    async fn tell(&self, to: Contact, keys: Vec<Vec<u8>>) -> bool {
        let takes = *self.takes.lock().unwrap();
        if takes {
            let peer = to.peer;
            self.happened
                .send(Happened::Told { peer, keys })
                .await
                .unwrap();
        }
        takes
    }
}

/// Keys that a test changes.
#[derive(Clone, Default)]
struct List(Arc<Mutex<(u64, Vec<Cid>)>>);

impl List {
    fn set(&self, cids: Vec<Cid>) {
        let mut list = self.0.lock().unwrap();
        *list = (list.0 + 1, cids);
    }
}

impl Source for List {
    fn version(&self) -> u64 {
        self.0.lock().unwrap().0
    }

    async fn keys(&self, keys: &Gathered) -> io::Result<()> {
        for cid in &self.0.lock().unwrap().1 {
            assert!(keys.push(cid).is_continue());
        }
        Ok(())
    }
}

struct Bench {
    net: Arc<Net>,
    happens: mpsc::Receiver<Happened>,
    list: List,
    queue: Arc<Queue>,
    events: broadcast::Sender<Event>,
    provide: Provide,
    tasks: Tasks,
}

impl Bench {
    fn start(peers: Vec<Contact>, size: Option<f64>, cids: Vec<Cid>) -> Self {
        Self::at(START, None, peers, size, cids)
    }

    fn at(
        at: Duration,
        folder: Option<&Path>,
        peers: Vec<Contact>,
        size: Option<f64>,
        cids: Vec<Cid>,
    ) -> Self {
        let (happened, happens) = mpsc::channel(100_000);
        let net = Arc::new(Net {
            peers: Mutex::new(peers),
            size: Mutex::new(size),
            takes: Mutex::new(true),
            happened,
            under_way: AtomicU64::new(0),
            most_under_way: AtomicU64::new(0),
        });
        let options = Options {
            strategy: Strategy::All,
            interval: CYCLE,
            regions_at_once: 4,
            folder: folder.map(Path::to_owned),
        };
        let clock = Clock::simulated(at);
        let local = contacts(9_999..=9_999)[0].peer;
        let provide = Provide::open(&options, local, clock).unwrap();
        let list = List::default();
        list.set(cids);
        let queue = Arc::new(Queue::new(100_000));
        let events = crate::event::channel();
        let job = Sweep::new(
            Arc::clone(&net),
            list.clone(),
            Arc::clone(&queue),
            (events.subscribe(), events.clone()),
            provide.shared(),
        );
        let tasks = Tasks::new();
        let stop = tasks.stopping();
        tasks.spawn("provide", async move {
            let _: Option<()> = stop.run_until_cancelled(job.run()).await;
        });
        Self {
            net,
            happens,
            list,
            queue,
            events,
            provide,
            tasks,
        }
    }

    /// All that happens within a time.
    async fn within(&mut self, time: Duration) -> Vec<Happened> {
        let mut all = Vec::new();
        let end = Instant::now() + time;
        while let Ok(Some(happened)) = tokio::time::timeout_at(end, self.happens.recv()).await {
            all.push(happened);
        }
        all
    }

    /// The same until nothing happens for a while.
    async fn until_quiet(&mut self) -> Vec<Happened> {
        let mut all = Vec::new();
        while let Ok(Some(happened)) = timeout(QUIET, self.happens.recv()).await {
            all.push(happened);
        }
        all
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(9)).await);
    }
}

fn cids(numbers: std::ops::Range<u32>) -> Vec<Cid> {
    let cid = |number: u32| {
        let digest = [&[0; 28][..], &number.to_be_bytes()].concat();
        Cid::new_v1(RAW, Multihash::wrap(0x12, &digest).unwrap())
    };
    numbers.map(cid).collect()
}

fn lookups(all: &[Happened]) -> usize {
    let is_lookup = |happened: &&Happened| matches!(happened, Happened::Looked { .. });
    all.iter().filter(is_lookup).count()
}

/// How many peers were told of each key.
fn told(all: &[Happened]) -> BTreeMap<Vec<u8>, usize> {
    let mut told = BTreeMap::new();
    for happened in all {
        if let Happened::Told { keys, .. } = happened {
            for key in keys {
                *told.entry(key.clone()).or_default() += 1;
            }
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn each_key_is_told_to_twenty_and_again_before_a_cycle_is_over() {
    let mut bench = Bench::start(contacts(1..=100), Some(1000.0), cids(0..500));
    let first = bench.until_quiet().await;
    let bits = regions::bits_of(1000.0);
    assert_eq!(lookups(&first), 1 << bits, "one a region");
    assert_eq!(told(&first).len(), 500);
    assert!(told(&first).values().all(|count| *count == 20));
    assert_eq!(bench.net.most_under_way.load(Ordering::SeqCst), 4);
    let stat = bench.provide.stat().await.unwrap();
    assert_eq!((stat.keys, stat.late, stat.waiting), (500, 0, 0));
    assert_eq!(stat.provided_last_hour, 500);
    for _ in 0..2 {
        let cycle = bench.within(CYCLE).await;
        assert_eq!(lookups(&cycle), 1 << bits);
        assert!(told(&cycle).values().all(|count| *count == 20));
        assert_eq!(told(&cycle).len(), 500);
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_told_at_once_and_without_a_lookup_where_one_was_lately() {
    let mut bench = Bench::start(contacts(1..=100), Some(1000.0), cids(0..500));
    bench.until_quiet().await;
    let began = Instant::now();
    bench.queue.push(cids(500..501)[0]);
    let mut all = Vec::new();
    while all.len() < 20 {
        all.push(bench.happens.recv().await.unwrap());
    }
    assert!(began.elapsed() < LOOKUP);
    assert_eq!(told(&all).len(), 1);
    assert_eq!(lookups(&all), 0);
    // It was announced, but is none of the source's: once is enough.
    bench.until_quiet().await;
    let cycle = bench.within(CYCLE).await;
    assert_eq!(told(&cycle).len(), 500);
    let cid = cids(501..502)[0];
    let hash = cid.hash().to_bytes();
    bench.queue.push(cid);
    let more = bench.until_quiet().await;
    let of_key = |happened: &&Happened| matches!(happened, Happened::Told { keys, .. } if *keys == [hash.clone()]);
    assert_eq!(more.iter().filter(of_key).count(), 20);
    let stat = bench.provide.stat_of(hash).await.unwrap();
    assert_eq!(stat.told.unwrap().len(), 20);
    assert!(stat.told_at.is_some());
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_pins_change_what_is_told() {
    let mut bench = Bench::start(contacts(1..=30), Some(30.0), cids(0..10));
    assert_eq!(told(&bench.until_quiet().await).len(), 10);
    bench.list.set(cids(5..15));
    // Pins are looked at again in a while; what is new among them is told then.
    let new = bench.within(GATHER_REST + LOOK * 2).await;
    let expected: Vec<_> = cids(10..15)
        .iter()
        .map(|cid| cid.hash().to_bytes())
        .collect();
    assert_eq!(told(&new).into_keys().collect::<Vec<_>>(), expected);
    let cycle = bench.within(CYCLE).await;
    let expected: Vec<_> = cids(5..15)
        .iter()
        .map(|cid| cid.hash().to_bytes())
        .collect();
    assert_eq!(told(&cycle).into_keys().collect::<Vec<_>>(), expected);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_it_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let start = |at| {
        let peers = contacts(1..=100);
        Bench::at(at, Some(folder.path()), peers, Some(1000.0), cids(0..500))
    };
    let began = Instant::now();
    let mut bench = start(START);
    // Killed in the midst of the first round.
    let mut before = Vec::new();
    while lookups(&before) < 13 {
        before.push(bench.happens.recv().await.unwrap());
    }
    let is_noted = |bench: &Bench| bench.provide.shared().state().schedule.progress(START * 2);
    assert!(is_noted(&bench).regions > 0);
    bench.tasks.abort();
    drop(bench);
    let at = START + began.elapsed();
    let mut bench = start(at);
    let after = bench.until_quiet().await;
    let (first, second) = (told(&before), told(&after));
    assert!(second.len() < 500, "not all of it again");
    let both = first.keys().filter(|key| second.contains_key(*key)).count();
    assert!(
        both * 32 <= 500 * 5,
        "{both} keys are told twice: those under way"
    );
    let all = first.keys().chain(second.keys());
    assert_eq!(all.collect::<std::collections::BTreeSet<_>>().len(), 500);
    // Nothing is told that needs not be, however often it starts.
    bench.stop().await;
    let later = START + began.elapsed() + Duration::from_secs(1);
    let mut bench = start(later);
    assert_eq!(lookups(&bench.until_quiet().await), 0);
    bench.stop().await;
    // And what became late while it was away is told at once.
    let mut bench = start(later + CYCLE * 2);
    assert_eq!(told(&bench.until_quiet().await).len(), 500);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_new_key_is_not_said_of_those_before() {
    let of = |at: u32| cids(at..at + 1)[0].hash().to_bytes();
    // The first was gathered, or is as new as the second.
    for is_gathered in [true, false] {
        let gathered = cids(0..u32::from(is_gathered));
        let mut bench = Bench::start(contacts(1..=5), None, gathered);
        bench.until_quiet().await;
        if is_gathered {
            bench.within(Duration::from_secs(3600)).await;
        } else {
            bench.queue.push(cids(0..1)[0]);
            bench.until_quiet().await;
        }
        let before = bench.provide.stat_of(of(0)).await.unwrap();
        assert_eq!(before.told.as_ref().unwrap().len(), 5);
        *bench.net.peers.lock().unwrap() = contacts(1..=6);
        bench.queue.push(cids(1..2)[0]);
        assert_eq!(told(&bench.until_quiet().await).get(&of(1)), Some(&6));
        let second = bench.provide.stat_of(of(1)).await.unwrap();
        assert_eq!(second.told.unwrap().len(), 6);
        assert!(second.told_at > before.told_at);
        let after = bench.provide.stat_of(of(0)).await.unwrap();
        assert_eq!(after.told_at, before.told_at);
        assert_eq!(after.told, before.told);
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_came_before_a_kill_is_told_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let start = |at, count| {
        let peers = contacts(1..=100);
        Bench::at(at, Some(folder.path()), peers, Some(1000.0), cids(0..count))
    };
    let began = Instant::now();
    let mut bench = start(START, 500);
    bench.until_quiet().await;
    // Gathered, but nobody takes it.
    *bench.net.takes.lock().unwrap() = false;
    bench.within(GATHER_REST).await;
    bench.list.set(cids(0..501));
    bench.within(LOOK * 2).await;
    assert_eq!(bench.provide.stat().await.unwrap().waiting, 1);
    bench.tasks.abort();
    drop(bench);
    let mut bench = start(START + began.elapsed(), 501);
    let hash = cids(500..501)[0].hash().to_bytes();
    assert_eq!(told(&bench.until_quiet().await).get(&hash), Some(&20));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_of_keys_that_is_damaged_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let start = |at| {
        let peers = contacts(1..=100);
        Bench::at(at, Some(folder.path()), peers, Some(1000.0), cids(0..500))
    };
    let began = Instant::now();
    let mut bench = start(START);
    bench.until_quiet().await;
    // While it runs.
    let path = folder.path().join("keys");
    let damage = || {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1000] ^= 0x55;
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    };
    damage();
    assert_eq!(told(&bench.within(CYCLE + RESTS).await).len(), 500);
    bench.stop().await;
    // And before it starts.
    damage();
    let mut bench = start(START + began.elapsed() + CYCLE);
    assert_eq!(told(&bench.until_quiet().await).len(), 500);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_peers_it_waits_for_one() {
    let mut bench = Bench::start(Vec::new(), None, cids(0..10));
    assert_eq!(bench.within(LOOK * 5).await, []);
    *bench.net.peers.lock().unwrap() = contacts(1..=3);
    let began = Instant::now();
    bench
        .events
        .send(Event::Identified(contacts(1..=1)[0].peer))
        .unwrap();
    let first = bench.happens.recv().await.unwrap();
    assert_eq!(first, Happened::Looked { keys: 10, bits: 0 });
    assert!(began.elapsed() < LOOKUP);
    assert!(
        told(&bench.until_quiet().await)
            .values()
            .all(|count| *count == 3)
    );
    assert_eq!(bench.provide.stat().await.unwrap().failures, 0);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_is_told_again_later() {
    let mut bench = Bench::start(contacts(1..=30), Some(30.0), cids(0..10));
    *bench.net.takes.lock().unwrap() = false;
    let first = bench.within(Duration::from_secs(600)).await;
    assert!((3..=6).contains(&lookups(&first)), "{first:?}");
    let stat = bench.provide.stat().await.unwrap();
    assert_eq!((stat.failing, stat.failures), (1, lookups(&first) as u64));
    *bench.net.takes.lock().unwrap() = true;
    let again = bench.within(Duration::from_secs(1200)).await;
    assert_eq!(told(&again).len(), 10);
    assert_eq!(lookups(&again), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn regions_become_smaller_as_the_network_grows() {
    let mut bench = Bench::start(contacts(1..=100), Some(100.0), cids(0..500));
    assert_eq!(lookups(&bench.until_quiet().await), 2);
    *bench.net.size.lock().unwrap() = Some(10_000.0);
    let bits = regions::bits_of(10_000.0);
    let cycle = bench.within(CYCLE + LOOK * 2).await;
    assert_eq!(told(&cycle).len(), 500);
    assert!(lookups(&cycle) >= 1 << (bits - 1), "{}", lookups(&cycle));
    assert!(lookups(&cycle) <= 3 << bits, "{}", lookups(&cycle));
    assert_eq!(bench.provide.stat().await.unwrap().prefix_bits, bits);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_number_of_nodes_is_waited_for_where_there_are_many() {
    let mut bench = Bench::start(contacts(1..=100), None, cids(0..500));
    assert_eq!(bench.within(SIZE_WAIT / 2).await, []);
    *bench.net.size.lock().unwrap() = Some(1000.0);
    let all = bench.within(SIZE_WAIT).await;
    assert_eq!(lookups(&all), 1 << regions::bits_of(1000.0));
    bench.stop().await;
}

/// Whatever somebody sets the clock to, pins that come are seen, what failed is tried again and nothing is left untold.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_or_ahead_stops_nothing() {
    for (first, then) in [(START, START - YEAR), (START + YEAR, START)] {
        let mut bench = Bench::at(START, None, contacts(1..=100), Some(1000.0), cids(0..100));
        let clock = bench.provide.shared().clock.clone();
        bench.until_quiet().await;
        clock.set(first);
        // It is all late, or as before; and now nobody takes anything.
        bench.until_quiet().await;
        bench.within(GATHER_REST).await;
        *bench.net.takes.lock().unwrap() = false;
        bench.list.set(cids(0..101));
        bench.queue.push(cids(200..201)[0]);
        bench.within(LOOK * 2).await;
        assert!(bench.provide.stat().await.unwrap().failing > 0);
        *bench.net.takes.lock().unwrap() = true;
        clock.set(then);
        // Known pins, those that came before it was set, and one that was announced.
        let again = told(&bench.within(CYCLE).await);
        let all = cids(0..101).into_iter().chain(cids(200..201));
        let untold = all.filter(|cid| !again.contains_key(&cid.hash().to_bytes()));
        assert_eq!(untold.collect::<Vec<_>>(), [], "{first:?}");
        // And those that come after it.
        bench.list.set(cids(0..102));
        let new = told(&bench.within(GATHER_REST + LOOK * 2).await);
        assert!(new.contains_key(&cids(101..102)[0].hash().to_bytes()));
        let stat = bench.provide.stat().await.unwrap();
        assert_eq!((stat.waiting, stat.failing), (0, 0));
        let now = clock.now();
        assert!(stat.gathered_at.unwrap() <= now && stat.next_at.unwrap() <= now + CYCLE);
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_alone_asks_again_though_the_clock_is_set_back() {
    let mut bench = Bench::start(Vec::new(), None, cids(0..10));
    assert_eq!(bench.within(ALONE / 2).await, []);
    bench.provide.shared().clock.set(START - YEAR);
    *bench.net.peers.lock().unwrap() = contacts(1..=3);
    // Nobody comes, so only time tells.
    assert_eq!(told(&bench.within(ALONE * 2).await).len(), 10);
    bench.stop().await;
}

const START: Duration = Duration::from_secs(1_800_000_000);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const CYCLE: Duration = Duration::from_secs(22 * 3600);
const LOOKUP: Duration = Duration::from_millis(800);
const QUIET: Duration = Duration::from_secs(30);
/// Longer than a region that failed twice is left alone.
const RESTS: Duration = Duration::from_secs(400);
