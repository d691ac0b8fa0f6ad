//! `filestore`: blocks that lie in files of the user's.
//!
//! * [`places`]: which files may be added in place.
//! * this file: going through what was.

pub mod places;

use super::api::Call;
use super::arguments::CidText;
use super::context::broke;
use super::dag::LinkText;
use super::error::RpcError;
use super::reply::Reply;
use super::reply::Sink;
use cairn_store::Store;
use cairn_store::cid::{self, Cid};
use cairn_store::filestore::{Forgotten, InPlace};
use cairn_store::reference::{Lost, Why};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

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
    /// Whether it is forgotten now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

impl Referenced {
    /// Whether it is wrong, and stays so.
    pub const fn is_bad(&self) -> bool {
        self.status != Status::Ok as i32 && !self.removed
    }
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
    /// What cannot be read is forgotten.
    Removed,
}

/// What is to be told of.
enum Found {
    Here(InPlace),
    /// A block that was asked for and lies in no file.
    Missing(Cid, &'static str),
}

/// Where those go that are found; nobody takes them any more once telling has failed.
type Finds = mpsc::Sender<Found>;

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
        let (finds, found) = mpsc::channel(TOGETHER_MAX);
        let teller = Teller {
            store: store.clone(),
            look,
            cids,
            out,
        };
        let finding = async {
            if !named.is_empty() {
                find_named(&store, named, finds).await
            } else if in_order {
                find_in_order(&store, finds).await
            } else {
                find_all(&store, finds).await
            }
        };
        let (done, told) = tokio::join!(finding, teller.tell_all(found));
        told.and(done)
    }))
}

async fn find_named(store: &Store, cids: Vec<Cid>, finds: Finds) -> Result<(), RpcError> {
    for cid in cids {
        let found = match store.reference(&cid).await? {
            Some(found) => Found::Here(found),
            None if store.has(&cid).await? => {
                Found::Missing(cid, "is here as a block and lies in no file")
            }
            None => Found::Missing(cid, "is not here"),
        };
        if finds.send(found).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn find_all(store: &Store, finds: Finds) -> Result<(), RpcError> {
    let each = move |found| match finds.blocking_send(Found::Here(found)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    Ok(store.references(each).await?)
}

/// Files one after the other, each from its beginning.
async fn find_in_order(store: &Store, finds: Finds) -> Result<(), RpcError> {
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
    let sorting = tokio::task::spawn_blocking(move || {
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
            let found = InPlace::new(cid, path.clone(), offset, length);
            if finds.blocking_send(Found::Here(found)).is_err() {
                return;
            }
        }
    });
    sorting.await.map_err(|_| broke("telling of files"))
}

/// Looks at what is found, and tells of it.
struct Teller {
    store: Store,
    look: Look,
    cids: CidText,
    out: Sink,
}

impl Teller {
    async fn tell_all(&self, mut found: mpsc::Receiver<Found>) -> Result<(), RpcError> {
        let mut some = Vec::new();
        while found.recv_many(&mut some, TOGETHER_MAX).await > 0 {
            for line in self.look_at(std::mem::take(&mut some)).await? {
                self.out.value(&line).await?;
            }
        }
        Ok(())
    }

    /// Lines of what is so when they are told: what they call forgotten is.
    async fn look_at(&self, found: Vec<Found>) -> Result<Vec<Referenced>, RpcError> {
        let mut lines: Vec<Referenced> = found.iter().map(|found| self.line(found)).collect();
        if self.look == Look::Listed {
            return Ok(lines);
        }
        let reading = tokio::task::spawn_blocking(move || {
            let read = found.into_iter().enumerate().filter_map(|(at, found)| {
                let Found::Here(found) = found else {
                    return None;
                };
                let lost = found.read().err()?;
                Some((at, found, lost))
            });
            read.collect::<Vec<_>>()
        });
        let lost = reading.await.map_err(|_| broke("reading a file"))?;
        for (at, _, why) in &lost {
            if let Some(line) = lines.get_mut(*at) {
                line.status = Status::of(why) as i32;
                line.error_msg = why.to_string();
            }
        }
        if self.look == Look::Removed && !lost.is_empty() {
            let places = lost.iter().map(|(_, found, _)| found.clone()).collect();
            let fates = self.store.forget_lost(places).await?;
            for ((at, ..), fate) in lost.iter().zip(fates) {
                if let Some(line) = lines.get_mut(*at) {
                    line.add(fate);
                }
            }
        }
        Ok(lines)
    }

    fn line(&self, found: &Found) -> Referenced {
        let key = |cid: &Cid| {
            Some(LinkText {
                cid: self.cids.text(&cid::to_v1(cid)),
            })
        };
        match found {
            Found::Here(found) => Referenced {
                key: key(&found.cid),
                file_path: found.reference.path.to_string_lossy().into_owned(),
                offset: found.reference.offset,
                size: found.reference.length.into(),
                ..Referenced::default()
            },
            Found::Missing(cid, what) => Referenced {
                status: Status::Missing as i32,
                error_msg: format!("block {cid} {what}"),
                key: key(cid),
                ..Referenced::default()
            },
        }
    }
}

impl Referenced {
    /// Tells what came of forgetting it.
    fn add(&mut self, fate: Forgotten) {
        match fate {
            Forgotten::Yes => {
                self.removed = true;
                self.error_msg.push_str("; it is forgotten");
            }
            Forgotten::Whole => {
                self.status = Status::Ok as i32;
                self.error_msg.clear();
            }
            Forgotten::Replaced => self
                .error_msg
                .push_str("; it is not forgotten: the block does not lie there any more"),
            Forgotten::Held => self.error_msg.push_str(
                "; it is not forgotten: something works with the block at this moment; verify again",
            ),
        }
    }
}

/// Most blocks that are read and told of together.
const TOGETHER_MAX: usize = 64;

/// Most blocks that are sorted: about 300 MB.
const IN_ORDER_MAX: usize = 2_000_000;
