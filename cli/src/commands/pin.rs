//! `pin`.

use super::Shell;
use crate::args::PinCommand;
use crate::exit::Failure;
use crate::output::{self, Printer, Progress, escape};
use crate::rpc::client::Question;
use crate::rpc::pin::Pins;
use crate::rpc::pin::follow::FollowedAnswer;
use crate::rpc::pin::list::PinLine;
use crate::rpc::pin::verify::Verified;

/// `pin`.
pub async fn pin(shell: &mut Shell, command: PinCommand) -> Result<(), Failure> {
    match command {
        PinCommand::Add {
            paths,
            recursive,
            name,
            meta,
            expire_in,
            max_size,
            background,
            priority,
            progress,
            follow,
            grace,
        } => {
            let watched = shell.wants_progress(progress);
            let question = shell
                .question("pin/add")
                .args(paths)
                .with("recursive", recursive)
                .maybe("name", name)
                .each("meta", meta)
                .maybe("expire-in", expire_in)
                .maybe("max-size", max_size)
                .maybe("background", background.then_some(true))
                .maybe("priority", priority)
                .maybe("follow", follow.then_some(true))
                .maybe("grace", grace)
                .with("progress", watched);
            let how = if recursive { "recursively" } else { "directly" };
            let figure = if watched {
                Progress::blocks()
            } else {
                Progress::none()
            };
            shell
                .print_each(question, |line: Pins, printer| {
                    if let Some(blocks) = line.progress {
                        figure.at_blocks(blocks, line.bytes.unwrap_or(0), line.total);
                        return Ok(());
                    }
                    figure.beside(|| {
                        for cid in &line.pins {
                            printer.line(&format!("pinned {cid} {how}"))?;
                        }
                        print_queued(&line, printer)?;
                        Ok(printer.flush_if(watched)?)
                    })
                })
                .await
        }
        PinCommand::Cancel { paths } => {
            let question = shell.question("pin/cancel").args(paths);
            shell.print_each(question, print_cancelled).await
        }
        PinCommand::Retry { paths, all } => {
            let question = shell
                .question("pin/retry")
                .args(paths)
                .maybe("all", all.then_some(true));
            shell
                .print_each(question, |line: Pins, printer| print_queued(&line, printer))
                .await
        }
        PinCommand::Followed => {
            let question = shell.question("pin/followed");
            shell.print_each(question, print_followed).await
        }
        PinCommand::Unfollow { paths } => {
            let question = shell.question("pin/unfollow").args(paths);
            shell
                .print_each(question, |line: Pins, printer| {
                    for cid in line.pins {
                        printer.line(&format!("{cid} stays pinned"))?;
                    }
                    Ok(())
                })
                .await
        }
        PinCommand::Rm { paths, recursive } => {
            let question = shell
                .question("pin/rm")
                .args(paths)
                .with("recursive", recursive);
            shell
                .print_each(question, |line: Pins, printer| {
                    for cid in &line.pins {
                        if !line.cancelled.contains(cid) {
                            printer.line(&format!("unpinned {cid}"))?;
                        }
                    }
                    print_cancelled(line, printer)
                })
                .await
        }
        PinCommand::Ls {
            paths,
            kind,
            quiet,
            name,
            meta,
            expires_before,
            status,
            stream,
            names,
            long,
        } => {
            let question = shell
                .question("pin/ls")
                .args(paths)
                .maybe("type", kind)
                .maybe("name", name)
                .each("meta", meta)
                .maybe("expires-before", expires_before)
                .each("status", status)
                .maybe("names", names.then_some(true))
                .maybe("long", long.then_some(true));
            if shell.global.wants_json() {
                let question = question.maybe("stream", stream.then_some(true));
                return shell.print_raw(question).await;
            }
            // There may be millions: nobody waits for the last of them to see the first.
            shell
                .print_each(question.with("stream", true), |line: PinLine, printer| {
                    print_pin(printer, quiet, long, &line)
                })
                .await
        }
        PinCommand::Update { from, to, unpin } => {
            let question = shell
                .question("pin/update")
                .arg(from)
                .arg(to)
                .with("unpin", unpin);
            shell
                .print_each(question, |line: Pins, printer| {
                    if let [from, to] = line.pins.as_slice() {
                        printer.line(&format!("updated {from} to {to}"))?;
                    }
                    Ok(())
                })
                .await
        }
        PinCommand::Verify { verbose, quiet } => {
            let question = shell
                .question("pin/verify")
                .maybe("verbose", verbose.then_some(true))
                .maybe("quiet", quiet.then_some(true));
            verify(shell, question, quiet).await
        }
    }
}

/// Fails if something pinned is not whole, and names it beside the lines that tell what is missing.
async fn verify(shell: &mut Shell, question: Question, quiet: bool) -> Result<(), Failure> {
    let mut broken = Broken::default();
    let is_broken = |line: &Verified| {
        if !line.ok {
            broken.take(line);
        }
        !line.ok
    };
    let failed = shell
        .print_tested(question, is_broken, |line, printer| {
            print_verified(printer, quiet, &line)
        })
        .await?;
    if failed {
        return Err(Failure::runtime(broken.text()));
    }
    Ok(())
}

/// The pins that are not whole, the first of them by name.
#[derive(Default)]
struct Broken {
    named: Vec<String>,
    more: u64,
    /// Whether one of them is direct; it would be recursive if it were just added again.
    has_direct: bool,
}

impl Broken {
    fn take(&mut self, line: &Verified) {
        self.has_direct |= line.direct;
        if self.named.len() < BROKEN_NAMED_MAX {
            self.named.push(line.cid.clone());
        } else {
            self.more += 1;
        }
    }

    fn text(&self) -> String {
        let named = self.named.join(", ");
        let more = match self.more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let direct = match self.has_direct {
            true => " (`cairn pin add --recursive=false <CID>` of a direct pin)",
            false => "",
        };
        format!(
            "pinned, but not whole: {named}{more}; with a daemon running `cairn pin add <CID>`{direct} fetches \
             what is missing and `cairn repo verify --heal` what is damaged; what lay in a file in place comes back \
             when the file is added again"
        )
    }
}

fn print_queued(line: &Pins, printer: &mut Printer) -> Result<(), Failure> {
    for cid in &line.queued {
        printer.line(&format!("queued {cid}"))?;
    }
    if let Some(why) = &line.waits {
        output::note(&output::escape_line(why));
    }
    Ok(())
}

fn print_cancelled(line: Pins, printer: &mut Printer) -> Result<(), Failure> {
    for cid in line.cancelled {
        printer.line(&format!("cancelled {cid}, which was in the queue"))?;
    }
    Ok(())
}

fn print_pin(
    printer: &mut Printer,
    quiet: bool,
    long: bool,
    line: &PinLine,
) -> Result<(), Failure> {
    if quiet {
        return Ok(printer.line(&line.cid)?);
    }
    Ok(printer.line(&pin_text(line, long))?)
}

/// A pin as people read it.
fn pin_text(line: &PinLine, long: bool) -> String {
    let mut text = format!("{} {}", line.cid, line.r#type);
    if let Some(status) = &line.status {
        text.push(' ');
        text.push_str(status);
    }
    if !line.name.is_empty() {
        text.push(' ');
        text.push_str(&escape(&line.name));
    }
    if long && !line.r#type.starts_with("indirect") {
        let created = line.created.as_deref().unwrap_or("unknown");
        let expires = line.expires.as_deref().unwrap_or("never");
        text.push_str(&format!(" created={created} expires={expires}"));
        for (key, value) in &line.metadata {
            text.push_str(&format!(" {}={}", escape(key), escape(value)));
        }
    }
    if let Some(blocks) = line.blocks {
        let bytes = output::human_bytes(line.bytes.unwrap_or(0));
        text.push_str(&format!(" {blocks} blocks, {bytes}"));
        if let Some(total) = line.total {
            text.push_str(&format!(" of {}", output::human_bytes(total)));
        }
        if let Some(priority) = line.priority.filter(|priority| *priority != 0) {
            text.push_str(&format!(", priority {priority}"));
        }
        if line.foreground == Some(true) {
            text.push_str(", in the foreground");
        }
    }
    if let Some(seconds) = line.retry_seconds {
        text.push_str(&format!(", tried again in {seconds} s"));
    }
    if let Some(reason) = &line.reason {
        text.push_str(&format!(": {}", output::escape_line(reason)));
    }
    text
}

fn print_verified(printer: &mut Printer, quiet: bool, line: &Verified) -> Result<(), Failure> {
    if quiet {
        if !line.ok {
            printer.line(&line.cid)?;
        }
        return Ok(());
    }
    if line.ok {
        return Ok(printer.line(&format!("{} ok", line.cid))?);
    }
    printer.line(&format!("{} broken", line.cid))?;
    if !line.err.is_empty() {
        printer.line(&format!("error: {}", output::escape_line(&line.err)))?;
    }
    for node in &line.bad_nodes {
        printer.line(&format!(
            "  {}: {}",
            node.cid,
            output::escape_line(&node.err)
        ))?;
    }
    Ok(())
}

fn print_followed(one: FollowedAnswer, printer: &mut Printer) -> Result<(), Failure> {
    let path = output::escape_line(&one.path);
    let next = match (&one.error, one.next_seconds) {
        (Some(error), Some(next)) => {
            format!(
                ", next look in {next} s (the last failed: {})",
                output::escape_line(error)
            )
        }
        (None, Some(next)) => format!(", next look in {next} s"),
        (_, None) => String::new(),
    };
    printer.line(&format!("{path} {}{next}", one.cid))?;
    for before in one.before {
        printer.line(&format!(
            "  before: {} for {} s",
            before.cid, before.left_seconds
        ))?;
    }
    Ok(())
}

/// Most broken pins that the last line names; all of them have lines of their own.
const BROKEN_NAMED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_broken_pins_are_told_in_one_line_of_bounded_length() {
        let mut broken = Broken::default();
        for at in 0..BROKEN_NAMED_MAX + 3 {
            broken.take(&Verified {
                cid: format!("pin{at}"),
                ..Verified::default()
            });
        }
        let text = broken.text();
        assert!(text.contains("pin7 and 3 more;"), "{text}");
        assert!(!text.contains("pin8"), "{text}");
    }
}
