//! The messages of AutoNAT v2: each a protobuf behind its length.

use crate::protobuf::{
    FieldError, Fields, Value, int32, put_bytes, put_fixed, put_length, put_number, put_varint,
};
use bytes::{BufMut, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Multiaddr;
use std::io;

/// What goes over the stream of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Try one of these and say this number there. What is no address that we know stands as `None`.
    Request {
        addresses: Vec<Option<Multiaddr>>,
        nonce: u64,
    },
    /// How it went, with the address of this place in the list.
    Response { status: Status, at: u64, dial: Dial },
    /// Send so many bytes first, so that nobody has others dialled for nothing.
    DataRequest { at: u64, bytes: u64 },
    /// Some of them.
    Data(usize),
}

/// Whether the question was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Failed,
    Rejected,
    Refused,
    Done,
}

/// How the dial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dial {
    Unused,
    /// Nobody there.
    Failed,
    /// Somebody, but the number could not be said.
    Unheard,
    Done,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("a message of more than {MESSAGE_BYTES_MAX} bytes")]
    Long,
    #[error("not a message of this protocol")]
    Unknown,
}

impl Message {
    pub(super) fn encode(&self) -> BytesMut {
        let mut inner = BytesMut::new();
        let field = match self {
            Self::Request { addresses, nonce } => {
                for address in addresses {
                    let bytes = address.as_ref().map(Multiaddr::to_vec).unwrap_or_default();
                    put_length(&mut inner, 1, bytes.len());
                    inner.put_slice(&bytes);
                }
                put_fixed(&mut inner, 2, *nonce);
                1
            }
            Self::Response { status, at, dial } => {
                put_number(&mut inner, 1, status.code());
                put_number(&mut inner, 2, *at);
                put_number(&mut inner, 3, dial.code());
                2
            }
            Self::DataRequest { at, bytes } => {
                put_number(&mut inner, 1, *at);
                put_number(&mut inner, 2, *bytes);
                3
            }
            Self::Data(length) => {
                put_bytes(&mut inner, 1, &vec![0; *length]);
                4
            }
        };
        let mut out = BytesMut::new();
        put_length(&mut out, field, inner.len());
        out.put_slice(&inner);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut message = None;
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            let Value::Bytes(inner) = value else {
                continue;
            };
            // The last of several counts, as protobuf has it.
            message = match number {
                1 => Some(Self::decode_request(inner)?),
                2 => Some(Self::decode_response(inner)?),
                3 => Some(Self::decode_data_request(inner)?),
                4 => Some(Self::decode_data(inner)?),
                _ => message,
            };
        }
        message.ok_or(MessageError::Unknown)
    }

    fn decode_request(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut addresses, mut number) = (Vec::new(), 0);
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(address)) if addresses.len() < ADDRESSES_MAX => {
                    addresses.push(Multiaddr::try_from(address.to_vec()).ok());
                }
                (2, Value::Fixed(nonce)) => number = nonce,
                _ => {}
            }
        }
        Ok(Self::Request {
            addresses,
            nonce: number,
        })
    }

    fn decode_response(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut status, mut at, mut dial) = (Status::Failed, 0, Dial::Unused);
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(code)) => status = Status::of(code),
                (2, Value::Number(place)) => at = place,
                (3, Value::Number(code)) => dial = Dial::of(code),
                _ => {}
            }
        }
        Ok(Self::Response { status, at, dial })
    }

    fn decode_data_request(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut at, mut wanted) = (0, 0);
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(place)) => at = place,
                (2, Value::Number(bytes)) => wanted = bytes,
                _ => {}
            }
        }
        Ok(Self::DataRequest { at, bytes: wanted })
    }

    fn decode_data(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut length = 0;
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            if let (1, Value::Bytes(data)) = field {
                length = data.len();
            }
        }
        Ok(Self::Data(length))
    }
}

impl Status {
    fn code(self) -> u64 {
        match self {
            Self::Failed => 0,
            Self::Rejected => 100,
            Self::Refused => 101,
            Self::Done => 200,
        }
    }

    fn of(code: u64) -> Self {
        match int32(code) {
            100 => Self::Rejected,
            101 => Self::Refused,
            200 => Self::Done,
            _ => Self::Failed,
        }
    }
}

impl Dial {
    fn code(self) -> u64 {
        match self {
            Self::Unused => 0,
            Self::Failed => 100,
            Self::Unheard => 101,
            Self::Done => 200,
        }
    }

    fn of(code: u64) -> Self {
        match int32(code) {
            100 => Self::Failed,
            101 => Self::Unheard,
            200 => Self::Done,
            _ => Self::Unused,
        }
    }
}

/// The number that proves that somebody came.
pub(super) fn encode_nonce(nonce: u64) -> BytesMut {
    let mut out = BytesMut::new();
    put_fixed(&mut out, 1, nonce);
    out
}

pub(super) fn decode_nonce(bytes: &[u8]) -> Result<u64, MessageError> {
    let mut fields = Fields(bytes);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Fixed(nonce)) = (number, value) {
            found = Some(nonce);
        }
    }
    found.ok_or(MessageError::Unknown)
}

/// Reads one message's bytes.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, MessageError> {
    let (mut length, mut shift) = (0usize, 0u32);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        let [byte] = byte;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift >= LENGTH_BITS_MAX {
            return Err(MessageError::Long);
        }
    }
    if length > MESSAGE_BYTES_MAX {
        return Err(MessageError::Long);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Writes one message's bytes and sends them off.
pub(crate) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let mut framed = BytesMut::with_capacity(bytes.len() + 4);
    put_varint(&mut framed, bytes.len() as u64);
    framed.put_slice(bytes);
    stream.write_all(&framed).await?;
    stream.flush().await
}

/// Longest message taken; what others take too.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Bits that a length may have, in sevens.
const LENGTH_BITS_MAX: u32 = 21;
/// Addresses of a question that are looked at; more count as not said.
const ADDRESSES_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_written_as_others_write_them() {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let request = Message::Request {
            addresses: vec![Some(address)],
            nonce: 0x0807_0605_0403_0201,
        };
        let bytes = request.encode();
        assert_eq!(
            bytes[..],
            [
                0x0a, 19, 0x0a, 8, 4, 192, 0, 2, 1, 6, 0, 1, 0x11, 1, 2, 3, 4, 5, 6, 7, 8
            ]
        );
        let response = Message::Response {
            status: Status::Done,
            at: 0,
            dial: Dial::Failed,
        };
        assert_eq!(response.encode()[..], [0x12, 5, 0x08, 200, 1, 0x18, 100]);
        assert_eq!(encode_nonce(1)[..], [0x09, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_address_of_an_unknown_kind_keeps_its_place() {
        let mut inner = BytesMut::new();
        put_bytes(&mut inner, 1, &[0xff, 0xff, 0x03, 1]);
        put_bytes(
            &mut inner,
            1,
            &"/ip4/192.0.2.1/tcp/1"
                .parse::<Multiaddr>()
                .unwrap()
                .to_vec(),
        );
        put_fixed(&mut inner, 2, 7);
        let mut bytes = BytesMut::new();
        put_bytes(&mut bytes, 1, &inner);
        let Message::Request { addresses, nonce } = Message::decode(&bytes).unwrap() else {
            panic!("another message");
        };
        assert_eq!((addresses.len(), nonce), (2, 7));
        assert!(addresses[0].is_none() && addresses[1].is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in 0..4u8, number: u32, nonce: u64) {
            let message = match kind {
                0 => Message::Request { addresses: vec![], nonce },
                1 => Message::Response { status: Status::Rejected, at: u64::from(number), dial: Dial::Unheard },
                2 => Message::DataRequest { at: 1, bytes: u64::from(number) },
                _ => Message::Data(usize::try_from(number % 4096).unwrap()),
            };
            prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
            prop_assert_eq!(decode_nonce(&encode_nonce(nonce)).unwrap(), nonce);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
            let _ = decode_nonce(&bytes);
            let _ = futures::executor::block_on(read(&mut &bytes[..]));
        }
    }
}
