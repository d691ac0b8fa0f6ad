//! CARs are read back as they were written, and what is no CAR, lies or breaks off says so.

use super::*;
use crate::block::Prefix;
use crate::car::write;
use crate::cid::{self, HashKind, Version};
use proptest::prelude::*;

fn block(data: Vec<u8>) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, data.into()).unwrap()
}

fn car(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut out = write::header(roots).to_vec();
    for block in blocks {
        let before = out.len();
        out.extend(write::section_prefix(block));
        out.extend(block.data());
        assert_eq!((out.len() - before) as u64, write::section_len(block));
    }
    out
}

/// A CARv2 around a CARv1, with room before and an index after.
fn v2(inner: &[u8]) -> Vec<u8> {
    let mut out = data_encoding::HEXLOWER
        .decode(b"0aa16776657273696f6e02")
        .unwrap();
    let offset = 11 + 40 + 5_u64;
    out.extend([0; 16]);
    out.extend(offset.to_le_bytes());
    out.extend((inner.len() as u64).to_le_bytes());
    out.extend((offset + inner.len() as u64).to_le_bytes());
    out.extend([0; 5]);
    out.extend(inner);
    out.extend(b"an index of some kind");
    out
}

type Sections = Vec<(Cid, Bytes)>;

fn read(bytes: &[u8]) -> Result<(Vec<Cid>, Sections), CarError> {
    let car = CarReader::new(bytes)?;
    let roots = car.roots().to_vec();
    Ok((roots, car.collect::<Result<_, _>>()?))
}

fn take(bytes: &[u8]) -> Result<Vec<Block>, TakeError<std::convert::Infallible>> {
    let mut taken = Vec::new();
    for_each_batch(&mut CarReader::new(bytes)?, |blocks| {
        taken.extend(blocks);
        Ok(())
    })?;
    Ok(taken)
}

proptest! {
    #[test]
    fn blocks_read_back_as_written(data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut blocks: Vec<_> = data.into_iter().map(block).collect();
        blocks.extend(Block::from_identity(&cid::parse("bafkqaaa").unwrap()));
        let roots: Vec<_> = blocks.iter().take(2).map(|block| *block.cid()).collect();
        let one = car(&roots, &blocks);
        for bytes in [one.clone(), v2(&one)] {
            let reader = CarReader::new(&bytes[..]).unwrap();
            prop_assert_eq!(reader.roots(), &roots);
            prop_assert_eq!(&take(&bytes).unwrap(), &blocks);
        }
    }

    #[test]
    fn every_cut_is_seen(length in 0..200_usize, cut: prop::sample::Index) {
        let blocks = [block(vec![7; length]), block(vec![8; 3])];
        let one = car(&[*blocks[0].cid()], &blocks);
        // A cut between two sections of a CARv1 cannot be told from its end.
        let ends = [
            write::header(&[*blocks[0].cid()]).len(),
            one.len() - usize::try_from(write::section_len(&blocks[1])).unwrap(),
        ];
        let at = cut.index(one.len());
        let result = read(&one[..at]);
        if ends.contains(&at) {
            prop_assert!(result.is_ok());
        } else {
            prop_assert!(matches!(result, Err(CarError::CutShort { .. })), "{at}: {result:?}");
        }
        let two = v2(&one);
        let at = cut.index(two.len() - 21);
        let result = read(&two[..at]);
        prop_assert!(matches!(result, Err(CarError::CutShort { .. })), "{at}: {result:?}");
    }

    #[test]
    fn random_bytes_never_panic(
        data in prop::collection::vec(any::<u8>(), 0..200),
        whole: bool,
    ) {
        let mut bytes = if whole { car(&[], &[]) } else { Vec::new() };
        bytes.extend(data);
        let _ = read(&bytes);
    }
}

#[test]
fn the_header_of_a_known_car() {
    let roots = [cid::parse("bafkqaaa").unwrap()];
    assert_eq!(
        data_encoding::HEXLOWER.encode(&write::header(&roots)),
        "19a265726f6f747381d82a4500015500006776657273696f6e01"
    );
}

#[test]
fn a_block_that_lies_is_named() {
    let blocks = [block(vec![1; 100]), block(vec![2; 100])];
    let mut bytes = car(&[*blocks[0].cid()], &blocks);
    *bytes.last_mut().unwrap() ^= 1;
    let Err(TakeError::Block { cid, source }) = take(&bytes) else {
        panic!("it was taken");
    };
    assert_eq!(cid, *blocks[1].cid());
    assert_eq!(*source, BlockError::Mismatch { cid });
}

#[test]
fn a_failing_taker_ends_it() {
    let bytes = car(&[], &[block(vec![1])]);
    let result = for_each_batch(&mut CarReader::new(&bytes[..]).unwrap(), |_| Err("full"));
    assert!(matches!(result, Err(TakeError::Taker("full"))));
}

#[test]
fn lengths_are_compared_before_anything_is_reserved() {
    let header = write::header(&[]);
    for (tail, why) in [
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..],
            "a section of 2^63",
        ),
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "a varint of 64 bits",
        ),
        (&[0x80, 0x00], "a length in a longer form"),
        (&[0x00], "a section without anything"),
        (&[0x01, 0x55], "a CID cut by its section"),
    ] {
        let bytes = [&header[..], tail].concat();
        assert!(
            matches!(read(&bytes), Err(CarError::Malformed { .. })),
            "{why}"
        );
    }
    assert!(matches!(
        read(&[0xff, 0xff, 0xff, 0x7f]),
        Err(CarError::Malformed { .. })
    ));
}

#[test]
fn what_is_no_car_says_so() {
    for bytes in [
        &b"\x0bhello world"[..],
        b"<html></html>",
        b"\x01\xa0",
        b"\x0a\xa1gversion\x03",
        b"\x0a\xa1gversion\x01",
    ] {
        assert!(CarReader::new(bytes).is_err(), "{bytes:?}");
    }
    assert!(matches!(
        CarReader::new(&[][..]),
        Err(CarError::CutShort { at: 0 })
    ));
}

#[test]
fn a_reader_that_failed_is_done() {
    let mut bytes = car(&[], &[block(vec![1; 10])]);
    bytes.pop();
    let mut car = CarReader::new(&bytes[..]).unwrap();
    assert!(car.next().unwrap().is_err());
    assert!(car.next().is_none());
}

#[test]
fn long_sections_come_whole_and_cut_ones_are_told() {
    for length in [
        UNSEEN_BYTES_MAX - 100,
        UNSEEN_BYTES_MAX - 36,
        UNSEEN_BYTES_MAX,
        3 * UNSEEN_BYTES_MAX,
        BLOCK_BYTES_MAX,
    ] {
        let block = block(vec![7; length]);
        let whole = car(&[*block.cid()], std::slice::from_ref(&block));
        let (_, sections) = read(&whole).unwrap();
        assert_eq!(sections, [block.into_parts()], "{length}");
        let cut = read(&whole[..whole.len() - 1]);
        assert!(matches!(cut, Err(CarError::CutShort { .. })), "{length}");
    }
}
