//! Whom to ask about which names: `dns.resolvers`.

use crate::http::Endpoint;
use crate::name::domain::Domain;
use crate::network::Network;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Who is asked, by what names end in. Names that none of the suffixes fits are asked of the system's resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resolvers(BTreeMap<Suffix, Server>);

/// What names end in: `.` for all, or as `eth.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Suffix(Option<Domain>);

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Server {
    /// Nobody: these names have no DNSLink here.
    Nobody,
    /// Whoever the system's `/etc/resolv.conf` names.
    System,
    /// A name server, over UDP, and over TCP what does not fit.
    Udp(SocketAddr),
    /// A name server, over TCP alone.
    Tcp(SocketAddr),
    /// A name server over HTTPS (DoH).
    Https(Endpoint),
}

/// The text is no resolver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no resolver; it is \"system\", \"\" for none, or looks like \"udp://127.0.0.1:53\", \"tcp://[::1]:53\" \
     or \"https://127.0.0.1/dns-query\""
)]
pub struct NoServer(String);

/// The text is no suffix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no end of a domain name; it is \".\" for all names, or looks like \"eth.\" or \"example.org.\""
)]
pub struct NoSuffix(String);

impl Default for Resolvers {
    fn default() -> Self {
        Self(BTreeMap::from([(Suffix(None), Server::System)]))
    }
}

impl FromIterator<(Suffix, Server)> for Resolvers {
    fn from_iter<T: IntoIterator<Item = (Suffix, Server)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Resolvers {
    /// Who is asked about `domain`: who stands at the longest suffix that it ends in.
    pub fn of(&self, domain: &Domain) -> &Server {
        let fits = |suffix: &Suffix| suffix.0.as_ref().is_none_or(|end| domain.is_within(end));
        let fitting = self.0.iter().filter(|(suffix, _)| fits(suffix));
        let longest = fitting.max_by_key(|(suffix, _)| suffix.len());
        longest.map_or(&Server::System, |(_, server)| server)
    }

    /// Every suffix and who is asked about it.
    pub fn iter(&self) -> impl Iterator<Item = (&Suffix, &Server)> {
        self.0.iter()
    }
}

impl Suffix {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |end| end.as_str().len())
    }
}

impl Server {
    /// Whether a node that is limited to `network` may ask it. The system's resolver hands questions on to whoever it
    /// likes, wherever it stands; so it is asked in `public` only, as names are resolved in `public` only.
    pub fn is_within(&self, network: Network) -> bool {
        match self {
            Self::Nobody => true,
            Self::System => network == Network::Public,
            Self::Udp(at) | Self::Tcp(at) => {
                let mut address = Multiaddr::from(at.ip());
                address.push(Protocol::Tcp(at.port()));
                network.allows(&address)
            }
            Self::Https(service) => service.is_within(network),
        }
    }
}

impl FromStr for Suffix {
    type Err = NoSuffix;

    fn from_str(text: &str) -> Result<Self, NoSuffix> {
        match text {
            "." => Ok(Self(None)),
            _ => match text.parse() {
                Ok(domain) => Ok(Self(Some(domain))),
                Err(_) => Err(NoSuffix(text.to_owned())),
            },
        }
    }
}

impl FromStr for Server {
    type Err = NoServer;

    fn from_str(text: &str) -> Result<Self, NoServer> {
        let read = match text {
            "" => Some(Self::Nobody),
            "system" => Some(Self::System),
            _ => match text.split_once("://") {
                Some(("udp", at)) => socket(at).map(Self::Udp),
                Some(("tcp", at)) => socket(at).map(Self::Tcp),
                Some(("https", _)) => text.parse().ok().map(Self::Https),
                _ => None,
            },
        };
        read.ok_or_else(|| NoServer(text.to_owned()))
    }
}

/// An address, with the port of DNS if none is given.
fn socket(text: &str) -> Option<SocketAddr> {
    let plain = || {
        let bare = text.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
        let ip: IpAddr = bare.unwrap_or(text).parse().ok()?;
        Some(SocketAddr::new(ip, PORT))
    };
    let address: SocketAddr = text.parse().ok().or_else(plain)?;
    // To ask 0.0.0.0 is to ask this machine.
    let is_somebody = !address.ip().is_unspecified() && !address.ip().is_multicast();
    (is_somebody && address.port() != 0).then_some(address)
}

impl fmt::Display for Suffix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(domain) => write!(out, "{domain}."),
            None => out.write_str("."),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => Ok(()),
            Self::System => out.write_str("system"),
            Self::Udp(at) => write!(out, "udp://{at}"),
            Self::Tcp(at) => write!(out, "tcp://{at}"),
            Self::Https(service) => service.fmt(out),
        }
    }
}

impl TryFrom<String> for Suffix {
    type Error = NoSuffix;

    fn try_from(text: String) -> Result<Self, NoSuffix> {
        text.parse()
    }
}

impl From<Suffix> for String {
    fn from(suffix: Suffix) -> Self {
        suffix.to_string()
    }
}

impl TryFrom<String> for Server {
    type Error = NoServer;

    fn try_from(text: String) -> Result<Self, NoServer> {
        text.parse()
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.to_string()
    }
}

/// Where name servers listen.
const PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Server {
        text.parse().unwrap()
    }

    #[test]
    fn resolvers_are_read_and_written_back() {
        for (text, written) in [
            ("", ""),
            ("system", "system"),
            ("udp://127.0.0.1:5353", "udp://127.0.0.1:5353"),
            ("udp://127.0.0.1", "udp://127.0.0.1:53"),
            ("tcp://[::1]", "tcp://[::1]:53"),
            (
                "https://dns.example/dns-query",
                "https://dns.example/dns-query",
            ),
            ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ] {
            assert_eq!(server(text).to_string(), written, "{text}");
            assert_eq!(server(written), server(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "udp://dns.example",
            "udp://0.0.0.0:53",
            "udp://127.0.0.1:0",
            "udp://224.0.0.1",
            "http://127.0.0.1/dns-query",
            "https://",
            "tls://127.0.0.1",
            "System",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_suffix_says_who_is_asked() {
        let pair = |(suffix, at): (&str, &str)| (suffix.parse().unwrap(), server(at));
        let resolvers: Resolvers = [
            (".", ""),
            ("eth.", "udp://127.0.0.1:1"),
            ("deep.example.ETH", "udp://127.0.0.1:2"),
        ]
        .map(pair)
        .into_iter()
        .collect();
        for (name, at) in [
            ("example.org", ""),
            ("vitalik.eth", "udp://127.0.0.1:1"),
            ("example.eth", "udp://127.0.0.1:1"),
            ("deep.example.eth", "udp://127.0.0.1:2"),
            ("a.deep.example.eth", "udp://127.0.0.1:2"),
            ("notdeep.example.eth", "udp://127.0.0.1:1"),
        ] {
            assert_eq!(resolvers.of(&name.parse().unwrap()), &server(at), "{name}");
        }
        let none = Resolvers::from_iter([]);
        assert_eq!(none.of(&"a.example".parse().unwrap()), &Server::System);
        assert!("exa mple".parse::<Suffix>().is_err());
    }

    #[test]
    fn each_network_asks_only_whom_it_reaches() {
        for (text, narrowest) in [
            ("", Network::Local),
            ("udp://127.0.0.1", Network::Local),
            ("tcp://[::1]:1", Network::Local),
            ("https://127.0.0.1/dns-query", Network::Local),
            ("https://localhost/dns-query", Network::Local),
            ("udp://192.168.1.1", Network::Lan),
            ("https://10.0.0.1", Network::Lan),
            ("udp://192.0.2.1", Network::Public),
            ("https://dns.example/dns-query", Network::Public),
            ("system", Network::Public),
        ] {
            for (at, network) in Network::ALL.into_iter().enumerate() {
                let reached = at >= Network::ALL.iter().position(|n| *n == narrowest).unwrap();
                assert_eq!(server(text).is_within(network), reached, "{network} {text}");
            }
        }
    }
}
