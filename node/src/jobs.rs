//! Work that goes on in the background: a job works, then waits, until the node stops.
//!
//! A piece of work is short and never torn apart half-way by its own loop; waiting may end at any
//! moment. Failures are the job's own business: it says how long to rest.

pub(crate) mod evict;
pub(crate) mod scrub;

use crate::event::{self, Event};
use crate::exchange::Exchange;
use crate::tasks::Tasks;
use cairn_store::Store;
use cairn_store::config::Percent;
use evict::Evict;
use scrub::Scrub;
use std::future::Future;
use tokio::sync::broadcast;

/// Something done again and again.
pub(crate) trait Job: Send + 'static {
    /// What it is called in logs.
    const NAME: &'static str;

    /// Does one piece.
    fn work(&mut self) -> impl Future<Output = ()> + Send;

    /// Done when there may be something to do again. May be dropped at any point.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;
}

/// Starts what keeps the store in order: eviction, and the scrub with its share of the time.
pub(crate) fn keep_in_order(
    exchange: &Exchange,
    scrub_share: Percent,
    tasks: &Tasks,
    events: &broadcast::Sender<Event>,
) {
    if !exchange.store().is_read_only() {
        run(Evict::new(exchange.store().clone(), events.clone()), tasks);
    }
    if let Some(scrub) = Scrub::new(exchange.clone(), events.clone(), scrub_share) {
        run(scrub, tasks);
    }
}

/// The same where there is no node: what is bad is found and told, not healed.
pub fn keep_in_order_offline(store: Store, scrub_share: Percent, tasks: &Tasks) {
    let exchange = Exchange::offline(store);
    keep_in_order(&exchange, scrub_share, tasks, &event::channel());
}

/// Runs `job` until the family stops.
pub(crate) fn run<J: Job>(mut job: J, tasks: &Tasks) {
    let stop = tasks.stopping();
    tasks.spawn(J::NAME, async move {
        let endless = async {
            loop {
                job.work().await;
                job.wait().await;
            }
        };
        // A stop also ends work: it can only be waiting for peers, who have no promise of ours.
        let _: Option<()> = stop.run_until_cancelled(endless).await;
    });
}
