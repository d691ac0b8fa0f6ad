//! Names: what they point at.

use super::key::BaseArgs;
use crate::config::duration::Interval;
use clap::{ArgAction, Args, Subcommand};
use std::path::PathBuf;

/// Below `name`.
#[derive(Debug, Clone, Subcommand)]
pub enum NameCommand {
    /// Have a name point at something: sign a record and tell others.
    Publish(NamePublishArgs),
    /// Print what a name points at.
    Resolve(NameResolveArgs),
    /// Print what stands in a record, whoever signed it.
    Inspect(NameInspectArgs),
    /// Print the newest record of a name that is known, as its bytes.
    Get {
        /// The name.
        name: String,
        /// Ask others and wait for them, although a record is known.
        #[arg(short, long)]
        nocache: bool,
    },
    /// Tell others again and again of somebody else's name, so that it outlives its owner's node.
    Keep {
        /// The name.
        name: String,
    },
    /// Keep a name alive no longer.
    Unkeep {
        /// The name.
        name: String,
    },
    /// List the names that are kept alive.
    Kept,
    /// Take in a record of a name, whoever signed it, and tell others.
    Put {
        /// The name.
        name: String,
        /// The file that has the record; `-` for standard input.
        file: PathBuf,
        /// Even if a newer one is known.
        #[arg(short, long)]
        force: bool,
        /// Even if nobody can be told.
        #[arg(long)]
        allow_offline: bool,
    },
    /// Names whose new records are heard of at once, over gossipsub.
    #[command(subcommand)]
    Pubsub(NamePubsubCommand),
}

/// Below `name pubsub`.
#[derive(Debug, Clone, Subcommand)]
pub enum NamePubsubCommand {
    /// Print whether it is switched on.
    State,
    /// Print the names that are followed, those asked for last first.
    Subs {
        /// How names are written.
        #[command(flatten)]
        ids: BaseArgs,
    },
    /// End following a name, until somebody asks for it again.
    Cancel {
        /// The name.
        name: String,
    },
}

/// `name publish`.
#[derive(Debug, Clone, Args)]
pub struct NamePublishArgs {
    /// What the name is to point at: a CID, or a path below /ipfs or /ipns.
    pub path: String,
    /// The key that signs, by its name [default: self].
    #[arg(short, long)]
    pub key: Option<String>,
    /// For how long the record holds [default: 48h].
    #[arg(short = 't', long, value_name = "DURATION")]
    pub lifetime: Option<Interval>,
    /// For how long nobody need look for a newer one [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<Interval>,
    /// The record's number, above that of every one before it [default: the next].
    #[arg(long, value_name = "NUMBER")]
    pub sequence: Option<u64>,
    /// Look first whether what it points at is there.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub resolve: bool,
    /// Print the name alone.
    #[arg(short = 'Q', long)]
    pub quieter: bool,
    /// Add what readers of version 1 need.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub v1compat: bool,
    /// Sign it even if nobody can be told; they are once the daemon runs.
    #[arg(long)]
    pub allow_offline: bool,
    /// How the name is written: a multibase, or `b58mh` [default: base36].
    #[arg(long, value_name = "BASE")]
    pub ipns_base: Option<String>,
}

/// `name resolve`.
#[derive(Debug, Clone, Args)]
pub struct NameResolveArgs {
    /// The name [default: this node's].
    pub name: Option<String>,
    /// Ask others and wait for them, although a record is known.
    #[arg(short, long)]
    pub nocache: bool,
    /// Print better records as they come.
    #[arg(short, long)]
    pub stream: bool,
    /// How long it may take [default: as long as it does].
    #[arg(long, visible_alias = "dhtt", value_name = "DURATION")]
    pub dht_timeout: Option<Interval>,
    /// Taken for Kubo's sake; as many answers are waited for as pay.
    #[arg(long, visible_alias = "dhtrc", value_name = "NUMBER")]
    pub dht_record_count: Option<u32>,
    /// Follow a name that points at another one.
    #[arg(short, long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub recursive: bool,
}

/// `name inspect`.
#[derive(Debug, Clone, Args)]
pub struct NameInspectArgs {
    /// The file that has the record; `-` for standard input.
    pub file: PathBuf,
    /// Check whether it is a record of this name.
    #[arg(long, value_name = "NAME")]
    pub verify: Option<String>,
    /// Print its bytes as well.
    #[arg(long)]
    pub dump: bool,
}
