//! What changes the tree: each of it as a whole or not at all.

use super::Named;
use crate::rpc::api::Call;
use crate::rpc::arguments::Arguments;
use crate::rpc::error::RpcError;
use crate::rpc::reply::Reply;
use cairn_store::cid::{HashKind, Version};
use cairn_store::files::{Copy, FilesError, FilesPath, Flush, Naming, Overwrite, Parents, Remove};
use cairn_store::unixfs::Mtime;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// The answer of `files flush`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Flushed {
    /// The root of what is at the path.
    pub cid: String,
}

/// What becomes of missing folders.
pub(super) fn parents(arguments: &Arguments) -> Result<Parents, RpcError> {
    Ok(match arguments.flag(&["parents", "p"])? {
        true => Parents::Made,
        false => Parents::There,
    })
}

/// How new things are named, if that was given.
pub(super) fn naming(arguments: &Arguments) -> Result<Option<Naming>, RpcError> {
    let version = match arguments.text(&["cid-version", "cid-ver"]) {
        None | Some("") => None,
        Some("0") => Some(Version::V0),
        Some("1") => Some(Version::V1),
        Some(other) => return Err(RpcError::wrong(format!("unknown CID version: {other}"))),
    };
    // The last is what one client calls it.
    let hash = arguments.text(&["hash", "hash-alg"]);
    let hash = match hash.filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => Some(name.to_ascii_lowercase().parse::<HashKind>()?),
    };
    Ok(match (version, hash) {
        (None, None) => None,
        (version, Some(hash)) => Some(Naming {
            // A hash means version 1, as in Kubo; but who names both as version 0 has them is believed.
            version: match (version, hash) {
                (Some(Version::V0), HashKind::Sha2_256) => Version::V0,
                _ => Version::V1,
            },
            hash,
        }),
        (Some(version), None) => Some(Naming {
            version,
            hash: HashKind::Sha2_256,
        }),
    })
}

/// The two paths of a request.
fn two(call: &Call) -> Result<(String, String), RpcError> {
    let all = call.arguments.some("source")?;
    match all.as_slice() {
        [from, to] => Ok(((*from).to_owned(), (*to).to_owned())),
        _ => Err(RpcError::wrong("argument \"dest\" is required")),
    }
}

/// `files cp`.
pub async fn copy(call: Call) -> Result<Reply, RpcError> {
    let (from, to) = two(&call)?;
    let (parents, flush) = (parents(&call.arguments)?, call.flush()?);
    let overwrite = match call.arguments.flag(&["force"])? {
        true => Overwrite::Files,
        false => Overwrite::Nothing,
    };
    let files = call.context.files().await?;
    let source = call.tree_source().await?;
    let session = call.session().await?;
    let from = from.trim_end_matches('/');
    let from = if from.is_empty() { "/" } else { from };
    let mut target = FilesPath::parse(&to)?;
    if to.ends_with('/') {
        let name = from.rsplit('/').next().unwrap_or_default();
        target = target.join(name)?;
    }
    let cannot_get = |error: RpcError| {
        RpcError::with_status(
            error.status(),
            format!("cp: cannot get node from path {from}: {}", error.message()),
        )
    };
    let what = match call.named(&session, from).await.map_err(cannot_get)? {
        Named::Tree(path) => {
            // So that what is missing is told apart from where it is to go.
            files
                .stat(&source, &path)
                .await
                .map_err(|error| cannot_get(error.into()))?;
            Copy::Path(path)
        }
        Named::Content(cid) => {
            let fetched = files.fetch(&session, cid, |_| {}).await;
            fetched.map_err(|error| match error {
                FilesError::NotUnixfs(_) => RpcError::failed(format!("cp: {error}")),
                error => cannot_get(error.into()),
            })?
        }
    };
    let copied = files
        .copy(&source, what, &target, parents, overwrite, flush)
        .await;
    copied.map_err(|error| match error {
        FilesError::NotFile { .. } => RpcError::failed(format!(
            "cp: cannot unlink existing file: not a file: {target}"
        )),
        error @ (FilesError::Taken | FilesError::NotFound | FilesError::NotFolder { .. }) => {
            RpcError::failed(format!("cp: cannot put node in path {target}: {error}"))
        }
        error => error.into(),
    })?;
    Ok(Reply::Empty)
}

/// `files mv`.
pub async fn move_to(call: Call) -> Result<Reply, RpcError> {
    let (from, to) = two(&call)?;
    let from = FilesPath::parse(&from)?;
    let mut target = FilesPath::parse(&to)?;
    let files = call.context.files().await?;
    let source = call.tree_source().await?;
    if to.ends_with('/')
        && !target.is_root()
        && let Some(name) = from.name()
    {
        // The slash says that it is a folder.
        target = target.join(name)?;
    }
    let flush = call.flush()?;
    files.move_to(&source, &from, &target, flush).await?;
    Ok(Reply::Empty)
}

/// `files rm`. Each path on its own; those that cannot be removed are told.
pub async fn remove(call: Call) -> Result<Reply, RpcError> {
    if call.flush()? == Flush::Later {
        return Err(RpcError::failed(
            "files rm always flushes for safety. The --flush flag cannot be set to false for this command",
        ));
    }
    let paths = call.arguments.some("path")?;
    let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
    let how = match (
        call.arguments.flag(&["force"])?,
        call.arguments.flag(&["recursive", "r"])?,
    ) {
        (true, _) => Remove::Forced,
        (false, true) => Remove::Recursive,
        (false, false) => Remove::File,
    };
    let files = call.context.files().await?;
    let source = call.tree_source().await?;
    let mut failures = Vec::new();
    for text in paths {
        let path = match FilesPath::parse(&text) {
            Ok(path) => path,
            Err(error) => {
                failures.push(format!("{text} is not a valid path: {error}"));
                continue;
            }
        };
        if let Err(error) = files.remove(&source, &path, how, Flush::Now).await {
            let error = RpcError::from(error);
            failures.push(format!("{path}: {}", error.message()));
        }
    }
    if failures.is_empty() {
        return Ok(Reply::Empty);
    }
    // Kubo sends them as values before an error at the end, which many clients see as a broken connection.
    failures.push("can't remove some files".to_owned());
    Err(RpcError::failed(failures.join("; ")))
}

/// `files mkdir`.
pub async fn make_folder(call: Call) -> Result<Reply, RpcError> {
    let path = FilesPath::parse(call.arguments.first("path")?)?;
    let (parents, naming) = (parents(&call.arguments)?, naming(&call.arguments)?);
    let files = call.context.files().await?;
    let (source, flush) = (call.tree_source().await?, call.flush()?);
    files
        .make_folder(&source, &path, parents, naming, flush)
        .await?;
    Ok(Reply::Empty)
}

/// `files flush`.
pub async fn flush(call: Call) -> Result<Reply, RpcError> {
    let all = call.arguments.all();
    let path = FilesPath::parse(all.first().copied().unwrap_or("/"))?;
    let cids = call.arguments.cids()?;
    let source = call.tree_source().await?;
    let cid = call.context.files().await?.flush(&source, &path).await?;
    Reply::value(&Flushed {
        cid: cids.text(&cid),
    })
}

/// `files chcid`.
pub async fn rename_blocks(call: Call) -> Result<Reply, RpcError> {
    let all = call.arguments.all();
    let path = FilesPath::parse(all.first().copied().unwrap_or("/"))?;
    if path.is_root() {
        return Err(RpcError::failed(
            "cannot change CID format of the MFS root; it is that of the first folder that was made",
        ));
    }
    let files = call.context.files().await?;
    let source = call.tree_source().await?;
    let flush = call.flush()?;
    let Some(naming) = naming(&call.arguments)? else {
        files.stat(&source, &path).await?;
        return Ok(Reply::Empty);
    };
    let renamed = files.rename_blocks(&source, &path, naming, flush).await;
    renamed.map_err(|error| match error {
        FilesError::NotFolder { .. } => RpcError::failed("can only update directories"),
        error => error.into(),
    })?;
    Ok(Reply::Empty)
}

/// `files chmod`.
pub async fn change_mode(call: Call) -> Result<Reply, RpcError> {
    let all = call.arguments.some("mode")?;
    let [mode, path] = all.as_slice() else {
        return Err(RpcError::wrong("argument \"path\" is required"));
    };
    let mode = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| {
            RpcError::wrong(format!(
                "{mode:?} is no mode; write it in octal digits, as 0644"
            ))
        })?;
    let path = FilesPath::parse(path)?;
    let files = call.context.files().await?;
    let source = call.tree_source().await?;
    let flush = call.flush()?;
    files
        .set_metadata(&source, &path, Some(mode), None, flush)
        .await?;
    Ok(Reply::Empty)
}

/// `files touch`.
pub async fn touch(call: Call) -> Result<Reply, RpcError> {
    let path = FilesPath::parse(call.arguments.first("path")?)?;
    let seconds: Option<i64> = call.arguments.parsed(&["mtime"], "seconds since 1970")?;
    let nanoseconds: Option<u32> = call.arguments.parsed(&["mtime-nsecs"], "nanoseconds")?;
    let nanoseconds = nanoseconds.unwrap_or(0);
    if nanoseconds >= 1_000_000_000 {
        return Err(RpcError::wrong("mtime-nsecs must be below 1000000000"));
    }
    let mtime = match seconds {
        Some(seconds) => Mtime {
            seconds,
            nanoseconds,
        },
        None => now(),
    };
    let files = call.context.files().await?;
    let source = call.tree_source().await?;
    let flush = call.flush()?;
    files
        .set_metadata(&source, &path, None, Some(mtime), flush)
        .await?;
    Ok(Reply::Empty)
}

fn now() -> Mtime {
    // A clock before 1970 is set to 1970.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Mtime {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Option<Naming>, RpcError> {
        naming(&Arguments::parse(query).unwrap())
    }

    #[test]
    fn a_hash_means_version_1() {
        assert_eq!(read("").unwrap(), None);
        let version = |query| read(query).unwrap().map(|naming| naming.version);
        assert_eq!(version("cid-version=0"), Some(Version::V0));
        assert_eq!(version("cid-version=1"), Some(Version::V1));
        assert_eq!(version("hash=blake3"), Some(Version::V1));
        assert_eq!(version("hash=sha2-512&cid-version=0"), Some(Version::V1));
        assert_eq!(read("hash=blake3").unwrap().unwrap().hash, HashKind::Blake3);
        assert!(read("cid-version=2").is_err());
        assert!(read("hash=md5").is_err());
    }
}
