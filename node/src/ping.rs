//! `/ipfs/ping/1.0.0` when somebody asks: 32 bytes to a peer and back, timed.
//!
//! The pings that every connection carries by themselves, and the answers to those of others, are libp2p's.

use crate::negotiation::OpenError;
use crate::perf::{Answers, Behaviour, Order, is_refusal, pair_of};
use crate::swarm::ConnectError;
use crate::swarm::keeper::Hurry;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::{Stream, StreamProtocol};
use libp2p::{Multiaddr, PeerId};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Why there was no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// There is no way to the peer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not speak this.
    #[error("{0} does not answer /ipfs/ping/1.0.0")]
    Unsupported(PeerId),
    /// No answer in time.
    #[error("{0} did not answer within 10 s")]
    TooSlow(PeerId),
    /// Not what was sent came back, or nothing.
    #[error("the ping to {peer} broke off: {why}")]
    Failed {
        /// Whom.
        peer: PeerId,
        /// What happened.
        why: String,
    },
}

/// Opens streams of pings.
#[derive(Debug, Clone)]
pub(crate) struct Pings(mpsc::Sender<Order>);

/// Makes both ends.
pub(crate) fn pair() -> (Behaviour, Pings) {
    let (behaviour, wire) = pair_of(&SPOKEN, Answers::No);
    (behaviour, Pings(wire.orders))
}

/// A stream of pings to one peer.
#[derive(Debug)]
pub struct Pinging {
    pings: Pings,
    peer: PeerId,
    way: Multiaddr,
    stream: Stream,
    _hurry: Hurry,
}

impl Pings {
    pub(crate) async fn open(
        &self,
        peer: PeerId,
        way: Multiaddr,
        hurry: Hurry,
    ) -> Result<Pinging, PingError> {
        Ok(Pinging {
            pings: self.clone(),
            peer,
            stream: self.stream(peer, way.clone()).await?,
            way,
            _hurry: hurry,
        })
    }

    async fn stream(&self, peer: PeerId, way: Multiaddr) -> Result<Stream, PingError> {
        let (reply, opened) = oneshot::channel();
        let order = Order {
            peer,
            way: Some(way),
            reply,
        };
        let stopping = || PingError::Connect(ConnectError::Stopping);
        self.0.send(order).await.map_err(|_| stopping())?;
        let opened = opened.await.map_err(|_| stopping())?;
        let (_, stream) = opened.map_err(|error| match error {
            OpenError::NotConnected => ConnectError::NotConnected(peer).into(),
            OpenError::Unsupported => PingError::Unsupported(peer),
            OpenError::Failed(why) => PingError::Failed { peer, why },
        })?;
        Ok(stream)
    }
}

impl Pinging {
    /// Whom.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// One ping: how long its answer took.
    ///
    /// Some answer the newest of a connection's streams alone, and the connection's own pings are one. So a
    /// stream that broke off is opened again, as often as it takes for a streak of bad luck to end.
    pub async fn once(&mut self) -> Result<Duration, PingError> {
        let mut left = OPENINGS_MAX;
        loop {
            match self.try_once().await {
                Err(PingError::Failed { .. }) if left > 0 => {
                    left -= 1;
                    self.stream = self.pings.stream(self.peer, self.way.clone()).await?;
                }
                ended => return ended,
            }
        }
    }

    async fn try_once(&mut self) -> Result<Duration, PingError> {
        let peer = self.peer;
        let answered = timeout(ANSWER_TIME_MAX, round_trip(&mut self.stream)).await;
        answered
            .map_err(|_| PingError::TooSlow(peer))?
            .map_err(|error| {
                if is_refusal(&error) {
                    return PingError::Unsupported(peer);
                }
                let why = error.to_string();
                PingError::Failed { peer, why }
            })
    }
}

async fn round_trip<S>(stream: &mut S) -> io::Result<Duration>
where
    S: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let (sent, mut back): ([u8; PING_BYTES], _) = (rand::random(), [0; PING_BYTES]);
    let began = Instant::now();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    stream.read_exact(&mut back).await?;
    if sent == back {
        Ok(began.elapsed())
    } else {
        Err(io::Error::other("other bytes came back than were sent"))
    }
}

static SPOKEN: [StreamProtocol; 1] = [libp2p::ping::PROTOCOL_NAME];
/// Bytes of one ping.
const PING_BYTES: usize = 32;
/// How often one ping's stream is opened again.
const OPENINGS_MAX: usize = 3;
/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    #[tokio::test]
    async fn only_what_was_sent_counts_as_an_answer() {
        let (here, there) = tokio::io::duplex(1024);
        let (mut here, mut there) = (here.compat(), there.compat());
        let echo = async {
            let mut bytes = [0; PING_BYTES];
            there.read_exact(&mut bytes).await.unwrap();
            there.write_all(&bytes).await.unwrap();
            there.read_exact(&mut bytes).await.unwrap();
            there.write_all(&[7; PING_BYTES]).await.unwrap();
        };
        let ask = async {
            let first = round_trip(&mut here).await;
            (first, round_trip(&mut here).await)
        };
        let ((first, second), ()) = futures::join!(ask, echo);
        assert!(first.is_ok(), "{first:?}");
        assert!(second.unwrap_err().to_string().contains("other bytes"));
        drop(there);
        assert!(round_trip(&mut here).await.is_err());
    }
}
