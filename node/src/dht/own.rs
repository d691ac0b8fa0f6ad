//! What this node provides itself: keys that are told to others by region leave no provider record here, and still whoever
//! asks this node for their providers is to hear of it.

use futures::future::BoxFuture;
use std::fmt;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Says whether a multihash names something that this node provides. Nothing is, until whoever knows has started.
#[derive(Clone)]
pub(crate) struct Own {
    provides: Arc<OnceLock<Provides>>,
    places: Arc<Semaphore>,
}

type Provides = Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, bool> + Send + Sync>;

impl Own {
    pub(crate) fn nothing() -> Self {
        Self {
            provides: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
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

    /// Whether it provides what a multihash names. No, while too many ask.
    pub(crate) async fn has(&self, hash: &[u8]) -> bool {
        let (Some(provides), Ok(_place)) = (self.provides.get(), self.places.try_acquire()) else {
            return false;
        };
        provides(hash.to_vec()).await
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Own")
    }
}

/// Peers' questions that read the list of keys on disk at once; each holds a thread.
const AT_ONCE_MAX: usize = 16;
