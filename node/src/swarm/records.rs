//! Plain bytes to records and back: what lies between the multiplexer and the socket.
//!
//! A handshake (`tls.rs`, `noise.rs`) ends in a [`Sealer`] and an [`Opener`], one a direction. Both
//! work on buffers that belong to the connection: a record is sealed from where the plain bytes lie
//! to where the socket takes them, and opened in place, so that neither costs a copy. No socket,
//! no task, no clock.

#[cfg(feature = "openssl")]
mod openssl;

use super::noise;
use super::tls;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use libp2p::PeerId;
use std::io;
use std::ops::Range;

/// Seals what we send.
pub(super) enum Sealer {
    Tls(tls::Sealer),
    Noise(noise::Sealer),
    /// As it is: what the multiplexer is tested with, and measured alone.
    #[cfg(any(test, feature = "bench"))]
    Plain,
}

/// Opens what we receive.
pub(super) enum Opener {
    Tls(tls::Opener),
    Noise(noise::Opener),
    #[cfg(any(test, feature = "bench"))]
    Plain,
}

/// A connection that is encrypted and whose other end is known.
pub(super) struct Secured {
    pub(super) peer: PeerId,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    /// What was received behind the handshake, sealed.
    pub(super) incoming: Incoming,
    /// What was received behind the handshake and is opened already; comes before the rest.
    pub(super) plain: Vec<u8>,
}

/// What is at the front of a buffer of received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Not yet a whole record.
    Incomplete,
    /// A record of `taken` bytes; what it holds lies in the buffer at `plain` (nothing, if it only
    /// concerns the records themselves).
    Record { taken: usize, plain: Range<usize> },
    /// The peer will send nothing more.
    End,
}

impl Sealer {
    /// The body of a frame that fills its records.
    pub(super) fn frame_body(&self) -> usize {
        match self {
            Self::Tls(_) => tls::FRAME_BODY_BYTES,
            Self::Noise(_) => noise::FRAME_BODY_BYTES,
            #[cfg(any(test, feature = "bench"))]
            Self::Plain => tls::FRAME_BODY_BYTES,
        }
    }

    /// Seals `head` and then `body` to the end of `out`.
    pub(super) fn seal(&mut self, head: &[u8], body: &[u8], out: &mut Outgoing) -> io::Result<()> {
        if body.len() <= TOGETHER_BYTES_MAX && head.len() <= TOGETHER_HEAD_BYTES_MAX {
            let mut whole = [0; TOGETHER_BYTES_MAX + TOGETHER_HEAD_BYTES_MAX];
            let bytes = head.iter().chain(body);
            whole
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            let whole = whole.get(..head.len() + body.len()).unwrap_or_default();
            return self.seal_one(whole, out);
        }
        self.seal_one(head, out)?;
        self.seal_one(body, out)
    }

    fn seal_one(&mut self, bytes: &[u8], out: &mut Outgoing) -> io::Result<()> {
        match self {
            Self::Tls(sealer) => sealer.seal(bytes, out),
            Self::Noise(sealer) => sealer.seal(bytes, out),
            #[cfg(any(test, feature = "bench"))]
            Self::Plain => {
                out.room(bytes.len()).copy_from_slice(bytes);
                out.took(bytes.len());
                Ok(())
            }
        }
    }

    /// Says that nothing more will come, where the protocol has a word for that.
    pub(super) fn goodbye(&mut self, out: &mut Outgoing) -> io::Result<()> {
        match self {
            Self::Tls(sealer) => sealer.goodbye(out),
            Self::Noise(_) => Ok(()),
            #[cfg(any(test, feature = "bench"))]
            Self::Plain => Ok(()),
        }
    }
}

impl Opener {
    /// Opens the first record of `bytes`, in place.
    pub(super) fn open(&mut self, bytes: &mut [u8]) -> io::Result<Step> {
        match self {
            Self::Tls(opener) => opener.open(bytes),
            Self::Noise(opener) => opener.open(bytes),
            #[cfg(any(test, feature = "bench"))]
            Self::Plain if bytes.is_empty() => Ok(Step::Incomplete),
            #[cfg(any(test, feature = "bench"))]
            Self::Plain => Ok(Step::Record {
                taken: bytes.len(),
                plain: 0..bytes.len(),
            }),
        }
    }
}

/// Sealed bytes on their way to the socket. The memory is written once when it is made, never
/// again only to be overwritten.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// `buffer[start..end]` is to be written.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// Where the next `bytes` go; [`Outgoing::took`] says that they are there.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.end + bytes;
        if self.buffer.len() < end {
            self.buffer.resize(end.max(OUTGOING_BYTES_START), 0);
        }
        self.buffer.get_mut(self.end..end).unwrap_or_default()
    }

    /// `bytes` were put where [`Outgoing::room`] said.
    pub(super) fn took(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// What is to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// `bytes` of it were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// How much is to be written.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Received bytes that were not opened yet.
#[derive(Debug)]
pub(super) struct Incoming {
    /// `buffer[start..end]` was received; made by the first read.
    buffer: Vec<u8>,
    capacity: usize,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            buffer: Vec::new(),
            capacity: capacity.max(INCOMING_BYTES_MIN),
            start: 0,
            end: 0,
        }
    }

    /// Where the next bytes go: never empty, since whole records are taken out first.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            // Zeroed by the kernel: pages that are never filled are never touched.
            self.buffer = vec![0; self.capacity];
        }
        if self.start > 0 && self.buffer.len() - self.end < INCOMING_BYTES_MIN {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// `bytes` were put where [`Incoming::room`] said.
    pub(super) fn took(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// What waits to be opened.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        self.buffer
            .get_mut(self.start..self.end)
            .unwrap_or_default()
    }

    /// The first `bytes` are done with.
    pub(super) fn done(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }
}

/// One direction's key.
pub(super) enum Key {
    AwsLc(LessSafeKey),
    /// ChaCha20-Poly1305 alone, and only without a head.
    #[cfg(feature = "openssl")]
    OpenSsl(openssl::Key),
}

impl From<UnboundKey> for Key {
    fn from(key: UnboundKey) -> Self {
        Self::AwsLc(LessSafeKey::new(key))
    }
}

impl Key {
    /// For ChaCha20-Poly1305 without heads, by whoever is fastest at it here.
    pub(super) fn chacha(key: &[u8]) -> io::Result<Self> {
        #[cfg(feature = "openssl")]
        if let Some(key) = openssl::Key::new(key) {
            return Ok(Self::OpenSsl(key));
        }
        UnboundKey::new(&CHACHA20_POLY1305, key)
            .map(Self::from)
            .map_err(|_| io::Error::other("a key of an unexpected length"))
    }
}

/// A key, and the number of its next record.
pub(super) struct Cipher {
    key: Key,
    /// What the number is mixed with.
    iv: [u8; NONCE_BYTES],
    order: Order,
    next: u64,
}

/// How a record's number stands in its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// TLS.
    BigEndian,
    /// Noise.
    LittleEndian,
}

impl Cipher {
    pub(super) fn new(key: impl Into<Key>, iv: [u8; NONCE_BYTES], order: Order, next: u64) -> Self {
        Self {
            key: key.into(),
            iv,
            order,
            next,
        }
    }

    /// Records sealed or opened with this key.
    pub(super) fn used(&self) -> u64 {
        self.next
    }

    /// `plain` and `more` into `sealed`, which has room for both and [`TAG_BYTES`].
    pub(super) fn seal(
        &mut self,
        head: &[u8],
        plain: &[u8],
        more: &[u8],
        sealed: &mut [u8],
    ) -> io::Result<()> {
        let nonce = self.nonce()?;
        let (body, rest) = sealed
            .split_at_mut_checked(plain.len())
            .ok_or_else(|| io::Error::other("no room to seal a record in"))?;
        let is_sealed = match &mut self.key {
            Key::AwsLc(key) => key
                .seal_out_of_place_scatter(nonce, Aad::from(head), plain, body, more, rest)
                .is_ok(),
            #[cfg(feature = "openssl")]
            Key::OpenSsl(key) => {
                head.is_empty() && more.is_empty() && key.seal(nonce.as_ref(), plain, sealed)
            }
        };
        match is_sealed {
            true => Ok(()),
            false => Err(io::Error::other("a record cannot be sealed")),
        }
    }

    /// Opens `sealed` in place; answers how many plain bytes stand at its front.
    pub(super) fn open(&mut self, head: &[u8], sealed: &mut [u8]) -> io::Result<usize> {
        let nonce = self.nonce()?;
        let plain = match &mut self.key {
            Key::AwsLc(key) => key
                .open_in_place(nonce, Aad::from(head), sealed)
                .ok()
                .map(|plain| plain.len()),
            #[cfg(feature = "openssl")]
            Key::OpenSsl(key) => match head {
                [] => key.open(nonce.as_ref(), sealed),
                _ => None,
            },
        };
        plain.ok_or_else(|| invalid("a record that was not sealed with this connection's key"))
    }

    /// Never the same twice: numbers that ran out end the connection.
    fn nonce(&mut self) -> io::Result<Nonce> {
        let number = match self.order {
            Order::BigEndian => self.next.to_be_bytes(),
            Order::LittleEndian => self.next.to_le_bytes(),
        };
        let next = self.next.checked_add(1);
        self.next = next.ok_or_else(|| io::Error::other("a connection's records are used up"))?;
        let mut nonce = self.iv;
        for (to, from) in nonce.iter_mut().skip(NONCE_BYTES - 8).zip(number) {
            *to ^= from;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// The error for bytes that break the protocol.
pub(super) fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What is added to a record to prove where it came from.
pub(super) const TAG_BYTES: usize = 16;
pub(super) const NONCE_BYTES: usize = 12;
/// A body up to this size shares a record with its head: cheaper to copy than to seal twice.
const TOGETHER_BYTES_MAX: usize = 1024;
const TOGETHER_HEAD_BYTES_MAX: usize = 16;
/// More than the longest record of either protocol.
const INCOMING_BYTES_MIN: usize = 66 << 10;
/// The first piece of memory for what is sent: most connections never send more at once.
const OUTGOING_BYTES_START: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::aead::AES_128_GCM;

    fn cipher(order: Order) -> Cipher {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap();
        Cipher::new(key, [1; NONCE_BYTES], order, 0)
    }

    #[test]
    fn what_is_sealed_opens_once_in_order_and_unchanged() {
        let (mut sealer, mut opener) = (cipher(Order::BigEndian), cipher(Order::BigEndian));
        let mut records = Vec::new();
        for plain in [&b"first"[..], b"", b"third"] {
            let mut sealed = vec![0; plain.len() + 1 + TAG_BYTES];
            sealer.seal(b"head", plain, &[9], &mut sealed).unwrap();
            records.push(sealed);
        }
        let mut changed = records[0].clone();
        changed[0] ^= 1;
        assert!(
            cipher(Order::BigEndian)
                .open(b"head", &mut changed)
                .is_err()
        );
        assert!(
            cipher(Order::BigEndian)
                .open(b"hea", &mut records[0].clone())
                .is_err()
        );
        assert!(
            cipher(Order::LittleEndian)
                .open(b"head", &mut records[1].clone())
                .is_err()
        );
        for (sealed, plain) in records
            .iter_mut()
            .zip([&b"first\x09"[..], b"\x09", b"third\x09"])
        {
            let length = opener.open(b"head", sealed).unwrap();
            assert_eq!(&sealed[..length], plain);
        }
        assert!(
            opener.open(b"head", &mut records[0].clone()).is_err(),
            "again"
        );
    }

    #[test]
    fn a_key_whose_numbers_are_used_up_seals_nothing_more() {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap();
        let mut last = Cipher::new(key, [0; NONCE_BYTES], Order::LittleEndian, u64::MAX - 1);
        let mut sealed = [0; 1 + TAG_BYTES];
        assert!(last.seal(b"", b"a", &[], &mut sealed).is_ok());
        assert!(last.seal(b"", b"a", &[], &mut sealed).is_err());
    }

    #[test]
    fn what_was_received_is_kept_while_room_is_made() {
        let mut incoming = Incoming::new(0);
        let capacity = incoming.room().len();
        incoming.room().fill(1);
        incoming.took(capacity);
        incoming.done(capacity - 3);
        assert_eq!(incoming.bytes(), [1; 3]);
        assert_eq!(incoming.room().len(), capacity - 3);
        incoming.room()[0] = 2;
        incoming.took(1);
        assert_eq!(incoming.bytes(), [1, 1, 1, 2]);
    }
}
