//! `stats bw` and `bitswap stat`: what the node did so far.

use super::api::Call;
use super::dag::LinkText;
use super::error::RpcError;
use super::reply::Reply;
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

/// `stats bw`.
pub fn bandwidth(call: Call) -> Result<Reply, RpcError> {
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

/// `bitswap wantlist`.
pub async fn wantlist(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let node = call.context.node()?.node()?;
    let now = node.bitswap().await;
    drop(node);
    let keys = now.wantlist.iter().map(|cid| LinkText {
        cid: cids.text(cid),
    });
    Reply::value(&Keys {
        keys: keys.collect(),
    })
}
