//! Names over a network that the test plays.

mod keep;

use super::cache::Since;
use super::publish::{PublishError, Wish};
use super::republish::{Keys, Republish};
use super::resolve::{How, ResolveError};
use super::*;
use crate::clock::LEAST;
use crate::ipns::{self, Draft, Readers};
use crate::jobs::Job;
use crate::keystore::{Key, Make};
use cairn_store::config::Config;
use futures::stream;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Whoever has it tells what others keep.
type Telling = mpsc::Sender<Result<Vec<u8>, RoutingError>>;

/// Others, played by the test.
#[derive(Debug, Default)]
struct Others {
    /// What each search is told; the test feeds it.
    searches: Mutex<Vec<Telling>>,
    /// What they were told to keep, and whether the journal had it by then.
    kept: Mutex<Vec<(Vec<u8>, bool)>>,
    /// All of it, whoever signed it.
    told: Mutex<Vec<Vec<u8>>>,
    store: Mutex<Option<Store>>,
    /// Whether nobody keeps anything.
    are_silent: AtomicBool,
    begun: tokio::sync::Notify,
}

impl Others {
    /// Waits for the search of this number to begin.
    async fn search(&self, at: usize) -> Telling {
        loop {
            if let Some(search) = self.searches.lock().unwrap().get(at) {
                return search.clone();
            }
            self.begun.notified().await;
        }
    }

    fn count(&self) -> usize {
        self.searches.lock().unwrap().len()
    }

    /// The search is over.
    fn end(&self) {
        self.searches.lock().unwrap().iter_mut().for_each(|search| {
            *search = mpsc::channel(1).0;
        });
    }
}

impl Network for Arc<Others> {
    fn values(&self, _: Vec<u8>) -> BoxStream<'static, Result<Vec<u8>, RoutingError>> {
        if self.are_silent.load(Ordering::Relaxed) {
            return stream::empty().boxed();
        }
        let (search, found) = mpsc::channel(TOLD_MAX);
        self.searches.lock().unwrap().push(search);
        self.begun.notify_one();
        let next = |mut found: mpsc::Receiver<_>| async {
            let item = found.recv().await?;
            Some((item, found))
        };
        stream::unfold(found, next).boxed()
    }

    fn keep(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> BoxFuture<'static, Result<usize, RoutingError>> {
        let name = PeerId::from_bytes(key.strip_prefix(ipns::KEY_PREFIX).unwrap()).unwrap();
        let store = self.store.lock().unwrap().clone().unwrap();
        let note = store.note(About::Published, &name.to_bytes());
        let noted = note.and_then(|note| Noted::read(&name, &note));
        self.told.lock().unwrap().push(value.clone());
        let has_it = noted.is_some_and(|noted| noted.record.bytes() == value);
        self.kept.lock().unwrap().push((value, has_it));
        async { Ok(20) }.boxed()
    }
}

struct Bench {
    _folder: TempDir,
    others: Arc<Others>,
    names: Names,
    keys: Arc<Key>,
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(LEAST + 1_000_000)
}

fn opened(folder: &TempDir) -> Store {
    Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let others = Arc::new(Others::default());
        let store = opened(&folder);
        *others.store.lock().unwrap() = Some(store.clone());
        let network: Arc<dyn Network> = Arc::new(others.clone());
        Self {
            names: Names::over(store, Some(network), Options::default(), &Tasks::new(), now),
            _folder: folder,
            others,
            keys: Arc::new(Key::generate(Make::Ed25519).unwrap()),
        }
    }

    fn name(&self) -> PeerId {
        self.keys.public().to_peer_id()
    }

    /// As somebody else may have signed it.
    fn record(&self, sequence: u64, expires: SystemTime) -> Record {
        let draft = Draft {
            value: b"/ipfs/bafkqaaa",
            sequence,
            expires,
            ttl: Duration::from_secs(60),
            readers: Readers::All,
        };
        Record::sign(&self.keys, &draft).unwrap()
    }

    fn valid(&self, sequence: u64) -> Result<Vec<u8>, RoutingError> {
        let record = self.record(sequence, now() + Duration::from_secs(3600));
        Ok(record.bytes().to_vec())
    }

    /// Publishes for the first time here, while others keep these.
    async fn publish_beside(
        &self,
        kept: Vec<Result<Vec<u8>, RoutingError>>,
        wish: &Wish,
    ) -> Result<publish::Published, PublishError> {
        let others = async {
            let search = self.others.search(0).await;
            kept.into_iter()
                .for_each(|value| search.try_send(value).unwrap());
            drop(search);
            self.others.end();
        };
        futures::join!(self.names.publish(&self.keys, wish), others).0
    }
}

/// What the test waits for itself.
#[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

fn wish(value: &str) -> Wish {
    Wish {
        value: value.to_owned(),
        lifetime: Duration::from_secs(48 * 3600),
        ttl: Duration::from_secs(300),
        sequence: None,
        readers: Readers::All,
        may_be_alone: true,
    }
}

const ANEW: How = How::Anew;
const KNOWN: How = How::Usual;

#[tokio::test]
async fn every_record_has_the_next_number_and_is_on_disk_before_anybody_gets_it() {
    let bench = Bench::new();
    let first = bench.publish_beside(vec![], &wish("/ipfs/bafkqaaa")).await;
    let first = first.unwrap();
    assert_eq!(first.record.sequence(), 0);
    assert!(matches!(first.took, Some(Ok(20))));
    // The same again is another record, with a number of its own.
    let again = bench
        .names
        .publish(&bench.keys, &wish("/ipfs/bafkqaaa"))
        .await;
    assert_eq!(again.unwrap().record.sequence(), 1);
    let kept = bench.others.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|(_, had_it)| *had_it), "on disk by then");
    assert_eq!(kept[0].0, first.record.bytes());
    let known = bench.names.known(&bench.name()).unwrap();
    assert_eq!(known.sequence(), 1);
    assert_eq!(known.expires(), now() + Duration::from_secs(48 * 3600));
}

#[tokio::test]
async fn numbers_go_on_after_a_restart() {
    let bench = Bench::new();
    let folder = bench._folder;
    let keys = bench.keys.clone();
    *bench.others.store.lock().unwrap() = None;
    drop(bench.names);
    for sequence in 0..3 {
        let names = Names::over(
            opened(&folder),
            None,
            Options::default(),
            &Tasks::new(),
            now,
        );
        let done = names.publish(&keys, &wish("/ipfs/bafkqaaa")).await.unwrap();
        assert_eq!(done.record.sequence(), sequence);
        assert!(done.took.is_none(), "there is no network");
    }
}

#[tokio::test]
async fn a_key_from_elsewhere_goes_on_above_what_others_keep() {
    let bench = Bench::new();
    let kept = vec![bench.valid(40), bench.valid(41), bench.valid(7)];
    let done = bench.publish_beside(kept, &wish("/ipfs/bafkqaaa")).await;
    assert_eq!(done.unwrap().record.sequence(), 42);
}

#[tokio::test]
async fn numbers_go_on_above_what_another_program_signed_with_the_same_key() {
    let bench = Bench::new();
    let adopt = async |sequence, seconds| {
        let record = bench.record(sequence, now() + Duration::from_secs(seconds));
        bench.names.adopt(&bench.name(), record.bytes()).await
    };
    assert!(adopt(40, 3600).await.unwrap());
    // What is older, or the same, changes nothing.
    assert!(!adopt(39, 7200).await.unwrap());
    assert!(!adopt(40, 3600).await.unwrap());
    // One that has expired has its number all the same.
    let expired = bench.record(50, now() - Duration::from_secs(60));
    let adopted = bench.names.adopt(&bench.name(), expired.bytes()).await;
    assert!(adopted.unwrap());
    let other = Key::generate(Make::Ed25519).unwrap().id();
    assert!(bench.names.adopt(&other, expired.bytes()).await.is_err());
    let done = bench.publish_beside(vec![], &wish("/ipfs/bafkqaaa")).await;
    assert_eq!(done.unwrap().record.sequence(), 51);
}

#[tokio::test]
async fn a_number_that_was_used_is_refused_and_a_higher_one_is_taken() {
    let bench = Bench::new();
    let numbered = |sequence| Wish {
        sequence: Some(sequence),
        ..wish("/ipfs/bafkqaaa")
    };
    let first = bench
        .publish_beside(vec![bench.valid(5)], &numbered(9))
        .await;
    assert_eq!(first.unwrap().record.sequence(), 9);
    for used in [0, 9] {
        let refused = bench.names.publish(&bench.keys, &numbered(used)).await;
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, PublishError::Sequence { given, known: 9 } if given == used),
            "{refused}"
        );
    }
    let last = bench.names.publish(&bench.keys, &numbered(u64::MAX)).await;
    assert_eq!(last.unwrap().record.sequence(), u64::MAX);
    let none = bench
        .names
        .publish(&bench.keys, &wish("/ipfs/bafkqaaa"))
        .await;
    assert!(matches!(none, Err(PublishError::Last)));
    assert_eq!(
        bench.others.kept.lock().unwrap().len(),
        2,
        "what was signed alone"
    );
}

#[tokio::test]
async fn what_is_no_path_is_not_signed() {
    let bench = Bench::new();
    for value in [
        "",
        "/",
        "/ipfs",
        "/ipfs/",
        "/ipns//a",
        "bafkqaaa",
        "/other/a",
        "/ipfs/a\nb",
    ] {
        let refused = bench.names.publish(&bench.keys, &wish(value)).await;
        assert!(matches!(refused, Err(PublishError::Value(_))), "{value:?}");
    }
    assert!(bench.names.known(&bench.name()).is_none());
}

#[tokio::test]
async fn what_is_known_is_told_at_once_and_something_better_the_next_time() {
    let bench = Bench::new();
    let stale = Wish {
        ttl: Duration::ZERO,
        ..wish("/ipfs/bafkqaaa")
    };
    bench.publish_beside(vec![], &stale).await.unwrap();
    let name = bench.name();
    let first = bench.names.resolve(&name, KNOWN).await.unwrap();
    assert_eq!(first.sequence(), 0);
    // Another node with the same key was faster.
    let search = bench.others.search(1).await;
    let mut all = bench.names.resolve_each(&name, KNOWN).boxed();
    assert_eq!(all.next().await.unwrap().unwrap().sequence(), 0);
    for _ in 0..4 {
        search.try_send(bench.valid(3)).unwrap();
    }
    assert_eq!(all.next().await.unwrap().unwrap().sequence(), 3);
    drop(search);
    bench.others.end();
    assert!(all.next().await.is_none(), "the search is over");
    assert_eq!(bench.others.count(), 2, "it was joined");
    let next = bench.names.resolve(&name, KNOWN).await.unwrap();
    assert_eq!(next.sequence(), 3);
    assert_eq!(
        bench.others.count(),
        2,
        "nobody is asked as long as it is fresh"
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_search_is_good_enough_before_it_is_over() {
    let bench = Bench::new();
    let (names, name) = (bench.names.clone(), bench.name());
    let resolving = spawn(async move { names.resolve(&name, KNOWN).await });
    let search = bench.others.search(0).await;
    // Few keep it: then a while is waited for a better one.
    search.try_send(bench.valid(2)).unwrap();
    assert_eq!(resolving.await.unwrap().unwrap().sequence(), 2);
    // What comes later is for the next.
    search.try_send(bench.valid(4)).unwrap();
    let mut all = bench.names.resolve_each(&name, ANEW).boxed();
    for sequence in [2, 4] {
        let answer = all.next().await.unwrap().unwrap();
        assert_eq!(answer.sequence(), sequence);
    }
    drop(search);
    bench.others.end();
    assert!(all.next().await.is_none());
    assert_eq!(bench.others.count(), 1);
}

#[tokio::test]
async fn who_asks_anew_waits_and_has_what_is_known_if_there_is_nothing_better() {
    let bench = Bench::new();
    bench
        .publish_beside(vec![], &wish("/ipfs/bafkqaaa"))
        .await
        .unwrap();
    let (names, name) = (bench.names.clone(), bench.name());
    let resolving = spawn(async move { names.resolve(&name, ANEW).await });
    let search = bench.others.search(1).await;
    assert!(!resolving.is_finished());
    search.try_send(Err(RoutingError::NoPeers)).unwrap();
    drop(search);
    bench.others.end();
    assert_eq!(resolving.await.unwrap().unwrap().sequence(), 0);
}

#[tokio::test]
async fn a_name_that_nobody_keeps_is_an_error_that_says_why() {
    let bench = Bench::new();
    let name = bench.name();
    let resolve = |bench: &Bench| {
        let names = bench.names.clone();
        spawn(async move { names.resolve(&name, KNOWN).await })
    };
    let resolving = resolve(&bench);
    drop(bench.others.search(0).await);
    bench.others.end();
    let nobody = resolving.await.unwrap();
    assert!(
        matches!(nobody, Err(ResolveError::NotFound(_))),
        "{nobody:?}"
    );
    let resolving = resolve(&bench);
    let search = bench.others.search(1).await;
    search.try_send(Err(RoutingError::NoPeers)).unwrap();
    drop(search);
    bench.others.end();
    let alone = resolving.await.unwrap();
    assert!(
        matches!(alone, Err(ResolveError::Routing(_, RoutingError::NoPeers))),
        "{alone:?}"
    );
    let offline = Names::over(
        bench.names.0.store.clone(),
        None,
        Options::default(),
        &Tasks::new(),
        now,
    );
    let offline = offline.resolve(&name, KNOWN).await;
    assert!(
        matches!(offline, Err(ResolveError::Offline(_))),
        "{offline:?}"
    );
}

#[tokio::test]
async fn what_has_expired_is_told_to_nobody() {
    let bench = Bench::new();
    let names = &bench.names;
    let over = bench.record(9, now());
    names
        .cache()
        .keep(bench.name(), over, Since::Asked(std::time::Instant::now()));
    let (again, name) = (names.clone(), bench.name());
    let resolving = spawn(async move { again.resolve(&name, KNOWN).await });
    drop(bench.others.search(0).await);
    bench.others.end();
    let refused = resolving.await.unwrap();
    assert!(
        matches!(refused, Err(ResolveError::NotFound(_))),
        "{refused:?}"
    );
    // Its number is used all the same.
    let wish = wish("/ipfs/bafkqaaa");
    let next = bench.names.publish(&bench.keys, &wish);
    let ends = async {
        drop(bench.others.search(1).await);
        bench.others.end();
    };
    assert_eq!(futures::join!(next, ends).0.unwrap().record.sequence(), 10);
}

#[tokio::test]
async fn a_record_is_told_as_fresh_no_longer_than_since_it_came() {
    let bench = Bench::new();
    let (names, name) = (&bench.names, bench.name());
    let record = bench.record(1, now() + Duration::from_secs(3600));
    let fresh = || names.fresh_for(&name, &record);
    assert_eq!(fresh(), Duration::ZERO, "kept since nobody knows when");
    let now = std::time::Instant::now();
    let since = now.checked_sub(Duration::from_secs(45)).unwrap();
    // Its owner lets it be for sixty seconds.
    names.cache().keep(name, record.clone(), Since::Came(since));
    assert!(fresh() <= Duration::from_secs(15));
    names.take_in(&name, &record);
    assert!(fresh() <= Duration::from_secs(15), "it only came again");
    names.cache().confirm(&name, std::time::Instant::now());
    assert!(fresh() > Duration::from_secs(15), "others were asked");
}

#[tokio::test]
async fn a_clock_that_cannot_be_right_decides_nothing() {
    let bench = Bench::new();
    let names = Names::over(
        bench.names.0.store.clone(),
        None,
        Options::default(),
        &Tasks::new(),
        || SystemTime::UNIX_EPOCH + Duration::from_secs(3600),
    );
    let signed = names.publish(&bench.keys, &wish("/ipfs/bafkqaaa")).await;
    assert!(matches!(signed, Err(PublishError::Clock(_))));
    let old = bench.record(
        0,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000),
    );
    names
        .cache()
        .keep(bench.name(), old, Since::Asked(std::time::Instant::now()));
    let found = names.resolve(&bench.name(), KNOWN).await;
    assert!(matches!(found, Err(ResolveError::Clock(_))), "{found:?}");
}

#[tokio::test]
async fn a_search_that_did_not_come_to_its_end_is_begun_anew() {
    let bench = Bench::new();
    let (sender, search) = tokio::sync::watch::channel(resolve::Progress::default());
    drop(sender);
    let name = bench.name();
    bench.names.0.searches.lock().unwrap().insert(name, search);
    let names = bench.names.clone();
    let resolving = spawn(async move { names.resolve(&name, KNOWN).await });
    let search = bench.others.search(0).await;
    for _ in 0..4 {
        search.try_send(bench.valid(1)).unwrap();
    }
    assert_eq!(resolving.await.unwrap().unwrap().sequence(), 1);
}

/// Most records that others have in one search.
const TOLD_MAX: usize = 64;

/// Keys that are here.
#[derive(Debug, Default)]
struct Ring(Vec<Arc<Key>>);

impl Keys for Ring {
    fn key_of(&self, name: &PeerId) -> Option<Arc<Key>> {
        let is_its = |keys: &&Arc<Key>| keys.public().to_peer_id() == *name;
        self.0.iter().find(is_its).cloned()
    }
}

/// One name's turn.
async fn turn(job: &mut Republish) {
    loop {
        job.wait().await;
        let is_due = job.is_due();
        job.work().await;
        if is_due {
            return;
        }
    }
}

const EVERY: Duration = Duration::from_secs(4 * 3600);

#[tokio::test(start_paused = true)]
async fn all_names_are_told_again_one_after_the_other_within_the_time() {
    let bench = Bench::new();
    let mut published = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let offline = Names::over(
            bench.names.0.store.clone(),
            None,
            Options::default(),
            &Tasks::new(),
            now,
        );
        let done = offline
            .publish(&keys, &wish("/ipfs/bafkqaaa"))
            .await
            .unwrap();
        published.insert(done.record.bytes().to_vec());
    }
    let mut job = Republish::new(bench.names.clone(), Arc::new(Ring::default()), EVERY);
    let start = tokio::time::Instant::now();
    turn(&mut job).await;
    assert!(start.elapsed() < EVERY / 4, "soon after the start");
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        turn(&mut job).await;
        assert_eq!(before.elapsed().as_secs(), EVERY.as_secs() / 4);
    }
    let kept = bench.others.kept.lock().unwrap().clone();
    let told: std::collections::BTreeSet<_> = kept.into_iter().map(|(value, _)| value).collect();
    assert_eq!(told, published);
}

/// Signs a record that holds for so long from `now` on, then has the job take its turn.
async fn told_after(keys: Ring, lifetime: Duration) -> (Record, Vec<Record>) {
    let bench = Bench::new();
    let wish = Wish {
        lifetime,
        readers: Readers::V2,
        ..wish("/ipfs/bafkqaaa")
    };
    // As if it had been signed a day ago.
    let store = bench.names.0.store.clone();
    let before = Names::over(store, None, Options::default(), &Tasks::new(), || {
        now() - DAY
    });
    let signed = before.publish(&keys.0[0], &wish).await.unwrap().record;
    let name = keys.0[0].public().to_peer_id();
    let ring = Ring(keys.0[1..].to_vec());
    bench.others.are_silent.store(true, Ordering::Relaxed);
    let mut job = Republish::new(bench.names.clone(), Arc::new(ring), EVERY);
    turn(&mut job).await;
    let kept = bench.others.kept.lock().unwrap().clone();
    let read = kept
        .into_iter()
        .map(|(value, _)| Record::decode(&name, &value).unwrap());
    (signed, read.collect())
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(start_paused = true)]
async fn a_record_of_which_half_is_over_is_signed_anew_if_its_key_is_here() {
    let keys = Arc::new(Key::generate(Make::Ed25519).unwrap());
    let with_key = || Ring(vec![keys.clone(), keys.clone()]);
    let (old, told) = told_after(with_key(), DAY * 3 / 2).await;
    let [new] = &told[..] else { panic!("{told:?}") };
    assert_eq!((old.sequence(), new.sequence()), (0, 1));
    assert_eq!(new.value(), old.value());
    assert_eq!(new.expires(), now() + DAY * 3 / 2);
    assert!(
        new.bytes().len() < old.bytes().len() + 4,
        "for the same readers"
    );
    // Nor is it given up for lost when all of it is over.
    let (gone, told) = told_after(with_key(), DAY).await;
    let [new] = &told[..] else { panic!("{told:?}") };
    assert_eq!((gone.sequence(), new.sequence()), (0, 1));
    // Not before.
    let (young, told) = told_after(with_key(), DAY * 3).await;
    assert_eq!(told, [young]);
}

#[tokio::test(start_paused = true)]
async fn without_its_key_a_record_is_told_for_as_long_as_it_holds() {
    let keys = || Ring(vec![Arc::new(Key::generate(Make::Ed25519).unwrap())]);
    let (old, told) = told_after(keys(), DAY * 3 / 2).await;
    assert_eq!(told, [old]);
    let (_, told) = told_after(keys(), DAY).await;
    assert_eq!(told, []);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_years_fast_accepts_nothing_that_has_expired_and_signs_each_name_once() {
    let bench = Bench::new();
    let others = async { drop(bench.others.search(0).await) };
    let own = wish("/ipfs/bafkqaaa");
    let publish = bench.names.publish(&bench.keys, &own);
    let others = async {
        others.await;
        bench.others.end();
    };
    futures::join!(publish, others).0.unwrap();
    let over = |clock| {
        let network: Arc<dyn Network> = Arc::new(bench.others.clone());
        let store = bench.names.0.store.clone();
        Names::over(
            store,
            Some(network),
            Options::default(),
            &Tasks::new(),
            clock,
        )
    };
    let fast = over(|| now() + DAY * 3650);
    let known = fast.resolve(&bench.name(), How::Here).await;
    assert!(matches!(known, Err(ResolveError::Offline(_))), "{known:?}");
    let keys = || Arc::new(Ring(vec![Arc::clone(&bench.keys)]));
    let numbers = || {
        let kept = bench.others.kept.lock().unwrap().clone();
        let read = kept
            .iter()
            .map(|(value, _)| Record::decode(&bench.name(), value).unwrap().sequence());
        read.collect::<Vec<_>>()
    };
    bench.others.are_silent.store(true, Ordering::Relaxed);
    let mut job = Republish::new(fast, keys(), EVERY);
    for _ in 0..3 {
        turn(&mut job).await;
    }
    assert_eq!(numbers(), [0, 1, 1, 1]);
    // Set right, what was signed then is told on, and what is published now is above it.
    let right = over(now);
    let mut job = Republish::new(right.clone(), keys(), EVERY);
    turn(&mut job).await;
    right.publish(&bench.keys, &own).await.unwrap();
    turn(&mut job).await;
    assert_eq!(numbers(), [0, 1, 1, 1, 1, 2, 2]);
    let newest = right.resolve(&bench.name(), How::Here).await.unwrap();
    assert_eq!(newest.sequence(), 2);
}

/// What others were told, in order: the number and the value of each record.
fn told_of(bench: &Bench) -> Vec<(u64, String)> {
    let told = bench.others.told.lock().unwrap().clone();
    let read = told.iter().map(|value| {
        let record = Record::decode(&bench.name(), value).unwrap();
        let says = String::from_utf8_lossy(record.value()).into_owned();
        (record.sequence(), says)
    });
    read.collect()
}

#[tokio::test(start_paused = true)]
async fn what_the_same_key_published_elsewhere_meanwhile_is_signed_on_and_not_undone() {
    let bench = Bench::new();
    let ours = wish("/ipfs/bafkqaaa/ours");
    bench.publish_beside(vec![], &ours).await.unwrap();
    // Days later, after a start: here only the old one is known, and others keep what another machine signed.
    let later = || now() + DAY * 3;
    let network: Arc<dyn Network> = Arc::new(bench.others.clone());
    let names = Names::over(
        bench.names.0.store.clone(),
        Some(network),
        Options::default(),
        &Tasks::new(),
        later,
    );
    let theirs = Draft {
        value: b"/ipfs/bafkqaaa/theirs",
        sequence: 6,
        expires: later() + Duration::from_secs(3600),
        ttl: Duration::from_secs(60),
        readers: Readers::All,
    };
    let theirs = Record::sign(&bench.keys, &theirs).unwrap();
    let ring = Ring(vec![Arc::clone(&bench.keys)]);
    let mut job = Republish::new(names, Arc::new(ring), EVERY);
    let others = async {
        let search = bench.others.search(1).await;
        search.try_send(Ok(theirs.bytes().to_vec())).unwrap();
        drop(search);
        bench.others.end();
        // Before it signs, it looks for numbers once more.
        drop(bench.others.search(2).await);
        bench.others.end();
    };
    futures::join!(turn(&mut job), others);
    let expected = [
        (0, "/ipfs/bafkqaaa/ours".to_owned()),
        (7, "/ipfs/bafkqaaa/theirs".to_owned()),
    ];
    assert_eq!(told_of(&bench), expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_the_job_waits_is_told_again_in_its_time() {
    let bench = Bench::new();
    let ring = Ring(vec![Arc::clone(&bench.keys)]);
    let mut job = Republish::new(bench.names.clone(), Arc::new(ring), EVERY);
    job.work().await;
    let short = Wish {
        lifetime: Duration::from_secs(90),
        ..wish("/ipfs/bafkqaaa")
    };
    bench.publish_beside(vec![], &short).await.unwrap();
    let published = tokio::time::Instant::now();
    turn(&mut job).await;
    assert_eq!(published.elapsed().as_secs(), 30, "a third of its life");
    assert_eq!(told_of(&bench).len(), 2);
}
