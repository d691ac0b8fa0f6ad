//! Figures of denylists for whoever scrapes: what holds, what does not, and what was kept back.

use super::ListStat;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// What is counted.
pub(super) struct Metrics {
    pub(super) lists: IntGauge,
    pub(super) rules: IntGauge,
    pub(super) skipped: IntGauge,
    pub(super) beyond: IntGauge,
    pub(super) failed: IntGauge,
    pub(super) refused: IntCounterVec,
}

impl Metrics {
    #[expect(
        clippy::expect_used,
        reason = "the names are constants, which tests see"
    )]
    pub(super) fn new() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("a metric's constant name");
        let refused = Opts::new(
            "cairn_denylist_refused_total",
            "What denylists kept back, by what it was: a path asked for, a block to be read or fetched, a want of a peer.",
        );
        let refused = IntCounterVec::new(refused, &["at"]).expect("a metric's constant name");
        for at in ["path", "block", "serve"] {
            refused.with_label_values(&[at]);
        }
        Self {
            lists: gauge("cairn_denylist_lists", "Denylists that were found."),
            rules: gauge("cairn_denylist_rules", "Rules of denylists that hold."),
            skipped: gauge(
                "cairn_denylist_lines_skipped",
                "Lines of denylists that are left out: no rules, or there is no room for them.",
            ),
            beyond: gauge(
                "cairn_denylist_lines_beyond",
                "Lines of denylists that are left out because there is no room for them.",
            ),
            failed: gauge(
                "cairn_denylist_lists_failed",
                "Denylists whose rules are not those of their files: they cannot be read, or there are too many.",
            ),
            refused,
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.lists.clone()))?;
        registry.register(Box::new(self.rules.clone()))?;
        registry.register(Box::new(self.skipped.clone()))?;
        registry.register(Box::new(self.beyond.clone()))?;
        registry.register(Box::new(self.failed.clone()))?;
        registry.register(Box::new(self.refused.clone()))
    }

    pub(super) fn refused(&self, at: &str) {
        self.refused.with_label_values(&[at]).inc();
    }

    pub(super) fn hold(&self, lists: &[ListStat]) {
        let sum = |of: fn(&ListStat) -> u64| {
            let sum = lists.iter().map(of).fold(0, u64::saturating_add);
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        self.lists.set(sum(|_| 1));
        self.rules.set(sum(|list| list.rules));
        self.skipped.set(sum(|list| list.skipped));
        self.beyond.set(sum(|list| list.beyond));
        self.failed.set(sum(|list| u64::from(list.error.is_some())));
    }
}
