//! The multiplexer against the one of rust-libp2p, against itself, and against peers that break
//! every rule.

use super::frame::{ACK, FIN, HEAD_BYTES, Head, Kind, RST, SYN};
use super::*;
use crate::swarm::tests::{Pipe, pipe};
use futures::future::{self, poll_fn};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxerExt;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

fn muxer(socket: Pipe, side: Side, settings: &Settings) -> Muxer<Pipe> {
    let parts = Parts {
        socket,
        side,
        sealer: Sealer::Plain,
        opener: Opener::Plain,
        incoming: Incoming::new(0),
        plain: Vec::new(),
        greeting: Vec::new(),
    };
    Muxer::start(parts, settings).unwrap()
}

fn settings() -> Settings {
    Settings::new(&Config::default(), &Meter::new(Instant::now()))
}

/// Drives a muxer for ever beside `work`.
async fn beside<S, T>(muxer: &mut Muxer<S>, work: impl Future<Output = T>) -> T
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let drive = poll_fn(|cx| {
        let _ = muxer.poll_unpin(cx)?;
        Poll::<io::Result<()>>::Pending
    });
    match future::select(Box::pin(work), drive).await {
        future::Either::Left((done, _)) => done,
        future::Either::Right((ended, _)) => panic!("the connection ended: {ended:?}"),
    }
}

async fn open(muxer: &mut Muxer<Pipe>) -> Stream {
    poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.unwrap()
}

async fn accept(muxer: &mut Muxer<Pipe>) -> Stream {
    poll_fn(|cx| {
        let _ = muxer.poll_unpin(cx)?;
        muxer.poll_inbound_unpin(cx)
    })
    .await
    .unwrap()
}

const BYTES: usize = 3_000_001;

fn content() -> Vec<u8> {
    (0..=250).cycle().take(BYTES).collect()
}

/// Sends and receives `BYTES`, both ways at once, and closes.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut read, mut write) = AsyncReadExt::split(stream);
    let send = async {
        write.write_all(&content()).await.unwrap();
        write.close().await.unwrap();
    };
    let mut seen = Vec::new();
    let (_, received) = future::join(send, read.read_to_end(&mut seen)).await;
    received.unwrap();
    assert!(seen == content());
}

#[tokio::test]
async fn two_of_ours_carry_megabytes_both_ways() {
    let ((left, right), settings) = (pipe(), settings());
    let mut dialler = muxer(left, Side::Dialer, &settings);
    let mut listener = muxer(right, Side::Listener, &settings);
    // Both are driven until both are through.
    let through = tokio::sync::Barrier::new(2);
    let carry = async |mut muxer: Muxer<Pipe>, stream| {
        let work = async {
            exchange(stream).await;
            through.wait().await
        };
        beside(&mut muxer, work).await;
        muxer
    };
    let ours = async {
        let stream = open(&mut dialler).await;
        carry(dialler, stream).await
    };
    let theirs = async {
        let stream = accept(&mut listener).await;
        carry(listener, stream).await
    };
    let (dialler, listener) = future::join(ours, theirs).await;
    for muxer in [&dialler, &listener] {
        assert_eq!(muxer.shared.lock().counts(), (0, 0, 0));
    }
    drop((dialler, listener));
    assert_eq!(settings.shares.in_use(), (0, 0));
    assert_eq!(
        settings.shares.growth_left(),
        Config::default().window_growth_total_bytes
    );
}

/// Drives the other implementation, handing over the streams it is asked for.
fn theirs(
    mut connection: yamux::Connection<Pipe>,
) -> impl futures::Stream<Item = yamux::Stream> + Unpin {
    Box::pin(futures::stream::poll_fn(move |cx| {
        connection
            .poll_next_inbound(cx)
            .map(|next| next.and_then(Result::ok))
    }))
}

#[tokio::test]
async fn the_other_implementation_takes_our_streams_and_we_take_its() {
    use futures::StreamExt;
    // They take ours.
    let (left, right) = pipe();
    let mut ours = muxer(left, Side::Dialer, &settings());
    let other = yamux::Connection::new(right, yamux::Config::default(), yamux::Mode::Server);
    let us = async {
        let stream = open(&mut ours).await;
        beside(&mut ours, exchange(stream)).await;
        poll_fn(|cx| ours.poll_close_unpin(cx)).await.unwrap();
    };
    let them = async {
        let mut streams = theirs(other);
        let stream = streams.next().await.unwrap();
        let end = async { assert!(streams.next().await.is_none(), "they heard the goodbye") };
        future::join(exchange(stream), end).await;
    };
    future::join(us, them).await;
    // We take theirs.
    let (left, right) = pipe();
    let mut ours = muxer(left, Side::Listener, &settings());
    let mut other = yamux::Connection::new(right, yamux::Config::default(), yamux::Mode::Client);
    let us = async {
        let stream = accept(&mut ours).await;
        beside(&mut ours, exchange(stream)).await;
        poll_fn(|cx| ours.poll_close_unpin(cx)).await.unwrap();
    };
    let them = async {
        let stream = poll_fn(|cx| other.poll_new_outbound(cx)).await.unwrap();
        let mut streams = theirs(other);
        let end = async { assert!(streams.next().await.is_none(), "they heard the goodbye") };
        future::join(exchange(stream), end).await;
    };
    future::join(us, them).await;
}

#[tokio::test]
async fn a_window_grows_for_a_stream_that_needs_it() {
    let ((left, right), settings) = (pipe(), settings());
    let mut dialler = muxer(left, Side::Dialer, &settings);
    let mut listener = muxer(right, Side::Listener, &settings);
    let total = 64 << 20;
    let send = async {
        let mut stream = open(&mut dialler).await;
        let piece = vec![7; 1 << 20];
        let all = async {
            for _ in 0..total / piece.len() {
                stream.write_all(&piece).await.unwrap();
            }
        };
        beside(&mut dialler, all).await;
        let mut end = [0];
        let read = async { stream.read(&mut end).await.unwrap_err() };
        let error = poll_fn(|cx| dialler.poll_unpin(cx));
        future::select(Box::pin(read), error).await;
    };
    let receive = async {
        let mut stream = accept(&mut listener).await;
        let (mut seen, mut buffer) = (0, vec![0; 1 << 20]);
        let all = async {
            while seen < total {
                seen += stream.read(&mut buffer).await.unwrap();
            }
        };
        beside(&mut listener, all).await;
        assert!(settings.shares.growth_left() < Config::default().window_growth_total_bytes);
        drop((stream, listener));
    };
    future::join(send, receive).await;
    assert_eq!(
        settings.shares.growth_left(),
        Config::default().window_growth_total_bytes
    );
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_reset_and_one_that_is_closed_is_not() {
    let ((left, right), settings) = (pipe(), settings());
    let mut dialler = muxer(left, Side::Dialer, &settings);
    let mut listener = muxer(right, Side::Listener, &settings);
    let mut dropped = open(&mut dialler).await;
    let mut closed = open(&mut dialler).await;
    dropped.write_all(b"a").await.unwrap();
    closed.write_all(b"b").await.unwrap();
    closed.close().await.unwrap();
    drop((dropped, closed));
    let drive = poll_fn(|cx| {
        let _ = dialler.poll_unpin(cx)?;
        Poll::<io::Result<()>>::Pending
    });
    let read = async {
        let (mut first, mut second) = (accept(&mut listener).await, accept(&mut listener).await);
        let mut seen = (Vec::new(), Vec::new());
        let reads = async {
            let first = first.read_to_end(&mut seen.0).await;
            (
                first.unwrap_err().kind(),
                second.read_to_end(&mut seen.1).await.unwrap(),
            )
        };
        let ends = beside(&mut listener, reads).await;
        assert_eq!(ends, (io::ErrorKind::ConnectionReset, 1));
        // What came before the end is not lost.
        assert_eq!(seen, (b"a".to_vec(), b"b".to_vec()));
    };
    future::select(Box::pin(read), drive).await;
}

/// A peer that writes frames by hand.
struct Hand {
    socket: Pipe,
}

impl Hand {
    async fn write(&mut self, kind: Kind, flags: u16, stream: u32, length: u32) {
        let head = Head {
            kind,
            flags,
            stream,
            length,
        };
        self.socket.write_all(&head.encode()).await.unwrap();
    }

    async fn read(&mut self) -> Head {
        let mut bytes = [0; HEAD_BYTES];
        self.socket.read_exact(&mut bytes).await.unwrap();
        Head::decode(bytes).unwrap()
    }
}

fn by_hand(settings: &Settings) -> (Muxer<Pipe>, Hand) {
    let (left, right) = pipe();
    (
        muxer(left, Side::Listener, settings),
        Hand { socket: right },
    )
}

/// The error with which a connection ends.
async fn error(muxer: &mut Muxer<Pipe>) -> io::Error {
    poll_fn(|cx| muxer.poll_unpin(cx)).await.unwrap_err()
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    let frames: [&[(Kind, u16, u32, u32)]; 8] = [
        &[(Kind::Data, SYN, 2, 0)],                              // our number
        &[(Kind::Data, SYN, 0, 0)],                              // no number
        &[(Kind::Data, SYN, 1, 0), (Kind::Data, SYN, 1, 0)],     // twice
        &[(Kind::Data, SYN, 1, (256 << 10) + 1)],                // more than a window
        &[(Kind::Data, SYN, 1, u32::MAX)],                       // far more
        &[(Kind::Data, SYN | FIN, 1, 0), (Kind::Data, 0, 1, 1)], // behind the end
        &[(Kind::GoAway, 0, 0, 1)],
        &[(Kind::GoAway, 0, 0, 9)],
    ];
    for frames in frames {
        let (mut ours, mut hand) = by_hand(&settings());
        for (kind, flags, stream, length) in frames {
            hand.write(*kind, *flags, *stream, *length).await;
        }
        error(&mut ours).await;
        assert_eq!(
            ours.shared.lock().counts().2,
            0,
            "nothing was kept of it: {frames:?}"
        );
    }
    for bytes in [
        [1; HEAD_BYTES],
        [0xff; HEAD_BYTES],
        [0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let (mut ours, mut hand) = by_hand(&settings());
        hand.socket.write_all(&bytes).await.unwrap();
        assert_eq!(error(&mut ours).await.kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn frames_for_streams_that_are_over_are_passed_over() {
    let (mut ours, mut hand) = by_hand(&settings());
    hand.write(Kind::Window, 0, 77, u32::MAX).await;
    hand.write(Kind::Data, RST, 79, 0).await;
    hand.write(Kind::Data, ACK | FIN, 78, 3).await;
    hand.socket.write_all(b"abc").await.unwrap();
    hand.write(Kind::Data, SYN, 81, 2).await;
    hand.socket.write_all(b"on").await.unwrap();
    hand.write(Kind::Window, 0, 81, u32::MAX).await;
    hand.write(Kind::Window, 0, 81, u32::MAX).await;
    let mut stream = accept(&mut ours).await;
    let mut seen = [0; 2];
    beside(&mut ours, stream.read_exact(&mut seen))
        .await
        .unwrap();
    assert_eq!(&seen, b"on");
}

#[tokio::test]
async fn pings_are_answered_and_a_flood_of_them_is_held_up_by_its_own_answers() {
    let (mut ours, mut hand) = by_hand(&settings());
    hand.write(Kind::Ping, SYN, 0, 7).await;
    let answer = async {
        loop {
            let head = hand.read().await;
            if head.has(ACK) {
                return head;
            }
        }
    };
    let answer = beside(&mut ours, answer).await;
    assert_eq!((answer.kind, answer.length), (Kind::Ping, 7));
    // Nobody reads the answers now.
    let flood = async {
        loop {
            hand.write(Kind::Ping, SYN, 0, 8).await;
        }
    };
    let mut flood = Box::pin(flood);
    while ours.shared.lock().may_receive() {
        poll_fn(|cx| {
            let _: Poll<()> = flood.as_mut().poll(cx);
            let _ = ours.poll_unpin(cx);
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }
    assert!(ours.shared.lock().out.len() < 1 << 20);
}

#[tokio::test]
async fn a_flood_of_streams_is_refused_and_ends_the_connection() {
    let settings = settings();
    let (mut ours, mut hand) = by_hand(&settings);
    let flood = async {
        for stream in (1..20_000).step_by(2) {
            let head = Head {
                kind: Kind::Data,
                flags: SYN,
                stream,
                length: 0,
            };
            if hand.socket.write_all(&head.encode()).await.is_err() {
                return;
            }
            // It does read the refusals.
            let mut refusals = [0; 4096];
            let _ = future::poll_immediate(hand.socket.read(&mut refusals)).await;
        }
    };
    let error = match future::select(Box::pin(error(&mut ours)), Box::pin(flood)).await {
        future::Either::Left((error, _)) => error,
        future::Either::Right(_) => panic!("every stream was written"),
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(
        ours.shared.lock().counts().0 <= 256,
        "what waits is bounded"
    );
    drop(ours);
    assert_eq!(settings.shares.in_use(), (0, 0));
}

#[tokio::test]
async fn streams_that_open_and_end_at_once_hold_nothing() {
    let settings = settings();
    let (mut ours, mut hand) = by_hand(&settings);
    for stream in (1..4_001).step_by(2) {
        hand.write(Kind::Data, SYN, stream, 10).await;
        hand.socket.write_all(&[1; 10]).await.unwrap();
        hand.write(Kind::Data, RST, stream, 0).await;
        drop(accept(&mut ours).await);
    }
    assert_eq!(ours.shared.lock().counts(), (0, 0, 0));
    assert_eq!(settings.shares.in_use(), (0, 0));
}

#[tokio::test]
async fn a_connection_that_fills_the_memory_of_all_is_not_read_until_its_streams_are() {
    let config = Config {
        unread_total_bytes_max: 300 << 10,
        ..Config::default()
    };
    let (mut ours, mut hand) = by_hand(&Settings::new(&config, &Meter::new(Instant::now())));
    let fill = async {
        for stream in [1, 3] {
            hand.write(Kind::Data, SYN, stream, 256 << 10).await;
            hand.socket.write_all(&vec![0; 256 << 10]).await.unwrap();
        }
        hand.write(Kind::Data, SYN, 5, 5).await;
        hand.socket.write_all(b"later").await.unwrap();
    };
    let read = async {
        let mut first = accept(&mut ours).await;
        let mut second = accept(&mut ours).await;
        // Until nothing more is taken.
        poll_fn(|cx| {
            let _ = ours.poll_unpin(cx);
            match ours.shared.lock().may_receive() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        let mut buffer = vec![0; 256 << 10];
        beside(&mut ours, first.read_exact(&mut buffer))
            .await
            .unwrap();
        beside(&mut ours, second.read_exact(&mut buffer))
            .await
            .unwrap();
        let mut third = accept(&mut ours).await;
        beside(&mut ours, third.read_exact(&mut buffer[..5]))
            .await
            .unwrap();
        assert_eq!(&buffer[..5], b"later");
    };
    future::join(fill, read).await;
}

/// Whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn who_reads_wakes_the_driver_also_while_the_other_side_takes_nothing() {
    let config = Config {
        unread_total_bytes_max: 0,
        ..Config::default()
    };
    let (mut ours, mut hand) = by_hand(&Settings::new(&config, &Meter::new(Instant::now())));
    let fill = async {
        hand.write(Kind::Data, SYN, 1, 256 << 10).await;
        hand.socket.write_all(&vec![0; 256 << 10]).await.unwrap();
        hand
    };
    let take = async {
        let first = accept(&mut ours).await;
        poll_fn(|cx| {
            let _ = ours.poll_unpin(cx);
            match ours.shared.lock().may_receive() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        first
    };
    let (mut first, _hand) = future::join(take, fill).await;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    // More than the pipe holds: the socket is full, and so is what may lie unread.
    let long = vec![1; 100 << 10];
    while ours.sending.is_empty() {
        let _ = Pin::new(&mut first).poll_write(&mut cx, &long);
        let _ = ours.poll_unpin(&mut cx);
    }
    // Whoever writes wakes it, and it finds the socket as full as before.
    let _ = Pin::new(&mut first).poll_write(&mut cx, &long);
    let _ = ours.poll_unpin(&mut cx);
    woken.0.store(false, Ordering::Relaxed);
    let mut buffer = vec![0; 256 << 10];
    first.read_exact(&mut buffer).await.unwrap();
    assert!(woken.0.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_peer_that_reads_nothing() {
    let ((left, _unread), settings) = (pipe(), settings());
    let mut ours = muxer(left, Side::Dialer, &settings);
    let mut stream = open(&mut ours).await;
    poll_fn(|cx| {
        while Pin::new(&mut stream).poll_write(cx, &[7; 4096])?.is_ready() {}
        let _ = ours.poll_unpin(cx)?;
        Poll::Ready(io::Result::Ok(()))
    })
    .await
    .unwrap();
    let mut close = Box::pin(poll_fn(|cx| ours.poll_close_unpin(cx)));
    assert!(futures::poll!(&mut close).is_pending());
    assert!(tokio::time::timeout(CLOSE_MAX * 2, close).await.is_ok());
}

#[tokio::test]
async fn whoever_does_not_speak_yamux_is_told_apart() {
    let (left, mut right) = pipe();
    let parts = Parts {
        socket: left,
        side: Side::Dialer,
        sealer: Sealer::Plain,
        opener: Opener::Plain,
        incoming: Incoming::new(0),
        plain: Vec::new(),
        greeting: b"\x0d/yamux/1.0.0\n".to_vec(),
    };
    let mut ours = Muxer::start(parts, &settings()).unwrap();
    right.write_all(b"\x03na\n").await.unwrap();
    let error = error(&mut ours).await;
    assert!(
        error.to_string().contains("does not speak Yamux"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any frames in any pieces: an error or not, never a panic, and nothing is left.
    #[test]
    fn any_frames_leave_nothing_behind(
        frames in proptest::collection::vec(
            (0u8..5, any::<u16>(), 0u32..8, prop_oneof![0u32..20, any::<u32>()]), 0..40),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        piece in 1usize..50,
    ) {
        let settings = settings();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut hand) = by_hand(&settings);
            let mut bytes = Vec::new();
            for (kind, flags, stream, length) in frames {
                bytes.extend([0, kind]);
                bytes.extend((flags & 0xf).to_be_bytes());
                bytes.extend(stream.to_be_bytes());
                bytes.extend(length.to_be_bytes());
                bytes.extend(&body[..body.len().min(length as usize)]);
            }
            let mut streams = Vec::new();
            for part in bytes.chunks(piece) {
                hand.socket.write_all(part).await.unwrap();
                poll_fn(|cx| {
                    let _ = ours.poll_unpin(cx);
                    while let Poll::Ready(Ok(stream)) = ours.poll_inbound_unpin(cx) {
                        streams.push(stream);
                    }
                    Poll::Ready(())
                })
                .await;
                if ours.shared.lock().counts().0 > 4 {
                    streams.clear();
                }
            }
            drop((streams, ours));
        });
        prop_assert_eq!(settings.shares.in_use(), (0, 0));
    }
}
