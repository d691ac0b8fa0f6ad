//! What our protocols with streams of their own share: how a stream is agreed on with a peer and
//! handed over as it is, which connection it is opened on, and why there is none.
//!
//! What a protocol does with its streams, and how many wait, is its own business: see
//! `bitswap/behaviour.rs` and `perf/behaviour.rs`.

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, Stream, StreamUpgradeError};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter::Cloned;
use std::slice::Iter;
use tokio::sync::oneshot;

/// Where an opened stream goes, and by which name it was agreed on.
pub(crate) type Opener<P> = oneshot::Sender<Result<(P, Stream), OpenError>>;

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("not connected")]
    NotConnected,
    #[error("the peer does not speak the protocol")]
    Unsupported,
    #[error("{0}")]
    Failed(String),
}

impl OpenError {
    /// More streams are asked for than may wait.
    pub(crate) fn busy() -> Self {
        Self::Failed("too many streams are being opened".to_owned())
    }
}

impl From<StreamUpgradeError<Infallible>> for OpenError {
    fn from(error: StreamUpgradeError<Infallible>) -> Self {
        match error {
            StreamUpgradeError::NegotiationFailed => Self::Unsupported,
            StreamUpgradeError::Timeout => Self::Failed("too slow".to_owned()),
            StreamUpgradeError::Io(error) => Self::Failed(error.to_string()),
            StreamUpgradeError::Apply(never) => match never {},
        }
    }
}

/// The connections on which streams may be opened, each peer's in the order in which they came. No
/// more than the swarm allows.
#[derive(Debug, Default)]
pub(crate) struct Connections(HashMap<PeerId, Vec<ConnectionId>>);

impl Connections {
    pub(crate) fn add(&mut self, peer: PeerId, connection: ConnectionId) {
        self.0.entry(peer).or_default().push(connection);
    }

    /// Whether it was one of them.
    pub(crate) fn remove(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let Some(all) = self.0.get_mut(&peer) else {
            return false;
        };
        let before = all.len();
        all.retain(|other| *other != connection);
        let is_less = all.len() < before;
        if all.is_empty() {
            self.0.remove(&peer);
        }
        is_less
    }

    /// Everybody's.
    pub(crate) fn all(&self) -> impl Iterator<Item = (PeerId, ConnectionId)> {
        let of_each = self.0.iter();
        of_each.flat_map(|(peer, all)| all.iter().map(|connection| (*peer, *connection)))
    }

    /// All of a peer's.
    pub(crate) fn to(&self, peer: PeerId) -> &[ConnectionId] {
        self.0.get(&peer).map_or(&[], Vec::as_slice)
    }
}

/// Whether this address leads over a relay. Such a connection is lent to us with a limit of bytes and
/// minutes, so it carries what makes a better one and nothing else: no blocks, no lookups, no
/// measuring. Of a dialled connection it is the address that was dialled, of one that came our own.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Agrees on one of these names and hands the stream over as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Negotiate<P: 'static>(pub(crate) &'static [P]);

impl<P: AsRef<str> + Clone> UpgradeInfo for Negotiate<P> {
    type Info = P;
    type InfoIter = Cloned<Iter<'static, P>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().cloned()
    }
}

impl<P: AsRef<str> + Clone> InboundUpgrade<Stream> for Negotiate<P> {
    type Output = (P, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: P) -> Self::Future {
        ready(Ok((name, stream)))
    }
}

impl<P: AsRef<str> + Clone> OutboundUpgrade<Stream> for Negotiate<P> {
    type Output = (P, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: P) -> Self::Future {
        ready(Ok((name, stream)))
    }
}
