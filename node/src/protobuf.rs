//! The fields of protobuf, in and out: as much of it as Bitswap, the DHT and AutoNAT use.

use bytes::{BufMut, BytesMut};

/// Why bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It is cut off.
    #[error("a field ends beyond its message")]
    Cut,
    /// A number is too long.
    #[error("a varint of more than ten bytes")]
    Varint,
    /// A field of a kind that there is not.
    #[error("a field with the unknown wire type {0}")]
    WireType(u64),
}

/// What a field holds.
pub(crate) enum Value<'a> {
    Number(u64),
    /// Eight bytes as they are.
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, one after the other.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, FieldError> {
        loop {
            if self.0.is_empty() {
                return Ok(None);
            }
            let tag = self.varint()?;
            let number = tag >> 3;
            match tag & 7 {
                0 => return Ok(Some((number, Value::Number(self.varint()?)))),
                1 => {
                    let bytes = self.take(8)?.try_into().map_err(|_| FieldError::Cut)?;
                    return Ok(Some((number, Value::Fixed(u64::from_le_bytes(bytes)))));
                }
                2 => {
                    let length = self.varint()?;
                    return Ok(Some((number, Value::Bytes(self.take(length)?))));
                }
                5 => drop(self.take(4)?),
                other => return Err(FieldError::WireType(other)),
            }
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FieldError> {
        let length = usize::try_from(length).map_err(|_| FieldError::Cut)?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(FieldError::Cut)?;
        self.0 = rest;
        Ok(value)
    }

    /// Protobuf allows a varint that is longer than it need be.
    fn varint(&mut self) -> Result<u64, FieldError> {
        let mut value = 0u64;
        for at in 0..VARINT_BYTES_MAX {
            let (byte, rest) = self.0.split_first().ok_or(FieldError::Cut)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FieldError::Varint)
    }
}

/// Protobuf's int32: the low half, whatever the high half says.
pub(crate) fn int32(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn varint_len(value: u64) -> usize {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    unsigned_varint::encode::u64(value, &mut buffer).len()
}

pub(crate) fn bytes_field_len(length: usize) -> usize {
    if length == 0 {
        return 0;
    }
    1 + varint_len(length as u64) + length
}

pub(crate) fn number_field_len(value: u64) -> usize {
    if value == 0 {
        return 0;
    }
    1 + varint_len(value)
}

pub(crate) fn put_varint(out: &mut BytesMut, value: u64) {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    out.put_slice(unsigned_varint::encode::u64(value, &mut buffer));
}

pub(crate) fn put_length(out: &mut BytesMut, field: u8, length: usize) {
    out.put_u8(field << 3 | 2);
    put_varint(out, length as u64);
}

pub(crate) fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_length(out, field, bytes.len());
        out.put_slice(bytes);
    }
}

/// Zero is the default and not written.
pub(crate) fn put_number(out: &mut BytesMut, field: u8, value: u64) {
    if value != 0 {
        put_any_number(out, field, value);
    }
}

/// Written whatever it is.
pub(crate) fn put_any_number(out: &mut BytesMut, field: u8, value: u64) {
    out.put_u8(field << 3);
    put_varint(out, value);
}

/// Written whatever it is.
pub(crate) fn put_fixed(out: &mut BytesMut, field: u8, value: u64) {
    out.put_u8(field << 3 | 1);
    out.put_u64_le(value);
}

const VARINT_BYTES_MAX: u32 = 10;
