//! From a key to connections: TCP, WebSocket and QUIC, secured, multiplexed, counted and fenced.
//!
//! ```text
//! TCP ─ Buffered ─┬──────────── Security ─ Yamux ─ Counted ─┐
//!                 └ WebSocket ─ Security ─ Yamux ─ Counted ─┼─ (names, public only) ─ Fence
//! UDP ─ QUIC ────────────────────────────────────── Counted ┘
//! ```
//!
//! Names are resolved in `public` only: asking a name server is traffic that leaves the machine.

use super::buffered::Buffered;
use super::fence::{Fence, TurnedAway};
use super::meter::{Counted, Meter};
use super::muxer::Yamux;
use super::security::Security;
use crate::config::Config;
use crate::network::Network;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::{Keypair, PeerId};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{dns, quic, tcp, websocket};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

/// What the swarm dials with and listens on.
pub(super) type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transports. Opens no socket.
pub(super) fn build(
    keys: &Keypair,
    config: &Config,
    meter: &Arc<Meter>,
    turned_away: &Arc<TurnedAway>,
) -> Result<Connections, String> {
    let security = Security::new(keys).map_err(|error| error.to_string())?;
    let plain = secure(sockets(config).boxed(), &security, config, meter);
    let web = websocket::Config::new(sockets(config)).boxed();
    let web = secure(web, &security, config, meter);
    // First the longer form: plain TCP would not know what to do with `/ws`.
    let all = either(either(web, plain), datagrams(keys, config, meter));
    let named = if config.network == Network::Public {
        dns::tokio::Transport::system(all)
            .map_err(|error| format!("name servers: {error}"))?
            .boxed()
    } else {
        all
    };
    Ok(Fence::new(named, config.network, Arc::clone(turned_away)).boxed())
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

fn sockets(
    config: &Config,
) -> impl Transport<
    Output = Buffered<tcp::tokio::TcpStream>,
    Error = io::Error,
    Dial: Send,
    ListenerUpgrade: Send,
> + Send
+ Unpin
+ use<> {
    let ahead = config.read_buffer_bytes.max(1);
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(move |socket, _| Buffered::new(socket, ahead))
}

fn secure<S>(
    transport: Boxed<S>,
    security: &Security,
    config: &Config,
    meter: &Arc<Meter>,
) -> Connections
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let meter = Arc::clone(meter);
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(security.clone())
        .multiplex(Yamux::new(config))
        .timeout(config.handshake_timeout)
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(Counted::new(muxer, meter))))
        .boxed()
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
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(Counted::new(muxer, meter))))
        .boxed()
}

/// A QUIC connection that is silent for so long is dead; twice as long as pings take.
const QUIC_SILENCE_MILLIS: u32 = 30_000;
