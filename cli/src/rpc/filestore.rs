//! `filestore`: blocks that lie in files of the user's, and which files may be added in place.

use super::api::Call;
use super::arguments::CidText;
use super::context::{Context, broke};
use super::dag::LinkText;
use super::error::RpcError;
use super::reply::Reply;
use super::reply::Sink;
use cairn_store::Store;
use cairn_store::cid::{self, Cid};
use cairn_store::filestore::InPlace;
use cairn_store::reference::{Lost, Why};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A line of `filestore ls` and `filestore verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Referenced {
    /// A [`Status`].
    pub status: i32,
    /// What is wrong.
    pub error_msg: String,
    /// The block.
    pub key: Option<LinkText>,
    /// The file it lies in.
    pub file_path: String,
    /// Its first byte there.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

/// A line of `filestore dups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Dup {
    /// The block.
    pub r#ref: String,
    /// What went wrong.
    pub err: String,
}

/// How a block that lies in a file stands; the numbers and names are Kubo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is there.
    Ok = 0,
    /// The file cannot be read.
    FileError = 10,
    /// There is no such file.
    NoFile = 11,
    /// The file has changed.
    Changed = 12,
    /// Something else is wrong.
    Other = 20,
    /// It does not lie in a file.
    Missing = 30,
}

impl Status {
    const fn of(lost: &Lost) -> Self {
        match lost.why {
            Why::Gone => Self::NoFile,
            Why::TooShort { .. } | Why::Changed => Self::Changed,
            _ => Self::FileError,
        }
    }

    /// The name of a number.
    pub const fn name(number: i32) -> &'static str {
        match number {
            0 => "ok",
            10 => "error",
            11 => "no-file",
            12 => "changed",
            20 => "ERROR",
            30 => "missing",
            _ => "???",
        }
    }
}

/// Which files may be added in place.
#[derive(Debug, Clone)]
pub struct Places {
    /// Folders that they must lie in; `None` if they may lie anywhere.
    roots: Option<Vec<PathBuf>>,
}

impl Places {
    /// Whoever works on the repository itself may add what it may read; through the RPC only what the operator has
    /// named, or everybody who reaches that could have any file of the daemon's user referred to.
    pub fn of(context: &Context) -> Result<Self, RpcError> {
        if context.stop().is_none() {
            return Ok(Self { roots: None });
        }
        let config = context.repository.config()?;
        let roots = config.filestore.roots.iter();
        // As the files are named; one that is not there has no files.
        let roots: Vec<PathBuf> = roots
            .filter_map(|root| fs::canonicalize(root.path()).ok())
            .collect();
        if roots.is_empty() {
            return Err(RpcError::failed(
                "files are added in place through the daemon only from folders that filestore.roots names, and it \
                 names none that is there; add them there and restart the daemon, or run this without a daemon",
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
}

/// `filestore ls`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    each(call, Look::Listed).await
}

/// `filestore verify`.
pub async fn verify(call: Call) -> Result<Reply, RpcError> {
    let removes = call.arguments.flag(&["remove-bad-blocks"])?;
    each(call, if removes { Look::Removed } else { Look::Read }).await
}

/// `filestore dups`: none, for a block that is put takes the reference's place.
pub async fn dups(call: Call) -> Result<Reply, RpcError> {
    call.context.store().await?;
    Ok(Reply::values(|_out| async { Ok(()) }))
}

/// What is done with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Listed,
    Read,
    /// What cannot be read is deleted.
    Removed,
}

/// Goes through the blocks, and tells of each.
struct Teller {
    look: Look,
    cids: CidText,
    out: Sink,
    /// What is to be deleted.
    bad: Arc<Mutex<Vec<Cid>>>,
}

impl Teller {
    fn tell(&self, found: &InPlace) -> Result<(), RpcError> {
        let mut line = Referenced {
            key: Some(LinkText {
                cid: self.cids.text(&cid::to_v1(&found.cid)),
            }),
            file_path: found.reference.path.to_string_lossy().into_owned(),
            offset: found.reference.offset,
            size: found.reference.length.into(),
            ..Referenced::default()
        };
        if self.look != Look::Listed
            && let Err(lost) = found.read()
        {
            line.status = Status::of(&lost) as i32;
            line.error_msg = lost.to_string();
            if self.look == Look::Removed {
                let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
                bad.push(found.cid);
                line.error_msg.push_str("; it is forgotten");
            }
        }
        self.out.blocking_value(&line)
    }
}

async fn each(call: Call, look: Look) -> Result<Reply, RpcError> {
    let named = call.arguments.all();
    let named = named
        .iter()
        .map(|text| cid::parse(text.trim_start_matches("/ipfs/")));
    let named: Vec<Cid> = named.collect::<Result<_, _>>()?;
    let in_order = call.arguments.flag(&["file-order"])?;
    let cids = call.arguments.cids()?;
    let store = match look {
        Look::Removed => call.context.writable_store().await?.clone(),
        Look::Listed | Look::Read => call.context.store().await?.clone(),
    };
    Ok(Reply::values(move |out| async move {
        let bad = Arc::default();
        let teller = Arc::new(Teller {
            look,
            cids,
            out: out.clone(),
            bad: Arc::clone(&bad),
        });
        if !named.is_empty() {
            for cid in named {
                tell_named(&store, cid, &teller).await?;
            }
        } else if in_order {
            tell_in_order(&store, teller).await?;
        } else {
            let failed: Arc<Mutex<Option<RpcError>>> = Arc::default();
            let into = Arc::clone(&failed);
            store
                .references(move |found| match teller.tell(&found) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        *into.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        ControlFlow::Break(())
                    }
                })
                .await?;
            let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(error) = failed {
                return Err(error);
            }
        }
        let bad = std::mem::take(&mut *bad.lock().unwrap_or_else(PoisonError::into_inner));
        if !bad.is_empty() {
            store.delete(bad).await?;
        }
        Ok(())
    }))
}

async fn tell_named(store: &Store, cid: Cid, teller: &Arc<Teller>) -> Result<(), RpcError> {
    let found = store.reference(&cid).await?;
    let Some(found) = found else {
        let what = match store.has(&cid).await? {
            true => "is here as a block and lies in no file",
            false => "is not here",
        };
        let line = Referenced {
            status: Status::Missing as i32,
            error_msg: format!("block {cid} {what}"),
            key: Some(LinkText {
                cid: teller.cids.text(&cid::to_v1(&cid)),
            }),
            ..Referenced::default()
        };
        return teller.out.value(&line).await;
    };
    let teller = Arc::clone(teller);
    let telling = tokio::task::spawn_blocking(move || teller.tell(&found));
    telling.await.map_err(|_| broke("reading a file"))?
}

/// Files one after the other, each from its beginning.
async fn tell_in_order(store: &Store, teller: Arc<Teller>) -> Result<(), RpcError> {
    /// What is remembered until all are known.
    #[derive(Default)]
    struct Known {
        files: HashMap<Arc<Path>, u32>,
        blocks: Vec<(u32, u64, u32, Cid)>,
    }
    let known: Arc<Mutex<Known>> = Arc::default();
    let into = Arc::clone(&known);
    store
        .references(move |found| {
            let mut known = into.lock().unwrap_or_else(PoisonError::into_inner);
            let next = u32::try_from(known.files.len()).unwrap_or(u32::MAX);
            let reference = found.reference;
            let file = *known.files.entry(reference.path).or_insert(next);
            known
                .blocks
                .push((file, reference.offset, reference.length, found.cid));
            match known.blocks.len() < IN_ORDER_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
        .await?;
    let Known { files, mut blocks } =
        std::mem::take(&mut *known.lock().unwrap_or_else(PoisonError::into_inner));
    if blocks.len() >= IN_ORDER_MAX {
        return Err(RpcError::failed(format!(
            "there are {IN_ORDER_MAX} blocks in files or more, too many to be sorted; leave out --file-order"
        )));
    }
    let telling = tokio::task::spawn_blocking(move || {
        let mut names: Vec<(Arc<Path>, u32)> = files.into_iter().collect();
        names.sort_unstable();
        let mut rank = vec![0; names.len()];
        for (at, (_, file)) in names.iter().enumerate() {
            if let Some(rank) = rank.get_mut(usize::try_from(*file).unwrap_or(usize::MAX)) {
                *rank = at;
            }
        }
        let rank = |file: u32| {
            let file = usize::try_from(file).unwrap_or(usize::MAX);
            rank.get(file).copied().unwrap_or(0)
        };
        blocks.sort_unstable_by_key(|(file, offset, ..)| (rank(*file), *offset));
        for (file, offset, length, cid) in blocks {
            let Some((path, _)) = names.get(rank(file)) else {
                continue;
            };
            teller.tell(&InPlace::new(cid, path.clone(), offset, length))?;
        }
        Ok(())
    });
    telling.await.map_err(|_| broke("telling of files"))?
}

/// Most blocks that are sorted: about 300 MB.
const IN_ORDER_MAX: usize = 2_000_000;
