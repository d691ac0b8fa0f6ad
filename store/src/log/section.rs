//! One section of a segment: `varint | CID | bytes`.

use super::Stream;
use crate::block::{BLOCK_BYTES_MAX, Block};
use crate::cid::{self, CID_BYTES_MAX, Cid};
use crate::reference::Reference;
use bytes::Bytes;

/// What precedes a block's bytes, read back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) cid: Cid,
    /// Bytes before the block's own: varint and CID.
    pub(crate) prefix: u32,
    /// Bytes of the block.
    pub(crate) length: u32,
}

impl Header {
    /// Bytes of the whole section.
    pub(crate) const fn section(&self) -> u32 {
        self.prefix + self.length
    }
}

/// Reads a header from the start of `bytes`, which may end early inside the block's own bytes but
/// must hold the whole prefix. `None` if there is no valid one.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let (section, rest) = unsigned_varint::decode::u32(bytes).ok()?;
    let varint = bytes.len() - rest.len();
    if varint > VARINT_MAX {
        return None; // The decoder drops what exceeds 32 bits without a word.
    }
    let section = usize::try_from(section).ok()?;
    if section > SECTION_MAX {
        return None;
    }
    let mut cursor = rest.get(..section.min(rest.len()))?;
    let before = cursor.len();
    let cid = cid::read(&mut cursor).ok()?;
    let named = before - cursor.len();
    cid::check(&cid).ok()?;
    let length = section.checked_sub(named)?;
    (length <= BLOCK_BYTES_MAX && named <= CID_BYTES_MAX).then_some(Header {
        cid,
        prefix: u32::try_from(varint + named).ok()?,
        length: u32::try_from(length).ok()?,
    })
}

/// Whether `data` is what a section of this stream may hold under `cid`.
pub(crate) fn is_whole(stream: Stream, cid: Cid, data: Bytes) -> bool {
    match stream {
        Stream::File => Reference::decode(&cid, &data).is_some(),
        Stream::Leaf | Stream::Node | Stream::Cache => Block::verify(cid, data).is_ok(),
    }
}

/// The header of every segment: CARv1 with one root, the empty identity CID, because common
/// readers refuse an empty list.
pub(crate) fn file_header() -> Vec<u8> {
    const BODY_BYTES: u8 = 25;
    // {"roots": [bafkqaaa], "version": 1} in dag-cbor.
    const BODY: [u8; BODY_BYTES as usize] = [
        0xa2, 0x65, b'r', b'o', b'o', b't', b's', 0x81, 0xd8, 0x2a, 0x45, 0x00, 0x01, 0x55, 0x00,
        0x00, 0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x01,
    ];
    let mut header = vec![BODY_BYTES];
    header.extend_from_slice(&BODY);
    header
}

/// Longest prefix: a varint of up to 4 bytes and the longest CID.
pub(crate) const PREFIX_MAX: usize = VARINT_MAX + CID_BYTES_MAX;
/// Bytes of the longest section's length.
const VARINT_MAX: usize = 4;
/// Longest section without its varint.
const SECTION_MAX: usize = CID_BYTES_MAX + BLOCK_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::car::write;

    /// What a section of `length` bytes begins with, also of lengths that no block has.
    fn prefix(cid: &Cid, length: usize) -> Vec<u8> {
        let cid = cid.to_bytes();
        let mut buffer = unsigned_varint::encode::u64_buffer();
        let varint = unsigned_varint::encode::u64((cid.len() + length) as u64, &mut buffer);
        [varint, &cid].concat()
    }

    #[test]
    fn a_section_reads_back() {
        for length in [0, 1, 100, 20_000, BLOCK_BYTES_MAX] {
            let prefix_of = Prefix {
                version: cid::Version::V1,
                codec: cid::RAW,
                hash: cid::HashKind::Sha2_256,
            };
            let block = Block::new(prefix_of, Bytes::from(vec![1; length])).unwrap();
            let prefix = write::section_prefix(&block);
            let header = header(&prefix).unwrap();
            assert_eq!(header.cid, *block.cid());
            assert_eq!(header.prefix as usize, prefix.len());
            assert_eq!(header.length as usize, length);
            assert!(prefix.len() <= PREFIX_MAX);
        }
    }

    #[test]
    fn refuses_sections_that_cannot_be() {
        let cid = cid::parse("bafkqaaa").unwrap();
        assert!(header(&prefix(&cid, BLOCK_BYTES_MAX + 1)).is_none());
        assert!(header(&[]).is_none());
        assert!(header(&[0]).is_none(), "shorter than its CID");
        assert!(header(&[3, 1, 0x55, 0]).is_none(), "ends inside its CID");
        assert!(header(&[0xff; 12]).is_none());
        let exceeds = [0x84, 0x80, 0x80, 0x80, 0x20, 1, 0x55, 0, 0];
        assert!(header(&exceeds).is_none(), "its length exceeds 32 bits");
    }

    #[test]
    fn the_file_header_is_the_one_of_a_car_with_the_empty_root() {
        let root = cid::parse("bafkqaaa").unwrap();
        assert_eq!(file_header(), write::header(&[root]));
    }
}
