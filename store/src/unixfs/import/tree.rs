//! The nodes above a file's leaves, sealed as soon as they are full: memory holds one open node a
//! level.

use super::Metadata;
use crate::block::{Block, BlockError, Prefix};
use crate::cid::Cid;
use crate::dag::pb;
use crate::unixfs::format::{Message, Type};
use crate::unixfs::{Layout, Profile};
use bytes::Bytes;

/// A part of a file, complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) cid: Cid,
    /// Bytes of the file in it.
    pub(crate) file_size: u64,
    /// Bytes of its blocks.
    pub(crate) tsize: u64,
}

/// A tree that grows leaf by leaf.
pub(crate) struct Tree {
    prefix: Prefix,
    width: usize,
    shape: Shape,
    /// Nodes sealed and not yet taken.
    blocks: Vec<Block>,
}

enum Shape {
    /// One open node a level, the leaves' parents first.
    Balanced(Vec<Open>),
    /// The way from the root to the node that grows.
    Trickle(Vec<Branch>),
}

/// A node that still grows.
#[derive(Default)]
struct Open {
    links: Vec<u8>,
    sizes: Vec<u64>,
    file_size: u64,
    below: u64,
    /// The only child so far.
    first: Option<Part>,
}

impl Open {
    fn add(&mut self, part: &Part) {
        pb::put_link(
            &mut self.links,
            &part.cid.to_bytes(),
            Some(""),
            Some(part.tsize),
        );
        self.sizes.push(part.file_size);
        self.file_size = self.file_size.saturating_add(part.file_size);
        self.below = self.below.saturating_add(part.tsize);
        self.first.get_or_insert(*part);
    }
}

/// A node of a trickle tree: leaves first, then subtrees, four of each depth.
struct Branch {
    node: Open,
    /// Subtrees of this depth and deeper do not belong here; `None` in the root.
    depth_end: Option<usize>,
    /// Depth of the next subtree.
    depth: usize,
    /// Subtrees of that depth so far.
    repeats: usize,
}

impl Branch {
    fn new(depth_end: Option<usize>) -> Self {
        Self {
            node: Open::default(),
            depth_end,
            depth: 1,
            repeats: 0,
        }
    }
}

impl Tree {
    pub(crate) fn new(profile: &Profile) -> Self {
        Self {
            prefix: profile.node_prefix(),
            width: profile.width.max(2),
            shape: match profile.layout {
                Layout::Balanced => Shape::Balanced(Vec::new()),
                Layout::Trickle => Shape::Trickle(vec![Branch::new(None)]),
            },
            blocks: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, leaf: &Part) -> Result<(), BlockError> {
        match &mut self.shape {
            Shape::Balanced(_) => self.push_balanced(0, *leaf),
            Shape::Trickle(_) => self.push_trickle(leaf),
        }
    }

    pub(crate) fn take_blocks(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.blocks)
    }

    /// Seals what is open; the root takes the metadata.
    pub(crate) fn finish(mut self, metadata: Metadata) -> Result<(Part, Vec<Block>), BlockError> {
        let root = match &mut self.shape {
            Shape::Balanced(_) => self.finish_balanced(metadata)?,
            Shape::Trickle(_) => self.finish_trickle(metadata)?,
        };
        Ok((root, self.blocks))
    }

    /// A level seals its node only when one more child arrives, so the last node on the way up is
    /// the root even if it is just full.
    fn push_balanced(&mut self, level: usize, part: Part) -> Result<(), BlockError> {
        let (mut level, mut part) = (level, part);
        loop {
            let width = self.width;
            let Shape::Balanced(levels) = &mut self.shape else {
                return Ok(());
            };
            if levels.len() <= level {
                levels.push(Open::default());
            }
            let Some(open) = levels.get_mut(level) else {
                return Ok(());
            };
            if open.sizes.len() < width {
                open.add(&part);
                return Ok(());
            }
            let full = std::mem::take(open);
            open.add(&part);
            part = self.seal(full, Metadata::default())?;
            level += 1;
        }
    }

    fn finish_balanced(&mut self, metadata: Metadata) -> Result<Part, BlockError> {
        let mut level = 0;
        while let Shape::Balanced(levels) = &mut self.shape {
            let is_root = level + 1 >= levels.len();
            let open = levels
                .get_mut(level)
                .map(std::mem::take)
                .unwrap_or_default();
            match open.first {
                // A single leaf is its own root.
                Some(leaf) if is_root && level == 0 && open.sizes.len() == 1 => return Ok(leaf),
                _ if is_root => return self.seal(open, metadata),
                _ => {
                    let part = self.seal(open, Metadata::default())?;
                    level += 1;
                    self.push_balanced(level, part)?;
                }
            }
        }
        self.seal(Open::default(), metadata)
    }

    fn push_trickle(&mut self, leaf: &Part) -> Result<(), BlockError> {
        loop {
            let width = self.width;
            let Shape::Trickle(branches) = &mut self.shape else {
                return Ok(());
            };
            let Some(top) = branches.last_mut() else {
                return Ok(());
            };
            if top.node.sizes.len() < width {
                top.node.add(leaf);
                return Ok(());
            }
            if top.depth_end.is_none_or(|end| top.depth < end) {
                let depth = top.depth;
                branches.push(Branch::new(Some(depth)));
            } else {
                self.close_branch()?;
            }
        }
    }

    /// Seals the innermost branch and gives it to its parent.
    fn close_branch(&mut self) -> Result<(), BlockError> {
        let Shape::Trickle(branches) = &mut self.shape else {
            return Ok(());
        };
        let Some(branch) = branches.pop() else {
            return Ok(());
        };
        let part = self.seal(branch.node, Metadata::default())?;
        if let Shape::Trickle(branches) = &mut self.shape
            && let Some(parent) = branches.last_mut()
        {
            parent.node.add(&part);
            parent.repeats += 1;
            if parent.repeats == TRICKLE_REPEATS {
                parent.repeats = 0;
                parent.depth += 1;
            }
        }
        Ok(())
    }

    fn finish_trickle(&mut self, metadata: Metadata) -> Result<Part, BlockError> {
        while let Shape::Trickle(branches) = &self.shape
            && branches.len() > 1
        {
            self.close_branch()?;
        }
        let root = match &mut self.shape {
            Shape::Trickle(branches) => branches.pop().map(|branch| branch.node),
            Shape::Balanced(_) => None,
        };
        self.seal(root.unwrap_or_default(), metadata)
    }

    fn seal(&mut self, open: Open, metadata: Metadata) -> Result<Part, BlockError> {
        let message = Message {
            file_size: Some(open.file_size),
            block_sizes: open.sizes,
            mode: metadata.mode,
            mtime: metadata.mtime,
            ..Message::new(Type::File)
        };
        let mut bytes = open.links;
        pb::put_data(&mut bytes, &message.encode());
        let tsize = open.below.saturating_add(bytes.len() as u64);
        let block = Block::new(self.prefix, Bytes::from(bytes))?;
        let cid = *block.cid();
        self.blocks.push(block);
        Ok(Part {
            cid,
            file_size: open.file_size,
            tsize,
        })
    }
}

/// How many subtrees of one depth a trickle node has.
const TRICKLE_REPEATS: usize = 4;
