//! `swarm peering`: whom the running node stays connected to. What is changed here holds until it stops;
//! `swarm.peering` in the configuration is what it begins with.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::swarm::address_of;
use cairn_node::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

/// What became of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peered {
    /// Its name.
    #[serde(rename = "ID")]
    pub id: String,
    /// `success`.
    #[serde(rename = "Status")]
    pub status: String,
    /// What is to be known beside that.
    #[serde(rename = "Note", skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The answer of `swarm peering ls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeeringAnswer {
    /// Those on the list.
    pub peers: Vec<PeeringRow>,
}

/// One peer on the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeeringRow {
    /// Its name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where it is dialled, without its name.
    #[serde(rename = "Addrs")]
    pub addrs: Vec<String>,
}

/// `swarm peering add`.
pub fn add(call: Call) -> Result<Reply, RpcError> {
    let peers = call.context.node()?.peers.clone();
    let texts = call.arguments.some("address")?;
    let addresses: Result<Vec<_>, RpcError> = texts.into_iter().map(address_of).collect();
    // Whoever is on the list comes with no address of its own: nothing is done before all are looked at.
    let addresses = addresses?;
    Ok(Reply::values(move |out| async move {
        for address in addresses {
            let kept = match bare(&address) {
                Some(peer) => peers.keep_known(peer).await,
                None => peers.keep(address),
            };
            let peer = kept.map_err(|error| RpcError::failed(error.to_string()))?;
            out.value(&success(&peer)).await?;
        }
        Ok(())
    }))
}

/// The peer of what is a name alone.
fn bare(address: &Multiaddr) -> Option<PeerId> {
    address.to_string().strip_prefix("/p2p/")?.parse().ok()
}

/// `swarm peering rm`.
pub fn remove(call: Call) -> Result<Reply, RpcError> {
    let peers = call.context.node()?.peers.clone();
    let texts = call.arguments.some("ID")?;
    let named = texts.into_iter().map(|text| {
        let id = text.rsplit_once("/p2p/").map_or(text, |(_, id)| id);
        id.parse::<PeerId>().map_err(|_| {
            RpcError::wrong(format!("{text:?} is no peer ID; it looks like 12D3KooW…"))
        })
    });
    let named: Vec<PeerId> = named.collect::<Result<_, _>>()?;
    Ok(Reply::values(move |out| async move {
        for peer in named {
            // As in Kubo, who was not on the list is not on it afterwards either.
            let note = match peers.let_go(&peer) {
                true => String::new(),
                false => {
                    format!("{peer} was not on the list; `cairn swarm peering ls` prints who is")
                }
            };
            let done = success(&peer);
            out.value(&Peered { note, ..done }).await?;
        }
        Ok(())
    }))
}

/// `swarm peering ls`.
pub fn list(call: Call) -> Result<Reply, RpcError> {
    let kept = call.context.node()?.peers.kept();
    let rows = kept.into_iter().map(|(peer, addresses)| PeeringRow {
        id: peer.to_string(),
        addrs: addresses.iter().map(ToString::to_string).collect(),
    });
    Reply::value(&PeeringAnswer {
        peers: rows.collect(),
    })
}

fn success(peer: &PeerId) -> Peered {
    Peered {
        id: peer.to_string(),
        status: "success".to_owned(),
        note: String::new(),
    }
}
