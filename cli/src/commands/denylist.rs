//! `denylist`.

use super::Shell;
use crate::args::DenylistCommand;
use crate::exit::Failure;
use crate::output::{Printer, escape_line};
use crate::rpc::denylist::{CheckAnswer, ListAnswer, ListsAnswer};

/// `denylist`.
pub async fn denylist(shell: &mut Shell, command: DenylistCommand) -> Result<(), Failure> {
    match command {
        DenylistCommand::Ls => {
            let question = shell.question("denylist/ls");
            shell
                .print_each(question, |answer: ListsAnswer, printer| {
                    let mut lists = answer.lists.iter();
                    lists.try_for_each(|list| print_list(list, printer))?;
                    let mut troubles = answer.troubles.iter();
                    Ok(troubles.try_for_each(|it| printer.line(&escape_line(it)))?)
                })
                .await
        }
        DenylistCommand::Check { path } => {
            let question = shell.question("denylist/check").arg(path);
            shell
                .print_each(question, |answer: CheckAnswer, printer| {
                    Ok(printer.line(&decided(&answer))?)
                })
                .await
        }
    }
}

fn decided(answer: &CheckAnswer) -> String {
    let path = escape_line(&answer.path);
    let Some(rule) = &answer.rule else {
        return format!(
            "{path} is not denied: no rule names it or what it lies in (what lies on the way to it is not looked up)"
        );
    };
    let text = match rule.text.as_str() {
        "" => String::new(),
        text => format!(", {}", escape_line(text)),
    };
    let by = format!("line {} of {}{text}", rule.line, escape_line(&rule.list));
    let about = match rule.about == answer.path {
        true => String::new(),
        false => format!(" with {}", escape_line(&rule.about)),
    };
    match answer.status {
        None => format!("{path} is not denied: it is allowed{about} by {by}"),
        Some(status) => {
            format!("{path} is denied{about} by {by}; the gateway answers {status}")
        }
    }
}

fn print_list(list: &ListAnswer, printer: &mut Printer) -> Result<(), Failure> {
    let path = escape_line(&list.path);
    let (rules, skipped) = (list.rules, list.skipped);
    let named = match list.name.as_str() {
        "" => String::new(),
        name => format!(" ({})", escape_line(name)),
    };
    let read = match list.read_at.as_str() {
        "" => "never read".to_owned(),
        at => format!("read {at}"),
    };
    printer.line(&format!(
        "{path}{named}: rules {rules}, lines left out {skipped}, {read}"
    ))?;
    if list.settling {
        printer.line("  its file is changing; the rules it had hold until it has come to rest")?;
    }
    if !list.error.is_empty() {
        let why = escape_line(&list.error);
        printer.line(&match list.read_at.as_str() {
            "" => format!("  nothing of it holds: {why}"),
            _ => format!("  not read as it is now, the rules it had hold: {why}"),
        })?;
    }
    if list.beyond > 0 {
        let lines = list.beyond;
        printer.line(&format!(
            "  there is no room for {lines} of its lines; lists that override it have theirs first"
        ))?;
    }
    for fault in &list.faults {
        let why = escape_line(&fault.why);
        printer.line(&format!("  line {}: {why}", fault.line))?;
    }
    Ok(())
}
