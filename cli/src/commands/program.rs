//! `init`, `shutdown`, `version`, `cid`, `log`: the program itself.

use super::Shell;
use crate::args::{CidCommand, InitArgs, LogCommand, VersionArgs};
use crate::config::edit;
use crate::exit::Failure;
use crate::output::{self, Printer, escape_line};
use crate::repository::Repository;
use crate::rpc::cid::Formatted;
use crate::rpc::log::{LevelAnswer, Subsystems};
use crate::rpc::version::VersionAnswer;
use std::io::{BufRead, stdin};

/// `init`.
pub fn init(repository: &Repository, arguments: &InitArgs) -> Result<(), Failure> {
    if let Some(network) = &arguments.network {
        // Before anything is made: a wrong word leaves nothing behind.
        edit::set("", "network", network)?;
    }
    let mut printer = Printer::default();
    let path = repository.path().display().to_string();
    printer.line(&format!("initializing IPFS node at {}", escape_line(&path)))?;
    printer.flush()?;
    let name = repository.init()?;
    if let Some(network) = &arguments.network {
        let (text, _) = edit::set(&repository.config_text()?, "network", network)?;
        repository.write_config(&text)?;
    }
    printer.line("generating ED25519 keypair...done")?;
    printer.line(&format!("peer identity: {name}"))?;
    printer.line("to get started, enter:\n\n\tcairn serve <files and folders>\n")?;
    Ok(printer.flush()?)
}

/// `shutdown`.
pub async fn shutdown(shell: &mut Shell) -> Result<(), Failure> {
    let question = shell.question("shutdown");
    shell.print_raw(question).await
}

/// `version`.
pub async fn version(shell: &mut Shell, arguments: VersionArgs) -> Result<(), Failure> {
    let question = shell.question("version");
    shell
        .print_each(question, |answer: VersionAnswer, printer| {
            let commit = match (arguments.commit, answer.commit.as_str()) {
                (false, _) | (true, "") => String::new(),
                (true, commit) => format!("-{commit}"),
            };
            if arguments.all {
                printer.line(&format!("cairn version: {}{commit}", answer.version))?;
                printer.line(&format!("Repo version: {}", answer.repo))?;
                return Ok(printer.line(&format!("System version: {}", answer.system))?);
            }
            if arguments.repo {
                return Ok(printer.line(&answer.repo)?);
            }
            if arguments.number {
                return Ok(printer.line(&format!("{}{commit}", answer.version))?);
            }
            Ok(printer.line(&format!("cairn version {}{commit}", answer.version))?)
        })
        .await
}

/// `cid`.
pub async fn cid(shell: &mut Shell, command: CidCommand) -> Result<(), Failure> {
    let question = match command {
        CidCommand::Format {
            cids,
            format,
            version,
            codec,
            base,
        } => shell
            .question("cid/format")
            .args(given(cids)?)
            .maybe("f", format)
            .maybe("v", version)
            .maybe("mc", codec)
            .maybe("b", base),
        CidCommand::Base32 { cids } => shell.question("cid/base32").args(given(cids)?),
    };
    let is_failure = |line: &Formatted| !line.error_msg.is_empty();
    let failed = shell
        .print_tested(question, is_failure, |line, printer| {
            if !is_failure(&line) {
                return Ok(printer.line(&escape_line(&line.formatted))?);
            }
            output::error(&format!("{}: {}", line.cid_str, line.error_msg));
            Ok(())
        })
        .await?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

/// What was named, or the lines of standard input.
fn given(cids: Vec<String>) -> Result<Vec<String>, Failure> {
    if !cids.is_empty() {
        return Ok(cids);
    }
    let mut lines = Vec::new();
    for line in stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            lines.push(line.trim().to_owned());
        }
    }
    Ok(lines)
}

/// `log`.
pub async fn log(shell: &mut Shell, command: LogCommand) -> Result<(), Failure> {
    match command {
        LogCommand::Level { subsystem, level } => {
            let question = shell.question("log/level").arg(subsystem).arg(level);
            shell
                .print_each(question, |answer: LevelAnswer, printer| {
                    Ok(printer.line(&escape_line(answer.message.trim_end()))?)
                })
                .await
        }
        LogCommand::Ls => {
            let question = shell.question("log/ls");
            shell
                .print_each(question, |answer: Subsystems, printer| {
                    for name in answer.strings {
                        printer.line(&escape_line(&name))?;
                    }
                    Ok(())
                })
                .await
        }
    }
}
