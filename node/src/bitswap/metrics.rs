//! What Bitswap counts. No label names a peer or a CID.

use super::client::Efforts;
use super::streams::Holds;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Every counter, registered once.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) wants: IntGauge,
    pub(super) peers: IntGauge,
    pub(super) wants_kept: IntGauge,
    pub(super) outstanding: IntGauge,
    pub(super) messages_in: IntCounter,
    pub(super) messages_out: IntCounter,
    pub(super) wants_in: IntCounter,
    pub(super) wants_out: IntCounter,
    pub(super) blocks_in: IntCounter,
    pub(super) bytes_in: IntCounter,
    pub(super) blocks_out: IntCounter,
    pub(super) bytes_out: IntCounter,
    pub(super) duplicate_blocks: IntCounter,
    pub(super) duplicate_bytes: IntCounter,
    pub(super) wrong_blocks: IntCounter,
    pub(super) too_large_blocks: IntCounter,
    pub(super) unwanted_bytes: IntCounter,
    pub(super) bad_messages: IntCounter,
    pub(super) abandoned_messages: IntCounter,
    pub(super) skipped: IntCounter,
    pub(super) streams_refused: IntCounter,
    pub(super) stalls: IntCounter,
    pub(super) peers_dropped: IntCounter,
    pub(super) searches: IntCounter,
    pub(super) given_up: IntCounter,
    pub(super) hedges: IntCounter,
    pub(super) explorations: IntCounter,
    pub(super) companions: IntCounter,
    pub(super) holds: Holds,
    pub(super) fetch_seconds: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("cairn_bitswap_{name}_total"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(format!("cairn_bitswap_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let fetch_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "cairn_bitswap_fetch_seconds",
                "Time from wanting a block to having it in the store",
            )
            .buckets(FETCH_SECONDS.to_vec()),
        )?;
        registry.register(Box::new(fetch_seconds.clone()))?;
        Ok(Self {
            wants: gauge("wants", "Blocks wanted now")?,
            peers: gauge(
                "peers",
                "Connected peers that speak Bitswap, as far as known",
            )?,
            wants_kept: gauge("wants_kept", "Wants of others that are kept now")?,
            outstanding: gauge(
                "outstanding_bytes",
                "Bytes of blocks that are read or being written for peers now",
            )?,
            messages_in: counter("messages_received", "Messages received")?,
            messages_out: counter("messages_sent", "Messages sent")?,
            wants_in: counter("wants_received", "Lines of want lists received")?,
            wants_out: counter("wants_sent", "Lines of want lists sent")?,
            blocks_in: counter("blocks_received", "Blocks received, useful or not")?,
            bytes_in: counter("block_bytes_received", "Bytes of the blocks received")?,
            blocks_out: counter("blocks_sent", "Blocks sent")?,
            bytes_out: counter("block_bytes_sent", "Bytes of the blocks sent")?,
            duplicate_blocks: counter(
                "duplicate_blocks_received",
                "Blocks received that were not wanted any more",
            )?,
            duplicate_bytes: counter("duplicate_bytes_received", "Bytes of such blocks")?,
            wrong_blocks: counter(
                "wrong_blocks_received",
                "Blocks received that were never wanted, or are none",
            )?,
            too_large_blocks: counter(
                "too_large_blocks_received",
                "Blocks received that are larger than a block may be",
            )?,
            unwanted_bytes: counter(
                "unwanted_bytes_received",
                "Bytes of blocks dropped before hashing, since nothing was wanted of the sender",
            )?,
            bad_messages: counter("bad_messages_received", "Streams that held no message")?,
            abandoned_messages: counter(
                "abandoned_messages_received",
                "Messages that were cut short, or came too slowly to be waited for",
            )?,
            skipped: counter(
                "skipped_entries_received",
                "Wants, presences and blocks received that were beyond a limit or had an unknown CID",
            )?,
            streams_refused: counter("streams_refused", "Streams of peers that had too many open")?,
            stalls: counter(
                "stalls",
                "Times that a peer sent nothing of use for long, though it was asked",
            )?,
            peers_dropped: counter("peers_dropped", "Peers disconnected for misbehaving")?,
            searches: counter("provider_searches", "Searches for providers")?,
            given_up: counter("wants_given_up", "Wants that nobody answered in time")?,
            hedges: counter(
                "hedges",
                "Blocks asked of one more peer because the first was late",
            )?,
            explorations: counter(
                "explorations",
                "Questions to peers not known to have anything, because those who are known to are busy",
            )?,
            companions: counter(
                "companions",
                "Times that a peer was found to fetch the same as one of our sessions",
            )?,
            holds: Holds::register(registry)?,
            fetch_seconds,
        })
    }

    /// What the client did about peers since it was last asked.
    pub(super) fn count(&self, efforts: Efforts) {
        self.hedges.inc_by(efforts.hedges);
        self.explorations.inc_by(efforts.explorations);
        self.companions.inc_by(efforts.companions);
    }
}

const FETCH_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
