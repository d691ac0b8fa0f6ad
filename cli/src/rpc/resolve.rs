//! `resolve`: from a path to the content it names.

use super::api::{Call, resolve_path};
use super::error::RpcError;
use super::reply::Reply;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PathAnswer {
    /// `/ipfs/<cid>`, and what is left inside that block.
    pub path: String,
}

/// `resolve`.
pub async fn resolve(call: Call) -> Result<Reply, RpcError> {
    let paths = call.arguments.paths("name")?;
    let cids = call.arguments.cids()?;
    let session = call.session().await?;
    let Some(path) = paths.first() else {
        return Err(RpcError::wrong("argument \"name\" is required"));
    };
    let resolved = resolve_path(&session, path).await?;
    let mut path = format!("/ipfs/{}", cids.text(&resolved.cid));
    for name in &resolved.remainder {
        path.push('/');
        path.push_str(name);
    }
    Reply::value(&PathAnswer { path })
}
