//! What the torture of the store works on and how its worker tells what it does.
//!
//! A [`World`] is a fixed set of blocks and of folders that share some of them, all decided by a
//! seed, so that whoever knows the seed knows every byte. The worker (`store-torture`) puts, pins
//! and deletes parts of it and writes one [`Line`] before and after each piece of [`Work`]; what it
//! wrote is in the pipe, and so with the oracle, however the worker ends.

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::chunk::Chunker;
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::dag::pb::{self, PbNode};
use cairn_store::sink::BlockSink;
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::import::{ImportError, Importer, Metadata};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Blocks that are pieces of folders' files, the first of a world's blocks.
pub const PIECES: usize = 600;
/// All blocks of a world that are put and deleted by number.
pub const BLOCKS: usize = PIECES + 400;
/// Folders of a world.
pub const TREES: usize = 250;
/// Bytes of a piece, and of a chunk.
const PIECE_BYTES: usize = 4096;
/// Bytes of a pin's name.
const LABEL_BYTES: usize = 200;
const LABEL_FILL: char = '.';

/// Blocks and folders that a seed decides.
#[derive(Debug, Clone, Copy)]
pub struct World {
    seed: u64,
}

impl World {
    /// The world of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn random(&self, kind: u64, number: usize) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (kind << 56) ^ number as u64)
    }

    /// A block: a piece below [`PIECES`], else one of its own with or without room for links.
    pub fn block(&self, number: usize) -> Block {
        let mut random = self.random(1, number);
        let length = match number % 40 {
            _ if number < PIECES => PIECE_BYTES,
            0 => 300_000,
            1..=4 => random.random_range(5_000..60_000),
            _ => random.random_range(0..3_000),
        };
        let mut data = vec![0; length];
        random.fill_bytes(&mut data);
        // Never two of the same bytes, however short they are.
        data.extend_from_slice(&(number as u64).to_le_bytes());
        if number < PIECES {
            data.drain(..8);
        }
        let raw = number < PIECES || number.is_multiple_of(2);
        let prefix = Prefix {
            version: Version::V1,
            codec: if raw { cid::RAW } else { cid::DAG_PB },
            hash: HashKind::Sha2_256,
        };
        let data = Bytes::from(data);
        let data = if raw {
            data
        } else {
            pb::encode(&PbNode {
                links: Vec::new(),
                data: Some(data),
            })
        };
        Block::new(prefix, data).expect("a block")
    }

    /// The pieces that a folder's files are made of, file by file.
    pub fn files(&self, tree: usize) -> Vec<Vec<usize>> {
        let mut random = self.random(2, tree);
        let files = random.random_range(1..=4);
        (0..files)
            .map(|_| {
                let pieces = random.random_range(0..=7);
                (0..pieces)
                    .map(|_| random.random_range(0..PIECES))
                    .collect()
            })
            .collect()
    }

    /// Imports a folder into `sink` and gives its root.
    pub fn import<S: BlockSink>(&self, tree: usize, sink: S) -> Result<Cid, ImportError> {
        let profile = Profile {
            chunker: Chunker::Size(u32::try_from(PIECE_BYTES).expect("small")),
            // Deep files from few pieces.
            width: 3,
            ..Profile::v1_2025()
        };
        let mut importer = Importer::new(profile, sink, |_| {});
        importer.enter("folder", Metadata::default())?;
        for (at, pieces) in self.files(tree).into_iter().enumerate() {
            let mut content = Vec::new();
            for piece in pieces {
                content.extend_from_slice(self.block(piece).data());
            }
            // A tail that only this folder has.
            content.extend_from_slice(format!("file {at} of folder {tree}").as_bytes());
            importer.file(
                &format!("file-{at}"),
                &mut &content[..],
                Metadata::default(),
            )?;
        }
        importer.leave()?;
        let roots = importer.finish()?;
        Ok(roots.first().expect("one folder").cid)
    }

    /// A folder's root and all its blocks.
    pub fn tree(&self, tree: usize) -> (Cid, HashMap<Cid, Block>) {
        let mut blocks = HashMap::new();
        let root = self.import(tree, &mut blocks).expect("an import");
        (root, blocks)
    }
}

/// What is pinned: a folder with all below it, or one block alone. Its name says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pinned {
    /// A folder, recursively.
    Tree(usize),
    /// A block, directly.
    Block(usize),
}

impl Pinned {
    /// What the pin is called: so long that pins alone let the journal be written anew.
    pub fn label(self) -> String {
        let mut label = self.to_string();
        while label.len() < LABEL_BYTES {
            label.push(LABEL_FILL);
        }
        label
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(number) => write!(out, "tree-{number}"),
            Self::Block(number) => write!(out, "block-{number}"),
        }
    }
}

impl FromStr for Pinned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches(LABEL_FILL);
        let (kind, number) = text.split_once('-').ok_or_else(|| unreadable(text))?;
        let number = number.parse().map_err(|_| unreadable(text))?;
        match kind {
            "tree" => Ok(Self::Tree(number)),
            "block" => Ok(Self::Block(number)),
            _ => Err(unreadable(text)),
        }
    }
}

/// One thing that a worker's thread does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Imports a folder and pins it in the same commit.
    Add(usize),
    /// Pins a folder whose blocks come from elsewhere.
    Fetch(usize),
    /// Pins what the store has.
    Pin(usize),
    /// Pins one block directly; it comes from elsewhere.
    Direct(usize),
    /// Unpins.
    Unpin(Pinned),
    /// Puts blocks that are kept.
    Put(Vec<usize>),
    /// Puts blocks that may be evicted.
    Cache(Vec<usize>),
    /// Deletes blocks that no pin reaches.
    Delete(Vec<usize>),
    /// Reads a block and compares it.
    Read(usize),
    /// Collects garbage, and compacts.
    Collect,
    /// Evicts.
    Evict,
    /// Re-hashes everything.
    Verify,
    /// Re-hashes a part.
    Scrub,
    /// Builds the index anew.
    Rebuild,
    /// Makes the snapshot of this number.
    Snapshot(u32),
}

impl fmt::Display for Work {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(tree) => write!(out, "add {tree}"),
            Self::Fetch(tree) => write!(out, "fetch {tree}"),
            Self::Pin(tree) => write!(out, "pin {tree}"),
            Self::Direct(block) => write!(out, "direct {block}"),
            Self::Unpin(pinned) => write!(out, "unpin {pinned}"),
            Self::Put(blocks) => write!(out, "put {}", numbers(blocks)),
            Self::Cache(blocks) => write!(out, "cache {}", numbers(blocks)),
            Self::Delete(blocks) => write!(out, "delete {}", numbers(blocks)),
            Self::Read(block) => write!(out, "read {block}"),
            Self::Collect => write!(out, "collect"),
            Self::Evict => write!(out, "evict"),
            Self::Verify => write!(out, "verify"),
            Self::Scrub => write!(out, "scrub"),
            Self::Rebuild => write!(out, "rebuild"),
            Self::Snapshot(number) => write!(out, "snapshot {number}"),
        }
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let number = || rest.parse().map_err(|_| unreadable(text));
        Ok(match verb {
            "add" => Self::Add(number()?),
            "fetch" => Self::Fetch(number()?),
            "pin" => Self::Pin(number()?),
            "direct" => Self::Direct(number()?),
            "unpin" => Self::Unpin(rest.parse()?),
            "put" => Self::Put(list(rest)?),
            "cache" => Self::Cache(list(rest)?),
            "delete" => Self::Delete(list(rest)?),
            "read" => Self::Read(number()?),
            "collect" => Self::Collect,
            "evict" => Self::Evict,
            "verify" => Self::Verify,
            "scrub" => Self::Scrub,
            "rebuild" => Self::Rebuild,
            "snapshot" => Self::Snapshot(rest.parse().map_err(|_| unreadable(text))?),
            _ => return Err(unreadable(text)),
        })
    }
}

/// Where the snapshot of a number is made of the store in `folder`.
pub fn snapshot_of(folder: &Path, number: u32) -> PathBuf {
    let mut path = folder.as_os_str().to_owned();
    path.push(format!("-snapshot-{number}"));
    PathBuf::from(path)
}

/// What came of a piece of work, if it was one of the answers that may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// These blocks were there and were deleted.
    Deleted(Vec<usize>),
    /// The block was there, with the right bytes.
    Present,
    /// The block was not there.
    Absent,
    /// Not pinned, because a block below was not there.
    Missing,
    /// Not unpinned, because it was not pinned.
    NotPinned,
}

/// What a worker writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// About to open the store, after so many reads and writes.
    Opening(u64),
    /// Opened it.
    Opened(u64),
    /// About to do something.
    Begin(u64, Work),
    /// Did it: the acknowledgement.
    Done(u64, Outcome),
    /// Failed, which no piece of work may on a good disk with room.
    Failed(u64, String),
    /// A collection removed blocks, named by [`name_of`].
    Gone(u64, Vec<u64>),
    /// Something that must never be.
    Wrong(String),
    /// The store told the operator something.
    Notice(String),
    /// About to close the store.
    Closing(u64),
    /// Closed it.
    Closed(u64),
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening(calls) => write!(out, "opening {calls}"),
            Self::Opened(calls) => write!(out, "opened {calls}"),
            Self::Begin(id, work) => write!(out, "begin {id} {work}"),
            Self::Done(id, Outcome::Done) => write!(out, "done {id}"),
            Self::Done(id, Outcome::Deleted(blocks)) => {
                write!(out, "done {id} deleted {}", numbers(blocks))
            }
            Self::Done(id, Outcome::Present) => write!(out, "done {id} present"),
            Self::Done(id, Outcome::Absent) => write!(out, "done {id} absent"),
            Self::Done(id, Outcome::Missing) => write!(out, "done {id} missing"),
            Self::Done(id, Outcome::NotPinned) => write!(out, "done {id} not-pinned"),
            Self::Failed(id, why) => write!(out, "failed {id} {}", one_line(why)),
            Self::Gone(id, names) => write!(out, "gone {id} {}", numbers(names)),
            Self::Wrong(what) => write!(out, "wrong {}", one_line(what)),
            Self::Notice(text) => write!(out, "notice {}", one_line(text)),
            Self::Closing(calls) => write!(out, "closing {calls}"),
            Self::Closed(calls) => write!(out, "closed {calls}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (id, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let id = || id.parse().map_err(|_| unreadable(text));
        Ok(match verb {
            "opening" => Self::Opening(id()?),
            "opened" => Self::Opened(id()?),
            "begin" => Self::Begin(id()?, more.parse()?),
            "done" => Self::Done(
                id()?,
                match more.split_once(' ').unwrap_or((more, "")) {
                    ("", _) => Outcome::Done,
                    ("deleted", blocks) => Outcome::Deleted(list(blocks)?),
                    ("present", _) => Outcome::Present,
                    ("absent", _) => Outcome::Absent,
                    ("missing", _) => Outcome::Missing,
                    ("not-pinned", _) => Outcome::NotPinned,
                    _ => return Err(unreadable(text)),
                },
            ),
            "failed" => Self::Failed(id()?, more.to_owned()),
            "gone" => Self::Gone(id()?, list(more)?),
            "wrong" => Self::Wrong(rest.to_owned()),
            "notice" => Self::Notice(rest.to_owned()),
            "closing" => Self::Closing(id()?),
            "closed" => Self::Closed(id()?),
            _ => return Err(unreadable(text)),
        })
    }
}

/// A short name for a block: the first bytes of its digest.
pub fn name_of(cid: &Cid) -> u64 {
    let digest = cid.hash().digest();
    digest
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Longest line: what a pipe takes in one piece.
pub const LINE_BYTES_MAX: usize = 4096;

fn one_line(text: &str) -> String {
    let mut line: String = text.replace(['\n', '\r'], " ");
    let most = (0..=line.len().min(LINE_BYTES_MAX / 2))
        .rev()
        .find(|at| line.is_char_boundary(*at));
    line.truncate(most.unwrap_or(0));
    line
}

fn numbers<T: ToString>(numbers: &[T]) -> String {
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn list<T: FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',')
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().map_err(|_| unreadable(text)))
        .collect()
}

fn unreadable(text: &str) -> String {
    format!("unreadable line: {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_back() {
        let works = [
            Work::Add(1),
            Work::Fetch(2),
            Work::Pin(3),
            Work::Direct(4),
            Work::Unpin(Pinned::Tree(5)),
            Work::Unpin(Pinned::Block(6)),
            Work::Put(vec![7, 8]),
            Work::Cache(vec![9]),
            Work::Delete(vec![10, 11, 12]),
            Work::Read(13),
            Work::Collect,
            Work::Evict,
            Work::Verify,
            Work::Scrub,
            Work::Rebuild,
            Work::Snapshot(14),
        ];
        let begins = works.into_iter().map(|work| Line::Begin(77, work));
        let others = [
            Line::Opening(0),
            Line::Opened(1),
            Line::Done(2, Outcome::Done),
            Line::Done(3, Outcome::Deleted(vec![])),
            Line::Done(3, Outcome::Deleted(vec![4, 5])),
            Line::Done(6, Outcome::Present),
            Line::Done(7, Outcome::Absent),
            Line::Done(7, Outcome::Missing),
            Line::Done(7, Outcome::NotPinned),
            Line::Failed(8, "no such thing".to_owned()),
            Line::Gone(9, vec![u64::MAX, 0]),
            Line::Wrong("a b".to_owned()),
            Line::Notice("c d".to_owned()),
            Line::Closing(10),
            Line::Closed(11),
        ];
        for line in begins.chain(others) {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        for pinned in [Pinned::Tree(12), Pinned::Block(3)] {
            assert_eq!(pinned.label().len(), LABEL_BYTES);
            assert_eq!(pinned.label().parse(), Ok(pinned));
        }
        let long = Line::Wrong("ä\n".repeat(LINE_BYTES_MAX)).to_string();
        assert!(long.len() < LINE_BYTES_MAX && !long.contains('\n'));
    }

    #[test]
    fn folders_share_pieces_and_have_blocks_of_their_own() {
        let world = World::new(1);
        let mut trees_of: HashMap<Cid, usize> = HashMap::new();
        for tree in 0..40 {
            let (root, blocks) = world.tree(tree);
            assert!(blocks.contains_key(&root));
            for cid in blocks.into_keys() {
                *trees_of.entry(cid).or_default() += 1;
            }
        }
        let shared = trees_of.values().filter(|trees| **trees > 1).count();
        assert!(shared > 40 && shared < trees_of.len() - 40);
        let pieces = (0..PIECES).map(|piece| *world.block(piece).cid());
        assert!(pieces.filter(|piece| trees_of.contains_key(piece)).count() > 100);
    }
}
