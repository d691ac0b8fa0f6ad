//! Client and engine against each other, in simulated time: many nodes, a queue of messages, a
//! clock that jumps to the next thing that happens. Nothing here waits.

use super::client::{Action, Received, Speaks, TICK};
use super::key::Key;
use super::message::PresenceKind;
use super::session::SessionId;
use bytes::Bytes;
use cairn_store::Cid;
use net::*;
use std::time::Duration;

mod crowd;
mod net;
mod sharing;

#[test]
fn one_peer_gives_a_block_within_one_round_trip() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 100_000);
    net.give(1, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < LATENCY * 3, "{took:?}");
    assert_eq!(net.nodes[1].served, 1);
}

#[test]
fn of_several_peers_only_those_that_have_it_are_asked_for_the_block() {
    let mut net = Net::new(4);
    let wanted = blocks(1, 100_000);
    net.give(3, &wanted);
    net.give(4, &wanted);
    net.fetch(&wanted);
    let served: usize = net.nodes.iter().map(|node| node.served).sum();
    assert_eq!(served, 1);
    assert_eq!(net.nodes[ME].duplicates, 0);
}

#[test]
fn every_want_is_cancelled_where_it_was_asked() {
    let mut net = Net::new(5);
    let wanted = blocks(40, 50_000);
    net.give(1, &wanted);
    net.give(2, &wanted);
    net.fetch(&wanted);
    net.run_until(Duration::from_secs(1), |net| net.mail.is_empty());
    let me = net.nodes[ME].id;
    for node in &net.nodes[1..] {
        assert_eq!(node.engine.wants_of(&me), 0);
        assert_eq!(net.nodes[ME].client.wanted_of(&node.id), 0);
    }
}

#[test]
fn what_one_peer_lacks_another_gives() {
    let mut net = Net::new(3);
    let wanted = blocks(60, 20_000);
    net.give(1, &wanted[..30]);
    net.give(2, &wanted[30..]);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(net.searches(), 0);
}

#[test]
fn five_peers_share_the_work_without_doing_it_twice() {
    let mut net = Net::new(5);
    let wanted = blocks(400, 256 << 10);
    for other in 1..=5 {
        net.nodes[other].uplink.bytes_a_second = FAST / 5;
        net.give(other, &wanted);
    }
    let took = net.fetch(&wanted);
    for node in &net.nodes[1..] {
        assert!((40..160).contains(&node.served), "{}", node.served);
    }
    assert!(
        net.nodes[ME].duplicates <= 2,
        "{}",
        net.nodes[ME].duplicates
    );
    // 105 MB over five links of 25 MB/s.
    assert!(took < Duration::from_millis(1700), "{took:?}");
}

#[test]
fn one_peer_is_filled_as_fast_as_its_link() {
    let mut net = Net::new(1);
    let wanted = blocks(400, 256 << 10);
    net.give(1, &wanted);
    let took = net.fetch(&wanted);
    // 105 MB at 125 MB/s.
    assert!(took < Duration::from_millis(1300), "{took:?}");
    assert_eq!(net.nodes[1].served, 400);
}

#[test]
fn a_slow_peer_does_not_hold_a_fast_one_up() {
    let mut net = Net::new(2);
    let wanted = blocks(200, 256 << 10);
    net.nodes[1].uplink.bytes_a_second = 100_000;
    net.give(1, &wanted);
    net.give(2, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(net.nodes[1].served < 30, "{}", net.nodes[1].served);
}

#[test]
fn liars_who_say_have_and_stall_cost_little() {
    let mut net = Net::new(12);
    let wanted = blocks(200, 100_000);
    for other in 1..=10 {
        net.nodes[other].manner = Manner::Liar;
    }
    net.give(11, &wanted);
    net.give(12, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// What those want who do not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanting {
    Nothing,
    TheSame,
}

/// How long a fetch takes among so many honest peers of 4 Mbit/s each, and others.
fn fetch_in_a_crowd(honest: usize, others: usize, manner: Manner, wanting: Wanting) -> Duration {
    let mut net = Net::new(honest + others);
    // Several messages from each: a single one, which comes whole or not at all, takes four seconds over such a link,
    // and would be all that is measured.
    let wanted = blocks(1800, 64 << 10);
    for at in 1..=honest + others {
        net.nodes[at].uplink.bytes_a_second = 500_000;
        // In between, so that the order says nothing.
        if at % 6 != 0 && others > 0 {
            net.nodes[at].manner = manner;
            if wanting == Wanting::TheSame {
                let client = &mut net.nodes[at].client;
                client.open(WORK, IDLE, net.now);
                // Some of it is enough to look as if it fetched the same.
                for (cid, _) in &wanted[..40] {
                    client.want(WORK, *cid, net.now);
                }
            }
        }
        if matches!(net.nodes[at].manner, Manner::Honest | Manner::Turncoat) {
            net.give(at, &wanted);
        }
    }
    let start = net.now;
    net.want(&wanted);
    let done = net.run_until(IDLE, |net| net.has_all(&wanted));
    let held = net.nodes[ME].store.len();
    assert!(done, "{manner:?}: {held} came");
    net.now - start
}

#[test]
fn a_hundred_liars_among_120_peers_cost_less_than_half_as_much_again() {
    a_hundred_cost_less_than_half_as_much_again(Wanting::Nothing);
}

#[test]
fn a_hundred_liars_that_want_the_same_cost_less_than_half_as_much_again() {
    a_hundred_cost_less_than_half_as_much_again(Wanting::TheSame);
}

fn a_hundred_cost_less_than_half_as_much_again(wanting: Wanting) {
    let honest_only = fetch_in_a_crowd(20, 0, Manner::Honest, Wanting::Nothing);
    for manner in [
        Manner::Liar,
        Manner::Forger,
        Manner::Turncoat,
        Manner::Dropper,
    ] {
        let took = fetch_in_a_crowd(20, 100, manner, wanting);
        assert!(
            took <= honest_only * 3 / 2,
            "{manner:?}: {took:?} of {honest_only:?}"
        );
    }
}

#[test]
fn who_delivered_once_and_only_talks_since_is_not_waited_for() {
    let mut net = Net::new(2);
    let wanted = blocks(20, 5000);
    net.nodes[1].manner = Manner::Turncoat;
    net.give(1, &wanted);
    net.disconnect(2);
    net.want(&wanted);
    let all_sent = |net: &Net| net.nodes[ME].store.len() == TURNCOAT_SERVES;
    assert!(net.run_until(IDLE, all_sent));
    net.run_until(Duration::from_secs(1), |_| false);
    // Everything has been asked of the first by then.
    net.give(2, &wanted);
    net.connect(2);
    assert!(net.run_until(Duration::from_secs(8), |net| net.has_all(&wanted)));
}

#[test]
fn who_talks_and_sends_nothing_does_not_keep_a_want_alive_for_ever() {
    let mut net = Net::new(1);
    let wanted = blocks(5, 5000);
    net.nodes[1].manner = Manner::Turncoat;
    net.give(1, &wanted);
    net.want(&wanted);
    let over = |net: &Net| net.given_up().len() == 5 - TURNCOAT_SERVES;
    assert!(net.run_until(Duration::from_secs(900), over));
}

#[test]
fn one_honest_peer_among_liars_is_found_before_the_first_liar_is_written_off() {
    let mut net = Net::new(12);
    let wanted = blocks(1, 100_000);
    for other in 1..=11 {
        net.nodes[other].manner = Manner::Liar;
    }
    net.give(12, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_peer_that_said_it_lacks_a_block_is_not_asked_for_it_again_at_once() {
    let mut net = Net::new(2);
    let wanted = blocks(10, 5000);
    net.want(&wanted);
    net.run_until(Duration::from_secs(8), |_| false);
    for node in &net.nodes[1..] {
        assert_eq!(node.wants_heard, wanted.len());
    }
}

#[test]
fn forged_blocks_are_not_taken_and_their_sender_is_left() {
    let mut net = Net::new(2);
    let wanted = blocks(100, 5000);
    net.nodes[1].manner = Manner::Forger;
    net.give(2, &wanted);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(net.nodes[ME].store.len(), 100);
}

#[test]
fn an_answer_that_comes_after_many_others_is_late_and_no_lie() {
    let mut net = Net::new(2);
    let wanted = blocks(20_000, 16);
    for other in 1..=2 {
        net.nodes[other].manner = Manner::Old;
        let peer = net.nodes[other].id;
        let now = net.now;
        net.nodes[ME].client.speaks(&peer, Speaks::Blocks, now);
    }
    // Both are asked for the first; one answers that and everything else, the other at the end.
    let (quick, late) = (net.nodes[1].id, net.nodes[2].id);
    let client = &mut net.nodes[ME].client;
    for (at, (cid, data)) in wanted.iter().enumerate() {
        client.want(WORK, *cid, net.now);
        client.settle(net.now);
        if at == 0 {
            assert_eq!(client.entries(&late, 10).len(), 1);
        }
        let got = client.block(&quick, cid, data.len() as u64, net.now);
        assert_eq!(got, Received::Wanted(*cid));
        client.entries(&quick, 10);
        client.entries(&late, 10);
    }
    let first = wanted[0].0;
    assert_eq!(
        client.block(&late, &first, 16, net.now),
        Received::Duplicate
    );
    assert_eq!(client.block(&quick, &first, 16, net.now), Received::Wrong);
}

#[test]
fn a_peer_that_forges_on_and_on_is_disconnected() {
    let mut net = Net::new(1);
    net.nodes[1].manner = Manner::Forger;
    net.want(&blocks(32, 5000));
    let forger = net.nodes[1].id;
    let left = |net: &Net| net.nodes[ME].actions.contains(&Action::Disconnect(forger));
    assert!(net.run_until(IDLE, left));
    assert!(net.nodes[ME].client.peers().is_empty());
}

#[test]
fn providers_are_looked_for_after_a_second_or_at_once_if_nobody_is_there() {
    let mut alone = Net::new(0);
    alone.want(&blocks(1, 10));
    assert!(alone.run_until(TICK * 2, |net| net.searches() == 1));
    let mut stalled = Net::new(2);
    stalled.nodes[1].manner = Manner::Old;
    let peer = stalled.nodes[1].id;
    let now = stalled.now;
    stalled.nodes[ME].client.speaks(&peer, Speaks::Blocks, now);
    stalled.disconnect(2);
    stalled.want(&blocks(1, 10));
    assert!(!stalled.run_until(Duration::from_millis(900), |net| net.searches() > 0));
    assert!(stalled.run_until(Duration::from_millis(300), |net| net.searches() == 1));
}

#[test]
fn nobody_connected_having_it_is_reason_enough_to_search() {
    let mut net = Net::new(3);
    net.want(&blocks(1, 10));
    assert!(net.run_until(LATENCY * 2 + TICK * 2, |net| net.searches() == 1));
}

#[test]
fn a_provider_that_is_found_and_connects_is_asked() {
    let mut net = Net::new(2);
    let wanted = blocks(50, 20_000);
    net.give(2, &wanted);
    net.disconnect(2);
    net.want(&wanted);
    assert!(net.run_until(IDLE, |net| net.searches() == 1));
    let found = net.nodes[2].id;
    net.nodes[ME].client.provider(WORK, found);
    net.connect(2);
    assert!(net.run_until(Duration::from_secs(1), |net| net.has_all(&wanted)));
}

#[test]
fn gives_up_when_nothing_came_for_long_and_tells_what_was_tried() {
    let mut net = Net::new(2);
    let wanted = blocks(3, 10);
    net.give(1, &wanted[..1]);
    net.want(&wanted);
    let over = |net: &Net| net.given_up().len() == 2;
    assert!(!net.run_until(IDLE - TICK, over));
    assert!(net.run_until(Duration::from_secs(1), over));
    let tried = net.given_up().remove(0);
    assert_eq!((tried.connected, tried.said.asked), (2, 2));
    assert!(tried.said.want_haves >= 2, "{tried:?}");
    assert!(tried.said.dont_haves >= 2, "{tried:?}");
    assert_eq!((tried.said.haves, tried.sought.came), (0, 1), "{tried:?}");
    assert!(tried.sought.searches >= 1, "{tried:?}");
    assert!(net.nodes[ME].client.wantlist().is_empty());
}

#[test]
fn a_fetch_survives_the_disconnection_of_whom_it_asked() {
    let mut net = Net::new(2);
    let wanted = blocks(100, 256 << 10);
    net.give(1, &wanted);
    net.give(2, &wanted);
    net.want(&wanted);
    assert!(net.run_until(IDLE, |net| net.nodes[ME].store.len() > 20));
    net.disconnect(1);
    assert!(net.run_until(Duration::from_secs(2), |net| net.has_all(&wanted)));
}

#[test]
fn peers_without_presences_are_asked_for_blocks_and_not_waited_for() {
    let mut net = Net::new(3);
    let wanted = blocks(100, 20_000);
    for other in 1..=2 {
        net.nodes[other].manner = Manner::Old;
        let peer = net.nodes[other].id;
        let now = net.now;
        net.nodes[ME].client.speaks(&peer, Speaks::Blocks, now);
    }
    net.give(1, &wanted[..50]);
    net.give(3, &wanted[50..]);
    let took = net.fetch(&wanted);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn two_sessions_that_want_one_block_make_one_request() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.give(1, &wanted);
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    net.want(&wanted);
    net.nodes[ME].client.want(other, wanted[0].0, net.now);
    // The same content under another name is the same want.
    let renamed = Cid::new_v1(0x70, *wanted[0].0.hash());
    net.nodes[ME].client.want(other, renamed, net.now);
    assert!(net.run_until(IDLE, |net| net.has_all(&wanted)));
    assert_eq!(net.nodes[1].served, 1);
    assert_eq!(net.nodes[1].wants_heard, 1);
}

#[test]
fn a_want_that_one_session_drops_goes_on_for_the_other() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.give(1, &wanted);
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    net.want(&wanted);
    net.nodes[ME].client.want(other, wanted[0].0, net.now);
    net.nodes[ME].client.close(WORK);
    assert!(net.run_until(IDLE, |net| net.has_all(&wanted)));
}

#[test]
fn a_dropped_want_is_cancelled() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.want(&wanted);
    let me = net.nodes[ME].id;
    assert!(net.run_until(IDLE, |net| net.nodes[1].engine.wants_of(&me) == 1));
    net.nodes[ME].client.close(WORK);
    assert!(net.run_until(IDLE, |net| net.nodes[1].engine.wants_of(&me) == 0));
    assert!(net.nodes[ME].client.wantlist().is_empty());
}

#[test]
fn a_block_that_a_peer_gets_later_is_pushed() {
    let mut net = Net::new(1);
    let wanted = blocks(1, 5000);
    net.want(&wanted);
    assert!(!net.run_until(Duration::from_secs(3), |net| net.has_all(&wanted)));
    net.give(1, &wanted);
    net.nodes[1].engine.arrived(&[(wanted[0].0, 5000)]);
    assert!(net.run_until(LATENCY * 2, |net| net.has_all(&wanted)));
}

#[test]
fn sessions_take_turns_at_a_busy_peer() {
    let mut net = Net::new(1);
    let (large, small) = (blocks(1000, 100_000), blocks(5, 64));
    net.nodes[1].uplink.bytes_a_second = 10_000_000;
    net.give(1, &large);
    net.give(1, &small);
    net.want(&large);
    assert!(net.run_until(IDLE, |net| net.nodes[ME].store.len() > 50));
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    for (cid, _) in &small {
        net.nodes[ME].client.want(other, *cid, net.now);
    }
    let start = net.now;
    assert!(net.run_until(IDLE, |net| net.has_all(&small)));
    let waited = net.now - start;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert!(!net.has_all(&large));
}

/// What each of two sessions got of large work that both have from the same peers, until one of them had all:
/// the second begins when the first has so many blocks.
fn two_large_sessions(peers: usize, apart: usize) -> (usize, usize) {
    let mut net = Net::new(peers);
    net.weight = 300;
    let [first, second] = [blocks(1000, 640), blocks(1000, 648)];
    for at in 1..=peers {
        net.nodes[at].uplink.bytes_a_second = 10_000_000;
        net.give(at, &first);
        net.give(at, &second);
    }
    let held = |net: &Net, work: &[(Cid, Bytes)]| {
        let store = &net.nodes[ME].store;
        let came = |(cid, _): &&(Cid, Bytes)| store.contains_key(&Key::content(cid));
        work.iter().filter(came).count()
    };
    net.want(&first);
    assert!(net.run_until(IDLE, |net| held(net, &first) >= apart));
    let other = SessionId(2);
    net.nodes[ME].client.open(other, IDLE, net.now);
    for (cid, _) in &second {
        net.nodes[ME].client.want(other, *cid, net.now);
    }
    // What the first has asked for by then comes before.
    assert!(net.run_until(IDLE, |net| held(net, &second) > 0));
    let before = held(&net, &first);
    let is_over = |net: &Net| net.has_all(&first) || net.has_all(&second);
    assert!(net.run_until(IDLE * 10, is_over));
    (held(&net, &first) - before, held(&net, &second))
}

#[test]
fn two_large_sessions_get_as_much_of_the_peers_they_share() {
    for (peers, apart) in [(1, 300), (3, 0), (3, 300)] {
        let (one, other) = two_large_sessions(peers, apart);
        println!("{peers} peers, {apart} apart: {one} and {other}");
        let (less, more) = (one.min(other), one.max(other));
        assert!(less * 10 >= more * 9, "{one} and {other}");
    }
}

#[test]
fn presences_about_what_nobody_wants_are_ignored() {
    let mut net = Net::new(1);
    let peer = net.nodes[1].id;
    for (cid, _) in blocks(10, 10) {
        for kind in [PresenceKind::Have, PresenceKind::DontHave] {
            net.nodes[ME].client.presence(&peer, &cid, kind, net.now);
        }
    }
    assert!(!net.nodes[ME].client.has_entries(&peer));
    assert!(net.now == net.start);
}
