//! `explain`.

use super::Shell;
use crate::exit::Failure;
use crate::output::escape_line;
use crate::rpc::explain::Line;

/// `explain`: one line for each thing that happens.
pub async fn explain(shell: &mut Shell, path: String) -> Result<(), Failure> {
    let question = shell.question("explain").arg(path);
    let mut about = String::new();
    shell
        .print_each(question, |line: Line, printer| {
            if line.cid != about {
                printer.line(&line.cid)?;
                about.clone_from(&line.cid);
            }
            let text = escape_line(&line.text);
            Ok(printer.line(&format!("{:>9.3} s  {text}", line.seconds))?)
        })
        .await
}
