//! What happens while a block is looked for, told as it happens.
//!
//! Whoever wants to know passes a [`Teller`] along with a fetch and reads [`Told`]s from its
//! [`Listener`]. Wants that nobody watches cost one branch where something happens to them. Nothing
//! ever waits for a listener: what does not fit is dropped and counted.

use libp2p::{Multiaddr, PeerId};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Peers are going to be asked.
    Begun {
        /// Connected peers that speak Bitswap.
        connected: usize,
    },
    /// Others here wait for it already: what was asked for them counts for this too, unless it was
    /// answered a while ago.
    Shared {
        /// How many.
        others: usize,
    },
    /// A peer is asked.
    Asked {
        /// Who.
        peer: PeerId,
        /// For what.
        what: Ask,
    },
    /// A peer said whether it has it.
    Said {
        /// Who.
        peer: PeerId,
        /// Whether it does.
        has: bool,
    },
    /// A search for providers began.
    Searching,
    /// A search found somebody who says to have it, or more of the same work.
    Found {
        /// Who.
        peer: PeerId,
        /// Where it may be reached.
        addresses: Vec<Multiaddr>,
        /// Whether we are connected to it.
        connected: bool,
    },
    /// A dial to a provider is over.
    Dialled {
        /// Whom.
        peer: PeerId,
        /// Why it failed.
        outcome: Result<(), Arc<str>>,
    },
    /// The block came. Its bytes have its hash, or it would not be known to be this one.
    Received {
        /// From whom.
        peer: PeerId,
        /// Its bytes.
        bytes: u64,
        /// Since that peer was asked for it; `None` if it sent more than was asked.
        took: Option<Duration>,
    },
    /// A peer that was asked for it sent something that nobody asked for, as bytes of another hash.
    Wrong {
        /// Who.
        peer: PeerId,
    },
    /// A peer that was asked for it sends nothing; others are asked.
    Silent {
        /// Who.
        peer: PeerId,
    },
    /// A gateway that was asked for it did not give it.
    Failed {
        /// Who.
        peer: PeerId,
    },
    /// A gateway that was asked for it cannot be reached.
    Unreached {
        /// Who.
        peer: PeerId,
        /// Why the last attempt to connect failed.
        why: Arc<str>,
    },
    /// What a trustless gateway was asked over HTTP, or did. Among peers it has a made-up name.
    Gateway {
        /// Its address.
        url: String,
        /// What happened.
        step: Box<Step>,
    },
    /// A gateway that a provider named is not asked.
    LeftOut {
        /// Its address.
        url: String,
        /// Why.
        why: LeftOut,
    },
    /// A peer that was asked for it has gone.
    Gone {
        /// Who.
        peer: PeerId,
    },
    /// It is in the store.
    Stored,
    /// It cannot be stored.
    NotStored {
        /// What the disk said.
        why: String,
    },
    /// It is larger than a block may be, so it was not taken.
    TooLarge {
        /// How large.
        bytes: u64,
    },
    /// It turned up in the store.
    Here,
    /// Nobody had it in time.
    GivenUp {
        /// What was tried.
        tried: String,
    },
}

impl Step {
    /// Who did it, or whom it was done to, of those that blocks are asked of.
    pub(crate) fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::Asked { peer, .. }
            | Self::Said { peer, .. }
            | Self::Received { peer, .. }
            | Self::Wrong { peer }
            | Self::Silent { peer }
            | Self::Failed { peer }
            | Self::Gone { peer } => Some(peer),
            _ => None,
        }
    }
}

/// Why a gateway is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftOut {
    /// This node may not connect to it.
    #[error("it is outside the network this node is limited to")]
    Outside,
    /// It is asked no more.
    #[error("it sent too much of what nobody asked for")]
    Barred,
    /// Enough others are known.
    #[error("too many others were named already")]
    TooMany,
}

/// What a peer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Whether it has the block.
    Have,
    /// For the block.
    Block,
}

/// A step and when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Since the teller was made.
    pub after: Duration,
    /// What happened.
    pub step: Step,
}

/// The telling end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Teller {
    told: mpsc::Sender<Told>,
    dropped: Arc<AtomicU64>,
    since: Instant,
}

/// The hearing end.
#[derive(Debug)]
pub struct Listener {
    told: mpsc::Receiver<Told>,
    dropped: Arc<AtomicU64>,
}

/// So many of what is called one way if it is one, and another if it is not.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let what = if count == N::from(1) { one } else { many };
    format!("{count} {what}")
}

/// Makes both ends.
pub fn pair() -> (Teller, Listener) {
    let (sender, told) = mpsc::channel(STEPS_WAITING_MAX);
    let dropped = Arc::default();
    let teller = Teller {
        told: sender,
        dropped: Arc::clone(&dropped),
        since: Instant::now(),
    };
    (teller, Listener { told, dropped })
}

impl Teller {
    pub(crate) fn tell(&self, step: Step) {
        let told = Told {
            after: self.since.elapsed(),
            step,
        };
        if self.told.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_heard(&self) -> bool {
        !self.told.is_closed()
    }
}

impl Listener {
    /// The next step; `None` when no teller is left.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// How many steps were dropped because this end was slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Said to whoever waited in vain and has not seen the story.
pub const ADVICE: &str = ", `cairn explain` tells how it is looked for";
/// Steps that wait for a listener: a few for each of some hundred peers.
const STEPS_WAITING_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_does_not_listen_is_not_waited_for() {
        let (teller, mut listener) = pair();
        for _ in 0..STEPS_WAITING_MAX + 3 {
            teller.tell(Step::Searching);
        }
        drop(teller);
        assert_eq!(listener.dropped(), 3);
        let mut heard = 0;
        while listener.next().await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, STEPS_WAITING_MAX);
    }
}
