//! What a path of the file tree holds.

use super::{Failure, Shell, runtime};
use crate::output::escape_line;
use crate::rpc::files::Stated;
use crate::rpc::ls::{FOLDER, Link, Listing, SYMLINK};
use crate::sync::scan::ENTRIES_MAX;
use crate::sync::state::Known;
use crate::sync::{Kind, walking_order};
use cairn_store::cid::Cid;

/// Which of both sides is to become what the other is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The path.
    Push,
    /// The folder.
    Pull,
}

/// The root of a folder of the file tree; `None` if nothing is there.
pub(super) async fn root_of(shell: &Shell, path: &str, way: Way) -> Result<Option<Cid>, Failure> {
    let question = shell.question("files/stat").arg(path);
    let stat: Stated = match shell.ask(question).await {
        Err(Failure::Runtime(text)) if text.ends_with(NOTHING_THERE) => return Ok(None),
        answer => answer?.value().await?,
    };
    if stat.r#type != "directory" {
        let advice = match way {
            Way::Push => format!("name another path, or remove it (`cairn files rm {path}`)"),
            Way::Pull => format!(
                "name the folder that it is in, or read it alone (`cairn files read {path}`)"
            ),
        };
        return Err(Failure::runtime(format!(
            "{path} in the file tree is not a folder; {advice}"
        )));
    }
    Ok(Some(Cid::try_from(stat.hash.as_str()).map_err(runtime)?))
}

/// Everything below the folder at `path`, in walking order.
pub(super) async fn entries_of(
    shell: &Shell,
    path: &str,
    root: &Cid,
) -> Result<Vec<Known>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), *root)];
    while !open.is_empty() {
        let some = open.split_off(open.len().saturating_sub(FOLDERS_AT_ONCE));
        let question = shell
            .question("ls")
            .args(some.iter().map(|(_, cid)| format!("/ipfs/{cid}")));
        let listing: Listing = shell.ask(question).await?.value().await?;
        if listing.objects.len() != some.len() {
            return Err(Failure::runtime(
                "the answer to `ls` does not fit the question",
            ));
        }
        for ((above, _), object) in some.iter().zip(listing.objects) {
            for link in object.links {
                let known = known(above, &link)?;
                if let (Kind::Folder, Some(cid)) = (known.kind, known.cid) {
                    open.push((known.path.clone(), cid));
                }
                if found.len() >= ENTRIES_MAX {
                    return Err(Failure::runtime(format!(
                        "it holds more than {ENTRIES_MAX} files and folders; sync parts of it"
                    )));
                }
                found.push(known);
            }
        }
    }
    found.sort_by(|one, other| walking_order(&one.path, &other.path));
    let mut pairs = found.iter().zip(found.iter().skip(1));
    if let Some((one, _)) = pairs.find(|(one, next)| one.path == next.path) {
        let name = escape_line(&format!("{path}/{}", one.path)).to_string();
        return Err(Failure::runtime(format!(
            "several things in the file tree are called {name}, as no folder of a disk can have them; remove that \
             (`cairn files rm -r {name}`, which removes one or all of them) or name another path"
        )));
    }
    Ok(found)
}

fn known(above: &str, link: &Link) -> Result<Known, Failure> {
    let name = &link.name;
    if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(Failure::runtime(format!(
            "{name:?} in {above:?} cannot be a name on this disk"
        )));
    }
    let path = match above {
        "" => name.clone(),
        above => format!("{above}/{name}"),
    };
    let kind = match link.r#type {
        FOLDER => Kind::Folder,
        SYMLINK => Kind::Link,
        _ => Kind::File,
    };
    Ok(Known {
        path,
        kind,
        cid: Some(Cid::try_from(link.hash.as_str()).map_err(runtime)?),
        stat: None,
    })
}

/// What `files stat` says, as Kubo does, where nothing is.
const NOTHING_THERE: &str = "file does not exist";
/// Folders that are listed in one request.
const FOLDERS_AT_ONCE: usize = 64;
