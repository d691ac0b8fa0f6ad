//! What an operator may choose about the gateway. (signatures)

use serde::{Deserialize, Serialize};

/// The `[gateway]` section of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}
