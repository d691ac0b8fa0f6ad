//! `dag`.

use super::{Shell, sources};
use crate::args::{DagCommand, DagImportArgs, DagPutArgs};
use crate::exit::Failure;
use crate::output::{self, Printer, Progress, human_bytes};
use crate::rpc::dag::import::Imported;
use crate::rpc::dag::stat::Summary;
use crate::rpc::dag::{PutAnswer, ResolveAnswer};
use crate::rpc::entries::{LocalUpload, Walk};
use std::fs;

/// `dag`.
pub async fn dag(shell: &mut Shell, command: DagCommand) -> Result<(), Failure> {
    match command {
        DagCommand::Get { path, output_codec } => {
            let question = shell
                .question("dag/get")
                .arg(path)
                .maybe("output-codec", output_codec.as_ref());
            shell.print_raw(question).await?;
            let text = matches!(output_codec.as_deref(), None | Some("dag-json" | "json"));
            if text {
                shell.printer.line("")?;
            }
            Ok(())
        }
        DagCommand::Put(arguments) => put(shell, arguments).await,
        DagCommand::Resolve { path } => {
            let question = shell.question("dag/resolve").arg(path);
            shell
                .print_each(question, |answer: ResolveAnswer, printer| {
                    let rest = output::escape_line(&answer.rem_path);
                    let slash = if rest.is_empty() { "" } else { "/" };
                    Ok(printer.line(&format!("{}{slash}{rest}", answer.cid.cid))?)
                })
                .await
        }
        DagCommand::Stat { roots, progress } => stat(shell, roots, progress).await,
        DagCommand::Export {
            root,
            local_only,
            progress,
        } => {
            let question = shell
                .question("dag/export")
                .arg(root)
                .maybe("local-only", local_only.then_some(true));
            let progress = if shell.wants_progress(progress) {
                Progress::bytes(None)
            } else {
                Progress::none()
            };
            let mut answer = shell.ask(question).await?;
            let mut written = 0;
            while let Some(piece) = answer.piece().await? {
                shell.printer.bytes(&piece)?;
                written += piece.len() as u64;
                progress.at(written);
            }
            Ok(())
        }
        DagCommand::Import(arguments) => import(shell, arguments).await,
    }
}

async fn put(shell: &mut Shell, arguments: DagPutArgs) -> Result<(), Failure> {
    let question = shell
        .question("dag/put")
        .maybe("store-codec", arguments.store_codec.as_ref())
        .maybe("input-codec", arguments.input_codec.as_ref())
        .maybe("hash", arguments.hash.as_ref())
        .maybe("pin", arguments.pin.then_some(true))
        .upload(LocalUpload {
            sources: sources(arguments.paths, None),
            walk: Walk::default(),
            ..LocalUpload::default()
        });
    shell
        .print_each(question, |answer: PutAnswer, printer| {
            Ok(printer.line(&answer.cid.cid)?)
        })
        .await
}

async fn import(shell: &mut Shell, arguments: DagImportArgs) -> Result<(), Failure> {
    let sizes = arguments
        .paths
        .iter()
        .map(|path| Some(fs::metadata(path).ok()?.len()));
    let total: Option<u64> = sizes.sum();
    let progress = if shell.wants_progress(None) {
        Progress::bytes(total.filter(|total| *total > 0))
    } else {
        Progress::none()
    };
    let question = shell
        .question("dag/import")
        .maybe("pin-roots", arguments.pin_roots)
        .maybe("local-only", arguments.local_only.then_some(true))
        .maybe("silent", arguments.silent.then_some(true))
        .maybe("stats", arguments.stats.then_some(true))
        .upload(LocalUpload {
            sources: sources(arguments.paths, None),
            walk: Walk::default(),
            meter: progress.meter(),
        });
    let silent = arguments.silent;
    shell
        .print_each(question, |line: Imported, printer| {
            if silent {
                return Ok(());
            }
            if let Some(root) = line.root
                && root.pin_error_msg.is_empty()
            {
                let line = format!("Pinned root\t{}\tsuccess", root.cid.cid);
                progress.beside(|| printer.line(&line))?;
            }
            if let Some(stats) = line.stats {
                printer.line(&format!(
                    "Imported {} blocks ({} bytes)",
                    stats.block_count, stats.block_bytes_count
                ))?;
            }
            Ok(())
        })
        .await
}

async fn stat(
    shell: &mut Shell,
    roots: Vec<String>,
    progress: Option<bool>,
) -> Result<(), Failure> {
    let watched = shell.wants_progress(progress);
    let question = shell
        .question("dag/stat")
        .args(roots)
        .with("progress", watched);
    let mut last = None;
    shell
        .print_each(question, |summary: Summary, _| {
            if watched && summary.ratio == 0.0 {
                let blocks: u64 = summary.dag_stats.iter().map(|dag| dag.num_blocks).sum();
                let bytes: u64 = summary.dag_stats.iter().map(|dag| dag.size).sum();
                output::note_over(&format!(
                    "Fetched/Processed {blocks} blocks, {bytes} bytes ({})",
                    human_bytes(bytes)
                ));
            }
            last = Some(summary);
            Ok(())
        })
        .await?;
    if watched {
        output::note_over("");
    }
    match last {
        Some(summary) => print_summary(&summary, &mut shell.printer),
        None => Ok(()),
    }
}

fn print_summary(summary: &Summary, printer: &mut Printer) -> Result<(), Failure> {
    let width = summary.dag_stats.first().map_or(0, |dag| dag.cid.len());
    printer.line("")?;
    printer.line(&format!("{:width$}\t{:15}\tSize", "CID", "Blocks"))?;
    for dag in &summary.dag_stats {
        printer.line(&format!(
            "{}\t{:<15}\t{}",
            dag.cid, dag.num_blocks, dag.size
        ))?;
    }
    printer.line("")?;
    printer.line("Summary")?;
    let total = human_bytes(summary.total_size);
    let shared = human_bytes(summary.shared_size);
    printer.line(&format!("Total Size: {} ({total})", summary.total_size))?;
    printer.line(&format!("Unique Blocks: {}", summary.unique_blocks))?;
    printer.line(&format!("Shared Size: {} ({shared})", summary.shared_size))?;
    printer.line(&format!("Ratio: {:.6}", summary.ratio))?;
    printer.line("")?;
    Ok(printer.line("")?)
}
