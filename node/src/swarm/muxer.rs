//! Yamux with the knobs that libp2p's own glue does not hand out: the size of a frame, the
//! memory that receive windows may take, the number of streams.
//!
//! [`Yamux`] is the upgrade, [`Muxer`] one connection. Yamux makes progress on a connection only
//! while it is asked for the next inbound stream, so streams that turn up while nobody wants one
//! wait here, boundedly.

use crate::config::Config;
use futures::future::{Ready, ready};
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use yamux::{Connection, ConnectionError, Mode};

/// What `/yamux/1.0.0` is negotiated into.
#[derive(Debug, Clone)]
pub(super) struct Yamux {
    config: yamux::Config,
}

impl Yamux {
    pub(super) fn new(config: &Config) -> Self {
        let streams = config
            .streams_per_connection_max
            .clamp(1, STREAMS_PER_CONNECTION_CEILING);
        // Yamux insists on the sum: it promises every possible stream its first window.
        let window = streams * STREAM_WINDOW_BYTES + config.window_growth_bytes;
        let mut yamux = yamux::Config::default();
        // No limit in between, or the first of the two calls would be checked against the
        // default of the other.
        yamux.set_max_connection_receive_window(None);
        yamux.set_max_num_streams(streams);
        yamux.set_max_connection_receive_window(Some(window));
        yamux.set_split_send_size(FRAME_BODY_BYTES);
        Self { config: yamux }
    }

    fn start<C>(self, connection: C, mode: Mode) -> Muxer<C>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        Muxer {
            connection: Connection::new(connection, self.config, mode),
            waiting: VecDeque::new(),
            wanted: None,
        }
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

impl<C> InboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, connection: C, _: Self::Info) -> Self::Future {
        ready(Ok(self.start(connection, Mode::Server)))
    }
}

impl<C> OutboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, connection: C, _: Self::Info) -> Self::Future {
        ready(Ok(self.start(connection, Mode::Client)))
    }
}

/// One connection that carries many streams.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    /// Streams the peer opened that nobody has asked for yet, oldest first.
    waiting: VecDeque<yamux::Stream>,
    /// Who asked for an inbound stream in vain.
    wanted: Option<Waker>,
}

impl<C> fmt::Debug for Muxer<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Muxer")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<C> Muxer<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    fn next_inbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        match ready!(self.connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => Poll::Ready(Ok(stream)),
            Some(Err(error)) => Poll::Ready(Err(into_io(error))),
            None => Poll::Ready(Err(into_io(ConnectionError::Closed))),
        }
    }
}

impl<C> StreamMuxer for Muxer<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<yamux::Stream>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.next_inbound(cx);
        if next.is_pending() {
            self.wanted = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<yamux::Stream>> {
        self.connection.poll_new_outbound(cx).map_err(into_io)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx).map_err(into_io)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = ready!(self.next_inbound(cx))?;
        if self.waiting.len() < WAITING_STREAMS_MAX {
            self.waiting.push_back(stream);
        } else {
            // Dropped, which resets it: the peer opens faster than anybody takes.
            tracing::debug!("too many inbound streams wait on a connection, one is reset");
            drop(stream);
        }
        if let Some(waker) = self.wanted.take() {
            waker.wake();
        }
        // There may be more, but the connection has other things to do in between.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn into_io(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// What peers call this muxer.
pub(super) const PROTOCOL: &str = "/yamux/1.0.0";

/// A Noise message has room for 64,511 bytes, a frame's header takes 12: one frame, one message.
const FRAME_BODY_BYTES: usize = 64_511 - 12;

/// The window every stream starts with; the protocol fixes it.
const STREAM_WINDOW_BYTES: usize = 256 << 10;

/// Keeps the sum of first windows within 1 GiB.
const STREAMS_PER_CONNECTION_CEILING: usize = 4096;

/// Inbound streams that may wait to be taken: what a well-behaved peer opens before it waits for
/// an acknowledgement.
const WAITING_STREAMS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use futures::{StreamExt, future, stream};
    use libp2p::core::muxing::StreamMuxerExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    type Pipe = tokio_util::compat::Compat<tokio::io::DuplexStream>;

    fn pair() -> (Muxer<Pipe>, Muxer<Pipe>) {
        let (left, right) = tokio::io::duplex(1 << 20);
        let yamux = Yamux::new(&Config::default());
        (
            yamux.clone().start(left.compat(), Mode::Client),
            yamux.start(right.compat(), Mode::Server),
        )
    }

    /// Drives a muxer for ever, handing over the streams the other side opens.
    fn inbound(muxer: Muxer<Pipe>) -> impl futures::Stream<Item = yamux::Stream> {
        stream::unfold(muxer, |mut muxer| async {
            let stream = future::poll_fn(|cx| {
                let _ = muxer.poll_unpin(cx)?;
                muxer.poll_inbound_unpin(cx)
            })
            .await
            .ok()?;
            Some((stream, muxer))
        })
    }

    #[test]
    fn any_configuration_makes_a_muxer() {
        for streams in [0, 1, 512, 1024, 4096, usize::MAX] {
            for growth in [0, 1, 32 << 20] {
                Yamux::new(&Config {
                    streams_per_connection_max: streams,
                    window_growth_bytes: growth,
                    ..Config::default()
                });
            }
        }
    }

    #[tokio::test]
    async fn a_stream_split_over_two_tasks_carries_a_megabyte_both_ways() {
        const BYTES: usize = 1 << 20;
        let (mut client, server) = pair();
        let echo = async {
            let streams = inbound(server);
            futures::pin_mut!(streams);
            // The muxer has to be driven on while its stream is echoed.
            let first = streams.next().await.unwrap();
            let (mut read, mut write) = AsyncReadExt::split(first);
            let copy = async {
                futures::io::copy(&mut read, &mut write).await.unwrap();
                write.close().await.unwrap();
            };
            future::select(Box::pin(copy), Box::pin(streams.next())).await;
            // Until the other side is gone, or its last bytes would be cut off.
            while streams.next().await.is_some() {}
        };
        let ask = async move {
            let opened = future::poll_fn(|cx| client.poll_outbound_unpin(cx))
                .await
                .unwrap();
            let (mut read, mut write) = AsyncReadExt::split(opened);
            let send = async {
                write.write_all(&vec![5; BYTES]).await.unwrap();
                write.close().await.unwrap();
            };
            let mut seen = Vec::new();
            let receive = read.read_to_end(&mut seen);
            let both = future::join(send, receive);
            let drive = future::poll_fn(|cx| {
                let _ = client.poll_unpin(cx)?;
                Poll::<io::Result<()>>::Pending
            });
            future::select(Box::pin(both), drive).await;
            assert_eq!(seen, vec![5; BYTES]);
        };
        future::join(echo, ask).await;
    }

    #[tokio::test]
    async fn inbound_streams_wait_until_somebody_takes_them() {
        let (mut client, mut server) = pair();
        let mut opened = Vec::new();
        for index in 0..10u8 {
            let mut stream = future::poll_fn(|cx| client.poll_outbound_unpin(cx))
                .await
                .unwrap();
            let write = stream.write_all(std::slice::from_ref(&index));
            let drive = future::poll_fn(|cx| {
                let _ = client.poll_unpin(cx)?;
                Poll::<io::Result<()>>::Pending
            });
            future::select(Box::pin(write), drive).await;
            opened.push(stream);
        }
        let mut taken = 0;
        future::poll_fn(|cx| {
            let _ = client.poll_unpin(cx);
            // Only driven, not asked, until all ten are there.
            let _ = server.poll_unpin(cx);
            if server.waiting.len() < opened.len() {
                return Poll::Pending;
            }
            while server.poll_inbound_unpin(cx).is_ready() {
                taken += 1;
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(taken, 10);
    }
}
