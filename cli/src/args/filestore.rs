//! Blocks that lie in the user's files.

use clap::Subcommand;

/// Below `filestore`.
#[derive(Debug, Clone, Subcommand)]
pub enum FilestoreCommand {
    /// List them: CID, bytes, file and offset.
    Ls {
        /// Which; all without any.
        cids: Vec<String>,
        /// In the order of files and offsets.
        #[arg(long)]
        file_order: bool,
    },
    /// Read them and compare them with their CIDs. Fails if one is not as it was added and is not forgotten.
    Verify {
        /// Which; all without any.
        cids: Vec<String>,
        /// In the order of files and offsets.
        #[arg(long)]
        file_order: bool,
        /// Forget those that cannot be read from their files any more; pins that reach them are not whole then.
        #[arg(long)]
        remove_bad_blocks: bool,
    },
    /// List those that are here as blocks too: none, since a block takes the place of a reference.
    Dups,
}
