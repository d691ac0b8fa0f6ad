//! A lane to a peer: what we say, one message after the other, over a stream that is opened when there
//! is something to say and closed when there is nothing more.

use super::OPEN_TIMEOUT;
use super::pace::{BODY_IDLE, CROWDED_BYTES_A_SECOND, LUMPS_STRETCHES, Pace};
use crate::bitswap::behaviour::Order;
use crate::bitswap::client::SLOWEST_BYTES_A_SECOND;
use crate::bitswap::engine::ENVELOPES_OUTSTANDING_MAX;
use crate::bitswap::message::{Message, Version};
use crate::bitswap::worker::Input;
use crate::negotiation::OpenError;
use crate::throttle::{Gate, Haste, Way};
use bytes::Bytes;
use futures::{AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// What goes over a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bitswap) enum Cargo {
    /// Wants, cancels and presences.
    Words,
    Blocks,
}

/// A message for a lane.
#[derive(Debug)]
pub(in crate::bitswap) struct Outgoing {
    pub(in crate::bitswap) message: Message,
    /// What the engine counts for it.
    pub(in crate::bitswap) bytes: u64,
}

/// A lane's end of the bargain: what it needs to open streams and to report.
#[derive(Debug, Clone)]
pub(in crate::bitswap) struct Lane {
    pub(in crate::bitswap) peer: PeerId,
    /// Which of the peer's stays this lane belongs to.
    pub(in crate::bitswap) stay: u64,
    pub(in crate::bitswap) cargo: Cargo,
    pub(in crate::bitswap) gate: Arc<Gate>,
    /// Whether so much is on its way to all that others get less.
    pub(in crate::bitswap) crowded: Arc<AtomicBool>,
    pub(in crate::bitswap) orders: mpsc::Sender<Order>,
    pub(in crate::bitswap) inputs: mpsc::Sender<Input>,
}

impl Lane {
    /// Writes what comes until the worker lets go of the other end.
    pub(in crate::bitswap) async fn run(self, mut inbox: mpsc::Receiver<Outgoing>) {
        let mut stream: Option<(Version, Stream)> = None;
        loop {
            let next = match timeout(LANE_IDLE, inbox.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    if let Some((_, mut idle)) = stream.take() {
                        drop(timeout(CLOSE_TIME_MAX, idle.close()).await);
                    }
                    inbox.recv().await
                }
            };
            let Some(outgoing) = next else {
                break;
            };
            let sent = self.send(&mut stream, &outgoing.message).await;
            if let Err(error) = &sent {
                tracing::debug!(peer = %self.peer, %error, "message not sent");
            }
            let report = Input::Written {
                peer: self.peer,
                stay: self.stay,
                cargo: self.cargo,
                outgoing,
                sent: sent.is_ok(),
            };
            if self.inputs.send(report).await.is_err() {
                break;
            }
        }
        if let Some((_, mut last)) = stream {
            drop(timeout(CLOSE_TIME_MAX, last.close()).await);
        }
    }

    async fn send(
        &self,
        stream: &mut Option<(Version, Stream)>,
        message: &Message,
    ) -> Result<(), OpenError> {
        let mut why = OpenError::NotConnected;
        for _ in 0..SEND_TRIES {
            let (version, open) = match stream {
                Some(open) => open,
                None => stream.insert(self.open().await?),
            };
            let haste = match self.cargo {
                Cargo::Words => Haste::Words,
                Cargo::Blocks => Haste::Bulk,
            };
            let way = Outlet {
                gate: &self.gate,
                haste,
                crowded: &self.crowded,
            };
            match write(open, &message.encode(*version), &way).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    why = OpenError::Failed(error.to_string());
                    *stream = None;
                }
            }
        }
        Err(why)
    }

    async fn open(&self) -> Result<(Version, Stream), OpenError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || OpenError::Failed("stopping".to_owned());
        self.orders
            .send(Order::Open(self.peer, reply))
            .await
            .map_err(|_| stopping())?;
        // A connection that closes drops the reply.
        let opened = match timeout(OPEN_TIMEOUT * 2, answer).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) => Err(OpenError::NotConnected),
            Err(_) => Err(OpenError::Failed("too slow".to_owned())),
        };
        let spoken = match &opened {
            Ok((version, _)) => Some(*version),
            Err(OpenError::Unsupported) => None,
            Err(_) => return opened,
        };
        let speaks = Input::Speaks {
            peer: self.peer,
            stay: self.stay,
            version: spoken,
        };
        drop(self.inputs.send(speaks).await);
        opened
    }
}

/// What a message has to pass.
struct Outlet<'a> {
    gate: &'a Gate,
    haste: Haste,
    crowded: &'a AtomicBool,
}

/// Writes a message piece by piece, as the gate lets them pass and the peer takes them. Waiting for the gate is
/// not the peer's time.
async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    pieces: &[Bytes],
    outlet: &Outlet<'_>,
) -> io::Result<()> {
    let Outlet {
        gate,
        haste,
        crowded,
    } = *outlet;
    let mut pace = Pace::new(BODY_IDLE);
    for piece in pieces {
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let waiting = Instant::now();
            let may_pass = gate.pass(Way::Out, rest.len(), haste).await;
            pace.held(waiting.elapsed());
            let (mut first, later) = rest.split_at_checked(may_pass).unwrap_or((rest, &[]));
            while !first.is_empty() {
                let count = in_time(stream.write(first), &mut pace, crowded).await?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                pace.moved(count);
                first = first.get(count..).unwrap_or_default();
            }
            rest = later;
        }
    }
    in_time(stream.flush(), &mut pace, crowded).await
}

/// Waits for something that the peer has to make room for.
async fn in_time<T>(
    step: impl Future<Output = io::Result<T>>,
    pace: &mut Pace,
    crowded: &AtomicBool,
) -> io::Result<T> {
    let mut step = pin!(step);
    loop {
        if let Ok(done) = timeout_at(pace.until(), &mut step).await {
            return done;
        }
        let goes_on = if crowded.load(Ordering::Relaxed) {
            pace.goes_on(CROWDED_BYTES_A_SECOND)
        } else {
            pace.goes_on_in_lumps(SLOWEST_BYTES_A_SECOND, LUMPS_STRETCHES)
        };
        if !goes_on {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// An outbound stream without work is closed; Helia resets it after 10 s.
const LANE_IDLE: Duration = Duration::from_secs(5);
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a message is tried: a kept stream may have been reset, a new one rarely is.
const SEND_TRIES: usize = 3;
/// Messages waiting in a lane: room for all that the engine lets be under way, so that no packed
/// envelope, whose wants are gone, ever finds its lane full.
pub(in crate::bitswap) const LANE_MESSAGES_MAX: usize = 64;
const _: () = assert!(LANE_MESSAGES_MAX as u64 >= ENVELOPES_OUTSTANDING_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitswap::streams::reader::tests::{gate, payload};
    use tokio::io::AsyncReadExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_waits_for_its_turn_is_not_given_up_and_one_whose_peer_does_not_read_is() {
        let limits = crate::Limits {
            upload: "1KB".parse().unwrap(),
            ..crate::Limits::default()
        };
        let gate = gate(limits);
        let free = AtomicBool::new(false);
        let pieces = payload().encode(Version::V1_2);
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        let (ours, _theirs) = tokio::io::duplex(2 * bytes);
        let (mut ours, start) = (ours.compat(), Instant::now());
        write(&mut ours, &pieces, &outlet(&gate, &free))
            .await
            .unwrap();
        let took = start.elapsed().as_secs_f64();
        assert!((took - bytes as f64 / 1000.0).abs() < 5.0, "{took}");
        let (ours, _theirs) = tokio::io::duplex(bytes / 2);
        let mut ours = ours.compat();
        let error = write(&mut ours, &pieces, &outlet(&gate, &free)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    fn outlet<'a>(gate: &'a Gate, crowded: &'a AtomicBool) -> Outlet<'a> {
        Outlet {
            gate,
            haste: Haste::Bulk,
            crowded,
        }
    }

    /// Writes to a peer that reads so much a second, and lets us know when it has read half of a window.
    async fn write_to(bytes_a_second: usize, is_crowded: bool) -> io::Result<()> {
        let gate = gate(crate::Limits::default());
        let crowded = AtomicBool::new(is_crowded);
        let (ours, mut theirs) = tokio::io::duplex(WINDOW_BYTES);
        let (mut ours, mut half) = (ours.compat(), vec![0; WINDOW_BYTES / 2]);
        let takes = Duration::from_secs((half.len() / bytes_a_second) as u64);
        let reading = async {
            loop {
                tokio::time::sleep(takes).await;
                if theirs.read_exact(&mut half).await.is_err() {
                    return;
                }
            }
        };
        let whole = Bytes::from(payload().encode(Version::V1_2).concat());
        let pieces = [whole.clone(), whole.clone(), whole];
        let outlet = outlet(&gate, &crowded);
        tokio::select! {
            written = write(&mut ours, &pieces, &outlet) => written,
            () = reading => unreachable!("the writer is here"),
        }
    }

    /// Of a stream that is new.
    const WINDOW_BYTES: usize = 256 << 10;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_gets_its_message_and_one_that_hardly_reads_does_not() {
        let start = Instant::now();
        write_to(2 << 10, false).await.unwrap();
        assert!(
            start.elapsed() > Duration::from_secs(100),
            "it took its time"
        );
        // Hardly at all, or slowly while others want what it holds.
        for (bytes_a_second, is_crowded) in [(512, false), (2 << 10, true)] {
            let error = write_to(bytes_a_second, is_crowded).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{bytes_a_second}");
        }
    }
}
