//! `routing`: who has what.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use cairn_store::Cid;
use cairn_store::cid;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

/// Something that happened during a lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryEvent {
    /// More about it.
    pub extra: String,
    /// Whom it is about.
    #[serde(rename = "ID")]
    pub id: String,
    /// Peers that it names; never null, tools count them.
    pub responses: Vec<PeerInfo>,
    /// What happened: [`PROVIDER`] and others, as libp2p numbers them.
    pub r#type: u8,
}

/// A peer and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerInfo {
    /// Where.
    pub addrs: Vec<String>,
    /// Who.
    #[serde(rename = "ID")]
    pub id: String,
}

/// libp2p's number for an event that names providers.
pub const PROVIDER: u8 = 4;
/// libp2p's number for an event that tells of a value, used for the end of a `provide`.
pub const VALUE: u8 = 5;

fn wanted(call: &Call) -> Result<Vec<Cid>, RpcError> {
    let texts = call.arguments.some("key")?;
    texts
        .into_iter()
        .map(|text| Ok(cid::parse(text.trim_start_matches("/ipfs/"))?))
        .collect()
}

/// `routing findprovs`.
pub fn find_providers(call: Call) -> Result<Reply, RpcError> {
    let limit: usize = call
        .arguments
        .parsed(&["num-providers", "n"], "a number")?
        .unwrap_or(PROVIDERS_DEFAULT);
    if limit == 0 {
        return Err(RpcError::failed(
            "number of providers must be greater than 0",
        ));
    }
    let limit = limit.min(PROVIDERS_MAX);
    let routing = call.context.node()?.routing.clone();
    let wanted = wanted(&call)?;
    Ok(Reply::values(move |out| async move {
        for cid in wanted {
            let mut found = std::pin::pin!(routing.find_providers(cid, limit));
            while let Some(provider) = found.next().await {
                let provider = provider?;
                let addrs = provider.addresses.iter().map(ToString::to_string).collect();
                out.value(&QueryEvent {
                    responses: vec![PeerInfo {
                        addrs,
                        id: provider.peer.to_string(),
                    }],
                    r#type: PROVIDER,
                    ..QueryEvent::default()
                })
                .await?;
            }
        }
        Ok(())
    }))
}

/// `routing provide`.
pub async fn provide(call: Call) -> Result<Reply, RpcError> {
    let routing = call.context.node()?.routing.clone();
    let store = call.context.store().await?.clone();
    let name = call.context.identity().await?.peer_id.to_string();
    let wanted = wanted(&call)?;
    for cid in &wanted {
        if !store.has(cid).await? {
            return Err(RpcError::failed(format!(
                "block {cid} not found locally, cannot provide"
            )));
        }
    }
    Ok(Reply::values(move |out| async move {
        for cid in wanted {
            routing.provide(cid).await?;
            out.value(&QueryEvent {
                id: name.clone(),
                r#type: VALUE,
                ..QueryEvent::default()
            })
            .await?;
        }
        Ok(())
    }))
}

const PROVIDERS_DEFAULT: usize = 20;
/// Most providers that one lookup may ask for.
const PROVIDERS_MAX: usize = 1000;
