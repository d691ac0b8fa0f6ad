//! The only place that spawns: names, spans, panics. (signatures)

use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A family of tasks that end together. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
}

impl Tasks {
    /// An empty family.
    pub fn new() -> Self {
        Self::default()
    }
    /// Cancelled when the family is asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }
    /// Runs a task. A panic in it is logged as an error, with its name, and counted.
    pub fn spawn<F>(&self, _name: &'static str, _task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        todo!()
    }
    /// Like `spawn`, but the family stops if this task panics.
    pub fn spawn_critical<F>(&self, _name: &'static str, _task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        todo!()
    }
    /// Asks all to stop and waits; false if some were still running after `grace` (they are aborted).
    pub async fn stop(&self, _grace: Duration) -> bool {
        todo!()
    }
}
