//! `ls`: what is in folders.

use super::api::{Call, resolve_to_block};
use super::arguments::CidText;
use super::error::RpcError;
use super::reply::{Reply, Sink};
use cairn_node::Session;
use cairn_store::cid::{self, Cid};
use cairn_store::dag::absent::Absent;
use cairn_store::dag::path::ContentPath;
use cairn_store::dag::{self, Budget};
use cairn_store::source::BlockSource;
use cairn_store::unixfs::read::{self, Node, ReadError};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The answer: what was asked for, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listing {
    /// One for each path.
    pub objects: Vec<Object>,
}

/// One path's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    /// The path as it was given.
    pub hash: String,
    /// What is in it.
    pub links: Vec<Link>,
}

/// An entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its CID.
    pub hash: String,
    /// Bytes of a file's content; 0 for anything else.
    pub size: u64,
    /// 1 folder, 2 file, 4 symbolic link, as UnixFS numbers them; 0 for anything else, and for what is not known.
    pub r#type: u8,
    /// Where a symbolic link points.
    #[serde(default)]
    pub target: String,
    /// Permission bits, if kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// What has no number of UnixFS's, or was not looked at.
pub const UNKNOWN: u8 = 0;
/// UnixFS's number for a folder.
pub const FOLDER: u8 = 1;
/// UnixFS's number for a file.
pub const FILE: u8 = 2;
/// UnixFS's number for a symbolic link.
pub const SYMLINK: u8 = 4;

/// Most entries of one folder, all of which are held until the last was seen.
const ENTRIES_MAX: u64 = 1_000_000;
/// Most entries of one folder with `stream`.
const STREAMED_ENTRIES_MAX: u64 = 100_000_000;

/// An entry before it was looked at.
struct Unresolved {
    name: String,
    cid: Cid,
    tsize: u64,
}

type Unresolveds = Pin<Box<dyn Stream<Item = Result<Unresolved, RpcError>> + Send>>;

/// `ls`.
pub async fn ls(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("ipfs-path").await?;
    let stream = call.arguments.flag(&["stream", "s"])?;
    let resolve_type = call.arguments.choice(&["resolve-type"])?.unwrap_or(true);
    let size = call.arguments.choice(&["size"])?.unwrap_or(true);
    let cids = call.arguments.cids()?;
    let look = if resolve_type || size {
        Look::Inside
    } else {
        Look::AtTheLink
    };
    let limits = Budget {
        entries: if stream {
            STREAMED_ENTRIES_MAX
        } else {
            ENTRIES_MAX
        },
        ..Budget::OPERATOR
    };
    // Who takes no trailers would see the error of a listing that lacks something as a broken connection.
    let goes_on = stream || call.arguments.flag(&["past-missing"])?;
    let session = call.session().await?;
    let mut names: Vec<String> = call
        .arguments
        .all()
        .into_iter()
        .map(str::to_owned)
        .collect();
    names.truncate(paths.len());
    let way = Way {
        cids,
        look,
        limits,
        is_hopeless: Arc::default(),
    };
    Ok(Reply::values(move |out| async move {
        let mut told = Told {
            streams_to: stream.then_some(&out),
            whole: Listing::default(),
            absent: Absent::default(),
        };
        let mut ended = Ok(());
        for (path, name) in paths.iter().zip(names) {
            ended = told.list(&session, path, name, &way).await;
            if ended.is_err() {
                break;
            }
        }
        let Told { whole, absent, .. } = told;
        let ended = match (ended, absent.is_empty()) {
            (Ok(()), true) => Ok(()),
            (Ok(()), false) => Err(RpcError::failed(not_looked_at(&absent))),
            (Err(error), true) => Err(error),
            (Err(error), false) => {
                let both = format!("{}; {}", error.message(), not_looked_at(&absent));
                Err(RpcError::with_status(error.status(), both))
            }
        };
        if !goes_on {
            ended?;
            return out.value(&whole).await;
        }
        if !stream && whole != Listing::default() {
            out.value(&whole).await?;
        }
        ended
    }))
}

/// What is listed so far.
struct Told<'a> {
    /// Where each entry goes at once.
    streams_to: Option<&'a Sink>,
    /// Or where all are collected.
    whole: Listing,
    absent: Absent,
}

impl Told<'_> {
    /// Lists what is at `path`, as far as it is to be had.
    async fn list(
        &mut self,
        session: &Session,
        path: &ContentPath,
        name: String,
        way: &Way,
    ) -> Result<(), RpcError> {
        let root = resolve_to_block(session, path).await?;
        let mut links = std::pin::pin!(links(session, root, way).await?);
        let object = |links| Object {
            hash: name.clone(),
            links,
        };
        if self.streams_to.is_none() {
            self.whole.objects.push(object(Vec::new()));
        }
        while let Some(entry) = links.next().await {
            let (link, seen) = entry?;
            match seen {
                Seen::Came => self.absent.came(),
                Seen::Missing(why) => self.absent.take(format_args!("{name}/{}", link.name), why),
                Seen::NotLookedAt => {}
            }
            if self.absent.is_hopeless() {
                way.is_hopeless.store(true, Ordering::Relaxed);
            }
            match (self.streams_to, self.whole.objects.last_mut()) {
                (Some(out), _) => {
                    let objects = vec![object(vec![link])];
                    out.value(&Listing { objects }).await?;
                }
                (None, Some(object)) => object.links.push(link),
                (None, None) => {}
            }
        }
        Ok(())
    }
}

/// What is said of entries whose type and size are not known.
fn not_looked_at(absent: &Absent) -> String {
    let what = match absent.count() {
        1 => "the type and size of 1 entry are unknown, its block could not be had".to_owned(),
        count => format!(
            "the types and sizes of {count} entries are unknown, their blocks could not be had"
        ),
    };
    format!("{what}: {absent}; --resolve-type=false --size=false asks for none of them")
}

/// Whether an entry's block was read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    NotLookedAt,
    Came,
    /// It could not be had, and why.
    Missing(String),
}

/// How entries are listed.
struct Way {
    cids: CidText,
    look: Look,
    limits: Budget,
    /// Whether so many were missing that no further one is waited for.
    is_hopeless: Arc<AtomicBool>,
}

/// How far entries are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Their links only.
    AtTheLink,
    /// Their roots are read, for type and size.
    Inside,
}

async fn links(
    session: &Session,
    root: Cid,
    way: &Way,
) -> Result<impl Stream<Item = Result<(Link, Seen), RpcError>> + Send + use<>, RpcError> {
    let entries: Unresolveds = match read::open(session, &root).await {
        Ok(Node::Directory(folder)) => {
            let entries = folder.entries(session.clone(), way.limits);
            Box::pin(entries.map(|entry| {
                let entry = entry?;
                Ok(Unresolved {
                    name: entry.name,
                    cid: entry.cid,
                    tsize: entry.tsize,
                })
            }))
        }
        Ok(Node::Symlink(_)) => Box::pin(futures::stream::empty()),
        // A file's links are its parts, without names; other codecs have links too.
        Ok(Node::File(_)) | Err(ReadError::NotUnixfs { .. }) => {
            let block = session.block(&root).await?;
            let block = block.ok_or_else(|| RpcError::from(ReadError::NotFound(root)))?;
            let links = dag::links(&block)?.into_iter().map(|link| {
                Ok(Unresolved {
                    name: link.name,
                    cid: link.cid,
                    tsize: link.tsize.unwrap_or(0),
                })
            });
            Box::pin(futures::stream::iter(links.collect::<Vec<_>>()))
        }
        Err(error) => return Err(error.into()),
    };
    let session = session.clone();
    let (cids, look) = (way.cids, way.look);
    let is_hopeless = Arc::clone(&way.is_hopeless);
    Ok(entries
        .map(move |entry| {
            let session = session.clone();
            let look = match is_hopeless.load(Ordering::Relaxed) {
                true => Look::AtTheLink,
                false => look,
            };
            async move { look_at(&session, entry?, cids, look).await }
        })
        .buffered(READ_AHEAD))
}

async fn look_at(
    session: &Session,
    entry: Unresolved,
    cids: CidText,
    look: Look,
) -> Result<(Link, Seen), RpcError> {
    let mut link = Link {
        name: entry.name,
        hash: cids.text(&entry.cid),
        ..Link::default()
    };
    if entry.cid.codec() == cid::RAW {
        // A raw block's size is the link's, so it need not be read.
        link.r#type = FILE;
        link.size = entry.tsize;
        return Ok((link, Seen::NotLookedAt));
    }
    if look == Look::AtTheLink {
        return Ok((link, Seen::NotLookedAt));
    }
    match read::open(session, &entry.cid).await {
        Ok(Node::File(file)) => {
            link.r#type = FILE;
            link.size = file.size();
            link.mode = file.mode().map(|mode| format!("{mode:04o}"));
        }
        Ok(Node::Directory(folder)) => {
            link.r#type = FOLDER;
            link.mode = folder.mode().map(|mode| format!("{mode:04o}"));
        }
        Ok(Node::Symlink(symlink)) => {
            link.r#type = SYMLINK;
            link.target = symlink.target;
        }
        Err(ReadError::NotUnixfs { .. }) => link.size = entry.tsize,
        Err(error) if error.is_absence() => {
            return Ok((link, Seen::Missing(error.to_string())));
        }
        Err(error) => return Err(error.into()),
    }
    Ok((link, Seen::Came))
}

/// How many entries are looked at ahead of the one that goes out.
const READ_AHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_have_kubos_shape() {
        let listing = Listing {
            objects: vec![Object {
                hash: "bafy".to_owned(),
                links: vec![Link {
                    name: "a".to_owned(),
                    hash: "bafk".to_owned(),
                    size: 5,
                    r#type: FILE,
                    ..Link::default()
                }],
            }],
        };
        assert_eq!(
            serde_json::to_string(&listing).unwrap(),
            r#"{"Objects":[{"Hash":"bafy","Links":[{"Name":"a","Hash":"bafk","Size":5,"Type":2,"Target":""}]}]}"#
        );
    }
}
