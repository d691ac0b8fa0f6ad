//! How much this node may send and receive, to whom that does not apply, and how much memory it may have:
//! the `[limits]` section.

mod memory;

use cairn_store::config::ByteSize;
use ipnet::IpNet;
pub use memory::{Memory, MemoryError};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::str::FromStr;

/// The `[limits]` section of `config.toml`. May be changed while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// What goes to all peers together.
    pub upload: Rate,
    /// What comes from all peers together. Slower than others can send, it makes them wait.
    pub download: Rate,
    /// What goes to one peer.
    pub upload_per_peer: Rate,
    /// What comes from one peer.
    pub download_per_peer: Rate,
    /// Networks whose peers are neither held back nor counted.
    pub exempt: Vec<Subnet>,
    /// Memory of this process above which no connection to a peer is made or taken.
    pub memory: Memory,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload: Rate::UNLIMITED,
            download: Rate::UNLIMITED,
            upload_per_peer: Rate::UNLIMITED,
            download_per_peer: Rate::UNLIMITED,
            exempt: near(),
            memory: Memory::UNLIMITED,
        }
    }
}

impl Limits {
    /// Whether a peer at this address is held back. Where a peer is not known, it is.
    pub fn apply_to(&self, remote: Option<IpAddr>) -> bool {
        !remote.is_some_and(|ip| self.exempt.iter().any(|subnet| subnet.contains(ip)))
    }
}

/// Bytes a second, or as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Rate(Option<NonZeroU64>);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// So many bytes a second. Not 0: who writes that means nothing at all, or no limit at all.
    pub fn new(bytes_a_second: u64) -> Result<Self, RateError> {
        match NonZeroU64::new(bytes_a_second) {
            Some(rate) if rate.get() >= RATE_MIN => Ok(Self(Some(rate))),
            _ => Err(RateError(bytes_a_second.to_string())),
        }
    }

    /// The bytes a second, if there is a limit.
    pub const fn bytes_a_second(self) -> Option<NonZeroU64> {
        self.0
    }
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rate; write bytes a second like 5MB, at least 1KB, or \"unlimited\" for no limit"
)]
pub struct RateError(String);

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => out.write_str(UNLIMITED),
            Some(rate) => ByteSize(rate.get()).fmt(out),
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text.trim() == UNLIMITED {
            return Ok(Self::UNLIMITED);
        }
        let size: ByteSize = text.parse().map_err(|_| RateError(text.to_owned()))?;
        Self::new(size.0)
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(deserializer, Self::new)
    }
}

/// A limit written as a plain number or in words.
fn number_or_text<'de, D, T>(
    deserializer: D,
    from_number: impl FnOnce(u64) -> Result<T, T::Err>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => from_number(number),
        Written::Text(text) => text.parse(),
    }
    .map_err(serde::de::Error::custom)
}

/// A range of addresses, such as `10.0.0.0/8`; an address alone is one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(IpNet);

/// The networks of this machine and of its neighbours.
pub fn near() -> Vec<Subnet> {
    NEAR.into_iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write it like 10.0.0.0/8, fc00::/7 or 192.0.2.1")]
pub struct SubnetError(String);

impl Subnet {
    /// Whether this host is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let text = text.trim();
        let subnet = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        subnet.map(Self).map_err(|_| SubnetError(text.to_owned()))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.0.to_string()
    }
}

/// The word for no limit.
const UNLIMITED: &str = "unlimited";
/// Bytes a second below which a limit is a slip of the pen: a single block would take half an hour.
const RATE_MIN: u64 = 1000;
/// This machine, and what is numbered privately: what is sent there takes nothing of the way out.
const NEAR: [&str; 9] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "fe80::/10",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_as_written_and_slips_are_refused() {
        for (text, means) in [
            ("unlimited", None),
            ("1KB", Some(1000)),
            ("5MB", Some(5_000_000)),
            ("2MiB", Some(2 << 20)),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.bytes_a_second().map(NonZeroU64::get), means, "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        for text in ["", "fast", "-1", "0", "0MB", "1.5MB", "999", "5", "1MB/s"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.to_string().contains("\"unlimited\""), "{error}");
        }
    }

    #[test]
    fn near_peers_are_exempt_and_others_and_unknown_ones_are_not() {
        let limits = Limits::default();
        assert_eq!(limits.exempt.len(), NEAR.len());
        for near in ["127.0.0.1", "::1", "10.9.8.7", "172.31.1.1", "192.168.0.9"]
            .into_iter()
            .chain(["169.254.1.1", "100.127.0.1", "fd12::1", "fe80::1"])
        {
            assert!(!limits.apply_to(near.parse().ok()), "{near}");
        }
        for far in ["192.0.2.1", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(limits.apply_to(far.parse().ok()), "{far}");
        }
        assert!(limits.apply_to(None));
    }

    #[test]
    fn a_network_may_be_one_address() {
        let one: Subnet = "192.0.2.1".parse().unwrap();
        assert_eq!(String::from(one), "192.0.2.1/32");
        for text in ["", "10.0.0.0/33", "example.org", "10/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
