//! Peers that say or ask for much, or open much: what is kept for them has its bound, and their words
//! wait until they are paid for.

use super::*;
use crate::bitswap::streams::{LINES_A_SECOND, LINES_AT_ONCE, READERS_WORKING_MAX};
use futures::future::join_all;
use std::time::Instant;

/// How many lines of a peer that takes nothing can have been heard since `start` over streams of which so many
/// are read at once. It is looked at after they are counted, so no machine is too slow for it.
fn paid_for(start: Instant, streams: usize) -> f64 {
    let earned = start.elapsed().as_secs_f64() * LINES_A_SECOND as f64;
    LINES_AT_ONCE as f64 + earned + ((streams + 1) * MESSAGE_WANTS_MAX) as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_million_wants_a_thousand_are_kept_and_none_when_the_peer_is_gone() {
    const WANTS: u64 = 1_000_000;
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    let most = (2 * WANTS_PER_PEER_MAX) as f64;
    let start = Instant::now();
    scene
        .goes_on_during(async {
            let step = MESSAGE_WANTS_MAX as u64;
            for first in (0..WANTS).step_by(MESSAGE_WANTS_MAX) {
                assert!(
                    hostile
                        .says(&lines(first..first + step, want(WantKind::Block)))
                        .await
                );
                assert!(scene.figure("wants_kept") <= most);
            }
        })
        .await;
    // Most of them wait in its streams: they cost it more than us.
    let heard = scene.figure("wants_received_total");
    let paid_for = paid_for(start, READERS_WORKING_MAX);
    assert!(heard <= paid_for, "{heard} lines, {paid_for} at most");
    let full = WANTS_PER_PEER_MAX as f64;
    scene
        .until(|scene| scene.figure("wants_kept") == full && scene.figure("peers_held_total") > 0.0)
        .await;
    assert!(scene.figure("lines_over_limit_total") > 0.0);
    drop(hostile);
    scene.nothing_is_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_is_held_and_who_takes_what_it_asks_for_is_not() {
    // Far more than is saved up, so that it matters whether the rest waits.
    const HEARD: f64 = 3.0 * LINES_AT_ONCE as f64;
    let scene = Scene::new().await;
    // Many small blocks: more lines than anybody has for nothing.
    let small = made(20_000, 64, RAW);
    scene.kept.add(&small);
    scene.neighbour.fetch(&small).await;
    scene.neighbour.fetch(&scene.given).await;
    assert_eq!(scene.figure("peers_held_total"), 0.0);
    let hostile = Hostile::at(&scene.victim).await;
    let before = scene.figure("wants_received_total");
    let start = Instant::now();
    let flood = async {
        let mut stream = hostile.open().await.unwrap();
        let numbers = 0..MESSAGE_WANTS_MAX as u64;
        let probes = lines(numbers, want(WantKind::Have));
        // The same again and again, until it is not read any more and long after.
        while stream.write_all(&probes).await.is_ok() {}
    };
    tokio::select! {
        () = flood => panic!("it was dropped"),
        () = scene.until(|scene| scene.figure("wants_received_total") - before >= HEARD) => {}
    }
    let heard = scene.figure("wants_received_total") - before;
    let paid_for = paid_for(start, 1);
    assert!(heard <= paid_for, "{heard} lines, {paid_for} at most");
    assert!(scene.figure("peers_held_total") >= 1.0);
    assert!(scene.figure("lines_over_limit_total") > 0.0);
    scene.work().await;
    drop(hostile);
    scene.until(|scene| scene.figure("wants_kept") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_cancels_and_of_want_lists_leave_nothing() {
    const TURNS: u64 = 30;
    // So few that each has paid for what it says soon: what it saved up, then by the second.
    const TURNS_EACH: u64 = 3;
    let scene = Scene::new().await;
    let mut hostiles = Vec::new();
    for _ in 0..TURNS / TURNS_EACH {
        hostiles.push(Hostile::at(&scene.victim).await);
    }
    let step = MESSAGE_WANTS_MAX as u64;
    let floods = hostiles.iter().zip(0..);
    let floods = floods.map(async |(hostile, nth)| {
        // One stream, so that one is heard after the other.
        let mut stream = hostile.open().await.unwrap();
        for turn in (0..TURNS_EACH).map(|turn| nth * TURNS_EACH + turn) {
            let numbers = turn * step..(turn + 1) * step;
            let nothing = Message {
                scope: Scope::Whole,
                ..Message::default()
            };
            for said in [
                lines(numbers.clone(), Change::Cancel),
                lines(numbers.clone(), want(WantKind::Have)),
                written(&nothing),
                lines(numbers.clone(), want(WantKind::Block)),
                lines(numbers, Change::Cancel),
            ] {
                stream.write_all(&said).await.unwrap();
            }
        }
        stream.close().await.unwrap();
    });
    scene
        .goes_on_during(async { drop(join_all(floods).await) })
        .await;
    scene
        .until(|scene| scene.figure("wants_received_total") >= (4 * TURNS * step) as f64)
        .await;
    // Though the peers are still there.
    scene.nothing_is_kept().await;
    drop(hostiles);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_probes_for_blocks_and_reads_no_answer_is_kept_no_more_than_its_share() {
    let scene = Scene::new().await;
    let hostile = Hostile::with(&scene.victim, Ears::Shut).await;
    let step = MESSAGE_WANTS_MAX as u64;
    scene
        .goes_on_during(async {
            for first in (0..25 * step).step_by(MESSAGE_WANTS_MAX) {
                assert!(
                    hostile
                        .says(&lines(first..first + step, want(WantKind::Have)))
                        .await
                );
                assert!(scene.figure("wants_kept") <= (2 * WANTS_PER_PEER_MAX) as f64);
            }
        })
        .await;
    scene
        .until(|scene| scene.figure("wants_received_total") >= 25.0 * step as f64)
        .await;
    drop(hostile);
    scene.nothing_is_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limit_are_refused_and_a_storm_of_them_stops_nobody() {
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    let mut held = Vec::new();
    scene
        .goes_on_during(async {
            for _ in 0..3000 {
                drop(hostile.open().await);
            }
            for _ in 0..300 {
                let mut stream = hostile.open().await.unwrap();
                // The first byte of a length, and no more.
                drop(stream.write_all(&[0x80]).await);
                drop(stream.flush().await);
                held.push(stream);
            }
        })
        .await;
    scene
        .until(|scene| scene.figure("streams_refused_total") >= 44.0)
        .await;
    drop(hostile);
    scene.nothing_is_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_much_and_reads_nothing_is_sent_no_more_than_its_bound() {
    let scene = Scene::new().await;
    let hostile = Hostile::with(&scene.victim, Ears::Shut).await;
    let wants = scene.given.iter().map(|block| Entry {
        cid: *block.cid(),
        change: want(WantKind::Block),
    });
    let all = Message {
        wants: wants.collect(),
        ..Message::default()
    };
    scene
        .goes_on_during(async {
            assert!(hostile.says(&written(&all)).await);
            // Where less is left of its bound than a message takes, it gets no more. (All of it was only ever seen while
            // the neighbour's was counted along.)
            let enough = (OUTSTANDING_BYTES_MAX - ENVELOPE_BYTES_TARGET) as f64;
            scene
                .until(|scene| scene.figure("outstanding_bytes") >= enough)
                .await;
        })
        .await;
    // The neighbour is served; what is left is the attacker's, and one message beyond its bound.
    let most = (OUTSTANDING_BYTES_MAX + ENVELOPE_BYTES_TARGET) as f64;
    scene
        .until(|scene| scene.figure("outstanding_bytes") <= most)
        .await;
    drop(hostile);
    scene.nothing_is_kept().await;
}
