//! Messages as they are on a stream, for who speaks by hand: each behind its length, a varint.

use futures::{AsyncRead, AsyncReadExt};
use std::io;

/// A message behind its length.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + LENGTH_BYTES_MAX);
    put_varint(&mut framed, message.len() as u64);
    framed.extend_from_slice(message);
    framed
}

/// The next message of a stream.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = 0;
    for at in 0..LENGTH_BYTES_MAX {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        let [byte] = byte;
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await?;
            return Ok(message);
        }
    }
    let error = "a message is longer than any that is sent here";
    Err(io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(crate) fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.push(value.to_le_bytes()[0]);
}

pub(crate) fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if *byte < 0x80 {
            return Some(value);
        }
    }
}

/// Bytes of a length: messages are below 256 MiB.
const LENGTH_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn messages_are_read_as_they_were_framed() {
        let messages = [0, 1, 127, 128, 300, 20_000].map(|bytes| vec![7; bytes]);
        let stream: Vec<u8> = messages
            .iter()
            .flat_map(|message| framed(message))
            .collect();
        let mut stream = &stream[..];
        for message in &messages {
            assert_eq!(block_on(read_message(&mut stream)).unwrap(), *message);
        }
        assert!(block_on(read_message(&mut stream)).is_err(), "its end");
        let mut endless = &[0xff; 100][..];
        assert!(block_on(read_message(&mut endless)).is_err());
        let mut long = Vec::new();
        put_varint(&mut long, 1 << 40);
        assert_eq!(take_varint(&mut &long[..]), Some(1 << 40));
    }
}
