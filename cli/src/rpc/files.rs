//! `files`: the tree that people change by path, which Kubo calls MFS. Here is what is read of it.

pub mod change;
pub mod write;

use super::api::{Call, resolve_to_block};
use super::error::RpcError;
use super::follow;
use super::reply::Reply;
use cairn_node::Session;
use cairn_node::name::follow::Depth;
use cairn_node::name::path::NamePath;
use cairn_store::dag::Budget;
use cairn_store::dag::walk::{Missing, Options, Visit, walk};
use cairn_store::files::{FilesError, FilesPath, Flush, Stat, View, What};
use cairn_store::source::BlockSource;
use cairn_store::unixfs::read::{self, Node};
use cairn_store::{Cid, Store};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::pin::pin;

/// The answer of `files ls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listing {
    /// What is there; none is `null`, as Kubo has it.
    pub entries: Option<Vec<ListedEntry>>,
}

/// An entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedEntry {
    /// Its name.
    pub name: String,
    /// 0 file, 1 folder; 0 without `long`.
    pub r#type: u8,
    /// Bytes of a file; 0 without `long`.
    pub size: u64,
    /// Its CID; empty without `long`.
    pub hash: String,
}

/// The answer of `files stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Stated {
    /// The CID.
    pub hash: String,
    /// Bytes of a file; 0 for a folder.
    pub size: u64,
    /// Cumulative size of the DAG.
    pub cumulative_size: u64,
    /// Links of the root.
    pub blocks: usize,
    /// `file` or `directory`.
    pub r#type: String,
    /// Whether it was looked at how much is here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_locality: bool,
    /// Whether all of it is here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// Bytes of blocks that are here.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_local: u64,
    /// Seconds since 1970 of the last change, if kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// Nanoseconds of it.
    #[serde(skip_serializing_if = "is_zero_nanoseconds")]
    pub mtime_nsecs: u32,
    /// Permission bits in octal, if kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero_nanoseconds(number: &u32) -> bool {
    *number == 0
}

/// `file` in the entries of `files ls`.
pub const FILE: u8 = 0;
/// `directory` there.
pub const FOLDER: u8 = 1;
/// What Go's `os.FileMode` has for symbolic links, with all permissions: Kubo's answer for those without a mode.
const SYMLINK_MODE: u32 = 1 << 27 | 0o777;

/// A path in the tree, or one of content.
#[derive(Debug)]
pub enum Named {
    /// In the tree.
    Tree(FilesPath),
    /// Content.
    Content(Cid),
}

/// Whether the answer names CIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cids {
    Told,
    Untold,
}

impl Call {
    /// Whether a change is written before the answer.
    fn flush(&self) -> Result<Flush, RpcError> {
        Ok(match self.arguments.choice(&["flush", "f"])? {
            Some(false) => Flush::Later,
            Some(true) | None => Flush::Now,
        })
    }

    /// Where changes of the tree read what is there: here. What is denied can be moved and removed as well.
    async fn tree_source(&self) -> Result<Store, RpcError> {
        Ok(self.context.writable_store().await?.clone())
    }

    /// What an argument names: content if it says so, as Kubo has it.
    async fn named(&self, session: &Session, text: &str) -> Result<Named, RpcError> {
        let is_content = ["/ipfs/", "/ipns/", "ipfs://", "ipns://"]
            .iter()
            .any(|start| text.starts_with(start));
        if !is_content {
            return Ok(Named::Tree(FilesPath::parse(text)?));
        }
        let path: NamePath = text.parse().map_err(|error| follow::wrong(&error))?;
        let content = match path.content() {
            Some(path) => path,
            None => {
                let followed = self.follow(path, Depth::default()).await?;
                follow::content(followed.path)?
            }
        };
        Ok(Named::Content(resolve_to_block(session, &content).await?))
    }

    /// Opens what an argument names.
    async fn open_named(
        &self,
        session: &Session,
        text: &str,
        cids: Cids,
    ) -> Result<(Node, View<Session>), RpcError> {
        let files = self.context.files().await?;
        match self.named(session, text).await? {
            Named::Tree(path) => {
                let opened = match cids {
                    // Who is told of them may ask for them.
                    Cids::Told => files.open_put(session, &path).await?,
                    Cids::Untold => files.open(session, &path).await?,
                };
                Ok((opened.node, opened.view))
            }
            Named::Content(cid) => {
                let node = read::open(session, &cid).await?;
                Ok((node, View::over(session.clone())))
            }
        }
    }
}

/// `files ls`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let all = call.arguments.all();
    let text = all.first().copied().unwrap_or("/").to_owned();
    let long = call.arguments.flag(&["long", "l"])?;
    let stream = call.arguments.flag(&["stream"])?;
    let cids = call.arguments.cids()?;
    let session = call.session().await?;
    let told = if long { Cids::Told } else { Cids::Untold };
    let (node, view) = call.open_named(&session, &text, told).await?;
    let name = text.trim_end_matches('/').rsplit('/').next();
    let name = name.unwrap_or_default().to_owned();
    Ok(Reply::values(move |out| async move {
        let entry = |name: String, stat: Option<Stat>| match stat {
            None => ListedEntry {
                name,
                ..ListedEntry::default()
            },
            Some(stat) => ListedEntry {
                name,
                r#type: match stat.what {
                    What::Folder => FOLDER,
                    What::File | What::Symlink => FILE,
                },
                size: stat.size,
                hash: cids.text(&stat.cid),
            },
        };
        let folder = match node {
            Node::Directory(folder) => folder,
            node => {
                let only = entry(name, long.then(|| Stat::of(&node)));
                return match stream {
                    true => out.value(&only).await,
                    false => {
                        let entries = Some(vec![only]);
                        out.value(&Listing { entries }).await
                    }
                };
            }
        };
        let budget = Budget {
            entries: if stream {
                STREAMED_ENTRIES_MAX
            } else {
                ENTRIES_MAX
            },
            ..Budget::OPERATOR
        };
        let looked = view.clone();
        let entries = folder.entries(view, budget).map(|found| {
            let view = looked.clone();
            async move {
                let found = found?;
                let stat = match long {
                    true => Some(Stat::of(&read::open(&view, &found.cid).await?)),
                    false => None,
                };
                Ok::<_, RpcError>((found.name, stat))
            }
        });
        let mut entries = pin!(entries.buffered(LOOKED_AT_ONCE));
        let mut all = Vec::new();
        while let Some((name, stat)) = entries.try_next().await? {
            let entry = entry(name, stat);
            match stream {
                true => out.value(&entry).await?,
                false => all.push(entry),
            }
        }
        if !stream {
            let entries = (!all.is_empty()).then_some(all);
            out.value(&Listing { entries }).await?;
        }
        Ok(())
    }))
}

/// `files stat`.
pub async fn stat(call: Call) -> Result<Reply, RpcError> {
    let text = call.arguments.first("path")?.to_owned();
    let given = [
        call.arguments.flag(&["hash"])?,
        call.arguments.flag(&["size"])?,
        call.arguments.text(&["format"]).is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(RpcError::wrong(
            "invalid parameters: format was set by multiple options. Only one format option is allowed",
        ));
    }
    let with_local = call.arguments.flag(&["with-local"])?;
    let cids = call.arguments.cids()?;
    let session = call.session().await?;
    let (node, view) = call.open_named(&session, &text, Cids::Told).await?;
    let stat = Stat::of(&node);
    let mut answer = Stated {
        hash: cids.text(&stat.cid),
        size: stat.size,
        cumulative_size: stat.tsize,
        blocks: stat.links,
        r#type: match stat.what {
            What::Folder => "directory",
            What::File | What::Symlink => "file",
        }
        .to_owned(),
        mode: match (stat.mode, stat.what) {
            (Some(mode), _) if mode != 0 => format!("{mode:04o}"),
            (_, What::Symlink) => format!("{SYMLINK_MODE:04o}"),
            _ => String::new(),
        },
        mtime: stat.mtime.map(|mtime| mtime.seconds),
        mtime_nsecs: stat.mtime.map_or(0, |mtime| mtime.nanoseconds),
        ..Stated::default()
    };
    if with_local {
        let store = call.context.store().await?.clone();
        let (local, bytes) = here(view.with_source(store), stat.cid).await?;
        answer.with_locality = true;
        answer.local = local;
        answer.size_local = bytes;
    }
    Reply::value(&answer)
}

/// Whether all of a DAG is here, and how many bytes of it are.
async fn here<S: BlockSource + Clone + 'static>(
    source: S,
    root: Cid,
) -> Result<(bool, u64), RpcError> {
    let options = Options {
        missing: Missing::Tell,
        ..Options::default()
    };
    let mut visits = pin!(walk(source, root, options));
    let (mut is_whole, mut bytes) = (true, 0);
    while let Some(visit) = visits.try_next().await? {
        match visit {
            Visit::Block { block, .. } => bytes += block.data().len() as u64,
            Visit::Missing { .. } => is_whole = false,
        }
    }
    Ok((is_whole, bytes))
}

/// `files read`.
pub async fn read(call: Call) -> Result<Reply, RpcError> {
    let path = FilesPath::parse(call.arguments.first("path")?)?;
    let offset: i64 = number(&call, &["offset", "o"])?.unwrap_or(0);
    let offset =
        u64::try_from(offset).map_err(|_| RpcError::failed("cannot specify negative offset"))?;
    let count: Option<i64> = number(&call, &["count", "n"])?;
    let count = count.map(u64::try_from).transpose();
    let count = count.map_err(|_| RpcError::failed("cannot specify negative 'count'"))?;
    let session = call.session().await?;
    let files = call.context.files().await?;
    let opened = files.open(&session, &path).await;
    let opened = opened.map_err(|error| match error {
        FilesError::NotFound => RpcError::failed(format!("{path}: {error}")),
        error => error.into(),
    })?;
    let Node::File(file) = opened.node else {
        return Err(RpcError::failed(format!("{path} was not a file")));
    };
    if offset > file.size() {
        return Err(RpcError::failed(format!(
            "offset was past end of file ({offset} > {})",
            file.size()
        )));
    }
    let end = offset.saturating_add(count.unwrap_or(u64::MAX));
    let end = end.min(file.size());
    let view = opened.view;
    Ok(Reply::bytes(
        "text/plain",
        Some(end - offset),
        move |out| async move {
            let mut bytes = pin!(file.read(view, offset..end));
            while let Some(piece) = bytes.next().await {
                out.bytes(piece?).await?;
            }
            Ok(())
        },
    ))
}

fn number(call: &Call, names: &[&str]) -> Result<Option<i64>, RpcError> {
    call.arguments.parsed(names, "a number of bytes")
}

impl From<FilesError> for RpcError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Read(error) => error.into(),
            FilesError::Fetch(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

/// Entries that are looked at at once.
const LOOKED_AT_ONCE: usize = 32;
/// Most entries of one folder, all of which are held until the last was seen.
const ENTRIES_MAX: u64 = 1_000_000;
/// Most entries of one folder with `stream`.
const STREAMED_ENTRIES_MAX: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kubos_shape() {
        let json = |value: &Listing| serde_json::to_string(value).unwrap();
        assert_eq!(json(&Listing::default()), r#"{"Entries":null}"#);
        let entries = Some(vec![ListedEntry {
            name: "a".to_owned(),
            r#type: FOLDER,
            size: 0,
            hash: "bafy".to_owned(),
        }]);
        assert_eq!(
            json(&Listing { entries }),
            r#"{"Entries":[{"Name":"a","Type":1,"Size":0,"Hash":"bafy"}]}"#
        );
        let plain = Stated {
            hash: "bafy".to_owned(),
            size: 1,
            cumulative_size: 2,
            blocks: 3,
            r#type: "file".to_owned(),
            ..Stated::default()
        };
        assert_eq!(
            serde_json::to_string(&plain).unwrap(),
            r#"{"Hash":"bafy","Size":1,"CumulativeSize":2,"Blocks":3,"Type":"file"}"#
        );
        let all = Stated {
            with_locality: true,
            local: true,
            size_local: 2,
            mtime: Some(5),
            mtime_nsecs: 6,
            mode: "0644".to_owned(),
            ..plain
        };
        let json = serde_json::to_string(&all).unwrap();
        assert!(json.ends_with(
            r#""WithLocality":true,"Local":true,"SizeLocal":2,"Mtime":5,"MtimeNsecs":6,"Mode":"0644"}"#
        ));
    }
}
