//! `cat`, `get`, `ls`, `refs`, `resolve`, `dns`: reading what is there.

use super::Shell;
use crate::args::{CatArgs, DnsArgs, GetArgs, LsArgs, RefsArgs, ResolveArgs};
use crate::exit::Failure;
use crate::extract::{ExtractError, Target, extract, root_of};
use crate::output::{self, Printer, Progress, escape};
use crate::rpc::cat::IS_FOLDER;
use crate::rpc::client::{Answer, Question};
use crate::rpc::ls::{FOLDER, Link, Listing, Object, UNKNOWN};
use crate::rpc::refs::Ref;
use crate::rpc::repo::RepoStat;
use crate::rpc::resolve::PathAnswer;
use crate::rpc::stats::BitswapAnswer;
use crate::rpc::upload::{ChannelReader, PIECES_WAITING_MAX, Piece, pump};
use bytes::Bytes;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// `cat`: bytes, whatever `--json` says.
pub async fn cat(shell: &mut Shell, arguments: CatArgs) -> Result<(), Failure> {
    let question = shell
        .question("cat")
        .args(&arguments.paths)
        .maybe("offset", arguments.offset)
        .maybe("length", arguments.length);
    let answer = shell.ask(question).await;
    let mut answer = answer.map_err(|failure| of_folder(failure, &arguments.paths))?;
    let progress = match arguments.progress {
        Some(true) => Progress::bytes(answer.length),
        _ => Progress::none(),
    };
    let mut read = 0;
    while let Some(piece) = answer.piece().await? {
        read += piece.len() as u64;
        shell.printer.bytes(&piece)?;
        shell.printer.flush()?;
        progress.at(read);
    }
    Ok(())
}

/// Says which path is a folder, and what can be done with one.
fn of_folder(failure: Failure, paths: &[String]) -> Failure {
    match failure {
        Failure::Runtime(text) if text == IS_FOLDER => {
            let path = match paths {
                [path] => format!("{path}: "),
                _ => String::new(),
            };
            Failure::runtime(format!(
                "{path}{text}; `cairn ls` lists it, `cairn get` writes it to disk"
            ))
        }
        other => other,
    }
}

/// `get`.
pub async fn get(shell: &mut Shell, arguments: GetArgs) -> Result<(), Failure> {
    let as_archive = arguments.archive || arguments.compress;
    let question = shell
        .question("get")
        .arg(&arguments.path)
        .maybe("archive", as_archive.then_some(true))
        .maybe("compress", arguments.compress.then_some(true))
        .maybe("compression-level", arguments.compression_level);
    let target = match &arguments.output {
        Some(path) => Target::AtOrInto(path.clone()),
        None => Target::At(PathBuf::from(own_name(&arguments.path)?)),
    };
    let is_watched = shell.wants_progress(arguments.progress);
    let progress = if is_watched {
        Progress::bytes(None)
    } else {
        Progress::none()
    };
    let (Target::At(named) | Target::AtOrInto(named)) = &target;
    if as_archive {
        let ending = if arguments.compress { "tar.gz" } else { "tar" };
        let path = archive_path(named, ending, &arguments.path)?;
        let (first, answer) = begun(shell, question, is_watched).await?;
        let shown = path.display().to_string();
        shell
            .printer
            .line(&format!("Saving archive to {}", escape(&shown)))?;
        shell.printer.flush()?;
        return save_archive(first, answer, &path, &progress).await;
    }
    // Or it would be noticed only after all was fetched.
    if let Ok(root) = own_name(&arguments.path) {
        target
            .check(&root)
            .map_err(|error| Failure::runtime(error.to_string()))?;
    }
    let (first, answer) = begun(shell, question, is_watched).await?;
    if let Some((root, kind)) = root_of(&first) {
        target
            .place(&root, kind)
            .map_err(|error| Failure::runtime(error.to_string()))?;
    }
    let shown = named.display().to_string();
    shell
        .printer
        .line(&format!("Saving file(s) to {}", escape(&shown)))?;
    shell.printer.flush()?;
    let written = save_tree(first, answer, target, progress).await?;
    tell_if_not_kept(shell, written).await;
    Ok(())
}

/// Asks and waits for the first of what is to be saved: until then nothing is.
async fn begun(
    shell: &Shell,
    question: Question,
    is_watched: bool,
) -> Result<(Bytes, Answer), Failure> {
    let asking = async {
        let mut answer = shell.ask(question).await?;
        let first = answer.piece().await?.unwrap_or_default();
        Ok((first, answer))
    };
    if !is_watched {
        return asking.await;
    }
    tokio::select! {
        begun = asking => begun,
        () = tell_what_comes(shell) => Err(Failure::runtime("nobody waits")),
    }
}

/// Shows what the node receives until the file begins, which is when all of it is here. Never ends.
async fn tell_what_comes(shell: &Shell) {
    let shown = Progress::words();
    let mut before = None;
    let mut ticks = tokio::time::interval(WAITING_SHOWN_EVERY);
    loop {
        ticks.tick().await;
        let Ok(now) = received(shell).await else {
            // Without a node nothing comes.
            return std::future::pending().await;
        };
        let came = now.saturating_sub(*before.get_or_insert(now));
        if came > 0 {
            shown.say(format!(
                "{} came to this node so far",
                output::human_bytes(came)
            ));
        }
    }
}

/// Bytes of blocks that the node has received so far.
async fn received(shell: &Shell) -> Result<u64, Failure> {
    let answer = shell.ask(shell.question("bitswap/stat")).await?;
    let stat: BitswapAnswer = answer.value().await?;
    Ok(stat.data_received)
}

/// Says so if the repository will not keep what was fetched.
async fn tell_if_not_kept(shell: &Shell, written: u64) {
    let stat = async {
        let answer = shell.ask(shell.question("repo/stat")).await?;
        Ok::<RepoStat, Failure>(answer.value().await?)
    };
    if let Ok(stat) = stat.await
        && written > stat.cache_max
    {
        output::note(&format!(
            "This is more than `storage.cache_max` ({}) lets the repository keep of what was fetched: unless it is pinned \
             or was added here, some of it goes again; `cairn pin add` keeps all of it.",
            output::human_bytes(stat.cache_max)
        ));
    }
}

/// The name that a path's content has by itself.
fn own_name(path: &str) -> Result<String, Failure> {
    let name = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        return Err(Failure::runtime(format!(
            "{path} has no name to write to; give one with -o"
        )));
    }
    Ok(name.to_owned())
}

fn archive_path(named: &Path, ending: &str, path: &str) -> Result<PathBuf, Failure> {
    let named = if named.is_dir() {
        named.join(own_name(path)?)
    } else {
        named.to_owned()
    };
    let text = named.display().to_string();
    let path = if text.ends_with(&format!(".{ending}")) {
        named
    } else {
        let mut name = named.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{ending}"));
        named.with_file_name(name)
    };
    if fs::symlink_metadata(&path).is_ok() {
        let taken = ExtractError::Exists(path.display().to_string());
        return Err(Failure::runtime(taken.to_string()));
    }
    Ok(path)
}

/// A file that is removed unless it was completed.
struct Partial {
    path: PathBuf,
    complete: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.complete {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn save_archive(
    first: Bytes,
    mut answer: Answer,
    path: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    let disk = |error: std::io::Error| {
        Failure::runtime(format!("cannot write {}: {error}", path.display()))
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(disk)?;
    let mut partial = Partial {
        path: path.to_owned(),
        complete: false,
    };
    let (mut written, mut next) = (0, Some(first));
    while let Some(piece) = next {
        file.write_all(&piece).map_err(disk)?;
        written += piece.len() as u64;
        progress.at(written);
        next = answer.piece().await?;
    }
    partial.complete = true;
    Ok(())
}

/// Writes what is asked for to `target`; gives the bytes of files.
pub(super) async fn write_tree(
    shell: &Shell,
    question: Question,
    target: Target,
) -> Result<u64, Failure> {
    let (first, answer) = begun(shell, question, false).await?;
    save_tree(first, answer, target, Progress::none()).await
}

async fn save_tree(
    first: Bytes,
    answer: Answer,
    target: Target,
    progress: Progress,
) -> Result<u64, Failure> {
    let (queue, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let extracting = tokio::task::spawn_blocking(move || {
        let input = ChannelReader::new(pieces);
        let mut written = 0;
        let extracted = extract(input, &target, &mut |bytes| {
            written = bytes;
            progress.at(bytes);
        });
        extracted.map(|_| written)
    });
    let feeding = async {
        // Who does not take it says why itself.
        if queue.send(Piece::Data(first)).await.is_ok() {
            pump(answer.into_body(), queue).await;
        }
    };
    let (extracted, ()) = tokio::join!(extracting, feeding);
    extracted
        .map_err(|_| Failure::runtime("writing the files broke down; this is a bug in cairn"))?
        .map_err(|error| Failure::runtime(error.to_string()))
}

/// `ls`.
pub async fn ls(shell: &mut Shell, arguments: LsArgs) -> Result<(), Failure> {
    let question = shell
        .question("ls")
        .args(&arguments.paths)
        .with("size", arguments.size)
        .with("resolve-type", arguments.resolve_type)
        .with("past-missing", true)
        .maybe("stream", arguments.stream.then_some(true));
    let mut listed = Listed {
        several: arguments.paths.len() > 1,
        last: None,
        arguments,
    };
    shell
        .print_each(question, |listing: Listing, printer| {
            for object in listing.objects {
                listed.print(&object, printer)?;
            }
            Ok(())
        })
        .await
}

/// How folders are listed.
struct Listed {
    arguments: LsArgs,
    several: bool,
    last: Option<String>,
}

impl Listed {
    fn print(&mut self, object: &Object, printer: &mut Printer) -> Result<(), Failure> {
        let mut rows = Vec::new();
        if self.last.as_deref() != Some(object.hash.as_str()) {
            if self.several {
                if self.last.is_some() {
                    printer.line("")?;
                }
                printer.line(&format!("{}:", escape(&object.hash)))?;
            }
            if self.arguments.headers {
                rows.push(self.row("Hash", "Size", "Name"));
            }
            self.last = Some(object.hash.clone());
        }
        for link in &object.links {
            rows.push(self.link(link));
        }
        for line in output::columns(&rows) {
            printer.line(&line)?;
        }
        Ok(())
    }

    fn row(&self, hash: &str, size: &str, name: &str) -> Vec<String> {
        let cells: &[&str] = if self.arguments.size {
            &[hash, size, name]
        } else {
            &[hash, name]
        };
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    fn link(&self, link: &Link) -> Vec<String> {
        let name = escape(&link.name);
        if link.r#type == FOLDER {
            self.row(&link.hash, "-", &format!("{name}/"))
        } else if link.r#type == UNKNOWN && link.size == 0 {
            self.row(&link.hash, "-", &name)
        } else {
            self.row(&link.hash, &link.size.to_string(), &name)
        }
    }
}

/// `refs` and `refs local`.
pub async fn refs(shell: &mut Shell, arguments: RefsArgs) -> Result<(), Failure> {
    let question = match arguments.command {
        Some(crate::args::RefsCommand::Local) => shell.question("refs/local"),
        None => shell
            .question("refs")
            .args(&arguments.paths)
            .maybe("format", arguments.format.as_ref())
            .maybe("edges", arguments.edges.then_some(true))
            .maybe("unique", arguments.unique.then_some(true))
            .maybe("recursive", arguments.recursive.then_some(true))
            .maybe("max-depth", arguments.max_depth),
    };
    shell
        .print_each(question, |line: Ref, printer| {
            if !line.err.is_empty() {
                return Err(Failure::runtime(line.err));
            }
            Ok(printer.line(&output::escape_line(&line.reference))?)
        })
        .await
}

/// `resolve`.
pub async fn resolve(shell: &mut Shell, arguments: ResolveArgs) -> Result<(), Failure> {
    let question = shell
        .question("resolve")
        .arg(&arguments.name)
        .maybe("recursive", arguments.recursive)
        .maybe("dht-record-count", arguments.dht_record_count)
        .maybe("dht-timeout", arguments.dht_timeout);
    print_path(shell, question).await
}

/// `dns`.
pub async fn dns(shell: &mut Shell, arguments: DnsArgs) -> Result<(), Failure> {
    let question = shell
        .question("dns")
        .arg(&arguments.name)
        .maybe("recursive", arguments.recursive);
    print_path(shell, question).await
}

async fn print_path(shell: &mut Shell, question: Question) -> Result<(), Failure> {
    shell
        .print_each(question, |answer: PathAnswer, printer| {
            Ok(printer.line(&output::escape_line(&answer.path))?)
        })
        .await
}

/// How often it is shown what came.
const WAITING_SHOWN_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_named_by_the_end_of_its_path() {
        assert_eq!(own_name("/ipfs/bafkqaaa/a/b.txt").unwrap(), "b.txt");
        assert_eq!(own_name("ipfs://bafkqaaa/").unwrap(), "bafkqaaa");
        assert_eq!(own_name("bafkqaaa").unwrap(), "bafkqaaa");
        assert!(own_name("bafkqaaa/..").is_err());
    }

    #[test]
    fn folders_end_in_a_slash_and_have_no_size() {
        let listed = Listed {
            arguments: LsArgs {
                paths: Vec::new(),
                headers: false,
                size: true,
                resolve_type: true,
                stream: false,
            },
            several: false,
            last: None,
        };
        let link = Link {
            name: "d\u{202e}".to_owned(),
            hash: "bafy".to_owned(),
            r#type: FOLDER,
            ..Link::default()
        };
        assert_eq!(listed.link(&link), ["bafy", "-", "d\\u202e/"]);
    }
}
