//! The command tree. What each command does is in [`crate::commands`]; what it means, in
//! [`crate::rpc`].

use crate::config::duration::Interval;
use cairn_store::config::ByteSize;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// A content-addressed storage node that speaks IPFS.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// Reads a command line. Kubo's scripts write every flag as `--flag=true` or `--flag=false`
    /// where they like, so that is understood too.
    pub fn read<T: Into<OsString> + Clone>(
        line: impl IntoIterator<Item = T> + Clone,
    ) -> Result<Self, clap::Error> {
        match Self::try_parse_from(line.clone()) {
            Err(error) if error.kind() == ErrorKind::TooManyValues => {
                let matches = with_values(Self::command()).try_get_matches_from(line)?;
                Self::from_arg_matches(&matches)
            }
            read => read,
        }
    }
}

/// The same commands, whose flags may have a value.
fn with_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_action() {
            ArgAction::SetTrue => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_parser(clap::value_parser!(bool))
                .default_value("false")
                .default_missing_value("true"),
            _ => argument,
        })
        .mut_subcommands(with_values)
}

/// What holds for every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository [default: $CAIRN_PATH, else ~/.cairn].
    #[arg(long, global = true, value_name = "PATH")]
    pub repo_dir: Option<PathBuf>,
    /// Ask the daemon at this address, as /ip4/127.0.0.1/tcp/5001.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub api: Option<String>,
    /// Credentials for the RPC, as `bearer:TOKEN`.
    #[arg(long, global = true, value_name = "CREDENTIALS")]
    pub api_auth: Option<String>,
    /// Fetch nothing from peers; for `daemon`, start without a network.
    #[arg(long, global = true)]
    pub offline: bool,
    /// Give up after this time, as 30s or 5m.
    #[arg(long, global = true, value_name = "TIME")]
    pub timeout: Option<Interval>,
    /// Answer with the RPC's JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How to answer.
    #[arg(
        long,
        visible_alias = "encoding",
        global = true,
        value_enum,
        value_name = "FORMAT"
    )]
    pub enc: Option<Encoding>,
    /// Multibase to write CIDs in, as base32 or base36.
    #[arg(long, global = true, value_name = "BASE")]
    pub cid_base: Option<String>,
    /// Write CIDv0 as CIDv1 where a base was chosen.
    #[arg(long, global = true, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub upgrade_cidv0_in_output: Option<bool>,
    /// Kubo's; answers are always streamed.
    #[arg(long, global = true, hide = true)]
    pub stream_channels: bool,
    /// The old name of `--log debug`.
    #[arg(short = 'D', long, global = true, hide = true)]
    pub debug: bool,
    /// What to log to standard error: a level or directives [default: $CAIRN_LOG].
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

impl Global {
    /// Whether the answer is wanted as the RPC gives it.
    pub fn wants_json(&self) -> bool {
        self.json || self.enc == Some(Encoding::Json)
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// For people.
    Text,
    /// The RPC's JSON.
    Json,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make a repository.
    Init(InitArgs),
    /// Run the node.
    Daemon(DaemonArgs),
    /// Add paths and serve them: the shortest way to a running node.
    Serve(ServeArgs),
    /// Stop the daemon.
    Shutdown,
    /// Add files and folders.
    Add(Box<AddArgs>),
    /// Print the bytes of files.
    Cat(CatArgs),
    /// Write a file or a tree to the disk.
    Get(GetArgs),
    /// List what is in folders.
    Ls(LsArgs),
    /// List references between blocks.
    Refs(RefsArgs),
    /// Follow a path to the content it names.
    Resolve(ResolveArgs),
    /// Single blocks, as they are.
    #[command(subcommand)]
    Block(BlockCommand),
    /// Structured blocks, and CARs.
    #[command(subcommand)]
    Dag(DagCommand),
    /// What must stay.
    #[command(subcommand)]
    Pin(PinCommand),
    /// Tell where a block is, or how it is looked for, as it happens.
    Explain {
        /// A CID, or a path whose blocks are explained one after the other.
        path: String,
    },
    /// Print who this node is.
    Id(IdArgs),
    /// Connections to peers.
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Who has what.
    #[command(subcommand)]
    Routing(RoutingCommand),
    /// Figures of the running node.
    #[command(subcommand)]
    Stats(StatsCommand),
    /// The exchange of blocks.
    #[command(subcommand)]
    Bitswap(BitswapCommand),
    /// Measure what lies below the exchange.
    #[command(subcommand)]
    Diag(DiagCommand),
    /// The repository: sizes, garbage, damage.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Read and change the configuration.
    Config(ConfigArgs),
    /// Whom to ask first.
    Bootstrap(BootstrapArgs),
    /// Print the program's version.
    Version(VersionArgs),
    /// CIDs written another way.
    #[command(subcommand)]
    Cid(CidCommand),
    /// What the daemon logs.
    #[command(subcommand)]
    Log(LogCommand),
}

/// `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// How far the node reaches: local, lan or public.
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Kubo's; a new repository is always empty.
    #[arg(short, long, hide = true)]
    pub empty_repo: bool,
}

/// `daemon`.
#[derive(Debug, Clone, Args)]
pub struct DaemonArgs {
    /// Make the repository if there is none.
    #[arg(long)]
    pub init: bool,
    /// Kubo's; there is nothing to migrate.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub migrate: Option<bool>,
    /// Kubo's; garbage goes with `repo gc` only.
    #[arg(long, hide = true)]
    pub enable_gc: bool,
}

/// `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// What to add and serve.
    pub paths: Vec<PathBuf>,
}

/// `add`.
#[derive(Debug, Clone, Args)]
pub struct AddArgs {
    /// What to add; standard input without any, or as `-`.
    pub paths: Vec<PathBuf>,
    /// Take folders, with all that is in them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Print only CIDs.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print only the last CID.
    #[arg(short = 'Q', long)]
    pub quieter: bool,
    /// Print nothing.
    #[arg(long)]
    pub silent: bool,
    /// Show progress [default: on a terminal].
    #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub progress: Option<bool>,
    /// Name the content without keeping it.
    #[arg(short = 'n', long)]
    pub only_hash: bool,
    /// Wrap everything in a folder.
    #[arg(short = 'w', long)]
    pub wrap_with_directory: bool,
    /// Take names that begin with a dot.
    #[arg(short = 'H', long)]
    pub hidden: bool,
    /// Name for what comes from standard input.
    #[arg(long, value_name = "NAME")]
    pub stdin_name: Option<String>,
    /// Take what named symbolic links point to.
    #[arg(long)]
    pub dereference_args: bool,
    /// Take what any symbolic links point to.
    #[arg(long)]
    pub dereference_symlinks: bool,
    /// Pin what was added.
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub pin: bool,
    /// Name for the pin.
    #[arg(long, value_name = "NAME")]
    pub pin_name: Option<String>,
    /// How content becomes blocks: unixfs-v1-2025 or unixfs-v0-2015.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// CID version, 0 or 1.
    #[arg(long, value_name = "VERSION")]
    pub cid_version: Option<String>,
    /// Leaves are raw blocks.
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub raw_leaves: Option<bool>,
    /// How files are cut: size-N, rabin-MIN-AVERAGE-MAX or buzhash.
    #[arg(short = 's', long, value_name = "CHUNKER")]
    pub chunker: Option<String>,
    /// Hash function: sha2-256, sha2-512, blake3, blake2b-256.
    #[arg(long, value_name = "HASH")]
    pub hash: Option<String>,
    /// Early leaves near the root, for streams.
    #[arg(short = 't', long)]
    pub trickle: bool,
    /// Keep permission bits.
    #[arg(long)]
    pub preserve_mode: bool,
    /// Keep times of change.
    #[arg(long)]
    pub preserve_mtime: bool,
}

/// `cat`.
#[derive(Debug, Clone, Args)]
pub struct CatArgs {
    /// Files, as CID, /ipfs/CID/path or ipfs://CID/path.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Begin at this byte.
    #[arg(short, long, value_name = "BYTES")]
    pub offset: Option<u64>,
    /// Print at most this many bytes.
    #[arg(short, long, value_name = "BYTES")]
    pub length: Option<u64>,
    /// Show progress [default: no].
    #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub progress: Option<bool>,
}

/// `get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// A file or a folder.
    pub path: String,
    /// Where to write it.
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Write a tar archive.
    #[arg(short, long)]
    pub archive: bool,
    /// Compress the archive with gzip.
    #[arg(short = 'C', long)]
    pub compress: bool,
    /// How much to compress, 1 to 9.
    #[arg(short = 'l', long, value_name = "LEVEL")]
    pub compression_level: Option<u32>,
    /// Show progress [default: on a terminal].
    #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub progress: Option<bool>,
}

/// `ls`.
#[derive(Debug, Clone, Args)]
pub struct LsArgs {
    /// Folders.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Print a head line.
    #[arg(short = 'v', long)]
    pub headers: bool,
    /// Look up sizes.
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub size: bool,
    /// Look up what entries are.
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub resolve_type: bool,
    /// Print entries while they are found.
    #[arg(short = 's', long)]
    pub stream: bool,
}

/// `refs`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RefsArgs {
    /// `refs local`.
    #[command(subcommand)]
    pub command: Option<RefsCommand>,
    /// Roots.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Format of a line, of `<src>`, `<dst>` and `<linkname>`.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print `from -> to`.
    #[arg(short, long)]
    pub edges: bool,
    /// Print each reference once.
    #[arg(short, long)]
    pub unique: bool,
    /// Follow the references of references.
    #[arg(short, long)]
    pub recursive: bool,
    /// How deep to follow.
    #[arg(long, value_name = "LEVELS", allow_hyphen_values = true)]
    pub max_depth: Option<i64>,
}

/// Below `refs`.
#[derive(Debug, Clone, Subcommand)]
pub enum RefsCommand {
    /// List every block that is here.
    Local,
}

/// `resolve`.
#[derive(Debug, Clone, Args)]
pub struct ResolveArgs {
    /// A path.
    pub name: String,
    /// Follow names that name names.
    #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub recursive: Option<bool>,
}

/// Below `block`.
#[derive(Debug, Clone, Subcommand)]
pub enum BlockCommand {
    /// Print a block.
    Get {
        /// The block.
        cid: String,
    },
    /// Keep files as blocks.
    Put(BlockPutArgs),
    /// Print a block's length.
    Stat {
        /// The block.
        cid: String,
    },
    /// Remove blocks that no pin reaches.
    Rm {
        /// The blocks.
        #[arg(required = true)]
        cids: Vec<String>,
        /// Ignore what is not here.
        #[arg(short, long)]
        force: bool,
        /// Print failures only.
        #[arg(short, long)]
        quiet: bool,
    },
}

/// `block put`.
#[derive(Debug, Clone, Args)]
pub struct BlockPutArgs {
    /// Files; standard input without any.
    pub paths: Vec<PathBuf>,
    /// What the bytes are: raw, dag-pb, dag-cbor, dag-json, cbor or json.
    #[arg(long, value_name = "CODEC")]
    pub cid_codec: Option<String>,
    /// Hash function.
    #[arg(long, value_name = "HASH")]
    pub mhtype: Option<String>,
    /// Bytes of the hash: those of the function, or -1.
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    pub mhlen: Option<i64>,
    /// Pin what was put.
    #[arg(long)]
    pub pin: bool,
    /// The old name of --cid-codec.
    #[arg(short, long, hide = true)]
    pub format: Option<String>,
}

/// Below `dag`.
#[derive(Debug, Clone, Subcommand)]
pub enum DagCommand {
    /// Print a block in another codec.
    Get {
        /// A path to it, or into it.
        path: String,
        /// The codec to print in.
        #[arg(long, value_name = "CODEC")]
        output_codec: Option<String>,
    },
    /// Keep structured data.
    Put(DagPutArgs),
    /// Print the block that a path leads to, and what is left of the path.
    Resolve {
        /// The path.
        path: String,
    },
    /// Count blocks and bytes.
    Stat {
        /// Roots.
        #[arg(required = true)]
        roots: Vec<String>,
        /// Show progress [default: on a terminal].
        #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        progress: Option<bool>,
    },
    /// Write a DAG to standard output as a CAR.
    Export {
        /// The root.
        root: String,
        /// Leave out what is not here.
        #[arg(long)]
        local_only: bool,
        /// Show progress [default: on a terminal].
        #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        progress: Option<bool>,
    },
    /// Take the blocks of CARs.
    Import(DagImportArgs),
}

/// `dag put`.
#[derive(Debug, Clone, Args)]
pub struct DagPutArgs {
    /// Files; standard input without any.
    pub paths: Vec<PathBuf>,
    /// Codec to store in.
    #[arg(long, value_name = "CODEC")]
    pub store_codec: Option<String>,
    /// Codec of the input.
    #[arg(long, value_name = "CODEC")]
    pub input_codec: Option<String>,
    /// Pin what was put.
    #[arg(long)]
    pub pin: bool,
    /// Hash function.
    #[arg(long, value_name = "HASH")]
    pub hash: Option<String>,
}

/// `dag import`.
#[derive(Debug, Clone, Args)]
pub struct DagImportArgs {
    /// CARs; standard input without any.
    pub paths: Vec<PathBuf>,
    /// Pin the roots [default: yes].
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub pin_roots: Option<bool>,
    /// Take CARs that are not whole; pins nothing.
    #[arg(long)]
    pub local_only: bool,
    /// Print failures only.
    #[arg(long)]
    pub silent: bool,
    /// Print how much came.
    #[arg(long)]
    pub stats: bool,
}

/// Below `pin`.
#[derive(Debug, Clone, Subcommand)]
pub enum PinCommand {
    /// Fetch and keep.
    Add {
        /// What to keep.
        #[arg(required = true)]
        paths: Vec<String>,
        /// With everything below it.
        #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        recursive: bool,
        /// Name for the pin.
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        /// Show progress [default: on a terminal].
        #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        progress: Option<bool>,
    },
    /// Keep no longer.
    Rm {
        /// What to let go.
        #[arg(required = true)]
        paths: Vec<String>,
        /// Recursive pins too.
        #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        recursive: bool,
    },
    /// List what is kept.
    Ls {
        /// How these are kept; all without any.
        paths: Vec<String>,
        /// direct, indirect, recursive or all.
        #[arg(short = 't', long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Print only CIDs.
        #[arg(short, long)]
        quiet: bool,
        /// Only pins whose name contains this.
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        /// Print pins while they are found.
        #[arg(short, long)]
        stream: bool,
        /// Print names.
        #[arg(long)]
        names: bool,
    },
    /// Keep another instead.
    Update {
        /// What is kept.
        from: String,
        /// What shall be kept.
        to: String,
        /// Let the old one go.
        #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        unpin: bool,
    },
    /// Check that everything that is kept is here.
    Verify {
        /// Print what is whole too.
        #[arg(long)]
        verbose: bool,
        /// Print only CIDs.
        #[arg(short, long)]
        quiet: bool,
    },
}

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
        /// Print who dialled.
        #[arg(long)]
        direction: bool,
        /// Print what peers told of themselves.
        #[arg(long)]
        identify: bool,
    },
    /// Connect to peers.
    Connect {
        /// Addresses that end in /p2p/PEER.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Close connections to peers.
    Disconnect {
        /// Addresses that end in /p2p/PEER.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// List known addresses.
    Addrs(SwarmAddrsArgs),
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
}

/// Below `routing`.
#[derive(Debug, Clone, Subcommand)]
pub enum RoutingCommand {
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
    /// Measure how fast bytes go to a peer and back, without blocks and without a disk.
    Perf {
        /// An address that ends in /p2p/PEER, or a peer whose address is known.
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

/// Below `repo`.
#[derive(Debug, Clone, Subcommand)]
pub enum RepoCommand {
    /// Print sizes.
    Stat(RepoStatArgs),
    /// Remove what nothing keeps.
    Gc {
        /// Print only CIDs.
        #[arg(short, long)]
        quiet: bool,
        /// Print nothing.
        #[arg(long)]
        silent: bool,
        /// Does nothing: a collection ends at its first error. For scripts that give it.
        #[arg(long, hide = true)]
        stream_errors: bool,
    },
    /// Build the index anew from the blocks.
    Rebuild,
    /// Check every block against its CID.
    Verify {
        /// Delete bad blocks, so that they are absent instead of damaged.
        #[arg(long)]
        drop: bool,
        /// Fetch bad blocks from peers; needs the daemon.
        #[arg(long)]
        heal: bool,
        /// How long to look for a bad block without any progress.
        #[arg(long, value_name = "DURATION", requires = "heal")]
        heal_timeout: Option<Interval>,
    },
    /// Print the format's version.
    Version {
        /// Only the number.
        #[arg(short, long)]
        quiet: bool,
    },
}

/// `repo stat`.
#[derive(Debug, Clone, Args)]
pub struct RepoStatArgs {
    /// Only sizes.
    #[arg(short, long)]
    pub size_only: bool,
    /// Print sizes for people.
    #[arg(short = 'H', long)]
    pub human: bool,
}

/// `config`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    /// Below it.
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
    /// A key, as `addresses.rpc`.
    pub key: Option<String>,
    /// Its new value.
    #[arg(allow_hyphen_values = true)]
    pub value: Option<String>,
    /// Accepted for Kubo's scripts; values are understood anyway.
    #[arg(long, hide = true)]
    pub bool: bool,
}

/// Below `config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print what holds.
    Show,
    /// Print a value.
    Get {
        /// The key.
        key: String,
    },
    /// Change a value.
    Set {
        /// The key.
        key: String,
        /// TOML; what is not TOML is a string.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Open the file in $EDITOR.
    Edit,
}

/// `bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct BootstrapArgs {
    /// Below it; `list` without any.
    #[command(subcommand)]
    pub command: Option<BootstrapCommand>,
}

/// Below `bootstrap`.
#[derive(Debug, Clone, Subcommand)]
pub enum BootstrapCommand {
    /// List them.
    List,
    /// Add peers.
    Add {
        /// Addresses that end in /p2p/PEER.
        #[arg(required_unless_present = "default")]
        peers: Vec<String>,
        /// Kubo's; there is no list to take them from.
        #[arg(long, hide = true)]
        default: bool,
    },
    /// Remove peers, or `all`.
    Rm {
        /// Addresses, or `all`.
        peers: Vec<String>,
        /// Remove all.
        #[arg(long)]
        all: bool,
    },
}

/// `version`.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// Only the number.
    #[arg(short, long)]
    pub number: bool,
    /// With the commit.
    #[arg(long)]
    pub commit: bool,
    /// Only the repository's format.
    #[arg(long)]
    pub repo: bool,
    /// Everything.
    #[arg(long)]
    pub all: bool,
}

/// Below `cid`.
#[derive(Debug, Clone, Subcommand)]
pub enum CidCommand {
    /// Write CIDs another way.
    Format {
        /// The CIDs; lines of standard input without any.
        cids: Vec<String>,
        /// Format: %s the CID, %P its prefix, %b base, %v version, %c codec, %h hash, %d digest, ….
        #[arg(short = 'f', value_name = "FORMAT")]
        format: Option<String>,
        /// Version to convert to.
        #[arg(short = 'v', value_name = "VERSION")]
        version: Option<String>,
        /// Codec to convert to.
        #[arg(long = "mc", value_name = "CODEC")]
        codec: Option<String>,
        /// Multibase to write in.
        #[arg(short = 'b', value_name = "BASE")]
        base: Option<String>,
    },
    /// Write CIDs as version 1 in base32.
    Base32 {
        /// The CIDs; lines of standard input without any.
        cids: Vec<String>,
    },
}

/// Below `log`.
#[derive(Debug, Clone, Subcommand)]
pub enum LogCommand {
    /// Change what the daemon logs.
    Level {
        /// A crate or module, or `all`.
        subsystem: String,
        /// error, warn, info, debug or trace.
        level: String,
    },
    /// List what a level can be set for.
    Ls,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::read(line.split(' '))
    }

    #[test]
    fn the_tree_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn kubos_flags_are_understood() {
        for line in [
            "cairn add -r -Q --cid-version=1 --raw-leaves dir",
            "cairn add --raw-leaves=false --pin=false -w a b",
            "cairn add -rq -s size-1024 -t -H --only-hash x",
            "cairn cat -o 5 -l 3 ipfs://bafkqaaa/a",
            "cairn get -o out -a -C -l 9 /ipfs/bafkqaaa",
            "cairn ls -v --size=false --resolve-type=false -s bafkqaaa",
            "cairn refs -r -u --max-depth=-1 bafkqaaa",
            "cairn refs -e bafkqaaa",
            "cairn refs local",
            "cairn pin ls --type=recursive -q --names --enc=json",
            "cairn pin add --recursive=false --name x bafkqaaa",
            "cairn pin rm -r bafkqaaa",
            "cairn pin update --unpin=false a b",
            "cairn block put --cid-codec=dag-cbor --mhtype blake3 --pin file",
            "cairn dag import --pin-roots=false --stats a.car",
            "cairn dag stat --progress=false bafkqaaa",
            "cairn block put --mhlen=-1 file",
            "cairn daemon --migrate --enable-gc --init",
            "cairn daemon --migrate=true -D --stream-channels",
            "cairn init -e",
            "cairn bootstrap add --default",
            "cairn swarm addrs local --id",
            "cairn swarm addrs",
            "cairn config network lan",
            "cairn config network",
            "cairn config set fetch.connections 5",
            "cairn config show --json",
            "cairn bootstrap",
            "cairn bootstrap rm all",
            "cairn repo stat -H -s",
            "cairn explain /ipfs/bafkqaaa/a",
            "cairn diag perf /ip4/127.0.0.1/tcp/1/p2p/x --upload 64MiB --download=0 --streams 4",
            "cairn cid format -f %P -b base32 -v 1 --mc dag-pb bafkqaaa",
            "cairn version -n",
            "cairn --repo-dir /x --timeout 5s --offline --api /ip4/127.0.0.1/tcp/1 id",
            "cairn id --timeout 5s --api-auth bearer:x",
            "cairn log level all debug",
            "cairn serve a b",
            "cairn add -rQ --trickle=false --quiet=true --wrap-with-directory=false a",
            "cairn --offline=true refs --recursive=true -u bafkqaaa",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn a_flag_means_what_its_value_says() {
        let read = parse("cairn add -rQ --trickle=false --hidden=true a").unwrap();
        let Command::Add(add) = read.command else {
            panic!("not add");
        };
        assert!(add.recursive && add.quieter && add.hidden && add.pin);
        assert!(!add.trickle && !add.quiet);
        assert!(parse("cairn add --trickle=perhaps a").is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "cairn",
            "cairn nonsense",
            "cairn cat",
            "cairn refs",
            "cairn cat -o -1 x",
            "cairn id --timeout soon",
            "cairn id --enc=xml",
            "cairn pin",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
