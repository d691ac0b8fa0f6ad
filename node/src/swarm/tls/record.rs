//! TLS 1.3 records, once the handshake is over.
//!
//! rustls does the handshake and hands over its keys; from then on it is asked only for the next
//! keys, when either side wants to change them. What the record layer has to know beside that is
//! small: which bytes are data, that an alert ends the connection, that tickets are of no use here.

use crate::swarm::records::{Cipher, NONCE_BYTES, Order, Outgoing, Step, TAG_BYTES, invalid};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, UnboundKey};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What rustls is still asked for.
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    fn next_to_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_tx_secret(),
            Self::Server(keys) => keys.update_tx_secret(),
        }
    }

    fn next_to_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_rx_secret(),
            Self::Server(keys) => keys.update_rx_secret(),
        }
    }
}

/// What both directions share.
struct Shared {
    keys: Mutex<Keys>,
    /// The peer asked that we change our key too.
    must_change: AtomicBool,
}

/// Makes both directions of a connection whose handshake is over.
pub(super) fn start(secrets: ExtractedSecrets, keys: Keys) -> io::Result<(Sealer, Opener)> {
    let shared = Arc::new(Shared {
        keys: Mutex::new(keys),
        must_change: AtomicBool::new(false),
    });
    let sealer = Sealer {
        cipher: cipher(secrets.tx)?,
        shared: Arc::clone(&shared),
        change_after: RECORDS_A_KEY_MAX,
    };
    let opener = Opener {
        cipher: cipher(secrets.rx)?,
        shared,
        partial: Vec::new(),
    };
    Ok((sealer, opener))
}

fn cipher((next, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Cipher> {
    let (algorithm, key, iv) = match &secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
        _ => {
            return Err(io::Error::other(
                "a TLS cipher that is not offered was chosen",
            ));
        }
    };
    let unusable = || io::Error::other("TLS keys of an unexpected length");
    let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unusable())?;
    let iv: [u8; NONCE_BYTES] = iv.as_ref().try_into().map_err(|_| unusable())?;
    Ok(Cipher::new(key, iv, Order::BigEndian, next))
}

/// Seals what we send.
pub(in crate::swarm) struct Sealer {
    cipher: Cipher,
    shared: Arc<Shared>,
    change_after: u64,
}

impl Sealer {
    pub(in crate::swarm) fn seal(&mut self, bytes: &[u8], out: &mut Outgoing) -> io::Result<()> {
        for part in bytes.chunks(PLAIN_BYTES_MAX) {
            if self.cipher.used() >= self.change_after
                || self.shared.must_change.swap(false, Ordering::AcqRel)
            {
                self.change_key(out)?;
            }
            self.record(part, DATA, out)?;
        }
        Ok(())
    }

    pub(in crate::swarm) fn goodbye(&mut self, out: &mut Outgoing) -> io::Result<()> {
        self.record(&[WARNING, CLOSE_NOTIFY], ALERT, out)
    }

    fn change_key(&mut self, out: &mut Outgoing) -> io::Result<()> {
        self.record(&[KEY_UPDATE, 0, 0, 1, NOT_REQUESTED], HANDSHAKE, out)?;
        let mut keys = self
            .shared
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.cipher = cipher(keys.next_to_send().map_err(io::Error::other)?)?;
        Ok(())
    }

    fn record(&mut self, plain: &[u8], kind: u8, out: &mut Outgoing) -> io::Result<()> {
        let sealed = plain.len() + 1 + TAG_BYTES;
        let [.., high, low] = sealed.to_be_bytes();
        let head = [DATA, 3, 3, high, low];
        let room = out.room(HEAD_BYTES + sealed);
        let (front, rest) = room
            .split_first_chunk_mut::<HEAD_BYTES>()
            .ok_or_else(|| io::Error::other("no room for a record"))?;
        *front = head;
        self.cipher.seal(&head, plain, &[kind], rest)?;
        out.took(HEAD_BYTES + sealed);
        Ok(())
    }
}

/// Opens what we receive.
pub(in crate::swarm) struct Opener {
    cipher: Cipher,
    shared: Arc<Shared>,
    /// A handshake message that goes on in the next record.
    partial: Vec<u8>,
}

impl Opener {
    pub(in crate::swarm) fn open(&mut self, bytes: &mut [u8]) -> io::Result<Step> {
        let Some((head, rest)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() else {
            return Ok(Step::Incomplete);
        };
        let head = *head;
        let [kind, 3, 3, high, low] = head else {
            return Err(invalid("bytes that are no TLS record"));
        };
        let sealed = usize::from(u16::from_be_bytes([high, low]));
        if kind != DATA {
            return Err(invalid(format!(
                "a TLS record of kind {kind} after the handshake"
            )));
        }
        if sealed > SEALED_BYTES_MAX {
            return Err(invalid(format!("a TLS record of {sealed} bytes")));
        }
        let Some(record) = rest.get_mut(..sealed) else {
            return Ok(Step::Incomplete);
        };
        let length = self.cipher.open(&head, record)?;
        let plain = record.get(..length).unwrap_or_default();
        // Padding is of zeros, behind the kind.
        let last = plain.iter().rposition(|byte| *byte != 0);
        let (last, kind) = last
            .and_then(|at| Some((at, *plain.get(at)?)))
            .ok_or_else(|| invalid("a TLS record of nothing but padding"))?;
        if last > PLAIN_BYTES_MAX {
            return Err(invalid("a TLS record with too much in it"));
        }
        let plain = plain.get(..last).unwrap_or_default();
        if kind != DATA && plain.is_empty() {
            return Err(invalid("an empty TLS record"));
        }
        let taken = HEAD_BYTES + sealed;
        let nothing = Step::Record { taken, plain: 0..0 };
        match kind {
            // In the middle of a handshake message nothing else may come.
            DATA | ALERT if !self.partial.is_empty() => {
                Err(invalid("a TLS handshake message that breaks off"))
            }
            DATA => Ok(Step::Record {
                taken,
                plain: HEAD_BYTES..HEAD_BYTES + last,
            }),
            HANDSHAKE => self.handshake(plain).map(|()| nothing),
            ALERT => match plain {
                [_, CLOSE_NOTIFY] => Ok(Step::End),
                [WARNING, USER_CANCELED] => Ok(nothing),
                [_, alert] => Err(invalid(format!("the peer ended TLS with alert {alert}"))),
                _ => Err(invalid("a malformed TLS alert")),
            },
            other => Err(invalid(format!("a sealed TLS record of kind {other}"))),
        }
    }

    /// Messages after the handshake: a change of keys, or a ticket, which is never used.
    fn handshake(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some([kind, a, b, c]) = self.partial.get(at..).and_then(|rest| rest.first_chunk())
        {
            let length = u32::from_be_bytes([0, *a, *b, *c]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MESSAGE_BYTES_MAX {
                return Err(invalid(format!("a TLS message of {length} bytes")));
            }
            let (kind, start) = (*kind, at + MESSAGE_HEAD_BYTES);
            let Some(body) = self.partial.get(start..start + length) else {
                break;
            };
            at = start + length;
            match (kind, body) {
                (NEW_TICKET, _) => {}
                (KEY_UPDATE, [asks @ (NOT_REQUESTED | REQUESTED)]) => {
                    // What follows it is sealed with the next key, so nothing may.
                    if at != self.partial.len() {
                        return Err(invalid("something follows a change of TLS keys"));
                    }
                    let (asks, shared) = (*asks, &self.shared);
                    let mut keys = shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
                    self.cipher = cipher(keys.next_to_receive().map_err(io::Error::other)?)?;
                    if asks == REQUESTED {
                        shared.must_change.store(true, Ordering::Release);
                    }
                }
                _ => {
                    return Err(invalid(format!(
                        "a TLS message of kind {kind} after the handshake"
                    )));
                }
            }
        }
        self.partial.drain(..at);
        Ok(())
    }
}

/// Kinds of records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// Kinds of messages.
const NEW_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const NOT_REQUESTED: u8 = 0;
const REQUESTED: u8 = 1;
/// Alerts.
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

const HEAD_BYTES: usize = 5;
const MESSAGE_HEAD_BYTES: usize = 4;
/// What a record may hold.
const PLAIN_BYTES_MAX: usize = 1 << 14;
/// The same sealed, with all the padding that is allowed.
const SEALED_BYTES_MAX: usize = PLAIN_BYTES_MAX + 256;
/// The longest message after a handshake that is waited for: a ticket is far shorter.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Records sealed with one key: AES-GCM is good for 2^24.5 of full size.
const RECORDS_A_KEY_MAX: u64 = 1 << 23;
/// The body of a multiplexer's frame, in whole records.
pub(in crate::swarm) const FRAME_BODY_BYTES: usize = 4 * PLAIN_BYTES_MAX;

#[cfg(test)]
impl Sealer {
    /// Changes keys after so many records instead of very many.
    pub(in crate::swarm) fn change_after(&mut self, records: u64) {
        self.change_after = records;
    }

    /// Asks the peer to change its key as well.
    pub(in crate::swarm) fn ask_for_change(&mut self, out: &mut Outgoing) -> io::Result<()> {
        self.record(&[KEY_UPDATE, 0, 0, 1, REQUESTED], HANDSHAKE, out)?;
        let mut keys = self.shared.keys.lock().unwrap();
        self.cipher = cipher(keys.next_to_send().unwrap())?;
        Ok(())
    }

    /// Any bytes as a record of any kind.
    pub(in crate::swarm) fn anything(&mut self, plain: &[u8], kind: u8, out: &mut Outgoing) {
        self.record(plain, kind, out).unwrap();
    }
}
