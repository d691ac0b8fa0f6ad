//! Where an HTTP service is, a trustless gateway or another: read from a URL or from a multiaddr, parsed once.

use super::Standing;
use super::connection::Fence;
use crate::network::Network;
use cairn_store::Block;
use cairn_store::block::Prefix;
use cairn_store::cid::{self, HashKind};
use hyper::Uri;
use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An HTTP service: a trustless gateway, or one that is asked who has what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    scheme: Scheme,
    host: Host,
    port: u16,
    /// Empty, or begins with a slash and does not end in one.
    path: String,
}

/// Whether the way there is encrypted. Blocks are verified in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Its machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

/// The text is no address of an HTTP service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address of an HTTP service; it looks like \"http://127.0.0.1:8080\" or \"/ip4/127.0.0.1/tcp/8080/http\""
)]
pub struct NoEndpoint(String);

impl Endpoint {
    /// Whether an operator who limits the node to `network` may name it, as far as its address tells.
    pub fn is_within(&self, network: Network) -> bool {
        let standing = Standing::Configured;
        Fence { network, standing }.may_hold(self)
    }

    /// The endpoint that a multiaddr names, if it names one: `…/http`, `…/https`, `…/tls/http`,
    /// each with `/http-path/…` behind it if need be.
    pub fn from_multiaddr(address: &Multiaddr) -> Option<Self> {
        let mut parts = address
            .iter()
            .filter(|part| !matches!(part, Protocol::P2p(_)));
        let host = match parts.next()? {
            Protocol::Ip4(ip) => Host::Ip(ip.into()),
            Protocol::Ip6(ip) => Host::Ip(ip.into()),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
                Host::named(&name)?
            }
            _ => return None,
        };
        let Protocol::Tcp(port) = parts.next()? else {
            return None;
        };
        let scheme = match parts.next()? {
            Protocol::Http => Scheme::Http,
            Protocol::Https => Scheme::Https,
            Protocol::Tls if parts.next()? == Protocol::Http => Scheme::Https,
            _ => return None,
        };
        let path = match parts.next() {
            None => String::new(),
            Some(Protocol::HttpPath(path)) => format!("/{}", path.trim_matches('/')),
            Some(_) => return None,
        };
        if parts.next().is_some() {
            return None;
        }
        Self::new(scheme, host, port, &path)
    }

    fn from_url(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = match uri.scheme_str()? {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        if uri.query().is_some() || uri.authority()?.as_str().contains('@') || url.contains('#') {
            return None;
        }
        let host = Host::named(uri.host()?)?;
        let port = match uri.authority()?.as_str().strip_prefix(uri.host()?)? {
            "" => scheme.port(),
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        Self::new(scheme, host, port, uri.path())
    }

    fn new(scheme: Scheme, host: Host, port: u16, path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/').to_owned();
        // What would mean something else in a request's first line, or lead out of the path.
        let plain = path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte));
        let leads_out = path.split('/').any(|part| part == ".." || part == ".");
        if !plain || leads_out || path.len() > PATH_BYTES_MAX || port == 0 {
            return None;
        }
        Some(Self {
            scheme,
            host,
            port,
            path,
        })
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address, if that is what it is named by.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }

    /// What its machine is called, in a certificate as well: a name, or an address without brackets.
    pub(crate) fn host_text(&self) -> String {
        match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    /// Its own path: empty, or with a slash in front and none at its end.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What stands in a request's `Host`.
    pub(crate) fn authority(&self) -> String {
        if self.port == self.scheme.port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What stands in a request's first line to ask for `rest`, which begins with a slash, below
    /// the service's own path.
    pub(crate) fn target(&self, rest: &str) -> String {
        format!("{}{rest}", self.path)
    }

    /// The same service by the path above `suffix`, should its own end so.
    pub(crate) fn above(mut self, suffix: &str) -> Self {
        if let Some(path) = self.path.strip_suffix(suffix) {
            self.path = path.to_owned();
        }
        self
    }

    /// The name under which it stands among peers: no peer can have it, since nobody has a key
    /// that hashes to it.
    pub(crate) fn id(&self) -> Option<PeerId> {
        let raw = Prefix {
            version: cid::Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        let named = Block::new(raw, format!("http source {self}").into()).ok()?;
        PeerId::from_bytes(&named.cid().hash().to_bytes()).ok()
    }
}

impl Host {
    fn named(name: &str) -> Option<Self> {
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(name).parse() {
            return Some(Self::Ip(ip));
        }
        // Means this machine everywhere; so `local` need resolve no name for it.
        if name.eq_ignore_ascii_case("localhost") {
            return Some(Self::Ip(Ipv4Addr::LOCALHOST.into()));
        }
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        (plain && fits).then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl FromStr for Endpoint {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        let read = if text.starts_with('/') {
            text.parse().ok().as_ref().and_then(Self::from_multiaddr)
        } else {
            Self::from_url(text)
        };
        read.ok_or_else(|| NoEndpoint(text.to_owned()))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = NoEndpoint;

    fn try_from(text: String) -> Result<Self, NoEndpoint> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(out, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(out, "[{ip}]"),
            Self::Ip(ip) => write!(out, "{ip}"),
            Self::Name(name) => out.write_str(name),
        }
    }
}

/// No host's name is longer.
const NAME_BYTES_MAX: usize = 253;
/// A path before `/ipfs/` that is longer is no gateway's.
const PATH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_multiaddrs_of_one_gateway_are_one() {
        for (url, address) in [
            ("http://127.0.0.1:8080", "/ip4/127.0.0.1/tcp/8080/http"),
            ("http://localhost:8080/", "/dns4/localhost/tcp/8080/http"),
            ("http://[::1]:8080", "/ip6/::1/tcp/8080/http"),
            ("https://gw.example", "/dns4/gw.example/tcp/443/tls/http"),
            ("https://gw.example:443", "/dns/gw.example/tcp/443/https"),
            (
                "https://gw.example:8443/a/b",
                "/dns6/GW.example/tcp/8443/tls/http/http-path/a%2Fb",
            ),
            (
                "http://192.0.2.1",
                "/ip4/192.0.2.1/tcp/80/http/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
            ),
        ] {
            let (from_url, from_address): (Endpoint, Endpoint) =
                (url.parse().unwrap(), address.parse().unwrap());
            assert_eq!(from_url, from_address);
            assert_eq!(from_url.id(), from_address.id());
            let again: Endpoint = from_url.to_string().parse().unwrap();
            assert_eq!(again, from_url);
        }
        let other: Endpoint = "http://127.0.0.1:8081".parse().unwrap();
        assert_ne!(
            other.id(),
            "http://127.0.0.1:8080".parse::<Endpoint>().unwrap().id()
        );
    }

    #[test]
    fn what_is_no_gateway_is_refused() {
        for text in [
            "",
            "/",
            "127.0.0.1:8080",
            "ftp://127.0.0.1",
            "http://user:word@127.0.0.1",
            "http://127.0.0.1/?format=raw",
            "http://127.0.0.1/a/../b",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/127.0.0.1/tcp/4001/ws",
            "/ip4/127.0.0.1/udp/4001/http",
            "/ip4/127.0.0.1/tcp/1/http/tcp/2/http",
            "/ip4/127.0.0.1/tcp/1/http/http-path/a%0D%0Ahost:%20b",
            "/unix/%2Ftmp%2Fx/http",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_names_the_block_below_the_path() {
        let endpoint: Endpoint = "https://gw.example/deep/".parse().unwrap();
        assert_eq!(endpoint.target("/ipfs/bafkqaaa"), "/deep/ipfs/bafkqaaa");
        let named: Endpoint = "https://gw.example/deep/routing/v1".parse().unwrap();
        assert_eq!(named.above("/routing/v1").target("/x"), "/deep/x");
        assert_eq!(endpoint.authority(), "gw.example");
    }
}
