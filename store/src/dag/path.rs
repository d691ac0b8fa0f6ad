//! From a root and a path to a CID: through folders, HAMTs, dag-cbor and dag-json.

use super::value;
use crate::block::Block;
use crate::cid::{self, Cid, CidError};
use crate::source::{BlockSource, SourceError};
use crate::unixfs::read::{self, Node, ReadError};
use std::fmt;

/// A content path, parsed: `/ipfs/<cid>/a/b`, `ipfs://<cid>/a/b` or `<cid>/a/b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPath {
    /// The root.
    pub root: Cid,
    /// The names below it; `.` and `..` are resolved.
    pub segments: Vec<String>,
}

/// Why a text is no content path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePathError {
    /// The root is no CID.
    #[error("invalid path {path:?}: {source}")]
    Root {
        /// The whole path.
        path: String,
        /// What is wrong with its root.
        source: CidError,
    },
    /// `..` above the root, NUL, or no root at all.
    #[error("invalid path {path:?}: {why}")]
    Form {
        /// The whole path.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A mutable name where only content is understood.
    #[error("invalid path {path:?}: names under /ipns cannot be resolved here")]
    Name {
        /// The whole path.
        path: String,
    },
}

impl std::str::FromStr for ContentPath {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, ParsePathError> {
        let path = || text.chars().take(TEXT_SHOWN).collect::<String>();
        let form = |why| ParsePathError::Form { path: path(), why };
        if text.contains('\0') {
            return Err(form("it contains NUL"));
        }
        let below = if let Some(rest) = text.strip_prefix("ipfs://") {
            rest
        } else if text.starts_with("ipns://") {
            return Err(ParsePathError::Name { path: path() });
        } else if let Some(rest) = text.strip_prefix('/') {
            match rest.split_once('/').unwrap_or((rest, "")) {
                ("ipfs" | "ipld", below) => below,
                ("ipns", _) => return Err(ParsePathError::Name { path: path() }),
                _ => return Err(form("it begins with neither /ipfs/, /ipns/ nor a CID")),
            }
        } else {
            text
        };
        let mut names = below.split('/').filter(|name| !name.is_empty());
        let root = names.next().ok_or_else(|| form("it has no root"))?;
        let root = cid::parse(root).map_err(|source| ParsePathError::Root {
            path: path(),
            source,
        })?;
        let segments = segments(names).map_err(form)?;
        Ok(Self { root, segments })
    }
}

/// The names below a root, with `.` and `..` resolved and empty ones left out; or why they are none.
pub fn segments<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, &'static str> {
    let mut segments = Vec::new();
    for name in names {
        match name {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or("it leads above its root")?;
            }
            _ if segments.len() >= SEGMENTS_MAX => return Err("it has too many names"),
            _ => segments.push(name.to_owned()),
        }
    }
    Ok(segments)
}

impl fmt::Display for ContentPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "/ipfs/{}", self.root)?;
        self.segments
            .iter()
            .try_for_each(|segment| write!(out, "/{segment}"))
    }
}

/// Where a path led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The last block on the way.
    pub cid: Cid,
    /// The names left inside that block (dag-cbor and dag-json; empty elsewhere).
    pub remainder: Vec<String>,
    /// One CID for each segment, the root first, the terminus last; shards are left out.
    pub roots: Vec<Cid>,
    /// Every block on the way in order, shards included; the terminus last.
    pub blocks: Vec<Cid>,
}

/// Why a path led nowhere.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such link.
    #[error("no link named {name:?} under {under}")]
    NoLink {
        /// The missing name.
        name: String,
        /// The node that lacks it.
        under: Cid,
    },
    /// A block on the way is not there.
    #[error("block {0} was not found")]
    NotFound(Cid),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A block on the way cannot be decoded.
    #[error("block {cid} is malformed: {why}")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong.
        why: String,
    },
    /// More segments or shards than allowed.
    #[error("the path is longer than {SEGMENTS_MAX} names")]
    TooLong,
}

/// Most names in a path.
pub const SEGMENTS_MAX: usize = 1024;

/// Follows `segments` from `root`. The root block itself is only read if there are segments.
pub async fn resolve<S: BlockSource>(
    source: &S,
    root: &Cid,
    segments: &[String],
) -> Result<Resolved, ResolveError> {
    if segments.len() > SEGMENTS_MAX {
        return Err(ResolveError::TooLong);
    }
    let mut way = Resolved {
        cid: *root,
        remainder: Vec::new(),
        roots: vec![*root],
        blocks: vec![*root],
    };
    let mut rest = segments;
    while let Some((name, after)) = rest.split_first() {
        let under = way.cid;
        let no_link = || ResolveError::NoLink {
            name: name.clone(),
            under,
        };
        match under.codec() {
            cid::DAG_PB => {
                let block = fetch(source, &under).await?;
                let (shards, next) = step_pb(source, &block, name).await?;
                way.blocks.extend(shards);
                way.advance(next.ok_or_else(no_link)?);
                rest = after;
            }
            cid::DAG_CBOR | cid::DAG_JSON | cid::CBOR | cid::JSON => {
                let block = fetch(source, &under).await?;
                match step_value(&block, rest)? {
                    Inside::Link(next, taken) => {
                        way.advance(next);
                        rest = rest.get(taken..).unwrap_or_default();
                    }
                    Inside::Value => {
                        way.remainder = rest.to_vec();
                        return Ok(way);
                    }
                    Inside::Nothing(name) => return Err(ResolveError::NoLink { name, under }),
                }
            }
            // A raw block has nothing below it, whether or not it is there.
            _ => return Err(no_link()),
        }
    }
    Ok(way)
}

impl Resolved {
    fn advance(&mut self, next: Cid) {
        self.cid = next;
        self.roots.push(next);
        self.blocks.push(next);
    }
}

async fn fetch<S: BlockSource>(source: &S, cid: &Cid) -> Result<Block, ResolveError> {
    match read::fetch(source, cid).await? {
        Some(block) => Ok(block),
        None => Err(ResolveError::NotFound(*cid)),
    }
}

/// The shards passed and the child named `name`.
async fn step_pb<S: BlockSource>(
    source: &S,
    block: &Block,
    name: &str,
) -> Result<(Vec<Cid>, Option<Cid>), ResolveError> {
    match read::node(block) {
        Ok(Node::Directory(directory)) => {
            let (shards, entry) = directory.find_with_shards(source, name).await?;
            Ok((shards, entry.map(|entry| entry.cid)))
        }
        // What is dag-pb but no folder may still have links with names.
        Ok(_) | Err(ReadError::NotUnixfs { .. }) => {
            let node = super::pb::decode(block.data());
            let node = node.map_err(|why| malformed(block.cid(), why))?;
            Ok((Vec::new(), node.link(name).map(|link| link.cid)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Where names lead inside one block.
enum Inside {
    /// To a link, after so many names.
    Link(Cid, usize),
    /// To a value, and no names are left.
    Value,
    /// This name is not there.
    Nothing(String),
}

fn step_value(block: &Block, names: &[String]) -> Result<Inside, ResolveError> {
    let whole = value::from_block(block).map_err(|error| malformed(block.cid(), error.why))?;
    let mut here = &whole;
    for (at, name) in names.iter().enumerate() {
        if let value::Value::Link(next) = here {
            return Ok(Inside::Link(**next, at));
        }
        match here.child(name) {
            Some(child) => here = child,
            None => return Ok(Inside::Nothing(name.clone())),
        }
    }
    Ok(match here {
        value::Value::Link(next) => Inside::Link(**next, names.len()),
        _ => Inside::Value,
    })
}

fn malformed(cid: &Cid, why: String) -> ResolveError {
    ResolveError::Malformed { cid: *cid, why }
}

impl From<ReadError> for ResolveError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound(cid) => Self::NotFound(cid),
            ReadError::Source(source) => Self::Source(source),
            ReadError::Malformed { cid, why } => Self::Malformed { cid, why },
            ReadError::NotUnixfs { cid, codec } => Self::Malformed {
                cid,
                why: format!("its codec is {codec}"),
            },
            ReadError::OverBudget { cid, limit, .. } => Self::Malformed { cid, why: limit },
        }
    }
}

/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{HashKind, Version};
    use crate::dag::json;
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const EMPTY: &str = "bafkqaaa";

    fn segments(text: &str) -> Result<Vec<String>, ParsePathError> {
        text.parse::<ContentPath>().map(|path| path.segments)
    }

    #[test]
    fn all_forms_of_a_path_are_read() {
        for text in [
            "/ipfs/bafkqaaa/a/b",
            "ipfs://bafkqaaa/a/b",
            "bafkqaaa/a/b",
            "/ipld/bafkqaaa/a/b/",
            "bafkqaaa//a/./x/../b",
        ] {
            assert_eq!(segments(text).unwrap(), ["a", "b"], "{text}");
        }
        assert_eq!(segments("bafkqaaa/a%20b/é").unwrap(), ["a%20b", "é"]);
        let path: ContentPath = "ipfs://bafkqaaa/a".parse().unwrap();
        assert_eq!(path.to_string(), "/ipfs/bafkqaaa/a");
    }

    #[test]
    fn what_is_no_path_says_why() {
        let form = |text| matches!(segments(text), Err(ParsePathError::Form { .. }));
        for text in [
            "",
            "/",
            "/ipfs/",
            "/ipfs",
            "/bafkqaaa",
            "bafkqaaa/..",
            "bafkqaaa/a/../..",
            "bafkqaaa/\0",
        ] {
            assert!(form(text), "{text:?}");
        }
        assert!(form(&format!("bafkqaaa{}", "/a".repeat(SEGMENTS_MAX + 1))));
        for text in ["/ipns/example.com/a", "ipns://example.com"] {
            assert!(matches!(segments(text), Err(ParsePathError::Name { .. })));
        }
        assert!(matches!(
            segments("/ipfs/hello"),
            Err(ParsePathError::Root { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,40}") {
            let _ = segments(&text);
            let _ = segments(&format!("/ipfs/bafkqaaa/{text}"));
        }
    }

    fn add(source: &mut HashMap<Cid, Block>, codec: u64, text: &str) -> Cid {
        let value = json::decode(text.as_bytes()).unwrap();
        let prefix = Prefix {
            version: Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        let bytes = value::encode(&value, codec).unwrap();
        let block = Block::new(prefix, bytes.into()).unwrap();
        let cid = *block.cid();
        source.insert(cid, block);
        cid
    }

    fn walk(
        source: &HashMap<Cid, Block>,
        root: &Cid,
        path: &str,
    ) -> Result<Resolved, ResolveError> {
        let segments: Vec<_> = path
            .split('/')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        resolve(source, root, &segments).now_or_never().unwrap()
    }

    #[test]
    fn a_path_crosses_every_codec() {
        let mut blocks = HashMap::new();
        let raw = cid::parse(EMPTY).unwrap();
        let folder = add(
            &mut blocks,
            cid::DAG_PB,
            &format!(
                r#"{{"Data":{{"/":{{"bytes":"CAE"}}}},"Links":[{{"Hash":{{"/":"{raw}"}},"Name":"file"}}]}}"#
            ),
        );
        let json = add(
            &mut blocks,
            cid::DAG_JSON,
            &format!(r#"{{"list":[0,{{"/":"{folder}"}}],"deep":{{"x":1}}}}"#),
        );
        let cbor = add(
            &mut blocks,
            cid::DAG_CBOR,
            &format!(r#"{{"j":{{"/":"{json}"}}}}"#),
        );

        let found = walk(&blocks, &cbor, "j/list/1/file").unwrap();
        assert_eq!(found.cid, raw);
        assert_eq!(found.roots, [cbor, json, folder, raw]);
        assert_eq!(found.blocks, found.roots);
        assert!(found.remainder.is_empty());

        let inside = walk(&blocks, &cbor, "j/deep/x").unwrap();
        assert_eq!(
            (inside.cid, inside.remainder),
            (json, vec!["deep".into(), "x".into()])
        );
        assert_eq!(walk(&blocks, &cbor, "j/list/1").unwrap().cid, folder);
        assert_eq!(walk(&HashMap::new(), &cbor, "").unwrap().cid, cbor);

        for (path, name, under) in [
            ("j/nope", "nope", json),
            ("j/list/2", "2", json),
            ("j/deep/x/y", "y", json),
            ("j/list/1/nope", "nope", folder),
            ("j/list/1/file/below", "below", raw),
        ] {
            let error = walk(&blocks, &cbor, path).unwrap_err().to_string();
            assert_eq!(error, format!("no link named {name:?} under {under}"));
        }
        blocks.remove(&folder);
        assert!(matches!(
            walk(&blocks, &cbor, "j/list/1/file"),
            Err(ResolveError::NotFound(cid)) if cid == folder
        ));
    }
}
