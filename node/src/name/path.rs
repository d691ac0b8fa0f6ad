//! Paths that begin with content or with a name: `/ipfs/CID/…` and `/ipns/NAME/…`.
//!
//! What stands after `/ipns/` is a key's name if it can be one, and a domain otherwise; so no domain takes the place
//! of a key. Domains are compared as DNS does, keys as they are written: base58 has capitals and small letters.

use super::domain::{Domain, NoDomain};
use crate::ipns;
use cairn_store::Cid;
use cairn_store::cid::{self, LIBP2P_KEY};
use cairn_store::dag::path::{self, ContentPath, ParsePathError};
use libp2p::PeerId;
use std::fmt;
use std::str::FromStr;

/// A path from content or from a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePath {
    /// Where it begins.
    pub root: Root,
    /// The names below it; `.` and `..` are resolved.
    pub segments: Vec<String>,
}

/// Where a path begins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// At content, which stays what it is.
    Content(Cid),
    /// At whatever a key's newest record says.
    Key(PeerId),
    /// At whatever a domain's DNSLink says.
    Domain(Domain),
}

/// Why a text is no such path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It is no path of content either.
    #[error(transparent)]
    Content(#[from] ParsePathError),
    /// What stands after `/ipns/` is no name.
    #[error("invalid path {path:?}: {source}")]
    Name {
        /// The path, shortened.
        path: String,
        /// What is wrong with its name.
        source: RootError,
    },
    /// Something else is wrong.
    #[error("invalid path {path:?}: {why}")]
    Form {
        /// The path, shortened.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// It is neither a key's name nor a domain.
    #[error("it names no key, and {0}")]
    Domain(#[from] NoDomain),
    /// It is content.
    #[error("{0} is content and no name; it is found at /ipfs/{0}")]
    Content(Cid),
}

impl Root {
    /// Reads a name: what stands after `/ipns/`.
    pub fn name(text: &str) -> Result<Self, RootError> {
        // Reading base58 takes time that grows with the square of its length.
        let is_short = text.len() <= KEY_BYTES_MAX;
        if is_short && let Some(key) = ipns::name(text) {
            return Ok(Self::Key(key));
        }
        if is_short && let Ok(content) = cid::parse(text) {
            return Err(RootError::Content(content));
        }
        Ok(Self::Domain(text.parse()?))
    }
}

impl NamePath {
    /// Reads where a name leads, as it stands in a record or in a DNSLink: `/ipfs/…` or `/ipns/…`, and nothing else.
    pub fn value(text: &str) -> Result<Self, PathError> {
        match text.starts_with("/ipfs/") || text.starts_with("/ipns/") {
            true => text.parse(),
            false => Err(form(text, "it begins with neither /ipfs/ nor /ipns/")),
        }
    }

    /// The path, if it begins with content.
    pub fn content(&self) -> Option<ContentPath> {
        match self.root {
            Root::Content(root) => Some(ContentPath {
                root,
                segments: self.segments.clone(),
            }),
            Root::Key(_) | Root::Domain(_) => None,
        }
    }
}

impl FromStr for NamePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let name = ["/ipns/", "ipns://"];
        let Some(below) = name.iter().find_map(|start| text.strip_prefix(start)) else {
            return match text.parse::<ContentPath>() {
                Ok(path) if path.root.codec() == LIBP2P_KEY => Err(form(
                    text,
                    "it begins with a key's name, which is no content; write it after /ipns/",
                )),
                Ok(path) => Ok(path.into()),
                // All that is left of those: `/ipns` without anything.
                Err(ParsePathError::Name { .. }) => Err(form(text, "it has no name")),
                Err(error) => Err(error.into()),
            };
        };
        if text.contains('\0') {
            return Err(form(text, "it contains NUL"));
        }
        let mut names = below.split('/').filter(|name| !name.is_empty());
        let root = names.next().ok_or_else(|| form(text, "it has no name"))?;
        let root = Root::name(root).map_err(|source| PathError::Name {
            path: shortened(text),
            source,
        })?;
        let segments = path::segments(names).map_err(|why| form(text, why))?;
        Ok(Self { root, segments })
    }
}

impl From<Root> for NamePath {
    fn from(root: Root) -> Self {
        Self {
            root,
            segments: Vec::new(),
        }
    }
}

impl From<ContentPath> for NamePath {
    fn from(path: ContentPath) -> Self {
        Self {
            root: Root::Content(path.root),
            segments: path.segments,
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(cid) => write!(out, "/ipfs/{cid}"),
            Self::Key(key) => write!(out, "/ipns/{}", ipns::text(key)),
            Self::Domain(domain) => write!(out, "/ipns/{domain}"),
        }
    }
}

impl fmt::Display for NamePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.root)?;
        self.segments
            .iter()
            .try_for_each(|segment| write!(out, "/{segment}"))
    }
}

fn form(text: &str, why: &'static str) -> PathError {
    PathError::Form {
        path: shortened(text),
        why,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_SHOWN).collect()
}

/// Longest text that can be a key's name or a CID: the longest digest in base 2 aside, which nobody writes names in.
const KEY_BYTES_MAX: usize = 256;
/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn path(text: &str) -> NamePath {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_a_key_if_it_can_be_one_and_else_a_domain() {
        let key: PeerId = KEY.parse().unwrap();
        let base36 = ipns::text(&key);
        assert!(base36.starts_with("k51"), "{base36}");
        for text in [KEY, &base36, &base36.to_ascii_uppercase()] {
            assert_eq!(
                path(&format!("/ipns/{text}")).root,
                Root::Key(key),
                "{text}"
            );
        }
        assert_eq!(
            path(&format!("ipns://{KEY}/a/./b/../c")).segments,
            ["a", "c"]
        );
        assert_eq!(
            path("/ipns/Example.ORG./a").to_string(),
            "/ipns/example.org/a"
        );
        assert_eq!(path("ipns://example.org"), path("/ipns/EXAMPLE.org/"));
        assert_eq!(path("/ipfs/bafkqaaa/a").to_string(), "/ipfs/bafkqaaa/a");
        assert_eq!(path("bafkqaaa/a").content().unwrap().segments, ["a"]);
    }

    #[test]
    fn a_key_in_other_letters_is_no_key() {
        let error = format!("/ipns/{}", KEY.to_ascii_lowercase());
        let read = error.parse::<NamePath>().unwrap();
        // A domain of one label, for which nobody asks in DNS.
        assert!(matches!(read.root, Root::Domain(domain) if domain.is_single()));
    }

    #[test]
    fn what_is_no_path_says_why() {
        for (text, why) in [
            ("/ipns", "no name"),
            ("/ipns/", "no name"),
            ("ipns://", "no name"),
            ("/ipns/example.org/..", "above its root"),
            ("/ipns/example.org/a\0", "NUL"),
            ("/ipns/bafkqaaa", "content and no name"),
            ("/ipns/exam ple.org", "names no key"),
            ("/ipns/1.2.3.4", "number"),
            ("/ipfs/example.org", "invalid cid"),
            ("example.org", "invalid cid"),
            ("/other/x", "neither"),
        ] {
            let error = text.parse::<NamePath>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        let many = format!("/ipns/example.org{}", "/a".repeat(path::SEGMENTS_MAX + 1));
        assert!(many.parse::<NamePath>().is_err());
    }

    #[test]
    fn a_value_begins_with_a_slash_and_its_namespace() {
        assert!(NamePath::value("/ipfs/bafkqaaa/a").is_ok());
        assert!(NamePath::value("/ipns/example.org").is_ok());
        for text in [
            "bafkqaaa",
            "ipfs://bafkqaaa",
            "ipns://example.org",
            "/ipld/bafkqaaa",
            "",
        ] {
            assert!(NamePath::value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_short_text_that_happens_to_be_a_multihash_is_no_key() {
        for text in ["1FY1", "11", "12"] {
            assert!(!matches!(Root::name(text), Ok(Root::Key(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_was_read_is_read_the_same_again(text in ".{0,40}", name in "[a-zA-Z0-9.-]{1,20}") {
            for text in [text.clone(), format!("/ipns/{text}"), format!("/ipns/{name}/{text}")] {
                if let Ok(path) = text.parse::<NamePath>() {
                    prop_assert_eq!(path.to_string().parse::<NamePath>(), Ok(path));
                }
            }
        }
    }
}
