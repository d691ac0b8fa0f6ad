//! `sync`: a folder and a path of the file tree, the same in one direction.
//!
//! `push` makes the path what the folder is, `pull` the other way round, with `place` to move things into the folder;
//! `listing` is what the path holds now. Then `publish` has a name say the root. Watching is the same again whenever
//! something changes.

mod listing;
mod place;
mod publish;
mod pull;
mod push;
mod watch;

use super::Shell;
use crate::args::SyncArgs;
use crate::exit::Failure;
use crate::output::{self, escape_line};
use crate::rpc::entries::{
    Folders, Hidden, InPlace, Keep, Links, LocalUpload, Source, Strays, Walk,
};
use crate::rpc::files::change::Flushed;
use crate::rpc::reply::json_line;
use crate::sync::plan::Trust;
use crate::sync::scan::{Scan, scan};
use crate::sync::state::{Known, Place, State, Use};
use crate::sync::{Kind, hash};
use cairn_store::cid::Cid;
use cairn_store::unixfs::Profile;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// `sync`.
pub async fn sync(shell: &mut Shell, arguments: SyncArgs) -> Result<(), Failure> {
    let mut job = Job::new(shell, arguments)?;
    if let Some(key) = &job.arguments.publish {
        job.name = Some(publish::name_of(shell, key).await?);
    }
    if !job.arguments.watch {
        return job.once(shell).await;
    }
    watch::watch(shell, &mut job).await
}

/// One folder, one path and how to sync them.
pub(crate) struct Job {
    arguments: SyncArgs,
    folder: PathBuf,
    path: String,
    profile: Profile,
    place: Place,
    /// What the root is published under.
    name: Option<String>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Put,
    Removed,
}

/// A line of the answer as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    change: Change,
    path: &'a str,
}

/// The last line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LastLine<'a> {
    root: String,
    path: &'a str,
}

impl Job {
    fn new(shell: &Shell, arguments: SyncArgs) -> Result<Self, Failure> {
        shell.repository.must_exist()?;
        if arguments.pull && !arguments.dry_run && !arguments.folder.exists() {
            std::fs::create_dir_all(&arguments.folder)
                .map_err(|error| cannot_use(&arguments.folder, &error))?;
        }
        let folder = arguments.folder.canonicalize();
        let folder = folder.map_err(|error| cannot_use(&arguments.folder, &error))?;
        if !folder.is_dir() {
            return Err(Failure::runtime(format!(
                "{} is not a folder",
                arguments.folder.display()
            )));
        }
        let repository = shell.repository.path();
        // It would change with every sync.
        if repository
            .canonicalize()
            .is_ok_and(|repository| repository.starts_with(&folder))
        {
            return Err(Failure::runtime(format!(
                "the repository {} lies in {}; name a folder that does not hold it",
                repository.display(),
                folder.display()
            )));
        }
        let path = match &arguments.path {
            Some(path) => path.trim_end_matches('/').to_owned(),
            None => {
                let name = folder.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| {
                    Failure::Usage("name a path in the file tree, as /photos".to_owned())
                })?;
                format!("/{name}")
            }
        };
        if path.is_empty() || !path.starts_with('/') {
            return Err(Failure::Usage(format!(
                "{:?} is no path below the root of the file tree; write it like /photos",
                arguments.path.as_deref().unwrap_or_default()
            )));
        }
        let mut profile = Profile::v1_2025();
        if let Some(chunker) = &arguments.chunker {
            let chunker = chunker.parse();
            profile.chunker = chunker.map_err(|error: cairn_store::chunk::ChunkerError| {
                Failure::Usage(error.to_string())
            })?;
        }
        let wanted = match arguments.pull {
            true => Use::Change,
            false => Use::Read,
        };
        let place = Place::take(repository, &folder, &path, wanted).map_err(runtime)?;
        Ok(Self {
            arguments,
            folder,
            path,
            profile,
            place,
            name: None,
        })
    }

    /// Brings the other side to what the one is.
    async fn once(&mut self, shell: &mut Shell) -> Result<(), Failure> {
        self.place.take_again(&self.folder).map_err(runtime)?;
        if !self.arguments.dry_run {
            // What is synced with the folder is as durable as it.
            let flushed = shell.ask(shell.question("files/flush").arg("/")).await?;
            flushed.value::<Flushed>().await?;
        }
        let root = if self.arguments.pull {
            self.pull(shell).await?
        } else {
            self.push(shell).await?
        };
        let Some(root) = root else {
            return Ok(());
        };
        let published = match &self.name {
            Some(name) => self.publish(shell, name, &root).await,
            None => Ok(()),
        };
        self.tell_root(shell, &root)?;
        shell.printer.flush()?;
        published
    }

    /// How content becomes blocks, as the state remembers it.
    fn settings(&self) -> String {
        let SyncArgs {
            preserve_mode,
            preserve_mtime,
            ..
        } = self.arguments;
        format!(
            "{} mode={preserve_mode} mtime={preserve_mtime}",
            self.profile.chunker
        )
    }

    const fn trust(&self) -> Trust {
        if self.arguments.checksum {
            Trust::Content
        } else {
            Trust::Stat
        }
    }

    fn walk(&self) -> Walk {
        let keep = |wanted: bool| if wanted { Keep::Yes } else { Keep::No };
        Walk {
            folders: Folders::Take,
            hidden: Hidden::Take,
            links: Links::Keep,
            strays: Strays::Skip,
            in_place: InPlace::Untold,
            keep_mode: keep(self.arguments.preserve_mode),
            keep_mtime: keep(self.arguments.preserve_mtime),
        }
    }

    /// Looks through the folder.
    async fn look(&self) -> Result<Scan, Failure> {
        let folder = self.folder.clone();
        let scanned = tokio::task::spawn_blocking(move || scan(&folder)).await;
        scanned
            .map_err(|_| broke("looking through the folder"))?
            .map_err(runtime)
    }

    /// The same; says what is left out.
    async fn scan(&self) -> Result<Scan, Failure> {
        let scanned = self.look().await?;
        for path in scanned.left_out.iter().take(LEFT_OUT_TOLD) {
            output::note(&format!(
                "{} is neither a file nor a folder nor a link: left out",
                escape_line(path)
            ));
        }
        if let Some(more) = scanned
            .left_out
            .len()
            .checked_sub(LEFT_OUT_TOLD)
            .filter(|more| *more > 0)
        {
            output::note(&format!("{more} more like it are left out"));
        }
        Ok(scanned)
    }

    /// The CIDs that these files of the folder have.
    async fn hash(&self, paths: Vec<&str>) -> Result<HashMap<String, (Kind, Cid)>, Failure> {
        if paths.is_empty() {
            return Ok(HashMap::new());
        }
        let named = |path: &&str| Source::Named(self.folder.join(path), (*path).to_owned());
        let upload = LocalUpload {
            sources: paths.iter().map(named).collect(),
            walk: Walk {
                // One that became a folder meanwhile is none of them.
                folders: Folders::Refuse,
                ..self.walk()
            },
            ..LocalUpload::default()
        };
        let profile = self.profile.clone();
        let hashed = tokio::task::spawn_blocking(move || hash::cids(upload, &profile)).await;
        Ok(hashed.map_err(|_| broke("reading the files"))??)
    }

    /// What was synced last, if it is about this root.
    fn state_of(&self, root: Option<&Cid>) -> Result<Option<State>, Failure> {
        let state = self.place.load().map_err(runtime)?;
        Ok(state.filter(|state| Some(&state.root) == root && state.settings == self.settings()))
    }

    fn keep_state(&self, root: Cid, entries: Vec<Known>) -> Result<(), Failure> {
        let state = State {
            settings: self.settings(),
            root,
            entries,
        };
        self.place.store(&state).map_err(runtime)
    }

    fn tell(&self, shell: &mut Shell, change: Change, path: &str) -> Result<(), Failure> {
        if shell.global.wants_json() {
            return Ok(shell.printer.bytes(&json_line(&Line { change, path })?)?);
        }
        if self.arguments.quiet || self.arguments.quieter {
            return Ok(());
        }
        let sign = match change {
            Change::Put => '+',
            Change::Removed => '-',
        };
        Ok(shell
            .printer
            .line(&format!("{sign} {}", escape_line(path)))?)
    }

    fn tell_root(&self, shell: &mut Shell, root: &Cid) -> Result<(), Failure> {
        let path = &self.path;
        if shell.global.wants_json() {
            let last = LastLine {
                root: root.to_string(),
                path,
            };
            return Ok(shell.printer.bytes(&json_line(&last)?)?);
        }
        let line = match self.arguments.quieter {
            true => root.to_string(),
            false => format!("{root} {}", escape_line(path)),
        };
        Ok(shell.printer.line(&line)?)
    }
}

/// Something of ours panicked.
fn broke(doing: &str) -> Failure {
    Failure::runtime(format!("{doing} broke down; this is a bug in cairn"))
}

fn runtime(error: impl std::error::Error) -> Failure {
    Failure::runtime(error.to_string())
}

fn cannot_use(path: &Path, error: &std::io::Error) -> Failure {
    Failure::runtime(format!("cannot use {}: {error}", path.display()))
}

/// Most special files that are named.
const LEFT_OUT_TOLD: usize = 10;
