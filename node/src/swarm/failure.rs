//! From the library's layered errors to one line that says what happened.

use super::ConnectError;
use crate::node::StartError;
use libp2p::connection_limits::Exceeded;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId};
use std::error::Error;

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
            .map(|(address, error)| format!("{address}: {}", root_of(error)))
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
