//! Names that move, over a store that asks nobody, by clocks that say what they are told.

use super::note::Held;
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
use std::sync::atomic::AtomicU64;
use tempfile::TempDir;

pub(super) struct Bench {
    _folder: TempDir,
    pub(super) store: Store,
    names: Names,
    key: Key,
}

pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn an_hour_later() -> SystemTime {
    start() + HOUR
}

fn soon_after() -> SystemTime {
    start() + HOUR - Duration::from_secs(1)
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Config::default(), &mut |_| {}).unwrap();
        Self {
            names: Names::new(store.clone(), None, Options::default(), &Tasks::new()),
            _folder: folder,
            store,
            key: Key::generate(Make::Ed25519).unwrap(),
        }
    }

    pub(super) fn follows(&self, clock: fn() -> SystemTime) -> Follows {
        let dns = Dns::new(dns::Settings::default(), Network::Local);
        let resolver = Resolver::new(self.names.clone(), dns);
        Follows::with(Exchange::offline(self.store.clone()), resolver, None, clock)
    }

    /// The name leads to this from now on, which need not be here.
    pub(super) async fn leads_to(&self, cid: &Cid) {
        let wish = Publish {
            value: format!("/ipfs/{cid}"),
            lifetime: HOUR,
            ttl: Duration::ZERO,
            sequence: None,
            readers: crate::ipns::Readers::All,
            may_be_alone: true,
        };
        self.names.publish(&self.key, &wish).await.unwrap();
    }

    pub(super) async fn block(&self, bytes: &'static [u8]) -> Cid {
        let block = block(bytes);
        let cid = *block.cid();
        self.store.put(vec![block], Keep::Cached).await.unwrap();
        cid
    }

    pub(super) fn path(&self) -> NamePath {
        NamePath {
            root: Root::Key(self.key.id()),
            segments: Vec::new(),
        }
    }

    /// Another name that leads to the same, and its path.
    async fn chained(&self) -> NamePath {
        let other = Key::generate(Make::Ed25519).unwrap();
        let through = Publish {
            value: self.path().to_string(),
            lifetime: HOUR,
            ttl: Duration::ZERO,
            sequence: None,
            readers: crate::ipns::Readers::All,
            may_be_alone: true,
        };
        self.names.publish(&other, &through).await.unwrap();
        NamePath {
            root: Root::Key(other.id()),
            segments: Vec::new(),
        }
    }

    /// Somebody pins this for itself.
    async fn pin(&self, follows: &Follows, cid: Cid, mode: PinMode, name: Option<&str>) {
        let wish = PinWish::new(cid, mode).named(name.map(str::to_owned));
        let pinning = follows.pin_whole(self.store.clone(), wish, |_| {});
        pinning.await.unwrap();
    }

    /// The name moves there, and what it led to before goes.
    async fn moves_for_good(&self, path: &NamePath, to: &Cid) {
        self.leads_to(to).await;
        let text = path.to_string();
        self.follows(start).turn(&text).await.unwrap();
        self.follows(an_hour_later).turn(&text).await.unwrap();
    }

    pub(super) async fn follow(
        &self,
        follows: &Follows,
        path: &NamePath,
    ) -> Result<Cid, FollowPinError> {
        let session = Exchange::offline(self.store.clone()).session(None);
        let wish = Wish {
            pin_name: None,
            grace: HOUR,
        };
        follows.add(path, wish, &session, How::Usual, |_| {}).await
    }

    pub(super) fn pinned(&self) -> Vec<Cid> {
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
    let follows = bench.follows(start);
    // Before it was followed.
    bench
        .pin(&follows, one, PinMode::Recursive, Some("site"))
        .await;
    bench.leads_to(&one).await;
    let session = Exchange::offline(bench.store.clone()).session(None);
    let wish = Wish {
        pin_name: Some("site".to_owned()),
        grace: HOUR,
    };
    let path = bench.path();
    let adding = follows.add(&path, wish, &session, How::Usual, |_| {});
    adding.await.unwrap();
    bench.leads_to(&two).await;
    bench.turn(start).await.unwrap();
    // And after.
    bench.pin(&follows, two, PinMode::Recursive, None).await;
    bench.moves_for_good(&bench.path(), &three).await;
    assert_eq!(bench.pinned(), sorted(cids));
}

#[tokio::test]
async fn a_block_that_somebody_pinned_alone_is_not_unpinned() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench
        .pin(&follows, one, PinMode::Direct, Some("mine"))
        .await;
    bench.follow(&follows, &bench.path()).await.unwrap();
    let pin = bench.store.pin(&one).unwrap();
    assert_eq!(pin.mode, PinMode::Recursive);
    assert_eq!(pin.name.as_deref(), Some("mine"));
    bench.moves_for_good(&bench.path(), &two).await;
    assert_eq!(bench.pinned(), sorted([one, two]));
}

#[tokio::test]
async fn a_pin_that_somebody_asks_for_while_the_same_is_fetched_for_a_name_is_not_removed() {
    let bench = Bench::new();
    let cids = [
        bench.block(b"one").await,
        bench.block(b"two").await,
        bench.block(b"three").await,
    ];
    let [one, two, three] = cids;
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    bench.leads_to(&two).await;
    let path = bench.path().to_string();
    let session = Exchange::offline(bench.store.clone()).session(None);
    let lead = follows
        .target(&bench.path(), &session, How::Anew)
        .await
        .unwrap();
    let whole = follows.fetch(&path, &two, &session, &mut |_| {}).await;
    bench.pin(&follows, two, PinMode::Recursive, None).await;
    let settled = follows.settle(&path, &lead, whole.unwrap(), None).await;
    assert_eq!(settled.unwrap(), Settled::Pinned);
    bench.moves_for_good(&bench.path(), &three).await;
    assert_eq!(bench.pinned(), sorted([two, three]));
}

#[tokio::test]
async fn a_pin_that_was_counted_on_and_is_gone_by_then_is_not_noted() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    bench.pin(&follows, two, PinMode::Recursive, None).await;
    let path = bench.path().to_string();
    let lead = Lead {
        cid: two,
        ttl: None,
        sequence: None,
    };
    bench.store.pin_remove(&two, None).await.unwrap();
    let settled = follows.settle(&path, &lead, None, None).await;
    assert_eq!(settled.unwrap(), Settled::Overtaken);
    assert_eq!(follows.list()[0].cid, one);
    assert_eq!(bench.pinned(), [one]);
}

#[tokio::test]
async fn what_was_unpinned_is_pinned_again_for_the_name_and_goes_with_it() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    let follows = bench.follows(start);
    bench.pin(&follows, one, PinMode::Recursive, None).await;
    bench.leads_to(&one).await;
    bench.follow(&follows, &bench.path()).await.unwrap();
    let held = follows.holds(&[two, one]);
    assert_eq!(held, Some((one, bench.path().to_string())));
    bench.store.pin_remove(&one, None).await.unwrap();
    bench.turn(start).await.unwrap();
    assert_eq!(bench.pinned(), [one]);
    bench.moves_for_good(&bench.path(), &two).await;
    assert_eq!(bench.pinned(), [two]);
}

#[tokio::test]
async fn what_two_names_lead_to_stays_for_the_other() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    let chained = bench.chained().await;
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
    assert_eq!(bench.pinned(), [two], "the last one lets it go");
}

#[tokio::test]
async fn what_was_followed_stays_pinned_whatever_else_led_there() {
    let bench = Bench::new();
    let cids = [
        bench.block(b"one").await,
        bench.block(b"two").await,
        bench.block(b"three").await,
    ];
    let [one, two, three] = cids;
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    let chained = bench.chained().await;
    for path in [&bench.path(), &chained] {
        bench.follow(&follows, path).await.unwrap();
    }
    bench.leads_to(&two).await;
    for path in [&bench.path(), &chained] {
        follows.turn(&path.to_string()).await.unwrap();
    }
    assert_eq!(follows.end(&bench.path()).await.unwrap(), two);
    // A turn that was under way by then.
    let lead = Lead {
        cid: three,
        ttl: None,
        sequence: None,
    };
    let session = Exchange::offline(bench.store.clone()).session(None);
    let path = bench.path().to_string();
    let whole = follows.fetch(&path, &three, &session, &mut |_| {}).await;
    let settled = follows.settle(&path, &lead, whole.unwrap(), None).await;
    assert_eq!(settled.unwrap(), Settled::Over);
    assert_eq!(bench.pinned(), sorted([one, two]));
    bench.moves_for_good(&chained, &three).await;
    bench.turn(an_hour_later).await.unwrap();
    assert_eq!(bench.pinned(), sorted([two, three]));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_noted_before_the_next_looks() {
    let bench = Bench::new();
    let one = bench.block(b"one").await;
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    let path = bench.path();
    let mut ending = Box::pin(follows.end(&path));
    assert!(futures::poll!(&mut ending).is_pending());
    drop(ending);
    let again = follows.end(&path).await;
    assert!(matches!(again, Err(FollowPinError::Unknown(_))));
}

#[tokio::test]
async fn an_older_record_brings_nothing_back() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    let lead = Lead {
        cid: one,
        ttl: None,
        sequence: Some(5),
    };
    let path = bench.path().to_string();
    follows.settle(&path, &lead, None, None).await.unwrap();
    bench.leads_to(&two).await;
    let refused = bench.turn(start).await.unwrap_err();
    assert!(
        matches!(
            refused,
            FollowPinError::Older {
                found: 1,
                known: 5,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(bench.pinned(), [one]);
    // Unless it is asked for.
    bench.follow(&follows, &bench.path()).await.unwrap();
    assert_eq!(follows.list()[0].cid, two);
}

#[tokio::test]
async fn while_the_clock_is_wrong_nothing_is_noted_and_nothing_goes() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    bench.leads_to(&two).await;
    let refused = bench.turn(|| SystemTime::UNIX_EPOCH).await.unwrap_err();
    assert!(matches!(refused, FollowPinError::Clock(_)), "{refused}");
    assert_eq!(follows.list()[0].cid, one);
    assert_eq!(follows.list()[0].before, []);
}

#[tokio::test]
async fn what_is_old_goes_when_its_time_is_over_though_the_next_does_not_come() {
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    bench.leads_to(&two).await;
    bench.turn(start).await.unwrap();
    bench.leads_to(block(b"three").cid()).await;
    bench.turn(an_hour_later).await.unwrap_err();
    assert_eq!(bench.pinned(), [two]);
}

#[tokio::test]
async fn one_that_is_followed_already_is_named_anew() {
    let bench = Bench::new();
    let one = bench.block(b"one").await;
    bench.leads_to(&one).await;
    let follows = bench.follows(start);
    bench.follow(&follows, &bench.path()).await.unwrap();
    let session = Exchange::offline(bench.store.clone()).session(None);
    let wish = |name: &str, grace| Wish {
        pin_name: Some(name.to_owned()),
        grace,
    };
    let path = bench.path();
    let add = |wish| follows.add(&path, wish, &session, How::Usual, |_| {});
    add(wish("new", GRACE)).await.unwrap();
    assert_eq!(bench.store.pin(&one).unwrap().name.as_deref(), Some("new"));
    assert_eq!(follows.list()[0].grace, GRACE);
    let long = add(wish(&"x".repeat(256), GRACE)).await;
    assert!(matches!(long, Err(FollowPinError::LongName(256))));
    let ever = add(wish("new", Duration::from_secs(u64::MAX))).await;
    assert!(matches!(ever, Err(FollowPinError::Grace)));
}

#[tokio::test(start_paused = true)]
async fn the_worker_pins_what_a_name_moves_to_and_lets_go_of_the_rest() {
    static NOW: AtomicU64 = AtomicU64::new(1_800_000_000);
    let bench = Bench::new();
    let (one, two) = (bench.block(b"one").await, bench.block(b"two").await);
    bench.leads_to(&one).await;
    let follows =
        bench.follows(|| SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed)));
    bench.follow(&follows, &bench.path()).await.unwrap();
    let tasks = Tasks::new();
    follows.run(&tasks);
    bench.leads_to(&two).await;
    // Time stands still while anything else is done.
    let until = async |what: &str, wanted: &[Cid]| {
        let there = async {
            while bench.pinned() != wanted {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let waited = tokio::time::timeout(HOUR, there).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:?}", follows.list()));
    };
    until("the new", &sorted([one, two])).await;
    // The next does not come, whatever is tried.
    bench.leads_to(block(b"three").cid()).await;
    NOW.fetch_add(HOUR.as_secs(), Ordering::Relaxed);
    until("the new alone", &[two]).await;
    assert!(tasks.stop(HOUR).await);
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
