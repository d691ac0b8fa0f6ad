//! `get`: a file or a tree as a tar archive; whoever asked takes it apart.

use super::ahead::{self, Pace};
use super::api::{Call, resolve_to_block};
use super::error::RpcError;
use super::reply::{Reply, Sink};
use super::tar::{self, Kind};
use bytes::Bytes;
use cairn_node::Session;
use cairn_store::cid::Cid;
use cairn_store::dag::Budget;
use cairn_store::unixfs::read::{self, Entry, Node, ReadError};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt};
use std::io::Write;
use std::pin::Pin;

/// `get`.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let paths = arguments.paths("ipfs-path")?;
    let Some(path) = paths.first() else {
        return Err(RpcError::wrong("argument \"ipfs-path\" is required"));
    };
    let compress = arguments.flag(&["compress", "C"])?;
    let level: u32 = arguments
        .parsed(&["compression-level", "l"], "a number from 1 to 9")?
        .unwrap_or(6);
    if !(1..=9).contains(&level) {
        return Err(RpcError::wrong("compression level must be between 1 and 9"));
    }
    let name = match path.segments.last() {
        Some(name) => name.clone(),
        None => path.root.to_string(),
    };
    tar::check_name(&name)?;
    let session = call.session().await?;
    let root = resolve_to_block(&session, path).await?;
    let is_online = call.is_online().await?;
    let media = if compress {
        "application/gzip"
    } else {
        "application/x-tar"
    };
    Ok(Reply::bytes(media, None, move |out| async move {
        let pace = Pace::default();
        let mut archive = Archive {
            out,
            gzip: compress.then(|| GzEncoder::new(Vec::new(), Compression::new(level))),
            pace: pace.clone(),
        };
        let source = session.clone();
        let writing = async move {
            write_tree(&session, root, name, &mut archive).await?;
            archive.put(tar::end()).await?;
            archive.finish().await
        };
        if is_online {
            ahead::fetch_beside(source, root, &pace, writing).await
        } else {
            writing.await
        }
    }))
}

type Entries = Pin<Box<dyn Stream<Item = Result<Entry, ReadError>> + Send>>;

async fn write_tree(
    session: &Session,
    root: Cid,
    name: String,
    archive: &mut Archive,
) -> Result<(), RpcError> {
    let mut open: Vec<(String, Entries)> = Vec::new();
    open.extend(write_entry(session, root, name, archive).await?);
    let mut written: u64 = 0;
    while let Some((folder, entries)) = open.last_mut() {
        let Some(entry) = entries.next().await else {
            open.pop();
            continue;
        };
        let entry = entry?;
        tar::check_name(&entry.name)?;
        let path = format!("{folder}/{}", entry.name);
        written += 1;
        if written > Budget::OPERATOR.entries || open.len() > Budget::OPERATOR.depth {
            return Err(RpcError::failed(format!(
                "{path}: more than {} entries or {} levels",
                Budget::OPERATOR.entries,
                Budget::OPERATOR.depth
            )));
        }
        open.extend(write_entry(session, entry.cid, path, archive).await?);
    }
    Ok(())
}

/// Writes one entry; a folder's entries are to follow.
async fn write_entry(
    session: &Session,
    cid: Cid,
    path: String,
    archive: &mut Archive,
) -> Result<Option<(String, Entries)>, RpcError> {
    match read::open(session, &cid).await? {
        Node::Directory(folder) => {
            let header = tar::header(&path, Kind::Folder, folder.mode(), folder.mtime())?;
            archive.put(header).await?;
            let entries = folder.entries(session.clone(), Budget::OPERATOR);
            Ok(Some((path, Box::pin(entries))))
        }
        Node::Symlink(link) => {
            let header = tar::header(&path, Kind::Link(&link.target), None, link.mtime)?;
            archive.put(header).await?;
            Ok(None)
        }
        Node::File(file) => {
            let size = file.size();
            let header = tar::header(&path, Kind::File(size), file.mode(), file.mtime())?;
            archive.put(header).await?;
            let mut written = 0;
            let mut bytes = std::pin::pin!(file.read(session.clone(), 0..size));
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
            archive.put(tar::padding(size)).await?;
            Ok(None)
        }
    }
}

/// The archive on its way out, compressed or not.
struct Archive {
    out: Sink,
    gzip: Option<GzEncoder<Vec<u8>>>,
    pace: Pace,
}

impl Archive {
    async fn put(&mut self, bytes: Bytes) -> Result<(), RpcError> {
        self.pace.used(bytes.len());
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

/// How much compressed output is collected before it goes out.
const GZIP_BYTES: usize = 64 << 10;
