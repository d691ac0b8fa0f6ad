//! What the network part counts, for `/metrics`.
//!
//! Ours, named `cairn_…`, are in the operator's registry; libp2p's own come as text from
//! [`Foreign`]. Labels take values from fixed lists only: never a peer, an address or an agent.

use crate::dht::message::Kind;
use crate::swarm::Ceiling;
use crate::swarm::gate::Gate;
use crate::swarm::keeper::Keeper;
use crate::swarm::meter::Meter;
use crate::tasks::Tasks;
use libp2p::metrics::{Metrics as Libp2p, Recorder};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry as ForeignRegistry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the swarm's worker counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) peers: IntGauge,
    pub(crate) connections_in: IntGauge,
    pub(crate) connections_out: IntGauge,
    pub(crate) dials_failed: IntCounter,
    pub(crate) arrivals_failed: IntCounter,
    pub(crate) reachable: IntGauge,
    pub(crate) relays: IntGauge,
    pub(crate) records: IntGauge,
    pub(crate) dht_peers: IntGauge,
    pub(crate) dht_values: IntGauge,
    /// Streams of peers with DHT requests that were refused.
    pub(crate) dht_refused: IntCounter,
    requests: IntCounterVec,
    asked: IntCounterVec,
    queries: IntCounterVec,
    turn: Histogram,
}

/// Kinds of DHT query.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Query {
    Find,
    Provide,
    Refresh,
    Peer,
    Nearest,
    Value,
    Keep,
}

/// How a DHT request of ours ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Answered,
    Told,
    Failed,
}

/// How a DHT query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    TooSlow,
    Nobody,
}

impl Query {
    const fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Provide => "provide",
            Self::Refresh => "refresh",
            Self::Peer => "peer",
            Self::Nearest => "nearest",
            Self::Value => "value",
            Self::Keep => "keep",
        }
    }
}

impl Request {
    const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Told => "told",
            Self::Failed => "failed",
        }
    }
}

impl Ended {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::TooSlow => "too_slow",
            Self::Nobody => "nobody",
        }
    }
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let peers = IntGauge::new("cairn_peers", "Peers we are connected to.")?;
        let connections = IntGaugeVec::new(
            Opts::new("cairn_connections", "Open connections by who dialled."),
            &["direction"],
        )?;
        let dials_failed = IntCounter::new(
            "cairn_dials_failed_total",
            "Dials that led to no connection.",
        )?;
        let arrivals_failed = IntCounter::new(
            "cairn_arrivals_failed_total",
            "Arriving connections that were refused or broke off before they were up.",
        )?;
        let reachable = IntGauge::new(
            "cairn_reachable",
            "1 while it is known that peers can reach this node, else 0.",
        )?;
        let relays = IntGauge::new(
            "cairn_relays_held",
            "Relays that lend this node a way because it cannot be reached.",
        )?;
        let records = IntGauge::new(
            "cairn_dht_records",
            "Provider records kept for other peers.",
        )?;
        let dht_peers = IntGauge::new("cairn_dht_peers", "Peers in the DHT's routing tables.")?;
        let dht_values = IntGauge::new(
            "cairn_dht_values",
            "IPNS records and public keys kept for other peers.",
        )?;
        let dht_refused = IntCounter::new(
            "cairn_dht_streams_refused_total",
            "Streams with DHT requests that were refused because too many were being answered.",
        )?;
        let requests = IntCounterVec::new(
            Opts::new(
                "cairn_dht_requests_total",
                "DHT requests made of peers, by how they ended.",
            ),
            &["result"],
        )?;
        let asked = IntCounterVec::new(
            Opts::new("cairn_dht_asked_total", "DHT requests of peers, by kind."),
            &["kind"],
        )?;
        let queries = IntCounterVec::new(
            Opts::new(
                "cairn_dht_queries_total",
                "DHT queries that ended, by kind and how.",
            ),
            &["kind", "result"],
        )?;
        let turn = Histogram::with_opts(
            HistogramOpts::new(
                "cairn_swarm_turn_seconds",
                "Time the swarm's loop took for one event; long ones slow every transfer.",
            )
            .buckets(exponential_buckets(1e-6, 4.0, 10)?),
        )?;
        registry.register(Box::new(peers.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(dials_failed.clone()))?;
        registry.register(Box::new(arrivals_failed.clone()))?;
        registry.register(Box::new(reachable.clone()))?;
        registry.register(Box::new(relays.clone()))?;
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(dht_peers.clone()))?;
        registry.register(Box::new(dht_values.clone()))?;
        registry.register(Box::new(dht_refused.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(asked.clone()))?;
        registry.register(Box::new(queries.clone()))?;
        registry.register(Box::new(turn.clone()))?;
        Ok(Self {
            peers,
            connections_in: connections.with_label_values(&["in"]),
            connections_out: connections.with_label_values(&["out"]),
            dials_failed,
            arrivals_failed,
            reachable,
            relays,
            records,
            dht_peers,
            dht_values,
            dht_refused,
            requests,
            asked,
            queries,
            turn,
        })
    }

    pub(crate) fn query_ended(&self, query: Query, ended: Ended) {
        self.queries
            .with_label_values(&[query.name(), ended.name()])
            .inc();
    }

    pub(crate) fn request_ended(&self, ended: Request) {
        self.requests.with_label_values(&[ended.name()]).inc();
    }

    /// A peer asked something of this kind.
    pub(crate) fn asked(&self, kind: Kind) {
        let name = match kind {
            Kind::PutValue => "put_value",
            Kind::GetValue => "get_value",
            Kind::AddProvider => "add_provider",
            Kind::GetProviders => "get_providers",
            Kind::FindNode => "find_node",
            Kind::Ping => "ping",
        };
        self.asked.with_label_values(&[name]).inc();
    }

    pub(crate) fn turned(&self, took: Duration) {
        self.turn.observe(took.as_secs_f64());
    }
}

/// Puts what is counted elsewhere into the registry: asked for when it is scraped.
pub(crate) fn register_sources(
    registry: &Registry,
    tasks: &Tasks,
    meter: &Arc<Meter>,
    gate: &Arc<Gate>,
) -> Result<(), prometheus::Error> {
    let counter = |name: &str, help: &str| IntCounter::new(name, help);
    let by = |name: &str, help: &str, value: &str| {
        IntCounter::with_opts(Opts::new(name, help).const_label("direction", value))
    };
    let bytes = ("cairn_bandwidth_bytes_total", "Bytes over all connections.");
    let outside = (
        "cairn_outside_refused_total",
        "Dials and arrivals refused because they lie outside the configured network.",
    );
    let tasks = tasks.clone();
    let meters = [Arc::clone(meter), Arc::clone(meter)];
    let fences = [Arc::clone(gate), Arc::clone(gate)];
    let [meter_in, meter_out] = meters;
    let (floods, refused, holds) = (Arc::clone(meter), Arc::clone(meter), Arc::clone(meter));
    let [fence_in, fence_out] = fences;
    let sources = vec![
        Source::new(
            counter("cairn_task_panics_total", "Tasks that panicked.")?,
            move || tasks.panics(),
        ),
        Source::new(
            counter(
                "cairn_stream_floods_total",
                "Connections that ended because the peer opened streams too fast.",
            )?,
            move || floods.floods(),
        ),
        Source::new(
            counter(
                "cairn_streams_refused_total",
                "Streams of peers refused because too many were open or waited to be taken.",
            )?,
            move || refused.refused_streams(),
        ),
        Source::new(
            counter(
                "cairn_stream_holds_total",
                "Times that a connection's new streams had to wait since it had opened too many.",
            )?,
            move || holds.holds(),
        ),
        Source::new(by(bytes.0, bytes.1, "in")?, move || meter_in.totals().0),
        Source::new(by(bytes.0, bytes.1, "out")?, move || meter_out.totals().1),
        Source::new(by(outside.0, outside.1, "in")?, move || {
            fence_in.outside().arrivals()
        }),
        Source::new(by(outside.0, outside.1, "out")?, move || {
            fence_out.outside().dials()
        }),
    ];
    for source in sources {
        registry.register(Box::new(source))?;
    }
    Ok(())
}

/// Who was not let in, not dialled, or let go.
pub(crate) fn register_keeper(
    registry: &Registry,
    keeper: &Keeper,
    gate: &Arc<Gate>,
) -> Result<(), prometheus::Error> {
    let refused = |reason: &str, direction: &str| {
        let opts = Opts::new(
            "cairn_connections_refused_total",
            "Dials and arrivals refused, by why: as many from their address or in all as may be, hardly any files \
             left to open, a filter, too many dials waiting.",
        );
        let opts = opts.const_label("reason", reason);
        IntCounter::with_opts(opts.const_label("direction", direction))
    };
    let [crowded, files_in, files_out, trimmed, away] = [(); 5].map(|()| keeper.clone());
    let [limit_in, limit_out] = [(); 2].map(|()| keeper.clone());
    let [filter_in, filter_out, line] = [(); 3].map(|()| Arc::clone(gate));
    let trims = IntCounter::new(
        "cairn_connections_trimmed_total",
        "Connections closed because there were more than `connections.high`.",
    )?;
    for source in [
        Source::new(refused("address", "in")?, move || crowded.crowded()),
        Source::new(refused("limit", "in")?, move || limit_in.overfull().0),
        Source::new(refused("limit", "out")?, move || limit_out.overfull().1),
        Source::new(refused("files", "in")?, move || files_in.without_files().0),
        Source::new(refused("files", "out")?, move || {
            files_out.without_files().1
        }),
        Source::new(refused("filter", "in")?, move || {
            filter_in.filtered().arrivals()
        }),
        Source::new(refused("filter", "out")?, move || {
            filter_out.filtered().dials()
        }),
        Source::new(refused("line", "out")?, move || line.overflowed()),
        Source::new(trims, move || trimmed.trimmed()),
    ] {
        registry.register(Box::new(source))?;
    }
    let gauge = IntGauge::new(
        "cairn_peering_away",
        "Peers to stay connected to that are not connected.",
    )?;
    registry.register(Box::new(Level {
        gauge,
        read: Box::new(move || away.away()),
    }))
}

/// The limit of memory, and whom it kept away.
pub(crate) fn register_memory(
    registry: &Registry,
    ceiling: &Arc<Ceiling>,
) -> Result<(), prometheus::Error> {
    let refused = |direction: &str| {
        let opts = Opts::new(
            "cairn_limits_memory_refused_total",
            "Dials and arrivals refused because this process had more memory than `limits.memory`.",
        );
        IntCounter::with_opts(opts.const_label("direction", direction))
    };
    let [arrivals, dials, most] = [(); 3].map(|()| Arc::clone(ceiling));
    for source in [
        Source::new(refused("in")?, move || arrivals.refused().0),
        Source::new(refused("out")?, move || dials.refused().1),
    ] {
        registry.register(Box::new(source))?;
    }
    let limit = IntGauge::new(
        "cairn_limits_memory_bytes",
        "The limit of memory as configured; 0 for none.",
    )?;
    registry.register(Box::new(Level {
        gauge: limit,
        read: Box::new(move || most.most()),
    }))
}

/// A counter that follows a number kept by somebody else.
struct Source {
    counter: IntCounter,
    alone: Mutex<()>,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Source {
    fn new(counter: IntCounter, read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            counter,
            alone: Mutex::new(()),
            read: Box::new(read),
        }
    }
}

impl Collector for Source {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // One scrape at a time, or two would both add the same difference.
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let more = (self.read)().saturating_sub(self.counter.get());
        self.counter.inc_by(more);
        self.counter.collect()
    }
}

/// A gauge that does.
struct Level {
    gauge: IntGauge,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Collector for Level {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge
            .set(i64::try_from((self.read)()).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}

/// libp2p's own metrics.
pub(crate) struct Foreign {
    registry: Arc<ForeignRegistry>,
    metrics: Libp2p,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Foreign")
    }
}

impl Foreign {
    pub(crate) fn new() -> Self {
        let mut registry = ForeignRegistry::default();
        let metrics = Libp2p::new(&mut registry);
        Self {
            registry: Arc::new(registry),
            metrics,
        }
    }

    pub(crate) fn registry(&self) -> Arc<ForeignRegistry> {
        Arc::clone(&self.registry)
    }

    pub(crate) fn record<E>(&self, event: &E)
    where
        Libp2p: Recorder<E>,
    {
        self.metrics.record(event);
    }
}

/// The registry in text format 0.0.4, without `# EOF`, so that other text may come before and
/// after it.
pub(crate) fn encode(registry: &ForeignRegistry) -> String {
    let mut open_metrics = String::new();
    if encode_registry(&mut open_metrics, registry).is_err() {
        // Writing into a string does not fail; if it did, half a page would be a lie.
        return String::new();
    }
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if let Some(line) = to_plain(line) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// One line of OpenMetrics as the older format has it. There a counter is declared under the name
/// of its sample, units are not declared, and some types do not exist.
fn to_plain(line: &str) -> Option<String> {
    let mut words = line.splitn(4, ' ');
    let (hash, keyword) = (words.next()?, words.next().unwrap_or_default());
    if hash != "#" {
        return Some(line.to_owned());
    }
    let (name, rest) = (words.next()?, words.next().unwrap_or_default());
    match (keyword, rest) {
        ("TYPE", "counter") => Some(format!("# TYPE {name}_total counter")),
        ("TYPE", "gauge" | "histogram" | "summary") => Some(line.to_owned()),
        ("TYPE", _) => Some(format!("# TYPE {name} untyped")),
        // A help under a counter's short name would declare a second, empty family.
        ("HELP", _) => None,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder, TextEncoder};

    #[test]
    fn one_page_holds_both_and_every_line_is_of_the_old_format() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.query_ended(Query::Find, Ended::TooSlow);
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut page)
            .unwrap();
        let mut page = String::from_utf8(page).unwrap();
        let foreign = Foreign::new();
        page.push_str(&encode(&foreign.registry()));
        assert!(page.contains("cairn_dht_queries_total{kind=\"find\",result=\"too_slow\"} 1"));
        assert!(page.contains("libp2p_"), "{page}");
        let mut declared = std::collections::HashSet::new();
        for line in page.lines() {
            assert!(!line.contains("EOF"));
            let words: Vec<_> = line.split(' ').collect();
            if words[0] != "#" {
                continue;
            }
            assert!(matches!(words[1], "TYPE" | "HELP"), "{line}");
            if words[1] == "TYPE" {
                assert!(declared.insert(words[2]), "declared twice: {line}");
                let kinds = ["counter", "gauge", "histogram", "untyped"];
                assert!(kinds.contains(&words[3]), "{line}");
            }
        }
    }

    #[test]
    fn what_others_count_is_read_when_scraped() {
        let registry = Registry::new();
        let meter = Meter::new(std::time::Instant::now());
        let tasks = Tasks::new();
        register_sources(&registry, &tasks, &meter, &Arc::default()).unwrap();
        let families = registry.gather();
        let panics = families
            .iter()
            .find(|family| family.name() == "cairn_task_panics_total")
            .unwrap();
        assert_eq!(panics.get_metric()[0].get_counter().get_value(), 0.0);
        let bytes = families
            .iter()
            .find(|family| family.name() == "cairn_bandwidth_bytes_total")
            .unwrap();
        assert_eq!(bytes.get_metric().len(), 2);
        assert_eq!(registry.gather(), families, "scraping changes nothing");
    }
}
