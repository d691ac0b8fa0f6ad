//! The folder of a Kubo repository: whether it is one, that nobody uses it, and where in it things lie.

use super::file::{self, Links};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use serde_json::Value;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A Kubo repository that nobody used when it was opened.
#[derive(Debug)]
pub struct Source {
    folder: PathBuf,
    version: u32,
    config: Value,
    blocks: PathBuf,
    databases: Vec<Database>,
    /// Kubo cannot start while this is held, if it left the file behind that is locked.
    _lock: Option<Lock>,
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
    /// This process has it open already.
    #[error(
        "{path} is being imported already, by this process; wait until that has ended, then import again"
    )]
    Importing {
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
        let disk = |path: &Path, source| KuboError::Disk {
            path: path.display().to_string(),
            source,
        };
        match fs::metadata(folder) {
            Ok(about) if about.is_dir() => {}
            Ok(_) => return Err(none("it is no folder")),
            Err(error) if is_absent(&error) => return Err(none("there is no such folder")),
            Err(error) => return Err(disk(folder, error)),
        }
        let version_path = folder.join("version");
        let version =
            file::read(&version_path, VERSION_BYTES_MAX).map_err(|error| {
                match is_absent(&error) {
                    true => none("it has no file `version`"),
                    false => disk(&version_path, error),
                }
            })?;
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
        let lock = Lock::hold(folder)?;
        let wrong = |why: String| KuboError::Config { path: path(), why };
        let config = file::read(&folder.join("config"), CONFIG_BYTES_MAX)
            .map_err(|error| wrong(error.to_string()))?;
        let config: Value =
            serde_json::from_slice(&config).map_err(|error| wrong(error.to_string()))?;
        let spec = config.pointer("/Datastore/Spec").cloned();
        // Older configurations leave it out where it is the usual one; beside it lies what was used last.
        let spec = match spec.filter(|spec| !spec.is_null()) {
            Some(spec) => spec,
            None => file::read(&folder.join("datastore_spec"), CONFIG_BYTES_MAX)
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

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Kubo's own lock, held for reading: it is refused while Kubo holds it, and refuses it to Kubo.
///
/// It is the process that holds it, and loses it as soon as it closes the file, by whatever descriptor. So the file is
/// opened once at a time, and opened and closed with nobody else doing so.
#[derive(Debug)]
struct Lock {
    file: Option<File>,
    about: FileId,
}

/// Device and inode.
type FileId = (u64, u64);

/// What this process holds.
static HELD: Mutex<Vec<FileId>> = Mutex::new(Vec::new());

impl Lock {
    /// The lock of the repository in `folder`; `None` if its file is not there, as it is only while, or after, somebody
    /// has the repository open.
    fn hold(folder: &Path) -> Result<Option<Self>, KuboError> {
        let path = folder.join("repo.lock");
        let disk = |source: io::Error| KuboError::Disk {
            path: path.display().to_string(),
            source,
        };
        let shown = || folder.display().to_string();
        let id = |about: &Metadata| (about.dev(), about.ino());
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it is opened: closing it again would let go of it.
        match fs::metadata(&path) {
            Ok(about) if held.contains(&id(&about)) => {
                return Err(KuboError::Importing { path: shown() });
            }
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(disk(error)),
        }
        let (file, _) = file::open(&path, Links::Followed).map_err(disk)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(KuboError::InUse { path: shown() }),
            Err(errno) => return Err(disk(errno.into())),
        }
        let about = id(&file.metadata().map_err(disk)?);
        held.push(about);
        Ok(Some(Self {
            file: Some(file),
            about,
        }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.file.take());
        held.retain(|one| *one != self.about);
    }
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
    fn what_lies_in_the_place_of_a_file_is_not_waited_for() {
        let spec = json!({"Datastore": {"Spec": {"type": "mount", "mounts": [
            {"mountpoint": "/blocks", "type": "flatfs", "path": "blocks"}]}}});
        for name in ["version", "config", "blocks/SHARDING", "repo.lock"] {
            let folder = made(&spec);
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            let pipe = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, 0o600.into(), 0).unwrap();
            let refused = Source::open(folder.path()).unwrap_err().to_string();
            assert!(refused.contains("it is no file"), "{name}: {refused}");
        }
        let folder = made(&spec);
        let name = folder.path().join("version");
        fs::remove_file(&name).unwrap();
        std::os::unix::fs::symlink("version", &name).unwrap();
        let refused = Source::open(folder.path()).unwrap_err();
        assert!(matches!(refused, KuboError::Disk { .. }), "{refused}");
    }

    #[test]
    #[cfg(target_os = "linux")] // Which tells who has locks.
    fn the_lock_stays_held_until_the_one_who_holds_it_is_gone() {
        let spec = json!({"Datastore": {"Spec": {"type": "mount", "mounts": [
            {"mountpoint": "/blocks", "type": "flatfs", "path": "blocks"}]}}});
        let folder = made(&spec);
        let lock = folder.path().join("repo.lock");
        fs::write(&lock, "").unwrap();
        let inode = format!(":{} ", fs::metadata(&lock).unwrap().ino());
        let own = format!(" {} ", std::process::id());
        let is_held = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks
                .lines()
                .any(|line| line.contains(&inode) && line.contains(&own))
        };
        let first = Source::open(folder.path()).unwrap();
        assert!(is_held());
        let refused = Source::open(folder.path()).unwrap_err();
        assert!(matches!(refused, KuboError::Importing { .. }), "{refused}");
        assert!(is_held(), "it is not let go of by who came second");
        drop(first);
        assert!(!is_held());
        assert!(Source::open(folder.path()).is_ok());
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
