//! What everybody else pays: streams of rust-libp2p as it comes (TCP, Noise or TLS, Yamux), each end
//! in a process of its own. Some of its layers may be ours (`layers.rs`).

use crate::layers::Layers;
use crate::process::{self, Talking, child};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, tls, yamux};
use libp2p_stream::Control;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// `/noise`
    Noise,
    /// `/tls/1.0.0`
    Tls,
}

impl Security {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Tls => "tls",
        }
    }

    pub(crate) fn read(name: &str) -> Self {
        [Self::Noise, Self::Tls]
            .into_iter()
            .find(|security| security.name() == name)
            .expect("noise or tls")
    }
}

/// A stock node that gives.
#[derive(Debug)]
pub struct Giver {
    process: Talking,
    layers: Layers,
    address: String,
}

impl Giver {
    /// Starts one.
    pub fn start(security: Security) -> Self {
        Self::over(Layers::stock(security))
    }

    /// Starts one over such layers.
    pub fn over(layers: Layers) -> Self {
        let mut process = Talking::start("a stock giver", &mut child(GIVER, &[&layers]));
        let address = process.hear("gives at", Duration::from_secs(10));
        Self {
            process,
            layers,
            address,
        }
    }

    /// Seconds that another node takes to get so many bytes from it over so many streams at once.
    pub fn seconds(&self, bytes: u64, streams: u64) -> f64 {
        let [seconds, _] = self.costs(bytes, streams);
        seconds
    }

    /// The same, and the seconds of processors that both ends used meanwhile.
    pub fn costs(&self, bytes: u64, streams: u64) -> [f64; 2] {
        let given: [&dyn std::fmt::Display; 4] = [&self.layers, &self.address, &bytes, &streams];
        let before = process::processor_seconds(self.process.id());
        let mut taker = Talking::start("a stock taker", &mut child(TAKER, &given));
        let [seconds, used] = ["took", "used"].map(|word| {
            let figure = taker.hear(word, Duration::from_secs(600));
            figure.parse::<f64>().expect("seconds")
        });
        let giving = process::processor_seconds(self.process.id()) - before;
        [seconds, giving + used]
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// A swarm that knows streams alone.
pub fn swarm(security: Security) -> Swarm<libp2p_stream::Behaviour> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let tcp = tcp::Config::default().nodelay(true);
    macro_rules! built {
        ($secured:expr) => {
            $secured
                .expect("transport")
                .with_behaviour(|_| libp2p_stream::Behaviour::new())
                .expect("behaviour")
                .with_swarm_config(|config| {
                    config.with_idle_connection_timeout(Duration::from_secs(3600))
                })
                .build()
        };
    }
    match security {
        Security::Noise => {
            built!(builder.with_tcp(tcp, noise::Config::new, yamux::Config::default))
        }
        Security::Tls => built!(builder.with_tcp(tcp, tls::Config::new, yamux::Config::default)),
    }
}

/// Listens on a free port and turns the swarm for ever; where it can be dialled, and its control.
pub async fn listening(
    mut swarm: Swarm<libp2p_stream::Behaviour>,
    ip: Ipv4Addr,
) -> (Multiaddr, Control) {
    let any = Multiaddr::from(ip).with(Protocol::Tcp(0));
    swarm.listen_on(any).expect("listen");
    let address = loop {
        if let Some(SwarmEvent::NewListenAddr { address, .. }) = swarm.next().await {
            break address;
        }
    };
    let address = address.with_p2p(*swarm.local_peer_id()).expect("address");
    let control = swarm.behaviour().new_control();
    turn(swarm);
    (address, control)
}

fn turn(mut swarm: Swarm<libp2p_stream::Behaviour>) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench has no shutdown to take part in"
    )]
    tokio::spawn(async move {
        while let Some(event) = swarm.next().await {
            // Who dialled once is of no more use; who listens goes on.
            if matches!(event, SwarmEvent::ConnectionClosed { .. })
                && swarm.listeners().next().is_none()
            {
                break;
            }
        }
    });
}

/// The part of a child that gives, over the layers that the only argument says.
pub async fn give(given: &[String]) {
    let [layers] = given else {
        panic!("layers: {given:?}");
    };
    let swarm = over(layers);
    let (address, mut control) = listening(swarm, Ipv4Addr::LOCALHOST).await;
    let mut incoming = control.accept(PROTOCOL).expect("accept");
    println!("gives at {address}");
    while let Some((_, mut stream)) = incoming.next().await {
        #[expect(
            clippy::disallowed_methods,
            reason = "a bench has no shutdown to take part in"
        )]
        tokio::spawn(async move {
            stream.write_all(&[1]).await.expect("write");
            stream.flush().await.expect("flush");
            let mut wanted = [0; 8];
            stream.read_exact(&mut wanted).await.expect("read");
            let mut left = u64::from_be_bytes(wanted);
            let chunk = vec![7; 256 << 10];
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                let (part, _) = chunk.split_at(now);
                stream.write_all(part).await.expect("write");
                left -= now as u64;
            }
            stream.close().await.expect("close");
        });
    }
}

/// What is stock altogether is made as everybody makes it.
fn over(layers: &str) -> Swarm<libp2p_stream::Behaviour> {
    let layers: Layers = layers.parse().expect("layers");
    match layers == Layers::stock(layers.security) {
        true => swarm(layers.security),
        false => layers.swarm(),
    }
}

/// The part of a child that takes: over which layers, from where, how many bytes, over how many streams.
pub async fn take(given: &[String]) {
    let [layers, address, bytes, streams] = given else {
        panic!("layers, an address and two numbers: {given:?}");
    };
    let address: Multiaddr = address.parse().expect("an address");
    let bytes: u64 = bytes.parse().expect("bytes");
    let streams: u64 = streams.parse().expect("streams");
    let peer = peer(&address);
    let mut control = dialled(over(layers), address).await.expect("connect");
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut stream = control.open_stream(peer, PROTOCOL).await.expect("open");
        // One after the other: streams that come together may be dropped at the other end.
        stream.read_exact(&mut [0]).await.expect("read");
        open.push(stream);
    }
    let before = process::processor_seconds(std::process::id());
    let start = Instant::now();
    let each = bytes / streams;
    let all = open.into_iter().map(|mut stream| {
        #[expect(
            clippy::disallowed_methods,
            reason = "a bench has no shutdown to take part in"
        )]
        tokio::spawn(async move {
            stream.write_all(&each.to_be_bytes()).await.expect("write");
            stream.flush().await.expect("flush");
            let mut buffer = vec![0; 256 << 10];
            let mut taken = 0;
            loop {
                match stream.read(&mut buffer).await.expect("read") {
                    0 => break,
                    read => taken += read as u64,
                }
            }
            assert_eq!(taken, each);
        })
    });
    for done in futures::future::join_all(all).await {
        done.expect("no panic");
    }
    println!("took {}", start.elapsed().as_secs_f64());
    let used = process::processor_seconds(std::process::id()) - before;
    println!("used {used}");
}

/// The control of a new node that is connected to an address.
pub async fn connected(security: Security, address: Multiaddr) -> Control {
    try_connected(security, address).await.expect("connect")
}

/// The same, if it is let in.
pub async fn try_connected(security: Security, address: Multiaddr) -> Result<Control, DialError> {
    dialled(swarm(security), address).await
}

async fn dialled(
    mut swarm: Swarm<libp2p_stream::Behaviour>,
    address: Multiaddr,
) -> Result<Control, DialError> {
    swarm.dial(address)?;
    loop {
        match swarm.next().await {
            Some(SwarmEvent::ConnectionEstablished { .. }) | None => break,
            Some(SwarmEvent::OutgoingConnectionError { error, .. }) => return Err(error),
            Some(_) => {}
        }
    }
    let control = swarm.behaviour().new_control();
    turn(swarm);
    Ok(control)
}

/// Who is meant by an address that ends in a peer.
pub fn peer(address: &Multiaddr) -> PeerId {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => peer,
        _ => panic!("no peer in {address}"),
    }
}

/// The part that [`give`] plays.
pub const GIVER: &str = "stock-give";
/// The part that [`take`] plays.
pub const TAKER: &str = "stock-take";
const PROTOCOL: StreamProtocol = StreamProtocol::new("/floor");
