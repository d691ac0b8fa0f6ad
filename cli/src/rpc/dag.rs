//! `dag`: structured blocks, and CARs of them.

pub mod codec;
pub mod export;
pub mod import;
pub mod stat;

use super::api::{Call, resolve_path};
use super::block::read_block;
use super::entries::{Content, Entries};
use super::error::RpcError;
use super::reply::Reply;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, HashKind, Version};
use cairn_store::pin::PinMode;
use cairn_store::sink::BlockSink;
use cairn_store::source::BlockSource;
use cairn_store::store::Keep;
use cairn_store::unixfs::read::ReadError;
use serde::{Deserialize, Serialize};

/// A CID in an answer: `{"/": "bafy…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkText {
    /// The CID.
    #[serde(rename = "/")]
    pub cid: String,
}

/// The answer of `dag put`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutAnswer {
    /// The new block.
    pub cid: LinkText,
}

/// The answer of `dag resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResolveAnswer {
    /// The last block on the way.
    pub cid: LinkText,
    /// What is left inside it.
    pub rem_path: String,
}

fn codec_option(call: &Call, name: &str, default: &str) -> Result<u64, RpcError> {
    let text = call.arguments.text(&[name]).filter(|text| !text.is_empty());
    let text = text.unwrap_or(default);
    cid::codec_from_name(text).ok_or_else(|| RpcError::failed(format!("invalid encoding: {text}")))
}

/// `dag get`: a block, or a value inside it, in another codec.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("ref").await?;
    let Some(path) = paths.first() else {
        return Err(RpcError::wrong("argument \"ref\" is required"));
    };
    let output = codec_option(&call, "output-codec", "dag-json")?;
    let session = call.session().await?;
    let resolved = resolve_path(&session, path).await?;
    let block = session.block(&resolved.cid).await?;
    let block = block.ok_or_else(|| RpcError::from(ReadError::NotFound(resolved.cid)))?;
    let encoded = if resolved.remainder.is_empty() && output == block.cid().codec() {
        block.data().clone()
    } else {
        let value = codec::decode(block.cid().codec(), block.data())?;
        let inside = codec::inside(value, &resolved.remainder)?;
        codec::encode(output, &inside)?
    };
    Ok(Reply::bytes("text/plain", None, move |out| async move {
        out.bytes(encoded).await
    }))
}

/// `dag put`: each file of the request becomes a block.
pub async fn put(call: Call) -> Result<Reply, RpcError> {
    let input = codec_option(&call, "input-codec", "dag-json")?;
    let store_codec = codec_option(&call, "store-codec", "dag-cbor")?;
    let hash = match call
        .arguments
        .text(&["hash"])
        .filter(|name| !name.is_empty())
    {
        Some(name) => name.parse()?,
        None => HashKind::Sha2_256,
    };
    let pin = call.arguments.flag(&["pin"])?;
    let cids = call.arguments.cids()?;
    let prefix = Prefix {
        version: Version::V1,
        codec: store_codec,
        hash,
    };
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
                    return Err(RpcError::failed("expected a regular file"));
                };
                let data = read_block(&mut content)?;
                // Decoded even if nothing changes: what is no valid block is refused.
                let value = codec::decode(input, &data)?;
                let data = if input == store_codec {
                    data
                } else {
                    codec::encode(store_codec, &value)?
                };
                let block = Block::new(prefix, data)?;
                put.push(*block.cid());
                writer.put(vec![block])?;
            }
            writer.commit()?;
            // The writer goes on holding what it took until that is pinned.
            Ok((put, writer))
        });
        let (put, writer) = put.await?;
        for cid in put {
            if pin {
                let source = local.clone();
                context
                    .pin(source, cid, PinMode::Recursive, None, |_| {})
                    .await?;
            }
            out.value(&PutAnswer {
                cid: LinkText {
                    cid: cids.text(&cid),
                },
            })
            .await?;
        }
        drop(writer);
        Ok(())
    }))
}

/// `dag resolve`.
pub async fn resolve(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("ref").await?;
    let Some(path) = paths.first() else {
        return Err(RpcError::wrong("argument \"ref\" is required"));
    };
    let cids = call.arguments.cids()?;
    let session = call.session().await?;
    let resolved = resolve_path(&session, path).await?;
    Reply::value(&ResolveAnswer {
        cid: LinkText {
            cid: cids.text(&resolved.cid),
        },
        rem_path: resolved.remainder.join("/"),
    })
}
