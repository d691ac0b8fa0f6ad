//! The repository's folder: made, found, and the small files in it.
//!
//! Blocks, index and journal belong to the store, the key to the node. Here are `version`,
//! `config.toml`, and the files `api` and `gateway` that tell where a daemon listens.

use crate::config::address::ListenAddress;
use crate::config::keystore::Secrets;
use crate::config::{Config, ConfigError, TEMPLATE};
use cairn_node::denylist::Denylist;
use cairn_node::identity::IdentityError;
use cairn_node::keystore::{Keystore, KeystoreError, OWN, Secret, SecretError};
use cairn_store::Store;
use cairn_store::durable::{self, Access};
pub use cairn_store::format::FORMAT;
use cairn_store::snapshot::{SnapshotError, lies_in};
use cairn_store::store::{OpenError, OpenEvent};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::fs::{self, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A repository's place. Nothing is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    path: PathBuf,
    passphrase: Option<Secret>,
}

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is none.
    #[error("no repository found in {path}; please run: 'cairn init'")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// There is one already.
    #[error(
        "a repository already exists in {path}; initializing it again would overwrite its keys"
    )]
    Exists {
        /// Where it is.
        path: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its configuration is wrong.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// Somebody else changes the configuration and does not end.
    #[error(
        "{path} is being changed by another process (it holds {CONFIG_LOCK} beside it); try again when \
         that has ended"
    )]
    ConfigLocked {
        /// The file.
        path: String,
    },
    /// Its key is missing or damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A key is not had.
    #[error(transparent)]
    Keys(#[from] KeystoreError),
    /// The secret that keys are sealed with is not had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Another process has it open.
    #[error(
        "the repository at {path} is in use by {holder} (it holds {path}/{LOCK}, which goes with it and \
         need not be removed); if that is a daemon `cairn shutdown` ends it, a `cairn sync --watch` goes on until it is \
         interrupted, any other command ends by itself"
    )]
    InUse {
        /// Where it is.
        path: String,
        /// Who has it.
        holder: String,
    },
    /// Its store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Which file tells where a daemon listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The RPC's.
    Api,
    /// The gateway's.
    Gateway,
}

impl Listener {
    const fn file(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Gateway => "gateway",
        }
    }
}

impl Repository {
    /// The repository at `path`, which may not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            passphrase: None,
        }
    }

    /// The same, with the passphrase that the environment gave for its keys.
    #[must_use]
    pub fn with_passphrase(self, passphrase: Option<Secret>) -> Self {
        Self { passphrase, ..self }
    }

    /// The keys, with what opens and seals them.
    pub fn keystore(&self) -> Result<Keystore, RepositoryError> {
        let secrets = self.secrets()?;
        Ok(Keystore::open_with_old(
            &self.path,
            secrets.secret,
            secrets.old,
        )?)
    }

    /// What seals and opens keys, as configured.
    pub fn secrets(&self) -> Result<Secrets, RepositoryError> {
        let section = self.config()?.keystore;
        Ok(section.secrets(&self.path, self.passphrase.clone())?)
    }

    /// The keys as far as no secret is needed: their names and public halves.
    pub fn public_keys(&self) -> Result<Keystore, RepositoryError> {
        // Whether there is a repository at all is the better first question.
        self.must_exist()?;
        Ok(Keystore::open(&self.path, None)?)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where is kept what is known of peers. All of it may be lost.
    pub fn peers(&self) -> PathBuf {
        self.path.join(PEERS)
    }

    /// What its operator does not want here, not read yet: the lists in `system`, unless the configuration leaves
    /// those out, and its own, which override them.
    pub fn denylist(&self, config: &Config, system: &[PathBuf]) -> Denylist {
        let system = system.iter().filter(|_| config.denylists.system).cloned();
        Denylist::new(system.chain([self.path.join(DENYLISTS)]).collect())
    }

    /// Whether `init` was here.
    pub fn exists(&self) -> bool {
        self.path.join(CONFIG).exists()
    }

    /// Makes the folder, the key and the configuration; the configuration last, because it is
    /// what makes a folder a repository. Gives the new node's name.
    pub fn init(&self) -> Result<String, RepositoryError> {
        if self.exists() {
            return Err(RepositoryError::Exists { path: self.text() });
        }
        for folder in FOLDERS {
            let folder = self.path.join(folder);
            fs::create_dir_all(&folder).map_err(|source| disk("create", &folder, source))?;
        }
        let keys = Keystore::open(&self.path, None)?;
        let id = match keys.named(OWN) {
            // An earlier init was cut short after it made the key.
            Ok(key) => key.id,
            Err(KeystoreError::Identity(IdentityError::Missing { .. }))
                if !self.holds_something() =>
            {
                let keys = cairn_node::identity::create(&self.path)?;
                keys.public().to_peer_id()
            }
            Err(error) => return Err(error.into()),
        };
        // Blocks of another format stay what they are when the configuration alone was lost.
        let version = self.path.join(VERSION);
        let told = version.try_exists();
        if !told.map_err(|source| disk("read", &version, source))? {
            self.write(VERSION, &format!("{FORMAT}\n"))?;
        }
        self.write(CONFIG, TEMPLATE)?;
        Ok(id.to_string())
    }

    /// Whether there was a node here before: then it had a name, and gets no other in silence.
    fn holds_something(&self) -> bool {
        [BLOCKS, JOURNAL].into_iter().any(|folder| {
            fs::read_dir(self.path.join(folder)).is_ok_and(|mut files| files.next().is_some())
        })
    }

    /// Says how to make it if there is none.
    pub fn must_exist(&self) -> Result<(), RepositoryError> {
        match self.exists() {
            true => Ok(()),
            false => Err(RepositoryError::Missing { path: self.text() }),
        }
    }

    /// The text of `config.toml`.
    pub fn config_text(&self) -> Result<String, RepositoryError> {
        let path = self.path.join(CONFIG);
        match read_config(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(RepositoryError::Missing { path: self.text() })
            }
            Err(error) => Err(disk("read", &path, error)),
        }
    }

    /// What the operator chose.
    pub fn config(&self) -> Result<Config, RepositoryError> {
        Config::parse(&self.config_text()?).map_err(|source| self.config_error(source))
    }

    /// Lets nobody else change `config.toml` while the guard lives: whoever writes it holds one from
    /// before reading what to change. Waits for others, but not for ever.
    pub async fn lock_config(&self) -> Result<ConfigGuard, RepositoryError> {
        self.must_exist()?;
        // The file stays: were it removed, two could hold a lock each, on two files of one name.
        let path = self.path.join(CONFIG_LOCK);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| disk("open", &path, source))?;
        for _ in 0..CONFIG_LOOKS_MAX {
            match file.try_lock() {
                Ok(()) => return Ok(ConfigGuard { _file: file }),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(CONFIG_LOOK_TIME).await,
                Err(TryLockError::Error(source)) => return Err(disk("lock", &path, source)),
            }
        }
        Err(RepositoryError::ConfigLocked {
            path: self.config_path().display().to_string(),
        })
    }

    /// Replaces `config.toml`, whole or not at all. The text was validated.
    pub fn write_config(&self, text: &str) -> Result<(), RepositoryError> {
        // What cannot be read again would take the repository with it.
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(disk(
                "write",
                &self.config_path(),
                too_long(CONFIG_BYTES_MAX),
            ));
        }
        self.write(CONFIG, text)
    }

    /// Says which file a configuration error is about.
    pub fn config_error(&self, source: ConfigError) -> RepositoryError {
        RepositoryError::Config {
            path: self.path.join(CONFIG).display().to_string(),
            source,
        }
    }

    /// Where `config.toml` is.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Opens the store. Blocks; a rebuild of the index can take long.
    pub fn open_store(
        &self,
        config: &Config,
        on_event: &mut dyn FnMut(OpenEvent),
    ) -> Result<Store, RepositoryError> {
        let mut looks = 0;
        let store = loop {
            match Store::open(&self.path, &config.storage, on_event) {
                // Somebody may only have looked who has it, see `is_open`.
                Err(OpenError::Locked { .. }) if looks < LOOKS => {
                    looks += 1;
                    std::thread::sleep(LOOK_TIME);
                }
                Err(OpenError::Locked { path }) => {
                    let holder = self.holder();
                    return Err(RepositoryError::InUse { path, holder });
                }
                opened => break opened?,
            }
        };
        // We have the store: what a killed daemon left behind is true no more.
        self.withdraw_listener(Listener::Api);
        self.withdraw_listener(Listener::Gateway);
        Ok(store)
    }

    /// Where the running daemon listens. What a killed one left behind does not count: by now the
    /// address may be somebody else's.
    pub fn listener(&self, listener: Listener) -> Option<ListenAddress> {
        let text = read_text(&self.path.join(listener.file()), LISTENER_BYTES_MAX).ok()?;
        let address = text.trim().parse().ok()?;
        self.is_open().then_some(address)
    }

    /// Who has the store open, as far as the lock's file tells: whoever only reads writes nothing into
    /// it, and then it may name a process of the past.
    pub fn holder(&self) -> String {
        let text = read_text(&self.path.join(LOCK), HOLDER_BYTES_MAX).unwrap_or_default();
        let number = text.trim().parse().ok().filter(|number: &i32| *number > 0);
        let pid = number.and_then(Pid::from_raw);
        let lives = |pid: &Pid| test_kill_process(*pid) != Err(Errno::SRCH);
        pid.filter(lives).map_or_else(
            || "another process".to_owned(),
            |pid| format!("process {}", pid.as_raw_nonzero()),
        )
    }

    /// Whether some process has the store open. Its lock dies with it.
    fn is_open(&self) -> bool {
        fs::File::open(self.path.join(LOCK))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Tells others where we listen.
    pub fn announce_listener(
        &self,
        listener: Listener,
        address: ListenAddress,
    ) -> Result<(), RepositoryError> {
        self.write(listener.file(), &address.to_string())
    }

    /// We listen no more.
    pub fn withdraw_listener(&self, listener: Listener) {
        // A file that stays behind is recognized by nobody having the store open.
        let _ = fs::remove_file(self.path.join(listener.file()));
    }

    /// Copies what belongs to a repository beside its blocks into a folder that is to be one: keys, denylists,
    /// and last the configuration, which is what makes it one. What can be had again (peers, what was provided) and
    /// what is of this place alone (locks, addresses) stays behind. Tells what the operator should know.
    pub fn copy_rest(from: &Path, to: &Path) -> Result<Vec<String>, SnapshotError> {
        for folder in [KEYSTORE, DENYLISTS] {
            copy_files(&from.join(folder), &to.join(folder))?;
        }
        for name in [IDENTITY, SWARM_KEY] {
            copy_file(&from.join(name), &to.join(name))?;
        }
        let notices = copy_secrets(from, to)?;
        copy_file(&from.join(CONFIG), &to.join(CONFIG))?;
        sync_folder(to)?;
        Ok(notices)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), RepositoryError> {
        let path = self.path.join(name);
        // The configuration may hold a token.
        let access = if name == CONFIG {
            Access::Owner
        } else {
            Access::Shared
        };
        durable::write(&path, text.as_bytes(), access)
            .map_err(|source| disk("write", &path, source))
    }

    fn text(&self) -> String {
        self.path.display().to_string()
    }
}

/// Copies what keys are sealed with, where the configuration names it by its way from the repository; tells of what the
/// copy will not find, or will share.
fn copy_secrets(from: &Path, to: &Path) -> Result<Vec<String>, SnapshotError> {
    let mut notices = Vec::new();
    // What cannot be read of it is told by whoever starts with it.
    let Ok(config) = Repository::at(from).config() else {
        return Ok(notices);
    };
    let section = config.keystore;
    let files = [
        ("keystore.key_file", section.key_file),
        ("keystore.passphrase_file", section.passphrase_file),
    ];
    for (key, file) in files.iter().filter(|(_, file)| !file.is_empty()) {
        let (path, named) = (Path::new(file), from.join(file));
        let Ok(found) = fs::symlink_metadata(&named) else {
            continue;
        };
        // A link may lead out of it.
        let is_inside = found.is_file() && lies_in(&named, from);
        let goes_up = path.components().any(|part| part == Component::ParentDir);
        if path.is_absolute() {
            if is_inside {
                notices.push(format!(
                    "{file}, which {key} names, lies in {} and is not copied: the copy needs it there, or a \
                     configuration that names another",
                    from.display()
                ));
            }
        } else if is_inside && !goes_up {
            let copy = to.join(path);
            if let Some(folder) = copy.parent() {
                fs::create_dir_all(folder).map_err(SnapshotError::disk("make", folder))?;
            }
            // What lies beside the keys has come along with them.
            if !copy.exists() {
                copy_file(&named, &copy)?;
            }
            // The copy itself is synced last.
            let made = copy.ancestors().skip(1);
            for folder in made.take_while(|folder| *folder != to) {
                sync_folder(folder)?;
            }
        } else {
            notices.push(format!(
                "{file}, which {key} names by its way from the repository, lies elsewhere and is not copied: the \
                 copy needs it at the same way from its own place"
            ));
        }
    }
    Ok(notices)
}

/// Copies the files in a folder, if it is there; what is no file stays behind.
fn copy_files(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(SnapshotError::disk("read", from))?,
    };
    let mode = fs::metadata(from).map(|metadata| metadata.mode() & MODE);
    fs::DirBuilder::new()
        .mode(mode.unwrap_or(0o700))
        .create(to)
        .map_err(SnapshotError::disk("make", to))?;
    for entry in entries {
        let name = entry
            .map_err(SnapshotError::disk("read", from))?
            .file_name();
        // Half-written ones and locks are nobody's but their writer's.
        if !name.as_encoded_bytes().starts_with(b".") {
            copy_file(&from.join(&name), &to.join(&name))?;
        }
    }
    sync_folder(to)
}

/// What lies in a folder is found there after a power cut.
fn sync_folder(folder: &Path) -> Result<(), SnapshotError> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(SnapshotError::disk("sync", folder))
}

/// Copies a file with its mode, durably; what is not there or no file stays behind.
fn copy_file(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    let mut options = fs::OpenOptions::new();
    // What is no file must not keep us waiting.
    let opened = options
        .read(true)
        .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(from);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(SnapshotError::disk("read", from))?,
    };
    let metadata = file.metadata().map_err(SnapshotError::disk("read", from))?;
    if !metadata.is_file() {
        return Ok(());
    }
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(metadata.mode() & MODE)
        .open(to)
        .and_then(|mut copy| {
            io::copy(&mut file, &mut copy)?;
            copy.sync_all()
        });
    written.map_err(SnapshotError::disk("write", to))
}

/// Whoever has it is the only one to change `config.toml`.
#[derive(Debug)]
#[must_use = "others may write as soon as it is dropped"]
pub struct ConfigGuard {
    _file: fs::File,
}

/// Reads a configuration, or what is to become one.
pub fn read_config(path: &Path) -> io::Result<String> {
    read_text(path, CONFIG_BYTES_MAX)
}

/// Reads a small file; a larger one than `most` bytes is no such file.
fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_long(most));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

fn too_long(most: u64) -> io::Error {
    let why = format!("it has more than {most} bytes");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn disk(what: &'static str, path: &Path, source: io::Error) -> RepositoryError {
    RepositoryError::Disk {
        what,
        path: path.display().to_string(),
        source,
    }
}

const VERSION: &str = "version";
const CONFIG: &str = "config.toml";
/// Most bytes of a configuration that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of a file that tells where a daemon listens.
const LISTENER_BYTES_MAX: u64 = 256;
/// Most bytes of the number of the process that has the store open, with a line end.
const HOLDER_BYTES_MAX: u64 = 32;
/// Held by whoever changes the configuration.
const CONFIG_LOCK: &str = "config.lock";
/// How often the lock of the configuration is looked at, and how long between: ten seconds in all.
const CONFIG_LOOKS_MAX: u32 = 1000;
const CONFIG_LOOK_TIME: Duration = Duration::from_millis(10);
/// Held by whoever has the store open.
const LOCK: &str = "repo.lock";
/// How long somebody holds the lock who only looks, and how often that may happen in a row. Who
/// finds a daemon there is told within a tenth of a second.
const LOOK_TIME: Duration = Duration::from_millis(5);
const LOOKS: u32 = 8;
const BLOCKS: &str = "blocks";
const JOURNAL: &str = "journal";
const PEERS: &str = "peers";
const DENYLISTS: &str = "denylists";
const KEYSTORE: &str = "keystore";
const IDENTITY: &str = "identity.key";
const SWARM_KEY: &str = "swarm.key";
/// What of a file's mode is kept in a copy.
const MODE: u32 = 0o777;
const FOLDERS: [&str; 6] = [BLOCKS, JOURNAL, "index", KEYSTORE, DENYLISTS, PEERS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_repository_is_told_with_what_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path().join("none"));
        let error = repository.config().unwrap_err();
        assert!(
            error.to_string().ends_with("please run: 'cairn init'"),
            "{error}"
        );
    }

    #[test]
    fn a_configuration_is_read_up_to_a_bound_and_refused_beyond_it() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let blank = |more: usize| " ".repeat(usize::try_from(CONFIG_BYTES_MAX).unwrap() + more);
        repository.write_config(&blank(0)).unwrap();
        assert!(repository.config().is_ok());
        let path = repository.config_path();
        let error = repository.write_config(&blank(1)).unwrap_err();
        let told = format!(
            "cannot write {}: it has more than 1048576 bytes",
            path.display()
        );
        assert_eq!(error.to_string(), told);
        assert!(repository.config().is_ok());
        fs::write(&path, blank(1)).unwrap();
        let error = repository.config().unwrap_err().to_string();
        let told = format!(
            "cannot read {}: it has more than 1048576 bytes",
            path.display()
        );
        assert_eq!(error, told);
    }

    #[tokio::test(start_paused = true)]
    async fn the_configuration_is_changed_by_one_at_a_time_and_nobody_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        assert!(matches!(
            repository.lock_config().await,
            Err(RepositoryError::Missing { .. })
        ));
        repository.write_config(TEMPLATE).unwrap();
        let guard = repository.lock_config().await.unwrap();
        let error = repository.lock_config().await.unwrap_err().to_string();
        assert!(
            error.contains("config.toml")
                && error.contains("config.lock")
                && error.contains("try again"),
            "{error}"
        );
        drop(guard);
        drop(repository.lock_config().await.unwrap());
    }

    #[test]
    fn init_over_a_lost_configuration_leaves_the_format_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let name = repository.init().unwrap();
        let version = folder.path().join(VERSION);
        assert_eq!(fs::read_to_string(&version).unwrap(), format!("{FORMAT}\n"));
        fs::write(&version, "4000000000\n").unwrap();
        fs::remove_file(folder.path().join(CONFIG)).unwrap();
        assert_eq!(repository.init().unwrap(), name);
        assert_eq!(fs::read_to_string(&version).unwrap(), "4000000000\n");
        let config = Config::parse(TEMPLATE).unwrap();
        let error = repository.open_store(&config, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("4000000000"), "{error}");
    }

    #[test]
    fn tells_where_a_daemon_listens_while_it_has_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let address = ListenAddress::loopback(7);
        assert_eq!(repository.listener(Listener::Api), None);
        repository
            .announce_listener(Listener::Api, address)
            .unwrap();
        // Nobody has the store.
        assert_eq!(repository.listener(Listener::Api), None);
        let lock = fs::File::create(folder.path().join(LOCK)).unwrap();
        lock.lock().unwrap();
        assert_eq!(repository.listener(Listener::Api), Some(address));
        // What is longer than any address is none, even if it begins with one.
        let address_text = address.to_string();
        let padded = |length: u64| format!("{address_text:<0$}", usize::try_from(length).unwrap());
        let told = |text: &str| {
            fs::write(folder.path().join("api"), text).unwrap();
            repository.listener(Listener::Api)
        };
        assert_eq!(told(&padded(LISTENER_BYTES_MAX)), Some(address));
        assert_eq!(told(&padded(LISTENER_BYTES_MAX + 1)), None);
        repository.withdraw_listener(Listener::Api);
        assert_eq!(repository.listener(Listener::Api), None);
    }

    #[test]
    fn who_has_the_store_is_named_unless_it_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let config = Config::parse(TEMPLATE).unwrap();
        let lock = fs::File::create(folder.path().join(LOCK)).unwrap();
        lock.lock().unwrap();
        let told = |holder: &str| {
            fs::write(folder.path().join(LOCK), holder).unwrap();
            let opened = repository.open_store(&config, &mut |_| {});
            opened.unwrap_err().to_string()
        };
        let own = std::process::id();
        assert!(told(&format!("{own}\n")).contains(&format!("in use by process {own} (")));
        // Nobody's: beyond what the system numbers processes with.
        let long = format!("{own:<32}\n");
        for unknown in [
            "2147483647",
            "",
            "0",
            "-1",
            "nonsense",
            "99999999999999",
            &long,
        ] {
            let told = told(unknown);
            assert!(
                told.contains("in use by another process ("),
                "{unknown}: {told}"
            );
            assert!(told.contains("cairn shutdown"), "{told}");
        }
    }

    #[test]
    fn opening_the_store_takes_back_what_a_killed_daemon_announced() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let config = Config::parse(TEMPLATE).unwrap();
        for listener in [Listener::Api, Listener::Gateway] {
            repository
                .announce_listener(listener, ListenAddress::loopback(7))
                .unwrap();
        }
        let _store = repository.open_store(&config, &mut |_| {}).unwrap();
        assert_eq!(repository.listener(Listener::Api), None);
        assert_eq!(repository.listener(Listener::Gateway), None);
    }
}
