//! Files, folders and links as a TAR that unpacks into one place.
//!
//! Names come from links that strangers made. Each is cleaned as a path below the root; one that
//! would leave it, that comes twice, or that would be written through a symbolic link of the same
//! archive ends the answer with an error, before its first byte where it stands early enough.

mod entry;

use super::ahead::{self, Leave};
use super::{Context, answer, not_modified};
use crate::archive::Taker;
use crate::body::{self, Body, Break, Chunks};
use crate::budget::{self, Limit};
use crate::error::Failure;
use crate::headers::{self, Disposition, Match};
use crate::metrics::Kind;
use crate::request::Verb;
use bytes::Bytes;
use cairn_store::dag::{Bound, Budget};
use cairn_store::unixfs::read::{self, Entry, File, Node, ReadError};
use cairn_store::{Block, BlockSource, Cid, SourceError, cid};
use entry::{Attributes, Names};
use futures::{Stream, StreamExt, stream};
use http::{HeaderValue, Response, header};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Answers with a TAR.
pub(super) async fn serve<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
) -> Result<Response<Body>, Failure> {
    let root = context.resolved.cid;
    if !matches!(root.codec(), cid::DAG_PB | cid::RAW) {
        let codec = cid::codec_name(root.codec()).unwrap_or("another codec");
        return Err(Failure::Format(format!(
            "{root} is {codec}; only files and folders can be had as a TAR"
        )));
    }
    let etag = format!("W/{}", context.etag(".x-tar"));
    let matched = headers::if_none_match(context.request, &etag);
    if matched == Match::Named {
        return Ok(not_modified(
            Kind::Tar,
            headers::value(etag),
            context.cache(),
        ));
    }
    let node = context.open(&root).await?;
    if matched == Match::Any {
        return Ok(not_modified(
            Kind::Tar,
            headers::value(etag),
            context.cache(),
        ));
    }
    let media = HeaderValue::from_static("application/x-tar");
    let mut response = answer(Kind::Tar, &etag, media, context.cache());
    let map = response.headers_mut();
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::ACCEPT_RANGES, headers::NONE);
    map.insert(
        header::CONTENT_DISPOSITION,
        context.disposition(Disposition::Attachment, "tar"),
    );
    if context.request.verb == Verb::Get {
        let budget = budget::of_archive(context.config);
        let archive = Archive {
            source: context.source.clone(),
            names: Names::new(root.to_string()),
            next: Next::Node {
                node,
                path: Vec::new(),
            },
            open: Vec::new(),
            shards: Counted::new(context.source.clone()),
            shards_max: budget.entries,
            budget,
            left: budget,
            leave: context.leave.clone(),
        };
        let peeked = body::peek(archive.stream(), PEEK_BYTES)
            .await
            .map_err(|why| why.into_failure(context.reach()))?;
        *response.body_mut() = Body::stream(peeked.into_chunks(), None, context.idle());
    }
    Ok(response)
}

type Entries = Pin<Box<dyn Stream<Item = Result<Entry, ReadError>> + Send>>;

/// An archive while it is made.
struct Archive<S> {
    source: S,
    names: Names,
    next: Next,
    /// Folders that are not finished, the innermost last.
    open: Vec<Level>,
    /// Where folders have their shards from.
    shards: Counted<S>,
    /// How many of them all folders together may have: such as hold nothing are no entries.
    shards_max: u64,
    budget: Budget,
    /// What is left of it.
    left: Budget,
    leave: Leave,
}

/// A folder on the way.
struct Level {
    path: Vec<String>,
    entries: Entries,
}

/// What comes next.
enum Next {
    /// An entry that is opened.
    Node { node: Node, path: Vec<String> },
    /// An entry that is to be opened.
    Cid { cid: Cid, path: Vec<String> },
    /// More of a file.
    Bytes {
        chunks: Chunks,
        left: u64,
        padding: usize,
    },
    /// The next entry of the innermost folder.
    Entry,
    /// Nothing.
    End,
}

impl<S: BlockSource + Clone + 'static> Archive<S> {
    fn stream(self) -> Chunks {
        stream::try_unfold(self, |mut archive| async move {
            let chunk = archive.chunk().await?;
            Ok(chunk.map(|chunk| (chunk, archive)))
        })
        .boxed()
    }

    /// The next bytes of the archive.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Break> {
        loop {
            match std::mem::replace(&mut self.next, Next::End) {
                Next::Cid { cid, path } => {
                    let node = read::open(&self.source, &cid).await?;
                    self.next = Next::Node { node, path };
                }
                Next::Node { node, path } => return self.begin(node, path).map(Some),
                Next::Bytes {
                    chunks,
                    left,
                    padding,
                } => {
                    if let Some(bytes) = self.content(chunks, left, padding).await? {
                        return Ok(Some(bytes));
                    }
                }
                Next::Entry => match self.open.last_mut() {
                    Some(level) => match level.entries.next().await {
                        Some(entry) => {
                            let entry = entry.map_err(Break::of_archive)?;
                            self.shards.within(self.shards_max)?;
                            let path = entry::below(&level.path, &entry.name)?;
                            self.next = Next::Cid {
                                cid: entry.cid,
                                path,
                            };
                        }
                        None => {
                            self.shards.within(self.shards_max)?;
                            self.open.pop();
                            self.next = Next::Entry;
                        }
                    },
                    None => return Ok(Some(Bytes::from_static(&[0; 2 * entry::RECORD_BYTES]))),
                },
                Next::End => return Ok(None),
            }
        }
    }

    /// The head of an entry.
    fn begin(&mut self, node: Node, path: Vec<String>) -> Result<Bytes, Break> {
        let over = |bound| Break::Over(Limit::Archive(bound));
        let left = self.left.entries.checked_sub(1);
        self.left.entries = left.ok_or_else(|| over(Bound::Entries(self.budget.entries)))?;
        let taker = match node {
            Node::Symlink(_) => Taker::Link,
            Node::File(_) | Node::Directory(_) => Taker::Other,
        };
        let name = self.names.take(&path, taker)?;
        self.next = Next::Entry;
        match node {
            Node::File(file) => {
                let size = file.size();
                let left = self.left.bytes.checked_sub(size);
                self.left.bytes = left.ok_or_else(|| over(Bound::Bytes(self.budget.bytes)))?;
                self.next = self.bytes(&file, size);
                entry::head(&name, &Attributes::file(size, file.mode(), file.mtime()))
            }
            Node::Directory(directory) => {
                if self.open.len() >= self.budget.depth {
                    return Err(over(Bound::Depth(self.budget.depth as u64)));
                }
                let attributes = Attributes::folder(directory.mode(), directory.mtime());
                let entries = directory.entries(self.shards.clone(), self.budget).boxed();
                self.open.push(Level { path, entries });
                entry::head(&name, &attributes)
            }
            Node::Symlink(link) => entry::head(&name, &Attributes::link(&link.target, link.mtime)),
        }
    }

    fn bytes(&self, file: &File, size: u64) -> Next {
        if size == 0 {
            return Next::Entry;
        }
        let chunks = ahead::read(file, self.source.clone(), 0..size, &self.leave);
        Next::Bytes {
            chunks,
            left: size,
            padding: entry::padding(size),
        }
    }

    /// More of a file; `None` when there is no more.
    async fn content(
        &mut self,
        mut chunks: Chunks,
        left: u64,
        padding: usize,
    ) -> Result<Option<Bytes>, Break> {
        match chunks.next().await {
            Some(bytes) => {
                let bytes = bytes?;
                let left = left.checked_sub(bytes.len() as u64).ok_or(Break::Size)?;
                self.next = Next::Bytes {
                    chunks,
                    left,
                    padding,
                };
                Ok(Some(bytes))
            }
            None if left > 0 => Err(Break::Size),
            None => {
                self.next = Next::Entry;
                Ok(entry::ZEROS
                    .get(..padding)
                    .filter(|zeros| !zeros.is_empty())
                    .map(Bytes::from_static))
            }
        }
    }
}

/// A source, and how often it was asked for a block.
#[derive(Debug, Clone)]
struct Counted<S> {
    source: S,
    asked: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    fn new(source: S) -> Self {
        let asked = Arc::default();
        Self { source, asked }
    }

    /// Fails once it was asked more often than `most`.
    fn within(&self, most: u64) -> Result<(), Break> {
        match self.asked.load(Ordering::Relaxed) <= most {
            true => Ok(()),
            false => Err(Break::Over(Limit::Archive(Bound::Entries(most)))),
        }
    }
}

impl<S: BlockSource> BlockSource for Counted<S> {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.block(cid).await
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.source.admits(cid)
    }
}

/// How much is made before anything is answered, so that small archives fail with a status.
const PEEK_BYTES: usize = 64 << 10;
