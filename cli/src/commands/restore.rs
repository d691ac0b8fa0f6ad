//! `repo restore`: a new repository of what a snapshot holds. There is no repository to ask yet, so it is done
//! here.

use crate::args::Global;
use crate::exit::Failure;
use crate::output::{self, Printer, escape_line, human_bytes};
use crate::repository::Repository;
use crate::rpc::reply::json_line;
use crate::rpc::repo::snapshot::SnapshotAnswer;
use cairn_node::identity;
use cairn_node::keystore::OWN;
use cairn_store::config::Config as StoreConfig;
use cairn_store::snapshot::{self, SnapshotError, Stop};
use cairn_store::store::OpenEvent;
use cairn_store::{Store, snapshot::Made};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Whose key the new repository gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The snapshot's: the new one takes the old one's place.
    Same,
    /// One of its own: both may run.
    New,
}

impl Whose {
    /// What a flag says.
    pub const fn of(is_new: bool) -> Self {
        if is_new { Self::New } else { Self::Same }
    }
}

/// What was made, for programs.
#[derive(Debug, Serialize)]
struct Restored {
    #[serde(flatten)]
    made: SnapshotAnswer,
    /// The new repository's name, if it has a key.
    #[serde(rename = "PeerID", skip_serializing_if = "Option::is_none")]
    peer_id: Option<String>,
}

/// `repo restore`. Dropped, it stops and leaves nothing behind.
pub async fn restore(
    global: &Global,
    repository: &Repository,
    from: PathBuf,
    whose: Whose,
    verify: bool,
) -> Result<(), Failure> {
    let to = repository.path().to_owned();
    let stop = Stop::default();
    let _stops = stop.on_drop();
    let restoring = tokio::task::spawn_blocking(move || {
        let made = snapshot::restore(&from, &to, &stop, |unfinished| {
            let notices = Repository::copy_rest(&from, unfinished)?;
            if whose == Whose::New {
                renew_identity(unfinished)?;
            }
            if verify {
                verify_all(unfinished, &to, &from)?;
            }
            Ok(notices)
        });
        made.map_err(|error| match error {
            SnapshotError::Taken { path } => Failure::runtime(format!(
                "{path} holds something already; restore to another place with --repo-dir or CAIRN_PATH, or \
                 move what is there out of the way first"
            )),
            error => Failure::runtime(error.to_string()),
        })
    });
    let made = restoring
        .await
        .map_err(|_| Failure::runtime("restoring broke down; this is a bug in cairn"))??;
    for notice in &made.notices {
        output::warning(&escape_line(notice));
    }
    // A snapshot of a store alone has no key.
    let key = repository.public_keys();
    let key = key.and_then(|keys| Ok(keys.public(OWN)?)).ok();
    let peer_id = key.map(|key| key.to_peer_id().to_string());
    if peer_id.is_some() && whose == Whose::Same {
        output::warning(
            "this repository has the identity that the snapshot's had: two nodes that run with one are taken for \
             each other. Let only one of them run, or restore with --new-identity",
        );
    }
    let path = repository.path().display().to_string();
    if global.wants_json() {
        let made = SnapshotAnswer::new(path, made);
        let mut printer = Printer::default();
        printer.bytes(&json_line(&Restored { made, peer_id })?)?;
        return Ok(printer.flush()?);
    }
    tell(&path, &made, peer_id)
}

fn tell(path: &str, made: &Made, peer_id: Option<String>) -> Result<(), Failure> {
    let mut printer = Printer::default();
    printer.line(&format!(
        "restored {} of blocks to {}, {} of them shared with the snapshot and {} copied",
        human_bytes(made.bytes),
        escape_line(path),
        human_bytes(made.cloned + made.linked),
        human_bytes(made.copied)
    ))?;
    if !made.has_index {
        printer.line("the index is built at the first opening, by reading all of the blocks")?;
    }
    if let Some(peer_id) = peer_id {
        printer.line(&format!("peer identity: {peer_id}"))?;
    }
    Ok(printer.flush()?)
}

fn renew_identity(folder: &Path) -> Result<(), SnapshotError> {
    let path = folder.join("identity.key");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SnapshotError::disk("replace", &path)(error));
        }
        _ => {}
    }
    let made = identity::create(folder).map_err(io::Error::other);
    made.map(drop).map_err(SnapshotError::disk("make", &path))
}

/// Opens what was made of the snapshot `from`, and is to be `to`, and checks every block of it against its CID.
fn verify_all(folder: &Path, to: &Path, from: &Path) -> Result<(), SnapshotError> {
    let failed = |why: String| SnapshotError::Damaged {
        path: from.display().to_string(),
        why,
    };
    // It has that name for the time being alone.
    let (temporary, name) = (folder.display().to_string(), to.display().to_string());
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let store = Store::open(folder, &StoreConfig::default(), &mut |event| {
        if let OpenEvent::Notice(text) = event {
            output::note(&escape_line(&text.replace(&temporary, &name)));
        }
    })
    .map_err(|error| failed(error.to_string()))?;
    let into = Arc::clone(&told);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(SnapshotError::disk("verify", folder))?;
    let seen = runtime.block_on(store.verify(
        |_| {},
        move |bad| {
            let mut told = into.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < TOLD_MAX {
                let name = bad
                    .cid
                    .map_or_else(|| "a block".to_owned(), |cid| cid.to_string());
                told.push(format!("{name}: {}", bad.why));
            }
        },
    ));
    let closed = runtime.block_on(store.close());
    seen.map_err(|error| failed(error.to_string()))?;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.is_empty() {
        return Err(failed(format!("bad blocks: {}", told.join(", "))));
    }
    Ok(closed?)
}

/// Most bad blocks that are named.
const TOLD_MAX: usize = 10;
