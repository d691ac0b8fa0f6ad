//! Readers against peers that are slow or talk too much, in simulated time.

use super::tests::{open_gate, payload};
use super::*;
use crate::bitswap::message::{Absence, Change, Entry, Version, WantKind};
use crate::bitswap::seeds;
use crate::bitswap::streams::Holds;
use crate::bitswap::streams::credit::LINES_AT_ONCE;
use futures::FutureExt;
use futures::future::join;
use std::task::Poll;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

struct Bench {
    sinks: Sinks,
    intake: Intake,
    heard: mpsc::Receiver<Input>,
    blocks: mpsc::Receiver<Unverified>,
}

fn bench() -> Bench {
    let (inputs, heard) = mpsc::channel(1024);
    let (unverified, blocks) = mpsc::channel(1);
    Bench {
        sinks: Sinks::new(inputs, unverified, Holds::unseen()),
        intake: Intake::new(seeds::peer(1), open_gate()),
        heard,
        blocks,
    }
}

async fn drips(mut theirs: DuplexStream, pause: Duration) {
    // A length of 4 MiB.
    theirs.write_all(&[0x80, 0x80, 0x80, 0x02]).await.unwrap();
    while theirs.write_all(&[1]).await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_one_byte_a_second_is_given_up_at_its_slowest_rate() {
    let bench = bench();
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let start = Instant::now();
    let read = async {
        let mut ours = ours.compat();
        read_all(&mut ours, &bench.intake, &bench.sinks).await
    };
    let (read, ()) = join(read, drips(theirs, Duration::from_secs(1))).await;
    assert!(matches!(read, Err(ReadError::TooSlow)), "{read:?}");
    assert!(start.elapsed() <= BODY_IDLE + Duration::from_secs(2));
    assert_eq!(bench.sinks.side_room.available_permits(), SIDE_ROOM_KIB);
}

/// Sends a message at a rate that is slow and no attack: whether it was read to its end.
async fn reads_slow_message(bench: &Bench) -> Result<(), ReadError> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let read = async {
        let mut ours = ours.compat();
        read_all(&mut ours, &bench.intake, &bench.sinks).await
    };
    let write = async {
        let bytes = payload().encode(Version::V1_2).concat();
        for piece in bytes.chunks(SLOW_BYTES_A_SECOND) {
            if theirs.write_all(piece).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(theirs);
    };
    join(read, write).await.0
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_is_read_to_its_end_unless_others_may_want_its_room() {
    let mut bench = bench();
    bench.intake.wanted.store(1, Ordering::Relaxed);
    let start = Instant::now();
    assert!(reads_slow_message(&bench).await.is_ok());
    let came = bench.blocks.recv().await.unwrap();
    assert_eq!(came.blocks.len(), 1);
    drop(came);
    let least = payload().blocks[0].data.len() / SLOW_BYTES_A_SECOND;
    assert!(start.elapsed() > Duration::from_secs(least as u64));
    let most_of_it = u32::try_from(ROOM_KIB - ROOM_KIB / CROWDED_PART + 1).unwrap();
    let others = bench.sinks.room.try_acquire_many(most_of_it).unwrap();
    let read = reads_slow_message(&bench).await;
    assert!(matches!(read, Err(ReadError::TooSlow)), "{read:?}");
    drop(others);
    // Others' room is theirs.
    let most_of_it = u32::try_from(SIDE_ROOM_KIB - SIDE_ROOM_KIB / CROWDED_PART + 1).unwrap();
    let _others = bench.sinks.side_room.try_acquire_many(most_of_it).unwrap();
    assert!(reads_slow_message(&bench).await.is_ok());
    drop(bench.blocks.recv().await);
    bench.intake.wanted.store(0, Ordering::Relaxed);
    let read = reads_slow_message(&bench).await;
    assert!(matches!(read, Err(ReadError::TooSlow)), "{read:?}");
}

/// Of a modem.
const SLOW_BYTES_A_SECOND: usize = 2 << 10;

#[tokio::test(start_paused = true)]
async fn a_message_of_one_byte_in_ten_seconds_and_a_length_that_never_ends_are_given_up() {
    let bench = bench();
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let read = async {
        let mut ours = ours.compat();
        read_all(&mut ours, &bench.intake, &bench.sinks).await
    };
    let (read, ()) = join(read, drips(theirs, Duration::from_secs(10))).await;
    assert!(matches!(read, Err(ReadError::TooSlow)), "{read:?}");
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    theirs.write_all(&[0x80]).await.unwrap();
    let start = Instant::now();
    let read = read_all(&mut ours.compat(), &bench.intake, &bench.sinks).await;
    assert!(matches!(read, Err(ReadError::TooSlow)), "{read:?}");
    assert_eq!(start.elapsed().as_secs(), BODY_IDLE.as_secs());
}

#[tokio::test]
async fn the_lines_of_one_peer_wait_in_its_streams_and_not_before_the_worker() {
    let mut bench = bench();
    let entry = |number| Entry {
        cid: seeds::raw(number),
        change: Change::Want {
            priority: 1,
            kind: WantKind::Have,
            absence: Absence::Tell,
        },
    };
    let message = Message {
        wants: (0..MESSAGE_WANTS_MAX as u64).map(entry).collect(),
        ..Message::default()
    };
    let whole = message.encode(Version::V1_2).concat().repeat(3);
    let mut streams = futures::stream::FuturesUnordered::new();
    for _ in 0..8 {
        let whole = whole.clone();
        let (intake, sinks) = (&bench.intake, &bench.sinks);
        streams.push(async move { read_all(&mut &whole[..], intake, sinks).await });
    }
    let mut all = futures::StreamExt::collect::<Vec<_>>(&mut streams).boxed_local();
    let (mut heard, mut idle) = (0, 0);
    while heard < 24 {
        drop(futures::poll!(&mut all));
        // One with more lines than a peer may have waiting is alone.
        let first = bench.heard.try_recv();
        assert!(bench.heard.try_recv().is_err(), "a second one waits");
        if let Ok(Input::Message {
            message, hearing, ..
        }) = first
        {
            assert_eq!(message.wants.len(), MESSAGE_WANTS_MAX);
            assert_eq!(bench.intake.lines.available_permits(), 0);
            let left = LINES_IN_ALL_MAX - MESSAGE_WANTS_MAX;
            assert_eq!(bench.sinks.lines.available_permits(), left);
            heard += 1;
            idle = 0;
            // Here it is not for want of credit that it waits.
            bench.intake.credit.pay_back(MESSAGE_WANTS_MAX);
            drop(hearing);
        }
        idle += 1;
        assert!(idle < 1000, "nobody is heard");
        tokio::task::yield_now().await;
    }
    drop(all);
    assert_eq!(heard, 24);
    assert_eq!(bench.intake.lines.available_permits(), LINES_MAX);
    assert_eq!(bench.sinks.lines.available_permits(), LINES_IN_ALL_MAX);
}

/// How many messages are heard now, before any time passes.
async fn heard_now(bench: &mut Bench, reading: &mut (impl Future<Output = ()> + Unpin)) -> usize {
    let mut heard = 0;
    for _ in 0..10_000 {
        let _: Poll<()> = futures::poll!(&mut *reading);
        if let Ok(Input::Message { .. }) = bench.heard.try_recv() {
            heard += 1;
        }
        tokio::task::yield_now().await;
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_words_is_not_read_until_it_is_paid_for_whatever_stream_it_comes_on() {
    let mut bench = bench();
    let entry = |number| Entry {
        cid: seeds::raw(number),
        change: Change::Cancel,
    };
    let message = Message {
        wants: (0..MESSAGE_WANTS_MAX as u64).map(entry).collect(),
        ..Message::default()
    };
    let whole = message.encode(Version::V1_2).concat();
    let intake = Arc::new(Intake::new(seeds::peer(2), open_gate()));
    let sinks = bench.sinks.clone();
    // One stream for each message, as js-libp2p has it.
    let flood = (0..100).map(|_| {
        let (whole, intake, sinks) = (whole.clone(), Arc::clone(&intake), sinks.clone());
        async move { drop(read_all(&mut &whole[..], &intake, &sinks).await) }
    });
    let mut reading = Box::pin(async { drop(futures::future::join_all(flood).await) });
    let first = heard_now(&mut bench, &mut reading).await;
    // What was saved up, and no more than those who were read at the same time.
    let saved = usize::try_from(LINES_AT_ONCE).unwrap() / MESSAGE_WANTS_MAX;
    let most = saved + READERS_WORKING_MAX;
    assert!((saved..=most).contains(&first), "{first}");
    assert!(bench.sinks.holds.is_holding());
    assert!(intake.is_waiting(), "its silence is our doing");
    assert_eq!(bench.sinks.side_room.available_permits(), SIDE_ROOM_KIB);
    assert_eq!(heard_now(&mut bench, &mut reading).await, 0);
    // Whoever is sent blocks is heard at once.
    intake.credit.pay_back(100 * MESSAGE_WANTS_MAX);
    assert!(heard_now(&mut bench, &mut reading).await > 0);
    // And all are in the end.
    let mut heard = 0;
    while heard < 20 {
        tokio::time::advance(Duration::from_millis(100)).await;
        heard += heard_now(&mut bench, &mut reading).await;
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_we_wait_for_are_read_however_much_their_sender_said() {
    let mut bench = bench();
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    bench.intake.wanted.store(9, Ordering::Relaxed);
    let payload = payload().encode(Version::V1_2).concat();
    let (intake, sinks) = (Arc::new(bench.intake), bench.sinks.clone());
    let reader = Arc::clone(&intake);
    let mut ours = ours.compat();
    let mut reading = Box::pin(async move { drop(read_all(&mut ours, &reader, &sinks).await) });
    theirs.write_all(&payload).await.unwrap();
    while bench.blocks.try_recv().is_err() {
        let _: Poll<()> = futures::poll!(&mut reading);
    }
    intake.credit.charge(1_000_000, &bench.sinks.holds);
    theirs.write_all(&payload).await.unwrap();
    let start = Instant::now();
    for _ in 0..1000 {
        let _: Poll<()> = futures::poll!(&mut reading);
        tokio::task::yield_now().await;
    }
    assert!(bench.blocks.try_recv().is_ok(), "the block waits");
    assert_eq!(start.elapsed(), Duration::ZERO);
    bench.heard.close();
}
