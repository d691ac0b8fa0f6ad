//! The only place that spawns: names, spans, panics.
//!
//! A [`Tasks`] is a family: it owns what it spawned, asks all of it to stop at once and waits. A
//! panic ends one task, is logged with that task's name and counted; the panic of a *critical* task
//! ends its family and raises the alarm that every related family shares.
//!
//! Reading order: [`Tasks::spawn`], [`Tasks::stop`], then `run`.

use futures::FutureExt;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A family of tasks that end together. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks {
    /// Cancelled: please end.
    stop: CancellationToken,
    /// Cancelled: dropped at the next await.
    abort: CancellationToken,
    tracker: TaskTracker,
    shared: Arc<Shared>,
}

/// What related families have in common.
#[derive(Default)]
struct Shared {
    panics: AtomicU64,
    alarm: CancellationToken,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tasks")
            .field("running", &self.tracker.len())
            .field("stopping", &self.stop.is_cancelled())
            .field("panics", &self.panics())
            .finish()
    }
}

impl Tasks {
    /// An empty family.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another family, stopped on its own, that shares the count of panics and the alarm.
    pub fn family(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            ..Self::default()
        }
    }

    /// Cancelled when the family is asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when a critical task of this or a related family panicked: the rest cannot go on.
    pub fn alarm(&self) -> CancellationToken {
        self.shared.alarm.clone()
    }

    /// How many tasks panicked, over all related families.
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Runs a task. A panic in it is logged as an error, with its name, and counted.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.run(name, Panic::EndsTheTask, task);
    }

    /// Like `spawn`, but the family stops if this task panics.
    pub fn spawn_critical<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.run(name, Panic::EndsTheFamily, task);
    }

    /// Runs work that blocks or computes, on a thread made for that; `None` if it panicked. It
    /// cannot be aborted, so it must be short or look at [`Tasks::stopping`].
    pub async fn blocking<T, F>(&self, name: &'static str, work: F) -> Option<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.tracker.spawn_blocking(work).await {
            Ok(done) => Some(done),
            Err(error) => {
                if error.is_panic() {
                    self.report(name, Panic::EndsTheTask, error.into_panic().as_ref());
                }
                None
            }
        }
    }

    /// Asks all to stop and waits; false if some were still running after `grace` (they are aborted).
    pub async fn stop(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        if timeout(grace, self.tracker.wait()).await.is_ok() {
            return true;
        }
        let left = self.tracker.len();
        tracing::warn!(left, "tasks did not stop in time and are aborted");
        self.abort();
        // A task that never awaits cannot be aborted: do not wait for it for ever.
        let _ = timeout(ABORT_WAIT, self.tracker.wait()).await;
        false
    }

    /// Drops every task at its next await, without waiting.
    pub(crate) fn abort(&self) {
        self.stop.cancel();
        self.abort.cancel();
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns; everything else comes through here"
    )]
    fn run<F>(&self, name: &'static str, panic: Panic, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let family = self.clone();
        let token = self.tracker.token();
        let work = async move {
            let guarded = AssertUnwindSafe(task).catch_unwind();
            if let Some(Err(payload)) = family.abort.run_until_cancelled(guarded).await {
                family.report(name, panic, payload.as_ref());
            }
            // Until here the family waits for this task.
            drop(token);
        };
        tokio::spawn(work.instrument(tracing::info_span!("task", name)));
    }

    /// Takes note of a panic that its task outlives, as of any other; gives what it says.
    pub(crate) fn outlived(&self, name: &'static str, payload: &(dyn Any + Send)) -> String {
        self.report(name, Panic::EndsTheTask, payload);
        message(payload).to_owned()
    }

    fn report(&self, name: &'static str, panic: Panic, payload: &(dyn Any + Send)) {
        self.shared.panics.fetch_add(1, Ordering::Relaxed);
        let why = message(payload);
        match panic {
            Panic::EndsTheTask => tracing::error!(task = name, why, "task panicked"),
            Panic::EndsTheFamily => {
                tracing::error!(task = name, why, "critical task panicked, stopping");
                self.stop.cancel();
                self.shared.alarm.cancel();
            }
        }
    }
}

/// What a panic says.
fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// What a panic ends.
#[derive(Clone, Copy)]
enum Panic {
    EndsTheTask,
    EndsTheFamily,
}

/// How long aborted tasks get to reach their next await.
const ABORT_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::oneshot;

    const GRACE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn stop_waits_for_tasks_that_end_when_asked() {
        let tasks = Tasks::new();
        let (sender, mut receiver) = oneshot::channel();
        let stopping = tasks.stopping();
        tasks.spawn("polite", async move {
            stopping.cancelled().await;
            sender.send("done").unwrap();
        });
        assert!(tasks.stop(GRACE).await);
        assert_eq!(receiver.try_recv(), Ok("done"));
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_aborted_after_the_grace() {
        struct Dropped(Option<oneshot::Sender<()>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.take().unwrap().send(()).unwrap();
            }
        }
        let tasks = Tasks::new();
        let (sender, receiver) = oneshot::channel();
        let held = Dropped(Some(sender));
        tasks.spawn("stubborn", async move {
            let _held = held;
            pending::<()>().await;
        });
        assert!(!tasks.stop(GRACE).await);
        receiver.await.expect("dropped by the abort");
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_the_others_go_on() {
        let tasks = Tasks::new();
        let (sender, receiver) = oneshot::channel::<()>();
        tasks.spawn("broken", async move {
            let _sender = sender;
            panic!("on purpose");
        });
        receiver.await.unwrap_err();
        assert!(!tasks.stopping().is_cancelled());
        assert!(tasks.stop(GRACE).await);
        assert_eq!(tasks.panics(), 1);
    }

    #[tokio::test]
    async fn a_critical_panic_stops_its_family_and_raises_the_alarm_of_all() {
        let first = Tasks::new();
        let second = first.family();
        first.spawn_critical("broken", async { panic!("on purpose") });
        first.stopping().cancelled().await;
        second.alarm().cancelled().await;
        assert!(!second.stopping().is_cancelled());
        assert_eq!(second.panics(), 1);
    }

    #[tokio::test]
    async fn blocking_work_answers_and_its_panic_is_counted() {
        let tasks = Tasks::new();
        assert_eq!(tasks.blocking("sum", || 1 + 1).await, Some(2));
        let broken: Option<()> = tasks.blocking("broken", || panic!("on purpose")).await;
        assert_eq!((broken, tasks.panics()), (None, 1));
    }
}
