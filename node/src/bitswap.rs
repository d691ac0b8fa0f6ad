//! The protocol in words. (signatures)

use cairn_store::Cid;
use libp2p::PeerId;

/// What Bitswap did since the start.
#[derive(Debug, Clone, Default)]
pub struct Stat {
    /// What we want now.
    pub wantlist: Vec<Cid>,
    /// Who speaks Bitswap with us.
    pub peers: Vec<PeerId>,
    /// Blocks received.
    pub blocks_received: u64,
    /// Their bytes.
    pub data_received: u64,
    /// Blocks received that we had or did not want.
    pub duplicate_blocks: u64,
    /// Their bytes.
    pub duplicate_data: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Blocks sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub data_sent: u64,
}
