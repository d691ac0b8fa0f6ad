//! `/http/1.1`: peers that ask the gateway over streams, as others ask it over TCP.
//!
//! Each stream carries HTTP/1.1 as it is. Nothing of it is understood here: whoever serves HTTP takes [`Visitors`], and
//! from it one [`Visitor`] after the other. Decided here is how many are let in ([`Manners`]) and how fast they are
//! answered: a limit of what blocks may take holds for them too ([`Paced`]).

use crate::bitswap::policy::Policy;
use crate::perf::{self, Answers, Arrival};
use crate::throttle::{Gate, Haste, Throttle, Way};
use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;
use libp2p::swarm::{Stream, StreamProtocol};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Its name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/http/1.1");

static SPOKEN: [StreamProtocol; 1] = [PROTOCOL];

/// How many visitors there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// Streams served at once, over all peers. Each costs up to 64 KiB for a head and what is under way of an answer.
    pub streams_max: usize,
    /// How many of them one peer may have.
    pub streams_per_peer_max: usize,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            streams_max: 64,
            streams_per_peer_max: 8,
        }
    }
}

/// Both ends of what negotiates it and hands streams over.
pub(crate) fn pair() -> (perf::Behaviour, perf::Wire) {
    perf::pair_of(&SPOKEN, Answers::Yes)
}

/// Peers that come with requests, in the order in which they come.
#[derive(Debug)]
pub struct Visitors {
    arrived: mpsc::Receiver<Arrival>,
    lobby: Arc<Lobby>,
    policy: Arc<dyn Policy>,
    served: IntCounter,
    refused: IntCounter,
}

impl Visitors {
    /// Those that arrive over `wire` and are let in; `policy` says what they are given.
    pub(crate) fn new(
        wire: perf::Wire,
        manners: Manners,
        throttle: Throttle,
        policy: Arc<dyn Policy>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let streams = IntCounterVec::new(
            Opts::new(
                "cairn_web_streams_total",
                "Streams of /http/1.1 that peers opened, by what came of them.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(streams.clone()))?;
        Ok(Self {
            arrived: wire.arrived,
            lobby: Arc::new(Lobby::new(manners, throttle)),
            policy,
            served: streams.with_label_values(&["served"]),
            refused: streams.with_label_values(&["refused"]),
        })
    }

    /// The next one; `None` once no more can come. Who is one too many finds its stream reset.
    pub async fn next(&mut self) -> Option<Visitor> {
        loop {
            let Arrival { peer, from, stream } = self.arrived.recv().await?;
            let Some(stay) = self.lobby.enter(peer, from) else {
                self.refused.inc();
                tracing::debug!(%peer, "a stream of requests is refused: there are too many");
                continue;
            };
            self.served.inc();
            return Some(Visitor {
                peer,
                policy: Arc::clone(&self.policy),
                stream: stream.compat(),
                pace: Pace(stay),
            });
        }
    }

    /// How many there are at once.
    pub fn streams_max(&self) -> usize {
        self.lobby.manners.streams_max
    }
}

/// A peer with requests.
#[derive(Debug)]
pub struct Visitor {
    /// Who.
    pub peer: PeerId,
    /// What it may be given.
    pub policy: Arc<dyn Policy>,
    /// What it says and hears. Dropped before it is shut down, it is reset.
    pub stream: Compat<Stream>,
    /// Its place, and how fast it is answered.
    pub pace: Pace,
}

/// A visitor's place among the others, and its share of what may be sent.
#[derive(Debug)]
pub struct Pace(Stay);

impl Pace {
    /// Holds what is written through `inner` to it. The place is given back when what is returned is dropped.
    pub fn over<S>(self, inner: S) -> Paced<S> {
        Paced {
            inner,
            stay: self.0,
            waiting: None,
            granted: 0,
        }
    }
}

/// Something written to no faster than the limits allow.
pub struct Paced<S> {
    inner: S,
    stay: Stay,
    /// Until more may be written.
    waiting: Option<BoxFuture<'static, usize>>,
    /// How many bytes may be written.
    granted: usize,
}

impl<S> Paced<S> {
    fn poll_grant(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        if self.granted == 0 {
            let gate = &self.stay.gate;
            if self.waiting.is_none() && gate.is_open(Way::Out) {
                return Poll::Ready(wanted);
            }
            let waiting = self.waiting.get_or_insert_with(|| {
                let gate = Arc::clone(gate);
                async move { gate.pass(Way::Out, wanted, Haste::Bulk).await }.boxed()
            });
            self.granted = ready!(waiting.as_mut().poll(context));
            self.waiting = None;
        }
        Poll::Ready(self.granted)
    }
}

impl<S> fmt::Debug for Paced<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Paced({})", self.stay.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let granted = match bytes.is_empty() {
            true => 0,
            false => ready!(self.poll_grant(context, bytes.len())),
        };
        let piece = bytes.get(..granted).unwrap_or(bytes);
        let wrote = ready!(Pin::new(&mut self.inner).poll_write(context, piece))?;
        self.granted = self.granted.saturating_sub(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Who is here.
#[derive(Debug)]
struct Lobby {
    manners: Manners,
    throttle: Throttle,
    inside: Mutex<HashMap<PeerId, Inside>>,
}

/// One peer that is here.
#[derive(Debug)]
struct Inside {
    gate: Arc<Gate>,
    /// Where each of its streams comes from.
    from: Vec<Option<IpAddr>>,
}

/// One stream's place.
#[derive(Debug)]
struct Stay {
    lobby: Arc<Lobby>,
    peer: PeerId,
    from: Option<IpAddr>,
    gate: Arc<Gate>,
}

impl Lobby {
    fn new(manners: Manners, throttle: Throttle) -> Self {
        Self {
            manners,
            throttle,
            inside: Mutex::default(),
        }
    }

    /// A place for one more stream of a peer, until what is returned is dropped.
    fn enter(self: &Arc<Self>, peer: PeerId, from: Option<IpAddr>) -> Option<Stay> {
        let mut inside = self.lock();
        let all: usize = inside.values().map(|one| one.from.len()).sum();
        let own = inside.get(&peer).map_or(0, |one| one.from.len());
        if all >= self.manners.streams_max || own >= self.manners.streams_per_peer_max {
            return None;
        }
        let one = inside.entry(peer).or_insert_with(|| Inside {
            gate: Arc::new(self.throttle.gate()),
            from: Vec::new(),
        });
        one.from.push(from);
        one.gate.reached_at(one.from.iter().copied());
        Some(Stay {
            lobby: Arc::clone(self),
            peer,
            from,
            gate: Arc::clone(&one.gate),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Inside>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut inside = self.lobby.lock();
        let Some(one) = inside.get_mut(&self.peer) else {
            return;
        };
        if let Some(at) = one.from.iter().position(|from| *from == self.from) {
            one.from.swap_remove(at);
        }
        if one.from.is_empty() {
            inside.remove(&self.peer);
        } else {
            one.gate.reached_at(one.from.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    fn lobby(limits: Limits) -> Arc<Lobby> {
        let throttle = Throttle::new(limits, &Registry::new()).unwrap();
        Arc::new(Lobby::new(Manners::default(), throttle))
    }

    #[test]
    fn one_peer_has_so_many_streams_and_leaves_room_for_others() {
        let Manners {
            streams_max,
            streams_per_peer_max,
        } = Manners::default();
        let (lobby, greedy) = (lobby(Limits::default()), PeerId::random());
        let mut held: Vec<Stay> = (0..100).map_while(|_| lobby.enter(greedy, None)).collect();
        assert_eq!(held.len(), streams_per_peer_max);
        held.pop();
        held.extend(lobby.enter(greedy, None));
        assert_eq!(held.len(), streams_per_peer_max);
        assert!(lobby.enter(greedy, None).is_none());
        let rest = (0..100).map_while(|_| lobby.enter(PeerId::random(), None));
        let rest: Vec<Stay> = rest.collect();
        assert_eq!(rest.len() + held.len(), streams_max);
        drop((held, rest));
        assert!(lobby.lock().is_empty(), "nothing is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn all_streams_of_a_peer_share_its_limit() {
        let limits = Limits {
            upload_per_peer: "10KB".parse().unwrap(),
            ..Limits::default()
        };
        let (lobby, peer) = (lobby(limits), PeerId::random());
        let far = Some(Ipv4Addr::new(192, 0, 2, 1).into());
        let took = |streams: usize, from: Option<IpAddr>| {
            let lobby = Arc::clone(&lobby);
            async move {
                let began = Instant::now();
                let sending = (0..streams).map(|_| {
                    let stay = lobby.enter(peer, from).unwrap();
                    async move {
                        let (here, mut there) = tokio::io::duplex(1 << 10);
                        let mut paced = Pace(stay).over(here);
                        let read = async { there.read_exact(&mut [0; 100_000]).await.unwrap() };
                        let (wrote, _) = tokio::join!(paced.write_all(&[7; 100_000]), read);
                        wrote.unwrap();
                    }
                });
                futures::future::join_all(sending).await;
                began.elapsed()
            }
        };
        let near = took(4, Some(Ipv4Addr::LOCALHOST.into())).await;
        assert_eq!(near, Duration::ZERO, "who is near is exempt");
        let one = took(1, far).await;
        let four = took(4, far).await;
        let due = |bytes: u64| Duration::from_secs(bytes / 10_000);
        let slack = Duration::from_secs(2);
        assert!(
            one <= due(100_000) && one + slack >= due(100_000),
            "{one:?}"
        );
        assert!(
            four <= due(400_000) && four + slack >= due(400_000),
            "{four:?}"
        );
    }
}
