//! Jobs over a store that asks nobody, in simulated time.

use super::super::tests::{Bench, start};
use super::*;
use crate::tasks::Tasks;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{DAG_PB, HashKind, RAW, Version};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::pin::{Expiry, Metadata};
use cairn_store::store::Keep;
use futures::FutureExt;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn block(codec: u64, bytes: Bytes) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, bytes).unwrap()
}

fn leaf(text: &'static str) -> Block {
    block(RAW, text.into())
}

/// A node over leaves.
fn node(leaves: &[&Block]) -> Block {
    let link = |leaf: &&Block| PbLink {
        cid: *leaf.cid(),
        name: Some(String::new()),
        tsize: Some(leaf.data().len() as u64),
    };
    let links = leaves.iter().map(link).collect();
    block(DAG_PB, pb::encode(&PbNode { links, data: None }))
}

fn wish(block: &Block) -> PinWish {
    PinWish::new(*block.cid(), PinMode::Recursive)
}

fn jobs(bench: &Bench) -> PinJobs {
    PinJobs::new(bench.follows(start), ONE)
}

async fn put(bench: &Bench, block: &Block) {
    let put = bench.store.put(vec![block.clone()], Keep::Cached);
    put.await.unwrap();
}

/// The name of each job's state, in their order.
async fn states(jobs: &PinJobs) -> Vec<&'static str> {
    jobs.list()
        .await
        .iter()
        .map(|job| job.state.name())
        .collect()
}

/// Lets simulated time pass until the jobs are in these states.
async fn come_to(jobs: &PinJobs, wanted: &[&str]) {
    until(async || states(jobs).await == wanted).await;
}

/// Lets simulated time pass until it is so, which takes less than an hour of it.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(3600), waiting).await;
    waited.expect("it comes to that within an hour");
}

#[tokio::test]
async fn jobs_stand_in_their_order_after_a_restart_with_all_that_was_wished() {
    let bench = Bench::new();
    let (one, two, three) = (leaf("one"), leaf("two"), leaf("three"));
    let full = PinWish {
        metadata: Metadata::from([("key".to_owned(), "value".to_owned())]),
        expiry: Expiry::At(4_000_000_000),
        max_bytes: Some(1000),
        ..wish(&two).named(Some("two".to_owned()))
    };
    let before = jobs(&bench);
    before.add(wish(&one), 0).await.unwrap();
    before.add(full.clone(), 7).await.unwrap();
    before.add(wish(&three), 0).await.unwrap();
    let listed = async |jobs: &PinJobs| {
        let jobs = jobs.list().await.into_iter();
        jobs.map(|job| (job.wish, job.priority)).collect::<Vec<_>>()
    };
    let expected = vec![(full, 7), (wish(&one), 0), (wish(&three), 0)];
    assert_eq!(listed(&before).await, expected);
    drop(before);
    let after = jobs(&bench);
    assert_eq!(listed(&after).await, expected);
    // Who comes later stands behind.
    after.add(wish(&leaf("four")), 0).await.unwrap();
    assert_eq!(listed(&after).await[3].0, wish(&leaf("four")));
    let why = after.list().await[0].state.why().map(str::to_owned);
    assert!(why.unwrap().contains("no daemon"));
    assert_eq!(bench.pinned(), []);
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_what_is_missing_and_pins_it_when_it_comes() {
    let bench = Bench::new();
    let (here, late) = (leaf("here"), leaf("late"));
    let root = node(&[&here, &late]);
    put(&bench, &root).await;
    put(&bench, &here).await;
    let (jobs, tasks) = (jobs(&bench), Tasks::new());
    jobs.add(wish(&root).named(Some("name".to_owned())), 0)
        .await
        .unwrap();
    jobs.run(&tasks);
    come_to(&jobs, &["waiting"]).await;
    let status = jobs.list().await.remove(0);
    assert_eq!(status.progress.blocks, 2);
    let whole = [&root, &here, &late].map(|block| block.data().len() as u64);
    assert_eq!(status.progress.total, Some(whole.iter().sum()));
    let why = status.state.why().unwrap();
    assert!(why.contains(&late.cid().to_string()), "{why}");
    // What came is held meanwhile.
    assert_eq!(bench.store.gc(|_| {}).await.unwrap().blocks, 0);
    assert_eq!(bench.pinned(), []);
    put(&bench, &late).await;
    come_to(&jobs, &[]).await;
    assert_eq!(bench.pinned(), [*root.cid()]);
    let pin = bench.store.pin(root.cid()).unwrap();
    assert_eq!(pin.name.as_deref(), Some("name"));
    assert_eq!(bench.store.notes(About::PinJob), []);
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_lets_those_behind_it_have_their_turn() {
    let bench = Bench::new();
    let (absent, here) = (leaf("absent"), leaf("here"));
    put(&bench, &here).await;
    let (jobs, tasks) = (jobs(&bench), Tasks::new());
    jobs.add(wish(&absent), 9).await.unwrap();
    jobs.add(wish(&here), 0).await.unwrap();
    jobs.run(&tasks);
    come_to(&jobs, &["waiting"]).await;
    assert_eq!(bench.pinned(), [*here.cid()]);
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_is_not_pinned_any_more_and_is_held_no_longer() {
    let bench = Bench::new();
    let (here, late) = (leaf("here"), leaf("late"));
    let root = node(&[&here, &late]);
    put(&bench, &root).await;
    put(&bench, &here).await;
    let (jobs, tasks) = (jobs(&bench), Tasks::new());
    jobs.add(wish(&root), 0).await.unwrap();
    jobs.run(&tasks);
    come_to(&jobs, &["waiting"]).await;
    jobs.cancel(root.cid()).await.unwrap();
    assert!(states(&jobs).await.is_empty() && !jobs.has(root.cid()));
    assert!(matches!(
        jobs.cancel(root.cid()).await,
        Err(JobError::Unknown(_))
    ));
    put(&bench, &late).await;
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(bench.pinned(), []);
    assert_eq!(bench.store.gc(|_| {}).await.unwrap().blocks, 3);
    assert_eq!(
        PinJobs::new(bench.follows(start), ONE).list().await.len(),
        0
    );
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn what_failed_stays_so_over_a_restart_until_it_is_tried_again() {
    let bench = Bench::new();
    let one = leaf("much too long");
    put(&bench, &one).await;
    let small = PinWish {
        max_bytes: Some(3),
        ..wish(&one)
    };
    let (before, tasks) = (jobs(&bench), Tasks::new());
    before.add(small, 0).await.unwrap();
    before.run(&tasks);
    come_to(&before, &["failed"]).await;
    let why = before.list().await[0]
        .state
        .why()
        .map(str::to_owned)
        .unwrap();
    assert!(
        why.contains("3 bytes at most") && why.contains("13"),
        "{why}"
    );
    assert!(tasks.stop(Duration::from_secs(10)).await);
    let (after, tasks) = (jobs(&bench), Tasks::new());
    after.run(&tasks);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    let told = after.list().await[0].state.clone();
    assert_eq!(told, JobState::Failed { why });
    // Asked for anew without the limit, it is made.
    after.add(wish(&one), 0).await.unwrap();
    come_to(&after, &[]).await;
    assert_eq!(bench.pinned(), [*one.cid()]);
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn retrying_does_not_wait() {
    let bench = Bench::new();
    let one = leaf("one");
    let (jobs, tasks) = (jobs(&bench), Tasks::new());
    assert!(matches!(
        jobs.retry(one.cid()).await,
        Err(JobError::Unknown(_))
    ));
    jobs.add(wish(&one), 0).await.unwrap();
    let early = jobs.retry(one.cid()).await;
    assert!(matches!(
        early,
        Err(JobError::NotWaiting(_, "queued already"))
    ));
    jobs.run(&tasks);
    come_to(&jobs, &["waiting"]).await;
    put(&bench, &one).await;
    jobs.retry(one.cid()).await.unwrap();
    let begun = Instant::now();
    come_to(&jobs, &[]).await;
    assert_eq!(bench.pinned(), [*one.cid()]);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "in simulated time"
    );
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn all_that_are_named_are_tried_again_or_none() {
    let bench = Bench::new();
    let (one, two, three) = (leaf("one"), leaf("two"), leaf("much too long"));
    put(&bench, &three).await;
    let small = PinWish {
        max_bytes: Some(3),
        ..wish(&three)
    };
    let (jobs, tasks) = (jobs(&bench), Tasks::new());
    jobs.add(wish(&one), 2).await.unwrap();
    jobs.add(small, 1).await.unwrap();
    jobs.run(&tasks);
    come_to(&jobs, &["waiting", "failed"]).await;
    assert!(tasks.stop(Duration::from_secs(10)).await);
    jobs.add(wish(&two), 0).await.unwrap();
    let [one, two, three] = [one, two, three].map(|block| *block.cid());
    let refused = jobs.retry_all(&[one, three, two]).await;
    assert!(matches!(refused, Err(JobError::NotWaiting(cid, _)) if cid == two));
    assert_eq!(states(&jobs).await, ["waiting", "failed", "queued"]);
    jobs.retry_all(&[one, three]).await.unwrap();
    assert_eq!(states(&jobs).await, ["queued"; 3]);
}

#[tokio::test]
async fn there_are_so_many_and_no_more() {
    let bench = Bench::new();
    let jobs = PinJobs::with(bench.follows(start), ONE, 2);
    let (one, two, three) = (leaf("one"), leaf("two"), leaf("three"));
    jobs.add(wish(&one), 0).await.unwrap();
    jobs.add(wish(&two), 0).await.unwrap();
    assert!(matches!(
        jobs.add(wish(&three), 0).await,
        Err(JobError::TooMany)
    ));
    jobs.add(wish(&two), 5).await.unwrap();
    jobs.cancel(one.cid()).await.unwrap();
    jobs.add(wish(&three), 0).await.unwrap();
    assert_eq!(states(&jobs).await, ["queued", "queued"]);
}

#[tokio::test]
async fn what_is_made_in_the_foreground_is_told_of_and_takes_its_job_along() {
    let bench = Bench::new();
    let one = leaf("one");
    put(&bench, &one).await;
    let jobs = jobs(&bench);
    jobs.add(wish(&one), 0).await.unwrap();
    {
        let _shown = jobs.foreground(wish(&one));
        let all = jobs.list().await;
        assert_eq!(all[0].state, JobState::Fetching { why: None });
        assert_eq!((all.len(), all[0].is_foreground), (2, true));
    }
    assert_eq!(states(&jobs).await, ["queued"]);
    let direct = PinWish::new(*one.cid(), PinMode::Direct);
    jobs.pin(bench.store.clone(), direct, |_| {}).await.unwrap();
    assert_eq!(states(&jobs).await, ["queued"], "it reaches further");
    jobs.pin(bench.store.clone(), wish(&one), |_| {})
        .await
        .unwrap();
    assert!(states(&jobs).await.is_empty());
    let less = jobs.add(PinWish::new(*one.cid(), PinMode::Direct), 0).await;
    assert!(matches!(
        less,
        Err(JobError::Pin(PinError::OtherMode { .. }))
    ));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_in_the_foreground_leaves_a_job_that_reaches_further_by_then() {
    let bench = Bench::new();
    let one = leaf("one");
    put(&bench, &one).await;
    let jobs = jobs(&bench);
    let direct = PinWish::new(*one.cid(), PinMode::Direct);
    jobs.add(direct.clone(), 0).await.unwrap();
    // The change is first in the line of those who note something, and what comes of the pin behind it.
    let lock = jobs.0.noting.lock().await;
    let mut changing = std::pin::pin!(jobs.add(wish(&one), 0));
    assert!(futures::poll!(&mut changing).is_pending());
    let pinning = jobs.pin(bench.store.clone(), direct, |_| {});
    let going_on = async {
        until(async || !bench.pinned().is_empty()).await;
        all_wait().await;
        drop(lock);
    };
    let (pinned, changed, ()) = tokio::join!(pinning, changing, going_on);
    pinned.unwrap();
    changed.unwrap();
    let left = jobs.list().await.into_iter().map(|job| job.wish);
    assert_eq!(left.collect::<Vec<_>>(), [wish(&one)]);
}

/// Once nobody gets on any more: simulated time passes only when everything waits, blocking work too.
async fn all_wait() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Once whoever changes a note now is done with that.
async fn settled(jobs: &PinJobs) {
    drop(jobs.0.noting.lock().await);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_and_goes_leaves_a_job_in_the_queue_or_none() {
    let bench = Bench::new();
    let one = leaf("one");
    let before = jobs(&bench);
    drop(before.add(wish(&one), 0).now_or_never());
    settled(&before).await;
    assert!(before.has(one.cid()));
    assert_eq!(states(&before).await, ["queued"]);
    drop(before.cancel(one.cid()).now_or_never());
    settled(&before).await;
    assert!(!before.has(one.cid()));
    assert_eq!(before.queue().len(), 0);

    put(&bench, &one).await;
    let small = PinWish {
        max_bytes: Some(1),
        ..wish(&one)
    };
    let tasks = Tasks::new();
    before.add(small, 0).await.unwrap();
    before.run(&tasks);
    come_to(&before, &["failed"]).await;
    assert!(tasks.stop(Duration::from_secs(10)).await);
    drop(before.retry(one.cid()).now_or_never());
    settled(&before).await;
    assert_eq!(states(&before).await, ["queued"]);
    assert_eq!(states(&jobs(&bench)).await, ["queued"], "it is noted, too");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_changed_while_it_fails_has_a_turn_of_its_own() {
    let bench = Bench::new();
    let one = leaf("one");
    put(&bench, &one).await;
    let small = PinWish {
        max_bytes: Some(1),
        ..wish(&one)
    };
    for (first, then, pinned) in [
        (small.clone(), wish(&one), vec![*one.cid()]),
        (wish(&one), small, Vec::new()),
    ] {
        let (jobs, tasks) = (jobs(&bench), Tasks::new());
        jobs.add(first, 0).await.unwrap();
        // The change is first in the line of those who note something, and what comes of the attempt behind it.
        let lock = jobs.0.noting.lock().await;
        let mut changing = std::pin::pin!(jobs.add(then, 0));
        assert!(futures::poll!(&mut changing).is_pending());
        jobs.run(&tasks);
        come_to(&jobs, &["fetching"]).await;
        all_wait().await;
        drop(lock);
        changing.await.unwrap();
        until(async || !matches!(states(&jobs).await.as_slice(), ["queued" | "fetching"])).await;
        assert_eq!(bench.pinned(), pinned);
        let left: &[&str] = if pinned.is_empty() { &["failed"] } else { &[] };
        assert_eq!(states(&jobs).await, left);
        assert!(tasks.stop(Duration::from_secs(10)).await);
        if !pinned.is_empty() {
            bench.store.pin_remove(one.cid(), None).await.unwrap();
        }
    }
}

fn broken() -> SystemTime {
    panic!("on purpose")
}

#[tokio::test(start_paused = true)]
async fn a_job_in_which_something_panics_fails_and_the_others_go_on() {
    let bench = Bench::new();
    let (one, two) = (leaf("one"), leaf("two"));
    put(&bench, &one).await;
    put(&bench, &two).await;
    let (jobs, tasks) = (PinJobs::new(bench.follows(broken), ONE), Tasks::new());
    let timed = PinWish {
        expiry: Expiry::At(4_000_000_000),
        ..wish(&one)
    };
    jobs.add(timed, 1).await.unwrap();
    jobs.add(wish(&two), 0).await.unwrap();
    jobs.run(&tasks);
    come_to(&jobs, &["failed"]).await;
    let why = jobs.list().await.remove(0).state;
    let why = why.why().unwrap();
    assert!(why.ends_with("on purpose"), "{why}");
    assert_eq!(bench.pinned(), [*two.cid()]);
    assert_eq!(tasks.panics(), 1);
    assert!(jobs.runs());
    assert!(tasks.stop(Duration::from_secs(10)).await);
    assert!(!jobs.runs());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cancelled_and_asked_for_again_is_made_once() {
    let bench = Bench::new();
    let one = leaf("one");
    put(&bench, &one).await;
    let (jobs, tasks) = (jobs(&bench), Tasks::new());
    jobs.add(wish(&one), 0).await.unwrap();
    let lock = jobs.0.noting.lock().await;
    let mut cancelling = std::pin::pin!(jobs.cancel(one.cid()));
    assert!(futures::poll!(&mut cancelling).is_pending());
    let mut adding = std::pin::pin!(jobs.add(wish(&one).named(Some("again".to_owned())), 0));
    assert!(futures::poll!(&mut adding).is_pending());
    jobs.run(&tasks);
    come_to(&jobs, &["fetching"]).await;
    drop(lock);
    cancelling.await.unwrap();
    adding.await.unwrap();
    come_to(&jobs, &[]).await;
    let pin = bench.store.pin(one.cid()).unwrap();
    assert_eq!(pin.name.as_deref(), Some("again"));
    assert_eq!(jobs.queue().len(), 0);
    assert!(tasks.stop(Duration::from_secs(10)).await);
}
