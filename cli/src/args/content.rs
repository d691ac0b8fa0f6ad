//! Content: adding it, and what is read of it.

use crate::config::duration::Interval;
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
    /// Leave the bytes where they are: keep where each block lies in its file, and read it from there.
    #[arg(long)]
    pub nocopy: bool,
    /// Leaves are raw blocks.
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub raw_leaves: Option<bool>,
    /// How files are cut: size-N, rabin-MIN-AVERAGE-MAX or buzhash.
    #[arg(short = 's', long, value_name = "CHUNKER")]
    pub chunker: Option<String>,
    /// Hash function: sha2-256, sha2-512, blake3, blake2b-256 or another that IPFS nodes allow.
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

/// A number of bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("must be a whole number of bytes from 0 to {}", u64::MAX))
}

/// `cat`.
#[derive(Debug, Clone, Args)]
pub struct CatArgs {
    /// Files, as CID, /ipfs/CID/path or ipfs://CID/path.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Begin at this byte.
    #[arg(short, long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
    pub offset: Option<u64>,
    /// Print at most this many bytes.
    #[arg(short, long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
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
    /// Where to write it; into it if it is a folder and a file comes [default: its name, here].
    ///
    /// Nothing that exists is replaced. Until it is whole it grows beside its place as `.NAME.RANDOM.partial`, which
    /// is removed if the command fails or is interrupted; only if it is killed (kill -9) or the machine stops, that
    /// stays and may be deleted. What was fetched stays in the store: the same command again fetches the rest.
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
    /// A path, as CID, /ipfs/CID/path or /ipns/NAME/path.
    pub name: String,
    /// Follow names until content is reached; --recursive=false tells what the first one leads to [default: true].
    #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub recursive: Option<bool>,
    /// Kubo's; names end their search by themselves.
    #[arg(long, visible_alias = "dhtrc", hide = true, value_name = "COUNT")]
    pub dht_record_count: Option<u32>,
    /// Kubo's; `--timeout` is for all of it.
    #[arg(long, visible_alias = "dhtt", hide = true, value_name = "TIME")]
    pub dht_timeout: Option<Interval>,
}

/// `dns`.
#[derive(Debug, Clone, Args)]
pub struct DnsArgs {
    /// A domain, or a path that begins with one.
    pub name: String,
    /// Follow names until content is reached; --recursive=false tells what the first one leads to [default: true].
    #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub recursive: Option<bool>,
}
