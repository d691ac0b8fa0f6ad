//! What the operator does not want here: compact denylists (IPIP-383), asked before anything is looked for.
//!
//! A [`Denylist`] is a handle on all lists together. It is asked for a path before that is followed
//! ([`Denylist::check_path`]: the gateway, commands, names on the way) and for every block before it is read, fetched,
//! given or told of ([`Denylist::check_block`]: sessions of the exchange, and the [`Policy`] of who is served). The
//! last rule that matches wins, across lists in their order.
//!
//! `parse` reads lines and headers, `rules` keeps one list and finds in it, `watch` finds the files, reads what
//! changed and swaps the lists that everybody sees at once. Without rules a question costs the look at one flag.

mod parse;
mod rules;
#[cfg(test)]
mod tests;
mod watch;

use crate::bitswap::policy::{Policy, Verdict};
use crate::ipns;
use crate::name::domain::Domain;
use crate::name::path::{NamePath, Root};
use cairn_store::cid::{Cid, HashKind, Multihash};
use cairn_store::hash::digest;
pub use cairn_store::source::{Denial, Grounds};
use libp2p::PeerId;
use multibase::Base;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use rules::{Found, Keys, Subject};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use watch::Lists;

/// All lists. Cheap to clone.
#[derive(Clone, Default)]
pub struct Denylist {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whether there is any rule.
    any: AtomicBool,
    lists: RwLock<Arc<Lists>>,
    keys: Keys,
    /// Where lists are looked for, each folder overriding those before it.
    folders: Vec<PathBuf>,
    /// Held while they are read.
    reading: Mutex<()>,
    metrics: Metrics,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            lists: RwLock::default(),
            keys: Keys::default(),
            folders: Vec::new(),
            reading: Mutex::new(()),
            metrics: Metrics::new(),
        }
    }
}

impl fmt::Debug for Denylist {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Denylist")
            .field("folders", &self.shared.folders)
            .finish_non_exhaustive()
    }
}

/// One list, for its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListStat {
    /// Where it is.
    pub path: PathBuf,
    /// What it calls itself.
    pub name: Option<String>,
    /// How many of its lines are rules that hold.
    pub rules: u64,
    /// How many of its lines are none.
    pub skipped: u64,
    /// The first of those, by number and with the reason.
    pub faults: Vec<(u64, String)>,
    /// Why it is not read as it is now.
    pub error: Option<String>,
}

impl Denylist {
    /// The lists in these folders, of which none is read yet.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                folders,
                ..Shared::default()
            }),
        }
    }

    /// Whether a block is wanted here, by its multihash.
    pub fn check_block(&self, cid: &Cid) -> Result<(), Denial> {
        match self.block(cid) {
            None => Ok(()),
            Some(hit) => {
                self.shared.metrics.refused("block");
                Err(hit.denial(format!("/ipfs/{cid}")))
            }
        }
    }

    /// Whether a path is wanted here, as it was asked for.
    pub fn check_path(&self, path: &NamePath) -> Result<(), Denial> {
        match self.denial(path) {
            None => Ok(()),
            Some(denial) => {
                self.shared.metrics.refused("path");
                Err(denial)
            }
        }
    }

    /// What denies a path, for whoever only wants to know.
    pub fn denial(&self, path: &NamePath) -> Option<Denial> {
        if !self.has_rules() {
            return None;
        }
        let below = path.segments.join("/");
        let hit = match &path.root {
            Root::Content(cid) => self.content(cid, &below),
            Root::Key(key) => self.key(key, &below),
            Root::Domain(domain) => self.domain(domain, &below),
        };
        hit.map(|hit| hit.denial(path.to_string()))
    }

    /// What there is, in the order in which it counts.
    pub fn lists(&self) -> Vec<ListStat> {
        self.current().stats()
    }

    /// The same counters for whoever scrapes.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.shared.metrics.register(registry)
    }

    /// Whether anything is denied at all.
    pub(crate) fn has_rules(&self) -> bool {
        self.shared.any.load(Ordering::Acquire)
    }

    fn current(&self) -> Arc<Lists> {
        let lists = self.shared.lists.read();
        Arc::clone(&lists.unwrap_or_else(PoisonError::into_inner))
    }

    fn block(&self, cid: &Cid) -> Option<Hit> {
        self.has_rules().then(|| self.content(cid, ""))?
    }

    fn content(&self, cid: &Cid, path: &str) -> Option<Hit> {
        self.find(Subject::Content(cid.hash()), path, || {
            named(cid.hash(), cid.codec(), path)
        })
    }

    fn key(&self, key: &PeerId, path: &str) -> Option<Hit> {
        let name = ipns::cid(key)?;
        self.find(Subject::Key(name.hash()), path, || {
            named(name.hash(), name.codec(), path)
        })
    }

    fn domain(&self, domain: &Domain, path: &str) -> Option<Hit> {
        // A name without dots may be one that was made a label of a gateway's subdomain.
        let label = domain
            .is_single()
            .then(|| Domain::from_label(domain.as_str()));
        let domain = match &label {
            Some(Ok(whole)) => whole,
            _ => domain,
        };
        self.find(Subject::Domain(domain.as_str()), path, || Named {
            modern: below(format!("/ipns/{domain}"), path),
            legacy: format!("{domain}/{path}"),
        })
    }

    /// The last rule about this, if it denies.
    fn find(&self, subject: Subject<'_>, path: &str, named: impl FnOnce() -> Named) -> Option<Hit> {
        let lists = self.shared.lists.read();
        let lists = lists.unwrap_or_else(PoisonError::into_inner);
        let hashes = match lists.functions() {
            [] => Vec::new(),
            functions => named().hashes(functions),
        };
        let keys = &self.shared.keys;
        // A later list overrides those before it, so the first that says anything decides.
        let said = lists.last_first().find_map(|loaded| {
            let list = &loaded.list;
            let hashed = |hash| list.find(keys, Subject::Hashed(hash), "");
            let plain = list.find(keys, subject, path);
            let last: Option<Found> = hashes.iter().filter_map(hashed).chain(plain).max();
            last.map(|found| (loaded, found))
        });
        let (loaded, found) = said?;
        Some(Hit {
            grounds: found.denies?,
            list: Arc::clone(&loaded.label),
            line: found.line,
        })
    }
}

/// What a list denies is neither given nor told of.
impl Policy for Denylist {
    fn decide(&self, _: &PeerId, cid: &Cid) -> Verdict {
        if self.block(cid).is_none() {
            return Verdict::Serve;
        }
        self.shared.metrics.refused("serve");
        Verdict::Refuse
    }

    fn is_for_nobody(&self, cid: &Cid) -> bool {
        self.block(cid).is_some()
    }
}

/// A rule that denies.
struct Hit {
    grounds: Grounds,
    list: Arc<str>,
    line: u32,
}

impl Hit {
    fn denial(self, what: String) -> Denial {
        let by = format!("line {} of the denylist {}", self.line, self.list);
        Denial {
            what: what.into(),
            by: by.into(),
            grounds: self.grounds,
        }
    }
}

/// The texts of a path that lists may have the hashes of.
struct Named {
    modern: String,
    /// Of the lists that were there before the format, always hashed with SHA-256.
    legacy: String,
}

fn named(hash: &Multihash, codec: u64, path: &str) -> Named {
    let root = Cid::new_v1(codec, *hash);
    let root = multibase::encode(Base::Base32Lower, root.to_bytes());
    Named {
        modern: below(Base::Base58Btc.encode(hash.to_bytes()), path),
        legacy: format!("{root}/{path}"),
    }
}

fn below(mut root: String, path: &str) -> String {
    if !path.is_empty() {
        root.push('/');
        root.push_str(path);
    }
    root
}

impl Named {
    fn hashes(&self, functions: &[HashKind]) -> Vec<Multihash> {
        let modern = functions.iter().map(|function| (*function, &self.modern));
        let legacy = functions.contains(&HashKind::Sha2_256);
        let legacy = legacy.then_some((HashKind::Sha2_256, &self.legacy));
        let all = modern.chain(legacy);
        all.filter_map(|(function, text)| digest(function, text.as_bytes()).ok())
            .collect()
    }
}

/// What is counted.
struct Metrics {
    lists: IntGauge,
    rules: IntGauge,
    skipped: IntGauge,
    refused: IntCounterVec,
}

impl Metrics {
    #[expect(
        clippy::expect_used,
        reason = "the names are constants, which tests see"
    )]
    fn new() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("a metric's constant name");
        let refused = Opts::new(
            "cairn_denylist_refused_total",
            "What denylists kept back, by what it was: a path asked for, a block to be read or fetched, a want of a peer.",
        );
        let refused = IntCounterVec::new(refused, &["at"]).expect("a metric's constant name");
        for at in ["path", "block", "serve"] {
            refused.with_label_values(&[at]);
        }
        Self {
            lists: gauge("cairn_denylist_lists", "Denylists that were found."),
            rules: gauge("cairn_denylist_rules", "Rules of denylists that hold."),
            skipped: gauge(
                "cairn_denylist_lines_skipped",
                "Lines of denylists that are no rules and are left out.",
            ),
            refused,
        }
    }

    fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.lists.clone()))?;
        registry.register(Box::new(self.rules.clone()))?;
        registry.register(Box::new(self.skipped.clone()))?;
        registry.register(Box::new(self.refused.clone()))
    }

    fn refused(&self, at: &str) {
        self.refused.with_label_values(&[at]).inc();
    }

    fn hold(&self, lists: &[ListStat]) {
        let sum = |of: fn(&ListStat) -> u64| {
            let sum = lists.iter().map(of).fold(0, u64::saturating_add);
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        self.lists.set(sum(|_| 1));
        self.rules.set(sum(|list| list.rules));
        self.skipped.set(sum(|list| list.skipped));
    }
}
