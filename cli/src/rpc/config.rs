//! `config`: what the operator chose, read and changed.

use super::api::Call;
use super::context::Online;
use super::error::RpcError;
use super::reply::Reply;
use crate::config::{Config, ConfigError, edit, view};
use crate::repository::Repository;
use bytes::Bytes;
use cairn_node::private::{Need, SwarmKey};
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
    /// After a change: what does not do what it seems to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `config KEY` and `config KEY VALUE`.
pub async fn config(call: Call) -> Result<Reply, RpcError> {
    let repository = &call.context.repository;
    let arguments = call.arguments.some("key")?;
    let key = arguments.first().copied().unwrap_or_default();
    let (mut applied, mut warnings) = (None, Vec::new());
    if let Some(value) = arguments.get(1) {
        let _alone = repository.lock_config().await?;
        let before = repository.config_text()?;
        let (text, config) = edit::set(&before, key, value)?;
        warnings.extend(may_replace(repository, &before, &config)?.map(left_over));
        repository.write_config(&text)?;
        if PEERS.contains(&key) {
            warnings.extend(config.peers_outside());
        }
        if NEARNESS.contains(&key) {
            warnings.extend(config.services_outside());
        }
        if let Taken::Up { refuses } = apply(&call, key, config) {
            applied = Some(true);
            warnings.extend(refuses.filter(|_| key == MEMORY));
        }
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
        warnings,
    })
}

/// Refuses what a node would not start with, with the key of a private network if the repository has one. Where it
/// would not have started before either, that is put right one key after another: what is left is given. A key
/// that cannot be read is the daemon's to tell.
pub fn may_replace(
    repository: &Repository,
    before: &str,
    config: &Config,
) -> Result<Option<ConfigError>, ConfigError> {
    let key = SwarmKey::load(repository.path(), Need::May);
    config.replace(before, key.ok().flatten())
}

/// What is wrong with a configuration that was taken all the same.
pub fn left_over(error: ConfigError) -> String {
    format!("taken, but the daemon does not start with this configuration yet: {error}")
}

/// What became of a change in a daemon that runs.
enum Taken {
    /// It holds at once.
    Up {
        /// Why the node takes no peers now, if it does not.
        refuses: Option<String>,
    },
    /// Nothing runs, or it holds when the daemon is started again.
    Not,
}

/// Lets the node have what may change while it runs.
fn apply(call: &Call, key: &str, config: Config) -> Taken {
    let node = call.context.node().and_then(Online::node);
    if let (FILTERS, Ok(node)) = (key, &node) {
        node.peers().set_filters(config.swarm.filters);
        return Taken::Up { refuses: None };
    }
    if !key.starts_with(LIVE_SECTION) {
        return Taken::Not;
    }
    match node {
        Ok(node) => Taken::Up {
            refuses: node.set_limits(config.limits),
        },
        Err(_) => Taken::Not,
    }
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
/// What it takes up at once besides.
const FILTERS: &str = "swarm.filters";
/// The limit that may keep peers away.
const MEMORY: &str = "limits.memory";
/// What decides which peers are dialled.
const PEERS: [&str; 3] = ["bootstrap", "swarm.peering", "network"];
/// What decides which services are asked.
const NEARNESS: [&str; 3] = ["fetch.gateways", "routing.endpoints", "network"];
