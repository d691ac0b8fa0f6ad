//! `files`.

use super::{Shell, sources};
use crate::args::{FilesArgs, FilesCommand, FilesStatArgs, NamingArgs};
use crate::exit::Failure;
use crate::output::{self, Printer, escape, escape_line, human_bytes};
use crate::rpc::client::Question;
use crate::rpc::entries::{LocalUpload, Walk};
use crate::rpc::files::change::Flushed;
use crate::rpc::files::{FOLDER, ListedEntry, Listing, Stated};

/// `files`.
pub async fn files(shell: &mut Shell, arguments: FilesArgs) -> Result<(), Failure> {
    let FilesArgs { flushing, command } = arguments;
    let above = flushing.flush;
    let yes = |flag: bool| flag.then_some(true);
    // With the path that is meant where the answer does not tell it.
    let (question, flush, path) = match command {
        FilesCommand::Ls {
            path,
            long,
            unsorted,
        } => {
            let path = path.as_deref().unwrap_or("/");
            let listed = list(shell, path, long, unsorted).await;
            return listed.map_err(|failure| about(path, failure));
        }
        FilesCommand::Stat(arguments) => {
            let path = arguments.path.clone();
            let told = stat(shell, arguments).await;
            return told.map_err(|failure| about(&path, failure));
        }
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
            let path = path.as_deref().unwrap_or("/");
            let question = shell.question("files/flush").arg(path);
            let flushed = shell.print_each(question, |flushed: Flushed, printer| {
                Ok(printer.line(&flushed.cid)?)
            });
            return flushed.await.map_err(|failure| about(path, failure));
        }
        FilesCommand::Rm {
            paths,
            recursive,
            force,
        } => {
            let question = shell.question("files/rm").args(paths);
            let question = question
                .maybe("recursive", yes(recursive))
                .maybe("force", yes(force));
            (question, None, None)
        }
        FilesCommand::Cp {
            source,
            dest,
            force,
            parents,
            flushing,
        } => {
            let question = shell.question("files/cp").arg(source).arg(dest);
            let question = question
                .maybe("force", yes(force))
                .maybe("parents", yes(parents));
            (question, flushing.flush, None)
        }
        FilesCommand::Mv {
            source,
            dest,
            flushing,
        } => {
            let question = shell.question("files/mv").arg(&source).arg(&dest);
            (
                question,
                flushing.flush,
                Some(format!("{source} to {dest}")),
            )
        }
        FilesCommand::Mkdir {
            path,
            parents,
            naming,
            flushing,
        } => {
            let question = named(shell.question("files/mkdir").arg(&path), &naming);
            let question = question.maybe("parents", yes(parents));
            (question, flushing.flush, Some(path))
        }
        FilesCommand::Write(write) => {
            let question = shell.question("files/write").arg(&write.path);
            let question = named(question, &write.naming)
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
                });
            (question, write.flushing.flush, Some(write.path))
        }
        FilesCommand::Chcid {
            path,
            naming,
            flushing,
        } => {
            let question = named(shell.question("files/chcid").arg(&path), &naming);
            (question, flushing.flush, Some(path))
        }
        FilesCommand::Chmod {
            mode,
            path,
            flushing,
        } => {
            let question = shell.question("files/chmod").arg(mode).arg(&path);
            (question, flushing.flush, Some(path))
        }
        FilesCommand::Touch {
            path,
            mtime,
            mtime_nsecs,
            flushing,
        } => {
            let question = shell.question("files/touch").arg(&path);
            let question = question
                .maybe("mtime", mtime)
                .maybe("mtime-nsecs", mtime_nsecs);
            (question, flushing.flush, Some(path))
        }
    };
    let done = shell
        .print_raw(question.maybe("flush", flush.or(above)))
        .await;
    done.map_err(|failure| match path {
        Some(path) => about(&path, failure),
        None => failure,
    })
}

/// Says what it is about, where an answer has only the words that Kubo's clients look for.
fn about(path: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Runtime(text) if NAMELESS.contains(&text.as_str()) => {
            Failure::Runtime(format!("{}: {text}", escape_line(path)))
        }
        other => other,
    }
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
    let time = stated.mtime;
    let has_time = time.is_some();
    let seconds = time.unwrap_or(0);
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
        ("<mtime>", or_not(has_time, date(seconds))),
        ("<mtime-secs>", or_not(has_time, seconds.to_string())),
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

/// As Kubo writes a time: `5 Sep 2021, 14:05:06 UTC`; seconds alone where it would have another form.
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let civil = || {
        // The calendar repeats.
        let (year, month, day) = output::date(u64::try_from(days + CYCLE_DAYS * CYCLES).ok()?);
        let year = year.checked_sub(CYCLE_YEARS * CYCLES.unsigned_abs())?;
        let month = MONTHS.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        Some(format!(
            "{day} {month} {year}, {hour:02}:{minute:02}:{second:02} UTC"
        ))
    };
    civil().unwrap_or_else(|| seconds.to_string())
}

const DAY: i64 = 86_400;
const CYCLE_YEARS: u64 = 400;
const CYCLE_DAYS: i64 = 146_097;
/// So many of them are added to count from before 1970: back to the year 0.
const CYCLES: i64 = 5;
/// Answers that do not say what they are about.
const NAMELESS: [&str; 3] = [
    "file does not exist",
    "file already exists",
    "directory already has entry by that name",
];
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
            mtime: Some(1_630_937_926),
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
    #[test]
    fn times_before_1970_are_times_too() {
        for (seconds, text) in [
            (0, "1 Jan 1970, 00:00:00 UTC"),
            (-1, "31 Dec 1969, 23:59:59 UTC"),
            (-14_182_940, "20 Jul 1969, 20:17:40 UTC"),
            (-62_135_596_800, "1 Jan 1, 00:00:00 UTC"),
            (i64::MIN, "-9223372036854775808"),
        ] {
            assert_eq!(date(seconds), text);
        }
        date(i64::MAX);
    }
}
