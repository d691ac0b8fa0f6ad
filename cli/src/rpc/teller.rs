//! Tells a reader what a thread does that must not be held up by it.
//!
//! Figures are left out while the queue is half full, so that they never take the room of facts. A fact
//! waits for a reader that is merely slow. A reader that takes nothing for [`READER_IDLE_MAX`] is given
//! up: the work goes on untold, and whoever comes to read after all learns that something is missing.
//! Without a daemon the reader is the only one whom the work could keep waiting, and is waited for.

use super::context::Context;
use super::error::RpcError;
use super::reply::Sink;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// The telling end, on the thread that works and where its end is awaited. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    out: Sink,
    runtime: Handle,
    idle_max: Duration,
    given_up: Arc<AtomicBool>,
}

impl Teller {
    /// Tells `out`. Made where the runtime is known.
    pub(super) fn new(out: Sink, context: &Context) -> Self {
        let others_wait = context.stop().is_some();
        Self {
            out,
            idle_max: if others_wait {
                READER_IDLE_MAX
            } else {
                Duration::MAX
            },
            runtime: Handle::current(),
            given_up: Arc::default(),
        }
    }

    /// A figure that the next one replaces.
    pub(super) fn figure<T: Serialize>(&self, value: &T) {
        self.out.offer(value);
    }

    /// What must not be left out. Called on the thread that works.
    pub(super) fn fact<T: Serialize + Sync>(&self, value: &T) {
        if self.given_up.load(Ordering::Relaxed) {
            return;
        }
        let telling = self.out.value(value);
        let told = self
            .runtime
            .block_on(async { tokio::time::timeout(self.idle_max, telling).await });
        if !matches!(told, Ok(Ok(()))) {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the reader has been told everything.
    pub(super) fn result(&self) -> Result<(), RpcError> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(RpcError::failed(
                "it is done, but not told whole: the answer was not read for too long",
            ));
        }
        Ok(())
    }
}

/// How long the work of a daemon waits for a reader that takes nothing.
const READER_IDLE_MAX: Duration = if cfg!(test) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(10)
};
