//! Blocks and DAGs, and their names.

use clap::{Args, Subcommand};
use std::path::PathBuf;

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
