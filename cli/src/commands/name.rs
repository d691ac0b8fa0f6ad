//! `name`: what names point at.

mod pubsub;

use super::{Shell, sources};
use crate::args::{NameCommand, NameInspectArgs, NamePublishArgs};
use crate::exit::Failure;
use crate::output::{Printer, escape_line};
use crate::rpc::entries::LocalUpload;
use crate::rpc::name::{InspectAnswer, KeptAnswer, NameAnswer};
use crate::rpc::resolve::PathAnswer;
use std::path::PathBuf;
use std::time::Duration;

/// `name`.
pub async fn name(shell: &mut Shell, command: NameCommand) -> Result<(), Failure> {
    match command {
        NameCommand::Publish(arguments) => publish(shell, arguments).await,
        NameCommand::Resolve(arguments) => {
            let question = shell
                .question("name/resolve")
                .maybe("arg", arguments.name)
                .with("recursive", arguments.recursive)
                .maybe("nocache", arguments.nocache.then_some(true))
                .maybe("stream", arguments.stream.then_some(true))
                .maybe("dht-timeout", arguments.dht_timeout)
                .maybe("dht-record-count", arguments.dht_record_count);
            shell
                .print_each(question, |answer: PathAnswer, printer| {
                    Ok(printer.line(&escape_line(&answer.path))?)
                })
                .await
        }
        NameCommand::Inspect(arguments) => inspect(shell, arguments).await,
        NameCommand::Pubsub(command) => pubsub::pubsub(shell, command).await,
        NameCommand::Get { name, nocache } => {
            let question = shell
                .question("name/get")
                .arg(name)
                .maybe("nocache", nocache.then_some(true));
            shell.print_raw(question).await
        }
        NameCommand::Keep { name } => {
            let question = shell.question("name/keep").arg(name);
            shell.print_each(question, print_kept).await
        }
        NameCommand::Unkeep { name } => {
            let question = shell.question("name/unkeep").arg(name);
            shell
                .print_each(question, |(): (), _: &mut Printer| Ok(()))
                .await
        }
        NameCommand::Kept => {
            let question = shell.question("name/kept");
            shell.print_each(question, print_kept).await
        }
        NameCommand::Put {
            name,
            file,
            force,
            allow_offline,
        } => {
            let question = shell
                .question("name/put")
                .arg(name)
                .maybe("force", force.then_some(true))
                .maybe("allow-offline", allow_offline.then_some(true))
                .upload(one(file));
            shell
                .print_each(question, |(): (), _: &mut Printer| Ok(()))
                .await
        }
    }
}

fn print_kept(kept: KeptAnswer, printer: &mut Printer) -> Result<(), Failure> {
    let (value, validity) = (escape_line(&kept.value), escape_line(&kept.validity));
    Ok(printer.line(&format!("{} {value} until {validity}", kept.name))?)
}

fn one(file: PathBuf) -> LocalUpload {
    LocalUpload {
        sources: sources(vec![file], None),
        ..LocalUpload::default()
    }
}

async fn publish(shell: &mut Shell, arguments: NamePublishArgs) -> Result<(), Failure> {
    let question = shell
        .question("name/publish")
        .arg(arguments.path)
        .maybe("key", arguments.key)
        .maybe("lifetime", arguments.lifetime)
        .maybe("ttl", arguments.ttl)
        .maybe("sequence", arguments.sequence)
        .with("resolve", arguments.resolve)
        .with("v1compat", arguments.v1compat)
        .maybe("allow-offline", arguments.allow_offline.then_some(true))
        .maybe("ipns-base", arguments.ipns_base);
    let quieter = arguments.quieter;
    shell
        .print_each(question, |answer: NameAnswer, printer| {
            let value = escape_line(&answer.value);
            Ok(match quieter {
                true => printer.line(&answer.name),
                false => printer.line(&format!("Published to {}: {value}", answer.name)),
            }?)
        })
        .await
}

async fn inspect(shell: &mut Shell, arguments: NameInspectArgs) -> Result<(), Failure> {
    let question = shell
        .question("name/inspect")
        .maybe("verify", arguments.verify)
        .maybe("dump", arguments.dump.then_some(true))
        .upload(one(arguments.file));
    shell.print_each(question, print_record).await
}

fn print_record(answer: InspectAnswer, printer: &mut Printer) -> Result<(), Failure> {
    let entry = answer.entry;
    let validity = match entry.validity_type {
        0 => "EOL".to_owned(),
        other => format!("unknown ({other})"),
    };
    let signatures = match answer.signature_type.as_str() {
        "" => "none",
        known => known,
    };
    let ttl = Duration::from_nanos(entry.ttl);
    let mut lines = vec![
        ("Value", escape_line(&entry.value).into_owned()),
        ("Validity Type", validity),
        ("Validity", escape_line(&entry.validity).into_owned()),
        ("Sequence", entry.sequence.to_string()),
        ("TTL", format!("{ttl:?}")),
        ("PublicKey", entry.public_key.unwrap_or_default()),
        ("Signature Type", signatures.to_owned()),
        ("Protobuf Size", answer.pb_size.to_string()),
    ];
    if let Some(validation) = answer.validation {
        lines.push(("Name", validation.name));
        lines.push(("Valid", validation.valid.to_string()));
        if !validation.reason.is_empty() {
            lines.push(("Reason", escape_line(&validation.reason).into_owned()));
        }
    }
    for (what, says) in lines.into_iter().filter(|(_, says)| !says.is_empty()) {
        printer.line(&format!("{:<16}{says}", format!("{what}:")))?;
    }
    if !answer.hex_dump.is_empty() {
        printer.line(&answer.hex_dump)?;
    }
    Ok(())
}
