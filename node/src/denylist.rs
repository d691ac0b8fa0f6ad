//! What the operator does not want here: compact denylists (IPIP-383), asked before anything is looked for.
//!
//! A [`Denylist`] is a handle on all lists together. It is asked for a path before that is followed
//! ([`Denylist::check_path`]: the gateway, commands, names on the way) and for every block before it is read, fetched,
//! given or told of ([`Denylist::check_block`]: sessions of the exchange, and the [`Policy`] of who is served). The
//! last rule that matches wins, across lists in their order.
//!
//! `lines` takes a list apart, `parse` reads its lines and its header, `rules` keeps one list and finds in it, `file`
//! reads one when it has changed and come to rest, `watch` finds the files and swaps the lists that everybody sees at
//! once. Without rules a question costs the look at one flag; with hashed rules names are hashed as those need it and
//! no other way.

mod file;
mod lines;
mod metrics;
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
use file::Loaded;
use libp2p::PeerId;
use metrics::Metrics;
use multibase::Base;
use prometheus::Registry;
use rules::{Found, Hashings, Key, Keys, Room, Subject};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;
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
    /// How much of them is taken.
    room: Room,
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
            room: Room::ALL,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListStat {
    /// Where it is.
    pub path: PathBuf,
    /// What it calls itself.
    pub name: Option<String>,
    /// How many of its lines are rules that hold.
    pub rules: u64,
    /// How many of its lines do not: they are no rules, or there is no room for them.
    pub skipped: u64,
    /// For how many there is no room.
    pub beyond: u64,
    /// The first of those left out, by number and with the reason.
    pub faults: Vec<(u64, String)>,
    /// When it was read.
    pub read_at: Option<SystemTime>,
    /// Whether its file is changing, so that the rules are those of before.
    pub is_settling: bool,
    /// Why it is not read as it is now.
    pub error: Option<String>,
}

/// The rule that decides about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The path that it is about: the one that was asked about, or one that has to be had for it.
    pub path: NamePath,
    /// Why it is denied; `None` if it is allowed.
    pub denies: Option<Grounds>,
    /// The list.
    pub list: PathBuf,
    /// The number of its line.
    pub line: u32,
    /// That line, unless its file has changed.
    pub text: Option<String>,
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

    /// Which rule decides about a path, for whoever only wants to know: about the path as it is, or else about the name
    /// or the block that it begins with, which has to be had before what lies below. Reads lists, so it blocks.
    pub fn decides(&self, path: &NamePath) -> Option<Match> {
        let root = NamePath {
            root: path.root.clone(),
            segments: Vec::new(),
        };
        let found = |path: &NamePath| Some((path.clone(), self.last(path)?));
        let (whole, root) = (found(path), found(&root));
        // What the path is allowed does not help where its root is denied.
        let denies = |it: &&(NamePath, Said)| it.1.found.denies.is_some();
        let by = [&whole, &root].into_iter().flatten().find(denies);
        let (path, said) = by.cloned().or(whole).or(root)?;
        Some(Match {
            path,
            denies: said.found.denies,
            list: said.list.path.clone(),
            line: said.found.line,
            text: said.list.line(said.found.line),
        })
    }

    /// What there is, in the order in which it counts.
    pub fn lists(&self) -> Vec<ListStat> {
        self.current().stats()
    }

    /// What is wrong with the folders, or that there are too many lists.
    pub fn troubles(&self) -> Vec<String> {
        self.current().troubles().to_vec()
    }

    /// What is wrong with folders and files so that nothing of some list holds, each with the reason.
    pub fn lacking(&self) -> Vec<String> {
        self.current().lacking()
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
        self.has_rules().then(|| self.content(cid, ""))??.hit()
    }

    fn denial(&self, path: &NamePath) -> Option<Denial> {
        let hit = self.has_rules().then(|| self.last(path))??.hit();
        hit.map(|hit| hit.denial(path.to_string()))
    }

    /// The last rule about a path.
    fn last(&self, path: &NamePath) -> Option<Said> {
        let below = path.segments.join("/");
        match &path.root {
            Root::Content(cid) => self.content(cid, &below),
            Root::Key(key) => self.key(key, &below),
            Root::Domain(domain) => self.domain(domain, &below),
        }
    }

    fn content(&self, cid: &Cid, path: &str) -> Option<Said> {
        let name = Name::Hash(cid.hash(), cid.codec());
        self.find(Subject::Content(cid.hash()), &name, path)
    }

    fn key(&self, key: &PeerId, path: &str) -> Option<Said> {
        let cid = ipns::cid(key)?;
        let name = Name::Hash(cid.hash(), cid.codec());
        self.find(Subject::Key(cid.hash()), &name, path)
    }

    fn domain(&self, domain: &Domain, path: &str) -> Option<Said> {
        let domain = parse::whole(domain);
        let name = Name::Domain(&domain);
        self.find(Subject::Domain(domain.as_str()), &name, path)
    }

    /// The last rule about this.
    fn find(&self, subject: Subject<'_>, name: &Name<'_>, path: &str) -> Option<Said> {
        let lists = self.shared.lists.read();
        let lists = lists.unwrap_or_else(PoisonError::into_inner);
        let keys = &self.shared.keys;
        let hashed = name.hashed(lists.hashings(), keys, path);
        let exact = keys.exact(subject, path);
        // A later list overrides those before it, so the first that says anything decides.
        lists.last_first().find_map(|loaded| {
            let list = &loaded.list;
            let hashed = hashed.iter().filter_map(|key| list.slot(key));
            let plain = list.find(keys, &exact, subject, path);
            let found = hashed.chain(plain).max()?;
            Some(Said {
                list: Arc::clone(loaded),
                found,
            })
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

/// A rule that decides, and its list.
#[derive(Debug, Clone)]
struct Said {
    list: Arc<Loaded>,
    found: Found,
}

impl Said {
    fn hit(self) -> Option<Hit> {
        Some(Hit {
            grounds: self.found.denies?,
            list: Arc::clone(&self.list.label),
            line: self.found.line,
        })
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

/// A name, whose texts lists may have the hashes of.
enum Name<'a> {
    /// Of a block or a key, and under which codec.
    Hash(&'a Multihash, u64),
    Domain(&'a Domain),
}

impl Name<'_> {
    /// Under which keys lists may have the hashes of a path below this name.
    fn hashed(&self, hashings: &Hashings, keys: &Keys, path: &str) -> Vec<Key> {
        let mut found = Vec::new();
        if hashings.is_none() {
            return found;
        }
        if !hashings.modern.is_empty() {
            let text = self.modern(path);
            let hashes = hashings.modern.iter();
            let hashes = hashes.filter_map(|function| digest(*function, text.as_bytes()).ok());
            found.extend(hashes.map(|hash| keys.exact(Subject::Modern(&hash), "")));
        }
        if hashings.has_legacy
            && let Ok(hash) = digest(HashKind::Sha2_256, self.legacy(path).as_bytes())
        {
            found.push(keys.exact(Subject::Legacy(&hash), ""));
        }
        found
    }

    fn modern(&self, path: &str) -> String {
        let mut text = match self {
            Self::Hash(hash, _) => Base::Base58Btc.encode(hash.to_bytes()),
            Self::Domain(domain) => format!("/ipns/{domain}"),
        };
        if !path.is_empty() {
            text.push('/');
            text.push_str(path);
        }
        text
    }

    /// As in the lists that were there before the format.
    fn legacy(&self, path: &str) -> String {
        match self {
            Self::Hash(hash, codec) => {
                let root = Cid::new_v1(*codec, **hash);
                let root = multibase::encode(Base::Base32Lower, root.to_bytes());
                format!("{root}/{path}")
            }
            Self::Domain(domain) => format!("{domain}/{path}"),
        }
    }
}
