use super::*;
use crate::keystore::{Key, Make};
use crate::name::dns::{self, Dns};
use crate::name::publish::Wish as Publish;
use crate::name::{Names, Options};
use crate::network::Network;
use crate::tasks::Tasks;
use cairn_store::Store;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{HashKind, RAW, Version};
use cairn_store::config::Config;

use cairn_store::store::Keep;
use tempfile::TempDir;

struct Bench {
    _folder: TempDir,
    store: Store,
    names: Names,
    key: Key,
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn an_hour_later() -> SystemTime {
    start() + HOUR
}

fn soon_after() -> SystemTime {
    start() + HOUR - Duration::from_secs(1)
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        Self {
            names: Names::new(store.clone(), None, Options::default(), &Tasks::new()),
            _folder: folder,
            store,
            key: Key::generate(Make::Ed25519).unwrap(),
        }
    }

    fn follows(&self, clock: fn() -> SystemTime) -> Follows {
        let dns = Dns::new(dns::Settings::default(), Network::Local);
        let resolver = Resolver::new(self.names.clone(), dns);
        Follows::with(Exchange::offline(self.store.clone()), resolver, None, clock)
    }

    /// The name leads to this from now on, which need not be here.
    async fn leads_to(&self, cid: &Cid) {
        let wish = Publish {
            value: format!("/ipfs/{cid}"),
            lifetime: HOUR,
            ttl: Duration::ZERO,
            sequence: None,
            readers: crate::ipns::Readers::All,
        };
        self.names.publish(&self.key, &wish).await.unwrap();
    }

    async fn block(&self, bytes: &'static [u8]) -> Cid {
        let block = block(bytes);
        let cid = *block.cid();
        self.store.put(vec![block], Keep::Cached).await.unwrap();
        cid
    }

    fn path(&self) -> NamePath {
        NamePath {
            root: Root::Key(self.key.id()),
            segments: Vec::new(),
        }
    }

    async fn follow(&self, follows: &Follows, path: &NamePath) -> Result<Cid, FollowPinError> {
        let session = Exchange::offline(self.store.clone()).session(None);
        let wish = Wish {
            pin_name: None,
            grace: HOUR,
        };
        follows.add(path, wish, &session, How::Usual, |_| {}).await
    }

    fn pinned(&self) -> Vec<Cid> {
        self.store.pins().into_iter().map(|pin| pin.cid).collect()
    }

    async fn turn(&self, clock: fn() -> SystemTime) -> Result<Option<Duration>, FollowPinError> {
        self.follows(clock).turn(&self.path().to_string()).await
    }
}

fn block(bytes: &'static [u8]) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec: RAW,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, bytes.into()).unwrap()
}

fn sorted<const N: usize>(mut cids: [Cid; N]) -> [Cid; N] {
    cids.sort_by_key(|cid| cid.to_bytes());
    cids
}

#[tokio::test]
async fn when_a_name_moves_the_new_is_pinned_and_the_old_stays_for_its_grace_time() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    assert_eq!(bench.follow(&follows, &bench.path()).await.unwrap(), one);
    assert_eq!(bench.pinned(), [one]);
    let pin = bench.store.pin(&one).unwrap();
    assert_eq!(pin.name, Some(bench.path().to_string()));
    // Nothing new: nothing happens.
    bench.turn(start).await.unwrap();
    assert_eq!(bench.pinned(), [one]);
    bench.leads_to(&two).await;
    bench.turn(start).await.unwrap();
    assert_eq!(bench.pinned(), sorted([one, two]));
    let listed = follows.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].cid, two);
    assert_eq!(listed[0].before, [(one, start() + HOUR)]);
    bench.turn(soon_after).await.unwrap();
    assert_eq!(bench.pinned(), sorted([one, two]));
    bench.turn(an_hour_later).await.unwrap();
    assert_eq!(bench.pinned(), [two]);
    assert_eq!(follows.list()[0].before, []);
}

#[tokio::test]
async fn a_name_that_goes_back_keeps_what_it_goes_back_to() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    for cid in [&two, &one] {
        bench.leads_to(cid).await;
        bench.turn(start).await.unwrap();
    }
    bench.turn(an_hour_later).await.unwrap();
    assert_eq!(bench.pinned(), [one]);
}

#[tokio::test]
async fn what_cannot_be_had_leaves_everything_as_it_was_and_comes_when_it_can() {
    let bench = Bench::new();
    let one = bench.block(b"one").await;
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    let two = *block(b"two").cid();
    bench.leads_to(&two).await;
    let failed = bench.turn(an_hour_later).await.unwrap_err();
    assert!(failed.to_string().contains(&two.to_string()), "{failed}");
    assert_eq!(bench.pinned(), [one]);
    assert_eq!(follows.list()[0].cid, one);
    bench.block(b"two").await;
    bench.turn(an_hour_later).await.unwrap();
    assert_eq!(bench.pinned(), sorted([one, two]));
}

#[tokio::test]
async fn a_pin_that_somebody_asked_for_is_not_removed() {
    let bench = Bench::new();
    let cids = [
        bench.block(b"one").await,
        bench.block(b"two").await,
        bench.block(b"three").await,
    ];
    let [one, two, three] = cids;
    let exchange = Exchange::offline(bench.store.clone());
    let pin = |cid: Cid| {
        let session = exchange.session(None);
        bench
            .store
            .pin_add(session, cid, PinMode::Recursive, None, |_| {})
    };
    // Before it was followed.
    pin(one).await.unwrap();
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    assert_eq!(follows.holds(&one), None);
    bench.leads_to(&two).await;
    bench.turn(start).await.unwrap();
    assert_eq!(follows.holds(&two), Some(bench.path().to_string()));
    // And after.
    pin(two).await.unwrap();
    follows.taken_over(&two).await.unwrap();
    assert_eq!(follows.holds(&two), None);
    bench.leads_to(&three).await;
    bench.turn(start).await.unwrap();
    bench.turn(an_hour_later).await.unwrap();
    assert_eq!(bench.pinned(), sorted(cids));
}

#[tokio::test]
async fn what_two_names_lead_to_stays_for_the_other() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    // The same name by another path is followed for itself.
    let other = Key::generate(Make::Ed25519).unwrap();
    let through = Publish {
        value: bench.path().to_string(),
        lifetime: HOUR,
        ttl: Duration::ZERO,
        sequence: None,
        readers: crate::ipns::Readers::All,
    };
    bench.names.publish(&other, &through).await.unwrap();
    let chained = NamePath {
        root: Root::Key(other.id()),
        segments: Vec::new(),
    };
    bench.follow(&follows, &bench.path()).await.unwrap();
    bench.follow(&follows, &chained).await.unwrap();
    bench.leads_to(&two).await;
    bench.turn(start).await.unwrap();
    bench.turn(an_hour_later).await.unwrap();
    assert_eq!(bench.pinned(), sorted([one, two]), "the other is there yet");
    let text = chained.to_string();
    bench.follows(start).turn(&text).await.unwrap();
    bench.follows(an_hour_later).turn(&text).await.unwrap();
    assert_eq!(follows.list().len(), 2);
    assert!(follows.list().iter().all(|followed| followed.cid == two));
}

#[tokio::test]
async fn who_follows_no_longer_keeps_what_is_pinned_and_loses_the_rest_in_time() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    bench.leads_to(&two).await;
    bench.turn(start).await.unwrap();
    assert_eq!(follows.end(&bench.path()).await.unwrap(), two);
    assert_eq!(follows.list(), []);
    let again = follows.end(&bench.path()).await;
    assert!(matches!(again, Err(FollowPinError::Unknown(_))));
    bench.leads_to(&one).await;
    bench.turn(soon_after).await.unwrap();
    assert_eq!(bench.pinned(), sorted([one, two]));
    assert_eq!(bench.turn(an_hour_later).await.unwrap(), None);
    assert_eq!(bench.pinned(), [two]);
    assert_eq!(bench.store.notes(About::Followed), []);
}

#[tokio::test(start_paused = true)]
async fn the_worker_looks_at_each_again_and_less_often_while_it_fails() {
    let bench = Bench::new();
    let one = bench.block(b"one").await;
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    let two = *block(b"two").cid();
    bench.leads_to(&two).await;
    let text = bench.path().to_string();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let ended = follows.turn(&text).await;
        follows.ended(&text, ended);
        waits.push(follows.list()[0].next.unwrap().as_secs());
    }
    assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
    assert!(follows.list()[0].error.is_some());
    bench.block(b"two").await;
    let ended = follows.turn(&text).await;
    follows.ended(&text, ended);
    assert_eq!(follows.list()[0].error, None);
    assert_eq!(follows.list()[0].next, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn what_never_changes_is_not_followed_nor_what_does_not_resolve() {
    let bench = Bench::new();
    let one = bench.block(b"one").await;
    let follows = bench.follows(start);
    let content: NamePath = format!("/ipfs/{one}").parse().unwrap();
    let refused = bench.follow(&follows, &content).await;
    assert!(matches!(refused, Err(FollowPinError::Content(_))));
    let unknown = bench.follow(&follows, &bench.path()).await;
    assert!(matches!(unknown, Err(FollowPinError::Name(_))));
    bench.leads_to(&one).await;
    let mut long = bench.path();
    long.segments = vec!["x".repeat(NOTE_KEY_BYTES_MAX)];
    let refused = bench.follow(&follows, &long).await;
    assert!(matches!(refused, Err(FollowPinError::Long(_))));
    assert_eq!(follows.list(), []);
    assert_eq!(bench.pinned(), Vec::<Cid>::new());
}

#[test]
fn a_note_reads_back_and_one_of_another_program_is_left_alone() {
    let cid = *block(b"one").cid();
    let held = Held { cid, is_ours: true };
    let mut noted = Noted {
        pin_name: "\"a name\"\n".to_owned(),
        grace: HOUR,
        ..Noted::new(held)
    };
    for bytes in [&b"two"[..], b"three"] {
        let held = Held {
            cid: *block(bytes).cid(),
            is_ours: false,
        };
        noted.moves(held, start());
    }
    let written = noted.write();
    assert_eq!(Noted::read(&written), Some(noted));
    for wrong in [&b""[..], b"{}", b"\xff", &written[..written.len() - 1]] {
        assert_eq!(Noted::read(wrong), None);
    }
}

#[test]
fn of_a_name_that_moves_all_the_time_the_oldest_go_early() {
    let all: Vec<Cid> = (0..=u8::try_from(note::BEFORE_MAX).unwrap() + 1)
        .map(|number| *block(vec![number].leak()).cid())
        .collect();
    let held = |cid: &Cid| Held {
        cid: *cid,
        is_ours: true,
    };
    let mut noted = Noted {
        grace: HOUR,
        ..Noted::new(held(&all[0]))
    };
    for cid in &all[1..=note::BEFORE_MAX] {
        noted.moves(held(cid), start());
        assert_eq!(noted.due(start()), None);
    }
    noted.moves(held(&all[note::BEFORE_MAX + 1]), start());
    assert_eq!(noted.due(start()).unwrap().held.cid, all[0]);
}

const HOUR: Duration = Duration::from_secs(3600);
