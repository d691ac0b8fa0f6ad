//! What holders of a [`super::Routing`] may ask of the DHT's worker.
//!
//! Every command carries where its answer goes; an answer that never comes (the sender was dropped) means that the
//! node is stopping.

use super::{Provider, RoutingError};
use crate::provide::sweep::Reach;
use cairn_store::Cid;
use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// One request to the worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Look for providers.
    Find(Find),
    /// Become a provider. Answers how many were told.
    Provide(Ask<Cid, usize>),
    /// Look for a peer.
    Peer(Ask<PeerId, Provider>),
    /// Look for the peers nearest to a key.
    Nearest(Ask<Vec<u8>, Vec<Provider>>),
    /// Look for the values kept under a key.
    Values(Values),
    /// Have a value kept by those nearest to its key. Answers how many took it.
    Keep(Ask<Value, usize>),
    /// Tell one peer that this node provides what these keys name. Answers whether it was told.
    Tell(Ask<(Provider, Vec<Vec<u8>>), ()>),
    /// Look for all who keep records of keys of one region. Answers for each DHT.
    Region(Ask<Region, Vec<Vec<Provider>>>),
    /// Say whom there is to ask.
    Reach(oneshot::Sender<Reach>),
}

/// A lookup for providers.
#[derive(Debug)]
pub(crate) struct Find {
    /// What is looked for.
    pub(crate) cid: Cid,
    /// How many providers to find; the channel has room for so many and one error.
    pub(crate) limit: usize,
    /// Where they go.
    pub(crate) found: mpsc::Sender<Result<Provider, RoutingError>>,
    /// The right to have a lookup under way.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// A lookup for a region.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    /// Keys all over it.
    pub(crate) keys: Vec<Vec<u8>>,
    /// How many bits its places share.
    pub(crate) bits: u32,
}

/// A lookup for values.
#[derive(Debug)]
pub(crate) struct Values {
    /// Their key.
    pub(crate) key: Vec<u8>,
    /// Where they go: each is valid. One that finds no room is left out.
    pub(crate) found: mpsc::Sender<Result<Vec<u8>, RoutingError>>,
    /// The right to have a lookup under way.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// A value that is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// It holds: that was checked.
    pub(crate) value: Vec<u8>,
    /// Who brought it, if that was somebody else: what one brings has no more than a share of the room here.
    pub(crate) by: Option<PeerId>,
}

/// A question with one answer.
#[derive(Debug)]
pub(crate) struct Ask<Q, A> {
    /// About what.
    pub(crate) about: Q,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Result<A, RoutingError>>,
    /// The right to have a lookup under way.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// Commands that may wait for the worker; whoever asks more waits to ask.
pub(crate) const COMMANDS_MAX: usize = 256;
