//! DNSLinks looked up in DNS: [`Dns`], whom it asks, and what it remembers.
//!
//! * Asked is `_dnslink.NAME` for TXT, and nothing else ([`dnslink`](super::dnslink)).
//! * Whom: `dns.resolvers` says so by suffix (`server.rs`), and `network` whether they may be asked. In `local` no
//!   question leaves this machine, in `lan` none a private network; the system's resolver and names of servers are
//!   for `public`, since whoever they stand for hands questions on. A `swarm.key` changes nothing of it: `network` says
//!   how far a node reaches, the key who understands it.
//! * Everything has a bound: questions at once, waiting ones, time, texts of an answer, what is remembered. Equal
//!   questions at the same time are one.
//!
//! A DNSLink leads to content or to another name, never to an address: nothing is dialled because of one.

mod ask;
mod cache;
mod fixed;
mod server;
#[cfg(test)]
mod tests;

pub use ask::{Absence, Fault};
pub use fixed::{Fixed, NoMap};
pub use server::{NoServer, NoSuffix, Resolvers, Server, Suffix};

use super::dnslink::{Ignored, Links};
use super::domain::Domain;
use super::follow::Target;
use super::path::{NamePath, Root};
use crate::network::Network;
use ask::{Asker, Said};
use cache::{Cache, Outcome};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use prometheus::{IntCounterVec, Opts, Registry};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What the operator chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whom to ask.
    pub resolvers: Resolvers,
    /// For how long an answer is believed at most, whatever it says of itself. Zero remembers nothing.
    pub max_cache_ttl: Duration,
    /// What nobody is asked about.
    pub fixed: Fixed,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resolvers: Resolvers::default(),
            max_cache_ttl: MAX_CACHE_TTL,
            fixed: Fixed::default(),
        }
    }
}

/// How long asking may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// One question, whoever of a resolver's servers answers it.
    pub(crate) question: Duration,
    /// All of a lookup: the place for it, the way there, a question and its repetition.
    pub(crate) lookup: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            question: Duration::from_secs(4),
            lookup: Duration::from_secs(12),
        }
    }
}

/// What a domain leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link that counts.
    pub path: NamePath,
    /// How many others there are, which do not.
    pub others: usize,
    /// What looks like a DNSLink and is none.
    pub ignored: Vec<Ignored>,
}

/// Why a DNSLink was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// `network` does not reach whoever would be asked.
    #[error(
        "/ipns/{domain} is not looked up: its resolver \"{server}\" in `dns.resolvers` is outside the network \
         `{network}`{}; name a resolver {near} there, as in `cairn config set dns.resolvers '{{ \".\" = \
         \"udp://{example}:53\" }}'`, set where the name leads in IPFS_NS_MAP, or `cairn config set network public`",
        if matches!(.server, Server::System) { ", as it hands questions on to others" } else { "" },
        near = if matches!(.network, Network::Local) { "on this machine" } else { "with a private address" },
        example = if matches!(.network, Network::Local) { "127.0.0.1" } else { "192.168.1.1" },
    )]
    Outside {
        /// The name.
        domain: Domain,
        /// Who would be asked.
        server: Server,
        /// How far the node reaches.
        network: Network,
    },
    /// The operator wants nobody asked.
    #[error("/ipns/{0} is not looked up: `dns.resolvers` says that nobody is asked about it")]
    Nobody(Domain),
    /// It was to be answered without asking anybody.
    #[error(
        "/ipns/{0} is not looked up offline, and its DNSLink is not known from before; without --offline it is"
    )]
    Offline(Domain),
    /// No domain of the public DNS has one label.
    #[error(
        "/ipns/{0} leads nowhere: it is the name of no key, and a domain has a dot in it (nobody is asked about other \
         names; IPFS_NS_MAP may have them)"
    )]
    Single(Domain),
    /// There is nothing.
    #[error("/ipns/{domain} leads nowhere: it has no DNSLink, as {} _dnslink.{domain}", match .absence {
        Absence::Name => "there is no name",
        Absence::Record => "there is no TXT record at",
    })]
    Absent {
        /// The name.
        domain: Domain,
        /// What is missing.
        absence: Absence,
    },
    /// There are texts, and none is a link.
    #[error("/ipns/{domain} leads nowhere: no TXT record at _dnslink.{domain} is a DNSLink{}", .ignored.iter().map(|one| format!("; {one}")).collect::<String>())]
    NoLink {
        /// The name.
        domain: Domain,
        /// What looks like one.
        ignored: Vec<Ignored>,
    },
    /// Whoever was asked did not tell.
    #[error(
        "the DNSLink of /ipns/{domain} was not found: the resolver \"{server}\" failed: {fault}"
    )]
    Failed {
        /// The name.
        domain: Domain,
        /// Who was asked.
        server: Server,
        /// How it failed.
        fault: Fault,
    },
    /// Too much is asked at once.
    #[error(
        "/ipns/{0} is not looked up: {WAITING_MAX} other names are being looked up just now; try again in a moment"
    )]
    Busy(Domain),
}

impl LookupError {
    /// Whether it is certain that the name leads nowhere now.
    pub const fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. } | Self::NoLink { .. } | Self::Single(_)
        )
    }
}

/// Looks DNSLinks up. Cheap to clone.
#[derive(Clone)]
pub struct Dns(Arc<Inner>);

struct Inner {
    settings: Settings,
    network: Network,
    times: Times,
    asker: Asker,
    cache: Mutex<Cache>,
    /// What is being asked just now.
    asked: Mutex<HashMap<Domain, WeakShared<Asking>>>,
    places: Semaphore,
    lookups: IntCounterVec,
}

type Asking = BoxFuture<'static, (Outcome, Duration)>;

impl fmt::Debug for Dns {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Dns")
            .field("network", &self.0.network)
            .field("resolvers", &self.0.settings.resolvers)
            .finish_non_exhaustive()
    }
}

impl Dns {
    /// A handle for a node that is limited to `network`. Opens no socket.
    pub fn new(settings: Settings, network: Network) -> Self {
        let times = Times::default();
        Self::with(settings, network, times, Asker::new(times))
    }

    fn with(settings: Settings, network: Network, times: Times, asker: Asker) -> Self {
        Self(Arc::new(Inner {
            settings,
            network,
            times,
            asker,
            cache: Mutex::default(),
            asked: Mutex::default(),
            places: Semaphore::new(LOOKUPS_MAX),
            lookups: counters(),
        }))
    }

    /// Gives the counters to `registry`.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.0.lookups.clone()))
    }

    /// Where the operator says that a name leads, a key's or a domain.
    pub fn fixed(&self, name: &Root) -> Option<Target> {
        self.0.settings.fixed.get(name)
    }

    /// Where the DNSLink of `domain` leads.
    pub async fn dnslink(&self, domain: &Domain) -> Result<Target, LookupError> {
        if let Some(fixed) = self.fixed(&Root::Domain(domain.clone())) {
            return Ok(fixed);
        }
        let (outcome, ttl) = self.outcome(domain).await;
        outcome.map(|link| Target {
            path: link.path.clone(),
            ttl: Some(ttl),
        })
    }

    /// The same without asking anybody.
    pub fn known(&self, domain: &Domain) -> Result<Target, LookupError> {
        if let Some(fixed) = self.fixed(&Root::Domain(domain.clone())) {
            return Ok(fixed);
        }
        match self.remembered(domain) {
            Some((outcome, ttl)) => outcome.map(|link| Target {
                path: link.path.clone(),
                ttl: Some(ttl),
            }),
            None => Err(LookupError::Offline(domain.clone())),
        }
    }

    /// What DNS says of `domain`, and for how much longer that need not be asked again.
    async fn outcome(&self, domain: &Domain) -> (Outcome, Duration) {
        if let Some(known) = self.remembered(domain) {
            self.count("cached");
            return known;
        }
        let server = match self.whom(domain) {
            Ok(server) => server,
            Err(error) => {
                self.count("not_asked");
                return (Err(error), Duration::ZERO);
            }
        };
        match self.join(domain, server) {
            Some(asking) => asking.await,
            None => {
                self.count("busy");
                (Err(LookupError::Busy(domain.clone())), Duration::ZERO)
            }
        }
    }

    /// Who is asked about `domain`, if anybody may be.
    /// Whether anybody is asked about a name that is not remembered.
    pub fn asks_about(&self, domain: &Domain) -> bool {
        self.whom(domain).is_ok()
    }

    fn whom(&self, domain: &Domain) -> Result<Server, LookupError> {
        if domain.is_single() {
            return Err(LookupError::Single(domain.clone()));
        }
        let server = self.0.settings.resolvers.of(domain);
        if *server == Server::Nobody {
            return Err(LookupError::Nobody(domain.clone()));
        }
        if !server.is_within(self.0.network) {
            return Err(LookupError::Outside {
                domain: domain.clone(),
                server: server.clone(),
                network: self.0.network,
            });
        }
        Ok(server.clone())
    }

    /// The question that is under way, or a new one; `None` if there are too many.
    fn join(&self, domain: &Domain, server: Server) -> Option<Shared<Asking>> {
        let mut asked = locked(&self.0.asked);
        if let Some(asking) = asked.get(domain).and_then(WeakShared::upgrade) {
            // One that is over is in the cache, or was not worth it.
            if asking.peek().is_none() {
                return Some(asking);
            }
        }
        if asked.len() >= WAITING_MAX {
            asked.retain(|_, asking| {
                let asking = asking.upgrade();
                asking.is_some_and(|asking| asking.peek().is_none())
            });
        }
        if asked.len() >= WAITING_MAX {
            return None;
        }
        let asking = self.clone().ask(domain.clone(), server).boxed().shared();
        asked.insert(domain.clone(), asking.downgrade()?);
        Some(asking)
    }

    /// Asks, and remembers what came of it.
    async fn ask(self, domain: Domain, server: Server) -> (Outcome, Duration) {
        let said = async {
            // Never closed.
            let _place = self.0.places.acquire().await;
            self.0.asker.texts(&server, &domain).await
        };
        let said = tokio::time::timeout(self.0.times.lookup, said).await;
        let said = said.unwrap_or(Err(Fault::TooSlow(self.0.times.lookup)));
        let most = self.0.settings.max_cache_ttl;
        let (outcome, ttl) = match said {
            Ok(Said::Texts(texts, ttl)) => {
                let read = Links::read(texts.iter().map(Vec::as_slice));
                let others = read.links.len().saturating_sub(1);
                match read.links.into_iter().next() {
                    Some(path) => {
                        self.count("found");
                        let link = Link {
                            path,
                            others,
                            ignored: read.ignored,
                        };
                        warn_of(&domain, &link);
                        (Ok(Arc::new(link)), ttl.clamp(TTL_MIN, TTL_MAX))
                    }
                    None => {
                        self.count("absent");
                        let error = LookupError::NoLink {
                            domain: domain.clone(),
                            ignored: read.ignored,
                        };
                        (Err(error), ttl.clamp(TTL_MIN, ABSENT_TTL_MAX))
                    }
                }
            }
            Ok(Said::Nothing(absence, ttl)) => {
                self.count("absent");
                let error = LookupError::Absent {
                    domain: domain.clone(),
                    absence,
                };
                let ttl = ttl.unwrap_or(ABSENT_TTL);
                (Err(error), ttl.clamp(TTL_MIN, ABSENT_TTL_MAX))
            }
            Err(fault) => {
                self.count("failed");
                let error = LookupError::Failed {
                    domain: domain.clone(),
                    server,
                    fault,
                };
                (Err(error), Duration::ZERO)
            }
        };
        let ttl = ttl.min(most);
        // In this order, so that whoever comes now finds one of both.
        locked(&self.0.cache).put(domain.clone(), outcome.clone(), ttl, Instant::now());
        locked(&self.0.asked).remove(&domain);
        (outcome, ttl)
    }

    fn remembered(&self, domain: &Domain) -> Option<(Outcome, Duration)> {
        locked(&self.0.cache).get(domain, Instant::now())
    }

    fn count(&self, result: &str) {
        self.0.lookups.with_label_values(&[result]).inc();
    }
}

/// The owner of a name that has several links learns it here.
fn warn_of(domain: &Domain, link: &Link) {
    if link.others > 0 {
        tracing::debug!(%domain, used = %link.path, others = link.others, "several DNSLinks; the first by its letters is used");
    }
    for ignored in &link.ignored {
        tracing::debug!(%domain, %ignored, "no DNSLink");
    }
}

fn counters() -> IntCounterVec {
    let options = Opts::new(
        "cairn_dns_lookups_total",
        "DNSLinks looked up, by what came of it.",
    );
    // The name and the label are ours, and fit.
    let lookups = IntCounterVec::new(options, &["result"]);
    #[expect(clippy::expect_used, reason = "both are constants, which tests see")]
    let lookups = lookups.expect("a metric's constant name");
    for result in RESULTS {
        lookups.with_label_values(&[result]);
    }
    lookups
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a lookup, in metrics.
const RESULTS: [&str; 6] = ["found", "absent", "failed", "cached", "not_asked", "busy"];
/// Questions under way at once. Each has a socket.
const LOOKUPS_MAX: usize = 64;
/// Domains that are asked about or wait for it.
const WAITING_MAX: usize = 1024;
/// For how long an answer is believed at most, unless the operator says otherwise.
pub const MAX_CACHE_TTL: Duration = Duration::from_secs(3600);
/// However short an answer holds, a page and what it embeds are one question.
const TTL_MIN: Duration = Duration::from_secs(1);
/// However long it says to hold: whoever wrote that cannot take it back. hickory tells no longer time.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// For how long nothing is believed to be there: at most, and if nobody says how long.
const ABSENT_TTL_MAX: Duration = Duration::from_secs(60);
const ABSENT_TTL: Duration = Duration::from_secs(10);
