//! `sync`.

use clap::Args;
use std::path::PathBuf;

/// `sync`.
#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    /// A folder on this disk.
    pub folder: PathBuf,
    /// A path in the file tree (`cairn files`) [default: / and the folder's name].
    pub path: Option<String>,
    /// The other way: make the folder what the path is.
    #[arg(long)]
    pub pull: bool,
    /// Read every file, whatever its size, times and inode say.
    #[arg(short, long)]
    pub checksum: bool,
    /// Go on: sync again whenever something changes, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Publish the root under a key, whenever its name says another one [default key: self].
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "self")]
    pub publish: Option<String>,
    /// With --pull: overwrite and remove what was changed here since the last sync, or never was synced. Without: empty
    /// the path if the folder is empty.
    #[arg(long)]
    pub force: bool,
    /// Only tell what would be done.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print only the last line.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print only the root's CID.
    #[arg(short = 'Q', long)]
    pub quieter: bool,
    /// How files are cut: size-N, rabin-MIN-AVERAGE-MAX or buzhash.
    #[arg(short = 's', long, value_name = "CHUNKER")]
    pub chunker: Option<String>,
    /// Keep permission bits of files and links, and of folders that are new.
    #[arg(long)]
    pub preserve_mode: bool,
    /// Keep their times of change.
    #[arg(long)]
    pub preserve_mtime: bool,
}
