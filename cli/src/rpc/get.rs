//! `get`: a file or a tree as a tar archive; whoever asked takes it apart.

use super::ahead::{self, Pace};
use super::api::{Call, resolve_to_block};
use super::error::{KEPT, RpcError};
use super::follow::content;
use super::reply::{Reply, Sink};
use super::tar::{self, Kind};
use bytes::Bytes;
use cairn_gateway::archive::{Names, Taker};
use cairn_node::Session;
use cairn_node::name::follow::Depth;
use cairn_node::name::path::NamePath;
use cairn_store::cid::{self, Cid};
use cairn_store::dag::Budget;
use cairn_store::dag::absent::Absent;
use cairn_store::dag::walk::{Missing, Options, walk};
use cairn_store::unixfs::read::{self, Directory, Entry, File, Node, ReadError};
use cairn_store::{Block, BlockSource, SourceError};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `get`.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let Some(given) = arguments.paths("ipfs-path")?.into_iter().next() else {
        return Err(RpcError::wrong("argument \"ipfs-path\" is required"));
    };
    let compress = arguments.flag(&["compress", "C"])?;
    let level: u32 = arguments
        .parsed(&["compression-level", "l"], "a number from 1 to 9")?
        .unwrap_or(6);
    if !(1..=9).contains(&level) {
        return Err(RpcError::wrong("compression level must be between 1 and 9"));
    }
    let name = own_name(&given);
    tar::check_name(&name)?;
    let path = content(call.follow(given, Depth::default()).await?.path)?;
    let session = call.session().await?;
    let root = resolve_to_block(&session, &path).await?;
    let is_online = call.is_online().await?;
    let cache_max = call.context.store().await?.stat().cache_max;
    if is_online {
        session.prefetch(&root).await.map_err(ReadError::from)?;
    }
    let media = if compress {
        "application/gzip"
    } else {
        "application/x-tar"
    };
    Ok(Reply::bytes(media, None, move |out| async move {
        let pace = Pace::within(cache_max);
        let mut archive = Archive {
            out,
            gzip: compress.then(|| GzEncoder::new(Vec::new(), Compression::new(level))),
            pace: pace.clone(),
            whole_first_max: if is_online {
                WHOLE_FIRST_BYTES.min(pace.ahead_most())
            } else {
                WHOLE_FIRST_BYTES // Nothing comes that could push anything out.
            },
            names: Names::default(),
        };
        let source = session.clone();
        let writing = async move {
            let reader = Reader::new(session);
            let absent = write_tree(&reader, root, name, LIMITS, &mut archive).await?;
            archive.put(tar::end()).await?;
            archive.finish().await?;
            if absent.is_empty() {
                return Ok(());
            }
            Err(RpcError::failed(left_out(&absent)))
        };
        if is_online {
            Box::pin(ahead::fetch_beside(source, root, &pace, writing)).await
        } else {
            writing.await
        }
    }))
}

/// What is said of a file that lacks some blocks.
fn of_file(gaps: &Absent) -> String {
    match gaps.count() {
        1 => format!("at least 1 of its blocks is missing: {gaps}"),
        count => format!("at least {count} of its blocks are missing: {gaps}"),
    }
}

/// What is said of an archive that lacks some entries.
fn left_out(absent: &Absent) -> String {
    let what = match absent.count() {
        1 => "1 entry was left out, its blocks were not found".to_owned(),
        count => format!("{count} entries were left out, their blocks were not found"),
    };
    format!(
        "{what}: {absent}; all others were written; {KEPT}, but it wants another place (-o) or what was written \
         moved away"
    )
}

type Entries = Pin<Box<dyn Stream<Item = Result<(String, Opened), ReadError>> + Send>>;

/// What lies at a name.
struct Opened {
    cid: Cid,
    /// Bytes of a file whose root was found.
    size: u64,
    found: Result<Found, ReadError>,
}

enum Found {
    /// All of a small file, and the room that it takes until it is written.
    Small(File, Vec<Bytes>, OwnedSemaphorePermit),
    Other(Node),
}

/// Where a tree is read from.
#[derive(Clone)]
struct Reader {
    session: Session,
    /// Room for small files that are read ahead of the archive, in bytes.
    room: Arc<Semaphore>,
}

impl Reader {
    fn new(session: Session) -> Self {
        Self {
            session,
            room: Arc::new(Semaphore::new(SMALL_FILES_BYTES)),
        }
    }

    /// Opens what is at `cid`; a small file is read too.
    async fn open(self, cid: Cid) -> Opened {
        let mut bytes_of_file = 0;
        let found = async {
            let node = read::open(&self.session, &cid).await?;
            let Node::File(file) = node else {
                return Ok(Found::Other(node));
            };
            bytes_of_file = file.size();
            let size = u32::try_from(file.size()).unwrap_or(u32::MAX);
            if size > SMALL_FILE_BYTES {
                return Ok(Found::Other(Node::File(file)));
            }
            // Who has no room is read when it is its turn.
            let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(size) else {
                return Ok(Found::Other(Node::File(file)));
            };
            let bytes = file.read(self.session.clone(), 0..file.size());
            let bytes = bytes.try_collect().await?;
            Ok(Found::Small(file, bytes, room))
        };
        let found = found.await;
        let size = bytes_of_file;
        Opened { cid, size, found }
    }

    /// The entries of a folder, in order, some opened ahead.
    fn entries(&self, folder: &Directory) -> Entries {
        let reader = self.clone();
        let opened = folder
            .entries(self.session.clone(), LIMITS)
            .map(move |entry| {
                let reader = reader.clone();
                async move {
                    let entry: Entry = entry?;
                    Ok::<_, ReadError>((entry.name, reader.open(entry.cid).await))
                }
            });
        Box::pin(opened.buffered(ENTRIES_AHEAD))
    }

    /// Brings all blocks of a file here, as far as they are to be had; tells of those that are not.
    async fn gaps(&self, cid: Cid, size: u64, absent: &Absent) -> Result<Absent, ReadError> {
        let looked = Looked {
            session: self.session.clone(),
            gaps: Arc::new(Mutex::new(absent.of_part())),
            bytes: Arc::default(),
        };
        let bytes_max = size.saturating_mul(2).saturating_add(NODE_BYTES_MAX);
        let options = Options {
            missing: Missing::Tell,
            read_ahead: BLOCKS_AHEAD,
            ..Options::default()
        };
        let mut visits = std::pin::pin!(walk(looked.clone(), cid, options));
        while let Some(visit) = visits.next().await {
            match visit {
                Ok(_) if looked.bytes() > bytes_max => break, // Not what its root says: reading it will tell.
                Ok(_) if !looked.gaps().is_hopeless() => {}
                Err(ReadError::Source(error)) if error.is_of_every_block() => {
                    return Err(error.into());
                }
                _ => break,
            }
        }
        let gaps = looked.gaps().clone();
        Ok(gaps)
    }
}

/// A source that notes what is missing. Leaves are brought here, not read.
#[derive(Clone)]
struct Looked {
    session: Session,
    gaps: Arc<Mutex<Absent>>,
    /// What came.
    bytes: Arc<AtomicU64>,
}

impl Looked {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn gaps(&self) -> MutexGuard<'_, Absent> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockSource for Looked {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        let (block, size) = if cid.codec() == cid::RAW {
            (None, self.session.size(cid).await)
        } else {
            match self.session.block(cid).await {
                Ok(block) => {
                    let size = block.as_ref().map(|block| block.data().len() as u64);
                    (block, Ok(size))
                }
                Err(error) => (None, Err(error)),
            }
        };
        let why = match size {
            Ok(Some(size)) => {
                self.bytes.fetch_add(size, Ordering::Relaxed);
                self.gaps().came();
                return Ok(block);
            }
            Ok(None) => ReadError::NotFound(*cid).to_string(),
            Err(error) if error.is_of_every_block() => return Err(error),
            Err(error) => error.to_string(),
        };
        self.gaps().take(cid, why);
        Ok(None)
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.session.admits(cid)
    }
}

/// The name that a path's content has by itself: its last, or that of its root.
fn own_name(path: &NamePath) -> String {
    if let Some(name) = path.segments.last() {
        return name.clone();
    }
    let root = path.root.to_string();
    root.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Writes what is whole; whatever is not is left out and told of at the end.
async fn write_tree(
    reader: &Reader,
    root: Cid,
    name: String,
    limits: Budget,
    archive: &mut Archive,
) -> Result<Absent, RpcError> {
    let mut absent = Absent::default();
    let mut open: Vec<(String, Entries)> = Vec::new();
    let opened = reader.clone().open(root).await;
    if let Err(error) = &opened.found {
        return Err(error.clone().into());
    }
    let entries = write_entry(reader, opened, name, archive, &mut absent).await?;
    open.extend(entries);
    if open.is_empty() && !absent.is_empty() {
        return Err(RpcError::failed(format!(
            "nothing was written: {absent}; {KEPT}"
        )));
    }
    let mut written: u64 = 0;
    while let Some((folder, entries)) = open.last_mut() {
        let Some(entry) = entries.next().await else {
            open.pop();
            continue;
        };
        let (name, opened) = match entry {
            Ok(entry) => entry,
            Err(error) if error.is_absence() => {
                // The rest of its entries is named in a block that is missing.
                absent.take(format!("entries of {folder}"), error);
                open.pop();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        tar::check_name(&name)?;
        let path = format!("{folder}/{name}");
        written += 1;
        if written > limits.entries {
            return Err(too_much(&path, "entries", limits.entries));
        }
        if open.len() >= limits.depth {
            return Err(too_much(&path, "levels", limits.depth as u64));
        }
        let entries = write_entry(reader, opened, path, archive, &mut absent).await?;
        open.extend(entries);
        if absent.is_hopeless() {
            break;
        }
    }
    Ok(absent)
}

/// Writes one entry; a folder's entries are to follow.
async fn write_entry(
    reader: &Reader,
    opened: Opened,
    path: String,
    archive: &mut Archive,
    absent: &mut Absent,
) -> Result<Option<(String, Entries)>, RpcError> {
    let found = match opened.found {
        Ok(found) => found,
        Err(error) if error.is_absence() => {
            archive.pace.passed(opened.size);
            absent.take(path, error);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let node = match found {
        Found::Small(file, bytes, room) => {
            archive.take(&path, Taker::Other)?;
            absent.came();
            write_file(
                &path,
                &file,
                stream::iter(bytes.into_iter().map(Ok)),
                archive,
            )
            .await?;
            drop(room);
            return Ok(None);
        }
        Found::Other(node) => node,
    };
    match node {
        Node::Directory(folder) => {
            archive.take(&path, Taker::Other)?;
            let header = tar::header(&path, Kind::Folder, folder.mode(), folder.mtime())?;
            archive.put(header).await?;
            Ok(Some((path, reader.entries(&folder))))
        }
        Node::Symlink(link) => {
            archive.take(&path, Taker::Link)?;
            let header = tar::header(&path, Kind::Link(&link.target), None, link.mtime)?;
            archive.put(header).await?;
            Ok(None)
        }
        Node::File(file) => {
            // Its header promises all of it. What is larger would have to wait too long for that, or would
            // be evicted before it is read and come twice, so there a gap is the end.
            if file.size() <= archive.whole_first_max {
                let gaps = reader.gaps(opened.cid, file.size(), absent).await?;
                if !gaps.is_empty() {
                    archive.pace.passed(file.size());
                    absent.after_part(&gaps, path, of_file(&gaps));
                    return Ok(None);
                }
            }
            archive.take(&path, Taker::Other)?;
            absent.came();
            let bytes = file.read(reader.session.clone(), 0..file.size());
            write_file(&path, &file, bytes, archive).await?;
            Ok(None)
        }
    }
}

async fn write_file(
    path: &str,
    file: &File,
    bytes: impl Stream<Item = Result<Bytes, ReadError>>,
    archive: &mut Archive,
) -> Result<(), RpcError> {
    let size = file.size();
    let header = tar::header(path, Kind::File(size), file.mode(), file.mtime())?;
    archive.put(header).await?;
    let mut written = 0;
    let mut bytes = std::pin::pin!(bytes);
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        written += piece.len() as u64;
        archive.put(piece).await?;
    }
    if written != size {
        return Err(RpcError::failed(format!(
            "{path} has {written} bytes, its root says {size}"
        )));
    }
    archive.put(tar::padding(size)).await
}

fn too_much(path: &str, what: &str, most: u64) -> RpcError {
    RpcError::failed(format!(
        "{} is too large to get at once: more than {most} {what}; get parts of it",
        path.split('/').next().unwrap_or_default()
    ))
}

/// The archive on its way out, compressed or not.
struct Archive {
    out: Sink,
    gzip: Option<GzEncoder<Vec<u8>>>,
    pace: Pace,
    /// Largest file of which every block is brought here before its header goes out.
    whole_first_max: u64,
    names: Names,
}

impl Archive {
    /// Takes the name of an entry.
    fn take(&mut self, path: &str, taker: Taker) -> Result<(), RpcError> {
        let parts: Vec<&str> = path.split('/').collect();
        let taken = self.names.take(&parts, taker);
        taken.map_err(|clash| RpcError::failed(format!("the entry {path:?} is refused: {clash}")))
    }

    async fn put(&mut self, bytes: Bytes) -> Result<(), RpcError> {
        let (pace, count) = (self.pace.clone(), bytes.len());
        pace.handing_on(count, self.hand_on(bytes)).await
    }

    async fn hand_on(&mut self, bytes: Bytes) -> Result<(), RpcError> {
        let Some(gzip) = &mut self.gzip else {
            return if bytes.is_empty() {
                Ok(())
            } else {
                self.out.bytes(bytes).await
            };
        };
        gzip.write_all(&bytes)?;
        if gzip.get_ref().len() < GZIP_BYTES {
            return Ok(());
        }
        let ready = std::mem::take(gzip.get_mut());
        self.out.bytes(Bytes::from(ready)).await
    }

    async fn finish(self) -> Result<(), RpcError> {
        match self.gzip {
            Some(gzip) => self.out.bytes(Bytes::from(gzip.finish()?)).await,
            None => Ok(()),
        }
    }
}

/// What one `get` writes at most: ten million entries are an hour's work and some disk, and links
/// can promise far more of them in a few blocks.
const LIMITS: Budget = Budget {
    entries: 10_000_000,
    depth: cairn_store::unixfs::import::DEPTH_MAX,
    ..Budget::OPERATOR
};
/// Largest file that is read before its header goes out, several at a time.
const SMALL_FILE_BYTES: u32 = 256 << 10;
/// Bytes of small files that wait for their turn.
const SMALL_FILES_BYTES: usize = 16 << 20;
/// Entries of a folder that are opened ahead.
const ENTRIES_AHEAD: usize = 32;
/// Largest file of which every block is brought here before its header goes out, if the cache can hold it.
const WHOLE_FIRST_BYTES: u64 = 256 << 20;
/// What the blocks of a file may have more than twice its bytes.
const NODE_BYTES_MAX: u64 = 16 << 20;
/// Blocks of such a file that are under way at once.
const BLOCKS_AHEAD: usize = 64;
/// How much compressed output is collected before it goes out.
const GZIP_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TEMPLATE};
    use crate::repository::Repository;
    use crate::rpc::reply::told_in_trailer;
    use cairn_node::Exchange;
    use cairn_store::Store;
    use cairn_store::block::Prefix;
    use cairn_store::cid::{DAG_PB, HashKind, Version};
    use cairn_store::dag::pb::{self, PbLink, PbNode};
    use cairn_store::store::Keep;
    use http_body_util::BodyExt;

    fn store(folder: &std::path::Path) -> Store {
        let config = Config::parse(TEMPLATE).unwrap();
        Repository::at(folder)
            .open_store(&config, &mut |_| {})
            .unwrap()
    }

    /// Folders whose two entries are both the folder below: 2^levels entries in few blocks.
    fn doubling(levels: usize) -> Vec<Block> {
        let prefix = Prefix {
            version: Version::V1,
            codec: DAG_PB,
            hash: HashKind::Sha2_256,
        };
        let mut blocks: Vec<Block> = Vec::new();
        for _ in 0..=levels {
            let below = blocks.last().map(|block| *block.cid());
            let link = |name: &str| {
                Some(PbLink {
                    cid: below?,
                    name: Some(name.to_owned()),
                    tsize: None,
                })
            };
            let node = PbNode {
                links: ["a", "b"].iter().filter_map(|name| link(name)).collect(),
                data: Some(vec![8, 1].into()),
            };
            blocks.push(Block::new(prefix, pb::encode(&node)).unwrap());
        }
        blocks
    }

    #[test]
    fn one_entry_is_told_as_one() {
        let mut absent = Absent::default();
        absent.take("tree/a", "gone");
        let one = left_out(&absent);
        assert!(one.starts_with("1 entry was left out, its blocks"), "{one}");
        absent.take("tree/b", "gone");
        let two = left_out(&absent);
        assert!(two.starts_with("2 entries were left out, their"), "{two}");
    }

    #[tokio::test]
    async fn a_tree_of_more_entries_than_blocks_could_hold_ends_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let blocks = doubling(60);
        let root = *blocks.last().unwrap().cid();
        store.put(blocks, Keep::Cached).await.unwrap();
        let session = Exchange::offline(store).session(None);
        let reply = Reply::bytes("application/x-tar", None, move |out| async move {
            let mut archive = Archive {
                out,
                gzip: None,
                pace: Pace::within(u64::MAX),
                whole_first_max: WHOLE_FIRST_BYTES,
                names: Names::default(),
            };
            let limits = Budget {
                entries: 1000,
                ..LIMITS
            };
            let reader = Reader::new(session);
            let name = "tree".to_owned();
            let written = write_tree(&reader, root, name, limits, &mut archive).await;
            written.map(drop)
        });
        let body = reply.into_response(None).await.into_body();
        let body = body.collect().await.unwrap();
        let told = told_in_trailer(body.trailers().unwrap()).unwrap();
        assert!(told.message().contains("more than 1000 entries"), "{told}");
    }
}
