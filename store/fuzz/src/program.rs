//! DAGs of hostile blocks. Bytes cannot be changed at random and still be linked by their hash, so
//! the input is a program: one node after the other, each linking earlier ones by their number.
//!
//! The nodes are real blocks with real hashes, as a stranger could send them. What they hold is
//! well formed, or whatever the input wants.

use bytes::Bytes;
use cairn_store::block::Prefix;
use cairn_store::cid::{self, Cid, HashKind, Multihash, Version};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::source::SourceError;
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::directory::Builder;
use cairn_store::unixfs::format::{Message, Type};
use cairn_store::unixfs::read::Entry;
use cairn_store::{Block, BlockSource};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A program's blocks, and how often they were asked for.
#[derive(Debug, Default)]
pub struct Dag {
    blocks: HashMap<Cid, Block>,
    asked: AtomicU64,
}

impl BlockSource for Dag {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.asked.fetch_add(1, Relaxed);
        Ok(self.blocks.get(cid).cloned())
    }

    /// All that there is.
    fn admits(&self, _: &Cid) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Dag {
    /// How often a block was asked for since the last time this was asked.
    pub fn asked(&self) -> u64 {
        self.asked.swap(0, Relaxed)
    }

    /// Bytes of the largest block.
    pub fn largest(&self) -> usize {
        let lengths = self.blocks.values().map(|block| block.data().len());
        // Identity CIDs carry blocks, too.
        lengths.max().unwrap_or(0).max(cid::DIGEST_BYTES_MAX)
    }
}

/// Reads an input from its front; beyond its end there are zeros.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// The next number, a varint.
    pub fn number(&mut self) -> u64 {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    /// As many of the next bytes as the next number says, or as there are.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.number()).unwrap_or(usize::MAX);
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// What a node of a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Raw = 0,
    /// dag-pb around a message that the input gives whole.
    Any = 1,
    /// A shard whose bitfield fits its links, at whatever buckets.
    Shard = 2,
    /// A shard that links one node from every bucket.
    Full = 3,
    /// A folder as it is written, plain or sharded, with its names where they belong.
    Folder = 4,
    /// A file's node, its sizes right or as the input says.
    File = 5,
    /// A file's node that links one other many times.
    Repeat = 6,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Raw,
        Self::Any,
        Self::Shard,
        Self::Full,
        Self::Folder,
        Self::File,
        Self::Repeat,
    ];
}

/// A node made already.
#[derive(Debug, Clone, Copy)]
struct Made {
    cid: Cid,
    /// Bytes of the file below it, if it is one.
    size: u64,
}

/// Runs a program: the DAG, and its last node.
pub fn run(input: &mut Input<'_>) -> Option<(Dag, Cid)> {
    let mut maker = Maker::default();
    while !input.0.is_empty() && maker.made.len() < NODES_MAX {
        let kind = usize::from(input.byte()) % Kind::ALL.len();
        let made = maker.node(*Kind::ALL.get(kind)?, input)?;
        maker.made.push(made);
    }
    let root = maker.made.last()?.cid;
    Some((maker.dag, root))
}

#[derive(Default)]
struct Maker {
    dag: Dag,
    made: Vec<Made>,
}

impl Maker {
    fn node(&mut self, kind: Kind, input: &mut Input<'_>) -> Option<Made> {
        match kind {
            Kind::Raw => {
                let data = Bytes::copy_from_slice(input.bytes());
                let size = data.len() as u64;
                self.put(cid::RAW, data, size)
            }
            Kind::Any => {
                let message = Bytes::copy_from_slice(input.bytes());
                let links = self.links(input, |_, label| Some(label));
                self.put_pb(links, Some(message), 0)
            }
            Kind::Shard => {
                let (fanout, hash) = (input.number(), input.number());
                let mut used = Vec::new();
                let mut links = self.links(input, |input, name| {
                    let bucket = input.number() % fanout.clamp(1, FANOUT_MAX);
                    used.push(bucket);
                    Some(label(fanout, bucket, &name))
                });
                // By bucket, as the bitfield has them.
                links.sort_by(|one, other| one.name.cmp(&other.name));
                self.shard(fanout, hash, &used, links)
            }
            Kind::Full => {
                let fanout = input.number();
                let below = self.target(input);
                let buckets: Vec<u64> = (0..fanout.min(FANOUT_MAX)).collect();
                let link = |bucket: &u64| PbLink {
                    cid: below.cid,
                    name: Some(label(fanout, *bucket, "")),
                    tsize: Some(1),
                };
                let links = buckets.iter().map(link).collect();
                self.shard(fanout, MURMUR3, &buckets, links)
            }
            Kind::Folder => self.folder(input),
            Kind::File => {
                let data = Bytes::copy_from_slice(input.bytes());
                let mut sizes = Vec::new();
                let links = self.links_with(input, |input, made| {
                    // 0 is the truth, everything else a claim.
                    let size = input.number().checked_sub(1).unwrap_or(made.size);
                    sizes.push(size);
                    None
                });
                self.file(data, sizes, links)
            }
            Kind::Repeat => {
                let below = self.target(input);
                let count = usize::try_from(input.number()).ok()?.min(REPEATS_MAX);
                let link = PbLink {
                    cid: below.cid,
                    name: None,
                    tsize: None,
                };
                let links = vec![link; count];
                self.file(Bytes::new(), vec![below.size; count], links)
            }
        }
    }

    fn folder(&mut self, input: &mut Input<'_>) -> Option<Made> {
        let fanout = 8 << (input.byte() % 8);
        let hamt_threshold = usize::from(input.byte()) * 16;
        let mut builder = Builder::default();
        for _ in 0..input.byte() {
            let made = self.target(input);
            builder.insert(Entry {
                name: input.text(),
                cid: made.cid,
                tsize: made.size,
            });
        }
        let profile = Profile {
            fanout,
            hamt_threshold,
            ..Profile::v1_2025()
        };
        let written = builder.write(&profile, &mut self.dag.blocks).ok()?;
        let (cid, size) = (written.cid, 0);
        Some(Made { cid, size })
    }

    fn file(&mut self, data: Bytes, sizes: Vec<u64>, links: Vec<PbLink>) -> Option<Made> {
        let below = sizes.iter().copied().fold(0, u64::saturating_add);
        let size = below.saturating_add(data.len() as u64);
        let message = Message {
            data: Some(data),
            file_size: Some(size),
            block_sizes: sizes,
            ..Message::new(Type::File)
        };
        self.put_pb(links, Some(message.encode().into()), size)
    }

    fn shard(&mut self, fanout: u64, hash: u64, used: &[u64], links: Vec<PbLink>) -> Option<Made> {
        let mut bits = vec![0_u8; usize::try_from(FANOUT_MAX / 8).ok()?];
        for bucket in used {
            let place = usize::try_from(bucket / 8).ok()?;
            let byte = bits.iter_mut().rev().nth(place)?;
            *byte |= 1 << (bucket % 8);
        }
        let zeros = bits.iter().take_while(|byte| **byte == 0).count();
        let message = Message {
            data: Some(bits.split_off(zeros).into()),
            hash_type: Some(hash),
            fanout: Some(fanout),
            ..Message::new(Type::HamtShard)
        };
        self.put_pb(links, Some(message.encode().into()), 0)
    }

    fn links(
        &self,
        input: &mut Input<'_>,
        mut name: impl FnMut(&mut Input<'_>, String) -> Option<String>,
    ) -> Vec<PbLink> {
        self.links_with(input, |input, _| {
            let text = input.text();
            name(input, text)
        })
    }

    fn links_with(
        &self,
        input: &mut Input<'_>,
        mut name: impl FnMut(&mut Input<'_>, &Made) -> Option<String>,
    ) -> Vec<PbLink> {
        (0..input.byte())
            .map(|_| {
                let made = self.target(input);
                let name = name(input, &made);
                PbLink {
                    cid: made.cid,
                    name,
                    tsize: Some(made.size),
                }
            })
            .collect()
    }

    /// Where a link leads: to an earlier node, to one inside the CID, or nowhere.
    fn target(&self, input: &mut Input<'_>) -> Made {
        let wanted = usize::from(input.byte());
        let earlier = wanted
            .checked_sub(INLINE_FORMS)
            .filter(|_| !self.made.is_empty())
            .and_then(|at| self.made.iter().rev().nth(at % self.made.len()));
        let inline = |codec, data: &[u8]| {
            let data = data.get(..cid::DIGEST_BYTES_MAX).unwrap_or(data);
            let hash = Multihash::wrap(HashKind::Identity.code(), data).unwrap_or_default();
            let cid = Cid::new_v1(codec, hash);
            let size = data.len() as u64;
            Made { cid, size }
        };
        match (earlier, wanted) {
            (Some(made), _) => *made,
            (None, 1) => inline(cid::DAG_PB, input.bytes()),
            (None, 2) => inline(cid::RAW, input.bytes()),
            _ => {
                let hash = Multihash::wrap(HashKind::Sha2_256.code(), &[7; 32]).unwrap_or_default();
                let cid = Cid::new_v1(cid::DAG_PB, hash);
                Made { cid, size: 1 }
            }
        }
    }

    fn put_pb(&mut self, links: Vec<PbLink>, data: Option<Bytes>, size: u64) -> Option<Made> {
        let data = pb::encode(&PbNode { links, data });
        self.put(cid::DAG_PB, data, size)
    }

    fn put(&mut self, codec: u64, data: Bytes, size: u64) -> Option<Made> {
        let block = block(codec, data)?;
        let cid = *block.cid();
        self.dag.blocks.insert(cid, block);
        Some(Made { cid, size })
    }
}

/// The block of these bytes, unless they are too many.
pub fn block(codec: u64, data: Bytes) -> Option<Block> {
    let prefix = Prefix {
        version: Version::V1,
        codec,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, data).ok()
}

fn label(fanout: u64, bucket: u64, name: &str) -> String {
    let width = format!("{:X}", fanout.clamp(1, FANOUT_MAX) - 1).len();
    format!("{bucket:0width$X}{name}")
}

/// How shards say that they hash names as all do.
const MURMUR3: u64 = 0x22;
/// Most nodes of a program.
const NODES_MAX: usize = 64;
/// Most links that one byte of a program makes.
const REPEATS_MAX: usize = 1024;
/// Most buckets that a program fills.
const FANOUT_MAX: u64 = 2048;
/// Link targets that are no earlier node.
const INLINE_FORMS: usize = 3;
