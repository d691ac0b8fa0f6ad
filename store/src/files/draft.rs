//! A file that is being written.
//!
//! It is a list of parts, each a chunk or, of foreign trees, whatever is no larger than one; those that change are in
//! memory until they are hashed, many at once. The nodes above the parts are made when the file is finished. Parts
//! keep their places: what is overwritten takes the place of what was there, and only the last part grows, up to the
//! size of a chunk. So a file that was written by and by, in whatever order, is what adding its content gives, as
//! long as its chunks have the profile's one size and what was there before was made like that.

use super::FilesError;
use super::plan::{Link, Naming};
use super::view::View;
use crate::block::{BLOCK_BYTES_MAX, Block, Prefix};
use crate::chunk::Chunker;
use crate::cid::{self, Cid};
use crate::dag::pb;
use crate::source::BlockSource;
use crate::unixfs::format::{Message, Type};
use crate::unixfs::import::tree::{Part, Tree};
use crate::unixfs::import::{Metadata, leaf_message, leaf_node};
use crate::unixfs::read::{self, Node, ReadError};
use crate::unixfs::{Layout, Profile};
use bytes::Bytes;
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// A file being written.
#[derive(Debug)]
pub(super) struct Draft {
    profile: Profile,
    chunk: usize,
    pub(super) metadata: Metadata,
    parts: Vec<Piece>,
    /// Parts that are in memory, by their number.
    dirty: BTreeMap<usize, Vec<u8>>,
    dirty_bytes: usize,
    /// What was made and not taken yet.
    out: Vec<Block>,
}

/// A part of the file.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Its blocks, unless it is in memory.
    link: Option<Link>,
    /// Where it ends in the file.
    end: u64,
}

/// What the nodes of a file have below them.
struct Inner {
    data: Bytes,
    below: Vec<(Link, u64)>,
    metadata: Metadata,
}

impl Draft {
    /// An empty file.
    pub(super) fn new(profile: &Profile, raw_leaves: bool, naming: Naming) -> Self {
        let chunk = match profile.chunker {
            Chunker::Size(bytes) => bytes as usize,
            // What is written by and by has no content to be cut by yet.
            _ => CHUNK_BYTES,
        };
        Self {
            profile: Profile {
                raw_leaves,
                version: naming.version,
                hash: naming.hash,
                layout: Layout::Balanced,
                chunker: Chunker::Size(u32::try_from(chunk).unwrap_or(u32::MAX)),
                ..profile.clone()
            },
            chunk: chunk.clamp(1, BLOCK_BYTES_MAX),
            metadata: Metadata::default(),
            parts: Vec::new(),
            dirty: BTreeMap::new(),
            dirty_bytes: 0,
            out: Vec::new(),
        }
    }

    /// The file at `cid`, named on as it is.
    pub(super) async fn open<S: BlockSource>(
        view: &View<S>,
        cid: &Cid,
        profile: &Profile,
        above: Naming,
    ) -> Result<Self, FilesError> {
        let is_raw = cid.codec() == cid::RAW;
        let mut draft = Self::new(profile, is_raw, Naming::of(cid, above));
        if is_raw {
            let bytes = view.size(cid).await.map_err(ReadError::from)?;
            let size = bytes.ok_or(ReadError::NotFound(*cid))?;
            let link = Link {
                cid: *cid,
                tsize: size,
            };
            if size > 0 {
                draft.push(link, size)?;
            }
            return Ok(draft);
        }
        let root = inner(view, cid).await?;
        draft.metadata = root.metadata;
        // Of a file without leaves only this tells how they would be: one that could be raw, and is not, is not to be.
        let could_be_raw = root.metadata == Metadata::default();
        draft.profile.raw_leaves =
            root.below.is_empty() && !could_be_raw && cid.version() == cid::Version::V1;
        draft.own(&root)?;
        // The first of all leaves says how large a leaf is; what is larger is a tree.
        let mut leaf_size = None;
        let mut todo: Vec<(Link, u64, bool)> = reversed(root.below);
        if todo.is_empty() {
            return Ok(draft);
        }
        while let Some((link, size, is_last)) = todo.pop() {
            let is_leaf = link.cid.codec() == cid::RAW
                || leaf_size.is_some_and(|leaf| size <= leaf && !is_last);
            if is_leaf {
                leaf_size.get_or_insert(size);
                if draft.parts.is_empty() {
                    draft.profile.raw_leaves = link.cid.codec() == cid::RAW;
                }
                draft.push(link, size)?;
                continue;
            }
            let node = inner(view, &link.cid).await?;
            if node.below.is_empty() {
                leaf_size.get_or_insert(size);
                if size != node.data.len() as u64 {
                    return Err(contradiction(&link.cid));
                }
                draft.push(link, size)?;
                continue;
            }
            let sum = node.below.iter().map(|(_, size)| size);
            let sum = sum.fold(node.data.len() as u64, |sum, size| {
                sum.saturating_add(*size)
            });
            if sum != size {
                return Err(contradiction(&link.cid));
            }
            draft.own(&node)?;
            if todo.len() + node.below.len() > LEAVES_MAX {
                return Err(FilesError::TooLarge);
            }
            todo.extend(reversed(node.below));
        }
        Ok(draft)
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.dirty_bytes
    }

    pub(super) fn set_raw_leaves(&mut self, raw_leaves: bool) {
        self.profile.raw_leaves = raw_leaves;
    }

    /// What was made since the last call.
    pub(super) fn take_blocks(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.out)
    }

    /// What was made and not taken yet.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.out
    }

    /// The blocks that its parts are, as far as they were made.
    pub(super) fn cids(&self) -> impl Iterator<Item = Cid> {
        self.parts.iter().filter_map(|part| Some(part.link?.cid))
    }

    /// Whether so many bytes can be written at `offset` while the file has `size`.
    pub(super) fn has_room_for(
        &self,
        size: u64,
        offset: u64,
        length: u64,
    ) -> Result<(), FilesError> {
        let end = offset.checked_add(length).ok_or(FilesError::TooLarge)?;
        let more = end.saturating_sub(size) / self.chunk as u64 + 2;
        let parts = if size == 0 {
            0
        } else {
            self.parts.len() as u64
        };
        match parts.saturating_add(more) <= LEAVES_MAX as u64 {
            true => Ok(()),
            false => Err(FilesError::TooLarge),
        }
    }

    /// Brings into memory what writing so many bytes at `offset` changes in part.
    pub(super) async fn load_edges<S: BlockSource + Clone + 'static>(
        &mut self,
        view: &View<S>,
        offset: u64,
        length: u64,
    ) -> Result<(), FilesError> {
        let end = offset.saturating_add(length);
        let mut edges = Vec::new();
        for at in [offset, end] {
            let number = self.parts.partition_point(|part| part.end <= at);
            if self.range(number).0 < at && number < self.parts.len() {
                edges.push(number);
            }
        }
        if end > self.size()
            && let Some(last) = self.parts.len().checked_sub(1)
            && (self.range(last).1 - self.range(last).0) < self.chunk as u64
        {
            edges.push(last);
        }
        let stays_one = self.parts.len() == 1 && (length == 0 || end <= self.size());
        if stays_one && self.is_one_node() {
            edges.push(0);
        }
        for number in edges {
            self.load(view, number, false).await?;
        }
        Ok(())
    }

    /// Writes `data` at `offset`; what lies between the end and there is zeros.
    pub(super) async fn write<S: BlockSource + Clone + 'static>(
        &mut self,
        view: &View<S>,
        offset: u64,
        mut data: &[u8],
    ) -> Result<(), FilesError> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > i64::MAX.cast_unsigned()) {
            return Err(FilesError::TooLarge);
        }
        if offset > self.size() {
            self.extend_to(view, offset).await?;
        }
        let mut at = offset;
        while !data.is_empty() {
            let taken = if at < self.size() {
                let number = self.parts.partition_point(|part| part.end <= at);
                let (start, end) = self.range(number);
                let inside = usize::try_from(at - start).unwrap_or(usize::MAX);
                let room = usize::try_from(end - at).unwrap_or(usize::MAX);
                let (now, _) = data.split_at(room.min(data.len()));
                let is_whole = inside == 0 && now.len() == room;
                let bytes = self.load(view, number, is_whole).await?;
                if let Some(place) = bytes.get_mut(inside..inside + now.len()) {
                    place.copy_from_slice(now);
                }
                now.len()
            } else {
                let (number, room) = self.tail()?;
                let (now, _) = data.split_at(room.min(data.len()));
                self.load(view, number, false).await?.extend_from_slice(now);
                self.dirty_bytes += now.len();
                if let Some(part) = self.parts.get_mut(number) {
                    part.end += now.len() as u64;
                }
                now.len()
            };
            at += taken as u64;
            data = data.get(taken..).unwrap_or_default();
            if self.dirty_bytes >= DIRTY_BYTES_MAX {
                self.seal(Which::Complete)?;
            }
        }
        Ok(())
    }

    /// Makes the file so long: what is beyond goes, what is missing is zeros.
    pub(super) async fn truncate<S: BlockSource + Clone + 'static>(
        &mut self,
        view: &View<S>,
        size: u64,
    ) -> Result<(), FilesError> {
        if size > self.size() {
            return self.extend_to(view, size).await;
        }
        let keep = self.parts.partition_point(|part| part.end <= size);
        if size > self.range(keep).0 {
            let start = self.range(keep).0;
            let rest = usize::try_from(size - start).unwrap_or(usize::MAX);
            let bytes = self.load(view, keep, false).await?;
            let gone = bytes.len().saturating_sub(rest);
            bytes.truncate(rest);
            self.dirty_bytes -= gone;
            if let Some(part) = self.parts.get_mut(keep) {
                part.end = size;
            }
            self.cut(keep + 1);
        } else {
            self.cut(keep);
        }
        Ok(())
    }

    /// The file as it is now, and its blocks that were not taken yet. It can be written to all the same.
    pub(super) async fn finish<S: BlockSource + Clone + 'static>(
        &mut self,
        view: &View<S>,
    ) -> Result<(Link, Vec<Block>), FilesError> {
        if self.is_one_node() {
            let data = match self.parts.is_empty() {
                true => Bytes::new(),
                false => Bytes::copy_from_slice(self.load(view, 0, false).await?),
            };
            let node = leaf_node(leaf_message(Type::File, data), self.metadata);
            let block = Block::new(self.profile.node_prefix(), node)?;
            return Ok(self.ends_with(block));
        }
        if self.parts.is_empty() {
            let block = Block::new(self.raw_prefix(), Bytes::new())?;
            return Ok(self.ends_with(block));
        }
        self.seal(Which::All)?;
        let mut blocks = self.out.clone();
        let mut tree = Tree::new(&self.profile);
        let mut start = 0;
        for part in &self.parts {
            let Some(link) = part.link else { continue };
            tree.push(&Part {
                cid: link.cid,
                file_size: part.end - start,
                tsize: link.tsize,
            })?;
            start = part.end;
            blocks.extend(tree.take_blocks());
        }
        let (root, above) = tree.finish(self.metadata)?;
        blocks.extend(above);
        let link = Link {
            cid: root.cid,
            tsize: root.tsize,
        };
        Ok((link, blocks))
    }

    /// Whether it is a dag-pb node that has all of the content in itself.
    fn is_one_node(&self) -> bool {
        let is_plain = self.metadata == Metadata::default();
        // A raw leaf has no room for metadata, so a node takes its place.
        self.parts.len() <= 1 && !(self.profile.raw_leaves && is_plain)
    }

    fn ends_with(&self, block: Block) -> (Link, Vec<Block>) {
        let link = Link {
            cid: *block.cid(),
            tsize: block.data().len() as u64,
        };
        let mut blocks = self.out.clone();
        blocks.push(block);
        (link, blocks)
    }

    fn push(&mut self, link: Link, size: u64) -> Result<(), FilesError> {
        self.has_room(1)?;
        let end = self.size().checked_add(size);
        let end = end.ok_or_else(|| contradiction(&link.cid))?;
        let link = Some(link);
        self.parts.push(Piece { link, end });
        Ok(())
    }

    /// The bytes that a node has itself become a part.
    fn own(&mut self, node: &Inner) -> Result<(), FilesError> {
        if node.data.is_empty() {
            return Ok(());
        }
        self.has_room(1)?;
        let end = self.size() + node.data.len() as u64;
        self.dirty_bytes += node.data.len();
        self.dirty.insert(self.parts.len(), node.data.to_vec());
        self.parts.push(Piece { link: None, end });
        if self.dirty_bytes >= DIRTY_BYTES_MAX {
            self.seal(Which::Complete)?;
        }
        Ok(())
    }

    fn has_room(&self, more: usize) -> Result<(), FilesError> {
        match self.parts.len().saturating_add(more) <= LEAVES_MAX {
            true => Ok(()),
            false => Err(FilesError::TooLarge),
        }
    }

    /// Where a part lies in the file; that of the next one is empty.
    fn range(&self, number: usize) -> (u64, u64) {
        let before = number.checked_sub(1).and_then(|at| self.parts.get(at));
        let start = before.map_or(0, |part| part.end);
        let end = self.parts.get(number).map_or(start, |part| part.end);
        (start, end)
    }

    /// The part that grows, and by how much it may: the last one, or a new one.
    fn tail(&mut self) -> Result<(usize, usize), FilesError> {
        if let Some(last) = self.parts.len().checked_sub(1) {
            let (start, end) = self.range(last);
            let length = usize::try_from(end - start).unwrap_or(usize::MAX);
            if length < self.chunk {
                return Ok((last, self.chunk - length));
            }
        }
        self.has_room(1)?;
        let number = self.parts.len();
        let end = self.size();
        self.parts.push(Piece { link: None, end });
        self.dirty.insert(number, Vec::new());
        Ok((number, self.chunk))
    }

    /// Brings a part into memory; what it holds does not matter if all of it will be overwritten.
    async fn load<S: BlockSource + Clone + 'static>(
        &mut self,
        view: &View<S>,
        number: usize,
        is_overwritten: bool,
    ) -> Result<&mut Vec<u8>, FilesError> {
        let link = self.parts.get(number).and_then(|part| part.link);
        if let Some(link) = link {
            let (start, end) = self.range(number);
            let length = usize::try_from(end - start).unwrap_or(usize::MAX);
            let bytes = match is_overwritten {
                true => vec![0; length],
                // What was just made is in nobody's hands but ours.
                false => match self.out.iter().find(|block| *block.cid() == link.cid) {
                    Some(block) => content(block)?,
                    None => read_part(view, &link.cid, length).await?,
                },
            };
            if bytes.len() != length {
                return Err(contradiction(&link.cid));
            }
            self.dirty_bytes += length;
            self.dirty.insert(number, bytes);
            if let Some(part) = self.parts.get_mut(number) {
                part.link = None;
            }
        }
        Ok(self.dirty.entry(number).or_default())
    }

    fn cut(&mut self, keep: usize) {
        self.parts.truncate(keep);
        let gone = self.dirty.split_off(&keep);
        self.dirty_bytes -= gone.values().map(Vec::len).sum::<usize>();
    }

    async fn extend_to<S: BlockSource + Clone + 'static>(
        &mut self,
        view: &View<S>,
        size: u64,
    ) -> Result<(), FilesError> {
        let missing = size - self.size();
        let chunks = usize::try_from(missing / self.chunk as u64).unwrap_or(usize::MAX);
        self.has_room(chunks.saturating_add(1))?;
        let mut zeros: Option<Link> = None;
        while self.size() < size {
            let left = size - self.size();
            let (start, end) = self.range(self.parts.len().saturating_sub(1));
            let is_full = self.parts.is_empty() || end - start >= self.chunk as u64;
            if is_full && left >= self.chunk as u64 {
                // All of them are one block.
                let link = match zeros {
                    Some(link) => link,
                    None => {
                        let mut made = self.leaves(vec![Bytes::from(vec![0; self.chunk])])?;
                        let link = made.pop().ok_or(FilesError::TooLarge)?;
                        *zeros.insert(link)
                    }
                };
                self.push(link, self.chunk as u64)?;
                continue;
            }
            let (number, room) = self.tail()?;
            let more = room.min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = self.load(view, number, false).await?;
            bytes.resize(bytes.len() + more, 0);
            self.dirty_bytes += more;
            if let Some(part) = self.parts.get_mut(number) {
                part.end += more as u64;
            }
        }
        Ok(())
    }

    /// Hashes what is in memory.
    fn seal(&mut self, which: Which) -> Result<(), FilesError> {
        let last = self.parts.len().saturating_sub(1);
        let all = std::mem::take(&mut self.dirty);
        let stays = |number: &usize, bytes: &Vec<u8>| {
            which == Which::Complete && *number == last && bytes.len() < self.chunk
        };
        let (stay, go): (BTreeMap<_, _>, BTreeMap<_, _>) = all
            .into_iter()
            .partition(|(number, bytes)| stays(number, bytes));
        self.dirty = stay;
        self.dirty_bytes = self.dirty.values().map(Vec::len).sum();
        let (numbers, chunks): (Vec<usize>, Vec<Bytes>) = go
            .into_iter()
            .map(|(number, bytes)| (number, Bytes::from(bytes)))
            .unzip();
        let links = match self.leaves(chunks.clone()) {
            Ok(links) => links,
            Err(error) => {
                // They are as they were.
                self.dirty_bytes += chunks.iter().map(Bytes::len).sum::<usize>();
                let bytes = chunks.into_iter().map(Vec::from);
                self.dirty.extend(numbers.into_iter().zip(bytes));
                return Err(error);
            }
        };
        for (number, link) in numbers.into_iter().zip(links) {
            if let Some(part) = self.parts.get_mut(number) {
                part.link = Some(link);
            }
        }
        Ok(())
    }

    /// Makes leaves of these chunks.
    fn leaves(&mut self, chunks: Vec<Bytes>) -> Result<Vec<Link>, FilesError> {
        let blocks = if self.profile.raw_leaves {
            Block::new_many(self.raw_prefix(), chunks)?
        } else {
            let node = |chunk| leaf_node(leaf_message(Type::File, chunk), Metadata::default());
            Block::new_many(
                self.profile.node_prefix(),
                chunks.into_iter().map(node).collect(),
            )?
        };
        let link = |block: &Block| Link {
            cid: *block.cid(),
            tsize: block.data().len() as u64,
        };
        let links = blocks.iter().map(link).collect();
        self.out.extend(blocks);
        Ok(links)
    }

    fn raw_prefix(&self) -> Prefix {
        Prefix {
            codec: cid::RAW,
            ..self.profile.node_prefix()
        }
    }
}

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// What will not grow any more.
    Complete,
    All,
}

fn reversed(below: Vec<(Link, u64)>) -> Vec<(Link, u64, bool)> {
    let mut all: Vec<_> = below
        .into_iter()
        .map(|(link, size)| (link, size, false))
        .rev()
        .collect();
    if let Some(last) = all.first_mut() {
        last.2 = true;
    }
    all
}

/// The node of a file at `cid`, which is dag-pb.
async fn inner<S: BlockSource>(view: &View<S>, cid: &Cid) -> Result<Inner, FilesError> {
    let block = read::fetch(view, cid).await.map_err(ReadError::from)?;
    let block = block.ok_or(ReadError::NotFound(*cid))?;
    let failed = |why| ReadError::Malformed { cid: *cid, why };
    let node = pb::decode(block.data()).map_err(failed)?;
    let message = Message::decode(&node.data.unwrap_or_default()).map_err(failed)?;
    if !matches!(message.kind, Type::File | Type::Raw) {
        return Err(failed("a part of a file that is no file".to_owned()).into());
    }
    if message.block_sizes.len() != node.links.len() {
        return Err(contradiction(cid));
    }
    let below = node.links.into_iter().zip(&message.block_sizes);
    let below = below.map(|(link, size)| {
        let link = Link {
            cid: link.cid,
            tsize: link.tsize.unwrap_or(*size),
        };
        (link, *size)
    });
    Ok(Inner {
        below: below.collect(),
        data: message.data.unwrap_or_default(),
        metadata: Metadata {
            mode: message.mode,
            mtime: message.mtime,
        },
    })
}

/// The bytes of a part that is no larger than a block may be.
async fn read_part<S: BlockSource + Clone + 'static>(
    view: &View<S>,
    cid: &Cid,
    length: usize,
) -> Result<Vec<u8>, FilesError> {
    let Node::File(file) = read::open(view, cid).await? else {
        return Err(contradiction(cid));
    };
    if length > BLOCK_BYTES_MAX || file.size() != length as u64 {
        return Err(contradiction(cid));
    }
    let mut bytes = Vec::with_capacity(length);
    let mut pieces = std::pin::pin!(file.read(view.clone(), 0..u64::MAX));
    while let Some(piece) = pieces.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The content of a leaf.
fn content(block: &Block) -> Result<Vec<u8>, FilesError> {
    match read::node(block)? {
        Node::File(file) => Ok(file.here().map_or_else(Vec::new, |bytes| bytes.to_vec())),
        _ => Err(contradiction(block.cid())),
    }
}

fn contradiction(cid: &Cid) -> FilesError {
    let why = "sizes that do not add up".to_owned();
    ReadError::Malformed { cid: *cid, why }.into()
}

/// Most parts of a file that is written to: 512 GiB in chunks of 1 MiB.
pub(super) const LEAVES_MAX: usize = 1 << 19;
/// Bytes that are hashed together; few in tests, so that small files go the way of large ones.
const DIRTY_BYTES_MAX: usize = if cfg!(test) { 250 } else { 16 << 20 };
/// How large chunks are where the profile's depend on the content.
const CHUNK_BYTES: usize = 1 << 20;
