//! `stats bw`, `bitswap stat`, `bitswap ledger` and `bitswap wantlist`: what the node did so far.

use super::api::Call;
use super::dag::LinkText;
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::PeerId;
use serde::{Deserialize, Serialize};

/// The answer of `stats bw`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BandwidthAnswer {
    /// Bytes received.
    pub total_in: u64,
    /// Bytes sent.
    pub total_out: u64,
    /// Bytes received a second, lately.
    pub rate_in: f64,
    /// Bytes sent a second, lately.
    pub rate_out: f64,
}

/// The answer of `bitswap stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BitswapAnswer {
    /// What is wanted now.
    pub wantlist: Vec<LinkText>,
    /// Who speaks Bitswap with us.
    pub peers: Vec<String>,
    /// Blocks received.
    pub blocks_received: u64,
    /// Their bytes.
    pub data_received: u64,
    /// Blocks sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub data_sent: u64,
    /// Blocks received that were here or not wanted.
    pub dup_blks_received: u64,
    /// Their bytes.
    pub dup_data_received: u64,
    /// Messages received.
    pub messages_received: u64,
}

/// The answer of `bitswap wantlist`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Keys {
    /// What is wanted now.
    pub keys: Vec<LinkText>,
}

/// The answer of `bitswap ledger`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LedgerAnswer {
    /// The peer.
    pub peer: String,
    /// How much more it took than it gave: bytes sent for each byte received.
    pub value: f64,
    /// Bytes it was sent.
    pub sent: u64,
    /// Bytes it sent.
    pub recv: u64,
    /// Blocks that went either way.
    pub exchanged: u64,
}

/// `stats bw`.
pub fn bandwidth(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    arguments.lacks(
        &["peer"],
        "bytes are counted of all peers together; `bitswap ledger` tells what was exchanged with one",
    )?;
    arguments.lacks(&["proto"], "bytes are counted of all protocols together")?;
    arguments.lacks(&["poll"], "ask again for newer figures")?;
    let now = call.context.node()?.peers.bandwidth();
    Reply::value(&BandwidthAnswer {
        total_in: now.total_in,
        total_out: now.total_out,
        rate_in: now.rate_in,
        rate_out: now.rate_out,
    })
}

/// `bitswap stat`.
pub async fn bitswap(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let node = call.context.node()?.node()?;
    let now = node.bitswap().await;
    drop(node);
    let mut peers: Vec<String> = now.peers.iter().map(ToString::to_string).collect();
    peers.sort();
    let wantlist = now.wantlist.iter().map(|cid| LinkText {
        cid: cids.text(cid),
    });
    Reply::value(&BitswapAnswer {
        wantlist: wantlist.collect(),
        peers,
        blocks_received: now.blocks_received,
        data_received: now.data_received,
        blocks_sent: now.blocks_sent,
        data_sent: now.data_sent,
        dup_blks_received: now.duplicate_blocks,
        dup_data_received: now.duplicate_data,
        messages_received: now.messages_received,
    })
}

/// `bitswap ledger`. A peer that nothing is known of has an empty one.
pub async fn ledger(call: Call) -> Result<Reply, RpcError> {
    let peer = other_peer(&call).await?;
    let node = call.context.node()?.node()?;
    let account = node.account(peer).await;
    drop(node);
    let mut answer = LedgerAnswer {
        peer: peer.to_string(),
        ..LedgerAnswer::default()
    };
    if let Some(account) = account {
        answer.value = debt_ratio(account.bytes_sent, account.bytes_received);
        answer.sent = account.bytes_sent;
        answer.recv = account.bytes_received;
        answer.exchanged = account.blocks_sent + account.blocks_received;
    }
    Reply::value(&answer)
}

fn peer_of(text: &str) -> Result<PeerId, RpcError> {
    // Whoever has its address has its ID too.
    let id = match text.starts_with('/') {
        true => text.rsplit_once("/p2p/").map_or(text, |(_, id)| id),
        false => text,
    };
    id.parse().map_err(|_| {
        RpcError::wrong(match text.starts_with('/') {
            true => format!("the address {text:?} names no peer: it must end with /p2p/ and a peer ID"),
            false => format!("{text:?} is no peer ID; it looks like 12D3KooW…, `cairn swarm peers` names those connected"),
        })
    })
}

/// What is asked about another: the node has no account of itself.
async fn other_peer(call: &Call) -> Result<PeerId, RpcError> {
    let peer = peer_of(call.arguments.first("peer")?)?;
    match call.context.identity().await {
        Ok(own) if own.peer_id == peer => Err(RpcError::wrong(format!(
            "{peer} is this node itself; `cairn bitswap stat` tells what it did, `cairn swarm peers` names others"
        ))),
        _ => Ok(peer),
    }
}

/// As Kubo reckons it: nobody divides by nothing.
fn debt_ratio(sent: u64, received: u64) -> f64 {
    sent as f64 / (received as f64 + 1.0)
}

/// `bitswap wantlist`: ours, or what a peer wants of us.
pub async fn wantlist(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let peer = call
        .arguments
        .text(&["peer", "p"])
        .map(peer_of)
        .transpose()?;
    let node = call.context.node()?.node()?;
    let wanted = match peer {
        Some(peer) if peer != node.peer_id() => node.wants_of(peer).await,
        _ => node.bitswap().await.wantlist,
    };
    drop(node);
    let keys = wanted.iter().map(|cid| LinkText {
        cid: cids.text(cid),
    });
    Reply::value(&Keys {
        keys: keys.collect(),
    })
}
