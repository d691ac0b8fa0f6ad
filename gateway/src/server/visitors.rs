//! Peers, who come over streams of libp2p (`/http/1.1`).
//!
//! Each stream is served as a connection is, within the same limits of time and size, in places of its own. A peer is given
//! what is here already and what this node gives it over Bitswap too, as blocks, CARs and records of names; nothing is
//! looked for on its behalf, and no host, proxy or router is there for it (see [`Handler::for_peer`]).

use super::socket::{Cut, Socket};
use super::{AtEnd, Connection, Session, Switches};
use crate::access::Client;
use crate::body::Broken;
use crate::config::Config;
use crate::content::Content;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::names::{Led, Names};
use crate::routing::Routing;
use bytes::Bytes;
use cairn_node::PeerId;
use cairn_node::bitswap::policy::{Policy, Verdict};
use cairn_node::denylist::Denial;
use cairn_node::ipns::{self, Record};
use cairn_node::name::dns::LookupError;
use cairn_node::name::domain::Domain;
use cairn_node::name::follow::FollowError;
use cairn_node::name::path::NamePath;
use cairn_node::name::resolve::{Freshness, How, ResolveError};
use cairn_node::name::resolver::NameError;
use cairn_node::tasks::Tasks;
use cairn_node::web::{Visitor, Visitors};
use cairn_store::{Block, BlockSource, Cid, SourceError};
use futures::future::{BoxFuture, FutureExt, ready};
use hyper_util::rt::TokioIo;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets peers in.
pub(crate) struct Reception<C> {
    content: C,
    names: Arc<dyn Names>,
    /// For all of them together; each is served by one made of it.
    connection: Connection<C>,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    tasks: Tasks,
}

impl<C: Content> Reception<C> {
    /// For at most so many streams at once.
    pub(crate) fn new(
        (content, names): (C, Arc<dyn Names>),
        config: &Config,
        most: u32,
        (switches, metrics, slots): (Switches, Metrics, Arc<Semaphore>),
        tasks: &Tasks,
    ) -> Self {
        let config = for_peers(config, most);
        let others = (Routing::Off, Arc::clone(&names));
        let handler = Handler::new(content.clone(), others, config.clone(), metrics.clone());
        Self {
            content,
            names,
            connection: Connection {
                at_end: AtEnd::Answer,
                ..Connection::new(handler, &config, switches)
            },
            metrics,
            slots,
            tasks: tasks.clone(),
        }
    }

    pub(super) async fn run(self, mut visitors: Visitors) {
        let stop = self.connection.switches.stop.clone();
        while let Some(Some((visitor, slot))) =
            stop.run_until_cancelled(self.next(&mut visitors)).await
        {
            let Visitor {
                peer,
                policy,
                stream,
                pace,
            } = visitor;
            let guest = self.guest(peer, policy);
            let open = self.metrics.visited();
            self.tasks.spawn("gateway stream", async move {
                guest.serve(stream, |socket| pace.over(socket)).await;
                drop((open, slot));
            });
        }
    }

    async fn next(&self, visitors: &mut Visitors) -> Option<(Visitor, OwnedSemaphorePermit)> {
        let visitor = visitors.next().await?;
        // There are as many as may be let in: this waits at most for one that is just ending.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        Some((visitor, slot))
    }

    /// What serves one peer.
    pub(crate) fn guest(&self, peer: PeerId, policy: Arc<dyn Policy>) -> Guest<C> {
        let terms = Terms { peer, policy };
        let content = Given {
            of: self.content.clone(),
            terms: terms.clone(),
        };
        let names = Arc::new(Given {
            of: Arc::clone(&self.names),
            terms,
        });
        let Connection {
            handler,
            header_timeout,
            write_timeout,
            switches,
            at_end,
        } = self.connection.clone();
        Guest {
            peer,
            connection: Connection {
                handler: handler.for_peer(content, names),
                header_timeout,
                write_timeout,
                switches,
                at_end,
            },
        }
    }
}

/// The limits of peers: those of others where they are for each request, and their own where all share them.
fn for_peers(config: &Config, most: u32) -> Config {
    Config {
        requests_max: NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN),
        read_ahead_max: READ_AHEAD_MAX,
        hosts: [].into_iter().collect(),
        trusted_proxies: Vec::new(),
        ..config.clone()
    }
}

/// One stream.
pub(crate) struct Guest<C> {
    peer: PeerId,
    connection: Connection<Given<C>>,
}

impl<C: Content> Guest<C> {
    /// Answers what comes over `stream`, until it ends; `pace` says how fast.
    pub(crate) async fn serve<S, P>(self, stream: S, pace: impl FnOnce(Socket<S>) -> P)
    where
        S: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
        P: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = Broken::default();
        let timeout = self.connection.write_timeout;
        // What is held back by the pace is not held back by the reader, so the pace is outside.
        let socket = pace(Socket::new(stream, timeout, broken.clone()));
        let session = Session::new(Some(Client::Peer(self.peer)), broken);
        self.connection
            .http(TokioIo::new(socket), &session, None)
            .await;
    }
}

/// Who asks, and what it may be given.
#[derive(Debug, Clone)]
struct Terms {
    peer: PeerId,
    policy: Arc<dyn Policy>,
}

impl Terms {
    fn give(&self, cid: &Cid) -> bool {
        self.policy.decide(&self.peer, cid) == Verdict::Serve
    }
}

/// What is here, without what its peer is not given: that is as good as absent.
#[derive(Debug, Clone)]
pub(crate) struct Given<T> {
    of: T,
    terms: Terms,
}

impl<C: Content> Content for Given<C> {
    type Source = Given<C::Source>;

    fn session(&self, _: Duration) -> Self::Source {
        self.local()
    }

    fn local(&self) -> Self::Source {
        Given {
            of: self.of.local(),
            terms: self.terms.clone(),
        }
    }
}

impl<S: BlockSource> BlockSource for Given<S> {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        match self.terms.give(cid) {
            true => self.of.block(cid).await,
            false => Ok(None),
        }
    }

    async fn range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        match self.terms.give(cid) {
            true => self.of.range(cid, range).await,
            false => Ok(None),
        }
    }

    async fn size(&self, cid: &Cid) -> Result<Option<u64>, SourceError> {
        match self.terms.give(cid) {
            true => self.of.size(cid).await,
            false => Ok(None),
        }
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.of.admits(cid)
    }
}

impl Names for Given<Arc<dyn Names>> {
    fn lead(&self, path: NamePath, _: How) -> BoxFuture<'_, Result<Led, FollowError<NameError>>> {
        self.of.lead(path, How::Here)
    }

    fn record(&self, key: PeerId, _: How) -> BoxFuture<'_, Result<(Record, Freshness), NameError>> {
        if ipns::cid(&key).is_some_and(|cid| !self.terms.give(&cid)) {
            return ready(Err(ResolveError::NotFound(key).into())).boxed();
        }
        self.of.record(key, How::Here)
    }

    fn admits(&self, path: &NamePath) -> Result<(), Denial> {
        self.of.admits(path)
    }

    fn is_bound(&self, domain: Domain, _: How) -> BoxFuture<'_, Result<bool, LookupError>> {
        self.of.is_bound(domain, How::Here)
    }
}

/// Answers to peers that read several blocks ahead at once.
const READ_AHEAD_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
