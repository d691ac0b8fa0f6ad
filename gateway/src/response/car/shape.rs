//! As much of UnixFS as it takes to know which children of a node belong to a part.

/// The numbers in a UnixFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of content in the node itself.
    pub(super) inline: u64,
    /// Bytes of content below each child.
    pub(super) children: Vec<u64>,
    /// Buckets of a HAMT.
    pub(super) fanout: Option<u64>,
}

/// Reads them; `None` if the bytes are no protobuf.
pub(super) fn read(data: &[u8]) -> Option<Shape> {
    let mut shape = Shape::default();
    let mut rest = data;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (DATA, LENGTH) => shape.inline = bytes(&mut rest)?.len() as u64,
            (BLOCK_SIZES, VARINT) => shape.children.push(varint(&mut rest)?),
            (BLOCK_SIZES, LENGTH) => {
                let mut packed = bytes(&mut rest)?;
                while !packed.is_empty() {
                    shape.children.push(varint(&mut packed)?);
                }
            }
            (FANOUT, VARINT) => shape.fanout = Some(varint(&mut rest)?),
            (_, VARINT) => drop(varint(&mut rest)?),
            (_, LENGTH) => drop(bytes(&mut rest)?),
            (_, FIXED_64) => rest = rest.get(8..)?,
            (_, FIXED_32) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(shape)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

// Field numbers of UnixFS.
const DATA: u64 = 2;
const BLOCK_SIZES: u64 = 4;
const FANOUT: u64 = 6;

// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_sizes_one_by_one_and_packed() {
        let single = [0x08, 0x02, 0x12, 0x01, b'x', 0x20, 0x80, 0x08, 0x20, 0x05];
        let packed = [0x22, 0x03, 0x80, 0x08, 0x05, 0x12, 0x01, b'x'];
        for data in [&single[..], &packed[..]] {
            let shape = read(data).unwrap();
            assert_eq!((shape.inline, shape.children), (1, vec![1024, 5]));
        }
        assert_eq!(read(&[0x30, 0x80, 0x02]).unwrap().fanout, Some(256));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..64)) {
            read(&data);
        }
    }
}
