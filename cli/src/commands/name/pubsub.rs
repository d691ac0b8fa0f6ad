//! `name pubsub`: names whose new records are heard of at once.

use crate::args::NamePubsubCommand;
use crate::commands::Shell;
use crate::exit::Failure;
use crate::rpc::name::pubsub::{CancelAnswer, StateAnswer, SubsAnswer};

/// `name pubsub`.
pub(super) async fn pubsub(shell: &mut Shell, command: NamePubsubCommand) -> Result<(), Failure> {
    match command {
        NamePubsubCommand::State => {
            let question = shell.question("name/pubsub/state");
            shell
                .print_each(question, |answer: StateAnswer, printer| {
                    Ok(printer.line(match answer.enabled {
                        true => "enabled",
                        false => "disabled",
                    })?)
                })
                .await
        }
        NamePubsubCommand::Subs { ids } => {
            let question = shell
                .question("name/pubsub/subs")
                .maybe("ipns-base", ids.ipns_base);
            shell
                .print_each(question, |answer: SubsAnswer, printer| {
                    for name in &answer.strings {
                        printer.line(name)?;
                    }
                    Ok(())
                })
                .await
        }
        NamePubsubCommand::Cancel { name } => {
            let question = shell.question("name/pubsub/cancel").arg(name);
            shell
                .print_each(question, |answer: CancelAnswer, printer| {
                    Ok(printer.line(match answer.canceled {
                        true => "canceled",
                        false => "no subscription",
                    })?)
                })
                .await
        }
    }
}
