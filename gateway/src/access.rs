//! The access log: a line for each request when its answer has ended, with what was handed to its connection.
//!
//! It is off unless the log's directives let `gateway::access=info` through; a request that is not logged costs one
//! look at that. Everything foreign is quoted and cut.

use crate::body::Body;
use crate::host::Known;
use crate::metrics::Kind;
use cairn_node::PeerId;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header, request::Parts};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client {
    /// Who came by TCP.
    Address(SocketAddr),
    /// Who came over a stream of libp2p.
    Peer(PeerId),
}

impl fmt::Display for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::Peer(peer) => peer.fmt(out),
        }
    }
}

/// What a line says.
#[derive(Debug)]
pub(crate) struct Line {
    client: Option<Client>,
    method: Method,
    target: String,
    host: String,
    agent: String,
    forwarded: String,
    started: Instant,
    /// `None` while nothing is answered: its client may not wait for it.
    status: Option<StatusCode>,
    kind: Kind,
    bytes: u64,
    /// Whether its body went out to its end.
    whole: bool,
}

impl Line {
    /// The beginning of a line, if there is to be one. Anybody can send `X-Forwarded-For`: it counts from proxies alone.
    pub(crate) fn begin(parts: &Parts, hosts: &Known) -> Option<Box<Self>> {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return None;
        }
        let client = parts.extensions.get::<Client>().copied();
        let forwarded = match hosts.trusts(client) {
            true => of(&parts.headers, HeaderName::from_static("x-forwarded-for")),
            false => String::new(),
        };
        Some(Box::new(Self {
            client,
            method: parts.method.clone(),
            target: shown(&parts.uri.to_string()),
            host: of(&parts.headers, header::HOST),
            agent: of(&parts.headers, header::USER_AGENT),
            forwarded,
            started: Instant::now(),
            status: None,
            kind: Kind::Other,
            bytes: 0,
            whole: false,
        }))
    }

    /// Its head is answered.
    pub(crate) fn answered(&mut self, status: StatusCode, kind: Kind) {
        (self.status, self.kind) = (Some(status), kind);
    }

    /// It is turned away with this, which goes out whole.
    pub(crate) fn refused(&mut self, response: &Response<Body>) {
        self.answered(response.status(), Kind::Other);
        self.bytes = response.body().length().unwrap_or_default();
        self.whole = true;
    }

    /// Bytes of its body went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// There is no more of its body.
    pub(crate) fn ended(&mut self) {
        self.whole = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: TARGET,
            client = self.client.map(tracing::field::display),
            method = %self.method,
            target = ?self.target,
            host = ?self.host,
            status = self.status.map(|status| status.as_u16()),
            format = self.kind.name(),
            bytes = self.bytes,
            milliseconds,
            broken = !self.whole,
            agent = ?self.agent,
            forwarded = ?self.forwarded,
        );
    }
}

fn of(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers.get(name).map(http::HeaderValue::as_bytes);
    shown(&String::from_utf8_lossy(value.unwrap_or_default()))
}

/// Cut; what is not printable is written out where it is logged.
fn shown(text: &str) -> String {
    text.chars().take(CHARS_MAX).collect()
}

/// As in the log's directives.
const TARGET: &str = "gateway::access";
/// Characters of one foreign text in a line.
const CHARS_MAX: usize = 1024;
