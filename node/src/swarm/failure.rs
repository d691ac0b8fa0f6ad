//! From the library's layered errors to one line that says what happened.

use super::ConnectError;
use crate::node::StartError;
use libp2p::connection_limits::Exceeded;
use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, dns};
use std::error::Error;
use std::io;

pub(super) fn refused(address: &Multiaddr, error: &dyn Error) -> StartError {
    StartError::Listen {
        address: address.clone(),
        why: root_of(error),
    }
}

pub(super) fn failed(peer: PeerId, error: &DialError) -> ConnectError {
    let why = match error {
        DialError::NoAddresses => return ConnectError::NoAddress(peer),
        DialError::Transport(tried) => tried
            .iter()
            .map(|(address, error)| format!("{address}: {}", why(address, error)))
            .collect::<Vec<_>>()
            .join("; "),
        DialError::WrongPeerId { obtained, address } => {
            format!("{address} belongs to {obtained}")
        }
        DialError::LocalPeerId { .. } => "that is this node itself".to_owned(),
        DialError::Denied { cause } => match cause.downcast_ref() {
            Some(exceeded) => over(exceeded),
            None => root_of(cause),
        },
        other => root_of(other),
    };
    ConnectError::Dial { peer, why }
}

/// Why one address was not reached.
fn why(address: &Multiaddr, error: &TransportError<io::Error>) -> String {
    let unresolved = match error {
        TransportError::Other(error) => error
            .get_ref()
            .and_then(|error| error.downcast_ref::<dns::Error<io::Error>>()),
        TransportError::MultiaddrNotSupported(_) => {
            return "no transport of this node reaches such an address; it speaks TCP, WebSocket and QUIC".to_owned();
        }
    };
    match (unresolved, name_in(address)) {
        (Some(dns::Error::ResolveError(error)), Some(name)) => {
            let why = match root_of(error) {
                why if why == NO_SERVER => NO_SERVER_TOLD.to_owned(),
                why => why,
            };
            format!("the name {name} does not resolve: {why}")
        }
        (Some(dns::Error::TooManyLookups), Some(name)) => {
            format!("the name {name} leads to more names than are looked up")
        }
        _ => root_of(error),
    }
}

/// What is to be known of a network that an address with a name in it is outside of.
pub(super) fn of_names(address: &Multiaddr) -> &'static str {
    match name_in(address) {
        Some(_) => ", where no names are looked up",
        None => "",
    }
}

fn name_in(address: &Multiaddr) -> Option<String> {
    address.iter().find_map(|part| match part {
        Protocol::Dns(name)
        | Protocol::Dns4(name)
        | Protocol::Dns6(name)
        | Protocol::Dnsaddr(name) => Some(name.into_owned()),
        _ => None,
    })
}

/// Which number of connections is reached, and where it is set.
pub(super) fn over(exceeded: &Exceeded) -> String {
    format!("{exceeded}; `fetch.connections` says how many this node may have in all")
}

/// What lies at the bottom: the layers above it only say that something below them failed.
fn root_of(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// What the resolver says where no name server is reached, and what it means.
const NO_SERVER: &str = "no connections available";
const NO_SERVER_TOLD: &str = "no name server was reached; /etc/resolv.conf says which there are";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_resolve_is_named() {
        let peer = PeerId::random();
        assert!(of_names(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()).is_empty());
        for name in ["/dns4/nowhere.example/tcp/1", "/dnsaddr/nowhere.example"] {
            let address: Multiaddr = name.parse().unwrap();
            assert!(of_names(&address).contains("no names are looked up"));
            let refused = dns::ResolveError::from("no records found");
            let refused = dns::Error::<io::Error>::ResolveError(refused);
            let error = TransportError::Other(io::Error::other(refused));
            let told = failed(peer, &DialError::Transport(vec![(address.clone(), error)]));
            let named = "the name nowhere.example does not resolve: no records found";
            assert!(told.to_string().ends_with(named), "{told}");
        }
    }
}
