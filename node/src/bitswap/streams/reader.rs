//! A reader for every inbound stream: one message after the other, each with room taken for it before
//! it is read, and handed to whom it concerns.

use super::credit::{Credit, Holds};
use super::pace::{BODY_IDLE, CROWDED_BYTES_A_SECOND, Pace};
use crate::bitswap::client::SLOWEST_BYTES_A_SECOND;
use crate::bitswap::message::{
    MESSAGE_BYTES_MAX, MESSAGE_PRESENCES_MAX, MESSAGE_WANTS_MAX, Message, MessageError, Payload,
};
use crate::bitswap::worker::Input;
use crate::throttle::{Gate, Way};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

#[cfg(test)]
mod hostile;

/// What the readers of one peer share with the worker.
#[derive(Debug)]
pub(in crate::bitswap) struct Intake {
    pub(in crate::bitswap) peer: PeerId,
    /// The peer's part of what may pass.
    pub(in crate::bitswap) gate: Arc<Gate>,
    /// How much is wanted of this peer now: nothing means that its blocks are not even hashed.
    pub(in crate::bitswap) wanted: AtomicUsize,
    /// What its words cost, and how it pays.
    pub(in crate::bitswap) credit: Credit,
    /// Bytes read so far, without those of messages that held no blocks: whoever owes some is not waited for
    /// because of words.
    pub(in crate::bitswap) bytes: AtomicU64,
    /// Readers at work, and readers waiting for that.
    pub(in crate::bitswap) working: Semaphore,
    pub(in crate::bitswap) readers: AtomicUsize,
    /// This peer's part of the room for messages, in KiB.
    share: Arc<Semaphore>,
    /// Whether it has the share of those that delivered.
    trusted: AtomicBool,
    /// Messages of it that wait for us: for room, to be hashed, to be stored.
    waiting: Arc<AtomicUsize>,
    /// Lines that may be decoded and not yet heard by the worker.
    lines: Arc<Semaphore>,
}

impl Intake {
    pub(in crate::bitswap) fn new(peer: PeerId, gate: Gate) -> Self {
        Self {
            peer,
            gate: Arc::new(gate),
            wanted: AtomicUsize::new(0),
            credit: Credit::new(),
            bytes: AtomicU64::new(0),
            working: Semaphore::new(READERS_WORKING_MAX),
            readers: AtomicUsize::new(0),
            share: Arc::new(Semaphore::new(SHARE_UNPROVEN_KIB)),
            trusted: AtomicBool::new(false),
            waiting: Arc::default(),
            lines: Arc::new(Semaphore::new(LINES_MAX)),
        }
    }

    /// The peer delivered what was wanted: it gets a full share of the room from now on.
    pub(in crate::bitswap) fn trust(&self) {
        if !self.trusted.swap(true, Ordering::Relaxed) {
            self.share.add_permits(SHARE_KIB - SHARE_UNPROVEN_KIB);
        }
    }

    /// Something of the peer waits for us for as long as what is returned lives.
    pub(in crate::bitswap) fn waits(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(&self.waiting))
    }

    /// Whether something that the peer sent waits for us, so that its silence may be our doing.
    pub(in crate::bitswap) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether one more stream is taken.
    pub(in crate::bitswap) fn admit(&self) -> bool {
        let admitted = self.readers.fetch_add(1, Ordering::Relaxed) < READERS_MAX;
        if !admitted {
            self.readers.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }
}

/// Something that waits for us.
#[derive(Debug)]
pub(in crate::bitswap) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room that a message takes while it is read, verified and stored.
#[derive(Debug)]
pub(in crate::bitswap) struct Room {
    of: Of,
    _share: OwnedSemaphorePermit,
    /// Of the part for those that have delivered nothing yet.
    _strange: Option<OwnedSemaphorePermit>,
    _whole: OwnedSemaphorePermit,
}

/// Which room a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// That for messages of whom something is wanted.
    Main,
    /// That for all others.
    Side,
}

/// Leave for a message to be decoded, held until the worker has heard it: the lines of one peer wait in its
/// own streams, not in the queue that all share.
#[derive(Debug, Default)]
pub(in crate::bitswap) struct Hearing {
    _own: Option<OwnedSemaphorePermit>,
    _whole: Option<OwnedSemaphorePermit>,
}

/// Blocks as they came, and the room they take until they are stored.
#[derive(Debug)]
pub(in crate::bitswap) struct Unverified {
    pub(in crate::bitswap) peer: PeerId,
    pub(in crate::bitswap) blocks: Vec<Payload>,
    /// How many more blocks were wanted of this peer when these came.
    pub(in crate::bitswap) expected: usize,
    pub(in crate::bitswap) room: Room,
    pub(in crate::bitswap) waiting: Waiting,
}

/// Where readers give what they read.
#[derive(Debug, Clone)]
pub(in crate::bitswap) struct Sinks {
    pub(in crate::bitswap) inputs: mpsc::Sender<Input>,
    pub(in crate::bitswap) unverified: mpsc::Sender<Unverified>,
    /// Room for messages that are being read or verified, in KiB.
    pub(in crate::bitswap) room: Arc<Semaphore>,
    /// How much of it all may have together that have delivered nothing yet.
    strange_room: Arc<Semaphore>,
    /// The same for peers of whom nothing is wanted, so that they cannot fill the other.
    pub(in crate::bitswap) side_room: Arc<Semaphore>,
    /// Lines of all peers that are decoded and not yet heard.
    pub(in crate::bitswap) lines: Arc<Semaphore>,
    /// How long a message may pause, and is looked at for whether it is too slow.
    pub(in crate::bitswap) body_idle: Duration,
    /// What is counted of peers that say too much.
    holds: Holds,
}

impl Sinks {
    pub(in crate::bitswap) fn new(
        inputs: mpsc::Sender<Input>,
        unverified: mpsc::Sender<Unverified>,
        holds: Holds,
    ) -> Self {
        Self {
            inputs,
            unverified,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            strange_room: Arc::new(Semaphore::new(STRANGE_ROOM_KIB)),
            side_room: Arc::new(Semaphore::new(SIDE_ROOM_KIB)),
            lines: Arc::new(Semaphore::new(LINES_IN_ALL_MAX)),
            body_idle: BODY_IDLE,
            holds,
        }
    }
}

impl Room {
    /// Whether others may soon wait for the room of which this is.
    fn is_crowded(&self, sinks: &Sinks) -> bool {
        let crowded = |room: &Semaphore, whole| room.available_permits() < whole / CROWDED_PART;
        match self.of {
            Of::Side => crowded(&sinks.side_room, SIDE_ROOM_KIB),
            Of::Main => {
                let is_strange = self._strange.is_some();
                crowded(&sinks.room, ROOM_KIB)
                    || is_strange && crowded(&sinks.strange_room, STRANGE_ROOM_KIB)
            }
        }
    }
}

/// A message being read.
struct Reading<'a> {
    intake: &'a Intake,
    sinks: &'a Sinks,
    /// What it takes of it by now.
    room: Option<&'a Room>,
}

impl Reading<'_> {
    /// How fast it must come. A slow one does no harm while there is room for others; and the peer may send several
    /// at once, each of which has a part of what it can.
    fn slowest(&self) -> u64 {
        if self.room.is_some_and(|room| room.is_crowded(self.sinks)) {
            return CROWDED_BYTES_A_SECOND;
        }
        let working = READERS_WORKING_MAX - self.intake.working.available_permits();
        SLOWEST_BYTES_A_SECOND / working.max(1) as u64
    }
}

/// Why a reader stopped before the end of its stream.
#[derive(Debug, thiserror::Error)]
pub(in crate::bitswap) enum ReadError {
    #[error(transparent)]
    Stream(#[from] io::Error),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the stream ended inside a message")]
    Cut,
    #[error("the peer sent too slowly")]
    TooSlow,
    #[error("stopping")]
    Stopping,
}

/// Reads one inbound stream to its end.
pub(in crate::bitswap) async fn read(mut stream: Stream, intake: Arc<Intake>, sinks: Sinks) {
    let outcome = read_all(&mut stream, &intake, &sinks).await;
    intake.readers.fetch_sub(1, Ordering::Relaxed);
    if let Err(error) = outcome {
        tracing::debug!(peer = %intake.peer, %error, "stream ended");
        match error {
            ReadError::Message(_) => {
                drop(sinks.inputs.send(Input::BadMessage(intake.peer)).await);
            }
            ReadError::Cut | ReadError::TooSlow => drop(sinks.inputs.send(Input::Abandoned).await),
            ReadError::Stream(_) | ReadError::Stopping => {}
        }
    }
}

/// Reads a stream as a peer's would be read; whether it held messages to its end.
#[cfg(feature = "fuzzing")]
pub(in crate::bitswap) async fn read_to_end<S: AsyncRead + Unpin>(
    stream: &mut S,
    intake: &Intake,
    sinks: &Sinks,
) -> bool {
    read_all(stream, intake, sinks).await.is_ok()
}

async fn read_all<S: AsyncRead + Unpin>(
    stream: &mut S,
    intake: &Intake,
    sinks: &Sinks,
) -> Result<(), ReadError> {
    let mut carries_blocks = false;
    loop {
        let Ok(first) = timeout(STREAM_IDLE, read_byte(stream)).await else {
            return Ok(()); // Between messages nobody owes us anything.
        };
        let Some(first) = first? else {
            return Ok(());
        };
        let working = take_turn(carries_blocks, intake, sinks).await;
        let Some((bytes, room)) = read_message(stream, first, intake, sinks).await? else {
            return Err(ReadError::Cut);
        };
        let lines = Message::lines(&bytes);
        let hearing = take_hearing(lines.read(), intake, sinks).await?;
        let message = Message::decode(&bytes)?;
        if message.blocks.is_empty() {
            let words = bytes.len() as u64;
            intake.bytes.fetch_sub(words, Ordering::Relaxed);
        }
        drop(bytes);
        let is_owed = intake.wanted.load(Ordering::Relaxed) > 0;
        carries_blocks = is_owed && lines.wants == 0 && !message.blocks.is_empty();
        if !carries_blocks {
            intake.credit.charge(lines.wants, &sinks.holds);
        }
        deliver(message, (room, hearing), intake, sinks).await?;
        drop(working);
    }
}

/// Many streams may be open; only so many are read from at once, and one that carries words only when
/// what the peer said before is paid for. Blocks that we wait for do not wait behind words.
async fn take_turn<'a>(
    carries_blocks: bool,
    intake: &'a Intake,
    sinks: &Sinks,
) -> Result<SemaphorePermit<'a>, AcquireError> {
    let _turn = if carries_blocks {
        None
    } else {
        let _waiting = intake.waits();
        Some(intake.credit.settled(&sinks.holds).await)
    };
    // What stands before it here is the peer's own; the next is not let past its credit meanwhile.
    intake.working.acquire().await
}

async fn deliver(
    mut message: Message,
    (room, hearing): (Room, Hearing),
    intake: &Intake,
    sinks: &Sinks,
) -> Result<(), ReadError> {
    let peer = intake.peer;
    let blocks = std::mem::take(&mut message.blocks);
    let words = Input::Message {
        peer,
        message,
        hearing,
    };
    sinks
        .inputs
        .send(words)
        .await
        .map_err(|_| ReadError::Stopping)?;
    if blocks.is_empty() {
        return Ok(());
    }
    let wanted = intake.wanted.load(Ordering::Relaxed);
    if wanted == 0 {
        let bytes = blocks.iter().map(|block| block.data.len() as u64).sum();
        let unwanted = Input::Unwanted { peer, bytes };
        return sinks
            .inputs
            .send(unwanted)
            .await
            .map_err(|_| ReadError::Stopping);
    }
    let unverified = Unverified {
        peer,
        expected: wanted.saturating_sub(blocks.len()),
        blocks,
        room,
        waiting: intake.waits(),
    };
    sinks
        .unverified
        .send(unverified)
        .await
        .map_err(|_| ReadError::Stopping)
}

async fn read_byte<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let count = stream.read(&mut byte).await?;
    let [byte] = byte;
    Ok((count > 0).then_some(byte))
}

/// Reads the rest of a length and what it announces. Room is taken when the first
/// [`TRUSTED_BYTES`] of a longer message are there: a length alone costs nobody anything.
async fn read_message<S: AsyncRead + Unpin>(
    stream: &mut S,
    first: u8,
    intake: &Intake,
    sinks: &Sinks,
) -> Result<Option<(Bytes, Room)>, ReadError> {
    let mut length = u64::from(first & 0x7f);
    let (mut byte, mut at) = (first, 0);
    let idle = sinks.body_idle;
    while byte & 0x80 != 0 {
        at += 1;
        let next = timeout(idle, read_byte(stream));
        byte = match next.await.map_err(|_| ReadError::TooSlow)?? {
            Some(byte) => byte,
            None => return Ok(None),
        };
        // Four groups hold every length that is allowed; an overlong form is a lie.
        if at >= LENGTH_BYTES_MAX || (byte == 0 && at > 0) {
            return Err(MessageError::Length.into());
        }
        length |= u64::from(byte & 0x7f) << (7 * at);
    }
    let whole = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MESSAGE_BYTES_MAX)
        .ok_or(MessageError::TooLarge(length))?;
    let mut pace = Pace::new(idle);
    let mut reading = Reading {
        intake,
        sinks,
        room: None,
    };
    let mut buffer = vec![0; whole.min(TRUSTED_BYTES)];
    if !fill(stream, &mut buffer, &mut pace, &reading).await? {
        return Ok(None);
    }
    let kib = u32::try_from(whole.div_ceil(1024)).unwrap_or(u32::MAX);
    let room = take_room(kib, intake, sinks).await?;
    if whole > TRUSTED_BYTES {
        let mut large = vec![0; whole];
        let (front, rest) = large.split_at_mut(TRUSTED_BYTES);
        front.copy_from_slice(&buffer);
        pace.begin();
        reading.room = Some(&room);
        if !fill(stream, rest, &mut pace, &reading).await? {
            return Ok(None);
        }
        buffer = large;
    }
    Ok(Some((Bytes::from(buffer), room)))
}

/// The peer's own share comes first: whoever waits for that holds nothing that others wait for.
pub(in crate::bitswap) async fn take_room(
    kib: u32,
    intake: &Intake,
    sinks: &Sinks,
) -> Result<Room, ReadError> {
    let stopping = |_| ReadError::Stopping;
    let share = Arc::clone(&intake.share).acquire_many_owned(kib);
    let share = share.await.map_err(stopping)?;
    let _waiting = intake.waits();
    let is_wanted = intake.wanted.load(Ordering::Relaxed) > 0;
    let is_strange = !intake.trusted.load(Ordering::Relaxed);
    let strange = if is_wanted && is_strange {
        let room = Arc::clone(&sinks.strange_room).acquire_many_owned(kib);
        Some(room.await.map_err(stopping)?)
    } else {
        None
    };
    let (of, whole) = match is_wanted {
        true => (Of::Main, Arc::clone(&sinks.room)),
        false => (Of::Side, Arc::clone(&sinks.side_room)),
    };
    let whole = whole.acquire_many_owned(kib).await.map_err(stopping)?;
    Ok(Room {
        of,
        _share: share,
        _strange: strange,
        _whole: whole,
    })
}

/// Waits until so many lines may be decoded.
async fn take_hearing(lines: usize, intake: &Intake, sinks: &Sinks) -> Result<Hearing, ReadError> {
    if lines == 0 {
        return Ok(Hearing::default());
    }
    let stopping = |_| ReadError::Stopping;
    let count = |most: usize| u32::try_from(lines.min(most)).unwrap_or(u32::MAX);
    let own = Arc::clone(&intake.lines).acquire_many_owned(count(LINES_MAX));
    let own = own.await.map_err(stopping)?;
    let whole = Arc::clone(&sinks.lines).acquire_many_owned(count(LINES_IN_ALL_MAX));
    let whole = whole.await.map_err(stopping)?;
    Ok(Hearing {
        _own: Some(own),
        _whole: Some(whole),
    })
}

async fn fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut buffer: &mut [u8],
    pace: &mut Pace,
    reading: &Reading<'_>,
) -> Result<bool, ReadError> {
    let intake = reading.intake;
    let gate = &intake.gate;
    let mut held = 0;
    gate.held_since(Way::In, &mut held);
    while !buffer.is_empty() {
        let piece = gate.piece(Way::In, buffer.len());
        let part = buffer.get_mut(..piece).unwrap_or_default();
        let count = match timeout_at(pace.until(), stream.read(part)).await {
            Ok(count) => count?,
            // Another of its streams was held back meanwhile, and this one with it.
            Err(_) if gate.held_since(Way::In, &mut held) => {
                pace.begin();
                continue;
            }
            Err(_) if pace.goes_on(reading.slowest()) => continue,
            Err(_) => return Err(ReadError::TooSlow),
        };
        if count == 0 {
            return Ok(false);
        }
        intake.bytes.fetch_add(count as u64, Ordering::Relaxed);
        pace.moved(count);
        if !gate.is_open(Way::In) {
            let paying = Instant::now();
            gate.pay(Way::In, count).await;
            pace.held(paying.elapsed());
        }
        buffer = buffer.get_mut(count..).unwrap_or_default();
    }
    Ok(true)
}

/// An inbound stream on which nothing comes for so long is let go.
const STREAM_IDLE: Duration = Duration::from_secs(600);
/// How much of a message is taken before room for the rest of it is.
const TRUSTED_BYTES: usize = 64 << 10;
/// Bytes of a length: four groups of seven bits reach beyond the limit.
const LENGTH_BYTES_MAX: u32 = 4;
/// Inbound streams of one peer that are read from at once. Kubo writes eight.
pub(in crate::bitswap) const READERS_WORKING_MAX: usize = 16;
/// Inbound streams of one peer.
const READERS_MAX: usize = 256;
/// Room for messages between stream and store, over all peers.
const ROOM_KIB: usize = 192 << 10;
/// Those that send messages by halves and nothing else leave as much to others.
const STRANGE_ROOM_KIB: usize = ROOM_KIB / 2;
const SIDE_ROOM_KIB: usize = 64 << 10;
/// How much of it one peer may take, so that a few who send messages by halves do not stop all
/// others; and how much before it delivered anything.
const SHARE_KIB: usize = ROOM_KIB / 8;
const SHARE_UNPROVEN_KIB: usize = ROOM_KIB / 32;
const _: () = assert!(SHARE_UNPROVEN_KIB * 1024 >= MESSAGE_BYTES_MAX);
/// Others may soon wait for room when less than this part of it is left.
const CROWDED_PART: usize = 4;
/// Lines of one peer that are decoded and not yet heard by the worker; a message with more has its
/// turn alone. A line takes about 180 bytes, whatever it took on the wire.
const LINES_MAX: usize = 1024;
/// The same of all peers: 12 MB.
const LINES_IN_ALL_MAX: usize = 64 << 10;
const _: () = assert!(LINES_IN_ALL_MAX >= MESSAGE_WANTS_MAX + MESSAGE_PRESENCES_MAX);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bitswap::message::Version;
    use futures::FutureExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    struct Bench {
        theirs: tokio::io::DuplexStream,
        reader: tokio::task::JoinHandle<Result<(), ReadError>>,
        inputs: mpsc::Receiver<Input>,
        intake: Arc<Intake>,
        room: Arc<Semaphore>,
        unverified: mpsc::Receiver<Unverified>,
    }

    fn bench() -> Bench {
        bench_with(BODY_IDLE)
    }

    fn bench_with(body_idle: Duration) -> Bench {
        bench_of(body_idle, open_gate())
    }

    pub(in crate::bitswap::streams) fn gate(limits: crate::Limits) -> Gate {
        let throttle = crate::throttle::Throttle::new(limits, &prometheus::Registry::new());
        throttle.unwrap().gate()
    }

    pub(super) fn open_gate() -> Gate {
        gate(crate::Limits::default())
    }

    #[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
    fn bench_of(body_idle: Duration, gate: Gate) -> Bench {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (inputs, heard) = mpsc::channel(100);
        let (unverified, blocks) = mpsc::channel(100);
        let mut sinks = Sinks::new(inputs, unverified, Holds::unseen());
        sinks.body_idle = body_idle;
        let room = Arc::clone(&sinks.room);
        let intake = Arc::new(Intake::new(PeerId::random(), gate));
        let shared = Arc::clone(&intake);
        let reader = tokio::spawn(async move {
            let mut ours = ours.compat();
            read_all(&mut ours, &shared, &sinks).await
        });
        Bench {
            theirs,
            reader,
            inputs: heard,
            intake,
            room,
            unverified: blocks,
        }
    }

    pub(in crate::bitswap::streams) fn payload() -> Message {
        let cid =
            cairn_store::cid::parse("bafybeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe")
                .unwrap();
        Message {
            blocks: vec![Payload {
                prefix: crate::bitswap::message::prefix_of(&cid).unwrap(),
                data: Bytes::from(vec![1; 300_000]),
            }],
            ..Message::default()
        }
    }

    #[tokio::test]
    async fn reads_several_messages_of_one_stream_and_stops_at_its_end() {
        use tokio::io::AsyncWriteExt;
        let mut bench = bench();
        bench.intake.wanted.store(1, Ordering::Relaxed);
        for _ in 0..2 {
            for piece in payload().encode(Version::V1_2) {
                bench.theirs.write_all(&piece).await.unwrap();
            }
        }
        bench.theirs.shutdown().await.unwrap();
        assert!(bench.reader.await.unwrap().is_ok());
        let first = bench.unverified.recv().await.unwrap();
        assert_eq!(first.blocks[0].data.len(), 300_000);
        assert!(bench.room.available_permits() < ROOM_KIB);
        drop((first, bench.unverified.recv().await.unwrap()));
        assert_eq!(bench.room.available_permits(), ROOM_KIB);
    }

    #[tokio::test]
    async fn blocks_of_a_peer_that_owes_none_are_dropped_before_hashing() {
        use tokio::io::AsyncWriteExt;
        let mut bench = bench();
        for piece in payload().encode(Version::V1_2) {
            bench.theirs.write_all(&piece).await.unwrap();
        }
        assert!(matches!(
            bench.inputs.recv().await,
            Some(Input::Message { .. })
        ));
        assert!(matches!(
            bench.inputs.recv().await,
            Some(Input::Unwanted { bytes: 300_000, .. })
        ));
        assert!(bench.unverified.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_ends_the_stream_at_once() {
        use tokio::io::AsyncWriteExt;
        for length in [
            &[0x81u8, 0x80, 0x80, 0x02][..], // 4 MiB + 1
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x81, 0x00], // 1, written too long
        ] {
            let mut bench = bench();
            bench.theirs.write_all(length).await.unwrap();
            let error = bench.reader.await.unwrap().unwrap_err();
            assert!(matches!(error, ReadError::Message(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_sends_by_halves_takes_no_more_than_its_share() {
        let (inputs, _heard) = mpsc::channel(1);
        let (unverified, _blocks) = mpsc::channel(1);
        let sinks = Sinks::new(inputs, unverified, Holds::unseen());
        let intake = || {
            let intake = Intake::new(PeerId::random(), open_gate());
            intake.wanted.store(1, Ordering::Relaxed);
            intake
        };
        let mut held = Vec::new();
        let kib = u32::try_from(MESSAGE_BYTES_MAX / 1024).unwrap();
        let mut fill = |intake: &Intake| {
            let mut taken = 0;
            while let Some(Ok(room)) = take_room(kib, intake, &sinks).now_or_never() {
                held.push(room);
                taken += usize::try_from(kib).unwrap();
            }
            taken
        };
        let (half_sender, honest) = (intake(), intake());
        assert!(fill(&half_sender) <= SHARE_UNPROVEN_KIB);
        honest.trust();
        honest.trust();
        assert_eq!(fill(&honest), SHARE_KIB);
        drop(held);
        assert_eq!(sinks.room.available_permits(), ROOM_KIB);
        assert_eq!(honest.share.available_permits(), SHARE_KIB);
    }

    #[tokio::test]
    async fn many_that_send_by_halves_leave_half_of_the_room_to_those_that_delivered() {
        let (inputs, _heard) = mpsc::channel(1);
        let (unverified, _blocks) = mpsc::channel(1);
        let sinks = Sinks::new(inputs, unverified, Holds::unseen());
        let intake = || {
            let intake = Intake::new(PeerId::random(), open_gate());
            intake.wanted.store(1, Ordering::Relaxed);
            intake
        };
        let kib = u32::try_from(MESSAGE_BYTES_MAX / 1024).unwrap();
        let strangers: Vec<Intake> = (0..30).map(|_| intake()).collect();
        let held: Vec<Room> = strangers
            .iter()
            .filter_map(|stranger| take_room(kib, stranger, &sinks).now_or_never())
            .map(Result::unwrap)
            .collect();
        assert_eq!(sinks.room.available_permits(), ROOM_KIB - STRANGE_ROOM_KIB);
        let honest = intake();
        honest.trust();
        assert!(take_room(kib, &honest, &sinks).now_or_never().is_some());
        // Who waits for room is not to blame for its silence.
        let (waiting, honest) = (&strangers[29], &honest);
        assert!(!waiting.is_waiting() && !honest.is_waiting());
        let mut waits = Box::pin(take_room(kib, waiting, &sinks));
        assert!(futures::poll!(&mut waits).is_pending());
        assert!(waiting.is_waiting() && !honest.is_waiting());
        drop(held);
        assert!(waits.await.is_ok());
        assert!(!waiting.is_waiting());
    }

    #[tokio::test]
    async fn a_message_that_drips_is_given_up_and_holds_no_room() {
        use tokio::io::AsyncWriteExt;
        let mut bench = bench_with(Duration::from_millis(50));
        bench
            .theirs
            .write_all(&[0x80, 0x80, 0x80, 0x02, 1])
            .await
            .unwrap();
        let error = bench.reader.await.unwrap().unwrap_err();
        assert!(matches!(error, ReadError::TooSlow), "{error}");
        assert_eq!(bench.room.available_permits(), ROOM_KIB);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_we_slow_down_is_not_too_slow_and_is_slowed_by_its_own_window() {
        use tokio::io::AsyncWriteExt;
        let limits = crate::Limits {
            download: "1KB".parse().unwrap(),
            ..crate::Limits::default()
        };
        // Far less than the message takes.
        let mut bench = bench_of(Duration::from_secs(2), gate(limits));
        bench.intake.wanted.store(1, Ordering::Relaxed);
        let (start, mut sent) = (Instant::now(), 0);
        for _ in 0..5 {
            for piece in payload().encode(Version::V1_2) {
                sent += piece.len();
                bench.theirs.write_all(&piece).await.unwrap();
            }
        }
        // What fits the window is gone; the rest had to wait until it was read.
        let read = sent - (1 << 20);
        let waited = start.elapsed().as_secs_f64();
        assert!(waited > read as f64 / 1000.0 * 0.7, "{waited}");
        for _ in 0..5 {
            let unverified = bench.unverified.recv().await.unwrap();
            assert_eq!(unverified.blocks[0].data.len(), 300_000);
        }
        let took = start.elapsed().as_secs_f64();
        let least = sent as f64 / 1000.0;
        assert!(
            took > least * 0.9 && took < least * 1.1,
            "{took} of {least}"
        );
        // One that stops sending is given up all the same.
        bench
            .theirs
            .write_all(&[0x80, 0x80, 0x01, 1])
            .await
            .unwrap();
        let error = bench.reader.await.unwrap().unwrap_err();
        assert!(matches!(error, ReadError::TooSlow), "{error}");
    }
}
