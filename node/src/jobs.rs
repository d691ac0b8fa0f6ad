//! Work that goes on in the background: a job works, then waits, until the node stops.
//!
//! A piece of work is short and never torn apart half-way by its own loop; waiting may end at any
//! moment. Failures are the job's own business: it says how long to rest.

pub(crate) mod reprovide;

use crate::tasks::Tasks;
use std::future::Future;

/// Something done again and again.
pub(crate) trait Job: Send + 'static {
    /// What it is called in logs.
    const NAME: &'static str;

    /// Does one piece; says whether more is ready to be done.
    fn work(&mut self) -> impl Future<Output = Next> + Send;

    /// Done when there may be something to do again. May be dropped at any point.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;
}

/// What comes after a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// More work.
    Work,
    /// A rest, until [`Job::wait`] is done.
    Wait,
}

/// Runs `job` until the family stops.
pub(crate) fn run<J: Job>(mut job: J, tasks: &Tasks) {
    let stop = tasks.stopping();
    tasks.spawn(J::NAME, async move {
        let endless = async {
            loop {
                if job.work().await == Next::Wait {
                    job.wait().await;
                }
            }
        };
        // A stop also ends work: it can only be waiting for peers, who have no promise of ours.
        let _: Option<()> = stop.run_until_cancelled(endless).await;
    });
}
