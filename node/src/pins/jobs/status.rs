//! How the jobs are, and what others pin in the foreground meanwhile.

use super::queue::Phase;
use super::{PinJobs, Pinning};
use cairn_store::pin::{PinProgress, PinWish};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A job, or a pin that is made in the foreground.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// What is to be pinned, and how.
    pub wish: PinWish,
    /// Those of a higher one have their turns first.
    pub priority: i32,
    /// What it does.
    pub state: JobState,
    /// How far it came.
    pub progress: PinProgress,
    /// Whether somebody waits for it, and would end it by going.
    pub is_foreground: bool,
}

/// What a job does just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It has not had its turn yet; perhaps because nobody works at the queue.
    Queued {
        /// Why it has none, if that is not for others before it.
        why: Option<String>,
    },
    /// It is fetched.
    Fetching {
        /// What it waits for just now.
        why: Option<String>,
    },
    /// It is tried again later.
    Waiting {
        /// What went wrong.
        why: String,
        /// In how long.
        left: Duration,
    },
    /// It is not tried again by itself.
    Failed {
        /// Why.
        why: String,
    },
}

impl JobState {
    /// The state's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Fetching { .. } => "fetching",
            Self::Waiting { .. } => "waiting",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why it is as it is, if there is something to say.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Queued { why } | Self::Fetching { why } => why.as_deref(),
            Self::Waiting { why, .. } | Self::Failed { why } => Some(why),
        }
    }
}

/// A pin that is made in the foreground.
#[derive(Debug)]
#[must_use = "it is told of as long as this lives"]
pub struct Foreground {
    jobs: PinJobs,
    number: u64,
    meter: Arc<Meter>,
}

impl Foreground {
    /// It is so far by now.
    pub fn at(&self, now: PinProgress) {
        self.meter.at(now);
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        self.jobs.watched().remove(&self.number);
    }
}

/// How far one is.
#[derive(Debug, Default)]
pub struct Meter {
    blocks: AtomicU64,
    bytes: AtomicU64,
    /// One more than the total, so that 0 says that it is not known.
    total: AtomicU64,
}

impl Meter {
    /// So far it is now.
    pub fn at(&self, now: PinProgress) {
        self.blocks.store(now.blocks, Ordering::Relaxed);
        self.bytes.store(now.bytes, Ordering::Relaxed);
        let total = now.total.map_or(0, |total| total.saturating_add(1));
        self.total.store(total, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn read(&self) -> PinProgress {
        PinProgress {
            blocks: self.blocks.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed).checked_sub(1),
        }
    }
}

impl PinJobs {
    /// Takes note of a pin that somebody makes and waits for; it is told of as long as the guard lives.
    pub fn foreground(&self, wish: PinWish) -> Foreground {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let meter = Arc::<Meter>::default();
        let mut all = self.watched();
        all.insert(number, (wish, Arc::clone(&meter)));
        drop(all);
        Foreground {
            jobs: self.clone(),
            number,
            meter,
        }
    }

    /// All of them: what is made in the foreground, then the jobs in the order of their turns.
    pub async fn list(&self) -> Vec<JobStatus> {
        let shown = |(wish, meter): &Pinning| JobStatus {
            wish: wish.clone(),
            priority: 0,
            state: JobState::Fetching { why: None },
            progress: meter.read(),
            is_foreground: true,
        };
        let mut all: Vec<JobStatus> = self.watched().values().map(shown).collect();
        let now = Instant::now();
        let jobs = self.queue().ordered();
        for (key, entry) in jobs {
            let Some(job) = self.noted(&key) else {
                continue;
            };
            let (progress, session) = match self.running().get(&key) {
                Some(running) => (running.meter.read(), running.session.clone()),
                None => Default::default(),
            };
            let state = match entry.phase {
                Phase::Queued => JobState::Queued {
                    why: (!self.runs()).then(|| NOBODY.to_owned()),
                },
                Phase::Running(_) => JobState::Fetching {
                    why: match session {
                        Some(session) => session.waits_for().await,
                        None => None,
                    },
                },
                Phase::Waiting { until, why } => JobState::Waiting {
                    why,
                    left: until.saturating_duration_since(now),
                },
                Phase::Failed { why } => JobState::Failed { why },
            };
            all.push(JobStatus {
                wish: job.wish,
                priority: job.priority,
                state,
                progress,
                is_foreground: false,
            });
        }
        all
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, Pinning>> {
        let foreground = self.0.foreground.lock();
        foreground.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why jobs stay queued.
pub const NOBODY: &str = "no daemon with a network runs; what is queued is fetched when one does";
