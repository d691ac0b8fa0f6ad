//! Addresses that HTTP listens on, written as multiaddrs: `/ip4/127.0.0.1/tcp/5001`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address to listen on or to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAddress(pub SocketAddr);

/// An address, or nothing, written as an empty text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalAddress(pub Option<ListenAddress>);

/// Why a text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an address to listen on; write it like /ip4/127.0.0.1/tcp/5001 or /ip6/::1/tcp/5001"
)]
pub struct AddressError(String);

impl ListenAddress {
    /// A port of this machine that only this machine reaches.
    pub const fn loopback(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        if let Ok(plain) = text.parse() {
            return Ok(Self(plain));
        }
        let mut parts = text.strip_prefix('/').ok_or_else(wrong)?.split('/');
        let (family, host) = (parts.next(), parts.next().ok_or_else(wrong)?);
        let host = match family {
            Some("ip4") => IpAddr::V4(host.parse().map_err(|_| wrong())?),
            Some("ip6") => IpAddr::V6(host.parse().map_err(|_| wrong())?),
            Some("dns" | "dns4") if host == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => return Err(wrong()),
        };
        if parts.next() != Some("tcp") {
            return Err(wrong());
        }
        let port = parts.next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(wrong)?;
        match (parts.next(), parts.next()) {
            (None | Some("" | "http"), None) => Ok(Self(SocketAddr::new(host, port))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            IpAddr::V4(host) => write!(out, "/ip4/{host}/tcp/{}", self.0.port()),
            IpAddr::V6(host) => write!(out, "/ip6/{host}/tcp/{}", self.0.port()),
        }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for OptionalAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address)))
    }
}

impl From<OptionalAddress> for String {
    fn from(address: OptionalAddress) -> Self {
        address.0.map(Self::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["/ip4/127.0.0.1/tcp/5001", "/ip6/::1/tcp/0"] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let plain: ListenAddress = "127.0.0.1:9".parse().unwrap();
        assert_eq!(plain.to_string(), "/ip4/127.0.0.1/tcp/9");
    }

    #[test]
    fn refuses_what_cannot_be_listened_on() {
        for text in [
            "",
            "/",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/1",
            "/ip4/1.2.3/tcp/1",
            "/ip4/127.0.0.1/tcp/99999",
            "/dns4/example.org/tcp/1",
            "/ip4/127.0.0.1/tcp/1/ws",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
