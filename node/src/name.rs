//! Names that may change: IPNS records signed, told to others, found and kept fresh.
//!
//! ```text
//! publish ─► a number above all that are known ─► signed ─► noted on disk ─► told to those nearest to the name
//! resolve ─► what is known and valid: at once, and looked for again behind, if that is not fresh any more
//!        └─► else looked for: the best record, as soon as it hardly pays to wait for a better one
//! ```
//!
//! * [`publish`]: what this node signs. A number is never used twice: before a record leaves, the journal has it.
//! * [`resolve`]: from a name to its newest record; `search.rs` says when a search has found enough.
//! * [`path`], [`domain`], [`dnslink`], [`dns`]: the other kind of names, domains, whose DNSLink says where they lead.
//! * [`follow`]: from name to name until content is reached; [`resolver`] does it with records and DNSLinks.
//! * [`keep`]: other people's records that are told again from here.
//! * [`pubsub`]: records that others tell of as soon as they are published, over gossipsub.
//! * `cache.rs`: records of others that were found, within bounds.
//! * `republish.rs`: what was signed is told again before others forget it, and signed anew before it expires.
//!
//! Time is the wall's, as records have it: one that has expired is refused a moment later at the latest, and a clock
//! from before this program was made is not believed at all, or every old record would hold again.

mod cache;
pub mod dns;
pub mod dnslink;
pub mod domain;
pub mod follow;
pub mod keep;
mod metrics;
pub mod path;
pub mod publish;
pub mod pubsub;
pub mod republish;
pub mod resolve;
pub mod resolver;
mod search;
#[cfg(test)]
mod simulation;

use crate::clock::{self, WrongClock};
use crate::denylist::Denylist;
use crate::ipns::{Record, RecordError};
use crate::jobs;
use crate::routing::{Routing, RoutingError};
use crate::tasks::Tasks;
use cache::Cache;
use cairn_store::Store;
use cairn_store::notes::About;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use libp2p::PeerId;
use metrics::Metrics;
use prometheus::Registry;
use publish::Noted;
use pubsub::Pubsub;
use republish::{Fresh, Keys, Republish};
use resolve::Searches;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

/// A handle on names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Names(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// Where others are asked and told; none without a network.
    network: Option<Arc<dyn Network>>,
    cache: Mutex<Cache>,
    /// Held by whoever takes the next number of a name, until the journal has it.
    signing: Arc<tokio::sync::Mutex<()>>,
    /// Held by whoever changes what is kept alive.
    keeping: tokio::sync::Mutex<()>,
    /// Names whose numbers elsewhere were looked for.
    looked_for: Mutex<HashSet<PeerId>>,
    searches: Mutex<Searches>,
    /// How new records of names that are asked for are heard of at once, where that is switched on.
    pubsub: OnceLock<Pubsub>,
    tasks: Tasks,
    options: Options,
    /// What is not told again.
    denylist: OnceLock<Denylist>,
    /// What was published lately, for who tells it again.
    fresh: Fresh,
    metrics: Metrics,
    clock: fn() -> SystemTime,
}

/// What the operator chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// However long its owner lets a record be, others are asked after this; what is known is told meanwhile.
    pub max_cache_ttl: Duration,
    /// Whether names that are asked for are followed over gossipsub. Peers see which ones are.
    pub pubsub: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_cache_ttl: MAX_CACHE_TTL,
            pubsub: false,
        }
    }
}

/// What names need of the network.
pub(crate) trait Network: fmt::Debug + Send + Sync + 'static {
    /// Records kept under a key, each valid. An error comes last.
    fn values(&self, key: Vec<u8>) -> BoxStream<'static, Result<Vec<u8>, RoutingError>>;
    /// Has others keep a record; how many took it.
    fn keep(&self, key: Vec<u8>, value: Vec<u8>)
    -> BoxFuture<'static, Result<usize, RoutingError>>;
}

impl Network for Routing {
    fn values(&self, key: Vec<u8>) -> BoxStream<'static, Result<Vec<u8>, RoutingError>> {
        Self::values(self, key).boxed()
    }

    fn keep(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> BoxFuture<'static, Result<usize, RoutingError>> {
        let this = self.clone();
        async move { Self::keep(&this, key, value).await }.boxed()
    }
}

/// Why bytes are no record that holds.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// They are none, or not now.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Whether it has expired cannot be told.
    #[error(transparent)]
    Clock(#[from] WrongClock),
}

impl Names {
    /// Names of a node with a network, or of a repository without one.
    pub fn new(store: Store, routing: Option<Routing>, options: Options, tasks: &Tasks) -> Self {
        let network = routing.map(|routing| Arc::new(routing) as Arc<dyn Network>);
        Self::over(store, network, options, tasks, SystemTime::now)
    }

    fn over(
        store: Store,
        network: Option<Arc<dyn Network>>,
        options: Options,
        tasks: &Tasks,
        clock: fn() -> SystemTime,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            network,
            cache: Mutex::default(),
            signing: Arc::default(),
            keeping: tokio::sync::Mutex::default(),
            looked_for: Mutex::default(),
            searches: Mutex::default(),
            pubsub: OnceLock::new(),
            tasks: tasks.clone(),
            options,
            denylist: OnceLock::new(),
            fresh: Fresh::default(),
            metrics: Metrics::new(),
            clock,
        }))
    }

    /// Gives the counters to `registry`.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.0.metrics.register(registry)
    }

    /// Names of others that this denies are told of no more.
    fn denying(&self, denylist: Denylist) {
        // There is one for all of a node.
        drop(self.0.denylist.set(denylist));
    }

    fn is_denied(&self, name: &PeerId) -> bool {
        let path = path::Root::Key(*name).into();
        let denylist = self.0.denylist.get();
        denylist.is_some_and(|denylist| denylist.check_path(&path).is_err())
    }

    /// Whether others can be asked.
    pub fn is_online(&self) -> bool {
        self.0.network.is_some()
    }

    /// What is followed over gossipsub, if that is switched on.
    pub fn pubsub(&self) -> Option<&Pubsub> {
        self.0.pubsub.get()
    }

    /// Names that are asked for from now on are followed there.
    fn follow_over(&self, pubsub: Pubsub) {
        // A second one would follow what the first does.
        drop(self.0.pubsub.set(pubsub));
    }

    /// The newest record of a name that is known here, valid or not.
    pub fn known(&self, name: &PeerId) -> Option<Record> {
        let found = self.cache().of(name).map(|found| found.record);
        newest(self.on_disk(name), found)
    }

    /// The newest record of a name that stays here: signed here, or kept alive.
    fn on_disk(&self, name: &PeerId) -> Option<Record> {
        let own = self.noted(name).map(|noted| noted.record);
        newest(own, self.kept_record(name))
    }

    /// What this node signed last for a name.
    fn noted(&self, name: &PeerId) -> Option<Noted> {
        let note = self.0.store.note(About::Published, &name.to_bytes())?;
        Noted::read(name, &note)
    }

    /// Tells others again, from time to time, of what was signed here, and signs it anew.
    pub fn keep_published(&self, keys: Arc<dyn Keys>, every: Duration) {
        jobs::run(Republish::new(self.clone(), keys, every), &self.0.tasks);
    }

    /// Reads a record of a name, if it is one that holds by this node's clock.
    pub fn check(&self, name: &PeerId, bytes: &[u8]) -> Result<Record, CheckError> {
        Ok(Record::valid(name, bytes, self.now()?)?)
    }

    fn now(&self) -> Result<SystemTime, WrongClock> {
        clock::checked((self.0.clock)())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newest(one: Option<Record>, other: Option<Record>) -> Option<Record> {
    match (one, other) {
        (Some(one), Some(other)) if other.age(&one).is_gt() => Some(other),
        (one, other) => one.or(other),
    }
}

/// Unless the operator says otherwise.
pub const MAX_CACHE_TTL: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
