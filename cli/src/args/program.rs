//! The program itself: starting it, its configuration, what it logs.

use clap::{Args, Subcommand};
use std::path::PathBuf;

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
