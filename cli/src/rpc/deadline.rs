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
    /// What is waited for where no blocks are.
    work: Option<Arc<str>>,
}

impl Deadline {
    /// `given` from now; `None` if that is for ever.
    pub fn after(given: Duration) -> Option<Self> {
        Some(Self {
            at: Instant::now().checked_add(given)?,
            given,
            session: Arc::default(),
            work: None,
        })
    }

    /// The same for a command about these, which may wait for peers.
    pub fn of(self, command: &str, about: &[&str]) -> Self {
        let about = about.join(" ");
        let work = match command {
            "routing/findprovs" => {
                format!("peers and routers were still being asked who has {about}")
            }
            "routing/findpeer" => {
                format!("peers and routers were still being asked where {about} is")
            }
            "routing/provide" => {
                format!("the peers to tell of {about} were still being looked for or told")
            }
            "routing/get" => format!("peers were still being asked for {about}"),
            "routing/put" => {
                format!("the peers to keep {about} were still being looked for or told")
            }
            "swarm/connect" => format!("no connection was up to each of: {about}"),
            _ => return self,
        };
        Self {
            work: Some(work.into()),
            ..self
        }
    }

    /// The work of the request. Its first is its only one.
    pub(super) fn watch(&self, session: &Session) {
        let _ = self.session.set(session.clone());
    }

    /// Waits until the time is over and says what was waited for.
    pub(super) async fn strikes(self) -> RpcError {
        sleep_until(self.at).await;
        if let Some(work) = &self.work {
            return RpcError::too_slow_at(self.given, work);
        }
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
