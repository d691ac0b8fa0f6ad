//! From name to name until content is reached.
//!
//! [`Walk`] decides and asks nobody: it says which name has to be looked up, takes what that leads to, and ends at
//! content, in a circle, or after so many steps. [`follow`] drives it over a [`Lookup`]. What a
//! name leads to does not depend on what stands behind it in a path, so a name that comes twice comes for ever.

use super::domain::Domain;
use super::path::{NamePath, Root};
use cairn_store::dag::path::SEGMENTS_MAX;
use libp2p::PeerId;
use std::future::Future;
use std::time::Duration;

/// Who knows where names lead.
pub trait Lookup: Sync {
    /// Why that cannot be told. Its text says of which name.
    type Error: Send;

    /// Where the newest record of a key leads.
    fn record(&self, key: &PeerId) -> impl Future<Output = Result<Target, Self::Error>> + Send;

    /// Where the DNSLink of a domain leads.
    fn dnslink(&self, domain: &Domain) -> impl Future<Output = Result<Target, Self::Error>> + Send;

    /// Whether a path may be followed: the one that was asked for, and each that a name led to.
    fn admits(&self, path: &NamePath) -> Result<(), Self::Error>;

    /// Where the operator says that a name leads, before anybody is asked.
    fn fixed(&self, _name: &Root) -> Option<Target> {
        None
    }
}

/// Where one name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The path it leads to.
    pub path: NamePath,
    /// For how much longer it need not be looked up again; `None` if that is not known.
    pub ttl: Option<Duration>,
}

/// How far names are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Until content is reached, over so many names at most.
    Content(usize),
    /// One name, wherever it leads.
    One,
}

impl Default for Depth {
    fn default() -> Self {
        Self::Content(STEPS_MAX)
    }
}

/// Where a path led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// `/ipfs/CID/…`, or with [`Depth::One`] perhaps another name.
    pub path: NamePath,
    /// The shortest time on the way for which it need not be looked up again; `None` if no name on the way has one.
    pub ttl: Option<Duration>,
    /// The names on the way, the first one first.
    pub names: Vec<Root>,
}

/// Why a path led nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError<E> {
    /// A name could not be looked up.
    #[error("{0}")]
    Name(E),
    /// The names on the way do not end.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// Why names do not lead to content, whoever was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// They lead to one another.
    #[error("{} leads round in a circle: {}", .0.first().map_or("", String::as_str), .0.join(" -> "))]
    Circle(Vec<String>),
    /// There are too many of them.
    #[error(
        "{from} leads from name to name more than {limit} times, at last to {at}; no further one is followed"
    )]
    Deep {
        /// Where it began.
        from: String,
        /// The name that was not followed any more.
        at: String,
        /// How many were.
        limit: usize,
    },
    /// The paths behind them are too long together.
    #[error("the path that {0} leads to has more than {SEGMENTS_MAX} names")]
    Long(String),
}

/// One path on its way. Asks nobody.
#[derive(Debug, Clone)]
pub struct Walk {
    path: NamePath,
    depth: Depth,
    ttl: Option<Duration>,
    names: Vec<Root>,
}

impl Walk {
    /// Begins at `path`.
    pub const fn new(path: NamePath, depth: Depth) -> Self {
        Self {
            path,
            depth,
            ttl: None,
            names: Vec::new(),
        }
    }

    /// The name to be looked up next; `None` if it is there.
    pub fn step(&self) -> Result<Option<&Root>, WalkError> {
        let root = &self.path.root;
        if matches!(root, Root::Content(_)) {
            return Ok(None);
        }
        let limit = match self.depth {
            Depth::One if !self.names.is_empty() => return Ok(None),
            Depth::One => 1,
            Depth::Content(limit) => limit,
        };
        if let Some(at) = self.names.iter().position(|seen| seen == root) {
            let circle = self.names.iter().skip(at).chain([root]);
            return Err(WalkError::Circle(circle.map(Root::to_string).collect()));
        }
        if self.names.len() >= limit {
            let from = self.names.first().unwrap_or(root);
            return Err(WalkError::Deep {
                from: from.to_string(),
                at: root.to_string(),
                limit,
            });
        }
        Ok(Some(root))
    }

    /// Takes where that name leads.
    pub fn lead(&mut self, target: Target) -> Result<(), WalkError> {
        let mut path = target.path;
        path.segments.append(&mut self.path.segments);
        if path.segments.len() > SEGMENTS_MAX {
            return Err(WalkError::Long(self.path.root.to_string()));
        }
        let before = std::mem::replace(&mut self.path, path);
        self.names.push(before.root);
        self.ttl = self.ttl.into_iter().chain(target.ttl).min();
        Ok(())
    }

    /// Where it is.
    pub fn end(self) -> Followed {
        Followed {
            path: self.path,
            ttl: self.ttl,
            names: self.names,
        }
    }
}

/// Follows the names of a path, one after the other.
pub async fn follow<N: Lookup>(
    names: &N,
    path: NamePath,
    depth: Depth,
) -> Result<Followed, FollowError<N::Error>> {
    go_on(names, Walk::new(path, depth)).await
}

/// Goes on with a walk that somebody has begun.
pub async fn go_on<N: Lookup>(
    names: &N,
    mut walk: Walk,
) -> Result<Followed, FollowError<N::Error>> {
    names.admits(&walk.path).map_err(FollowError::Name)?;
    while let Some(root) = walk.step()? {
        // Who denies a name denies what lies below it: it is not looked up at all.
        let name = NamePath {
            root: root.clone(),
            segments: Vec::new(),
        };
        names.admits(&name).map_err(FollowError::Name)?;
        let target = match names.fixed(root) {
            Some(target) => target,
            None => match root {
                Root::Key(key) => names.record(key).await.map_err(FollowError::Name)?,
                Root::Domain(domain) => names.dnslink(domain).await.map_err(FollowError::Name)?,
                Root::Content(_) => break,
            },
        };
        walk.lead(target)?;
        names.admits(&walk.path).map_err(FollowError::Name)?;
    }
    Ok(walk.end())
}

/// Most names on the way of one path, as in Kubo.
pub const STEPS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Names as they are written, and where each leads.
    #[derive(Default)]
    struct Map(BTreeMap<Root, Target>);

    impl Map {
        fn of(pairs: &[(&str, &str, u64)]) -> Self {
            let entry = |&(name, value, ttl): &(&str, &str, u64)| {
                let ttl = (ttl > 0).then(|| Duration::from_secs(ttl));
                let path = NamePath::value(value).unwrap();
                (Root::name(name).unwrap(), Target { path, ttl })
            };
            Self(pairs.iter().map(entry).collect())
        }

        fn get(&self, root: &Root) -> Result<Target, String> {
            let found = self.0.get(root).cloned();
            found.ok_or_else(|| format!("{root} is not there"))
        }

        fn follow(&self, path: &str, depth: Depth) -> Result<Followed, FollowError<String>> {
            let path = path.parse().unwrap();
            follow(self, path, depth).now_or_never().unwrap()
        }

        fn text(&self, path: &str) -> String {
            match self.follow(path, Depth::default()) {
                Ok(followed) => followed.path.to_string(),
                Err(error) => error.to_string(),
            }
        }
    }

    impl Lookup for Map {
        type Error = String;

        async fn record(&self, key: &PeerId) -> Result<Target, String> {
            self.get(&Root::Key(*key))
        }

        async fn dnslink(&self, domain: &Domain) -> Result<Target, String> {
            self.get(&Root::Domain(domain.clone()))
        }

        fn admits(&self, _: &NamePath) -> Result<(), String> {
            Ok(())
        }
    }

    const KEY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn a_path_is_joined_from_every_name_on_its_way() {
        let key = format!("/ipns/{KEY}/k");
        let map = Map::of(&[
            ("a.example", &key, 60),
            (KEY, "/ipns/b.example/x", 0),
            ("b.example", "/ipfs/bafkqaaa/y", 30),
        ]);
        let followed = map.follow("/ipns/A.example/z/", Depth::default()).unwrap();
        assert_eq!(followed.path.to_string(), "/ipfs/bafkqaaa/y/x/k/z");
        assert_eq!(followed.ttl, Some(Duration::from_secs(30)));
        assert_eq!(followed.names.len(), 3);
        let one = map.follow("/ipns/a.example/z", Depth::One).unwrap();
        assert!(one.path.to_string().ends_with("/k/z"), "{}", one.path);
        assert_eq!(one.ttl, Some(Duration::from_secs(60)));
        assert_eq!(map.text("/ipfs/bafkqaaa/q"), "/ipfs/bafkqaaa/q");
        assert_eq!(map.text("/ipns/c.example"), "/ipns/c.example is not there");
    }

    #[test]
    fn a_value_cannot_be_left_upwards() {
        let map = Map::of(&[("a.example", "/ipfs/bafkqaaa/inside", 0)]);
        assert_eq!(map.text("/ipns/a.example/b/.."), "/ipfs/bafkqaaa/inside");
        assert!("/ipns/a.example/..".parse::<NamePath>().is_err());
    }

    #[test]
    fn names_that_lead_to_one_another_are_told_as_a_circle() {
        let key = format!("/ipns/{KEY}");
        let map = Map::of(&[
            ("start.example", "/ipns/a.example", 0),
            ("a.example", &key, 0),
            (KEY, "/ipns/A.EXAMPLE./sub", 0),
            ("self.example", "/ipns/self.example", 0),
        ]);
        let text = map.text("/ipns/start.example");
        assert!(text.starts_with("/ipns/a.example leads round"), "{text}");
        assert!(text.ends_with("-> /ipns/a.example"), "{text}");
        assert!(!text.contains("start"), "{text}");
        let text = map.text("/ipns/self.example");
        assert!(text.ends_with(": /ipns/self.example -> /ipns/self.example"));
    }

    #[test]
    fn thirty_two_names_are_followed_and_no_more() {
        let names: Vec<String> = (0..40).map(|at| format!("n{at}.example")).collect();
        let chain = |length: usize| {
            let mut map = Map::default();
            for pair in names[..length].windows(2) {
                let value = format!("/ipns/{}", pair[1]);
                map.0.extend(Map::of(&[(&pair[0], &value, 0)]).0);
            }
            let last = &names[length - 1];
            map.0.extend(Map::of(&[(last, "/ipfs/bafkqaaa", 0)]).0);
            map
        };
        assert_eq!(chain(STEPS_MAX).text("/ipns/n0.example"), "/ipfs/bafkqaaa");
        let text = chain(STEPS_MAX + 1).text("/ipns/n0.example");
        assert!(text.contains("more than 32 times"), "{text}");
        assert!(text.contains("/ipns/n32.example"), "{text}");
        let short = chain(4).follow("/ipns/n0.example", Depth::Content(3));
        assert!(matches!(
            short,
            Err(FollowError::Walk(WalkError::Deep { limit: 3, .. }))
        ));
    }

    #[test]
    fn paths_that_grow_too_long_together_are_refused() {
        let long = format!("/ipfs/bafkqaaa{}", "/a".repeat(SEGMENTS_MAX));
        let map = Map::of(&[("a.example", &long, 0)]);
        assert!(map.text("/ipns/a.example").starts_with("/ipfs/"));
        let text = map.text("/ipns/a.example/b");
        assert!(text.contains("more than 1024 names"), "{text}");
    }

    struct Fixed(Map);

    impl Lookup for Fixed {
        type Error = String;

        async fn record(&self, _: &PeerId) -> Result<Target, String> {
            Err("asked".to_owned())
        }

        async fn dnslink(&self, _: &Domain) -> Result<Target, String> {
            Err("asked".to_owned())
        }

        fn admits(&self, path: &NamePath) -> Result<(), String> {
            self.0.admits(path)
        }

        fn fixed(&self, name: &Root) -> Option<Target> {
            self.0.get(name).ok()
        }
    }

    #[test]
    fn what_the_operator_fixed_is_not_asked_for() {
        let names = Fixed(Map::of(&[
            ("a.example", &format!("/ipns/{KEY}"), 0),
            (KEY, "/ipfs/bafkqaaa", 0),
        ]));
        let path = "/ipns/a.example/x".parse().unwrap();
        let led = follow(&names, path, Depth::default()).now_or_never();
        let led = led.unwrap().unwrap();
        assert_eq!(
            (led.path.to_string().as_str(), led.ttl),
            ("/ipfs/bafkqaaa/x", None)
        );
    }

    proptest! {
        // Whatever a few names lead to, it ends: at content, or with an error that is one of the four.
        #[test]
        fn every_walk_ends(
            links in proptest::collection::vec((0_usize..8, any::<bool>(), 0_u64..9), 8),
            start in 0_usize..8,
        ) {
            let name = |at: usize| if at == 0 { KEY.to_owned() } else { format!("n{at}.example") };
            let mut map = Map::default();
            let mut leaves = 0;
            for (at, (to, is_content, ttl)) in links.iter().enumerate() {
                let value = match is_content {
                    true => "/ipfs/bafkqaaa".to_owned(),
                    false => format!("/ipns/{}/s{at}", name(*to)),
                };
                leaves += usize::from(*is_content);
                map.0.extend(Map::of(&[(&name(at), &value, *ttl)]).0);
            }
            match map.follow(&format!("/ipns/{}", name(start)), Depth::default()) {
                Ok(led) => {
                    prop_assert!(leaves > 0);
                    prop_assert_eq!(led.path.segments.len() + 1, led.names.len());
                    let ttls = led.names.iter().filter_map(|name| map.get(name).unwrap().ttl);
                    prop_assert_eq!(led.ttl, ttls.min());
                }
                Err(error) => prop_assert!(matches!(error, FollowError::Walk(WalkError::Circle(_))), "{}", error),
            }
        }
    }
}
