//! The folder of a Kubo repository: whether it is one, that nobody uses it, and where in it things lie.

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A Kubo repository that nobody used when it was opened.
#[derive(Debug)]
pub struct Source {
    folder: PathBuf,
    version: u32,
    config: Value,
    blocks: PathBuf,
    databases: Vec<Database>,
    /// Kubo cannot start while this is held, if it left the file behind that is locked.
    _lock: Option<File>,
}

/// Where records lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Database {
    /// What all of its keys begin with, unsaid.
    pub(super) below: String,
    pub(super) folder: PathBuf,
    /// As the configuration calls it.
    pub(super) kind: String,
}

/// Why a folder is not imported at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KuboError {
    /// It has not what every Kubo repository has.
    #[error(
        "{path} is no Kubo repository: {why}; give the folder that Kubo's $IPFS_PATH names, usually ~/.ipfs"
    )]
    NoRepository {
        /// The folder.
        path: String,
        /// What is missing.
        why: String,
    },
    /// Another layout than what is known here.
    #[error(
        "{path} is a repository of version {version}, and versions {VERSION_MIN} to {VERSION_MAX} are read; {fix}"
    )]
    Version {
        /// The folder.
        path: String,
        /// Its version.
        version: u32,
        /// What to do.
        fix: &'static str,
    },
    /// Somebody has it open.
    #[error(
        "Kubo is using {path} (its repo.lock is held); stop it with `ipfs shutdown`, then import again"
    )]
    InUse {
        /// The folder.
        path: String,
    },
    /// Its configuration is not what it should be.
    #[error("{path}/config cannot be used: {why}")]
    Config {
        /// The folder.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Blocks lie in something else than files.
    #[error(
        "the blocks in {path} lie in a {kind} datastore, and only flatfs is read; bring them over as CAR files: \
         `ipfs dag export CID > FILE` for each line of `ipfs pin ls --type=recursive -q`, and `cairn dag import FILE`"
    )]
    Blocks {
        /// The folder.
        path: String,
        /// What the configuration says.
        kind: String,
    },
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Disk {
        /// What was to be read.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Source {
    /// Opens a repository for reading. Kubo does not use it, and where it left its lock's file behind cannot start to.
    pub fn open(folder: &Path) -> Result<Self, KuboError> {
        let path = || folder.display().to_string();
        let none = |why: &str| KuboError::NoRepository {
            path: path(),
            why: why.to_owned(),
        };
        if !folder.is_dir() {
            return Err(none("there is no such folder"));
        }
        let version = read(&folder.join("version"), VERSION_BYTES_MAX)
            .map_err(|_| none("it has no file `version`"))?;
        let version = String::from_utf8_lossy(&version);
        let version: u32 = version
            .trim()
            .parse()
            .map_err(|_| none("its file `version` holds no number"))?;
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(KuboError::Version {
                path: path(),
                version,
                fix: match version < VERSION_MIN {
                    true => {
                        "a recent Kubo brings it up to date with `ipfs repo migrate`; import it then"
                    }
                    false => "a newer cairn may read it",
                },
            });
        }
        let lock = lock(folder)?;
        let wrong = |why: String| KuboError::Config { path: path(), why };
        let config = read(&folder.join("config"), CONFIG_BYTES_MAX)
            .map_err(|error| wrong(error.to_string()))?;
        let config: Value =
            serde_json::from_slice(&config).map_err(|error| wrong(error.to_string()))?;
        let spec = config.pointer("/Datastore/Spec").cloned();
        // Older configurations leave it out where it is the usual one; beside it lies what was used last.
        let spec = match spec.filter(|spec| !spec.is_null()) {
            Some(spec) => spec,
            None => read(&folder.join("datastore_spec"), CONFIG_BYTES_MAX)
                .ok()
                .and_then(|spec| serde_json::from_slice(&spec).ok())
                .ok_or_else(|| {
                    wrong("it does not say where blocks lie (Datastore.Spec)".to_owned())
                })?,
        };
        let mut blocks = None;
        let mut databases = Vec::new();
        for (below, store) in mounts(&spec).map_err(wrong)? {
            let text = |key: &str| store.get(key).and_then(Value::as_str);
            let kind = text("type").unwrap_or_default().to_owned();
            let at = folder.join(text("path").unwrap_or_default());
            if below == "/blocks" || (below == "/" && blocks.is_none() && kind == "flatfs") {
                if kind != "flatfs" {
                    return Err(KuboError::Blocks { path: path(), kind });
                }
                blocks = Some(at);
            } else {
                databases.push(Database {
                    below: below.trim_end_matches('/').to_owned(),
                    folder: at,
                    kind,
                });
            }
        }
        let Some(blocks) = blocks else {
            let kind = databases.first().map_or("unknown", |one| &one.kind);
            return Err(KuboError::Blocks {
                path: path(),
                kind: kind.to_owned(),
            });
        };
        super::flatfs::check(&blocks).map_err(|why| none(&why))?;
        Ok(Self {
            folder: folder.to_owned(),
            version,
            config,
            blocks,
            databases,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The version of its layout.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Everything in its file `config`.
    pub const fn config(&self) -> &Value {
        &self.config
    }

    pub(super) fn blocks(&self) -> &Path {
        &self.blocks
    }

    pub(super) fn databases(&self) -> &[Database] {
        &self.databases
    }
}

/// What is mounted where, without what only measures or logs on the way.
fn mounts(spec: &Value) -> Result<Vec<(String, &Value)>, String> {
    let spec = plain(spec);
    if spec.get("type").and_then(Value::as_str) != Some("mount") {
        return Ok(vec![("/".to_owned(), spec)]);
    }
    let mounts = spec.get("mounts").and_then(Value::as_array);
    let mounts = mounts.ok_or("Datastore.Spec is a mount without mounts")?;
    mounts
        .iter()
        .map(|mount| {
            let point = mount.get("mountpoint").and_then(Value::as_str);
            let point = point.ok_or("a mount of Datastore.Spec has no mountpoint")?;
            Ok((point.to_owned(), plain(mount)))
        })
        .collect()
}

fn plain(mut store: &Value) -> &Value {
    for _ in 0..WRAPPERS_MAX {
        let kind = store.get("type").and_then(Value::as_str);
        match (kind, store.get("child")) {
            (Some("measure" | "log"), Some(child)) => store = child,
            _ => break,
        }
    }
    store
}

/// Holds Kubo's own lock for reading, which is refused while Kubo holds it, and refuses it to Kubo. The file is there
/// only while, or after, somebody has the repository open.
fn lock(folder: &Path) -> Result<Option<File>, KuboError> {
    let path = folder.join("repo.lock");
    let disk = |source: io::Error| KuboError::Disk {
        path: path.display().to_string(),
        source,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk(error)),
    };
    match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(KuboError::InUse {
            path: folder.display().to_string(),
        }),
        Err(errno) => Err(disk(errno.into())),
    }
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Layouts whose blocks are named by their multihash and whose pins are records: since Kubo 0.12 (early 2022).
const VERSION_MIN: u32 = 12;
/// The newest layout that was looked at: that of Kubo 0.43.
const VERSION_MAX: u32 = 18;
const VERSION_BYTES_MAX: u64 = 64;
/// Most bytes of a configuration.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Stores that only measure or log what another one does.
const WRAPPERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn made(config: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "18\n").unwrap();
        fs::write(folder.path().join("config"), config.to_string()).unwrap();
        fs::create_dir_all(folder.path().join("blocks")).unwrap();
        let sharding = "/repo/flatfs/shard/v1/next-to-last/2\n";
        fs::write(folder.path().join("blocks/SHARDING"), sharding).unwrap();
        folder
    }

    fn flatfs() -> Value {
        json!({"type": "flatfs", "path": "blocks", "sync": true})
    }

    #[test]
    fn where_things_lie_is_read_from_the_configuration() {
        let measured = json!({"Datastore": {"Spec": {"type": "mount", "mounts": [
            {"mountpoint": "/blocks", "type": "measure", "prefix": "flatfs.datastore", "child": flatfs()},
            {"mountpoint": "/", "type": "measure", "child":
                {"type": "log", "child": {"type": "levelds", "path": "/elsewhere/records", "compression": "none"}}},
        ]}}});
        let folder = made(&measured);
        let source = Source::open(folder.path()).unwrap();
        assert_eq!(source.version(), 18);
        assert_eq!(source.blocks(), folder.path().join("blocks"));
        let there = Database {
            below: String::new(),
            folder: "/elsewhere/records".into(),
            kind: "levelds".to_owned(),
        };
        assert_eq!(source.databases(), [there]);
    }

    #[test]
    fn what_lay_there_last_counts_where_the_configuration_says_nothing() {
        let folder = made(&json!({"Datastore": {}}));
        let refused = Source::open(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("Datastore.Spec"), "{refused}");
        let spec = json!({"type": "mount", "mounts": [{"mountpoint": "/blocks", "type": "flatfs", "path": "blocks"}]});
        fs::write(folder.path().join("datastore_spec"), spec.to_string()).unwrap();
        assert!(Source::open(folder.path()).unwrap().databases().is_empty());
    }

    #[test]
    fn blocks_in_another_datastore_are_refused_with_what_to_do() {
        let folder = made(&json!({"Datastore": {"Spec": {"type": "pebbleds", "path": "pebble"}}}));
        let refused = Source::open(folder.path()).unwrap_err().to_string();
        assert!(
            refused.contains("pebbleds") && refused.contains("dag export"),
            "{refused}"
        );
    }

    #[test]
    fn other_folders_and_other_versions_are_refused() {
        let spec = json!({"Datastore": {"Spec": {"type": "mount", "mounts": [
            {"mountpoint": "/blocks", "type": "flatfs", "path": "blocks"}]}}});
        let folder = made(&spec);
        let version = folder.path().join("version");
        for (text, says) in [
            ("11", "repo migrate"),
            ("19", "newer cairn"),
            ("x", "no number"),
        ] {
            fs::write(&version, text).unwrap();
            let refused = Source::open(folder.path()).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        fs::remove_file(&version).unwrap();
        let refused = Source::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("no Kubo repository"), "{refused}");
        fs::write(&version, "12").unwrap();
        assert!(Source::open(folder.path()).is_ok());
        fs::remove_file(folder.path().join("blocks/SHARDING")).unwrap();
        let refused = Source::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("SHARDING"), "{refused}");
    }
}
