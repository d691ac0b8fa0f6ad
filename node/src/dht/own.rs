//! What this node provides itself: keys that are told to others by region leave no provider record here, and still whoever
//! asks this node for their providers is to hear of it.

use futures::future::BoxFuture;
use libp2p::PeerId;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Says whether a multihash names something that this node provides. Nothing is, until whoever knows has started.
#[derive(Clone)]
pub(crate) struct Own {
    provides: Arc<OnceLock<Provides>>,
    places: Arc<Semaphore>,
    /// Places of those who ask; no more than have streams that are answered.
    askers: Arc<Mutex<HashMap<PeerId, Arc<Semaphore>>>>,
}

type Provides = Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, bool> + Send + Sync>;

impl Own {
    pub(crate) fn nothing() -> Self {
        Self {
            provides: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            askers: Arc::default(),
        }
    }

    /// Asks this from now on. Whoever comes second is not asked.
    pub(crate) fn ask<F>(&self, provides: impl Fn(Vec<u8>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let boxed = move |hash| -> BoxFuture<'static, bool> { Box::pin(provides(hash)) };
        let _ = self.provides.set(Box::new(boxed));
    }

    /// Whether it provides what a multihash names. No, if so many ask that there is no place for a while.
    pub(crate) async fn has(&self, asker: &PeerId, hash: &[u8]) -> bool {
        let Some(provides) = self.provides.get() else {
            return false;
        };
        let asker = Asker::new(self, *asker);
        let places = async {
            let of_asker = asker.places.acquire().await;
            (of_asker, self.places.acquire().await)
        };
        // Their own place first, so that nobody has more than a few in the line of all.
        let Ok((Ok(_one), Ok(_other))) = timeout(PLACE_WAIT, places).await else {
            return false;
        };
        provides(hash.to_vec()).await
    }

    fn askers(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Semaphore>>> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that asks, known as long as one of its questions is.
struct Asker<'a> {
    own: &'a Own,
    peer: PeerId,
    places: Arc<Semaphore>,
}

impl<'a> Asker<'a> {
    fn new(own: &'a Own, peer: PeerId) -> Self {
        let mut askers = own.askers();
        let places = askers
            .entry(peer)
            .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_PER_PEER_MAX)));
        let places = Arc::clone(places);
        Self { own, peer, places }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut askers = self.own.askers();
        // The map's and ours.
        if Arc::strong_count(&self.places) == 2 {
            askers.remove(&self.peer);
        }
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Own")
    }
}

/// Peers' questions that read the list of keys on disk at once; each holds a thread.
const AT_ONCE_MAX: usize = 16;

/// Of those, questions of one peer.
const AT_ONCE_PER_PEER_MAX: usize = 2;

/// How long a question waits for a place: a read takes milliseconds, and whoever asks waits for some seconds.
const PLACE_WAIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    /// Provides everything, and takes for ever to say so of what begins with a zero.
    fn slow() -> Own {
        let own = Own::nothing();
        own.ask(|hash| async move {
            match hash.first() {
                Some(0) => std::future::pending().await,
                _ => true,
            }
        });
        own
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_much_at_once_takes_two_places_and_others_are_answered() {
        let own = slow();
        let (greedy, other) = (PeerId::random(), PeerId::random());
        let flood = join_all((0..32).map(|_| own.has(&greedy, &[0])));
        let asks = async {
            // The flood goes first.
            tokio::task::yield_now().await;
            assert_eq!(own.places.available_permits(), 14);
            own.has(&other, &[1]).await
        };
        tokio::select! {
            biased;
            _ = flood => panic!("that takes for ever"),
            has = asks => assert!(has),
        }
        assert!(own.askers().is_empty());
        assert_eq!(own.places.available_permits(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_places_are_taken_a_question_waits_for_one_and_not_for_ever() {
        let own = slow();
        let held = own.places.acquire_many(16).await.unwrap();
        let peer = PeerId::random();
        assert!(!own.has(&peer, &[1]).await);
        let frees = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let (has, ()) = tokio::join!(own.has(&peer, &[1]), frees);
        assert!(has);
    }
}
