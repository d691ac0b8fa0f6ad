//! `files`.

use super::{Shell, sources};
use crate::args::{FilesArgs, FilesCommand, FilesStatArgs, NamingArgs};
use crate::exit::Failure;
use crate::output::{self, Printer, escape, human_bytes};
use crate::rpc::client::Question;
use crate::rpc::entries::{LocalUpload, Walk};
use crate::rpc::files::change::Flushed;
use crate::rpc::files::{FOLDER, ListedEntry, Listing, Stated};
use std::time::{Duration, UNIX_EPOCH};

/// `files`.
pub async fn files(shell: &mut Shell, arguments: FilesArgs) -> Result<(), Failure> {
    let FilesArgs { flush, command } = arguments;
    let yes = |flag: bool| flag.then_some(true);
    let question = match command {
        FilesCommand::Ls {
            path,
            long,
            unsorted,
        } => return list(shell, path.as_deref().unwrap_or("/"), long, unsorted).await,
        FilesCommand::Stat(arguments) => return stat(shell, arguments).await,
        FilesCommand::Read {
            path,
            offset,
            count,
        } => {
            let question = shell.question("files/read").arg(path);
            let question = question.maybe("offset", offset).maybe("count", count);
            return shell.print_raw(question).await;
        }
        FilesCommand::Flush { path } => {
            let question = shell
                .question("files/flush")
                .arg(path.as_deref().unwrap_or("/"));
            return shell
                .print_each(question, |flushed: Flushed, printer| {
                    Ok(printer.line(&flushed.cid)?)
                })
                .await;
        }
        FilesCommand::Rm {
            paths,
            recursive,
            force,
        } => shell
            .question("files/rm")
            .args(paths)
            .maybe("recursive", yes(recursive))
            .maybe("force", yes(force)),
        FilesCommand::Cp {
            source,
            dest,
            force,
            parents,
        } => shell
            .question("files/cp")
            .arg(source)
            .arg(dest)
            .maybe("force", yes(force))
            .maybe("parents", yes(parents)),
        FilesCommand::Mv { source, dest } => shell.question("files/mv").arg(source).arg(dest),
        FilesCommand::Mkdir {
            path,
            parents,
            naming,
        } => named(shell.question("files/mkdir").arg(path), &naming).maybe("parents", yes(parents)),
        FilesCommand::Write(write) => {
            let question = shell.question("files/write").arg(write.path);
            named(question, &write.naming)
                .maybe("offset", write.offset)
                .maybe("count", write.count)
                .maybe("create", yes(write.create))
                .maybe("parents", yes(write.parents))
                .maybe("truncate", yes(write.truncate))
                .maybe("raw-leaves", write.raw_leaves)
                .upload(LocalUpload {
                    sources: sources(write.data.into_iter().collect(), None),
                    walk: Walk::default(),
                    ..LocalUpload::default()
                })
        }
        FilesCommand::Chcid { path, naming } => {
            named(shell.question("files/chcid").arg(path), &naming)
        }
        FilesCommand::Chmod { mode, path } => shell.question("files/chmod").arg(mode).arg(path),
        FilesCommand::Touch {
            path,
            mtime,
            mtime_nsecs,
        } => shell
            .question("files/touch")
            .arg(path)
            .maybe("mtime", mtime)
            .maybe("mtime-nsecs", mtime_nsecs),
    };
    shell.print_raw(question.maybe("flush", flush)).await
}

fn named(question: Question, naming: &NamingArgs) -> Question {
    question
        .maybe("cid-version", naming.cid_version.as_ref())
        .maybe("hash", naming.hash.as_ref())
}

async fn list(shell: &mut Shell, path: &str, long: bool, unsorted: bool) -> Result<(), Failure> {
    let question = shell
        .question("files/ls")
        .arg(path)
        .maybe("long", long.then_some(true));
    let print = move |entry: &ListedEntry, printer: &mut Printer| {
        let name = escape(&entry.name);
        if !long {
            return printer.line(&name);
        }
        let slash = if entry.r#type == FOLDER { "/" } else { "" };
        printer.line(&format!("{name}{slash}\t{}\t{}", entry.hash, entry.size))
    };
    if unsorted && !shell.global.wants_json() {
        let question = question.with("stream", true);
        return shell
            .print_each(question, move |entry: ListedEntry, printer| {
                Ok(print(&entry, printer)?)
            })
            .await;
    }
    shell
        .print_each(question, move |listing: Listing, printer| {
            let mut entries = listing.entries.unwrap_or_default();
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            for entry in &entries {
                print(entry, printer)?;
            }
            Ok(())
        })
        .await
}

async fn stat(shell: &mut Shell, arguments: FilesStatArgs) -> Result<(), Failure> {
    let yes = |flag: bool| flag.then_some(true);
    let question = shell
        .question("files/stat")
        .arg(&arguments.path)
        .maybe("format", arguments.format.as_ref())
        .maybe("hash", yes(arguments.hash))
        .maybe("size", yes(arguments.size))
        .maybe("with-local", yes(arguments.with_local));
    let format = match (arguments.hash, arguments.size, arguments.format) {
        (true, ..) => "<hash>".to_owned(),
        (_, true, _) => "<cumulsize>".to_owned(),
        (.., Some(format)) => format,
        _ => FORMAT.to_owned(),
    };
    shell
        .print_each(question, move |stated: Stated, printer| {
            printer.line(&escape_lines(&filled(&format, &stated)))?;
            if stated.with_locality {
                printer.line(&local(&stated))?;
            }
            Ok(())
        })
        .await
}

/// The format is the caller's own and may have several lines.
fn escape_lines(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| escape(line).to_string())
        .collect();
    lines.join("\n")
}

fn filled(format: &str, stated: &Stated) -> String {
    let mode = u32::from_str_radix(&stated.mode, 8).unwrap_or(0);
    let or_not = |is_set: bool, text: String| match is_set {
        true => text,
        false => "not set".to_owned(),
    };
    let has_time = stated.mtime > 0;
    let mut text = format.to_owned();
    for (token, value) in [
        ("<hash>", stated.hash.clone()),
        ("<size>", stated.size.to_string()),
        ("<cumulsize>", stated.cumulative_size.to_string()),
        ("<childs>", stated.blocks.to_string()),
        ("<type>", stated.r#type.clone()),
        ("<mode>", or_not(mode != 0, letters(mode))),
        (
            "<mode-octal>",
            or_not(mode != 0, format!("0{:o}", mode & 0o777)),
        ),
        ("<mtime>", or_not(has_time, date(stated))),
        ("<mtime-secs>", or_not(has_time, stated.mtime.to_string())),
        (
            "<mtime-nsecs>",
            or_not(has_time, stated.mtime_nsecs.to_string()),
        ),
    ] {
        text = text.replace(token, &value);
    }
    text
}

fn local(stated: &Stated) -> String {
    let (here, all) = (stated.size_local, stated.cumulative_size);
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let share = match all {
        0 => 100.0,
        all => 100.0 * here as f64 / all as f64,
    };
    format!(
        "Local: {} of {} ({share:.2}%)",
        human_bytes(here),
        human_bytes(all)
    )
}

/// Permission bits as `ls` writes them.
fn letters(mode: u32) -> String {
    let kind = if mode & 1 << 27 != 0 { 'l' } else { '-' };
    let bits = (0..9).rev().map(|bit| match (mode >> bit & 1, bit % 3) {
        (0, _) => '-',
        (_, 2) => 'r',
        (_, 1) => 'w',
        _ => 'x',
    });
    std::iter::once(kind).chain(bits).collect()
}

/// As Kubo writes a time: `5 Sep 2021, 14:05:06 UTC`.
fn date(stated: &Stated) -> String {
    let seconds = u64::try_from(stated.mtime).unwrap_or(0);
    let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else {
        return stated.mtime.to_string();
    };
    let text = httpdate_like(time);
    text.unwrap_or_else(|| stated.mtime.to_string())
}

fn httpdate_like(time: std::time::SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = output::date(days);
    let month = MONTHS.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    Some(format!(
        "{day} {month} {year}, {hour:02}:{minute:02}:{second:02} UTC"
    ))
}

const FORMAT: &str = "<hash>
Size: <size>
CumulativeSize: <cumulsize>
ChildBlocks: <childs>
Type: <type>
Mode: <mode> (<mode-octal>)
Mtime: <mtime>";
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn stated() -> Stated {
        Stated {
            hash: "bafy".to_owned(),
            size: 5,
            cumulative_size: 7,
            blocks: 2,
            r#type: "file".to_owned(),
            ..Stated::default()
        }
    }

    #[test]
    fn stat_is_printed_as_kubo_prints_it() {
        assert_eq!(
            filled(FORMAT, &stated()),
            "bafy\nSize: 5\nCumulativeSize: 7\nChildBlocks: 2\nType: file\nMode: not set (not set)\nMtime: not set"
        );
        let with_metadata = Stated {
            mode: "0644".to_owned(),
            // The moment in the help of Kubo's `files touch`.
            mtime: 1_630_937_926,
            mtime_nsecs: 5,
            ..stated()
        };
        assert_eq!(
            filled(
                "<mode> <mode-octal> <mtime> <mtime-secs>.<mtime-nsecs>",
                &with_metadata
            ),
            "-rw-r--r-- 0644 6 Sep 2021, 14:18:46 UTC 1630937926.5"
        );
    }
}
