//! The fields of protobuf, in and out: as much of it as Bitswap uses.

use super::MessageError;
use bytes::{BufMut, BytesMut};

/// What a field holds.
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, MessageError> {
        loop {
            if self.0.is_empty() {
                return Ok(None);
            }
            let tag = self.varint()?;
            let number = tag >> 3;
            match tag & 7 {
                0 => return Ok(Some((number, Value::Number(self.varint()?)))),
                1 => drop(self.take(8)?),
                2 => {
                    let length = self.varint()?;
                    return Ok(Some((number, Value::Bytes(self.take(length)?))));
                }
                5 => drop(self.take(4)?),
                other => return Err(MessageError::WireType(other)),
            }
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], MessageError> {
        let length = usize::try_from(length).map_err(|_| MessageError::Cut)?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(MessageError::Cut)?;
        self.0 = rest;
        Ok(value)
    }

    /// Protobuf allows a varint that is longer than it need be.
    fn varint(&mut self) -> Result<u64, MessageError> {
        let mut value = 0u64;
        for at in 0..VARINT_BYTES_MAX {
            let (byte, rest) = self.0.split_first().ok_or(MessageError::Cut)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(MessageError::Varint)
    }
}

/// Protobuf's int32: the low half, whatever the high half says.
pub(super) fn int32(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn varint_len(value: u64) -> usize {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    unsigned_varint::encode::u64(value, &mut buffer).len()
}

pub(super) fn bytes_field_len(length: usize) -> usize {
    if length == 0 {
        return 0;
    }
    1 + varint_len(length as u64) + length
}

pub(super) fn number_field_len(value: u64) -> usize {
    if value == 0 {
        return 0;
    }
    1 + varint_len(value)
}

pub(super) fn put_varint(out: &mut BytesMut, value: u64) {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    out.put_slice(unsigned_varint::encode::u64(value, &mut buffer));
}

pub(super) fn put_length(out: &mut BytesMut, field: u8, length: usize) {
    out.put_u8(field << 3 | 2);
    put_varint(out, length as u64);
}

pub(super) fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_length(out, field, bytes.len());
        out.put_slice(bytes);
    }
}

/// Zero is the default and not written.
pub(super) fn put_number(out: &mut BytesMut, field: u8, value: u64) {
    if value != 0 {
        out.put_u8(field << 3);
        put_varint(out, value);
    }
}

const VARINT_BYTES_MAX: u32 = 10;
