//! From files and folders to blocks, in one pass and bounded memory.
//!
//! Whoever imports feeds an [`Importer`] with a tree in walking order: `enter` a folder, give it
//! `file`s and `symlink`s and folders of its own, `leave` it. Small files are collected and hashed
//! together, so their CIDs come out a little later, in order, through `on_event`.
//!
//! What waits for the batch is a list of [`Op`]s, replayed once its blocks have names: only then
//! do folders see their children. Memory holds at most [`SMALL_BYTES_MAX`] of small files, one
//! batch of a large file's chunks ([`LARGE_BYTES_MAX`]), and the names of the open folders.
//!
//! The sink may block. To read and hash meanwhile, wrap the import into [`overlapped`].

mod overlap;
pub(crate) mod tree;

pub use overlap::{Handoff, overlapped};

use super::directory::{self, DirectoryError, Outbox, Row};
use super::format::{Message, Type};
use super::{Layout, Mtime, Profile};
use crate::block::{BLOCK_BYTES_MAX, Block, BlockError, Prefix};
use crate::chunk::Chunker;
use crate::cid::{self, Cid};
use crate::dag::pb;
use crate::hash;
use crate::sink::{BlockSink, Placed, PutError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use tree::{Part, Tree};

/// Mode and time of an entry, kept only when asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Unix permission bits.
    pub mode: Option<u32>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
}

/// What an import tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// So many more bytes of `path` were read.
    Read {
        /// The entry's path, as entered: names joined by `/`, without a leading one.
        path: String,
        /// Bytes of the entry read so far.
        bytes: u64,
    },
    /// An entry is complete. Children come before their folder.
    Added(Added),
}

/// A complete entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The entry's path, as in [`Event::Read`].
    pub path: String,
    /// Its root.
    pub cid: Cid,
    /// Cumulative size of its DAG in bytes.
    pub size: u64,
    /// What it was.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder, plain or HAMT.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Why an import stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// An entry could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The entry.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The blocks could not be kept.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A name that UnixFS cannot hold: empty, `.`, `..`, or with `/` or NUL.
    #[error("{name:?} cannot be a name in a folder")]
    Name {
        /// The name.
        name: String,
    },
    /// Two entries of one folder have one name.
    #[error("two entries are named {path}")]
    Twice {
        /// The path that came twice.
        path: String,
    },
    /// Folders nested deeper than [`DEPTH_MAX`].
    #[error("{path} lies deeper than {DEPTH_MAX} folders")]
    TooDeep {
        /// The folder.
        path: String,
    },
    /// A block could not be made (a chunk or a symlink that is too large for one).
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A folder could not be written.
    #[error("cannot write the folder {path}: {source}")]
    Directory {
        /// The folder.
        path: String,
        /// Why.
        source: DirectoryError,
    },
    /// A folder was left that was never entered.
    #[error("no folder is open")]
    NotEntered,
}

/// Deepest nesting of folders.
pub const DEPTH_MAX: usize = 1024;

/// One import, from its first entry to its root.
pub struct Importer<S, F> {
    profile: Profile,
    sink: S,
    on_event: F,
    /// Names of the folders entered, as far as the caller got.
    path: Vec<String>,
    small: Small,
    ops: Vec<Op>,
    /// Folders entered, as far as the replay got.
    open: Vec<Folder>,
    top: Vec<Added>,
    /// The first bytes of a file.
    scratch: Vec<u8>,
    /// Where the file that is being read lies, if its chunks stay there.
    in_place: Option<Arc<Path>>,
}

/// Leaves that are hashed together.
#[derive(Default)]
struct Small {
    raw: Vec<Bytes>,
    /// Where the raw ones lie that stay there, by their numbers.
    places: BTreeMap<usize, Arc<Path>>,
    nodes: Vec<Bytes>,
    bytes: usize,
}

/// What is replayed once the batch has its names.
enum Op {
    Enter {
        name: String,
        metadata: Metadata,
    },
    Leave,
    Leaf {
        name: String,
        kind: Kind,
        leaf: Leaf,
    },
    Done {
        name: String,
        cid: Cid,
        size: u64,
    },
}

/// A place in the batch.
#[derive(Clone, Copy)]
enum Leaf {
    Raw(usize),
    Node(usize),
}

/// A folder whose children are being collected.
struct Folder {
    name: String,
    path: String,
    metadata: Metadata,
    listing: Listing,
}

/// Entries packed tightly: a folder may have millions.
#[derive(Default)]
struct Listing {
    /// Name and CID of each entry.
    text: String,
    cids: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    name: (usize, usize),
    cid: (usize, usize),
    tsize: u64,
}

impl Listing {
    fn add(&mut self, name: &str, cid: &Cid, tsize: u64) {
        let (text, cids) = (self.text.len(), self.cids.len());
        self.text.push_str(name);
        self.cids.extend(cid.to_bytes());
        self.places.push(Place {
            name: (text, self.text.len()),
            cid: (cids, self.cids.len()),
            tsize,
        });
    }

    /// The entries sorted by name.
    fn rows(&self) -> Vec<Row<'_>> {
        let row = |place: &Place| Row {
            name: self
                .text
                .get(place.name.0..place.name.1)
                .unwrap_or_default(),
            cid: self.cids.get(place.cid.0..place.cid.1).unwrap_or_default(),
            tsize: place.tsize,
        };
        let mut rows: Vec<_> = self.places.iter().map(row).collect();
        rows.sort_by_key(|row| row.name);
        rows
    }
}

impl<S, F> std::fmt::Debug for Importer<S, F> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Importer").finish_non_exhaustive()
    }
}

impl<S: BlockSink, F: FnMut(Event)> Importer<S, F> {
    /// Blocks go to `sink`, progress and results to `on_event`.
    pub fn new(profile: Profile, sink: S, on_event: F) -> Self {
        Self {
            profile,
            sink,
            on_event,
            path: Vec::new(),
            small: Small::default(),
            ops: Vec::new(),
            open: Vec::new(),
            top: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            in_place: None,
        }
    }

    /// Opens a folder inside the current one (or at the top).
    pub fn enter(&mut self, name: &str, metadata: Metadata) -> Result<(), ImportError> {
        self.check(name)?;
        if self.path.len() >= DEPTH_MAX {
            let path = self.path_of(name);
            return Err(ImportError::TooDeep { path });
        }
        self.path.push(name.to_owned());
        let name = name.to_owned();
        self.ops.push(Op::Enter { name, metadata });
        self.flush_if_full()
    }

    /// Closes the current folder.
    pub fn leave(&mut self) -> Result<(), ImportError> {
        self.path.pop().ok_or(ImportError::NotEntered)?;
        self.ops.push(Op::Leave);
        self.flush_if_full()
    }

    /// Reads a file to its end. After an error nothing of the file is in its folder, and the
    /// import may go on without it.
    pub fn file(
        &mut self,
        name: &str,
        content: &mut dyn Read,
        metadata: Metadata,
    ) -> Result<(), ImportError> {
        self.check(name)?;
        // Taken out, so that the rest of the importer can be used while it is read from.
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.file_through(&mut scratch, name, content, metadata);
        self.scratch = scratch;
        result?;
        self.flush_if_full()
    }

    /// Like [`Importer::file`], of a file that lies at `path` and stays there: the sink gets its raw leaves with
    /// their places. What is no raw leaf, as a small file with a mode or time, goes in as any other block.
    pub fn file_in_place(
        &mut self,
        name: &str,
        content: &mut dyn Read,
        metadata: Metadata,
        path: &Path,
    ) -> Result<(), ImportError> {
        self.in_place = Some(path.into());
        let result = self.file(name, content, metadata);
        self.in_place = None;
        result
    }

    /// Adds a symbolic link.
    pub fn symlink(
        &mut self,
        name: &str,
        target: &str,
        metadata: Metadata,
    ) -> Result<(), ImportError> {
        self.check(name)?;
        if target.len() > BLOCK_BYTES_MAX - NODE_OVERHEAD {
            let bytes = target.len();
            return Err(BlockError::TooLarge { bytes }.into());
        }
        let message = Message {
            data: Some(Bytes::copy_from_slice(target.as_bytes())),
            ..Message::new(Type::Symlink)
        };
        let node = leaf_node(message, metadata);
        self.add_node(name, Kind::Symlink, node);
        self.flush_if_full()
    }

    /// Writes out what is still collected and gives the top-level entries, in the order given.
    /// Folders still open are left.
    pub fn finish(mut self) -> Result<Vec<Added>, ImportError> {
        while self.path.pop().is_some() {
            self.ops.push(Op::Leave);
        }
        self.flush()?;
        Ok(self.top)
    }

    fn file_through(
        &mut self,
        scratch: &mut [u8],
        name: &str,
        content: &mut dyn Read,
        metadata: Metadata,
    ) -> Result<(), ImportError> {
        let path = self.path_of(name);
        let failed = |source| ImportError::Read {
            path: path.clone(),
            source,
        };
        let length = fill(content, scratch).map_err(failed)?;
        let at_end = length < scratch.len();
        let start = scratch.get(..length).unwrap_or_default();
        let balanced = self.profile.layout == Layout::Balanced;
        if let Chunker::Size(most) = self.profile.chunker
            && at_end
            && balanced
            && length <= most as usize
        {
            self.add_small(name, path, Bytes::copy_from_slice(start), metadata);
            return Ok(());
        }
        let mut chunks = self.profile.chunker.chunks(start.chain(content));
        let first = chunks.next().transpose().map_err(failed)?;
        let second = chunks.next().transpose().map_err(failed)?;
        if balanced && second.is_none() {
            self.add_small(name, path, first.unwrap_or_default(), metadata);
            return Ok(());
        }
        let start = first.into_iter().chain(second).map(Ok);
        let root = self.large(&path, &mut start.chain(chunks), metadata)?;
        self.ops.push(Op::Done {
            name: name.to_owned(),
            cid: root.cid,
            size: root.tsize,
        });
        Ok(())
    }

    /// Puts a file of one chunk into the batch.
    fn add_small(&mut self, name: &str, path: String, data: Bytes, metadata: Metadata) {
        let bytes = data.len() as u64;
        (self.on_event)(Event::Read { path, bytes });
        let plain = metadata.mode.is_none() && metadata.mtime.is_none();
        if self.profile.raw_leaves && plain {
            self.small.bytes += data.len();
            let number = self.small.raw.len();
            if let Some(path) = &self.in_place {
                self.small.places.insert(number, path.clone());
            }
            let leaf = Leaf::Raw(number);
            self.small.raw.push(data);
            self.push_leaf(name, Kind::File, leaf);
        } else {
            // A raw leaf has no room for metadata, so a node takes its place.
            let node = leaf_node(leaf_message(Type::File, data), metadata);
            self.add_node(name, Kind::File, node);
        }
    }

    fn add_node(&mut self, name: &str, kind: Kind, node: Bytes) {
        self.small.bytes += node.len();
        let leaf = Leaf::Node(self.small.nodes.len());
        self.small.nodes.push(node);
        self.push_leaf(name, kind, leaf);
    }

    fn push_leaf(&mut self, name: &str, kind: Kind, leaf: Leaf) {
        let name = name.to_owned();
        self.ops.push(Op::Leaf { name, kind, leaf });
    }

    /// Hashes and hands over a file of several chunks, some at a time.
    fn large(
        &mut self,
        path: &str,
        chunks: &mut dyn Iterator<Item = io::Result<Bytes>>,
        metadata: Metadata,
    ) -> Result<Part, ImportError> {
        let mut tree = Tree::new(&self.profile);
        // Where nothing is written, hashing is what there is to wait for.
        let hashers = match self.in_place {
            Some(_) => std::thread::available_parallelism().map_or(1, usize::from),
            None => 0,
        };
        let hashers = hashers.min(HASHERS_MAX);
        std::thread::scope(|scope| {
            let mut hashing = VecDeque::new();
            let (mut batch, mut batch_bytes, mut total) = (Vec::new(), 0, 0);
            let mut offset = 0;
            loop {
                let chunk = chunks
                    .next()
                    .transpose()
                    .map_err(|source| ImportError::Read {
                        path: path.to_owned(),
                        source,
                    })?;
                let at_end = chunk.is_none();
                if let Some(chunk) = chunk {
                    total += chunk.len() as u64;
                    batch_bytes += chunk.len();
                    batch.push(chunk);
                }
                let full = batch.len() >= LARGE_CHUNKS_MAX || batch_bytes >= LARGE_BYTES_MAX;
                if full || at_end {
                    let chunks = std::mem::take(&mut batch);
                    if hashers == 0 {
                        let named = Named::new(&self.profile, chunks)?;
                        self.put_chunks(&mut tree, named, offset)?;
                    } else {
                        let profile = self.profile.clone();
                        let named = scope.spawn(move || Named::new(&profile, chunks));
                        hashing.push_back((offset, named));
                    }
                    while hashing.len() > hashers || at_end && !hashing.is_empty() {
                        let Some((offset, named)) = hashing.pop_front() else {
                            break;
                        };
                        let named = named.join().unwrap_or_else(|panic| resume_unwind(panic));
                        self.put_chunks(&mut tree, named?, offset)?;
                    }
                    offset = total;
                    batch_bytes = 0;
                    (self.on_event)(Event::Read {
                        path: path.to_owned(),
                        bytes: total,
                    });
                }
                if at_end {
                    return Ok::<(), ImportError>(());
                }
            }
        })?;
        let (root, blocks) = tree.finish(metadata)?;
        self.sink.put(blocks)?;
        Ok(root)
    }

    /// Hands over leaves, the first of which begins at `offset` of its file.
    fn put_chunks(
        &mut self,
        tree: &mut Tree,
        named: Named,
        offset: u64,
    ) -> Result<(), ImportError> {
        let Named { mut blocks, sizes } = named;
        if blocks.is_empty() {
            return Ok(());
        }
        for (block, file_size) in blocks.iter().zip(sizes) {
            tree.push(&Part {
                cid: *block.cid(),
                file_size,
                tsize: block.data().len() as u64,
            })?;
        }
        if let Some(path) = self.in_place.as_ref().filter(|_| self.profile.raw_leaves) {
            let mut offset = offset;
            let placed = std::mem::take(&mut blocks).into_iter().map(|block| {
                let at = offset;
                offset += block.data().len() as u64;
                Placed {
                    block,
                    path: path.clone(),
                    offset: at,
                }
            });
            self.sink.put_placed(placed.collect())?;
        }
        blocks.extend(tree.take_blocks());
        Ok(self.sink.put(blocks)?)
    }

    fn raw_prefix(&self) -> Prefix {
        raw_prefix(&self.profile)
    }

    fn flush_if_full(&mut self) -> Result<(), ImportError> {
        if self.small.bytes >= SMALL_BYTES_MAX || self.ops.len() >= OPS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Hashes and hands over the batch, then replays what waited for it.
    fn flush(&mut self) -> Result<(), ImportError> {
        let small = std::mem::take(&mut self.small);
        let raw = name_all(self.raw_prefix(), small.raw)?;
        let nodes = name_all(self.profile.node_prefix(), small.nodes)?;
        let named = |block: &Block| (*block.cid(), block.data().len() as u64);
        let raw_names: Vec<_> = raw.iter().map(named).collect();
        let node_names: Vec<_> = nodes.iter().map(named).collect();
        let mut places = small.places;
        let (mut placed, mut stored) = (Vec::new(), Vec::new());
        for (number, block) in raw.into_iter().enumerate() {
            match places.remove(&number) {
                Some(path) => placed.push(Placed {
                    block,
                    path,
                    offset: 0,
                }),
                None => stored.push(block),
            }
        }
        if !placed.is_empty() {
            self.sink.put_placed(placed)?;
        }
        for blocks in [stored, nodes] {
            if !blocks.is_empty() {
                self.sink.put(blocks)?;
            }
        }
        let ops = std::mem::take(&mut self.ops);
        let mut out = Outbox::new(&mut self.sink);
        let mut replay = Replay {
            profile: &self.profile,
            open: &mut self.open,
            top: &mut self.top,
        };
        for op in ops {
            let added = match op {
                Op::Enter { name, metadata } => {
                    replay.enter(name, metadata);
                    continue;
                }
                Op::Leave => replay.leave(&mut out)?,
                Op::Leaf { name, kind, leaf } => {
                    let named = match leaf {
                        Leaf::Raw(at) => raw_names.get(at),
                        Leaf::Node(at) => node_names.get(at),
                    };
                    named.map(|(cid, size)| replay.add(&name, *cid, *size, kind))
                }
                Op::Done { name, cid, size } => Some(replay.add(&name, cid, size, Kind::File)),
            };
            if let Some(added) = added {
                (self.on_event)(Event::Added(added));
            }
        }
        Ok(out.flush()?)
    }

    fn check(&self, name: &str) -> Result<(), ImportError> {
        let wrong = match name {
            "." | ".." => true,
            // What has no folder needs no name: standard input.
            "" => !self.path.is_empty(),
            _ => name.contains(['/', '\0']),
        };
        if wrong {
            let name = name.to_owned();
            return Err(ImportError::Name { name });
        }
        Ok(())
    }

    fn path_of(&self, name: &str) -> String {
        let mut path = self.path.join("/");
        if !path.is_empty() {
            path.push('/');
        }
        path + name
    }
}

/// Chunks of a large file as leaves.
struct Named {
    blocks: Vec<Block>,
    /// How many bytes of the file each has.
    sizes: Vec<u64>,
}

impl Named {
    /// Hashes chunks.
    fn new(profile: &Profile, chunks: Vec<Bytes>) -> Result<Self, BlockError> {
        let sizes = chunks.iter().map(|chunk| chunk.len() as u64).collect();
        let blocks = if profile.raw_leaves {
            Block::new_many(raw_prefix(profile), chunks)?
        } else {
            let kind = match profile.layout {
                Layout::Balanced => Type::File,
                Layout::Trickle => Type::Raw,
            };
            let node = |chunk| leaf_node(leaf_message(kind, chunk), Metadata::default());
            let nodes = chunks.into_iter().map(node).collect();
            Block::new_many(profile.node_prefix(), nodes)?
        };
        Ok(Self { blocks, sizes })
    }
}

fn raw_prefix(profile: &Profile) -> Prefix {
    Prefix {
        codec: cid::RAW,
        ..profile.node_prefix()
    }
}

/// Folders as they fill while the ops are replayed.
struct Replay<'a> {
    profile: &'a Profile,
    open: &'a mut Vec<Folder>,
    top: &'a mut Vec<Added>,
}

impl Replay<'_> {
    fn enter(&mut self, name: String, metadata: Metadata) {
        let path = match self.open.last() {
            Some(parent) => format!("{}/{name}", parent.path),
            None => name.clone(),
        };
        self.open.push(Folder {
            name,
            path,
            metadata,
            listing: Listing::default(),
        });
    }

    fn add(&mut self, name: &str, cid: Cid, size: u64, kind: Kind) -> Added {
        let path = match self.open.last() {
            Some(parent) => format!("{}/{name}", parent.path),
            None => name.to_owned(),
        };
        let added = Added {
            path,
            cid,
            size,
            kind,
        };
        match self.open.last_mut() {
            Some(parent) => parent.listing.add(name, &cid, size),
            None => self.top.push(added.clone()),
        }
        added
    }

    fn leave<S: BlockSink>(
        &mut self,
        out: &mut Outbox<'_, S>,
    ) -> Result<Option<Added>, ImportError> {
        let Some(folder) = self.open.pop() else {
            return Ok(None);
        };
        let rows = folder.listing.rows();
        for (one, other) in rows.iter().zip(rows.iter().skip(1)) {
            if one.name == other.name {
                let path = format!("{}/{}", folder.path, one.name);
                return Err(ImportError::Twice { path });
            }
        }
        let written = directory::write(self.profile, folder.metadata, &rows, out);
        let written = written.map_err(|error| match error {
            DirectoryError::Put(error) => ImportError::Put(error),
            source => ImportError::Directory {
                path: folder.path.clone(),
                source,
            },
        })?;
        Ok(Some(self.add(
            &folder.name,
            written.cid,
            written.tsize,
            Kind::Directory,
        )))
    }
}

/// Names blocks in batches of like length, where the lanes of the hash are fullest; answers in the
/// order given.
fn name_all(prefix: Prefix, data: Vec<Bytes>) -> Result<Vec<Block>, BlockError> {
    if data.len() <= hash::BATCH {
        return Block::new_many(prefix, data);
    }
    let mut order: Vec<(usize, Bytes)> = data.into_iter().enumerate().collect();
    order.sort_by_key(|(_, bytes)| bytes.len());
    let (places, data): (Vec<usize>, Vec<Bytes>) = order.into_iter().unzip();
    let blocks = Block::new_many(prefix, data)?;
    let mut back: Vec<(usize, Block)> = places.into_iter().zip(blocks).collect();
    back.sort_unstable_by_key(|(place, _)| *place);
    Ok(back.into_iter().map(|(_, block)| block).collect())
}

pub(crate) fn leaf_message(kind: Type, data: Bytes) -> Message {
    Message {
        file_size: Some(data.len() as u64),
        data: (!data.is_empty()).then_some(data),
        ..Message::new(kind)
    }
}

/// A dag-pb node without links.
pub(crate) fn leaf_node(message: Message, metadata: Metadata) -> Bytes {
    let message = Message {
        mode: metadata.mode,
        mtime: metadata.mtime,
        ..message
    }
    .encode();
    let mut out = Vec::with_capacity(message.len() + NODE_OVERHEAD);
    pb::put_data(&mut out, &message);
    Bytes::from(out)
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Bytes of small files hashed together.
pub const SMALL_BYTES_MAX: usize = 16 << 20;
/// Entries that wait for one batch.
const OPS_MAX: usize = 2048;
/// Chunks of a large file hashed together.
const LARGE_CHUNKS_MAX: usize = 4 * hash::BATCH;
/// Bytes of a large file hashed together.
pub const LARGE_BYTES_MAX: usize = 16 << 20;
/// Most batches of a file that is added in place that are hashed at once, each on a thread of its own: one a core, and
/// no more memory than this many [`LARGE_BYTES_MAX`] and a seventh: what chunks are read into may be larger than they are.
const HASHERS_MAX: usize = 16;
/// What is read of a file before anything is reserved for it.
const SCRATCH_BYTES: usize = 64 << 10;
/// More than what a node adds to the data of its leaf.
const NODE_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests;
