//! The links of a block, for every codec.
//!
//! `pb`, `cbor` and `json` read and write bytes, `value` is what they have in common; `path` and
//! `walk` go from block to block over a [`crate::source::BlockSource`]. Nothing here recurses over
//! foreign depth, and nothing allocates by a foreign length.

pub mod absent;
pub(crate) mod ahead;
pub mod cbor;
pub mod json;
pub mod path;
pub mod pb;
pub mod value;
pub mod walk;
pub(crate) mod wire;

use crate::block::Block;
use crate::cid::{self, Cid};
use value::Event;

/// Limits on one piece of work over foreign DAGs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most folder entries handed out.
    pub entries: u64,
    /// Most blocks read.
    pub blocks: u64,
    /// Most bytes of blocks read.
    pub bytes: u64,
    /// Deepest level below the root.
    pub depth: usize,
}

impl Budget {
    /// For an operator's own commands: generous, yet finite.
    pub const OPERATOR: Self = Self {
        entries: 100_000_000,
        blocks: u64::MAX,
        bytes: u64::MAX,
        depth: 4096,
    };
    /// For tests of what happens at a limit.
    pub const REQUEST: Self = Self {
        entries: 100_000,
        blocks: 100_000,
        bytes: 4 << 30,
        depth: 256,
    };
}

/// Which limit of a [`Budget`] was reached, and its figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many folder entries.
    Entries(u64),
    /// So many blocks.
    Blocks(u64),
    /// So many bytes.
    Bytes(u64),
    /// So many levels.
    Depth(u64),
}

/// A link as its block gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link's name in dag-pb; the path to it in other codecs.
    pub name: String,
    /// Where it points.
    pub cid: Cid,
    /// Tsize in dag-pb.
    pub tsize: Option<u64>,
}

/// Why a block cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {cid} is not valid {codec}: {why}")]
pub struct DecodeError {
    /// The block.
    pub cid: Cid,
    /// Its codec's name.
    pub codec: String,
    /// What is wrong, and where.
    pub why: String,
}

impl DecodeError {
    pub(crate) fn new(cid: &Cid, why: String) -> Self {
        Self {
            cid: *cid,
            codec: codec_text(cid.codec()),
            why,
        }
    }
}

/// The links of a block, in stored order, duplicates included. Codecs without links, and codecs
/// that we do not know, have none.
pub fn links(block: &Block) -> Result<Vec<Link>, DecodeError> {
    let data = block.data();
    let mut found = Collector::default();
    let read = match block.cid().codec() {
        cid::DAG_PB => {
            return pb::decode(data)
                .map(|node| node.links.into_iter().map(Link::from).collect())
                .map_err(|why| DecodeError::new(block.cid(), why));
        }
        cid::DAG_CBOR => cbor::read(data, cbor::Form::Lenient, &mut |event| found.take(event)),
        cid::DAG_JSON => json::read(data, json::Slash::Reserved, &mut |event| found.take(event)),
        _ => Ok(()),
    };
    read.map(|()| found.links)
        .map_err(|why| DecodeError::new(block.cid(), why))
}

impl From<pb::PbLink> for Link {
    fn from(link: pb::PbLink) -> Self {
        Self {
            name: link.name.unwrap_or_default(),
            cid: link.cid,
            tsize: link.tsize,
        }
    }
}

/// A codec's name, or its number where it has none here.
pub(crate) fn codec_text(codec: u64) -> String {
    cid::codec_name(codec).map_or_else(|| format!("0x{codec:x}"), str::to_owned)
}

/// Collects links from events, without building values.
#[derive(Default)]
struct Collector {
    links: Vec<Link>,
    /// The way down to the next value: a key or an index for each open container.
    path: Vec<Step>,
    name_bytes: usize,
}

enum Step {
    Index(usize),
    Key(String),
}

impl Collector {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the readers ask for a callback that may refuse"
    )]
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Key(key) => {
                if let Some(step) = self.path.last_mut() {
                    *step = Step::Key(key.into_owned());
                }
            }
            Event::List => self.path.push(Step::Index(0)),
            Event::Map => self.path.push(Step::Key(String::new())),
            Event::End => {
                self.path.pop();
                self.passed();
            }
            Event::Link(cid) => {
                let name = self.name();
                self.links.push(Link {
                    name,
                    cid,
                    tsize: None,
                });
                self.passed();
            }
            _ => self.passed(),
        }
        Ok(())
    }

    fn passed(&mut self) {
        if let Some(Step::Index(at)) = self.path.last_mut() {
            *at += 1;
        }
    }

    /// The path to here. A long key above many links would be repeated for each of them, so names
    /// end when they have taken [`NAME_BYTES_MAX`] altogether.
    fn name(&mut self) -> String {
        if self.name_bytes >= NAME_BYTES_MAX {
            return String::new();
        }
        let mut name = String::new();
        for (at, step) in self.path.iter().enumerate() {
            if at > 0 {
                name.push('/');
            }
            match step {
                Step::Index(index) => name.push_str(&index.to_string()),
                Step::Key(key) => name.push_str(key),
            }
        }
        self.name_bytes += name.len();
        name
    }
}

/// Deepest nesting of lists and maps inside one block.
pub const DEPTH_MAX: usize = 512;

/// Most bytes of names given for the links of one dag-cbor or dag-json block.
const NAME_BYTES_MAX: usize = 8 << 20;

/// Whether blocks of this codec never have links.
pub const fn has_no_links(codec: u64) -> bool {
    use crate::cid::{CBOR, JSON, LIBP2P_KEY, RAW};
    matches!(codec, RAW | CBOR | JSON | LIBP2P_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{HashKind, Version};

    fn block(codec: u64, data: &[u8]) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, data.to_vec().into()).unwrap()
    }

    #[test]
    fn every_codec_gives_its_links_in_order() {
        let text = br#"{"a":[1,{"/":"bafkqaaa"},{"x":{"/":"bafkqaaa"}}],"b":{"/":"bafkqaaa"}}"#;
        let value = json::decode(text).unwrap();
        for codec in [cid::DAG_JSON, cid::DAG_CBOR] {
            let bytes = value::encode(&value, codec).unwrap();
            let names: Vec<_> = links(&block(codec, &bytes))
                .unwrap()
                .into_iter()
                .map(|link| link.name)
                .collect();
            assert_eq!(names, ["a/1", "a/2/x", "b"]);
        }
        for codec in [cid::RAW, cid::JSON, cid::CBOR, cid::LIBP2P_KEY, 0x99] {
            assert_eq!(links(&block(codec, text)), Ok(vec![]));
        }
    }

    #[test]
    fn a_malformed_block_says_which_codec_and_what() {
        for codec in [cid::DAG_PB, cid::DAG_CBOR, cid::DAG_JSON] {
            let block = block(codec, b"\xff");
            let error = links(&block).unwrap_err();
            assert_eq!(error.cid, *block.cid());
            assert!(
                error.to_string().contains(cid::codec_name(codec).unwrap()),
                "{error}"
            );
        }
    }

    #[test]
    fn one_long_key_above_many_links_does_not_multiply() {
        let mut bytes = Vec::new();
        cbor::put_head(&mut bytes, 5, 1);
        cbor::put_head(&mut bytes, 3, 1 << 20);
        bytes.resize(bytes.len() + (1 << 20), b'k');
        cbor::put_head(&mut bytes, 4, 1000);
        for _ in 0..1000 {
            cbor::put_link(&mut bytes, &cid::parse("bafkqaaa").unwrap());
        }
        let links = links(&block(cid::DAG_CBOR, &bytes)).unwrap();
        assert_eq!(links.len(), 1000);
        let names: usize = links.iter().map(|link| link.name.len()).sum();
        assert!(names <= NAME_BYTES_MAX + (2 << 20));
    }
}
