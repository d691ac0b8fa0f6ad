//! `diag healthy`: whether this node can do its work, and what keeps it from that.
//!
//! It looks at figures that are there already and waits for nobody, so it may be asked every second.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::explain::counted;
use cairn_node::routing::RouterStat;
use cairn_node::swarm::HOW_TO_MEET;
use cairn_node::{Network, PeerId};
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
    let connected = peers.connected().await;
    let config = call.context.repository.config().unwrap_or_default();
    let is_away = |peer: &PeerId| connected.iter().all(|row| row.peer != *peer);
    let mut away: Vec<String> = Vec::new();
    for (peer, addresses) in peers.kept() {
        if is_away(&peer) {
            let at = addresses.first().map(ToString::to_string);
            away.push(format!("{}/p2p/{peer}", at.unwrap_or_default()));
        }
    }
    findings.push(match connected.len() {
        0 => {
            let bootstrap = config.bootstrap.iter().map(|peer| peer.to_string());
            away.extend(bootstrap);
            alone(config.network, &away)
        }
        count => {
            let text = counted(count, "connection", "connections");
            well(
                "peers",
                match away.is_empty() {
                    true => text,
                    false => format!(
                        "{text}; away are, of those to stay connected to, {}",
                        some(&away)
                    ),
                },
            )
        }
    });
    let routers = online.routing.routers();
    if !routers.is_empty() {
        let all: Vec<String> = routers.iter().map(ToString::to_string).collect();
        let finding = match routers.iter().any(RouterStat::is_ill) {
            true => ill,
            false => well,
        };
        findings.push(finding("routers", all.join("; ")));
    }
}

/// The first of them, and how many more there are.
fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>();
    let first = first.join(", ");
    match names.len().checked_sub(NAMES_MAX) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

/// What it means to be connected to nobody. In a network of one's own it is no illness; where others were named, or
/// are to be found, it is.
fn alone(network: Network, named: &[String]) -> Finding {
    match (network, named) {
        (_, [first, ..]) => ill(
            "peers",
            format!(
                "connected to nobody, though `bootstrap` or `swarm.peering` name {}: see that they run and are \
                 reached; `cairn swarm connect {first}` tries one and says what is wrong",
                some(named)
            ),
        ),
        (Network::Public, []) => ill(
            "peers",
            format!(
                "connected to nobody in the public network, and nobody was named: {HOW_TO_MEET}"
            ),
        ),
        (Network::Local | Network::Lan, []) => well(
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

/// Names that one line holds.
const NAMES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_be_alone_is_an_illness_where_others_are_to_be_met() {
        assert!(alone(Network::Local, &[]).healthy);
        assert!(alone(Network::Lan, &[]).healthy);
        let names: Vec<String> = (1..8).map(|at| format!("peer{at}")).collect();
        for network in Network::ALL {
            let told = alone(network, &names);
            assert!(!told.healthy);
            assert!(told.text.contains("peer1, peer2"), "{told:?}");
            assert!(told.text.contains("peer5 and 2 more"), "{told:?}");
            assert!(
                told.text.contains("`cairn swarm connect peer1`"),
                "{told:?}"
            );
        }
        let told = alone(Network::Public, &[]);
        assert!(!told.healthy, "{told:?}");
        assert!(told.text.contains("cairn bootstrap add"), "{told:?}");
    }
}
