//! Connections to one service: dialled inside the fence, used one request at a time, kept for the
//! next.
//!
//! The fence is asked where the socket is made, about the address that is dialled: a name is
//! resolved in `public` only, and what it resolves to is asked about like any other address. An
//! announced address comes from strangers, so it must moreover be one that means the same to
//! everybody: nobody out there names a service on this machine, or in `public` beside it, for us to
//! ask.

use super::endpoint::{Endpoint, Host, Scheme};
use super::request::{Body, Failure};
use super::{Standing, Times};
use crate::network::Network;
use crate::tasks::Tasks;
use crate::throttle::{Gate, Way};
use futures_rustls::TlsConnector;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// One that can take a request.
pub(crate) type Connection = SendRequest<Body>;

/// The connections to one service.
pub(crate) struct Pool {
    endpoint: Endpoint,
    fence: Fence,
    pub(crate) times: Times,
    tls: Arc<rustls::ClientConfig>,
    tasks: Tasks,
    /// The service's part of what may pass, if what it sends is limited.
    gate: Option<Arc<Gate>>,
    /// Connections that wait for the next request; the latest used is the last.
    idle: Mutex<Vec<Connection>>,
    /// Why it was not reached, if the last attempt to connect failed.
    trouble: Mutex<Option<Arc<str>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pool({})", self.endpoint)
    }
}

/// What may be dialled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence {
    pub(crate) network: Network,
    pub(crate) standing: Standing,
}

impl Fence {
    /// Whether a service may lie inside, as far as its address alone tells.
    pub(crate) fn may_hold(self, endpoint: &Endpoint) -> bool {
        match endpoint.host() {
            Host::Ip(ip) => self.holds(*ip),
            Host::Name(_) => self.network == Network::Public,
        }
    }

    fn holds(self, ip: IpAddr) -> bool {
        // To connect to 0.0.0.0 is to connect to this machine.
        if ip.is_unspecified() || ip.is_multicast() {
            return false;
        }
        let mut address = Multiaddr::from(ip);
        address.push(Protocol::Tcp(0));
        self.network.allows(&address)
            && match self.standing {
                Standing::Configured => true,
                Standing::Announced => {
                    let is_ours = ip.to_canonical().is_loopback();
                    self.network.announces(&address) && (self.network == Network::Local || !is_ours)
                }
            }
    }

    async fn addresses(self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, (Failure, String)> {
        let port = endpoint.port();
        let found: Vec<SocketAddr> = match endpoint.host() {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
            Host::Name(_) if self.network != Network::Public => Vec::new(),
            Host::Name(name) => tokio::net::lookup_host((name.as_str(), port))
                .await
                .map_err(|error| (Failure::Unreachable, error.to_string()))?
                .collect(),
        };
        let inside: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.holds(address.ip()))
            .take(ADDRESSES_TRIED_MAX)
            .collect();
        if inside.is_empty() {
            let why = "it has no address that `network` or who announced it may name";
            return Err((Failure::Outside, why.to_owned()));
        }
        Ok(inside)
    }
}

impl Pool {
    /// The way to a service, through `gate`; `None` if it lies outside the fence.
    pub(crate) fn new(
        endpoint: Endpoint,
        fence: Fence,
        times: Times,
        tls: Arc<rustls::ClientConfig>,
        tasks: Tasks,
        gate: Option<Arc<Gate>>,
    ) -> Option<Self> {
        fence.may_hold(&endpoint).then(|| Self {
            endpoint,
            fence,
            times,
            tls,
            tasks,
            gate,
            idle: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    /// Waits until so many bytes that came may have come.
    pub(crate) async fn pay(&self, bytes: usize) {
        if let Some(gate) = &self.gate {
            gate.pay(Way::In, bytes).await;
        }
    }

    /// Whose connections these are.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where whatever reads from it runs.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Why it cannot be reached, as far as is known.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_in_trouble(&self, why: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = why.map(Into::into);
    }

    /// A connection that waited, if there is one.
    pub(crate) fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|other| !other.is_closed());
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        match timeout(self.times.connect, self.dial()).await {
            Ok(Ok(connection)) => {
                self.is_in_trouble(None);
                Ok(connection)
            }
            Ok(Err((failure, why))) => {
                self.is_in_trouble(Some(why));
                Err(failure)
            }
            Err(_) => {
                self.is_in_trouble(Some("no connection in time".to_owned()));
                Err(Failure::Unreachable)
            }
        }
    }

    async fn dial(&self) -> Result<Connection, (Failure, String)> {
        let addresses = self.fence.addresses(&self.endpoint).await?;
        if let Some(gate) = &self.gate {
            gate.reached_at(addresses.iter().map(|address| Some(address.ip())));
        }
        let mut stream = Err((Failure::Unreachable, "no address".to_owned()));
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(open) => {
                    stream = Ok(open);
                    break;
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "service not reached");
                    stream = Err((Failure::Unreachable, error.to_string()));
                }
            }
        }
        let stream = stream?;
        // Requests are small and wait for nothing.
        drop(stream.set_nodelay(true));
        match self.endpoint.scheme() {
            Scheme::Http => self.open(TokioIo::new(stream)).await,
            Scheme::Https => {
                let name = match self.endpoint.host() {
                    Host::Ip(ip) => ServerName::from(*ip),
                    Host::Name(name) => ServerName::try_from(name.clone())
                        .map_err(|error| (Failure::Tls, error.to_string()))?,
                };
                let tls = TlsConnector::from(Arc::clone(&self.tls));
                let stream = tls.connect(name, stream.compat()).await.map_err(|error| {
                    tracing::debug!(service = %self.endpoint, %error, "no TLS");
                    (Failure::Tls, format!("no TLS: {error}"))
                })?;
                self.open(TokioIo::new(stream.compat())).await
            }
        }
    }

    async fn open<S>(&self, stream: S) -> Result<Connection, (Failure, String)>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let (connection, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(stream)
            .await
            .map_err(|error| (Failure::Unreachable, error.to_string()))?;
        let stopping = self.tasks.stopping();
        // Ends with the other half, which whoever uses the connection or the list above holds.
        self.tasks.spawn("http connection", async move {
            if let Some(Err(error)) = stopping.run_until_cancelled_owned(driver).await {
                tracing::debug!(%error, "connection to a service ended");
            }
        });
        Ok(connection)
    }
}

/// Addresses of one name that are tried.
const ADDRESSES_TRIED_MAX: usize = 4;
/// Connections kept for the next request.
const IDLE_MAX: usize = super::REQUESTS_MAX;
/// What is buffered of an answer, its head above all.
const HEAD_BYTES_MAX: usize = 64 << 10;
