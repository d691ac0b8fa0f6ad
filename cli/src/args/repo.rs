//! What must stay, and the repository that it stays in.

use crate::config::duration::Interval;
use cairn_store::config::ByteSize;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Below `pin`.
#[derive(Debug, Clone, Subcommand)]
pub enum PinCommand {
    /// Fetch a file, a folder or another DAG, and keep it until it is unpinned.
    ///
    /// It is pinned once all of it is here. What is missing is asked of peers, for which a daemon must run (`cairn daemon`);
    /// what came before a failure is not fetched twice. Of what is pinned already everything is looked at, and what is
    /// missing of it is fetched.
    Add {
        /// CIDs, or paths like /ipfs/CID/folder/file and /ipns/NAME.
        #[arg(required = true)]
        paths: Vec<String>,
        /// With everything below it; =false keeps the one block alone.
        #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        recursive: bool,
        /// Name for the pin; `pin ls --names` prints it.
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        /// Say something of the pin; may be given more than once. KEY= takes KEY away.
        #[arg(long, value_name = "KEY=VALUE")]
        meta: Vec<String>,
        /// Unpin it by itself after this time, like 12h, 30d or 2w. Without this a pin stays, also one that was to expire.
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
        expire_in: Option<Interval>,
        /// Pin nothing that has more bytes in all than this, like 500MB or 2GiB.
        #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
        max_size: Option<ByteSize>,
        /// Put it in the daemon's queue and return at once; `pin ls --status all` shows how it goes.
        #[arg(long)]
        background: bool,
        /// Place in the queue, which may be negative: those of a higher priority come first [default: 0].
        #[arg(
            long,
            value_name = "NUMBER",
            requires = "background",
            allow_negative_numbers = true
        )]
        priority: Option<i32>,
        /// Show progress [default: on a terminal].
        #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        progress: Option<bool>,
        /// Follow the name that the path begins with: when it moves, what it leads to then is pinned.
        #[arg(long, conflicts_with_all = ["meta", "expire_in", "max_size", "background"])]
        follow: bool,
        /// For how long what a followed name led to before stays pinned [default: 24h].
        #[arg(
            long,
            value_name = "DURATION",
            requires = "follow",
            allow_hyphen_values = true
        )]
        grace: Option<Interval>,
    },
    /// Take out of the queue what was to be pinned in the background.
    ///
    /// All of those named, or none if one of them is not in the queue. What was fetched for them goes with the next garbage
    /// collection.
    Cancel {
        /// CIDs or paths in the queue, which `pin ls --status all` lists.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// List the names that are followed (`pin add --follow`).
    Followed,
    /// Try again now what waits in the queue or failed.
    Retry {
        /// CIDs or paths in the queue, which `pin ls --status waiting,failed` lists.
        #[arg(required_unless_present = "all")]
        paths: Vec<String>,
        /// All that wait or failed.
        #[arg(long, conflicts_with = "paths")]
        all: bool,
    },
    /// Follow a name no longer; what it leads to stays pinned.
    Unfollow {
        /// The paths, as `pin followed` lists them.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Unpin: it goes with the next garbage collection, unless another pin keeps it.
    ///
    /// All of those named, or none if one of them is not pinned. What waits in the queue is cancelled.
    Rm {
        /// CIDs or paths that are pinned themselves, as `pin ls -t recursive` and `pin ls -t direct` list them.
        #[arg(required = true)]
        paths: Vec<String>,
        /// Recursive pins too; =false refuses to take those away.
        #[arg(short, long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        recursive: bool,
    },
    /// List what is pinned, and with --status what is to be.
    ///
    /// A line has the CID and how it is pinned: recursive (with everything below it), direct (the block alone) or indirect
    /// (below a recursive pin). One whose time is over is told as expired until it is removed, which a daemon does within
    /// seconds, and else the next garbage collection.
    Ls {
        /// Tell how these CIDs or paths are pinned [default: list all].
        paths: Vec<String>,
        /// How they are pinned: direct, indirect, recursive or all [default: all].
        #[arg(short = 't', long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Print only CIDs.
        #[arg(short, long)]
        quiet: bool,
        /// Only pins whose name contains this.
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        /// Only pins of which this is said; may be given more than once.
        #[arg(long, value_name = "KEY=VALUE")]
        meta: Vec<String>,
        /// Only pins that expire within this time, like 12h or 30d.
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
        expires_before: Option<Interval>,
        /// Only these, those in the queue among them: queued, fetching, waiting, failed, pinned, expired or all. May be given
        /// more than once, or with commas between.
        #[arg(long, value_name = "STATUS")]
        status: Vec<String>,
        /// With --json: print pins while they are found, one a line.
        #[arg(short, long)]
        stream: bool,
        /// Print names.
        #[arg(long)]
        names: bool,
        /// Print when they were made, when they expire and what else is said of them.
        #[arg(short, long)]
        long: bool,
    },
    /// Pin another DAG in the place of one, under the same name.
    ///
    /// The new one is here as a whole before the old one is unpinned, and only what differs is fetched.
    Update {
        /// What is pinned recursively.
        from: String,
        /// What is to be pinned instead.
        to: String,
        /// Unpin the old one; =false keeps both.
        #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        unpin: bool,
    },
    /// Check that everything that is pinned is here, block by block.
    ///
    /// Names what is missing or damaged below which pin, and fails if there is any. Nothing is fetched or changed.
    Verify {
        /// Print what is whole too.
        #[arg(long)]
        verbose: bool,
        /// Print only the CIDs of pins that are not whole.
        #[arg(short, long)]
        quiet: bool,
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
    /// Take over a Kubo repository: blocks, pins, the file tree and keys.
    ImportKubo(ImportKuboArgs),
    /// Build the index anew from the blocks.
    Rebuild,
    /// Make a new repository of what a snapshot holds.
    ///
    /// It is made where CAIRN_PATH or --repo-dir says, which must not be there yet or be empty. No daemon is
    /// needed, and none may run on the snapshot.
    Restore {
        /// The snapshot's folder.
        #[arg(value_name = "DIR")]
        snapshot: PathBuf,
        /// Check every block before the repository gets its name.
        #[arg(long)]
        verify: bool,
        /// Give the new repository a key of its own, so that both may run.
        #[arg(long)]
        new_identity: bool,
    },
    /// Make a copy of the repository as it is at one instant, while it works.
    ///
    /// The copy holds everything, the private keys too, and is a repository itself. Of blocks that were added in place it
    /// holds where they lie, not their content. The daemon makes it, with its rights, wherever that is.
    Snapshot {
        /// The folder to make: not there yet, or empty.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Check every block against its CID, those in files in place too.
    Verify {
        /// Delete bad blocks, so that they are absent instead of damaged.
        ///
        /// What a file in place no longer has is forgotten too, so mount all disks first. A file whose folder is not there
        /// either is told and not forgotten.
        #[arg(long)]
        drop: bool,
        /// Fetch bad blocks from peers; needs the daemon. One that a file in place has lost is kept here then.
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

/// `repo import-kubo`.
#[derive(Debug, Clone, Args)]
pub struct ImportKuboArgs {
    /// The repository, usually ~/.ipfs. It is only read, and Kubo must not run.
    pub dir: PathBuf,
    /// Take over its identity too, in the place of this node's, which is set aside. Kubo must never run with it again.
    #[arg(long)]
    pub identity: bool,
    /// Write those of its settings that have a counterpart into config.toml, instead of showing how.
    #[arg(long)]
    pub config: bool,
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
