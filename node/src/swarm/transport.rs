//! From a key to connections: TCP, WebSocket and QUIC, secured, multiplexed, counted and fenced.
//!
//! ```text
//! relay (public) ─── (swarm.key) ─ Upgrade ─────────────────── Counted ─┐
//! TCP ─┬──────────── (swarm.key) ─ Upgrade (security, Yamux) ─ Counted ─┤
//!      └ WebSocket ─ (swarm.key) ─ Upgrade ─────────────────── Counted ─┼─ Fence ─ (names, public only)
//! UDP ─ QUIC (without swarm.key) ──────────────────────────────── Counted ┘
//! ```
//!
//! A relay's stream is secured end to end like a socket: the relay sees how much passes, and nothing else.
//!
//! Names are resolved in `public` only: asking a name server is traffic that leaves the machine.

use super::connect::{Upgrade, UpgradeError};
use super::fence::Fence;
use super::gate::Gate;
use super::meter::{Counted, Meter};
use super::pace::Paced;
use super::ports::AnyPort;
use crate::config::Config;
use crate::network::Network;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox};
use libp2p::core::transport::timeout::{TransportTimeout, TransportTimeoutError};
use libp2p::core::transport::{Boxed, OrTransport, Transport};
use libp2p::identity::{Keypair, PeerId};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{dns, quic, relay, tcp, websocket};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// What the swarm dials with and listens on.
pub(super) type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// The behaviour without which the relays' transport goes nowhere, where relays are used.
pub(super) type ThroughRelays = Option<relay::client::Behaviour>;

/// Builds the transports. Opens no socket.
pub(super) fn build(
    keys: &Keypair,
    config: &Config,
    meter: &Arc<Meter>,
    gate: &Arc<Gate>,
) -> Result<(Connections, ThroughRelays), String> {
    let upgrade = Upgrade::new(keys, config, meter).map_err(|error| error.to_string())?;
    let plain = socket(sockets().boxed(), &upgrade, config, meter);
    let web = websocket::Config::new(sockets()).boxed();
    let web = socket(web, &upgrade, config, meter);
    // First the longer form: plain TCP would not know what to do with `/ws`.
    let streams = either(web, plain);
    let direct = match config.private {
        // What cannot be kept private is not there.
        Some(_) => streams,
        None => either(streams, datagrams(keys, config, meter)),
    };
    let (all, relays) = if config.reach.uses_relays(config.network) {
        let (lent, relays) = relay::client::new(keys.public().to_peer_id());
        let lent = socket(lent.boxed(), &upgrade, config, meter);
        (either(lent, direct), Some(relays))
    } else {
        (direct, None)
    };
    let fenced = Fence::new(all, config.network, Arc::clone(gate)).boxed();
    if config.network == Network::Public {
        let named = dns::tokio::Transport::system(fenced)
            .map_err(|error| format!("name servers: {error}"))?;
        Ok((named.boxed(), relays))
    } else {
        Ok((fenced, relays))
    }
}

/// Says whether a TCP port is taken. The transport shares its ports with other sockets of the
/// same user, to dial from the port it listens on; so a second node on the same port would start
/// without an error and get half of the first one's connections.
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    match tcp_socket(address) {
        Some(socket) if socket.port() != 0 => TcpListener::bind(socket).map(drop),
        _ => Ok(()),
    }
}

fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn sockets() -> AnyPort<tcp::tokio::Transport> {
    AnyPort::new(any_sockets)
}

fn any_sockets() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
}

/// Secures what TCP or WebSocket carries, within the private network if there is one.
fn socket<S>(
    transport: Boxed<S>,
    upgrade: &Upgrade,
    config: &Config,
    meter: &Arc<Meter>,
) -> Connections
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match &config.private {
        None => secure(transport, upgrade, config, meter),
        Some(key) => {
            let key = key.pnet();
            let inside = transport.and_then(move |socket, _| {
                let secret = key.handshake(socket);
                // Who has none may have closed the connection by now, for what reads like noise.
                async move { secret.await.map_err(|_| UpgradeError::OtherKey) }
            });
            secure(inside.boxed(), upgrade, config, meter)
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectionError<E> {
    #[error(
        "no connection within {0:?}: nobody is there, it has too much to do to answer, or it is in a private network \
         (it has a swarm.key and this node has none)"
    )]
    Silent(Duration),
    #[error(
        "no connection within {0:?}: nobody is there, it has too much to do to answer, or it has another swarm.key than \
         this private network, or none"
    )]
    SilentInPrivate(Duration),
    #[error(transparent)]
    Timer(io::Error),
    #[error(transparent)]
    Other(E),
}

fn secure<S>(
    transport: Boxed<S>,
    upgrade: &Upgrade,
    config: &Config,
    meter: &Arc<Meter>,
) -> Connections
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (meter, upgrade) = (Arc::clone(meter), upgrade.clone());
    let (time, is_private) = (config.handshake_timeout, config.private.is_some());
    TransportTimeout::new(
        transport.and_then(move |socket, point| upgrade.run(socket, point)),
        time,
    )
    .map_err(move |error| match error {
        TransportTimeoutError::Timeout if is_private => ConnectionError::SilentInPrivate(time),
        TransportTimeoutError::Timeout => ConnectionError::Silent(time),
        TransportTimeoutError::TimerError(error) => ConnectionError::Timer(error),
        TransportTimeoutError::Other(error) => ConnectionError::Other(error),
    })
    .map(move |(peer, muxer), _| (peer, muxer_of(muxer, peer, meter)))
    .boxed()
}

/// A connection's streams, counted and paced.
fn muxer_of<M>(muxer: M, peer: PeerId, meter: Arc<Meter>) -> StreamMuxerBox
where
    M: StreamMuxer + Send + Unpin + 'static,
    M::Substream: Send + Unpin + 'static,
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let counted = Counted::new(muxer, peer, Arc::clone(&meter));
    StreamMuxerBox::new(Paced::new(counted, meter))
}

/// What the first does not know, the second may.
fn either(first: Connections, second: Connections) -> Connections {
    OrTransport::new(first, second)
        .map(|output, _| output.into_inner())
        .boxed()
}

fn datagrams(keys: &Keypair, config: &Config, meter: &Arc<Meter>) -> Connections {
    let mut quic = quic::Config::new(keys);
    quic.handshake_timeout = config.handshake_timeout;
    quic.max_concurrent_stream_limit =
        u32::try_from(config.streams_per_connection_max).unwrap_or(u32::MAX);
    quic.max_connection_data = config.quic_window_bytes;
    quic.max_stream_data = config.quic_window_bytes / 4;
    quic.max_idle_timeout = QUIC_SILENCE_MILLIS;
    let meter = Arc::clone(meter);
    quic::tokio::Transport::new(quic)
        .map(move |(peer, muxer), _| (peer, muxer_of(muxer, peer, meter)))
        .boxed()
}

/// A QUIC connection that is silent for so long is dead; twice as long as pings take.
const QUIC_SILENCE_MILLIS: u32 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Tasks;
    use futures::future::{join_all, poll_fn};
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::Endpoint;
    use libp2p::core::muxing::{StreamMuxerExt, SubstreamBox};
    use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};
    use std::pin::Pin;
    use std::task::{Poll, ready};
    use std::time::Instant;
    use tokio::sync::mpsc;

    fn make(config: &Config) -> Connections {
        let keys = Keypair::generate_ed25519();
        let meter = Meter::new(Instant::now());
        build(&keys, config, &meter, &Arc::default()).unwrap().0
    }

    async fn next<T>(transport: &mut Connections, wanted: fn(Event) -> Option<T>) -> T {
        poll_fn(|cx| {
            loop {
                let event = ready!(Pin::new(&mut *transport).poll(cx));
                if let Some(found) = wanted(event) {
                    return Poll::Ready(found);
                }
            }
        })
        .await
    }

    type Event = TransportEvent<
        <Connections as Transport>::ListenerUpgrade,
        <Connections as Transport>::Error,
    >;

    /// Both ends of `count` streams over one connection.
    async fn connect(
        mut from: Connections,
        mut to: Connections,
        address: &str,
        count: usize,
        tasks: &Tasks,
    ) -> (Streams, Streams) {
        to.listen_on(ListenerId::next(), address.parse().unwrap())
            .unwrap();
        let address = next(&mut to, |event| match event {
            TransportEvent::NewAddress { listen_addr, .. } => Some(listen_addr),
            _ => None,
        })
        .await;
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = from.dial(address, options).unwrap();
        // Driven at once: a lazy dialer says what it proposes with its first frame.
        let dial = async { streams(dial.await.unwrap().1, count, tasks) };
        let accept = async {
            let upgrade = next(&mut to, |event| match event {
                TransportEvent::Incoming { upgrade, .. } => Some(upgrade),
                _ => None,
            });
            streams(upgrade.await.await.unwrap().1, 0, tasks)
        };
        futures::join!(dial, accept)
    }

    type Streams = mpsc::Receiver<SubstreamBox>;

    /// Drives a muxer in a task; hands over the streams it opens and those that come.
    fn streams(mut muxer: StreamMuxerBox, mut opens: usize, tasks: &Tasks) -> Streams {
        let (sender, receiver) = mpsc::channel(64);
        tasks.spawn("muxer", async move {
            poll_fn(|cx| {
                while opens > 0 {
                    let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx) else {
                        break;
                    };
                    opens -= 1;
                    sender.try_send(stream.unwrap()).unwrap();
                }
                while let Poll::Ready(Ok(stream)) = muxer.poll_inbound_unpin(cx) {
                    sender.try_send(stream).unwrap();
                }
                muxer.poll_unpin(cx).map(drop)
            })
            .await;
        });
        receiver
    }

    /// Sends `bytes` over each of `count` streams at once and checks every one at the other end.
    async fn carry(
        from: Connections,
        to: Connections,
        address: &str,
        (count, bytes): (usize, usize),
    ) {
        let tasks = Tasks::new();
        let (mut out, mut arrived) = connect(from, to, address, count, &tasks).await;
        let piece: Vec<u8> = (0..=250).cycle().take(251 << 10).collect();
        for _ in 0..count {
            let (mut stream, piece) = (out.recv().await.unwrap(), piece.clone());
            tasks.spawn("writer", async move {
                let mut left = bytes;
                while left > 0 {
                    let now = left.min(piece.len());
                    stream.write_all(&piece[..now]).await.unwrap();
                    left -= now;
                }
                stream.close().await.unwrap();
            });
        }
        let mut reads = Vec::new();
        for _ in 0..count {
            let (mut stream, piece) = (arrived.recv().await.unwrap(), piece.clone());
            reads.push(async move {
                let (mut seen, mut buffer) = (0, vec![0; 251 << 10]);
                loop {
                    let wanted = piece.len() - seen % piece.len();
                    let read = stream.read(&mut buffer[..wanted]).await.unwrap();
                    if read == 0 {
                        return seen;
                    }
                    let at = seen % piece.len();
                    assert!(buffer[..read] == piece[at..at + read], "at {seen}");
                    seen += read;
                }
            });
        }
        assert_eq!(join_all(reads).await, vec![bytes; count]);
        assert_eq!(tasks.panics(), 0);
        tasks.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_megabytes_arrive_as_they_were_sent_on_every_transport() {
        for address in [
            "/ip4/127.0.0.1/tcp/0",
            "/ip4/127.0.0.1/tcp/0/ws",
            "/ip4/127.0.0.1/udp/0/quic-v1",
        ] {
            let config = Config::default();
            carry(make(&config), make(&config), address, (4, 8 << 20)).await;
        }
    }
}
