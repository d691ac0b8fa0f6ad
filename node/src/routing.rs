//! Who has what: providers are looked up and told through the DHT.
//!
//! [`Routing`] is a handle; the swarm's worker runs the queries, at most `LOOKUPS_MAX` at once.
//! A record's key is the multihash, so every CID of one block finds the same providers.
//! `records.rs` is what this node keeps for others, `queue.rs` what waits to be provided.

pub(crate) mod queue;
pub(crate) mod records;

use crate::swarm::command::{Command, Find, Provide};
use cairn_store::Cid;
use futures::{Stream, StreamExt, stream};
use libp2p::{Multiaddr, PeerId};
use queue::Queue;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// A peer that says it has something.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub addresses: Vec<Multiaddr>,
}

/// Why nothing was found out or told.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// There is nobody to ask.
    #[error("no peers in the routing table; connect to one first (`cairn swarm connect`)")]
    NoPeers,
    /// Nobody answered in time.
    #[error("the lookup for {0} did not finish in time")]
    TooSlow(Cid),
    /// Nobody took the record.
    #[error("no peer took the provider record for {0}")]
    NotTaken(Cid),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A handle on routing. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routing {
    commands: mpsc::Sender<Command>,
    lookups: Arc<Semaphore>,
    announcements: Arc<Queue>,
}

impl Routing {
    pub(crate) fn new(commands: mpsc::Sender<Command>, announcements: Arc<Queue>) -> Self {
        Self {
            commands,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            announcements,
        }
    }

    /// Streams providers as they are found, at most `limit`: those we were told of ourselves, then
    /// what the peers nearest to `cid` say. This node is among them if it provides `cid`. Each
    /// provider comes once; an error is the last item. Dropping the stream ends the lookup.
    pub fn find_providers(
        &self,
        cid: Cid,
        limit: usize,
    ) -> impl Stream<Item = Result<Provider, RoutingError>> + Send + 'static + use<> {
        let this = self.clone();
        let limit = limit.min(PROVIDERS_MAX);
        let answers = async move {
            let (found, answers) = mpsc::channel(limit + 1);
            match this.lookup(cid, limit, found).await {
                Ok(()) => receive(answers).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        };
        stream::once(answers).flatten()
    }

    /// Tells the peers nearest to `cid` that we have it. Done when the requests are on their way:
    /// the protocol has no answer to them.
    pub async fn provide(&self, cid: Cid) -> Result<(), RoutingError> {
        let (reply, answer) = oneshot::channel();
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let provide = Provide {
            cid,
            reply,
            _permit: permit.map_err(|_| RoutingError::Stopping)?,
        };
        self.commands
            .send(Command::Provide(provide))
            .await
            .map_err(|_| RoutingError::Stopping)?;
        answer.await.map_err(|_| RoutingError::Stopping)?
    }

    /// Has `cid` provided soon, in the background. Never waits: what does not fit into the queue is
    /// left to the next round over everything that is pinned.
    pub fn announce(&self, cid: Cid) {
        if !self.announcements.push(cid) {
            tracing::debug!(%cid, "too much waits to be provided, left to the next round");
        }
    }

    pub(crate) fn announcements(&self) -> &Queue {
        &self.announcements
    }

    async fn lookup(
        &self,
        cid: Cid,
        limit: usize,
        found: mpsc::Sender<Result<Provider, RoutingError>>,
    ) -> Result<(), RoutingError> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let find = Find {
            cid,
            limit,
            found,
            _permit: permit.map_err(|_| RoutingError::Stopping)?,
        };
        self.commands
            .send(Command::Find(find))
            .await
            .map_err(|_| RoutingError::Stopping)
    }
}

fn receive<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}

/// Lookups under way at once. Each asks up to ten peers at a time, and the library looks at every
/// one whenever any of them moves.
const LOOKUPS_MAX: usize = 64;

/// Most providers one lookup finds.
const PROVIDERS_MAX: usize = 256;
