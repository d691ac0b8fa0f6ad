//! Bind, serve, drain.
//!
//! One task accepts, one serves each connection; all of them run in the family they are given.
//! Each connection holds one of a bounded number of slots, so that having all slots back means
//! that all connections have ended. Two switches end things: `stop` lets running requests finish,
//! `cut` does not.
//!
//! Peers come over streams of libp2p, if the operator lets them: `visitors` serves them in the same way, in places of
//! their own, and gives them less.
//!
//! A client that takes the gateway for a proxy may ask for a tunnel to it (`CONNECT`). What comes
//! through is served on the same connection, in the same slot, within the same limits, and by the
//! same handler; nothing is ever dialled.

mod socket;
mod tunnel;
pub(crate) mod visitors;

use crate::access::Client;
use crate::body::Broken;
use crate::config::Config;
use crate::content::Content;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::routing::{Lookups, Routing};
use cairn_node::Exchange;
use cairn_node::name::resolver::Resolver;
use cairn_node::routing::Directory;
use cairn_node::tasks::Tasks;
use cairn_node::web::Visitors;
use futures::future::join_all;
use http::{HeaderValue, header};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket::Socket;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tunnel::Tunnel;
use visitors::Reception;

/// A running gateway.
#[derive(Debug)]
#[must_use = "dropping a gateway cuts its connections; call `stop` to drain them"]
pub struct Gateway {
    address: Option<SocketAddr>,
    /// What is held by connections and by streams, and how much of each there is.
    slots: Vec<(Arc<Semaphore>, u32)>,
    switches: Switches,
}

/// Where requests come from.
#[derive(Debug, Default)]
pub struct Entrances {
    /// Whoever comes by TCP.
    pub listener: Option<TcpListener>,
    /// Peers, who are given what is here already and only what they can check.
    pub visitors: Option<Visitors>,
}

impl From<TcpListener> for Entrances {
    fn from(listener: TcpListener) -> Self {
        Self {
            listener: Some(listener),
            visitors: None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Switches {
    /// No new connections and requests.
    pub(crate) stop: CancellationToken,
    /// No connections at all.
    pub(crate) cut: CancellationToken,
}

impl Gateway {
    /// Serves those who come through `entrances`; blocks come from `exchange`; who has what is found in `directory`, if
    /// there is one; metrics go to `registry`.
    pub fn start(
        entrances: impl Into<Entrances>,
        exchange: Exchange,
        directory: Option<Directory>,
        resolver: Resolver,
        config: Config,
        tasks: &Tasks,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let lookups = directory.map(|directory| Arc::new(directory) as Arc<dyn Lookups>);
        let resolver: Arc<dyn Names> = Arc::new(resolver);
        let others = (lookups, resolver);
        Self::start_with(entrances, exchange, others, config, tasks, registry)
    }

    /// The same for anything that has content.
    pub(crate) fn start_with<C: Content>(
        entrances: impl Into<Entrances>,
        content: C,
        (lookups, names): (Option<Arc<dyn Lookups>>, Arc<dyn Names>),
        config: Config,
        tasks: &Tasks,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let Entrances { listener, visitors } = entrances.into();
        let metrics = Metrics::register(registry)?;
        let switches = Switches {
            stop: tasks.stopping().child_token(),
            cut: CancellationToken::new(),
        };
        let mut gateway = Self {
            address: None,
            slots: Vec::new(),
            switches: switches.clone(),
        };
        if let Some(visitors) = visitors {
            let most = u32::try_from(visitors.streams_max()).unwrap_or(u32::MAX);
            let others = (content.clone(), Arc::clone(&names));
            let host = (switches.clone(), metrics.clone(), gateway.slots(most));
            let reception = Reception::new(others, &config, most, host, tasks);
            tasks.spawn_critical("gateway for peers", reception.run(visitors));
        }
        if let Some(listener) = listener {
            let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let address = listener.local_addr().unwrap_or(unspecified);
            let routing = Routing::new(&config, lookups);
            let handler = Handler::new(content, (routing, names), config.clone(), metrics.clone());
            let acceptor = Acceptor {
                connection: Connection::new(handler, &config, switches),
                metrics,
                slots: gateway.slots(config.connections_max.get()),
                tasks: tasks.clone(),
            };
            tasks.spawn_critical("gateway", acceptor.run(listener));
            tracing::debug!(%address, "gateway listens");
            gateway.address = Some(address);
        }
        Ok(gateway)
    }

    fn slots(&mut self, most: u32) -> Arc<Semaphore> {
        let slots = usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(slots));
        self.slots.push((Arc::clone(&slots), most));
        slots
    }

    /// Where it listens, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes no new connections and waits for running requests, at most `grace`.
    pub async fn stop(self, grace: Duration) -> bool {
        self.switches.stop.cancel();
        // Every slot back means that every connection has ended.
        let all = self
            .slots
            .iter()
            .map(|(slots, most)| slots.acquire_many(*most));
        timeout(grace, join_all(all)).await.is_ok()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.switches.stop.cancel();
        self.switches.cut.cancel();
    }
}

struct Acceptor<C> {
    connection: Connection<C>,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    tasks: Tasks,
}

impl<C: Content> Acceptor<C> {
    async fn run(self, listener: TcpListener) {
        let stop = self.connection.switches.stop.clone();
        while let Some(Some((stream, slot))) =
            stop.run_until_cancelled(self.accept(&listener)).await
        {
            let connection = self.connection.clone();
            let connected = self.metrics.connected();
            self.tasks.spawn("gateway connection", async move {
                connection.serve(stream).await;
                drop((connected, slot));
            });
        }
    }

    /// The next connection and its slot; `None` once there are no more slots to have.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: others must end before this can go on.
                    tracing::warn!(%error, "the gateway cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether the connection was gone before it was accepted.
fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

struct Connection<C> {
    handler: Handler<C>,
    header_timeout: Duration,
    write_timeout: Duration,
    switches: Switches,
    /// What it means that no more requests come.
    at_end: AtEnd,
}

/// What becomes of a request whose client has closed its half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// It has gone away, and nobody waits for the answer.
    Leave,
    /// It is answered.
    Answer,
}

impl<C> Clone for Connection<C> {
    fn clone(&self) -> Self {
        Self {
            handler: self.handler.clone(),
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            switches: self.switches.clone(),
            at_end: self.at_end,
        }
    }
}

impl<C: Content> Connection<C> {
    fn new(handler: Handler<C>, config: &Config, switches: Switches) -> Self {
        Self {
            handler,
            header_timeout: config.header_timeout.duration(),
            write_timeout: config.write_timeout.duration(),
            switches,
            at_end: AtEnd::Leave,
        }
    }

    async fn serve(self, stream: TcpStream) {
        // Heads and small bodies shall not wait for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone before it is served");
            return;
        }
        let client = stream.peer_addr().ok().map(Client::Address);
        let broken = Broken::default();
        let own = stream.local_addr().ok().map(|address| address.ip());
        let socket = Socket::new(stream, self.write_timeout, broken.clone());
        let session = Session::new(client, broken);
        let tunnel = Tunnel::to(own);
        self.http(TokioIo::new(socket), &session, Some(tunnel.clone()))
            .await;
        if let Some(upgraded) = tunnel.opened().await {
            // No tunnel through a tunnel.
            self.http(upgraded, &session, None).await;
        }
    }

    /// Serves HTTP on a stream, until it ends or becomes a tunnel.
    async fn http<I>(&self, stream: I, session: &Session, tunnel: Option<Tunnel>)
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let handler = self.handler.clone();
        let session = session.clone();
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let before = session.served.fetch_add(1, Ordering::Relaxed);
            let is_last = before >= REQUESTS_PER_CONNECTION_MAX;
            let handler = handler.clone();
            request.extensions_mut().insert(session.broken.clone());
            if let Some(client) = session.client {
                request.extensions_mut().insert(client);
            }
            let tunnel = tunnel.clone().and_then(|tunnel| tunnel.ask(&mut request));
            async move {
                let mut response = handler.answer(request).await;
                if let Some(asked) = tunnel {
                    asked.answered(response.status());
                } else if is_last {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                // Also ends idle connections: the next head has not come in time.
                .header_read_timeout(self.header_timeout)
                .max_buf_size(BUFFER_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .half_close(self.at_end == AtEnd::Answer)
                .serve_connection(stream, service)
                .with_upgrades()
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.switches.cut.cancelled() => return,
            () = self.switches.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.switches.cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            // Clients hang up, stall and send nonsense all day.
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// What the requests of one connection share, those through a tunnel included.
#[derive(Clone)]
struct Session {
    client: Option<Client>,
    broken: Broken,
    served: Arc<AtomicU32>,
}

impl Session {
    fn new(client: Option<Client>, broken: Broken) -> Self {
        Self {
            client,
            broken,
            served: Arc::new(AtomicU32::new(0)),
        }
    }
}

/// How long accepting rests after an error of the system.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of a head, and most bytes of an answer buffered beside the blocks themselves.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Most headers in a request.
const HEADERS_MAX: usize = 100;
/// After so many requests a connection is closed, so that none stays with one node for ever.
const REQUESTS_PER_CONNECTION_MAX: u32 = 10_000;
