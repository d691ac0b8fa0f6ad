//! `dag export`: a DAG as a CARv1, each block once, parents first.

use super::super::api::{Call, resolve_to_block};
use super::super::error::RpcError;
use super::super::reply::Reply;
use cairn_store::car::write;
use cairn_store::dag::walk::{Missing, Options, Visit, walk};
use futures::StreamExt;

/// `dag export`.
pub async fn export(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("root").await?;
    let Some(path) = paths.first() else {
        return Err(RpcError::wrong("argument \"root\" is required"));
    };
    let local_only = call.arguments.flag(&["local-only"])?;
    let session = if local_only {
        call.local_session().await?
    } else {
        call.session().await?
    };
    let root = resolve_to_block(&session, path).await?;
    Ok(Reply::bytes(
        "application/vnd.ipld.car",
        None,
        move |out| async move {
            let options = Options {
                missing: if local_only {
                    Missing::Tell
                } else {
                    Missing::Stop
                },
                ..Options::default()
            };
            let mut visits = std::pin::pin!(walk(session, root, options));
            let mut begun = false;
            while let Some(visit) = visits.next().await {
                let Visit::Block { block, .. } = visit? else {
                    continue;
                };
                // The header goes out only once there is something to put behind it, so that a root
                // that cannot be had is a plain error.
                if !begun {
                    out.bytes(write::header(&[root])).await?;
                    begun = true;
                }
                out.bytes(write::section_prefix(&block)).await?;
                if !block.data().is_empty() {
                    out.bytes(block.data().clone()).await?;
                }
            }
            if !begun {
                return Err(RpcError::failed(format!(
                    "block {root} is not here, nothing to export"
                )));
            }
            Ok(())
        },
    ))
}
