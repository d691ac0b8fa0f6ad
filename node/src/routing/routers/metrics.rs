//! What asking routers counts. No label names a router or what was looked up.

use crate::http::Failure;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// What came of a question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// Records.
    Answered,
    /// That there are none.
    Empty,
    /// The same, said by a status.
    Absent,
    /// Such questions are not answered there, or such records not taken.
    Unsupported,
    /// A record that is none of the name that was asked about, or has expired.
    Invalid,
    /// A record that was handed to it: it keeps it.
    Taken,
    /// It has a newer one.
    Newer,
    /// It does not want it.
    Refused,
    /// It wants to be left alone.
    Busy,
    /// It was not asked: it failed a short while ago.
    Rests,
    Failed(Failure),
}

impl Outcome {
    const WORDS: [&str; 10] = [
        "answered",
        "empty",
        "absent",
        "unsupported",
        "invalid",
        "taken",
        "newer",
        "refused",
        "busy",
        "rests",
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Empty => "empty",
            Self::Absent => "absent",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Taken => "taken",
            Self::Newer => "newer",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Rests => "rests",
            Self::Failed(failure) => failure.word(),
        }
    }
}

/// Every counter, registered once.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    questions: IntCounterVec,
    pub(super) records: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let questions = IntCounterVec::new(
            Opts::new(
                "cairn_routers_questions_total",
                "Questions to routers over HTTP, and records handed to them, by what came of them.",
            ),
            &["outcome"],
        )?;
        for word in Outcome::WORDS.into_iter().chain(Failure::WORDS) {
            questions.with_label_values(&[word]);
        }
        let records = IntCounter::new(
            "cairn_routers_records_total",
            "Peers that routers told of and that lie inside the network.",
        )?;
        registry.register(Box::new(questions.clone()))?;
        registry.register(Box::new(records.clone()))?;
        Ok(Self { questions, records })
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.questions.with_label_values(&[outcome.word()]).inc();
    }
}
