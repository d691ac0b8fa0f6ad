//! Peers: who they are, what they have, and what was exchanged with them.

use super::RepoStatArgs;
use cairn_store::config::ByteSize;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `id`.
#[derive(Debug, Clone, Args)]
pub struct IdArgs {
    /// Another peer.
    pub peer: Option<String>,
    /// Format, of `<id>`, `<aver>`, `<pubkey>`, `<addrs>` and `<protocols>`.
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Below `swarm`.
#[derive(Debug, Clone, Subcommand)]
pub enum SwarmCommand {
    /// List connections.
    Peers {
        /// Print everything known.
        #[arg(short, long)]
        verbose: bool,
        /// Print round trips.
        #[arg(long)]
        latency: bool,
        /// Kubo's, and refused: what is spoken over each open stream is not known here.
        #[arg(long, hide = true)]
        streams: bool,
        /// Print who dialled.
        #[arg(long)]
        direction: bool,
        /// Print what peers told of themselves.
        #[arg(long)]
        identify: bool,
    },
    /// Connect to peers.
    Connect {
        /// Addresses that end in /p2p/PEER; or peers whose addresses are known.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Close connections to peers.
    Disconnect {
        /// Addresses that end in /p2p/PEER; or peers.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// List known addresses.
    Addrs(SwarmAddrsArgs),
    /// List or change where nobody is dialled or taken from.
    Filters(SwarmFiltersArgs),
    /// Peers that the running node stays connected to.
    #[command(subcommand)]
    Peering(SwarmPeeringCommand),
}

/// `swarm filters`.
#[derive(Debug, Clone, Args)]
pub struct SwarmFiltersArgs {
    /// Below it.
    #[command(subcommand)]
    pub command: Option<SwarmFiltersCommand>,
}

/// Below `swarm filters`.
#[derive(Debug, Clone, Subcommand)]
pub enum SwarmFiltersCommand {
    /// List them, as without a command.
    Ls,
    /// Add filters, at once and to the configuration.
    Add {
        /// Ranges, as /ip4/192.168.0.0/ipcidr/16.
        #[arg(required = true)]
        ranges: Vec<String>,
    },
    /// Remove filters.
    Rm {
        /// Ranges, or `all`.
        #[arg(required = true)]
        ranges: Vec<String>,
    },
}

/// Below `swarm peering`.
#[derive(Debug, Clone, Subcommand)]
pub enum SwarmPeeringCommand {
    /// Stay connected to peers until the daemon stops; `swarm.peering` in the configuration is for ever.
    Add {
        /// Addresses that end in /p2p/PEER; or peers whose addresses are known.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// List them.
    Ls,
    /// No longer stay connected to peers.
    Rm {
        /// Their IDs.
        #[arg(required = true)]
        peers: Vec<String>,
    },
}

/// `ping`.
#[derive(Debug, Clone, Args)]
pub struct PingArgs {
    /// An address that ends in /p2p/PEER; or a peer that is connected or whose address is known.
    pub peer: String,
    /// How many pings to send [default: 10].
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub count: Option<u32>,
}

/// `swarm addrs`.
#[derive(Debug, Clone, Args)]
pub struct SwarmAddrsArgs {
    /// Below it.
    #[command(subcommand)]
    pub command: Option<SwarmAddrsCommand>,
}

/// Below `swarm addrs`.
#[derive(Debug, Clone, Subcommand)]
pub enum SwarmAddrsCommand {
    /// List where this node is reached.
    Local {
        /// With its name.
        #[arg(long)]
        id: bool,
    },
    /// List where this node listens.
    Listen,
    /// Print whether and where this node can be reached.
    Autonat,
}

/// Below `routing`.
#[derive(Debug, Clone, Subcommand)]
pub enum RoutingCommand {
    /// Find where a peer is.
    Findpeer {
        /// Who.
        #[arg(required = true, value_name = "PEER")]
        peers: Vec<String>,
    },
    /// Print the best value that is kept under a key, as its bytes.
    Get {
        /// `/ipns/NAME` or `/pk/PEER`.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Have the network keep a value: a signed IPNS record or a public key.
    Put {
        /// `/ipns/NAME` or `/pk/PEER`.
        key: String,
        /// The file that has the value; `-` for standard input.
        file: PathBuf,
    },
    /// Find who has something.
    Findprovs {
        /// What.
        #[arg(required = true)]
        cids: Vec<String>,
        /// How many to find.
        #[arg(short, long, value_name = "NUMBER")]
        num_providers: Option<usize>,
    },
    /// Tell the network that we have something.
    Provide {
        /// What.
        #[arg(required = true)]
        cids: Vec<String>,
    },
}

/// Below `denylist`.
#[derive(Debug, Clone, Subcommand)]
pub enum DenylistCommand {
    /// List the denylists, each overriding those before it: how many rules hold, when it was read, what is left out and why.
    Ls,
    /// Tell whether something is denied, and by which line of which list; nothing is looked up for it.
    Check {
        /// The path, as /ipfs/CID or /ipns/NAME/a; or a CID, a domain, or the URL of a gateway's page.
        path: String,
    },
}

/// Below `provide`.
#[derive(Debug, Clone, Subcommand)]
pub enum ProvideCommand {
    /// How telling the network what is here goes.
    Stat {
        /// Of this block alone: whether it is in the set of what is provided (InSet), when peers were told of it (LastAt) and
        /// are again (NextAt), the first bits of where it lies, which all of its region share (Region), which peers were
        /// told then (Peers), and when `routing provide` told of it (RoutingProvide).
        ///
        /// Without it: Strategy and Interval are `provide.strategy` and `provide.interval`; Keys are blocks in the set, as it was
        /// gathered at GatheredAt; KeysWaiting are new ones that nobody was told of yet. The key space is cut into Regions of
        /// PrefixBits bits, by how many nodes the network seems to have (NetworkSize). Each region is told once an interval:
        /// RegionsDone were in this one, RegionsLate should have been by now, RegionsActive are being told, RegionsFailing
        /// were not taken at the last try; Failures counts such tries since the start, RegionTime is how long one takes. LastAt and
        /// NextAt are when a region was told last and is next, KeysProvided and KeysLastHour how many blocks were told.
        cid: Option<String>,
    },
}

/// Below `stats`.
#[derive(Debug, Clone, Subcommand)]
pub enum StatsCommand {
    /// Bytes in and out.
    Bw,
    /// The exchange of blocks.
    Bitswap(BitswapStatArgs),
    /// The repository's sizes.
    Repo(RepoStatArgs),
}

/// Below `bitswap`.
#[derive(Debug, Clone, Subcommand)]
pub enum BitswapCommand {
    /// What was exchanged.
    Stat(BitswapStatArgs),
    /// What is wanted now.
    Wantlist {
        /// What this peer wants of us, not what we want.
        #[arg(short, long)]
        peer: Option<String>,
    },
    /// What was exchanged with a peer.
    Ledger {
        /// The peer's ID.
        peer: String,
    },
}

/// `bitswap stat`.
#[derive(Debug, Clone, Args)]
pub struct BitswapStatArgs {
    /// Name the partners.
    #[arg(short, long)]
    pub verbose: bool,
    /// Print sizes for people.
    #[arg(long)]
    pub human: bool,
}

/// Below `diag`.
#[derive(Debug, Clone, Subcommand)]
pub enum DiagCommand {
    /// Tell whether this node can do its work, and what keeps it from that; exit code 1 if anything does.
    Healthy,
    /// Measure how fast bytes go to a peer and back, without blocks and without a disk.
    Perf {
        /// An address that ends in /p2p/PEER, which is dialled and measured whatever other connections to that peer
        /// there are; or a peer that is connected or whose address is known.
        peer: String,
        /// How much to send, as 64MiB; 0 for nothing [default: 256MiB].
        #[arg(long, value_name = "BYTES")]
        upload: Option<ByteSize>,
        /// How much to have sent; 0 for nothing [default: 256MiB].
        #[arg(long, value_name = "BYTES")]
        download: Option<ByteSize>,
        /// Streams at once, up to 16 [default: 1].
        #[arg(long, value_name = "NUMBER")]
        streams: Option<u64>,
    },
}
