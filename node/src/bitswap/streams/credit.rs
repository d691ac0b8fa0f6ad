//! How much one peer may have us do for nothing: what its words cost, over time.
//!
//! Every line of a want list costs us a look into the store and an answer. A peer has credit for so
//! many a second, and some saved up. Whoever takes blocks gets more for each that it is sent than asking for it
//! cost, so an honest peer, however fast, is not held back; lines that lead to nothing (repeated,
//! cancelled, wanted of the wrong one, asked for the sake of asking) have to wait until they are paid
//! for. Nothing is dropped: the peer's words are not read meanwhile, so it waits with a full window.
//!
//! [`Balance`] decides, without a clock.

use prometheus::{Counter, IntCounter, Registry};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// One peer's.
#[derive(Debug)]
pub(in crate::bitswap) struct Credit {
    balance: Mutex<Balance>,
    /// Held by whoever is the next to be read: the others of the peer's streams wait behind it.
    turn: tokio::sync::Mutex<()>,
    better: Notify,
}

impl Credit {
    pub(super) fn new() -> Self {
        Self {
            balance: Mutex::new(Balance::new(Instant::now())),
            turn: tokio::sync::Mutex::new(()),
            better: Notify::new(),
        }
    }

    /// Words were read: so many lines, in one message.
    pub(super) fn charge(&self, lines: usize, holds: &Holds) {
        let lines = u64::try_from(lines).unwrap_or(u64::MAX);
        let cost = lines.saturating_add(MESSAGE_LINES);
        let unpaid = self.balance().take(cost, Instant::now());
        holds.lines.inc_by(unpaid.min(lines));
    }

    /// The peer was sent blocks.
    pub(in crate::bitswap) fn pay_back(&self, blocks: usize) {
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        let lines = blocks.saturating_mul(BLOCK_LINES);
        self.balance().give(lines, Instant::now());
        self.better.notify_waiters();
    }

    /// What a peer gets for its time, in percent of what one gets that gave us nothing.
    pub(in crate::bitswap) fn favour(&self, percent: u64) {
        self.balance().favour(percent, Instant::now());
    }

    /// Waits until what was read is paid for and the peer's turn has come; what is returned is given
    /// up when the next may have its turn.
    pub(super) async fn settled(&self, holds: &Holds) -> impl Sized {
        let turn = self.turn.lock().await;
        let mut hold = None;
        loop {
            // Listened for before the look: what is paid between the two ends the wait too.
            let better = self.better.notified();
            let owed = self.balance().owed(Instant::now());
            if owed.is_zero() {
                return turn;
            }
            hold.get_or_insert_with(|| holds.begin());
            drop(timeout(owed, better).await);
        }
    }

    fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is paid for, in the time that it takes a plain peer to earn it. Below zero it owes.
#[derive(Debug)]
struct Balance {
    nanos: i64,
    at: Instant,
    percent: u64,
}

impl Balance {
    fn new(now: Instant) -> Self {
        Self {
            nanos: nanos(LINES_AT_ONCE),
            at: now,
            percent: PERCENT_PLAIN,
        }
    }

    /// What was earned since the last look.
    fn earn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let earned = passed * u128::from(self.percent) / u128::from(PERCENT_PLAIN);
        self.at = now;
        self.add(i64::try_from(earned).unwrap_or(i64::MAX));
    }

    fn add(&mut self, earned: i64) {
        self.nanos = self.nanos.saturating_add(earned).min(nanos(LINES_AT_ONCE));
    }

    /// Takes so many lines; gives how many of them are not paid for.
    fn take(&mut self, lines: u64, now: Instant) -> u64 {
        self.earn(now);
        let paid = u64::try_from(self.nanos).unwrap_or(0) / LINE_NANOS;
        let left = self.nanos.saturating_sub(nanos(lines));
        self.nanos = left.max(-nanos(LINES_OWED_MAX));
        lines.saturating_sub(paid)
    }

    fn give(&mut self, lines: u64, now: Instant) {
        self.earn(now);
        self.add(nanos(lines));
    }

    fn favour(&mut self, percent: u64, now: Instant) {
        self.earn(now);
        self.percent = percent.max(1);
    }

    /// How long it takes until nothing is owed.
    fn owed(&mut self, now: Instant) -> Duration {
        self.earn(now);
        let owed = u128::from(self.nanos.min(0).unsigned_abs());
        let takes = (owed * u128::from(PERCENT_PLAIN)).div_ceil(u128::from(self.percent));
        Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX))
    }
}

fn nanos(lines: u64) -> i64 {
    i64::try_from(lines.saturating_mul(LINE_NANOS)).unwrap_or(i64::MAX)
}

/// What is counted of peers that are held back. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::bitswap) struct Holds {
    lines: IntCounter,
    holds: IntCounter,
    seconds: Counter,
}

impl Holds {
    pub(in crate::bitswap) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lines = IntCounter::new(
            "cairn_bitswap_lines_over_limit_total",
            "Lines of want lists beyond what a peer may say without being sent blocks",
        )?;
        let holds = IntCounter::new(
            "cairn_bitswap_peers_held_total",
            "Times that a peer's words were not read for a while, since it had said too many",
        )?;
        let seconds = Counter::new(
            "cairn_bitswap_peers_held_seconds_total",
            "How long, all peers together",
        )?;
        registry.register(Box::new(lines.clone()))?;
        registry.register(Box::new(holds.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            lines,
            holds,
            seconds,
        })
    }

    /// Counted, and never told.
    #[cfg(any(test, feature = "fuzzing"))]
    #[expect(clippy::unwrap_used, reason = "a new registry has none of these names")]
    pub(in crate::bitswap) fn unseen() -> Self {
        Self::register(&Registry::new()).unwrap()
    }

    /// Whether anybody was held.
    #[cfg(test)]
    pub(super) fn is_holding(&self) -> bool {
        self.holds.get() > 0
    }

    /// A peer is held from now on, for as long as what is returned lives.
    fn begin(&self) -> Hold<'_> {
        self.holds.inc();
        Hold {
            holds: self,
            since: Instant::now(),
        }
    }
}

struct Hold<'a> {
    holds: &'a Holds,
    since: Instant,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        self.holds.seconds.inc_by(held.as_secs_f64());
    }
}

/// Lines that a peer may say in a second and get nothing for. What they cost is a few hundredths of a
/// processor.
pub(in crate::bitswap) const LINES_A_SECOND: u64 = 8192;
const LINE_NANOS: u64 = 1_000_000_000 / LINES_A_SECOND;
/// How many of them it may save up: a few whole want lists, and what a fast fetch asks for until its
/// first blocks are sent. Whoever comes back under another name has as much again.
pub(in crate::bitswap) const LINES_AT_ONCE: u64 = 4 << 10;
/// What it can owe at most, so that it is read from again within seconds whatever it said: others
/// give up what is not read for ten.
const LINES_OWED_MAX: u64 = 4 * LINES_A_SECOND;
/// What a message costs beside its lines.
const MESSAGE_LINES: u64 = 4;
/// What a block that is sent pays for: that it was asked who has it, that it was wanted, and that others
/// are told that it is not any more.
const BLOCK_LINES: u64 = 4;
const PERCENT_PLAIN: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(lines: u64) -> Duration {
        Duration::from_nanos(lines * LINE_NANOS)
    }

    #[test]
    fn what_was_saved_up_is_spent_then_the_rest_takes_its_time() {
        let start = Instant::now();
        let mut balance = Balance::new(start);
        assert_eq!(balance.take(LINES_AT_ONCE, start), 0);
        assert_eq!(balance.owed(start), Duration::ZERO);
        assert_eq!(balance.take(1000, start), 1000);
        assert_eq!(balance.owed(start), seconds(1000));
        assert_eq!(balance.owed(start + seconds(400)), seconds(600));
        assert_eq!(balance.owed(start + seconds(1000)), Duration::ZERO);
        // Nothing beyond the bound is saved up, however long nobody speaks.
        let later = start + Duration::from_secs(3600);
        assert_eq!(balance.take(LINES_AT_ONCE + 5, later), 5);
    }

    #[test]
    fn whoever_takes_a_block_for_every_line_never_owes_anything() {
        let start = Instant::now();
        let mut balance = Balance::new(start);
        // A hundred whole lists in no time at all.
        for _ in 0..100 {
            assert_eq!(balance.take(1024 + MESSAGE_LINES, start), 0);
            balance.give(1024 * BLOCK_LINES, start);
        }
        assert_eq!(balance.owed(start), Duration::ZERO);
        // Nor is that a store of credit.
        assert_eq!(balance.take(LINES_AT_ONCE + 7, start), 7);
    }

    #[test]
    fn who_gave_much_has_more_and_nobody_owes_more_than_seconds() {
        let start = Instant::now();
        let mut balance = Balance::new(start);
        balance.take(u64::MAX, start);
        assert_eq!(balance.owed(start), seconds(LINES_OWED_MAX));
        balance.favour(4 * PERCENT_PLAIN, start);
        assert_eq!(balance.owed(start), seconds(LINES_OWED_MAX) / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_that_are_sent_end_the_wait_at_once() {
        let at_once = usize::try_from(LINES_AT_ONCE).unwrap();
        let (credit, holds) = (Credit::new(), Holds::unseen());
        credit.charge(2 * at_once, &holds);
        let start = Instant::now();
        let settle = async {
            let _turn = credit.settled(&holds).await;
            start.elapsed()
        };
        let pay = async {
            tokio::task::yield_now().await;
            credit.pay_back(at_once);
        };
        let (took, ()) = tokio::join!(settle, pay);
        assert_eq!(took, Duration::ZERO);
        assert_eq!(
            (holds.lines.get(), holds.holds.get()),
            (LINES_AT_ONCE + MESSAGE_LINES, 1)
        );
        // Without them it takes its time, which is told.
        credit.charge(2 * at_once, &holds);
        drop(credit.settled(&holds).await);
        assert!(start.elapsed() >= seconds(LINES_AT_ONCE));
        assert!(holds.seconds.get() >= seconds(LINES_AT_ONCE).as_secs_f64());
    }

    proptest! {
        #[test]
        fn never_more_lines_than_the_rate_the_start_and_one_message(
            lists in prop::collection::vec((1_u64..5000, 0_u64..300), 1..200)
        ) {
            let start = Instant::now();
            let (mut balance, mut now, mut said) = (Balance::new(start), start, 0);
            for (lines, millis) in lists {
                now += Duration::from_millis(millis);
                now += balance.owed(now);
                said += lines;
                balance.take(lines, now);
                let earned = u64::try_from((now - start).as_nanos()).unwrap() / LINE_NANOS;
                prop_assert!(said <= LINES_AT_ONCE + earned + lines + 1);
            }
        }
    }
}
