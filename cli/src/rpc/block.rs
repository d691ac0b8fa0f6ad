//! `block`: single blocks, as they are.

use super::api::{Call, resolve_to_block};
use super::arguments::Arguments;
use super::entries::{Content, Entries};
use super::error::RpcError;
use super::pin;
use super::reply::Reply;
use bytes::Bytes;
use cairn_node::Session;
use cairn_store::block::{BLOCK_BYTES_MAX, Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Multihash, Version};
use cairn_store::dag::walk::{Options, Visit, walk};
use cairn_store::pin::PinMode;
use cairn_store::sink::BlockSink;
use cairn_store::source::BlockSource;
use cairn_store::store::{Keep, Store};
use cairn_store::unixfs::read::ReadError;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::pin::pin;

/// A block's name and length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockStat {
    /// The CID.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// What became of a block that was to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Removed {
    /// The CID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Why it was not removed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// The block that the first argument names.
async fn wanted(call: &Call) -> Result<Block, RpcError> {
    let paths = call.paths("cid").await?;
    let Some(path) = paths.first() else {
        return Err(RpcError::wrong("argument \"cid\" is required"));
    };
    let session = call.session().await?;
    let cid = resolve_to_block(&session, path).await?;
    let block = session.block(&cid).await?;
    block.ok_or_else(|| ReadError::NotFound(cid).into())
}

/// `block get`.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let data = wanted(&call).await?.into_parts().1;
    let length = Some(data.len() as u64);
    Ok(Reply::bytes(
        "application/vnd.ipld.raw",
        length,
        move |out| async move { out.bytes(data).await },
    ))
}

/// `block stat`.
pub async fn stat(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let block = wanted(&call).await?;
    Reply::value(&BlockStat {
        key: cids.text(block.cid()),
        size: block.data().len() as u64,
    })
}

/// How new blocks are named.
fn prefix(arguments: &Arguments) -> Result<Prefix, RpcError> {
    let codec_option = arguments
        .text(&["cid-codec"])
        .filter(|name| !name.is_empty());
    let format = arguments
        .text(&["format", "f"])
        .filter(|name| !name.is_empty());
    let (codec, version) = match (format, codec_option) {
        (Some(_), Some(codec)) if codec != "raw" => {
            return Err(RpcError::wrong(
                "unable to use \"format\" (deprecated) and a custom \"cid-codec\" at the same time",
            ));
        }
        (Some("v0"), _) => ("dag-pb", Version::V0),
        (Some("protobuf"), _) => ("dag-pb", Version::V1),
        // What Kubo calls cbor here has always been dag-cbor.
        (Some("cbor"), _) => ("dag-cbor", Version::V1),
        (Some(format), _) => (format, Version::V1),
        (None, codec) => (codec.unwrap_or("raw"), Version::V1),
    };
    let codec = cid::codec_from_name(codec)
        .ok_or_else(|| RpcError::wrong(format!("unknown codec {codec:?}")))?;
    let hash = match arguments.text(&["mhtype"]).filter(|name| !name.is_empty()) {
        Some(name) => name.parse()?,
        None => HashKind::Sha2_256,
    };
    let length: Option<i64> = arguments.parsed(&["mhlen"], "a number of bytes")?;
    let whole = hash
        .digest_bytes()
        .and_then(|bytes| i64::try_from(bytes).ok());
    if let (Some(length), Some(whole)) = (length, whole)
        && length != -1
        && length != whole
    {
        return Err(RpcError::wrong(format!(
            "{} has {whole} bytes; shorter ones are not made (mhlen {length})",
            hash.name()
        )));
    }
    Ok(Prefix {
        version,
        codec,
        hash,
    })
}

/// Reads a file that must fit into a block.
pub fn read_block(content: &mut dyn Read) -> Result<Bytes, RpcError> {
    let mut data = Vec::new();
    let limit = BLOCK_BYTES_MAX as u64 + 1;
    content.take(limit).read_to_end(&mut data)?;
    if data.len() > BLOCK_BYTES_MAX {
        return Err(RpcError::failed(format!(
            "produced block is over {} MiB: big blocks can't be exchanged with other peers",
            BLOCK_BYTES_MAX >> 20
        )));
    }
    Ok(Bytes::from(data))
}

/// `block put`: each file of the request becomes a block.
pub async fn put(call: Call) -> Result<Reply, RpcError> {
    let prefix = prefix(&call.arguments)?;
    let cids = call.arguments.cids()?;
    let pin = call.arguments.flag(&["pin"])?;
    let store = call.context.writable_store().await?.clone();
    Ok(Reply::values(move |out| async move {
        let local = call.upkeep_session().await?;
        let Call {
            context, upload, ..
        } = call;
        let put = upload.on_thread(move |entries: &mut dyn Entries| {
            let mut writer = store.writer(Keep::Kept);
            let mut put = Vec::new();
            while let Some(entry) = entries.next()? {
                let Content::File(mut content) = entry.content else {
                    return Err(RpcError::failed("expected a file"));
                };
                let block = Block::new(prefix, read_block(&mut content)?)?;
                put.push((*block.cid(), block.data().len() as u64));
                writer.put(vec![block])?;
            }
            writer.commit()?;
            // The writer goes on holding what it took until that is pinned.
            Ok((put, writer))
        });
        let (put, writer) = put.await?;
        for (cid, size) in put {
            if pin {
                let source = local.clone();
                context
                    .pin(source, cid, PinMode::Recursive, None, |_| {})
                    .await?;
            }
            out.value(&BlockStat {
                key: cids.text(&cid),
                size,
            })
            .await?;
        }
        drop(writer);
        Ok(())
    }))
}

/// Which of `wanted` must stay, and why.
async fn reached_by(
    store: &Store,
    local: &Session,
    wanted: &[Cid],
) -> Result<HashMap<Multihash, String>, RpcError> {
    let pinned = pin::reached_by(store, local, wanted).await?.into_iter();
    let mut reached: HashMap<_, _> = pinned
        .map(|(hash, how)| (hash, format!("pinned: {how}")))
        .collect();
    let Some(root) = store.files_root() else {
        return Ok(reached);
    };
    let wanted = wanted.iter().map(|cid| *cid.hash());
    let mut missing: HashSet<_> = wanted.filter(|hash| !reached.contains_key(hash)).collect();
    // What cannot be read may reach anything: then nothing is known, and nothing is said.
    let mut visits = pin!(walk(local.clone(), root, Options::default()));
    while !missing.is_empty()
        && let Some(visit) = visits.try_next().await?
    {
        if let Visit::Block { block, .. } = visit
            && missing.remove(block.cid().hash())
        {
            reached.insert(*block.cid().hash(), IN_FILES.to_owned());
        }
    }
    Ok(reached)
}

/// `block rm`: never what a pin or the file tree reaches.
pub async fn remove(call: Call) -> Result<Reply, RpcError> {
    let wanted: Vec<Cid> = call
        .arguments
        .some("cid")?
        .into_iter()
        .map(|text| cid::parse(text.trim_start_matches("/ipfs/")))
        .collect::<Result<_, _>>()?;
    let force = call.arguments.flag(&["force", "f"])?;
    let quiet = call.arguments.flag(&["quiet", "q"])?;
    let cids = call.arguments.cids()?;
    let store = call.context.writable_store().await?.clone();
    let local = call.upkeep_session().await?;
    Ok(Reply::values(move |out| async move {
        let mut pins = store.pins_version();
        let mut reached = reached_by(&store, &local, &wanted).await?;
        for cid in wanted.clone() {
            let mut answer = Removed {
                hash: cids.text(&cid),
                error: String::new(),
            };
            let gone = loop {
                if reached.contains_key(cid.hash()) {
                    break Vec::new();
                }
                if let Some(gone) = store.delete_unpinned(vec![cid], pins).await? {
                    break gone;
                }
                // Pins were made meanwhile: look again.
                pins = store.pins_version();
                reached = reached_by(&store, &local, &wanted).await?;
            };
            if let Some(how) = reached.get(cid.hash()) {
                answer.error.clone_from(how);
            } else if !gone.is_empty() {
                if quiet {
                    continue;
                }
            } else if store.has(&cid).await? {
                "in use by work that is running; try again later".clone_into(&mut answer.error);
            } else if force {
                continue;
            } else {
                answer.error = RpcError::from(ReadError::NotFound(cid))
                    .message()
                    .to_owned();
            }
            out.value(&answer).await?;
        }
        Ok(())
    }))
}

/// Why a block must stay that no pin reaches.
const IN_FILES: &str = "in the file tree, see `files ls`";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Prefix, RpcError> {
        prefix(&Arguments::parse(query).unwrap())
    }

    #[test]
    fn old_and_new_names_of_codecs_are_understood() {
        assert_eq!(read("").unwrap().codec, cid::RAW);
        assert_eq!(read("cid-codec=dag-cbor").unwrap().codec, cid::DAG_CBOR);
        assert_eq!(read("format=v0").unwrap().version, Version::V0);
        assert_eq!(read("format=protobuf").unwrap().codec, cid::DAG_PB);
        assert_eq!(read("format=cbor").unwrap().codec, cid::DAG_CBOR);
        assert!(read("format=v0&cid-codec=dag-cbor").is_err());
        assert!(read("cid-codec=nonsense").is_err());
        assert!(read("mhtype=md5").is_err());
        assert!(read("mhlen=-1").is_ok());
        assert!(read("mhtype=sha2-512&mhlen=64").is_ok());
        assert!(read("mhlen=20").is_err());
        assert_eq!(read("mhtype=blake3").unwrap().hash, HashKind::Blake3);
    }

    #[test]
    fn a_file_larger_than_a_block_is_refused() {
        let mut large = std::io::repeat(0);
        assert!(read_block(&mut large).is_err());
        let mut fits = std::io::repeat(0).take(BLOCK_BYTES_MAX as u64);
        assert_eq!(read_block(&mut fits).unwrap().len(), BLOCK_BYTES_MAX);
    }
}
