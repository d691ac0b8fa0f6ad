//! `diag healthy`: whether this node can do its work, and what keeps it from that.
//!
//! It looks at figures that are there already and waits for nobody, so it may be asked every second.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::Network;
use cairn_node::explain::counted;
use cairn_node::swarm::HOW_TO_MEET;
use serde::{Deserialize, Serialize};

/// One thing that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Finding {
    /// What: `daemon`, `store`, `disk`, `swarm`, `peers` or, where there are any, `routers`.
    pub part: String,
    /// Whether it is well.
    pub healthy: bool,
    /// How it is.
    pub text: String,
}

/// `diag healthy`: one finding for each part.
pub async fn healthy(call: Call) -> Result<Reply, RpcError> {
    let findings = look(&call).await;
    Ok(Reply::values(move |out| async move {
        for finding in &findings {
            out.value(finding).await?;
        }
        Ok(())
    }))
}

async fn look(call: &Call) -> Vec<Finding> {
    let mut findings = Vec::new();
    match call.context.stop() {
        Some(_) => findings.push(well("daemon", "running".to_owned())),
        None => findings.push(ill(
            "daemon",
            "no daemon is running; `cairn daemon` starts one".to_owned(),
        )),
    }
    match call.context.store().await {
        Ok(store) => {
            let blocks = store.stat().blocks;
            findings.push(well(
                "store",
                format!("open, {}", counted(blocks, "block", "blocks")),
            ));
            findings.push(match store.check_writable() {
                Ok(()) => well("disk", "can be written".to_owned()),
                Err(error) => ill("disk", error.to_string()),
            });
        }
        Err(error) => findings.push(ill("store", error.message().to_owned())),
    }
    if call.context.stop().is_some() {
        network(call, &mut findings).await;
    }
    findings
}

async fn network(call: &Call, findings: &mut Vec<Finding>) {
    let Ok(online) = call.context.node() else {
        let text = "the daemon was started with --offline".to_owned();
        findings.push(ill("swarm", text));
        return;
    };
    let peers = &online.peers;
    let listening = peers.listening().await.len();
    let short = peers.refuses().or_else(|| peers.short_of_files());
    findings.push(match (listening, short) {
        (_, Some(why)) => ill("swarm", why),
        (0, None) => ill(
            "swarm",
            "listening nowhere, so nobody can connect; see `addresses.swarm`".to_owned(),
        ),
        (count, None) => well(
            "swarm",
            format!("listening on {}", counted(count, "address", "addresses")),
        ),
    });
    let connected = peers.connected().await.len();
    let config = call.context.repository.config().unwrap_or_default();
    findings.push(match connected {
        0 => alone(
            config.network,
            !config.bootstrap.is_empty() || !peers.kept().is_empty(),
        ),
        count => well("peers", counted(count, "connection", "connections")),
    });
    if !config.routing.endpoints.is_empty() {
        let ailing = online.routing.ill_routers();
        let ailing: Vec<String> = ailing.iter().map(ToString::to_string).collect();
        findings.push(match ailing.is_empty() {
            true => well("routers", "none failed when it was asked last".to_owned()),
            false => ill("routers", ailing.join("; ")),
        });
    }
}

/// What it means to be connected to nobody. In a network of one's own it is no illness; where others were named, or
/// are to be found, it is.
fn alone(network: Network, are_named: bool) -> Finding {
    match (network, are_named) {
        (_, true) => ill(
            "peers",
            "connected to nobody, though `bootstrap` or `swarm.peering` name some".to_owned(),
        ),
        (Network::Public, false) => ill(
            "peers",
            format!(
                "connected to nobody in the public network, and nobody was named: {HOW_TO_MEET}"
            ),
        ),
        (Network::Local | Network::Lan, false) => well(
            "peers",
            "connected to nobody, and nobody was named".to_owned(),
        ),
    }
}

fn well(part: &str, text: String) -> Finding {
    Finding {
        part: part.to_owned(),
        healthy: true,
        text,
    }
}

fn ill(part: &str, text: String) -> Finding {
    Finding {
        healthy: false,
        ..well(part, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_be_alone_is_an_illness_where_others_are_to_be_met() {
        assert!(alone(Network::Local, false).healthy);
        assert!(alone(Network::Lan, false).healthy);
        for network in Network::ALL {
            assert!(!alone(network, true).healthy);
        }
        let told = alone(Network::Public, false);
        assert!(!told.healthy, "{told:?}");
        assert!(told.text.contains("cairn bootstrap add"), "{told:?}");
    }
}
