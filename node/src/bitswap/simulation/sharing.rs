//! Large work from several peers of measured rates: what share of the rates comes to use, what is
//! sent twice, and what those hear of it who have none.

use super::*;
use crate::bitswap::client::BROADCASTS_MAX;

/// 50 Mbit/s.
pub(super) const RATE: u64 = 6_250_000;
pub(super) const MIB: u64 = 1 << 20;
/// Bytes in a block of the simulation; each counts as many.
const BLOCK_BYTES: usize = 64;
const ROOT_BYTES: usize = 8;
/// What a pin has wanted at once.
const AHEAD_BYTES: u64 = 64 * MIB;

pub(super) struct Work {
    pub(super) wanted: Vec<(Cid, Bytes)>,
    pub(super) chunk: u64,
}

/// What a fetch came to.
#[derive(Debug)]
struct Outcome {
    /// Of what the seeds could have sent meanwhile.
    share: f64,
    /// Of all blocks that came.
    duplicates: f64,
}

impl Work {
    pub(super) fn new(bytes: u64, chunk: u64) -> Self {
        let count = usize::try_from(bytes / chunk).unwrap();
        // As a root is, what all begin with is much smaller than the rest.
        let mut wanted = blocks(1, ROOT_BYTES);
        wanted.extend(blocks(count, BLOCK_BYTES));
        Self { wanted, chunk }
    }

    fn ahead(&self) -> usize {
        usize::try_from(AHEAD_BYTES / self.chunk).unwrap().min(512)
    }

    /// Nodes that have all of it, each at its rate.
    fn seeds(&self, rates: &[u64]) -> Net {
        let mut net = Net::new(rates.len());
        net.weight = self.chunk / BLOCK_BYTES as u64;
        for (at, rate) in rates.iter().enumerate() {
            net.nodes[at + 1].uplink.bytes_a_second = *rate;
            // The first has answered before the others say that they have it too.
            if at > 0 {
                net.nodes[at + 1].lag = LATENCY * 2;
            }
            net.give(at + 1, &self.wanted);
        }
        net
    }

    /// Keeps so much wanted by every taker until all have all. `meanwhile` is called as time goes on.
    pub(super) fn run(
        &self,
        net: &mut Net,
        takers: &[usize],
        mut meanwhile: impl FnMut(&mut Net),
    ) -> Duration {
        let start = net.now;
        let mut begun = vec![0; takers.len()];
        loop {
            let mut all = true;
            for (begun, taker) in begun.iter_mut().zip(takers) {
                let (now, node) = (net.now, &mut net.nodes[*taker]);
                let have = node.store.len();
                all &= have == self.wanted.len();
                // Nobody knows what there is before it has the root.
                let most = if have == 0 { 1 } else { have + self.ahead() };
                while *begun < most.min(self.wanted.len()) {
                    node.client.want(WORK, self.wanted[*begun].0, now);
                    *begun += 1;
                }
            }
            if all {
                return net.now - start;
            }
            let had: usize = net.nodes.iter().map(|node| node.store.len()).sum();
            let came = |net: &Net| {
                let has: usize = net.nodes.iter().map(|node| node.store.len()).sum();
                has > had
            };
            assert!(net.run_until(IDLE, came), "nothing comes any more");
            meanwhile(net);
        }
    }

    fn fetch(&self, rates: &[u64]) -> Outcome {
        let mut net = self.seeds(rates);
        let took = self.run(&mut net, &[ME], |_| {});
        self.outcome(&net, took, rates.iter().sum::<u64>() as f64)
    }

    pub(super) fn bytes(&self) -> f64 {
        (self.wanted.len() - 1) as f64 * self.chunk as f64
    }

    fn outcome(&self, net: &Net, took: Duration, rate: f64) -> Outcome {
        let outcome = Outcome {
            share: self.bytes() / rate / took.as_secs_f64(),
            duplicates: net.nodes[ME].duplicates as f64 / self.wanted.len() as f64,
        };
        println!("{outcome:?}");
        outcome
    }
}

impl Outcome {
    fn is_good(&self) {
        assert!(self.share >= 0.95, "{self:?}");
        assert!(self.duplicates <= 0.005, "{self:?}");
    }
}

#[test]
fn two_four_and_eight_seeds_give_what_their_links_carry() {
    let work = Work::new(512 * MIB, MIB / 4);
    for seeds in [2, 4, 8] {
        work.fetch(&vec![RATE; seeds]).is_good();
    }
}

#[test]
fn a_seed_that_comes_while_the_first_is_busy_is_asked_too() {
    let work = Work::new(512 * MIB, MIB / 4);
    let mut net = work.seeds(&[RATE; 2]);
    net.disconnect(2);
    let mut is_alone = true;
    let took = work.run(&mut net, &[ME], |net| {
        if is_alone && net.nodes[ME].store.len() > 10 {
            is_alone = false;
            net.connect(2);
        }
    });
    work.outcome(&net, took, RATE as f64 * 2.0).is_good();
}

#[test]
fn a_seed_of_a_tenth_of_the_rate_holds_nobody_up() {
    for chunk in [MIB / 4, MIB] {
        let work = Work::new(512 * MIB, chunk);
        let outcome = work.fetch(&[RATE, RATE, RATE, RATE / 10]);
        outcome.is_good();
        // It is asked for nothing that the others have sooner: else the last block is 3 s late.
        assert!(outcome.share >= 0.97, "{outcome:?}");
    }
}

#[test]
fn a_quick_seed_that_speaks_no_more_does_not_keep_the_last_blocks_from_a_slow_one() {
    let work = Work::new(32 * MIB, MIB / 4);
    let mut net = work.seeds(&[RATE * 10, RATE / 10]);
    let quick = net.nodes[1].id;
    let start = net.now;
    work.run(&mut net, &[ME], |net| {
        if net.nodes[ME].store.len() > work.wanted.len() / 2 {
            let now = net.now;
            net.nodes[ME].client.speaks(&quick, Speaks::Nothing, now);
        }
    });
    assert!(net.nodes[2].served > 0 && net.now > start);
}

/// How a seed dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    Leaves,
    FallsSilent,
}

#[test]
fn what_dying_seeds_owed_comes_from_the_others() {
    let deaths = [Death::Leaves, Death::FallsSilent];
    let cases = deaths.map(|death| [(MIB / 4, death), (MIB, death)]);
    for (chunk, death) in cases.into_iter().flatten() {
        let work = Work::new(512 * MIB, chunk);
        let mut net = work.seeds(&[RATE; 4]);
        let mut dead_at = None;
        let start = net.now;
        let took = work.run(&mut net, &[ME], |net| {
            if dead_at.is_none() && net.nodes[ME].store.len() >= work.wanted.len() / 2 {
                dead_at = Some(net.now);
                for seed in [1, 2] {
                    match death {
                        Death::Leaves => net.disconnect(seed),
                        Death::FallsSilent => net.fall_silent(seed),
                    }
                }
            }
        });
        let before = (dead_at.unwrap() - start).as_secs_f64();
        let could = RATE as f64 * (4.0 * before + 2.0 * (took.as_secs_f64() - before));
        let outcome = work.outcome(&net, took, could / took.as_secs_f64());
        assert!(outcome.share >= 0.95, "{outcome:?}");
        assert!(outcome.duplicates <= 0.005, "{outcome:?}");
    }
}

#[test]
fn a_seed_that_forges_costs_next_to_nothing() {
    let work = Work::new(512 * MIB, MIB / 4);
    let mut net = work.seeds(&[RATE; 5]);
    net.nodes[5].manner = Manner::Forger;
    let took = work.run(&mut net, &[ME], |_| {});
    work.outcome(&net, took, RATE as f64 * 4.0).is_good();
}

/// How long a fetch from one seed takes beside somebody who fetches the same from us alone.
fn fetch_beside(companion: Option<Manner>, rate: u64) -> Duration {
    const SEED: usize = 1;
    const COMPANION: usize = 2;
    let work = Work::new(128 * MIB, MIB / 4);
    let mut net = Net::new(COMPANION);
    net.weight = work.chunk / BLOCK_BYTES as u64;
    net.nodes[SEED].uplink.bytes_a_second = rate;
    net.give(SEED, &work.wanted);
    match companion {
        Some(manner) => {
            net.nodes[COMPANION].manner = manner;
            net.nodes[COMPANION].client.open(WORK, IDLE, net.now);
            for (cid, _) in &work.wanted {
                net.nodes[COMPANION].client.want(WORK, *cid, net.now);
            }
        }
        None => net.disconnect(COMPANION),
    }
    work.run(&mut net, &[ME], |_| {})
}

#[test]
fn a_companion_that_does_not_help_holds_nobody_up() {
    for rate in [RATE, FAST] {
        let alone = fetch_beside(None, rate);
        for manner in [Manner::Honest, Manner::Liar, Manner::Turncoat] {
            let took = fetch_beside(Some(manner), rate);
            println!("{manner:?}: {took:?} of {alone:?}");
            // Whoever says that it has what it does not send is waited for once.
            let most = alone * 6 / 5 + Duration::from_millis(1300);
            assert!(took <= most, "{manner:?}: {took:?} of {alone:?}");
        }
    }
}

/// How much of the work is wanted from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// As much as a pin has wanted at once.
    Ahead,
    AllAtOnce,
}

/// Fetches from seeds of these rates beside strangers that have nothing; says how many lines of want lists
/// the one of these heard that heard most.
fn fetch_beside_strangers(rates: &[u64], wanted: Wanted) -> usize {
    const STRANGERS: usize = 20;
    let work = Work::new(128 * MIB, MIB / 4);
    let all = [rates, &[RATE; STRANGERS]].concat();
    let mut net = work.seeds(&all);
    let strangers = 1 + rates.len()..;
    for stranger in &mut net.nodes[strangers.clone()] {
        stranger.store.clear();
    }
    if wanted == Wanted::AllAtOnce {
        net.want(&work.wanted);
    }
    work.run(&mut net, &[ME], |_| {});
    let heard = net.nodes[strangers].iter().map(|node| node.wants_heard);
    let most = heard.max().unwrap();
    println!("{rates:?}, {wanted:?}: {most} lines");
    most
}

#[test]
fn strangers_are_asked_for_the_first_block_and_now_and_then() {
    // A question and its end each.
    const LINES: usize = 2;
    // More and more seldom: that is for 24 s.
    const EXPLORED: usize = 6;
    for rates in [&[RATE][..], &[RATE; 4], &[RATE, RATE / 20]] {
        let heard = fetch_beside_strangers(rates, Wanted::Ahead);
        assert!(heard <= LINES * (1 + EXPLORED), "{heard}");
        // While nobody is known to have any, several are sought together.
        let heard = fetch_beside_strangers(rates, Wanted::AllAtOnce);
        assert!(heard <= LINES * (BROADCASTS_MAX + EXPLORED), "{heard}");
    }
}
