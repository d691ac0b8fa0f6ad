//! What the provider shows to whoever scrapes it.

use super::Shared;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge, Registry};
use std::sync::{Arc, PoisonError, TryLockError};

/// Read when it is scraped. While the provider reads its list, the figures stay as they were: a scrape does not wait for a disk.
struct Metrics {
    shared: Arc<Shared>,
    keys: IntGauge,
    waiting: IntGauge,
    regions: IntGauge,
    late: IntGauge,
    failing: IntGauge,
    provided: IntCounter,
    failures: IntCounter,
}

/// Puts them into the registry.
pub(super) fn register(registry: &Registry, shared: Arc<Shared>) -> Result<(), prometheus::Error> {
    let metrics = Metrics {
        shared,
        keys: IntGauge::new(
            "cairn_provide_keys",
            "Keys that are provided, as of the last time they were gathered.",
        )?,
        waiting: IntGauge::new(
            "cairn_provide_keys_waiting",
            "Keys that are to be told before their region's time.",
        )?,
        regions: IntGauge::new(
            "cairn_provide_regions",
            "Regions of the key space that keys are provided in.",
        )?,
        late: IntGauge::new(
            "cairn_provide_regions_late",
            "Regions whose time to be told is past.",
        )?,
        failing: IntGauge::new(
            "cairn_provide_regions_failing",
            "Regions that could not be told the last time.",
        )?,
        provided: IntCounter::new(
            "cairn_provide_keys_told_total",
            "Keys that peers were told of, each time it was done.",
        )?,
        failures: IntCounter::new(
            "cairn_provide_failures_total",
            "Times that a region could not be told.",
        )?,
    };
    registry.register(Box::new(metrics))
}

impl Metrics {
    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.keys,
            &self.waiting,
            &self.regions,
            &self.late,
            &self.failing,
            &self.provided,
            &self.failures,
        ]
    }

    fn read(&self) {
        let state = match self.shared.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        let progress = state.progress(self.shared.clock.now());
        let level = |gauge: &IntGauge, number: u64| {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        level(&self.keys, state.len());
        level(&self.waiting, state.untold() as u64);
        level(&self.regions, progress.regions as u64);
        level(&self.late, progress.late as u64);
        level(&self.failing, progress.failing as u64);
        let follow = |counter: &IntCounter, number: u64| {
            counter.inc_by(number.saturating_sub(counter.get()));
        };
        follow(&self.provided, state.provided);
        follow(&self.failures, progress.failures);
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
