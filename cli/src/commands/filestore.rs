//! `filestore`.

use super::Shell;
use crate::args::FilestoreCommand;
use crate::exit::Failure;
use crate::output::{self, Printer, escape_line};
use crate::rpc::filestore::{Dup, Referenced, Status};
use cairn_node::explain::counted;

/// `filestore`.
pub async fn filestore(shell: &mut Shell, command: FilestoreCommand) -> Result<(), Failure> {
    match command {
        FilestoreCommand::Ls { cids, file_order } => {
            let question = shell
                .question("filestore/ls")
                .args(cids)
                .maybe("file-order", file_order.then_some(true));
            let print = |found: Referenced, printer: &mut Printer| {
                match found.status {
                    0 => printer.line(&line(&found))?,
                    _ => output::error(&escape_line(&found.error_msg)),
                }
                Ok(())
            };
            let failed = shell
                .print_tested(question, |found: &Referenced| found.status != 0, print)
                .await?;
            if failed { Err(Failure::Told) } else { Ok(()) }
        }
        FilestoreCommand::Verify {
            cids,
            file_order,
            remove_bad_blocks,
        } => {
            let question = shell
                .question("filestore/verify")
                .args(cids)
                .maybe("file-order", file_order.then_some(true))
                .maybe("remove-bad-blocks", remove_bad_blocks.then_some(true));
            let (mut bad, mut removed) = (0_u64, 0_u64);
            let look = |found: &Referenced| {
                bad += u64::from(found.is_bad());
                removed += u64::from(found.removed);
            };
            let print = |found: Referenced, printer: &mut Printer| {
                let status = Status::name(found.status);
                let why = match found.error_msg.as_str() {
                    "" => String::new(),
                    why => format!(" ({})", escape_line(why)),
                };
                Ok(printer.line(&format!("{status:<7} {}{why}", line(&found)))?)
            };
            shell.print_seen(question, look, print).await?;
            if removed > 0 {
                output::note(&format!(
                    "{} forgotten; `cairn pin verify` names pins that are not whole without them: add their files \
                     again, fetch them (`cairn pin add`) or unpin them, or nothing is collected (`cairn repo gc`)",
                    counted(removed, "block is", "blocks are")
                ));
            }
            match bad {
                0 => Ok(()),
                bad => Err(Failure::runtime(format!(
                    "{} as it was added; put the files back, or forget what is lost with --remove-bad-blocks",
                    counted(bad, "block is not", "blocks are not")
                ))),
            }
        }
        FilestoreCommand::Dups => {
            let question = shell.question("filestore/dups");
            shell
                .print_each(question, |dup: Dup, printer| Ok(printer.line(&dup.r#ref)?))
                .await
        }
    }
}

/// As Kubo lays it out.
fn line(found: &Referenced) -> String {
    let cid = found.key.as_ref().map_or("", |key| &key.cid);
    if found.file_path.is_empty() {
        return cid.to_owned();
    }
    let path = escape_line(&found.file_path);
    format!("{cid:<50} {:>6} {path} {}", found.size, found.offset)
}
