//! `routing`: who has what, who is where, and what names say.

use super::api::Call;
use super::entries::{Content, Entries};
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::explain::counted;
use cairn_node::name::path::Root;
use cairn_node::routing::{self, Provider, Routing, RoutingError};
use cairn_node::{PeerId, ipns};
use cairn_store::Cid;
use cairn_store::cid;
use data_encoding::BASE64;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::io::Read;

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
    /// A sentence for people. In `Extra`, clients look for a value in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
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

/// libp2p's number for an event that names the peer that was looked for.
pub const FINAL_PEER: u8 = 2;
/// libp2p's number for an event that names providers.
pub const PROVIDER: u8 = 4;
/// libp2p's number for an event that tells of a value, used for the end of a `provide` and a `put` too.
pub const VALUE: u8 = 5;

fn wanted(call: &Call) -> Result<Vec<Cid>, RpcError> {
    let texts = call.arguments.some("key")?;
    texts
        .into_iter()
        .map(|text| Ok(cid::parse(text.trim_start_matches("/ipfs/"))?))
        .collect()
}

impl PeerInfo {
    fn of(peer: &Provider) -> Self {
        Self {
            addrs: peer.addresses.iter().map(ToString::to_string).collect(),
            id: peer.peer.to_string(),
        }
    }
}

/// `routing findpeer`.
pub fn find_peer(call: Call) -> Result<Reply, RpcError> {
    let wanted: Vec<PeerId> = call
        .arguments
        .some("peer ID")?
        .into_iter()
        .map(|text| {
            let name = text.strip_prefix("/p2p/").unwrap_or(text);
            ipns::name(name).ok_or_else(|| RpcError::wrong(format!("{text:?} is no peer ID")))
        })
        .collect::<Result<_, _>>()?;
    let online = call.context.node()?;
    let (routing, own) = (online.routing.clone(), online.peers.local());
    let told = call.context.told();
    Ok(Reply::values(move |out| async move {
        for peer in wanted {
            let found = match peer == own {
                // Others are told the same.
                true => PeerInfo {
                    addrs: told.iter().map(ToString::to_string).collect(),
                    id: own.to_string(),
                },
                false => match routing.find_peer(peer).await {
                    Ok(found) => PeerInfo::of(&found),
                    Err(error) => return Err(and_routers(&routing, &error)),
                },
            };
            out.value(&QueryEvent {
                responses: vec![found],
                r#type: FINAL_PEER,
                ..QueryEvent::default()
            })
            .await?;
        }
        Ok(())
    }))
}

fn value_key(text: &str) -> Result<Vec<u8>, RpcError> {
    routing::value_key(text).ok_or_else(|| {
        RpcError::wrong(format!(
            "{text:?} is no key of a value; write /ipns/NAME, or /pk/PEER for a public key"
        ))
    })
}

/// Whether the operator wants here what is kept under a key: there may be names that are denied.
async fn admits(call: &Call, text: &str) -> Result<(), RpcError> {
    let name = text.strip_prefix("/ipns/").and_then(ipns::name);
    let Some(name) = name else {
        return Ok(());
    };
    let path = Root::Key(name).into();
    Ok(call.context.denylist().await?.check_path(&path)?)
}

/// `routing get`.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let keys = call.arguments.some("key")?.into_iter();
    let keys: Vec<(String, Vec<u8>)> = keys
        .map(|text| Ok((text.to_owned(), value_key(text)?)))
        .collect::<Result<_, RpcError>>()?;
    for (text, _) in &keys {
        admits(&call, text).await?;
    }
    let routing = call.context.node()?.routing.clone();
    Ok(Reply::values(move |out| async move {
        for (text, key) in keys {
            let value = routing.value(key).await;
            let value = value.map_err(|error| and_routers(&routing, &error))?;
            let value = value.ok_or_else(|| {
                RpcError::failed(format!(
                    "{text}: not found, nobody asked keeps a value for it"
                ))
            })?;
            out.value(&QueryEvent {
                extra: BASE64.encode(&value),
                r#type: VALUE,
                ..QueryEvent::default()
            })
            .await?;
        }
        Ok(())
    }))
}

/// `routing put`.
pub async fn put(call: Call) -> Result<Reply, RpcError> {
    let text = call.arguments.first("key")?;
    let key = value_key(text)?;
    admits(&call, text).await?;
    let routing = call.context.node()?.routing.clone();
    Ok(Reply::values(move |out| async move {
        let value = call.upload.on_thread(|entries: &mut dyn Entries| {
            let entry = entries.next()?.map(|entry| entry.content);
            let Some(Content::File(mut content)) = entry else {
                return Err(RpcError::failed("expected a file with the value"));
            };
            let mut value = Vec::new();
            (&mut content)
                .take(ipns::RECORD_BYTES_MAX as u64 + 1)
                .read_to_end(&mut value)?;
            Ok(value)
        });
        let took = match routing.keep(key, value.await?).await {
            Ok(took) => took,
            // Neither is a matter of who was asked.
            Err(error @ (RoutingError::InvalidValue(_) | RoutingError::NewerValueKept)) => {
                return Err(error.into());
            }
            Err(error) => return Err(and_routers(&routing, &error)),
        };
        let (one, many) = match routing.routers().is_empty() {
            true => ("peer", "peers"),
            false => ("peer or router", "peers and routers"),
        };
        out.value(&QueryEvent {
            note: format!("{} took it", counted(took, one, many)),
            r#type: VALUE,
            ..QueryEvent::default()
        })
        .await
    }))
}

/// `routing findprovs`.
pub async fn find_providers(call: Call) -> Result<Reply, RpcError> {
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
    for cid in &wanted {
        call.context.denylist().await?.check_block(cid)?;
    }
    Ok(Reply::values(move |out| async move {
        for cid in wanted {
            let mut found = std::pin::pin!(routing.find_providers(cid, limit));
            let mut nobody = true;
            while let Some(provider) = found.next().await {
                let provider = provider.map_err(|error| and_routers(&routing, &error))?;
                nobody = false;
                out.value(&QueryEvent {
                    responses: vec![PeerInfo::of(&provider)],
                    r#type: PROVIDER,
                    ..QueryEvent::default()
                })
                .await?;
            }
            let why = format!("nobody was found who has {cid}");
            if nobody && routing.has_only_ill_routers() {
                return Err(and_routers(&routing, &why));
            }
            if nobody {
                out.value(&QueryEvent {
                    note: why,
                    r#type: VALUE,
                    ..QueryEvent::default()
                })
                .await?;
            }
        }
        Ok(())
    }))
}

/// A failure, and beside it what the routers came to, if there are any.
fn and_routers(routing: &Routing, why: &impl ToString) -> RpcError {
    let (why, routers) = (why.to_string(), routing.routers());
    if routers.is_empty() {
        return RpcError::failed(why);
    }
    let all: Vec<String> = routers.iter().map(ToString::to_string).collect();
    let all = all.join("; ");
    RpcError::failed(match routing.has_only_ill_routers() {
        true => format!(
            "{why}; and every router in `routing.endpoints` failed when it was asked last: {all}"
        ),
        false => format!("{why}; the routers in `routing.endpoints`, since the start: {all}"),
    })
}

/// `routing provide`.
pub async fn provide(call: Call) -> Result<Reply, RpcError> {
    call.arguments.lacks(
        &["recursive", "r"],
        "only what is named is told; with `provide.strategy` = \"pinned\" everything below pins is",
    )?;
    let online = call.context.node()?;
    let (routing, provide) = (online.routing.clone(), online.node()?.provide());
    let store = call.context.store().await?.clone();
    let name = call.context.identity().await?.peer_id.to_string();
    let wanted = wanted(&call)?;
    for cid in &wanted {
        call.context.denylist().await?.check_block(cid)?;
        if online.denied.names(cid) {
            return Err(RpcError::failed(format!(
                "{cid} is not told of: `serve.content_deny` names it, so nobody is given it; take it out there and \
                 restart the daemon"
            )));
        }
        if !store.has(cid).await? {
            return Err(RpcError::failed(format!(
                "block {cid} not found locally, cannot provide"
            )));
        }
    }
    Ok(Reply::values(move |out| async move {
        for cid in wanted {
            let told = routing.provide(cid).await?;
            provide.told_by_hand(&cid.hash().to_bytes(), told);
            out.value(&QueryEvent {
                note: format!("{} told of {cid}", counted(told, "peer was", "peers were")),
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
