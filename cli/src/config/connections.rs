//! The `[connections]` and `[swarm]` sections: how many connections there are, and with whom.

use super::duration::Interval;
use cairn_node::swarm::Filter;
use cairn_node::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The `[connections]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// How many are left when some are closed; no more than `high`.
    pub low: u32,
    /// Above how many the least useful are closed.
    pub high: u32,
    /// How long a new peer is left alone.
    pub grace: Interval,
    /// Most from one address.
    pub per_address: NonZeroU32,
    /// Most dials that begin in a second.
    pub dials_per_second: NonZeroU32,
    /// Most dials under way.
    pub dials_at_once: NonZeroU32,
}

impl Default for Connections {
    fn default() -> Self {
        let node = cairn_node::Config::default();
        let count = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            low: node.connections_low,
            high: node.connections_high,
            grace: Interval(node.connection_grace),
            per_address: count(node.connections_per_address_max),
            dials_per_second: count(node.dials_per_second_max),
            dials_at_once: count(node.dials_at_once_max),
        }
    }
}

impl Connections {
    /// What the node's wiring needs to know of it.
    pub fn put_into(&self, config: &mut cairn_node::Config) {
        config.connections_low = self.low;
        config.connections_high = self.high;
        config.connection_grace = self.grace.0.min(GRACE_MAX);
        config.connections_per_address_max = self.per_address.get();
        config.dials_per_second_max = self.dials_per_second.get();
        config.dials_at_once_max = self.dials_at_once.get();
    }
}

/// The `[swarm]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Swarm {
    /// Whom to stay connected to.
    pub peering: Vec<PeerAddress>,
    /// Where nobody is dialled or taken from.
    pub filters: Vec<Filter>,
}

/// An address that ends in a peer's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress(pub Multiaddr);

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a peer; it looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…")]
pub struct PeerAddressError(String);

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;

    fn try_from(text: String) -> Result<Self, PeerAddressError> {
        let is_of_peer = text.rsplit_once("/p2p/").is_some_and(|(before, peer)| {
            before.starts_with('/') && peer.parse::<PeerId>().is_ok()
        });
        match text.parse() {
            Ok(address) if is_of_peer => Ok(Self(address)),
            _ => Err(PeerAddressError(text)),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.0.to_string()
    }
}

/// A year: longer than any connection, and far from where times end.
const GRACE_MAX: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const PEER: &str =
        "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";

    #[test]
    fn what_is_chosen_reaches_the_node() {
        let text = format!(
            "[connections]\nlow = 3\nhigh = 5\ngrace = \"1m\"\nper_address = 2\n\
             dials_per_second = 7\ndials_at_once = 9\n\
             [swarm]\npeering = [\"{PEER}\"]\nfilters = [\"10.0.0.0/8\"]\n"
        );
        let config = Config::parse(&text).unwrap().node(None);
        assert_eq!((config.connections_low, config.connections_high), (3, 5));
        assert_eq!(config.connection_grace.as_secs(), 60);
        assert_eq!(config.connections_per_address_max, 2);
        assert_eq!(
            (config.dials_per_second_max, config.dials_at_once_max),
            (7, 9)
        );
        assert_eq!(config.peering[0].to_string(), PEER);
        assert_eq!(config.filters[0].to_string(), "/ip4/10.0.0.0/ipcidr/8");
        let forever = Config::parse("[connections]\ngrace = \"9000000000h\"\n").unwrap();
        assert!(forever.node(None).connection_grace.as_secs() < 1 << 26);
    }

    #[test]
    fn what_a_start_would_refuse_is_refused_where_it_is_set() {
        let refused = |text: &str, key: &str, value: &str| {
            let set = crate::config::edit::set(text, key, value);
            let error = set.and_then(|(_, config)| config.replace(text, None));
            error.unwrap_err().to_string()
        };
        for address in ["/ip4/0.0.0.0/tcp/4001", "/ip4/192.168.1.7/tcp/0"] {
            let told = refused("", "addresses.swarm", &format!("[\"{address}\"]"));
            let named = format!("{address} is outside the network `local`");
            assert!(told.starts_with(&named), "{told}");
        }
        let lan = "network = \"lan\"\n[addresses]\nswarm = [\"/ip4/0.0.0.0/tcp/4001\"]\n";
        let told = refused(lan, "network", "local");
        assert!(told.contains("`addresses.swarm`"), "{told}");
        for (key, value) in [("connections.high", "63"), ("connections.low", "97")] {
            let told = refused("", key, value);
            assert!(told.starts_with("`connections.low` is "), "{told}");
            assert!(told.contains(value), "{told}");
        }
        assert!(crate::config::edit::set("", "connections.high", "64").is_ok());
        let told = refused("", "fetch.connections", "0");
        assert!(told.starts_with("fetch.connections: must be "), "{told}");
        // A file that somebody wrote by hand is read, for what needs no node.
        let config = Config::parse("[connections]\nlow = 97\n").unwrap();
        let told = config.check(None).unwrap_err();
        assert!(told.to_string().contains("is 97"), "{told}");
    }

    #[test]
    fn what_is_no_peer_or_no_range_is_named() {
        for (key, value) in [
            ("swarm.peering", "[\"/ip4/127.0.0.1/tcp/1\"]"),
            ("swarm.peering", "[\"/ip4/127.0.0.1/tcp/1/p2p/nobody\"]"),
            (
                "swarm.peering",
                "[\"/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5\"]",
            ),
            ("bootstrap", "[\"/ip4/127.0.0.1/tcp/1\"]"),
            ("swarm.filters", "[\"10.0.0.0\"]"),
            ("connections.per_address", "0"),
            ("connections.dials_per_second", "0"),
            ("connections.grace", "soon"),
        ] {
            let error = crate::config::edit::set("", key, value).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("{key}: must be ")),
                "{error}"
            );
        }
    }
}
