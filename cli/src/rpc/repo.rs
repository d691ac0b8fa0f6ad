//! `repo`: sizes, garbage, damage.

pub mod import_kubo;
pub mod snapshot;
pub mod verify;

use super::api::Call;
use super::context::Content;
use super::dag::LinkText;
use super::error::RpcError;
use super::reply::Reply;
use super::teller::Teller;
use crate::repository::FORMAT;
use cairn_node::explain::counted;
use cairn_node::pins::FollowPinError;
use cairn_store::config::Reserve;
use cairn_store::gc::GcEvent;
use cairn_store::store::OpenEvent;
use rustix::fs::StatVfs;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// The answer of `repo stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RepoStat {
    /// Bytes of the blocks.
    pub repo_size: u64,
    /// Largest wanted size.
    pub storage_max: u64,
    /// Blocks.
    pub num_objects: u64,
    /// Where it is.
    pub repo_path: String,
    /// Format of the folder.
    pub version: String,
    /// Bytes of the files that blocks lie in.
    pub disk_size: u64,
    /// Bytes of those that hold what peers sent and nobody asked to keep.
    pub cache_size: u64,
    /// How many they may be.
    pub cache_max: u64,
    /// Bytes free on that disk; left out if the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free: Option<u64>,
    /// Bytes free below which nothing is written any more; left out if that is a share of a disk of
    /// unknown size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<u64>,
    /// Pins.
    pub pins: u64,
    /// How the background's round over all blocks stands.
    pub scrub: Scrub,
}

/// How the background's round over all blocks stands. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Scrub {
    /// Share of its time in percent; 0 for never.
    pub share: u8,
    /// When the running round began; 0 if none runs.
    pub started: u64,
    /// When the last whole one ended; 0 if none has.
    pub finished: u64,
    /// Bytes read in the round that runs, or else in the last.
    pub bytes: u64,
    /// Bad blocks found in it.
    pub bad: u64,
}

/// A line of `repo gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Collected {
    /// A block that was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<LinkText>,
    /// What the operator should know, for those who ask with `notices`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notice: String,
    /// How far it is, for those who ask with `progress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Collecting>,
}

/// How far a collection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Collecting {
    /// Blocks known to stay.
    pub marked: u64,
    /// Blocks removed.
    pub removed: u64,
    /// Files whose space was given back.
    pub compacted: u64,
    /// Files that have something to give.
    pub to_compact: u64,
    /// Bytes given back to the file system; told at the end.
    pub freed: u64,
}

impl Collecting {
    fn take(&mut self, event: &GcEvent) {
        match event {
            GcEvent::Marked { blocks } => self.marked = *blocks,
            GcEvent::Removed(_) => self.removed += 1,
            GcEvent::Compacting { done, total } => {
                (self.compacted, self.to_compact) = (*done, *total);
            }
        }
    }

    /// Whether a collection that went well left files as they were: their copies had no room.
    const fn ran_out_of_room(&self) -> bool {
        self.compacted < self.to_compact
    }

    fn line(self) -> Collected {
        Collected {
            progress: Some(self),
            ..Collected::default()
        }
    }
}

/// A line of `repo rebuild`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RebuildLine {
    /// Something found, or the result.
    pub msg: String,
    /// Bytes of the log read so far.
    pub bytes: u64,
    /// Bytes to read.
    pub total: u64,
}

impl RebuildLine {
    fn of(event: OpenEvent) -> Self {
        match event {
            OpenEvent::Rebuilding { done, total } => Self {
                bytes: done,
                total,
                ..Self::default()
            },
            OpenEvent::Notice(msg) => Self {
                msg,
                ..Self::default()
            },
        }
    }
}

/// The answer of `repo version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RepoVersion {
    /// Format of the folder.
    pub version: String,
}

/// `repo stat`. Nothing is counted: the store keeps its figures.
pub async fn stat(call: Call) -> Result<Reply, RpcError> {
    let size_only = call.arguments.flag(&["size-only", "s"])?;
    let Content {
        store, settings, ..
    } = call.context.content().await?;
    let stat = store.stat();
    let scrub = store.scrub_state();
    let path = call.context.repository.path();
    let disk = rustix::fs::statvfs(path).ok();
    let bytes = |blocks: u64, disk: &StatVfs| blocks.saturating_mul(disk.f_frsize);
    let reserve = match (settings.reserve, &disk) {
        (reserve, Some(disk)) => Some(reserve.of(bytes(disk.f_blocks, disk)).0),
        (Reserve::Bytes(reserve), None) => Some(reserve.0),
        (Reserve::Auto, None) => None,
    };
    Reply::value(&RepoStat {
        repo_size: stat.bytes,
        storage_max: settings.max.0,
        num_objects: if size_only { 0 } else { stat.blocks },
        repo_path: path.display().to_string(),
        version: format!("fs-repo@{FORMAT}"),
        disk_size: stat.disk_bytes,
        cache_size: stat.cache_bytes,
        cache_max: stat.cache_max,
        disk_free: disk.as_ref().map(|disk| bytes(disk.f_bavail, disk)),
        reserve,
        pins: stat.pins,
        scrub: Scrub {
            share: settings.scrub_share.0,
            started: scrub.started,
            finished: scrub.finished,
            bytes: scrub.bytes,
            bad: scrub.bad,
        },
    })
}

/// `repo gc`.
pub async fn gc(call: Call) -> Result<Reply, RpcError> {
    let silent = call.arguments.flag(&["silent"])?;
    let progress = call.arguments.flag(&["progress"])?;
    let notices = call.arguments.flag(&["notices"])?;
    let cids = call.arguments.cids()?;
    let store = call.context.writable_store().await?.clone();
    let follows = call.context.follows().await?.clone();
    Ok(Reply::values(move |out| async move {
        // What has expired keeps nothing. Who cannot tell the time removes no pin, and collects all the same.
        match follows.expire().await {
            Err(FollowPinError::Clock(error)) => tracing::warn!(%error, "no pin expires"),
            expired => drop(expired?),
        }
        // The collection runs to its end even if nobody listens any more.
        let teller = Teller::new(out.clone(), &call.context);
        let tells = teller.clone();
        let counted: Arc<Mutex<Collecting>> = Arc::default();
        let counts = Arc::clone(&counted);
        let collecting = store.gc(move |event| {
            let mut so_far = counts.lock().unwrap_or_else(PoisonError::into_inner);
            so_far.take(&event);
            let so_far = *so_far;
            match event {
                GcEvent::Removed(cid) if !silent => tells.fact(&Collected {
                    key: Some(LinkText {
                        cid: cids.text(&cid),
                    }),
                    ..Collected::default()
                }),
                GcEvent::Removed(_) => {}
                GcEvent::Marked { .. } | GcEvent::Compacting { .. } => {
                    if progress {
                        tells.figure(&so_far.line());
                    }
                }
            }
        });
        let freed = collecting.await?.freed;
        teller.result()?;
        let so_far = *counted.lock().unwrap_or_else(PoisonError::into_inner);
        if notices && so_far.ran_out_of_room() {
            let line = Collected {
                notice: TOO_LITTLE_ROOM.to_owned(),
                ..Collected::default()
            };
            out.value(&line).await?;
        }
        if progress {
            out.value(&Collecting { freed, ..so_far }.line()).await?;
        }
        Ok(())
    }))
}

/// `repo rebuild`: the index anew from the blocks. It goes on to its end even if nobody listens any more.
pub async fn rebuild(call: Call) -> Result<Reply, RpcError> {
    let store = call.context.writable_store().await?.clone();
    Ok(Reply::values(move |out| async move {
        let teller = Teller::new(out.clone(), &call.context);
        let tells = teller.clone();
        let rebuilding = store.rebuild_index(move |event| match event {
            OpenEvent::Rebuilding { .. } => tells.figure(&RebuildLine::of(event)),
            OpenEvent::Notice(_) => tells.fact(&RebuildLine::of(event)),
        });
        rebuilding.await?;
        teller.result()?;
        let blocks = store.stat().blocks;
        let msg = format!(
            "rebuilt the index of {}",
            counted(blocks, "block", "blocks")
        );
        out.value(&RebuildLine::of(OpenEvent::Notice(msg))).await
    }))
}

/// `repo version`.
pub fn version() -> Result<Reply, RpcError> {
    Reply::value(&RepoVersion {
        version: FORMAT.to_string(),
    })
}

/// What a collection says that could not give all the space back.
const TOO_LITTLE_ROOM: &str =
    "too little space is free to compact the rest; free some, then collect again";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TEMPLATE;
    use crate::repository::Repository;
    use crate::rpc::api::Api;
    use crate::rpc::context::Context;
    use axum::body::Body;
    use cairn_node::Exchange;
    use cairn_store::block::Prefix;
    use cairn_store::cid::{HashKind, RAW, Version};
    use cairn_store::store::Keep;
    use cairn_store::{Block, Store};
    use http::Request;
    use http_body_util::BodyExt;
    use tokio_util::sync::CancellationToken;

    /// More removals than wait for a reader.
    const GARBAGE: u32 = 3000;

    async fn ask(api: &Api, command: &str) -> Body {
        let request = Request::post(format!("/api/v0/{command}"));
        let response = api.handle(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    }

    async fn garbage(store: &Store) {
        let prefix = Prefix {
            version: Version::V1,
            codec: RAW,
            hash: HashKind::Sha2_256,
        };
        let blocks = (0..GARBAGE)
            .map(|at| Block::new(prefix, at.to_be_bytes().to_vec().into()).unwrap())
            .collect();
        store.put(blocks, Keep::Kept).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collection_does_not_wait_for_a_reader_that_does_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let config = TEMPLATE.replace("reserve = \"auto\"", "reserve = \"0\"");
        let repository = Repository::at(folder.path());
        repository.write_config(&config).unwrap();
        let parsed = repository.config().unwrap();
        let store = &repository.open_store(&parsed, &mut |_| {}).unwrap();
        let content = Content {
            store: store.clone(),
            exchange: Exchange::offline(store.clone()),
            settings: parsed.storage.clone(),
        };
        let context = Context::daemon(repository, content, None, CancellationToken::new());
        let context = Arc::new(context);
        let api = Api::new(Arc::clone(&context));
        for silent in [false, true] {
            garbage(store).await;
            let unread = ask(&api, &format!("repo/gc?progress=true&silent={silent}")).await;
            // The next one begins when that one is done.
            store.gc(|_| {}).await.unwrap();
            assert_eq!(store.stat().blocks, 0);
            let read = unread.collect().await.unwrap();
            let told = read.trailers().and_then(crate::rpc::reply::told_in_trailer);
            let bytes = read.to_bytes();
            let text = String::from_utf8_lossy(&bytes);
            let last = text.lines().last().unwrap_or_default();
            if silent {
                assert_eq!(told, None);
                assert!(last.contains(&format!("\"Removed\":{GARBAGE}")), "{last}");
            } else {
                let told = told.expect("a failure");
                assert!(told.message().contains("not told whole"), "{told}");
                assert!(last.contains("\"Key\""), "{last}");
            }
        }
        // Read, it is told whole.
        garbage(store).await;
        let read = ask(&api, "repo/gc").await.collect().await.unwrap();
        assert!(read.trailers().is_none());
        let bytes = read.to_bytes();
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, GARBAGE as usize);
        context.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_system_does_not_tell_of_a_disk_is_left_out() {
        for (reserve, told) in [("auto", None), ("5MB", Some(5_000_000))] {
            let folder = tempfile::tempdir().unwrap();
            let reserve = format!("reserve = \"{reserve}\"");
            let config = TEMPLATE.replace("reserve = \"auto\"", &reserve);
            let repository = Repository::at(folder.path());
            repository.write_config(&config).unwrap();
            let parsed = repository.config().unwrap();
            let store = repository.open_store(&parsed, &mut |_| {}).unwrap();
            let context = Context::with_store(repository, store, parsed.storage);
            let api = Api::new(Arc::new(context));
            let stat = async || {
                let answer = ask(&api, "repo/stat").await.collect().await.unwrap();
                serde_json::from_slice::<RepoStat>(&answer.to_bytes()).unwrap()
            };
            let known = stat().await;
            assert!(known.disk_free > Some(0) && known.reserve > Some(0));
            folder.close().unwrap();
            let unknown = stat().await;
            assert_eq!((unknown.disk_free, unknown.reserve), (None, told));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_collection_removes_is_told_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let config = TEMPLATE.replace("reserve = \"auto\"", "reserve = \"0\"");
        let repository = Repository::at(folder.path());
        repository.write_config(&config).unwrap();
        let parsed = repository.config().unwrap();
        let store = repository.open_store(&parsed, &mut |_| {}).unwrap();
        let registry = prometheus::Registry::new();
        store.register(&registry).unwrap();
        let finished = || {
            let families = registry.gather();
            let runs = families
                .iter()
                .find(|one| one.name() == "cairn_gc_runs_total");
            runs.unwrap().get_metric()[0].get_counter().get_value()
        };
        garbage(&store).await;
        // Without a daemon a collection waits for whoever reads.
        let context = Context::with_store(repository, store, parsed.storage);
        let api = Api::new(Arc::new(context));
        let mut lines = ask(&api, "repo/gc").await;
        let first = lines.frame().await.unwrap().unwrap();
        assert!(first.data_ref().unwrap().starts_with(b"{\"Key\""));
        assert!(finished() < 1.0);
        let rest = lines.collect().await.unwrap();
        assert!(rest.trailers().is_none());
        assert!(finished() > 0.0);
    }
}
