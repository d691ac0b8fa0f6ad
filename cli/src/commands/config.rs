//! `config` and `bootstrap`.

use super::Shell;
use crate::args::{BootstrapArgs, BootstrapCommand, ConfigArgs, ConfigCommand};
use crate::config::{Config, Environment};
use crate::exit::Failure;
use crate::output::{escape_line, note};
use crate::repository::Repository;
use crate::rpc::bootstrap::PeerList;
use crate::rpc::config::ConfigField;
use cairn_store::durable::{self, Access};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// `config`.
pub async fn config(
    shell: &mut Shell,
    arguments: ConfigArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    match arguments.command {
        Some(ConfigCommand::Show) => {
            let question = shell.question("config/show");
            if shell.global.wants_json() {
                return shell.print_raw(question).await;
            }
            shell.print_raw(question.with("toml", true)).await
        }
        Some(ConfigCommand::Edit) => edit(&shell.repository, environment).await,
        Some(ConfigCommand::Get { key }) => get(shell, &key).await,
        Some(ConfigCommand::Set { key, value }) => set(shell, &key, &value).await,
        None => match (arguments.key, arguments.value) {
            (Some(key), Some(value)) => set(shell, &key, &value).await,
            (Some(key), None) => get(shell, &key).await,
            (None, _) => Err(Failure::Usage(
                "config needs a key, or one of show, get, set and edit".to_owned(),
            )),
        },
    }
}

async fn get(shell: &mut Shell, key: &str) -> Result<(), Failure> {
    let question = shell.question("config").arg(key);
    shell
        .print_each(question, |field: ConfigField, printer| {
            let text = match &field.value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Ok(printer.line(&escape_line(&text))?)
        })
        .await
}

async fn set(shell: &mut Shell, key: &str, value: &str) -> Result<(), Failure> {
    let question = shell.question("config").arg(key).arg(value);
    shell
        .print_each(question, |_: ConfigField, _| Ok(()))
        .await?;
    if shell.is_remote() {
        note("The running daemon takes this up when it is started again.");
    }
    Ok(())
}

/// Opens a copy in the editor; only a valid one replaces the file.
async fn edit(repository: &Repository, environment: &Environment) -> Result<(), Failure> {
    let editor = environment
        .editor
        .as_ref()
        .ok_or_else(|| Failure::runtime("ENV variable $EDITOR not set"))?;
    let path = repository.config_path();
    let copy = Copy(path.with_file_name(format!(".config.{}.toml", std::process::id())));
    let original = repository.config_text()?;
    // It may hold a token.
    durable::write(&copy.0, original.as_bytes(), Access::Owner)?;
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(&copy.0)
        .status()
        .map_err(|error| Failure::runtime(format!("cannot run {editor}: {error}")))?;
    if !status.success() {
        return Err(Failure::runtime(format!(
            "{editor} ended with {status}; nothing was changed"
        )));
    }
    let text = fs::read_to_string(&copy.0)?;
    let _alone = repository.lock_config().await?;
    let refused = match Config::parse(&text) {
        Err(error) => error.to_string(),
        Ok(_) if repository.config_text()? != original => {
            "the configuration was changed by somebody else meanwhile".to_owned()
        }
        Ok(_) => return Ok(repository.write_config(&text)?),
    };
    // Nobody's work is thrown away.
    let kept = path.with_file_name("config.edited.toml");
    durable::write(&kept, text.as_bytes(), Access::Owner)?;
    Err(Failure::runtime(format!(
        "{refused}; nothing was changed, your text is in {}",
        kept.display()
    )))
}

/// A file that goes away again.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `bootstrap`.
pub async fn bootstrap(shell: &mut Shell, arguments: BootstrapArgs) -> Result<(), Failure> {
    let (question, prefix) = match arguments.command {
        None | Some(BootstrapCommand::List) => (shell.question("bootstrap/list"), ""),
        Some(BootstrapCommand::Add { default: true, .. }) => {
            return Err(Failure::Usage(
                "there are no default peers; name the ones to ask first".to_owned(),
            ));
        }
        Some(BootstrapCommand::Add { peers, .. }) => {
            (shell.question("bootstrap/add").args(peers), "added ")
        }
        Some(BootstrapCommand::Rm { peers, all }) => {
            let all = all || peers.iter().any(|peer| peer == "all");
            let question = if all {
                shell.question("bootstrap/rm/all")
            } else {
                shell.question("bootstrap/rm").args(peers)
            };
            (question, "removed ")
        }
    };
    shell
        .print_each(question, |list: PeerList, printer| {
            for peer in list.peers {
                printer.line(&format!("{prefix}{}", escape_line(&peer)))?;
            }
            Ok(())
        })
        .await
}
