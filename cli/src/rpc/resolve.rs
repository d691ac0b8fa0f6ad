//! `resolve`: from a path to the content it names.

use super::api::{Call, resolve_path};
use super::error::RpcError;
use super::follow::content;
use super::reply::Reply;
use cairn_node::name::follow::Depth;
use cairn_node::name::path::Root;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PathAnswer {
    /// `/ipfs/<cid>`, and what is left inside that block; or the next name.
    pub path: String,
}

/// `resolve`. One step at a time goes from a name to what it leads to, which need not be here.
pub async fn resolve(call: Call) -> Result<Reply, RpcError> {
    let Some(path) = call.arguments.paths("name")?.into_iter().next() else {
        return Err(RpcError::wrong("argument \"name\" is required"));
    };
    let cids = call.arguments.cids()?;
    // Of the DHT as a router of names; nothing here depends on how many records are waited for.
    let count = ["dht-record-count", "dhtrc"];
    call.arguments.parsed::<u32>(&count, "a number")?;
    let depth = call.depth()?;
    let is_name = !matches!(path.root, Root::Content(_));
    let led = call.follow(path, depth).await?;
    if is_name && depth == Depth::One {
        return Reply::value(&PathAnswer {
            path: led.path.to_string(),
        });
    }
    let session = call.session().await?;
    let resolved = resolve_path(&session, &content(led.path)?).await?;
    let mut path = format!("/ipfs/{}", cids.text(&resolved.cid));
    for name in &resolved.remainder {
        path.push('/');
        path.push_str(name);
    }
    Reply::value(&PathAnswer { path })
}
