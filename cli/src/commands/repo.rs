//! `repo`.

use super::{Shell, import_kubo};
use crate::args::{RepoCommand, RepoStatArgs};
use crate::exit::Failure;
use crate::output::{self, Printer, Progress, human_bytes, utc};
use crate::rpc::client::Question;
use crate::rpc::repo::snapshot::SnapshotAnswer;
use crate::rpc::repo::verify::VerifyLine;
use crate::rpc::repo::{Collected, Collecting, RebuildLine, RepoStat, RepoVersion, Scrub};
use cairn_node::explain::counted;

/// `repo`.
pub async fn repo(shell: &mut Shell, command: RepoCommand) -> Result<(), Failure> {
    match command {
        RepoCommand::Stat(arguments) => stat(shell, arguments).await,
        RepoCommand::Gc {
            quiet,
            silent,
            stream_errors: _,
        } => {
            let question = shell
                .question("repo/gc")
                .maybe("silent", silent.then_some(true));
            let prefix = if quiet { "" } else { "removed " };
            let watched = shell.wants_progress(None) && !silent;
            gc(shell, question, prefix, watched.then(Progress::words)).await
        }
        RepoCommand::ImportKubo(arguments) => import_kubo::import_kubo(shell, arguments).await,
        RepoCommand::Rebuild => {
            let question = shell.question("repo/rebuild");
            let figure = Figure::new(shell);
            shell
                .print_each(question, |line: RebuildLine, printer| {
                    figure.take(&line.msg, line.bytes, line.total, printer)
                })
                .await
        }
        // Handled before there is a shell.
        RepoCommand::Restore { .. } => Ok(()),
        RepoCommand::Snapshot { folder } => {
            // The daemon may have been started elsewhere.
            let folder = std::path::absolute(folder)?;
            let folder = folder.to_str().ok_or_else(|| {
                Failure::runtime(format!(
                    "{} is not UTF-8; name another folder",
                    folder.display()
                ))
            })?;
            let question = shell.question("repo/snapshot").arg(folder);
            shell
                .print_each(question, |answer: SnapshotAnswer, printer| {
                    for notice in &answer.notices {
                        output::warning(&output::escape_line(notice));
                    }
                    if answer.in_place > 0 {
                        output::warning(&format!(
                            "{} in files of yours (`cairn filestore ls`): their content is not in the snapshot",
                            counted(answer.in_place, "block lies", "blocks lie")
                        ));
                    }
                    Ok(printer.line(&snapshot_line(&answer))?)
                })
                .await
        }
        RepoCommand::Verify {
            drop,
            heal,
            heal_timeout,
        } => {
            let question = shell
                .question("repo/verify")
                .maybe("drop", drop.then_some(true))
                .maybe("heal", heal.then_some(true))
                .maybe("heal-timeout", heal_timeout);
            verify(shell, question).await
        }
        RepoCommand::Version { quiet } => {
            let question = shell.question("repo/version");
            shell
                .print_each(question, |answer: RepoVersion, printer| {
                    let prefix = if quiet { "" } else { "cairn repo version " };
                    Ok(printer.line(&format!("{prefix}fs-repo@{}", answer.version))?)
                })
                .await
        }
    }
}

/// What was made, and what of it takes room.
fn snapshot_line(made: &SnapshotAnswer) -> String {
    let path = output::escape_line(&made.path).into_owned();
    let shared = human_bytes(made.cloned + made.linked);
    let copied = human_bytes(made.copied);
    let index = if made.has_index {
        ""
    } else {
        "; its index is built at the first opening"
    };
    format!(
        "made {path} of {} of blocks, {shared} of them shared with the repository and {copied} copied{index}; it \
         holds the private keys too",
        human_bytes(made.bytes)
    )
}

async fn gc(
    shell: &mut Shell,
    question: Question,
    prefix: &str,
    progress: Option<Progress>,
) -> Result<(), Failure> {
    let question = question
        .with("notices", true)
        .maybe("progress", progress.as_ref().map(|_| true));
    let mut now = Collecting::default();
    let mut removed = 0;
    if let Some(progress) = &progress {
        progress.say("marking what stays".to_owned());
    }
    shell
        .print_each(question, |line: Collected, printer| {
            let mut print = || {
                if !line.notice.is_empty() {
                    output::warning(&line.notice);
                }
                if let Some(key) = &line.key {
                    removed += 1;
                    printer.line(&format!("{prefix}{}", key.cid))?;
                }
                printer.flush_if(progress.is_some())
            };
            let Some(progress) = &progress else {
                return Ok(print()?);
            };
            if let Some(told) = line.progress {
                now = told;
            } else {
                progress.beside(print)?;
            }
            progress.say(collecting(&Collecting { removed, ..now }));
            Ok(())
        })
        .await?;
    if progress.is_some() {
        drop(progress);
        let freed = human_bytes(now.freed);
        output::note(&format!(
            "removed {}, {freed} given back to the file system",
            counted(removed, "block", "blocks")
        ));
    }
    Ok(())
}

/// How far a collection is, in one line.
fn collecting(now: &Collecting) -> String {
    let mut text = format!("marked {}, removed {}", now.marked, now.removed);
    if now.to_compact > 0 {
        text.push_str(&format!(
            ", compacting {} of {}",
            now.compacted, now.to_compact
        ));
    }
    text
}

async fn verify(shell: &mut Shell, question: Question) -> Result<(), Failure> {
    let figure = Figure::new(shell);
    shell
        .print_each(question, |line: VerifyLine, printer| {
            figure.take(&line.msg, line.bytes, line.total, printer)
        })
        .await
}

/// A share of bytes, shown if somebody watches, with lines beside it.
struct Figure {
    progress: Progress,
    watched: bool,
}

impl Figure {
    fn new(shell: &Shell) -> Self {
        let watched = shell.wants_progress(None);
        let progress = if watched {
            Progress::share()
        } else {
            Progress::none()
        };
        Self { progress, watched }
    }

    /// A line if there is one, else a figure.
    fn take(
        &self,
        line: &str,
        bytes: u64,
        total: u64,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        if line.is_empty() {
            self.progress.at_share(bytes, total);
            return Ok(());
        }
        self.progress.beside(|| {
            printer.line(&output::escape_line(line))?;
            Ok(printer.flush_if(self.watched)?)
        })
    }
}

/// `repo stat`.
pub async fn stat(shell: &mut Shell, arguments: RepoStatArgs) -> Result<(), Failure> {
    let question = shell
        .question("repo/stat")
        .maybe("size-only", arguments.size_only.then_some(true));
    shell
        .print_each(question, |stat: RepoStat, printer| {
            let bytes = |bytes: u64| {
                if arguments.human {
                    human_bytes(bytes)
                } else {
                    bytes.to_string()
                }
            };
            let known = |figure: Option<u64>| figure.map_or_else(|| "unknown".to_owned(), bytes);
            let sizes = [
                ("RepoSize:", bytes(stat.repo_size)),
                ("StorageMax:", bytes(stat.storage_max)),
            ];
            let mut rows = Vec::new();
            if !arguments.size_only {
                rows.push(("NumObjects:", stat.num_objects.to_string()));
            }
            rows.extend(sizes);
            if !arguments.size_only {
                rows.push((
                    "RepoPath:",
                    output::escape_line(&stat.repo_path).into_owned(),
                ));
                rows.extend([
                    ("Version:", stat.version.clone()),
                    ("DiskSize:", bytes(stat.disk_size)),
                    ("DiskFree:", known(stat.disk_free)),
                    ("Reserve:", known(stat.reserve)),
                    ("CacheSize:", bytes(stat.cache_size)),
                    ("CacheMax:", bytes(stat.cache_max)),
                    ("Pins:", stat.pins.to_string()),
                    ("Scrub:", scrub(&stat.scrub, bytes)),
                ]);
            }
            let rows: Vec<Vec<String>> = rows
                .into_iter()
                .map(|(name, value)| vec![name.to_owned(), value])
                .collect();
            for line in output::columns(&rows) {
                printer.line(&line)?;
            }
            Ok(())
        })
        .await
}

/// How the scrub stands, in one line.
fn scrub(scrub: &Scrub, bytes: impl Fn(u64) -> String) -> String {
    let last = match scrub.finished {
        0 => "no round finished yet".to_owned(),
        at => format!("last round finished {}", utc(at)),
    };
    let read = format!("bytes read: {}, bad: {}", bytes(scrub.bytes), scrub.bad);
    let now = match (scrub.started, scrub.share) {
        (0, 0) => "switched off".to_owned(),
        (0, _) if scrub.finished > 0 => format!("resting ({read})"),
        (0, _) => "not begun".to_owned(),
        (at, 0) => format!("switched off in the round begun {} ({read})", utc(at)),
        (at, _) => format!("running since {} ({read})", utc(at)),
    };
    format!("{now}; {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_tells_what_it_did_so_far() {
        let mut now = Collecting {
            marked: 5,
            removed: 2,
            ..Collecting::default()
        };
        assert_eq!(collecting(&now), "marked 5, removed 2");
        (now.compacted, now.to_compact) = (1, 3);
        assert_eq!(collecting(&now), "marked 5, removed 2, compacting 1 of 3");
    }

    #[test]
    fn the_scrub_is_told_in_one_line() {
        let told = |share, started, finished| {
            let state = Scrub {
                share,
                started,
                finished,
                bytes: 7,
                bad: 1,
            };
            scrub(&state, |bytes| bytes.to_string())
        };
        assert_eq!(told(2, 0, 0), "not begun; no round finished yet");
        assert_eq!(told(0, 0, 0), "switched off; no round finished yet");
        assert_eq!(
            told(2, 1_700_000_000, 0),
            "running since 2023-11-14T22:13:20Z (bytes read: 7, bad: 1); no round finished yet"
        );
        assert_eq!(
            told(2, 0, 1_700_000_000),
            "resting (bytes read: 7, bad: 1); last round finished 2023-11-14T22:13:20Z"
        );
    }
}
