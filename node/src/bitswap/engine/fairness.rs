//! Who gets how much of what is sent, and when.

use super::peer::OUTSTANDING_BYTES_ALL;
use super::tests::{cancel, entry, look_up};
use super::*;
use crate::bitswap::message::WantKind;

/// So many peers that want more than they get, of `blocks[i]` bytes a block each.
fn hungry(engine: &mut Engine, blocks: &[u64]) -> Vec<PeerId> {
    let peers: Vec<_> = blocks.iter().map(|_| PeerId::random()).collect();
    for peer in &peers {
        engine.connected(*peer);
    }
    peers
}

/// Lets `turns` envelopes leave, one at a time; gives the bytes each peer got. Who runs out
/// of wants asks for as much again.
fn serve(engine: &mut Engine, peers: &[PeerId], blocks: &[u64], turns: usize) -> Vec<u64> {
    let mut got = vec![0; peers.len()];
    for _ in 0..turns {
        for (peer, bytes) in peers.iter().zip(blocks) {
            if engine.wants_of(peer) < WANTS_PER_PEER_MAX / 2 {
                let wants: Vec<_> = (0..1000).map(|at| entry(at, WantKind::Block)).collect();
                engine.wants(*peer, Scope::Change, &wants);
                while let Some((peer, cids)) = engine.next_lookup() {
                    let found: Vec<_> = cids.into_iter().map(|cid| (cid, Some(*bytes))).collect();
                    engine.looked_up(peer, &found);
                }
            }
        }
        let envelope = engine.next_envelope().unwrap();
        let at = peers.iter().position(|peer| *peer == envelope.peer);
        got[at.unwrap()] += envelope.block_bytes;
        engine.sent(envelope.peer, envelope.bytes);
    }
    got
}

/// Jain's index: 1 if all got the same, 1/n if one got all.
fn fairness(got: &[u64]) -> f64 {
    let sum: f64 = got.iter().map(|bytes| *bytes as f64).sum();
    let squares: f64 = got.iter().map(|bytes| (*bytes as f64).powi(2)).sum();
    sum * sum / (got.len() as f64 * squares)
}

#[test]
fn peers_get_equal_bytes_whatever_the_size_of_their_blocks() {
    let mut engine = Engine::default();
    let blocks: Vec<u64> = [1 << 10, 10_000, 256 << 10, 700_000, 1 << 20, 2 << 20]
        .into_iter()
        .cycle()
        .take(16)
        .collect();
    let peers = hungry(&mut engine, &blocks);
    let got = serve(&mut engine, &peers, &blocks, 1600);
    assert!(fairness(&got) >= 0.99, "{got:?}");
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    // One envelope apart, and what small blocks cost beside their bytes.
    assert!(most - least <= (2 << 20) + most / 20, "{got:?}");
}

#[test]
fn who_gave_gets_more_and_nobody_less_than_its_share() {
    let mut engine = Engine::default();
    let blocks = [256 << 10; 8];
    let peers = hungry(&mut engine, &blocks);
    engine.weigh(peers[3], Weight::MAX);
    let got = serve(&mut engine, &peers, &blocks, 1100);
    let others: Vec<u64> = (0..8).filter(|at| *at != 3).map(|at| got[at]).collect();
    assert!(fairness(&others) >= 0.99, "{got:?}");
    let most = others.iter().max().unwrap();
    let ratio = got[3] as f64 / *most as f64;
    assert!((3.8..=4.05).contains(&ratio), "{ratio} {got:?}");
    // What it lost again it gets no more.
    engine.weigh(peers[3], Weight::default());
    let got = serve(&mut engine, &peers, &blocks, 800);
    assert!(fairness(&got) >= 0.99, "{got:?}");
}

#[test]
fn a_newcomer_among_63_hungry_peers_is_served_within_a_round() {
    let mut engine = Engine::default();
    let blocks = [256 << 10; 64];
    let peers = hungry(&mut engine, &blocks);
    for peer in &peers[..32] {
        engine.weigh(*peer, Weight::MAX);
    }
    serve(&mut engine, &peers[..63], &blocks[..63], 5000);
    let newcomer = peers[63];
    engine.wants(newcomer, Scope::Change, &[entry(0, WantKind::Block)]);
    look_up(&mut engine, 1, 256 << 10);
    let mut turns = 0;
    while let Some(envelope) = engine.next_envelope() {
        turns += 1;
        engine.sent(envelope.peer, envelope.bytes);
        if envelope.peer == newcomer {
            break;
        }
    }
    assert!(turns <= 64, "{turns}");
    // It is not paid for the time before it came.
    let got = serve(&mut engine, &peers, &blocks, 6400);
    let plain: Vec<u64> = got[32..].to_vec();
    assert!(fairness(&plain) >= 0.99, "{got:?}");
}

#[test]
fn readers_that_take_nothing_hold_nobody_up() {
    let mut engine = Engine::default();
    let blocks = [1 << 20; 65];
    let peers = hungry(&mut engine, &blocks);
    let wants: Vec<_> = (0..200).map(|at| entry(at, WantKind::Block)).collect();
    for peer in &peers {
        engine.wants(*peer, Scope::Change, &wants);
    }
    look_up(&mut engine, 200, 1 << 20);
    let (mut stuck, mut quick) = (0, 0);
    while let Some(envelope) = engine.next_envelope() {
        if envelope.peer == peers[0] {
            quick += envelope.block_bytes;
            engine.sent(peers[0], envelope.bytes);
        } else {
            stuck += envelope.bytes;
        }
    }
    assert_eq!(quick, 200 << 20);
    // All have their envelope and together little more than may be under way.
    assert!(
        (64 << 20..=2 * OUTSTANDING_BYTES_ALL).contains(&stuck),
        "{stuck}"
    );
}

#[test]
fn what_is_on_its_way_to_all_is_no_more_than_all_may_have() {
    // Of some numbers of peers, each one's part is no whole number of envelopes.
    for count in [17, 31, 40, 63] {
        let mut engine = Engine::default();
        let peers = hungry(&mut engine, &vec![1 << 20; count]);
        let wants: Vec<_> = (0..50).map(|at| entry(at, WantKind::Block)).collect();
        for peer in &peers {
            engine.wants(*peer, Scope::Change, &wants);
        }
        look_up(&mut engine, 50, 1 << 20);
        let all = std::iter::from_fn(|| engine.next_envelope());
        let bytes: u64 = all.map(|envelope| envelope.bytes).sum();
        let least = OUTSTANDING_BYTES_ALL / 2;
        assert!((least..=OUTSTANDING_BYTES_ALL).contains(&bytes), "{bytes}");
    }
}

#[test]
fn what_peers_weigh_together_is_what_those_weigh_that_are_busy() {
    let mut engine = Engine::default();
    let peers = hungry(&mut engine, &[1; 3]);
    engine.weigh(peers[1], Weight::MAX);
    assert_eq!(engine.busy_weight, 0);
    for peer in &peers {
        engine.wants(*peer, Scope::Change, &[entry(0, WantKind::Block)]);
    }
    look_up(&mut engine, 1, 9);
    assert_eq!(engine.busy_weight, 600);
    engine.wants(peers[0], Scope::Change, &[cancel(0)]);
    assert_eq!(engine.busy_weight, 500);
    engine.weigh(peers[1], Weight::default());
    assert_eq!(engine.busy_weight, 200);
    engine.disconnected(&peers[1]);
    let envelope = engine.next_envelope().unwrap();
    assert_eq!(engine.busy_weight, 100);
    engine.sent(envelope.peer, envelope.bytes);
    assert_eq!(engine.busy_weight, 0);
    assert!(engine.ready.is_empty() && engine.next_envelope().is_none());
}
