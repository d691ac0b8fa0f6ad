//! What only the asking end can add to a failure: that no daemon runs, or that it ended.

use super::error::RpcError;
use std::net::SocketAddr;

/// Who was asked, and for what.
#[derive(Debug, Clone, Default)]
pub(super) struct Manner {
    /// `None` for this process.
    daemon: Option<SocketAddr>,
    /// Whether it is a command that asks peers for what is not here.
    fetches: bool,
}

impl Manner {
    pub(super) fn of(daemon: Option<SocketAddr>, command: &str, is_offline: bool) -> Self {
        Self {
            daemon,
            fetches: FETCHING.contains(&command) && !is_offline,
        }
    }

    /// The command failed.
    pub(super) fn failed(&self, error: RpcError) -> RpcError {
        if self.daemon.is_some() || !self.fetches || !error.message().contains("not found") {
            return error;
        }
        let told = format!(
            "{}; no daemon runs, so no peer was asked: start one (`cairn daemon`), then say the same again",
            error.message()
        );
        RpcError::with_status(error.status(), told)
    }

    /// The answer, or the way to it, broke off.
    pub(super) fn broke_off(&self, why: &str) -> RpcError {
        let Some(daemon) = self.daemon else {
            return RpcError::failed(format!("the answer broke off: {why}"));
        };
        let kept = if self.fetches {
            "; what it had fetched up to the last second or so is in the store: start it again (`cairn daemon`), \
             then the same command goes on from there"
        } else {
            "; start it again with `cairn daemon`"
        };
        RpcError::failed(format!(
            "the daemon at {daemon} ended while it worked on this, as if it was stopped or killed \
             ({why}){kept}"
        ))
    }
}

/// Commands that ask peers for what is not here.
const FETCHING: [&str; 13] = [
    "block/get",
    "block/stat",
    "cat",
    "dag/export",
    "dag/get",
    "dag/resolve",
    "dag/stat",
    "get",
    "ls",
    "pin/add",
    "pin/update",
    "refs",
    "resolve",
];
