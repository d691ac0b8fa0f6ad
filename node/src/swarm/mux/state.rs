//! What the streams of one connection and its driver share: who may send and who may read, and the
//! sealed bytes that wait for the socket.
//!
//! Everything lies under one lock, held for a frame at a time. Whoever writes seals its frame here
//! itself, so that the driver only has to move bytes. No socket and no clock: the time is an
//! argument.

use super::chunks::Chunks;
use super::frame::{ACK, FIN, HEAD_BYTES, Head, Kind, NORMAL, PROTOCOL_ERROR, RST, SYN};
use super::window::{Budget, WINDOW_BYTES_START, Window};
use crate::swarm::meter::Meter;
use crate::swarm::records::{Outgoing, Sealer, invalid};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Which end of a connection this is: both choose the numbers of the streams they open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::swarm) enum Side {
    /// Odd numbers.
    Dialer,
    /// Even numbers.
    Listener,
}

/// All that is known about a connection's streams.
pub(super) struct State {
    side: Side,
    next_id: u32,
    streams: HashMap<u32, Entry>,
    streams_max: usize,
    /// Streams that we opened and the peer has not accepted yet.
    unaccepted: usize,
    /// Streams that the peer opened and that are not over.
    inbound: usize,
    /// Streams that the peer opened and nobody took yet.
    waiting: VecDeque<u32>,
    sealer: Sealer,
    pub(super) out: Outgoing,
    /// Streams with something to write and no room for it, in the order in which they came.
    blocked: VecDeque<u32>,
    budget: Budget,
    unread: usize,
    round_trip: Option<Duration>,
    ping: Option<(u32, Duration)>,
    pinged_at: Option<Duration>,
    refused: Refused,
    meter: Arc<Meter>,
    /// The peer takes no more streams.
    is_leaving: bool,
    is_closing: bool,
    failure: Option<(io::ErrorKind, String)>,
    driver: Option<Waker>,
    acceptor: Option<Waker>,
    opener: Option<Waker>,
}

struct Entry {
    chunks: Chunks,
    window: Window,
    /// What we may send.
    credit: usize,
    /// What our next frame must say of the stream itself.
    pending: u16,
    is_accepted: bool,
    ours: End,
    theirs: End,
    is_blocked: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Finished,
    Reset,
}

/// Streams that were refused lately.
#[derive(Debug, Default)]
struct Refused {
    since: Duration,
    count: u32,
}

/// Where the bytes of a frame go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Stream(u32),
    /// The stream is over: they are passed over.
    Nobody,
}

impl State {
    pub(super) fn new(
        side: Side,
        sealer: Sealer,
        streams_max: usize,
        (budget, meter): (Budget, Arc<Meter>),
    ) -> Self {
        Self {
            side,
            next_id: match side {
                Side::Dialer => 1,
                Side::Listener => 2,
            },
            streams: HashMap::new(),
            streams_max,
            unaccepted: 0,
            inbound: 0,
            waiting: VecDeque::new(),
            sealer,
            out: Outgoing::default(),
            blocked: VecDeque::new(),
            budget,
            unread: 0,
            round_trip: None,
            ping: None,
            pinged_at: None,
            refused: Refused::default(),
            meter,
            is_leaving: false,
            is_closing: false,
            failure: None,
            driver: None,
            acceptor: None,
            opener: None,
        }
    }

    /// The driver waits; it is woken when there is something to send or to read.
    pub(super) fn drives(&mut self, cx: &Context<'_>) {
        keep(&mut self.driver, cx);
    }

    fn wake_driver(&mut self) {
        wake(&mut self.driver);
    }

    /// Whether more is taken from the socket: not while answers pile up that the peer does not
    /// read, nor while this connection is one of those that fill the memory of all.
    pub(super) fn may_receive(&self) -> bool {
        let is_full = self.unread >= SURE_BYTES && self.budget.shares().is_full();
        !is_full && self.out.len() < OUT_BYTES_MAX + CONTROL_BYTES_MAX
    }

    /// Bytes before the first frame, which say what comes.
    pub(super) fn greet(&mut self, greeting: &[u8]) -> io::Result<()> {
        self.sealer.seal(greeting, &[], &mut self.out)
    }

    /// The driver took some of what was to be sent: there is room again.
    pub(super) fn made_room(&mut self) {
        while self.out.len() < OUT_BYTES_MAX
            && let Some(id) = self.blocked.pop_front()
        {
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.is_blocked = false;
                wake(&mut entry.writer);
            }
        }
    }

    /// A stream that the peer opened.
    pub(super) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<io::Result<u32>> {
        if let Some(id) = self.waiting.pop_front() {
            return Poll::Ready(Ok(id));
        }
        if let Some(error) = self.error() {
            return Poll::Ready(Err(error));
        }
        keep(&mut self.acceptor, cx);
        Poll::Pending
    }

    /// A stream of ours. The peer hears of it with its first bytes.
    pub(super) fn poll_open(&mut self, cx: &Context<'_>) -> Poll<io::Result<u32>> {
        if let Some(error) = self.error() {
            return Poll::Ready(Err(error));
        }
        if self.is_leaving || self.is_closing {
            let why = "the connection takes no more streams";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        if self.streams.len() >= self.streams_max || self.unaccepted >= UNACCEPTED_MAX {
            keep(&mut self.opener, cx);
            return Poll::Pending;
        }
        let id = self.next_id;
        let Some(next) = id.checked_add(2) else {
            let why = "a connection's stream numbers are used up";
            return Poll::Ready(Err(io::Error::other(why)));
        };
        self.next_id = next;
        self.unaccepted += 1;
        self.streams.insert(id, Entry::new(SYN));
        Poll::Ready(Ok(id))
    }

    /// Moves what came into `out`.
    pub(super) fn poll_read(
        &mut self,
        id: u32,
        out: &mut [u8],
        now: impl FnOnce() -> Duration,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let error = self.error();
        let Some(entry) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(error.unwrap_or_else(reset)));
        };
        if entry.chunks.is_empty() {
            return match (entry.theirs, error) {
                (End::Finished, _) => Poll::Ready(Ok(0)),
                (End::Reset, _) => Poll::Ready(Err(reset())),
                (End::Open, Some(error)) => Poll::Ready(Err(error)),
                (End::Open, None) => {
                    keep(&mut entry.reader, cx);
                    Poll::Pending
                }
            };
        }
        let count = entry.chunks.take(out);
        let was_full = self.unread >= SURE_BYTES;
        self.unread = self.unread.saturating_sub(count);
        self.budget.shares().read(count);
        let grant = entry
            .window
            .read(count, now(), self.round_trip, &mut self.budget);
        let goes_on = entry.theirs == End::Open && error.is_none();
        if let Some(grant) = grant.filter(|_| goes_on) {
            let flags = std::mem::take(&mut entry.pending);
            self.say(Kind::Window, flags, id, grant)?;
            self.wake_driver();
        } else if was_full {
            self.wake_driver();
        }
        Poll::Ready(Ok(count))
    }

    /// Seals as much of `bytes` as one frame takes and the peer allows.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        bytes: &[u8],
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.error() {
            return Poll::Ready(Err(error));
        }
        let Some(entry) = self
            .streams
            .get_mut(&id)
            .filter(|entry| entry.ours == End::Open)
        else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if entry.credit == 0 {
            keep(&mut entry.writer, cx);
            return Poll::Pending;
        }
        if !self.has_room(id, cx) {
            return Poll::Pending;
        }
        let Some(entry) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(reset()));
        };
        let count = bytes.len().min(entry.credit).min(self.sealer.frame_body());
        entry.credit -= count;
        let flags = std::mem::take(&mut entry.pending);
        let head = Head {
            kind: Kind::Data,
            flags,
            stream: id,
            length: u32::try_from(count).unwrap_or(0),
        };
        let body = bytes.get(..count).unwrap_or_default();
        self.sealer.seal(&head.encode(), body, &mut self.out)?;
        self.wake_driver();
        Poll::Ready(Ok(count))
    }

    /// Says that nothing more comes from us.
    pub(super) fn poll_finish(&mut self, id: u32, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.error().is_some()
            || !self
                .streams
                .get(&id)
                .is_some_and(|own| own.ours == End::Open)
        {
            return Poll::Ready(Ok(()));
        }
        if !self.has_room(id, cx) {
            return Poll::Pending;
        }
        let mut flags = FIN;
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.ours = End::Finished;
            flags |= std::mem::take(&mut entry.pending);
        }
        self.say(Kind::Data, flags, id, 0)?;
        self.wake_driver();
        Poll::Ready(Ok(()))
    }

    /// Nobody holds the stream any more.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(entry) = self.streams.get(&id) else {
            return;
        };
        // A peer that never heard of it need not hear of its end.
        let is_known = entry.pending & SYN == 0;
        if entry.ours == End::Open && entry.theirs != End::Reset && is_known {
            // The one failure is that of sealing, which the driver meets as well.
            if let Err(error) = self.say(Kind::Data, RST, id, 0) {
                self.fail(&error);
            }
        }
        self.remove(id);
        self.wake_driver();
    }

    /// Says goodbye, once.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_closing, true) || self.failure.is_some() {
            return Ok(());
        }
        self.say(Kind::GoAway, 0, 0, NORMAL)?;
        self.sealer.goodbye(&mut self.out)
    }

    /// The connection is over: everybody who waits for it hears why.
    pub(super) fn fail(&mut self, error: &io::Error) {
        if self.failure.is_some() {
            return;
        }
        if error.kind() == io::ErrorKind::InvalidData {
            // So that the peer learns it; whether it leaves in time is its luck.
            drop(self.say(Kind::GoAway, 0, 0, PROTOCOL_ERROR));
        }
        self.failure = Some((error.kind(), error.to_string()));
        for entry in self.streams.values_mut() {
            wake(&mut entry.reader);
            wake(&mut entry.writer);
        }
        wake(&mut self.acceptor);
        wake(&mut self.opener);
        self.wake_driver();
    }

    fn error(&self) -> Option<io::Error> {
        let (kind, why) = self.failure.as_ref()?;
        Some(io::Error::new(*kind, why.clone()))
    }

    /// A frame's head came: where its body goes. `wakes` gets whom to wake once the lock is free.
    pub(super) fn on_head(
        &mut self,
        head: Head,
        now: Duration,
        wakes: &mut Vec<Waker>,
    ) -> io::Result<Target> {
        match head.kind {
            Kind::Ping => self.on_ping(head, now)?,
            Kind::GoAway if head.length == NORMAL => {
                self.is_leaving = true;
                wakes.extend(self.opener.take());
            }
            Kind::GoAway => {
                let why = format!("the peer ended the connection with code {}", head.length);
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, why));
            }
            Kind::Data | Kind::Window => return self.on_stream(head, now, wakes),
        }
        Ok(Target::Nobody)
    }

    fn on_ping(&mut self, head: Head, now: Duration) -> io::Result<()> {
        if head.has(SYN) {
            return self.say(Kind::Ping, ACK, 0, head.length);
        }
        if let Some((_, at)) = self.ping.take_if(|(value, _)| *value == head.length) {
            self.round_trip = Some(now.saturating_sub(at).max(ROUND_TRIP_MIN));
        }
        Ok(())
    }

    fn on_stream(
        &mut self,
        head: Head,
        now: Duration,
        wakes: &mut Vec<Waker>,
    ) -> io::Result<Target> {
        let id = head.stream;
        if head.has(SYN) && !self.on_open(id, now, wakes)? {
            return Ok(Target::Nobody);
        }
        let Some(entry) = self.streams.get_mut(&id) else {
            return Ok(Target::Nobody);
        };
        let is_ours = (id % 2 == 1) == (self.side == Side::Dialer);
        if head.has(ACK) && is_ours && !std::mem::replace(&mut entry.is_accepted, true) {
            self.unaccepted = self.unaccepted.saturating_sub(1);
            wakes.extend(self.opener.take());
        }
        let length = usize::try_from(head.length).map_err(invalid)?;
        let mut target = Target::Nobody;
        match head.kind {
            Kind::Window => {
                entry.credit = entry.credit.saturating_add(length).min(CREDIT_MAX);
                wakes.extend(entry.writer.take());
            }
            _ if length > 0 => {
                if entry.theirs == End::Finished {
                    return Err(invalid("bytes on a stream behind its end"));
                }
                if !entry.window.received(length) {
                    return Err(invalid("more bytes on a stream than were allowed"));
                }
                target = Target::Stream(id);
            }
            _ => {}
        }
        if head.has(RST) {
            entry.ours = End::Reset;
            // Whoever has said its end has said all: what came before a reset counts.
            if entry.theirs == End::Open {
                entry.theirs = End::Reset;
            }
        } else if head.has(FIN) && length == 0 && entry.theirs == End::Open {
            entry.theirs = End::Finished;
        }
        if head.has(RST | FIN) {
            wakes.extend(entry.reader.take());
            wakes.extend(entry.writer.take());
        }
        Ok(target)
    }

    /// The peer opens a stream; false if it is not taken.
    fn on_open(&mut self, id: u32, now: Duration, wakes: &mut Vec<Waker>) -> io::Result<bool> {
        let theirs = match self.side {
            Side::Dialer => 0,
            Side::Listener => 1,
        };
        if id == 0 || id % 2 != theirs || self.streams.contains_key(&id) {
            return Err(invalid(format!("a stream was opened with the number {id}")));
        }
        let is_room = self.streams.len() < self.streams_max
            && self.waiting.len() < WAITING_MAX
            && !self.is_closing;
        if !is_room || !self.budget.shares().admit(self.inbound) {
            self.say(Kind::Data, RST, id, 0)?;
            self.meter.refused_stream();
            let goes_on = self.refused.add(now);
            if goes_on.is_err() {
                self.meter.flooded();
            }
            return goes_on.map(|()| false);
        }
        self.inbound += 1;
        self.streams.insert(id, Entry::new(ACK));
        self.waiting.push_back(id);
        wakes.extend(self.acceptor.take());
        Ok(true)
    }

    /// Bytes of a frame came.
    pub(super) fn on_body(&mut self, id: u32, bytes: &[u8], wakes: &mut Vec<Waker>) {
        match self.streams.get_mut(&id) {
            Some(entry) if entry.theirs != End::Reset => {
                entry.chunks.put(bytes);
                // What is announced counts once it is there: nobody could read it before.
                self.unread += bytes.len();
                self.budget.shares().received(bytes.len());
                wakes.extend(entry.reader.take());
            }
            // Forgotten or reset meanwhile.
            _ => {}
        }
    }

    /// The body of a frame with `FIN` is complete.
    pub(super) fn on_end(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if let Some(entry) = self.streams.get_mut(&id)
            && entry.theirs == End::Open
        {
            entry.theirs = End::Finished;
            wakes.extend(entry.reader.take());
        }
    }

    /// Measures the round trip now and then, while something comes.
    pub(super) fn measure(&mut self, now: Duration) -> io::Result<()> {
        let is_due = self
            .pinged_at
            .is_none_or(|at| now.saturating_sub(at) >= PING_EVERY);
        if is_due && self.failure.is_none() && !self.is_closing {
            self.pinged_at = Some(now);
            let value = self.ping.map_or(1, |(value, _)| value.wrapping_add(1));
            self.ping = Some((value, now));
            self.say(Kind::Ping, SYN, 0, value)?;
        }
        Ok(())
    }

    fn say(&mut self, kind: Kind, flags: u16, stream: u32, length: u32) -> io::Result<()> {
        let head = Head {
            kind,
            flags,
            stream,
            length,
        };
        self.sealer.seal(&head.encode(), &[], &mut self.out)
    }

    /// Whether a frame may be sealed; if not, the stream waits for its turn.
    fn has_room(&mut self, id: u32, cx: &Context<'_>) -> bool {
        if self.out.len() < OUT_BYTES_MAX {
            return true;
        }
        if let Some(entry) = self.streams.get_mut(&id) {
            keep(&mut entry.writer, cx);
            if !std::mem::replace(&mut entry.is_blocked, true) {
                self.blocked.push_back(id);
            }
        }
        self.wake_driver();
        false
    }

    fn remove(&mut self, id: u32) {
        let Some(mut entry) = self.streams.remove(&id) else {
            return;
        };
        entry.window.end(&mut self.budget);
        let left = entry.chunks.len();
        self.unread = self.unread.saturating_sub(left);
        self.budget.shares().read(left);
        if entry.is_blocked {
            self.blocked.retain(|other| *other != id);
        }
        let is_ours = (id % 2 == 1) == (self.side == Side::Dialer);
        if !is_ours {
            self.inbound -= 1;
            self.budget.shares().left(1);
        } else if !entry.is_accepted {
            self.unaccepted = self.unaccepted.saturating_sub(1);
        }
        wake(&mut self.opener);
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.streams.len(), self.waiting.len(), self.unread)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
    }
}

impl Entry {
    fn new(pending: u16) -> Self {
        Self {
            chunks: Chunks::default(),
            window: Window::new(),
            credit: WINDOW_BYTES_START,
            pending,
            is_accepted: false,
            ours: End::Open,
            theirs: End::Open,
            is_blocked: false,
            reader: None,
            writer: None,
        }
    }
}

impl Refused {
    /// One more; too many within a second end the connection.
    fn add(&mut self, now: Duration) -> io::Result<()> {
        if now.saturating_sub(self.since) >= REFUSED_WITHIN {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        if self.count > REFUSED_MAX {
            return Err(invalid("the peer goes on opening streams that are refused"));
        }
        Ok(())
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Remembers whom to wake.
fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

/// Sealed bytes that may wait for the socket before writers do.
const OUT_BYTES_MAX: usize = 128 << 10;
/// Sealed answers beyond that (pings, refusals) before nothing more is read from the peer.
const CONTROL_BYTES_MAX: usize = 128 << 10;
/// What a connection may have unread however much others have.
const SURE_BYTES: usize = WINDOW_BYTES_START;
/// Streams of the peer's that may wait to be taken: what a well-behaved peer opens before it waits.
const WAITING_MAX: usize = 256;
/// Streams of ours that may wait to be accepted, for the same reason.
const UNACCEPTED_MAX: usize = 256;
/// More than any window that we were promised can be.
const CREDIT_MAX: usize = 1 << 30;
/// Refused streams within a while that end the connection.
const REFUSED_MAX: u32 = 1024;
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Below this a round trip says nothing about the way.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(1);
/// What one frame without a body takes at most, sealed.
const _: () = assert!(HEAD_BYTES + 64 < CONTROL_BYTES_MAX);
