//! Tells the network what is pinned: at the start, when something new is announced, and again in
//! good time before others forget it.
//!
//! Announcements go before the round over everything. Without peers it waits for one. What nobody
//! took is tried again after a while; more of that than can be remembered is left to the next round.

use super::{Job, Next};
use crate::event::Event;
use crate::routing::{Routing, RoutingError};
use cairn_store::Cid;
use futures::future::join_all;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

/// The job. `R` says what is pinned now.
pub(crate) struct Reprovide<R> {
    routing: Routing,
    roots: R,
    events: broadcast::Receiver<Event>,
    interval: Duration,
    at_once: usize,
    /// What is left of this round.
    round: std::vec::IntoIter<Cid>,
    /// Taken from the queue, but there was nobody to tell.
    kept: Vec<Cid>,
    next_round: Instant,
    /// What nobody took, and when to try again.
    again: Vec<Cid>,
    again_at: Option<Instant>,
    rest: Rest,
}

/// What the job waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    ForWork,
    ForPeers,
}

impl<R> Reprovide<R>
where
    R: Fn() -> Vec<Cid> + Send + 'static,
{
    pub(crate) fn new(
        routing: Routing,
        roots: R,
        events: broadcast::Receiver<Event>,
        interval: Duration,
        at_once: usize,
    ) -> Self {
        Self {
            routing,
            roots,
            events,
            interval,
            at_once: at_once.max(1),
            round: Vec::new().into_iter(),
            kept: Vec::new(),
            next_round: Instant::now(),
            again: Vec::new(),
            again_at: None,
            rest: Rest::ForWork,
        }
    }

    fn next_batch(&mut self) -> Vec<Cid> {
        let mut batch = std::mem::take(&mut self.kept);
        let room = self.at_once.saturating_sub(batch.len());
        batch.extend(self.routing.announcements().take(room));
        let room = self.at_once.saturating_sub(batch.len());
        batch.extend(self.round.by_ref().take(room));
        batch
    }
}

impl<R> Job for Reprovide<R>
where
    R: Fn() -> Vec<Cid> + Send + 'static,
{
    const NAME: &'static str = "reprovide";

    async fn work(&mut self) -> Next {
        let now = Instant::now();
        if now >= self.next_round && self.round.len() == 0 {
            self.round = (self.roots)().into_iter();
            self.next_round = now + self.interval;
        }
        if self.again_at.is_some_and(|at| now >= at) {
            self.again_at = None;
            for cid in std::mem::take(&mut self.again) {
                self.routing.announce(cid);
            }
        }
        let batch = self.next_batch();
        if batch.is_empty() {
            self.rest = Rest::ForWork;
            return Next::Wait;
        }
        let told = batch.iter().map(|cid| self.routing.provide(*cid));
        for (cid, told) in batch.iter().zip(join_all(told).await) {
            match told {
                Ok(()) => {}
                Err(RoutingError::NoPeers) => self.kept.push(*cid),
                Err(error) => {
                    tracing::debug!(%cid, %error, "not provided");
                    if self.again.len() < AGAIN_MAX {
                        self.again.push(*cid);
                        self.again_at
                            .get_or_insert_with(|| Instant::now() + AGAIN_AFTER);
                    }
                }
            }
        }
        if self.kept.is_empty() {
            return Next::Work;
        }
        self.rest = Rest::ForPeers;
        Next::Wait
    }

    async fn wait(&mut self) {
        match self.rest {
            Rest::ForWork => {
                let announcements = self.routing.announcements();
                let next = self
                    .again_at
                    .map_or(self.next_round, |at| at.min(self.next_round));
                tokio::select! {
                    () = announcements.filled() => {}
                    () = tokio::time::sleep_until(next) => {}
                }
            }
            // Subscribed from the start, so a peer that came meanwhile is not missed.
            Rest::ForPeers => loop {
                match self.events.recv().await {
                    Ok(Event::Identified(_)) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    // Nobody comes any more: the node is stopping.
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            },
        }
    }
}

/// How long to leave peers alone who did not take something.
const AGAIN_AFTER: Duration = Duration::from_secs(300);

/// How much is remembered to be tried again.
const AGAIN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::command::Command;
    use crate::routing::queue::Queue;
    use crate::tasks::Tasks;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    const INTERVAL: Duration = Duration::from_secs(22 * 3600);

    struct Bench {
        commands: mpsc::Receiver<Command>,
        routing: Routing,
        events: broadcast::Sender<Event>,
        tasks: Tasks,
    }

    impl Bench {
        fn start(roots: Vec<Cid>, at_once: usize) -> Self {
            let (sender, commands) = mpsc::channel(100);
            let routing = Routing::new(sender, Arc::new(Queue::new(100)));
            let events = crate::event::channel();
            let tasks = Tasks::new();
            let job = Reprovide::new(
                routing.clone(),
                move || roots.clone(),
                events.subscribe(),
                INTERVAL,
                at_once,
            );
            crate::jobs::run(job, &tasks);
            Self {
                commands,
                routing,
                events,
                tasks,
            }
        }

        async fn answer(&mut self, answer: Result<(), RoutingError>) -> Cid {
            let Some(Command::Provide(provide)) = self.commands.recv().await else {
                panic!("expected a wish to provide");
            };
            provide.reply.send(answer).unwrap();
            provide.cid
        }
    }

    fn cids(count: u8) -> Vec<Cid> {
        (0..count)
            .map(|at| {
                let digest = cairn_store::cid::Multihash::wrap(0x12, &[at; 32]).unwrap();
                Cid::new_v1(cairn_store::cid::RAW, digest)
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_root_is_provided_at_the_start_and_every_22_hours() {
        let roots = cids(5);
        let mut bench = Bench::start(roots.clone(), 2);
        for round in 0..3u32 {
            assert_eq!(bench.answer(Ok(())).await, roots[0], "round {round}");
            let began = Instant::now();
            for root in &roots[1..] {
                assert_eq!(bench.answer(Ok(())).await, *root, "round {round}");
            }
            assert_eq!(Instant::now(), began, "a round does not rest");
            let early = tokio::time::timeout(INTERVAL / 2, bench.commands.recv()).await;
            assert!(early.is_err(), "nothing in between");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_is_provided_before_the_round_goes_on() {
        let all = cids(6);
        let mut bench = Bench::start(all[..5].to_vec(), 1);
        assert_eq!(bench.answer(Ok(())).await, all[0]);
        let Some(Command::Provide(second)) = bench.commands.recv().await else {
            panic!("expected a wish to provide");
        };
        bench.routing.announce(all[5]);
        second.reply.send(Ok(())).unwrap();
        assert_eq!(bench.answer(Ok(())).await, all[5]);
        assert_eq!(bench.answer(Ok(())).await, all[2]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_peers_it_waits_for_one_and_then_tells_it_everything() {
        let roots = cids(2);
        let mut bench = Bench::start(roots.clone(), 1);
        bench.answer(Err(RoutingError::NoPeers)).await;
        let early = tokio::time::timeout(INTERVAL / 2, bench.commands.recv()).await;
        assert!(early.is_err(), "it does not ask again and again");
        let peer = libp2p::PeerId::random();
        bench.events.send(Event::Connected(peer)).unwrap();
        bench.events.send(Event::Identified(peer)).unwrap();
        assert_eq!(bench.answer(Ok(())).await, roots[0]);
        assert_eq!(bench.answer(Ok(())).await, roots[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_took_is_told_again_long_before_the_next_round() {
        let roots = cids(2);
        let mut bench = Bench::start(roots.clone(), 1);
        let refused = Err(RoutingError::NotTaken(roots[0]));
        assert_eq!(bench.answer(refused).await, roots[0]);
        assert_eq!(bench.answer(Ok(())).await, roots[1], "the rest goes on");
        let began = Instant::now();
        assert_eq!(bench.answer(Ok(())).await, roots[0]);
        assert!(began.elapsed() < INTERVAL / 10);
        let early = tokio::time::timeout(INTERVAL / 2, bench.commands.recv()).await;
        assert!(early.is_err(), "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_when_asked_whatever_it_waits_for() {
        let idle = Bench::start(Vec::new(), 1);
        assert!(idle.tasks.stop(INTERVAL).await);
        let busy = Bench::start(cids(1), 1);
        assert!(
            busy.tasks.stop(INTERVAL).await,
            "while a lookup is under way"
        );
    }
}
