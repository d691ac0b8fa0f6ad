//! `config`: what the operator chose, read and changed.

use super::api::Call;
use super::context::Online;
use super::error::RpcError;
use super::reply::Reply;
use crate::config::{Config, edit, view};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The answer of `config KEY [VALUE]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigField {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// After a change that a running daemon has taken up already: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
}

/// `config KEY` and `config KEY VALUE`.
pub async fn config(call: Call) -> Result<Reply, RpcError> {
    let repository = &call.context.repository;
    let arguments = call.arguments.some("key")?;
    let key = arguments.first().copied().unwrap_or_default();
    let mut applied = None;
    if let Some(value) = arguments.get(1) {
        let _alone = repository.lock_config().await?;
        let (text, config) = edit::set(&repository.config_text()?, key, value)?;
        repository.write_config(&text)?;
        applied = apply(&call, key, config).then_some(true);
    }
    let config = repository.config()?;
    let value = match view::get(&config, key) {
        Ok(value) => serde_json::to_value(value)?,
        // Kubo's tools ask for Kubo's keys.
        Err(error) => kubo_value(&call, &config, key).await?.ok_or(error)?,
    };
    Reply::value(&ConfigField {
        key: key.to_owned(),
        value,
        applied,
    })
}

/// Lets the node have what may change while it runs; false if that is nothing, or nothing runs.
fn apply(call: &Call, key: &str, config: Config) -> bool {
    if !key.starts_with(LIVE_SECTION) {
        return false;
    }
    let Ok(node) = call.context.node().and_then(Online::node) else {
        return false;
    };
    node.set_limits(config.limits);
    true
}

async fn kubo_value(
    call: &Call,
    config: &Config,
    key: &str,
) -> Result<Option<serde_json::Value>, RpcError> {
    let peer_id = call
        .context
        .identity()
        .await
        .ok()
        .map(|id| id.peer_id.to_string());
    let whole = view::kubo(config, peer_id.as_deref());
    let pointer = format!("/{}", key.replace('.', "/"));
    Ok(whole.pointer(&pointer).cloned())
}

/// `config show`: as Kubo's JSON, or with `toml=true` as what holds.
pub async fn show(call: Call) -> Result<Reply, RpcError> {
    let config = call.context.repository.config()?;
    if call.arguments.flag(&["toml"])? {
        let text = Bytes::from(view::effective(&config)?);
        return Ok(Reply::bytes("text/plain", None, move |out| async move {
            out.bytes(text).await
        }));
    }
    let peer_id = call
        .context
        .identity()
        .await
        .ok()
        .map(|id| id.peer_id.to_string());
    Reply::value(&view::kubo(&config, peer_id.as_deref()))
}

/// The section that a running daemon takes up at once.
const LIVE_SECTION: &str = "limits.";
