//! Local, lan, public: what may be dialled and listened on. (signatures)

use serde::{Deserialize, Serialize};

/// How far this node reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// This machine only: loopback.
    #[default]
    Local,
    /// Private addresses too.
    Lan,
    /// Everything.
    Public,
}
