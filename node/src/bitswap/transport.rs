//! What carries blocks: the seam between whom we ask for what and how that is asked.
//!
//! The worker hands a transport messages, which say what changed in our wants. What came of them
//! comes back as the worker's inputs, whoever carried it: blocks by way of the verifier, that a
//! block is not there, that the source has failed. So windows, hedging, stalls and distrust are
//! the same for all, and a session does not know which of its blocks came which way.

use super::streams::{LANE_MESSAGES_MAX, Lane, Outgoing};
use tokio::sync::mpsc;

/// One way to one source of blocks.
pub(super) trait BlockTransport: Send + 'static {
    /// The name of its task.
    const TASK: &'static str;
    /// How many messages may wait for it.
    const MESSAGES_MAX: usize;

    /// Carries what comes until the worker lets go of the other end.
    fn run(self, inbox: mpsc::Receiver<Outgoing>) -> impl Future<Output = ()> + Send;
}

impl BlockTransport for Lane {
    const TASK: &'static str = "bitswap lane";
    const MESSAGES_MAX: usize = LANE_MESSAGES_MAX;

    fn run(self, inbox: mpsc::Receiver<Outgoing>) -> impl Future<Output = ()> + Send {
        Lane::run(self, inbox)
    }
}
