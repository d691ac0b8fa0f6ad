//! How slowly the bytes of a message may come or go before it is given up.

use std::time::Duration;
use tokio::time::Instant;

/// Whether enough of a message moves: so many bytes in every stretch of time, whatever the whole is.
pub(super) struct Pace {
    stretch: Duration,
    until: Instant,
    moved: u64,
    /// Stretches in which too little moved.
    slow: u32,
}

impl Pace {
    /// Looks at one stretch of time after the other, from now on.
    pub(super) fn new(stretch: Duration) -> Self {
        Self {
            stretch,
            until: Instant::now() + stretch,
            moved: 0,
            slow: 0,
        }
    }

    /// When this stretch is over.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// These came, or went.
    pub(super) const fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// So long we held it back ourselves.
    pub(super) fn held(&mut self, time: Duration) {
        self.until += time;
    }

    /// It was held back by us in a way that cannot be told apart: another stretch begins.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.stretch);
    }

    /// The stretch is over; another begins if enough moved for a rate of `slowest` bytes a second.
    pub(super) fn goes_on(&mut self, slowest: u64) -> bool {
        self.goes_on_in_lumps(slowest, 0)
    }

    /// The same where much moves at once and nothing for a while: up to so many stretches more are looked at
    /// together.
    pub(super) fn goes_on_in_lumps(&mut self, slowest: u64, more: u32) -> bool {
        let time = self.stretch * (self.slow + 1);
        let least = time.as_millis() * u128::from(slowest) / 1000;
        if u128::from(self.moved) >= least.max(1) {
            self.begin();
            return true;
        }
        self.slow += 1;
        self.until = Instant::now() + self.stretch;
        self.slow <= more
    }
}

/// The longest pause inside a message, and how long it is looked at.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(30);
/// The least rate of a message while the room that it takes is wanted by others.
pub(super) const CROWDED_BYTES_A_SECOND: u64 = 16 << 10;
/// A peer lets more be written in lumps, a muxer's half of a window at least: 128 KiB, which are two minutes at the
/// slowest rate.
pub(super) const LUMPS_STRETCHES: u32 = 4;
