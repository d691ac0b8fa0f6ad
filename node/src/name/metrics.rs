//! What is counted of names.

use super::resolve::ResolveError;
use crate::ipns::Record;
use crate::routing::RoutingError;
use prometheus::{IntCounterVec, Opts, Registry};

/// Counters of one handle.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    resolved: IntCounterVec,
    told: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            resolved: counters(
                "cairn_names_resolved_total",
                "Names of keys resolved, by what came of it.",
                &["known", "found", "absent", "failed"],
            ),
            told: counters(
                "cairn_names_told_total",
                "Records of names that others were told to keep, by what came of it.",
                &["taken", "refused"],
            ),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.resolved.clone()))?;
        registry.register(Box::new(self.told.clone()))
    }

    /// The first answer that somebody got.
    pub(super) fn resolved(&self, answer: &Result<Record, ResolveError>, is_known: bool) {
        let result = match answer {
            Ok(_) if is_known => "known",
            Ok(_) => "found",
            Err(ResolveError::NotFound(_)) => "absent",
            Err(_) => "failed",
        };
        self.resolved.with_label_values(&[result]).inc();
    }

    pub(super) fn told(&self, kept: &Result<usize, RoutingError>) {
        let result = if kept.is_ok() { "taken" } else { "refused" };
        self.told.with_label_values(&[result]).inc();
    }
}

fn counters(name: &str, help: &str, results: &[&str]) -> IntCounterVec {
    #[expect(
        clippy::expect_used,
        reason = "the names are constants, which tests see"
    )]
    let counters =
        IntCounterVec::new(Opts::new(name, help), &["result"]).expect("a metric's constant name");
    for result in results {
        counters.with_label_values(&[result]);
    }
    counters
}
