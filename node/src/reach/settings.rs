//! How this node may make itself reachable: the `[reach]` section.

use crate::limits::Subnet;
use crate::negotiation::is_relayed;
use crate::network::{self, Network};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The `[reach]` section of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether relays may lend us a way while nobody can reach us. They see who connects to us.
    pub relay_client: bool,
    /// Whether we lend others one while we can be reached. Up to 128 KiB and two minutes each.
    pub relay_server: bool,
    /// Whether a relayed connection is turned into a direct one. The other end learns our address.
    pub hole_punching: bool,
    /// Whether the router is asked to hand our ports on. `None`: in `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upnp: Option<bool>,
    /// Whether peers nearby are found by multicast. `None`: in `lan` and `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mdns: Option<bool>,
    /// Relays that are asked before all others, each with `/p2p/<peer id>`.
    pub relays: Vec<Multiaddr>,
    /// What peers are told instead of what we find out.
    pub announce: Vec<Multiaddr>,
    /// What peers are not told.
    pub no_announce: Vec<AddressRule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            relay_client: true,
            relay_server: true,
            hole_punching: true,
            upnp: None,
            mdns: None,
            relays: Vec::new(),
            announce: Vec::new(),
            no_announce: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether relays are used: theirs are addresses that lead on, which only `public` allows.
    pub(crate) fn uses_relays(&self, network: Network) -> bool {
        self.relay_client && network == Network::Public
    }

    pub(crate) fn is_relay(&self, network: Network) -> bool {
        self.relay_server && network == Network::Public
    }

    pub(crate) fn punches(&self, network: Network) -> bool {
        self.hole_punching && self.uses_relays(network)
    }

    /// Whether the router is asked for ports.
    ///
    /// A port that it hands on is open to everybody, which in `lan` has to be asked for.
    pub fn maps_ports(&self, network: Network) -> bool {
        match network {
            Network::Local => false,
            Network::Lan => self.upnp.unwrap_or(false),
            Network::Public => self.upnp.unwrap_or(true),
        }
    }

    /// Whether multicast leaves this machine.
    pub fn finds_neighbours(&self, network: Network) -> bool {
        network != Network::Local && self.mdns.unwrap_or(true)
    }
}

/// Addresses: those of a network, or one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AddressRule {
    /// Every address in it.
    Network(Subnet),
    /// This one and what begins with it.
    Address(Multiaddr),
}

/// The text is neither a network nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a network like \"10.0.0.0/8\" nor an address like \"/ip4/192.0.2.1/tcp/4001\""
)]
pub struct AddressRuleError(String);

impl AddressRule {
    /// Whether it speaks of this address.
    pub fn matches(&self, address: &Multiaddr) -> bool {
        match self {
            // A relay's host says nothing about where we are.
            Self::Network(subnet) => {
                !is_relayed(address) && network::host(address).is_some_and(|ip| subnet.contains(ip))
            }
            Self::Address(start) => address.starts_with(start),
        }
    }
}

impl FromStr for AddressRule {
    type Err = AddressRuleError;

    fn from_str(text: &str) -> Result<Self, AddressRuleError> {
        let parsed = if text.starts_with('/') {
            text.parse().ok().map(Self::Address)
        } else {
            text.parse().ok().map(Self::Network)
        };
        parsed.ok_or_else(|| AddressRuleError(text.to_owned()))
    }
}

impl TryFrom<String> for AddressRule {
    type Error = AddressRuleError;

    fn try_from(text: String) -> Result<Self, AddressRuleError> {
        text.parse()
    }
}

impl From<AddressRule> for String {
    fn from(rule: AddressRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(subnet) => subnet.fmt(out),
            Self::Address(address) => address.fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_machine_in_local_and_routers_are_left_alone_in_lan() {
        let settings = Settings {
            upnp: Some(true),
            mdns: Some(true),
            ..Settings::default()
        };
        assert!(!settings.maps_ports(Network::Local));
        assert!(!settings.finds_neighbours(Network::Local));
        assert!(!Settings::default().maps_ports(Network::Lan));
        assert!(Settings::default().finds_neighbours(Network::Lan));
        for network in [Network::Local, Network::Lan] {
            assert!(!settings.uses_relays(network) && !settings.is_relay(network));
        }
    }

    #[test]
    fn a_rule_is_a_network_or_the_beginning_of_an_address() {
        let matches = |rule: &str, address: &str| {
            let rule: AddressRule = rule.parse().unwrap();
            assert_eq!(rule.to_string().parse(), Ok(rule.clone()));
            rule.matches(&address.parse().unwrap())
        };
        assert!(matches("10.0.0.0/8", "/ip4/10.1.2.3/tcp/1"));
        assert!(!matches("10.0.0.0/8", "/ip4/11.1.2.3/tcp/1"));
        assert!(!matches("10.0.0.0/8", "/dns4/example.com/tcp/1"));
        assert!(matches("/ip4/10.1.2.3", "/ip4/10.1.2.3/tcp/1"));
        assert!(!matches("/ip4/10.1.2.3/tcp/2", "/ip4/10.1.2.3/tcp/1"));
        for wrong in ["", "10.0.0.0/40", "/ip4/nowhere", "example.com"] {
            assert!(wrong.parse::<AddressRule>().is_err(), "{wrong}");
        }
    }
}
