//! One question to a gateway and what comes of it.
//!
//! `GET /ipfs/<cid>?format=raw`, first with `Cache-Control: only-if-cached`: does it have the
//! block? That is answered at once, so a block that is elsewhere is soon asked for elsewhere, and
//! two nodes that are each other's gateways do not send each other looking. Only for a block that
//! nobody turned out to have is the gateway asked a second time, without it, and may look for it
//! itself.
//!
//! The body is bounded before it is read. It has to come at a pace worth waiting for, and it goes
//! to the verifier like the payload of a message: whether it is the block is found out there.

use super::metrics::Metrics;
use crate::bitswap::message::{Payload, prefix_of};
use crate::bitswap::streams::{Intake, Sinks, Unverified, take_room};
use crate::http::{self, Failure, Pool, Refusal, judge, send};
use bytes::{Bytes, BytesMut};
use cairn_store::Cid;
use cairn_store::block::BLOCK_BYTES_MAX;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Request, header};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How a gateway is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// For what it has.
    Stored,
    /// For what it has or can get.
    Anywhere,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes, which are with the verifier.
    Delivered,
    /// It has none.
    Absent,
    /// It wants to be left alone, for so long if it says so.
    Busy(Option<Duration>),
    Failed(Failure),
}

impl Outcome {
    /// Every word that [`Outcome::word`] may be.
    pub(super) const WORDS: [&str; 11] = [
        "delivered",
        "absent",
        "busy",
        "outside",
        "unreachable",
        "tls",
        "redirect",
        "status",
        "too_large",
        "too_slow",
        "broken",
    ];

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Absent => "absent",
            Self::Busy(_) => "busy",
            Self::Failed(failure) => failure.word(),
        }
    }
}

/// What a request needs.
pub(super) struct Desk<'a> {
    pub(super) pool: &'a Pool,
    pub(super) intake: &'a Intake,
    pub(super) sinks: &'a Sinks,
    pub(super) metrics: &'a Metrics,
}

impl Desk<'_> {
    /// Asks for one block.
    pub(super) async fn get(&self, cid: Cid, ask: Ask) -> Outcome {
        let mut outcome = self.try_get(&cid, ask).await;
        // So does a cache on the way say that it has no copy; whether the gateway has one it cannot
        // know.
        if ask == Ask::Stored && outcome == Err(Refusal::NotCached) {
            outcome = self.try_get(&cid, Ask::Anywhere).await;
        }
        let outcome = outcome.map_or_else(Outcome::from, |()| Outcome::Delivered);
        self.metrics.count(&outcome);
        outcome
    }

    async fn try_get(&self, cid: &Cid, ask: Ask) -> Result<(), Refusal> {
        // No block of ours to ask for: nothing could be made of the answer.
        let prefix = prefix_of(cid).ok_or(Refusal::Absent)?;
        let times = &self.pool.times;
        let patience = match ask {
            Ask::Stored => times.head,
            Ask::Anywhere => times.search,
        };
        let make = || self.request(cid, ask);
        let (mut connection, response) = send(self.pool, make, patience).await?;
        judge(response.status(), response.headers())?;
        let body = response.into_body();
        let bytes_max = BLOCK_BYTES_MAX as u64;
        let announced = body.size_hint().exact();
        if announced.is_some_and(|length| length > bytes_max) {
            return Err(Failure::TooLarge.into());
        }
        let kib = announced.unwrap_or(bytes_max).div_ceil(1024).max(1);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = take_room(kib, self.intake, self.sinks)
            .await
            .map_err(|_| Failure::Stopping)?;
        let data = self.read(body).await?;
        let ready = timeout(self.pool.times.body_idle, connection.ready());
        if matches!(ready.await, Ok(Ok(()))) {
            self.pool.keep(connection);
        }
        let unverified = Unverified {
            peer: self.intake.peer,
            blocks: vec![Payload { prefix, data }],
            // How far the others are is not known.
            expected: 0,
            room,
            waiting: self.intake.waits(),
        };
        let sent = self.sinks.unverified.send(unverified).await;
        sent.map_err(|_| Failure::Stopping.into())
    }

    fn request(&self, cid: &Cid, ask: Ask) -> Result<Request<http::Body>, Failure> {
        let endpoint = self.pool.endpoint();
        let mut request = http::get(endpoint, &target(cid, "raw"), "application/vnd.ipld.raw");
        if ask == Ask::Stored {
            request = request.header(header::CACHE_CONTROL, "only-if-cached");
        }
        request
            .body(http::Body::default())
            .map_err(|_| Failure::Broken)
    }

    /// Reads a body of any length that a block may have.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, Failure> {
        let idle = self.pool.times.body_idle;
        let mut data = BytesMut::new();
        let (mut deadline, mut quota) = (Instant::now() + idle, BODY_BYTES_A_PAUSE);
        loop {
            let Some(frame) = timeout_at(deadline, body.frame())
                .await
                .map_err(|_| Failure::TooSlow)?
            else {
                return Ok(data.freeze());
            };
            let Ok(piece) = frame.map_err(|_| Failure::Broken)?.into_data() else {
                continue; // Trailers say nothing that matters here.
            };
            let count = piece.len() as u64;
            self.intake.bytes.fetch_add(count, Ordering::Relaxed);
            self.metrics.bytes.inc_by(count);
            if data.len() + piece.len() > BLOCK_BYTES_MAX {
                return Err(Failure::TooLarge);
            }
            let paying = Instant::now();
            self.pool.pay(piece.len()).await;
            deadline += paying.elapsed();
            // A body in one piece is not copied.
            if data.is_empty() && body.is_end_stream() {
                return Ok(piece);
            }
            data.extend_from_slice(&piece);
            quota = quota.saturating_sub(count);
            if quota == 0 {
                (deadline, quota) = (Instant::now() + idle, BODY_BYTES_A_PAUSE);
            }
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Absent | Refusal::NotCached => Self::Absent,
            Refusal::Busy(wait) => Self::Busy(wait),
            Refusal::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// What is asked for below a gateway's path: a block, or what it is the root of.
pub(super) fn target(cid: &Cid, format: &str) -> String {
    format!("/ipfs/{cid}?format={format}")
}

/// Bytes that must come within the longest pause of a body: slower is as good as nothing.
const BODY_BYTES_A_PAUSE: u64 = 32 << 10;
