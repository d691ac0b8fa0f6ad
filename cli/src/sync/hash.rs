//! The CIDs that files of this disk would have, without keeping anything.

use super::Kind;
use crate::rpc::entries::{Content, Entries, LocalEntries, LocalUpload};
use crate::rpc::error::RpcError;
use cairn_store::cid::Cid;
use cairn_store::sink::Nowhere;
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::import::{Event, ImportError, Importer};
use std::collections::HashMap;

/// The CID of each file and link of `upload`, by the name under which it goes in; folders are none of them.
pub fn cids(
    upload: LocalUpload,
    profile: &Profile,
) -> Result<HashMap<String, (Kind, Cid)>, RpcError> {
    let mut found = HashMap::new();
    let mut names: Vec<(String, Kind)> = Vec::new();
    let mut importer = Importer::new(profile.clone(), Nowhere, |event| {
        if let Event::Added(added) = event {
            found.insert(added.path, added.cid);
        }
    });
    let mut entries = LocalEntries::new(upload);
    while let Some(entry) = entries.next()? {
        // Names may be equal to the importer, numbers are not.
        let number = names.len().to_string();
        let kind = match entry.content {
            Content::Folder => continue,
            Content::Link(target) => {
                importer.symlink(&number, &target, entry.metadata)?;
                Kind::Link
            }
            Content::File(mut content) => {
                let taken = importer.file(&number, &mut content, entry.metadata);
                taken.map_err(|error| match error {
                    // The importer knows it by its number.
                    ImportError::Read { source, .. } => {
                        RpcError::failed(format!("cannot read {}: {source}", entry.path))
                    }
                    other => other.into(),
                })?;
                Kind::File
            }
        };
        names.push((entry.path, kind));
    }
    importer.finish()?;
    let named = names.into_iter().enumerate();
    let named = named.filter_map(|(at, (name, kind))| {
        let cid = found.remove(&at.to_string())?;
        Some((name, (kind, cid)))
    });
    Ok(named.collect())
}
