//! AutoNAT's part of one connection. Its conversations run here, in the connection's own task: they are short.

use super::talk::{self, Wish};
use super::{ASKED, Shared, Told};
use crate::negotiation::{Negotiate, is_relayed};
use crate::reach::state::Outcome;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamProtocol, SubstreamProtocol};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// One end of one connection.
pub(crate) struct Handler {
    peer: PeerId,
    shared: Arc<Shared>,
    /// Where it came to us, if it did: only who comes proves anything.
    local: Option<Multiaddr>,
    remote: Multiaddr,
    opening: VecDeque<Open>,
    talks: FuturesUnordered<BoxFuture<'static, ()>>,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
}

/// Why a stream is opened.
#[derive(Debug)]
pub(crate) enum Open {
    /// To have an address tried.
    Ask { address: Multiaddr, nonce: u64 },
    /// To say that we have come.
    Say(Wish),
}

impl Handler {
    pub(super) fn new(
        peer: PeerId,
        shared: Arc<Shared>,
        local: Option<&Multiaddr>,
        remote: &Multiaddr,
    ) -> Self {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        Self {
            peer,
            shared,
            local: local.cloned(),
            remote: remote.clone(),
            opening: VecDeque::new(),
            talks: FuturesUnordered::new(),
            tell,
            told,
        }
    }

    pub(super) fn open(&mut self, what: Open) {
        if self.opening.len() + self.talks.len() < TALKS_MAX {
            self.opening.push_back(what);
        } else {
            self.not_opened(what);
        }
    }

    fn is_relayed(&self) -> bool {
        is_relayed(self.local.as_ref().unwrap_or(&self.remote))
    }

    fn not_opened(&self, what: Open) {
        match what {
            Open::Ask { nonce, .. } => {
                let tell = self.tell.clone();
                let outcome = Outcome::Unanswered;
                self.talk(async move {
                    let _ = tell.send(Told::Ended { nonce, outcome }).await;
                });
            }
            Open::Say(wish) => {
                // Whoever asked may be gone.
                let _ = wish.done.send(talk::Tried::Unheard);
                // The connection was made for this and nothing else.
                let tell = self.tell.clone();
                self.talk(async move {
                    let _ = tell.send(Told::Said).await;
                });
            }
        }
    }

    fn talk(&self, talk: impl Future<Output = ()> + Send + 'static) {
        self.talks.push(talk.boxed());
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Told;
    type InboundProtocol = Negotiate<StreamProtocol>;
    type OutboundProtocol = Negotiate<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate<StreamProtocol>> {
        let spoken = if self.is_relayed() {
            &[]
        } else {
            self.shared.spoken()
        };
        SubstreamProtocol::new(Negotiate(spoken), ())
    }

    fn connection_keep_alive(&self) -> bool {
        !self.talks.is_empty()
    }

    fn on_behaviour_event(&mut self, what: Open) {
        self.open(what);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Open, Told>> {
        if let Some(what) = self.opening.pop_front() {
            let names: &'static [StreamProtocol] = match &what {
                Open::Ask { .. } => &super::ASK,
                Open::Say(_) => &super::SAY,
            };
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Negotiate(names), what)
                    .with_timeout(OPEN_PATIENCE),
            });
        }
        while let Poll::Ready(Some(())) = self.talks.poll_next_unpin(context) {}
        match self.told.poll_recv(context) {
            Poll::Ready(Some(told)) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told)),
            // We hold a sender ourselves, so it never ends.
            _ => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Open>,
    ) {
        let tell = self.tell.clone();
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (name, stream),
                ..
            }) => {
                if self.talks.len() >= TALKS_MAX {
                    return;
                }
                let peer = self.peer;
                if name == ASKED {
                    let (shared, seen) = (Arc::clone(&self.shared), self.remote.clone());
                    self.talk(async move {
                        let talk = talk::answer(stream, (peer, seen), &shared, tell);
                        let ended = tokio::time::timeout(TALK_PATIENCE, talk).await;
                        tracing::debug!(%peer, ?ended, "asked to try an address");
                    });
                } else if let Some(local) = self.local.clone() {
                    self.talk(async move {
                        let talk = talk::hear(stream, local, tell);
                        let ended = tokio::time::timeout(TALK_PATIENCE, talk).await;
                        tracing::debug!(%peer, ?ended, "somebody came to try an address");
                    });
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, stream),
                info,
            }) => match info {
                Open::Ask { address, nonce } => self.talk(async move {
                    let talk = talk::ask(stream, address, nonce);
                    let ended = tokio::time::timeout(TALK_PATIENCE, talk).await;
                    tracing::debug!(?ended, "had an address tried");
                    let outcome = match ended {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_)) | Err(_) => Outcome::Unanswered,
                    };
                    let _ = tell.send(Told::Ended { nonce, outcome }).await;
                }),
                Open::Say(wish) => self.talk(async move {
                    let talk = talk::say(stream, wish.nonce);
                    let ended = tokio::time::timeout(OPEN_PATIENCE, talk).await;
                    let tried = match ended {
                        Ok(Ok(())) => talk::Tried::Came,
                        Ok(Err(_)) | Err(_) => talk::Tried::Unheard,
                    };
                    let _ = wish.done.send(tried);
                    let _ = tell.send(Told::Said).await;
                }),
            },
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                self.not_opened(info);
            }
            _ => {}
        }
    }
}

/// Conversations of one connection at once.
const TALKS_MAX: usize = 8;
/// What they may have to say at once.
const TOLD_MAX: usize = 16;
/// How long agreeing on a stream may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a conversation may take, with the dial.
const TALK_PATIENCE: Duration = Duration::from_secs(40);
