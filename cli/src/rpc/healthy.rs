//! `diag healthy`: whether this node can do its work, and what keeps it from that.
//!
//! It looks at figures that are there already and waits for nobody, so it may be asked every second.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use serde::{Deserialize, Serialize};

/// One thing that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Finding {
    /// What: `daemon`, `store`, `disk`, `swarm` or `peers`.
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
            findings.push(well("store", format!("open, {blocks} blocks")));
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
        (count, None) => well("swarm", format!("listening on {count} addresses")),
    });
    let connected = peers.connected().await.len();
    // Alone in a network of one's own is no illness; alone though others were named is.
    let expects = match call.context.repository.config() {
        Ok(config) => !config.bootstrap.is_empty() || !peers.kept().is_empty(),
        Err(_) => false,
    };
    findings.push(match connected {
        0 if expects => ill(
            "peers",
            "connected to nobody, though `bootstrap` or `swarm.peering` name some".to_owned(),
        ),
        0 => well(
            "peers",
            "connected to nobody, and nobody was named".to_owned(),
        ),
        count => well("peers", format!("{count} connections")),
    });
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
