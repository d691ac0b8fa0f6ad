//! Which files may be added in place, and that they have what is said to lie in them.

use crate::rpc::context::Context;
use crate::rpc::error::RpcError;
use cairn_store::Block;
use cairn_store::sink::{BlockSink, Placed, PutError};
use std::fs;
use std::path::PathBuf;

/// Which files may be added in place.
#[derive(Debug, Clone)]
pub struct Places {
    /// Folders that they must lie in; `None` if they may lie anywhere.
    roots: Option<Vec<PathBuf>>,
}

impl Places {
    /// Whoever works on the repository itself may add what it may read; through the RPC only what the operator had
    /// named when the daemon started, or everybody who reaches that could have any file of the daemon's user referred
    /// to.
    pub fn of(context: &Context) -> Result<Self, RpcError> {
        let Some(roots) = context.roots() else {
            return Ok(Self { roots: None });
        };
        // As the files are named; one that is not there has no files.
        let roots: Vec<PathBuf> = roots
            .iter()
            .filter_map(|root| fs::canonicalize(root.path()).ok())
            .collect();
        if roots.is_empty() {
            return Err(RpcError::failed(
                "files are added in place through the daemon only from folders that filestore.roots named when it \
                 started, and it named none that is there; add them there and restart the daemon, or run this \
                 without a daemon",
            ));
        }
        Ok(Self { roots: Some(roots) })
    }

    /// The file that an entry is to be read from, if it may be added in place.
    pub fn admit(&self, name: &str, place: Option<PathBuf>) -> Result<PathBuf, RpcError> {
        let Some(place) = place else {
            return Err(RpcError::failed(format!(
                "{name:?} cannot be added in place: it did not come with the path of a file (Abspath)"
            )));
        };
        let refused = |why: &str| {
            RpcError::failed(format!(
                "{} cannot be added in place: {why}",
                place.display()
            ))
        };
        if !place.is_absolute() {
            return Err(refused("its path is not absolute"));
        }
        let Some(roots) = &self.roots else {
            return Ok(place);
        };
        // One answer for all that is elsewhere, or it would tell what there is.
        let elsewhere = || refused("it lies in no folder that filestore.roots names");
        let found = fs::canonicalize(&place).map_err(|_| elsewhere())?;
        if !roots.iter().any(|root| found.starts_with(root)) {
            return Err(elsewhere());
        }
        match fs::symlink_metadata(&found) {
            Ok(metadata) if metadata.is_file() => Ok(found),
            _ => Err(refused("it is no file")),
        }
    }

    /// Whether what is added came from somebody else than the files.
    pub const fn are_others_word(&self) -> bool {
        self.roots.is_some()
    }
}

/// A sink that takes nobody's word for what lies in a file: it looks.
#[derive(Debug)]
pub struct Compared<S>(pub S);

impl<S: BlockSink> BlockSink for Compared<S> {
    fn put(&mut self, blocks: Vec<Block>) -> Result<(), PutError> {
        self.0.put(blocks)
    }

    fn put_placed(&mut self, placed: Vec<Placed>) -> Result<(), PutError> {
        for one in &placed {
            one.compare().map_err(PutError::NotThere)?;
        }
        self.0.put_placed(placed)
    }
}
