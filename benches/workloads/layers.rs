//! Connections whose layers are partly ours and partly stock, so that one sees what each gives.

use crate::stock::Security;
use cairn_node::swarm::layers::{Multiplex, Preferring, Secure, all};
use cairn_node::{Config, Keypair, PeerId, Security as Ours};
use futures::io::BufReader;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox};
use libp2p::core::transport::upgrade::Multiplexed;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::core::upgrade::Version;
use libp2p::{Swarm, noise, swarm, tcp, tls, yamux};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a connection is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// How it is secured.
    pub security: Security,
    /// Who seals and opens.
    pub records: Records,
    /// The multiplexer is ours.
    pub our_mux: bool,
    /// Records and multiplexer, both ours, are one piece, as in the node.
    pub fused: bool,
    /// Bytes read at a time: the node's default where it has to be something.
    pub reads: Option<usize>,
    /// By how many bytes windows may grow, if not by what the node allows. Ours alone; the windows of
    /// the stock multiplexer cannot be chosen through libp2p.
    pub growth: Option<usize>,
}

/// Who seals and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// libp2p's.
    Stock,
    /// rustls', with a configuration that prefers AES. TLS alone.
    Preferring,
    /// Ours.
    Ours,
}

impl Records {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Stock, "stock"),
        (Self::Preferring, "preferring"),
        (Self::Ours, "ours"),
    ];
}

/// As the child reads it.
impl fmt::Display for Layers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |(records, name): (Records, _)| (records == self.records).then_some(name);
        write!(
            out,
            "{} {} {} {} {} {}",
            self.security.name(),
            Records::ALL.into_iter().find_map(name).expect("named"),
            self.our_mux,
            self.fused,
            self.reads.unwrap_or(0),
            self.growth
                .map_or("any".to_owned(), |bytes| bytes.to_string())
        )
    }
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("what layers are {text:?}?");
        let words: Vec<&str> = text.split(' ').collect();
        let &[security, records, mux, fused, reads, growth] = words.as_slice() else {
            return Err(unknown());
        };
        let named = |(one, name)| (name == records).then_some(one);
        let reads: usize = reads.parse().map_err(|_| unknown())?;
        Ok(Self {
            security: Security::read(security),
            records: Records::ALL
                .into_iter()
                .find_map(named)
                .ok_or_else(unknown)?,
            our_mux: mux.parse().map_err(|_| unknown())?,
            fused: fused.parse().map_err(|_| unknown())?,
            reads: (reads > 0).then_some(reads),
            growth: match growth {
                "any" => None,
                bytes => Some(bytes.parse().map_err(|_| unknown())?),
            },
        })
    }
}

impl Layers {
    /// Nothing of ours.
    pub const fn stock(security: Security) -> Self {
        Self {
            security,
            records: Records::Stock,
            our_mux: false,
            fused: false,
            reads: None,
            growth: None,
        }
    }

    /// All of ours.
    pub const fn ours(security: Security) -> Self {
        Self {
            security,
            records: Records::Ours,
            our_mux: true,
            fused: true,
            reads: None,
            growth: None,
        }
    }

    fn config(&self) -> Config {
        let default = Config::default();
        Config {
            security: vec![match self.security {
                Security::Noise => Ours::Noise,
                Security::Tls => Ours::Tls,
            }],
            read_buffer_bytes: self.reads.unwrap_or(default.read_buffer_bytes),
            window_growth_bytes: self.growth.unwrap_or(default.window_growth_bytes),
            ..default
        }
    }

    /// A swarm over them that knows streams alone.
    pub fn swarm(&self) -> Swarm<libp2p_stream::Behaviour> {
        let keys = Keypair::generate_ed25519();
        Swarm::new(
            self.transport(&keys),
            libp2p_stream::Behaviour::new(),
            keys.public().to_peer_id(),
            swarm::Config::with_tokio_executor()
                .with_idle_connection_timeout(Duration::from_secs(3600)),
        )
    }

    fn transport(&self, keys: &Keypair) -> Connections {
        let config = self.config();
        let sockets = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        if self.fused {
            return all(keys, &config).expect("a key");
        }
        // Our records read as much as they are told anyway; the others as much as they happen to.
        let reads = match self.records {
            Records::Ours => None,
            _ => self.reads,
        };
        match reads {
            None => self.secured(sockets, keys, &config),
            Some(bytes) => {
                let sockets = sockets.map(move |socket, _| BufReader::with_capacity(bytes, socket));
                self.secured(sockets, keys, &config)
            }
        }
    }

    fn secured<T>(&self, sockets: T, keys: &Keypair, config: &Config) -> Connections
    where
        T: Transport<Error: Send + Sync, ListenerUpgrade: Send, Dial: Send>
            + Send
            + Unpin
            + 'static,
        T::Output: Socket,
    {
        let raw = sockets.upgrade(Version::V1Lazy);
        macro_rules! multiplexed {
            ($secure:expr) => {
                match self.our_mux {
                    true => boxed(raw.authenticate($secure).multiplex(Multiplex::new(config))),
                    false => boxed(
                        raw.authenticate($secure)
                            .multiplex(yamux::Config::default()),
                    ),
                }
            };
        }
        match (self.records, self.security) {
            (Records::Stock, Security::Tls) => {
                multiplexed!(tls::Config::new(keys).expect("a key"))
            }
            (Records::Stock, Security::Noise) => {
                multiplexed!(noise::Config::new(keys).expect("a key"))
            }
            (Records::Preferring, _) => multiplexed!(Preferring::new(keys).expect("a key")),
            (Records::Ours, security) => {
                let security = match security {
                    Security::Noise => Ours::Noise,
                    Security::Tls => Ours::Tls,
                };
                multiplexed!(Secure::new(keys, security, config).expect("a key"))
            }
        }
    }
}

fn boxed<T, M>(multiplexed: Multiplexed<T>) -> Connections
where
    T: Transport<Output = (PeerId, M), Error: Send + Sync, ListenerUpgrade: Send, Dial: Send>
        + Send
        + Unpin
        + 'static,
    M: StreamMuxer<Substream: Send + 'static, Error: Send + Sync + 'static> + Send + 'static,
{
    multiplexed
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

trait Socket: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static {}

impl<S: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static> Socket for S {}

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_as_they_were_written() {
        for layers in [
            Layers::stock(Security::Noise),
            Layers::ours(Security::Tls),
            Layers {
                records: Records::Preferring,
                reads: Some(4096),
                growth: Some(0),
                ..Layers::stock(Security::Tls)
            },
        ] {
            assert_eq!(layers.to_string().parse(), Ok(layers));
        }
    }
}
