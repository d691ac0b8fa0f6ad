//! `name/pubsub`: names whose new records are heard of at once, over gossipsub.

use super::name_of;
use crate::rpc::api::Call;
use crate::rpc::error::RpcError;
use crate::rpc::key;
use crate::rpc::reply::Reply;
use cairn_node::name::Names;
use cairn_node::name::pubsub::Pubsub;
use serde::{Deserialize, Serialize};

/// Whether it is switched on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateAnswer {
    /// Whether it is.
    pub enabled: bool,
}

/// Names that are followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SubsAnswer {
    /// Each with `/ipns/`.
    pub strings: Vec<String>,
}

/// Whether a name was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CancelAnswer {
    /// Whether it was, and is no more.
    pub canceled: bool,
}

/// `name pubsub state`.
pub async fn state(call: Call) -> Result<Reply, RpcError> {
    let names = call.context.names().await?;
    Reply::value(&StateAnswer {
        enabled: names.pubsub().is_some(),
    })
}

/// `name pubsub subs`.
pub async fn subs(call: Call) -> Result<Reply, RpcError> {
    let text = key::ids(&call)?;
    let names = call.context.names().await?;
    let followed = switched_on(names)?.followed();
    let strings = followed
        .iter()
        .map(|name| format!("/ipns/{}", text.text(name)));
    Reply::value(&SubsAnswer {
        strings: strings.collect(),
    })
}

/// `name pubsub cancel`.
pub async fn cancel(call: Call) -> Result<Reply, RpcError> {
    let name = name_of(call.arguments.first("name")?)?;
    let names = call.context.names().await?;
    Reply::value(&CancelAnswer {
        canceled: switched_on(names)?.cancel(name).await,
    })
}

fn switched_on(names: &Names) -> Result<&Pubsub, RpcError> {
    names.pubsub().ok_or_else(|| {
        RpcError::failed(match names.is_online() {
            true => {
                "names are not followed over gossipsub: set `names.pubsub` with 'cairn config set names.pubsub true' \
                 and start the daemon again"
            }
            false => {
                "names are followed over gossipsub by a running daemon only, with `names.pubsub = true`; run \
                 'cairn daemon' first"
            }
        })
    })
}
