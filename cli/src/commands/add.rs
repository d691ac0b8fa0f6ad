//! `add`.

use super::{Shell, sources};
use crate::args::AddArgs;
use crate::exit::Failure;
use crate::output::{Progress, escape};
use crate::rpc::add::Line;
use crate::rpc::client::Question;
use crate::rpc::entries::{
    Folders, Hidden, InPlace, Keep, Links, LocalUpload, Source, Strays, Walk, is_folder,
};
use std::fs;
use std::path::PathBuf;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Everything,
    Cids,
    LastCid,
    Nothing,
}

/// `add`.
pub async fn add(shell: &mut Shell, arguments: AddArgs) -> Result<(), Failure> {
    let told = match (arguments.silent, arguments.quieter, arguments.quiet) {
        (true, _, _) => Told::Nothing,
        (false, true, _) => Told::LastCid,
        (false, false, true) => Told::Cids,
        (false, false, false) => Told::Everything,
    };
    let upload = upload(&arguments)?;
    let watched = shell.wants_progress(arguments.progress) && told != Told::Nothing;
    let total = if watched { total(&upload).await } else { None };
    let question = question(shell, &arguments)
        .with("progress", watched)
        .upload(upload);
    let progress = if watched {
        Progress::bytes(total)
    } else {
        Progress::none()
    };
    let mut meter = Meter::default();
    let mut last = None;
    shell
        .print_each(question, |line: Line, printer| {
            progress.at(meter.read(&line));
            if line.hash.is_empty() {
                return Ok(());
            }
            match told {
                Told::Everything => {
                    let text = format!("added {} {}", line.hash, escape(&line.name));
                    progress
                        .beside(|| printer.line(&text).and_then(|()| printer.flush_if(watched)))?;
                }
                Told::Cids => {
                    progress.beside(|| {
                        printer
                            .line(&line.hash)
                            .and_then(|()| printer.flush_if(watched))
                    })?;
                }
                Told::LastCid => last = Some(line.hash),
                Told::Nothing => {}
            }
            Ok(())
        })
        .await?;
    drop(progress);
    if let Some(cid) = last {
        shell.printer.line(&cid)?;
    }
    Ok(())
}

fn question(shell: &Shell, arguments: &AddArgs) -> Question {
    shell
        .question("add")
        .maybe("only-hash", arguments.only_hash.then_some(true))
        .maybe(
            "wrap-with-directory",
            arguments.wrap_with_directory.then_some(true),
        )
        .with("pin", arguments.pin)
        .maybe("pin-name", arguments.pin_name.as_ref())
        .maybe("profile", arguments.profile.as_ref())
        .maybe("cid-version", arguments.cid_version.as_ref())
        .maybe("nocopy", arguments.nocopy.then_some(true))
        .maybe("raw-leaves", arguments.raw_leaves)
        .maybe("chunker", arguments.chunker.as_ref())
        .maybe("hash", arguments.hash.as_ref())
        .maybe("trickle", arguments.trickle.then_some(true))
}

/// What goes in. What can be refused is refused before anything is sent.
fn upload(arguments: &AddArgs) -> Result<LocalUpload, Failure> {
    let links = match (arguments.dereference_symlinks, arguments.dereference_args) {
        (true, _) => Links::Follow,
        (false, true) => Links::FollowNamed,
        (false, false) => Links::Keep,
    };
    for path in &arguments.paths {
        let Ok(found) = fs::symlink_metadata(path) else {
            continue;
        };
        if found.is_dir() && !arguments.recursive {
            return Err(is_folder(path).into());
        }
    }
    let keep = |wanted: bool| if wanted { Keep::Yes } else { Keep::No };
    Ok(LocalUpload {
        sources: sources(arguments.paths.clone(), arguments.stdin_name.as_deref()),
        walk: Walk {
            folders: if arguments.recursive {
                Folders::Take
            } else {
                Folders::Refuse
            },
            hidden: if arguments.hidden {
                Hidden::Take
            } else {
                Hidden::Skip
            },
            links,
            in_place: if arguments.nocopy {
                InPlace::Told
            } else {
                InPlace::Untold
            },
            strays: Strays::Refuse,
            keep_mode: keep(arguments.preserve_mode),
            keep_mtime: keep(arguments.preserve_mtime),
        },
        ..LocalUpload::default()
    })
}

/// Bytes that will be read, if that can be said beforehand.
pub(crate) async fn total(upload: &LocalUpload) -> Option<u64> {
    let mut paths = Vec::new();
    for source in &upload.sources {
        match source {
            Source::Stdin(_) => return None,
            Source::Path(path) | Source::Named(path, _) => paths.push(path.clone()),
            Source::Bytes(..) => {}
        }
    }
    let hidden = upload.walk.hidden;
    tokio::task::spawn_blocking(move || count(paths, hidden))
        .await
        .ok()
}

fn count(mut open: Vec<PathBuf>, hidden: Hidden) -> u64 {
    let mut total = 0;
    while let Some(path) = open.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.is_file() {
            total += found.len();
        }
        let inside = if found.is_dir() {
            fs::read_dir(&path).ok()
        } else {
            None
        };
        for entry in inside.into_iter().flatten().flatten() {
            let dotted = entry.file_name().as_encoded_bytes().starts_with(b".");
            if hidden == Hidden::Take || !dotted {
                open.push(entry.path());
            }
        }
    }
    total
}

/// From lines to the bytes done so far.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    done: u64,
    last: String,
}

impl Meter {
    pub(crate) fn read(&mut self, line: &Line) -> u64 {
        if line.hash.is_empty() {
            return self.done + line.bytes;
        }
        // A folder comes right behind the last of what is in it, and was counted with it.
        let is_folder = self
            .last
            .strip_prefix(&line.name)
            .is_some_and(|rest| line.name.is_empty() || rest.starts_with('/'));
        if !is_folder {
            self.done += line.size.parse::<u64>().unwrap_or(0);
        }
        self.last.clone_from(&line.name);
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str, size: u64) -> Line {
        Line {
            name: name.to_owned(),
            hash: "bafy".to_owned(),
            bytes: 0,
            size: size.to_string(),
            ..Line::default()
        }
    }

    #[test]
    fn folders_are_not_counted_twice() {
        let mut meter = Meter::default();
        assert_eq!(meter.read(&added("d/a", 10)), 10);
        assert_eq!(meter.read(&added("d/b/c", 5)), 15);
        assert_eq!(meter.read(&added("d/b", 6)), 15);
        assert_eq!(meter.read(&added("d", 20)), 15);
        assert_eq!(meter.read(&added("da", 1)), 16);
    }
}
