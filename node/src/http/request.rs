//! One question to an HTTP service, or one thing told to it: sent over a kept connection if there is one, its answer judged
//! by its head.
//!
//! Redirects are not followed: nobody but who was named is asked.

use super::connection::{Connection, Pool};
use super::endpoint::Endpoint;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Builder;
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use std::time::Duration;
use tokio::time::timeout;

/// What goes with a request: nothing, if it is a question.
pub(crate) type Body = Full<Bytes>;

/// A question for `rest` below the service's path, without a body.
pub(crate) fn get(endpoint: &Endpoint, rest: &str, accept: &str) -> Builder {
    Request::get(endpoint.target(rest))
        .header(header::HOST, endpoint.authority())
        .header(header::ACCEPT, accept)
        .header(header::USER_AGENT, USER_AGENT)
}

/// The same to have something kept there, of this media type.
pub(crate) fn put(endpoint: &Endpoint, rest: &str, kind: &str) -> Builder {
    Request::put(endpoint.target(rest))
        .header(header::HOST, endpoint.authority())
        .header(header::CONTENT_TYPE, kind)
        .header(header::USER_AGENT, USER_AGENT)
}

/// Sends a request that may be sent twice, over a kept connection if there is one.
pub(crate) async fn send(
    pool: &Pool,
    make: impl Fn() -> Result<Request<Body>, Failure>,
    patience: Duration,
) -> Result<(Connection, Response<Incoming>), Failure> {
    while let Some(mut kept) = pool.kept() {
        match timeout(patience, kept.send_request(make()?)).await {
            Ok(Ok(response)) => return Ok((kept, response)),
            // It was closed while nobody looked: the question may be asked again.
            Ok(Err(error)) => tracing::trace!(%error, "a kept connection was of no use"),
            Err(_) => return Err(Failure::TooSlow),
        }
    }
    let mut fresh = pool.connect().await?;
    match timeout(patience, fresh.send_request(make()?)).await {
        Ok(Ok(response)) => Ok((fresh, response)),
        Ok(Err(_)) => Err(Failure::Broken),
        Err(_) => Err(Failure::TooSlow),
    }
}

/// Why nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No address of it lies inside the network.
    Outside,
    /// No connection.
    Unreachable,
    /// Not who it should be.
    Tls,
    /// It sends us somewhere else.
    Redirect,
    /// It says that something is wrong with it.
    Status,
    /// More bytes than were asked for.
    TooLarge,
    /// No answer, or hardly any bytes.
    TooSlow,
    /// The answer was cut, or is no HTTP.
    Broken,
    /// We are stopping.
    Stopping,
}

impl Failure {
    /// Every word that [`Failure::word`] may be.
    pub(crate) const WORDS: [&str; 8] = [
        "outside",
        "unreachable",
        "tls",
        "redirect",
        "status",
        "too_large",
        "too_slow",
        "broken",
    ];

    /// What metrics call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Redirect => "redirect",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken | Self::Stopping => "broken",
        }
    }

    /// The same for people, who know of whom.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Outside => "it has no address inside the network",
            Self::Unreachable => "no connection to it is made",
            Self::Tls => "it does not prove who it is (TLS)",
            Self::Redirect => "it sends its callers somewhere else",
            Self::Status => "it answers with an error",
            Self::TooLarge => "it answers with more than is read",
            Self::TooSlow => "it does not answer in time",
            Self::Broken | Self::Stopping => "its answer broke off, or is none that is understood",
        }
    }

    /// Whether it is the service's, whatever it is asked for.
    pub(crate) fn is_general(self) -> bool {
        matches!(
            self,
            Self::Outside | Self::Unreachable | Self::Tls | Self::Redirect
        )
    }
}

/// Why a question came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Absent,
    /// Nobody on the way has it at hand.
    NotCached,
    Busy(Option<Duration>),
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What the head of an answer says about it.
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Refusal> {
    let encoded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes() != b"identity");
    match status {
        StatusCode::OK if encoded => Err(Failure::Status.into()),
        StatusCode::OK => Ok(()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(Refusal::Busy(retry_after(headers)))
        }
        StatusCode::GATEWAY_TIMEOUT => Err(Refusal::NotCached),
        StatusCode::REQUEST_TIMEOUT => Err(Failure::TooSlow.into()),
        // 404, 410, 412, 451 and whatever else it will not give.
        status if status.is_client_error() => Err(Refusal::Absent),
        status if status.is_redirection() => Err(Failure::Redirect.into()),
        _ => Err(Failure::Status.into()),
    }
}

/// In seconds; a date is as good as nothing said.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

/// Who we say that we are.
const USER_AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));
