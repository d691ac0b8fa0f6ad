//! Why a command failed, as the RPC tells it: the one table from errors to statuses.
//!
//! Kubo's tools look at texts, so texts that they match on are Kubo's. Kubo answers nearly every
//! failure with 500 and keeps 400 for requests that cannot be understood; so do we.

use crate::config::ConfigError;
use crate::repository::RepositoryError;
use cairn_node::routing::RoutingError;
use cairn_node::swarm::ConnectError;
use cairn_store::block::BlockError;
use cairn_store::car::read::CarError;
use cairn_store::cid::{Cid, CidError};
use cairn_store::dag::DecodeError;
use cairn_store::dag::path::{ParsePathError, ResolveError};
use cairn_store::gc::GcError;
use cairn_store::pin::PinError;
use cairn_store::sink::PutError;
use cairn_store::snapshot::SnapshotError;
use cairn_store::source::SourceError;
use cairn_store::unixfs::import::ImportError;
use cairn_store::unixfs::read::ReadError;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A failure, told to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    status: StatusCode,
    message: String,
}

/// The body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ErrorBody {
    /// What happened.
    pub message: String,
    /// 0 for a failure, 1 for a wrong request.
    #[serde(default)]
    pub code: u8,
    /// Always `error`.
    #[serde(default)]
    pub r#type: String,
}

impl RpcError {
    /// The command could not be carried out.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
        }
    }

    /// The request cannot be understood.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }

    /// Another status.
    pub fn with_status(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The command needs peers.
    pub fn offline() -> Self {
        Self::failed(
            "this command must be run in online mode. Try running 'cairn daemon' first: it needs peers, and no \
             daemon runs on this repository",
        )
    }

    /// The same, and the daemon has none.
    pub fn daemon_offline() -> Self {
        Self::failed(
            "this command must be run in online mode, and the daemon was started with --offline; stop it (`cairn \
             shutdown`) and start it without",
        )
    }

    /// The time given for the request is over, while this was waited for. Tools look for its first words.
    pub fn too_slow(given: Duration, waits_for: Option<&str>) -> Self {
        let given = given.as_secs_f64();
        Self::failed(match waits_for {
            Some(what) => {
                format!("context deadline exceeded: after {given} s (--timeout) {what}; {KEPT}")
            }
            None => format!("context deadline exceeded: it took more than {given} s (--timeout)"),
        })
    }

    /// The same where no blocks are waited for.
    pub fn too_slow_at(given: Duration, work: &str) -> Self {
        let given = given.as_secs_f64();
        Self::failed(format!(
            "context deadline exceeded: after {given} s (--timeout) {work}"
        ))
    }

    /// Whoever asked is gone. Nobody reads this.
    pub fn reader_gone() -> Self {
        Self::failed("the reader of the answer has gone")
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The body.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            message: self.message.clone(),
            code: u8::from(self.status.is_client_error()),
            r#type: "error".to_owned(),
        }
    }
}

/// What becomes of the blocks that were fetched when the rest was not.
pub const KEPT: &str = "blocks that came stay in the store, as far as `storage.cache_max` holds them: the same command \
                        again fetches only the rest";

fn not_found(cid: &Cid) -> String {
    format!("block was not found: ipld: could not find {cid}")
}

impl From<ReadError> for RpcError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound(cid) => Self::failed(not_found(&cid)),
            ReadError::Source(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<ResolveError> for RpcError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotFound(cid) => Self::failed(not_found(&cid)),
            ResolveError::Source(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<PinError> for RpcError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Read(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<ParsePathError> for RpcError {
    fn from(error: ParsePathError) -> Self {
        Self::failed(error.to_string())
    }
}

macro_rules! failures {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for RpcError {
            fn from(error: $error) -> Self {
                Self::failed(error.to_string())
            }
        }
    )*};
}

failures!(
    BlockError,
    SnapshotError,
    CarError,
    CidError,
    ConfigError,
    ConnectError,
    DecodeError,
    GcError,
    ImportError,
    PutError,
    RepositoryError,
    RoutingError,
    SourceError,
    cairn_store::source::Denial,
    crate::logging::LevelError,
    cairn_node::perf::PerfError,
    cairn_node::keystore::KeystoreError,
    cairn_node::pins::jobs::JobError,
    cairn_store::notes::NoteError,
    crate::rpc::multipart::MultipartError,
    serde_json::Error,
    std::io::Error,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_recognizes_an_unpin_of_what_is_not_pinned() {
        assert_eq!(
            RpcError::from(PinError::NotPinned).message(),
            "not pinned or pinned indirectly"
        );
    }

    #[test]
    fn a_wrong_request_is_told_apart_from_a_failure() {
        assert_eq!(RpcError::wrong("x").body().code, 1);
        assert_eq!(RpcError::failed("x").body().code, 0);
        let json = serde_json::to_string(&RpcError::failed("x").body()).unwrap();
        assert_eq!(json, r#"{"Message":"x","Code":0,"Type":"error"}"#);
    }
}
