//! What can be wrong with a change of the file tree. Where Kubo's clients look at the words, they are Kubo's.

use crate::block::BlockError;
use crate::cid::HashKind;
use crate::pin::PinError;
use crate::sink::PutError;
use crate::unixfs::directory::DirectoryError;
use crate::unixfs::read::ReadError;
use std::sync::Arc;

/// Why something was not done to the file tree, or not read from it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Nothing has this path.
    #[error("file does not exist")]
    NotFound,
    /// Something has this path already.
    #[error("file already exists")]
    Exists,
    /// Something has this path already, and nobody said that it may go.
    #[error("directory already has entry by that name")]
    Taken,
    /// What should be a folder is none.
    #[error("{path} is not a directory")]
    NotFolder {
        /// Which one.
        path: String,
    },
    /// What should be a file is none.
    #[error("{path} was not a file")]
    NotFile {
        /// Which one.
        path: String,
    },
    /// A folder is only removed with all that is in it.
    #[error("path is a directory, use -r to remove directories")]
    IsFolder,
    /// It is not what the change was made for.
    #[error(
        "{path} was changed by somebody else meanwhile, and nothing was done; look at it again"
    )]
    Changed {
        /// Which one.
        path: String,
    },
    /// The root stays.
    #[error("cannot delete root")]
    Root,
    /// A folder cannot be in itself.
    #[error("cannot move {from} into itself: {to} lies below it")]
    IntoItself {
        /// The folder.
        from: String,
        /// Where it was to go.
        to: String,
    },
    /// This is no path, or one that cannot be had.
    #[error("{0}")]
    Path(String),
    /// The content is not of a kind that a file tree can have.
    #[error("source must be a valid UnixFS (dag-pb or raw codec): {0}")]
    NotUnixfs(String),
    /// A file with more parts than one that is changed may have.
    #[error(
        "a file that is written to has at most {LEAVES_MAX} chunks; add it whole instead, with larger chunks",
        LEAVES_MAX = super::draft::LEAVES_MAX
    )]
    TooLarge,
    /// A hash that is none of files.
    #[error(
        "a file that is written to cannot be named by {0}, which does not take content of any length; choose \
         another hash"
    )]
    Hash(HashKind),
    /// It cannot be done to a symbolic link.
    #[error("{path} is a symbolic link, which has no {what} of its own")]
    Symlink {
        /// Which one.
        path: String,
        /// What was to be changed.
        what: &'static str,
    },
    /// What was to be written could not be read.
    #[error("what is to be written cannot be read: {0}")]
    Input(Arc<str>),
    /// A block could not be had, or is not what its place says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was to be copied could not be fetched whole.
    #[error(transparent)]
    Fetch(#[from] PinError),
    /// The repository did not take it.
    #[error(transparent)]
    Put(#[from] PutError),
    /// What waited to be flushed is lost.
    #[error("{why}; {operations} changes that were not flushed are lost with it")]
    Lost {
        /// What took it: the repository, or somebody else's tree.
        why: Arc<str>,
        /// How many changes.
        operations: usize,
    },
    /// What was written to a file and waits to be flushed could not be put into the tree just now. It goes on waiting.
    #[error(
        "what was written to {path}, and is not flushed yet, cannot be put into the file tree: {why}"
    )]
    Unsettled {
        /// The file.
        path: String,
        /// What was wrong.
        why: Box<FilesError>,
    },
    /// A folder could not be written.
    #[error(transparent)]
    Folder(#[from] DirectoryError),
    /// A block could not be made.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// What the journal has as the root is none.
    #[error(transparent)]
    Journal(#[from] super::UnknownRoot),
}

impl FilesError {
    /// Whether the same may succeed later: what is missing comes, or the disk has room again.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Fetch(_)
                | Self::Put(_)
                | Self::Read(ReadError::NotFound(_) | ReadError::Source(_))
                | Self::Folder(DirectoryError::Put(_))
        )
    }
}
