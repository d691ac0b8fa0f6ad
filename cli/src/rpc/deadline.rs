//! The end of the time that was given for a request, and what is told then: what it waited for.

use super::error::RpcError;
use cairn_node::Session;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// When a request is over. Cheap to clone; what is told is what the request waits for by then.
#[derive(Debug, Clone)]
pub struct Deadline {
    at: Instant,
    given: Duration,
    session: Arc<OnceLock<Session>>,
}

impl Deadline {
    /// `given` from now; `None` if that is for ever.
    pub fn after(given: Duration) -> Option<Self> {
        Some(Self {
            at: Instant::now().checked_add(given)?,
            given,
            session: Arc::default(),
        })
    }

    /// The work of the request. Its first is its only one.
    pub(super) fn watch(&self, session: &Session) {
        let _ = self.session.set(session.clone());
    }

    /// Waits until the time is over and says what was waited for.
    pub(super) async fn strikes(self) -> RpcError {
        sleep_until(self.at).await;
        let waits_for = match self.session.get() {
            // A node that has much to do need not be waited for as well.
            Some(session) => timeout(STORY_TIME_MAX, session.waits_for()).await.ok(),
            None => None,
        };
        RpcError::too_slow(self.given, waits_for.flatten().as_deref())
    }
}

/// How long the story may take.
const STORY_TIME_MAX: Duration = Duration::from_secs(1);
