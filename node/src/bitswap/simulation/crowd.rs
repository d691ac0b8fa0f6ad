//! Many who fetch the same at once: what they take from the seeds, what comes twice, and what it costs
//! them if a seed rests or falls silent.

use super::sharing::{MIB, RATE, Work};
use super::*;
use crate::bitswap::client::CROWD_PATIENCE;

/// Who fetches.
const CROWD: usize = 8;

/// What a crowd came to.
#[derive(Debug)]
struct Outcome {
    took: Duration,
    /// What the seeds sent, in copies of the whole.
    copies: f64,
    /// Of all that came to whoever got most of it twice.
    duplicates: f64,
    /// How long one seed needs for one copy.
    least: Duration,
}

/// What one of the seeds does when half is done.
#[derive(Debug, Clone, Copy)]
enum Midway {
    Goes,
    Rests(Duration),
    FallsSilent,
}

impl Midway {
    fn happens(self, net: &mut Net, seed: usize) {
        match self {
            Self::Goes => {}
            Self::Rests(time) => {
                let sent: Vec<_> = net
                    .pieces
                    .extract_if(.., |(_, from)| *from == seed)
                    .collect();
                net.pieces
                    .extend(sent.into_iter().map(|(at, from)| (at + time, from)));
            }
            Self::FallsSilent => net.fall_silent(seed),
        }
    }
}

fn crowd(bytes: u64, chunk: u64, seeds: usize, midway: Midway) -> Outcome {
    let work = Work::new(bytes, chunk);
    let last = CROWD + seeds - 1;
    let mut net = Net::new(last);
    net.weight = work.chunk / work.wanted[1].1.len() as u64;
    let takers: Vec<usize> = (0..CROWD).collect();
    for one in 0..=last {
        net.nodes[one].uplink.bytes_a_second = RATE;
        for other in one + 1..=last {
            net.introduce(one, other);
        }
    }
    for seed in CROWD..=last {
        net.give(seed, &work.wanted);
    }
    for taker in &takers {
        net.nodes[*taker].client.open(WORK, IDLE, net.now);
    }
    let half = work.wanted.len() * CROWD / 2;
    let mut is_before = true;
    let took = work.run(&mut net, &takers, |net| {
        let come: usize = net.nodes[..CROWD].iter().map(|node| node.store.len()).sum();
        if is_before && come >= half {
            is_before = false;
            midway.happens(net, last);
        }
    });
    let served: usize = net.nodes[CROWD..].iter().map(|node| node.served).sum();
    let worst = net.nodes.iter().map(|node| node.duplicates).max();
    let whole = work.wanted.len() as f64;
    let outcome = Outcome {
        took,
        copies: served as f64 / whole,
        duplicates: worst.unwrap_or(0) as f64 / whole,
        least: Duration::from_secs_f64(work.bytes() / RATE as f64),
    };
    println!("{midway:?}: {outcome:?}");
    outcome
}

#[test]
fn a_crowd_takes_little_more_than_one_copy_from_the_seed() {
    for (bytes, chunk) in [(128 * MIB, MIB / 4), (256 * MIB, MIB)] {
        let outcome = crowd(bytes, chunk, 1, Midway::Goes);
        assert!(outcome.copies <= 1.3, "{outcome:?}");
        assert!(outcome.duplicates <= 0.005, "{outcome:?}");
        assert!(outcome.took <= outcome.least.mul_f64(1.35), "{outcome:?}");
    }
}

/// Flows that share a full link rest for seconds: what they owe is waited for, and comes once.
#[test]
fn a_seed_that_rests_costs_its_rest_and_nothing_comes_twice() {
    let rest = CROWD_PATIENCE * 4 / 5;
    let outcome = crowd(64 * MIB, MIB / 4, 1, Midway::Rests(rest));
    assert!(outcome.duplicates <= 0.005, "{outcome:?}");
    assert!(outcome.copies <= 1.3, "{outcome:?}");
    assert!(
        outcome.took <= outcome.least.mul_f64(1.35) + rest,
        "{outcome:?}"
    );
}

/// What it owed comes from others then, so what it sends in the end comes twice, and no more than that.
#[test]
fn a_seed_that_rests_for_longer_than_it_is_waited_for_sends_twice_what_it_owed() {
    let rest = CROWD_PATIENCE * 3 / 2;
    let outcome = crowd(64 * MIB, MIB / 4, 1, Midway::Rests(rest));
    // Nothing would if it were waited for to the end.
    assert!(outcome.duplicates > 0.0, "{outcome:?}");
    assert!(outcome.duplicates <= 0.02, "{outcome:?}");
    assert!(
        outcome.took <= outcome.least.mul_f64(1.35) + rest,
        "{outcome:?}"
    );
}

/// The other seed alone could do all of it in as long. Some of what was owed is asked of more than one who
/// has it by then: of 513 blocks up to five were seen to come twice to the same taker.
#[test]
fn one_of_two_seeds_that_falls_silent_midway_does_not_hold_a_crowd_up() {
    let outcome = crowd(128 * MIB, MIB / 4, 2, Midway::FallsSilent);
    assert!(outcome.duplicates <= 0.012, "{outcome:?}");
    assert!(outcome.took <= outcome.least.mul_f64(1.35), "{outcome:?}");
}
