//! How slowly the bytes of a message may come or go before it is given up.

use std::time::Duration;
use tokio::time::Instant;

/// Whether enough of a message moves: so many bytes in every stretch of time, whatever the whole is.
pub(super) struct Pace {
    stretch: Duration,
    until: Instant,
    moved: u64,
}

impl Pace {
    /// Looks at one stretch of time after the other, from now on.
    pub(super) fn new(stretch: Duration) -> Self {
        Self {
            stretch,
            until: Instant::now() + stretch,
            moved: 0,
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
        let least = self.stretch.as_millis() * u128::from(slowest) / 1000;
        let enough = u128::from(self.moved) >= least.max(1);
        self.begin();
        enough
    }
}

/// The longest pause inside a message, and how long it is looked at.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(30);
/// The least rate of a message while the room that it takes is wanted by others.
pub(super) const CROWDED_BYTES_A_SECOND: u64 = 16 << 10;
