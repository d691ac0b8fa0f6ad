//! What IPNS over gossipsub counts.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) topics: IntGauge,
    messages: IntCounterVec,
    asked: IntCounterVec,
    answered: IntCounterVec,
}

/// What became of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    /// New: taken in and passed on.
    Accepted,
    /// Known, older or expired.
    Ignored,
    /// No record of the topic's name.
    Rejected,
    /// Ours, told to those on the topic.
    Published,
}

/// How a question for a record ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fetched {
    Found,
    NotFound,
    Failed,
    Refused,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let topics = IntGauge::new(
            "cairn_names_pubsub_topics",
            "Names that are followed over gossipsub.",
        )?;
        let counted =
            |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["result"]);
        let messages = counted(
            "cairn_names_pubsub_messages_total",
            "Messages with IPNS records on topics of names that are followed, by what became of them.",
        )?;
        let asked = counted(
            "cairn_names_fetches_total",
            "Questions to peers for their record of a name (/libp2p/fetch/0.0.1), by how they ended.",
        )?;
        let answered = counted(
            "cairn_names_fetch_answers_total",
            "Such questions of peers, by how they were answered.",
        )?;
        registry.register(Box::new(topics.clone()))?;
        for family in [&messages, &asked, &answered] {
            registry.register(Box::new(family.clone()))?;
        }
        Ok(Self {
            topics,
            messages,
            asked,
            answered,
        })
    }

    pub(super) fn message(&self, became: Message) {
        let result = match became {
            Message::Accepted => "accepted",
            Message::Ignored => "ignored",
            Message::Rejected => "rejected",
            Message::Published => "published",
        };
        self.messages.with_label_values(&[result]).inc();
    }

    pub(super) fn asked(&self, ended: Fetched) {
        self.asked.with_label_values(&[ended.name()]).inc();
    }

    pub(super) fn answered(&self, ended: Fetched) {
        self.answered.with_label_values(&[ended.name()]).inc();
    }
}

impl Fetched {
    const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}
