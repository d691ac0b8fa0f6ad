//! `id`: who we are.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::version::AGENT;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdAnswer {
    /// Our name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Our public key, as libp2p encodes it, in base64.
    pub public_key: String,
    /// Where we can be reached.
    pub addresses: Vec<String>,
    /// What we are.
    pub agent_version: String,
    /// What we speak.
    pub protocols: Vec<String>,
}

/// `id`.
pub async fn id(call: Call) -> Result<Reply, RpcError> {
    let identity = call.context.identity().await?;
    let peer_id = identity.peer_id.to_string();
    if let Some(other) = call.arguments.all().first().filter(|id| **id != peer_id) {
        return other_peer(&call, other).await;
    }
    let mut addresses: Vec<String> = call
        .context
        .told()
        .iter()
        .map(|address| format!("{address}/p2p/{peer_id}"))
        .collect();
    addresses.sort();
    let mut protocols = match call.context.node() {
        Ok(online) => online.peers.protocols(),
        Err(_) => Vec::new(),
    };
    protocols.sort();
    Reply::value(&IdAnswer {
        id: peer_id,
        public_key: BASE64.encode(&identity.public_key),
        addresses,
        agent_version: AGENT.to_owned(),
        protocols,
    })
}

/// What a connected peer told of itself.
async fn other_peer(call: &Call, wanted: &str) -> Result<Reply, RpcError> {
    let wanted: cairn_node::PeerId = wanted
        .parse()
        .map_err(|_| RpcError::failed("invalid peer id"))?;
    let online = call.context.node()?;
    let connected = online.peers.connected().await;
    let mut rows = connected.into_iter().filter(|row| row.peer == wanted);
    let Some(first) = rows.next() else {
        return Err(RpcError::failed(format!("not connected to {wanted}")));
    };
    let mut addresses = vec![format!("{}/p2p/{wanted}", first.address)];
    addresses.extend(rows.map(|row| format!("{}/p2p/{wanted}", row.address)));
    Reply::value(&IdAnswer {
        id: wanted.to_string(),
        public_key: String::new(),
        addresses,
        agent_version: first.agent.unwrap_or_default(),
        protocols: first.protocols,
    })
}
