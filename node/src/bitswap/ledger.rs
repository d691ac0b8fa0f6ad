//! What we know of one peer from dealing with it: how much it may be asked for at once, and
//! whether it deserves to be asked at all.
//!
//! The window is in bytes, since only bytes fill a link, and it follows delay: while blocks come
//! soon after they were asked for it grows by what came, and when they come late it shrinks by
//! half of that. So a fast peer is filled to [`WINDOW_BYTES_MAX`] within a few round trips, and a
//! slow one never holds more than about [`DELAY_TARGET`] of its own work.

use std::time::Duration;

/// One peer's record since it connected.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    window_bytes: u64,
    block_bytes: u64,
    delay: Duration,
    /// What it sent lately, and seconds that it took for that while it owed some.
    sent_bytes: f64,
    sending_seconds: f64,
    proven: bool,
    /// How often it failed since it last delivered.
    failures: u32,
    /// Blocks that nobody ever asked for, or bytes that cannot be a block.
    wrong: u32,
    wanted_bytes: u64,
    unwanted_bytes: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            window_bytes: WINDOW_BYTES_START,
            block_bytes: BLOCK_BYTES_GUESS,
            delay: DELAY_GUESS,
            sent_bytes: 0.0,
            sending_seconds: 0.0,
            proven: false,
            failures: 0,
            wrong: 0,
            wanted_bytes: 0,
            unwanted_bytes: 0,
        }
    }
}

impl Ledger {
    /// How many blocks the peer may be asked for at once.
    pub(super) fn window(&self) -> usize {
        if !self.proven {
            return match self.failures {
                0 => UNPROVEN_WANTS,
                _ => FAILED_WANTS,
            };
        }
        usize::try_from(self.window_bytes / self.block_bytes.max(1))
            .unwrap_or(WANTS_AT_PEER_MAX)
            .clamp(PROVEN_WANTS_MIN, WANTS_AT_PEER_MAX)
    }

    /// Whether it has delivered, and not failed since.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether it failed, and has not delivered since.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Whether bytes that come from it are worth waiting for what they may become.
    pub(super) fn is_believed(&self) -> bool {
        self.failures < FAILURES_MAX
    }

    /// How large its blocks are, lately.
    pub(super) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// What came of it that we had asked for.
    pub(super) fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// How long its blocks take, lately.
    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    /// The time from one of its blocks to the next while it owes some, lately.
    pub(super) fn pace(&self) -> Duration {
        if self.sent_bytes <= 0.0 {
            return Duration::ZERO;
        }
        let blocks = self.block_bytes as f64 / self.sent_bytes;
        let pace = Duration::try_from_secs_f64(self.sending_seconds * blocks);
        pace.unwrap_or(PACE_MAX).min(PACE_MAX)
    }

    /// A block that we asked for came `delay` after the question, and `pause` after the one before.
    pub(super) fn delivered(&mut self, bytes: u64, delay: Duration, pause: Duration) {
        // A root is much smaller than what is below it.
        self.block_bytes = ((self.block_bytes * 7 + bytes) / 8).max(BLOCK_BYTES_FLOOR);
        self.delay = if self.proven {
            (self.delay * 7 + delay) / 8
        } else {
            delay
        };
        self.sent_bytes = self.sent_bytes * LATELY + bytes as f64;
        self.sending_seconds = self.sending_seconds * LATELY + pause.as_secs_f64();
        self.proven = true;
        self.failures = 0;
        self.wanted_bytes += bytes;
        if delay <= DELAY_TARGET {
            self.window_bytes = (self.window_bytes + bytes).min(WINDOW_BYTES_MAX);
        } else {
            self.window_bytes = self
                .window_bytes
                .saturating_sub(bytes / 2)
                .max(WINDOW_BYTES_MIN);
        }
    }

    /// It did not do what it promised: it starts again from the beginning.
    pub(super) fn failed(&mut self) {
        self.proven = false;
        (self.sent_bytes, self.sending_seconds) = (0.0, 0.0);
        self.failures = self.failures.saturating_add(1);
        self.window_bytes = WINDOW_BYTES_START;
    }

    /// How long it is to be left alone after it failed, if others have the same: longer each time.
    pub(super) fn rest(&self) -> Duration {
        REST * (1 << self.failures.min(REST_DOUBLINGS_MAX))
    }

    /// From now on nothing but a whole block of it counts.
    pub(super) fn disbelieve(&mut self) {
        self.failures = self.failures.max(FAILURES_MAX);
    }

    /// Something came that nobody ever asked for.
    pub(super) fn wrong(&mut self) {
        self.wrong = self.wrong.saturating_add(1);
        self.failed();
    }

    /// Bytes came that were of no use (any more).
    pub(super) fn unwanted(&mut self, bytes: u64) {
        self.unwanted_bytes = self.unwanted_bytes.saturating_add(bytes);
    }

    /// Whether we are done with this peer.
    pub(super) fn is_hopeless(&self) -> bool {
        self.wrong >= WRONG_BLOCKS_MAX
            || self.unwanted_bytes
                > UNWANTED_BYTES_MAX.saturating_add(self.wanted_bytes.saturating_mul(2))
    }
}

/// Where a peer starts once it has delivered one block.
const WINDOW_BYTES_START: u64 = 4 << 20;
const WINDOW_BYTES_MIN: u64 = 256 << 10;
/// Enough for 600 MB/s over 100 ms.
const WINDOW_BYTES_MAX: u64 = 64 << 20;
const BLOCK_BYTES_GUESS: u64 = 256 << 10;
const BLOCK_BYTES_FLOOR: u64 = 256;
const DELAY_GUESS: Duration = Duration::from_millis(500);
/// What is left of the weight of a block when the next comes. Several come in one message.
const LATELY: f64 = 15.0 / 16.0;
/// What is slower than that is as slow.
const PACE_MAX: Duration = Duration::from_secs(3600);
/// A peer that takes longer than this for a block has been asked for too much.
const DELAY_TARGET: Duration = Duration::from_secs(1);
/// Wants at a peer that has delivered nothing yet.
const UNPROVEN_WANTS: usize = 2;
/// The same once it failed.
const FAILED_WANTS: usize = 1;
/// Failures in a row until nothing but a whole block counts.
const FAILURES_MAX: u32 = 3;
/// Half of the rest after one failure.
const REST: Duration = Duration::from_secs(2);
/// And so many times doubled at most: 64 seconds.
const REST_DOUBLINGS_MAX: u32 = 5;
const PROVEN_WANTS_MIN: usize = 2;
/// Others cut our list at 1,024; some room is left for want-haves.
pub(super) const WANTS_AT_PEER_MAX: usize = 960;
/// Wrong blocks until a peer is left.
const WRONG_BLOCKS_MAX: u32 = 16;
/// Unwanted bytes until a peer is left, beside twice what it delivered: what was asked of several
/// peers, or was under way when it was cancelled, is unwanted too.
const UNWANTED_BYTES_MAX: u64 = 2 * WINDOW_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_peer_is_filled_and_a_slow_one_is_not() {
        let (mut quick, mut slow) = (Ledger::default(), Ledger::default());
        assert_eq!(quick.window(), UNPROVEN_WANTS);
        for _ in 0..1000 {
            quick.delivered(256 << 10, Duration::from_millis(80), Duration::ZERO);
            slow.delivered(256 << 10, Duration::from_secs(3), Duration::ZERO);
        }
        assert_eq!(quick.window(), 256);
        assert_eq!(slow.window(), PROVEN_WANTS_MIN);
        quick.failed();
        assert_eq!(quick.window(), FAILED_WANTS);
        assert!(quick.has_failed() && quick.is_believed());
        quick.failed();
        quick.failed();
        assert!(!quick.is_believed());
        quick.delivered(256 << 10, Duration::from_millis(80), Duration::ZERO);
        assert!(quick.is_believed() && !quick.has_failed());
    }

    #[test]
    fn a_peer_is_left_after_so_many_wrong_blocks_or_unwanted_bytes() {
        let (mut liar, mut flooder) = (Ledger::default(), Ledger::default());
        for _ in 1..WRONG_BLOCKS_MAX {
            liar.wrong();
        }
        assert!(!liar.is_hopeless());
        liar.wrong();
        assert!(liar.is_hopeless());
        flooder.unwanted(UNWANTED_BYTES_MAX);
        assert!(!flooder.is_hopeless());
        flooder.unwanted(1);
        assert!(flooder.is_hopeless());
        flooder.delivered(1, Duration::ZERO, Duration::ZERO);
        assert!(!flooder.is_hopeless());
    }
}
