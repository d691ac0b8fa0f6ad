//! `config` and `bootstrap`.

use super::Shell;
use crate::args::{BootstrapArgs, BootstrapCommand, ConfigArgs, ConfigCommand};
use crate::config::{Config, Environment};
use crate::exit::Failure;
use crate::output::{escape_line, note, warning};
use crate::repository::{Repository, read_config};
use crate::rpc::bootstrap::PeerList;
use crate::rpc::config::{ConfigField, left_over, may_replace};
use cairn_node::limits::{Limits, Subnet};
use cairn_store::durable::{self, Access};
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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
    let (mut applied, mut warnings) = (false, Vec::new());
    let look = |field: &ConfigField| {
        applied = field.applied == Some(true);
        warnings.clone_from(&field.warnings);
    };
    shell.print_seen(question, look, |_, _| Ok(())).await?;
    if applied {
        note("The running daemon has taken this up.");
    } else if shell.is_remote() {
        note(LATER);
    }
    for text in warnings {
        warning(&escape_line(&text));
    }
    if LIMITING.iter().any(|limit| key.starts_with(limit)) && value != "unlimited" {
        tell_exempt(shell).await?;
    }
    Ok(())
}

/// Or whoever tries a limit on one machine would see nothing slowed.
async fn tell_exempt(shell: &mut Shell) -> Result<(), Failure> {
    let question = shell.question("config").arg("limits.exempt");
    let field: ConfigField = shell.ask(question).await?.value().await?;
    let networks = field.value.as_array().into_iter().flatten();
    let exempt: Vec<Subnet> = networks
        .filter_map(|network| network.as_str()?.parse().ok())
        .collect();
    let limits = Limits {
        exempt,
        ..Limits::default()
    };
    if NEAR.iter().any(|near| !limits.apply_to(Some(*near))) {
        note(
            "Peers in `limits.exempt`, which holds this machine or private networks, are not slowed; to try \
             a limit there: cairn config set limits.exempt '[]'",
        );
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
    let written = durable::write(&copy.0, original.as_bytes(), Access::Owner);
    written.map_err(|error| about("write", &copy.0, &error))?;
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
    let Err(failure) = take(repository, &copy.0, &original).await else {
        return Ok(());
    };
    // Nobody's work is thrown away, whatever it is and however full the disk.
    let kept = copy.keep(&path.with_file_name("config.edited.toml"));
    Err(Failure::runtime(format!(
        "{failure}; your text is in {}",
        kept.display()
    )))
}

/// Makes the text in `copy` the configuration, if it is a valid one and nobody else changed the `original`.
async fn take(repository: &Repository, copy: &Path, original: &str) -> Result<(), Failure> {
    let text = read_config(copy).map_err(|error| about("read", copy, &error))?;
    let _alone = repository.lock_config().await?;
    let left = Config::parse(&text).and_then(|config| may_replace(repository, original, &config));
    let refused = match left {
        Err(error) => error.to_string(),
        Ok(_) if repository.config_text()? != original => {
            "the configuration was changed by somebody else meanwhile".to_owned()
        }
        Ok(left) => {
            repository.write_config(&text)?;
            if let Some(error) = left {
                warning(&left_over(error));
            }
            return Ok(());
        }
    };
    Err(Failure::runtime(format!("{refused}; nothing was changed")))
}

fn about(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::runtime(format!("cannot {what} {}: {error}", path.display()))
}

/// A file that goes away again, unless it is kept.
struct Copy(PathBuf);

impl Copy {
    /// Keeps it as `name`, or where it is if that cannot be. Gives its place.
    fn keep(self, name: &Path) -> PathBuf {
        // The editor may have made it anew, and it may hold a token.
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o600));
        let renamed = fs::rename(&self.0, name);
        let copy = self.0.clone();
        std::mem::forget(self);
        renamed.map_or(copy, |()| name.to_owned())
    }
}

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
    let (mut changed, mut warnings) = (false, Vec::new());
    let look = |list: &PeerList| {
        changed = !prefix.is_empty() && !list.peers.is_empty();
        warnings.clone_from(&list.warnings);
    };
    shell
        .print_seen(question, look, |list: PeerList, printer| {
            for peer in list.peers {
                printer.line(&format!("{prefix}{}", escape_line(&peer)))?;
            }
            Ok(())
        })
        .await?;
    if changed && shell.is_remote() {
        note(LATER);
    }
    for text in warnings {
        warning(&escape_line(&text));
    }
    Ok(())
}

/// When a change holds that a running daemon does not take up.
const LATER: &str = "The running daemon takes this up when it is started again.";

/// Keys of limits.
const LIMITING: [&str; 2] = ["limits.upload", "limits.download"];
/// An address of each kind that is near: this machine's, and private networks'.
const NEAR: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TEMPLATE;

    /// Edits in a repository of its own; the failure, and what was kept.
    async fn refused(editor: &str) -> (String, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        repository.write_config(TEMPLATE).unwrap();
        let environment = Environment {
            repository: folder.path().to_owned(),
            log: None,
            passphrase: None,
            swarm_key: cairn_node::private::Need::May,
            fixed: Default::default(),
            denylists: Default::default(),
            editor: Some(format!("cd {}; {editor}", folder.path().display())),
        };
        let failure = edit(&repository, &environment).await.unwrap_err();
        let kept = folder.path().join("config.edited.toml");
        let failure = failure.to_string();
        let told = format!("; your text is in {}", kept.display());
        assert!(failure.ends_with(&told), "{failure}");
        let names = fs::read_dir(folder.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let copies = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with(".config");
        assert_eq!(names.iter().find(copies), None);
        (failure, fs::read(kept).unwrap())
    }

    #[tokio::test]
    async fn an_edited_text_that_is_no_text_is_kept() {
        let (failure, kept) = refused("printf '\\377' >").await;
        assert_eq!(kept, b"\xff");
        assert!(failure.starts_with("cannot read /"), "{failure}");
    }

    #[tokio::test]
    async fn an_edited_text_that_a_swarm_key_forbids_is_kept() {
        let key = "printf '/key/swarm/psk/1.0.0/\\n/base16/\\n%064d\\n' 7 > swarm.key; chmod 600 swarm.key";
        let quic = "[addresses]\nswarm = [\"/ip4/127.0.0.1/udp/0/quic-v1\"]\n";
        let (failure, kept) = refused(&format!("{key}; printf '%s' '{quic}' >")).await;
        assert_eq!(kept, quic.as_bytes());
        assert!(failure.contains("quic-v1"), "{failure}");
    }

    #[tokio::test]
    async fn an_edited_text_is_kept_when_the_configuration_has_gone_meanwhile() {
        let (failure, kept) = refused("rm config.toml; echo mine >").await;
        assert_eq!(kept, b"mine\n");
        assert!(failure.contains("no repository found"), "{failure}");
    }

    #[tokio::test]
    async fn an_edited_text_is_kept_when_the_configuration_can_neither_be_read_nor_locked() {
        let (failure, kept) = refused("rm config.toml; mkdir config.toml; true").await;
        assert_eq!(kept, TEMPLATE.as_bytes());
        assert!(failure.contains("config.toml"), "{failure}");
        let (failure, kept) = refused("mkdir config.lock; true").await;
        assert_eq!(kept, TEMPLATE.as_bytes());
        assert!(failure.contains("config.lock"), "{failure}");
    }
}
