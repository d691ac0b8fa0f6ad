//! Ranges of addresses that nobody is dialled at or taken from, whatever the network.

use crate::network;
use ipnet::IpNet;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One range, written like `/ip4/192.168.0.0/ipcidr/16`, which means what is `192.168.0.0/16` elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(IpNet);

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no range of addresses; write it like /ip4/192.168.0.0/ipcidr/16 or /ip6/fc00::/ipcidr/7"
)]
pub struct FilterError(String);

impl Filter {
    /// Whether an address lies within.
    pub fn covers(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }

    /// The same for what is dialled or calls; names lie in no range until they are resolved.
    pub(super) fn covers_address(&self, address: &Multiaddr) -> bool {
        network::host(address).is_some_and(|ip| self.covers(ip))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError(text.chars().take(TEXT_CHARS_MAX).collect());
        let range = match text.split('/').collect::<Vec<_>>().as_slice() {
            ["", kind @ ("ip4" | "ip6"), ip, "ipcidr", bits] => {
                let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
                if ip.is_ipv4() != (*kind == "ip4") {
                    return Err(wrong());
                }
                let bits = bits.parse().map_err(|_| wrong())?;
                IpNet::new(ip, bits).map_err(|_| wrong())?
            }
            [_, _] => text.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        Ok(Self(range.trunc()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.addr().is_ipv4() {
            "ip4"
        } else {
            "ip6"
        };
        write!(
            out,
            "/{kind}/{}/ipcidr/{}",
            self.0.addr(),
            self.0.prefix_len()
        )
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

/// How much of a wrong text is told.
const TEXT_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_in_both_ways_of_writing_and_told_in_one() {
        for (text, told) in [
            ("/ip4/192.168.0.0/ipcidr/16", "/ip4/192.168.0.0/ipcidr/16"),
            ("/ip4/192.168.7.9/ipcidr/16", "/ip4/192.168.0.0/ipcidr/16"),
            ("192.168.0.0/16", "/ip4/192.168.0.0/ipcidr/16"),
            ("/ip6/fc00::/ipcidr/7", "/ip6/fc00::/ipcidr/7"),
            ("2001:db8::/32", "/ip6/2001:db8::/ipcidr/32"),
            ("0.0.0.0/0", "/ip4/0.0.0.0/ipcidr/0"),
        ] {
            let filter: Filter = text.parse().unwrap();
            assert_eq!(filter.to_string(), told);
            assert_eq!(told.parse(), Ok(filter));
        }
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/33",
            "/ip4/10.0.0.0/tcp/1",
            "/ip4/10.0.0.0/ipcidr/33",
            "/ip6/10.0.0.0/ipcidr/8",
            "/ip4/fc00::/ipcidr/7",
            "/ip4/10.0.0.0/ipcidr/8/tcp/1",
            "/dns4/example.org/ipcidr/8",
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains("/ipcidr/16"), "{error}");
        }
    }

    #[test]
    fn an_address_inside_ipv6_is_what_it_stands_for() {
        let filter: Filter = "10.0.0.0/8".parse().unwrap();
        for (address, is) in [
            ("/ip4/10.1.2.3/tcp/1", true),
            ("/ip6/::ffff:10.1.2.3/udp/1/quic-v1", true),
            ("/ip4/11.1.2.3/tcp/1", false),
            ("/dns4/example.org/tcp/1", false),
        ] {
            assert_eq!(
                filter.covers_address(&address.parse().unwrap()),
                is,
                "{address}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text: String, bits: String) {
            let _ = text.parse::<Filter>();
            let _ = format!("/ip4/{text}/ipcidr/{bits}").parse::<Filter>();
        }
    }
}
