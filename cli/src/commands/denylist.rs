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
                    answer
                        .lists
                        .iter()
                        .try_for_each(|list| print_list(list, printer))
                })
                .await
        }
        DenylistCommand::Check { path } => {
            let question = shell.question("denylist/check").arg(path);
            shell
                .print_each(question, |answer: CheckAnswer, printer| {
                    let path = escape_line(&answer.path);
                    let line = match answer.status {
                        None => format!("{path} is not denied"),
                        Some(status) => {
                            let by = escape_line(&answer.by);
                            format!("{path} is denied by {by}; the gateway answers {status}")
                        }
                    };
                    Ok(printer.line(&line)?)
                })
                .await
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
    printer.line(&format!(
        "{path}{named}: rules {rules}, lines left out {skipped}"
    ))?;
    if !list.error.is_empty() {
        let why = escape_line(&list.error);
        printer.line(&format!(
            "  not read as it is now, the rules it had hold: {why}"
        ))?;
    }
    for fault in &list.faults {
        let why = escape_line(&fault.why);
        printer.line(&format!("  line {}: {why}", fault.line))?;
    }
    Ok(())
}
