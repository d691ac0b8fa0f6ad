//! The protobuf wire format, as little of it as dag-pb and UnixFS need.
//!
//! Both formats fix the order of bytes, which a general protobuf library does not promise, and both
//! are read from strangers: every length is compared with the bytes at hand before it is used.

/// A field, read.
pub(crate) enum Field<'a> {
    /// A number (wire type 0).
    Varint(u64),
    /// Four bytes (wire type 5).
    Fixed32(u32),
    /// Eight bytes (wire type 1).
    Fixed64,
    /// Bytes (wire type 2).
    Bytes(&'a [u8]),
}

/// Reads fields off the front of a message.
pub(crate) struct Fields<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Where the next field begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next field's number and value; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.at >= self.data.len() {
            return Ok(None);
        }
        let begin = self.at;
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| self.cut())?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let mut value = [0; 4];
                value.copy_from_slice(self.take(4)?);
                Field::Fixed32(u32::from_le_bytes(value))
            }
            other => return Err(format!("wire type {other} at byte {begin}")),
        };
        match key >> 3 {
            0 => Err(format!("field number 0 at byte {begin}")),
            number => Ok(Some((number, field))),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).ok_or_else(|| self.cut())?;
        let taken = self.data.get(self.at..end).ok_or_else(|| self.cut())?;
        self.at = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let (value, length) = varint(rest).ok_or_else(|| self.cut())?;
        self.at += length;
        Ok(value)
    }

    fn cut(&self) -> String {
        format!("cut short or a bad length at byte {}", self.at)
    }
}

/// A varint as protobuf reads it: up to ten bytes, longer forms than needed allowed.
pub(crate) fn varint(data: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (at, byte) in data.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == VARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends field `number` as a number.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    put_varint(out, value);
}

/// Appends field `number` as bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u8, data: &[u8]) {
    out.push((number << 3) | 2);
    put_varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

/// How many bytes a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    match value {
        0 => 1,
        _ => (70 - value.leading_zeros() as usize) / 7,
    }
}

/// How many bytes a bytes field takes, its key included (field numbers below 16).
pub(crate) fn bytes_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

const VARINT_BYTES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_read_back_as_written(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(varint(&out), Some((value, out.len())));
            prop_assert_eq!(varint(&out[..out.len() - 1]), None);
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert_eq!(varint(&[0xff; 10]), None);
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(varint(&most), Some((u64::MAX, 10)));
    }
}
