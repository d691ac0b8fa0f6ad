//! `/perf/1.0.0`: how fast bytes go to a peer and back, through the layers that blocks go through.
//!
//! The asking end says in eight bytes how many bytes it wants, sends as many as it likes and
//! closes its half; the answering end reads to the end, then sends what was wanted and closes.
//! Nothing of this touches the store, so it is the floor that a transfer of blocks is held against.
//!
//! It makes others send bytes for nothing, so answering has bounds (see the foot) and is off in
//! `public` unless configured. `behaviour.rs` is the part that the swarm sees.

mod behaviour;

pub(crate) use behaviour::{Answers, Arrival, Behaviour, Order, PROTOCOL, Wire, pair, pair_of};

use crate::negotiation::OpenError;
use crate::places::Places;
use crate::tasks::Tasks;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::upgrade::NegotiationError;
use libp2p::{Multiaddr, PeerId};
use prometheus::{IntCounterVec, Opts, Registry};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// What one run over one stream took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Bytes sent.
    pub uploaded: u64,
    /// From the first byte sent until the peer, having read all, began to answer.
    pub upload: Duration,
    /// Bytes received.
    pub downloaded: u64,
    /// From the first byte of the answer to its end; with nothing to upload, from the question.
    pub download: Duration,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PerfError {
    /// Nobody to measure with.
    #[error("not connected to {0}; connect first, or give an address that ends in /p2p/{0}")]
    NotConnected(PeerId),
    /// The peer does not answer it.
    #[error(
        "{0} does not answer /perf/1.0.0; a cairn node does in the networks `local` and `lan` unless `diag.perf = false` there, and in `public` with `diag.perf = true`"
    )]
    Unsupported(PeerId),
    /// It broke off.
    #[error("the measurement with {peer} broke off: {why}")]
    Failed {
        /// Whom with.
        peer: PeerId,
        /// What happened.
        why: String,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// The asking end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Perf {
    orders: mpsc::Sender<Order>,
}

impl Perf {
    /// Starts to answer streams that arrive over `wire`.
    pub(crate) fn start(
        wire: Wire,
        tasks: &Tasks,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let answers = IntCounterVec::new(
            Opts::new(
                "cairn_perf_answers_total",
                "Streams of /perf/1.0.0 that peers opened, by how they ended.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(answers.clone()))?;
        let Wire {
            mut arrived,
            orders,
        } = wire;
        let (family, stopping) = (tasks.clone(), tasks.stopping());
        let places = Places::new(ANSWERS_PER_PEER_MAX, ANSWERS_MAX);
        tasks.spawn("perf", async move {
            while let Some(Some(Arrival { peer, stream, .. })) =
                stopping.run_until_cancelled(arrived.recv()).await
            {
                let Some(place) = places.take(peer) else {
                    answers.with_label_values(&["refused"]).inc();
                    tracing::debug!(%peer, "measurement refused: too many run");
                    continue;
                };
                let (stopping, answers) = (stopping.clone(), answers.clone());
                family.spawn("perf answer", async move {
                    let answering = timeout(ANSWER_TIME_MAX, answer(stream));
                    let Some(ended) = stopping.run_until_cancelled(answering).await else {
                        return;
                    };
                    let result = match ended.unwrap_or_else(|_| Err(too_slow())) {
                        Ok(()) => "done",
                        Err(error) => {
                            tracing::debug!(%peer, %error, "measurement ended");
                            "failed"
                        }
                    };
                    answers.with_label_values(&[result]).inc();
                    drop(place);
                });
            }
        });
        Ok(Self { orders })
    }

    /// Sends `upload` bytes to a connected peer, then has it send `download`, over a stream of its
    /// own. Several at a time measure together.
    pub async fn run(&self, peer: PeerId, upload: u64, download: u64) -> Result<Run, PerfError> {
        self.run_over(peer, None, upload, download).await
    }

    /// The same over a connection that leads to `way`, which has no `/p2p` at its end; `None` for any.
    pub async fn run_over(
        &self,
        peer: PeerId,
        way: Option<Multiaddr>,
        upload: u64,
        download: u64,
    ) -> Result<Run, PerfError> {
        let (reply, opened) = oneshot::channel();
        let order = Order { peer, way, reply };
        self.orders
            .send(order)
            .await
            .map_err(|_| PerfError::Stopping)?;
        let stream = opened.await.map_err(|_| PerfError::Stopping)?;
        let (_, mut stream) = stream.map_err(|error| match error {
            OpenError::NotConnected => PerfError::NotConnected(peer),
            OpenError::Unsupported => PerfError::Unsupported(peer),
            OpenError::Failed(why) => PerfError::Failed { peer, why },
        })?;
        let run = async {
            agreed(&mut stream).await?;
            ask(stream, upload, download).await
        };
        run.await.map_err(|error| {
            if is_refusal(&error) {
                return PerfError::Unsupported(peer);
            }
            let why = error.to_string();
            PerfError::Failed { peer, why }
        })
    }
}

/// Whether the peer did not take up the protocol. With one protocol to choose from that is only found
/// out when its answer is read.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(NegotiationError::Failed))
}

/// Waits for the peer's answer about the protocol, so that it is not measured, and so that the end
/// of a short question does not come together with the proposal: js-libp2p resets such a stream
/// (`docs/testing.md`).
async fn agreed<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    // Before anything is read, the answer is; then there is nothing more to wait for.
    in_time(stream.read(&mut [])).await.map(drop)
}

/// The asking end of one stream.
async fn ask<S>(mut stream: S, upload: u64, download: u64) -> io::Result<Run>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    in_time(stream.write_all(&download.to_be_bytes())).await?;
    send(&mut stream, upload).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut count = in_time(stream.read(&mut buffer)).await?;
    let first = Instant::now();
    let mut received = 0;
    while count > 0 {
        received += count as u64;
        if received > download {
            return Err(io::Error::other("the peer sent more than was asked for"));
        }
        count = in_time(stream.read(&mut buffer)).await?;
    }
    if received < download {
        let why = format!("the peer sent {received} of {download} bytes");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    let (upload_time, since) = match upload {
        0 => (Duration::ZERO, began),
        _ => (first.duration_since(began), first),
    };
    Ok(Run {
        uploaded: upload,
        upload: upload_time,
        downloaded: received,
        download: match received {
            0 => Duration::ZERO,
            _ => since.elapsed(),
        },
    })
}

/// The answering end of one stream.
async fn answer<S>(mut stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wanted = [0; 8];
    in_time(stream.read_exact(&mut wanted)).await?;
    let wanted = u64::from_be_bytes(wanted);
    if wanted > ANSWER_BYTES_MAX {
        let why = format!("{wanted} bytes are wanted; {ANSWER_BYTES_MAX} are sent at most");
        return Err(io::Error::other(why));
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut received = 0;
    loop {
        let count = in_time(stream.read(&mut buffer)).await?;
        if count == 0 {
            break;
        }
        received += count as u64;
        if received > ANSWER_BYTES_MAX {
            let why = format!("more than {ANSWER_BYTES_MAX} bytes came");
            return Err(io::Error::other(why));
        }
    }
    drop(buffer);
    send(&mut stream, wanted).await
}

/// Sends so many zeros and closes this half. Nothing below compresses.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        let piece = zeros.get(..piece).unwrap_or_default();
        in_time(stream.write_all(piece)).await?;
        left -= piece.len() as u64;
    }
    in_time(stream.close()).await
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = timeout(IDLE_MAX, step).await;
    done.unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other end is too slow")
}

/// Read and written at a time: a stream's least window.
const BUFFER_BYTES: usize = 256 << 10;
/// How long the other end may take for one such piece.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Streams answered at once, over all peers. Each costs a buffer and all the upload it can get.
const ANSWERS_MAX: usize = 32;
/// How many of them one peer may have: what `diag perf` asks for at most, and half of all, so that one who
/// holds them does not keep others from measuring.
const ANSWERS_PER_PEER_MAX: usize = 16;
/// Bytes taken, and bytes sent, for one stream: enough for a minute at 2 Gbit/s.
const ANSWER_BYTES_MAX: u64 = 16 << 30;
/// How long one stream is answered, however slow it is.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn pipe() -> (
        impl AsyncRead + AsyncWrite + Unpin,
        impl AsyncRead + AsyncWrite + Unpin,
    ) {
        let (one, other) = tokio::io::duplex(64 << 10);
        (one.compat(), other.compat())
    }

    #[tokio::test(start_paused = true)]
    async fn each_end_gets_exactly_what_it_was_promised() {
        for (upload, download) in [(0, 0), (1, 0), (0, 1), (1_000_003, 700_001)] {
            let (here, there) = pipe();
            let (asked, answered) = tokio::join!(ask(here, upload, download), answer(there));
            answered.unwrap();
            let run = asked.unwrap();
            assert_eq!((run.uploaded, run.downloaded), (upload, download));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_for_too_much_is_not_answered() {
        let (here, there) = pipe();
        let asked = ask(here, 0, ANSWER_BYTES_MAX + 1);
        let (asked, answered) = tokio::join!(asked, answer(there));
        assert!(answered.unwrap_err().to_string().contains("at most"));
        asked.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_falls_silent_is_let_go() {
        let (mut here, there) = pipe();
        here.write_all(&5_u64.to_be_bytes()).await.unwrap();
        let silent = answer(there).await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        let (here, _there) = pipe();
        let unread = ask(here, 1 << 20, 0).await.unwrap_err();
        assert_eq!(unread.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_another_length_is_an_error() {
        for sent in [4, 6] {
            let (here, mut there) = pipe();
            let liar = async {
                there.read_to_end(&mut Vec::new()).await.unwrap();
                send(&mut there, sent).await.unwrap();
            };
            let (asked, ()) = tokio::join!(ask(here, 10, 5), liar);
            asked.unwrap_err();
        }
    }
}
