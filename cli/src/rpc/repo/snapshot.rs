//! `repo snapshot`: the repository as it is at one instant, as another folder on this machine.

use crate::repository::Repository;
use crate::rpc::api::Call;
use crate::rpc::error::RpcError;
use crate::rpc::reply::Reply;
use cairn_store::snapshot::Made;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The answer of `repo snapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SnapshotAnswer {
    /// The folder that was made.
    pub path: String,
    /// Files of blocks in it.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of those whose place on the disk is shared until one is written (reflink).
    pub cloned: u64,
    /// Bytes of those that are hard links to the repository's files.
    pub linked: u64,
    /// Bytes that were copied.
    pub copied: u64,
    /// Whether the index came along.
    pub has_index: bool,
    /// Blocks that were added in place: of those it has where they lie, not their content.
    pub in_place: u64,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl SnapshotAnswer {
    /// What was made in `path`.
    pub fn new(path: String, made: Made) -> Self {
        Self {
            path,
            segments: made.segments,
            bytes: made.bytes,
            cloned: made.cloned,
            linked: made.linked,
            copied: made.copied,
            has_index: made.has_index,
            in_place: made.in_place,
            notices: made.notices,
        }
    }
}

/// `repo snapshot`.
pub async fn snapshot(call: Call) -> Result<Reply, RpcError> {
    let path = call.arguments.first("folder")?;
    let folder = PathBuf::from(path);
    if !folder.is_absolute() {
        return Err(RpcError::wrong(format!(
            "{path} is not absolute: give the whole path of the folder, on the machine of the repository"
        )));
    }
    let from = call.context.repository.path().to_owned();
    // What was acknowledged of the file tree is in it, though it waits to be written.
    call.context.flush_files().await?;
    // It may be one that is only read.
    let store = call.context.store().await?;
    let made = store
        .snapshot(folder, move |to| Repository::copy_rest(&from, to))
        .await?;
    Reply::value(&SnapshotAnswer::new(path.to_owned(), made))
}
