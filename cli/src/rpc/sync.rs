//! `sync/apply`: what changed in a folder takes its place in the file tree, all of it at once.
//!
//! The body begins with a [`Plan`]; what is to be put follows, each entry under its place in the plan, as a number. It is added
//! like by `add`; then one commit of the tree puts and removes everything. Who asks says which root the change is
//! for: if it is another one by then, nothing is done.

use super::add::profile;
use super::api::Call;
use super::entries::{Content, Entries, Entry};
use super::error::RpcError;
use super::feed::Feed;
use super::reply::{Reply, Sink};
use crate::sync::Kind;
use cairn_store::cid::Cid;
use cairn_store::files::{Change, FilesError, FilesPath};
use cairn_store::sink::BlockSink;
use cairn_store::store::Keep;
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::import::{self, Added, Event, Importer, overlapped};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::io::Read;
use tokio::runtime::Handle;

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Plan {
    /// Paths that get what follows, whatever is there.
    #[serde(deserialize_with = "bounded")]
    pub put: Vec<String>,
    /// Paths that go, with what is below them.
    #[serde(deserialize_with = "bounded")]
    pub remove: Vec<String>,
}

impl Plan {
    /// Whether it is one that is taken.
    pub fn check(&self) -> Result<(), String> {
        let paths = self.put.len().max(self.remove.len());
        match paths > PLAN_PATHS_MAX {
            true => Err(too_many()),
            false => Ok(()),
        }
    }
}

/// No more paths than a plan may have.
fn bounded<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    struct Paths;
    impl<'de> Visitor<'de> for Paths {
        type Value = Vec<String>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a list of paths")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Self::Value, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = input.next_element()? {
                if paths.len() >= PLAN_PATHS_MAX {
                    return Err(de::Error::custom(too_many()));
                }
                paths.push(path);
            }
            Ok(paths)
        }
    }
    input.deserialize_seq(Paths)
}

fn too_many() -> String {
    format!(
        "more than {PLAN_PATHS_MAX} changes of either kind are not made at once; sync parts of the folder, or remove \
         the path in the file tree first (`cairn files rm -r`), so that the folder is one change"
    )
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SyncLine {
    /// Something was added. That it has its place is only certain with the last line.
    #[serde(rename_all = "PascalCase")]
    Added {
        /// From the top.
        path: String,
        /// Its CID.
        hash: String,
        /// What it is.
        kind: Kind,
    },
    /// The last line.
    #[serde(rename_all = "PascalCase")]
    Root {
        /// The new root of the path.
        root: String,
    },
}

/// `sync/apply`.
pub async fn apply(call: Call) -> Result<Reply, RpcError> {
    let path = FilesPath::parse(call.arguments.first("path")?)?;
    let expected = call
        .arguments
        .text(&["expect"])
        .filter(|text| !text.is_empty());
    let expected = expected.map(Cid::try_from).transpose();
    let expected = expected.map_err(|error| RpcError::wrong(format!("expect: {error}")))?;
    let profile = profile(&call.arguments)?;
    let store = call.context.writable_store().await?.clone();
    let files = call.context.files().await?.clone();
    Ok(Reply::values(move |out| async move {
        let runtime = Handle::current();
        let work = move |entries: &mut dyn Entries| {
            let plan = read_plan(entries)?;
            // Before anything is added for it.
            let paths = Paths::of(&path, &plan)?;
            let found = match runtime.block_on(files.stat(&store, &path)) {
                Ok(stat) => Some(stat.cid),
                Err(FilesError::NotFound) => None,
                Err(error) => return Err(error.into()),
            };
            if found != expected {
                let path = path.to_string();
                return Err(FilesError::Changed { path }.into());
            }
            let mut writer = store.writer(Keep::Kept);
            let (added, put) = overlapped(&mut writer, |sink| {
                import(entries, &plan, &profile, sink, &out)
            });
            let added = added?;
            put?;
            let changes = paths.changes(&added)?;
            writer.commit()?;
            // What was added is held until the tree has it.
            let root = runtime.block_on(files.apply_at(&store, &path, expected, changes))?;
            drop(writer);
            let root =
                root.ok_or_else(|| RpcError::failed(format!("nothing is left at {path}")))?;
            out.blocking_value(&SyncLine::Root {
                root: root.to_string(),
            })
        };
        call.upload.on_thread(work).await
    }))
}

fn read_plan(entries: &mut dyn Entries) -> Result<Plan, RpcError> {
    let first = entries.next()?;
    let Some(Entry {
        path,
        content: Content::File(content),
        ..
    }) = first
    else {
        return Err(no_plan("is missing"));
    };
    if path != PLAN {
        return Err(no_plan("is missing"));
    }
    let mut text = Vec::new();
    let mut content = content.take(PLAN_BYTES_MAX + 1);
    content
        .read_to_end(&mut text)
        .map_err(|error| no_plan(&format!("cannot be read: {error}")))?;
    if text.len() as u64 > PLAN_BYTES_MAX {
        return Err(no_plan(&format!("is longer than {PLAN_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&text)
        .map_err(|error| no_plan(&format!("cannot be understood: {error}")))
}

fn no_plan(why: &str) -> RpcError {
    RpcError::wrong(format!("the plan, which the body begins with, {why}"))
}

/// Adds what follows; gives what is to be put, in the order of the plan, as far as it came.
fn import<S: BlockSink>(
    entries: &mut dyn Entries,
    plan: &Plan,
    profile: &Profile,
    sink: S,
    out: &Sink,
) -> Result<Vec<Added>, RpcError> {
    let importer = Importer::new(profile.clone(), sink, |event| {
        let Event::Added(added) = event else { return };
        let kind = match added.kind {
            import::Kind::File => Kind::File,
            import::Kind::Directory => Kind::Folder,
            import::Kind::Symlink => Kind::Link,
        };
        let Some(path) = shown(plan, &added.path) else {
            return;
        };
        let hash = added.cid.to_string();
        // A reader that left is noticed where the next entry is taken.
        let _ = out.blocking_value(&SyncLine::Added { path, hash, kind });
    });
    let mut feed = Feed::new(importer);
    while let Some(entry) = entries.next()? {
        let top = entry.path.split('/').next().unwrap_or_default();
        if place(plan, top).is_none() {
            return Err(RpcError::wrong(format!(
                "{:?} has no place in the plan",
                entry.path
            )));
        }
        let path = entry.path.clone();
        feed.take(
            &path,
            entry.metadata,
            None,
            entry.content,
            &mut str::to_owned,
        )?;
        if out.is_abandoned() {
            return Err(RpcError::reader_gone());
        }
    }
    feed.finish()
}

/// The path that `number` stands for.
fn place<'a>(plan: &'a Plan, number: &str) -> Option<&'a str> {
    let at: usize = number.parse().ok()?;
    plan.put.get(at).map(String::as_str)
}

/// From the path of an entry to the path below the folder.
fn shown(plan: &Plan, path: &str) -> Option<String> {
    let (number, below) = path
        .split_once('/')
        .map_or((path, None), |(top, below)| (top, Some(below)));
    let top = place(plan, number)?;
    Some(match below {
        None => top.to_owned(),
        Some(below) => format!("{top}/{below}"),
    })
}

/// The paths of a plan, in the tree.
struct Paths {
    top: FilesPath,
    put: Vec<FilesPath>,
    remove: Vec<FilesPath>,
}

impl Paths {
    fn of(path: &FilesPath, plan: &Plan) -> Result<Self, RpcError> {
        let inside = |below: &String| {
            let mut names = below.split('/');
            names.try_fold(path.clone(), |path, name| path.join(name))
        };
        let all = |paths: &[String]| paths.iter().map(inside).collect::<Result<_, _>>();
        Ok(Self {
            top: path.clone(),
            put: all(&plan.put)?,
            remove: all(&plan.remove)?,
        })
    }

    /// What the tree is asked to do. What went away before it came is not put.
    fn changes(self, added: &[Added]) -> Result<Vec<Change>, RpcError> {
        let remove = self.remove.into_iter();
        // A folder is one also when nothing is in it.
        let mut changes = vec![Change::MakeFolder { path: self.top }];
        changes.extend(remove.map(|path| Change::Remove { path }));
        for added in added {
            let at: Option<usize> = added.path.parse().ok();
            let path = at.and_then(|at| self.put.get(at));
            let path =
                path.ok_or_else(|| RpcError::failed("what was added has no place in the plan"))?;
            changes.push(Change::Put {
                path: path.clone(),
                cid: added.cid,
                tsize: added.size,
            });
        }
        Ok(changes)
    }
}

/// The name of the plan in the body.
pub const PLAN: &str = "plan";
/// Longest plan.
const PLAN_BYTES_MAX: u64 = 256 << 20;
/// Most paths of a plan that are put, and most that are removed: all are in memory, some 100 bytes each.
const PLAN_PATHS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_a_bound() {
        let plan = |count: usize| {
            let paths = vec!["a".to_owned(); count];
            let plan = Plan {
                remove: paths,
                ..Plan::default()
            };
            let read = serde_json::from_slice::<Plan>(&serde_json::to_vec(&plan).unwrap());
            (plan.check(), read.map_err(|error| error.to_string()))
        };
        let (checked, read) = plan(PLAN_PATHS_MAX);
        assert!(checked.is_ok() && read.is_ok());
        let (checked, read) = plan(PLAN_PATHS_MAX + 1);
        assert!(checked.unwrap_err().contains("sync parts of the folder"));
        assert!(read.unwrap_err().contains("sync parts of the folder"));
    }
}
