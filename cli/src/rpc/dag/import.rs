//! `dag import`: CARs in; their roots pinned, unless told otherwise.
//!
//! Every block is hashed against its CID before it is kept. A CAR that is cut short or damaged is
//! an error and pins nothing. No peer is asked: a root whose DAG is not whole with what came and
//! what was here cannot be pinned, and the answer says so.

use super::super::api::Call;
use super::super::entries::{Content, Entries};
use super::super::error::RpcError;
use super::super::reply::Reply;
use super::LinkText;
use bytes::Bytes;
use cairn_store::car::read::CarReader;
use cairn_store::cid::Cid;
use cairn_store::pin::PinMode;
use cairn_store::sink::BlockSink;
use cairn_store::store::{Keep, Writer};
use cairn_store::{Block, BlockError};
use serde::{Deserialize, Serialize};
use std::io::BufReader;

/// A line of the answer: a root, or at the end the figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Imported {
    /// A root that was to be pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<ImportedRoot>,
    /// How much came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<ImportStats>,
}

/// A root of a CAR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImportedRoot {
    /// The root.
    pub cid: LinkText,
    /// Why it was not pinned; empty if it was.
    pub pin_error_msg: String,
}

/// How much a CAR held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImportStats {
    /// Blocks.
    pub block_count: u64,
    /// Their bytes.
    pub block_bytes_count: u64,
}

/// `dag import`.
pub async fn import(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let local_only = arguments.flag(&["local-only"])?;
    let pin_roots = arguments.choice(&["pin-roots"])?;
    if local_only && pin_roots == Some(true) {
        return Err(RpcError::wrong(
            "--local-only implies --pin-roots=false and cannot be combined with --pin-roots=true; please drop one of them",
        ));
    }
    let pin_roots = pin_roots.unwrap_or(!local_only);
    let stats = arguments.flag(&["stats"])?;
    let silent = arguments.flag(&["silent"])?;
    let cids = arguments.cids()?;
    let store = call.context.writable_store().await?.clone();
    Ok(Reply::values(move |out| async move {
        let local = call.upkeep_session().await?;
        let Call {
            context, upload, ..
        } = call;
        let mut writer = store.writer(Keep::Kept);
        let read = upload.on_thread(move |entries: &mut dyn Entries| {
            let (roots, stats) = read_all(entries, &mut writer)?;
            writer.commit()?;
            // The writer goes on holding what it took until the roots are pinned.
            Ok((roots, stats, writer))
        });
        let (roots, figures, writer) = read.await?;
        let mut failed = Vec::new();
        if pin_roots {
            for root in roots {
                let source = local.clone();
                let pinned = context
                    .pin(source, root, PinMode::Recursive, None, |_| {})
                    .await;
                let why = match pinned {
                    Ok(()) => String::new(),
                    Err(error) => error.message().to_owned(),
                };
                if !why.is_empty() {
                    failed.push(format!("pinning root {:?} FAILED: {why}", cids.text(&root)));
                }
                if !silent || !why.is_empty() {
                    out.value(&Imported {
                        root: Some(ImportedRoot {
                            cid: LinkText {
                                cid: cids.text(&root),
                            },
                            pin_error_msg: why,
                        }),
                        stats: None,
                    })
                    .await?;
                }
            }
        }
        drop(writer);
        if stats {
            out.value(&Imported {
                root: None,
                stats: Some(figures),
            })
            .await?;
        }
        match failed.into_iter().next() {
            Some(first) => Err(RpcError::failed(first)),
            None => Ok(()),
        }
    }))
}

/// Reads every CAR of the request; gives their roots, each once.
fn read_all(
    entries: &mut dyn Entries,
    writer: &mut Writer,
) -> Result<(Vec<Cid>, ImportStats), RpcError> {
    let mut roots: Vec<Cid> = Vec::new();
    let mut stats = ImportStats::default();
    while let Some(entry) = entries.next()? {
        let Content::File(content) = entry.content else {
            return Err(RpcError::failed("expected a file handle"));
        };
        let mut car = CarReader::new(BufReader::with_capacity(READ_BYTES, content))?;
        for root in car.roots() {
            if !roots.contains(root) {
                roots.push(*root);
            }
        }
        let mut batch = Batch::default();
        for section in &mut car {
            let (cid, data) =
                section.map_err(|error| RpcError::failed(format!("import failed: {error}")))?;
            stats.block_count += 1;
            stats.block_bytes_count += data.len() as u64;
            batch.add(cid, data, writer)?;
        }
        batch.flush(writer)?;
    }
    Ok((roots, stats))
}

/// Blocks that are hashed together.
#[derive(Default)]
struct Batch {
    blocks: Vec<(Cid, Bytes)>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, cid: Cid, data: Bytes, writer: &mut Writer) -> Result<(), RpcError> {
        self.bytes += data.len();
        self.blocks.push((cid, data));
        if self.blocks.len() >= BATCH_BLOCKS || self.bytes >= BATCH_BYTES {
            self.flush(writer)?;
        }
        Ok(())
    }

    fn flush(&mut self, writer: &mut Writer) -> Result<(), RpcError> {
        self.bytes = 0;
        let verified = Block::verify_many(std::mem::take(&mut self.blocks));
        let blocks: Result<Vec<Block>, BlockError> = verified.into_iter().collect();
        let blocks = blocks.map_err(|error| RpcError::failed(format!("import failed: {error}")))?;
        Ok(writer.put(blocks)?)
    }
}

/// Most blocks of a batch.
const BATCH_BLOCKS: usize = 256;
/// Most bytes of a batch, roughly.
const BATCH_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 256 << 10;
