//! DHT messages on the wire, as go-libp2p's `dht.proto` has them.
//!
//! Nothing is allocated by a length that a stranger wrote, and lists end at their limits: what is beyond them, or
//! names nobody, is skipped and counted.

use super::table::{ADDRESSES_MAX, Contact};
use crate::protobuf::{
    FieldError, Fields, Value, bytes_field_len, put_bytes, put_length, put_number,
};
use bytes::{Bytes, BytesMut};
use libp2p::{Multiaddr, PeerId};

/// One message, a question or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// The key that it is about.
    pub key: Vec<u8>,
    /// A value and what it is kept under.
    pub record: Option<Record>,
    /// Peers nearer to the key.
    pub nearer: Vec<Contact>,
    /// Who provides what the key names.
    pub providers: Vec<Contact>,
    /// What was there but cannot be used.
    pub skipped: usize,
}

/// What a message is about. An answer is of the kind of its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keep a value.
    PutValue,
    /// Give a value.
    GetValue,
    /// Note a provider. Not answered.
    AddProvider,
    /// Name the providers.
    GetProviders,
    /// Name peers near a key.
    FindNode,
    /// Show that you are there.
    Ping,
}

/// A value as it is kept and sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// What it is kept under.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// When it came to whoever sends it, in RFC 3339; empty where that is not told.
    pub received: String,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is too large.
    #[error("a DHT message of {0} bytes is larger than the limit of {MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    /// Its key, or that of its record, is too long.
    #[error("a key of {0} bytes is longer than the limit of {KEY_BYTES_MAX}")]
    Key(usize),
    /// It is of no known kind.
    #[error("a DHT message of the unknown kind {0}")]
    Kind(u64),
    /// It is no protobuf message.
    #[error("a DHT message that is no protobuf: {0}")]
    Fields(#[from] FieldError),
}

impl Kind {
    fn number(self) -> u64 {
        match self {
            Self::PutValue => 0,
            Self::GetValue => 1,
            Self::AddProvider => 2,
            Self::GetProviders => 3,
            Self::FindNode => 4,
            Self::Ping => 5,
        }
    }

    fn of(number: u64) -> Result<Self, MessageError> {
        Ok(match number {
            0 => Self::PutValue,
            1 => Self::GetValue,
            2 => Self::AddProvider,
            3 => Self::GetProviders,
            4 => Self::FindNode,
            5 => Self::Ping,
            other => return Err(MessageError::Kind(other)),
        })
    }
}

impl Message {
    /// A message about a key.
    pub fn new(kind: Kind, key: Vec<u8>) -> Self {
        Self {
            kind,
            key,
            record: None,
            nearer: Vec::new(),
            providers: Vec::new(),
            skipped: 0,
        }
    }

    /// Reads one message, without its length prefix.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge(bytes.len()));
        }
        let mut message = Self::new(Kind::PutValue, Vec::new());
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Number(kind)) => message.kind = Kind::of(kind)?,
                (2, Value::Bytes(key)) => message.key = key_of(key)?,
                (3, Value::Bytes(record)) => message.record = Some(Record::decode(record)?),
                (8, Value::Bytes(peer)) => {
                    message.skipped += take(peer, &mut message.nearer, NEARER_MAX)?;
                }
                (9, Value::Bytes(peer)) => {
                    message.skipped += take(peer, &mut message.providers, PROVIDERS_MAX)?;
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// The bytes to write, without a length prefix.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_number(&mut out, 1, self.kind.number());
        put_bytes(&mut out, 2, &self.key);
        if let Some(record) = &self.record {
            let texts = [&record.key[..], &record.value, record.received.as_bytes()];
            put_length(
                &mut out,
                3,
                texts.map(|text| bytes_field_len(text.len())).iter().sum(),
            );
            for (field, text) in [1, 2, 5].into_iter().zip(texts) {
                put_bytes(&mut out, field, text);
            }
        }
        for (field, peers) in [(8, &self.nearer), (9, &self.providers)] {
            peers
                .iter()
                .for_each(|peer| put_peer(&mut out, field, peer));
        }
        out.freeze()
    }
}

impl Record {
    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut record = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(key)) => record.key = key_of(key)?,
                (2, Value::Bytes(value)) => record.value = value.to_vec(),
                (5, Value::Bytes(time)) if time.len() <= TIME_BYTES_MAX => {
                    record.received = String::from_utf8_lossy(time).into_owned();
                }
                _ => {}
            }
        }
        Ok(record)
    }
}

fn key_of(key: &[u8]) -> Result<Vec<u8>, MessageError> {
    match key.len() {
        0..=KEY_BYTES_MAX => Ok(key.to_vec()),
        longer => Err(MessageError::Key(longer)),
    }
}

/// Adds a peer to a list that is not full; says how much was left out.
fn take(bytes: &[u8], peers: &mut Vec<Contact>, most: usize) -> Result<usize, MessageError> {
    if peers.len() >= most {
        return Ok(1);
    }
    let (mut name, mut addresses, mut skipped) = (&[][..], Vec::new(), 0);
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(id)) => name = id,
            (2, Value::Bytes(address)) => match address_of(address) {
                Some(address) if addresses.len() < ADDRESSES_MAX => addresses.push(address),
                _ => skipped += 1,
            },
            // How well the sender is connected to it says nothing about us.
            _ => {}
        }
    }
    match PeerId::from_bytes(name) {
        Ok(peer) => peers.push(Contact::new(peer, addresses)),
        Err(_) => skipped += 1,
    }
    Ok(skipped)
}

fn address_of(bytes: &[u8]) -> Option<Multiaddr> {
    if bytes.is_empty() || bytes.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    Multiaddr::try_from(bytes.to_vec()).ok()
}

fn put_peer(out: &mut BytesMut, field: u8, contact: &Contact) {
    let id = contact.peer.to_bytes();
    let addresses = contact.addresses.iter();
    let addresses: usize = addresses
        .map(|address| bytes_field_len(address.len()))
        .sum();
    put_length(out, field, bytes_field_len(id.len()) + addresses);
    put_bytes(out, 1, &id);
    for address in &contact.addresses {
        put_bytes(out, 2, address.as_ref());
    }
}

/// Longest message: as long as go-libp2p takes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest key.
pub const KEY_BYTES_MAX: usize = 256;
/// Peers that one message names: of those that are nearer no more than a bucket are used.
const NEARER_MAX: usize = 32;
const PROVIDERS_MAX: usize = 256;
/// Longest address.
const ADDRESS_BYTES_MAX: usize = 1024;
/// Longest time of receipt.
const TIME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::tests::{contact, contacts};
    use proptest::prelude::*;

    fn whole() -> Message {
        let at = |number: u64| {
            let address = format!("/ip4/192.0.2.{number}/tcp/4001").parse().unwrap();
            Contact::new(contact(number).peer, vec![address])
        };
        Message {
            record: Some(Record {
                key: b"/ipns/x".to_vec(),
                value: vec![1; 300],
                received: "2026-01-02T03:04:05Z".to_owned(),
            }),
            nearer: vec![at(1), at(2)],
            providers: vec![at(3), contact(4)],
            ..Message::new(Kind::GetProviders, b"key".to_vec())
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let all = [
            Kind::PutValue,
            Kind::GetValue,
            Kind::AddProvider,
            Kind::GetProviders,
            Kind::FindNode,
            Kind::Ping,
        ];
        for kind in all {
            let message = Message { kind, ..whole() };
            assert_eq!(Message::decode(&message.encode()), Ok(message));
            let bare = Message::new(kind, Vec::new());
            assert_eq!(Message::decode(&bare.encode()), Ok(bare));
        }
    }

    #[test]
    fn a_question_is_written_as_the_protocol_has_it() {
        let message = Message::new(Kind::FindNode, vec![0xab, 0xcd]);
        // Field 1, a number: 4. Field 2, two bytes.
        assert_eq!(message.encode()[..], [0x08, 4, 0x12, 2, 0xab, 0xcd]);
        let peer = Message {
            nearer: vec![contact(7)],
            ..Message::new(Kind::FindNode, Vec::new())
        };
        let id = contact(7).peer.to_bytes();
        let length = u8::try_from(id.len()).unwrap();
        let start = [0x08, 4, 8 << 3 | 2, length + 2, 0x0a, length];
        assert_eq!(peer.encode()[..], [&start[..], &id].concat());
    }

    #[test]
    fn lists_and_addresses_end_at_their_limits() {
        let many = Message {
            nearer: contacts(1..=NEARER_MAX as u64 + 3),
            ..Message::new(Kind::FindNode, Vec::new())
        };
        let read = Message::decode(&many.encode()).unwrap();
        assert_eq!((read.nearer.len(), read.skipped), (NEARER_MAX, 3));
        let mut one = contact(1);
        let address = |port| format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
        one.addresses = (1..=ADDRESSES_MAX + 2).map(address).collect();
        let wordy = Message {
            providers: vec![one],
            ..Message::new(Kind::GetProviders, Vec::new())
        };
        let read = Message::decode(&wordy.encode()).unwrap();
        assert_eq!(read.providers[0].addresses.len(), ADDRESSES_MAX);
        assert_eq!(read.skipped, 2);
    }

    #[test]
    fn what_is_no_message_is_told() {
        let long = Message::new(Kind::FindNode, vec![0; KEY_BYTES_MAX + 1]);
        let refused = Message::decode(&long.encode());
        assert_eq!(refused, Err(MessageError::Key(KEY_BYTES_MAX + 1)));
        assert_eq!(Message::decode(&[0x08, 9]), Err(MessageError::Kind(9)));
        let large = vec![0; MESSAGE_BYTES_MAX + 1];
        let refused = Message::decode(&large);
        assert_eq!(refused, Err(MessageError::TooLarge(MESSAGE_BYTES_MAX + 1)));
        let whole = whole().encode();
        let refused = Message::decode(&whole[..whole.len() - 1]).unwrap_err();
        assert!(refused.to_string().contains("ends beyond"), "{refused}");
        // A peer without a name is nobody; the rest counts.
        let nameless = [8 << 3 | 2, 2, 0x0a, 0, 0x08, 4];
        let read = Message::decode(&nameless).unwrap();
        assert_eq!(
            (read.kind, read.nearer.len(), read.skipped),
            (Kind::FindNode, 0, 1)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much_for_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = Message::decode(&bytes) {
                // What was understood is written and read the same.
                let again = Message::decode(&message.encode()).unwrap();
                prop_assert_eq!(Message { skipped: 0, ..message }, again);
            }
        }
    }
}
