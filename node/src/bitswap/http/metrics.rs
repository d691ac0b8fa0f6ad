//! What fetching over HTTP counts. No label names a gateway or a CID.

use super::request::Outcome;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Every counter, registered once.
#[derive(Debug, Clone)]
pub(in crate::bitswap) struct Metrics {
    requests: IntCounterVec,
    pub(super) bytes: IntCounter,
    pub(super) pauses: IntCounter,
    pub(in crate::bitswap) sources: IntGauge,
}

impl Metrics {
    pub(in crate::bitswap) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "cairn_http_fetch_requests_total",
                "Requests for blocks to trustless gateways, by what came of them",
            ),
            &["outcome"],
        )?;
        for word in Outcome::WORDS {
            requests.with_label_values(&[word]);
        }
        let bytes = IntCounter::new(
            "cairn_http_fetch_bytes_total",
            "Bytes of bodies received from trustless gateways, of use or not",
        )?;
        let pauses = IntCounter::new(
            "cairn_http_fetch_pauses_total",
            "How often a trustless gateway was left alone for a while, since it failed or asked for it",
        )?;
        let sources = IntGauge::new(
            "cairn_http_fetch_sources",
            "Trustless gateways that blocks may be asked of now",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(pauses.clone()))?;
        registry.register(Box::new(sources.clone()))?;
        Ok(Self {
            requests,
            bytes,
            pauses,
            sources,
        })
    }

    pub(super) fn count(&self, outcome: &Outcome) {
        self.requests.with_label_values(&[outcome.word()]).inc();
    }
}
