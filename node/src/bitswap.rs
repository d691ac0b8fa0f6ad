//! Bitswap: blocks from peers, and blocks to them.
//!
//! A peer is told what we want; it answers with blocks, or that it has them, or that it does not.
//! We do the same for it. Everything else is about doing that fast, with many, some of whom lie.
//!
//! ```text
//!  swarm task        behaviour ── notices, orders ──┐
//!  reader tasks      streams ─── words ────────────►│ worker ── engine: what others get next
//!                       └─ blocks ► verify ─ named ►│        └─ client: whom we ask for what
//!  lane tasks        streams ◄── messages ──────────┤             (session, wantlist, ledger)
//!  source tasks      http    ◄── messages ──────────┘
//! ```
//!
//! `policy` says who may have what, `accounts` keeps what was exchanged with whom, and the streams
//! pass the gates of [`crate::throttle`].
//!
//! `client` and `engine` decide and touch nothing: no socket, no disk, no task, no clock. `worker`
//! is the one task that owns them. `behaviour` is all that the swarm sees: it negotiates and hands
//! streams over, so payload never passes through it. Foreign bytes become blocks in `verify` and
//! nowhere else. `http` is a second way to blocks beside streams, behind the same seam
//! (`transport`). Read `message` for what is said, then `client` and `engine`, then `worker`.
//!
//! Three things are bounded by name where they live: what a peer may make us keep (wants, streams,
//! bytes), what we have under way with a peer (its window), and every queue between two tasks.

mod accounts;
mod behaviour;
mod client;
mod engine;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod key;
mod ledger;
mod message;
mod metrics;
pub mod policy;
mod recent;
#[cfg(test)]
mod seeds;
mod session;
#[cfg(test)]
mod simulation;
mod streams;
#[cfg(test)]
mod swarms;
mod transport;
mod verify;
mod wantlist;
mod worker;

pub use accounts::Account;
pub(crate) use behaviour::{Behaviour, Wire};
pub(crate) use http::{Gateways, HttpError};

use crate::event::Event;
use crate::explain::Teller;
use crate::routing::{Provider, Routing};
use crate::swarm::Peers;
use crate::tasks::Tasks;
use crate::throttle::Throttle;
use bytes::Bytes;
use cairn_store::sink::PutError;
use cairn_store::store::Keep;
use cairn_store::{Block, BlockSource, Cid, SourceError, Store};
use futures::StreamExt;
use futures::stream::BoxStream;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use message::Version;
use policy::Policy;
use session::SessionId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use worker::Worker;

/// What Bitswap did since the start.
#[derive(Debug, Clone, Default)]
pub struct Stat {
    /// What we want now.
    pub wantlist: Vec<Cid>,
    /// Who speaks Bitswap with us.
    pub peers: Vec<PeerId>,
    /// Blocks received.
    pub blocks_received: u64,
    /// Their bytes.
    pub data_received: u64,
    /// Blocks received that we had or did not want.
    pub duplicate_blocks: u64,
    /// Their bytes.
    pub duplicate_data: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Blocks sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub data_sent: u64,
}

/// The part that goes into the swarm, and the other end of it.
pub(crate) fn behaviour() -> (Behaviour, Wire) {
    behaviour::pair(&Version::ALL)
}

/// A handle. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bitswap {
    commands: mpsc::Sender<Command>,
    next_work: Arc<AtomicU64>,
}

/// One piece of work: while a clone of it lives, what was learnt for it is kept.
#[derive(Debug)]
pub(crate) struct Work {
    id: SessionId,
    idle: Duration,
}

/// What a fetch comes to.
type Fetched = Result<Block, SourceError>;

/// What the worker may be asked.
#[derive(Debug)]
enum Command {
    /// Get a block. Whoever does not wait any more drops the other end of `reply`.
    Fetch {
        work: Arc<Work>,
        cid: Cid,
        reply: oneshot::Sender<Fetched>,
        /// Hears what happens meanwhile.
        teller: Option<Teller>,
    },
    /// Get all that a block leads to in one go, if that pays.
    Prefetch {
        work: Arc<Work>,
        root: Block,
    },
    Stat(oneshot::Sender<Stat>),
    /// What was exchanged with a peer.
    Account(PeerId, oneshot::Sender<Option<Account>>),
    /// What a peer wants of us.
    WantsOf(PeerId, oneshot::Sender<Vec<Cid>>),
    /// What a piece of work waits for.
    WaitsFor(SessionId, oneshot::Sender<Option<String>>),
}

/// Where blocks come from.
#[derive(Debug)]
pub(crate) struct Reach<N> {
    /// What others call us.
    pub(crate) me: PeerId,
    /// The way to peers.
    pub(crate) network: N,
    /// Whom to ask over HTTP.
    pub(crate) gateways: Gateways,
}

/// What holds for all that is exchanged.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Who may pass how much.
    pub(crate) throttle: Throttle,
    /// Who may have what.
    pub(crate) policy: Arc<dyn Policy>,
}

impl Bitswap {
    /// Starts the tasks; `wire` is the other end of the behaviour in the swarm.
    pub(crate) fn start(
        wire: Wire,
        store: Store,
        reach: Reach<(Routing, Peers)>,
        rules: Rules,
        tasks: &Tasks,
        events: broadcast::Sender<Event>,
        registry: &prometheus::Registry,
    ) -> Result<Self, HttpError> {
        Self::start_with(wire, store, reach, rules, tasks, events, registry)
    }

    fn start_with<B: Blocks, N: Network>(
        wire: Wire,
        blocks: B,
        reach: Reach<N>,
        rules: Rules,
        tasks: &Tasks,
        events: broadcast::Sender<Event>,
        registry: &prometheus::Registry,
    ) -> Result<Self, HttpError> {
        let http = http::Http::new(reach.gateways, registry)?;
        let metrics = metrics::Metrics::register(registry)?;
        let (commands, asked) = mpsc::channel(worker::COMMANDS_MAX);
        let (inputs, happened) = mpsc::channel(worker::INPUTS_MAX);
        let (unverified, queue) = mpsc::channel(verify::QUEUE_MAX);
        let worker = Worker {
            inputs: happened,
            commands: asked,
            wire,
            sinks: streams::Sinks::new(inputs, unverified, metrics.holds.clone()),
            throttle: rules.throttle,
            blocks,
            network: reach.network,
            http,
            tasks: tasks.clone(),
            events,
            metrics,
            state: worker::State::of(&reach.me, rules.policy),
        };
        tasks.spawn_critical("bitswap", worker.run(queue));
        Ok(Self {
            commands,
            next_work: Arc::new(AtomicU64::new(0)),
        })
    }

    /// What was done so far, and what is wanted now.
    pub(crate) async fn stat(&self) -> Stat {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stat(reply)).await.is_err() {
            return Stat::default();
        }
        answer.await.unwrap_or_default()
    }

    /// What was exchanged with a peer, if anything is remembered.
    pub(crate) async fn account(&self, peer: PeerId) -> Option<Account> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Account(peer, reply))
            .await
            .ok()?;
        answer.await.ok()?
    }

    /// What a peer wants of us.
    pub(crate) async fn wants_of(&self, peer: PeerId) -> Vec<Cid> {
        let (reply, answer) = oneshot::channel();
        let asked = self.commands.send(Command::WantsOf(peer, reply)).await;
        match asked {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// What a piece of work waits for, and what was tried for it.
    pub(crate) async fn waits_for(&self, work: &Work) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        let asked = Command::WaitsFor(work.id, reply);
        self.commands.send(asked).await.ok()?;
        answer.await.ok()?
    }

    /// Begins a piece of work that gives up what it wants `idle` after its last progress.
    pub(crate) fn work(&self, idle: Duration) -> Arc<Work> {
        Arc::new(Work {
            id: SessionId(self.next_work.fetch_add(1, Ordering::Relaxed)),
            idle,
        })
    }

    /// Gets a block from peers into the store. Dropping the future cancels the want, unless
    /// somebody else waits for it too.
    pub(crate) async fn fetch(&self, work: &Arc<Work>, cid: &Cid) -> Fetched {
        self.fetch_told(work, cid, None).await
    }

    /// The same, and what happens meanwhile is told.
    pub(crate) async fn fetch_told(
        &self,
        work: &Arc<Work>,
        cid: &Cid,
        teller: Option<Teller>,
    ) -> Fetched {
        let stopping = || SourceError::Stopping { cid: *cid };
        let (reply, answer) = oneshot::channel();
        let fetch = Command::Fetch {
            work: Arc::clone(work),
            cid: *cid,
            reply,
            teller,
        };
        self.commands.send(fetch).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Has all that `root` leads to fetched in one go where that pays. A hint: nothing need come of
    /// it.
    pub(crate) async fn prefetch(&self, work: &Arc<Work>, root: Block) {
        let work = Arc::clone(work);
        // Whoever stops fetches nothing more either.
        drop(self.commands.send(Command::Prefetch { work, root }).await);
    }
}

/// The store, as far as Bitswap needs it.
trait Blocks: Clone + Send + Sync + 'static {
    /// The bytes of a block that is here.
    fn get(&self, cid: &Cid) -> impl Future<Output = Option<Bytes>> + Send;
    /// The size of a block that is here.
    fn size(&self, cid: &Cid) -> impl Future<Output = Option<u64>> + Send;
    /// A block that is here, its bytes checked.
    fn find(&self, cid: &Cid) -> impl Future<Output = Option<Block>> + Send;
    /// Keeps fetched blocks, until space is needed, if anything can be kept at all.
    fn put(&self, blocks: Vec<Block>) -> impl Future<Output = Result<(), String>> + Send;
}

impl Blocks for Store {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        Some(self.find(cid).await?.into_parts().1)
    }

    async fn find(&self, cid: &Cid) -> Option<Block> {
        match self.block(cid).await {
            Ok(block) => block,
            // As good as absent; the store has said so already, or the user knows what became of the file.
            Err(SourceError::Damaged { .. } | SourceError::Elsewhere { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, "a block in the store cannot be used");
                None
            }
        }
    }

    async fn size(&self, cid: &Cid) -> Option<u64> {
        match BlockSource::size(self, cid).await {
            Ok(size) => size,
            Err(error) => {
                tracing::warn!(%error, "a block wanted by a peer is not served");
                None
            }
        }
    }

    async fn put(&self, blocks: Vec<Block>) -> Result<(), String> {
        match Store::put(self, blocks, Keep::Cached).await {
            // What cannot be stored is still handed to whoever asked.
            Ok(()) | Err(PutError::ReadOnly) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The way to peers that are not connected, as far as Bitswap needs it.
trait Network: Clone + Send + Sync + 'static {
    /// Who says to have this.
    fn providers(&self, cid: Cid, limit: usize) -> BoxStream<'static, Provider>;
    /// Connects to a provider, or says why it could not be reached.
    fn connect(&self, provider: Provider) -> impl Future<Output = Result<(), String>> + Send;
    /// Why nobody is connected to just now, if nobody is.
    fn refuses(&self) -> Option<String> {
        None
    }
}

impl Network for (Routing, Peers) {
    fn providers(&self, cid: Cid, limit: usize) -> BoxStream<'static, Provider> {
        self.0
            .search(cid, limit)
            .filter_map(move |found| async move {
                found
                    .inspect_err(|error| tracing::debug!(%cid, %error, "search for providers"))
                    .ok()
            })
            .boxed()
    }

    async fn connect(&self, provider: Provider) -> Result<(), String> {
        let Provider { peer, addresses } = provider;
        let mut why = String::new();
        let bare = addresses.is_empty().then(Multiaddr::empty);
        for mut address in addresses.into_iter().chain(bare).take(ADDRESSES_TRIED_MAX) {
            if !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                address.push(Protocol::P2p(peer));
            }
            match self.1.connect(address).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%peer, %error, "provider not reached");
                    why = error.to_string();
                }
            }
        }
        Err(why)
    }

    fn refuses(&self) -> Option<String> {
        self.1.refuses()
    }
}

/// Addresses of one provider that are tried.
const ADDRESSES_TRIED_MAX: usize = 8;
