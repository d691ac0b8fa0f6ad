//! The journal's records and their bytes.
//!
//! `magic u32 | length u32 | number u64 | crc32c u32 | payload`, little-endian; the checksum covers
//! length, number and payload. The payload is a kind byte and its fields; integers are varints,
//! texts and CIDs are length-prefixed.

use crate::cid::Cid;
use crate::log::{Position, SegmentId};
use crate::pin::{Pin, PinMode};

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Segments count up to these lengths.
    Committed(Vec<(SegmentId, u32)>),
    /// A pin was made or renamed.
    Pinned(Pin),
    /// The pin with this key is gone.
    Unpinned(Vec<u8>),
    /// The sections at these positions are dead.
    Deleted(Vec<Position>),
    /// The segment is given up.
    Retired(SegmentId),
}

/// Appends a record's bytes.
pub(crate) fn write(out: &mut Vec<u8>, number: u64, record: &Record) {
    let payload = payload(record);
    // A payload is bounded by DEAD_PER_RECORD and the number of segments, far below 4 GiB.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&checksum(length, number, &payload).to_le_bytes());
    out.extend_from_slice(&payload);
}

/// Reads the record at the start of `bytes`: its number, itself, and how many bytes it took.
pub(crate) fn read(bytes: &[u8]) -> Option<(u64, Record, usize)> {
    let mut cursor = bytes;
    if u32::from_le_bytes(take(&mut cursor)?) != RECORD_MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(take(&mut cursor)?);
    let number = u64::from_le_bytes(take(&mut cursor)?);
    let sum = u32::from_le_bytes(take(&mut cursor)?);
    let payload = cursor.get(..usize::try_from(length).ok()?)?;
    if checksum(length, number, payload) != sum {
        return None;
    }
    Some((number, parse(payload)?, HEADER + payload.len()))
}

fn checksum(length: u32, number: u64, payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&length.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &number.to_le_bytes());
    crc32c::crc32c_append(sum, payload)
}

fn payload(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    match record {
        Record::Committed(lengths) => {
            out.push(COMMITTED);
            integer(&mut out, lengths.len() as u64);
            for (segment, length) in lengths {
                integer(&mut out, segment.packed().into());
                integer(&mut out, (*length).into());
            }
        }
        Record::Pinned(pin) => {
            out.push(PINNED);
            out.push(match pin.mode {
                PinMode::Recursive => 0,
                PinMode::Direct => 1,
            });
            blob(&mut out, &pin.cid.to_bytes());
            match &pin.name {
                None => out.push(0),
                Some(name) => {
                    out.push(1);
                    blob(&mut out, name.as_bytes());
                }
            }
        }
        Record::Unpinned(key) => {
            out.push(UNPINNED);
            blob(&mut out, key);
        }
        Record::Deleted(positions) => {
            out.push(DELETED);
            integer(&mut out, positions.len() as u64);
            for position in positions {
                integer(&mut out, position.segment.packed().into());
                integer(&mut out, position.offset.into());
            }
        }
        Record::Retired(segment) => {
            out.push(RETIRED);
            integer(&mut out, segment.packed().into());
        }
    }
    out
}

fn parse(payload: &[u8]) -> Option<Record> {
    let mut cursor = payload;
    let [kind] = take::<1>(&mut cursor)?;
    let record = match kind {
        COMMITTED => Record::Committed(pairs(&mut cursor)?),
        PINNED => {
            let mode = match take::<1>(&mut cursor)? {
                [0] => PinMode::Recursive,
                [1] => PinMode::Direct,
                _ => return None,
            };
            let cid = Cid::try_from(read_blob(&mut cursor)?).ok()?;
            let name = match take::<1>(&mut cursor)? {
                [0] => None,
                _ => Some(String::from_utf8(read_blob(&mut cursor)?.to_vec()).ok()?),
            };
            Record::Pinned(Pin { cid, mode, name })
        }
        UNPINNED => Record::Unpinned(read_blob(&mut cursor)?.to_vec()),
        DELETED => Record::Deleted(
            pairs(&mut cursor)?
                .into_iter()
                .map(|(segment, offset)| Position { segment, offset })
                .collect(),
        ),
        RETIRED => Record::Retired(SegmentId::unpacked(read_integer(&mut cursor)?)),
        _ => return None,
    };
    cursor.is_empty().then_some(record)
}

fn pairs(cursor: &mut &[u8]) -> Option<Vec<(SegmentId, u32)>> {
    let count: u32 = read_integer(cursor)?;
    // Grown as read: a wrong count must not allocate.
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((
            SegmentId::unpacked(read_integer(cursor)?),
            read_integer(cursor)?,
        ));
    }
    Some(pairs)
}

fn integer(out: &mut Vec<u8>, value: u64) {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    out.extend_from_slice(unsigned_varint::encode::u64(value, &mut buffer));
}

fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    integer(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn read_integer(cursor: &mut &[u8]) -> Option<u32> {
    let (value, rest) = unsigned_varint::decode::u32(cursor).ok()?;
    *cursor = rest;
    Some(value)
}

fn read_blob<'a>(cursor: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_integer(cursor)?).ok()?;
    let (blob, rest) = cursor.split_at_checked(length)?;
    *cursor = rest;
    Some(blob)
}

fn take<const N: usize>(cursor: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = cursor.split_first_chunk()?;
    *cursor = rest;
    Some(*bytes)
}

const RECORD_MAGIC: u32 = 0x7a11_c0de;
/// Bytes before the payload.
const HEADER: usize = 4 + 4 + 8 + 4;
const COMMITTED: u8 = 1;
const PINNED: u8 = 2;
const UNPINNED: u8 = 3;
const DELETED: u8 = 4;
const RETIRED: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = parse(&bytes);
        }

        #[test]
        fn commits_read_back(lengths in proptest::collection::vec((1u32.., any::<u32>()), 0..50)) {
            let lengths = lengths.into_iter().map(|(id, length)| (SegmentId::unpacked(id), length));
            let record = Record::Committed(lengths.collect());
            let mut bytes = Vec::new();
            write(&mut bytes, 7, &record);
            let length = bytes.len();
            bytes.push(0xff);
            prop_assert_eq!(read(&bytes), Some((7, record, length)));
        }
    }

    #[test]
    fn one_flipped_bit_is_always_seen() {
        let record = Record::Unpinned(vec![1, 2, 3, 4, 5]);
        let mut bytes = Vec::new();
        write(&mut bytes, 1, &record);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(read(&bytes).is_some());
    }
}
