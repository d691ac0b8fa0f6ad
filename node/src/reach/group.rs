//! Whose address an IP address probably is: peers in one group count once.

use std::net::IpAddr;

/// A network that one owner may fill with peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Group {
    /// The first 16 bits.
    V4(u16),
    /// The first 32 bits.
    V6(u32),
}

impl Group {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4(u16::from_be_bytes([a, b]))
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6(u32::from_be_bytes([a, b, c, d]))
            }
        }
    }
}
