//! What the gateway counts, and the place of a running request.

use crate::access::Line;
use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// What was asked for, as far as metrics tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pages of our own, redirects, and what was not understood.
    Other,
    /// A file, or a folder through its `index.html`.
    File,
    /// A folder's page.
    Directory,
    /// A block.
    Raw,
    /// A CAR.
    Car,
    /// A TAR.
    Tar,
    /// A document of an IPLD codec.
    Dag,
    /// The record of a name.
    Name,
    /// Who has what.
    Routing,
}

impl Kind {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Other, "other"),
        (Self::File, "file"),
        (Self::Directory, "directory"),
        (Self::Raw, "raw"),
        (Self::Car, "car"),
        (Self::Tar, "tar"),
        (Self::Dag, "dag"),
        (Self::Name, "name"),
        (Self::Routing, "routing"),
    ];

    /// As metrics and logs have it.
    pub(crate) fn name(self) -> &'static str {
        let row = Self::ALL.iter().find(|(kind, _)| *kind == self);
        row.map_or("other", |(_, name)| name)
    }
}

/// The gateway's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// One counter for each class and kind, looked up once: `KINDS` times `CLASSES`.
    requests: Vec<IntCounter>,
    latency: Histogram,
    bytes: IntCounter,
    running: IntGauge,
    connections: IntGauge,
    streams: IntGauge,
    refused: IntCounter,
    broken: IntCounter,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "cairn_gateway_requests_total",
                "Requests answered, by class of status and by format.",
            ),
            &["status", "format"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let mut table = Vec::with_capacity(CLASSES.len() * Kind::ALL.len());
        for class in CLASSES {
            for (_, kind) in Kind::ALL {
                table.push(requests.with_label_values(&[class, kind]));
            }
        }
        let latency = Histogram::with_opts(
            HistogramOpts::new(
                "cairn_gateway_first_byte_seconds",
                "Time from a request's head to its answer's.",
            )
            .buckets(LATENCY_SECONDS.to_vec()),
        )?;
        registry.register(Box::new(latency.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            inner: Arc::new(Inner {
                requests: table,
                latency,
                bytes: counter(
                    "cairn_gateway_sent_bytes_total",
                    "Bytes of answers' bodies handed to connections.",
                )?,
                running: gauge(
                    "cairn_gateway_requests_running",
                    "Requests worked on, bodies still being sent included.",
                )?,
                connections: gauge("cairn_gateway_connections", "Open connections.")?,
                streams: gauge(
                    "cairn_gateway_streams",
                    "Open streams of peers, over libp2p.",
                )?,
                refused: counter(
                    "cairn_gateway_refused_total",
                    "Requests answered with 429 because too many were running.",
                )?,
                broken: counter(
                    "cairn_gateway_broken_total",
                    "Answers broken off after their head was sent.",
                )?,
            }),
        })
    }

    /// A request starts; it holds `place` until it ends.
    pub(crate) fn start(&self, place: OwnedSemaphorePermit, line: Option<Box<Line>>) -> Running {
        self.inner.running.inc();
        Running {
            line,
            metrics: self.clone(),
            started: Instant::now(),
            _place: place,
        }
    }

    /// A request was turned away.
    pub(crate) fn refused(&self) {
        self.inner.refused.inc();
        self.count(StatusCode::TOO_MANY_REQUESTS, Kind::Other);
    }

    /// A connection opens; the guard is dropped when it closes.
    pub(crate) fn connected(&self) -> Connected {
        Connected::to(&self.inner.connections)
    }

    /// The same for a peer's stream.
    pub(crate) fn visited(&self) -> Connected {
        Connected::to(&self.inner.streams)
    }

    fn count(&self, status: StatusCode, kind: Kind) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let column = Kind::ALL
            .iter()
            .position(|(known, _)| *known == kind)
            .unwrap_or(0);
        if let Some(counter) = self.inner.requests.get(class * Kind::ALL.len() + column) {
            counter.inc();
        }
    }
}

/// A request that runs.
#[derive(Debug)]
pub(crate) struct Running {
    line: Option<Box<Line>>,
    metrics: Metrics,
    started: Instant,
    _place: OwnedSemaphorePermit,
}

impl Running {
    /// Its head is answered.
    pub(crate) fn answered(&mut self, status: StatusCode, kind: Kind) {
        self.metrics
            .inner
            .latency
            .observe(self.started.elapsed().as_secs_f64());
        self.metrics.count(status, kind);
        if let Some(line) = &mut self.line {
            line.answered(status, kind);
        }
    }

    /// Bytes of its body went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.sent(bytes);
        }
        self.metrics.inner.bytes.inc_by(bytes as u64);
    }

    /// There is no more of its body.
    pub(crate) fn ended(&mut self) {
        if let Some(line) = &mut self.line {
            line.ended();
        }
    }

    /// Its body broke off.
    pub(crate) fn broke(&self) {
        self.metrics.inner.broken.inc();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metrics.inner.running.dec();
    }
}

/// A connection or a stream that is open.
#[derive(Debug)]
pub(crate) struct Connected {
    open: IntGauge,
}

impl Connected {
    fn to(open: &IntGauge) -> Self {
        open.inc();
        Self { open: open.clone() }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.open.dec();
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Cached content in the first, content from far away in the last.
const LATENCY_SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0,
];
