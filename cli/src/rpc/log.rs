//! `log`: how much is told, changed while the program runs.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use crate::logging;
use serde::{Deserialize, Serialize};

/// The answer of `log level`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LevelAnswer {
    /// What was changed.
    pub message: String,
}

/// The answer of `log ls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Subsystems {
    /// What a level can be set for.
    pub strings: Vec<String>,
}

/// `log level`.
pub fn level(call: Call) -> Result<Reply, RpcError> {
    let arguments = call.arguments.all();
    let (Some(subsystem), Some(level)) = (arguments.first(), arguments.get(1)) else {
        return Err(RpcError::wrong(
            "arguments \"subsystem\" and \"level\" are required",
        ));
    };
    logging::set_level(subsystem, level)?;
    let shown = if *subsystem == "all" { "*" } else { subsystem };
    Reply::value(&LevelAnswer {
        message: format!("Changed log level of '{shown}' to '{level}'\n"),
    })
}

/// `log ls`.
pub fn list() -> Result<Reply, RpcError> {
    Reply::value(&Subsystems {
        strings: logging::SUBSYSTEMS.map(str::to_owned).to_vec(),
    })
}
