//! `files`: the tree that is changed by path.

use super::content::bytes;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `files`.
#[derive(Debug, Clone, Args)]
pub struct FilesArgs {
    /// When what is changed is written.
    #[command(flatten)]
    pub flushing: FlushArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: FilesCommand,
}

/// When a change is written.
#[derive(Debug, Clone, Copy, Args)]
pub struct FlushArgs {
    /// Write changes before the answer. With `false` a later flush does, and a crash may take them.
    #[arg(short = 'f', long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub flush: Option<bool>,
}

/// How new things are named.
#[derive(Debug, Clone, Args)]
pub struct NamingArgs {
    /// CID version, 0 or 1.
    #[arg(long, visible_alias = "cid-ver", value_name = "VERSION")]
    pub cid_version: Option<String>,
    /// Hash function: sha2-256, sha2-512, blake3, blake2b-256.
    #[arg(long, value_name = "HASH")]
    pub hash: Option<String>,
}

/// What is done to the tree.
#[derive(Debug, Clone, Subcommand)]
pub enum FilesCommand {
    /// List what is in a folder.
    Ls {
        /// The path [default: /].
        path: Option<String>,
        /// Print CIDs and sizes.
        #[arg(short, long)]
        long: bool,
        /// Print entries as they come, in the folder's own order.
        #[arg(short = 'U')]
        unsorted: bool,
    },
    /// Tell what is at a path.
    Stat(FilesStatArgs),
    /// Put what is at another path, or content as /ipfs/CID, there as well. Content is fetched whole first.
    Cp {
        /// What to copy.
        source: String,
        /// Where it goes; with a slash at the end, into that folder.
        dest: String,
        /// Replace a file.
        #[arg(long)]
        force: bool,
        /// Make folders that are missing.
        #[arg(short, long)]
        parents: bool,
        /// When it is written.
        #[command(flatten)]
        flushing: FlushArgs,
    },
    /// Move a file or folder.
    Mv {
        /// What to move.
        source: String,
        /// Where it goes; into it, if that is a folder.
        dest: String,
        /// When it is written.
        #[command(flatten)]
        flushing: FlushArgs,
    },
    /// Remove files and folders. This is always written before the answer.
    Rm {
        /// What to remove.
        #[arg(required = true)]
        paths: Vec<String>,
        /// Remove folders with all that is in them.
        #[arg(short, long)]
        recursive: bool,
        /// Remove whatever is there, and say nothing if nothing is.
        #[arg(long)]
        force: bool,
    },
    /// Make a folder.
    Mkdir {
        /// Where.
        path: String,
        /// Make folders that are missing, and say nothing if it is there.
        #[arg(short, long)]
        parents: bool,
        /// How it is named.
        #[command(flatten)]
        naming: NamingArgs,
        /// When it is written.
        #[command(flatten)]
        flushing: FlushArgs,
    },
    /// Print the bytes of a file.
    Read {
        /// The file.
        path: String,
        /// Where to begin.
        #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
        offset: Option<u64>,
        /// How much to print at most.
        #[arg(short = 'n', long, value_name = "BYTES", value_parser = bytes)]
        count: Option<u64>,
    },
    /// Write the bytes of a file on this disk, or of standard input, to a file of the tree.
    Write(FilesWriteArgs),
    /// Write what waits, and print the CID of what is at a path.
    Flush {
        /// The path [default: /].
        path: Option<String>,
    },
    /// Name a folder's blocks otherwise.
    Chcid {
        /// The folder.
        path: String,
        /// How it is named.
        #[command(flatten)]
        naming: NamingArgs,
        /// When it is written.
        #[command(flatten)]
        flushing: FlushArgs,
    },
    /// Set permission bits.
    Chmod {
        /// In octal digits, as 0644.
        mode: String,
        /// Of what.
        path: String,
        /// When it is written.
        #[command(flatten)]
        flushing: FlushArgs,
    },
    /// Set the time of change.
    Touch {
        /// Of what.
        path: String,
        /// Seconds since 1970 [default: now].
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
        mtime: Option<i64>,
        /// Nanoseconds of it.
        #[arg(long, value_name = "NANOSECONDS", requires = "mtime")]
        mtime_nsecs: Option<u32>,
        /// When it is written.
        #[command(flatten)]
        flushing: FlushArgs,
    },
}

/// `files stat`.
#[derive(Debug, Clone, Args)]
pub struct FilesStatArgs {
    /// The path, or content as /ipfs/CID.
    pub path: String,
    /// Print these, as `<hash> <size> <cumulsize> <type> <childs> <mode> <mode-octal> <mtime> <mtime-secs>
    /// <mtime-nsecs>`.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print the CID alone.
    #[arg(long)]
    pub hash: bool,
    /// Print the cumulative size alone.
    #[arg(long)]
    pub size: bool,
    /// Look how much of it is here.
    #[arg(long)]
    pub with_local: bool,
}

/// `files write`.
#[derive(Debug, Clone, Args)]
pub struct FilesWriteArgs {
    /// The file of the tree.
    pub path: String,
    /// The file on this disk whose bytes are written; standard input without, or as `-`.
    #[arg(value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Where in the file to begin.
    #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
    pub offset: Option<u64>,
    /// How much to write at most.
    #[arg(short = 'n', long, value_name = "BYTES", value_parser = bytes)]
    pub count: Option<u64>,
    /// Make the file if there is none.
    #[arg(short = 'e', long)]
    pub create: bool,
    /// Make folders that are missing.
    #[arg(short, long)]
    pub parents: bool,
    /// Remove what is in the file first.
    #[arg(short, long)]
    pub truncate: bool,
    /// New leaves are raw blocks.
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub raw_leaves: Option<bool>,
    /// How a new file is named.
    #[command(flatten)]
    pub naming: NamingArgs,
    /// When it is written.
    #[command(flatten)]
    pub flushing: FlushArgs,
}
