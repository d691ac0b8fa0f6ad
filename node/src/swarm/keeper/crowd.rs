//! How many arrivals there are from one address: an IPv4 address, or the /56 that a household has of IPv6.
//!
//! Whoever has one machine has one address, and as many names as it likes.

use libp2p::swarm::ConnectionId;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The arrivals that are up or coming up.
#[derive(Debug)]
pub(super) struct Crowd {
    most: u32,
    origins: HashMap<ConnectionId, IpAddr>,
    counts: HashMap<IpAddr, u32>,
}

/// Why an arrival is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{origin} has {most} connections here already, which is as many as `connections.per_address` allows one address"
)]
pub(super) struct Crowded {
    origin: IpAddr,
    most: u32,
}

impl Crowd {
    /// Lets in `most` from each address.
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            origins: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// Counts an arrival, if there is room for it.
    pub(super) fn admit(&mut self, id: ConnectionId, ip: IpAddr) -> Result<(), Crowded> {
        let (origin, most) = (origin(ip), self.most);
        let count = self.counts.get(&origin).copied().unwrap_or(0);
        if count >= most {
            return Err(Crowded { origin, most });
        }
        self.counts.insert(origin, count + 1);
        self.origins.insert(id, origin);
        Ok(())
    }

    /// A connection is gone, or came to nothing. Those that were not counted change nothing.
    pub(super) fn gone(&mut self, id: ConnectionId) {
        let Some(origin) = self.origins.remove(&id) else {
            return;
        };
        match self.counts.get_mut(&origin) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(&origin)),
        }
    }
}

/// What one party has: an address, or of IPv6 what providers give one customer.
pub(super) fn origin(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & PREFIX_56)),
    }
}

/// The first 56 bits.
const PREFIX_56: u128 = !(u128::MAX >> 56);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn an_address_has_so_many_and_gets_room_when_one_goes() {
        let mut crowd = Crowd::new(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        assert!(crowd.admit(id(1), one).is_ok() && crowd.admit(id(2), one).is_ok());
        let told = crowd.admit(id(3), one).unwrap_err().to_string();
        assert!(told.starts_with("192.0.2.1 has 2 connections"), "{told}");
        assert!(crowd.admit(id(4), other).is_ok(), "others have their own");
        crowd.gone(id(3));
        assert!(crowd.admit(id(5), one).is_err(), "it was not counted");
        crowd.gone(id(1));
        crowd.gone(id(1));
        assert!(crowd.admit(id(6), one).is_ok());
        assert!(crowd.admit(id(7), one).is_err());
    }

    #[test]
    fn a_household_of_ipv6_is_one_address() {
        let mut crowd = Crowd::new(1);
        let ips = [
            "2001:db8:0:100::1",
            "2001:db8:0:1ff::2",
            "2001:db8:0:200::1",
        ];
        let [one, same, other] = ips.map(|ip| ip.parse().unwrap());
        assert!(crowd.admit(id(1), one).is_ok());
        assert!(crowd.admit(id(2), same).is_err());
        assert!(crowd.admit(id(3), other).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_is_left_of_connections_that_are_gone(ips: Vec<u32>, most in 0..4_u32) {
            let mut crowd = Crowd::new(most);
            for (at, ip) in ips.iter().enumerate() {
                let _ = crowd.admit(id(at), IpAddr::V4((ip & 3).into()));
                prop_assert!(crowd.counts.values().all(|count| *count <= most));
            }
            for at in 0..ips.len() {
                crowd.gone(id(at));
            }
            prop_assert!(crowd.counts.is_empty() && crowd.origins.is_empty());
        }
    }
}
