//! `diag`: whether the node is well, and what the layers below the exchange can do.

use super::Shell;
use crate::args::DiagCommand;
use crate::exit::Failure;
use crate::output::{escape_line, human_bytes};
use crate::rpc::diag::Measured;
use crate::rpc::healthy::Finding;

/// `diag`.
pub async fn diag(shell: &mut Shell, command: DiagCommand) -> Result<(), Failure> {
    let DiagCommand::Perf {
        peer,
        upload,
        download,
        streams,
    } = command
    else {
        return healthy(shell).await;
    };
    let question = shell
        .question("diag/perf")
        .arg(peer)
        .maybe("upload", upload)
        .maybe("download", download)
        .maybe("streams", streams);
    shell
        .print_each(question, |measured: Measured, printer| {
            Ok(printer.line(&text(&measured))?)
        })
        .await
}

/// Prints what is well and what is not; exit code 1 if anything is not.
async fn healthy(shell: &mut Shell) -> Result<(), Failure> {
    let question = shell.question("diag/healthy");
    let is_ill = |finding: &Finding| !finding.healthy;
    let ill = shell
        .print_tested(question, is_ill, |finding, printer| {
            let how = if finding.healthy { "ok" } else { "not well" };
            let line = format!("{}: {how}, {}", finding.part, finding.text);
            Ok(printer.line(&escape_line(&line))?)
        })
        .await?;
    if ill { Err(Failure::Told) } else { Ok(()) }
}

fn text(measured: &Measured) -> String {
    format!(
        "{}: {} in {:.3} s over {} stream{} with {}, {:.1} MB/s",
        measured.direction,
        human_bytes(measured.bytes),
        measured.seconds,
        measured.streams,
        if measured.streams == 1 { "" } else { "s" },
        escape_line(&measured.address),
        measured.rate / 1e6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_one_line() {
        let measured = Measured {
            direction: "upload".to_owned(),
            address: "/ip4/127.0.0.1/tcp/4001".to_owned(),
            streams: 2,
            bytes: 256 << 20,
            seconds: 0.25,
            rate: 1_073_741_824.0,
            ..Measured::default()
        };
        let line =
            "upload: 268 MB in 0.250 s over 2 streams with /ip4/127.0.0.1/tcp/4001, 1073.7 MB/s";
        assert_eq!(text(&measured), line);
    }
}
