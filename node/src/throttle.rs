//! The brake: who may pass how many bytes now, and who waits. Whatever carries blocks asks here.
//!
//! One [`Throttle`] holds what all share; each peer has a [`Gate`] of it. Bytes pass in pieces. A
//! gate lets one piece each way be on the wait at a time, whichever of the peer's streams it is of,
//! and those who wait are let through in the order of coming: so peers share a limit equally, however
//! many streams they open. What is received is paid for after it was read and before more is: the
//! sender is slowed by its own full window.
//!
//! [`Bucket`] decides, without a clock. Limits may change while others wait: they start anew.

use crate::limits::{Limits, Rate};
use prometheus::{CounterVec, IntGaugeVec, Opts, Registry};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a peer to us.
    In,
    /// From us to a peer.
    Out,
}

/// Whether bytes wait behind others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Blocks: their turn comes.
    Bulk,
    /// Words, which are few and for which others wait. They may borrow [`WORDS_CREDIT`] from what
    /// comes after them.
    Words,
}

/// What all peers share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: watch::Sender<Arc<Limits>>,
    totals: Both<Mutex<Bucket>>,
    /// Whether any limit holds, so that where none does nothing is looked up.
    limited: Both<AtomicBool>,
    seconds: CounterVec,
    caps: IntGaugeVec,
}

/// One for each way.
#[derive(Debug, Default)]
struct Both<T> {
    inward: T,
    outward: T,
}

impl<T> Both<T> {
    const fn of(&self, way: Way) -> &T {
        match way {
            Way::In => &self.inward,
            Way::Out => &self.outward,
        }
    }
}

impl Throttle {
    /// With `limits` until they are changed. Metrics go to `registry`.
    pub(crate) fn new(limits: Limits, registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = CounterVec::new(
            Opts::new(
                "cairn_limits_throttled_seconds_total",
                "Time that peers were held back by the limits, all peers together",
            ),
            &["direction"],
        )?;
        let caps = IntGaugeVec::new(
            Opts::new(
                "cairn_limits_bytes_per_second",
                "The limits as configured; 0 for none",
            ),
            &["direction", "scope"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(caps.clone()))?;
        for way in [Way::In, Way::Out] {
            // From the beginning, so that nobody wonders whether it is there.
            seconds.with_label_values(&[way.label()]);
        }
        let throttle = Self {
            shared: Arc::new(Shared {
                limits: watch::Sender::new(Arc::new(Limits::default())),
                totals: Both::default(),
                limited: Both::default(),
                seconds,
                caps,
            }),
        };
        throttle.set(limits);
        Ok(throttle)
    }

    /// Other limits from now on, also for those who wait.
    pub(crate) fn set(&self, limits: Limits) {
        for way in [Way::In, Way::Out] {
            let (total, own) = (way.total(&limits), way.per_peer(&limits));
            let limited = total != Rate::UNLIMITED || own != Rate::UNLIMITED;
            self.shared
                .limited
                .of(way)
                .store(limited, Ordering::Relaxed);
            for (scope, rate) in [("total", total), ("peer", own)] {
                let rate = rate.bytes_a_second().map_or(0, NonZeroU64::get);
                let gauge = self.shared.caps.with_label_values(&[way.label(), scope]);
                gauge.set(i64::try_from(rate).unwrap_or(i64::MAX));
            }
        }
        self.shared.limits.send_replace(Arc::new(limits));
    }

    /// A peer's way through. Until it is said where the peer is, it counts as far away.
    pub(crate) fn gate(&self) -> Gate {
        Gate {
            shared: Arc::clone(&self.shared),
            remotes: Mutex::default(),
            sides: Both::default(),
            share: AtomicU64::new(SHARE_PLAIN),
        }
    }
}

impl Way {
    const fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    const fn total(self, limits: &Limits) -> Rate {
        match self {
            Self::In => limits.download,
            Self::Out => limits.upload,
        }
    }

    const fn per_peer(self, limits: &Limits) -> Rate {
        match self {
            Self::In => limits.download_per_peer,
            Self::Out => limits.upload_per_peer,
        }
    }
}

/// One peer's way through.
#[derive(Debug)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
    /// The other end of each connection, as far as known.
    remotes: Mutex<Vec<Option<IpAddr>>>,
    sides: Both<Side>,
    /// How long the peer's pieces are on the way out, in percent of the plain length.
    share: AtomicU64,
}

#[derive(Debug, Default)]
struct Side {
    /// Whose piece is on the wait.
    turn: tokio::sync::Mutex<()>,
    bucket: Mutex<Bucket>,
    waiting: AtomicUsize,
    waits: AtomicU64,
}

impl Gate {
    /// Where the peer is now: one entry for each connection. It is exempt if all of them are, since
    /// any of them may be used.
    pub(crate) fn reached_at(&self, remotes: impl IntoIterator<Item = Option<IpAddr>>) {
        *lock(&self.remotes) = remotes.into_iter().collect();
    }

    /// What the peer gets of a limit on the way out, in percent of what a plain one gets.
    pub(crate) fn favour(&self, percent: u64) {
        self.share.store(percent, Ordering::Relaxed);
    }

    /// Whether bytes pass freely now.
    pub(crate) fn is_open(&self, way: Way) -> bool {
        if !self.shared.limited.of(way).load(Ordering::Relaxed) {
            return true;
        }
        let limits = Arc::clone(&self.shared.limits.borrow());
        self.is_exempt(&limits)
    }

    fn is_exempt(&self, limits: &Limits) -> bool {
        let remotes = lock(&self.remotes);
        !remotes.is_empty() && !remotes.iter().any(|remote| limits.apply_to(*remote))
    }

    /// How many of `bytes` are worth reading before they are paid for.
    pub(crate) fn piece(&self, way: Way, bytes: usize) -> usize {
        if self.is_open(way) {
            return bytes;
        }
        bytes.min(PIECE_BYTES_MAX)
    }

    /// Waits until some of `bytes` may pass; gives how many, at least one if there is one.
    pub(crate) async fn pass(&self, way: Way, bytes: usize, haste: Haste) -> usize {
        if bytes == 0 || self.is_open(way) {
            return bytes;
        }
        let side = self.sides.of(way);
        let _waiting = Waiting::begin(self, way);
        // Words do not stand behind the peer's blocks.
        let _turn = match haste {
            Haste::Bulk => Some(side.turn.lock().await),
            Haste::Words => None,
        };
        let limits = Arc::clone(&self.shared.limits.borrow());
        let most = piece_bytes(&limits, way, self.share.load(Ordering::Relaxed));
        let piece = bytes.min(most);
        // The narrower gate first: who waits at it must not hold a place at the wide one.
        self.wait(&side.bucket, Way::per_peer, way, piece, haste)
            .await;
        let total = self.shared.totals.of(way);
        self.wait(total, Way::total, way, piece, haste).await;
        piece
    }

    /// Waits until all `bytes` are paid for.
    pub(crate) async fn pay(&self, way: Way, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            left -= self.pass(way, left, Haste::Bulk).await;
        }
    }

    async fn wait(
        &self,
        bucket: &Mutex<Bucket>,
        limit: fn(Way, &Limits) -> Rate,
        way: Way,
        bytes: usize,
        haste: Haste,
    ) {
        let mut changes = self.shared.limits.subscribe();
        loop {
            let limits = Arc::clone(&changes.borrow_and_update());
            let rate = limit(way, &limits);
            let Some(bytes_a_second) = rate.bytes_a_second() else {
                return;
            };
            if self.is_exempt(&limits) {
                return;
            }
            let now = Instant::now();
            let delay = lock(bucket).take(bytes, bytes_a_second, haste, now.into_std());
            if delay.is_zero() {
                return;
            }
            // What was taken at this rate stays taken while the rate stays.
            let other = |limits: &Arc<Limits>| limit(way, limits) != rate || self.is_exempt(limits);
            let changed = async { changes.wait_for(other).await.is_ok() };
            tokio::select! {
                () = sleep_until(now + delay) => return,
                true = changed => {}
            }
        }
    }

    /// Whether somebody was held back since `mark` was set, which it is again. A peer that we slow
    /// down is not slow.
    pub(crate) fn held_since(&self, way: Way, mark: &mut u64) -> bool {
        let side = self.sides.of(way);
        let waits = side.waits.load(Ordering::Relaxed);
        let before = std::mem::replace(mark, waits);
        waits != before || side.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Somebody who waits, and then did.
struct Waiting<'a> {
    gate: &'a Gate,
    way: Way,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn begin(gate: &'a Gate, way: Way) -> Self {
        gate.sides.of(way).waiting.fetch_add(1, Ordering::Relaxed);
        Self {
            gate,
            way,
            since: Instant::now(),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let side = self.gate.sides.of(self.way);
        side.waiting.fetch_sub(1, Ordering::Relaxed);
        let waited = self.since.elapsed();
        if waited >= WAIT_COUNTED_MIN {
            side.waits.fetch_add(1, Ordering::Relaxed);
            self.gate
                .shared
                .seconds
                .with_label_values(&[self.way.label()])
                .inc_by(waited.as_secs_f64());
        }
    }
}

/// Tokens that come at a rate, of which there are never more than [`BURST`] is worth.
///
/// Kept as the time by which all that was taken is paid for. So whoever takes too much makes those
/// wait who come after it, and a piece larger than the bucket passes like any other.
#[derive(Debug, Default)]
struct Bucket {
    rate: Option<NonZeroU64>,
    paid_at: Option<std::time::Instant>,
}

impl Bucket {
    /// Takes tokens for `bytes`, and gives how long to wait for them. A new rate starts anew.
    fn take(
        &mut self,
        bytes: usize,
        bytes_a_second: NonZeroU64,
        haste: Haste,
        now: std::time::Instant,
    ) -> Duration {
        if self.rate != Some(bytes_a_second) {
            self.rate = Some(bytes_a_second);
            self.paid_at = None;
        }
        let paid_at = self.paid_at.map_or(now, |at| at.max(now));
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(bytes_a_second.get());
        let costs = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at = Some(paid_at + costs);
        let credit = match haste {
            Haste::Bulk => BURST,
            Haste::Words => BURST + WORDS_CREDIT,
        };
        (paid_at - now).saturating_sub(credit)
    }
}

/// How many bytes one turn is worth: so many that a second has [`TURNS_A_SECOND`] of them.
fn piece_bytes(limits: &Limits, way: Way, share: u64) -> usize {
    let rates = [way.total(limits), way.per_peer(limits)];
    let slowest = rates.iter().filter_map(|rate| rate.bytes_a_second()).min();
    let turn = slowest.map_or(u64::MAX, |rate| rate.get() / TURNS_A_SECOND);
    let plain = turn.clamp(PIECE_BYTES_MIN as u64, PIECE_BYTES_MAX as u64);
    let share = match way {
        Way::In => SHARE_PLAIN,
        Way::Out => share,
    };
    usize::try_from(plain * share / SHARE_PLAIN).unwrap_or(PIECE_BYTES_MAX)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may pass at once after a pause; long enough that a late timer costs nothing.
const BURST: Duration = Duration::from_millis(100);
/// How far words may run ahead of their turn.
const WORDS_CREDIT: Duration = Duration::from_secs(1);
/// Turns that a second has, among all who wait.
const TURNS_A_SECOND: u64 = 64;
/// Below this the overhead of a write is larger than what is written.
const PIECE_BYTES_MIN: usize = 1 << 10;
/// Above this one peer's turn is noticed by others.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// The share of a peer that nobody favours, in percent.
const SHARE_PLAIN: u64 = 100;
/// Shorter ones are no waits.
const WAIT_COUNTED_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{join_all, select};
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::pin::pin;

    fn limits(upload: &str) -> Limits {
        Limits {
            upload: upload.parse().unwrap(),
            ..Limits::default()
        }
    }

    fn throttle(limits: Limits) -> Throttle {
        Throttle::new(limits, &Registry::new()).unwrap()
    }

    /// Sends through `gate` for ever.
    async fn send(gate: &Gate, sent: &Cell<usize>) {
        loop {
            let passed = gate.pass(Way::Out, 100_000, Haste::Bulk).await;
            sent.set(sent.get() + passed);
        }
    }

    /// Lets all of them send for so long; gives what each sent.
    async fn sent_within(time: Duration, gates: &[&Gate]) -> Vec<usize> {
        let sent: Vec<Cell<usize>> = gates.iter().map(|_| Cell::new(0)).collect();
        let all = join_all(gates.iter().zip(&sent).map(|(gate, sent)| send(gate, sent)));
        select(pin!(all), pin!(tokio::time::sleep(time))).await;
        sent.iter().map(Cell::get).collect()
    }

    fn within(value: usize, of: usize, percent: usize) -> bool {
        value.abs_diff(of) * 100 <= of * percent
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn peers_share_a_limit_equally_however_many_streams_they_have() {
        let throttle = throttle(limits("1MB"));
        let (one, many) = (throttle.gate(), throttle.gate());
        let mut gates = vec![&many; 8];
        gates.push(&one);
        let sent = sent_within(MINUTE, &gates).await;
        let (by_one, by_many) = (sent[8], sent[..8].iter().sum());
        assert!(within(by_one + by_many, 60_000_000, 2), "{sent:?}");
        assert!(within(by_one, by_many, 2), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_favoured_peer_gets_so_much_more() {
        let throttle = throttle(limits("1MB"));
        let (plain, favoured) = (throttle.gate(), throttle.gate());
        favoured.favour(400);
        let sent = sent_within(MINUTE, &[&plain, &favoured]).await;
        assert!(within(sent[1], 4 * sent[0], 5), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_peers_limit_is_not_that_of_all() {
        let mut both = limits("1MB");
        both.upload_per_peer = "100KB".parse().unwrap();
        let throttle = throttle(both);
        let gates: Vec<Gate> = (0..20).map(|_| throttle.gate()).collect();
        let alone = sent_within(MINUTE, &[&gates[0]]).await;
        assert!(within(alone[0], 6_000_000, 2), "{alone:?}");
        let sent = sent_within(MINUTE, &gates.iter().collect::<Vec<_>>()).await;
        assert!(within(sent.iter().sum(), 60_000_000, 2), "{sent:?}");
        assert!(
            sent.iter().all(|one| within(*one, 3_000_000, 5)),
            "{sent:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_near_passes_freely_if_all_its_connections_are_near() {
        let throttle = throttle(limits("1KB"));
        let gate = throttle.gate();
        assert!(!gate.is_open(Way::Out), "not known yet");
        let near: Option<IpAddr> = "192.168.1.2".parse().ok();
        gate.reached_at([near]);
        assert!(gate.is_open(Way::Out));
        gate.reached_at([near, "192.0.2.1".parse().ok()]);
        assert!(!gate.is_open(Way::Out));
        assert!(gate.is_open(Way::In), "that way has no limit");
        gate.reached_at([near]);
        throttle.set(Limits {
            exempt: Vec::new(),
            ..limits("1KB")
        });
        assert!(!gate.is_open(Way::Out));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_reaches_those_who_wait() {
        let throttle = throttle(limits("1KB"));
        // So many that each waits for a minute.
        let gates: Vec<Gate> = (0..60).map(|_| throttle.gate()).collect();
        let (sent, start) = (Cell::new(0), Instant::now());
        let all = join_all(gates.iter().map(|gate| send(gate, &sent)));
        let change = async {
            tokio::time::sleep(MINUTE).await;
            assert!(within(sent.get(), 60_000, 10), "{sent:?}");
            throttle.set(limits("1MB"));
            tokio::time::sleep(MINUTE).await;
            assert!(within(sent.get(), 60_000_000, 2), "{sent:?}");
            // Changes of something else neither give anything away nor take it.
            for hops in 0..100 {
                let mut other = limits("1MB");
                other.download = Rate::new(1000 + hops).unwrap();
                throttle.set(other);
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(MINUTE).await;
            assert!(within(sent.get(), 120_000_000, 2), "{sent:?}");
            throttle.set(limits("unlimited"));
        };
        tokio::select! {
            _ = all => unreachable!(),
            () = change => {}
        }
        assert_eq!(gates[0].pass(Way::Out, 9 << 20, Haste::Bulk).await, 9 << 20);
        assert!(start.elapsed() < 3 * MINUTE + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_bucket_passes_and_is_paid_for() {
        let throttle = throttle(limits("1KB"));
        let gate = throttle.gate();
        let start = Instant::now();
        let (mut left, mut mark) = (100_000, 0);
        while left > 0 {
            left -= gate.pass(Way::Out, left, Haste::Bulk).await;
        }
        let took = start.elapsed();
        assert!(took > Duration::from_secs(90) && took < Duration::from_secs(110));
        assert!(gate.held_since(Way::Out, &mut mark));
        assert!(!gate.held_since(Way::Out, &mut mark));
        let counted = throttle.shared.seconds.with_label_values(&["out"]).get();
        assert!((counted - took.as_secs_f64()).abs() < 1.0, "{counted}");
    }

    #[tokio::test(start_paused = true)]
    async fn words_run_ahead_of_blocks_but_not_without_end() {
        let throttle = throttle(limits("10KB"));
        let (gate, sent) = (throttle.gate(), Cell::new(0));
        let blocks = send(&gate, &sent);
        let words = async {
            tokio::time::sleep(MINUTE).await;
            let start = Instant::now();
            gate.pass(Way::Out, 1000, Haste::Words).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            for _ in 0..60 {
                let mut left = 10_000;
                while left > 0 {
                    left -= gate.pass(Way::Out, left, Haste::Words).await;
                }
            }
            assert!(start.elapsed() > Duration::from_secs(55));
        };
        tokio::select! {
            () = blocks => unreachable!(),
            () = words => {}
        }
    }

    proptest! {
        /// Whoever takes what and when: between any two pieces no more passes than the rate, the
        /// burst and one piece allow, and nobody waits longer than what was taken before costs.
        #[test]
        fn no_more_passes_than_the_rate_allows(
            rate in 1000u64..1_000_000_000,
            takes in proptest::collection::vec((0u64..200_000_000, 1usize..300_000), 1..60),
        ) {
            let rate = NonZeroU64::new(rate).unwrap();
            let start = std::time::Instant::now();
            let (mut bucket, mut now) = (Bucket::default(), start);
            let mut passed: Vec<(f64, f64)> = Vec::new();
            let mut owed = 0.0;
            let per_second = rate.get() as f64;
            for (pause, bytes) in takes {
                now += Duration::from_nanos(pause);
                owed = f64::max(0.0, owed - pause as f64 / 1e9);
                let delay = bucket.take(bytes, rate, Haste::Bulk, now);
                prop_assert!(delay.as_secs_f64() <= owed + 1e-6);
                owed += bytes as f64 / per_second;
                passed.push(((now + delay - start).as_secs_f64(), bytes as f64));
            }
            for (at, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0.0;
                for (to, bytes) in &passed[at..] {
                    let allowed = (to - from + BURST.as_secs_f64()) * per_second + bytes;
                    sum += bytes;
                    // A nanosecond is lost with each piece.
                    prop_assert!(sum <= allowed + 64.0, "{sum} of {allowed}");
                }
            }
        }

        /// Timers that are late by less than the burst lose nothing.
        #[test]
        fn late_timers_cost_nothing(
            rate in 100_000u64..100_000_000,
            late in proptest::collection::vec(0u64..90_000_000, 20..100),
        ) {
            let rate = NonZeroU64::new(rate).unwrap();
            let start = std::time::Instant::now();
            let (mut bucket, mut now) = (Bucket::default(), start);
            let piece = usize::try_from(rate.get() / TURNS_A_SECOND).unwrap();
            let mut sum = 0;
            for late in late {
                now += bucket.take(piece, rate, Haste::Bulk, now);
                if now > start {
                    now += Duration::from_nanos(late % 1_000_000);
                }
                sum += piece;
            }
            let least = (now - start).as_secs_f64() * rate.get() as f64;
            prop_assert!(sum as f64 >= least * 0.95, "{sum} of {least}");
        }
    }
}
