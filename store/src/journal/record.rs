//! The journal's records and their bytes.
//!
//! `magic u32 | length u32 | number u64 | crc32c u32 | payload`, little-endian; the checksum covers
//! length, number and payload. The payload is a kind byte and its fields; integers are varints,
//! texts and CIDs are length-prefixed.

use crate::cid;
use crate::log::{Position, SegmentId};
use crate::pin::{Pin, PinMode};
use bytes::Bytes;

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
    /// The segment is given up. What lived in it was copied to segments that then had these lengths.
    Retired {
        /// What may be removed.
        segment: SegmentId,
        /// Where its living sections are, and how long that must be for all of them to be there.
        copies: Vec<(SegmentId, u32)>,
    },
    /// The sections at these positions are dead, and the index knew that at its checkpoint.
    Buried(Vec<Position>),
    /// Sections of cached blocks that must stay from now on.
    Kept(Vec<Position>),
    /// Every record up to this number had reached the disk when this one was written.
    Synced(u64),
    /// The index holds everything up to this record: an older copy of it is not to be trusted.
    Checkpointed(u64),
    /// Segment numbers of this stream are used up to this one.
    Used(SegmentId),
    /// Sections were copied elsewhere. All of it holds at once, or a block would count twice, or not at all.
    Moved {
        /// How far the segments count that they were copied to.
        lengths: Vec<(SegmentId, u32)>,
        /// Copies of what was cached when it was copied, and must stay.
        kept: Vec<Position>,
        /// The originals, but in the place of those that had died meanwhile their copies.
        dead: Vec<Position>,
    },
    /// A note of this kind was made, or is gone. What kinds there are is for those to know who make them.
    Noted {
        /// Its kind.
        about: u8,
        /// What it is found by, among those of its kind.
        key: Vec<u8>,
        /// What it says.
        value: Option<Bytes>,
    },
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
    // There must be a next one, so the last of all numbers is nobody's.
    let number = u64::from_le_bytes(take(&mut cursor)?);
    number.checked_add(1)?;
    let sum = u32::from_le_bytes(take(&mut cursor)?);
    let payload = cursor.get(..usize::try_from(length).ok()?)?;
    if checksum(length, number, payload) != sum {
        return None;
    }
    Some((number, parse(payload)?, HEADER + payload.len()))
}

/// How many bytes the record of a note takes, about.
pub(crate) fn bytes_of_note(key: &[u8], value: &[u8]) -> u64 {
    (HEADER + key.len() + value.len() + NOTE_FIELDS) as u64
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
            put_lengths(&mut out, lengths);
        }
        Record::Pinned(pin) => {
            out.push(PINNED_WITH_MORE);
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
            integer(&mut out, pin.created.unwrap_or(0));
            match pin.expires {
                None => out.push(0),
                Some(at) => {
                    out.push(1);
                    integer(&mut out, at);
                }
            }
            integer(&mut out, pin.metadata.len() as u64);
            for (key, value) in &pin.metadata {
                blob(&mut out, key.as_bytes());
                blob(&mut out, value.as_bytes());
            }
        }
        Record::Unpinned(key) => {
            out.push(UNPINNED);
            blob(&mut out, key);
        }
        Record::Deleted(positions) => {
            out.push(DELETED);
            put_positions(&mut out, positions);
        }
        Record::Retired { segment, copies } => {
            out.push(RETIRED);
            integer(&mut out, segment.packed().into());
            put_lengths(&mut out, copies);
        }
        Record::Buried(positions) => {
            out.push(BURIED);
            put_positions(&mut out, positions);
        }
        Record::Kept(positions) => {
            out.push(KEPT);
            put_positions(&mut out, positions);
        }
        Record::Synced(number) => {
            out.push(SYNCED);
            integer(&mut out, *number);
        }
        Record::Checkpointed(number) => {
            out.push(CHECKPOINTED);
            integer(&mut out, *number);
        }
        Record::Used(segment) => {
            out.push(USED);
            integer(&mut out, segment.packed().into());
        }
        Record::Moved {
            lengths,
            kept,
            dead,
        } => {
            out.push(MOVED);
            put_lengths(&mut out, lengths);
            put_positions(&mut out, kept);
            put_positions(&mut out, dead);
        }
        Record::Noted { about, key, value } => {
            out.extend_from_slice(&[NOTED, *about]);
            blob(&mut out, key);
            match value {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    blob(&mut out, value);
                }
            }
        }
    }
    out
}

fn put_lengths(out: &mut Vec<u8>, lengths: &[(SegmentId, u32)]) {
    integer(out, lengths.len() as u64);
    for (segment, length) in lengths {
        integer(out, segment.packed().into());
        integer(out, (*length).into());
    }
}

fn put_positions(out: &mut Vec<u8>, positions: &[Position]) {
    integer(out, positions.len() as u64);
    for position in positions {
        integer(out, position.segment.packed().into());
        integer(out, position.offset.into());
    }
}

fn parse(payload: &[u8]) -> Option<Record> {
    let mut cursor = payload;
    let [kind] = take::<1>(&mut cursor)?;
    let record = match kind {
        COMMITTED => Record::Committed(pairs(&mut cursor)?),
        PINNED => Record::Pinned(pin(&mut cursor)?),
        PINNED_WITH_MORE => {
            let mut pin = pin(&mut cursor)?;
            pin.created = Some(read_number(&mut cursor)?).filter(|at| *at > 0);
            pin.expires = match take::<1>(&mut cursor)? {
                [0] => None,
                [1] => Some(read_number(&mut cursor)?),
                _ => return None,
            };
            for _ in 0..read_integer(&mut cursor)? {
                let (key, value) = (read_text(&mut cursor)?, read_text(&mut cursor)?);
                pin.metadata.insert(key, value);
            }
            Record::Pinned(pin)
        }
        UNPINNED => Record::Unpinned(read_blob(&mut cursor)?.to_vec()),
        DELETED => Record::Deleted(positions(&mut cursor)?),
        RETIRED_1 => Record::Retired {
            segment: SegmentId::unpacked(read_integer(&mut cursor)?),
            copies: Vec::new(),
        },
        RETIRED => Record::Retired {
            segment: SegmentId::unpacked(read_integer(&mut cursor)?),
            copies: pairs(&mut cursor)?,
        },
        BURIED => Record::Buried(positions(&mut cursor)?),
        KEPT => Record::Kept(positions(&mut cursor)?),
        SYNCED => Record::Synced(read_number(&mut cursor)?),
        CHECKPOINTED => Record::Checkpointed(read_number(&mut cursor)?),
        USED => Record::Used(SegmentId::unpacked(read_integer(&mut cursor)?)),
        MOVED => Record::Moved {
            lengths: pairs(&mut cursor)?,
            kept: positions(&mut cursor)?,
            dead: positions(&mut cursor)?,
        },
        NOTED => {
            let [about] = take::<1>(&mut cursor)?;
            let key = read_blob(&mut cursor)?.to_vec();
            let value = match take::<1>(&mut cursor)? {
                [0] => None,
                [1] => Some(Bytes::copy_from_slice(read_blob(&mut cursor)?)),
                _ => return None,
            };
            Record::Noted { about, key, value }
        }
        _ => return None,
    };
    cursor.is_empty().then_some(record)
}

/// The fields that every pin has.
fn pin(cursor: &mut &[u8]) -> Option<Pin> {
    let mode = match take::<1>(cursor)? {
        [0] => PinMode::Recursive,
        [1] => PinMode::Direct,
        _ => return None,
    };
    let cid = cid::read(&mut read_blob(cursor)?).ok()?;
    let name = match take::<1>(cursor)? {
        [0] => None,
        _ => Some(read_text(cursor)?),
    };
    let name = name.filter(|name| !name.is_empty());
    Some(Pin {
        name,
        ..Pin::new(cid, mode, None).ok()?
    })
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

fn positions(cursor: &mut &[u8]) -> Option<Vec<Position>> {
    let pairs = pairs(cursor)?.into_iter();
    let position = |(segment, offset)| Position { segment, offset };
    Some(pairs.map(position).collect())
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
    u32::try_from(read_number(cursor)?).ok()
}

fn read_number(cursor: &mut &[u8]) -> Option<u64> {
    let (value, rest) = unsigned_varint::decode::u64(cursor).ok()?;
    // What exceeds 64 bits the decoder drops without a word.
    let mut buffer = unsigned_varint::encode::u64_buffer();
    let written = unsigned_varint::encode::u64(value, &mut buffer);
    cursor.starts_with(written).then_some(())?;
    *cursor = rest;
    Some(value)
}

fn read_blob<'a>(cursor: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_integer(cursor)?).ok()?;
    let (blob, rest) = cursor.split_at_checked(length)?;
    *cursor = rest;
    Some(blob)
}

fn read_text(cursor: &mut &[u8]) -> Option<String> {
    String::from_utf8(read_blob(cursor)?.to_vec()).ok()
}

fn take<const N: usize>(cursor: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = cursor.split_first_chunk()?;
    *cursor = rest;
    Some(*bytes)
}

const RECORD_MAGIC: u32 = 0x7a11_c0de;
/// Bytes before the payload.
const HEADER: usize = 4 + 4 + 8 + 4;
/// Kind, what it is about, two lengths of up to three bytes, and whether there is a value.
const NOTE_FIELDS: usize = 9;
const COMMITTED: u8 = 1;
/// As format 3 wrote it: without what is known beside the name.
const PINNED: u8 = 2;
const UNPINNED: u8 = 3;
const DELETED: u8 = 4;
/// As format 1 wrote it: without the copies.
const RETIRED_1: u8 = 5;
const RETIRED: u8 = 6;
const KEPT: u8 = 7;
const SYNCED: u8 = 8;
const CHECKPOINTED: u8 = 9;
const USED: u8 = 10;
const BURIED: u8 = 11;
const MOVED: u8 = 12;
const NOTED: u8 = 13;
const PINNED_WITH_MORE: u8 = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::Cid;
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
    fn every_kind_reads_back() {
        let segment = SegmentId::unpacked(7);
        let position = Position { segment, offset: 9 };
        for record in [
            Record::Committed(vec![(segment, 5)]),
            Record::Unpinned(vec![1, 2]),
            Record::Deleted(vec![position]),
            Record::Retired {
                segment,
                copies: vec![(SegmentId::unpacked(8), 77)],
            },
            Record::Buried(vec![position]),
            Record::Kept(vec![position, position]),
            Record::Synced(u64::MAX),
            Record::Checkpointed(1 << 40),
            Record::Used(segment),
            Record::Moved {
                lengths: vec![(segment, 500)],
                kept: vec![],
                dead: vec![position, position],
            },
            Record::Noted {
                about: 1,
                key: vec![1, 2, 3],
                value: Some(Bytes::from_static(b"a note")),
            },
            Record::Noted {
                about: 255,
                key: vec![],
                value: None,
            },
        ] {
            assert_eq!(parse(&payload(&record)), Some(record));
        }
    }

    fn some_pin() -> Pin {
        let digest = cid::Multihash::wrap(0x12, &[7; 32]).unwrap();
        let name = Some("a name".to_owned());
        Pin::new(Cid::new_v1(0x55, digest), PinMode::Direct, name).unwrap()
    }

    #[test]
    fn a_pin_reads_back_with_all_that_is_known_of_it() {
        let plain = some_pin();
        let mut full = Pin {
            created: Some(1_800_000_000),
            expires: Some(u64::MAX),
            ..some_pin()
        };
        full.metadata.insert("key".to_owned(), "value".to_owned());
        full.metadata.insert("k".to_owned(), String::new());
        for pin in [plain, full] {
            let record = Record::Pinned(pin);
            assert_eq!(parse(&payload(&record)), Some(record));
        }
    }

    #[test]
    fn a_pin_of_format_3_is_read() {
        let cid = some_pin().cid.to_bytes();
        let mut bytes = vec![PINNED, 1];
        blob(&mut bytes, &cid);
        bytes.push(1);
        blob(&mut bytes, b"a name");
        assert_eq!(parse(&bytes), Some(Record::Pinned(some_pin())));
        bytes.push(0);
        assert_eq!(parse(&bytes), None);
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

    #[test]
    fn numbers_that_exceed_their_bits_are_refused() {
        let mut longest = [[0xff; 9].as_slice(), &[1]].concat();
        assert_eq!(read_number(&mut &longest[..]), Some(u64::MAX));
        assert_eq!(read_integer(&mut &longest[..]), None);
        *longest.last_mut().unwrap() = 3;
        assert_eq!(read_number(&mut &longest[..]), None);
        assert_eq!(read_integer(&mut &[0x84, 0x80, 0x80, 0x80, 0x20][..]), None);
    }
}
