//! Local, lan, public: what may be dialled, listened on and announced.
//!
//! The rules are pure questions about one address. They are asked in the transport, where sockets
//! are made, so no protocol can go round them (`swarm/fence.rs`), and once more wherever addresses
//! that others told us would be kept or handed on.
//!
//! An address whose shape is not known here is outside every network but `public`.

use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{StreamProtocol, multiaddr};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How far this node reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// This machine only: loopback.
    #[default]
    Local,
    /// Private addresses too.
    Lan,
    /// Everything.
    Public,
}

/// One of the DHTs that IPFS speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Realm {
    /// The whole network's.
    Wan,
    /// That of those nearby.
    Lan,
}

impl Realm {
    /// Its protocol.
    pub const fn protocol(self) -> StreamProtocol {
        match self {
            Self::Wan => StreamProtocol::new("/ipfs/kad/1.0.0"),
            Self::Lan => StreamProtocol::new("/ipfs/lan/kad/1.0.0"),
        }
    }
}

/// The word is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {0:?}; known are local, lan, public")]
pub struct UnknownNetwork(String);

impl Network {
    /// Every network, from the narrowest to the widest.
    pub const ALL: [Self; 3] = [Self::Local, Self::Lan, Self::Public];

    /// The word for it in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Lan => "lan",
            Self::Public => "public",
        }
    }

    /// Whether a peer at this address may be dialled, or may dial us from it.
    pub fn allows(self, address: &Multiaddr) -> bool {
        if self == Self::Public {
            return has_its_host_in_front(address);
        }
        host(address).is_some_and(|ip| self.contains(ip)) && is_direct(address)
    }

    /// Whether a socket may be bound to this address. `0.0.0.0` and `::` reach every interface:
    /// too far for `local`; in `lan` the door is open but strangers are turned away at it.
    pub fn may_listen(self, address: &Multiaddr) -> bool {
        match (self, host(address)) {
            (Self::Lan, Some(ip)) if ip.is_unspecified() => is_direct(address),
            _ => self.allows(address),
        }
    }

    /// Whether others may be told that we listen here. In `public` that is for addresses which
    /// mean the same to everybody.
    pub fn announces(self, address: &Multiaddr) -> bool {
        match self {
            Self::Local | Self::Lan => self.allows(address),
            Self::Public => {
                let is_near = |ip| is_loopback(ip) || is_private(ip);
                let is_global = |ip| {
                    let carried = carried(ip).map(IpAddr::V4);
                    !is_near(ip) && !carried.is_some_and(|ip| is_near(ip) || ip.is_unspecified())
                };
                has_its_host_in_front(address) && host(address).is_none_or(is_global)
            }
        }
    }

    /// Whether an address leads anywhere: one of a link alone does only together with the link, which the other end
    /// calls by another name.
    pub fn leads_somewhere(address: &Multiaddr) -> bool {
        !matches!(address.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local())
    }

    /// The DHTs that this node takes part in. Networks that are not the whole one have only one of their own.
    pub const fn realms(self) -> &'static [Realm] {
        match self {
            Self::Local | Self::Lan => &[Realm::Lan],
            Self::Public => &[Realm::Wan, Realm::Lan],
        }
    }

    /// Whether an address means something to all who are in a DHT.
    pub fn fits(self, realm: Realm, address: &Multiaddr) -> bool {
        match (self, realm) {
            (Self::Public, Realm::Lan) => {
                host(address).is_some_and(is_private) && is_direct(address)
            }
            _ => self.announces(address),
        }
    }

    fn contains(self, ip: IpAddr) -> bool {
        match self {
            Self::Local => is_loopback(ip),
            Self::Lan => is_loopback(ip) || is_private(ip),
            Self::Public => true,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(word: &str) -> Result<Self, UnknownNetwork> {
        Self::ALL
            .into_iter()
            .find(|network| network.name() == word)
            .ok_or_else(|| UnknownNetwork(word.to_owned()))
    }
}

/// The literal IP address in front, with IPv4 inside IPv6 taken out.
pub(crate) fn host(address: &Multiaddr) -> Option<IpAddr> {
    let mut parts = address.iter();
    let mut first = parts.next()?;
    if matches!(first, Protocol::Ip6zone(_)) {
        first = parts.next()?;
    }
    match first {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
        _ => None,
    }
}

/// Whether no host comes after the one in front: the transports read an address from its end, so another would be
/// dialled than the one that was looked at.
fn has_its_host_in_front(address: &Multiaddr) -> bool {
    use multiaddr::Protocol as P;
    let is_host = |part: &P<'_>| {
        matches!(
            part,
            P::Ip4(_)
                | P::Ip6(_)
                | P::Ip6zone(_)
                | P::Dns(_)
                | P::Dns4(_)
                | P::Dns6(_)
                | P::Dnsaddr(_)
        )
    };
    let mut parts = address.iter().peekable();
    if parts
        .next_if(|part| matches!(part, P::Ip6zone(_)))
        .is_some()
    {
        return matches!(parts.next(), Some(P::Ip6(_))) && !parts.any(|part| is_host(&part));
    }
    parts.next();
    !parts.any(|part| is_host(&part))
}

/// Whether an address is of this machine or of a private network.
pub(crate) fn is_near(address: &Multiaddr) -> bool {
    host(address).is_some_and(|ip| is_loopback(ip) || is_private(ip))
}

/// Whether nothing after the host leads on to another one: no relay, no name, no second host.
fn is_direct(address: &Multiaddr) -> bool {
    use multiaddr::Protocol as P;
    address.iter().skip(1).all(|part| {
        matches!(
            part,
            P::Tcp(_)
                | P::Udp(_)
                | P::QuicV1
                | P::Ws(_)
                | P::P2p(_)
                | P::Certhash(_)
                | P::Tls
                | P::Http
                | P::Https
                | P::HttpPath(_)
                // The host itself, where a zone came before it.
                | P::Ip6(_)
        )
    }) && address
        .iter()
        .filter(|part| matches!(part, P::Ip4(_) | P::Ip6(_)))
        .count()
        == 1
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback()
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    // 100.64.0.0/10 is what carriers and overlay networks number their insides with.
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    ip.is_private() || ip.is_link_local() || shared
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_unique_local() || ip.is_unicast_link_local()
}

/// The IPv4 address that a translator on the way would make of it: 64:ff9b::/96 (RFC 6052), 2002::/16 (RFC 3056), and
/// ::/96, which is no longer used (RFC 4291).
fn carried(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let (high, low) = match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        [0, 0, 0, 0, 0, 0, high, low] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    const LOOPBACK: [&str; 5] = [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/127.9.9.9/udp/4001/quic-v1",
        "/ip6/::1/tcp/4001/ws",
        "/ip6/::ffff:127.0.0.1/tcp/4001",
        "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    ];
    const PRIVATE: [&str; 7] = [
        "/ip4/10.1.2.3/tcp/4001",
        "/ip4/172.31.0.1/tcp/4001",
        "/ip4/192.168.1.1/udp/1/quic-v1",
        "/ip4/169.254.1.1/tcp/1",
        "/ip4/100.64.0.1/tcp/1",
        "/ip6/fd00::1/tcp/1",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
    ];
    const ELSEWHERE: [&str; 9] = [
        "/ip4/192.0.2.1/tcp/4001",
        "/ip4/172.32.0.1/tcp/4001",
        "/ip6/2001:db8::1/tcp/4001",
        "/dns4/localhost/tcp/4001",
        "/dns/localhost/tcp/4001",
        "/dnsaddr/example.com",
        "/unix/%2Ftmp%2Fsocket",
        "/memory/1",
        "/ip4/0.0.0.0/tcp/4001",
    ];

    #[test]
    fn each_network_holds_what_the_narrower_one_holds() {
        for text in LOOPBACK {
            for network in Network::ALL {
                assert!(network.allows(&address(text)), "{network} {text}");
            }
        }
        for text in PRIVATE {
            assert!(!Network::Local.allows(&address(text)), "{text}");
            assert!(Network::Lan.allows(&address(text)), "{text}");
            assert!(Network::Public.allows(&address(text)), "{text}");
        }
        for text in ELSEWHERE {
            assert!(!Network::Local.allows(&address(text)), "{text}");
            assert!(!Network::Lan.allows(&address(text)), "{text}");
            assert!(Network::Public.allows(&address(text)), "{text}");
        }
    }

    #[test]
    fn an_address_that_leads_on_from_a_near_host_is_not_near() {
        let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        for text in [
            format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}/p2p-circuit"),
            format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"),
            "/ip4/127.0.0.1/tcp/1/dns4/example.com/tcp/2".to_owned(),
            "/ip4/127.0.0.1/tcp/1/ip4/192.0.2.1/tcp/2".to_owned(),
            "/ip4/127.0.0.1/tcp/1/ip6/::1/tcp/2".to_owned(),
        ] {
            assert!(!Network::Local.allows(&address(&text)), "{text}");
            assert!(!Network::Lan.allows(&address(&text)), "{text}");
        }
    }

    #[test]
    fn listening_on_every_interface_is_for_lan_and_public() {
        for text in ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/4001/quic-v1"] {
            assert!(!Network::Local.may_listen(&address(text)), "{text}");
            assert!(Network::Lan.may_listen(&address(text)), "{text}");
            assert!(Network::Public.may_listen(&address(text)), "{text}");
        }
    }

    #[test]
    fn public_announces_only_what_means_the_same_to_everybody() {
        assert!(!Network::Public.announces(&address(LOOPBACK[0])));
        assert!(!Network::Public.announces(&address(PRIVATE[0])));
        assert!(Network::Public.announces(&address("/ip4/192.0.2.1/tcp/4001")));
        assert!(Network::Local.announces(&address(LOOPBACK[0])));
        // Where a translator would lead to what is private there.
        for ip in [
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::0.0.0.0",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "::10.0.0.1",
            "::127.0.0.1",
        ] {
            let address = address(&format!("/ip6/{ip}/tcp/80"));
            assert!(!Network::Public.announces(&address), "{ip}");
            assert!(!Network::Local.allows(&address), "{ip}");
            assert!(!Network::Lan.allows(&address), "{ip}");
        }
        for ip in ["64:ff9b::192.0.2.1", "2002:c000:201::1"] {
            let address = address(&format!("/ip6/{ip}/tcp/80"));
            assert!(Network::Public.announces(&address), "{ip}");
        }
    }

    #[test]
    fn no_second_host_hides_behind_the_first() {
        for text in [
            "/ip4/192.0.2.1/tcp/1/ip4/127.0.0.1/tcp/5001",
            "/ip4/192.0.2.1/tcp/80/dns4/inside.example/tcp/80",
            "/dns4/example.com/tcp/1/ip4/10.0.0.1/tcp/80",
            "/tcp/80/ip4/127.0.0.1/tcp/5001",
            "/ip6zone/eth0/ip6/fe80::1/tcp/1/ip6/::1/tcp/1",
        ] {
            let address = address(text);
            assert!(!Network::Public.allows(&address), "{text}");
            assert!(!Network::Public.announces(&address), "{text}");
            assert!(!Network::Public.fits(Realm::Wan, &address), "{text}");
        }
        let relay = "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit";
        assert!(Network::Public.allows(&address(relay)));
        let behind = format!("{relay}/ip4/127.0.0.1/tcp/1");
        assert!(!Network::Public.allows(&address(&behind)));
    }

    #[test]
    fn each_dht_is_told_only_of_addresses_that_all_in_it_can_use() {
        let global = address("/ip4/192.0.2.1/tcp/4001");
        for text in PRIVATE {
            assert!(!Network::Public.fits(Realm::Wan, &address(text)), "{text}");
            assert!(Network::Public.fits(Realm::Lan, &address(text)), "{text}");
        }
        assert!(Network::Public.fits(Realm::Wan, &global));
        assert!(!Network::Public.fits(Realm::Lan, &global));
        assert!(!Network::Public.fits(Realm::Lan, &address(LOOPBACK[0])));
        assert!(Network::Local.fits(Realm::Lan, &address(LOOPBACK[0])));
        assert!(!Network::Local.fits(Realm::Lan, &address(PRIVATE[0])));
    }

    #[test]
    fn an_address_of_a_link_leads_nowhere_without_the_link() {
        assert!(!Network::leads_somewhere(&address("/ip6/fe80::1/tcp/1")));
        for text in [LOOPBACK[2], PRIVATE[3], PRIVATE[5], PRIVATE[6]] {
            assert!(Network::leads_somewhere(&address(text)), "{text}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for network in Network::ALL {
            assert_eq!(network.to_string().parse(), Ok(network));
        }
        assert!("Public".parse::<Network>().is_err());
    }

    proptest! {
        #[test]
        fn local_is_exactly_loopback(ip: u32, port: u16) {
            let ip = Ipv4Addr::from(ip);
            let address = address(&format!("/ip4/{ip}/tcp/{port}"));
            prop_assert_eq!(Network::Local.allows(&address), ip.is_loopback());
        }

        #[test]
        fn whatever_a_network_allows_the_wider_one_allows(ip: u128, v4: bool, port: u16) {
            let ip = if v4 {
                IpAddr::V4(Ipv4Addr::from(u32::try_from(ip >> 96).unwrap()))
            } else {
                IpAddr::V6(Ipv6Addr::from(ip))
            };
            let mut address = Multiaddr::from(ip);
            address.push(Protocol::Tcp(port));
            let allowed = Network::ALL.map(|network| network.allows(&address));
            prop_assert!(allowed.is_sorted(), "{address} {allowed:?}");
            let listens = Network::ALL.map(|network| network.may_listen(&address));
            prop_assert!(listens.is_sorted(), "{address} {listens:?}");
        }

        #[test]
        fn no_bytes_make_the_rules_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(address) = Multiaddr::try_from(bytes) {
                for network in Network::ALL {
                    network.allows(&address);
                    network.may_listen(&address);
                    network.announces(&address);
                }
            }
        }
    }
}
