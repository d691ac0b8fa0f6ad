//! Doors for the fuzz targets into what is read from peers before anything else.
//!
//! Each function says whether it took the input whole, and fails if what must hold does not.

use super::engine::{Engine, WANTS_PER_PEER_MAX};
use super::message::{Absence, Change, Entry, Message, MessageError, Scope, Version, WantKind};
use super::streams::{self, Holds, Intake, Sinks};
use super::worker::Input;
use crate::Limits;
use crate::throttle::Throttle;
use bytes::Bytes;
use cairn_store::Cid;
use cairn_store::cid::{HashKind, Multihash};
use futures::{AsyncRead, FutureExt};
use libp2p::PeerId;
use prometheus::Registry;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A message that was read.
#[derive(Debug)]
pub struct Decoded(Message);

/// Reads one message, without its length.
pub fn decode(bytes: &Bytes) -> Option<Decoded> {
    Message::decode(bytes).ok().map(Decoded)
}

/// How many lines and blocks are read at most; what [`decode`] takes grows with them.
pub fn lines(bytes: &[u8]) -> usize {
    Message::lines(bytes).read()
}

impl Decoded {
    /// Whether all of it was understood.
    pub fn is_whole(&self) -> bool {
        self.0.skipped == 0
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.0.wants.len() + self.0.presences.len()
    }

    /// How many blocks.
    pub fn blocks(&self) -> usize {
        self.0.blocks.len()
    }

    /// Written and read again it is the same, in the newest version; older ones can be read.
    pub fn reads_back(&self) {
        for version in Version::ALL {
            let written = body(&self.0, version);
            let again = Message::decode(&written);
            let Ok(again) = again else {
                unreachable!("what was written cannot be read: {again:?}");
            };
            assert_eq!(again.skipped, 0);
            assert_eq!(again.blocks.len(), self.0.blocks.len());
            if version.has_presences() {
                let whole = Message {
                    skipped: 0,
                    ..self.0.clone()
                };
                assert_eq!(again, whole);
            }
        }
    }
}

/// What is kept for one peer that asks for as much as it can, and reads no answer.
#[derive(Debug)]
pub struct Kept {
    _engine: Engine,
}

/// Keeps the wants of such a peer, for what is not here, under the longest names that are taken.
pub fn kept() -> Kept {
    let (mut engine, peer) = (Engine::default(), PeerId::random());
    engine.connected(peer);
    for first in (0..FLOOD).step_by(FLOOD_STEP) {
        let entries: Vec<Entry> = (first..first + FLOOD_STEP).filter_map(long_want).collect();
        assert_eq!(entries.len(), FLOOD_STEP);
        engine.wants(peer, Scope::Change, &entries);
        while let Some((peer, cids)) = engine.next_lookup() {
            let absent: Vec<_> = cids.into_iter().map(|cid| (cid, None)).collect();
            engine.looked_up(peer, &absent);
        }
    }
    assert_eq!(engine.held().0, WANTS_PER_PEER_MAX);
    Kept { _engine: engine }
}

fn long_want(number: usize) -> Option<Entry> {
    let mut digest = [7; 64];
    *digest.first_chunk_mut()? = number.to_be_bytes();
    let hash = Multihash::wrap(HashKind::Sha2_512.code(), &digest).ok()?;
    Some(Entry {
        cid: Cid::new_v1(u64::MAX >> 1, hash),
        change: Change::Want {
            priority: 1,
            kind: WantKind::Have,
            absence: Absence::Tell,
        },
    })
}

/// A message as written, without its length, which is right.
fn body(message: &Message, version: Version) -> Bytes {
    let whole = Bytes::from(message.encode(version).concat());
    let read = unsigned_varint::decode::usize(&whole).map(|(length, rest)| (length, rest.len()));
    let Ok((length, rest)) = read else {
        unreachable!("a message without a length: {read:?}");
    };
    assert_eq!(length, rest);
    whole.slice(whole.len() - rest..)
}

/// A stream that holds `data` and comes in `pieces`, over and over, as an honest or a hostile peer
/// may send it. What is handed on is what the frames hold, up to the first that holds no message.
pub fn framing(pieces: &[u8], data: &[u8]) -> bool {
    let (expected, whole) = frames(data);
    let (inputs, mut heard) = mpsc::channel(QUEUE);
    let (unverified, mut blocks) = mpsc::channel(QUEUE);
    let sinks = Sinks::new(inputs, unverified, Holds::unseen());
    let Ok(throttle) = Throttle::new(Limits::default(), &Registry::new()) else {
        unreachable!("a registry of its own has no other metrics");
    };
    let intake = Intake::new(PeerId::random(), throttle.gate());
    intake.wanted.store(1, Ordering::Relaxed);
    let mut stream = Pieces {
        pieces: pieces.iter().cycle(),
        data,
    };
    let mut words = Vec::new();
    let mut payloads = Vec::new();
    let reading = async {
        let mut read = std::pin::pin!(streams::read_to_end(&mut stream, &intake, &sinks));
        let mut idle = 0;
        loop {
            let ended = futures::poll!(&mut read);
            idle += 1;
            while let Ok(input) = heard.try_recv() {
                idle = 0;
                if let Input::Message { message, .. } = input {
                    words.push(message);
                }
            }
            while let Ok(unverified) = blocks.try_recv() {
                idle = 0;
                payloads.push(unverified.blocks);
            }
            if let Poll::Ready(ended) = ended {
                return ended;
            }
            assert!(idle < IDLE_MAX, "it waits for what never comes");
            // The runtime has everybody pause now and then.
            tokio::task::yield_now().await;
        }
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
    else {
        unreachable!("a runtime that needs nothing");
    };
    let ended = runtime.block_on(reading.boxed_local());
    assert_eq!(ended, whole);
    let mut payloads = payloads.into_iter();
    assert_eq!(words.len(), expected.len());
    for (heard, mut message) in words.into_iter().zip(expected) {
        let blocks = std::mem::take(&mut message.blocks);
        assert_eq!(heard, message);
        if !blocks.is_empty() {
            assert_eq!(payloads.next(), Some(blocks));
        }
    }
    assert_eq!(payloads.next(), None);
    ended
}

/// Bytes of the longest length that is allowed, of 4 MiB.
const LENGTH_BYTES: usize = 4;

/// The messages of a stream, and whether there is nothing else in it: as plain as can be.
fn frames(mut data: &[u8]) -> (Vec<Message>, bool) {
    let mut messages = Vec::new();
    while !data.is_empty() {
        let Ok((length, rest)) = unsigned_varint::decode::usize(data) else {
            return (messages, false);
        };
        // The library lets bits beyond the number pass; no length that is allowed takes so many bytes.
        if data.len() - rest.len() > LENGTH_BYTES {
            return (messages, false);
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else {
            return (messages, false);
        };
        let message: Result<Message, MessageError> =
            Message::decode(&Bytes::copy_from_slice(frame));
        let Ok(message) = message else {
            return (messages, false);
        };
        messages.push(message);
        data = rest;
    }
    (messages, true)
}

struct Pieces<'a> {
    pieces: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    data: &'a [u8],
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let piece = self
            .pieces
            .next()
            .map_or(usize::MAX, |size| usize::from(*size) + 1);
        let count = piece.min(out.len()).min(self.data.len());
        let (now, later) = self.data.split_at(count);
        if let Some(out) = out.get_mut(..count) {
            out.copy_from_slice(now);
        }
        self.data = later;
        Poll::Ready(Ok(count))
    }
}

/// Wants of one who asks for too much, and how many at a time.
const FLOOD: usize = 8 * WANTS_PER_PEER_MAX;
const FLOOD_STEP: usize = 16;
/// Reports that wait until they are looked at.
const QUEUE: usize = 64;
/// Turns without anything new, of which the runtime may ask for one.
const IDLE_MAX: usize = 4;
