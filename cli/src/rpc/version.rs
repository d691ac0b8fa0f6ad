//! `version`, `commands`, `shutdown`: the program itself.

use super::api::{COMMANDS, Call};
use super::error::RpcError;
use super::reply::Reply;
use crate::repository::FORMAT;
use serde::{Deserialize, Serialize};

/// What we call ourselves.
pub const AGENT: &str = concat!("cairn/", env!("CARGO_PKG_VERSION"));

/// The answer of `version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VersionAnswer {
    /// Of the program.
    pub version: String,
    /// Of its source; not recorded.
    pub commit: String,
    /// Of the repository's format.
    pub repo: String,
    /// Processor and operating system.
    pub system: String,
    /// Tools look for it; we are not written in Go.
    pub golang: String,
}

/// A command in the answer of `commands`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CommandTree {
    /// Its name.
    pub name: String,
    /// What lies below it.
    pub subcommands: Vec<CommandTree>,
}

/// `version`.
pub fn version() -> Result<Reply, RpcError> {
    Reply::value(&VersionAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: String::new(),
        repo: FORMAT.to_string(),
        system: format!("{}/{}", std::env::consts::ARCH, std::env::consts::OS),
        golang: String::new(),
    })
}

/// `commands`.
pub fn commands() -> Result<Reply, RpcError> {
    let mut root = CommandTree {
        name: "cairn".to_owned(),
        subcommands: Vec::new(),
    };
    for command in COMMANDS {
        let mut place = &mut root;
        for name in command.split('/') {
            let at = place
                .subcommands
                .iter()
                .position(|known| known.name == name);
            let at = at.unwrap_or_else(|| {
                place.subcommands.push(CommandTree {
                    name: name.to_owned(),
                    subcommands: Vec::new(),
                });
                place.subcommands.len() - 1
            });
            let Some(next) = place.subcommands.get_mut(at) else {
                break;
            };
            place = next;
        }
    }
    Reply::value(&root)
}

/// `shutdown`: the answer goes out before the daemon goes.
pub fn shutdown(call: Call) -> Result<Reply, RpcError> {
    let stop = call.context.stop();
    let not_running = || {
        call.context
            .no_daemon(RpcError::wrong("daemon not running"))
    };
    stop.ok_or_else(not_running)?.cancel();
    Ok(Reply::Empty)
}
