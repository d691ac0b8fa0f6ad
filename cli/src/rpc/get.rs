//! `get`: a file or a tree as a tar archive; whoever asked takes it apart.

use super::ahead::{self, Pace};
use super::api::{Call, resolve_to_block};
use super::error::RpcError;
use super::reply::{Reply, Sink};
use super::tar::{self, Kind};
use bytes::Bytes;
use cairn_gateway::archive::{Names, Taker};
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
            names: Names::default(),
        };
        let source = session.clone();
        let writing = async move {
            write_tree(&session, root, name, LIMITS, &mut archive).await?;
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
    limits: Budget,
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
        if written > limits.entries {
            return Err(too_much(&path, "entries", limits.entries));
        }
        if open.len() >= limits.depth {
            return Err(too_much(&path, "levels", limits.depth as u64));
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
    let node = read::open(session, &cid).await?;
    archive.take(&path, &node)?;
    match node {
        Node::Directory(folder) => {
            let header = tar::header(&path, Kind::Folder, folder.mode(), folder.mtime())?;
            archive.put(header).await?;
            let entries = folder.entries(session.clone(), LIMITS);
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
    names: Names,
}

impl Archive {
    /// Takes the name of an entry.
    fn take(&mut self, path: &str, node: &Node) -> Result<(), RpcError> {
        let taker = match node {
            Node::Symlink(_) => Taker::Link,
            Node::File(_) | Node::Directory(_) => Taker::Other,
        };
        let parts: Vec<&str> = path.split('/').collect();
        let taken = self.names.take(&parts, taker);
        taken.map_err(|clash| RpcError::failed(format!("the entry {path:?} is refused: {clash}")))
    }

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

/// What one `get` writes at most: ten million entries are an hour's work and some disk, and links
/// can promise far more of them in a few blocks.
const LIMITS: Budget = Budget {
    entries: 10_000_000,
    depth: cairn_store::unixfs::import::DEPTH_MAX,
    ..Budget::OPERATOR
};
/// How much compressed output is collected before it goes out.
const GZIP_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TEMPLATE};
    use crate::repository::Repository;
    use crate::rpc::reply::told_in_trailer;
    use cairn_node::Exchange;
    use cairn_store::block::Prefix;
    use cairn_store::cid::{DAG_PB, HashKind, Version};
    use cairn_store::dag::pb::{self, PbLink, PbNode};
    use cairn_store::store::Keep;
    use cairn_store::{Block, Store};
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
                pace: Pace::default(),
                names: Names::default(),
            };
            let limits = Budget {
                entries: 1000,
                ..LIMITS
            };
            write_tree(&session, root, "tree".to_owned(), limits, &mut archive).await
        });
        let body = reply.into_response(None).await.into_body();
        let body = body.collect().await.unwrap();
        let told = told_in_trailer(body.trailers().unwrap()).unwrap();
        assert!(told.message().contains("more than 1000 entries"), "{told}");
    }
}
