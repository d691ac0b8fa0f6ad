//! Routers: services that are asked who has what and what names point at, over HTTP (Delegated Routing V1), and that
//! are handed the records of names (`names.rs`).
//!
//! The operator names them; each learns what is looked up. They are asked beside the DHT and at the
//! same time (`merge.rs` joins both). What they say is a stranger's word: addresses outside the network are
//! left out, and nothing depends on an answer. An answer has a bound in bytes, lines and time
//! (`answer.rs`); a router that fails is left alone for a while, longer every time (`rest.rs`).

mod answer;
mod metrics;
mod names;
mod rest;
#[cfg(test)]
mod tests;

use super::Provider;
use super::filter::Filters;
use super::record::{RECORDS_MAX, Record};
use crate::http::{
    self, Connection, Endpoint, Failure, Fence, Pool, REQUESTS_MAX, Refusal, Standing, Times,
    judge, send,
};
use crate::network::Network;
use crate::tasks::Tasks;
use answer::{Answer, Form};
use cairn_store::Cid;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use hyper::{Request, Response, StatusCode, body::Incoming};
use libp2p::PeerId;
use metrics::{Metrics, Outcome};
pub(super) use names::{Known, Put};
use rest::Rest;
use rustls::RootCertStore;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Every router there is. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Routers(Arc<[Arc<Router>]>);

/// A router that failed when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IllRouter {
    /// Its address, as `routing.endpoints` has it.
    pub name: String,
    /// How it failed.
    pub why: &'static str,
    /// How long ago. Nobody asks it for as long as nothing is looked up.
    pub ago: Duration,
}

impl fmt::Display for IllRouter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.ago.as_secs();
        let (count, unit) = match seconds {
            0..120 => (seconds, "s"),
            120..7200 => (seconds / 60, "min"),
            _ => (seconds / 3600, "h"),
        };
        write!(out, "{}: {}, {count} {unit} ago", self.name, self.why)
    }
}

/// A router, and what came of asking it since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterStat {
    /// Its address, as `routing.endpoints` has it.
    pub name: String,
    /// How often it answered with records or an empty list.
    pub answered: u64,
    /// How often it said that there is nothing, or that nothing is there where it was asked.
    pub absent: u64,
    /// How it failed, if it did when it was asked last.
    pub ill: Option<IllRouter>,
}

impl RouterStat {
    /// Whether it failed when it was asked last.
    pub const fn is_ill(&self) -> bool {
        self.ill.is_some()
    }

    const fn seems_none(&self) -> bool {
        self.answered == 0 && self.absent >= ABSENT_MAX
    }
}

impl fmt::Display for RouterStat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            answered,
            absent,
            ill,
        } = self;
        match ill {
            Some(ill) => write!(out, "{ill}"),
            None if *answered == 0 && *absent == 0 => write!(out, "{name}: never asked"),
            None => write!(out, "{name}: answered {answered}, absent {absent}"),
        }?;
        if self.seems_none() {
            out.write_str(
                " (it has found nothing yet; if nothing of a router is there, see port and path in `routing.endpoints`)",
            )?;
        }
        Ok(())
    }
}

/// What comes from a router.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    Provider(Provider),
    /// To its end, in order.
    Answered,
}

impl Heard {
    pub(super) fn provider(self) -> Option<Provider> {
        match self {
            Self::Provider(provider) => Some(provider),
            Self::Answered => None,
        }
    }
}

/// Why there are no routers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoutersError {
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Routers {
    /// Those of `endpoints` that lie inside `network`; the others are left out with a warning.
    pub(crate) fn new(
        network: Network,
        endpoints: Vec<Endpoint>,
        tasks: &Tasks,
        registry: &prometheus::Registry,
    ) -> Result<Self, RoutersError> {
        let trusted = http::public_roots();
        Self::with(
            network,
            endpoints,
            (trusted, Limits::default()),
            tasks,
            registry,
        )
    }

    fn with(
        network: Network,
        endpoints: Vec<Endpoint>,
        (roots, limits): (RootCertStore, Limits),
        tasks: &Tasks,
        registry: &prometheus::Registry,
    ) -> Result<Self, RoutersError> {
        let metrics = Metrics::register(registry)?;
        let tls = http::tls(roots)?;
        let standing = Standing::Configured;
        let fence = Fence { network, standing };
        let router = |endpoint: Endpoint| {
            let name = endpoint.to_string();
            let (tls, tasks) = (Arc::clone(&tls), tasks.clone());
            // Both forms are in use: with the part that all requests share, and without it.
            let endpoint = endpoint.above(BASE);
            let Some(pool) = Pool::new(endpoint, fence, limits.times, tls, tasks, None) else {
                tracing::warn!(
                    router = name,
                    "router outside the network, left out; change `network` or `routing.endpoints`"
                );
                return None;
            };
            Some(Arc::new(Router {
                name,
                pool,
                network,
                limits,
                metrics: metrics.clone(),
                places: Arc::new(Semaphore::new(REQUESTS_MAX)),
                rest: Mutex::default(),
                trouble: Mutex::default(),
                answered: AtomicU64::new(0),
                absent: AtomicU64::new(0),
                takes_none: Mutex::default(),
                of_use: Filters::parse(None, Some(OF_USE)).unwrap_or_default(),
            }))
        };
        Ok(Self(endpoints.into_iter().filter_map(router).collect()))
    }

    /// All of them.
    pub(super) fn stat(&self) -> Vec<RouterStat> {
        let of = |router: &Arc<Router>| RouterStat {
            name: router.name.clone(),
            answered: router.answered.load(Ordering::Relaxed),
            absent: router.absent.load(Ordering::Relaxed),
            ill: router.ill(),
        };
        self.0.iter().map(of).collect()
    }

    /// Those that failed when they were asked last.
    pub(super) fn ill(&self) -> Vec<IllRouter> {
        self.0.iter().filter_map(|router| router.ill()).collect()
    }

    /// Whether all of them are such.
    pub(super) fn are_all_ill(&self) -> bool {
        self.0.iter().all(|router| router.trouble().is_some())
    }

    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// What each of them says about who has `cid`, at most `limit` providers each.
    pub(super) fn providers(&self, cid: &Cid, limit: usize) -> Vec<BoxStream<'static, Heard>> {
        let question = Question {
            rest: format!("{BASE}/providers/{cid}?filter-protocols={OF_USE}"),
            limit: limit.min(RECORDS_MAX),
            about: None,
        };
        self.ask(&question)
    }

    /// What each of them says about where `peer` is.
    pub(super) fn peer(&self, peer: PeerId) -> Vec<BoxStream<'static, Heard>> {
        let question = Question {
            rest: format!("{BASE}/peers/{peer}"),
            limit: 1,
            about: Some(peer),
        };
        self.ask(&question)
    }

    fn ask(&self, question: &Question) -> Vec<BoxStream<'static, Heard>> {
        let routers = self.0.iter().cloned();
        let ask = |router: Arc<Router>| router.ask(question.clone()).boxed();
        routers.map(ask).collect()
    }
}

/// What a router is asked.
#[derive(Debug, Clone)]
struct Question {
    /// The address below the router's.
    rest: String,
    limit: usize,
    /// The only peer that the answer may be about.
    about: Option<PeerId>,
}

/// How long and how much.
#[derive(Debug, Clone, Copy)]
struct Limits {
    times: Times,
    /// One question and its answer, from the beginning to the end.
    whole: Duration,
    /// Bytes of one answer.
    bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            times: Times {
                connect: Duration::from_secs(5),
                // It may search before it answers, and between what it finds.
                search: Duration::from_secs(30),
                body_idle: Duration::from_secs(20),
                ..Times::default()
            },
            whole: Duration::from_secs(60),
            bytes: ANSWER_BYTES_MAX,
        }
    }
}

/// One of them.
struct Router {
    name: String,
    pool: Pool,
    network: Network,
    limits: Limits,
    metrics: Metrics,
    /// Questions under way.
    places: Arc<Semaphore>,
    rest: Mutex<Rest>,
    /// What was wrong when it was asked last, and when. An answer that is an error is about what was asked for.
    trouble: Mutex<Option<(Failure, Instant)>>,
    /// How often it answered, and how often it said that nothing is there.
    answered: AtomicU64,
    absent: AtomicU64,
    /// Until when it is handed no records of names: it takes none.
    takes_none: Mutex<Option<Instant>>,
    /// What a record's peer has to speak, should it say.
    of_use: Filters,
}

impl fmt::Debug for Router {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Router({})", self.pool.endpoint())
    }
}

/// How far a question is.
enum Turn {
    Ask,
    Read(Box<Reading>),
    /// The answer is told, its end is not.
    End,
    Over,
}

struct Reading {
    answer: Answer,
    left: usize,
    told: u64,
    asked: Asked,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    until: Instant,
}

impl Router {
    fn ask(self: Arc<Self>, question: Question) -> impl Stream<Item = Heard> + Send + 'static {
        stream::unfold(
            (self, question, Turn::Ask),
            |(this, question, turn)| async {
                let (heard, turn) = this.turn(&question, turn).await?;
                Some((heard, (this, question, turn)))
            },
        )
    }

    async fn turn(&self, question: &Question, turn: Turn) -> Option<(Heard, Turn)> {
        let mut reading = match turn {
            Turn::Ask => self.open(question).await?,
            Turn::Read(reading) => reading,
            Turn::End => return Some((Heard::Answered, Turn::Over)),
            Turn::Over => return None,
        };
        loop {
            let next = self.next(&mut reading).await;
            match next {
                Ok(Some(record)) => {
                    let Some(provider) = self.taken(question, record) else {
                        continue;
                    };
                    reading.left -= 1;
                    reading.told += 1;
                    let told = Heard::Provider(provider);
                    if reading.left > 0 {
                        return Some((told, Turn::Read(reading)));
                    }
                    self.answered(&reading);
                    return Some((told, Turn::End));
                }
                Ok(None) => {
                    self.answered(&reading);
                    self.keep(reading.answer).await;
                    return Some((Heard::Answered, Turn::Over));
                }
                Err(failure) => {
                    self.failed(failure, reading.asked.at);
                    return None;
                }
            }
        }
    }

    /// Asks; `None` if it may not be asked now, or nothing comes of it.
    async fn open(&self, question: &Question) -> Option<Box<Reading>> {
        let (asked, place) = self.place().await?;
        match timeout_at(asked.until, self.send(question)).await {
            Ok(Ok(Some(answer))) => Some(Box::new(Reading {
                answer,
                left: question.limit,
                told: 0,
                asked,
                _place: place,
            })),
            Ok(Ok(None)) => {
                self.is_well();
                self.metrics.count(Outcome::Unsupported);
                None
            }
            Ok(Err(refusal)) => {
                self.refused(refusal, asked.at);
                None
            }
            Err(_) => {
                self.failed(Failure::TooSlow, asked.at);
                None
            }
        }
    }

    /// The right to ask it something now, if it may be asked.
    async fn place(&self) -> Option<(Asked, OwnedSemaphorePermit)> {
        let at = Instant::now();
        let until = at + self.limits.whole;
        let place = match self.rest().may_ask(at) {
            true => Some(Arc::clone(&self.places).acquire_owned()),
            false => None,
        };
        if let Some(place) = place
            && let Ok(Ok(place)) = timeout_at(until, place).await
        {
            return Some((Asked { at, until }, place));
        }
        self.metrics.count(Outcome::Rests);
        None
    }

    /// The answer's head; `None` if such questions are not answered there.
    async fn send(&self, question: &Question) -> Result<Option<Answer>, Refusal> {
        let Some((connection, response)) = self.head(&question.rest, ACCEPT).await? else {
            return Ok(None);
        };
        let form = form_of(&response).ok_or(Failure::Broken)?;
        let body = response.into_body();
        Ok(Some(Answer::new(connection, body, form, self.limits.bytes)))
    }

    /// The head of an answer that is none of an error; `None` if such questions are not answered there.
    async fn head(
        &self,
        rest: &str,
        accept: &str,
    ) -> Result<Option<(Connection, Response<Incoming>)>, Refusal> {
        let make = || {
            let request = http::get(self.pool.endpoint(), rest, accept);
            request
                .body(http::Body::default())
                .map_err(|_| Failure::Broken)
        };
        let (connection, response) = self.exchange(&make, self.limits.times.search).await?;
        if response.status() == StatusCode::NOT_IMPLEMENTED {
            return Ok(None);
        }
        if response.status() == StatusCode::NOT_FOUND && is_page(&response) {
            // Whatever is there, a router it is not.
            return Err(Failure::Broken.into());
        }
        judge(response.status(), response.headers())?;
        Ok(Some((connection, response)))
    }

    async fn exchange(
        &self,
        make: &(dyn Fn() -> Result<Request<http::Body>, Failure> + Sync),
        patience: Duration,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        send(&self.pool, make, patience).await
    }

    async fn next(&self, reading: &mut Reading) -> Result<Option<Record>, Failure> {
        let idle = Instant::now() + self.limits.times.body_idle;
        let until = idle.min(reading.asked.until);
        timeout_at(until, reading.answer.next())
            .await
            .unwrap_or(Err(Failure::TooSlow))
    }

    /// Keeps the connection of an answer that was read to its end.
    async fn keep(&self, answer: Answer) {
        if let Some(connection) = answer.into_connection() {
            self.keep_connection(connection).await;
        }
    }

    async fn keep_connection(&self, mut connection: Connection) {
        let ready = timeout(self.limits.times.body_idle, connection.ready());
        if matches!(ready.await, Ok(Ok(()))) {
            self.pool.keep(connection);
        }
    }

    /// What of a record is of use.
    fn taken(&self, question: &Question, record: Record) -> Option<Provider> {
        if question.about.is_some_and(|peer| peer != record.peer) {
            return None;
        }
        let had_addresses = !record.addresses.is_empty();
        let record = match question.about {
            Some(_) => record,
            None => self.of_use.apply(record)?,
        };
        let provider = record.within(self.network);
        // One that gives none has to be looked up; one that is out of reach stays so.
        (!had_addresses || !provider.addresses.is_empty()).then_some(provider)
    }

    /// It answered, whatever it said.
    fn is_well(&self) {
        self.rest().answered();
        *self.trouble() = None;
    }

    fn answered(&self, reading: &Reading) {
        self.is_well();
        self.answered.fetch_add(1, Ordering::Relaxed);
        let outcome = match reading.told {
            0 => Outcome::Empty,
            _ => Outcome::Answered,
        };
        self.metrics.count(outcome);
        self.metrics.records.inc_by(reading.told);
    }

    /// Nothing came of what it was asked then.
    fn refused(&self, refusal: Refusal, asked_at: Instant) {
        match refusal {
            Refusal::Absent => {
                self.is_well();
                self.absent.fetch_add(1, Ordering::Relaxed);
                self.metrics.count(Outcome::Absent);
            }
            Refusal::Busy(wait) => {
                self.rest().busy(wait, asked_at, Instant::now());
                self.metrics.count(Outcome::Busy);
            }
            Refusal::NotCached => self.failed(Failure::TooSlow, asked_at),
            Refusal::Failed(failure) => self.failed(failure, asked_at),
        }
    }

    fn failed(&self, failure: Failure, asked_at: Instant) {
        let pause = self.rest().failed(asked_at, Instant::now());
        let is_ill = failure.is_general() || matches!(failure, Failure::TooSlow | Failure::Broken);
        *self.trouble() = is_ill.then(|| (failure, Instant::now()));
        tracing::debug!(router = %self.pool.endpoint(), ?failure, ?pause, "a router failed");
        self.metrics.count(Outcome::Failed(failure));
    }

    fn ill(&self) -> Option<IllRouter> {
        let (failure, at) = (*self.trouble())?;
        Some(IllRouter {
            name: self.name.clone(),
            why: failure.text(),
            ago: at.elapsed(),
        })
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<(Failure, Instant)>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) -> std::sync::MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is a page for people.
fn is_page(response: &Response<Incoming>) -> bool {
    media_type(response).is_some_and(|kind| kind == "text/html")
}

fn form_of(response: &Response<Incoming>) -> Option<Form> {
    match media_type(response)?.as_str() {
        "application/x-ndjson" => Some(Form::Lines),
        "application/json" => Some(Form::Whole),
        _ => None,
    }
}

fn media_type(response: &Response<Incoming>) -> Option<String> {
    let kind = response.headers().get(hyper::header::CONTENT_TYPE)?;
    let kind = kind.to_str().ok()?.split(';').next()?.trim();
    Some(kind.to_ascii_lowercase())
}

/// How often a router may say that nothing is there, and never anything else, before that seems odd.
const ABSENT_MAX: u64 = 3;
/// Where all of it is, below the address of a router.
const BASE: &str = "/routing/v1";
/// A stream is read as it comes; some have none.
const ACCEPT: &str = "application/x-ndjson, application/json";
/// What a provider may speak for us to have use of it.
const OF_USE: &str = "unknown,transport-bitswap,transport-ipfs-gateway-http";
/// Bytes of one answer: room for `RECORDS_MAX` peers with all their addresses.
const ANSWER_BYTES_MAX: usize = 2 << 20;
