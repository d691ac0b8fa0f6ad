//! What the store tells about itself.

use super::{Inner, Store};
use prometheus::core::{Collector as Collect, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge};
use std::sync::{Arc, Weak};

/// Counters that the store keeps as it works.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) commit_seconds: Histogram,
    pub(crate) damaged: IntCounter,
    pub(crate) collected: IntCounter,
    pub(crate) collections: IntCounter,
    pub(crate) evicted: IntCounter,
    pub(crate) scrubbed: IntCounter,
    reads: IntCounter,
    read_bytes: IntCounter,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let commit = HistogramOpts::new(
            "cairn_store_commit_seconds",
            "Time from asking for durability to having it",
        );
        // From a fast disk's 100 microseconds to a slow one's 6 seconds.
        let buckets = prometheus::exponential_buckets(0.0001, 2.0, 17)?;
        Ok(Self {
            commit_seconds: Histogram::with_opts(commit.buckets(buckets))?,
            damaged: IntCounter::new("cairn_store_damaged_blocks_total", "Damaged blocks met")?,
            collected: IntCounter::new("cairn_gc_removed_blocks_total", "Blocks removed by GC")?,
            collections: IntCounter::new("cairn_gc_runs_total", "Garbage collections finished")?,
            evicted: IntCounter::new("cairn_store_evicted_blocks_total", "Cached blocks evicted")?,
            scrubbed: IntCounter::new(
                "cairn_scrub_bytes_total",
                "Bytes re-hashed by the background scrub",
            )?,
            reads: IntCounter::new("cairn_store_reads_total", "Blocks and ranges read")?,
            read_bytes: IntCounter::new("cairn_store_read_bytes_total", "Bytes of them")?,
        })
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.reads.inc();
        self.read_bytes.inc_by(bytes);
    }
}

/// Hands the store's figures to a registry without keeping the store open.
pub(super) struct Collector {
    inner: Weak<Inner>,
    blocks: IntGauge,
    bytes: IntGauge,
    disk_bytes: IntGauge,
    cache_bytes: IntGauge,
    pins: IntGauge,
    scrub_started: IntGauge,
    scrub_finished: IntGauge,
    scrub_bad: IntGauge,
}

impl Collector {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        #[expect(clippy::unwrap_used, reason = "the names are constants and valid")]
        let gauge = |name, help| IntGauge::new(name, help).unwrap();
        Self {
            inner: Arc::downgrade(inner),
            blocks: gauge("cairn_store_blocks", "Blocks present"),
            bytes: gauge("cairn_store_bytes", "Bytes of the blocks present"),
            disk_bytes: gauge("cairn_store_disk_bytes", "Bytes of the log's files"),
            cache_bytes: gauge(
                "cairn_store_cache_bytes",
                "Bytes of the files of cached blocks",
            ),
            pins: gauge("cairn_pins", "Pins"),
            scrub_started: gauge(
                "cairn_scrub_started_timestamp_seconds",
                "When the scrub's present round began",
            ),
            scrub_finished: gauge(
                "cairn_scrub_finished_timestamp_seconds",
                "When the scrub's last whole round ended",
            ),
            scrub_bad: gauge(
                "cairn_scrub_damaged_blocks",
                "Damaged blocks found in the scrub's present round",
            ),
        }
    }

    fn gauges(&self) -> [&IntGauge; 8] {
        [
            &self.blocks,
            &self.bytes,
            &self.disk_bytes,
            &self.cache_bytes,
            &self.pins,
            &self.scrub_started,
            &self.scrub_finished,
            &self.scrub_bad,
        ]
    }
}

impl Collect for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collect::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(inner) = self.inner.upgrade() else {
            return Vec::new();
        };
        let stat = Store {
            inner: inner.clone(),
        }
        .stat();
        let scrub = *inner.lock_scrub();
        let figures = [
            stat.blocks,
            stat.bytes,
            stat.disk_bytes,
            stat.cache_bytes,
            stat.pins,
            scrub.started,
            scrub.finished,
            scrub.bad,
        ];
        for (gauge, figure) in self.gauges().into_iter().zip(figures) {
            gauge.set(i64::try_from(figure).unwrap_or(i64::MAX));
        }
        let metrics = &inner.metrics;
        let counters = [
            &metrics.damaged,
            &metrics.collected,
            &metrics.collections,
            &metrics.evicted,
            &metrics.scrubbed,
            &metrics.reads,
            &metrics.read_bytes,
        ];
        self.gauges()
            .into_iter()
            .flat_map(Collect::collect)
            .chain(counters.into_iter().flat_map(Collect::collect))
            .chain(metrics.commit_seconds.collect())
            .collect()
    }
}
