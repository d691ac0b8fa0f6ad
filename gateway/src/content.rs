//! What the gateway needs from the rest: blocks, for one request at a time.

use cairn_node::{Exchange, Session};
use cairn_store::BlockSource;
use std::time::Duration;

/// Where content comes from. Cheap to clone.
pub(crate) trait Content: Clone + Send + Sync + 'static {
    /// The blocks of one request.
    type Source: BlockSource + Clone + 'static;

    /// Everything that can be had; gives up after `idle` without progress.
    fn session(&self, idle: Duration) -> Self::Source;

    /// Only what is already here; never waits for others.
    fn local(&self) -> Self::Source;
}

impl Content for Exchange {
    type Source = Session;

    fn session(&self, idle: Duration) -> Session {
        Exchange::session(self, Some(idle))
    }

    fn local(&self) -> Session {
        Exchange::local(self).session(None)
    }
}
