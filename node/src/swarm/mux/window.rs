//! How much may come: the receive windows of one connection, and of all of them together.
//!
//! The protocol promises every stream 256 KiB from the start. What is beyond that is taken from two
//! budgets, the connection's and everybody's, while a stream proves that it needs it: it used up
//! half of its window within a few round trips. What a stream was given goes back when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shares {
    /// Bytes by which windows may still grow.
    growth: AtomicUsize,
    /// Bytes received and not yet read.
    unread: AtomicUsize,
    unread_max: usize,
    /// Streams that peers opened and that are not over.
    streams: AtomicUsize,
    streams_max: usize,
}

impl Shares {
    pub(super) fn new(growth: usize, unread_max: usize, streams_max: usize) -> Arc<Self> {
        Arc::new(Self {
            growth: AtomicUsize::new(growth),
            unread: AtomicUsize::new(0),
            unread_max,
            streams: AtomicUsize::new(0),
            streams_max,
        })
    }

    /// Takes up to `wanted` bytes of growth.
    fn take_growth(&self, wanted: usize) -> usize {
        let take = |left: usize| Some(left.saturating_sub(wanted));
        match self
            .growth
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(left) | Err(left) => left.min(wanted),
        }
    }

    fn give_growth(&self, bytes: usize) {
        self.growth.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: usize) {
        self.unread.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether more lies unread than all connections together may hold.
    pub(super) fn is_full(&self) -> bool {
        self.unread.load(Ordering::Relaxed) >= self.unread_max
    }

    /// Whether one more stream is taken from a peer that has `own` already.
    pub(super) fn admit(&self, own: usize) -> bool {
        let before = self.streams.fetch_add(1, Ordering::Relaxed);
        let admitted = before < self.streams_max || own < SURE_STREAMS;
        if !admitted {
            self.left(1);
        }
        admitted
    }

    pub(super) fn left(&self, streams: usize) {
        self.streams.fetch_sub(streams, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn in_use(&self) -> (usize, usize) {
        let load = |value: &AtomicUsize| value.load(Ordering::Relaxed);
        (load(&self.unread), load(&self.streams))
    }

    #[cfg(test)]
    pub(super) fn growth_left(&self) -> usize {
        self.growth.load(Ordering::Relaxed)
    }
}

/// What one connection's windows may grow by, out of what all may.
#[derive(Debug)]
pub(super) struct Budget {
    shares: Arc<Shares>,
    left: usize,
}

impl Budget {
    pub(super) fn new(shares: Arc<Shares>, bytes: usize) -> Self {
        Self {
            shares,
            left: bytes,
        }
    }

    fn take(&mut self, wanted: usize) -> usize {
        let taken = self.shares.take_growth(wanted.min(self.left));
        self.left -= taken;
        taken
    }

    fn give(&mut self, bytes: usize) {
        self.shares.give_growth(bytes);
        self.left += bytes;
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }
}

/// The receive window of one stream.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    /// What the peer may send now.
    credit: usize,
    /// What came, or was announced, and was not read.
    unread: usize,
    granted_at: Option<Duration>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            size: WINDOW_BYTES_START,
            credit: WINDOW_BYTES_START,
            unread: 0,
            granted_at: None,
        }
    }

    /// Bytes came; false if the peer was not allowed to send them.
    pub(super) fn received(&mut self, bytes: usize) -> bool {
        match self.credit.checked_sub(bytes) {
            Some(left) => {
                self.credit = left;
                self.unread += bytes;
                true
            }
            None => false,
        }
    }

    /// Bytes were read. What the peer is to be allowed beyond what it knows, if it is worth a
    /// message: at least half of a window.
    pub(super) fn read(
        &mut self,
        bytes: usize,
        now: Duration,
        round_trip: Option<Duration>,
        budget: &mut Budget,
    ) -> Option<u32> {
        self.unread = self.unread.saturating_sub(bytes);
        if self.grant() < self.size / 2 {
            return None;
        }
        let quick = |at: Duration| {
            round_trip.is_some_and(|trip| now.saturating_sub(at) < trip * QUICK_ROUND_TRIPS)
        };
        if self.granted_at.is_some_and(quick) {
            let wanted = self.size.min(WINDOW_BYTES_MAX.saturating_sub(self.size));
            self.size += budget.take(wanted);
        }
        self.granted_at = Some(now);
        let grant = self.grant();
        self.credit += grant;
        u32::try_from(grant).ok()
    }

    /// What the window has room for, beyond what the peer knows of.
    fn grant(&self) -> usize {
        self.size.saturating_sub(self.credit + self.unread)
    }

    /// The stream is over: what its window grew by is others' again.
    pub(super) fn end(&mut self, budget: &mut Budget) {
        budget.give(self.size - WINDOW_BYTES_START);
        self.size = WINDOW_BYTES_START;
    }
}

/// What every stream starts with, both ways; the protocol fixes it.
pub(super) const WINDOW_BYTES_START: usize = 256 << 10;
/// The most that one stream's receive window grows to. Beyond it a stream gains nothing: 80 MB/s
/// at 200 ms.
pub const WINDOW_BYTES_MAX: usize = 16 << 20;
/// Half of a window within so many round trips: the window is what holds the peer up.
const QUICK_ROUND_TRIPS: u32 = 4;
/// Streams that a peer may have open however many others have.
const SURE_STREAMS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_grows_while_it_is_used_up_quickly_and_gives_back_what_it_had() {
        let shares = Shares::new(64 << 20, 0, 0);
        let mut budget = Budget::new(Arc::clone(&shares), 32 << 20);
        let (mut window, mut now) = (Window::new(), Duration::ZERO);
        let mut known = WINDOW_BYTES_START;
        for _ in 0..40 {
            assert!(window.received(known));
            now += 50 * MS;
            let grant = window.read(known, now, Some(50 * MS), &mut budget).unwrap();
            known = usize::try_from(grant).unwrap();
        }
        assert_eq!(known, WINDOW_BYTES_MAX);
        assert_eq!(
            shares.growth_left(),
            (64 << 20) + WINDOW_BYTES_START - WINDOW_BYTES_MAX
        );
        assert!(!window.received(known + 1), "more than was allowed");
        window.end(&mut budget);
        assert_eq!(shares.growth_left(), 64 << 20);
    }

    #[test]
    fn a_window_that_is_used_slowly_stays_as_it_is() {
        let shares = Shares::new(64 << 20, 0, 0);
        let mut budget = Budget::new(shares, 32 << 20);
        let (mut window, mut now) = (Window::new(), Duration::ZERO);
        for _ in 0..40 {
            assert!(window.received(WINDOW_BYTES_START));
            now += 500 * MS;
            let grant = window.read(WINDOW_BYTES_START, now, Some(50 * MS), &mut budget);
            assert_eq!(grant, Some(256 << 10));
        }
    }

    #[test]
    fn no_more_is_allowed_than_has_room() {
        let mut budget = Budget::new(Shares::new(0, 0, 0), 32 << 20);
        let mut window = Window::new();
        assert!(window.received(200 << 10));
        assert_eq!(window.read(100 << 10, MS, None, &mut budget), None);
        assert_eq!(
            window.read(50 << 10, MS, None, &mut budget),
            Some(150 << 10)
        );
        // 50 KiB lie unread, 206 KiB may come.
        assert!(window.received(206 << 10));
        assert!(!window.received(1));
    }

    #[test]
    fn a_peer_is_sure_of_a_few_streams_and_no_more_once_all_are_taken() {
        let shares = Shares::new(0, 0, 100);
        assert!((0..100).all(|own| shares.admit(own)));
        assert!(!shares.admit(SURE_STREAMS));
        assert!(shares.admit(SURE_STREAMS - 1));
        shares.left(2);
        assert!(shares.admit(SURE_STREAMS));
    }
}
