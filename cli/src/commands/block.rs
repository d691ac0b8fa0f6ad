//! `block`.

use super::{Shell, sources};
use crate::args::BlockCommand;
use crate::exit::Failure;
use crate::output;
use crate::rpc::block::{BlockStat, Removed};
use crate::rpc::entries::{LocalUpload, Walk};

/// `block`.
pub async fn block(shell: &mut Shell, command: BlockCommand) -> Result<(), Failure> {
    match command {
        BlockCommand::Get { cid } => {
            let question = shell.question("block/get").arg(cid);
            shell.print_raw(question).await
        }
        BlockCommand::Stat { cid } => {
            let question = shell.question("block/stat").arg(cid);
            shell
                .print_each(question, |stat: BlockStat, printer| {
                    printer.line(&format!("Key: {}", stat.key))?;
                    Ok(printer.line(&format!("Size: {}", stat.size))?)
                })
                .await
        }
        BlockCommand::Put(arguments) => {
            let question = shell
                .question("block/put")
                .maybe("cid-codec", arguments.cid_codec.as_ref())
                .maybe("format", arguments.format.as_ref())
                .maybe("mhtype", arguments.mhtype.as_ref())
                .maybe("mhlen", arguments.mhlen)
                .maybe("pin", arguments.pin.then_some(true))
                .upload(LocalUpload {
                    sources: sources(arguments.paths, None),
                    walk: Walk::default(),
                    ..LocalUpload::default()
                });
            shell
                .print_each(question, |stat: BlockStat, printer| {
                    Ok(printer.line(&stat.key)?)
                })
                .await
        }
        BlockCommand::Rm { cids, force, quiet } => {
            let question = shell
                .question("block/rm")
                .args(cids)
                .maybe("force", force.then_some(true))
                .maybe("quiet", quiet.then_some(true));
            let is_failure = |removed: &Removed| !removed.error.is_empty();
            let failed = shell
                .print_tested(question, is_failure, |removed, printer| {
                    if !is_failure(&removed) {
                        return Ok(printer.line(&format!("removed {}", removed.hash))?);
                    }
                    let text = format!("cannot remove {}: {}", removed.hash, removed.error);
                    output::note(&output::escape_line(&text));
                    Ok(())
                })
                .await?;
            if failed {
                return Err(Failure::runtime("some blocks not removed"));
            }
            Ok(())
        }
    }
}
