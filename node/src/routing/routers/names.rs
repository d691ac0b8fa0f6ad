//! Records of names (IPNS): asked of routers, and handed to them.
//!
//! A record vouches for itself: whatever a router gives is checked against the name, and what does not hold is
//! as good as none. A router that takes no records is handed none for a while; one that rests after a short failure is
//! waited for, since nobody hands it the same record again soon.

use super::metrics::Outcome;
use super::{BASE, Router, Routers, media_type};
use crate::http::{self, Connection, Failure, Refusal, judge};
use crate::ipns::{self, RECORD_BYTES_MAX};
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Response, StatusCode};
use libp2p::PeerId;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// What a router knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::routing) enum Known {
    /// A record that holds.
    Record(Vec<u8>),
    /// That there is none.
    Nothing,
    /// It was not asked, or did not say.
    Unsaid,
}

/// What came of handing a record to a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing) enum Put {
    /// It keeps it.
    Taken,
    /// It has a newer one.
    Newer,
    /// It does not keep it, or cannot be asked to.
    Not,
}

impl Routers {
    /// What each of them knows of a name, as they answer.
    pub(in crate::routing) fn records(&self, name: &PeerId) -> BoxStream<'static, Known> {
        let routers = self.0.iter().cloned();
        let ask = |router: Arc<Router>| {
            let name = *name;
            async move { router.record(&name).await }
        };
        routers.map(ask).collect::<FuturesUnordered<_>>().boxed()
    }

    /// Hands all of them a record that holds; ends when each has taken it or has not.
    pub(in crate::routing) async fn put(&self, name: &PeerId, record: Bytes) -> Vec<Put> {
        let routers = self.0.iter();
        join_all(routers.map(|router| router.put(name, record.clone()))).await
    }
}

/// An answer about a name.
enum Answer {
    Bytes(Vec<u8>),
    /// Something else than a record.
    Other,
    /// Such questions are not answered there.
    Unsupported,
}

impl Router {
    async fn record(&self, name: &PeerId) -> Known {
        let Some((asked, _place)) = self.place().await else {
            return Known::Unsaid;
        };
        let answer = match timeout_at(asked.until, self.ask_for(name)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => {
                self.refused(refusal, asked.at);
                return match refusal {
                    Refusal::Absent => Known::Nothing,
                    _ => Known::Unsaid,
                };
            }
            Err(_) => {
                self.failed(Failure::TooSlow, asked.at);
                return Known::Unsaid;
            }
        };
        self.is_well();
        let (outcome, known) = match answer {
            Answer::Bytes(bytes) => match ipns::Record::valid(name, &bytes, crate::clock::wall()) {
                Ok(_) => (Outcome::Answered, Known::Record(bytes)),
                Err(error) => {
                    let router = self.pool.endpoint();
                    tracing::debug!(%router, %name, %error, "a router gave a record that does not hold");
                    (Outcome::Invalid, Known::Unsaid)
                }
            },
            Answer::Other => (Outcome::Empty, Known::Nothing),
            Answer::Unsupported => (Outcome::Unsupported, Known::Unsaid),
        };
        if matches!(known, Known::Record(_) | Known::Nothing) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics.count(outcome);
        known
    }

    async fn ask_for(&self, name: &PeerId) -> Result<Answer, Refusal> {
        let rest = format!("{BASE}/ipns/{}", ipns::text(name));
        let Some((connection, response)) = self.head(&rest, ipns::RECORD_MEDIA).await? else {
            return Ok(Answer::Unsupported);
        };
        if media_type(&response).is_none_or(|kind| kind != ipns::RECORD_MEDIA) {
            // What it says instead is for people.
            self.finish(connection, response).await;
            return Ok(Answer::Other);
        }
        let patience = self.limits.times.body_idle;
        let read = timeout(patience, read(response.into_body())).await;
        let bytes = read.unwrap_or(Err(Failure::TooSlow))?;
        self.keep_connection(connection).await;
        Ok(Answer::Bytes(bytes))
    }

    async fn put(&self, name: &PeerId, record: Bytes) -> Put {
        if (*self.takes_none()).is_some_and(|until| Instant::now() < until) {
            return Put::Not;
        }
        let rests = self.rest().left(Instant::now());
        if rests <= REST_WAITED_FOR_MAX {
            sleep(rests).await;
        }
        let Some((asked, _place)) = self.place().await else {
            return Put::Not;
        };
        match timeout_at(asked.until, self.hand_over(name, record)).await {
            Ok(Ok((outcome, put))) => {
                self.is_well();
                self.metrics.count(outcome);
                put
            }
            Ok(Err(refusal)) => {
                self.refused(refusal, asked.at);
                Put::Not
            }
            Err(_) => {
                self.failed(Failure::TooSlow, asked.at);
                Put::Not
            }
        }
    }

    async fn hand_over(&self, name: &PeerId, record: Bytes) -> Result<(Outcome, Put), Refusal> {
        let rest = format!("{BASE}/ipns/{}", ipns::text(name));
        let make = || {
            let request = http::put(self.pool.endpoint(), &rest, ipns::RECORD_MEDIA);
            let request = request.body(http::Body::new(record.clone()));
            request.map_err(|_| Failure::Broken)
        };
        let (connection, response) = self
            .exchange(&make, self.limits.times.search + PUT_TIME_MORE)
            .await?;
        let status = response.status();
        let came = match status {
            _ if status.is_success() => (Outcome::Taken, Put::Taken),
            StatusCode::CONFLICT => (Outcome::Newer, Put::Newer),
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => {
                *self.takes_none() = Some(Instant::now() + TAKES_NONE);
                (Outcome::Unsupported, Put::Not)
            }
            _ => match judge(status, response.headers()) {
                Ok(()) | Err(Refusal::Absent) => (Outcome::Refused, Put::Not),
                Err(refusal) => return Err(refusal),
            },
        };
        if !status.is_success() {
            let router = self.pool.endpoint();
            tracing::debug!(%router, %name, %status, "a router did not take a record");
        }
        self.finish(connection, response).await;
        Ok(came)
    }

    fn takes_none(&self) -> MutexGuard<'_, Option<Instant>> {
        let until = self.takes_none.lock();
        until.unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection of an answer of which only the head mattered, if little is left of it.
    async fn finish(&self, connection: Connection, response: Response<Incoming>) {
        let rest = timeout(FINISH_TIME_MAX, read(response.into_body()));
        if matches!(rest.await, Ok(Ok(_))) {
            self.keep_connection(connection).await;
        }
    }
}

/// A body that is no longer than a record may be.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    if body.size_hint().lower() > RECORD_BYTES_MAX as u64 {
        return Err(Failure::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers say nothing that matters here.
        if let Ok(piece) = frame.map_err(|_| Failure::Broken)?.into_data() {
            if bytes.len() + piece.len() > RECORD_BYTES_MAX {
                return Err(Failure::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes)
}

/// For how long a router that takes no records is handed none: its operator may let it take them one day.
const TAKES_NONE: Duration = Duration::from_secs(600);
/// The longest rest of a router that is waited for before it is handed a record.
const REST_WAITED_FOR_MAX: Duration = Duration::from_secs(5);
/// How much longer a router may take over a record than over a question: it has others keep it.
const PUT_TIME_MORE: Duration = Duration::from_secs(10);
/// How long the rest of an answer is read only to keep its connection.
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);
