//! Who has what, who is where and what names point at: looked up and told through the DHT, and looked up at routers, if
//! the operator named any (`routers.rs`; `merge.rs` joins what both say). Routers are told the records of names, too
//! (`names.rs` joins what comes of both).
//!
//! [`Routing`] is a handle; the DHT's worker (`dht/worker.rs`) runs the lookups, at most `LOOKUPS_MAX` at once.
//! A provider record's key is the multihash, so every CID of one block finds the same providers.
//! `command.rs` is what the worker may be asked, `queue.rs` what waits to be provided.

pub(crate) mod command;
mod directory;
mod filter;
mod merge;
mod missing;
mod names;
pub(crate) mod queue;
mod record;
pub(crate) mod routers;

pub use directory::Directory;
pub use filter::{Filters, NoFilter};
pub use record::{Record, parse_peer};
pub use routers::{IllRouter, RouterStat};

use crate::denylist::Denial;
use crate::dht::own::Own;
use crate::dht::values::{Key, NotKept};
use crate::provide::sweep::Reach;
use bytes::Bytes;
use cairn_store::Cid;
use command::{Ask, Command, Find, Region, Value, Values};
use futures::{Stream, StreamExt, future, stream};
use libp2p::{Multiaddr, PeerId};
use missing::Missing;
use queue::Queue;
use routers::Routers;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
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
    /// A lookup took too long.
    #[error("the lookup did not finish in time")]
    LookupTooSlow,
    /// Nobody knows where a peer is.
    #[error("peer {0} was not found: nobody asked knows its addresses")]
    PeerNotFound(PeerId),
    /// Nobody took a value.
    #[error("no peer took the value")]
    ValueNotTaken,
    /// Nobody took a value because a newer one is known.
    #[error(
        "the value was not taken: a newer one is kept for this key, with a higher sequence number or a later end, and a \
         value is only replaced by a newer one"
    )]
    NewerValueKept,
    /// A peer was not told.
    #[error("peer {0} could not be told")]
    NotTold(PeerId),
    /// The value is none that may be kept under its key.
    #[error("not a value for this key: {0}")]
    InvalidValue(String),
    /// The operator does not want it here.
    #[error(transparent)]
    Denied(#[from] Denial),
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
    own: Own,
    routers: Option<Routers>,
    missing: Arc<Missing>,
}

impl Routing {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        announcements: Arc<Queue>,
        own: Own,
    ) -> Self {
        Self {
            commands,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            announcements,
            own,
            routers: None,
            missing: Arc::default(),
        }
    }

    /// The same, with routers that are asked beside the DHT.
    pub(crate) fn beside(self, routers: Routers) -> Self {
        let routers = Some(routers).filter(|routers| !routers.are_none());
        Self { routers, ..self }
    }

    /// The routers that failed when they were asked last.
    pub fn ill_routers(&self) -> Vec<IllRouter> {
        self.routers.as_ref().map(Routers::ill).unwrap_or_default()
    }

    /// All routers, and what came of asking them.
    pub fn routers(&self) -> Vec<RouterStat> {
        self.routers.as_ref().map(Routers::stat).unwrap_or_default()
    }

    /// Whether there are routers and every one failed when it was asked last.
    pub fn has_only_ill_routers(&self) -> bool {
        self.routers.as_ref().is_some_and(Routers::are_all_ill)
    }

    /// Streams providers as they are found, at most `limit`: those we were told of ourselves, what
    /// the peers nearest to `cid` say, and what routers say. This node is among them after
    /// [`Self::provide`]; of what is told by region it keeps no record of its own. Each provider comes once; an error is the last item. Dropping the stream ends the lookup.
    pub fn find_providers(
        &self,
        cid: Cid,
        limit: usize,
    ) -> impl Stream<Item = Result<Provider, RoutingError>> + Send + 'static + use<> {
        let mut seen = HashSet::new();
        self.search_anew(cid, limit).filter(move |found| {
            let is_news = found
                .as_ref()
                .map_or(true, |provider| seen.insert(provider.peer));
            future::ready(is_news)
        })
    }

    /// The same for whoever dials them: a provider comes again where the DHT knows it at addresses
    /// that no router told. What nobody had a moment ago is not looked for.
    pub(crate) fn search(
        &self,
        cid: Cid,
        limit: usize,
    ) -> impl Stream<Item = Result<Provider, RoutingError>> + Send + 'static + use<> {
        let key = cid.hash().to_bytes();
        if self.missing.has(&key, Instant::now()) {
            return stream::empty().left_stream();
        }
        let missing = Arc::clone(&self.missing);
        let is_empty = Arc::new(AtomicBool::new(true));
        let was_empty = Arc::clone(&is_empty);
        // An error says nothing of who has it.
        let found = self.search_anew(cid, limit);
        let found = found.inspect(move |_| is_empty.store(false, Ordering::Relaxed));
        let end = stream::once(async move {
            if was_empty.load(Ordering::Relaxed) {
                missing.add(key, Instant::now());
            }
        });
        let nothing = end.filter_map(|()| future::ready(None));
        found.chain(nothing).right_stream()
    }

    fn search_anew(
        &self,
        cid: Cid,
        limit: usize,
    ) -> impl Stream<Item = Result<Provider, RoutingError>> + Send + 'static + use<> {
        let dht = self.find_in_dht(cid, limit);
        match &self.routers {
            None => dht.left_stream(),
            Some(routers) => {
                let limit = limit.min(PROVIDERS_MAX);
                merge::merge(dht.boxed(), routers.providers(&cid, limit), limit).right_stream()
            }
        }
    }

    /// What the DHT alone says. Whoever asks on behalf of others asks here: two nodes that are each
    /// other's routers would ask one another for ever.
    pub fn find_in_dht(
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

    /// Tells the peers nearest to `cid` that we have it; gives how many were told. Done when all of them were or could
    /// not be: the protocol has no answer.
    pub async fn provide(&self, cid: Cid) -> Result<usize, RoutingError> {
        self.ask(cid, Command::Provide).await
    }

    /// Looks for a peer: where it is, if it or anybody asked says so, routers among them.
    pub async fn find_peer(&self, peer: PeerId) -> Result<Provider, RoutingError> {
        let dht = self.find_peer_in_dht(peer);
        match &self.routers {
            None => dht.await,
            Some(routers) => merge::peer(dht, routers.peer(peer)).await,
        }
    }

    /// The same by the DHT alone.
    pub async fn find_peer_in_dht(&self, peer: PeerId) -> Result<Provider, RoutingError> {
        self.ask(peer, Command::Peer).await
    }

    /// The peers nearest to a key (the bytes of a multihash or of a peer ID), at most twenty in each DHT.
    pub async fn nearest(&self, key: Vec<u8>) -> Result<Vec<Provider>, RoutingError> {
        self.ask(key, Command::Nearest).await
    }

    /// Streams the values kept under a key (`/ipns/` or `/pk/` and the bytes of a peer ID) as they are found; each is
    /// valid, and none is better than a later one only by chance. Routers are asked for the records of names, too. An
    /// error is the last item.
    pub fn values(
        &self,
        key: Vec<u8>,
    ) -> impl Stream<Item = Result<Vec<u8>, RoutingError>> + Send + 'static + use<> {
        let routers = self.routers_of(&key);
        let dht = self.values_in_dht(key);
        match routers {
            None => dht.left_stream(),
            Some((routers, name)) => {
                names::merge(dht.boxed(), routers.records(&name)).right_stream()
            }
        }
    }

    /// What the DHT alone says. Whoever asks on behalf of others asks here, as with [`Self::find_in_dht`].
    pub(crate) fn values_in_dht(
        &self,
        key: Vec<u8>,
    ) -> impl Stream<Item = Result<Vec<u8>, RoutingError>> + Send + 'static + use<> {
        let this = self.clone();
        let answers = async move {
            let (found, answers) = mpsc::channel(VALUES_WAITING_MAX);
            let permit = Arc::clone(&this.lookups).acquire_owned().await;
            let sent = match permit {
                Ok(permit) => {
                    let values = Values {
                        key,
                        found,
                        _permit: permit,
                    };
                    this.commands.send(Command::Values(values)).await.is_ok()
                }
                Err(_) => false,
            };
            match sent {
                true => receive(answers).left_stream(),
                false => stream::iter([Err(RoutingError::Stopping)]).right_stream(),
            }
        };
        stream::once(answers).flatten()
    }

    /// The best value kept under a key, once all who keep it were asked; `None` if nobody keeps any.
    pub async fn value(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>, RoutingError> {
        best(&key, self.values(key.clone())).await
    }

    /// The same by the DHT alone.
    pub(crate) async fn value_in_dht(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>, RoutingError> {
        best(&key, self.values_in_dht(key.clone())).await
    }

    /// Has the peers nearest to its key keep a value, and the routers the record of a name; gives how many took it.
    pub async fn keep(&self, key: Vec<u8>, value: Vec<u8>) -> Result<usize, RoutingError> {
        check(&key, &value)?;
        let routers = self.routers_of(&key);
        let record = Bytes::copy_from_slice(&value);
        let dht = self.keep_checked(Value {
            key,
            value,
            by: None,
        });
        match routers {
            None => dht.await,
            Some((routers, name)) => {
                let (dht, routers) = future::join(dht, routers.put(&name, record)).await;
                names::kept(dht, &routers)
            }
        }
    }

    /// The same by the DHT alone, for somebody else.
    pub(crate) async fn keep_in_dht(
        &self,
        (key, value): (Vec<u8>, Vec<u8>),
        by: PeerId,
    ) -> Result<usize, RoutingError> {
        check(&key, &value)?;
        let by = Some(by);
        self.keep_checked(Value { key, value, by }).await
    }

    async fn keep_checked(&self, kept: Value) -> Result<usize, RoutingError> {
        let (key, ours) = (kept.key.clone(), kept.value.clone());
        let took = self.ask(kept, Command::Keep).await;
        if let (Err(RoutingError::ValueNotTaken), Some(kind)) = (&took, Key::parse(&key))
            && let Ok(Some(theirs)) = self.value_in_dht(key).await
            && kind.is_better(&theirs, &ours)
        {
            return Err(RoutingError::NewerValueKept);
        }
        took
    }

    /// The routers, if a key is that of a name, and the name.
    fn routers_of(&self, key: &[u8]) -> Option<(Routers, PeerId)> {
        let Some(Key::Name(name)) = Key::parse(key) else {
            return None;
        };
        Some((self.routers.clone()?, name))
    }

    /// Tells one peer that this node provides what these multihashes name.
    pub async fn tell(&self, peer: Provider, keys: Vec<Vec<u8>>) -> Result<(), RoutingError> {
        self.ask((peer, keys), Command::Tell).await
    }

    /// Who keeps records of keys whose places begin with so many same bits, in each DHT; of a single key only those
    /// nearest to it.
    pub(crate) async fn region(
        &self,
        keys: Vec<Vec<u8>>,
        bits: u32,
    ) -> Result<Vec<Vec<Provider>>, RoutingError> {
        self.ask(Region { keys, bits }, Command::Region).await
    }

    /// Whom there is to ask.
    pub(crate) async fn reach(&self) -> Result<Reach, RoutingError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Reach(reply)).await;
        sent.map_err(|_| RoutingError::Stopping)?;
        answer.await.map_err(|_| RoutingError::Stopping)
    }

    async fn ask<Q, A>(
        &self,
        about: Q,
        command: impl FnOnce(Ask<Q, A>) -> Command,
    ) -> Result<A, RoutingError> {
        let (reply, answer) = oneshot::channel();
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let permit = permit.map_err(|_| RoutingError::Stopping)?;
        let ask = Ask {
            about,
            reply,
            _permit: permit,
        };
        let sent = self.commands.send(command(ask)).await;
        sent.map_err(|_| RoutingError::Stopping)?;
        answer.await.map_err(|_| RoutingError::Stopping)?
    }

    /// Has `cid` provided soon, in the background. Never waits: what does not fit into the queue is
    /// left to the next round over everything that is pinned.
    pub fn announce(&self, cid: Cid) {
        if !self.announcements.push(cid) {
            tracing::debug!(%cid, "too much waits to be provided, left to the next round");
        }
    }

    pub(crate) fn announcements(&self) -> Arc<Queue> {
        Arc::clone(&self.announcements)
    }

    /// Where to say what this node provides itself.
    pub(crate) fn own(&self) -> Own {
        self.own.clone()
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

/// The key of a value, from how people write it: `/ipns/` or `/pk/` and a name. `None` for what is none.
pub fn value_key(text: &str) -> Option<Vec<u8>> {
    Key::of_text(text).map(Key::to_bytes)
}

fn check(key: &[u8], value: &[u8]) -> Result<(), RoutingError> {
    let kind = Key::parse(key).ok_or(NotKept::Key);
    let checked = kind.and_then(|kind| kind.check(value, crate::clock::wall()));
    checked.map_err(|error| RoutingError::InvalidValue(error.to_string()))
}

/// The best of values that are valid, once all have come.
async fn best(
    key: &[u8],
    values: impl Stream<Item = Result<Vec<u8>, RoutingError>>,
) -> Result<Option<Vec<u8>>, RoutingError> {
    let kind =
        Key::parse(key).ok_or_else(|| RoutingError::InvalidValue(NotKept::Key.to_string()))?;
    let mut found = std::pin::pin!(values);
    let mut best: Option<Vec<u8>> = None;
    while let Some(value) = found.next().await {
        match value {
            Ok(value)
                if best
                    .as_ref()
                    .is_none_or(|best| kind.is_better(&value, best)) =>
            {
                best = Some(value);
            }
            Ok(_) => {}
            Err(error) if best.is_none() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(best)
}

fn receive<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}

/// Lookups under way at once. Each asks up to ten peers at a time.
const LOOKUPS_MAX: usize = 64;

/// Values of one lookup that wait to be taken; more are left out.
const VALUES_WAITING_MAX: usize = 32;

/// Most providers one lookup finds.
const PROVIDERS_MAX: usize = 256;
