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
    let wanted = call.arguments.all().first().map(|text| name_in(text));
    if let Some(other) = wanted.filter(|id| *id != peer_id) {
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

/// The peer at the end of an address, or what is none.
fn name_in(text: &str) -> &str {
    text.rsplit_once("/p2p/").map_or(text, |(_, name)| name)
}

/// What a connected peer told of itself.
async fn other_peer(call: &Call, wanted: &str) -> Result<Reply, RpcError> {
    let wanted: cairn_node::PeerId = wanted.parse().map_err(|_| {
        RpcError::failed(format!(
            "invalid peer id {wanted:?}: it is neither a peer ID (12D3KooW…) nor an address that ends in one"
        ))
    })?;
    let online = call.context.node()?;
    let connected = online.peers.connected().await;
    let mut rows = connected.into_iter().filter(|row| row.peer == wanted);
    let Some(first) = rows.next() else {
        return Err(RpcError::failed(format!(
            "not connected to {wanted}, so it has told nothing of itself; `cairn swarm connect {wanted}` connects, \
             `cairn routing findpeer {wanted}` tells where it is"
        )));
    };
    let mut addresses = vec![format!("{}/p2p/{wanted}", first.address)];
    addresses.extend(rows.map(|row| format!("{}/p2p/{wanted}", row.address)));
    Reply::value(&IdAnswer {
        id: wanted.to_string(),
        public_key: key_in(&wanted).map_or_else(String::new, |key| BASE64.encode(&key)),
        addresses,
        agent_version: first.agent.unwrap_or_default(),
        protocols: first.protocols,
    })
}

/// The public key that a name consists of, as libp2p encodes it. Those that are long have names made of a hash, and
/// are not kept.
fn key_in(peer: &cairn_node::PeerId) -> Option<Vec<u8>> {
    match peer.to_bytes().as_slice() {
        [IDENTITY, length, key @ ..] if key.len() == usize::from(*length) => Some(key.to_vec()),
        _ => None,
    }
}

/// The multihash of what is its own hash.
const IDENTITY: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_by_an_address_too() {
        for text in ["/ip4/127.0.0.1/tcp/1/p2p/name", "/p2p/name", "name"] {
            assert_eq!(name_in(text), "name");
        }
    }

    #[test]
    fn a_short_key_is_read_from_its_name() {
        let named = |text: &str| key_in(&text.parse().unwrap());
        let key = named("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5").unwrap();
        // An Ed25519 key of 32 bytes, in libp2p's envelope.
        assert_eq!((key.len(), &key[..4]), (36, &[8, 1, 18, 32][..]));
        assert_eq!(
            named("QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN"),
            None
        );
    }
}
