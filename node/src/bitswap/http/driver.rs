//! The transport to one gateway: takes messages as a peer would, asks for the blocks wanted in
//! them.
//!
//! A few requests are under way at once, the rest waits in order. What is cancelled is not asked
//! for, or its request is dropped with its connection. What a gateway has not, or fails to give, is
//! told at once, so that it is asked for elsewhere, and forgotten: who wants it again says so
//! again. A gateway that cannot be reached, fails several times in a row or says that it is busy is
//! left alone for a while, longer every time.

use super::News;
use super::metrics::Metrics;
use super::request::{Ask, Desk, Outcome};
use crate::bitswap::key::Key;
use crate::bitswap::message::{Change, Entry};
use crate::bitswap::recent::Recent;
use crate::bitswap::streams::{Intake, Outgoing, Sinks};
use crate::bitswap::transport::BlockTransport;
use crate::bitswap::worker::Input;
use crate::http::{BUSY, PAUSE_MAX, PAUSE_MIN, Pool, REQUESTS_MAX, pause_after};
use cairn_store::Cid;
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// What it needs.
#[derive(Debug)]
pub(in crate::bitswap) struct Driver {
    pub(in crate::bitswap) pool: Arc<Pool>,
    /// Which of the source's stays this is.
    pub(in crate::bitswap) stay: u64,
    pub(in crate::bitswap) intake: Arc<Intake>,
    pub(in crate::bitswap) sinks: Sinks,
    pub(in crate::bitswap) metrics: Metrics,
}

/// What is wanted of the gateway.
#[derive(Default)]
struct Wanted {
    all: HashMap<Key, Stage>,
    /// Some of it may be wanted no more.
    waiting: VecDeque<(Key, Cid)>,
    /// What it has said not to have.
    absent: Recent<ABSENT_MAX>,
}

enum Stage {
    Waiting,
    UnderWay(AbortHandle),
}

impl Wanted {
    /// False if there is no room for it.
    fn add(&mut self, cid: Cid) -> bool {
        let key = Key::content(&cid);
        if self.all.contains_key(&key) {
            return true;
        }
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.all.insert(key.clone(), Stage::Waiting);
        self.waiting.push_back((key, cid));
        true
    }

    fn cancel(&mut self, cid: &Cid) {
        if let Some(Stage::UnderWay(request)) = self.all.remove(&Key::content(cid)) {
            request.abort();
        }
    }

    /// The next to be asked for, and how.
    fn next(&mut self) -> Option<(Key, Cid, Ask)> {
        loop {
            let (key, cid) = self.waiting.pop_front()?;
            if matches!(self.all.get(&key), Some(Stage::Waiting)) {
                let ask = match self.absent.has(&key) {
                    true => Ask::Anywhere,
                    false => Ask::Stored,
                };
                return Some((key, cid, ask));
            }
        }
    }

    fn clear(&mut self) {
        for stage in self.all.drain().map(|(_, stage)| stage) {
            if let Stage::UnderWay(request) = stage {
                request.abort();
            }
        }
        self.waiting.clear();
    }
}

impl BlockTransport for Driver {
    const TASK: &'static str = "http source";
    const MESSAGES_MAX: usize = 8;

    async fn run(self, mut inbox: mpsc::Receiver<Outgoing>) {
        let desk = Desk {
            pool: &self.pool,
            intake: &self.intake,
            sinks: &self.sinks,
            metrics: &self.metrics,
        };
        let desk = &desk;
        let mut wanted = Wanted::default();
        let mut answers = FuturesUnordered::new();
        let (mut failures, mut pauses) = (0, 0);
        loop {
            while answers.len() < REQUESTS_MAX
                && let Some((key, cid, ask)) = wanted.next()
            {
                let (handle, registration) = AbortHandle::new_pair();
                wanted.all.insert(key.clone(), Stage::UnderWay(handle));
                let request = Abortable::new(desk.get(cid, ask), registration);
                answers.push(async move { (key, cid, request.await) });
            }
            let (key, cid, outcome) = tokio::select! {
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    if self.hear(&message, &mut wanted).await { continue } else { return }
                }
                Some((key, cid, outcome)) = answers.next() => match outcome {
                    Ok(outcome) => (key, cid, outcome),
                    Err(_aborted) => continue,
                },
            };
            wanted.all.remove(&key);
            tracing::trace!(gateway = %self.pool.endpoint(), %cid, ?outcome, "asked");
            let pause = match outcome {
                Outcome::Delivered => {
                    (failures, pauses) = (0, 0);
                    continue;
                }
                Outcome::Absent => {
                    (failures, pauses) = (0, 0);
                    wanted.absent.add(key, ());
                    if !self.tell(News::Absent(cid)).await {
                        return;
                    }
                    continue;
                }
                Outcome::Failed(failure) => {
                    failures += 1;
                    if !self.tell(News::Failed(cid)).await {
                        return;
                    }
                    if !failure.is_general() && failures < FAILURES_MAX {
                        continue;
                    }
                    pause_after(pauses)
                }
                Outcome::Busy(wait) => wait.unwrap_or(BUSY).clamp(PAUSE_MIN, PAUSE_MAX),
            };
            pauses += 1;
            failures = 0;
            wanted.clear();
            answers.clear();
            tracing::debug!(gateway = %self.pool.endpoint(), ?outcome, ?pause, "left alone for a while");
            self.metrics.pauses.inc();
            if !self.rest(pause, &mut inbox).await {
                return;
            }
        }
    }
}

impl Driver {
    /// Notes what a message says; false if nobody listens any more.
    async fn hear(&self, message: &Outgoing, wanted: &mut Wanted) -> bool {
        for Entry { cid, change } in &message.message.wants {
            match change {
                Change::Want { .. } => {
                    if !wanted.add(*cid) && !self.tell(News::Failed(*cid)).await {
                        return false;
                    }
                }
                Change::Cancel => wanted.cancel(cid),
            }
        }
        self.tell(News::Heard).await
    }

    /// Asks for nothing for a while. What is wanted meanwhile was wanted before the worker knew.
    async fn rest(&self, pause: Duration, inbox: &mut mpsc::Receiver<Outgoing>) -> bool {
        if !self.tell(News::Rests).await {
            return false;
        }
        let until = Instant::now() + pause;
        while let Ok(message) = timeout_at(until, inbox.recv()).await {
            if message.is_none() || !self.tell(News::Heard).await {
                return false;
            }
        }
        self.tell(News::Ready).await
    }

    async fn tell(&self, news: News) -> bool {
        let (peer, stay) = (self.intake.peer, self.stay);
        let input = Input::Http { peer, stay, news };
        self.sinks.inputs.send(input).await.is_ok()
    }
}

/// Wants waiting for one of these.
const WAITING_MAX: usize = 4096;
/// Blocks that a gateway said not to have, of which it is remembered.
const ABSENT_MAX: usize = 4096;
/// Failures in a row after which a gateway is left alone for a while.
const FAILURES_MAX: u32 = 4;
